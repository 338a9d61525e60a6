//! Whom to ask for a message.
//!
//! First those whose tips have it whole. Then, if it is certain that there is something to have,
//! in turns: those that sent a shred of it, or members of this node's region; and peers that are
//! drawn among all. For in the regional tree the members of a region lack the same when its head
//! was silent. The leader late. Of each kind one of the nearest that was not asked yet, by the
//! round trip that was measured, or by the region that the shred's plan names where it was not.
//! [`Answerers`](super::answerers::Answerers) puts those behind that answer nothing.
//!
//! Those that are [`ALIKE`] far take turns, by message and node, and each node draws others, so
//! not everybody asks the same one.

use fragcast_shredder::MessageKey;

use super::want::Want;
use super::{Repair, draw_peer, mix};
use crate::membership::PeerIndex;
use crate::peer::PeerKey;
use crate::protocol::ctx::Ctx;
use crate::protocol::epochs::Living;

/// From this try on two peers are asked at once: one in vain costs the time of an answer from far
/// away.
const TWO_FROM: usize = 1;
/// The leader is asked on the last of so many tries.
const LEADER_EVERY: usize = 4;
/// Peers that are drawn among all, and among those of this node's region.
const DRAWN: u64 = 6;
const DRAWN_OF_REGION: u64 = 3;
/// Round trips that count where nothing was measured, in µs: to a peer of this node's region, and
/// to another one.
const UNMEASURED: (u32, u32) = (3_000, 150_000);
/// Peers count as alike up to so many times the nearest's round trip, and so many µs.
const ALIKE: (u32, u32) = (2, 2_000);

/// This node's region in a plan.
struct Region<'a> {
    living: &'a Living,
    members: &'a [PeerIndex],
}

impl<'a> Region<'a> {
    /// `None` if the plan is not known or names no regions.
    fn of_plan(ctx: &'a Ctx, block: u64, plan: u64) -> Option<Self> {
        let living = ctx.epochs.at(block)?;
        let (me, regions) = (living.me()?, living.plans.get(plan)?.regions());
        let several = regions.regions().len() > 1;
        let region = several.then(|| &regions.regions()[usize::from(regions.of(me))])?;
        Some(Self { living, members: &region.members })
    }

    fn contains(&self, peer: PeerKey) -> bool {
        let index = self.living.index(peer);
        index.is_some_and(|index| self.members.binary_search(&index).is_ok())
    }

    /// Some of its members, this node perhaps among them.
    fn draw(&self, seed: u64) -> impl Iterator<Item = PeerKey> + '_ {
        let at = move |n: u64| mix(&[seed, DRAWN + n]) as usize % self.members.len();
        (0..DRAWN_OF_REGION).map(move |n| self.living.key(self.members[at(n)]))
    }
}

impl Repair {
    /// One peer, or two from the second try on.
    pub(super) fn whom_to_ask(&self, ctx: &Ctx, key: &MessageKey, leader: PeerKey) -> Vec<PeerKey> {
        let want = &self.wants.messages[key];
        let tries = usize::from(want.tries);
        let place = u64::from(key.attempt) << 16 | u64::from(key.message);
        let seed = mix(&[ctx.me().number().into(), key.block, place, tries as u64]);
        let fits = |peer: PeerKey| ctx.peers.can_ask(peer) && !self.is_busy(ctx, peer);
        let count = if tries >= TWO_FROM { 2 } else { 1 };
        let mut peers = Vec::with_capacity(2);
        let holds = want.holders.iter().any(|holder| holder.peer == leader);
        let may_ask_leader = (want.certain || holds) && fits(leader);
        if may_ask_leader && tries % LEADER_EVERY == LEADER_EVERY - 1 {
            peers.push(leader);
        }
        while peers.len() < count {
            let free = |peer: PeerKey| peer != leader && !peers.contains(&peer) && fits(peer);
            let seed = mix(&[seed, peers.len() as u64]);
            match self.next_to_ask(ctx, (key.block, want), seed, free) {
                Some(peer) => peers.push(peer),
                None => break,
            }
        }
        // Nobody else is there.
        let idle = || self.requests.waiting(ctx.now) == 0;
        if peers.is_empty() && may_ask_leader && idle() {
            peers.push(leader);
        }
        peers
    }

    fn next_to_ask(
        &self,
        ctx: &Ctx,
        (block, want): (u64, &Want),
        seed: u64,
        free: impl Fn(PeerKey) -> bool,
    ) -> Option<PeerKey> {
        let region = want.plan.and_then(|plan| Region::of_plan(ctx, block, plan));
        let fresh = |peer: PeerKey| !want.asked.contains(&peer) && free(peer);
        let holders = |told: bool| {
            let holders = want.holders.iter().filter(move |holder| holder.told == told);
            holders.map(|holder| holder.peer).filter(|peer| fresh(*peer))
        };
        let nearest =
            |peers: &[PeerKey]| self.one_of_the_nearest(ctx, region.as_ref(), seed, peers);
        let told: Vec<PeerKey> = holders(true).collect();
        if !told.is_empty() {
            return nearest(&told);
        }
        if !want.certain {
            // Only who told of it, each in its turn.
            return want.asked.iter().copied().find(|peer| free(*peer));
        }
        let near = || {
            let of_region = region.iter().flat_map(|region| region.draw(seed));
            nearest(
                &holders(false).chain(of_region.filter(|peer| fresh(*peer))).collect::<Vec<_>>(),
            )
        };
        let far = || {
            let drawn = (0..DRAWN).map_while(|n| draw_peer(ctx, &[seed, n], |peer| !fresh(peer)));
            nearest(&drawn.collect::<Vec<_>>())
        };
        let chosen = match want.asked.len().is_multiple_of(2) {
            true => near().or_else(far),
            false => far().or_else(near),
        };
        // Where everybody was asked, anybody again.
        chosen.or_else(|| draw_peer(ctx, &[seed], |peer| !free(peer)))
    }

    /// One of those that are about as near as the nearest.
    fn one_of_the_nearest(
        &self,
        ctx: &Ctx,
        region: Option<&Region<'_>>,
        seed: u64,
        peers: &[PeerKey],
    ) -> Option<PeerKey> {
        let distance = |peer: &PeerKey| {
            let unmeasured = || match region.is_some_and(|region| region.contains(*peer)) {
                true => UNMEASURED.0,
                false => UNMEASURED.1,
            };
            let micros = self.measured(ctx, *peer).unwrap_or_else(unmeasured);
            micros.saturating_add(self.answerers.penalty(ctx.now, *peer))
        };
        let far: Vec<u32> = peers.iter().map(distance).collect();
        let nearest = far.iter().min()?;
        let reach = nearest.saturating_mul(ALIKE.0).saturating_add(ALIKE.1);
        let alike = || peers.iter().zip(&far).filter(|(_, far)| **far <= reach);
        let chosen = seed as usize % alike().count();
        alike().nth(chosen).map(|(peer, _)| *peer)
    }

    /// The round trip to a peer in µs: how long its answers take, else what the transport measured.
    fn measured(&self, ctx: &Ctx, peer: PeerKey) -> Option<u32> {
        let took = self.answerers.round_trip(peer);
        let took = took.map(|took| u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        took.or_else(|| ctx.round_trips.get(peer))
    }

    /// The same, for those that are to be remembered as holders.
    pub(super) fn distance(&self, ctx: &Ctx, peer: PeerKey) -> u32 {
        self.measured(ctx, peer).unwrap_or(UNMEASURED.1)
    }
}

#[cfg(test)]
mod tests;
