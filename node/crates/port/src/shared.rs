//! Notifications that are encoded once for all who want them.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::memory::Memory;

/// Encodings that are kept, however small.
const MOST: usize = 1024;

type Cell = Arc<OnceCell<Arc<[Bytes]>>>;

struct Entries<K> {
    by_key: HashMap<K, Cell>,
    /// In order of age: the key, what gives it its meaning, and the bytes once they are known.
    ages: VecDeque<(K, Arc<dyn Any + Send + Sync>, usize)>,
    bytes: usize,
}

/// The newest encodings, by what was encoded and how.
///
/// A key may name something by its address: what is given with it is kept as long as the key. At
/// most 1,024 encodings are kept, and `most` bytes beside the newest. One that is asked for later
/// is made again.
pub struct Shared<K> {
    entries: Mutex<Entries<K>>,
    most: usize,
    memory: Arc<Memory>,
    made: AtomicU64,
}

impl<K: Eq + Hash + Clone> Shared<K> {
    /// Keeps up to `most` bytes, which count in `memory`.
    pub fn new(most: usize, memory: Arc<Memory>) -> Self {
        let entries = Entries { by_key: HashMap::new(), ages: VecDeque::new(), bytes: 0 };
        Self { entries: Mutex::new(entries), most, memory, made: AtomicU64::new(0) }
    }

    /// How often something was encoded.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
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
    ) -> Result<Arc<[Bytes]>, E> {
        let cell = {
            let mut entries = self.lock();
            match entries.by_key.get(&key) {
                Some(cell) => Arc::clone(cell),
                None => {
                    let cell = Cell::default();
                    entries.by_key.insert(key.clone(), Arc::clone(&cell));
                    entries.ages.push_back((key.clone(), kept, 0));
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
            let bytes: Arc<[Bytes]> =
                texts.into_iter().map(|text| self.memory.keep(None, text)).collect();
            self.note(&key, bytes.iter().map(Bytes::len).sum());
            Ok(bytes)
        };
        cell.get_or_try_init(make).await.map(Arc::clone)
    }

    /// Notes how long an encoding is, and lets the oldest go.
    fn note(&self, key: &K, bytes: usize) {
        let mut gone = Vec::new();
        let mut entries = self.lock();
        let entries = &mut *entries;
        // It is among the newest, most likely the last.
        if let Some(entry) = entries.ages.iter_mut().rev().find(|entry| entry.0 == *key) {
            entry.2 = bytes;
            entries.bytes += bytes;
        }
        while entries.ages.len() > 1 && (entries.ages.len() > MOST || entries.bytes > self.most) {
            let Some((key, kept, bytes)) = entries.ages.pop_front() else { break };
            entries.bytes -= bytes;
            // Dropped after the lock.
            gone.push((entries.by_key.remove(&key), kept));
        }
    }
}
