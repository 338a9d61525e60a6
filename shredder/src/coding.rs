//! The erasure code: Reed–Solomon over GF(2⁸), systematic, k data and m coding shards.
//!
//! The codes and the arithmetic over whole shards come from `reed-solomon-erasure`. Recovery is
//! implemented here: the library inverts a k×k matrix for every new pattern of losses, which with
//! 32 data shards takes three times as long as recovering the shards. With e data shards missing it
//! is enough to solve an e×e system, whose right side is e coding shards minus the contribution of
//! the data that is present.
//!
//! Building a code takes longer than using it, so up to [`MAX_CODES`] codes are cached by (k, m).
//! Each takes 8 kB.

use std::collections::BTreeMap;
use std::sync::Arc;

use reed_solomon_erasure::galois_8::{self, ReedSolomon};

/// The largest k + m, for which a Merkle path has 6 nodes.
pub const MAX_SHARDS: usize = 64;

/// Number of codes that are cached.
pub const MAX_CODES: usize = 16;

/// Why a set could not be encoded or recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
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

/// A code and the coefficients of its coding shards: coding i = Σ rows[i][j] · data j.
struct Code {
    library: ReedSolomon,
    rows: Vec<Vec<u8>>,
}

impl Code {
    fn new(k: usize, m: usize) -> Option<Self> {
        let library = ReedSolomon::new(k, m).ok()?;
        // The library does not publish its matrix; encoding the unit vectors yields it.
        let mut units: Vec<Vec<u8>> = vec![vec![0; k]; k];
        (0..k).for_each(|i| units[i][i] = 1);
        let mut rows = vec![vec![0; k]; m];
        library.encode_sep(&units, &mut rows).ok()?;
        Some(Self { library, rows })
    }
}

/// A cache of codes by k and m.
#[derive(Default)]
pub struct Codes(BTreeMap<(u8, u8), Arc<Code>>);

impl std::fmt::Debug for Codes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Codes {
    fn get(&mut self, k: usize, m: usize) -> Result<Arc<Code>, CodingError> {
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
        let code = Arc::new(Code::new(k, m).ok_or(CodingError::Shape { k, m })?);
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
        code.library.encode_sep(data, coding).map_err(|_| CodingError::Shards)
    }

    /// Computes all shards that are not `present`, data and coding. Bit i of `present` stands for
    /// shard i.
    ///
    /// # Errors
    /// [`CodingError::Shards`] if fewer than k are present; the shards are unchanged then.
    pub fn recover(
        &mut self,
        k: usize,
        shards: &mut [&mut [u8]],
        present: u64,
    ) -> Result<(), CodingError> {
        let m = shards.len().saturating_sub(k);
        let unequal = shards.windows(2).any(|pair| pair[0].len() != pair[1].len());
        if m == 0 || unequal || shards[0].is_empty() {
            return Err(CodingError::Shards);
        }
        let code = self.get(k, m)?;
        let (data, coding) = shards.split_at_mut(k);
        let is_present = |i: usize| present >> i & 1 == 1;
        let missing: Vec<usize> = (0..k).filter(|i| !is_present(*i)).collect();
        let used: Vec<usize> = (0..m).filter(|i| is_present(k + i)).take(missing.len()).collect();
        if used.len() < missing.len() {
            return Err(CodingError::Shards);
        }
        let system = used.iter().map(|r| missing.iter().map(|c| code.rows[*r][*c]).collect());
        // Any square part of the coding rows is regular, or the code would not be MDS.
        let inverse = invert(system.collect()).ok_or(CodingError::Shards)?;
        let rests: Vec<Vec<u8>> = used
            .iter()
            .map(|r| {
                let mut rest = coding[*r].to_vec();
                for j in (0..k).filter(|j| is_present(*j)) {
                    galois_8::mul_slice_xor(code.rows[*r][j], data[j], &mut rest);
                }
                rest
            })
            .collect();
        for (row, c) in inverse.iter().zip(&missing) {
            combine(row, &rests, data[*c]);
        }
        for i in (0..m).filter(|i| !is_present(k + i)) {
            combine(&code.rows[i], data, coding[i]);
        }
        Ok(())
    }
}

/// out = Σ factors[j] · inputs[j]; there is at least one.
fn combine(factors: &[u8], inputs: &[impl AsRef<[u8]>], out: &mut [u8]) {
    for (j, (factor, input)) in factors.iter().zip(inputs).enumerate() {
        if j == 0 {
            galois_8::mul_slice(*factor, input.as_ref(), out);
        } else {
            galois_8::mul_slice_xor(*factor, input.as_ref(), out);
        }
    }
}

/// Inverts a square matrix over GF(2⁸) by Gauss–Jordan elimination; `None` if it is singular.
fn invert(mut matrix: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let n = matrix.len();
    for (i, row) in matrix.iter_mut().enumerate() {
        row.resize(2 * n, 0);
        row[n + i] = 1;
    }
    for column in 0..n {
        let pivot = (column..n).find(|row| matrix[*row][column] != 0)?;
        matrix.swap(column, pivot);
        let factor = galois_8::div(1, matrix[column][column]);
        let scaled: Vec<u8> =
            matrix[column].iter().map(|value| galois_8::mul(*value, factor)).collect();
        matrix[column].copy_from_slice(&scaled);
        for (i, row) in matrix.iter_mut().enumerate() {
            let factor = row[column];
            if i != column && factor != 0 {
                galois_8::mul_slice_xor(factor, &scaled, row);
            }
        }
    }
    matrix.iter_mut().for_each(|row| drop(row.drain(..n)));
    Some(matrix)
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

            // A choice of k shards that depends only on the seed.
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

            // k − 1 shards are not enough.
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
