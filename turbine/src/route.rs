//! Routes: the path of a shred.
//!
//! A route is a sequence of layers, drawn for every shred from a generator that is seeded with the
//! set's root, so that load and trust rotate over all relays and nobody knows a relay before the
//! leader has committed to the content.
//!
//! ```text
//! direct    leader → everyone
//! rotor     leader → one relay by weight → everyone else
//! turbine   leader → root → F relays → F relays each → …      weighted shuffle per shred
//! regional  leader → a root for each territory → a head in each region → its other members
//! ```
//!
//! In the tree, which is called `turbine` after Solana's, the relays stand in the order of the shuffle. Position 0 is the root; layer L
//! holds the next F^L positions, and the nodes of a layer are dealt round-robin to the layer
//! above, so that no relay of a partly filled layer serves more than its fellows by over one.
//! Members that do not relay hang as leaves on the relays, dealt evenly as well. The regional tree
//! is in `route/regional.rs`.

use std::sync::Arc;

use fragcast_shredder::SetHeader;

use crate::membership::PeerIndex;
use crate::plan::PlanView;

mod layers;
mod path;
mod regional;

use layers::Layers;
pub(crate) use path::{Path, Paths};
use regional::Regional;
pub(crate) use regional::{Deal, WITH_HEADS};

/// How a message spreads; the shred header carries its number and parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Leader to everyone.
    Direct,
    /// A tree of relays with at most `fanout` relays below each.
    Turbine {
        /// At least 1.
        fanout: u16,
    },
    /// One relay between the leader and everyone.
    Rotor,
    /// By the plan's roots and the heads of its regions.
    Regional {
        /// How many of the plan's roots are used, the best ones; at least 1.
        roots: u16,
    },
}

/// The fanout of Solana's Turbine.
pub const DEFAULT_FANOUT: u16 = 200;

impl Route {
    /// The header's route number and parameter.
    pub const fn to_wire(self) -> (u8, u16) {
        match self {
            Self::Direct => (0, 0),
            Self::Turbine { fanout } => (1, fanout),
            Self::Rotor => (2, 0),
            Self::Regional { roots } => (3, roots),
        }
    }

    /// The route of a header; `None` for one that this build does not know.
    pub const fn from_wire(route: u8, param: u16) -> Option<Self> {
        match (route, param) {
            (0, 0) => Some(Self::Direct),
            (1, fanout) if fanout > 0 => Some(Self::Turbine { fanout }),
            (2, 0) => Some(Self::Rotor),
            (3, roots) if roots > 0 => Some(Self::Regional { roots }),
            _ => None,
        }
    }

    /// The name used in configuration and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Turbine { .. } => "turbine",
            Self::Rotor => "rotor",
            Self::Regional { .. } => "regional",
        }
    }

    /// Hops from the leader to the farthest of `relays` relays, and of the leaves if there are any.
    pub fn hops(self, relays: usize, leaves: bool) -> u32 {
        match self {
            Self::Direct => 1,
            Self::Rotor => 2,
            Self::Regional { .. } => 3,
            Self::Turbine { fanout } => {
                let layers = Layers::new(relays, fanout.into());
                let mut hops = 1;
                let mut reached = 1;
                while reached < relays {
                    reached = layers.start(hops + 1);
                    hops += 1;
                }
                // Leaves hang below relays of any layer.
                hops + u32::from(leaves)
            }
        }
    }
}

/// A shred's place in its set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Below k + m; data shreds come first.
    pub index: u8,
    /// Data shreds of the set.
    pub k: u8,
    /// Coding shreds of the set.
    pub m: u8,
}

impl Slot {
    /// The place of shred `index` in the set with `header`.
    pub const fn new(header: &SetHeader, index: u8) -> Self {
        Self { index, k: header.k, m: header.m }
    }
}

/// The tree of one shred.
#[derive(Debug, Clone)]
pub struct Tree<'a> {
    view: &'a PlanView,
    route: Route,
    leader: PeerIndex,
    seed: [u8; 32],
    /// What the shreds of its set share, on the regional route.
    regional: Option<Regional<'a>>,
}

impl<'a> Tree<'a> {
    /// The tree of the shred at `slot` of the set with `root`, sent by `leader`.
    pub fn new(
        view: &'a PlanView,
        route: Route,
        leader: PeerIndex,
        root: &[u8; 32],
        slot: Slot,
    ) -> Self {
        if let Route::Regional { roots } = route {
            let regional = Some(Regional::new(view, roots, leader, root, slot));
            return Self { view, route, leader, seed: [0; 32], regional };
        }
        let mut hasher = blake3::Hasher::new_derive_key("fragcast 2026 route v1");
        hasher.update(&view.id().to_le_bytes()).update(root).update(&[slot.index]);
        Self { view, route, leader, seed: hasher.finalize().into(), regional: None }
    }

    /// The place of the leader among the members that do not relay.
    fn leader_leaf(&self) -> Option<usize> {
        self.view.leaves().binary_search(&self.leader).ok()
    }

    /// The members that do not relay, and that the relay at `position` of `n` serves: dealt one a
    /// relay and round.
    fn leaves_below(&self, position: usize, n: usize) -> impl Iterator<Item = PeerIndex> + '_ {
        let (leaves, without) = (self.view.leaves(), self.leader_leaf());
        let count = leaves.len() - usize::from(without.is_some());
        let at = move |i: usize| leaves[i + usize::from(without.is_some_and(|leaf| i >= leaf))];
        (position..count).step_by(n).map(at)
    }

    fn others(&self) -> impl Iterator<Item = PeerIndex> + '_ {
        let (relays, leaves) = (self.view.relays().iter(), self.view.leaves().iter());
        relays.chain(leaves).copied().filter(|i| *i != self.leader)
    }

    /// The first `len` relays of the shuffle.
    fn drawn(&self, len: usize) -> Arc<[PeerIndex]> {
        let without = self.view.relays().binary_search(&self.leader).ok();
        self.view.drawn(&self.seed, without, len)
    }

    /// The number of relays without the leader.
    fn relay_count(&self) -> usize {
        let relays = self.view.relays();
        relays.len() - usize::from(relays.binary_search(&self.leader).is_ok())
    }

    /// Appends to `out` those to whom `sender` sends the shred.
    pub fn children(&self, sender: PeerIndex, out: &mut Vec<PeerIndex>) {
        self.each_child(sender, |child| out.push(child.peer));
    }

    /// Appends to `out` those to whom `sender` sends the shred if a peer that is not up is
    /// replaced by its own children, and those of them that are not by theirs. `todo` is room to
    /// work in. Returns how many places were found by stepping over others: with those of the
    /// sender's own children all that were looked at, each once.
    pub(crate) fn reach(
        &self,
        sender: PeerIndex,
        is_up: impl Fn(PeerIndex) -> bool,
        todo: &mut Vec<Place>,
        mut out: impl FnMut(PeerIndex),
    ) -> u64 {
        todo.clear();
        self.each_child(sender, |child| todo.push(child));
        if todo.iter().all(|child| is_up(child.peer)) {
            todo.drain(..).for_each(|child| out(child.peer));
            return 0;
        }
        let (n, mut order, mut stepped) = (self.relay_count(), None, 0);
        while let Some(place) = todo.pop() {
            if is_up(place.peer) {
                out(place.peer);
                continue;
            }
            let before = todo.len();
            match (self.route, place.below) {
                (_, Below::Nobody) | (Route::Direct, _) => {}
                (Route::Rotor, _) => {
                    let others = self.others().filter(|peer| *peer != place.peer);
                    todo.extend(others.map(Place::leaf));
                }
                (Route::Regional { .. }, below) => {
                    let regional = self.regional.as_ref();
                    regional.inspect(|r| r.below(place.peer, below, |child| todo.push(child)));
                }
                (Route::Turbine { fanout }, Below::Layers(position)) => {
                    // The whole shuffle once, and every place by its position: looking for each
                    // would be the square of the number of members.
                    let order = order.get_or_insert_with(|| self.drawn(n));
                    let below = Layers::new(n, fanout.into()).children(position);
                    todo.extend(below.map(|child| Place::relay(order[child], child)));
                    todo.extend(self.leaves_below(position, n).map(Place::leaf));
                }
                (Route::Turbine { .. }, Below::Territory | Below::Region) => {}
            }
            stepped += (todo.len() - before) as u64;
        }
        stepped
    }

    fn each_child(&self, sender: PeerIndex, mut out: impl FnMut(Place)) {
        if let Some(regional) = &self.regional {
            return regional.children(sender, out);
        }
        let n = self.relay_count();
        if self.route == Route::Direct || n == 0 {
            if sender == self.leader {
                self.others().map(Place::leaf).for_each(out);
            }
            return;
        }
        if sender == self.leader {
            out(Place::relay(self.drawn(1)[0], 0));
            return;
        }
        match self.route {
            Route::Direct | Route::Regional { .. } => {}
            Route::Rotor => {
                if self.drawn(1).first() == Some(&sender) {
                    self.others().filter(|peer| *peer != sender).map(Place::leaf).for_each(out);
                }
            }
            Route::Turbine { fanout } => self.tree_children(sender, fanout.into(), n, out),
        }
    }

    fn tree_children(
        &self,
        sender: PeerIndex,
        fanout: usize,
        n: usize,
        mut out: impl FnMut(Place),
    ) {
        let layers = Layers::new(n, fanout);
        let leaves = self.view.leaves().len() - usize::from(self.leader_leaf().is_some());
        // Most members are at the bottom: nearly always the draw stops where nobody sends any more.
        let senders = if leaves > 0 { n } else { layers.internal() };
        let order = self.drawn(senders);
        let Some(position) = order.iter().take(senders).position(|relay| *relay == sender) else {
            return;
        };
        let last = layers.children(position).last().unwrap_or(position);
        let order = if last < order.len() { order } else { self.drawn(n) };
        layers.children(position).for_each(|child| out(Place::relay(order[child], child)));
        self.leaves_below(position, n).for_each(|leaf| out(Place::leaf(leaf)));
    }
}

/// A member in the tree of a shred.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    peer: PeerIndex,
    below: Below,
}

/// Who is below a member, so that a place that is stepped over need not be looked for.
#[derive(Debug, Clone, Copy)]
enum Below {
    Nobody,
    /// Those below a position of the shuffle.
    Layers(usize),
    /// The heads of its territory.
    Territory,
    /// The members of its region.
    Region,
}

impl Place {
    const fn relay(peer: PeerIndex, position: usize) -> Self {
        Self { peer, below: Below::Layers(position) }
    }

    const fn leaf(peer: PeerIndex) -> Self {
        Self { peer, below: Below::Nobody }
    }
}

#[cfg(test)]
mod tests;
