//! The complete sets of recent blocks, kept to answer requests.
//!
//! Within the window of blocks and a number of bytes; the oldest block goes first, whole, so
//! that "messages 0 to n" stays true of the others. Blocks above the newest one that is open have
//! a quarter of the bytes together: the gateways of the next blocks do not drive out what peers
//! need now. A set is kept as it was recovered, or as
//! the leader cut it: any of its shreds can be made without encoding anything anew. Messages that
//! gossip brought have no sets; they are kept elsewhere and marked here, so that tips tell of
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use fragcast_shredder::{Kind, MessageKey, RecoveredSet, SetHeader, ShreddedSet};

use crate::control::Tip;
use crate::protocol::window::WINDOW_FUTURE;
use crate::time::Timestamp;

/// Assumed memory of a set or message beside its shards.
const ENTRY_COST: usize = 512;
/// The share of memory that blocks have which are not open yet.
const AHEAD: usize = 4;
/// And that of a message that is kept elsewhere.
const MARK_COST: usize = 64;

/// A block and an attempt of it.
pub(super) type Opening = (u64, u8);

pub(super) const fn opening(key: &MessageKey) -> Opening {
    (key.block, key.attempt)
}

fn messages_of((block, attempt): Opening) -> std::ops::RangeInclusive<MessageKey> {
    let key = |message| MessageKey { block, attempt, message };
    key(0)..=key(u16::MAX)
}

/// A complete set.
pub(in crate::protocol) enum CompleteSet {
    /// Received, and re-encoded.
    Recovered(Box<RecoveredSet>),
    /// This node's own.
    Own(ShreddedSet),
}

impl CompleteSet {
    pub(super) const fn header(&self) -> &SetHeader {
        match self {
            Self::Recovered(set) => &set.header,
            Self::Own(set) => &set.header,
        }
    }

    pub(super) fn shred(&self, index: u8) -> Bytes {
        match self {
            Self::Recovered(set) => set.shred(index),
            Self::Own(set) => set.shreds[usize::from(index)].clone(),
        }
    }

    fn cost(&self) -> usize {
        let header = self.header();
        // A recovered set has two hashes a shard, one of our own whole shreds.
        let each = match self {
            Self::Recovered(_) => usize::from(header.shard_len) + 64,
            Self::Own(_) => header.shred_len() + std::mem::size_of::<Bytes>(),
        };
        ENTRY_COST + header.shards() * each
    }
}

/// The kept sets of one opening. A message is whole if all its sets are here, or if it is marked.
struct Kept {
    /// Messages 0 to row − 1 are whole.
    row: u16,
    /// Bit i: message row + 1 + i is whole as well.
    above: u64,
    /// When a message last became whole.
    last: Timestamp,
    /// The Seal is among them.
    sealed: bool,
    bytes: usize,
}

/// Complete sets in bounded memory.
pub(in crate::protocol) struct Store {
    memory: usize,
    bytes: usize,
    /// The newest block that is open, as far as is known.
    open: u64,
    messages: BTreeMap<MessageKey, BTreeMap<u16, CompleteSet>>,
    /// Messages that are here without their sets: gossip has brought them, and they are kept
    /// with its recent messages. None of which all sets are here as well.
    marked: BTreeSet<MessageKey>,
    openings: BTreeMap<Opening, Kept>,
}

impl Store {
    pub(super) const fn new(memory: usize) -> Self {
        Self {
            memory,
            bytes: 0,
            open: u64::MAX,
            messages: BTreeMap::new(),
            marked: BTreeSet::new(),
            openings: BTreeMap::new(),
        }
    }

    /// Bytes held; never more than the configured memory.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a set if older blocks leave room for it. Says whether its message is whole by it.
    pub(super) fn insert(&mut self, now: Timestamp, set: CompleteSet) -> bool {
        let header = *set.header();
        let key = header.message_key();
        if self.messages.get(&key).is_some_and(|sets| sets.contains_key(&header.set)) {
            return false;
        }
        let cost = set.cost();
        if !self.make_room(opening(&key), cost) {
            return false;
        }
        self.bytes += cost;
        let sets = self.messages.entry(key).or_default();
        sets.insert(header.set, set);
        let whole = sets.len() == usize::from(header.sets);
        self.kept(now, &key).bytes += cost;
        if whole {
            self.unmark(&key);
            self.became_whole(now, &key, header.message_kind() == Kind::Seal);
        }
        whole
    }

    fn kept(&mut self, now: Timestamp, key: &MessageKey) -> &mut Kept {
        let new = Kept { row: 0, above: 0, last: now, sealed: false, bytes: 0 };
        self.openings.entry(opening(key)).or_insert(new)
    }

    fn became_whole(&mut self, now: Timestamp, key: &MessageKey, seal: bool) {
        let kept = self.kept(now, key);
        kept.last = now;
        kept.sealed |= seal;
        self.count(opening(key));
    }

    /// A message is here without its sets. Says whether it was not here before, and there is
    /// room for the mark.
    pub(super) fn mark(&mut self, now: Timestamp, key: &MessageKey, seal: bool) -> bool {
        if self.is_whole(key) || !self.make_room(opening(key), MARK_COST) {
            return false;
        }
        self.bytes += MARK_COST;
        self.marked.insert(*key);
        self.kept(now, key).bytes += MARK_COST;
        self.became_whole(now, key, seal);
        true
    }

    /// A message is no longer here without its sets.
    pub(super) fn unmark(&mut self, key: &MessageKey) {
        if self.marked.remove(key) {
            self.bytes -= MARK_COST;
            if let Some(kept) = self.openings.get_mut(&opening(key)) {
                kept.bytes -= MARK_COST;
                kept.row = kept.row.min(key.message);
            }
            self.count(opening(key));
        }
    }

    /// Messages below `oldest` are not kept with those of gossip any more, or none at all.
    pub(super) fn unmark_below(&mut self, oldest: Option<&MessageKey>) {
        let gone = |key: &MessageKey| oldest.is_none_or(|oldest| key < oldest);
        while let Some(key) = self.marked.first().copied().filter(gone) {
            self.unmark(&key);
        }
    }

    /// Whether a message is here without its sets.
    pub(super) fn is_marked(&self, key: &MessageKey) -> bool {
        self.marked.contains(key)
    }

    /// Whether a set is here.
    pub(super) fn has_set(&self, key: &MessageKey, set: u16) -> bool {
        self.messages.get(key).is_some_and(|sets| sets.contains_key(&set))
    }

    fn is_whole(&self, key: &MessageKey) -> bool {
        let sets = self.messages.get(key);
        let first = sets.and_then(|sets| Some((sets.len(), sets.first_key_value()?.1.header())));
        let by_sets = first.is_some_and(|(len, header)| len == usize::from(header.sets));
        by_sets || self.marked.contains(key)
    }

    /// Evicts what must give way to an opening until `cost` fits: of blocks ahead the farthest,
    /// if they have their share, else the oldest of all.
    fn make_room(&mut self, newest: Opening, cost: usize) -> bool {
        let share = self.memory / AHEAD;
        loop {
            let full = self.bytes + cost > self.memory;
            let ahead = if full || newest.0 > self.open { self.ahead() } else { 0 };
            let crowded = newest.0 > self.open && ahead + cost > share;
            if !full && !crowded {
                return true;
            }
            let gone = match ahead > share || crowded {
                true => self.openings.last_key_value().filter(|(last, _)| **last > newest),
                false => self.openings.first_key_value().filter(|(oldest, _)| **oldest < newest),
            };
            match gone.map(|(gone, _)| *gone) {
                Some(gone) => self.remove(gone),
                None => return false,
            }
        }
    }

    /// Bytes of the blocks above the newest one that is open.
    fn ahead(&self) -> usize {
        let Some(next) = self.open.checked_add(1) else { return 0 };
        self.openings.range((next, 0)..).map(|(_, kept)| kept.bytes).sum()
    }

    fn remove(&mut self, gone: Opening) {
        if let Some(kept) = self.openings.remove(&gone) {
            self.bytes -= kept.bytes;
        }
        while let Some((key, _)) = self.messages.range(messages_of(gone)).next() {
            let key = *key;
            self.messages.remove(&key);
        }
        while let Some(key) = self.marked.range(messages_of(gone)).next().copied() {
            self.marked.remove(&key);
        }
    }

    /// Recounts the whole messages of an opening.
    fn count(&mut self, of: Opening) {
        let Some(kept) = self.openings.get(&of) else { return };
        let (block, attempt) = of;
        let key = |message| MessageKey { block, attempt, message };
        let mut row = kept.row;
        while row < u16::MAX && self.is_whole(&key(row)) {
            row += 1;
        }
        let mut above = 0;
        if let Some(first) = row.checked_add(1) {
            let next = key(first)..=key(first.saturating_add(63));
            let sets = self.messages.range(next.clone()).map(|(key, _)| key);
            for key in sets.chain(self.marked.range(next)).filter(|key| self.is_whole(key)) {
                above |= 1 << (key.message - first);
            }
        }
        if let Some(kept) = self.openings.get_mut(&of) {
            (kept.row, kept.above) = (row, above);
        }
    }

    /// The sets of a message.
    pub(super) fn sets(&self, key: &MessageKey) -> Option<&BTreeMap<u16, CompleteSet>> {
        self.messages.get(key)
    }

    /// Drops a message that turned out to be none.
    pub(super) fn refuse(&mut self, key: &MessageKey) {
        self.unmark(key);
        let Some(sets) = self.messages.remove(key) else { return };
        let freed: usize = sets.values().map(CompleteSet::cost).sum();
        self.bytes -= freed;
        if let Some(kept) = self.openings.get_mut(&opening(key)) {
            kept.bytes -= freed;
            kept.row = kept.row.min(key.message);
        }
        self.count(opening(key));
    }

    /// Drops all blocks outside the window.
    pub(super) fn set_window(&mut self, low: u64, high: u64) {
        let unknown = high == u64::MAX;
        self.open = if unknown { high } else { high.saturating_sub(WINDOW_FUTURE) };
        while let Some((gone, _)) = self.openings.first_key_value().filter(|(o, _)| o.0 < low) {
            self.remove(*gone);
        }
        while let Some((gone, _)) = self.openings.last_key_value().filter(|(o, _)| o.0 > high) {
            self.remove(*gone);
        }
    }

    /// Drops the attempts of `block` below `attempt`.
    pub(super) fn supersede(&mut self, block: u64, attempt: u8) {
        while let Some((gone, _)) = self.openings.range((block, 0)..(block, attempt)).next() {
            self.remove(*gone);
        }
    }

    fn tip((block, attempt): Opening, kept: &Kept) -> Option<Tip> {
        let tip = Tip { block, attempt, row: kept.row, above: kept.above };
        (tip.end() > 0).then_some(tip)
    }

    /// Up to `count` openings, newest first.
    pub(super) fn newest(&self, count: usize) -> Vec<Tip> {
        let newest = self.openings.iter().rev().take(count);
        newest.filter_map(|(of, kept)| Self::tip(*of, kept)).collect()
    }

    /// Those of the `count` newest openings with news within `recent`, or within `open` for the
    /// newest one while it has no Seal.
    pub(super) fn active(
        &self,
        now: Timestamp,
        count: usize,
        recent: Duration,
        open: Duration,
    ) -> Vec<Tip> {
        self.openings
            .iter()
            .rev()
            .take(count)
            .enumerate()
            .filter(|(age, (_, kept))| {
                let limit = if *age == 0 && !kept.sealed { open.max(recent) } else { recent };
                now.since(kept.last) <= limit
            })
            .filter_map(|(_, (of, kept))| Self::tip(*of, kept))
            .collect()
    }

    /// The opening after `cursor`, starting over after the last.
    pub(super) fn after(&self, cursor: Opening) -> Option<Tip> {
        let above = (std::ops::Bound::Excluded(cursor), std::ops::Bound::Unbounded);
        let (of, kept) =
            self.openings.range(above).next().or_else(|| self.openings.first_key_value())?;
        Self::tip(*of, kept)
    }
}

#[cfg(test)]
mod tests;
