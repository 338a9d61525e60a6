//! Why forwarded transactions were dropped: the newest reasons by hash, and counters.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use alloy_primitives::B256;
use fragcast_execution::exec::admission::Why;

/// Reasons that are kept: some 300 bytes each.
const MOST: usize = 1_024;

/// Why an entry of the table ended without having been executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// It cannot be executed any more.
    #[error("{1}")]
    Invalid(Why, String),
    /// Another one with the same nonce was sent later and taken.
    #[error("replaced by {0}")]
    Replaced(B256),
    /// Blocks that it could have been in came without it.
    #[error(
        "the gateway took it, and {0} blocks came without it although it could be executed; send it \
         again"
    )]
    LeftOut(u64),
    /// It was not executed in time.
    #[error(
        "it was not executed in time: a transaction before it is missing, or its fees are too low"
    )]
    Expired,
    /// Newer ones needed its place.
    #[error("newer transactions needed its place")]
    Full,
}

impl Dropped {
    /// Labels in metrics.
    pub const LABELS: [&'static str; 10] = [
        "nonce", "fees", "funds", "gas", "type", "form", "replaced", "left_out", "expired", "full",
    ];

    /// The label in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Invalid(why, _) => why.into(),
            Self::Replaced(_) => "replaced",
            Self::LeftOut(_) => "left_out",
            Self::Expired => "expired",
            Self::Full => "full",
        }
    }
}

/// Counters of forwarding.
#[derive(Debug, Default)]
pub struct ForwardStats {
    /// Transactions that a gateway took.
    pub sent: AtomicU64,
    /// Transactions that were refused here.
    pub refused: AtomicU64,
    /// Transactions that no gateway took.
    pub not_taken: AtomicU64,
    dropped: [AtomicU64; Dropped::LABELS.len()],
}

impl ForwardStats {
    /// Transactions that were dropped, by reason.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let numbers = self.dropped.iter().map(|number| number.load(Ordering::Relaxed));
        Dropped::LABELS.into_iter().zip(numbers)
    }

    pub(super) fn count(&self, dropped: &Dropped) {
        if let Some(at) = Dropped::LABELS.iter().position(|label| *label == dropped.label()) {
            self.dropped[at].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The newest reasons.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    by_hash: HashMap<B256, Dropped>,
    order: VecDeque<B256>,
}

impl Reasons {
    pub(super) fn add(&mut self, hash: B256, why: Dropped) {
        if self.by_hash.insert(hash, why).is_none() {
            self.order.push_back(hash);
        }
        while self.order.len() > MOST {
            let Some(oldest) = self.order.pop_front() else { break };
            self.by_hash.remove(&oldest);
        }
    }

    pub(super) fn get(&self, hash: B256) -> Option<&Dropped> {
        self.by_hash.get(&hash)
    }

    /// It is sent again, or was executed after all.
    pub(super) fn forget(&mut self, hash: B256) {
        if self.by_hash.remove(&hash).is_some() {
            self.order.retain(|other| *other != hash);
        }
    }
}
