//! Distances between places, and a model of delays that have not been measured.
//!
//! Distances are great circles by the haversine formula, which is exact for near points, where the
//! law of cosines loses digits. The Earth is taken as a sphere of its mean radius, an error of at
//! most 0.5 %. Light in fibre travels at c / 1.468 (the group index of ITU-T G.652 fibre at 1,550
//! nm).
//!
//! The coordinate model of a one-way delay has two parameters:
//!
//! ```text
//! delay = access + inflation · distance / speed of light in fibre
//! ```
//!
//! *Inflation* is the length of the real path over the great circle: cables follow coasts and
//! roads, and packets follow contracts. *Access* is the delay at the two ends of a path of any
//! length: the way to the next exchange and its routers. [`fit`] determines both from a matrix of
//! round trips between known places.
//!
//! The fit minimises the sum of absolute relative deviations. Simulations compare ratios of delays,
//! so an error of 5 ms matters more between Milan and Zurich than across the Pacific. Also, some
//! paths of the matrix make detours (Tel Aviv to Dubai takes nearly four times what its distance
//! suggests), which distort a sum of squares: least squares gives an access of 11 ms, more than the
//! whole delay of every pair below 600 km.
//!
//! The measurement itself takes time: in the file of AWS a region's round trip to itself is 1.5 to
//! 8 ms. So the mean of the two ends' own round trips is subtracted from each entry, and
//! [`LOCAL_MS`] is added. Otherwise access would be 3.3 ms, more than the whole way from Frankfurt
//! to Zurich.

use std::fmt;

use crate::Nanos;
use crate::latency::{RttMatrix, nanos};

mod regions;

pub use regions::{REGIONS, Region, region};

/// Mean radius of the Earth (IUGG).
pub const EARTH_RADIUS_KM: f64 = 6_371.008_8;
/// Light in fibre: c / 1.468.
pub const FIBRE_KM_PER_MS: f64 = 299.792_458 / 1.468;
/// One-way delay between two hosts of one place: a few kilometres of fibre across a city and some
/// switches, a quarter of a millisecond there and back. It contains no access, which stands for
/// reaching a carrier and crossing its network: neighbours in a data centre or at one exchange do
/// not need that.
pub const LOCAL_MS: f64 = 0.125;
/// The shortest distance for which the model is the fitted line; the nearest regions of the matrix
/// are 218 km apart. Below it the delay rises linearly from [`LOCAL_MS`], so that two coordinates
/// in one city are not a whole access apart.
pub const NEAR_KM: f64 = 200.0;
/// The fewest measured pairs for a fit: those of three places.
const MIN_PAIRS: usize = 6;

/// The distance of two points in degrees north and east.
pub fn distance_km(a: (f64, f64), b: (f64, f64)) -> f64 {
    let square_of_sine = |degrees: f64| {
        let sine = libm::sin(degrees.to_radians() / 2.0);
        sine * sine
    };
    let cosines = libm::cos(a.0.to_radians()) * libm::cos(b.0.to_radians());
    let h = square_of_sine(a.0 - b.0) + cosines * square_of_sine(a.1 - b.1);
    2.0 * EARTH_RADIUS_KM * libm::asin(libm::sqrt(h).min(1.0))
}

/// The coordinate model, with its error on the matrix that it was fitted to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Length of a path over that of the great circle.
    pub inflation: f64,
    /// One-way delay in milliseconds that every path has, however short.
    pub access_ms: f64,
    /// Median of |model − measured| / measured.
    pub median_error: f64,
    /// Its 90th percentile.
    pub p90_error: f64,
    /// Root mean square of model − measured, in milliseconds one way.
    pub rms_ms: f64,
    /// Number of ordered pairs of places that it was fitted to.
    pub pairs: usize,
}

impl Fit {
    /// The fit to the medians of AWS's 33 regions over a year (cloudping.co), for use without a
    /// file. A test repeats the fit.
    pub const AWS: Self = Self {
        inflation: 1.623_5,
        access_ms: 1.347_3,
        median_error: 0.142,
        p90_error: 0.366,
        rms_ms: 23.5,
        pairs: 1_056,
    };

    /// One-way delay in milliseconds over `km` of great circle.
    pub fn one_way_ms(&self, km: f64) -> f64 {
        let line = |km: f64| self.access_ms + self.inflation * km / FIBRE_KM_PER_MS;
        if km < NEAR_KM {
            let far = line(NEAR_KM).max(LOCAL_MS);
            LOCAL_MS + (far - LOCAL_MS) * km / NEAR_KM
        } else {
            line(km)
        }
    }

    /// The one-way delay between two places in degrees north and east.
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

/// A measured pair: milliseconds of light in fibre along the great circle, and milliseconds of
/// delay.
#[derive(Debug, Clone, Copy)]
struct Pair {
    light: f64,
    delay: f64,
}

/// Fits the coordinate model to the regions of a matrix that are in [`REGIONS`]; `None` if these
/// are fewer than three.
pub fn fit(matrix: &RttMatrix) -> Option<Fit> {
    let pairs = measured(matrix);
    if pairs.len() < MIN_PAIRS {
        return None;
    }
    // For each inflation there is a best access, and the remaining deviation is convex in the
    // inflation, so a ternary search finds the minimum. No path is shorter than the great circle.
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

/// The ordered pairs of known regions, without the time of the measurement itself.
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

/// The access with the least deviation at this inflation: the median of the residuals, weighted by
/// one over the delay because deviations are relative. Never negative.
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

/// The sum of absolute relative deviations at this inflation with its best access.
fn deviation(pairs: &[Pair], inflation: f64) -> f64 {
    let access = best_access(pairs, inflation);
    pairs.iter().map(|p| ((access + inflation * p.light - p.delay) / p.delay).abs()).sum()
}

#[cfg(test)]
mod tests;
