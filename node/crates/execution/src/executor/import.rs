//! Follows an execution client, whose canonical chain decides.
//!
//! A block that is executed here already is taken as it is. One that never came as frags is
//! executed and imported. One that differs first unwinds our chain to the fork, newest block first,
//! with an event for every retraction.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::B256;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::queue::FollowError;
use super::service::Service;
use super::view::ChainEvent;
use crate::exec::{
    Allowance, BlockError, ExecutedBlock, OnInvalid, OpenBlock, SealedBlock, Snapshot, State, Tx,
    env_of,
};
use crate::follow::{ClientBlock, ClientHeads, Follow};
use crate::state::SourceError;

/// The most blocks that are executed again from block 0 on after a fork deeper than the undo
/// records, which is as far as the follower walks back. Beyond that the operator has to decide.
const MAX_REPLAY: u64 = 8_192;

impl Service {
    /// Starts anew at a block of the client, if the state source can: everything known here is
    /// contradicted.
    pub(super) fn start_at(&mut self, hash: B256) {
        let anchor = match self.parts.source.at(hash) {
            Ok(Some(anchor)) => anchor,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "cannot start anew at the execution client's head");
                return;
            }
        };
        let view = Arc::clone(&self.parts.view);
        let keys: Vec<_> = self.open.keys().copied().collect();
        for key in keys {
            self.drop_block(key, "contradicted");
        }
        while let Some(latest) = self.latest.take() {
            let block = latest.snapshot.block.clone();
            view.remove(block.hash, block.header.number);
            self.latest = view.recent(block.header.parent_hash);
            view.tell(ChainEvent::Unwound(Arc::new(block)));
        }
        (self.base, self.confirmed) = (None, None);
        let block = Arc::new(self.block_of(anchor));
        tracing::warn!(number = block.number(), hash = %block.hash(), "started anew");
        view.add(&block);
        self.latest = Some(block);
        self.publish();
    }

    /// Takes a step along the client's chain.
    pub(super) fn follow(&mut self, follow: &Follow) -> Result<(), FollowError> {
        let view = Arc::clone(&self.parts.view);
        let mut blocks = follow.blocks.as_slice();
        // Some of it may have come as frags meanwhile.
        while let Some((first, rest)) = blocks.split_first() {
            if view.hash(first.header.number)? != Some(first.hash) {
                break;
            }
            blocks = rest;
        }
        if let Some(first) = blocks.first() {
            let parent = first.header.parent_hash;
            if first.header.number == 0 || view.hash(first.header.number - 1)? != Some(parent) {
                return Err(FollowError::Fork(follow.fork));
            }
            self.unwind(parent)?;
            if self.latest.as_ref().is_some_and(|latest| latest.hash() != parent) {
                return Err(FollowError::Fork(follow.fork));
            }
            for block in blocks {
                if self.is_ending() {
                    return Err(FollowError::Ended);
                }
                self.import(block)?;
            }
        }
        self.take_heads(&follow.heads)
    }

    fn take_heads(&mut self, heads: &ClientHeads) -> Result<(), FollowError> {
        let (number, hash) = heads.latest;
        if self.parts.view.hash(number)? == Some(hash) {
            let newer = self.confirmed.is_none_or(|(_, confirmed)| confirmed != hash);
            self.confirmed = Some(heads.latest);
            // A source that is the client itself can now be read at this block.
            if newer
                && self.parts.source.base().is_none()
                && let Some(anchor) = self.parts.source.at(hash)?
            {
                self.base = Some((hash, anchor.view));
            }
        }
        (self.safe, self.finalized) = (heads.safe, heads.finalized);
        self.publish();
        Ok(())
    }

    /// Takes blocks back, newest first, until `to` is the head. If the source's undo records do not
    /// reach that far, goes back to block 0, from where everything can be executed again.
    pub(super) fn unwind(&mut self, to: B256) -> Result<(), FollowError> {
        let view = Arc::clone(&self.parts.view);
        let Some(latest) = self.latest.clone() else { return Ok(()) };
        if latest.hash() == to {
            return Ok(());
        }
        // The way back has to be known before the first step is taken.
        let newest = Arc::new(latest.snapshot.block.clone());
        let mut gone = self.way_back(newest, to)?;
        let mut to = to;
        match self.parts.source.unwind(to) {
            Ok(()) => {}
            Err(error @ SourceError::Missing(_)) => {
                let fork = view.block(to)?.ok_or(error.clone())?;
                // A fork point that is not ours, or too long a way to execute again.
                let ours = view.hash(fork.header.number)? == Some(to);
                if !ours || fork.header.number > MAX_REPLAY {
                    return Err(error.into());
                }
                to = view.hash(0)?.ok_or(error)?;
                gone.extend(self.way_back(fork, to)?);
                tracing::warn!("the fork is deeper than the undo records: back to block 0");
                self.parts.source.unwind(to)?;
            }
            Err(error) => return Err(error.into()),
        }
        for block in gone {
            let number = block.header.number;
            // What stands on it; other branches, and what waits for a parent, stay.
            let on_it = self
                .open
                .iter()
                .filter(|(_, open)| open.env.parent_hash == block.hash && !open.is_waiting());
            let keys: Vec<_> = on_it.map(|(key, _)| *key).collect();
            for key in keys {
                self.drop_block(key, "contradicted");
            }
            view.remove(block.hash, number);
            self.parts.stats.update(|s| *s.retractions.entry("unwound").or_default() += 1);
            view.tell(ChainEvent::Unwound(block));
        }
        self.base = None;
        self.confirmed = self.confirmed.filter(|(_, hash)| view.recent(*hash).is_some());
        let latest = match view.recent(to) {
            Some(block) => block,
            None => {
                let anchor = self.parts.source.at(to)?.ok_or(FollowError::Fork(to))?;
                let block = Arc::new(self.block_of(anchor));
                view.add(&block);
                block
            }
        };
        let number = latest.number();
        self.latest = Some(latest);
        self.parts.stats.update(|s| s.verified = Some(number));
        self.publish();
        Ok(())
    }

    /// The blocks from `newest` back to the one after `to`.
    fn way_back(
        &self,
        newest: Arc<ExecutedBlock>,
        to: B256,
    ) -> Result<Vec<Arc<ExecutedBlock>>, FollowError> {
        let view = &self.parts.view;
        let mut gone = Vec::new();
        let mut at = newest;
        while at.hash != to {
            let parent = at.header.parent_hash;
            gone.push(at);
            if parent == to {
                break;
            }
            let recent = view.recent(parent).map(|b| Arc::new(b.snapshot.block.clone()));
            let block = recent.map_or_else(|| view.block(parent), |block| Ok(Some(block)))?;
            at = block.ok_or(FollowError::Fork(to))?;
        }
        Ok(gone)
    }

    fn import(&mut self, block: &ClientBlock) -> Result<(), FollowError> {
        let error = |reason: String| FollowError::Block {
            number: block.header.number,
            hash: block.hash,
            reason,
        };
        let known = self.open.iter().find_map(|(key, open)| {
            let complete = open.complete.as_ref().filter(|b| b.hash() == block.hash)?;
            Some((*key, Arc::clone(complete)))
        });
        let sealed = match known {
            Some((key, sealed)) => {
                self.open.remove(&key);
                sealed
            }
            None => Arc::new(self.execute(block).map_err(|e| error(e.to_string()))?),
        };
        let sealed = match &sealed.trie {
            Ok(_) if sealed.hash() == block.hash => sealed,
            Ok(_) => {
                let ours = sealed.snapshot.header.clone();
                return Err(error(format!(
                    "executing it gives {}: {}",
                    sealed.hash(),
                    differences(&ours, &block.header)
                )));
            }
            // What a missing node left open, the client confirms by having the block.
            Err(why) => match self.parts.source.at(block.hash)? {
                Some(anchor) => {
                    let executed = ExecutedBlock {
                        hash: block.hash,
                        header: block.header.clone(),
                        ..sealed.snapshot.block.clone()
                    };
                    let snapshot = Snapshot {
                        block: executed,
                        state: State::new(anchor.view),
                        hashes: Arc::clone(&sealed.snapshot.hashes),
                    };
                    Arc::new(SealedBlock {
                        snapshot: Arc::new(snapshot),
                        layer: Arc::clone(&sealed.layer),
                        parent_trie: None,
                        trie: Ok(anchor.trie),
                        nodes: anchor.nodes,
                    })
                }
                None => return Err(error(why.to_string())),
            },
        };
        self.parts.stats.update(|s| s.imported += 1);
        let (number, hash) = (sealed.number(), sealed.hash());
        tracing::info!(block = number, %hash, "imported from the execution client");
        self.promote(&sealed, "contradicted");
        // Blocks that came as frags may stand on it.
        let waiting: Vec<_> = self.open.keys().copied().collect();
        for key in waiting {
            self.advance(key);
        }
        self.promote_next();
        Ok(())
    }

    fn execute(&self, block: &ClientBlock) -> Result<SealedBlock, BlockError> {
        let parent = self.parent(block.header.parent_hash)?;
        let parent = parent.ok_or(crate::exec::Unverified::Parent(block.header.parent_hash))?;
        let (spec, source) = (&self.parts.spec, &self.parts.source);
        let withdrawals = block.withdrawals.clone();
        let mut open =
            OpenBlock::open(spec, &env_of(&block.header), 0, parent, source, withdrawals)?;
        let op = spec.is_op();
        let txs = block.txs.par_iter().map(|tx| Tx::decode(tx, op)).collect();
        // The client has executed it; only the node's end stops it here.
        open.allow(Allowance::new(None, Arc::clone(&self.parts.ending)));
        open.execute(txs, true, OnInvalid::Fail)?;
        open.finish()?;
        open.sealed().ok_or_else(|| crate::exec::Unverified::Internal("no header".into()).into())
    }
}

/// The fields in which two headers differ, as text.
fn differences(ours: &Header, theirs: &Header) -> String {
    let mut all = Vec::new();
    let mut note = |name: &str, ours: String, theirs: String| {
        if ours != theirs {
            all.push(format!("{name} {ours} here, {theirs} there"));
        }
    };
    note("state root", ours.state_root.to_string(), theirs.state_root.to_string());
    note("receipts root", ours.receipts_root.to_string(), theirs.receipts_root.to_string());
    note("gas used", ours.gas_used.to_string(), theirs.gas_used.to_string());
    if all.is_empty() { "another field of the header".into() } else { all.join("; ") }
}
