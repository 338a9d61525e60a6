//! The TCP ports of running nodes: who is answered, and what load on them does to the overlay.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fragcast::lab::local::{LocalNetwork, LocalOptions};
use fragcast::node::Runtimes;
use fragcast_shredder::BlockBuilder;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::{GUARD, guarded, request};
use crate::running;

async fn network(dir: &std::path::Path) -> LocalNetwork {
    let network = LocalNetwork::start(&LocalOptions::new(dir), None).await.unwrap();
    network.connected(GUARD).await.unwrap();
    network
}

/// The status of the answer to a request with this first line and host.
async fn ask(address: std::net::SocketAddr, line: &str, host: &str) -> String {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"fragcast_status","params":[]}"#;
    let text = format!(
        "{line} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchanged = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().to_owned()
    };
    guarded(exchanged).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_port_answers_a_page_that_rebinds_its_name() {
    let _serving = running::serving().await;
    let dir = tempfile::tempdir().unwrap();
    let network = network(dir.path()).await;
    let at = network.nodes()[0].addresses();
    for (address, line) in [
        (at.http, "POST /"),
        (at.admin, "POST /"),
        (at.ingest, "POST /"),
        (at.metrics, "GET /metrics"),
        (at.metrics, "GET /readyz"),
    ] {
        for host in ["evil.example", "evil.example:9340", "127.0.0.1.evil.example"] {
            assert_eq!(ask(address, line, host).await, "403", "{line} at {address} for {host}");
        }
        for host in ["localhost", "127.0.0.1:1", "[::1]", "192.0.2.1"] {
            assert_eq!(ask(address, line, host).await, "200", "{line} at {address} for {host}");
        }
    }
    let metrics = network.nodes()[0].state().metrics();
    let told = "fragcast_admin_dropped_total{reason=\"host\"} 3";
    assert!(metrics.contains(told), "{metrics}");
    network.stop().await;
}

/// Keeps tasks busy until it is dropped, whatever becomes of the test.
struct Busy {
    on: Arc<AtomicBool>,
    started: Arc<AtomicUsize>,
}

impl Busy {
    fn new() -> Self {
        Self { on: Arc::new(AtomicBool::new(true)), started: Arc::default() }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.on.store(false, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_pass_while_every_thread_that_serves_is_busy() {
    let _alone = running::serving_alone().await;
    let dir = tempfile::tempdir().unwrap();
    let mut network = network(dir.path()).await;
    let runtimes = Runtimes::shared().unwrap();
    let busy = Busy::new();
    // More tasks than there are threads, none of which gives its thread back.
    for _ in 0..16 {
        let (busy, started) = (Arc::clone(&busy.on), Arc::clone(&busy.started));
        runtimes.serving().spawn(async move {
            started.fetch_add(1, Ordering::Relaxed);
            while busy.load(Ordering::Relaxed) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
    }
    let threads = runtimes.serving().metrics().num_workers();
    let all = async {
        while busy.started.load(Ordering::Relaxed) < threads {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    guarded(all).await;
    let http = network.nodes()[1].addresses().http;
    let status = tokio::spawn(async move { ask(http, "POST /", "localhost").await });
    for number in 1..=20 {
        let mut block = BlockBuilder::new(number);
        network.post(block.env().into()).await.unwrap();
        let frag = block.frag((0..20).map(|tx| vec![tx; 200]));
        network.post(frag.into()).await.unwrap();
        network.post(block.seal().into()).await.unwrap();
        assert!(network.arrived(number, GUARD).await, "block {number}");
    }
    // The operator is answered as well, the public is not: its threads were busy indeed.
    let at = network.nodes()[1].addresses();
    assert_eq!(ask(at.metrics, "GET /healthz", "localhost").await, "200");
    assert_eq!(ask(at.admin, "POST /", "localhost").await, "200");
    assert!(!status.is_finished(), "the threads that serve were not busy");
    drop(busy);
    assert_eq!(guarded(status).await.unwrap(), "200");
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_of_messages_share_what_they_are_sent() {
    let _serving = running::serving().await;
    let dir = tempfile::tempdir().unwrap();
    let mut network = network(dir.path()).await;
    let url = format!("ws://{}", network.nodes()[1].addresses().http);
    let mut subscribed = Vec::new();
    for _ in 0..5 {
        subscribed.push(running::subscribe(&url).await);
    }
    let block = BlockBuilder::new(1);
    network.post(block.env().into()).await.unwrap();
    network.post(block.seal().into()).await.unwrap();
    let mut all = Vec::new();
    for (_, subscription) in &mut subscribed {
        let env = running::next(subscription).await;
        let seal = running::next(subscription).await;
        assert_eq!((&env["kind"], &seal["kind"]), (&json!("env"), &json!("seal")));
        all.push((env, seal));
    }
    assert!(all.windows(2).all(|two| two[0] == two[1]));
    let status = request(&url.replace("ws:", "http:"), "fragcast_status", json!([])).await;
    assert_eq!(status["result"]["sealed"], 1);
    drop(subscribed);
    network.stop().await;
}

#[test]
fn a_token_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::File::create(&path).unwrap().write_all(b"0123456789abcdef\n").unwrap();
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
    let config = fragcast::config::Config {
        admin: fragcast::config::Admin {
            token: path.clone(),
            ..fragcast::config::Admin::default()
        },
        ..fragcast::config::Config::default()
    };
    mode(0o644).unwrap();
    let told = config.admin_token().unwrap_err().to_string();
    assert!(told.contains(&format!("chmod 600 {}", path.display())), "{told}");
    mode(0o600).unwrap();
    assert!(config.admin_token().unwrap().is_some());
    std::fs::write(&path, "short").unwrap();
    assert!(config.admin_token().unwrap_err().to_string().contains("16"));
}
