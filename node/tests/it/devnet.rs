//! `devnet` and `replay` as a user runs them, small.

use std::collections::BTreeSet;
use std::path::Path;

use fragcast_shredder::testing::data;
use serde_json::Value;

use crate::common::{Ended, fragcast};

fn report(path: &Path, ended: &Ended) -> Value {
    let text = std::fs::read_to_string(path);
    let text = text.unwrap_or_else(|_| panic!("no report: {}", ended.stderr));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_devnet_verifies_every_block_on_every_node() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.json");
    let nodes = dir.path().join("nodes");
    let ended = fragcast(&[
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
    let report = report(&path, &ended);
    assert_eq!(ended.code, Some(0), "{report:#} {}", ended.stdout);
    assert_eq!(report["ok"], true);
    assert_eq!(report["sealed"], serde_json::json!([3, 3, 3, 3, 3]));
    assert_eq!(report["verified"], report["sealed"]);
    assert_eq!(report["rejected"], serde_json::json!([0, 0, 0, 0, 0]));
    assert!(report["execution"]["gas"].as_u64().unwrap() > 5 * 3 * 200 * 21_000);
    assert_eq!(report["digests_equal"], true);
    assert!(report["latency_ms"]["all"]["p99"].as_f64().unwrap() > 0.0);
    assert!(report["latency_ms"]["next_leader"]["p50"].as_f64().unwrap() > 0.0);
    // Three blocks of six messages on the four that do not lead them. On a slow machine repair or
    // gossip may be first with some.
    let messages = &report["messages"];
    let by = |way: &str| messages[way].as_u64().unwrap();
    assert_eq!(by("turbine") + by("repair") + by("gossip"), 3 * 6 * 4, "{messages}");
    assert!(by("turbine") >= 3 * 6 * 4 / 2, "{messages}");
    // The route and plan of each block, by the node that led it.
    let routes = report["routes"].as_array().unwrap();
    let blocks: BTreeSet<u64> = routes.iter().map(|row| row["block"].as_u64().unwrap()).collect();
    assert_eq!(blocks.len(), 3, "{routes:?}");
    let is_known = |row: &Value| row["route"] == "turbine" && row["leader"].as_u64() < Some(2);
    assert!(routes.iter().all(is_known), "{routes:?}");
    assert!(ended.stdout.contains("blocks by route: turbine 3;"), "{}", ended.stdout);
    // Every node has its own directory, which check-config accepts.
    for i in 0..5 {
        let config = nodes.join(format!("node-{i}/node.toml"));
        fragcast(&["check-config", "--config", config.to_str().unwrap()]).ok();
    }
    assert!(nodes.join("genesis.json").exists());
    assert!(nodes.join("node-4/chain.redb").exists());
}

#[test]
fn impossible_devnets_are_told() {
    for (args, code, part) in [
        (&["devnet", "--nodes", "2", "--gateways", "3"][..], 1, "gateways are possible"),
        (&["devnet", "--route", "pigeon"], 2, "pigeon"),
    ] {
        let ended = fragcast(args);
        assert_eq!(ended.code, Some(code), "{}", ended.stdout);
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

#[test]
fn recorded_blocks_are_verified_on_every_node() {
    let Some(blocks) = data("op-sepolia") else { return };
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
        let ended = fragcast(&args);
        let report = report(&path, &ended);
        assert_eq!(ended.code, Some(0), "{report:#}");
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
    let ended = fragcast(&["replay", path.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("x.json"), "{}", ended.stderr);
    let ended = fragcast(&["replay", "/nonexistent.json"]);
    assert!(ended.stderr.contains("cannot read"), "{}", ended.stderr);
}
