use serde_json::json;

use super::*;

fn picture() -> Value {
    let message = |i: u64, kind: &str, via: &str| {
        json!({ "i": i, "kind": kind, "bytes": 900, "txs": 10, "gas": 210_000, "via": via,
                "sent": 1_000_000, "first": 1_004_000, "whole": 1_012_000 })
    };
    let block = |n: u64, verdict: Value| {
        json!({ "block": n, "attempt": 0, "messages": 12, "bytes": 1_234_567, "txs": 2_000,
                "gas": 42_000_000, "latencyMs": 14.2, "verdict": verdict,
                "ways": { "own": 0, "overlay": 11, "repair": 1, "gossip": 0 } })
    };
    json!({
        "seq": 1, "at": 1, "whole": true,
        "node": { "version": "0.1.0", "chainId": 901, "peer": "0123456789abcdef", "short": "01234567",
                  "leads": false, "guest": false, "members": 8, "connected": 6, "wanted": 7, "ready": true, "why": null },
        "chain": { "opened": 42, "sealed": 41, "latest": 41, "durable": 40,
                   "leader": { "block": 42, "short": "aaaa", "me": false },
                   "next": { "from": 60, "short": "bbbb", "me": true } },
        "way": { "state": "turbine", "text": "on the overlay", "gossipPeers": 7 },
        "open": { "block": 42, "attempt": 0, "sealed": false, "count": 196, "bytes": 9_000, "txs": 40, "gas": 840_000,
                  "ways": { "own": 0, "overlay": 2, "repair": 1, "gossip": 1 },
                  "messages": [message(0, "env", "overlay"), message(1, "frag", "overlay"),
                               message(2, "frag", "repair"), message(3, "frag", "gossip")] },
        "blocks": [block(41, json!("verified")), block(40, json!("rejected")), block(39, Value::Null)],
        "counts": { "delivered": 500, "repaired": 3, "repairRequested": 9, "equivocations": 0, "barred": 0 },
        "latency": { "recent": { "p50": 12.0, "p90": 15.0, "p99": 31.0, "n": 256 },
                     "first": { "overlay": 480, "repair": 3, "gossip": 17 },
                     "hops": [{ "hops": 1, "medianMs": 2.5, "samples": 9 }],
                     "regions": [{ "region": 0, "medianMs": 3.5, "samples": 9 }],
                     "race": { "turbine": { "first": 5, "leadMs": { "p50": 20.0, "p90": 25.0, "p99": 31.0 } },
                               "gossip": { "first": 0 } } },
        "peers": { "list": [{ "short": "fast", "rttMs": 0.4 }, { "short": "slow", "rttMs": 80.0 }] },
    })
}

fn drawn(seen: &Seen, (width, height): (u16, u16), now: Instant) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    seen.draw(area, &mut buffer, now);
    let rows = buffer.content.chunks(usize::from(width.max(1)));
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
}

#[test]
fn a_picture_is_drawn_on_80_by_24() {
    let now = Instant::now();
    let mut seen = Seen::new("http://127.0.0.1:9320", true);
    seen.take(Ok(picture()), now);
    let text = drawn(&seen, (80, 24), now);
    for part in [
        "fragcast top ready http://127.0.0.1:9320 01234567 · member · chain 901 · 0.1.0",
        "on the overlay",
        "opened    42  sealed 41",
        "verified  41  durable 40",
        "leader    aaaa",
        "next      this node from 60",
        "peers     6 of 7, 7 on gossip",
        "repaired  3 of 500 (9 asked)",
        "faults    0 (0 equivocations)",
        "42 attempt 0",
        "196 over/rep/gos 2/1/1",
        "9000 B  40 tx  840k gas",
        "oorg",
        "frag 3 12 ms via gossip",
        "41   12  2000 1235k   11/1/0   14 ms ok",
        "rejected",
        "median    12 ms p99 31 ms",
        "o/r/g     480/3/17",
        "o first   5 by 20 ms",
        "1 hop 2.50 ms",
        "region 0 3.50 ms",
        "q ends",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    // The slowest peer first.
    assert!(text.find("slow").unwrap() < text.find("fast").unwrap(), "{text}");
}

#[test]
fn a_node_that_goes_away_is_said_to_be_away_with_its_last_picture() {
    let start = Instant::now();
    let mut seen = Seen::new("http://127.0.0.1:1", false);
    let text = drawn(&seen, (80, 24), start);
    assert!(text.contains("waiting for its first answer"), "{text}");
    seen.take(Err("not sent: connection refused".into()), start);
    let text = drawn(&seen, (80, 24), start);
    assert!(text.contains("no node answers at http://127.0.0.1:1: not sent: connection"), "{text}");
    seen.take(Ok(picture()), start);
    assert!(!drawn(&seen, (80, 24), start).contains("AWAY"));
    seen.take(Err("not sent: connection refused".into()), start);
    seen.take(Err("not sent: connection refused".into()), start + Duration::from_secs(6));
    let text = drawn(&seen, (80, 24), start + Duration::from_secs(7));
    assert!(text.contains("AWAY for 7 s: not sent: connection refused"), "{text}");
    assert!(text.contains("42 attempt 0"), "{text}");
    // What the picture says of its health was true then.
    let first = text.lines().next().unwrap();
    assert!(first.starts_with("fragcast top AWAY http://127.0.0.1:1"), "{text}");
    assert!(!first.contains("ready"), "{text}");
    seen.take(Ok(picture()), start);
    assert!(!drawn(&seen, (80, 24), start).contains("AWAY"));
}

/// Whether one of the lines that tell how the node is has something green.
fn is_green(seen: &Seen, now: Instant) -> bool {
    let area = Rect::new(0, 0, 80, 3);
    let mut buffer = Buffer::empty(Rect::new(0, 0, 80, 24));
    seen.draw(Rect::new(0, 0, 80, 24), &mut buffer, now);
    area.positions().any(|at| buffer[at].fg == Color::Green)
}

#[test]
fn an_old_picture_does_not_say_that_a_node_is_well() {
    let now = Instant::now();
    let mut seen = Seen::new("http://127.0.0.1:1", true);
    seen.take(Ok(picture()), now);
    assert!(is_green(&seen, now));
    seen.is_paused = true;
    assert!(!is_green(&seen, now), "a picture that is kept grows old");
    seen.is_paused = false;
    seen.take(Err("timed out".into()), now);
    assert!(!is_green(&seen, now));
    seen.take(Ok(picture()), now);
    assert!(is_green(&seen, now));
}

#[test]
fn why_a_node_is_not_ready_is_told() {
    let now = Instant::now();
    let mut seen = Seen::new("http://127.0.0.1:9320", true);
    let mut told = picture();
    told["node"]["ready"] = json!(false);
    told["node"]["why"] = json!("the database cannot be written");
    seen.take(Ok(told), now);
    let text = drawn(&seen, (80, 24), now);
    assert!(
        text.contains("NOT READY") && text.contains("the database cannot be written"),
        "{text}"
    );
}

#[test]
fn no_picture_and_no_size_is_too_strange() {
    let now = Instant::now();
    let hostile = json!({
        "node": { "peer": "\u{1b}[2J\u{7}", "members": -3, "version": "x".repeat(10_000), "why": 7 },
        "chain": [1, 2], "way": null, "open": { "messages": vec![json!("none"); 5_000], "ways": 3 },
        "blocks": [null, 3, { "block": "\u{9b}", "verdict": "\u{1b}c" }], "counts": "", "peers": { "list": [{}] },
        "latency": { "hops": [{}], "regions": {}, "race": { "turbine": { "first": 1 } } },
    });
    for picture in [hostile, json!({}), picture()] {
        let mut seen = Seen::new("http://127.0.0.1:9320", true);
        seen.take(Ok(picture), now);
        for size in [(0, 0), (1, 1), (20, 100), (60, 16), (80, 24), (81, 17), (300, 100)] {
            let text = drawn(&seen, size, now);
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        }
    }
    let text = drawn(&Seen::new("x", true), (50, 10), now);
    assert!(text.starts_with("50 × 10 is too small"), "{text}");
}
