//! execution-apis' own cases of `eth_simulateV1` (`data/README.md`), on a block like the head of their
//! chain; and Osaka's rules on another.

use alloy_consensus::Header;
use alloy_consensus::constants::EMPTY_WITHDRAWALS;
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_primitives::{B256, Bloom};
use fragcast_execution::exec::hashes::BlockHashes;
use fragcast_execution::exec::memory::{MemoryState, NoNodes};
use fragcast_execution::exec::{ExecutedBlock, SealedBlock, State};
use fragcast_execution::executor::Heads;
use fragcast_execution::testing::NoSource;

use super::*;

const CHAIN_ID: u64 = 3_503_995_874_084_926;
const GAS_LIMIT: u64 = 200_000_000;
const EMPTY_ROOT: &str = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421";
const NO_UNCLES: &str = "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347";

/// The methods on a block with nobody's state.
fn on_a_block(osaka: bool) -> RpcModule<Arc<CallContext>> {
    let mut config = json!({
        "chainId": CHAIN_ID, "homesteadBlock": 0, "eip150Block": 0, "eip155Block": 0, "eip158Block": 0,
        "byzantiumBlock": 0, "constantinopleBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0,
        "berlinBlock": 0, "londonBlock": 0, "mergeNetsplitBlock": 0, "shanghaiTime": 0,
        "cancunTime": 0, "pragueTime": 0, "terminalTotalDifficulty": 0,
        "terminalTotalDifficultyPassed": true,
    });
    if osaka {
        config["osakaTime"] = json!(0);
    }
    let genesis = json!({ "config": config, "gasLimit": "0x1", "difficulty": "0x0", "alloc": {} });
    let genesis = serde_json::from_value(genesis).unwrap();
    let spec = Arc::new(ChainSpec::from_genesis("suite", genesis).unwrap());
    // Their blocks pay the zero address, so it is there.
    let mut state = MemoryState::default();
    state.insert(Address::ZERO, 0, U256::ONE, &Bytes::new(), std::iter::empty());
    let trie = state.trie().unwrap();
    // Half full, so that the next block has the same base fee.
    let header = Header {
        number: 54,
        timestamp: 540,
        gas_limit: GAS_LIMIT,
        gas_used: GAS_LIMIT / 2,
        base_fee_per_gas: Some(23_974_864),
        excess_blob_gas: Some(0),
        blob_gas_used: Some(0),
        withdrawals_root: Some(EMPTY_WITHDRAWALS),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(EMPTY_REQUESTS_HASH),
        ..Header::default()
    };
    let hash = header.hash_slow();
    let block = ExecutedBlock { attempt: 0, hash, header, frags: Vec::new(), withdrawals: None };
    let hashes = BlockHashes::new(53, vec![B256::ZERO], Arc::new(NoSource));
    let state = State::new(Arc::new(state));
    let latest = Arc::new(SealedBlock {
        snapshot: Arc::new(Snapshot { block, state, hashes: Arc::new(hashes) }),
        layer: Arc::default(),
        parent_trie: None,
        trie: Ok(trie),
        nodes: Arc::new(NoNodes),
    });
    let view = Arc::new(ChainView::new(None, 16));
    view.add(&latest);
    view.set_heads(Heads { latest, pending: None, open: Vec::new(), safe: None, finalized: None });
    let config = CallConfig { time_limit: GUARD, ..CallConfig::default() };
    module(Arc::new(context(&spec, &view, config)))
}

/// A block of an answer with what all cases have alike.
fn whole(case: &Value) -> Value {
    let mut block = json!({
        "baseFeePerGas": "0x0", "blobGasUsed": "0x0", "difficulty": "0x0", "excessBlobGas": "0x0",
        "extraData": "0x", "gasLimit": format!("{GAS_LIMIT:#x}"), "gasUsed": "0x0",
        "logsBloom": Bloom::ZERO, "miner": Address::ZERO, "mixHash": B256::ZERO,
        "nonce": "0x0000000000000000", "parentBeaconBlockRoot": B256::ZERO,
        "receiptsRoot": EMPTY_ROOT, "requestsHash": EMPTY_REQUESTS_HASH, "sha3Uncles": NO_UNCLES,
        "transactions": [], "transactionsRoot": EMPTY_ROOT, "uncles": [], "withdrawals": [],
        "withdrawalsRoot": EMPTY_ROOT,
    });
    for (name, value) in case.as_object().unwrap() {
        block[name] = value.clone();
    }
    block
}

/// Takes out what only their chain can give, and checks that it fits together.
fn without_hashes(blocks: &mut [Value]) {
    let mut parent = None;
    for block in blocks {
        let fields = block.as_object_mut().unwrap();
        let hash = fields.remove("hash").unwrap();
        let its_parent = fields.remove("parentHash").unwrap();
        assert!(parent.is_none_or(|parent| parent == its_parent));
        assert_ne!(fields.remove("stateRoot").unwrap(), json!(B256::ZERO));
        let mut placed: Vec<&mut Value> = Vec::new();
        for (name, values) in fields.iter_mut() {
            match (name.as_str(), values) {
                ("transactions", Value::Array(txs)) => placed.extend(txs),
                ("calls", Value::Array(calls)) => {
                    placed.extend(
                        calls
                            .iter_mut()
                            .flat_map(|call| call["logs"].as_array_mut().into_iter().flatten()),
                    );
                }
                _ => {}
            }
        }
        for each in placed.into_iter().filter_map(Value::as_object_mut) {
            assert_eq!(each.remove("blockHash").unwrap(), hash);
        }
        parent = Some(hash);
    }
}

#[tokio::test]
async fn cases_of_execution_apis() {
    let module = on_a_block(false);
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/simulate.json")).unwrap();
    let (mut exact, mut reasons) = (0, Vec::new());
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let answer = ask(&module, "eth_simulateV1", case["params"].clone()).await;
        let differs = case["differs"].as_str();
        if let Some(error) = case.get("error") {
            let expected = (error["code"].as_i64().unwrap(), error["message"].as_str().unwrap());
            let (code, message, _) = answer.expect_err(name);
            assert_eq!((code, message.as_str()), expected, "{name}");
        } else {
            let mut blocks = answer.unwrap_or_else(|e| panic!("{name}: {e:?}"));
            let blocks = blocks.as_array_mut().unwrap();
            without_hashes(blocks);
            let expected = case["blocks"].as_array().unwrap();
            assert_eq!(blocks.len(), expected.len(), "{name}");
            for (block, expected) in blocks.iter().zip(expected) {
                if differs.is_none() {
                    assert_eq!(*block, whole(expected), "{name}");
                }
                for (field, value) in expected.as_object().unwrap() {
                    assert_eq!(block[field], *value, "{name}: {field}");
                }
            }
        }
        match differs {
            None => exact += 1,
            Some(reason) => reasons.push(format!("{name}: {reason}")),
        }
    }
    println!("eth_simulateV1: {} cases, {exact} exact, {} otherwise:", cases.len(), reasons.len());
    reasons.iter().for_each(|reason| println!("  {reason}"));
}

#[tokio::test]
async fn the_default_gas_is_no_more_than_osaka_lets_a_transaction_have() {
    let rich = Address::repeat_byte(0xc0);
    let state = json!({ rich.to_string(): { "balance": "0xffffffffffffffffffff" } });
    for (osaka, gas, estimate) in [(false, 50_000_000, 50_000_000), (true, 1 << 24, 1 << 24)] {
        let module = on_a_block(osaka);
        for validation in [false, true] {
            let call = json!({
                "from": rich, "to": account(1), "maxFeePerGas": "0x174876e800",
            });
            let payload = json!({
                "blockStateCalls": [{ "stateOverrides": state, "calls": [call, call] }],
                "validation": validation, "returnFullTransactions": true,
            });
            let blocks = ask(&module, "eth_simulateV1", json!([payload])).await.unwrap();
            let txs = blocks[0]["transactions"].as_array().unwrap();
            assert_eq!(number(&txs[0]["gas"]), gas, "osaka: {osaka}");
            // More is taken where it is asked for: a simulation is no transaction.
            let mut more = call.clone();
            more["gas"] = json!("0x2000000");
            let payload = json!({
                "blockStateCalls": [{ "stateOverrides": state, "calls": [more] }],
                "validation": validation,
            });
            ask(&module, "eth_simulateV1", json!([payload])).await.unwrap();
        }
        // JUMPDEST PUSH0 JUMP: needs all there is.
        let place = Address::repeat_byte(0xcc);
        let params = json!([{ "to": place }, "latest", code(place, &[0x5b, 0x5f, 0x56])]);
        let error = ask(&module, "eth_estimateGas", params).await.unwrap_err();
        assert_eq!(error.1, format!("gas required exceeds allowance ({estimate})"));
    }
}
