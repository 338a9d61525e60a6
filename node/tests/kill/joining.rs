//! Nodes that are in nobody's file follow a network of processes: with a bootstrap address and a
//! registry, and as guests.

#![expect(clippy::print_stderr, reason = "what was measured")]

use std::time::{Duration, Instant};

use fragcast::lab::registry::{Registered, SECRET, TestRegistry};
use fragcast_execution::devnet::DevnetConfig;

use crate::common::{GUARD, fragcast, guarded};
use crate::processes::{Network, Process};
use crate::restarts::{Running, until_executed};

const ARGS: [&str; 2] = ["--chain", "dev"];

/// Waits until a process says of itself what `fine` asks for.
async fn until(process: &Process, what: &str, fine: impl Fn(&serde_json::Value) -> bool) {
    let start = Instant::now();
    loop {
        let status = process.status().await;
        if fine(&status) {
            return;
        }
        let late = start.elapsed() > GUARD;
        assert!(!late, "not {what}: {status:#}\n{}", process.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Records are renewed every second, so that members come within seconds.
fn live(process: &Process) {
    process.edit("node.toml", "renew_s = 60", "renew_s = 1");
    process.edit("node.toml", "life_s = 300", "life_s = 60");
    process.edit("node.toml", "pull_ms = 2000", "pull_ms = 500");
}

/// Nothing of the secret that is in a registry's rows is in what a node writes and tells.
async fn assert_no_secret(process: &Process) {
    let secret = SECRET.trim_start_matches("0x");
    let told = format!("{}{}", process.status().await, process.get("/metrics").await);
    assert!(!told.contains(secret) && !process.log().contains(secret));
    for file in std::fs::read_dir(&process.dir).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        let is_in = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!is_in, "a file has the secret");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_know_a_bootstrap_address_and_a_registry_follow_a_network_of_four() {
    let mut running = Running::start(4).await;
    let gateways = vec![running.net.gateway_address()];
    // Rows of [url, address, jwt] at one, of [block, url, address] at the other.
    let three = TestRegistry::start(Registered::new(gateways.clone())).await.unwrap();
    let four = Registered { with_block: true, ..Registered::new(gateways) };
    let four = TestRegistry::start(four).await.unwrap();
    for process in &running.net.processes {
        process.edit("node.toml", "live = \"auto\"", "live = \"on\"");
        process.edit("node.toml", "sources = []", &format!("sources = [\"{}\"]", three.url()));
        live(process);
    }
    running.start_all().await;
    for _ in 0..5 {
        running.block().await;
    }
    let chain = DevnetConfig::default().chain_id;
    let mut joined = Vec::new();
    for (number, registry) in [(0, &three), (3, &four)] {
        let known = &running.net.processes[number];
        let peer = known.status().await["peer"].as_str().unwrap().to_owned();
        let bootstrap = format!("{peer}@127.0.0.1:{}", known.p2p);
        let more = ["--bootstrap", &bootstrap, "--registry", &registry.url()];
        let mut process = running.net.stranger(chain, &more, &ARGS);
        live(&process);
        let network = std::fs::read_to_string(process.dir.join("network.toml")).unwrap();
        assert!(!network.contains("[[members]]") && network.contains("gateways = []"), "{network}");
        process.start();
        joined.push(process);
    }
    let start = Instant::now();
    for process in &joined {
        until_executed(process, 5).await;
    }
    eprintln!("level with a network of four {:?} after the start", start.elapsed());
    // They go on as the others do, and members they become with a later term.
    let mut built = 5;
    let all_in = |status: &serde_json::Value| status["tables"]["isMember"] == true;
    loop {
        running.block().await;
        built += 1;
        for process in &joined {
            until_executed(process, built).await;
        }
        let mut members = 0;
        for process in &joined {
            members += usize::from(all_in(&process.status().await));
        }
        if members == joined.len() {
            break;
        }
        // Each term's leader looks at its beginning; the records have to have come by then.
        let late = start.elapsed() > GUARD;
        assert!(!late, "{:#}", joined[0].status().await);
    }
    eprintln!("members at block {built}");
    for process in running.net.processes.iter().chain(&joined) {
        until_executed(process, built).await;
        let status = process.status().await;
        assert_eq!(status["execution"]["rejected"], 0, "{status:#}");
        assert_eq!(status["registry"]["sources"][0]["gateways"], 1, "{status:#}");
        assert_no_secret(process).await;
        process.assert_peace().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_of_processes_follows_as_the_readme_says_and_takes_another_member() {
    let mut running = Running::start(3).await;
    // The node that leads takes no guests, so a follower serves, which can be killed.
    running.net.processes[0].edit("node.toml", "max_guests = 64", "max_guests = 0");
    running.start_all().await;
    for _ in 0..3 {
        running.block().await;
    }
    let chain = DevnetConfig::default().chain_id;
    let mut guest = running.net.stranger(chain, &[], &ARGS);
    // The network file of the others.
    let theirs = running.net.processes[0].dir.join("network.toml");
    std::fs::copy(theirs, guest.dir.join("network.toml")).unwrap();
    let config = guest.dir.join("node.toml");
    let checked = fragcast(&["check-config", "--config", config.to_str().unwrap()]).ok();
    assert!(checked.stdout.contains("runs as a guest of 3 members"), "{}", checked.stdout);
    guest.start();
    until_executed(&guest, 3).await;
    until(&guest, "a guest with a member", |status| status["guest"]["primary"].is_string()).await;
    guest.until_ready().await;
    for number in 4..=6 {
        running.block().await;
        until_executed(&guest, number).await;
    }
    let served = async |net: &Network| {
        let mut served = 0;
        for process in net.processes.iter().filter(|process| process.running.is_some()) {
            served += process.status().await["guests"]["served"].as_u64().unwrap_or(0);
        }
        served
    };
    // It gives back the places that it does not need.
    guarded(async {
        while served(&running.net).await != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // The follower that serves it is killed.
    let primary = guest.status().await["guest"]["primary"].clone();
    let mut gone = None;
    for number in 1..3 {
        if running.net.processes[number].status().await["peer"] == primary {
            gone = Some(number);
        }
    }
    let gone = gone.expect("a follower serves it");
    running.net.processes[gone].kill();
    for number in 7..=12 {
        running.block().await;
        until_executed(&guest, number).await;
    }
    until(&guest, "a guest with another member", |status| {
        let now = &status["guest"]["primary"];
        now.is_string() && *now != primary
    })
    .await;
    let status = guest.status().await;
    assert_eq!(status["execution"]["rejected"], 0, "{status:#}");
    guest.assert_peace().await;
}
