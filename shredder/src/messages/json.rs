//! JSON exactly as based-op's gateway posts it.
//!
//! camelCase names, integers as plain JSON numbers, `difficulty` as a hex quantity, bytes as
//! 0x-hex. Unknown members are refused: the only one ever seen is the other dialect's
//! `blobGasUsed`, and that must not be read past.

use alloy_primitives::{Address, B256, Bytes, U256};
use serde::{Deserialize, Serialize};

use super::{Dialect, Env, Frag, MAX_EXTRA_DATA, Message, Seal};

/// Why a JSON message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The message has, or lacks, the member that tells the dialects apart.
    #[error("the message speaks dialect `{found}`, the chain is configured for `{expected}`")]
    Dialect {
        /// What the chain's configuration says.
        expected: Dialect,
        /// What the message looks like.
        found: Dialect,
    },
    /// `extraData` over its limit.
    #[error("extraData of {0} bytes exceeds the limit of {MAX_EXTRA_DATA}")]
    ExtraData(usize),
}

/// [`Env`] in JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Env`")]
pub struct EnvJson {
    pub number: u64,
    pub parent_hash: B256,
    pub beneficiary: Address,
    pub timestamp: u64,
    pub gas_limit: u64,
    pub basefee: u64,
    pub difficulty: U256,
    pub prevrandao: B256,
    pub extra_data: Bytes,
    pub parent_beacon_block_root: B256,
}

/// [`Frag`] in JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Frag`")]
pub struct FragJson {
    pub block_number: u64,
    pub seq: u64,
    pub is_last: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob_gas_used: Option<u64>,
    pub txs: Vec<Bytes>,
}

/// [`Seal`] in JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Seal`")]
pub struct SealJson {
    pub total_frags: u64,
    pub block_number: u64,
    pub gas_used: u64,
    pub gas_limit: u64,
    pub parent_hash: B256,
    pub transactions_root: B256,
    pub receipts_root: B256,
    pub state_root: B256,
    pub block_hash: B256,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob_gas_used: Option<u64>,
}

/// Any of the three, to write.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the variants are those of `Message`")]
pub enum MessageJson {
    Env(EnvJson),
    Frag(FragJson),
    Seal(SealJson),
}

fn check(expected: Dialect, blob_gas_used: Option<u64>) -> Result<(), JsonError> {
    let found = if blob_gas_used.is_some() { Dialect::V0Blob } else { Dialect::V0 };
    if found == expected { Ok(()) } else { Err(JsonError::Dialect { expected, found }) }
}

impl EnvJson {
    /// The message; `Env` is the same in both dialects.
    ///
    /// # Errors
    /// [`JsonError::ExtraData`].
    pub fn into_message(self) -> Result<Message, JsonError> {
        let Self { number, parent_hash, beneficiary, timestamp, gas_limit, basefee, .. } = self;
        let Self { difficulty, prevrandao, extra_data, parent_beacon_block_root, .. } = self;
        if extra_data.len() > MAX_EXTRA_DATA {
            return Err(JsonError::ExtraData(extra_data.len()));
        }
        Ok(Message::Env(Env {
            number,
            parent_hash,
            beneficiary,
            timestamp,
            gas_limit,
            basefee,
            difficulty,
            prevrandao,
            extra_data,
            parent_beacon_block_root,
        }))
    }
}

impl FragJson {
    /// The message, if it speaks `dialect`.
    ///
    /// # Errors
    /// [`JsonError::Dialect`].
    pub fn into_message(self, dialect: Dialect) -> Result<Message, JsonError> {
        check(dialect, self.blob_gas_used)?;
        let Self { block_number, seq, is_last, blob_gas_used, txs } = self;
        Ok(Message::Frag(Frag { block_number, seq, is_last, blob_gas_used, txs }))
    }
}

impl SealJson {
    /// The message, if it speaks `dialect`.
    ///
    /// # Errors
    /// [`JsonError::Dialect`].
    pub fn into_message(self, dialect: Dialect) -> Result<Message, JsonError> {
        check(dialect, self.blob_gas_used)?;
        Ok(Message::Seal(Seal {
            total_frags: self.total_frags,
            block_number: self.block_number,
            gas_used: self.gas_used,
            gas_limit: self.gas_limit,
            parent_hash: self.parent_hash,
            transactions_root: self.transactions_root,
            receipts_root: self.receipts_root,
            state_root: self.state_root,
            block_hash: self.block_hash,
            blob_gas_used: self.blob_gas_used,
        }))
    }
}

impl From<&Message> for MessageJson {
    fn from(message: &Message) -> Self {
        match message.clone() {
            Message::Env(m) => Self::Env(EnvJson {
                number: m.number,
                parent_hash: m.parent_hash,
                beneficiary: m.beneficiary,
                timestamp: m.timestamp,
                gas_limit: m.gas_limit,
                basefee: m.basefee,
                difficulty: m.difficulty,
                prevrandao: m.prevrandao,
                extra_data: m.extra_data,
                parent_beacon_block_root: m.parent_beacon_block_root,
            }),
            Message::Frag(m) => Self::Frag(FragJson {
                block_number: m.block_number,
                seq: m.seq,
                is_last: m.is_last,
                blob_gas_used: m.blob_gas_used,
                txs: m.txs,
            }),
            Message::Seal(m) => Self::Seal(SealJson {
                total_frags: m.total_frags,
                block_number: m.block_number,
                gas_used: m.gas_used,
                gas_limit: m.gas_limit,
                parent_hash: m.parent_hash,
                transactions_root: m.transactions_root,
                receipts_root: m.receipts_root,
                state_root: m.state_root,
                block_hash: m.block_hash,
                blob_gas_used: m.blob_gas_used,
            }),
        }
    }
}
