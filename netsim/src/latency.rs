//! Measured round trips between regions.
//!
//! A file has the format of cloudping.co: `{"data": {from: {to: milliseconds}}}`, a percentile of
//! the round trip for each ordered pair of AWS regions, also from a region to itself. `from` is the
//! region that measured, so the matrix is not symmetric, though both entries of a pair are round
//! trips. The delay from a to b is half of what a measured. This keeps the difference between the
//! two measurements (of AWS's pairs 1 % at the median, 22 % at most), which an average would hide,
//! and claims nothing about asymmetric paths beyond the data.
//!
//! Delays from a file use its entries unchanged. These contain the time of the measurement itself:
//! a region's round trip to itself is 1.5 to 8 ms, although a fibre across a city takes less than
//! half a millisecond. The coordinate model of [`crate::geo`] corrects for that.

use std::collections::BTreeMap;
use std::f64::consts::{LN_2, LN_10};
use std::path::Path;

use serde::Deserialize;

use crate::Nanos;
use crate::input::{ReadError, file_name, read_text};

/// The most bytes of a file: a thousand regions squared, thirty bytes an entry.
pub const MAX_BYTES: u64 = 32 << 20;
/// The most regions, whose matrix takes 8 MB.
pub const MAX_REGIONS: usize = 1_000;
/// Upper bound of a round trip, in milliseconds.
pub const MAX_RTT_MS: f64 = 10_000.0;

/// Why a matrix could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LatencyError {
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file is not JSON of this form.
    #[error("{file}: {error}; it must be {{\"data\": {{from: {{to: round-trip ms}}}}}}")]
    Json {
        /// The file.
        file: String,
        /// The error, with its position.
        error: serde_json::Error,
    },
    /// The file has no region or too many.
    #[error("{file} has {regions} regions; 1 to {MAX_REGIONS} are allowed")]
    Regions {
        /// The file.
        file: String,
        /// Number of its regions.
        regions: usize,
    },
    /// A pair of regions is missing.
    #[error("{file}: no round trip from {from} to {to}; every ordered pair must be there")]
    Missing {
        /// The file.
        file: String,
        /// The region that measures.
        from: String,
        /// The region that is measured.
        to: String,
    },
    /// A round trip is out of its bounds.
    #[error(
        "{file}: {ms} ms from {from} to {to}; round trips are more than 0 and less than \
         {MAX_RTT_MS} ms"
    )]
    Value {
        /// The file.
        file: String,
        /// The region that measures.
        from: String,
        /// The region that is measured.
        to: String,
        /// The round trip in the file, ms.
        ms: f64,
    },
    /// A 90th percentile is less than the median.
    #[error(
        "{file}: {p90} ms from {from} to {to} is less than the median of {p50} ms; are the two \
         files interchanged, or from different times?"
    )]
    BelowMedian {
        /// The file of 90th percentiles.
        file: String,
        /// The region that measures.
        from: String,
        /// The region that is measured.
        to: String,
        /// The round trip in the file, ms.
        p90: f64,
        /// The round trip in the file of medians, ms.
        p50: f64,
    },
}

/// A square matrix of round trips.
#[derive(Debug, Clone, PartialEq)]
pub struct RttMatrix {
    file: String,
    regions: Vec<String>,
    /// Milliseconds, row by row: from, to.
    ms: Vec<f64>,
}

#[derive(Deserialize)]
struct Json {
    data: BTreeMap<String, BTreeMap<String, f64>>,
}

impl RttMatrix {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is too large, or is not such a matrix.
    pub fn load(path: &Path) -> Result<Self, LatencyError> {
        Self::parse(&read_text(path, MAX_BYTES)?, &file_name(path))
    }

    /// Reads a text. `file` is its name in errors.
    ///
    /// # Errors
    ///
    /// The text is not such a matrix, a pair is missing, or a round trip is out of its bounds.
    pub fn parse(text: &str, file: &str) -> Result<Self, LatencyError> {
        let Json { data } = serde_json::from_str(text)
            .map_err(|error| LatencyError::Json { file: file.into(), error })?;
        if data.is_empty() || data.len() > MAX_REGIONS {
            return Err(LatencyError::Regions { file: file.into(), regions: data.len() });
        }
        let regions: Vec<String> = data.keys().cloned().collect();
        let missing = |from: &str, to: &str| LatencyError::Missing {
            file: file.into(),
            from: from.into(),
            to: to.into(),
        };
        let mut ms = Vec::with_capacity(regions.len() * regions.len());
        for (from, row) in &data {
            // A region that is measured, but has no row of its own.
            if let Some(to) = row.keys().find(|to| !data.contains_key(*to)) {
                return Err(missing(to, from));
            }
            for to in &regions {
                let rtt = *row.get(to).ok_or_else(|| missing(from, to))?;
                if !(rtt > 0.0 && rtt < MAX_RTT_MS) {
                    let (from, to) = (from.clone(), to.clone());
                    return Err(LatencyError::Value { file: file.into(), from, to, ms: rtt });
                }
                ms.push(rtt);
            }
        }
        Ok(Self { file: file.into(), regions, ms })
    }

    /// The name of the file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The regions, by name.
    pub fn regions(&self) -> &[String] {
        &self.regions
    }

    /// The index of a region.
    pub fn index(&self, region: &str) -> Option<usize> {
        self.regions.binary_search_by(|name| name.as_str().cmp(region)).ok()
    }

    /// The round trip from a region to another in milliseconds, as the first measured it.
    ///
    /// # Panics
    ///
    /// An index is not of a region.
    pub fn rtt_ms(&self, from: usize, to: usize) -> f64 {
        assert!(to < self.regions.len(), "region {to} of {}", self.regions.len());
        self.ms[from * self.regions.len() + to]
    }

    /// One-way delays between the chosen regions, row by row.
    ///
    /// # Panics
    ///
    /// An index is not of a region.
    pub fn delays(&self, chosen: &[usize]) -> Vec<Nanos> {
        pairs(chosen).map(|(from, to)| nanos(self.rtt_ms(from, to) / 2.0)).collect()
    }

    /// The [`World::spreads`](crate::world::World::spreads) between the chosen regions with which
    /// the 90th percentile of drawn delays is half of the round trip in `p90`.
    ///
    /// # Errors
    ///
    /// `p90` lacks a pair, or has less than the median.
    ///
    /// # Panics
    ///
    /// An index is not of a region.
    pub fn spreads(&self, p90: &Self, chosen: &[usize]) -> Result<Vec<Nanos>, LatencyError> {
        let one = |(from, to): (usize, usize)| {
            let (a, b) = (&self.regions[from], &self.regions[to]);
            let (Some(i), Some(j)) = (p90.index(a), p90.index(b)) else {
                let (from, to) = (a.clone(), b.clone());
                return Err(LatencyError::Missing { file: p90.file.clone(), from, to });
            };
            let (median, high) = (self.rtt_ms(from, to), p90.rtt_ms(i, j));
            if high < median {
                let (from, to) = (a.clone(), b.clone());
                let file = p90.file.clone();
                return Err(LatencyError::BelowMedian { file, from, to, p90: high, p50: median });
            }
            Ok(nanos((high - median) / 2.0 / (LN_10 - LN_2)))
        };
        pairs(chosen).map(one).collect()
    }
}

/// All ordered pairs, row by row.
fn pairs(chosen: &[usize]) -> impl Iterator<Item = (usize, usize)> + '_ {
    chosen.iter().flat_map(|from| chosen.iter().map(|to| (*from, *to)))
}

/// Converts milliseconds to nanoseconds.
pub(crate) fn nanos(ms: f64) -> Nanos {
    (ms * 1e6).round() as Nanos
}

#[cfg(test)]
mod tests;
