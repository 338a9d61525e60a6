use std::collections::BTreeSet;
use std::time::Duration;

use alloy_primitives::Address;

use super::*;
use crate::control::Tip;
use crate::plan::{Entry, PlanView};
use crate::protocol::config::Config;
use crate::protocol::ctx::testing::ctx;
use crate::protocol::tests::{CHAIN, World, peer};

const MEMBERS: u32 = 24;
const LEADER: u32 = 0;

fn key(message: u16) -> MessageKey {
    MessageKey { block: 1, attempt: 0, message }
}

/// Node 8 of 24, to whose peers the round trips take so many ms.
fn scene(millis: impl Fn(u32) -> Option<u64>) -> (Ctx, Repair) {
    let config = Config::new(CHAIN);
    let repair = Repair::new(&config);
    let mut ctx = ctx(&World::new(&[1; MEMBERS as usize], 1), 8, config);
    for (n, millis) in (0..MEMBERS).filter_map(|n| Some((n, millis(n)?))) {
        ctx.round_trips.take(ctx.now, peer(n), Duration::from_millis(millis));
    }
    (ctx, repair)
}

/// A shred of a message came from a peer, under plan 7.
fn shred(ctx: &Ctx, repair: &mut Repair, message: u16, from: u32) {
    let from = (peer(from), repair.distance(ctx, peer(from)));
    repair.wants.shred(ctx.now, (key(message), 7), Some(from), ctx.now, |_| false);
}

/// A peer tells that it has the messages below one.
fn told(ctx: &Ctx, repair: &mut Repair, from: u32, row: u16) {
    let from = (peer(from), repair.distance(ctx, peer(from)));
    let tip = Tip { block: 1, attempt: 0, row, above: 0 };
    repair.wants.told(ctx.now, from, &tip, ctx.now, |_| false);
}

/// Whom each of the tries asks that come to nothing.
fn asked(ctx: &Ctx, repair: &mut Repair, message: u16, tries: usize) -> Vec<Vec<u32>> {
    let mut all = Vec::new();
    for _ in 0..tries {
        let peers = repair.whom_to_ask(ctx, &key(message), peer(LEADER));
        let want = repair.wants.messages.get_mut(&key(message)).unwrap();
        peers.iter().for_each(|peer| want.ask(*peer));
        want.tries += 1;
        all.push(peers.iter().map(|peer| peer.number()).collect());
    }
    all
}

#[test]
fn who_tells_to_have_it_is_asked_first_and_the_nearest_of_those() {
    let (ctx, mut repair) = scene(|n| Some(20 * u64::from(n)));
    // It sent a shred and is near, but may lack what this node lacks.
    shred(&ctx, &mut repair, 0, 1);
    [23, 4, 11].iter().for_each(|n| told(&ctx, &mut repair, *n, 1));
    let tries = asked(&ctx, &mut repair, 0, 8);
    assert_eq!(tries[..2], [vec![4], vec![11, 23]], "4 has not answered: {tries:?}");
    assert_eq!(tries[3][0], LEADER, "as late as before");
    assert!(tries[1..].iter().all(|peers| peers.len() == 2));
    let rest: BTreeSet<u32> = tries[2..].iter().flatten().copied().collect();
    assert!(rest.contains(&1) && !rest.contains(&4), "{tries:?}");
}

#[test]
fn of_peers_that_are_drawn_a_near_one_is_asked() {
    // Half of them are across an ocean.
    let (ctx, mut repair) = scene(|n| Some(if n % 2 == 0 { 5 } else { 200 }));
    let mut far = 0;
    for message in 0..30 {
        shred(&ctx, &mut repair, message, 3);
        let tries = asked(&ctx, &mut repair, message, 2);
        assert_eq!(tries[0], [3], "it sent a shred");
        assert!(tries[1].iter().all(|second| ![LEADER, 3, 8].contains(second)), "{tries:?}");
        far += tries[1].iter().filter(|second| *second % 2 == 1).count();
    }
    assert!(far <= 4, "{far} of 60 were drawn among the far ones alone");
}

#[test]
fn near_ones_take_turns_and_the_silent_one_is_behind() {
    let near = |n| Some(if n < 6 { 10 + u64::from(n) } else { 90 });
    let (ctx, mut repair) = scene(near);
    let mut first = Vec::new();
    for message in 0..40 {
        shred(&ctx, &mut repair, message, 9);
        (1..MEMBERS).filter(|n| *n != 8).for_each(|n| told(&ctx, &mut repair, n, message + 1));
        first.push(asked(&ctx, &mut repair, message, 1)[0][0]);
    }
    let of = |n: u32| first.iter().filter(|asked| **asked == n).count();
    assert!((1..6).all(|n| (3..=14).contains(&of(n))), "{first:?}");
    assert_eq!((1..6).map(of).sum::<usize>(), 40);
    // Peer 2 tells of everything and answers nothing.
    repair.answerers.missed(ctx.now, peer(2));
    for message in 0..40 {
        repair.wants.messages.get_mut(&key(message)).unwrap().asked.clear();
        assert_ne!(asked(&ctx, &mut repair, message, 1)[0][0], 2);
    }
}

#[test]
fn what_only_tips_tell_of_is_asked_of_the_tellers_in_turn() {
    let (ctx, mut repair) = scene(|n| Some(20 * u64::from(n)));
    repair.wants.anchor(1);
    [3, 9].iter().for_each(|n| told(&ctx, &mut repair, *n, 1));
    let tries = asked(&ctx, &mut repair, 0, 6);
    assert_eq!(tries[..2], [vec![3], vec![9, 3]]);
    assert!(tries.iter().flatten().all(|n| [3, 9].contains(n)), "{tries:?}");
}

#[test]
fn where_nothing_is_measured_the_region_of_the_plan_is_near() {
    let (mut ctx, mut repair) = scene(|_| None);
    let entry = |n: u32| Entry { region: (n / 6) as u16, relays: true, heads: 1, territory: 0 };
    let entries: Vec<Entry> = (0..MEMBERS).map(entry).collect();
    let view = || PlanView::from_entries(7, &[1; MEMBERS as usize], &entries, &[]).unwrap();
    let table = ctx.epochs.newest().epoch().members().hash();
    for living in ctx.epochs.of_table(table) {
        let (of, frame) = (([9; 32], 1), bytes::Bytes::new());
        assert!(living.plans.learn(Address::ZERO, of, view().into(), frame));
    }
    let view = view();
    let region = &view.regions().regions()[1].members;
    assert!(region.contains(&8) && region.len() == 6);
    let mut first = BTreeSet::new();
    for message in 0..40 {
        // From another region.
        shred(&ctx, &mut repair, message, 20);
        first.insert(asked(&ctx, &mut repair, message, 1)[0][0]);
    }
    let others = first.iter().filter(|n| !region.contains(n));
    assert!(others.copied().all(|n| n == 20) && first.len() >= 4, "{first:?}");
}
