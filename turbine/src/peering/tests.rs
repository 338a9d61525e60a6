//! Both ends agree, nobody has too many, and the tree has its edges.

use std::collections::BTreeSet;

use fragcast_shredder::CodeRate;

use super::*;
use crate::membership::sample;
use crate::plan::{Entry, Plan};
use crate::route::Deal;

/// 600 members with falling weights, 160 connections each.
const N: u32 = 600;
const MOST: usize = 160;
const LEADER: PeerIndex = 77;

fn weights() -> Vec<u64> {
    (0..u64::from(N)).map(|i| 1 + 100_000 / (1 + i * 7 % u64::from(N))).collect()
}

fn ring() -> Ring {
    Ring::of_weights(&[7; 32], &weights(), MOST)
}

fn all(ring: &Ring, leads: &[Leads<'_>]) -> Vec<BTreeSet<PeerIndex>> {
    (0..N).map(|me| wanted(ring, leads, me, usize::MAX).into_iter().collect()).collect()
}

fn both_ends_agree(wanted: &[BTreeSet<PeerIndex>]) {
    for (me, peers) in (0..).zip(wanted) {
        assert!(!peers.contains(&me) && peers.len() <= MOST, "{me}: {}", peers.len());
        assert!(peers.iter().all(|peer| wanted[*peer as usize].contains(&me)), "{me}");
    }
}

/// Regions of 40 members each, of which every eighth relays, and some of those as roots.
fn plan() -> PlanView {
    let (members, _) = sample(5, &weights());
    let relays = |member: u32| member.is_multiple_of(8);
    let entry = |member: u32| Entry {
        region: (member / 40) as u16,
        territory: 0,
        relays: relays(member),
        heads: if relays(member) { 0x7f } else { 0 },
    };
    let entries = (0..N).map(|member| entry(member).to_bits());
    let roots =
        (0..N).filter(|member| member.is_multiple_of(120)).map(|member| Plan::root(member, 0));
    let table = members.hash();
    let entries = entries.chain(roots).collect();
    PlanView::new(&Plan { table, entries, ..Plan::default() }, &members).unwrap()
}

#[test]
fn whom_a_member_wants_before_there_is_a_plan_wants_it() {
    let ring = ring();
    let leads = [Leads { leader: LEADER, plan: None }];
    let wanted = all(&ring, &leads);
    both_ends_agree(&wanted);
    for peers in &wanted {
        let landmarks = peers.iter().filter(|peer| ring.landmarks().contains(peer)).count();
        assert!(peers.len() >= 20 && landmarks >= Shares::of(N as usize, MOST).landmarks_each);
    }
    assert!(ring.landmarks().iter().all(|l| wanted[LEADER as usize].contains(l) || *l == LEADER));
    // The heaviest.
    let weights = weights();
    let lightest = ring.landmarks().iter().map(|l| weights[*l as usize]).min().unwrap();
    assert!(weights.iter().filter(|weight| **weight > lightest).count() < ring.landmarks().len());
}

#[test]
fn the_ring_alone_connects_everybody() {
    for (n, most) in [(3, 1), (12, 6), (100, 10), (600, 160)] {
        let ring = Ring::of_weights(&[1; 32], &vec![1; n], most);
        let (mut seen, mut next) = (BTreeSet::from([0]), vec![0]);
        while let Some(member) = next.pop() {
            next.extend(ring.neighbours(member).filter(|peer| seen.insert(*peer)));
        }
        assert_eq!(seen.len(), n);
    }
}

#[test]
fn with_a_plan_every_edge_of_its_trees_is_a_connection() {
    let (ring, view) = (ring(), plan());
    let leads = [Leads { leader: LEADER, plan: Some(&view) }];
    let wanted = all(&ring, &leads);
    both_ends_agree(&wanted);
    let regions = view.regions();
    let rate = CodeRate { k: 20, m: 10, sets: 1, shard_len: 900 };
    let deal = Deal::of_model(regions, 10, LEADER, [0, 0], rate);
    let is_edge = |a: PeerIndex, b: PeerIndex| a == b || wanted[a as usize].contains(&b);
    for index in 0..30 {
        let root = deal.root(0, index).unwrap();
        assert!(is_edge(LEADER, root));
        for (number, region) in (0..).zip(regions.regions()) {
            let head = match regions.of(root) == number {
                true => root,
                false => deal.head(regions, number, index).unwrap(),
            };
            assert!(is_edge(root, head) && is_edge(LEADER, head));
            assert!(region.members.iter().all(|m| *m == LEADER || is_edge(head, *m)));
        }
    }
}

#[test]
fn what_matters_most_stays_where_there_is_no_room() {
    let (ring, view) = (ring(), plan());
    let leads = [Leads { leader: LEADER, plan: Some(&view) }];
    let few = wanted(&ring, &leads, LEADER, 5);
    let roots: Vec<PeerIndex> = (0..N).filter(|member| member.is_multiple_of(120)).collect();
    assert_eq!(few, roots);
    assert_eq!(wanted(&ring, &leads, 41, 3), [40, 48, 56], "the relays of its region");
}
