//! How the parts work together: what follows from a shred, a message, a control frame, a move of
//! the window, a new epoch.
//!
//! ```text
//!            ┌▶ Relaying ─▶ egress ◀─ Leading
//! Delivery ──┼▶ Repair ◀─────▶ Fallback ─▶ gossip
//!            └▶ events, EvidenceBook
//! ```
//!
//! Each part owns its state and changes it by its own methods, with a [`Ctx`] and what it must
//! know of another part as arguments. Only here more than one of them is changed at a time.

use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use fragcast_shredder::{HashedShred, Kind, MessageKey, SetHeader, Shred, VerifiedMessage, shred};

use super::config::Config;
use super::ctx::Ctx;
use super::delivery::{Complete, Delivery, Here, Step};
use super::epochs::Epochs;
use super::event::{EpochChange, Event};
use super::evidence::EvidenceBook;
use super::fallback::Fallback;
use super::leading::{BroadcastError, Leading};
use super::peers::Peers;
use super::relaying::Relaying;
use super::repair::{PartStep, Repair};
use super::window::Place;
use crate::control::{Control, ControlError, Hello, RepairShreds};
use crate::delegation::{DelegationError, SignedDelegation};
use crate::epoch::{Epoch, EpochError};
use crate::gossip::Mode;
use crate::outcome::Outcome;
use crate::output::{Delivered, Times, Via};
use crate::peer::PeerKey;
use crate::plan::{PlanView, SignedPlan};
use crate::time::Timestamp;

/// The parts of one node.
pub(super) struct Parts {
    pub(super) ctx: Ctx,
    pub(super) delivery: Delivery,
    pub(super) relaying: Relaying,
    pub(super) leading: Option<Leading>,
    pub(super) repair: Repair,
    pub(super) fallback: Fallback,
    pub(super) evidence: EvidenceBook,
}

/// What is here, of parts whose other fields are being changed.
macro_rules! here {
    ($parts:ident) => {
        Here { delivery: &$parts.delivery, fallback: &$parts.fallback }
    };
}

impl Parts {
    pub(super) fn new(
        config: Config,
        epochs: Epochs,
        me: PeerKey,
        leader: Option<SigningKey>,
    ) -> Self {
        let ours = epochs.newest().epoch().members().hash();
        let peers = Peers::new(me, epochs.view().peers().clone(), ours);
        Self {
            delivery: Delivery::new(&config),
            relaying: Relaying::default(),
            leading: leader.map(|key| Leading::new(config.chain_id, key, &epochs)),
            repair: Repair::new(&config.repair),
            fallback: Fallback::new(config.gossip),
            evidence: EvidenceBook::default(),
            ctx: Ctx::new(config, epochs, peers),
        }
    }

    // Connections.

    /// Greets a peer whose connection is up.
    pub(super) fn connected(&mut self, peer: PeerKey) {
        if !self.ctx.peers.connect(peer) {
            return;
        }
        let delegations = self.ctx.epochs.delegations().into_iter().map(Control::Delegation);
        let plans = self.leading.iter().flat_map(|leading| leading.frames(None)).cloned();
        let tips = self.repair.greeting(&self.ctx);
        let listeners = self.fallback.greeting();
        let frames = std::iter::once(self.hello()).chain(delegations).chain(plans);
        let frames: Vec<Control> = frames.chain(tips).chain(listeners).collect();
        frames.iter().for_each(|frame| self.ctx.send_control(peer, frame));
    }

    fn hello(&self) -> Control {
        let table = self.ctx.epochs.newest().epoch().members().hash();
        Control::Hello(Hello { version: shred::VERSION, chain_id: self.ctx.config.chain_id, table })
    }

    pub(super) fn disconnected(&mut self, peer: PeerKey) {
        if !self.ctx.peers.contains(peer) {
            return;
        }
        self.ctx.peers.disconnect(peer);
        self.ctx.egress.forget(peer);
        self.repair.disconnected(peer);
        self.fallback.forget_told(peer);
    }

    // Shreds.

    /// Takes a burst of datagrams: parsed, looked at, hashed side by side, and taken one by one.
    pub(super) fn datagrams(&mut self, burst: impl IntoIterator<Item = (PeerKey, Bytes)>) {
        let mut senders = Vec::new();
        let mut shreds = Vec::new();
        let mut heard = false;
        for (from, bytes) in burst {
            if self.ctx.mode == Mode::Gossip {
                self.ctx.outcomes.count(Outcome::Forced);
                continue;
            }
            if self.ctx.peers.is_refused(from) {
                self.ctx.outcomes.count(Outcome::Barred);
                continue;
            }
            heard = true;
            match Shred::parse(bytes) {
                Ok(shred) => match self.precheck(from, shred.header()) {
                    Ok(()) => {
                        senders.push(from);
                        shreds.push(shred);
                    }
                    Err(outcome) => self.ctx.conclude(from, outcome, None),
                },
                Err(error) => self.ctx.conclude(from, error.into(), None),
            }
        }
        if heard {
            self.fallback.note_heard(&mut self.ctx);
        }
        for (from, hashed) in senders.into_iter().zip(HashedShred::batch(shreds)) {
            self.shred(from, hashed, false);
        }
    }

    /// Checks that can refuse a shred before anything is hashed.
    fn precheck(&mut self, from: PeerKey, header: &SetHeader) -> Result<(), Outcome> {
        let (now, reanchor) = (self.ctx.now, self.ctx.config.reanchor);
        match self.ctx.window.place(now, header.block, reanchor) {
            Place::Inside => {}
            Place::Outside(outcome) => return Err(outcome),
            // Nothing of our window has come for long: perhaps it is we who are elsewhere.
            Place::Elsewhere => self.forget_window(),
        }
        if self.ctx.peers.is_muted(now, from) && self.ctx.epochs.is_newest(header.block) {
            return Err(Outcome::OtherTable);
        }
        Ok(())
    }

    /// Takes a shred that came by itself, or one that came by repair, which is not forwarded.
    fn shred(&mut self, from: PeerKey, hashed: HashedShred, repaired: bool) -> Outcome {
        let header = *hashed.shred().header();
        let outcome = match self.delivery.shred(&self.ctx, hashed, repaired) {
            Step::Refused(outcome) => outcome,
            Step::Equivocation(proof) => {
                self.evidence.report(&mut self.ctx, *proof);
                Outcome::Equivocation
            }
            Step::BadParity => {
                // Nobody is asked for more of it.
                self.repair.note_refused(here!(self), &header.message_key());
                Outcome::BadParity
            }
            Step::Kept { valid, leader, complete } => {
                let live_from = (!repaired).then_some(from);
                self.repair.note_shred(&self.ctx, here!(self), &header, live_from);
                if !repaired {
                    self.relaying.forward(&mut self.ctx, &valid, leader);
                }
                match complete {
                    None => Outcome::Stored,
                    Some(complete) => {
                        self.completed(from, &header, complete);
                        Outcome::Completed
                    }
                }
            }
        };
        self.ctx.conclude(from, outcome, Some(header.block));
        outcome
    }

    /// A set is complete, and perhaps its message.
    fn completed(&mut self, from: PeerKey, header: &SetHeader, complete: Complete) {
        if let Some(set) = complete.recovered {
            self.ctx.counters.recovered += 1;
            if !set.repaired {
                self.relaying.send_owed(&mut self.ctx, &set);
            }
            self.repair.keep(&self.ctx, set);
        }
        match complete.message.map(|message| self.delivery.open(&self.ctx, message)) {
            None => {}
            Some(Ok(delivered)) => self.deliver(delivered, from),
            Some(Err((key, reason))) => {
                self.repair.note_refused(here!(self), &key);
                self.ctx.events.push_back(Event::BadMessage { key, reason });
            }
        }
        self.repair.note_complete(&self.ctx, here!(self), header);
    }

    /// Re-encodes some of the sets that came whole, and sends what is owed of them.
    pub(super) fn check_sets(&mut self) {
        for _ in 0..Delivery::CHECKS {
            match self.delivery.check_next() {
                None => break,
                Some(Ok(set)) => {
                    if !set.repaired {
                        self.relaying.send_owed(&mut self.ctx, &set);
                    }
                    self.repair.keep(&self.ctx, Box::new(set));
                }
                Some(Err(key)) => {
                    self.repair.note_refused(here!(self), &key);
                    self.ctx.outcomes.count(Outcome::BadParity);
                    self.ctx.events.push_back(Event::BadParity(key));
                }
            }
        }
    }

    // Messages.

    /// The overlay has brought a message.
    fn deliver(&mut self, delivered: Delivered, from: PeerKey) {
        let (key, message) = (delivered.key, &delivered.message);
        self.ctx.counters.delivered += 1;
        self.ctx.counters.repaired += u64::from(delivered.via == Via::Repair);
        self.advance(&key, message.message().kind());
        if self.fallback.is_on() {
            let guess = self.fallback.note_overlay(&mut self.ctx, &key, message);
            guess.iter().for_each(|guess| self.repair.forget_message(guess));
            self.offer(&key, message);
        }
        let (delivered, from) = (Arc::new(delivered), Some(from));
        self.ctx.events.push_back(Event::Message { delivered, from });
    }

    /// Sends a message of this node's own.
    pub(super) fn broadcast(
        &mut self,
        key: MessageKey,
        message: &VerifiedMessage,
    ) -> Result<(), BroadcastError> {
        let leading = self.leading.as_mut().filter(|leading| leading.leads(&self.ctx, key.block));
        let leading = leading.ok_or(BroadcastError::NotLeader(key.block))?;
        if !self.ctx.egress.has_room() {
            return Err(BroadcastError::Busy);
        }
        let kind = message.message().kind();
        // On gossip alone without a single shred.
        let cut = match self.ctx.mode {
            Mode::Gossip => None,
            _ => Some(leading.send(&mut self.ctx, &mut self.relaying, key, message)?),
        };
        self.advance(&key, kind);
        if let Some(cut) = cut {
            self.repair.keep_own(&self.ctx, cut);
        }
        if self.fallback.is_on() {
            self.fallback.note_sent(&self.ctx, key.block, kind);
            self.offer(&key, message);
        }
        Ok(())
    }

    /// Keeps a message for those who ask, and publishes it if it is up to this node.
    fn offer(&mut self, key: &MessageKey, message: &VerifiedMessage) {
        self.remember(*key, message);
        self.fallback.offer(&mut self.ctx, key, message);
        self.fallback.settle(&mut self.ctx);
    }

    fn remember(&mut self, key: MessageKey, message: &VerifiedMessage) {
        self.fallback.remember(key, message);
        self.repair.forget_messages_below(self.fallback.recent().oldest());
    }

    /// A message came by gossip.
    pub(super) fn gossip(&mut self, message: VerifiedMessage, forwarded: bool) {
        if !self.fallback.takes(&self.ctx, &message) {
            return;
        }
        let (low, high) = self.ctx.window.bounds();
        if !(low..=high).contains(&message.message().block()) {
            self.forget_window();
        }
        if let Some(key) = self.fallback.arrived(&mut self.ctx, &message, forwarded) {
            self.fallback.note_first(&self.ctx, &key, &message);
            self.whole(key, message, None);
        }
    }

    /// Takes a verified message that came without shreds: by gossip, or in answer to a request.
    /// Shreds of it are still taken and forwarded, and nobody is asked for it any more.
    fn whole(&mut self, key: MessageKey, message: VerifiedMessage, from: Option<PeerKey>) {
        let kind = message.message().kind();
        self.repair.settled(here!(self), &key);
        self.advance_window(key.block, kind);
        self.remember(key, &message);
        self.repair.note_message(&self.ctx, self.fallback.recent(), &key, kind);
        let via = if from.is_some() { Via::Whole } else { Via::Gossip };
        let delivered = Delivered { key, message, times: Times::whole(self.ctx.now), via };
        self.ctx.events.push_back(Event::Message { delivered: Arc::new(delivered), from });
        self.fallback.settle(&mut self.ctx);
    }

    // The window.

    fn advance(&mut self, key: &MessageKey, kind: Kind) {
        self.advance_window(key.block, kind);
        if kind == Kind::Env && key.attempt > 0 {
            self.supersede(key.block, key.attempt);
        }
    }

    /// Moves the window. A message from gossip does nothing else, because its attempt is a guess.
    fn advance_window(&mut self, block: u64, kind: Kind) {
        self.ctx.window.advance(self.ctx.now, block, kind);
        self.move_window();
    }

    pub(super) fn supersede(&mut self, block: u64, attempt: u8) {
        self.delivery.supersede(block, attempt);
        self.repair.supersede(block, attempt);
    }

    /// The application says where the chain's head is.
    pub(super) fn head(&mut self, block: u64) {
        self.ctx.window.head(self.ctx.now, block);
        self.repair.anchor(block.saturating_add(1));
        self.move_window();
    }

    fn forget_window(&mut self) {
        self.ctx.window.forget(self.ctx.now);
        self.repair.forget_anchor();
        self.move_window();
    }

    fn move_window(&mut self) {
        let (low, high) = self.ctx.window.bounds();
        self.delivery.set_window(low, high);
        self.repair.set_window(low, high);
        self.fallback.set_window(low);
        self.retire_epochs(low);
    }

    // Epochs.

    /// Forgets epochs whose blocks are all below the window.
    fn retire_epochs(&mut self, low: u64) {
        let (now, patience) = (self.ctx.now, self.ctx.config.reanchor);
        if let Some(gone) = self.ctx.epochs.retire(now, low, patience) {
            self.change_epochs(EpochChange::default(), &[gone]);
        }
    }

    /// Takes a new epoch.
    pub(super) fn epoch(&mut self, epoch: Epoch) -> Result<(), EpochError> {
        let from_block = epoch.from_block();
        let (low, _) = self.ctx.window.bounds();
        let taken = self.ctx.epochs.take(epoch, low, self.ctx.window.taken())?;
        // What a deposed leader has sent stands in the way of the right one's.
        if let Some(block) = taken.changed {
            self.forget_from(block);
        }
        let (began, joined) = (Some(from_block), taken.joined);
        let change = EpochChange { began, joined, ..EpochChange::default() };
        self.change_epochs(change, taken.dropped.as_slice());
        let hello = self.hello();
        self.ctx.send_control_to_all(&hello, None);
        for signed in taken.delegations {
            self.ctx.send_control_to_all(&Control::Delegation(signed), None);
        }
        let table = self.ctx.epochs.newest().epoch().members().hash();
        let plans = self.leading.iter().flat_map(|leading| leading.frames(Some(table)));
        plans.for_each(|plan| self.ctx.send_control_to_all(plan, None));
        self.fallback.settle(&mut self.ctx);
        Ok(())
    }

    /// Drops what is not delivered of a block and of all above it.
    fn forget_from(&mut self, block: u64) {
        let (low, high) = self.ctx.window.bounds();
        for high in [block.saturating_sub(1), high] {
            self.delivery.set_window(low, high);
            self.repair.set_window(low, high);
        }
    }

    /// Everybody learns that epochs came and that others are `gone`.
    fn change_epochs(&mut self, mut change: EpochChange, gone: &[Arc<Epoch>]) {
        change.ended = gone.last().map(|epoch| epoch.from_block());
        change.left = self.ctx.epochs.leave(gone);
        for (peer, _) in &change.left {
            if self.ctx.peers.is_connected(*peer) {
                self.ctx.egress.forget(*peer);
            }
            self.repair.forget_peer(*peer);
            self.fallback.forget_peer(*peer);
            self.ctx.peers.forget(*peer);
        }
        let ours = self.ctx.epochs.newest().epoch().members().hash();
        self.ctx.peers.set_table(self.ctx.epochs.view().peers().clone(), ours);
        if let Some(leading) = &mut self.leading {
            leading.follow(&self.ctx.epochs);
        }
        self.fallback.relink(&self.ctx);
        self.ctx.events.push_back(Event::Epoch(Box::new(change)));
    }

    // Control frames.

    /// Takes a control frame.
    pub(super) fn control(&mut self, from: PeerKey, frame: &[u8]) {
        if self.ctx.peers.is_refused(from) {
            self.ctx.outcomes.count(Outcome::Barred);
            return;
        }
        self.fallback.note_heard(&mut self.ctx);
        let (outcome, block) = match Control::from_bytes(frame) {
            Ok(control) => self.take_control(from, control),
            Err(ControlError::Unknown(_)) => (Outcome::ControlUnknown, None),
            Err(ControlError::Decode(_)) => (Outcome::ControlBad, None),
        };
        self.ctx.conclude(from, outcome, block);
    }

    /// What becomes of a frame, and the block that it is about if its truth depends on that.
    fn take_control(&mut self, from: PeerKey, control: Control) -> (Outcome, Option<u64>) {
        let ctx = &mut self.ctx;
        let outcome = match control {
            Control::Tips(_)
            | Control::RepairRequest(_)
            | Control::RepairShreds(_)
            | Control::MessagePart(_)
                if ctx.mode == Mode::Gossip =>
            {
                Outcome::Forced
            }
            Control::Hello(hello) => self.greeted(from, &hello),
            Control::Delegation(signed) => self.take_delegation(from, signed),
            Control::Plan(plan) => self.take_plan(&plan),
            Control::Tips(tips) => self.repair.take_tips(ctx, here!(self), from, &tips),
            Control::RepairRequest(request) => {
                self.repair.take_request(ctx, self.fallback.recent(), from, &request)
            }
            Control::Listeners(told) => self.fallback.take_listeners(from, &told),
            Control::RepairShreds(answer) => self.take_answer(from, answer),
            Control::MessagePart(part) => match self.repair.take_part(ctx, from, &part) {
                PartStep::Done(outcome) => outcome,
                PartStep::Whole(key, kind, wire) => {
                    let outcome = self.take_whole_answer(from, key, kind, &wire.into());
                    if outcome.convicts_sender() {
                        self.repair.drop_parts(from);
                    }
                    return (outcome, Some(key.block));
                }
            },
            Control::Evidence(evidence) => self.evidence.told(ctx, from, *evidence),
        };
        (outcome, None)
    }

    fn greeted(&mut self, from: PeerKey, hello: &Hello) -> Outcome {
        let changed = self.ctx.peers.greet(from, hello.table);
        if hello.chain_id != self.ctx.config.chain_id {
            self.ctx.events.push_back(Event::Mismatch { peer: from, what: "chain id" });
        } else if changed {
            // What it could not use before.
            let plans = self.leading.iter().flat_map(|leading| leading.frames(Some(hello.table)));
            plans.for_each(|plan| self.ctx.send_control(from, plan));
        }
        Outcome::Control
    }

    fn take_delegation(&mut self, from: PeerKey, signed: SignedDelegation) -> Outcome {
        match self.ctx.epochs.learn(signed) {
            Ok(()) => {
                self.ctx.send_control_to_all(&Control::Delegation(signed), Some(from));
                Outcome::Control
            }
            // A gateway that we do not know may be known to the sender: its schedule is newer.
            Err(DelegationError::Stale | DelegationError::NotAGateway(_)) => Outcome::ControlStale,
            Err(_) => Outcome::ControlBad,
        }
    }

    fn take_plan(&mut self, signed: &SignedPlan) -> Outcome {
        let epochs = &mut self.ctx.epochs;
        let leader = epochs.leader_of_key(&signed.plan.leader);
        let Some(gateway) = leader.map(|leader| leader.gateway) else {
            return Outcome::ControlStale;
        };
        let (id, table) = (signed.plan.id(), signed.plan.table);
        let known = |living: &&mut super::epochs::Living| living.plans.get(id).is_some();
        if signed.plan.chain_id != self.ctx.config.chain_id
            || epochs.of_table(table).any(|living| known(&living))
        {
            return Outcome::ControlStale;
        }
        if !signed.verify() {
            return Outcome::ControlBad;
        }
        let mut outcome = Outcome::ControlStale;
        for living in epochs.of_table(table) {
            // Otherwise it refers to a table that we do not have, and is no lie.
            if let Ok(view) = PlanView::new(&signed.plan, living.epoch().members()) {
                living.plans.learn(gateway, view.into());
                outcome = Outcome::Control;
            }
        }
        outcome
    }

    /// Takes an answer: each of its shreds as if it had come by itself, but for forwarding.
    fn take_answer(&mut self, from: PeerKey, answer: RepairShreds) -> Outcome {
        let answer = match self.repair.take_answer(&mut self.ctx, from, answer) {
            Ok(answer) => answer,
            Err(outcome) => return outcome,
        };
        let mut useful = 0;
        for hashed in answer.shreds {
            if self.ctx.peers.is_refused(from) {
                break;
            }
            let outcome = self.shred(from, hashed, true);
            useful += u64::from(matches!(outcome, Outcome::Stored | Outcome::Completed));
        }
        self.repair.note_useful(&mut self.ctx, from, &answer.asked, useful);
        Outcome::Control
    }

    /// Takes the answer of a peer that has a message from gossip.
    fn take_whole_answer(
        &mut self,
        from: PeerKey,
        key: MessageKey,
        kind: Kind,
        wire: &alloy_primitives::Bytes,
    ) -> Outcome {
        match self.fallback.answered(&mut self.ctx, key, kind, wire) {
            Ok(message) => {
                self.whole(key, message, Some(from));
                Outcome::Control
            }
            Err(outcome) => outcome,
        }
    }

    // Time.

    /// When something is due.
    pub(super) fn next_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        let checks = self.delivery.checks_due().then_some(now);
        let fallback = self.fallback.next_timeout(&self.ctx);
        let sends = self.ctx.egress.next_at(now);
        checks.into_iter().chain(sends).chain(self.repair.next_timeout()).chain(fallback).min()
    }

    /// Makes the changes that are due.
    pub(super) fn timeout(&mut self) {
        self.check_sets();
        self.repair.timeout(&mut self.ctx, here!(self));
        self.fallback.timeout(&mut self.ctx, &self.repair);
    }
}
