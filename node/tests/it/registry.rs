//! A running network whose gateways come from a registry: a registration in mid-run, nodes that learn
//! of it late, a registry that is away, sources that differ.

use std::time::Duration;

use alloy_primitives::Address;
use fragcast::lab::local::{LocalNetwork, LocalOptions};
use fragcast::lab::registry::{Registered, SECRET, TestRegistry};
use fragcast::network::NetworkFile;
use fragcast_shredder::{BlockBuilder, Env};
use serde_json::Value;
use tokio::sync::RwLockReadGuard;

use crate::common::{self, GUARD, guarded};
use crate::running::serving;

const TERM: u64 = 10;

struct Net {
    network: LocalNetwork,
    dir: tempfile::TempDir,
    _serving: RwLockReadGuard<'static, ()>,
}

impl Net {
    /// Nodes of which three have a gateway's key and two are in the network file. Node n asks the
    /// sources that `sources` gives it.
    async fn new(nodes: usize, sources: Vec<Vec<String>>) -> Self {
        let serving = serving().await;
        let dir = tempfile::tempdir().unwrap();
        let options = LocalOptions {
            nodes,
            gateways: 3,
            registered: 2,
            blocks_per_term: TERM,
            registry: sources,
            ..LocalOptions::new(dir.path())
        };
        let network = LocalNetwork::start(&options, None).await.unwrap();
        network.connected(GUARD).await.unwrap();
        Self { network, dir, _serving: serving }
    }

    fn gateways(&self) -> Vec<Address> {
        self.network.gateways()
    }

    /// Posts a block to the node that leads it, as the first node has it.
    async fn post(&mut self, block: u64) {
        let builder = BlockBuilder::new(block);
        let env = Env { timestamp: block, ..builder.env() };
        self.network.post(env.into()).await.unwrap();
        self.network.post(builder.frag_at(0, [vec![7; 300]]).into()).await.unwrap();
        self.network.post(builder.seal_of(1).into()).await.unwrap();
    }

    /// Posts blocks, each of which everybody has before the next.
    async fn build(&mut self, blocks: std::ops::RangeInclusive<u64>) {
        for block in blocks {
            self.post(block).await;
            assert!(self.network.arrived(block, GUARD).await, "somebody misses block {block}");
        }
    }

    /// The first block of the newest list that a node knows, and how long the list is.
    fn newest(&self, node: usize) -> (u64, usize) {
        let epochs = self.network.nodes()[node].state().net.epochs();
        (epochs.newest().from_block(), epochs.newest().schedule().gateways().len())
    }

    /// Waits until these nodes know a list as long as that, from that block on.
    async fn agree(&self, nodes: impl IntoIterator<Item = usize>, newest: (u64, usize)) {
        for node in nodes {
            guarded(async {
                while self.newest(node) != newest {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        }
    }

    fn status(&self, node: usize) -> Value {
        self.network.nodes()[node].state().status()["registry"].clone()
    }

    /// Waits until a node's part on the registry is as `fine` says.
    async fn told(&self, node: usize, fine: impl Fn(&Value) -> bool) {
        guarded(async {
            while !fine(&self.status(node)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Waits until a node is ready.
    async fn ready(&self, node: usize) {
        let state = self.network.nodes()[node].state();
        let ready = async {
            while state.not_ready().is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let told = tokio::time::timeout(GUARD, ready).await;
        assert!(told.is_ok(), "node {node}: {:?}", state.not_ready());
    }

    /// That nobody was barred, and nobody suspects anybody.
    fn assert_peace(&self) {
        for (number, node) in self.network.nodes().iter().enumerate() {
            let barred = node.state().with_progress(|progress| {
                let bad = ["barred", "equivocation", "bad_message", "bad_parity"];
                progress.events().filter(|(kind, n)| bad.contains(kind) && *n > 0).count()
            });
            assert_eq!(barred, 0, "node {number}");
        }
    }

    fn metrics(&self, node: usize) -> String {
        self.network.nodes()[node].state().metrics()
    }
}

/// A registry with the two gateways of the network file, for a network that is still to be made:
/// they are told to it by [`register`].
async fn registry() -> TestRegistry {
    let registered = Registered { term: TERM, ..Registered::new(Vec::new()) };
    TestRegistry::start(registered).await.unwrap()
}

fn register(registry: &TestRegistry, net: &Net, gateways: usize) {
    registry.registered().gateways = net.gateways()[..gateways].to_vec();
}

/// A network of which the first three nodes ask one registry and the others a second; both have two
/// gateways.
async fn of_two_registries(nodes: usize) -> (Net, TestRegistry, TestRegistry) {
    let (one, other) = (registry().await, registry().await);
    let sources = (0..nodes).map(|node| vec![if node < 3 { one.url() } else { other.url() }]);
    let net = Net::new(nodes, sources.collect()).await;
    register(&one, &net, 2);
    register(&other, &net, 2);
    (net, one, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_in_mid_run_is_taken_up_by_everybody_from_the_same_block() {
    let mut registry = registry().await;
    let mut net = Net::new(4, vec![vec![registry.url()]]).await;
    register(&registry, &net, 2);
    net.build(1..=4).await;
    assert_eq!(net.newest(3), (0, 2));
    // Block 4 is open: the term that begins with 10 is under way, the one from 20 on is not.
    registry.registered().with_jwt = false;
    register(&registry, &net, 3);
    net.agree(0..4, (20, 3)).await;
    net.told(1, |status| status["pendingFrom"] == 20).await;
    // Node 2, whose delegation nobody else knew before, leads from block 20 on; node 0 from 30 on.
    net.build(5..=32).await;
    let leaders = [19, 20, 29, 30].map(|block| net.network.leader(block));
    assert_eq!(leaders, [1, 2, 2, 0], "under two gateways block 20 was the first one's");
    net.agree(0..4, (20, 3)).await;
    net.assert_peace();
    // Somebody leaves: block 40 is taken already, 50 is not.
    net.build(33..=35).await;
    register(&registry, &net, 2);
    net.agree(0..4, (50, 2)).await;
    net.build(36..=52).await;
    net.assert_peace();
    for node in 0..4 {
        let metrics = net.metrics(node);
        assert!(metrics.contains("fragcast_registry_gateways 2"), "{metrics}");
        let everything = format!("{metrics}{}", net.network.nodes()[node].state().status());
        assert!(!everything.contains(SECRET.trim_start_matches("0x")));
        let saved = net.dir.path().join(format!("node-{node}/schedule.json"));
        // It is written after the list is taken.
        let written = async {
            loop {
                let text = std::fs::read_to_string(&saved).unwrap_or_default();
                if text.contains("\"from_block\":50") {
                    return text;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let saved = guarded(written).await;
        assert!(!saved.contains("http"), "{saved}");
    }
    // The registry is away: the list holds, through all terms, and nobody is unready for it.
    registry.go_away().await;
    net.told(0, |status| !status["sources"][0]["error"].is_null()).await;
    net.build(53..=62).await;
    assert_eq!(net.newest(0), (50, 2));
    net.ready(0).await;
    registry.come_back().await.unwrap();
    register(&registry, &net, 3);
    net.agree(0..4, (70, 3)).await;
    net.build(63..=71).await;
    net.assert_peace();
    net.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_learn_of_it_before_and_after_the_last_moment_agree() {
    let (mut net, early, late) = of_two_registries(5).await;
    net.build(1..=12).await;
    // The last moment for block 20 is while block 12 is open.
    register(&early, &net, 3);
    net.agree(0..3, (20, 3)).await;
    net.build(13..=13).await;
    register(&late, &net, 3);
    net.agree(3..5, (20, 3)).await;
    net.build(14..=22).await;
    // The other way round the three come too late: for block 40 that was while block 32 was open.
    net.build(23..=32).await;
    register(&late, &net, 2);
    net.agree(3..5, (40, 2)).await;
    net.build(33..=33).await;
    register(&early, &net, 2);
    net.agree(0..5, (50, 2)).await;
    net.build(34..=52).await;
    net.assert_peace();
    net.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_registry_was_away_takes_up_what_it_missed_and_nobody_is_barred() {
    let (mut net, theirs, mut mine) = of_two_registries(4).await;
    net.build(1..=4).await;
    net.told(3, |status| status["sources"][0]["gateways"] == 2).await;
    mine.go_away().await;
    register(&theirs, &net, 3);
    net.agree(0..3, (20, 3)).await;
    net.build(5..=19).await;
    // Node 2 leads, of which node 3 knows nothing.
    for block in 20..=24 {
        net.post(block).await;
        let roots = net.network.sent(block).to_vec();
        guarded(async {
            while !(0..3).all(|node| net.network.track(node, |track| track.has(block, &roots))) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    assert_eq!(net.newest(3), (0, 2), "the last list holds");
    net.told(3, |status| !status["sources"][0]["error"].is_null()).await;
    net.ready(3).await;
    net.assert_peace();
    mine.come_back().await.unwrap();
    register(&mine, &net, 3);
    net.agree([3], (20, 3)).await;
    // Peers tell of a block for two seconds; who was away for longer sees by the next ones what it
    // lacks.
    net.post(25).await;
    net.post(26).await;
    for block in 20..=26 {
        assert!(net.network.arrived(block, GUARD).await, "block {block} is asked for");
    }
    net.build(27..=33).await;
    net.assert_peace();
    net.network.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_sources_differ_the_list_in_use_stays() {
    let registry = registry().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateways.json");
    let sources = vec![file.to_str().unwrap().to_owned(), registry.url()];
    let mut net = Net::new(3, vec![sources]).await;
    let gateways = net.gateways();
    let write = |n: usize| {
        let rows = Registered::new(gateways[..n].to_vec()).rows();
        std::fs::write(&file, rows.to_string()).unwrap();
    };
    register(&registry, &net, 2);
    write(2);
    net.build(1..=3).await;
    net.told(1, |status| status["sources"][0]["gateways"] == 2 && status["differ"] == false).await;
    write(1);
    net.told(1, |status| status["differ"] == true).await;
    net.build(4..=4).await;
    assert_eq!(net.newest(1), (0, 2));
    // A file that is damaged has no new vote; its old one counts for a while.
    std::fs::write(&file, "[[").unwrap();
    net.told(1, |status| !status["sources"][0]["error"].is_null()).await;
    assert_eq!(net.newest(1), (0, 2));
    register(&registry, &net, 1);
    write(1);
    net.agree(0..3, (20, 1)).await;
    net.build(5..=23).await;
    net.assert_peace();
    net.network.stop().await;
}

#[test]
fn a_node_says_what_is_wrong_with_its_registry_before_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("node");
    let path = node.to_str().unwrap();
    common::fragcast(&[
        "init",
        "--dir",
        path,
        "--chain-id",
        "901",
        "--advertise",
        "127.0.0.1:9300",
    ])
    .ok();
    let network = node.join("network.toml");
    let mut file: NetworkFile =
        toml::from_str(&std::fs::read_to_string(&network).unwrap()).unwrap();
    file.gateways = vec![Address::repeat_byte(1)];
    std::fs::write(&network, toml::to_string(&file).unwrap()).unwrap();
    let config = node.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("sources = []", "sources = [\"gateways.json\"]");
    std::fs::write(&config, text).unwrap();
    let check = || common::fragcast(&["check-config", "--config", config.to_str().unwrap()]);
    let missing = check();
    assert_eq!(missing.code, Some(1), "{}{}", missing.stdout, missing.stderr);
    assert!(missing.stdout.contains("gateways.json: cannot be read"), "{}", missing.stdout);
    let rows = |text: &str| std::fs::write(node.join("gateways.json"), text).unwrap();
    rows("[]");
    assert!(check().stdout.contains("the list is empty"));
    let registered = Registered::new(vec![Address::repeat_byte(2), Address::repeat_byte(3)]);
    rows(&registered.rows().to_string());
    let good = check().ok();
    assert!(good.stdout.contains("2 gateways"), "{}", good.stdout);
    assert!(!good.stdout.contains(SECRET.trim_start_matches("0x")));
}
