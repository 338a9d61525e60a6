use super::*;
use crate::epoch::Epoch;
use crate::membership::sample;
use crate::protocol::ctx::testing::{ctx, sent};
use crate::protocol::tests::{CHAIN, World, frag, key, peer};

fn leading(world: &World, ctx: &Ctx) -> Leading {
    Leading::new(CHAIN, world.leader_keys[0].clone(), &ctx.epochs)
}

#[test]
fn the_next_leaders_shreds_leave_first_and_nothing_twice() {
    let world = World::new(&[1; 8], 3);
    let route = RoutePolicy::Fixed(Route::Direct);
    let mut ctx = ctx(&world, 0, Config { route, ..Config::new(CHAIN) });
    let mut leading = leading(&world, &ctx);
    let message = world.sign(frag(9, 0, 9_000));
    let place = key(message.message(), 0);
    let mut relaying = Relaying::default();
    let cut = leading.send(&mut ctx, &mut relaying, place, &message).unwrap();
    let sent = sent(&mut ctx);
    let first = sent.iter().take_while(|t| t.lane == Lane::NextLeader);
    assert!(first.count() > 0 && sent[0].to == peer(1), "block 10 is its own");
    let mut copies: Vec<_> = sent.iter().map(|t| (t.to, t.payload.clone())).collect();
    let count = copies.len();
    copies.sort_by(|a, b| (a.0, format!("{:?}", a.1)).cmp(&(b.0, format!("{:?}", b.1))));
    copies.dedup();
    assert_eq!(copies.len(), count);
    let shreds: usize = cut.sets.iter().map(|set| set.shreds.len()).sum();
    assert_eq!((count, ctx.counters.originated as usize), (7 * shreds, count));
}

#[test]
fn who_has_the_key_leads_where_a_delegation_to_it_says_so() {
    let world = World::new(&[1; 4], 2);
    let own = ctx(&world, 0, Config::new(CHAIN));
    let with = leading(&world, &own);
    assert_eq!([9, 10, 20].map(|block| with.leads(&own, block)), [true, false, true]);
    // The same key at another peer, and another key at the same.
    let other = ctx(&world, 1, Config::new(CHAIN));
    assert!(!leading(&world, &other).leads(&other, 9));
    let wrong = Leading::new(CHAIN, world.leader_keys[1].clone(), &own.epochs);
    assert!(!wrong.leads(&own, 9));
}

#[test]
fn there_is_a_plan_for_each_table_that_lives() {
    let world = World::new(&[1; 4], 1);
    let mut ctx = ctx(&world, 0, Config::new(CHAIN));
    let mut leading = leading(&world, &ctx);
    let (members, _) = sample(CHAIN, &[1, 1, 1, 9]);
    let table = members.hash();
    let next = |from: u64, members: &Arc<crate::Membership>| {
        let delegations = world.delegations.iter().copied();
        let schedule = world.schedule.clone();
        Epoch::new(CHAIN, from, members.clone(), schedule, delegations).unwrap()
    };
    ctx.epochs.take(next(100, &Arc::new(members)), 0, None).unwrap();
    leading.follow(&ctx.epochs);
    assert_eq!(leading.frames(None).count(), 2);
    let frames: Vec<&Control> = leading.frames(Some(table)).collect();
    let [Control::Plan(signed)] = frames[..] else { panic!("{frames:?}") };
    assert!(signed.verify() && signed.plan.table == table);
    assert_eq!(signed.plan.id(), leading.plans[1].view.id());
    let first = leading.plans[1].view.clone();
    ctx.epochs.take(next(200, &world.members), 0, None).unwrap();
    ctx.epochs.take(next(300, &world.members), 0, None).unwrap();
    leading.follow(&ctx.epochs);
    let from: Vec<u64> = leading.plans.iter().map(|plan| plan.from_block).collect();
    assert_eq!(from, [100, 200, 300]);
    assert!(Arc::ptr_eq(&first, &leading.plans[0].view), "made once");
}
