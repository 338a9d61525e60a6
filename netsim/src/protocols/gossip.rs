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

use crate::engine::{Class, Context, Overlay};
use crate::fault::Fault;
use crate::outcome::How;
use crate::random::{self, shuffle};
use crate::reliable::Reliable;
use crate::world::World;
use crate::{Nanos, NodeId, SECONDS};

mod config;
mod node;
mod topology;
mod wire;

pub use config::GossipConfig;
use node::{Id, Node, Pending};

/// A peer that has been down for so long is taken out of the mesh.
pub const DEAD_AFTER: Nanos = SECONDS;

/// A heartbeat of the node.
const BEAT: u64 = u64::MAX;
/// The node is up again.
const RESUME: u64 = u64::MAX - 1;

/// What travels.
#[derive(Debug, Clone)]
pub enum Packet {
    /// A message.
    Message {
        /// Which: twice the index of the broadcast, plus one for a second version.
        id: u32,
        /// In answer to an IWANT.
        asked: bool,
    },
    /// The sender has these.
    IHave(Box<[u32]>),
    /// The sender lacks these.
    IWant(Box<[u32]>),
    /// The sender has this one and needs no other copy.
    IDontWant(u32),
    /// The sender has taken the receiver into its mesh.
    Graft,
    /// The sender has taken the receiver out of its mesh.
    Prune,
}

/// Gossipsub at all nodes.
#[derive(Debug)]
pub struct Gossip {
    config: GossipConfig,
    connections: topology::Graph,
    nodes: Vec<Node>,
    /// One bit for each node and message.
    seen: Vec<u64>,
    /// Words of `seen` for one node.
    words: usize,
    transport: Reliable,
    /// Nodes crash in this run, so heartbeats look after the mesh even if nothing is sent.
    tending: bool,
}

impl Gossip {
    /// A warmed-up network of the world's nodes, for so many broadcasts.
    pub fn new(config: GossipConfig, world: &World, broadcasts: usize, seed: u64) -> Self {
        let config = config.in_range();
        let (connections, mesh) = topology::draw(world.len(), &config, seed);
        let mut rng = random::stream(seed, "gossip phases", 0);
        let heartbeat = usize::try_from(config.heartbeat).unwrap_or(usize::MAX);
        let nodes: Vec<Node> = mesh
            .into_iter()
            .map(|mesh| Node::new(mesh, random::below(&mut rng, heartbeat) as Nanos))
            .collect();
        let words = (2 * broadcasts).div_ceil(64);
        Self {
            seen: vec![0; words * nodes.len()],
            words,
            transport: Reliable::new(config.transport),
            tending: false,
            config,
            connections,
            nodes,
        }
    }

    fn has_seen(&self, node: NodeId, id: Id) -> bool {
        let word = self.seen[node as usize * self.words + id as usize / 64];
        word >> (id % 64) & 1 == 1
    }

    fn mark_seen(&mut self, node: NodeId, id: Id) {
        self.seen[node as usize * self.words + id as usize / 64] |= 1 << (id % 64);
    }

    fn send(
        &mut self,
        ctx: &mut Context<'_, Packet>,
        way: (NodeId, NodeId),
        bytes: u32,
        packet: Packet,
    ) {
        let class = match packet {
            Packet::Message { asked: false, .. } => Class::Data,
            Packet::Message { asked: true, .. } => Class::Repair,
            _ => Class::Control,
        };
        ctx.send_reliably(&mut self.transport, way, bytes, class, packet);
    }

    fn send_message(
        &mut self,
        ctx: &mut Context<'_, Packet>,
        way: (NodeId, NodeId),
        id: Id,
        asked: bool,
    ) {
        let broadcast = &ctx.load().broadcasts[id as usize / 2];
        let bytes = wire::message(broadcast.kind, broadcast.bytes);
        self.send(ctx, way, bytes, Packet::Message { id, asked });
    }

    /// A message has come.
    fn receive(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId, message: Pending) {
        let Pending { id, from, .. } = message;
        if self.has_seen(node, id) {
            self.hold(node, id, from);
            return;
        }
        self.mark_seen(node, id);
        let bytes = ctx.load().broadcasts[id as usize / 2].bytes;
        if self.config.idontwant && bytes >= self.config.idontwant_threshold {
            let mut peers = self.nodes[node as usize].mesh.clone();
            peers.retain(|peer| *peer != from);
            shuffle(ctx.random(), &mut peers);
            for peer in peers {
                self.send(ctx, (node, peer), wire::ids(1), Packet::IDontWant(id));
            }
        }
        if self.config.validation == 0 {
            self.accept(ctx, node, message);
        } else {
            self.nodes[node as usize].pending.push(message);
            ctx.timer(node, ctx.now() + self.config.validation, id.into(), false);
        }
    }

    /// `peer` is known to have a message. That matters until the node has forwarded it.
    fn hold(&mut self, node: NodeId, id: Id, peer: NodeId) {
        let forwarded = self.has_seen(node, id)
            && !self.nodes[node as usize].pending.iter().any(|pending| pending.id == id);
        if !forwarded {
            self.nodes[node as usize].note_holder(id, peer);
        }
    }

    /// A message has proved valid.
    fn accept(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId, message: Pending) {
        let Pending { id, from, asked } = message;
        ctx.complete(node, id as usize / 2, if asked { How::Repair } else { How::Spread });
        self.keep(ctx, node, id);
        let mut peers = self.nodes[node as usize].targets(id, from);
        shuffle(ctx.random(), &mut peers);
        for peer in peers {
            self.send_message(ctx, (node, peer), id, false);
        }
    }

    fn keep(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId, id: Id) {
        self.nodes[node as usize].keep(id, ctx.now(), &self.config);
        self.arm(ctx, node);
    }

    /// Sees to it that the node's next heartbeat takes place.
    fn arm(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId) {
        if let Some(at) = self.nodes[node as usize].arm(ctx.now(), &self.config) {
            ctx.timer(node, at, BEAT, true);
        }
    }

    fn beat(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId) {
        let now = ctx.now();
        if !self.nodes[node as usize].beats(now) {
            return;
        }
        if self.tending {
            self.tend(ctx, node);
        }
        self.advertise(ctx, node);
        if self.tending || self.nodes[node as usize].has_gossip(now, &self.config) {
            self.arm(ctx, node);
        }
    }

    /// Drops peers that are gone, grafts others. Nobody ever has more than D_high, because who
    /// is full refuses.
    fn tend(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId) {
        let this = &mut self.nodes[node as usize];
        this.mesh.retain(|peer| !is_dead(ctx, *peer));
        let (have, d) = (this.mesh.len(), self.config.d as usize);
        if have >= self.config.d_low as usize {
            return;
        }
        let mut candidates = self.connections[node as usize].clone();
        candidates.retain(|peer| this.may_graft(*peer, ctx.now()) && !is_dead(ctx, *peer));
        shuffle(ctx.random(), &mut candidates);
        candidates.truncate(d - have);
        for peer in candidates {
            self.nodes[node as usize].mesh.push(peer);
            self.send(ctx, (node, peer), wire::graft(), Packet::Graft);
        }
    }

    fn advertise(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId) {
        let this = &self.nodes[node as usize];
        let ids: Box<[Id]> = this.advertised(ctx.now(), &self.config).into();
        if ids.is_empty() {
            return;
        }
        let mut peers = self.connections[node as usize].clone();
        peers.retain(|peer| !this.mesh.contains(peer) && !is_dead(ctx, *peer));
        let share = (peers.len() as f64 * self.config.gossip_factor) as usize;
        shuffle(ctx.random(), &mut peers);
        peers.truncate(share.max(self.config.d_lazy as usize));
        let counts = wire::KINDS.map(|kind| {
            let of_kind = |id: &&Id| ctx.load().broadcasts[**id as usize / 2].kind == kind;
            ids.iter().filter(of_kind).count() as u32
        });
        for peer in peers {
            self.send(ctx, (node, peer), wire::ihave(counts), Packet::IHave(ids.clone()));
        }
    }
}

/// Whether connections to a peer have died.
fn is_dead(ctx: &Context<'_, Packet>, peer: NodeId) -> bool {
    let before = ctx.now().checked_sub(DEAD_AFTER);
    ctx.is_down(peer) && before.is_some_and(|then| ctx.setup().faults.is_down(peer, then))
}

impl Overlay for Gossip {
    type Packet = Packet;

    fn start(&mut self, ctx: &mut Context<'_, Packet>) {
        for fault in &ctx.setup().faults.0 {
            if let Fault::Crash { nodes, span } = fault {
                self.tending = true;
                for node in nodes.iter().filter(|_| span.1 < Nanos::MAX) {
                    ctx.timer(*node, span.1, RESUME, true);
                }
            }
        }
        if self.tending {
            for node in 0..self.nodes.len() as NodeId {
                self.arm(ctx, node);
            }
        }
    }

    fn broadcast(&mut self, ctx: &mut Context<'_, Packet>, index: usize) {
        let broadcast = ctx.load().broadcasts[index];
        let leader = broadcast.leader;
        let first = 2 * index as Id;
        let versions = 1 + Id::from(broadcast.equivocal);
        for id in first..first + versions {
            self.mark_seen(leader, id);
            self.keep(ctx, leader, id);
        }
        let mut peers = if self.config.flood_publish {
            self.connections[leader as usize].clone()
        } else {
            self.nodes[leader as usize].mesh.clone()
        };
        shuffle(ctx.random(), &mut peers);
        for (i, peer) in peers.into_iter().enumerate() {
            self.send_message(ctx, (leader, peer), first + i as Id % versions, false);
        }
    }

    fn deliver(&mut self, ctx: &mut Context<'_, Packet>, from: NodeId, to: NodeId, packet: Packet) {
        match packet {
            Packet::Message { id, asked } => self.receive(ctx, to, Pending { id, from, asked }),
            // Asks everybody who advertises until the message is there, as go-libp2p-pubsub
            // does: silent peers advertise too. Three advertisements by one peer are within
            // what it answers (`GossipRetransmission`).
            Packet::IHave(ids) => {
                let lacking = ids.iter().copied().filter(|id| !self.has_seen(to, *id));
                let lacking: Box<[Id]> = lacking.collect();
                if !lacking.is_empty() {
                    let bytes = wire::ids(lacking.len() as u32);
                    self.send(ctx, (to, from), bytes, Packet::IWant(lacking));
                }
            }
            Packet::IWant(ids) => {
                for id in ids {
                    if self.nodes[to as usize].serves(id, ctx.now(), &self.config) {
                        self.send_message(ctx, (to, from), id, true);
                    }
                }
            }
            Packet::IDontWant(id) => self.hold(to, id, from),
            Packet::Graft => {
                if !self.nodes[to as usize].accept(from, &self.config) {
                    self.send(ctx, (to, from), wire::prune(), Packet::Prune);
                }
            }
            Packet::Prune => self.nodes[to as usize].pruned(from, ctx.now()),
        }
    }

    fn timer(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId, token: u64) {
        match token {
            BEAT => self.beat(ctx, node),
            RESUME => {
                // After a short outage connections are still there.
                let before = ctx.now().saturating_sub(DEAD_AFTER);
                if ctx.setup().faults.is_down(node, before) {
                    self.nodes[node as usize].mesh.clear();
                }
                self.arm(ctx, node);
            }
            id => {
                let pending = &mut self.nodes[node as usize].pending;
                let found = pending.iter().position(|pending| u64::from(pending.id) == id);
                if let Some(message) = found.map(|i| pending.swap_remove(i)) {
                    self.accept(ctx, node, message);
                }
            }
        }
    }

    fn max_degree(&self) -> Option<u32> {
        Some(self.config.connections)
    }
}

#[cfg(test)]
mod tests;
