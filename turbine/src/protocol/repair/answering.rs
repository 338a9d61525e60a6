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
/// All members together are sent this part of the uplink at most, and one of them this part of that: so
/// however many ask for however much, what is told unasked, such as tips, leaves as well.
const UPLINK_SHARE: u64 = 2;
const EACH_SHARE: u64 = 2;
/// What all members may be sent at once, as the time that the uplink takes for it, since after a loss
/// that many had they ask at the same moment; a few frames at least.
const AT_ONCE_MS: u64 = 50;
const LEAST_BURST: usize = 64 * 1024;
/// The most that is taken off a budget at once: what one member may be sent at once over the narrowest
/// uplink, or who asks it for a long message would never have it.
pub(super) const MAX_TAKEN: usize = LEAST_BURST / EACH_SHARE as usize;
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

/// Budgets by peer, and what all of them have been sent. A bucket that is full again needs no entry.
#[derive(Default)]
struct Spent {
    each: BTreeMap<PeerKey, Budget>,
    together: Bucket,
}

impl Spent {
    /// The budget of a peer, if there is room for it.
    fn get(&mut self, now: Timestamp, peer: PeerKey) -> Option<&mut Budget> {
        if !self.each.contains_key(&peer) && self.each.len() >= MAX_BUDGETS {
            self.each.retain(|_, budget| !budget.bytes.is_full(now));
            if self.each.len() >= MAX_BUDGETS {
                return None;
            }
        }
        Some(self.each.entry(peer).or_default())
    }

    /// Takes `bytes` off a peer's budget and that of all. What all together have not is not taken off
    /// its own.
    fn take(&mut self, now: Timestamp, rates: &Rates, peer: PeerKey, bytes: u64) -> bool {
        let Some(mut own) = self.get(now, peer).map(|budget| budget.bytes) else { return false };
        let fits =
            own.take(now, &rates.each, bytes) && self.together.take(now, &rates.together, bytes);
        if fits && let Some(budget) = self.each.get_mut(&peer) {
            budget.bytes = own;
        }
        fits
    }
}

/// The rates of one class of peers.
struct Rates {
    each: Rate,
    together: Rate,
}

/// What each peer may still be sent, and all of its class together. Guests, of whom anybody can make
/// many, have entries of their own and take none from members.
pub(super) struct Budgets {
    of_members: Rates,
    of_guests: Rates,
    members: Spent,
    guests: Spent,
}

impl Budgets {
    /// Within these settings, of a node with this uplink that sends guests so much.
    pub(super) fn new(config: &RepairConfig, uplink_bps: u64, guests_bps: u64) -> Self {
        // Eight bits a byte: as many bytes in eight seconds as bits in one.
        let rate = |bps: u64, burst: usize| {
            Rate::new(bps.max(1_000), Duration::from_secs(8), burst as u64)
        };
        let burst = config.answer_burst;
        let all = uplink_bps / UPLINK_SHARE;
        let bps = config.answer_bps.min(all / EACH_SHARE);
        let at_once = usize::try_from(uplink_bps / 8 * AT_ONCE_MS / 1_000).unwrap_or(usize::MAX);
        let at_once = at_once.max(LEAST_BURST);
        let own = burst.min(at_once / EACH_SHARE as usize);
        Self {
            of_members: Rates { each: rate(bps, own), together: rate(all, at_once) },
            of_guests: Rates {
                each: rate(bps / GUESTS_SHARE, burst / GUESTS_BURST),
                together: rate(guests_bps / ANSWERS_SHARE, burst),
            },
            members: Spent::default(),
            guests: Spent::default(),
        }
    }

    /// Takes `bytes` off a peer's budget and that of all of its class, or says that there is not so much
    /// left, or that enough waits for guests.
    pub(super) fn take(&mut self, ctx: &Ctx, peer: PeerKey, bytes: usize) -> bool {
        match ctx.peers.is_guest(peer) {
            true => {
                !ctx.egress.guests_lane_is_half_full() && self.take_of_guest(ctx.now, peer, bytes)
            }
            false => self.take_of_member(ctx.now, peer, bytes),
        }
    }

    fn take_of_member(&mut self, now: Timestamp, peer: PeerKey, bytes: usize) -> bool {
        self.members.take(now, &self.of_members, peer, bytes as u64)
    }

    fn take_of_guest(&mut self, now: Timestamp, peer: PeerKey, bytes: usize) -> bool {
        self.guests.take(now, &self.of_guests, peer, bytes as u64)
    }

    const fn of(&mut self, guest: bool) -> &mut BTreeMap<PeerKey, Budget> {
        if guest { &mut self.guests.each } else { &mut self.members.each }
    }

    /// Whether a peer has not been sent a message just now.
    pub(super) fn is_first(&mut self, ctx: &Ctx, peer: PeerKey, key: &MessageKey) -> bool {
        let budget = self.of(ctx.peers.is_guest(peer)).get(&peer);
        let last = budget.and_then(|budget| budget.message);
        last.is_none_or(|(of, at)| of != *key || ctx.now.since(at) >= ONCE_WITHIN)
    }

    /// A peer is none any more.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.members.each.remove(&peer);
        self.guests.each.remove(&peer);
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
        let mut budgets = Budgets::new(&config, 1_000_000_000, 8_000_000);
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
        assert_eq!(budgets.members.each.len(), MAX_BUDGETS);
        assert!(take(&mut budgets, later + Duration::from_secs(1), PeerKey::from(9_999), 1));
        assert_eq!(budgets.members.each.len(), 1);
    }

    #[test]
    fn what_is_taken_at_once_for_a_long_message_fits_over_narrow_uplinks() {
        let mut budgets = Budgets::new(&RepairConfig::default(), 1_000_000, 1_000_000);
        let start = Timestamp::from_nanos(5);
        assert!(budgets.take_of_member(start, PeerKey::from(1), MAX_TAKEN));
        assert!(budgets.take_of_guest(start, PeerKey::from(2), MAX_TAKEN));
    }

    #[test]
    fn guests_have_a_budget_together_and_shut_out_no_member() {
        let config =
            RepairConfig { answer_bps: 8_000_000, answer_burst: 100_000, ..Default::default() };
        let mut budgets = Budgets::new(&config, 1_000_000_000, 8_000_000);
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
        assert!(budgets.guests.each.len() <= MAX_BUDGETS);
        assert!(budgets.take_of_member(later, PeerKey::from(99_999), 100_000));
    }
}
