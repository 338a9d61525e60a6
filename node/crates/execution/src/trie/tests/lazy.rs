//! Tries of which a part is held: resolution, missing nodes, parts that are dropped without being
//! resolved.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use alloy_trie::root::state_root_unhashed;

use super::*;

/// Accounts 0, 8 and 16, each with slots of all kinds.
fn sample() -> Model {
    let slots: BTreeMap<_, _> = (0..24).map(|i| (key(i), U256::from(i) + U256::ONE)).collect();
    (0..24).step_by(8).map(|i| (key(i), (account(u64::from(i)), slots.clone()))).collect()
}

/// Takes the nodes that `take` selects from the store.
fn take(store: &mut Store, take: impl Fn(TrieId, &Nibbles) -> bool) -> Store {
    let (taken, left) = store.0.drain().partition(|((trie, path), _)| take(*trie, path));
    store.0 = left;
    Store(taken)
}

/// Checks that only nodes which `trie` does not hold are asked for.
fn unchanged(before: &StateTrie, trie: &StateTrie) {
    assert_eq!(trie.root(), before.root());
    assert_eq!(StateTrie::diff(before, trie), TrieDiff::default());
}

#[test]
fn an_account_collapses_onto_an_unknown_sibling() {
    // The root is a branch of 0x0… and 0x2….
    let mut model = sample();
    model.retain(|address, _| *address == key(0));
    model.insert(key(1), (account(5), BTreeMap::new()));
    let full = build(&model);
    let mut store = Store::of(&full);
    let sibling = key(0).0[0] >> 4;
    let taken =
        take(&mut store, |trie, path| trie == TrieId::Accounts && path.first() == Some(sibling));
    assert_eq!(taken.0.len(), 1);

    let before = StateTrie::from_root(full.root());
    let mut trie = before.clone();
    let missing = trie.remove_account(key(1), &store);
    assert!(matches!(missing, Err(SourceError::Missing(_))));
    unchanged(&before, &trie);
    assert_eq!(trie.account(key(1), &store), Ok(Some(account(5))));
    assert_eq!(trie.remove_account(key(9), &store), Ok(()), "it does not exist");

    store.0.extend(taken.0);
    trie.remove_account(key(1), &store).unwrap();
    model.remove(&key(1));
    check(&trie, &model, &store);
    store.apply(&StateTrie::diff(&before, &trie));
    assert_eq!(store, Store::of(&build(&model)));
}

#[test]
fn a_slot_collapses_onto_an_unknown_sibling() {
    let mut model = sample();
    let (_, slots) = model.get_mut(&key(0)).unwrap();
    // One leaf beside an extension, which the removal merges upwards.
    slots.retain(|slot, _| *slot == key(1) || slot.0[0] == 0x11);
    let full = build(&model);
    let mut store = Store::of(&full);
    let id = TrieId::Storage(key(0));
    let taken = take(&mut store, |trie, path| trie == id && path.first() == Some(1));

    let before = StateTrie::from_root(full.root());
    let mut trie = before.clone();
    let missing = trie.remove_slot(key(0), key(1), &store);
    assert!(matches!(missing, Err(SourceError::Missing(_))));
    unchanged(&before, &trie);
    assert_eq!(trie.slot(key(0), key(1), &store), Ok(U256::from(2)));
    let missing = trie.set_slot(key(0), key(9), U256::ONE, &store);
    assert!(matches!(missing, Err(SourceError::Missing(_))));
    unchanged(&before, &trie);

    store.0.extend(taken.0);
    trie.remove_slot(key(0), key(1), &store).unwrap();
    model.get_mut(&key(0)).unwrap().1.remove(&key(1));
    check(&trie, &model, &store);
    store.apply(&StateTrie::diff(&before, &trie));
    assert_eq!(store, Store::of(&build(&model)));
}

#[test]
fn a_slot_deleted_in_frag_2_and_rewritten_in_frag_5() {
    let model = sample();
    let store = Store::of(&build(&model));
    let sealed = StateTrie::from_root(model_root(&model));
    let (address, slot) = (key(8), key(20));
    let mut frags = vec![sealed.clone()];
    for frag in 1u64..=5 {
        let mut trie = frags.last().unwrap().clone();
        match frag {
            2 => trie.remove_slot(address, slot, &store).unwrap(),
            5 => trie.set_slot(address, slot, U256::from(21), &store).unwrap(),
            _ => trie.set_slot(address, key(0), U256::from(frag), &store).unwrap(),
        }
        frags.push(trie);
    }
    for (frag, trie) in frags.iter().enumerate() {
        let value = if (2..5).contains(&frag) { 0 } else { 21 };
        assert_eq!(trie.slot(address, slot, &store), Ok(U256::from(value)), "after frag {frag}");
    }
    // The value is the old one: beside the other slot's way nothing differs.
    let diff = StateTrie::diff(&sealed, &frags[5]);
    let mut expected = model;
    expected.get_mut(&address).unwrap().1.insert(key(0), U256::from(4));
    check(&frags[5], &expected, &store);
    assert!(
        diff.changes.iter().all(
            |change| path(&key(0)).starts_with(&change.path) || change.trie == TrieId::Accounts
        )
    );
}

#[test]
fn an_account_removed_and_created_again() {
    let model = sample();
    let mut store = Store::of(&build(&model));
    let before = StateTrie::from_root(model_root(&model));
    let mut trie = before.clone();
    // Part of its storage is held when it goes.
    trie.slot(key(8), key(20), &store).unwrap();
    trie.remove_account(key(8), &store).unwrap();
    assert_eq!(trie.account(key(8), &store), Ok(None));
    assert_eq!(trie.slot(key(8), key(20), &store), Ok(U256::ZERO));
    trie.set_account(key(8), &account(1), &store).unwrap();
    assert_eq!(trie.slot(key(8), key(20), &store), Ok(U256::ZERO));

    // Some slots come back as they were, so that parts of the storage look unchanged.
    let mut expected = model.clone();
    let (expected_account, slots) = expected.get_mut(&key(8)).unwrap();
    *expected_account = account(1);
    slots.retain(|slot, _| slot.0[0] == 0x11);
    for (slot, value) in slots.iter() {
        trie.set_slot(key(8), *slot, *value, &store).unwrap();
    }
    let diff = StateTrie::diff(&before, &trie);
    assert_eq!(diff.wiped, [key(8)]);
    store.apply(&diff);
    check(&StateTrie::from_root(trie.root()), &expected, &store);
    assert_eq!(store, Store::of(&build(&expected)));

    // Held whole, nothing is dropped unseen.
    let before = build(&model);
    let mut trie = before.clone();
    trie.remove_account(key(8), &NoNodes).unwrap();
    let diff = StateTrie::diff(&before, &trie);
    assert!(diff.wiped.is_empty());
    let mut store = Store::of(&before);
    store.apply(&diff);
    assert_eq!(store, Store::of(&trie));
    store.unwind(&diff);
    assert_eq!(store, Store::of(&before));
}

struct Counted<'a>(&'a Store, AtomicUsize);

impl TrieNodes for Counted<'_> {
    fn node(&self, trie: TrieId, path: &Nibbles, hash: B256) -> Result<Bytes, SourceError> {
        self.1.fetch_add(1, Relaxed);
        self.0.node(trie, path, hash)
    }
}

#[test]
fn versions_share_what_one_resolves() {
    let model = sample();
    let store = Store::of(&build(&model));
    let source = Counted(&store, AtomicUsize::new(0));
    let first = StateTrie::from_root(model_root(&model));
    let mut second = first.clone();
    second.set_account(key(0), &account(77), &source).unwrap();
    check(&first, &model, &source);
    let asked = source.1.load(Relaxed);
    assert!(asked <= store.0.len(), "each node once: {asked} of {}", store.0.len());
    second.slot(key(8), key(20), &source).unwrap();
    first.proof(key(8), Some(key(20)), &source).unwrap();
    assert_eq!(source.1.load(Relaxed), asked);

    assert_eq!(first.forget().held(), 0);
    assert_eq!(first.prune(0).held(), 0);
    assert_eq!(first.prune(1).held(), 1);
    let no_storage = first.prune(64);
    assert_eq!(no_storage.held(), build(&model).prune(64).held());
    assert!(no_storage.held() < first.held());
    assert_eq!(first.held(), build(&model).held());
    assert!(first.held() > store.0.len(), "some nodes are part of their parents");
    assert_eq!(no_storage.account(key(16), &NoNodes), Ok(Some(account(16))));
}

#[test]
fn a_genesis() {
    let accounts: Vec<_> = (0..300u64)
        .map(|i| (Address::left_padding_from(&i.to_be_bytes()), account(i), i % 7))
        .collect();
    let slots = |n: u64| (0..n).map(move |i| (U256::from(i), U256::from(i * n)));
    let trie =
        StateTrie::from_accounts(accounts.iter().map(|(a, account, n)| (*a, *account, slots(*n))))
            .unwrap();
    let expected = state_root_unhashed(accounts.iter().map(|(address, account, n)| {
        let slots = slots(*n).filter(|(_, value)| !value.is_zero());
        let storage_root =
            alloy_trie::root::storage_root_unhashed(slots.map(|(s, v)| (B256::from(s), v)));
        let Account { nonce, balance, code_hash } = *account;
        (*address, TrieAccount { nonce, balance, storage_root, code_hash })
    }));
    assert_eq!(trie.root(), expected);
    assert_eq!(StateTrie::default().root(), alloy_trie::EMPTY_ROOT_HASH);
    let empty = StateTrie::from_root(alloy_trie::EMPTY_ROOT_HASH);
    assert_eq!(empty.account(key(0), &NoNodes), Ok(None));
    assert_eq!(empty.proof(key(0), None, &NoNodes), Ok(Vec::new()));
}
