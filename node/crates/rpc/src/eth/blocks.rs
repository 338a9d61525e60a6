//! Blocks, transactions and receipts.

use alloy_primitives::{B256, U64};
use fragcast_execution::exec::{Placed, Tx};
use serde_json::Value;
use serde_json::value::RawValue;

use super::types::{Receipts, RpcBlock, RpcTx};
use super::{Answer, EthContext, Failure, Found, answer};
use crate::params::{Params, ParamsSequence};
use crate::resolve::{BlockTag, StateId};

pub(super) fn null() -> Answer {
    RawValue::NULL.to_owned()
}

pub(super) fn by_number(
    ctx: &EthContext,
    params: &mut ParamsSequence<'_>,
) -> Result<Found, Failure> {
    let BlockTag(number) = params.next()?;
    ctx.blocks.find_number(&*ctx.blocks.heads()?, number)
}

pub(super) fn by_hash(ctx: &EthContext, params: &mut ParamsSequence<'_>) -> Result<Found, Failure> {
    let hash: B256 = params.next()?;
    ctx.blocks.find_hash(&*ctx.blocks.heads()?, hash)
}

fn shown(block: Found, full: bool) -> Result<Answer, Failure> {
    answer(&RpcBlock::new(&*block.whole()?, full))
}

pub(super) fn block(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    let BlockTag(number) = params.next()?;
    let full = params.optional_next::<bool>()?.unwrap_or(false);
    let block = ctx.blocks.find_number(&*ctx.blocks.heads()?, number)?;
    let Found::Open(open) = &block else { return shown(block, full) };
    // By number only the tag `pending` finds it: hash and nonce are null then, as geth has it, and
    // clients know that of this tag.
    let mut block = serde_json::to_value(RpcBlock::new(open, full))
        .map_err(|error| Failure::internal(&error))?;
    block["hash"] = Value::Null;
    block["nonce"] = Value::Null;
    answer(&block)
}

pub(super) fn block_by_hash(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    let hash: B256 = params.next()?;
    let full = params.optional_next::<bool>()?.unwrap_or(false);
    shown(ctx.blocks.find_hash(&*ctx.blocks.heads()?, hash)?, full)
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
    let mut params = params.sequence();
    let BlockTag(number) = params.next()?;
    let _: U64 = params.next()?;
    ctx.blocks.find_number(&*ctx.blocks.heads()?, number)?;
    Ok(null())
}

pub(super) fn uncle_by_hash(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    let hash: B256 = params.next()?;
    let _: U64 = params.next()?;
    ctx.blocks.find_hash(&*ctx.blocks.heads()?, hash)?;
    Ok(null())
}

fn indexed(block: Found, index: U64) -> Result<Answer, Failure> {
    let block = block.whole()?;
    let placed = usize::try_from(index.to::<u64>()).ok().and_then(|index| block.tx(index));
    placed.map_or_else(|| Ok(null()), |placed| answer(&RpcTx::new(&block, &placed)))
}

/// A block by its number, and an index in it.
pub(super) fn at_number(ctx: &EthContext, params: &Params<'_>) -> Result<(Found, U64), Failure> {
    let mut params = params.sequence();
    let (BlockTag(number), index) = (params.next()?, params.next()?);
    Ok((ctx.blocks.find_number(&*ctx.blocks.heads()?, number)?, index))
}

/// A block by its hash, and an index in it.
pub(super) fn at_hash(ctx: &EthContext, params: &Params<'_>) -> Result<(Found, U64), Failure> {
    let mut params = params.sequence();
    let (hash, index) = (params.next::<B256>()?, params.next()?);
    Ok((ctx.blocks.find_hash(&*ctx.blocks.heads()?, hash)?, index))
}

pub(super) fn tx_at(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let (block, index) = at_number(ctx, params)?;
    indexed(block, index)
}

pub(super) fn tx_at_hash(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let (block, index) = at_hash(ctx, params)?;
    indexed(block, index)
}

/// Finds a transaction where this view shows it, and passes it to `show`.
pub(super) fn with_tx(
    ctx: &EthContext,
    hash: B256,
    show: impl Fn(&Found, &Placed<'_>) -> Result<Answer, Failure>,
) -> Result<Answer, Failure> {
    let unknown = || Failure::Unknown(format!("no transaction {hash} is known here"));
    let (block, index) = ctx.blocks.tx(&*ctx.blocks.heads()?, hash)?.ok_or_else(unknown)?;
    let placed = block.tx(index).ok_or_else(unknown)?;
    show(&block, &placed)
}

/// A transaction that is in no block of this view yet: preconfirmed, or forwarded. To be asked for
/// before the heads are: what leaves the one is in the other by then.
pub(super) fn waiting(ctx: &EthContext, hash: B256) -> Option<Tx> {
    let forwarded = ctx.forwarded.get(hash);
    let preconfirmed = ctx.blocks.preconfirmed(hash);
    let executed =
        preconfirmed.and_then(|(block, index)| Some(block.tx(index)?.executed.tx.clone()));
    executed.or(forwarded)
}

pub(super) fn tx(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let hash: B256 = params.sequence().next()?;
    let waiting = waiting(ctx, hash);
    match with_tx(ctx, hash, |block, placed| answer(&RpcTx::new(block, placed))) {
        Err(failure) => match waiting {
            Some(tx) => answer(&RpcTx::waiting(&tx)),
            None => Err(failure),
        },
        found => found,
    }
}

pub(super) fn receipt(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let hash: B256 = params.sequence().next()?;
    let preconfirmed = ctx.blocks.preconfirmed(hash).is_some();
    let receipt = with_tx(ctx, hash, |block, placed| {
        // Found anew, so that it lives as long as the block.
        let placed = block.tx(placed.index).ok_or_else(|| Failure::internal(&"an index"))?;
        answer(&Receipts::new(&ctx.spec, block).one(&placed))
    });
    match receipt {
        // It is known here and has no receipt yet: nobody else is asked.
        Err(Failure::Unknown(what)) if preconfirmed => Err(Failure::Absent(what)),
        receipt => receipt,
    }
}

pub(super) fn receipts(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let id: StateId = params.sequence().next()?;
    if id.frag.is_some() {
        return Err(Failure::invalid(&"receipts are those of a block, without fragIndex"));
    }
    let block = ctx.blocks.find(&*ctx.blocks.heads()?, id.block)?.whole()?;
    answer(&Receipts::new(&ctx.spec, &block).all())
}
