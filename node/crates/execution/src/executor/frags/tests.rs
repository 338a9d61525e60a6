use alloy_primitives::Bytes;

use super::*;
use crate::devnet::DevnetConfig;
use crate::testing::TestChain;

/// Executes `frags` frags of one transaction and leaves the block open.
fn open(chain: &mut TestChain, frags: usize) -> crate::exec::OpenBlock {
    let mut block = chain.open();
    for _ in 0..frags {
        let txs: Vec<Bytes> = vec![chain.workload.next_tx().bytes];
        chain.frag(&mut block, &txs, false);
    }
    block
}

fn known(chain: &TestChain, number: u64, frag: u64) -> Option<usize> {
    chain.view.after_frag(number, 0, frag).map(|state| state.frags.len())
}

#[test]
fn every_frag_of_the_newest_blocks_keeps_its_state() {
    let mut chain = TestChain::new(&DevnetConfig::default());
    let mut block = open(&mut chain, 3);
    for frag in 0..3 {
        assert_eq!(known(&chain, 1, frag), Some(frag as usize + 1));
    }
    assert_eq!(known(&chain, 1, 3), None);
    assert_eq!(chain.view.after_frag(1, 1, 0).map(|state| state.tx_count()), None);
    chain.frag(&mut block, &[], true);
    chain.seal(block);
    // Verified, it keeps them for as many blocks as are told.
    for number in 2..=BLOCKS {
        assert_eq!(known(&chain, 1, 0), Some(1), "before block {number}");
        chain.block(1, 1);
    }
    assert_eq!(known(&chain, 1, 3), Some(4));
    chain.block(1, 1);
    assert_eq!(known(&chain, 1, 0), None);
    assert_eq!(known(&chain, 2, 0), Some(1));
}

#[test]
fn what_is_retracted_is_forgotten() {
    let mut chain = TestChain::new(&DevnetConfig::default());
    let _block = open(&mut chain, 2);
    let snapshot = Arc::clone(chain.view.heads().unwrap().pending());
    chain.view.tell(crate::executor::ChainEvent::Retracted { snapshot, reason: "superseded" });
    assert_eq!(known(&chain, 1, 0), None);
}

#[test]
fn a_block_of_very_many_frags_keeps_its_last_ones() {
    let chain = TestChain::new(&DevnetConfig::default());
    let mut block = chain.open();
    for _ in 0..STATES + 5 {
        chain.frag(&mut block, &[], false);
    }
    assert_eq!(known(&chain, 1, 4), None);
    assert_eq!(known(&chain, 1, 5), Some(6));
    assert_eq!(known(&chain, 1, STATES as u64 + 4), Some(STATES + 5));
}

#[test]
fn the_age_is_that_of_the_newest_frag() {
    use std::time::Duration;

    let mut chain = TestChain::new(&DevnetConfig::default());
    let age = |chain: &TestChain| chain.view.heads_and_age().unwrap().1;
    assert_eq!(age(&chain), None);
    let mut block = open(&mut chain, 1);
    chain.view.age(Duration::from_secs(3_600));
    assert!(age(&chain).unwrap() >= Duration::from_secs(3_600));
    // The same frag, told again, is as old as it was.
    let heads = chain.view.heads().unwrap();
    chain.view.set_heads((*heads).clone());
    assert!(age(&chain).unwrap() >= Duration::from_secs(3_600));
    chain.frag(&mut block, &[], false);
    assert!(age(&chain).unwrap() < Duration::from_secs(3_600));
}
