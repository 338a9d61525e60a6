//! Planning of a leader: when it is due, on what, and what becomes of its result.
//!
//! A node plans for the tables in which it leads, from what their members told it of the delays
//! between them: as soon as most have, and again when delays have changed, but not more often than
//! every [`AGAIN`]. Leaders are told of delays two terms before their own, so their plans are made,
//! told and acknowledged before these begin.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Leading, NEXT_LEADERS, OwnPlan, OwnPlans};
use crate::control::Control;
use crate::delays::DelayMatrix;
use crate::egress::Lane;
use crate::gossip::Mode;
use crate::membership::PeerIndex;
use crate::peer::PeerKey;
use crate::plan::{Plan, PlanView};
use crate::planner::{MAX_PLANNED, PlanDraft, PlanJob};
use crate::protocol::config::RoutePolicy;
use crate::protocol::connecting;
use crate::protocol::ctx::Ctx;
use crate::protocol::delays::Delays;
use crate::protocol::epochs::Living;
use crate::time::Timestamp;

/// How often it is looked whether planning is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The first plan is made once this share of the connected members has told its delays…
const MOST: (usize, usize) = (3, 4);
/// …or this long after the first has.
const WAIT: Duration = Duration::from_secs(30);
/// The least time between two plans of a table.
const AGAIN: Duration = Duration::from_secs(60);
/// A member that did not acknowledge a plan relays nothing for this long, unless it is heard of.
const SILENT: Duration = Duration::from_secs(600);
/// Such members that are remembered, 16 bytes each.
const MAX_SILENT: usize = 4_096;

/// What was planned with, of a table.
#[derive(Debug, Clone, Copy)]
struct Done {
    /// When delays were first known.
    since: Timestamp,
    /// The generation of delays of the last plan, and when it was made.
    last: Option<(u64, Timestamp)>,
}

/// What planning waits for.
#[derive(Debug, Default)]
pub(super) struct Planning {
    /// Delays that are given, with the table whose members they are between.
    assumed: Option<([u8; 32], Arc<DelayMatrix>)>,
    /// Whether a job is out.
    under_way: bool,
    looked_at: Option<Timestamp>,
    /// By table.
    done: BTreeMap<[u8; 32], Done>,
    /// Members that did not acknowledge a plan, and until when they relay nothing.
    silent: BTreeMap<PeerKey, Timestamp>,
}

impl Planning {
    /// A member is there.
    pub(super) fn heard(&mut self, peer: PeerKey) {
        self.silent.remove(&peer);
    }

    /// Delays with which to plan, and the table whose members they are between.
    fn due(&mut self, ctx: &Ctx, delays: &Delays) -> Option<([u8; 32], Arc<DelayMatrix>)> {
        let plans = matches!(ctx.config.route, RoutePolicy::Auto | RoutePolicy::Regional);
        if !plans || ctx.mode == Mode::Gossip {
            return None;
        }
        let living: Vec<&Living> = ctx.epochs.iter().collect();
        let tables: BTreeSet<[u8; 32]> =
            living.iter().map(|living| living.epoch().members().hash()).collect();
        self.done.retain(|table, _| tables.contains(table));
        for living in living.into_iter().rev() {
            let members = living.epoch().members();
            let table = members.hash();
            let known = delays.of(&table).filter(|(_, generation)| *generation > 0);
            let Some((matrix, generation)) = known.filter(|_| members.len() <= MAX_PLANNED) else {
                continue;
            };
            let done = self.done.entry(table).or_insert(Done { since: ctx.now, last: None });
            let is_due = match done.last {
                Some((last, at)) => last != generation && ctx.now.since(at) >= AGAIN,
                None => {
                    let keys = (0..members.len() as PeerIndex).map(|member| living.key(member));
                    // Of those that it is not connected to it hears by way of others.
                    let bounded = connecting::is_bounded(ctx);
                    let connected =
                        keys.filter(|key| bounded || ctx.peers.is_connected(*key)).count();
                    let told = delays.reporters(&table);
                    told * MOST.1 >= connected * MOST.0 || ctx.now.since(done.since) >= WAIT
                }
            };
            if is_due {
                done.last = Some((generation, ctx.now));
                return Some((table, Arc::clone(matrix)));
            }
        }
        None
    }
}

impl Leading {
    /// Takes the delays between the members of the newest epoch.
    pub(in crate::protocol) fn assume_delays(&mut self, ctx: &Ctx, delays: Arc<DelayMatrix>) {
        let members = ctx.epochs.newest().epoch().members();
        if members.len() == delays.members() && members.len() <= MAX_PLANNED {
            self.planning.assumed = Some((members.hash(), delays));
            self.planning.looked_at = None;
        }
    }

    /// Planning that is due.
    pub(in crate::protocol) fn planning_job(
        &mut self,
        ctx: &Ctx,
        delays: &Delays,
    ) -> Option<PlanJob> {
        let looked = self.planning.looked_at;
        if self.planning.under_way || looked.is_some_and(|at| ctx.now.since(at) < LOOK_EVERY) {
            return None;
        }
        self.planning.looked_at = Some(ctx.now);
        self.note_silent(ctx);
        let assumed = self.planning.assumed.take();
        let (table, delays) = assumed.or_else(|| self.planning.due(ctx, delays))?;
        let living = ctx.epochs.iter().find(|living| living.epoch().members().hash() == table)?;
        let leader = living.me()?;
        let members = living.epoch().members().members();
        let declared = members.iter().map(|m| u64::from(m.record.body.uplink_kbps) * 1_000);
        let mut uplinks_bps: Vec<u64> = declared.collect();
        uplinks_bps[leader as usize] = ctx.config.uplink_bps;
        for silent in self.planning.silent.keys().filter_map(|peer| living.index(*peer)) {
            uplinks_bps[silent as usize] = 0;
        }
        let own = self.plans.iter().find(|plans| plans.table == table)?;
        let newest = own.iter().last().and_then(|plan| plan.planned.as_ref());
        self.planning.under_way = true;
        Some(PlanJob {
            delays,
            weights: members.iter().map(|member| member.weight).collect(),
            uplinks_bps,
            leader,
            loss: ctx.config.loss,
            hop: ctx.config.hop,
            next_leaders: NEXT_LEADERS.min(members.len().saturating_sub(1)),
            profile: ctx.config.profile,
            connections: ctx.config.connections,
            previous: newest.map(|(contents, _)| Arc::clone(contents)),
            table,
        })
    }

    /// Notes who has not acknowledged a plan in time, and plans anew without them.
    fn note_silent(&mut self, ctx: &Ctx) {
        self.settle(ctx);
        let Self { plans, planning, .. } = self;
        planning.silent.retain(|_, until| ctx.now < *until);
        for plans in plans {
            let living = ctx.epochs.iter().find(|l| l.epoch().from_block() == plans.from_block);
            let (Some(next), Some(living)) = (&plans.next, living) else { continue };
            let silent = next.silent(ctx, living);
            if silent.is_empty() {
                continue;
            }
            for member in silent {
                if planning.silent.len() < MAX_SILENT {
                    planning.silent.insert(living.key(member), ctx.now + SILENT);
                }
            }
            // It never took effect: nothing is worth keeping of it.
            plans.next = None;
            if let Some(done) = planning.done.get_mut(&plans.table) {
                done.last = None;
            }
        }
    }

    /// Takes the result of a job.
    pub(in crate::protocol) fn planned(&mut self, ctx: &mut Ctx, draft: Option<PlanDraft>) {
        self.planning.under_way = false;
        self.planning.looked_at = None;
        let Some(PlanDraft { contents, shapes, table }) = draft else { return };
        // The epoch may be gone in the meantime.
        let own = self.plans.iter_mut().filter(|plans| plans.table == table);
        let mut newest: Vec<&mut OwnPlan> = own.map(OwnPlans::newest).collect();
        let stays = |plan: &&mut OwnPlan| {
            plan.planned.as_ref().is_some_and(|(before, _)| *before == contents)
        };
        if newest.iter().all(stays) {
            for (_, of) in newest.iter_mut().filter_map(|plan| plan.planned.as_mut()) {
                of.clone_from(&shapes);
            }
            return;
        }
        let version = newest.iter().map(|plan| plan.version + 1).max().unwrap_or(1);
        // Seconds, so that it rises over a restart too.
        let version = version.max(ctx.now.as_micros() / 1_000_000);
        let key = self.key.verifying_key().to_bytes();
        let entries = contents.entries.iter().map(|entry| entry.to_bits());
        let plan = Plan {
            chain_id: ctx.config.chain_id,
            leader: key,
            version,
            // A block that has begun keeps its plan.
            effective: self.led.map_or(0, |led| led + 1),
            table,
            entries: entries.chain(contents.roots.iter().copied()).collect(),
        };
        let gateway = ctx.epochs.leader_of_key(&key).map(|leader| leader.gateway);
        let frame = Control::Plan(plan.clone().sign(&self.key));
        let bytes = frame.to_bytes();
        let mut view = None;
        for living in ctx.epochs.of_table(table) {
            let made = match &view {
                Some(view) => Arc::clone(view),
                None => {
                    let members = living.epoch().members();
                    Arc::new(PlanView::new(&plan, members).expect("planned in its bounds"))
                }
            };
            if let Some(gateway) = gateway {
                living.plans.learn(gateway, (key, version), Arc::clone(&made), bytes.clone());
            }
            view = Some(made);
        }
        let Some(view) = view else { return };
        ctx.send_control_to_all(Lane::Bulk, &frame, None);
        ctx.counters.plans_made += 1;
        for own in self.plans.iter_mut().filter(|plans| plans.table == table) {
            own.tell(OwnPlan {
                version,
                view: Arc::clone(&view),
                frame: frame.clone(),
                planned: Some((Arc::clone(&contents), shapes.clone())),
                acks: BTreeSet::new(),
                told_at: ctx.now,
                effective: None,
            });
        }
    }
}
