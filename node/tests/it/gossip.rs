//! Gossip as a user sees it: a network that lives on it alone, one whose UDP is blocked and
//! comes back, and a js-libp2p peer that is none of ours.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use alloy_primitives::hex;
use fragcast::gateway::keys;
use fragcast_shredder::{BlockBuilder, VerifiedMessage};
use jsonrpsee::core::client::ClientT;
use jsonrpsee::rpc_params;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::common::{Ended, Running, fragcast, guarded};
use crate::running::{Devnet, next, packages, scripts};

const FRAGMENTS: &str = "/optimism/901901/0/fragments";

/// Runs a devnet of five nodes to its end.
fn devnet(args: &[&str]) -> (Value, Ended) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.json");
    let common = ["devnet", "--nodes", "5", "--frags", "10", "--txs", "20", "--loss", "0"];
    let report = ["--report", path.to_str().unwrap()];
    let ended = fragcast(&[&common[..], &report, args].concat());
    let text = std::fs::read_to_string(&path);
    let text = text.unwrap_or_else(|_| panic!("no report: {}", ended.stderr));
    (serde_json::from_str(&text).unwrap(), ended)
}

#[test]
fn a_network_lives_on_gossip_alone() {
    let (report, ended) = devnet(&["--blocks", "3", "--mode", "gossip", "--fast"]);
    assert_eq!(ended.code, Some(0), "{report:#}\n{}", ended.stdout);
    assert_eq!(report["sealed"], json!([3, 3, 3, 3, 3]));
    assert_eq!(report["verified"], report["sealed"]);
    assert_eq!(report["messages"], json!({ "turbine": 0, "gossip": 3 * 12 * 4, "repair": 0 }));
}

#[test]
fn blocked_udp_costs_no_block_and_the_overlay_is_taken_up_again() {
    let blocks = ["--blocks", "7", "--fail-turbine-at", "2", "--heal-at", "4"];
    let (report, ended) = devnet(&[&blocks[..], &["--mode", "auto"]].concat());
    assert_eq!(ended.code, Some(0), "{report:#}\n{}", ended.stdout);
    assert_eq!(report["sealed"], json!([7, 7, 7, 7, 7]));
    assert_eq!(report["digests_equal"], true);
    let fallback = &report["fallback"];
    for node in 1..5 {
        assert!(fallback["falls"][node].as_u64().unwrap() >= 1, "{fallback:#}");
    }
    assert!(report["messages"]["gossip"].as_u64().unwrap() >= 12 * 4, "{report:#}");
    // What repair fetched came over the overlay's UDP, too.
    let by = |way: &str| report["messages"][way].as_u64().unwrap();
    assert!(by("turbine") >= 1 && by("turbine") + by("repair") >= 2 * 12 * 4, "{report:#}");
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
        let ended = fragcast(args);
        assert_ne!(ended.code, Some(0), "{}", ended.stdout);
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

/// A js-libp2p peer.
struct Peer {
    input: ChildStdin,
    output: UnboundedReceiver<Value>,
    _process: Running,
}

impl Peer {
    fn start(dir: &Path, address: &str) -> Self {
        let process = Command::new("node")
            .current_dir(dir)
            .args(["peer.mjs", address, "901901"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = Running(process.unwrap());
        let (lines, output) = unbounded_channel();
        let stdout = BufReader::new(process.0.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if lines.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        let input = process.0.stdin.take().unwrap();
        Self { input, output, _process: process }
    }

    fn order(&mut self, order: &Value) {
        writeln!(self.input, "{order}").unwrap();
    }

    /// The first thing it says from now on for which `which` has an answer.
    async fn next<T>(&mut self, which: impl Fn(&Value) -> Option<T>) -> T {
        guarded(async {
            loop {
                let said = self.output.recv().await.expect("the peer has ended");
                if let Some(found) = which(&said) {
                    return found;
                }
            }
        })
        .await
    }
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
    let Some(packages) = packages("gossip") else { return };
    let devnet = Devnet::start(&[]);
    // It knows one node that does not lead. Nobody is in a mesh: that node publishes for it.
    let mut peer = Peer::start(&packages, devnet.gossip(1));
    let (_client, mut told) = devnet.subscribe(2).await;
    let mut expected = BTreeMap::new();
    let mut matched = 0;
    guarded(async {
        while matched < 25 {
            let told = next(&mut told).await;
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
    })
    .await;
}

/// An Env and a frag of a block that the devnet has not come to, signed by its gateway.
fn ahead(dir: &Path, number: u64) -> [VerifiedMessage; 2] {
    let key = keys::read_gateway(&dir.join("gateway-0.key")).unwrap();
    let mut block = BlockBuilder::new(number);
    let frag = block.frag([vec![1, 2, 3], vec![0; 5_000]]);
    [key.sign_verified(block.env()), key.sign_verified(frag)]
}

#[tokio::test]
async fn what_a_js_libp2p_peer_publishes_reaches_all_our_nodes() {
    let Some(packages) = packages("gossip") else { return };
    let devnet = Devnet::start(&["--policy", "always"]);
    let mut peer = Peer::start(&packages, devnet.gossip(2));
    let mut subscriptions = Vec::new();
    for node in 0..3 {
        subscriptions.push(devnet.subscribe(node).await);
    }
    // It hears them, so it is in the mesh; and from that it knows where the chain stands.
    let heard = peer.next(|said| {
        let data = hex::decode(said.get("data")?.as_str()?).unwrap();
        let block = u64::from_le_bytes(data[65..73].try_into().unwrap());
        (said["topic"] == FRAGMENTS).then_some(block)
    });
    let block = heard.await;
    let messages = ahead(devnet.dir(), block + 4);
    let topics = ["/optimism/901901/0/envs", FRAGMENTS];
    for (topic, message) in topics.into_iter().zip(&messages) {
        peer.order(&json!({ "topic": topic, "data": hex::encode(message.to_wire()) }));
    }
    for (node, (_client, told)) in subscriptions.iter_mut().enumerate() {
        for message in &messages {
            let root = json!(message.root());
            let arrived = async {
                loop {
                    let told = next(told).await;
                    if told["root"] == root {
                        return told["via"].clone();
                    }
                }
            };
            assert_eq!(guarded(arrived).await, "gossip", "node {node}");
        }
    }
}

#[tokio::test]
async fn a_js_libp2p_peer_that_floods_is_barred_and_frags_go_on() {
    let Some(packages) = packages("gossip") else { return };
    let devnet = Devnet::start(&["--policy", "always"]);
    let mut peer = Peer::start(&packages, devnet.gossip(2));
    let (client, mut told) = devnet.subscribe(2).await;
    peer.next(|said| said.get("ready").map(drop)).await;
    peer.order(&json!({ "flood": FRAGMENTS, "count": 200_000, "size": 400 }));
    peer.next(|said| said.get("closed").map(drop)).await;
    // The numbers are published five times a second.
    let barred = async {
        loop {
            let status: Value = client.request("fragcast_status", rpc_params![]).await.unwrap();
            if status["gossip"]["barred"].as_u64() >= Some(1) {
                // The flood may have come before the first block.
                return status["opened"].as_u64().unwrap_or(0);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let opened = guarded(barred).await;
    // A block that is opened only now arrives up to its Seal.
    guarded(async {
        loop {
            let told = next(&mut told).await;
            if told["kind"] == "seal" && told["block"].as_u64() > Some(opened) {
                return;
            }
        }
    })
    .await;
}

#[test]
fn the_scripts_for_js_libp2p_are_complete() {
    let dir = scripts("gossip");
    let package: Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("package.json")).unwrap()).unwrap();
    let script = std::fs::read_to_string(dir.join("peer.mjs")).unwrap();
    for name in package["dependencies"].as_object().unwrap().keys() {
        assert!(script.contains(&format!("from '{name}'")), "{name} is not used");
    }
}
