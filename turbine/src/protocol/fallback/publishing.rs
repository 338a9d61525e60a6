//! Who publishes what: a leader with an audience, and holders for listeners.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use fragcast_shredder::{MessageKey, VerifiedMessage};

use super::super::Protocol;
use crate::control::{Control, Listeners, MAX_TOLD};
use crate::gossip::links::{self, HOLDERS};
use crate::gossip::{GossipAction, Listener, Mode, Policy};
use crate::health::State;
use crate::membership::PeerIndex;
use crate::outcome::Outcome;
use crate::time::Timestamp;

/// Listeners of this node at a time.
const MAX_LISTENERS: usize = 256;
/// How often members are told who listens, at most.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// How often a stranger that begins to listen is given what it missed, at most.
const CATCH_UP_EVERY: Duration = Duration::from_millis(100);
/// Listeners outside the network of which is known who is connected to them.
const MAX_OUTSIDE: usize = 256;

/// What is known of listeners.
#[derive(Debug, Default)]
pub(super) struct Publishing {
    /// Those that this node is connected to, each with the members that are linked to it, as far
    /// as the table tells.
    listeners: BTreeMap<Listener, Vec<PeerIndex>>,
    /// Members are to be told who is there, and from when they may be.
    telling: bool,
    tell_at: Timestamp,
    /// When the next listener from outside may be caught up with.
    catch_up_at: Timestamp,
    /// Members that are connected to a listener outside the network, as they say.
    told: BTreeMap<u64, BTreeSet<PeerIndex>>,
    /// Bytes that wait for the driver.
    waiting: usize,
}

impl Publishing {
    pub(super) fn taken(&mut self, action: &GossipAction) {
        if let GossipAction::Publish { wire, .. } = action {
            self.waiting -= wire.len();
        }
    }

    /// When members may be told what has changed.
    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        self.telling.then_some(self.tell_at)
    }

    fn outside(&self) -> Vec<u64> {
        let outside = self.listeners.keys().filter_map(|listener| match listener {
            Listener::Outside(id) => Some(*id),
            Listener::Member(_) => None,
        });
        outside.take(MAX_TOLD).collect()
    }
}

impl Protocol {
    /// A peer on gossip has subscribed to our topics, or is gone.
    pub fn handle_listener(&mut self, now: Timestamp, listener: Listener, present: bool) {
        if listener == Listener::Member(self.me) {
            return;
        }
        let links = self.linked_to(listener);
        let publishing = &mut self.fallback.publishing;
        let known = &mut publishing.listeners;
        let changed = match present {
            true => known.len() < MAX_LISTENERS && known.insert(listener, links).is_none(),
            false => known.remove(&listener).is_some(),
        };
        if !changed {
            return;
        }
        // Strangers come and go as they please, and what they cause is limited.
        let stranger = matches!(listener, Listener::Outside(_));
        publishing.telling |= stranger;
        let due = !stranger || publishing.catch_up_at <= now;
        if present && due {
            if stranger {
                publishing.catch_up_at = now + CATCH_UP_EVERY;
            }
            self.catch_up(listener);
        }
        self.tell_of_listeners(now);
        self.settle_fallback(now);
    }

    /// Tells members which strangers listen here, if that has changed and it is time.
    pub(super) fn tell_of_listeners(&mut self, now: Timestamp) {
        let publishing = &mut self.fallback.publishing;
        if publishing.telling && publishing.tell_at <= now {
            (publishing.telling, publishing.tell_at) = (false, now + TELL_EVERY);
            let frame = Control::Listeners(Listeners { ids: publishing.outside() });
            self.send_control_to_all(&frame, None);
        }
    }

    fn linked_to(&self, listener: Listener) -> Vec<PeerIndex> {
        let Listener::Member(member) = listener else { return Vec::new() };
        let Some(peer) = self.members.get(member).map(|m| m.peer()) else { return Vec::new() };
        let n = self.members.len();
        let linked = (0..).zip(self.members.members());
        linked
            .filter(|(_, other)| links::linked(&peer, &other.peer(), n))
            .map(|(index, _)| index)
            .collect()
    }

    /// Whether a member is known to listen to gossip.
    pub(in crate::protocol) fn is_listener(&self, member: PeerIndex) -> bool {
        self.fallback.publishing.listeners.contains_key(&Listener::Member(member))
    }

    /// Tells a peer that connects which listeners this node has.
    pub(in crate::protocol) fn greet_with_listeners(&mut self, peer: PeerIndex) {
        let ids = self.fallback.publishing.outside();
        if !ids.is_empty() {
            self.send_control(peer, &Control::Listeners(Listeners { ids }));
        }
    }

    /// A peer tells which listeners it has.
    pub(in crate::protocol) fn take_listeners(
        &mut self,
        from: PeerIndex,
        told: &Listeners,
    ) -> Outcome {
        self.forget_told(from);
        let publishing = &mut self.fallback.publishing;
        for id in told.ids.iter().take(MAX_TOLD) {
            // Only of those that this node has as well does it need to know.
            let mine = publishing.listeners.contains_key(&Listener::Outside(*id));
            if mine || publishing.told.contains_key(id) || publishing.told.len() < MAX_OUTSIDE {
                publishing.told.entry(*id).or_default().insert(from);
            }
        }
        Outcome::Control
    }

    /// A peer is gone, or tells anew.
    pub(in crate::protocol) fn forget_told(&mut self, peer: PeerIndex) {
        self.fallback.publishing.told.retain(|_, peers| {
            peers.remove(&peer);
            !peers.is_empty()
        });
    }

    /// Publishes a message that this node has, if it is up to this node.
    pub(in crate::protocol) fn offer(&mut self, key: &MessageKey, message: &VerifiedMessage) {
        let leads = self.leader_index(key.block) == Some(self.me);
        let publishing = &self.fallback.publishing;
        let everything = self.fallback.policy == Policy::Always
            || self.fallback.mode == Mode::Gossip
            || self.fallback.health.state() != State::Turbine;
        let mine = (leads && everything)
            || publishing.listeners.keys().any(|l| leads || self.is_holder(key.block, message, *l));
        if mine {
            self.publish(message);
        }
    }

    /// Whether this node is one of those who publish a message for a listener.
    fn is_holder(&self, block: u64, message: &VerifiedMessage, listener: Listener) -> bool {
        let publishing = &self.fallback.publishing;
        let leader = self.leader_index(block);
        let mine = links::rank(&message.root(), self.me);
        // Others who are connected to the listener. Who listens itself is taken not to get much
        // over the overlay, unless this node does both as well.
        let both = self.is_listening();
        let ahead = |other: &PeerIndex| {
            *other != self.me
                && Some(*other) != leader
                && Listener::Member(*other) != listener
                && (both || !self.is_listener(*other))
                && self.is_connected(*other)
                && links::rank(&message.root(), *other) < mine
        };
        let before = match listener {
            Listener::Outside(id) => {
                let told = publishing.told.get(&id).into_iter().flatten();
                told.copied().filter(ahead).take(HOLDERS).count()
            }
            Listener::Member(_) => {
                let linked = publishing.listeners.get(&listener).into_iter().flatten();
                linked.copied().filter(ahead).take(HOLDERS).count()
            }
        };
        before < HOLDERS
    }

    /// Publishes what a new listener has missed of the blocks that are under way.
    fn catch_up(&mut self, listener: Listener) {
        let from = match (self.sealed, self.opened) {
            (Some(sealed), _) => sealed,
            (None, Some(opened)) => opened,
            (None, None) => return,
        };
        let messages: Vec<VerifiedMessage> = self
            .fallback
            .recent
            .from(from)
            .filter(|(key, message)| {
                let leads = self.leader_index(key.block) == Some(self.me);
                let mine = leads || self.is_holder(key.block, message, listener);
                mine && !self.fallback.is_unpublished(key, message.root())
            })
            .map(|(_, message)| message.clone())
            .collect();
        messages.iter().for_each(|message| self.publish(message));
    }

    fn publish(&mut self, message: &VerifiedMessage) {
        let publishing = &mut self.fallback.publishing;
        if publishing.waiting + super::recent::cost(message) > self.config.gossip.memory {
            self.counters.publish_dropped += 1;
            return;
        }
        let wire = Bytes::from(message.to_wire());
        publishing.waiting += wire.len();
        self.counters.published += 1;
        let kind = message.message().kind();
        self.fallback.actions.push_back(GossipAction::Publish { kind, wire });
    }

    /// Keeps a message for listeners and for those who ask.
    pub(in crate::protocol) fn remember(&mut self, key: MessageKey, message: &VerifiedMessage) {
        self.fallback.recent.insert(key, message.clone());
        self.repair.forget_messages_below(self.fallback.recent.oldest());
    }

    /// Bytes of recent messages that are kept for listeners and for those who ask.
    pub const fn recent_bytes(&self) -> usize {
        self.fallback.recent.bytes()
    }

    /// Listeners that this node is connected to.
    pub fn listeners(&self) -> usize {
        self.fallback.publishing.listeners.len()
    }
}
