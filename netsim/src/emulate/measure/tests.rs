use fragcast_shredder::{Dialect, GatewayKey};

use super::*;

const TRAFFIC: Traffic =
    Traffic { blocks: 2, frags: 3, bytes: 1_000, interval: Duration::from_millis(50) };

#[test]
fn messages_come_in_the_order_that_a_leader_takes_them_and_have_their_size() {
    for bytes in [200, 201, 333, 394, 395, 396, 8_000, 36_000] {
        let traffic = Traffic { bytes, ..TRAFFIC };
        let posts = traffic.posts(7).unwrap();
        let kinds: Vec<Kind> = posts.iter().map(|post| post.message.kind()).collect();
        let block = [Kind::Env, Kind::Frag, Kind::Frag, Kind::Frag, Kind::Seal];
        assert_eq!(kinds, block.repeat(2));
        let gateway = GatewayKey::from_bytes([7; 32]).unwrap();
        for (i, post) in posts.iter().enumerate() {
            assert_eq!(post.at, i as u64 * 50_000_000);
            assert_eq!(post.message.index(), Some(post.key.message));
            assert_eq!(post.message.block(), post.key.block);
            let wire = gateway.sign(post.message.clone()).to_wire();
            assert_eq!(wire.len(), size(&post.message));
            if post.message.kind() == Kind::Frag {
                assert_eq!(wire.len(), bytes as usize);
            }
            let kind = post.message.kind();
            let read = SignedMessage::from_wire(kind, Dialect::V0, &wire.into()).unwrap();
            assert_eq!(read.message, post.message, "every node can read it");
        }
        assert_eq!(posts, traffic.posts(7).unwrap());
        assert_ne!(posts, traffic.posts(8).unwrap());
    }
}

#[test]
fn the_model_gets_the_same_messages() {
    let load = TRAFFIC.load(7, 3).unwrap();
    let posts = TRAFFIC.posts(7).unwrap();
    assert_eq!(load.broadcasts.len(), posts.len());
    for (broadcast, post) in load.broadcasts.iter().zip(&posts) {
        assert_eq!((broadcast.at, broadcast.key, broadcast.leader), (post.at, post.key, 3));
        assert_eq!(broadcast.bytes as usize, size(&post.message));
        assert!(broadcast.expected && !broadcast.equivocal);
    }
    assert_eq!((load.leader(1), load.leader(2)), (3, 3));
}

#[test]
fn traffic_that_cannot_be_sent_says_what_can() {
    for (traffic, part) in [
        (Traffic { bytes: 199, ..TRAFFIC }, "200 to"),
        (Traffic { bytes: 20_000_000, ..TRAFFIC }, "200 to"),
        (Traffic { blocks: 0, ..TRAFFIC }, "at least 1 block"),
        (Traffic { frags: 60_001, ..TRAFFIC }, "60000"),
    ] {
        let error = traffic.posts(1).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

fn note(text: Value) -> Note {
    serde_json::from_value(text).unwrap()
}

#[test]
fn notes_fill_the_table_once() {
    let mut table = Table::new(&TRAFFIC, 1, 3);
    assert_eq!(table.open, 10 * 3);
    let message = |block: u64, index: u64, complete: u64| {
        note(json!({
            "type": "message", "block": block, "index": index, "kind": "frag",
            "message": { "txs": ["0x12"] }, "signature": "0x", "root": "0x", "attempt": 0,
            "times": { "sentAt": 1_000_000, "firstShredAt": 1_000_500, "completeAt": complete },
        }))
    };
    table.enter(0, &message(2, 3, 1_012_345));
    // The leader's own was complete before it was sent.
    table.enter(1, &message(2, 3, 999_000));
    // Again, and what is not of this load.
    table.enter(0, &message(2, 3, 2_000_000));
    for (node, block, index) in [(0, 0, 0), (0, 3, 0), (0, 1, 5), (3, 1, 1), (0, u64::MAX >> 8, 0)]
    {
        table.enter(node, &message(block, index, 5));
    }
    table.enter(0, &note(json!({ "type": "retracted", "block": 1, "attempt": 0 })));
    assert_eq!(table.open, 28);
    assert_eq!(table.times_ms[5 + 3], [Some(12.345), Some(0.0), None]);
    assert_eq!(table.times_ms.iter().flatten().flatten().count(), 2);
}
