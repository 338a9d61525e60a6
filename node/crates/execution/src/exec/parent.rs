//! The block that another one is opened on.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::B256;

use super::overlay::State;
use super::snapshot::SealedBlock;
use super::source::Anchor;
use super::verdict::Unverified;
use crate::trie::{StateTrie, TrieNodes};

/// The parent that a block is opened on.
#[derive(Clone)]
pub struct Parent {
    /// Its header.
    pub header: Header,
    /// Hash of the header.
    pub hash: B256,
    /// The state after it.
    pub state: State,
    /// The trie after it, or why it is not known.
    pub trie: Result<StateTrie, Unverified>,
    /// Trie nodes.
    pub nodes: Arc<dyn TrieNodes>,
    /// Hashes for BLOCKHASH, its own first.
    pub hashes: Vec<B256>,
}

impl From<Anchor> for Parent {
    fn from(anchor: Anchor) -> Self {
        Self {
            header: anchor.header,
            hash: anchor.hash,
            state: State::new(anchor.view),
            trie: Ok(anchor.trie),
            nodes: anchor.nodes,
            hashes: vec![anchor.hash],
        }
    }
}

impl SealedBlock {
    /// This block as a parent.
    pub fn as_parent(&self) -> Parent {
        Parent {
            header: self.snapshot.header.clone(),
            hash: self.snapshot.hash,
            state: self.snapshot.state.clone(),
            trie: self.trie.clone(),
            nodes: Arc::clone(&self.nodes),
            hashes: self.snapshot.hashes.child(self.snapshot.hash),
        }
    }
}
