//! Where subscribers of the ring begin.

use fragcast_port::Memory;

use crate::flashblocks::ring::{Cursor, Position, Ring};

fn at(block: u64, index: u64) -> Position {
    Position { block, index }
}

fn ring(blocks: impl IntoIterator<Item = (u64, std::ops::Range<u64>)>) -> Ring {
    let ring = Ring::new(1 << 20, Memory::new(1 << 20));
    for (block, indices) in blocks {
        push(&ring, block, indices);
    }
    ring
}

fn push(ring: &Ring, block: u64, indices: std::ops::Range<u64>) {
    for index in indices {
        ring.push(format!("{block}:{index}"), at(block, index));
    }
}

/// All that there is for a subscriber.
fn all(ring: &Ring, cursor: &mut Cursor) -> Vec<String> {
    let next = || ring.take(cursor).unwrap();
    let text = |item: std::sync::Arc<_>| {
        let item: &crate::flashblocks::ring::Flashblock = &item;
        String::from_utf8(item.plain().texts()[0].clone()).unwrap()
    };
    std::iter::from_fn(next).map(text).collect()
}

#[test]
fn one_that_is_ahead_of_the_node_is_sent_nothing_earlier() {
    for before in [vec![], vec![(97, 0..3), (98, 0..3)], vec![(98, 1..3)]] {
        let ring = ring(before);
        let mut cursor = ring.subscribe(Some(at(100, 3)));
        assert!(all(&ring, &mut cursor).is_empty());
        push(&ring, 98, 3..5);
        push(&ring, 99, 0..4);
        push(&ring, 100, 0..3);
        assert!(all(&ring, &mut cursor).is_empty());
        push(&ring, 100, 3..6);
        push(&ring, 101, 0..2);
        assert_eq!(all(&ring, &mut cursor), ["100:4", "100:5", "101:0", "101:1"]);
    }
}

#[test]
fn a_block_that_is_begun_again_is_sent_from_its_beginning() {
    let ring = ring([(99, 0..2)]);
    let mut cursor = ring.subscribe(Some(at(100, 1)));
    push(&ring, 100, 0..2);
    assert!(all(&ring, &mut cursor).is_empty());
    push(&ring, 100, 0..1);
    assert_eq!(all(&ring, &mut cursor), ["100:0"]);
    push(&ring, 100, 1..2);
    assert_eq!(all(&ring, &mut cursor), ["100:1"]);
}

#[test]
fn one_whose_block_never_comes_goes_on_with_the_next() {
    let ring = ring([(98, 0..2)]);
    let mut cursor = ring.subscribe(Some(at(100, 3)));
    push(&ring, 98, 2..3);
    push(&ring, 102, 0..2);
    assert_eq!(all(&ring, &mut cursor), ["102:0", "102:1"]);
}

#[test]
fn one_that_has_what_is_here_goes_on_after_it() {
    let ring = ring([(98, 0..2), (99, 0..3)]);
    for (after, expected) in [
        (at(98, 1), vec!["99:0", "99:1", "99:2"]),
        (at(99, 1), vec!["99:2"]),
        (at(99, 2), vec![]),
        (at(99, 5), vec![]),
        (at(97, 0), vec!["98:0", "98:1", "99:0", "99:1", "99:2"]),
    ] {
        let mut cursor = ring.subscribe(Some(after));
        assert_eq!(all(&ring, &mut cursor), expected, "{after:?}");
    }
    let mut ahead = ring.subscribe(Some(at(99, 5)));
    push(&ring, 99, 3..7);
    push(&ring, 100, 0..1);
    assert_eq!(all(&ring, &mut ahead), ["99:6", "100:0"]);
}
