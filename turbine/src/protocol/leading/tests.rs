use super::*;
use crate::epoch::Epoch;
use crate::membership::sample;
use crate::protocol::ctx::testing::{ctx, sent};
use crate::protocol::delays::Delays;
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
fn a_far_next_leader_waits_for_a_little_of_the_broadcast_and_the_second_for_all_of_it() {
    let world = World::new(&[1; 30], 3);
    let mut ctx = ctx(&world, 0, Config { route: RoutePolicy::Regional, ..Config::new(CHAIN) });
    let mut leading = leading(&world, &ctx);
    leading.assume_delays(&ctx, cities(30));
    let job = leading.planning_job(&ctx, &Delays::default()).unwrap();
    leading.planned(&mut ctx, job.run());
    sent(&mut ctx);
    let Some(Control::Plan(signed)) = leading.frames(None).last() else { panic!("planned") };
    let id = signed.plan.id();
    (1..30).for_each(|member| assert!(leading.acknowledged(&ctx, peer(member), id)));
    let message = world.sign(frag(9, 0, 20_000));
    let place = key(message.message(), 0);
    let cut = leading.send(&mut ctx, &mut Relaying::default(), place, &message).unwrap();
    let header = &cut.sets[0].header;
    assert_eq!(header.route, 3);
    let sent = sent(&mut ctx);
    // The next leader is 40 ms away, and a hundredth of that is time for all of the data.
    let data = cut.sets.len() * usize::from(header.k);
    let bytes = |t: &Transmit| match &t.payload {
        Payload::Shred(bytes) => bytes.clone(),
        Payload::Control(_) => panic!("only shreds"),
    };
    let (first, rest) = sent.split_at(data);
    let distinct: BTreeSet<_> = first.iter().map(bytes).collect();
    assert_eq!(distinct.len(), data, "each data shred to its root");
    let copy = rest.iter().take_while(|t| t.lane == Lane::NextLeader);
    assert!(copy.clone().count() > 0 && copy.clone().all(|t| t.to == peer(1)));
    assert!(rest[copy.count()..].iter().all(|t| t.lane == Lane::Coding));
    let last = sent.iter().rev().take_while(|t| t.to == peer(2)).count();
    let all = sent.iter().filter(|t| t.to == peer(2)).count();
    assert!(last > 0 && all >= data, "{last} of {all}");
    let mut once: Vec<_> = sent.iter().map(|t| (t.to, bytes(t))).collect();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), sent.len(), "nothing twice");
}

#[test]
fn what_goes_ahead_delays_the_next_leader_by_a_hundredth() {
    let target = LossTarget::over_hops(0.01, 3, 0.0);
    for (len, mbit) in [(3_600, 50), (36_000, 1_000), (144_000, 1_000), (1_000_000, 10_000)] {
        let rate = crate::Profile::Lean.rate(len, 44, target);
        let bps = mbit * 1_000_000;
        let shred = (rate.shred_len() + FRAMING) as f64 * 8.0 / bps as f64;
        let data = usize::from(rate.sets) * usize::from(rate.k);
        for way in [0, 300, 5_000, 90_000].map(Duration::from_micros) {
            let ahead = ahead(rate, way, bps);
            let takes = way.as_secs_f64() + data as f64 * shred;
            assert!(ahead <= data && ahead as f64 * shred <= 0.01 * takes);
            assert!(ahead == data || (ahead + 1) as f64 * shred > 0.01 * takes);
        }
    }
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
    assert_eq!(signed.plan.id(), leading.plans[1].current.view.id());
    let first = leading.plans[1].current.view.clone();
    ctx.epochs.take(next(200, &world.members), 0, None).unwrap();
    ctx.epochs.take(next(300, &world.members), 0, None).unwrap();
    leading.follow(&ctx.epochs);
    let from: Vec<u64> = leading.plans.iter().map(|plan| plan.from_block).collect();
    assert_eq!(from, [100, 200, 300]);
    assert!(Arc::ptr_eq(&first, &leading.plans[0].current.view), "made once");
}

/// Members in three cities 40 ms from one another.
fn cities(members: u32) -> Arc<crate::DelayMatrix> {
    let mut delays = crate::DelayMatrix::unknown(members as usize);
    for a in 0..members {
        for b in 0..a {
            let rtt = if a % 3 == b % 3 { 600 } else { 80_000 };
            delays.set(a, b, crate::RttCode::of_micros(rtt));
        }
    }
    Arc::new(delays)
}

#[test]
fn what_was_planned_is_told_to_all_and_holds_from_the_next_block_on() {
    let world = World::new(&[1; 30], 1);
    let mut config = Config { route: RoutePolicy::Regional, ..Config::new(CHAIN) };
    config.profile = crate::Profile::Fast;
    let mut ctx = ctx(&world, 0, config);
    let mut leading = leading(&world, &ctx);
    let mut relaying = Relaying::default();
    let mut lead = |leading: &mut Leading, ctx: &mut Ctx, block, index| {
        let message = world.sign(frag(block, index, 36_000));
        let place = key(message.message(), 0);
        let cut = leading.send(ctx, &mut relaying, place, &message).unwrap();
        sent(ctx);
        cut.sets[0].header
    };
    let nothing = Delays::default();
    assert!(leading.planning_job(&ctx, &nothing).is_none(), "nothing is known");
    let before = lead(&mut leading, &mut ctx, 5, 0);
    assert_ne!(before.route, 3);

    leading.assume_delays(&ctx, cities(30));
    let job = leading.planning_job(&ctx, &nothing).unwrap();
    leading.assume_delays(&ctx, cities(30));
    assert!(leading.planning_job(&ctx, &nothing).is_none(), "one at a time");
    leading.planned(&mut ctx, job.run());
    let told = sent(&mut ctx);
    assert_eq!(told.len(), 29);
    assert!(told.iter().all(|t| t.lane == Lane::Bulk && t.payload == told[0].payload));
    let frames: Vec<&Control> = leading.frames(None).collect();
    let [_, Control::Plan(signed)] = frames[..] else { panic!("{frames:?}") };
    assert!(signed.verify() && (signed.plan.version, signed.plan.effective) == (1, 6));
    assert!(ctx.epochs.newest().plans.is_of(signed.plan.id(), &signed.plan.leader));

    let id = signed.plan.id();
    let rest = lead(&mut leading, &mut ctx, 5, 1);
    assert_eq!((rest.route, rest.plan), (before.route, before.plan), "a block keeps its plan");
    // 27 of 29 have nine tenths of the weight.
    (1..27).for_each(|member| assert!(leading.acknowledged(&ctx, peer(member), id)));
    let before = lead(&mut leading, &mut ctx, 6, 0);
    assert_ne!(before.route, 3, "not enough of them have the plan");
    assert!(leading.acknowledged(&ctx, peer(27), id));
    assert!(!leading.acknowledged(&ctx, peer(27), id) && !leading.acknowledged(&ctx, peer(28), 1));
    assert_eq!(lead(&mut leading, &mut ctx, 6, 1).plan, before.plan, "it has begun");
    let next = lead(&mut leading, &mut ctx, 7, 0);
    assert_eq!((next.route, next.plan), (3, id));
    assert!(next.route_param > 0 && next.m >= next.k, "{next:?}");

    // The same delays again: nobody is told anything.
    leading.assume_delays(&ctx, cities(30));
    let job = leading.planning_job(&ctx, &nothing).unwrap();
    let plan = next.plan;
    leading.planned(&mut ctx, job.run());
    assert!(sent(&mut ctx).is_empty());
    assert_eq!(lead(&mut leading, &mut ctx, 8, 0).plan, plan);
    leading.assume_delays(&ctx, cities(30));
    leading.planning_job(&ctx, &nothing).unwrap();
    leading.planned(&mut ctx, None);
    assert_eq!(lead(&mut leading, &mut ctx, 9, 0).plan, plan, "what failed changes nothing");
}

/// A leader that planned again before its first block threw away the plan that everybody had, and led
/// without any until the new one was acknowledged.
#[test]
fn a_plan_that_everybody_has_stays_until_the_next_one_takes_effect() {
    let world = World::new(&[1; 30], 1);
    let mut ctx = ctx(&world, 0, Config { route: RoutePolicy::Regional, ..Config::new(CHAIN) });
    let (mut leading, nothing) = (leading(&world, &ctx), Delays::default());
    let plan = |leading: &mut Leading, ctx: &mut Ctx, delays| {
        leading.assume_delays(ctx, delays);
        let job = leading.planning_job(ctx, &nothing).unwrap();
        leading.planned(ctx, job.run());
        sent(ctx);
        let Some(Control::Plan(signed)) = leading.frames(None).last() else { panic!("planned") };
        signed.plan.id()
    };
    let all = |leading: &mut Leading, ctx: &Ctx, id| {
        (1..30).for_each(|member| assert!(leading.acknowledged(ctx, peer(member), id)));
    };
    let lead = |leading: &mut Leading, ctx: &mut Ctx, block, index| {
        let message = world.sign(frag(block, index, 36_000));
        let place = key(message.message(), 0);
        let cut = leading.send(ctx, &mut Relaying::default(), place, &message).unwrap();
        sent(ctx);
        (cut.sets[0].header.route, cut.sets[0].header.plan)
    };
    // The leader's own city is another one each time.
    let moved = |city: u32| {
        let mut delays = crate::delays::DelayMatrix::clone(&cities(30));
        for other in 1..30 {
            let rtt = if other % 3 == city { 600 } else { 80_000 };
            delays.set(0, other, crate::delays::RttCode::of_micros(rtt));
        }
        Arc::new(delays)
    };
    let first = plan(&mut leading, &mut ctx, moved(1));
    all(&mut leading, &ctx, first);
    let second = plan(&mut leading, &mut ctx, moved(2));
    assert_ne!(first, second);
    assert_eq!(lead(&mut leading, &mut ctx, 5, 0), (3, first), "nobody has the second yet");
    all(&mut leading, &ctx, second);
    assert_eq!(lead(&mut leading, &mut ctx, 5, 1), (3, first), "a block keeps its plan");
    let third = plan(&mut leading, &mut ctx, moved(1));
    assert_eq!(lead(&mut leading, &mut ctx, 5, 2), (3, first), "also while there are two more");
    assert_eq!(lead(&mut leading, &mut ctx, 6, 0), (3, second));
    all(&mut leading, &ctx, third);
    assert_eq!(lead(&mut leading, &mut ctx, 7, 0), (3, third));
    assert_eq!(leading.frames(None).count(), 1, "what is not in force any more is not told");
}

/// Nobody keeps a plan from taking effect by saying nothing.
#[test]
fn who_does_not_acknowledge_a_plan_is_no_relay_of_the_next_one() {
    let world = World::new(&[1; 30], 1);
    let config = Config { route: RoutePolicy::Regional, ..Config::new(CHAIN) };
    let mut ctx = ctx(&world, 0, config);
    let (mut leading, nothing) = (leading(&world, &ctx), Delays::default());
    let newest = |leading: &Leading| match leading.frames(None).last() {
        Some(Control::Plan(signed)) => signed.plan.clone(),
        other => panic!("{other:?}"),
    };
    let relays = |plan: &Plan| -> Vec<u32> {
        let relays = |i: &u32| crate::plan::Entry::from_bits(plan.entries[*i as usize]).relays;
        (0..30).filter(relays).collect()
    };
    leading.assume_delays(&ctx, cities(30));
    let job = leading.planning_job(&ctx, &nothing).unwrap();
    leading.planned(&mut ctx, job.run());
    let first = newest(&leading);
    assert_eq!(relays(&first).len(), 30);
    (5..30).for_each(|member| assert!(leading.acknowledged(&ctx, peer(member), first.id())));
    // One of the silent is not there at all: it is not waited for, and not blamed.
    ctx.peers.disconnect(peer(4));
    ctx.now = ctx.now + acks::PATIENCE;
    leading.assume_delays(&ctx, cities(30));
    let job = leading.planning_job(&ctx, &nothing).unwrap();
    leading.planned(&mut ctx, job.run());
    let second = newest(&leading);
    assert_eq!(relays(&second), [0].into_iter().chain(4..30).collect::<Vec<u32>>());
    assert!(second.version > first.version);
    (5..30).for_each(|member| assert!(leading.acknowledged(&ctx, peer(member), second.id())));
    // Who is heard of may relay again.
    leading.acknowledged(&ctx, peer(1), second.id());
    leading.assume_delays(&ctx, cities(30));
    ctx.now = ctx.now + std::time::Duration::from_secs(1);
    let job = leading.planning_job(&ctx, &nothing).unwrap();
    assert_eq!(job.uplinks_bps.iter().filter(|bps| **bps == 0).count(), 2);
    assert!(job.uplinks_bps[1] > 0);
}
