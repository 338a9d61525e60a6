//! A leader that is dead for its term, in a network of processes with substitutes: the next registered
//! gateway leads in its place, everybody verifies its blocks, and it gives way to who was to lead.

#![expect(clippy::print_stderr, reason = "what was measured")]

use std::time::Duration;

use fragcast_execution::devnet::{DevnetConfig, DevnetGateway};
use fragcast_shredder::{Dialect, Frag, GatewayKey, Message};
use serde_json::Value;

use crate::common::{guarded, post_signed};
use crate::processes::{Network, Process};
use crate::restarts::until_executed;
use crate::sides::{change, delegate};

const TERM: u64 = 4;

struct Net {
    net: Network,
    keys: [GatewayKey; 3],
    builder: DevnetGateway,
}

impl Net {
    /// Four nodes that execute, of which the first three each lead for a gateway, with one substitute.
    async fn new() -> Self {
        let config = DevnetConfig::default();
        let net = Network::of(4, config.chain_id, &["--chain", "dev"]);
        let key = |seed| GatewayKey::from_bytes([seed; 32]).unwrap();
        let keys = [net.take_gateway_key(), key(0x21), key(0x22)];
        let delegations: Vec<String> = keys
            .iter()
            .zip(&net.processes)
            .map(|(key, process)| delegate(config.chain_id, key, process, 0, 1))
            .collect();
        for process in &net.processes {
            change(process, |file| {
                (file.blocks_per_term, file.substitutes) = (TERM, 1);
                file.gateways = keys.iter().map(GatewayKey::address).collect();
                file.delegations.clone_from(&delegations);
            });
            let (usual, short) = ("substitute_after_ms = 1000", "substitute_after_ms = 300");
            process.edit("node.toml", usual, short);
        }
        let builder = DevnetGateway::new(&config, Dialect::V0).unwrap();
        let mut all = Self { net, keys, builder };
        all.net.processes.iter_mut().for_each(Process::start);
        all.net.all_connected().await;
        all
    }

    /// Posts a message with a gateway's key to the node that leads for it.
    async fn post(&self, gateway: usize, message: impl Into<Message>) -> Value {
        let url = self.net.processes[gateway].ingest_url();
        post_signed(&url, &self.keys[gateway], message).await
    }

    /// The same, until its time has come; how often it was too early.
    async fn post_in_time(&self, gateway: usize, message: impl Into<Message>) -> usize {
        let message = message.into();
        guarded(async {
            for early in 0.. {
                let answer = self.post(gateway, message.clone()).await;
                if answer["result"] == "OK" {
                    return early;
                }
                let error = &answer["error"];
                assert_eq!(
                    (&error["code"], &error["data"]["overtakenBy"]),
                    (&(-32006).into(), &Value::Null),
                    "{answer}"
                );
                let wait = error["data"]["waitMs"].as_u64().unwrap_or(20);
                tokio::time::sleep(Duration::from_millis(wait.min(200))).await;
            }
            unreachable!()
        })
        .await
    }

    /// Builds a block, which a gateway posts, as soon as it may.
    async fn build(&mut self, gateway: usize) -> (u64, usize) {
        let env = self.builder.open(0).unwrap();
        let number = env.number;
        let early = self.post_in_time(gateway, env).await;
        for last in [false, true] {
            let frag: Frag = self.builder.frag(5, last).unwrap();
            assert_eq!(self.post(gateway, frag).await["result"], "OK");
        }
        let seal = self.builder.seal().unwrap();
        assert_eq!(self.post(gateway, seal).await["result"], "OK");
        (number, early)
    }

    /// Waits until a node has a block marked as a substitute's, or not any more.
    async fn until_substituted(&self, node: usize, block: u64, marked: bool) {
        guarded(async {
            loop {
                let status = self.net.processes[node].status().await;
                let marks = status["substituted"].as_array().unwrap();
                if marks.iter().any(|mark| mark["block"] == block) == marked {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Waits until all that run have verified a block.
    async fn verified(&self, block: u64) {
        for process in self.net.processes.iter().filter(|process| process.running.is_some()) {
            until_executed(process, block).await;
            let status = process.status().await;
            assert_eq!(status["execution"]["rejected"], 0, "{status:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_substitute_leads_for_a_leader_that_is_dead_and_gives_way_to_one_that_is_late() {
    let mut net = Net::new().await;
    for number in 1..TERM {
        assert_eq!(net.build(0).await, (number, 0));
        net.verified(number).await;
    }
    // The second gateway's node is killed before its term, and the third gateway stands in.
    net.net.processes[1].kill();
    let mut early = 0;
    for number in TERM..2 * TERM {
        let (built, tries) = net.build(2).await;
        early += tries;
        assert_eq!(built, number);
        net.verified(number).await;
    }
    eprintln!("{early} of the substitute's Envs came before their time");
    for process in net.net.processes.iter().filter(|process| process.running.is_some()) {
        let status = process.status().await;
        let marks = status["substituted"].as_array().unwrap();
        let blocks: Vec<u64> = marks.iter().map(|mark| mark["block"].as_u64().unwrap()).collect();
        assert_eq!(blocks, (TERM..2 * TERM).rev().collect::<Vec<_>>(), "{status:#}");
        let third: Value = serde_json::to_value(net.keys[2].address()).unwrap();
        assert!(marks.iter().all(|mark| mark["rank"] == 1 && mark["gateway"] == third));
        process.until_metric("fragcast_blocks_substituted_total ", 4.0).await;
        process.assert_peace().await;
    }
    // Who was killed gets the substitute's blocks as any others, and the third leads its own term.
    net.net.processes[1].start();
    net.net.all_connected().await;
    for number in 2 * TERM..3 * TERM {
        assert_eq!(net.build(2).await, (number, 0), "its own");
        net.verified(number).await;
    }

    // In the first gateway's next term the second, its substitute now, opens a block, and the first
    // comes after all: the lower rank wins everywhere.
    let env = net.builder.open(0).unwrap();
    let number = env.number;
    assert_eq!(number, 3 * TERM);
    net.post_in_time(1, env.clone()).await;
    let frag: Frag = net.builder.frag(5, false).unwrap();
    assert_eq!(net.post(1, frag.clone()).await["result"], "OK");
    net.until_substituted(1, number, true).await;
    assert_eq!(net.post(0, env).await["result"], "OK");
    assert_eq!(net.post(0, frag).await["result"], "OK");
    let frag: Frag = net.builder.frag(5, true).unwrap();
    // The Env of the first is on its way to the second's node.
    net.until_substituted(1, number, false).await;
    let refused = net.post(1, frag.clone()).await;
    assert_eq!(refused["error"]["code"], -32006, "{refused}");
    assert_eq!(refused["error"]["data"]["overtakenBy"], 0, "{refused}");
    assert_eq!(net.post(0, frag).await["result"], "OK");
    let seal = net.builder.seal().unwrap();
    assert_eq!(net.post(0, seal).await["result"], "OK");
    net.verified(number).await;
    for process in &net.net.processes {
        let status = process.status().await;
        let marks = status["substituted"].as_array().unwrap();
        assert!(marks.iter().all(|mark| mark["block"] != number), "{status:#}");
        process.assert_peace().await;
    }
}
