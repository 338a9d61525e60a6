//! The routing of gossipsub at all nodes. It serves the contender of [`gossip`](super) and
//! fragcast's nodes, which use it as their fallback.
//!
//! Nodes may subscribe and unsubscribe during a run: they tell all their connections, and graft or
//! prune as rust-libp2p does. A node that publishes without being subscribed sends to its fanout of
//! D subscribed peers.

use crate::engine::{Class, Context};
use crate::fault::Fault;
use crate::random::{self, shuffle};
use crate::reliable::Reliable;
use crate::{Nanos, NodeId, SECONDS};

use super::node::{Id, Node, PRUNE_BACKOFF, Pending};
use super::topology::{self, Graph};
use super::{GossipConfig, wire};

mod mesh;

/// A peer that has been down for this long is removed from the mesh.
pub const DEAD_AFTER: Nanos = SECONDS;

/// Bit that marks the tokens of gossip's timers among an overlay's own.
pub(in crate::protocols) const TIMERS: u64 = 1 << 63;
/// Token: a heartbeat of the node.
const BEAT: u64 = u64::MAX;
/// Token: the node is up again.
const RESUME: u64 = u64::MAX - 1;

/// A packet between two nodes.
#[derive(Debug, Clone)]
pub enum Packet {
    /// A message.
    Message {
        /// Its id: twice the index of the broadcast, plus one for a second version.
        id: u32,
        /// Whether it answers an IWANT.
        asked: bool,
    },
    /// IHAVE: the sender has these messages.
    IHave(Box<[u32]>),
    /// IWANT: the sender asks for these messages.
    IWant(Box<[u32]>),
    /// IDONTWANT: the sender has this message and needs no other copy.
    IDontWant(u32),
    /// GRAFT: the sender has taken the receiver into its mesh.
    Graft,
    /// PRUNE: the sender has removed the receiver from its mesh, and refuses grafts for this long.
    Prune(Nanos),
    /// The sender has subscribed to the topics or unsubscribed.
    Subscribe(bool),
}

/// The result of a packet or timer, for the overlay.
#[derive(Debug, Clone, Copy)]
pub(in crate::protocols) enum Heard {
    /// Nothing.
    Nothing,
    /// A message that is new to the node. The overlay takes it, and [forwards](Pubsub::forward) it
    /// if it is valid.
    Message(Pending),
    /// The sender has subscribed or unsubscribed.
    Subscribed(bool),
}

/// Gossipsub at all nodes.
#[derive(Debug)]
pub(in crate::protocols) struct Pubsub {
    config: GossipConfig,
    connections: Graph,
    nodes: Vec<Node>,
    /// One bit for each node and message: whether the node has seen it.
    seen: Vec<u64>,
    /// Number of words in `seen` for one node.
    words: usize,
    transport: Reliable,
    /// Whether meshes change in this run, so that heartbeats must maintain them even if nothing is
    /// sent.
    tending: bool,
}

impl Pubsub {
    /// A warmed-up network of `n` nodes, all subscribed, for a number of broadcasts.
    pub(super) fn of_all(config: GossipConfig, n: usize, broadcasts: usize, seed: u64) -> Self {
        let config = config.in_range();
        let (connections, mesh) = topology::draw(n, &config, seed);
        let nodes = mesh.into_iter().map(|mesh| Node::new(mesh, true, None)).collect();
        Self::new(config, connections, nodes, broadcasts, seed)
    }

    /// A warmed-up network with these connections, in which some nodes are subscribed. Every node
    /// knows which of its connections are.
    pub(in crate::protocols) fn of_some(
        config: GossipConfig,
        connections: Graph,
        subscribed: &[bool],
        broadcasts: usize,
        seed: u64,
    ) -> Self {
        let config = config.in_range();
        let is = |node: &NodeId| subscribed[*node as usize];
        let known: Graph =
            connections.iter().map(|peers| peers.iter().copied().filter(is).collect()).collect();
        let among = known.iter().zip(subscribed);
        let among: Graph =
            among.map(|(peers, is)| if *is { peers.clone() } else { Vec::new() }).collect();
        let mesh = topology::graft(&among, &config, &mut random::stream(seed, "gossip mesh", 0));
        let nodes = mesh.into_iter().zip(known).zip(subscribed);
        let node = |((mesh, known), is): ((_, Vec<NodeId>), &bool)| {
            Node::new(mesh, *is, Some(known.into_iter().collect()))
        };
        let nodes = nodes.map(node).collect();
        let tending = true;
        Self { tending, ..Self::new(config, connections, nodes, broadcasts, seed) }
    }

    fn new(
        config: GossipConfig,
        connections: Graph,
        mut nodes: Vec<Node>,
        broadcasts: usize,
        seed: u64,
    ) -> Self {
        let mut rng = random::stream(seed, "gossip phases", 0);
        let heartbeat = usize::try_from(config.heartbeat).unwrap_or(usize::MAX);
        for node in &mut nodes {
            node.phase = random::below(&mut rng, heartbeat) as Nanos;
        }
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

    /// The most connections of a node.
    pub(super) const fn max_degree(&self) -> u32 {
        self.config.connections
    }

    /// The peers to which a subscribed leader sends its message.
    pub(super) fn audience(&self, leader: NodeId) -> &[NodeId] {
        if self.config.flood_publish {
            &self.connections[leader as usize]
        } else {
            &self.nodes[leader as usize].mesh
        }
    }

    pub(super) fn has_seen(&self, node: NodeId, id: Id) -> bool {
        let word = self.seen[node as usize * self.words + id as usize / 64];
        word >> (id % 64) & 1 == 1
    }

    pub(super) fn mark_seen(&mut self, node: NodeId, id: Id) {
        self.seen[node as usize * self.words + id as usize / 64] |= 1 << (id % 64);
    }

    fn send<P: From<Packet>>(
        &mut self,
        ctx: &mut Context<'_, P>,
        way: (NodeId, NodeId),
        bytes: u32,
        packet: Packet,
    ) {
        let class = match packet {
            Packet::Message { asked: false, .. } => Class::Data,
            Packet::Message { asked: true, .. } => Class::Repair,
            _ => Class::Control,
        };
        ctx.send_reliably(&mut self.transport, way, bytes, class, packet.into());
    }

    pub(super) fn send_message<P: From<Packet>>(
        &mut self,
        ctx: &mut Context<'_, P>,
        way: (NodeId, NodeId),
        id: Id,
        asked: bool,
    ) {
        let broadcast = &ctx.load().broadcasts[id as usize / 2];
        let bytes = wire::message(broadcast.kind, broadcast.bytes);
        self.send(ctx, way, bytes, Packet::Message { id, asked });
    }

    /// Handles a message.
    fn receive<P: From<Packet>>(
        &mut self,
        ctx: &mut Context<'_, P>,
        node: NodeId,
        message: Pending,
    ) -> Heard {
        let Pending { id, from, .. } = message;
        if self.has_seen(node, id) {
            self.hold(node, id, from);
            return Heard::Nothing;
        }
        if self.nodes[node as usize].outside {
            // The node unsubscribed while the message was on its way.
            return Heard::Nothing;
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
            return Heard::Message(message);
        }
        self.nodes[node as usize].pending.push(message);
        ctx.timer(node, ctx.now() + self.config.validation, TIMERS | u64::from(id), false);
        Heard::Nothing
    }

    /// Notes that `peer` has a message, which matters until the node has forwarded it.
    fn hold(&mut self, node: NodeId, id: Id, peer: NodeId) {
        let forwarded = self.has_seen(node, id)
            && !self.nodes[node as usize].pending.iter().any(|pending| pending.id == id);
        if !forwarded {
            self.nodes[node as usize].note_holder(id, peer);
        }
    }

    /// Forwards a message that is valid.
    pub(in crate::protocols) fn forward<P: From<Packet>>(
        &mut self,
        ctx: &mut Context<'_, P>,
        node: NodeId,
        message: Pending,
    ) {
        let Pending { id, from, .. } = message;
        self.keep(ctx, node, id);
        let mut peers = self.nodes[node as usize].targets(id, from);
        shuffle(ctx.random(), &mut peers);
        for peer in peers {
            self.send_message(ctx, (node, peer), id, false);
        }
    }

    /// Publishes a message, whether the node's own or another's: to the mesh, filled up to D, or to
    /// the fanout. Returns whether it was sent. It is not if the node has seen or published it
    /// before, which libp2p treats as a duplicate, or if no peer is known to be subscribed.
    pub(in crate::protocols) fn publish<P: From<Packet>>(
        &mut self,
        ctx: &mut Context<'_, P>,
        node: NodeId,
        id: Id,
    ) -> bool {
        if self.has_seen(node, id) {
            return false;
        }
        let this = &self.nodes[node as usize];
        let mut peers = if this.outside { this.fanout.clone() } else { this.mesh.clone() };
        let mut more = self.connections[node as usize].clone();
        more.retain(|peer| this.knows(*peer) && !peers.contains(peer) && !is_dead(ctx, *peer));
        shuffle(ctx.random(), &mut more);
        more.truncate((self.config.d as usize).saturating_sub(peers.len()));
        peers.extend(more);
        if peers.is_empty() {
            return false;
        }
        if self.nodes[node as usize].outside {
            self.nodes[node as usize].fanout.clone_from(&peers);
        }
        self.mark_seen(node, id);
        self.keep(ctx, node, id);
        shuffle(ctx.random(), &mut peers);
        for peer in peers {
            self.send_message(ctx, (node, peer), id, false);
        }
        true
    }

    /// Called before the first message.
    pub(in crate::protocols) fn start<P>(&mut self, ctx: &mut Context<'_, P>) {
        for fault in &ctx.setup().faults.0 {
            if let Fault::Crash { nodes, span } = fault {
                self.tending = true;
                for node in nodes.iter().filter(|_| span.1 < Nanos::MAX) {
                    ctx.timer(*node, span.1, RESUME, true);
                }
            }
        }
        for node in 0..self.nodes.len() as NodeId {
            if self.tends(node) {
                self.arm(ctx, node);
            }
        }
    }

    /// Handles a packet.
    pub(in crate::protocols) fn deliver<P: From<Packet>>(
        &mut self,
        ctx: &mut Context<'_, P>,
        from: NodeId,
        to: NodeId,
        packet: Packet,
    ) -> Heard {
        match packet {
            Packet::Message { id, asked } => {
                return self.receive(ctx, to, Pending { id, from, asked });
            }
            // Asks every peer that advertises the message until it arrives, as go-libp2p-pubsub
            // does, since silent peers advertise too. A peer answers three requests
            // (`GossipRetransmission`), as many as its advertisements.
            Packet::IHave(ids) => {
                let lacking = ids.iter().copied().filter(|id| !self.has_seen(to, *id));
                let lacking: Box<[Id]> = lacking.collect();
                if !lacking.is_empty() && !self.nodes[to as usize].outside {
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
                    self.send(ctx, (to, from), wire::prune(), Packet::Prune(PRUNE_BACKOFF));
                }
            }
            Packet::Prune(backoff) => self.nodes[to as usize].pruned(from, ctx.now(), backoff),
            Packet::Subscribe(on) => {
                let this = &mut self.nodes[to as usize];
                this.learn(from, on);
                if on
                    && !this.outside
                    && this.mesh.len() < self.config.d_low as usize
                    && this.may_graft(from, ctx.now())
                {
                    this.mesh.push(from);
                    self.send(ctx, (to, from), wire::graft(), Packet::Graft);
                }
                return Heard::Subscribed(on);
            }
        }
        Heard::Nothing
    }

    /// Handles a timer whose token has the bit [`TIMERS`].
    pub(in crate::protocols) fn timer<P: From<Packet>>(
        &mut self,
        ctx: &mut Context<'_, P>,
        node: NodeId,
        token: u64,
    ) -> Heard {
        match token {
            BEAT => self.beat(ctx, node),
            RESUME => {
                // After a short outage the connections still exist.
                let before = ctx.now().saturating_sub(DEAD_AFTER);
                if ctx.setup().faults.is_down(node, before) {
                    self.nodes[node as usize].mesh.clear();
                }
                self.arm(ctx, node);
            }
            token => {
                let pending = &mut self.nodes[node as usize].pending;
                let is_it = |pending: &Pending| TIMERS | u64::from(pending.id) == token;
                if let Some(i) = pending.iter().position(is_it) {
                    return Heard::Message(pending.swap_remove(i));
                }
            }
        }
        Heard::Nothing
    }

    /// The mesh peers of each node.
    #[cfg(test)]
    pub(in crate::protocols) fn meshes(&self) -> impl Iterator<Item = &[NodeId]> {
        self.nodes.iter().map(|node| node.mesh.as_slice())
    }
}

/// Whether the connections to a peer are dead.
fn is_dead<P>(ctx: &Context<'_, P>, peer: NodeId) -> bool {
    let before = ctx.now().checked_sub(DEAD_AFTER);
    ctx.is_down(peer) && before.is_some_and(|then| ctx.setup().faults.is_down(peer, then))
}
