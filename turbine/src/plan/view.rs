//! A plan joined with its table: what routes are drawn from.

use std::sync::{Arc, Mutex, PoisonError};

use super::drawn::{Drawn, Recent};
use super::{Entry, MAX_HEADS, MAX_ROOTS, Plan, Regions};
use crate::membership::{Membership, PeerIndex};
use crate::route::Deal;
use crate::shuffle::{Shuffle, WeightTree};

/// Bound of the deals that a plan remembers, in shreds and regions: 2 MB if all of them are dealt,
/// which only a simulation does.
const MAX_DEALT: usize = 1 << 20;
/// Sets of which they are kept at most: half a megabyte of their roots.
const MAX_DEALS: usize = 1_024;

/// A plan joined with its table: what routes are drawn from. 70 bytes a member.
#[derive(Debug)]
pub struct PlanView {
    id: u64,
    /// Members that relay, rising.
    relays: Vec<PeerIndex>,
    /// Their weights, in the same order; all one if nobody has weight.
    weights: WeightTree,
    /// Members that do not, rising.
    leaves: Vec<PeerIndex>,
    regions: Regions,
    drawn: Mutex<Drawn>,
    deals: Mutex<Recent<Deal>>,
}

/// Why a plan cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It refers to a table that this node does not have.
    #[error("the plan refers to another membership table")]
    Table,
    /// It has fewer entries than there are members.
    #[error("{found} entries for {members} members")]
    Entries {
        /// Entries of the plan.
        found: usize,
        /// Members of the table.
        members: usize,
    },
    /// A region's number is not below that of the members.
    #[error("region {found} in a table of {members} members")]
    Region {
        /// The highest number.
        found: usize,
        /// Members of the table.
        members: usize,
    },
    /// A region is in several territories, or there are too many of those.
    #[error("territory {0} is not that of its region, or exceeds the limit")]
    Territory(u8),
    /// A region has more heads than [`MAX_HEADS`].
    #[error("more than {MAX_HEADS} heads in region {0}")]
    Heads(u16),
    /// More roots than [`MAX_ROOTS`], the same twice, or one that may not relay.
    #[error("more than {MAX_ROOTS} roots, or one that is listed twice or may not relay")]
    Roots,
}

impl PlanView {
    /// Joins a plan with the table it refers to.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(plan: &Plan, members: &Membership) -> Result<Self, PlanError> {
        if plan.table != members.hash() {
            return Err(PlanError::Table);
        }
        if plan.entries.len() < members.len() {
            return Err(PlanError::Entries { found: plan.entries.len(), members: members.len() });
        }
        let (relays, leaves): (Vec<PeerIndex>, Vec<PeerIndex>) = (0..members.len() as PeerIndex)
            .partition(|&i| Entry::from_bits(plan.entries[i as usize]).relays);
        let all: Vec<u64> = members.members().iter().map(|member| member.weight).collect();
        let regions = Regions::new(plan, &all)?;
        // A relay without weight still has to come up in the shuffle.
        let weight = |i: &PeerIndex| all[*i as usize].max(1);
        let weights = WeightTree::new(&relays.iter().map(weight).collect::<Vec<_>>());
        Ok(Self::of(plan.id(), relays, weights, leaves, regions))
    }

    pub(super) fn of(
        id: u64,
        relays: Vec<PeerIndex>,
        weights: WeightTree,
        leaves: Vec<PeerIndex>,
        regions: Regions,
    ) -> Self {
        let dealt = fragcast_shredder::coding::MAX_SHARDS * regions.regions().len().max(1);
        let deals = Mutex::new(Recent::new((MAX_DEALT / dealt).min(MAX_DEALS)));
        Self { id, relays, weights, leaves, regions, drawn: Mutex::default(), deals }
    }

    /// The view of a configured plan, from weights alone: for tests and benchmarks of routes,
    /// which need no records.
    #[doc(hidden)]
    pub fn from_weights(id: u64, weights: &[u64]) -> Self {
        let weighted = weights.iter().any(|w| *w > 0);
        let (relays, leaves): (Vec<PeerIndex>, Vec<PeerIndex>) =
            (0..weights.len() as PeerIndex).partition(|i| !weighted || weights[*i as usize] > 0);
        let of: Vec<u64> = relays.iter().map(|i| weights[*i as usize].max(1)).collect();
        let entries = vec![0; weights.len()];
        let plan = Plan { entries, ..Plan::default() };
        let regions = Regions::new(&plan, weights).expect("one region");
        Self::of(id, relays, WeightTree::new(&of), leaves, regions)
    }

    /// The view of any entries and roots, from weights alone: for tests and benchmarks of routes,
    /// which need no records, and for the planner, which tries plans that nobody has signed.
    ///
    /// # Errors
    /// [`PlanError`].
    #[doc(hidden)]
    pub fn from_entries(
        id: u64,
        weights: &[u64],
        entries: &[Entry],
        roots: &[u32],
    ) -> Result<Self, PlanError> {
        let entries = entries.iter().map(|entry| entry.to_bits());
        let plan =
            Plan { entries: entries.chain(roots.iter().copied()).collect(), ..Plan::default() };
        let regions = Regions::new(&plan, weights)?;
        Ok(Self { regions, ..Self::from_weights(id, weights) })
    }

    /// The plan's id.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Members that relay, rising.
    pub fn relays(&self) -> &[PeerIndex] {
        &self.relays
    }

    /// Members that do not, rising.
    pub fn leaves(&self) -> &[PeerIndex] {
        &self.leaves
    }

    /// The weights of the relays, in their order.
    pub const fn weights(&self) -> &WeightTree {
        &self.weights
    }

    #[cfg(test)]
    pub(super) fn drawn_for_test(&self) -> std::sync::MutexGuard<'_, Drawn> {
        self.drawn.lock().unwrap()
    }

    /// Its regions, heads and roots.
    pub(crate) const fn regions(&self) -> &Regions {
        &self.regions
    }

    /// Whether it has roots, as plans have that were made from delays.
    pub fn has_roots(&self) -> bool {
        self.regions.roots().iter().any(|roots| !roots.is_empty())
    }

    /// Those that `me` sends to or gets shreds from in regional trees of this plan, if it is
    /// `leader`'s: the leader and roots all relays, a relay the members of its region.
    pub fn peers_of(&self, leader: PeerIndex, me: PeerIndex, mut out: impl FnMut(PeerIndex)) {
        let roots = || self.regions.roots().iter().flatten().map(|root| root.peer);
        let is_relay = |member: &PeerIndex| self.relays.binary_search(member).is_ok();
        let region = &self.regions.regions()[usize::from(self.regions.of(me))].members;
        let relays = is_relay(&me);
        if relays {
            out(leader);
        }
        if relays || me == leader {
            roots().for_each(&mut out);
        }
        if relays {
            region.iter().copied().for_each(&mut out);
        } else {
            region.iter().copied().filter(is_relay).for_each(&mut out);
        }
        if me == leader || relays && roots().any(|root| root == me) {
            self.relays.iter().copied().for_each(&mut out);
        }
    }

    /// What all shreds of the set of `seed` share in the regional tree: dealt once, whoever asks.
    pub(crate) fn deal(&self, seed: &[u8; 32], make: impl FnOnce() -> Deal) -> Arc<Deal> {
        let mut deals = self.deals.lock().unwrap_or_else(PoisonError::into_inner);
        deals.get(seed, make)
    }

    /// The first `len` relays of the shuffle of `seed`, which leaves `without` out: drawn once,
    /// however many nodes of this process ask. A node asks once a shred; a simulation asks
    /// once a shred and node, thousands of times for the same draw. [`MAX_DRAWN`] bounds what is
    /// kept.
    pub(crate) fn drawn(
        &self,
        seed: &[u8; 32],
        without: Option<usize>,
        len: usize,
    ) -> Arc<[PeerIndex]> {
        // A thread that panicked with the lock held left a cache, nothing to be inconsistent.
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (*seed, without);
        if let Some(order) = drawn.orders.get(&key).filter(|order| order.len() >= len) {
            return Arc::clone(order);
        }
        let shuffle = Shuffle::new(&self.weights, seed, without);
        let order: Arc<[PeerIndex]> = shuffle.take(len).map(|i| self.relays[i]).collect();
        drawn.insert(key, Arc::clone(&order));
        order
    }

    /// The share of all relay work, the leader's own aside, that falls on the two heaviest.
    pub fn busiest(&self, leader: PeerIndex) -> f64 {
        let mut weights: Vec<u64> = self
            .relays
            .iter()
            .zip(self.weights.iter())
            .filter(|(relay, _)| **relay != leader)
            .map(|(_, weight)| weight)
            .collect();
        weights.sort_unstable_by(|a, b| b.cmp(a));
        let total: f64 = weights.iter().map(|w| *w as f64).sum();
        let two: f64 = weights.iter().take(2).map(|w| *w as f64).sum();
        if total > 0.0 { two / total } else { 0.0 }
    }
}
