//! Plans that shreds name and this node lacks.
//!
//! A leader tells its plans to all peers before it uses them, and uses them only once most have
//! acknowledged. Who missed one asks for it by its id: first whoever sent a shred that names it,
//! who relays by that plan and has it, then the leader, in turns. A shred is validated before
//! anybody is asked, so an id is one that the block's leader has signed.
//!
//! Shreds that came meanwhile wait, and are sent on when the plan is here, if they are not too old
//! to be of use.
//!
//! # Bounds
//! [`MAX_WANTED`] ids, each asked for [`TRIES`] times and every [`AGAIN`]; [`MAX_WAITING`] shreds of
//! 1,500 bytes: 0.8 MB.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fragcast_shredder::ValidatedShred;

use super::ctx::Ctx;
use crate::control::Control;
use crate::egress::Lane;
use crate::membership::PeerIndex;
use crate::peer::PeerKey;
use crate::time::Timestamp;

/// Plans that are asked for at a time.
const MAX_WANTED: usize = 8;
/// Shreds that wait for one of them.
const MAX_WAITING: usize = 512;
/// A plan is asked for again after this long.
const AGAIN: Duration = Duration::from_millis(250);
/// Plans that peers have offered, of which it is remembered when they were asked for: 24 bytes each.
const MAX_OFFERED: usize = 64;
/// How often a plan is asked for.
const TRIES: u8 = 8;
/// How long a shred waits: later its receivers have repaired what it is for.
const LIFE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Wanted {
    /// When a shred named it last.
    named_at: Timestamp,
    asked_at: Timestamp,
    tries: u8,
}

#[derive(Debug)]
struct Waiting {
    at: Timestamp,
    shred: ValidatedShred,
    leader: PeerIndex,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct MissingPlans {
    wanted: BTreeMap<u64, Wanted>,
    /// When a plan was asked for that somebody offered.
    offered: BTreeMap<u64, Timestamp>,
    waiting: VecDeque<Waiting>,
}

impl MissingPlans {
    /// Keeps a shred that cannot be sent on, since its plan is not here, and asks for the plan.
    pub(super) fn wait_for(
        &mut self,
        ctx: &mut Ctx,
        from: PeerKey,
        shred: &ValidatedShred,
        leader: PeerIndex,
    ) {
        let (now, header) = (ctx.now, *shred.header());
        while self.waiting.front().is_some_and(|first| now.since(first.at) > LIFE)
            || self.waiting.len() >= MAX_WAITING
        {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Waiting { at: now, shred: shred.clone(), leader });

        if !self.wanted.contains_key(&header.plan) && self.wanted.len() >= MAX_WANTED {
            let oldest = self.wanted.iter().min_by_key(|(_, wanted)| wanted.named_at);
            let oldest = oldest.map(|(id, _)| *id);
            oldest.map(|id| self.wanted.remove(&id));
        }
        let wanted = self.wanted.entry(header.plan).or_insert(Wanted {
            named_at: now,
            asked_at: Timestamp::default(),
            tries: 0,
        });
        wanted.named_at = now;
        if wanted.tries >= TRIES || (wanted.tries > 0 && now.since(wanted.asked_at) < AGAIN) {
            return;
        }
        let leader = ctx.leader_key_of(&header.message_key());
        let leader = leader.filter(|leader| ctx.peers.can_ask(*leader));
        let to = match wanted.tries % 2 {
            1 => leader.unwrap_or(from),
            _ => from,
        };
        wanted.tries += 1;
        wanted.asked_at = now;
        ctx.counters.plans_asked += 1;
        ctx.send_control_in(Lane::Data, to, &Control::PlanRequest(header.plan));
    }

    /// A peer says that it has a plan that is not known here: it is asked for it, unless another was
    /// a moment ago.
    pub(super) fn offered(&mut self, ctx: &mut Ctx, from: PeerKey, plan: u64) {
        let now = ctx.now;
        if self.offered.get(&plan).is_some_and(|asked| now.since(*asked) < AGAIN) {
            return;
        }
        if self.offered.len() >= MAX_OFFERED {
            let oldest = self.offered.iter().min_by_key(|(_, asked)| **asked);
            let oldest = oldest.map(|(plan, _)| *plan);
            oldest.map(|plan| self.offered.remove(&plan));
        }
        self.offered.insert(plan, now);
        ctx.counters.plans_asked += 1;
        ctx.send_control_in(Lane::Repair, from, &Control::PlanRequest(plan));
    }

    /// A plan is here: the shreds that waited for it and are still of use.
    pub(super) fn learnt(&mut self, now: Timestamp, plan: u64) -> Vec<(ValidatedShred, PeerIndex)> {
        self.wanted.remove(&plan);
        self.offered.remove(&plan);
        let (named, others): (VecDeque<Waiting>, VecDeque<Waiting>) =
            self.waiting.drain(..).partition(|waiting| waiting.shred.header().plan == plan);
        self.waiting = others;
        let fresh = named.into_iter().filter(|waiting| now.since(waiting.at) <= LIFE);
        fresh.map(|waiting| (waiting.shred, waiting.leader)).collect()
    }
}

#[cfg(test)]
mod tests;
