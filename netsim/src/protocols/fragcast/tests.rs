use std::collections::BTreeSet;

use fragcast_shredder::Kind;
use fragcast_turbine::health::{Reason, State};
use fragcast_turbine::{Outcome as Fate, Route};

use super::*;
use crate::MILLIS;
use crate::engine::{Setup as Run, run};
use crate::fault::{Fault, Faults};
use crate::handover::HandOver;
use crate::link::{LinkConfig, Loss};
use crate::outcome::{NEVER, Outcome};
use crate::world::sample::line;

mod receipts;

fn config() -> FragcastConfig {
    FragcastConfig { coding: 1.0, ..FragcastConfig::default() }
}

fn go(config: &FragcastConfig, load: &Load, faults: &Faults, n: usize) -> (Outcome, Fragcast) {
    let world = line(n, 10, 5 * MILLIS);
    let links = LinkConfig { loss: Loss::Independent(config.loss), ..LinkConfig::default() };
    let network = Network::new(&world);
    let mut fragcast = Fragcast::new(config, &network, load, 1);
    let run_of = Run { world: &world, links, faults, load, seed: 1, patience: 3 * SECONDS };
    let outcome = run(run_of, &mut fragcast);
    (outcome, fragcast)
}

#[test]
fn the_protocol_of_the_daemon_reaches_everybody_on_every_route() {
    let routes = [
        RoutePolicy::Auto,
        RoutePolicy::Fixed(Route::Direct),
        RoutePolicy::Fixed(Route::Rotor),
        RoutePolicy::Fixed(Route::Turbine { fanout: 6 }),
    ];
    for route in routes {
        let config = FragcastConfig { route, ..config() };
        let (outcome, fragcast) =
            go(&config, &Load::single(vec![3, 5], 36_000), &Faults::default(), 40);
        assert!(outcome.completions[0].after.iter().all(|after| *after != NEVER), "{route:?}");
        for node in 0..40 {
            let outcomes = fragcast.node(node).outcomes();
            assert_eq!(outcomes.get(Fate::BadSignature) + outcomes.get(Fate::Malformed), 0);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_digest() {
    let load = Load::single(vec![3, 5], 20_000);
    let digest = || go(&config(), &load, &Faults::default(), 30).0.digest;
    assert_eq!(digest(), digest());
}

#[test]
fn an_equivocating_leader_is_convicted_by_everybody() {
    let mut load = Load::single(vec![3, 5], 20_000);
    load.broadcasts[0].equivocal = true;
    load.broadcasts[0].expected = false;
    let (outcome, _) = go(&config(), &load, &Faults::default(), 30);
    let convicted = outcome.convicted.iter().filter(|c| **c).count();
    assert!(convicted >= 29, "{convicted} of 29 hold evidence");
}

#[test]
fn hosts_that_are_down_cost_shreds_and_nobody_else_a_message() {
    let nodes: BTreeSet<NodeId> = (10..14).collect();
    let faults = Faults(vec![Fault::Crash { nodes: nodes.clone(), span: (0, Nanos::MAX) }]);
    let (outcome, _) = go(&config(), &Load::single(vec![3, 5], 36_000), &faults, 40);
    for (node, after) in outcome.completions[0].after.iter().enumerate() {
        assert_eq!(*after == NEVER, nodes.contains(&(node as NodeId)), "{node}");
    }
}

#[test]
fn a_leader_that_was_down_leads_again() {
    let mut load = Load::single(vec![3], 36_000);
    let key = |block| MessageKey { block, ..load.broadcasts[0].key };
    let again = |block, at| Broadcast { at, key: key(block), ..load.broadcasts[0] };
    let later = [again(2, 600 * MILLIS), again(3, 800 * MILLIS)];
    load.broadcasts.extend(later);
    let nodes = BTreeSet::from([3]);
    let faults = Faults(vec![Fault::Crash { nodes, span: (2 * MILLIS, 500 * MILLIS) }]);
    let (outcome, _) = go(&config(), &load, &faults, 40);
    for completion in &outcome.completions[1..] {
        assert!(completion.after.iter().all(|after| *after != NEVER));
    }
}

#[test]
fn connections_are_limited() {
    let config = FragcastConfig { connections: 12, ..config() };
    let (outcome, _) = go(&config, &Load::single(vec![3, 5], 5_000), &Faults::default(), 60);
    assert!(outcome.degree.iter().all(|degree| *degree <= 12));
    assert_eq!(outcome.refused, 0, "the protocol knows whom it is connected to");
}

/// Blocks of an Env, three frags and a Seal each, 400 ms apart: a block takes 2 s.
fn blocks(n: u64) -> Load {
    let single = Load::single(vec![3], 2_000);
    let message = |block: u64, message: u16| Broadcast {
        at: (block - 1) * 2 * SECONDS + u64::from(message) * 400 * MILLIS,
        key: MessageKey { block, attempt: 0, message },
        kind: match message {
            0 => Kind::Env,
            4 => Kind::Seal,
            _ => Kind::Frag,
        },
        ..single.broadcasts[0]
    };
    let broadcasts = (1..=n).flat_map(|block| (0..=4).map(move |m| message(block, m))).collect();
    Load { broadcasts, blocks_per_term: n + 1, ..single }
}

/// The next leader acknowledges what its predecessor sends, and a term begins without a pause.
#[test]
fn the_first_env_of_a_term_is_everywhere_as_soon_as_those_within_it() {
    let mut load = Load { leaders: vec![3, 5, 9], blocks_per_term: 3, ..blocks(9) };
    for index in 0..load.broadcasts.len() {
        load.broadcasts[index].leader = load.leader(load.broadcasts[index].key.block);
    }
    let told = |hand_over| {
        let config = FragcastConfig { hand_over, ..config() };
        let (outcome, _) = go(&config, &load, &Faults::default(), 40);
        assert!(outcome.completions.iter().all(|c| c.after.iter().all(|at| *at != NEVER)));
        let told = HandOver::of(&load, &Faults::default(), &outcome).unwrap();
        (told, outcome.held.len())
    };
    let (told_with, acknowledged) = told(true);
    assert_eq!((told_with.terms, acknowledged), (3, load.broadcasts.len()), "each message once");
    let within = told_with.within.unwrap();
    assert!(told_with.first <= within + within / 20, "{told_with}");
    assert!(told_with.acknowledged.unwrap() >= told_with.seal, "there and back");
    let (without, none) = told(false);
    assert_eq!((without.acknowledged, none), (None, 0));
    assert!(told_with.first <= without.first + without.first / 100, "it costs nothing: {without}");
}

fn blocked(nodes: &[NodeId], span: (Nanos, Nanos)) -> Fault {
    Fault::TurbineDown { nodes: nodes.iter().copied().collect(), span }
}

fn standby() -> FragcastConfig {
    FragcastConfig { gossip: Policy::Standby, ..config() }
}

#[test]
fn who_is_cut_off_lives_on_gossip_until_the_overlay_has_proved_itself() {
    let fault = blocked(&[7], (4_100 * MILLIS, 6_100 * MILLIS));
    let (outcome, fragcast) = go(&standby(), &blocks(6), &Faults(vec![fault]), 30);
    for (completion, broadcast) in outcome.completions.iter().zip(&blocks(6).broadcasts) {
        assert!(completion.after.iter().all(|after| *after < SECONDS), "{:?}", broadcast.key);
    }
    let changes: Vec<_> = outcome.changes.iter().map(|c| (c.node, c.to, c.reason)).collect();
    assert_eq!(
        changes,
        [
            (7, State::Probing, Reason::Silence),
            (7, State::Gossip, Reason::GossipAhead),
            (7, State::Turbine, Reason::Recovered),
        ]
    );
    assert!(outcome.changes[1].missing_for.is_some_and(|missing| missing < SECONDS));
    assert!(outcome.sent_by_tcp > 0);
    assert!((0..30).all(|node| !fragcast.node(node).is_listening()));
}

#[test]
fn a_connection_that_is_idle_for_long_is_dead_and_made_anew() {
    let fault = |until| Faults(vec![blocked(&[7], (SECONDS, until))]);
    let connected = |until: Nanos, n| {
        let (_, fragcast) = go(&standby(), &blocks(n), &fault(until), 30);
        let peers = |node: NodeId| {
            (0..30).filter(|peer| fragcast.node(node).is_connected((*peer).into())).count()
        };
        (peers(7), peers(8))
    };
    assert_eq!(connected(6_900 * MILLIS, 5), (29, 29));
    // The patience of 400 ms at the end is too short for another call.
    assert_eq!(connected(Nanos::MAX, 5), (0, 28));
    assert_eq!(connected(8 * SECONDS, 8), (29, 29));
}

#[test]
fn a_healthy_network_in_standby_sends_nothing_by_gossip() {
    let (outcome, _) = go(&standby(), &blocks(3), &Faults::default(), 30);
    assert_eq!((outcome.sent_by_tcp, outcome.changes.len()), (0, 0));
    let (off, _) = go(&config(), &blocks(3), &Faults::default(), 30);
    assert_eq!(off.sent, outcome.sent);
}

#[test]
fn where_gossip_is_always_on_it_carries_what_the_overlay_cannot() {
    let always = FragcastConfig { gossip: Policy::Always, ..config() };
    let fault = Faults(vec![blocked(&[7], (0, Nanos::MAX))]);
    let (outcome, fragcast) = go(&always, &blocks(3), &fault, 30);
    assert!(outcome.completions.iter().all(|c| c.after[7] < SECONDS && (c.gossiped[7])));
    assert!((0..30).all(|node| fragcast.node(node).is_listening()));
    // All others stay on the overlay, which is as fast or faster.
    let fell = outcome.changes.iter().filter(|c| c.to == State::Gossip).map(|c| c.node);
    assert_eq!(fell.collect::<Vec<_>>(), [7]);
}

/// 51 nodes with two tables: from block 3 on node 50 is a member and node 7 is not.
fn with_a_second_table() -> (Outcome, Fragcast) {
    let world = line(51, 10, 5 * MILLIS);
    let absent = |node: NodeId| BTreeSet::from([node]);
    let first = Table { from_block: 0, known_at: 0, absent: absent(50) };
    // Known while block 2 is built, a second before its end.
    let second = Table { from_block: 3, known_at: 3 * SECONDS, absent: absent(7) };
    let network = Network::with_tables(&world, vec![first, second]);
    let (load, faults) = (blocks(4), Faults::default());
    let config =
        FragcastConfig { route: RoutePolicy::Fixed(Route::Turbine { fanout: 6 }), ..config() };
    let mut fragcast = Fragcast::new(&config, &network, &load, 1);
    let links = LinkConfig { loss: Loss::Independent(config.loss), ..LinkConfig::default() };
    let run_of =
        Run { world: &world, links, faults: &faults, load: &load, seed: 1, patience: 3 * SECONDS };
    let outcome = run(run_of, &mut fragcast);
    (outcome, fragcast)
}

#[test]
fn a_second_table_takes_effect_between_two_blocks_and_nobody_misses_anything() {
    let (outcome, fragcast) = with_a_second_table();
    for (broadcast, completion) in blocks(4).broadcasts.iter().zip(&outcome.completions) {
        let absent = if broadcast.key.block < 3 { 50 } else { 7 };
        for (node, after) in completion.after.iter().enumerate() {
            let member = node != absent;
            assert!(!member || *after < SECONDS, "node {node} misses {:?}", broadcast.key);
        }
    }
    for node in (0..51).filter(|node| *node != 7) {
        let protocol = fragcast.node(node);
        let epoch = protocol.epochs().at(4).expect("the second");
        assert_eq!((epoch.from_block(), epoch.members().len()), (3, 50));
        let outcomes = protocol.outcomes();
        assert_eq!(outcomes.get(Fate::BadSignature) + outcomes.get(Fate::Malformed), 0);
    }
    assert_eq!(outcome.digest, with_a_second_table().0.digest);
}

#[test]
fn nodes_measure_before_a_run_and_the_leader_knows_the_delays_within_a_tenth() {
    let world = line(40, 10, 5 * MILLIS);
    let links = LinkConfig { jitter: MILLIS / 5, ..LinkConfig::default() };
    let load = Load::single(vec![3, 5], 20_000);
    let mut fragcast = Fragcast::new(&config(), &Network::new(&world), &load, 1);
    assert!(fragcast.node(3).delays_at(1).is_none(), "nothing is given");
    let WarmUp { span, bytes } = fragcast.warm_up(&world, &links, 1);
    // Each of 40 nodes tells two leaders; a vector of 39 bytes takes some 250 with its framing. Each
    // leader tells all its plan, which takes some 500.
    assert!(span == 12 * SECONDS && (55_000..75_000).contains(&bytes), "{bytes}");
    for leader in [3, 5] {
        let (matrix, generation) = fragcast.node(leader).delays_at(1).unwrap();
        assert!(generation > 0);
        for (a, b) in (0..40).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let truth = (world.delay(a, b) + world.delay(b, a) + links.hop) as f64 / 1e3;
            let told = f64::from(matrix.rtt(a, b).micros().unwrap());
            // Never shorter than it is, but for half a step of the code.
            let most = 1.1 * truth + 1_500.0;
            assert!((0.97 * truth..most).contains(&told), "{a} {b}: {told} of {truth}");
            assert!(matrix.reported(a));
        }
    }
    assert!(fragcast.node(7).delays_at(1).is_none(), "it does not lead");
    let plans = |node| fragcast.node(node).counters().plans_made;
    assert_eq!([3, 5, 7].map(plans), [1, 1, 0]);
    assert_eq!(fragcast.warm_up(&world, &links, 1).bytes, bytes, "once");
}

/// A run begins with the plan in effect.
#[test]
fn leaders_plan_before_a_run_and_shreds_go_by_that_plan() {
    let config = FragcastConfig { route: RoutePolicy::Regional, ..config() };
    let (outcome, fragcast) = go(&config, &blocks(2), &Faults::default(), 40);
    assert!(outcome.completions[0].after.iter().all(|after| *after != NEVER));
    let routes: Vec<bool> = fragcast.led().iter().map(|led| led.version > 0).collect();
    assert!(!routes.is_empty() && routes.iter().all(|planned| *planned), "{:?}", fragcast.led());
    for node in 0..40 {
        assert_eq!(fragcast.node(node).counters().unknown_plan, 0);
    }
}

#[test]
fn a_saved_measurement_takes_the_place_of_measuring_the_world() {
    let world = line(20, 10, 5 * MILLIS);
    let mut matrix = fragcast_turbine::DelayMatrix::unknown(20);
    let code = fragcast_turbine::RttCode::of_micros(42_000);
    (0..20).flat_map(|a| (0..a).map(move |b| (a, b))).for_each(|(a, b)| matrix.set(a, b, code));
    let measured = Some(Arc::new(Measurement::of(&matrix)));
    let load = Load::single(vec![3, 5], 20_000);
    let config = FragcastConfig { measured, ..config() };
    let mut fragcast = Fragcast::new(&config, &Network::new(&world), &load, 1);
    fragcast.warm_up(&world, &LinkConfig::default(), 1);
    let (known, _) = fragcast.node(5).delays_at(1).unwrap();
    assert_eq!(Measurement::of(known), Measurement::of(&matrix));
}
