//! Gossip as the nodes' fallback: who publishes reaches all that listen and that TCP reaches.
//!
//! The mesh is left out, since the `fallback-*` scenarios have it: here gossip is a second way with
//! other faults. What comes passes the daemon's gate.

use std::collections::BTreeSet;

use crate::NodeId;

use super::paths::Conditions;

/// Who listens.
#[derive(Debug, Default)]
pub(super) struct Topics {
    listeners: BTreeSet<NodeId>,
}

impl Topics {
    /// A node joins or leaves the meshes; says whether it did not before.
    pub(super) fn set(&mut self, node: NodeId, on: bool) -> bool {
        if on { self.listeners.insert(node) } else { self.listeners.remove(&node) }
    }

    /// All that listen, but for one node.
    pub(super) fn others(&self, node: NodeId) -> Vec<NodeId> {
        self.listeners.iter().copied().filter(|other| *other != node).collect()
    }

    /// Whom a message of `from` reaches.
    pub(super) fn reached(&self, from: NodeId, conditions: &Conditions) -> Vec<NodeId> {
        let mut others = self.others(from);
        others.retain(|to| conditions.tcp_passes(from, *to));
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_who_listens_and_can_be_reached() {
        let mut topics = Topics::default();
        assert!(topics.set(1, true) && topics.set(2, true) && !topics.set(2, true));
        assert_eq!(topics.others(1), [2]);
        let mut conditions = Conditions::default();
        conditions.no_udp.insert(2);
        assert_eq!(topics.reached(0, &conditions), [1, 2]);
        conditions.sides.push([2].into());
        assert_eq!(topics.reached(0, &conditions), [1]);
        assert!(topics.set(1, false));
        assert_eq!(topics.reached(0, &conditions), [] as [NodeId; 0]);
    }
}
