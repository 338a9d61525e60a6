//! Relays that do not relay, and what receipts make of them.

use super::*;

/// Members of a place, and places.
const EACH: usize = 20;
const PLACES: usize = 6;
/// A tenth, in all places: none of them leads.
const SILENT: [NodeId; 12] = [0, 7, 14, 21, 28, 35, 42, 49, 56, 63, 70, 77];

/// Blocks of three frags of 39 kB, two seconds each, sent by a plan that leaders have made.
fn of_silent(nodes: &[NodeId], n: u64) -> (Load, Outcome, Fragcast) {
    let world = line(EACH * PLACES, PLACES, 8 * MILLIS);
    let config = FragcastConfig { route: RoutePolicy::Regional, oracle: true, ..config() };
    let mut load = blocks(n);
    let frags = load.broadcasts.iter_mut().filter(|broadcast| broadcast.kind == Kind::Frag);
    frags.for_each(|frag| frag.bytes = 39_000);
    let silent = Fault::Silent { nodes: nodes.iter().copied().collect(), span: (0, Nanos::MAX) };
    let faults = Faults(vec![silent]);
    let links = LinkConfig { loss: Loss::Independent(config.loss), ..LinkConfig::default() };
    let network = Network::new(&world);
    let mut fragcast = Fragcast::in_world(&config, &network, &load, 1, Some(&world));
    let run_of =
        Run { world: &world, links, faults: &faults, load: &load, seed: 1, patience: 3 * SECONDS };
    let outcome = run(run_of, &mut fragcast);
    (load, outcome, fragcast)
}

/// Of the frags of a block: the share of (node, frag) pairs that needed no repair, and how long a
/// frag took, on the average of all pairs.
fn of_block(load: &Load, outcome: &Outcome, block: u64) -> (f64, f64) {
    let (mut pairs, mut whole, mut took) = (0.0, 0.0, 0.0);
    for (broadcast, completion) in load.broadcasts.iter().zip(&outcome.completions) {
        if (broadcast.key.block, broadcast.kind) != (block, Kind::Frag) {
            continue;
        }
        for (after, repaired) in completion.after.iter().zip(&completion.repaired) {
            assert_ne!(*after, NEVER, "everybody has everything");
            pairs += 1.0;
            whole += if *repaired { 0.0 } else { 1.0 };
            took += *after as f64;
        }
    }
    (whole / pairs, took / pairs)
}

#[test]
fn receipts_find_the_silent_and_nobody_else() {
    let (load, outcome, fragcast) = of_silent(&[], 4);
    let healthy = of_block(&load, &outcome, 4).1;
    let state = fragcast.node(3).receipts();
    assert!(state.excluded.is_empty() && state.no_heads.is_empty(), "{state:?}");
    assert!(state.loss.is_some_and(|loss| (0.002..0.03).contains(&loss)), "{:?}", state.loss);
    // The hops of the tree, and all regions of the plan.
    assert!(state.hops.len() == 3 && state.regions.len() >= PLACES, "{state:?}");
    // Who is a root gets few shreds as one: those times say little.
    let [_, heads, rest] = &state.hops[..] else { panic!("{:?}", state.hops) };
    assert!(heads.median_micros < rest.median_micros, "{:?}", state.hops);

    let (load, outcome, fragcast) = of_silent(&SILENT, 8);
    assert!(of_block(&load, &outcome, 1).1 > 1.2 * healthy, "they cost something");
    // After two blocks of receipts.
    for n in 3..=8 {
        let (whole, took) = of_block(&load, &outcome, n);
        assert!(whole >= 0.995, "block {n}: {whole}");
        assert!(took <= 1.02 * healthy, "block {n}: {took} ns, without silent relays {healthy}");
    }
    let state = fragcast.node(3).receipts();
    let members = &fragcast.network.members;
    let pruned: Vec<NodeId> =
        state.excluded.iter().chain(&state.no_heads).map(|id| members.index(id).unwrap()).collect();
    assert!(pruned.len() > SILENT.len() / 2, "{pruned:?}");
    assert!(pruned.iter().all(|node| SILENT.contains(node)), "{pruned:?}");
    // A block is 2 s long.
    let bits = state.taken as f64 / 8.0 * 300.0 * 8.0 / 2.0;
    assert!(bits < fragcast_turbine::protocol::LEADER_BPS as f64, "{bits} bit/s at the leader");
}
