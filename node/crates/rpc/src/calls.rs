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
mod state;

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
use fragcast_execution::executor::ChainView;
pub use pool::{CallPool, default_threads};
pub use state::resolve;

use crate::eth::{EthStats, Upstream};
use crate::forward::Forwarder;
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
    /// The tag `latest` reads what `pending` reads.
    pub preconf_as_latest: bool,
}

impl Default for CallConfig {
    fn default() -> Self {
        Self {
            threads: default_threads(),
            queue: 256,
            gas_cap: 50_000_000,
            time_limit: Duration::from_secs(5),
            memory_limit: 64 * 1024 * 1024,
            preconf_as_latest: false,
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
    /// The chain as readers see it.
    pub view: Arc<ChainView>,
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
struct Args {
    values: std::vec::IntoIter<Value>,
    raw: Value,
}

impl Args {
    fn new(params: &Params<'_>) -> Result<Self, CallError> {
        let raw: Value = match params.as_str() {
            None => Value::Array(Vec::new()),
            Some(text) => {
                serde_json::from_str(text).map_err(|e| CallError::Params(e.to_string()))?
            }
        };
        let Value::Array(values) = &raw else {
            return Err(CallError::Params("they must be an array".into()));
        };
        Ok(Self { values: values.clone().into_iter(), raw })
    }

    fn optional<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CallError> {
        match self.values.next() {
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

/// Where a call runs: its snapshot and limits.
struct Place {
    spec: Arc<ChainSpec>,
    snapshot: Arc<Snapshot>,
    config: CallConfig,
}

impl Place {
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
    /// Runs `call` on a thread of the pool, on the state of `block`; hands the request over to
    /// the execution client if that is not in memory.
    async fn on_block<T: serde::Serialize + Send + 'static>(
        &self,
        method: &'static str,
        block: BlockId,
        raw: Value,
        call: impl FnOnce(&Place) -> Result<T, CallError> + Send + 'static,
    ) -> Result<Value, ErrorObjectOwned> {
        let snapshot = match resolve(&self.view, block, self.config.preconf_as_latest) {
            Ok(snapshot) => snapshot,
            Err(error @ (CallError::NoState(_) | CallError::NoBlock)) => {
                let Some(upstream) = &self.upstream else { return Err(error.into()) };
                return upstream.request(method, raw).await;
            }
            Err(error) => return Err(error.into()),
        };
        let (spec, config) = (Arc::clone(&self.spec), self.config.clone());
        let place = Place { spec, snapshot, config };
        // The answer is put into JSON there too: it may be long.
        let run = move || serde_json::to_value(call(&place)?).map_err(|_| CallError::Internal);
        Ok(self.pool.run(run).await?)
    }
}

fn call(place: &Place, args: CallArgs) -> Result<Bytes, CallError> {
    let mut ground = place.ground(args.overrides, args.state)?;
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
    let missing = "this node forwards no transactions: no gateway's address is configured";
    context.forwarder.as_ref().ok_or(CallError::NoState(missing))
}

/// The methods.
pub fn module(context: Arc<CallContext>) -> RpcModule<Arc<CallContext>> {
    const UNIQUE: &str = "a name of its own";
    let mut module = RpcModule::new(context);
    module
        .register_async_method("eth_call", |params, context, _| async move {
            let run = async {
                let mut args = Args::new(&params)?;
                let parsed = CallArgs::new(&mut args)?;
                let block = parsed.block;
                context.on_block("eth_call", block, args.raw, |place| call(place, parsed)).await
            };
            context.stats.outcome(run.await)
        })
        .expect(UNIQUE);
    module
        .register_async_method("eth_estimateGas", |params, context, _| async move {
            let run = async {
                let mut args = Args::new(&params)?;
                let parsed = CallArgs::new(&mut args)?;
                let block = parsed.block;
                let run = |place: &Place| estimate::estimate(place, parsed).map(U64::from);
                context.on_block("eth_estimateGas", block, args.raw, run).await
            };
            context.stats.outcome(run.await)
        })
        .expect(UNIQUE);
    module
        .register_async_method("eth_createAccessList", |params, context, _| async move {
            let run = async {
                let mut args = Args::new(&params)?;
                let parsed = CallArgs::new(&mut args)?;
                let block = parsed.block;
                let run = |place: &Place| access_list::create(place, parsed);
                context.on_block("eth_createAccessList", block, args.raw, run).await
            };
            context.stats.outcome(run.await)
        })
        .expect(UNIQUE);
    module
        .register_async_method("eth_simulateV1", |params, context, _| async move {
            let run = async {
                let mut args = Args::new(&params)?;
                let payload: SimulatePayload = args.required("the payload")?;
                let block = args.block()?;
                let run = |place: &Place| simulate::simulate(place, payload);
                context.on_block("eth_simulateV1", block, args.raw, run).await
            };
            context.stats.outcome(run.await)
        })
        .expect(UNIQUE);
    module
        .register_async_method("eth_sendRawTransaction", |params, context, _| async move {
            let run = async {
                let raw: Bytes = Args::new(&params)?.required("the transaction")?;
                let hash = forwarder(&context)?.send(&raw).await?;
                Ok::<_, ErrorObjectOwned>(hash)
            };
            context.stats.outcome(run.await)
        })
        .expect(UNIQUE);
    module
        .register_async_method("eth_sendRawTransactionSync", |params, context, _| async move {
            let run = async {
                let mut args = Args::new(&params)?;
                let raw: Bytes = args.required("the transaction")?;
                let timeout: Option<Millis> = args.optional()?;
                let timeout = timeout.and_then(|timeout| timeout.duration());
                forwarder(&context)?.send_sync(&raw, timeout).await
            };
            context.stats.outcome(run.await)
        })
        .expect(UNIQUE);
    module
}

#[cfg(test)]
mod tests;
