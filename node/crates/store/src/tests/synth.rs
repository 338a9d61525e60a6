//! Blocks of random changes, without an EVM: accounts and slots are created, changed and deleted,
//! storages are wiped, contracts are destroyed and created again.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use fragcast_execution::exec::hashes::BlockHashes;
use fragcast_execution::exec::overlay::StorageChange;
use fragcast_execution::exec::{
    ExecutedBlock, Layer, SealedBlock, Snapshot, State, StateSource, StateView,
};
use fragcast_execution::state::Account;
use fragcast_execution::trie::StateTrie;

use super::Rng;
use crate::Store;

/// Accounts that change.
const ACCOUNTS: u64 = 24;
/// Slots of each.
const SLOTS: u64 = 40;

/// The expected state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) accounts: BTreeMap<Address, Account>,
    pub(super) slots: BTreeMap<(Address, U256), U256>,
}

impl Model {
    pub(super) fn check(&self, view: &dyn StateView) {
        for n in 0..ACCOUNTS {
            let address = address(n);
            assert_eq!(view.account(address).unwrap().as_ref(), self.accounts.get(&address));
            for slot in (0..SLOTS).map(U256::from) {
                let expected = self.slots.get(&(address, slot)).copied().unwrap_or_default();
                assert_eq!(view.storage(address, slot).unwrap(), expected);
            }
        }
        for account in self.accounts.values().filter(|a| a.code_hash != KECCAK256_EMPTY) {
            let code = view.code(account.code_hash).unwrap();
            assert_eq!(keccak256(code), account.code_hash);
        }
    }
}

fn address(n: u64) -> Address {
    Address::from_word(keccak256(n.to_be_bytes()))
}

/// A block and the state after it.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) header: Header,
    pub(super) hash: B256,
    pub(super) model: Model,
}

/// The block that the next one builds on.
pub(super) struct Tip {
    pub(super) step: Step,
    trie: StateTrie,
    state: State,
}

impl Tip {
    /// The store's newest block.
    pub(super) fn of(store: &Store, step: Step) -> Self {
        let anchor = store.at(step.hash).unwrap().expect("it is the head");
        Self { step, trie: anchor.trie, state: State::new(anchor.view) }
    }

    /// The next block; its trie resolves from the store.
    pub(super) fn block(&mut self, store: &Arc<Store>, rng: &mut Rng) -> Arc<SealedBlock> {
        let parent = self.trie.clone();
        let layer = self.layer(rng);
        let nodes = store.nodes();
        let mut gone = Vec::new();
        for (address, account) in &layer.accounts {
            let key = keccak256(address);
            let change = layer.storage.get(address);
            if change.is_some_and(|change| change.wiped) {
                self.trie.wipe_storage(key, &nodes).unwrap();
            }
            let Some(account) = account else {
                gone.push(key);
                continue;
            };
            self.trie.set_account(key, account, &nodes).unwrap();
            for (slot, value) in change.iter().flat_map(|change| &change.slots) {
                let slot = keccak256(B256::from(*slot));
                self.trie.set_slot(key, slot, *value, &nodes).unwrap();
            }
        }
        for key in gone {
            self.trie.remove_account(key, &nodes).unwrap();
        }
        let header = Header {
            number: self.step.header.number + 1,
            parent_hash: self.step.hash,
            state_root: self.trie.root(),
            mix_hash: B256::from(U256::from(rng.next())),
            transactions_root: alloy_trie::EMPTY_ROOT_HASH,
            receipts_root: alloy_trie::EMPTY_ROOT_HASH,
            ..Header::default()
        };
        let hash = header.hash_slow();
        let layer = Arc::new(layer);
        self.state = self.state.with(Arc::clone(&layer));
        self.step.header = header.clone();
        self.step.hash = hash;
        let block =
            ExecutedBlock { attempt: 0, hash, header, frags: Vec::new(), withdrawals: None };
        let source: Arc<dyn StateSource> = store.clone();
        let hashes = Arc::new(BlockHashes::new(block.header.number, vec![hash], source));
        Arc::new(SealedBlock {
            snapshot: Arc::new(Snapshot { block, state: self.state.clone(), hashes }),
            layer,
            parent_trie: Some(parent),
            trie: Ok(self.trie.clone()),
            nodes: Arc::new(nodes),
        })
    }

    /// Random changes, applied to the model.
    fn layer(&mut self, rng: &mut Rng) -> Layer {
        let model = &mut self.step.model;
        let mut layer = Layer::default();
        for _ in 0..1 + rng.below(8) {
            let address = address(rng.below(ACCOUNTS));
            if layer.accounts.contains_key(&address) {
                continue;
            }
            let old = model.accounts.get(&address).copied();
            let kind = rng.below(10);
            let mut change = StorageChange { wiped: kind < 2, ..StorageChange::default() };
            if kind < 2 {
                model.slots.retain(|(of, _), _| *of != address);
            }
            if kind == 0 || (kind == 9 && old.is_none()) {
                model.accounts.remove(&address);
                layer.accounts.insert(address, None);
                layer.storage.insert(address, change);
                continue;
            }
            let code = Bytes::from(vec![0x5b; 1 + rng.below(4) as usize]);
            let code_hash = match (kind, old) {
                (1 | 2, _) => keccak256(&code),
                (_, Some(old)) => old.code_hash,
                _ => KECCAK256_EMPTY,
            };
            if code_hash == keccak256(&code) {
                layer.add_code(code_hash, code);
            }
            // Sometimes nothing of the account itself changes.
            let account = match old {
                Some(old) if kind == 3 => old,
                _ => Account { nonce: rng.below(300), balance: U256::from(rng.next()), code_hash },
            };
            for _ in 0..rng.below(SLOTS) {
                let slot = U256::from(rng.below(SLOTS));
                let value = match rng.below(3) {
                    0 => U256::ZERO,
                    1 => U256::from(rng.below(100)),
                    _ => U256::from_be_bytes(keccak256(rng.next().to_be_bytes()).0),
                };
                change.slots.insert(slot, value);
            }
            for (slot, value) in &change.slots {
                if value.is_zero() {
                    model.slots.remove(&(address, *slot));
                } else {
                    model.slots.insert((address, *slot), *value);
                }
            }
            model.accounts.insert(address, account);
            layer.accounts.insert(address, Some(account));
            layer.storage.insert(address, change);
        }
        layer
    }
}
