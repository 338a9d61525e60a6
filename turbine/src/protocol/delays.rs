//! Delays that the nodes measured: this node's own on their way to those who plan with them, and,
//! where this node plans, everybody's.
//!
//! A member tells the leader and the next leaders what it measured, over the table of the epoch in
//! which each of them leads: some seconds after it began to measure, and again when that has
//! changed by more than noise, within [`SENDING`]. To a leader that it is not connected to it tells
//! it by way of others, who pass a vector on once, if they have it from its own member.
//!
//! A leader takes a vector of a member every few seconds at most, and only of a table of an epoch
//! that lives, so its memory is that of [`MAX_EPOCHS`](crate::epoch::MAX_EPOCHS) matrices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;

use super::connecting;
use super::ctx::Ctx;
use super::epochs::{Epochs, Living};
use crate::bucket::{Bucket, Rate};
use crate::control::Control;
use crate::delays::{
    DelayMatrix, DelayVector, Joined, RttCode, SignedDelayVector, Step, most_codes,
};
use crate::egress::FRAMING;
use crate::membership::PeerIndex;
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::time::Timestamp;

/// Next leaders that are told, beside the leader.
const NEXT: usize = 2;
/// Samples are taken for as long before the first vector is made.
const WARM_UP: Duration = Duration::from_secs(3);
/// The least time between two vectors of one table.
const EVERY: Duration = Duration::from_secs(10);
/// A vector is made anew after this long though nothing has changed: what was passed on by others
/// may not have come.
const ANEW: Duration = Duration::from_secs(600);
/// The share of the pairs, one in so many, of which others or new ones make a new vector.
const NOTICEABLE: usize = 32;
/// Bytes that are sent for it, a second and at once.
const SENDING: (u64, u64) = (8_000, 128 * 1024);
/// Bytes of others that are passed on, a second and at once.
const PASSING: (u64, u64) = (64_000, 1024 * 1024);
/// Peers that are asked to pass a vector on to leaders that this node is not connected to.
const BY_WAY_OF: usize = 8;
/// The least time between two vectors of a member that are passed on.
const PASS_EVERY: Duration = Duration::from_secs(5);

/// What of measured delays a node has, for its operator.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DelaysState {
    /// Peers to which this node has measured the round trip.
    pub measured: usize,
    /// Members that have told this node what they measured, over the newest table in which it
    /// leads; 0 if it leads in none, as in the fields below.
    pub reporters: usize,
    /// Pairs of members whose round trip is known.
    pub pairs: usize,
    /// The median of them, in µs.
    pub median_micros: Option<u32>,
    /// In a table so large that coordinates stand for what nobody measured: their median error,
    /// as a share of the round trip.
    pub coordinates_error: Option<f64>,
    /// Changes other than by noise.
    pub generation: u64,
}

/// The vector that this node has made of one table.
#[derive(Debug)]
struct Told {
    at: Timestamp,
    pairs: Vec<(PeerIndex, RttCode)>,
    frame: Control,
    len: u64,
    /// Leaders that have it.
    to: BTreeSet<PeerKey>,
    /// Whether others were asked to pass it on.
    passed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Delays {
    /// Signs what this node measured; without it, nobody is told.
    identity: Option<SigningKey>,
    /// When the first sample was taken.
    since: Option<Timestamp>,
    /// By table, as the next two.
    told: BTreeMap<[u8; 32], Told>,
    joined: BTreeMap<[u8; 32], Joined>,
    sending: Bucket,
    passing: Bucket,
    /// By member, of any table: the sequence that was passed on last, and when.
    passed: BTreeMap<PeerKey, (u64, Timestamp)>,
}

/// Who is told of a table.
pub(super) struct Audience {
    pub(super) table: [u8; 32],
    /// Leaders, this node perhaps among them.
    pub(super) leaders: Vec<PeerKey>,
}

fn rate((units, burst): (u64, u64)) -> Rate {
    Rate::new(units, Duration::from_secs(1), burst)
}

/// A number for a pair, the same from both ends.
const fn mix(a: PeerIndex, b: PeerIndex, seed: u64) -> u64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    let bits = ((high as u64) << 32 | low as u64) ^ seed;
    let bits = (bits ^ bits >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ bits >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits ^ bits >> 32
}

impl Delays {
    /// The key behind this node's peer id.
    pub(super) fn set_identity(&mut self, identity: SigningKey) {
        self.identity = Some(identity);
    }

    /// Takes samples of the transport, and tells who must know.
    pub(super) fn samples(
        &mut self,
        ctx: &mut Ctx,
        leads: bool,
        samples: impl IntoIterator<Item = (PeerKey, Duration)>,
    ) {
        for (peer, sample) in samples {
            if ctx.peers.is_connected(peer) && peer != ctx.me() {
                ctx.round_trips.take(ctx.now, peer, sample);
                self.since.get_or_insert(ctx.now);
            }
        }
        ctx.round_trips.settle();
        self.follow(&ctx.epochs);
        for audience in Self::audiences(ctx) {
            self.remake(ctx, &audience, leads);
            self.tell(ctx, &audience);
        }
        self.joined.values_mut().for_each(|joined| joined.settle(ctx.now));
    }

    /// Who leads, and who leads next, by the table in which they do.
    pub(super) fn audiences(ctx: &Ctx) -> Vec<Audience> {
        let block = ctx.window.opened().or(ctx.window.taken()).or(ctx.window.head());
        let block = block.unwrap_or_else(|| ctx.epochs.newest().epoch().from_block());
        let view = ctx.epochs.view();
        let terms = view.next_terms(block).map(|(_, first)| first);
        let mut audiences: Vec<Audience> = Vec::new();
        let mut found = BTreeSet::new();
        for block in std::iter::once(block).chain(terms) {
            let Some((living, leader)) = ctx.epochs.at(block).zip(ctx.leader_key(block)) else {
                continue;
            };
            if found.insert(leader) {
                let table = living.epoch().members().hash();
                match audiences.iter_mut().find(|audience| audience.table == table) {
                    Some(audience) => audience.leaders.push(leader),
                    None => audiences.push(Audience { table, leaders: vec![leader] }),
                }
            }
            if found.len() > NEXT {
                break;
            }
        }
        audiences
    }

    /// Forgets what belongs to tables of no epoch that lives.
    fn follow(&mut self, epochs: &Epochs) {
        let lives = |table: &[u8; 32]| {
            epochs.iter().any(|living| living.epoch().members().hash() == *table)
        };
        self.told.retain(|table, _| lives(table));
        self.joined.retain(|table, _| lives(table));
    }

    /// Makes a vector if there is none of this table, or if it says too little of what is so now.
    fn remake(&mut self, ctx: &Ctx, audience: &Audience, leads: bool) {
        let living = of_table(&ctx.epochs, audience.table);
        let Some((living, me)) = living.and_then(|living| Some((living, living.me()?))) else {
            return;
        };
        let warm = self.since.is_some_and(|since| ctx.now.since(since) >= WARM_UP);
        let known = self.told.get(&audience.table);
        if !warm || known.is_some_and(|told| ctx.now.since(told.at) < EVERY) {
            return;
        }
        let pairs = Self::pairs(ctx, living, me);
        if pairs.is_empty() || known.is_some_and(|told| !told.is_outdated(ctx.now, &pairs)) {
            return;
        }
        let Some(identity) = &self.identity else { return };
        let (table, members) = (audience.table, living.members());
        let sequence = ctx.now.as_micros();
        if leads && audience.leaders.contains(&ctx.me()) {
            let joined = self
                .joined
                .entry(table)
                .or_insert_with(|| Joined::new(members, ctx.config.connections));
            joined.take_pairs(ctx.now, me, sequence, &pairs);
        }
        let of = (ctx.config.chain_id, table, members);
        let signed = DelayVector::new(of, me, sequence, &pairs).sign(identity);
        let frame = Control::Delays(Box::new(signed));
        let len = (frame.to_bytes().len() + FRAMING) as u64;
        let (at, to) = (ctx.now, BTreeSet::new());
        self.told.insert(table, Told { at, pairs, frame, len, to, passed: false });
    }

    /// What this node reports of a table, by rising index: all that it measured, or, in a large
    /// table, half of what has room for the nearest and half for pairs that are drawn, alike at
    /// both ends.
    fn pairs(ctx: &Ctx, living: &Living, me: PeerIndex) -> Vec<(PeerIndex, RttCode)> {
        let measured = ctx
            .round_trips
            .iter()
            .filter_map(|(peer, micros)| Some((living.index(peer)?, RttCode::of_micros(micros))));
        let mut pairs: Vec<_> = measured.collect();
        let most = most_codes(living.members());
        if pairs.len() > most {
            pairs.sort_unstable_by_key(|(index, code)| (*code, *index));
            pairs[most / 2..].sort_unstable_by_key(|(index, _)| (mix(me, *index, 0), *index));
            pairs.truncate(most);
        }
        pairs.sort_unstable();
        pairs
    }

    /// Sends a vector to those leaders that do not have it.
    fn tell(&mut self, ctx: &mut Ctx, audience: &Audience) {
        let Some(told) = self.told.get_mut(&audience.table) else { return };
        let rate = rate(SENDING);
        let mut unreached = false;
        let me = ctx.me();
        for leader in audience.leaders.iter().filter(|leader| **leader != me) {
            if told.to.contains(leader) {
                continue;
            }
            if !ctx.peers.is_connected(*leader) {
                unreached = true;
            } else if self.sending.take(ctx.now, &rate, told.len) {
                ctx.send_control(*leader, &told.frame);
                told.to.insert(*leader);
            }
        }
        if !unreached || told.passed {
            return;
        }
        let seed = told.at.as_micros();
        let mut peers: Vec<PeerKey> = match connecting::reaching(ctx, audience) {
            Some(peers) => peers,
            None => ctx.peers.iter_connected().collect(),
        };
        peers.sort_unstable_by_key(|peer| mix(ctx.me().number(), peer.number(), seed));
        peers.retain(|peer| !told.to.contains(peer));
        peers.truncate(BY_WAY_OF);
        if self.sending.take(ctx.now, &rate, told.len * peers.len() as u64) {
            peers.iter().for_each(|peer| ctx.send_control(*peer, &told.frame));
            told.passed = true;
        }
    }

    /// A peer is connected: if it leads, it is told what this node has told others.
    pub(super) fn connected(&mut self, ctx: &mut Ctx, peer: PeerKey) {
        if self.told.is_empty() {
            return;
        }
        for audience in Self::audiences(ctx).iter().filter(|a| a.leaders.contains(&peer)) {
            self.tell(ctx, audience);
        }
    }

    /// A connection is gone, and with it what was on its way.
    pub(super) fn disconnected(&mut self, peer: PeerKey) {
        self.told.values_mut().for_each(|told| _ = told.to.remove(&peer));
    }

    /// A peer that no epoch names any more.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.disconnected(peer);
        self.passed.remove(&peer);
    }

    /// Takes a vector, or passes it on. Says also how many signatures were verified.
    pub(super) fn take(
        &mut self,
        ctx: &mut Ctx,
        from: PeerKey,
        leads: bool,
        signed: &SignedDelayVector,
    ) -> (Outcome, u64) {
        let vector = &signed.vector;
        let living = of_table(&ctx.epochs, vector.table);
        let living = living.filter(|_| vector.chain_id == ctx.config.chain_id);
        let Some(living) = living else { return (Outcome::DelaysTable, 0) };
        let members = living.members();
        if !vector.fits(members) {
            return (Outcome::ControlBad, 0);
        }
        let member = living.key(vector.member);
        let signer = living.epoch().members().members()[vector.member as usize].peer();
        if member == ctx.me() {
            return (Outcome::DelaysUnwanted, 0);
        }
        if !leads || !leads_in(ctx, living) {
            return self.pass_on(ctx, (from, member), signed, |signed| signed.verify(&signer));
        }
        let joined = self
            .joined
            .entry(vector.table)
            .or_insert_with(|| Joined::new(members, ctx.config.connections));
        match joined.step(ctx.now, vector.member, vector.sequence) {
            Step::Old => return (Outcome::DelaysOld, 0),
            Step::Soon => return (Outcome::DelaysSoon, 0),
            Step::New => {}
        }
        // Whoever sent it had to verify it: its member is a place in a table that both know.
        if !signed.verify(&signer) {
            return (Outcome::ControlBad, 1);
        }
        joined.take(ctx.now, vector);
        (Outcome::Control, 1)
    }

    /// Passes a vector on to the leaders that this node is connected to, if it comes from its
    /// member and not by way of another.
    fn pass_on(
        &mut self,
        ctx: &mut Ctx,
        (from, member): (PeerKey, PeerKey),
        signed: &SignedDelayVector,
        verify: impl FnOnce(&SignedDelayVector) -> bool,
    ) -> (Outcome, u64) {
        let vector = &signed.vector;
        let audiences = Self::audiences(ctx);
        let leaders = audiences.iter().filter(|audience| audience.table == vector.table);
        let leaders = leaders.flat_map(|audience| &audience.leaders).copied();
        let reached = leaders.filter(|to| *to != from && ctx.peers.is_connected(*to));
        let reached: Vec<PeerKey> = reached.collect();
        if from != member || reached.is_empty() {
            return (Outcome::DelaysUnwanted, 0);
        }
        match self.passed.get(&member) {
            Some((known, _)) if vector.sequence <= *known => return (Outcome::DelaysOld, 0),
            Some((_, at)) if ctx.now.since(*at) < PASS_EVERY => return (Outcome::DelaysSoon, 0),
            _ => {}
        }
        let frame = Control::Delays(Box::new(signed.clone()));
        let len = (frame.to_bytes().len() + FRAMING) * reached.len();
        if !self.passing.take(ctx.now, &rate(PASSING), len as u64) {
            return (Outcome::DelaysSoon, 0);
        }
        if !verify(signed) {
            return (Outcome::ControlBad, 1);
        }
        self.passed.insert(member, (vector.sequence, ctx.now));
        reached.into_iter().for_each(|to| ctx.send_control(to, &frame));
        (Outcome::Control, 1)
    }

    /// What is known of a table, with its generation.
    pub(super) fn of(&self, table: &[u8; 32]) -> Option<(&Arc<DelayMatrix>, u64)> {
        self.joined.get(table).map(|joined| (joined.matrix(), joined.generation()))
    }

    /// How many members of a table have told this node what they measured.
    pub(super) fn reporters(&self, table: &[u8; 32]) -> usize {
        self.joined.get(table).map_or(0, Joined::reporters)
    }

    /// The numbers.
    pub(super) fn state(&self, ctx: &Ctx) -> DelaysState {
        let tables = ctx.epochs.iter().map(|living| living.epoch().members().hash());
        let newest = tables.filter_map(|table| self.joined.get(&table)).last();
        let measured = ctx.round_trips.len();
        let Some(joined) = newest else { return DelaysState { measured, ..Default::default() } };
        DelaysState {
            measured,
            reporters: joined.reporters(),
            pairs: joined.pairs(),
            median_micros: joined.median(),
            coordinates_error: joined.error(),
            generation: joined.generation(),
        }
    }
}

impl Told {
    /// Whether it says too little of what is so now.
    fn is_outdated(&self, now: Timestamp, pairs: &[(PeerIndex, RttCode)]) -> bool {
        let known: BTreeMap<PeerIndex, RttCode> = self.pairs.iter().copied().collect();
        let differs = |(index, code): &(PeerIndex, RttCode)| {
            known.get(index).copied().unwrap_or_default().differs(*code)
        };
        let changed = pairs.iter().filter(|pair| differs(pair)).count();
        now.since(self.at) >= ANEW || (changed > 0 && changed * NOTICEABLE >= pairs.len())
    }
}

/// The newest epoch of a table.
fn of_table(epochs: &Epochs, table: [u8; 32]) -> Option<&Living> {
    epochs.iter().filter(|living| living.epoch().members().hash() == table).last()
}

/// Whether a delegation names this node as a leader of an epoch.
fn leads_in(ctx: &Ctx, living: &Living) -> bool {
    let me = ctx.peers.id(ctx.me());
    living.epoch().delegations().iter().any(|leader| Some(leader.peer) == me)
}

#[cfg(test)]
mod tests;
