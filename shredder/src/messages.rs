//! The three messages of a block, in the two dialects that exist.
//!
//! The structures mirror based-op's: field order is the order of the tree hash and of the wire
//! bytes. The dialects `v0` and `v0-blob` share topics and method names without a version
//! bump, so a body of the other dialect must be refused, never misread: here a dialect is the
//! presence of `blob_gas_used`, and every decoder is told which one its chain speaks.
//!
//! * [`json`]: what a gateway posts
//! * [`wire`]: what is gossiped and what is cut into shreds
//! * [`root`]: what is signed
//! * [`build`]: makes the messages of a block

pub mod build;
pub mod json;
pub mod root;
pub mod wire;

use alloy_primitives::{Address, B256, Bytes, U256};
use serde::{Deserialize, Serialize};

/// The longest `extra_data` (SSZ limit of the field).
pub const MAX_EXTRA_DATA: usize = 256;

/// Which of the two layouts a chain speaks. Configured per chain; the default is `v0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Dialect {
    /// The structures of based-op's published code.
    #[default]
    #[serde(rename = "v0")]
    V0,
    /// The deployed fork's: Frag and Seal carry `blob_gas_used`.
    #[serde(rename = "v0-blob")]
    V0Blob,
}

impl Dialect {
    /// The name used in configuration and errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V0 => "v0",
            Self::V0Blob => "v0-blob",
        }
    }
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Dialect {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "v0" => Ok(Self::V0),
            "v0-blob" => Ok(Self::V0Blob),
            other => Err(format!("unknown dialect `{other}`: use `v0` or `v0-blob`")),
        }
    }
}

/// Which of the three messages; the byte is the shred header's `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// The kind of a header byte, if there is one.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Env),
            1 => Some(Self::Frag),
            2 => Some(Self::Seal),
            _ => None,
        }
    }

    /// The name used in logs, metrics and the subscription.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::Frag => "frag",
            Self::Seal => "seal",
        }
    }
}

/// Opens a block: all of its environment that is known before execution.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frag {
    /// Block number.
    pub block_number: u64,
    /// Position among the block's frags, from 0.
    pub seq: u64,
    /// True in the last frag of a block.
    pub is_last: bool,
    /// `v0-blob` only: blob gas used so far.
    pub blob_gas_used: Option<u64>,
    /// EIP-2718 transactions; may be empty in the last frag.
    pub txs: Vec<Bytes>,
}

/// Ends a block: what execution must arrive at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// How many frags the block has.
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
    pub blob_gas_used: Option<u64>,
}

/// One of the three.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Which of the three this is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Env(_) => Kind::Env,
            Self::Frag(_) => Kind::Frag,
            Self::Seal(_) => Kind::Seal,
        }
    }

    /// The block the message belongs to.
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
