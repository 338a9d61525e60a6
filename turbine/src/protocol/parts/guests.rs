//! Peers that no table names: guests, who have called, and contacts, whom this node calls.

use super::Parts;
use crate::control::{Attach, Control, Share, is_of_guests};
use crate::egress::Lane;
use crate::outcome::Outcome;
use crate::peer::{MAX_CONTACTS, MAX_GUESTS, PeerId, PeerKey};
use crate::protocol::peers::Class;

impl Parts {
    /// Lets a peer in that has called: it becomes a guest if no table names it and there is room.
    pub(in crate::protocol) fn guest(&mut self, peer: PeerId) -> Option<PeerKey> {
        let room = self.ctx.config.guests.min(MAX_GUESTS);
        match self.ctx.epochs.view().peers().key(&peer) {
            Some(known) => Some(known),
            None if self.ctx.peers.guests() < room => self.stranger(peer, Class::Guest),
            None => None,
        }
    }

    /// This node calls a peer, whoever names it.
    pub(in crate::protocol) fn contact(&mut self, peer: PeerId) -> Option<PeerKey> {
        match self.ctx.epochs.view().peers().key(&peer) {
            Some(known) => {
                if self.ctx.peers.is_guest(known) {
                    self.ctx.set_class(known, Class::Contact);
                }
                Some(known)
            }
            None if self.ctx.peers.contacts() < MAX_CONTACTS => self.stranger(peer, Class::Contact),
            None => None,
        }
    }

    /// This node calls a peer no more. Says which key is nobody's now.
    pub(in crate::protocol) fn forget_contact(&mut self, peer: &PeerId) -> Option<PeerKey> {
        let key = self.ctx.epochs.view().peers().key(peer)?;
        if self.ctx.peers.class(key) != Class::Contact {
            return None;
        }
        self.forget_stranger(key);
        Some(key)
    }

    fn stranger(&mut self, peer: PeerId, class: Class) -> Option<PeerKey> {
        let key = self.ctx.epochs.intern(peer)?;
        self.ctx.peers.set_keys(self.ctx.epochs.view().peers().clone());
        self.ctx.set_class(key, class);
        Some(key)
    }

    /// A guest or a contact is gone, and its key is nobody's.
    pub(super) fn forget_stranger(&mut self, peer: PeerKey) {
        let Some(id) = self.ctx.peers.id(peer) else { return };
        self.forget_peer(peer);
        self.ctx.epochs.forget(&id);
        self.ctx.peers.set_keys(self.ctx.epochs.view().peers().clone());
    }

    /// Nothing is remembered of a peer any more.
    pub(super) fn forget_peer(&mut self, peer: PeerKey) {
        if self.ctx.peers.is_connected(peer) {
            self.ctx.egress.forget(peer);
        }
        self.repair.forget_peer(peer);
        self.fallback.forget_peer(peer);
        self.ctx.doubts.forget(peer);
        self.ctx.window.forget_peer(peer);
        self.catch_up.disconnected(peer);
        self.serving.forget(peer);
        self.delays.forget(peer);
        self.records.disconnected(peer);
        self.tables.disconnected(peer);
        self.attaching.forget(peer);
        self.ctx.round_trips.forget(peer);
        self.ctx.set_class(peer, Class::Member);
        self.ctx.peers.forget(peer);
    }

    /// A guest says what it wants.
    pub(super) fn attach(&mut self, from: PeerKey, wants: Attach) -> Outcome {
        if !self.ctx.peers.is_guest(from) {
            return Outcome::ControlStale;
        }
        // Who is a guest itself serves nobody.
        let (places, wants) = match self.ctx.is_guest {
            true => (0, Attach { share: Share::Nothing, extra: 0 }),
            false => (self.ctx.config.guests, wants),
        };
        let granted = self.ctx.seats.attach(from, wants, places, &self.ctx.egress);
        self.ctx.send_control_in(Lane::Guest, from, &Control::Attached(granted));
        Outcome::Control
    }

    /// Greets a guest: with what it needs to check what it is sent, and what there is.
    pub(super) fn greet_guest(&mut self, peer: PeerKey) {
        let delegations = self.ctx.epochs.delegations().into_iter().map(Control::Delegation);
        let tips = self.repair.greeting(&self.ctx);
        let greeting = [self.hello(), Control::Terms(self.terms())];
        let frames: Vec<Control> = greeting.into_iter().chain(delegations).chain(tips).collect();
        frames.iter().for_each(|frame| self.ctx.send_control_in(Lane::Guest, peer, frame));
        if self.ctx.config.members.live {
            // It may want to become a member: then it has a record.
            let notices: Vec<Control> = self.tables.greeting(self.ctx.window.opened()).collect();
            notices.iter().for_each(|frame| self.ctx.send_control_in(Lane::Guest, peer, frame));
            self.records.connected(&self.ctx, peer);
        }
    }

    /// Whether a frame of a peer is not looked at, because it is a guest and members alone may send
    /// it, or because guests together have sent too much that was useless. It is charged for then.
    pub(super) fn passes_over(&mut self, from: PeerKey, frame: &[u8], micros: u64) -> bool {
        let (now, peers) = (self.ctx.now, &mut self.ctx.peers);
        if !peers.is_guest(from) {
            return false;
        }
        if !frame.first().is_some_and(|kind| is_of_guests(*kind)) {
            peers.charge(now, from, micros);
            return true;
        }
        let spent = peers.are_guests_spent(now);
        if spent {
            peers.charge_alone(now, from, micros);
        }
        spent
    }
}
