//! What a leader does: cut its message, choose the route and the code rate, and queue every
//! shred, the next leader's first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fragcast_shredder::rate::MAX_SHARD_LEN;
use fragcast_shredder::shredder::ShredderError;
use fragcast_shredder::{
    CodeRate, LossTarget, MessageKey, MessageParams, ShreddedMessage, ShreddedSet, Shredder,
    VerifiedMessage,
};

use super::config::{Config, RoutePolicy};
use super::ctx::Ctx;
use super::epochs::{Epochs, Living};
use super::event::{Event, Led};
use super::relaying::{Relaying, lane_of};
use crate::control::{Control, SignedTableNotice, TableNotice};
use crate::egress::{FRAMING, Lane, Payload, Transmit};
use crate::membership::PeerIndex;
use crate::peer::PeerKey;
use crate::plan::{Plan, PlanView};
use crate::planner::{Contents, HOPS as REGIONAL_HOPS, Shape, Shapes};
use crate::route::{Route, Slot, Tree};
use crate::time::Timestamp;

mod acks;
mod exclusions;
mod planning;

use exclusions::{Masks, roots_left};
use planning::Planning;

/// Next leaders that get a copy of their own: the first before everything else, the others behind
/// what the leader sends to everybody.
pub(super) const NEXT_LEADERS: usize = 2;

/// The loss of a hop that receipts can make of it, at least and at most.
const LOSS: (f64, f64) = (0.005, 0.25);

/// The share of the time in which the next leader's copy arrives by which a broadcast may delay it.
const AHEAD: f64 = 0.01;

/// Why a message was not broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BroadcastError {
    /// This node does not lead the block.
    #[error("this node does not lead block {0}: no delegation to its peer id and key covers it")]
    NotLeader(u64),
    /// This node may lead the block as a substitute, but not yet.
    #[error("{}", not_due(*.block, *.rank, *.wait))]
    NotDue {
        /// The block.
        block: u64,
        /// As which substitute.
        rank: u8,
        /// How long from now, if nothing is heard of lower ranks; `None` if this node cannot tell.
        wait: Option<Duration>,
    },
    /// A gateway of a lower rank has opened the block, so this node does not lead it any more.
    #[error(
        "block {block} was opened by {}: a substitute gives way to it",
        if *.rank == 0 { "the scheduled gateway" } else { "a substitute of a lower rank" }
    )]
    Overtaken {
        /// The block.
        block: u64,
        /// The rank of who has opened it.
        rank: u8,
    },
    /// The lanes are full: try again when some of it has left.
    #[error("the lanes are full, try again")]
    Busy,
    /// The message cannot be cut.
    #[error(transparent)]
    Shred(#[from] ShredderError),
}

fn not_due(block: u64, rank: u8, wait: Option<Duration>) -> String {
    match wait {
        Some(wait) => format!(
            "block {block} is not to be led by substitute {rank} yet: post it again in {} ms if \
             nobody else has opened it",
            wait.as_micros().div_ceil(1000)
        ),
        None => format!(
            "block {block} is not to be led by substitute {rank}: this node knows nothing of the \
             blocks before it, or is not connected to most of its peers, so it cannot tell whether \
             the scheduled gateway is silent"
        ),
    }
}

/// A plan of this node's own.
#[derive(Clone)]
struct OwnPlan {
    version: u64,
    view: Arc<PlanView>,
    frame: Control,
    /// If it was made from measured delays: what it says, and how messages are sent over it.
    planned: Option<(Arc<Contents>, Shapes)>,
    /// Members that have acknowledged it.
    acks: BTreeSet<PeerIndex>,
    told_at: Timestamp,
    /// The first block that it is in effect for, once enough members have it.
    effective: Option<u64>,
}

/// The plans that this node leads with in one epoch.
#[derive(Clone)]
struct OwnPlans {
    from_block: u64,
    table: [u8; 32],
    current: OwnPlan,
    /// Enough members have it: it replaces the current one with the first block that it is in effect
    /// for.
    ready: Option<OwnPlan>,
    /// The newest. Was told to peers, and takes the place of both once it is in effect.
    next: Option<OwnPlan>,
}

impl OwnPlan {
    /// The plan that configuration gives: everybody has it.
    fn configured(view: Arc<PlanView>, frame: Control) -> Self {
        let (acks, told_at) = (BTreeSet::new(), Timestamp::default());
        Self { version: 0, view, frame, planned: None, acks, told_at, effective: Some(0) }
    }
}

impl OwnPlans {
    fn iter(&self) -> impl Iterator<Item = &OwnPlan> {
        std::iter::once(&self.current).chain(&self.ready).chain(&self.next)
    }

    /// The newest, whoever has it.
    fn newest(&mut self) -> &mut OwnPlan {
        let other = self.next.as_mut().or(self.ready.as_mut());
        other.unwrap_or(&mut self.current)
    }

    /// A plan was told to peers. The one before it stays if it will be in effect: a leader that plans
    /// again before its first block leads with what members have.
    fn tell(&mut self, plan: OwnPlan) {
        let before = self.next.replace(plan).filter(|before| before.effective.is_some());
        self.ready = before.or(self.ready.take());
    }

    /// The plan of a block, which is not below those asked for before.
    fn at(&mut self, block: u64) -> &OwnPlan {
        let begins = |plan: &mut OwnPlan| plan.effective.is_some_and(|first| first <= block);
        let ready = self.ready.take_if(begins);
        let next = self.next.take_if(begins);
        if next.is_some() {
            self.ready = None;
        }
        if let Some(plan) = next.or(ready) {
            self.current = plan;
        }
        &self.current
    }
}

/// What a node with a leader's key leads with.
pub(super) struct Leading {
    key: SigningKey,
    shredder: Shredder,
    /// By rising first block, of the epochs that live.
    plans: Vec<OwnPlans>,
    planning: Planning,
    masks: Masks,
    /// The loss of a hop that receipts show; until then that of the configuration counts.
    loss: Option<f64>,
    /// The highest block of which this node has sent anything.
    led: Option<u64>,
    /// What the application was told last.
    told: Option<Led>,
}

impl Leading {
    pub(super) fn new(chain_id: u64, key: SigningKey, epochs: &Epochs) -> Self {
        let shredder = Shredder::new(chain_id, key.clone());
        let planning = Planning::default();
        let (plans, masks) = (Vec::new(), Masks::default());
        let (led, told, loss) = (None, None, None);
        let mut leading = Self { key, shredder, plans, planning, masks, loss, led, told };
        leading.follow(epochs);
        leading
    }

    /// Makes plans for epochs that are new, and drops those of epochs that are gone. One with the
    /// table of another has its plans: they say nothing of gateways.
    pub(super) fn follow(&mut self, epochs: &Epochs) {
        let known = std::mem::take(&mut self.plans);
        for living in epochs.iter() {
            let (from_block, table) =
                (living.epoch().from_block(), living.epoch().members().hash());
            let same = |plans: &&OwnPlans| plans.from_block == from_block && plans.table == table;
            let alike = || known.iter().rev().find(|plans| plans.table == table);
            let plans = known.iter().find(same).or_else(alike).cloned();
            let plans = plans.map(|plans| OwnPlans { from_block, ..plans });
            self.plans.push(plans.unwrap_or_else(|| self.plan(living)));
        }
    }

    fn plan(&self, living: &Living) -> OwnPlans {
        let epoch = living.epoch();
        let (members, key) = (epoch.members(), self.key.verifying_key().to_bytes());
        let plan = Plan::configured(epoch.chain_id(), key, members);
        let view = match living.plans.get(plan.id()) {
            Some(view) => Arc::clone(view),
            None => Arc::new(PlanView::new(&plan, members).expect("made of this table")),
        };
        let (from_block, table) = (epoch.from_block(), members.hash());
        let frame = Control::Plan(plan.sign(&self.key));
        let current = OwnPlan::configured(view, frame);
        OwnPlans { from_block, table, current, ready: None, next: None }
    }

    /// The plans and the masks over them, as peers are told of them: those of one table, or all.
    pub(super) fn frames(&self, table: Option<[u8; 32]>) -> impl Iterator<Item = &Control> {
        let of = move |plans: &&OwnPlans| table.is_none_or(|table| plans.table == table);
        let plans = self.plans.iter().filter(of).flat_map(OwnPlans::iter).map(|plan| &plan.frame);
        plans.chain(self.masks.frames(table))
    }

    /// The key that signs what this node says as a leader.
    pub(super) fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// Signs a table that this node names.
    pub(super) fn sign_table(&self, notice: TableNotice) -> SignedTableNotice {
        notice.sign(&self.key)
    }

    /// Whether this node's key and peer id lead `block` by the schedule.
    pub(super) fn leads(&self, ctx: &Ctx, block: u64) -> bool {
        let key = self.shredder.verifying_key();
        ctx.leader(block).is_some_and(|leader| leader.key == key) && ctx.leads(block)
    }

    /// Whether this node's key and peer id lead the attempt of a message.
    pub(super) fn leads_attempt(&self, ctx: &Ctx, key: &MessageKey) -> bool {
        let own = self.shredder.verifying_key();
        ctx.leader_of(key).is_some_and(|leader| leader.key == own)
            && ctx.leader_key_of(key) == Some(ctx.me())
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
        self.settle(ctx);
        let living = ctx.epochs.at(key.block).ok_or(not_leader)?;
        let me = living.me().ok_or(not_leader)?;
        let from_block = living.epoch().from_block();
        let own = self.plans.iter_mut().find(|plans| plans.from_block == from_block);
        let own = own.ok_or(not_leader)?.at(key.block);
        self.led = self.led.max(Some(key.block));
        let version = own.version;
        let view = self.masks.view_at(ctx.now, &own.view, key.block);
        let wire = message.to_wire();
        let shapes = own.planned.as_ref().map(|(_, shapes)| shapes);
        let planned = shapes.map(|shapes| &shapes[..]);
        let members = living.members();
        let loss = self.loss.map_or(ctx.config.loss, |loss| loss.clamp(LOSS.0, LOSS.1));
        let shaping = Shaping { config: &ctx.config, loss, view: &view, me, members, planned };
        let (mut route, rate) = shaping.of(wire.len());
        if let Route::Regional { roots } = &mut route
            && view.id() != own.view.id()
        {
            *roots = roots_left(&own.view, &view, me, *roots, rate);
        }
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
        let next = next_leaders(ctx, key.block);
        let first = next.first().and_then(|next| living.index(*next));
        let way = first.zip(shapes).map_or(Duration::ZERO, |(first, shapes)| shapes.way(first));
        let ahead = match route {
            Route::Regional { .. } => ahead(rate, way, ctx.config.uplink_bps),
            _ => 0,
        };
        queue(ctx, relaying, &cut, &Sending { route, view: &view, next: &next, ahead });
        let (block, attempt) = (key.block, key.attempt);
        let led = Led { block, attempt, route, plan: view.id(), version };
        if self.told.replace(led) != Some(led) {
            ctx.events.push_back(Event::Led(led));
        }
        Ok(cut)
    }
}

/// What the shape of a message depends on.
struct Shaping<'a> {
    config: &'a Config,
    /// Of a hop.
    loss: f64,
    view: &'a PlanView,
    me: PeerIndex,
    members: usize,
    /// The shapes of a plan that was made from measured delays.
    planned: Option<&'a [Shape]>,
}

impl Shaping<'_> {
    /// Chooses route and code rate for a message of `len` bytes.
    fn of(&self, len: usize) -> (Route, CodeRate) {
        let regional = matches!(self.config.route, RoutePolicy::Regional);
        if regional || matches!(self.config.route, RoutePolicy::Auto) {
            let shape = self.planned.and_then(|shapes| shapes.iter().find(|s| len <= s.longest));
            if let Some(shape) = shape.filter(|shape| regional || !shape.direct) {
                let target = LossTarget::over_hops(self.config.loss, REGIONAL_HOPS, 0.0);
                let route = Route::Regional { roots: shape.roots };
                return (route, self.config.profile.rate(len, shape.data, target));
            }
        }
        let direct = CodeRate::new(len, LossTarget::over_hops(self.loss, 1, 0.0));
        let route = match self.config.route {
            RoutePolicy::Fixed(route) => route,
            RoutePolicy::Auto | RoutePolicy::Regional => {
                let shreds = usize::from(direct.sets) * usize::from(direct.k + direct.m);
                let bytes = shreds * (direct.shred_len() + FRAMING);
                let bits = (bytes * self.members) as u64 * 8;
                let took = Duration::from_nanos(
                    bits.saturating_mul(1_000_000_000) / self.config.uplink_bps.max(1),
                );
                // A plan that was measured says so only where everything else is slower.
                let direct = self.planned.is_some() || took <= self.config.direct_within;
                if direct { Route::Direct } else { self.relayed(len) }
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
        let shred = (rate.shred_len() + FRAMING) * self.members * 8;
        let burst = shred as f64 / self.config.uplink_bps.max(1) as f64;
        let work = (shreds * self.view.busiest(self.me) / 2.0).max(1.0) * burst;
        if work <= self.config.relay_within.as_secs_f64() { Route::Rotor } else { Config::TREE }
    }

    fn relayed_rate(&self, len: usize, route: Route) -> CodeRate {
        let hops = route.hops(self.view.relays().len(), !self.view.leaves().is_empty());
        let target = LossTarget::over_hops(self.loss, hops, self.view.busiest(self.me));
        CodeRate::new(len, target).with_coding(self.config.relayed_coding)
    }
}

/// The connected peers of the next leaders after `block`, nearest first.
pub(super) fn next_leaders(ctx: &Ctx, block: u64) -> Vec<PeerKey> {
    let view = ctx.epochs.view();
    let keys = view.next_leaders(block).filter_map(|leader| ctx.peers.table().key(&leader.peer));
    keys.filter(|peer| *peer != ctx.me() && ctx.peers.is_connected(*peer))
        .take(NEXT_LEADERS)
        .collect()
}

/// How many shreds of a broadcast, each to one root, may leave before the next leader's copy, whose
/// way is so long.
fn ahead(rate: CodeRate, way: Duration, uplink_bps: u64) -> usize {
    let data = usize::from(rate.sets) * usize::from(rate.k);
    let bits = (rate.shred_len() + FRAMING) as u64 * 8;
    let shred = bits as f64 / uplink_bps.max(1) as f64;
    let takes = way.as_secs_f64() + data as f64 * shred;
    ((AHEAD * takes / shred) as usize).min(data)
}

/// What a message is sent by, and to whom before others.
struct Sending<'a> {
    route: Route,
    view: &'a PlanView,
    /// The next leaders, nearest first.
    next: &'a [PeerKey],
    /// Shreds of the broadcast that leave before the first next leader's copy.
    ahead: usize,
}

fn queue(ctx: &mut Ctx, relaying: &mut Relaying, cut: &ShreddedMessage, sending: &Sending<'_>) {
    let Sending { route, view, next, ahead } = *sending;
    let header = &cut.sets[0].header;
    // What the link to a next leader needs by itself; the rest reaches it with the others.
    let link = LossTarget::over_hops(ctx.config.loss, 1, 0.0);
    let k = usize::from(header.k);
    let alone = CodeRate::of_sets_up_to(k, k * MAX_SHARD_LEN, link);
    let enough = header.k + alone.m.min(header.m);

    let Some(living) = ctx.epochs.at(header.block) else { return };
    let Some(me) = living.me() else { return };
    let egress = &mut ctx.egress;
    let counters = &mut ctx.counters;
    let mut sent = BTreeSet::new();
    let transmit = |to: PeerKey, lane: Lane, set: &ShreddedSet, index: u8| {
        let payload = Payload::Shred(set.shreds[usize::from(index)].clone());
        Transmit { to, lane, payload }
    };
    // Behind what everybody waits for, except for the first.
    let copies = |place: usize| {
        let to = next.get(place).copied();
        let of = move |to| {
            let shreds = cut.in_sending_order().filter(move |(_, index)| *index < enough);
            shreds.map(move |(set, index)| (to, set, index))
        };
        to.into_iter().flat_map(of)
    };
    for (place, (set, index)) in cut.in_sending_order().enumerate() {
        if place == ahead {
            for (to, set, index) in copies(0) {
                if sent.insert((to, set.header.set, index)) {
                    counters.originated += 1;
                    egress.push_own(transmit(to, Lane::NextLeader, set, index));
                }
            }
        }
        let tree = Tree::new(view, route, me, &set.root, Slot::new(&set.header, index));
        let lane = if place < ahead { Lane::NextLeader } else { lane_of(&set.header, index) };
        for &to in relaying.reach(&ctx.peers, counters, living, &tree, me) {
            if !next.contains(&to) || sent.insert((to, set.header.set, index)) {
                counters.originated += 1;
                egress.push_own(transmit(to, lane, set, index));
            }
        }
    }
    for (to, set, index) in (1..next.len()).flat_map(copies) {
        if !sent.contains(&(to, set.header.set, index)) {
            counters.originated += 1;
            egress.push_own(transmit(to, Lane::Coding, set, index));
        }
    }
}

#[cfg(test)]
mod tests;
