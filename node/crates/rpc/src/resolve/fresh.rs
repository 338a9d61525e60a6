//! Whether `pending` is young enough to be told.
//!
//! A gateway that falls silent in mid-block leaves the newest frag to grow old. Beyond a bound,
//! `pending` reads as `latest` does, and the log, the metrics and `/readyz` say so, until another
//! frag is executed or the block is verified.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The bound, and what has become of it.
#[derive(Debug, Default)]
pub struct Freshness {
    /// Zero: no bound.
    limit: Duration,
    stale: AtomicBool,
    fallbacks: AtomicU64,
}

impl Freshness {
    /// Frags older than `limit` are not told; zero: they are, however old.
    pub fn new(limit: Duration) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Whether the newest frag is too old; remembers it and tells the log when that changes.
    pub(super) fn judge(&self, age: Option<Duration>, block: u64) -> bool {
        let stale = !self.limit.is_zero() && age.is_some_and(|age| age > self.limit);
        if self.stale.load(Ordering::Relaxed) != stale
            && self.stale.swap(stale, Ordering::Relaxed) != stale
        {
            let limit = self.limit.as_millis();
            if stale {
                self.fallbacks.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    block,
                    limit_ms = limit,
                    "no frag came for too long: `pending` reads as `latest`"
                );
            } else {
                tracing::info!("`pending` is fresh again");
            }
        }
        stale
    }

    /// How often `pending` began to read as `latest`.
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Ordering::Relaxed)
    }
}
