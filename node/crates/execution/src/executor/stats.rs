//! Counters and reports of the executor.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use alloy_primitives::B256;

use crate::exec::Verdict;

/// The report on one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockReport {
    /// Block number.
    pub number: u64,
    /// Attempt.
    pub attempt: u8,
    /// The hash that execution gave; zero if it gave none.
    pub hash: B256,
    /// The verdict.
    pub verdict: Verdict,
    /// Transactions executed.
    pub txs: usize,
    /// Gas used.
    pub gas_used: u64,
    /// Time to execute all its frags, ns.
    pub exec_ns: u64,
    /// Time to make the header after the last frag and to compare it with the Seal, ns.
    pub seal_ns: u64,
    /// Time from the end of the last frag's execution to the checked Seal, waiting included, ns.
    pub last_frag_to_seal_ns: u64,
}

/// A function that sees every report, in order, on the executor's thread.
pub type ReportTap = Box<dyn FnMut(&BlockReport) + Send>;

/// Counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecutorSnapshot {
    /// Frags executed.
    pub frags: u64,
    /// Transactions executed.
    pub txs: u64,
    /// Gas executed.
    pub gas: u64,
    /// Time spent executing, ns.
    pub exec_ns: u64,
    /// Time spent on headers and Seals, ns.
    pub seal_ns: u64,
    /// Messages dropped because the queue was full.
    pub overrun: u64,
    /// Blocks by verdict: `verified`, `rejected`, `unverified`.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Rejected and unverified blocks by reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Blocks taken back, by reason.
    pub retractions: BTreeMap<&'static str, u64>,
    /// Blocks imported from the execution client.
    pub imported: u64,
    /// The newest verified block.
    pub verified: Option<u64>,
    /// The newest durable block.
    pub durable: Option<u64>,
    /// Open blocks.
    pub open: usize,
    /// Whether nothing is executed, since the state source keeps nothing any more.
    pub stopped: bool,
    /// Open blocks that were dropped because there were too many.
    pub evicted: u64,
    /// Messages that were not handed in, because their block is too far ahead of the head.
    pub held_back: u64,
}

/// Counters.
#[derive(Debug, Default)]
pub struct ExecutorStats(Mutex<ExecutorSnapshot>);

impl ExecutorStats {
    /// The counters now.
    pub fn snapshot(&self) -> ExecutorSnapshot {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn update(&self, write: impl FnOnce(&mut ExecutorSnapshot)) {
        write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A message was not handed in, because its block is too far ahead of the head.
    pub fn note_held_back(&self) {
        self.update(|s| s.held_back += 1);
    }

    pub(super) fn overrun(&self) {
        self.update(|s| s.overrun += 1);
    }

    pub(super) fn report(&self, report: &BlockReport) {
        self.update(|s| {
            *s.verdicts.entry(report.verdict.name()).or_default() += 1;
            let reason = match &report.verdict {
                Verdict::Verified => return,
                Verdict::Rejected(invalid) => invalid.label(),
                Verdict::Unverified(why) => why.label(),
            };
            *s.reasons.entry(reason).or_default() += 1;
        });
    }
}

/// Measures how long a step takes.
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn nanos(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
