//! `eth_getLogs`.
//!
//! A range is resolved once ([`ranges`](super::ranges)) and then read, block by block. Of a block
//! that is not in memory only the header is read, unless its bloom says that there may be something.
//!
//! Limits: blocks of a range, logs and bytes of an answer, time. The error of each names a range that
//! is answered when it is asked for: it ends with the last block that is within the limit, and one
//! block alone is always answered, whatever it has, as long as it is not longer than an answer may
//! be.

use alloy_rpc_types_eth::{Filter, FilterBlockOption, Log};
use fragcast_execution::exec::{ExecutedBlock, Placed};
use fragcast_execution::executor::Heads;
use tokio::time::Instant;

use super::ranges::{Range, filter};
use super::types::logs_of;
use super::{Answer, EthContext, Failure, answer};
use crate::params::Params;

/// How often a range is read again if its blocks do not follow one another, because the chain was
/// reorganised meanwhile.
const ATTEMPTS: usize = 3;
/// Bytes of a log in JSON beside its data, roughly.
const LOG_LEN: usize = 600;

pub(super) fn logs(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let filter = filter(ctx, &mut params.sequence())?;
    answer(&select(ctx, &filter)?)
}

/// All logs that a filter selects.
pub(super) fn select(ctx: &EthContext, filter: &Filter) -> Result<Vec<Log>, Failure> {
    let mut heads = ctx.blocks.heads()?;
    let mut logs = Logs::new(ctx, filter);
    match filter.block_option {
        FilterBlockOption::AtBlockHash(hash) => {
            logs.take(&*ctx.blocks.find_hash(&heads, hash)?.whole()?)?;
            Ok(logs.found)
        }
        FilterBlockOption::Range { from_block, to_block } => {
            let range = Range::new(ctx, &heads, from_block, to_block)?;
            for _ in 0..ATTEMPTS {
                if logs.read(&heads, range)? {
                    return Ok(logs.found);
                }
                logs = Logs::new(ctx, filter);
                heads = ctx.blocks.heads()?;
                if heads.latest.number() < range.to {
                    break;
                }
            }
            Err(Failure::unavailable("the chain is being reorganised; ask again"))
        }
    }
}

/// Collects logs within limits.
struct Logs<'a> {
    ctx: &'a EthContext,
    filter: &'a Filter,
    found: Vec<Log>,
    bytes: usize,
    begun: Instant,
    /// The range; `None`: one block.
    range: Option<Range>,
}

impl<'a> Logs<'a> {
    fn new(ctx: &'a EthContext, filter: &'a Filter) -> Self {
        let begun = Instant::now();
        Self { ctx, filter, found: Vec::new(), bytes: 0, begun, range: None }
    }

    /// Reads a range; `false` if its blocks do not follow one another.
    fn read(&mut self, heads: &Heads, range: Range) -> Result<bool, Failure> {
        let (ctx, time) = (self.ctx, self.ctx.config.log_time());
        self.range = Some(range);
        let mut parent = None;
        for number in range.from..=range.to {
            if number > range.from && self.begun.elapsed() >= time {
                let what = format!("query takes longer than {} ms", time.as_millis());
                return Err(beyond(&what, range, number));
            }
            let hash = if number == heads.latest.number() {
                heads.latest.hash()
            } else {
                ctx.view.hash(number)?.ok_or_else(|| not_kept(number))?
            };
            let Some(header) = ctx.view.header(hash)? else { return Err(not_kept(number)) };
            if parent.is_some_and(|parent| parent != header.parent_hash) {
                return Ok(false);
            }
            parent = Some(hash);
            if self.filter.matches_bloom(header.logs_bloom) {
                let block = match ctx.blocks.find_hash(heads, hash) {
                    // It was unwound meanwhile, or its transactions are gone.
                    Err(Failure::Unknown(_)) => return Err(not_kept(number)),
                    block => block?.whole()?,
                };
                self.take(&block)?;
            }
        }
        if range.pending {
            for open in &heads.open {
                self.take(open)?;
            }
        }
        Ok(true)
    }

    fn take(&mut self, block: &ExecutedBlock) -> Result<(), Failure> {
        let number = block.header.number;
        let (max, bytes) = (self.ctx.config.max_logs, self.ctx.config.max_response as usize);
        let alone = self.range.is_none_or(|range| range.from == number || range.len() == 0);
        for log in matching(self.filter, block, false) {
            self.bytes = self.bytes.saturating_add(LOG_LEN + 2 * log.inner.data.data.len());
            let Some(range) = self.range.filter(|_| !alone) else {
                if self.bytes <= bytes {
                    self.found.push(log);
                    continue;
                }
                return Err(Failure::limit(format!(
                    "the logs of block {number} alone are longer than {bytes} bytes: name \
                     addresses or topics"
                )));
            };
            if self.bytes > bytes {
                return Err(beyond(&format!("query exceeds max bytes {bytes}"), range, number));
            }
            if self.found.len() >= max {
                return Err(beyond(&format!("query exceeds max results {max}"), range, number));
            }
            self.found.push(log);
        }
        Ok(())
    }
}

/// The error of a limit that was reached at a block, which is not the first of the range.
fn beyond(what: &str, range: Range, number: u64) -> Failure {
    let (first, last) = (range.from, number.saturating_sub(1).min(range.to));
    Failure::limit(format!("{what}, retry with the range {first}-{last}"))
}

fn not_kept(number: u64) -> Failure {
    Failure::Elsewhere(format!("block {number} is not kept here"))
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
