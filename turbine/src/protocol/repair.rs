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
//! * Repaired shreds are not forwarded as they come. A relay whose set repair has completed sends
//!   what it owes of it, each shred once, to those that its trees name and that have not told to
//!   have the message, behind all fresh shreds, and only if some of the message came by itself
//!   within twice [`RepairConfig::quiet`]. So who withholds shreds makes nobody send more than if
//!   he had sent them: a set completes once, a shred has one relay in each place of its tree, and
//!   what is asked for long after is owed to nobody.
//! * Whatever is lost, nobody is asked before a message has been quiet for longer than messages of
//!   its leader are in good order, [`RepairConfig::quiet`] at most: a lossless network asks
//!   nothing. `silences.rs` says how long that is.
//! * Who answers nothing is asked once a message, and behind those that answer.
//! * Memory: [`RepairConfig::memory`] for the sets that are kept, 1,024 wants, 128 requests,
//!   256 peers that were asked, the silences of 64 leaders, 32 messages of which something may
//!   be owed, a budget for as many peers as asked within the last second, and of
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
//!
//! [`RepairConfig::quiet`]: super::RepairConfig::quiet
//! [`RepairConfig::memory`]: super::RepairConfig::memory

mod answerers;
mod answering;
mod asking;
mod choosing;
mod messages;
mod parts;
mod requests;
mod silences;
mod store;
mod tips;
mod want;
mod wants;

use std::collections::VecDeque;
use std::time::Duration;

use fragcast_shredder::{MessageKey, RecoveredSet, SetHeader, SetKey, ShreddedMessage};

use super::config::Config;
use super::ctx::Ctx;
use super::delivery::Here;
use crate::gossip::Mode;
use crate::health::Missing;
use crate::peer::PeerKey;
use crate::time::Timestamp;
use answerers::Answerers;
use answering::Budgets;
pub(super) use messages::ENCODING_SHARE;
use messages::Encoded;
pub(super) use parts::PartStep;
use requests::Requests;
use silences::{Silences, WAIT_LONG};
use store::{CompleteSet, Store};
use tips::Telling;
use want::Want;
use wants::Wants;

/// Messages of which something may still be owed.
const MAX_DEBTS: usize = 32;

/// A message that repair has completed, and of which this node may owe shreds.
struct Debt {
    message: MessageKey,
    /// When its last shred came by itself.
    live: Timestamp,
    /// Peers whose tips have it.
    told: Vec<PeerKey>,
}

/// The state of repair.
pub(super) struct Repair {
    wants: Wants,
    requests: Requests,
    answerers: Answerers,
    silences: Silences,
    debts: VecDeque<Debt>,
    store: Store,
    budgets: Budgets,
    encoded: Encoded,
    telling: Telling,
}

impl Repair {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            wants: Wants::default(),
            requests: Requests::default(),
            answerers: Answerers::default(),
            silences: Silences::default(),
            debts: VecDeque::new(),
            store: Store::new(config.repair.memory),
            budgets: Budgets::new(&config.repair, config.uplink_bps, config.guests_bps),
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
        self.answerers.forget(peer);
        self.silences.forget(peer);
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
        let due = self.quiet_until(ctx, &key, false);
        let distance = live_from.map(|from| self.distance(ctx, from));
        let live_from = live_from.zip(distance);
        self.wants.shred(ctx.now, (key, header.plan), live_from, due, |key| here.has(key));
    }

    /// A set is complete, and perhaps its message with it.
    pub(super) fn note_complete(&mut self, ctx: &Ctx, here: Here<'_>, header: &SetHeader) {
        if !ctx.config.repair.enabled {
            return;
        }
        let key = header.message_key();
        if here.is_whole(&key) {
            if let Some(want) = self.settle(here, &key) {
                self.learn(ctx, &key, &want);
            }
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
        self.settle(here, key);
    }

    fn settle(&mut self, here: Here<'_>, key: &MessageKey) -> Option<Want> {
        self.requests.settle(|asked| asked.message == *key);
        self.wants.done(key, |key| here.has(key))
    }

    /// Takes from a message that shreds have made whole how long one may be silent, or what may be
    /// owed of it.
    fn learn(&mut self, ctx: &Ctx, key: &MessageKey, want: &Want) {
        let Some(live) = want.live else { return };
        if want.repaired > 0 {
            self.debts.truncate(MAX_DEBTS - 1);
            self.debts.push_front(Debt { message: *key, live, told: want.told() });
        } else if want.since < ctx.now
            && let Some(leader) = ctx.leader_key_of(key)
        {
            // What came in one moment says nothing of silence.
            self.silences.note(ctx.now, leader, want.silence);
        }
    }

    /// Of a message of which repair has brought a part: the peers that have told to have it, if
    /// what this node owes of it can still be of use to others.
    pub(super) fn owed_but_to(&self, ctx: &Ctx, key: &MessageKey) -> Option<Vec<PeerKey>> {
        let timely = |live: &Timestamp| ctx.now.since(*live) <= 2 * ctx.config.repair.quiet;
        if let Some(want) = self.wants.messages.get(key) {
            return want.live.filter(timely).map(|_| want.told());
        }
        let debt = self.debts.iter().find(|debt| debt.message == *key);
        debt.filter(|debt| timely(&debt.live)).map(|debt| debt.told.clone())
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

    /// When a message is asked for if nothing more comes of it. Nodes that lost the same shred do
    /// not ask in the same moment. What is hearsay waits for as long as may be: a way over the peer
    /// that tells of it can be shorter than that of the first shred.
    fn quiet_until(&self, ctx: &Ctx, key: &MessageKey, hearsay: bool) -> Timestamp {
        let most = ctx.config.repair.quiet;
        let place = u64::from(key.attempt) << 16 | u64::from(key.message);
        let draw = mix(&[ctx.me().number().into(), key.block, place]);
        let quiet = match hearsay || (draw >> 32).is_multiple_of(WAIT_LONG) {
            true => most,
            false => {
                let leader = ctx.leader_key_of(key);
                self.silences.quiet(leader, ctx.round_trips.farthest(), most)
            }
        };
        let spread = u64::try_from(quiet.as_nanos()).unwrap_or(u64::MAX) / 4;
        ctx.now + quiet + Duration::from_nanos(draw % spread.max(1))
    }

    /// Bytes of complete sets that are kept to answer requests.
    pub(super) const fn bytes(&self) -> usize {
        self.store.bytes()
    }
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
pub(super) fn mix(words: &[u64]) -> u64 {
    words.iter().fold(0x9e37_79b9_7f4a_7c15, |state, word| {
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}
