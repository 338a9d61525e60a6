//! `fragcast replay --offline` on ethereum/tests, as a user runs it, if the suite is there.

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
