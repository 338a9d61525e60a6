//! The state of one node: its mesh, the messages it validates, and those it can still advertise.

use std::collections::BTreeSet;

use crate::{Nanos, NodeId, SECONDS};

use super::GossipConfig;

/// Identifies a message by its content, as gossipsub does: twice the broadcast's index, plus one
/// for the second version of an equivocal message.
pub(in crate::protocols) type Id = u32;

/// How long a pruned peer is not grafted (gossipsub v1.1, `PruneBackoff`).
pub(super) const PRUNE_BACKOFF: Nanos = 60 * SECONDS;

/// A message that is being validated, with its source.
#[derive(Debug, Clone, Copy)]
pub(in crate::protocols) struct Pending {
    pub(in crate::protocols) id: Id,
    pub(super) from: NodeId,
    /// Whether it answers an IWANT.
    pub(super) asked: bool,
}

/// State of a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    pub(super) mesh: Vec<NodeId>,
    /// Whether the node has not subscribed to the topics.
    pub(super) outside: bool,
    /// Connections that are subscribed. `None`: all are, since no node ever unsubscribes.
    pub(super) subscribers: Option<BTreeSet<NodeId>>,
    /// The peers it publishes to while it is not subscribed.
    pub(super) fanout: Vec<NodeId>,
    pub(super) pending: Vec<Pending>,
    /// Mesh peers known to have a message that this node has not forwarded yet.
    holders: Vec<(Id, NodeId)>,
    /// Messages by the number of the first heartbeat after their arrival (gossipsub's `mcache`).
    cache: Vec<(Id, u64)>,
    backoff: Vec<(NodeId, Nanos)>,
    /// Heartbeats are at `phase`, `phase + heartbeat`, …
    pub(super) phase: Nanos,
    /// The heartbeat for which a timer is set.
    armed: Option<Nanos>,
}

impl Node {
    /// A node with its mesh and subscription, and those of its connections that are subscribed.
    pub(super) fn new(
        mesh: Vec<NodeId>,
        subscribed: bool,
        subscribers: Option<BTreeSet<NodeId>>,
    ) -> Self {
        Self { mesh, outside: !subscribed, subscribers, ..Self::default() }
    }

    /// The number of the first heartbeat after `now`.
    const fn next_beat(&self, now: Nanos, config: &GossipConfig) -> u64 {
        if now < self.phase { 0 } else { (now - self.phase) / config.heartbeat + 1 }
    }

    /// The time for which a timer of the next heartbeat must be set; `None` if one is set.
    pub(super) fn arm(&mut self, now: Nanos, config: &GossipConfig) -> Option<Nanos> {
        // A timer in the past was lost while the node was down.
        if self.armed.is_some_and(|at| at >= now) {
            return None;
        }
        let at = self.phase + self.next_beat(now, config) * config.heartbeat;
        self.armed = Some(at);
        self.armed
    }

    /// Whether this is the heartbeat for which the timer was set.
    pub(super) fn beats(&mut self, now: Nanos) -> bool {
        let due = self.armed == Some(now);
        if due {
            self.armed = None;
        }
        due
    }

    /// Notes that `peer` has a message.
    pub(super) fn note_holder(&mut self, id: Id, peer: NodeId) {
        self.holders.push((id, peer));
    }

    /// The mesh peers to forward a message to: those not known to have it.
    pub(super) fn targets(&mut self, id: Id, from: NodeId) -> Vec<NodeId> {
        let has = |peer: NodeId| peer == from || self.holders.contains(&(id, peer));
        let targets = self.mesh.iter().copied().filter(|peer| !has(*peer)).collect();
        self.holders.retain(|(held, _)| *held != id);
        targets
    }

    /// Stores a message for IHAVE and IWANT.
    pub(super) fn keep(&mut self, id: Id, now: Nanos, config: &GossipConfig) {
        let next = self.next_beat(now, config);
        self.cache.retain(|(_, first)| next - first < config.history.into());
        self.cache.push((id, next));
    }

    /// Whether the node can answer an IWANT of a message.
    pub(super) fn serves(&self, id: Id, now: Nanos, config: &GossipConfig) -> bool {
        let next = self.next_beat(now, config);
        let fresh = |first: u64| next - first < config.history.into();
        self.cache.iter().any(|(kept, first)| *kept == id && fresh(*first))
    }

    /// The messages that the heartbeat at `now` advertises, oldest first.
    pub(super) fn advertised(&self, now: Nanos, config: &GossipConfig) -> Vec<Id> {
        let beat = self.next_beat(now, config) - 1;
        let within = |first: u64| first <= beat && beat - first < config.history_gossip.into();
        self.cache.iter().filter(|(_, first)| within(*first)).map(|(id, _)| *id).collect()
    }

    /// Whether the next heartbeat will advertise messages.
    pub(super) fn has_gossip(&self, now: Nanos, config: &GossipConfig) -> bool {
        let next = self.next_beat(now, config);
        self.cache.iter().any(|(_, first)| next - first < config.history_gossip.into())
    }

    /// Whether a connection is known to be subscribed.
    pub(super) fn knows(&self, peer: NodeId) -> bool {
        self.subscribers.as_ref().is_none_or(|known| known.contains(&peer))
    }

    /// Notes that a connection subscribed or unsubscribed.
    pub(super) fn learn(&mut self, peer: NodeId, subscribed: bool) {
        let known = self.subscribers.get_or_insert_default();
        if subscribed {
            known.insert(peer);
        } else {
            known.remove(&peer);
            self.mesh.retain(|other| *other != peer);
            self.fanout.retain(|other| *other != peer);
        }
    }

    /// Takes a peer into the mesh if this node is subscribed and there is room.
    pub(super) fn accept(&mut self, peer: NodeId, config: &GossipConfig) -> bool {
        if self.mesh.contains(&peer) {
            return true;
        }
        let room = !self.outside && self.mesh.len() < config.d_high as usize;
        if room {
            self.mesh.push(peer);
        }
        room
    }

    /// Removes a peer from the mesh, after a prune in either direction.
    pub(super) fn pruned(&mut self, peer: NodeId, now: Nanos, backoff: Nanos) {
        self.mesh.retain(|other| *other != peer);
        self.backoff.retain(|(_, until)| *until > now);
        self.backoff.push((peer, now + backoff));
    }

    /// Whether a peer may be grafted.
    pub(super) fn may_graft(&self, peer: NodeId, now: Nanos) -> bool {
        let barred = |(other, until): &(NodeId, Nanos)| *other == peer && *until > now;
        !self.mesh.contains(&peer) && !self.backoff.iter().any(barred)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MILLIS;

    #[test]
    fn a_message_is_advertised_at_three_heartbeats_and_served_for_twelve() {
        let config = GossipConfig::based_op();
        let mut node = Node { mesh: vec![1], phase: 100 * MILLIS, ..Node::default() };
        assert_eq!(node.arm(0, &config), Some(100 * MILLIS));
        assert_eq!(node.arm(0, &config), None);
        assert!(!node.beats(99 * MILLIS) && node.beats(100 * MILLIS));
        assert_eq!(node.arm(100 * MILLIS, &config), Some(600 * MILLIS));
        // The timer of 600 ms was lost.
        assert_eq!(node.arm(700 * MILLIS, &config), Some(1_100 * MILLIS));
        node.keep(7, 700 * MILLIS, &config);
        for beat in 2..14_u64 {
            let now = (100 + 500 * beat) * MILLIS;
            let advertised: &[Id] = if beat < 5 { &[7] } else { &[] };
            assert_eq!(node.advertised(now, &config), advertised, "{beat}");
            assert_eq!(node.has_gossip(now, &config), beat < 4, "{beat}");
            assert_eq!(node.serves(7, now, &config), beat < 13, "{beat}");
        }
        assert!(!node.serves(8, 700 * MILLIS, &config));
        // A message that came at the time of a heartbeat waits for the next one.
        node.keep(8, 9_100 * MILLIS, &config);
        assert!(node.advertised(9_100 * MILLIS, &config).is_empty());
        assert_eq!(node.advertised(9_600 * MILLIS, &config), [8]);
    }

    #[test]
    fn the_mesh_is_bounded_and_a_pruned_peer_left_alone() {
        let config = GossipConfig::with_mesh(4);
        let mut node = Node::default();
        let accepted: Vec<bool> = (1..9).map(|peer| node.accept(peer, &config)).collect();
        assert_eq!(accepted, [true, true, true, true, true, true, false, false]);
        assert!(node.accept(1, &config), "it is in already");
        assert!(!node.may_graft(1, 0) && node.may_graft(9, 0));
        node.pruned(1, SECONDS, PRUNE_BACKOFF);
        assert!(!node.may_graft(1, 60 * SECONDS) && node.may_graft(1, 61 * SECONDS));
        node.note_holder(3, 4);
        node.note_holder(9, 5);
        assert_eq!(node.targets(3, 2), [3, 5, 6]);
        assert_eq!(node.targets(3, 2), [3, 4, 5, 6], "forgotten once forwarded");
        assert_eq!(node.targets(9, 2), [3, 4, 6]);
    }
}
