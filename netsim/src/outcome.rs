//! What came of a run.

use fragcast_turbine::health::{Reason, State};

use crate::{Nanos, NodeId};

/// How a node got a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// As the protocol spreads it.
    Spread,
    /// It had to ask for a part.
    Repair,
    /// By gossip, where that is not how the protocol spreads it: our own fallback.
    Gossip,
}

/// Stands for "never".
pub const NEVER: Nanos = Nanos::MAX;

/// When each node had one message, after its leader did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// By node; the leader's own entry is 0.
    pub after: Vec<Nanos>,
    /// Nodes that had to ask, by node.
    pub repaired: Vec<bool>,
    /// Nodes that had it by the fallback first, by node.
    pub gossiped: Vec<bool>,
}

/// A node counts on another way from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Nanos,
    /// Who.
    pub node: NodeId,
    /// From what.
    pub from: State,
    /// To what.
    pub to: State,
    /// Why.
    pub reason: Reason,
    /// Blocks that the overlay must complete before the way back, if `to` is gossip.
    pub dwell: u64,
    /// If `to` is gossip: how long before the oldest message was sent that the overlay has not
    /// brought since the node was on it last; `None` if it lacks none.
    pub missing_for: Option<Nanos>,
}

/// Numbers of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// By broadcast.
    pub completions: Vec<Completion>,
    /// Bytes that each node sent, framing included.
    pub sent: Vec<u64>,
    /// Of all those bytes, what went over TCP: gossip's.
    pub sent_by_tcp: u64,
    /// Bytes that each node received.
    pub received: Vec<u64>,
    /// Hosts that each node exchanged packets with.
    pub degree: Vec<u32>,
    /// Nodes that hold evidence of an equivocation.
    pub convicted: Vec<bool>,
    /// How nodes changed between overlay and gossip, in the order of time.
    pub changes: Vec<Change>,
    /// Packets lost on the way.
    pub lost: u64,
    /// Packets that did not fit into an uplink's queue.
    pub dropped_uplink: u64,
    /// Packets that did not fit into a downlink's queue.
    pub dropped_downlink: u64,
    /// Packets that were not sent because a host has as many peers as it may.
    pub refused: u64,
    /// Packets with a part of a message that nodes handled.
    pub handled: u64,
    /// Events in all.
    pub events: u64,
    /// When the last event happened, or the horizon if somebody still waited.
    pub end: Nanos,
    /// BLAKE3 over all events in order.
    pub digest: [u8; 32],
}

impl Outcome {
    pub(crate) fn new(nodes: usize, broadcasts: usize) -> Self {
        let no = vec![false; nodes];
        let completion =
            Completion { after: vec![NEVER; nodes], repaired: no.clone(), gossiped: no };
        Self {
            completions: vec![completion; broadcasts],
            sent: vec![0; nodes],
            sent_by_tcp: 0,
            received: vec![0; nodes],
            degree: vec![0; nodes],
            convicted: vec![false; nodes],
            changes: Vec::new(),
            lost: 0,
            dropped_uplink: 0,
            dropped_downlink: 0,
            refused: 0,
            handled: 0,
            events: 0,
            end: 0,
            digest: [0; 32],
        }
    }

    /// The node that sent most, and how much.
    pub fn busiest(&self) -> (NodeId, u64) {
        let most = self.sent.iter().enumerate().max_by_key(|(i, sent)| (**sent, usize::MAX - i));
        most.map_or((0, 0), |(i, sent)| (i as NodeId, *sent))
    }
}

/// Hashes events in order.
#[derive(Debug)]
pub(crate) struct Digest {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl Digest {
    pub(crate) fn new() -> Self {
        let hasher = blake3::Hasher::new_derive_key("fragcast 2026 netsim events v1");
        Self { hasher, buffer: Vec::with_capacity(8192) }
    }

    pub(crate) fn event(&mut self, at: Nanos, kind: u8, a: u32, b: u32, c: u64) {
        self.buffer.extend_from_slice(&at.to_le_bytes());
        self.buffer.push(kind);
        self.buffer.extend_from_slice(&a.to_le_bytes());
        self.buffer.extend_from_slice(&b.to_le_bytes());
        self.buffer.extend_from_slice(&c.to_le_bytes());
        if self.buffer.len() > 8000 {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    pub(crate) fn finish(mut self) -> [u8; 32] {
        self.hasher.update(&self.buffer);
        self.hasher.finalize().into()
    }
}
