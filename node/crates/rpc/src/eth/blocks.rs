//! Blocks, transactions and receipts.

use std::sync::Arc;

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{B256, U64};
use fragcast_execution::exec::Placed;
use serde_json::value::RawValue;

use super::types::{Receipts, RpcBlock, RpcTx};
use super::{Answer, EthContext, Failure, Found, answer};
use crate::params::{Params, ParamsSequence};

pub(super) fn null() -> Answer {
    RawValue::NULL.to_owned()
}

pub(super) fn by_number(ctx: &EthContext, params: &mut ParamsSequence<'_>) -> Result<Found, Failure> {
    let number: BlockNumberOrTag = params.next()?;
    ctx.blocks.find_number(&*ctx.blocks.heads()?, number)
}

pub(super) fn by_hash(ctx: &EthContext, params: &mut ParamsSequence<'_>) -> Result<Found, Failure> {
    let hash: B256 = params.next()?;
    ctx.blocks.find_hash(&*ctx.blocks.heads()?, hash)
}

fn shown(block: Found, params: &mut ParamsSequence<'_>) -> Result<Answer, Failure> {
    let full = params.optional_next::<bool>()?.unwrap_or(false);
    answer(&RpcBlock::new(&*block.whole()?, full))
}

pub(super) fn block(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    shown(by_number(ctx, &mut params)?, &mut params)
}

pub(super) fn block_by_hash(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    shown(by_hash(ctx, &mut params)?, &mut params)
}

pub(super) fn tx_count(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    answer(&U64::from(by_number(ctx, &mut params.sequence())?.whole()?.tx_count()))
}

pub(super) fn tx_count_by_hash(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    answer(&U64::from(by_hash(ctx, &mut params.sequence())?.whole()?.tx_count()))
}

pub(super) fn uncle_count(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    by_number(ctx, &mut params.sequence())?;
    answer(&U64::ZERO)
}

pub(super) fn uncle_count_by_hash(
    ctx: &EthContext,
    params: &Params<'_>,
) -> Result<Answer, Failure> {
    by_hash(ctx, &mut params.sequence())?;
    answer(&U64::ZERO)
}

pub(super) fn uncle(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    by_number(ctx, &mut params.sequence())?;
    Ok(null())
}

pub(super) fn uncle_by_hash(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    by_hash(ctx, &mut params.sequence())?;
    Ok(null())
}

fn indexed(block: Found, params: &mut ParamsSequence<'_>) -> Result<Answer, Failure> {
    let index: U64 = params.next()?;
    let block = block.whole()?;
    let placed = usize::try_from(index.to::<u64>()).ok().and_then(|index| block.tx(index));
    placed.map_or_else(|| Ok(null()), |placed| answer(&RpcTx::new(&block, &placed)))
}

pub(super) fn tx_at(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    indexed(by_number(ctx, &mut params)?, &mut params)
}

pub(super) fn tx_at_hash(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    indexed(by_hash(ctx, &mut params)?, &mut params)
}

/// Finds a transaction in the pending block or in a canonical one, and passes it to `show`.
pub(super) fn with_tx(
    ctx: &EthContext,
    params: &Params<'_>,
    show: impl Fn(&Found, &Placed<'_>) -> Result<Answer, Failure>,
) -> Result<Answer, Failure> {
    let hash: B256 = params.sequence().next()?;
    let heads = ctx.blocks.heads()?;
    for open in heads.open.iter().rev() {
        let open = Found::Open(Arc::clone(open));
        if let Some(placed) = open.tx_by_hash(hash) {
            return show(&open, &placed);
        }
    }
    let unknown = || Failure::Unknown(format!("no transaction {hash} is known here"));
    let (block, index) = ctx.view.tx(hash)?.ok_or_else(unknown)?;
    let block = ctx.blocks.find_hash(&heads, block)?;
    // An index that is wrong would show somebody else's transaction.
    let placed = block.tx(index).filter(|placed| placed.executed.tx.hash == hash);
    show(&block, &placed.ok_or_else(unknown)?)
}

pub(super) fn tx(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let hash: B256 = params.sequence().next()?;
    // Before the heads: what leaves that table is in a block by then.
    let waiting = ctx.forwarded.get(hash);
    match with_tx(ctx, params, |block, placed| answer(&RpcTx::new(block, placed))) {
        Err(failure) => match waiting {
            Some(tx) => answer(&RpcTx::waiting(&tx)),
            None => Err(failure),
        },
        found => found,
    }
}

pub(super) fn receipt(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    with_tx(ctx, params, |block, placed| {
        // Found anew, so that it lives as long as the block.
        let placed = block.tx(placed.index).ok_or_else(|| Failure::internal(&"an index"))?;
        answer(&Receipts::new(&ctx.spec, block).one(&placed))
    })
}

pub(super) fn receipts(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let id: BlockId = params.sequence().next()?;
    let block = ctx.blocks.find(&*ctx.blocks.heads()?, id)?.whole()?;
    answer(&Receipts::new(&ctx.spec, &block).all())
}
