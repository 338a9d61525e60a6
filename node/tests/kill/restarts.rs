//! Followers that are stopped, killed and started again in a running network, and are level each
//! time; and what an operator is told where peers do not keep the blocks any more.

#![expect(clippy::print_stderr, reason = "what was measured")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fragcast_execution::devnet::{DevnetConfig, DevnetGateway};
use fragcast_shredder::Dialect;

use crate::common::{GUARD, guarded};
use crate::processes::{Network, Process};

/// How often the follower is restarted; 200 in the long form.
const ROUNDS: &str = "FRAGCAST_RESTARTS";

/// A network that executes, and the gateway that builds its blocks.
pub(crate) struct Running {
    pub(crate) net: Network,
    gateway: DevnetGateway,
    sealed: Arc<AtomicU64>,
}

impl Running {
    pub(crate) async fn start(nodes: usize) -> Self {
        let config = DevnetConfig::default();
        let gateway = DevnetGateway::new(&config, Dialect::V0).unwrap();
        let net = Network::of(nodes, config.chain_id, &["--chain", "dev"]);
        Self { net, gateway, sealed: Arc::default() }
    }

    pub(crate) async fn start_all(&mut self) {
        self.net.processes.iter_mut().for_each(Process::start);
        self.net.all_connected().await;
    }

    /// Builds and posts a block.
    pub(crate) async fn block(&mut self) {
        build(&self.net, &mut self.gateway, &self.sealed).await;
    }
}

async fn build(net: &Network, gateway: &mut DevnetGateway, sealed: &AtomicU64) {
    let env = gateway.open(0).unwrap();
    let number = env.number;
    net.send(env).await;
    for last in [false, true] {
        net.send(gateway.frag(5, last).unwrap()).await;
    }
    net.send(gateway.seal().unwrap()).await;
    sealed.store(number, Ordering::SeqCst);
}

fn signal(process: &Process, signal: &str) {
    let pid = process.running.as_ref().unwrap().0.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

/// SIGTERM, and waits for the end.
async fn stop(process: &mut Process) {
    signal(process, "-TERM");
    let mut running = process.running.take().unwrap();
    let ended = tokio::task::spawn_blocking(move || running.0.wait().unwrap());
    assert!(guarded(ended).await.unwrap().success());
}

async fn executed(process: &Process) -> Option<u64> {
    process.status().await["execution"]["latest"].as_u64()
}

/// Waits until a node has executed `block`; how long that took.
pub(crate) async fn until_executed(process: &Process, block: u64) -> Duration {
    let start = Instant::now();
    loop {
        let latest = executed(process).await;
        if latest.is_some_and(|latest| latest >= block) {
            return start.elapsed();
        }
        assert!(
            start.elapsed() < GUARD,
            "{latest:?} and not {block}: {:#}\n{}",
            process.status().await,
            process.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_restarted_again_and_again_is_level_each_time() {
    let rounds = std::env::var(ROUNDS).ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    let mut running = Running::start(4).await;
    running.start_all().await;
    let mut follower = running.net.processes.pop().unwrap();
    let (sealed, over) = (Arc::clone(&running.sealed), Arc::new(AtomicBool::new(false)));
    let ending = Arc::clone(&over);
    // Ten blocks a second, or as many as a follower that stays executes here; whatever becomes of
    // the other.
    let building = tokio::spawn(async move {
        while !ending.load(Ordering::SeqCst) {
            running.block().await;
            let built = running.sealed.load(Ordering::SeqCst);
            until_executed(&running.net.processes[1], built.saturating_sub(2)).await;
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        running
    });
    let mut worst = Duration::ZERO;
    for round in 0..rounds {
        // At any moment of a block, and away for up to a second and a half.
        tokio::time::sleep(Duration::from_millis(150 + round * 37 % 100)).await;
        if round % 2 == 0 {
            stop(&mut follower).await;
        } else {
            follower.kill();
        }
        tokio::time::sleep(Duration::from_millis([400, 50, 1_500][round as usize % 3])).await;
        follower.start();
        let built = sealed.load(Ordering::SeqCst);
        let took = until_executed(&follower, built).await;
        worst = worst.max(took);
        // It goes on as if nothing had been.
        until_executed(&follower, sealed.load(Ordering::SeqCst) + 2).await;
    }
    over.store(true, Ordering::SeqCst);
    let running = guarded(building).await.unwrap();
    let last = sealed.load(Ordering::SeqCst);
    for process in running.net.processes.iter().chain([&follower]) {
        until_executed(process, last).await;
    }
    follower.until_ready().await;
    eprintln!("{rounds} restarts, {last} blocks; from the start to level {worst:?} at worst");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_missed_a_hundred_blocks_catches_up() {
    let mut running = Running::start(3).await;
    running.start_all().await;
    for _ in 0..3 {
        running.block().await;
    }
    until_executed(&running.net.processes[2], 3).await;
    running.net.processes[2].kill();
    for _ in 0..100 {
        running.block().await;
    }
    let follower = &mut running.net.processes[2];
    follower.start();
    let took = until_executed(follower, 103).await;
    // No client is configured: the blocks come from peers' windows alone.
    eprintln!("level with 100 blocks {took:?} after the start");
    running.block().await;
    until_executed(&running.net.processes[2], 104).await;
    let status = running.net.processes[2].status().await;
    assert_eq!(status["execution"]["rejected"], 0, "{status:#}");
    assert_eq!(status["execution"]["imported"], 0, "{status:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_in_mid_block_is_complete_with_the_next() {
    let mut running = Running::start(3).await;
    for process in &mut running.net.processes[..2] {
        process.start();
    }
    for process in &running.net.processes[..2] {
        process.until("connected", 1).await;
    }
    for _ in 0..2 {
        running.block().await;
    }
    // Block 3 is half sent when the node starts.
    let Running { net, gateway, .. } = &mut running;
    net.send(gateway.open(0).unwrap()).await;
    net.send(gateway.frag(5, false).unwrap()).await;
    net.processes[2].start();
    net.all_connected().await;
    net.send(gateway.frag(5, false).unwrap()).await;
    let start = Instant::now();
    let pending = async |net: &Network, block: u64| {
        net.processes[2].status().await["execution"]["pending"] == block
    };
    // What it can lose are preconfirmations of this block.
    while !pending(net, 3).await && start.elapsed() < Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eprintln!("preconfirms the block in which it started: {}", pending(net, 3).await);
    net.send(gateway.frag(5, true).unwrap()).await;
    net.send(gateway.seal().unwrap()).await;
    // Of the next it preconfirms a frag before there is more of it, and has verified the one before.
    let env = gateway.open(0).unwrap();
    assert_eq!(env.number, 4);
    net.send(env).await;
    net.send(gateway.frag(5, false).unwrap()).await;
    let took = until_executed(&net.processes[2], 3).await;
    guarded(async {
        while !pending(net, 4).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    eprintln!("has verified the block in which it started {took:?} after the next began");
    net.send(gateway.frag(5, true).unwrap()).await;
    net.send(gateway.seal().unwrap()).await;
    until_executed(&net.processes[2], 4).await;
    let status = net.processes[2].status().await;
    assert_eq!(status["execution"]["rejected"], 0, "{status:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_that_nobody_keeps_are_told_with_the_way_out() {
    let mut running = Running::start(3).await;
    for process in &running.net.processes[..2] {
        process.edit("node.toml", "catch_up_mib = 64", "catch_up_mib = 0");
    }
    running.start_all().await;
    running.block().await;
    until_executed(&running.net.processes[2], 1).await;
    running.net.processes[2].kill();
    // More than the window of repair.
    for _ in 0..100 {
        running.block().await;
    }
    running.net.processes[2].start();
    running.net.all_connected().await;
    running.block().await;
    let start = Instant::now();
    let answer = loop {
        let answer = running.net.processes[2].get("/readyz").await;
        if answer.contains("no peer keeps them") {
            break answer;
        }
        assert!(start.elapsed() < GUARD, "{answer}\n{}", running.net.processes[2].log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("client.url") && answer.contains("execution.db"), "{answer}");
    let follower = &running.net.processes[2];
    let log = follower.log();
    let warned = log.lines().find(|line| line.contains("no peer keeps these blocks"));
    assert!(warned.is_some_and(|line| line.contains("WARN")), "{log}");
    let metrics = follower.get("/metrics").await;
    let lost = metrics.lines().find_map(|line| {
        line.strip_prefix("fragcast_blocks_behind{kind=\"lost\"} ")?.parse::<u64>().ok()
    });
    assert!(lost.is_some_and(|lost| lost > 0), "{metrics}");

    // The way out that it names: the database of a node that is level.
    let level = executed(&running.net.processes[1]).await.unwrap();
    stop(&mut running.net.processes[2]).await;
    stop(&mut running.net.processes[1]).await;
    let db = |of: usize| running.net.processes[of].dir.join("chain.redb");
    std::fs::copy(db(1), db(2)).unwrap();
    running.net.processes[1..].iter_mut().for_each(Process::start);
    running.net.all_connected().await;
    running.block().await;
    until_executed(&running.net.processes[2], level + 1).await;
    running.net.processes[2].until_ready().await;
}

/// Its executor drops most of what comes in a burst, and stands still in the middle of blocks for
/// longer than one may be executed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_loses_blocks_on_the_way_to_its_executor_is_level_without_a_restart() {
    let mut running = Running::start(3).await;
    running.net.processes[2].edit("node.toml", "\nqueue = 4096", "\nqueue = 16");
    running.start_all().await;
    running.block().await;
    until_executed(&running.net.processes[2], 1).await;
    for round in 1..=2 {
        signal(&running.net.processes[2], "-STOP");
        for _ in 0..12 {
            running.block().await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        signal(&running.net.processes[2], "-CONT");
        for _ in 0..12 {
            running.block().await;
        }
        until_executed(&running.net.processes[2], 1 + 24 * round).await;
    }
    let status = running.net.processes[2].status().await;
    assert_eq!(status["execution"]["rejected"], 0, "{status:#}");
    eprintln!("{} messages found no room", status["execution"]["overrun"]);
}
