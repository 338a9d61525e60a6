//! Coordinates of the members of a large table, computed by the leader from what was measured.
//!
//! Three dimensions and a height, as Vivaldi has them: the round trip between two members is the
//! distance of their points and both heights, which stand for the ways to the core of the net. A
//! member is moved by its own row only, so what a liar reports moves the liar, and those who
//! measured it by as much as one of many neighbours does.

use super::RttCode;
use super::matrix::Row;
use crate::membership::PeerIndex;

/// Passes over a row each time that its member is placed.
const PASSES: usize = 6;
/// The most that one neighbour moves a member in a pass, in µs.
const PULL: f32 = 20_000.0;
/// How often everybody is placed again before the coordinates are used.
const ROUNDS: usize = 12;
/// The lowest height, in µs.
const LOWEST: f32 = 25.0;

/// A point and a height, in µs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    at: [f32; 3],
    height: f32,
}

impl Place {
    /// Somewhere near the middle, another place for each member, so that each pair of members has a
    /// direction in which to part.
    fn start(member: PeerIndex) -> Self {
        let mut bits = u64::from(member).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = [(); 3].map(|()| {
            bits = (bits ^ bits >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (bits >> 40) as f32 / 16_777.216 - 500.0
        });
        Self { at, height: 500.0 }
    }

    fn to(&self, other: &Self) -> ([f32; 3], f32) {
        let way = [0, 1, 2].map(|axis| self.at[axis] - other.at[axis]);
        let length = way.iter().map(|part| part * part).sum::<f32>().sqrt();
        (way, length)
    }

    fn round_trip(&self, other: &Self) -> f32 {
        self.to(other).1 + self.height + other.height
    }

    /// Moves towards where the round trip to another would be right, by a share of the error.
    fn pull(&mut self, other: &Self, measured: f32, share: f32) {
        let (way, length) = self.to(other);
        let error = measured - (length + self.height + other.height);
        let step = (error * share).clamp(-PULL, PULL);
        // The height takes the part of the error that it has of the whole.
        let all = (length + self.height).max(1.0);
        if length > 0.0 {
            for (at, way) in self.at.iter_mut().zip(way) {
                *at += step * way / all;
            }
        }
        self.height = (self.height + step * self.height / all).max(LOWEST);
    }
}

/// The places of all members; `None` for those that have reported nothing.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Coordinates {
    places: Vec<Option<Place>>,
}

impl Coordinates {
    /// Nobody has any.
    pub(super) fn new(members: usize) -> Self {
        Self { places: vec![None; members] }
    }

    /// Whether a pair of a row is held out: it does not place its members, so that it can tell
    /// how good the coordinates are.
    pub(super) const fn is_held_out(a: PeerIndex, b: PeerIndex) -> bool {
        (a ^ b).wrapping_mul(0x9e37_79b1) >> 29 == 0
    }

    /// Moves a member to where its row says that it is.
    pub(super) fn place(&mut self, member: PeerIndex, row: &[(PeerIndex, RttCode)]) {
        if row.is_empty() {
            return;
        }
        let mut place = self.places[member as usize].unwrap_or_else(|| Place::start(member));
        let used: Vec<(Place, f32)> = row
            .iter()
            .filter(|(other, _)| !Self::is_held_out(member, *other))
            .filter_map(|(other, code)| {
                Some((self.places[*other as usize]?, code.micros()? as f32))
            })
            .collect();
        for pass in 0..PASSES {
            let share = 0.25 / (1 + pass) as f32;
            used.iter().for_each(|(other, measured)| place.pull(other, *measured, share));
        }
        self.places[member as usize] = Some(place);
    }

    /// Moves all members to where their rows say that they are, again and again: rows come one
    /// after another, and those that came first were placed by few others.
    pub(super) fn settle(&mut self, rows: &[Row]) {
        for _ in 0..ROUNDS {
            (0..).zip(rows).for_each(|(member, row)| self.place(member, row));
        }
    }

    /// What they say that the round trips from a member to all are, in µs; 0 where nothing is known.
    pub(super) fn row(&self, member: PeerIndex, out: &mut [u32]) {
        let Some(from) = self.places[member as usize] else { return out.fill(0) };
        for (to, place) in out.iter_mut().zip(&self.places) {
            *to = place.map_or(0, |place| from.round_trip(&place) as u32);
        }
    }

    /// What the coordinates say that the round trip between two members is.
    pub(super) fn between(&self, a: PeerIndex, b: PeerIndex) -> RttCode {
        match (self.places[a as usize], self.places[b as usize]) {
            (Some(a), Some(b)) => RttCode::of_micros(a.round_trip(&b) as u32),
            _ => RttCode::UNKNOWN,
        }
    }
}
