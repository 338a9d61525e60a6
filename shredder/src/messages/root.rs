//! Tree-hash roots, which gateways sign.
//!
//! root = sha256( hash_tree_root(container) ‖ selector as 32-byte little-endian ). The selectors of
//! based-op's SSZ union are Frag = 0, Seal = 1, Env = 2. The code hashes the chunks itself with the
//! Merkle functions of the `tree_hash` crate, because that crate's derive would require copying the
//! transactions into its own list types.

use alloy_primitives::B256;
use tree_hash::{merkle_root, mix_in_length, mix_in_selector};

use super::{Env, Frag, MAX_EXTRA_DATA, Message, Seal};

/// Chunks of 32 bytes in a transaction of 2^30 bytes.
const TX_CHUNKS: usize = 1 << 25;
/// Transactions in a frag.
const MAX_TXS: usize = 1 << 20;

/// A `u64` or a `bool` as one chunk.
fn small(value: u64) -> [u8; 32] {
    let mut chunk = [0; 32];
    chunk[..8].copy_from_slice(&value.to_le_bytes());
    chunk
}

fn container(fields: &[[u8; 32]]) -> B256 {
    merkle_root(fields.as_flattened(), fields.len().next_power_of_two())
}

fn env_root(m: &Env) -> B256 {
    let mut beneficiary = [0; 32];
    beneficiary[..20].copy_from_slice(m.beneficiary.as_slice());
    let extra = mix_in_length(&merkle_root(&m.extra_data, MAX_EXTRA_DATA / 32), m.extra_data.len());
    container(&[
        small(m.number),
        m.parent_hash.0,
        beneficiary,
        small(m.timestamp),
        small(m.gas_limit),
        small(m.basefee),
        m.difficulty.to_le_bytes(),
        m.prevrandao.0,
        extra.0,
        m.parent_beacon_block_root.0,
    ])
}

fn frag_root(m: &Frag) -> B256 {
    let txs: Vec<[u8; 32]> =
        m.txs.iter().map(|tx| mix_in_length(&merkle_root(tx, TX_CHUNKS), tx.len()).0).collect();
    let txs = mix_in_length(&merkle_root(txs.as_flattened(), MAX_TXS), m.txs.len());
    let head = [small(m.block_number), small(m.seq), small(m.is_last.into())];
    match m.blob_gas_used {
        None => container(&[head[0], head[1], head[2], txs.0]),
        Some(blob) => container(&[head[0], head[1], head[2], small(blob), txs.0]),
    }
}

fn seal_root(m: &Seal) -> B256 {
    let fields = [
        small(m.total_frags),
        small(m.block_number),
        small(m.gas_used),
        small(m.gas_limit),
        m.parent_hash.0,
        m.transactions_root.0,
        m.receipts_root.0,
        m.state_root.0,
        m.block_hash.0,
        small(m.blob_gas_used.unwrap_or(0)),
    ];
    // Both layouts hash over sixteen leaves, so `v0` and `v0-blob` with no blob gas agree.
    container(&fields)
}

impl Message {
    /// The root that the gateway signs.
    pub fn root(&self) -> B256 {
        let (root, selector) = match self {
            Self::Frag(m) => (frag_root(m), 0),
            Self::Seal(m) => (seal_root(m), 1),
            Self::Env(m) => (env_root(m), 2),
        };
        mix_in_selector(&root, selector).expect("the selectors are below the union's limit")
    }
}
