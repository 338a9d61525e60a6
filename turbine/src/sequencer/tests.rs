//! Order, attempts, duplicates, bounds.

use fragcast_shredder::{BlockBuilder, GatewayKey, Message, MessageKey, VerifiedMessage};
use proptest::prelude::*;

use super::*;
use crate::output::{Times, Via};
use crate::testing::{env, env_at, frag, frag_with, seal, sign};

fn by(via: Via, message: &VerifiedMessage, attempt: u8) -> Arc<Delivered> {
    let (block, index) = (message.message().block(), message.message().index().unwrap());
    let key = MessageKey { block, attempt, message: index };
    let message = message.clone();
    Arc::new(Delivered { key, message, times: Times::default(), via, rank: 0 })
}

fn delivered(message: &VerifiedMessage, attempt: u8) -> Arc<Delivered> {
    by(Via::Turbine, message, attempt)
}

fn push(sequencer: &mut Sequencer, message: &VerifiedMessage, attempt: u8) -> (Fate, Vec<String>) {
    let mut out = Vec::new();
    let fate = sequencer.push(delivered(message, attempt), &mut out);
    (fate, out.iter().map(describe).collect())
}

fn describe(output: &Output) -> String {
    match output {
        Output::Message(m) => format!("{}.{}.{}", m.key.block, m.key.attempt, m.key.message),
        Output::Retracted { block, attempt, reason } => {
            format!("-{block}.{attempt} {}", reason.name())
        }
    }
}

fn block(number: u64, frags: u64) -> Vec<VerifiedMessage> {
    let frags_of = (0..frags).map(|seq| frag(number, seq));
    std::iter::once(env(number)).chain(frags_of).chain([seal(number, frags)]).collect()
}

#[test]
fn what_comes_early_waits() {
    let mut sequencer = Sequencer::default();
    assert_eq!(push(&mut sequencer, &seal(7, 2), 0), (Fate::Waiting, vec![]));
    assert_eq!(push(&mut sequencer, &frag(7, 1), 0), (Fate::Waiting, vec![]));
    assert_eq!(push(&mut sequencer, &env(7), 0), (Fate::Passed, vec!["7.0.0".into()]));
    let rest = vec!["7.0.1".into(), "7.0.2".into(), "7.0.3".into()];
    assert_eq!(push(&mut sequencer, &frag(7, 0), 0), (Fate::Passed, rest));
    assert_eq!((sequencer.opened(), sequencer.sealed()), (Some(7), Some(7)));
    assert_eq!(sequencer.waiting(), 0);
}

#[test]
fn blocks_interleave() {
    let mut sequencer = Sequencer::default();
    for (message, expected) in [
        (env(7), vec!["7.0.0"]),
        (env(8), vec!["8.0.0"]),
        (frag(8, 0), vec!["8.0.1"]),
        (frag(7, 0), vec!["7.0.1"]),
        (seal(7, 1), vec!["7.0.2"]),
    ] {
        assert_eq!(push(&mut sequencer, &message, 0).1, expected);
    }
    assert_eq!((sequencer.opened(), sequencer.sealed()), (Some(8), Some(7)));
}

#[test]
fn the_same_again_is_a_duplicate_and_something_else_a_conflict() {
    let mut sequencer = Sequencer::default();
    for message in [env(7), frag(7, 0), frag(7, 2)] {
        push(&mut sequencer, &message, 0);
    }
    for message in [env(7), frag(7, 0), frag(7, 2)] {
        assert_eq!(push(&mut sequencer, &message, 0), (Fate::Duplicate, vec![]));
    }
    for message in [env_at(7, 1), frag_with(7, 0, false, 9), frag_with(7, 2, false, 9)] {
        assert_eq!(push(&mut sequencer, &message, 0), (Fate::Conflict, vec![]));
    }
}

#[test]
fn a_higher_attempt_takes_over_with_its_env() {
    let mut sequencer = Sequencer::default();
    push(&mut sequencer, &env(7), 0);
    push(&mut sequencer, &frag(7, 0), 0);
    // Its frag alone takes nothing over.
    assert_eq!(push(&mut sequencer, &frag_with(7, 0, true, 9), 1), (Fate::Waiting, vec![]));
    assert_eq!(push(&mut sequencer, &frag(7, 1), 0).1, ["7.0.2"]);
    assert_eq!(
        push(&mut sequencer, &env_at(7, 9), 1),
        (Fate::Passed, vec!["-7.0 superseded".into(), "7.1.0".into(), "7.1.1".into()])
    );
    assert_eq!(push(&mut sequencer, &frag(7, 2), 0), (Fate::Stale, vec![]));
    assert_eq!(push(&mut sequencer, &seal(7, 1), 1).1, ["7.1.2"]);
    // A sealed block can be rebuilt too.
    assert_eq!(push(&mut sequencer, &env_at(7, 10), 5).1, ["-7.1 superseded", "7.5.0"]);
}

#[test]
fn an_attempt_of_which_nothing_was_handed_on_is_not_retracted() {
    let mut sequencer = Sequencer::default();
    push(&mut sequencer, &frag(7, 0), 0);
    assert_eq!(push(&mut sequencer, &env_at(7, 9), 1).1, ["7.1.0"]);
    assert_eq!(sequencer.waiting(), 0);
}

#[test]
fn bad_parity_voids_the_attempt_once() {
    let mut sequencer = Sequencer::default();
    push(&mut sequencer, &env(7), 0);
    push(&mut sequencer, &frag(7, 1), 0);
    let mut out = Vec::new();
    sequencer.bad_parity(7, 0, &mut out);
    sequencer.bad_parity(7, 0, &mut out);
    sequencer.bad_parity(8, 0, &mut out);
    assert_eq!(out.iter().map(describe).collect::<Vec<_>>(), ["-7.0 bad_parity"]);
    assert_eq!(push(&mut sequencer, &frag(7, 0), 0), (Fate::Stale, vec![]));
    // The leader's next attempt is welcome, and the void one is not retracted again.
    assert_eq!(push(&mut sequencer, &env_at(7, 9), 1).1, ["7.1.0"]);
    assert_eq!(sequencer.waiting(), 0);
}

#[test]
fn nothing_passes_behind_the_seal() {
    let mut sequencer = Sequencer::default();
    push(&mut sequencer, &frag(7, 5), 0);
    push(&mut sequencer, &seal(7, 1), 0);
    assert_eq!(push(&mut sequencer, &frag(7, 3), 0), (Fate::BehindSeal, vec![]));
    push(&mut sequencer, &env(7), 0);
    assert_eq!(push(&mut sequencer, &frag(7, 0), 0).1, ["7.0.1", "7.0.2"]);
    assert_eq!(sequencer.waiting(), 0);
}

#[test]
fn memory_is_bounded_and_the_farthest_goes_first() {
    let mut sequencer = Sequencer::default();
    let big = |block: u64, seq| {
        let frag = BlockBuilder::new(block).frag_at(seq, [vec![0; 8 * 1024 * 1024]]);
        delivered(&sign(frag), 0)
    };
    let mut out = Vec::new();
    let mut dropped = Vec::new();
    for block in [30, 10, 20, 30] {
        for seq in 1..4 {
            if sequencer.push(big(block, seq), &mut out) == Fate::OutOfBounds {
                dropped.push(block);
            }
            assert!(sequencer.waiting() <= MAX_WAITING);
        }
    }
    assert!(dropped.iter().all(|block| *block == 30) && !dropped.is_empty(), "{dropped:?}");
    for block in [10, 20] {
        let all = 3 * 8 * 1024 * 1024;
        assert!(sequencer.blocks[&block].held().waiting > all, "the nearer ones stay");
    }
    for number in 100..400 {
        push(&mut sequencer, &env(number), 0);
    }
    assert_eq!(sequencer.blocks.len(), MAX_BLOCKS);
    assert_eq!(sequencer.waiting(), 0);
    assert_eq!(push(&mut sequencer, &env(5), 0).0, Fate::OutOfBounds);
}

/// What waits of one gateway's blocks, however near, pushes out nothing of another's.
#[test]
fn a_gateway_makes_room_for_others_before_they_do_for_it() {
    let other = GatewayKey::from_bytes([7; 32]).unwrap();
    let tx = vec![1; 8 * 1024 * 1024];
    let big = |key: &GatewayKey, block: u64, seq: u64| {
        let frag = BlockBuilder::new(block).frag_at(seq, [tx.clone()]);
        delivered(&key.sign_verified(frag), 0)
    };
    let (mut sequencer, mut out) = (Sequencer::default(), Vec::new());
    // A message that waits for its Env, of a block that is farther than all others.
    let honest = crate::testing::gateway();
    sequencer.push(big(&honest, 90, 0), &mut out);
    for block in 1..20 {
        sequencer.push(big(&other, block, 0), &mut out);
        assert!(sequencer.waiting() <= MAX_WAITING);
    }
    assert!(sequencer.blocks[&90].held().waiting > tx.len(), "it is where it was");
    // The same for what is kept, of which the oldest block goes first.
    let (mut sequencer, mut out) = (Sequencer::default(), Vec::new());
    push(&mut sequencer, &env(1), 0);
    sequencer.push(big(&honest, 1, 0), &mut out);
    for block in 10..30 {
        let env = other.sign_verified(env(block).message().clone());
        push(&mut sequencer, &env, 0);
        sequencer.push(big(&other, block, 0), &mut out);
        assert!(sequencer.kept() <= MAX_KEPT);
    }
    assert!(sequencer.blocks[&1].held().kept > tx.len());
}

proptest! {
    #[test]
    fn any_order_of_arrival_comes_out_in_order_and_once(
        order in Just((0..24usize).collect::<Vec<_>>()).prop_shuffle(),
        repeats in proptest::collection::vec(0..24usize, 0..24),
    ) {
        let messages: Vec<_> = [3, 4, 5].into_iter().flat_map(|n| block(n, 6)).collect();
        let mut sequencer = Sequencer::default();
        let mut out = Vec::new();
        for i in order.iter().chain(&repeats) {
            sequencer.push(delivered(&messages[*i], 0), &mut out);
        }
        for number in [3, 4, 5] {
            let seen: Vec<u16> = out
                .iter()
                .filter_map(|o| match o {
                    Output::Message(m) if m.key.block == number => Some(m.key.message),
                    _ => None,
                })
                .collect();
            prop_assert_eq!(seen, (0..8).collect::<Vec<u16>>());
        }
        prop_assert_eq!(sequencer.waiting(), 0);
    }
}

mod gossip;
mod substitutes;

#[test]
fn a_window_that_moves_takes_what_is_above_it_along() {
    const FAR: u64 = 1 << 40;
    let mut sequencer = Sequencer::default();
    for message in block(7, 1) {
        push(&mut sequencer, &message, 0);
    }
    // A liar fills the table: blocks with a Seal, open ones, and frags that wait.
    for number in FAR..FAR + 200 {
        push(&mut sequencer, &env(number), 0);
        push(&mut sequencer, &frag(number, 3), 0);
    }
    for message in block(FAR + 200, 0) {
        push(&mut sequencer, &message, 0);
    }
    assert_eq!(sequencer.sealed(), Some(FAR + 200));
    assert_eq!(push(&mut sequencer, &env(8), 0).0, Fate::OutOfBounds, "it is full");
    let mut out = Vec::new();
    sequencer.move_to(15, &mut out);
    assert_eq!(out.len(), MAX_BLOCKS - 1, "what was opened and not sealed is taken back");
    let retracted = |o: &Output| matches!(o, Output::Retracted { block, .. } if *block >= FAR);
    assert!(out.iter().all(retracted));
    assert_eq!((sequencer.waiting(), sequencer.sealed(), sequencer.opened()), (0, None, None));
    assert_eq!(push(&mut sequencer, &env(8), 0).0, Fate::Passed);
    assert_eq!(sequencer.opened(), Some(8));
    // What is below stays: it may be on its way to one who catches up.
    sequencer.move_to(1_000, &mut out);
    assert_eq!(push(&mut sequencer, &frag(8, 0), 0).0, Fate::Passed);
}

fn again(sequencer: &mut Sequencer, message: &VerifiedMessage, attempt: u8) -> Option<String> {
    sequencer.again(delivered(message, attempt)).as_ref().map(describe)
}

#[test]
fn what_is_handed_on_again_has_the_number_of_its_block_and_another_opening_is_refused() {
    let mut sequencer = Sequencer::default();
    let all = block(7, 2);
    // Unknown: the leader's number. A block in the middle of which it is asked for is none.
    assert_eq!(again(&mut sequencer, &all[1], 0), None);
    assert_eq!(again(&mut sequencer, &all[0], 2), Some("7.2.0".into()));
    assert_eq!(again(&mut sequencer, &all[1], 2), Some("7.2.1".into()));
    assert_eq!(again(&mut sequencer, &all[2], 0), None, "of another attempt");
    assert_eq!(again(&mut sequencer, &all[3], 2), None, "no more of it then");
    // Gossip's frag first, then another by the overlay: the block's number is above the leader's.
    let mut out = Vec::new();
    for message in [&all[0], &frag_with(7, 0, false, 9)] {
        sequencer.push(by(Via::Gossip, message, 0), &mut out);
    }
    all.iter().for_each(|message| drop(push(&mut sequencer, message, 0)));
    let expected: Vec<Option<String>> = (0..4).map(|n| Some(format!("7.1.{n}"))).collect();
    let handed: Vec<Option<String>> =
        all.iter().map(|message| again(&mut sequencer, message, 0)).collect();
    assert_eq!(handed, expected);
    // The opening that does not count is not handed on, nor what it has in common with the other.
    assert_eq!(again(&mut sequencer, &env_at(7, 3), 0), None);
    assert_eq!(again(&mut sequencer, &all[1], 0), None);
    assert_eq!(again(&mut sequencer, &frag(7, 2), 0), None, "behind the Seal");
    // Several blocks at a time, and not without bound.
    for number in 100..300 {
        assert!(again(&mut sequencer, &env(number), 0).is_some());
        assert!(again(&mut sequencer, &frag(number - u64::from(number > 100), 0), 0).is_some());
    }
    assert_eq!(sequencer.repeated.len(), MAX_REPEATED);
    // All that was handed on is void.
    block(500, 0).iter().for_each(|message| drop(push(&mut sequencer, message, 0)));
    assert_eq!(again(&mut sequencer, &env(500), 0), Some("500.0.0".into()));
    sequencer.bad_parity(500, 0, &mut out);
    assert_eq!(again(&mut sequencer, &env(500), 0), None);
}
