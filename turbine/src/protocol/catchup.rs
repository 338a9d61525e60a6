//! Catching up: what lies between the application's verified head and what is live.
//!
//! ```text
//! messages ──▶ Archive ──▶ answers: whole blocks, as messages with their signatures
//! handle_verified, tips, window ──▶ first block that is not whole here ──▶ requests ──▶ peers
//! ```
//!
//! Repair brings what peers tell of within the window; a node that was away for longer, or that
//! started with a stored head, lacks whole blocks. It asks a peer for all of them at once, as
//! messages, which need nothing but their gateway's signature. So it needs no execution client to
//! come back, as long as some peer keeps the blocks.
//!
//! # Guarantees
//! * Nothing is asked for unless the application has told its verified head, and nothing further
//!   than [`CatchUpConfig::ahead`] blocks beyond it: the application sets the pace.
//! * What a peer sends is taken only if it was asked for it, in order from the place that was asked
//!   for, of one attempt a block, and verified message by message. A message that its gateway did
//!   not sign convicts the peer.
//! * A peer that cannot help, is slow, or sends what is not next is passed over for [`PAUSE`]: it is
//!   asked again only for what follows what it has sent, and not if it brings no new message within
//!   [`SLOWEST`]. If nobody keeps the first missing block, [`Event::Gap`] says so as soon as the
//!   first few have answered.
//! * Memory: the [`Archive`]'s, one message of 10 MiB at most as it comes, 64 peers that are passed
//!   over, 4,096 budgets.

mod archive;
mod serving;

use std::collections::BTreeMap;
use std::time::Duration;

use fragcast_shredder::shred::MAX_ATTEMPTS;
use fragcast_shredder::{Kind, MessageKey};

use super::config::CatchUpConfig;
use super::ctx::Ctx;
use super::event::Event;
use super::repair::draw_peer;
use crate::control::{BlockPart, BlocksEnd, BlocksRequest, Control, MAX_PARTS};
use crate::egress::{Lane, Payload, Transmit};
use crate::gossip::Mode;
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::time::Timestamp;

pub(super) use archive::Archive;
pub(super) use serving::Serving;

/// How long a peer that could not help is passed over.
const PAUSE: Duration = Duration::from_secs(5);
/// How long one that has what is missing and did not send it is: it is busy.
const BUSY: Duration = Duration::from_millis(200);
/// How often one that has sent a part of a block may be, until it brings a new message.
const MAX_BUSY: u8 = 10;
/// The most peers that are passed over; more than that have nothing else to tell.
const MAX_PASSED: usize = 64;
/// After so many peers that do not keep a block, it is said to be lost.
const GAP_AFTER: usize = 4;
/// What a peer keeps from that keeps nothing so new.
const NEVER: u64 = u64::MAX;
/// A block is said to be lost at the earliest so long after it was first missed: others may be
/// about to connect.
const SETTLING: Duration = Duration::from_secs(1);
/// An answer may pause so long, and last so long.
const SILENCE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(5);
/// A peer that goes on answering brings a new message within this time: 10 MiB at 4 Mbit/s.
const SLOWEST: Duration = Duration::from_secs(20);
/// How long repair has for a block before others are asked for all of it.
const PATIENCE: Duration = Duration::from_millis(300);

/// How far this node has caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CatchUpState {
    /// The application's verified head.
    pub verified: Option<u64>,
    /// The first and the last block that are missing here, though later ones are live.
    pub missing: Option<(u64, u64)>,
    /// The first and the last block that no peer which was asked keeps any more.
    pub gap: Option<(u64, u64)>,
}

/// A place in the messages of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    block: u64,
    message: u16,
    have: u32,
    /// The attempt of what has come of the block before it.
    attempt: Option<u8>,
}

impl Place {
    const fn start_of(block: u64) -> Self {
        Self { block, message: 0, have: 0, attempt: None }
    }

    const fn is_start(&self) -> bool {
        self.message == 0 && self.have == 0
    }

    /// In the order of an answer.
    const fn order(&self) -> (u64, u16, u32) {
        (self.block, self.message, self.have)
    }
}

/// A request that is under way.
#[derive(Debug)]
struct Asked {
    nonce: u64,
    peer: PeerKey,
    /// Where the answer starts.
    from: Place,
    /// What is next of it.
    expect: Place,
    last: u64,
    sent: Timestamp,
    /// When somebody else is asked.
    until: Timestamp,
    parts: usize,
    /// Parts have come that are behind what is next.
    skipped: bool,
}

/// The message that is coming, in its order.
#[derive(Debug)]
struct Coming {
    peer: PeerKey,
    key: MessageKey,
    kind: Kind,
    total: u32,
    bytes: Vec<u8>,
}

/// Why a peer is not asked now.
#[derive(Debug, Clone, Copy)]
struct Passed {
    until: Timestamp,
    /// The first block that it keeps, if it does not keep what it was asked for: [`NEVER`] if it
    /// keeps none, or none so new. `None`: it keeps it, or has not said.
    keeps_from: Option<u64>,
}

/// What [`Parts`](super::parts::Parts) makes of a part.
pub(super) enum BlockStep {
    /// The message is whole and yet to be verified.
    Whole(MessageKey, Kind, Vec<u8>),
    /// Nothing more is to be done.
    Done(Outcome),
}

/// The asking side.
#[derive(Debug)]
pub(super) struct CatchUp {
    config: CatchUpConfig,
    verified: Option<u64>,
    asked: Option<Asked>,
    coming: Option<Coming>,
    /// Where the last answer of a peer ended within a block.
    cursor: Option<(PeerKey, Place)>,
    /// The first block that is missing, and since when.
    missing: Option<(u64, Timestamp)>,
    /// The last block that is missing.
    last: u64,
    passed: BTreeMap<PeerKey, Passed>,
    gap: Option<(u64, u64)>,
    /// The peer that is asked is busy until then, and how often it was.
    busy: Option<(Timestamp, u8)>,
    /// Answers that brought nothing, since the last new message.
    in_vain: u8,
    /// When the peer that is asked brought the last new message, or was asked first.
    fruitful: Timestamp,
    /// When to judge again whether a block is lost.
    judge_at: Option<Timestamp>,
    /// When to look again.
    at: Option<Timestamp>,
    last_nonce: u64,
}

impl CatchUp {
    pub(super) const fn new(config: CatchUpConfig) -> Self {
        Self {
            config,
            verified: None,
            asked: None,
            coming: None,
            cursor: None,
            missing: None,
            last: 0,
            passed: BTreeMap::new(),
            gap: None,
            busy: None,
            in_vain: 0,
            fruitful: Timestamp::from_nanos(0),
            judge_at: None,
            at: None,
            last_nonce: 0,
        }
    }

    /// See [`CatchUpState`].
    pub(super) fn state(&self) -> CatchUpState {
        let missing = self.missing.map(|(first, _)| (first, self.last.max(first)));
        CatchUpState { verified: self.verified, missing, gap: self.gap }
    }

    /// When [`step`](Self::step) has something to do.
    pub(super) const fn next_timeout(&self) -> Option<Timestamp> {
        self.at
    }

    /// Whether something is asked for.
    pub(super) const fn is_pending(&self) -> bool {
        self.asked.is_some()
    }

    /// The application's verified head is `block`.
    pub(super) const fn verified(&mut self, block: u64) {
        self.verified = Some(block);
    }

    /// A peer has connected: it may keep what others do not.
    pub(super) fn connected(&mut self, peer: PeerKey) {
        self.passed.remove(&peer);
    }

    /// The connection to a peer is gone.
    pub(super) fn disconnected(&mut self, peer: PeerKey) {
        self.passed.remove(&peer);
        if self.asked.as_ref().is_some_and(|asked| asked.peer == peer) {
            self.asked = None;
        }
        if self.coming.as_ref().is_some_and(|coming| coming.peer == peer) {
            self.coming = None;
        }
        self.cursor = self.cursor.filter(|(of, _)| *of != peer);
    }

    /// The blocks that are missing, the first of them in any case, as far ahead as is asked for.
    fn target(&self, ctx: &Ctx, archive: &Archive) -> Option<(u64, u64)> {
        let verified = self.verified?;
        let below = ctx.window.opened()?.checked_sub(1)?;
        let last = below.min(verified.saturating_add(self.config.ahead));
        let first = (verified.checked_add(1)?..=last).find(|block| !archive.was_whole(*block))?;
        Some((first, last))
    }

    /// Asks for what is missing, if it is time to.
    pub(super) fn step(&mut self, ctx: &mut Ctx, archive: &Archive) {
        self.at = None;
        // Without an archive of its own a node cannot tell what it lacks.
        if !ctx.config.repair.enabled || self.config.memory == 0 {
            return;
        }
        // On gossip alone nobody asks over the overlay, and no answer would be taken.
        let target = self.target(ctx, archive).filter(|_| ctx.mode != Mode::Gossip);
        let Some((first, last)) = target else {
            self.level(ctx);
            return;
        };
        let now = ctx.now;
        let live = ctx.window.opened().unwrap_or(last);
        if self.missing.is_none_or(|(block, _)| block != first) {
            self.missing = Some((first, now));
        }
        self.last = live.saturating_sub(1);
        if self.gap.is_some_and(|(gap, _)| gap != first) {
            self.tell_gap(ctx, None);
        }
        let since = self.missing.map_or(now, |(_, since)| since);
        // Of the block before the live one repair may still bring what lacks.
        if first.saturating_add(1) >= live && now < since + PATIENCE {
            self.at = Some(since + PATIENCE);
            return;
        }
        if let Some(asked) = &self.asked {
            if now < asked.until {
                self.at = Some(asked.until);
                return;
            }
            let peer = asked.peer;
            self.pass(now + PAUSE, peer, None);
        }
        if let Some((until, _)) = self.busy.filter(|(until, _)| now < *until) {
            self.at = Some(until);
            return;
        }
        self.passed.retain(|_, passed| {
            let lacks = passed.keeps_from.is_none_or(|from| from > first);
            now < passed.until && lacks
        });
        let seed = [u64::from(ctx.me().number()), first, self.last_nonce];
        let again = self.cursor.filter(|(_, place)| place.block == first);
        let again = again.map(|(peer, _)| peer).filter(|peer| self.is_free(ctx, *peer));
        let full = self.passed.len() >= MAX_PASSED;
        let other = || draw_peer(ctx, &seed, |peer| self.passed.contains_key(&peer));
        let peer = again.or_else(|| if full { None } else { other() });
        self.judge_gap(ctx, first, peer.is_none());
        match peer {
            Some(peer) => self.ask(ctx, peer, first, last),
            None => {
                let until = self.passed.values().map(|passed| passed.until).min();
                self.at = until.into_iter().chain(self.judge_at.take()).min();
            }
        }
    }

    fn is_free(&self, ctx: &Ctx, peer: PeerKey) -> bool {
        ctx.peers.can_ask(peer) && !self.passed.contains_key(&peer)
    }

    fn ask(&mut self, ctx: &mut Ctx, peer: PeerKey, first: u64, last: u64) {
        let start = Place::start_of(first);
        let goes_on = |(of, place): &(PeerKey, Place)| *of == peer && place.block == first;
        let cursor = self.cursor.filter(goes_on);
        let place = cursor.map_or(start, |(_, place)| place);
        if place == start {
            self.coming = None;
        }
        if cursor.is_none() {
            self.fruitful = ctx.now;
        }
        self.cursor = cursor;
        self.last_nonce += 1;
        let (nonce, until) = (self.last_nonce, ctx.now + SILENCE);
        let Place { block, message, have, .. } = place;
        let request = BlocksRequest { nonce, block, message, have, last };
        let payload = Payload::Control(Control::BlocksRequest(request).to_bytes());
        ctx.egress.push(Transmit { to: peer, lane: Lane::Data, payload });
        ctx.counters.blocks_requested += 1;
        self.asked = Some(Asked {
            nonce,
            peer,
            from: place,
            expect: place,
            last,
            sent: ctx.now,
            until,
            parts: 0,
            skipped: false,
        });
        self.at = Some(until);
    }

    /// Asks others than a peer for a while.
    fn pass(&mut self, until: Timestamp, peer: PeerKey, keeps_from: Option<u64>) {
        if self.passed.len() < MAX_PASSED {
            self.passed.insert(peer, Passed { until, keeps_from });
        }
        (self.asked, self.cursor, self.coming, self.busy) = (None, None, None, None);
    }

    /// Says that the first missing block is lost, once peers have told that they do not keep it.
    fn judge_gap(&mut self, ctx: &mut Ctx, first: u64, nobody_is_left: bool) {
        let lacking = self.passed.values().filter_map(|passed| passed.keeps_from);
        let (count, lowest) = lacking.fold((0, u64::MAX), |(n, low), from| (n + 1, low.min(from)));
        if self.gap.is_some() || count == 0 || !(count >= GAP_AFTER || nobody_is_left) {
            return;
        }
        let settled = self.missing.map_or(ctx.now, |(_, since)| since + SETTLING);
        if count < GAP_AFTER && ctx.now < settled {
            self.judge_at = Some(settled);
            return;
        }
        self.tell_gap(ctx, Some((first, lowest.saturating_sub(1).min(self.last))));
    }

    fn tell_gap(&mut self, ctx: &mut Ctx, gap: Option<(u64, u64)>) {
        if self.gap != gap {
            self.gap = gap;
            ctx.events.push_back(Event::Gap(gap));
        }
    }

    /// Nothing is missing.
    fn level(&mut self, ctx: &mut Ctx) {
        self.tell_gap(ctx, None);
        self.passed.clear();
        (self.missing, self.asked, self.cursor, self.coming) = (None, None, None, None);
        self.busy = None;
    }

    /// Takes a part of an answer.
    pub(super) fn take_part(
        &mut self,
        now: Timestamp,
        from: PeerKey,
        part: &BlockPart,
    ) -> BlockStep {
        let asked = self.asked.as_mut();
        let Some(asked) = asked.filter(|a| a.peer == from && a.nonce == part.nonce) else {
            let known = part.nonce <= self.last_nonce;
            let outcome = if known { Outcome::RepairLate } else { Outcome::RepairUnasked };
            return BlockStep::Done(outcome);
        };
        let (key, expect) = (part.key, asked.expect);
        asked.parts += 1;
        let in_range = (asked.from.block..=asked.last).contains(&key.block);
        let is_endless = key.message == u16::MAX && part.kind != Kind::Seal;
        if asked.parts > MAX_PARTS || !in_range || is_endless || key.attempt >= MAX_ATTEMPTS {
            return self.misled(now, from, Outcome::ControlBad);
        }
        let attempt = Some(key.attempt);
        let Place { block, message, have, .. } = expect;
        let place = (key.block, key.message, part.offset);
        if place > expect.order() {
            // A frame was lost: the end tells where to go on.
            asked.skipped = true;
            return BlockStep::Done(Outcome::ControlStale);
        }
        if place != expect.order() || expect.attempt.is_some_and(|of| Some(of) != attempt) {
            return self.misled(now, from, Outcome::ControlStale);
        }
        asked.until = (now + SILENCE).min(asked.sent + LONGEST);
        self.at = Some(asked.until);
        if have == 0 {
            let (kind, total, bytes) = (part.kind, part.total, Vec::new());
            self.coming = Some(Coming { peer: from, key, kind, total, bytes });
        }
        let same = |c: &&mut Coming| {
            let one = (c.peer, c.key, c.kind, c.total) == (from, key, part.kind, part.total);
            one && c.bytes.len() == have as usize
        };
        let Some(coming) = self.coming.as_mut().filter(same) else {
            return self.misled(now, from, Outcome::ControlStale);
        };
        let (len, total) = (coming.bytes.len(), part.total as usize);
        if coming.bytes.capacity() - len < part.bytes.len() {
            // Twice as much as has come, but never more than the message.
            coming.bytes.reserve_exact(len.max(part.bytes.len()).min(total - len));
        }
        coming.bytes.extend_from_slice(&part.bytes);
        let len = coming.bytes.len();
        asked.expect = match part.kind {
            _ if len < total => Place { block, message, have: len as u32, attempt },
            Kind::Seal => Place::start_of(block.saturating_add(1)),
            _ => Place { block, message: message.saturating_add(1), have: 0, attempt },
        };
        self.cursor = Some((from, asked.expect));
        if len < total {
            return BlockStep::Done(Outcome::Control);
        }
        let wire = self.coming.take().map(|coming| coming.bytes).unwrap_or_default();
        BlockStep::Whole(key, part.kind, wire)
    }

    /// A peer sends something else than what is next: others are asked at once.
    fn misled(&mut self, now: Timestamp, from: PeerKey, outcome: Outcome) -> BlockStep {
        self.pass(now + PAUSE, from, None);
        self.at = Some(now);
        BlockStep::Done(outcome)
    }

    /// A message of an answer was not here before.
    pub(super) const fn note_new(&mut self, now: Timestamp) {
        (self.busy, self.in_vain, self.fruitful) = (None, 0, now);
    }

    /// A peer has sent what was not asked for or not signed: nothing of it counts.
    pub(super) fn refuse(&mut self, now: Timestamp, from: PeerKey) {
        self.pass(now + PAUSE, from, None);
    }

    /// Takes the end of an answer.
    pub(super) fn take_end(&mut self, now: Timestamp, from: PeerKey, end: &BlocksEnd) -> Outcome {
        let Some(asked) = self.asked.take_if(|a| a.peer == from && a.nonce == end.nonce) else {
            let known = end.nonce <= self.last_nonce;
            return if known { Outcome::RepairLate } else { Outcome::RepairUnasked };
        };
        let keeps_some = end.first <= end.last;
        let has_it = keeps_some && (end.first..=end.last).contains(&asked.from.block);
        let in_vain = asked.expect == asked.from;
        let times = self.busy.map_or(0, |(_, times)| times);
        if now >= self.fruitful + SLOWEST || (in_vain && asked.skipped) {
            self.pass(now + PAUSE, from, None);
        } else if in_vain && has_it && !asked.from.is_start() && times < MAX_BUSY {
            // What it has sent so far of a long message is worth waiting for.
            self.busy = Some((now + BUSY, times + 1));
        } else if in_vain {
            // It has nothing for us: only later blocks, or none that are so new, or it is busy.
            // Longer from time to time: perhaps nobody has a block that it says it has.
            self.in_vain = self.in_vain.saturating_add(1);
            let busy = BUSY * (1 << (self.in_vain / 4).min(5));
            let pause = if has_it { busy.min(PAUSE) } else { PAUSE };
            let later = keeps_some && end.first > asked.from.block;
            let keeps_from = if later { end.first } else { NEVER };
            self.pass(now + pause, from, (!has_it).then_some(keeps_from));
        }
        self.at = Some(now);
        Outcome::Control
    }
}
