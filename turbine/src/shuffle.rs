//! Weighted shuffle without replacement, the same on every machine.
//!
//! Integers only: the well-known method of exponential keys needs a logarithm, whose last bit
//! depends on the platform, and nodes that disagree in one bit draw different trees. The
//! weights stand in a Fenwick tree; drawing takes O(log n), and a caller that needs only the
//! first few of a long shuffle stops there.

/// Weights in a Fenwick tree: 16 bytes each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightTree {
    /// One-based partial sums.
    sums: Vec<u64>,
    weights: Vec<u64>,
    total: u64,
}

impl WeightTree {
    /// Weights of any size; if their sum exceeds 2^62 all are halved until it does not, and
    /// none that was positive becomes zero.
    pub fn new(weights: &[u64]) -> Self {
        let sum: u128 = weights.iter().map(|w| u128::from(*w)).sum();
        let shift = (128 - sum.leading_zeros()).saturating_sub(62);
        let weights: Vec<u64> =
            weights.iter().map(|&w| if w == 0 { 0 } else { (w >> shift).max(1) }).collect();
        let mut sums = vec![0; weights.len() + 1];
        for (i, weight) in weights.iter().enumerate() {
            let at = i + 1;
            sums[at] += weight;
            let parent = at + (at & at.wrapping_neg());
            if parent < sums.len() {
                sums[parent] += sums[at];
            }
        }
        let total = weights.iter().sum();
        Self { sums, weights, total }
    }

    /// The weights as they count here.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.weights.iter().copied()
    }

    fn remove(&mut self, index: usize) {
        let weight = std::mem::take(&mut self.weights[index]);
        self.total -= weight;
        let mut at = index + 1;
        while at < self.sums.len() {
            self.sums[at] -= weight;
            at += at & at.wrapping_neg();
        }
    }

    /// The index whose span of the running sum holds `point`, which is below the total.
    fn find(&self, mut point: u64) -> usize {
        let mut at = 0;
        let mut step = self.sums.len().next_power_of_two();
        while step > 0 {
            let next = at + step;
            if next < self.sums.len() && self.sums[next] <= point {
                point -= self.sums[next];
                at = next;
            }
            step >>= 1;
        }
        at
    }
}

/// Draws indices by weight, each once, until none with weight is left.
#[derive(Debug)]
pub struct Shuffle {
    tree: WeightTree,
    stream: Stream,
}

impl Shuffle {
    /// A shuffle of `tree` by `seed`, with `without` taken out beforehand.
    pub fn new(tree: &WeightTree, seed: &[u8; 32], without: Option<usize>) -> Self {
        let mut tree = tree.clone();
        if let Some(index) = without {
            tree.remove(index);
        }
        Self { tree, stream: Stream::new(seed) }
    }
}

impl Iterator for Shuffle {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.tree.total == 0 {
            return None;
        }
        let index = self.tree.find(self.stream.below(self.tree.total));
        self.tree.remove(index);
        Some(index)
    }
}

/// BLAKE3's extendable output as a stream of numbers.
pub(crate) struct Stream {
    reader: blake3::OutputReader,
    block: [u8; 256],
    used: usize,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl Stream {
    fn new(seed: &[u8; 32]) -> Self {
        Self::of(seed, &[])
    }

    /// The stream of `seed` for one of several purposes.
    pub(crate) fn of(seed: &[u8; 32], purpose: &[u8]) -> Self {
        let reader = blake3::Hasher::new_keyed(seed).update(purpose).finalize_xof();
        Self { reader, block: [0; 256], used: 256 }
    }

    /// A number below `total`, which is at least 1.
    ///
    /// Multiply-shift maps 64 random bits onto the total. Its bias is at most one part in
    /// 2^64 / total, and costs no loop whose length depends on the numbers drawn.
    pub(crate) fn below(&mut self, total: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(total)) >> 64) as u64
    }

    fn next(&mut self) -> u64 {
        if self.used == self.block.len() {
            self.reader.fill(&mut self.block);
            self.used = 0;
        }
        let bytes = self.block[self.used..self.used + 8].try_into().expect("eight bytes");
        self.used += 8;
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shuffle(weights: &[u64], seed: u8) -> Vec<usize> {
        Shuffle::new(&WeightTree::new(weights), &[seed; 32], None).collect()
    }

    #[test]
    fn the_order_is_pinned() {
        let weights: Vec<u64> = (0..20).map(|i| i * i).collect();
        assert_eq!(
            shuffle(&weights, 1),
            [17, 10, 14, 5, 8, 7, 16, 19, 18, 9, 15, 13, 3, 12, 11, 6, 4, 1, 2]
        );
    }

    #[test]
    fn first_draws_follow_the_weights() {
        let weights = [1u64, 2, 3, 4, 0, 10];
        let mut count = [0u32; 6];
        for round in 0..20_000u64 {
            let seed = blake3::derive_key("test", &round.to_le_bytes());
            let first = Shuffle::new(&WeightTree::new(&weights), &seed, None).next().unwrap();
            count[first] += 1;
        }
        for (weight, count) in weights.iter().zip(count) {
            let expected = *weight as f64 * 1000.0;
            assert!((f64::from(count) - expected).abs() < 5.0 * expected.sqrt() + 1.0, "{count}");
        }
    }

    proptest! {
        #[test]
        fn every_weighted_index_comes_once(
            weights in proptest::collection::vec(prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0u64..10], 0..300),
            seed: u8,
        ) {
            let mut order = shuffle(&weights, seed);
            order.sort_unstable();
            let expected: Vec<usize> =
                (0..weights.len()).filter(|i| weights[*i] > 0).collect();
            prop_assert_eq!(order, expected);
        }
    }
}
