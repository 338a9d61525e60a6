//! The state trie: Ethereum's hexary Merkle-Patricia trie of accounts, each with a trie of its
//! storage, whose versions share everything that did not change.
//!
//! A [`StateTrie`] is one version. Cloning it copies a pointer; editing the clone copies the nodes
//! on the path to the edit and no others, so a version for each block costs that block's changes.
//! Nodes that are not held are known by their hash and resolved from [`TrieNodes`] when they are
//! needed: reading, editing and proving work alike on a trie that is held whole, on a witness, and
//! on a trie of which only the root is known. The source of nodes is not trusted: their hash and
//! form are checked.
//!
//! Why not alloy-trie's `HashBuilder`, which computes roots? It starts from all leaves, which is 40
//! times slower for the changes of a block, and it supports neither removal nor nodes that it was
//! not given.
//!
//! Guarantees: an operation that fails changes no contents; equal contents have equal roots,
//! whatever the order of operations; [`StateTrie::diff`] of consecutive versions, applied to a
//! store of nodes by path, keeps the newer version whole.

mod codec;
mod diff;
mod node;
mod ops;
#[cfg(test)]
mod tests;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_trie::Nibbles;

use self::codec::{Scratch, path};
use self::node::{AccountLeaf, Link, Origin};
use crate::state::{Account, SourceError};

/// Which trie a node belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrieId {
    /// The trie of accounts.
    Accounts,
    /// The storage of the account whose address hashes to this.
    Storage(B256),
}

/// The source of nodes that a trie does not hold.
pub trait TrieNodes: Send + Sync {
    /// RLP of the node with this hash, which is at `path` in `trie`. Callers check the hash.
    ///
    /// # Errors
    /// [`SourceError::Missing`] if it is not known.
    fn node(&self, trie: TrieId, path: &Nibbles, hash: B256) -> Result<Bytes, SourceError>;
}

/// No nodes: for tries that are held whole.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNodes;

impl TrieNodes for NoNodes {
    fn node(&self, trie: TrieId, path: &Nibbles, hash: B256) -> Result<Bytes, SourceError> {
        Err(SourceError::Missing(format!("node {hash} at {path:?} of {trie:?}")))
    }
}

/// The trie of all accounts with their storage; immutable versions share what they have in common.
#[derive(Clone)]
pub struct StateTrie {
    root: Link<AccountLeaf>,
}

/// The change of a node: its place, and its RLP before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeChange {
    /// The trie.
    pub trie: TrieId,
    /// The node's path in the trie.
    pub path: Nibbles,
    /// RLP before; `None`: there was none (of its own: nodes below 32 bytes are part of their
    /// parent, roots excepted), or its storage is among [`TrieDiff::wiped`] and it was not held.
    pub before: Option<Bytes>,
    /// RLP after; `None`: there is none any more.
    pub after: Option<Bytes>,
}

/// The difference between two versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrieDiff {
    /// Nodes that changed, appeared or vanished; accounts before storages, by address.
    pub changes: Vec<NodeChange>,
    /// Hashed addresses whose storage was dropped without being held whole. A store deletes all
    /// nodes of [`TrieId::Storage`] of these, keeping them itself if it wants to go back, and
    /// then applies the changes, which hold the whole new storage if there is one.
    pub wiped: Vec<B256>,
}

impl Default for StateTrie {
    fn default() -> Self {
        Self { root: Link::Empty }
    }
}

impl std::fmt::Debug for StateTrie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StateTrie").field(&self.root()).finish()
    }
}

fn accounts(nodes: &dyn TrieNodes) -> Origin<'_> {
    Origin { trie: TrieId::Accounts, nodes }
}

fn storage(address: B256, nodes: &dyn TrieNodes) -> Origin<'_> {
    Origin { trie: TrieId::Storage(address), nodes }
}

impl StateTrie {
    /// A trie with this root, of which no node is held.
    pub fn from_root(root: B256) -> Self {
        Self { root: Link::from_root(root) }
    }

    /// A trie of these accounts with their slots, held whole; slots of value zero do not exist.
    ///
    /// # Errors
    /// None: it asks no source for nodes.
    pub fn from_accounts<S>(
        accounts: impl IntoIterator<Item = (Address, Account, S)>,
    ) -> Result<Self, SourceError>
    where
        S: IntoIterator<Item = (U256, U256)>,
    {
        let mut trie = Self::default();
        for (address, account, slots) in accounts {
            let address = keccak256(address);
            let mut leaf = AccountLeaf { account, storage: Link::Empty };
            for (slot, value) in slots.into_iter().filter(|(_, value)| !value.is_zero()) {
                let slot = path(&keccak256(B256::from(slot)));
                ops::insert(&mut leaf.storage, storage(address, &NoNodes), &slot, 0, value)?;
            }
            ops::insert(&mut trie.root, self::accounts(&NoNodes), &path(&address), 0, leaf)?;
        }
        Ok(trie)
    }

    fn leaf(
        &self,
        address: B256,
        nodes: &dyn TrieNodes,
    ) -> Result<Option<&AccountLeaf>, SourceError> {
        ops::get(&self.root, accounts(nodes), &path(&address))
    }

    fn leaf_mut(
        &mut self,
        address: B256,
        nodes: &dyn TrieNodes,
    ) -> Result<Option<&mut AccountLeaf>, SourceError> {
        ops::get_mut(&mut self.root, accounts(nodes), &path(&address), 0)
    }

    /// The account at keccak256(address).
    ///
    /// # Errors
    /// The source's.
    pub fn account(
        &self,
        address: B256,
        nodes: &dyn TrieNodes,
    ) -> Result<Option<Account>, SourceError> {
        Ok(self.leaf(address, nodes)?.map(|leaf| leaf.account))
    }

    /// The slot at keccak256(slot), zero if there is none.
    ///
    /// # Errors
    /// The source's.
    pub fn slot(
        &self,
        address: B256,
        slot: B256,
        nodes: &dyn TrieNodes,
    ) -> Result<U256, SourceError> {
        let Some(leaf) = self.leaf(address, nodes)? else { return Ok(U256::ZERO) };
        let value = ops::get(&leaf.storage, storage(address, nodes), &path(&slot))?;
        Ok(value.copied().unwrap_or_default())
    }

    /// Sets an account, keeping its storage.
    ///
    /// # Errors
    /// The source's.
    pub fn set_account(
        &mut self,
        address: B256,
        account: &Account,
        nodes: &dyn TrieNodes,
    ) -> Result<(), SourceError> {
        // What stays the same need not be copied and hashed again.
        let storage = match self.leaf(address, nodes)? {
            Some(leaf) if leaf.account == *account => return Ok(()),
            Some(leaf) => leaf.storage.clone(),
            None => Link::Empty,
        };
        let leaf = AccountLeaf { account: *account, storage };
        ops::insert(&mut self.root, accounts(nodes), &path(&address), 0, leaf)
    }

    /// Removes an account and its storage; it need not exist.
    ///
    /// # Errors
    /// The source's; also if a node beside the account is needed, which its proof lacks.
    pub fn remove_account(
        &mut self,
        address: B256,
        nodes: &dyn TrieNodes,
    ) -> Result<(), SourceError> {
        if self.leaf(address, nodes)?.is_none() {
            return Ok(());
        }
        ops::remove(&mut self.root, accounts(nodes), &path(&address), 0)
    }

    /// Sets a slot of an account that exists; zero removes it.
    ///
    /// # Errors
    /// The source's; [`SourceError::Missing`] if there is no such account.
    pub fn set_slot(
        &mut self,
        address: B256,
        slot: B256,
        value: U256,
        nodes: &dyn TrieNodes,
    ) -> Result<(), SourceError> {
        if value.is_zero() {
            return self.remove_slot(address, slot, nodes);
        }
        let (origin, key) = (storage(address, nodes), path(&slot));
        if let Some(leaf) = self.leaf(address, nodes)?
            && ops::get(&leaf.storage, origin, &key)? == Some(&value)
        {
            return Ok(());
        }
        let Some(leaf) = self.leaf_mut(address, nodes)? else {
            return Err(SourceError::Missing(format!(
                "the account hashed to {address}, of which a slot is set: set the account first"
            )));
        };
        ops::insert(&mut leaf.storage, origin, &key, 0, value)
    }

    /// Removes a slot; neither it nor the account need exist.
    ///
    /// # Errors
    /// The source's; also if a node beside the slot is needed, which its proof lacks.
    pub fn remove_slot(
        &mut self,
        address: B256,
        slot: B256,
        nodes: &dyn TrieNodes,
    ) -> Result<(), SourceError> {
        let (origin, key) = (storage(address, nodes), path(&slot));
        let Some(leaf) = self.leaf(address, nodes)? else { return Ok(()) };
        if ops::get(&leaf.storage, origin, &key)?.is_none() {
            return Ok(());
        }
        let Some(leaf) = self.leaf_mut(address, nodes)? else { return Ok(()) };
        ops::remove(&mut leaf.storage, origin, &key, 0)
    }

    /// Empties the storage of an account, if there is one.
    ///
    /// # Errors
    /// The source's.
    pub fn wipe_storage(
        &mut self,
        address: B256,
        nodes: &dyn TrieNodes,
    ) -> Result<(), SourceError> {
        if self.leaf(address, nodes)?.is_none_or(|leaf| leaf.storage.is_empty()) {
            return Ok(());
        }
        if let Some(leaf) = self.leaf_mut(address, nodes)? {
            leaf.storage = Link::Empty;
        }
        Ok(())
    }

    /// The root; hashes what has changed.
    pub fn root(&self) -> B256 {
        self.root.root(&mut Scratch::default())
    }

    /// The storage root of an account, `None` if there is no account.
    ///
    /// # Errors
    /// The source's.
    pub fn storage_root(
        &self,
        address: B256,
        nodes: &dyn TrieNodes,
    ) -> Result<Option<B256>, SourceError> {
        Ok(self.leaf(address, nodes)?.map(|leaf| leaf.storage.root(&mut Scratch::default())))
    }

    /// The proof of an account (`slot` `None`) or of a slot: nodes from the root down (EIP-1186).
    /// Empty in an empty trie, and for a slot of an account that does not exist.
    ///
    /// # Errors
    /// The source's.
    pub fn proof(
        &self,
        address: B256,
        slot: Option<B256>,
        nodes: &dyn TrieNodes,
    ) -> Result<Vec<Bytes>, SourceError> {
        let Some(slot) = slot else {
            return ops::proof(&self.root, accounts(nodes), &path(&address));
        };
        let Some(leaf) = self.leaf(address, nodes)? else { return Ok(Vec::new()) };
        ops::proof(&leaf.storage, storage(address, nodes), &path(&slot))
    }

    /// The nodes that differ between two versions, of which `after` was made from `before`
    /// itself, not from a copy that was pruned differently: what the edits resolved is then held
    /// by both. Nothing is resolved; what neither holds is unchanged, wiped storages excepted.
    pub fn diff(before: &Self, after: &Self) -> TrieDiff {
        diff::diff(&before.root, &after.root)
    }

    /// How many nodes are held in memory, each about 250 bytes, a branch 300 more; counts those
    /// that other versions share. Walks over all of them.
    pub fn held(&self) -> usize {
        self.root.held()
    }

    /// The same trie, of which no node is held.
    #[must_use]
    pub fn forget(&self) -> Self {
        Self::from_root(self.root())
    }

    /// The same trie, of which only accounts' nodes above `depth` nibbles are held and no
    /// storage. Other versions are not affected.
    #[must_use]
    pub fn prune(&self, depth: usize) -> Self {
        Self { root: self.root.prune(0, depth, &mut Scratch::default()) }
    }
}
