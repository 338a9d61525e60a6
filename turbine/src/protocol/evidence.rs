//! Proofs of equivocation: each kept once, reported, and spread.

use std::collections::BTreeSet;

use fragcast_shredder::MessageKey;
use fragcast_shredder::equivocation::EquivocationProof;

use super::ctx::Ctx;
use super::event::Event;
use crate::control::{Control, Evidence};
use crate::egress::Lane;
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
        ctx.send_control_to_all(Lane::Bulk, &Control::Evidence(evidence.clone()), from);
        ctx.events.push_back(Event::Equivocation { gateway, evidence });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::config::Config;
    use crate::protocol::ctx::testing::{ctx, sent};
    use crate::protocol::tests::{CHAIN, World, cut, frag, hashed, peer};

    /// Two messages in one place.
    fn proof(world: &World) -> EquivocationProof {
        let key = world.leader_keys[0].verifying_key();
        let mut validator = fragcast_shredder::Validator::new(CHAIN, 10);
        let first = |len| hashed(&cut(world, &world.sign(frag(1, 0, len)), 0)).remove(0);
        validator.validate(first(900), &key).unwrap();
        match validator.validate(first(800), &key) {
            Err(fragcast_shredder::ValidateError::Equivocation(proof)) => *proof,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_kept_once_and_told_to_all_but_who_told() {
        let world = World::new(&[1; 4], 1);
        let mut ctx = ctx(&world, 3, Config::new(CHAIN));
        let mut book = EvidenceBook::default();
        book.report(&mut ctx, proof(&world));
        book.report(&mut ctx, proof(&world));
        assert!(matches!(ctx.events.pop_front(), Some(Event::Equivocation { .. })));
        assert!(ctx.events.is_empty());
        assert_eq!(sent(&mut ctx).len(), 3);
        let evidence = Evidence { delegation: world.delegations[0], proof: proof(&world) };
        let told = |book: &mut EvidenceBook, ctx: &mut Ctx, evidence: &Evidence| {
            book.told(ctx, peer(1), evidence.clone())
        };
        assert_eq!(told(&mut book, &mut ctx, &evidence), Outcome::ControlStale);
        let mut other = EvidenceBook::default();
        assert_eq!(told(&mut other, &mut ctx, &evidence), Outcome::Control);
        let to: Vec<PeerKey> = sent(&mut ctx).iter().map(|transmit| transmit.to).collect();
        assert_eq!(to, [0, 2].map(peer));
        let mut lie = evidence.clone();
        lie.proof.first.header.block = 2;
        assert_eq!(told(&mut other, &mut ctx, &lie), Outcome::ControlBad);
        // Of a gateway that is none of ours.
        let stranger = fragcast_shredder::GatewayKey::from_bytes([99; 32]).unwrap();
        let foreign = evidence.delegation.delegation.sign(&stranger);
        let foreign = Evidence { delegation: foreign, ..evidence };
        let mut fresh = EvidenceBook::default();
        assert_eq!(told(&mut fresh, &mut ctx, &foreign), Outcome::ControlStale);
    }
}
