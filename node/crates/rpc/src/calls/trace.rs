//! `debug_trace*` and `trace_*`: what a transaction did, seen by a tracer while it runs again.
//!
//! A transaction of a block runs again on the state of the block's parent, after the block's system
//! calls and the transactions before it, by the rules of consensus; the open block, too. So a trace
//! needs the parent's state, and a block whose parent is not kept is the execution client's. All that
//! runs for one request has the time of a call, and what a tracer keeps has a limit
//! ([`CallConfig::max_trace`](super::CallConfig)): geth's tracers have none, and one call that
//! writes to storage in a loop fills the memory of a node.

mod options;
mod parity;
mod tracer;

use std::sync::Arc;
use std::time::Duration;

use alloy_consensus::Header;
use alloy_primitives::B256;
use fragcast_execution::exec::{ExecutedBlock, Placed, Snapshot};
use fragcast_execution::executor::Heads;
use jsonrpsee::types::ErrorObjectOwned;
use revm::DatabaseCommit;
use revm::inspector::NoOpInspector;
use revm_inspectors::tracing::TransactionContext;
use serde::Serialize;
use serde_json::Value;

use super::error::CallError;
use super::evm::{Ground, Rules};
use super::{CallArgs, CallContext, CallSite};
use crate::error::Failure;
use crate::resolve::{Found, told_hash};

use options::Left;
pub(super) use options::{CallOptions, Options};
pub(super) use parity::{Kinds, call as parity_call, localized};
pub(super) use tracer::Tracer;

/// geth's words for a transaction that is not there.
const NOT_FOUND: &str = "transaction not found";

/// The error of a failure; a transaction that is not there has geth's code, not that of blocks.
pub(super) fn not_found(failure: Failure) -> ErrorObjectOwned {
    match failure {
        Failure::Unknown(what) if what == NOT_FOUND => CallError::Invalid(what).into(),
        failure => failure.into_error(),
    }
}

/// The trace of one transaction of a block.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TxTrace {
    tx_hash: B256,
    result: Value,
}

/// A block, and the state before it.
pub(super) struct Replayed {
    block: Found,
    /// The state after the block.
    after: Arc<Snapshot>,
    /// The state before it, which is its parent's.
    before: Arc<Snapshot>,
}

impl CallContext {
    /// The block with its parent's state.
    pub(super) fn replayed(&self, heads: &Heads, block: Found) -> Result<Replayed, Failure> {
        let block = block.whole()?;
        if block.header.number == 0 {
            return Err(Failure::refused("genesis is not traceable"));
        }
        let parent = match self.blocks.find_hash(heads, block.header.parent_hash) {
            Err(Failure::Unknown(what)) => return Err(Failure::Elsewhere(what)),
            parent => parent?,
        };
        let before = self.blocks.with_state(parent)?;
        let after = self.blocks.with_state(block.clone())?;
        Ok(Replayed { block, after, before })
    }

    /// The block that has a transaction, with its parent's state, and the transaction's index.
    pub(super) fn replayed_tx(&self, hash: B256) -> Result<(Replayed, usize), Failure> {
        let heads = self.blocks.heads()?;
        let found = self.blocks.tx(&heads, hash)?.or_else(|| self.blocks.preconfirmed(hash));
        let (block, index) = found.ok_or_else(|| Failure::Unknown(NOT_FOUND.to_owned()))?;
        Ok((self.replayed(&heads, block)?, index))
    }
}

impl Replayed {
    /// What a call on the block itself runs on.
    pub(super) fn site(&self, context: &CallContext, timeout: Option<Duration>) -> CallSite {
        CallSite::of(context, Arc::clone(&self.after)).within(timeout)
    }

    /// The index of a transaction, or that after the last.
    pub(super) fn index(&self, index: u64) -> Result<usize, CallError> {
        let count = self.block.tx_count();
        let within = usize::try_from(index).ok().filter(|index| *index <= count);
        within.ok_or_else(|| {
            CallError::Params(format!("txIndex {index}: the block has {count} transactions"))
        })
    }

    /// The parent's state, in the block, after its system calls.
    fn ground(&self, site: &CallSite) -> Result<Ground, CallError> {
        let spec = &site.spec;
        let mut before = (*self.before).clone();
        before.hashes = Arc::clone(&self.after.hashes);
        let mut ground = Ground::new(spec, &before, None, None, site.limits())?;
        let header: &Header = &self.block.header;
        ground.enter(spec, header.clone(), Default::default(), Rules::Replay)?;
        ground.open_block(spec, header)?;
        Ok(ground)
    }

    /// The state before the transaction with this index.
    pub(super) fn before(&self, site: &CallSite, index: usize) -> Result<Ground, CallError> {
        let mut ground = self.ground(site)?;
        for placed in self.block.txs().take(index) {
            pass(&mut ground, &placed)?;
        }
        Ok(ground)
    }

    /// Traces one transaction.
    pub(super) fn one(
        &self,
        site: &CallSite,
        index: usize,
        options: &Options,
    ) -> Result<Value, CallError> {
        let mut ground = self.before(site, index)?;
        let placed = self.block.tx(index).ok_or(CallError::Internal)?;
        let mut tracer = options.tracer(context(&self.block, &placed), site.config.max_trace)?;
        traced(&mut ground, &placed, &mut tracer)?;
        options.shown(tracer, logs_of(&placed))
    }

    /// Traces all transactions. What they keep together has the limit of one.
    pub(super) fn all(
        &self,
        site: &CallSite,
        options: &Options,
    ) -> Result<Vec<TxTrace>, CallError> {
        let mut ground = self.ground(site)?;
        let mut left = site.config.max_trace;
        let mut traces = Vec::with_capacity(self.block.tx_count());
        for placed in self.block.txs() {
            let mut tracer = options.tracer(context(&self.block, &placed), left)?;
            traced(&mut ground, &placed, &mut tracer)?;
            left = tracer.left();
            let tx_hash = placed.executed.tx.hash;
            traces.push(TxTrace { tx_hash, result: options.shown(tracer, logs_of(&placed))? });
        }
        Ok(traces)
    }
}

fn context(block: &ExecutedBlock, placed: &Placed<'_>) -> TransactionContext {
    TransactionContext {
        block_hash: Some(told_hash(block)),
        tx_index: Some(placed.index),
        tx_hash: Some(placed.executed.tx.hash),
    }
}

fn logs_of<'a>(placed: &Placed<'a>) -> Left<'a> {
    Left { logs: &placed.executed.receipt.logs, first: placed.first_log }
}

/// Runs a transaction of a block without looking on.
pub(super) fn pass(ground: &mut Ground, placed: &Placed<'_>) -> Result<(), CallError> {
    let outcome = ground.replay(&placed.executed.tx, &mut NoOpInspector)?;
    same(outcome.gas_used, placed)?;
    ground.db.commit(outcome.state);
    Ok(())
}

fn traced(ground: &mut Ground, placed: &Placed<'_>, tracer: &mut Tracer) -> Result<(), CallError> {
    let outcome = ground.replay(&placed.executed.tx, tracer)?;
    same(outcome.gas_used, placed)?;
    ground.db.commit(outcome.state);
    Ok(())
}

/// A replay that uses other gas than the block did shows something that has not happened.
fn same(gas_used: u64, placed: &Placed<'_>) -> Result<(), CallError> {
    let was = placed.executed.gas_used;
    if gas_used == was {
        return Ok(());
    }
    let (index, hash) = (placed.index, placed.executed.tx.hash);
    tracing::error!(index, %hash, gas_used, was, "a transaction used other gas when it was replayed");
    Err(CallError::Internal)
}

/// Traces a call on the state after a block, or before one of its transactions.
pub(super) fn call(
    site: &CallSite,
    at: Option<(&Replayed, usize)>,
    args: CallArgs,
    options: &Options,
) -> Result<Value, CallError> {
    let mut ground = match at {
        None => site.ground(args.overrides, args.state)?,
        Some((replayed, index)) => {
            let mut ground = replayed.before(site, index)?;
            let overrides = args.overrides.unwrap_or_default().for_call()?;
            let header = site.snapshot.header.clone();
            ground.enter(&site.spec, header, overrides, Rules::Call)?;
            ground.override_state(args.state.unwrap_or_default())?;
            ground
        }
    };
    let asked = ground.tx(args.request)?;
    let mut tracer = options.tracer(TransactionContext::default(), site.config.max_trace)?;
    let outcome = ground.transact(&asked, &mut tracer)?;
    options.shown(tracer, Left { logs: &outcome.logs, first: 0 })
}
