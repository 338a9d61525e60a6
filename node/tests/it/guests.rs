//! Guests of a running network: nodes that no network file names, over real QUIC.

use std::time::Duration;

use fragcast::lab::local::{LocalNetwork, LocalOptions};
use fragcast_shredder::{BlockBuilder, Env};

use crate::common::{GUARD, guarded};

const MEMBERS: usize = 4;
const GUESTS: usize = 3;

/// Posts a block of three frags.
async fn post(network: &mut LocalNetwork, block: u64) {
    let builder = BlockBuilder::new(block);
    let env = Env { timestamp: block, ..builder.env() };
    network.post(env.into()).await.unwrap();
    for seq in 0..3 {
        let frag = builder.frag_at(seq, [vec![seq as u8; 20_000]]);
        network.post(frag.into()).await.unwrap();
    }
    network.post(builder.seal_of(3).into()).await.unwrap();
}

/// The member that sends everything to a guest; `None` while there is none.
fn primary(network: &LocalNetwork, guest: usize) -> Option<usize> {
    let attached = network.nodes()[guest].state().net.snapshot().attached?;
    let primary = attached.primary.filter(|_| attached.granted)?;
    network.nodes().iter().position(|node| node.state().peer == primary)
}

/// Whether a guest is ready, knows its members, and has one that sends it everything.
fn follows(network: &LocalNetwork, guest: usize) -> bool {
    let state = network.nodes()[guest].state();
    let status = state.status();
    state.not_ready().is_none()
        && status["members"] == MEMBERS
        && status["guest"]["primary"].is_string()
        && state.metrics().contains("fragcast_guest_attached 1")
}

/// Whether members are connected to each other and serve all guests, each once.
fn are_nobodys_peers(network: &LocalNetwork) -> bool {
    let members = || (0..MEMBERS).map(|member| network.nodes()[member].state());
    let served = members().map(|state| state.status()["guests"]["served"].as_u64().unwrap());
    served.sum::<u64>() == GUESTS as u64
        && members().all(|state| state.net.snapshot().connected == MEMBERS - 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_verify_every_block_and_go_on_when_their_member_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let options = LocalOptions {
        nodes: MEMBERS + GUESTS,
        guests: GUESTS,
        gateways: 2,
        blocks_per_term: 1,
        ..LocalOptions::new(dir.path())
    };
    let mut network = LocalNetwork::start(&options, None).await.unwrap();
    network.connected(GUARD).await.unwrap();
    for block in 1..=6 {
        post(&mut network, block).await;
        assert!(network.arrived(block, GUARD).await, "somebody misses block {block}");
    }
    guarded(async {
        while !(MEMBERS..MEMBERS + GUESTS).all(|guest| follows(&network, guest))
            || !are_nobodys_peers(&network)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for member in 0..MEMBERS {
        let outcomes = network.nodes()[member].state().net.snapshot().outcomes;
        assert_eq!(outcomes.iter().find(|(o, _)| o.label() == "control_bad").unwrap().1, 0);
    }

    // The member of one guest is gone. Blocks are led by those that are left.
    let gone = primary(&network, MEMBERS).expect("it has one");
    network.nodes()[gone].state().net.shutdown().await;
    let left: Vec<usize> = (0..MEMBERS + GUESTS).filter(|node| *node != gone).collect();
    let mut block = 6;
    for _ in 0..6 {
        block += 1;
        while network.leader(block) == gone {
            block += 1;
        }
        post(&mut network, block).await;
        assert!(network.arrived_at(&left, block, GUARD).await, "somebody misses block {block}");
    }
    guarded(async {
        while primary(&network, MEMBERS).is_none_or(|primary| primary == gone) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    block += 1;
    while network.leader(block) == gone {
        block += 1;
    }
    post(&mut network, block).await;
    assert!(network.arrived_at(&left, block, GUARD).await, "somebody misses block {block}");
    network.stop().await;
}
