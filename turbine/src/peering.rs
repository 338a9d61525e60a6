//! Which members a node is connected to, in a table of more members than it has connections for.
//!
//! Up to that number everybody is connected to everybody. Beyond, both ends of a connection derive
//! it from what both know:
//!
//! ```text
//! from a plan    leader, roots ── all relays        relay ── the members of its region
//! from the table ring: 2 k neighbours by position   leaders ── landmarks, the heaviest members
//!                and, as long as there is no plan:  landmark ── landmark, member ── some landmarks
//! ```
//!
//! With the first row every edge of the regional tree is a connection. The ring is a circulant graph
//! over a shuffle of the table: everybody has the same number of neighbours anywhere, it is
//! connected, and it is what repair, tips and the offer of a plan travel over. Landmarks are what
//! leaders hear of everybody's delays through before there is a plan.
//!
//! The connections of a node are divided in fixed [`Shares`], by which the planner divides regions,
//! too. A random graph was tried first: half of the tree's edges were missing in a network of twice
//! the members, nine tenths in one of ten times.

use crate::membership::{Membership, PeerIndex};
use crate::plan::PlanView;
use crate::shuffle::Stream;

/// Fewest members of a region that are worth planning for.
const FEWEST: usize = 4;

/// Whether some members cannot be connected to all others.
pub const fn is_bounded(members: usize, connections: usize) -> bool {
    members > connections.saturating_add(1)
}

/// How the connections of a node are divided. What is left, an eighth, is for other plans, for
/// leaders, and for who calls without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Relays of a plan: half.
    pub relays: usize,
    /// Members of a region: a quarter.
    pub region: usize,
    /// Neighbours on the ring to each side: a sixteenth, and two at least.
    pub ring: usize,
    /// Landmarks: a quarter.
    pub landmarks: usize,
    /// Landmarks of a member that is none: as many as give a landmark half of its connections.
    pub landmarks_each: usize,
}

impl Shares {
    /// Of a node with this many connections in a table of `members`.
    pub fn of(members: usize, connections: usize) -> Self {
        let landmarks = (connections / 4).clamp(1, members.max(1));
        let each = connections * landmarks / (2 * members.max(1));
        Self {
            relays: connections / 2,
            region: (connections / 4).max(FEWEST),
            ring: (connections / 16).max(2),
            landmarks,
            landmarks_each: each.min(landmarks),
        }
    }
}

/// What the table alone says: 8 bytes a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    shares: Shares,
    /// By position.
    order: Vec<PeerIndex>,
    /// By member.
    positions: Vec<u32>,
    /// Distances between neighbours, the first of them 1.
    distances: Vec<u32>,
    /// Rising.
    landmarks: Vec<PeerIndex>,
}

impl Ring {
    /// The ring of a table whose members have this many connections each.
    pub fn new(members: &Membership, connections: usize) -> Self {
        let weights: Vec<u64> = members.members().iter().map(|member| member.weight).collect();
        Self::of_weights(&members.hash(), &weights, connections)
    }

    fn of_weights(seed: &[u8; 32], weights: &[u64], connections: usize) -> Self {
        let n = weights.len();
        let shares = Shares::of(n, connections);
        let mut stream = Stream::of(seed, b"ring");
        let mut order: Vec<PeerIndex> = (0..n as PeerIndex).collect();
        for last in (1..n).rev() {
            order.swap(last, stream.below(last as u64 + 1) as usize);
        }
        let mut positions = vec![0; n];
        (0..).zip(&order).for_each(|(at, member)| positions[*member as usize] = at);
        let half = n.saturating_sub(1) / 2;
        let mut distances = std::collections::BTreeSet::from([1]);
        while distances.len() < shares.ring.min(half) {
            distances.insert(1 + stream.below(half as u64) as u32);
        }
        let mut heaviest: Vec<PeerIndex> = (0..n as PeerIndex).collect();
        heaviest.sort_by_key(|member| (std::cmp::Reverse(weights[*member as usize]), *member));
        heaviest.truncate(shares.landmarks);
        heaviest.sort_unstable();
        let distances = distances.into_iter().collect();
        Self { shares, order, positions, distances, landmarks: heaviest }
    }

    /// The neighbours of a member on the ring.
    pub fn neighbours(&self, me: PeerIndex) -> impl Iterator<Item = PeerIndex> + '_ {
        let (n, at) = (self.order.len() as u32, self.positions[me as usize]);
        let both = self.distances.iter().flat_map(move |far| [(at + far) % n, (at + n - far) % n]);
        both.map(|at| self.order[at as usize])
    }

    /// The heaviest members, rising.
    pub fn landmarks(&self) -> &[PeerIndex] {
        &self.landmarks
    }

    /// Whether landmark number `landmark` is one of those of the member at a position.
    const fn is_pair(&self, position: u32, landmark: usize) -> bool {
        let Shares { landmarks, landmarks_each, .. } = self.shares;
        let first = (position as usize * landmarks_each) % landmarks;
        (landmark + landmarks - first) % landmarks < landmarks_each
    }

    /// Of a landmark: the other landmarks, and the members whose landmark it is. Of another member:
    /// its landmarks.
    pub fn by_landmarks(&self, me: PeerIndex) -> Vec<PeerIndex> {
        let position = self.positions[me as usize];
        let Ok(own) = self.landmarks.binary_search(&me) else {
            let numbers = 0..self.landmarks.len();
            let of = numbers.filter(|landmark| self.is_pair(position, *landmark));
            return of.map(|landmark| self.landmarks[landmark]).collect();
        };
        let mut all = self.landmarks.clone();
        let members = (0..).zip(&self.order).filter(|(at, _)| self.is_pair(*at, own));
        all.extend(members.map(|(_, member)| *member));
        all
    }
}

/// A leader, and one of its plans.
#[derive(Debug, Clone, Copy)]
pub struct Leads<'a> {
    /// The leader's place in the table.
    pub leader: PeerIndex,
    /// A plan of its that is or may be in force, if it has one that names roots.
    pub plan: Option<&'a PlanView>,
}

/// The members that `me` is to be connected to, those that matter most first, `most` at most.
/// `leads` are the leaders that are served now and next, in this order.
pub fn wanted(ring: &Ring, leads: &[Leads<'_>], me: PeerIndex, most: usize) -> Vec<PeerIndex> {
    let mut seen = vec![false; ring.order.len()];
    seen[me as usize] = true;
    let mut all = Vec::new();
    let mut want = |member: PeerIndex| {
        if !std::mem::replace(&mut seen[member as usize], true) {
            all.push(member);
        }
    };
    let mut planned = false;
    for Leads { leader, plan } in leads {
        let Some(plan) = plan.filter(|plan| plan.has_roots()) else { continue };
        planned = true;
        plan.peers_of(*leader, me, &mut want);
    }
    ring.neighbours(me).for_each(&mut want);
    let is_leader = leads.iter().any(|leads| leads.leader == me);
    if is_leader {
        ring.landmarks.iter().copied().for_each(&mut want);
    }
    if ring.landmarks.binary_search(&me).is_ok() {
        leads.iter().map(|leads| leads.leader).for_each(&mut want);
    }
    if !planned {
        ring.by_landmarks(me).into_iter().for_each(&mut want);
    }
    all.truncate(most);
    all
}

#[cfg(test)]
mod tests;
