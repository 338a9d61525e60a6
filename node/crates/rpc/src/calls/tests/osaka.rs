//! The most gas that Osaka lets a transaction have (EIP-7825): it bounds estimates, not simulations.

use alloy_consensus::Header;
use alloy_consensus::constants::EMPTY_WITHDRAWALS;
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_primitives::B256;
use fragcast_execution::exec::hashes::BlockHashes;
use fragcast_execution::exec::memory::{MemoryState, NoNodes};
use fragcast_execution::exec::{ExecutedBlock, SealedBlock, State};
use fragcast_execution::executor::Heads;
use fragcast_execution::testing::NoSource;

use super::*;

const CHAIN_ID: u64 = 3_503_995_874_084_926;
const GAS_LIMIT: u64 = 200_000_000;

/// The methods on a block with nobody's state.
pub(super) fn on_a_block(osaka: bool) -> RpcModule<Arc<CallContext>> {
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
    let spec = Arc::new(ChainSpec::from_genesis("osaka", genesis).unwrap());
    // Blocks pay the zero address, so it is there.
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

#[tokio::test]
async fn an_estimate_is_no_more_than_osaka_lets_a_transaction_have_and_a_simulation_may_be() {
    let rich = Address::repeat_byte(0xc0);
    let state = json!({ rich.to_string(): { "balance": "0xffffffffffffffffffff" } });
    for (osaka, estimate) in [(false, 50_000_000), (true, 1 << 24)] {
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
            // All that a request may have, as in geth.
            assert_eq!(number(&txs[0]["gas"]), 50_000_000, "osaka: {osaka}");
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
