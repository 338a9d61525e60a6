//! Layers over a state.

use alloy_primitives::map::AddressMap;
use proptest::prelude::*;

use super::*;
use crate::exec::memory::MemoryState;

fn account(nonce: u64) -> Account {
    Account { nonce, balance: U256::from(nonce), code_hash: KECCAK256_EMPTY }
}

/// A change to one of few accounts and slots.
#[derive(Debug, Clone)]
enum Change {
    Account(u8, u64),
    Slot(u8, u8, u64),
    Destroy(u8),
}

fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let change = prop_oneof![
        (0..4u8, 1..9u64).prop_map(|(a, n)| Change::Account(a, n)),
        (0..4u8, 0..4u8, 0..9u64).prop_map(|(a, s, v)| Change::Slot(a, s, v)),
        (0..4u8).prop_map(Change::Destroy),
    ];
    prop::collection::vec(prop::collection::vec(change, 0..8), 0..8)
}

#[derive(Default, Clone)]
struct Model {
    accounts: AddressMap<Account>,
    slots: HashMap<(Address, U256), U256>,
}

fn layer_of(changes: &[Change], model: &mut Model) -> Layer {
    let mut layer = Layer::default();
    for change in changes {
        match *change {
            Change::Account(a, n) => {
                let address = Address::repeat_byte(a);
                layer.accounts.insert(address, Some(account(n)));
                model.accounts.insert(address, account(n));
            }
            Change::Slot(a, s, v) => {
                let (address, slot, value) =
                    (Address::repeat_byte(a), U256::from(s), U256::from(v));
                layer.storage.entry(address).or_default().slots.insert(slot, value);
                model.slots.insert((address, slot), value);
            }
            Change::Destroy(a) => {
                let address = Address::repeat_byte(a);
                layer.accounts.insert(address, None);
                let wiped = StorageChange { wiped: true, ..StorageChange::default() };
                layer.storage.insert(address, wiped);
                model.accounts.remove(&address);
                model.slots.retain(|(a, _), _| *a != address);
            }
        }
    }
    layer
}

fn check(state: &State, model: &Model) {
    for a in 0..5 {
        let address = Address::repeat_byte(a);
        assert_eq!(state.account(address).unwrap(), model.accounts.get(&address).copied());
        for s in 0..5 {
            let slot = U256::from(s);
            let expected = model.slots.get(&(address, slot)).copied().unwrap_or_default();
            assert_eq!(state.storage(address, slot).unwrap(), expected);
        }
    }
}

proptest! {
    /// Layers, merged layers, compacted states and rebased states read as if every change had
    /// been made in place.
    #[test]
    fn layers_read_as_one_state(all in changes()) {
        let mut base = MemoryState::default();
        let mut model = Model::default();
        for a in 0..2u8 {
            let address = Address::repeat_byte(a);
            let slots = [(U256::from(1), U256::from(5)), (U256::from(2), U256::from(6))];
            base.insert(address, 7, U256::from(7), &Bytes::new(), slots.into_iter());
            model.accounts.insert(address, account(7));
            model.slots.extend(slots.map(|(slot, value)| ((address, slot), value)));
        }
        let base: Arc<dyn StateView> = Arc::new(base);
        let mut states = vec![(State::new(Arc::clone(&base)), model.clone())];
        let mut merged = Layer::default();
        let mut layers = Vec::new();
        let mut cache = ReadCache::default();
        for changes in &all {
            let layer = Arc::new(layer_of(changes, &mut model));
            merged.merge(&layer);
            let (state, _) = states.last().unwrap();
            let state = state.with(Arc::clone(&layer));
            // What a frag's reads have cached stays right under the next frag.
            let hashes = BlockHashes::new(0, Vec::new(), Arc::new(crate::testing::NoSource));
            let mut db = OverlayDb::new(state.clone(), Arc::new(hashes));
            cache.apply(&layer);
            db.cache = std::mem::take(&mut cache);
            for a in 0..5 {
                for s in 0..5 {
                    let (address, slot) = (Address::repeat_byte(a), U256::from(s));
                    let expected = model.slots.get(&(address, slot)).copied().unwrap_or_default();
                    prop_assert_eq!(db.storage(address, slot).unwrap(), expected);
                }
            }
            cache = db.cache;
            states.push((state, model.clone()));
            layers.push(layer);
        }
        for (state, model) in &states {
            check(state, model);
            for keep in 0..3 {
                check(&state.compact(keep), model);
            }
        }
        let (last, _) = states.last().unwrap();
        check(&State::new(Arc::clone(&base)).with(Arc::new(merged)), &model);
        for (i, layer) in layers.iter().enumerate() {
            // A source that has taken over everything up to layer i.
            let newer: Arc<dyn StateView> = Arc::new(states[i + 1].0.clone());
            let rebased = last.rebase(&newer, layer).unwrap();
            prop_assert_eq!(rebased.depth(), layers.len() - i - 1);
            check(&rebased, &model);
        }
    }
}
