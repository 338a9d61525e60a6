//! Forks that this build lacks: what a node says of them before and after.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::common::{fragcast, request};
use crate::single::Setup;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The value of a metric by its name and labels.
fn metric(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_that_is_lacking_is_told_before_and_after_it_is_active() {
    const METRIC: &str = "fragcast_fork_lacking_seconds{fork=\"amsterdam\"}";
    let day = 24 * 3_600;
    for (time, stage, said) in [
        (now() + 30 * day, "far", "the fork amsterdam comes (at "),
        (now() + 3 * day, "soon", "the fork amsterdam comes within a week (at "),
        (now() - day, "active", "the fork amsterdam is active (at "),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let forks = [("shanghai", 0), ("cancun", 0), ("amsterdam", time)];
        let setup = Setup::new(dir.path(), 7_777, &forks);
        let chain = dir.path().join("genesis.json");
        setup.edit("chain = \"\"", &format!("chain = {chain:?}"));
        let check = setup.check().ok();
        assert!(check.stdout.contains(said), "{}", check.stdout);
        let node = setup.start();
        let status = request(&node.url, "fragcast_status", json!([])).await;
        let lacks = &status["result"]["execution"]["lacks"];
        assert_eq!(*lacks, json!([{ "fork": "amsterdam", "time": time, "stage": stage }]));
        let left = metric(&node.page("/metrics").await, METRIC).unwrap();
        let expected = time as f64 - now() as f64;
        assert!((left - expected).abs() < 600.0, "{left} {expected}");
        let ready = node.page("/readyz").await;
        assert_eq!(
            ready.contains("the fork amsterdam is active since"),
            stage == "active",
            "{ready}"
        );
    }
}

#[test]
fn the_command_prints_chains_and_what_they_lack() {
    let all = fragcast(&["chains"]).ok().stdout;
    let line = |name: &str| {
        let found = all.lines().find(|line| line.split_whitespace().next() == Some(name));
        found.unwrap_or_else(|| panic!("{name} in {all}"))
    };
    assert!(line("op-mainnet").contains("karst=1783526401"));
    assert!(line("world-sepolia").contains("karst=1788868800"));
    assert!(line("base").contains("lacks after-jovian@1783526401"));
    let json = fragcast(&["chains", "--json", "optimism", "1946"]).ok().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json[0]["id"], &json[1]["name"]), (&json!(10), &json!("minato")));
    let unknown = fragcast(&["chains", "nowhere"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("fragcast chains"), "{}", unknown.stderr);
}
