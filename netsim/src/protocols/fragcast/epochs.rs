//! Changes of the membership table during a run.
//!
//! A [`Network`](super::Network) has one table or more, each from a block on. Nodes start with the
//! first table that names them and those before it, and learn of later ones at a given time, as
//! daemons do from their network file or contract. A node connects to a peer as soon as both know
//! each other.
//!
//! Every node numbers its peers itself. With one table all number them alike, by their index in
//! the world; with several, [`Keys`] translates.

use std::collections::BTreeMap;
use std::sync::Arc;

use fragcast_turbine::{EpochChange, EpochsView, Membership, PeerId, PeerKey, Protocol};

use super::Packet;
use super::guests::Known;
use crate::NodeId;
use crate::engine::Context;
use crate::load::Table;

/// Bit that marks the tokens of these timers. The number of the table is added.
pub(super) const TIMERS: u64 = 1 << 61;

/// The keys by which nodes name one another.
#[derive(Debug)]
pub(super) enum Keys {
    /// A node's key is its index in the world, at every node.
    Index,
    /// By node: the keys of its peers, and the peers of its keys.
    Own(Vec<(BTreeMap<NodeId, PeerKey>, BTreeMap<PeerKey, NodeId>)>),
    /// Members are known by their index; the guests after them by keys that each member gives.
    Guests {
        /// How many members there are.
        members: NodeId,
        /// By node: the guests that it knows.
        known: Vec<Known>,
    },
}

impl Keys {
    /// The keys of `nodes`, whose table is `all` if they have but one.
    pub(super) fn of(nodes: &[Protocol], all: &Membership, tables: usize) -> Self {
        if tables == 1 {
            return Self::Index;
        }
        let mut keys = Self::Own(vec![Default::default(); nodes.len()]);
        for (node, protocol) in nodes.iter().enumerate() {
            keys.refresh(node as NodeId, protocol.epochs(), all);
        }
        keys
    }

    /// The keys of a network of `members`, with guests after them.
    pub(super) fn with_guests(members: NodeId, nodes: usize) -> Self {
        Self::Guests { members, known: vec![Known::default(); nodes] }
    }

    /// How many of the nodes are members whose keys are their numbers; `None` with several tables.
    pub(super) const fn numbered(&self, nodes: usize) -> Option<usize> {
        match self {
            Self::Index => Some(nodes),
            Self::Guests { members, .. } => Some(*members as usize),
            Self::Own(_) => None,
        }
    }

    /// Reads the keys of a node anew after a change of its epochs.
    fn refresh(&mut self, node: NodeId, view: &EpochsView, all: &Membership) {
        let Self::Own(own) = self else { return };
        let known = view.peers().iter().filter_map(|(key, peer)| Some((all.index(&peer)?, key)));
        let keys: BTreeMap<NodeId, PeerKey> = known.collect();
        let nodes = keys.iter().map(|(node, key)| (*key, *node)).collect();
        own[node as usize] = (keys, nodes);
    }

    /// The key of `peer` at `node`; `None` if `node` does not know it.
    pub(super) fn key(&self, node: NodeId, peer: NodeId) -> Option<PeerKey> {
        match self {
            Self::Index => Some(peer.into()),
            Self::Own(own) => own[node as usize].0.get(&peer).copied(),
            Self::Guests { members, .. } if peer < *members => Some(peer.into()),
            Self::Guests { known, .. } => known[node as usize].keys.get(&peer).copied(),
        }
    }

    /// The peer that `node` names by `key`.
    pub(super) fn peer(&self, node: NodeId, key: PeerKey) -> Option<NodeId> {
        match self {
            Self::Index => Some(key.number()),
            Self::Own(own) => own[node as usize].1.get(&key).copied(),
            Self::Guests { members, .. } if key.number() < *members => Some(key.number()),
            Self::Guests { known, .. } => known[node as usize].nodes.get(&key).copied(),
        }
    }

    /// Takes a change of a node's epochs, and connects it to the peers that joined and know it.
    /// Returns these: their protocols must be drained.
    pub(super) fn change(
        &mut self,
        nodes: &mut [Protocol],
        node: NodeId,
        change: &EpochChange,
        all: &Membership,
    ) -> Vec<NodeId> {
        self.refresh(node, nodes[node as usize].epochs(), all);
        let joined = change.joined.iter().filter_map(|(_, peer)| all.index(peer));
        let mut connected = Vec::new();
        for peer in joined.filter(|peer| *peer != node) {
            if let (Some(there), Some(here)) = (self.key(node, peer), self.key(peer, node)) {
                nodes[node as usize].handle_connected(there);
                nodes[peer as usize].handle_connected(here);
                connected.push(peer);
            }
        }
        connected
    }
}

/// Connects all pairs of nodes that know each other before a run.
pub(super) fn connect(nodes: &mut [Protocol], keys: &Keys) {
    for node in 0..nodes.len() as NodeId {
        let peers = (0..nodes.len() as NodeId).filter(|peer| *peer != node);
        let mutual = peers.filter(|peer| keys.key(*peer, node).is_some());
        let known: Vec<PeerKey> = mutual.filter_map(|peer| keys.key(node, peer)).collect();
        nodes[node as usize].assume_connected(known);
    }
}

/// The members that a table has of `all` nodes.
pub(super) fn members(chain_id: u64, all: &Membership, table: &Table) -> Arc<Membership> {
    let present = (0..).zip(all.members()).filter(|(node, _)| !table.absent.contains(node));
    let members = present.map(|(_, member)| member.clone()).collect();
    Arc::new(Membership::new(chain_id, members).expect("a part of a valid table"))
}

/// The number of tables that `peer` starts with: up to the first that names it.
///
/// # Panics
/// If none does.
pub(super) fn known_at_start(tables: &[Arc<Membership>], peer: &PeerId) -> usize {
    let first = tables.iter().position(|members| members.index(peer).is_some());
    first.expect("every node is a member of some table") + 1
}

/// Sets the timers at which nodes learn of tables that they do not know at the start.
pub(super) fn start(ctx: &mut Context<'_, Packet>, tables: &[Table], known: &[usize]) {
    for (node, known) in known.iter().enumerate() {
        for (number, table) in tables.iter().enumerate().skip(*known) {
            ctx.timer(node as NodeId, table.known_at, TIMERS | number as u64, true);
        }
    }
}
