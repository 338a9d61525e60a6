//! Applies the changes of a block to the trie, frag by frag.
//!
//! Inserts are applied as frags come. Deletions wait until the block is complete and are applied
//! after all inserts, in order of their keys: a deletion can collapse a branch onto a sibling that
//! the source cannot provide (a proof holds the path of a key, not its siblings), and a key that is
//! set again within the block needs no deletion at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alloy_primitives::{B256, keccak256};

use super::overlay::Layer;
use crate::state::SourceError;
use crate::trie::{StateTrie, TrieNodes};

/// A trie that is being built.
#[derive(Clone)]
pub(super) struct TrieBuild {
    trie: StateTrie,
    nodes: Arc<dyn TrieNodes>,
    /// Accounts to remove.
    accounts: BTreeSet<B256>,
    /// Slots to remove.
    slots: BTreeMap<B256, BTreeSet<B256>>,
}

impl TrieBuild {
    pub(super) fn new(trie: StateTrie, nodes: Arc<dyn TrieNodes>) -> Self {
        Self { trie, nodes, accounts: BTreeSet::new(), slots: BTreeMap::new() }
    }

    /// Inserts the values that a layer sets, and remembers its deletions.
    pub(super) fn apply(&mut self, layer: &Layer) -> Result<(), SourceError> {
        let nodes = &*self.nodes;
        for (address, account) in &layer.accounts {
            let key = keccak256(address);
            let change = layer.storage.get(address);
            if change.is_some_and(|change| change.wiped) {
                self.slots.remove(&key);
                self.trie.wipe_storage(key, nodes)?;
            }
            let Some(account) = account else {
                self.slots.remove(&key);
                self.accounts.insert(key);
                continue;
            };
            self.accounts.remove(&key);
            self.trie.set_account(key, account, nodes)?;
            for (slot, value) in change.iter().flat_map(|change| &change.slots) {
                let slot = keccak256(slot.to_be_bytes::<32>());
                let waiting = self.slots.entry(key).or_default();
                if value.is_zero() {
                    waiting.insert(slot);
                } else {
                    waiting.remove(&slot);
                    self.trie.set_slot(key, slot, *value, nodes)?;
                }
            }
        }
        Ok(())
    }

    /// Hashes the changes so far, so that less is left for the end.
    pub(super) fn hash(&self) {
        self.trie.root();
    }

    /// The storage root of an account, without the deletions that wait.
    pub(super) fn storage_root(&self, address: B256) -> Result<Option<B256>, SourceError> {
        self.trie.storage_root(address, &*self.nodes)
    }

    /// Applies the deletions; the trie after the block.
    pub(super) fn finish(mut self) -> Result<StateTrie, SourceError> {
        let nodes = &*self.nodes;
        for (address, slots) in &self.slots {
            for slot in slots {
                self.trie.remove_slot(*address, *slot, nodes)?;
            }
        }
        for address in &self.accounts {
            self.trie.remove_account(*address, nodes)?;
        }
        self.trie.root();
        Ok(self.trie)
    }
}
