//! A leader whose own subscribers wait for the next leader.

use fragcast::lab::local::{LocalNetwork, LocalOptions};
use fragcast_shredder::{BlockBuilder, Env, MessageKey};

use crate::common::{GUARD, guarded};
use crate::running::serving;

/// Terms of two blocks in a network in which leaders wait; how messages were published, summed up.
async fn published(gateways: usize) -> Vec<(&'static str, u64)> {
    let _serving = serving().await;
    let dir = tempfile::tempdir().unwrap();
    let options = LocalOptions {
        nodes: 4,
        gateways,
        blocks_per_term: 2,
        hand_over_ms: 20,
        ..LocalOptions::new(dir.path())
    };
    let mut network = LocalNetwork::start(&options, None).await.unwrap();
    network.connected(GUARD).await.unwrap();
    for block in 1..=6u64 {
        let builder = BlockBuilder::new(block);
        let env = Env { timestamp: block, ..builder.env() };
        network.post(env.into()).await.unwrap();
        network.post(builder.frag_at(0, [vec![7; 300]]).into()).await.unwrap();
        network.post(builder.seal_of(1).into()).await.unwrap();
        // Everybody, the leader's own sequencer among them.
        assert!(network.arrived(block, GUARD).await, "somebody misses block {block}");
        if gateways > 1 {
            // Its next leader says so, if not in time, then later.
            let leader = network.nodes()[network.leader(block)].state().net.clone();
            for message in 0..3 {
                let key = MessageKey { block, attempt: 0, message };
                assert!(guarded(leader.held(key)).await, "{key:?}");
            }
        }
    }
    let of = |node: &fragcast::node::Node| node.state().published.iter().collect::<Vec<_>>();
    let mut all = of(network.nodes()[0]);
    for node in &network.nodes()[1..] {
        all.iter_mut().zip(of(node)).for_each(|(sum, (_, count))| sum.1 += count);
    }
    network.stop().await;
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_leader_publishes_waits_for_the_next_leader_and_not_for_ever() {
    let all = published(2).await;
    let [held, late, nobody] = all[..] else { panic!("{all:?}") };
    // How many are late depends on the machine.
    assert_eq!((held.1 + late.1, nobody), (18, ("nobody", 0)), "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_next_leader_nothing_waits() {
    assert_eq!(published(1).await, [("held", 0), ("late", 0), ("nobody", 18)]);
}
