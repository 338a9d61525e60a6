//! Nodes with their places and weights, and the delays between them.
//!
//! Nodes are at *places*: regions, cities or pairs of coordinates. Delays are stored per ordered
//! pair of places, so ten thousand nodes in a hundred cities need ten thousand numbers.

use std::borrow::Cow;
use std::f64::consts::LN_2;

use rand::RngCore;

use crate::{Nanos, NodeId, random};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The name in tables and files.
    pub id: String,
    /// The stake. A node of weight 0 neither relays nor counts while any node has weight.
    pub weight: u64,
    /// Index into [`World::places`].
    pub place: u16,
}

/// A place where nodes are.
#[derive(Debug, Clone, PartialEq)]
pub struct Location {
    /// The name of the region or city.
    pub name: String,
    /// Degrees north and east, if known, for the map.
    pub position: Option<(f64, f64)>,
}

/// Nodes and the delays between them.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// The nodes, in the order of the membership table.
    pub nodes: Vec<Node>,
    /// The places of the nodes.
    pub places: Vec<Location>,
    /// The one-way delays from place to place, row by row. The diagonal has the delays between two
    /// nodes of one place.
    pub delays: Vec<Nanos>,
    /// How much each delay varies from run to run, see [`World::conditions`]. It has the shape of
    /// `delays`, or is empty if delays are the same in every run.
    pub spreads: Vec<Nanos>,
    /// The sources of nodes and delays, for reports: file, fit and its error, factor.
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

    /// The one-way delay between two nodes; zero from a node to itself.
    pub fn delay(&self, from: NodeId, to: NodeId) -> Nanos {
        if from == to {
            return 0;
        }
        let place = |node: NodeId| usize::from(self.nodes[node as usize].place);
        self.delays[place(from) * self.places.len() + place(to)]
    }

    /// The world with the delays of one run.
    ///
    /// Over a year, round trips vary because paths change (routes, cables out of service, busy
    /// hours) rather than from packet to packet. So a run draws each delay once for each ordered
    /// pair of places; jitter is left to the links. A delay is `delay + spread · (E − ln 2)` with E
    /// exponential of mean 1, but at least half of `delay`: its median is `delay`, its 90th
    /// percentile `delay + spread · (ln 10 − ln 2)`. A normal distribution would have no long tail;
    /// a lognormal one would need a second logarithm and fit two numbers no better.
    ///
    /// Without spreads nothing is drawn or copied. The result has no spreads.
    pub fn conditions(&self, rng: &mut impl RngCore) -> Cow<'_, Self> {
        if self.spreads.is_empty() {
            return Cow::Borrowed(self);
        }
        debug_assert_eq!(self.delays.len(), self.spreads.len());
        let pairs = self.delays.iter().zip(&self.spreads);
        let delays = pairs.map(|(median, spread)| {
            let drawn = *median as f64 + *spread as f64 * (random::exponential(rng) - LN_2);
            // The conversion of a negative number gives zero.
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

    /// Makes some of the nodes guests: the last ones, without weight. Members and guests are spread
    /// over all places.
    pub fn part_guests(&mut self, guests: usize) {
        let members = self.nodes.len().saturating_sub(guests).max(1);
        let step = self.nodes.len() / members;
        let (first, rest): (Vec<_>, Vec<_>) = self
            .nodes
            .drain(..)
            .enumerate()
            .partition(|(i, _)| i % step == 0 && i / step < members);
        self.nodes = first.into_iter().chain(rest).map(|(_, node)| node).collect();
        for guest in &mut self.nodes[members..] {
            guest.weight = 0;
        }
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The weights of the nodes; all one if no node has weight.
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
