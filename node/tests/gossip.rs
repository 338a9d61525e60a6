//! Gossip as a user sees it: a network that lives on it alone, one whose UDP is blocked and
//! comes back, and a js-libp2p peer that is none of ours.
//!
//! Time limits only guard against hanging.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use alloy_primitives::{B256, hex};
use fragcast::gateway::keys;
use fragcast_shredder::{BlockBuilder, Env, VerifiedMessage};
use jsonrpsee::core::client::{ClientT, Subscription, SubscriptionClientT};
use jsonrpsee::rpc_params;
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};
use serde_json::{Value, json};

const GUARD: Duration = Duration::from_secs(60);
const FRAGMENTS: &str = "/optimism/901901/0/fragments";

fn skipped(what: &str) {
    let _ = writeln!(std::io::stdout(), "skipped: {what}");
}

fn devnet(args: &[&str]) -> (Value, Output) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.json");
    let output = Command::new(env!("CARGO_BIN_EXE_fragcast"))
        .args(["devnet", "--frags", "10", "--txs", "20", "--loss", "0"])
        .args(args)
        .args(["--report", path.to_str().unwrap()])
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&path).unwrap_or_else(|_| {
        panic!("no report: {}", String::from_utf8_lossy(&output.stderr));
    });
    (serde_json::from_str(&text).unwrap(), output)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_network_lives_on_gossip_alone() {
    let (report, output) = devnet(&["--nodes", "5", "--blocks", "3", "--mode", "gossip", "--fast"]);
    assert!(output.status.success(), "{report:#}\n{}", text(&output));
    assert_eq!(report["sealed"], json!([3, 3, 3, 3, 3]));
    assert_eq!(report["verified"], report["sealed"]);
    assert_eq!(report["messages"], json!({ "turbine": 0, "gossip": 3 * 12 * 4, "repair": 0 }));
}

#[test]
fn blocked_udp_costs_no_block_and_the_overlay_is_taken_up_again() {
    let (report, output) = devnet(&[
        "--nodes",
        "5",
        "--blocks",
        "7",
        "--mode",
        "auto",
        "--fail-turbine-at",
        "2",
        "--heal-at",
        "4",
    ]);
    assert!(output.status.success(), "{report:#}\n{}", text(&output));
    assert_eq!(report["sealed"], json!([7, 7, 7, 7, 7]));
    assert_eq!(report["digests_equal"], true);
    let fallback = &report["fallback"];
    for node in 1..5 {
        assert!(fallback["falls"][node].as_u64().unwrap() >= 1, "{fallback:#}");
    }
    assert!(report["messages"]["gossip"].as_u64().unwrap() >= 12 * 4, "{report:#}");
    assert!(report["messages"]["turbine"].as_u64().unwrap() >= 2 * 12 * 4, "{report:#}");
}

#[test]
fn impossible_failures_are_told() {
    for (args, part) in [
        (&["devnet", "--fail-turbine-at", "10"][..], "the last block is 9"),
        (&["devnet", "--fail-turbine-at", "2", "--heal-at", "2"], "--heal-at must be"),
        (&["devnet", "--fail-turbine-at", "2", "--mode", "turbine"], "--policy standby"),
        (&["devnet", "--heal-at", "2"], "--fail-turbine-at"),
        (&["devnet", "--mode", "gossip", "--policy", "off"], "gossip.policy"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_fragcast")).args(args).output().unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(part), "{error}");
    }
}

/// A devnet that runs until it is dropped.
struct Devnet {
    process: Child,
    addresses: Value,
    dir: tempfile::TempDir,
}

impl Devnet {
    fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_fragcast"))
            .args(["devnet", "--nodes", "3", "--blocks", "10000", "--txs", "5", "--addresses"])
            .args(["--dir", dir.path().to_str().unwrap()])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, addresses: serde_json::from_str(&line).unwrap(), dir }
    }

    fn gossip(&self, node: usize) -> &str {
        self.addresses["gossip"][node][0].as_str().unwrap()
    }

    async fn subscribe(&self, node: usize) -> (WsClient, Subscription<Value>) {
        let url = self.addresses["http"][node].as_str().unwrap().replace("http", "ws");
        let client = WsClientBuilder::new().build(url).await.unwrap();
        let subscription = client
            .subscribe("fragcast_subscribe", rpc_params![], "fragcast_unsubscribe")
            .await
            .unwrap();
        (client, subscription)
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A js-libp2p peer.
struct Peer {
    process: Child,
    input: ChildStdin,
    output: Receiver<Value>,
}

impl Peer {
    fn start(dir: &Path, address: &str) -> Self {
        let mut process = Command::new("node")
            .current_dir(dir)
            .args(["peer.mjs", address, "901901"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, output) = channel();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if lines.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        let input = process.stdin.take().unwrap();
        Self { process, input, output }
    }

    fn order(&mut self, order: &Value) {
        writeln!(self.input, "{order}").unwrap();
    }

    /// The next thing it says that `which` takes.
    fn next<T>(&self, which: impl Fn(&Value) -> Option<T>) -> T {
        loop {
            let said = self.output.recv_timeout(GUARD).expect("the peer went silent");
            if let Some(found) = which(&said) {
                return found;
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A folder with the script and its packages, `None` if they cannot be had.
fn packages() -> Option<tempfile::TempDir> {
    let works = |program: &str| {
        let status = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !works("node") || !works("npm") {
        skipped("js-libp2p needs Node.js and npm");
        return None;
    }
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gossip");
    let dir = tempfile::tempdir().unwrap();
    for name in ["package.json", "package-lock.json", "peer.mjs", "polyfill.mjs"] {
        std::fs::copy(scripts.join(name), dir.path().join(name)).unwrap();
    }
    let installed = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .current_dir(dir.path())
        .output();
    if !installed.is_ok_and(|output| output.status.success()) {
        skipped("npm cannot install js-libp2p here");
        return None;
    }
    Some(dir)
}

/// What a frag must look like on gossip, from what a subscriber was told of it, written down
/// once more from INTEROP's text: signature ‖ block u64 ‖ seq u64 ‖ last u8 ‖ 21 as u32 ‖
/// offsets of the transactions ‖ transactions; all little-endian.
fn payload(told: &Value) -> Vec<u8> {
    let bytes = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
    let message = &told["message"];
    let mut out = bytes(&told["signature"]);
    out.extend(message["blockNumber"].as_u64().unwrap().to_le_bytes());
    out.extend(message["seq"].as_u64().unwrap().to_le_bytes());
    out.push(message["isLast"].as_bool().unwrap().into());
    out.extend(21u32.to_le_bytes());
    let txs: Vec<Vec<u8>> = message["txs"].as_array().unwrap().iter().map(bytes).collect();
    let mut offset = 4 * txs.len() as u32;
    for tx in &txs {
        out.extend(offset.to_le_bytes());
        offset += tx.len() as u32;
    }
    txs.iter().for_each(|tx| out.extend(tx));
    out
}

#[tokio::test]
async fn a_js_libp2p_peer_hears_us_byte_for_byte_in_standby() {
    let Some(packages) = packages() else { return };
    let devnet = Devnet::start(&[]);
    // It knows one node that does not lead. Nobody is in a mesh: that node publishes for it.
    let peer = Peer::start(packages.path(), devnet.gossip(1));
    let (_client, mut told) = devnet.subscribe(2).await;
    let mut expected = std::collections::BTreeMap::new();
    let mut matched = 0;
    while matched < 25 {
        let told = tokio::time::timeout(GUARD, told.next()).await.unwrap().unwrap().unwrap();
        if told["kind"] == "frag" {
            let place = (told["block"].as_u64().unwrap(), told["index"].as_u64().unwrap());
            expected.insert(place, payload(&told));
        }
        while let Ok(heard) = peer.output.try_recv() {
            if heard["topic"] != FRAGMENTS {
                continue;
            }
            let data = hex::decode(heard["data"].as_str().unwrap()).unwrap();
            let number = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().unwrap());
            let place = (number(65), number(73) + 1);
            if let Some(expected) = expected.get(&place) {
                assert_eq!(hex::encode(&data), hex::encode(expected), "{place:?}");
                matched += 1;
            }
        }
    }
}

/// An Env and a frag of a block that the devnet has not come to, signed by its gateway.
fn ahead(dir: &Path, number: u64) -> [VerifiedMessage; 2] {
    let key = keys::read_gateway(&dir.join("gateway-0.key")).unwrap();
    let builder = BlockBuilder::new(number);
    let env = Env { parent_hash: B256::repeat_byte(7), timestamp: 1, ..builder.env() };
    let frag = builder.frag_at(0, [vec![1, 2, 3], vec![0; 5_000]]);
    [key.sign_verified(env), key.sign_verified(frag)]
}

#[tokio::test]
async fn what_a_js_libp2p_peer_publishes_reaches_all_our_nodes() {
    let Some(packages) = packages() else { return };
    let devnet = Devnet::start(&["--policy", "always"]);
    let mut peer = Peer::start(packages.path(), devnet.gossip(2));
    let mut subscriptions = Vec::new();
    for node in 0..3 {
        subscriptions.push(devnet.subscribe(node).await);
    }
    // It hears them, so it is in the mesh; and from that it knows where the chain stands.
    let block = peer.next(|said| {
        let data = hex::decode(said.get("data")?.as_str()?).unwrap();
        let block = u64::from_le_bytes(data[65..73].try_into().unwrap());
        (said["topic"] == FRAGMENTS).then_some(block)
    });
    let messages = ahead(devnet.dir.path(), block + 4);
    let topics = ["/optimism/901901/0/envs", FRAGMENTS];
    for (topic, message) in topics.into_iter().zip(&messages) {
        peer.order(&json!({ "topic": topic, "data": hex::encode(message.to_wire()) }));
    }
    for (node, (_client, told)) in subscriptions.iter_mut().enumerate() {
        for message in &messages {
            let root = json!(message.root());
            loop {
                let told = tokio::time::timeout(GUARD, told.next()).await.unwrap();
                let told = told.unwrap().unwrap();
                if told["root"] == root {
                    assert_eq!(told["via"], "gossip", "node {node}");
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_js_libp2p_peer_that_floods_is_barred_and_frags_go_on() {
    let Some(packages) = packages() else { return };
    let devnet = Devnet::start(&["--policy", "always"]);
    let mut peer = Peer::start(packages.path(), devnet.gossip(2));
    let (client, mut told) = devnet.subscribe(2).await;
    peer.next(|said| said.get("ready").map(drop));
    peer.order(&json!({ "flood": FRAGMENTS, "count": 200_000, "size": 400 }));
    peer.next(|said| said.get("closed").map(drop));
    // The numbers are published five times a second.
    let counted = async {
        loop {
            let status: Value = client.request("fragcast_status", rpc_params![]).await.unwrap();
            if status["gossip"]["barred"].as_u64() >= Some(1) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(GUARD, counted).await.unwrap();
    for _ in 0..12 {
        tokio::time::timeout(GUARD, told.next()).await.unwrap().unwrap().unwrap();
    }
}

#[test]
fn the_scripts_for_js_libp2p_are_complete() {
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gossip"));
    let package: Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("package.json")).unwrap()).unwrap();
    let script = std::fs::read_to_string(dir.join("peer.mjs")).unwrap();
    for name in package["dependencies"].as_object().unwrap().keys() {
        assert!(script.contains(&format!("from '{name}'")), "{name} is not used");
    }
}
