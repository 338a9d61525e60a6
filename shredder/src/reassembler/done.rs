//! Which messages are done: delivered or refused, so that none of their shreds is needed.
//!
//! It is kept apart from the messages themselves, in a bit each, because it must outlast them: a
//! message that is forgotten while its shreds still come would be delivered twice.

use std::collections::BTreeMap;

use crate::shred::MessageKey;

/// Attempts of which it is remembered, 8 kB each at most. Those of a window of 72 blocks are 576.
const MAX_OPENINGS: usize = 1024;

/// Bits by block and attempt, up to the highest message that is done.
#[derive(Debug, Default)]
pub(super) struct Done {
    openings: BTreeMap<(u64, u8), Vec<u64>>,
}

impl Done {
    pub(super) fn insert(&mut self, key: &MessageKey) {
        let (word, bit) = place(key);
        let words = self.openings.entry((key.block, key.attempt)).or_default();
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= bit;
        // Only without a window: what is farthest from the newest.
        if self.openings.len() > MAX_OPENINGS {
            self.openings.pop_first();
        }
    }

    pub(super) fn contains(&self, key: &MessageKey) -> bool {
        let (word, bit) = place(key);
        let words = self.openings.get(&(key.block, key.attempt));
        words.and_then(|words| words.get(word)).is_some_and(|word| word & bit != 0)
    }

    /// Keeps the blocks of `low..=high`.
    pub(super) fn set_window(&mut self, low: u64, high: u64) {
        self.openings = self.openings.split_off(&(low, 0));
        while self.openings.last_key_value().is_some_and(|((block, _), _)| *block > high) {
            self.openings.pop_last();
        }
    }
}

const fn place(key: &MessageKey) -> (usize, u64) {
    (key.message as usize / 64, 1 << (key.message % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(block: u64, attempt: u8, message: u16) -> MessageKey {
        MessageKey { block, attempt, message }
    }

    #[test]
    fn it_has_a_bit_for_each_message_within_its_bounds() {
        let mut done = Done::default();
        let all = [key(7, 0, 0), key(7, 0, 63), key(7, 0, 64), key(7, 3, u16::MAX), key(9, 0, 5)];
        all.iter().for_each(|key| done.insert(key));
        assert!(all.iter().all(|key| done.contains(key)));
        for key in [key(7, 0, 1), key(7, 1, 0), key(8, 0, 5), key(7, 3, 0), key(9, 0, 4)] {
            assert!(!done.contains(&key), "{key:?}");
        }
        let words = |done: &Done| done.openings.values().map(Vec::len).sum::<usize>();
        assert_eq!(words(&done), 2 + 1024 + 1);
        done.set_window(8, 8);
        assert_eq!(words(&done), 0);
        (0..2_000).for_each(|block| done.insert(&key(block, 0, 0)));
        assert_eq!((done.openings.len(), done.contains(&key(1_999, 0, 0))), (MAX_OPENINGS, true));
    }
}
