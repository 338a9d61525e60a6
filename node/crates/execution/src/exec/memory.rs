//! A state source that holds all of a small state in memory, for tests, benchmarks, the devnet's
//! gateway and ethereum/tests.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_genesis::Genesis;
use alloy_primitives::map::{AddressMap, B256Map, HashMap};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_trie::Nibbles;

use super::source::{Anchor, StateSource, StateView};
use crate::state::{Account, SourceError};
use crate::trie::{StateTrie, TrieId, TrieNodes};

/// Accounts, slots and code.
#[derive(Debug, Clone, Default)]
pub struct MemoryState {
    accounts: AddressMap<Account>,
    slots: HashMap<(Address, U256), U256>,
    codes: B256Map<Bytes>,
}

impl MemoryState {
    /// Adds an account; slots of value zero do not exist.
    pub fn insert(
        &mut self,
        address: Address,
        nonce: u64,
        balance: U256,
        code: &Bytes,
        slots: impl Iterator<Item = (U256, U256)>,
    ) {
        let code_hash = if code.is_empty() { KECCAK256_EMPTY } else { keccak256(code) };
        if !code.is_empty() {
            self.codes.insert(code_hash, code.clone());
        }
        self.accounts.insert(address, Account { nonce, balance, code_hash });
        let slots = slots.filter(|(_, value)| !value.is_zero());
        self.slots.extend(slots.map(|(slot, value)| ((address, slot), value)));
    }

    /// The state of a genesis.
    pub fn of_genesis(genesis: &Genesis) -> Self {
        let mut state = Self::default();
        for (address, account) in &genesis.alloc {
            let storage = account.storage.iter().flatten();
            let slots = storage.map(|(slot, value)| ((*slot).into(), (*value).into()));
            let code = account.code.clone().unwrap_or_default();
            state.insert(*address, account.nonce.unwrap_or(0), account.balance, &code, slots);
        }
        state
    }

    /// All accounts.
    pub fn accounts(&self) -> impl Iterator<Item = (Address, Account)> {
        self.accounts.iter().map(|(address, account)| (*address, *account))
    }

    /// All code, by hash.
    pub fn codes(&self) -> impl Iterator<Item = (B256, &Bytes)> {
        self.codes.iter().map(|(hash, code)| (*hash, code))
    }

    /// Its trie, all of it held.
    ///
    /// # Errors
    /// None: nothing is resolved.
    pub fn trie(&self) -> Result<StateTrie, SourceError> {
        let mut trie = StateTrie::from_root(alloy_trie::EMPTY_ROOT_HASH);
        for (address, account) in &self.accounts {
            trie.set_account(keccak256(address), account, &NoNodes)?;
        }
        for ((address, slot), value) in &self.slots {
            let slot = keccak256(slot.to_be_bytes::<32>());
            trie.set_slot(keccak256(address), slot, *value, &NoNodes)?;
        }
        Ok(trie)
    }
}

impl StateView for MemoryState {
    fn account(&self, address: Address) -> Result<Option<Account>, SourceError> {
        Ok(self.accounts.get(&address).copied())
    }

    fn storage(&self, address: Address, slot: U256) -> Result<U256, SourceError> {
        Ok(self.slots.get(&(address, slot)).copied().unwrap_or_default())
    }

    fn code(&self, hash: B256) -> Result<Bytes, SourceError> {
        let missing = || SourceError::Missing(format!("the code {hash}"));
        self.codes.get(&hash).cloned().ok_or_else(missing)
    }
}

/// No nodes, for a trie that holds all of its own.
#[derive(Debug, Clone, Copy)]
pub struct NoNodes;

impl TrieNodes for NoNodes {
    fn node(&self, _: TrieId, path: &Nibbles, hash: B256) -> Result<Bytes, SourceError> {
        Err(SourceError::Missing(format!("the trie node {hash} at {path:?}")))
    }
}

/// A source with one block, and headers before it.
pub struct MemorySource {
    anchor: Anchor,
    headers: B256Map<Header>,
}

impl MemorySource {
    /// A source that starts after the block with `header`.
    ///
    /// # Errors
    /// None in practice: the trie is whole.
    pub fn new(header: Header, state: MemoryState) -> Result<Self, SourceError> {
        let hash = header.hash_slow();
        let trie = state.trie()?;
        let headers = [(hash, header.clone())].into_iter().collect();
        let anchor = Anchor { header, hash, view: Arc::new(state), trie, nodes: Arc::new(NoNodes) };
        Ok(Self { anchor, headers })
    }

    /// The block it starts after.
    pub const fn anchor(&self) -> &Anchor {
        &self.anchor
    }
}

impl StateSource for MemorySource {
    fn at(&self, block: B256) -> Result<Option<Anchor>, SourceError> {
        Ok((block == self.anchor.hash).then(|| self.anchor.clone()))
    }

    fn head(&self) -> Result<Option<B256>, SourceError> {
        Ok(Some(self.anchor.hash))
    }

    fn header(&self, hash: B256) -> Result<Option<Header>, SourceError> {
        Ok(self.headers.get(&hash).cloned())
    }
}
