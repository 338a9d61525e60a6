//! `devnet` and `replay` as a user runs them, small.

#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn fragcast(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fragcast")).args(args).output().unwrap()
}

fn report(path: &Path, output: &Output) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|_| {
        panic!("no report: {}", String::from_utf8_lossy(&output.stderr));
    });
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_devnet_verifies_every_block_on_every_node() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.json");
    let nodes = dir.path().join("nodes");
    let output = fragcast(&[
        "devnet",
        "--nodes",
        "5",
        "--blocks",
        "3",
        "--frags",
        "4",
        "--txs",
        "50",
        "--loss",
        "0.05",
        "--gateways",
        "2",
        "--term",
        "1",
        "--fast",
        "--report",
        path.to_str().unwrap(),
        "--dir",
        nodes.to_str().unwrap(),
    ]);
    let report = report(&path, &output);
    assert!(output.status.success(), "{report:#} {}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(report["ok"], true);
    assert_eq!(report["sealed"], serde_json::json!([3, 3, 3, 3, 3]));
    assert_eq!(report["verified"], report["sealed"]);
    assert_eq!(report["rejected"], serde_json::json!([0, 0, 0, 0, 0]));
    assert!(report["execution"]["gas"].as_u64().unwrap() > 5 * 3 * 200 * 21_000);
    assert_eq!(report["digests_equal"], true);
    assert!(report["latency_ms"]["all"]["p99"].as_f64().unwrap() > 0.0);
    assert!(report["latency_ms"]["next_leader"]["p50"].as_f64().unwrap() > 0.0);
    // Three blocks of six messages on the four that do not lead them.
    assert_eq!(report["messages"]["turbine"], 3 * 6 * 4);
    // Every node has its own directory, which check-config accepts.
    for i in 0..5 {
        let config = nodes.join(format!("node-{i}/node.toml"));
        let check = fragcast(&["check-config", "--config", config.to_str().unwrap()]);
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    }
    assert!(nodes.join("genesis.json").exists());
    assert!(nodes.join("node-4/chain.redb").exists());
}

#[test]
fn impossible_devnets_are_told() {
    for (args, part) in [
        (&["devnet", "--nodes", "2", "--gateways", "3"][..], "gateways are possible"),
        (&["devnet", "--route", "pigeon"], "leader.route"),
    ] {
        let output = fragcast(args);
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(part), "{error}");
    }
}

fn data() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let dir = std::env::var_os("FRAGCAST_DATA").map_or_else(|| default.into(), PathBuf::from);
    let blocks = dir.join("op-sepolia");
    blocks.is_dir().then_some(blocks)
}

#[test]
fn recorded_blocks_are_verified_on_every_node() {
    let Some(blocks) = data() else {
        eprintln!("skipped: no recorded blocks; set FRAGCAST_DATA");
        return;
    };
    let mut files: Vec<String> = std::fs::read_dir(blocks)
        .unwrap()
        .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
        .filter(|path| path.ends_with(".json.gz"))
        .collect();
    files.sort();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.json");
    for mode in [&["--nodes", "3", "--loss", "0.1"][..], &["--offline", "--loss", "0.1"]] {
        let mut args = vec!["replay", "--report", path.to_str().unwrap()];
        args.extend(mode);
        args.extend(files.iter().map(String::as_str));
        let output = fragcast(&args);
        let report = report(&path, &output);
        assert!(output.status.success(), "{report:#}");
        assert_eq!(report["passed"], files.len());
        assert_eq!(report["failed"], 0);
        for block in report["blocks"].as_array().unwrap() {
            assert_eq!(block["verdict"], "verified");
            assert_eq!(block["computed_hash"], block["expected_hash"]);
        }
        let gateway = &report["digests"]["gateway"];
        let nodes = report["digests"]["nodes"].as_array().unwrap();
        assert!(nodes.iter().all(|node| node == gateway), "{report:#}");
    }
}

#[test]
fn files_that_are_no_blocks_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.json");
    std::fs::write(&path, "[1, 2").unwrap();
    let output = fragcast(&["replay", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("x.json"), "{error}");
    let output = fragcast(&["replay", "/nonexistent.json"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read"));
}
