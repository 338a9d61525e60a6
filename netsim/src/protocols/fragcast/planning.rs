//! Plans of leaders.
//!
//! The protocol says when planning is due and on what; here it is done at once, since virtual time
//! stands still meanwhile.

use std::sync::Arc;

use fragcast_turbine::{DelayMatrix, PlanJob, Protocol, RttCode, Timestamp};

use super::epochs::Keys;
use super::{EPOCH, measuring};
use crate::world::World;
use crate::{NodeId, SECONDS};

/// The true round trips of a world, as exact as a leader can be told of them.
pub(crate) fn truth(world: &World) -> DelayMatrix {
    let n = world.len() as NodeId;
    let mut matrix = DelayMatrix::whole(world.len());
    for a in 0..n {
        for b in 0..a {
            let micros = (world.delay(a, b) + world.delay(b, a)) / 1_000;
            matrix.set(a, b, RttCode::of_micros(u32::try_from(micros).unwrap_or(u32::MAX)));
        }
    }
    matrix
}

/// A job as it is done here: the records of simulated members do not tell their uplinks.
pub(crate) fn with_uplinks(job: PlanJob, bps: u64) -> PlanJob {
    PlanJob { uplinks_bps: vec![bps; job.uplinks_bps.len()], ..job }
}

/// Does the planning that is due at any node. Says whether there was any.
pub(super) fn plan(nodes: &mut [Protocol], now: Timestamp, uplink_bps: u64) -> bool {
    let mut any = false;
    for protocol in nodes {
        if let Some(job) = protocol.planning_job(now) {
            protocol.planned(now, with_uplinks(job, uplink_bps).run());
            any = true;
        }
    }
    any
}

/// Gives leaders the true delays, and lets them plan and tell everybody, long before a run.
pub(super) fn plan_with_truth(nodes: &mut [Protocol], keys: &Keys, world: &World, bps: u64) {
    let now = Timestamp::from_nanos(EPOCH - 200 * SECONDS);
    let delays = Arc::new(truth(world));
    for node in &mut *nodes {
        node.assume_delays(Arc::clone(&delays));
    }
    if plan(nodes, now, bps) {
        measuring::deliver(nodes, keys, now);
    }
}
