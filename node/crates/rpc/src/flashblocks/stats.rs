//! The door's numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// Why a subscriber was dropped, or not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// It missed flashblocks.
    Lagged,
    /// It did not take one in time.
    Slow,
    /// Nothing came of it for three pings.
    Silent,
    /// It sent too much, or something that is no WebSocket.
    Misbehaved,
    /// No seat was free.
    Full,
    /// Its address has all it may have.
    Address,
    /// Its handshake was none, or took too long.
    Handshake,
}

impl Dropped {
    const ALL: [Self; 7] = [
        Self::Lagged,
        Self::Slow,
        Self::Silent,
        Self::Misbehaved,
        Self::Full,
        Self::Address,
        Self::Handshake,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Lagged => "lagged",
            Self::Slow => "slow",
            Self::Silent => "silent",
            Self::Misbehaved => "misbehaved",
            Self::Full => "full",
            Self::Address => "address",
            Self::Handshake => "handshake",
        }
    }
}

/// The door's numbers.
#[derive(Debug, Default)]
pub struct FlashblocksStats {
    /// Open subscriptions.
    pub subscribers: AtomicU64,
    /// Flashblocks written.
    pub published: AtomicU64,
    /// Flashblocks handed to subscribers' sockets.
    pub sent: AtomicU64,
    /// Their bytes.
    pub sent_bytes: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

impl FlashblocksStats {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn drop_for(&self, reason: Dropped) {
        Self::count(&self.dropped[reason as usize]);
    }

    /// Subscribers dropped and not let in, by reason.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Dropped::ALL
            .iter()
            .map(|reason| (reason.label(), self.dropped[*reason as usize].load(Ordering::Relaxed)))
    }

    /// What `fragcast status` shows.
    pub fn status(&self) -> Value {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "subscribers": load(&self.subscribers),
            "published": load(&self.published),
            "sent": load(&self.sent),
            "dropped": self.dropped().map(|(_, n)| n).sum::<u64>(),
        })
    }
}
