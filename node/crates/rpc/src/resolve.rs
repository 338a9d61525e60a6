//! From what a caller names to the block and the state it means: one answer for all methods.
//!
//! There are two [`View`]s of one chain. In each, `latest` means for a method that reads *state*
//! (accounts, calls, transactions by hash):
//!
//! | view | path | `latest` |
//! |---|---|---|
//! | verified | `/` | the newest verified block |
//! | preconfirmed | `/preconf` | the newest executed frag |
//!
//! and for a method that reads *blocks* (blocks, ranges, heads, what counts confirmations) the
//! newest verified block in both. Everything else is the same in both:
//!
//! | named | means | otherwise |
//! |---|---|---|
//! | `pending` | the newest executed frag, or `latest`: when there is none, or when it is older than [`Freshness`] allows | |
//! | `safe`, `finalized` | the execution client's; without a client what [`Ends`] says | -32001 "safe block not found" |
//! | a number | of the chain that ends with the newest verified block; for state in the preconfirmed view, of the blocks in execution too | after it: -32001 "header not found", and the execution client is not asked, whose `latest` is not ours |
//! | a hash | a block that is known here, canonical or in execution; by its own hash or the [provisional] one | the execution client is asked; without one -32001 |
//! | a block and a frag | the state after this frag, of a block in execution or of one of the newest verified ones | -32001, with what there is in `data` |
//!
//! A block that was there and is not kept any more is the execution client's to answer. Before the
//! first block is known everything is -32002. -32001 is EIP-1898's and EIP-1474's code for a block
//! that is not found, and reth's; the words "header not found" are geth's, which clients look for.
//!
//! [provisional]: told_hash

mod fresh;
mod id;
mod provisional;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{B256, U64};
use fragcast_execution::exec::{ExecutedBlock, SealedBlock, Snapshot, State};
use fragcast_execution::executor::{ChainView, Heads};
use serde_json::{Value, json};

pub use fresh::Freshness;
pub use id::{BlockTag, FragId, StateId};
pub use provisional::{provisional_hash, told_hash};

use crate::error::Failure;

/// What `latest` means to methods that read state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum View {
    /// The newest verified block.
    #[default]
    Verified,
    /// The newest executed frag.
    Preconfirmed,
}

/// How far behind the newest verified block `safe` and `finalized` are when no execution client
/// tells them; `None`: they are not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// Blocks from `safe` to the newest verified one.
    pub safe: Option<u64>,
    /// Blocks from `finalized` to the newest verified one.
    pub finalized: Option<u64>,
}

/// A block that was found; dereferences to the block.
#[derive(Clone)]
pub enum Found {
    /// A verified block with its state.
    Sealed(Arc<SealedBlock>),
    /// A block that is being executed, with its state so far.
    Open(Arc<Snapshot>),
    /// A block whose state is not in memory.
    Old(Arc<ExecutedBlock>),
}

impl Deref for Found {
    type Target = ExecutedBlock;

    fn deref(&self) -> &ExecutedBlock {
        match self {
            Self::Sealed(block) => &block.snapshot.block,
            Self::Open(snapshot) => &snapshot.block,
            Self::Old(block) => block,
        }
    }
}

impl Found {
    /// The block, if its transactions are known: of the block that a state source starts from, only
    /// the header may be known.
    ///
    /// # Errors
    /// [`Failure::Elsewhere`].
    pub fn whole(self) -> Result<Self, Failure> {
        if self.is_whole() {
            return Ok(self);
        }
        let number = self.header.number;
        Err(Failure::Elsewhere(format!("the transactions of block {number} are not kept here")))
    }

    /// The block with its state, if that is in memory.
    ///
    /// # Errors
    /// [`Failure::Elsewhere`].
    pub fn snapshot(&self) -> Result<&Arc<Snapshot>, Failure> {
        match self {
            Self::Sealed(block) => Ok(&block.snapshot),
            Self::Open(snapshot) => Ok(snapshot),
            Self::Old(block) => {
                let number = block.header.number;
                Err(Failure::Elsewhere(format!("the state of block {number} is not kept here")))
            }
        }
    }

    /// The state after it, if that is in memory.
    ///
    /// # Errors
    /// [`Failure::Elsewhere`].
    pub fn state(&self) -> Result<&State, Failure> {
        self.snapshot().map(|snapshot| &snapshot.state)
    }
}

/// Finds blocks in a chain, as one view shows it.
#[derive(Clone)]
pub struct Blocks {
    view: Arc<ChainView>,
    shows: View,
    ends: Ends,
    fresh: Arc<Freshness>,
}

impl Blocks {
    /// Blocks of `view`; `preconf_as_latest`: as the preconfirmed view shows them.
    pub fn new(view: Arc<ChainView>, preconf_as_latest: bool) -> Self {
        let shows = if preconf_as_latest { View::Preconfirmed } else { View::Verified };
        Self { view, shows, ends: Ends::default(), fresh: Arc::default() }
    }

    /// The same with these ends and this bound on the age of `pending`.
    #[must_use]
    pub fn with(self, ends: Ends, fresh: Arc<Freshness>) -> Self {
        Self { ends, fresh, ..self }
    }

    /// The same in a view.
    #[must_use]
    pub fn showing(&self, shows: View) -> Self {
        Self { shows, ..self.clone() }
    }

    /// What they are found in.
    pub const fn view(&self) -> &Arc<ChainView> {
        &self.view
    }

    /// What `latest` means to methods that read state.
    pub const fn shows(&self) -> View {
        self.shows
    }

    /// The bound on the age of `pending`.
    pub const fn freshness(&self) -> &Arc<Freshness> {
        &self.fresh
    }

    /// How old the newest frag is, and whether that is too old, so that `pending` reads as `latest`;
    /// `None` if no block is in execution.
    pub fn pending_age(&self) -> Option<(Duration, bool)> {
        let (heads, age) = self.view.heads_and_age()?;
        let stale = self.fresh.judge(age, heads.pending().header.number);
        age.map(|age| (age, stale))
    }

    /// The heads, to be taken once for each answer. Without blocks in execution, if the newest frag
    /// is too old.
    ///
    /// # Errors
    /// The chain is not known yet.
    pub fn heads(&self) -> Result<Arc<Heads>, Failure> {
        let wait = "the chain is not known yet: the node waits for its state source; try again";
        let now = self.view.heads_and_age().ok_or_else(|| Failure::unavailable(wait));
        let (heads, age) = now?;
        if self.fresh.judge(age, heads.pending().header.number) {
            return Ok(Arc::new(Heads { pending: None, open: Vec::new(), ..(*heads).clone() }));
        }
        Ok(heads)
    }

    /// The block of the tag `pending`.
    pub fn pending(heads: &Heads) -> Found {
        match &heads.pending {
            Some(snapshot) => Found::Open(Arc::clone(snapshot)),
            None => Found::Sealed(Arc::clone(&heads.latest)),
        }
    }

    /// The block of the tag `latest`, for methods that read blocks.
    pub fn latest(heads: &Heads) -> Found {
        Found::Sealed(Arc::clone(&heads.latest))
    }

    /// The block and state of that name, as one snapshot: for methods that read state.
    ///
    /// # Errors
    /// Those of [`Self::heads`] and [`Self::find`]; [`Failure::Elsewhere`] if the state is not
    /// kept.
    pub fn snapshot(&self, id: impl Into<StateId>) -> Result<Arc<Snapshot>, Failure> {
        let id = id.into();
        let heads = self.heads()?;
        if let Some(frag) = id.frag {
            return self.after_frag(&heads, id.block, frag);
        }
        self.with_state(self.find_state(&heads, id.block)?)
    }

    /// The block whose state is meant by an id.
    ///
    /// # Errors
    /// Those of [`Self::find`].
    pub fn find_state(&self, heads: &Heads, id: BlockId) -> Result<Found, Failure> {
        if self.shows == View::Preconfirmed {
            match id {
                BlockId::Number(BlockNumberOrTag::Latest) => return Ok(Self::pending(heads)),
                BlockId::Number(BlockNumberOrTag::Number(number)) => {
                    if let Some(open) = numbered_open(heads, number) {
                        return Ok(Found::Open(Arc::clone(open)));
                    }
                }
                _ => {}
            }
        }
        self.find(heads, id)
    }

    /// A block with its state, from memory or from what history keeps.
    ///
    /// # Errors
    /// [`Failure::Elsewhere`] if the state is not kept, and the history's.
    pub fn with_state(&self, found: Found) -> Result<Arc<Snapshot>, Failure> {
        match found {
            Found::Sealed(block) => Ok(Arc::clone(&block.snapshot)),
            Found::Open(snapshot) => Ok(snapshot),
            Found::Old(block) => match may_block(|| self.view.past(&block))? {
                Some(past) => Ok(past),
                None => Found::Old(block).snapshot().cloned(),
            },
        }
    }

    /// The state after a frag of a block.
    fn after_frag(
        &self,
        heads: &Heads,
        id: BlockId,
        frag: FragId,
    ) -> Result<Arc<Snapshot>, Failure> {
        let open = match id {
            BlockId::Number(BlockNumberOrTag::Number(number)) => numbered_open(heads, number),
            _ => None,
        };
        let block = match open {
            Some(open) => Ok(Found::Open(Arc::clone(open))),
            None => self.find(heads, id),
        };
        let absent = |what: String| Failure::AbsentAt(what, newest_frag(heads));
        let block = match block {
            Ok(block) => block,
            Err(Failure::Unknown(what) | Failure::Absent(what) | Failure::Elsewhere(what)) => {
                return Err(absent(what));
            }
            Err(failure) => return Err(failure),
        };
        let (number, index) = (block.header.number, frag.index);
        if let Some(attempt) = frag.attempt.filter(|attempt| *attempt != block.attempt) {
            let what = format!("attempt {attempt} at block {number} is not here");
            return Err(absent(what));
        }
        if index >= block.frags.len() as u64 {
            let (last, yet) = match &block {
                Found::Open(_) => (block.frags.len(), " yet"),
                _ => (block.frags.len(), ""),
            };
            let what = format!("frag {index} of block {number} is not here{yet}: it has {last}");
            return Err(absent(what));
        }
        if let Some(state) = self.view.after_frag(number, block.attempt, index) {
            return Ok(state);
        }
        // Of a block that came whole, the state after its last frag is the block's.
        let is_last = index + 1 == block.frags.len() as u64;
        if is_last && matches!(block, Found::Sealed(_)) {
            return self.with_state(block);
        }
        Err(absent(format!("the state after frag {index} of block {number} is not kept any more")))
    }

    /// The block with this id, for methods that read blocks.
    ///
    /// # Errors
    /// [`Failure::Elsewhere`] if it is not kept here, [`Failure::Unknown`] if no block with that
    /// hash is known, [`Failure::Absent`] if its number is after the head's.
    pub fn find(&self, heads: &Heads, id: BlockId) -> Result<Found, Failure> {
        match id {
            BlockId::Number(number) => self.find_number(heads, number),
            BlockId::Hash(hash) => {
                let found = self.find_hash(heads, hash.block_hash)?;
                if hash.require_canonical == Some(true) && matches!(found, Found::Open(_)) {
                    let what = format!("hash {} is not canonical yet", hash.block_hash);
                    return Err(Failure::Absent(what));
                }
                Ok(found)
            }
        }
    }

    /// The block with this hash, its own or its provisional one.
    ///
    /// # Errors
    /// [`Failure::Unknown`], and the history's.
    pub fn find_hash(&self, heads: &Heads, hash: B256) -> Result<Found, Failure> {
        if hash == heads.latest.hash() {
            return Ok(Self::latest(heads));
        }
        if let Some(open) = open_by_hash(heads, hash) {
            return Ok(Found::Open(Arc::clone(open)));
        }
        if let Some(block) = self.view.recent(hash) {
            return Ok(Found::Sealed(block));
        }
        if let Some(block) = self.view.block(hash)? {
            return Ok(Found::Old(block));
        }
        let number = provisional::number_in(hash);
        if number <= heads.latest.number()
            && let Ok(block) = self.numbered(heads, number)
            && provisional::names(hash, &block.header)
        {
            return Ok(block);
        }
        // A hash that was told can be asked for when `pending` has become too old, too.
        if heads.open.is_empty()
            && let Some(now) = self.view.heads()
            && let Some(open) = open_by_hash(&now, hash)
        {
            return Ok(Found::Open(Arc::clone(open)));
        }
        Err(Failure::Unknown(format!("header not found: no block {hash} is known here")))
    }

    /// The block with this number or tag, for methods that read blocks.
    ///
    /// # Errors
    /// [`Failure::Elsewhere`], [`Failure::Absent`], and the history's.
    pub fn find_number(&self, heads: &Heads, number: BlockNumberOrTag) -> Result<Found, Failure> {
        match number {
            BlockNumberOrTag::Latest => Ok(Self::latest(heads)),
            BlockNumberOrTag::Pending => Ok(Self::pending(heads)),
            BlockNumberOrTag::Safe => self.ended(heads, heads.safe, self.ends.safe, "safe"),
            BlockNumberOrTag::Finalized => {
                self.ended(heads, heads.finalized, self.ends.finalized, "finalized")
            }
            BlockNumberOrTag::Earliest => self.numbered(heads, 0),
            BlockNumberOrTag::Number(number) => self.numbered(heads, number),
        }
    }

    /// The number of the tag `safe` or `finalized`, which may be of a block that is not kept here.
    ///
    /// # Errors
    /// It is not known.
    pub(crate) fn end(&self, heads: &Heads, tag: BlockNumberOrTag) -> Result<u64, Failure> {
        let (told, behind, name) = match tag {
            BlockNumberOrTag::Safe => (heads.safe, self.ends.safe, "safe"),
            _ => (heads.finalized, self.ends.finalized, "finalized"),
        };
        let ours = behind.map(|behind| heads.latest.number().saturating_sub(behind));
        told.map(|(number, _)| number).or(ours).ok_or_else(|| not_known(name))
    }

    fn ended(
        &self,
        heads: &Heads,
        told: Option<(u64, B256)>,
        behind: Option<u64>,
        name: &str,
    ) -> Result<Found, Failure> {
        let Some((number, hash)) = told else {
            let behind = behind.ok_or_else(|| not_known(name))?;
            return self.numbered(heads, heads.latest.number().saturating_sub(behind));
        };
        match self.find_hash(heads, hash) {
            Err(Failure::Unknown(_)) => {
                Err(Failure::Elsewhere(format!("block {number} is not kept here")))
            }
            found => found,
        }
    }

    /// The block with this number in the chain that ends with the newest verified block.
    ///
    /// # Errors
    /// [`Failure::Elsewhere`], [`Failure::Absent`], and the history's.
    pub fn numbered(&self, heads: &Heads, number: u64) -> Result<Found, Failure> {
        let latest = heads.latest.number();
        if number > latest {
            return Err(Failure::Absent(format!(
                "header not found: block {number} is after the newest verified block, which is \
                 {latest}"
            )));
        }
        if number == latest {
            return Ok(Self::latest(heads));
        }
        let elsewhere = || Failure::Elsewhere(format!("block {number} is not kept here"));
        let hash = self.view.hash(number)?.ok_or_else(elsewhere)?;
        if let Some(block) = self.view.recent(hash) {
            return Ok(Found::Sealed(block));
        }
        // It may have been forgotten, or unwound, since its number was looked up.
        self.view.block(hash)?.map(Found::Old).ok_or_else(elsewhere)
    }

    /// The place of a transaction, if this view shows it: in a block that is not newer than the
    /// newest verified one, or, in the preconfirmed view, in one in execution.
    ///
    /// # Errors
    /// [`Failure::Elsewhere`] if its block is not kept, and the history's.
    pub fn tx(&self, heads: &Heads, hash: B256) -> Result<Option<(Found, usize)>, Failure> {
        if self.shows == View::Preconfirmed
            && let Some(found) = open_tx(heads, hash)
        {
            return Ok(Some(found));
        }
        let Some((block, index)) = self.view.tx(hash)? else { return Ok(None) };
        let block = match self.find_hash(heads, block) {
            // It was unwound meanwhile.
            Err(Failure::Unknown(_)) => return Ok(None),
            found => found?,
        };
        // A block is found by its transactions a moment before it is the head.
        if block.header.number > heads.latest.number() {
            return Ok(None);
        }
        // An index that is wrong would show somebody else's transaction.
        let right = block.tx(index).is_some_and(|placed| placed.executed.tx.hash == hash);
        Ok(right.then_some((block, index)))
    }

    /// The place of a transaction in a block in execution, whatever this view shows, and however old
    /// the newest frag is.
    pub fn preconfirmed(&self, hash: B256) -> Option<(Found, usize)> {
        open_tx(&*self.view.heads()?, hash)
    }
}

/// The block in execution with this hash, its own or its provisional one.
fn open_by_hash(heads: &Heads, hash: B256) -> Option<&Arc<Snapshot>> {
    let mut open = heads.open.iter().enumerate();
    let found = open.find(|(i, open)| {
        // Its child tells its hash before it is verified.
        let child = heads.open.get(i + 1).map(|child| child.header.parent_hash);
        child == Some(hash) || provisional::names(hash, &open.header)
    });
    found.map(|(_, open)| open)
}

/// The block in execution with this number.
fn numbered_open(heads: &Heads, number: u64) -> Option<&Arc<Snapshot>> {
    heads.open.iter().find(|open| open.header.number == number)
}

fn open_tx(heads: &Heads, hash: B256) -> Option<(Found, usize)> {
    heads.open.iter().rev().find_map(|open| {
        let index = open.tx_by_hash(hash)?.index;
        Some((Found::Open(Arc::clone(open)), index))
    })
}

fn not_known(name: &str) -> Failure {
    Failure::unknown_block(format!("{name} block not found"))
}

/// The newest frag, as a caller names its state.
pub(crate) fn newest_frag(heads: &Heads) -> Value {
    let newest = heads.pending();
    let last = newest.frags.len().checked_sub(1);
    json!({
        "blockNumber": U64::from(newest.header.number),
        "fragIndex": last.map(U64::from),
        "attempt": U64::from(newest.attempt),
    })
}

/// Runs what may take long. On a runtime of several threads the others take over meanwhile.
fn may_block<T>(run: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let several = Handle::try_current()
        .is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if several { tokio::task::block_in_place(run) } else { run() }
}

#[cfg(test)]
mod tests;
