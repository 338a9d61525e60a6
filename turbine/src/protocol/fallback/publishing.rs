//! Publishing: a leader with listeners, and holders for listeners.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use fragcast_shredder::{MessageKey, VerifiedMessage};

use super::Fallback;
use crate::control::{Control, Listeners, MAX_TOLD};
use crate::egress::Lane;
use crate::gossip::links::{self, HOLDERS};
use crate::gossip::{GossipAction, Listener, Mode, Policy};
use crate::health::State;
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::protocol::ctx::Ctx;
use crate::time::Timestamp;

/// Listeners of this node at a time.
const MAX_LISTENERS: usize = 256;
/// The least interval between frames that tell members of listeners.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// The least interval between catch-ups for new listeners that are no members.
const CATCH_UP_EVERY: Duration = Duration::from_millis(100);
/// Listeners outside the network whose connections to members are remembered.
const MAX_OUTSIDE: usize = 256;

/// The known listeners.
#[derive(Debug, Default)]
pub(super) struct Publishing {
    /// Listeners that this node is connected to, each with the members that are linked to it by the
    /// table.
    listeners: BTreeMap<Listener, Vec<PeerKey>>,
    /// Whether members are to be told of the listeners, and the earliest time for it.
    telling: bool,
    tell_at: Timestamp,
    /// When the next listener from outside may get a catch-up.
    catch_up_at: Timestamp,
    /// Members that are connected to a listener outside the network, as they say.
    told: BTreeMap<u64, BTreeSet<PeerKey>>,
    /// Bytes that wait for the driver.
    waiting: usize,
}

impl Publishing {
    pub(super) fn taken(&mut self, action: &GossipAction) {
        if let GossipAction::Publish { wire, .. } = action {
            self.waiting -= wire.len();
        }
    }

    /// When members may be told of changes.
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

/// The members that are linked to a listener on gossip, as far as the tables tell: in any epoch
/// that lives.
fn linked_to(ctx: &Ctx, listener: Listener) -> Vec<PeerKey> {
    let Listener::Member(member) = listener else { return Vec::new() };
    let Some(peer) = ctx.peers.id(member) else { return Vec::new() };
    let mut linked: Vec<PeerKey> = Vec::new();
    for living in ctx.epochs.iter() {
        let members = living.epoch().members();
        if members.index(&peer).is_none() {
            continue;
        }
        let older = linked.len();
        for (index, other) in (0..).zip(members.members()) {
            if links::linked(&peer, &other.peer(), members.len()) {
                let key = living.key(index);
                if !linked[..older].contains(&key) {
                    linked.push(key);
                }
            }
        }
    }
    linked
}

impl Fallback {
    /// A peer on gossip has subscribed to our topics, or is gone.
    pub(in crate::protocol) fn listener(
        &mut self,
        ctx: &mut Ctx,
        listener: Listener,
        present: bool,
    ) {
        if listener == Listener::Member(ctx.me()) {
            return;
        }
        let links = linked_to(ctx, listener);
        let publishing = &mut self.publishing;
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
        let due = !stranger || publishing.catch_up_at <= ctx.now;
        if present && due {
            if stranger {
                publishing.catch_up_at = ctx.now + CATCH_UP_EVERY;
            }
            self.catch_up(ctx, listener);
        }
        self.tell_of_listeners(ctx);
        self.settle(ctx);
    }

    /// Tells members which strangers listen here, if that has changed and it is time.
    pub(super) fn tell_of_listeners(&mut self, ctx: &mut Ctx) {
        let publishing = &mut self.publishing;
        if publishing.telling && publishing.tell_at <= ctx.now {
            (publishing.telling, publishing.tell_at) = (false, ctx.now + TELL_EVERY);
            let frame = Control::Listeners(Listeners { ids: publishing.outside() });
            ctx.send_control_to_all(Lane::Bulk, &frame, None);
        }
    }

    /// Finds the links of listeners anew: the tables have changed.
    pub(in crate::protocol) fn relink(&mut self, ctx: &Ctx) {
        for (listener, links) in &mut self.publishing.listeners {
            *links = linked_to(ctx, *listener);
        }
    }

    /// Whether a member is known to listen to gossip.
    pub(super) fn is_listener(&self, member: PeerKey) -> bool {
        self.publishing.listeners.contains_key(&Listener::Member(member))
    }

    /// What a peer that connects is told of the listeners of this node.
    pub(in crate::protocol) fn greeting(&self) -> Option<Control> {
        let ids = self.publishing.outside();
        (!ids.is_empty()).then_some(Control::Listeners(Listeners { ids }))
    }

    /// Takes a peer's frame about its listeners.
    pub(in crate::protocol) fn take_listeners(
        &mut self,
        from: PeerKey,
        told: &Listeners,
    ) -> Outcome {
        self.forget_told(from);
        let publishing = &mut self.publishing;
        for id in told.ids.iter().take(MAX_TOLD) {
            // Only of those that this node has as well does it need to know.
            let mine = publishing.listeners.contains_key(&Listener::Outside(*id));
            if mine || publishing.told.contains_key(id) || publishing.told.len() < MAX_OUTSIDE {
                publishing.told.entry(*id).or_default().insert(from);
            }
        }
        Outcome::Control
    }

    /// Forgets a peer's listeners, because it is gone or has sent a new frame.
    pub(in crate::protocol) fn forget_told(&mut self, peer: PeerKey) {
        self.publishing.told.retain(|_, peers| {
            peers.remove(&peer);
            !peers.is_empty()
        });
    }

    /// A peer is none any more: its key means nobody.
    pub(in crate::protocol) fn forget_peer(&mut self, peer: PeerKey) {
        self.forget_told(peer);
        self.publishing.listeners.remove(&Listener::Member(peer));
    }

    /// Publishes a message that this node has, if it is up to this node.
    pub(in crate::protocol) fn offer(
        &mut self,
        ctx: &mut Ctx,
        key: &MessageKey,
        message: &VerifiedMessage,
    ) {
        let leads = ctx.leader_key_of(key) == Some(ctx.me());
        let everything = self.policy == Policy::Always
            || ctx.mode == Mode::Gossip
            || self.health.state() != State::Turbine;
        let mut listeners = self.publishing.listeners.keys();
        let mine = (leads && everything)
            || listeners.any(|l| leads || self.is_holder(ctx, key, message, *l));
        if mine {
            self.publish(ctx, message);
        }
    }

    /// Whether this node is one of those who publish a message for a listener. Nodes compare
    /// ranks, so they go by the places in the table of the message's own block.
    fn is_holder(
        &self,
        ctx: &Ctx,
        key: &MessageKey,
        message: &VerifiedMessage,
        listener: Listener,
    ) -> bool {
        let Some(living) = ctx.epochs.at(key.block) else { return false };
        let Some(me) = living.me() else { return false };
        let leader = ctx.leader_key_of(key);
        let mine = links::rank(&message.root(), me);
        // Others who are connected to the listener. Who listens itself is taken not to get much
        // over the overlay, unless this node does both as well.
        let both = self.listening;
        let ahead = |other: &PeerKey| {
            *other != ctx.me()
                && Some(*other) != leader
                && Listener::Member(*other) != listener
                && (both || !self.is_listener(*other))
                && ctx.peers.is_connected(*other)
                && living
                    .index(*other)
                    .is_some_and(|index| links::rank(&message.root(), index) < mine)
        };
        let before = match listener {
            Listener::Outside(id) => {
                let told = self.publishing.told.get(&id).into_iter().flatten();
                told.copied().filter(ahead).take(HOLDERS).count()
            }
            Listener::Member(_) => {
                let linked = self.publishing.listeners.get(&listener).into_iter().flatten();
                linked.copied().filter(ahead).take(HOLDERS).count()
            }
        };
        before < HOLDERS
    }

    /// Publishes what a new listener has missed of the blocks that are under way.
    fn catch_up(&mut self, ctx: &mut Ctx, listener: Listener) {
        let from = match (ctx.window.sealed(), ctx.window.opened()) {
            (Some(sealed), _) => sealed,
            (None, Some(opened)) => opened,
            (None, None) => return,
        };
        let messages: Vec<VerifiedMessage> = self
            .recent
            .from(from)
            .filter(|(key, message)| {
                let leads = ctx.leader_key_of(key) == Some(ctx.me());
                let mine = leads || self.is_holder(ctx, key, message, listener);
                mine && !self.seen.is_unpublished(key, message.root(), message.gateway())
            })
            .map(|(_, message)| message.clone())
            .collect();
        messages.iter().for_each(|message| self.publish(ctx, message));
    }

    fn publish(&mut self, ctx: &mut Ctx, message: &VerifiedMessage) {
        let publishing = &mut self.publishing;
        if publishing.waiting + super::recent::cost(message) > ctx.config.gossip.memory {
            ctx.counters.publish_dropped += 1;
            return;
        }
        let wire = Bytes::from(message.to_wire());
        publishing.waiting += wire.len();
        ctx.counters.published += 1;
        let kind = message.message().kind();
        self.actions.push_back(GossipAction::Publish { kind, wire });
    }

    /// Listeners that this node is connected to.
    pub(in crate::protocol) fn listeners(&self) -> usize {
        self.publishing.listeners.len()
    }
}

#[cfg(test)]
mod tests;
