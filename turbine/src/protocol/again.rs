//! Handing the application again what it has lost: the protocol knows that a block was here, and
//! asks nobody for it any more; that does not mean that the application has it.
//!
//! ```text
//! messages ─▶ note: too far ahead of the application's head, which takes nothing of them
//! handle_verified ─▶ what has come within its reach ─┐
//! handle_idle ────▶ it stands though there is more ──┴▶ step ─▶ Archive ─▶ Event::Again
//!                                                            └▶ lacks it: peers are asked anew
//! ```
//!
//! An application drops blocks: its queue was full, too many waited behind a hole, the process stood
//! still in the middle of one. So when its head has not moved for [`PATIENCE`], though it has nothing
//! to do and the next block is sealed, everything that follows the head is handed to it again, as
//! far as [`CatchUpConfig::ahead`](super::CatchUpConfig::ahead) goes. What the archive does not keep
//! any more is asked of peers as if it had never been here. And what came when it was further ahead
//! than that, which the application is not to take, is handed to it as its head moves.
//!
//! # Guarantees
//! * Nothing is handed again unless the application has told its head and that it has nothing to do
//!   ([`Protocol::handle_idle`](super::Protocol::handle_idle)).
//! * Of a block that is handed again all messages come in order from the Env on, of the newest
//!   attempt; those that the application has already come once more.
//! * [`MAX_MESSAGES`] messages and [`MAX_BYTES`] bytes are under way to the application at a time, or
//!   one block that is longer.
//! * While the head does not move, it is tried again after [`PATIENCE`], and then after twice as long
//!   each time, to eight times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fragcast_shredder::{MessageKey, VerifiedMessage};

use super::catchup::Archive;
use super::config::CatchUpConfig;
use super::ctx::Ctx;
use super::event::Event;
use super::fallback::cost;
use crate::output::{Delivered, Times, Via};
use crate::time::Timestamp;

/// How long the application stands before it is handed again what follows its head.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the time between two tries doubles.
const MAX_DOUBLINGS: u32 = 3;
/// Messages that are under way to the application: a quarter of an executor's queue.
const MAX_MESSAGES: usize = 1024;
/// Bytes of them: a quarter of what an executor's queue holds.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What is handed to the application again.
#[derive(Debug)]
pub(super) struct Again {
    ahead: u64,
    /// Without an archive nothing can be.
    enabled: bool,
    /// The application's verified head.
    head: Option<u64>,
    /// The application tells when it has nothing to do.
    active: bool,
    /// Since when it stands with nothing to do, or when it was handed something again.
    stands: Option<Timestamp>,
    /// How often it was handed the same again.
    tries: u32,
    /// The first block that it may lack though it was here, and everything behind it.
    next: Option<u64>,
    /// Blocks above the head that were handed again: messages and bytes.
    handed: BTreeMap<u64, (usize, usize)>,
    /// Blocks that are asked of peers for the second time.
    wanted: BTreeSet<u64>,
}

impl Again {
    pub(super) fn new(config: &CatchUpConfig) -> Self {
        Self {
            ahead: config.ahead.max(1),
            enabled: config.memory > 0,
            head: None,
            active: false,
            stands: None,
            tries: 0,
            next: None,
            handed: BTreeMap::new(),
            wanted: BTreeSet::new(),
        }
    }

    /// The last block that the application takes now.
    fn last(&self) -> Option<u64> {
        self.head.filter(|_| self.active).map(|head| head.saturating_add(self.ahead))
    }

    /// A message of a block has come, and is handed on: the application does not take it if it is
    /// too far ahead.
    pub(super) fn note(&mut self, block: u64) {
        if self.last().is_some_and(|last| block > last) {
            self.next = Some(self.next.map_or(block, |next| next.min(block)));
        }
    }

    /// The application's verified head is `block`.
    pub(super) fn verified(&mut self, block: u64) {
        if self.head == Some(block) {
            return;
        }
        self.head = Some(block);
        (self.stands, self.tries) = (None, 0);
        let last = block.saturating_add(self.ahead);
        self.handed = self.handed.split_off(&block.saturating_add(1));
        self.wanted.retain(|wanted| (block.saturating_add(1)..=last).contains(wanted));
    }

    /// The application has nothing to do, or has. If it has stood for long enough, everything that
    /// follows its head counts as lost.
    pub(super) fn idle(&mut self, ctx: &Ctx, idle: bool) {
        self.active = self.enabled;
        let next = self.head.and_then(|head| head.checked_add(1));
        let next = next.filter(|next| ctx.window.sealed().is_some_and(|sealed| sealed >= *next));
        let Some(next) = next.filter(|_| self.active && idle) else {
            self.stands = None;
            return;
        };
        let since = *self.stands.get_or_insert(ctx.now);
        if ctx.now < since + PATIENCE * (1 << self.tries.min(MAX_DOUBLINGS)) {
            return;
        }
        self.stands = Some(ctx.now);
        self.tries = self.tries.saturating_add(1);
        self.next = Some(next);
        self.handed.clear();
    }

    /// Whether messages of a block are handed on past the order of messages, since the block is
    /// asked for a second time.
    pub(super) fn wants(&self, block: u64) -> bool {
        self.wanted.contains(&block)
    }

    /// Hands what is due to the application, or has it asked for.
    pub(super) fn step(&mut self, ctx: &mut Ctx, archive: &mut Archive) {
        let (Some(head), Some(last)) = (self.head, self.last()) else { return };
        let newest = ctx.window.opened().max(archive.last());
        while let Some(block) = self.next.map(|next| next.max(head.saturating_add(1))) {
            self.next = Some(block);
            if newest.is_none_or(|newest| block > newest) {
                self.next = None;
                return;
            }
            if block > last || !self.take(ctx, archive, block) {
                return;
            }
            self.next = block.checked_add(1);
        }
    }

    /// Hands a block to the application as far as it is here, or has it asked for; says whether
    /// there was room.
    fn take(&mut self, ctx: &mut Ctx, archive: &mut Archive, block: u64) -> bool {
        // An older attempt does not count once the leader has opened the block again: the newer
        // one is on its way.
        let messages = archive.newest(block);
        if !messages.is_empty() {
            let bytes = messages.iter().map(|(_, message)| cost(message)).sum::<usize>();
            let sum = |(n, b): (usize, usize), (m, c): &(usize, usize)| (n + m, b + c);
            let under_way = self.handed.values().fold((messages.len(), bytes), sum);
            let fits = under_way.0 <= MAX_MESSAGES && under_way.1 <= MAX_BYTES;
            if !fits && !self.handed.is_empty() {
                return false;
            }
            self.handed.insert(block, (messages.len(), bytes));
            messages.into_iter().for_each(|(key, message)| Self::hand(ctx, key, message));
        }
        if archive.was_whole(block) && !archive.is_whole(block) {
            archive.forget(block);
            self.wanted.insert(block);
        }
        true
    }

    /// Hands one message to the application, past the order of messages.
    pub(super) fn hand(ctx: &mut Ctx, key: MessageKey, message: VerifiedMessage) {
        ctx.counters.handed_again += 1;
        let (rank, times) = (ctx.rank(&key), Times::whole(ctx.now));
        let delivered = Delivered { key, message, times, via: Via::Whole, rank };
        ctx.events.push_back(Event::Again(Arc::new(delivered)));
    }
}
