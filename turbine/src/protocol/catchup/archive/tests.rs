use alloy_trie::root::ordered_trie_root_encoded;
use fragcast_shredder::{BlockBuilder, GatewayKey, Seal};

use super::*;
use crate::testing::{env, env_at, frag, frag_with, seal, sign};

fn key(block: u64, attempt: u8, message: u16) -> MessageKey {
    MessageKey { block, attempt, message }
}

fn put(archive: &mut Archive, key: MessageKey, message: &VerifiedMessage) {
    archive.insert((key, 0), message, Word::Leader);
}

fn tell(archive: &mut Archive, key: MessageKey, message: &VerifiedMessage) {
    archive.insert((key, 0), message, Word::Told);
}

fn keep(archive: &mut Archive, block: u64, attempt: u8) {
    for (at, message) in (0..).zip([env(block), frag(block, 0), seal(block, 1)]) {
        put(archive, key(block, attempt, at), &message);
    }
}

/// A block of another gateway's.
fn keep_other(archive: &mut Archive, block: u64) {
    let other = GatewayKey::from_bytes([7; 32]).unwrap();
    for (at, message) in (0..).zip([env(block), frag(block, 0), seal(block, 1)]) {
        put(archive, key(block, 0, at), &other.sign_verified(message.message().clone()));
    }
}

/// A Seal of one frag with the transaction `tx`, see [`frag_with`].
fn true_seal(block: u64, tx: u8) -> VerifiedMessage {
    let transactions_root = ordered_trie_root_encoded(&[vec![tx; 20]]);
    sign(Seal { transactions_root, ..BlockBuilder::new(block).seal_of(1) })
}

fn attempts(archive: &Archive, block: u64) -> Vec<u8> {
    archive.from(block, 0, block).map(|(key, _)| key.attempt).collect()
}

#[test]
fn blocks_are_whole_from_env_to_seal_and_come_in_order() {
    let mut archive = Archive::new(usize::MAX, 100);
    assert_eq!(archive.range(), (1, 0));
    for block in [5, 6, 8] {
        keep(&mut archive, block, 0);
    }
    put(&mut archive, key(7, 0, 0), &env(7));
    put(&mut archive, key(7, 0, 2), &seal(7, 1));
    assert_eq!([5, 6, 7, 8].map(|b| archive.is_whole(b)), [true, true, false, true]);
    assert_eq!(archive.range(), (5, 8));
    let from = |block, message| {
        let all = archive.from(block, message, u64::MAX).map(|(key, _)| (key.block, key.message));
        all.collect::<Vec<_>>()
    };
    assert_eq!(from(5, 1), [(5, 1), (5, 2), (6, 0), (6, 1), (6, 2)]);
    assert!(from(7, 0).is_empty() && from(4, 0).is_empty());
    assert_eq!(from(8, 2), [(8, 2)]);
    archive.forget_above(6);
    assert_eq!((archive.range(), archive.is_whole(8)), ((5, 6), false));
}

#[test]
fn a_whole_block_of_the_scheduled_gateway_comes_before_one_of_its_substitute() {
    let mut archive = Archive::new(usize::MAX, 100);
    let other = GatewayKey::from_bytes([7; 32]).unwrap();
    let block = [env(5), frag_with(5, 0, false, 1), true_seal(5, 1)];
    // Shreds have brought the substitute's, of attempt 0; with one substitute the scheduled gateway
    // begins with attempt 2.
    for (at, message) in (0..).zip(&block) {
        let message = other.sign_verified(message.message().clone());
        archive.insert((key(5, 0, at), 1), &message, Word::Leader);
    }
    assert_eq!(attempts(&archive, 5), [0, 0, 0]);
    for (at, message) in (0..).zip(&block[..2]) {
        tell(&mut archive, key(5, 2, at), message);
    }
    assert_eq!(attempts(&archive, 5), [0, 0, 0], "it is not whole");
    let newest = |archive: &Archive| {
        archive.newest(5).iter().map(|(key, _)| key.attempt).collect::<Vec<_>>()
    };
    assert_eq!(newest(&archive), [0, 0, 0]);
    tell(&mut archive, key(5, 2, 2), &block[2]);
    assert_eq!(attempts(&archive, 5), [2, 2, 2]);
    assert_eq!(newest(&archive), [2, 2, 2]);
    assert!(archive.from(5, 0, 5).all(|(_, message)| message.gateway() == block[0].gateway()));
    // The other way round, and as a block that a peer has sent.
    let mut archive = Archive::new(usize::MAX, 100);
    let whole: Vec<_> = (0..).zip(block.iter().cloned()).collect();
    archive.insert_whole((5, 2, 0), &whole);
    for (at, message) in (0..).zip(&block) {
        let message = other.sign_verified(message.message().clone());
        archive.insert((key(5, 1, at), 1), &message, Word::Leader);
    }
    assert_eq!(attempts(&archive, 5), [2, 2, 2]);
}

#[test]
fn the_last_block_that_there_can_be_ends_what_is_read() {
    let mut archive = Archive::new(usize::MAX, 100);
    keep(&mut archive, u64::MAX - 1, 0);
    keep(&mut archive, u64::MAX, 0);
    let count = |block, last| archive.from(block, 0, last).count();
    assert_eq!(count(u64::MAX, u64::MAX), 3);
    assert_eq!(count(u64::MAX - 1, u64::MAX), 6);
    assert_eq!((count(u64::MAX - 1, u64::MAX - 1), count(u64::MAX, 0)), (3, 0));
}

#[test]
fn bytes_and_blocks_are_bounded_and_the_lowest_goes() {
    let mut archive = Archive::new(usize::MAX, 100);
    keep(&mut archive, 1, 0);
    let each = archive.bytes();
    let mut archive = Archive::new(3 * each, 100);
    (10..20).for_each(|block| keep(&mut archive, block, 0));
    assert_eq!((archive.range(), archive.bytes()), ((17, 19), 3 * each));
    keep(&mut archive, 16, 0);
    assert!(!archive.is_whole(16) && archive.bytes() == 3 * each);
    assert!(archive.was_whole(10) && !archive.was_whole(20));
    let mut archive = Archive::new(usize::MAX, 4);
    (10..20).for_each(|block| keep(&mut archive, block, 0));
    assert_eq!((archive.range(), archive.bytes()), ((16, 19), 4 * each));
}

#[test]
fn a_block_just_caught_up_is_remembered_before_those_far_ahead() {
    let mut archive = Archive::new(usize::MAX, 2);
    archive.verified(10);
    let far = MAX_DONE as u64 + 100;
    (100..far).for_each(|block| keep(&mut archive, block, 0));
    // Too low to be kept.
    archive.note_whole(11);
    assert!(archive.was_whole(11) && !archive.is_whole(11), "the highest goes");
    assert!(archive.was_whole(100) && !archive.was_whole(far - 1));
    // What is verified goes first.
    archive.verified(100);
    archive.note_whole(far);
    assert!(!archive.was_whole(11) && archive.was_whole(101) && archive.was_whole(far));
}

#[test]
fn the_newest_whole_attempt_counts_and_a_refused_one_does_not() {
    let mut archive = Archive::new(usize::MAX, 4);
    keep(&mut archive, 7, 0);
    keep(&mut archive, 7, 1);
    put(&mut archive, key(7, 2, 0), &env(7));
    assert!(archive.opening(&key(7, 0, 0)).is_none(), "two attempts are kept");
    assert_eq!(attempts(&archive, 7), [1, 1, 1], "the third is open");
    archive.refuse(&key(7, 1, 1));
    assert!(!archive.is_whole(7) && archive.has(7, 0, env(7).root()));
    archive.refuse(&key(7, 2, 0));
    assert_eq!(archive.bytes(), 0);
}

#[test]
fn attempts_that_peers_tell_push_out_none_of_the_leader_s() {
    let mut archive = Archive::new(usize::MAX, 4);
    keep(&mut archive, 7, 0);
    for attempt in [6, 7, 5, 3] {
        tell(&mut archive, key(7, attempt, 0), &env(7));
    }
    assert_eq!(attempts(&archive, 7), [0, 0, 0]);
    assert!(archive.blocks[&7].openings.len() <= MAX_OPENINGS + MAX_TOLD);
    // Nor does a whole one take the leader's place as the newest.
    for (at, message) in (0..).zip([env(7), frag_with(7, 0, false, 9), seal(7, 1)]) {
        tell(&mut archive, key(7, 7, at), &message);
    }
    assert!(archive.opening(&key(7, 7, 0)).is_some_and(|opening| opening.whole.is_some()));
    assert_eq!(attempts(&archive, 7), [0, 0, 0]);
    // The leader's next attempt does.
    keep(&mut archive, 7, 1);
    assert_eq!(attempts(&archive, 7), [1, 1, 1]);
}

#[test]
fn frags_of_one_attempt_and_the_seal_of_another_are_not_a_block() {
    let mut archive = Archive::new(usize::MAX, 4);
    for (at, message) in (0..).zip([env(7), frag_with(7, 0, false, 1), true_seal(7, 2)]) {
        tell(&mut archive, key(7, 0, at), &message);
    }
    assert!(!archive.is_whole(7) && !archive.was_whole(7));
    assert_eq!(archive.bytes(), 0, "nothing of it is kept");
    // What the leader has said stays, and with what belongs to it the block is whole.
    put(&mut archive, key(7, 0, 1), &frag_with(7, 0, false, 1));
    tell(&mut archive, key(7, 0, 0), &env(7));
    tell(&mut archive, key(7, 0, 2), &true_seal(7, 2));
    assert!(!archive.was_whole(7) && archive.has(7, 1, frag_with(7, 0, false, 1).root()));
    tell(&mut archive, key(7, 0, 2), &true_seal(7, 1));
    tell(&mut archive, key(7, 0, 0), &env(7));
    assert_eq!(attempts(&archive, 7), [0, 0, 0]);
    // A Seal that is told behind the leader's own hides nothing of it.
    let mut archive = Archive::new(usize::MAX, 4);
    tell(&mut archive, key(8, 0, 9), &seal(8, 8));
    keep(&mut archive, 8, 0);
    assert_eq!(attempts(&archive, 8), [0, 0, 0]);
}

#[test]
fn what_shreds_bring_takes_the_place_of_what_was_told() {
    let mut archive = Archive::new(usize::MAX, 4);
    tell(&mut archive, key(7, 0, 0), &env_at(7, 99));
    tell(&mut archive, key(7, 0, 1), &frag_with(7, 0, false, 9));
    keep(&mut archive, 7, 0);
    let messages: Vec<_> = archive.from(7, 0, 7).map(|(_, message)| message.clone()).collect();
    assert_eq!(messages, [env(7), frag(7, 0), seal(7, 1)]);
    // And nothing that is told takes the place of that.
    tell(&mut archive, key(7, 0, 1), &frag_with(7, 0, false, 9));
    archive.insert_whole((7, 0, 0), &[(0, env_at(7, 99)), (1, seal(7, 0))]);
    let messages: Vec<_> = archive.from(7, 0, 7).map(|(_, message)| message.clone()).collect();
    assert_eq!(messages, [env(7), frag(7, 0), seal(7, 1)]);
    let count = archive.blocks[&7].openings[&0].signed;
    assert_eq!((count, archive.bytes()), (3, archive.blocks[&7].bytes()));
}

#[test]
fn a_gateway_s_future_and_unexecuted_blocks_push_out_little_of_the_chain() {
    let mut one = Archive::new(usize::MAX, 100);
    keep(&mut one, 1, 0);
    let each = one.bytes();
    let mut archive = Archive::new(16 * each, 100);
    for block in 1..=16 {
        keep(&mut archive, block, 0);
        archive.verified(block);
        archive.set_open(Some(block));
    }
    // Above what is open there is a quarter, and the highest block makes room.
    for block in (17..30).rev() {
        keep_other(&mut archive, block);
    }
    let kept: Vec<u64> = archive.blocks.keys().copied().collect();
    assert_eq!(kept, (5..=20).collect::<Vec<_>>());
    // Of what is not executed another gateway has half, and its own lowest block makes room.
    archive.set_open(Some(60));
    for block in 21..=60 {
        keep_other(&mut archive, block);
    }
    let kept: Vec<u64> = archive.blocks.keys().copied().collect();
    assert_eq!(kept, (9..=16).chain(53..=60).collect::<Vec<_>>());
    assert!(archive.bytes() <= 16 * each);
    // What has been executed is the chain, whoever built it.
    archive.verified(60);
    (61..=68).for_each(|block| {
        archive.set_open(Some(block));
        keep_other(&mut archive, block);
    });
    assert_eq!(archive.range(), (53, 68));
}
