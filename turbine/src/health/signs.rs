//! Signs of life of the overlay, which are taken in every phase.

use std::time::Duration;

use super::HealthConfig;
use crate::time::Timestamp;

/// Who is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Peers {
    /// The clock has not started.
    #[default]
    Unknown,
    /// Nobody has connected yet.
    Awaited { since: Timestamp },
    /// Nobody is connected any more.
    Gone { since: Timestamp },
    /// As many as this, at least one.
    Connected(usize),
}

/// What is known of the path.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Signs {
    peers: Peers,
    /// When a peer sent something last.
    pub(super) heard_at: Timestamp,
    /// When the overlay last brought a message, or this node sent one.
    pub(super) brought_at: Timestamp,
    /// Peers should be telling what they have.
    expecting: bool,
}

impl Signs {
    /// Starts the clock; says whether it had not started before.
    pub(super) fn start(&mut self, now: Timestamp) -> bool {
        let first = !self.has_started();
        if first {
            self.peers = Peers::Awaited { since: now };
            (self.heard_at, self.brought_at) = (now, now);
        }
        first
    }

    pub(super) const fn has_started(&self) -> bool {
        !matches!(self.peers, Peers::Unknown)
    }

    pub(super) const fn has_peers(&self) -> bool {
        matches!(self.peers, Peers::Connected(_))
    }

    /// Takes the number of connected peers.
    pub(super) fn connected(&mut self, now: Timestamp, peers: usize) {
        let before = if let Peers::Connected(before) = self.peers { before } else { 0 };
        if peers > before {
            // Somebody new counts as heard of.
            self.heard_at = now;
        }
        self.peers = match self.peers {
            _ if peers > 0 => Peers::Connected(peers),
            Peers::Connected(_) => Peers::Gone { since: now },
            nobody => nobody,
        };
    }

    /// Whether peers should be telling what they have. When that begins, the silence before does
    /// not count.
    pub(super) fn expect(&mut self, now: Timestamp, expecting: bool) {
        if expecting && !self.expecting {
            self.heard_at = self.heard_at.max(now);
        }
        self.expecting = expecting;
    }

    /// Whether a peer was heard within `silence`.
    pub(super) fn is_heard(&self, now: Timestamp, silence: Duration) -> bool {
        self.has_peers() && now.since(self.heard_at) <= silence
    }

    /// When connected peers that should be telling have been silent for too long.
    pub(super) fn silent_at(&self, silence: Duration) -> Option<Timestamp> {
        (self.expecting && self.has_peers()).then(|| self.heard_at + silence)
    }

    /// When nobody has been connected for too long.
    pub(super) fn alone_at(&self, config: &HealthConfig) -> Option<Timestamp> {
        match self.peers {
            Peers::Unknown | Peers::Connected(_) => None,
            Peers::Awaited { since } => Some(since + config.alone_at_start),
            Peers::Gone { since } => Some(since + config.alone),
        }
    }

    /// A fresh start on the overlay: what is old by now does not count against it.
    pub(super) fn forgive(&mut self, now: Timestamp) {
        self.heard_at = self.heard_at.max(now);
        if let Peers::Awaited { since } | Peers::Gone { since } = &mut self.peers {
            *since = now;
        }
    }

    /// Nothing that was noted before counts.
    pub(super) fn restart(&mut self, now: Timestamp) {
        (self.heard_at, self.brought_at, self.expecting) = (now, now, false);
    }
}
