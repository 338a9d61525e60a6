//! Blockchain tests of [ethereum/tests](https://github.com/ethereum/tests): JSON files with a map
//! from names to tests, each a genesis, its state, blocks as RLP and what must come of them.
//!
//! Tests of networks from before the merge are read as far as their names, to be skipped; so are
//! networks that are not known here. Which blocks are valid is what the file says: a block with
//! `expectException`, or without `blockHeader`, must be refused.
//!
//! Invariants: files are not trusted; nothing in one makes a panic; a test that contradicts itself
//! (its genesis has another hash or state root, a valid block another hash than its header), or of
//! which a field is wrong, says so where it is run, and so fails, instead of being passed over.

mod body;
mod file;
mod network;

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::{B256, hex};
use serde_json::Value;

pub use self::body::Body;
use self::file::{RawBlock, RawTest};
use crate::chain::ChainSpec;
use crate::exec::memory::MemoryState;

/// Why a file holds no tests.
#[derive(Debug, thiserror::Error)]
pub enum TestsError {
    /// No JSON, or not all of it.
    #[error("{path} is not valid json: {reason}; fetch it again")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: serde_json::Error,
    },
    /// Something else than tests.
    #[error(
        "{path} holds no blockchain tests: {what}; give a file of ethereum/tests' BlockchainTests"
    )]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
}

/// What a test says of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// It is valid and has this hash; `Err`: the file contradicts itself.
    Valid(Result<B256, String>),
    /// It must be refused; why, in the words of the file.
    Invalid(String),
}

/// A block of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestBlock {
    /// Its number, if that is known.
    pub number: Option<u64>,
    /// What must come of it.
    pub expected: Expected,
    /// What it says; `Err`: why it cannot be made into messages.
    pub body: Result<Body, String>,
}

/// Where a test begins.
#[derive(Debug, Clone)]
pub struct TestGenesis {
    /// The chain.
    pub spec: Arc<ChainSpec>,
    /// Header of block 0.
    pub header: Header,
    /// State after it.
    pub state: MemoryState,
}

/// What must be the case in the end.
#[derive(Debug, Clone, Default)]
pub struct TestEnd {
    /// Hash of the block that is the head.
    pub last: Option<B256>,
    /// The state after it.
    pub state: Option<MemoryState>,
    /// Its root.
    pub state_root: Option<B256>,
}

/// A test.
#[derive(Debug, Clone)]
pub struct EthereumTest {
    /// Its name in the file.
    pub name: String,
    /// Its network.
    pub network: String,
    /// Where it begins; `Ok(None)`: its network cannot be executed here; `Err`: the file
    /// contradicts itself.
    pub genesis: Result<Option<TestGenesis>, String>,
    /// Its blocks.
    pub blocks: Vec<TestBlock>,
    /// What must be the case in the end.
    pub end: TestEnd,
}

/// A test as its file has it; `Err`: a field of it is wrong.
type Entry = Result<RawTest, Unread>;

/// As much of a test as can be read.
struct Unread {
    network: String,
    blocks: usize,
    reason: String,
}

/// The tests of a file, taken apart one at a time.
pub struct Tests(btree_map::IntoIter<String, Entry>);

impl std::fmt::Debug for Tests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tests").field(&self.0.len()).finish()
    }
}

impl Tests {
    /// Reads the JSON of a file; `path` is for errors. Tests come in the order of their names.
    ///
    /// # Errors
    /// [`TestsError`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, TestsError> {
        let owned = || path.to_owned();
        let kind = |what| TestsError::Kind { path: owned(), what };
        let error = match serde_json::from_slice::<BTreeMap<String, RawTest>>(bytes) {
            Ok(tests) if tests.is_empty() => return Err(kind("it is empty")),
            Ok(tests) => {
                let tests: BTreeMap<_, _> =
                    tests.into_iter().map(|(name, test)| (name, Ok(test))).collect();
                return Ok(Self(tests.into_iter()));
            }
            Err(error) => error,
        };
        if !error.is_data() {
            return Err(TestsError::Json { path: owned(), reason: error });
        }
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|reason| TestsError::Json { path: owned(), reason })?;
        let Value::Object(tests) = value else { return Err(kind("its json is not an object")) };
        if !tests.values().any(|test| test["blocks"].is_array() && test["network"].is_string()) {
            return Err(kind("its json has no blocks and network in it"));
        }
        // One at a time, so that a wrong field costs one test and not the file.
        let tests: BTreeMap<_, _> =
            tests.into_iter().map(|(name, test)| (name, file::read(test))).collect();
        Ok(Self(tests.into_iter()))
    }
}

impl Iterator for Tests {
    type Item = EthereumTest;

    fn next(&mut self) -> Option<EthereumTest> {
        self.0.next().map(|(name, entry)| match entry {
            Ok(raw) => EthereumTest::new(name, raw),
            Err(unread) => EthereumTest::unread(name, unread),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl EthereumTest {
    fn new(name: String, raw: RawTest) -> Self {
        let genesis = match network::spec(&raw.network) {
            Err(error) => Err(error.to_string()),
            Ok(None) => Ok(None),
            Ok(Some(spec)) => genesis(&raw, spec).map(Some),
        };
        let runs = !matches!(genesis, Ok(None));
        let blocks = raw.blocks.into_iter().map(|block| test_block(block, runs)).collect();
        let end = TestEnd {
            last: raw.lastblockhash,
            state: raw.post_state.filter(|_| runs).map(|state| file::state(&state)),
            state_root: raw.post_state_hash,
        };
        Self { name, network: raw.network, genesis, blocks, end }
    }
}

impl EthereumTest {
    fn unread(name: String, raw: Unread) -> Self {
        let reason = format!("a field is missing or wrong: {}", raw.reason);
        let block = TestBlock {
            number: None,
            expected: Expected::Valid(Err(reason.clone())),
            body: Err(reason.clone()),
        };
        let known = !matches!(network::spec(&raw.network), Ok(None));
        Self {
            name,
            network: raw.network,
            genesis: if known { Err(reason) } else { Ok(None) },
            blocks: vec![block; raw.blocks],
            end: TestEnd::default(),
        }
    }
}

fn genesis(raw: &RawTest, spec: ChainSpec) -> Result<TestGenesis, String> {
    let header = raw.genesis_block_header.header();
    if header.hash_slow() != raw.genesis_block_header.hash {
        return Err("genesisBlockHeader has another hash than it says".into());
    }
    if let Some(rlp) = &raw.genesis_rlp
        && Body::decode(rlp)?.hash != raw.genesis_block_header.hash
    {
        return Err("genesisRLP is not the block of genesisBlockHeader".into());
    }
    Ok(TestGenesis { spec: Arc::new(spec), header, state: file::state(&raw.pre) })
}

fn test_block(raw: RawBlock, decode: bool) -> TestBlock {
    let body = if decode {
        hex::decode(&raw.rlp)
            .map_err(|e| format!("block: its rlp is no hexadecimal: {e}"))
            .and_then(|rlp| Body::decode(&rlp))
    } else {
        Err("its network is not executed here".into())
    };
    let number = match (&body, &raw.block_header) {
        (Ok(body), _) => Some(body.header.number),
        (_, Some(header)) => Some(header.number.to()),
        _ => raw.blocknumber.and_then(|number| number.parse().ok()),
    };
    let expected = match (raw.expect_exception, &raw.block_header) {
        (Some(exception), _) => Expected::Invalid(exception),
        (None, None) => Expected::Invalid("the test does not say why".into()),
        (None, Some(header)) => Expected::Valid(match &body {
            _ if header.header().hash_slow() != header.hash && decode => {
                Err("its blockHeader has another hash than it says".into())
            }
            Ok(body) if body.hash != header.hash => {
                Err(format!("its rlp has the hash {}, its blockHeader {}", body.hash, header.hash))
            }
            _ => Ok(header.hash),
        }),
    };
    TestBlock { number, expected, body }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
