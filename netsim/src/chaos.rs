//! Chaos: a whole network in virtual time under random faults from a seed, with invariants that are
//! checked all the time.
//!
//! ```text
//! seed ─▶ plan (faults with their times) ─▶ drive: nodes, paths, chain, liars ⇄ checks ─▶ outcome
//!                                             └ broken ─▶ shrink ─▶ the command that repeats it
//! ```
//!
//! Every node runs `fragcast_turbine::Protocol` behind the sequencer and the gossip gate of the
//! daemon; the driver does what the daemon's does, with connections that die and are made anew,
//! clocks, disks and processes that fail. [`Plan`] has the faults, [`Lie`] what liars do,
//! [`Invariant`] what must hold:
//!
//! 1. No honest node bars an honest node.
//! 2. Who hears more than half of all nodes delivers every block that more than half of the honest
//!    nodes have delivered with its Seal, in order, within [`Options::bound`].
//! 3. Tables stay under their bounds.
//! 4. What is delivered of an honest gateway's block is what that gateway signed, so no two nodes
//!    deliver different messages under one key.
//! 5. An accused gateway was guilty.
//! 6. A node whose timers have fired has none that is due still: time moves on.
//!
//! A run is a function of its [`Options`]; the same options give the same digest.

use crate::{Nanos, SECONDS};

mod app;
mod chain;
mod check;
mod drive;
mod gossip;
mod lies;
mod node;
mod paths;
mod plan;
mod report;
mod shrink;

pub use check::{Broken, Invariant};
pub use drive::run;
pub use plan::{Fault, Lie, Plan, What};
pub use report::{Outcome, Tallies, table};
pub use shrink::{Shrunk, shrink};

/// What a run depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Seed of the plan, and of everything that happens.
    pub seed: u64,
    /// Number of nodes, at least 7.
    pub nodes: u32,
    /// Virtual time for which faults are planned. Depends on nothing else: a run that ends earlier
    /// has the same faults.
    pub planned: Nanos,
    /// When the run ends, if before that.
    pub until: Option<Nanos>,
    /// The numbers of the faults of the plan that happen; `None`: all.
    pub only: Option<Vec<usize>>,
    /// In what time who hears a quorum has what a quorum has.
    pub bound: Nanos,
}

impl Options {
    /// The fewest nodes: four leaders, and more than half of all honest.
    pub const MIN_NODES: u32 = 7;
    /// The usual bound: the protocol drops a window after five seconds without progress, and then
    /// has to ask for what it missed.
    pub const BOUND: Nanos = 15 * SECONDS;

    /// A run of `nodes` nodes for `planned` of virtual time.
    pub const fn new(seed: u64, nodes: u32, planned: Nanos) -> Self {
        Self { seed, nodes, planned, until: None, only: None, bound: Self::BOUND }
    }

    /// The end of the run.
    fn end(&self) -> Nanos {
        self.until.unwrap_or(self.planned).min(self.planned)
    }

    /// The command that repeats the run.
    pub fn command(&self) -> String {
        let minutes = self.planned as f64 / (60 * SECONDS) as f64;
        let mut command = format!(
            "cargo run --release -p netsim -- chaos --seed {} --nodes {} --minutes {minutes}",
            self.seed, self.nodes
        );
        if self.bound != Self::BOUND {
            command += &format!(" --bound {}", self.bound as f64 / SECONDS as f64);
        }
        if let Some(until) = self.until {
            command += &format!(" --until {}", until as f64 / SECONDS as f64);
        }
        if let Some(only) = &self.only {
            let numbers: Vec<String> = only.iter().map(usize::to_string).collect();
            let none = if only.is_empty() { "none" } else { "" };
            command += &format!(" --only {}{none}", numbers.join(","));
        }
        command
    }
}

#[cfg(test)]
mod tests;
