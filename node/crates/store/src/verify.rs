//! Checks the whole database against the header of its newest block.
//!
//! Flat state and trie are checked separately: the root is computed from accounts and slots, and
//! the nodes are walked from the stored root down, each against the hash in its parent. Both give
//! the same root, so they agree; and because the nodes that are reached are counted, none is left
//! over.

use std::collections::BTreeMap;

use alloy_consensus::proofs::storage_root_unhashed;
use alloy_primitives::map::AddressMap;
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, keccak256};
use alloy_rlp::Decodable;
use alloy_trie::nodes::{RlpNode, TrieNode};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, TrieAccount, root};
use fragcast_execution::trie::TrieId;
use redb::ReadableTableMetadata;

use super::StoreError;
use super::codec::{decode_account, decode_slot, split_slot_key};
use super::view::{StoreView, corrupt};

/// The numbers of what was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Number of the newest block.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Root of its state, computed.
    pub state_root: B256,
    /// Accounts.
    pub accounts: u64,
    /// Slots.
    pub slots: u64,
    /// Trie nodes.
    pub nodes: u64,
    /// Headers, linked to one another.
    pub headers: u64,
    /// Bodies with receipts whose roots were compared.
    pub blocks: u64,
}

fn wrong(what: String) -> StoreError {
    StoreError::Corrupt(what)
}

pub(super) fn verify(view: &StoreView) -> Result<Report, StoreError> {
    let head = view.head;
    let storage = storage_roots(view)?;
    let (state_root, storages) = state_root(view, storage)?;
    if state_root != head.state_root {
        let wanted = head.state_root;
        return Err(wrong(format!("flat state has root {state_root}, the head has {wanted}")));
    }
    let mut walk = Walk { view, seen: 0 };
    walk.trie(TrieId::Accounts, state_root)?;
    for (address, root) in storages {
        walk.trie(TrieId::Storage(address), root)?;
    }
    let (nodes, stored) = (walk.seen, view.nodes.len()?);
    if nodes != stored {
        return Err(wrong(format!("{stored} trie nodes are stored, {nodes} are reached")));
    }
    let (headers, blocks) = chain(view)?;
    Ok(Report {
        number: head.number,
        hash: head.hash,
        state_root,
        accounts: view.accounts.len()?,
        slots: view.slots.len()?,
        nodes,
        headers,
        blocks,
    })
}

/// Storage roots of all accounts that have storage. Slots of one account are together.
fn storage_roots(view: &StoreView) -> Result<AddressMap<B256>, StoreError> {
    let mut roots = AddressMap::default();
    let mut current: Option<(Address, Vec<_>)> = None;
    let mut finish = |done: Option<(Address, Vec<_>)>| {
        if let Some((address, slots)) = done {
            roots.insert(address, storage_root_unhashed(slots));
        }
    };
    for entry in view.slots.range::<&[u8; 52]>(..)? {
        let (key, value) = entry?;
        let (address, slot) = split_slot_key(key.value());
        let value = decode_slot(value.value())
            .map_err(corrupt(format_args!("slot {slot} of {address}")))?;
        let slot = (B256::from(slot), value);
        match &mut current {
            Some((of, slots)) if *of == address => slots.push(slot),
            _ => finish(current.replace((address, vec![slot]))),
        }
    }
    finish(current);
    Ok(roots)
}

/// The state's root, and the storage roots by hashed address.
fn state_root(
    view: &StoreView,
    mut storage: AddressMap<B256>,
) -> Result<(B256, BTreeMap<B256, B256>), StoreError> {
    let mut accounts = Vec::new();
    let mut storages = BTreeMap::new();
    for entry in view.accounts.range::<&[u8; 20]>(..)? {
        let (key, value) = entry?;
        let address = Address::new(*key.value());
        let account =
            decode_account(value.value()).map_err(corrupt(format_args!("account {address}")))?;
        if account.code_hash != KECCAK256_EMPTY {
            let code = view.codes.get(&account.code_hash.0)?;
            if code.is_none_or(|code| keccak256(code.value()) != account.code_hash) {
                return Err(wrong(format!(
                    "the code of account {address} is not what it hashes to"
                )));
            }
        }
        let root = storage.remove(&address).unwrap_or(EMPTY_ROOT_HASH);
        let hashed = keccak256(address);
        if root != EMPTY_ROOT_HASH {
            storages.insert(hashed, root);
        }
        let account = TrieAccount::new(account.nonce, account.balance, root, account.code_hash);
        accounts.push((hashed, account));
    }
    if let Some(address) = storage.keys().next() {
        return Err(wrong(format!("account {address} has storage, but does not exist")));
    }
    Ok((root::state_root_unsorted(accounts), storages))
}

/// Walks nodes by their path, from a root down, at most 64 nodes deep.
struct Walk<'a> {
    view: &'a StoreView,
    seen: u64,
}

impl Walk<'_> {
    fn trie(&mut self, trie: TrieId, root: B256) -> Result<(), StoreError> {
        if root == EMPTY_ROOT_HASH {
            return Ok(());
        }
        self.hashed(trie, Nibbles::new(), root)
    }

    fn hashed(&mut self, trie: TrieId, path: Nibbles, hash: B256) -> Result<(), StoreError> {
        let node = self.view.read_node(trie, &path)?;
        let node = node.filter(|node| keccak256(node) == hash);
        let node = node.ok_or_else(|| wrong(format!("{trie:?} lacks node {hash} at {path:?}")))?;
        self.seen += 1;
        self.node(trie, path, &node)
    }

    fn node(&mut self, trie: TrieId, path: Nibbles, rlp: &[u8]) -> Result<(), StoreError> {
        let bad = || wrong(format!("the node of {trie:?} at {path:?} is none"));
        match TrieNode::decode(&mut &rlp[..]).map_err(|_| bad())? {
            TrieNode::EmptyRoot => Err(bad()),
            TrieNode::Leaf(leaf) if path.len() + leaf.key.len() == 64 => Ok(()),
            TrieNode::Leaf(_) => Err(bad()),
            TrieNode::Extension(extension) => {
                if path.len() + extension.key.len() >= 64 {
                    return Err(bad());
                }
                self.child(trie, path.join(&extension.key), &extension.child)
            }
            TrieNode::Branch(_) if path.len() >= 64 => Err(bad()),
            TrieNode::Branch(branch) => {
                for (nibble, child) in branch.as_ref().children() {
                    let Some(child) = child else { continue };
                    let mut path = path;
                    path.push(nibble);
                    self.child(trie, path, child)?;
                }
                Ok(())
            }
        }
    }

    fn child(&mut self, trie: TrieId, path: Nibbles, child: &RlpNode) -> Result<(), StoreError> {
        match child.as_hash() {
            Some(hash) => self.hashed(trie, path, hash),
            None => self.node(trie, path, child),
        }
    }
}

/// Follows the headers back to the first, and compares the roots of the blocks that are kept.
fn chain(view: &StoreView) -> Result<(u64, u64), StoreError> {
    let (mut headers, mut blocks) = (0, 0);
    let mut at = Some((view.head.number, view.head.hash));
    while let Some((number, hash)) = at {
        let bad = |what: &str| wrong(format!("block {number}: {what}"));
        let header = view.header(hash)?.ok_or_else(|| bad("its header is gone"))?;
        if header.hash_slow() != hash || header.number != number {
            return Err(bad("its header is another's"));
        }
        if view.hash(number)? != Some(hash) {
            return Err(bad("its number leads to another"));
        }
        headers += 1;
        if let Some(block) = view.block(hash)? {
            let txs: Vec<_> = block.txs().map(|placed| &placed.executed.tx.bytes).collect();
            if root::ordered_trie_root_encoded(&txs) != header.transactions_root {
                return Err(bad("its transactions have another root"));
            }
            let receipts = block.txs().map(|placed| placed.executed.receipt.encoded_2718());
            let receipts: Vec<_> = receipts.collect();
            if root::ordered_trie_root_encoded(&receipts) != header.receipts_root {
                return Err(bad("its receipts have another root"));
            }
            for placed in block.txs() {
                if view.tx(placed.executed.tx.hash)? != Some((hash, placed.index)) {
                    return Err(bad("the index of transactions leads elsewhere"));
                }
            }
            blocks += 1;
        }
        let parent = view.canonical_before(number)?;
        if let Some((before, parent)) = parent
            && (before + 1 != number || parent != header.parent_hash)
        {
            return Err(bad("its parent is another"));
        }
        at = parent;
    }
    Ok((headers, blocks))
}
