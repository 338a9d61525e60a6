//! Faults of hosts and paths, with their times.
//!
//! The engine applies faults of hosts, so they affect every protocol alike. Faults in a leader's
//! behaviour (equivocation, rebuilding, dying in mid-block) are part of the load: see
//! [`crate::load`].

use std::collections::BTreeSet;

use crate::{Nanos, NodeId};

/// A period: its start, and its end, which is excluded.
pub type Span = (Nanos, Nanos);

/// The whole run.
pub const ALWAYS: Span = (0, Nanos::MAX);

/// A fault of hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The hosts neither send nor receive.
    Crash {
        /// The affected hosts.
        nodes: BTreeSet<NodeId>,
        /// When the fault lasts.
        span: Span,
    },
    /// The hosts receive, but neither forward nor answer. Hosts that lead in the run are exempt.
    Silent {
        /// The affected hosts.
        nodes: BTreeSet<NodeId>,
        /// When the fault lasts.
        span: Span,
    },
    /// No packet passes between these hosts and the others.
    Partition {
        /// The hosts on one side.
        nodes: BTreeSet<NodeId>,
        /// When the fault lasts.
        span: Span,
    },
    /// UDP is blocked between these hosts and all others: datagrams and QUIC vanish, TCP passes.
    TurbineDown {
        /// The affected hosts.
        nodes: BTreeSet<NodeId>,
        /// When the fault lasts.
        span: Span,
    },
    /// The hosts' uplink has another rate.
    SlowUplink {
        /// The affected hosts.
        nodes: BTreeSet<NodeId>,
        /// When the fault lasts.
        span: Span,
        /// The rate, bits per second.
        bps: u64,
    },
}

/// All faults of a run.
///
/// ```
/// use netsim::SECONDS;
/// use netsim::fault::{Fault, Faults};
///
/// let crash = Fault::Crash { nodes: [3, 5].into(), span: (SECONDS, 2 * SECONDS) };
/// let faults = Faults(vec![crash]);
/// assert!(faults.is_down(3, SECONDS));
/// assert!(!faults.is_down(3, 2 * SECONDS));
/// assert_eq!(faults.healed_at(), 2 * SECONDS);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

const fn within(span: Span, at: Nanos) -> bool {
    span.0 <= at && at < span.1
}

impl Faults {
    /// Whether `node` has crashed at this time.
    pub fn is_down(&self, node: NodeId, at: Nanos) -> bool {
        self.0.iter().any(|fault| match fault {
            Fault::Crash { nodes, span } => within(*span, at) && nodes.contains(&node),
            _ => false,
        })
    }

    /// Whether `node` is silent: it neither forwards nor answers.
    pub fn is_silent(&self, node: NodeId, at: Nanos) -> bool {
        self.0.iter().any(|fault| match fault {
            Fault::Silent { nodes, span } => within(*span, at) && nodes.contains(&node),
            _ => false,
        })
    }

    /// Whether a partition separates two hosts.
    pub fn is_cut(&self, from: NodeId, to: NodeId, at: Nanos) -> bool {
        self.0.iter().any(|fault| match fault {
            Fault::Partition { nodes, span } => {
                within(*span, at) && nodes.contains(&from) != nodes.contains(&to)
            }
            _ => false,
        })
    }

    /// Whether UDP is blocked between two hosts.
    pub fn is_udp_blocked(&self, from: NodeId, to: NodeId, at: Nanos) -> bool {
        self.udp_blocks(from, to).any(|span| within(span, at))
    }

    /// Whether UDP is blocked between two hosts during all of `span`.
    pub fn is_udp_blocked_throughout(&self, from: NodeId, to: NodeId, span: Span) -> bool {
        let mut at = span.0;
        while at < span.1 {
            let open = self.udp_blocks(from, to).filter(|block| within(*block, at));
            match open.map(|block| block.1).max() {
                Some(end) => at = end,
                None => return false,
            }
        }
        true
    }

    fn udp_blocks(&self, from: NodeId, to: NodeId) -> impl Iterator<Item = Span> + '_ {
        self.0.iter().filter_map(move |fault| match fault {
            Fault::TurbineDown { nodes, span } => {
                (nodes.contains(&from) || nodes.contains(&to)).then_some(*span)
            }
            _ => None,
        })
    }

    /// The changes of uplinks: time, host and rate (`None`: the configured rate again).
    pub fn uplink_changes(&self) -> Vec<(Nanos, NodeId, Option<u64>)> {
        let mut changes = Vec::new();
        for fault in &self.0 {
            if let Fault::SlowUplink { nodes, span, bps } = fault {
                for node in nodes {
                    changes.push((span.0, *node, Some(*bps)));
                    if span.1 < Nanos::MAX {
                        changes.push((span.1, *node, None));
                    }
                }
            }
        }
        changes.sort_unstable();
        changes
    }

    /// Hosts that crash at some time. They need not complete any message.
    pub fn crashed(&self) -> BTreeSet<NodeId> {
        let mut all = BTreeSet::new();
        for fault in &self.0 {
            if let Fault::Crash { nodes, .. } = fault {
                all.extend(nodes);
            }
        }
        all
    }

    /// The end of the last fault that ends.
    pub fn healed_at(&self) -> Nanos {
        let spans = self.0.iter().map(|fault| match fault {
            Fault::Crash { span, .. }
            | Fault::Silent { span, .. }
            | Fault::Partition { span, .. }
            | Fault::TurbineDown { span, .. }
            | Fault::SlowUplink { span, .. } => span.1,
        });
        spans.filter(|end| *end < Nanos::MAX).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_begin_and_end() {
        let nodes = || BTreeSet::from([1, 2]);
        let faults = Faults(vec![
            Fault::Crash { nodes: nodes(), span: (10, 20) },
            Fault::Silent { nodes: nodes(), span: ALWAYS },
            Fault::Partition { nodes: nodes(), span: (5, 6) },
            Fault::SlowUplink { nodes: BTreeSet::from([3]), span: (7, 9), bps: 5 },
        ]);
        let down: Vec<bool> = [9, 10, 19, 20].map(|at| faults.is_down(1, at)).into();
        assert_eq!(down, [false, true, true, false]);
        assert!(!faults.is_down(3, 15) && faults.is_silent(2, 0) && !faults.is_silent(3, 0));
        assert!(faults.is_cut(1, 3, 5) && faults.is_cut(3, 1, 5) && !faults.is_cut(1, 2, 5));
        assert!(!faults.is_cut(1, 3, 6));
        assert_eq!(faults.uplink_changes(), [(7, 3, Some(5)), (9, 3, None)]);
        assert_eq!(faults.healed_at(), 20);
        assert_eq!(faults.crashed(), nodes());
    }

    #[test]
    fn blocks_of_udp_add_up() {
        let block = |nodes: &[NodeId], span| {
            let nodes = nodes.iter().copied().collect();
            Fault::TurbineDown { nodes, span }
        };
        let faults = Faults(vec![block(&[1], (10, 20)), block(&[2], (15, 30))]);
        let blocked = |a, b, at| faults.is_udp_blocked(a, b, at);
        assert!(blocked(1, 3, 10) && blocked(3, 1, 19) && !blocked(1, 3, 20) && !blocked(3, 4, 12));
        assert!(!faults.is_cut(1, 3, 15) && !faults.is_down(1, 15));
        assert!(faults.is_udp_blocked_throughout(1, 2, (10, 30)));
        assert!(!faults.is_udp_blocked_throughout(1, 2, (10, 31)));
        assert!(!faults.is_udp_blocked_throughout(1, 3, (10, 21)));
        assert_eq!(faults.healed_at(), 30);
    }
}
