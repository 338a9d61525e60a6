//! Draws weights like those of real validator sets, for worlds that need no file.
//!
//! The distribution is lognormal with σ = 1.6, because the mean weight of Solana's 959 validators
//! in epoch 860 is 3.5 times the median (σ² = 2 ln 3.5). Their ten largest hold 22.8 % and their
//! largest third 88.0 %; in this distribution ten of 959 hold 22 % on average (17 to 34 % in nine
//! of ten seeds) and a third 88 %. A Pareto tail fits the largest few no better, and lacks the many
//! validators with very little; with equal shares, drawing by weight would have no effect.

use crate::random;

/// Standard deviation of the logarithm.
const SIGMA: f64 = 1.6;
/// The median weight.
const MEDIAN: f64 = 100_000.0;

/// `n` weights, each at least 1.
pub(super) fn heavy_tailed(n: usize, seed: u64) -> Vec<u64> {
    let mut rng = random::stream(seed, "world weights", 0);
    let draw = |_| ((MEDIAN * libm::exp(SIGMA * random::normal(&mut rng))).round() as u64).max(1);
    (0..n).map(draw).collect()
}

/// The share of all weight that the `count` largest weights hold.
pub(super) fn share_of_largest(weights: &[u64], count: usize) -> f64 {
    let mut sorted = weights.to_vec();
    sorted.sort_unstable_by_key(|weight| std::cmp::Reverse(*weight));
    let sum = |weights: &[u64]| weights.iter().map(|w| u128::from(*w)).sum::<u128>() as f64;
    sum(&sorted[..count.min(sorted.len())]) / sum(&sorted).max(1.0)
}

#[cfg(test)]
mod tests {
    use fragcast_shredder::testing::data;

    use super::*;

    #[test]
    fn shares_of_the_largest() {
        assert_eq!(share_of_largest(&[1, 5, 2, 2], 1), 0.5);
        assert_eq!(share_of_largest(&[1, 5, 2, 2], 9), 1.0);
        assert_eq!(share_of_largest(&[0, 0], 1), 0.0);
    }

    /// The shares that the ten largest of 959 and their largest third hold, as means over seeds.
    fn drawn() -> (f64, f64) {
        let draws = 60;
        let mean = |count| {
            let share = |seed| share_of_largest(&heavy_tailed(959, seed), count);
            (0..draws).map(share).sum::<f64>() / draws as f64
        };
        (mean(10), mean(959 / 3))
    }

    #[test]
    fn weights_are_as_unequal_as_promised() {
        let (ten, third) = drawn();
        assert!((ten - 0.224).abs() < 0.015, "{ten}");
        assert!((third - 0.877).abs() < 0.006, "{third}");
        assert!(heavy_tailed(10_000, 3).iter().all(|weight| *weight > 0));
    }

    #[test]
    fn they_resemble_the_validators_of_solana() {
        let Some(path) = data("topology/solana-epoch860.csv") else { return };
        let text = std::fs::read_to_string(path).unwrap();
        let (nodes, _) = super::super::csv::parse(&text, "csv").unwrap();
        let weights: Vec<u64> = nodes.iter().map(|node| node.weight).collect();
        let real = (share_of_largest(&weights, 10), share_of_largest(&weights, 959 / 3));
        assert_eq!(((real.0 * 1e3).round(), (real.1 * 1e3).round()), (228.0, 880.0));
        let (ten, third) = drawn();
        assert!((ten - real.0).abs() < 0.03 && (third - real.1).abs() < 0.02, "{ten} {third}");
    }
}
