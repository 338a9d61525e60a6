//! Members who come and go, in a running network: nodes that know a bootstrap address and a registry
//! become members, one that is stopped leaves, and nodes of a network file go on beside them.

use std::time::Duration;

use fragcast::lab::local::{LocalNetwork, LocalOptions};
use fragcast::lab::registry::{Registered, TestRegistry};
use fragcast_shredder::{BlockBuilder, Env};

use crate::common::{GUARD, guarded};

const TERM: u64 = 10;
/// How long the first block of a term stays open for its leader to look at the members.
const LOOK: Duration = Duration::from_secs(2);

struct Net {
    network: LocalNetwork,
    next: u64,
    _registry: TestRegistry,
    _dir: tempfile::TempDir,
}

impl Net {
    async fn new(nodes: usize) -> Self {
        let registered = Registered { term: TERM, ..Registered::new(Vec::new()) };
        let registry = TestRegistry::start(registered).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let options = LocalOptions {
            nodes,
            gateways: 2,
            blocks_per_term: TERM,
            registry: vec![vec![registry.url()]],
            live: true,
            ..LocalOptions::new(dir.path())
        };
        let network = LocalNetwork::start(&options, None).await.unwrap();
        registry.registered().gateways = network.gateways();
        network.connected(GUARD).await.unwrap();
        Self { network, next: 1, _registry: registry, _dir: dir }
    }

    /// Posts the next block, which everybody gets before the next.
    async fn block(&mut self) {
        let block = self.next;
        self.next += 1;
        let builder = BlockBuilder::new(block);
        let env = Env { timestamp: block, ..builder.env() };
        self.network.post(env.into()).await.unwrap();
        self.network.post(builder.frag_at(0, [vec![7; 3_000]]).into()).await.unwrap();
        self.network.post(builder.seal_of(1).into()).await.unwrap();
        assert!(self.network.arrived(block, GUARD).await, "somebody misses block {block}");
    }

    /// Members of the newest table of each node, if all are alike.
    fn members(&self) -> Option<usize> {
        let tables = self.network.nodes().into_iter().map(|node| {
            let epochs = node.state().net.epochs();
            (epochs.newest().members().hash(), epochs.newest().members().len())
        });
        let mut tables: Vec<_> = tables.collect();
        tables.dedup();
        (tables.len() == 1).then(|| tables[0].1)
    }

    /// Builds on, and gives each leader time to look, until everybody has one table of so many
    /// members.
    async fn until(&mut self, members: usize) {
        guarded(async {
            while self.members() != Some(members) {
                self.block().await;
                if self.next % TERM == 1 {
                    let agreed = async {
                        while self.members() != Some(members) {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    };
                    let _ = tokio::time::timeout(LOOK, agreed).await;
                }
            }
        })
        .await;
    }

    fn assert_peace(&self) {
        for (number, node) in self.network.nodes().iter().enumerate() {
            let bad = ["barred", "equivocation", "bad_message", "bad_parity", "table_twice"];
            let bad: Vec<_> = node.state().with_progress(|progress| {
                let events = progress.events().filter(|(kind, n)| bad.contains(kind) && *n > 0);
                events.collect()
            });
            assert!(bad.is_empty(), "node {number}: {bad:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_know_a_bootstrap_address_and_a_registry_become_members() {
    let mut net = Net::new(4).await;
    for _ in 0..3 {
        net.block().await;
    }
    assert_eq!(net.members(), Some(4));
    // One knows a leader, the other a member that never leads.
    for first in [0, 3] {
        let new = net.network.join(first, None).await.unwrap();
        let handle = net.network.nodes()[new].state().net.clone();
        assert!(guarded(handle.wait_for(|told| told.connected > 0)).await.is_some());
    }
    net.until(6).await;
    for _ in 0..2 * TERM {
        net.block().await;
    }
    // Who was slow for as long as its record lives comes back.
    net.until(6).await;
    for node in net.network.nodes() {
        let status = node.state().status();
        assert_eq!(status["tables"]["isMember"], true, "{status}");
        assert_eq!(status["tables"]["members"], 6);
    }
    net.assert_peace();
    // One is stopped: its record is not renewed, and the table goes on without it.
    net.network.leave().await;
    net.until(5).await;
    for _ in 0..TERM {
        net.block().await;
    }
    net.assert_peace();
    net.network.stop().await;
}
