//! What comes in: shreds are parsed, hashed side by side, validated, forwarded and
//! reassembled; control frames are checked and taken.

use bytes::Bytes;
use fragcast_shredder::{
    Assembled, HashedShred, MessageKey, Push, PushError, RecoveredSet, SetHeader, Shred,
    SignedMessage, ValidateError, ValidatedShred,
};

use super::{Delivered, Event, MAX_ARRIVALS, MAX_EARLY, MAX_PLANS, Protocol};
use crate::control::{Control, ControlError};
use crate::delegation::{DelegationError, SignedDelegation};
use crate::egress::{Lane, Payload, Transmit};
use crate::gossip::Mode;
use crate::membership::PeerIndex;
use crate::outcome::Outcome;
use crate::output::Via;
use crate::plan::{PlanView, SignedPlan};
use crate::route::{Route, Tree};
use crate::time::Timestamp;

impl Protocol {
    /// Takes a burst of datagrams. Bursts are worth collecting: the shards of one are hashed
    /// side by side.
    pub fn handle_datagrams(
        &mut self,
        now: Timestamp,
        burst: impl IntoIterator<Item = (PeerIndex, Bytes)>,
    ) {
        let mut senders = Vec::new();
        let mut shreds = Vec::new();
        let mut heard = false;
        for (from, bytes) in burst {
            if self.mode() == Mode::Gossip {
                self.outcomes.count(Outcome::Forced);
                continue;
            }
            if self.peers.get(from as usize).is_none_or(|peer| peer.barred) {
                self.outcomes.count(Outcome::Barred);
                continue;
            }
            heard = true;
            match Shred::parse(bytes) {
                Ok(shred) => match self.precheck(now, shred.header()) {
                    Ok(()) => {
                        senders.push(from);
                        shreds.push(shred);
                    }
                    Err(outcome) => self.conclude(from, outcome),
                },
                Err(error) => self.conclude(from, error.into()),
            }
        }
        if heard {
            self.note_heard(now);
        }
        for (from, hashed) in senders.into_iter().zip(HashedShred::batch(shreds)) {
            let outcome = self.handle_shred(now, from, hashed, false);
            self.conclude(from, outcome);
        }
    }

    pub(super) fn conclude(&mut self, from: PeerIndex, outcome: Outcome) {
        self.outcomes.count(outcome);
        let Some(state) = self.peers.get_mut(from as usize) else { return };
        // A peer whose greeting is still on its way may know a delegation that we don't: its
        // bad signatures are not evidence yet.
        let mut early = outcome == Outcome::BadSignature && !state.greeted;
        if early {
            state.early = state.early.saturating_add(1);
            early = state.early < MAX_EARLY;
        }
        if outcome.convicts_sender() && !early && !state.barred {
            state.barred = true;
            self.events.push_back(Event::Bar { peer: from, outcome });
        }
    }

    /// What can be refused before anything is hashed.
    fn precheck(&mut self, now: Timestamp, header: &SetHeader) -> Result<(), Outcome> {
        let (low, high) = self.window();
        let beyond = if header.block < low {
            Outcome::Past
        } else if header.block > high {
            Outcome::Future
        } else {
            return Ok(());
        };
        // What was sealed stays sealed: old shreds, sent again, move no window back.
        let back = beyond == Outcome::Past && self.sealed.is_some();
        if !back && now.since(self.progress_at) > self.config.reanchor {
            // Nothing of our window has come for long: perhaps it is we who are elsewhere.
            self.forget_window(now);
            return Ok(());
        }
        Err(beyond)
    }

    /// Takes a shred that came by itself, or one that came by repair, which is not forwarded.
    pub(super) fn handle_shred(
        &mut self,
        now: Timestamp,
        from: PeerIndex,
        hashed: HashedShred,
        repaired: bool,
    ) -> Outcome {
        let header = *hashed.shred().header();
        let Some(leader) = self.leader(header.block) else { return Outcome::UnknownLeader };
        let (key, peer) = (leader.key, leader.peer);
        let Some(leader) = self.members.index(&peer) else { return Outcome::UnknownLeader };
        if leader == self.me {
            return Outcome::Own;
        }
        let valid = match self.validator.validate(hashed, &key) {
            Ok(valid) => valid,
            Err(error) => {
                let outcome = (&error).into();
                if let ValidateError::Equivocation(proof) = error {
                    self.report(*proof, None);
                }
                return outcome;
            }
        };
        let live_from = (!repaired).then_some(from);
        let pushed = match live_from {
            Some(_) => self.reassembler.push(&valid),
            None => self.reassembler.push_repaired(&valid),
        };
        match pushed {
            Ok(Push::Stored) => {
                self.note_arrival(now, header.message_key());
                self.note_shred(now, &header, live_from);
                if !repaired {
                    self.forward(&valid, leader);
                }
                Outcome::Stored
            }
            Ok(Push::Duplicate) => Outcome::Duplicate,
            Ok(Push::Late) => Outcome::Late,
            Ok(Push::Complete { recovered, message }) => {
                self.note_arrival(now, header.message_key());
                self.note_shred(now, &header, live_from);
                if !repaired {
                    self.forward(&valid, leader);
                }
                match recovered {
                    Some(set) => {
                        self.counters.recovered += 1;
                        if !set.repaired {
                            self.send_owed(now, &set);
                        }
                        self.keep(now, set);
                    }
                    // The rest of a set that arrived whole is owed as well, but its message
                    // goes on first: handle_timeout re-encodes and sends.
                    None => self.checks_due = true,
                }
                if let Some(message) = message {
                    self.deliver(now, from, message);
                }
                self.note_complete(now, &header);
                Outcome::Completed
            }
            // Inconsistent parity: nobody is asked for more of it.
            Err(PushError::BadParity) => {
                self.note_refused(&header.message_key());
                Outcome::BadParity
            }
            Err(error) => error.into(),
        }
    }

    /// Remembers when a message began to arrive. An evicted message leaves its entry behind
    /// until the window passes, so the table has a bound of its own.
    fn note_arrival(&mut self, now: Timestamp, key: MessageKey) {
        self.arrivals.entry(key).or_insert(now);
        if self.arrivals.len() > MAX_ARRIVALS {
            self.arrivals.pop_last();
        }
    }

    fn deliver(&mut self, now: Timestamp, from: PeerIndex, message: Assembled) {
        let Assembled { header, wire, repaired, .. } = message;
        let key = header.message_key();
        let first_shred_at = self.arrivals.remove(&key).unwrap_or(now);
        let gateway = self.schedule.gateway(key.block);
        let verified =
            SignedMessage::from_wire(header.message_kind(), self.config.dialect, &wire.into())
                .map_err(|error| error.to_string())
                .and_then(|signed| {
                    if signed.message.block() != key.block {
                        return Err(format!("it is of block {}", signed.message.block()));
                    }
                    if signed.message.index() != Some(key.message) {
                        return Err(format!("its own index is {:?}", signed.message.index()));
                    }
                    signed.verify(gateway).map_err(|error| error.to_string())
                });
        match verified {
            Ok(message) => {
                self.counters.delivered += 1;
                self.counters.repaired += u64::from(repaired);
                self.advance(now, &key, header.message_kind());
                self.note_turbine(now, key, &message);
                self.events.push_back(Event::Message(Box::new(Delivered {
                    key,
                    message,
                    sent_at_micros: header.sent_at_micros,
                    first_shred_at,
                    complete_at: now,
                    from: Some(from),
                    via: if repaired { Via::Repair } else { Via::Turbine },
                })));
            }
            Err(reason) => {
                self.reassembler.refuse(&key);
                self.note_refused(&key);
                self.events.push_back(Event::BadMessage { key, reason });
            }
        }
    }

    fn forward(&mut self, shred: &ValidatedShred, leader: PeerIndex) {
        let header = *shred.header();
        let index = shred.shred().index();
        for to in self.hops(&header, &shred.root(), index, leader) {
            let lane = if index < header.k { Lane::Data } else { Lane::Coding };
            let payload = Payload::Shred(shred.shred().bytes().clone());
            self.counters.forwarded += u64::from(self.egress.push(Transmit { to, lane, payload }));
        }
    }

    /// Sends the shreds of a complete set that this node relays and has not received.
    pub(super) fn send_owed(&mut self, _now: Timestamp, set: &RecoveredSet) {
        let Some(leader) = self.leader(set.header.block).map(|leader| leader.peer) else { return };
        let Some(leader) = self.members.index(&leader) else { return };
        for index in set.missing() {
            let hops = self.hops(&set.header, &set.root, index, leader);
            if hops.is_empty() {
                continue;
            }
            let bytes = set.shred(index);
            let lane = if index < set.header.k { Lane::Data } else { Lane::Coding };
            for to in hops {
                let payload = Payload::Shred(bytes.clone());
                self.counters.owed += u64::from(self.egress.push(Transmit { to, lane, payload }));
            }
        }
    }

    /// To whom this node sends a shred; empty where it is no relay of it.
    fn hops(
        &mut self,
        header: &SetHeader,
        root: &[u8; 32],
        index: u8,
        leader: PeerIndex,
    ) -> Vec<PeerIndex> {
        let route = Route::from_wire(header.route, header.route_param);
        let plan = self.plans.get(&header.plan).cloned();
        let (Some(route), Some(plan)) = (route, plan) else {
            self.counters.unknown_plan += 1;
            return Vec::new();
        };
        let tree = Tree::new(&plan, route, leader, root, index);
        self.connected_children(&tree, self.me)
    }

    /// The children of `sender`, where a peer that is not connected is replaced by its own
    /// children: a dead relay costs one more hop's work and no shred, once it is known to be dead.
    pub(super) fn connected_children(
        &mut self,
        tree: &Tree<'_>,
        sender: PeerIndex,
    ) -> Vec<PeerIndex> {
        let mut out = Vec::new();
        tree.children(sender, &mut out);
        if out.iter().all(|peer| self.peers[*peer as usize].connected) {
            return out;
        }
        let mut reached = Vec::with_capacity(out.len());
        // Every member stands once in the tree, so this ends; it is bounded all the same.
        let mut budget = self.peers.len();
        while let Some(peer) = out.pop() {
            if self.peers[peer as usize].connected {
                reached.push(peer);
            } else if budget > 0 && peer != self.me {
                budget -= 1;
                let before = out.len();
                tree.children(peer, &mut out);
                self.counters.stepped_over += (out.len() - before) as u64;
            }
        }
        reached
    }

    /// Takes a control frame.
    pub fn handle_control(&mut self, now: Timestamp, from: PeerIndex, frame: &[u8]) {
        let outcome = if self.peers.get(from as usize).is_none_or(|peer| peer.barred) {
            Outcome::Barred
        } else {
            self.note_heard(now);
            match Control::from_bytes(frame) {
                Ok(control) => self.take_control(now, from, control),
                Err(ControlError::Unknown(_)) => Outcome::ControlUnknown,
                Err(ControlError::Decode(_)) => Outcome::ControlBad,
            }
        };
        self.conclude(from, outcome);
    }

    fn take_control(&mut self, now: Timestamp, from: PeerIndex, control: Control) -> Outcome {
        match control {
            Control::Tips(_)
            | Control::RepairRequest(_)
            | Control::RepairShreds(_)
            | Control::MessagePart(_)
                if self.mode() == Mode::Gossip =>
            {
                Outcome::Forced
            }
            Control::Hello(hello) => {
                self.peers[from as usize].greeted = true;
                if hello.chain_id != self.config.chain_id {
                    self.events.push_back(Event::Mismatch { peer: from, what: "chain id" });
                } else if hello.table != self.members.hash() {
                    self.events.push_back(Event::Mismatch { peer: from, what: "membership table" });
                }
                Outcome::Control
            }
            Control::Delegation(signed) => self.take_delegation(from, signed),
            Control::Plan(plan) => self.take_plan(&plan),
            Control::Tips(tips) => self.take_tips(now, from, &tips),
            Control::RepairRequest(request) => self.take_request(now, from, &request),
            Control::Listeners(told) => self.take_listeners(from, &told),
            Control::RepairShreds(answer) => self.take_repaired(now, from, answer),
            Control::MessagePart(part) => self.take_part(now, from, &part),
            Control::Evidence(evidence) => {
                let id = (evidence.proof.key, evidence.proof.first.header.message_key());
                if self.evidence.contains(&id) {
                    return Outcome::ControlStale;
                }
                match evidence.verify() {
                    Err(_) => Outcome::ControlBad,
                    Ok(gateway) if !self.schedule.gateways().contains(&gateway) => {
                        Outcome::ControlStale
                    }
                    Ok(_) if self.take_evidence(*evidence, Some(from)) => Outcome::Control,
                    Ok(_) => Outcome::ControlStale,
                }
            }
        }
    }

    fn take_delegation(&mut self, from: PeerIndex, signed: SignedDelegation) -> Outcome {
        match self.delegations.insert(signed) {
            Ok(_) => {
                self.insert_learnt_plan_of(signed.delegation.key);
                self.send_control_to_all(&Control::Delegation(signed), Some(from));
                Outcome::Control
            }
            // A gateway that we do not know may be known to the sender: its schedule is newer.
            Err(DelegationError::Stale | DelegationError::NotAGateway(_)) => Outcome::ControlStale,
            Err(_) => Outcome::ControlBad,
        }
    }

    fn insert_learnt_plan_of(&mut self, key: [u8; 32]) {
        let plan = crate::plan::Plan::configured(self.config.chain_id, key, &self.members);
        if let Ok(view) = PlanView::new(&plan, &self.members) {
            self.learn(view);
        }
    }

    fn take_plan(&mut self, signed: &SignedPlan) -> Outcome {
        let known = self.delegations.iter().any(|l| l.signed.delegation.key == signed.plan.leader);
        if !known || signed.plan.chain_id != self.config.chain_id {
            return Outcome::ControlStale;
        }
        if self.plans.contains_key(&signed.plan.id()) {
            return Outcome::ControlStale;
        }
        if !signed.verify() {
            return Outcome::ControlBad;
        }
        match PlanView::new(&signed.plan, &self.members) {
            Ok(view) => {
                self.learn(view);
                Outcome::Control
            }
            // It refers to a table that we do not have: nothing to be done, and no lie.
            Err(_) => Outcome::ControlStale,
        }
    }

    fn learn(&mut self, view: PlanView) {
        if self.plans.contains_key(&view.id()) {
            return;
        }
        if self.learnt_plans.len() >= MAX_PLANS
            && let Some(oldest) = self.learnt_plans.pop_front()
        {
            self.plans.remove(&oldest);
        }
        self.learnt_plans.push_back(view.id());
        self.plans.insert(view.id(), view.into());
    }
}
