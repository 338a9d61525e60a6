//! What the overlay completes while a node lives on gossip: the evidence for the way back.

use std::collections::BTreeMap;

use crate::time::Timestamp;

/// Blocks that are under judgement at a time.
const MAX_BLOCKS: usize = 16;

/// How far the overlay is with a block.
#[derive(Debug, Clone, Copy)]
enum Progress {
    /// Its Seal is not here.
    Open,
    /// It has `of` messages, says its Seal, whichever way that came. If the overlay has not
    /// completed it by `until`, it is judged incomplete.
    Sealed { of: u32, until: Timestamp },
    /// It was judged.
    Judged,
}

/// One block, as the overlay brings it.
#[derive(Debug, Clone, Copy)]
struct Block {
    attempt: u8,
    /// Messages that the overlay delivered.
    messages: u32,
    progress: Progress,
}

impl Block {
    const fn new(attempt: u8) -> Self {
        Self { attempt, messages: 0, progress: Progress::Open }
    }
}

/// What the overlay has completed since the node fell back. Bounded by [`MAX_BLOCKS`].
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    blocks: BTreeMap<u64, Block>,
    /// Blocks in a row.
    streak: u64,
}

impl Record {
    /// Blocks in a row that the overlay completed alone.
    pub(super) const fn streak(&self) -> u64 {
        self.streak
    }

    /// A block counts, or breaks the row.
    pub(super) const fn count(&mut self, complete: bool) {
        self.streak = if complete { self.streak + 1 } else { 0 };
    }

    /// The entry of an attempt, if there is room for it and no newer attempt.
    fn entry(&mut self, (block, attempt): (u64, u8)) -> Option<&mut Block> {
        if !self.blocks.contains_key(&block) && self.blocks.len() >= MAX_BLOCKS {
            let oldest = *self.blocks.first_key_value()?.0;
            if block < oldest {
                return None;
            }
            self.blocks.pop_first();
        }
        let entry = self.blocks.entry(block).or_insert(Block::new(attempt));
        if attempt > entry.attempt {
            *entry = Block::new(attempt);
        }
        (attempt == entry.attempt).then_some(entry)
    }

    /// A message came, either way. With `of`, it was the Seal of a block of so many messages,
    /// which the overlay has time to complete until then.
    pub(super) fn sealed(&mut self, key: (u64, u8), of: Option<u32>, until: Timestamp) {
        let Some(of) = of else { return };
        let Some(entry) = self.entry(key) else { return };
        let until = match entry.progress {
            Progress::Open => until,
            // The count is the newest Seal's, the time that of the first.
            Progress::Sealed { until, .. } => until,
            Progress::Judged => return,
        };
        entry.progress = Progress::Sealed { of, until };
    }

    /// The overlay delivered a message; says whether it counts.
    pub(super) fn delivered(&mut self, key: (u64, u8), of: Option<u32>, until: Timestamp) -> bool {
        let Some(entry) = self.entry(key) else { return false };
        entry.messages += 1;
        self.sealed(key, of, until);
        true
    }

    /// Judges a block that the overlay has completed, or that is `late`; says whether it did.
    ///
    /// Blocks without a judgement break no row: those of a gateway that speaks gossip alone, and
    /// those that nobody sealed, say nothing about the path.
    pub(super) fn judge(&mut self, block: u64, late: bool) -> bool {
        let Some(entry) = self.blocks.get_mut(&block) else { return false };
        let Progress::Sealed { of, .. } = entry.progress else { return false };
        let complete = entry.messages >= of;
        if complete || late {
            entry.progress = Progress::Judged;
            self.count(complete);
        }
        complete || late
    }

    fn deadlines(&self) -> impl Iterator<Item = (u64, Timestamp)> + '_ {
        self.blocks.iter().filter_map(|(block, entry)| match entry.progress {
            Progress::Sealed { until, .. } => Some((*block, until)),
            Progress::Open | Progress::Judged => None,
        })
    }

    /// Blocks whose time is up.
    pub(super) fn due(&self, now: Timestamp) -> Vec<u64> {
        self.deadlines().filter(|(_, until)| *until <= now).map(|(block, _)| block).collect()
    }

    /// When the time of the next block is up.
    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        self.deadlines().map(|(_, until)| until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let mut record = Record::default();
        let until = Timestamp::from_nanos(5);
        for block in (0..10_000).rev().chain(0..10_000) {
            record.delivered((block, 0), None, until);
            assert!(record.blocks.len() <= MAX_BLOCKS);
        }
        assert!(record.blocks.contains_key(&9_999));
        assert!(!record.delivered((0, 0), None, until));
    }
}
