//! The outcome of a run.

use fragcast_turbine::health::{Reason, State};

use crate::{Nanos, NodeId};

/// How a node got a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By the protocol's normal way of spreading.
    Spread,
    /// By asking for a part of it.
    Repair,
    /// By gossip as fragcast's fallback.
    Gossip,
}

/// Stands for a time that never comes.
pub const NEVER: Nanos = Nanos::MAX;

/// When each node had one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// By node: the time after the leader had it. 0 for the leader, [`NEVER`] for nodes that never
    /// had it.
    pub after: Vec<Nanos>,
    /// By node: whether it had to ask for a part.
    pub repaired: Vec<bool>,
    /// By node: whether the fallback brought it first.
    pub gossiped: Vec<bool>,
}

/// A node's change between the overlay and gossip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The time of the change.
    pub at: Nanos,
    /// The node that changed.
    pub node: NodeId,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// The reason.
    pub reason: Reason,
    /// If `to` is gossip: the number of blocks that the overlay must complete before the node
    /// returns.
    pub dwell: u64,
    /// If `to` is gossip: the age of the oldest message that was sent since the node was last on
    /// the overlay, and that the overlay has not brought; `None` if there is none.
    pub missing_for: Option<Nanos>,
}

/// The results of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Completions by broadcast.
    pub completions: Vec<Completion>,
    /// Bytes that each node sent, framing included.
    pub sent: Vec<u64>,
    /// The part of all bytes sent that went over TCP, which is gossip's.
    pub sent_by_tcp: u64,
    /// Bytes that each node received.
    pub received: Vec<u64>,
    /// Number of hosts that each node exchanged packets with.
    pub degree: Vec<u32>,
    /// By node: whether it holds evidence of an equivocation.
    pub convicted: Vec<bool>,
    /// The nodes' changes between overlay and gossip, in the order of time.
    pub changes: Vec<Change>,
    /// Messages of which their leaders learnt that the next leader has them: the number of the
    /// broadcast, and how long after it.
    pub held: Vec<(usize, Nanos)>,
    /// How long the nodes had been up before the run, if that matters, and the bytes that all of
    /// them sent in that time.
    pub warm_up: Option<(Nanos, u64)>,
    /// Packets lost on the way.
    pub lost: u64,
    /// Packets that did not fit into an uplink's queue.
    pub dropped_uplink: u64,
    /// Packets that did not fit into a downlink's queue.
    pub dropped_downlink: u64,
    /// Packets that were not sent because a host has the most peers that it may have.
    pub refused: u64,
    /// Packets with a part of a message that nodes handled.
    pub handled: u64,
    /// Number of events.
    pub events: u64,
    /// The time of the last event, or the horizon if a node was still incomplete.
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
            held: Vec::new(),
            warm_up: None,
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

    /// The node that sent the most bytes, and how many.
    pub fn busiest(&self) -> (NodeId, u64) {
        let most = self.sent.iter().enumerate().max_by_key(|(i, sent)| (**sent, usize::MAX - i));
        most.map_or((0, 0), |(i, sent)| (i as NodeId, *sent))
    }
}

/// Hashes the events in order.
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
