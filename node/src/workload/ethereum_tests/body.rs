//! A block's RLP, taken apart strictly: `[header, [tx…], [ommer…], [withdrawal…]?]`.
//!
//! Everything is refused here that messages cannot say: bytes that are no block, ommers, a header
//! from before EIP-1559, withdrawals where the header has no root of them. The rest goes into
//! messages, for an executor to judge.

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{B256, Bytes};
use alloy_rlp::{Decodable, Encodable};
use fragcast_shredder::{Env, MAX_MESSAGE_LEN, messages::MAX_EXTRA_DATA};

use crate::exec::env_of;

use crate::exec::{Tx, tx::TxError};

/// A block that messages can carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Its header as it stands there.
    pub header: Header,
    /// keccak256 of the header's bytes.
    pub hash: B256,
    /// EIP-2718 transactions.
    pub txs: Vec<Bytes>,
    /// Blob gas of its transactions, up to and with each.
    pub blob_gas: Vec<u64>,
    /// Withdrawals, which no message carries.
    pub withdrawals: Option<Vec<Withdrawal>>,
}

/// The items of an RLP list, each with its own header, and nothing behind the list.
fn list<'a>(bytes: &mut &'a [u8], what: &str) -> Result<Vec<&'a [u8]>, String> {
    let error = |e: alloy_rlp::Error| format!("{what}: {e}");
    let mut payload = alloy_rlp::Header::decode_bytes(bytes, true).map_err(error)?;
    let mut items = Vec::new();
    while !payload.is_empty() {
        let start = payload;
        let head = alloy_rlp::Header::decode(&mut payload).map_err(error)?;
        // `decode` has checked that so many bytes are there.
        payload = payload.get(head.payload_length..).ok_or_else(|| format!("{what}: cut off"))?;
        items.push(&start[..start.len() - payload.len()]);
    }
    Ok(items)
}

/// One item, which must be all of `bytes` and be written the one way that RLP allows.
fn exactly<T: Decodable + Encodable>(bytes: &[u8], what: &str) -> Result<T, String> {
    let mut rest = bytes;
    let value = T::decode(&mut rest).map_err(|e| format!("{what}: {e}"))?;
    if !rest.is_empty() || alloy_rlp::encode(&value) != bytes {
        return Err(format!("{what}: not written as RLP writes it"));
    }
    Ok(value)
}

fn transaction(item: &[u8], index: usize) -> Result<(Bytes, u64), String> {
    let what = || format!("transaction {index}");
    let bytes = match item.first() {
        Some(0xc0..) => item,
        _ => {
            let mut rest = item;
            let bytes = alloy_rlp::Header::decode_bytes(&mut rest, false)
                .map_err(|e| format!("{}: {e}", what()))?;
            // A legacy transaction is never packed into a string.
            if bytes.first().is_none_or(|ty| *ty >= 0x80) {
                return Err(format!("{}: no type of transaction", what()));
            }
            bytes
        }
    };
    let bytes = Bytes::copy_from_slice(bytes);
    match Tx::decode(&bytes, false) {
        Ok(tx) => Ok((bytes, tx.envelope.blob_gas_used())),
        // It can be cut; followers refuse it.
        Err(TxError::Signature) => Ok((bytes, 0)),
        Err(error @ TxError::Decode(_)) => Err(format!("{}: {error}", what())),
    }
}

impl Body {
    /// Takes a block's RLP apart.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(rlp: &[u8]) -> Result<Self, String> {
        let mut rest = rlp;
        let items = list(&mut rest, "block")?;
        if !rest.is_empty() {
            return Err(format!("block: {} bytes come after it", rest.len()));
        }
        let (head, txs, ommers, withdrawals) = match items[..] {
            [head, txs, ommers] => (head, txs, ommers, None),
            [head, txs, ommers, withdrawals] => (head, txs, ommers, Some(withdrawals)),
            _ => return Err(format!("block: {} items instead of 3 or 4", items.len())),
        };
        let header: Header = exactly(head, "header")?;
        if header.base_fee_per_gas.is_none() {
            return Err("header: it has no base fee, as since EIP-1559 it must".into());
        }
        if header.extra_data.len() > MAX_EXTRA_DATA {
            let len = header.extra_data.len();
            return Err(format!("header: extra_data of {len} bytes"));
        }
        let withdrawals: Option<Vec<Withdrawal>> =
            withdrawals.map(|items| exactly(items, "withdrawals")).transpose()?;
        if withdrawals.is_some() != header.withdrawals_root.is_some() {
            return Err(
                "block: withdrawals and the header's root of them do not go together".into()
            );
        }
        let (mut raw, mut blob_gas, mut used) = (Vec::new(), Vec::new(), 0_u64);
        for (index, item) in list(&mut { txs }, "transactions")?.into_iter().enumerate() {
            let (bytes, blobs) = transaction(item, index)?;
            // Offsets and fixed fields of a frag take a few dozen bytes.
            if bytes.len() > MAX_MESSAGE_LEN - 256 {
                return Err(format!("transaction {index}: {} bytes", bytes.len()));
            }
            used = used.saturating_add(blobs);
            raw.push(bytes);
            blob_gas.push(used);
        }
        if !list(&mut { ommers }, "ommers")?.is_empty() {
            return Err("block: it has ommers, as since the merge none has".into());
        }
        let hash = alloy_primitives::keccak256(head);
        Ok(Self { header, hash, txs: raw, blob_gas, withdrawals })
    }

    /// How the block opens, as its header has it.
    pub fn env(&self) -> Env {
        env_of(&self.header)
    }
}
