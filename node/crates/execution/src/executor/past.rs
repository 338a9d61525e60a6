//! States of blocks that are not in memory any more, made from what history keeps.
//!
//! To make one takes long (it goes through the undo records of all later blocks) and memory (what
//! those blocks changed), so the last [`KEPT`] are kept, and one is made at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use alloy_primitives::B256;

use crate::exec::{BlockHashes, ExecutedBlock, Snapshot, State};
use crate::state::SourceError;

/// States that are kept. One holds what the blocks after it changed: 256 blocks of 4,000 slots take
/// about 100 MB.
pub(super) const KEPT: usize = 2;

/// The states, the last one used at the end.
#[derive(Default)]
pub(super) struct Past(Mutex<VecDeque<(B256, Arc<Snapshot>)>>);

impl Past {
    /// The block with its state, which `make` makes if it is not kept.
    pub(super) fn get(
        &self,
        block: &ExecutedBlock,
        hashes: &BlockHashes,
        make: impl FnOnce() -> Result<Option<State>, SourceError>,
    ) -> Result<Option<Arc<Snapshot>>, SourceError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|(hash, _)| *hash == block.hash) {
            let found = kept.remove(at);
            kept.extend(found);
            return Ok(kept.back().map(|(_, snapshot)| Arc::clone(snapshot)));
        }
        let Some(state) = make()? else { return Ok(None) };
        let hashes = hashes.of(block.header.number, block.header.parent_hash);
        let snapshot = Arc::new(Snapshot { block: block.clone(), state, hashes: Arc::new(hashes) });
        while kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((block.hash, Arc::clone(&snapshot)));
        Ok(Some(snapshot))
    }
}
