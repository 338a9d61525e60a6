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
//! ```
//!
//! In the tree, which is called `turbine` after Solana's, the relays stand in the order of the shuffle. Position 0 is the root; layer L
//! holds the next F^L positions, and the nodes of a layer are dealt round-robin to the layer
//! above, so that no relay of a partly filled layer serves more than its fellows by over one.
//! Members that do not relay hang as leaves on the relays, dealt evenly as well.

use std::sync::Arc;

use crate::membership::PeerIndex;
use crate::plan::PlanView;

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
        }
    }

    /// The route of a header; `None` for one that this build does not know.
    pub const fn from_wire(route: u8, param: u16) -> Option<Self> {
        match (route, param) {
            (0, 0) => Some(Self::Direct),
            (1, fanout) if fanout > 0 => Some(Self::Turbine { fanout }),
            (2, 0) => Some(Self::Rotor),
            _ => None,
        }
    }

    /// The name used in configuration and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Turbine { .. } => "turbine",
            Self::Rotor => "rotor",
        }
    }

    /// Hops from the leader to the farthest of `relays` relays, and of the leaves if there are any.
    pub fn hops(self, relays: usize, leaves: bool) -> u32 {
        match self {
            Self::Direct => 1,
            Self::Rotor => 2,
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

/// A tree over positions 0…n−1 with at most F children each.
#[derive(Debug, Clone, Copy)]
struct Layers {
    n: usize,
    fanout: usize,
}

impl Layers {
    const fn new(n: usize, fanout: usize) -> Self {
        Self { n, fanout }
    }

    /// The first position of a layer: 1 + F + … + F^(layer−1), or n if that is beyond it.
    fn start(self, layer: u32) -> usize {
        let (mut start, mut width) = (0usize, 1usize);
        for _ in 0..layer {
            start = start.saturating_add(width).min(self.n);
            width = width.saturating_mul(self.fanout);
        }
        start
    }

    /// Layer and width of the layer of a position.
    fn layer_of(self, position: usize) -> (usize, usize, usize) {
        let (mut start, mut width) = (0usize, 1usize);
        loop {
            let next = start.saturating_add(width);
            if position < next {
                return (start, width, next);
            }
            start = next;
            width = width.saturating_mul(self.fanout);
        }
    }

    /// The positions below a position.
    fn children(self, position: usize) -> impl Iterator<Item = usize> {
        let (start, width, next) = self.layer_of(position);
        let offset = position - start;
        let n = self.n;
        (0..self.fanout)
            .map(move |j| next.saturating_add(offset).saturating_add(j.saturating_mul(width)))
            .take_while(move |child| *child < n)
    }

    /// The number of positions with children, which come first.
    fn internal(self) -> usize {
        if self.n <= 1 {
            return 0;
        }
        // Children of a layer are dealt one a parent and round: a parent has one exactly if
        // its first child exists.
        let (start, _, _) = self.layer_of(self.n - 1);
        let (above, _, _) = self.layer_of(start - 1);
        (above + (self.n - start)).min(start)
    }
}

/// The tree of one shred.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    view: &'a PlanView,
    route: Route,
    leader: PeerIndex,
    seed: [u8; 32],
}

impl<'a> Tree<'a> {
    /// The tree of shred `index` of the set with `root`, sent by `leader`.
    pub fn new(
        view: &'a PlanView,
        route: Route,
        leader: PeerIndex,
        root: &[u8; 32],
        index: u8,
    ) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("fragcast 2026 route v1");
        hasher.update(&view.id().to_le_bytes()).update(root).update(&[index]);
        Self { view, route, leader, seed: hasher.finalize().into() }
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
            let Some(position) = place.position else { continue };
            let before = todo.len();
            match self.route {
                Route::Direct => {}
                Route::Rotor => {
                    let others = self.others().filter(|peer| *peer != place.peer);
                    todo.extend(others.map(Place::leaf));
                }
                Route::Turbine { fanout } => {
                    // The whole shuffle once, and every place by its position: looking for each
                    // would be the square of the number of members.
                    let order = order.get_or_insert_with(|| self.drawn(n));
                    let below = Layers::new(n, fanout.into()).children(position);
                    todo.extend(below.map(|child| Place::relay(order[child], child)));
                    todo.extend(self.leaves_below(position, n).map(Place::leaf));
                }
            }
            stepped += (todo.len() - before) as u64;
        }
        stepped
    }

    fn each_child(&self, sender: PeerIndex, mut out: impl FnMut(Place)) {
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
            Route::Direct => {}
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
    /// Its position in the shuffle; `None` for one that has nobody below.
    position: Option<usize>,
}

impl Place {
    const fn relay(peer: PeerIndex, position: usize) -> Self {
        Self { peer, position: Some(position) }
    }

    const fn leaf(peer: PeerIndex) -> Self {
        Self { peer, position: None }
    }
}

#[cfg(test)]
mod tests;
