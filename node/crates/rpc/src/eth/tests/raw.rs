//! What is hashed, and headers and accounts by themselves.

use alloy_consensus::Block;
use alloy_primitives::{U256, keccak256};
use alloy_rlp::Decodable;
use fragcast_execution::devnet::token;
use fragcast_execution::exec::tx::EthTx;

use super::*;

fn bytes(value: &Value) -> Bytes {
    serde_json::from_value(value.clone()).unwrap()
}

#[tokio::test]
async fn what_is_raw_hashes_to_what_is_known() {
    let mut f = Fixture::new();
    let block = f.chain.block(2, 10);
    let _open = f.open(1);
    let header = bytes(&f.call("debug_getRawHeader", json!(["0x1"])).await);
    assert_eq!(keccak256(&header), block.hash());
    for id in [json!("0x1"), json!(block.hash()), json!({ "blockHash": block.hash() })] {
        let raw = bytes(&f.call("debug_getRawBlock", json!([id])).await);
        let decoded = Block::<EthTx>::decode(&mut &raw[..]).unwrap();
        assert_eq!(alloy_rlp::encode(&decoded), raw);
        assert_eq!(decoded.header.hash_slow(), block.hash());
        assert_eq!(decoded.body.transactions.len(), 20);
        let root = alloy_consensus::proofs::calculate_transaction_root(&decoded.body.transactions);
        assert_eq!(root, block.snapshot.header.transactions_root);
    }
    let receipts = f.call("debug_getRawReceipts", json!(["0x1"])).await;
    let receipts: Vec<Bytes> = receipts.as_array().unwrap().iter().map(bytes).collect();
    let root = alloy_consensus::proofs::ordered_trie_root_encoded(&receipts);
    assert_eq!(root, block.snapshot.header.receipts_root);

    let pending = f.ctx.blocks.heads().unwrap().pending.clone().unwrap();
    for (snapshot, number) in [(&block.snapshot, "0x1"), (&pending, "pending")] {
        for placed in snapshot.txs() {
            let hash = placed.executed.tx.hash;
            for method in ["eth_getRawTransactionByHash", "debug_getRawTransaction"] {
                assert_eq!(keccak256(bytes(&f.call(method, json!([hash])).await)), hash);
            }
            let index = format!("{:#x}", placed.index);
            let method = "eth_getRawTransactionByBlockNumberAndIndex";
            assert_eq!(keccak256(bytes(&f.call(method, json!([number, index])).await)), hash);
        }
    }
    let method = "eth_getRawTransactionByBlockHashAndIndex";
    let raw = bytes(&f.call(method, json!([block.hash(), "0x13"])).await);
    assert_eq!(keccak256(raw), block.snapshot.tx(19).unwrap().executed.tx.hash);
    assert_eq!(f.call(method, json!([block.hash(), "0x14"])).await, Value::Null);
    assert_eq!(f.call("debug_getRawTransaction", json!([B256::repeat_byte(9)])).await, Value::Null);
    // An open block has no roots yet.
    for method in ["debug_getRawHeader", "debug_getRawBlock"] {
        assert_eq!(f.code(method, json!(["pending"])).await, error::UNAVAILABLE);
        assert_eq!(f.code(method, json!(["0x63"])).await, error::UNKNOWN_BLOCK);
    }
}

#[tokio::test]
async fn a_header_is_the_block_without_its_transactions() {
    let mut f = Fixture::new();
    let block = f.chain.block(1, 10);
    let _open = f.open(1);
    for (method, by, id) in [
        ("eth_getHeaderByNumber", "eth_getBlockByNumber", json!("0x1")),
        ("eth_getHeaderByNumber", "eth_getBlockByNumber", json!("pending")),
        ("eth_getHeaderByHash", "eth_getBlockByHash", json!(block.hash())),
    ] {
        let header = f.call(method, json!([id])).await;
        let mut whole = f.call(by, json!([id, false])).await;
        for body in ["transactions", "uncles", "withdrawals"] {
            whole.as_object_mut().unwrap().remove(body);
        }
        assert_eq!(header, whole, "{method} {id}");
    }
    assert_eq!(f.call("eth_getHeaderByNumber", json!(["0x63"])).await, Value::Null);
}

#[tokio::test]
async fn an_account_is_told_with_its_code() {
    let mut f = Fixture::new();
    f.chain.block(1, 10);
    let owner = f.chain.workload.addresses()[0];
    let info = f.call("eth_getAccountInfo", json!([token::ADDRESS, "latest"])).await;
    assert_eq!(info["code"], f.call("eth_getCode", json!([token::ADDRESS])).await);
    let info = f.call("eth_getAccountInfo", json!([owner, "0x1"])).await;
    assert_eq!(info["balance"], f.call("eth_getBalance", json!([owner])).await);
    assert_eq!(info["nonce"], f.call("eth_getTransactionCount", json!([owner, "latest"])).await);
    let nobody = f.call("eth_getAccountInfo", json!([Address::repeat_byte(9), "latest"])).await;
    assert_eq!(nobody, json!({ "balance": U256::ZERO, "nonce": "0x0", "code": "0x" }));
}

#[tokio::test]
async fn transactions_have_the_time_of_their_block() {
    let mut f = Fixture::new();
    let block = f.chain.block(1, 3);
    let open = f.open(1);
    let hash = block.snapshot.tx(1).unwrap().executed.tx.hash;
    let tx = f.call("eth_getTransactionByHash", json!([hash])).await;
    assert_eq!(quantity(&tx["blockTimestamp"]), block.snapshot.header.timestamp);
    let pending = f.call("eth_getBlockByNumber", json!(["pending", true])).await;
    assert_eq!(pending["transactions"][0]["blockTimestamp"], pending["timestamp"]);
    assert_eq!(quantity(&pending["timestamp"]), open.env().timestamp);
}

#[tokio::test]
async fn the_configuration_of_the_fork_is_told() {
    let f = Fixture::new();
    let config = f.call("eth_config", json!([])).await;
    let current = &config["current"];
    assert_eq!((&config["next"], &config["last"]), (&Value::Null, &Value::Null));
    assert_eq!(current["activationTime"], 0);
    assert_eq!(current["chainId"], f.call("eth_chainId", json!([])).await);
    let blobs = json!({ "target": 3, "max": 6, "baseFeeUpdateFraction": 3_338_477 });
    assert_eq!(current["blobSchedule"], blobs);
    let precompiles = current["precompiles"].as_object().unwrap();
    assert_eq!(precompiles.len(), 10);
    assert_eq!(precompiles["KZG_POINT_EVALUATION"], json!(Address::with_last_byte(0x0a)));
    let beacon = "0x000f3df6d732807ef1319fb7b8bb8522d0beac02";
    assert_eq!(current["systemContracts"], json!({ "BEACON_ROOTS_ADDRESS": beacon }));
    // Without forks after the genesis the id is the checksum of its hash alone.
    let id = alloy_eips::eip2124::ForkHash::from(f.chain.genesis.hash()).0;
    assert_eq!(current["forkId"], json!(Bytes::from(id.to_vec())));
}

#[tokio::test]
async fn forks_ahead_are_told_the_next_and_the_furthest() {
    let f = Fixture::new();
    let genesis = (**f.chain.spec.genesis.as_ref().unwrap()).clone();
    let now = f.chain.head.snapshot.header.timestamp;
    for (prague, osaka) in [(None, None), (Some(now + 10), None), (Some(now + 10), Some(now + 20))]
    {
        let mut genesis = genesis.clone();
        (genesis.config.prague_time, genesis.config.osaka_time) = (prague, osaka);
        let spec = Arc::new(ChainSpec::from_genesis("forks", genesis).unwrap());
        let (view, config) = (Arc::clone(&f.chain.view), EthConfig::default());
        let ctx = EthContext::new(spec, view, config, None, Arc::new(Two));
        let config = ask(&module(Arc::new(ctx)), "eth_config", json!([])).await.unwrap();
        let at = |fork: &str| config[fork]["activationTime"].as_u64();
        assert_eq!(at("current"), Some(0));
        assert_eq!((at("next"), at("last")), (prague, osaka.or(prague)));
    }
}

#[tokio::test]
async fn no_bad_blocks_are_kept() {
    let f = Fixture::new();
    assert_eq!(f.call("debug_getBadBlocks", json!([])).await, json!([]));
    assert_eq!(f.code("debug_getBadBlocks", json!([1])).await, error::INVALID_PARAMS);
}
