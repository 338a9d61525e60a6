//! Whole messages of recent blocks, for peers that were away.
//!
//! # Whose word an attempt is
//! Shreds are signed with the attempt, messages that came without them are not: of those a peer, or
//! a guess, says which attempt they are of. So what the leader says and what others say are told
//! apart:
//!
//! * An attempt of which shreds have brought something is pushed out by a newer one of that kind
//!   alone, and a message that shreds have brought takes the place of one that they have not.
//! * An attempt that is whole, but not by shreds alone, counts only if its Seal
//!   [says so](super::content); else what others have said of it is dropped.
//!
//! # Substitutes
//! Each rank has attempts of its own. Of two that are whole the one of the lower rank is the block,
//! whoever's word they are: a scheduled gateway's own signature says more than that its substitute's
//! shreds came.
//!
//! # Who makes room
//! The lowest block. But what may not be the chain at all pushes out little of what is: blocks above
//! the newest that is open have a [quarter](FUTURE) of the bytes, and of blocks that nobody has
//! executed yet a gateway has [half](SHARE).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{Address, B256};
use fragcast_shredder::{Kind, MessageKey, VerifiedMessage};

use super::content::agrees;
use crate::protocol::fallback::cost;

/// Attempts of a block that are kept of those that shreds have told of; an older one makes room.
const MAX_OPENINGS: usize = 2;
/// The same of those that others have told of; the one of which least is here makes room.
const MAX_TOLD: usize = 2;
/// Blocks that are remembered to have been whole, 16 bytes each; twice as many as are kept, if that is
/// more: a block that is asked for must not be one that was here.
const MAX_DONE: usize = 1024;
/// The part of all bytes for blocks above the newest that is open: one message of 10 MiB.
const FUTURE: usize = 4;
/// The part of all bytes for a gateway's blocks that may not be the chain's.
const SHARE: usize = 2;

/// Whose word the attempt of a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum Word {
    /// The leader's: shreds are signed with it.
    Leader,
    /// A peer's, or a guess.
    Told,
}

/// A message, and whether shreds have brought it.
#[derive(Debug)]
struct Kept {
    message: VerifiedMessage,
    word: Word,
}

impl Kept {
    fn is_signed(&self) -> bool {
        self.word == Word::Leader
    }
}

/// The messages of one attempt.
#[derive(Debug, Default)]
struct Opening {
    messages: BTreeMap<u16, Kept>,
    /// Where a Seal is: there is one, if nobody lies.
    seals: BTreeSet<u16>,
    bytes: usize,
    /// How many are here by the leader's word.
    signed: usize,
    /// It is here from Env to the Seal at this place.
    whole: Option<u16>,
    /// Of the gateway that leads it; 0 of the scheduled one.
    rank: u8,
}

impl Opening {
    fn put(&mut self, at: u16, kept: Kept) {
        self.note(at, &kept);
        if let Some(gone) = self.messages.insert(at, kept) {
            self.bytes -= cost(&gone.message);
            self.signed -= usize::from(gone.word == Word::Leader);
        }
    }

    fn note(&mut self, at: u16, kept: &Kept) {
        self.bytes += cost(&kept.message);
        self.signed += usize::from(kept.word == Word::Leader);
        match kept.message.message().kind() {
            Kind::Seal => self.seals.insert(at),
            Kind::Env | Kind::Frag => self.seals.remove(&at),
        };
    }

    /// Whether all is here up to a place.
    fn is_full(&self, seal: u16) -> bool {
        let all = usize::from(seal) + 1;
        // Some may be behind the end; only then they have to be counted.
        self.messages.len() >= all && self.messages.range(..=seal).count() == all
    }

    /// Judges whether it is whole. Messages of several openings that are told to be of one are
    /// dropped.
    fn judge(&mut self) {
        let is_signed = |at: &u16| self.messages.get(at).is_some_and(Kept::is_signed);
        let signed = self.seals.iter().copied().find(is_signed);
        let full = |seal: &u16| self.is_full(*seal);
        let all: Vec<u16> = match signed {
            Some(seal) => Some(seal).filter(full).into_iter().collect(),
            None => self.seals.iter().copied().filter(full).collect(),
        };
        let counts = |seal: &u16| {
            let own = || self.messages.range(..=*seal).map(|(_, kept)| kept);
            own().all(Kept::is_signed) || agrees(own().map(|kept| &kept.message))
        };
        self.whole = all.iter().copied().find(counts);
        if self.whole.is_none() && !all.is_empty() {
            let empty = Self { rank: self.rank, ..Self::default() };
            let messages = std::mem::replace(self, empty).messages.into_iter();
            messages.filter(|(_, kept)| kept.is_signed()).for_each(|(at, kept)| self.put(at, kept));
        }
    }
}

/// The attempts of a block.
#[derive(Debug)]
struct Block {
    gateway: Address,
    openings: BTreeMap<u8, Opening>,
}

impl Block {
    fn bytes(&self) -> usize {
        self.openings.values().map(|opening| opening.bytes).sum()
    }

    /// Of the lowest rank the newest attempt for which `which` holds, by the leader's word if there is
    /// one.
    fn best(&self, which: impl Fn(&Opening) -> bool) -> Option<(u8, &Opening)> {
        let all = self.openings.iter().filter(|(_, opening)| which(opening));
        all.map(|(at, opening)| (*at, opening))
            .max_by_key(|(attempt, o)| (Reverse(o.rank), o.signed > 0, *attempt))
    }

    /// The attempt that is whole and counts.
    fn whole(&self) -> Option<(u8, &Opening)> {
        self.best(|opening| opening.whole.is_some())
    }

    /// Makes room for an attempt, or says that there is none.
    fn admit(&mut self, attempt: u8, word: Word) -> bool {
        if self.openings.get(&attempt).is_some_and(|o| o.signed > 0 || word == Word::Told) {
            return true;
        }
        let of = |signed: bool| {
            self.openings.iter().filter(move |(_, opening)| (opening.signed > 0) == signed)
        };
        let gone = match word {
            Word::Leader if of(true).count() < MAX_OPENINGS => return true,
            Word::Leader => of(true).map(|(at, _)| *at).next().filter(|oldest| *oldest < attempt),
            Word::Told if of(false).count() < MAX_TOLD => return true,
            Word::Told => {
                let open = of(false).filter(|(_, opening)| opening.whole.is_none());
                open.min_by_key(|(_, opening)| opening.messages.len()).map(|(at, _)| *at)
            }
        };
        gone.is_some_and(|gone| self.openings.remove(&gone).is_some())
    }
}

/// Messages in bounded memory: so many bytes and blocks. They share their transactions with whoever
/// else holds them; counted is what they would take by themselves.
#[derive(Debug)]
pub(in crate::protocol) struct Archive {
    memory: usize,
    max_blocks: usize,
    bytes: usize,
    blocks: BTreeMap<u64, Block>,
    /// Blocks that were whole here, whether they are kept or not.
    done: BTreeSet<u64>,
    /// The application's verified head: nothing up to it is asked for any more.
    verified: Option<u64>,
    /// The newest block that is open.
    opened: Option<u64>,
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
            opened: None,
        }
    }

    /// Keeps a message of a gateway's, which leads by this rank, if there is room for it.
    pub(in crate::protocol) fn insert(
        &mut self,
        (key, rank): (MessageKey, u8),
        message: &VerifiedMessage,
        word: Word,
    ) {
        let opening = self.opening_mut(&key);
        let known = opening.and_then(|opening| opening.messages.get_mut(&key.message));
        match known {
            Some(known) if known.is_signed() => return,
            // The same may count for more now.
            Some(known) if known.message.root() == message.root() => {
                if word == Word::Leader {
                    known.word = word;
                    self.opening_mut(&key).into_iter().for_each(|opening| opening.signed += 1);
                }
                return;
            }
            _ => {}
        }
        self.put((key.block, key.attempt, rank), word, &[(key.message, message.clone())]);
        let Some(opening) = self.opening_mut(&key) else { return };
        let (bytes, was_whole) = (opening.bytes, opening.whole.is_some());
        opening.judge();
        let (gone, is_whole) = (bytes - opening.bytes, opening.whole.is_some());
        self.bytes -= gone;
        if is_whole {
            self.note_whole(key.block);
        } else if was_whole {
            self.done.remove(&key.block);
        }
    }

    /// Keeps a block that a peer has sent from Env to Seal, which [agree](agrees), if there is room
    /// for it: its number, attempt, and the rank of its gateway.
    pub(in crate::protocol) fn insert_whole(
        &mut self,
        (block, attempt, rank): (u64, u8, u8),
        messages: &[(u16, VerifiedMessage)],
    ) {
        let key = MessageKey { block, attempt, message: 0 };
        let differs = |opening: &Opening| {
            messages.iter().any(|(at, message)| {
                let kept = opening.messages.get(at);
                kept.is_some_and(|kept| kept.is_signed() && kept.message.root() != message.root())
            })
        };
        // The attempt is the peer's word: under that number the leader has sent something else.
        if self.opening(&key).is_none_or(|opening| !differs(opening)) {
            self.put((block, attempt, rank), Word::Told, messages);
            let end = messages.last().map(|(at, _)| *at);
            let opening = self.opening_mut(&key);
            if let Some(opening) = opening.filter(|o| end.is_some_and(|end| o.is_full(end))) {
                opening.whole = end;
            }
        }
    }

    /// Keeps messages of one attempt, all or none.
    fn put(
        &mut self,
        (number, attempt, rank): (u64, u8, u8),
        word: Word,
        messages: &[(u16, VerifiedMessage)],
    ) {
        let Some(gateway) = messages.first().map(|(_, message)| message.gateway()) else { return };
        let cost: usize = messages.iter().map(|(_, message)| cost(message)).sum();
        if !self.make_room(number, gateway, cost) {
            return;
        }
        let new = || Block { gateway, openings: BTreeMap::new() };
        let block = self.blocks.entry(number).or_insert_with(new);
        let before = block.bytes();
        if block.admit(attempt, word) {
            let opening = block.openings.entry(attempt).or_default();
            opening.rank = rank;
            for (at, message) in messages {
                let signed = opening.messages.get(at).is_some_and(Kept::is_signed);
                if word == Word::Leader || !signed {
                    opening.put(*at, Kept { message: message.clone(), word });
                }
            }
        }
        self.bytes = self.bytes - before + block.bytes();
        if block.openings.is_empty() {
            self.blocks.remove(&number);
        }
    }

    /// Whether a block is, as far as is known here, one of the chain.
    fn is_settled(&self, number: u64, block: &Block) -> bool {
        match self.verified {
            Some(verified) => number <= verified,
            None => block.whole().is_some(),
        }
    }

    /// Makes room for more bytes of a block, if there is any for it.
    fn make_room(&mut self, number: u64, gateway: Address, cost: usize) -> bool {
        let is_new = !self.blocks.contains_key(&number);
        let future = self.opened.filter(|opened| number > *opened);
        let above = |opened: u64| self.blocks.range(opened.saturating_add(1)..);
        let mut used = future.map_or(0, |o| above(o).map(|(_, block)| block.bytes()).sum());
        while future.is_some() && used + cost > self.memory / FUTURE {
            let highest = self.blocks.last_key_value().filter(|(highest, _)| **highest > number);
            let Some((highest, bytes)) = highest.map(|(at, block)| (*at, block.bytes())) else {
                return false;
            };
            used -= bytes;
            self.remove(highest);
        }
        while self.bytes + cost > self.memory / SHARE {
            let doubtful = |(at, block): &(&u64, &Block)| {
                block.gateway == gateway && !self.is_settled(**at, block)
            };
            let own = self.blocks.iter().filter(doubtful);
            let (sum, first) = own.fold((0, None), |(sum, first), (at, block)| {
                (sum + block.bytes(), first.or(Some(*at)))
            });
            match first {
                _ if sum + cost <= self.memory / SHARE => break,
                Some(lowest) if lowest < number => self.remove(lowest),
                _ => return false,
            }
        }
        while self.bytes + cost > self.memory || (is_new && self.blocks.len() >= self.max_blocks) {
            match self.blocks.first_key_value().map(|(lowest, _)| *lowest) {
                Some(lowest) if lowest < number => self.remove(lowest),
                _ => return false,
            }
        }
        true
    }

    fn remove(&mut self, number: u64) {
        if let Some(gone) = self.blocks.remove(&number) {
            self.bytes -= gone.bytes();
        }
    }

    /// A block was here from Env to Seal, whether there is room for it or not.
    pub(in crate::protocol) fn note_whole(&mut self, block: u64) {
        self.done.insert(block);
        if self.done.len() <= MAX_DONE.max(self.max_blocks.saturating_mul(2)) {
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

    /// The newest block that is open.
    pub(in crate::protocol) const fn set_open(&mut self, opened: Option<u64>) {
        self.opened = opened;
    }

    /// A block that was here is asked for once more.
    pub(in crate::protocol) fn forget(&mut self, block: u64) {
        self.done.remove(&block);
    }

    /// Whether a block was here from Env to Seal, and is kept perhaps no more.
    pub(in crate::protocol) fn was_whole(&self, block: u64) -> bool {
        self.done.contains(&block)
    }

    /// Drops the blocks above `high`: there are none, somebody had lied.
    pub(in crate::protocol) fn forget_above(&mut self, high: u64) {
        while let Some(last) = self.blocks.last_key_value().map(|(last, _)| *last)
            && last > high
        {
            self.remove(last);
        }
        self.done.split_off(&high.saturating_add(1));
    }

    /// A message turned out to be none.
    pub(in crate::protocol) fn refuse(&mut self, key: &MessageKey) {
        let Some(block) = self.blocks.get_mut(&key.block) else { return };
        if let Some(gone) = block.openings.remove(&key.attempt) {
            self.bytes -= gone.bytes;
        }
        if block.openings.is_empty() {
            self.blocks.remove(&key.block);
        }
        self.done.remove(&key.block);
    }

    fn opening(&self, key: &MessageKey) -> Option<&Opening> {
        self.blocks.get(&key.block)?.openings.get(&key.attempt)
    }

    fn opening_mut(&mut self, key: &MessageKey) -> Option<&mut Opening> {
        self.blocks.get_mut(&key.block)?.openings.get_mut(&key.attempt)
    }

    /// Whether a message is here at this place, of whatever attempt.
    pub(in crate::protocol) fn has(&self, block: u64, at: u16, root: B256) -> bool {
        let openings = self.blocks.get(&block).into_iter().flat_map(|b| b.openings.values());
        let mut kept = openings.filter_map(|opening| opening.messages.get(&at));
        kept.any(|kept| kept.message.root() == root)
    }

    /// The highest block of which something is here.
    pub(in crate::protocol) fn last(&self) -> Option<u64> {
        self.blocks.keys().next_back().copied()
    }

    /// The messages of the newest attempt of a block, from the Env on, as far as they follow one
    /// another without a gap: of the lowest rank of which there is such a one, the newest by the
    /// leader's word, or else one that is whole.
    pub(in crate::protocol) fn newest(&self, block: u64) -> Vec<(MessageKey, VerifiedMessage)> {
        let Some(of) = self.blocks.get(&block) else { return Vec::new() };
        let newest = of.best(|opening| opening.signed > 0 || opening.whole.is_some());
        let newest = newest.or_else(|| of.best(|_| true));
        let Some((attempt, opening)) = newest else { return Vec::new() };
        let end = opening.whole.unwrap_or(u16::MAX);
        let places = (0..=end).zip(opening.messages.range(..=end));
        let places = places.take_while(|(next, (at, _))| next == *at);
        let key = |message| MessageKey { block, attempt, message };
        places.map(|(at, (_, kept))| (key(at), kept.message.clone())).collect()
    }

    /// Whether an attempt of a block is here from Env to Seal.
    pub(in crate::protocol) fn is_whole(&self, block: u64) -> bool {
        self.whole(block).is_some()
    }

    fn whole(&self, block: u64) -> Option<(u8, &Opening)> {
        self.blocks.get(&block)?.whole()
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
            let end = opening.whole.unwrap_or(0);
            let messages = opening.messages.range(first..);
            messages.take_while(move |(message, _)| **message <= end).map(move |(message, kept)| {
                (MessageKey { block: of, attempt, message: *message }, &kept.message)
            })
        })
    }

    /// Bytes held.
    pub(in crate::protocol) const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests;
