//! The two views: each agrees with itself, and what is told can be asked for.

use std::time::Duration;

use alloy_primitives::{B256, U256};
use fragcast_execution::devnet::token;
use fragcast_execution::exec::Snapshot;
use fragcast_execution::executor::{ChainEvent, Heads};

use super::*;

/// A frag is executed and its block open, on a chain of one block.
fn opened() -> (Fixture, OpenBlock) {
    let mut f = Fixture::new();
    f.chain.block(1, 10);
    let block = f.open(2);
    (f, block)
}

fn pending(f: &Fixture) -> Arc<Snapshot> {
    Arc::clone(f.chain.view.heads().unwrap().pending())
}

fn seal(f: &mut Fixture, mut block: OpenBlock) -> B256 {
    f.chain.frag(&mut block, &[], true);
    f.chain.seal(block).hash()
}

/// An account whose nonce the open block changes, with its nonce before and after.
fn changed(f: &Fixture) -> (Address, u64, u64) {
    let heads = f.chain.view.heads().unwrap();
    let sender = heads.pending().txs().next().unwrap().executed.tx.sender;
    let nonce = |snapshot: &Snapshot| snapshot.state.account(sender).unwrap().unwrap().nonce;
    let (before, after) = (nonce(&heads.latest.snapshot), nonce(heads.pending()));
    assert!(before < after);
    (sender, before, after)
}

#[tokio::test]
async fn in_the_default_view_receipts_nonces_state_and_blocks_agree_on_the_verified_block() {
    let (mut f, block) = opened();
    let (sender, before, after) = changed(&f);
    let hashes: Vec<B256> = pending(&f).txs().map(|placed| placed.executed.tx.hash).collect();
    for hash in &hashes {
        assert_eq!(f.call("eth_getTransactionReceipt", json!([hash])).await, Value::Null);
        // It is known, and waits for its block.
        let tx = f.call("eth_getTransactionByHash", json!([hash])).await;
        assert_eq!(tx["hash"], json!(hash));
        for place in ["blockHash", "blockNumber", "transactionIndex"] {
            assert_eq!(tx[place], Value::Null, "{place}");
        }
        assert!(f.call("eth_getRawTransactionByHash", json!([hash])).await.is_string());
    }
    let nonce = async |f: &Fixture, id: &str| {
        quantity(&f.call("eth_getTransactionCount", json!([sender, id])).await)
    };
    assert_eq!((nonce(&f, "latest").await, nonce(&f, "pending").await), (before, after + 2));
    assert_eq!(f.call("eth_blockNumber", json!([])).await, "0x1");
    // Neither by number nor in a range.
    assert_eq!(f.code("eth_getBalance", json!([sender, "0x2"])).await, error::UNKNOWN_BLOCK);
    for method in ["eth_getBlockReceipts", "eth_getBlockTransactionCountByNumber"] {
        assert_eq!(f.call(method, json!(["0x2"])).await, Value::Null);
    }
    let sealed = seal(&mut f, block);
    for hash in &hashes {
        let receipt = f.call("eth_getTransactionReceipt", json!([hash])).await;
        assert_eq!(receipt["blockHash"], json!(sealed));
        let tx = f.call("eth_getTransactionByHash", json!([hash])).await;
        assert_eq!(tx["blockHash"], json!(sealed));
    }
    assert_eq!(nonce(&f, "latest").await, after);
    assert_eq!(f.call("eth_blockNumber", json!([])).await, "0x2");
    assert_eq!(f.call("eth_getBlockByNumber", json!(["latest", false])).await["number"], "0x2");
}

#[tokio::test]
async fn a_block_is_not_told_before_it_is_the_head() {
    let (f, block) = opened();
    let heads = f.chain.view.heads().unwrap();
    let hash = pending(&f).txs().next().unwrap().executed.tx.hash;
    // Its transactions are found in memory a moment before the heads say so.
    let mut f = f;
    seal(&mut f, block);
    f.chain.view.set_heads((*heads).clone());
    assert_eq!(f.call("eth_getTransactionReceipt", json!([hash])).await, Value::Null);
    let tx = f.call("eth_getTransactionByHash", json!([hash])).await;
    assert_eq!((&tx["hash"], &tx["blockHash"]), (&json!(hash), &Value::Null));
}

#[tokio::test]
async fn the_preconfirmed_view_reads_state_at_the_newest_frag_and_blocks_as_they_are_verified() {
    let (mut f, block) = opened();
    let preconf = f.preconfirmed();
    let ask = async |method: &str, params: Value| ask(&preconf, method, params).await.unwrap();
    let (sender, _, after) = changed(&f);
    let provisional = f.provisional();
    let open = pending(&f);
    for placed in open.txs() {
        let hash = placed.executed.tx.hash;
        let receipt = ask("eth_getTransactionReceipt", json!([hash])).await;
        assert_eq!((&receipt["blockHash"], &receipt["blockNumber"]), (&provisional, &json!("0x2")));
        let tx = ask("eth_getTransactionByHash", json!([hash])).await;
        assert_eq!((&tx["blockHash"], &tx["blockNumber"]), (&provisional, &json!("0x2")));
        assert_eq!(quantity(&tx["transactionIndex"]), placed.index as u64);
    }
    let account = open.state.account(sender).unwrap().unwrap();
    let slot = token::balance_slot(sender);
    let value = open.state.storage(token::ADDRESS, slot.into()).unwrap();
    // The newest frag, by tag, by default, and by the number that receipts tell.
    for id in [json!("latest"), json!("pending"), Value::Null, json!("0x2"), provisional] {
        let balance = ask("eth_getBalance", json!([sender, id])).await;
        assert_eq!(balance, json!(account.balance), "{id}");
        let stored = ask("eth_getStorageAt", json!([token::ADDRESS, slot, id])).await;
        assert_eq!(stored, json!(B256::from(value)), "{id}");
        let nonce = quantity(&ask("eth_getTransactionCount", json!([sender, id])).await);
        // What is forwarded counts under `pending` alone.
        assert_eq!(nonce, if id == "pending" { after + 2 } else { after }, "{id}");
    }
    // What follows blocks moves with verified blocks.
    assert_eq!(ask("eth_blockNumber", json!([])).await, "0x1");
    let head = f.call("eth_getBlockByNumber", json!(["latest", true])).await;
    assert_eq!(ask("eth_getBlockByNumber", json!(["latest", true])).await, head);
    assert_eq!(ask("eth_getBlockByNumber", json!(["0x2", true])).await, Value::Null);
    for (method, params) in [
        ("eth_getBlockReceipts", json!(["latest"])),
        ("eth_getBlockTransactionCountByNumber", json!(["latest"])),
        ("eth_getTransactionByBlockNumberAndIndex", json!(["latest", "0x0"])),
        ("eth_getLogs", json!([{}])),
        ("eth_getLogs", json!([{ "fromBlock": "0x0" }])),
        ("eth_feeHistory", json!(["0x2", "latest", [50]])),
        ("eth_getBlockByNumber", json!(["pending", true])),
        ("eth_gasPrice", json!([])),
    ] {
        assert_eq!(ask(method, params.clone()).await, f.call(method, params).await, "{method}");
    }
    let hash = open.txs().next().unwrap().executed.tx.hash;
    let sealed = seal(&mut f, block);
    let receipt = ask("eth_getTransactionReceipt", json!([hash])).await;
    assert_eq!(receipt["blockHash"], json!(sealed));
    assert_eq!(ask("eth_blockNumber", json!([])).await, "0x2");
}

#[tokio::test]
async fn the_setting_makes_the_default_view_the_preconfirmed_one() {
    let config = EthConfig { preconf_as_latest: true, ..EthConfig::default() };
    let mut f = Fixture::with(config, None);
    f.chain.block(1, 10);
    let _block = f.open(2);
    let (sender, _, after) = changed(&f);
    let latest = json!([sender, "latest"]);
    assert_eq!(quantity(&f.call("eth_getTransactionCount", latest).await), after);
    assert_eq!(f.call("eth_blockNumber", json!([])).await, "0x1");
}

#[tokio::test]
async fn a_filter_is_found_in_both_views_and_counted_once() {
    let (f, _block) = opened();
    let id = f.call("eth_newBlockFilter", json!([])).await;
    let found = ask(&f.preconfirmed(), "eth_getFilterChanges", json!([id])).await.unwrap();
    assert_eq!(found, json!([]));
    assert_eq!(f.ctx.stats.filters.load(std::sync::atomic::Ordering::Relaxed), 1);
}

/// All values of keys that name a block by its hash.
fn told(value: &Value, hashes: &mut Vec<Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| told(value, hashes)),
        Value::Object(fields) => {
            for (key, value) in fields {
                if ["blockHash", "parentHash"].contains(&key.as_str()) && !value.is_null() {
                    hashes.push(value.clone());
                }
                told(value, hashes);
            }
            if fields.contains_key("parentHash") {
                hashes.extend(fields.get("hash").filter(|hash| !hash.is_null()).cloned());
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn every_hash_that_is_told_can_be_asked_for_now_and_later() {
    let (mut f, block) = opened();
    let preconf = f.preconfirmed();
    let tx = json!(pending(&f).txs().next().unwrap().executed.tx.hash);
    let provisional = f.provisional();
    let mut hashes = Vec::new();
    for module in [&f.module, &preconf] {
        for (method, params) in [
            ("eth_getBlockByNumber", json!(["pending", true])),
            ("eth_getBlockByNumber", json!(["latest", true])),
            ("eth_getBlockByHash", json!([provisional, true])),
            ("eth_getBlockReceipts", json!(["pending"])),
            ("eth_getBlockReceipts", json!([provisional])),
            ("eth_getTransactionByHash", json!([tx])),
            ("eth_getTransactionReceipt", json!([tx])),
            ("eth_getTransactionByBlockNumberAndIndex", json!(["pending", "0x1"])),
            ("eth_getTransactionByBlockHashAndIndex", json!([provisional, "0x1"])),
            ("eth_getLogs", json!([{ "fromBlock": "0x1", "toBlock": "pending" }])),
            ("eth_getLogs", json!([{ "blockHash": provisional }])),
        ] {
            told(&ask(module, method, params).await.unwrap(), &mut hashes);
        }
    }
    assert!(hashes.contains(&provisional) && hashes.len() > 50);
    let check = async |hashes: &[Value]| {
        for module in [&f.module, &preconf] {
            for hash in hashes {
                let block = ask(module, "eth_getBlockByHash", json!([hash, false])).await.unwrap();
                assert!(block.is_object(), "{hash}");
            }
        }
    };
    check(&hashes).await;
    let sealed = {
        let mut chain_block = block;
        f.chain.frag(&mut chain_block, &[], true);
        f.chain.seal(chain_block)
    };
    for module in [&f.module, &preconf] {
        for hash in &hashes {
            let block = ask(module, "eth_getBlockByHash", json!([hash, false])).await.unwrap();
            assert!(block.is_object(), "{hash}");
        }
    }
    // Every method that takes a hash takes the one by which the block was told before.
    let owner = f.chain.workload.addresses()[3];
    for (method, of) in [
        ("eth_getBlockByHash", json!(["$", true])),
        ("eth_getBlockTransactionCountByHash", json!(["$"])),
        ("eth_getUncleCountByBlockHash", json!(["$"])),
        ("eth_getTransactionByBlockHashAndIndex", json!(["$", "0x2"])),
        ("eth_getBlockReceipts", json!(["$"])),
        ("eth_getBlockReceipts", json!([{ "blockHash": "$" }])),
        ("eth_getLogs", json!([{ "blockHash": "$" }])),
        ("eth_getBalance", json!([owner, { "blockHash": "$" }])),
        ("eth_getBalance", json!([owner, { "blockHash": "$", "requireCanonical": true }])),
        ("eth_getTransactionCount", json!([owner, "$"])),
        ("eth_getCode", json!([token::ADDRESS, "$"])),
        ("eth_getStorageAt", json!([token::ADDRESS, token::balance_slot(owner), "$"])),
    ] {
        let by = |hash: &Value| {
            let text = of.to_string().replace("$", hash.as_str().unwrap());
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let expected = f.call(method, by(&json!(sealed.hash()))).await;
        assert_ne!(expected, Value::Null, "{method}");
        assert_eq!(f.call(method, by(&provisional)).await, expected, "{method}");
    }
    // Blocks later it still does.
    f.chain.block(1, 3);
    let later = f.call("eth_getBlockByHash", json!([provisional, false])).await;
    assert_eq!(later["hash"], json!(sealed.hash()));
}

#[tokio::test]
async fn the_hash_of_a_block_that_became_nothing_names_nothing() {
    let (f, _block) = opened();
    let provisional = f.provisional();
    assert!(f.call("eth_getBlockByHash", json!([provisional, false])).await.is_object());
    let canonical = json!({ "blockHash": provisional, "requireCanonical": true });
    let owner = f.chain.workload.addresses()[3];
    assert_eq!(f.code("eth_getBalance", json!([owner, canonical])).await, error::UNKNOWN_BLOCK);
    let heads = f.chain.view.heads().unwrap();
    let snapshot = Arc::clone(heads.pending());
    f.chain.view.set_heads(Heads { pending: None, open: Vec::new(), ..(*heads).clone() });
    f.chain.view.tell(ChainEvent::Retracted { snapshot, reason: "superseded" });
    assert_eq!(f.call("eth_getBlockByHash", json!([provisional, false])).await, Value::Null);
    let by_hash = json!([owner, { "blockHash": provisional }]);
    assert_eq!(f.code("eth_getBalance", by_hash).await, error::UNKNOWN_BLOCK);
}

#[tokio::test]
async fn a_block_whose_child_is_open_is_found_by_the_hash_that_the_child_tells() {
    let mut f = Fixture::new();
    f.chain.block(1, 10);
    let before = f.chain.view.heads().unwrap();
    let first = f.open(1);
    let below = pending(&f);
    let hash = seal(&mut f, first);
    let _second = f.open(1);
    // The first is executed, and not verified yet.
    let above = pending(&f);
    f.chain.view.set_heads(Heads {
        latest: Arc::clone(&before.latest),
        pending: Some(Arc::clone(&above)),
        open: vec![Arc::clone(&below), above],
        ..(*before).clone()
    });
    f.chain.view.remove(hash, 2);
    let told = f.call("eth_getBlockByNumber", json!(["pending", false])).await;
    assert_eq!((&told["number"], &told["parentHash"]), (&json!("0x3"), &json!(hash)));
    let parent = f.call("eth_getBlockByHash", json!([hash, false])).await;
    assert_eq!(parent["number"], "0x2");
    let logs = json!([{ "fromBlock": "0x1", "toBlock": "pending" }]);
    let logs = f.call("eth_getLogs", logs).await;
    let numbers: std::collections::BTreeSet<u64> =
        logs.as_array().unwrap().iter().map(|log| quantity(&log["blockNumber"])).collect();
    assert_eq!(numbers.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn the_state_after_a_frag_is_read_by_block_and_frag() {
    let mut f = Fixture::new();
    f.chain.block(1, 10);
    let mut block = f.chain.open();
    let mut states = Vec::new();
    for _ in 0..3 {
        let txs: Vec<Bytes> = (0..10).map(|_| f.chain.workload.next_tx().bytes).collect();
        f.chain.frag(&mut block, &txs, false);
        states.push(pending(&f));
    }
    let height = f.call("fragcast_fragHeight", json!([])).await;
    assert_eq!(height, json!({ "blockNumber": "0x2", "fragIndex": "0x2", "attempt": "0x0" }));
    let addresses = f.chain.workload.addresses().to_vec();
    let provisional = f.provisional();
    let check = async |f: &Fixture| {
        for module in [&f.module, &f.preconfirmed()] {
            for (frag, state) in states.iter().enumerate() {
                let index = U64::from(frag);
                for id in [
                    json!({ "blockNumber": "0x2", "fragIndex": index }),
                    json!({ "blockNumber": "0x2", "fragIndex": index, "attempt": "0x0" }),
                    json!({ "blockHash": provisional, "fragIndex": index }),
                ] {
                    for address in &addresses {
                        let account = state.state.account(*address).unwrap().unwrap();
                        let params = json!([address, id]);
                        let balance = ask(module, "eth_getBalance", params.clone()).await.unwrap();
                        assert_eq!(balance, json!(account.balance), "{id}");
                        let nonce = ask(module, "eth_getTransactionCount", params).await.unwrap();
                        assert_eq!(nonce, json!(U64::from(account.nonce)), "{id}");
                        let slot = token::balance_slot(*address);
                        let params = json!([token::ADDRESS, slot, id]);
                        let value = ask(module, "eth_getStorageAt", params).await.unwrap();
                        let expected = state.state.storage(token::ADDRESS, slot.into()).unwrap();
                        assert_eq!(value, json!(B256::from(expected)), "{id}");
                    }
                }
            }
        }
    };
    check(&f).await;
    // Not there yet, of another attempt, of a block that is not there: one code, and what there is.
    let refused = async |f: &Fixture, id: Value| {
        let request = json!({
            "jsonrpc": "2.0", "id": 1, "method": "eth_getBalance", "params": [addresses[0], id],
        });
        let (answer, _) = f.module.raw_json_request(&request.to_string(), 1).await.unwrap();
        let answer: Value = serde_json::from_str(answer.get()).unwrap();
        assert_eq!(answer["error"]["code"], error::UNKNOWN_BLOCK, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap().to_owned();
        (message, answer["error"]["data"].clone())
    };
    let at = |block: &str, frag: &str| json!({ "blockNumber": block, "fragIndex": frag });
    let (message, data) = refused(&f, at("0x2", "0x3")).await;
    assert_eq!(message, "frag 3 of block 2 is not here yet: it has 3");
    assert_eq!(data, height);
    refused(&f, at("0x3", "0x0")).await;
    let other = json!({ "blockNumber": "0x2", "fragIndex": "0x0", "attempt": "0x1" });
    assert_eq!(refused(&f, other).await.0, "attempt 1 at block 2 is not here");
    seal(&mut f, block);
    check(&f).await;
    assert_eq!(refused(&f, at("0x2", "0x9")).await.0, "frag 9 of block 2 is not here: it has 4");
    for _ in 0..8 {
        f.chain.block(1, 1);
    }
    let (message, data) = refused(&f, at("0x2", "0x1")).await;
    assert_eq!(message, "the state after frag 1 of block 2 is not kept any more");
    assert_eq!(data["blockNumber"], "0xa");
    // The last one is the block's own.
    let last = ask(&f.module, "eth_getBalance", json!([addresses[0], at("0x2", "0x3")])).await;
    let block = f.call("eth_getBalance", json!([addresses[0], "0x2"])).await;
    assert_eq!(last.unwrap(), block);
    // What is no place of a frag.
    for wrong in [
        json!({ "blockNumber": "latest", "fragIndex": "0x0" }),
        json!({ "fragIndex": "0x0" }),
        json!({ "blockNumber": "0x2", "attempt": "0x0" }),
        json!({ "blockNumber": "0x2", "fragIndex": 0 }),
        json!({ "blockNumber": "0x2", "fragIndex": "0x0", "attempt": "0x100" }),
        json!({ "blockNumber": "0x2", "frag": "0x0" }),
    ] {
        let params = json!([addresses[0], wrong]);
        assert_eq!(f.code("eth_getBalance", params).await, error::INVALID_PARAMS, "{wrong}");
    }
    let receipts = json!([at("0x2", "0x0")]);
    assert_eq!(f.code("eth_getBlockReceipts", receipts).await, error::INVALID_PARAMS);
    let proof = json!([addresses[0], [], at("0xa", "0x0")]);
    assert_eq!(f.code("eth_getProof", proof).await, error::UNAVAILABLE);
}

#[tokio::test]
async fn pending_that_is_too_old_reads_as_latest_and_is_told() {
    assert_eq!(EthConfig::default().pending_max_age_ms, 3_000);
    let config = EthConfig { pending_max_age_ms: 3_600_000, ..EthConfig::default() };
    let mut f = Fixture::with(config, None);
    f.chain.block(1, 10);
    let mut block = f.open(2);
    let (sender, before, after) = changed(&f);
    let preconf = f.preconfirmed();
    let hash = json!(pending(&f).txs().next().unwrap().executed.tx.hash);
    let nonce = async |f: &Fixture| {
        let pending = f.call("eth_getTransactionCount", json!([sender, "pending"])).await;
        let params = json!([sender, "latest"]);
        let latest = ask(&preconf, "eth_getTransactionCount", params).await.unwrap();
        (quantity(&pending) - 2, quantity(&latest))
    };
    let stale = |f: &Fixture| f.ctx.blocks.pending_age().map(|(_, stale)| stale);
    assert_eq!((nonce(&f).await, stale(&f)), ((after, after), Some(false)));
    f.chain.view.age(Duration::from_secs(3_000));
    assert_eq!((nonce(&f).await, stale(&f)), ((after, after), Some(false)));
    let receipt = ask(&preconf, "eth_getTransactionReceipt", json!([hash])).await.unwrap();
    let told = receipt["blockHash"].clone();
    f.chain.view.age(Duration::from_secs(601));
    assert_eq!((nonce(&f).await, stale(&f)), ((before, before), Some(true)));
    // A hash that was told can still be asked for.
    let asked = f.call("eth_getBlockByHash", json!([told, false])).await;
    assert_eq!(asked["number"], receipt["blockNumber"]);
    let latest = f.call("eth_getBlockByNumber", json!(["latest", true])).await;
    assert_eq!(f.call("eth_getBlockByNumber", json!(["pending", true])).await, latest);
    let receipt = ask(&preconf, "eth_getTransactionReceipt", json!([hash])).await.unwrap();
    assert_eq!(receipt, Value::Null);
    // It is not forgotten, and waits.
    let tx = f.call("eth_getTransactionByHash", json!([hash])).await;
    assert_eq!((&tx["hash"], &tx["blockNumber"]), (&hash, &Value::Null));
    let logs = json!([{ "fromBlock": "pending" }]);
    assert_eq!(f.call("eth_getLogs", logs).await, json!([]));
    let height = f.call("fragcast_fragHeight", json!([])).await;
    assert_eq!(height["blockNumber"], "0x1");
    assert_eq!(f.ctx.blocks.freshness().fallbacks(), 1);
    // The next frag is young.
    f.chain.frag(&mut block, &[], false);
    assert_eq!((nonce(&f).await, stale(&f)), ((after, after), Some(false)));
    f.chain.view.age(Duration::from_secs(3_601));
    assert_eq!((stale(&f), f.ctx.blocks.freshness().fallbacks()), (Some(true), 2));
    seal(&mut f, block);
    assert_eq!(stale(&f), None);
    // Without a bound it may be as old as it likes.
    let config = EthConfig { pending_max_age_ms: 0, ..EthConfig::default() };
    let mut f = Fixture::with(config, None);
    f.chain.block(1, 10);
    let _block = f.open(1);
    f.chain.view.age(Duration::from_secs(86_400));
    let pending = f.call("eth_getBlockByNumber", json!(["pending", false])).await;
    assert_eq!(pending["number"], "0x2");
}

/// Methods that take a block by number or tag, with their parameters around it.
fn by_number(address: Address) -> Vec<(&'static str, Value)> {
    vec![
        ("eth_getBlockByNumber", json!(["$", false])),
        ("eth_getBlockTransactionCountByNumber", json!(["$"])),
        ("eth_getUncleCountByBlockNumber", json!(["$"])),
        ("eth_getUncleByBlockNumberAndIndex", json!(["$", "0x0"])),
        ("eth_getTransactionByBlockNumberAndIndex", json!(["$", "0x0"])),
        ("eth_getBlockReceipts", json!(["$"])),
        ("eth_feeHistory", json!(["0x1", "$", []])),
        ("eth_getBalance", json!([address, "$"])),
        ("eth_getTransactionCount", json!([address, { "blockNumber": "$" }])),
        ("eth_getCode", json!([address, "$"])),
        ("eth_getStorageAt", json!([address, "0x0", "$"])),
        ("eth_getProof", json!([address, [], "$"])),
        ("eth_getLogs", json!([{ "fromBlock": "$", "toBlock": "$" }])),
    ]
}

fn at(params: &Value, id: &str) -> Value {
    serde_json::from_str(&params.to_string().replace("$", id)).unwrap()
}

#[tokio::test]
async fn safe_and_finalized_are_a_policy_and_one_error_without_one() {
    let (f, _block) = opened();
    let address = f.chain.workload.addresses()[0];
    for (tag, text) in
        [("safe", "safe block not found"), ("finalized", "finalized block not found")]
    {
        for module in [&f.module, &f.preconfirmed()] {
            for (method, params) in by_number(address) {
                let refused = ask(module, method, at(&params, tag)).await.unwrap_err();
                let expected = (i64::from(error::UNKNOWN_BLOCK), text.to_owned());
                assert_eq!(refused, expected, "{method}");
            }
        }
    }
    let (safe_behind, finalized_behind) = (Some(1), Some(9));
    let config = EthConfig { safe_behind, finalized_behind, ..EthConfig::default() };
    let mut f = Fixture::with(config, None);
    for _ in 0..3 {
        f.chain.block(1, 10);
    }
    let _block = f.open(1);
    for (tag, number) in [("safe", "0x2"), ("finalized", "0x0")] {
        for (method, params) in by_number(address) {
            if method == "eth_getProof" {
                continue;
            }
            let expected = f.call(method, at(&params, number)).await;
            assert_eq!(f.call(method, at(&params, tag)).await, expected, "{method}");
        }
    }
    // What the client tells counts more.
    let heads = f.chain.view.heads().unwrap();
    let safe = Some((1, f.chain.view.hash(1).unwrap().unwrap()));
    f.chain.view.set_heads(Heads { safe, ..(*heads).clone() });
    assert_eq!(f.call("eth_getBlockByNumber", json!(["safe", false])).await["number"], "0x1");
}

#[tokio::test]
async fn unknown_blocks_have_one_code_or_are_null() {
    let (f, _block) = opened();
    let address = f.chain.workload.addresses()[0];
    let hash = B256::repeat_byte(9);
    let text = "header not found: block 99 is after the newest verified block, which is 1";
    for module in [&f.module, &f.preconfirmed()] {
        for (method, params) in by_number(address) {
            let answer = ask(module, method, at(&params, "0x63")).await;
            match method {
                "eth_getLogs" => assert_eq!(answer.unwrap_err().0, -32_602),
                name if name.contains("Block") => assert_eq!(answer.unwrap(), Value::Null),
                _ => assert_eq!(answer.unwrap_err(), (-32_001, text.to_owned()), "{method}"),
            }
        }
        let text = format!("header not found: no block {hash} is known here");
        for (method, params) in [
            ("eth_getBalance", json!([address, hash])),
            ("eth_getCode", json!([address, { "blockHash": hash }])),
            ("eth_getProof", json!([address, [], hash])),
            ("eth_getLogs", json!([{ "blockHash": hash }])),
        ] {
            let refused = ask(module, method, params).await.unwrap_err();
            assert_eq!(refused, (-32_001, text.clone()), "{method}");
        }
        for (method, params) in [
            ("eth_getBlockByHash", json!([hash, false])),
            ("eth_getBlockReceipts", json!([hash])),
            ("eth_getBlockTransactionCountByHash", json!([hash])),
            ("eth_getTransactionByBlockHashAndIndex", json!([hash, "0x0"])),
            ("eth_getTransactionByHash", json!([hash])),
            ("eth_getTransactionReceipt", json!([hash])),
        ] {
            assert_eq!(ask(module, method, params).await.unwrap(), Value::Null, "{method}");
        }
    }
}

#[tokio::test]
async fn a_block_is_named_strictly() {
    let (f, _block) = opened();
    let address = f.chain.workload.addresses()[0];
    for wrong in [
        json!("0x01"),
        json!("1"),
        json!("0x"),
        json!(""),
        json!("Latest"),
        json!("0x+1"),
        json!("0x10000000000000000"),
        json!(1),
        json!(true),
        json!([]),
        json!({}),
        json!("0x00000000000000000000000000000000000000000000000000000000000000zz"),
        json!({ "blockNumber": "0x1", "blockHash": B256::ZERO }),
        json!({ "blockNumber": "0x1", "requireCanonical": true }),
        json!({ "blockHash": "0x1" }),
        json!({ "blockNumber": 1 }),
    ] {
        for (method, params) in
            [("eth_getBalance", json!([address, wrong])), ("eth_getBlockReceipts", json!([wrong]))]
        {
            assert_eq!(f.code(method, params).await, error::INVALID_PARAMS, "{wrong}");
        }
        if !wrong.is_object() {
            let params = json!([wrong, false]);
            assert_eq!(f.code("eth_getBlockByNumber", params).await, error::INVALID_PARAMS);
        }
    }
    let balance = f.call("eth_getBalance", json!([address, { "blockNumber": "0x1" }])).await;
    assert!(serde_json::from_value::<U256>(balance).unwrap() > U256::ZERO);
}
