//! Proofs of equivocation: each kept once, reported, and spread.
//!
//! Of blocks that are being built alone, and [`MAX_OF_GATEWAY`] of a gateway: it is convicted by
//! the first, and what it signs without end must neither keep the others' from being known nor
//! travel through the network for ever.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::Address;
use fragcast_shredder::MessageKey;
use fragcast_shredder::equivocation::EquivocationProof;

use super::ctx::Ctx;
use super::event::Event;
use crate::control::{Control, Evidence};
use crate::egress::Lane;
use crate::outcome::Outcome;
use crate::peer::PeerKey;

/// Equivocations of one gateway that are remembered, 64 bytes each.
const MAX_OF_GATEWAY: usize = 64;

/// Key and message of an equivocation.
type Id = ([u8; 32], MessageKey);

fn id_of(evidence: &Evidence) -> Id {
    (evidence.proof.key, evidence.proof.first.header.message_key())
}

/// The equivocations that are known.
#[derive(Debug, Default)]
pub(super) struct EvidenceBook {
    known: BTreeMap<Address, BTreeSet<Id>>,
}

impl EvidenceBook {
    /// This node has proof of its own. Says whether it is new.
    ///
    /// It is told under the delegation that counts for the attempt. Others may name the key as well,
    /// for other blocks or by another gateway: under those it would convict whoever tells it.
    pub(super) fn report(&mut self, ctx: &mut Ctx, proof: EquivocationProof) -> bool {
        let leader = ctx.leader_of(&proof.first.header.message_key());
        let leader = leader.filter(|leader| leader.signed.delegation.key == proof.key);
        let leader = leader.map(|leader| (leader.gateway, leader.signed));
        leader.filter(|(gateway, _)| self.has_room(gateway)).is_some_and(|(gateway, delegation)| {
            self.take(ctx, gateway, Evidence { delegation, proof }, None)
        })
    }

    /// A peer has sent some. The cheap questions come first, and a signature is looked at only if
    /// what it proves would be new.
    pub(super) fn told(&mut self, ctx: &mut Ctx, from: PeerKey, evidence: Evidence) -> Told {
        let (proof, delegation) = (&evidence.proof, &evidence.delegation);
        let (low, high) = ctx.window.bounds();
        let block = proof.first.header.block;
        let stale = Told { outcome: Outcome::ControlStale, signatures: 0 };
        if proof.chain_id != ctx.config.chain_id || !(low..=high).contains(&block) {
            return stale;
        }
        let (gateway, signatures) = match ctx.epochs.leader_of(delegation) {
            // Its signature has been checked already.
            Some(leader) => (Ok(leader.gateway), 2),
            None => (delegation.gateway(), 3),
        };
        let Ok(gateway) = gateway else {
            return Told { outcome: Outcome::ControlBad, signatures: 1 };
        };
        let known = self.known.get(&gateway).is_some_and(|known| known.contains(&id_of(&evidence)));
        if known || !ctx.epochs.view().is_gateway(&gateway) || !self.has_room(&gateway) {
            return Told { outcome: Outcome::ControlStale, signatures: signatures - 2 };
        }
        let outcome = match evidence.verify() {
            Err(_) => Outcome::ControlBad,
            Ok(gateway) => {
                self.take(ctx, gateway, evidence, Some(from));
                Outcome::Control
            }
        };
        Told { outcome, signatures }
    }

    fn has_room(&self, gateway: &Address) -> bool {
        self.known.get(gateway).is_none_or(|known| known.len() < MAX_OF_GATEWAY)
    }

    /// Forgets what is about blocks below `low`.
    pub(super) fn forget_below(&mut self, low: u64) {
        self.known.retain(|_, known| {
            known.retain(|(_, message)| message.block >= low);
            !known.is_empty()
        });
    }

    /// Keeps, reports and spreads evidence that was verified, if it is new. Says whether it is.
    fn take(
        &mut self,
        ctx: &mut Ctx,
        gateway: Address,
        evidence: Evidence,
        from: Option<PeerKey>,
    ) -> bool {
        if !self.known.entry(gateway).or_default().insert(id_of(&evidence)) {
            return false;
        }
        let evidence = Box::new(evidence);
        ctx.send_control_to_all(Lane::Bulk, &Control::Evidence(evidence.clone()), from);
        ctx.events.push_back(Event::Equivocation { gateway, evidence });
        true
    }
}

/// What became of evidence that a peer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) outcome: Outcome,
    /// Signatures that were checked for it.
    pub(super) signatures: u64,
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
            book.told(ctx, peer(1), evidence.clone()).outcome
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
        let foreign = Evidence { delegation: foreign, ..evidence.clone() };
        let mut fresh = EvidenceBook::default();
        assert_eq!(told(&mut fresh, &mut ctx, &foreign), Outcome::ControlStale);
        // Of a block that is long past, and of another chain: before any signature.
        ctx.window.move_to(ctx.now, 1_000);
        let mut old = fresh.told(&mut ctx, peer(1), evidence.clone());
        let nothing = Told { outcome: Outcome::ControlStale, signatures: 0 };
        assert_eq!(old, nothing);
        let mut elsewhere = evidence;
        elsewhere.proof.chain_id += 1;
        old = fresh.told(&mut ctx, peer(1), elsewhere);
        assert_eq!(old, nothing);
    }

    #[test]
    fn one_gateway_fills_its_own_share_and_what_is_past_makes_room() {
        let world = World::new(&[1; 4], 2);
        let mut ctx = ctx(&world, 3, Config::new(CHAIN));
        let mut book = EvidenceBook::default();
        let mut tell = |book: &mut EvidenceBook, block: u64| {
            let gateway = world.gateway(block);
            let key = world.leader_keys[gateway].verifying_key();
            let mut validator = fragcast_shredder::Validator::new(CHAIN, 10);
            let mut first = |len| {
                let cut = cut(&world, &world.sign(frag(block, 0, len)), 0);
                validator.validate(hashed(&cut).remove(0), &key)
            };
            first(900).unwrap();
            let Err(fragcast_shredder::ValidateError::Equivocation(proof)) = first(800) else {
                panic!("two lengths")
            };
            let evidence = Evidence { delegation: world.delegations[gateway], proof: *proof };
            book.told(&mut ctx, peer(1), evidence)
        };
        // Terms of ten blocks: these are all gateway 0's.
        let blocks = (0..2_000).filter(|block| world.gateway(*block) == 0);
        let outcomes: Vec<Told> = blocks.take(80).map(|block| tell(&mut book, block)).collect();
        let taken = outcomes.iter().filter(|told| told.outcome == Outcome::Control).count();
        assert_eq!((taken, outcomes[79].signatures), (MAX_OF_GATEWAY, 0));
        assert_eq!(tell(&mut book, 15).outcome, Outcome::Control, "gateway 1 has room");
        book.forget_below(500);
        assert_eq!(tell(&mut book, 2_000).outcome, Outcome::Control);
    }
}
