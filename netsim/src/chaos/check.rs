//! The invariants, and what is remembered to check them.

use std::collections::BTreeMap;

use alloy_primitives::B256;
use fragcast_shredder::MessageKey;
use fragcast_turbine::{Config, Delivered};

use super::chain::{Chain, current};
use super::node::{Host, Process};
use super::plan::LIAR;
use crate::{Nanos, NodeId, SECONDS};

/// What must always hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Invariant {
    /// No honest node bars an honest node.
    HonestBarred,
    /// Who hears a quorum delivers what a quorum has.
    Delivery,
    /// Messages of a block come in order.
    Order,
    /// Tables stay under their bounds.
    Memory,
    /// What is delivered is what the gateway signed.
    Content,
    /// An accused gateway was guilty.
    Accusation,
    /// Time moves on.
    Time,
}

impl Invariant {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// When.
    pub at: Nanos,
    /// At which node.
    pub node: NodeId,
    /// Which.
    pub invariant: Invariant,
    /// What was seen.
    pub what: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, node, invariant, what } = self;
        let at = *at as f64 / SECONDS as f64;
        write!(f, "{} at node {node} after {at:.3} s: {what}", invariant.name())
    }
}

/// The bounds of a process's tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds([usize; 6]);

impl Bounds {
    /// Those of a configuration; `largest` bytes has a leader's own message at most, with its
    /// coding, for all peers.
    pub(super) const fn of(config: &Config, largest: usize) -> Self {
        use fragcast_turbine::sequencer::{MAX_KEPT, MAX_WAITING};
        Self([
            config.reassembly.memory,
            config.repair.memory,
            config.gossip.memory,
            MAX_WAITING,
            MAX_KEPT,
            config.lane_capacity + largest,
        ])
    }
}

/// How far back blocks are held against nodes: less than what peers keep.
const KEPT: u64 = 48;

/// The state of all checks.
#[derive(Debug)]
pub(super) struct Check {
    bounds: Bounds,
    bound: Nanos,
    nodes: usize,
    honest: usize,
    /// By block: how many honest nodes have completed it.
    completions: BTreeMap<u64, usize>,
    /// By block: since when more than half of the honest nodes have it.
    quorum_at: BTreeMap<u64, Nanos>,
    /// What nodes delivered of the lying gateway's blocks.
    said: BTreeMap<MessageKey, (B256, NodeId)>,
    /// The lying gateway has signed contradictory things.
    pub(super) guilty: bool,
    pub(super) broken: Option<Broken>,
    pub(super) worst_delay: Nanos,
    pub(super) worst_memory: usize,
    /// Completions of blocks by honest nodes.
    pub(super) completed: u64,
    /// Times at which a node was held to a block.
    pub(super) held: u64,
}

impl Check {
    pub(super) const fn new(bounds: Bounds, bound: Nanos, nodes: usize, honest: usize) -> Self {
        Self {
            bounds,
            bound,
            nodes,
            honest,
            completions: BTreeMap::new(),
            quorum_at: BTreeMap::new(),
            said: BTreeMap::new(),
            guilty: false,
            broken: None,
            worst_delay: 0,
            worst_memory: 0,
            completed: 0,
            held: 0,
        }
    }

    /// Notes the first thing that does not hold.
    pub(super) fn broke(&mut self, at: Nanos, node: NodeId, invariant: Invariant, what: String) {
        self.broken.get_or_insert(Broken { at, node, invariant, what });
    }

    /// A process's tables after a step.
    pub(super) fn tables(&mut self, now: Nanos, node: NodeId, process: &Process) {
        let tables = process.tables();
        self.worst_memory = self.worst_memory.max(tables.iter().map(|(_, bytes)| bytes).sum());
        for ((name, bytes), bound) in tables.into_iter().zip(self.bounds.0) {
            if bytes > bound {
                let what = format!("{name}: {bytes} bytes, over {bound}");
                self.broke(now, node, Invariant::Memory, what);
            }
        }
    }

    /// An honest node has delivered a message.
    pub(super) fn delivered(&mut self, now: Nanos, node: NodeId, chain: &Chain, of: &Delivered) {
        let (key, root) = (of.key, of.message.root());
        let at = |opening: &super::chain::Opening| {
            opening.roots.get(usize::from(key.message)) == Some(&root)
        };
        let signed = if of.via.proves_attempt() {
            chain.opening(key.block, key.attempt).is_some_and(at)
        } else {
            chain.openings(key.block).any(at)
        };
        if signed {
            return;
        }
        if chain.gateway(key.block) != LIAR {
            let what = format!("{key:?} by {} is not what its gateway signed", of.via.name());
            self.broke(now, node, Invariant::Content, what);
            return;
        }
        if self.guilty || !of.via.proves_attempt() {
            return;
        }
        let (said, by) = *self.said.entry(key).or_insert((root, node));
        if said != root {
            let what = format!("{key:?} is another message than at node {by}");
            self.broke(now, node, Invariant::Content, what);
        }
        // Enough for the blocks of a window.
        if self.said.len() > 65_536 {
            self.said.pop_first();
        }
    }

    /// An honest node has a whole block.
    pub(super) fn completed(
        &mut self,
        now: Nanos,
        node: NodeId,
        host: &Host,
        chain: &Chain,
        (block, roots): (u64, &[B256]),
    ) {
        if chain.gateway(block) == LIAR {
            return;
        }
        if !chain.openings(block).any(|opening| opening.roots == roots) {
            let what =
                format!("block {block} with {} messages is none that was sealed", roots.len());
            self.broke(now, node, Invariant::Content, what);
        }
        self.completed += 1;
        let count = self.completions.entry(block).or_default();
        *count += 1;
        if 2 * *count > self.honest {
            self.quorum_at.entry(block).or_insert(now);
        }
        self.note_delay(now, host, block);
        let old = block.saturating_sub(2 * KEPT);
        self.completions = self.completions.split_off(&old);
        self.quorum_at = self.quorum_at.split_off(&old);
    }

    /// Remembers how long a node took that was held to a block.
    fn note_delay(&mut self, now: Nanos, host: &Host, block: u64) {
        let base = host.base.is_some_and(|base| base <= block);
        if let (true, Some(since), Some(quorum)) =
            (base, host.well_since, self.quorum_at.get(&block))
        {
            self.worst_delay = self.worst_delay.max(now - since.max(*quorum).min(now));
        }
    }

    /// The blocks that somebody honest has, in order: those of the chain.
    pub(super) fn blocks(&self) -> impl Iterator<Item = u64> {
        self.completions.keys().copied()
    }

    /// Whether a node that hears so many hosts, itself included, hears a quorum.
    pub(super) const fn is_quorum(&self, heard: usize) -> bool {
        2 * heard > self.nodes
    }

    /// Holds an honest node to what it must have by now.
    pub(super) fn hold(&mut self, now: Nanos, node: NodeId, host: &Host) {
        let (Some(base), Some(since)) = (host.base, host.well_since) else { return };
        let Some(before) = now.checked_sub(self.bound) else { return };
        if since > before {
            return;
        }
        let from = base.max(current(now).saturating_sub(KEPT));
        let due = self.quorum_at.range(from..).filter(|(_, at)| **at <= before);
        let mut missing = Vec::new();
        for (block, _) in due {
            self.held += 1;
            if !host.done.contains_key(block) {
                missing.push(*block);
            }
        }
        if let Some(first) = missing.first() {
            let process = host.process.as_ref();
            let window = process.map(|process| process.protocol.window());
            let what = format!(
                "block {first} is not here ({} in all), though a quorum has it and was heard for \
                 {:.1} s; the newest here is {:?}, the window {window:?}, its clock {:.0} s off",
                missing.len(),
                (now - since) as f64 / SECONDS as f64,
                host.done.last_key_value().map(|(block, _)| block),
                host.clock as f64 / SECONDS as f64,
            );
            self.broke(now, node, Invariant::Delivery, what);
        }
    }
}

/// The largest message of a run with its coding, for all peers, that a leader may have in a lane
/// beyond its bound.
pub(super) const fn largest(nodes: u32) -> usize {
    // 150 kB with 1.5 coding shreds for each data shred, and the frames around them.
    nodes as usize * 600_000
}
