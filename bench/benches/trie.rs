//! Measures the state root after a block in which 500 of 100,000 accounts change.
//!
//! Compares with alloy-trie's `HashBuilder`, which builds the root from all leaves.

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, KECCAK_EMPTY, TrieAccount, root::state_root};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use fragcast_execution::state::Account;
use fragcast_execution::trie::{NoNodes, StateTrie};

const ACCOUNTS: u64 = 100_000;
const CHANGED: u64 = 500;

fn main() {
    divan::main();
}

fn address(i: u64) -> Address {
    Address::left_padding_from(&i.to_be_bytes())
}

fn account(nonce: u64) -> Account {
    Account { nonce, balance: U256::from(nonce) << 60, code_hash: KECCAK_EMPTY }
}

/// The hashed addresses that block `n` changes, spread over all accounts.
fn changed(n: u64) -> Vec<B256> {
    (0..CHANGED).map(|i| keccak256(address((i * 199 + n * 7_919) % ACCOUNTS))).collect()
}

fn full() -> StateTrie {
    let accounts = (0..ACCOUNTS).map(|i| (address(i), account(i + 1), []));
    let trie = StateTrie::from_accounts(accounts).expect("held whole");
    trie.root();
    trie
}

fn apply(trie: &mut StateTrie, block: u64, keys: &[B256]) {
    for key in keys {
        trie.set_account(*key, &account(ACCOUNTS + block), &NoNodes).expect("held whole");
    }
}

/// Each block builds on the previous version, which is not used any more, so nodes are edited in
/// place.
#[divan::bench]
fn fragcast_in_place(bencher: Bencher<'_, '_>) {
    let (mut trie, mut block) = (full(), 0);
    bencher.counter(ItemsCount::new(CHANGED)).bench_local(|| {
        block += 1;
        apply(&mut trie, block, &changed(block));
        trie.root()
    });
}

/// The previous version is kept, as for a block that may be retracted, so nodes are copied.
#[divan::bench]
fn fragcast_copied(bencher: Bencher<'_, '_>) {
    let (trie, mut block) = (full(), 0);
    bencher.counter(ItemsCount::new(CHANGED)).bench_local(|| {
        block += 1;
        let mut next = trie.clone();
        apply(&mut next, block, &changed(block));
        next.root();
        next
    });
}

/// The changes that the store gets of such a block.
#[divan::bench]
fn fragcast_diff(bencher: Bencher<'_, '_>) {
    let before = full();
    let mut after = before.clone();
    apply(&mut after, 1, &changed(1));
    after.root();
    bencher
        .counter(ItemsCount::new(CHANGED))
        .bench_local(|| StateTrie::diff(black_box(&before), black_box(&after)));
}

/// alloy-trie: sorted leaves, all hashed again.
#[divan::bench(sample_count = 10)]
fn alloy_full_rebuild(bencher: Bencher<'_, '_>) {
    let mut leaves: Vec<_> = (0..ACCOUNTS)
        .map(|i| {
            let Account { nonce, balance, code_hash } = account(i + 1);
            let account = TrieAccount { nonce, balance, storage_root: EMPTY_ROOT_HASH, code_hash };
            (keccak256(address(i)), account)
        })
        .collect();
    leaves.sort_unstable_by_key(|(key, _)| *key);
    bencher
        .counter(ItemsCount::new(CHANGED))
        .bench_local(|| state_root(black_box(&leaves).iter().copied()));
}
