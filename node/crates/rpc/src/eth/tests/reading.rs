//! Blocks, transactions, receipts, state, logs and fees.

use alloy_consensus::TxEnvelope;
use alloy_primitives::B256;
use alloy_rpc_types_eth::{Block, FeeHistory, Log, Transaction, TransactionReceipt};
use fragcast_execution::devnet::token;
use serde::de::DeserializeOwned;

use super::*;

fn parsed<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{e}: {value}"))
}

#[tokio::test]
async fn names_and_numbers() {
    let mut f = Fixture::new();
    assert!(
        f.call("web3_clientVersion", json!([])).await.as_str().unwrap().starts_with("fragcast/v")
    );
    assert_eq!(f.call("net_version", json!([])).await, "901901");
    assert_eq!(quantity(&f.call("eth_chainId", json!([])).await), 901_901);
    assert_eq!(f.call("eth_syncing", json!([])).await, false);
    assert_eq!(quantity(&f.call("eth_blockNumber", json!([])).await), 0);
    f.chain.block(1, 5);
    assert_eq!(f.call("eth_blockNumber", json!([])).await, "0x1");
    assert!(f.ctx.stats.answered.load(std::sync::atomic::Ordering::Relaxed) >= 6);
}

#[tokio::test]
async fn a_sealed_block_reads_as_gets_do() {
    let mut f = Fixture::new();
    let sealed = f.chain.block(2, 20);
    let full = f.call("eth_getBlockByNumber", json!(["0x1", true])).await;
    let block: Block<Transaction<TxEnvelope>> = parsed(&full);
    assert_eq!(block.header.hash, sealed.hash());
    assert_eq!(block.header.inner, sealed.snapshot.header);
    assert_eq!(block.header.hash_slow(), sealed.hash());
    assert_eq!(block.transactions.len(), 40);
    assert_eq!(full["withdrawals"], json!([]));
    assert_eq!(full["uncles"], json!([]));
    let consensus = block.clone().into_consensus();
    let length = alloy_rlp::Encodable::length(&consensus.map_transactions(|tx| tx.into_inner()));
    assert_eq!(quantity(&full["size"]), length as u64);
    for (i, tx) in full["transactions"].as_array().unwrap().iter().enumerate() {
        assert_eq!(quantity(&tx["transactionIndex"]), i as u64);
        assert_eq!(tx["blockHash"], full["hash"]);
        let at =
            f.call("eth_getTransactionByBlockNumberAndIndex", json!(["0x1", format!("{i:#x}")]));
        assert_eq!(at.await, *tx);
        assert_eq!(f.call("eth_getTransactionByHash", json!([tx["hash"]])).await, *tx);
        assert!(quantity(&tx["gasPrice"]) > 0);
    }
    let by_hash = f.call("eth_getBlockByHash", json!([full["hash"], true])).await;
    assert_eq!(by_hash, full);
    let hashes = f.call("eth_getBlockByHash", json!([full["hash"], false])).await;
    assert_eq!(hashes["transactions"][3], full["transactions"][3]["hash"]);
    for (method, id) in [
        ("eth_getBlockTransactionCountByNumber", json!("latest")),
        ("eth_getBlockTransactionCountByHash", full["hash"].clone()),
    ] {
        assert_eq!(f.call(method, json!([id])).await, "0x28");
    }
    let past_the_end = json!([full["hash"], "0x28"]);
    let none = f.call("eth_getTransactionByBlockHashAndIndex", past_the_end).await;
    assert_eq!(none, Value::Null);
    assert_eq!(f.call("eth_getUncleCountByBlockNumber", json!(["latest"])).await, "0x0");
    let raw = f.call("eth_getRawTransactionByHash", json!([hashes["transactions"][3]])).await;
    let expected = &sealed.snapshot.tx(3).unwrap().executed.tx.bytes;
    assert_eq!(parsed::<Bytes>(&raw), *expected);
}

#[tokio::test]
async fn receipts_have_places_and_logs() {
    let mut f = Fixture::new();
    f.chain.block(3, 20);
    let receipts = f.call("eth_getBlockReceipts", json!(["latest"])).await;
    let receipts = receipts.as_array().unwrap();
    assert_eq!(receipts.len(), 60);
    let (mut log_index, mut gas, mut created) = (0, 0, 0);
    for (i, receipt) in receipts.iter().enumerate() {
        let typed: TransactionReceipt = parsed(receipt);
        assert_eq!(typed.transaction_index, Some(i as u64));
        assert_eq!(quantity(&receipt["status"]), 1);
        gas += typed.gas_used;
        assert_eq!(quantity(&receipt["cumulativeGasUsed"]), gas);
        for log in receipt["logs"].as_array().unwrap() {
            assert_eq!(quantity(&log["logIndex"]), log_index);
            assert_eq!(log["removed"], false);
            log_index += 1;
        }
        created += usize::from(typed.contract_address.is_some());
        assert_eq!(typed.contract_address.is_some(), receipt["to"].is_null());
        let one = f.call("eth_getTransactionReceipt", json!([receipt["transactionHash"]])).await;
        assert_eq!(one, *receipt);
    }
    assert!(log_index > 0 && created > 0);
}

#[tokio::test]
async fn the_pending_block_has_no_hash_and_what_is_in_it_a_provisional_one() {
    let mut f = Fixture::new();
    f.chain.block(1, 10);
    let latest = f.call("eth_getBlockByNumber", json!(["latest", false])).await;
    // Nothing is executed yet: pending is latest.
    assert_eq!(f.call("eth_getBlockByNumber", json!(["pending", false])).await, latest);
    let block = f.open(3);
    let pending = f.call("eth_getBlockByNumber", json!(["pending", true])).await;
    assert_eq!((&pending["hash"], &pending["nonce"]), (&Value::Null, &Value::Null));
    assert_eq!(pending["number"], "0x2");
    assert_eq!(pending["parentHash"], latest["hash"]);
    assert_eq!(pending["transactions"].as_array().unwrap().len(), 30);
    assert_eq!(f.call("eth_getBlockByNumber", json!(["latest", false])).await, latest);
    // Its number is not that of a block yet.
    assert_eq!(f.call("eth_getBlockByNumber", json!(["0x2", false])).await, Value::Null);
    let hash = f.provisional();
    assert!(!parsed::<B256>(&hash).is_zero());
    let receipts = f.call("eth_getBlockReceipts", json!(["pending"])).await;
    let receipts = receipts.as_array().unwrap();
    assert_eq!(receipts.len(), 30);
    let mut log_index = 0;
    for (i, receipt) in receipts.iter().enumerate() {
        let tx = &pending["transactions"][i];
        assert_eq!((&tx["blockHash"], &tx["blockNumber"]), (&hash, &json!("0x2")));
        assert_eq!(quantity(&tx["transactionIndex"]), i as u64);
        let _: TransactionReceipt = parsed(receipt);
        assert_eq!((&receipt["blockHash"], &receipt["transactionHash"]), (&hash, &tx["hash"]));
        for log in receipt["logs"].as_array().unwrap() {
            assert_eq!(log["blockHash"], hash);
            assert_eq!(quantity(&log["logIndex"]), log_index);
            log_index += 1;
        }
    }
    // Asked for by that hash it has it, and decodes as any block.
    let found = f.call("eth_getBlockByHash", json!([hash, true])).await;
    let typed: Block<Transaction<TxEnvelope>> = parsed(&found);
    assert_eq!((json!(typed.header.hash), typed.transactions.len()), (hash, 30));
    assert_eq!(found["transactions"], pending["transactions"]);
    // The proof of a state without a root.
    let proof = json!([f.chain.workload.addresses()[0], [], "pending"]);
    assert_eq!(f.code("eth_getProof", proof).await, error::UNAVAILABLE);
    drop(block);
}

#[tokio::test]
async fn state_by_every_kind_of_block_id() {
    let mut f = Fixture::new();
    let first = f.chain.block(1, 20);
    f.chain.block(1, 20);
    let _block = f.open(2);
    let address = f.chain.workload.addresses()[3];
    let heads = f.chain.view.heads().unwrap();
    let ids = [
        (json!("pending"), heads.pending().clone()),
        (json!("latest"), heads.latest.snapshot.clone()),
        (json!({ "blockNumber": "0x1" }), first.snapshot.clone()),
        (json!({ "blockHash": first.hash(), "requireCanonical": true }), first.snapshot.clone()),
        (json!("0x1"), first.snapshot.clone()),
        (json!(first.hash()), first.snapshot.clone()),
    ];
    for (id, snapshot) in ids {
        let account = snapshot.state.account(address).unwrap().unwrap();
        let balance = f.call("eth_getBalance", json!([address, id])).await;
        assert_eq!(parsed::<alloy_primitives::U256>(&balance), account.balance, "{id}");
        let nonce = quantity(&f.call("eth_getTransactionCount", json!([address, id])).await);
        let forwarded = if id == "pending" { 2 } else { 0 };
        assert_eq!(nonce, account.nonce + forwarded, "{id}");
        let slot = token::balance_slot(address);
        let value = f.call("eth_getStorageAt", json!([token::ADDRESS, slot, id])).await;
        assert_eq!(value.as_str().unwrap().len(), 66);
        let expected = snapshot.state.storage(token::ADDRESS, slot.into()).unwrap();
        assert_eq!(parsed::<alloy_primitives::U256>(&value), expected, "{id}");
        let nobody = Address::repeat_byte(0xab);
        let asked =
            json!({ token::ADDRESS.to_string(): [slot, "0x0"], nobody.to_string(): ["0x1"] });
        let values = f.call("eth_getStorageValues", json!([asked, id])).await;
        let zero = B256::ZERO;
        let of_token = json!([value, zero]);
        let lower = |address: Address| format!("{address:?}");
        let expected = json!({ lower(token::ADDRESS): of_token, lower(nobody): [zero] });
        assert_eq!(values, expected, "{id}");
    }
    let keys = |n: usize| json!([{ token::ADDRESS.to_string(): vec!["0x0"; n] }]);
    let many = f.call("eth_getStorageValues", keys(1024)).await;
    assert_eq!(many[format!("{:?}", token::ADDRESS)].as_array().unwrap().len(), 1024);
    assert_eq!(f.code("eth_getStorageValues", keys(1025)).await, error::LIMIT);
    assert_eq!(f.code("eth_getStorageValues", keys(0)).await, error::INVALID_PARAMS);
    // What is kept, and from which block on.
    let kept = f.call("eth_capabilities", json!([])).await;
    assert_eq!(kept["head"], json!({ "number": "0x2", "hash": heads.latest.hash() }));
    for what in ["state", "blocks", "tx", "receipts", "logs"] {
        assert_eq!(kept[what], json!({ "disabled": false, "oldestBlock": "0x0" }), "{what}");
    }
    assert_eq!(kept["stateproofs"], json!({ "disabled": true }), "a chain without tries");
    let code = f.call("eth_getCode", json!([token::ADDRESS])).await;
    assert!(code.as_str().unwrap().len() > 100);
    assert_eq!(f.call("eth_getCode", json!([address])).await, "0x");
    let nobody = json!([Address::repeat_byte(0xab), "latest"]);
    assert_eq!(f.call("eth_getBalance", nobody.clone()).await, "0x0");
    // What does not exist, is not here, or is no block id.
    let unknown = [json!("0x63"), json!("safe"), json!({ "blockHash": B256::repeat_byte(9) })];
    for id in unknown {
        assert_eq!(f.code("eth_getBalance", json!([address, id])).await, error::UNKNOWN_BLOCK);
    }
    for id in [json!("newest"), json!(7), json!({ "hash": 1 })] {
        assert_eq!(f.code("eth_getBalance", json!([address, id])).await, error::INVALID_PARAMS);
    }
    assert_eq!(f.code("eth_getBalance", json!([])).await, error::INVALID_PARAMS);
}

#[tokio::test]
async fn logs_by_range_hash_and_topics() {
    let config = EthConfig { max_log_blocks: 3, max_logs: 60, ..EthConfig::default() };
    let mut f = Fixture::with(config, None);
    let sealed: Vec<_> = (0..3).map(|_| f.chain.block(2, 10)).collect();
    let _block = f.open(1);
    let expected = |snapshot: &fragcast_execution::exec::Snapshot| {
        snapshot.txs().map(|placed| placed.executed.receipt.logs.len()).sum::<usize>()
    };
    let get =
        async |filter: Value| -> Vec<Log> { parsed(&f.call("eth_getLogs", json!([filter])).await) };
    let first = get(json!({ "fromBlock": "0x1", "toBlock": "0x1" })).await;
    assert_eq!(first.len(), expected(&sealed[0].snapshot));
    assert!(first.iter().all(|log| log.block_hash == Some(sealed[0].hash())));
    assert_eq!(get(json!({ "blockHash": sealed[0].hash() })).await, first);
    let all: usize = sealed.iter().map(|block| expected(&block.snapshot)).sum();
    assert_eq!(get(json!({ "fromBlock": "0x1", "toBlock": "latest" })).await.len(), all);
    assert_eq!(get(json!({})).await.len(), expected(&sealed[2].snapshot));
    let pending = get(json!({ "fromBlock": "0x3", "toBlock": "pending" })).await;
    let heads = f.chain.view.heads().unwrap();
    let here = expected(&sealed[2].snapshot) + expected(heads.pending());
    assert_eq!(pending.len(), here);
    assert_eq!(json!(pending.last().unwrap().block_hash), f.provisional());
    let only = get(json!({ "fromBlock": "pending" })).await;
    assert_eq!(only.len(), expected(heads.pending()));
    // Topics: from one account.
    let from = B256::left_padding_from(first[0].topics()[1].as_slice());
    let filter = json!({
        "fromBlock": "0x1", "toBlock": "0x3",
        "address": [token::ADDRESS], "topics": [token::TRANSFER_EVENT, [from]],
    });
    let of_one = get(filter).await;
    assert!(!of_one.is_empty() && of_one.iter().all(|log| log.topics()[1] == from));
    let other = json!({ "fromBlock": "0x1", "address": Address::ZERO });
    assert!(get(other).await.is_empty());
    let backwards = json!([{ "fromBlock": "0x2", "toBlock": "0x1" }]);
    assert_eq!(f.code("eth_getLogs", backwards).await, error::INVALID_PARAMS);
    let wide = json!([{ "fromBlock": "0x0", "toBlock": "latest" }]);
    assert_eq!(f.code("eth_getLogs", wide).await, error::LIMIT);
    let addresses = vec![Address::ZERO; 1];
    let many: Vec<_> =
        (0..1_001_u64).map(|i| Address::left_padding_from(&i.to_be_bytes())).collect();
    assert_eq!(f.code("eth_getLogs", json!([{ "address": many }])).await, error::LIMIT);
    assert!(get(json!({ "address": addresses })).await.is_empty());
    let both = json!([{ "blockHash": ZERO, "fromBlock": "0x1" }]);
    assert_eq!(f.code("eth_getLogs", both).await, error::INVALID_PARAMS);
}

#[tokio::test]
async fn fees_follow_the_blocks() {
    let mut f = Fixture::new();
    for _ in 0..4 {
        f.chain.block(1, 20);
    }
    let params = json!(["0x3", "latest", [0, 50, 100]]);
    let history: FeeHistory = parsed(&f.call("eth_feeHistory", params).await);
    assert_eq!(history.oldest_block, 2);
    assert_eq!((history.base_fee_per_gas.len(), history.gas_used_ratio.len()), (4, 3));
    assert_eq!(history.base_fee_per_blob_gas, [1; 4]);
    let head = &f.chain.head.snapshot.header;
    let next = f.chain.spec.next_base_fee(head, head.timestamp + 2).unwrap();
    assert_eq!(history.latest_block_base_fee(), head.base_fee_per_gas.map(u128::from));
    assert_eq!(history.next_block_base_fee(), Some(next.into()));
    for row in history.reward.unwrap() {
        assert!(row.is_sorted() && row[0] >= 1_000_000_000);
    }
    // No further than block 0, without rewards.
    let all: FeeHistory = parsed(&f.call("eth_feeHistory", json!([100, "latest"])).await);
    assert_eq!((all.oldest_block, all.gas_used_ratio.len(), all.reward), (0, 5, None));
    // web3.py always sends percentiles.
    let none = f.call("eth_feeHistory", json!(["0x3", "latest", []])).await;
    assert_eq!(none, f.call("eth_feeHistory", json!(["0x3", "latest"])).await);
    assert!(none.get("reward").is_none(), "{none}");
    for wrong in [json!([50, 20]), json!([-1]), json!([101])] {
        let params = json!(["0x1", "latest", wrong]);
        assert_eq!(f.code("eth_feeHistory", params).await, error::INVALID_PARAMS);
    }
    let tip = quantity(&f.call("eth_maxPriorityFeePerGas", json!([])).await);
    assert!((1_000_000_000..2_000_000_000).contains(&tip));
    assert_eq!(quantity(&f.call("eth_gasPrice", json!([])).await), tip + next);
    assert_eq!(f.call("eth_blobBaseFee", json!([])).await, "0x1");
}

#[tokio::test]
async fn what_is_not_here_is_asked_elsewhere() {
    let echo = Arc::new(Echo::default());
    let proxied = vec!["debug_*".to_owned(), "admin_nodeInfo".to_owned(), "eth_chainId".to_owned()];
    let config = EthConfig { proxied, ..EthConfig::default() };
    let mut f = Fixture::with(config, Some(Arc::clone(&echo) as _));
    f.chain.block(1, 5);
    let address = f.chain.workload.addresses()[0];
    let unknown = json!({ "blockHash": B256::repeat_byte(9) });
    for (method, params) in [
        ("eth_getBalance", json!([address, unknown])),
        ("eth_getTransactionByHash", json!([B256::repeat_byte(1)])),
        ("eth_getBlockByHash", json!([B256::repeat_byte(1), false])),
        ("eth_getLogs", json!([{ "blockHash": B256::repeat_byte(1) }])),
        ("debug_storageRangeAt", json!([B256::repeat_byte(1), 0, address, "0x0", 1])),
        ("admin_nodeInfo", json!([])),
    ] {
        let answer = f.call(method, params.clone()).await;
        assert_eq!(answer, json!({ "method": method, "params": params }));
    }
    // What is known here is answered here, and nobody else's is.
    assert_eq!(f.call("eth_chainId", json!([])).await, "0xdc30d");
    assert_eq!(f.code("eth_getBalance", json!([address, "0x5"])).await, error::UNKNOWN_BLOCK);
    assert_eq!(echo.0.lock().unwrap().len(), 6);
}

#[tokio::test]
async fn what_is_forgotten_is_an_error_without_a_client() {
    let mut f = Fixture::new();
    let first = f.chain.block(1, 1);
    f.chain.block(1, 1);
    f.chain.view.remove(first.hash(), 1);
    let address = f.chain.workload.addresses()[0];
    let (code, message) = f.try_call("eth_getBalance", json!([address, "0x1"])).await.unwrap_err();
    assert_eq!(code, i64::from(error::NOT_HERE));
    assert_eq!(message, "block 1 is not kept here; configure an execution client");
    assert_eq!(f.code("eth_getBlockByNumber", json!(["0x1", false])).await, error::NOT_HERE);
    let unknown = json!([first.hash(), false]);
    assert_eq!(f.call("eth_getBlockByHash", unknown).await, Value::Null);
    assert_eq!(f.call("eth_getTransactionReceipt", json!([ZERO])).await, Value::Null);
}

#[tokio::test]
async fn an_unknown_chain_is_said_to_be() {
    let f = Fixture::new();
    let view = Arc::new(ChainView::new(None, 8));
    let (spec, config) = (Arc::clone(&f.chain.spec), EthConfig::default());
    let ctx = EthContext::new(spec, view, config, None, Arc::new(NoForwarded));
    let f = Fixture { module: module(Arc::new(ctx)), ..f };
    assert_eq!(f.code("eth_blockNumber", json!([])).await, error::UNAVAILABLE);
    assert_eq!(f.call("eth_syncing", json!([])).await["currentBlock"], "0x0");
}
