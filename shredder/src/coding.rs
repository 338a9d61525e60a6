//! The erasure code: Reed–Solomon over GF(2⁸), systematic, k data and m coding shards.
//!
//! A thin layer over `reed-solomon-erasure` that keeps its matrices. Building one inverts a
//! k×k matrix, so codes are cached by (k, m), at most [`MAX_CODES`] of them. Each holds its
//! matrix (at most 4 kB) and the crate's own cache of 254 inverted matrices (at most 4 kB
//! each): all together at most 16 MiB, reached only by traffic of 16 different shapes that
//! each lose 254 different patterns.

use std::collections::BTreeMap;
use std::sync::Arc;

use reed_solomon_erasure::galois_8::ReedSolomon;

/// k + m is at most this: a path of 6 nodes.
pub const MAX_SHARDS: usize = 64;

/// How many codes are kept.
pub const MAX_CODES: usize = 16;

/// Why a set could not be encoded or recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    /// k is 0 or k + m exceeds [`MAX_SHARDS`].
    #[error("{k} data and {m} coding shards: 1 to {MAX_SHARDS} in all are possible")]
    Shape {
        /// Data shards.
        k: usize,
        /// Coding shards.
        m: usize,
    },
    /// Fewer than k shards are present, or they differ in length.
    #[error("too few shards, or of unequal length")]
    Shards,
}

/// Codes by shape.
#[derive(Default)]
pub struct Codes(BTreeMap<(u8, u8), Arc<ReedSolomon>>);

impl std::fmt::Debug for Codes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Codes {
    fn get(&mut self, k: usize, m: usize) -> Result<Arc<ReedSolomon>, CodingError> {
        if k == 0 || m == 0 || k + m > MAX_SHARDS {
            return Err(CodingError::Shape { k, m });
        }
        let key = (k as u8, m as u8);
        if let Some(code) = self.0.get(&key) {
            return Ok(code.clone());
        }
        if self.0.len() >= MAX_CODES {
            self.0.pop_first();
        }
        let code = Arc::new(ReedSolomon::new(k, m).map_err(|_| CodingError::Shape { k, m })?);
        self.0.insert(key, code.clone());
        Ok(code)
    }

    /// Computes the coding shards from the data shards.
    ///
    /// # Errors
    /// [`CodingError`].
    pub fn encode(&mut self, data: &[&[u8]], coding: &mut [&mut [u8]]) -> Result<(), CodingError> {
        if coding.is_empty() && (1..=MAX_SHARDS).contains(&data.len()) {
            return Ok(());
        }
        let code = self.get(data.len(), coding.len())?;
        code.encode_sep(data, coding).map_err(|_| CodingError::Shards)
    }

    /// Fills in all shards that are not present, data and coding alike.
    ///
    /// # Errors
    /// [`CodingError::Shards`] if fewer than k are present; nothing is touched then.
    pub fn recover(
        &mut self,
        k: usize,
        shards: &mut [&mut [u8]],
        present: u64,
    ) -> Result<(), CodingError> {
        let m = shards.len().saturating_sub(k);
        if m == 0 {
            return Err(CodingError::Shards);
        }
        let code = self.get(k, m)?;
        let mut marked: Vec<(&mut [u8], bool)> = shards
            .iter_mut()
            .enumerate()
            .map(|(i, shard)| (&mut **shard, present >> i & 1 == 1))
            .collect();
        code.reconstruct(&mut marked).map_err(|_| CodingError::Shards)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_k_of_n_recover_the_set(
            k in 1usize..=32,
            m in 1usize..=32,
            len in 1usize..64,
            seed in any::<u64>(),
        ) {
            let n = k + m;
            let mut shards: Vec<Vec<u8>> =
                (0..n).map(|i| (0..len).map(|j| (seed as usize ^ (i * 31 + j * 17)) as u8).collect()).collect();
            let mut codes = Codes::default();
            let (data, coding) = shards.split_at_mut(k);
            let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
            let mut coding: Vec<&mut [u8]> = coding.iter_mut().map(Vec::as_mut_slice).collect();
            codes.encode(&data, &mut coding).unwrap();

            // A choice of k shards that depends on the seed alone.
            let mut order: Vec<usize> = (0..n).collect();
            let mut state = seed | 1;
            for i in (1..n).rev() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                order.swap(i, (state >> 33) as usize % (i + 1));
            }
            let kept = order[..k].iter().fold(0u64, |bits, i| bits | 1 << i);
            let mut damaged: Vec<Vec<u8>> = shards
                .iter()
                .enumerate()
                .map(|(i, s)| if kept >> i & 1 == 1 { s.clone() } else { vec![0xee; len] })
                .collect();
            let mut refs: Vec<&mut [u8]> = damaged.iter_mut().map(Vec::as_mut_slice).collect();
            codes.recover(k, &mut refs, kept).unwrap();
            prop_assert_eq!(&damaged, &shards);

            // One fewer is not enough.
            let mut refs: Vec<&mut [u8]> = damaged.iter_mut().map(Vec::as_mut_slice).collect();
            let fewer = kept & (kept - 1);
            prop_assert_eq!(codes.recover(k, &mut refs, fewer), Err(CodingError::Shards));
        }
    }

    #[test]
    fn impossible_shapes_are_errors() {
        let mut codes = Codes::default();
        let shard = [0u8; 4];
        let data = [&shard[..]; 40];
        let (mut a, mut b) = (vec![[0u8; 4]; 25], [0u8; 4]);
        let mut coding: Vec<&mut [u8]> = a.iter_mut().map(|s| &mut s[..]).collect();
        assert_eq!(codes.encode(&data, &mut coding), Err(CodingError::Shape { k: 40, m: 25 }));
        assert_eq!(codes.encode(&[], &mut [&mut b]), Err(CodingError::Shape { k: 0, m: 1 }));
    }

    #[test]
    fn the_cache_of_codes_is_bounded() {
        let mut codes = Codes::default();
        for k in 1..40 {
            codes.get(k, 3).unwrap();
        }
        assert_eq!(codes.0.len(), MAX_CODES);
    }
}
