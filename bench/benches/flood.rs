//! What a member that floods costs everybody else: one table, a row for each kind of flood.
//!
//! Four nodes with real sockets on loopback send blocks of frags. A fifth member is no node but a
//! process of its own, which sends 100 Mbit/s of one kind to one of the four during every other
//! block. The blocks in between, in the same run, are what it is compared with. All share the
//! machine's processors, the flooding process too.
//!
//! `cargo bench -p fragcast-bench --bench flood [KIND]`; with `--test` each kind once, in short.

#[path = "flood/attack.rs"]
mod attack;
#[path = "flood/junk.rs"]
mod junk;
#[path = "flood/network.rs"]
mod network;

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use attack::Kind;
use network::Network;

/// Bits per second of the flood.
const RATE: u64 = 100_000_000;

/// Percentiles in the table.
const SHARES: [f64; 3] = [0.5, 0.9, 0.99];
/// Blocks in peace and blocks under the flood, each: one term has room for no more.
const PAIRS: u64 = 13;

/// The flooding process.
struct Attacker {
    child: Child,
    orders: ChildStdin,
}

/// What the flooding process tells at its end.
#[derive(Debug, Default, Clone, Copy)]
struct Told {
    bytes: u64,
    connections: u64,
}

impl Attacker {
    fn start(kind: Kind, udp: SocketAddr, gossip: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--attack", kind.name(), &udp.to_string(), gossip])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program again");
        // It has made what it is going to send.
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.as_mut().expect("piped"));
        out.read_line(&mut line).expect("it runs");
        assert_eq!(line, "ready\n");
        let orders = child.stdin.take().expect("piped");
        Self { child, orders }
    }

    fn order(&mut self, order: &str) {
        let _ = writeln!(self.orders, "{order}");
    }

    fn end(self) -> Told {
        drop(self.orders);
        let out = self.child.wait_with_output().expect("it ends with its orders").stdout;
        let text = String::from_utf8_lossy(&out).into_owned();
        let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
        let mut next = || numbers.next().unwrap_or(0);
        Told { bytes: next(), connections: next() }
    }
}

/// Resident memory, MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kib.map_or(f64::NAN, |kib: f64| kib / 1024.0)
}

fn percentile(values: &mut [u64], share: f64) -> f64 {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share) as usize).map_or(f64::NAN, |micros| *micros as f64 / 1_000.0)
}

/// Floods with one kind, and prints its row.
async fn flood(kind: Kind, pairs: u64) {
    let mut network = Network::start().await;
    let (udp, gossip) = network.victim();
    let mut attacker = Attacker::start(kind, udp, &gossip);
    // By the kind of block: latencies at the flooded node and at all, growth of memory.
    let mut at_victim = [(); 2].map(|()| Vec::new());
    let mut at_all = [(); 2].map(|()| Vec::new());
    let mut grew = [0.0; 2];
    let mut flooded = Duration::ZERO;
    // The first pair is not counted: connections and caches are warm after it.
    for number in 1..=2 * pairs + 2 {
        let on = number % 2 == 0;
        attacker.order(if on { "on" } else { "off" });
        let (before, start) = (resident(), Instant::now());
        let latencies = network.block(number).await;
        if on {
            flooded += start.elapsed();
        }
        if number <= 2 {
            continue;
        }
        grew[usize::from(on)] += resident() - before;
        for (node, micros) in latencies {
            if node == network::VICTIM {
                at_victim[usize::from(on)].push(micros);
            }
            at_all[usize::from(on)].push(micros);
        }
    }
    let told = attacker.end();
    let mut row = format!(
        "{:<16}{:>7.1}{:>6}",
        kind.name(),
        told.bytes as f64 * 8.0 / flooded.as_secs_f64() / 1e6,
        told.connections,
    );
    for [peace, flood] in [&mut at_victim, &mut at_all] {
        for share in SHARES {
            let (peace, flood) = (percentile(peace, share), percentile(flood, share));
            row += &format!("{peace:>9.2}{flood:>8.2}{:>6.2}", flood / peace);
        }
    }
    let _ = writeln!(
        std::io::stdout(),
        "{row}{:>8.1}{:>7.1}{:>8.1}",
        grew[0],
        grew[1],
        network.victim_tables().await as f64 / 1_048_576.0,
    );
    network.stop().await;
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [attack, kind, udp, gossip] = args.as_slice()
        && attack == "--attack"
    {
        attack::run(kind.parse().expect("a kind"), udp.parse().expect("an address"), gossip);
        return;
    }
    let short = args.iter().any(|arg| arg == "--test");
    let asked: Vec<Kind> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
    let kinds = if asked.is_empty() { Kind::ALL.to_vec() } else { asked };
    let _ = writeln!(
        std::io::stdout(),
        "flood of {} Mbit/s by one member at one of four nodes; ms in peace, in the flood, their \
         ratio\n{:<16}{:>7}{:>6}{:>23}{:>23}{:>23}{:>23}{:>23}{:>23}{:>23}",
        RATE / 1_000_000,
        "kind",
        "Mbit/s",
        "conn",
        "flooded node p50",
        "flooded node p90",
        "flooded node p99",
        "all followers p50",
        "all followers p90",
        "all followers p99",
        "MiB: peace flood tables",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    for kind in kinds {
        runtime.block_on(flood(kind, if short { 1 } else { PAIRS }));
    }
}
