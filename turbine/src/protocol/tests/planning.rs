//! Plans from what nodes measured: made, told, acknowledged, asked for.

use super::network::{Net, config};
use super::*;
use crate::plan::Entry;

const NODES: usize = 24;

/// Everybody measures everybody: three cities, 40 ms from one another.
fn measure(net: &mut Net) {
    for _ in 0..5 {
        for node in 0..NODES {
            let others = (0..NODES).filter(|other| *other != node);
            let samples = others.map(|other| {
                let rtt = if node % 3 == other % 3 { 600 } else { 80_000 };
                (peer(other as u32), Duration::from_micros(rtt))
            });
            let now = net.now;
            net.nodes[node].handle_round_trips(now, samples.collect::<Vec<_>>());
        }
        net.run_for(Duration::from_secs(1));
    }
}

/// A network in which node 0 leads, and everybody has told what it measured.
fn measured(policy: RoutePolicy) -> Net {
    let mut net = Net::new(World::new(&[1; NODES], 1), 0.0, &config(policy, 0.02));
    for node in 0..NODES {
        net.nodes[node].set_identity(net.world.identities[node].clone());
    }
    measure(&mut net);
    net
}

/// Does what a driver does with planning that is due. Says whether there was any.
fn plan(net: &mut Net) -> bool {
    let now = net.now;
    let Some(job) = net.nodes[0].planning_job(now) else { return false };
    net.nodes[0].planned(now, job.run());
    true
}

/// The route and plan of the leader's newest message.
fn newest(net: &Net) -> (Route, u64) {
    let led = net.led.last().expect("it has led");
    (led.route, led.plan)
}

fn is_regional(net: &Net) -> bool {
    matches!(newest(net).0, Route::Regional { .. })
}

#[test]
fn what_nodes_measured_is_planned_with_and_takes_effect_once_they_have_it() {
    let mut net = measured(RoutePolicy::Regional);
    assert!(plan(&mut net) && !plan(&mut net), "once");
    net.run_for(Duration::from_millis(1));
    net.block(5, 2, 20_000);
    assert!(!is_regional(&net), "nobody has it yet");
    net.run_for(Duration::from_secs(1));
    let acks: u64 = net.nodes.iter().map(|node| node.outcomes().get(Outcome::ControlStale)).sum();
    net.block(6, 2, 20_000);
    let before = newest(&net);
    assert!(is_regional(&net), "{before:?}");
    net.assert_complete(0, 8);
    assert!(net.nodes.iter().all(|node| node.counters().unknown_plan == 0));
    // The same delays once more are no reason for another plan.
    net.run_for(Duration::from_secs(70));
    measure(&mut net);
    plan(&mut net);
    net.run_for(Duration::from_secs(1));
    net.block(7, 2, 20_000);
    assert_eq!(newest(&net), before);
    assert_eq!(net.nodes[0].counters().plans_made, 1);
    let later: u64 = net.nodes.iter().map(|node| node.outcomes().get(Outcome::ControlStale)).sum();
    assert_eq!(acks, later, "no plan was told twice");
}

#[test]
fn a_fixed_route_is_never_planned_for() {
    let mut net = measured(RoutePolicy::Fixed(Route::Rotor));
    assert!(!plan(&mut net));
}

/// A relay that has missed the plan asks whoever sent it a shred, and sends on what it has.
#[test]
fn a_relay_without_the_plan_asks_for_it_by_its_id_and_goes_on() {
    let mut net = measured(RoutePolicy::Regional);
    let config = net.nodes[0].parts.ctx.config.clone();
    assert!(plan(&mut net));
    net.run_for(Duration::from_secs(1));
    net.block(6, 1, 20_000);
    assert!(is_regional(&net));
    // It comes back without the plan, and without the leader's greeting.
    let lacks = 7;
    net.nodes[lacks] = net.world.node(lacks, config);
    let others = (0..NODES).filter(|other| *other != lacks).map(|other| peer(other as u32));
    net.nodes[lacks].assume_connected(others);
    net.block(7, 2, 20_000);
    let counters = *net.nodes[lacks].counters();
    assert!(counters.unknown_plan > 0, "{counters:?}");
    assert!((1..4).contains(&counters.plans_asked), "{counters:?}");
    let answered: u64 = net.nodes.iter().map(|node| node.counters().plans_answered).sum();
    assert!((1..4).contains(&answered));
    assert!(counters.forwarded > 0, "it relays: {counters:?}");
    net.block(8, 2, 20_000);
    assert_eq!(net.nodes[lacks].counters().unknown_plan, counters.unknown_plan);
    let of_all = net.delivered.iter().skip(1).map(Vec::len).collect::<Vec<_>>();
    assert!(of_all.iter().all(|count| *count == of_all[0]), "{of_all:?}");
}

/// Who keeps plans that nobody answers for keeps asking within its bound, and whoever asks without
/// end is answered within a budget.
#[test]
fn a_peer_that_asks_for_plans_without_end_is_answered_within_a_budget() {
    let mut net = measured(RoutePolicy::Regional);
    assert!(plan(&mut net));
    net.run_for(Duration::from_secs(1));
    net.block(6, 1, 5_000);
    let (_, id) = newest(&net);
    let now = net.now;
    for n in 0..2_000u64 {
        let request = Control::PlanRequest(if n % 2 == 0 { id } else { n }).to_bytes();
        net.nodes[3].handle_control(now, peer(5), &request);
    }
    let answered = net.nodes[3].counters().plans_answered;
    assert!((50..200).contains(&answered), "{answered}");
    assert!(net.nodes[3].outcomes().get(Outcome::OverBudget) > 1_000);
}

/// Members that nobody else has measured relay nothing, whatever they say of themselves.
#[test]
fn who_is_reported_by_nobody_is_no_relay_of_the_plan() {
    let mut net = Net::new(World::new(&[1; NODES], 1), 0.0, &config(RoutePolicy::Regional, 0.02));
    for node in 0..NODES {
        net.nodes[node].set_identity(net.world.identities[node].clone());
    }
    let (hidden, now) = (9, net.now);
    for step in 0..5u64 {
        for node in 0..NODES {
            let others = (0..NODES).filter(|other| *other != node && *other != hidden);
            let rtt = |_| Duration::from_micros(if node == hidden { 60 } else { 20_000 });
            let samples: Vec<_> = others.map(|other| (peer(other as u32), rtt(other))).collect();
            net.nodes[node].handle_round_trips(now + Duration::from_secs(step), samples);
        }
        net.run_for(Duration::from_secs(1));
    }
    assert!(plan(&mut net));
    let told = net.nodes[0].parts.leading.as_ref().unwrap().frames(None).last().cloned();
    let Some(Control::Plan(signed)) = told else { panic!("{told:?}") };
    let relays = |i: usize| Entry::from_bits(signed.plan.entries[i]).relays;
    assert!(!relays(hidden) && (0..NODES).filter(|i| relays(*i)).count() == NODES - 1);
}
