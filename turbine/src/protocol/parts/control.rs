//! Control frames: what each of them is for.

use fragcast_shredder::{Kind, MessageKey};

use super::{Parts, here};
use crate::control::{Control, ControlError, Difference, Hello, RepairShreds, Terms};
use crate::delegation::{DelegationError, SignedDelegation};
use crate::egress::Lane;
use crate::gossip::Mode;
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::plan::{PlanView, SignedPlan};
use crate::protocol::epochs::Living;
use crate::protocol::event::Event;
use crate::protocol::peers::Doubt;
use crate::protocol::repair::PartStep;

impl Parts {
    /// Takes a control frame.
    pub(in crate::protocol) fn control(&mut self, from: PeerKey, frame: &[u8]) {
        if self.ctx.peers.is_refused(from) {
            self.ctx.outcomes.count(Outcome::Barred);
            return;
        }
        self.fallback.note_heard(&mut self.ctx);
        let (outcome, doubt) = match Control::from_bytes(frame) {
            Ok(control) => self.take_control(from, control),
            Err(ControlError::Unknown(_)) => (Outcome::ControlUnknown, Doubt::default()),
            Err(ControlError::Decode(_)) => (Outcome::ControlBad, Doubt::default()),
        };
        self.ctx.conclude(from, outcome, doubt);
    }

    /// What becomes of a frame, and why that may be nobody's fault.
    fn take_control(&mut self, from: PeerKey, control: Control) -> (Outcome, Doubt) {
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
            Control::Terms(terms) => self.take_terms(from, &terms),
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
                    return (outcome, self.ctx.doubt(key.block, None));
                }
            },
            Control::Evidence(evidence) => self.evidence.told(ctx, from, *evidence),
        };
        (outcome, Doubt::default())
    }

    fn greeted(&mut self, from: PeerKey, hello: &Hello) -> Outcome {
        let changed = self.ctx.peers.greet(from, hello.table);
        if self.ctx.peers.foreign(from, hello.chain_id != self.ctx.config.chain_id) {
            let (ours, theirs) = (self.ctx.config.chain_id, hello.chain_id);
            let differences = vec![Difference::ChainId { ours, theirs }];
            self.ctx.events.push_back(Event::Terms { peer: from, differences });
        } else if changed {
            // What it could not use before.
            let plans = self.leading.iter().flat_map(|leading| leading.frames(Some(hello.table)));
            plans.for_each(|plan| self.ctx.send_control(from, plan));
        }
        Outcome::Control
    }

    /// A peer says what it goes by. It is told to the application only when it is another thing
    /// than the last time, so a peer that repeats itself costs nothing.
    fn take_terms(&mut self, from: PeerKey, theirs: &Terms) -> Outcome {
        let differences = self.terms().differences(theirs);
        if self.ctx.peers.agree(from, &differences) {
            self.ctx.events.push_back(Event::Terms { peer: from, differences });
        }
        Outcome::Control
    }

    fn take_delegation(&mut self, from: PeerKey, signed: SignedDelegation) -> Outcome {
        match self.ctx.epochs.learn(signed) {
            Ok(()) => {
                self.ctx.send_control_to_all(Lane::Bulk, &Control::Delegation(signed), Some(from));
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
        let known = |living: &&mut Living| living.plans.get(id).is_some();
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
}
