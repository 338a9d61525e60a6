//! Counters of the server.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// Why a subscriber was dropped or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::VariantArray, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Dropped {
    /// It missed flashblocks.
    Lagged,
    /// It did not take a flashblock in time.
    Slow,
    /// It sent nothing for three pings.
    Silent,
    /// It sent too much, or something that is not WebSocket.
    Misbehaved,
    /// All places were taken.
    Full,
    /// Its address has as many subscribers as it may.
    Address,
    /// Its handshake failed or took too long.
    Handshake,
    /// It asked for a host that is not served, or for a page of another site.
    Refused,
}

impl Dropped {
    const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    fn label(self) -> &'static str {
        self.into()
    }
}

/// Counters of the server.
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

    /// Subscribers dropped or refused, by reason.
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
