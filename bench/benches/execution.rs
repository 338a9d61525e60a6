//! Measures execution: the pipeline in comparison with plain revm, the time from the last frag to
//! the checked Seal, and the rate of balance requests over JSON-RPC.
//!
//! It does not use divan: it prints a table of ratios between measurements of the same run. The
//! blocks are one of the devnet's workload and the recorded ones of OP Sepolia, if they are
//! available (FRAGCAST_DATA, default ../shared/data).

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use alloy_consensus::Header;
use alloy_evm::{Evm as _, EvmFactory as _, FromRecoveredTx as _, FromTxWithEncoded as _};
use alloy_op_evm::{OpEvmFactory, OpTx};
use alloy_primitives::{Address, B256, Bytes, U256};
use fragcast::lab::fixtures::RecordedBlock;
use fragcast_execution::chain::{BlockEnv, ChainSpec, Extras};
use fragcast_execution::devnet::{DevnetConfig, DevnetGateway, Genesis};
use fragcast_execution::exec::memory::{MemorySource, MemoryState};
use fragcast_execution::exec::{
    Envelope, OnInvalid, OpenBlock, Parent, StateSource, StateView, Tx, Verdict,
};
use fragcast_execution::executor::{ChainView, Executor, ExecutorConfig};
use fragcast_execution::state::SourceError;
use fragcast_port::{Guard, Port, Service};
use fragcast_rpc::eth::{EthConfig, EthContext, NoForwarded};
use fragcast_shredder::delivery::{Delivered, Output, Times, Via};
use fragcast_shredder::testing::data;
use fragcast_shredder::{BlockBuilder, Dialect, Env, Frag, GatewayKey, Message};
use jsonrpsee::core::client::ClientT;
use jsonrpsee::rpc_params;
use revm::bytecode::Bytecode;
use revm::context::TxEnv;
use revm::database::CacheDB;
use revm::state::AccountInfo;
use revm::{DatabaseCommit as _, DatabaseRef};

/// Rounds of every measurement, of which the fastest and the median are reported.
const ROUNDS: usize = 15;
/// Time-out that no measurement reaches.
const GUARD: Duration = Duration::from_secs(120);

/// A block to execute, on a state source that is made anew for every round.
struct Case {
    name: String,
    spec: Arc<ChainSpec>,
    env: Env,
    txs: Vec<Bytes>,
    parent: Header,
    source: Box<dyn Fn() -> Arc<dyn StateSource>>,
}

/// A state view as a database of revm.
struct View(Arc<dyn StateView>);

impl DatabaseRef for View {
    type Error = SourceError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, SourceError> {
        Ok(self.0.account(address)?.map(|a| AccountInfo {
            nonce: a.nonce,
            balance: a.balance,
            code_hash: a.code_hash,
            ..AccountInfo::default().without_code()
        }))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, SourceError> {
        Ok(Bytecode::new_raw(self.0.code(hash)?))
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, SourceError> {
        self.0.storage(address, slot)
    }

    fn block_hash_ref(&self, _: u64) -> Result<B256, SourceError> {
        Ok(B256::ZERO)
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("View")
    }
}

impl Case {
    fn decode(&self) -> Vec<Tx> {
        let op = self.spec.is_op();
        self.txs.iter().map(|tx| Tx::decode(tx, op).expect("a transaction")).collect()
    }

    /// Executes with revm's own EVM and cache, one transaction after another. Returns the gas, the
    /// time to decode transactions and recover their senders, and the time to execute.
    fn plain(&self) -> (u64, Duration, Duration) {
        let begin = Instant::now();
        let txs = self.decode();
        let recovered = begin.elapsed();
        let source = (self.source)();
        let anchor = source.at(self.env.parent_hash).expect("a source").expect("the parent");
        let header = self.spec.header(&self.env, &self.parent, &Extras::default());
        let db = CacheDB::new(View(anchor.view));
        let mut gas = 0;
        let begin = Instant::now();
        match self.spec.block_env(&header) {
            BlockEnv::Op(env) => {
                let mut evm = OpEvmFactory::<OpTx>::default().create_evm(db, env);
                for tx in &txs {
                    let Envelope::Op(envelope) = &tx.envelope else { unreachable!("an OP chain") };
                    let env = OpTx::from_encoded_tx(envelope, tx.sender, tx.bytes.clone());
                    let done = evm.transact_raw(env).expect("a valid transaction");
                    gas += done.result.tx_gas_used();
                    evm.db_mut().commit(done.state);
                }
            }
            BlockEnv::Eth(env) => {
                let mut evm = alloy_evm::EthEvmFactory::default().create_evm(db, env);
                for tx in &txs {
                    let Envelope::Eth(envelope) = &tx.envelope else { unreachable!("Ethereum") };
                    let env = TxEnv::from_recovered_tx(envelope, tx.sender);
                    let done = evm.transact_raw(env).expect("a valid transaction");
                    gas += done.result.tx_gas_used();
                    evm.db_mut().commit(done.state);
                }
            }
        }
        (gas, recovered, begin.elapsed())
    }

    /// Executes with this project's code, frag after frag, with snapshots and inserts into the
    /// trie. Also measures the time from the last frag to the checked Seal.
    fn ours(&self, frags: usize) -> (u64, Duration, Duration) {
        let txs = self.decode();
        let source = (self.source)();
        let anchor = source.at(self.env.parent_hash).expect("a source").expect("the parent");
        let parent = Parent::from(anchor);
        // The Seal comes from another execution, which is not timed.
        let seal = {
            let mut twin = self.open(parent, &source);
            let all = txs.iter().cloned().map(Ok).collect();
            twin.execute(all, true, OnInvalid::Fail).expect("a valid block");
            twin.make_seal(false).expect("a state root")
        };
        // A new source, since the other execution has warmed the first one.
        let source = (self.source)();
        let anchor = source.at(self.env.parent_hash).expect("a source").expect("the parent");
        let mut block = self.open(Parent::from(anchor), &source);
        let size = txs.len().div_ceil(frags).max(1);
        let count = txs.len().div_ceil(size);
        let chunks: Vec<Vec<_>> =
            txs.chunks(size).map(|chunk| chunk.iter().cloned().map(Ok).collect()).collect();
        let begin = Instant::now();
        for (i, chunk) in chunks.into_iter().enumerate() {
            block.execute(chunk, i + 1 == count, OnInvalid::Fail).expect("a valid frag");
            std::hint::black_box(block.snapshot());
        }
        let executed = begin.elapsed();
        let begin = Instant::now();
        block.finish().expect("a header");
        let mut seal = seal;
        seal.total_frags = block.frags();
        assert_eq!(block.check(&seal), Verdict::Verified);
        (block.gas_used(), executed, begin.elapsed())
    }

    fn open(&self, parent: Parent, source: &Arc<dyn StateSource>) -> OpenBlock {
        OpenBlock::open(&self.spec, &self.env, 0, parent, source, None).expect("a valid Env")
    }

    /// The time from pushing the first message to the verdict, with senders recovered and
    /// everything checked.
    fn pipeline(&self, frags: usize) -> Duration {
        let txs = self.decode();
        let source = (self.source)();
        let anchor = source.at(self.env.parent_hash).expect("a source").expect("the parent");
        let mut builder = self.open(Parent::from(anchor), &source);
        let size = txs.len().div_ceil(frags).max(1);
        let count = txs.len().div_ceil(size);
        let mut block = BlockBuilder::from_env(self.env.clone());
        let mut messages = vec![Message::from(block.env())];
        for (i, chunk) in txs.chunks(size).enumerate() {
            let all = chunk.iter().cloned().map(Ok).collect();
            builder.execute(all, i + 1 == count, OnInvalid::Fail).expect("a valid frag");
            let frag = block.frag(chunk.iter().map(|tx| tx.bytes.clone()));
            messages.push(Frag { is_last: i + 1 == count, ..frag }.into());
        }
        messages.push(Message::Seal(builder.make_seal(false).expect("a state root")));
        let outputs = outputs(messages);
        let (tell, verdicts) = mpsc::channel();
        let view = Arc::new(ChainView::new(None, 16));
        let executor = Executor::spawn(
            Arc::clone(&self.spec),
            (self.source)(),
            view,
            ExecutorConfig::default(),
            Some(Box::new(move |report| drop(tell.send(report.verdict.clone())))),
        )
        .expect("a thread");
        let begin = Instant::now();
        for output in &outputs {
            assert!(executor.try_push(output));
        }
        let verdict = verdicts.recv_timeout(GUARD).expect("a verdict");
        let took = begin.elapsed();
        assert_eq!(verdict, Verdict::Verified);
        took
    }
}

fn outputs(messages: Vec<Message>) -> Vec<Output> {
    let gateway = GatewayKey::from_bytes([0x11; 32]).expect("a key");
    let all = messages.into_iter().map(|message| {
        let message = gateway.sign_verified(message);
        let delivered = Delivered::of_attempt(0, message, Times::default(), Via::Turbine);
        Output::Message(Arc::new(delivered.expect("few messages")))
    });
    all.collect()
}

fn devnet_case() -> Case {
    let config = DevnetConfig { timestamp: 1_000, ..DevnetConfig::default() };
    let genesis = Genesis::devnet(&config);
    let spec = Arc::new(genesis.chain_spec("dev").expect("a chain"));
    let state = MemoryState::of_genesis(spec.genesis.as_ref().expect("a genesis"));
    let mut gateway = DevnetGateway::new(&config, Dialect::V0).expect("a genesis");
    let messages = gateway.block(1_002, 10, 200).expect("a block");
    let mut txs = Vec::new();
    let mut env = None;
    for message in messages {
        match message {
            Message::Env(e) => env = Some(e),
            Message::Frag(frag) => txs.extend(frag.txs),
            Message::Seal(_) => {}
        }
    }
    let parent = genesis.header();
    let source = MemorySource::new(parent.clone(), state).expect("a source");
    let source: Arc<dyn StateSource> = Arc::new(source);
    Case {
        name: "devnet, 2,000 transactions".into(),
        spec,
        env: env.expect("an Env"),
        txs,
        parent,
        source: Box::new(move || Arc::clone(&source)),
    }
}

fn recorded_cases() -> Vec<Case> {
    let Some(folder) = data("op-sepolia") else { return Vec::new() };
    let files = std::fs::read_dir(folder).expect("a folder of recorded blocks");
    let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    paths.sort();
    let case = |path: &PathBuf| {
        let block = RecordedBlock::load(path).ok()?;
        let witness = Arc::new(block.witness().ok()?);
        let parent = block.parent_header.clone();
        let header = parent.clone();
        Some(Case {
            name: format!("op-sepolia {}", block.number),
            spec: Arc::new(block.chain_spec().ok()?),
            env: block.env(),
            txs: block.attributes.txs,
            parent,
            source: Box::new(move || {
                let witness = Arc::clone(&witness);
                Arc::new(fragcast_execution::exec::WitnessSource::new(header.clone(), witness))
            }),
        })
    };
    paths.iter().filter_map(case).collect()
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The fastest time and the median.
fn best<T: Ord + Copy>(mut all: Vec<T>) -> (T, T) {
    all.sort();
    (all[0], all[all.len() / 2])
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn execution() {
    say("execution, Mgas/s: fastest of 15 rounds (median); ratios (×) of the fastest");
    say("revm:     plain revm on a cache of its own, senders given");
    say(
        "frags:    ours with the same, with snapshots and inserts into the trie, 10 frags; × of revm",
    );
    say("raw:      plain revm from raw transactions, senders recovered one after the other");
    say(
        "pipeline: ours from the first message to the verdict: senders, frags, roots, Seal; × of raw",
    );
    say("seal:     from the last frag's execution to the checked Seal, ms");
    say(&format!(
        "{:<27} {:>6} {:>15} {:>15} {:>5} {:>15} {:>15} {:>5} {:>15}",
        "block", "Mgas", "revm", "frags", "×", "raw", "pipeline", "×", "seal ms"
    ));
    for case in std::iter::once(devnet_case()).chain(recorded_cases()) {
        let mut plain = Vec::new();
        let mut raw = Vec::new();
        let mut frags = Vec::new();
        let mut seals = Vec::new();
        let mut pipeline = Vec::new();
        let mut gas = 0;
        // Each round runs all of them, so that a slow moment affects all alike.
        for _ in 0..ROUNDS {
            let (plain_gas, recovered, took) = case.plain();
            plain.push(took);
            raw.push(recovered + took);
            let (ours_gas, executed, sealed) = case.ours(10);
            assert_eq!(plain_gas, ours_gas, "the same block");
            gas = ours_gas;
            frags.push(executed);
            seals.push(sealed);
            pipeline.push(case.pipeline(10));
        }
        let rate = |took: Duration| gas as f64 / 1e6 / took.as_secs_f64();
        let (plain, raw, frags, seals, pipeline) =
            (best(plain), best(raw), best(frags), best(seals), best(pipeline));
        let pair =
            |took: (Duration, Duration)| format!("{:.0} ({:.0})", rate(took.0), rate(took.1));
        let ratio = |theirs: (Duration, Duration), ours: (Duration, Duration)| {
            theirs.0.as_secs_f64() / ours.0.as_secs_f64()
        };
        say(&format!(
            "{:<27} {:>6.2} {:>15} {:>15} {:>5.2} {:>15} {:>15} {:>5.2} {:>15}",
            case.name,
            gas as f64 / 1e6,
            pair(plain),
            pair(frags),
            ratio(plain, frags),
            pair(raw),
            pair(pipeline),
            ratio(raw, pipeline),
            format!("{:.2} ({:.2})", ms(seals.0), ms(seals.1)),
        ));
    }
}

/// A node's RPC module over a chain with an open block.
fn reading() -> (jsonrpsee::RpcModule<EthContext>, Vec<Address>, Executor) {
    let config = DevnetConfig { timestamp: 1_000, ..DevnetConfig::default() };
    let genesis = Genesis::devnet(&config);
    let spec = Arc::new(genesis.chain_spec("dev").expect("a chain"));
    let state = MemoryState::of_genesis(spec.genesis.as_ref().expect("a genesis"));
    let source = MemorySource::new(genesis.header(), state).expect("a source");
    let view = Arc::new(ChainView::new(None, 1024));
    let (bounds, spec_) = (ExecutorConfig::default(), Arc::clone(&spec));
    let executor = Executor::spawn(spec_, Arc::new(source), Arc::clone(&view), bounds, None);
    let executor = executor.expect("a thread");
    let mut gateway = DevnetGateway::new(&config, Dialect::V0).expect("a genesis");
    let mut messages = Vec::new();
    for n in 1..=4 {
        messages.extend(gateway.block(1_000 + 2 * n, 10, 50).expect("a block"));
    }
    messages.push(Message::Env(gateway.open(1_010).expect("an Env")));
    for _ in 0..5 {
        messages.push(Message::Frag(gateway.frag(50, false).expect("a frag")));
    }
    for output in outputs(messages) {
        assert!(executor.try_push(&output));
    }
    let begin = Instant::now();
    let there = || {
        view.heads().is_some_and(|heads| heads.pending.as_ref().is_some_and(|p| p.frags.len() == 5))
    };
    while !there() {
        assert!(begin.elapsed() < GUARD, "the blocks are executed");
        std::thread::sleep(Duration::from_millis(5));
    }
    let accounts = genesis.alloc.keys().copied().collect();
    let context = EthContext::new(spec, view, EthConfig::default(), None, Arc::new(NoForwarded));
    (fragcast_rpc::eth::module(Arc::new(context)), accounts, executor)
}

async fn balances() {
    const CALLS: usize = 50_000;
    const CLIENTS: usize = 32;
    let (module, accounts, _executor) = reading();
    let begin = Instant::now();
    for i in 0..CALLS {
        let address = accounts[i % accounts.len()];
        let balance: U256 =
            module.call("eth_getBalance", (address, "pending")).await.expect("a balance");
        std::hint::black_box(balance);
    }
    let direct = CALLS as f64 / begin.elapsed().as_secs_f64();

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let config = EthConfig::default();
    let settings = config.port(config.memory(), Arc::new(Guard::default()), None);
    let here = tokio::runtime::Handle::current();
    let port = Port::open(listener, settings, Service::Rpc(module.into()), &here).expect("a port");
    let address = port.address();
    let http = jsonrpsee::http_client::HttpClientBuilder::default()
        .build(format!("http://{address}"))
        .expect("a client");
    let http = load(&Arc::new(http), &accounts, CALLS / 5, CLIENTS).await;
    let ws = jsonrpsee::ws_client::WsClientBuilder::default()
        .build(format!("ws://{address}"))
        .await
        .expect("a client");
    let ws = load(&Arc::new(ws), &accounts, CALLS / 5, CLIENTS).await;
    port.stop(GUARD).await;
    say("");
    say(&format!(
        "eth_getBalance(pending), {} accounts, five frags of an open block over four blocks, calls a \
         second",
        accounts.len()
    ));
    say(&format!("{:<52} {direct:>9.0}", "through the module, one after the other, one core"));
    say(&format!("{:<52} {http:>9.0}", "HTTP, 32 at a time, both ends on this machine"));
    say(&format!("{:<52} {ws:>9.0}", "WebSocket, 32 at a time, both ends on this machine"));
}

/// Calls a second with `clients` concurrent clients.
async fn load<C: ClientT + Send + Sync + 'static>(
    client: &Arc<C>,
    accounts: &[Address],
    calls: usize,
    clients: usize,
) -> f64 {
    let begin = Instant::now();
    let tasks = (0..clients).map(|n| {
        let (client, accounts) = (Arc::clone(client), accounts.to_vec());
        tokio::spawn(async move {
            for i in 0..calls / clients {
                let address = accounts[(i * clients + n) % accounts.len()];
                let params = rpc_params![address, "pending"];
                let balance: U256 =
                    client.request("eth_getBalance", params).await.expect("a balance");
                std::hint::black_box(balance);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    (calls / clients * clients) as f64 / begin.elapsed().as_secs_f64()
}

fn main() {
    execution();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(balances());
}
