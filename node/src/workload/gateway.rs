//! The devnet's built-in gateway: block after block, in the order Env, frags, Seal.
//!
//! Nothing is executed, so `gas_used`, `receipts_root` and `state_root` are zero in the Seal and
//! in the header whose hash it names; nobody may check them. Everything else is real:
//! the hash of a block is the hash of its header, its parent's hash is the hash of the header
//! before, the transactions root is that of the trie, and the base fee follows from the parent's
//! header (EIP-1559), where it falls by an eighth per block because the header says that no gas
//! was used.

use alloy_consensus::Header;
use alloy_consensus::constants::EMPTY_ROOT_HASH;
use alloy_consensus::proofs::ordered_trie_root_encoded;
use alloy_eips::eip1559::{BaseFeeParams, calc_next_block_base_fee};
use alloy_primitives::{Address, B256, Bytes, U256, address, keccak256};
use fragcast_shredder::{Dialect, Env, Frag, Message, Seal};

use super::genesis::{DevnetConfig, Genesis};
use super::transactions::{MAX_TX_GAS, Mark, Workload};

/// Who gets the fees: the fee vault of OP Stack chains.
pub const BENEFICIARY: Address = address!("4200000000000000000000000000000000000011");

/// `extra_data` of every block.
pub const EXTRA_DATA: &[u8] = b"fragcast devnet";

/// `blob_gas_used` as the dialect has it: no transaction here carries blobs.
pub(super) const fn no_blobs(dialect: Dialect) -> Option<u64> {
    match dialect {
        Dialect::V0 => None,
        Dialect::V0Blob => Some(0),
    }
}

/// The block being built.
#[derive(Debug)]
struct Open {
    header: Header,
    parent_hash: B256,
    txs: Vec<Bytes>,
    frags: u64,
    gas_left: u64,
    complete: bool,
    /// Where its transactions begin, should it be given up.
    mark: Mark,
}

/// Builds blocks on the devnet's genesis.
///
/// Per block: [`open`](Self::open), [`frag`](Self::frag) until one is the last,
/// [`seal`](Self::seal). To open again instead gives the block up: the next one has the same
/// number and starts with the same transactions. The messages are not signed.
#[derive(Debug)]
pub struct DevnetGateway {
    seed: u64,
    dialect: Dialect,
    workload: Workload,
    genesis_hash: B256,
    parent: Header,
    parent_hash: B256,
    open: Option<Open>,
}

impl DevnetGateway {
    /// Starts after block 0 of `config`'s genesis.
    pub fn new(config: &DevnetConfig, dialect: Dialect) -> Self {
        let parent = Genesis::devnet(config).header();
        let parent_hash = parent.hash_slow();
        Self {
            seed: config.seed,
            dialect,
            workload: Workload::new(config),
            genesis_hash: parent_hash,
            parent,
            parent_hash,
            open: None,
        }
    }

    /// Hash of block 0.
    pub const fn genesis_hash(&self) -> B256 {
        self.genesis_hash
    }

    /// The header of the last sealed block, or of block 0.
    pub const fn parent(&self) -> &Header {
        &self.parent
    }

    fn derive(&self, what: &str, number: u64) -> B256 {
        keccak256([what.as_bytes(), &self.seed.to_be_bytes(), &number.to_be_bytes()].concat())
    }

    /// Opens the next block. `timestamp` is in Unix seconds; if it is not after the parent's,
    /// the block's is one second after that.
    pub fn open(&mut self, timestamp: u64) -> Env {
        if let Some(abandoned) = self.open.take() {
            self.workload.rewind(abandoned.mark);
        }
        let parent = &self.parent;
        let number = parent.number + 1;
        let basefee = calc_next_block_base_fee(
            parent.gas_used,
            parent.gas_limit,
            parent.base_fee_per_gas.unwrap_or_default(),
            BaseFeeParams::ethereum(),
        );
        let beacon_root = self.derive("fragcast devnet beacon root", number);
        let header = Header {
            parent_hash: self.parent_hash,
            beneficiary: BENEFICIARY,
            state_root: B256::ZERO,
            transactions_root: EMPTY_ROOT_HASH,
            receipts_root: B256::ZERO,
            difficulty: U256::ZERO,
            number,
            gas_limit: parent.gas_limit,
            gas_used: 0,
            timestamp: timestamp.max(parent.timestamp.saturating_add(1)),
            extra_data: Bytes::from_static(EXTRA_DATA),
            mix_hash: self.derive("fragcast devnet prevrandao", number),
            base_fee_per_gas: Some(basefee),
            withdrawals_root: Some(EMPTY_ROOT_HASH),
            blob_gas_used: Some(0),
            excess_blob_gas: Some(0),
            parent_beacon_block_root: Some(beacon_root),
            ..Header::default()
        };
        let env = Env {
            number,
            parent_hash: header.parent_hash,
            beneficiary: header.beneficiary,
            timestamp: header.timestamp,
            gas_limit: header.gas_limit,
            basefee,
            difficulty: header.difficulty,
            prevrandao: header.mix_hash,
            extra_data: header.extra_data.clone(),
            parent_beacon_block_root: beacon_root,
        };
        self.open = Some(Open {
            parent_hash: header.parent_hash,
            gas_left: header.gas_limit,
            header,
            txs: Vec::new(),
            frags: 0,
            complete: false,
            mark: self.workload.mark(),
        });
        env
    }

    /// The next frag with `txs` transactions, or fewer where the block's gas limit is reached.
    ///
    /// # Panics
    /// If no block is open, or its last frag has been handed out.
    pub fn frag(&mut self, txs: usize, is_last: bool) -> Frag {
        let open = self.open.as_mut().expect("open a block before its frags");
        assert!(!open.complete, "seal the block after its last frag");
        let first = open.txs.len();
        for _ in 0..txs {
            if open.gas_left < MAX_TX_GAS {
                break;
            }
            let tx = self.workload.next_tx();
            open.gas_left -= tx.gas_limit;
            open.txs.push(tx.bytes);
        }
        let seq = open.frags;
        open.frags += 1;
        open.complete = is_last;
        Frag {
            block_number: open.header.number,
            seq,
            is_last,
            blob_gas_used: no_blobs(self.dialect),
            txs: open.txs[first..].to_vec(),
        }
    }

    /// Ends the block, which is the next one's parent.
    ///
    /// # Panics
    /// If no block is open, or its last frag is still to come.
    pub fn seal(&mut self) -> Seal {
        let mut open = self.open.take().expect("open a block before sealing it");
        assert!(open.complete, "hand out the last frag before sealing");
        open.header.transactions_root = ordered_trie_root_encoded(&open.txs);
        self.parent_hash = open.header.hash_slow();
        self.parent = open.header;
        let header = &self.parent;
        Seal {
            total_frags: open.frags,
            block_number: header.number,
            gas_used: header.gas_used,
            gas_limit: header.gas_limit,
            parent_hash: open.parent_hash,
            transactions_root: header.transactions_root,
            receipts_root: header.receipts_root,
            state_root: header.state_root,
            block_hash: self.parent_hash,
            blob_gas_used: no_blobs(self.dialect),
        }
    }

    /// A whole block of `frags` frags (at least one) with `txs_per_frag` transactions each.
    pub fn block(&mut self, timestamp: u64, frags: usize, txs_per_frag: usize) -> Vec<Message> {
        let frags = frags.max(1);
        let mut messages = Vec::with_capacity(frags + 2);
        messages.push(Message::Env(self.open(timestamp)));
        for seq in 1..=frags {
            messages.push(Message::Frag(self.frag(txs_per_frag, seq == frags)));
        }
        messages.push(Message::Seal(self.seal()));
        messages
    }
}
