//! The gateway's door and the subscription, over real HTTP and WebSocket, on a network of two.

use alloy_primitives::{U256, hex};
use fragcast::gateway::reach::Unreached;
use fragcast::gateway::{ingest, keys};
use fragcast::lab::local::{LocalNetwork, LocalOptions};
use fragcast_shredder::{BlockBuilder, Env, Frag, GatewayKey, Message, Signature, SignedMessage};
use jsonrpsee::core::client::ClientT;
use jsonrpsee::rpc_params;
use serde_json::{Value, json};
use tokio::sync::RwLockReadGuard;

use crate::common::{self, GUARD};
use crate::running::{next, serving, subscribe};

struct Net {
    network: LocalNetwork,
    gateway: GatewayKey,
    _dir: tempfile::TempDir,
    _serving: RwLockReadGuard<'static, ()>,
}

impl Net {
    async fn new() -> Self {
        let serving = serving().await;
        let dir = tempfile::tempdir().unwrap();
        let network = LocalNetwork::start(&LocalOptions::new(dir.path()), None).await.unwrap();
        network.connected(GUARD).await.unwrap();
        let gateway = keys::read_gateway(&dir.path().join("gateway-0.key")).unwrap();
        Self { network, gateway, _dir: dir, _serving: serving }
    }

    fn url(&self, node: usize) -> String {
        format!("http://{}", self.network.nodes()[node].addresses().ingest)
    }

    async fn call(&self, node: usize, method: &str, param: Value) -> Value {
        common::request(&self.url(node), method, json!([param])).await
    }

    async fn send(&self, message: impl Into<Message>) -> Value {
        common::post_signed(&self.url(0), &self.gateway, message).await
    }

    /// The same message with a signature in another form.
    async fn send_as(&self, message: Frag, form: impl Fn(&mut [u8; 65])) -> Value {
        let signed = self.gateway.sign_verified(message);
        let (method, mut param) = ingest::request(&signed);
        let mut bytes = *signed.signature().as_bytes();
        form(&mut bytes);
        param["signature"] = json!(hex::encode_prefixed(bytes));
        self.call(0, method, param).await
    }
}

/// The Env of block 1, built at `timestamp`.
fn env(timestamp: u64) -> Env {
    Env { timestamp, extra_data: vec![1, 2, 3].into(), ..BlockBuilder::new(1).env() }
}

/// A frag of block 1 whose transaction is 30 times `tx`.
fn frag(seq: u64, tx: u8) -> Frag {
    BlockBuilder::new(1).frag_at(seq, [vec![tx; 30]])
}

fn code(answer: &Value) -> i64 {
    answer["error"]["code"].as_i64().unwrap_or(0)
}

fn says(answer: &Value, part: &str) {
    assert!(answer["error"].to_string().contains(part), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_to_a_gateway_is_clear() {
    let net = Net::new().await;
    let block = BlockBuilder::new(1);
    // Out of order.
    let early = net.send(frag(0, 1)).await;
    assert_eq!(code(&early), -32002);
    says(&early, "send its Env first");
    // In order, and again.
    for _ in 0..2 {
        assert_eq!(net.send(env(1)).await["result"], "OK");
        assert_eq!(net.send(frag(0, 1)).await["result"], "OK");
    }
    says(&net.send(frag(2, 1)).await, "expects frag 1, not 2");
    says(&net.send(frag(0, 9)).await, "other content");
    says(&net.send(block.seal_of(7)).await, "counts 7 frags, 1 were sent");

    // Its own signatures in any form; 27/28 and high s are made canonical.
    let v27 = |bytes: &mut [u8; 65]| bytes[64] += 27;
    assert_eq!(net.send_as(frag(1, 2), v27).await["result"], "OK");
    let high = |bytes: &mut [u8; 65]| {
        let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
        let order = U256::from_str_radix(order, 16).unwrap();
        let s = U256::from_be_slice(&bytes[32..64]);
        bytes[32..64].copy_from_slice(&(order - s).to_be_bytes::<32>());
        bytes[64] ^= 1;
    };
    assert_eq!(net.send_as(frag(2, 3), high).await["result"], "OK");

    // Somebody else's.
    let stranger = GatewayKey::from_bytes([9; 32]).unwrap();
    let refused = common::post_signed(&net.url(0), &stranger, frag(3, 4)).await;
    assert_eq!(code(&refused), -32001);
    says(&refused, "not by the scheduled gateway");
    // A node that does not lead.
    let env_of_2 = net.gateway.sign_verified(BlockBuilder::new(2).env());
    let (method, mut param) = ingest::request(&env_of_2);
    let refused = net.call(1, method, param.clone()).await;
    assert_eq!(code(&refused), -32003);
    says(&refused, "does not lead block 2");

    // Another dialect.
    let refused = net.send(Frag { blob_gas_used: Some(0), ..frag(3, 4) }).await;
    assert_eq!(code(&refused), -32602);
    says(&refused, "v0-blob");
    // Malformed.
    for (named, malformed, part) in [
        ("based_newFrag", json!({}), "signature"),
        ("based_newFrag", json!({ "signature": "0x12", "message": {} }), "blockNumber"),
        ("based_env", json!("text"), "invalid"),
    ] {
        let refused = net.call(0, named, malformed).await;
        assert_eq!(code(&refused), -32602, "{refused}");
        says(&refused, part);
    }
    param["signature"] = json!("0x1234");
    says(&net.call(0, method, param).await, "65 bytes");
    // A batch, an unknown method, an oversized body, a body that is no JSON.
    let one = json!({ "jsonrpc": "2.0", "id": 1, "method": "based_env", "params": [] });
    let (_, batch) = common::post(&net.url(0), &json!([one, one])).await.unwrap();
    assert_ne!(code(&batch), 0, "{batch}");
    assert_eq!(code(&net.call(0, "eth_blockNumber", json!(1)).await), -32601);
    let big = "0".repeat(25 * 1024 * 1024);
    // The server answers without reading on, and may have hung up before all of it is written.
    if let Some((status, answer)) = common::post(&net.url(0), &json!({ "big": big })).await {
        assert!(status == 413 || code(&answer) != 0, "{status} {answer}");
    }

    // After all that the block goes on.
    assert_eq!(net.send(block.seal_of(3)).await["result"], "OK");
    net.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_get_messages_times_and_retractions() {
    let net = Net::new().await;
    let follower = net.network.nodes()[1].addresses();
    let (client, mut subscription) = subscribe(&format!("ws://{}", follower.http)).await;
    assert_eq!(net.send(env(1)).await["result"], "OK");
    assert_eq!(net.send(frag(0, 1)).await["result"], "OK");
    // Each attempt is awaited, so that a datagram lost to a full socket does not matter here.
    let mut got = vec![next(&mut subscription).await, next(&mut subscription).await];
    // Rebuilt: another Env for the open block.
    assert_eq!(net.send(env(2)).await["result"], "OK");
    assert_eq!(net.send(frag(0, 7)).await["result"], "OK");
    assert_eq!(net.send(BlockBuilder::new(1).seal_of(1)).await["result"], "OK");
    for _ in 0..4 {
        got.push(next(&mut subscription).await);
    }
    let line = |v: &Value| {
        format!("{} {} {} {}", v["type"], v["kind"], v["attempt"], v["index"]).replace('"', "")
    };
    assert_eq!(
        got.iter().map(line).collect::<Vec<_>>(),
        [
            "message env 0 0",
            "message frag 0 1",
            "retracted null 0 null",
            "message env 1 0",
            "message frag 1 1",
            "message seal 1 2",
        ]
    );
    assert_eq!(got[2]["reason"], "superseded");
    // A subscriber can check everything by itself.
    let signature = hex::decode_to_array(got[4]["signature"].as_str().unwrap()).unwrap();
    let signed = SignedMessage::new(frag(0, 7).into(), Signature::from_bytes(signature));
    assert_eq!(format!("\"{}\"", signed.root()), got[4]["root"].to_string());
    signed.verify(net.gateway.address()).unwrap();
    let times = &got[4]["times"];
    assert!(times["sentAt"].as_u64().unwrap() > 1_600_000_000_000_000);
    assert!(times["completeAt"].as_u64() >= times["firstShredAt"].as_u64());

    let status: Value = client.request("fragcast_status", rpc_params![]).await.unwrap();
    assert_eq!((&status["opened"], &status["sealed"]), (&json!(1), &json!(1)));
    net.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_reaches_nobody_says_so_and_uses_up_no_attempt() {
    let mut net = Net::new().await;
    assert_eq!(net.send(env(1)).await["result"], "OK");
    assert_eq!(net.send(frag(0, 1)).await["result"], "OK");
    net.network.fail_turbine(true);
    let state = net.network.nodes()[0].state().clone();
    let alone = state.net.wait_for(|net| net.connected == 0);
    common::guarded(alone).await.unwrap();
    assert!(state.not_ready().unwrap().contains("not connected"), "{:?}", state.not_ready());
    for _ in 0..3 {
        let refused = net.send(frag(1, 2)).await;
        assert_eq!(code(&refused), -32005, "{refused}");
        says(&refused, "nobody is connected");
        let refused = net.send(BlockBuilder::new(2).env()).await;
        assert_eq!(code(&refused), -32005, "{refused}");
    }
    // What is known already is no news, and what is out of order stays so.
    assert_eq!(net.send(frag(0, 1)).await["result"], "OK");
    assert_eq!(code(&net.send(frag(5, 1)).await), -32002);
    let counted = state.ingest.iter().find(|(name, _)| *name == "unreached").unwrap();
    assert_eq!(counted.1, 6);
    // By another policy it is taken, and the answer says how many there were.
    state.reach.set_policy(Unreached::Tell);
    let told = net.send(frag(1, 2)).await;
    let expected = json!({ "status": "OK", "peers": 0, "overlay": 0, "gossip": 0 });
    assert_eq!(told["result"], expected, "{told}");
    assert_eq!(net.send(frag(1, 2)).await["result"], json!({ "status": "OK", "again": true }));
    state.reach.set_policy(Unreached::Refuse);
    // The path is back: everything goes on, at the first attempt.
    net.network.fail_turbine(false);
    net.network.connected(GUARD).await.unwrap();
    assert_eq!(net.send(BlockBuilder::new(1).seal_of(2)).await["result"], "OK");
    assert_eq!(net.send(BlockBuilder::new(2).env()).await["result"], "OK");
    state.reach.set_policy(Unreached::Tell);
    let told = net.send(BlockBuilder::new(2).frag_at(0, [vec![1; 30]])).await;
    assert_eq!(told["result"]["peers"], 1, "{told}");
    let follower = net.network.nodes()[1].state();
    let opened = async {
        while follower.with_progress(|p| p.opened) != Some(2) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    common::guarded(opened).await;
    net.network.stop().await;
}
