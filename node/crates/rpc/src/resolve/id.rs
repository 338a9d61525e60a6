//! Names of blocks and of states, as callers write them.
//!
//! | parameter | names |
//! |---|---|
//! | `"latest"`, `"pending"`, `"safe"`, `"finalized"`, `"earliest"` | what [`super`] says |
//! | `"0x10"` | the block with this number, a quantity without leading zeros |
//! | 32 bytes in hexadecimal | the block with this hash (EIP-1898) |
//! | `{"blockNumber": "0x10"}`, `{"blockHash": "0x…", "requireCanonical": true}` | likewise |
//! | `{"blockNumber": "0x10", "fragIndex": "0x2"}` | the state after this frag of the block; `"attempt"` besides, where a block was built more than once |
//!
//! A key that is not in the table is refused.

use alloy_eips::{BlockId, BlockNumberOrTag, RpcBlockHash};
use alloy_primitives::B256;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::params;

/// A block by number or tag, read strictly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockTag(pub BlockNumberOrTag);

/// A state: after a block, or within one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateId {
    /// The block.
    pub block: BlockId,
    /// The frag after which; `None`: the newest there is of it.
    pub frag: Option<FragId>,
}

/// A frag of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragId {
    /// Its `seq`.
    pub index: u64,
    /// The attempt at the block; `None`: whichever is there.
    pub attempt: Option<u8>,
}

impl Default for StateId {
    fn default() -> Self {
        BlockId::latest().into()
    }
}

impl From<BlockId> for StateId {
    fn from(block: BlockId) -> Self {
        Self { block, frag: None }
    }
}

impl StateId {
    /// Whether it is the tag `pending`.
    pub const fn is_pending(&self) -> bool {
        matches!(self.block, BlockId::Number(BlockNumberOrTag::Pending))
    }
}

/// Reads a quantity of at most 64 bits.
fn quantity(text: &str) -> Result<u64, String> {
    params::quantity(text, 64).map(|number| number.to())
}

fn hash(text: &str) -> Result<B256, String> {
    params::fixed(text, "a hash").map(B256::new)
}

/// A text of an object, by its key.
fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str, String> {
    params::text(value).map_err(|why| format!("{key}: {why}"))
}

fn object(object: &Map<String, Value>) -> Result<StateId, String> {
    let (mut number, mut by_hash, mut canonical) = (None, None, None);
    let (mut index, mut attempt) = (None, None);
    for (key, value) in object {
        match key.as_str() {
            _ if value.is_null() => {}
            "blockNumber" => number = Some(params::block_number(text(value, key)?)?),
            "blockHash" => by_hash = Some(hash(text(value, key)?)?),
            "requireCanonical" => {
                let flag = value.as_bool().ok_or("requireCanonical must be true or false")?;
                canonical = Some(flag);
            }
            "fragIndex" => index = Some(quantity(text(value, key)?)?),
            "attempt" => {
                let read = quantity(text(value, key)?)?;
                let read = u8::try_from(read).map_err(|_| "attempt must be below 0x100")?;
                attempt = Some(read);
            }
            other => return Err(format!("a block has no {other:?}")),
        }
    }
    let block = match (number, by_hash) {
        (Some(_), Some(_)) => return Err("blockNumber or blockHash, not both".into()),
        (None, None) => return Err("blockNumber or blockHash is missing".into()),
        (Some(number), None) => {
            if canonical.is_some() {
                return Err("requireCanonical goes with blockHash".into());
            }
            BlockId::Number(number)
        }
        (None, Some(hash)) => {
            BlockId::Hash(RpcBlockHash { block_hash: hash, require_canonical: canonical })
        }
    };
    let frag = match (index, attempt) {
        (None, None) => None,
        (None, Some(_)) => return Err("attempt goes with fragIndex".into()),
        (Some(index), attempt) => Some(FragId { index, attempt }),
    };
    let named = matches!(block, BlockId::Hash(_) | BlockId::Number(BlockNumberOrTag::Number(_)));
    if frag.is_some() && !named {
        return Err("fragIndex goes with the number or the hash of a block".into());
    }
    Ok(StateId { block, frag })
}

impl TryFrom<&Value> for StateId {
    type Error = String;

    fn try_from(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) if text.len() == 66 && text.starts_with("0x") => {
                Ok(BlockId::from(hash(text)?).into())
            }
            Value::String(text) => Ok(BlockId::Number(params::block_number(text)?).into()),
            Value::Object(fields) => object(fields),
            _ => Err("a block is a tag, a number or hash in hexadecimal, or an object".into()),
        }
    }
}

impl TryFrom<&Value> for BlockTag {
    type Error = String;

    fn try_from(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) => params::block_number(text).map(Self),
            _ => Err("a block number is a tag, or a number in hexadecimal".into()),
        }
    }
}

impl<'de> Deserialize<'de> for StateId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for BlockTag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
