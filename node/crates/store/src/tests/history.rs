//! Executed blocks, read back.

use fragcast_execution::executor::{ChainView, Oldest};
use fragcast_execution::testing::TestChain;

use super::*;

#[test]
fn history_is_what_was_executed() {
    let config = devnet();
    let mut chain = TestChain::with_trie(&config);
    let store = Store::on(TearingBackend::default(), &chain.spec, small(4)).unwrap();
    let blocks: Vec<_> = (0..6).map(|n| chain.block(3, 5 + n)).collect();
    for block in &blocks {
        store.persist(block);
    }
    drain(&store);
    assert_eq!(store.failure(), None);
    let report = store.verify().unwrap();
    assert_eq!((report.number, report.blocks), (6, 7));
    for block in &blocks {
        let hash = block.hash();
        assert_eq!(store.hash(block.number()).unwrap(), Some(hash));
        let stored = store.block(hash).unwrap().unwrap();
        assert_eq!(*stored, block.snapshot.block);
        for placed in block.snapshot.txs() {
            let tx = placed.executed.tx.hash;
            assert_eq!(store.tx(tx).unwrap(), Some((hash, placed.index)));
        }
        assert_eq!(store.header(hash).unwrap().as_ref(), Some(&block.snapshot.header));
    }
    assert_eq!(store.hash(7).unwrap(), None);
    assert!(store.block(B256::repeat_byte(9)).unwrap().is_none());
    let genesis = store.hash(0).unwrap().unwrap();
    assert_eq!(store.block(genesis).unwrap().unwrap().tx_count(), 0);

    // What is taken back is not history.
    store.unwind(blocks[3].hash()).unwrap();
    assert_eq!(store.hash(5).unwrap(), None);
    assert!(store.block(blocks[4].hash()).unwrap().is_none());
    let tx = blocks[5].snapshot.txs().next().unwrap().executed.tx.hash;
    assert_eq!(store.tx(tx).unwrap(), None);
    assert!(store.header(blocks[5].hash()).unwrap().is_none());
    store.verify().unwrap();
    for block in &blocks[4..] {
        store.persist(block);
    }
    drain(&store);
    assert_eq!(store.verify().unwrap().blocks, 7);
}

#[test]
fn old_blocks_are_forgotten_if_so_configured() {
    let mut chain = TestChain::with_trie(&devnet());
    let keep = StoreConfig { keep_blocks: Some(1), ..small(3) };
    let backend = TearingBackend::default();
    let store = Store::on(backend.clone(), &chain.spec, small(3)).unwrap();
    let blocks: Vec<_> = (0..9).map(|_| chain.block(1, 4)).collect();
    blocks[..5].iter().for_each(|block| store.persist(block));
    drop(store);
    let store = Store::on(backend, &chain.spec, keep).unwrap();
    blocks[5..].iter().for_each(|block| store.persist(block));
    drain(&store);
    for block in &blocks {
        let kept = block.number() > 6;
        assert_eq!(store.block(block.hash()).unwrap().is_some(), kept, "{}", block.number());
        let tx = block.snapshot.txs().next().unwrap().executed.tx.hash;
        assert_eq!(store.tx(tx).unwrap().is_some(), kept);
        assert!(store.header(block.hash()).unwrap().is_some());
    }
    assert_eq!(store.verify().unwrap().blocks, 3);
    let reach = |block, state, durable| Reach { block, state: Some(state), durable: Some(durable) };
    assert_eq!(store.reach().unwrap(), reach(Some(7), 6, 9));
    // Readers have what is in memory as well; but of tries that are older than the durable state nodes
    // may be gone, and a state is asked for by its block.
    let view = ChainView::new(Some(Arc::clone(&store) as Arc<dyn History>), 4);
    blocks[2..].iter().for_each(|block| view.add(block));
    assert_eq!(view.oldest().unwrap(), Oldest { block: 3, state: 3, proof: Some(9) });
    view.clear();
    assert_eq!(view.oldest().unwrap(), Oldest { block: 7, state: 7, proof: None });
    store.unwind(blocks[5].hash()).unwrap();
    assert_eq!(store.reach().unwrap(), reach(None, 6, 6));
    store.verify().unwrap();
    assert_eq!(store.durable(), Some((6, blocks[5].hash())));
}

#[test]
fn the_state_of_every_block_that_can_be_taken_back_is_known() {
    let spec = spec();
    for seed in 0..10 {
        let mut rng = Rng(seed);
        let backend = TearingBackend::default();
        let store = Store::on(backend.clone(), &spec, small(6)).unwrap();
        let mut chain = vec![genesis_step(&spec)];
        let mut tip = Tip::of(&store, chain[0].clone());
        for _ in 0..20 {
            store.persist(&tip.block(&store, &mut rng));
            chain.push(tip.step.clone());
        }
        drain(&store);
        // After a start as well: nothing of it is in memory then.
        drop(store);
        let store = Store::on(backend, &spec, small(6)).unwrap();
        for step in &chain {
            let (number, state) = (step.header.number, store.state(step.hash).unwrap());
            assert_eq!(state.is_some(), number >= 14, "block {number}");
            if let Some(state) = state {
                step.model.check(&state);
            }
        }
        assert_eq!(store.reach().unwrap().state, Some(14));
        // Only of blocks that are canonical.
        store.unwind(chain[17].hash).unwrap();
        assert!(store.state(chain[18].hash).unwrap().is_none());
        chain[15].model.check(&store.state(chain[15].hash).unwrap().unwrap());
        assert!(store.state(B256::repeat_byte(9)).unwrap().is_none());
    }
}
