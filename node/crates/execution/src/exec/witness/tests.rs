//! A small state whose trie nodes are the witness.

use alloy_consensus::Header;
use alloy_trie::EMPTY_ROOT_HASH;

use super::*;
use crate::exec::memory::MemoryState;

const ALICE: Address = Address::repeat_byte(0xa1);

/// A state of 200 accounts, of which one has code and slots, as a header and preimages.
fn witness() -> (Header, B256Map<Bytes>) {
    let mut state = MemoryState::default();
    let code = Bytes::from_static(&[0x60, 0x01, 0x00]);
    let slots = (0..50_u64).map(|i| (U256::from(i), U256::from(i * 1000)));
    state.insert(ALICE, 3, U256::from(7), &code, slots);
    for i in 0..199_u64 {
        let address = Address::from_word(keccak256(i.to_be_bytes()));
        state.insert(address, i, U256::from(i), &Bytes::new(), std::iter::empty());
    }
    let trie = state.trie().unwrap();
    let header = Header { number: 8, state_root: trie.root(), ..Header::default() };
    let nodes = StateTrie::diff(&StateTrie::from_root(EMPTY_ROOT_HASH), &trie);
    let mut all: Vec<Bytes> = nodes.changes.into_iter().filter_map(|node| node.after).collect();
    all.push(code);
    all.push(alloy_rlp::encode(Header { number: 7, ..Header::default() }).into());
    (header, all.into_iter().map(|bytes| (keccak256(&bytes), bytes)).collect())
}

fn source(header: &Header, preimages: B256Map<Bytes>) -> WitnessSource {
    WitnessSource::new(header.clone(), Arc::new(Witness::new(preimages).unwrap()))
}

#[test]
fn everything_can_be_read() {
    let (header, preimages) = witness();
    let source = source(&header, preimages);
    let hash = header.hash_slow();
    assert!(source.at(B256::ZERO).unwrap().is_none());
    assert_eq!(source.head(), Ok(None));
    let anchor = source.at(hash).unwrap().unwrap();
    assert_eq!((anchor.hash, &anchor.header), (hash, &header));
    let account = anchor.view.account(ALICE).unwrap().unwrap();
    assert_eq!((account.nonce, account.balance), (3, U256::from(7)));
    assert_eq!(anchor.view.code(account.code_hash).unwrap()[..], [0x60, 0x01, 0x00]);
    let slot = |slot: u64| anchor.view.storage(ALICE, U256::from(slot));
    assert_eq!(
        (slot(49), slot(0), slot(77)),
        (Ok(U256::from(49_000)), Ok(U256::ZERO), Ok(U256::ZERO))
    );
    // Absence is proven as well.
    assert_eq!(anchor.view.account(Address::repeat_byte(0xb0)), Ok(None));
    let before = Header { number: 7, ..Header::default() };
    assert_eq!(source.header(before.hash_slow()), Ok(Some(before)));
    assert_eq!(source.header(hash), Ok(Some(header)));
    assert_eq!(source.header(B256::ZERO), Ok(None));
    // A node is no header.
    let root = anchor.header.state_root;
    assert!(matches!(source.header(root), Err(SourceError::Corrupt(_))));
}

#[test]
fn what_is_lacking_is_missing_and_never_empty() {
    let (header, preimages) = witness();
    let mut missing = 0;
    for hash in preimages.keys() {
        let mut fewer = preimages.clone();
        fewer.remove(hash);
        let source = source(&header, fewer);
        let anchor = source.at(header.hash_slow()).unwrap().unwrap();
        for slot in 0..51_u64 {
            match anchor.view.storage(ALICE, U256::from(slot)) {
                Ok(value) => assert_eq!(value, U256::from(if slot < 50 { slot * 1000 } else { 0 })),
                Err(error) => {
                    assert!(matches!(error, SourceError::Missing(_)), "{error}");
                    missing += 1;
                }
            }
        }
    }
    assert!(missing > 50, "{missing}");
}

#[test]
fn a_wrong_byte_anywhere_is_told() {
    let (_, preimages) = witness();
    for (hash, bytes) in &preimages {
        let mut wrong = preimages.clone();
        let mut changed = bytes.to_vec();
        let at = changed.len() / 2;
        changed[at] ^= 0x10;
        wrong.insert(*hash, changed.into());
        let error = Witness::new(wrong).unwrap_err();
        assert!(matches!(error, SourceError::Corrupt(_)), "{error}");
        assert!(error.to_string().contains(&hash.to_string()), "{error}");
    }
}
