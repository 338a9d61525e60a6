//! Random blocks of changes: on a trie that is held whole, pruned after each block, and of which
//! only the root is known.

use alloy_trie::EMPTY_ROOT_HASH;
use alloy_trie::proof::verify_proof;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Set(u8, u64),
    Remove(u8),
    Slot(u8, u8, U256),
    RemoveSlot(u8, u8),
    Wipe(u8),
}

/// An operation on few accounts with many slots, since with more accounts slots would rarely
/// collide.
fn op() -> impl Strategy<Value = Op> {
    let value = prop_oneof![4 => (1u64..200).prop_map(U256::from), 1 => Just(U256::MAX)];
    prop_oneof![
        4 => (0u8..24, 1u64..5).prop_map(|(a, n)| Op::Set(a, n)),
        3 => (0u8..24).prop_map(Op::Remove),
        10 => (0u8..24, 0u8..24, value).prop_map(|(a, s, v)| Op::Slot(a / 8 * 8, s, v)),
        7 => (0u8..24, 0u8..24).prop_map(|(a, s)| Op::RemoveSlot(a / 8 * 8, s)),
        1 => (0u8..24).prop_map(|a| Op::Wipe(a / 8 * 8)),
    ]
}

fn apply(op: &Op, model: &mut Model, trie: &mut StateTrie, nodes: &dyn TrieNodes) {
    match *op {
        Op::Set(a, nonce) => {
            model.entry(key(a)).or_insert((account(nonce), BTreeMap::new())).0 = account(nonce);
            trie.set_account(key(a), &account(nonce), nodes).unwrap();
        }
        Op::Remove(a) => {
            model.remove(&key(a));
            trie.remove_account(key(a), nodes).unwrap();
        }
        Op::Slot(a, slot, value) => {
            let done = trie.set_slot(key(a), key(slot), value, nodes);
            match model.get_mut(&key(a)) {
                Some((_, slots)) => {
                    done.unwrap();
                    slots.insert(key(slot), value);
                }
                None => assert!(matches!(done, Err(SourceError::Missing(_)))),
            }
        }
        Op::RemoveSlot(a, slot) => {
            trie.remove_slot(key(a), key(slot), nodes).unwrap();
            if let Some((_, slots)) = model.get_mut(&key(a)) {
                slots.remove(&key(slot));
            }
        }
        Op::Wipe(a) => {
            trie.wipe_storage(key(a), nodes).unwrap();
            if let Some((_, slots)) = model.get_mut(&key(a)) {
                slots.clear();
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Holds {
    Everything,
    TopLevels,
    Nothing,
}

fn blocks(blocks: &[Vec<Op>], holds: Holds) {
    let mut versions = vec![(StateTrie::default(), Model::new(), Store::default())];
    let mut diffs = Vec::new();
    for block in blocks {
        let (parent, model, mut store) = versions.last().unwrap().clone();
        let parent = match holds {
            Holds::Everything => parent,
            Holds::TopLevels => parent.prune(2),
            Holds::Nothing => StateTrie::from_root(parent.root()),
        };
        let (mut trie, mut model) = (parent.clone(), model);
        for op in block {
            apply(op, &mut model, &mut trie, &store);
        }
        assert_eq!(trie.root(), model_root(&model));
        let diff = StateTrie::diff(&parent, &trie);
        store.apply(&diff);
        // Neither too little nor too much.
        assert_eq!(store, Store::of(&build(&model)));
        check(&StateTrie::from_root(trie.root()), &model, &store);
        check(&trie.prune(1), &model, &store);
        assert_eq!(StateTrie::diff(&trie, &trie.prune(1)), TrieDiff::default());
        assert_eq!(StateTrie::diff(&trie.forget(), &trie), TrieDiff::default());
        diffs.push(diff);
        versions.push((trie, model, store));
    }
    for (trie, model, store) in &versions {
        check(trie, model, store);
        check_proofs(trie, model, store);
    }
    // Backwards, as far as the diffs alone suffice.
    let mut store = versions.last().unwrap().2.clone();
    for (diff, (_, _, before)) in diffs.iter().zip(&versions).rev() {
        if !diff.wiped.is_empty() {
            break;
        }
        store.unwind(diff);
        assert_eq!(store, *before);
    }
}

fn check_proofs(trie: &StateTrie, model: &Model, nodes: &dyn TrieNodes) {
    for address in (0..24).map(key) {
        let entry = model.get(&address);
        let proof = trie.proof(address, None, nodes).unwrap();
        let storage_root = trie.storage_root(address, nodes).unwrap();
        let value = entry.zip(storage_root).map(|((account, _), storage_root)| {
            let Account { nonce, balance, code_hash } = *account;
            alloy_rlp::encode(TrieAccount { nonce, balance, storage_root, code_hash })
        });
        verify_proof(trie.root(), path(&address), value, &proof).unwrap();
        for slot in (0..24).map(key).step_by(5) {
            let proof = trie.proof(address, Some(slot), nodes).unwrap();
            let value = entry.and_then(|(_, slots)| slots.get(&slot)).map(alloy_rlp::encode);
            let root = storage_root.unwrap_or(EMPTY_ROOT_HASH);
            verify_proof(root, path(&slot), value, &proof).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn held_whole(input in vec(vec(op(), 0..40), 1..6)) {
        blocks(&input, Holds::Everything);
    }

    #[test]
    fn pruned_after_each_block(input in vec(vec(op(), 0..40), 1..6)) {
        blocks(&input, Holds::TopLevels);
    }

    #[test]
    fn only_the_root_known(input in vec(vec(op(), 0..40), 1..6)) {
        blocks(&input, Holds::Nothing);
    }
}
