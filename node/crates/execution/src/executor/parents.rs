//! What a block stands on: the state source's head at the start, and from then on the parent that its
//! Env names.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use alloy_primitives::B256;

use super::service::{RETRY, Service};
use crate::exec::hashes::BlockHashes;
use crate::exec::{Anchor, BlockError, ExecutedBlock, Parent, SealedBlock, Snapshot, State};

/// Layers over the source before the older ones are merged.
const MAX_LAYERS: usize = 64;
/// Blocks between two checks of the trie's size.
const TRIE_CHECK: u64 = 32;

impl Service {
    /// Asks the source for its head until it answers.
    pub(super) fn ask_head(&mut self) {
        if self.latest.is_some() || self.free {
            return;
        }
        if self.asked_head.is_some_and(|at| at.elapsed() < RETRY) {
            return;
        }
        self.asked_head = Some(Instant::now());
        let source = &self.parts.source;
        let anchor = match source.head() {
            Ok(None) => {
                self.free = true;
                self.parts.free.store(true, Ordering::Relaxed);
                return;
            }
            Ok(Some(hash)) => source.at(hash),
            Err(error) => Err(error),
        };
        match anchor {
            Ok(Some(anchor)) => {
                let block = Arc::new(self.block_of(anchor));
                tracing::info!(number = block.number(), hash = %block.hash(), "state at");
                self.parts.view.add(&block);
                self.latest = Some(block);
                self.publish();
            }
            Ok(None) => tracing::warn!("the state source has no state of its own head"),
            Err(error) => tracing::warn!(%error, "the state source does not tell its head"),
        }
    }

    /// A block whose state is known, and of which perhaps only the header is.
    pub(super) fn block_of(&self, anchor: Anchor) -> SealedBlock {
        let history = self.parts.view.block(anchor.hash).ok().flatten();
        let block = history.map_or_else(
            || ExecutedBlock {
                attempt: 0,
                hash: anchor.hash,
                header: anchor.header.clone(),
                frags: Vec::new(),
                withdrawals: None,
            },
            |block| (*block).clone(),
        );
        let source = Arc::clone(&self.parts.source);
        let parents = vec![anchor.header.parent_hash];
        let hashes = BlockHashes::new(anchor.header.number.saturating_sub(1), parents, source);
        let state = State::new(anchor.view);
        SealedBlock {
            snapshot: Arc::new(Snapshot { block, state, hashes: Arc::new(hashes) }),
            layer: Arc::default(),
            parent_trie: None,
            trie: Ok(anchor.trie),
            nodes: anchor.nodes,
        }
    }

    /// The block with this hash as a parent, on the newest base.
    pub(super) fn parent(&self, hash: B256) -> Result<Option<Parent>, BlockError> {
        // A source without a chain of its own has what it has for good: a witness of this very
        // block, where the state after the one before knows only what that block needed.
        if self.free
            && let Some(anchor) = self.parts.source.at(hash)?
        {
            return Ok(Some(anchor.into()));
        }
        let view = &self.parts.view;
        let known = self.latest.clone().filter(|latest| latest.hash() == hash);
        let known = known.or_else(|| view.recent(hash)).or_else(|| {
            let sealed = self.open.values().filter_map(|open| open.complete.as_ref());
            sealed.filter(|block| block.hash() == hash).map(Arc::clone).next()
        });
        let Some(known) = known else {
            return Ok(self.parts.source.at(hash)?.map(Parent::from));
        };
        let mut parent = known.as_parent();
        let base = self.parts.source.base();
        for (base, state) in base.iter().chain(&self.base) {
            if *base == hash {
                parent.state = State::new(Arc::clone(state));
                break;
            }
            let layer = view.recent(*base).map(|block| Arc::clone(&block.layer));
            if let Some(newer) = layer.and_then(|layer| parent.state.rebase(state, &layer)) {
                parent.state = newer;
                break;
            }
        }
        if parent.state.depth() > MAX_LAYERS {
            parent.state = parent.state.compact(MAX_LAYERS / 4);
        }
        if known.number() % TRIE_CHECK == 0
            && let Ok(trie) = &parent.trie
            && trie.held() > self.parts.trie_nodes
        {
            self.parts.source.settle();
            let stored = self.parts.source.base().is_some_and(|(base, _)| base == hash);
            let kept = self.parts.source.keeps_nodes() && view.recent(hash).is_some();
            if stored || kept {
                parent.trie = Ok(trie.forget());
            }
        }
        Ok(Some(parent))
    }
}
