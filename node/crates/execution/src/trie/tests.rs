//! The trie against alloy-trie's `HashBuilder`, with a store of nodes by path beside it.

mod hostile;
mod lazy;
mod random;

use std::collections::{BTreeMap, HashMap};

use alloy_primitives::{B256, Bytes, U256};
use alloy_trie::root::{state_root, storage_root};
use alloy_trie::{KECCAK_EMPTY, Nibbles, TrieAccount};

use super::*;

/// Accounts with their slots, by hash.
type Model = BTreeMap<B256, (Account, BTreeMap<B256, U256>)>;

/// Nodes by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Store(HashMap<(TrieId, Nibbles), Bytes>);

impl TrieNodes for Store {
    fn node(&self, trie: TrieId, path: &Nibbles, hash: B256) -> Result<Bytes, SourceError> {
        match self.0.get(&(trie, *path)) {
            Some(node) => Ok(node.clone()),
            None => NoNodes.node(trie, path, hash),
        }
    }
}

impl Store {
    fn of(trie: &StateTrie) -> Self {
        let mut store = Self::default();
        store.apply(&StateTrie::diff(&StateTrie::default(), trie));
        store
    }

    /// Applies a diff, checking what it says there was before.
    fn apply(&mut self, diff: &TrieDiff) {
        for change in &diff.changes {
            let held = self.0.get(&(change.trie, change.path));
            let wiped = matches!(change.trie, TrieId::Storage(a) if diff.wiped.contains(&a));
            assert!(held == change.before.as_ref() || (wiped && change.before.is_none()));
            assert!(wiped || change.before != change.after);
        }
        for address in &diff.wiped {
            self.0.retain(|(trie, _), _| *trie != TrieId::Storage(*address));
        }
        for NodeChange { trie, path, after, .. } in &diff.changes {
            match after {
                Some(node) => self.0.insert((*trie, *path), node.clone()),
                None => self.0.remove(&(*trie, *path)),
            };
        }
    }

    fn unwind(&mut self, diff: &TrieDiff) {
        for NodeChange { trie, path, before, .. } in &diff.changes {
            match before {
                Some(node) => self.0.insert((*trie, *path), node.clone()),
                None => self.0.remove(&(*trie, *path)),
            };
        }
    }
}

fn account(nonce: u64) -> Account {
    Account { nonce, balance: U256::from(nonce) << 70, code_hash: KECCAK_EMPTY }
}

/// Twenty-four hashes: far apart, parting in the middle, parting in the last byte, so that
/// extensions and nodes below 32 bytes occur.
fn key(i: u8) -> B256 {
    let mut key = B256::repeat_byte(0x11);
    match i % 24 {
        i @ ..8 => key.0[0] = i * 0x24,
        i @ 8..16 => key.0[12] = i * 0x11,
        i => key.0[31] = i * 0x0b,
    }
    key
}

fn model_root(model: &Model) -> B256 {
    state_root(model.iter().map(|(address, (account, slots))| {
        let Account { nonce, balance, code_hash } = *account;
        let storage_root = storage_root(slots.iter().map(|(slot, value)| (*slot, *value)));
        (*address, TrieAccount { nonce, balance, storage_root, code_hash })
    }))
}

fn build(model: &Model) -> StateTrie {
    let mut trie = StateTrie::default();
    for (address, (account, slots)) in model {
        trie.set_account(*address, account, &NoNodes).unwrap();
        for (slot, value) in slots {
            trie.set_slot(*address, *slot, *value, &NoNodes).unwrap();
        }
    }
    trie
}

/// Checks root and contents, including absent keys.
fn check(trie: &StateTrie, model: &Model, nodes: &dyn TrieNodes) {
    assert_eq!(trie.root(), model_root(model));
    for address in (0..24).map(key) {
        let expected = model.get(&address);
        assert_eq!(trie.account(address, nodes).unwrap(), expected.map(|(account, _)| *account));
        assert_eq!(
            trie.storage_root(address, nodes).unwrap(),
            expected.map(|(_, slots)| storage_root(slots.iter().map(|(s, v)| (*s, *v))))
        );
        for slot in (0..24).map(key) {
            let value = expected.and_then(|(_, slots)| slots.get(&slot).copied());
            assert_eq!(trie.slot(address, slot, nodes).unwrap(), value.unwrap_or_default());
        }
    }
}
