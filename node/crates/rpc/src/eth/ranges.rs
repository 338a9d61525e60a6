//! The blocks that a filter of logs names: a range of the past for `eth_getLogs` ([`Range`]), what is
//! to come for filters and subscriptions ([`Coming`]).
//!
//! | bound | in a range | for what is to come |
//! |---|---|---|
//! | a number | must not be after the newest verified block | from or up to it |
//! | `latest` (default) | the newest verified block, in both views | verified blocks |
//! | `pending` | blocks in execution: as the first bound nothing else, as the last one they too | their logs as they are executed; as the last bound those of verified blocks too |
//! | `earliest`, `safe`, `finalized` | the number they have now | as the first bound like `latest`; refused as the last |
//!
//! A range is resolved once, from one moment's heads. `pending` is always after `latest`, even when no
//! block is in execution: a range from `pending` to `latest` is wrong at every moment.

use std::sync::Arc;

use alloy_eips::BlockNumberOrTag as Tag;
use alloy_rpc_types_eth::{Filter, FilterBlockOption};
use fragcast_execution::executor::Heads;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{EthConfig, EthContext, Failure};
use crate::params::{Kind, ParamsSequence};

/// geth's text, and that of execution-apis' tests.
pub(super) fn reversed() -> Failure {
    Failure::params("invalid block range params")
}

/// Reads the next parameter as a filter, within limits.
pub(super) fn filter(ctx: &EthContext, params: &mut ParamsSequence<'_>) -> Result<Filter, Failure> {
    bounded(ctx, params.next()?)
}

/// Reads the next parameter, if there is one, as a filter within limits; without one, everything is selected.
pub(super) fn filter_or_all(
    ctx: &EthContext,
    params: &mut ParamsSequence<'_>,
) -> Result<Filter, Failure> {
    bounded(ctx, params.optional_next()?.unwrap_or_default())
}

/// A filter that is the second parameter, within limits.
pub(super) fn of_value(ctx: &EthContext, value: Value) -> Result<Filter, Failure> {
    let filter = Filter::read(value);
    bounded(ctx, filter.map_err(|why| Failure::params(format!("invalid argument 1: {why}")))?)
}

/// Checks each position by itself, as geth does.
fn bounded(ctx: &EthContext, filter: Filter) -> Result<Filter, Failure> {
    let limit = ctx.config.max_filter_values;
    let topics = filter.topics.iter().enumerate();
    let topics = topics.map(|(at, topics)| (format!("topics[{at}]"), topics.len()));
    let positions = std::iter::once(("addresses".to_owned(), filter.address.len())).chain(topics);
    for (position, values) in positions {
        if values > limit {
            return Err(Failure::limit(format!(
                "exceed max addresses or topics per search position: {values} {position}, the limit is \
                 {limit}; split the query"
            )));
        }
    }
    Ok(filter)
}

/// How many addresses and topics a filter has.
pub(super) fn values(filter: &Filter) -> usize {
    filter.address.len() + filter.topics.iter().map(|topics| topics.len()).sum::<usize>()
}

/// The addresses and topics that filters which are kept may have together: as many as if each had
/// the limit of one position. So their memory is bounded by that, however many positions are used.
#[derive(Debug)]
pub(super) struct Values(Arc<Semaphore>);

impl Values {
    /// Room for `filters`.
    pub(super) fn new(filters: usize, config: &EthConfig) -> Self {
        let most = filters.saturating_mul(config.max_filter_values);
        Self(Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))))
    }

    /// Takes room for a filter, until what is given is dropped.
    pub(super) fn take(&self, values: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let values = u32::try_from(values).unwrap_or(u32::MAX);
        Arc::clone(&self.0).try_acquire_many_owned(values).map_err(|_| {
            Failure::limit(
                "all filters together have as many addresses and topics as may be; name fewer, or \
                 uninstall some",
            )
        })
    }
}

/// A range of blocks, resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// The first verified block.
    pub(super) from: u64,
    /// The last verified block; before `from` if there is none in it.
    pub(super) to: u64,
    /// Whether blocks in execution follow.
    pub(super) pending: bool,
}

impl Range {
    /// The range from one bound to the other, as it is now.
    ///
    /// # Errors
    /// It ends before it begins, goes beyond the newest verified block, or is too long; a bound is
    /// not known.
    pub(super) fn new(
        ctx: &EthContext,
        heads: &Heads,
        from: Option<Tag>,
        to: Option<Tag>,
    ) -> Result<Self, Failure> {
        let head = heads.latest.number();
        let from = from.unwrap_or_default();
        let to = to.unwrap_or(if from.is_pending() { Tag::Pending } else { Tag::Latest });
        let number = |bound: Tag| match bound {
            Tag::Number(number) => Ok(number),
            Tag::Earliest => Ok(0),
            Tag::Latest => Ok(head),
            Tag::Pending => Ok(head.saturating_add(1)),
            end @ (Tag::Safe | Tag::Finalized) => ctx.blocks.end(heads, end),
        };
        let (first, last) = (number(from)?, number(to)?);
        let is_beyond = |bound: Tag| matches!(bound, Tag::Number(n) if n > head);
        let beyond = || Failure::params("block range extends beyond current head block");
        if first > last {
            // It ends before it begins only because the head is not there yet.
            return Err(if is_beyond(from) && to.is_latest() { beyond() } else { reversed() });
        }
        if is_beyond(from) || is_beyond(to) {
            return Err(beyond());
        }
        let range = Self { from: first, to: last.min(head), pending: to.is_pending() };
        let limit = ctx.config.max_log_blocks;
        if range.len() > limit {
            let end = first.saturating_add(limit.max(1) - 1);
            return Err(Failure::limit(format!(
                "query exceeds max block range {limit}, retry with the range {first}-{end}"
            )));
        }
        Ok(range)
    }

    /// How many verified blocks it has.
    pub(super) const fn len(&self) -> u64 {
        (self.to + 1).saturating_sub(self.from)
    }
}

/// What a filter or a subscription waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Coming {
    /// Logs of frags as they are executed.
    pub(super) preconfirmed: bool,
    /// Logs of verified blocks.
    pub(super) verified: bool,
    from: u64,
    to: u64,
}

impl Coming {
    /// What a filter waits for.
    ///
    /// # Errors
    /// It ends before it begins, or names what has been.
    pub(super) fn new(filter: &Filter) -> Result<Self, Failure> {
        let (from, to) = match filter.block_option {
            FilterBlockOption::AtBlockHash(_) => {
                return Err(Failure::params(
                    "blockHash names a block that is there: ask eth_getLogs for its logs",
                ));
            }
            FilterBlockOption::Range { from_block, to_block } => (from_block, to_block),
        };
        let from = from.unwrap_or_default();
        let to = to.unwrap_or(if from.is_pending() { Tag::Pending } else { Tag::Latest });
        let first = if let Tag::Number(first) = from { first } else { 0 };
        let (last, preconfirmed) = match to {
            Tag::Number(last) => (last, false),
            Tag::Latest => (u64::MAX, false),
            Tag::Pending => (u64::MAX, true),
            Tag::Earliest | Tag::Safe | Tag::Finalized => return Err(reversed()),
        };
        let verified = !from.is_pending();
        if first > last || !verified && !preconfirmed {
            return Err(reversed());
        }
        Ok(Self { preconfirmed, verified, from: first, to: last })
    }

    /// Whether a block is among those it waits for.
    pub(super) const fn has(&self, number: u64) -> bool {
        self.from <= number && number <= self.to
    }
}
