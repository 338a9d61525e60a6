//! `eth_subscribe`: geth's kinds, Base's for flashblocks, and ours.
//!
//! | kind | parameter | a notification |
//! |---|---|---|
//! | `newHeads` | | header of a verified block |
//! | `logs` | address, topics | log of a verified block; again with `removed` if it is unwound |
//! | `newPendingTransactions` | full? | hash (or all) of an executed transaction |
//! | `newFlashblocks` | | the pending block after an executed frag, with all transactions |
//! | `newFlashblockTransactions` | full? | hash (or all) of an executed transaction |
//! | `pendingLogs` | address, topics | log of an executed frag |
//! | `frags` | | an executed frag: its place and the hashes of its transactions |
//! | `retractions` | | a block whose preconfirmations, or itself, are void |
//!
//! What an event says to a kind of subscription is encoded once and shared by all subscribers who
//! want the same; logs are the same for filters that are equal.
//!
//! A subscriber that does not keep up is told so and dropped: a stream with a silent gap is worse
//! than none, and waiting for one subscriber would delay the others.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use alloy_primitives::{B256, U64, keccak256};
use alloy_rpc_types_eth::{Filter, Log};
use fragcast_execution::exec::{ExecutedBlock, Snapshot};
use fragcast_execution::executor::ChainEvent;
use fragcast_port::{Notices, Subscriber, Unsent};
use jsonrpsee::core::SubscriptionError;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, PendingSubscriptionSink, RpcModule};
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::logs::{filter, matching, matching_frag};
use super::types::{RpcBlock, RpcTx, header};
use super::{Answer, EthContext, EthStats, Failure, answer};

/// The code of geth for a subscription that there is none of.
const NO_METHOD: i32 = -32_601;

/// What notifications depend on beside the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Heads,
    /// Of a filter, by its hash.
    Logs(B256),
    Txs {
        full: bool,
    },
    Flashblocks,
    PendingLogs(B256),
    Frags,
    Retractions,
}

/// Names the notifications of an event for a kind of subscription: which event, by the address of
/// what it tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(u8, usize, Kind);

impl Key {
    /// The key, and what must live as long as it.
    fn new(event: &ChainEvent, kind: Kind) -> (Self, Arc<dyn Any + Send + Sync>) {
        fn of<T: Any + Send + Sync>(it: &Arc<T>) -> (usize, Arc<dyn Any + Send + Sync>) {
            (Arc::as_ptr(it).addr(), Arc::clone(it) as _)
        }
        let (name, (address, kept)) = match event {
            ChainEvent::Frag(it) => (0, of(it)),
            ChainEvent::Verified(it) => (1, of(it)),
            // A block is retracted once, so the reason is the same for all.
            ChainEvent::Retracted { snapshot: it, .. } => (2, of(it)),
            ChainEvent::Unwound(it) => (3, of(it)),
        };
        (Self(name, address, kind), kept)
    }
}

/// What a filter of logs lets through, whatever the order in which it was written down.
fn hash(filter: &Filter) -> B256 {
    fn list<T: AsRef<[u8]> + Ord>(text: &mut Vec<u8>, values: impl Iterator<Item = T>) {
        let mut values: Vec<T> = values.collect();
        values.sort_unstable();
        // The lengths keep two filters from being written alike.
        text.extend_from_slice(&(values.len() as u64).to_be_bytes());
        values.iter().for_each(|value| text.extend_from_slice(value.as_ref()));
    }
    let mut text = Vec::new();
    list(&mut text, filter.address.iter());
    for topics in &filter.topics {
        list(&mut text, topics.iter());
    }
    text.extend_from_slice(format!("{:?}", filter.block_option).as_bytes());
    keccak256(text)
}

#[derive(Clone)]
enum Stream {
    Heads,
    Logs(Arc<Filter>, B256),
    Txs { full: bool },
    Flashblocks,
    PendingLogs(Arc<Filter>, B256),
    Frags,
    Retractions,
}

impl Stream {
    fn parse(ctx: &EthContext, params: &Params<'_>) -> Result<Self, Failure> {
        let mut params = params.sequence();
        let kind: &str = &params.next::<String>()?;
        Ok(match kind {
            "newHeads" => Self::Heads,
            "logs" => {
                let filter = filter(ctx, &mut params)?;
                let hash = hash(&filter);
                Self::Logs(Arc::new(filter), hash)
            }
            "newPendingTransactions" | "newFlashblockTransactions" => {
                Self::Txs { full: params.optional_next()?.unwrap_or(false) }
            }
            "newFlashblocks" => Self::Flashblocks,
            "pendingLogs" => {
                let filter = filter(ctx, &mut params)?;
                let hash = hash(&filter);
                Self::PendingLogs(Arc::new(filter), hash)
            }
            "frags" => Self::Frags,
            "retractions" => Self::Retractions,
            other => {
                let name: String = other.chars().take(64).collect();
                // geth's code and text.
                let text = format!("no \"{name}\" subscription in eth namespace");
                return Err(ErrorObjectOwned::owned(NO_METHOD, text, None::<()>).into());
            }
        })
    }

    const fn kind(&self) -> Kind {
        match self {
            Self::Heads => Kind::Heads,
            Self::Logs(_, hash) => Kind::Logs(*hash),
            Self::Txs { full } => Kind::Txs { full: *full },
            Self::Flashblocks => Kind::Flashblocks,
            Self::PendingLogs(_, hash) => Kind::PendingLogs(*hash),
            Self::Frags => Kind::Frags,
            Self::Retractions => Kind::Retractions,
        }
    }

    /// Whether the event may have notifications for this subscription.
    const fn wants(&self, event: &ChainEvent) -> bool {
        match self {
            Self::Heads => matches!(event, ChainEvent::Verified(_)),
            Self::Logs(..) => matches!(event, ChainEvent::Verified(_) | ChainEvent::Unwound(_)),
            Self::Txs { .. } | Self::Flashblocks | Self::PendingLogs(..) | Self::Frags => {
                matches!(event, ChainEvent::Frag(_))
            }
            Self::Retractions => {
                matches!(event, ChainEvent::Retracted { .. } | ChainEvent::Unwound(_))
            }
        }
    }

    /// Whether the notifications are long enough to be written on a thread that may block.
    const fn long(&self) -> bool {
        matches!(self, Self::Flashblocks | Self::Txs { full: true })
    }

    /// The notifications of an event for this subscription, shared with others.
    async fn shared(
        &self,
        ctx: &EthContext,
        event: ChainEvent,
    ) -> Result<Arc<Notices>, ErrorObjectOwned> {
        let (key, kept) = Key::new(&event, self.kind());
        let stream = self.clone();
        let encode = move || {
            let messages = stream.messages(&event).map_err(Failure::into_error)?;
            let text = |json: Answer| String::from(Box::<str>::from(json)).into_bytes();
            Ok(messages.into_iter().map(text).collect())
        };
        ctx.shared.get(key, kept, self.long(), encode).await
    }

    /// The notifications of an event for this subscription.
    fn messages(&self, event: &ChainEvent) -> Result<Vec<Answer>, Failure> {
        match (self, event) {
            (Self::Heads, ChainEvent::Verified(block)) => one(&header(&block.snapshot)),
            (Self::Logs(filter, _), ChainEvent::Verified(block)) => {
                each(matching(filter, &block.snapshot, false))
            }
            (Self::Logs(filter, _), ChainEvent::Unwound(block)) => {
                each(matching(filter, block, true))
            }
            (Self::PendingLogs(filter, _), ChainEvent::Frag(snapshot)) => {
                each(matching_frag(filter, snapshot))
            }
            (Self::Txs { full }, ChainEvent::Frag(snapshot)) => {
                let txs = snapshot.frags.last().into_iter().flat_map(|frag| frag.txs());
                txs.map(|placed| match full {
                    true => answer(&RpcTx::new(snapshot, &placed)),
                    false => answer(&placed.executed.tx.hash),
                })
                .collect()
            }
            (Self::Flashblocks, ChainEvent::Frag(snapshot)) => one(&RpcBlock::new(snapshot, true)),
            (Self::Frags, ChainEvent::Frag(snapshot)) => frag(snapshot),
            (Self::Retractions, ChainEvent::Retracted { snapshot, reason }) => {
                retraction(snapshot, reason)
            }
            (Self::Retractions, ChainEvent::Unwound(block)) => retraction(block, "unwound"),
            _ => Ok(Vec::new()),
        }
    }
}

fn one(value: &impl Serialize) -> Result<Vec<Answer>, Failure> {
    Ok(vec![answer(value)?])
}

fn each(logs: impl Iterator<Item = Log>) -> Result<Vec<Answer>, Failure> {
    logs.map(|log| answer(&log)).collect()
}

fn frag(snapshot: &Snapshot) -> Result<Vec<Answer>, Failure> {
    let Some(frag) = snapshot.frags.last() else { return Ok(Vec::new()) };
    let logs: usize = frag.txs.iter().map(|executed| executed.receipt.logs.len()).sum();
    let hashes: Vec<B256> = frag.txs.iter().map(|executed| executed.tx.hash).collect();
    one(&json!({
        "blockNumber": U64::from(snapshot.header.number),
        "blockHash": snapshot.hash,
        "parentHash": snapshot.header.parent_hash,
        "timestamp": U64::from(snapshot.header.timestamp),
        "attempt": U64::from(snapshot.attempt),
        "seq": U64::from(frag.seq),
        "firstTransactionIndex": U64::from(frag.first_index),
        "transactionCount": U64::from(frag.txs.len()),
        "firstLogIndex": U64::from(frag.first_log),
        "logCount": U64::from(logs),
        "gasUsed": U64::from(frag.txs.iter().map(|executed| executed.gas_used).sum::<u64>()),
        "blockGasUsed": U64::from(snapshot.header.gas_used),
        "transactions": hashes,
    }))
}

fn retraction(snapshot: &ExecutedBlock, reason: &str) -> Result<Vec<Answer>, Failure> {
    one(&json!({
        "blockNumber": U64::from(snapshot.header.number),
        "blockHash": snapshot.hash,
        "attempt": U64::from(snapshot.attempt),
        "reason": reason,
        "frags": U64::from(snapshot.frags.len()),
        "transactionCount": U64::from(snapshot.tx_count()),
    }))
}

/// Counts a subscription while it lives.
struct Open(Arc<EthContext>);

impl Open {
    fn new(ctx: &Arc<EthContext>) -> Result<Self, Failure> {
        let open = Self(Arc::clone(ctx));
        let before = ctx.stats.subscribers.fetch_add(1, Ordering::Relaxed);
        let limit = u64::from(ctx.config.max_subscriptions);
        if before < limit {
            return Ok(open);
        }
        Err(Failure::limit(format!("there are {limit} subscriptions, which is the limit")))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.stats.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn register(module: &mut RpcModule<EthContext>) {
    module
        .register_subscription(
            "eth_subscribe",
            "eth_subscription",
            "eth_unsubscribe",
            |params, pending, ctx, extensions| async move {
                // From now on, so that nothing falls between the answer and the first event.
                let events = ctx.view.subscribe();
                let stream = Stream::parse(&ctx, &params);
                drop(params);
                match stream.and_then(|stream| Ok((stream, Open::new(&ctx)?))) {
                    Ok((stream, _open)) => serve(&ctx, pending, &extensions, &stream, events).await,
                    Err(failure) => {
                        let error = failure.into_error();
                        EthStats::count(match error.code() {
                            crate::error::LIMIT => &ctx.stats.limited,
                            _ => &ctx.stats.invalid,
                        });
                        pending.reject(error).await;
                        Ok(())
                    }
                }
            },
        )
        .expect("names of their own");
}

async fn serve(
    ctx: &EthContext,
    pending: PendingSubscriptionSink,
    extensions: &Extensions,
    stream: &Stream,
    mut events: Receiver<ChainEvent>,
) -> Result<(), SubscriptionError> {
    let subscriber = Subscriber::accept(pending, extensions, ctx.config.slow_after()).await?;
    EthStats::count(&ctx.stats.answered);
    loop {
        let event = tokio::select! {
            () = subscriber.closed() => return Ok(()),
            event = events.recv() => event,
        };
        let event = match event {
            Ok(event) => event,
            Err(RecvError::Closed) => return Ok(()),
            Err(RecvError::Lagged(missed)) => {
                return Err(slow(ctx, &format!("{missed} events lost")));
            }
        };
        if !stream.wants(&event) {
            continue;
        }
        // The blocks are not kept for one who takes long to read of them, only what is written.
        let messages = stream
            .shared(ctx, event)
            .await
            .map_err(|error| SubscriptionError::from(error.message().to_owned()))?;
        match subscriber.send(&messages).await {
            Ok(()) => {}
            Err(Unsent::Gone) => return Ok(()),
            Err(Unsent::Slow) => return Err(slow(ctx, "nothing is taken")),
        }
    }
}

fn slow(ctx: &EthContext, how: &str) -> SubscriptionError {
    EthStats::count(&ctx.stats.slow);
    SubscriptionError::from(format!("too slow: {how}; subscribe again and read faster"))
}
