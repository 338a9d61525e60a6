//! Models of the protocols that spread coded shreds: `direct`, Solana's Turbine, and Rotor.
//!
//! * **direct**: the leader sends every shred to everybody. Our framing and code, for one hop.
//! * **turbine**: the leader sends each shred to a root, which sends it to F nodes, each of which
//!   sends it to up to F more; a stake-weighted shuffle for every shred. Framing and code of
//!   Agave: 32 data and 32 coding shreds of full size whatever the message is, a Merkle path of
//!   20-byte nodes, UDP. (Agave's `shred/merkle.rs`, `cluster_nodes.rs`; FACTS.md)
//! * **rotor**: the leader sends each shred to one relay drawn by stake, which sends it to
//!   everybody else; 32 + 32 shreds of 1 KiB for every slice of 32 KiB (Alpenglow white paper
//!   1.1, section 2.2).
//!
//! Data shreds of all sets are sent before coding shreds. A set is complete with any k of its
//! shreds, a message with all its sets. A relay of Turbine that completes a set sends the shreds
//! of it that it still owed, as Agave's does. A node to which no new shred has come for
//! `repair_after` asks peers drawn by stake, one for each shred that it lacks, until it is
//! complete; what is repaired is not sent on. A node that saw nothing at all learns of the
//! message with what follows it, [`UNSEEN`] after it was sent.

use std::collections::BTreeMap;

use fragcast_turbine::shuffle::{Shuffle, WeightTree};

use super::limit::{framed_shred, one_hop};
use crate::engine::{Class, Context, Overlay};
use crate::outcome::How;
use crate::random;
use crate::world::World;
use crate::{MILLIS, Nanos, NodeId};

/// Solana's slot: so long after a message the next one tells whoever saw nothing of it.
pub const UNSEEN: Nanos = 400 * MILLIS;
/// Messages whose trees are kept: 8 bytes a node and shred.
const KEPT_TREES: u32 = 32;
/// A repair request: a signed header of Agave's, and IP and UDP.
const REQUEST: u32 = 132 + 28;

/// Who sends a shred to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Spread {
    /// Leader to everybody.
    Direct,
    /// Leader, root, F nodes, F nodes each.
    Turbine {
        /// F.
        fanout: u32,
    },
    /// Leader, one relay, everybody.
    Rotor,
}

/// How a message is cut, in bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// FEC sets.
    pub sets: u16,
    /// Data shreds of a set.
    pub k: u16,
    /// Coding shreds of a set.
    pub m: u16,
    /// A data shred, framed.
    pub data: u32,
    /// A coding shred, framed.
    pub coding: u32,
}

impl Cut {
    /// Agave's: 1,203 bytes of a data shred less 88 of headers, 32 of the chained root and six
    /// nodes of 20 bytes leave 963; coding shreds have 1,228; 28 bytes of IP and UDP.
    pub fn agave(bytes: u32, m: u16) -> Self {
        let sets = bytes.div_ceil(32 * 963).max(1) as u16;
        Self { sets, k: 32, m, data: 1203 + 28, coding: 1228 + 28 }
    }

    /// Alpenglow's: 1,024 bytes of data, six nodes of 32 bytes, 64 of signature, some 30 of
    /// header; 28 bytes of IP and UDP.
    pub fn alpenglow(bytes: u32, m: u16) -> Self {
        let shred = 1024 + 6 * 32 + 64 + 30 + 28;
        Self { sets: bytes.div_ceil(32 * 1024).max(1) as u16, k: 32, m, data: shred, coding: shred }
    }

    /// Ours, for one hop with this loss.
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

    /// Set and index of every shred, in the order of sending.
    fn order(self) -> impl Iterator<Item = (u16, u16)> {
        let data = (0..self.sets).flat_map(move |set| (0..self.k).map(move |i| (set, i)));
        let coding =
            (0..self.sets).flat_map(move |set| (self.k..self.shards()).map(move |i| (set, i)));
        data.chain(coding)
    }
}

/// How a protocol of this family is set up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShredsConfig {
    /// The tree.
    pub spread: Spread,
    /// The cut of each message, by its bytes.
    pub cut: CutRule,
    /// Whether a relay that completes a set sends the shreds of it that it still owed.
    pub owed: bool,
    /// How long after the latest new shred of a message a node begins to ask for the rest, and
    /// how often it asks again.
    pub repair_after: Nanos,
}

impl ShredsConfig {
    /// In words, for tables.
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

/// Which cut is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CutRule {
    /// [`Cut::agave`] with so many coding shreds a set.
    Agave(u16),
    /// [`Cut::alpenglow`] with so many coding shreds a set.
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

/// What travels. A shred is named by broadcast, set and index.
#[derive(Debug, Clone, Copy)]
pub enum Packet {
    /// On its way through the tree.
    Shred(u32, u16, u16),
    /// "Send me this one."
    Request(u32, u16, u16),
    /// The answer.
    Repaired(u32, u16, u16),
}

/// The order of one shred's shuffle, and where each node stands in it.
#[derive(Debug)]
struct Positions {
    order: Vec<NodeId>,
    position: Vec<u32>,
}

/// What is known of one message.
#[derive(Debug)]
struct Message {
    cut: Cut,
    leader: NodeId,
    /// Shreds that each node has: node × sets, one bit each.
    have: Vec<u64>,
    /// Whether a node's timer runs.
    waiting: Vec<bool>,
    /// When a node's latest new shred came.
    latest: Vec<Nanos>,
    /// Whether anything it has was asked for.
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

/// A protocol of this family, at all nodes.
#[derive(Debug)]
pub struct Shreds {
    config: ShredsConfig,
    weights: Vec<u64>,
    tree: WeightTree,
    seed: u64,
    messages: BTreeMap<u32, Message>,
}

impl Shreds {
    /// Of all nodes of `world`.
    pub fn new(config: ShredsConfig, world: &World, seed: u64) -> Self {
        let weights = world.weights();
        let tree = WeightTree::new(&weights);
        Self { config, weights, tree, seed, messages: BTreeMap::new() }
    }

    /// Everybody but the leader in the order of this shred's shuffle; those without weight last.
    fn positions(&self, leader: NodeId, broadcast: u32, set: u16, index: u16) -> Positions {
        let mut hasher = blake3::Hasher::new_derive_key("fragcast 2026 netsim tree v1");
        hasher.update(&self.seed.to_le_bytes()).update(&broadcast.to_le_bytes());
        hasher.update(&set.to_le_bytes()).update(&index.to_le_bytes());
        let seed: [u8; 32] = hasher.finalize().into();
        let mut order: Vec<NodeId> = match self.config.spread {
            // Only the first counts.
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

    /// To whom `node` sends a shred.
    fn children(&self, message: &Message, node: NodeId, set: u16, index: u16) -> Vec<NodeId> {
        let n = self.weights.len() as NodeId;
        // From somebody on and round: nobody is always served last.
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

    /// A relay that can make all shreds of a set sends those that it had not received.
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

    /// Keeps a shred. Whether it was new.
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

/// Positions below `position` in a tree of `n` positions: Agave deals the nodes of a layer to
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
        // Nothing of a message is on its way any more when so many have followed it.
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
                // Whoever has k of a set has them all.
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
        // The timer of those that saw nothing finds one that runs already.
        let seen = (0..message.cut.sets).any(|set| message.have(node, set) != 0);
        let late = ctx.now() == ctx.load().broadcasts[broadcast as usize].at + UNSEEN;
        if late && (seen || message.waiting[node as usize]) {
            return;
        }
        message.waiting[node as usize] = true;
        let quiet_at = message.latest[node as usize] + self.config.repair_after;
        if quiet_at > ctx.now() {
            // Shreds are still coming: from a leader that serves everybody for hundreds of
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
