//! How long shreds take, by hops from the leader and by region.
//!
//! A member times by its own clock, the header by the leader's. What a member's clock is ahead is
//! taken to be the least that its shreds ever took beyond what the measured delays of their ways
//! explain. So a shred that met no queue is taken for the measure, and what is told is the way by
//! the measured delays with all queues and hops in it. Without measured delays, clocks are believed.
//!
//! Of each hop and each region there are the last few times, and a [`LatencySpread`] of all of them.

use std::collections::BTreeMap;

use crate::membership::PeerIndex;

/// Times that are remembered of a hop and of a region.
const OF_HOP: usize = 512;
const OF_REGION: usize = 32;
/// Hops at most: leader, root, head, member.
const HOPS: usize = 3;
/// After so many times of a member its clock is looked at anew.
const ANEW: u32 = 64;

/// Times since the start, counted by how long they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LatencySpread {
    /// How many took at most as long as each of [`LatencySpread::BOUNDS`], and how many longer than the last.
    pub counts: [u64; 15],
    /// Their sum, µs.
    pub sum_micros: u64,
}

impl LatencySpread {
    /// The longest times that are counted in each of the counts but the last, µs: from a hop on loopback
    /// to a shred that nobody waits for any more.
    pub const BOUNDS: [u32; 14] = [
        500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 150_000, 200_000, 300_000,
        500_000, 1_000_000, 2_000_000,
    ];

    fn note(&mut self, micros: u32) {
        let place = Self::BOUNDS.partition_point(|bound| *bound < micros);
        self.counts[place] += 1;
        self.sum_micros = self.sum_micros.saturating_add(micros.into());
    }
}

/// How long shreds take from the leader to members at some number of hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopLatency {
    /// Hops from the leader: 1 for a root, 3 for a member below a head.
    pub hops: u8,
    /// The median of the last times from the leader's start of sending to arrival, in µs.
    pub median_micros: u32,
    /// What 90 and what 99 of a hundred of them take at most, in µs.
    pub p90_micros: u32,
    /// See `p90_micros`.
    pub p99_micros: u32,
    /// How many they are.
    pub samples: usize,
    /// All times since the start.
    pub spread: LatencySpread,
}

/// How long shreds take from the leader to the members of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionLatency {
    /// The region's number in the leader's plan.
    pub region: u16,
    /// The median of the last times, in µs.
    pub median_micros: u32,
    /// What 90 and what 99 of a hundred of them take at most, in µs.
    pub p90_micros: u32,
    /// See `p90_micros`.
    pub p99_micros: u32,
    /// How many they are.
    pub samples: usize,
    /// All times since the start.
    pub spread: LatencySpread,
}

/// The last of many numbers.
#[derive(Debug, Default)]
struct Ring {
    values: Vec<u32>,
    next: usize,
    spread: LatencySpread,
}

impl Ring {
    fn push(&mut self, value: u32, most: usize) {
        self.spread.note(value);
        match self.values.get_mut(self.next) {
            Some(place) => *place = value,
            None => self.values.push(value),
        }
        self.next = (self.next + 1) % most;
    }

    /// The median, and what 90 and what 99 of a hundred are at most.
    fn percentiles(&self) -> Option<[u32; 3]> {
        let mut sorted = self.values.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        let at = |place: usize| sorted[place.min(last)];
        Some([at(sorted.len() / 2), at(sorted.len() * 9 / 10), at(sorted.len() * 99 / 100)])
    }
}

/// What a member's clock is ahead, in µs, at most.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// The least of those before, and of those since.
    before: i64,
    since: i64,
    count: u32,
}

impl Clock {
    fn note(&mut self, ahead: i64) -> i64 {
        self.since = self.since.min(ahead);
        self.count += 1;
        let least = self.before.min(self.since);
        if self.count >= ANEW {
            *self = Self { before: self.since, since: i64::MAX, count: 0 };
        }
        least
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    hops: [Ring; HOPS],
    regions: BTreeMap<u16, Ring>,
    clocks: BTreeMap<PeerIndex, Clock>,
}

impl Latencies {
    /// A member says that a shred took so long over a way that takes as long as `expected` by the
    /// measured delays, all in µs.
    pub(super) fn note(
        &mut self,
        member: PeerIndex,
        region: u16,
        hops: u8,
        took: i64,
        expected: Option<i64>,
    ) {
        let ahead = expected.map_or(0, |expected| {
            let new = Clock { before: i64::MAX, since: i64::MAX, count: 0 };
            self.clocks.entry(member).or_insert(new).note(took.saturating_sub(expected))
        });
        let took = u32::try_from(took.saturating_sub(ahead).max(0)).unwrap_or(u32::MAX);
        if let Some(ring) = self.hops.get_mut(usize::from(hops).wrapping_sub(1)) {
            ring.push(took, OF_HOP);
        }
        self.regions.entry(region).or_default().push(took, OF_REGION);
    }

    pub(super) fn hops(&self) -> Vec<HopLatency> {
        let medians = (1..).zip(&self.hops).filter_map(|(hops, ring)| {
            let [median_micros, p90_micros, p99_micros] = ring.percentiles()?;
            let (samples, spread) = (ring.values.len(), ring.spread);
            Some(HopLatency { hops, median_micros, p90_micros, p99_micros, samples, spread })
        });
        medians.collect()
    }

    pub(super) fn regions(&self) -> Vec<RegionLatency> {
        let medians = self.regions.iter().filter_map(|(region, ring)| {
            let [median_micros, p90_micros, p99_micros] = ring.percentiles()?;
            let (samples, spread) = (ring.values.len(), ring.spread);
            let region = *region;
            Some(RegionLatency { region, median_micros, p90_micros, p99_micros, samples, spread })
        });
        medians.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_wrong_changes_no_latency() {
        let mut latencies = Latencies::default();
        // Ways of 10 and 30 ms, queues of up to 9 ms, one clock 5 s ahead and one 2 s behind.
        for i in 0..40i64 {
            let queue = i % 10 * 1_000;
            latencies.note(1, 7, 1, 5_000_000 + 10_000 + queue, Some(10_000));
            latencies.note(2, 8, 3, -2_000_000 + 30_000 + queue, Some(30_000));
        }
        let hops = latencies.hops();
        assert_eq!(
            hops.iter().map(|hop| (hop.hops, hop.samples)).collect::<Vec<_>>(),
            [(1, 40), (3, 40)]
        );
        assert_eq!(hops.iter().map(|hop| hop.median_micros).collect::<Vec<_>>(), [15_000, 35_000]);
        let regions = latencies.regions();
        let RegionLatency { region, median_micros, p90_micros, samples, spread, .. } = regions[1];
        assert_eq!((region, median_micros, samples), (8, 35_000, 32));
        assert_eq!(p90_micros, 39_000);
        // All that there were, and not the last few: 40 times 30 to 39 ms.
        assert_eq!((spread.counts[6], spread.sum_micros), (40, 40 * 34_500));
    }

    #[test]
    fn a_clock_that_was_set_is_found_again_and_without_delays_clocks_are_believed() {
        let mut latencies = Latencies::default();
        (0..64).for_each(|_| latencies.note(1, 0, 2, 10_000, Some(10_000)));
        // It is set two seconds forward.
        (0..640).for_each(|_| latencies.note(1, 0, 2, 2_010_000, Some(10_000)));
        assert_eq!(latencies.hops()[0].median_micros, 10_000);
        (0..600).for_each(|_| latencies.note(2, 1, 1, 42_000, None));
        let hop = latencies.hops()[0];
        assert_eq!((hop.hops, hop.median_micros, hop.samples), (1, 42_000, 512));
        assert_eq!(hop.spread.counts.iter().sum::<u64>(), 600);
    }

    #[test]
    fn no_number_overflows() {
        let mut latencies = Latencies::default();
        for took in [i64::MIN, i64::MAX, 0] {
            for expected in [None, Some(i64::MAX), Some(0)] {
                latencies.note(1, 0, 0, took, expected);
                latencies.note(1, 0, 9, took, expected);
            }
        }
        assert!(latencies.hops().is_empty() && latencies.regions()[0].samples == 18);
    }
}
