//! A leader whose gateway's key is elsewhere: real processes and a remote signer.

use std::time::Duration;

use fragcast::gateway::keys;
use fragcast::lab::signer::{Mood, TestSigner};
use fragcast_shredder::{BlockBuilder, Message};
use serde_json::Value;

use crate::common::{fragcast, guarded};
use crate::processes::{Network, Process};

/// Waits until the node's part on its delegation is as `fine` says.
async fn told(process: &Process, fine: impl Fn(&Value) -> bool) -> Value {
    guarded(async {
        loop {
            let status = process.operator_status().await;
            if fine(&status["delegation"]) {
                return status["delegation"].clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

async fn build(net: &Network, number: u64) {
    let mut block = BlockBuilder::new(number);
    net.send(block.env()).await;
    net.send(block.frag([vec![7; 500]])).await;
    net.send(block.seal()).await;
    for follower in &net.processes[1..] {
        follower.until("sealed", number).await;
    }
}

/// Lets a node ask the signer.
fn ask(process: &Process, signer: &TestSigner, api: &str) {
    process.edit("node.toml", "signer = \"\"", &format!("signer = \"{}\"", signer.url()));
    process.edit("node.toml", "signer_api = \"web3signer\"", &format!("signer_api = \"{api}\""));
    process.edit("node.toml", "gateway = \"\"", &format!("gateway = \"{}\"", signer.gateway()));
}

/// A network whose files have no delegation and whose first node has a signer instead.
async fn with_signer(nodes: usize, api: &str, more: &str) -> (Network, TestSigner) {
    let net = Network::new(nodes);
    // As if it had never been here.
    let gateway = net.take_gateway_key();
    let signer = TestSigner::start(gateway).await.unwrap();
    for process in &net.processes {
        let path = process.dir.join("network.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("delegations"));
        std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    }
    ask(&net.processes[0], &signer, api);
    net.processes[0].edit("node.toml", "delegation_blocks = 0", more);
    (net, signer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_gateway_s_key_is_elsewhere_is_delegated_to_and_outlives_the_signer() {
    let (mut net, mut signer) = with_signer(3, "web3signer", "delegation_blocks = 64").await;
    let config = net.processes[0].dir.join("node.toml");
    let checked = fragcast(&["check-config", "--config", config.to_str().unwrap()]).ok();
    assert!(checked.stdout.contains("signer       web3signer at"), "{}", checked.stdout);
    // It is away when the node starts, and then it refuses: both are told, and it is asked again.
    signer.go_away().await;
    let checked = fragcast(&["check-config", "--config", config.to_str().unwrap()]);
    assert!(checked.stdout.contains("start the signer"), "{}", checked.stdout);
    net.processes.iter_mut().for_each(Process::start);
    net.all_connected().await;
    let asking = told(&net.processes[0], |told| told["error"].is_string()).await;
    assert!(asking["error"].as_str().unwrap().contains("start the signer"), "{asking}");
    let public = net.processes[0].status().await["delegation"].clone();
    assert!(public["error"].is_string() && public["signer"].is_null(), "{public}");
    assert!(!public.to_string().contains("http://"), "{public}");
    let ready = net.processes[0].get("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("could not be had"), "{ready}");
    let refused = net.post(BlockBuilder::new(1).env()).await;
    assert_eq!(refused["error"]["code"], -32003, "{refused}");
    signer.desk().has_key = false;
    signer.come_back().await.unwrap();
    told(&net.processes[0], |told| told["error"].as_str().is_some_and(|e| e.contains("load")))
        .await;
    signer.desk().has_key = true;
    let held = told(&net.processes[0], |told| told["state"] == "held").await;
    assert_eq!((&held["first"], &held["last"]), (&1.into(), &64.into()), "{held}");
    for number in 1..=3 {
        build(&net, number).await;
    }
    // It holds without the signer, through a restart of the node, which asks for nothing.
    let asked = signer.desk().asked;
    signer.go_away().await;
    net.processes[0].kill();
    net.processes[0].start();
    net.all_connected().await;
    told(&net.processes[0], |told| told["state"] == "held").await;
    build(&net, 4).await;
    // In its last quarter it is renewed, from the next block on.
    signer.come_back().await.unwrap();
    for number in 5..=49 {
        build(&net, number).await;
    }
    let renewed = told(&net.processes[0], |told| told["last"].as_u64() > Some(64)).await;
    assert!(renewed["sequence"].as_u64() > held["sequence"].as_u64(), "{renewed}");
    assert_eq!(signer.desk().asked, asked + 1, "one signature for the renewal");
    for number in 50..=67 {
        build(&net, number).await;
    }
    let metrics = net.processes[0].get("/metrics").await;
    assert!(
        metrics.contains("fragcast_delegation_asked_total{result=\"unknown_key\"}"),
        "{metrics}"
    );
    let left = metrics.lines().find_map(|l| l.strip_prefix("fragcast_delegation_blocks_left "));
    assert!(left.is_some_and(|left| left.parse::<f64>().unwrap() > 0.0), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_takes_over_between_two_blocks_and_the_first_leaves_it_at_that() {
    let (mut net, signer) = with_signer(3, "clef", "delegation_blocks = 0").await;
    // Nobody approves at first.
    signer.desk().mood = Mood::Refuses;
    net.processes.iter_mut().for_each(Process::start);
    net.all_connected().await;
    let asking = told(&net.processes[0], |told| told["error"].is_string()).await;
    assert!(asking["error"].as_str().unwrap().contains("approve the request there"), "{asking}");
    signer.desk().mood = Mood::Signs;
    told(&net.processes[0], |told| told["state"] == "held").await;
    let text = signer.desk().texts.last().cloned().unwrap();
    assert!(text.contains("chain 5\nblocks 0 to "), "what people approve: {text}");
    for number in 1..=2 {
        build(&net, number).await;
    }
    // The gateway moves to the second node, whose leader key is another.
    ask(&net.processes[1], &signer, "clef");
    net.processes[1].kill();
    net.processes[1].start();
    net.all_connected().await;
    build(&net, 3).await;
    let held = told(&net.processes[1], |told| told["state"] == "held").await;
    let first = held["first"].as_u64().unwrap();
    assert!(first >= 2 + 8, "nobody has it open: {held}");
    // Up to there the first node leads, and not a block longer.
    for number in 4..first {
        build(&net, number).await;
    }
    let refused = net.post(BlockBuilder::new(first).env()).await;
    assert_eq!(refused["error"]["code"], -32003, "{refused}");
    let elsewhere = told(&net.processes[0], |told| told["state"] == "elsewhere").await;
    assert_eq!(elsewhere["elsewhere"], net.processes[1].status().await["peer"], "{elsewhere}");
    for number in first..first + 3 {
        let mut block = BlockBuilder::new(number);
        let messages: [Message; 3] =
            [block.env().into(), block.frag([vec![7; 500]]).into(), block.seal().into()];
        for message in messages {
            let answer = net.post_at(1, message).await;
            assert_eq!(answer["result"], "OK", "{answer}");
        }
        for process in &net.processes {
            process.until("sealed", number).await;
        }
    }
    // Nor does a restart change that.
    let asked = signer.desk().asked;
    net.processes[0].kill();
    net.processes[0].start();
    net.all_connected().await;
    told(&net.processes[0], |told| told["state"] == "elsewhere").await;
    assert_eq!(signer.desk().asked, asked);
    for process in &net.processes {
        let metrics = process.get("/metrics").await;
        for name in ["barred", "equivocation", "delegated_twice"] {
            let line = format!("fragcast_events_total{{kind=\"{name}\"}} 0");
            assert!(metrics.contains(&line), "{line}\n{metrics}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_that_takes_long_takes_over_no_block_that_is_open() {
    let (mut net, signer) = with_signer(3, "clef", "delegation_blocks = 0").await;
    net.processes.iter_mut().for_each(Process::start);
    net.all_connected().await;
    told(&net.processes[0], |told| told["state"] == "held").await;
    for number in 1..=2 {
        build(&net, number).await;
    }
    // The gateway moves to the second node, and somebody has to approve it.
    signer.desk().mood = Mood::Holds;
    ask(&net.processes[1], &signer, "clef");
    net.processes[1].kill();
    net.processes[1].start();
    net.all_connected().await;
    build(&net, 3).await;
    guarded(async {
        while signer.desk().asked < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // Meanwhile the first node leads on, far beyond the first block that was asked for.
    for number in 4..=24 {
        build(&net, number).await;
    }
    signer.desk().mood = Mood::Signs;
    let held = told(&net.processes[1], |told| told["state"] == "held").await;
    let first = held["first"].as_u64().unwrap();
    assert!(first > 24 + 8, "further ahead by what the signer took: {held}");
    assert_eq!(signer.desk().asked, 3, "what came too late is asked for again, once");
    let metrics = net.processes[1].get("/metrics").await;
    assert!(metrics.contains("fragcast_delegation_asked_total{result=\"late\"} 1"), "{metrics}");
    // Up to there the first node leads: nobody has ever known another leader of these blocks.
    for number in 25..first {
        build(&net, number).await;
    }
    let refused = net.post(BlockBuilder::new(first).env()).await;
    assert_eq!(refused["error"]["code"], -32003, "{refused}");
    for process in &net.processes {
        let metrics = process.get("/metrics").await;
        for name in ["barred", "equivocation", "delegated_twice"] {
            let line = format!("fragcast_events_total{{kind=\"{name}\"}} 0");
            assert!(metrics.contains(&line), "{line}\n{metrics}");
        }
    }
}

#[test]
fn a_delegation_is_made_by_hand_with_a_wallet_or_a_signer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.key");
    let key = keys::create_gateway(&path).unwrap();
    let gateway = key.address().to_string();
    let peer = "01".repeat(32);
    let leader = {
        let made = dir.path().join("leader.key");
        let made = fragcast(&["keygen", "--kind", "leader", "--out", made.to_str().unwrap()]).ok();
        made.stdout.trim().rsplit(' ').next().unwrap().to_owned()
    };
    let args = ["delegate", "--chain-id", "5", "--peer", &peer, "--leader", &leader];
    let run = |more: &[&str]| fragcast(&[&args[..], more].concat());
    // Without any key: the text.
    let text = run(&[]).ok().stdout;
    let signed = &text[text.find("fragcast 2026").unwrap()..];
    let digest = alloy_primitives::eip191_hash_message(signed.trim_end());
    let signature = alloy_primitives::hex::encode(key.sign_digest(&digest).as_bytes());
    let by_wallet = run(&["--signature", &signature, "--gateway", &gateway]).ok().stdout;
    assert!(by_wallet.contains(&format!("gateways = [\"{gateway}\"]")), "{by_wallet}");
    // Of another text.
    let wrong = run(&["--signature", &signature, "--gateway", &gateway, "--first", "9"]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("compare the text"), "{}", wrong.stderr);
    let junk = run(&["--signature", "0x12", "--gateway", &gateway]);
    assert!(junk.stderr.contains("65 bytes"), "{}", junk.stderr);
    // One that could never be replaced.
    let highest = run(&["--sequence", &u64::MAX.to_string()]);
    assert_eq!(highest.code, Some(1));
    assert!(highest.stderr.contains("no later delegation"), "{}", highest.stderr);
    // By a signer.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let signer = runtime.block_on(TestSigner::start(key)).unwrap();
    for api in ["web3signer", "clef", "eth_sign"] {
        let url = signer.url();
        let more = ["--signer", &url, "--signer-api", api, "--gateway", &gateway];
        let made = run(&more).ok().stdout;
        assert!(made.contains("delegations = ["), "{made}");
    }
    // By the key itself, as ever.
    let by_key = run(&["--gateway-key", path.to_str().unwrap()]).ok().stdout;
    assert!(by_key.contains("delegations = ["), "{by_key}");
    assert_ne!(by_key, by_wallet, "other forms of one statement");
    let both = run(&["--gateway-key", path.to_str().unwrap(), "--gateway", &gateway]);
    assert_eq!(both.code, Some(2), "{}", both.stderr);
}
