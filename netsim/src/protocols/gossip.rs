//! Gossipsub v1.1 and v1.2 over TCP, noise and yamux, as the op-node fork of based-op runs it.
//!
//! A node that gets a message for the first time tells its mesh not to send it again (IDONTWANT),
//! validates it, and forwards the whole message to its mesh. At each heartbeat it advertises recent
//! messages (IHAVE) to some of its other connections; a node that lacks one asks for it (IWANT).
//!
//! Source: libp2p/specs, pubsub/gossipsub v1.0, v1.1, v1.2. Where they leave a choice, the model
//! does what go-libp2p-pubsub does, which based-op uses.
//!
//! # Assumptions in its favour
//! * Connections, meshes and windows of TCP are warm, see [`crate::reliable`]. The flow control of
//!   yamux, its 100 µs of write coalescing and the limit of 32 RPCs that go-libp2p-pubsub queues
//!   for a peer never delay or drop anything.
//! * A message is sent to one mesh peer after the other, in random order. If connections shared the
//!   uplink evenly, all would finish at the time of the last one.
//! * Validation is free by default: it is part of the cost of a hop, which every protocol pays.
//! * A dead peer is noticed after a second ([`DEAD_AFTER`]); yamux takes up to 40.
//!
//! # Left out
//! * Peer scoring (P1 to P7) and opportunistic grafting: the faults here are not Sybils, and in
//!   runs of seconds no counter would reach a threshold.
//! * Finding new connections: a node that lost some uses the others.
//! * Separate meshes of the three topics: one serves all. Three would have the same distribution.
//! * Cancelling a message in the uplink's queue by IDONTWANT. The engine decides a transfer when it
//!   is sent, and go-libp2p-pubsub does not cancel an RPC once it is written. So IDONTWANT helps
//!   only if it arrives before the other side forwards: where hops differ much, or validation takes
//!   time.
//!
//! Silent nodes still advertise and ask, since only parts of messages are suppressed. They do not
//! answer.
//!
//! # Equivocation
//! Message ids are hashes of content, so two versions are two messages, and both spread. A node
//! uses the first that it gets, and no node holds evidence.

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

/// Gossipsub at all nodes, all of them in the mesh.
#[derive(Debug)]
pub struct Gossip(Pubsub);

impl Gossip {
    /// A warmed-up network of the world's nodes, for a number of broadcasts.
    pub fn new(config: GossipConfig, world: &World, broadcasts: usize, seed: u64) -> Self {
        Self(Pubsub::of_all(config, world.len(), broadcasts, seed))
    }

    /// Completes and forwards messages after validation. All of them are valid.
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
