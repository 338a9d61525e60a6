//! BLOCKHASH: the 256 ancestors of a block by number, from verified headers alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy_primitives::B256;

use super::source::StateSource;
use crate::state::SourceError;

/// How far back BLOCKHASH sees.
const DEPTH: u64 = 256;

/// Hashes of the ancestors of one block; missing ones are found by walking headers back.
pub struct BlockHashes {
    /// Hashes from the parent backwards: `known[i]` is block `parent - i`.
    known: Mutex<Vec<B256>>,
    parent: u64,
    source: Arc<dyn StateSource>,
}

impl BlockHashes {
    /// `known` starts with the hash of block number `parent` and goes back without a gap.
    pub fn new(parent: u64, mut known: Vec<B256>, source: Arc<dyn StateSource>) -> Self {
        known.truncate(DEPTH as usize);
        Self { known: Mutex::new(known), parent, source }
    }

    /// The hashes that a block of this number, with that parent, sees.
    pub fn of(&self, number: u64, parent_hash: B256) -> Self {
        Self::new(number.saturating_sub(1), vec![parent_hash], Arc::clone(&self.source))
    }

    /// The hash of block `number`; zero if it is out of reach (revm never asks for one).
    ///
    /// # Errors
    /// [`SourceError::Missing`] if a header on the way is not known: a hash is never guessed.
    pub fn get(&self, number: u64) -> Result<B256, SourceError> {
        let Some(back) = self.parent.checked_sub(number) else { return Ok(B256::ZERO) };
        if back >= DEPTH {
            return Ok(B256::ZERO);
        }
        // Walked without the lock: a source may be slow, and the executor needs the lock.
        let mut known = self.lock().clone();
        while known.len() <= back as usize {
            let last = *known.last().ok_or_else(|| SourceError::Missing("a parent".into()))?;
            let header = self.source.header(last)?.ok_or_else(|| {
                SourceError::Missing(format!("the header of block {last}, which BLOCKHASH needs"))
            })?;
            known.push(header.parent_hash);
        }
        let hash = known[back as usize];
        let mut shared = self.lock();
        if shared.len() < known.len() {
            *shared = known;
        }
        Ok(hash)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<B256>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The known hashes for a child of this block.
    pub fn child(&self, hash: B256) -> Vec<B256> {
        let known = self.lock();
        let mut all = Vec::with_capacity(known.len() + 1);
        all.push(hash);
        all.extend(known.iter().copied());
        all
    }
}
