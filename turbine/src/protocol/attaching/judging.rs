//! Whether the primary is in time, and how much of what it sends is lost.

use std::time::Duration;

use fragcast_shredder::{MessageKey, SetHeader};

use super::{
    AHEAD, AVOID, Attaching, KNOWN, LATE, LATE_IN_A_ROW, PROVED, SEEN, SETTLED, Seen, WINDOW,
};
use crate::control::{MAX_EXTRA, Share, Tips};
use crate::peer::PeerKey;
use crate::protocol::ctx::Ctx;

impl Attaching {
    pub(super) fn seen(&mut self, key: MessageKey) -> &mut Seen {
        if self.seen.len() >= SEEN && !self.seen.contains_key(&key) {
            self.seen.pop_first();
        }
        self.seen.entry(key).or_default()
    }

    /// A shred has come by itself.
    pub(in crate::protocol) fn note_shred(&mut self, ctx: &Ctx, from: PeerKey, header: &SetHeader) {
        if ctx.is_guest && self.primary == Some(from) {
            self.heard_at = ctx.now;
            self.seen(header.message_key()).came += 1;
        }
    }

    /// A peer tells what it has: of each block the newest message counts.
    pub(in crate::protocol) fn note_tips(&mut self, ctx: &Ctx, from: PeerKey, tips: &Tips) {
        if !ctx.is_guest {
            return;
        }
        self.heard_at = ctx.now;
        if self.primary == Some(from) {
            return;
        }
        for tip in &tips.tips {
            let above = (u64::BITS - tip.above.leading_zeros()) as u16;
            let count = if above > 0 { tip.row.saturating_add(1 + above) } else { tip.row };
            let Some(message) = count.checked_sub(1) else { continue };
            let key = MessageKey { block: tip.block, attempt: tip.attempt, message };
            if self.can_be(ctx, &key) {
                self.seen(key).told.get_or_insert((from, ctx.now));
            }
        }
    }

    /// Whether another may have a message that is not here: one of the next few of the newest block,
    /// or of the first ones of an attempt or a block after it.
    fn can_be(&self, ctx: &Ctx, key: &MessageKey) -> bool {
        let (low, high) = ctx.window.bounds();
        let Some(newest) = self.newest.filter(|_| (low..=high).contains(&key.block)) else {
            return false;
        };
        // What is older is here, or was missed long ago.
        *key > newest
            && if (key.block, key.attempt) == (newest.block, newest.attempt) {
                key.message - newest.message <= AHEAD
            } else {
                key.block - newest.block <= 1 && key.message < AHEAD
            }
    }

    /// A message is whole by shreds: is the primary in time?
    pub(in crate::protocol) fn note_whole(&mut self, ctx: &mut Ctx, header: &SetHeader) {
        if !ctx.is_guest {
            return;
        }
        let (now, key, extra) = (ctx.now, header.message_key(), self.extra);
        self.newest = self.newest.max(Some(key));
        let need = u32::from(header.k) * u32::from(header.sets);
        let sent = need + u32::from(extra.min(header.m)) * u32::from(header.sets);
        let seen = self.seen(key);
        seen.whole = Some((now, need, sent));
        let (told, came) = (seen.told, seen.came);
        let late = told.map_or(Duration::ZERO, |(_, told)| now.since(told));
        // How often who told of it was right before.
        let by = told.map(|(by, _)| by).filter(|by| ctx.peers.can_ask(*by));
        let proved = by.map_or(0, |by| {
            let proved = self.proved.entry(by).or_default();
            let before = *proved;
            *proved = (before + 1).min(PROVED);
            before
        });
        let counts = came == 0 || (late > LATE && proved >= PROVED);
        // What was on its way when it became primary is not its fault.
        if now < self.since + SETTLED {
            return;
        }
        // Who has no place for this node is asked for no sets.
        if self.primary.is_some_and(|primary| self.most(now, primary) < Share::All) {
            return;
        }
        if self.window.len() >= WINDOW {
            self.window.pop_front();
        }
        self.window.push_back((late, counts));
        let in_a_row = self.window.iter().rev().take_while(|(_, counts)| *counts).count();
        let all = self.window.iter().filter(|(_, counts)| *counts).count();
        let many = self.window.len() >= KNOWN && all * 2 > self.window.len();
        if let Some(primary) = self.primary
            && (in_a_row >= LATE_IN_A_ROW || many)
        {
            self.avoid(now, primary, AVOID.0, true);
            self.step(ctx);
        }
    }

    /// Counts what came of the primary's shreds, of messages of which all have come that will.
    pub(super) fn settle(&mut self, ctx: &Ctx) {
        let mut k = 0;
        let done = |seen: &Seen| seen.whole.is_some_and(|(at, ..)| ctx.now >= at + SETTLED);
        for seen in self.seen.values().filter(|seen| done(seen) && seen.came > 0) {
            let Some((_, need, sent)) = seen.whole else { continue };
            let lost = 1.0 - f64::from(seen.came.min(sent)) / f64::from(sent.max(1));
            // As much for a shred, however many the message has.
            let weight = (f64::from(sent) / 1_000.0).min(0.5);
            self.loss += (lost - self.loss) * weight;
            k = k.max(need.min(64));
        }
        let (newest, proved) = (self.newest.map_or(0, |key| key.block), &mut self.proved);
        self.seen.retain(|key, seen| {
            // What one told of and has not come is not there.
            let untrue = seen.told.filter(|_| seen.whole.is_none() && key.block + 1 < newest);
            untrue.map(|(by, _)| proved.remove(&by));
            !done(seen) && untrue.is_none()
        });
        if k == 0 {
            return;
        }
        // The mean and 2.3 standard deviations of what is lost of a set.
        let mean = f64::from(k) * self.loss;
        let most = (mean + 2.3 * mean.sqrt()).ceil().min(f64::from(MAX_EXTRA)) as u8;
        // Down one at a time: what is saved is little.
        self.extra = if most >= self.extra { most } else { self.extra - 1 };
    }
}
