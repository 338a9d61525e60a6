//! `eth_subscribe`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use alloy_consensus::TxEnvelope;
use alloy_rpc_types_eth::{Block, Header, Log, Transaction};
use fragcast_execution::executor::ChainEvent;
use jsonrpsee::core::server::Subscription;

use super::*;

/// A guard against hanging, longer than anything here takes.
const GUARD: Duration = Duration::from_secs(60);

async fn subscribe(f: &Fixture, params: Value) -> Subscription {
    let params: Vec<Value> = serde_json::from_value(params).unwrap();
    f.module.subscribe_unbounded("eth_subscribe", params).await.unwrap()
}

async fn next(subscription: &mut Subscription) -> Value {
    let next = tokio::time::timeout(GUARD, subscription.next::<Value>());
    next.await.expect("a notification").expect("open").unwrap().0
}

/// Lets the other tasks run until `count` subscriptions are left.
async fn until_left(f: &Fixture, count: u64) {
    let left = async {
        while f.ctx.stats.subscribers.load(Ordering::Relaxed) != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(GUARD, left).await.expect("the subscription was not closed");
}

#[tokio::test]
async fn each_kind_tells_its_events() {
    let mut f = Fixture::new();
    f.chain.block(1, 10);
    let mut heads = subscribe(&f, json!(["newHeads"])).await;
    let mut logs = subscribe(&f, json!(["logs", {}])).await;
    let mut hashes = subscribe(&f, json!(["newPendingTransactions"])).await;
    let mut txs = subscribe(&f, json!(["newFlashblockTransactions", true])).await;
    let mut flashblocks = subscribe(&f, json!(["newFlashblocks"])).await;
    let mut pending_logs = subscribe(&f, json!(["pendingLogs"])).await;
    let mut frags = subscribe(&f, json!(["frags"])).await;
    let mut heights = subscribe(&f, json!(["fragHeights"])).await;
    let mut retractions = subscribe(&f, json!(["retractions"])).await;
    assert_eq!(f.ctx.stats.subscribers.load(Ordering::Relaxed), 9);
    let mut block = f.open(2);
    f.chain.frag(&mut block, &[], true);
    let snapshot = Arc::clone(f.chain.view.heads().unwrap().pending());
    let provisional = f.provisional();
    let sealed = f.chain.seal(block);

    for frag in 0..2_u64 {
        let block = next(&mut flashblocks).await;
        let typed: Block<Transaction<TxEnvelope>> = serde_json::from_value(block.clone()).unwrap();
        assert_eq!(
            (&block["hash"], typed.transactions.len() as u64),
            (&provisional, 10 * (frag + 1))
        );
        let frag_event = next(&mut frags).await;
        assert_eq!(quantity(&frag_event["firstTransactionIndex"]), 10 * frag);
        assert_eq!(frag_event["transactions"].as_array().unwrap().len(), 10);
        assert_eq!(frag_event["blockHash"], provisional);
        assert_eq!(quantity(&frag_event["fragIndex"]), frag);
        let height =
            json!({ "blockNumber": "0x2", "fragIndex": U64::from(frag), "attempt": "0x0" });
        assert_eq!(next(&mut heights).await, height);
    }
    for placed in sealed.snapshot.txs() {
        let hash = json!(placed.executed.tx.hash);
        assert_eq!(next(&mut hashes).await, hash);
        let tx = next(&mut txs).await;
        assert_eq!((&tx["hash"], &tx["blockHash"]), (&hash, &provisional));
        // With what the receipt says.
        let receipt = &placed.executed.receipt;
        assert_eq!(tx["logs"].as_array().unwrap().len(), receipt.logs.len());
        assert_eq!(quantity(&tx["gasUsed"]), placed.executed.gas_used);
        assert_eq!(quantity(&tx["cumulativeGasUsed"]), receipt.cumulative_gas_used);
        assert_eq!((&tx["status"], &tx["logsBloom"]), (&json!("0x1"), &json!(receipt.bloom)));
        assert_eq!(tx["contractAddress"], json!(placed.executed.created()));
        for _ in &placed.executed.receipt.logs {
            let early: Log = serde_json::from_value(next(&mut pending_logs).await).unwrap();
            let sure: Log = serde_json::from_value(next(&mut logs).await).unwrap();
            assert_eq!(json!(early.block_hash), provisional);
            assert_eq!(sure.block_hash, Some(sealed.hash()));
            assert_eq!((early.log_index, early.inner), (sure.log_index, sure.inner));
        }
    }
    let head: Header = serde_json::from_value(next(&mut heads).await).unwrap();
    assert_eq!(head.hash_slow(), sealed.hash());

    f.chain.view.tell(ChainEvent::Retracted { snapshot, reason: "superseded" });
    let retraction = next(&mut retractions).await;
    assert_eq!(
        (&retraction["reason"], &retraction["blockHash"]),
        (&json!("superseded"), &provisional)
    );
    assert_eq!(retraction["frags"], "0x3");
    f.chain.view.tell(ChainEvent::Unwound(Arc::new(sealed.snapshot.block.clone())));
    let unwound = next(&mut retractions).await;
    assert_eq!(
        (&unwound["reason"], &unwound["blockHash"]),
        (&json!("unwound"), &json!(sealed.hash()))
    );
    assert_eq!(next(&mut logs).await["removed"], true);

    drop(heads);
    until_left(&f, 8).await;
}

#[tokio::test]
async fn one_who_lags_is_told_and_dropped() {
    let mut f = Fixture::new();
    let mut heads = subscribe(&f, json!(["newHeads"])).await;
    let sealed = f.chain.block(1, 1);
    // On one thread: the subscription's task runs only after all of them.
    for _ in 0..1_100 {
        f.chain.view.tell(ChainEvent::Verified(Arc::clone(&sealed)));
    }
    let next = tokio::time::timeout(GUARD, heads.next::<Value>());
    assert!(next.await.expect("it is closed").is_none());
    assert_eq!(f.ctx.stats.slow.load(Ordering::Relaxed), 1);
    assert_eq!(f.ctx.stats.subscribers.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn one_who_takes_nothing_is_dropped() {
    let mut f = Fixture::new();
    let params = ["newHeads"];
    let _stalled = f.module.subscribe("eth_subscribe", params, 2).await.unwrap();
    let mut other = subscribe(&f, json!(["newHeads"])).await;
    let sealed = f.chain.block(1, 1);
    for _ in 0..8 {
        f.chain.view.tell(ChainEvent::Verified(Arc::clone(&sealed)));
    }
    for _ in 0..9 {
        next(&mut other).await;
    }
    let slow_after = f.ctx.config.slow_after();
    tokio::time::sleep(slow_after - Duration::from_millis(1)).await;
    assert_eq!(f.ctx.stats.subscribers.load(Ordering::Relaxed), 2);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(f.ctx.stats.slow.load(Ordering::Relaxed), 1);
    assert_eq!(f.ctx.stats.subscribers.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn subscriptions_are_bounded_and_named() {
    let config = EthConfig { max_subscriptions: 1, ..EthConfig::default() };
    let f = Fixture::with(config, None);
    let _one = subscribe(&f, json!(["frags"])).await;
    assert_eq!(f.code("eth_subscribe", json!(["frags"])).await, error::LIMIT);
    assert_eq!(f.code("eth_subscribe", json!(["syncs"])).await, -32_601);
    assert_eq!(f.ctx.stats.subscribers.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn subscribers_of_one_kind_share_one_encoding() {
    let mut f = Fixture::new();
    let kinds = [
        json!(["newHeads"]),
        json!(["newFlashblocks"]),
        json!(["frags"]),
        json!(["newPendingTransactions", true]),
        json!(["newPendingTransactions"]),
        json!(["logs", {}]),
        json!(["pendingLogs", {}]),
    ];
    let mut subscriptions = Vec::new();
    for _ in 0..20 {
        for kind in &kinds {
            subscriptions.push(subscribe(&f, kind.clone()).await);
        }
    }
    // The same topics in another order are the same filter; other ones are another.
    let (a, b) = (format!("0x{:064x}", 1), format!("0x{:064x}", 2));
    for topics in [json!([[a, b]]), json!([[b, a]]), json!([null, [a, b]])] {
        subscriptions.push(subscribe(&f, json!(["logs", { "topics": topics }])).await);
    }
    let sealed = f.chain.block(1, 10);
    for one in subscriptions.iter_mut().take(20 * kinds.len()) {
        next(one).await;
    }
    // Those who get nothing have been through it as well when those that come later have.
    f.chain.view.tell(ChainEvent::Unwound(Arc::new(sealed.snapshot.block.clone())));
    until("every kind once", || f.ctx.shared.made() >= 7 + 2 + 3).await;
    // A frag for five kinds, the block for two kinds and two filters, the unwound block for the
    // three filters.
    assert_eq!(f.ctx.shared.made(), 5 + 2 + 2 + 3);
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(GUARD, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn logs_with_pending_bounds_are_those_of_frags() {
    let mut f = Fixture::new();
    f.chain.block(1, 10);
    let bounds = |from: &str, to: &str| json!(["logs", { "fromBlock": from, "toBlock": to }]);
    let mut only = subscribe(&f, bounds("pending", "pending")).await;
    let mut both = subscribe(&f, bounds("latest", "pending")).await;
    let mut far = subscribe(&f, bounds("0x3", "0x5")).await;
    let block = f.open(1);
    let snapshot = Arc::clone(f.chain.view.heads().unwrap().pending());
    let logs: usize = snapshot.txs().map(|placed| placed.executed.receipt.logs.len()).sum();
    let provisional = f.provisional();
    let mut block = block;
    f.chain.frag(&mut block, &[], true);
    let sealed = f.chain.seal(block);
    for _ in 0..logs {
        assert_eq!(next(&mut only).await["blockHash"], provisional);
        assert_eq!(next(&mut both).await["blockHash"], provisional);
    }
    for _ in 0..logs {
        assert_eq!(next(&mut both).await["blockHash"], json!(sealed.hash()));
    }
    // Void preconfirmations are taken back for those who heard of them.
    f.chain.view.tell(ChainEvent::Retracted { snapshot, reason: "superseded" });
    for _ in 0..logs {
        assert_eq!(next(&mut only).await["removed"], true);
        assert_eq!(next(&mut both).await["removed"], true);
    }
    // Blocks outside the bounds are not told.
    f.chain.block(1, 10);
    assert_eq!(next(&mut far).await["blockNumber"], "0x3");
    // What can never be is refused.
    for params in [bounds("pending", "latest"), bounds("0x5", "0x4"), bounds("0x1", "safe")] {
        let refused = f.try_call("eth_subscribe", params).await.unwrap_err();
        assert_eq!(refused, (-32_602, "invalid block range params".to_owned()));
    }
    let by_hash = json!(["logs", { "blockHash": sealed.hash() }]);
    assert_eq!(f.code("eth_subscribe", by_hash).await, error::INVALID_PARAMS);
    let past = json!(["pendingLogs", { "fromBlock": "0x1" }]);
    assert_eq!(f.code("eth_subscribe", past).await, error::INVALID_PARAMS);
}

#[tokio::test]
async fn flashblock_transactions_may_be_selected_by_their_logs() {
    let mut f = Fixture::new();
    f.chain.block(1, 10);
    let filter = json!({ "topics": [fragcast_execution::devnet::token::TRANSFER_EVENT] });
    let mut some = subscribe(&f, json!(["newFlashblockTransactions", filter])).await;
    let mut hashes = subscribe(&f, json!(["newFlashblockTransactions", false])).await;
    let _block = f.open(3);
    let snapshot = Arc::clone(f.chain.view.heads().unwrap().pending());
    let mut told = 0;
    for placed in snapshot.txs() {
        assert_eq!(next(&mut hashes).await, json!(placed.executed.tx.hash));
        if placed.executed.receipt.logs.is_empty() {
            continue;
        }
        let tx = next(&mut some).await;
        assert_eq!(tx["hash"], json!(placed.executed.tx.hash));
        assert_eq!(tx["logs"][0]["transactionHash"], tx["hash"]);
        told += 1;
    }
    assert!(told > 0 && told < snapshot.tx_count());
    for wrong in [json!("all"), json!({ "address": 7 }), json!({ "fromBlock": "latest" })] {
        let params = json!(["newFlashblockTransactions", wrong]);
        assert_eq!(f.code("eth_subscribe", params).await, error::INVALID_PARAMS);
    }
}

#[tokio::test(start_paused = true)]
async fn syncing_is_told_at_once_and_when_it_changes() {
    let f = Fixture::new();
    let follow = Arc::new(FollowStats::default());
    let (spec, view) = (Arc::clone(&f.chain.spec), Arc::clone(&f.chain.view));
    let mut ctx = EthContext::new(spec, view, EthConfig::default(), None, Arc::new(NoForwarded));
    ctx.follow = Some(Arc::clone(&follow));
    let ctx = Arc::new(ctx);
    let mut f = Fixture { module: module(Arc::clone(&ctx)), ctx, ..f };
    let mut syncing = subscribe(&f, json!(["syncing"])).await;
    assert_eq!(next(&mut syncing).await, json!(false));
    follow.head.store(5, Ordering::Relaxed);
    let behind = next(&mut syncing).await;
    // geth's form, and reth's.
    assert_eq!((&behind["syncing"], &behind["currentBlock"]), (&json!(true), &json!("0x0")));
    assert_eq!(
        (&behind["status"]["highestBlock"], &behind["highestBlock"]),
        (&json!("0x5"), &json!("0x5"))
    );
    assert_eq!(f.call("eth_syncing", json!([])).await["highestBlock"], "0x5");
    f.chain.block(1, 1);
    assert_eq!(next(&mut syncing).await["currentBlock"], "0x1");
    follow.head.store(2, Ordering::Relaxed);
    assert_eq!(next(&mut syncing).await, json!(false));
}
