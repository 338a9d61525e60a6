//! Wanted messages: known to exist, and not here.
//!
//! A message is *wanted* from its first shred until it is whole, or from when a later message of
//! its block, or a peer's tips, show that it exists. A shred is evidence: its leader signed it.
//! Tips are hearsay: a bounded number is taken, and only the peers that sent them are asked.

use std::cell::Cell;
use std::collections::BTreeMap;

use fragcast_shredder::MessageKey;

use super::store::{Opening, opening};
use super::want::Want;
use crate::health::Missing;
use crate::peer::PeerKey;
use crate::protocol::window::WINDOW_FUTURE;
use crate::time::Timestamp;

/// The most wanted messages, 300 bytes each; those given up make room first, then for the open
/// block and later ones what is past, then the farthest future. Otherwise one signed shred with a distant index would fill the table with messages that
/// nobody has, as long as its block is in the window.
const MAX_WANTS: usize = 1024;
/// The most of them that are known by tips alone, in all, and by one peer first.
const MAX_HEARSAY: usize = 512;
const MAX_HEARSAY_OF_ONE: usize = 64;
/// Openings of which is remembered what exists, 40 bytes each.
const MAX_TRACKS: usize = 1024;

/// The state of one opening.
#[derive(Debug, Clone, Copy, Default)]
struct Track {
    /// Messages 0 to row − 1 are done.
    row: u32,
    /// Messages 0 to exists − 1 are known to exist, and wanted where they are not done.
    exists: u32,
}

/// Whether a message is of another opening than `key`. Among messages given up only such ones make
/// room; otherwise the rest of a series that nobody has would take their place for ever.
fn of_another(key: MessageKey) -> impl Fn(&MessageKey, &Want) -> bool {
    move |other, _| opening(other) != opening(&key)
}

/// All that is wanted.
#[derive(Debug, Default)]
pub(super) struct Wants {
    pub(super) messages: BTreeMap<MessageKey, Want>,
    tracks: BTreeMap<Opening, Track>,
    hearsay: usize,
    /// The newest block that is open; 0 before one is known.
    open: u64,
    /// The lowest block of which live traffic was heard; earlier blocks are not asked for.
    anchor: Option<u64>,
    /// The earliest time at which a want may be due; updated lazily, so it may be too early.
    at: Option<Timestamp>,
    /// What [`missing`](Self::missing) has found, until something of it changes: it is asked for
    /// with every packet that leaves, and a full table is long.
    known_missing: Cell<Option<Missing>>,
}

impl Wants {
    /// When a want may be due.
    pub(super) fn at(&self) -> Option<Timestamp> {
        if self.messages.is_empty() { None } else { self.at }
    }

    pub(super) fn wake(&mut self, at: Timestamp) {
        self.at = Some(self.at.map_or(at, |before| before.min(at)));
    }

    /// Recomputes when a want is due, after messages were asked for or given up.
    pub(super) fn settle_timer(&mut self) {
        self.known_missing.take();
        let awake = self.messages.values().filter(|want| !want.resting);
        self.at = awake.map(|want| want.due).min();
    }

    /// Live traffic of `block` was heard, or the application says that it is next.
    pub(super) fn anchor(&mut self, block: u64) {
        self.anchor = Some(self.anchor.map_or(block, |anchor| anchor.min(block)));
    }

    /// A new shred of a message came, under a plan: by itself, from a peer and with the µs of the
    /// round trip to it, or by repair.
    pub(super) fn shred(
        &mut self,
        now: Timestamp,
        (key, plan): (MessageKey, u64),
        live_from: Option<(PeerKey, u32)>,
        due: Timestamp,
        is_done: impl Fn(&MessageKey) -> bool,
    ) {
        if live_from.is_some() {
            self.anchor(key.block);
        }
        // First of all: what the shred proves may fill the table and leave no room for its own.
        self.wake(due);
        self.known_missing.take();
        self.exists(now, key, due, is_done);
        if !self.messages.contains_key(&key) && !self.make_room(&key) {
            return;
        }
        let want = self.messages.entry(key).or_insert_with(|| Want::new(now, due, true));
        self.hearsay -= usize::from(want.prove(now));
        want.plan = Some(plan);
        match live_from {
            Some((from, micros)) => {
                want.hold(from, false, micros);
                want.came(now);
                want.news(now, due);
            }
            None => want.repaired += 1,
        }
    }

    /// `key` exists, so the messages before it do.
    fn exists(
        &mut self,
        now: Timestamp,
        key: MessageKey,
        due: Timestamp,
        is_done: impl Fn(&MessageKey) -> bool,
    ) {
        let track = self.tracks.entry((key.block, key.attempt)).or_default();
        let known = track.exists;
        if u32::from(key.message) < known {
            return;
        }
        track.exists = u32::from(key.message) + 1;
        let mut full = None;
        for message in known..u32::from(key.message) {
            let key = MessageKey { message: message as u16, ..key };
            if is_done(&key) {
                continue;
            }
            if let Some(want) = self.messages.get_mut(&key) {
                self.hearsay -= usize::from(want.prove(now));
            } else if self.has_room(&key) {
                self.messages.insert(key, Want::new(now, due, true));
            } else {
                // The rest when there is room again.
                full = Some(message);
                break;
            }
        }
        if let Some(message) = full
            && let Some(track) = self.tracks.get_mut(&(key.block, key.attempt))
        {
            track.exists = message;
        }
        if self.tracks.len() > MAX_TRACKS {
            self.tracks.pop_last();
        }
    }

    /// Drops one message of `which` that was given up, if there is one.
    fn evict_resting(&mut self, which: impl Fn(&MessageKey, &Want) -> bool) -> bool {
        let given_up = |(key, want): &(&MessageKey, &Want)| want.resting && which(key, want);
        let gone = self.messages.iter().rev().find(given_up).map(|(key, _)| *key);
        gone.is_some_and(|gone| self.remove(&gone).is_some())
    }

    /// Whether there is room for `key`, perhaps because a message of another opening was given up,
    /// or is past and this one is not.
    fn has_room(&mut self, key: &MessageKey) -> bool {
        if self.messages.len() < MAX_WANTS || self.evict_resting(of_another(*key)) {
            return true;
        }
        let oldest = self.messages.first_key_value().map(|(oldest, _)| *oldest);
        let past = oldest.filter(|oldest| oldest.block < self.open && key.block >= self.open);
        past.is_some_and(|past| self.remove(&past).is_some())
    }

    /// Evicts a message that was given up, or is past, or the farthest future, for `key`; or says
    /// that there is no room.
    fn make_room(&mut self, key: &MessageKey) -> bool {
        if self.has_room(key) {
            return true;
        }
        let farthest = self.messages.last_key_value().map(|(last, _)| *last);
        let gone = farthest.filter(|last| last > key);
        gone.is_some_and(|gone| {
            self.remove(&gone);
            true
        })
    }

    pub(super) fn remove(&mut self, key: &MessageKey) -> Option<Want> {
        let want = self.messages.remove(key)?;
        self.known_missing.take();
        self.hearsay -= usize::from(!want.certain);
        if self.messages.is_empty() {
            // Or the next message that is wanted would wake us at once.
            self.at = None;
        }
        Some(want)
    }

    /// A message is whole, or refused.
    pub(super) fn done(
        &mut self,
        key: &MessageKey,
        is_done: impl Fn(&MessageKey) -> bool,
    ) -> Option<Want> {
        let want = self.remove(key);
        let Some(track) = self.tracks.get_mut(&(key.block, key.attempt)) else { return want };
        let in_row = |row: u32| {
            u16::try_from(row).is_ok_and(|message| is_done(&MessageKey { message, ..*key }))
        };
        while in_row(track.row) {
            track.row += 1;
        }
        want
    }

    /// Takes a tip of a peer, with the µs of the round trip to it: it has the messages that the
    /// tip names. New ones are wanted from `due` on.
    pub(super) fn told(
        &mut self,
        now: Timestamp,
        (peer, micros): (PeerKey, u32),
        tip: &crate::control::Tip,
        due: Timestamp,
        is_done: impl Fn(&MessageKey) -> bool,
    ) {
        let (block, attempt) = (tip.block, tip.attempt);
        if self.anchor.is_none_or(|anchor| block < anchor) {
            return;
        }
        let track = self.tracks.get(&(block, attempt)).copied().unwrap_or_default();
        // A node that keeps up ends here.
        if tip.end() <= track.row {
            return;
        }
        let hearsay =
            |want: &&Want| !want.certain && !want.resting && want.told_by.first() == Some(&peer);
        let mut left =
            MAX_HEARSAY_OF_ONE.saturating_sub(self.messages.values().filter(hearsay).count());
        // A lie makes us look at so many messages and no more.
        let end = tip.end().min(track.row + 64);
        for message in (track.row..end).filter_map(|m| u16::try_from(m).ok()) {
            let key = MessageKey { block, attempt, message };
            if !tip.has(message) || is_done(&key) {
                continue;
            }
            if !self.messages.contains_key(&key) {
                let certain = u32::from(message) < track.exists;
                if !certain && left == 0 {
                    continue;
                }
                // What liars told and could not answer must not stand in the way of others.
                let crowded = !certain && self.hearsay >= MAX_HEARSAY;
                let full = crowded || self.messages.len() >= MAX_WANTS;
                if full && !self.evict_resting(|_, want| !crowded || !want.certain) {
                    continue;
                }
                self.hearsay += usize::from(!certain);
                left -= usize::from(!certain);
                self.messages.insert(key, Want::new(now, due, certain));
                self.wake(due);
            }
            let want = self.messages.get_mut(&key).expect("present");
            want.hold(peer, true, micros);
            if want.told_by.len() < 2 && !want.told_by.contains(&peer) {
                want.told_by.push(peer);
                self.known_missing.take();
            }
            // Hearsay of what is quiet already changes nothing but who can be asked.
            if want.resting && want.due <= now {
                want.news(now, due);
                self.known_missing.take();
                self.wake(due);
            }
        }
    }

    /// Since when a message is wanted that two peers' tips have, and one that must exist. Only
    /// messages that were asked for count: before that nothing is known to be missing.
    pub(super) fn missing(&self) -> Missing {
        let missing = self.known_missing.get().unwrap_or_else(|| self.find_missing());
        self.known_missing.set(Some(missing));
        missing
    }

    fn find_missing(&self) -> Missing {
        let earlier =
            |before: Option<Timestamp>, since| Some(before.map_or(since, |b| b.min(since)));
        let mut missing = Missing::default();
        for want in self.messages.values().filter(|want| want.tries > 0 || want.resting) {
            if want.told_by.len() > 1 {
                missing.told = earlier(missing.told, want.since);
            }
            if want.certain {
                missing.certain = earlier(missing.certain, want.since);
            }
        }
        missing
    }

    /// Drops messages outside the window.
    pub(super) fn set_window(&mut self, low: u64, high: u64) {
        self.open = if high == u64::MAX { 0 } else { high.saturating_sub(WINDOW_FUTURE) };
        self.tracks.retain(|(block, _), _| (low..=high).contains(block));
        let gone = |block: u64| block < low || block > high;
        while let Some((key, _)) = self.messages.first_key_value().filter(|(k, _)| gone(k.block)) {
            let key = *key;
            self.remove(&key);
        }
        while let Some((key, _)) = self.messages.last_key_value().filter(|(k, _)| gone(k.block)) {
            let key = *key;
            self.remove(&key);
        }
    }

    /// Drops the attempts of `block` below `attempt`.
    pub(super) fn supersede(&mut self, block: u64, attempt: u8) {
        self.tracks.retain(|(of, n), _| *of != block || *n >= attempt);
        let key = |attempt| MessageKey { block, attempt, message: 0 };
        while let Some((gone, _)) = self.messages.range(key(0)..key(attempt)).next() {
            let gone = *gone;
            self.remove(&gone);
        }
    }

    /// A peer is none any more: nobody can ask it.
    pub(super) fn forget_peer(&mut self, peer: PeerKey) {
        for want in self.messages.values_mut() {
            want.forget(peer);
            want.told_by.retain(|told| *told != peer);
        }
        self.known_missing.take();
    }

    /// Nothing is wanted any more.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.known_missing.take();
        (self.hearsay, self.at) = (0, None);
    }

    /// The window was dropped: what follows is another stretch of the chain.
    pub(super) const fn forget_anchor(&mut self) {
        self.anchor = None;
    }
}

#[cfg(test)]
mod tests;
