//! `eth_subscribe`: geth's kinds, Base's for flashblocks, and ours.
//!
//! | kind | parameter | a notification |
//! |---|---|---|
//! | `newHeads` | | header of a verified block |
//! | `logs` | a filter | log of a verified block, with `toBlock` `pending` of an executed frag too, with both bounds `pending` of executed frags alone; again with `removed` if the block is void |
//! | `syncing` | | `false`, or how far the node is behind its execution client; at once, and when it changes |
//! | `newPendingTransactions` | full? | hash (or all) of an executed transaction |
//! | `newFlashblocks` | | the pending block after an executed frag, with all transactions |
//! | `newFlashblockTransactions` | nothing, `true`, or a filter | hash of an executed transaction; or all of it with what its receipt says, of the transactions with a log that the filter selects |
//! | `pendingLogs` | address, topics | log of an executed frag |
//! | `frags` | | an executed frag: its place and the hashes of its transactions |
//! | `fragHeights` | | the place of an executed frag alone, as a block parameter names its state |
//! | `retractions` | | a block whose preconfirmations, or itself, are void |
//!
//! What is not verified carries its block's provisional hash. The kinds are the same in both views.
//!
//! What an event says to a kind of subscription is encoded once and shared by all subscribers who
//! want the same; logs are the same for filters that are equal.
//!
//! A subscriber that does not keep up is told so and dropped: a stream with a silent gap is worse
//! than none, and waiting for one subscriber would delay the others.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use alloy_primitives::{B256, U64, keccak256};
use alloy_rpc_types_eth::{Filter, FilterBlockOption, Log};
use fragcast_execution::chain::ChainSpec;
use fragcast_execution::exec::{ExecutedBlock, Placed, Snapshot};
use fragcast_execution::executor::ChainEvent;
use fragcast_port::{Notices, Subscriber, Unsent};
use jsonrpsee::core::SubscriptionError;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, PendingSubscriptionSink, RpcModule};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::logs::{matching, matching_frag};
use super::ranges::{Coming, filter_or_all, of_value, values};
use super::state::sync_state;
use super::types::{ExecutedTx, Receipts, RpcBlock, RpcTx, header};
use super::{Answer, EthContext, EthStats, Failure, answer};
use crate::params::ParamsSequence;
use crate::resolve::told_hash;

/// How often it is looked whether the node is behind.
const SYNC_TICK: Duration = Duration::from_secs(1);

/// What notifications depend on beside the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Heads,
    /// Of a filter, by its hash.
    Logs(B256),
    Txs {
        full: bool,
    },
    /// With their receipts; of a filter, by its hash.
    Receipts(Option<B256>),
    Flashblocks,
    PendingLogs(B256),
    Frags,
    Heights,
    Retractions,
    Syncing,
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
    Logs(Arc<Filter>, Coming, B256),
    Txs { full: bool },
    Receipts(Option<(Arc<Filter>, B256)>),
    Flashblocks,
    PendingLogs(Arc<Filter>, B256),
    Frags,
    Heights,
    Retractions,
    Syncing,
}

impl Stream {
    fn parse(ctx: &EthContext, params: &Params<'_>) -> Result<Self, Failure> {
        let all = crate::params::Params::new(params);
        let stream = Self::read(ctx, &mut all.sequence())?;
        all.finish()?;
        Ok(stream)
    }

    fn read(ctx: &EthContext, params: &mut ParamsSequence<'_>) -> Result<Self, Failure> {
        let kind: &str = &params.next::<String>()?;
        Ok(match kind {
            "newHeads" => Self::Heads,
            "logs" => {
                let filter = filter_or_all(ctx, params)?;
                let (coming, hash) = (Coming::new(&filter)?, hash(&filter));
                Self::Logs(Arc::new(filter), coming, hash)
            }
            "newPendingTransactions" => {
                Self::Txs { full: params.optional_next::<bool>()?.unwrap_or(false) }
            }
            "newFlashblockTransactions" => match params.optional_next::<Value>()? {
                None | Some(Value::Null | Value::Bool(false)) => Self::Txs { full: false },
                Some(Value::Bool(true)) => Self::Receipts(None),
                Some(value) => {
                    let filter = frag_filter(of_value(ctx, value)?)?;
                    let hash = hash(&filter);
                    Self::Receipts(Some((Arc::new(filter), hash)))
                }
            },
            "newFlashblocks" => Self::Flashblocks,
            "pendingLogs" => {
                let filter = frag_filter(filter_or_all(ctx, params)?)?;
                let hash = hash(&filter);
                Self::PendingLogs(Arc::new(filter), hash)
            }
            "frags" => Self::Frags,
            "fragHeights" => Self::Heights,
            "retractions" => Self::Retractions,
            "syncing" => Self::Syncing,
            other => return Err(Failure::no_subscription(other)),
        })
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Heads => Kind::Heads,
            Self::Syncing => Kind::Syncing,
            Self::Logs(_, _, hash) => Kind::Logs(*hash),
            Self::Txs { full } => Kind::Txs { full: *full },
            Self::Receipts(filter) => Kind::Receipts(filter.as_ref().map(|(_, hash)| *hash)),
            Self::Flashblocks => Kind::Flashblocks,
            Self::PendingLogs(_, hash) => Kind::PendingLogs(*hash),
            Self::Frags => Kind::Frags,
            Self::Heights => Kind::Heights,
            Self::Retractions => Kind::Retractions,
        }
    }

    /// The filter of logs, if there is one.
    fn filter(&self) -> Option<&Filter> {
        match self {
            Self::Logs(filter, ..) | Self::PendingLogs(filter, _) => Some(filter),
            Self::Receipts(filter) => filter.as_ref().map(|(filter, _)| &**filter),
            _ => None,
        }
    }

    /// Whether the event may have notifications for this subscription.
    const fn wants(&self, event: &ChainEvent) -> bool {
        match self {
            Self::Heads | Self::Syncing => matches!(event, ChainEvent::Verified(_)),
            Self::Logs(_, coming, _) => match event {
                ChainEvent::Frag(_) | ChainEvent::Retracted { .. } => coming.preconfirmed,
                ChainEvent::Verified(_) | ChainEvent::Unwound(_) => coming.verified,
            },
            Self::Txs { .. }
            | Self::Receipts(_)
            | Self::Flashblocks
            | Self::PendingLogs(..)
            | Self::Frags
            | Self::Heights => matches!(event, ChainEvent::Frag(_)),
            Self::Retractions => {
                matches!(event, ChainEvent::Retracted { .. } | ChainEvent::Unwound(_))
            }
        }
    }

    /// Whether the notifications are long enough to be written on a thread that may block.
    const fn long(&self) -> bool {
        matches!(self, Self::Flashblocks | Self::Receipts(_) | Self::Txs { full: true })
    }

    /// The notifications of an event for this subscription, shared with others.
    async fn shared(
        &self,
        ctx: &EthContext,
        event: ChainEvent,
    ) -> Result<Arc<Notices>, ErrorObjectOwned> {
        let (key, kept) = Key::new(&event, self.kind());
        let (stream, spec) = (self.clone(), Arc::clone(&ctx.spec));
        let encode = move || {
            let messages = stream.messages(&spec, &event).map_err(Failure::into_error)?;
            let text = |json: Answer| String::from(Box::<str>::from(json)).into_bytes();
            Ok(messages.into_iter().map(text).collect())
        };
        ctx.shared.get(key, kept, self.long(), encode).await
    }

    /// The notifications of an event for this subscription.
    fn messages(&self, spec: &ChainSpec, event: &ChainEvent) -> Result<Vec<Answer>, Failure> {
        match (self, event) {
            (Self::Heads, ChainEvent::Verified(block)) => one(&header(&block.snapshot)),
            (Self::Logs(filter, coming, _), event) => logs(filter, *coming, event),
            (Self::Receipts(filter), ChainEvent::Frag(snapshot)) => {
                let receipts = Receipts::new(spec, snapshot);
                let filter = filter.as_ref().map(|(filter, _)| &**filter);
                let txs = snapshot.frags.last().into_iter().flat_map(|frag| frag.txs());
                let selected = |placed: &Placed<'_>| {
                    let mut logs = placed.executed.receipt.logs.iter();
                    filter.is_none_or(|filter| logs.any(|log| filter.matches(log)))
                };
                txs.filter(selected)
                    .map(|placed| answer(&ExecutedTx::new(&receipts, snapshot, &placed)))
                    .collect()
            }
            (Self::Heights, ChainEvent::Frag(snapshot)) => height(snapshot),
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

/// A filter of logs of executed frags, which has no use for blocks.
fn frag_filter(filter: Filter) -> Result<Filter, Failure> {
    let frags = match filter.block_option {
        FilterBlockOption::AtBlockHash(_) => false,
        FilterBlockOption::Range { from_block, to_block } => {
            [from_block, to_block].into_iter().flatten().all(|bound| bound.is_pending())
        }
    };
    if frags {
        return Ok(filter);
    }
    Err(Failure::params(
        "only logs of executed frags are told: the bounds must be pending, or none",
    ))
}

/// The logs that an event adds or takes back.
fn logs(filter: &Filter, coming: Coming, event: &ChainEvent) -> Result<Vec<Answer>, Failure> {
    let number = match event {
        ChainEvent::Frag(snapshot) | ChainEvent::Retracted { snapshot, .. } => {
            snapshot.header.number
        }
        ChainEvent::Verified(block) => block.number(),
        ChainEvent::Unwound(block) => block.header.number,
    };
    if !coming.has(number) {
        return Ok(Vec::new());
    }
    match event {
        ChainEvent::Frag(snapshot) => each(matching_frag(filter, snapshot)),
        ChainEvent::Retracted { snapshot, .. } => each(matching(filter, snapshot, true)),
        ChainEvent::Verified(block) => each(matching(filter, &block.snapshot, false)),
        ChainEvent::Unwound(block) => each(matching(filter, block, true)),
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
        "blockHash": told_hash(snapshot),
        "parentHash": snapshot.header.parent_hash,
        "timestamp": U64::from(snapshot.header.timestamp),
        "attempt": U64::from(snapshot.attempt),
        "seq": U64::from(frag.seq),
        "fragIndex": U64::from(frag.seq),
        "firstTransactionIndex": U64::from(frag.first_index),
        "transactionCount": U64::from(frag.txs.len()),
        "firstLogIndex": U64::from(frag.first_log),
        "logCount": U64::from(logs),
        "gasUsed": U64::from(frag.txs.iter().map(|executed| executed.gas_used).sum::<u64>()),
        "blockGasUsed": U64::from(snapshot.header.gas_used),
        "transactions": hashes,
    }))
}

fn height(snapshot: &Snapshot) -> Result<Vec<Answer>, Failure> {
    let Some(frag) = snapshot.frags.last() else { return Ok(Vec::new()) };
    one(&json!({
        "blockNumber": U64::from(snapshot.header.number),
        "fragIndex": U64::from(frag.seq),
        "attempt": U64::from(snapshot.attempt),
    }))
}

fn retraction(snapshot: &ExecutedBlock, reason: &str) -> Result<Vec<Answer>, Failure> {
    one(&json!({
        "blockNumber": U64::from(snapshot.header.number),
        "blockHash": told_hash(snapshot),
        "attempt": U64::from(snapshot.attempt),
        "reason": reason,
        "frags": U64::from(snapshot.frags.len()),
        "transactionCount": U64::from(snapshot.tx_count()),
    }))
}

/// Counts a subscription while it lives.
struct Open {
    ctx: Arc<EthContext>,
    _values: OwnedSemaphorePermit,
}

impl Open {
    fn new(ctx: &Arc<EthContext>, stream: &Stream) -> Result<Self, Failure> {
        let values = stream.filter().map_or(0, values);
        let open = Self { ctx: Arc::clone(ctx), _values: ctx.subscribed.take(values)? };
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
        self.ctx.stats.subscribers.fetch_sub(1, Ordering::Relaxed);
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
                let open = |stream| Open::new(&ctx, &stream).map(|open| (stream, open));
                match stream.and_then(open) {
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
    if matches!(stream, Stream::Syncing) {
        return syncing(ctx, &subscriber, events).await;
    }
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

/// Tells whether the node is behind its execution client: at once, and whenever it changes.
async fn syncing(
    ctx: &EthContext,
    subscriber: &Subscriber,
    mut events: Receiver<ChainEvent>,
) -> Result<(), SubscriptionError> {
    let mut tick = tokio::time::interval(SYNC_TICK);
    let mut told = None;
    loop {
        let state = sync_state(ctx);
        if told.as_ref() != Some(&state) {
            let message = state.as_ref().map_or(json!(false), |state| {
                // geth's form and reth's in one: clients read either.
                let mut message = state.clone();
                message["syncing"] = json!(true);
                message["status"] = state.clone();
                message
            });
            let kept = Arc::new(message);
            let key = Key(4, Arc::as_ptr(&kept).addr(), Kind::Syncing);
            let text = kept.to_string().into_bytes();
            let encode = move || Ok::<_, ErrorObjectOwned>(vec![text]);
            let messages = ctx.shared.get(key, kept, false, encode).await;
            let messages = messages.map_err(|e| SubscriptionError::from(e.message().to_owned()))?;
            match subscriber.send(&messages).await {
                Ok(()) => told = Some(state),
                Err(Unsent::Gone) => return Ok(()),
                Err(Unsent::Slow) => return Err(slow(ctx, "nothing is taken")),
            }
        }
        tokio::select! {
            () = subscriber.closed() => return Ok(()),
            // Which one, and whether some were lost, does not matter.
            event = events.recv() => if matches!(event, Err(RecvError::Closed)) {
                return Ok(());
            },
            _ = tick.tick() => {}
        }
    }
}

fn slow(ctx: &EthContext, how: &str) -> SubscriptionError {
    EthStats::count(&ctx.stats.slow);
    SubscriptionError::from(format!("too slow: {how}; subscribe again and read faster"))
}
