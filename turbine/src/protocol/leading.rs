//! What a leader does: cut its message, choose the route and the code rate, and queue every
//! shred, the next leaders' first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fragcast_shredder::shredder::ShredderError;
use fragcast_shredder::{
    CodeRate, LossTarget, MessageKey, MessageParams, ShreddedMessage, Shredder, VerifiedMessage,
};

use super::config::{Config, RoutePolicy};
use super::ctx::Ctx;
use super::epochs::{Epochs, Living};
use super::relaying::{Relaying, lane_of};
use crate::control::Control;
use crate::egress::{FRAMING, Lane, Payload, Transmit};
use crate::membership::PeerIndex;
use crate::peer::PeerKey;
use crate::plan::{Plan, PlanView};
use crate::route::{Route, Tree};

/// Next leaders that get a copy of their own.
const NEXT_LEADERS: usize = 2;

/// Bytes of a shred beside its shard.
const SHRED_OVERHEAD: usize = 305;

/// Why a message was not broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BroadcastError {
    /// This node does not lead the block.
    #[error("this node does not lead block {0}: no delegation to its peer id and key covers it")]
    NotLeader(u64),
    /// The lanes are full: try again when some of it has left.
    #[error("the lanes are full, try again")]
    Busy,
    /// The message cannot be cut.
    #[error(transparent)]
    Shred(#[from] ShredderError),
}

/// The plan that this node leads with in one epoch.
struct OwnPlan {
    from_block: u64,
    table: [u8; 32],
    view: Arc<PlanView>,
    frame: Control,
}

/// What a node with a leader's key leads with.
pub(super) struct Leading {
    key: SigningKey,
    shredder: Shredder,
    /// By rising first block, of the epochs that live.
    plans: Vec<OwnPlan>,
}

impl Leading {
    pub(super) fn new(chain_id: u64, key: SigningKey, epochs: &Epochs) -> Self {
        let shredder = Shredder::new(chain_id, key.clone());
        let mut leading = Self { key, shredder, plans: Vec::new() };
        leading.follow(epochs);
        leading
    }

    /// Makes plans for epochs that are new, and drops those of epochs that are gone.
    pub(super) fn follow(&mut self, epochs: &Epochs) {
        let known = std::mem::take(&mut self.plans);
        let mut known = known.into_iter().peekable();
        for living in epochs.iter() {
            let from_block = living.epoch().from_block();
            while known.next_if(|plan| plan.from_block < from_block).is_some() {}
            let plan = known.next_if(|plan| plan.from_block == from_block);
            self.plans.push(plan.unwrap_or_else(|| self.plan(living)));
        }
    }

    fn plan(&self, living: &Living) -> OwnPlan {
        let epoch = living.epoch();
        let (members, key) = (epoch.members(), self.key.verifying_key().to_bytes());
        let plan = Plan::configured(epoch.chain_id(), key, members);
        let view = match living.plans.get(plan.id()) {
            Some(view) => Arc::clone(view),
            None => Arc::new(PlanView::new(&plan, members).expect("made of this table")),
        };
        let (from_block, table) = (epoch.from_block(), members.hash());
        OwnPlan { from_block, table, view, frame: Control::Plan(plan.sign(&self.key)) }
    }

    /// The plans, as peers are told of them: those of one table, or all.
    pub(super) fn frames(&self, table: Option<[u8; 32]>) -> impl Iterator<Item = &Control> {
        let of = move |plan: &&OwnPlan| table.is_none_or(|table| plan.table == table);
        self.plans.iter().filter(of).map(|plan| &plan.frame)
    }

    /// Whether this node's key and peer id lead `block`.
    pub(super) fn leads(&self, ctx: &Ctx, block: u64) -> bool {
        let key = self.shredder.verifying_key();
        ctx.leader(block).is_some_and(|leader| leader.key == key) && ctx.leads(block)
    }

    /// Cuts a message of this node's own and queues it to everybody.
    pub(super) fn send(
        &mut self,
        ctx: &mut Ctx,
        relaying: &mut Relaying,
        key: MessageKey,
        message: &VerifiedMessage,
    ) -> Result<ShreddedMessage, BroadcastError> {
        let not_leader = BroadcastError::NotLeader(key.block);
        let living = ctx.epochs.at(key.block).ok_or(not_leader)?;
        let me = living.me().ok_or(not_leader)?;
        let from_block = living.epoch().from_block();
        let own = self.plans.iter().find(|plan| plan.from_block == from_block);
        let view = Arc::clone(&own.ok_or(not_leader)?.view);
        let wire = message.to_wire();
        let shape = Shape { config: &ctx.config, view: &view, me, members: living.members() };
        let (route, rate) = shape.of(wire.len());
        let (route_number, route_param) = route.to_wire();
        let params = MessageParams {
            key,
            kind: message.message().kind(),
            plan: view.id(),
            route: route_number,
            route_param,
            sent_at: ctx.now,
        };
        let cut = self.shredder.shred(&wire, &params, rate)?;
        queue(ctx, relaying, &cut, route, &view);
        Ok(cut)
    }
}

/// What the shape of a message depends on.
struct Shape<'a> {
    config: &'a Config,
    view: &'a PlanView,
    me: PeerIndex,
    members: usize,
}

impl Shape<'_> {
    /// Chooses route and code rate for a message of `len` bytes.
    fn of(&self, len: usize) -> (Route, CodeRate) {
        let direct = CodeRate::new(len, LossTarget::over_hops(self.config.loss, 1, 0.0));
        let route = match self.config.route {
            RoutePolicy::Fixed(route) => route,
            RoutePolicy::Auto => {
                let shreds = usize::from(direct.sets) * usize::from(direct.k + direct.m);
                let bytes = shreds * (usize::from(direct.shard_len) + SHRED_OVERHEAD + FRAMING);
                let bits = (bytes * self.members) as u64 * 8;
                let took = Duration::from_nanos(
                    bits.saturating_mul(1_000_000_000) / self.config.uplink_bps.max(1),
                );
                if took <= self.config.direct_within { Route::Direct } else { self.relayed(len) }
            }
        };
        if route == Route::Direct {
            return (route, direct);
        }
        (route, self.relayed_rate(len, route))
    }

    /// One relay or a tree. A layer more costs the way between two members once more; one relay
    /// costs the time in which the busiest sends its shreds to everybody.
    fn relayed(&self, len: usize) -> Route {
        let rate = self.relayed_rate(len, Route::Rotor);
        let shreds = f64::from(rate.sets) * f64::from(u16::from(rate.k) + u16::from(rate.m));
        let shred = (usize::from(rate.shard_len) + SHRED_OVERHEAD + FRAMING) * self.members * 8;
        let burst = shred as f64 / self.config.uplink_bps.max(1) as f64;
        let work = (shreds * self.view.busiest(self.me) / 2.0).max(1.0) * burst;
        if work <= self.config.relay_within.as_secs_f64() { Route::Rotor } else { Config::TREE }
    }

    fn relayed_rate(&self, len: usize, route: Route) -> CodeRate {
        let hops = route.hops(self.view.relays().len(), !self.view.leaves().is_empty());
        let target = LossTarget::over_hops(self.config.loss, hops, self.view.busiest(self.me));
        CodeRate::new(len, target).with_coding(self.config.relayed_coding)
    }
}

/// The connected peers of the next leaders after `block`, nearest first.
fn next_leaders(ctx: &Ctx, block: u64) -> Vec<PeerKey> {
    let view = ctx.epochs.view();
    let keys = view.next_leaders(block).filter_map(|leader| ctx.peers.table().key(&leader.peer));
    keys.filter(|peer| *peer != ctx.me() && ctx.peers.is_connected(*peer))
        .take(NEXT_LEADERS)
        .collect()
}

fn queue(
    ctx: &mut Ctx,
    relaying: &mut Relaying,
    cut: &ShreddedMessage,
    route: Route,
    view: &PlanView,
) {
    let block = cut.sets[0].header.block;
    // What the link to a next leader needs by itself; the rest reaches it with the others.
    let link = LossTarget::over_hops(ctx.config.loss, 1, 0.0);
    let k = usize::from(cut.sets[0].header.k);
    let alone = CodeRate::new(k * fragcast_shredder::rate::MAX_SHARD_LEN, link);
    let enough = cut.sets[0].header.k + alone.m.min(cut.sets[0].header.m);

    let mut sent = BTreeSet::new();
    for (place, to) in next_leaders(ctx, block).into_iter().enumerate() {
        for (set, index) in cut.in_sending_order().filter(|(_, index)| *index < enough) {
            let lane = if place == 0 { Lane::NextLeader } else { lane_of(&set.header, index) };
            sent.insert((to, set.header.set, index));
            let payload = Payload::Shred(set.shreds[usize::from(index)].clone());
            ctx.counters.originated += 1;
            ctx.egress.push_own(Transmit { to, lane, payload });
        }
    }
    let Some(living) = ctx.epochs.at(block) else { return };
    let Some(me) = living.me() else { return };
    for (set, index) in cut.in_sending_order() {
        let tree = Tree::new(view, route, me, &set.root, index);
        let lane = lane_of(&set.header, index);
        for to in relaying.reach(&ctx.peers, &mut ctx.counters, living, &tree, me) {
            if !sent.contains(&(*to, set.header.set, index)) {
                let payload = Payload::Shred(set.shreds[usize::from(index)].clone());
                ctx.counters.originated += 1;
                ctx.egress.push_own(Transmit { to: *to, lane, payload });
            }
        }
    }
}

#[cfg(test)]
mod tests;
