//! Catching up: what lies between the application's verified head and what is live.
//!
//! ```text
//! messages ──▶ Archive ──▶ answers: whole blocks, as messages with their signatures
//! handle_verified, tips, window ──▶ blocks that are not whole here ──▶ Streams ⇄ peers
//!                                         hand on ◀── blocks held ahead ◀──┘
//! ```
//!
//! Repair brings what peers tell of within the window; a node that was away for longer, or that
//! started with a stored head, lacks whole blocks. It asks peers for them, as messages, which need
//! nothing but their gateway's signature. So it needs no execution client to come back, as long as
//! some peer keeps the blocks.
//!
//! Several questions are under way at a time, each for other blocks: with one, a round trip would
//! bring a megabyte at most. What comes before its turn is held until the application is near.
//!
//! # The head
//! The application's verified head, if it tells one. Who executes nothing tells none: then every
//! block is needed from the one on that the node first saw open, as far back as
//! [`CatchUpConfig::blocks`]: its head is what has come whole since then. A block that nobody sends
//! holds up none of the others, since not every block of a chain is sent by a gateway.
//!
//! # Guarantees
//! * Nothing is handed on further than [`CatchUpConfig::ahead`] blocks beyond the verified head: the
//!   application sets the pace. [`CatchUpConfig::questions`] times as many are asked for.
//! * What a peer sends is taken only if it was asked for it, in order from the place that was asked
//!   for, of one attempt a block, and verified message by message. A block is taken whole, if its
//!   Seal [agrees](content); after [`DISPUTES`] answers that do not, its messages are handed on for
//!   the sequencer to judge, and it is asked for again.
//! * A peer that cannot help, is slow, or sends what is not next is passed over for [`PAUSE`]: it is
//!   asked again only for what follows what it has sent, and not if it brings no new message within
//!   [`SLOWEST`]. If nobody keeps the first missing block, [`Event::Gap`] says so as soon as the
//!   first few have answered.
//! * Memory: the [`Archive`]'s; half as much, or one message of 10 MiB if that is more, for what
//!   comes and what is held, of which the first missing block comes first, and is handed on in parts
//!   if it is longer; 64 peers that are passed over, what each connected peer keeps, 512 blocks that are put off, 4,096 budgets
//!   of members and as many of guests.

mod answers;
mod archive;
mod content;
mod serving;
mod stream;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use fragcast_shredder::{Kind, MAX_MESSAGE_LEN, MessageKey, VerifiedMessage};

use super::config::CatchUpConfig;
use super::ctx::Ctx;
use super::event::Event;
use super::repair::draw_peer;
use crate::control::{BLOCK_PART_LEN, BlocksRequest, Control, MAX_PARTS};
use crate::egress::{Lane, Payload, Transmit};
use crate::gossip::Mode;
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::time::Timestamp;
use stream::Stream;

pub(super) use archive::{Archive, Word};
pub(super) use serving::Serving;

/// How long a peer that could not help is passed over.
const PAUSE: Duration = Duration::from_secs(5);
/// How long what a peer greets with counts: it may be catching up itself, with earlier blocks.
const GREETED: Duration = Duration::from_secs(10);
/// How long one that has what is missing and did not send it is: it is busy.
const BUSY: Duration = Duration::from_millis(200);
/// How often one that has sent a part of a block may be, until it brings a new message.
const MAX_BUSY: u8 = 10;
/// The most peers that are passed over; more than that have nothing else to tell.
const MAX_PASSED: usize = 64;
/// After so many peers that do not keep a block, it is said to be lost.
const GAP_AFTER: usize = 4;
/// A block is said to be lost at the earliest so long after it was first missed: others may be
/// about to connect.
const SETTLING: Duration = Duration::from_secs(1);
/// A peer that goes on answering brings a new message within this time: 10 MiB at 4 Mbit/s.
const SLOWEST: Duration = Duration::from_secs(20);
/// How long repair has for a block before others are asked for all of it.
const PATIENCE: Duration = Duration::from_millis(300);
/// Questions to one peer at a time, of which each answer is a quarter of what a stream's queue
/// holds; one more for the first block that is missing.
const MAX_PER_PEER: usize = 2;
/// Bytes of an answer, at most.
const ANSWER: usize = MAX_PARTS * BLOCK_PART_LEN;
/// What a block is taken to have before any has come: blocks as far ahead as is asked for by one
/// question fill an answer.
const FIRST_SIZE: usize = 32 * 1024;
/// After so many answers that do not make one block, the block may be like that.
const DISPUTES: u8 = 3;
/// How often the pause doubles after which a block is asked for again that nobody sent: to 6 s, and
/// for blocks that are far behind to 51 s.
const DOUBLINGS: (u8, u8) = (5, 8);
/// Blocks behind the live one that are not far behind.
const NEAR: u64 = 64;
/// After so many times who waits for no block in particular asks for one that is far behind again
/// only when another peer has connected.
const TRIES: u8 = 6;
/// After so many times it is not said to be missing any more.
const FEW: u8 = 3;
const NEVER: Timestamp = Timestamp::from_nanos(u64::MAX);
/// Candidates that are looked at in vain, for want of a peer, before the rest is left for later.
const MAX_LOOKS: usize = 8;

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

/// Why a peer is not asked now.
#[derive(Debug, Clone, Copy)]
struct Passed {
    until: Timestamp,
    /// The blocks that it keeps, if it does not keep what it was asked for: none, if the first is
    /// above the last. `None`: it keeps it, or has not said.
    keeps: Option<(u64, u64)>,
}

impl Passed {
    /// Whether it has said that it does not keep a block.
    fn lacks(&self, block: u64) -> bool {
        self.keeps.is_some_and(|(first, last)| !(first..=last).contains(&block))
    }
}

/// A block that was asked for in vain.
#[derive(Debug, Clone, Copy, Default)]
struct PutOff {
    times: u8,
    until: Timestamp,
    /// Answers of which the Seal said that they are no block.
    disputes: u8,
}

/// Messages of one block, in order.
pub(in crate::protocol) type Messages = Vec<(MessageKey, VerifiedMessage)>;

/// A block that has come before its turn.
#[derive(Debug)]
struct Held {
    from: PeerKey,
    messages: Messages,
    bytes: usize,
}

/// What [`Parts`](super::parts::Parts) makes of a part.
pub(super) enum BlockStep {
    /// The message is whole and yet to be verified.
    Whole(MessageKey, Kind, Vec<u8>),
    /// Nothing more is to be done.
    Done(Outcome),
}

/// What becomes of a message of a block.
pub(super) enum Took {
    /// It waits for the rest, or its block for its turn.
    Waits,
    /// The block is whole.
    Block(Messages),
    /// Messages of a block that is not judged here; `end`: it is at its end.
    Some { messages: Messages, end: bool },
}

/// Where blocks are missing.
struct Range {
    low: u64,
    high: u64,
    live: u64,
}

/// The asking side.
#[derive(Debug)]
pub(super) struct CatchUp {
    config: CatchUpConfig,
    verified: Option<u64>,
    /// The first block that is needed by who verifies none.
    floor: Option<u64>,
    streams: Vec<Stream>,
    /// Blocks that are whole and before their turn.
    held: BTreeMap<u64, Held>,
    /// There was no memory for a message: only the first missing block is asked for until some has
    /// been handed on.
    is_full: bool,
    /// Bytes of a block, about.
    size: usize,
    /// The newest open block, and since when.
    live: Option<(u64, Timestamp)>,
    /// The first block that is missing, and since when.
    missing: Option<(u64, Timestamp)>,
    /// The last block that is missing.
    last: u64,
    passed: BTreeMap<PeerKey, Passed>,
    /// The first block that connected peers keep, as they said when they greeted, and until when they
    /// are taken to keep no earlier one; none at all: [`u64::MAX`].
    keep_from: BTreeMap<PeerKey, (u64, Timestamp)>,
    put_off: BTreeMap<u64, PutOff>,
    gap: Option<(u64, u64)>,
    /// When to look again.
    at: Option<Timestamp>,
    last_nonce: u64,
}

impl CatchUp {
    pub(super) const fn new(config: CatchUpConfig) -> Self {
        Self {
            config,
            verified: None,
            floor: None,
            streams: Vec::new(),
            held: BTreeMap::new(),
            is_full: false,
            size: FIRST_SIZE,
            live: None,
            missing: None,
            last: 0,
            passed: BTreeMap::new(),
            keep_from: BTreeMap::new(),
            put_off: BTreeMap::new(),
            gap: None,
            at: None,
            last_nonce: 0,
        }
    }

    /// See [`CatchUpState`].
    pub(super) fn state(&self) -> CatchUpState {
        // A block that was asked for again and again may be one that nobody ever sent.
        let asked = |block: &u64| self.put_off.get(block).map_or(0, |put_off| put_off.times);
        let first = self.missing.map(|(first, _)| first);
        let first = first.filter(|first| self.verified.is_some() || asked(first) < FEW);
        let missing = first.map(|first| (first, self.last.max(first)));
        CatchUpState { verified: self.verified, missing, gap: self.gap }
    }

    /// When [`step`](Self::step) has something to do.
    pub(super) const fn next_timeout(&self) -> Option<Timestamp> {
        self.at
    }

    /// Whether something is asked for.
    pub(super) fn is_pending(&self) -> bool {
        self.streams.iter().any(|stream| stream.asked.is_some())
    }

    /// The application's verified head is `block`.
    pub(super) fn verified(&mut self, block: u64) {
        self.verified = Some(block);
        self.is_full = false;
        self.held.retain(|held, _| *held > block);
    }

    /// Who verifies nothing needs no block below this one.
    pub(super) const fn begin(&mut self, block: u64) {
        self.floor = Some(block);
    }

    /// There are no blocks above `high`: somebody had lied.
    pub(super) fn forget_above(&mut self, high: u64) {
        self.held.split_off(&high.saturating_add(1));
        self.streams.retain(|stream| stream.place.block <= high);
    }

    /// A peer has connected: it may keep what others do not.
    pub(super) fn connected(&mut self, peer: PeerKey) {
        self.passed.remove(&peer);
        self.keep_from.remove(&peer);
        self.put_off.clear();
    }

    /// A peer that greets says which whole blocks it keeps: it is not asked in vain for earlier ones.
    pub(super) fn told(&mut self, ctx: &Ctx, peer: PeerKey, (first, last): (u64, u64)) {
        if ctx.peers.is_connected(peer) {
            let first = if first <= last { first } else { u64::MAX };
            self.keep_from.insert(peer, (first, ctx.now + GREETED));
        }
    }

    /// Whether a peer has greeted with blocks that are all above this one.
    fn lacks(&self, peer: &PeerKey, block: u64) -> bool {
        self.keep_from.get(peer).is_some_and(|(first, _)| block < *first)
    }

    /// The connection to a peer is gone.
    pub(super) fn disconnected(&mut self, peer: PeerKey) {
        self.passed.remove(&peer);
        self.keep_from.remove(&peer);
        self.streams.retain(|stream| stream.peer != peer);
    }

    /// The last block that is handed on now.
    fn hand_on_to(&self) -> u64 {
        self.verified.map_or(u64::MAX, |verified| verified.saturating_add(self.config.ahead))
    }

    /// A block that was held, and whose turn it is now.
    pub(super) fn next_held(&mut self) -> Option<(PeerKey, Messages)> {
        let turn = self.hand_on_to();
        let next = self.held.first_entry().filter(|held| *held.key() <= turn)?;
        let Held { from, messages, .. } = next.remove();
        Some((from, messages))
    }

    /// Where blocks may be missing, if anywhere.
    fn range(&mut self, ctx: &Ctx) -> Option<Range> {
        let live = ctx.window.opened()?;
        let high = live.checked_sub(1)?;
        let floor = match self.floor {
            None => live,
            // The window was moved there by a lie, which may have hidden what came before.
            Some(floor) if floor > live.saturating_add(1) => live.saturating_sub(NEAR),
            Some(floor) => floor,
        };
        let (low, high) = match self.verified {
            Some(verified) => {
                let far = self.config.ahead.saturating_mul(self.config.questions.max(1) as u64);
                (verified.checked_add(1)?, high.min(verified.saturating_add(far)))
            }
            None => (floor.max(live.saturating_sub(self.config.blocks as u64)), high),
        };
        self.floor = Some(floor);
        (low <= high).then_some(Range { low, high, live })
    }

    /// Bytes that have come and wait.
    fn bytes(&self) -> usize {
        let coming: usize = self.streams.iter().map(Stream::bytes).sum();
        coming + self.held.values().map(|held| held.bytes).sum::<usize>()
    }

    /// Bytes of blocks that are whole and wait for their turn.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.held.values().map(|held| held.bytes).sum()
    }

    /// The most that there may be of those.
    fn budget(&self) -> usize {
        (self.config.memory / 2).max(MAX_MESSAGE_LEN)
    }

    /// Asks for what is missing, if it is time to.
    pub(super) fn step(&mut self, ctx: &mut Ctx, archive: &Archive) {
        // What is given up makes another block the first, so this comes to an end.
        while self.look(ctx, archive) {}
    }

    /// The same; says whether blocks were given up, so that there is more to ask for.
    fn look(&mut self, ctx: &mut Ctx, archive: &Archive) -> bool {
        self.at = None;
        // Without an archive of its own a node cannot tell what it lacks.
        if !ctx.config.repair.enabled || self.config.memory == 0 {
            return false;
        }
        // On gossip alone nobody asks over the overlay, and no answer would be taken.
        let range = self.range(ctx).filter(|_| ctx.mode != Mode::Gossip);
        let Some(Range { low, high, live }) = range else {
            self.level(ctx);
            return false;
        };
        let now = ctx.now;
        if self.live.is_none_or(|(block, _)| block != live) {
            self.live = Some((live, now));
        }
        let late = |stream: &Stream| stream.asked.is_some_and(|asked| asked.until <= now);
        let silent: Vec<PeerKey> =
            self.streams.iter().filter(|s| late(s)).map(|s| s.peer).collect();
        silent.into_iter().for_each(|peer| self.drop_peer(now, peer));
        self.streams.retain(|stream| stream.last >= low);
        self.put_off.retain(|block, _| (low..=high).contains(block) && !archive.was_whole(*block));
        let lacks =
            |me: &Self, block: u64| !archive.was_whole(block) && !me.held.contains_key(&block);
        // Who waits for no block in particular does not wait for those that nobody sends.
        let waits = self.verified.is_some();
        let first = (low..=high).find(|b| lacks(self, *b) && (waits || !self.is_put_off(now, *b)));
        let Some(first) = first else {
            self.level(ctx);
            self.at = self.next_put_off(now);
            return false;
        };
        if self.missing.is_none_or(|(block, _)| block != first) {
            self.missing = Some((first, now));
        }
        self.last = live.saturating_sub(1);
        if self.gap.is_some_and(|(gap, _)| gap != first) {
            self.tell_gap(ctx, None);
        }
        self.passed.retain(|_, passed| {
            now < passed.until && (passed.keeps.is_none() || passed.lacks(first))
        });
        self.keep_from.retain(|_, (_, until)| now < *until);
        self.go_on(ctx);
        let patience = self.live.map(|(_, since)| since + PATIENCE).filter(|at| *at > now);
        // Of the block before the live one repair may still bring what lacks.
        let last = if patience.is_some() { high.min(live.saturating_sub(2)) } else { high };
        let judge_at = self.assign(ctx, first, low..=last, &lacks);
        let streams = self.streams.iter().filter_map(|stream| match (&stream.asked, stream.busy) {
            (Some(asked), _) => Some(asked.until),
            (None, Some((until, _))) => Some(until),
            (None, None) => None,
        });
        let passed = self.passed.values().map(|passed| passed.until);
        let greeted = self.keep_from.values().filter(|(from, _)| first < *from);
        let passed = passed.chain(greeted.map(|(_, until)| *until));
        let put_off = self.next_put_off(now);
        let all = streams.chain(passed).chain(put_off).chain(patience).chain(judge_at);
        self.at = all.min();
        judge_at == Some(now)
    }

    /// When a block that is put off is asked for again.
    fn next_put_off(&self, now: Timestamp) -> Option<Timestamp> {
        let all = self.put_off.values().map(|put_off| put_off.until);
        all.filter(|until| *until > now && *until < NEVER).min()
    }

    fn is_put_off(&self, now: Timestamp, block: u64) -> bool {
        self.put_off.get(&block).is_some_and(|put_off| now < put_off.until)
    }

    /// Asks for the rest of blocks of which a part has come.
    fn go_on(&mut self, ctx: &mut Ctx) {
        let now = ctx.now;
        for stream in &mut self.streams {
            if stream.asked.is_none() && stream.busy.is_none_or(|(until, _)| now >= until) {
                self.last_nonce += 1;
                ask(ctx, stream, self.last_nonce);
            }
        }
    }

    /// Asks for blocks that nobody is asked for yet. Says when to judge again whether the first is
    /// lost.
    fn assign(
        &mut self,
        ctx: &mut Ctx,
        first: u64,
        range: RangeInclusive<u64>,
        lacks: &dyn Fn(&Self, u64) -> bool,
    ) -> Option<Timestamp> {
        let now = ctx.now;
        let mut judge_at = None;
        let (mut from, mut looks) = (*range.start(), 0);
        while self.streams.len() < self.config.questions.max(1) {
            let is_free = |me: &Self, block: u64| {
                let asked = me.streams.iter().any(|stream| stream.covers(block));
                lacks(me, block) && !asked && !me.is_put_off(now, block)
            };
            let Some(block) = (from..=*range.end()).find(|block| is_free(self, *block)) else {
                break;
            };
            let room = !self.is_full && self.bytes() < self.budget() / 2;
            if block != first && !room {
                break;
            }
            let peer = self.choose(ctx, block, block == first);
            if block == first {
                judge_at = self.judge_gap(ctx, first, peer.is_none());
            }
            let Some(peer) = peer else {
                // Of what lies behind a block that lacks an application has no use.
                looks += 1;
                if self.verified.is_some() || looks >= MAX_LOOKS {
                    break;
                }
                from = block.saturating_add(1);
                continue;
            };
            let count = (ANSWER / self.size.max(1)).clamp(1, self.config.ahead.max(1) as usize);
            let end = range.end().min(&block.saturating_add(count as u64 - 1)).to_owned();
            let last = (block..=end).take_while(|block| is_free(self, *block)).last();
            let mut stream = Stream::new(now, peer, block, last.unwrap_or(block));
            self.last_nonce += 1;
            ask(ctx, &mut stream, self.last_nonce);
            self.streams.push(stream);
        }
        judge_at
    }

    /// A peer that can be asked for a block.
    fn choose(&self, ctx: &Ctx, block: u64, is_first: bool) -> Option<PeerKey> {
        let most = MAX_PER_PEER + usize::from(is_first);
        let unfit = |peer: PeerKey| {
            let passed = self.passed.get(&peer);
            passed.is_some_and(|passed| passed.keeps.is_none() || passed.lacks(block))
                || self.lacks(&peer, block)
                || self.streams.iter().filter(|stream| stream.peer == peer).count() >= most
        };
        let seed = [u64::from(ctx.me().number()), block, self.last_nonce];
        if self.passed.len() >= MAX_PASSED { None } else { draw_peer(ctx, &seed, unfit) }
    }

    /// Asks others than a peer for a while.
    fn pass(&mut self, until: Timestamp, peer: PeerKey, keeps: Option<(u64, u64)>) {
        if self.passed.len() < MAX_PASSED || self.passed.contains_key(&peer) {
            self.passed.insert(peer, Passed { until, keeps });
        }
    }

    /// Drops what a peer is asked for, and asks others for a while.
    fn drop_peer(&mut self, now: Timestamp, peer: PeerKey) {
        self.streams.retain(|stream| stream.peer != peer);
        self.pass(now + PAUSE, peer, None);
    }

    /// A block was asked for in vain. Says how often before.
    fn defer(&mut self, now: Timestamp, block: u64) -> u8 {
        let near = self.last.saturating_sub(block) < NEAR;
        let most = if near { DOUBLINGS.0 } else { DOUBLINGS.1 };
        let put_off = self.put_off.entry(block).or_default();
        let times = put_off.times;
        let given_up = self.verified.is_none() && !near && times >= TRIES;
        put_off.until = if given_up { NEVER } else { now + BUSY * (1 << times.min(most)) };
        put_off.times = times.saturating_add(1);
        times
    }

    /// Says that the first missing block is lost, once peers have told that they do not keep it; or
    /// when to judge again.
    fn judge_gap(&mut self, ctx: &mut Ctx, first: u64, nobody_is_left: bool) -> Option<Timestamp> {
        let lacking = || self.passed.iter().filter(|(_, passed)| passed.lacks(first));
        // Who has said so in its greeting was not asked.
        let greeted = || self.keep_from.iter().filter(|(_, (from, _))| first < *from);
        let greeted_only = greeted().filter(|(peer, _)| !self.passed.contains_key(peer)).count();
        let count = lacking().count() + greeted_only;
        if self.gap.is_some() || count == 0 || !(count >= GAP_AFTER || nobody_is_left) {
            return None;
        }
        let settled = self.missing.map_or(ctx.now, |(_, since)| since + SETTLING);
        if count < GAP_AFTER && ctx.now < settled {
            return Some(settled);
        }
        let kept = lacking().filter_map(|(_, passed)| passed.keeps);
        let later = kept.filter(|(from, to)| from <= to && *from > first).map(|(from, _)| from);
        let later = later.chain(greeted().map(|(_, (from, _))| *from));
        let last = later.min().unwrap_or(u64::MAX).saturating_sub(1).min(self.last);
        self.tell_gap(ctx, Some((first, last)));
        if self.verified.is_none() {
            // Nothing waits for it.
            let lost = PutOff { times: u8::MAX, until: NEVER, disputes: 0 };
            self.put_off.extend((first..=last).map(|block| (block, lost)));
            return Some(ctx.now);
        }
        None
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
        self.streams.clear();
        self.missing = None;
    }
}

/// Asks for what is next of a stream.
fn ask(ctx: &mut Ctx, stream: &mut Stream, nonce: u64) {
    let stream::Place { block, message, have, .. } = stream.place;
    let request = BlocksRequest { nonce, block, message, have, last: stream.last };
    let payload = Payload::Control(Control::BlocksRequest(request).to_bytes());
    ctx.egress.push(Transmit { to: stream.peer, lane: Lane::Data, payload });
    ctx.counters.blocks_requested += 1;
    stream.ask(ctx.now, nonce);
}
