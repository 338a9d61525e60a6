use super::*;
use crate::control::Tip;

const NOW: Timestamp = Timestamp::from_nanos(1_000);
const DUE: Timestamp = Timestamp::from_nanos(2_000);

fn key(block: u64, message: u16) -> MessageKey {
    MessageKey { block, attempt: 0, message }
}

fn peer(n: u32) -> PeerKey {
    PeerKey::from(n)
}

fn shred(wants: &mut Wants, block: u64, message: u16, from: Option<u32>) {
    let from = from.map(|from| (peer(from), 10 * from));
    wants.shred(NOW, (key(block, message), 7), from, DUE, |_| false);
}

fn holders(wants: &Wants, block: u64, message: u16) -> Vec<PeerKey> {
    wants.messages[&key(block, message)].holders.iter().map(|holder| holder.peer).collect()
}

fn told(wants: &mut Wants, from: u32, block: u64, row: u16) {
    let tip = Tip { block, attempt: 0, row, above: 0 };
    wants.told(NOW, (peer(from), 10 * from), &tip, DUE, |_| false);
}

#[test]
fn a_shred_proves_all_that_stands_before_it() {
    let mut wants = Wants::default();
    shred(&mut wants, 5, 3, Some(1));
    let wanted: Vec<u16> = wants.messages.keys().map(|key| key.message).collect();
    assert_eq!(wanted, [0, 1, 2, 3]);
    assert!(wants.messages.values().all(|want| want.certain && want.due == DUE));
    assert_eq!(holders(&wants, 5, 3), [peer(1)]);
    assert_eq!(wants.messages[&key(5, 3)].plan, Some(7));
    assert!(wants.messages[&key(5, 0)].holders.is_empty(), "nobody is known to have it");
    assert_eq!(wants.at(), Some(DUE));
    wants.done(&key(5, 0), |done| done.message == 0);
    for message in 1..4 {
        wants.remove(&key(5, message));
    }
    assert_eq!(wants.at(), None);
    // What is known to exist is not proven anew.
    shred(&mut wants, 5, 3, None);
    assert_eq!(wants.messages.len(), 1);
}

#[test]
fn tips_are_hearsay_until_a_shred_comes_and_each_teller_has_a_share() {
    let mut wants = Wants::default();
    told(&mut wants, 1, 5, 9);
    assert!(wants.messages.is_empty(), "nothing was heard of the chain yet");
    wants.anchor(5);
    told(&mut wants, 1, 4, 9);
    assert!(wants.messages.is_empty(), "nothing from before");
    for block in 5..10 {
        told(&mut wants, 1, block, 20);
    }
    assert_eq!((wants.messages.len(), wants.hearsay), (64, 64), "of one peer");
    for from in 2..20 {
        (5..10).for_each(|block| told(&mut wants, from, 100 * u64::from(from) + block, 64));
    }
    assert_eq!(wants.hearsay, MAX_HEARSAY);
    shred(&mut wants, 5, 1, Some(9));
    assert_eq!(wants.hearsay, MAX_HEARSAY - 2, "two of them are certain now");
    assert_eq!(holders(&wants, 5, 1), [peer(1), peer(9)]);
}

#[test]
fn who_is_no_peer_any_more_holds_nothing() {
    let mut wants = Wants::default();
    shred(&mut wants, 5, 0, Some(1));
    told(&mut wants, 1, 5, 1);
    told(&mut wants, 2, 5, 1);
    wants.messages.get_mut(&key(5, 0)).unwrap().tries = 1;
    assert!(wants.missing().told.is_some(), "two have told of it");
    wants.forget_peer(peer(1));
    assert_eq!(holders(&wants, 5, 0), [peer(2)]);
    assert_eq!((wants.missing().told, wants.missing().certain), (None, Some(NOW)));
}

#[test]
fn the_window_and_new_attempts_drop_what_nobody_needs() {
    let mut wants = Wants::default();
    for block in 1..10 {
        shred(&mut wants, block, 1, Some(1));
    }
    wants.set_window(4, 6);
    assert_eq!((wants.messages.len(), wants.tracks.len()), (6, 3));
    wants.supersede(5, 1);
    assert!(wants.messages.keys().all(|key| key.block != 5));
    wants.clear();
    assert_eq!(wants.at(), None);
}

#[test]
fn a_full_table_keeps_what_is_nearest() {
    let mut wants = Wants::default();
    (0..2_000u16).for_each(|n| shred(&mut wants, 10 + u64::from(n), 0, Some(1)));
    assert_eq!(wants.messages.len(), MAX_WANTS);
    shred(&mut wants, 5, 0, Some(1));
    assert_eq!(wants.messages.len(), MAX_WANTS);
    assert!(wants.messages.contains_key(&key(5, 0)));
    let farthest = *wants.messages.last_key_value().unwrap().0;
    // What was given up makes room before anything else does.
    wants.messages.get_mut(&key(10, 0)).unwrap().resting = true;
    shred(&mut wants, 4, 0, Some(1));
    assert!(!wants.messages.contains_key(&key(10, 0)));
    assert_eq!(*wants.messages.last_key_value().unwrap().0, farthest);
}

#[test]
fn what_is_past_makes_room_for_the_open_block() {
    let mut wants = Wants::default();
    wants.set_window(0, 100 + WINDOW_FUTURE);
    // A gateway signs one shred with a distant index in an old block.
    shred(&mut wants, 60, 5_000, Some(1));
    assert_eq!(wants.messages.len(), MAX_WANTS);
    shred(&mut wants, 100, 9, Some(1));
    shred(&mut wants, 101, 2, Some(1));
    let wanted = |block| wants.messages.keys().filter(|key| key.block == block).count();
    assert_eq!((wanted(100), wanted(101)), (10, 3));
    assert_eq!(wants.messages.len(), MAX_WANTS);
}

/// What is missing is remembered between changes; it is what a look at all wants finds.
#[test]
fn what_is_missing_is_known_after_every_change() {
    let mut wants = Wants::default();
    let mut state = 1u64;
    let mut random = |below: u64| {
        state = super::super::mix(&[state]);
        state % below
    };
    for step in 0..20_000u64 {
        let (block, message) = (5 + random(3), random(12) as u16);
        let now = Timestamp::from_nanos(1_000 + step);
        match random(9) {
            0..3 => told(&mut wants, random(4) as u32, block, message),
            3..5 => {
                wants.shred(now, (key(block, message), 7), Some((peer(1), 10)), now, |_| false);
            }
            5 => _ = wants.done(&key(block, message), |_| false),
            6 => wants.forget_peer(peer(random(4) as u32)),
            7 => wants.set_window(5 + random(2), 8),
            _ => {
                // As a timer does.
                if let Some(want) = wants.messages.get_mut(&key(block, message)) {
                    (want.tries, want.resting) = (want.tries + 1, random(4) == 0);
                }
                wants.settle_timer();
            }
        }
        assert_eq!(wants.missing(), wants.find_missing(), "step {step}");
    }
}
