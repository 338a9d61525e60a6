//! Maintains the meshes: subscriptions, heartbeats, grafts and advertisements.

use crate::engine::Context;
use crate::random::shuffle;
use crate::{Nanos, NodeId, SECONDS};

use super::super::node::Id;
use super::super::wire;
use super::{BEAT, Packet, Pubsub, is_dead};

/// How long a node that unsubscribes is not grafted by its mesh peers (`UnsubscribeBackoff`).
const UNSUBSCRIBE_BACKOFF: Nanos = 10 * SECONDS;

impl Pubsub {
    /// Subscribes to the topics and joins the mesh, or leaves both.
    pub(in crate::protocols) fn subscribe<P: From<Packet>>(
        &mut self,
        ctx: &mut Context<'_, P>,
        node: NodeId,
        on: bool,
    ) {
        let this = &mut self.nodes[node as usize];
        if this.outside != on {
            return;
        }
        this.outside = !on;
        let (fanout, mesh) = (std::mem::take(&mut this.fanout), std::mem::take(&mut this.mesh));
        for peer in self.connections[node as usize].clone() {
            self.send(ctx, (node, peer), wire::subscription(), Packet::Subscribe(on));
        }
        if on {
            self.graft(ctx, node, fanout);
            self.arm(ctx, node);
            return;
        }
        for peer in mesh {
            self.nodes[node as usize].pruned(peer, ctx.now(), UNSUBSCRIBE_BACKOFF);
            let prune = Packet::Prune(UNSUBSCRIBE_BACKOFF);
            self.send(ctx, (node, peer), wire::prune(), prune);
        }
    }

    pub(in crate::protocols::gossip) fn keep<P>(
        &mut self,
        ctx: &mut Context<'_, P>,
        node: NodeId,
        id: Id,
    ) {
        self.nodes[node as usize].keep(id, ctx.now(), &self.config);
        self.arm(ctx, node);
    }

    /// Sets the timer of the node's next heartbeat, if none is set.
    pub(super) fn arm<P>(&mut self, ctx: &mut Context<'_, P>, node: NodeId) {
        if let Some(at) = self.nodes[node as usize].arm(ctx.now(), &self.config) {
            ctx.timer(node, at, BEAT, true);
        }
    }

    /// Whether a node maintains its mesh.
    pub(super) fn tends(&self, node: NodeId) -> bool {
        self.tending && !self.nodes[node as usize].outside
    }

    pub(super) fn beat<P: From<Packet>>(&mut self, ctx: &mut Context<'_, P>, node: NodeId) {
        let now = ctx.now();
        if !self.nodes[node as usize].beats(now) {
            return;
        }
        if self.tends(node) {
            self.tend(ctx, node);
        }
        self.advertise(ctx, node);
        if self.tends(node) || self.nodes[node as usize].has_gossip(now, &self.config) {
            self.arm(ctx, node);
        }
    }

    /// Removes dead peers and grafts others. No node ever has more than D_high, because a full one
    /// refuses.
    fn tend<P: From<Packet>>(&mut self, ctx: &mut Context<'_, P>, node: NodeId) {
        let this = &mut self.nodes[node as usize];
        this.mesh.retain(|peer| !is_dead(ctx, *peer));
        if this.mesh.len() < self.config.d_low as usize {
            self.graft(ctx, node, Vec::new());
        }
    }

    /// Fills the mesh up to D, starting with the peers in `first`.
    fn graft<P: From<Packet>>(
        &mut self,
        ctx: &mut Context<'_, P>,
        node: NodeId,
        mut first: Vec<NodeId>,
    ) {
        let this = &self.nodes[node as usize];
        let may = |peer: NodeId| {
            this.knows(peer) && this.may_graft(peer, ctx.now()) && !is_dead(ctx, peer)
        };
        first.retain(|peer| may(*peer));
        let mut candidates = self.connections[node as usize].clone();
        candidates.retain(|peer| may(*peer) && !first.contains(peer));
        shuffle(ctx.random(), &mut candidates);
        first.extend(candidates);
        first.truncate((self.config.d as usize).saturating_sub(this.mesh.len()));
        for peer in first {
            self.nodes[node as usize].mesh.push(peer);
            self.send(ctx, (node, peer), wire::graft(), Packet::Graft);
        }
    }

    fn advertise<P: From<Packet>>(&mut self, ctx: &mut Context<'_, P>, node: NodeId) {
        let this = &self.nodes[node as usize];
        let ids: Box<[Id]> = this.advertised(ctx.now(), &self.config).into();
        if ids.is_empty() {
            return;
        }
        let have = if this.outside { &this.fanout } else { &this.mesh };
        let mut peers = self.connections[node as usize].clone();
        peers.retain(|peer| this.knows(*peer) && !have.contains(peer) && !is_dead(ctx, *peer));
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
