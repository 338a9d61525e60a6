//! The three messages of a block, in the two dialects that exist.
//!
//! The structures mirror based-op's: the order of the fields is that of the tree hash and of the
//! wire bytes. The dialects `v0` and `v0-blob` share topics and method names and carry no version
//! number, so a decoder must refuse a body of the other dialect rather than misread it. They differ
//! in the field `blob_gas_used`; every decoder is told which dialect its chain speaks.
//!
//! * [`json`]: the JSON that a gateway posts
//! * [`wire`]: the bytes that are gossiped and cut into shreds
//! * [`root`]: the hash that a gateway signs
//! * [`build`]: builds the messages of a block

pub mod build;
pub mod json;
pub mod root;
pub mod wire;

use alloy_primitives::{Address, B256, Bytes, U256};
use serde::{Deserialize, Serialize};

use crate::names::UnknownName;

/// The longest `extra_data` (SSZ limit of the field).
pub const MAX_EXTRA_DATA: usize = 256;

/// The layout of a chain's messages. Configured per chain; the default is `v0`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
#[strum(parse_err_ty = UnknownName, parse_err_fn = UnknownName::of::<Dialect>)]
pub enum Dialect {
    /// The structures of based-op's published code.
    #[default]
    V0,
    /// The structures of the deployed fork: Frag and Seal carry `blob_gas_used`.
    V0Blob,
}

impl Dialect {
    /// The name used in configuration and errors.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The kind of a message. Its number is the byte `kind` of the shred header.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::FromRepr,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[repr(u8)]
pub enum Kind {
    /// Opens a block.
    Env = 0,
    /// Carries transactions.
    Frag = 1,
    /// Ends a block.
    Seal = 2,
}

impl Kind {
    /// The kind that a header byte stands for; `None` if there is none.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Self::from_repr(byte)
    }

    /// The name used in logs, metrics and the subscription.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Opens a block with the part of its environment that is known before execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Env {
    /// Block number.
    pub number: u64,
    /// Hash of the parent block.
    pub parent_hash: B256,
    /// Fee recipient.
    pub beneficiary: Address,
    /// Unix seconds.
    pub timestamp: u64,
    /// Gas limit of the block.
    pub gas_limit: u64,
    /// Base fee per gas, wei.
    pub basefee: u64,
    /// Zero since the merge.
    pub difficulty: U256,
    /// Randomness of the beacon chain.
    pub prevrandao: B256,
    /// At most [`MAX_EXTRA_DATA`] bytes.
    pub extra_data: Bytes,
    /// Root of the parent beacon block (EIP-4788).
    pub parent_beacon_block_root: B256,
}

/// Carries transactions, in the order of their execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Frag {
    /// Block number.
    pub block_number: u64,
    /// Position among the block's frags, from 0.
    pub seq: u64,
    /// True in the last frag of a block.
    pub is_last: bool,
    /// `v0-blob` only: blob gas used so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob_gas_used: Option<u64>,
    /// EIP-2718 transactions; may be empty in the last frag.
    pub txs: Vec<Bytes>,
}

/// Ends a block with the results that execution must reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Seal {
    /// Number of frags of the block.
    pub total_frags: u64,
    /// Block number.
    pub block_number: u64,
    /// Gas used by all transactions.
    pub gas_used: u64,
    /// Gas limit of the block.
    pub gas_limit: u64,
    /// Hash of the parent block.
    pub parent_hash: B256,
    /// Root of the transactions trie.
    pub transactions_root: B256,
    /// Root of the receipts trie.
    pub receipts_root: B256,
    /// Root of the state after the block.
    pub state_root: B256,
    /// Hash of the block's header.
    pub block_hash: B256,
    /// `v0-blob` only: blob gas used by the block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob_gas_used: Option<u64>,
}

/// One of the three messages. Its JSON is that of the message, without a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Message {
    /// See [`Env`].
    Env(Env),
    /// See [`Frag`].
    Frag(Frag),
    /// See [`Seal`].
    Seal(Seal),
}

impl From<Env> for Message {
    fn from(env: Env) -> Self {
        Self::Env(env)
    }
}

impl From<Frag> for Message {
    fn from(frag: Frag) -> Self {
        Self::Frag(frag)
    }
}

impl From<Seal> for Message {
    fn from(seal: Seal) -> Self {
        Self::Seal(seal)
    }
}

impl Message {
    /// The kind of the message.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Env(_) => Kind::Env,
            Self::Frag(_) => Kind::Frag,
            Self::Seal(_) => Kind::Seal,
        }
    }

    /// Number of the block that the message belongs to.
    pub const fn block(&self) -> u64 {
        match self {
            Self::Env(m) => m.number,
            Self::Frag(m) => m.block_number,
            Self::Seal(m) => m.block_number,
        }
    }

    /// The message index within its block: 0 for Env, `seq + 1` for a frag, `total_frags + 1`
    /// for the Seal. `None` if it exceeds what a shred header can carry.
    pub fn index(&self) -> Option<u16> {
        let index = match self {
            Self::Env(_) => 0,
            Self::Frag(m) => m.seq.checked_add(1)?,
            Self::Seal(m) => m.total_frags.checked_add(1)?,
        };
        u16::try_from(index).ok()
    }

    /// The dialect whose layout the message has; `None` for Env, which is the same in both.
    pub const fn dialect(&self) -> Option<Dialect> {
        let blob = match self {
            Self::Env(_) => return None,
            Self::Frag(m) => m.blob_gas_used,
            Self::Seal(m) => m.blob_gas_used,
        };
        Some(if blob.is_some() { Dialect::V0Blob } else { Dialect::V0 })
    }
}

#[cfg(test)]
pub(crate) mod tests;
