//! Who has a plan of this node's own. A new plan takes effect once relays with [`ENOUGH`] of the
//! weight of those that are connected have acknowledged it; until then the one before it stays.
//!
//! Who keeps silent for [`PATIENCE`] is no relay of the next plan: so nobody keeps a plan from
//! taking effect by not answering, but its own place in it.

use std::time::Duration;

use super::{Leading, OwnPlan};
use crate::membership::PeerIndex;
use crate::peer::PeerKey;
use crate::protocol::connecting;
use crate::protocol::ctx::Ctx;
use crate::protocol::epochs::Living;
use crate::protocol::plans::CONNECTING;

/// Of the relays' weight, in tenths.
const ENOUGH: u128 = 9;
/// How long a member may take to acknowledge a plan.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

impl OwnPlan {
    /// The relays that are connected, with their weights, and whether each has acknowledged it.
    fn relays<'a>(
        &'a self,
        ctx: &'a Ctx,
        living: &'a Living,
    ) -> impl Iterator<Item = (PeerIndex, u64, bool)> + 'a {
        let relays = self.view.relays().iter().copied().zip(self.view.weights().iter());
        let me = living.me();
        relays
            .filter(move |(member, _)| {
                Some(*member) != me && ctx.peers.is_connected(living.key(*member))
            })
            .map(|(member, weight)| (member, weight, self.acks.contains(&member)))
    }

    fn is_acknowledged(&self, ctx: &Ctx, living: &Living) -> bool {
        let (mut all, mut acked) = (0, 0);
        for (_, weight, has_it) in self.relays(ctx, living) {
            all += u128::from(weight);
            acked += if has_it { u128::from(weight) } else { 0 };
        }
        acked * 10 >= all * ENOUGH
    }

    /// Relays that were told long ago and have not acknowledged it.
    pub(super) fn silent(&self, ctx: &Ctx, living: &Living) -> Vec<PeerIndex> {
        if self.effective.is_some() || ctx.now.since(self.told_at) < PATIENCE {
            return Vec::new();
        }
        self.relays(ctx, living).filter(|(.., has_it)| !has_it).map(|(member, ..)| member).collect()
    }
}

impl Leading {
    /// A peer says that it has a plan. Says whether it is one that was told and waits for it.
    pub(in crate::protocol) fn acknowledged(&mut self, ctx: &Ctx, from: PeerKey, id: u64) -> bool {
        self.planning.heard(from);
        let mut waits = false;
        for plans in &mut self.plans {
            let next = plans.next.as_mut().filter(|next| next.view.id() == id);
            let living = ctx.epochs.iter().find(|l| l.epoch().from_block() == plans.from_block);
            let member = living.and_then(|living| living.index(from));
            if let (Some(next), Some(member)) = (next, member) {
                waits |= next.acks.insert(member);
            }
        }
        waits
    }

    /// Lets plans that enough members have take effect from the next block on: one that has begun
    /// keeps its plan.
    pub(super) fn settle(&mut self, ctx: &Ctx) {
        let first = self.led.map_or(0, |led| led + 1);
        for plans in &mut self.plans {
            let Some(next) = plans.next.as_mut().filter(|next| next.effective.is_none()) else {
                continue;
            };
            let living = ctx.epochs.iter().find(|l| l.epoch().from_block() == plans.from_block);
            let bounded = connecting::is_bounded(ctx);
            if bounded && ctx.now.since(next.told_at) < CONNECTING {
                continue;
            }
            if living.is_some_and(|living| next.is_acknowledged(ctx, living)) {
                next.effective = Some(first);
            }
        }
    }
}
