//! Repair: detecting missing messages, asking for them, and answering peers that ask.
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
mod requests;
mod store;
mod tips;
mod wants;

use std::collections::BTreeMap;
use std::time::Duration;

use fragcast_shredder::{MessageKey, RecoveredSet, SetHeader, SetKey, ShreddedMessage};

use super::config::RepairConfig;
use super::ctx::Ctx;
use super::delivery::Here;
use crate::gossip::Mode;
use crate::health::Missing;
use crate::peer::PeerKey;
use crate::time::Timestamp;
use answering::Budgets;
pub(super) use messages::ENCODING_SHARE;
use messages::Encoded;
pub(super) use parts::PartStep;
use requests::Requests;
use store::{CompleteSet, Store};
use tips::Telling;
use wants::Wants;

/// The state of repair.
pub(super) struct Repair {
    wants: Wants,
    requests: Requests,
    round_trips: BTreeMap<PeerKey, Duration>,
    store: Store,
    budgets: Budgets,
    encoded: Encoded,
    telling: Telling,
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
            telling: Telling::default(),
        }
    }

    /// When [`timeout`](Self::timeout) has something to do.
    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        self.wants.at().into_iter().chain(self.telling.at()).min()
    }

    /// Makes the changes that are due.
    pub(super) fn timeout(&mut self, ctx: &mut Ctx, here: Here<'_>) {
        if self.wants.at().is_some_and(|at| at <= ctx.now) {
            self.ask_what_is_due(ctx, here);
        }
        if self.telling.at().is_some_and(|at| at <= ctx.now) {
            self.send_tips(ctx);
        }
    }

    /// Whether this node tells what it has, because something is going on: then others do too.
    pub(super) const fn is_telling(&self) -> bool {
        self.telling.at().is_some()
    }

    /// Since when something is missing.
    pub(super) fn missing(&self) -> Missing {
        self.wants.missing()
    }

    /// Whether something is wanted and not given up.
    pub(super) fn is_pending(&self) -> bool {
        self.wants.at().is_some()
    }

    /// Drops messages outside the window.
    pub(super) fn set_window(&mut self, low: u64, high: u64) {
        self.wants.set_window(low, high);
        self.requests.settle(|asked| !(low..=high).contains(&asked.message.block));
        self.store.set_window(low, high);
    }

    /// Drops the attempts of a block below one.
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
        self.telling.stop();
    }

    /// The window was dropped: what follows is another stretch of the chain.
    pub(super) const fn forget_anchor(&mut self) {
        self.wants.forget_anchor();
    }

    /// Blocks from `block` on are asked for, says the application.
    pub(super) fn anchor(&mut self, block: u64) {
        self.wants.anchor(block);
    }

    /// Requests whose time is not up.
    #[cfg(test)]
    pub(super) fn requests_waiting(&self, now: Timestamp) -> usize {
        self.requests.waiting(now)
    }

    /// Messages that are being put together of parts, and the bytes they have taken.
    #[cfg(test)]
    pub(super) fn assembling(&self) -> (usize, usize) {
        self.requests.assemblies.held()
    }

    /// The connection to a peer is gone, and with it all that it could answer.
    pub(super) fn disconnected(&mut self, peer: PeerKey) {
        self.requests.forget(peer);
    }

    /// A peer is none any more: its key means nobody.
    pub(super) fn forget_peer(&mut self, peer: PeerKey) {
        self.requests.forget(peer);
        self.wants.forget_peer(peer);
        self.round_trips.remove(&peer);
        self.budgets.forget(peer);
    }

    /// A new shred was kept; it came by itself from a peer, or by repair.
    pub(super) fn note_shred(
        &mut self,
        ctx: &Ctx,
        here: Here<'_>,
        header: &SetHeader,
        live_from: Option<PeerKey>,
    ) {
        if !ctx.config.repair.enabled {
            return;
        }
        let key = header.message_key();
        if here.by_gossip(&key) {
            // Gossip has brought it: what shreds of it still come need no help.
            return;
        }
        let due = quiet_until(ctx, &key);
        self.wants.shred(ctx.now, key, live_from, due, |key| here.has(key));
    }

    /// A set is complete, and perhaps its message with it.
    pub(super) fn note_complete(&mut self, ctx: &Ctx, here: Here<'_>, header: &SetHeader) {
        if !ctx.config.repair.enabled {
            return;
        }
        let key = header.message_key();
        if here.is_whole(&key) {
            self.settled(here, &key);
            return;
        }
        self.requests.settle(|asked| *asked == header.set_key());
        if let Some(want) = self.wants.messages.get_mut(&key) {
            want.progress = true;
            // All that was asked for has come: on to the next sets at once.
            if want.tries > 0 && !self.requests.any_of(ctx.now, &key) {
                want.due = ctx.now;
                self.wants.wake(ctx.now);
            }
        }
    }

    /// The leader's parity is inconsistent, or its message is none: nothing of it is asked for
    /// or served any more.
    pub(super) fn note_refused(&mut self, here: Here<'_>, key: &MessageKey) {
        self.store.refuse(key);
        self.settled(here, key);
    }

    /// A message is here, or will never be: nobody is asked for it any more.
    pub(super) fn settled(&mut self, here: Here<'_>, key: &MessageKey) {
        self.requests.settle(|asked| asked.message == *key);
        self.wants.done(key, |key| here.has(key));
    }

    /// Keeps a set that was received, to answer others.
    pub(super) fn keep(&mut self, ctx: &Ctx, set: Box<RecoveredSet>) {
        if ctx.config.repair.enabled {
            self.keep_set(ctx, CompleteSet::Recovered(set));
        }
    }

    /// Keeps a message of this node's own.
    pub(super) fn keep_own(&mut self, ctx: &Ctx, message: ShreddedMessage) {
        if ctx.config.repair.enabled {
            message.sets.into_iter().for_each(|set| self.keep_set(ctx, CompleteSet::Own(set)));
        }
    }

    fn keep_set(&mut self, ctx: &Ctx, set: CompleteSet) {
        if self.store.insert(ctx.now, set) {
            self.tell(ctx);
        }
    }

    /// There is something to tell of.
    fn tell(&mut self, ctx: &Ctx) {
        if ctx.mode != Mode::Gossip {
            self.telling.begin(ctx.now, &ctx.config.repair);
        }
    }

    /// Bytes of complete sets that are kept to answer requests.
    pub(super) const fn bytes(&self) -> usize {
        self.store.bytes()
    }
}

/// When a message is asked for if nothing more comes of it. Nodes that lost the same shred do
/// not ask in the same moment.
fn quiet_until(ctx: &Ctx, key: &MessageKey) -> Timestamp {
    let quiet = ctx.config.repair.quiet;
    let spread = u64::try_from(quiet.as_nanos()).unwrap_or(u64::MAX) / 4;
    let place = u64::from(key.attempt) << 16 | u64::from(key.message);
    let me = u64::from(ctx.me().number());
    let jitter = mix(&[me, key.block, place]) % spread.max(1);
    ctx.now + quiet + Duration::from_nanos(jitter)
}

/// A connected peer, other than this node and those `except`, that `seed` chooses.
///
/// Draws first, and then looks along the table from the last draw on: a few connected peers among
/// many members are found without looking at all of them.
pub(super) fn draw_peer(
    ctx: &Ctx,
    seed: &[u64],
    except: impl Fn(PeerKey) -> bool,
) -> Option<PeerKey> {
    const DRAWS: u64 = 8;
    const STEPS: usize = 256;
    let table = ctx.peers.table();
    let slots = table.slots() as u64;
    let fits = |peer: &PeerKey| ctx.peers.can_ask(*peer) && !except(*peer);
    let state = mix(seed);
    let draw = |n: u64| mix(&[state, n]) % slots;
    let along = (0..table.slots().min(STEPS) as u64).map(|step| (draw(DRAWS) + step) % slots);
    let drawn = (0..DRAWS).map(draw).chain(along);
    drawn.filter_map(|slot| table.at(slot as usize)).find(fits)
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
