//! The faults of a run, drawn from its seed.
//!
//! Faults come one after another with pauses of exponential length, and last for seconds; several
//! may overlap. Every node may fail, but at most a third of the nodes lie, and at most one in four
//! honest nodes is down or cut off by faults of its own at a time, so that a quorum is left.

use std::collections::BTreeSet;

use strum::{EnumCount, IntoStaticStr, VariantArray};

use crate::random::{self, Stream};
use crate::{MILLIS, Nanos, NodeId, SECONDS};

/// Gateways of a run. Gateway i is led by node i, unless it lies and delegates elsewhere.
pub(super) const GATEWAYS: u32 = 4;
/// The gateway, and node, that lies with its keys. The others are honest.
pub(super) const LIAR: NodeId = GATEWAYS - 1;
/// A pause between two faults is this long on average.
const PAUSE: Nanos = 6 * SECONDS;
/// Before this time there are none, so that a chain is under way.
const FIRST: Nanos = 6 * SECONDS;
/// After the last fault has ended a run goes on for this long.
const CALM: Nanos = 20 * SECONDS;

/// What a liar does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray, IntoStaticStr, EnumCount,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Lie {
    /// A gateway sends a valid Env and Seal of a block far ahead, by the overlay and by gossip.
    FarBlock,
    /// A member sends junk of a block at the end of numbers, then recorded shreds of old blocks.
    Recording,
    /// A gateway floods the first shreds of many sets of its old and open blocks.
    HalfSets,
    /// A gateway signs ever new plans.
    Plans,
    /// A gateway equivocates again and again, and sends the evidence itself.
    Equivocations,
    /// A gateway equivocates: half of the nodes get one version of a message, half another.
    SplitMessage,
    /// A gateway signs one root under two headers, and each half of the nodes gets one.
    SplitHeader,
    /// A gateway delegates to two keys under one sequence, and sends shreds by both.
    TwinDelegations,
    /// A member sends evidence and delegations of gateways that nobody knows.
    Strangers,
    /// A member greets again and again, with another table each time.
    Greetings,
    /// A member tells of messages that do not exist.
    Tips,
    /// A member asks for everything all the time.
    Requests,
    /// A member sends answers that nobody asked for.
    Answers,
    /// A member sends garbage, as datagrams and as control frames.
    Garbage,
    /// A member publishes junk, changed messages and other forms of signatures to gossip.
    GossipJunk,
}

impl Lie {
    /// Whether it needs a gateway's keys.
    pub const fn needs_keys(self) -> bool {
        matches!(
            self,
            Self::FarBlock
                | Self::HalfSets
                | Self::Plans
                | Self::Equivocations
                | Self::SplitMessage
                | Self::SplitHeader
                | Self::TwinDelegations
        )
    }
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A process ends, and starts again at the fault's end.
    Crash {
        /// The node.
        node: NodeId,
        /// Whether it ends its connections before (SIGTERM), or not (SIGKILL).
        graceful: bool,
        /// Whether what it has on disk is still there.
        keep: bool,
        /// By how much its clock is off afterwards, in nanoseconds.
        clock: i64,
    },
    /// A process stands still (SIGSTOP, a suspended machine).
    Pause {
        /// The node.
        node: NodeId,
    },
    /// Nothing passes between these nodes and the others.
    Partition {
        /// The nodes on one side.
        nodes: BTreeSet<NodeId>,
    },
    /// Nothing passes from one node to another, or to all.
    OneWay {
        /// The sender.
        from: NodeId,
        /// The receiver; `None`: all.
        to: Option<NodeId>,
    },
    /// A node's UDP is blocked; gossip passes.
    UdpDown {
        /// The node.
        node: NodeId,
    },
    /// Packets are lost everywhere, in thousandths.
    Loss {
        /// Of a thousand.
        share: u32,
    },
    /// Datagrams come twice, in thousandths.
    Duplication {
        /// Of a thousand.
        share: u32,
    },
    /// Datagrams are late and overtaken, in thousandths.
    Reordering {
        /// Of a thousand.
        share: u32,
        /// By how much.
        by: Nanos,
    },
    /// A node's clock jumps forward.
    ClockStep {
        /// The node.
        node: NodeId,
        /// How far.
        by: Nanos,
    },
    /// A node's disk is slow: a leader's messages wait for the journal, and what it has on disk
    /// lags behind.
    SlowDisk {
        /// The node.
        node: NodeId,
        /// How long a write takes.
        by: Nanos,
    },
    /// A node's application loses messages that it is handed: its queue is full, or too much waits.
    Forgets {
        /// The node.
        node: NodeId,
        /// Of a thousand messages.
        share: u32,
    },
    /// A node lies.
    Lies {
        /// The node.
        node: NodeId,
        /// What it does.
        lie: Lie,
    },
}

impl What {
    /// The kind in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Crash { keep: true, graceful: true, .. } => "restart, SIGTERM",
            Self::Crash { keep: true, .. } => "restart, SIGKILL",
            Self::Crash { .. } => "restart, disk lost",
            Self::Pause { .. } => "pause",
            Self::Partition { .. } => "partition",
            Self::OneWay { .. } => "one-way loss",
            Self::UdpDown { .. } => "UDP blocked",
            Self::Loss { .. } => "loss",
            Self::Duplication { .. } => "duplication",
            Self::Reordering { .. } => "reordering",
            Self::ClockStep { .. } => "clock step",
            Self::SlowDisk { .. } => "slow disk",
            Self::Forgets { .. } => "application loses messages",
            Self::Lies { lie, .. } => lie.into(),
        }
    }

    /// The one honest node that it takes out of the network, if it is one.
    const fn takes_out(&self) -> Option<NodeId> {
        match self {
            Self::Crash { node, .. }
            | Self::Pause { node }
            | Self::UdpDown { node }
            | Self::OneWay { from: node, to: None } => Some(*node),
            _ => None,
        }
    }
}

/// A fault, with its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// When it begins.
    pub at: Nanos,
    /// When it ends.
    pub until: Nanos,
    /// What goes wrong.
    pub what: What,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = |at: Nanos| at as f64 / SECONDS as f64;
        write!(f, "{:.3} … {:.3} s: {:?}", seconds(self.at), seconds(self.until), self.what)
    }
}

/// The faults of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Nodes that lie at some time. They are never held to anything.
    pub liars: BTreeSet<NodeId>,
    /// All faults, by their beginning.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// The plan of a seed for `nodes` nodes.
    pub fn new(seed: u64, nodes: u32, planned: Nanos) -> Self {
        let mut random = random::stream(seed, "chaos plan", u64::from(nodes));
        let mut liars = BTreeSet::from([LIAR]);
        // The honest leaders are 0 to 2.
        while liars.len() < (nodes as usize / 6).max(2) {
            let span = (nodes - GATEWAYS) as usize;
            liars.insert(GATEWAYS + random::below(&mut random, span) as NodeId);
        }
        let mut plan = Self { liars, faults: Vec::new() };
        let mut at = FIRST;
        loop {
            at += (PAUSE as f64 * random::exponential(&mut random)) as Nanos;
            if at + CALM >= planned {
                return plan;
            }
            let fault = plan.draw(&mut random, nodes, at, planned - CALM);
            if plan.leaves_a_quorum(&fault, nodes) {
                plan.faults.push(fault);
            }
        }
    }

    fn draw(&self, random: &mut Stream, nodes: u32, at: Nanos, latest: Nanos) -> Fault {
        let mut below = |n: usize| random::below(random, n);
        let honest: Vec<NodeId> = (0..nodes).filter(|n| !self.liars.contains(n)).collect();
        let liars: Vec<NodeId> = self.liars.iter().copied().collect();
        let node = honest[below(honest.len())];
        let seconds = |n: usize| n as Nanos * SECONDS;
        // Nearly half of all faults are lies: there are many kinds of them.
        let kind = below(25);
        let (lasts, what) = match kind {
            0..=3 => {
                let keep = kind != 3;
                let hour = 3_600_000 * MILLIS as i64;
                let clock = [0, 0, 0, hour, -hour, 5 * SECONDS as i64][below(6)];
                let lasts = MILLIS * 200 + MILLIS * below(20_000) as Nanos;
                (lasts, What::Crash { node, graceful: below(2) == 0, keep, clock })
            }
            4 => (seconds(1 + below(20)), What::Pause { node }),
            5 => {
                let size = 1 + below(honest.len() / 3);
                let first = below(honest.len());
                let side = (0..size).map(|i| honest[(first + i) % honest.len()]);
                (seconds(2 + below(25)), What::Partition { nodes: side.collect() })
            }
            6 => {
                let to = (below(3) > 0).then(|| honest[below(honest.len())]);
                (seconds(2 + below(20)), What::OneWay { from: node, to })
            }
            7 => (seconds(2 + below(20)), What::UdpDown { node }),
            8 => (seconds(5 + below(20)), What::Loss { share: 20 + below(130) as u32 }),
            9 => (seconds(5 + below(20)), What::Duplication { share: 10 + below(490) as u32 }),
            10 => {
                let by = MILLIS * (1 + below(300)) as Nanos;
                (seconds(5 + below(20)), What::Reordering { share: 10 + below(490) as u32, by })
            }
            11 => {
                let by = [MILLIS * 700, 3 * SECONDS, 20 * SECONDS][below(3)];
                (MILLIS, What::ClockStep { node, by })
            }
            12 => {
                let by = MILLIS * (50 + below(700)) as Nanos;
                (seconds(5 + below(20)), What::SlowDisk { node, by })
            }
            13 => {
                let share = [30, 300, 1_000][below(3)];
                (seconds(2 + below(20)), What::Forgets { node, share })
            }
            _ => {
                let lie = Lie::VARIANTS[below(Lie::COUNT)];
                let node = if lie.needs_keys() { LIAR } else { liars[below(liars.len())] };
                (seconds(3 + below(12)), What::Lies { node, lie })
            }
        };
        Fault { at, until: (at + lasts).min(latest), what }
    }

    /// Whether enough honest nodes are left if this fault is added: three in four of them, and of a
    /// node two faults of its own never overlap.
    fn leaves_a_quorum(&self, fault: &Fault, nodes: u32) -> bool {
        let overlapping = || {
            let overlaps = |other: &&Fault| other.at <= fault.until && fault.at <= other.until;
            self.faults.iter().filter(overlaps)
        };
        let out: Vec<NodeId> = overlapping().filter_map(|other| other.what.takes_out()).collect();
        match &fault.what {
            What::Partition { nodes: side } => {
                let cut = overlapping().any(|other| matches!(other.what, What::Partition { .. }));
                !cut && side.len() + out.len() <= nodes as usize / 4
            }
            what => what.takes_out().is_none_or(|node| {
                let cut = overlapping().map(|other| match &other.what {
                    What::Partition { nodes } => nodes.len(),
                    _ => 0,
                });
                !out.contains(&node) && out.len() + cut.sum::<usize>() < nodes as usize / 4
            }),
        }
    }

    /// The plan with only some of its faults, by number.
    pub fn only(&self, numbers: &[usize]) -> Self {
        let kept = self.faults.iter().enumerate().filter(|(n, _)| numbers.contains(n));
        Self { liars: self.liars.clone(), faults: kept.map(|(_, fault)| fault.clone()).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_a_function_of_its_seed_and_has_all_kinds() {
        let plan = |seed| Plan::new(seed, 30, 300 * SECONDS);
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        let plans: Vec<Plan> = (0..60).map(plan).collect();
        let names: BTreeSet<&str> =
            plans.iter().flat_map(|plan| &plan.faults).map(|fault| fault.what.name()).collect();
        assert_eq!(names.len(), 13 + Lie::COUNT, "{names:?}");
        for fault in plans.iter().flat_map(|plan| &plan.faults) {
            assert!(FIRST <= fault.at && fault.at <= fault.until, "{fault}");
            assert!(fault.until <= 280 * SECONDS, "{fault}");
        }
    }

    #[test]
    fn honest_nodes_never_lie_and_a_quorum_is_left_at_all_times() {
        for seed in 0..40 {
            let plan = Plan::new(seed, 30, 300 * SECONDS);
            assert!((1..GATEWAYS).all(|node| plan.liars.contains(&node) == (node == LIAR)));
            assert!(plan.liars.len() * 3 <= 30);
            for fault in &plan.faults {
                if let What::Lies { node, lie } = &fault.what {
                    assert!(plan.liars.contains(node), "{fault}");
                    assert!(!lie.needs_keys() || *node == LIAR, "{fault}");
                }
                let now = |other: &&Fault| other.at <= fault.at && fault.at <= other.until;
                let mut out = BTreeSet::new();
                for other in plan.faults.iter().filter(now) {
                    out.extend(other.what.takes_out());
                    if let What::Partition { nodes } = &other.what {
                        out.extend(nodes);
                    }
                }
                assert!(out.len() <= 8, "{fault}: {out:?}");
            }
        }
    }

    #[test]
    fn a_part_of_a_plan_has_the_same_liars() {
        let plan = Plan::new(3, 12, 120 * SECONDS);
        let part = plan.only(&[1, 3]);
        assert_eq!(part.liars, plan.liars);
        assert_eq!(part.faults, [plan.faults[1].clone(), plan.faults[3].clone()]);
    }
}
