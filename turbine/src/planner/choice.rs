//! Candidate trees: regions, territories, roots and heads from delays.

use std::sync::Arc;

use super::delays::Delays;
use super::model::{Model, SHRED_BITS};
use super::{Candidate, Contents, GROUPS, PlanJob, TERRITORIES, USUAL, Way, regions};
use crate::membership::PeerIndex;
use crate::peering::{self, Shares};
use crate::plan::{CLASSES, Entry, MAX_HEADS, MAX_ROOTS, Plan};
use crate::route::WITH_HEADS;

/// Heads are drawn from this share of a region's relays, those that are nearest to the way…
const NEAR: usize = 2;
/// …and from so many at least, so that a silent one takes no region along.
const FEWEST: usize = 4;
/// Relays of a region at least, where connections bound them.
const FEWEST_RELAYS: usize = 2;
/// Radii of regions that are tried there, in µs; how many members they have is given.
const RADII: [u32; 3] = [5_000, 12_000, 30_000];
/// The roots that decide the classes: about as many as the usual message has.
const DECIDE: usize = 32;

/// What candidates are made from.
pub(super) struct Choice<'a> {
    job: &'a PlanJob,
    delays: &'a Delays,
    may_relay: Vec<bool>,
    /// What regions and relays may have of a node's connections, if there are fewer than members.
    shares: Option<Shares>,
    pub(super) model: Model<'a>,
}

impl<'a> Choice<'a> {
    /// `None` if nobody may relay of whom anything is known.
    pub(super) fn new(job: &'a PlanJob, delays: &'a Delays) -> Option<Self> {
        let weighted = job.weights.iter().any(|weight| *weight > 0);
        let may_relay = |member: usize| {
            (job.weights[member] > 0 || !weighted)
                && job.uplinks_bps[member] > 0
                && delays.is_known(member as PeerIndex)
        };
        let may_relay: Vec<bool> = (0..delays.members()).map(may_relay).collect();
        let others = |(member, may): (usize, &bool)| *may && member != job.leader as usize;
        let any = may_relay.iter().enumerate().any(others);
        let (n, connections) = (delays.members(), job.connections);
        let shares = peering::is_bounded(n, connections).then(|| Shares::of(n, connections));
        any.then(|| Self { job, delays, may_relay, shares, model: Model::new(job, delays) })
    }

    /// The best of all candidates for the usual message, and how that is sent over it.
    pub(super) fn best(&self) -> (Candidate, Way) {
        let bounded = self.shares.map(|shares| RADII.map(|radius| (radius, shares.region)));
        let tried: &[(u32, usize)] = bounded.as_ref().map_or(&GROUPS, |bounded| bounded);
        let divided = |(radius, group)| match self.shares {
            None => regions::divide(self.delays, &self.may_relay, radius, group),
            Some(_) => regions::divide_bounded(self.delays, &self.may_relay, radius, group),
        };
        let profile = self.job.profile;
        let mut groups = divided(tried[0]);
        let mut best = self.candidate(groups.clone(), TERRITORIES[0]);
        // What is best for one tree is near enough for the others.
        let first = best.shape(&self.model, profile, USUAL);
        let rate = profile.rate(USUAL, first.data, self.model.target());
        let mut mean = first.mean();
        let mut consider = |other: Candidate, best: &mut Candidate| {
            let cost = self.model.regional(&other.view, first.roots, rate).mean_micros;
            let better = cost < mean;
            if better {
                (mean, *best) = (cost, other);
            }
            better
        };
        for other in &tried[1..] {
            let other = divided(*other);
            if consider(self.candidate(other.clone(), TERRITORIES[0]), &mut best) {
                groups = other;
            }
        }
        for territories in &TERRITORIES[1..] {
            consider(self.candidate(groups.clone(), *territories), &mut best);
        }
        let way = if mean < first.mean() { best.shape(&self.model, profile, USUAL) } else { first };
        (best, way)
    }

    fn candidate(&self, mut groups: Vec<Vec<PeerIndex>>, territories: usize) -> Candidate {
        let territory = self.territories(&groups, territories);
        // As a root sends to them: a datagram for many members first, and of those for as many the
        // farthest.
        let order = {
            let far = |group: &Vec<PeerIndex>| self.delays.mean(self.job.leader, group);
            let served = |group: &Vec<PeerIndex>| match group.len() {
                0..WITH_HEADS => 1,
                members => members,
            };
            let key = |group: &Vec<PeerIndex>| (served(group), far(group));
            let mut order: Vec<((usize, f64), usize)> = groups.iter().map(key).zip(0..).collect();
            order.sort_by(|(a, i), (b, j)| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)).then(i.cmp(j)));
            order.into_iter().map(|(_, group)| group)
        };
        let order: Vec<usize> = order.collect();
        let territory: Vec<usize> = order.iter().map(|group| territory[*group]).collect();
        let groups: Vec<Vec<PeerIndex>> =
            order.into_iter().map(|group| std::mem::take(&mut groups[group])).collect();

        let relays = self.relays(&groups);
        let most = MAX_ROOTS / territories;
        let mut roots: Vec<(PeerIndex, u8)> = Vec::new();
        for number in 0..territories {
            let of = |(_, own): &(&Vec<PeerIndex>, &usize)| **own == number;
            let members = groups.iter().zip(&territory).filter(of).flat_map(|(group, _)| group);
            let members: Vec<PeerIndex> = members.copied().collect();
            let regions = territory.iter().filter(|own| **own == number).count();
            roots.extend(self.classed(&self.roots(&members, &relays, regions, most)));
        }
        let mut entries = vec![Entry::default(); self.delays.members()];
        for (number, (group, territory)) in groups.iter().zip(&territory).enumerate() {
            let eligible = self.heads(group, &relays, &roots);
            for (member, heads) in group.iter().zip(eligible) {
                entries[*member as usize] = Entry {
                    region: number as u16,
                    territory: *territory as u8,
                    relays: relays[*member as usize],
                    heads,
                };
            }
        }
        let roots = roots.into_iter().map(|(member, class)| Plan::root(member, class)).collect();
        let contents = Arc::new(Contents { entries, roots });
        Candidate::of(contents, &self.job.weights).expect("within the bounds of a plan")
    }

    /// Who relays: everybody who may, or, where connections are fewer than members, in each group
    /// some, as many as its size asks for: the heaviest of the half that is nearest to the others.
    fn relays(&self, groups: &[Vec<PeerIndex>]) -> Vec<bool> {
        let Some(shares) = self.shares else { return self.may_relay.clone() };
        let mut relays = vec![false; self.delays.members()];
        let rest = shares.relays.saturating_sub(FEWEST_RELAYS * groups.len());
        for group in groups {
            let may =
                |member: &PeerIndex| self.may_relay[*member as usize] && *member != self.job.leader;
            let count = FEWEST_RELAYS + rest * group.len() / self.delays.members();
            let count = count.min(MAX_HEADS);
            let own = |member: PeerIndex| self.own_cost(member, group);
            let mut nearest: Vec<(f64, PeerIndex)> =
                group.iter().copied().filter(may).map(|member| (own(member), member)).collect();
            nearest.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            nearest.truncate((nearest.len() / NEAR).max(count));
            let weight = |member: PeerIndex| self.job.weights[member as usize];
            nearest.sort_by_key(|(_, member)| std::cmp::Reverse(weight(*member)));
            nearest.iter().take(count).for_each(|(_, member)| relays[*member as usize] = true);
        }
        relays
    }

    /// The mean time from a head of a group to its other members.
    fn own_cost(&self, head: PeerIndex, group: &[PeerIndex]) -> f64 {
        let bps = self.job.uplinks_bps[head as usize] as f64;
        let burst = group.len() as f64 * SHRED_BITS * 1e6 / bps;
        self.delays.mean(head, group) + burst / 2.0
    }

    /// The territory of each group: centres as far apart as can be, and everybody to the nearest.
    fn territories(&self, groups: &[Vec<PeerIndex>], territories: usize) -> Vec<usize> {
        if territories == 1 {
            return vec![0; groups.len()];
        }
        let points: Vec<PeerIndex> = groups.iter().map(|group| group[0]).collect();
        // Only groups that have a root can be the centre of anything.
        let (_, nearest) = spread(self.delays, &points, territories, |at| {
            groups[at].iter().any(|member| self.may_relay[*member as usize])
        });
        nearest
    }

    /// Those of `members` that relay, the best roots first: near to the leader and to everybody,
    /// and fast enough to send a shred to all regions.
    fn roots(
        &self,
        members: &[PeerIndex],
        relays: &[bool],
        regions: usize,
        most: usize,
    ) -> Vec<PeerIndex> {
        let leader = self.job.leader;
        let cost = |root: PeerIndex| {
            let burst =
                regions as f64 * SHRED_BITS * 1e6 / self.job.uplinks_bps[root as usize] as f64;
            let way = f64::from(self.delays.micros(leader, root));
            way + self.delays.mean(root, members) + burst
        };
        let relays = members.iter().copied().filter(|m| relays[*m as usize] && *m != leader);
        let mut roots: Vec<(f64, PeerIndex)> = relays.map(|root| (cost(root), root)).collect();
        roots.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        roots.truncate(most);
        roots.into_iter().map(|(_, root)| root).collect()
    }

    /// The classes of roots: by who is near whom among the best of them.
    fn classed(&self, roots: &[PeerIndex]) -> Vec<(PeerIndex, u8)> {
        let deciding = &roots[..roots.len().min(DECIDE)];
        let (centres, _) = spread(self.delays, deciding, CLASSES, |_| true);
        let class = |root: PeerIndex| {
            let near = centres.iter().enumerate();
            let near = near.min_by_key(|(_, centre)| self.delays.micros(root, deciding[**centre]));
            near.map_or(0, |(class, _)| class as u8)
        };
        roots.iter().map(|root| (*root, class(*root))).collect()
    }

    /// For each member of a group, the classes of roots for whose shreds it may be the head.
    fn heads(&self, group: &[PeerIndex], relays: &[bool], roots: &[(PeerIndex, u8)]) -> Vec<u8> {
        let leader = self.job.leader;
        let relays: Vec<usize> = (0..group.len())
            .filter(|at| relays[group[*at] as usize] && group[*at] != leader)
            .collect();
        let own: Vec<f64> = relays.iter().map(|at| self.own_cost(group[*at], group)).collect();
        let mut eligible = vec![0u8; group.len()];
        // In a group with more relays than may be heads, any class could name others.
        let bound = if relays.len() > MAX_HEADS { MAX_HEADS / CLASSES } else { MAX_HEADS };
        // Those of a large network's region are near, and each has hundreds to serve.
        let near = if self.shares.is_some() { 1 } else { NEAR };
        let most = relays.len().div_ceil(near).max(FEWEST).min(relays.len()).min(bound);
        for class in 0..CLASSES as u8 {
            let of: Vec<PeerIndex> =
                roots.iter().filter(|root| root.1 == class).map(|root| root.0).collect();
            if of.is_empty() {
                continue;
            }
            let cost = |i: usize| own[i] + self.delays.mean(group[relays[i]], &of);
            let mut order: Vec<(f64, usize)> = (0..relays.len()).map(|i| (cost(i), i)).collect();
            order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            order[..most].iter().for_each(|(_, i)| eligible[relays[*i]] |= 1 << class);
        }
        eligible
    }
}

/// `count` of `points` that are as far from one another as can be, the first of them first, and
/// for each point the nearest of those.
fn spread(
    delays: &Delays,
    points: &[PeerIndex],
    count: usize,
    may: impl Fn(usize) -> bool,
) -> (Vec<usize>, Vec<usize>) {
    let mut centres: Vec<usize> = (0..points.len()).find(|at| may(*at)).into_iter().collect();
    let mut nearest = vec![(u32::MAX, 0usize); points.len()];
    let mut number = 0;
    while let Some(&centre) = centres.get(number) {
        for (at, near) in nearest.iter_mut().enumerate() {
            let away = delays.micros(points[at], points[centre]);
            if away < near.0 || at == centre {
                *near = (away, number);
            }
        }
        number += 1;
        let left = (0..points.len()).filter(|at| may(*at) && nearest[*at].0 > 0);
        let farthest = left.max_by_key(|at| (nearest[*at].0, std::cmp::Reverse(*at)));
        if number < count {
            centres.extend(farthest);
        }
    }
    (centres, nearest.into_iter().map(|(_, number)| number).collect())
}
