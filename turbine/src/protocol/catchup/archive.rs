//! Whole messages of recent blocks, for peers that were away.

use std::collections::{BTreeMap, BTreeSet};

use fragcast_shredder::{Kind, MessageKey, VerifiedMessage};

use crate::protocol::fallback::cost;

/// Attempts of a block that are kept; an older one makes room.
const MAX_OPENINGS: usize = 2;
/// Blocks that are remembered to have been whole, 16 bytes each.
const MAX_DONE: usize = 1024;

/// The messages of one attempt.
#[derive(Debug, Default)]
struct Opening {
    messages: BTreeMap<u16, VerifiedMessage>,
    seal: Option<u16>,
    bytes: usize,
}

impl Opening {
    /// Whether it has its Env, its Seal and all between.
    fn is_whole(&self) -> bool {
        let Some(seal) = self.seal else { return false };
        let all = usize::from(seal) + 1;
        // Some may be behind the end; only then they have to be counted.
        let behind = self.messages.last_key_value().is_some_and(|(last, _)| *last > seal);
        match behind {
            false => self.messages.len() == all,
            true => self.messages.range(..=seal).count() == all,
        }
    }
}

/// Messages in bounded memory: so many bytes and blocks, the lowest block goes first. They share
/// their transactions with whoever else holds them; counted is what they would take by themselves.
#[derive(Debug)]
pub(in crate::protocol) struct Archive {
    memory: usize,
    max_blocks: usize,
    bytes: usize,
    blocks: BTreeMap<u64, BTreeMap<u8, Opening>>,
    /// Blocks that were whole here, whether they are kept or not.
    done: BTreeSet<u64>,
    /// The application's verified head: nothing up to it is asked for any more.
    verified: Option<u64>,
}

impl Archive {
    pub(in crate::protocol) const fn new(memory: usize, max_blocks: usize) -> Self {
        Self {
            memory,
            max_blocks,
            bytes: 0,
            blocks: BTreeMap::new(),
            done: BTreeSet::new(),
            verified: None,
        }
    }

    /// Keeps a message if lower blocks leave room for it.
    pub(in crate::protocol) fn insert(&mut self, key: MessageKey, message: &VerifiedMessage) {
        if self.has(&key) {
            return;
        }
        let cost = cost(message);
        let is_new = !self.blocks.contains_key(&key.block);
        while self.bytes + cost > self.memory || (is_new && self.blocks.len() >= self.max_blocks) {
            match self.blocks.first_key_value() {
                Some((lowest, _)) if *lowest < key.block => self.remove_first(),
                _ => return,
            }
        }
        let openings = self.blocks.entry(key.block).or_default();
        if openings.len() >= MAX_OPENINGS && !openings.contains_key(&key.attempt) {
            let Some(oldest) = openings.first_entry().filter(|o| *o.key() < key.attempt) else {
                return;
            };
            self.bytes -= oldest.remove().bytes;
        }
        let opening = openings.entry(key.attempt).or_default();
        if message.message().kind() == Kind::Seal {
            opening.seal = Some(key.message);
        }
        opening.messages.insert(key.message, message.clone());
        opening.bytes += cost;
        self.bytes += cost;
        if opening.is_whole() {
            self.note_whole(key.block);
        }
    }

    /// A block was here from Env to Seal, whether there is room for it or not.
    pub(in crate::protocol) fn note_whole(&mut self, block: u64) {
        self.done.insert(block);
        if self.done.len() <= MAX_DONE {
            return;
        }
        // The highest are asked for last of all, and are perhaps kept still when it comes to that.
        match self.verified {
            Some(verified) if self.done.first().is_some_and(|first| *first > verified) => {
                self.done.pop_last()
            }
            _ => self.done.pop_first(),
        };
    }

    /// The application's verified head is `block`.
    pub(in crate::protocol) const fn verified(&mut self, block: u64) {
        self.verified = Some(block);
    }

    /// Whether a block was here from Env to Seal, and is kept perhaps no more.
    pub(super) fn was_whole(&self, block: u64) -> bool {
        self.done.contains(&block)
    }

    fn remove_first(&mut self) {
        if let Some((_, gone)) = self.blocks.pop_first() {
            self.bytes -= gone.values().map(|opening| opening.bytes).sum::<usize>();
        }
    }

    /// Drops the blocks above `high`: there are none, somebody had lied.
    pub(in crate::protocol) fn forget_above(&mut self, high: u64) {
        while let Some(last) = self.blocks.last_entry().filter(|last| *last.key() > high) {
            self.bytes -= last.remove().values().map(|opening| opening.bytes).sum::<usize>();
        }
        self.done.split_off(&high.saturating_add(1));
    }

    /// A message turned out to be none.
    pub(in crate::protocol) fn refuse(&mut self, key: &MessageKey) {
        let Some(openings) = self.blocks.get_mut(&key.block) else { return };
        if let Some(gone) = openings.remove(&key.attempt) {
            self.bytes -= gone.bytes;
        }
        if openings.is_empty() {
            self.blocks.remove(&key.block);
        }
        self.done.remove(&key.block);
    }

    pub(in crate::protocol) fn has(&self, key: &MessageKey) -> bool {
        let openings = self.blocks.get(&key.block);
        let opening = openings.and_then(|openings| openings.get(&key.attempt));
        opening.is_some_and(|opening| opening.messages.contains_key(&key.message))
    }

    /// Whether an attempt of a block is here from Env to Seal.
    pub(super) fn is_whole(&self, block: u64) -> bool {
        self.whole(block).is_some()
    }

    /// The newest attempt of a block that is here from Env to Seal.
    fn whole(&self, block: u64) -> Option<(u8, &Opening)> {
        let openings = self.blocks.get(&block)?.iter().rev();
        openings.map(|(attempt, opening)| (*attempt, opening)).find(|(_, o)| o.is_whole())
    }

    /// The lowest and the highest block that are whole; the wrong way round if none is.
    pub(super) fn range(&self) -> (u64, u64) {
        let whole = |block: &&u64| self.is_whole(**block);
        let first = self.blocks.keys().find(whole);
        let last = self.blocks.keys().rev().find(whole);
        first.zip(last).map_or((1, 0), |(first, last)| (*first, *last))
    }

    /// Messages of whole blocks, from one on to the end of block `last`, as far as they follow one
    /// another without a gap.
    pub(super) fn from(
        &self,
        block: u64,
        message: u16,
        last: u64,
    ) -> impl Iterator<Item = (MessageKey, &VerifiedMessage)> {
        let blocks = (block..=last).map_while(|block| Some((block, self.whole(block)?)));
        blocks.flat_map(move |(of, (attempt, opening))| {
            let first = if of == block { message } else { 0 };
            let end = opening.seal.unwrap_or(0);
            let messages = opening.messages.range(first..);
            messages.take_while(move |(message, _)| **message <= end).map(
                move |(message, signed)| {
                    (MessageKey { block: of, attempt, message: *message }, signed)
                },
            )
        })
    }

    /// Bytes held.
    pub(in crate::protocol) const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{env, frag, seal};

    fn key(block: u64, attempt: u8, message: u16) -> MessageKey {
        MessageKey { block, attempt, message }
    }

    fn keep(archive: &mut Archive, block: u64, attempt: u8) {
        archive.insert(key(block, attempt, 0), &env(block));
        archive.insert(key(block, attempt, 1), &frag(block, 0));
        archive.insert(key(block, attempt, 2), &seal(block, 1));
    }

    #[test]
    fn blocks_are_whole_from_env_to_seal_and_come_in_order() {
        let mut archive = Archive::new(usize::MAX, 100);
        assert_eq!(archive.range(), (1, 0));
        for block in [5, 6, 8] {
            keep(&mut archive, block, 0);
        }
        archive.insert(key(7, 0, 0), &env(7));
        archive.insert(key(7, 0, 2), &seal(7, 1));
        assert_eq!([5, 6, 7, 8].map(|b| archive.is_whole(b)), [true, true, false, true]);
        assert_eq!(archive.range(), (5, 8));
        let from = |block, message| {
            let all =
                archive.from(block, message, u64::MAX).map(|(key, _)| (key.block, key.message));
            all.collect::<Vec<_>>()
        };
        assert_eq!(from(5, 1), [(5, 1), (5, 2), (6, 0), (6, 1), (6, 2)]);
        assert!(from(7, 0).is_empty() && from(4, 0).is_empty());
        assert_eq!(from(8, 2), [(8, 2)]);
        archive.forget_above(6);
        assert_eq!((archive.range(), archive.is_whole(8)), ((5, 6), false));
    }

    #[test]
    fn the_last_block_that_there_can_be_ends_what_is_read() {
        let mut archive = Archive::new(usize::MAX, 100);
        keep(&mut archive, u64::MAX - 1, 0);
        keep(&mut archive, u64::MAX, 0);
        let count = |block, last| archive.from(block, 0, last).count();
        assert_eq!(count(u64::MAX, u64::MAX), 3);
        assert_eq!(count(u64::MAX - 1, u64::MAX), 6);
        assert_eq!((count(u64::MAX - 1, u64::MAX - 1), count(u64::MAX, 0)), (3, 0));
    }

    #[test]
    fn bytes_and_blocks_are_bounded_and_the_lowest_goes() {
        let mut archive = Archive::new(usize::MAX, 100);
        keep(&mut archive, 1, 0);
        let each = archive.bytes();
        let mut archive = Archive::new(3 * each, 100);
        (10..20).for_each(|block| keep(&mut archive, block, 0));
        assert_eq!((archive.range(), archive.bytes()), ((17, 19), 3 * each));
        keep(&mut archive, 16, 0);
        assert!(!archive.is_whole(16) && archive.bytes() == 3 * each);
        assert!(archive.was_whole(10) && !archive.was_whole(20));
        let mut archive = Archive::new(usize::MAX, 4);
        (10..20).for_each(|block| keep(&mut archive, block, 0));
        assert_eq!((archive.range(), archive.bytes()), ((16, 19), 4 * each));
    }

    #[test]
    fn a_block_just_caught_up_is_remembered_before_those_far_ahead() {
        let mut archive = Archive::new(usize::MAX, 2);
        archive.verified(10);
        let far = MAX_DONE as u64 + 100;
        (100..far).for_each(|block| keep(&mut archive, block, 0));
        // Too low to be kept.
        archive.note_whole(11);
        assert!(archive.was_whole(11) && !archive.is_whole(11), "the highest goes");
        assert!(archive.was_whole(100) && !archive.was_whole(far - 1));
        // What is verified goes first.
        archive.verified(100);
        archive.note_whole(far);
        assert!(!archive.was_whole(11) && archive.was_whole(101) && archive.was_whole(far));
    }

    #[test]
    fn the_newest_whole_attempt_counts_and_a_refused_one_does_not() {
        let mut archive = Archive::new(usize::MAX, 4);
        keep(&mut archive, 7, 0);
        keep(&mut archive, 7, 1);
        archive.insert(key(7, 2, 0), &env(7));
        assert!(!archive.has(&key(7, 0, 0)), "two attempts are kept");
        let attempts: Vec<u8> = archive.from(7, 0, 7).map(|(key, _)| key.attempt).collect();
        assert_eq!(attempts, [1, 1, 1], "the third is open");
        archive.refuse(&key(7, 1, 1));
        assert!(!archive.is_whole(7) && archive.has(&key(7, 2, 0)));
        archive.refuse(&key(7, 2, 0));
        assert_eq!(archive.bytes(), 0);
    }
}
