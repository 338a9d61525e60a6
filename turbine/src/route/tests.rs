//! Every member exactly once, for every route, size, weight and leader.

use proptest::prelude::*;

use super::*;

mod regional;

fn view(weights: &[u64]) -> PlanView {
    PlanView::from_weights(7, weights)
}

/// The place of shred `index` in the largest set.
const fn slot(index: u8) -> Slot {
    Slot { index, k: 32, m: 32 }
}

/// Walks the tree from the leader; returns how often each was sent to, and the depth.
fn walk(tree: &Tree<'_>, n: usize, leader: PeerIndex) -> (Vec<u32>, u32) {
    let mut count = vec![0; n];
    let (mut level, mut hops) = (vec![leader], 0);
    while !level.is_empty() {
        let mut next = Vec::new();
        for sender in level {
            tree.children(sender, &mut next);
        }
        for peer in &next {
            count[*peer as usize] += 1;
        }
        if !next.is_empty() {
            hops += 1;
        }
        assert!(hops <= n as u32, "a cycle");
        level = next;
    }
    (count, hops)
}

fn check(weights: &[u64], route: Route, leader: PeerIndex, seed: u8) {
    let view = view(weights);
    let tree = Tree::new(&view, route, leader, &[seed; 32], slot(seed));
    let (count, hops) = walk(&tree, weights.len(), leader);
    for (peer, count) in count.iter().enumerate() {
        let expected = u32::from(peer as u32 != leader);
        assert_eq!(*count, expected, "{route:?}, member {peer} of {}", weights.len());
    }
    let said = route.hops(view.relays().len(), !view.leaves().is_empty());
    assert!(hops <= said, "{hops} hops, {said} said");
}

fn routes() -> impl Strategy<Value = Route> {
    prop_oneof![
        Just(Route::Direct),
        Just(Route::Rotor),
        prop_oneof![1u16..8, Just(200), Just(u16::MAX)]
            .prop_map(|fanout| Route::Turbine { fanout }),
    ]
}

fn weights() -> impl Strategy<Value = Vec<u64>> {
    let weight = prop_oneof![3 => 1u64..1000, 1 => Just(0), 1 => any::<u64>()];
    prop_oneof![
        8 => proptest::collection::vec(weight.clone(), 2..60),
        1 => proptest::collection::vec(weight, 60..2000),
        1 => (2usize..2000).prop_map(|n| vec![0; n]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn every_member_exactly_once(weights in weights(), route in routes(), leader: u32, seed: u8) {
        // A long chain of 2,000 hops walks 2,000 shuffles; fanouts of 1 and 2 stay small.
        let cap = if matches!(route, Route::Turbine { fanout: 1..=2 }) { 200 } else { 2000 };
        let weights = &weights[..weights.len().min(cap)];
        check(weights, route, leader % weights.len() as u32, seed);
    }
}

/// As it is meant: who is not up is replaced by its children, one at a time.
fn reached_plainly(tree: &Tree<'_>, sender: PeerIndex, up: &[bool]) -> (Vec<PeerIndex>, u64) {
    let (mut todo, mut out, mut stepped) = (Vec::new(), Vec::new(), 0);
    tree.children(sender, &mut todo);
    while let Some(child) = todo.pop() {
        if up[child as usize] {
            out.push(child);
        } else {
            let before = todo.len();
            tree.children(child, &mut todo);
            stepped += (todo.len() - before) as u64;
        }
    }
    out.sort_unstable();
    (out, stepped)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whoever_is_not_up_is_replaced_by_its_children(
        weights in weights(), route in routes(), leader: u32, seed: u8, up: u64,
    ) {
        let n = weights.len().min(150);
        let (leader, view) = (leader % n as u32, view(&weights[..n]));
        let tree = Tree::new(&view, route, leader, &[seed; 32], slot(seed));
        let up: Vec<bool> = (0..n).map(|i| up.rotate_left(i as u32 * 7) & 1 == 1).collect();
        for sender in [leader, (leader + 1) % n as u32, 0] {
            let (mut todo, mut out) = (Vec::new(), Vec::new());
            let is_up = |peer: PeerIndex| up[peer as usize];
            let stepped = tree.reach(sender, is_up, &mut todo, |peer| out.push(peer));
            out.sort_unstable();
            prop_assert_eq!((out, stepped), reached_plainly(&tree, sender, &up));
        }
    }
}

/// Each member is looked at once, however many are stepped over, and nothing is searched for: a
/// table of 30,000 of whom 100 are connected is work for each of them once.
#[test]
fn stepping_over_thousands_looks_at_each_once() {
    let n = 30_000;
    let weights: Vec<u64> = (0..n).map(|i| i % 3).collect();
    let view = view(&weights);
    let asked = std::cell::Cell::new(0u64);
    let is_up = |peer: PeerIndex| {
        asked.set(asked.get() + 1);
        peer.is_multiple_of(300)
    };
    for index in 0..50 {
        let tree = Tree::new(&view, Route::Turbine { fanout: 200 }, 1, &[7; 32], slot(index));
        let (mut todo, mut reached) = (Vec::new(), 0);
        let before = asked.get();
        let stepped = tree.reach(1, is_up, &mut todo, |_| reached += 1);
        assert!(reached > 0 && stepped > n / 2, "{reached} {stepped}");
        assert!(asked.get() - before <= n, "{}", asked.get() - before);
    }
}

#[test]
fn the_largest_and_smallest_networks_are_covered() {
    for n in [2usize, 3, 4, 200, 201, 202, 203, 999, 2000] {
        for route in [Route::Direct, Route::Rotor, Route::Turbine { fanout: 200 }] {
            check(&vec![5; n], route, (n / 2) as u32, 3);
            let mut lone = vec![0; n];
            lone[0] = 1;
            check(&lone, route, 0, 3);
            check(&lone, route, 1, 3);
        }
    }
}

#[test]
fn internal_positions_are_those_with_children() {
    for fanout in [1, 2, 3, 5, 200] {
        for n in 0..60 {
            let layers = Layers::new(n, fanout);
            let internal = (0..n).filter(|p| layers.children(*p).next().is_some()).count();
            assert_eq!(layers.internal(), internal, "n {n}, fanout {fanout}");
            for p in 0..internal {
                assert!(layers.children(p).next().is_some(), "they stand first");
            }
        }
    }
}

#[test]
fn no_relay_serves_more_than_its_fanout_or_one_more_than_its_layer() {
    for n in [50, 300, 1000] {
        let layers = Layers::new(n, 10);
        for (low, high) in [(1, 11), (11, 111)] {
            let loads: Vec<_> = (low..high.min(n)).map(|p| layers.children(p).count()).collect();
            let (min, max) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            assert!(max - min <= 1 && *max <= 10, "{n}: {min} to {max}");
        }
    }
}

#[test]
fn roots_follow_the_weights_and_change_with_the_shred() {
    let view = view(&[1, 10, 100, 1]);
    let mut count = [0; 4];
    for set in 0..200u8 {
        for index in 0..64 {
            let mut out = Vec::new();
            Tree::new(&view, Route::Rotor, 0, &[set; 32], slot(index)).children(0, &mut out);
            count[out[0] as usize] += 1;
        }
    }
    assert_eq!(count[0], 0, "the leader is no relay of its own shreds");
    let total: u32 = count.iter().sum();
    let share = f64::from(count[2]) / f64::from(total);
    assert!((share - 100.0 / 111.0).abs() < 0.02, "{share}");
}

#[test]
fn the_tree_is_pinned() {
    let view = view(&[3, 1, 4, 1, 5, 9, 2, 6, 0, 0]);
    let tree = Tree::new(&view, Route::Turbine { fanout: 2 }, 2, &[1; 32], slot(0));
    let edges: Vec<(u32, Vec<u32>)> = (0..10)
        .map(|sender| {
            let mut out = Vec::new();
            tree.children(sender, &mut out);
            (sender, out)
        })
        .filter(|(_, out)| !out.is_empty())
        .collect();
    assert_eq!(edges, [(1, vec![4, 5, 8]), (2, vec![1]), (4, vec![7, 6, 9]), (5, vec![0, 3])]);
}

#[test]
fn wire_numbers_round_trip_and_unknown_ones_are_none() {
    let regional = Route::Regional { roots: 9 };
    for route in [Route::Direct, Route::Rotor, Route::Turbine { fanout: 7 }, regional] {
        let (number, param) = route.to_wire();
        assert_eq!(Route::from_wire(number, param), Some(route));
    }
    for (number, param) in [(0, 1), (1, 0), (2, 5), (3, 0), (255, 255)] {
        assert_eq!(Route::from_wire(number, param), None);
    }
}
