//! Notifications that are encoded once and held by several connections.
//!
//! Their bytes count once, for nobody: they are free when the last of those who hold them has let go.
//! So [`Memory`] knows who that is, and can tell which connections must go for them to be free.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::client::Client;
use crate::memory::{Charge, Memory};

/// Who holds notifications, and how often.
#[derive(Debug)]
pub(crate) struct Holders {
    bytes: usize,
    by: Mutex<HashMap<u64, usize>>,
}

impl Holders {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes that are free when all holders have let go.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The last of the holders in the order of `ranks`; `None`: nobody holds them, or somebody who has
    /// no rank.
    pub(crate) fn last(&self, ranks: &HashMap<u64, usize>) -> Option<usize> {
        let by = self.lock();
        by.keys().map(|id| ranks.get(id).copied()).try_fold(None, |last, rank| {
            let rank = rank?;
            Some(Some(last.map_or(rank, |last: usize| last.max(rank))))
        })?
    }

    /// Whether nobody holds them.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

/// The notifications of an event, encoded once for all who want them. They are freed together.
pub struct Notices {
    id: u64,
    texts: Vec<Vec<u8>>,
    holders: Arc<Holders>,
    memory: Arc<Memory>,
    _charge: Charge,
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notices").field("holders", &self.holders).finish_non_exhaustive()
    }
}

impl Notices {
    /// What was allocated counts in `memory`, not what is used of it.
    pub(crate) fn new(memory: &Arc<Memory>, texts: Vec<Vec<u8>>) -> Arc<Self> {
        let bytes = texts.iter().map(Vec::capacity).sum();
        let holders = Arc::new(Holders { bytes, by: Mutex::default() });
        Arc::new(Self {
            id: memory.register_notices(&holders),
            texts,
            holders,
            memory: Arc::clone(memory),
            _charge: memory.charge(None, bytes),
        })
    }

    /// The texts, in order.
    pub fn texts(&self) -> &[Vec<u8>] {
        &self.texts
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        self.holders.bytes
    }

    /// Whether no connection holds them.
    pub(crate) fn is_spare(&self) -> bool {
        self.holders.is_empty()
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.memory.forget_notices(self.id);
    }
}

/// Notifications that a connection holds; it has let go when this and all texts are dropped.
pub(crate) struct Hold {
    notices: Arc<Notices>,
    client: Arc<Client>,
}

impl Hold {
    pub(crate) fn new(notices: &Arc<Notices>, client: &Arc<Client>) -> Arc<Self> {
        *notices.holders.lock().entry(client.id).or_default() += 1;
        client.share();
        Arc::new(Self { notices: Arc::clone(notices), client: Arc::clone(client) })
    }

    /// How many texts there are.
    pub(crate) fn len(&self) -> usize {
        self.notices.texts.len()
    }

    /// A text, which is held as long as the bytes.
    pub(crate) fn text(self: &Arc<Self>, number: usize) -> Bytes {
        Bytes::from_owner(Text { hold: Arc::clone(self), number })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut by = self.notices.holders.lock();
        if let Some(times) = by.get_mut(&self.client.id) {
            *times -= 1;
            if *times == 0 {
                by.remove(&self.client.id);
            }
        }
        drop(by);
        self.client.unshare();
    }
}

struct Text {
    hold: Arc<Hold>,
    number: usize,
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.hold.notices.texts.get(self.number).map_or(&[], Vec::as_slice)
    }
}
