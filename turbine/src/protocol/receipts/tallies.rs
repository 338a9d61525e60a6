//! What members say of the edges to them, and what follows from it.
//!
//! An edge is from a relay, as a root or as a head, to a member. Of each are counted the shreds that
//! were to come over it, and those that came. A member's *usual share* is what came of all that was
//! to come to it. It accuses a relay if no more than a third of what was to come by that share came
//! over the edge. Who says that nothing came at all so accuses nobody.
//!
//! A head serves each member of its region with many shreds, so its edges speak each for itself:
//! one counts if at least [`EXPECTED`] shreds were to come. A root sends a shred to one member of a
//! region, so few come over each of its edges: those to a region are judged together. A region
//! accuses a root if at least [`EXPECTED`] shreds were to come to all its members, of whom none
//! counts for more than that number, and no more than a third of these came.
//!
//! Numbers are halved every [`HALVED`] blocks, so that what was long ago counts little.

use std::collections::BTreeMap;

use crate::membership::PeerIndex;
use crate::plan::Regions;

/// Edges that are remembered: 4 MB. Those of a member beyond it are not counted.
pub(super) const MAX_EDGES: usize = 1 << 18;
/// Shreds that must have been expected over an edge, or over those from a root to a region, for
/// them to count.
const EXPECTED: u64 = 2;
/// Parts of a shred in which shares are summed up.
const PARTS: u64 = 1_000;
/// Regions that must accuse a root.
const REGIONS: usize = 3;
/// Numbers are halved after so many blocks.
const HALVED: u64 = 4;

/// What a peer is to the shreds that it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// It made them.
    Leader,
    Root,
    Head,
}

/// An edge to a known member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    pub(super) role: Role,
    /// Its upper end.
    pub(super) from: PeerIndex,
}

/// Shreds that came, of those that were to come.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    came: u16,
    of: u16,
}

impl Share {
    fn add(&mut self, (came, of): (u16, u16)) {
        if self.of > u16::MAX / 2 {
            self.halve();
        }
        self.came = self.came.saturating_add(came);
        self.of = self.of.saturating_add(of);
    }

    const fn halve(&mut self) {
        (self.came, self.of) = (self.came / 2, self.of / 2);
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Reporter {
    /// The last block and attempt that it reported.
    last: (u64, u8),
    came: u32,
    of: u32,
}

/// Relays that receipts show not to relay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::protocol) struct Verdict {
    /// By many regions: they are to relay nothing.
    pub(in crate::protocol) relays: Vec<PeerIndex>,
    /// By their own region: they are to be no heads of it.
    pub(in crate::protocol) heads: Vec<PeerIndex>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    /// The hash of the table whose members these are.
    table: [u8; 32],
    reporters: BTreeMap<PeerIndex, Reporter>,
    edges: BTreeMap<(Edge, PeerIndex), Share>,
    /// The block from which on numbers are halved next.
    halve_at: u64,
}

/// What the members that a relay serves say of it.
#[derive(Debug, Default)]
struct Served {
    members: u64,
    weight: u128,
    accusers: u64,
    accusing: u128,
}

impl Served {
    fn add(&mut self, weight: u128, accuses: bool) {
        self.members += 1;
        self.weight += weight;
        if accuses {
            self.accusers += 1;
            self.accusing += weight;
        }
    }
}

/// What the members of one region say of a root.
#[derive(Debug, Default)]
struct InRegion {
    served: Served,
    /// [`PARTS`] of shreds that were to come, and that came.
    expected: u64,
    came: u64,
}

impl InRegion {
    fn accuses(&self) -> bool {
        self.expected >= EXPECTED * PARTS && 3 * self.came <= self.expected
    }
}

impl Tallies {
    pub(super) const fn table(&self) -> [u8; 32] {
        self.table
    }

    /// Begins a receipt of a member of a table. `false` if it has sent one of this block or a later
    /// one already.
    pub(super) fn begin(&mut self, table: [u8; 32], member: PeerIndex, at: (u64, u8)) -> bool {
        if self.table != table {
            *self = Self { table, halve_at: at.0 + HALVED, ..Self::default() };
        }
        let known = self.reporters.contains_key(&member);
        let reporter = self.reporters.entry(member).or_default();
        if known && reporter.last >= at {
            return false;
        }
        reporter.last = at;
        if at.0 >= self.halve_at {
            self.halve_at = at.0 + HALVED;
            self.halve();
        }
        true
    }

    fn halve(&mut self) {
        self.edges.retain(|_, share| {
            share.halve();
            share.of > 0
        });
        self.reporters.values_mut().for_each(|reporter| {
            (reporter.came, reporter.of) = (reporter.came / 2, reporter.of / 2);
        });
    }

    /// Adds what a member says.
    pub(super) fn add(
        &mut self,
        member: PeerIndex,
        edges: impl IntoIterator<Item = (Edge, (u16, u16))>,
    ) {
        let Some(reporter) = self.reporters.get_mut(&member) else { return };
        for (edge, share) in edges {
            reporter.came = reporter.came.saturating_add(share.0.into());
            reporter.of = reporter.of.saturating_add(share.1.into());
            let full = self.edges.len() >= MAX_EDGES;
            match self.edges.get_mut(&(edge, member)) {
                Some(known) => known.add(share),
                None if full => {}
                None => self.edges.entry((edge, member)).or_default().add(share),
            }
        }
    }

    /// Forgets the edges from a relay.
    pub(super) fn forget(&mut self, relay: PeerIndex) {
        for role in [Role::Root, Role::Head] {
            let edge = Edge { role, from: relay };
            let of: Vec<_> = self.edges.range((edge, 0)..=(edge, PeerIndex::MAX)).collect();
            let of: Vec<_> = of.into_iter().map(|(at, _)| *at).collect();
            of.iter().for_each(|at| _ = self.edges.remove(at));
        }
    }

    /// [`PARTS`] of shreds that were to come over an edge by a member's usual share.
    fn expected(&self, member: PeerIndex, share: Share) -> Option<u64> {
        let Reporter { came, of, .. } = self.reporters.get(&member)?;
        (PARTS * u64::from(*came) * u64::from(share.of)).checked_div(u64::from(*of))
    }

    /// Whether a member accuses a relay, if the edge says enough.
    fn accuses(&self, member: PeerIndex, share: Share) -> Option<bool> {
        let expected = self.expected(member, share)?;
        let came = PARTS * u64::from(share.came);
        (expected >= EXPECTED * PARTS).then_some(3 * came <= expected)
    }

    /// What follows.
    pub(super) fn verdict(&self, regions: &Regions, weights: &[u64]) -> Verdict {
        let weighted = weights.iter().any(|weight| *weight > 0);
        let mut heads = BTreeMap::<PeerIndex, Served>::new();
        let mut roots = BTreeMap::<PeerIndex, BTreeMap<u16, InRegion>>::new();
        for ((edge, member), share) in &self.edges {
            let Some(own) = weights.get(*member as usize) else { continue };
            let weight = u128::from(if weighted { *own } else { 1 });
            match edge.role {
                Role::Head => {
                    if let Some(accuses) = self.accuses(*member, *share) {
                        heads.entry(edge.from).or_default().add(weight, accuses);
                    }
                }
                Role::Root if weight > 0 => {
                    let Some(expected) = self.expected(*member, *share).filter(|e| *e > 0) else {
                        continue;
                    };
                    let came = PARTS * u64::from(share.came);
                    let counts = expected.min(EXPECTED * PARTS);
                    let of = roots.entry(edge.from).or_default();
                    let of = of.entry(regions.of(*member)).or_default();
                    of.expected += counts;
                    of.came += came * counts / expected;
                    of.served.add(weight, 3 * came <= expected);
                }
                Role::Root | Role::Leader => {}
            }
        }
        let relays: Vec<PeerIndex> =
            roots.iter().filter(|(_, of)| excludes(of)).map(|(root, _)| *root).collect();
        let heads = heads.iter().filter(|(_, of)| of.is_no_head()).map(|(head, _)| *head);
        let heads = heads.filter(|head| !relays.contains(head)).collect();
        Verdict { relays, heads }
    }

    pub(super) fn reporters(&self) -> usize {
        self.reporters.values().filter(|reporter| reporter.of > 0).count()
    }

    /// The loss of a hop: the median over members, each with the edges over which more than a third
    /// of its usual share comes.
    pub(super) fn loss(&self) -> Option<f64> {
        let mut of_member = BTreeMap::<PeerIndex, (u32, u32)>::new();
        for ((_, member), share) in &self.edges {
            if self.accuses(*member, *share) == Some(false) {
                let sum = of_member.entry(*member).or_default();
                *sum = (sum.0 + u32::from(share.came), sum.1 + u32::from(share.of));
            }
        }
        let lost = of_member.values().map(|(came, of)| 1.0 - f64::from(*came) / f64::from(*of));
        let mut lost: Vec<f64> = lost.collect();
        lost.sort_unstable_by(f64::total_cmp);
        lost.get(lost.len() / 2).copied()
    }
}

/// Whether three regions accuse a root, and in them a third of all that it served.
fn excludes(by_region: &BTreeMap<u16, InRegion>) -> bool {
    let (mut all, mut accusing) = ((0, 0), (0, 0));
    let mut regions = 0;
    for region in by_region.values() {
        let Served { members, weight, accusers, accusing: of } = region.served;
        all = (all.0 + members, all.1 + weight);
        if region.accuses() {
            regions += 1;
            accusing = (accusing.0 + accusers, accusing.1 + of);
        }
    }
    regions >= REGIONS && 3 * accusing.0 >= all.0 && 3 * accusing.1 >= all.1
}

impl Served {
    /// More than half of those that it served, two at least.
    const fn is_no_head(&self) -> bool {
        let by_weight = 2 * self.accusing > self.weight || self.weight == 0;
        self.accusers >= 2 && 2 * self.accusers > self.members && by_weight
    }
}

#[cfg(test)]
mod tests;
