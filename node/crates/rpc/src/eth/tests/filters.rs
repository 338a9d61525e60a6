//! Filters that are polled.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fragcast_execution::executor::ChainEvent;

use super::*;

async fn poll(f: &Fixture, id: &Value) -> Vec<Value> {
    let changes = f.call("eth_getFilterChanges", json!([id])).await;
    changes.as_array().unwrap().clone()
}

#[tokio::test]
async fn filters_tell_what_is_new() {
    let mut f = Fixture::new();
    f.chain.block(1, 10);
    let blocks = f.call("eth_newBlockFilter", json!([])).await;
    let txs = f.call("eth_newPendingTransactionFilter", json!([])).await;
    let logs = f.call("eth_newFilter", json!([{ "fromBlock": "0x1" }])).await;
    let pending = f.call("eth_newFilter", json!([{ "toBlock": "pending" }])).await;
    let only = json!([{ "fromBlock": "pending", "toBlock": "pending" }]);
    let only = f.call("eth_newFilter", only).await;
    assert!(poll(&f, &blocks).await.is_empty());
    let block = f.open(2);
    assert_eq!(poll(&f, &txs).await.len(), 20);
    assert!(poll(&f, &logs).await.is_empty());
    let early = poll(&f, &pending).await;
    let provisional = f.provisional();
    assert!(!early.is_empty() && early.iter().all(|log| log["blockHash"] == provisional));
    let mut block = block;
    f.chain.frag(&mut block, &[], true);
    let sealed = f.chain.seal(block);
    assert_eq!(poll(&f, &blocks).await, [json!(sealed.hash())]);
    let sure = poll(&f, &logs).await;
    assert_eq!(sure.len(), early.len());
    assert!(sure.iter().all(|log| log["blockHash"] == json!(sealed.hash())));
    assert_eq!(poll(&f, &pending).await, sure);
    assert_eq!(poll(&f, &only).await, early);
    assert!(poll(&f, &logs).await.is_empty());
    // Unwound: the same logs, removed.
    f.chain.view.tell(ChainEvent::Unwound(Arc::new(sealed.snapshot.block.clone())));
    let gone = poll(&f, &logs).await;
    assert_eq!(gone.len(), sure.len());
    assert!(gone.iter().all(|log| log["removed"] == true));
    // Retracted: only who was told hears of it.
    let snapshot = Arc::clone(f.chain.view.heads().unwrap().pending());
    f.chain.view.tell(ChainEvent::Retracted { snapshot, reason: "superseded" });
    assert!(poll(&f, &logs).await.is_empty());
    assert!(poll(&f, &pending).await.iter().all(|log| log["removed"] == true));
    // All the range's logs, not only the new ones.
    assert!(
        f.call("eth_getFilterLogs", json!([logs])).await.as_array().unwrap().len() > sure.len()
    );
    assert_eq!(f.code("eth_getFilterLogs", json!([blocks])).await, error::NOT_HERE);
    assert_eq!(f.call("eth_uninstallFilter", json!([logs])).await, true);
    assert_eq!(f.call("eth_uninstallFilter", json!([logs])).await, false);
    let (code, message) = f.try_call("eth_getFilterChanges", json!([logs])).await.unwrap_err();
    assert_eq!((code, message.as_str()), (-32_000, "filter not found"));
    assert_eq!(f.ctx.stats.filters.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_filter_that_lags_is_dropped_and_counted() {
    let mut f = Fixture::new();
    let id = f.call("eth_newBlockFilter", json!([])).await;
    let sealed = f.chain.block(1, 1);
    for _ in 0..1_024 {
        f.chain.view.tell(ChainEvent::Verified(Arc::clone(&sealed)));
    }
    assert_eq!(f.code("eth_getFilterChanges", json!([id])).await, error::NOT_HERE);
    assert_eq!(f.ctx.stats.filters_lagged.load(Ordering::Relaxed), 1);
    assert_eq!(f.ctx.stats.filters.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn filters_are_bounded_and_expire() {
    let config = EthConfig { max_filters: 2, filter_timeout_s: 300, ..EthConfig::default() };
    let f = Fixture::with(config, None);
    let first = f.call("eth_newBlockFilter", json!([])).await;
    let second = f.call("eth_newBlockFilter", json!([])).await;
    assert_eq!(f.code("eth_newBlockFilter", json!([])).await, error::LIMIT);
    tokio::time::advance(Duration::from_secs(299)).await;
    assert!(poll(&f, &first).await.is_empty());
    tokio::time::advance(Duration::from_secs(1)).await;
    // The second has not been polled for 300 s, the first for 1 s.
    assert_eq!(f.code("eth_getFilterChanges", json!([second])).await, error::NOT_HERE);
    assert_eq!(f.ctx.stats.filters_expired.load(Ordering::Relaxed), 1);
    f.call("eth_newBlockFilter", json!([])).await;
    assert_eq!(f.code("eth_newBlockFilter", json!([])).await, error::LIMIT);
    // Room is made for new ones, and time alone makes it, too.
    tokio::time::advance(Duration::from_secs(299)).await;
    f.call("eth_newBlockFilter", json!([])).await;
    assert_eq!(f.ctx.stats.filters_expired.load(Ordering::Relaxed), 2);
    assert_eq!(f.ctx.stats.filters.load(Ordering::Relaxed), 2);
    tokio::time::advance(Duration::from_secs(300)).await;
    f.ctx.tick();
    assert_eq!(f.ctx.stats.filters.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_poll_gives_no_more_than_the_limit_and_goes_on() {
    let mut f = Fixture::with(EthConfig { max_logs: 4, ..EthConfig::default() }, None);
    let id = f.call("eth_newBlockFilter", json!([])).await;
    let sealed = f.chain.block(1, 1);
    for _ in 0..5 {
        f.chain.view.tell(ChainEvent::Verified(Arc::clone(&sealed)));
    }
    assert_eq!(poll(&f, &id).await.len(), 4);
    assert_eq!(poll(&f, &id).await.len(), 2);
}

#[tokio::test]
async fn the_values_of_a_filter_are_limited_by_position() {
    let config = EthConfig { max_filter_values: 3, ..EthConfig::default() };
    let f = Fixture::with(config, None);
    let (address, topic) = (Address::ZERO, B256::ZERO);
    let full = json!({
        "address": [address, Address::repeat_byte(1), Address::repeat_byte(2)],
        "topics": [
            [topic, B256::repeat_byte(1), B256::repeat_byte(2)],
            null,
            [topic, B256::repeat_byte(1), B256::repeat_byte(2)],
            topic,
        ],
    });
    f.call("eth_getLogs", json!([full])).await;
    let id = f.call("eth_newFilter", json!([full])).await;
    f.call("eth_uninstallFilter", json!([id])).await;
    let many = |count: u8| (0..count).map(B256::repeat_byte).collect::<Vec<_>>();
    let addresses: Vec<_> = (0..4).map(Address::repeat_byte).collect();
    for (over, position) in [
        (json!({ "address": addresses }), "addresses"),
        (json!({ "topics": [many(4)] }), "topics[0]"),
        (json!({ "topics": [null, [topic], many(5)] }), "topics[2]"),
    ] {
        for method in ["eth_getLogs", "eth_newFilter"] {
            let (code, text) = f.try_call(method, json!([over])).await.unwrap_err();
            assert_eq!(code, i64::from(error::LIMIT));
            let begin = "exceed max addresses or topics per search position: ";
            assert!(text.starts_with(begin) && text.contains(position), "{text}");
        }
    }
}

#[tokio::test]
async fn all_filters_together_have_as_many_values_as_their_number_allows() {
    let config = EthConfig { max_filter_values: 4, max_filters: 2, ..EthConfig::default() };
    let f = Fixture::with(config, None);
    let topics: Vec<_> = (0..4).map(B256::repeat_byte).collect();
    let five = json!([{ "address": Address::ZERO, "topics": [topics] }]);
    let id = f.call("eth_newFilter", five.clone()).await;
    let (code, text) = f.try_call("eth_newFilter", five.clone()).await.unwrap_err();
    assert_eq!(code, i64::from(error::LIMIT));
    assert!(text.contains("addresses and topics"), "{text}");
    f.call("eth_newBlockFilter", json!([])).await;
    f.call("eth_uninstallFilter", json!([id])).await;
    f.call("eth_newFilter", five).await;
}
