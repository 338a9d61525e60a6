//! Gossip of fragcast's nodes. The routing is the same as the contender's; the protocol decides
//! which nodes listen and publish.
//!
//! Members are linked as `turbine::gossip::links` decides, and these connections are up when a run
//! begins. A message passes the node's real gate, which recovers the gateway's signature; in
//! virtual time that takes [`VALIDATION`].
//!
//! The routing uses based-op's parameters. It refuses to publish a message twice, as libp2p does: a
//! peer that joins a node's fanout late gets missed messages from the node's advertisements
//! (IHAVE).

use std::collections::BTreeMap;

use alloy_primitives::{B256, Bytes};
use fragcast_shredder::{Dialect, Kind, VerifiedMessage};
use fragcast_turbine::gossip::{Gate, links};
use fragcast_turbine::health::{self, State};
use fragcast_turbine::{GossipAction, PeerId, Protocol};

use super::{FragcastConfig, Packet, timestamp};
use crate::engine::Context;
use crate::load::Load;
use crate::outcome::Change;
use crate::protocols::gossip::{self, GossipConfig, Graph, Heard, Id, Pending, Pubsub};
use crate::{Nanos, NodeId};

/// Time to recover a signature (measured in `bench/`).
const VALIDATION: Nanos = 42_000;

/// Gossip at all nodes.
#[derive(Debug)]
pub(super) struct Door {
    pubsub: Pubsub,
    gates: Vec<Gate>,
    /// The most connections of any node.
    max_degree: u32,
    /// Messages by the hash of their bytes.
    by_wire: BTreeMap<[u8; 32], Id>,
    by_root: BTreeMap<B256, Id>,
    /// Signature ‖ body of each message, and of its second version if it has one.
    wires: Vec<(Bytes, Option<Bytes>)>,
    kinds: Vec<Kind>,
    /// By node and message: whether the overlay has brought it.
    overlay: Vec<Vec<bool>>,
    /// By node: when it last returned to the overlay.
    back_at: Vec<Nanos>,
}

impl Door {
    /// Gossip of `nodes` before the first message. Nodes that listen by their policy are in the
    /// meshes.
    pub(super) fn new(
        config: &FragcastConfig,
        nodes: &mut [Protocol],
        load: &Load,
        messages: &[(VerifiedMessage, Option<VerifiedMessage>)],
        seed: u64,
    ) -> Self {
        let listening: Vec<bool> = nodes
            .iter_mut()
            .map(|node| {
                node.handle_timeout(timestamp(0));
                let mut listening = false;
                while let Some(action) = node.poll_gossip() {
                    if let GossipAction::Listen(on) = action {
                        listening = on;
                    }
                }
                listening
            })
            .collect();
        let graph = linked(nodes);
        for (node, peers) in nodes.iter_mut().zip(&graph) {
            for peer in peers.iter().filter(|peer| listening[**peer as usize]) {
                let member = fragcast_turbine::Listener::Member((*peer).into());
                node.handle_listener(timestamp(0), member, true);
            }
        }
        let max_degree = graph.iter().map(Vec::len).max().unwrap_or(0) as u32;
        let routing = GossipConfig {
            heartbeat: config.heartbeat,
            validation: VALIDATION,
            ..GossipConfig::based_op()
        };
        let (mut by_wire, mut by_root, mut wires) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for (index, (message, twin)) in messages.iter().enumerate() {
            let mut version = |v: Id, message: &VerifiedMessage| {
                let wire = Bytes::from(message.to_wire());
                let id = 2 * index as Id + v;
                by_wire.insert(*blake3::hash(&wire).as_bytes(), id);
                by_root.insert(message.root(), id);
                wire
            };
            wires.push((version(0, message), twin.as_ref().map(|twin| version(1, twin))));
        }
        let gate = |node: &Protocol| Gate::new(Dialect::default(), node.epochs().clone());
        Self {
            gates: nodes.iter().map(gate).collect(),
            overlay: vec![vec![false; load.broadcasts.len()]; nodes.len()],
            back_at: vec![0; nodes.len()],
            pubsub: Pubsub::of_some(routing, graph, &listening, load.broadcasts.len(), seed),
            kinds: load.broadcasts.iter().map(|broadcast| broadcast.kind).collect(),
            max_degree,
            by_wire,
            by_root,
            wires,
        }
    }

    /// The most connections of any node.
    pub(super) const fn max_degree(&self) -> u32 {
        self.max_degree
    }

    /// Called before the first message.
    pub(super) fn start(&mut self, ctx: &mut Context<'_, Packet>) {
        self.pubsub.start(ctx);
    }

    /// The index of a message's broadcast.
    pub(super) fn index_of(&self, message: &VerifiedMessage) -> Option<usize> {
        self.by_root.get(&message.root()).map(|id| *id as usize / 2)
    }

    /// Performs an action that a node's protocol asks for.
    pub(super) fn act(
        &mut self,
        ctx: &mut Context<'_, Packet>,
        node: NodeId,
        action: GossipAction,
    ) {
        match action {
            GossipAction::Listen(on) => self.pubsub.subscribe(ctx, node, on),
            GossipAction::Publish { wire, .. } => {
                if let Some(id) = self.by_wire.get(blake3::hash(&wire).as_bytes()) {
                    self.pubsub.publish(ctx, node, *id);
                }
            }
        }
    }

    /// Handles a packet of gossip.
    pub(super) fn deliver(
        &mut self,
        ctx: &mut Context<'_, Packet>,
        from: NodeId,
        to: NodeId,
        packet: gossip::Packet,
    ) -> Heard {
        self.pubsub.deliver(ctx, from, to, packet)
    }

    /// Handles a timer of gossip.
    pub(super) fn timer(
        &mut self,
        ctx: &mut Context<'_, Packet>,
        node: NodeId,
        token: u64,
    ) -> Heard {
        self.pubsub.timer(ctx, node, token)
    }

    /// Checks the message `id` at the gate of `node`, which takes blocks of `window`.
    pub(super) fn check(
        &mut self,
        window: (u64, u64),
        node: NodeId,
        id: Id,
    ) -> Option<VerifiedMessage> {
        let (first, twin) = &self.wires[id as usize / 2];
        let wire = if id.is_multiple_of(2) { first } else { twin.as_ref()? };
        let kind = self.kinds[id as usize / 2];
        let gate = &mut self.gates[node as usize];
        gate.set_window(window.0, window.1);
        gate.check(kind, wire).message
    }

    /// Forwards a message that passed the gate.
    pub(super) fn forward(
        &mut self,
        ctx: &mut Context<'_, Packet>,
        node: NodeId,
        message: Pending,
    ) {
        self.pubsub.forward(ctx, node, message);
    }

    /// Notes that the overlay has brought a message.
    pub(super) fn note_overlay(&mut self, node: NodeId, index: usize) {
        self.overlay[node as usize][index] = true;
    }

    /// Notes that a node changed between the overlay and gossip.
    pub(super) fn note_change(
        &mut self,
        ctx: &mut Context<'_, Packet>,
        node: NodeId,
        change: &health::Change,
    ) {
        let now = ctx.now();
        let missing_for = (change.to == State::Gossip).then(|| self.missing_for(ctx, node));
        if change.to == State::Turbine && change.from == State::Gossip {
            self.back_at[node as usize] = now;
        }
        ctx.change(Change {
            at: now,
            node,
            from: change.from,
            to: change.to,
            reason: change.reason,
            dwell: change.dwell,
            missing_for: missing_for.flatten(),
        });
    }

    /// The age of the oldest message that was sent since the node last returned to the overlay, and
    /// that the overlay has not brought.
    fn missing_for(&self, ctx: &Context<'_, Packet>, node: NodeId) -> Option<Nanos> {
        let since = self.back_at[node as usize]..=ctx.now();
        let all = ctx.load().broadcasts.iter().zip(&self.overlay[node as usize]);
        let missing = all.filter(|(broadcast, here)| {
            !**here
                && broadcast.expected
                && broadcast.leader != node
                && since.contains(&broadcast.at)
        });
        missing.map(|(broadcast, _)| ctx.now() - broadcast.at).max()
    }
}

/// The connections of gossip.
fn linked(nodes: &[Protocol]) -> Graph {
    let n = nodes.len();
    let peers: Vec<PeerId> = nodes
        .first()
        .map_or_else(Vec::new, |node| node.epochs().peers().iter().map(|(_, peer)| peer).collect());
    let mut graph: Graph = vec![Vec::new(); n];
    for a in 0..n {
        for b in a + 1..n {
            if links::linked(&peers[a], &peers[b], n) {
                graph[a].push(b as NodeId);
                graph[b].push(a as NodeId);
            }
        }
    }
    graph
}
