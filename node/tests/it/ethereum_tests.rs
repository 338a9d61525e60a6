//! `fragcast replay --offline` on ethereum/tests, as a user runs it, if the suite is there.

use std::collections::BTreeMap;
use std::path::Path;

use fragcast_shredder::testing::data;
use serde_json::{Value, json};

use crate::common::fragcast;

/// The exit code, all that it printed, and the report.
fn replay(args: &[&str]) -> (Option<i32>, String, Value) {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report.json");
    let command = ["replay", "--offline", "--report", report.to_str().unwrap()];
    let ended = fragcast(&[&command[..], args].concat());
    let text = std::fs::read(&report).ok();
    let report = text.map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap());
    (ended.code, ended.stdout + &ended.stderr, report)
}

#[test]
fn the_suite_passes() {
    let Some(suite) = data("ethereum-tests/blockchain-tests.tar.gz") else { return };
    let (code, said, report) = replay(&[suite.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(report["executed"], 2_107, "{said}");
    assert_eq!(report["refused"], 72, "{said}");
    assert_eq!(report["passed"], 2_107 + 72, "{said}");
    assert_eq!(report["failed"], 0, "{said}");
    assert_eq!(report["withdrawals"]["blocks"], 103, "{said}");
    let skipped = report["skipped_tests"].as_array().unwrap();
    assert_eq!(skipped.len(), 14, "{said}");
    for test in skipped {
        assert!(said.contains(test.as_str().unwrap()), "{test} is not named:\n{said}");
    }
    assert_eq!(report["ignored"], json!([]), "{said}");
    for block in report["blocks"].as_array().unwrap() {
        let valid = block["expected"] == "valid" && block["outcome"] == "passed";
        assert!(!valid || block["computed_hash"] == block["expected_hash"], "{block}");
        assert!(!valid || block["verdict"] == "verified", "{block}");
    }
}

/// Blocks that Ethereum's executable specification made (`spec/vectors.py`): requests, delegations,
/// precompiles, floors of data, blobs up to the most of each fork and over the forks.
#[test]
fn blocks_of_the_specification_from_prague_on_pass() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/spec/blocks.json.gz");
    let (code, said, report) = replay(&[file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((&report["executed"], &report["refused"]), (&json!(55), &json!(14)), "{said}");
    assert_eq!((&report["failed"], &report["skipped"]), (&json!(0), &json!(0)), "{said}");
    let mut refused = BTreeMap::<&str, u32>::new();
    for block in report["blocks"].as_array().unwrap() {
        if block["expected"] == "valid" {
            assert_eq!(block["computed_hash"], block["expected_hash"], "{block}");
            assert_eq!(block["verdict"], "verified", "{block}");
            continue;
        }
        // Refused for the rule that it breaks: nothing else is wrong with it.
        assert_eq!(block["verdict"], "rejected", "{block}");
        let reason = block["reason"].as_str().unwrap();
        let rules = ["blob gas", "floor", "cap", "too many blobs"];
        let rule = rules.into_iter().find(|rule| reason.contains(rule));
        *refused.entry(rule.unwrap_or_else(|| panic!("{block}"))).or_default() += 1;
    }
    let counts = [("blob gas", 4), ("floor", 4), ("cap", 3), ("too many blobs", 3)];
    assert_eq!(refused, counts.into());
}

#[test]
fn whole_folders_pass_and_cut_archives_do_not() {
    let (Some(blocks), Some(suite)) = (data("op-sepolia"), data("ethereum-tests")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let archive = std::fs::read(suite.join("blockchain-tests.tar.gz")).unwrap();
    let cut = dir.path().join("cut.tar.gz");
    std::fs::write(&cut, &archive[..archive.len() / 2]).unwrap();
    let (code, said, _) = replay(&[cut.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(said.contains("cut.tar.gz is no whole .tar.gz archive"), "{said}");

    let (code, said, report) = replay(&["--loss", "0.2", blocks.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((&report["passed"], &report["executed"]), (&json!(4), &json!(4)), "{said}");
}
