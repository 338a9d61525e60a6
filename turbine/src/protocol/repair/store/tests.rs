use super::*;
use crate::protocol::tests::{World, cut, env, frag, seal};
use fragcast_shredder::Message;

const NOW: Timestamp = Timestamp::from_nanos(1_000);

fn key(block: u64, message: u16) -> MessageKey {
    MessageKey { block, attempt: 0, message }
}

fn sets(world: &World, message: Message) -> Vec<CompleteSet> {
    cut(world, &world.sign(message), 0).sets.into_iter().map(CompleteSet::Own).collect()
}

/// Keeps all sets of a message; says whether it is whole by the last.
fn keep(store: &mut Store, world: &World, message: Message) -> bool {
    sets(world, message).into_iter().map(|set| store.insert(NOW, set)).last().unwrap()
}

fn tips(store: &Store) -> Vec<(u64, u16, u64)> {
    store.newest(8).iter().map(|tip| (tip.block, tip.row, tip.above)).collect()
}

#[test]
fn tips_tell_of_whole_messages_in_a_row_and_above_it() {
    let world = World::new(&[1; 3], 1);
    let mut store = Store::new(1 << 24);
    assert!(keep(&mut store, &world, env(1)));
    assert!(keep(&mut store, &world, frag(1, 2, 500)));
    assert!(!keep(&mut store, &world, frag(1, 2, 500)), "it is here");
    assert_eq!(tips(&store), [(1, 1, 0b10)]);
    // One set of two makes nothing whole.
    let mut long = sets(&world, frag(1, 0, 100_000));
    assert!(long.len() > 1);
    let last = long.pop().unwrap();
    assert!(long.into_iter().all(|set| !store.insert(NOW, set)));
    assert_eq!(tips(&store), [(1, 1, 0b10)]);
    assert!(store.insert(NOW, last));
    assert_eq!(tips(&store), [(1, 2, 0b1)]);
    keep(&mut store, &world, frag(1, 1, 500));
    assert_eq!(tips(&store), [(1, 4, 0)]);
    store.refuse(&key(1, 1));
    assert_eq!(tips(&store), [(1, 1, 0b11)], "it turned out to be none");
    assert!(store.sets(&key(1, 1)).is_none() && store.has_set(&key(1, 2), 0));
}

#[test]
fn memory_is_bounded_and_the_oldest_block_goes_whole() {
    let world = World::new(&[1; 3], 1);
    let one: usize = sets(&world, frag(1, 0, 5_000)).iter().map(CompleteSet::cost).sum();
    let mut store = Store::new(4 * one);
    for block in [5, 6] {
        (0..2).for_each(|seq| assert!(keep(&mut store, &world, frag(block, seq, 5_000))));
    }
    assert_eq!(store.bytes(), 4 * one);
    assert!(!keep(&mut store, &world, frag(4, 0, 5_000)), "older than all the others");
    assert!(keep(&mut store, &world, frag(7, 0, 5_000)));
    assert_eq!(tips(&store).iter().map(|tip| tip.0).collect::<Vec<_>>(), [7, 6]);
    assert_eq!(store.bytes(), 3 * one);
    store.set_window(7, 9);
    assert_eq!((tips(&store).len(), store.bytes()), (1, one));
    store.supersede(7, 1);
    assert_eq!(store.bytes(), 0);
}

#[test]
fn marks_count_as_messages_until_their_sets_come() {
    let world = World::new(&[1; 3], 1);
    let mut store = Store::new(1 << 20);
    assert!(store.mark(NOW, &key(1, 0), false) && store.mark(NOW, &key(1, 1), false));
    assert!(!store.mark(NOW, &key(1, 1), false));
    assert_eq!((tips(&store), store.bytes()), (vec![(1, 2, 0)], 2 * MARK_COST));
    assert!(store.is_marked(&key(1, 1)));
    keep(&mut store, &world, frag(1, 0, 500));
    assert!(!store.is_marked(&key(1, 1)) && tips(&store) == [(1, 2, 0)]);
    store.unmark_below(Some(&key(1, 1)));
    assert_eq!(tips(&store), [(1, 0, 0b1)], "the first is remembered no longer");
    store.unmark_below(None);
    assert_eq!(tips(&store), [(1, 0, 0b1)], "the other has its sets");
}

#[test]
fn a_block_is_told_of_while_there_is_news_and_the_open_one_for_longer() {
    let world = World::new(&[1; 3], 1);
    let mut store = Store::new(1 << 20);
    keep(&mut store, &world, env(1));
    keep(&mut store, &world, env(2));
    let (recent, open) = (Duration::from_secs(2), Duration::from_secs(12));
    let active = |store: &Store, after: u64| {
        let tips = store.active(NOW + Duration::from_secs(after), 7, recent, open);
        tips.iter().map(|tip| tip.block).collect::<Vec<_>>()
    };
    assert_eq!(active(&store, 2), [2, 1]);
    assert_eq!(active(&store, 3), [2], "it has no Seal");
    assert!(active(&store, 13).is_empty());
    keep(&mut store, &world, seal(2, 0));
    assert!(active(&store, 3).is_empty());
    let after = |cursor| store.after(cursor).map(|tip| tip.block);
    assert_eq!([(0, 0), (1, 0), (2, 0)].map(after), [Some(1), Some(2), Some(1)]);
}

#[test]
fn blocks_ahead_have_a_share_and_do_not_drive_out_what_is_open() {
    let world = World::new(&[1; 3], 1);
    let one: usize = sets(&world, frag(1, 0, 5_000)).iter().map(CompleteSet::cost).sum();
    let mut store = Store::new(8 * one);
    // Block 10 is open: blocks up to 17 are taken.
    store.set_window(0, 10 + WINDOW_FUTURE);
    for block in [15, 16, 12] {
        for seq in 0..3 {
            sets_kept(&mut store, &world, block, seq);
        }
    }
    assert_eq!((store.bytes(), tips(&store)[0].0), (2 * one, 12), "a quarter, the nearest");
    for block in [8, 9, 10] {
        for seq in 0..2 {
            sets_kept(&mut store, &world, block, seq);
        }
    }
    for seq in 0..9 {
        sets_kept(&mut store, &world, 12, seq);
    }
    assert!(sets_kept(&mut store, &world, 10, 2) && sets_kept(&mut store, &world, 10, 3));
    let blocks: Vec<u64> = store.openings.keys().map(|(block, _)| *block).collect();
    assert_eq!((blocks, store.bytes() <= 8 * one), (vec![9, 10, 12], true));
    // When it is open it needs no share.
    store.set_window(0, 12 + WINDOW_FUTURE);
    assert!((2..6).all(|seq| sets_kept(&mut store, &world, 12, seq)));
}

fn sets_kept(store: &mut Store, world: &World, block: u64, seq: u64) -> bool {
    keep(store, world, frag(block, seq, 5_000))
}
