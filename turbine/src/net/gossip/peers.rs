//! What each connected peer has done, and whether it is too much.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fragcast_shredder::Kind;
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use strum::{IntoStaticStr, VariantArray};
use tokio::time::Instant;

use super::GossipLimits;
use super::meter::Meter;
use crate::bucket::{Bucket, Rate};
use crate::counts::labelled;
use crate::gossip::Listener;
use crate::time::Timestamp;

/// A rejected message is forgotten after this long.
const FORGIVE: Duration = Duration::from_secs(10);
/// Time for a peer to subscribe to all topics that it wants, one after the other.
const SUBSCRIBING: Duration = Duration::from_millis(300);
/// Messages a second, and at once, whose signer is no gateway that we know: each cost a recovery.
/// A peer with another list of gateways sends what the chain makes, about six a second.
const FOREIGN: (u64, u64) = (16, 256);
/// Changes of subscriptions a second, and at once: three for each time that a node falls back.
const CHANGES: (u64, u64) = (1, 64);

/// Why a peer is barred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Why {
    /// Its messages were rejected.
    Rejected,
    /// Too many of its messages were of no use.
    Ignored,
    /// More bytes than an honest node has.
    Traffic,
    /// It subscribes and unsubscribes all the time.
    Subscriptions,
    /// gossipsub does not listen to it any more.
    Score,
}

labelled!(Why);

/// The rates that peers must keep to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    rejected: Rate,
    ignored: Rate,
    foreign: Rate,
    /// While this node listens, and while it does not.
    bytes: Rate,
    quiet_bytes: Rate,
    changes: Rate,
}

impl Rates {
    pub(super) fn new(limits: &GossipLimits) -> Self {
        let each_second = |units, burst| Rate::new(units, Duration::from_secs(1), burst);
        let (ignored, at_once) = limits.ignored;
        Self {
            // One less than those for which a peer is barred.
            rejected: Rate::new(1, FORGIVE, limits.rejects.saturating_sub(1).into()),
            ignored: each_second(ignored.into(), at_once.into()),
            foreign: each_second(FOREIGN.0, FOREIGN.1),
            bytes: each_second(limits.bytes.0, limits.bytes.1),
            quiet_bytes: each_second(limits.quiet_bytes, limits.bytes.1),
            changes: each_second(CHANGES.0, CHANGES.1),
        }
    }

    const fn bytes(&self, listening: bool) -> &Rate {
        if listening { &self.bytes } else { &self.quiet_bytes }
    }
}

/// One connected peer.
pub(super) struct Peer {
    pub(super) listener: Listener,
    /// Whether the protocol knows that it listens.
    pub(super) told: bool,
    since: Instant,
    connections: BTreeMap<ConnectionId, (Arc<Meter>, u64)>,
    /// For each topic when it subscribed, in the numbers of [`Known`](super::known::Known).
    topics: [Option<u64>; 3],
    wants_frags: Option<Instant>,
    rejected: Bucket,
    ignored: Bucket,
    foreign: Bucket,
    bytes: Bucket,
    /// Whether this node listened when bytes were counted last.
    listening: bool,
    changes: Bucket,
}

const fn place(kind: Kind) -> usize {
    match kind {
        Kind::Env => 0,
        Kind::Frag => 1,
        Kind::Seal => 2,
    }
}

impl Peer {
    pub(super) fn new(now: Instant, listener: Listener) -> Self {
        Self {
            listener,
            told: false,
            since: now,
            connections: BTreeMap::new(),
            topics: [None; 3],
            wants_frags: None,
            rejected: Bucket::default(),
            ignored: Bucket::default(),
            foreign: Bucket::default(),
            bytes: Bucket::default(),
            listening: false,
            changes: Bucket::default(),
        }
    }

    /// The time as buckets count it: since the peer connected.
    fn age(&self, now: Instant) -> Timestamp {
        Timestamp::default() + now.saturating_duration_since(self.since)
    }

    pub(super) fn connect(&mut self, id: ConnectionId, meter: Arc<Meter>) {
        self.connections.insert(id, (meter, 0));
    }

    /// Forgets a connection; says whether it was the last.
    pub(super) fn disconnect(&mut self, id: ConnectionId) -> bool {
        self.connections.remove(&id);
        self.connections.is_empty()
    }

    /// Whether it is a listener: a peer that wants the fragments. By then it has subscribed to its
    /// other topics, or will not: missed messages are published once, topic by topic.
    pub(super) fn listens(&self, now: Instant) -> bool {
        let all = self.topics.iter().all(Option::is_some);
        all || self.wants_frags.is_some_and(|since| now.duration_since(since) >= SUBSCRIBING)
    }

    /// When it subscribed to a topic, if it did.
    pub(super) const fn subscribed_at(&self, kind: Kind) -> Option<u64> {
        self.topics[place(kind)]
    }

    /// It subscribed, at `Some` tick, or unsubscribed.
    pub(super) fn subscribe(
        &mut self,
        now: Instant,
        rates: &Rates,
        kind: Kind,
        tick: Option<u64>,
    ) -> Result<(), Why> {
        let topic = &mut self.topics[place(kind)];
        // Subscribed twice is subscribed since the first time.
        *topic = if tick.is_some() { topic.or(tick) } else { None };
        if kind == Kind::Frag {
            self.wants_frags = tick.and(self.wants_frags.or(Some(now)));
        }
        let now = self.age(now);
        let fine = self.changes.charge(now, &rates.changes, 1);
        if fine { Ok(()) } else { Err(Why::Subscriptions) }
    }

    /// A message of its was rejected.
    pub(super) fn rejected(&mut self, now: Instant, rates: &Rates) -> Result<(), Why> {
        let now = self.age(now);
        let fine = self.rejected.charge(now, &rates.rejected, 1);
        if fine { Ok(()) } else { Err(Why::Rejected) }
    }

    /// A message of its was of no use.
    pub(super) fn ignored(&mut self, now: Instant, rates: &Rates) -> Result<(), Why> {
        let now = self.age(now);
        let fine = self.ignored.charge(now, &rates.ignored, 1);
        if fine { Ok(()) } else { Err(Why::Ignored) }
    }

    /// A message of its may be right elsewhere: its signer is no gateway that we know, or it is of the
    /// other dialect.
    pub(super) fn foreign(&mut self, now: Instant, rates: &Rates) -> Result<(), Why> {
        let now = self.age(now);
        let fine = self.foreign.charge(now, &rates.foreign, 1);
        if fine { Ok(()) } else { Err(Why::Rejected) }
    }

    /// Looks at how many bytes came since the last time.
    pub(super) fn traffic(
        &mut self,
        now: Instant,
        rates: &Rates,
        listening: bool,
    ) -> Result<(), Why> {
        let mut bytes = 0;
        for (meter, seen) in self.connections.values_mut() {
            let received = meter.received();
            bytes += received - std::mem::replace(seen, received);
        }
        let (now, rate) = (self.age(now), rates.bytes(listening));
        let before = rates.bytes(std::mem::replace(&mut self.listening, listening));
        self.bytes.change_rate(now, before, rate);
        if self.bytes.charge(now, rate, bytes) { Ok(()) } else { Err(Why::Traffic) }
    }

    /// Whether it has been here for long and wants nothing.
    pub(super) fn is_idle(&self, now: Instant, limits: &GossipLimits) -> bool {
        self.topics == [None; 3] && now - self.since >= limits.idle
    }
}

/// The connected peers, as many as the doorman lets in.
pub(super) type Peers = BTreeMap<PeerId, Peer>;
