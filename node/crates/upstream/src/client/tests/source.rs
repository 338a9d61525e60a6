//! The RPC source: blocks executed on a client's state, and every lie detected.

mod scene;

use std::sync::Mutex;
use std::time::Instant;

use alloy_consensus::{Header, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use fragcast_execution::devnet::{genesis::account_key, sign, token};
use fragcast_execution::exec::{
    Anchor, BlockError, OnInvalid, OpenBlock, Parent, StateSource, StateView, Tx, Unverified,
    Verdict, env_of,
};
use fragcast_execution::state::{Account, SourceError};
use fragcast_shredder::{GatewayKey, Seal};
use tokio::runtime::Runtime;

use super::*;
use crate::client::{RpcSource, SourceLimits};
use crate::testing::{Fault, Lie};

use self::scene::{Scene, Sender, source_of};

#[test]
fn a_block_on_the_clients_state_is_verified() {
    let scene = Scene::new(3);
    for batch in [100, 1] {
        let client = client_with(&scene.server, |config| config.batch = batch);
        let handle = scene.runtime.handle().clone();
        let source: Arc<dyn StateSource> =
            Arc::new(RpcSource::new(client, handle, SourceLimits::default()));
        assert_eq!(source.head(), Ok(Some(scene.blocks[3].hash())));
        for block in &scene.blocks[1..] {
            assert_eq!(scene.verdict(&source, block), Verdict::Verified, "{}", block.number());
        }
    }
}

#[test]
fn what_did_not_change_is_not_asked_for_again() {
    let mut scene = Scene::new(2);
    let source = scene.source();
    assert_eq!(scene.verdict(&source, &scene.blocks[2]), Verdict::Verified);
    let first = (scene.asked("eth_getProof"), scene.asked("eth_getCode"));
    assert!(first.0 > 0 && first.1 > 0);
    // The same block again, from a new view.
    assert_eq!(scene.verdict(&source, &scene.blocks[2]), Verdict::Verified);
    assert_eq!((scene.asked("eth_getProof"), scene.asked("eth_getCode")), first);
    // The block after it, once what it changed was handed over: what was read of its parent's state and
    // what it changed is known, so an empty block asks for nothing.
    let sealed = scene.execute(&source, &scene.blocks[2]).and_then(|mut open| {
        open.finish()?;
        Ok(Arc::new(open.sealed().unwrap()))
    });
    source.persist(&sealed.unwrap());
    let next = scene.chain.block(1, 0);
    let before = scene.asked("eth_getProof");
    assert_eq!(scene.verdict(&source, &next), Verdict::Verified);
    assert_eq!(scene.asked("eth_getProof"), before);
}

#[test]
fn reads_are_right_whether_it_exists_or_not() {
    let scene = Scene::new(2);
    let source = scene.source();
    let head = &scene.blocks[2];
    let view = source.at(head.hash()).unwrap().unwrap().view;
    let mut addresses: Vec<Address> = scene.chain.genesis.alloc.keys().copied().collect();
    addresses.extend((0..50).map(Address::repeat_byte));
    let slots: Vec<U256> = (0..4).map(U256::from).collect();
    let keys: Vec<_> = addresses.iter().map(|a| (*a, slots.clone())).collect();
    let before = scene.server.state().requests;
    view.prefetch(&keys);
    assert!(scene.server.state().requests <= before + 10, "batched");
    let after = scene.asked("eth_getProof");
    for address in addresses {
        let expected = head.snapshot.state.account(address).unwrap();
        assert_eq!(view.account(address), Ok(expected), "{address}");
        for slot in &slots {
            let expected = head.snapshot.state.storage(address, *slot).unwrap();
            assert_eq!(view.storage(address, *slot), Ok(expected));
        }
    }
    assert_eq!(scene.asked("eth_getProof"), after, "all of it was fetched beforehand");
    let code = view.account(token::ADDRESS).unwrap().unwrap().code_hash;
    assert_eq!(keccak256(view.code(code).unwrap()), code);
    assert!(matches!(view.code(B256::repeat_byte(1)), Err(SourceError::Missing(_))));
    assert!(source.at(B256::repeat_byte(1)).unwrap().is_none());
    assert_eq!(
        source.header(scene.blocks[1].hash()),
        Ok(Some(scene.blocks[1].snapshot.header.clone()))
    );
    assert_eq!(source.header(B256::repeat_byte(1)), Ok(None));
}

const LIES: [Lie; 9] = [
    Lie::ProofByte,
    Lie::ProofShort,
    Lie::ProofOther,
    Lie::ProofEmpty,
    Lie::ProofHuge,
    Lie::ProofStale,
    Lie::Header,
    Lie::OtherBlock,
    Lie::Code,
];

/// A source that fails is no fault of the block's.
#[test]
fn a_source_that_fails_never_rejects_a_block() {
    let scene = Scene::new(3);
    for lie in LIES {
        let source = scene.source();
        scene.server.state().lie = Some(lie);
        let verdict = scene.verdict(&source, &scene.blocks[2]);
        let corrupt =
            matches!(verdict, Verdict::Unverified(Unverified::Source(SourceError::Corrupt(_))));
        assert!(corrupt, "{lie:?}: {verdict:?}");
    }
    scene.server.state().lie = None;
    scene.server.state().proofs_back = Some(1);
    let verdict = scene.verdict(&scene.source(), &scene.blocks[1]);
    let missing =
        matches!(verdict, Verdict::Unverified(Unverified::Source(SourceError::Missing(_))));
    assert!(missing, "{verdict:?}");
}

#[test]
fn every_lie_is_found() {
    let scene = Scene::new(2);
    let block = &scene.blocks[2];
    for lie in LIES {
        let source = scene.source();
        scene.server.state().lie = Some(lie);
        let (verdict, error) = scene.noted(&source, block);
        assert!(matches!(error, Some(SourceError::Corrupt(_))), "{lie:?}: {error:?}");
        assert_ne!(verdict, Verdict::Verified, "{lie:?}");
        // What was kept of the lies does no harm.
        scene.server.state().lie = None;
        assert_eq!(scene.verdict(&source, block), Verdict::Verified, "{lie:?}");
    }
}

#[test]
fn a_lie_about_a_single_read_is_found() {
    let scene = Scene::new(2);
    let hash = scene.blocks[2].hash();
    let absent = Address::repeat_byte(0x55);
    for lie in [Lie::ProofByte, Lie::ProofShort, Lie::ProofEmpty, Lie::ProofHuge, Lie::ProofStale] {
        let view = scene.source().at(hash).unwrap().unwrap().view;
        scene.server.state().lie = Some(lie);
        for address in [absent, token::ADDRESS] {
            let account = view.account(address);
            assert!(matches!(account, Err(SourceError::Corrupt(_))), "{lie:?}: {account:?}");
            let slot = view.storage(address, U256::from(7));
            assert!(matches!(slot, Err(SourceError::Corrupt(_))), "{lie:?}: {slot:?}");
        }
        scene.server.state().lie = None;
        assert_eq!(view.account(absent), Ok(None));
        assert_eq!(view.storage(absent, U256::from(7)), Ok(U256::ZERO));
    }
}

#[test]
fn a_client_that_does_not_answer_leaves_blocks_unverified_in_time() {
    let mut scene = Scene::new(2);
    let timeout = Duration::from_millis(100);
    let source = source_of(&scene.server, &scene.runtime, timeout);
    let patient = scene.source();
    let anchor = patient.at(scene.blocks[1].hash()).unwrap().unwrap();
    let quick = |scene: &Scene| {
        let begun = Instant::now();
        let verdict = scene.verdict(&source, &scene.blocks[2]);
        let unavailable =
            matches!(verdict, Verdict::Unverified(Unverified::Source(SourceError::Unavailable(_))));
        assert!(unavailable, "{verdict:?}");
        assert!(begun.elapsed() < GUARD / 2);
    };
    for fault in [Fault::Silent, Fault::Slow(GUARD), Fault::Close, Fault::Busy] {
        scene.server.state().fault = Some(fault);
        quick(&scene);
    }
    scene.server.state().fault = Some(Fault::Truncated);
    let account = anchor.view.account(Address::ZERO);
    assert!(matches!(account, Err(SourceError::Corrupt(_))), "{account:?}");
    scene.server.state().fault = None;
    scene.server.stop();
    quick(&scene);
    scene.server.start();
    assert_eq!(scene.verdict(&patient, &scene.blocks[2]), Verdict::Verified);
}

#[test]
fn headers_are_walked_back_in_few_requests() {
    let scene = Scene::new(70);
    let source = scene.source();
    let before = scene.server.state().requests;
    let mut hash = scene.blocks[70].hash();
    for block in scene.blocks.iter().rev() {
        let header = source.header(hash).unwrap().unwrap();
        assert_eq!((&header, hash), (&block.snapshot.header, block.hash()));
        hash = header.parent_hash;
    }
    assert!(scene.server.state().requests <= before + 4);
    // A branch that is not the client's any more is walked by hash.
    let source = scene.source();
    scene.server.reorganise(scene.blocks[..=1].to_vec());
    let header = source.header(scene.blocks[70].hash()).unwrap().unwrap();
    let parent = source.header(header.parent_hash).unwrap().unwrap();
    assert_eq!(parent, scene.blocks[69].snapshot.header);
}

#[test]
fn state_that_the_client_has_pruned_is_missing() {
    let scene = Scene::new(3);
    scene.server.state().proofs_back = Some(1);
    let source = scene.source();
    let (verdict, error) = scene.noted(&source, &scene.blocks[1]);
    assert!(matches!(error, Some(SourceError::Missing(_))), "{error:?}");
    assert_ne!(verdict, Verdict::Verified);
    assert_eq!(scene.verdict(&source, &scene.blocks[3]), Verdict::Verified);
}

/// A contract is filled with two slots that share a branch, and one is emptied: the branch
/// collapses onto a sibling that no proof holds.
#[test]
fn a_missing_sibling_leaves_the_block_unverified() {
    // PUSH1 32 CALLDATALOAD PUSH0 CALLDATALOAD SSTORE
    let code = [0x60, 0x20, 0x35, 0x5f, 0x35, 0x55];
    // PUSH1 6 PUSH1 10 PUSH0 CODECOPY PUSH1 6 PUSH0 RETURN, and the code
    let mut init = vec![0x60, 6, 0x60, 10, 0x5f, 0x39, 0x60, 6, 0x5f, 0xf3];
    init.extend(code);
    let mut scene = Scene::new(1);
    let sender = Sender::new(&scene);
    let contract = sender.key.address().create(sender.nonce);
    let set = |after: u64, slot: u64, value: u64| {
        let words = [slot, value].map(|word| U256::from(word).to_be_bytes::<32>());
        sender.tx(after, Some(contract), words.concat())
    };
    let filled = [sender.tx(0, None, init), set(1, 1, u64::MAX), set(2, 2, u64::MAX)];
    let filled = scene.append(&filled);
    let emptied = scene.append(&[set(3, 1, 0)]);
    let state = &emptied.snapshot.state;
    assert_eq!(state.storage(contract, U256::from(1)), Ok(U256::ZERO));
    assert_eq!(state.storage(contract, U256::from(2)), Ok(U256::from(u64::MAX)));

    let source = scene.source();
    let verdict = scene.verdict(&source, &emptied);
    let missing =
        matches!(verdict, Verdict::Unverified(Unverified::Source(SourceError::Missing(_))));
    assert!(missing, "{verdict:?}");
    // With the sibling known it is verified.
    let view = source.at(filled.hash()).unwrap().unwrap().view;
    assert_eq!(view.storage(contract, U256::from(2)), Ok(U256::from(u64::MAX)));
    assert_eq!(scene.verdict(&source, &emptied), Verdict::Verified);
}
