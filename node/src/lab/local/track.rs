//! What one node of a local network has handed on.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{B256, keccak256};
use fragcast_execution::executor::BlockReport;
use fragcast_shredder::Kind;
use fragcast_turbine::Via;
use fragcast_turbine::output::Output;
use hdrhistogram::Histogram;

/// Observations of one node's outputs.
#[derive(Debug)]
pub struct Track {
    /// Roots by block, in the order in which they came.
    blocks: BTreeMap<u64, Vec<B256>>,
    /// Blocks whose Seal came.
    sealed: BTreeSet<u64>,
    /// Messages handed on.
    pub messages: u64,
    /// Messages handed on, by the way that was first.
    pub by_way: BTreeMap<Via, u64>,
    /// Latency from the leader to this node, µs, of messages that came over the network.
    pub latency: Histogram<u64>,
    /// The same latency in the terms before this node's own.
    pub as_next_leader: Histogram<u64>,
    /// Messages that came out of order. Always 0.
    disorder: u64,
    /// The last verdict on each block.
    pub reports: BTreeMap<u64, BlockReport>,
    /// The node was started again: blocks that it had may come once more, from their Env on.
    again: bool,
    /// Of the newest message that came over the network: block, index, latency in µs.
    pub last: Option<(u64, u16, u64)>,
}

impl Track {
    pub(super) fn new() -> Self {
        // One µs to one minute at three digits: 200 kB.
        let histogram = || Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
        Self {
            blocks: BTreeMap::new(),
            sealed: BTreeSet::new(),
            messages: 0,
            by_way: BTreeMap::new(),
            latency: histogram(),
            as_next_leader: histogram(),
            disorder: 0,
            reports: BTreeMap::new(),
            again: false,
            last: None,
        }
    }

    /// The node is started again.
    pub(super) const fn begin_again(&mut self) {
        self.again = true;
    }

    /// How many messages of a block are here.
    pub fn messages_of(&self, block: u64) -> usize {
        self.blocks.get(&block).map_or(0, Vec::len)
    }

    /// The newest block of which a Seal is here.
    pub fn newest_sealed(&self) -> Option<u64> {
        self.sealed.last().copied()
    }

    /// How many blocks have this verdict.
    pub fn verdicts(&self, name: &str) -> usize {
        self.reports.values().filter(|report| report.verdict.name() == name).count()
    }

    pub(super) fn take(&mut self, output: &Output, next_leader: bool, own: bool) {
        match output {
            Output::Retracted { block, .. } => {
                self.blocks.remove(block);
                self.sealed.remove(block);
            }
            Output::Message(m) => {
                let roots = self.blocks.entry(m.key.block).or_default();
                if self.again && m.key.message == 0 {
                    roots.clear();
                }
                self.disorder += u64::from(roots.len() != usize::from(m.key.message));
                roots.push(m.message.root());
                self.messages += 1;
                *self.by_way.entry(m.via).or_default() += 1;
                if m.message.message().kind() == Kind::Seal {
                    self.sealed.insert(m.key.block);
                }
                if let Some(took) = m.times.latency().filter(|_| !own) {
                    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
                    self.latency.saturating_record(micros);
                    self.last = Some((m.key.block, m.key.message, micros));
                    if next_leader {
                        self.as_next_leader.saturating_record(micros);
                    }
                }
            }
        }
    }

    /// How many blocks are sealed.
    pub fn sealed(&self) -> usize {
        self.sealed.len()
    }

    /// Whether the block's messages are exactly these, in this order.
    pub fn has(&self, block: u64, roots: &[B256]) -> bool {
        self.disorder == 0 && self.blocks.get(&block).is_some_and(|have| have == roots)
    }

    /// keccak256 over all message roots by block and order.
    pub fn digest(&self) -> B256 {
        digest(self.blocks.values().flatten())
    }
}

/// keccak256 over roots.
pub fn digest<'a>(roots: impl Iterator<Item = &'a B256>) -> B256 {
    keccak256(roots.flatten().copied().collect::<Vec<u8>>())
}
