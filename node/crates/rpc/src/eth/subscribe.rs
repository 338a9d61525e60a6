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
//! A subscriber that does not keep up is told so and dropped: a stream with a silent gap is worse
//! than none, and waiting for one subscriber would delay the others.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use alloy_primitives::{B256, U64};
use alloy_rpc_types_eth::{Filter, Log};
use fragcast_execution::exec::{ExecutedBlock, Snapshot};
use fragcast_execution::executor::ChainEvent;
use jsonrpsee::core::SubscriptionError;
use jsonrpsee::types::Params;
use jsonrpsee::{PendingSubscriptionSink, RpcModule, SendTimeoutError, SubscriptionSink};
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::logs::{filter, matching, matching_frag};
use super::types::{RpcBlock, RpcTx, header};
use super::{Answer, EthContext, EthStats, Failure, answer};

enum Stream {
    Heads,
    Logs(Filter),
    Txs { full: bool },
    Flashblocks,
    PendingLogs(Filter),
    Frags,
    Retractions,
}

impl Stream {
    fn parse(ctx: &EthContext, params: &Params<'_>) -> Result<Self, Failure> {
        let mut params = params.sequence();
        let kind: &str = &params.next::<String>()?;
        Ok(match kind {
            "newHeads" => Self::Heads,
            "logs" => Self::Logs(filter(ctx, &mut params)?),
            "newPendingTransactions" | "newFlashblockTransactions" => {
                Self::Txs { full: params.optional_next()?.unwrap_or(false) }
            }
            "newFlashblocks" => Self::Flashblocks,
            "pendingLogs" => Self::PendingLogs(filter(ctx, &mut params)?),
            "frags" => Self::Frags,
            "retractions" => Self::Retractions,
            other => {
                return Err(Failure::invalid(&format!("there is no subscription {other:?}")));
            }
        })
    }

    /// The notifications of an event for this subscription.
    fn messages(&self, event: &ChainEvent) -> Result<Vec<Answer>, Failure> {
        match (self, event) {
            (Self::Heads, ChainEvent::Verified(block)) => one(&header(&block.snapshot)),
            (Self::Logs(filter), ChainEvent::Verified(block)) => {
                each(matching(filter, &block.snapshot, false))
            }
            (Self::Logs(filter), ChainEvent::Unwound(block)) => each(matching(filter, block, true)),
            (Self::PendingLogs(filter), ChainEvent::Frag(snapshot)) => {
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
            |params, pending, ctx, _| async move {
                // From now on, so that nothing falls between the answer and the first event.
                let events = ctx.view.subscribe();
                let stream = Stream::parse(&ctx, &params);
                drop(params);
                match stream.and_then(|stream| Ok((stream, Open::new(&ctx)?))) {
                    Ok((stream, _open)) => serve(&ctx, pending, &stream, events).await,
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
    stream: &Stream,
    mut events: Receiver<ChainEvent>,
) -> Result<(), SubscriptionError> {
    let sink = pending.accept().await?;
    EthStats::count(&ctx.stats.answered);
    loop {
        let event = tokio::select! {
            () = sink.closed() => return Ok(()),
            event = events.recv() => event,
        };
        let event = match event {
            Ok(event) => event,
            Err(RecvError::Closed) => return Ok(()),
            Err(RecvError::Lagged(missed)) => {
                return Err(slow(ctx, &format!("{missed} events lost")));
            }
        };
        let messages = stream.messages(&event).map_err(|failure| {
            SubscriptionError::from(failure.into_error().message().to_owned())
        })?;
        // The blocks are not kept for one who takes long to read of them.
        drop(event);
        if !send(ctx, &sink, messages).await? {
            return Ok(());
        }
    }
}

/// Sends a notification; `false` if the subscriber has gone.
async fn send(
    ctx: &EthContext,
    sink: &SubscriptionSink,
    messages: Vec<Answer>,
) -> Result<bool, SubscriptionError> {
    for message in messages {
        match sink.send_timeout(message, ctx.config.slow_after()).await {
            Ok(()) => {}
            Err(SendTimeoutError::Closed(_)) => return Ok(false),
            Err(SendTimeoutError::Timeout(_)) => return Err(slow(ctx, "nothing is taken")),
        }
    }
    Ok(true)
}

fn slow(ctx: &EthContext, how: &str) -> SubscriptionError {
    EthStats::count(&ctx.stats.slow);
    SubscriptionError::from(format!("too slow: {how}; subscribe again and read faster"))
}
