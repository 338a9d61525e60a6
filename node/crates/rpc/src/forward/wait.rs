//! Requests that wait until a transaction is executed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use alloy_primitives::B256;
use tokio::sync::oneshot;

use fragcast_execution::exec::Snapshot;

/// Where a transaction was executed.
#[derive(Clone)]
pub struct Inclusion {
    /// The block, as far as it had been executed.
    pub snapshot: Arc<Snapshot>,
    /// Index in the block.
    pub index: usize,
}

#[derive(Default)]
struct Inner {
    next: u64,
    count: usize,
    by_hash: HashMap<B256, Vec<(u64, oneshot::Sender<Inclusion>)>>,
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
    inclusion: oneshot::Receiver<Inclusion>,
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
        let (sender, inclusion) = oneshot::channel();
        let id = inner.next;
        inner.next += 1;
        inner.count += 1;
        inner.by_hash.entry(hash).or_default().push((id, sender));
        Some(Waiting { waiters: Arc::clone(self), hash, id, inclusion })
    }

    pub(super) fn hashes(&self) -> Vec<B256> {
        self.inner().by_hash.keys().copied().collect()
    }

    pub(super) fn resolve(&self, hash: B256, inclusion: &Inclusion) {
        let mut inner = self.inner();
        let Some(waiting) = inner.by_hash.remove(&hash) else { return };
        inner.count -= waiting.len();
        for (_, sender) in waiting {
            // It may have given up.
            let _ = sender.send(inclusion.clone());
        }
    }
}

impl Waiting {
    pub(super) async fn inclusion(&mut self) -> Option<Inclusion> {
        (&mut self.inclusion).await.ok()
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
