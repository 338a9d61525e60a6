//! The methods of Ethereum's JSON-RPC that read and follow the chain.
//!
//! Invariant: an answer takes the heads once and is made from immutable blocks reached from
//! there, so nothing in it is torn. What is not kept here goes, with the same method and the
//! same parameters, to the execution client ([`Upstream`]); without one it is an error that says
//! so ([`error`](crate::error) has the codes).
//!
//! There are two views of the chain ([`resolve`](crate::resolve)), each with a context of its own
//! ([`EthContext::showing`]). A receipt, a log or a transaction of a block that is not verified names
//! it by its provisional hash, because some clients' decoders refuse null there; the block itself, asked
//! for by the tag `pending`, has null for its hash and nonce, as geth has it. Filters that clients poll ([`filters`]) and subscriptions
//! (`subscribe.rs`) both read the view's ring of events. A reader that does not keep up costs
//! nothing and is dropped, never waited for.

mod blocks;
pub mod config;
mod fees;
pub mod filters;
mod forks;
mod l1;
mod logs;
mod proof;
mod ranges;
mod raw;
mod state;
mod subscribe;
mod types;

use std::sync::Arc;

use alloy_primitives::{Address, B256, U64};
use jsonrpsee::RpcModule;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use fragcast_execution::chain::ChainSpec;
use fragcast_execution::exec::Tx;
use fragcast_execution::executor::ChainView;
use fragcast_port::{Memory, Shared};
use fragcast_upstream::client::FollowStats;

pub use config::EthConfig;

use crate::error::Failure;
use crate::params::Params as Strict;
use crate::resolve::{Blocks, Ends, Found, Freshness, View};
use crate::stats::EthStats;
use crate::upstream::{Upstream, pass_on};
use filters::Filters;
use ranges::Values;

/// Transactions that this node has forwarded and that are in no executed frag yet.
pub trait Forwarded: Send + Sync {
    /// The nonce of the account's next transaction, given the nonce in the pending state.
    fn pending_nonce(&self, address: Address, state_nonce: u64) -> u64;
    /// The forwarded transaction with this hash.
    fn get(&self, _hash: B256) -> Option<Tx> {
        None
    }
}

/// For nodes that forward no transactions.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoForwarded;

impl Forwarded for NoForwarded {
    fn pending_nonce(&self, _: Address, state_nonce: u64) -> u64 {
        state_nonce
    }
}

/// State that all methods share.
pub struct EthContext {
    /// The chain.
    pub spec: Arc<ChainSpec>,
    /// The chain as readers see it.
    pub view: Arc<ChainView>,
    /// Finds blocks in it.
    pub blocks: Blocks,
    /// Limits and options.
    pub config: EthConfig,
    /// The execution client, if there is one.
    pub upstream: Option<Arc<dyn Upstream>>,
    /// Forwarded transactions that are not executed yet.
    pub forwarded: Arc<dyn Forwarded>,
    /// Request counters.
    pub stats: Arc<EthStats>,
    /// What requests and answers take together; the port that serves the module has the same.
    pub memory: Arc<Memory>,
    /// Whether reading the state may wait for an execution client. Then it must not happen on a
    /// thread of the runtime.
    pub state_waits: bool,
    /// Counters of following the execution client, if there is one.
    pub follow: Option<Arc<FollowStats>>,
    shared: Arc<Shared<subscribe::Key>>,
    filters: Arc<Filters>,
    /// What the filters of subscriptions count in.
    subscribed: Arc<Values>,
    fees: Arc<fees::Tips>,
    heavy: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

/// The most reads at a time that wait for an execution client, each on a thread.
const MAX_WAITING_READS: usize = 64;

/// Bytes of notifications that are kept for those who have not asked for them yet.
const SHARED: usize = 16 * 1024 * 1024;

/// Methods that read the state.
const STATE: [&str; 5] = [
    "eth_getBalance",
    "eth_getTransactionCount",
    "eth_getCode",
    "eth_getStorageAt",
    "eth_getAccountInfo",
];

impl EthContext {
    /// A context without filters or subscriptions.
    pub fn new(
        spec: Arc<ChainSpec>,
        view: Arc<ChainView>,
        config: EthConfig,
        upstream: Option<Arc<dyn Upstream>>,
        forwarded: Arc<dyn Forwarded>,
    ) -> Self {
        let memory = config.memory();
        let ends = Ends { safe: config.safe_behind, finalized: config.finalized_behind };
        let fresh = Arc::new(Freshness::new(config.pending_max_age()));
        Self {
            spec,
            blocks: Blocks::new(Arc::clone(&view), config.preconf_as_latest).with(ends, fresh),
            view,
            upstream,
            forwarded,
            stats: Arc::default(),
            shared: Arc::new(Shared::new(SHARED, Arc::clone(&memory))),
            memory,
            state_waits: false,
            follow: None,
            reads: Arc::new(Semaphore::new(MAX_WAITING_READS)),
            filters: Arc::new(Filters::new(&config)),
            subscribed: Arc::new(Values::new(config.max_subscriptions as usize, &config)),
            fees: Arc::default(),
            heavy: Arc::new(Semaphore::new(
                config.max_heavy_calls.clamp(1, Semaphore::MAX_PERMITS),
            )),
            config,
        }
    }

    /// The context of another view of the same chain; limits, counters and filters are shared.
    #[must_use]
    pub fn showing(&self, shows: View) -> Self {
        Self {
            spec: Arc::clone(&self.spec),
            view: Arc::clone(&self.view),
            blocks: self.blocks.showing(shows),
            config: self.config.clone(),
            upstream: self.upstream.clone(),
            forwarded: Arc::clone(&self.forwarded),
            stats: Arc::clone(&self.stats),
            memory: Arc::clone(&self.memory),
            state_waits: self.state_waits,
            follow: self.follow.clone(),
            shared: Arc::clone(&self.shared),
            filters: Arc::clone(&self.filters),
            subscribed: Arc::clone(&self.subscribed),
            fees: Arc::clone(&self.fees),
            heavy: Arc::clone(&self.heavy),
            reads: Arc::clone(&self.reads),
        }
    }
}

/// An answer: JSON, written while the blocks that it borrows from are held.
pub type Answer = Box<RawValue>;

/// Writes an answer.
pub(crate) fn answer<T: Serialize + ?Sized>(value: &T) -> Result<Answer, Failure> {
    serde_json::value::to_raw_value(value).map_err(|e| Failure::internal(&e))
}

type Read = fn(&EthContext, &Strict<'_>) -> Result<Answer, Failure>;

/// Answers, unless there are parameters that the method does not have.
fn asked(ctx: &EthContext, params: &Params<'_>, read: Read) -> Result<Answer, Failure> {
    let params = Strict::new(params);
    let answer = read(ctx, &params);
    // Parameters are read before anything is looked up.
    let read = |failure: &Failure| failure.may_be_elsewhere() || failure.is_absence();
    if answer.as_ref().err().is_none_or(read) {
        params.finish()?;
    }
    answer
}

/// The answer for a block that does not exist.
#[derive(Clone, Copy)]
enum Absent {
    /// `null`: for methods that ask for a block or something in it.
    Null,
    /// An error: for methods that ask for state at a block.
    Error,
}

/// Methods that make a few look-ups and are answered on the task that receives them.
const LIGHT: &[(&str, Absent, Read)] = &[
    ("web3_clientVersion", Absent::Error, |_, _| answer(CLIENT_VERSION)),
    ("net_version", Absent::Error, |ctx, _| answer(&ctx.spec.chain_id.to_string())),
    ("eth_chainId", Absent::Error, |ctx, _| answer(&U64::from(ctx.spec.chain_id))),
    ("eth_syncing", Absent::Error, state::syncing),
    ("eth_blockNumber", Absent::Error, state::block_number),
    ("fragcast_fragHeight", Absent::Error, state::frag_height),
    ("eth_getBalance", Absent::Error, state::balance),
    ("eth_getTransactionCount", Absent::Error, state::nonce),
    ("eth_getCode", Absent::Error, state::code),
    ("eth_getStorageAt", Absent::Error, state::storage),
    ("eth_getBlockByNumber", Absent::Null, blocks::block),
    ("eth_getBlockByHash", Absent::Null, blocks::block_by_hash),
    ("eth_getBlockTransactionCountByNumber", Absent::Null, blocks::tx_count),
    ("eth_getBlockTransactionCountByHash", Absent::Null, blocks::tx_count_by_hash),
    ("eth_getUncleCountByBlockNumber", Absent::Null, blocks::uncle_count),
    ("eth_getUncleCountByBlockHash", Absent::Null, blocks::uncle_count_by_hash),
    ("eth_getUncleByBlockNumberAndIndex", Absent::Null, blocks::uncle),
    ("eth_getUncleByBlockHashAndIndex", Absent::Null, blocks::uncle_by_hash),
    ("eth_getTransactionByBlockNumberAndIndex", Absent::Null, blocks::tx_at),
    ("eth_getTransactionByBlockHashAndIndex", Absent::Null, blocks::tx_at_hash),
    ("eth_getTransactionByHash", Absent::Null, blocks::tx),
    ("eth_getRawTransactionByHash", Absent::Null, raw::tx),
    ("eth_getRawTransactionByBlockNumberAndIndex", Absent::Null, raw::tx_by_number),
    ("eth_getRawTransactionByBlockHashAndIndex", Absent::Null, raw::tx_by_hash),
    ("eth_getHeaderByNumber", Absent::Null, raw::header_by_number),
    ("eth_getHeaderByHash", Absent::Null, raw::header_by_hash),
    ("eth_getAccountInfo", Absent::Error, raw::account_info),
    ("debug_getRawBlock", Absent::Error, raw::block),
    ("debug_getRawHeader", Absent::Error, raw::header),
    ("debug_getRawReceipts", Absent::Error, raw::receipts),
    ("debug_getRawTransaction", Absent::Null, raw::tx),
    // What was wrong with a block is told in the log; the block is not kept.
    ("debug_getBadBlocks", Absent::Error, |_, _| answer(&[(); 0])),
    ("eth_getTransactionReceipt", Absent::Null, blocks::receipt),
    ("eth_getBlockReceipts", Absent::Null, blocks::receipts),
    ("eth_newFilter", Absent::Error, filters::new_logs),
    ("eth_newBlockFilter", Absent::Error, filters::new_blocks),
    ("eth_newPendingTransactionFilter", Absent::Error, filters::new_txs),
    ("eth_uninstallFilter", Absent::Error, filters::uninstall),
    ("eth_gasPrice", Absent::Error, fees::gas_price),
    ("eth_maxPriorityFeePerGas", Absent::Error, fees::tip),
    ("eth_blobBaseFee", Absent::Error, fees::blob_base_fee),
    ("eth_baseFee", Absent::Error, fees::base_fee),
];

/// Methods that go through many blocks, or resolve trie nodes: each on a thread that may block, at
/// most [`EthConfig::max_heavy_calls`] at a time.
const HEAVY: &[(&str, Absent, Read)] = &[
    ("eth_getLogs", Absent::Error, logs::logs),
    ("eth_getFilterLogs", Absent::Error, filters::logs),
    ("eth_getFilterChanges", Absent::Error, filters::changes),
    ("eth_feeHistory", Absent::Error, fees::history),
    ("eth_getProof", Absent::Error, proof::proof),
    ("eth_config", Absent::Error, forks::config),
    ("eth_getStorageValues", Absent::Error, state::storage_values),
    ("eth_capabilities", Absent::Error, state::capabilities),
];

const CLIENT_VERSION: &str = concat!("fragcast/v", env!("CARGO_PKG_VERSION"));

/// The methods that read, the filters, `eth_subscribe`, and those of [`EthConfig::proxied`].
/// Neither `proxied` nor a module that is merged with this one may repeat a name.
pub fn module(ctx: Arc<EthContext>) -> RpcModule<EthContext> {
    let (proxied, waits) = (ctx.config.proxied_names(), ctx.state_waits);
    let mut module = RpcModule::from_arc(ctx);
    for (name, absent, read) in LIGHT {
        if waits && STATE.contains(name) {
            let handler = move |params: Params<'static>, ctx: Arc<EthContext>, _| async move {
                let slots = Arc::clone(&ctx.reads);
                let (params, result) = elsewhere(&ctx, slots, params, *read).await;
                finish(&ctx, name, &params, *absent, result).await
            };
            module.register_async_method(name, handler).expect("a name of its own");
            continue;
        }
        let handler = move |params: Params<'static>, ctx: Arc<EthContext>, _| async move {
            let result = asked(&ctx, &params, *read);
            finish(&ctx, name, &params, *absent, result).await
        };
        module.register_async_method(name, handler).expect("a name of its own");
    }
    for (name, absent, read) in HEAVY {
        let handler = move |params: Params<'static>, ctx: Arc<EthContext>, _| async move {
            let slots = Arc::clone(&ctx.heavy);
            let (params, result) = elsewhere(&ctx, slots, params, *read).await;
            finish(&ctx, name, &params, *absent, result).await
        };
        module.register_async_method(name, handler).expect("a name of its own");
    }
    subscribe::register(&mut module);
    for name in proxied {
        let elsewhere = [crate::calls::METHODS, crate::about::METHODS];
        if module.method(&name).is_some() || elsewhere.iter().any(|all| all.contains(&&*name)) {
            tracing::warn!(method = %name, "it is answered here and not proxied");
            continue;
        }
        // jsonrpsee wants names that live for ever; a module is made once, from a config of
        // bounded size.
        let name: &'static str = Box::leak(name.into_boxed_str());
        let handler = move |params: Params<'static>, ctx: Arc<EthContext>, _| async move {
            let elsewhere = Err(Failure::Elsewhere(format!("{name} is not answered here")));
            finish(&ctx, name, &params, Absent::Error, elsewhere).await
        };
        module.register_async_method(name, handler).expect("checked above");
    }
    module
}

/// The receipt of a transaction by its index in a block, as `eth_getTransactionReceipt` gives it;
/// `null` if there is no such transaction.
pub fn receipt_json(
    spec: &ChainSpec,
    block: &fragcast_execution::exec::ExecutedBlock,
    index: usize,
) -> Value {
    let receipts = types::Receipts::new(spec, block);
    let receipt = block.tx(index).map(|placed| serde_json::to_value(receipts.one(&placed)));
    receipt.and_then(Result::ok).unwrap_or(Value::Null)
}

/// A forwarded transaction that is in no frag yet, as `eth_getTransactionByHash` gives it.
pub(crate) fn waiting_json(tx: &Tx) -> Value {
    serde_json::to_value(types::RpcTx::waiting(tx)).unwrap_or(Value::Null)
}

/// Reads on a thread that may block, if there is a slot.
async fn elsewhere(
    ctx: &Arc<EthContext>,
    slots: Arc<Semaphore>,
    params: Params<'static>,
    read: Read,
) -> (Params<'static>, Result<Answer, Failure>) {
    // Queuing here would hold the caller's parameters for nothing.
    let Ok(permit) = slots.try_acquire_owned() else {
        let busy = "as many calls that take long are being answered as may be; try again soon";
        return (params, Err(Failure::limit(busy)));
    };
    let ctx = Arc::clone(ctx);
    let run = move || {
        let _permit = permit;
        let result = asked(&ctx, &params, read);
        (params, result)
    };
    match tokio::task::spawn_blocking(run).await {
        Ok(done) => done,
        Err(e) => (Params::new(None), Err(Failure::internal(&e))),
    }
}

/// Turns the result of a method into an answer; asks the execution client where that is due.
async fn finish(
    ctx: &EthContext,
    method: &str,
    params: &Params<'_>,
    absent: Absent,
    result: Result<Answer, Failure>,
) -> Result<Answer, ErrorObjectOwned> {
    let failure = match result {
        Ok(answer) => {
            EthStats::count(&ctx.stats.answered);
            return Ok(answer);
        }
        Err(failure) => failure,
    };
    if let Some(passed_on) =
        pass_on(ctx.upstream.as_deref(), &ctx.stats, &failure, method, params).await
    {
        return answer(&passed_on?).map_err(Failure::into_error);
    }
    if failure.is_absence() && matches!(absent, Absent::Null) {
        EthStats::count(&ctx.stats.answered);
        return Ok(RawValue::NULL.to_owned());
    }
    let error = failure.into_error();
    ctx.stats.refused(&error);
    Err(error)
}

#[cfg(test)]
mod tests;
