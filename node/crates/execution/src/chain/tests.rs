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
    assert!(!spec.is_osaka_active_at_timestamp(79) && spec.is_osaka_active_at_timestamp(80));
    assert!(!spec.is_karst_active_at_timestamp(79) && spec.is_karst_active_at_timestamp(80));
    assert_eq!((spec.lacks(89), spec.lacks(90)), (None, Some("interop")));
    // The crate would execute it by the rules of Prague.
    assert!(!spec.is_interop_active_at_timestamp(90));
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

#[test]
fn every_chain_is_found_by_its_names_and_its_id() {
    let all = presets();
    let ids = [10, 130, 57_073, 1_868, 34_443, 480, 8_453, 11_155_420, 1_301, 763_373, 1_946, 919]
        .into_iter()
        .chain([4_801, 84_532, 1, 11_155_111, 17_000, 560_048]);
    assert!(all.iter().map(|preset| preset.spec.chain_id).eq(ids));
    let mut names = std::collections::BTreeSet::new();
    for preset in &all {
        let id = preset.spec.chain_id;
        let own = [preset.spec.name.clone(), id.to_string()];
        let also = preset.also.iter().map(|name| (*name).to_owned());
        for name in own.into_iter().chain(also) {
            assert_eq!(ChainSpec::load(&name).unwrap().chain_id, id, "{name}");
            assert!(names.insert(name));
        }
    }
    assert!(ChainSpec::load("901").is_err());
}

/// The time of a fork of a chain that has a name.
fn time_of(chain: &str, fork: &str) -> Option<u64> {
    let forks = ChainSpec::load(chain).unwrap().forks();
    match forks.into_iter().find(|(name, _)| *name == fork)?.1 {
        Activation::Time(time) => Some(time),
        Activation::Block(number) => panic!("{fork} is active from block {number} on"),
    }
}

#[test]
fn presets_agree_with_the_tables_of_the_crate_as_far_as_those_go() {
    for (chain, table) in [
        ("op-mainnet", OpHardfork::op_mainnet()),
        ("op-sepolia", OpHardfork::op_sepolia()),
        ("base", OpHardfork::base_mainnet()),
        ("base-sepolia", OpHardfork::base_sepolia()),
    ] {
        let spec = ChainSpec::load(chain).unwrap();
        for (fork, condition) in table {
            assert_eq!(spec.op_fork_activation(fork), condition, "{chain} {fork:?}");
        }
    }
}

#[test]
fn forks_of_presets_are_those_of_the_registry() {
    for (chain, fork, time) in [
        ("op-mainnet", "delta", 1_708_560_000),
        ("op-mainnet", "karst", 1_783_526_401),
        ("op-sepolia", "karst", 1_781_712_001),
        ("unichain", "granite", 0),
        ("unichain", "holocene", 1_736_445_601),
        ("ink", "granite", 0),
        ("ink", "holocene", 1_742_396_400),
        ("ink", "isthmus", 1_746_806_401),
        ("soneium", "holocene", 1_738_573_200),
        ("mode", "canyon", 1_704_992_401),
        ("world", "ecotone", 0),
        ("world", "fjord", 1_721_826_000),
        ("world", "jovian", 1_777_593_600),
        ("world", "karst", 1_789_992_000),
        ("unichain-sepolia", "holocene", 1_734_559_200),
        ("unichain-sepolia", "karst", 1_781_712_001),
        ("ink-sepolia", "canyon", 1_699_981_200),
        ("minato", "ecotone", 0),
        ("minato", "fjord", 1_730_106_000),
        ("minato", "granite", 1_730_106_000),
        ("minato", "holocene", 1_734_685_200),
        ("minato", "isthmus", 1_744_905_600),
        ("mode-sepolia", "canyon", 1_703_203_200),
        ("mode-sepolia", "delta", 1_703_203_200),
        ("mode-sepolia", "ecotone", 1_708_534_800),
        ("world-sepolia", "granite", 1_726_570_800),
        ("world-sepolia", "karst", 1_788_868_800),
    ] {
        assert_eq!(time_of(chain, fork), Some(time), "{chain} {fork}");
    }
    // Regolith is everywhere from the beginning, and every fork is after the one before it.
    for preset in presets().into_iter().filter(|preset| preset.spec.is_op()) {
        let forks = preset.spec.forks();
        let block = if preset.spec.chain_id == 10 { 105_235_063 } else { 0 };
        assert_eq!(
            forks[..2],
            [("bedrock", Activation::Block(block)), ("regolith", Activation::Time(0)),]
        );
        assert!(forks.is_sorted_by_key(|(_, at)| *at), "{forks:?}");
        let last = forks.last().unwrap().0;
        if preset.spec.name.starts_with("base") {
            // Nobody says which forks Base has after Jovian: blocks after that are not verified.
            assert_eq!(last, "jovian");
            assert_eq!(preset.spec.lacking()[0].1, "after-jovian");
        } else {
            assert_eq!(last, "karst");
            assert!(preset.spec.lacking().is_empty());
        }
    }
    let seconds = |chain| ChainSpec::load(chain).unwrap().block_time;
    assert_eq!(
        (seconds("op"), seconds("ink"), seconds("unichain-sepolia")),
        (Some(2), Some(1), Some(1))
    );
}

#[test]
fn base_fees_before_holocene_have_the_parameters_of_their_chain() {
    // Half of the target is used: the fee falls by half of its denominator's part.
    let next = |chain: &str, elasticity: u64, timestamp| {
        let parent = Header {
            gas_limit: 2 * elasticity,
            gas_used: 1,
            base_fee_per_gas: Some(1_000_000),
            ..Header::default()
        };
        ChainSpec::load(chain).unwrap().next_base_fee(&parent, timestamp).unwrap()
    };
    let canyon = 1_704_992_401;
    assert_eq!(next("op", 6, canyon - 1), 1_000_000 - 1_000_000 / 2 / 50);
    assert_eq!(next("op", 6, canyon), 1_000_000 - 1_000_000 / 2 / 250);
    assert_eq!(next("ink", 6, 0), 1_000_000 - 1_000_000 / 2 / 250);
    assert_eq!(next("world", 10, 0), 1_000_000 - 1_000_000 / 2 / 250);
    assert_eq!(next("world-sepolia", 10, 0), 1_000_000 - 1_000_000 / 2 / 250);
    assert_eq!(next("mode-sepolia", 6, 0), 1_000_000 - 1_000_000 / 2 / 50);
    assert_eq!(next("base-sepolia", 10, 0), 1_000_000 - 1_000_000 / 2 / 50);
}

#[test]
fn a_rollup_configuration_has_other_names_for_the_same_forks() {
    let genesis = ["canyon", "ecotone", "fjord", "granite", "holocene", "isthmus", "jovian"];
    let mut times: std::collections::BTreeMap<String, u64> =
        genesis.map(|fork| (format!("{fork}_time"), 0)).into();
    times.insert("karst_time".into(), 50);
    times.insert("pectra_blob_schedule_time".into(), 7);
    times.insert("lagoon_time".into(), 90);
    let spec = ChainSpec::op_with_times("test", 901, &times).unwrap();
    assert!(!spec.is_karst_active_at_timestamp(49) && spec.is_karst_active_at_timestamp(50));
    assert_eq!((spec.lacks(89), spec.lacks(90)), (None, Some("lagoon")));
    times.remove("jovian_time");
    let error = ChainSpec::op_with_times("test", 901, &times).unwrap_err().to_string();
    assert!(error.contains("karstTime"), "{error}");
}

#[test]
fn a_fork_of_blob_parameters_needs_its_entry() {
    let bare = json!({ "chainId": 7, "terminalTotalDifficulty": 0, "shanghaiTime": 0,
        "cancunTime": 0, "pragueTime": 0, "osakaTime": 0, "bpo1Time": 9 });
    let error = genesis(&bare).unwrap_err().to_string();
    assert!(error.contains("blobSchedule"), "{error}");
}

/// Fork hashes (EIP-2124) of networks at their forks, as clients tell them to each other: a time
/// that is off by one gives another hash.
#[test]
fn fork_times_of_ethereum_networks_give_the_fork_hashes_that_everybody_has() {
    use alloy_hardforks::ForkHash;
    use alloy_primitives::{B256, b256, hex};

    let mainnet = b256!("d4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3");
    let sepolia = b256!("25a5cc106eea7138acab33231d7160d69cb777ee0c2c553fcddf5138993e6dd9");
    let holesky = b256!("b5f7f912443c940f21fd611f12828d75b534364ed9e95ca4e307729a4661bde4");
    let hoodi = b256!("bbe312868b376a3001692a646dd2d7d1e4406380dfd86b98aa8a34d1557c971b");
    let check = |chain: &str, genesis: B256, first: &[u64], hashes: &[(&str, [u8; 4])]| {
        let spec = ChainSpec::load(chain).unwrap();
        let mut hash = ForkHash::from(genesis);
        for block in first {
            hash += *block;
        }
        let mut left = hashes.iter();
        for (name, at) in spec.forks() {
            let Activation::Time(time) = at else { panic!("{name}") };
            if time > 0 {
                hash += time;
            }
            if hashes.iter().any(|(of, _)| *of == name) {
                assert_eq!(Some(&(name, hash.0)), left.next(), "{chain}");
            }
        }
        assert_eq!(left.next(), None, "{chain}");
    };
    // Forks at blocks before the merge, which no preset executes.
    let blocks = [
        1_150_000, 1_920_000, 2_463_000, 2_675_000, 4_370_000, 7_280_000, 9_069_000, 9_200_000,
        12_244_000, 12_965_000, 13_773_000, 15_050_000,
    ];
    check(
        "mainnet",
        mainnet,
        &blocks,
        &[
            ("prague", hex!("c376cf8b")),
            ("osaka", hex!("5167e2a6")),
            ("bpo1", hex!("cba2a1c0")),
            ("bpo2", hex!("07c9462e")),
        ],
    );
    // The block at which the merge was announced to peers.
    check(
        "sepolia",
        sepolia,
        &[1_735_371],
        &[("osaka", hex!("e2ae4999")), ("bpo1", hex!("56078a1e")), ("bpo2", hex!("268956b6"))],
    );
    check("holesky", holesky, &[], &[("bpo2", hex!("9bc6cb31"))]);
    check("hoodi", hoodi, &[], &[("bpo2", hex!("23aa1351"))]);
}

#[test]
fn blob_parameters_of_mainnet_are_those_of_its_schedule() {
    let spec = ChainSpec::load("mainnet").unwrap();
    let at = |time| {
        let params = spec.blob_params(time).unwrap();
        let fraction = u64::try_from(params.update_fraction).unwrap();
        (params.target_blob_count, params.max_blob_count, fraction)
    };
    assert!(spec.blob_params(1_710_338_134).is_none());
    // EIP-4844, EIP-7691, and what `eth_config` (EIP-7910) of mainnet's clients says.
    assert_eq!(at(1_710_338_135), (3, 6, 3_338_477));
    assert_eq!(at(1_746_612_311), (6, 9, 5_007_716));
    assert_eq!(at(1_764_798_551), (6, 9, 5_007_716));
    assert_eq!(at(1_765_290_070), (6, 9, 5_007_716));
    assert_eq!(at(1_765_290_071), (10, 15, 8_346_193));
    assert_eq!(at(1_767_747_671), (14, 21, 11_684_671));
    assert_eq!(at(u64::MAX), (14, 21, 11_684_671));
}
