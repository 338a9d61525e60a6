use std::collections::BTreeSet;

use fragcast_turbine::{Outcome as Fate, Route};

use super::*;
use crate::MILLIS;
use crate::engine::{Setup as Run, run};
use crate::fault::{Fault, Faults};
use crate::link::{LinkConfig, Loss};
use crate::outcome::{NEVER, Outcome};
use crate::world::sample::line;

const CONFIG: FragcastConfig = FragcastConfig {
    route: RoutePolicy::Auto,
    loss: 0.01,
    coding: 1.0,
    connections: 1024,
    repair: true,
    uplink_bps: 1_000_000_000,
    gossip: Policy::Off,
    mode: Mode::Auto,
    heartbeat: 500 * MILLIS,
};

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
        let config = FragcastConfig { route, ..CONFIG };
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
    let digest = || go(&CONFIG, &load, &Faults::default(), 30).0.digest;
    assert_eq!(digest(), digest());
}

#[test]
fn an_equivocating_leader_is_convicted_by_everybody() {
    let mut load = Load::single(vec![3, 5], 20_000);
    load.broadcasts[0].equivocal = true;
    load.broadcasts[0].expected = false;
    let (outcome, _) = go(&CONFIG, &load, &Faults::default(), 30);
    let convicted = outcome.convicted.iter().filter(|c| **c).count();
    assert!(convicted >= 29, "{convicted} of 29 hold evidence");
}

#[test]
fn hosts_that_are_down_cost_shreds_and_nobody_else_a_message() {
    let nodes: BTreeSet<NodeId> = (10..14).collect();
    let faults = Faults(vec![Fault::Crash { nodes: nodes.clone(), span: (0, Nanos::MAX) }]);
    let (outcome, _) = go(&CONFIG, &Load::single(vec![3, 5], 36_000), &faults, 40);
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
    let (outcome, _) = go(&CONFIG, &load, &faults, 40);
    for completion in &outcome.completions[1..] {
        assert!(completion.after.iter().all(|after| *after != NEVER));
    }
}

#[test]
fn connections_are_limited() {
    let config = FragcastConfig { connections: 12, ..CONFIG };
    let (outcome, _) = go(&config, &Load::single(vec![3, 5], 5_000), &Faults::default(), 60);
    assert!(outcome.degree.iter().all(|degree| *degree <= 12));
    assert_eq!(outcome.refused, 0, "the protocol knows whom it is connected to");
}
