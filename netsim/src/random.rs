//! Random numbers from a seeded stream for each purpose, so that drawing more for one purpose never
//! changes another.
//!
//! The generator is ChaCha8 with keys derived by BLAKE3; `rand_chacha` promises that its values
//! never change. Logarithms come from `libm`, whose last bit is the same on every machine.

use rand::{RngCore, SeedableRng};

/// The generator of one stream.
pub type Stream = rand_chacha::ChaCha8Rng;

/// The stream of `seed` for the purpose `label`, number `index`.
pub fn stream(seed: u64, label: &str, index: u64) -> Stream {
    let mut hasher = blake3::Hasher::new_derive_key("fragcast 2026 netsim stream v1");
    hasher.update(&seed.to_le_bytes()).update(&index.to_le_bytes()).update(label.as_bytes());
    Stream::from_seed(hasher.finalize().into())
}

/// A uniform number in [0, 1), with 53 bits.
pub fn unit(rng: &mut impl RngCore) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// True with probability `p`.
pub fn chance(rng: &mut impl RngCore, p: f64) -> bool {
    p > 0.0 && unit(rng) < p
}

/// A uniform number in 0..n; n must not be 0. Multiply-shift, with a bias of n / 2^64.
pub fn below(rng: &mut impl RngCore, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// A standard normal number (Box–Muller, one of the pair).
pub fn normal(rng: &mut impl RngCore) -> f64 {
    let u = 1.0 - unit(rng);
    let v = unit(rng);
    libm::sqrt(-2.0 * libm::log(u)) * libm::cos(2.0 * std::f64::consts::PI * v)
}

/// An exponential number with mean 1.
pub fn exponential(rng: &mut impl RngCore) -> f64 {
    -libm::log(1.0 - unit(rng))
}

/// An index drawn by weight; `None` if all weights are zero.
pub fn weighted(rng: &mut impl RngCore, weights: &[u64]) -> Option<usize> {
    let total: u128 = weights.iter().map(|w| u128::from(*w)).sum();
    if total == 0 {
        return None;
    }
    // 64 random bits are enough: totals are far below 2^64 lamports.
    let mut point = (u128::from(rng.next_u64()) * total) >> 64;
    for (i, weight) in weights.iter().enumerate() {
        let weight = u128::from(*weight);
        if point < weight {
            return Some(i);
        }
        point -= weight;
    }
    None
}

/// `n` different indices drawn by weight, or all with weight if there are fewer.
pub fn weighted_sample(rng: &mut impl RngCore, weights: &[u64], n: usize) -> Vec<usize> {
    let mut left = weights.to_vec();
    let mut out = Vec::with_capacity(n);
    while out.len() < n
        && let Some(i) = weighted(rng, &left)
    {
        left[i] = 0;
        out.push(i);
    }
    out
}

/// Shuffles in place (Fisher–Yates).
pub fn shuffle<T>(rng: &mut impl RngCore, items: &mut [T]) {
    for i in (1..items.len()).rev() {
        items.swap(i, below(rng, i + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_pinned_and_apart() {
        let first = |label, index| stream(7, label, index).next_u64();
        assert_eq!(first("loss", 0), stream(7, "loss", 0).next_u64());
        assert_ne!(first("loss", 0), first("loss", 1));
        assert_ne!(first("loss", 0), first("jitter", 0));
        assert_eq!(
            first("pinned", 0),
            8_075_000_365_546_358_897,
            "another stream: every digest changes"
        );
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut rng = stream(1, "moments", 0);
        let n = 20_000;
        let mean =
            |draw: &mut dyn FnMut() -> f64| (0..n).map(|_| draw()).sum::<f64>() / f64::from(n);
        assert!((mean(&mut || unit(&mut rng)) - 0.5).abs() < 0.01);
        assert!(mean(&mut || normal(&mut rng)).abs() < 0.03);
        assert!((mean(&mut || normal(&mut rng).powi(2)) - 1.0).abs() < 0.05);
        assert!((mean(&mut || exponential(&mut rng)) - 1.0).abs() < 0.03);
    }

    #[test]
    fn draws_follow_weights_and_never_repeat() {
        let mut rng = stream(1, "weights", 0);
        let weights = [0, 1, 3];
        let twos = (0..10_000).filter(|_| weighted(&mut rng, &weights) == Some(2)).count();
        assert!((7_300..7_700).contains(&twos), "{twos}");
        let mut sample = weighted_sample(&mut rng, &weights, 9);
        sample.sort_unstable();
        assert_eq!(sample, [1, 2]);
        assert_eq!(weighted(&mut rng, &[0, 0]), None);
    }
}
