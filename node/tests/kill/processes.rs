//! Four separate `fragcast run` processes, set up as a user would: killed, restarted, flooded.

#![expect(clippy::print_stderr, reason = "what was measured")]

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use alloy_primitives::Address;
use fragcast_shredder::{BlockBuilder, Frag, GatewayKey, Message};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};

use crate::common::{GUARD, Running, command, fragcast, guarded, post_signed, request};
use crate::founding::Founding;

/// What a node may hold while it is flooded: half of what it may ever hold by its bounds.
const MEMORY_BOUND_KIB: u64 = 256 * 1024;

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

/// One `fragcast run`.
pub(crate) struct Process {
    pub(crate) dir: PathBuf,
    pub(crate) p2p: u16,
    pub(crate) ingest: u16,
    pub(crate) http: u16,
    pub(crate) metrics: u16,
    pub(crate) admin: u16,
    /// Arguments of `run` beside the ports.
    more: Vec<String>,
    pub(crate) running: Option<Running>,
}

impl Process {
    /// Replaces something in one of its files that must be there.
    pub(crate) fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.dir.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    pub(crate) fn start(&mut self) {
        self.start_as(|command| command);
    }

    /// Starts what `change` makes of the command, with its log in its directory.
    pub(crate) fn start_as(&mut self, change: impl FnOnce(Command) -> Command) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("log"));
        self.launch(log.unwrap().into(), change);
    }

    /// Starts it with its log at `log`.
    pub(crate) fn start_with(&mut self, log: Stdio) {
        self.launch(log, |command| command);
    }

    fn launch(&mut self, log: Stdio, change: impl FnOnce(Command) -> Command) {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port)).to_string();
        let config = self.dir.join("node.toml");
        let mut run = command(&["run", "--config", config.to_str().unwrap()]);
        run.args(["--http.port", &self.http.to_string()]).args(&self.more);
        let child = change(run)
            .env("FRAGCAST_INGEST_LISTEN", at(self.ingest))
            .env("FRAGCAST_METRICS", at(self.metrics))
            .env("FRAGCAST_ADMIN_LISTEN", at(self.admin))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.running = Some(Running(child.unwrap()));
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub(crate) fn ingest_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ingest)
    }

    /// `Null` while it does not answer.
    pub(crate) async fn status(&self) -> Value {
        let url = format!("http://127.0.0.1:{}", self.http);
        request(&url, "fragcast_status", json!([])).await["result"].take()
    }

    /// The status as its operator sees it.
    pub(crate) async fn operator_status(&self) -> Value {
        let url = format!("http://127.0.0.1:{}", self.admin);
        request(&url, "fragcast_status", json!([])).await["result"].take()
    }

    /// Waits until a field of the status has a value.
    pub(crate) async fn until(&self, field: &str, value: u64) {
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

    /// The answer of the port for metrics and health.
    pub(crate) async fn get(&self, path: &str) -> String {
        self.try_get(path).await.unwrap()
    }

    /// The same where the port may refuse a connection, or break it.
    pub(crate) async fn try_get(&self, path: &str) -> std::io::Result<String> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        guarded(async {
            let address = ("127.0.0.1", self.metrics);
            let mut stream = tokio::net::TcpStream::connect(address).await?;
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            Ok(text)
        })
        .await
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn until_ready(&self) {
        let start = Instant::now();
        loop {
            let answer = self.get("/readyz").await;
            if answer.starts_with("HTTP/1.1 200") {
                return;
            }
            assert!(start.elapsed() < GUARD, "{answer}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a line of the metrics has a value.
    pub(crate) async fn until_metric(&self, line: &str, value: f64) {
        self.until_metric_is(line, |found| found == value).await;
    }

    /// Waits until it has counted something: counts are published five times a second, and blocks
    /// may come and go between two of them.
    pub(crate) async fn until_counted(&self, line: &str) {
        self.until_metric_is(line, |found| found > 0.0).await;
    }

    async fn until_metric_is(&self, line: &str, fine: impl Fn(f64) -> bool) {
        let start = Instant::now();
        loop {
            let metrics = self.get("/metrics").await;
            let found = metrics.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
            if found.is_some_and(&fine) {
                return;
            }
            assert!(start.elapsed() < GUARD, "{line}{found:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// That it has barred nobody and suspects nobody of anything.
    pub(crate) async fn assert_peace(&self) {
        let metrics = self.get("/metrics").await;
        for name in ["barred", "equivocation", "bad_message", "bad_parity"] {
            let line = format!("fragcast_events_total{{kind=\"{name}\"}} 0");
            assert!(metrics.contains(&line), "{line}\n{metrics}\n{}", self.log());
        }
    }

    /// Resident memory, KiB.
    fn resident(&self) -> Option<u64> {
        let pid = self.running.as_ref()?.0.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    }
}

/// Nodes that are set up as the README says.
pub(crate) struct Network {
    pub(crate) processes: Vec<Process>,
    gateway: GatewayKey,
    root: tempfile::TempDir,
}

impl Network {
    /// `init`, `keygen`, `delegate`, one network file, `check-config`: as the README says.
    pub(crate) fn new(n: usize) -> Self {
        Self::of(n, 5, &[])
    }

    /// The same, of another chain and with more arguments of `run`.
    pub(crate) fn of(n: usize, chain_id: u64, more: &[&str]) -> Self {
        let more: Vec<String> = more.iter().map(|arg| (*arg).to_owned()).collect();
        let root = tempfile::tempdir().unwrap();
        let mut founding = Founding::new(root.path(), chain_id);
        let processes: Vec<Process> = (0..n)
            .map(|i| {
                let dir = root.path().join(format!("node-{i}"));
                let [p2p, ingest, http, metrics, admin, gossip] = std::array::from_fn(|_| port());
                founding.init(&dir, &format!("127.0.0.1:{p2p}"), gossip);
                let more = more.clone();
                Process { dir, p2p, ingest, http, metrics, admin, more, running: None }
            })
            .collect();
        let gateway = founding.finish(processes.iter().map(|process| process.dir.as_path()));
        for process in &processes {
            let config = process.dir.join("node.toml");
            fragcast(&["check-config", "--config", config.to_str().unwrap()]).ok();
        }
        Self { processes, gateway, root }
    }

    pub(crate) async fn all_connected(&self) {
        for process in &self.processes {
            process.until("connected", self.processes.len() as u64 - 1).await;
        }
    }

    /// A node of its own with `init`'s further arguments, which is in nobody's network file, and with
    /// arguments of `run`.
    pub(crate) fn stranger(&self, chain_id: u64, init: &[&str], run: &[&str]) -> Process {
        let [p2p, ingest, http, metrics, admin, gossip] = std::array::from_fn(|_| port());
        let dir = self.root.path().join(format!("stranger-{p2p}"));
        let (chain, gossip) = (chain_id.to_string(), gossip.to_string());
        let at = format!("127.0.0.1:{p2p}");
        let args = ["init", "--dir", dir.to_str().unwrap(), "--chain-id", &chain];
        let places = ["--listen", &at, "--advertise", &at, "--gossip-port", &gossip];
        fragcast(&[&args[..], &places, init].concat()).ok();
        let more = run.iter().map(|arg| (*arg).to_owned()).collect();
        Process { dir, p2p, ingest, http, metrics, admin, more, running: None }
    }

    /// The gateway's address.
    pub(crate) fn gateway_address(&self) -> Address {
        self.gateway.address()
    }

    /// The gateway's key, whose file is taken away.
    pub(crate) fn take_gateway_key(&self) -> GatewayKey {
        let path = self.root.path().join("gateway.key");
        let key = fragcast::gateway::keys::read_gateway(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        key
    }

    /// Posts to the leader's node.
    pub(crate) async fn post(&self, message: impl Into<Message>) -> Value {
        self.post_at(0, message).await
    }

    /// Posts to a node.
    pub(crate) async fn post_at(&self, node: usize, message: impl Into<Message>) -> Value {
        post_signed(&self.processes[node].ingest_url(), &self.gateway, message).await
    }

    /// Posts to the leader's node until it takes the message: one that is busy, or that has lost its
    /// peers for a moment, refuses with -32005 and is to be asked again.
    pub(crate) async fn send(&self, message: impl Into<Message>) {
        let message = message.into();
        let start = Instant::now();
        let mut answer = self.post(message.clone()).await;
        while answer["error"]["code"] == -32005 && start.elapsed() < GUARD {
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer = self.post(message.clone()).await;
        }
        assert_eq!(answer["result"], "OK", "{answer}\n{}", self.processes[0].log());
    }
}

/// The next frag of a block, 15 kB.
fn frag(block: &mut BlockBuilder) -> Frag {
    let seq = block.seal().total_frags;
    block.frag((0..100).map(|tx| vec![(tx + seq) as u8; 150]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_restarted_nodes_lose_nothing_for_the_others() {
    let mut net = Network::new(4);
    net.processes.iter_mut().for_each(Process::start);
    net.all_connected().await;
    net.processes[1].until_ready().await;

    // A follower is killed in mid-block.
    let mut block = BlockBuilder::new(1);
    net.send(block.env()).await;
    net.send(frag(&mut block)).await;
    net.processes[3].kill();
    for _ in 1..6 {
        net.send(frag(&mut block)).await;
    }
    net.send(block.seal()).await;
    for follower in &net.processes[1..3] {
        follower.until("sealed", 1).await;
    }
    // It comes back and takes part.
    net.processes[3].start();
    net.all_connected().await;
    let mut block = BlockBuilder::new(2);
    net.send(block.env()).await;
    net.send(frag(&mut block)).await;
    net.send(block.seal()).await;
    for follower in &net.processes[1..] {
        follower.until("sealed", 2).await;
    }

    // The leader's node is killed in mid-block.
    let mut block = BlockBuilder::new(3);
    let first = frag(&mut block);
    net.send(block.env()).await;
    net.send(first.clone()).await;
    net.processes[0].kill();
    net.processes[0].start();
    net.all_connected().await;
    let refused = net.post(frag(&mut block)).await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("send its Env first"));
    // The gateway may rebuild the block: it goes out as another attempt, and nobody is accused.
    net.send(block.env()).await;
    net.send(first).await;
    // Or go on with the next.
    let mut block = BlockBuilder::new(4);
    net.send(block.env()).await;
    net.send(frag(&mut block)).await;
    net.send(block.seal()).await;
    for follower in &net.processes[1..] {
        follower.until("sealed", 4).await;
        let metrics = follower.get("/metrics").await;
        for (name, n) in [("equivocation", 0), ("barred", 0), ("bad_message", 0)] {
            let line = format!("fragcast_events_total{{kind=\"{name}\"}} {n}");
            assert!(metrics.contains(&line), "{line}\n{metrics}");
        }
        follower.until_counted("fragcast_datagrams_total{outcome=\"stored\"} ").await;
    }

    // SIGTERM ends a node cleanly; secrets are nowhere in its log.
    let mut process = net.processes.pop().unwrap();
    let mut running = process.running.take().unwrap();
    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || running.0.wait().unwrap());
    assert!(guarded(ended).await.unwrap().success());
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
    let mut number = 0;
    let mut flooded_blocks = 0;
    loop {
        number += 1;
        let over = flooder.is_finished();
        let mut block = BlockBuilder::new(number);
        net.send(block.env()).await;
        for _ in 0..4 {
            net.send(frag(&mut block)).await;
        }
        net.send(block.seal()).await;
        if over {
            break;
        }
        flooded_blocks += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(flooder.await.unwrap(), 100_000);
    // The last block was sent when the flood was over: it must be here.
    victim.until("sealed", number).await;
    // The connection stood it, or is there again on a machine that left it no time meanwhile.
    victim.until("connected", 1).await;
    // Most of the thousand were sent away. The numbers are published a few times a second.
    let start = Instant::now();
    loop {
        let metrics = victim.get("/metrics").await;
        let calls: u64 = metrics
            .lines()
            .filter(|line| line.starts_with("fragcast_calls_total"))
            .filter(|line| ["retried", "refused"].iter().any(|reason| line.contains(reason)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum();
        if calls > 0 {
            break;
        }
        assert!(start.elapsed() < GUARD, "nobody was sent away: {metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if let (Some(before), Some(after)) = (before, victim.resident()) {
        let delivered = &victim.status().await["delivered"];
        let sent = number * 6;
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
    fragcast(&args).ok();
    let again = fragcast(&args);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
}
