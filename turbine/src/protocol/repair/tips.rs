//! Telling a few peers what this node has: a small anti-entropy, without which nobody notices the
//! loss of what was sent last.

use std::time::Duration;

use super::store::Opening;
use super::{Repair, draw_peer};
use crate::control::{Control, MAX_TIPS, Tips};
use crate::egress::{Lane, Payload, Transmit};
use crate::gossip::Mode;
use crate::peer::PeerKey;
use crate::protocol::config::RepairConfig;
use crate::protocol::ctx::Ctx;
use crate::time::Timestamp;

/// A near peer is the nearest of so many that are drawn: those that are far from everybody are
/// told by every other tip.
const NEAR_OF: u64 = 4;

/// When tips are due, and what was in the last.
#[derive(Debug, Default)]
pub(super) struct Telling {
    at: Option<Timestamp>,
    /// How often they were sent.
    ticks: u64,
    /// The older opening that was told of last.
    cursor: Opening,
}

fn interval(config: &RepairConfig) -> Duration {
    // Not zero: time must move on between two timeouts.
    config.tips_every.max(Duration::from_millis(1))
}

impl Telling {
    /// When tips are due.
    pub(super) const fn at(&self) -> Option<Timestamp> {
        self.at
    }

    /// There is something to tell of.
    pub(super) fn begin(&mut self, now: Timestamp, config: &RepairConfig) {
        self.at.get_or_insert_with(|| now + interval(config));
    }

    /// There is nothing to tell of any more.
    pub(super) const fn stop(&mut self) {
        self.at = None;
    }

    /// Tips were sent: the next are due in a while.
    fn sent(&mut self, now: Timestamp, config: &RepairConfig) {
        self.ticks += 1;
        self.at = Some(now + interval(config));
    }
}

impl Repair {
    /// Tells a few peers what this node has, while there is news of it.
    pub(super) fn send_tips(&mut self, ctx: &mut Ctx) {
        let config = &ctx.config.repair;
        let mut tips = self.store.active(ctx.now, MAX_TIPS - 1, config.recent, config.open);
        if tips.is_empty() {
            self.telling.stop();
            return;
        }
        // One older block at a time, for those that were away.
        if let Some(older) = self.store.after(self.telling.cursor) {
            self.telling.cursor = (older.block, older.attempt);
            if !tips.contains(&older) {
                tips.push(older);
            }
        }
        let frame = Control::Tips(Tips { tips }).to_bytes();
        let mut told: Vec<PeerKey> = Vec::new();
        for n in 0..config.tips_to as u64 {
            let seed = [u64::from(ctx.me().number()), self.telling.ticks, n];
            let first = draw_peer(ctx, &seed, |peer| told.contains(&peer));
            // Every other one is a near one: it can be asked soonest by whom it has told.
            let more = (1..if n % 2 == 1 { NEAR_OF } else { 1 }).filter_map(|draw| {
                draw_peer(ctx, &[seed[0], seed[1], n, draw], |peer| told.contains(&peer))
            });
            let drawn = first.into_iter().chain(more);
            told.extend(drawn.min_by_key(|peer| self.distance(ctx, *peer)));
        }
        for to in told {
            let payload = Payload::Control(frame.clone());
            let sent = ctx.egress.push(Transmit { to, lane: Lane::Bulk, payload });
            ctx.counters.tips += u64::from(sent);
        }
        let guests: Vec<PeerKey> = ctx.seats.peers().collect();
        for to in guests {
            let payload = Payload::Control(frame.clone());
            ctx.egress.push(Transmit { to, lane: Lane::Guest, payload });
        }
        self.telling.sent(ctx.now, &ctx.config.repair);
    }

    /// What a peer that connects is told of what this node has.
    pub(in crate::protocol) fn greeting(&self, ctx: &Ctx) -> Option<Control> {
        if ctx.mode == Mode::Gossip {
            return None;
        }
        let tips = self.store.newest(MAX_TIPS);
        (!tips.is_empty()).then_some(Control::Tips(Tips { tips }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tips_are_due_once_an_interval_from_the_first_news_on() {
        let config = RepairConfig { tips_every: Duration::ZERO, ..RepairConfig::default() };
        let at = Timestamp::from_nanos;
        let mut telling = Telling::default();
        telling.begin(at(5), &config);
        telling.begin(at(500_000), &config);
        assert_eq!(telling.at(), Some(at(1_000_005)), "never at once, and not put off by news");
        telling.sent(at(1_000_005), &config);
        assert_eq!((telling.at(), telling.ticks), (Some(at(2_000_005)), 1));
        telling.stop();
        assert_eq!(telling.at(), None);
    }
}
