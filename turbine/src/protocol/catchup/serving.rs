//! Answering peers that catch up, within budgets.
//!
//! All of them are sent a quarter of the uplink, behind everything else that this node sends, and only
//! while little of it waits: whoever asks keeps nobody waiting for what is live, and is told soon that
//! there is nothing for it now.

use std::collections::BTreeMap;
use std::time::Duration;

use alloy_primitives::B256;
use bytes::Bytes;

use super::Archive;
use crate::bucket::{Bucket, Rate};
use crate::control::{BLOCK_PART_LEN, BlockPart, BlocksEnd, BlocksRequest, Control, MAX_PARTS};
use crate::egress::{Lane, Payload, Transmit};
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::protocol::config::CatchUpConfig;
use crate::protocol::ctx::Ctx;
use crate::protocol::fallback::cost;
use crate::protocol::repair::ENCODING_SHARE;
use crate::time::Timestamp;

/// What a request and each message of an answer cost of the budget beside their bytes: with less,
/// small messages would cost more time than their bytes pay for.
const FIXED_COST: u64 = 1_024;
/// All members together are sent this part of the uplink at most, and all guests this part of what is
/// sent to guests: neither is counted with the other.
const SHARE: u64 = 4;
/// One peer is sent this part of what all together are: one that always asks keeps out no other.
const EACH_SHARE: u64 = 2;
/// A guest may be sent so much less than a member.
const GUESTS_SHARE: u64 = 8;
/// Budgets in use at a time, of members and of guests each, 64 bytes each.
const MAX_BUDGETS: usize = 4096;
/// How often a peer that has nothing left of its budget is told the end of an answer at once.
const END_EVERY: Duration = Duration::from_millis(100);

/// What a peer has been sent.
#[derive(Debug, Default)]
struct Budget {
    spent: Bucket,
    /// When it may be told again that there is nothing for it now.
    end_at: Timestamp,
}

/// What peers that catch up may still be sent: each by itself, and all together.
pub(in crate::protocol) struct Serving {
    each: Rate,
    all: Rate,
    spent: Bucket,
    each_guest: Rate,
    all_guests: Rate,
    spent_by_guests: Bucket,
    members: BTreeMap<PeerKey, Budget>,
    /// Of whom anybody can make many: they take no entry from members.
    guests: BTreeMap<PeerKey, Budget>,
    /// The message that was encoded last: a long one is asked for several times.
    encoded: Option<(B256, Bytes)>,
}

impl Serving {
    /// Within these settings, of a node with this uplink that sends guests so much.
    pub(in crate::protocol) fn new(
        config: &CatchUpConfig,
        uplink_bps: u64,
        guests_bps: u64,
    ) -> Self {
        // Eight bits a byte: as many bytes in eight seconds as bits in one.
        let rate = |bps: u64, burst: usize| {
            Rate::new(bps.max(1_000), Duration::from_secs(8), burst as u64)
        };
        let all = config.answers_bps.min(uplink_bps / SHARE);
        let each = config.answer_bps.min(all / EACH_SHARE);
        let all_guests = config.answers_bps.min(guests_bps / SHARE);
        let each_guest = (each / GUESTS_SHARE).min(all_guests / EACH_SHARE);
        Self {
            each: rate(each, config.answer_burst),
            all: rate(all, config.answer_burst * 2),
            spent: Bucket::default(),
            each_guest: rate(each_guest, config.answer_burst / 2),
            all_guests: rate(all_guests, config.answer_burst),
            spent_by_guests: Bucket::default(),
            members: BTreeMap::new(),
            guests: BTreeMap::new(),
            encoded: None,
        }
    }

    /// Takes `bytes` off a peer's budget and that of all, or says that there is not so much left.
    fn take(&mut self, ctx: &Ctx, peer: PeerKey, bytes: u64) -> bool {
        self.take_at(ctx.now, ctx.peers.is_guest(peer), peer, bytes)
    }

    fn take_at(&mut self, now: Timestamp, guest: bool, peer: PeerKey, bytes: u64) -> bool {
        let (budgets, (each, all), together) = match guest {
            true => {
                let rates = (&self.each_guest, &self.all_guests);
                (&mut self.guests, rates, &mut self.spent_by_guests)
            }
            false => (&mut self.members, (&self.each, &self.all), &mut self.spent),
        };
        if !budgets.contains_key(&peer) && budgets.len() >= MAX_BUDGETS {
            budgets.retain(|_, budget| !budget.spent.is_full(now));
            if budgets.len() >= MAX_BUDGETS {
                return false;
            }
        }
        let budget = budgets.entry(peer).or_default();
        // What all together have not is not taken off its own.
        let mut own = budget.spent;
        let fits = own.take(now, each, bytes) && together.take(now, all, bytes);
        if fits {
            budget.spent = own;
        }
        fits
    }

    /// A peer is none any more.
    pub(in crate::protocol) fn forget(&mut self, peer: PeerKey) {
        self.members.remove(&peer);
        self.guests.remove(&peer);
    }

    /// Answers a request as far as budgets and one answer go, and ends the answer.
    pub(in crate::protocol) fn answer(
        &mut self,
        ctx: &mut Ctx,
        archive: &Archive,
        from: PeerKey,
        request: &BlocksRequest,
    ) -> Outcome {
        if !ctx.config.repair.enabled {
            return Outcome::RepairRefused;
        }
        if !self.take(ctx, from, FIXED_COST) {
            // It need not wait for what does not come.
            let (now, guest) = (ctx.now, ctx.peers.is_guest(from));
            let budgets = if guest { &mut self.guests } else { &mut self.members };
            if let Some(budget) = budgets.get_mut(&from).filter(|b| now >= b.end_at) {
                budget.end_at = now + END_EVERY;
                Self::end(ctx, archive, from, request.nonce);
            }
            return Outcome::RepairRefused;
        }
        let mut parts = 0;
        let mut have = request.have as usize;
        let wanted = archive.from(request.block, request.message, request.last);
        'all: for (key, message) in wanted {
            let (root, kind) = (message.root(), message.message().kind());
            // Before anything is encoded for nothing.
            if !ctx.egress.takes_blocks(from) || !self.take(ctx, from, FIXED_COST) {
                break;
            }
            let wire = match &self.encoded {
                Some((of, wire)) if *of == root => wire.clone(),
                _ => {
                    if !self.take(ctx, from, (cost(message) / ENCODING_SHARE) as u64) {
                        break;
                    }
                    let wire = Bytes::from(message.to_wire().into_boxed_slice());
                    self.encoded = Some((root, wire.clone()));
                    wire
                }
            };
            let total = wire.len() as u32;
            // Only the first message is wanted from its middle on.
            let have = std::mem::take(&mut have);
            if have >= wire.len() {
                // It has what there is not.
                break;
            }
            let first = have / BLOCK_PART_LEN * BLOCK_PART_LEN;
            for offset in (first..wire.len()).step_by(BLOCK_PART_LEN) {
                let bytes = wire.slice(offset..wire.len().min(offset + BLOCK_PART_LEN));
                let len = bytes.len() as u64;
                let ends = parts >= MAX_PARTS || !ctx.egress.takes_blocks(from);
                if ends || !self.take(ctx, from, len) {
                    break 'all;
                }
                let (nonce, offset) = (request.nonce, offset as u32);
                let part = BlockPart { nonce, key, kind, total, offset, bytes };
                let payload = Payload::Control(Control::BlockPart(part).to_bytes());
                if !ctx.egress.push(Transmit { to: from, lane: Lane::Backfill, payload }) {
                    break 'all;
                }
                parts += 1;
                ctx.counters.blocks_answered_bytes += len;
            }
        }
        Self::end(ctx, archive, from, request.nonce);
        if parts > 0 { Outcome::Control } else { Outcome::RepairLacking }
    }

    /// What a peer whose connection is up is told: which whole blocks are kept here, as the end of an
    /// answer to no question. `None` while none is, but will be.
    pub(in crate::protocol) fn greeting(ctx: &Ctx, archive: &Archive) -> Option<Control> {
        let (first, last) = archive.range();
        let keeps = ctx.config.repair.enabled && ctx.config.catch_up.memory > 0;
        let (first, last) = if keeps { (first, last) } else { (1, 0) };
        let end = BlocksEnd { nonce: BlocksEnd::GREETING, first, last };
        (first <= last || !keeps).then_some(Control::BlocksEnd(end))
    }

    /// Says that an answer is at its end, and what is kept here.
    fn end(ctx: &mut Ctx, archive: &Archive, to: PeerKey, nonce: u64) {
        let (first, last) = archive.range();
        let payload =
            Payload::Control(Control::BlocksEnd(BlocksEnd { nonce, first, last }).to_bytes());
        ctx.egress.push(Transmit { to, lane: Lane::Backfill, payload });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_take_no_budget_from_members() {
        let mut serving = Serving::new(&CatchUpConfig::default(), 4_000_000_000, 1_000_000_000);
        let now = Timestamp::from_nanos(5);
        for guest in 0..2 * MAX_BUDGETS as u32 {
            serving.take_at(now, true, PeerKey::from(guest), 1);
        }
        assert_eq!(serving.guests.len(), MAX_BUDGETS);
        assert!(serving.take_at(now, false, PeerKey::from(99_999), 1_000));
        assert!(!serving.take_at(now, true, PeerKey::from(99_999), 1));
        serving.forget(PeerKey::from(1));
        assert!(serving.take_at(now, true, PeerKey::from(99_999), 1));
    }
}
