//! What other clients tell of themselves by well-known names, and wallets and tools ask for: `net_*`,
//! `web3_sha3`, `eth_accounts`, `rpc_modules`, and `txpool_*`.
//!
//! A node has no pool: `txpool_*` tell of the transactions that went through this node and are in no
//! frag yet. Those that follow the account's nonce without a gap are *pending*, others *queued*, as in
//! geth. `fragcast_transactionStatus` says why one of them was dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, U64, keccak256};
use fragcast_execution::exec::Tx;
use fragcast_execution::executor::ChainView;
use jsonrpsee::RpcModule;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use crate::error::Failure;
use crate::eth::waiting_json;
use crate::forward::Forwarder;
use crate::params::{Kind, Params};
use crate::stats::EthStats;
use crate::upstream::Upstream;

/// Methods of an OP chain's rollup node, passed to the client that is configured.
const ROLLUP: [&str; 4] =
    ["optimism_syncStatus", "optimism_rollupConfig", "optimism_outputAtBlock", "optimism_version"];

/// The names of all methods here that no other module may have.
pub const METHODS: &[&str] = &[
    "web3_sha3",
    "net_listening",
    "net_peerCount",
    "eth_accounts",
    "fragcast_transactionStatus",
    "txpool_status",
    "txpool_content",
    "txpool_inspect",
    "txpool_contentFrom",
    "rpc_modules",
];

/// What is told of.
pub struct About {
    /// How many peers the node is connected to.
    pub peers: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Forwarded transactions, and the chain that they wait for; `None`: the node executes nothing.
    pub forwarded: Option<(Arc<Forwarder>, Arc<ChainView>)>,
    /// Of an OP chain: who may know what a rollup node knows.
    pub rollup: Option<Arc<dyn Upstream>>,
    /// Request counters.
    pub stats: Arc<EthStats>,
}

/// How many answers with transactions of `txpool_*` may be made at a time: they are long.
const POOL_ANSWERS: usize = 4;

/// Makes one of few answers at a time.
fn in_turn<T>(turns: &Semaphore, make: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let Ok(_turn) = turns.try_acquire() else {
        let what =
            format!("{POOL_ANSWERS} answers with the pool's content are being made; try again");
        return Err(Failure::limit(what));
    };
    make()
}

/// A transaction by its nonce.
type ByNonce<'a> = BTreeMap<u64, &'a Tx>;

/// The transactions of a sender: those that can be executed one after the other, and the others.
fn parts(next: u64, txs: &[Tx]) -> (ByNonce<'_>, ByNonce<'_>) {
    let (mut pending, mut queued, mut next) = (ByNonce::new(), ByNonce::new(), next);
    for tx in txs {
        let nonce = tx.envelope.nonce();
        // Of two with one nonce the later one is to replace the other.
        if nonce < next || (nonce == next && next != u64::MAX) {
            pending.insert(nonce, tx);
            next = next.max(nonce.saturating_add(1));
        } else {
            queued.insert(nonce, tx);
        }
    }
    (pending, queued)
}

fn object(txs: &ByNonce<'_>, show: fn(&Tx) -> Value) -> Value {
    let shown = txs.iter().map(|(nonce, tx)| (nonce.to_string(), show(tx)));
    Value::Object(shown.collect())
}

/// geth's line for a transaction.
fn line(tx: &Tx) -> Value {
    let envelope = &tx.envelope;
    let to = envelope.kind().to().map_or("contract creation".to_owned(), Address::to_string);
    let (value, gas, price) = (envelope.value(), envelope.gas_limit(), envelope.max_fee());
    json!(format!("{to}: {value} wei + {gas} gas × {price} wei"))
}

/// What a method of `txpool_*` makes of the transactions of all senders.
#[derive(Clone, Copy)]
enum Pool {
    Status,
    Content,
    Inspect,
}

impl About {
    /// Forwarded transactions by sender, with the sender's next nonce.
    fn waiting(&self, from: Option<Address>) -> Result<Vec<(Address, u64, Vec<Tx>)>, Failure> {
        let Some((forwarder, view)) = &self.forwarded else { return Ok(Vec::new()) };
        let Some(heads) = view.heads() else { return Ok(Vec::new()) };
        let mut all = forwarder.all();
        all.retain(|(sender, _)| from.is_none_or(|from| from == *sender));
        all.sort_unstable_by_key(|(sender, _)| *sender);
        let state = &heads.pending().state;
        all.into_iter()
            .map(|(sender, txs)| {
                let account = state.account(sender)?;
                Ok((sender, account.map_or(0, |account| account.nonce), txs))
            })
            .collect()
    }

    fn pool(&self, what: Pool) -> Result<Value, Failure> {
        let all = self.waiting(None)?;
        let show: fn(&Tx) -> Value = match what {
            Pool::Inspect => line,
            Pool::Status | Pool::Content => waiting_json,
        };
        let (mut pending, mut queued) = (Map::new(), Map::new());
        let mut numbers = (0, 0);
        for (sender, next, txs) in &all {
            let (now, later) = parts(*next, txs);
            numbers = (numbers.0 + now.len(), numbers.1 + later.len());
            for (txs, to) in [(now, &mut pending), (later, &mut queued)] {
                if !txs.is_empty() && !matches!(what, Pool::Status) {
                    to.insert(sender.to_string(), object(&txs, show));
                }
            }
        }
        Ok(match what {
            Pool::Status => {
                json!({ "pending": U64::from(numbers.0), "queued": U64::from(numbers.1) })
            }
            Pool::Content | Pool::Inspect => json!({ "pending": pending, "queued": queued }),
        })
    }

    fn pool_of(&self, sender: Address) -> Result<Value, Failure> {
        let all = self.waiting(Some(sender))?;
        let (pending, queued) =
            all.first().map_or_else(Default::default, |(_, next, txs)| parts(*next, txs));
        Ok(json!({
            "pending": object(&pending, waiting_json),
            "queued": object(&queued, waiting_json),
        }))
    }

    fn status_of(&self, hash: B256) -> Value {
        let Some((forwarder, _)) = &self.forwarded else { return Value::Null };
        if forwarder.get(hash).is_some() {
            return json!({ "status": "forwarded" });
        }
        forwarder.dropped(hash).map_or(
            Value::Null,
            |why| json!({ "status": "dropped", "kind": why.label(), "reason": why.to_string() }),
        )
    }

    fn count<T>(&self, result: Result<T, Failure>) -> Result<T, ErrorObjectOwned> {
        self.stats.outcome(result.map_err(Failure::into_error))
    }
}

/// The only parameter.
fn one<T: Kind>(params: &jsonrpsee::types::Params<'_>) -> Result<T, Failure> {
    let params = Params::new(params);
    let value = params.sequence().next()?;
    params.finish()?;
    Ok(value)
}

/// That there are no parameters.
fn none(params: &jsonrpsee::types::Params<'_>) -> Result<(), Failure> {
    Params::new(params).finish()
}

/// The methods; `others` are the names that are served beside them.
pub fn module<'a>(about: About, others: impl Iterator<Item = &'a str>) -> RpcModule<About> {
    const UNIQUE: &str = "a name of its own";
    let has_rollup = about.rollup.is_some();
    let mut module = RpcModule::new(about);
    module
        .register_method("web3_sha3", |params, about, _| {
            about.count(one::<Bytes>(&params).map(keccak256))
        })
        .expect(UNIQUE);
    module
        .register_method("net_listening", |params, about, _| {
            about.count(none(&params).map(|()| true))
        })
        .expect(UNIQUE);
    module
        .register_method("net_peerCount", |params, about, _| {
            about.count(none(&params).map(|()| U64::from((about.peers)())))
        })
        .expect(UNIQUE);
    module
        .register_method("eth_accounts", |params, about, _| {
            about.count(none(&params).map(|()| [(); 0]))
        })
        .expect(UNIQUE);
    module
        .register_method("fragcast_transactionStatus", |params, about, _| {
            let hash = one::<B256>(&params);
            about.count(hash.map(|hash| about.status_of(hash)))
        })
        .expect(UNIQUE);
    let turns = Arc::new(Semaphore::new(POOL_ANSWERS));
    for (name, what) in [
        ("txpool_status", Pool::Status),
        ("txpool_content", Pool::Content),
        ("txpool_inspect", Pool::Inspect),
    ] {
        // Accounts are read, and there may be many long transactions.
        let turns = Arc::clone(&turns);
        module
            .register_blocking_method(name, move |params, about, _| {
                about.count(none(&params).and_then(|()| match what {
                    Pool::Status => about.pool(what),
                    Pool::Content | Pool::Inspect => in_turn(&turns, || about.pool(what)),
                }))
            })
            .expect(UNIQUE);
    }
    module
        .register_blocking_method("txpool_contentFrom", move |params, about, _| {
            let sender = one::<Address>(&params);
            about.count(sender.and_then(|sender| in_turn(&turns, || about.pool_of(sender))))
        })
        .expect(UNIQUE);
    let taken: BTreeSet<String> = others.map(str::to_owned).collect();
    if has_rollup {
        for name in ROLLUP.into_iter().filter(|name| !taken.contains(*name)) {
            module
                .register_async_method(name, move |params, about, _| async move {
                    let Some(rollup) = &about.rollup else {
                        return Err(Failure::unavailable("there is no client").into_error());
                    };
                    EthStats::count(&about.stats.forwarded);
                    let params = params.as_str().map_or(Ok(json!([])), serde_json::from_str);
                    let params = params.map_err(|e| Failure::invalid(&e).into_error())?;
                    let answer = rollup.request(name, params).await;
                    answer.inspect_err(|_| EthStats::count(&about.stats.upstream_errors))
                })
                .expect(UNIQUE);
        }
    }
    let names = taken.into_iter().chain(module.method_names().map(str::to_owned));
    let names: BTreeSet<String> = names
        .chain(["rpc_modules".to_owned()])
        .filter_map(|name| Some(name.split_once('_')?.0.to_owned()))
        .collect();
    let modules: Map<String, Value> = names.into_iter().map(|name| (name, json!("1.0"))).collect();
    module
        .register_method("rpc_modules", move |params, about, _| {
            about.count(none(&params).map(|()| modules.clone()))
        })
        .expect(UNIQUE);
    module
}

#[cfg(test)]
mod tests;
