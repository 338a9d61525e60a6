use bytes::Bytes;
use fragcast_shredder::{Shred, VerifiedMessage};

use super::*;
use crate::protocol::ctx::testing::ctx;
use crate::protocol::tests::{CHAIN, World, cut, frag, hashed, key};

fn parts(me: u32) -> (World, Ctx, Delivery) {
    let world = World::new(&[1; 4], 2);
    let config = Config::new(CHAIN);
    let (ctx, delivery) = (ctx(&world, me, config.clone()), Delivery::new(&config));
    (world, ctx, delivery)
}

/// Feeds shreds and gives the message that they make.
fn feed(
    delivery: &mut Delivery,
    ctx: &Ctx,
    shreds: Vec<HashedShred>,
    repaired: bool,
) -> Option<Assembled> {
    let mut whole = None;
    for shred in shreds {
        if let Step::Kept { complete: Some(complete), .. } =
            delivery.shred(ctx, shred, repaired, true)
        {
            whole = whole.or(complete.message);
        }
    }
    whole
}

fn outcome(step: &Step) -> Option<Outcome> {
    if let Step::Refused(outcome) = step { Some(*outcome) } else { None }
}

#[test]
fn shreds_become_a_message_with_its_times_and_its_way() {
    for (repaired, via) in [(false, Via::Turbine), (true, Via::Repair)] {
        let (world, mut ctx, mut delivery) = parts(3);
        let message: VerifiedMessage = world.sign(frag(1, 0, 5_000));
        let mut shreds = hashed(&cut(&world, &message, 0));
        let rest = shreds.split_off(1);
        let first = ctx.now;
        assert!(feed(&mut delivery, &ctx, shreds, repaired).is_none());
        ctx.now = ctx.now + std::time::Duration::from_millis(9);
        let assembled = feed(&mut delivery, &ctx, rest, repaired).unwrap();
        let delivered = delivery.open(&ctx, assembled).unwrap();
        assert_eq!(delivered.message, message);
        let Times { sent_at, first_shred_at, complete_at } = delivered.times;
        assert_eq!((first_shred_at, complete_at), (first, ctx.now));
        assert_eq!((sent_at, delivered.via), (Some(Timestamp::from_micros(7)), via));
        assert!(delivery.arrivals.is_empty());
        assert!(delivery.checks_due(), "it came whole");
        assert!(matches!(delivery.check_next(), Some(Ok(_))));
        assert!(delivery.check_next().is_none() && !delivery.checks_due());
    }
}

#[test]
fn what_is_no_shred_of_a_known_leader_is_refused() {
    let (world, ctx_3, mut delivery) = parts(3);
    let shreds = |world: &World| hashed(&cut(world, &world.sign(frag(1, 0, 500)), 0));
    let first = |world: &World| shreds(world).remove(0);
    assert_eq!(
        outcome(&delivery.shred(&ctx(&world, 0, Config::new(CHAIN)), first(&world), false, true)),
        Some(Outcome::Own)
    );
    let mut nobody = World::new(&[1; 4], 2);
    nobody.delegations.clear();
    let lost = ctx(&nobody, 3, Config::new(CHAIN));
    let step = delivery.shred(&lost, first(&world), false, true);
    assert_eq!(outcome(&step), Some(Outcome::UnknownLeader));
    let bytes = cut(&world, &world.sign(frag(1, 0, 500)), 0).sets[0].shreds[0].to_vec();
    let mut forged = bytes;
    forged[60] ^= 1;
    let forged = HashedShred::batch(vec![Shred::parse(Bytes::from(forged)).unwrap()]);
    let step = delivery.shred(&ctx_3, forged.into_iter().next().unwrap(), false, true);
    assert!(matches!(step, Step::Unproven(_)), "perhaps another leader's");
    assert!(matches!(
        delivery.shred(&ctx_3, first(&world), false, true),
        Step::Kept { first: true, .. }
    ));
    let step = delivery.shred(&ctx_3, first(&world), false, true);
    assert!(matches!(outcome(&step), Some(Outcome::Duplicate | Outcome::Late)));
    delivery.set_window(5, 9);
    assert_eq!(outcome(&delivery.shred(&ctx_3, first(&world), false, true)), Some(Outcome::Past));
    assert_eq!((delivery.bytes(), delivery.arrivals.len()), (0, 0));
}

#[test]
fn a_message_in_the_wrong_place_is_refused_for_good() {
    let (world, ctx, mut delivery) = parts(3);
    let message = world.sign(frag(1, 4, 500));
    // Signed by its gateway, and cut as another frag of the block.
    let other = fragcast_shredder::MessageKey { message: 2, ..key(message.message(), 0) };
    let leader = &world.leader_keys[0];
    let params = fragcast_shredder::MessageParams {
        key: other,
        kind: fragcast_shredder::Kind::Frag,
        plan: 0,
        route: 0,
        route_param: 0,
        sent_at: Timestamp::default(),
    };
    let rate = fragcast_shredder::CodeRate::new(600, Default::default());
    let cut = fragcast_shredder::Shredder::new(CHAIN, leader.clone())
        .shred(&message.to_wire(), &params, rate)
        .unwrap();
    let assembled = feed(&mut delivery, &ctx, hashed(&cut), false).unwrap();
    let (key, reason) = delivery.open(&ctx, assembled).unwrap_err();
    assert_eq!(key, other);
    assert!(reason.contains("index"), "{reason}");
    let again = delivery.shred(&ctx, hashed(&cut).remove(0), false, true);
    assert_eq!(outcome(&again), Some(Outcome::Late));
    delivery.supersede(1, 1);
    let again = delivery.shred(&ctx, hashed(&cut).remove(0), false, true);
    assert_eq!(outcome(&again), Some(Outcome::Superseded));
}
