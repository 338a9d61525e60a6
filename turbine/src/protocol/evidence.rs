//! Proofs of equivocation: each kept once, reported, and spread.

use std::collections::BTreeSet;

use fragcast_shredder::MessageKey;
use fragcast_shredder::equivocation::EquivocationProof;

use super::ctx::Ctx;
use super::event::Event;
use crate::control::{Control, Evidence};
use crate::outcome::Outcome;
use crate::peer::PeerKey;

/// Equivocations that are remembered, 64 bytes each.
const MAX_EVIDENCE: usize = 1024;

/// Key and message of an equivocation.
type Id = ([u8; 32], MessageKey);

fn id_of(evidence: &Evidence) -> Id {
    (evidence.proof.key, evidence.proof.first.header.message_key())
}

/// The equivocations that are known.
#[derive(Debug, Default)]
pub(super) struct EvidenceBook {
    known: BTreeSet<Id>,
}

impl EvidenceBook {
    /// This node has proof of its own.
    pub(super) fn report(&mut self, ctx: &mut Ctx, proof: EquivocationProof) {
        let delegation = ctx.epochs.leader_of_key(&proof.key).map(|leader| leader.signed);
        if let Some(delegation) = delegation {
            self.take(ctx, Evidence { delegation, proof }, None);
        }
    }

    /// A peer has sent some.
    pub(super) fn told(&mut self, ctx: &mut Ctx, from: PeerKey, evidence: Evidence) -> Outcome {
        if self.known.contains(&id_of(&evidence)) {
            return Outcome::ControlStale;
        }
        match evidence.verify() {
            Err(_) => Outcome::ControlBad,
            Ok(gateway) if !ctx.epochs.view().is_gateway(&gateway) => Outcome::ControlStale,
            Ok(_) if self.take(ctx, evidence, Some(from)) => Outcome::Control,
            Ok(_) => Outcome::ControlStale,
        }
    }

    /// Keeps, reports and spreads evidence that was verified. Says whether it was new.
    fn take(&mut self, ctx: &mut Ctx, evidence: Evidence, from: Option<PeerKey>) -> bool {
        if self.known.len() >= MAX_EVIDENCE || !self.known.insert(id_of(&evidence)) {
            return false;
        }
        let Ok(gateway) = evidence.delegation.gateway() else { return false };
        let evidence = Box::new(evidence);
        ctx.send_control_to_all(&Control::Evidence(evidence.clone()), from);
        ctx.events.push_back(Event::Equivocation { gateway, evidence });
        true
    }
}
