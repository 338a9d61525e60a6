//! Notifications that are encoded once for all who want them.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use crate::memory::{Memory, Spare};
use crate::notices::Notices;

/// Encodings that are kept, however small.
const MOST: usize = 1024;

type Cell = Arc<OnceCell<Arc<Notices>>>;

struct Entry<K> {
    key: K,
    /// What gives the key its meaning.
    _kept: Arc<dyn Any + Send + Sync>,
    cell: Cell,
    /// Bytes, once they are known.
    bytes: usize,
}

struct Inner<K> {
    by_key: HashMap<K, Cell>,
    /// In order of age.
    ages: VecDeque<Entry<K>>,
    bytes: usize,
}

struct Entries<K>(Mutex<Inner<K>>);

impl<K> Entries<K> {
    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Send> Spare for Entries<K> {
    /// Lets go of what is not held, but for the newest: those who want it are about to ask for it.
    fn let_go(&self) {
        let mut gone = Vec::new();
        let mut inner = self.lock();
        let newest = inner.ages.pop_back();
        for entry in std::mem::take(&mut inner.ages) {
            if entry.cell.get().is_some_and(|notices| notices.is_spare()) {
                inner.bytes -= entry.bytes;
                inner.by_key.remove(&entry.key);
                gone.push(entry);
            } else {
                inner.ages.push_back(entry);
            }
        }
        inner.ages.extend(newest);
        // Dropped after the lock.
        drop(inner);
    }
}

/// The newest encodings, by what was encoded and how.
///
/// A key may name something by its address: what is given with it is kept as long as the key. At
/// most 1,024 encodings are kept, and `most` bytes beside the newest; while the memory is short, only
/// what connections hold. One that is asked for later is made again.
pub struct Shared<K> {
    entries: Arc<Entries<K>>,
    most: usize,
    memory: Arc<Memory>,
    made: AtomicU64,
}

impl<K: Eq + Hash + Clone + Send + 'static> Shared<K> {
    /// Keeps up to `most` bytes, which count in `memory`.
    pub fn new(most: usize, memory: Arc<Memory>) -> Self {
        let inner = Inner { by_key: HashMap::new(), ages: VecDeque::new(), bytes: 0 };
        let entries = Arc::new(Entries(Mutex::new(inner)));
        let weak = Arc::downgrade(&entries);
        memory.register_spare(weak);
        Self { entries, most, memory, made: AtomicU64::new(0) }
    }

    /// How often something was encoded.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Notifications for one alone.
    pub fn once(&self, texts: Vec<Vec<u8>>) -> Arc<Notices> {
        self.memory.share(texts)
    }

    /// The notifications of `key`, made by `encode` if nobody has asked before; `kept` is what gives
    /// the key its meaning. `long`: encoding takes long enough to need a thread that may block.
    ///
    /// # Errors
    /// Those of `encode`.
    pub async fn get<E: Send + 'static>(
        &self,
        key: K,
        kept: Arc<dyn Any + Send + Sync>,
        long: bool,
        encode: impl FnOnce() -> Result<Vec<Vec<u8>>, E> + Send + 'static,
    ) -> Result<Arc<Notices>, E> {
        let cell = {
            let mut inner = self.entries.lock();
            match inner.by_key.get(&key) {
                Some(cell) => Arc::clone(cell),
                None => {
                    let cell = Cell::default();
                    inner.by_key.insert(key.clone(), Arc::clone(&cell));
                    let entry =
                        Entry { key: key.clone(), _kept: kept, cell: Arc::clone(&cell), bytes: 0 };
                    inner.ages.push_back(entry);
                    cell
                }
            }
        };
        let make = || async {
            self.made.fetch_add(1, Ordering::Relaxed);
            let texts = match long {
                // It panicked, or the runtime ends: then nobody reads what is missing.
                true => tokio::task::spawn_blocking(encode).await.unwrap_or(Ok(Vec::new()))?,
                false => encode()?,
            };
            let notices = self.memory.share(texts);
            self.note(&key, notices.bytes());
            Ok(notices)
        };
        cell.get_or_try_init(make).await.map(Arc::clone)
    }

    /// Notes how long an encoding is, and lets the oldest go.
    fn note(&self, key: &K, bytes: usize) {
        let mut gone = Vec::new();
        let mut inner = self.entries.lock();
        let inner = &mut *inner;
        // It is among the newest, most likely the last.
        if let Some(entry) = inner.ages.iter_mut().rev().find(|entry| entry.key == *key) {
            entry.bytes = bytes;
            inner.bytes += bytes;
        }
        while inner.ages.len() > 1 && (inner.ages.len() > MOST || inner.bytes > self.most) {
            let Some(entry) = inner.ages.pop_front() else { break };
            inner.bytes -= entry.bytes;
            inner.by_key.remove(&entry.key);
            // Dropped after the lock.
            gone.push(entry);
        }
    }
}
