//! A peer that publishes junk to gossip.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fragcast_turbine::net::gossip::libp2p;
use libp2p::futures::StreamExt;
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, SwarmBuilder, noise, tcp, yamux};

/// What it publishes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Junk {
    /// The chain whose topic it floods.
    pub(crate) chain: u64,
    /// Bytes of a message.
    pub(crate) len: usize,
    /// Messages a second.
    pub(crate) a_second: u64,
}

/// A peer that publishes junk while it is `on`, and returns under a new name when it is barred.
pub(crate) async fn publish(
    junk: Junk,
    address: Multiaddr,
    on: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
) {
    let mut state = 7u64;
    while !end.load(Ordering::Relaxed) {
        if !on.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(
                tcp::Config::default().nodelay(true),
                noise::Config::new,
                yamux::Config::default,
            )
            .expect("noise")
            .with_behaviour(|_| {
                let config = gossipsub::ConfigBuilder::default()
                    .validation_mode(ValidationMode::Anonymous)
                    .message_id_fn(|m| gossipsub::MessageId::new(&m.data[..16]))
                    .build()
                    .expect("valid");
                gossipsub::Behaviour::<gossipsub::IdentityTransform>::new(
                    MessageAuthenticity::Anonymous,
                    config,
                )
                .expect("valid")
            })
            .expect("a behaviour")
            .build();
        let topic = IdentTopic::new(format!("/optimism/{}/0/fragments", junk.chain));
        let _ = swarm.behaviour_mut().subscribe(&topic);
        if swarm.dial(address.clone()).is_err() {
            continue;
        }
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        loop {
            tokio::select! {
                event = swarm.select_next_some() => match event {
                    SwarmEvent::ConnectionClosed { .. }
                    | SwarmEvent::OutgoingConnectionError { .. } => break,
                    _ => {}
                },
                _ = tick.tick() => {
                    if !on.load(Ordering::Relaxed) || end.load(Ordering::Relaxed) {
                        break;
                    }
                    for _ in 0..junk.a_second.div_ceil(1_000) {
                        let mut data = vec![0; junk.len];
                        for chunk in data.chunks_mut(8) {
                            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(9);
                            chunk.copy_from_slice(&(state ^ state >> 31).to_le_bytes()[..chunk.len()]);
                        }
                        if swarm.behaviour_mut().publish(topic.clone(), data).is_ok() {
                            sent.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }
        }
    }
}
