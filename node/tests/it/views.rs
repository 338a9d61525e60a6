//! The two views of a running node, over HTTP and WebSocket, and what it says when `pending` is too
//! old.

use std::net::SocketAddr;

use fragcast::node::Node;
use fragcast_execution::devnet::{DevnetConfig, DevnetGateway};
use fragcast_shredder::{Dialect, GatewayKey, Message};
use jsonrpsee::core::client::ClientT as _;
use jsonrpsee::core::params::ArrayParams;
use jsonrpsee::ws_client::WsClientBuilder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::{guarded, post_signed, request};
use crate::failing::{prepared, start};
use crate::running::serving;

/// The messages of the first block: Env, two frags, Seal.
fn block() -> Vec<Message> {
    let mut gateway = DevnetGateway::new(&DevnetConfig::default(), Dialect::V0).unwrap();
    gateway.block(gateway.parent().timestamp + 2, 2, 4).unwrap()
}

async fn post(node: &Node, key: &GatewayKey, messages: &[Message]) {
    let url = format!("http://{}", node.addresses().ingest);
    for message in messages {
        post_signed(&url, key, message.clone()).await;
    }
}

/// The answer at a path, over HTTP and over WebSocket, which are the same.
async fn ask(node: &Node, path: &str, method: &str, params: Value) -> Value {
    let at = format!("{}{path}", node.addresses().http);
    let over_http = request(&format!("http://{at}"), method, params.clone()).await;
    let client = WsClientBuilder::default().build(format!("ws://{at}")).await.unwrap();
    let mut array = ArrayParams::new();
    for param in params.as_array().unwrap() {
        array.insert(param).unwrap();
    }
    let over_websocket: Value = client.request(method, array).await.unwrap();
    assert_eq!(over_http["result"], over_websocket, "{path} {method}");
    over_websocket
}

/// Waits until the answer at a path is what it is to be.
async fn until(
    node: &Node,
    path: &str,
    method: &str,
    params: Value,
    done: impl Fn(&Value) -> bool,
) {
    let url = format!("http://{}{path}", node.addresses().http);
    let waited = async {
        while !done(&request(&url, method, params.clone()).await["result"]) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    guarded(waited).await;
}

async fn get(address: SocketAddr, path: &str) -> String {
    let exchanged = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    guarded(exchanged).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_views_are_served_at_their_paths_and_agree_with_themselves() {
    let _serving = serving().await;
    let dir = tempfile::tempdir().unwrap();
    prepared(dir.path()).await;
    // However slow the machine is, nothing is too old.
    let (node, key) = start(dir.path(), |parts| parts.config.rpc.pending_max_age_ms = 0).await;
    let messages = block();
    post(&node, &key, &messages[..2]).await;
    let height = json!([]);
    let first = |height: &Value| height["fragIndex"] == "0x0" && height["blockNumber"] == "0x1";
    until(&node, "/", "fragcast_fragHeight", height, first).await;
    let pending = ask(&node, "/", "eth_getBlockByNumber", json!(["pending", true])).await;
    assert_eq!((&pending["number"], &pending["hash"]), (&json!("0x1"), &Value::Null));
    let tx = &pending["transactions"][0];
    let hash = json!([tx["hash"]]);
    // The default view knows the transaction, and no receipt.
    assert_eq!(ask(&node, "/", "eth_getTransactionReceipt", hash.clone()).await, Value::Null);
    let known = ask(&node, "/", "eth_getTransactionByHash", hash.clone()).await;
    assert_eq!((&known["hash"], &known["blockHash"]), (&tx["hash"], &Value::Null));
    let sender = json!([tx["from"], "latest"]);
    assert_eq!(ask(&node, "/", "eth_getTransactionCount", sender.clone()).await, "0x0");
    // The preconfirmed view has its receipt and the state after it.
    for path in ["/preconf", "/preconf/"] {
        let receipt = ask(&node, path, "eth_getTransactionReceipt", hash.clone()).await;
        assert_eq!((&receipt["blockNumber"], &receipt["status"]), (&json!("0x1"), &json!("0x1")));
        assert_ne!(ask(&node, path, "eth_getTransactionCount", sender.clone()).await, "0x0");
        assert_eq!(ask(&node, path, "eth_blockNumber", json!([])).await, "0x0");
        for either in ["/", path] {
            let by_hash = json!([receipt["blockHash"], false]);
            let block = ask(&node, either, "eth_getBlockByHash", by_hash).await;
            assert_eq!(block["number"], "0x1");
        }
        assert!(ask(&node, path, "fragcast_status", json!([])).await.is_object());
    }
    // The state after the first frag stays what it was when there is another.
    let frag = json!({ "blockNumber": "0x1", "fragIndex": "0x0" });
    let at = json!([tx["from"], frag]);
    let balance = ask(&node, "/", "eth_getBalance", at.clone()).await;
    post(&node, &key, &messages[2..]).await;
    until(&node, "/", "eth_getTransactionReceipt", hash.clone(), |receipt| !receipt.is_null())
        .await;
    assert_eq!(ask(&node, "/", "eth_blockNumber", json!([])).await, "0x1");
    assert_ne!(ask(&node, "/", "eth_getTransactionCount", sender).await, "0x0");
    assert_eq!(ask(&node, "/", "eth_getBalance", at).await, balance);
    let receipt = ask(&node, "/", "eth_getTransactionReceipt", hash.clone()).await;
    assert_eq!(ask(&node, "/preconf", "eth_getTransactionReceipt", hash).await, receipt);
    guarded(node.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_pending_block_is_too_old_says_so() {
    let _serving = serving().await;
    let dir = tempfile::tempdir().unwrap();
    prepared(dir.path()).await;
    let (node, key) = start(dir.path(), |parts| parts.config.rpc.pending_max_age_ms = 1).await;
    let metrics = node.addresses().metrics;
    assert!(!get(metrics, "/readyz").await.contains("pending"));
    assert!(get(metrics, "/metrics").await.contains("fragcast_pending_stale 0"));
    let messages = block();
    post(&node, &key, &messages[..2]).await;
    let told = async {
        while !get(metrics, "/readyz")
            .await
            .contains("and reads as latest: rpc.pending_max_age_ms is 1")
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    guarded(told).await;
    let numbers = get(metrics, "/metrics").await;
    assert!(numbers.contains("fragcast_pending_stale 1"), "{numbers}");
    assert!(numbers.contains("fragcast_pending_fallbacks_total 1"), "{numbers}");
    let pending = ask(&node, "/", "eth_getBlockByNumber", json!(["pending", false])).await;
    assert_eq!(pending["number"], "0x0");
    assert!(node.state().status()["execution"]["pendingStale"].is_string());
    // Verified, it is not pending any more.
    post(&node, &key, &messages[2..]).await;
    until(&node, "/", "eth_blockNumber", json!([]), |number| number == "0x1").await;
    let fresh = async {
        while get(metrics, "/readyz").await.contains("reads as latest") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    guarded(fresh).await;
    assert!(get(metrics, "/metrics").await.contains("fragcast_pending_stale 0"));
    guarded(node.stop()).await;
}
