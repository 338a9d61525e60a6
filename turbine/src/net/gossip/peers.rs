//! What each connected peer has done, and whether it is too much.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fragcast_shredder::Kind;
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

use super::GossipLimits;
use super::bucket::Bucket;
use super::meter::Meter;
use crate::gossip::Listener;

/// A rejected message is forgotten after so many seconds.
const FORGIVE: f64 = 10.0;
/// A peer may subscribe to one topic after the other: so long for all that it wants.
const SUBSCRIBING: Duration = Duration::from_millis(300);
/// Changes of subscriptions a second, and at once: three for each time that a node falls back.
const CHANGES: (f64, f64) = (1.0, 64.0);

/// Why a peer is barred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Why {
    pub(super) const ALL: [Self; 5] =
        [Self::Rejected, Self::Ignored, Self::Traffic, Self::Subscriptions, Self::Score];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Ignored => "ignored",
            Self::Traffic => "traffic",
            Self::Subscriptions => "subscriptions",
            Self::Score => "score",
        }
    }
}

/// One connected peer.
pub(super) struct Peer {
    pub(super) listener: Listener,
    /// The protocol was told that it listens.
    pub(super) told: bool,
    since: Instant,
    connections: BTreeMap<ConnectionId, (Arc<Meter>, u64)>,
    /// For each topic when it subscribed, in the numbers of [`Known`](super::known::Known).
    topics: [Option<u64>; 3],
    wants_frags: Option<Instant>,
    rejected: Bucket,
    ignored: Bucket,
    bytes: Bucket,
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
    pub(super) const fn new(now: Instant, listener: Listener) -> Self {
        let bucket = Bucket::new(now);
        Self {
            listener,
            told: false,
            since: now,
            connections: BTreeMap::new(),
            topics: [None; 3],
            wants_frags: None,
            rejected: bucket,
            ignored: bucket,
            bytes: bucket,
            changes: bucket,
        }
    }

    pub(super) fn connect(&mut self, id: ConnectionId, meter: Arc<Meter>) {
        self.connections.insert(id, (meter, 0));
    }

    /// Forgets a connection; says whether it was the last.
    pub(super) fn disconnect(&mut self, id: ConnectionId) -> bool {
        self.connections.remove(&id);
        self.connections.is_empty()
    }

    /// Whether it listens to us: who wants the fragments. It has said by then what else it
    /// wants, or will not: what it missed is published once, topic by topic.
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
        kind: Kind,
        tick: Option<u64>,
    ) -> Result<(), Why> {
        let topic = &mut self.topics[place(kind)];
        // Subscribed twice is subscribed since the first time.
        *topic = if tick.is_some() { topic.or(tick) } else { None };
        if kind == Kind::Frag {
            self.wants_frags = tick.and(self.wants_frags.or(Some(now)));
        }
        let (rate, burst) = CHANGES;
        if self.changes.take(now, 1.0, rate, burst) { Ok(()) } else { Err(Why::Subscriptions) }
    }

    pub(super) fn rejected(&mut self, now: Instant, limits: &GossipLimits) -> Result<(), Why> {
        let allowed = f64::from(limits.rejects.saturating_sub(1));
        let fine = self.rejected.take(now, 1.0, 1.0 / FORGIVE, allowed);
        if fine { Ok(()) } else { Err(Why::Rejected) }
    }

    pub(super) fn ignored(&mut self, now: Instant, limits: &GossipLimits) -> Result<(), Why> {
        let (rate, burst) = limits.ignored;
        let fine = self.ignored.take(now, 1.0, f64::from(rate), f64::from(burst));
        if fine { Ok(()) } else { Err(Why::Ignored) }
    }

    /// Looks at how many bytes came since the last time.
    pub(super) fn traffic(
        &mut self,
        now: Instant,
        limits: &GossipLimits,
        listening: bool,
    ) -> Result<(), Why> {
        let mut bytes = 0;
        for (meter, seen) in self.connections.values_mut() {
            let received = meter.received();
            bytes += received - std::mem::replace(seen, received);
        }
        let rate = if listening { limits.bytes.0 } else { limits.quiet_bytes };
        let fine = self.bytes.take(now, bytes as f64, rate as f64, limits.bytes.1 as f64);
        if fine { Ok(()) } else { Err(Why::Traffic) }
    }

    /// Whether it has been here for long and wants nothing.
    pub(super) fn is_idle(&self, now: Instant, limits: &GossipLimits) -> bool {
        self.topics == [None; 3] && now - self.since >= limits.idle
    }
}

/// The connected peers, as many as the doorman lets in.
pub(super) type Peers = BTreeMap<PeerId, Peer>;
