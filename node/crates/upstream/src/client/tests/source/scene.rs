//! Fixtures for the tests of the source.

use super::*;

pub(super) struct Scene {
    pub(super) server: Server,
    pub(super) chain: TestChain,
    pub(super) blocks: Vec<Arc<SealedBlock>>,
    pub(super) runtime: Runtime,
}

/// A source that records the first error it returns, whatever execution makes of it.
pub(super) struct Noting {
    source: Arc<dyn StateSource>,
    first: Arc<Mutex<Option<SourceError>>>,
}

pub(super) struct NotingView {
    view: Arc<dyn StateView>,
    first: Arc<Mutex<Option<SourceError>>>,
}

pub(super) fn note<T>(
    first: &Mutex<Option<SourceError>>,
    result: Result<T, SourceError>,
) -> Result<T, SourceError> {
    if let Err(error) = &result {
        first.lock().unwrap().get_or_insert_with(|| error.clone());
    }
    result
}

impl StateView for NotingView {
    fn account(&self, address: Address) -> Result<Option<Account>, SourceError> {
        note(&self.first, self.view.account(address))
    }
    fn storage(&self, address: Address, slot: U256) -> Result<U256, SourceError> {
        note(&self.first, self.view.storage(address, slot))
    }
    fn code(&self, hash: B256) -> Result<Bytes, SourceError> {
        note(&self.first, self.view.code(hash))
    }
    fn prefetch(&self, keys: &[(Address, Vec<U256>)]) {
        self.view.prefetch(keys);
    }
}

impl StateSource for Noting {
    fn at(&self, block: B256) -> Result<Option<Anchor>, SourceError> {
        let anchor = note(&self.first, self.source.at(block))?;
        Ok(anchor.map(|anchor| {
            let (view, first) = (Arc::clone(&anchor.view), Arc::clone(&self.first));
            Anchor { view: Arc::new(NotingView { view, first }), ..anchor }
        }))
    }
    fn head(&self) -> Result<Option<B256>, SourceError> {
        self.source.head()
    }
    fn header(&self, hash: B256) -> Result<Option<Header>, SourceError> {
        note(&self.first, self.source.header(hash))
    }
}

pub(super) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

pub(super) fn source_of(
    server: &Server,
    runtime: &Runtime,
    timeout: Duration,
) -> Arc<dyn StateSource> {
    let client = client_with(server, |config| config.timeout = timeout);
    Arc::new(RpcSource::new(client, runtime.handle().clone(), SourceLimits::default()))
}

impl Scene {
    /// A chain of `count` blocks, which the client has.
    pub(super) fn new(count: usize) -> Self {
        let mut chain = TestChain::with_trie(&config());
        let blocks = blocks(&mut chain, count, 10);
        let server = Server::up(config().chain_id, blocks.clone());
        Self { server, chain, blocks, runtime: runtime() }
    }

    pub(super) fn source(&self) -> Arc<dyn StateSource> {
        source_of(&self.server, &self.runtime, GUARD)
    }

    /// Executes `block` on its parent's state from the source.
    pub(super) fn execute(
        &self,
        source: &Arc<dyn StateSource>,
        block: &SealedBlock,
    ) -> Result<OpenBlock, BlockError> {
        let parent = block.snapshot.header.parent_hash;
        let anchor = source.at(parent).map_err(Unverified::from)?.expect("the client has it");
        let mut open = self.open(source, anchor.into(), block)?;
        for frag in &block.snapshot.frags {
            let txs = frag.txs.iter().map(|e| Tx::decode(&e.tx.bytes, false)).collect();
            let last = frag.seq + 1 == block.snapshot.frags.len() as u64;
            open.execute(txs, last, OnInvalid::Fail)?;
        }
        Ok(open)
    }

    pub(super) fn open(
        &self,
        source: &Arc<dyn StateSource>,
        parent: Parent,
        block: &SealedBlock,
    ) -> Result<OpenBlock, BlockError> {
        let env = env_of(&block.snapshot.header);
        OpenBlock::open(&self.chain.spec, &env, 0, parent, source, None)
    }

    pub(super) fn verdict(&self, source: &Arc<dyn StateSource>, block: &SealedBlock) -> Verdict {
        match self.execute(source, block) {
            Ok(mut open) => open.check(&seal(block)),
            Err(error) => error.into(),
        }
    }

    /// The verdict on `block`, and the first error of the source.
    pub(super) fn noted(
        &self,
        source: &Arc<dyn StateSource>,
        block: &SealedBlock,
    ) -> (Verdict, Option<SourceError>) {
        let first = Arc::default();
        let noting = Noting { source: Arc::clone(source), first: Arc::clone(&first) };
        let verdict = self.verdict(&(Arc::new(noting) as _), block);
        let first = first.lock().unwrap().clone();
        (verdict, first)
    }

    /// Adds a block of these transactions to the client's chain.
    pub(super) fn append(&mut self, txs: &[Bytes]) -> Arc<SealedBlock> {
        let mut open = self.chain.open();
        self.chain.frag(&mut open, txs, true);
        let block = self.chain.seal(open);
        assert!(block.snapshot.txs().all(|placed| placed.executed.receipt.success));
        self.server.extend(&block);
        block
    }

    pub(super) fn asked(&self, method: &str) -> u64 {
        self.server.state().asked.get(method).copied().unwrap_or_default()
    }
}

pub(super) fn seal(block: &SealedBlock) -> Seal {
    let frags = block.snapshot.frags.len() as u64;
    fragcast_execution::exec::seal_of(&block.snapshot.header, block.hash(), frags, false)
}

pub(super) struct Sender {
    pub(super) key: GatewayKey,
    pub(super) nonce: u64,
}

impl Sender {
    /// The first account that is funded.
    pub(super) fn new(scene: &Scene) -> Self {
        let key = account_key(config().seed, 0);
        let account = scene.chain.head.snapshot.state.account(key.address()).unwrap();
        Self { key, nonce: account.unwrap().nonce }
    }

    /// Its transaction after `after` others.
    pub(super) fn tx(&self, after: u64, to: Option<Address>, input: impl Into<Bytes>) -> Bytes {
        let tx = TxEip1559 {
            chain_id: config().chain_id,
            nonce: self.nonce + after,
            gas_limit: 200_000,
            max_fee_per_gas: 100_000_000_000,
            max_priority_fee_per_gas: 1,
            to: to.map_or(TxKind::Create, TxKind::Call),
            value: U256::ZERO,
            access_list: Default::default(),
            input: input.into(),
        };
        TxEnvelope::from(sign(&self.key, tx)).encoded_2718().into()
    }
}
