//! Ranges of logs: their bounds, their limits, and what the errors of limits advise.

use super::*;

fn invalid(text: &str) -> (i64, String) {
    (-32_602, text.to_owned())
}

const REVERSED: &str = "invalid block range params";
const BEYOND: &str = "block range extends beyond current head block";

/// A chain of three blocks.
fn three(config: EthConfig) -> Fixture {
    let mut f = Fixture::with(config, None);
    for _ in 0..3 {
        f.chain.block(2, 10);
    }
    f
}

fn range(from: &str, to: &str) -> Value {
    json!([{ "fromBlock": from, "toBlock": to }])
}

async fn logs(f: &Fixture, filter: Value) -> Vec<Value> {
    f.call("eth_getLogs", filter).await.as_array().unwrap().clone()
}

#[tokio::test]
async fn a_range_ends_with_the_newest_verified_block_or_is_refused() {
    let mut f = three(EthConfig::default());
    // The same before and while a block is executed.
    for open in [false, true] {
        let _block = open.then(|| f.open(1));
        for module in [&f.module, &f.preconfirmed()] {
            for (from, to, text) in [
                ("0x1", "0x4", BEYOND),
                ("0x4", "0x5", BEYOND),
                ("0x4", "0x4", BEYOND),
                ("0x3", "0xffffffffffffffff", BEYOND),
                ("0x4", "latest", BEYOND),
                ("0x2", "0x1", REVERSED),
                ("0x9", "0x8", REVERSED),
                ("latest", "earliest", REVERSED),
                ("pending", "latest", REVERSED),
                ("pending", "0x3", REVERSED),
                ("0x5", "pending", REVERSED),
                ("0x4", "pending", BEYOND),
            ] {
                let refused = ask(module, "eth_getLogs", range(from, to)).await.unwrap_err();
                assert_eq!(refused, invalid(text), "{from} {to}");
            }
            let from = json!([{ "fromBlock": "0x4" }]);
            let refused = ask(module, "eth_getLogs", from).await.unwrap_err();
            assert_eq!(refused, invalid(BEYOND));
        }
        let all = logs(&f, range("earliest", "latest")).await;
        assert_eq!(all, logs(&f, range("0x0", "0x3")).await);
        let pending = logs(&f, range("pending", "pending")).await;
        assert_eq!(pending, logs(&f, json!([{ "fromBlock": "pending" }])).await);
        assert_eq!(pending.is_empty(), !open);
        let both = logs(&f, range("0x0", "pending")).await;
        assert_eq!(both, [all, pending].concat());
    }
    let hash = f.chain.head.hash();
    let both = json!([{ "blockHash": hash, "fromBlock": "0x1" }]);
    let text = "invalid argument 0: cannot specify both BlockHash and FromBlock/ToBlock, choose one \
                or the other";
    assert_eq!(f.try_call("eth_getLogs", both).await.unwrap_err(), invalid(text));
    for wrong in [json!(["latest"]), json!([{ "fromBlock": 1 }]), json!([{ "toBlock": "0x01" }])] {
        assert_eq!(f.code("eth_getLogs", wrong).await, error::INVALID_PARAMS);
    }
}

/// Asks for a range, and for as much as an error advises, until all of it is there. How often.
async fn by_advice(f: &Fixture, from: u64, to: u64, limit: &str) -> (Vec<Value>, usize) {
    let (mut found, mut from, mut end, mut asked) = (Vec::new(), from, to, 0);
    while from <= to {
        asked += 1;
        assert!(asked < 50, "no progress");
        let filter = range(&format!("{from:#x}"), &format!("{end:#x}"));
        match f.try_call("eth_getLogs", filter).await {
            Ok(logs) => {
                found.extend(logs.as_array().unwrap().iter().cloned());
                (from, end) = (end + 1, to);
            }
            Err((code, text)) => {
                assert_eq!(code, i64::from(error::LIMIT));
                assert!(text.starts_with(limit), "{text}");
                let advice = text.split("retry with the range ").nth(1).expect("a range");
                let (first, last) = advice.split_once('-').unwrap();
                assert_eq!(first.parse::<u64>().unwrap(), from);
                // What is advised is answered: the next question is it.
                end = last.parse().unwrap();
                let filter = range(&format!("{from:#x}"), &format!("{end:#x}"));
                f.call("eth_getLogs", filter).await;
            }
        }
    }
    (found, asked)
}

#[tokio::test]
async fn the_range_that_an_error_of_a_limit_names_is_answered() {
    let all = {
        let f = three(EthConfig::default());
        logs(&f, range("0x0", "0x3")).await
    };
    let of = |number: u64| all.iter().filter(|log| quantity(&log["blockNumber"]) == number).count();
    let most = (1..=3).map(of).max().unwrap();
    for (config, limit) in [
        (
            EthConfig { max_log_blocks: 2, ..EthConfig::default() },
            "query exceeds max block range 2",
        ),
        (EthConfig { max_logs: most, ..EthConfig::default() }, "query exceeds max results"),
        // A block alone has more than the limit, and is answered all the same.
        (EthConfig { max_logs: 1, ..EthConfig::default() }, "query exceeds max results 1,"),
        (EthConfig { max_log_time_ms: 0, ..EthConfig::default() }, "query takes longer than 0 ms"),
    ] {
        let f = three(config);
        let (found, asked) = by_advice(&f, 0, 3, limit).await;
        assert_eq!(found, all, "{limit}");
        assert!(asked > 1, "{limit}");
        // Filters have the same limits.
        let id = f.call("eth_newFilter", json!([{ "fromBlock": "0x0" }])).await;
        let (code, text) = f.try_call("eth_getFilterLogs", json!([id])).await.unwrap_err();
        assert_eq!(code, i64::from(error::LIMIT));
        assert!(text.starts_with(limit), "{text}");
    }
    // A block that is longer than an answer may be has no range that would help.
    let f = three(EthConfig { max_response: 2_000, ..EthConfig::default() });
    let (code, text) = f.try_call("eth_getLogs", range("0x1", "0x3")).await.unwrap_err();
    assert_eq!(code, i64::from(error::LIMIT));
    let expected = "the logs of block 1 alone are longer than 2000 bytes: name addresses or topics";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn filters_refuse_what_can_never_come() {
    let f = three(EthConfig::default());
    for (from, to) in [
        ("0x2", "0x1"),
        ("pending", "latest"),
        ("pending", "0x9"),
        ("0x0", "safe"),
        ("0x0", "earliest"),
    ] {
        let refused = f.try_call("eth_newFilter", range(from, to)).await.unwrap_err();
        assert_eq!(refused, invalid(REVERSED), "{from} {to}");
    }
    let by_hash = json!([{ "blockHash": f.chain.head.hash() }]);
    assert_eq!(f.code("eth_newFilter", by_hash).await, error::INVALID_PARAMS);
}

#[tokio::test]
async fn a_filter_tells_the_blocks_within_its_bounds() {
    let mut f = three(EthConfig::default());
    let poll = async |f: &Fixture, id: &Value| {
        let changes = f.call("eth_getFilterChanges", json!([id])).await;
        changes.as_array().unwrap().clone()
    };
    let id = f.call("eth_newFilter", range("0x5", "0x5")).await;
    // Not there yet: all of it is still to come.
    assert_eq!(f.try_call("eth_getFilterLogs", json!([id])).await.unwrap_err(), invalid(BEYOND));
    f.chain.block(1, 10);
    assert!(poll(&f, &id).await.is_empty());
    f.chain.block(1, 10);
    let told = poll(&f, &id).await;
    assert!(!told.is_empty() && told.iter().all(|log| log["blockNumber"] == "0x5"));
    assert_eq!(f.call("eth_getFilterLogs", json!([id])).await, json!(told));
    f.chain.block(1, 10);
    assert!(poll(&f, &id).await.is_empty());
}
