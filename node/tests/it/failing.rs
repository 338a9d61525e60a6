//! A part of a node that ends by itself: the node is told, so that its process ends and whoever
//! watches over it starts it again.

use std::net::SocketAddr;
use std::path::Path;

use fragcast::config::Config;
use fragcast::gateway::journal::Journal;
use fragcast::gateway::keys;
use fragcast::gateway::reach::Unreached;
use fragcast::lab::local::{LocalNetwork, LocalOptions};
use fragcast::network::NetworkFile;
use fragcast::node::{Execution, Node, Parts, Sockets};
use fragcast_execution::devnet::{DevnetConfig, DevnetGateway};
use fragcast_shredder::{Dialect, GatewayKey};

use crate::common::{guarded, post_signed};
use crate::running::serving;

/// The directories of a network of two, of which none runs.
pub(crate) async fn prepared(dir: &Path) {
    let options =
        LocalOptions { chain_id: DevnetConfig::default().chain_id, ..LocalOptions::new(dir) };
    LocalNetwork::start(&options, None).await.unwrap().stop().await;
}

/// The first node, which leads and executes, as `change` makes it.
pub(crate) async fn start(dir: &Path, change: impl FnOnce(&mut Parts)) -> (Node, GatewayKey) {
    let home = dir.join("node-0");
    let mut config = Config::load(&home.join("node.toml")).unwrap();
    // The ports that were written down were free then, and another test may have them by now.
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    config.p2p.listen = any;
    config.ingest.listen = any;
    config.http.listen = any;
    config.admin.listen = any;
    config.metrics.listen = any;
    config.gossip.listen = "/ip4/127.0.0.1/tcp/0".into();
    config.leader.unreached = Unreached::Tell;
    config.execution.chain = "dev".into();
    config.execution.db = home.join("chain.redb");
    let network = NetworkFile::load(&config.network).unwrap();
    let leader = keys::read_ed25519(&config.leader.key).unwrap();
    let mut parts = Parts {
        identity: keys::read_ed25519(&config.identity).unwrap(),
        leader: Some((leader, Journal::open(&config.leader.journal).unwrap())),
        sockets: Sockets::bind(&config).unwrap(),
        execution: Execution::of_config(&config, &network).unwrap(),
        network,
        config,
        gossip_port: None,
        drop_shreds: None,
        cut: None,
        tap: None,
    };
    change(&mut parts);
    let gateway = keys::read_gateway(&dir.join("gateway-0.key")).unwrap();
    (Node::start(parts).await.unwrap(), gateway)
}

/// Hands a block to a node, as far as it takes it.
async fn block(node: &Node, key: &GatewayKey) {
    let url = format!("http://{}", node.addresses().ingest);
    let mut gateway = DevnetGateway::new(&DevnetConfig::default(), Dialect::V0).unwrap();
    for message in gateway.block(gateway.parent().timestamp + 2, 1, 2).unwrap() {
        post_signed(&url, key, message).await;
    }
}

/// What ends, and how that is brought about.
type Change<'a> = (&'static str, &'a dyn Fn(&mut Parts));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_executor_or_pump_has_ended_says_so() {
    let _serving = serving().await;
    let executor = |parts: &mut Parts| {
        let execution = parts.execution.as_mut().expect("it executes");
        execution.tap = Some(Box::new(|_| panic!("on purpose: the executor")));
    };
    let pump = |parts: &mut Parts| parts.tap = Some(Box::new(|_| panic!("on purpose: the pump")));
    let parts: [Change<'_>; 2] = [("executor", &executor), ("pump", &pump)];
    for (name, change) in parts {
        let dir = tempfile::tempdir().unwrap();
        prepared(dir.path()).await;
        let (mut node, gateway) = start(dir.path(), change).await;
        block(&node, &gateway).await;
        let told = guarded(node.failed()).await;
        assert!(told.contains(name), "{told} and not the {name}");
        guarded(node.stop()).await;
    }
}
