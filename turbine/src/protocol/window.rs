//! The window of blocks that are taken.
//!
//! From [`WINDOW_PAST`] below the newest Seal to [`WINDOW_FUTURE`] above the newest Env. It follows
//! verified messages of its own blocks, and moves elsewhere only on evidence, never on a shred by
//! itself:
//!
//! | evidence | moves the window |
//! |---|---|
//! | the operator ([`Window::move_to`]) | anywhere, at once; peers are not asked for ten seconds |
//! | the application's verified head ([`Window::verified`]) | forward to it, at once |
//! | a weighted majority of the peers' tips ([`Claims`]) | anywhere possible, at once |
//! | verified messages of other blocks ([`Sightings`]) | anywhere possible, by the word of one or two gateways, see [`Window::sighted`] |
//!
//! *Possible* is what may have been built since the verified head: as many blocks as fit into the
//! time since then, see [`Reach`].
//!
//! # Who lies
//! * Somebody without any key can send recordings and junk. Neither moves the window: junk is
//!   signed by nobody, and what its leader sent long ago is not *fresh*, as its signed header says.
//! * A gateway can sign any block of its terms. It moves those that know nothing better (no head,
//!   no peers' tips), and they come back by the majority, or by the messages of two others.
//! * The majority of the peers, by weight, is believed, within what is possible.
//!
//! A leap within the window, over blocks of which nothing is known, has but the gateway behind it
//! that signed it.
//!
//! A window that has nothing but a stale message or a stored head behind it is *not backed*: then
//! any other gateway is believed at once. With one gateway behind it, or after
//! [`Config::reanchor`](super::Config::reanchor) without progress, others are listened to.

mod claims;
mod sightings;

use std::time::Duration;

use alloy_primitives::Address;
use fragcast_shredder::Kind;

use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::time::Timestamp;

use claims::Claims;
use sightings::{Backing, Sightings};

/// Blocks below the newest Seal that are still taken.
pub const WINDOW_PAST: u64 = 64;
/// Blocks above the newest Env that are taken already: what op-node keeps of the schedule.
pub const WINDOW_FUTURE: u64 = 7;
/// A message is fresh if its leader's clock said so much more or less than ours when it was sent.
const FRESH: Duration = Duration::from_secs(10);
/// A verified head this far ahead of our clock says that chain and clock do not go together: chains
/// of tests count their own time.
const CLOCK_SLACK: Duration = Duration::from_secs(2);
/// Blocks beyond those that time allows: for clocks that differ and blocks that come in a row.
const REACH_SLACK: u64 = 2 * WINDOW_PAST;
/// How long the operator's word counts more than the peers'.
const HOLD: Duration = Duration::from_secs(10);
/// How much faster than [`block_time`](super::Config::block_time) a chain may be.
const SPEED_SLACK: u64 = 2;

/// What a block is to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is taken.
    Inside,
    /// It is not, but this node may be the one who is elsewhere: an Env or Seal of it is looked at.
    Elsewhere,
    /// It is not.
    Outside(Outcome),
}

/// A verified message, as evidence of where the chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) block: u64,
    pub(super) kind: Kind,
    /// The gateway that signed it.
    pub(super) gateway: Address,
    pub(super) age: Age,
}

/// Whether a message was made just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// Its leader sent it just now by the leader's signed clock, or, if it came without shreds, it
    /// is an Env with a timestamp of this minute.
    Fresh,
    /// It came without shreds, and whether the chain's timestamps say anything is not known.
    Unknown,
    /// It is a recording.
    Old,
}

/// The blocks that may exist, given the application's verified head: some below it, and above it
/// as many as can have been built since, at [`SPEED_SLACK`] times the chain's speed.
#[derive(Debug, Clone, Copy)]
struct Reach {
    head: u64,
    /// When the head was built; `None` if the chain's time is not ours.
    built_at: Option<Timestamp>,
}

impl Reach {
    fn bounds(&self, now: Timestamp, block_time: Duration) -> (u64, u64) {
        let low = self.head.saturating_sub(WINDOW_PAST);
        let Some(built_at) = self.built_at else { return (low, u64::MAX) };
        let blocks = now.since(built_at).as_nanos() / block_time.as_nanos().max(1);
        let blocks = u64::try_from(blocks).unwrap_or(u64::MAX).saturating_mul(SPEED_SLACK);
        (low, self.head.saturating_add(blocks).saturating_add(REACH_SLACK))
    }
}

/// Where the chain stands.
#[derive(Debug)]
pub(super) struct Window {
    reanchor: Duration,
    block_time: Duration,
    opened: Option<u64>,
    sealed: Option<u64>,
    /// A block far above what is open whose Seal came before its Env: it counts with that.
    leapt: Option<u64>,
    /// The newest block of which a message was taken, whatever the application said.
    taken: Option<u64>,
    /// When a fresh message last opened or sealed a newer block, or the window was moved.
    progress_at: Timestamp,
    /// Who has signed what stands behind the window.
    backing: Backing,
    reach: Option<Reach>,
    sightings: Sightings,
    /// What peers tell; kept here because it decides about the window, see [`Window::told`].
    claims: Claims,
    /// The newest block that a majority of peers told.
    majority: Option<(u64, Timestamp)>,
    /// How many gateways there are.
    gateways: usize,
    /// Whether some of what stands behind the window was fresh.
    proven: bool,
    /// Whether an Env has shown that the chain's time is ours.
    keeps_time: bool,
    /// Until then peers are not believed.
    held_until: Timestamp,
    /// It was somewhere else before it was moved.
    was_known: bool,
}

impl Window {
    /// Nothing is known yet. `block_time`: the least time between two blocks of the chain.
    pub(super) fn new(reanchor: Duration, block_time: Duration) -> Self {
        Self {
            reanchor,
            block_time,
            opened: None,
            sealed: None,
            leapt: None,
            taken: None,
            progress_at: Timestamp::default(),
            backing: Backing::default(),
            reach: None,
            sightings: Sightings::default(),
            claims: Claims::default(),
            majority: None,
            gateways: usize::MAX,
            proven: false,
            keeps_time: false,
            held_until: Timestamp::default(),
            was_known: false,
        }
    }

    /// The blocks that are taken, both ends included.
    pub(super) fn bounds(&self) -> (u64, u64) {
        let Some(opened) = self.opened else { return (0, u64::MAX) };
        let low = self.sealed.unwrap_or(opened).min(opened).saturating_sub(WINDOW_PAST);
        (low, opened.saturating_add(WINDOW_FUTURE))
    }

    fn contains(&self, block: u64) -> bool {
        let (low, high) = self.bounds();
        (low..=high).contains(&block)
    }

    /// The newest block that is open.
    pub(super) const fn opened(&self) -> Option<u64> {
        self.opened
    }

    /// The newest block that is sealed.
    pub(super) const fn sealed(&self) -> Option<u64> {
        self.sealed
    }

    /// The newest block of which a message was taken.
    pub(super) const fn taken(&self) -> Option<u64> {
        self.taken
    }

    /// Whether the window was somewhere else before it was moved.
    pub(super) const fn was_known(&self) -> bool {
        self.was_known
    }

    /// The application's verified head.
    pub(super) fn head(&self) -> Option<u64> {
        self.reach.map(|reach| reach.head)
    }

    /// The lowest block that may still be needed, whatever a liar has told: epochs live until it
    /// has passed them.
    pub(super) fn lowest_needed(&self, now: Timestamp) -> u64 {
        let (low, _) = self.bounds();
        // Where they agree with the window, it is right.
        let elsewhere = self.told_heads(now).filter(|block| !self.contains(*block));
        elsewhere.map(|block| block.saturating_sub(WINDOW_PAST)).fold(low, u64::min)
    }

    /// The lowest block of which shreds may be on their way, whatever a liar has told: as far below
    /// what is sealed, told and verified as blocks are taken ahead. A gateway can leap within the window,
    /// so here others count there as well.
    pub(super) fn lowest_live(&self, now: Timestamp) -> u64 {
        let low = self.opened.map_or(0, |opened| self.sealed.unwrap_or(opened).min(opened));
        self.told_heads(now).fold(low, u64::min).saturating_sub(WINDOW_FUTURE + 1)
    }

    /// Where a majority of peers, and the application, say that the chain stands.
    fn told_heads(&self, now: Timestamp) -> impl Iterator<Item = u64> + use<> {
        let majority = self.majority.filter(|(_, at)| now.since(*at) <= claims::LIFE);
        majority.map(|(block, _)| block).into_iter().chain(self.head())
    }

    /// Whether a message sent at a time by its leader's clock is fresh.
    pub(super) fn is_fresh(now: Timestamp, sent_at: Timestamp) -> bool {
        now.since(sent_at).max(sent_at.since(now)) <= FRESH
    }

    /// The blocks that may exist, as far as the application knows.
    fn possible(&self, now: Timestamp) -> (u64, u64) {
        self.reach.map_or((0, u64::MAX), |reach| reach.bounds(now, self.block_time))
    }

    /// The newest block that time allows, counted from the window's own progress.
    fn reachable(&self, now: Timestamp) -> u64 {
        match self.opened {
            Some(head) if !self.backing.is_empty() => {
                let reach = Reach { head, built_at: Some(self.progress_at) };
                reach.bounds(now, self.block_time).1
            }
            _ => u64::MAX,
        }
    }

    /// Whether the window may be wrong: nothing that counts stands behind it, or it has made no
    /// progress for long; and no majority of peers says that it is right.
    fn is_in_doubt(&self, now: Timestamp) -> bool {
        let stalled = self.backing.is_empty() || now.since(self.progress_at) > self.reanchor;
        let agrees =
            |(block, at): (u64, Timestamp)| self.contains(block) && now.since(at) <= claims::LIFE;
        stalled && self.opened.is_some() && !self.majority.is_some_and(agrees)
    }

    /// Whether blocks elsewhere are looked at: while the window is in doubt, and as long as no two
    /// gateways stand behind it, if there are two.
    fn is_open(&self, now: Timestamp) -> bool {
        let others = self.backing.len() < self.gateways.min(2);
        self.opened.is_some() && (others || self.is_in_doubt(now))
    }

    /// Judges the block of a shred.
    pub(super) fn place(&self, now: Timestamp, block: u64) -> Place {
        let (low, high) = self.bounds();
        if (low..=high).contains(&block) {
            return Place::Inside;
        }
        let (first, last) = self.possible(now);
        if self.is_open(now) && (first..=last).contains(&block) {
            return Place::Elsewhere;
        }
        Place::Outside(if block < low { Outcome::Past } else { Outcome::Future })
    }

    /// The blocks that are taken from gossip: those of the window, and where others are looked at,
    /// whatever is possible.
    pub(super) fn gossip_bounds(&self, now: Timestamp) -> (u64, u64) {
        let (low, high) = self.bounds();
        if !self.is_open(now) {
            return (low, high);
        }
        let possible = self.possible(now);
        (low.min(possible.0), high.max(possible.1))
    }

    /// The blocks that gossip's gate takes: while blocks elsewhere are looked at, the head is unknown
    /// to it. It would cut a window as wide as time allows from below, where the chain may well be.
    pub(super) fn gate_bounds(&self, now: Timestamp) -> (u64, u64) {
        let (low, high) = self.gossip_bounds(now);
        if high > self.bounds().1 { (low, u64::MAX) } else { (low, high) }
    }

    /// A message of a block of the window was taken.
    pub(super) fn advance(&mut self, now: Timestamp, sight: &Sight) {
        let Sight { block, kind, .. } = *sight;
        self.taken = self.taken.max(Some(block));
        let leaps = self.opened.is_some_and(|opened| block > opened.saturating_add(1));
        let newer = match kind {
            Kind::Frag => return,
            // Nobody can be ahead of time, whatever he signs.
            _ if block > self.possible(now).1 => return,
            Kind::Env => self.opened.is_none_or(|opened| block > opened),
            // What ends a block that is not there yet says nothing of those before it.
            Kind::Seal if leaps => {
                self.leapt = Some(block);
                return;
            }
            Kind::Seal => self.sealed.is_none_or(|sealed| block > sealed),
        };
        if !newer {
            return;
        }
        match kind {
            Kind::Env => {
                self.opened = Some(block);
                self.sealed = self.sealed.max(self.leapt.take_if(|leapt| *leapt <= block));
            }
            _ => self.sealed = Some(block),
        }
        if leaps {
            // Those who stood behind the blocks below have not signed what is here.
            self.backing = Backing::default();
            self.proven = false;
        }
        if sight.age != Age::Old {
            self.progress_at = now;
            self.backing.add(sight.gateway);
            self.proven |= sight.age == Age::Fresh;
        }
    }

    /// So many gateways there are in the newest epoch.
    pub(super) const fn set_gateways(&mut self, gateways: usize) {
        self.gateways = gateways;
    }

    /// Whether timestamps say how old a message is.
    pub(super) const fn keeps_time(&self) -> bool {
        self.keeps_time
    }

    /// An Env has a timestamp of this minute: so others can be judged by theirs, and what stands
    /// behind the window without that may be a recording.
    pub(super) fn note_time(&mut self) {
        if !std::mem::replace(&mut self.keeps_time, true) && !self.proven {
            self.backing = Backing::default();
        }
    }

    /// A verified message of a block elsewhere has come. Says whether the window is there now: if
    /// as many gateways have signed something there lately as stand behind the window, two at most.
    ///
    /// * If it is not in doubt, or further forward than time allows, it takes two in any case.
    /// * Back it goes only by fresh messages, since everybody can have old ones.
    pub(super) fn sighted(&mut self, now: Timestamp, sight: &Sight) -> bool {
        if self.place(now, sight.block) != Place::Elsewhere {
            return false;
        }
        let forward = self.opened.is_none_or(|opened| sight.block > opened);
        if !forward && sight.age != Age::Fresh {
            return false;
        }
        let backing = self.sightings.add(now, sight);
        let doubted = self.is_in_doubt(now) && sight.block <= self.reachable(now);
        let needed = if doubted { self.backing.len().min(2) } else { 2 };
        if backing.len() < needed {
            return false;
        }
        self.set(now, sight.block, sight.kind);
        self.taken = None;
        // Of a recording it is only known that there was such a block once.
        self.backing = if sight.age == Age::Old { Backing::default() } else { backing };
        self.proven = sight.age == Age::Fresh;
        self.hold(now, claims::LIFE);
        true
    }

    /// This node's own gateway has sent a message. Says whether the window has been moved there: its
    /// operator trusts it more than anybody else.
    pub(super) fn own(&mut self, now: Timestamp, sight: &Sight) -> bool {
        let (low, high) = self.possible(now);
        if self.contains(sight.block) || !(low..=high).contains(&sight.block) {
            return false;
        }
        self.set(now, sight.block, sight.kind);
        self.backing = Backing::default();
        self.backing.add(sight.gateway);
        self.hold(now, claims::LIFE);
        true
    }

    /// What peers have told so far counts no more, and for a while nothing that they tell: they may
    /// be where this node was.
    fn hold(&mut self, now: Timestamp, time: Duration) {
        self.claims.clear();
        self.majority = None;
        self.held_until = now + time;
    }

    /// A peer's tips tell that `block` is the newest of which it has anything.
    pub(super) fn told(&mut self, now: Timestamp, peer: PeerKey, block: u64) {
        self.claims.tell(now, peer, block);
    }

    /// A peer is none any more, or not connected.
    pub(super) fn forget_peer(&mut self, peer: PeerKey) {
        self.claims.forget(peer);
    }

    /// Whether it is time to count what peers tell: seldom while the window is backed and what was
    /// told lies in it.
    pub(super) fn is_count_due(&self, now: Timestamp, block: u64) -> bool {
        let known = self.opened.is_some();
        self.claims.is_count_due(now, known && self.contains(block))
    }

    /// Counts what peers tell; `weigh` gives a connected peer's weight. Says whether the window has
    /// been moved to where most of them are.
    pub(super) fn count(
        &mut self,
        now: Timestamp,
        own: u64,
        connected: u128,
        weigh: impl Fn(PeerKey) -> Option<u64>,
    ) -> bool {
        let alive = !self.backing.is_empty() && now.since(self.progress_at) <= self.reanchor;
        let mine = self.opened.filter(|_| alive).map(|opened| (opened, own));
        let known = self.opened.is_some();
        let block = self.claims.count(now, mine, connected, known, weigh);
        let Some(block) = block else { return false };
        let (low, high) = self.possible(now);
        if now < self.held_until || !(low..=high).contains(&block) {
            return false;
        }
        self.majority = Some((block, now));
        if self.opened.is_some() && self.contains(block) {
            return false;
        }
        self.set(now, block, Kind::Env);
        self.taken = None;
        // They vouch for the place, not for a gateway: the next fresh message does.
        self.backing = Backing::default();
        true
    }

    /// The application has verified `head`, which was built at `built_at` by the chain's clock.
    /// Says whether the window has been moved there: it was behind, or nowhere.
    pub(super) fn verified(&mut self, now: Timestamp, head: u64, built_at: Timestamp) -> bool {
        let keeps_time = built_at.since(now) <= CLOCK_SLACK && built_at > Timestamp::default();
        self.reach = Some(Reach { head, built_at: keeps_time.then_some(built_at) });
        let (_, high) = self.bounds();
        if self.opened.is_some() && head <= high {
            return false;
        }
        self.set(now, head, Kind::Seal);
        self.backing = Backing::default();
        true
    }

    /// The operator says that the chain's head is `block`. Who knew nothing before is not put right
    /// by that, and listens to the peers as before.
    pub(super) fn move_to(&mut self, now: Timestamp, block: u64) {
        self.set(now, block, Kind::Seal);
        self.backing = Backing::default();
        self.backing.add(Address::ZERO);
        // What was verified elsewhere binds nobody who knows better.
        self.reach = self.reach.filter(|reach| reach.head <= block);
        self.hold(now, if self.was_known { HOLD } else { Duration::ZERO });
    }

    /// The window is at a block of which a message of `kind` was taken.
    fn set(&mut self, now: Timestamp, block: u64, kind: Kind) {
        self.was_known = self.opened.is_some();
        let sealed = if kind == Kind::Seal { Some(block) } else { block.checked_sub(1) };
        (self.opened, self.sealed) = (Some(block), sealed);
        self.progress_at = now;
        self.sightings = Sightings::default();
    }
}

#[cfg(test)]
mod tests;
