//! What `node/monitoring` holds, against Debian's Prometheus: a live node's metrics without a complaint
//! of `promtool`, rules that pass their tests, a dashboard whose panels all have data, and alerts that
//! fire and clear by faults of a devnet.
//!
//! The rules are run as they are but for their times: `for:` is one second and windows of minutes are
//! seconds, so that nobody waits ten minutes for a counter to be forgotten.

mod prometheus;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fragcast::config;
use fragcast::lab::local::{LocalNetwork, LocalOptions};
use fragcast::serve::metrics::catalogue;
use fragcast_shredder::testing::{has, skip};
use serde_json::{Value, json};

use crate::common::{GUARD, fragcast, guarded, request, run};
use crate::running;
use prometheus::Prometheus;

/// Where rules and dashboard are.
fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring")
}

fn read(name: &str) -> String {
    fs::read_to_string(monitoring().join(name)).unwrap()
}

/// Runs promtool on a file; what it said.
fn promtool(args: &[&str]) -> String {
    let ended = run(Command::new("promtool").args(args).current_dir(monitoring())).ok();
    ended.stdout + &ended.stderr
}

#[test]
fn promtool_takes_the_rules_and_their_tests_pass() {
    if !has("promtool", &["--version"]) {
        return skip("promtool is not installed (Debian: prometheus)");
    }
    promtool(&["check", "config", "prometheus.yml"]);
    let said = promtool(&["check", "rules", "alerts.yml"]);
    assert!(said.contains(&format!("{} rules found", alerts().len())), "{said}");
    promtool(&["test", "rules", "alerts_test.yml"]);
}

#[test]
fn what_is_shipped_names_the_ports_that_are_the_default() {
    let at = |address: SocketAddr| address.to_string();
    let metrics = at(config::Metrics::default().listen);
    let scraped: Vec<String> = read("prometheus.yml")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- 127.0.0.1:"))
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    assert_eq!(scraped, [metrics]);
    // What the program asks if it is told nothing else.
    let http = format!("http://{}", at(config::Http::default().listen));
    for asks in ["top", "status"] {
        let help = fragcast(&[asks, "--help"]).ok().stdout;
        assert!(help.contains(&http), "{help}");
    }
    let listens = format!("port {} ", config::P2p::default().listen.port());
    let help = fragcast(&["init", "--help"]).ok().stdout;
    assert!(help.split_whitespace().collect::<Vec<_>>().join(" ").contains(&listens), "{help}");
}

/// The names of all alerts.
fn alerts() -> Vec<String> {
    let rules = read("alerts.yml");
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

#[test]
fn every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() {
    let tests = read("alerts_test.yml");
    let alerts = alerts();
    assert!(alerts.len() >= 15, "{alerts:?}");
    for alert in alerts {
        let fires = tests.contains(&format!("alertname=\"{alert}\""));
        let own: Vec<&str> = tests.split("  - name: ").filter(|t| t.starts_with(&alert)).collect();
        let quiet = own.iter().any(|test| test.contains("exp_samples: []"));
        assert!(fires && quiet, "{alert}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_has_no_complaint_about_the_metrics_of_a_node() {
    if !has("promtool", &["--version"]) {
        return skip("promtool is not installed (Debian: prometheus)");
    }
    let _serving = running::serving().await;
    let dir = tempfile::tempdir().unwrap();
    let network = LocalNetwork::start(&LocalOptions::new(dir.path()), None).await.unwrap();
    network.connected(GUARD).await.unwrap();
    let metrics = network.nodes()[0].state().metrics();
    network.stop().await;
    complained_about(&metrics, dir.path());
}

/// Asserts that promtool finds nothing in a page of metrics, and that the catalogue took all of it.
fn complained_about(metrics: &str, dir: &Path) {
    let page = dir.join("metrics.txt");
    fs::write(&page, metrics).unwrap();
    let input = fs::File::open(&page).unwrap();
    let said = Command::new("promtool").args(["check", "metrics"]).stdin(input).output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.trim().is_empty(), "{text}");
    assert!(metrics.contains("\nfragcast_metrics_refused_total 0\n"), "{metrics}");
}

/// The expressions of the dashboard, with the title of their panel.
fn panels() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let mut panels = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let (title, expr) =
                (panel["title"].as_str().unwrap(), target["expr"].as_str().unwrap());
            panels.push((title.to_owned(), expr.to_owned()));
        }
    }
    panels
}

#[test]
fn the_dashboard_is_one_that_grafana_imports() {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let at = &panel["gridPos"];
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| at[key].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= 24, "{panel}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "two panels at {cell:?}: {panel}");
        }
        let is_row = panel["type"] == "row";
        assert!(is_row || !panel["description"].as_str().unwrap().is_empty(), "{panel}");
        assert_eq!(is_row, panel["targets"].as_array().is_none_or(Vec::is_empty), "{panel}");
    }
    let of_ours = |word: &str| catalogue::all().any(|metric| word.contains(metric.name));
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        // "All" is then all values that there are, and not whatever Prometheus scrapes beside nodes.
        assert!(variable["allValue"].is_null(), "{variable}");
    }
    for (title, expr) in panels() {
        assert!(of_ours(&expr) || expr.contains("up{"), "{title}: {expr}");
        assert!(expr.contains("$job") && expr.contains("$instance"), "{title}: {expr}");
    }
}

/// The devnet under watch.
struct Watched {
    devnet: running::Devnet,
    key: String,
}

impl Watched {
    async fn start() -> Self {
        // Receipts, and so the latencies of hops and regions, are of trees with at most two relays in a row.
        let more = ["--frags", "5", "--loss", "0", "--route", "rotor"];
        let devnet = running::Devnet::of(6, &more);
        let page = prometheus::get(devnet.page()).await;
        let key = page.split("data-key=\"").nth(1).and_then(|rest| rest.split('"').next());
        let key = key.unwrap_or_else(|| panic!("no key in {page}")).to_owned();
        Self { devnet, key }
    }

    /// Presses a button.
    async fn press(&self, action: &Value) {
        let mut asked = action.clone();
        asked["key"] = json!(self.key);
        let answer = guarded(request(self.devnet.page(), "devnet_control", json!([asked]))).await;
        assert!(answer["result"].is_string(), "{action}: {answer}");
    }
}

impl Watched {
    /// The newest verified block of a node.
    async fn height(&self) -> Value {
        let answer = request(self.devnet.http(0), "eth_blockNumber", json!([]));
        guarded(answer).await["result"].clone()
    }

    /// Lets the gateway, which pauses, pause after a frag and not between two blocks.
    async fn within_a_block(&self, server: &Prometheus) {
        for attempt in 0..50 {
            // Time for the bound of the age, and for a scrape.
            tokio::time::sleep(Duration::from_secs(4)).await;
            if server.value("max(fragcast_pending_age_seconds)").await.is_some_and(|s| s > 1.0) {
                return;
            }
            let before = self.height().await;
            self.press(&json!({ "action": "resume" })).await;
            // It has resumed when there is another block.
            for _ in 0..100 {
                if self.height().await != before {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            // Each time at another moment of a block, or a fast machine hits the same one for ever.
            tokio::time::sleep(Duration::from_millis(attempt * 370 % 1_000)).await;
            self.press(&json!({ "action": "pause" })).await;
        }
        panic!("fragcast_pending_age_seconds stays 0");
    }
}

/// A disk with room.
const PLENTY: u64 = 1 << 40;

/// What is broken, which alerts then fire, and what mends it.
type Fault = (&'static [&'static str], Vec<Value>, Vec<Value>);

fn faults() -> Vec<Fault> {
    let on =
        |action: &str, node: u64, on: bool| json!({ "action": action, "node": node, "on": on });
    let disk = |bytes: u64| json!({ "action": "disk-low", "node": 3, "on": true, "bytes": bytes });
    let fork =
        |seconds: u64| json!({ "action": "fork", "node": 1, "on": true, "seconds": seconds });
    let list =
        |age: u64| json!({ "action": "registry-away", "node": 0, "on": true, "seconds": age });
    let left = |blocks: u64| json!({ "action": "delegation-ending", "node": 0, "on": true, "blocks": blocks });
    vec![
        (
            &["FragcastStoreFailing", "FragcastNotReady", "FragcastDiskLow", "FragcastForkLacking"],
            vec![on("store-full", 2, true), disk(1_000_000), fork(30 * 86_400)],
            vec![on("store-full", 2, false), disk(PLENTY), on("fork", 1, false)],
        ),
        (
            &["FragcastForkNear", "FragcastEquivocation", "FragcastRejected"],
            vec![fork(3_600), json!({ "action": "equivocate" }), json!({ "action": "bad-seal" })],
            vec![on("fork", 1, false)],
        ),
        (
            &["FragcastFewPeers", "FragcastBehind"],
            vec![on("isolate", 4, true)],
            vec![on("isolate", 4, false)],
        ),
        (
            // Node 0 goes on to believe that there is a registry and a signer, and that all is well with them.
            &[
                "FragcastRegistryOld",
                "FragcastRegistryDiffers",
                "FragcastRegistrySourceFailing",
                "FragcastDelegationEnding",
                "FragcastBlocksLost",
                "FragcastGuestAlone",
            ],
            vec![list(3_600), left(3), on("blocks-lost", 2, true), on("guest-alone", 3, true)],
            vec![list(1), left(10_000), on("blocks-lost", 2, false), on("guest-alone", 3, false)],
        ),
        (&["FragcastQueueDrops"], vec![on("choke", 1, true)], vec![on("choke", 1, false)]),
        (
            &["FragcastRepairs"],
            // The leader.
            vec![on("lossy", 0, true)],
            vec![on("lossy", 0, false)],
        ),
        (
            &["FragcastFallback"],
            vec![json!({ "action": "block-udp" })],
            vec![json!({ "action": "heal-udp" })],
        ),
        (
            &["FragcastDown"],
            vec![json!({ "action": "stop", "node": 5 })],
            vec![json!({ "action": "start", "node": 5 })],
        ),
        (
            &["FragcastPendingOld", "FragcastSilentUpstream"],
            vec![json!({ "action": "pause" })],
            vec![json!({ "action": "resume" })],
        ),
    ]
}

#[test]
fn there_is_a_fault_for_every_alert() {
    let with: BTreeSet<String> =
        faults().iter().flat_map(|(alerts, ..)| *alerts).map(|a| (*a).to_owned()).collect();
    assert_eq!(with, alerts().into_iter().collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_has_data_and_every_alert_fires_and_clears_on_a_devnet() {
    if !has("prometheus", &["--version"]) {
        return skip("Prometheus is not installed (Debian: prometheus)");
    }
    let watched = Watched::start().await;
    let targets = watched.devnet.metrics();
    let dir = tempfile::tempdir().unwrap();
    complained_about(&prometheus::get(&format!("http://{}/metrics", targets[0])).await, dir.path());
    let server = Prometheus::start(dir.path(), &targets, &shortened(&read("alerts.yml"))).await;
    let since = Instant::now();
    // Prometheus scrapes itself, and a target that is no node and never there.
    server.until("count(up == 1)", |n| n == Some(targets.len() as f64 + 1.0)).await;
    server.until("up{job=\"others\"}", |n| n == Some(0.0)).await;
    let all = server.all().await;
    let away = panels().into_iter().find(|(title, _)| title == "Nodes away").unwrap().1;
    assert_eq!(server.value(&filled(&away, &all)).await, Some(0.0), "{away}");
    // A disk of a machine that runs tests may be nearly full; nothing else fires.
    for node in 0..targets.len() {
        watched
            .press(&json!({ "action": "disk-low", "node": node, "on": true, "bytes": PLENTY }))
            .await;
    }
    let watch = std::env::var("FRAGCAST_MONITOR_S").ok().and_then(|s| s.parse().ok());
    tokio::time::sleep(Duration::from_secs(watch.unwrap_or(5))).await;
    server.until("count(ALERTS{alertstate=\"firing\"})", |n| n.is_none()).await;
    for (alerts, breaks, mends) in faults() {
        for action in &breaks {
            watched.press(action).await;
        }
        if alerts.contains(&"FragcastPendingOld") {
            watched.within_a_block(&server).await;
        }
        for alert in alerts {
            server.until(&firing(alert), |n| n.is_some()).await;
            println!("{:>5.0} s: {alert} fires", since.elapsed().as_secs_f64());
        }
        for action in &mends {
            watched.press(action).await;
        }
        for alert in alerts {
            server.until(&firing(alert), |n| n.is_none()).await;
            println!("{:>5.0} s: {alert} clears", since.elapsed().as_secs_f64());
        }
    }
    let panels = panels();
    for (title, expr) in &panels {
        let expr = filled(expr, &all);
        // Not a number is no data.
        let told = format!("count(({expr}) == ({expr}))");
        server.until(&told, |n| n.is_some()).await;
        println!("{title}: {expr}");
    }
    latencies(&watched.devnet, targets.len()).await;
    println!(
        "{} expressions of the dashboard have data, {} alerts fired and cleared, in {:.0} s",
        panels.len(),
        self::alerts().len(),
        since.elapsed().as_secs_f64()
    );
}

/// What `fragcast_latency` of all nodes says after all that.
async fn latencies(devnet: &running::Devnet, nodes: usize) {
    let ask = async |node: usize| {
        guarded(request(devnet.http(node), "fragcast_latency", json!([]))).await["result"].clone()
    };
    let (leader, other) = (ask(0).await, ask(1).await);
    let is_told = |of: &Value| {
        let times = ["p50Ms", "p90Ms", "p99Ms"].map(|key| of[key].as_f64().unwrap_or(-1.0));
        of["count"].as_u64().is_some_and(|n| n > 0) && times[0] >= 0.0 && times.is_sorted()
    };
    for of in ["hops", "regions"] {
        let told = leader[of].as_array().unwrap();
        assert!(!told.is_empty() && told.iter().all(is_told), "{leader:#}");
    }
    let messages = other["messages"].as_array().unwrap();
    assert!(messages.iter().all(is_told), "{other:#}");
    // What came by gossip alone has no time of sending, so not every way has latencies.
    assert!(messages.iter().any(|of| of["via"] == "overlay"), "{other:#}");
    // Under loss anybody's messages are repaired, not necessarily one node's.
    let mut first = Vec::new();
    for node in 0..nodes {
        first.push(ask(node).await["first"].take());
    }
    for via in ["overlay", "repair", "gossip"] {
        let is_told = |of: &Value| of[via].as_u64().is_some_and(|n| n > 0);
        assert!(first.iter().any(is_told), "{via}: {first:#?}");
    }
    assert!(["overlay", "gossip"].iter().any(|way| is_told(&other["lead"][*way])), "{other:#}");
    assert!(other["peers"]["count"].as_u64().is_some_and(|n| n > 0), "{other:#}");
}

fn firing(alert: &str) -> String {
    format!("count(ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}})")
}

/// An expression of the dashboard as Grafana fills it in for all jobs and instances that there are.
fn filled(expr: &str, (jobs, instances): &(String, String)) -> String {
    let expr = expr.replace("$job", jobs).replace("$instance", instances);
    expr.replace("$__rate_interval", "10m")
}

/// The rules with shorter times.
fn shortened(rules: &str) -> String {
    let mut text = String::new();
    for line in rules.lines() {
        match line.find("for: ") {
            Some(at) if line.trim_start().starts_with("for: ") => {
                text.push_str(&line[..at]);
                text.push_str("for: 1s");
            }
            _ => text.push_str(&line.replace("[5m]", "[10s]").replace("[10m]", "[20s]")),
        }
        text.push('\n');
    }
    text
}
