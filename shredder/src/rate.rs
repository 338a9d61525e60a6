//! The code rate: how many data and coding shreds a set has.
//!
//! m is the smallest number with which a set stays incomplete (fewer than k of the k + m shreds
//! arrive) with a probability below [`INCOMPLETE`]. Each shred is taken to be lost independently
//! with the end-to-end loss of the path, and also with the probability that one of the two busiest
//! relays carries it, since those may be silent.

use crate::coding::MAX_SHARDS;
use crate::merkle::{self, NODE_LEN};
use crate::shred::{MAX_SHRED_LEN, OVERHEAD};

/// The probability below which a set may stay incomplete.
pub const INCOMPLETE: f64 = 1e-6;

/// End-to-end loss that is assumed until it is measured.
pub const DEFAULT_LOSS: f64 = 0.05;

/// The most data shards of a set, unless [`CodeRate::of_sets_up_to`] is told otherwise. Beyond 32,
/// coding costs more than the saved signature.
pub const MAX_DATA: usize = 32;

/// The largest shard that the shredder cuts: what a shred of the largest set has room for.
pub const MAX_SHARD_LEN: usize = MAX_SHRED_LEN - OVERHEAD - NODE_LEN * merkle::depth(MAX_SHARDS);

/// The most coding shreds for each data shred, beside [`SMALL_SET_EXTRA`].
const MAX_OVERHEAD: usize = 2;
const SMALL_SET_EXTRA: usize = 8;

/// The losses that the code must make good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossTarget {
    /// End-to-end loss over all hops, 0 to 0.9.
    pub loss: f64,
    /// The share of shreds that pass through the two busiest relays, 0 to 1.
    pub busiest: f64,
}

impl Default for LossTarget {
    fn default() -> Self {
        Self { loss: DEFAULT_LOSS, busiest: 0.0 }
    }
}

impl LossTarget {
    /// The target for `per_hop` loss over `hops` hops.
    pub fn over_hops(per_hop: f64, hops: u32, busiest: f64) -> Self {
        // A product, not `powi`, whose last bit depends on the platform.
        let kept = 1.0 - per_hop.clamp(0.0, 0.9);
        let arrival = (0..hops).fold(1.0, |product, _| product * kept);
        Self { loss: 1.0 - arrival, busiest }
    }

    fn arrival(self) -> f64 {
        (1.0 - self.loss.clamp(0.0, 0.9)) * (1.0 - self.busiest.clamp(0.0, 0.9))
    }
}

/// How a message is divided into sets and shards. All sets have the same k, m and shard length.
///
/// ```
/// use fragcast_shredder::{CodeRate, LossTarget};
///
/// // 36 kB over a path that loses 5 % of all packets.
/// let rate = CodeRate::new(36_000, LossTarget { loss: 0.05, busiest: 0.0 });
/// assert_eq!((rate.sets, rate.k, rate.m), (2, 20, 9));
/// // A leader with bandwidth to spare sends as many coding shreds as data shreds.
/// assert_eq!(rate.with_coding(1.0).m, 20);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeRate {
    /// Number of FEC sets.
    pub sets: u16,
    /// Data shards of a set.
    pub k: u8,
    /// Coding shards of a set.
    pub m: u8,
    /// Bytes of a shard.
    pub shard_len: u16,
}

impl CodeRate {
    /// The rate for a message of `len` bytes, 1 to [`MAX_MESSAGE_LEN`](crate::MAX_MESSAGE_LEN).
    ///
    /// The data shards are spread evenly over as few sets as possible, so that there is no small
    /// last set that is more likely to fail than the others.
    pub fn new(len: usize, target: LossTarget) -> Self {
        Self::of_sets_up_to(MAX_DATA, len, target)
    }

    /// The same with at most `data` data shards a set, where a set has room for them.
    ///
    /// A node waits for the slowest of its sets: where shreds take paths of different length, fewer
    /// and larger sets complete earlier.
    ///
    /// ```
    /// use fragcast_shredder::{CodeRate, LossTarget};
    ///
    /// let target = LossTarget { loss: 0.03, busiest: 0.0 };
    /// let rate = CodeRate::of_sets_up_to(44, 36_000, target);
    /// assert_eq!((rate.sets, rate.k), (1, 40));
    /// assert_eq!(CodeRate::of_sets_up_to(32, 36_000, target), CodeRate::new(36_000, target));
    /// ```
    pub fn of_sets_up_to(data: usize, len: usize, target: LossTarget) -> Self {
        let shards = len.div_ceil(MAX_SHARD_LEN).max(1);
        let most = (1..=data.min(MAX_SHARDS - 1))
            .rev()
            .find(|&k| coding_shards(k, target).is_some_and(|m| k + m <= MAX_SHARDS))
            .unwrap_or(MAX_SHARDS / (1 + MAX_OVERHEAD));
        let sets = shards.div_ceil(most);
        let k = shards.div_ceil(sets);
        let ceiling = (k * MAX_OVERHEAD + SMALL_SET_EXTRA).min(MAX_SHARDS - k);
        let m = coding_shards(k, target).unwrap_or(ceiling).min(ceiling);
        let shard_len = len.div_ceil(sets * k).max(1);
        // Rounding k and the shard length up can leave the last set empty.
        let sets = len.div_ceil(k * shard_len).max(1);
        Self { sets: sets as u16, k: k as u8, m: m as u8, shard_len: shard_len as u16 }
    }
}

impl CodeRate {
    /// The same rate with at least `ratio` coding shards for each data shard, as far as a set has
    /// room.
    ///
    /// Where shreds take paths of different length, a node completes a set with the fastest k of k
    /// + m. More coding than the loss requires then makes it complete earlier.
    #[must_use]
    pub fn with_coding(self, ratio: f64) -> Self {
        let wanted = (f64::from(self.k) * ratio.max(0.0)).ceil() as usize;
        let m = wanted.clamp(self.m.into(), (MAX_SHARDS - usize::from(self.k)).max(self.m.into()));
        Self { m: m as u8, ..self }
    }

    /// The same rate with as many more coding shreds as cost at most `bytes` sent for each byte of
    /// the message, where each shred is framed in `framing` bytes more.
    ///
    /// ```
    /// use fragcast_shredder::{CodeRate, LossTarget};
    ///
    /// let rate = CodeRate::new(36_000, LossTarget { loss: 0.03, busiest: 0.0 });
    /// let more = rate.within(2.3, 60);
    /// assert!(more.m > rate.m);
    /// let sent = f64::from(more.k + more.m) * (more.shred_len() + 60) as f64;
    /// assert!(sent <= 2.3 * f64::from(more.k) * f64::from(more.shard_len));
    /// ```
    #[must_use]
    pub fn within(self, bytes: f64, framing: usize) -> Self {
        let budget = bytes * f64::from(self.k) * f64::from(self.shard_len);
        let fits = |m: &u8| {
            let rate = Self { m: *m, ..self };
            let shards = f64::from(rate.k) + f64::from(rate.m);
            shards * (rate.shred_len() + framing) as f64 <= budget
        };
        let most = MAX_SHARDS as u8 - self.k;
        Self { m: (self.m + 1..=most).rev().find(fits).unwrap_or(self.m), ..self }
    }

    /// Bytes of a shred.
    pub const fn shred_len(self) -> usize {
        let shards = self.k as usize + self.m as usize;
        OVERHEAD + self.shard_len as usize + NODE_LEN * merkle::depth(shards)
    }
}

/// The smallest sufficient m for k data shards; `None` if [`MAX_SHARDS`] shards are not enough.
fn coding_shards(k: usize, target: LossTarget) -> Option<usize> {
    let arrival = target.arrival();
    (1..=MAX_SHARDS - k).find(|m| incomplete(k, k + m, arrival) < INCOMPLETE)
}

/// The probability that fewer than k of n independent shreds arrive.
///
/// Uses only products and sums in a fixed order, so that the result is the same on every machine:
/// tests pin the shape of sets.
fn incomplete(k: usize, n: usize, arrival: f64) -> f64 {
    let lost = 1.0 - arrival;
    if lost <= 0.0 {
        return 0.0;
    }
    // Binomial terms from "none arrives" upwards; 0.1^64 is still a normal number.
    let mut term = (0..n).fold(1.0, |product, _| product * lost);
    let mut sum = term;
    for arrived in 1..k {
        term *= (n - arrived + 1) as f64 / arrived as f64 * (arrival / lost);
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_agrees_with_known_values() {
        // 1 of 5 at 5 % loss: 0.05^5; 2 of 3 at 10 %: 3·0.9·0.01 + 0.001.
        assert!((incomplete(1, 5, 0.95) - 3.125e-7).abs() < 1e-12);
        assert!((incomplete(2, 3, 0.9) - 0.028).abs() < 1e-12);
        assert_eq!(incomplete(5, 9, 1.0), 0.0);
    }

    #[test]
    fn m_is_the_least_that_meets_the_target() {
        for k in 1..=32 {
            let m = coding_shards(k, LossTarget::default()).unwrap();
            assert!(incomplete(k, k + m, 0.95) < INCOMPLETE);
            assert!(m == 1 || incomplete(k, k + m - 1, 0.95) >= INCOMPLETE);
        }
        assert_eq!(coding_shards(1, LossTarget::default()), Some(4));
    }

    #[test]
    fn every_length_is_covered_without_an_empty_set() {
        let targets = [
            LossTarget::default(),
            LossTarget { loss: 0.0, busiest: 0.0 },
            LossTarget { loss: 0.3, busiest: 0.4 },
            LossTarget { loss: 0.9, busiest: 0.9 },
        ];
        let lens = (1..3000).chain([36_864, 147_456, 1 << 20, crate::MAX_MESSAGE_LEN]);
        for len in lens {
            for target in targets {
                let CodeRate { sets, k, m, shard_len } = CodeRate::new(len, target);
                let (sets, k, m, shard_len) =
                    (usize::from(sets), usize::from(k), usize::from(m), usize::from(shard_len));
                assert!(k + m <= MAX_SHARDS && shard_len <= MAX_SHARD_LEN && m >= 1);
                assert!(sets * k * shard_len >= len, "{len} bytes are covered");
                assert!((sets - 1) * k * shard_len < len, "{len} bytes: the last set is used");
            }
        }
    }

    #[test]
    fn larger_sets_are_fewer_and_have_the_coding_that_the_loss_asks_for() {
        for len in (1..200_000).step_by(379) {
            for loss in [0.0, 0.03, 0.2] {
                let target = LossTarget { loss, busiest: 0.0 };
                let (usual, large) =
                    (CodeRate::new(len, target), CodeRate::of_sets_up_to(44, len, target));
                assert!(large.sets <= usual.sets && large.k <= 44, "{len}");
                assert!(usize::from(large.k + large.m) <= MAX_SHARDS);
                assert!(Some(usize::from(large.m)) >= coding_shards(large.k.into(), target));
            }
        }
    }

    #[test]
    fn coding_can_be_asked_for_and_never_exceeds_a_set() {
        for len in [1, 500, 36_000, 144_000, 1 << 20] {
            for loss in [0.0, 0.01, 0.1, 0.3] {
                let rate = CodeRate::new(len, LossTarget { loss, busiest: 0.0 });
                let even = rate.with_coding(1.0);
                assert!(even.m >= even.k && even.m >= rate.m);
                assert!(usize::from(even.k + even.m) <= MAX_SHARDS);
                assert_eq!(rate.with_coding(0.0), rate);
                assert!(usize::from(rate.with_coding(9.0).m + rate.k) <= MAX_SHARDS);
                assert_eq!(CodeRate { m: rate.m, ..even }, rate);
            }
        }
    }

    #[test]
    fn more_loss_never_means_less_coding() {
        let mut last = 0;
        for percent in 0..40 {
            let rate =
                CodeRate::new(8_000, LossTarget { loss: f64::from(percent) / 100.0, busiest: 0.0 });
            assert!(rate.m >= last);
            last = rate.m;
        }
    }
}
