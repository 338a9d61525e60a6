//! Counters of a port.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection was refused or closed, or a request refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::VariantArray, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum Dropped {
    /// All places were taken, and nobody was idle.
    Full,
    /// Its address has as many connections as it may.
    Address,
    /// It was idle, and its place was needed.
    Idle,
    /// It did not take an answer or a notification in time.
    Slow,
    /// It did not send the rest of a request in time.
    HalfSent,
    /// It did not answer pings.
    Silent,
    /// The port's memory was needed, and it had kept the node waiting for longest.
    Shed,
    /// No memory came free for its request.
    NoRoom,
    /// It missed messages of a feed.
    Lagged,
    /// It sent too long a message, or something that is not the protocol.
    Misbehaved,
    /// The `Host` is none of those served.
    Host,
    /// The `Origin` may not open a WebSocket.
    Origin,
    /// It lacked the token.
    Token,
}

impl Dropped {
    /// All of them.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The name in metrics.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// Counters of a port.
#[derive(Debug, Default)]
pub struct PortStats {
    /// Open connections.
    pub connections: AtomicU64,
    /// Connections that were let in.
    pub accepted: AtomicU64,
    /// Failures of `accept`, most likely for want of file descriptors.
    pub accept_failed: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

impl PortStats {
    /// Counts a connection or request that was dropped.
    pub fn drop_for(&self, reason: Dropped) {
        self.dropped[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Connections and requests dropped for `reason`.
    pub fn dropped_for(&self, reason: Dropped) -> u64 {
        self.dropped[reason as usize].load(Ordering::Relaxed)
    }

    /// What was dropped, by reason.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Dropped::ALL.iter().map(|reason| (reason.label(), self.dropped_for(*reason)))
    }
}
