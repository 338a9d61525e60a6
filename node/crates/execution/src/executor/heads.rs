//! The heads of the chain: how a verified block becomes the head, how blocks are taken back, and what
//! readers see of it.

use std::sync::Arc;

use alloy_primitives::B256;
use fragcast_shredder::delivery::RetractReason;

use super::open::{Key, Open, Stage};
use super::service::Service;
use super::view::{ChainEvent, Heads};
use crate::exec::{SealedBlock, Snapshot, Unverified, Verdict};

impl Service {
    /// A verified block becomes the head, if it continues the chain.
    pub(super) fn verified(&mut self, key: Key) {
        let Some(block) = self.open.get(&key).and_then(|open| open.complete.clone()) else {
            return;
        };
        let parent = block.snapshot.header.parent_hash;
        self.promote_sealed_by_child(parent);
        let continues = self.latest.as_ref().is_none_or(|latest| latest.hash() == parent);
        if !continues && !self.free {
            // Another branch: it stays open, and the execution client decides.
            return;
        }
        self.open.remove(&key);
        self.promote(&block, "superseded");
        self.promote_next();
    }

    /// Promotes a block of which only the Seal was lost: its verified child names the hash that
    /// execution gave, which proves as much.
    pub(super) fn promote_sealed_by_child(&mut self, hash: B256) {
        let head = self.latest.as_ref().map(|latest| latest.hash());
        let lost = self.open.iter().find(|(_, open)| {
            let complete = open.complete.as_ref();
            complete.is_some_and(|block| block.hash() == hash && block.trie.is_ok())
                && open.verdict == Some(Verdict::Unverified(Unverified::Overrun))
                && Some(open.env.parent_hash) == head
        });
        let Some((key, block)) = lost.and_then(|(key, open)| Some((*key, open.complete.clone()?)))
        else {
            return;
        };
        self.open.remove(&key);
        self.promote(&block, "superseded");
    }

    /// Promotes blocks that were verified before their parent was.
    pub(super) fn promote_next(&mut self) {
        while let Some(head) = self.latest.as_ref().map(|latest| latest.hash()) {
            let next = self.open.iter().find(|(_, open)| {
                open.env.parent_hash == head && open.verdict == Some(Verdict::Verified)
            });
            let Some((key, open)) = next else { return };
            let (key, block) = (*key, open.complete.clone());
            self.open.remove(&key);
            let Some(block) = block else { return };
            self.promote(&block, "superseded");
        }
    }

    /// Makes a block, whose parent is the head, the new head. Others at its height are void.
    pub(super) fn promote(&mut self, block: &Arc<SealedBlock>, reason: &'static str) {
        let number = block.number();
        self.parts.view.add(block);
        self.latest = Some(Arc::clone(block));
        self.parts.stats.update(|s| s.verified = Some(number));
        let stale: Vec<Key> = self.open.range(..(number + 1, 0)).map(|(key, _)| *key).collect();
        for key in stale {
            self.drop_block(key, reason);
        }
        self.publish();
        self.parts.view.tell(ChainEvent::Verified(Arc::clone(block)));
        // Last, since it may wait for the disk.
        self.parts.source.persist(block);
    }

    /// Drops an open block and all that stands on it, with an event for each that readers have
    /// seen.
    pub(super) fn drop_block(&mut self, key: Key, reason: &'static str) {
        let mut gone = vec![(key, reason)];
        let mut any = false;
        while let Some((key, reason)) = gone.pop() {
            let Some(open) = self.open.remove(&key) else { continue };
            if let Some(block) = &open.complete {
                let on_it = |open: &Open| {
                    open.env.parent_hash == block.hash() && !matches!(open.stage, Stage::Waiting)
                };
                let children = self.open.iter().filter(|(_, open)| on_it(open));
                gone.extend(children.map(|(key, _)| (*key, "parent_retracted")));
            }
            if let Some(snapshot) = open.snapshot {
                any = true;
                self.parts.stats.update(|s| *s.retractions.entry(reason).or_default() += 1);
                self.parts.view.tell(ChainEvent::Retracted { snapshot, reason });
            }
        }
        if any {
            self.publish();
        }
    }

    /// The sequencer took an attempt back.
    pub(super) fn retracted(&mut self, key: Key, reason: RetractReason) {
        if self.open.contains_key(&key) {
            self.drop_block(key, reason.name());
            return;
        }
        let Ok(Some(hash)) = self.parts.view.hash(key.0) else { return };
        let Some(block) = self.parts.view.recent(hash) else { return };
        let confirmed = self.confirmed.is_some_and(|(number, _)| number >= key.0);
        if block.snapshot.attempt != key.1 || confirmed || key.0 == 0 {
            return;
        }
        let parent = block.snapshot.header.parent_hash;
        if let Err(error) = self.unwind(parent) {
            tracing::error!(block = key.0, %error, "a retracted block could not be taken back");
        }
    }

    /// Publishes a new snapshot, if it stands on the head.
    pub(super) fn show(&mut self, snapshot: &Arc<Snapshot>) {
        self.publish();
        let heads = self.parts.view.heads();
        let is_pending = heads.is_none_or(|heads| {
            heads.pending.as_ref().is_some_and(|pending| Arc::ptr_eq(pending, snapshot))
        });
        if is_pending {
            self.parts.view.tell(ChainEvent::Frag(Arc::clone(snapshot)));
        }
    }

    /// Publishes the heads.
    pub(super) fn publish(&self) {
        let Some(latest) = &self.latest else { return };
        let mut tip = latest.hash();
        let mut open_blocks: Vec<Arc<Snapshot>> = Vec::new();
        // Blocks that stand on one another, up from the head; of several attempts the last.
        loop {
            let next = self
                .open
                .values()
                .rev()
                .find(|open| open.env.parent_hash == tip && open.snapshot.is_some());
            let Some(next) = next else { break };
            open_blocks.extend(next.snapshot.clone());
            match &next.complete {
                Some(block) if block.hash() != tip => tip = block.hash(),
                _ => break,
            }
        }
        self.parts.view.set_heads(Heads {
            latest: Arc::clone(latest),
            pending: open_blocks.last().cloned(),
            open: open_blocks,
            safe: self.safe,
            finalized: self.finalized,
        });
    }
}
