//! Accounts, code and storage.

use std::sync::atomic::Ordering;

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{Address, B256, U64, U256};
use alloy_serde::JsonStorageKey;
use serde_json::json;

use super::{Answer, EthContext, Failure, Found, answer};
use crate::params::{Params, ParamsSequence};

/// The block named by the next parameter; `latest` if there is none.
pub(super) fn block_id(params: &mut ParamsSequence<'_>) -> Result<BlockId, Failure> {
    Ok(params.optional_next()?.unwrap_or_default())
}

fn found(ctx: &EthContext, id: BlockId) -> Result<Found, Failure> {
    ctx.blocks.find(&*ctx.blocks.heads()?, id)
}

pub(super) fn syncing(ctx: &EthContext, _: &Params<'_>) -> Result<Answer, Failure> {
    let current = ctx.view.heads().map(|heads| heads.latest.number());
    let client = ctx.follow.as_ref().map_or(0, |follow| follow.head.load(Ordering::Relaxed));
    // The client's newest block is imported a moment after it was seen.
    if current.is_some_and(|current| client <= current.saturating_add(1)) {
        return answer(&false);
    }
    let (current, highest) = (U64::from(current.unwrap_or(0)), U64::from(client));
    answer(&json!({ "startingBlock": U64::ZERO, "currentBlock": current, "highestBlock": highest }))
}

pub(super) fn block_number(ctx: &EthContext, _: &Params<'_>) -> Result<Answer, Failure> {
    answer(&U64::from(ctx.blocks.latest(&*ctx.blocks.heads()?).header.number))
}

pub(super) fn balance(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    let address: Address = params.next()?;
    let block = found(ctx, block_id(&mut params)?)?;
    let account = block.state()?.account(address)?;
    answer(&account.map_or(U256::ZERO, |account| account.balance))
}

pub(super) fn nonce(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    let address: Address = params.next()?;
    let id = block_id(&mut params)?;
    let block = found(ctx, id)?;
    let read = |block: &Found| {
        Ok::<_, Failure>(block.state()?.account(address)?.map_or(0, |account| account.nonce))
    };
    let mut nonce = read(&block)?;
    let pending = match id {
        BlockId::Number(BlockNumberOrTag::Pending) => true,
        BlockId::Number(BlockNumberOrTag::Latest) => ctx.config.preconf_as_latest,
        _ => false,
    };
    if !pending {
        return answer(&U64::from(nonce));
    }
    // What leaves the table of forwarded transactions is in the state by then, but perhaps not yet in
    // the one that was read: then the state is read again.
    for _ in 0..3 {
        let counted = ctx.forwarded.pending_nonce(address, nonce);
        let again = read(&found(ctx, id)?)?;
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
    let block = found(ctx, block_id(&mut params)?)?;
    answer(&block.state()?.code_of(address)?)
}

pub(super) fn storage(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    let address: Address = params.next()?;
    let slot: JsonStorageKey = params.next()?;
    let block = found(ctx, block_id(&mut params)?)?;
    let value = block.state()?.storage(address, slot.as_b256().into())?;
    answer(&B256::from(value))
}
