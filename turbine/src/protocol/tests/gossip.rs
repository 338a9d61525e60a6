//! Gossip as far as these tests need it: whoever is subscribed gets what is published 40 ms
//! later, and what was published within the last second and a half at its first heartbeat.

use std::collections::{BTreeMap, BTreeSet};

use fragcast_shredder::Kind;

use super::*;
use crate::gossip::GossipAction;

const DELAY: Duration = Duration::from_millis(40);
const HEARTBEAT: Duration = Duration::from_millis(500);
const HISTORY: Duration = Duration::from_millis(1_500);

/// A delivery to a node.
#[derive(Clone)]
pub(super) enum Arrival {
    Listener(usize, bool),
    Message(Kind, bytes::Bytes),
}

pub(super) struct Gossip {
    pub(super) listening: Vec<bool>,
    arrivals: BTreeMap<(Timestamp, u64), (usize, Arrival)>,
    sequence: u64,
    published: Vec<(Timestamp, Kind, bytes::Bytes)>,
    /// By node: messages that it has got or published.
    seen: Vec<BTreeSet<bytes::Bytes>>,
    /// How many times each message was published.
    pub(super) copies: BTreeMap<bytes::Bytes, usize>,
    /// Nothing passes.
    pub(super) down: bool,
}

impl Gossip {
    pub(super) fn new(n: usize) -> Self {
        Self {
            listening: vec![false; n],
            arrivals: BTreeMap::new(),
            sequence: 0,
            published: Vec::new(),
            seen: vec![BTreeSet::new(); n],
            copies: BTreeMap::new(),
            down: false,
        }
    }

    /// Another node.
    pub(super) fn add(&mut self) {
        self.listening.push(false);
        self.seen.push(BTreeSet::new());
    }

    fn push(&mut self, at: Timestamp, to: usize, arrival: Arrival) {
        self.sequence += 1;
        self.arrivals.insert((at, self.sequence), (to, arrival));
    }

    pub(super) fn act(&mut self, now: Timestamp, node: usize, action: GossipAction) {
        match action {
            GossipAction::Listen(is) => {
                self.listening[node] = is;
                for to in (0..self.listening.len()).filter(|to| *to != node) {
                    self.push(now + DELAY, to, Arrival::Listener(node, is));
                }
                let recent = self.published.clone();
                for (at, kind, wire) in recent {
                    if is && now.since(at) < HISTORY {
                        self.push(now + HEARTBEAT, node, Arrival::Message(kind, wire));
                    }
                }
            }
            GossipAction::Publish { kind, wire } => {
                if !self.seen[node].insert(wire.clone()) {
                    return;
                }
                *self.copies.entry(wire.clone()).or_default() += 1;
                self.published.push((now, kind, wire.clone()));
                for to in (0..self.listening.len()).filter(|to| *to != node) {
                    self.push(now + DELAY, to, Arrival::Message(kind, wire.clone()));
                }
            }
        }
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.arrivals.first_key_value().map(|((at, _), _)| *at)
    }

    /// The deliveries due by now. Messages reach only nodes that listen by then.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<(usize, Arrival)> {
        let mut due = Vec::new();
        while self.next().is_some_and(|at| at <= now) {
            let (_, (to, arrival)) = self.arrivals.pop_first().unwrap();
            let passes = match &arrival {
                _ if self.down => false,
                Arrival::Listener(..) => true,
                Arrival::Message(_, wire) => {
                    self.listening[to] && self.seen[to].insert(wire.clone())
                }
            };
            if passes {
                due.push((to, arrival));
            }
        }
        due
    }
}
