//! The state trie: stub.

use std::sync::Arc;

use alloy_primitives::{B256, Bytes, U256};
use alloy_trie::Nibbles;

use crate::exec::source::SourceError;

/// Which trie a node belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrieId {
    /// The trie of accounts.
    Accounts,
    /// The storage of the account whose address hashes to this.
    Storage(B256),
}

/// Where nodes come from that a trie does not hold.
pub trait TrieNodes: Send + Sync {
    /// RLP of the node with this hash, which stands at `path` in `trie`. Callers check the hash.
    ///
    /// # Errors
    /// [`SourceError::Missing`] if it is not known.
    fn node(&self, trie: TrieId, path: &Nibbles, hash: B256) -> Result<Bytes, SourceError>;
}

/// An account without its storage root, which the trie knows.
pub use crate::exec::source::Account;

/// The trie of all accounts with their storage; immutable versions share what they have in common.
#[derive(Clone, Default)]
pub struct StateTrie(Arc<()>);

/// A node by its place, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeChange {
    /// Which trie.
    pub trie: TrieId,
    /// Where in it.
    pub path: Nibbles,
    /// RLP before; `None`: there was none (of its own: nodes below 32 bytes are part of their parent).
    pub before: Option<Bytes>,
    /// RLP after; `None`: there is none any more.
    pub after: Option<Bytes>,
}

/// What changes from one version of a trie to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrieDiff {
    /// Nodes by place.
    pub changes: Vec<NodeChange>,
    /// Hashed addresses whose storage was emptied: all nodes below go, before `changes`.
    pub wiped: Vec<B256>,
}

impl StateTrie {
    /// The trie with this root, of which nothing is held.
    pub fn from_root(_root: B256) -> Self {
        unimplemented!()
    }

    /// The account at keccak256(address).
    ///
    /// # Errors
    /// The source's.
    pub fn account(
        &self,
        _address: B256,
        _nodes: &dyn TrieNodes,
    ) -> Result<Option<Account>, SourceError> {
        unimplemented!()
    }

    /// The slot at keccak256(slot), zero if there is none.
    ///
    /// # Errors
    /// The source's.
    pub fn slot(
        &self,
        _address: B256,
        _slot: B256,
        _nodes: &dyn TrieNodes,
    ) -> Result<U256, SourceError> {
        unimplemented!()
    }

    /// Sets an account, keeping its storage.
    ///
    /// # Errors
    /// The source's.
    pub fn set_account(
        &mut self,
        _address: B256,
        _account: &Account,
        _nodes: &dyn TrieNodes,
    ) -> Result<(), SourceError> {
        unimplemented!()
    }

    /// Removes an account and its storage.
    ///
    /// # Errors
    /// The source's.
    pub fn remove_account(
        &mut self,
        _address: B256,
        _nodes: &dyn TrieNodes,
    ) -> Result<(), SourceError> {
        unimplemented!()
    }

    /// Sets a slot of an account that exists; `value` is not zero.
    ///
    /// # Errors
    /// The source's.
    pub fn set_slot(
        &mut self,
        _address: B256,
        _slot: B256,
        _value: U256,
        _nodes: &dyn TrieNodes,
    ) -> Result<(), SourceError> {
        unimplemented!()
    }

    /// Removes a slot.
    ///
    /// # Errors
    /// The source's.
    pub fn remove_slot(
        &mut self,
        _address: B256,
        _slot: B256,
        _nodes: &dyn TrieNodes,
    ) -> Result<(), SourceError> {
        unimplemented!()
    }

    /// Empties the storage of an account, if there is one.
    ///
    /// # Errors
    /// The source's.
    pub fn wipe_storage(
        &mut self,
        _address: B256,
        _nodes: &dyn TrieNodes,
    ) -> Result<(), SourceError> {
        unimplemented!()
    }

    /// The root; hashes what has changed.
    pub fn root(&self) -> B256 {
        unimplemented!()
    }

    /// The storage root of an account, `None` if there is no account.
    ///
    /// # Errors
    /// The source's.
    pub fn storage_root(
        &self,
        _address: B256,
        _nodes: &dyn TrieNodes,
    ) -> Result<Option<B256>, SourceError> {
        unimplemented!()
    }

    /// The proof of an account (`slot` `None`) or of a slot: nodes from the root down (EIP-1186).
    ///
    /// # Errors
    /// The source's.
    pub fn proof(
        &self,
        _address: B256,
        _slot: Option<B256>,
        _nodes: &dyn TrieNodes,
    ) -> Result<Vec<Bytes>, SourceError> {
        unimplemented!()
    }

    /// The nodes that differ between two versions of which `after` was made from `before`.
    pub fn diff(_before: &Self, _after: &Self) -> TrieDiff {
        unimplemented!()
    }

    /// How many nodes are held in memory, about.
    pub fn held(&self) -> usize {
        unimplemented!()
    }
}
