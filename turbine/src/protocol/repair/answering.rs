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
/// A guest may be sent so much less than a member.
const GUESTS_SHARE: u64 = 5;
/// Budgets in use at a time, 64 bytes each.
const MAX_BUDGETS: usize = 4096;

/// One peer's budget.
#[derive(Default)]
struct Budget {
    bytes: Bucket,
    /// The message that it was sent last, from the beginning, and when.
    message: Option<(MessageKey, Timestamp)>,
}

/// What each peer may still be sent. A bucket that is full again needs no entry.
pub(super) struct Budgets {
    rate: Rate,
    rate_of_guest: Rate,
    peers: BTreeMap<PeerKey, Budget>,
}

impl Budgets {
    pub(super) fn new(config: &RepairConfig) -> Self {
        // Eight bits a byte: as many bytes in eight seconds as bits in one.
        let period = Duration::from_secs(8);
        let (bps, burst) = (config.answer_bps.max(1_000), config.answer_burst as u64);
        let rate = Rate::new(bps, period, burst);
        let rate_of_guest = Rate::new(bps.div_ceil(GUESTS_SHARE), period, burst);
        Self { rate, rate_of_guest, peers: BTreeMap::new() }
    }

    /// Takes `bytes` off a peer's budget, or says that it has not so much left.
    pub(super) fn take(&mut self, ctx: &Ctx, peer: PeerKey, bytes: usize) -> bool {
        let rate = if ctx.peers.is_guest(peer) { self.rate_of_guest } else { self.rate };
        self.take_at(ctx.now, &rate, peer, bytes)
    }

    fn take_at(&mut self, now: Timestamp, rate: &Rate, peer: PeerKey, bytes: usize) -> bool {
        if !self.peers.contains_key(&peer) && self.peers.len() >= MAX_BUDGETS {
            self.peers.retain(|_, budget| !budget.bytes.is_full(now));
            if self.peers.len() >= MAX_BUDGETS {
                return false;
            }
        }
        let budget = self.peers.entry(peer).or_default();
        budget.bytes.take(now, rate, bytes as u64)
    }

    /// Whether a peer has not been sent a message just now.
    pub(super) fn is_first(&self, now: Timestamp, peer: PeerKey, key: &MessageKey) -> bool {
        let last = self.peers.get(&peer).and_then(|budget| budget.message);
        last.is_none_or(|(of, at)| of != *key || now.since(at) >= ONCE_WITHIN)
    }

    /// A peer is none any more.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.peers.remove(&peer);
    }

    /// A peer was sent a message.
    pub(super) fn answered(&mut self, now: Timestamp, peer: PeerKey, key: MessageKey) {
        if let Some(budget) = self.peers.get_mut(&peer) {
            budget.message = Some((key, now));
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
        let mut budgets = Budgets::new(&config);
        let rate = budgets.rate;
        let take =
            |budgets: &mut Budgets, now, peer, bytes| budgets.take_at(now, &rate, peer, bytes);
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
        assert_eq!(budgets.peers.len(), MAX_BUDGETS);
        assert!(take(&mut budgets, later + Duration::from_secs(1), PeerKey::from(9_999), 1));
        assert_eq!(budgets.peers.len(), 1);
    }
}
