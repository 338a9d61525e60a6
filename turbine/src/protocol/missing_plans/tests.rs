use fragcast_shredder::{Validator, VerifiedMessage};

use super::*;
use crate::egress::Payload;
use crate::protocol::config::Config;
use crate::protocol::ctx::testing::{ctx, sent};
use crate::protocol::tests::{CHAIN, World, cut, frag, hashed, peer};

/// The first shreds of messages of block 1, whose leader is member 0.
fn shreds(world: &World, count: u64) -> Vec<ValidatedShred> {
    let key = world.leader_keys[0].verifying_key();
    let mut validator = Validator::new(CHAIN, 1_000);
    let message = |seq| -> VerifiedMessage { world.sign(frag(1, seq, 900)) };
    let first = |seq| hashed(&cut(world, &message(seq), 0)).remove(0);
    (0..count).map(|seq| validator.validate(first(seq), &key).unwrap()).collect()
}

/// Whom the node asks, and for which plan.
fn asked(ctx: &mut Ctx) -> Vec<(PeerKey, u64)> {
    let requests = sent(ctx).into_iter().filter_map(|transmit| match transmit.payload {
        Payload::Control(frame) => match Control::from_bytes(&frame) {
            Ok(Control::PlanRequest(id)) => Some((transmit.to, id)),
            _ => None,
        },
        Payload::Shred(_) => None,
    });
    requests.collect()
}

#[test]
fn a_plan_is_asked_for_of_who_relays_by_it_and_of_the_leader_in_turns() {
    let world = World::new(&[1; 6], 1);
    let mut ctx = ctx(&world, 3, Config::new(CHAIN));
    let mut missing = MissingPlans::default();
    let shreds = shreds(&world, 8);
    let plan = shreds[0].header().plan;
    let mut asks = Vec::new();
    for (n, shred) in shreds.iter().cycle().take(600).enumerate() {
        missing.wait_for(&mut ctx, peer(1 + n as u32 % 2), shred, 0);
        asks.extend(asked(&mut ctx));
        ctx.now = ctx.now + AGAIN / 10;
    }
    let (to, ids): (Vec<PeerKey>, Vec<u64>) = asks.into_iter().unzip();
    assert_eq!(to.len(), usize::from(TRIES), "and then no more");
    assert!(ids.iter().all(|id| *id == plan));
    let (relays, leader): (Vec<_>, Vec<_>) =
        to.iter().enumerate().partition(|(turn, _)| turn % 2 == 0);
    assert!(relays.iter().all(|(_, to)| [peer(1), peer(2)].contains(to)));
    assert!(leader.iter().all(|(_, to)| **to == peer(0)));
}

#[test]
fn shreds_that_wait_are_bounded_and_go_on_once_if_they_are_of_use() {
    let world = World::new(&[1; 6], 1);
    let mut ctx = ctx(&world, 3, Config::new(CHAIN));
    let mut missing = MissingPlans::default();
    let shreds = shreds(&world, 8);
    let plan = shreds[0].header().plan;
    for shred in shreds.iter().cycle().take(600) {
        missing.wait_for(&mut ctx, peer(1), shred, 0);
    }
    assert!(missing.learnt(ctx.now, plan ^ 1).is_empty());
    let waited = missing.learnt(ctx.now, plan);
    assert_eq!(waited.len(), MAX_WAITING);
    assert_eq!(waited[MAX_WAITING - 1].0.root(), shreds[599 % 8].root(), "the newest are kept");
    assert!(missing.learnt(ctx.now, plan).is_empty() && missing.wanted.is_empty());
    // What came long ago is of no use any more.
    missing.wait_for(&mut ctx, peer(1), &shreds[0], 0);
    ctx.now = ctx.now + LIFE;
    missing.wait_for(&mut ctx, peer(1), &shreds[1], 0);
    ctx.now = ctx.now + LIFE / 2;
    assert_eq!(missing.learnt(ctx.now, plan).len(), 1);
}

#[test]
fn a_plan_that_many_offer_is_asked_for_of_one_and_offers_without_end_are_forgotten() {
    let mut ctx = ctx(&World::new(&[1; 6], 1), 3, Config::new(CHAIN));
    let mut missing = MissingPlans::default();
    for from in [1, 2, 4] {
        missing.offered(&mut ctx, peer(from), 7);
    }
    assert_eq!(asked(&mut ctx), [(peer(1), 7)]);
    // The first does not answer.
    ctx.now = ctx.now + AGAIN;
    missing.offered(&mut ctx, peer(2), 7);
    assert_eq!(asked(&mut ctx), [(peer(2), 7)]);
    (100..1_000).for_each(|plan| missing.offered(&mut ctx, peer(5), plan));
    assert!(missing.offered.len() <= MAX_OFFERED);
    missing.learnt(ctx.now, 999);
    assert!(!missing.offered.contains_key(&999));
}
