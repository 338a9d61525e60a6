//! The rule by which nodes agree on the first block of a list.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::epoch::Epoch;
use crate::membership::Membership;
use crate::schedule::Schedule;

const TERM: u64 = 30;

fn list(gateways: &[u8]) -> Vec<Address> {
    gateways.iter().map(|n| Address::with_last_byte(*n)).collect()
}

fn epochs(all: &[(u64, &[u8])]) -> EpochsView {
    let members = Arc::new(Membership::new(5, Vec::new()).unwrap());
    let epoch = |(from_block, gateways): &(u64, &[u8])| {
        let schedule = Schedule::new(list(gateways), TERM).unwrap();
        Arc::new(Epoch::new(5, *from_block, members.clone(), schedule, []).unwrap())
    };
    EpochsView::new(all.iter().map(epoch).collect()).unwrap()
}

/// Of ten nodes of weight 1, `by_block` so many of the others.
fn support(head: u64, by_block: &[(u64, u128)]) -> Support {
    Support { head: Some(head), own: 1, all: 10, by_block: by_block.iter().copied().collect() }
}

fn wants(gateways: &[u8]) -> Rotation {
    let mut rotation = Rotation::new(list(&[1, 2]));
    rotation.want(list(gateways));
    rotation
}

fn at(change: Option<Change>) -> Option<(u64, Why)> {
    change.map(|change| (change.from_block, change.why))
}

#[test]
fn a_new_list_takes_effect_with_a_term_that_lies_beyond_the_window() {
    let now = epochs(&[(0, &[1, 2])]);
    let next = |head| at(wants(&[1, 2, 3]).next(&now, &support(head, &[])));
    assert_eq!(next(0), Some((30, Why::New)));
    assert_eq!(next(22), Some((30, Why::New)), "block 29 is the last of the window");
    assert_eq!(next(23), Some((60, Why::New)), "block 30 may be under way");
    assert_eq!(next(u64::MAX - 3), None, "no overflow at the end of numbers");
    assert_eq!(at(Rotation::new(list(&[1, 2])).next(&now, &support(9, &[]))), None);
}

#[test]
fn two_sides_of_the_last_moment_agree_with_the_many() {
    let [before, now] = [epochs(&[(0, &[1, 2])]), epochs(&[(0, &[1, 2]), (30, &[1, 2, 3])])];
    // Learnt at block 23, when six others have announced 30.
    let mut late = wants(&[1, 2, 3]);
    assert_eq!(at(late.next(&before, &support(23, &[(30, 6)]))), Some((30, Why::Agreed)));
    // Five of ten are no majority yet.
    assert_eq!(at(late.next(&before, &support(23, &[(30, 5)]))), Some((60, Why::New)));
    // Learnt at block 22, but six others came too late: it waits for them.
    let mut early = wants(&[1, 2, 3]);
    assert_eq!(at(early.next(&now, &support(25, &[(30, 2), (60, 6)]))), Some((60, Why::Agreed)));
    // With its own word there is a majority.
    assert_eq!(at(early.next(&now, &support(25, &[(30, 5), (60, 4)]))), None);
    // Whoever announced 60 for himself comes back to 30 with the others.
    let alone = epochs(&[(0, &[1, 2]), (60, &[1, 2, 3])]);
    assert_eq!(at(early.next(&alone, &support(31, &[(30, 9)]))), Some((30, Why::Agreed)));
    // Unless it has taken messages that do not fit.
    early.refuse(30);
    assert_eq!(at(early.next(&alone, &support(31, &[(30, 9)]))), None);
}

#[test]
fn a_list_that_few_go_by_waits_three_terms_and_no_longer() {
    let mut rotation = wants(&[1, 2, 3]);
    let mut from = 30;
    for _ in 0..MAX_POSTPONED {
        let now = epochs(&[(0, &[1, 2]), (from, &[1, 2, 3])]);
        assert_eq!(at(rotation.next(&now, &support(from - 2, &[(from, 4)]))), None, "not yet due");
        let change = rotation.next(&now, &support(from - 1, &[(from, 4)]));
        assert_eq!(at(change), Some((from + TERM, Why::Postponed)));
        from += TERM;
    }
    let now = epochs(&[(0, &[1, 2]), (from, &[1, 2, 3])]);
    assert_eq!(at(rotation.next(&now, &support(from - 1, &[(from, 4)]))), None);
    assert_eq!(rotation.postponed(), MAX_POSTPONED);
    // Who is connected to nobody has nobody to wait for.
    let now = epochs(&[(0, &[1, 2]), (30, &[1, 2, 3])]);
    let alone = Support { all: 1, ..support(29, &[]) };
    assert_eq!(at(wants(&[1, 2, 3]).next(&now, &alone)), None);
}

#[test]
fn a_change_of_mind_replaces_what_is_announced_while_its_blocks_are_not_taken() {
    let now = epochs(&[(0, &[1, 2]), (60, &[1, 2, 3])]);
    assert_eq!(at(wants(&[1, 2, 3, 4]).next(&now, &support(40, &[]))), Some((60, Why::New)));
    assert_eq!(at(wants(&[1, 2]).next(&now, &support(40, &[]))), Some((60, Why::New)), "back");
    // From block 53 on the window has block 60: the other list comes after it.
    assert_eq!(at(wants(&[1, 2, 3, 4]).next(&now, &support(53, &[]))), None);
    assert_eq!(at(wants(&[1, 2, 3, 4]).next(&now, &support(60, &[]))), Some((90, Why::New)));
}

#[test]
fn who_knows_no_head_takes_what_most_go_by() {
    let now = epochs(&[(0, &[1, 2])]);
    let unknown = |by_block: &[(u64, u128)]| Support { head: None, ..support(0, by_block) };
    assert_eq!(at(wants(&[1, 2, 3]).next(&now, &unknown(&[]))), None);
    assert_eq!(at(wants(&[1, 2, 3]).next(&now, &unknown(&[(90, 6)]))), Some((90, Why::Agreed)));
    assert_eq!(at(Rotation::new(list(&[1, 2])).next(&now, &unknown(&[(90, 6)]))), None);
    // What it knew before it was away stays, and the newest is added.
    let saved = epochs(&[(0, &[1, 2]), (60, &[1, 2, 3])]);
    let change = wants(&[3, 4]).next(&saved, &unknown(&[(150, 6)])).unwrap();
    assert_eq!((change.from_block, change.instead), (150, false));
    // A guess of its own gives way.
    let guessed = epochs(&[(0, &[1, 2]), (60, &[1, 2, 3]), (90, &[3, 4])]);
    let change = wants(&[3, 4]).next(&guessed, &unknown(&[(150, 6)])).unwrap();
    assert_eq!((change.from_block, change.instead), (150, true));
    assert_eq!(at(wants(&[3, 4]).next(&guessed, &unknown(&[(90, 6)]))), None);
    assert_eq!(at(wants(&[3, 4]).next(&guessed, &unknown(&[(60, 6)]))), None, "not before");
}

#[test]
fn no_majority_moves_a_list_to_where_no_term_begins_or_far_away() {
    let now = epochs(&[(0, &[1, 2])]);
    let next = |block| at(wants(&[1, 2, 3]).next(&now, &support(10, &[(block, 9)])));
    for block in [0, 31, 59, 300, 3_000_000, u64::MAX] {
        assert_eq!(next(block), Some((30, Why::New)), "{block}");
    }
    assert_eq!(next(60), Some((60, Why::Agreed)));
}

proptest! {
    /// Nodes that learn of a registration at any moments around a term's first block, and of one
    /// another's announcements a block later: when it begins, they go by one first block.
    #[test]
    fn nodes_that_hear_one_another_begin_together(
        learnt in proptest::collection::vec(0u64..40, 2..12),
        hears_after in 1u64..4,
    ) {
        let n = learnt.len();
        let mut rotations: Vec<Rotation> = vec![wants(&[1, 2]); n];
        // First blocks, as each node has announced them, by the block at which it did.
        let mut announced: Vec<Vec<(u64, Option<u64>)>> = vec![vec![(0, None)]; n];
        for head in 0..130u64 {
            for node in 0..n {
                if learnt[node] == head {
                    rotations[node].want(list(&[1, 2, 3]));
                }
                let told = |other: usize| {
                    let heard = head.saturating_sub(hears_after);
                    let at = announced[other].iter().rev().find(|(at, _)| *at <= heard);
                    at.and_then(|(_, from)| *from)
                };
                let mut by_block = BTreeMap::<u64, u128>::new();
                for from in (0..n).filter(|other| *other != node).filter_map(told) {
                    *by_block.entry(from).or_default() += 1;
                }
                let support = Support { head: Some(head), own: 1, all: n as u128, by_block };
                let mine = announced[node].last().and_then(|(_, from)| *from);
                let view = match mine {
                    None => epochs(&[(0, &[1, 2])]),
                    Some(from) => epochs(&[(0, &[1, 2]), (from, &[1, 2, 3])]),
                };
                if let Some(change) = rotations[node].next(&view, &support) {
                    announced[node].push((head, Some(change.from_block)));
                }
            }
        }
        let firsts: Vec<Option<u64>> =
            announced.iter().map(|all| all.last().and_then(|(_, from)| *from)).collect();
        prop_assert!(firsts[0].is_some());
        prop_assert!(firsts.iter().all(|first| *first == firsts[0]), "{firsts:?}");
    }
}
