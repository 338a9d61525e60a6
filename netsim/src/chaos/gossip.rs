//! Gossip as the nodes' fallback: who publishes reaches all that listen and that TCP reaches.
//!
//! The mesh is left out, since the `fallback-*` scenarios have it: here gossip is a second way with
//! other faults. What comes again is dropped by its id, as gossipsub drops it, and what is new passes
//! the daemon's gate.

use std::collections::{BTreeSet, VecDeque};

use fragcast_shredder::Kind;

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

/// Messages whose ids a process remembers; gossipsub does so for 65 s.
const SEEN: usize = 8_192;

/// The ids of the messages that a process has heard.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: BTreeSet<u128>,
    order: VecDeque<u128>,
}

impl Seen {
    /// Whether a message has not been heard before.
    pub(super) fn is_new(&mut self, kind: Kind, wire: &[u8]) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[kind as u8]).update(wire);
        let id =
            u128::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("32 bytes"));
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > SEEN {
            self.order.pop_front().map(|oldest| self.ids.remove(&oldest));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_new_once() {
        let mut seen = Seen::default();
        assert!(seen.is_new(Kind::Frag, b"one") && !seen.is_new(Kind::Frag, b"one"));
        assert!(seen.is_new(Kind::Seal, b"one"));
        (0..SEEN as u32).for_each(|n| assert!(seen.is_new(Kind::Env, &n.to_le_bytes())));
        assert!(seen.is_new(Kind::Frag, b"one"), "the oldest are forgotten");
        assert_eq!((seen.ids.len(), seen.order.len()), (SEEN, SEEN));
    }

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
