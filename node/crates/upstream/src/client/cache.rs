//! A bounded table by hash, in two generations. An entry that is used moves to the younger one;
//! when that is full, the older one is dropped as a whole.
//!
//! This keeps hot entries as a list by age would, with one move for each generation instead of one
//! for each access, and it never holds more than its capacity.

use alloy_primitives::B256;
use alloy_primitives::map::B256Map;

/// Bytes of an entry beside its value: key, table, allocation.
const ENTRY: usize = 96;

/// The table.
#[derive(Debug)]
pub(super) struct Cache<V> {
    young: B256Map<(V, usize)>,
    old: B256Map<(V, usize)>,
    /// Bytes of the younger generation.
    bytes: usize,
    /// Bytes that a generation may hold.
    capacity: usize,
}

impl<V: Clone> Cache<V> {
    /// A table of about `capacity` bytes at most.
    pub(super) fn new(capacity: usize) -> Self {
        let (young, old) = Default::default();
        Self { young, old, bytes: 0, capacity: capacity / 2 }
    }

    pub(super) fn contains(&self, hash: &B256) -> bool {
        self.young.contains_key(hash) || self.old.contains_key(hash)
    }

    pub(super) fn get(&mut self, hash: &B256) -> Option<V> {
        if let Some((value, _)) = self.young.get(hash) {
            return Some(value.clone());
        }
        let (value, size) = self.old.remove(hash)?;
        self.insert(*hash, value.clone(), size);
        Some(value)
    }

    /// Adds a value of `size` bytes. A value that is too large by itself is not kept.
    pub(super) fn insert(&mut self, hash: B256, value: V, size: usize) {
        let total = size + ENTRY;
        if total > self.capacity {
            return;
        }
        if self.bytes + total > self.capacity {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        if self.young.insert(hash, (value, size)).is_none() {
            self.bytes += total;
        }
    }

    /// Bytes of both generations, about.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        [&self.young, &self.old]
            .into_iter()
            .flat_map(|generation| generation.values())
            .map(|(_, size)| size + ENTRY)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: u64) -> B256 {
        B256::left_padding_from(&i.to_be_bytes())
    }

    #[test]
    fn it_keeps_what_is_used_within_its_capacity() {
        let mut cache = Cache::new(100 * (ENTRY + 4));
        for i in 0..10_000 {
            cache.insert(key(i), i, 4);
            assert_eq!(cache.get(&key(0)), Some(0), "{i}");
            assert_eq!(cache.get(&key(i)), Some(i));
            assert!(cache.size() <= 100 * (ENTRY + 4));
        }
        assert!(!cache.contains(&key(1)));
        assert!(cache.contains(&key(9_990)));
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let mut cache = Cache::new(1000);
        cache.insert(key(1), 1, 10);
        cache.insert(key(2), 2, 1000);
        assert!(cache.contains(&key(1)) && !cache.contains(&key(2)));
    }
}
