//! Gossipsub v1.1 and v1.2 over TCP, noise and yamux: the peer that Fragcast is compared with,
//! as the op-node fork of based-op runs it.
//!
//! A node that gets a message for the first time tells its mesh that it needs no more of it
//! (IDONTWANT), validates it and passes it on, whole, to its mesh. At each heartbeat it
//! advertises (IHAVE) what it has got of late to some of its other connections; who lacks
//! something asks (IWANT).
//!
//! Source: libp2p/specs, pubsub/gossipsub v1.0, v1.1, v1.2; where they leave a choice, what
//! go-libp2p-pubsub does, which based-op uses.
//!
//! # Where it is at its best
//! * Connections, meshes and windows of TCP are warm, see [`crate::reliable`]. Flow control of
//!   yamux, its 100 µs of write coalescing and the 32 RPCs that go-libp2p-pubsub queues for a
//!   peer never delay or drop anything.
//! * A message leaves for one mesh peer after the other, in random order. Connections that
//!   share the uplink evenly would finish together, at the time of the last one.
//! * Validation is free by default: the hop that the engine charges for each packet covers it,
//!   and everybody pays that.
//! * A peer that is gone is noticed in a second ([`DEAD_AFTER`]); yamux takes up to 40.
//!
//! # What is left out
//! * Peer scoring, P1 to P7, and with it opportunistic grafting: the faults here are not
//!   Sybils, and in runs of seconds no counter would have decided anything.
//! * Finding new connections: who has lost some makes do with the others.
//! * One mesh serves the three topics. Three would be of one distribution.
//! * IDONTWANT stops what has not been handed to the transport. The engine decides a transfer
//!   when it is sent, so a message that waits in the uplink's queue is not called back; neither
//!   is it by go-libp2p-pubsub once the RPC is written. So it helps only where it arrives before
//!   the other side forwards: where hops differ much, or validation takes time.
//!
//! Silent nodes still advertise and ask, as control is not swallowed: asking them is in vain.
//!
//! # Equivocation
//! Message ids are hashes of content: two versions are two messages, and both spread. A node
//! goes by the first that it gets, and nobody holds any evidence.

use crate::NodeId;
use crate::engine::{Context, Overlay};
use crate::outcome::How;
use crate::random::shuffle;
use crate::world::World;

mod config;
mod node;
mod pubsub;
mod topology;
mod wire;

pub use config::GossipConfig;
pub(super) use node::{Id, Pending};
pub use pubsub::{DEAD_AFTER, Packet};
pub(super) use pubsub::{Heard, Pubsub, TIMERS};
pub(super) use topology::Graph;

/// Gossipsub at all nodes, everybody in the mesh.
#[derive(Debug)]
pub struct Gossip(Pubsub);

impl Gossip {
    /// A warmed-up network of the world's nodes, for so many broadcasts.
    pub fn new(config: GossipConfig, world: &World, broadcasts: usize, seed: u64) -> Self {
        Self(Pubsub::of_all(config, world.len(), broadcasts, seed))
    }

    /// Takes what has proved valid: everything.
    fn take(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId, heard: Heard) {
        if let Heard::Message(message) = heard {
            let how = if message.asked { How::Repair } else { How::Spread };
            ctx.complete(node, message.id as usize / 2, how);
            self.0.forward(ctx, node, message);
        }
    }
}

impl Overlay for Gossip {
    type Packet = Packet;

    fn start(&mut self, ctx: &mut Context<'_, Packet>) {
        self.0.start(ctx);
    }

    fn broadcast(&mut self, ctx: &mut Context<'_, Packet>, index: usize) {
        let broadcast = ctx.load().broadcasts[index];
        let leader = broadcast.leader;
        let first = 2 * index as Id;
        let versions = 1 + Id::from(broadcast.equivocal);
        for id in first..first + versions {
            self.0.mark_seen(leader, id);
            self.0.keep(ctx, leader, id);
        }
        let mut peers = self.0.audience(leader).to_vec();
        shuffle(ctx.random(), &mut peers);
        for (i, peer) in peers.into_iter().enumerate() {
            self.0.send_message(ctx, (leader, peer), first + i as Id % versions, false);
        }
    }

    fn deliver(&mut self, ctx: &mut Context<'_, Packet>, from: NodeId, to: NodeId, packet: Packet) {
        let heard = self.0.deliver(ctx, from, to, packet);
        self.take(ctx, to, heard);
    }

    fn timer(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId, token: u64) {
        let heard = self.0.timer(ctx, node, token);
        self.take(ctx, node, heard);
    }

    fn max_degree(&self) -> Option<u32> {
        Some(self.0.max_degree())
    }
}

#[cfg(test)]
mod tests;
