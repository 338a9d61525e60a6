//! Fees: those that blocks took, and suggestions.

use std::sync::Arc;

use alloy_primitives::{B256, U64, U128};
use alloy_rpc_types_eth::FeeHistory;
use arc_swap::ArcSwapOption;
use fragcast_execution::exec::{ExecutedBlock, SealedBlock};
use fragcast_execution::executor::Heads;

use super::types::paid;
use super::{Answer, EthContext, Failure, Found, answer};
use crate::params::{Count, Params};
use crate::resolve::BlockTag;

/// Blocks that a suggestion considers: geth's number.
const TIP_BLOCKS: usize = 20;
/// The lowest tips of each block that count: geth's number.
const TIPS_PER_BLOCK: usize = 3;
/// The percentile of them that is suggested: geth's.
const TIP_PERCENTILE: usize = 60;
/// Smaller tips do not count: geth's number, wei.
const LEAST_TIP: u128 = 2;
/// The suggestion if nothing is known: 1 gwei.
const DEFAULT_TIP: u128 = 1_000_000_000;
/// The least suggestion on OP chains, op-geth's: 0.001 gwei.
const OP_TIP: u128 = 1_000_000;
/// Percentiles in one request: geth's limit.
const MAX_PERCENTILES: usize = 100;

/// The last suggestion, and the hash of the head that it was made at.
#[derive(Default)]
pub(super) struct Tips(ArcSwapOption<(B256, u128)>);

fn suggested(ctx: &EthContext, heads: &Heads) -> u128 {
    let head = heads.latest.hash();
    if let Some(known) = &*ctx.fees.0.load()
        && known.0 == head
    {
        return known.1;
    }
    let tip = suggest(ctx, &heads.latest);
    ctx.fees.0.store(Some(Arc::new((head, tip))));
    tip
}

fn suggest(ctx: &EthContext, head: &Arc<SealedBlock>) -> u128 {
    let mut offered = Vec::with_capacity(TIP_BLOCKS * TIPS_PER_BLOCK);
    let mut next = Some(Arc::clone(head));
    for _ in 0..TIP_BLOCKS {
        let Some(block) = next else { break };
        let mut lowest: Vec<u128> =
            tips(&block.snapshot).map(|(tip, _)| tip).filter(|tip| *tip >= LEAST_TIP).collect();
        lowest.sort_unstable();
        offered.extend(lowest.into_iter().take(TIPS_PER_BLOCK));
        next = ctx.view.recent(block.snapshot.header.parent_hash);
    }
    offered.sort_unstable();
    let at = offered.len().saturating_sub(1) * TIP_PERCENTILE / 100;
    let tip = offered.get(at).copied();
    if !ctx.spec.is_op() {
        return tip.unwrap_or(DEFAULT_TIP);
    }
    // As op-geth: blocks that are not full take whatever pays the least.
    let header = &head.snapshot.header;
    let full = header.gas_used > header.gas_limit / 10 * 9;
    if full { tip.map_or(OP_TIP, |tip| (tip + tip / 10).max(OP_TIP)) } else { OP_TIP }
}

/// Tip per gas and gas used, of all transactions but deposits, which offer nothing.
fn tips(block: &ExecutedBlock) -> impl Iterator<Item = (u128, u64)> + '_ {
    let base = u128::from(block.header.base_fee_per_gas.unwrap_or(0));
    block
        .txs()
        .filter(|placed| !placed.executed.tx.envelope.is_deposit())
        .map(move |placed| (paid(block, &placed).saturating_sub(base), placed.executed.gas_used))
}

/// The base fee of the block after this one.
fn next_base_fee(ctx: &EthContext, block: &ExecutedBlock) -> u64 {
    let header = &block.header;
    let next = ctx.spec.next_base_fee(header, header.timestamp.saturating_add(1));
    // A header that was verified has the parameters it must; if not, the fee does not move.
    next.unwrap_or_else(|_| header.base_fee_per_gas.unwrap_or(0))
}

pub(super) fn tip(ctx: &EthContext, _: &Params<'_>) -> Result<Answer, Failure> {
    answer(&U128::from(suggested(ctx, &*ctx.blocks.heads()?)))
}

/// The base fee of the block in execution, or of the next.
fn current_base_fee(ctx: &EthContext, heads: &Heads) -> u64 {
    match &heads.pending {
        Some(pending) => pending.header.base_fee_per_gas.unwrap_or(0),
        None => next_base_fee(ctx, &heads.latest.snapshot),
    }
}

pub(super) fn base_fee(ctx: &EthContext, _: &Params<'_>) -> Result<Answer, Failure> {
    answer(&U64::from(current_base_fee(ctx, &*ctx.blocks.heads()?)))
}

pub(super) fn gas_price(ctx: &EthContext, _: &Params<'_>) -> Result<Answer, Failure> {
    let heads = ctx.blocks.heads()?;
    let base = current_base_fee(ctx, &heads);
    answer(&U128::from(suggested(ctx, &heads).saturating_add(base.into())))
}

pub(super) fn blob_base_fee(ctx: &EthContext, _: &Params<'_>) -> Result<Answer, Failure> {
    let heads = ctx.blocks.heads()?;
    let header = &heads.pending().header;
    let params = ctx.spec.blob_params(header.timestamp);
    // Without blobs (OP) it is the least there is, as op-geth has it.
    answer(&U128::from(params.and_then(|params| header.blob_fee(params)).unwrap_or(1)))
}

pub(super) fn history(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    let Count(count) = params.next()?;
    let BlockTag(newest) = params.next()?;
    let percentiles: Option<Vec<f64>> = params.optional_next()?;
    check(percentiles.as_deref().unwrap_or_default())?;
    // Without one there are no rewards, and no block is needed whole.
    let percentiles = percentiles.filter(|percentiles| !percentiles.is_empty());
    let count = count.min(ctx.config.max_fee_history);
    let heads = ctx.blocks.heads()?;
    let newest = ctx.blocks.find_number(&heads, newest)?;
    if count == 0 {
        return answer(&FeeHistory::default());
    }
    // Newest first; the next one is always found by its hash, so they are one chain.
    // Of blocks before Cancun the fee is 0, as geth has it.
    let blobs = !ctx.spec.is_op();
    let mut out = FeeHistory::default();
    let mut rewards = Vec::new();
    out.base_fee_per_gas.push(next_base_fee(ctx, &newest).into());
    if blobs {
        out.base_fee_per_blob_gas.push(next_blob_fee(ctx, &newest));
    }
    let mut next = newest;
    loop {
        let block = if percentiles.is_some() { next.whole()? } else { next };
        let header = &block.header;
        out.oldest_block = header.number;
        out.base_fee_per_gas.push(header.base_fee_per_gas.unwrap_or(0).into());
        out.gas_used_ratio.push(ratio(header.gas_used, header.gas_limit));
        if blobs {
            let params = ctx.spec.blob_params(header.timestamp);
            let fee = params.and_then(|params| header.blob_fee(params)).unwrap_or(0);
            let max = params.map_or(0, |params| params.max_blob_gas_per_block());
            out.base_fee_per_blob_gas.push(fee);
            out.blob_gas_used_ratio.push(ratio(header.blob_gas_used.unwrap_or(0), max));
        }
        if let Some(percentiles) = &percentiles {
            rewards.push(reward(&block, percentiles));
        }
        if out.gas_used_ratio.len() as u64 == count || header.number == 0 {
            break;
        }
        // Below a block in execution there may be others, which have no hash yet.
        let below = heads.open.iter().find(|open| open.header.number + 1 == header.number);
        let parent = match below.filter(|_| !block.is_sealed()) {
            Some(open) => Ok(Found::Open(Arc::clone(open))),
            None => ctx.blocks.find_hash(&heads, header.parent_hash),
        };
        match parent {
            Ok(parent) => next = parent,
            // Fewer than asked for are allowed, and all there is without a client to ask.
            Err(failure) if failure.may_be_elsewhere() && ctx.upstream.is_none() => break,
            Err(Failure::Unknown(what)) => return Err(Failure::Elsewhere(what)),
            Err(failure) => return Err(failure),
        }
    }
    out.base_fee_per_gas.reverse();
    out.gas_used_ratio.reverse();
    out.base_fee_per_blob_gas.reverse();
    out.blob_gas_used_ratio.reverse();
    rewards.reverse();
    out.reward = percentiles.is_some().then_some(rewards);
    answer(&out)
}

fn check(percentiles: &[f64]) -> Result<(), Failure> {
    if percentiles.len() > MAX_PERCENTILES {
        let what = format!("{} percentiles, the limit is {MAX_PERCENTILES}", percentiles.len());
        return Err(Failure::limit(what));
    }
    let within = percentiles.iter().all(|p| (0.0..=100.0).contains(p));
    if !within || !percentiles.is_sorted() {
        return Err(Failure::invalid(&"percentiles must ascend and be within 0 and 100"));
    }
    Ok(())
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn next_blob_fee(ctx: &EthContext, block: &Found) -> u128 {
    let timestamp = block.header.timestamp.saturating_add(1);
    let excess = ctx.spec.next_excess_blob_gas(&block.header, timestamp);
    let fee = ctx.spec.blob_params(timestamp).zip(excess);
    fee.map_or(0, |(params, excess)| params.calc_blob_fee(excess))
}

/// For each percentile of the block's gas, the tip of the transaction that it falls on when they
/// are ordered by tip (as geth).
fn reward(block: &ExecutedBlock, percentiles: &[f64]) -> Vec<u128> {
    let mut tips: Vec<(u128, u64)> = tips(block).collect();
    tips.sort_by_key(|(tip, _)| *tip);
    let Some(&(first, gas)) = tips.first() else { return vec![0; percentiles.len()] };
    let total: u64 = tips.iter().map(|(_, gas)| gas).sum();
    let (mut at, mut tip, mut sum) = (1, first, gas);
    percentiles
        .iter()
        .map(|percentile| {
            let threshold = (total as f64 * percentile / 100.0) as u64;
            while sum < threshold
                && let Some(&(next, gas)) = tips.get(at)
            {
                (at, tip, sum) = (at + 1, next, sum + gas);
            }
            tip
        })
        .collect()
}
