//! The regional tree: leader → one root for each territory → one head in each region → the rest.
//!
//! ```text
//! leader ─▶ root ─┬─▶ head of region 0 ─▶ its other members        farthest first
//!                 ├─▶ head of region 1 ─▶ …
//!                 ├─▶ each member of a region without heads
//!                 └─▶ each member of the root's own region
//! ```
//!
//! All shreds of a set are dealt at once, from a generator that is seeded with the set's root.
//! *Roots*: data shreds go over the best of those that the header names, coding over the next.
//! *Heads*: for each shred one of the region's members that the plan lets be a head for roots of
//! the class of the shred's root. Both are drawn by weight, and nobody is drawn again before all
//! others have been that may carry the shred: one that is silent costs shreds and no message, and
//! no uplink has several times the others' work. The heads of a region are dealt when somebody
//! asks for them: a member asks for its own region's, and a root for all.
//!
//! A root sends to its own region last, where each member is one more datagram and a head elsewhere
//! serves many.
//!
//! A region with fewer than three members beside the leader has no head, and the roots send to
//! each of its members: a head could spare them one shred, and costs a hop.

mod path;

use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use fragcast_shredder::CodeRate;

use super::{Below, Place, Slot};
use crate::membership::PeerIndex;
use crate::plan::{PlanView, Regions};
use crate::shuffle::Stream;

/// Members of a region, beside the leader, from which it has heads.
pub(crate) const WITH_HEADS: usize = 3;

/// Nobody, in a list of members: no table is so long that this is a member of it.
const NOBODY: PeerIndex = PeerIndex::MAX;

/// What all shreds of a set share.
#[derive(Debug)]
pub(crate) struct Deal {
    seed: [u8; 32],
    leader: PeerIndex,
    shards: usize,
    /// By territory and shred; [`NOBODY`] where the territory has no root but the leader. With
    /// the root's class.
    roots: Vec<(PeerIndex, u8)>,
    /// By region: its head for each shred; empty if it has none.
    heads: Vec<OnceLock<Box<[PeerIndex]>>>,
}

impl Deal {
    fn new(regions: &Regions, roots: u16, leader: PeerIndex, seed: [u8; 32], slot: Slot) -> Self {
        let (k, m) = (usize::from(slot.k), usize::from(slot.m));
        let mut stream = Stream::of(&seed, b"roots");
        let mut dealt = Vec::with_capacity((k + m) * regions.roots().len());
        for pool in regions.roots() {
            let pool = pool.iter().filter(|root| root.peer != leader);
            let pool: Vec<_> = pool.take(roots.into()).collect();
            if pool.is_empty() {
                dealt.extend(std::iter::repeat_n((NOBODY, 0), k + m));
                continue;
            }
            // At least one for the data, and all of one for both.
            let best = (pool.len() * k).div_ceil(k + m).max(1);
            let (data, coding) = pool.split_at(best);
            for (pool, shards) in [(data, k), (if coding.is_empty() { data } else { coding }, m)] {
                let mut hand = Hand::new(pool.iter().map(|root| root.weight));
                for _ in 0..shards {
                    let root = pool[hand.draw(&mut stream, |_| true)];
                    dealt.push((root.peer, root.class));
                }
            }
        }
        let heads = (0..regions.regions().len()).map(|_| OnceLock::new()).collect();
        Self { seed, leader, shards: k + m, roots: dealt, heads }
    }

    /// A deal that some set could have, for the planner to try.
    pub(crate) fn of_model(
        regions: &Regions,
        roots: u16,
        leader: PeerIndex,
        draw: [u8; 2],
        rate: CodeRate,
    ) -> Self {
        let seed = blake3::derive_key("fragcast 2026 planner", &draw);
        Self::new(regions, roots, leader, seed, Slot { index: 0, k: rate.k, m: rate.m })
    }

    /// The root of a shred in a territory; `None` if the leader is its own.
    pub(crate) fn root(&self, territory: u8, index: u8) -> Option<PeerIndex> {
        Some(self.dealt(territory, index).0).filter(|root| *root != NOBODY)
    }

    fn dealt(&self, territory: u8, index: u8) -> (PeerIndex, u8) {
        self.roots[usize::from(territory) * self.shards + usize::from(index)]
    }

    /// The head of a region for a shred whose root is elsewhere; `None` if it has no heads.
    pub(crate) fn head(&self, regions: &Regions, number: u16, index: u8) -> Option<PeerIndex> {
        let heads = self.heads[usize::from(number)].get_or_init(|| self.heads(regions, number));
        heads.get(usize::from(index)).copied()
    }

    fn heads(&self, regions: &Regions, number: u16) -> Box<[PeerIndex]> {
        let region = &regions.regions()[usize::from(number)];
        let leader = usize::from(regions.of(self.leader) == number);
        if region.members.len() - leader < WITH_HEADS {
            return Box::default();
        }
        let heads: Vec<_> = region.heads.iter().filter(|head| head.peer != self.leader).collect();
        if heads.is_empty() {
            return Box::default();
        }
        let known = heads.iter().fold(0, |known, head| known | head.classes);
        let mut hand = Hand::new(heads.iter().map(|head| head.weight));
        let mut stream = Stream::of(&self.seed, &number.to_le_bytes());
        (0..self.shards)
            .map(|index| {
                let class = 1 << self.dealt(region.territory, index as u8).1;
                // A class of roots for which nobody is eligible takes any of the heads.
                let classes = if known & class > 0 { class } else { u8::MAX };
                heads[hand.draw(&mut stream, |i| heads[i].classes & classes > 0)].peer
            })
            .collect()
    }
}

/// Members that are drawn by weight, nobody again before all others that are eligible.
struct Hand {
    weights: Vec<u64>,
    drawn: Vec<u8>,
}

impl Hand {
    fn new(weights: impl Iterator<Item = u64>) -> Self {
        let weights: Vec<u64> = weights.collect();
        Self { drawn: vec![0; weights.len()], weights }
    }

    /// The number of one of those that are eligible, of whom there is at least one.
    fn draw(&mut self, stream: &mut Stream, eligible: impl Fn(usize) -> bool) -> usize {
        let Self { weights, drawn } = self;
        let (mut fewest, mut total) = (u8::MAX, 0);
        for i in (0..weights.len()).filter(|i| eligible(*i)) {
            match drawn[i].cmp(&fewest) {
                Ordering::Less => (fewest, total) = (drawn[i], weights[i]),
                Ordering::Equal => total += weights[i],
                Ordering::Greater => {}
            }
        }
        let mut point = stream.below(total);
        let mut those = (0..weights.len()).filter(|i| drawn[*i] == fewest && eligible(*i));
        let chosen = those.find(|i| match point.checked_sub(weights[*i]) {
            Some(beyond) => {
                point = beyond;
                false
            }
            None => true,
        });
        let chosen = chosen.expect("the point is below the sum of the weights");
        drawn[chosen] += 1;
        chosen
    }
}

/// The regional tree of one shred.
#[derive(Debug, Clone)]
pub(super) struct Regional<'a> {
    regions: &'a Regions,
    deal: Arc<Deal>,
    index: u8,
}

impl<'a> Regional<'a> {
    pub(super) fn new(
        view: &'a PlanView,
        roots: u16,
        leader: PeerIndex,
        root: &[u8; 32],
        slot: Slot,
    ) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("fragcast 2026 regional route v1");
        hasher.update(&view.id().to_le_bytes()).update(root);
        hasher.update(&[slot.k, slot.m]).update(&roots.to_le_bytes()).update(&leader.to_le_bytes());
        let seed: [u8; 32] = hasher.finalize().into();
        let regions = view.regions();
        let deal = view.deal(&seed, || Deal::new(regions, roots, leader, seed, slot));
        Self { regions, deal, index: slot.index }
    }

    /// Those to whom `sender` sends the shred.
    pub(super) fn children(&self, sender: PeerIndex, mut out: impl FnMut(Place)) {
        let leader = self.deal.leader;
        if sender == leader {
            for territory in 0..self.regions.roots().len() as u8 {
                match self.deal.root(territory, self.index) {
                    Some(root) => out(Place { peer: root, below: Below::Territory }),
                    None => self.territory(leader, territory, &mut out),
                }
            }
            return;
        }
        let (region, territory) = (self.regions.of(sender), self.regions.territory(sender));
        let root = self.deal.root(territory, self.index);
        if root == Some(sender) {
            return self.territory(sender, territory, &mut out);
        }
        // A root serves its own region.
        let served = root.is_some_and(|root| self.regions.of(root) == region);
        if !served && self.deal.head(self.regions, region, self.index) == Some(sender) {
            self.region(sender, region, &mut out);
        }
    }

    /// Those below a place that is stepped over.
    pub(super) fn below(&self, peer: PeerIndex, below: Below, mut out: impl FnMut(Place)) {
        match below {
            Below::Territory => self.territory(peer, self.regions.territory(peer), &mut out),
            Below::Region => self.region(peer, self.regions.of(peer), &mut out),
            Below::Nobody | Below::Layers(_) => {}
        }
    }

    /// What the root of a territory sends: to the head of each region, to everybody in those that
    /// have no heads, and at last to everybody in its own.
    fn territory(&self, root: PeerIndex, territory: u8, out: &mut impl FnMut(Place)) {
        let own = (root != self.deal.leader).then(|| self.regions.of(root));
        for (number, region) in (0..=u16::MAX).zip(self.regions.regions()) {
            if region.territory != territory || Some(number) == own {
                continue;
            }
            match self.deal.head(self.regions, number, self.index) {
                Some(head) => out(Place { peer: head, below: Below::Region }),
                None => self.region(root, number, out),
            }
        }
        if let Some(own) = own {
            self.region(root, own, out);
        }
    }

    /// Everybody in a region but the leader and `head`.
    fn region(&self, head: PeerIndex, number: u16, out: &mut impl FnMut(Place)) {
        let members = self.regions.regions()[usize::from(number)].members.iter();
        let others = members.filter(|peer| **peer != head && **peer != self.deal.leader);
        others.for_each(|peer| out(Place::leaf(*peer)));
    }
}
