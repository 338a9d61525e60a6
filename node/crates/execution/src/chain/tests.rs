//! Chains from genesis files and names.

use serde_json::json;

use super::*;

fn genesis(config: &serde_json::Value) -> Result<ChainSpec, ChainError> {
    let json = json!({
        "config": config, "nonce": "0x0", "timestamp": "0x0", "extraData": "0x",
        "gasLimit": "0x1c9c380", "difficulty": "0x0", "alloc": {},
        "mixHash": alloy_primitives::B256::ZERO, "coinbase": Address::ZERO,
    });
    ChainSpec::from_genesis("test", serde_json::from_value(json).unwrap())
}

#[test]
fn fork_times_of_a_genesis_count() {
    let spec = genesis(&json!({
        "chainId": 7, "terminalTotalDifficulty": 0, "shanghaiTime": 0, "cancunTime": 100,
        "pragueTime": 200,
        "blobSchedule": {
            "cancun": { "target": 1, "max": 2, "baseFeeUpdateFraction": 3_338_477 },
            "prague": { "target": 6, "max": 9, "baseFeeUpdateFraction": 5_007_716 },
        },
    }))
    .unwrap();
    assert_eq!(spec.chain_id, 7);
    assert!(spec.is_shanghai_active_at_timestamp(0));
    assert!(!spec.is_cancun_active_at_timestamp(99) && spec.is_cancun_active_at_timestamp(100));
    assert!(spec.blob_params(99).is_none());
    assert_eq!(spec.blob_params(100).unwrap().max_blob_count, 2);
    assert_eq!(spec.blob_params(200).unwrap().max_blob_count, 9);
    assert!(spec.lacks(u64::MAX).is_none());
}

#[test]
fn op_forks_of_a_genesis_count() {
    let config = json!({
        "chainId": 901, "optimism": { "eip1559Elasticity": 6, "eip1559Denominator": 50,
            "eip1559DenominatorCanyon": 250 },
        "regolithTime": 0, "canyonTime": 10, "deltaTime": 15, "ecotoneTime": 20, "fjordTime": 30,
        "graniteTime": 40, "holoceneTime": 50, "isthmusTime": 60, "jovianTime": 70,
        "karstTime": 80, "interopTime": 90,
    });
    let spec = genesis(&config).unwrap();
    assert!(spec.is_op());
    assert!(!spec.is_ecotone_active_at_timestamp(19) && spec.is_ecotone_active_at_timestamp(20));
    assert!(spec.is_jovian_active_at_timestamp(70));
    assert!(spec.is_cancun_active_at_timestamp(20) && spec.is_prague_active_at_timestamp(60));
    assert_eq!((spec.lacks(79), spec.lacks(80)), (None, Some("karst")));
    assert!(spec.blob_params(70).is_none());
    // Canyon changes the denominator of the base fee.
    let parent = Header { gas_limit: 6, base_fee_per_gas: Some(1_000_000), ..Header::default() };
    assert_eq!(spec.next_base_fee(&parent, 9).unwrap(), 980_000);
    assert_eq!(spec.next_base_fee(&parent, 10).unwrap(), 996_000);
}

#[test]
fn impossible_chains_are_told() {
    let pow = json!({ "chainId": 1, "shanghaiTime": 0 });
    let order = json!({ "chainId": 1, "terminalTotalDifficulty": 0, "cancunTime": 5 });
    let op = json!({ "chainId": 1, "optimism": {}, "regolithTime": 0, "ecotoneTime": 0 });
    for (config, part) in [(pow, "merge"), (order, "order"), (op, "ecotoneTime")] {
        let error = genesis(&config).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let error = ChainSpec::load("no-such-chain").unwrap_err().to_string();
    assert!(error.contains("op-sepolia"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("genesis.json");
    std::fs::write(&path, "{").unwrap();
    let error = ChainSpec::load(path.to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("no geth genesis"), "{error}");
}

#[test]
fn named_chains_have_their_ids_and_forks() {
    let sepolia = ChainSpec::load("op-sepolia").unwrap();
    assert_eq!((sepolia.chain_id, sepolia.is_op()), (11_155_420, true));
    assert!(sepolia.is_holocene_active_at_timestamp(1_732_633_200));
    assert!(!sepolia.is_holocene_active_at_timestamp(1_732_633_199));
    assert_eq!(ChainSpec::load("op-mainnet").unwrap().chain_id, 10);
    let dev = crate::devnet::load_chain("dev").unwrap();
    assert!(!dev.is_op() && dev.genesis.is_some());
}
