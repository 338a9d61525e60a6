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

mod control;
mod epochs;
mod guests;
mod looks;
mod members;
mod window;

use std::collections::VecDeque;
use std::sync::Arc;

use alloy_primitives::Address;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use fragcast_shredder::{
    Commitment, EquivocationProof, HashedShred, MessageKey, RecoveredSet, SetHeader, Shred,
    VerifiedMessage, shred,
};

use super::again::Again;
use super::attaching::Attaching;
use super::catchup::{Archive, CatchUp, Serving, Word};
use super::config::Config;
use super::connecting;
use super::ctx::Ctx;
use super::delays::Delays;
use super::delivery::{Complete, Delivery, Step};
use super::epochs::Epochs;
use super::event::Event;
use super::evidence::EvidenceBook;
use super::fallback::Fallback;
use super::handover::HandOver;
use super::leading::{BroadcastError, Leading};
use super::missing_plans::MissingPlans;
use super::peers::Peers;
use super::receipts::{Receipts, ReceiptsState};
use super::records::RecordBook;
use super::relaying::Relaying;
use super::repair::Repair;
use super::spread::Newest;
use super::substituting::Substituting;
use super::tables::TableBook;
use super::window::Place;
use crate::control::{Control, Hello, Terms};
use crate::egress::Lane;
use crate::gossip::Mode;
use crate::outcome::Outcome;
use crate::output::{Delivered, Times, Via};
use crate::peer::PeerKey;
use crate::schedule::Lead;
use crate::time::Timestamp;
use looks::Looks;

/// The parts of one node.
pub(super) struct Parts {
    pub(super) ctx: Ctx,
    pub(super) delivery: Delivery,
    pub(super) relaying: Relaying,
    pub(super) leading: Option<Leading>,
    pub(super) repair: Repair,
    pub(super) fallback: Fallback,
    pub(super) evidence: EvidenceBook,
    /// Puts Envs and Seals of blocks outside the window together, while that is in doubt.
    scout: Delivery,
    looked_at: VecDeque<(PeerKey, HashedShred)>,
    looks: Looks,
    pub(super) archive: Archive,
    again: Again,
    /// If this node is a guest: whom it takes messages from.
    pub(super) attaching: Attaching,
    pub(super) catch_up: CatchUp,
    pub(super) serving: Serving,
    pub(super) delays: Delays,
    missing_plans: MissingPlans,
    pub(super) receipts: Receipts,
    pub(super) substituting: Substituting,
    pub(super) hand_over: HandOver,
    pub(super) records: RecordBook,
    pub(super) tables: TableBook,
    pub(super) newest: Newest,
}

/// What is here, of parts whose other fields are being changed.
macro_rules! here {
    ($parts:ident) => {
        $crate::protocol::delivery::Here { delivery: &$parts.delivery, fallback: &$parts.fallback }
    };
}

use here;

impl Parts {
    pub(super) fn new(
        config: Config,
        epochs: Epochs,
        me: PeerKey,
        leader: Option<SigningKey>,
    ) -> Self {
        let ours = epochs.newest().epoch().members().hash();
        let peers = Peers::new(me, epochs.view().peers().clone(), ours);
        let leading = leader.map(|key| Leading::new(config.chain_id, key, &epochs));
        let mut ctx = Ctx::new(config, epochs, peers);
        ctx.settle_own_class();
        let mut attaching = Attaching::default();
        if ctx.is_guest {
            attaching.draw(&ctx);
        }
        let config = &ctx.config;
        Self {
            delivery: Delivery::new(config),
            relaying: Relaying::default(),
            leading,
            repair: Repair::new(config),
            fallback: Fallback::new(config.gossip),
            evidence: EvidenceBook::default(),
            scout: Delivery::scout(config),
            looked_at: VecDeque::new(),
            looks: Looks::default(),
            archive: Archive::new(config.catch_up.memory, config.catch_up.blocks),
            attaching,
            again: Again::new(&config.catch_up),
            catch_up: CatchUp::new(config.catch_up),
            serving: Serving::new(&config.catch_up, config.uplink_bps, config.guests_bps),
            delays: Delays::default(),
            missing_plans: MissingPlans::default(),
            receipts: Receipts::default(),
            substituting: Substituting::default(),
            hand_over: HandOver::default(),
            records: RecordBook::new(&ctx),
            tables: TableBook::default(),
            newest: Newest::default(),
            ctx,
        }
    }

    // Connections.

    /// Greets a peer whose connection is up.
    pub(super) fn connected(&mut self, peer: PeerKey) {
        if !self.ctx.peers.connect(peer) {
            return;
        }
        if self.ctx.peers.is_guest(peer) {
            return self.greet_guest(peer);
        }
        let delegations = self.ctx.epochs.delegations().into_iter().map(Control::Delegation);
        let plans = self.leading.iter().flat_map(|leading| leading.frames(None)).cloned();
        let tips = self.repair.greeting(&self.ctx);
        let listeners = self.fallback.greeting();
        // Before any shred that cannot be checked without them.
        let greeting = [self.hello(), Control::Terms(self.terms())];
        let first: Vec<Control> = greeting.into_iter().chain(delegations).collect();
        first.iter().for_each(|frame| self.ctx.send_control_in(Lane::Data, peer, frame));
        let offers = connecting::offers(&self.ctx).into_iter().map(Control::PlanAck);
        let keeps = Serving::greeting(&self.ctx, &self.archive);
        let frames: Vec<Control> =
            plans.chain(tips).chain(listeners).chain(offers).chain(keeps).collect();
        frames.iter().for_each(|frame| self.ctx.send_control(peer, frame));
        if self.ctx.config.members.live {
            let notices: Vec<Control> = self.tables.greeting(self.ctx.window.opened()).collect();
            notices.iter().for_each(|frame| self.ctx.send_control(peer, frame));
            self.records.connected(&self.ctx, peer);
        }
        self.delays.connected(&mut self.ctx, peer);
        self.attaching.connected(&mut self.ctx);
        self.catch_up.connected(peer);
        self.catch_up();
    }

    fn hello(&self) -> Control {
        let table = self.ctx.epochs.newest().epoch().members().hash();
        Control::Hello(Hello { version: shred::VERSION, chain_id: self.ctx.config.chain_id, table })
    }

    /// What this node goes by.
    pub(super) fn terms(&self) -> Terms {
        Terms::of(self.ctx.config.dialect, self.ctx.epochs.newest().epoch(), self.ctx.now)
    }

    pub(super) fn disconnected(&mut self, peer: PeerKey) {
        if !self.ctx.peers.contains(peer) {
            return;
        }
        if self.ctx.peers.is_guest(peer) {
            return self.forget_stranger(peer);
        }
        self.ctx.peers.disconnect(peer);
        self.ctx.egress.forget(peer);
        self.repair.disconnected(peer);
        self.fallback.forget_told(peer);
        self.ctx.window.forget_peer(peer);
        self.delays.disconnected(peer);
        self.hand_over.disconnected(peer);
        self.records.disconnected(peer);
        self.tables.disconnected(peer);
        self.attaching.disconnected(&mut self.ctx, peer);
        self.catch_up.disconnected(peer);
        self.catch_up();
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
            // Who is in no tree relays nothing.
            if self.ctx.peers.is_guest(from) {
                self.ctx.outcomes.count(Outcome::Guest);
                continue;
            }
            heard = true;
            match Shred::parse(bytes) {
                Ok(shred) => match self.precheck(from, shred.header()) {
                    Ok(()) => {
                        senders.push(from);
                        shreds.push(shred);
                    }
                    Err(outcome) => self.ctx.conclude(from, outcome),
                },
                Err(error) => self.ctx.conclude(from, error.into()),
            }
        }
        if heard {
            self.fallback.note_heard(&mut self.ctx);
        }
        for (from, shred) in senders.iter().zip(&shreds) {
            self.attaching.note_shred(&self.ctx, *from, shred.header());
        }
        for (from, hashed) in senders.into_iter().zip(HashedShred::batch(shreds)) {
            self.shred(from, hashed, false);
        }
    }

    /// Whether a shred is not looked at, since too many of its sender's could not be checked and
    /// nothing of its set is known.
    pub(super) fn is_doubtful(&self, from: PeerKey, header: &SetHeader) -> bool {
        self.is_spent(from, header) && !self.delivery.knows(header)
    }

    /// Whether too many of a peer's shreds could not be checked to verify a signature of another.
    fn is_spent(&self, from: PeerKey, header: &SetHeader) -> bool {
        let ctx = &self.ctx;
        !ctx.doubts.is_empty()
            && ctx
                .suspect(from, (header.block, header.attempt), header.plan)
                .is_some_and(|suspect| ctx.doubts.is_spent(ctx.now, &suspect))
    }

    /// Takes what a verification has shown that was in vain, at its sender's cost.
    fn in_vain(&mut self, from: PeerKey, header: &SetHeader, claim: Option<Box<Commitment>>) {
        let of = (header.block, header.attempt);
        let Some(suspect) = self.ctx.suspect(from, of, header.plan) else { return };
        match claim {
            Some(claim) => self.ctx.doubts.note(self.ctx.now, suspect, *claim),
            None => self.ctx.doubts.charge(self.ctx.now, suspect),
        }
    }

    /// The leader signed two contradictory things. Who sends what is known already pays for it.
    fn equivocation(
        &mut self,
        from: PeerKey,
        header: &SetHeader,
        proof: EquivocationProof,
    ) -> Outcome {
        if !self.evidence.report(&mut self.ctx, proof) {
            self.in_vain(from, header, None);
        }
        Outcome::Equivocation
    }

    /// What a shred is counted as that could not be checked.
    pub(super) fn unproven(&self, from: PeerKey) -> Outcome {
        match self.ctx.peers.is_elsewhere(from) {
            true => Outcome::OtherTable,
            false => Outcome::Unproven,
        }
    }

    /// Takes a shred that came by itself, or one that came by repair, which is not forwarded.
    fn shred(&mut self, from: PeerKey, hashed: HashedShred, repaired: bool) -> Outcome {
        let (header, index) = (*hashed.shred().header(), hashed.shred().index());
        // Others of the same burst may have used up what its sender had.
        let may_verify = !self.is_spent(from, &header);
        if !may_verify && !self.delivery.knows(&header) {
            let outcome = self.unproven(from);
            self.ctx.conclude(from, outcome);
            return outcome;
        }
        if !repaired && self.ctx.window.place(self.ctx.now, header.block) == Place::Elsewhere {
            return self.look(from, hashed);
        }
        let outcome = match self.delivery.shred(&self.ctx, hashed, repaired, may_verify) {
            Step::Refused(Outcome::Unproven) => self.unproven(from),
            Step::Refused(outcome) => outcome,
            Step::Unproven(claim) => {
                self.in_vain(from, &header, claim);
                self.unproven(from)
            }
            Step::Equivocation(proof) => self.equivocation(from, &header, *proof),
            Step::BadParity => {
                // Nobody is asked for more of it.
                self.repair.note_refused(here!(self), &header.message_key());
                Outcome::BadParity
            }
            Step::Kept { valid, leader, first, complete } => {
                if first && self.ctx.doubts.holds() {
                    for liar in self.ctx.doubts.settle(&valid.commitment()) {
                        self.ctx.conclude(liar, Outcome::BadSignature);
                    }
                }
                let live_from = (!repaired).then_some(from);
                self.repair.note_shred(&self.ctx, here!(self), &header, live_from);
                self.ctx.counters.to_guests += self.ctx.seats.forward(&mut self.ctx.egress, &valid);
                if !repaired && !self.relaying.forward(&mut self.ctx, &valid, leader) {
                    self.missing_plans.wait_for(&mut self.ctx, from, &valid, leader);
                }
                if !repaired {
                    let (set, root) = ((valid.header(), index), &valid.root());
                    self.receipts.note_kept(&self.ctx, from, set, root, self.leading.is_some());
                    if first {
                        self.newest.note(valid.header(), root);
                    }
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
        if !repaired && matches!(outcome, Outcome::Late | Outcome::Duplicate) {
            self.receipts.note_late(&self.ctx, from, &header, index);
        }
        self.ctx.conclude(from, outcome);
        outcome
    }

    /// A set is complete, and perhaps its message.
    fn completed(&mut self, from: PeerKey, header: &SetHeader, complete: Complete) {
        if let Some(set) = complete.recovered {
            self.ctx.counters.recovered += 1;
            self.send_owed(&set);
            self.fill_guests(&set);
            self.repair.keep(&self.ctx, set);
        }
        match complete.message.map(|message| self.delivery.open(&self.ctx, message)) {
            None => {}
            Some(Ok(delivered)) => {
                self.attaching.note_whole(&mut self.ctx, header);
                self.deliver(delivered, from);
            }
            Some(Err((key, reason))) => {
                self.repair.note_refused(here!(self), &key);
                self.ctx.events.push_back(Event::BadMessage { key, reason });
            }
        }
        self.repair.note_complete(&self.ctx, here!(self), header);
    }

    /// Sends what this node owes of a set that it has just completed: if repair has helped, only
    /// while it can be of use.
    fn send_owed(&mut self, set: &RecoveredSet) {
        if set.repaired == 0 {
            return self.relaying.send_owed(&mut self.ctx, set, &[], false);
        }
        if let Some(told) = self.repair.owed_but_to(&self.ctx, &set.header.message_key()) {
            self.relaying.send_owed(&mut self.ctx, set, &told, true);
        }
    }

    fn fill_guests(&mut self, set: &RecoveredSet) {
        self.ctx.counters.to_guests += self.ctx.seats.complete(&mut self.ctx.egress, set);
    }

    /// Re-encodes some of the sets that came whole, and sends what is owed of them.
    pub(super) fn check_sets(&mut self) {
        for _ in 0..Delivery::CHECKS {
            match self.delivery.check_next() {
                None => break,
                Some(Ok(set)) => {
                    self.send_owed(&set);
                    self.fill_guests(&set);
                    self.repair.keep(&self.ctx, Box::new(set));
                }
                Some(Err(key)) => {
                    self.repair.note_refused(here!(self), &key);
                    self.archive.refuse(&key);
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
        self.hand_over.arrived(&mut self.ctx, key);
        self.ctx.counters.delivered += 1;
        self.ctx.counters.repaired += u64::from(delivered.via == Via::Repair);
        self.keep(key, message, Word::Leader);
        self.advance(&key, message, delivered.times.sent_at);
        if self.fallback.is_on() {
            let guess = self.fallback.note_overlay(&mut self.ctx, &key, message);
            guess.iter().for_each(|guess| self.repair.forget_message(guess));
            self.offer(&key, message);
        }
        let (delivered, from) = (Arc::new(delivered), Some(from));
        self.ctx.events.push_back(Event::Message { delivered, from });
    }

    /// Keeps a message that is handed on, for peers and for the application itself.
    fn keep(&mut self, key: MessageKey, message: &VerifiedMessage, word: Word) {
        self.substituting.note(&mut self.ctx, &key, message.message().kind());
        self.archive.insert((key, self.ctx.rank(&key)), message, word);
        self.again.note(key.block);
    }

    /// Sends a message of this node's own.
    pub(super) fn broadcast(
        &mut self,
        key: MessageKey,
        message: &VerifiedMessage,
    ) -> Result<(), BroadcastError> {
        let own = self.ctx.epochs.view().gateway_of(key.block, key.attempt);
        let leading = self.leading.as_mut().filter(|leading| {
            leading.leads_attempt(&self.ctx, &key) && own == Some(message.gateway())
        });
        let leading = leading.ok_or(BroadcastError::NotLeader(key.block))?;
        self.substituting.may_send(&self.ctx, &key, message.message().kind())?;
        if !self.ctx.egress.has_room() {
            return Err(BroadcastError::Busy);
        }
        let kind = message.message().kind();
        if self.ctx.mode != Mode::Gossip {
            self.hand_over.ask(&mut self.ctx, key.block);
        }
        // On gossip alone without a single shred.
        let cut = match self.ctx.mode {
            Mode::Gossip => None,
            _ => Some(leading.send(&mut self.ctx, &mut self.relaying, key, message)?),
        };
        self.keep(key, message, Word::Leader);
        self.advance_own(&key, message);
        if let Some(cut) = cut {
            self.ctx.counters.to_guests += self.ctx.seats.own(&mut self.ctx.egress, &cut);
            self.receipts.note_own(&cut);
            if let Some(set) = cut.sets.first() {
                self.newest.note(&set.header, &set.root);
            }
            self.repair.keep_own(&self.ctx, cut);
        }
        if self.fallback.is_on() {
            self.fallback.note_sent(&self.ctx, key.block, kind);
            self.offer(&key, message);
        }
        Ok(())
    }

    /// By what right this node leads a block now for a gateway, and could open it.
    pub(super) fn lead(&self, block: u64, gateway: &Address) -> Result<Lead, BroadcastError> {
        let lead = self.ctx.epochs.view().lead(block, gateway);
        let lead = lead.filter(|lead| {
            let key = MessageKey { block, attempt: lead.first_attempt, message: 0 };
            self.leading.as_ref().is_some_and(|leading| leading.leads_attempt(&self.ctx, &key))
        });
        let lead = lead.ok_or(BroadcastError::NotLeader(block))?;
        self.substituting.may_open(&self.ctx, block, lead.rank)?;
        Ok(lead)
    }

    /// Keeps a message for those who ask, and publishes it if it is up to this node.
    fn offer(&mut self, key: &MessageKey, message: &VerifiedMessage) {
        self.remember(*key, message);
        self.fallback.offer(&mut self.ctx, key, message);
        self.fallback.settle(&mut self.ctx);
    }

    fn remember(&mut self, key: MessageKey, message: &VerifiedMessage) {
        let gone = self.fallback.remember(key, message);
        gone.iter().for_each(|gone| self.repair.forget_message(gone));
        self.repair.forget_messages_below(self.fallback.recent().oldest());
    }

    /// A message came by gossip.
    pub(super) fn gossip(&mut self, message: VerifiedMessage, forwarded: bool) {
        if !self.fallback.takes(&self.ctx, &message) {
            return;
        }
        if self.ctx.window.place(self.ctx.now, message.message().block()) != Place::Inside {
            let sight = self.sight(&message, None);
            if !self.ctx.window.sighted(self.ctx.now, &sight) {
                return;
            }
            self.moved();
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
        self.keep(key, &message, Word::Told);
        self.advance_window(&message, None);
        self.remember(key, &message);
        self.repair.note_message(&self.ctx, self.fallback.recent(), &key, kind);
        self.hand_on(key, message, from);
        self.fallback.settle(&mut self.ctx);
    }

    /// Hands on a message that came without shreds.
    fn hand_on(&mut self, key: MessageKey, message: VerifiedMessage, from: Option<PeerKey>) {
        self.hand_over.arrived(&mut self.ctx, key);
        let via = if from.is_some() { Via::Whole } else { Via::Gossip };
        let (rank, times) = (self.ctx.rank(&key), Times::whole(self.ctx.now));
        let delivered = Delivered { key, message, times, via, rank };
        self.ctx.events.push_back(Event::Message { delivered: Arc::new(delivered), from });
    }

    pub(super) fn supersede(&mut self, block: u64, attempt: u8) {
        self.delivery.supersede(block, attempt);
        self.repair.supersede(block, attempt);
    }

    // Time.

    /// When something is due.
    pub(super) fn next_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        let checks = self.delivery.checks_due().then_some(now);
        let fallback = self.fallback.next_timeout(&self.ctx);
        let sends = self.ctx.egress.next_at(now);
        let (repair, catch_up) = (self.repair.next_timeout(), self.catch_up.next_timeout());
        let receipts = self.receipts.next_timeout();
        let overlay = checks.into_iter().chain(sends).chain(repair).chain(catch_up);
        let members = self.members_timeout_at();
        overlay.chain(fallback).chain(receipts).chain(members).min()
    }

    /// Makes the changes that are due.
    pub(super) fn timeout(&mut self) {
        self.check_sets();
        self.repair.timeout(&mut self.ctx, here!(self));
        self.fallback.timeout(&mut self.ctx, &self.repair);
        self.members_timeout();
        if self.catch_up.next_timeout().is_some_and(|at| at <= self.ctx.now) {
            self.catch_up();
        }
        if self.receipts.next_timeout().is_some_and(|at| at <= self.ctx.now) {
            let Self { ctx, receipts, delays, leading, .. } = self;
            let of = |table: &[u8; 32]| delays.of(table).map(|(matrix, _)| &**matrix);
            receipts.timeout(ctx, leading.is_some(), of);
        }
    }

    /// Round trips were taken: about once a second a leader looks at its receipts.
    pub(super) fn judge(&mut self) {
        let Self { ctx, receipts, leading, .. } = self;
        if let Some(leading) = leading {
            leading.exclude(ctx, receipts);
        }
    }

    /// What this node knows of receipts.
    pub(super) fn receipts_state(&self) -> ReceiptsState {
        let mut state = self.receipts.state();
        if let Some(leading) = &self.leading {
            [state.excluded, state.no_heads] = leading.excluded(&self.ctx);
        }
        state
    }
}
