//! The expectations of a scenario, and checking them.

use fragcast_turbine::health::State;

use crate::fault::Faults;
use crate::load::Load;
use crate::outcome::{NEVER, Outcome};
use crate::results::ORDER;
use crate::{MILLIS, Nanos, NodeId};

/// Protocols for which a file may have expectations: all in [`ORDER`] except the limit.
pub const PROTOCOLS: [&str; 5] = {
    let [_limit, protocols @ ..] = ORDER;
    protocols
};

/// Bounds of a protocol's shares, both included. `None`: any value.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Expectation {
    /// Pairs that complete in the end, see [`Shares::complete`].
    pub complete: Option<(f64, f64)>,
    /// Pairs that complete without repair.
    pub spread: Option<(f64, f64)>,
    /// Pairs that complete by repair.
    pub repaired: Option<(f64, f64)>,
    /// Nodes that hold evidence of the equivocation.
    pub convicted: Option<(f64, f64)>,
    /// Pairs that complete by the fallback, gossip.
    pub gossiped: Option<(f64, f64)>,
    /// Gossip's share of all bytes sent.
    pub gossip_bytes: Option<(f64, f64)>,
    /// Nodes that are on the overlay in the end.
    pub on_turbine: Option<(f64, f64)>,
    /// Number of times that nodes fell back on gossip.
    pub fallbacks: Option<(f64, f64)>,
    /// Number of times that nodes returned to the overlay.
    pub returns: Option<(f64, f64)>,
    /// The most changes in both directions of a single node.
    pub flaps: Option<(f64, f64)>,
    /// The longest time, in ms, from the sending of a message that the overlay did not bring until
    /// the fallback; see [`Change::missing_for`](crate::outcome::Change::missing_for).
    pub fall_back_ms: Option<(f64, f64)>,
    /// The mean time of the pairs, over that of the same pairs without any fault.
    pub over_still: Option<(f64, f64)>,
}

/// The counts behind the shares of an [`Expectation`]. Those of several runs can be added.
///
/// A *pair* is an expected message and a node that never crashes, is a member at the message's block
/// or a guest, and is not its leader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shares {
    /// All pairs.
    pub pairs: u64,
    /// Pairs that complete without repair.
    pub spread: u64,
    /// Pairs that complete by repair.
    pub repaired: u64,
    /// Nodes that never crash and never equivocate. A leader needs no evidence against itself.
    pub nodes: u64,
    /// Of those nodes, those that hold evidence of an equivocation.
    pub convicted: u64,
    /// Pairs that complete by the fallback.
    pub gossiped: u64,
    /// Changes of nodes between the overlay and gossip.
    pub changes: Changes,
    /// Bytes that all nodes sent.
    pub bytes: u64,
    /// Bytes that gossip sent.
    pub gossip_bytes: u64,
}

/// Counts of the nodes' changes between the overlay and gossip. Probes are no changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Changes {
    /// Changes from the overlay to gossip.
    pub fallbacks: u64,
    /// Changes from gossip to the overlay.
    pub returns: u64,
    /// Number of times that a node probed gossip.
    pub probes: u64,
    /// The most changes in both directions of a single node.
    pub flaps: u64,
    /// The longest time, in ns, from the sending of a message that the overlay did not bring until
    /// the fallback.
    pub slowest: Nanos,
    /// The most blocks that a node had to wait before it returned.
    pub dwell: u64,
    /// Nodes, crashed ones included.
    pub nodes: u64,
    /// Nodes that are not on the overlay in the end.
    pub on_gossip: u64,
}

impl Changes {
    /// The changes of one run.
    pub fn of(outcome: &Outcome) -> Self {
        let nodes = outcome.sent.len();
        let mut all = Self { nodes: nodes as u64, ..Self::default() };
        let mut flaps = vec![0; nodes];
        let mut last = vec![State::Turbine; nodes];
        for change in &outcome.changes {
            let node = change.node as usize;
            last[node] = change.to;
            all.probes += u64::from(change.to == State::Probing);
            let falls = change.to == State::Gossip;
            let returns = change.from == State::Gossip;
            all.fallbacks += u64::from(falls);
            all.returns += u64::from(returns);
            flaps[node] += u64::from(falls) + u64::from(returns);
            if falls {
                all.dwell = all.dwell.max(change.dwell);
                all.slowest = all.slowest.max(change.missing_for.unwrap_or(0));
            }
        }
        all.flaps = flaps.into_iter().max().unwrap_or(0);
        all.on_gossip = last.iter().filter(|state| **state != State::Turbine).count() as u64;
        all
    }

    /// Adds the counts of another run.
    pub const fn add(&mut self, other: &Self) {
        self.fallbacks += other.fallbacks;
        self.returns += other.returns;
        self.probes += other.probes;
        self.nodes += other.nodes;
        self.on_gossip += other.on_gossip;
        self.flaps = if self.flaps > other.flaps { self.flaps } else { other.flaps };
        self.dwell = if self.dwell > other.dwell { self.dwell } else { other.dwell };
        self.slowest = if self.slowest > other.slowest { self.slowest } else { other.slowest };
    }
}

impl Shares {
    /// The counts of one run.
    pub fn of(outcome: &Outcome, load: &Load, faults: &Faults) -> Self {
        let crashed = faults.crashed();
        let mut shares = Self {
            changes: Changes::of(outcome),
            bytes: outcome.sent.iter().sum(),
            gossip_bytes: outcome.sent_by_tcp,
            ..Self::default()
        };
        for (broadcast, completion) in load.broadcasts.iter().zip(&outcome.completions) {
            if !broadcast.expected {
                continue;
            }
            for (node, after) in completion.after.iter().enumerate() {
                let id = node as NodeId;
                let member = load.counts(id, broadcast.key.block);
                if id == broadcast.leader || crashed.contains(&id) || !member {
                    continue;
                }
                shares.pairs += 1;
                if *after != NEVER {
                    let repaired = u64::from(completion.repaired[node]);
                    let gossiped = u64::from(completion.gossiped[node]);
                    shares.repaired += repaired;
                    shares.gossiped += gossiped;
                    shares.spread += 1 - repaired - gossiped;
                }
            }
        }
        let liar = |node| load.broadcasts.iter().any(|b| b.equivocal && b.leader == node);
        for (node, convicted) in outcome.convicted.iter().enumerate() {
            let node = node as NodeId;
            if !crashed.contains(&node) && !liar(node) {
                shares.nodes += 1;
                shares.convicted += u64::from(*convicted);
            }
        }
        shares
    }

    /// Adds the counts of another run.
    pub const fn add(&mut self, other: &Self) {
        self.pairs += other.pairs;
        self.spread += other.spread;
        self.repaired += other.repaired;
        self.nodes += other.nodes;
        self.convicted += other.convicted;
        self.gossiped += other.gossiped;
        self.changes.add(&other.changes);
        self.bytes += other.bytes;
        self.gossip_bytes += other.gossip_bytes;
    }

    /// Share of pairs that complete in the end. Every share is 0 if there are no pairs, so that a
    /// run that sends nothing meets no expectation.
    pub fn complete(&self) -> f64 {
        share(self.spread + self.repaired + self.gossiped, self.pairs)
    }

    /// Share of pairs that complete without repair or fallback.
    pub fn spread(&self) -> f64 {
        share(self.spread, self.pairs)
    }

    /// Share of pairs that complete by repair.
    pub fn repaired(&self) -> f64 {
        share(self.repaired, self.pairs)
    }

    /// Share of pairs that complete by the fallback.
    pub fn gossiped(&self) -> f64 {
        share(self.gossiped, self.pairs)
    }

    /// Share of nodes that hold evidence.
    pub fn convicted(&self) -> f64 {
        share(self.convicted, self.nodes)
    }
}

impl std::fmt::Display for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.2} % of {} pairs complete, {:.2} % without repair, {:.2} % by repair",
            100.0 * self.complete(),
            self.pairs,
            100.0 * self.spread(),
            100.0 * self.repaired(),
        )?;
        if self.convicted > 0 {
            write!(f, "; {} of {} nodes hold evidence", self.convicted, self.nodes)?;
        }
        let Changes { fallbacks, returns, probes, flaps, slowest, dwell, nodes, on_gossip } =
            self.changes;
        if fallbacks + probes > 0 || self.gossiped > 0 {
            write!(
                f,
                "; {:.2} % by gossip, which sent {:.1} % of the bytes; {fallbacks} fallbacks, the \
                 slowest after {:.0} ms, {returns} returns, {flaps} changes of one node at most, \
                 dwell up to {dwell}, {probes} probes; {on_gossip} of {nodes} nodes are not back \
                 on the overlay",
                100.0 * self.gossiped(),
                100.0 * share(self.gossip_bytes, self.bytes),
                slowest as f64 / MILLIS as f64,
            )?;
        }
        Ok(())
    }
}

fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

impl Expectation {
    /// Checks a run.
    ///
    /// # Errors
    ///
    /// A sentence for every share that is out of its bounds.
    pub fn check(
        &self,
        outcome: &Outcome,
        load: &Load,
        faults: &Faults,
    ) -> Result<Shares, Vec<String>> {
        let shares = Shares::of(outcome, load, faults);
        let failures = self.failures(&shares);
        if failures.is_empty() { Ok(shares) } else { Err(failures) }
    }

    /// A sentence if the ratio of [`Plan::over_still`](crate::compare::Plan::over_still) is out of its
    /// bounds.
    pub fn over_still_failure(&self, ratio: f64) -> Option<String> {
        let (low, high) = self.over_still?;
        let told = || format!("over_still is {ratio:.4}, expected {low} to {high}");
        (!(low..=high).contains(&ratio)).then(told)
    }

    /// A sentence for every share that is out of its bounds, for the counts of several runs.
    pub fn failures(&self, shares: &Shares) -> Vec<String> {
        let Shares { pairs, spread, repaired, nodes, convicted, gossiped, changes, .. } = *shares;
        let Shares { bytes, gossip_bytes, .. } = *shares;
        let complete = spread + repaired + gossiped;
        let back = changes.nodes - changes.on_gossip;
        let on_turbine = share(back, changes.nodes);
        let of_bytes = share(gossip_bytes, bytes);
        let rows = [
            ("complete", self.complete, shares.complete(), complete, pairs, "pairs"),
            ("spread", self.spread, shares.spread(), spread, pairs, "pairs"),
            ("repaired", self.repaired, shares.repaired(), repaired, pairs, "pairs"),
            ("convicted", self.convicted, shares.convicted(), convicted, nodes, "nodes"),
            ("gossiped", self.gossiped, shares.gossiped(), gossiped, pairs, "pairs"),
            ("gossip_bytes", self.gossip_bytes, of_bytes, gossip_bytes, bytes, "bytes"),
            ("on_turbine", self.on_turbine, on_turbine, back, changes.nodes, "nodes"),
        ];
        let row = |(name, bounds, share, part, of, what): (_, Option<(f64, f64)>, f64, _, _, _)| {
            let (low, high) = bounds?;
            let bounds = if low < high { format!("{low} to {high}") } else { low.to_string() };
            let told =
                || format!("{name} is {share:.4} ({part} of {of} {what}), expected {bounds}");
            (share < low || share > high).then(told)
        };
        let counts = [
            ("fallbacks", self.fallbacks, changes.fallbacks as f64),
            ("returns", self.returns, changes.returns as f64),
            ("flaps", self.flaps, changes.flaps as f64),
            ("fall_back_ms", self.fall_back_ms, changes.slowest as f64 / MILLIS as f64),
        ];
        let count = |(name, bounds, number): (_, Option<(f64, f64)>, f64)| {
            let (low, high) = bounds?;
            let told = || format!("{name} is {number}, expected {low} to {high}");
            (number < low || number > high).then(told)
        };
        rows.into_iter().filter_map(row).chain(counts.into_iter().filter_map(count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fault::{ALWAYS, Fault};

    /// Five nodes: 0 leads and sends two messages, the first of them void; 4 crashes.
    fn run() -> (Outcome, Load, Faults) {
        let mut load = Load::single(vec![0], 500);
        load.broadcasts.push(load.broadcasts[0]);
        load.broadcasts[0].expected = false;
        load.broadcasts[1].equivocal = true;
        let mut outcome = Outcome::new(5, 2);
        outcome.completions[1].after = vec![0, 7, 9, NEVER, 8];
        outcome.completions[1].repaired = vec![false, false, true, false, false];
        outcome.convicted = vec![false, true, true, false, true];
        let nodes = BTreeSet::from([4]);
        (outcome, load, Faults(vec![Fault::Crash { nodes, span: ALWAYS }]))
    }

    #[test]
    fn shares_leave_out_leaders_crashed_nodes_and_void_messages() {
        let (outcome, load, faults) = run();
        let shares = Shares::of(&outcome, &load, &faults);
        let counted = Shares {
            pairs: 3,
            spread: 1,
            repaired: 1,
            nodes: 3,
            convicted: 2,
            changes: Changes { nodes: 5, ..Changes::default() },
            ..Shares::default()
        };
        assert_eq!(shares, counted);
        assert_eq!(shares.complete(), 2.0 / 3.0);
        let mut twice = shares;
        twice.add(&shares);
        assert_eq!((twice.pairs, twice.spread()), (6, 1.0 / 3.0));
    }

    #[test]
    fn what_is_out_of_bounds_is_told() {
        let (outcome, load, faults) = run();
        let check = |expectation: Expectation| expectation.check(&outcome, &load, &faults);
        let third = Some((0.3, 0.4));
        let fine = Expectation { spread: third, repaired: third, ..Expectation::default() };
        assert_eq!(check(fine).unwrap(), Shares::of(&outcome, &load, &faults));
        let exactly = Some((1.0, 1.0));
        let wrong = Expectation { complete: exactly, convicted: exactly, repaired: third, ..fine };
        assert_eq!(
            check(wrong).unwrap_err(),
            [
                "complete is 0.6667 (2 of 3 pairs), expected 1",
                "convicted is 0.6667 (2 of 3 nodes), expected 1"
            ]
        );
        let low = Expectation { spread: Some((0.0, 0.2)), ..Expectation::default() };
        assert_eq!(check(low).unwrap_err().len(), 1, "too many are wrong as well");
    }

    #[test]
    fn nothing_sent_holds_no_expectation() {
        let all = Expectation { complete: Some((1.0, 1.0)), ..Expectation::default() };
        assert_eq!(all.failures(&Shares::default()).len(), 1);
    }

    #[test]
    fn changes_are_counted_and_probes_are_none() {
        use fragcast_turbine::health::{Reason, State};
        let (mut outcome, load, faults) = run();
        let change = |at, node, from, to| crate::outcome::Change {
            at,
            node,
            from,
            to,
            reason: Reason::Silence,
            dwell: 4,
            missing_for: (to == State::Gossip).then_some(at * MILLIS),
        };
        outcome.changes = vec![
            change(100, 1, State::Turbine, State::Probing),
            change(300, 1, State::Probing, State::Gossip),
            change(400, 2, State::Turbine, State::Probing),
            change(500, 2, State::Probing, State::Turbine),
            change(600, 1, State::Gossip, State::Turbine),
            change(700, 3, State::Turbine, State::Gossip),
        ];
        outcome.completions[1].gossiped[1] = true;
        (outcome.sent, outcome.sent_by_tcp) = (vec![10, 10, 10, 10, 60], 25);
        let shares = Shares::of(&outcome, &load, &faults);
        assert_eq!((shares.spread, shares.repaired, shares.gossiped), (0, 1, 1));
        let changes = Changes {
            fallbacks: 2,
            returns: 1,
            probes: 2,
            flaps: 2,
            slowest: 700 * MILLIS,
            dwell: 4,
            nodes: 5,
            on_gossip: 1,
        };
        assert_eq!(shares.changes, changes);
        let wrong = Expectation {
            gossip_bytes: Some((0.0, 0.02)),
            on_turbine: Some((1.0, 1.0)),
            fallbacks: Some((0.0, 0.0)),
            fall_back_ms: Some((0.0, 1_000.0)),
            ..Expectation::default()
        };
        assert_eq!(
            wrong.failures(&shares),
            [
                "gossip_bytes is 0.2500 (25 of 100 bytes), expected 0 to 0.02",
                "on_turbine is 0.8000 (4 of 5 nodes), expected 1",
                "fallbacks is 2, expected 0 to 0",
            ]
        );
        let mut twice = shares;
        twice.add(&shares);
        assert_eq!((twice.changes.fallbacks, twice.changes.flaps), (4, 2));
    }
}
