//! Sending shreds on: to whom, by the tree of the shred's own plan, in the table of its block's
//! epoch.
//!
//! Only validated shreds get here, each once. A peer that is not connected is stepped over: its
//! children get the shred from its parent.

use fragcast_shredder::{RecoveredSet, SetHeader, ValidatedShred};

use super::ctx::Ctx;
use super::epochs::Living;
use super::event::Counters;
use super::peers::Peers;
use crate::egress::{Lane, Payload, Transmit};
use crate::membership::PeerIndex;
use crate::peer::PeerKey;
use crate::route::{Place, Route, Slot, Tree};

/// Room for the peers of one hop, so that none is allocated for a shred.
#[derive(Debug, Default)]
pub(super) struct Relaying {
    places: Vec<Place>,
    hops: Vec<PeerKey>,
}

impl Relaying {
    /// Sends a shred on that has just come from elsewhere. Says whether its plan is known: without
    /// it there is nobody to send it to.
    pub(super) fn forward(
        &mut self,
        ctx: &mut Ctx,
        shred: &ValidatedShred,
        leader: PeerIndex,
    ) -> bool {
        let (header, index) = (shred.header(), shred.shred().index());
        let known = self.find_hops(ctx, header, &shred.root(), index, leader);
        let lane = lane_of(header, index);
        for to in &self.hops {
            let payload = Payload::Shred(shred.shred().bytes().clone());
            let sent = ctx.egress.push(Transmit { to: *to, lane, payload });
            ctx.counters.forwarded += u64::from(sent);
        }
        known
    }

    /// Sends the shreds of a complete set that this node relays and that have not come by
    /// themselves, but to those in `told`. What is `late`, because repair has completed the set,
    /// leaves behind all that is fresh.
    pub(super) fn send_owed(
        &mut self,
        ctx: &mut Ctx,
        set: &RecoveredSet,
        told: &[PeerKey],
        late: bool,
    ) {
        let (block, attempt) = (set.header.block, set.header.attempt);
        let leader = ctx.epochs.at(block);
        let leader = leader.and_then(|living| living.epoch().leader_index_of(block, attempt));
        let Some(leader) = leader else { return };
        for index in set.missing() {
            self.find_hops(ctx, &set.header, &set.root, index, leader);
            self.hops.retain(|hop| !told.contains(hop));
            if self.hops.is_empty() {
                continue;
            }
            let bytes = set.shred(index);
            let lane = if late { Lane::Repair } else { lane_of(&set.header, index) };
            for to in &self.hops {
                let payload = Payload::Shred(bytes.clone());
                let sent = ctx.egress.push(Transmit { to: *to, lane, payload });
                ctx.counters.owed += u64::from(sent);
            }
        }
    }

    /// Finds to whom this node sends a shred: nobody where it is no relay of it. Says whether the
    /// plan that it names is known.
    fn find_hops(
        &mut self,
        ctx: &mut Ctx,
        header: &SetHeader,
        root: &[u8; 32],
        index: u8,
        leader: PeerIndex,
    ) -> bool {
        self.hops.clear();
        let Some(living) = ctx.epochs.at(header.block) else { return true };
        // Who is no member of the block's epoch has no place in its trees.
        let Some(me) = living.me() else { return true };
        let Some(plan) = living.plans.get(header.plan) else {
            ctx.counters.unknown_plan += 1;
            return false;
        };
        let Some(route) = Route::from_wire(header.route, header.route_param) else {
            ctx.counters.unknown_plan += 1;
            return true;
        };
        let tree = Tree::new(plan, route, leader, root, Slot::new(header, index));
        self.reach(&ctx.peers, &mut ctx.counters, living, &tree, me);
        true
    }

    /// The children of this node, which is `me` in the table of `living`, where a peer that is
    /// not connected is replaced by its own children: a dead relay costs one more hop's work and
    /// no shred, once it is known to be dead.
    pub(super) fn reach(
        &mut self,
        peers: &Peers,
        counters: &mut Counters,
        living: &Living,
        tree: &Tree<'_>,
        me: PeerIndex,
    ) -> &[PeerKey] {
        let Self { places, hops } = self;
        hops.clear();
        let is_up = |peer| peers.is_connected(living.key(peer));
        counters.stepped_over += tree.reach(me, is_up, places, |peer| hops.push(living.key(peer)));
        hops
    }
}

/// The lane of a shred.
pub(super) const fn lane_of(header: &SetHeader, index: u8) -> Lane {
    if index < header.k { Lane::Data } else { Lane::Coding }
}

#[cfg(test)]
mod tests;
