//! The graph is one that gossip can live on, and both functions are pinned: every node must
//! compute the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::epoch::Epoch;
use crate::membership::{Member, Membership, sample};
use crate::schedule::Schedule;
use crate::testing;

fn table(members: usize) -> Vec<PeerId> {
    sample(1, &vec![1; members]).0.members().iter().map(Member::peer).collect()
}

/// Each pair is asked for once; that both ends agree has a test of its own.
fn graph(table: &[PeerId]) -> Vec<Vec<PeerIndex>> {
    let mut graph = vec![Vec::new(); table.len()];
    for (index, one) in (0..).zip(table) {
        for (other_index, other) in (0..index).zip(table) {
            if linked(one, other, table.len()) {
                graph[index as usize].push(other_index);
                graph[other_index as usize].push(index);
            }
        }
    }
    graph
}

/// The members that are `hops` links away from the first at most.
fn within(graph: &[Vec<PeerIndex>], hops: usize) -> usize {
    let mut known = BTreeSet::from([0]);
    for _ in 0..hops {
        let next: Vec<_> = known.iter().flat_map(|at| &graph[*at as usize]).copied().collect();
        known.extend(next);
    }
    known.len()
}

#[test]
fn small_tables_are_linked_completely() {
    for members in [1, 2, 8, LINKS, LINKS + 1] {
        let table = table(members);
        for me in 0..members as PeerIndex {
            let others = (0..members as PeerIndex).filter(|other| *other != me);
            assert_eq!(links(me, &table), others.collect::<Vec<_>>());
        }
    }
    assert!(links(0, &[]).is_empty());
    assert!(links(8, &table(8)).is_empty(), "no member has this index");
}

#[test]
fn both_ends_know_of_a_link() {
    let table = table(200);
    for (index, one) in table.iter().enumerate() {
        assert!(!linked(one, one, table.len()));
        for other in &table[..index] {
            assert_eq!(linked(one, other, table.len()), linked(other, one, table.len()));
        }
    }
    for (me, expected) in (0..).zip(graph(&table)) {
        assert_eq!(links(me, &table), expected);
    }
}

#[test]
fn large_tables_are_connected_and_nobody_has_few_or_many_links() {
    for members in [LINKS + 2, 200, 2_000] {
        let graph = graph(&table(members));
        let degrees: Vec<usize> = graph.iter().map(Vec::len).collect();
        let mean = degrees.iter().sum::<usize>() as f64 / members as f64;
        assert!((mean - LINKS as f64).abs() < 1.5, "{members}: {mean}");
        // Four meshes' worth at least; at most what a node can hold connections to.
        let (least, most) = (degrees.iter().min().unwrap(), degrees.iter().max().unwrap());
        assert!(*least > 16 && *most < 96, "{members}: {least} to {most}");
        assert_eq!(within(&graph, 3), members);
    }
}

/// Who joins or leaves changes few links of others: a growing table only loses links, evenly.
#[test]
fn a_link_depends_on_its_ends_and_the_size_alone() {
    let table = table(400);
    let (half, _) = table.split_at(200);
    let pair = |a: &PeerId, b: &PeerId| linked(a, b, 400);
    for a in half.iter().take(20) {
        for b in half {
            assert_eq!(pair(a, b), links_of(a, &table).contains(b));
            assert!(!linked(a, b, 400) || linked(a, b, 200));
        }
    }
}

fn links_of(peer: &PeerId, table: &[PeerId]) -> Vec<PeerId> {
    let me = table.iter().position(|other| other == peer).unwrap();
    links(me as PeerIndex, table).into_iter().map(|index| table[index as usize]).collect()
}

#[test]
fn ranks_order_holders_anew_for_each_message() {
    let order = |root: &B256| {
        let mut holders: Vec<PeerIndex> = (0..50).collect();
        holders.sort_by_key(|holder| rank(root, *holder));
        holders
    };
    let roots: Vec<B256> =
        (0..200u64).map(|i| B256::from(alloy_primitives::U256::from(i))).collect();
    let orders: Vec<_> = roots.iter().map(order).collect();
    assert_eq!(order(&roots[7]), orders[7], "the same every time");
    let distinct: BTreeSet<_> = orders.iter().collect();
    assert_eq!(distinct.len(), roots.len());
    // The work is spread: everybody is among the first two sometimes, nobody often (8 expected).
    for holder in 0..50 {
        let turns = orders.iter().filter(|order| order[..HOLDERS].contains(&holder)).count();
        assert!((1..=24).contains(&turns), "{holder}: {turns}");
    }
}

#[test]
fn the_functions_are_pinned() {
    let (a, b) = (PeerId([1; 32]), PeerId([2; 32]));
    let context = "fragcast 2026 gossip links";
    let hash = |parts: &[&[u8]]| {
        let hash = blake3::derive_key(context, &parts.concat());
        u64::from_le_bytes(*hash.first_chunk().unwrap())
    };
    let pair = hash(&[b"pair", &[1; 32], &[2; 32]]);
    // Linked in every table in which the pair's share is above its hash, and in no other.
    let largest = (50..100_000).filter(|members| linked(&a, &b, *members)).max();
    let expected = (50..100_000).filter(|n| pair < (48.0 / (n - 1) as f64 * 2f64.powi(64)) as u64);
    assert_eq!(largest, expected.max());
    let rank_of = hash(&[b"rank", &[3; 32], &7u32.to_le_bytes()]);
    assert_eq!(rank(&B256::repeat_byte(3), 7), rank_of);
}

#[test]
fn neighbours_are_those_of_any_table_that_has_us() {
    let (members, _) = sample(1, &[1; 5]);
    let ids: Vec<PeerId> = members.members().iter().map(Member::peer).collect();
    let epoch = |from, places: &[usize]| {
        let some = places.iter().map(|place| members.members()[*place].clone()).collect();
        let table = Arc::new(Membership::new(1, some).unwrap());
        let schedule = Schedule::new(vec![testing::gateway().address()], 30).unwrap();
        Arc::new(Epoch::new(1, from, table, schedule, []).unwrap())
    };
    let epochs = [epoch(0, &[0, 1]), epoch(10, &[0, 2, 3]), epoch(20, &[2, 4])];
    let view = EpochsView::new(epochs.to_vec()).unwrap();
    assert_eq!(neighbours(&ids[0], &view), BTreeSet::from([ids[1], ids[2], ids[3]]));
    assert_eq!(neighbours(&ids[4], &view), BTreeSet::from([ids[2]]));
}
