//! Measures what RPC load does to the overlay: the latency of messages at a node, alone and with
//! 4,000 subscriptions and 10,000 requests a second; with `-- --pages` alone and with 50 live pages
//! open.
//!
//! It does not use divan: it runs two real nodes on loopback in real time, and prints ratios between
//! measurements of the same run. A devnet's blocks are built and posted at node 0 and executed by
//! both. Node 1 is asked: by another process, of the lowest priority, that shares the processors.
//! Phases alternate, alone and loaded, so that what the machine does otherwise shows in both.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fragcast::lab::local::{LocalNetwork, LocalOptions};
use fragcast::node::Execution;
use fragcast_execution::chain::ChainSpec;
use fragcast_execution::devnet::{DevnetConfig, DevnetGateway, Genesis};
use fragcast_execution::exec::memory::{MemorySource, MemoryState};
use fragcast_execution::executor::ReportTap;
use fragcast_shredder::{Dialect, Message};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Text;

/// Connections with subscriptions, and the subscriptions of each.
const CONNECTIONS: usize = 63;
const EACH: usize = 64;
/// Connections with requests, and the requests a second of all.
const ASKING: usize = 8;
const REQUESTS: u64 = 10_000;
/// Live pages that are open.
const PAGES: usize = 50;
/// The timing of based-op: a frag every 200 ms, ten in a block.
const FRAG: Duration = Duration::from_millis(200);
const FRAGS: u32 = 10;
const TXS: usize = 20;
/// Time-out that no measurement reaches.
const GUARD: Duration = Duration::from_secs(120);

/// What most subscriptions are to; a few are to whole blocks.
const KINDS: [&str; 4] = ["frags", "newHeads", "newPendingTransactions", "retractions"];

type Socket = WebSocketStream<tokio::net::TcpStream>;

async fn dial(address: &str) -> Socket {
    let stream = tokio::net::TcpStream::connect(address).await.expect("the node listens");
    let dialled = tokio_tungstenite::client_async(format!("ws://{address}/"), stream).await;
    dialled.expect("a WebSocket").0
}

/// What loads the node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Subscriptions and requests of Ethereum's JSON-RPC.
    Rpc,
    /// Live pages.
    Pages,
}

impl Kind {
    const fn option(self) -> &'static str {
        match self {
            Self::Rpc => "--load",
            Self::Pages => "--load-pages",
        }
    }

    fn describe(self) -> String {
        match self {
            Self::Rpc => format!(
                "{} subscriptions on {CONNECTIONS} connections, {REQUESTS} requests a second on \
                 {ASKING}",
                CONNECTIONS * EACH
            ),
            Self::Pages => format!("{PAGES} live pages"),
        }
    }
}

/// The process that keeps live pages open until its standard input is closed; the same lines.
async fn pages(address: &str) {
    let (news, mut tasks) = (Arc::new(AtomicU64::new(0)), Vec::new());
    for _ in 0..PAGES {
        let mut socket = dial(address).await;
        let request = r#"{"jsonrpc":"2.0","id":1,"method":"fragcast_subscribeLive","params":[]}"#;
        socket.send(Text::text(request)).await.expect("open");
        socket.next().await.expect("open").expect("an answer");
        let news = Arc::clone(&news);
        tasks.push(tokio::spawn(async move {
            while let Some(Ok(_)) = socket.next().await {
                news.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    tell_when_closed(&AtomicU64::new(0), &news).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Says that all is there, waits until standard input is closed, and says how many came a second.
async fn tell_when_closed(answers: &AtomicU64, news: &AtomicU64) {
    let begin = Instant::now();
    let _ = writeln!(std::io::stdout(), "ready");
    let _ =
        tokio::task::spawn_blocking(|| for _ in std::io::stdin().lines().map_while(Result::ok) {})
            .await;
    let seconds = begin.elapsed().as_secs_f64();
    let rate = |n: &AtomicU64| n.load(Ordering::Relaxed) as f64 / seconds;
    let _ = writeln!(std::io::stdout(), "{:.0} {:.0}", rate(answers), rate(news));
}

/// The process that loads the node until its standard input is closed. It prints a line when all
/// subscriptions are there, and at the end what it received.
async fn load(address: &str) {
    let (news, answers) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for connection in 0..CONNECTIONS {
        let mut socket = dial(address).await;
        for n in 0..EACH {
            let kind = match (connection, n) {
                (0..4, 0) => "newFlashblocks",
                _ => KINDS[n % KINDS.len()],
            };
            let request = format!(
                r#"{{"jsonrpc":"2.0","id":{n},"method":"eth_subscribe","params":["{kind}"]}}"#
            );
            socket.send(Text::text(request)).await.expect("open");
            socket.next().await.expect("open").expect("an answer");
        }
        let news = Arc::clone(&news);
        tasks.push(tokio::spawn(async move {
            while let Some(Ok(_)) = socket.next().await {
                news.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for _ in 0..ASKING {
        let (mut send, mut receive) = dial(address).await.split();
        let counter = Arc::clone(&answers);
        tasks.push(tokio::spawn(async move {
            while let Some(Ok(_)) = receive.next().await {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }));
        tasks.push(tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            loop {
                tick.tick().await;
                for id in 0..REQUESTS / 100 / ASKING as u64 {
                    let method =
                        if id.is_multiple_of(2) { "eth_blockNumber" } else { "eth_gasPrice" };
                    let request =
                        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":[]}}"#);
                    if send.feed(Text::text(request)).await.is_err() {
                        return;
                    }
                }
                if send.flush().await.is_err() {
                    return;
                }
            }
        }));
    }
    tell_when_closed(&answers, &news).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

/// The load, running.
struct Load(Child, BufReader<std::process::ChildStdout>);

impl Load {
    fn start(kind: Kind, address: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new("nice")
            .args(["-n", "19"])
            .arg(program)
            .args([kind.option(), address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program again");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("it says when it is ready");
        assert_eq!(line.trim(), "ready");
        Self(child, out)
    }

    /// Ends it: answers and notifications a second.
    fn end(mut self) -> (f64, f64) {
        drop(self.0.stdin.take());
        let mut line = String::new();
        self.1.read_line(&mut line).expect("it says what it received");
        let _ = self.0.wait();
        let mut numbers = line.split_whitespace().map(|n| n.parse().unwrap_or(f64::NAN));
        (numbers.next().unwrap_or(f64::NAN), numbers.next().unwrap_or(f64::NAN))
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

async fn block(network: &mut LocalNetwork, gateway: &mut DevnetGateway) {
    let env = gateway.open(unix_seconds()).expect("an Env");
    let number = env.number;
    network.post(Message::Env(env)).await.expect("taken");
    let begin = tokio::time::Instant::now();
    for frag in 0..FRAGS {
        let message = tokio::task::block_in_place(|| gateway.frag(TXS, frag + 1 == FRAGS));
        tokio::time::sleep_until(begin + FRAG * (frag + 1)).await;
        network.post(Message::Frag(message.expect("a frag"))).await.expect("taken");
    }
    let seal = tokio::task::block_in_place(|| gateway.seal()).expect("a Seal");
    network.post(Message::Seal(seal)).await.expect("taken");
    assert!(network.arrived(number, GUARD).await, "block {number} arrives");
    assert!(network.judged(number, GUARD).await, "block {number} is executed");
}

/// Latencies at node 1 of the messages of some blocks, µs.
async fn phase(
    network: &mut LocalNetwork,
    gateway: &mut DevnetGateway,
    blocks: usize,
    into: &mut Vec<u64>,
) {
    let before = network.track(1, |track| track.latency.clone());
    for _ in 0..blocks {
        block(network, gateway).await;
    }
    let mut new = network.track(1, |track| track.latency.clone());
    // The growth since.
    let _ = new.subtract(&before);
    into.extend(
        new.iter_recorded()
            .flat_map(|v| std::iter::repeat_n(v.value_iterated_to(), v.count_at_value() as usize)),
    );
}

fn execution(genesis: &Genesis, spec: &Arc<ChainSpec>) -> anyhow::Result<Execution> {
    let state = MemoryState::of_genesis(spec.genesis.as_ref().expect("a devnet's"));
    let source = MemorySource::new(genesis.header(), state)?;
    Ok(Execution::on_source(Arc::clone(spec), Arc::new(source)))
}

async fn measure(kind: Kind, rounds: usize, blocks: usize) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = DevnetConfig { timestamp: unix_seconds(), ..DevnetConfig::default() };
    let genesis = Genesis::devnet(&config);
    let spec = Arc::new(genesis.chain_spec("dev").expect("a chain"));
    let options = LocalOptions {
        chain_id: config.chain_id,
        uplink_mbit: 1_000,
        ..LocalOptions::new(dir.path())
    };
    let factory = move |_: usize, _: &Path, tap: ReportTap| {
        Ok(Execution { tap: Some(tap), ..execution(&genesis, &spec)? })
    };
    let mut network = LocalNetwork::start(&options, Some(&factory)).await.expect("a network");
    network.connected(GUARD).await.expect("connected");
    let mut gateway = DevnetGateway::new(&config, Dialect::V0).expect("a genesis");
    let address = network.nodes()[1].addresses().http.to_string();
    block(&mut network, &mut gateway).await;
    let (mut alone, mut loaded) = (Vec::new(), Vec::new());
    let mut received = Vec::new();
    for _ in 0..rounds {
        phase(&mut network, &mut gateway, blocks, &mut alone).await;
        let address = address.clone();
        let load = tokio::task::spawn_blocking(move || Load::start(kind, &address)).await;
        let load = load.expect("it starts");
        phase(&mut network, &mut gateway, blocks, &mut loaded).await;
        let ended = tokio::task::spawn_blocking(move || load.end()).await;
        received.push(ended.expect("it ends"));
    }
    let mut out = std::io::stdout().lock();
    for (answers, news) in &received {
        let _ = writeln!(
            out,
            "{}: {answers:.0} answers and {news:.0} notifications a second were received",
            kind.describe()
        );
    }
    let _ =
        writeln!(out, "{:<24}{:>10}{:>10}{:>8}", "latency of messages", "alone ms", "load ms", "×");
    alone.sort_unstable();
    loaded.sort_unstable();
    for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
        let ms = |v: &[u64]| v[((v.len() - 1) as f64 * share) as usize] as f64 / 1_000.0;
        let (alone, loaded) = (ms(&alone), ms(&loaded));
        let _ = writeln!(out, "{name:<24}{alone:>10.2}{loaded:>10.2}{:>8.2}", loaded / alone);
    }
    let _ = writeln!(out, "of {} and {} messages", alone.len(), loaded.len());
    drop(out);
    network.stop().await;
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    if let [_, option, address] = args.as_slice() {
        if option == Kind::Rpc.option() {
            return runtime.block_on(load(address));
        }
        if option == Kind::Pages.option() {
            return runtime.block_on(pages(address));
        }
    }
    let kind = if args.iter().any(|arg| arg == "--pages") { Kind::Pages } else { Kind::Rpc };
    // `cargo test --benches` and `cargo bench -- --test` only check that it runs.
    let short = args.iter().any(|arg| arg == "--test");
    runtime.block_on(measure(kind, if short { 1 } else { 3 }, if short { 1 } else { 5 }));
}
