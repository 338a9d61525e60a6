//! A small executed chain for tests of readers: blocks of the devnet's workload.

use std::sync::Arc;

use alloy_primitives::{B256, Bytes, keccak256};
use fragcast_shredder::Env;

use crate::chain::ChainSpec;
use crate::devnet::{DevnetConfig, Genesis, Workload};
use crate::exec::memory::{MemoryState, NoNodes};
use crate::exec::{OnInvalid, OpenBlock, Parent, SealedBlock, State, StateSource, Tx, Unverified};
use crate::executor::{ChainEvent, ChainView, Heads};

/// A source without state: the chain's blocks build on one another.
pub struct NoSource;

impl StateSource for NoSource {
    fn at(&self, _: B256) -> Result<Option<crate::exec::Anchor>, crate::state::SourceError> {
        Ok(None)
    }
    fn head(&self) -> Result<Option<B256>, crate::state::SourceError> {
        Ok(None)
    }
    fn header(
        &self,
        _: B256,
    ) -> Result<Option<alloy_consensus::Header>, crate::state::SourceError> {
        Ok(None)
    }
}

/// A chain that is being built. Without a trie, state roots are zero.
pub struct TestChain {
    /// Its rules.
    pub spec: Arc<ChainSpec>,
    /// The chain as readers see it.
    pub view: Arc<ChainView>,
    /// The source of its transactions.
    pub workload: Workload,
    /// Its newest block.
    pub head: Arc<SealedBlock>,
    /// Block 0.
    pub genesis: Genesis,
    /// The branch, which makes its blocks differ from those of others.
    pub branch: u8,
    /// The attempt of the next block.
    pub attempt: u8,
    source: Arc<dyn StateSource>,
}

impl TestChain {
    /// Block 0 of a devnet with `config`, without a trie.
    pub fn new(config: &DevnetConfig) -> Self {
        Self::starting(config, false)
    }

    /// Block 0 of a devnet with `config`, with a trie.
    pub fn with_trie(config: &DevnetConfig) -> Self {
        Self::starting(config, true)
    }

    fn starting(config: &DevnetConfig, with_trie: bool) -> Self {
        let genesis = Genesis::devnet(config);
        let spec = Arc::new(genesis.chain_spec("dev").unwrap());
        let alloc = spec.genesis.as_ref().unwrap();
        let memory = MemoryState::of_genesis(alloc);
        let trie = if with_trie {
            memory.trie().map_err(Unverified::from)
        } else {
            Err(Unverified::Internal("no trie in this test".into()))
        };
        let state = State::new(Arc::new(memory));
        let header = genesis.header();
        let hash = header.hash_slow();
        let source: Arc<dyn StateSource> = Arc::new(NoSource);
        let hashes = crate::exec::hashes::BlockHashes::new(0, vec![hash], Arc::clone(&source));
        let block = crate::exec::ExecutedBlock {
            attempt: 0,
            hash,
            header,
            frags: Vec::new(),
            withdrawals: None,
        };
        let snapshot = Arc::new(crate::exec::Snapshot { block, state, hashes: Arc::new(hashes) });
        let head = Arc::new(SealedBlock {
            snapshot,
            layer: Arc::default(),
            parent_trie: None,
            trie,
            nodes: Arc::new(NoNodes),
        });
        let view = Arc::new(ChainView::new(None, 1024));
        view.add(&head);
        view.set_heads(Heads {
            latest: Arc::clone(&head),
            pending: None,
            open: Vec::new(),
            safe: None,
            finalized: None,
        });
        Self {
            spec,
            view,
            workload: Workload::new(config),
            head,
            genesis,
            branch: 0,
            attempt: 0,
            source,
        }
    }

    fn parent(&self) -> Parent {
        Parent { hashes: vec![self.head.hash()], ..self.head.as_parent() }
    }

    /// Opens the next block.
    pub fn open(&self) -> OpenBlock {
        let parent = &self.head.snapshot.header;
        let timestamp = parent.timestamp + 2;
        let env = Env {
            number: parent.number + 1,
            parent_hash: self.head.hash(),
            beneficiary: alloy_primitives::Address::repeat_byte(0xfe),
            timestamp,
            gas_limit: parent.gas_limit,
            basefee: self.spec.next_base_fee(parent, timestamp).unwrap(),
            difficulty: Default::default(),
            prevrandao: keccak256(parent.number.to_be_bytes()),
            extra_data: Bytes::copy_from_slice(&[self.branch]),
            parent_beacon_block_root: keccak256(b"beacon"),
        };
        let (attempt, parent) = (self.attempt, self.parent());
        OpenBlock::open(&self.spec, &env, attempt, parent, &self.source, None).unwrap()
    }

    /// Executes a frag of raw transactions and shows it as pending.
    pub fn frag(&self, block: &mut OpenBlock, txs: &[Bytes], is_last: bool) {
        let txs = txs.iter().map(|tx| Tx::decode(tx, false)).collect();
        block.execute(txs, is_last, OnInvalid::Fail).unwrap();
        let heads = self.view.heads().unwrap();
        let pending = block.snapshot();
        self.view.set_heads(Heads {
            pending: Some(Arc::clone(&pending)),
            open: vec![Arc::clone(&pending)],
            ..(*heads).clone()
        });
        self.view.tell(ChainEvent::Frag(pending));
    }

    /// Finishes a block and makes it the head.
    pub fn seal(&mut self, mut block: OpenBlock) -> Arc<SealedBlock> {
        block.finish().unwrap();
        let sealed = Arc::new(block.sealed().unwrap());
        self.head = Arc::clone(&sealed);
        self.view.add(&sealed);
        let heads = self.view.heads().unwrap();
        let latest = Arc::clone(&sealed);
        self.view.set_heads(Heads { latest, pending: None, open: Vec::new(), ..(*heads).clone() });
        self.view.tell(ChainEvent::Verified(Arc::clone(&sealed)));
        sealed
    }

    /// A whole block of `frags` frags with `txs` transactions of the workload each.
    pub fn block(&mut self, frags: usize, txs: usize) -> Arc<SealedBlock> {
        let mut block = self.open();
        for seq in 1..=frags {
            let txs: Vec<Bytes> = (0..txs).map(|_| self.workload.next_tx().bytes).collect();
            self.frag(&mut block, &txs, seq == frags);
        }
        self.seal(block)
    }
}

#[cfg(test)]
#[test]
fn the_chain_executes_its_workload() {
    let mut chain = TestChain::new(&DevnetConfig::default());
    for _ in 0..3 {
        let block = chain.block(2, 20);
        assert_eq!(block.snapshot.tx_count(), 40);
        assert!(block.snapshot.header.gas_used > 40 * 21_000);
        assert!(block.snapshot.txs().all(|placed| placed.executed.receipt.success));
    }
    assert_eq!(chain.view.heads().unwrap().latest.number(), 3);
}
