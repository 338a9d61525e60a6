//! The methods of Ethereum's JSON-RPC that execute, trace and send ([`METHODS`]).
//!
//! Invariants: every answer comes from one [`Snapshot`], its block environment included. Nothing
//! executes outside the [`CallPool`]. Gas, time, memory and waiting room of a call have limits
//! ([`CallConfig`]), and so have forwarded transactions
//! ([`ForwardConfig`](crate::forward::ForwardConfig)).
//!
//! A request for a block whose state is not in memory any more is handed to the execution client as
//! it came ([`Upstream`]).

mod access_list;
mod check;
mod error;
mod estimate;
mod evm;
mod guard;
mod many;
mod outcome;
mod overrides;
mod pool;
mod simulate;
mod trace;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use alloy_eips::BlockId;
use alloy_primitives::{B256, Bytes, U64};
use alloy_rpc_types_eth::TransactionRequest;
use alloy_rpc_types_eth::state::StateOverride;
use jsonrpsee::RpcModule;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use revm::inspector::NoOpInspector;
use serde_json::Value;
use serde_json::value::RawValue;

pub use error::CallError;
use fragcast_execution::chain::ChainSpec;
use fragcast_execution::exec::{SealedBlock, Snapshot};

pub use pool::{CallPool, default_threads};

use crate::error::Failure;
use crate::eth::Answer;
use crate::forward::Forwarder;
use crate::params::{
    BlockChanges, Count, Kind, Params as Strict, ParamsSequence, SimPayload, Wrong,
};
use crate::resolve::{BlockTag, Blocks, StateId};
use crate::stats::EthStats;
use crate::upstream::{Upstream, pass_on};
use evm::{Ground, Limits};
use many::{Bundle, Place};
use trace::{CallOptions, Kinds, Options, Replayed};

/// Limits of calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallConfig {
    /// Threads that calls run on.
    pub threads: NonZeroUsize,
    /// Calls that may wait for a thread. Each holds its request, which the server limits.
    pub queue: usize,
    /// Gas limit of one execution; 0: the block's. For `eth_simulateV1`: of all executions of a
    /// request together.
    pub gas_cap: u64,
    /// The longest that a request may run, all its executions together; and again that it may wait.
    pub time_limit: Duration,
    /// EVM memory of one execution in bytes, all frames together: with the default 50 Mgas the
    /// limit of gas is reached at 160 MiB, in a thousand nested frames.
    pub memory_limit: u64,
    /// Bytes that the traces of one request may keep, about what they are as JSON.
    pub max_trace: usize,
}

impl Default for CallConfig {
    fn default() -> Self {
        Self {
            threads: default_threads(),
            queue: 256,
            gas_cap: 50_000_000,
            time_limit: Duration::from_secs(5),
            memory_limit: 64 * 1024 * 1024,
            max_trace: 32 * 1024 * 1024,
        }
    }
}

impl CallConfig {
    /// A pool as configured.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn pool(&self) -> std::io::Result<CallPool> {
        CallPool::new(self.threads, self.queue, self.time_limit)
    }
}

/// State that the methods share.
pub struct CallContext {
    /// The chain.
    pub spec: Arc<ChainSpec>,
    /// Finds blocks in it.
    pub blocks: Blocks,
    /// The threads to execute on.
    pub pool: CallPool,
    /// Limits.
    pub config: CallConfig,
    /// The execution client, which knows older blocks.
    pub upstream: Option<Arc<dyn Upstream>>,
    /// Forwards transactions; without it none can be sent.
    pub forwarder: Option<Arc<Forwarder>>,
    /// Request counters, shared with the methods that read.
    pub stats: Arc<EthStats>,
}

/// Parameters of `eth_call` and similar methods.
struct CallArgs {
    request: TransactionRequest,
    block: StateId,
    state: Option<StateOverride>,
    overrides: Option<BlockChanges>,
}

impl CallArgs {
    fn new(params: &mut ParamsSequence<'_>) -> Result<Self, Failure> {
        Ok(Self {
            request: params.next()?,
            block: block(params)?,
            state: params.optional_next()?,
            overrides: params.optional_next()?,
        })
    }
}

/// The state named by the next parameter; `latest` if there is none.
fn block(params: &mut ParamsSequence<'_>) -> Result<StateId, Failure> {
    Ok(params.optional_next()?.unwrap_or_default())
}

/// What a call runs on.
#[derive(Clone)]
struct CallSite {
    spec: Arc<ChainSpec>,
    /// The block with its trie, if it is sealed and kept in memory.
    sealed: Option<Arc<SealedBlock>>,
    /// The state.
    snapshot: Arc<Snapshot>,
    config: CallConfig,
}

impl CallSite {
    /// A state, with its block.
    fn of(context: &CallContext, snapshot: Arc<Snapshot>) -> Self {
        let sealed = snapshot.is_sealed().then(|| context.blocks.view().recent(snapshot.hash));
        let (spec, config) = (Arc::clone(&context.spec), context.config.clone());
        Self { spec, sealed: sealed.flatten(), snapshot, config }
    }

    /// The same with less time.
    fn within(&self, time: Option<Duration>) -> Self {
        let mut site = self.clone();
        site.config.time_limit = site.config.time_limit.min(time.unwrap_or(Duration::MAX));
        site
    }

    fn limits(&self) -> Limits {
        let gas = if self.config.gas_cap == 0 { u64::MAX } else { self.config.gas_cap };
        Limits { gas, memory: self.config.memory_limit, time: self.config.time_limit }
    }

    fn ground(
        &self,
        block: Option<BlockChanges>,
        state: Option<StateOverride>,
    ) -> Result<Ground, CallError> {
        Ground::new(&self.spec, &self.snapshot, block, state, self.limits())
    }
}

impl CallContext {
    /// Reads the parameters; what is wrong with them is counted.
    fn args<T>(
        &self,
        params: &Params<'_>,
        read: impl FnOnce(&mut ParamsSequence<'_>) -> Result<T, Failure>,
    ) -> Result<T, ErrorObjectOwned> {
        let params = Strict::new(params);
        let args = read(&mut params.sequence()).and_then(|args| params.finish().map(|()| args));
        args.map_err(Failure::into_error).inspect_err(|error| self.stats.refused(error))
    }

    /// Runs `call` on a thread of the pool, on the state of `block`; passes the request on to the
    /// execution client if that is not kept here.
    async fn on_block<T: serde::Serialize + Send + 'static>(
        &self,
        method: &'static str,
        params: &Params<'_>,
        block: StateId,
        call: impl FnOnce(&CallSite) -> Result<T, CallError> + Send + 'static,
    ) -> Result<Answer, ErrorObjectOwned> {
        let site = self.blocks.snapshot(block).map(|snapshot| CallSite::of(self, snapshot));
        self.on_site(method, params, site, call).await
    }

    /// Runs `call` on a thread of the pool, or passes the request on if the state that it needs is
    /// not kept here.
    async fn on_site<T: serde::Serialize + Send + 'static>(
        &self,
        method: &'static str,
        params: &Params<'_>,
        site: Result<CallSite, Failure>,
        call: impl FnOnce(&CallSite) -> Result<T, CallError> + Send + 'static,
    ) -> Result<Answer, ErrorObjectOwned> {
        let site = match site {
            Ok(site) => site,
            Err(failure) => {
                let upstream = self.upstream.as_deref();
                let passed_on = pass_on(upstream, &self.stats, &failure, method, params).await;
                return match passed_on {
                    Some(answer) => crate::eth::answer(&answer?).map_err(Failure::into_error),
                    // As in reth: that a transaction is not there is no error.
                    None if failure.is_absence() && method == "trace_transaction" => {
                        self.stats.outcome(Ok(RawValue::NULL.to_owned()))
                    }
                    None => self.stats.outcome(Err(trace::not_found(failure))),
                };
            }
        };
        // The answer is put into JSON there too: it may be long.
        let run =
            move || serde_json::value::to_raw_value(&call(&site)?).map_err(|_| CallError::Internal);
        self.stats.outcome(self.pool.run(run).await.map_err(Into::into))
    }
}

fn call(site: &CallSite, args: CallArgs) -> Result<Bytes, CallError> {
    let mut ground = site.ground(args.overrides, args.state)?;
    let asked = ground.tx(args.request)?;
    ground.transact(&asked, &mut NoOpInspector)?.into_output()
}

/// A time in milliseconds, as a JSON number or as hex; an invalid one counts as absent (EIP-7966).
struct Millis(Option<Duration>);

impl Kind for Millis {
    fn read(value: Value) -> Result<Self, Wrong> {
        Ok(Self(Count::read(value).ok().map(|Count(millis)| Duration::from_millis(millis))))
    }
}

fn forwarder(context: &CallContext) -> Result<&Arc<Forwarder>, CallError> {
    context.forwarder.as_ref().ok_or(CallError::NoForwarder)
}

/// The names of all methods here, which no other module may have.
pub const METHODS: &[&str] = &[
    "eth_call",
    "eth_estimateGas",
    "eth_createAccessList",
    "eth_simulateV1",
    "eth_callMany",
    "eth_sendRawTransaction",
    "eth_sendRawTransactionConditional",
    "eth_sendRawTransactionSync",
    "debug_traceCall",
    "debug_traceTransaction",
    "debug_traceBlockByNumber",
    "debug_traceBlockByHash",
    "trace_call",
    "trace_transaction",
    "trace_block",
];

const UNIQUE: &str = "a name of its own";

/// The methods.
pub fn module(context: Arc<CallContext>) -> RpcModule<Arc<CallContext>> {
    let mut module = RpcModule::new(context);
    executing(&mut module);
    many(&mut module);
    sending(&mut module);
    tracing(&mut module);
    module
}

fn executing(module: &mut RpcModule<Arc<CallContext>>) {
    module
        .register_async_method("eth_call", |params, context, _| async move {
            let args = context.args(&params, CallArgs::new)?;
            let block = args.block;
            let run = |site: &CallSite| call(site, args);
            context.on_block("eth_call", &params, block, run).await
        })
        .expect(UNIQUE);
    module
        .register_async_method("eth_estimateGas", |params, context, _| async move {
            let args = context.args(&params, CallArgs::new)?;
            let block = args.block;
            let run = |site: &CallSite| estimate::estimate(site, args).map(U64::from);
            context.on_block("eth_estimateGas", &params, block, run).await
        })
        .expect(UNIQUE);
    module
        .register_async_method("eth_createAccessList", |params, context, _| async move {
            let args = context.args(&params, CallArgs::new)?;
            let block = args.block;
            let run = |site: &CallSite| access_list::create(site, args);
            context.on_block("eth_createAccessList", &params, block, run).await
        })
        .expect(UNIQUE);
    module
        .register_async_method("eth_simulateV1", |params, context, _| async move {
            let read = |params: &mut ParamsSequence<'_>| {
                let payload: SimPayload = params.next()?;
                Ok((payload, block(params)?))
            };
            let (payload, block) = context.args(&params, read)?;
            let run = |site: &CallSite| simulate::simulate(site, payload);
            context.on_block("eth_simulateV1", &params, block, run).await
        })
        .expect(UNIQUE);
}

fn many(module: &mut RpcModule<Arc<CallContext>>) {
    module
        .register_async_method("eth_callMany", |params, context, _| async move {
            let read = |params: &mut ParamsSequence<'_>| {
                let bundles: Vec<Bundle> = params.next()?;
                let place: Place = params.optional_next()?.unwrap_or_default();
                let state: Option<StateOverride> = params.optional_next()?;
                let timeout = params.optional_next::<Count>()?;
                let timeout = timeout.map(|Count(millis)| Duration::from_millis(millis));
                Ok((bundles, place, state, timeout))
            };
            let (bundles, place, state, timeout) = context.args(&params, read)?;
            let Some(index) = place.index else {
                let run =
                    move |site: &CallSite| many::call(&site.within(timeout), None, bundles, state);
                return context.on_block("eth_callMany", &params, place.block, run).await;
            };
            let found = whole_block(place.block).and_then(|block| named(&context, block));
            let (site, replayed) = replay(&context, found, timeout);
            let run = move |site: &CallSite| {
                let replayed = replayed.ok_or(CallError::Internal)?;
                many::call(site, Some((&replayed, replayed.index(index)?)), bundles, state)
            };
            context.on_site("eth_callMany", &params, site, run).await
        })
        .expect(UNIQUE);
}

fn sending(module: &mut RpcModule<Arc<CallContext>>) {
    module
        .register_async_method("eth_sendRawTransaction", |params, context, _| async move {
            let raw: Bytes = context.args(&params, |params| params.next())?;
            let sent = async { forwarder(&context)?.send(&raw).await };
            context.stats.outcome(sent.await)
        })
        .expect(UNIQUE);
    module
        .register_async_method(
            "eth_sendRawTransactionConditional",
            |params, context, _| async move {
                let read = |params: &mut ParamsSequence<'_>| {
                    let raw: Bytes = params.next()?;
                    let conditions: Option<Value> = params.optional_next()?;
                    Ok((raw, conditions.unwrap_or_else(|| Value::Object(Default::default()))))
                };
                let (raw, conditions) = context.args(&params, read)?;
                let sent = async { forwarder(&context)?.send_conditional(&raw, conditions).await };
                context.stats.outcome(sent.await)
            },
        )
        .expect(UNIQUE);
    module
        .register_async_method("eth_sendRawTransactionSync", |params, context, _| async move {
            let read = |params: &mut ParamsSequence<'_>| {
                let raw: Bytes = params.next()?;
                let timeout: Option<Millis> = params.optional_next()?;
                Ok((raw, timeout.and_then(|Millis(timeout)| timeout)))
            };
            let (raw, timeout) = context.args(&params, read)?;
            let sent = async { forwarder(&context)?.send_sync(&raw, timeout).await };
            context.stats.outcome(sent.await)
        })
        .expect(UNIQUE);
}

/// The block of a state, where a place within it is named otherwise.
fn whole_block(id: StateId) -> Result<BlockId, Failure> {
    match id.frag {
        None => Ok(id.block),
        Some(_) => Err(Failure::params("a transaction's index or a fragIndex, not both")),
    }
}

/// The block that a request names, to be replayed.
fn named(context: &CallContext, id: BlockId) -> Result<Replayed, Failure> {
    let heads = context.blocks.heads()?;
    let block = context.blocks.find(&heads, id)?;
    context.replayed(&heads, block)
}

/// Whether a request names block 0, in which nothing was executed.
fn is_genesis(context: &CallContext, id: BlockId) -> bool {
    let find = |heads: Arc<_>| context.blocks.find(&heads, id);
    context.blocks.heads().and_then(find).is_ok_and(|block| block.header.number == 0)
}

fn tracing(module: &mut RpcModule<Arc<CallContext>>) {
    module
        .register_async_method("debug_traceTransaction", |params, context, _| async move {
            let read = |params: &mut ParamsSequence<'_>| {
                Ok((params.next::<B256>()?, params.optional_next::<Options>()?.unwrap_or_default()))
            };
            let (hash, options) = context.args(&params, read)?;
            let found = context.replayed_tx(hash);
            let index = found.as_ref().map_or(0, |(_, index)| *index);
            let found = found.map(|(replayed, _)| replayed);
            let (site, replayed) = replay(&context, found, options.timeout);
            let run = move |site: &CallSite| {
                replayed.ok_or(CallError::Internal)?.one(site, index, &options)
            };
            context.on_site("debug_traceTransaction", &params, site, run).await
        })
        .expect(UNIQUE);
    for name in ["debug_traceBlockByNumber", "debug_traceBlockByHash"] {
        module
            .register_async_method(name, move |params, context, _| async move {
                let read = |params: &mut ParamsSequence<'_>| {
                    let id = match name {
                        "debug_traceBlockByHash" => BlockId::from(params.next::<B256>()?),
                        _ => {
                            let BlockTag(number) = params.next()?;
                            BlockId::Number(number)
                        }
                    };
                    Ok((id, params.optional_next::<Options>()?.unwrap_or_default()))
                };
                let (id, options) = context.args(&params, read)?;
                let (site, replayed) = replay(&context, named(&context, id), options.timeout);
                let run =
                    move |site: &CallSite| replayed.ok_or(CallError::Internal)?.all(site, &options);
                context.on_site(name, &params, site, run).await
            })
            .expect(UNIQUE);
    }
    module
        .register_async_method("debug_traceCall", |params, context, _| async move {
            let read = |params: &mut ParamsSequence<'_>| {
                let (request, block) = (params.next()?, block(params)?);
                let options: CallOptions = params.optional_next()?.unwrap_or_default();
                let CallOptions { options, state, block: overrides, index } = options;
                Ok((CallArgs { request, block, state, overrides }, options, index))
            };
            let (args, options, index) = context.args(&params, read)?;
            let Some(index) = index else {
                let (block, timeout) = (args.block, options.timeout);
                let run =
                    move |site: &CallSite| trace::call(&site.within(timeout), None, args, &options);
                return context.on_block("debug_traceCall", &params, block, run).await;
            };
            let replayed = whole_block(args.block).and_then(|block| named(&context, block));
            let (site, replayed) = replay(&context, replayed, options.timeout);
            let run = move |site: &CallSite| {
                let replayed = replayed.ok_or(CallError::Internal)?;
                trace::call(site, Some((&replayed, replayed.index(index)?)), args, &options)
            };
            context.on_site("debug_traceCall", &params, site, run).await
        })
        .expect(UNIQUE);
    parity(module);
}

/// The site of a block that is replayed, and the block.
fn replay(
    context: &CallContext,
    found: Result<Replayed, Failure>,
    timeout: Option<Duration>,
) -> (Result<CallSite, Failure>, Option<Replayed>) {
    match found {
        Ok(replayed) => (Ok(replayed.site(context, timeout)), Some(replayed)),
        Err(failure) => (Err(failure), None),
    }
}

fn parity(module: &mut RpcModule<Arc<CallContext>>) {
    module
        .register_async_method("trace_transaction", |params, context, _| async move {
            let hash: B256 = context.args(&params, |params| params.next())?;
            let found = context.replayed_tx(hash);
            let index = found.as_ref().map_or(0, |(_, index)| *index);
            let (site, replayed) = replay(&context, found.map(|(replayed, _)| replayed), None);
            let run = move |site: &CallSite| {
                trace::localized(site, &replayed.ok_or(CallError::Internal)?, Some(index))
            };
            context.on_site("trace_transaction", &params, site, run).await
        })
        .expect(UNIQUE);
    module
        .register_async_method("trace_block", |params, context, _| async move {
            let id: BlockId = context.args(&params, |params| params.next())?;
            if is_genesis(&context, id) {
                let none = crate::eth::answer(&[(); 0]).map_err(Failure::into_error);
                return context.stats.outcome(none);
            }
            let (site, replayed) = replay(&context, named(&context, id), None);
            let run = move |site: &CallSite| {
                trace::localized(site, &replayed.ok_or(CallError::Internal)?, None)
            };
            context.on_site("trace_block", &params, site, run).await
        })
        .expect(UNIQUE);
    module
        .register_async_method("trace_call", |params, context, _| async move {
            let read = |params: &mut ParamsSequence<'_>| {
                let (request, kinds) = (params.next()?, params.next::<Kinds>()?);
                let block = block(params)?;
                let (state, overrides) = (params.optional_next()?, params.optional_next()?);
                Ok((CallArgs { request, block, state, overrides }, kinds))
            };
            let (args, kinds) = context.args(&params, read)?;
            let block = args.block;
            let run = move |site: &CallSite| trace::parity_call(site, args, kinds);
            context.on_block("trace_call", &params, block, run).await
        })
        .expect(UNIQUE);
}

#[cfg(test)]
mod tests;
