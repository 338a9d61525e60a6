//! What runs have come to, as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Broken, Options};
use crate::{MILLIS, Nanos, SECONDS};

/// Numbers of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Faults that began, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Messages that leaders sent.
    pub broadcast: u64,
    /// Messages that nodes delivered.
    pub delivered: u64,
    /// Messages that applications lost.
    pub forgotten: u64,
    /// Messages that applications were handed again.
    pub again: u64,
    /// Blocks that honest nodes completed.
    pub completed: u64,
    /// Times at which a node was held to a block.
    pub held: u64,
    /// Datagrams that were sent.
    pub datagrams: u64,
    /// Datagrams and frames that were lost.
    pub lost: u64,
    /// Control frames that were sent.
    pub frames: u64,
    /// Messages that were published to gossip.
    pub published: u64,
    /// Connections that were made.
    pub connections: u64,
    /// Things that liars said.
    pub lies: u64,
    /// Peers that were barred.
    pub bars: u64,
    /// Accusations of equivocation that nodes made.
    pub accusations: u64,
    /// Events of the simulation.
    pub events: u64,
}

/// What a run has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What was run.
    pub options: Options,
    /// The time of its last event.
    pub end: Nanos,
    /// The first invariant that did not hold.
    pub broken: Option<Broken>,
    /// The longest time in which a node had a block that it was held to.
    pub worst_delay: Nanos,
    /// The most bytes in the tables of one honest node.
    pub worst_memory: usize,
    /// Numbers.
    pub tallies: Tallies,
    /// Hash over everything that happened.
    pub digest: [u8; 32],
}

/// The table of several runs: faults by kind, messages, worst delay, highest memory, digest.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let sum = |of: fn(&Tallies) -> u64| outcomes.iter().map(|o| of(&o.tallies)).sum::<u64>();
    for (name, count) in outcomes.iter().flat_map(|outcome| &outcome.tallies.faults) {
        *faults.entry(name).or_default() += count;
    }
    let mut digest = blake3::Hasher::new_derive_key("fragcast 2026 netsim chaos v1");
    outcomes.iter().for_each(|outcome| {
        digest.update(&outcome.digest);
    });
    let simulated: Nanos = outcomes.iter().map(|outcome| outcome.end).sum();
    let delay = outcomes.iter().map(|outcome| outcome.worst_delay).max().unwrap_or(0);
    let memory = outcomes.iter().map(|outcome| outcome.worst_memory).max().unwrap_or(0);
    let broken = outcomes.iter().filter(|outcome| outcome.broken.is_some()).count();
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<34}{value:>16}");
    };
    row("runs", outcomes.len().to_string());
    row("simulated seconds", (simulated / SECONDS).to_string());
    for (name, count) in &faults {
        row(&format!("fault: {name}"), count.to_string());
    }
    row("faults", faults.values().sum::<u64>().to_string());
    row("messages sent by leaders", sum(|t| t.broadcast).to_string());
    row("messages delivered", sum(|t| t.delivered).to_string());
    row("messages lost by applications", sum(|t| t.forgotten).to_string());
    row("messages handed again", sum(|t| t.again).to_string());
    row("blocks completed at honest nodes", sum(|t| t.completed).to_string());
    row("times a node was held to a block", sum(|t| t.held).to_string());
    row("datagrams", sum(|t| t.datagrams).to_string());
    row("control frames", sum(|t| t.frames).to_string());
    row("lost", sum(|t| t.lost).to_string());
    row("published to gossip", sum(|t| t.published).to_string());
    row("connections made", sum(|t| t.connections).to_string());
    row("lies", sum(|t| t.lies).to_string());
    row("bars", sum(|t| t.bars).to_string());
    row("accusations", sum(|t| t.accusations).to_string());
    row("worst delay, ms", (delay / MILLIS).to_string());
    row("highest memory of tables, MiB", format!("{:.1}", memory as f64 / 1_048_576.0));
    row("digest", alloy_primitives::hex::encode(&digest.finalize().as_bytes()[..8]));
    row("runs with a broken invariant", broken.to_string());
    out
}
