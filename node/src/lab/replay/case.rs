//! A case: blocks on a starting state, with the expected result of each. It is the same for every
//! kind of file, with or without a network.

use std::path::Path;
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::Bytes;
use fragcast_execution::chain::ChainSpec;
use fragcast_execution::exec::memory::{MemorySource, MemoryState};
use fragcast_execution::exec::{StateSource, Witness, WitnessSource};
use fragcast_execution::state::SourceError;
use fragcast_shredder::Env;

use super::report::{Outcome, Row};
use crate::lab::fixtures::ethereum_tests::{EthereumTest, Expected, TestBlock, TestEnd, Unusable};
use crate::lab::fixtures::recorded::RecordedBlock;

/// The starting state of a case.
#[derive(Debug, Clone)]
pub enum Start {
    /// The state after a block, from a witness.
    Witness(Header, Arc<Witness>),
    /// The state of block 0.
    Genesis(Header, MemoryState),
}

impl Start {
    /// Header of the block that the case begins after.
    pub const fn header(&self) -> &Header {
        match self {
            Self::Witness(header, _) | Self::Genesis(header, _) => header,
        }
    }

    /// A source of its state; every executor has one of its own.
    ///
    /// # Errors
    /// None in practice.
    pub fn source(&self) -> Result<Arc<dyn StateSource>, SourceError> {
        Ok(match self {
            Self::Witness(header, witness) => {
                Arc::new(WitnessSource::new(header.clone(), Arc::clone(witness)))
            }
            Self::Genesis(header, state) => {
                Arc::new(MemorySource::new(header.clone(), state.clone())?)
            }
        })
    }
}

/// The parts of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Its Env.
    pub env: Env,
    /// Its transactions.
    pub txs: Vec<Bytes>,
    /// Blob gas of the transactions, up to and with each.
    pub blob_gas: Vec<u64>,
    /// Its withdrawals, which reach executors beside the messages.
    pub withdrawals: Option<Vec<Withdrawal>>,
    /// Its header, if the file has it.
    pub header: Option<Header>,
}

/// A block to replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its number, if that is known.
    pub number: Option<u64>,
    /// Its expected result.
    pub expected: Expected,
    /// Its parts, or why it cannot be cut.
    pub parts: Result<Parts, Unusable>,
}

/// Blocks on one starting state.
#[derive(Debug, Clone)]
pub struct Case {
    /// The file, and the test in it.
    pub source: String,
    /// The group under which it is summed up.
    pub group: String,
    /// The chain.
    pub spec: Arc<ChainSpec>,
    /// Its starting state.
    pub start: Start,
    /// Its blocks, in order; each builds on the starting state or on any block before it.
    pub blocks: Vec<Planned>,
    /// The expected final state.
    pub end: TestEnd,
}

/// A case, or rows that say why there is none.
#[derive(Debug)]
pub enum Loaded {
    /// To be replayed.
    Case(Box<Case>),
    /// Rows for a case that is skipped, because its network cannot be executed, or has failed,
    /// because it contradicts itself.
    Rows(Vec<Row>),
}

/// Rows for all blocks of a case that is not run.
fn rows(mut row: Row, blocks: &[TestBlock], outcome: Outcome, reason: &str) -> Loaded {
    row.outcome = outcome;
    row.verdict = if outcome == Outcome::Skipped { "skipped" } else { "unverified" };
    row.reason = Some(reason.to_owned());
    let mut rows: Vec<Row> = blocks
        .iter()
        .map(|block| {
            let mut row = row.clone();
            row.number = block.number;
            row.valid = matches!(block.expected, Expected::Valid(_));
            if let Expected::Valid(Ok(hash)) = &block.expected {
                row.expected_hash = Some(*hash);
            }
            row
        })
        .collect();
    if rows.is_empty() && outcome == Outcome::Failed {
        rows.push(row);
    }
    Loaded::Rows(rows)
}

impl Case {
    /// The case of a recorded block.
    pub fn of_recorded(source: &str, block: &RecordedBlock) -> Loaded {
        let group = format!("chain {}", block.chain_id);
        let mut row = Row::new(source, &group);
        row.number = Some(block.number);
        row.expected_hash = Some(block.expected_block_hash);
        let made = block.chain_spec().map_err(|e| e.to_string()).and_then(|spec| {
            let witness = block.witness().map_err(|e| e.to_string())?;
            Ok((spec, witness))
        });
        let (spec, witness) = match made {
            Ok(made) => made,
            Err(reason) => {
                row.verdict = "unverified";
                row.reason = Some(reason);
                return Loaded::Rows(vec![row]);
            }
        };
        let parts = Parts {
            env: block.env(),
            txs: block.attributes.txs.clone(),
            blob_gas: Vec::new(),
            withdrawals: None,
            header: None,
        };
        Loaded::Case(Box::new(Self {
            source: source.to_owned(),
            group,
            spec: Arc::new(spec),
            start: Start::Witness(block.parent_header.clone(), Arc::new(witness)),
            blocks: vec![Planned {
                number: Some(block.number),
                expected: Expected::Valid(Ok(block.expected_block_hash)),
                parts: Ok(parts),
            }],
            end: TestEnd::default(),
        }))
    }

    /// The case of a test in the file `file`.
    pub fn of_test(file: &str, test: EthereumTest) -> Loaded {
        let source = format!("{file}::{}", test.name);
        let group = format!("{} {}", test.network, folder(file));
        let row = Row::new(&source, &group);
        let genesis = match test.genesis {
            Ok(Some(genesis)) => genesis,
            Ok(None) => {
                let reason = format!("the network {} is not executed here", test.network);
                return rows(row, &test.blocks, Outcome::Skipped, &reason);
            }
            Err(reason) => {
                return rows(row, &test.blocks, Outcome::Failed, &reason.to_string());
            }
        };
        let root = genesis.state.trie().map(|trie| trie.root());
        if root.as_ref() != Ok(&genesis.header.state_root) {
            let reason = "the state `pre` has another root than genesisBlockHeader says";
            return rows(row, &test.blocks, Outcome::Failed, reason);
        }
        let planned = |block: TestBlock| Planned {
            number: block.number,
            expected: block.expected,
            parts: block.body.map(|body| Parts {
                env: body.env(),
                txs: body.txs,
                blob_gas: body.blob_gas,
                withdrawals: body.withdrawals,
                header: Some(body.header),
            }),
        };
        Loaded::Case(Box::new(Self {
            source,
            group,
            spec: genesis.spec,
            start: Start::Genesis(genesis.header, genesis.state),
            blocks: test.blocks.into_iter().map(planned).collect(),
            end: test.end,
        }))
    }
}

/// The part of the suite that a file belongs to: the folder below `BlockchainTests`, or the first.
fn folder(file: &str) -> String {
    let folders = Path::new(file).parent().into_iter().flat_map(Path::components);
    let names: Vec<_> = folders.map(|c| c.as_os_str().to_string_lossy()).collect();
    let below = names.iter().position(|name| name == "BlockchainTests").map_or(0, |at| at + 1);
    names.get(below).map_or_else(|| ".".to_owned(), ToString::to_string)
}
