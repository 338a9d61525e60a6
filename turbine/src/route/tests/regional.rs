//! The regional tree: for any plan, honest or not, every member exactly once, the same tree at
//! every node, and nobody with more of a set than the rule allows.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{reached_plainly, walk};
use crate::membership::PeerIndex;
use crate::plan::{Entry, MAX_HEADS, Plan, PlanView};
use crate::route::{Route, Slot, Tree};

/// A plan of `regions` regions dealt round-robin, every third member of each a head of any class,
/// and the first members as roots, each of another class than the one before.
fn plan(weights: &[u64], regions: usize, territories: usize, roots: usize) -> PlanView {
    let weighted = weights.iter().any(|w| *w > 0);
    let relays = |i: usize| weights[i] > 0 || !weighted;
    let entry = |i: usize| Entry {
        region: (i % regions) as u16,
        territory: (i % regions % territories) as u8,
        relays: relays(i),
        heads: match i / regions {
            MAX_HEADS.. => 0,
            place if place % 3 == 0 => 0x7f,
            _ => 1 << (i % 7),
        },
    };
    let n = weights.len();
    let entries: Vec<Entry> = (0..n).map(entry).collect();
    let of = (0..n).filter(|i| relays(*i)).take(roots);
    let roots: Vec<u32> = of.map(|i| Plan::root(i as PeerIndex, (i % 7) as u8)).collect();
    PlanView::from_entries(7, weights, &entries, &roots).expect("in its bounds")
}

fn tree(view: &PlanView, roots: u16, leader: PeerIndex, set: u8, slot: Slot) -> Tree<'_> {
    Tree::new(view, Route::Regional { roots }, leader, &[set; 32], slot)
}

fn weights() -> impl Strategy<Value = Vec<u64>> {
    let weight = prop_oneof![3 => 1u64..1000, 1 => Just(0), 1 => any::<u64>()];
    prop_oneof![
        4 => proptest::collection::vec(weight, 2..300),
        1 => (2usize..300).prop_map(|n| vec![0; n]),
    ]
}

fn slots() -> impl Strategy<Value = Slot> {
    (1u8..=40, 0u8..=24, any::<u8>()).prop_map(|(k, m, at)| Slot { index: at % (k + m), k, m })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn every_member_exactly_once(
        weights in weights(), regions in 1usize..40, territories in 1usize..5,
        roots in 0usize..70, used in 1u16..80, leader: u32, set: u8, slot in slots(),
    ) {
        let n = weights.len();
        let view = plan(&weights, regions.min(n), territories, roots);
        let leader = leader % n as u32;
        let tree = tree(&view, used, leader, set, slot);
        let (count, hops) = walk(&tree, n, leader);
        for (peer, count) in count.iter().enumerate() {
            prop_assert_eq!(*count, u32::from(peer as u32 != leader), "member {}", peer);
        }
        let most = Route::Regional { roots: used }.hops(n, true);
        prop_assert!(hops <= most);
    }

    /// Words of a hostile leader: refused, or a tree that reaches everybody once.
    #[test]
    fn no_words_of_a_leader_make_a_tree_that_is_none(
        entries in proptest::collection::vec((0u16..70, 0u8..9, any::<bool>(), any::<u8>()), 2..60),
        roots in proptest::collection::vec((0u32..70, 0u8..9), 0..20),
        weights in proptest::collection::vec(0u64..3, 60), leader: u32, set: u8, slot in slots(),
    ) {
        let entry = |(region, territory, relays, heads)| Entry { region, territory, relays, heads };
        let entries: Vec<Entry> = entries.into_iter().map(entry).collect();
        // Territories of regions that agree more often than any two words would.
        let entries: Vec<Entry> = entries
            .iter()
            .map(|e| Entry { territory: (e.region % (1 + u16::from(e.territory) / 8)) as u8, ..*e })
            .collect();
        let n = entries.len();
        let roots: Vec<u32> = roots.into_iter().map(|(m, class)| Plan::root(m, class)).collect();
        if let Ok(view) = PlanView::from_entries(7, &weights[..n], &entries, &roots) {
            let leader = leader % n as u32;
            let (count, _) = walk(&tree(&view, 9, leader, set, slot), n, leader);
            let expected: Vec<u32> = (0..n as u32).map(|i| u32::from(i != leader)).collect();
            prop_assert_eq!(count, expected);
        }
    }

    #[test]
    fn whoever_is_not_up_is_replaced_by_its_children(
        weights in weights(), regions in 1usize..20, leader: u32, set: u8, slot in slots(), up: u64,
    ) {
        let n = weights.len();
        let view = plan(&weights, regions.min(n), 2, 20);
        let leader = leader % n as u32;
        let tree = tree(&view, 12, leader, set, slot);
        let up: Vec<bool> = (0..n).map(|i| up.rotate_left(i as u32 * 7) & 1 == 1).collect();
        for sender in (0..n as u32).step_by(9).chain([leader]) {
            let (mut todo, mut out) = (Vec::new(), Vec::new());
            let stepped = tree.reach(sender, |i| up[i as usize], &mut todo, |i| out.push(i));
            out.sort_unstable();
            prop_assert_eq!((out, stepped), reached_plainly(&tree, sender, &up));
        }
    }
}

/// How many shreds of a set each member carries, as root and as head.
fn carried(view: &PlanView, leader: PeerIndex, set: u8, (k, m): (u8, u8)) -> [Vec<usize>; 2] {
    let n = view.relays().len() + view.leaves().len();
    let mut carried = [vec![0; n], vec![0; n]];
    for index in 0..k + m {
        let tree = tree(view, 24, leader, set, Slot { index, k, m });
        let (mut roots, mut below) = (Vec::new(), Vec::new());
        tree.children(leader, &mut roots);
        for root in roots {
            carried[0][root as usize] += 1;
            tree.children(root, &mut below);
        }
        for head in below {
            let mut members = Vec::new();
            tree.children(head, &mut members);
            carried[1][head as usize] += usize::from(!members.is_empty());
        }
    }
    carried
}

#[test]
fn nobody_carries_another_shred_before_all_others_have_one() {
    // Weights that fall as stakes do: the first would have most of everything.
    let weights: Vec<u64> = (1..=600u64).map(|i| 1_000_000_000 / (i * i)).collect();
    let view = plan(&weights, 15, 1, 24);
    for set in 0..20 {
        for (k, m) in [(22u8, 11u8), (32, 16), (32, 32), (2, 6)] {
            let [roots, heads] = carried(&view, 300, set, (k, m));
            // Of 24 roots the data has its share.
            let (data, best) = (usize::from(k), (24 * usize::from(k)).div_ceil((k + m).into()));
            let most = data.div_ceil(best).max(usize::from(m).div_ceil(24 - best));
            assert!(roots.iter().all(|c| *c <= most), "{roots:?}");
            // Of the 40 members of a region at least 14 may be head for any root.
            let most = usize::from(k + m).div_ceil(14);
            assert!(heads.iter().all(|c| *c <= most), "{heads:?}");
        }
    }
}

#[test]
fn weight_decides_who_relays_and_zero_weight_never_does() {
    let mut weights = vec![10u64; 300];
    (0..300).step_by(2).for_each(|i| weights[i] = 0);
    weights[1] = 1_000;
    // An odd number of regions: each has members of either weight.
    let view = plan(&weights, 5, 1, 40);
    let mut work = BTreeMap::<PeerIndex, usize>::new();
    for set in 0..100 {
        let [roots, heads] = carried(&view, 0, set, (8, 8));
        for (peer, carried) in (0..).zip(roots).chain((0..).zip(heads)) {
            *work.entry(peer).or_default() += carried;
        }
    }
    assert!(work.iter().all(|(peer, work)| weights[*peer as usize] > 0 || *work == 0));
    let mean = work.values().sum::<usize>() as f64 / 150.0;
    assert!(work[&1] as f64 > 2.0 * mean, "{} against {mean}", work[&1]);
}

#[test]
fn data_goes_over_better_roots_than_coding_does() {
    let view = plan(&[5; 400], 20, 1, 36);
    for set in 0..50 {
        for index in 0..33 {
            let mut out = Vec::new();
            tree(&view, 30, 399, set, Slot { index, k: 22, m: 11 }).children(399, &mut out);
            assert_eq!(out.len(), 1);
            let expected = if index < 22 { 0..20 } else { 20..30 };
            assert!(expected.contains(&out[0]), "shred {index} over root {}", out[0]);
        }
    }
}

/// A dead root or head is replaced by its children, and each place is looked at once.
#[test]
fn stepping_over_thousands_looks_at_each_once() {
    let n = 30_000;
    let view = plan(&vec![1; n], 1_250, 3, 60);
    let asked = std::cell::Cell::new(0);
    let is_up = |peer: PeerIndex| {
        asked.set(asked.get() + 1);
        peer % 300 == 150
    };
    for index in 0..48 {
        let tree = tree(&view, 60, 1, 3, Slot { index, k: 32, m: 16 });
        let (mut todo, mut reached) = (Vec::new(), 0);
        asked.set(0);
        let stepped = tree.reach(1, is_up, &mut todo, |_| reached += 1);
        assert!(reached > 50 && stepped as usize > n / 2, "{reached} {stepped}");
        // Twice only where the first look is whether all of them are up.
        assert!(asked.get() <= n + 3, "{}", asked.get());
    }
}

#[test]
fn the_tree_is_pinned() {
    let view = plan(&[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8], 3, 1, 4);
    let edges = |index| -> Vec<(u32, Vec<u32>)> {
        let tree = tree(&view, 4, 2, 1, Slot { index, k: 4, m: 2 });
        let below = |sender| {
            let mut out = Vec::new();
            tree.children(sender, &mut out);
            (sender, out)
        };
        (0..12).map(below).filter(|(_, out)| !out.is_empty()).collect()
    };
    let [data, coding] = [0, 5].map(edges);
    assert_eq!(
        data,
        [(0, vec![7, 11, 3, 6, 9]), (2, vec![0]), (7, vec![1, 4, 10]), (11, vec![5, 8])]
    );
    assert_eq!(
        coding,
        [(1, vec![4, 7, 10]), (2, vec![3]), (3, vec![1, 11, 0, 6, 9]), (11, vec![5, 8])]
    );
}
