//! Reading a balance and calling for it mean the same block, or fail alike.

use std::num::NonZeroU32;
use std::sync::Mutex;

use alloy_primitives::{Address, U256};
use fragcast_execution::devnet::{DevnetConfig, token};
use fragcast_execution::exec::OpenBlock;
use fragcast_execution::executor::History;
use fragcast_execution::state::SourceError;
use fragcast_execution::testing::TestChain;
use futures_util::future::BoxFuture;
use jsonrpsee::Methods;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::{Value, json};

use super::*;
use crate::calls::{self, CallConfig, CallContext};
use crate::error;
use crate::eth::{self, EthConfig, EthContext, NoForwarded};
use crate::stats::EthStats;
use crate::upstream::Upstream;

/// Answers everything, and remembers what it was asked.
#[derive(Default)]
struct Client(Mutex<Vec<String>>);

impl Upstream for Client {
    fn request(&self, method: &str, _: Value) -> BoxFuture<'_, Result<Value, ErrorObjectOwned>> {
        self.0.lock().unwrap().push(method.to_owned());
        Box::pin(async { Ok(json!("from the client")) })
    }
}

struct Fixture {
    chain: TestChain,
    methods: Methods,
    client: Option<Arc<Client>>,
    stats: Arc<EthStats>,
    owner: Address,
}

type Answer = Result<Value, (i64, String)>;

impl Fixture {
    fn on(chain: TestChain, view: &Arc<ChainView>, latest: bool, client: bool) -> Self {
        let client = client.then(Arc::<Client>::default);
        let upstream = || client.clone().map(|client| client as Arc<dyn Upstream>);
        let (preconf_as_latest, pending_max_age_ms) = (latest, 0);
        let config = EthConfig { preconf_as_latest, pending_max_age_ms, ..EthConfig::default() };
        let spec = || Arc::clone(&chain.spec);
        let eth =
            EthContext::new(spec(), Arc::clone(view), config, upstream(), Arc::new(NoForwarded));
        let stats = Arc::clone(&eth.stats);
        let limits = CallConfig { threads: 1.try_into().unwrap(), ..CallConfig::default() };
        let call = CallContext {
            spec: spec(),
            blocks: eth.blocks.clone(),
            pool: limits.pool().unwrap(),
            config: limits,
            upstream: upstream(),
            forwarder: None,
            stats: Arc::clone(&stats),
        };
        let mut methods = Methods::new();
        methods.merge(eth::module(Arc::new(eth))).unwrap();
        methods.merge(calls::module(Arc::new(call))).unwrap();
        let owner = chain.workload.addresses()[0];
        Self { chain, methods, client, stats, owner }
    }

    /// Block 1 is forgotten, 2 and 3 are verified, 4 is open.
    fn new(latest: bool, client: bool) -> (Self, OpenBlock, B256) {
        let accounts = NonZeroU32::new(20).unwrap();
        let mut chain = TestChain::new(&DevnetConfig { accounts, ..DevnetConfig::default() });
        let forgotten = chain.block(1, 50).hash();
        chain.block(1, 50);
        chain.block(1, 50);
        chain.view.remove(forgotten, 1);
        let mut open = chain.open();
        let txs: Vec<_> = (0..50).map(|_| chain.workload.next_tx().bytes).collect();
        chain.frag(&mut open, &txs, false);
        let view = Arc::clone(&chain.view);
        (Self::on(chain, &view, latest, client), open, forgotten)
    }

    async fn ask(&self, method: &str, params: Value) -> Answer {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let (answer, _) = self.methods.raw_json_request(&request.to_string(), 1).await.unwrap();
        let mut answer: Value = serde_json::from_str(answer.get()).unwrap();
        match answer.get("error") {
            None => Ok(answer["result"].take()),
            Some(e) => Err((e["code"].as_i64().unwrap(), e["message"].as_str().unwrap().into())),
        }
    }

    /// The owner's tokens, read from the storage and asked for with a call.
    async fn both(&self, id: &Value) -> (Answer, Answer) {
        let slot = U256::from_be_bytes(token::balance_slot(self.owner).0);
        let read = json!([token::ADDRESS, slot, id]);
        let input = token::balance_of_call(self.owner);
        let call = json!([{ "to": token::ADDRESS, "input": input }, id]);
        (self.ask("eth_getStorageAt", read).await, self.ask("eth_call", call).await)
    }

    fn ids(&self, forgotten: B256) -> Vec<Value> {
        let hash = |hash: B256| json!({ "blockHash": hash });
        let mut ids: Vec<Value> = ["latest", "pending", "earliest", "safe", "finalized"]
            .into_iter()
            .chain(["0x0", "0x1", "0x2", "0x3", "0x4", "0x5", "0xffffffffffffffff"])
            .map(Value::from)
            .collect();
        let frag = |block: &str| json!({ "blockNumber": block, "fragIndex": "0x0" });
        ids.extend(["0x3", "0x4", "0x5"].map(frag));
        ids.extend([self.chain.head.hash(), forgotten, B256::repeat_byte(9)].map(hash));
        ids
    }
}

#[tokio::test]
async fn reading_and_calling_mean_the_same_block() {
    for (latest, client) in [(false, false), (false, true), (true, false), (true, true)] {
        let (f, _open, forgotten) = Fixture::new(latest, client);
        let mut values = Vec::new();
        for id in f.ids(forgotten) {
            let (read, called) = f.both(&id).await;
            assert_eq!(read, called, "{id}, preconf_as_latest: {latest}, client: {client}");
            values.push((id.to_string(), read));
        }
        let value =
            |id: &str| &values.iter().find(|(name, _)| name == &json!(id).to_string()).unwrap().1;
        assert_ne!(value("0x2"), value("0x3"), "the balance changes");
        assert_eq!(value("latest") == value("pending"), latest);
        let frag = json!({ "blockNumber": "0x4", "fragIndex": "0x0" });
        let frag = frag.to_string();
        let after = &values.iter().find(|(id, _)| *id == frag).unwrap().1;
        assert_eq!(after, value("pending"));
        assert_eq!(value(if latest { "0x4" } else { "0x3" }), value("latest"));
        if let Some(client) = &f.client {
            // Both methods asked for what is forgotten, by number and hash, and for the unknown
            // hash; nobody asked for blocks that are not there yet.
            let asked = client.0.lock().unwrap();
            assert_eq!(asked.iter().filter(|method| *method == "eth_call").count(), 3);
            assert_eq!(asked.len(), 6);
        }
    }
}

#[tokio::test]
async fn a_block_after_the_head_does_not_exist_whatever_the_client_has() {
    let (f, ..) = Fixture::new(false, true);
    let after = "header not found: block 5 is after the newest verified block, which is 3";
    let expected = Err((i64::from(error::UNKNOWN_BLOCK), after.to_owned()));
    assert_eq!(f.both(&json!("0x5")).await, (expected.clone(), expected));
    for end in ["safe", "finalized"] {
        let unknown = (i64::from(error::UNKNOWN_BLOCK), format!("{end} block not found"));
        assert_eq!(f.both(&json!(end)).await, (Err(unknown.clone()), Err(unknown)));
    }
    assert!(f.client.unwrap().0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn before_the_first_block_nobody_is_asked() {
    let chain = TestChain::new(&DevnetConfig::default());
    let f = Fixture::on(chain, &Arc::new(ChainView::new(None, 8)), false, true);
    for id in ["latest", "0x0"] {
        let (read, called) = f.both(&json!(id)).await;
        assert_eq!(read.as_ref().unwrap_err().0, i64::from(error::UNAVAILABLE));
        assert_eq!(read, called);
    }
    assert!(f.client.unwrap().0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_passed_on_is_counted_alike() {
    let (f, ..) = Fixture::new(false, true);
    let answer = f.both(&json!("0x1")).await;
    let client = || Ok(json!("from the client"));
    assert_eq!(answer, (client(), client()));
    let count = |name| f.stats.all().iter().find(|(each, _)| *each == name).unwrap().1;
    assert_eq!((count("forwarded"), count("answered"), count("failed")), (2, 0, 0));
}

/// Blocks that are not in memory any more; the state of those from `kept` on is known.
struct Past {
    blocks: Vec<Arc<SealedBlock>>,
    kept: u64,
    made: Mutex<Vec<u64>>,
}

impl Past {
    fn of(&self, hash: B256) -> Option<&Arc<SealedBlock>> {
        self.blocks.iter().find(|block| block.hash() == hash)
    }
}

impl History for Past {
    fn hash(&self, number: u64) -> Result<Option<B256>, SourceError> {
        let found = self.blocks.iter().find(|block| block.number() == number);
        Ok(found.map(|block| block.hash()))
    }
    fn block(&self, hash: B256) -> Result<Option<Arc<ExecutedBlock>>, SourceError> {
        Ok(self.of(hash).map(|block| Arc::new(block.snapshot.block.clone())))
    }
    fn state(&self, hash: B256) -> Result<Option<State>, SourceError> {
        let block = self.of(hash).filter(|block| block.number() >= self.kept);
        self.made.lock().unwrap().extend(block.map(|block| block.number()));
        Ok(block.map(|block| block.snapshot.state.clone()))
    }
    fn tx(&self, _: B256) -> Result<Option<(B256, usize)>, SourceError> {
        Ok(None)
    }
}

#[tokio::test]
async fn states_that_only_history_keeps_are_read_and_called_on() {
    let mut chain = TestChain::new(&DevnetConfig::default());
    let blocks: Vec<_> = (0..5).map(|_| chain.block(1, 50)).collect();
    let past = Arc::new(Past { blocks, kept: 2, made: Mutex::default() });
    let view = Arc::new(ChainView::new(Some(Arc::clone(&past) as _), 8));
    view.add(&chain.head);
    view.set_heads((*chain.view.heads().unwrap()).clone());
    let f = Fixture::on(chain, &view, false, false);
    for block in &past.blocks {
        let hash = json!({ "blockHash": block.hash() });
        for id in [json!(format!("{:#x}", block.number())), hash] {
            let (read, called) = f.both(&id).await;
            assert_eq!(read, called, "{id}");
            if block.number() < past.kept {
                let why = "the state of block 1 is not kept here; configure an execution client";
                assert_eq!(read, Err((i64::from(error::NOT_HERE), why.to_owned())));
                continue;
            }
            let slot = token::balance_slot(f.owner).into();
            let expected = block.snapshot.state.storage(token::ADDRESS, slot).unwrap();
            assert_eq!(read, Ok(json!(B256::from(expected))), "{id}");
        }
    }
    // Made once for all who ask, as long as they are among the last ones.
    assert_eq!(*past.made.lock().unwrap(), [2, 3, 4]);
    f.both(&json!("0x4")).await.0.unwrap();
    f.both(&json!("0x2")).await.0.unwrap();
    assert_eq!(*past.made.lock().unwrap(), [2, 3, 4, 2]);
}
