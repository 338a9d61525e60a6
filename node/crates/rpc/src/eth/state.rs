//! Accounts, code and storage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use alloy_primitives::{Address, B256, U64, U256};
use alloy_serde::JsonStorageKey;
use fragcast_execution::exec::Snapshot;
use fragcast_execution::executor::Oldest;
use serde_json::{Value, json};

use super::{Answer, EthContext, Failure, answer};
use crate::params::{Params, ParamsSequence, Slots};
use crate::resolve::{StateId, newest_frag};

/// The state named by the next parameter; `latest` if there is none.
pub(super) fn state_id(params: &mut ParamsSequence<'_>) -> Result<StateId, Failure> {
    Ok(params.optional_next()?.unwrap_or_default())
}

/// The state named by the next parameter.
fn state(ctx: &EthContext, params: &mut ParamsSequence<'_>) -> Result<Arc<Snapshot>, Failure> {
    ctx.blocks.snapshot(state_id(params)?)
}

/// How far the node is behind the execution client that it follows, if it is.
pub(super) fn sync_state(ctx: &EthContext) -> Option<Value> {
    let current = ctx.view.heads().map(|heads| heads.latest.number());
    let client = ctx.follow.as_ref().map_or(0, |follow| follow.head.load(Ordering::Relaxed));
    // The client's newest block is imported a moment after it was seen.
    if current.is_some_and(|current| client <= current.saturating_add(1)) {
        return None;
    }
    let (current, highest) = (U64::from(current.unwrap_or(0)), U64::from(client));
    Some(json!({
        "startingBlock": U64::ZERO, "currentBlock": current, "highestBlock": highest
    }))
}

pub(super) fn syncing(ctx: &EthContext, _: &Params<'_>) -> Result<Answer, Failure> {
    match sync_state(ctx) {
        Some(state) => answer(&state),
        None => answer(&false),
    }
}

pub(super) fn block_number(ctx: &EthContext, _: &Params<'_>) -> Result<Answer, Failure> {
    answer(&U64::from(ctx.blocks.heads()?.latest.number()))
}

/// The newest frag, as a block parameter names its state.
pub(super) fn frag_height(ctx: &EthContext, _: &Params<'_>) -> Result<Answer, Failure> {
    answer(&newest_frag(&*ctx.blocks.heads()?))
}

pub(super) fn balance(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    let address: Address = params.next()?;
    let account = state(ctx, &mut params)?.state.account(address)?;
    answer(&account.map_or(U256::ZERO, |account| account.balance))
}

pub(super) fn nonce(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    let address: Address = params.next()?;
    let id = state_id(&mut params)?;
    let read = || {
        let account = ctx.blocks.snapshot(id)?.state.account(address)?;
        Ok::<_, Failure>(account.map_or(0, |account| account.nonce))
    };
    let mut nonce = read()?;
    if !id.is_pending() {
        return answer(&U64::from(nonce));
    }
    // What leaves the table of forwarded transactions is in the state by then, but perhaps not yet in
    // the one that was read: then the state is read again.
    for _ in 0..3 {
        let counted = ctx.forwarded.pending_nonce(address, nonce);
        let again = read()?;
        if again == nonce {
            return answer(&U64::from(counted));
        }
        nonce = again;
    }
    answer(&U64::from(ctx.forwarded.pending_nonce(address, nonce)))
}

pub(super) fn code(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    let address: Address = params.next()?;
    answer(&state(ctx, &mut params)?.state.code_of(address)?)
}

pub(super) fn storage(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    let address: Address = params.next()?;
    let slot: JsonStorageKey = params.next()?;
    let value = state(ctx, &mut params)?.state.storage(address, slot.as_b256().into())?;
    answer(&B256::from(value))
}

/// The most slots that `eth_getStorageValues` reads, as in geth.
const MAX_SLOTS: usize = 1024;

/// Slots of many accounts, all of one state.
pub(super) fn storage_values(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    let Slots(asked) = params.next()?;
    let id = state_id(&mut params)?;
    match asked.values().map(Vec::len).sum::<usize>() {
        0 => return Err(Failure::params("empty request")),
        1..=MAX_SLOTS => {}
        _ => return Err(Failure::limit(format!("too many slots (max {MAX_SLOTS})"))),
    }
    let snapshot = ctx.blocks.snapshot(id)?;
    // A client is asked for many at a time.
    let keys: Vec<(Address, Vec<U256>)> =
        asked.iter().map(|(address, slots)| (*address, slots.clone())).collect();
    snapshot.state.prefetch(&keys);
    let mut values = BTreeMap::<Address, Vec<B256>>::new();
    for (address, slots) in asked {
        let read = |slot| Ok::<_, Failure>(snapshot.state.storage(address, slot)?.into());
        values.insert(address, slots.into_iter().map(read).collect::<Result<_, _>>()?);
    }
    answer(&values)
}

/// What can be asked for here, without the execution client, and from which block on. Balancers send
/// a request to a node that has the block.
pub(super) fn capabilities(ctx: &EthContext, _: &Params<'_>) -> Result<Answer, Failure> {
    let latest = &ctx.blocks.heads()?.latest;
    let Oldest { block, state, proof } = ctx.view.oldest()?;
    let from = |number: u64| json!({ "disabled": false, "oldestBlock": U64::from(number) });
    let proofs = proof.map_or_else(|| json!({ "disabled": true }), from);
    answer(&json!({
        "head": { "number": U64::from(latest.number()), "hash": latest.hash() },
        "state": from(state), "stateproofs": proofs, "blocks": from(block), "tx": from(block),
        "receipts": from(block), "logs": from(block),
    }))
}
