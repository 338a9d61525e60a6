//! A small executed chain for tests of readers: blocks of the devnet's workload.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{B256, Bytes, keccak256};
use fragcast_shredder::Env;

use crate::chain::{ChainSpec, genesis_header};
use crate::devnet::{DevnetConfig, Genesis, Workload};
use crate::exec::hashes::BlockHashes;
use crate::exec::memory::{MemoryState, NoNodes};
use crate::exec::{
    BlockError, Executed, ExecutedBlock, ExecutedFrag, OnInvalid, OpenBlock, Parent, SealedBlock,
    Snapshot, State, StateSource, Tx, Unverified, env_of,
};
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
        let source: Arc<dyn StateSource> = Arc::new(NoSource);
        let memory = MemoryState::of_genesis(spec.genesis.as_ref().unwrap());
        let (head, view) = block_0(&spec, genesis.header(), memory, with_trie, &source);
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

/// Block 0 with its state, and a view whose head it is.
fn block_0(
    spec: &ChainSpec,
    header: Header,
    memory: MemoryState,
    with_trie: bool,
    source: &Arc<dyn StateSource>,
) -> (Arc<SealedBlock>, Arc<ChainView>) {
    let trie = if with_trie {
        memory.trie().map_err(Unverified::from)
    } else {
        Err(Unverified::Internal("no trie in this test".into()))
    };
    let state = State::new(Arc::new(memory));
    let hash = header.hash_slow();
    let hashes = BlockHashes::new(0, vec![hash], Arc::clone(source));
    let withdrawals = header.withdrawals_root.map(|_| Arc::default());
    let withdrawals = withdrawals.filter(|_| !spec.is_op());
    let block = ExecutedBlock { attempt: 0, hash, header, frags: Vec::new(), withdrawals };
    let snapshot = Arc::new(Snapshot { block, state, hashes: Arc::new(hashes) });
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
    (head, view)
}

/// A chain whose blocks the test has from elsewhere, with tries.
pub struct GivenChain {
    /// Its rules, with its genesis.
    pub spec: Arc<ChainSpec>,
    /// The chain as readers see it.
    pub view: Arc<ChainView>,
    /// Its newest block.
    pub head: Arc<SealedBlock>,
    source: Arc<dyn StateSource>,
}

impl GivenChain {
    /// Block 0, from the genesis of `spec`.
    pub fn new(spec: ChainSpec) -> Self {
        let genesis = spec.genesis.as_ref().unwrap();
        let (header, memory) = (genesis_header(&spec, genesis), MemoryState::of_genesis(genesis));
        let source: Arc<dyn StateSource> = Arc::new(NoSource);
        let (head, view) = block_0(&spec, header, memory, true, &source);
        Self { spec: Arc::new(spec), view, head, source }
    }

    /// Takes the next block without executing it, with its transactions, if they are known, and the
    /// state after it, if that is known.
    pub fn take(&mut self, header: Header, txs: Vec<Executed>, state: Option<MemoryState>) {
        let hash = header.hash_slow();
        let ancestors = self.head.snapshot.hashes.child(self.head.hash());
        let hashes = BlockHashes::new(header.number - 1, ancestors, Arc::clone(&self.source));
        let trie = match &state {
            Some(state) => Ok(state.trie().unwrap()),
            None => Err(Unverified::Internal("no state of this block".into())),
        };
        if let Ok(trie) = &trie {
            assert_eq!(trie.root(), header.state_root, "block {}", header.number);
        }
        let frag = ExecutedFrag { seq: 0, first_index: 0, first_log: 0, txs };
        let frags = if frag.txs.is_empty() { Vec::new() } else { vec![Arc::new(frag)] };
        let state = State::new(Arc::new(state.unwrap_or_default()));
        let block = ExecutedBlock { attempt: 0, hash, header, frags, withdrawals: None };
        let sealed = SealedBlock {
            snapshot: Arc::new(Snapshot { block, state, hashes: Arc::new(hashes) }),
            layer: Arc::default(),
            parent_trie: None,
            trie,
            nodes: Arc::new(NoNodes),
        };
        self.add(Arc::new(sealed));
    }

    /// Executes the next block. It comes out with `header` or this panics.
    ///
    /// # Errors
    /// The block cannot be executed.
    pub fn append(
        &mut self,
        header: &Header,
        txs: &[Bytes],
        withdrawals: Option<Vec<Withdrawal>>,
    ) -> Result<(), BlockError> {
        let (env, parent) = (env_of(header), self.head.as_parent());
        let mut block = OpenBlock::open(&self.spec, &env, 0, parent, &self.source, withdrawals)?;
        let txs = txs.iter().map(|tx| Tx::decode(tx, self.spec.is_op())).collect();
        block.execute(txs, true, OnInvalid::Fail)?;
        block.finish()?;
        let sealed = block.sealed().unwrap();
        assert_eq!(sealed.snapshot.header, *header, "block {}", header.number);
        self.add(Arc::new(sealed));
        Ok(())
    }

    /// Makes a block the head, as final as blocks can be.
    fn add(&mut self, sealed: Arc<SealedBlock>) {
        let end = Some((sealed.number(), sealed.hash()));
        self.head = Arc::clone(&sealed);
        self.view.add(&sealed);
        self.view.set_heads(Heads {
            latest: Arc::clone(&sealed),
            pending: None,
            open: Vec::new(),
            safe: end,
            finalized: end,
        });
        self.view.tell(ChainEvent::Verified(sealed));
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
