//! Answering requests within a budget.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fragcast_shredder::MessageKey;
use fragcast_shredder::shred::MAX_ATTEMPTS;

use super::Repair;
use super::messages::ONCE_WITHIN;
use super::store::{CompleteSet, Store};
use crate::bucket::{Bucket, Rate};
use crate::control::{Control, MAX_ANSWER_SHREDS, RepairRequest, RepairShreds, WHOLE};
use crate::egress::{Lane, Payload, Transmit};
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::protocol::config::RepairConfig;
use crate::protocol::ctx::Ctx;
use crate::protocol::fallback::Recent;
use crate::time::Timestamp;

/// What a request costs of the budget, whatever becomes of it: so many bytes were read for it.
const REQUEST_COST: usize = 100;
/// The most that a request for a whole message is answered with: a frag of usual size. The
/// asker knows the shape then, and asks for the rest by set.
const MAX_WHOLE: usize = 160 * 1024;
/// A guest may be sent so much less than a member, and so much less at once.
const GUESTS_SHARE: u64 = 5;
const GUESTS_BURST: usize = 2;
/// All guests together may be sent this part of what is sent to guests at all: the rest is what they
/// take without asking.
const ANSWERS_SHARE: u64 = 2;
/// Budgets in use at a time, of members and of guests each, 64 bytes each.
const MAX_BUDGETS: usize = 4096;

/// One peer's budget.
#[derive(Default)]
struct Budget {
    bytes: Bucket,
    /// The message that it was sent last, from the beginning, and when.
    message: Option<(MessageKey, Timestamp)>,
}

/// Budgets by peer. A bucket that is full again needs no entry.
#[derive(Default)]
struct Spent(BTreeMap<PeerKey, Budget>);

impl Spent {
    /// The budget of a peer, if there is room for it.
    fn get(&mut self, now: Timestamp, peer: PeerKey) -> Option<&mut Budget> {
        if !self.0.contains_key(&peer) && self.0.len() >= MAX_BUDGETS {
            self.0.retain(|_, budget| !budget.bytes.is_full(now));
            if self.0.len() >= MAX_BUDGETS {
                return None;
            }
        }
        Some(self.0.entry(peer).or_default())
    }
}

/// What each peer may still be sent, and all guests together. Guests, of whom anybody can make many,
/// have entries of their own and take none from members.
pub(super) struct Budgets {
    rate: Rate,
    rate_of_guest: Rate,
    rate_of_guests: Rate,
    members: Spent,
    guests: Spent,
    spent_by_guests: Bucket,
}

impl Budgets {
    pub(super) fn new(config: &RepairConfig, guests_bps: u64) -> Self {
        // Eight bits a byte: as many bytes in eight seconds as bits in one.
        let rate = |bps: u64, burst: usize| {
            Rate::new(bps.max(1_000), Duration::from_secs(8), burst as u64)
        };
        let (bps, burst) = (config.answer_bps, config.answer_burst);
        Self {
            rate: rate(bps, burst),
            rate_of_guest: rate(bps / GUESTS_SHARE, burst / GUESTS_BURST),
            rate_of_guests: rate(guests_bps / ANSWERS_SHARE, burst),
            members: Spent::default(),
            guests: Spent::default(),
            spent_by_guests: Bucket::default(),
        }
    }

    /// Takes `bytes` off a peer's budget, and of a guest off that of all guests, or says that there
    /// is not so much left, or that enough waits for guests.
    pub(super) fn take(&mut self, ctx: &Ctx, peer: PeerKey, bytes: usize) -> bool {
        match ctx.peers.is_guest(peer) {
            true => {
                !ctx.egress.guests_lane_is_half_full() && self.take_of_guest(ctx.now, peer, bytes)
            }
            false => self.take_of_member(ctx.now, peer, bytes),
        }
    }

    fn take_of_member(&mut self, now: Timestamp, peer: PeerKey, bytes: usize) -> bool {
        let budget = self.members.get(now, peer);
        budget.is_some_and(|budget| budget.bytes.take(now, &self.rate, bytes as u64))
    }

    fn take_of_guest(&mut self, now: Timestamp, peer: PeerKey, bytes: usize) -> bool {
        let Some(budget) = self.guests.get(now, peer) else { return false };
        let (bytes, mut own) = (bytes as u64, budget.bytes);
        // What all together have not is not taken off its own.
        let fits = own.take(now, &self.rate_of_guest, bytes)
            && self.spent_by_guests.take(now, &self.rate_of_guests, bytes);
        if fits {
            budget.bytes = own;
        }
        fits
    }

    const fn of(&mut self, guest: bool) -> &mut BTreeMap<PeerKey, Budget> {
        if guest { &mut self.guests.0 } else { &mut self.members.0 }
    }

    /// Whether a peer has not been sent a message just now.
    pub(super) fn is_first(&mut self, ctx: &Ctx, peer: PeerKey, key: &MessageKey) -> bool {
        let budget = self.of(ctx.peers.is_guest(peer)).get(&peer);
        let last = budget.and_then(|budget| budget.message);
        last.is_none_or(|(of, at)| of != *key || ctx.now.since(at) >= ONCE_WITHIN)
    }

    /// A peer is none any more.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.members.0.remove(&peer);
        self.guests.0.remove(&peer);
    }

    /// A peer was sent a message.
    pub(super) fn answered(&mut self, ctx: &Ctx, peer: PeerKey, key: MessageKey) {
        if let Some(budget) = self.of(ctx.peers.is_guest(peer)).get_mut(&peer) {
            budget.message = Some((key, ctx.now));
        }
    }
}

/// Set by set, the shreds that answer a request.
fn wanted<'a>(store: &'a Store, request: &RepairRequest) -> Vec<(&'a CompleteSet, Vec<u8>)> {
    let Some(sets) = store.sets(&request.key()) else { return Vec::new() };
    if request.attempt >= MAX_ATTEMPTS {
        return Vec::new();
    }
    if request.set == WHOLE {
        let mut left = MAX_WHOLE;
        let data = |set: &CompleteSet| (0..set.header().k).collect();
        return sets
            .values()
            .take_while(|set| {
                let len = usize::from(set.header().k) * set.header().shred_len();
                let first = left == MAX_WHOLE;
                let fits = len <= left;
                left = left.saturating_sub(len);
                fits || first
            })
            .map(|set| (set, data(set)))
            .collect();
    }
    let Some(set) = sets.get(&request.set) else { return Vec::new() };
    let header = set.header();
    let shards = header.shards() as u8;
    let has = |index: &u8| request.have >> index & 1 == 1;
    let held = (0..shards).filter(has).count();
    let need = usize::from(header.k).saturating_sub(held);
    let missing: Vec<u8> = (0..shards).filter(|index| !has(index)).take(need).collect();
    if missing.is_empty() { Vec::new() } else { vec![(set, missing)] }
}

impl Repair {
    /// Answers a request, or counts why not.
    pub(in crate::protocol) fn take_request(
        &mut self,
        ctx: &mut Ctx,
        recent: &Recent,
        from: PeerKey,
        request: &RepairRequest,
    ) -> Outcome {
        if !ctx.config.repair.enabled {
            return Outcome::RepairLacking;
        }
        if !self.budgets.take(ctx, from, REQUEST_COST) {
            return Outcome::RepairRefused;
        }
        if let Some(outcome) = self.answer_with_message(ctx, recent, from, request) {
            return outcome;
        }
        let answer = wanted(&self.store, request);
        if answer.is_empty() {
            return Outcome::RepairLacking;
        }
        for (set, indices) in answer {
            for indices in indices.chunks(MAX_ANSWER_SHREDS) {
                let bytes = indices.len() * set.header().shred_len();
                if !self.budgets.take(ctx, from, bytes) {
                    return Outcome::RepairRefused;
                }
                let shreds: Vec<Bytes> = indices.iter().map(|index| set.shred(*index)).collect();
                let frame = RepairShreds { nonce: request.nonce, shreds };
                let payload = Payload::Control(Control::RepairShreds(frame).to_bytes());
                if !ctx.egress.push(Transmit { to: from, lane: Lane::Repair, payload }) {
                    return Outcome::RepairRefused;
                }
                ctx.counters.repair_answered_shreds += indices.len() as u64;
                ctx.counters.repair_answered_bytes += bytes as u64;
            }
        }
        Outcome::Control
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_has_a_burst_and_a_rate_and_forgets_who_is_quiet() {
        let config =
            RepairConfig { answer_bps: 8_000_000, answer_burst: 10_000, ..Default::default() };
        let mut budgets = Budgets::new(&config, 8_000_000);
        let take =
            |budgets: &mut Budgets, now, peer, bytes| budgets.take_of_member(now, peer, bytes);
        let start = Timestamp::from_nanos(5);
        let taken = (0..20).filter(|_| take(&mut budgets, start, PeerKey::from(1), 1_000)).count();
        assert_eq!(taken, 10, "the burst");
        assert!(take(&mut budgets, start, PeerKey::from(2), 10_000), "another peer has its own");
        let later = start + Duration::from_millis(3);
        let taken = (0..20).filter(|_| take(&mut budgets, later, PeerKey::from(1), 1_000)).count();
        assert_eq!(taken, 3, "a megabyte a second");
        for peer in 0..MAX_BUDGETS as u32 + 10 {
            take(&mut budgets, later, PeerKey::from(peer), 1);
        }
        assert_eq!(budgets.members.0.len(), MAX_BUDGETS);
        assert!(take(&mut budgets, later + Duration::from_secs(1), PeerKey::from(9_999), 1));
        assert_eq!(budgets.members.0.len(), 1);
    }

    #[test]
    fn guests_have_a_budget_together_and_shut_out_no_member() {
        let config =
            RepairConfig { answer_bps: 8_000_000, answer_burst: 100_000, ..Default::default() };
        let mut budgets = Budgets::new(&config, 8_000_000);
        let start = Timestamp::from_nanos(5);
        let mut take = |now, guests: std::ops::Range<u32>, bytes| {
            let guests = guests.map(PeerKey::from);
            guests.filter(|guest| budgets.take_of_guest(now, *guest, bytes)).count()
        };
        assert_eq!(take(start, 1..2, 50_001), 0, "half of a member's burst");
        assert_eq!(take(start, 1..1_000, 10_000), 10, "of all guests");
        assert_eq!(take(start, 5_000..15_000, 1), 0);
        // Half of a megabyte a second.
        let later = start + Duration::from_millis(100);
        assert_eq!(take(later, 1..1_000, 10_000), 5);
        assert!(budgets.guests.0.len() <= MAX_BUDGETS);
        assert!(budgets.take_of_member(later, PeerKey::from(99_999), 100_000));
    }
}
