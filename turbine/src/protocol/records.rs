//! Records of members: this node's own, renewed; those of others, pulled from peers.
//!
//! ```text
//! every 2 s, and after connecting            RecordsPull ──▶ one peer
//!                                            Records    ◀── what differs, at most 64 kB
//! ```
//!
//! Nothing is told without being asked for. A node asks one peer at a time, in turn, so a record
//! reaches everybody in about as many rounds as the number of nodes has bits, and an answer costs
//! whoever asked. What was not asked for is not looked at.
//!
//! # Bounds
//! The [pool](Pool)'s; 24 bytes for each peer that is connected.

mod pool;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ed25519_dalek::SigningKey;

use super::ctx::Ctx;
use crate::bucket::{Bucket, Rate};
use crate::control::{Control, MAX_RECORDS_LEN, Records, RecordsPull};
use crate::egress::Lane;
use crate::membership::{MAX_ADDRESSES, Reached, RecordBody, WireAddr};
use crate::outcome::Outcome;
use crate::peer::{PeerId, PeerKey};
use crate::shuffle::Stream;
use crate::tables::Weights;
use crate::time::Timestamp;

use pool::{Word, latest_at, sequence_at};

pub(super) use pool::Pool;

/// A peer that pulls more often is not answered.
const ANSWER_EVERY: Duration = Duration::from_millis(500);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often dead records are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Peers that are asked soon, since they have just connected; guests have half of the places.
const MAX_SOON: usize = 64;
/// Pulls that are answered in all, a second and at once: of members, and of guests. One costs a hash
/// over the pool and up to 64 kB.
const ANSWERS: [(u64, u64); 2] = [(200, 400), (20, 64)];
/// Guests that are asked each second for their record anew.
const GUESTS: usize = 8;
/// The least time between two pulls that are not of the regular ones.
const SOON: Duration = Duration::from_millis(50);

/// What a node says of itself, beside its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnRecord {
    /// The addresses at which others reach it, 1 to [`MAX_ADDRESSES`].
    pub addresses: Vec<std::net::SocketAddr>,
    /// The rate that it is willing to send at, kbit/s.
    pub uplink_kbps: u32,
}

/// See the module.
pub(super) struct RecordBook {
    pub(super) pool: Pool,
    identity: Option<SigningKey>,
    own: Option<OwnRecord>,
    renewed_at: Option<Timestamp>,
    /// When the next peer is asked; `None` before the first time.
    pull_at: Option<Timestamp>,
    sweep_at: Timestamp,
    /// Who was pulled from, and when, until it answers.
    asked: BTreeMap<PeerKey, Timestamp>,
    /// Who was answered, and when.
    answered: BTreeMap<PeerKey, Timestamp>,
    /// What members, and what guests, have been answered together.
    answers: [Bucket; 2],
    /// Peers to pull from before the next turn.
    soon: VecDeque<PeerKey>,
    soon_at: Timestamp,
    /// The bucket that the next answer begins with, of 2^16.
    first: usize,
    random: Option<Stream>,
}

impl std::fmt::Debug for RecordBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordBook").field("records", &self.pool.len()).finish_non_exhaustive()
    }
}

/// Now, by the Unix clock.
pub(super) fn unix(ctx: &Ctx) -> Timestamp {
    ctx.now + ctx.config.members.origin
}

/// Whether a living table or a weight names a peer.
pub(super) fn is_favoured(ctx: &Ctx, weights: Option<&Weights>, peer: &PeerId) -> bool {
    let weight = weights.and_then(|weights| weights.get(peer)).copied().unwrap_or(0);
    weight > 0 || ctx.epochs.view().member(peer).is_some()
}

impl RecordBook {
    /// Of a node with these settings. It begins with the records of its tables.
    pub(super) fn new(ctx: &Ctx) -> Self {
        let mut book = Self {
            pool: Pool::new(ctx.config.chain_id, ctx.config.members.life),
            identity: None,
            own: None,
            renewed_at: None,
            pull_at: None,
            sweep_at: Timestamp::default(),
            asked: BTreeMap::new(),
            answered: BTreeMap::new(),
            answers: <[Bucket; 2]>::default(),
            soon: VecDeque::new(),
            soon_at: Timestamp::default(),
            first: 0,
            random: None,
        };
        if ctx.config.members.live {
            book.keep_tables(ctx);
        }
        book
    }

    /// The highest sequence that a record may have now.
    pub(super) fn latest(&self, ctx: &Ctx) -> u64 {
        latest_at(unix(ctx))
    }

    /// The records of the living tables are verified, and known from now on.
    pub(super) fn keep_tables(&mut self, ctx: &Ctx) {
        for epoch in ctx.epochs.view().epochs() {
            for member in epoch.members().members() {
                self.pool.keep_known(unix(ctx), &member.record, member.reached);
            }
        }
    }

    /// The key that signs this node's own record.
    pub(super) fn set_identity(&mut self, identity: SigningKey) {
        self.identity = Some(identity);
    }

    /// What this node says of itself from now on.
    pub(super) fn set_own(&mut self, mut own: OwnRecord) {
        own.addresses.truncate(MAX_ADDRESSES);
        self.own = Some(own).filter(|own| !own.addresses.is_empty());
        self.renewed_at = None;
    }

    /// A connection is up: what its peer has is asked for soon.
    pub(super) fn connected(&mut self, ctx: &Ctx, peer: PeerKey) {
        let places = if ctx.peers.is_guest(peer) { MAX_SOON / 2 } else { MAX_SOON };
        if self.soon.len() < places && !self.soon.contains(&peer) {
            self.soon.push_back(peer);
        }
    }

    /// A connection, or a peer, is gone.
    pub(super) fn disconnected(&mut self, peer: PeerKey) {
        self.asked.remove(&peer);
        self.answered.remove(&peer);
        self.soon.retain(|other| *other != peer);
    }

    /// When something is due.
    pub(super) fn next_timeout(&self, ctx: &Ctx) -> Option<Timestamp> {
        if !ctx.config.members.live {
            return None;
        }
        let soon = (!self.soon.is_empty()).then_some(self.soon_at);
        let pull = self.pull_at.unwrap_or_default();
        Some(soon.map_or(pull, |soon| soon.min(pull)).min(self.sweep_at))
    }

    /// Renews this node's record, forgets dead ones, and asks whose turn it is.
    pub(super) fn timeout(&mut self, ctx: &mut Ctx, weights: Option<&Weights>) {
        if !ctx.config.members.live {
            return;
        }
        let (now, unix) = (ctx.now, unix(ctx));
        if now >= self.sweep_at {
            self.sweep_at = now + SWEEP;
            self.renew(ctx);
            self.pool.expire(unix, |peer| is_favoured(ctx, weights, peer));
            self.asked.retain(|_, at| now.since(*at) < PATIENCE);
            self.look_at_guests(ctx);
        }
        if now >= self.soon_at
            && let Some(peer) = self.soon.pop_front()
        {
            self.soon_at = now + SOON;
            self.pull(ctx, peer);
        }
        if self.pull_at.is_none_or(|at| now >= at) {
            let every = ctx.config.members.pull;
            let connected: Vec<PeerKey> =
                ctx.peers.iter_connected().filter(|peer| ctx.peers.can_ask(*peer)).collect();
            let random = self.random(ctx);
            // Three quarters to five quarters, so that nodes that start together part.
            let millis = every.as_millis() as u64;
            let pause = Duration::from_millis(millis * 3 / 4 + random.below(millis / 2 + 1));
            let peer = (!connected.is_empty())
                .then(|| connected[random.below(connected.len() as u64) as usize]);
            self.pull_at = Some(now + pause);
            peer.into_iter().for_each(|peer| self.pull(ctx, peer));
        }
    }

    /// Guests whose record is to be renewed are asked for it: nobody else is to be asked yet.
    fn look_at_guests(&mut self, ctx: &Ctx) {
        let due =
            sequence_at(unix(ctx)).saturating_sub(ctx.config.members.renew.as_millis() as u64);
        let old = |guest: &PeerKey| {
            let record = ctx.peers.id(*guest).and_then(|id| self.pool.get(&id));
            record.is_some_and(|record| record.body.sequence < due)
                && !self.asked.contains_key(guest)
        };
        let guests = ctx.peers.iter_everybody().filter(|peer| ctx.peers.is_guest(*peer));
        let guests: Vec<PeerKey> = guests.filter(old).take(GUESTS).collect();
        guests.into_iter().for_each(|guest| self.connected(ctx, guest));
    }

    fn random(&mut self, ctx: &Ctx) -> &mut Stream {
        let me = ctx.peers.id(ctx.me()).unwrap_or(PeerId([0; 32]));
        self.random.get_or_insert_with(|| Stream::of(&me.0, b"records"))
    }

    /// Signs this node's record anew if it is time.
    fn renew(&mut self, ctx: &Ctx) {
        let due = self.renewed_at.is_none_or(|at| ctx.now.since(at) >= ctx.config.members.renew);
        let Some((identity, own)) = self.identity.as_ref().zip(self.own.as_ref()).filter(|_| due)
        else {
            return;
        };
        self.renewed_at = Some(ctx.now);
        let body = RecordBody {
            chain_id: ctx.config.chain_id,
            peer: PeerId(identity.verifying_key().to_bytes()),
            sequence: sequence_at(unix(ctx)),
            uplink_kbps: own.uplink_kbps,
            coordinates: [0; 4],
            addresses: own.addresses.iter().map(|address| WireAddr::from(*address)).collect(),
        };
        // Where it is it knows itself.
        let record = body.sign(identity);
        self.pool.keep_known(unix(ctx), &record, Reached::all_of(&record));
    }

    fn pull(&mut self, ctx: &mut Ctx, peer: PeerKey) {
        // A guest is asked as well, for its own record.
        if !ctx.peers.is_connected(peer) || ctx.peers.is_refused(peer) {
            return;
        }
        self.asked.insert(peer, ctx.now);
        ctx.counters.records_pulled += 1;
        let buckets = self.pool.buckets(self.pool.bucket_count());
        ctx.send_control_in(Lane::Bulk, peer, &Control::RecordsPull(RecordsPull { buckets }));
    }

    /// Answers a pull. Says what it was, and the work.
    pub(super) fn answer(&mut self, ctx: &mut Ctx, from: PeerKey, pull: &RecordsPull) -> Outcome {
        let now = ctx.now;
        let soon = self.answered.get(&from).is_some_and(|at| now.since(*at) < ANSWER_EVERY);
        let class = usize::from(ctx.peers.is_guest(from));
        let (each, burst) = ANSWERS[class];
        let rate = Rate::new(each, Duration::from_secs(1), burst);
        if soon || !ctx.peers.is_connected(from) || !self.answers[class].take(now, &rate, 1) {
            return Outcome::MembersRefused;
        }
        self.answered.insert(from, now);
        let count = pull.buckets.len();
        let first = (self.first * count) >> 16;
        let (records, next) = self.pool.differing(&pull.buckets, first, MAX_RECORDS_LEN);
        if let Some(next) = next {
            // What did not fit comes first the next time, whoever asks.
            self.first = (next << 16) / count;
        }
        // Also without any: who asked need not wait.
        ctx.send_control_in(Lane::Bulk, from, &Control::Records(Records { records }));
        Outcome::Control
    }

    /// Takes the answer to a pull.
    pub(super) fn take(
        &mut self,
        ctx: &mut Ctx,
        weights: Option<&Weights>,
        from: PeerKey,
        told: Records,
    ) -> Outcome {
        if self.asked.remove(&from).is_none() {
            return Outcome::MembersUnasked;
        }
        let me = ctx.peers.id(ctx.me());
        // Of a guest its own: what it says of others, members say.
        let guest = ctx.peers.is_guest(from).then(|| ctx.peers.id(from)).flatten();
        let told = told.records.into_iter();
        let sender = ctx.peers.id(from);
        // One of each peer: more of them would be signatures to verify for nothing.
        let mut seen = std::collections::BTreeSet::new();
        for record in told.filter(|record| guest.is_none_or(|guest| record.body.peer == guest)) {
            let peer = record.body.peer;
            if !seen.insert(peer) {
                ctx.outcomes.count(Outcome::RecordOld);
                continue;
            }
            let word = if sender == Some(peer) { Word::Own } else { Word::Other };
            if Some(peer) == me {
                // What this node says of itself it says itself.
                ctx.outcomes.count(Outcome::RecordOld);
                continue;
            }
            let favoured = is_favoured(ctx, weights, &peer);
            match self.pool.take(unix(ctx), record, favoured, word) {
                Outcome::Control => ctx.counters.records_learnt += 1,
                // Who passes a record on has verified it.
                Outcome::ControlBad => return Outcome::ControlBad,
                refused => ctx.outcomes.count(refused),
            }
        }
        Outcome::Control
    }
}

#[cfg(test)]
mod tests;
