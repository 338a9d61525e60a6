//! State in layers: the state of a source, and over it what executed frags changed.
//!
//! A [`State`] is immutable and cheap to copy. A frag is executed on an [`OverlayDb`], which reads
//! through a [`State`] and collects the changes in a [`Layer`] of its own; the next snapshot is the
//! state before with that layer on top. A look-up takes one probe for each layer, so the layers of
//! a block are merged into one when it is sealed, and layers of blocks that the source has taken
//! over are dropped from the bottom.
//!
//! revm's own `State` keeps transitions and reverts for a whole block at a time, and cannot hand
//! out the state after a frag without copying it.

use std::collections::hash_map::Entry;
use std::sync::{Arc, OnceLock};

use alloy_primitives::map::{AddressMap, B256Map, HashMap};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use revm::bytecode::Bytecode;
use revm::state::{AccountInfo, EvmState};
use revm::{Database, DatabaseCommit};

use super::allowance::{JUMPS_PER_LOOK, Watch};
use super::hashes::BlockHashes;
use super::source::StateView;
use crate::state::{Account, SourceError};

/// The change of an account's storage in a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageChange {
    /// Whether everything below is void, because the account was destroyed or created in this
    /// layer.
    pub wiped: bool,
    /// New values; zero means deleted.
    pub slots: HashMap<U256, U256>,
}

/// Changes of one frag or one block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer {
    /// Accounts as they are now; `None`: it does not exist.
    pub accounts: AddressMap<Option<Account>>,
    /// Storage by account.
    pub storage: AddressMap<StorageChange>,
    /// New code by hash.
    pub codes: B256Map<Bytecode>,
}

impl Layer {
    /// Adds new code by its hash.
    pub fn add_code(&mut self, hash: B256, code: Bytes) {
        self.codes.insert(hash, Bytecode::new_raw(code));
    }

    /// Puts `later` over this layer.
    pub fn merge(&mut self, later: &Self) {
        self.accounts.extend(later.accounts.iter().map(|(a, v)| (*a, *v)));
        for (address, change) in &later.storage {
            match self.storage.entry(*address) {
                Entry::Vacant(entry) => {
                    entry.insert(change.clone());
                }
                Entry::Occupied(mut entry) => {
                    let mine = entry.get_mut();
                    if change.wiped {
                        mine.clone_from(change);
                    } else {
                        mine.slots.extend(change.slots.iter().map(|(k, v)| (*k, *v)));
                    }
                }
            }
        }
        self.codes.extend(later.codes.iter().map(|(h, c)| (*h, c.clone())));
    }

    /// Takes over what a transaction, a system call or a withdrawal changed. State clearing
    /// (EIP-161) is always on: no chain here is older than the merge.
    ///
    /// `known` tells the code that is below already: every contract that was called comes with
    /// its code.
    pub fn commit(&mut self, changes: EvmState, known: impl Fn(&B256) -> bool) {
        for (address, account) in changes {
            if !account.is_touched() {
                continue;
            }
            if account.is_selfdestructed() {
                self.accounts.insert(address, None);
                self.storage.insert(address, StorageChange { wiped: true, ..Default::default() });
                continue;
            }
            if account.is_created() {
                self.storage.insert(address, StorageChange { wiped: true, ..Default::default() });
            }
            let changed = account.storage.iter().filter(|(_, slot)| slot.is_changed());
            let mut changed = changed.peekable();
            if changed.peek().is_some() {
                let slots = &mut self.storage.entry(address).or_default().slots;
                slots.extend(changed.map(|(key, slot)| (*key, slot.present_value)));
            }
            let info = account.info;
            if info.is_empty() {
                self.accounts.insert(address, None);
                continue;
            }
            if let Some(code) = info.code
                && info.code_hash != KECCAK256_EMPTY
                && !known(&info.code_hash)
            {
                self.codes.entry(info.code_hash).or_insert(code);
            }
            let account =
                Account { nonce: info.nonce, balance: info.balance, code_hash: info.code_hash };
            self.accounts.insert(address, Some(account));
        }
    }
}

/// A state: a view with layers over it, the newest last.
#[derive(Clone)]
pub struct State {
    base: Arc<dyn StateView>,
    layers: Vec<Arc<Layer>>,
}

impl State {
    /// The state of a source.
    pub const fn new(base: Arc<dyn StateView>) -> Self {
        Self { base, layers: Vec::new() }
    }

    /// This state with one more layer.
    #[must_use]
    pub fn with(&self, layer: Arc<Layer>) -> Self {
        let mut layers = Vec::with_capacity(self.layers.len() + 1);
        layers.extend(self.layers.iter().cloned());
        layers.push(layer);
        Self { base: Arc::clone(&self.base), layers }
    }

    /// The same state on a newer view: layers up to and with `last`, which that view contains, are
    /// dropped. `None` if there is no such layer.
    #[must_use]
    pub fn rebase(&self, base: &Arc<dyn StateView>, last: &Arc<Layer>) -> Option<Self> {
        let at = self.layers.iter().position(|layer| Arc::ptr_eq(layer, last))?;
        Some(Self { base: Arc::clone(base), layers: self.layers[at + 1..].to_vec() })
    }

    /// The same state with all but the newest `keep` layers merged into one.
    #[must_use]
    pub fn compact(&self, keep: usize) -> Self {
        let Some(old) = self.layers.len().checked_sub(keep).filter(|old| *old > 1) else {
            return self.clone();
        };
        let mut merged = Layer::default();
        for layer in &self.layers[..old] {
            merged.merge(layer);
        }
        let mut layers = vec![Arc::new(merged)];
        layers.extend(self.layers[old..].iter().cloned());
        Self { base: Arc::clone(&self.base), layers }
    }

    /// The newest layers, at most `count`, the newest last.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = &Layer> {
        self.layers[self.layers.len().saturating_sub(count)..].iter().map(|layer| &**layer)
    }

    /// How many layers there are.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// The account, `None` if it does not exist.
    ///
    /// # Errors
    /// The source's.
    pub fn account(&self, address: Address) -> Result<Option<Account>, SourceError> {
        for layer in self.layers.iter().rev() {
            if let Some(account) = layer.accounts.get(&address) {
                return Ok(*account);
            }
        }
        self.base.account(address)
    }

    /// The slot's value.
    ///
    /// # Errors
    /// The source's.
    pub fn storage(&self, address: Address, slot: U256) -> Result<U256, SourceError> {
        for layer in self.layers.iter().rev() {
            if let Some(change) = layer.storage.get(&address) {
                if let Some(value) = change.slots.get(&slot) {
                    return Ok(*value);
                }
                if change.wiped {
                    return Ok(U256::ZERO);
                }
            }
        }
        self.base.storage(address, slot)
    }

    /// The code with this hash.
    ///
    /// # Errors
    /// The source's.
    pub fn code(&self, hash: B256) -> Result<Bytecode, SourceError> {
        if hash == KECCAK256_EMPTY {
            return Ok(Bytecode::default());
        }
        for layer in self.layers.iter().rev() {
            if let Some(code) = layer.codes.get(&hash) {
                return Ok(code.clone());
            }
        }
        let code = self.base.code(hash)?;
        // EIP-7702 designators are checked by the decoder.
        Bytecode::new_raw_checked(code).map_err(|e| SourceError::Corrupt(e.to_string()))
    }

    /// The code of an account, empty if it has none.
    ///
    /// # Errors
    /// The source's.
    pub fn code_of(&self, address: Address) -> Result<Bytes, SourceError> {
        match self.account(address)? {
            Some(account) => Ok(self.code(account.code_hash)?.original_bytes()),
            None => Ok(Bytes::new()),
        }
    }

    /// Tells the source what will be read.
    pub fn prefetch(&self, keys: &[(Address, Vec<U256>)]) {
        self.base.prefetch(keys);
    }
}

impl StateView for State {
    fn account(&self, address: Address) -> Result<Option<Account>, SourceError> {
        Self::account(self, address)
    }

    fn storage(&self, address: Address, slot: U256) -> Result<U256, SourceError> {
        Self::storage(self, address, slot)
    }

    fn code(&self, hash: B256) -> Result<Bytes, SourceError> {
        Ok(Self::code(self, hash)?.original_bytes())
    }

    fn prefetch(&self, keys: &[(Address, Vec<U256>)]) {
        Self::prefetch(self, keys);
    }
}

/// Values read below the layer that is being made; kept as long as a block is open.
#[derive(Debug, Default)]
pub struct ReadCache {
    accounts: AddressMap<Option<Account>>,
    slots: HashMap<(Address, U256), U256>,
    codes: B256Map<Bytecode>,
}

impl ReadCache {
    /// Adds a frag's values, which the next frag reads below itself.
    pub fn apply(&mut self, layer: &Layer) {
        self.accounts.extend(layer.accounts.iter().map(|(a, v)| (*a, *v)));
        if layer.storage.values().any(|change| change.wiped) {
            self.slots.retain(|(a, _), _| !layer.storage.get(a).is_some_and(|c| c.wiped));
        }
        for (address, change) in &layer.storage {
            self.slots.extend(change.slots.iter().map(|(k, v)| ((*address, *k), *v)));
        }
        self.codes.extend(layer.codes.iter().map(|(h, c)| (*h, c.clone())));
    }
}

/// revm's database over a [`State`], with a layer that collects changes.
pub struct OverlayDb {
    /// The state below the layer.
    pub state: State,
    /// The changes.
    pub layer: Layer,
    /// Values that were read.
    pub cache: ReadCache,
    /// BLOCKHASH.
    pub hashes: Arc<BlockHashes>,
    /// The first error of the source. alloy-evm's executors report some errors of their database as
    /// invalid blocks; this field tells the two apart.
    pub fault: Arc<OnceLock<SourceError>>,
    /// Looked at before each read of the state, if there is one.
    pub watch: Option<Arc<Watch>>,
    /// JUMPDESTs since the last look.
    ticks: u32,
}

impl std::fmt::Debug for OverlayDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OverlayDb").field("layer", &self.layer).finish_non_exhaustive()
    }
}

impl OverlayDb {
    /// An empty layer over `state`.
    pub fn new(state: State, hashes: Arc<BlockHashes>) -> Self {
        Self {
            state,
            layer: Layer::default(),
            cache: ReadCache::default(),
            hashes,
            fault: Arc::default(),
            watch: None,
            ticks: 0,
        }
    }

    /// Counts an instruction of this weight; says whether the time is over.
    pub(super) fn ticked(&mut self, weight: u32) -> bool {
        self.ticks += weight;
        if self.ticks < JUMPS_PER_LOOK {
            return false;
        }
        self.ticks = 0;
        self.watch.as_ref().is_some_and(|watch| watch.expired())
    }

    /// Before a read of the state, which may take long.
    fn look(&self) -> Result<(), SourceError> {
        match &self.watch {
            Some(watch) if watch.expired() => {
                Err(SourceError::Unavailable("the time of the block is over".into()))
            }
            _ => Ok(()),
        }
    }

    fn note<T>(&self, result: Result<T, SourceError>) -> Result<T, SourceError> {
        result.inspect_err(|error| {
            // Only the first counts.
            let _ = self.fault.set(error.clone());
        })
    }
}

impl Database for OverlayDb {
    type Error = SourceError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, SourceError> {
        self.look()?;
        let account = match self.layer.accounts.get(&address) {
            Some(account) => *account,
            None => match self.cache.accounts.entry(address) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => match self.state.account(address) {
                    Ok(account) => *entry.insert(account),
                    error => self.note(error)?,
                },
            },
        };
        Ok(account.map(|a| AccountInfo {
            balance: a.balance,
            nonce: a.nonce,
            code_hash: a.code_hash,
            ..AccountInfo::default().without_code()
        }))
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode, SourceError> {
        self.look()?;
        if let Some(code) = self.layer.codes.get(&hash) {
            return Ok(code.clone());
        }
        match self.cache.codes.entry(hash) {
            Entry::Occupied(entry) => Ok(entry.get().clone()),
            Entry::Vacant(entry) => match self.state.code(hash) {
                Ok(code) => Ok(entry.insert(code).clone()),
                error => self.note(error),
            },
        }
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, SourceError> {
        self.look()?;
        if let Some(change) = self.layer.storage.get(&address) {
            if let Some(value) = change.slots.get(&slot) {
                return Ok(*value);
            }
            if change.wiped {
                return Ok(U256::ZERO);
            }
        }
        match self.cache.slots.entry((address, slot)) {
            Entry::Occupied(entry) => Ok(*entry.get()),
            Entry::Vacant(entry) => match self.state.storage(address, slot) {
                Ok(value) => Ok(*entry.insert(value)),
                error => self.note(error),
            },
        }
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, SourceError> {
        self.look()?;
        self.note(self.hashes.get(number))
    }
}

impl DatabaseCommit for OverlayDb {
    fn commit(&mut self, changes: EvmState) {
        let codes = &self.cache.codes;
        self.layer.commit(changes, |hash| codes.contains_key(hash));
    }
}

#[cfg(test)]
mod tests;
