//! Replays without a network: generated files, and real blocks with a wrong byte.

use alloy_primitives::{B256, Bytes};
use fragcast_shredder::Dialect;
use serde_json::{Value, json};

use super::offline::replay;
use super::report::{Outcome, Report, Row};
use super::*;
use crate::lab::fixtures::ethereum_tests::fixture::Fixture;
use crate::lab::fixtures::recorded::RecordedBlock;

const OPTIONS: OfflineOptions =
    OfflineOptions { cut: Cut { txs_per_frag: 2, dialect: Dialect::V0 }, loss: 0.0, seed: 0 };

fn run_file(value: &Value, options: &OfflineOptions) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.json");
    std::fs::write(&path, value.to_string()).unwrap();
    offline::run(&[path], options, &ProgressBar::hidden()).unwrap()
}

fn verdicts(report: &Report) -> Vec<(&str, Outcome)> {
    report.rows.iter().map(|row| (row.verdict, row.outcome)).collect()
}

/// A test with valid blocks on two branches and invalid ones of every kind between them.
fn suite() -> (Fixture, Vec<Value>, B256) {
    let mut fixture = Fixture::new();
    let (one, first) = fixture.block(None, 5, 12);
    let (two, _) = fixture.block(Some(&first), 0, 12);
    let (side, second) = fixture.block(Some(&first), 3, 13);
    let (three, third) = fixture.block(Some(&second), 1, 12);
    let mut root = two.clone();
    root.header.state_root = B256::repeat_byte(1);
    let mut bloom = two.clone();
    bloom.header.logs_bloom.0[7] = 1;
    let mut unpaid = two.clone();
    unpaid.withdrawals.as_mut().unwrap()[0].amount += 1;
    let mut orphan = two.clone();
    orphan.header.parent_hash = root.header.hash_slow();
    let mut twice = side.clone();
    twice.txs = one.txs.clone();
    let mut ommers = two.clone();
    ommers.ommers.push(one.header.clone());
    let blocks = vec![
        one.valid(),
        root.invalid("InvalidStateRoot"),
        two.valid(),
        bloom.invalid("InvalidLogBloom"),
        unpaid.invalid("InvalidWithdrawals"),
        orphan.invalid("UnknownParent"),
        twice.invalid("NonceMismatch"),
        ommers.invalid("Ommers"),
        json!({ "rlp": "0xf9deadbeef", "expectException": "Rlp" }),
        side.valid(),
        three.valid(),
    ];
    (fixture, blocks, third.hash())
}

#[test]
fn valid_blocks_pass_and_invalid_ones_are_refused() {
    let (fixture, blocks, last) = suite();
    let file = json!({
        "chain": fixture.test("Cancun", &blocks, last),
        "old": fixture.test("London", &blocks[..1], last),
    });
    let (ok, rejected, refused) = (
        ("verified", Outcome::Passed),
        ("rejected", Outcome::Passed),
        ("refused", Outcome::Passed),
    );
    for (dialect, loss) in [(Dialect::V0, 0.0), (Dialect::V0Blob, 0.3)] {
        let cut = Cut { dialect, ..OPTIONS.cut };
        let report = run_file(&file, &OfflineOptions { cut, loss, seed: 3 });
        let expected = [
            ok,
            rejected,
            ok,
            rejected,
            rejected,
            refused,
            rejected,
            refused,
            refused,
            ok,
            ok,
            ("skipped", Outcome::Skipped),
        ];
        assert_eq!(verdicts(&report), expected, "{:#}", report.to_json());
        assert!(report.is_good());
        let json = report.to_json();
        assert_eq!(
            (&json["passed"], &json["executed"], &json["refused"], &json["skipped"]),
            (&json!(11), &json!(4), &json!(7), &json!(1))
        );
        assert_eq!(json["withdrawals"], json!({ "blocks": 4, "count": 4 }));
        assert_eq!(json["skipped_tests"], json!(["t.json::old"]));
        assert_eq!(json["blocks"][10]["computed_hash"], json!(last));
        let mut table = Vec::new();
        report.write(&mut table).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert!(
            table.contains("11 passed (4 valid executed, 7 invalid refused), 0 failed"),
            "{table}"
        );
    }
}

#[test]
fn what_the_file_says_otherwise_fails() {
    let (fixture, blocks, last) = suite();
    let failed = |test: Value| {
        let report = run_file(&json!({ "t": test }), &OPTIONS);
        assert!(!report.is_good());
        let failed = report.rows.into_iter().filter(|row| row.outcome == Outcome::Failed);
        failed.map(|row| (row.verdict, row.reason.unwrap_or_default())).collect::<Vec<_>>()
    };
    let with = |at: usize, change: &dyn Fn(&mut Value)| {
        let mut blocks = blocks.clone();
        change(&mut blocks[at]);
        failed(fixture.test("Cancun", &blocks, last))
    };
    // A valid block that is called invalid, and the other way round.
    let valid = with(2, &|block| block["expectException"] = json!("nothing"));
    assert_eq!(valid.len(), 1);
    assert!(valid[0].1.contains("must be refused (nothing), but it was accepted"), "{valid:?}");
    let mut swapped = blocks.clone();
    let mut wrong = Fixture::new().block(None, 5, 12).0;
    wrong.header.gas_used += 1;
    swapped[0] = wrong.valid();
    let invalid = failed(fixture.test("Cancun", &swapped, last));
    assert!(invalid[0].1.contains("gas_used is"), "{invalid:?}");
    // Everything that builds on it has no parent.
    assert!(invalid.len() > 3);
    // Another head, another state.
    let head = failed(fixture.test("Cancun", &blocks, B256::repeat_byte(3)));
    assert!(head[0].1.contains("lastblockhash"), "{head:?}");
    let mut test = fixture.test("Cancun", &blocks, last);
    test["postState"] = test["pre"].clone();
    assert!(failed(test.clone())[0].1.contains("postState"));
    test["postState"] = Value::Null;
    test["postStateHash"] = json!(B256::repeat_byte(3));
    assert!(failed(test)[0].1.contains("postStateHash"));
    // A genesis that is not that of the blocks.
    let mut test = fixture.test("Cancun", &blocks, last);
    let account = test["pre"].as_object().unwrap().keys().next().unwrap().clone();
    test["pre"][account]["balance"] = json!("0x1");
    assert_eq!(failed(test).len(), blocks.len());
    // Rules of another fork.
    assert!(!failed(fixture.test("Shanghai", &blocks, last)).is_empty());
}

#[test]
fn other_files_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        offline::run(&[path], &OPTIONS, &ProgressBar::hidden())
    };
    for text in [r#"{"a": 1}"#, "[]", "{", ""] {
        let error = run("other.json", text).unwrap_err().to_string();
        assert!(error.contains("other.json"), "{error}");
    }
    // In a folder they are listed, and damaged ones count.
    std::fs::write(dir.path().join("other.json"), r#"{"a": 1}"#).unwrap();
    std::fs::write(dir.path().join("damaged.json"), "{").unwrap();
    let folder = [dir.path().to_owned()];
    let report = offline::run(&folder, &OPTIONS, &ProgressBar::hidden()).unwrap();
    assert_eq!(verdicts(&report), [("unverified", Outcome::Failed)]);
    assert_eq!(report.ignored.len(), 1);
    assert!(!report.is_good());
}

/// The smallest recorded block, if it is present.
fn recorded() -> Option<RecordedBlock> {
    let path = fragcast_shredder::testing::data("op-sepolia/block-26207960.json.gz")?;
    Some(RecordedBlock::load(&path).unwrap())
}

fn replay_block(block: &RecordedBlock) -> Row {
    let mut rows = replay(case::Case::of_recorded("block", block), &OPTIONS).unwrap();
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

#[test]
fn no_wrong_byte_of_a_recorded_block_passes() {
    let Some(good) = recorded() else { return };
    let row = replay_block(&good);
    assert_eq!((row.verdict, row.outcome), ("verified", Outcome::Passed), "{row:?}");
    assert_eq!(row.computed_hash, Some(good.expected_block_hash));

    let mut random = blake3::Hasher::new().update(b"wrong bytes").finalize_xof();
    let mut below = |bound: usize| {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % bound as u64) as usize
    };
    let mut flip = |bytes: &Bytes, bit: usize| {
        let mut changed = bytes.to_vec();
        let at = below(changed.len());
        changed[at] ^= 1 << (bit % 8);
        Bytes::from(changed)
    };
    let txs = good.attributes.txs.len();
    for i in 0..40 {
        let mut block = good.clone();
        let tx = &mut block.attributes.txs[i % txs];
        *tx = flip(tx, i);
        let row = replay_block(&block);
        assert_eq!(row.outcome, Outcome::Failed, "transaction {}: {row:?}", i % txs);
        assert!(row.reason.is_some());
    }
    // Nodes, codes and headers; longest and shortest among them.
    let mut hashes: Vec<B256> = good.preimages.keys().copied().collect();
    hashes.sort_by_key(|hash| (good.preimages[hash].len(), *hash));
    for i in 0..60 {
        let mut block = good.clone();
        let preimages = std::sync::Arc::make_mut(&mut block.preimages);
        let bytes = preimages.get_mut(&hashes[i * (hashes.len() - 1) / 59]).unwrap();
        *bytes = flip(bytes, i);
        let row = replay_block(&block);
        assert_eq!((row.verdict, row.outcome), ("unverified", Outcome::Failed), "{row:?}");
    }
    // Without what it needs, the block is not verified, and not rejected either.
    // Nor does any other way of lacking something make it `rejected`; what is in the file and not
    // needed may be lacking.
    let mut lacking = 0;
    for hash in hashes.iter().step_by(6).chain([&good.parent_header.state_root]) {
        let mut block = good.clone();
        std::sync::Arc::make_mut(&mut block.preimages).remove(hash);
        let row = replay_block(&block);
        if row.outcome == Outcome::Failed {
            assert_eq!(row.verdict, "unverified", "{row:?}");
            assert!(row.reason.as_ref().is_some_and(|r| r.contains("lacks")), "{row:?}");
            lacking += 1;
        } else {
            assert_eq!(row.computed_hash, Some(good.expected_block_hash));
        }
    }
    assert!(lacking > 30, "{lacking}");
    // Everything else that the file says.
    let changes: [fn(&mut RecordedBlock); 6] = [
        |b| b.attributes.timestamp += 1,
        |b| b.attributes.gas_limit += 1,
        |b| b.attributes.beneficiary.0[3] ^= 1,
        |b| b.parent_header.gas_used += 1,
        |b| b.expected_block_hash.0[31] ^= 1,
        |b| b.chain_id += 1,
    ];
    for change in changes {
        let mut block = good.clone();
        change(&mut block);
        let row = replay_block(&block);
        assert_eq!(row.outcome, Outcome::Failed, "{row:?}");
    }
}
