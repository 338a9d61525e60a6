//! Models of the protocols that spread coded shreds: `direct`, Solana's Turbine, and Rotor.
//!
//! * **direct**: the leader sends every shred to every node, with fragcast's framing and its code
//!   for one hop.
//! * **turbine**: the leader sends each shred to a root, which sends it to F nodes, each of which
//!   sends it to up to F more. The order is a stake-weighted shuffle for every shred. Framing and
//!   code are Agave's: 32 data and 32 coding shreds of full size for any message, a Merkle path of
//!   20-byte nodes, UDP (Agave's `shred/merkle.rs`, `cluster_nodes.rs`).
//! * **rotor**: the leader sends each shred to one relay drawn by stake, which sends it to all
//!   other nodes; 32 + 32 shreds of 1 KiB for every slice of 32 KiB (Alpenglow white paper 1.1,
//!   section 2.2).
//!
//! The data shreds of all sets are sent before coding shreds. A set is complete with any k of its
//! shreds, a message with all its sets. A relay of Turbine that completes a set sends the shreds
//! that it had still to forward, as Agave's does. A node that got no new shred for `repair_after`
//! asks peers drawn by stake, one for each missing shred, until it is complete; repaired shreds are
//! not forwarded. A node that got no shred at all learns of the message by the next one, [`UNSEEN`]
//! after it was sent.

use std::collections::BTreeMap;

use fragcast_turbine::shuffle::{Shuffle, WeightTree};

use super::limit::{framed_shred, one_hop};
use crate::engine::{Class, Context, Overlay};
use crate::outcome::How;
use crate::random;
use crate::world::World;
use crate::{MILLIS, Nanos, NodeId};

/// How long after a message the next one tells nodes that got nothing of it: Solana's slot.
pub const UNSEEN: Nanos = 400 * MILLIS;
/// Number of messages whose trees are kept. A tree takes 8 bytes a node and shred.
const KEPT_TREES: u32 = 32;
/// Bytes of a repair request: a signed header of Agave, IP and UDP.
const REQUEST: u32 = 132 + 28;

/// The way that a shred takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Spread {
    /// From the leader to every node.
    Direct,
    /// From the leader to a root, to F nodes, to F nodes each.
    Turbine {
        /// The number F.
        fanout: u32,
    },
    /// From the leader to one relay, to every node.
    Rotor,
}

/// The shreds of a message, with their bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// FEC sets.
    pub sets: u16,
    /// Data shreds of a set.
    pub k: u16,
    /// Coding shreds of a set.
    pub m: u16,
    /// Bytes of a framed data shred.
    pub data: u32,
    /// Bytes of a framed coding shred.
    pub coding: u32,
}

impl Cut {
    /// As Agave cuts: a data shred has 1,203 bytes, of which 88 of headers, 32 of the chained root
    /// and six nodes of 20 bytes leave 963. A coding shred has 1,228. IP and UDP add 28.
    pub fn agave(bytes: u32, m: u16) -> Self {
        let sets = bytes.div_ceil(32 * 963).max(1) as u16;
        Self { sets, k: 32, m, data: 1203 + 28, coding: 1228 + 28 }
    }

    /// As Alpenglow cuts: 1,024 bytes of data, six nodes of 32 bytes, 64 of signature, some 30 of
    /// header. IP and UDP add 28.
    pub fn alpenglow(bytes: u32, m: u16) -> Self {
        let shred = 1024 + 6 * 32 + 64 + 30 + 28;
        Self { sets: bytes.div_ceil(32 * 1024).max(1) as u16, k: 32, m, data: shred, coding: shred }
    }

    /// As fragcast cuts for one hop with this loss.
    pub fn fragcast(bytes: u32, loss: f64) -> Self {
        let rate = one_hop(bytes, loss);
        let shred = framed_shred(rate) as u32;
        let (k, m) = (rate.k.into(), rate.m.into());
        Self { sets: rate.sets, k, m, data: shred, coding: shred }
    }

    const fn shards(&self) -> u16 {
        self.k + self.m
    }

    const fn bytes(&self, index: u16) -> u32 {
        if index < self.k { self.data } else { self.coding }
    }

    /// Set and index of every shred in the order of sending.
    fn order(self) -> impl Iterator<Item = (u16, u16)> {
        let data = (0..self.sets).flat_map(move |set| (0..self.k).map(move |i| (set, i)));
        let coding =
            (0..self.sets).flat_map(move |set| (self.k..self.shards()).map(move |i| (set, i)));
        data.chain(coding)
    }
}

/// Configuration of a protocol of this family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShredsConfig {
    /// The way of the shreds.
    pub spread: Spread,
    /// How messages are cut.
    pub cut: CutRule,
    /// Whether a relay that completes a set sends the shreds that it had still to forward.
    pub owed: bool,
    /// How long after the latest new shred of a message a node asks for the rest, and the interval
    /// at which it asks again.
    pub repair_after: Nanos,
}

impl ShredsConfig {
    /// Describes it for tables.
    pub fn describe(&self) -> String {
        let tree = match self.spread {
            Spread::Direct => "leader to all".to_owned(),
            Spread::Turbine { fanout } => format!("F = {fanout}"),
            Spread::Rotor => "one relay a shred".to_owned(),
        };
        match self.cut {
            CutRule::Agave(m) | CutRule::Alpenglow(m) => format!("{tree}, 32:{m}"),
            CutRule::Fragcast(loss) => format!("{tree}, code for {} % loss", loss * 100.0),
        }
    }
}

/// The rule by which messages are cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CutRule {
    /// [`Cut::agave`] with this many coding shreds a set.
    Agave(u16),
    /// [`Cut::alpenglow`] with this many coding shreds a set.
    Alpenglow(u16),
    /// [`Cut::fragcast`] for this loss.
    Fragcast(f64),
}

impl CutRule {
    fn cut(self, bytes: u32) -> Cut {
        match self {
            Self::Agave(m) => Cut::agave(bytes, m),
            Self::Alpenglow(m) => Cut::alpenglow(bytes, m),
            Self::Fragcast(loss) => Cut::fragcast(bytes, loss),
        }
    }
}

/// A packet on the wire. A shred is identified by broadcast, set and index.
#[derive(Debug, Clone, Copy)]
pub enum Packet {
    /// A shred that spreads.
    Shred(u32, u16, u16),
    /// A request for a shred.
    Request(u32, u16, u16),
    /// A shred in answer to a request.
    Repaired(u32, u16, u16),
}

/// The shuffle of one shred: the order of nodes, and the position of each.
#[derive(Debug)]
struct Positions {
    order: Vec<NodeId>,
    position: Vec<u32>,
}

/// The state of one message.
#[derive(Debug)]
struct Message {
    cut: Cut,
    leader: NodeId,
    /// The shreds that each node has: one word by node and set, one bit a shred.
    have: Vec<u64>,
    /// By node: whether its timer is set.
    waiting: Vec<bool>,
    /// By node: when its latest new shred came.
    latest: Vec<Nanos>,
    /// By node: whether it asked for any shred.
    repaired: Vec<bool>,
    trees: BTreeMap<(u16, u16), Positions>,
}

impl Message {
    fn have(&self, node: NodeId, set: u16) -> u64 {
        self.have[node as usize * usize::from(self.cut.sets) + usize::from(set)]
    }

    fn complete(&self, node: NodeId) -> bool {
        (0..self.cut.sets).all(|set| self.have(node, set).count_ones() >= u32::from(self.cut.k))
    }
}

/// A protocol of this family at all nodes.
#[derive(Debug)]
pub struct Shreds {
    config: ShredsConfig,
    weights: Vec<u64>,
    tree: WeightTree,
    seed: u64,
    messages: BTreeMap<u32, Message>,
}

impl Shreds {
    /// The protocol at all nodes of `world`.
    pub fn new(config: ShredsConfig, world: &World, seed: u64) -> Self {
        let weights = world.weights();
        let tree = WeightTree::new(&weights);
        Self { config, weights, tree, seed, messages: BTreeMap::new() }
    }

    /// All nodes except the leader, in the order of this shred's shuffle; those without weight
    /// last.
    fn positions(&self, leader: NodeId, broadcast: u32, set: u16, index: u16) -> Positions {
        let mut hasher = blake3::Hasher::new_derive_key("fragcast 2026 netsim tree v1");
        hasher.update(&self.seed.to_le_bytes()).update(&broadcast.to_le_bytes());
        hasher.update(&set.to_le_bytes()).update(&index.to_le_bytes());
        let seed: [u8; 32] = hasher.finalize().into();
        let mut order: Vec<NodeId> = match self.config.spread {
            // Only the first node is used.
            Spread::Rotor => Shuffle::new(&self.tree, &seed, Some(leader as usize))
                .take(1)
                .map(|i| i as NodeId)
                .collect(),
            _ => Shuffle::new(&self.tree, &seed, Some(leader as usize))
                .map(|i| i as NodeId)
                .collect(),
        };
        if self.config.spread != Spread::Rotor {
            let weightless = (0..self.weights.len()).filter(|i| self.weights[*i] == 0);
            order.extend(weightless.map(|i| i as NodeId).filter(|i| *i != leader));
        }
        if self.config.spread == Spread::Rotor {
            return Positions { order, position: Vec::new() };
        }
        let mut position = vec![u32::MAX; self.weights.len()];
        for (at, node) in order.iter().enumerate() {
            position[*node as usize] = at as u32;
        }
        Positions { order, position }
    }

    /// The nodes to which `node` sends a shred.
    fn children(&self, message: &Message, node: NodeId, set: u16, index: u16) -> Vec<NodeId> {
        let n = self.weights.len() as NodeId;
        // Starts at a random node, so that no node is always served last.
        let others = |first: NodeId| {
            (0..n).map(move |i| (first + i) % n).filter(move |i| *i != node && *i != message.leader)
        };
        if self.config.spread == Spread::Direct {
            return if node == message.leader { others(0).collect() } else { Vec::new() };
        }
        let Some(tree) = message.trees.get(&(set, index)) else { return Vec::new() };
        if node == message.leader {
            return tree.order.first().copied().into_iter().collect();
        }
        match self.config.spread {
            Spread::Direct => Vec::new(),
            Spread::Rotor if tree.order.first() == Some(&node) => {
                let first = u32::from(set) * 64 + u32::from(index);
                others(first.wrapping_mul(0x9e37) % n).collect()
            }
            Spread::Rotor => Vec::new(),
            Spread::Turbine { fanout } => {
                let (position, last) = (tree.position[node as usize], tree.order.len() as u32);
                turbine_children(position, fanout, last).map(|at| tree.order[at as usize]).collect()
            }
        }
    }

    fn forward(
        &self,
        ctx: &mut Context<'_, Packet>,
        node: NodeId,
        (broadcast, set, index): (u32, u16, u16),
    ) {
        let Some(message) = self.messages.get(&broadcast) else { return };
        let bytes = message.cut.bytes(index);
        for to in self.children(message, node, set, index) {
            ctx.send(node, to, bytes, Class::Data, Packet::Shred(broadcast, set, index));
        }
    }

    /// Sends, from a relay that completed a set, the shreds that it had not received.
    fn send_owed(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId, broadcast: u32, set: u16) {
        let Some(message) = self.messages.get_mut(&broadcast) else { return };
        let slot = node as usize * usize::from(message.cut.sets) + usize::from(set);
        let have = message.have[slot];
        if !self.config.owed
            || have.count_ones() != u32::from(message.cut.k)
            || message.repaired[node as usize]
        {
            return;
        }
        message.have[slot] = u64::MAX;
        for index in (0..message.cut.shards()).filter(|index| have >> index & 1 == 0) {
            self.forward(ctx, node, (broadcast, set, index));
        }
    }

    /// Stores a shred. Returns whether it was new.
    fn store(
        &mut self,
        ctx: &mut Context<'_, Packet>,
        node: NodeId,
        (broadcast, set, index): (u32, u16, u16),
        repaired: bool,
    ) -> bool {
        let Some(message) = self.messages.get_mut(&broadcast) else { return false };
        let slot = node as usize * usize::from(message.cut.sets) + usize::from(set);
        if node == message.leader || message.have[slot] >> index & 1 == 1 {
            return false;
        }
        message.have[slot] |= 1 << index;
        message.repaired[node as usize] |= repaired;
        message.latest[node as usize] = ctx.now();
        if !message.waiting[node as usize] {
            message.waiting[node as usize] = true;
            let at = ctx.now() + self.config.repair_after;
            ctx.timer(node, at, broadcast.into(), true);
        }
        if message.have[slot].count_ones() == u32::from(message.cut.k) && message.complete(node) {
            let repaired = message.repaired[node as usize];
            let how = if repaired { How::Repair } else { How::Spread };
            ctx.complete(node, broadcast as usize, how);
        }
        true
    }
}

/// The positions below `position` in a tree of `n` positions. Agave assigns the nodes of a layer to
/// the layer above in strides of the fanout.
fn turbine_children(position: u32, fanout: u32, n: u32) -> impl Iterator<Item = u32> {
    let (first, step) = match position {
        0 => (1, 1),
        _ => {
            let offset = (position - 1) % fanout;
            let anchor = position - offset;
            (anchor.saturating_mul(fanout).saturating_add(offset + 1), fanout)
        }
    };
    (0..fanout)
        .map(move |i| first.saturating_add(i.saturating_mul(step)))
        .take_while(move |c| *c < n)
}

impl Overlay for Shreds {
    type Packet = Packet;

    fn broadcast(&mut self, ctx: &mut Context<'_, Packet>, index: usize) {
        let broadcast = ctx.load().broadcasts[index];
        let (n, leader) = (self.weights.len(), broadcast.leader);
        let cut = self.config.cut.cut(broadcast.bytes);
        let mut trees = BTreeMap::new();
        if self.config.spread != Spread::Direct {
            for (set, shred) in cut.order() {
                let positions = self.positions(leader, index as u32, set, shred);
                trees.insert((set, shred), positions);
            }
        }
        let mut have = vec![0; n * usize::from(cut.sets)];
        // No shred of a message is on its way any more when this many messages have followed.
        if let Some(old) = (index as u32).checked_sub(KEPT_TREES)
            && let Some(message) = self.messages.get_mut(&old)
        {
            message.trees.clear();
        }
        let start = leader as usize * usize::from(cut.sets);
        have[start..start + usize::from(cut.sets)].fill(u64::MAX);
        let (waiting, repaired) = (vec![false; n], vec![false; n]);
        let latest = vec![broadcast.at; n];
        let message = Message { cut, leader, have, waiting, latest, repaired, trees };
        self.messages.insert(index as u32, message);
        for (set, shred) in cut.order() {
            self.forward(ctx, leader, (index as u32, set, shred));
        }
        for node in (0..n as NodeId).filter(|node| *node != leader) {
            ctx.timer(node, broadcast.at + UNSEEN, index as u64, true);
        }
    }

    fn deliver(&mut self, ctx: &mut Context<'_, Packet>, from: NodeId, to: NodeId, packet: Packet) {
        match packet {
            Packet::Shred(broadcast, set, index) => {
                if self.store(ctx, to, (broadcast, set, index), false) {
                    self.forward(ctx, to, (broadcast, set, index));
                    self.send_owed(ctx, to, broadcast, set);
                }
            }
            Packet::Repaired(broadcast, set, index) => {
                self.store(ctx, to, (broadcast, set, index), true);
            }
            Packet::Request(broadcast, set, index) => {
                let Some(message) = self.messages.get(&broadcast) else { return };
                // A node that has k shreds of a set has them all.
                let have = message.have(to, set);
                if have >> index & 1 == 1 || have.count_ones() >= u32::from(message.cut.k) {
                    let bytes = message.cut.bytes(index);
                    let answer = Packet::Repaired(broadcast, set, index);
                    ctx.send(to, from, bytes, Class::Repair, answer);
                }
            }
        }
    }

    fn timer(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId, token: u64) {
        let broadcast = token as u32;
        let Some(message) = self.messages.get_mut(&broadcast) else { return };
        if message.complete(node) {
            return;
        }
        // The timer for nodes that got nothing finds that another one is set.
        let seen = (0..message.cut.sets).any(|set| message.have(node, set) != 0);
        let late = ctx.now() == ctx.load().broadcasts[broadcast as usize].at + UNSEEN;
        if late && (seen || message.waiting[node as usize]) {
            return;
        }
        message.waiting[node as usize] = true;
        let quiet_at = message.latest[node as usize] + self.config.repair_after;
        if quiet_at > ctx.now() {
            // Shreds are still coming, from a leader that sends to all nodes for hundreds of
            // milliseconds.
            ctx.timer(node, quiet_at, token, true);
            return;
        }
        let message = &self.messages[&broadcast];
        for set in 0..message.cut.sets {
            let have = message.have(node, set);
            let lacking = u32::from(message.cut.k).saturating_sub(have.count_ones());
            let missing = (0..message.cut.shards()).filter(|i| have >> i & 1 == 0);
            for index in missing.take(lacking as usize) {
                let peer = random::weighted(ctx.random(), &self.weights).unwrap_or(0) as NodeId;
                if peer != node {
                    let request = Packet::Request(broadcast, set, index);
                    ctx.send(node, peer, REQUEST, Class::Control, request);
                }
            }
        }
        let again = ctx.now() + self.config.repair_after;
        ctx.timer(node, again, token, true);
    }
}

#[cfg(test)]
mod tests;
