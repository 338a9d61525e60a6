//! Counters of the server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use fragcast_port::PortStats;
use serde_json::{Value, json};

/// Counters of the server.
#[derive(Debug, Default)]
pub struct FlashblocksStats {
    /// Open subscriptions.
    pub subscribers: AtomicU64,
    /// Subscriptions that went on after a flashblock they named.
    pub resumed: AtomicU64,
    /// Flashblocks written.
    pub published: AtomicU64,
    /// Flashblocks handed to subscribers' sockets.
    pub sent: AtomicU64,
    /// Their bytes.
    pub sent_bytes: AtomicU64,
    /// Those of the port: connections, and why they were refused or dropped.
    pub(super) port: OnceLock<Arc<PortStats>>,
}

impl FlashblocksStats {
    /// Counts one more.
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Subscribers dropped or refused, by reason.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.port.get().into_iter().flat_map(|port| port.dropped())
    }

    /// What `fragcast status` shows.
    pub fn status(&self) -> Value {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "subscribers": load(&self.subscribers),
            "resumed": load(&self.resumed),
            "published": load(&self.published),
            "sent": load(&self.sent),
            "dropped": self.dropped().map(|(_, n)| n).sum::<u64>(),
        })
    }
}
