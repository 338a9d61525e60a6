//! Control frames: what each of them is for.

use bytes::Bytes;
use fragcast_shredder::{Kind, MessageKey};

use super::{Parts, here};
use crate::control::{BlocksEnd, Control, ControlError, Difference, Hello, RepairShreds, Terms};
use crate::delegation::{DelegationError, SignedDelegation};
use crate::egress::{Lane, Payload, Transmit};
use crate::gossip::Mode;
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::plan::{PlanView, SignedExclusions, SignedPlan};
use crate::protocol::catchup::BlockStep;
use crate::protocol::connecting;
use crate::protocol::epochs::Living;
use crate::protocol::event::Event;
use crate::protocol::plans::Masked;
use crate::protocol::receipts::table_of;
use crate::protocol::repair::PartStep;

/// What a frame was taken for, and the work that it was, if it was for nothing.
struct Taken {
    outcome: Outcome,
    micros: u64,
}

/// Microseconds of work, about: any frame, a signature of ed25519, a recovery on secp256k1.
const FRAME: u64 = 2;
const VERIFY: u64 = 50;
const RECOVER: u64 = 45;
/// What an answer with a plan is charged as: with [`PLAN_BYTES`] a microsecond a peer gets ten
/// plans of a thousand members a second, and a hundred at once.
const PLAN_ANSWER: u64 = 900;
const PLAN_BYTES: usize = 40;
/// Bytes that are read, copied and hashed in a microsecond.
const BYTES: usize = 500;

impl Parts {
    /// Takes a control frame.
    pub(in crate::protocol) fn control(&mut self, from: PeerKey, frame: &[u8]) {
        let now = self.ctx.now;
        if self.ctx.peers.is_refused(from) {
            self.ctx.outcomes.count(Outcome::Barred);
            return;
        }
        if self.ctx.peers.is_spent(now, from) {
            self.ctx.outcomes.count(Outcome::OverBudget);
            if self.ctx.peers.strike(now, from) {
                self.ctx.bar(from, Outcome::OverBudget);
            }
            return;
        }
        if self.passes_over(from, frame, FRAME) {
            self.ctx.outcomes.count(Outcome::Guest);
            return;
        }
        if !self.ctx.peers.is_guest(from) {
            self.fallback.note_heard(&mut self.ctx);
        }
        let taken = match Control::from_bytes(frame) {
            Ok(control) => self.take_control(from, control),
            Err(ControlError::Unknown(_)) => Taken { outcome: Outcome::ControlUnknown, micros: 0 },
            Err(ControlError::Decode(_)) => Taken { outcome: Outcome::ControlBad, micros: 0 },
        };
        let useful = taken.outcome == Outcome::Control && taken.micros == 0;
        if !useful {
            let read = FRAME + (frame.len() / BYTES) as u64;
            self.ctx.peers.charge(now, from, read + taken.micros);
        }
        self.ctx.conclude(from, taken.outcome);
    }

    /// What becomes of a frame.
    fn take_control(&mut self, from: PeerKey, control: Control) -> Taken {
        let is_guest = self.ctx.peers.is_guest(from);
        let ctx = &mut self.ctx;
        let (outcome, micros) = match control {
            Control::Tips(_)
            | Control::RepairRequest(_)
            | Control::RepairShreds(_)
            | Control::MessagePart(_)
            | Control::BlocksRequest(_)
            | Control::BlockPart(_)
            | Control::BlocksEnd(_)
                if ctx.mode == Mode::Gossip =>
            {
                (Outcome::Forced, 0)
            }
            // Its frames may be read after its connection has ended: nobody is there for an answer.
            Control::RepairRequest(_) | Control::BlocksRequest(_)
                if !ctx.peers.is_connected(from) =>
            {
                (Outcome::RepairRefused, 0)
            }
            // Said once a connection, and again when something changes: nothing that is free.
            // What a guest goes by is its own affair, but for its dialect.
            Control::Hello(_) if is_guest => (Outcome::Control, FRAME),
            Control::Terms(terms) if is_guest => {
                ctx.peers.speaks(from, terms.dialect);
                (Outcome::Control, 2 * FRAME)
            }
            Control::Hello(hello) => (self.greeted(from, &hello), FRAME),
            Control::Terms(terms) => (self.take_terms(from, &terms), 2 * FRAME),
            Control::Delegation(signed) => self.take_delegation(from, signed),
            Control::Plan(plan) => self.take_plan(from, &plan),
            Control::PlanRequest(id) => self.answer_with_plan(from, id),
            Control::PlanAck(id) => {
                let known = self.leading.as_mut().is_some_and(|l| l.acknowledged(ctx, from, id));
                let has = |living: &Living| living.plans.get(id).is_some();
                if !known && connecting::is_bounded(ctx) && !ctx.epochs.iter().any(has) {
                    self.missing_plans.offered(ctx, from, id);
                }
                (if known { Outcome::Control } else { Outcome::ControlStale }, FRAME)
            }
            Control::Tips(tips) => {
                let micros = tips.tips.len() as u64;
                self.attaching.note_tips(ctx, from, &tips);
                if self.ctx.config.repair.enabled {
                    self.hear_tips(from, &tips);
                }
                (self.repair.take_tips(&self.ctx, here!(self), from, &tips), micros)
            }
            Control::RepairRequest(request) => {
                (self.repair.take_request(ctx, self.fallback.recent(), from, &request), 0)
            }
            Control::Listeners(told) => {
                let micros = told.ids.len() as u64;
                (self.fallback.take_listeners(from, &told), micros)
            }
            // What was asked for is paid for by the rates of those who ask, and of what cannot be
            // checked.
            Control::RepairShreds(answer) => (self.take_answer(from, answer), 0),
            Control::MessagePart(part) => match self.repair.take_part(ctx, from, &part) {
                PartStep::Done(outcome) => (outcome, 0),
                PartStep::Whole(key, kind, wire) => {
                    let hashed = (wire.len() / BYTES) as u64;
                    let outcome = self.take_whole_answer(from, key, kind, &wire.into());
                    if outcome != Outcome::Control {
                        self.repair.distrust(&self.ctx, from, &key);
                    }
                    (outcome, if outcome == Outcome::Control { 0 } else { RECOVER + hashed })
                }
            },
            Control::BlocksRequest(request) => {
                // Paid for by budgets of its own.
                (self.serving.answer(ctx, &self.archive, from, &request), 0)
            }
            Control::BlockPart(part) => match self.catch_up.take_part(ctx.now, from, &part) {
                BlockStep::Done(outcome) => (outcome, 0),
                BlockStep::Whole(key, kind, wire) => {
                    let hashed = (wire.len() / BYTES) as u64;
                    let outcome = self.caught_up((from, part.nonce), key, kind, &wire.into());
                    (outcome, if outcome == Outcome::Control { 0 } else { RECOVER + hashed })
                }
            },
            Control::BlocksEnd(end) if end.nonce == BlocksEnd::GREETING => {
                self.catch_up.told(ctx, from, (end.first, end.last));
                (Outcome::Control, FRAME)
            }
            Control::BlocksEnd(end) => {
                let outcome = self.catch_up.take_end(ctx.now, from, &end);
                self.catch_up();
                (outcome, 0)
            }
            Control::Delays(signed) => {
                let leads = self.leading.is_some();
                let (outcome, signatures) = self.delays.take(ctx, from, leads, &signed);
                (outcome, if outcome == Outcome::Control { 0 } else { signatures * VERIFY })
            }
            Control::Receipt(receipt) => {
                let leads = self.leading.is_some();
                let table = table_of(ctx, receipt.block);
                let delays = self.delays.of(&table).map(|(matrix, _)| &**matrix);
                let outcome = match leads {
                    true => self.receipts.take(ctx, from, &receipt, delays),
                    false => Outcome::ReceiptUnwanted,
                };
                (outcome, 0)
            }
            Control::Exclusions(signed) => self.take_exclusions(&signed),
            Control::AckRequest(request) => (self.hand_over.requested(ctx, from, request), FRAME),
            Control::MessageAck(ack) => (self.hand_over.acknowledged(ctx, from, ack), 0),
            Control::Attach(wants) => (self.attach(from, wants), FRAME),
            Control::Attached(granted) => (self.attaching.granted(ctx, from, granted), FRAME),
            Control::RecordsPull(_)
            | Control::Records(_)
            | Control::TableRequest(_)
            | Control::TablePart(_)
                if !ctx.config.members.live =>
            {
                (Outcome::MembersOff, FRAME)
            }
            Control::RecordsPull(pull) => (self.records.answer(ctx, from, &pull), FRAME),
            // What was asked for is paid for by how seldom it is asked for.
            Control::Records(told) => {
                let weights = self.tables.weights.as_deref();
                (self.records.take(ctx, weights, from, told), 0)
            }
            Control::TableNotice(signed) => self.take_notice(from, &signed, VERIFY),
            // Paid for by budgets of its own.
            Control::TableRequest(asked) => (self.tables.answer(ctx, from, &asked), 0),
            Control::TablePart(part) => (self.take_table_part(from, part), 0),
            Control::Evidence(evidence) => {
                let told = self.evidence.told(ctx, from, *evidence);
                let useful = told.outcome == Outcome::Control;
                (told.outcome, if useful { 0 } else { told.signatures * VERIFY })
            }
        };
        Taken { outcome, micros }
    }

    fn greeted(&mut self, from: PeerKey, hello: &Hello) -> Outcome {
        let before = self.ctx.peers.table_of(from);
        let changed = self.ctx.peers.greet(from, hello.table);
        if before != Some(hello.table) {
            self.tables.is_at(&mut self.ctx, from, &hello.table);
        }
        if self.ctx.peers.foreign(from, hello.chain_id != self.ctx.config.chain_id) {
            let (ours, theirs) = (self.ctx.config.chain_id, hello.chain_id);
            let differences = vec![Difference::ChainId { ours, theirs }];
            self.ctx.events.push_back(Event::Terms { peer: from, differences });
        } else if changed && self.ctx.peers.is_connected(from) {
            // What it could not use before.
            let plans = self.leading.iter().flat_map(|leading| leading.frames(Some(hello.table)));
            plans.for_each(|plan| self.ctx.send_control(from, plan));
        }
        Outcome::Control
    }

    /// A peer says what it goes by. It is told to the application only when it is another thing
    /// than the last time, so a peer that repeats itself has its budget for it and no line.
    fn take_terms(&mut self, from: PeerKey, theirs: &Terms) -> Outcome {
        self.ctx.peers.speaks(from, theirs.dialect);
        self.ctx.peers.goes_by(from, theirs.from_block, theirs.rotation);
        let differences = self.terms().differences(theirs);
        if self.ctx.peers.agree(from, &differences) {
            self.ctx.events.push_back(Event::Terms { peer: from, differences });
        }
        Outcome::Control
    }

    fn take_delegation(&mut self, from: PeerKey, signed: SignedDelegation) -> (Outcome, u64) {
        if self.ctx.epochs.knows(&signed) {
            return (Outcome::ControlStale, 0);
        }
        // A guest may bring one that proves itself, and fills no table with those that do not yet.
        if self.ctx.peers.is_guest(from) {
            let gateway = signed.gateway();
            if !gateway.is_ok_and(|gateway| self.ctx.epochs.view().is_gateway(&gateway)) {
                return (Outcome::ControlStale, RECOVER);
            }
        }
        match self.learn_delegation(Some(from), signed) {
            Ok(()) => (Outcome::Control, 0),
            // A gateway that we do not know may be known to the sender, whose schedule is another
            // one, and to us later: it is kept for then. Of another chain nothing is known here.
            Err(DelegationError::Chain { .. }) => (Outcome::ControlStale, 0),
            Err(
                DelegationError::Stale | DelegationError::TooMany | DelegationError::NotAGateway(_),
            ) => (Outcome::ControlStale, RECOVER),
            Err(_) => (Outcome::ControlBad, RECOVER),
        }
    }

    /// Takes a delegation and passes it on; `from`: the peer who sent it, if one did.
    pub(in crate::protocol) fn learn_delegation(
        &mut self,
        from: Option<PeerKey>,
        signed: SignedDelegation,
    ) -> Result<(), DelegationError> {
        self.ctx.epochs.learn(self.ctx.now, from.unwrap_or(self.ctx.me()), signed)?;
        self.delivery.follow_leaders(&self.ctx);
        // Before the shreds that it explains.
        self.ctx.send_control_to_everybody(Lane::Data, &Control::Delegation(signed), from);
        if let Some(two) = self.ctx.epochs.delegated_twice(&signed) {
            let (gateway, delegations) = (two[0].gateway, two.map(|leader| leader.signed));
            let delegations = Box::new(delegations);
            self.ctx.events.push_back(Event::DelegatedTwice { gateway, delegations });
        }
        Ok(())
    }

    fn take_plan(&mut self, from: PeerKey, signed: &SignedPlan) -> (Outcome, u64) {
        let epochs = &mut self.ctx.epochs;
        let plan = &signed.plan;
        let leader = epochs.leader_of_key(&plan.leader);
        let Some((gateway, leader)) = leader.map(|leader| (leader.gateway, leader.peer)) else {
            return (Outcome::ControlStale, 0);
        };
        if plan.chain_id != self.ctx.config.chain_id || epochs.of_table(plan.table).next().is_none()
        {
            return (Outcome::ControlStale, 0);
        }
        let leader = self.ctx.peers.table().key(&leader);
        let leader = leader.filter(|leader| self.ctx.peers.is_connected(*leader));
        let id = plan.id();
        let ack = Control::PlanAck(id);
        if epochs.of_table(plan.table).any(|living| living.plans.get(id).is_some()) {
            // A leader that was restarted does not know any more who has it. That everybody has what
            // configuration gives is no news.
            if leader == Some(from) && plan.version > 0 {
                self.ctx.send_control(from, &ack);
            }
            return (Outcome::ControlStale, 0);
        }
        if !signed.verify() {
            return (Outcome::ControlBad, VERIFY);
        }
        let (mut taken, mut known) = (false, None);
        let (views, frame) = (epochs.views().clone(), Control::Plan(signed.clone()).to_bytes());
        for living in epochs.of_table(plan.table) {
            if known.is_none() {
                let make = || PlanView::new(plan, living.epoch().members());
                known = views.of(frame.clone(), make).ok();
            }
            // Otherwise it refers to a table that we do not have, and is no lie.
            let Some((view, frame)) = known.clone() else { break };
            taken |= living.plans.learn(gateway, (plan.leader, plan.version), view, frame);
        }
        if taken {
            if let Some(leader) = leader.filter(|_| plan.version > 0) {
                self.ctx.send_control(leader, &ack);
            }
            if plan.version > 0 && connecting::is_bounded(&self.ctx) {
                // Its leader reaches some only: others hear of it from their neighbours.
                self.ctx.send_control_to_all(Lane::Bulk, &ack, leader);
            }
            for (shred, leader) in self.missing_plans.learnt(self.ctx.now, id) {
                self.relaying.forward(&mut self.ctx, &shred, leader);
            }
        }
        // Paid for even if it is new: its leader can sign new ones without end.
        (if taken { Outcome::Control } else { Outcome::ControlStale }, VERIFY)
    }

    /// Answers a peer that lacks a plan.
    fn answer_with_plan(&mut self, from: PeerKey, id: u64) -> (Outcome, u64) {
        if !self.ctx.peers.is_connected(from) {
            return (Outcome::RepairRefused, 0);
        }
        let mut living = self.ctx.epochs.iter();
        let frames = living.find_map(|living| {
            let frames: Vec<Bytes> = living.plans.frames(id).cloned().collect();
            Some(frames).filter(|frames| !frames.is_empty())
        });
        let Some(frames) = frames else { return (Outcome::RepairRefused, FRAME) };
        // A long answer to a short question: a peer has a few a second.
        let len: usize = frames.iter().map(Bytes::len).sum();
        let cost = PLAN_ANSWER + (len / PLAN_BYTES) as u64;
        let mut sent = true;
        for frame in frames {
            let payload = Payload::Control(frame);
            sent &= self.ctx.egress.push(Transmit { to: from, lane: Lane::Repair, payload });
        }
        self.ctx.counters.plans_answered += u64::from(sent);
        (Outcome::Control, cost)
    }

    /// Takes a mask over a plan that is known: shreds may name the plan under it from now on.
    fn take_exclusions(&mut self, signed: &SignedExclusions) -> (Outcome, u64) {
        let (chain_id, mask) = (self.ctx.config.chain_id, &signed.exclusions);
        if mask.chain_id != chain_id || self.ctx.epochs.leader_of_key(&mask.leader).is_none() {
            return (Outcome::ControlStale, 0);
        }
        let id = mask.id();
        let frame = Control::Exclusions(Box::new(signed.clone())).to_bytes();
        let views = self.ctx.epochs.views().clone();
        let mut verified = false;
        let mut outcome = Outcome::ControlStale;
        for living in self.ctx.epochs.iter_mut() {
            let Some(base) = living.plans.unmasked(mask.plan, &mask.leader).cloned() else {
                continue;
            };
            if !living.plans.wants_masked(id, &mask.leader, mask.sequence) {
                continue;
            }
            let members = living.epoch().members().clone();
            if !mask.fits(members.len()) || !(verified || signed.verify()) {
                return (Outcome::ControlBad, VERIFY);
            }
            verified = true;
            if let Ok((view, frame)) = views.of(frame.clone(), || mask.apply(&base, &members)) {
                living.plans.learn_masked(Masked {
                    leader: mask.leader,
                    sequence: mask.sequence,
                    base: mask.plan,
                    view,
                    frame,
                });
                outcome = Outcome::Control;
            }
        }
        if outcome == Outcome::Control {
            for (shred, leader) in self.missing_plans.learnt(self.ctx.now, id) {
                self.relaying.forward(&mut self.ctx, &shred, leader);
            }
        }
        // Paid for even if it is new, as a plan.
        (outcome, if verified { VERIFY } else { 0 })
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
        match self.fallback.answered(&mut self.ctx, from, key, kind, wire) {
            Ok(message) => {
                self.whole(key, message, Some(from));
                Outcome::Control
            }
            Err(outcome) => outcome,
        }
    }
}
