//! What a plan remembers of the draws made from it: a node asks once a shred, a simulation once a
//! shred and node, thousands of times for the same draw.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::membership::PeerIndex;

/// Bound of the draws that a plan remembers, in positions of 4 bytes: 4 MB.
pub(super) const MAX_DRAWN: usize = 1 << 20;
/// Cost of an entry beside its positions, in positions: 200 bytes.
pub(super) const DRAW_COST: usize = 50;

/// A draw: its seed, and the relay that is left out.
pub(super) type DrawKey = ([u8; 32], Option<usize>);

/// The beginnings of shuffles that were drawn lately; the oldest goes first.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    pub(super) orders: BTreeMap<DrawKey, Arc<[PeerIndex]>>,
    pub(super) age: VecDeque<DrawKey>,
    pub(super) positions: usize,
}

impl Drawn {
    pub(super) fn insert(&mut self, key: DrawKey, order: Arc<[PeerIndex]>) {
        self.positions += order.len() + DRAW_COST;
        match self.orders.insert(key, order) {
            Some(shorter) => self.positions -= shorter.len() + DRAW_COST,
            None => self.age.push_back(key),
        }
        while self.positions > MAX_DRAWN
            && self.age.len() > 1
            && let Some(oldest) = self.age.pop_front()
        {
            self.positions -= self.orders.remove(&oldest).map_or(0, |o| o.len() + DRAW_COST);
        }
    }
}

/// Things by seed, as many as fit into a bound; the oldest goes first.
#[derive(Debug)]
pub(super) struct Recent<T> {
    known: BTreeMap<[u8; 32], Arc<T>>,
    age: VecDeque<[u8; 32]>,
    most: usize,
}

impl<T> Recent<T> {
    /// Keeps `most` things, at least one.
    pub(super) fn new(most: usize) -> Self {
        Self { known: BTreeMap::new(), age: VecDeque::new(), most: most.max(1) }
    }

    /// The thing of `seed`, made if it is not known.
    pub(super) fn get(&mut self, seed: &[u8; 32], make: impl FnOnce() -> T) -> Arc<T> {
        if let Some(known) = self.known.get(seed) {
            return Arc::clone(known);
        }
        if self.age.len() >= self.most
            && let Some(oldest) = self.age.pop_front()
        {
            self.known.remove(&oldest);
        }
        let made = Arc::new(make());
        self.known.insert(*seed, Arc::clone(&made));
        self.age.push_back(*seed);
        made
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.known.len(), self.age.len());
        self.age.len()
    }
}
