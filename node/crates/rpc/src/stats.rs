//! Counters of the Ethereum JSON-RPC.

use std::sync::atomic::{AtomicU64, Ordering};

use jsonrpsee::types::ErrorObjectOwned;

use crate::error;

/// Counters of requests, filters and subscriptions.
#[derive(Debug, Default)]
pub struct EthStats {
    /// Requests answered from here.
    pub answered: AtomicU64,
    /// Requests passed to the execution client.
    pub forwarded: AtomicU64,
    /// Of these, answered with an error or not at all.
    pub upstream_errors: AtomicU64,
    /// Requests with wrong parameters.
    pub invalid: AtomicU64,
    /// Requests beyond a limit.
    pub limited: AtomicU64,
    /// Requests that failed otherwise.
    pub failed: AtomicU64,
    /// Subscriptions that are open.
    pub subscribers: AtomicU64,
    /// Subscriptions dropped because they were too slow.
    pub slow: AtomicU64,
    /// Filters that are open (some may have expired since the last one was made).
    pub filters: AtomicU64,
    /// Filters dropped because nobody polled them.
    pub filters_expired: AtomicU64,
    /// Filters dropped because they were polled too rarely to keep up with events.
    pub filters_lagged: AtomicU64,
}

impl EthStats {
    /// Counts a request that was answered with an error.
    pub fn refused(&self, error: &ErrorObjectOwned) {
        Self::count(match error.code() {
            error::INVALID_PARAMS => &self.invalid,
            error::LIMIT => &self.limited,
            _ => &self.failed,
        });
    }

    /// Counts a request by its result.
    pub fn outcome<T>(&self, result: Result<T, ErrorObjectOwned>) -> Result<T, ErrorObjectOwned> {
        match &result {
            Ok(_) => Self::count(&self.answered),
            Err(error) => self.refused(error),
        }
        result
    }

    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Every counter of requests and filters by its name in metrics.
    pub fn all(&self) -> [(&'static str, u64); 8] {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("answered", get(&self.answered)),
            ("forwarded", get(&self.forwarded)),
            ("upstream_errors", get(&self.upstream_errors)),
            ("invalid", get(&self.invalid)),
            ("limited", get(&self.limited)),
            ("failed", get(&self.failed)),
            ("filters_expired", get(&self.filters_expired)),
            ("filters_lagged", get(&self.filters_lagged)),
        ]
    }
}
