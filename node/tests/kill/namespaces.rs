//! Eight `fragcast run` processes, each in a network namespace of its own, that lose their links,
//! are killed, stopped, made to stand still, and come back, while blocks go on: in the end every
//! block is everywhere.

#![expect(clippy::print_stderr, reason = "what was done")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fragcast_execution::devnet::{DevnetConfig, DevnetGateway};
use fragcast_shredder::testing::{has, refused};
use fragcast_shredder::{Dialect, GatewayKey, Message};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::common::{Running, post_signed, request};
use crate::founding::Founding;
use crate::wires::Wires;

/// Nodes.
const NODES: usize = 8;
/// How many processes are killed: a thousand in the nightly form.
const KILLS: &str = "FRAGCAST_KILLS";
/// With the value 1 a machine without network namespaces is a failure.
const DEMANDED: &str = "FRAGCAST_NAMESPACES";
/// How long one event may take: eight nodes share the processors, and some of them stand still.
const GUARD: Duration = Duration::from_secs(600);
/// Seed of the faults.
const SEED: &str = "FRAGCAST_CHAOS_SEED";
/// Ports, which are the same on every host.
const P2P: u16 = 9300;
const GOSSIP: u16 = 9222;
const HTTP: u16 = 8545;
const INGEST: u16 = 8560;
const METRICS: u16 = 8561;
const ADMIN: u16 = 8562;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What `future` gives; fails if it hangs.
async fn guarded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future).await.expect("it hangs")
}

/// Numbers from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// A node.
struct Node {
    number: usize,
    dir: PathBuf,
    wires: Arc<Wires>,
    running: Option<Running>,
}

impl Node {
    fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("log"));
        let at = |port: u16| format!("{}:{port}", self.wires.address(self.number));
        let mut command =
            self.wires.command(self.number, Path::new(env!("CARGO_BIN_EXE_fragcast")));
        let child = command
            .args(["run", "--chain", "dev", "--config"])
            .arg(self.dir.join("node.toml"))
            .args(["--http.addr", &self.wires.address(self.number).to_string()])
            .args(["--http.port", &HTTP.to_string()])
            .env("FRAGCAST_INGEST_LISTEN", at(INGEST))
            .env("FRAGCAST_METRICS", at(METRICS))
            .env("FRAGCAST_ADMIN_LISTEN", format!("127.0.0.1:{ADMIN}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn();
        self.running = Some(Running(child.unwrap()));
    }

    fn signal(&self, signal: &str) {
        let pid = self.running.as_ref().expect("it runs").0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// SIGTERM, and waits for the end.
    async fn stop(&mut self) {
        self.signal("-TERM");
        let mut running = self.running.take().expect("it runs");
        let ended = tokio::task::spawn_blocking(move || running.0.wait().unwrap());
        assert!(guarded(ended).await.unwrap().success(), "{}", self.log());
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        let url = format!("http://{}:{HTTP}", self.wires.address(self.number));
        request(&url, method, params).await["result"].take()
    }

    /// The hash of a block that it has verified.
    async fn block(&self, number: u64) -> Option<String> {
        let asked = json!([format!("{number:#x}"), false]);
        let block = self.ask("eth_getBlockByNumber", asked).await;
        Some(block["hash"].as_str()?.to_owned())
    }

    /// Waits until it is connected to all others.
    async fn connected(&self) {
        let start = Instant::now();
        let all = Some(NODES as u64 - 1);
        while self.ask("fragcast_status", json!([])).await["connected"].as_u64() != all {
            assert!(start.elapsed() < GUARD, "node {}\n{}", self.number, self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until it has a block.
    async fn until(&self, number: u64) -> String {
        let start = Instant::now();
        loop {
            if let Some(hash) = self.block(number).await {
                return hash;
            }
            assert!(
                start.elapsed() < GUARD,
                "node {} has no block {number}: {:#}\n{}",
                self.number,
                self.ask("fragcast_status", json!([])).await,
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Sets the nodes up as a user would. The first leads.
fn set_up(wires: &Arc<Wires>, dir: &Path, chain_id: u64) -> (Vec<Node>, GatewayKey) {
    let mut founding = Founding::new(dir, chain_id);
    let nodes: Vec<Node> = (0..NODES)
        .map(|number| {
            let dir = dir.join(format!("node-{number}"));
            founding.init(&dir, &format!("{}:{P2P}", wires.address(number)), GOSSIP);
            Node { number, dir, wires: Arc::clone(wires), running: None }
        })
        .collect();
    let gateway = founding.finish(nodes.iter().map(|node| node.dir.as_path()));
    (nodes, gateway)
}

/// Builds blocks, and hands them to the leader until it has taken them.
struct Builder {
    url: String,
    /// The leader's public JSON-RPC.
    http: String,
    key: GatewayKey,
    gateway: Mutex<DevnetGateway>,
    sealed: AtomicU64,
    over: AtomicBool,
}

impl Builder {
    async fn post(&self, message: impl Into<Message>) -> Value {
        post_signed(&self.url, &self.key, message).await
    }

    async fn run(self: Arc<Self>) {
        while !self.over.load(Ordering::SeqCst) {
            self.block().await;
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    /// Waits until the leader has nearly executed a block: no machine has more to do than it can.
    async fn keep_step(&self, block: u64) {
        let start = Instant::now();
        loop {
            let answer = request(&self.http, "eth_blockNumber", json!([])).await;
            let latest = answer["result"].as_str().and_then(|hex| hex.strip_prefix("0x"));
            let latest = latest.and_then(|hex| u64::from_str_radix(hex, 16).ok());
            if latest.is_some_and(|latest| latest + 2 >= block) {
                return;
            }
            assert!(start.elapsed() < GUARD, "block {block} at the leader: {answer}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A block, from its Env again whenever the leader did not take a part of it.
    async fn block(&self) {
        let mut gateway = self.gateway.lock().await;
        let env = gateway.open(0).unwrap();
        let number = env.number;
        let frags = [gateway.frag(5, false).unwrap(), gateway.frag(5, true).unwrap()];
        let seal = gateway.seal().unwrap();
        let start = Instant::now();
        let messages: Vec<Message> = [Message::from(env)]
            .into_iter()
            .chain(frags.map(Message::from))
            .chain([seal.into()])
            .collect();
        'again: loop {
            for message in &messages {
                let answer = self.post(message.clone()).await;
                if answer["result"] != "OK" {
                    assert!(start.elapsed() < GUARD, "block {number}: {answer}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue 'again;
                }
            }
            break;
        }
        self.sealed.store(number, Ordering::SeqCst);
        self.keep_step(number).await;
    }
}

/// What is done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Stop,
    Pause,
    Cut,
    Loss,
}

/// Does something to a node, and undoes it after a while.
async fn hurt(node: &mut Node, fault: Fault, away: Duration) {
    match fault {
        Fault::Kill => {
            // SIGKILL.
            node.running = None;
            tokio::time::sleep(away).await;
            node.start();
        }
        Fault::Stop => {
            node.stop().await;
            tokio::time::sleep(away).await;
            node.start();
        }
        Fault::Pause => {
            // Longer than a block may be executed, too.
            node.signal("-STOP");
            tokio::time::sleep(away * 2).await;
            node.signal("-CONT");
        }
        Fault::Cut => {
            node.wires.set_link(node.number, false);
            tokio::time::sleep(away).await;
            node.wires.set_link(node.number, true);
        }
        Fault::Loss => {
            let lossy = node.wires.set_loss(node.number, 25);
            tokio::time::sleep(away).await;
            if lossy {
                node.wires.set_loss(node.number, 0);
            }
        }
    }
}

/// Hosts for the nodes; `None`, said aloud, where this machine does not let them be made, which is no
/// fault of the nodes. With [`DEMANDED`] that is a failure.
fn wires() -> Option<Arc<Wires>> {
    let made = match has("ip", &["-V"]) {
        true => Wires::new(NODES),
        false => Err("there is no program ip (iproute2)".to_owned()),
    };
    match made {
        Ok(wires) => Some(Arc::new(wires)),
        Err(why) => {
            let demanded = std::env::var(DEMANDED).is_ok_and(|value| value == "1");
            assert!(!demanded, "{DEMANDED} is 1, and there are no network namespaces: {why}");
            refused(format_args!("there are no network namespaces on this machine: {why}"));
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes of eight processes; run by hand: cargo test -p fragcast --test kill -- --ignored"]
async fn every_block_ends_up_everywhere_whatever_links_and_processes_do() {
    let Some(wires) = wires() else { return };
    let (kills, seed) = (number(KILLS, 8), number(SEED, 1));
    let dir = tempfile::tempdir().unwrap();
    let config = DevnetConfig::default();
    let (mut nodes, key) = set_up(&wires, dir.path(), config.chain_id);
    nodes.iter_mut().for_each(Node::start);
    let builder = Arc::new(Builder {
        url: format!("http://{}:{INGEST}", wires.address(0)),
        http: format!("http://{}:{HTTP}", wires.address(0)),
        key,
        gateway: Mutex::new(DevnetGateway::new(&config, Dialect::V0).unwrap()),
        sealed: AtomicU64::new(0),
        over: AtomicBool::new(false),
    });
    for node in &nodes {
        node.connected().await;
    }
    let building = tokio::spawn(Arc::clone(&builder).run());
    for node in &nodes {
        node.until(1).await;
    }

    let mut random = Random(seed);
    let (mut killed, mut rounds) = (0, 0);
    while killed < kills {
        rounds += 1;
        // Two followers at a time.
        let first = 1 + random.below(NODES as u64 - 1) as usize;
        let second = 1 + (first + random.below(NODES as u64 - 2) as usize) % (NODES - 1);
        let mut draw = || {
            let fault =
                [Fault::Kill, Fault::Kill, Fault::Stop, Fault::Pause, Fault::Cut, Fault::Loss]
                    [random.below(6) as usize];
            (fault, Duration::from_millis(50 + random.below(2_500)))
        };
        let faults = [draw(), draw()];
        killed += faults.iter().filter(|(fault, _)| *fault == Fault::Kill).count() as u64;
        let (low, high) = nodes.split_at_mut(first.max(second));
        let pair = (&mut low[first.min(second)], &mut high[0]);
        let (one, other) = (faults[0], faults[1]);
        tokio::join!(hurt(pair.0, one.0, one.1), hurt(pair.1, other.0, other.1));
        if rounds % 5 == 0 {
            // The leader, between two blocks; everybody has what it has said OK to.
            let between = builder.gateway.lock().await;
            let last = builder.sealed.load(Ordering::SeqCst);
            nodes[1].until(last).await;
            hurt(&mut nodes[0], Fault::Kill, Duration::from_millis(300)).await;
            killed += 1;
            drop(between);
        }
        // They are level before it goes on: what a quorum has, they have.
        let last = builder.sealed.load(Ordering::SeqCst);
        for node in [first, second] {
            nodes[node].until(last).await;
        }
    }

    builder.over.store(true, Ordering::SeqCst);
    guarded(building).await.unwrap();
    let last = builder.sealed.load(Ordering::SeqCst);
    let expected = nodes[0].until(last).await;
    for node in &nodes[1..] {
        assert_eq!(node.until(last).await, expected, "node {}", node.number);
        let status = node.ask("fragcast_status", json!([])).await;
        assert_eq!(status["execution"]["rejected"], 0, "{status:#}");
    }
    // Every one of them, everywhere.
    for number in 1..=last {
        let hash = nodes[0].block(number).await;
        assert!(hash.is_some(), "block {number} at the leader");
        for node in &nodes[1..] {
            assert_eq!(node.block(number).await, hash, "block {number} at node {}", node.number);
        }
    }
    eprintln!("{rounds} rounds with {killed} kills, {last} blocks, seed {seed}");
}
