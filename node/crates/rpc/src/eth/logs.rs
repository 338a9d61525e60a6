//! `eth_getLogs`.

use std::sync::Arc;

use alloy_eips::BlockNumberOrTag;
use alloy_primitives::B256;
use alloy_rpc_types_eth::{Filter, FilterBlockOption, Log};
use fragcast_execution::exec::{ExecutedBlock, Placed};
use fragcast_execution::executor::Heads;

use super::types::logs_of;
use super::{Answer, EthContext, Failure, Found, answer};
use crate::params::{Params, ParamsSequence};

/// How often a range is read again if its blocks do not follow one another, because the chain was
/// reorganised meanwhile.
const ATTEMPTS: usize = 3;
/// Bytes of a log in JSON beside its data, roughly.
const LOG_LEN: usize = 600;

pub(super) fn logs(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let filter = filter(ctx, &mut params.sequence())?;
    answer(&select(ctx, &filter)?)
}

/// Reads the next parameter as a filter, within limits.
pub(super) fn filter(
    ctx: &EthContext,
    params: &mut ParamsSequence<'_>,
) -> Result<Filter, Failure> {
    let filter: Filter = params.optional_next()?.unwrap_or_default();
    let values = filter.address.len() + filter.topics.iter().map(|t| t.len()).sum::<usize>();
    let limit = ctx.config.max_filter_values;
    if values > limit {
        let what = format!("{values} addresses and topics, the limit is {limit}; split the query");
        return Err(Failure::limit(what));
    }
    Ok(filter)
}

/// All logs that a filter selects.
pub(super) fn select(ctx: &EthContext, filter: &Filter) -> Result<Vec<Log>, Failure> {
    match filter.block_option {
        FilterBlockOption::AtBlockHash(hash) => {
            let heads = ctx.blocks.heads()?;
            let mut logs = Logs::new(ctx, filter);
            logs.take(&*ctx.blocks.find_hash(&heads, hash)?.whole()?)?;
            Ok(logs.found)
        }
        FilterBlockOption::Range { from_block, to_block } => {
            for _ in 0..ATTEMPTS {
                let heads = ctx.blocks.heads()?;
                let from = edge(ctx, &heads, from_block)?;
                // `latest` would be before a beginning that is pending.
                let pending = from_block.filter(|from| from.is_pending());
                let to = edge(ctx, &heads, to_block.or(pending))?;
                if let Some(logs) = range(ctx, &heads, filter, from, to)? {
                    return Ok(logs);
                }
            }
            let what = "the chain is being reorganised; ask again".to_owned();
            Err(Failure::unavailable(what))
        }
    }
}

/// The block number of one end of a range.
fn edge(ctx: &EthContext, heads: &Heads, edge: Option<BlockNumberOrTag>) -> Result<u64, Failure> {
    match edge.unwrap_or_default() {
        BlockNumberOrTag::Number(number) => Ok(number),
        BlockNumberOrTag::Earliest => Ok(0),
        BlockNumberOrTag::Safe if heads.safe.is_some() => Ok(heads.safe.map_or(0, |end| end.0)),
        BlockNumberOrTag::Finalized if heads.finalized.is_some() => {
            Ok(heads.finalized.map_or(0, |end| end.0))
        }
        tag => Ok(ctx.blocks.find_number(heads, tag)?.header.number),
    }
}

/// Logs of a range; `None` if its blocks do not follow one another.
fn range(
    ctx: &EthContext,
    heads: &Heads,
    filter: &Filter,
    from: u64,
    to: u64,
) -> Result<Option<Vec<Log>>, Failure> {
    if from > to {
        return Err(Failure::invalid(&format!("fromBlock {from} is after toBlock {to}")));
    }
    // A range may reach into the future, but must not begin there: as geth.
    let pending = heads.pending.as_ref().filter(|_| wants_pending(ctx, filter));
    let newest = pending.map_or(heads.latest.number(), |snapshot| snapshot.header.number);
    if from > newest {
        return Ok(Some(Vec::new()));
    }
    let to = to.min(newest);
    let (blocks, limit) = ((to - from).saturating_add(1), ctx.config.max_log_blocks);
    if blocks > limit {
        let what = format!("the range has {blocks} blocks, the limit is {limit}; split the query");
        return Err(Failure::limit(what));
    }
    let mut logs = Logs::new(ctx, filter);
    let mut parent: Option<B256> = None;
    for number in from..=to {
        let open = heads.open.iter().find(|open| open.header.number == number);
        let block = match open.filter(|_| pending.is_some()) {
            Some(snapshot) => Found::Open(Arc::clone(snapshot)),
            _ if number == heads.latest.number() => Found::Sealed(Arc::clone(&heads.latest)),
            _ => ctx.blocks.numbered(heads, number)?,
        };
        // Blocks in execution have no hash yet; they are of one moment with the head.
        if parent.is_some_and(|parent| parent != block.header.parent_hash) {
            return Ok(None);
        }
        parent = Some(block.hash).filter(|hash| !hash.is_zero());
        logs.take(&*block.whole()?)?;
    }
    Ok(Some(logs.found))
}

/// Whether a filter reaches into the block that is being executed.
pub(super) fn wants_pending(ctx: &EthContext, filter: &Filter) -> bool {
    if ctx.config.preconf_as_latest {
        return true;
    }
    let pending = |edge| edge == Some(&BlockNumberOrTag::Pending);
    pending(filter.block_option.get_to_block()) || pending(filter.block_option.get_from_block())
}

/// Collects logs within limits.
pub(super) struct Logs<'a> {
    ctx: &'a EthContext,
    filter: &'a Filter,
    found: Vec<Log>,
    bytes: usize,
}

impl<'a> Logs<'a> {
    fn new(ctx: &'a EthContext, filter: &'a Filter) -> Self {
        Self { ctx, filter, found: Vec::new(), bytes: 0 }
    }

    fn take(&mut self, block: &ExecutedBlock) -> Result<(), Failure> {
        let number = block.header.number;
        let (max, bytes) = (self.ctx.config.max_logs, self.ctx.config.max_response as usize);
        for log in matching(self.filter, block, false) {
            self.bytes = self.bytes.saturating_add(LOG_LEN + 2 * log.inner.data.data.len());
            if self.found.len() >= max || self.bytes > bytes {
                let what = format!(
                    "more than {max} logs or {bytes} bytes, up to block {number}; narrow the query"
                );
                return Err(Failure::limit(what));
            }
            self.found.push(log);
        }
        Ok(())
    }
}

/// The logs of a block that a filter's addresses and topics select.
pub(super) fn matching<'a>(
    filter: &'a Filter,
    block: &'a ExecutedBlock,
    removed: bool,
) -> impl Iterator<Item = Log> + 'a {
    let any = filter.matches_bloom(block.header.logs_bloom);
    let txs = any.then(|| block.txs()).into_iter().flatten();
    of_txs(filter, block, txs, removed)
}

/// The logs of a block's last frag that a filter's addresses and topics select.
pub(super) fn matching_frag<'a>(
    filter: &'a Filter,
    block: &'a ExecutedBlock,
) -> impl Iterator<Item = Log> + 'a {
    let txs = block.frags.last().into_iter().flat_map(|frag| frag.txs());
    of_txs(filter, block, txs, false)
}

fn of_txs<'a>(
    filter: &'a Filter,
    block: &'a ExecutedBlock,
    txs: impl Iterator<Item = Placed<'a>> + 'a,
    removed: bool,
) -> impl Iterator<Item = Log> + 'a {
    txs.filter(|placed| !placed.executed.receipt.logs.is_empty())
        .filter(|placed| filter.matches_bloom(placed.executed.receipt.bloom))
        .flat_map(move |placed| logs_of(block, placed, removed))
        .filter(|log| filter.matches(&log.inner))
}
