use serde_json::json;

use super::*;

const TRAFFIC: Traffic =
    Traffic { blocks: 2, frags: 3, bytes: 1_000, interval: Duration::from_millis(50) };

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
    // The leader's own message was complete before it was sent.
    table.enter(1, &message(2, 3, 999_000));
    // A repetition, and messages that are not of this load.
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
