//! The methods of Ethereum's JSON-RPC that execute and send: `eth_call`, `eth_estimateGas`,
//! `eth_createAccessList`, `eth_simulateV1`, `eth_sendRawTransaction` and
//! `eth_sendRawTransactionSync`.
//!
//! Invariants: every answer comes from one [`Snapshot`], its block environment included. Nothing
//! executes outside the [`CallPool`]. Gas, time, memory and waiting room of a call have limits
//! ([`CallConfig`]), and so have forwarded transactions
//! ([`ForwardConfig`](crate::forward::ForwardConfig)).
//!
//! A request for a block whose state is not in memory any more is handed to the execution client as
//! it came ([`Upstream`]).

mod access_list;
mod error;
mod estimate;
mod evm;
mod guard;
mod outcome;
mod pool;
mod simulate;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{Bytes, U64};
use alloy_rpc_types_eth::simulate::SimulatePayload;
use alloy_rpc_types_eth::state::StateOverride;
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest};
use jsonrpsee::RpcModule;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use revm::inspector::NoOpInspector;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use error::CallError;
use fragcast_execution::chain::ChainSpec;
use fragcast_execution::exec::Snapshot;

pub use pool::{CallPool, default_threads};

use crate::forward::Forwarder;
use crate::resolve::Blocks;
use crate::stats::EthStats;
use crate::upstream::{Upstream, pass_on};
use evm::{Ground, Limits};

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
}

impl Default for CallConfig {
    fn default() -> Self {
        Self {
            threads: default_threads(),
            queue: 256,
            gas_cap: 50_000_000,
            time_limit: Duration::from_secs(5),
            memory_limit: 64 * 1024 * 1024,
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

/// Positional parameters, of which the last ones may be missing or null.
struct Args(std::vec::IntoIter<Value>);

impl Args {
    fn new(params: &Params<'_>) -> Result<Self, CallError> {
        let values = match params.as_str().map(serde_json::from_str) {
            None => Vec::new(),
            Some(Ok(Value::Array(values))) => values,
            Some(Ok(_)) => return Err(CallError::Params("they must be an array".into())),
            Some(Err(e)) => return Err(CallError::Params(e.to_string())),
        };
        Ok(Self(values.into_iter()))
    }

    fn optional<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CallError> {
        match self.0.next() {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let value = serde_json::from_value(value);
                value.map(Some).map_err(|e| CallError::Params(e.to_string()))
            }
        }
    }

    fn required<T: DeserializeOwned>(&mut self, what: &str) -> Result<T, CallError> {
        self.optional()?.ok_or_else(|| CallError::Params(format!("missing {what}")))
    }

    fn block(&mut self) -> Result<BlockId, CallError> {
        Ok(self.optional()?.unwrap_or(BlockId::Number(BlockNumberOrTag::Latest)))
    }
}

/// Parameters of `eth_call` and similar methods.
struct CallArgs {
    request: TransactionRequest,
    block: BlockId,
    state: Option<StateOverride>,
    overrides: Option<BlockOverrides>,
}

impl CallArgs {
    fn new(args: &mut Args) -> Result<Self, CallError> {
        Ok(Self {
            request: args.required("the transaction")?,
            block: args.block()?,
            state: args.optional()?,
            overrides: args.optional()?,
        })
    }
}

/// What a call runs on.
struct CallSite {
    spec: Arc<ChainSpec>,
    snapshot: Arc<Snapshot>,
    config: CallConfig,
}

impl CallSite {
    fn limits(&self) -> Limits {
        let gas = if self.config.gas_cap == 0 { u64::MAX } else { self.config.gas_cap };
        Limits { gas, memory: self.config.memory_limit, time: self.config.time_limit }
    }

    fn ground(
        &self,
        block: Option<BlockOverrides>,
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
        read: impl FnOnce(&mut Args) -> Result<T, CallError>,
    ) -> Result<T, ErrorObjectOwned> {
        let args = Args::new(params).and_then(|mut args| read(&mut args));
        args.map_err(Into::into).inspect_err(|error| self.stats.refused(error))
    }

    /// Runs `call` on a thread of the pool, on the state of `block`; passes the request on to the
    /// execution client if that is not kept here.
    async fn on_block<T: serde::Serialize + Send + 'static>(
        &self,
        method: &'static str,
        params: &Params<'_>,
        block: BlockId,
        call: impl FnOnce(&CallSite) -> Result<T, CallError> + Send + 'static,
    ) -> Result<Value, ErrorObjectOwned> {
        let snapshot = match self.blocks.snapshot(block) {
            Ok(snapshot) => snapshot,
            Err(failure) => {
                let upstream = self.upstream.as_deref();
                let passed_on = pass_on(upstream, &self.stats, &failure, method, params).await;
                return match passed_on {
                    Some(answer) => answer,
                    None => self.stats.outcome(Err(failure.into_error())),
                };
            }
        };
        let (spec, config) = (Arc::clone(&self.spec), self.config.clone());
        let site = CallSite { spec, snapshot, config };
        // The answer is put into JSON there too: it may be long.
        let run = move || serde_json::to_value(call(&site)?).map_err(|_| CallError::Internal);
        self.stats.outcome(self.pool.run(run).await.map_err(Into::into))
    }
}

fn call(site: &CallSite, args: CallArgs) -> Result<Bytes, CallError> {
    let mut ground = site.ground(args.overrides, args.state)?;
    let tx = ground.tx(args.request)?;
    ground.check_funds(&tx)?;
    ground.transact(tx, &mut NoOpInspector)?.into_output()
}

/// A time in milliseconds, as a JSON number or as hex.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Millis {
    Number(u64),
    Hex(U64),
    /// An invalid time counts as absent (EIP-7966).
    Invalid(serde::de::IgnoredAny),
}

impl Millis {
    fn duration(&self) -> Option<Duration> {
        match self {
            Self::Number(millis) => Some(Duration::from_millis(*millis)),
            Self::Hex(millis) => Some(Duration::from_millis(millis.to())),
            Self::Invalid(_) => None,
        }
    }
}

fn forwarder(context: &CallContext) -> Result<&Arc<Forwarder>, CallError> {
    context.forwarder.as_ref().ok_or(CallError::NoForwarder)
}

/// The methods.
pub fn module(context: Arc<CallContext>) -> RpcModule<Arc<CallContext>> {
    const UNIQUE: &str = "a name of its own";
    let mut module = RpcModule::new(context);
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
            let read = |args: &mut Args| {
                let payload: SimulatePayload = args.required("the payload")?;
                Ok((payload, args.block()?))
            };
            let (payload, block) = context.args(&params, read)?;
            let run = |site: &CallSite| simulate::simulate(site, payload);
            context.on_block("eth_simulateV1", &params, block, run).await
        })
        .expect(UNIQUE);
    module
        .register_async_method("eth_sendRawTransaction", |params, context, _| async move {
            let raw: Bytes = context.args(&params, |args| args.required("the transaction"))?;
            let sent = async { forwarder(&context)?.send(&raw).await };
            context.stats.outcome(sent.await)
        })
        .expect(UNIQUE);
    module
        .register_async_method(
            "eth_sendRawTransactionConditional",
            |params, context, _| async move {
                let read = |args: &mut Args| {
                    let raw: Bytes = args.required("the transaction")?;
                    let conditions: Option<Value> = args.optional()?;
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
            let read = |args: &mut Args| {
                let raw: Bytes = args.required("the transaction")?;
                let timeout: Option<Millis> = args.optional()?;
                Ok((raw, timeout.and_then(|timeout| timeout.duration())))
            };
            let (raw, timeout) = context.args(&params, read)?;
            let sent = async { forwarder(&context)?.send_sync(&raw, timeout).await };
            context.stats.outcome(sent.await)
        })
        .expect(UNIQUE);
    module
}

#[cfg(test)]
mod tests;
