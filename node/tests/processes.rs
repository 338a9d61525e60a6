//! Four separate `fragcast run` processes, set up as a user would: killed, restarted, flooded.
//!
//! Time limits only guard against hanging.

#![expect(clippy::print_stderr, reason = "what was measured")]

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use fragcast::gateway::ingest;
use fragcast_shredder::{BlockBuilder, GatewayKey, Message};
use fragcast_upstream::http::HttpClient;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};

const GUARD: Duration = Duration::from_secs(60);
/// What a node may hold while it is flooded: half of what it may ever hold by its bounds.
const MEMORY_BOUND_KIB: u64 = 256 * 1024;

fn fragcast(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_fragcast")).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The value behind `name` in what a command printed.
fn field(output: &Output, name: &str) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("`{name}` in {text}"));
    value.trim().trim_matches(['=', ' ', '"', '[', ']']).to_owned()
}

/// A port that is free for UDP and TCP, below the range the system gives out by itself.
fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (std::process::id() % 600) as u16 * 20 + step;
        if UdpSocket::bind(("127.0.0.1", port)).is_ok()
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            return port;
        }
    }
}

struct Process {
    dir: PathBuf,
    p2p: u16,
    ingest: u16,
    http: u16,
    metrics: u16,
    admin: u16,
    child: Option<Child>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("log"));
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port)).to_string();
        let child = Command::new(env!("CARGO_BIN_EXE_fragcast"))
            .args(["run", "--config", self.dir.join("node.toml").to_str().unwrap()])
            .args(["--http.port", &self.http.to_string()])
            .env("FRAGCAST_INGEST_LISTEN", at(self.ingest))
            .env("FRAGCAST_METRICS", at(self.metrics))
            .env("FRAGCAST_ADMIN_LISTEN", at(self.admin))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// SIGKILL.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    async fn rpc(&self, port: u16, method: &str, params: Value) -> Option<Value> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let client = HttpClient { timeout: GUARD, ..HttpClient::default() };
        let url = format!("http://127.0.0.1:{port}");
        let answer = client.post_json(&url, None, serde_json::to_vec(&body).unwrap()).await;
        serde_json::from_slice(&answer.ok()?.1).ok()
    }

    async fn status(&self) -> Value {
        let answer = self.rpc(self.http, "fragcast_status", json!([])).await;
        answer.map_or(Value::Null, |answer| answer["result"].clone())
    }

    /// Waits until a field of the status has a value.
    async fn until(&self, field: &str, value: u64) {
        let start = Instant::now();
        loop {
            let status = self.status().await;
            if status[field].as_u64() == Some(value) {
                return;
            }
            assert!(
                start.elapsed() < GUARD,
                "{field} did not become {value}: {status:#}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn get(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.metrics)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// Resident memory, KiB.
    fn resident(&self) -> Option<u64> {
        let pid = self.child.as_ref()?.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    }
}

struct Network {
    processes: Vec<Process>,
    gateway: GatewayKey,
    _dir: tempfile::TempDir,
}

impl Network {
    /// `init`, `keygen`, `delegate`, one network file, `check-config`: as the README says.
    fn new(n: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let gateway_key = path("gateway.key");
        fragcast(&["keygen", "--kind", "gateway", "--out", &text(&gateway_key)]);
        let mut members = String::new();
        let mut delegation = None;
        let processes: Vec<Process> = (0..n)
            .map(|i| {
                let dir = path(&format!("node-{i}"));
                let [p2p, ingest, http, metrics, admin, gossip] = std::array::from_fn(|_| port());
                let address = format!("127.0.0.1:{p2p}");
                let made = fragcast(&[
                    "init",
                    "--dir",
                    &text(&dir),
                    "--chain-id",
                    "5",
                    "--listen",
                    &address,
                    "--advertise",
                    &address,
                    "--gossip-port",
                    &gossip.to_string(),
                ]);
                let record = field(&made, "record");
                let gossip = field(&made, "gossip");
                members +=
                    &format!("\n[[members]]\nrecord = \"{record}\"\ngossip = [\"{gossip}\"]\n");
                if i == 0 {
                    delegation = Some(fragcast(&[
                        "delegate",
                        "--gateway-key",
                        &text(&gateway_key),
                        "--chain-id",
                        "5",
                        "--peer",
                        &field(&made, "peer id"),
                        "--leader",
                        &field(&made, "leader key"),
                    ]));
                }
                Process { dir, p2p, ingest, http, metrics, admin, child: None }
            })
            .collect();
        let delegation = delegation.unwrap();
        let file = format!(
            "chain_id = 5\ngateways = [\"{}\"]\ndelegations = [\"{}\"]\n{members}",
            field(&delegation, "gateways"),
            field(&delegation, "delegations"),
        );
        for process in &processes {
            std::fs::write(process.dir.join("network.toml"), &file).unwrap();
            fragcast(&["check-config", "--config", &text(&process.dir.join("node.toml"))]);
        }
        let gateway = fragcast::gateway::keys::read_gateway(&gateway_key).unwrap();
        Self { processes, gateway, _dir: dir }
    }

    async fn all_connected(&self) {
        for process in &self.processes {
            process.until("connected", self.processes.len() as u64 - 1).await;
        }
    }

    async fn post(&self, message: Message) -> Value {
        let signed = self.gateway.sign_verified(message);
        let (method, param) = ingest::request(&signed);
        let leader = &self.processes[0];
        leader.rpc(leader.ingest, method, json!([param])).await.unwrap_or(Value::Null)
    }

    async fn send(&self, message: Message) {
        let answer = self.post(message).await;
        assert_eq!(answer["result"], "OK", "{answer}\n{}", self.processes[0].log());
    }
}

fn env(number: u64) -> Message {
    BlockBuilder::new(number).env().into()
}

fn frag(block_number: u64, seq: u64) -> Message {
    let txs = (0..100).map(|i| vec![(i + seq) as u8; 150]);
    BlockBuilder::new(block_number).frag_at(seq, txs).into()
}

fn seal(block_number: u64, total_frags: u64) -> Message {
    BlockBuilder::new(block_number).seal_of(total_frags).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_restarted_nodes_lose_nothing_for_the_others() {
    let mut net = Network::new(4);
    net.processes.iter_mut().for_each(Process::start);
    net.all_connected().await;
    assert!(net.processes[1].get("/readyz").await.starts_with("HTTP/1.1 200"));

    // A follower is killed in mid-block.
    net.send(env(1)).await;
    net.send(frag(1, 0)).await;
    net.processes[3].kill();
    for seq in 1..6 {
        net.send(frag(1, seq)).await;
    }
    net.send(seal(1, 6)).await;
    for follower in &net.processes[1..3] {
        follower.until("sealed", 1).await;
    }
    // It comes back and takes part.
    net.processes[3].start();
    net.all_connected().await;
    net.send(env(2)).await;
    net.send(frag(2, 0)).await;
    net.send(seal(2, 1)).await;
    for follower in &net.processes[1..] {
        follower.until("sealed", 2).await;
    }

    // The leader's node is killed in mid-block.
    net.send(env(3)).await;
    net.send(frag(3, 0)).await;
    net.processes[0].kill();
    net.processes[0].start();
    net.all_connected().await;
    let refused = net.post(frag(3, 1)).await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("send its Env first"));
    // The gateway may rebuild the block: it goes out as another attempt, and nobody is accused.
    net.send(env(3)).await;
    net.send(frag(3, 0)).await;
    // Or go on with the next.
    net.send(env(4)).await;
    net.send(frag(4, 0)).await;
    net.send(seal(4, 1)).await;
    for follower in &net.processes[1..] {
        follower.until("sealed", 4).await;
        let metrics = follower.get("/metrics").await;
        for (name, n) in [("equivocation", 0), ("barred", 0), ("bad_message", 0)] {
            let line = format!("fragcast_events_total{{kind=\"{name}\"}} {n}");
            assert!(metrics.contains(&line), "{line}\n{metrics}");
        }
        assert!(!metrics.contains("fragcast_datagrams_total{outcome=\"stored\"} 0"));
    }

    // SIGTERM ends a node cleanly; secrets are nowhere in its log.
    let mut process = net.processes.pop().unwrap();
    let mut child = process.child.take().unwrap();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    for file in ["identity.key", "leader.key"] {
        let secret = std::fs::read_to_string(process.dir.join(file)).unwrap();
        assert!(!process.log().contains(secret.trim()), "{file} in the log");
    }
}

/// A client that offers what ours do, raw ed25519 keys; its handshake never gets to a check.
#[derive(Debug)]
struct NeverAsked;

impl ServerCertVerifier for NeverAsked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        unreachable!("nobody answers the sink")
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("nobody answers the sink")
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("nobody answers the sink")
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// An ed25519 key in PKCS#8 (RFC 8410), of 32 times the byte 7.
fn throwaway_key() -> Arc<CertifiedKey> {
    let mut pkcs8 = alloy_primitives::hex!("302e020100300506032b657004220420").to_vec();
    pkcs8.extend([7; 32]);
    let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(&pkcs8[..])).unwrap();
    let spki = [&alloy_primitives::hex!("302a300506032b6570032100")[..], &[1; 32]].concat();
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], key))
}

/// First packets of handshakes that nobody will go on with, each with a connection id of its own.
async fn half_open_packets(count: usize) -> Vec<Vec<u8>> {
    let sink = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = sink.local_addr().unwrap();
    let mut client = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let resolver = AlwaysResolvesClientRawPublicKeys::new(throwaway_key());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NeverAsked))
        .with_client_cert_resolver(Arc::new(resolver));
    tls.alpn_protocols = vec![b"fragcast/1".to_vec()];
    let quic = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    client.set_default_client_config(quinn::ClientConfig::new(Arc::new(quic)));
    let mut packets = Vec::new();
    let mut pending = Vec::new();
    let mut buffer = [0; 2048];
    while packets.len() < count {
        pending.push(client.connect(to, "x").unwrap());
        let (len, _) = sink.recv_from(&mut buffer).await.unwrap();
        packets.push(buffer[..len].to_vec());
    }
    packets
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooded_node_keeps_delivering_within_its_memory() {
    let mut net = Network::new(2);
    net.processes.iter_mut().for_each(Process::start);
    net.all_connected().await;
    let victim = &net.processes[1];
    let to = SocketAddr::from(([127, 0, 0, 1], victim.p2p));
    let before = victim.resident();

    let half_open = half_open_packets(1_000).await;
    let flooder = tokio::task::spawn_blocking(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut garbage = vec![0u8; 1_200];
        let mut sent = 0u32;
        for round in 0..100_000u32 {
            let len = 1 + (round as usize * 37) % 1_200;
            for (i, byte) in garbage.iter_mut().take(48).enumerate() {
                *byte = (round.wrapping_mul(2_654_435_761) >> (i % 24)) as u8;
            }
            sent += u32::from(socket.send_to(&garbage[..len], to).is_ok());
            if round % 100 == 0 {
                let _ = socket.send_to(&half_open[(round / 100) as usize % 1_000], to);
            }
        }
        sent
    });
    // Blocks go on meanwhile. A datagram that finds the flooded socket full is lost for good,
    // and so may be a whole message; what counts is that messages keep coming.
    let mut block = 0;
    let mut flooded_blocks = 0;
    loop {
        block += 1;
        let over = flooder.is_finished();
        net.send(env(block)).await;
        for seq in 0..4 {
            net.send(frag(block, seq)).await;
        }
        net.send(seal(block, 4)).await;
        if over {
            break;
        }
        flooded_blocks += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(flooder.await.unwrap(), 100_000);
    // The last block was sent when the flood was over: it must be here.
    victim.until("sealed", block).await;
    assert_eq!(victim.status().await["connected"], 1, "the connection stood it");
    let metrics = victim.get("/metrics").await;
    let calls: u64 = metrics
        .lines()
        .filter(|line| line.starts_with("fragcast_calls_total"))
        .filter(|line| ["retried", "refused"].iter().any(|reason| line.contains(reason)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    assert!(calls > 0, "most of the thousand were sent away: {metrics}");
    if let (Some(before), Some(after)) = (before, victim.resident()) {
        let delivered = &victim.status().await["delivered"];
        let sent = block * 6;
        eprintln!(
            "{flooded_blocks} blocks during the flood; {delivered} of {sent} messages delivered; \
             resident {before} KiB before, {after} KiB after"
        );
        assert!(after < MEMORY_BOUND_KIB, "{after} KiB");
    }
}

#[test]
fn setting_up_twice_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let args = ["init", "--dir", dir, "--chain-id", "5", "--advertise", "127.0.0.1:9300"];
    fragcast(&args);
    let again = Command::new(env!("CARGO_BIN_EXE_fragcast")).args(args).output().unwrap();
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists already"));
}
