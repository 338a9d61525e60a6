//! Measures the cost of gossip in standby for a healthy network, and the effect on frags of a peer
//! that floods gossip.
//!
//! It does not use divan: it runs networks of real nodes on loopback in real time, and prints
//! ratios between measurements of the same run.
//!
//! * **standby**: the bytes that gossip sent over TCP, handshakes included, compared with the bytes
//!   that the overlay sent, framing included.
//! * **flood**: gossip is always on. A peer publishes 10,000 junk messages a second to one node,
//!   and returns under a new name each time it is barred. It pauses in every other block, for
//!   comparison. It uses the same processors as the nodes.

#[path = "flood/junk.rs"]
mod junk;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fragcast::lab::local::{LocalNetwork, LocalOptions};
use fragcast_shredder::{BlockBuilder, Dialect, Frag, Message};
use fragcast_turbine::testing::{env_message, seal_message};
use fragcast_turbine::{Mode, Policy};

const CHAIN: u64 = 901;
/// The timing of based-op: a frag every 200 ms, ten in a block.
const FRAG: Duration = Duration::from_millis(200);
const FRAGS: u64 = 10;
/// A frag of usual size.
const FRAG_LEN: usize = 36_000;
const GUARD: Duration = Duration::from_secs(60);
/// Junk messages a second.
const JUNK: u64 = 10_000;

fn options(nodes: usize, policy: Policy, dir: &std::path::Path) -> LocalOptions {
    LocalOptions {
        nodes,
        blocks_per_term: 30,
        chain_id: CHAIN,
        dialect: Dialect::V0,
        uplink_mbit: 1_000,
        route: fragcast::config::RouteName::Turbine,
        policy,
        mode: Mode::Auto,
        ..LocalOptions::new(dir)
    }
}

fn frag(block_number: u64, seq: u64) -> Message {
    let tx = fragcast_bench::payload(FRAG_LEN);
    let txs = [tx, vec![block_number as u8, seq as u8]];
    let frag = BlockBuilder::new(block_number).frag_at(seq, txs);
    Frag { is_last: seq + 1 == FRAGS, ..frag }.into()
}

async fn block(network: &mut LocalNetwork, number: u64) {
    network.post(env_message(number, number)).await.expect("the Env is taken");
    for seq in 0..FRAGS {
        tokio::time::sleep(FRAG).await;
        network.post(frag(number, seq)).await.expect("the frag is taken");
    }
    network.post(seal_message(number, FRAGS)).await.expect("the Seal is taken");
    assert!(network.arrived(number, GUARD).await, "block {number} is complete everywhere");
}

/// Bytes that all nodes have sent, by the overlay and by gossip.
async fn sent(network: &LocalNetwork) -> (u64, u64) {
    let (mut overlay, mut gossip) = (0, 0);
    for node in network.nodes() {
        let lanes = node.state().net.snapshot().lanes;
        overlay += lanes.iter().map(|(_, _, sent, _)| sent).sum::<u64>();
        if let Some(handle) = &node.state().gossip {
            gossip += handle.fresh_snapshot().await.bytes_sent;
        }
    }
    (overlay, gossip)
}

async fn standby(blocks: u64) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = options(8, Policy::Standby, dir.path());
    let mut network = LocalNetwork::start(&options, None).await.expect("a network");
    network.connected(GUARD).await.expect("connected");
    let (_, handshakes) = sent(&network).await;
    for number in 1..=blocks {
        block(&mut network, number).await;
    }
    // Counters are published five times a second.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (overlay, gossip) = sent(&network).await;
    let share = |gossip: u64| 100.0 * gossip as f64 / (overlay + gossip) as f64;
    let _ = writeln!(
        std::io::stdout(),
        "standby: 8 nodes, {blocks} blocks of {FRAGS} frags of {FRAG_LEN} B\n\
         overlay {overlay} B, gossip {gossip} B: {:.3} % of all; without its handshakes {:.3} %",
        share(gossip),
        share(gossip - handshakes),
    );
    network.stop().await;
}

/// Runs the process of the flooding peer. It reads `on` and `off` from standard input until that is
/// closed.
fn attack(address: &str) {
    let address = address.parse().expect("a multiaddr");
    let junk = junk::Junk { chain: CHAIN, len: 300, a_second: JUNK };
    let (on, end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let sent = Arc::new(AtomicU64::new(0));
    let flood = {
        let (on, end, sent) = (Arc::clone(&on), Arc::clone(&end), Arc::clone(&sent));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(junk::publish(junk, address, on, end, sent));
        })
    };
    for order in std::io::stdin().lines().map_while(Result::ok) {
        on.store(order == "on", Ordering::Relaxed);
    }
    end.store(true, Ordering::Relaxed);
    let _ = flood.join();
    let _ = writeln!(std::io::stdout(), "{}", sent.load(Ordering::Relaxed));
}

/// Resident memory, MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kib.map_or(f64::NAN, |kib: f64| kib / 1024.0)
}

async fn flood(pairs: u64) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = options(4, Policy::Always, dir.path());
    let mut network = LocalNetwork::start(&options, None).await.expect("a network");
    network.connected(GUARD).await.expect("connected");
    // Node 2, a follower, is flooded.
    let address = network.nodes()[2].addresses().gossip[0].clone();
    // It is a separate process, so that its memory is not counted.
    let mut attacker = Command::new(std::env::current_exe().expect("this program"))
        .args(["--junk", &address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program again");
    let mut orders = attacker.stdin.take().expect("piped");
    // Latencies of messages at node 2 and at all followers, by the kind of block.
    let mut at_node = [(); 2].map(|()| Vec::new());
    let mut at_all = [(); 2].map(|()| Vec::new());
    let mut flooded = Duration::ZERO;
    // Growth of resident memory. Nodes keep recent blocks, so it also grows without a flood.
    let mut grew = [0.0; 2];
    for number in 1..=2 * pairs {
        let junk = number % 2 == 0;
        let _ = writeln!(orders, "{}", if junk { "on" } else { "off" });
        let before = resident();
        let start = Instant::now();
        let histograms: Vec<_> =
            (1..4).map(|node| network.track(node, |track| track.latency.clone())).collect();
        block(&mut network, number).await;
        grew[usize::from(junk)] += resident() - before;
        if junk {
            flooded += start.elapsed();
        }
        for (node, old) in (1..4).zip(histograms) {
            let mut new = network.track(node, |track| track.latency.clone());
            // The growth so far.
            let _ = new.subtract(&old);
            let values = new.iter_recorded().flat_map(|v| {
                std::iter::repeat_n(v.value_iterated_to(), v.count_at_value() as usize)
            });
            let values: Vec<u64> = values.collect();
            if node == 2 {
                at_node[usize::from(junk)].extend(&values);
            }
            at_all[usize::from(junk)].extend(values);
        }
    }
    drop(orders);
    let told = attacker.wait_with_output().expect("it ends with its orders").stdout;
    let sent: u64 = String::from_utf8_lossy(&told).trim().parse().unwrap_or(0);
    let handle = network.nodes()[2].state().gossip.clone().expect("gossip is on");
    let snapshot = handle.fresh_snapshot().await;
    let barred: u64 = snapshot.barred.iter().map(|(_, n)| n).sum();
    let mut out = std::io::stdout().lock();
    let _ = writeln!(
        out,
        "\nflood: 4 nodes, gossip always on, {pairs} blocks in peace and {pairs} flooded at one node\n\
         {sent} junk messages in {:.1} s ({:.0} a second), barred {barred} times, {} refused at the \
         door\nresident memory of the four grew by {:.1} MiB in the blocks in peace and \
         by {:.1} MiB in the flooded ones",
        flooded.as_secs_f64(),
        sent as f64 / flooded.as_secs_f64(),
        snapshot.refused.iter().map(|(_, n)| n).sum::<u64>(),
        grew[0],
        grew[1],
    );
    let _ = writeln!(
        out,
        "{:<22}{:>10}{:>10}{:>8}",
        "latency of messages", "peace ms", "flood ms", "×"
    );
    for (what, mut values) in [("the flooded node", at_node), ("all followers", at_all)] {
        values.iter_mut().for_each(|v| v.sort_unstable());
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
            let ms = |v: &[u64]| v[((v.len() - 1) as f64 * share) as usize] as f64 / 1_000.0;
            let (peace, flood) = (ms(&values[0]), ms(&values[1]));
            let label = format!("{what}, {name}");
            let _ = writeln!(out, "{label:<22}{peace:>10.2}{flood:>10.2}{:>8.2}", flood / peace);
        }
    }
    drop(out);
    network.stop().await;
}

fn main() {
    // `cargo test --benches` and `cargo bench -- --test` only check that it runs.
    let args: Vec<String> = std::env::args().collect();
    if let [_, junk, address] = args.as_slice()
        && junk == "--junk"
    {
        attack(address);
        return;
    }
    let short = std::env::args().any(|arg| arg == "--test");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        standby(if short { 1 } else { 6 }).await;
        flood(if short { 1 } else { 10 }).await;
    });
}
