//! The state that a call runs on.

use std::sync::Arc;

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::B256;
use fragcast_execution::exec::Snapshot;
use fragcast_execution::executor::{ChainView, Heads};

use super::error::CallError;

/// The state of a block, as one snapshot. `preconf_as_latest`: the tag `latest` reads what
/// `pending` reads.
///
/// # Errors
/// [`CallError::NoState`] if the block is older than what is in memory, [`CallError::NoBlock`] if
/// there is no such block on the canonical chain.
pub fn resolve(
    view: &ChainView,
    id: BlockId,
    preconf_as_latest: bool,
) -> Result<Arc<Snapshot>, CallError> {
    let heads = view.heads().ok_or(CallError::NoState("no block is known yet; try again later"))?;
    match id {
        BlockId::Hash(id) => by_hash(view, &heads, id.block_hash),
        BlockId::Number(BlockNumberOrTag::Pending) => Ok(Arc::clone(heads.pending())),
        BlockId::Number(BlockNumberOrTag::Latest) if preconf_as_latest => {
            Ok(Arc::clone(heads.pending()))
        }
        BlockId::Number(BlockNumberOrTag::Latest) => Ok(Arc::clone(&heads.latest.snapshot)),
        BlockId::Number(BlockNumberOrTag::Safe) => marked(view, &heads, heads.safe, "safe"),
        BlockId::Number(BlockNumberOrTag::Finalized) => {
            marked(view, &heads, heads.finalized, "finalized")
        }
        BlockId::Number(BlockNumberOrTag::Earliest) => by_number(view, &heads, 0),
        BlockId::Number(BlockNumberOrTag::Number(number)) => {
            match heads.numbered(number, preconf_as_latest) {
                Some(open) => Ok(Arc::clone(open)),
                None => by_number(view, &heads, number),
            }
        }
    }
}

fn marked(
    view: &ChainView,
    heads: &Heads,
    block: Option<(u64, B256)>,
    name: &'static str,
) -> Result<Arc<Snapshot>, CallError> {
    let (_, hash) = block.ok_or_else(|| CallError::Invalid(format!("{name} block not found")))?;
    by_hash(view, heads, hash)
}

fn by_number(view: &ChainView, heads: &Heads, number: u64) -> Result<Arc<Snapshot>, CallError> {
    if number == heads.latest.number() {
        return Ok(Arc::clone(&heads.latest.snapshot));
    }
    let hash = view.hash(number)?.ok_or(CallError::NoBlock)?;
    by_hash(view, heads, hash)
}

fn by_hash(view: &ChainView, heads: &Heads, hash: B256) -> Result<Arc<Snapshot>, CallError> {
    if hash == heads.latest.hash() {
        return Ok(Arc::clone(&heads.latest.snapshot));
    }
    // Whether it exists at all, the execution client may know.
    let missing = CallError::NoState(
        "the state of this block is not kept here; configure an execution client (client.url)",
    );
    view.recent(hash).map(|block| Arc::clone(&block.snapshot)).ok_or(missing)
}
