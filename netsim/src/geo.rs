//! How far apart two places are, and how long light takes when nobody has measured it.
//!
//! Distances are great circles by the haversine formula, which stays exact for near points where
//! the law of cosines loses digits; the Earth is a sphere of its mean radius, 0.5 % off at most.
//! Light in fibre travels at c / 1.468 (the group index of ITU-T G.652 fibre at 1,550 nm).
//!
//! The coordinate model of a one-way delay has two parameters:
//!
//! ```text
//! delay = access + inflation · distance / speed of light in fibre
//! ```
//!
//! *Inflation*: cables follow coasts and roads, and packets follow contracts. *Access*: what a
//! path of any length costs at its two ends, by the way to the next exchange and its routers.
//! [`fit`] takes both from a matrix of round trips between places that are known.
//!
//! What is minimised is the sum of absolute relative deviations. Simulations compare ratios of
//! delays, so an error of 5 ms matters more between Milan and Zurich than across the Pacific;
//! and some paths of the matrix make detours (Tel Aviv to Dubai takes nearly four times what
//! its distance suggests) that bend squares: least squares gives an access of 11 ms, more than the
//! whole delay of every pair below 600 km.
//!
//! The measuring itself takes time: a region's round trip to itself is 1.5 to 8 ms in the file of
//! AWS. The mean of the two ends' own round trips is therefore taken off each entry, and
//! [`LOCAL_MS`] put in its place. Without that, access would be 3.3 ms, which is more than the
//! whole way from Frankfurt to Zurich.

use std::fmt;

use crate::Nanos;
use crate::latency::{RttMatrix, nanos};

mod regions;

pub use regions::{REGIONS, Region, region};

/// Mean radius of the Earth (IUGG).
pub const EARTH_RADIUS_KM: f64 = 6_371.008_8;
/// Light in fibre: c / 1.468.
pub const FIBRE_KM_PER_MS: f64 = 299.792_458 / 1.468;
/// One way between two hosts of one place: a few kilometres of fibre across a city and a handful
/// of switches, a quarter of a millisecond there and back. Access is not counted, let alone
/// twice: what it stands for, reaching a carrier and crossing its network, does not happen
/// between neighbours in a data centre or at one exchange.
pub const LOCAL_MS: f64 = 0.125;
/// From here on the model is the fitted line; the nearest regions of the matrix are 218 km apart.
/// Below it, the delay rises evenly from [`LOCAL_MS`], so that two coordinates in one city are
/// not a whole access apart.
pub const NEAR_KM: f64 = 200.0;
/// Fewer measured pairs than those of three places say nothing of a line.
const MIN_PAIRS: usize = 6;

/// The distance of two points, given in degrees north and east.
pub fn distance_km(a: (f64, f64), b: (f64, f64)) -> f64 {
    let square_of_sine = |degrees: f64| {
        let sine = libm::sin(degrees.to_radians() / 2.0);
        sine * sine
    };
    let cosines = libm::cos(a.0.to_radians()) * libm::cos(b.0.to_radians());
    let h = square_of_sine(a.0 - b.0) + cosines * square_of_sine(a.1 - b.1);
    2.0 * EARTH_RADIUS_KM * libm::asin(libm::sqrt(h).min(1.0))
}

/// The coordinate model, and how well it fits the matrix that it comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Length of a path as a multiple of the great circle.
    pub inflation: f64,
    /// Milliseconds, one way, of a path however short.
    pub access_ms: f64,
    /// Median of |model − measured| / measured.
    pub median_error: f64,
    /// Its 90th percentile.
    pub p90_error: f64,
    /// Root of the mean square of model − measured, milliseconds one way.
    pub rms_ms: f64,
    /// Ordered pairs of places that it was fitted to.
    pub pairs: usize,
}

impl Fit {
    /// The fit to the medians of AWS's 33 regions over a year (cloudping.co), so that no file
    /// is needed. A test refits it.
    pub const AWS: Self = Self {
        inflation: 1.623_5,
        access_ms: 1.347_3,
        median_error: 0.142,
        p90_error: 0.366,
        rms_ms: 23.5,
        pairs: 1_056,
    };

    /// Milliseconds, one way, over `km` of great circle.
    pub fn one_way_ms(&self, km: f64) -> f64 {
        let line = |km: f64| self.access_ms + self.inflation * km / FIBRE_KM_PER_MS;
        if km < NEAR_KM {
            let far = line(NEAR_KM).max(LOCAL_MS);
            LOCAL_MS + (far - LOCAL_MS) * km / NEAR_KM
        } else {
            line(km)
        }
    }

    /// The delay between two places, given in degrees north and east.
    pub fn delay(&self, a: (f64, f64), b: (f64, f64)) -> Nanos {
        nanos(self.one_way_ms(distance_km(a, b)))
    }
}

impl Default for Fit {
    fn default() -> Self {
        Self::AWS
    }
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} ms + {:.3} × great circle / speed of light in fibre, off by {:.0} % (median) \
             and {:.0} % (p90), rms {:.1} ms, of {} measured pairs",
            self.access_ms,
            self.inflation,
            self.median_error * 100.0,
            self.p90_error * 100.0,
            self.rms_ms,
            self.pairs
        )
    }
}

/// A measured pair: milliseconds of light in fibre along the great circle, and of delay.
#[derive(Debug, Clone, Copy)]
struct Pair {
    light: f64,
    delay: f64,
}

/// Fits the coordinate model to those regions of a matrix that [`REGIONS`] has; `None` where they
/// are fewer than three.
pub fn fit(matrix: &RttMatrix) -> Option<Fit> {
    let pairs = measured(matrix);
    if pairs.len() < MIN_PAIRS {
        return None;
    }
    // For each inflation there is a best access, and the deviation that is left is convex in the
    // inflation: ternary search. No path is shorter than the great circle.
    let (mut low, mut high) = (1.0, 10.0);
    for _ in 0..80 {
        let third = (high - low) / 3.0;
        let (left, right) = (low + third, high - third);
        if deviation(&pairs, left) <= deviation(&pairs, right) {
            high = right;
        } else {
            low = left;
        }
    }
    let inflation = f64::midpoint(low, high);
    let access_ms = best_access(&pairs, inflation);
    let residual = |pair: &Pair| access_ms + inflation * pair.light - pair.delay;
    let mut errors: Vec<f64> = pairs.iter().map(|p| (residual(p) / p.delay).abs()).collect();
    errors.sort_unstable_by(f64::total_cmp);
    let squares: f64 = pairs.iter().map(|p| residual(p) * residual(p)).sum();
    Some(Fit {
        inflation,
        access_ms,
        median_error: errors[errors.len() / 2],
        p90_error: errors[errors.len() * 9 / 10],
        rms_ms: libm::sqrt(squares / pairs.len() as f64),
        pairs: pairs.len(),
    })
}

/// The ordered pairs of known regions, without what measuring costs.
fn measured(matrix: &RttMatrix) -> Vec<Pair> {
    let names = matrix.regions().iter().enumerate();
    let known: Vec<_> = names.filter_map(|(i, name)| Some((i, region(name)?.position))).collect();
    let mut pairs = Vec::with_capacity(known.len() * known.len());
    for (a, from) in &known {
        for (b, to) in known.iter().filter(|(b, _)| b != a) {
            let own = f64::midpoint(matrix.rtt_ms(*a, *a), matrix.rtt_ms(*b, *b));
            let delay = LOCAL_MS + ((matrix.rtt_ms(*a, *b) - own) / 2.0).max(0.0);
            pairs.push(Pair { light: distance_km(*from, *to) / FIBRE_KM_PER_MS, delay });
        }
    }
    pairs
}

/// The access that deviates least at this inflation: the median of what remains, weighted by one
/// over the delay because deviations are relative. Never negative.
fn best_access(pairs: &[Pair], inflation: f64) -> f64 {
    let mut rest: Vec<(f64, f64)> =
        pairs.iter().map(|p| (p.delay - inflation * p.light, 1.0 / p.delay)).collect();
    rest.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let half = rest.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    let median = rest.iter().find(|(_, weight)| {
        sum += weight;
        sum >= half
    });
    median.map_or(0.0, |(access, _)| access.max(0.0))
}

/// The sum of absolute relative deviations at this inflation and its best access.
fn deviation(pairs: &[Pair], inflation: f64) -> f64 {
    let access = best_access(pairs, inflation);
    pairs.iter().map(|p| ((access + inflation * p.light - p.delay) / p.delay).abs()).sum()
}

#[cfg(test)]
mod tests;
