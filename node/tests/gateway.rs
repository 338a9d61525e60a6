//! The gateway's interface and the subscription, over real HTTP and WebSocket, on a network of two.

use std::time::Duration;

use alloy_primitives::{U256, hex};
use fragcast::gateway::ingest;
use fragcast::lab::local::{LocalNetwork, LocalOptions};
use fragcast_shredder::{
    BlockBuilder, Dialect, Env, GatewayKey, Message, Signature, SignedMessage,
};
use fragcast_turbine::{Mode, Policy};
use fragcast_upstream::http::HttpClient;
use jsonrpsee::core::client::{ClientT, SubscriptionClientT};
use jsonrpsee::rpc_params;
use jsonrpsee::ws_client::WsClientBuilder;
use serde_json::{Value, json};

const GUARD: Duration = Duration::from_secs(60);

struct Net {
    network: LocalNetwork,
    gateway: GatewayKey,
    _dir: tempfile::TempDir,
}

impl Net {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = LocalOptions {
            nodes: 2,
            gateways: 1,
            blocks_per_term: 30,
            chain_id: 5,
            dialect: Dialect::V0,
            loss: 0.0,
            uplink_mbit: 200,
            route: "auto".into(),
            dir: dir.path().to_owned(),
            seed: 0,
            gateway_url: None,
            http_port: 0,
            preconf_as_latest: false,
            policy: Policy::Off,
            mode: Mode::Turbine,
            gossip_port: 0,
            flashblocks_port: None,
        };
        let network = LocalNetwork::start(&options, None).await.unwrap();
        network.connected(GUARD).await.unwrap();
        let gateway =
            fragcast::gateway::keys::read_gateway(&dir.path().join("gateway-0.key")).unwrap();
        Self { network, gateway, _dir: dir }
    }

    async fn post(&self, node: usize, body: &Value) -> (u16, Value) {
        let url = format!("http://{}", self.network.nodes()[node].addresses().ingest);
        let client = HttpClient { timeout: GUARD, ..HttpClient::default() };
        let body = serde_json::to_vec(body).unwrap();
        let (status, answer) = client.post_json(&url, None, body).await.unwrap();
        (status, serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    async fn call(&self, node: usize, method: &str, param: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": [param] });
        self.post(node, &body).await.1
    }

    async fn send(&self, message: Message) -> Value {
        let signed = self.gateway.sign_verified(message);
        let (method, param) = ingest::request(&signed);
        self.call(0, method, param).await
    }

    /// The same message with a signature in another form.
    async fn send_as(&self, message: Message, form: impl Fn(&mut [u8; 65])) -> Value {
        let signed = self.gateway.sign_verified(message);
        let (method, mut param) = ingest::request(&signed);
        let mut bytes = *signed.signature().as_bytes();
        form(&mut bytes);
        param["signature"] = json!(hex::encode_prefixed(bytes));
        self.call(0, method, param).await
    }
}

fn env(number: u64, timestamp: u64) -> Message {
    let extra_data = vec![1, 2, 3].into();
    Env { timestamp, extra_data, ..BlockBuilder::new(number).env() }.into()
}

fn frag(block_number: u64, seq: u64, tx: u8) -> Message {
    BlockBuilder::new(block_number).frag_at(seq, [vec![tx; 30]]).into()
}

fn seal(block_number: u64, total_frags: u64) -> Message {
    BlockBuilder::new(block_number).seal_of(total_frags).into()
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
    // Out of order.
    let early = net.send(frag(1, 0, 1)).await;
    assert_eq!(code(&early), -32002);
    says(&early, "send its Env first");
    // In order, and again.
    for _ in 0..2 {
        assert_eq!(net.send(env(1, 1)).await["result"], "OK");
        assert_eq!(net.send(frag(1, 0, 1)).await["result"], "OK");
    }
    says(&net.send(frag(1, 2, 1)).await, "expects frag 1, not 2");
    says(&net.send(frag(1, 0, 9)).await, "other content");
    says(&net.send(seal(1, 7)).await, "counts 7 frags, 1 were sent");

    // Its own signatures in any form; 27/28 and high s are made canonical.
    let v27 = |bytes: &mut [u8; 65]| bytes[64] += 27;
    assert_eq!(net.send_as(frag(1, 1, 2), v27).await["result"], "OK");
    let high = |bytes: &mut [u8; 65]| {
        let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
        let order = U256::from_str_radix(order, 16).unwrap();
        let s = U256::from_be_slice(&bytes[32..64]);
        bytes[32..64].copy_from_slice(&(order - s).to_be_bytes::<32>());
        bytes[64] ^= 1;
    };
    assert_eq!(net.send_as(frag(1, 2, 3), high).await["result"], "OK");

    // Somebody else's.
    let stranger = GatewayKey::from_bytes([9; 32]).unwrap();
    let foreign = stranger.sign(frag(1, 3, 4)).verify(stranger.address()).unwrap();
    let (method, param) = ingest::request(&foreign);
    let refused = net.call(0, method, param).await;
    assert_eq!(code(&refused), -32001);
    says(&refused, "not by the scheduled gateway");
    // A node that does not lead.
    let signed = net.gateway.sign(env(2, 2)).verify(net.gateway.address()).unwrap();
    let (method, param) = ingest::request(&signed);
    let refused = net.call(1, method, param).await;
    assert_eq!(code(&refused), -32003);
    says(&refused, "does not lead block 2");

    // Another dialect.
    let mut blob = frag(1, 3, 4);
    if let Message::Frag(f) = &mut blob {
        f.blob_gas_used = Some(0);
    }
    let refused = net.send(blob).await;
    assert_eq!(code(&refused), -32602);
    says(&refused, "v0-blob");
    // Malformed.
    for (method, param, part) in [
        ("based_newFrag", json!({}), "signature"),
        ("based_newFrag", json!({ "signature": "0x12", "message": {} }), "blockNumber"),
        ("based_env", json!("text"), "invalid"),
    ] {
        let refused = net.call(0, method, param).await;
        assert_eq!(code(&refused), -32602, "{refused}");
        says(&refused, part);
    }
    let (method, mut param) = ingest::request(&signed);
    param["signature"] = json!("0x1234");
    says(&net.call(0, method, param).await, "65 bytes");
    // A batch, an unknown method, an oversized body, a body that is no JSON.
    let one = json!({ "jsonrpc": "2.0", "id": 1, "method": "based_env", "params": [] });
    let (_, batch) = net.post(0, &json!([one, one])).await;
    assert_ne!(code(&batch), 0, "{batch}");
    assert_eq!(code(&net.call(0, "eth_blockNumber", json!(1)).await), -32601);
    let big = "0".repeat(25 * 1024 * 1024);
    let url = format!("http://{}", net.network.nodes()[0].addresses().ingest);
    let client = HttpClient { timeout: GUARD, ..HttpClient::default() };
    let body = serde_json::to_vec(&json!({ "big": big })).unwrap();
    // The server answers without reading on, and may have hung up before all of it is written.
    if let Ok((status, answer)) = client.post_json(&url, None, body).await {
        let answer: Value = serde_json::from_slice(&answer).unwrap_or(Value::Null);
        assert!(status == 413 || code(&answer) != 0, "{status} {answer}");
    }

    // After all that the block goes on.
    assert_eq!(net.send(seal(1, 3)).await["result"], "OK");
    net.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_get_messages_times_and_retractions() {
    let net = Net::new().await;
    let follower = net.network.nodes()[1].addresses();
    let client = WsClientBuilder::default().build(format!("ws://{}", follower.http)).await.unwrap();
    let mut subscription = client
        .subscribe::<Value, _>("fragcast_subscribe", rpc_params![], "fragcast_unsubscribe")
        .await
        .unwrap();
    for message in [env(1, 1), frag(1, 0, 1)] {
        assert_eq!(net.send(message).await["result"], "OK");
        // One by one, so that a datagram lost to a full socket does not matter here.
    }
    // Rebuilt: another Env for the open block.
    let rebuilt = [env(1, 2), frag(1, 0, 7), seal(1, 1)];
    let mut got = Vec::new();
    for _ in 0..2 {
        let item = tokio::time::timeout(GUARD, subscription.next()).await.unwrap();
        got.push(item.unwrap().unwrap());
    }
    for message in rebuilt {
        assert_eq!(net.send(message).await["result"], "OK");
    }
    for _ in 0..4 {
        let item = tokio::time::timeout(GUARD, subscription.next()).await.unwrap();
        got.push(item.unwrap().unwrap());
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
    let signed = SignedMessage::new(frag(1, 0, 7), Signature::from_bytes(signature));
    assert_eq!(format!("\"{}\"", signed.root()), got[4]["root"].to_string());
    signed.verify(net.gateway.address()).unwrap();
    let times = &got[4]["times"];
    assert!(times["sentAt"].as_u64().unwrap() > 1_600_000_000_000_000);
    assert!(times["completeAt"].as_u64() >= times["firstShredAt"].as_u64());

    let status: Value = client.request("fragcast_status", rpc_params![]).await.unwrap();
    assert_eq!((&status["opened"], &status["sealed"]), (&json!(1), &json!(1)));
    net.network.stop().await;
}
