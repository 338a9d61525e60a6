//! Where nodes are, how much they weigh, and how long light takes between them.
//!
//! Nodes stand at *places* (a region, a city, a pair of coordinates); delays are kept per
//! ordered pair of places, so ten thousand nodes in a hundred cities need ten thousand numbers.

use std::borrow::Cow;
use std::f64::consts::LN_2;

use rand::RngCore;

use crate::{Nanos, NodeId, random};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name in tables and files.
    pub id: String,
    /// Stake; 0 has no say and relays nothing while anybody has any.
    pub weight: u64,
    /// Index into [`World::places`].
    pub place: u16,
}

/// Somewhere that nodes are.
#[derive(Debug, Clone, PartialEq)]
pub struct Location {
    /// Region or city.
    pub name: String,
    /// Degrees north and east, where known: for the map.
    pub position: Option<(f64, f64)>,
}

/// Nodes and the delays between them.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// Nodes; their order is that of the membership table.
    pub nodes: Vec<Node>,
    /// Where they are.
    pub places: Vec<Location>,
    /// One-way delay in nanoseconds from place to place, row by row; the diagonal is the delay
    /// between two nodes of one place.
    pub delays: Vec<Nanos>,
    /// How far a delay is from its median in another run, see [`World::conditions`]; of the
    /// same shape as `delays`, or empty: they are the same in every run.
    pub spreads: Vec<Nanos>,
    /// Where nodes and delays come from, for reports: file, fit and its error, factor.
    pub source: String,
}

impl World {
    /// A world of named places, each with a number of nodes of weight 1. `delay` is the one-way
    /// delay from place to place by their numbers, and between two nodes of one place.
    ///
    /// ```
    /// use netsim::MILLIS;
    /// use netsim::world::World;
    ///
    /// let world = World::from_places(&[("Berlin", 20), ("New York", 10)], |from, to| {
    ///     if from == to { MILLIS / 4 } else { 43 * MILLIS }
    /// });
    /// assert_eq!(world.len(), 30);
    /// assert_eq!(world.delay(0, 19), MILLIS / 4);
    /// assert_eq!(world.delay(0, 20), 43 * MILLIS);
    /// ```
    ///
    /// # Panics
    /// If there are more than 65,536 places.
    pub fn from_places(places: &[(&str, usize)], delay: impl Fn(usize, usize) -> Nanos) -> Self {
        let n = places.len();
        let nodes = places.iter().enumerate().flat_map(|(place, (name, count))| {
            let place = u16::try_from(place).expect("a place's number has 16 bits");
            (0..*count).map(move |i| Node { id: format!("{name}/{i}"), weight: 1, place })
        });
        Self {
            nodes: nodes.collect(),
            places: places
                .iter()
                .map(|(name, _)| Location { name: (*name).into(), position: None })
                .collect(),
            delays: (0..n * n).map(|pair| delay(pair / n, pair % n)).collect(),
            spreads: Vec::new(),
            source: format!("{n} places"),
        }
    }

    /// The one-way delay between two nodes; zero to oneself.
    pub fn delay(&self, from: NodeId, to: NodeId) -> Nanos {
        if from == to {
            return 0;
        }
        let place = |node: NodeId| usize::from(self.nodes[node as usize].place);
        self.delays[place(from) * self.places.len() + place(to)]
    }

    /// The delays of one run.
    ///
    /// What differs between the median and the 90th percentile of a year of round trips is the
    /// path (routes, cables out of service, busy hours), not one packet and the next: so a run
    /// draws it once for each ordered pair of places, and jitter stays the links' affair.
    /// `delay + spread · (E − ln 2)` with E exponential of mean 1, but at least half of the
    /// delay: its median is `delay`, its 90th percentile `delay + spread · (ln 10 − ln 2)`.
    /// A normal distribution would have no long tail; a lognormal one would need a second
    /// logarithm and fit no better to two numbers.
    ///
    /// Without spreads nothing is drawn or copied. A drawn world has none.
    pub fn conditions(&self, rng: &mut impl RngCore) -> Cow<'_, Self> {
        if self.spreads.is_empty() {
            return Cow::Borrowed(self);
        }
        debug_assert_eq!(self.delays.len(), self.spreads.len());
        let pairs = self.delays.iter().zip(&self.spreads);
        let delays = pairs.map(|(median, spread)| {
            let drawn = *median as f64 + *spread as f64 * (random::exponential(rng) - LN_2);
            // Below zero the conversion gives zero.
            (drawn.round() as Nanos).max(median / 2)
        });
        Cow::Owned(Self {
            nodes: self.nodes.clone(),
            places: self.places.clone(),
            delays: delays.collect(),
            spreads: Vec::new(),
            source: self.source.clone(),
        })
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The weights; all one if nobody has any.
    pub fn weights(&self) -> Vec<u64> {
        let weights: Vec<u64> = self.nodes.iter().map(|node| node.weight).collect();
        if weights.iter().all(|w| *w == 0) { vec![1; weights.len()] } else { weights }
    }
}

/// Worlds for tests.
#[cfg(test)]
pub(crate) mod sample {
    use super::*;

    /// `n` nodes dealt over `places` places on a line, `step` apart, 0.1 ms within a place.
    pub(crate) fn line(n: usize, places: usize, step: Nanos) -> World {
        let delay = |a: usize, b: usize| 100_000 + a.abs_diff(b) as u64 * step;
        World {
            nodes: (0..n)
                .map(|i| Node {
                    id: format!("n{i}"),
                    weight: 1 + (i as u64 * 7) % 13,
                    place: (i % places) as u16,
                })
                .collect(),
            places: (0..places)
                .map(|i| Location { name: format!("p{i}"), position: Some((0.0, i as f64)) })
                .collect(),
            delays: (0..places * places).map(|i| delay(i / places, i % places)).collect(),
            spreads: Vec::new(),
            source: "a line".into(),
        }
    }
}
