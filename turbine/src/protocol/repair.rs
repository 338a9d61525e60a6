//! Repair: finding out that something is missing, asking for it, answering those who ask.
//!
//! ```text
//! shreds ──▶ wants ◀── tips of peers       a set that went quiet, a gap, a tail of which
//!              │ quiet, due                peers tell
//!              ▼
//!           requests ──▶ peers' stores ──▶ shreds, validated and reassembled as any others
//!                    └─▶ peers' gossip ──▶ the message in parts, verified when it is whole
//! ```
//!
//! A peer that has a message from gossip has no shreds of it, since gossip carries no signature
//! of the leader over them. It answers with the message itself, whose own signature is checked.
//! Such an answer is hearsay in one respect: gossip's frags name no Env, so the attempt under
//! which the peer has it may be a guess. The sequencer settles what belongs together.
//!
//! # Guarantees
//! * Nothing that a peer says is believed but that it can be asked: every shred of an answer
//!   is checked like one that came by itself, every message like one of gossip, and taken only
//!   from whom it was asked.
//! * Repaired shreds are never forwarded, and a relay owes nothing of a set that needed them:
//!   whoever was below it repairs for itself, from peers that are whole.
//! * Whatever is lost, nobody is asked before a message has been quiet for
//!   [`RepairConfig::quiet`]: a lossless network asks nothing.
//! * Memory: [`RepairConfig::memory`] for the sets that are kept, 1,024 wants, 128 requests,
//!   256 round-trip times, a budget for as many peers as asked within the last second, and of
//!   messages in parts four at a time as they come, with one that is sent: 50 MiB at most.
//! * No work grows with the number of members, and without anything open or missing there is
//!   no timer.
//!
//! Quiet is counted for a message and not for a set: a leader sends the data shreds of all
//! sets before any coding shred, so a set of a long message is quiet for long in good order.
//!
//! The source is Solana's repair (a bitmap-less request for one shred) and Turbine's way of
//! noticing gaps; asking for k − have shreds at once, with what is there as a bitmap, saves a
//! round trip a shred. Tips are a small anti-entropy: without them nobody notices the loss of
//! what was sent last.

mod answering;
mod asking;
mod messages;
mod parts;
mod store;
mod wants;

use std::collections::BTreeMap;
use std::time::Duration;

use fragcast_shredder::{MessageKey, RecoveredSet, SetHeader, SetKey, ShreddedMessage};

use super::Protocol;
use crate::gossip::Mode;
use crate::health::Missing;
use crate::membership::PeerIndex;
use crate::time::Timestamp;
use answering::Budgets;
use asking::Requests;
use messages::Encoded;
use store::{CompleteSet, Opening, Store};
use wants::Wants;

/// Configuration of repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairConfig {
    /// Whether this node asks, answers and tells what it has.
    pub enabled: bool,
    /// Without news of a message for this long it is asked for.
    pub quiet: Duration,
    /// How often this node tells what it has while something is going on.
    pub tips_every: Duration,
    /// To how many peers at a time.
    pub tips_to: usize,
    /// A block is told of until so long after its last message.
    pub recent: Duration,
    /// The newest block, while it has no Seal, until so long after.
    pub open: Duration,
    /// Bytes of complete sets that are kept.
    pub memory: usize,
    /// Patience with a peer whose round-trip time is not known.
    pub first_retry: Duration,
    /// Requests without an answer at a time, in all.
    pub outstanding: usize,
    /// Of those, to one peer.
    pub outstanding_per_peer: usize,
    /// A message is given up after so many tries without a new set.
    pub tries: u8,
    /// And taken up again, on news of it, so long after.
    pub pause: Duration,
    /// What one peer is answered at most, bits per second.
    pub answer_bps: u64,
    /// And at once, in bytes.
    pub answer_burst: usize,
}

impl Default for RepairConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            quiet: Duration::from_millis(100),
            tips_every: Duration::from_millis(50),
            tips_to: 4,
            recent: Duration::from_secs(2),
            // A slot of Ethereum's: the longest that a block is under way.
            open: Duration::from_secs(12),
            memory: 64 * 1024 * 1024,
            first_retry: Duration::from_millis(200),
            outstanding: 64,
            outstanding_per_peer: 16,
            tries: 12,
            pause: Duration::from_secs(5),
            answer_bps: 40_000_000,
            answer_burst: 512 * 1024,
        }
    }
}

/// The state of repair.
pub(super) struct Repair {
    wants: Wants,
    requests: Requests,
    round_trips: BTreeMap<PeerIndex, Duration>,
    store: Store,
    budgets: Budgets,
    encoded: Encoded,
    /// When tips are due.
    tips_at: Option<Timestamp>,
    /// How often they were sent.
    ticks: u64,
    /// The older opening that was told of last.
    cursor: Opening,
}

impl Repair {
    pub(super) fn new(config: &RepairConfig) -> Self {
        Self {
            wants: Wants::default(),
            requests: Requests::default(),
            round_trips: BTreeMap::new(),
            store: Store::new(config.memory),
            budgets: Budgets::new(config),
            encoded: Encoded::default(),
            tips_at: None,
            ticks: 0,
            cursor: (0, 0),
        }
    }

    /// When [`Protocol::repair_timeout`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        self.wants.at().into_iter().chain(self.tips_at).min()
    }

    /// Whether this node tells what it has, because something is going on: then others do too.
    pub(super) fn is_telling(&self) -> bool {
        self.tips_at.is_some()
    }

    /// Since when something is missing.
    pub(super) fn missing(&self) -> Missing {
        self.wants.missing()
    }

    /// Whether something is wanted and not given up.
    pub(super) fn is_pending(&self) -> bool {
        self.wants.at().is_some()
    }

    pub(super) fn set_window(&mut self, low: u64, high: u64) {
        self.wants.set_window(low, high);
        self.requests.settle(|asked| !(low..=high).contains(&asked.message.block));
        self.store.set_window(low, high);
    }

    pub(super) fn supersede(&mut self, block: u64, attempt: u8) {
        self.wants.supersede(block, attempt);
        self.requests
            .settle(|SetKey { message, .. }| message.block == block && message.attempt < attempt);
        self.store.supersede(block, attempt);
    }

    /// The overlay is left alone: nothing is asked for or told any more.
    pub(super) fn rest(&mut self) {
        self.wants.clear();
        self.requests.settle(|_| true);
        self.tips_at = None;
    }

    pub(super) fn forget_anchor(&mut self) {
        self.wants.forget_anchor();
    }

    pub(super) fn anchor(&mut self, block: u64) {
        self.wants.anchor(block);
    }

    /// Requests whose time is not up.
    #[cfg(test)]
    pub(super) fn requests_waiting(&self, now: Timestamp) -> usize {
        self.requests.waiting(now)
    }

    /// The connection to a peer is gone, and with it all that it could answer.
    pub(super) fn forget_peer(&mut self, peer: PeerIndex) {
        self.requests.forget(peer);
    }
}

impl Protocol {
    /// Does what is due.
    pub(super) fn repair_timeout(&mut self, now: Timestamp) {
        if self.repair.wants.at().is_some_and(|at| at <= now) {
            self.ask_what_is_due(now);
        }
        if self.repair.tips_at.is_some_and(|at| at <= now) {
            self.send_tips(now);
        }
    }

    /// When a message is asked for if nothing more comes of it. Nodes that lost the same shred
    /// do not ask in the same moment.
    fn quiet_until(&self, now: Timestamp, key: &MessageKey) -> Timestamp {
        let quiet = self.config.repair.quiet;
        let spread = u64::try_from(quiet.as_nanos()).unwrap_or(u64::MAX) / 4;
        let place = u64::from(key.attempt) << 16 | u64::from(key.message);
        let jitter = mix(&[self.me.into(), key.block, place]) % spread.max(1);
        now + quiet + Duration::from_nanos(jitter)
    }

    /// A new shred was kept; it came by itself from a peer, or by repair.
    pub(super) fn note_shred(
        &mut self,
        now: Timestamp,
        header: &SetHeader,
        live_from: Option<PeerIndex>,
    ) {
        if !self.config.repair.enabled {
            return;
        }
        let key = header.message_key();
        let due = self.quiet_until(now, &key);
        let (reassembler, fallback) = (&self.reassembler, &self.fallback);
        let has = |key: &MessageKey| reassembler.is_done(key) || fallback.has(key);
        if fallback.has(&key) {
            // Gossip has brought it: what shreds of it still come need no help.
            return;
        }
        self.repair.wants.shred(now, key, live_from, due, has);
    }

    /// A set is complete, and perhaps its message with it.
    pub(super) fn note_complete(&mut self, now: Timestamp, header: &SetHeader) {
        if !self.config.repair.enabled {
            return;
        }
        let key = header.message_key();
        let reassembler = &self.reassembler;
        if reassembler.is_done(&key) {
            self.repair_settled(&key);
            return;
        }
        self.repair.requests.settle(|asked| *asked == header.set_key());
        if let Some(want) = self.repair.wants.messages.get_mut(&key) {
            want.progress = true;
            // All that was asked for has come: on to the next sets at once.
            if want.tries > 0 && !self.repair.requests.any_of(now, &key) {
                want.due = now;
                self.repair.wants.wake(now);
            }
        }
    }

    /// The leader's parity is inconsistent, or its message is none: nothing of it is asked for
    /// or served any more.
    pub(super) fn note_refused(&mut self, key: &MessageKey) {
        self.repair.store.refuse(key);
        self.repair_settled(key);
    }

    /// A message is here, or will never be: nobody is asked for it any more.
    pub(super) fn repair_settled(&mut self, key: &MessageKey) {
        let (reassembler, fallback) = (&self.reassembler, &self.fallback);
        self.repair.requests.settle(|asked| asked.message == *key);
        self.repair.wants.done(key, |key| reassembler.is_done(key) || fallback.has(key));
    }

    /// Keeps a set that was received, to answer others.
    pub(super) fn keep(&mut self, now: Timestamp, set: Box<RecoveredSet>) {
        if self.config.repair.enabled {
            self.keep_set(now, CompleteSet::Recovered(set));
        }
    }

    /// Keeps a message of this node's own.
    pub(super) fn keep_own(&mut self, now: Timestamp, message: ShreddedMessage) {
        if self.config.repair.enabled {
            message.sets.into_iter().for_each(|set| self.keep_set(now, CompleteSet::Own(set)));
        }
    }

    fn keep_set(&mut self, now: Timestamp, set: CompleteSet) {
        if self.repair.store.insert(now, set) {
            self.tell(now);
        }
    }

    /// There is something to tell of.
    fn tell(&mut self, now: Timestamp) {
        if self.repair.tips_at.is_none() && self.mode() != Mode::Gossip {
            self.repair.tips_at = Some(now + self.tips_interval());
        }
    }

    fn tips_interval(&self) -> Duration {
        // Not zero: time must move on between two timeouts.
        self.config.repair.tips_every.max(Duration::from_millis(1))
    }

    /// Bytes of complete sets that are kept to answer requests.
    pub const fn repair_bytes(&self) -> usize {
        self.repair.store.bytes()
    }

    /// A connected peer, other than this node and those `except`, that `seed` chooses.
    ///
    /// Draws first, and then looks along the table from the last draw on: a few connected
    /// peers among many members are found without looking at all of them.
    fn draw_peer(&self, seed: &[u64], except: impl Fn(PeerIndex) -> bool) -> Option<PeerIndex> {
        const DRAWS: u64 = 8;
        const STEPS: usize = 256;
        let members = self.peers.len() as u64;
        let fits = |peer: PeerIndex| self.can_ask(peer) && !except(peer);
        let state = mix(seed);
        let draw = |n: u64| (mix(&[state, n]) % members) as PeerIndex;
        let along = (0..self.peers.len().min(STEPS) as u64)
            .map(|step| ((u64::from(draw(DRAWS)) + step) % members) as PeerIndex);
        (0..DRAWS).map(draw).chain(along).find(|peer| fits(*peer))
    }

    /// Whether a peer can be asked anything.
    fn can_ask(&self, peer: PeerIndex) -> bool {
        let state = self.peers.get(peer as usize);
        peer != self.me && state.is_some_and(|state| state.connected && !state.barred)
    }
}

/// A hash of a few numbers, for choices that need no secrecy: SplitMix64's finaliser (Steele,
/// Lea, Flood 2014) over each in turn.
fn mix(words: &[u64]) -> u64 {
    words.iter().fold(0x9e37_79b9_7f4a_7c15, |state, word| {
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}
