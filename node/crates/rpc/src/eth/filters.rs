//! Filters that are polled: `eth_newFilter` and similar methods.
//!
//! A filter is a position in the view's ring of events, and nothing is copied for it: a poll reads
//! on from that position. A filter that is polled so rarely that the ring has moved past it is
//! dropped, and the poll says "filter not found", on which clients make a new one. That is better
//! than a silent gap. The ring's size is [`ChainView::new`]'s `queue`.
//!
//! [`ChainView::new`]: fragcast_execution::executor::ChainView::new

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy_primitives::{B256, U128};
use alloy_rpc_types_eth::{Filter, Log};
use fragcast_execution::executor::ChainEvent;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::Instant;

use super::logs::{matching, matching_frag, select};
use super::ranges::{Coming, Values, filter, values};
use super::{Answer, EthConfig, EthContext, EthStats, Failure, answer};
use crate::params::Params;

/// What a filter returns.
enum Kind {
    /// Hashes of verified blocks.
    Blocks,
    /// Hashes of executed transactions.
    Txs,
    /// Logs.
    Logs(Box<Filter>, Coming),
}

struct Polled {
    kind: Kind,
    _values: OwnedSemaphorePermit,
    events: Receiver<ChainEvent>,
    last_poll: Instant,
}

type Table = HashMap<U128, Arc<Mutex<Polled>>>;

/// All filters; their number is bounded by [`max_filters`](super::EthConfig::max_filters).
pub(super) struct Filters {
    table: Mutex<Table>,
    values: Values,
}

impl Filters {
    pub(super) fn new(config: &EthConfig) -> Self {
        Self { table: Mutex::default(), values: Values::new(config.max_filters, config) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(filter: &Mutex<Polled>) -> MutexGuard<'_, Polled> {
    filter.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install(ctx: &EthContext, kind: Kind) -> Result<Answer, Failure> {
    let mut id = [0; 16];
    // Nobody shall guess another's.
    getrandom::fill(&mut id).map_err(|e| Failure::internal(&e))?;
    let id = U128::from_be_bytes(id);
    let events = ctx.view.subscribe();
    let mut table = ctx.filters.table();
    expire(ctx, &mut table);
    if table.len() >= ctx.config.max_filters {
        let limit = ctx.config.max_filters;
        return Err(Failure::limit(format!(
            "there are {limit} filters, which is the limit; uninstall some or subscribe"
        )));
    }
    let values = if let Kind::Logs(filter, _) = &kind { values(filter) } else { 0 };
    let values = ctx.filters.values.take(values)?;
    let polled = Polled { kind, _values: values, events, last_poll: Instant::now() };
    table.insert(id, Arc::new(Mutex::new(polled)));
    ctx.stats.filters.store(table.len() as u64, Ordering::Relaxed);
    answer(&id)
}

fn expire(ctx: &EthContext, table: &mut Table) {
    let (before, timeout) = (table.len(), ctx.config.filter_timeout());
    // One that is being polled now is not waited for.
    table.retain(|_, filter| {
        filter.try_lock().map_or(true, |filter| filter.last_poll.elapsed() < timeout)
    });
    let expired = (before - table.len()) as u64;
    ctx.stats.filters_expired.fetch_add(expired, Ordering::Relaxed);
    ctx.stats.filters.store(table.len() as u64, Ordering::Relaxed);
}

impl EthContext {
    /// Drops filters that nobody polls any more, because each keeps the events since its last poll
    /// in memory. To be called from time to time.
    pub fn tick(&self) {
        expire(self, &mut self.filters.table());
    }
}

fn remove(ctx: &EthContext, id: &U128) -> bool {
    let mut table = ctx.filters.table();
    let removed = table.remove(id).is_some();
    ctx.stats.filters.store(table.len() as u64, Ordering::Relaxed);
    removed
}

/// The filter with the id that comes next, unless it has expired.
fn get(ctx: &EthContext, params: &Params<'_>) -> Result<(U128, Arc<Mutex<Polled>>), Failure> {
    let id: U128 = params.sequence().next()?;
    let found = ctx.filters.table().get(&id).cloned();
    let filter = found.ok_or_else(Failure::filter_not_found)?;
    let expired = {
        let mut filter = lock(&filter);
        let expired = filter.last_poll.elapsed() >= ctx.config.filter_timeout();
        filter.last_poll = Instant::now();
        expired
    };
    if expired {
        if remove(ctx, &id) {
            EthStats::count(&ctx.stats.filters_expired);
        }
        return Err(Failure::filter_not_found());
    }
    Ok((id, filter))
}

pub(super) fn new_logs(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let filter = filter(ctx, &mut params.sequence())?;
    let coming = Coming::new(&filter)?;
    install(ctx, Kind::Logs(Box::new(filter), coming))
}

pub(super) fn new_blocks(ctx: &EthContext, _: &Params<'_>) -> Result<Answer, Failure> {
    install(ctx, Kind::Blocks)
}

pub(super) fn new_txs(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    if params.sequence().optional_next::<bool>()? == Some(true) {
        let what = "a filter gives hashes; for whole transactions subscribe to them";
        return Err(Failure::params(format!("invalid argument 0: {what}")));
    }
    install(ctx, Kind::Txs)
}

pub(super) fn uninstall(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let id: U128 = params.sequence().next()?;
    answer(&remove(ctx, &id))
}

pub(super) fn logs(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let (_, filter) = get(ctx, params)?;
    let selected = match &lock(&filter).kind {
        Kind::Logs(selected, _) => selected.clone(),
        _ => return Err(Failure::filter_not_found()),
    };
    answer(&select(ctx, &selected)?)
}

pub(super) fn changes(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let (id, filter) = get(ctx, params)?;
    let mut filter = lock(&filter);
    let (mut hashes, mut logs): (Vec<B256>, Vec<Log>) = (Vec::new(), Vec::new());
    // What is over the limit comes with the next poll.
    while hashes.len() + logs.len() < ctx.config.max_logs {
        let event = match filter.events.try_recv() {
            Ok(event) => event,
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            Err(TryRecvError::Lagged(_)) => {
                if remove(ctx, &id) {
                    EthStats::count(&ctx.stats.filters_lagged);
                }
                return Err(Failure::filter_not_found());
            }
        };
        match (&filter.kind, event) {
            (Kind::Blocks, ChainEvent::Verified(block)) => hashes.push(block.hash()),
            (Kind::Txs, ChainEvent::Frag(snapshot)) => {
                let txs = snapshot.frags.last().into_iter().flat_map(|frag| &frag.txs);
                hashes.extend(txs.map(|executed| executed.tx.hash));
            }
            (Kind::Logs(filter, coming), event) => changed(filter, *coming, &event, &mut logs),
            _ => {}
        }
    }
    match filter.kind {
        Kind::Logs(..) => answer(&logs),
        _ => answer(&hashes),
    }
}

/// The logs that an event adds or takes back. A filter that waits for both returns logs twice: when
/// they are executed, with the provisional hash, and with their block, which may have come whole.
fn changed(filter: &Filter, coming: Coming, event: &ChainEvent, logs: &mut Vec<Log>) {
    let (number, wanted) = match event {
        ChainEvent::Frag(snapshot) | ChainEvent::Retracted { snapshot, .. } => {
            (snapshot.header.number, coming.preconfirmed)
        }
        ChainEvent::Verified(block) => (block.number(), coming.verified),
        ChainEvent::Unwound(block) => (block.header.number, coming.verified),
    };
    if !wanted || !coming.has(number) {
        return;
    }
    match event {
        ChainEvent::Frag(snapshot) => logs.extend(matching_frag(filter, snapshot)),
        ChainEvent::Retracted { snapshot, .. } => logs.extend(matching(filter, snapshot, true)),
        ChainEvent::Verified(block) => logs.extend(matching(filter, &block.snapshot, false)),
        ChainEvent::Unwound(block) => logs.extend(matching(filter, block, true)),
    }
}
