//! Requests that wait until a transaction is executed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use alloy_primitives::B256;
use tokio::sync::oneshot;

use fragcast_execution::exec::Snapshot;

use super::dropped::Dropped;

/// Where a transaction was executed.
#[derive(Clone)]
pub struct Inclusion {
    /// The block, as far as it had been executed.
    pub snapshot: Arc<Snapshot>,
    /// Index in the block.
    pub index: usize,
}

/// What became of a transaction.
type Outcome = Result<Inclusion, Dropped>;

#[derive(Default)]
struct Inner {
    next: u64,
    count: usize,
    by_hash: HashMap<B256, Vec<(u64, oneshot::Sender<Outcome>)>>,
}

/// All waiting requests.
pub(super) struct Waiters {
    capacity: usize,
    inner: Mutex<Inner>,
}

/// A waiting request; dropping it ends it.
pub(super) struct Waiting {
    waiters: Arc<Waiters>,
    hash: B256,
    id: u64,
    outcome: oneshot::Receiver<Outcome>,
}

impl Waiters {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, inner: Mutex::default() }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a request that waits for `hash`; `None` if too many wait.
    pub(super) fn register(self: &Arc<Self>, hash: B256) -> Option<Waiting> {
        let mut inner = self.inner();
        if inner.count >= self.capacity {
            return None;
        }
        let (sender, outcome) = oneshot::channel();
        let id = inner.next;
        inner.next += 1;
        inner.count += 1;
        inner.by_hash.entry(hash).or_default().push((id, sender));
        Some(Waiting { waiters: Arc::clone(self), hash, id, outcome })
    }

    pub(super) fn hashes(&self) -> Vec<B256> {
        self.inner().by_hash.keys().copied().collect()
    }

    /// It was executed.
    pub(super) fn resolve(&self, hash: B256, inclusion: &Inclusion) {
        self.tell(hash, &Ok(inclusion.clone()));
    }

    /// It was dropped.
    pub(super) fn fail(&self, hash: B256, why: &Dropped) {
        self.tell(hash, &Err(why.clone()));
    }

    fn tell(&self, hash: B256, outcome: &Outcome) {
        let mut inner = self.inner();
        let Some(waiting) = inner.by_hash.remove(&hash) else { return };
        inner.count -= waiting.len();
        for (_, sender) in waiting {
            // It may have given up.
            let _ = sender.send(outcome.clone());
        }
    }
}

impl Waiting {
    /// `None`: nobody will tell.
    pub(super) async fn outcome(&mut self) -> Option<Outcome> {
        (&mut self.outcome).await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut inner = self.waiters.inner();
        let inner = &mut *inner;
        let Some(waiting) = inner.by_hash.get_mut(&self.hash) else { return };
        let before = waiting.len();
        waiting.retain(|(id, _)| *id != self.id);
        inner.count -= before - waiting.len();
        if waiting.is_empty() {
            inner.by_hash.remove(&self.hash);
        }
    }
}
