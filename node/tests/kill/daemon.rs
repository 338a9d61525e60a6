//! A daemon among others on a machine: signals, a log that breaks, a file that differs.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fragcast_shredder::BlockBuilder;
use serde_json::Value;

use crate::common::{GUARD, fragcast, guarded};
use crate::processes::{Network, Process};

fn signal(process: &Process, name: &str) {
    let pid = process.running.as_ref().unwrap().0.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

/// Waits until the log has a line with `part`.
async fn logged(process: &Process, part: &str) {
    let begun = Instant::now();
    while !process.log().contains(part) {
        assert!(begun.elapsed() < GUARD, "no {part} in\n{}", process.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends a process with SIGTERM; its exit code.
async fn end(process: &mut Process) -> Option<i32> {
    signal(process, "-TERM");
    let mut running = process.running.take().unwrap();
    let ended = tokio::task::spawn_blocking(move || running.0.wait().unwrap());
    guarded(ended).await.unwrap().code()
}

async fn metric(process: &Process, line: &str) -> Option<f64> {
    let metrics = process.get("/metrics").await;
    metrics.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_are_answered_and_a_broken_log_ends_nothing() {
    let mut net = Network::new(2);
    // One logs to a disk that is full, the other to a file.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    net.processes[1].start_with(Stdio::from(full));
    net.processes[0].start();
    net.all_connected().await;
    for name in ["-HUP", "-USR1", "-USR2"] {
        for process in &net.processes {
            signal(process, name);
        }
    }
    let follower = &net.processes[0];
    logged(follower, "the configuration was read again").await;
    logged(follower, "status").await;
    let begun = Instant::now();
    while metric(&net.processes[1], "fragcast_log_dropped_total ").await.unwrap() == 0.0 {
        assert!(begun.elapsed() < GUARD, "no line was dropped");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What can change does; what cannot is named.
    follower.edit("node.toml", "filter = \"info\"", "filter = \"debug\"");
    follower.edit("node.toml", "unreached = \"refuse\"", "unreached = \"tell\"");
    follower.edit("node.toml", "uplink_mbit = 1000", "uplink_mbit = 999");
    signal(follower, "-HUP");
    logged(follower, "p2p.uplink_mbit").await;
    logged(follower, "leader.unreached").await;
    let block = BlockBuilder::new(1);
    let answer = net.post(block.env()).await;
    assert_eq!(
        (&answer["result"]["status"], &answer["result"]["peers"]),
        (&"OK".into(), &1.into())
    );
    logged(follower, "DEBUG").await;
    // A configuration that cannot be used changes nothing.
    follower.edit("node.toml", "unreached = \"tell\"", "unreached = \"hope\"");
    signal(follower, "-HUP");
    logged(follower, "was not read again").await;
    assert_eq!(net.post(block.seal()).await["result"]["status"], "OK");
    let log = net.processes[0].log();
    assert!(!log.contains('\u{1b}'), "no colours in a file");
    // Whatever its log does, a node ends when it is told to.
    for process in &mut net.processes {
        assert_eq!(end(process).await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn network_files_that_differ_are_told_of_on_both_sides() {
    let mut net = Network::new(2);
    let other = &net.processes[1];
    let text = std::fs::read_to_string(other.dir.join("network.toml")).unwrap();
    let text = format!("dialect = \"v0-blob\"\nblocks_per_term = 7\n{text}");
    std::fs::write(other.dir.join("network.toml"), text).unwrap();
    net.processes.iter_mut().for_each(Process::start);
    net.all_connected().await;
    for process in &net.processes {
        logged(process, "blocks_per_term is").await;
        logged(process, "dialect is").await;
        let ready = process.get("/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("dialect is"), "{ready}");
        for kind in ["dialect", "blocks_per_term"] {
            let line = format!("fragcast_peers_differing{{in=\"{kind}\"}} ");
            assert_eq!(metric(process, &line).await, Some(1.0), "{kind}");
        }
        assert_eq!(process.log().matches("dialect is").count(), 1);
    }
    // A message of one dialect is none in the other; that is no flood of lines.
    for number in 1..=20 {
        let mut block = BlockBuilder::new(number);
        net.post(block.env()).await;
        net.post(block.frag([vec![1; 100]])).await;
        net.post(block.seal()).await;
    }
    for process in &net.processes {
        let log = process.log();
        let lines = log.lines().filter(|line| line.contains("WARN")).count();
        assert!(lines < 20, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_alone_says_so_and_who_leads_is_told() {
    let mut net = Network::new(2);
    net.processes[0].start();
    let leader = &net.processes[0];
    leader.until("members", 2).await;
    let block = BlockBuilder::new(1);
    for _ in 0..3 {
        let answer = net.post(block.env()).await;
        assert_eq!(answer["error"]["code"], -32005, "{answer}");
    }
    assert!(leader.get("/readyz").await.starts_with("HTTP/1.1 503"));
    net.processes[1].start();
    net.all_connected().await;
    net.send(block.env()).await;
    // Nothing of what was refused has used up an attempt, and the leader alone leads.
    assert_eq!(net.processes[0].status().await["leads"], Value::Bool(true));
    assert_eq!(net.processes[1].status().await["leads"], Value::Bool(false));
    net.processes[1].until("opened", 1).await;
}

#[test]
fn check_config_tells_what_run_would_refuse_or_what_could_not_work() {
    let net = Network::new(2);
    let check = |process: &Process| {
        let config = process.dir.join("node.toml");
        let ended = fragcast(&["check-config", "--config", config.to_str().unwrap()]);
        (ended.code, format!("{}{}", ended.stdout, ended.stderr))
    };
    let refused = |process: &Process, part: &str| {
        let (code, text) = check(process);
        assert!(code == Some(1) && text.contains(part) && !text.ends_with("ok\n"), "{text}");
    };
    let [leader, follower] = [&net.processes[0], &net.processes[1]];
    let (code, text) = check(leader);
    assert_eq!(code, Some(0));
    assert!(text.contains("block time   ") && text.contains("block_time_ms"), "{text}");
    // The key that the delegation names.
    let key = leader.dir.join("leader.key");
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    refused(leader, "leader.key");
    std::fs::write(&key, kept).unwrap();
    // Whatever the umask of whoever runs the tests.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    refused(leader, "chmod 600");
    std::fs::remove_file(&key).unwrap();
    // A delegation to somebody who is no member.
    let text = std::fs::read_to_string(follower.dir.join("network.toml")).unwrap();
    let mut members = text.split("[[members]]");
    let head = members.next().unwrap();
    let second = members.nth(1).unwrap();
    std::fs::write(follower.dir.join("network.toml"), format!("{head}[[members]]{second}"))
        .unwrap();
    refused(follower, "no member");
    std::fs::write(follower.dir.join("network.toml"), &text).unwrap();
    assert_eq!(check(follower).0, Some(0));
    // What cannot be written.
    follower.edit("node.toml", "journal = ", "journal = \"none/such\"\n# ");
    refused(follower, "leader.journal");
    follower.edit("node.toml", "journal = \"none/such\"\n# ", "journal = ");
    follower.edit("node.toml", "db = ", "db = \"none/such\"\n# ");
    follower.edit("node.toml", "chain = \"\"", "chain = \"dev\"");
    let (_, text) = check(follower);
    assert!(text.contains("execution.db") || text.contains("chain id"), "{text}");
    // A filter that `run` refuses.
    follower.edit("node.toml", "filter = \"info\"", "filter = \"fragcast=loud\"");
    refused(follower, "log.filter");
    // An error is told once.
    let (_, text) = check(follower);
    assert_eq!(text.matches("log.filter").count(), 1, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_config_looks_into_the_database() {
    let chain_id = fragcast_execution::devnet::DevnetConfig::default().chain_id;
    let mut net = Network::of(2, chain_id, &[]);
    net.processes[1].edit("node.toml", "chain = \"\"", "chain = \"dev\"");
    let check = |process: &Process| {
        let config = process.dir.join("node.toml");
        let ended = fragcast(&["check-config", "--config", config.to_str().unwrap()]);
        (ended.code, format!("{}{}", ended.stdout, ended.stderr))
    };
    let (code, text) = check(&net.processes[1]);
    assert!(code == Some(0) && text.contains("will be made from the genesis"), "{text}");
    net.processes.iter_mut().for_each(Process::start);
    net.all_connected().await;
    let (code, text) = check(&net.processes[1]);
    assert!(code == Some(1) && text.contains("execution.db") && text.contains("in use"), "{text}");
    assert_eq!(end(&mut net.processes[1]).await, Some(0));
    let (code, text) = check(&net.processes[1]);
    assert!(code == Some(0) && text.contains("block 0 (0x"), "{text}");
    // Another file under its name.
    std::fs::write(net.processes[1].dir.join("chain.redb"), "something else").unwrap();
    let (code, text) = check(&net.processes[1]);
    assert!(code == Some(1) && text.contains("execution.db"), "{text}");
}
