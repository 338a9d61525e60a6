use fragcast_shredder::{Reassembler, Validator};

use super::*;
use crate::protocol::config::Config;
use crate::protocol::ctx::testing::{ctx, sent};
use crate::protocol::tests::{CHAIN, World, cut, frag, hashed, peer};

/// The shreds of a message of block 1, whose leader is member 0, as member `me` validates
/// them.
fn shreds(world: &World) -> Vec<ValidatedShred> {
    let key = world.leader_keys[0].verifying_key();
    let mut validator = Validator::new(CHAIN, 100);
    let cut = cut(world, &world.sign(frag(1, 0, 20_000)), 0);
    hashed(&cut).into_iter().map(|shred| validator.validate(shred, &key).unwrap()).collect()
}

fn to(ctx: &mut Ctx) -> Vec<PeerKey> {
    sent(ctx).into_iter().map(|transmit| transmit.to).collect()
}

#[test]
fn the_one_relay_of_each_shred_sends_it_to_everybody_else() {
    let world = World::new(&[1; 6], 1);
    let mut relayed = 0;
    for me in 1..6 {
        let mut ctx = ctx(&world, me, Config::new(CHAIN));
        let mut relaying = Relaying::default();
        for shred in shreds(&world) {
            relaying.forward(&mut ctx, &shred, 0);
            let mut to = to(&mut ctx);
            if !to.is_empty() {
                to.sort_unstable();
                assert_eq!(to, (1..6).filter(|n| *n != me).map(peer).collect::<Vec<_>>());
                relayed += 1;
            }
        }
        assert_eq!(ctx.counters.unknown_plan, 0);
    }
    assert_eq!(relayed, shreds(&world).len());
}

#[test]
fn a_relay_that_is_not_connected_is_stepped_over() {
    let world = World::new(&[1; 6], 1);
    let mut ctx = ctx(&world, 0, Config::new(CHAIN));
    let mut relaying = Relaying::default();
    let living = ctx.epochs.at(1).unwrap();
    let shred = &shreds(&world)[0];
    let plan = living.plans.get(shred.header().plan).unwrap();
    let tree = Tree::new(plan, Route::Rotor, 0, &shred.root(), Slot::new(shred.header(), 0));
    let relay = relaying.reach(&ctx.peers, &mut ctx.counters, living, &tree, 0).to_vec();
    assert_eq!((relay.len(), ctx.counters.stepped_over), (1, 0));
    ctx.peers.disconnect(relay[0]);
    let mut reached = relaying.reach(&ctx.peers, &mut ctx.counters, living, &tree, 0).to_vec();
    reached.sort_unstable();
    let others = (1..6).map(peer).filter(|other| *other != relay[0]);
    assert_eq!(reached, others.collect::<Vec<_>>(), "its own children instead of it");
    assert_eq!(ctx.counters.stepped_over, 4);
}

#[test]
fn without_the_plan_the_route_or_a_place_nothing_is_relayed() {
    let world = World::new(&[1; 6], 1);
    let shred = &shreds(&world)[0];
    let mut relaying = Relaying::default();
    for me in 1..6 {
        let mut ctx = ctx(&world, me, Config::new(CHAIN));
        let unknown = [
            (SetHeader { plan: 1, ..*shred.header() }, false),
            (SetHeader { route: 99, ..*shred.header() }, true),
        ];
        for (header, is_known) in unknown {
            let known = relaying.find_hops(&mut ctx, &header, &shred.root(), 0, 0);
            assert!(relaying.hops.is_empty());
            assert_eq!(known, is_known, "a plan can be asked for, a route cannot");
        }
        assert_eq!(ctx.counters.unknown_plan, 2);
        // Of a node that is no member of the epoch.
        ctx.epochs = ctx.epochs.of_node(crate::PeerId([1; 32])).0;
        relaying.find_hops(&mut ctx, shred.header(), &shred.root(), 0, 0);
        assert!(relaying.hops.is_empty());
        assert_eq!(ctx.counters.unknown_plan, 2, "there is nothing that it should know");
    }
}

#[test]
fn what_was_recovered_is_owed_to_those_below() {
    let world = World::new(&[1; 6], 1);
    let mut reassembler = Reassembler::new(Config::new(CHAIN).reassembly);
    let shreds = shreds(&world);
    let k = usize::from(shreds[0].header().k);
    // Of the data shreds the first is lost.
    let recovered = shreds[1..=k].iter().find_map(|shred| match reassembler.push(shred) {
        Ok(fragcast_shredder::Push::Complete { recovered, .. }) => recovered,
        _ => None,
    });
    let set = recovered.unwrap();
    let mut owed = 0;
    for me in 1..6 {
        let mut ctx = ctx(&world, me, Config::new(CHAIN));
        Relaying::default().send_owed(&mut ctx, &set, &[], false);
        let sent = sent(&mut ctx);
        assert_eq!(sent.len() as u64, ctx.counters.owed);
        owed += sent.len();
    }
    let lost = shreds.len() - k;
    assert_eq!(owed, 4 * lost, "each that did not come, by its relay, to the four others");
}
