//! Real blocks where their files are there, and a synthetic file for what can go wrong.

use std::io::{Read, Write};

use alloy_primitives::hex;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::*;

/// The folder of the recorded blocks, if it is there.
fn data() -> Option<PathBuf> {
    let root = std::env::var_os("FRAGCAST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let folder = root.join("op-sepolia");
    if !folder.is_dir() {
        let mut out = io::stdout();
        let _ = writeln!(out, "skipped: {} is not there", folder.display());
        return None;
    }
    Some(folder)
}

fn parts(messages: &[Message]) -> (&Env, Vec<&Frag>, &Seal) {
    let [Message::Env(env), frags @ .., Message::Seal(seal)] = messages else {
        panic!("a block begins with Env and ends with Seal");
    };
    let frags = frags.iter().map(|message| match message {
        Message::Frag(frag) => frag,
        other => panic!("not a frag: {other:?}"),
    });
    (env, frags.collect(), seal)
}

#[test]
fn consecutive_blocks_say_what_the_next_one_records_of_them() {
    let Some(folder) = data() else { return };
    let load = |number: u64| {
        RecordedBlock::load(&folder.join(format!("block-{number}.json.gz"))).expect("a block")
    };
    for number in 26_207_960..26_207_962 {
        let (block, next) = (load(number), load(number + 1));
        let messages = block.messages(3, Dialect::V0);
        let (env, frags, seal) = parts(&messages);
        let header = &next.parent_header;
        assert_eq!(header.hash_slow(), block.expected_block_hash);
        assert_eq!(seal.block_hash, header.hash_slow());
        assert_eq!(seal.transactions_root, header.transactions_root);
        assert_eq!(env.number, number);
        assert_eq!(env.parent_hash, header.parent_hash);
        assert_eq!(Some(env.basefee), header.base_fee_per_gas);
        assert_eq!(env.extra_data, header.extra_data);
        assert_eq!(env.beneficiary, header.beneficiary);
        assert_eq!((env.timestamp, env.gas_limit), (header.timestamp, header.gas_limit));
        assert_eq!((env.difficulty, env.prevrandao), (header.difficulty, header.mix_hash));
        assert_eq!(Some(env.parent_beacon_block_root), header.parent_beacon_block_root);
        assert_eq!(frags[0].txs[0][0], 0x7e, "a block begins with its L1-attributes deposit");
    }
}

/// A small file in the recorded shape.
fn synthetic() -> Value {
    let hash = B256::repeat_byte(1);
    json!({
        "chainId": 10,
        "number": 8,
        "parentHeader": {
            "parentHash": hash, "sha3Uncles": hash, "miner": Address::ZERO, "stateRoot": hash,
            "transactionsRoot": hash, "receiptsRoot": hash,
            "logsBloom": format!("0x{}", "00".repeat(256)),
            "difficulty": "0x0", "number": "0x7", "gasLimit": "0xb71b00", "gasUsed": "0x3d0900",
            "timestamp": "0x64", "extraData": "0x00000000fa00000006", "mixHash": hash,
            "nonce": "0x0000000000000000", "baseFeePerGas": "0xf4240", "withdrawalsRoot": hash,
            "blobGasUsed": "0x0", "excessBlobGas": "0x0", "parentBeaconBlockRoot": hash,
        },
        "payloadAttributes": {
            "timestamp": "0x66", "prevRandao": hash, "suggestedFeeRecipient": Address::ZERO,
            "parentBeaconBlockRoot": hash, "gasLimit": "0xb71b00",
            "transactions": ["0x7e01", "0x0202", "0x0203", "0x0204", "0x0205"],
            "eip1559Params": "0x0000000000000000",
        },
        "expectedBlockHash": hash,
        "opForkTimes": { "canyon": 0 },
        "preimages": { "0x56570de287d73cd1cb6092bb8fdee6173974955fdef345ae579ee9f475ea7432": "0x1234" },
    })
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// Loads `bytes` as a file of that name.
fn load(name: &str, bytes: &[u8]) -> Result<RecordedBlock, RecordedError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a file");
    let result = RecordedBlock::load(&path);
    if let Err(error) = &result {
        assert!(error.to_string().contains(name), "{error}");
    }
    result
}

fn load_value(value: &Value) -> Result<RecordedBlock, RecordedError> {
    load("block.json", value.to_string().as_bytes())
}

#[test]
fn plain_and_compressed_files_are_the_same_block() {
    let json = synthetic().to_string();
    let block = load("block.json", json.as_bytes()).expect("a block");
    assert_eq!(load("block.json.gz", &gzip(json.as_bytes())).expect("a block"), block);
    assert_eq!((block.chain_id, block.number, block.attributes.txs.len()), (10, 8, 5));
    assert_eq!(block.attributes.eip1559_params, Some(DEFAULT_BASE_FEE_PARAMS));
}

#[test]
fn base_fee_follows_the_parameters_of_the_parent() {
    // Target: 12 M / 6 = 2 M; 4 M used; so 1,000,000 × 1 / 250 more.
    let mut value = synthetic();
    assert_eq!(load_value(&value).expect("a block").basefee(), 1_004_000);
    // Other parameters: target 12 M / 2 = 6 M; 1,000,000 × (2 / 6) / 8 less.
    value["parentHeader"]["extraData"] = json!("0x000000000800000002");
    assert_eq!(load_value(&value).expect("a block").basefee(), 1_000_000 - 41_666);
    // No Holocene header: the chain's own.
    for other in ["0x", "0x00", "0x0100000008000000020000000000000000", "0x000000000000000002"] {
        value["parentHeader"]["extraData"] = json!(other);
        assert_eq!(load_value(&value).expect("a block").basefee(), 1_004_000);
    }
    value["parentHeader"]["baseFeePerGas"] = json!("0xffffffffffffffff");
    let error = load_value(&value).expect_err("too much");
    assert!(matches!(error, RecordedError::Inconsistent { .. }), "{error}");
}

#[test]
fn messages_keep_the_order_and_end_with_the_last_frag() {
    let mut value = synthetic();
    value["payloadAttributes"]["eip1559Params"] = json!("0x0000001e00000003");
    let block = load_value(&value).expect("a block");
    for (per_frag, lens) in [(0, &[1; 5][..]), (2, &[2, 2, 1]), (5, &[5]), (usize::MAX, &[5])] {
        let messages = block.messages(per_frag, Dialect::V0Blob);
        let (env, frags, seal) = parts(&messages);
        assert_eq!(env.extra_data[..], hex!("000000001e00000003"));
        assert_eq!(frags.iter().map(|f| f.txs.len()).collect::<Vec<_>>(), lens);
        assert!(frags.iter().enumerate().all(|(i, f)| f.seq == i as u64));
        assert!(frags.iter().enumerate().all(|(i, f)| f.is_last == (i + 1 == lens.len())));
        let txs: Vec<_> = frags.iter().flat_map(|f| f.txs.clone()).collect();
        assert_eq!(txs, block.attributes.txs);
        assert_eq!(seal.total_frags, lens.len() as u64);
        assert!(messages.iter().all(|m| m.dialect() != Some(Dialect::V0)));
    }
    value["payloadAttributes"]["transactions"] = json!([]);
    value["payloadAttributes"]["eip1559Params"] = Value::Null;
    let block = load_value(&value).expect("a block");
    let messages = block.messages(200, Dialect::V0);
    let (env, frags, seal) = parts(&messages);
    assert!(env.extra_data.is_empty());
    assert_eq!((frags.len(), frags[0].is_last, frags[0].txs.len()), (1, true, 0));
    assert_eq!((seal.total_frags, seal.blob_gas_used), (1, None));
}

#[test]
fn damaged_files_are_told_apart() {
    let json = synthetic().to_string();
    let compressed = gzip(json.as_bytes());
    let error = |name: &str, bytes: &[u8]| load(name, bytes).expect_err("an error");
    for cut in [10, compressed.len() / 2, compressed.len() - 1] {
        let error = error("block.json.gz", &compressed[..cut]);
        assert!(matches!(error, RecordedError::Gzip { .. }), "{error}");
    }
    let mut wrong = compressed;
    *wrong.last_mut().expect("bytes") ^= 1;
    assert!(matches!(error("block.json.gz", &wrong), RecordedError::Gzip { .. }));
    assert!(matches!(error("block.json.gz", json.as_bytes()), RecordedError::Kind { .. }));
    assert!(matches!(error("block.json.gz", b""), RecordedError::Kind { .. }));
    assert!(matches!(error("block.csv", json.as_bytes()), RecordedError::Kind { .. }));
    for other in ["[]", "7", "{}", r#"{"chainId": 10, "alloc": {}}"#] {
        let error = error("block.json", other.as_bytes());
        assert!(matches!(error, RecordedError::Kind { .. }), "{error}");
    }
    for other in [&json[..json.len() - 1], &json[..json.len() / 2], "", "block", "[1"] {
        let error = error("block.json", other.as_bytes());
        assert!(matches!(error, RecordedError::Json { .. }), "{error}");
    }
    let missing = RecordedBlock::load(Path::new("no-such-folder/block.json"));
    assert!(matches!(missing, Err(RecordedError::Io { .. })));
}

#[test]
fn a_missing_or_wrong_field_is_named() {
    for (section, field) in [
        ("", "expectedBlockHash"),
        ("", "payloadAttributes"),
        ("parentHeader", "gasUsed"),
        ("parentHeader", "baseFeePerGas"),
        ("payloadAttributes", "transactions"),
    ] {
        let mut value = synthetic();
        let object = if section.is_empty() { &mut value } else { &mut value[section] };
        object.as_object_mut().expect("an object").remove(field);
        let error = load_value(&value).expect_err("a field is missing");
        assert!(matches!(error, RecordedError::Field { .. }), "{error}");
        assert!(error.to_string().contains(field), "{error}");
    }
    let mut value = synthetic();
    value["payloadAttributes"]["transactions"][1] = json!("0xzz");
    assert!(matches!(load_value(&value), Err(RecordedError::Field { .. })));
    let mut value = synthetic();
    value["number"] = json!(9);
    assert!(matches!(load_value(&value), Err(RecordedError::Inconsistent { .. })));
    let mut value = synthetic();
    value["payloadAttributes"]["eip1559Params"] = json!("0x000000fa00000000");
    assert!(matches!(load_value(&value), Err(RecordedError::Inconsistent { .. })));
}

#[test]
fn what_decompresses_to_too_much_is_refused() {
    let path = Path::new("bomb.json.gz");
    let io = |reason| RecordedError::Io { path: path.to_owned(), reason };
    let read = |limit| file::bounded(path, io::repeat(b' ').take(100), limit, io);
    assert_eq!(read(100).expect("just fits").len(), 100);
    assert!(matches!(read(99), Err(RecordedError::TooLong { .. })));
}
