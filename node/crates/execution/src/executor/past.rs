//! States of blocks that are not in memory any more, made from what history keeps.
//!
//! To make one takes long (it goes through the undo records of all later blocks) and memory (what
//! those blocks changed), so the last [`KEPT`] are kept, one is made at a time, and few readers wait
//! for that. One that is kept holds a read transaction of the store, whose file grows as long: so it
//! is dropped after a while, whether it is asked for or not.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alloy_primitives::B256;

use crate::exec::{BlockHashes, ExecutedBlock, Snapshot, State};
use crate::state::SourceError;

/// States that are kept. One holds what the blocks after it changed: 256 blocks of 4,000 slots take
/// about 100 MB.
pub(super) const KEPT: usize = 2;
/// How long one is kept after it was made.
const LONGEST: Duration = Duration::from_secs(30);
/// Readers at a time.
const READERS: usize = 16;

struct Kept {
    hash: B256,
    snapshot: Arc<Snapshot>,
    made: Instant,
}

/// The states, the last one used at the end.
#[derive(Default)]
pub(super) struct Past {
    kept: Mutex<VecDeque<Kept>>,
    readers: AtomicUsize,
}

/// One of those who read; counted while it lives.
struct Reader<'a>(&'a AtomicUsize);

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Past {
    /// The block with its state, which `make` makes if it is not kept.
    pub(super) fn get(
        &self,
        block: &ExecutedBlock,
        hashes: &BlockHashes,
        make: impl FnOnce() -> Result<Option<State>, SourceError>,
    ) -> Result<Option<Arc<Snapshot>>, SourceError> {
        let others = self.readers.fetch_add(1, Ordering::Relaxed);
        let _reader = Reader(&self.readers);
        if others >= READERS {
            let what =
                format!("the states of old blocks: {others} requests wait for them; try again");
            return Err(SourceError::Unavailable(what));
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        drop_old(&mut kept, Instant::now());
        if let Some(at) = kept.iter().position(|kept| kept.hash == block.hash) {
            let found = kept.remove(at);
            kept.extend(found);
            return Ok(kept.back().map(|kept| Arc::clone(&kept.snapshot)));
        }
        let Some(state) = make()? else { return Ok(None) };
        let hashes = hashes.of(block.header.number, block.header.parent_hash);
        let snapshot = Arc::new(Snapshot { block: block.clone(), state, hashes: Arc::new(hashes) });
        while kept.len() >= KEPT {
            kept.pop_front();
        }
        let made = Instant::now();
        kept.push_back(Kept { hash: block.hash, snapshot: Arc::clone(&snapshot), made });
        Ok(Some(snapshot))
    }

    /// Drops what has been kept long enough by `now`, unless somebody reads.
    pub(super) fn expire(&self, now: Instant) {
        if let Ok(mut kept) = self.kept.try_lock() {
            drop_old(&mut kept, now);
        }
    }
}

fn drop_old(kept: &mut VecDeque<Kept>, now: Instant) {
    kept.retain(|kept| now.saturating_duration_since(kept.made) < LONGEST);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devnet::DevnetConfig;
    use crate::testing::TestChain;

    fn get(past: &Past, block: &Snapshot, made: &mut usize) -> Result<(), SourceError> {
        let make = || {
            *made += 1;
            Ok(Some(block.state.clone()))
        };
        past.get(block, &block.hashes, make).map(|found| assert!(found.is_some()))
    }

    #[test]
    fn a_state_is_kept_for_a_while() {
        let chain = TestChain::new(&DevnetConfig::default());
        let (past, block, mut made) = (Past::default(), &chain.head.snapshot, 0);
        for _ in 0..3 {
            get(&past, block, &mut made).unwrap();
        }
        let weak = Arc::downgrade(&past.kept.lock().unwrap()[0].snapshot);
        let first = past.kept.lock().unwrap()[0].made;
        past.expire(first);
        assert!(weak.upgrade().is_some());
        past.expire(Instant::now() + LONGEST);
        assert!(weak.upgrade().is_none());
        get(&past, block, &mut made).unwrap();
        assert_eq!(made, 2);
    }

    #[test]
    fn few_wait_for_a_state() {
        let chain = TestChain::new(&DevnetConfig::default());
        let (past, block, mut made) = (Past::default(), &chain.head.snapshot, 0);
        past.readers.store(READERS, Ordering::Relaxed);
        for _ in 0..3 {
            let refused = get(&past, block, &mut made).unwrap_err();
            assert!(matches!(refused, SourceError::Unavailable(_)), "{refused}");
        }
        past.readers.store(READERS - 1, Ordering::Relaxed);
        for _ in 0..3 {
            get(&past, block, &mut made).unwrap();
        }
        assert_eq!((made, past.readers.load(Ordering::Relaxed)), (1, READERS - 1));
    }
}
