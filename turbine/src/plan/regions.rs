//! The regions, heads and roots of a plan, checked and put in order.
//!
//! Everything a hostile leader can write is either refused here or harmless: numbers of regions
//! are below that of the members, so that no table is longer than the membership; a region whose
//! heads may not relay has none, and the roots send to each of its members.

use super::view::PlanError;
use super::{CLASSES, Entry, MAX_HEADS, MAX_ROOTS, MAX_TERRITORIES, Plan};
use crate::membership::PeerIndex;
use crate::shuffle::WeightTree;

/// A member that may carry shreds, with its weight as it counts in draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) peer: PeerIndex,
    pub(crate) weight: u64,
    /// Bit c: whether it may be head for roots of class c.
    pub(crate) classes: u8,
}

/// A root, with its weight as it counts in draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) peer: PeerIndex,
    pub(crate) weight: u64,
    pub(crate) class: u8,
}

/// A region of the plan.
#[derive(Debug, Clone, Default)]
pub(crate) struct Region {
    /// Rising.
    pub(crate) members: Vec<PeerIndex>,
    pub(crate) heads: Vec<Candidate>,
    pub(crate) territory: u8,
}

/// The regions of a plan: about 30 bytes a member.
#[derive(Debug, Default)]
pub(crate) struct Regions {
    /// By number: those that are farthest from the roots first.
    regions: Vec<Region>,
    /// The region of each member.
    of: Vec<u16>,
    /// By territory, best first.
    roots: Vec<Vec<Root>>,
}

impl Regions {
    /// Checks the entries and roots of a plan of members with `weights`, for each of whom it has an
    /// entry.
    pub(super) fn new(plan: &Plan, weights: &[u64]) -> Result<Self, PlanError> {
        let n = weights.len();
        let weighted = weights.iter().any(|weight| *weight > 0);
        let may_relay = |entry: &Entry, i: usize| entry.relays && (weights[i] > 0 || !weighted);
        let (entries, words) = plan.entries.split_at(n);
        let entries: Vec<Entry> = entries.iter().map(|bits| Entry::from_bits(*bits)).collect();
        let count = entries.iter().map(|entry| usize::from(entry.region) + 1).max().unwrap_or(0);
        if count > n {
            return Err(PlanError::Region { found: count - 1, members: n });
        }
        let mut regions = vec![Region::default(); count];
        for (i, entry) in entries.iter().enumerate() {
            let region = &mut regions[usize::from(entry.region)];
            if usize::from(entry.territory) >= MAX_TERRITORIES
                || !region.members.is_empty() && region.territory != entry.territory
            {
                return Err(PlanError::Territory(entry.territory));
            }
            region.territory = entry.territory;
            region.members.push(i as PeerIndex);
            if entry.heads != 0 && may_relay(entry, i) {
                let (peer, weight) = (i as PeerIndex, weights[i].max(1));
                region.heads.push(Candidate { peer, weight, classes: entry.heads });
            }
            if region.heads.len() > MAX_HEADS {
                return Err(PlanError::Heads(entry.region));
            }
        }
        for region in &mut regions {
            let scaled = scaled(region.heads.iter().map(|head| head.weight));
            region.heads.iter_mut().zip(scaled).for_each(|(head, weight)| head.weight = weight);
        }
        let territories = regions.iter().map(|region| usize::from(region.territory) + 1).max();
        let mut roots = vec![Vec::new(); territories.unwrap_or(1)];
        if words.len() > MAX_ROOTS {
            return Err(PlanError::Roots);
        }
        let mut known = std::collections::BTreeSet::new();
        for bits in words {
            let (peer, class) = ((bits & 0xffff) as usize, (bits >> 16) as usize);
            let entry = entries.get(peer).filter(|entry| may_relay(entry, peer));
            let Some(entry) = entry.filter(|_| class < CLASSES && known.insert(peer)) else {
                return Err(PlanError::Roots);
            };
            let root =
                Root { peer: peer as PeerIndex, weight: weights[peer].max(1), class: class as u8 };
            roots[usize::from(entry.territory)].push(root);
        }
        for roots in &mut roots {
            let scaled = scaled(roots.iter().map(|root| root.weight));
            roots.iter_mut().zip(scaled).for_each(|(root, weight)| root.weight = weight);
        }
        let of = entries.iter().map(|entry| entry.region).collect();
        Ok(Self { regions, of, roots })
    }

    /// All regions by number.
    pub(crate) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The number of a member's region.
    pub(crate) fn of(&self, member: PeerIndex) -> u16 {
        self.of[member as usize]
    }

    /// The territory of a member.
    pub(crate) fn territory(&self, member: PeerIndex) -> u8 {
        self.regions[usize::from(self.of(member))].territory
    }

    /// Roots by territory, best first.
    pub(crate) fn roots(&self) -> &[Vec<Root>] {
        &self.roots
    }
}

/// Weights whose sum has room for arithmetic; none that was positive becomes zero.
fn scaled(weights: impl Iterator<Item = u64>) -> Vec<u64> {
    WeightTree::new(&weights.collect::<Vec<u64>>()).iter().collect()
}
