//! Recorded OP Stack blocks: one JSON file (or `.json.gz`) each, as op-rs/kona's executor tests
//! keep them: `chainId`, `number`, `parentHeader`, `payloadAttributes`, `expectedBlockHash`.
//!
//! A file also has everything that executing the block needs: the times of the forks
//! (`opForkTimes`) and trie nodes, codes and headers by hash (`preimages`, by far the most of it).
//!
//! Invariant: a [`RecordedBlock`] that exists has a base fee that follows from its parent, so
//! making messages of it cannot fail. Files are not trusted: what they decompress to is bounded,
//! and [`RecordedBlock::witness`] checks every preimage against its hash.

pub(super) mod file;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_consensus::proofs::ordered_trie_root_encoded;
use alloy_primitives::map::B256Map;
use alloy_primitives::{Address, B256, Bytes, U256};
use fragcast_shredder::{Dialect, Env, Frag, Message, Seal};
use serde::de::IgnoredAny;

use self::file::{Keys, RawBlock};
use super::gateway::no_blobs;
use crate::chain::{ChainError, ChainSpec};
use crate::exec::{SourceError, Witness};

/// The most that a file may be, decompressed: 256 MiB, all of which is held while reading.
/// The recorded blocks of 2 s are below 20 MiB.
pub const MAX_FILE_LEN: u64 = 256 * 1024 * 1024;

/// Base fee parameters where neither the attributes nor the parent name any: OP Sepolia's since
/// Canyon, and OP Mainnet's.
pub const DEFAULT_BASE_FEE_PARAMS: Eip1559Params =
    Eip1559Params { denominator: 250, elasticity: 6 };

/// Why a file is no recorded block.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {reason}; check the path and its permissions")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// Something else than a recorded block.
    #[error(
        "{path} is no recorded block: {what}; give a .json or .json.gz file \
         with parentHeader, payloadAttributes and expectedBlockHash"
    )]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// Cut off or damaged.
    #[error("{path} does not decompress: {reason}; it is cut off or damaged, fetch it again")]
    Gzip {
        /// The file.
        path: PathBuf,
        /// What the decompressor said.
        reason: io::Error,
    },
    /// Longer than [`MAX_FILE_LEN`].
    #[error("{path} is longer than {MAX_FILE_LEN} bytes when decompressed; record a smaller block")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// No JSON, or not all of it.
    #[error("{path} is not valid json: {reason}; fetch it again")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: serde_json::Error,
    },
    /// A field is missing or has a wrong value.
    #[error("{path} has a missing or wrong field: {reason}; record the block again")]
    Field {
        /// The file.
        path: PathBuf,
        /// Which one, and where.
        reason: serde_json::Error,
    },
    /// Fields contradict one another.
    #[error("{path} contradicts itself: {what}; record the block again")]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// How.
        what: &'static str,
    },
}

/// Holocene's base fee parameters: 8 bytes, denominator ‖ elasticity, big-endian u32 each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eip1559Params {
    /// By how little the base fee moves.
    pub denominator: u32,
    /// Gas limit over gas target.
    pub elasticity: u32,
}

impl Eip1559Params {
    /// `None` if either is zero: "use the chain's".
    fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h] = bytes;
        let params = Self {
            denominator: u32::from_be_bytes([a, b, c, d]),
            elasticity: u32::from_be_bytes([e, f, g, h]),
        };
        (params.denominator != 0 && params.elasticity != 0).then_some(params)
    }

    /// Those of a Holocene header: `extraData` is 00 ‖ parameters. Any other form, from before
    /// Holocene, means [`DEFAULT_BASE_FEE_PARAMS`].
    fn of_header(header: &Header) -> Self {
        match header.extra_data.as_ref().split_first() {
            Some((0, params)) => params.try_into().ok().and_then(Self::from_bytes),
            _ => None,
        }
        .unwrap_or(DEFAULT_BASE_FEE_PARAMS)
    }

    fn extra_data(self) -> Bytes {
        let (denominator, elasticity) =
            (self.denominator.to_be_bytes(), self.elasticity.to_be_bytes());
        [&[0][..], &denominator, &elasticity].concat().into()
    }
}

/// What the consensus client asked to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedAttributes {
    /// Unix seconds.
    pub timestamp: u64,
    /// Randomness of the beacon chain.
    pub prevrandao: B256,
    /// Fee recipient.
    pub beneficiary: Address,
    /// Root of the parent beacon block (EIP-4788).
    pub parent_beacon_block_root: B256,
    /// Gas limit of the block.
    pub gas_limit: u64,
    /// Base fee parameters that the block announces; `None` before Holocene.
    pub eip1559_params: Option<Eip1559Params>,
    /// All transactions (EIP-2718), the L1-attributes deposit (type 0x7e) first.
    pub txs: Vec<Bytes>,
}

/// A block of a real chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedBlock {
    /// Chain id.
    pub chain_id: u64,
    /// Block number.
    pub number: u64,
    /// The parent's header.
    pub parent_header: Header,
    /// What the block is built from.
    pub attributes: RecordedAttributes,
    /// Hash that execution must arrive at.
    pub expected_block_hash: B256,
    /// OP forks by Unix time.
    pub fork_times: BTreeMap<String, u64>,
    /// Trie nodes, codes and headers as the file has them, not checked. At most
    /// [`MAX_FILE_LEN`] / 2 bytes, since they stand there in hexadecimal.
    pub preimages: Arc<B256Map<Bytes>>,
    basefee: u64,
}

impl RecordedBlock {
    /// Reads `path`, whose name ends in `.json` or `.json.gz`.
    ///
    /// # Errors
    /// [`RecordedError`], which names the file.
    pub fn load(path: &Path) -> Result<Self, RecordedError> {
        Self::parse(path, &file::read(path)?)
    }

    /// Reads the JSON of a file; `path` is for errors.
    ///
    /// # Errors
    /// [`RecordedError`], which names the file.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, RecordedError> {
        let owned = || path.to_owned();
        let classify = |reason: serde_json::Error| {
            if reason.is_data() {
                RecordedError::Field { path: owned(), reason }
            } else {
                RecordedError::Json { path: owned(), reason }
            }
        };
        let kind = |what| RecordedError::Kind { path: owned(), what };
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            serde_json::from_slice::<IgnoredAny>(bytes).map_err(classify)?;
            return Err(kind("its json is not an object"));
        }
        let keys: Keys = serde_json::from_slice(bytes).map_err(classify)?;
        if keys.parent_header.is_none() && keys.payload_attributes.is_none() {
            return Err(kind("its json has neither parentHeader nor payloadAttributes"));
        }
        let raw: RawBlock = serde_json::from_slice(bytes).map_err(classify)?;
        raw.check().map_err(|what| RecordedError::Inconsistent { path: owned(), what })
    }

    /// Base fee per gas, wei, from the parent's header and the parameters it announces
    /// (EIP-1559; OP Stack specification, Holocene).
    pub const fn basefee(&self) -> u64 {
        self.basefee
    }

    /// The chain as the file describes it.
    ///
    /// # Errors
    /// A fork that is missing before one that is there.
    pub fn chain_spec(&self) -> Result<ChainSpec, ChainError> {
        let name = format!("chain {}", self.chain_id);
        ChainSpec::op_with_times(&name, self.chain_id, &self.fork_times)
    }

    /// What executing the block reads.
    ///
    /// # Errors
    /// A preimage that has another hash than the file says.
    pub fn witness(&self) -> Result<Witness, SourceError> {
        Witness::new(B256Map::clone(&self.preimages))
    }

    /// How the block opens.
    pub fn env(&self) -> Env {
        let attributes = &self.attributes;
        Env {
            number: self.number,
            parent_hash: self.parent_header.hash_slow(),
            beneficiary: attributes.beneficiary,
            timestamp: attributes.timestamp,
            gas_limit: attributes.gas_limit,
            basefee: self.basefee,
            difficulty: U256::ZERO,
            prevrandao: attributes.prevrandao,
            extra_data: attributes
                .eip1559_params
                .map(Eip1559Params::extra_data)
                .unwrap_or_default(),
            parent_beacon_block_root: attributes.parent_beacon_block_root,
        }
    }

    /// The block as messages, without executing it: what only execution knows (`gas_used`,
    /// `receipts_root`, `state_root` of the Seal) is zero. Env, frags of `txs_per_frag` transactions (0 counts as 1), Seal.
    /// A block without transactions has one empty frag, the last.
    pub fn messages(&self, txs_per_frag: usize, dialect: Dialect) -> Vec<Message> {
        let attributes = &self.attributes;
        let env = self.env();
        let parent_hash = env.parent_hash;
        let blob_gas_used = no_blobs(dialect);
        let mut chunks: Vec<&[Bytes]> = attributes.txs.chunks(txs_per_frag.max(1)).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let frag = |(seq, txs): (usize, &&[Bytes])| {
            Message::Frag(Frag {
                block_number: self.number,
                seq: seq as u64,
                is_last: seq + 1 == chunks.len(),
                blob_gas_used,
                txs: txs.to_vec(),
            })
        };
        let seal = Seal {
            total_frags: chunks.len() as u64,
            block_number: self.number,
            gas_used: 0,
            gas_limit: attributes.gas_limit,
            parent_hash,
            transactions_root: ordered_trie_root_encoded(&attributes.txs),
            receipts_root: B256::ZERO,
            state_root: B256::ZERO,
            block_hash: self.expected_block_hash,
            blob_gas_used,
        };
        let mut messages = vec![Message::Env(env)];
        messages.extend(chunks.iter().enumerate().map(frag));
        messages.push(Message::Seal(seal));
        messages
    }
}

#[cfg(test)]
mod tests;
