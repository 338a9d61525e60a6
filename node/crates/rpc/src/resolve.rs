//! From what a caller names to the block and the state it means: one answer for all methods.
//!
//! | named | reads | otherwise |
//! |---|---|---|
//! | `pending` | the newest executed frag, or `latest` | |
//! | `latest` | the newest verified block; with `preconf_as_latest` what `pending` reads | |
//! | `safe`, `finalized` | the execution client's | -39001 "safe block not found", until it is known |
//! | a number | of the chain that ends with `latest` | after `latest`: -39001 "header not found", and the execution client is not asked, whose `latest` is not ours |
//! | a hash | a block that is known here, canonical or not | the execution client is asked |
//!
//! A block that was there and is not kept any more is the execution client's to answer. Before the
//! first block is known everything is -32002. Words are geth's, which clients look for; -39001 is
//! the code of execution-apis for a block that does not exist, where geth has -32000.

use std::ops::Deref;
use std::sync::Arc;

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::B256;
use fragcast_execution::exec::{ExecutedBlock, SealedBlock, Snapshot, State};
use fragcast_execution::executor::{ChainView, Heads};

use crate::error::Failure;

/// A block that was found; dereferences to the block.
#[derive(Clone)]
pub enum Found {
    /// A verified block with its state.
    Sealed(Arc<SealedBlock>),
    /// A block that is being executed, with its state so far.
    Open(Arc<Snapshot>),
    /// A block whose state is not kept.
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

    /// The block with its state.
    ///
    /// # Errors
    /// [`Failure::Elsewhere`] if the state is not kept.
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

    /// The state after it.
    ///
    /// # Errors
    /// [`Failure::Elsewhere`] if it is not kept.
    pub fn state(&self) -> Result<&State, Failure> {
        self.snapshot().map(|snapshot| &snapshot.state)
    }
}

/// Finds blocks in a chain.
#[derive(Clone)]
pub struct Blocks {
    view: Arc<ChainView>,
    preconf_as_latest: bool,
}

impl Blocks {
    /// Blocks of `view`; `preconf_as_latest`: the tag `latest` reads what `pending` reads.
    pub const fn new(view: Arc<ChainView>, preconf_as_latest: bool) -> Self {
        Self { view, preconf_as_latest }
    }

    /// What they are found in.
    pub const fn view(&self) -> &Arc<ChainView> {
        &self.view
    }

    /// The block of that id and its state, as one snapshot.
    ///
    /// # Errors
    /// Those of [`Self::heads`] and [`Self::find`]; [`Failure::Elsewhere`] if the state is not
    /// kept.
    pub fn snapshot(&self, id: BlockId) -> Result<Arc<Snapshot>, Failure> {
        self.find(&*self.heads()?, id)?.snapshot().cloned()
    }

    /// The heads, to be taken once for each answer.
    ///
    /// # Errors
    /// The chain is not known yet.
    pub fn heads(&self) -> Result<Arc<Heads>, Failure> {
        let wait = "the chain is not known yet: the node waits for its state source; try again";
        self.view.heads().ok_or_else(|| Failure::unavailable(wait))
    }

    /// The block of the tag `pending`.
    pub fn pending(heads: &Heads) -> Found {
        match &heads.pending {
            Some(snapshot) => Found::Open(Arc::clone(snapshot)),
            None => Found::Sealed(Arc::clone(&heads.latest)),
        }
    }

    /// The block of the tag `latest`.
    pub fn latest(&self, heads: &Heads) -> Found {
        if self.preconf_as_latest {
            Self::pending(heads)
        } else {
            Found::Sealed(Arc::clone(&heads.latest))
        }
    }

    /// The block with this id.
    ///
    /// # Errors
    /// [`Failure::Elsewhere`] if it is not kept here, [`Failure::Unknown`] if no block with that
    /// hash is known, [`Failure::Absent`] if its number is after the head's.
    pub fn find(&self, heads: &Heads, id: BlockId) -> Result<Found, Failure> {
        match id {
            BlockId::Number(number) => self.find_number(heads, number),
            // What is known here is canonical, so `requireCanonical` changes nothing.
            BlockId::Hash(hash) => self.find_hash(heads, hash.block_hash),
        }
    }

    /// The block with this hash.
    ///
    /// # Errors
    /// [`Failure::Unknown`], and the history's.
    pub fn find_hash(&self, heads: &Heads, hash: B256) -> Result<Found, Failure> {
        if hash == heads.latest.hash() {
            return Ok(Found::Sealed(Arc::clone(&heads.latest)));
        }
        let unknown = || Failure::Unknown(format!("header for hash not found: {hash}"));
        if let Some(block) = self.view.recent(hash) {
            return Ok(Found::Sealed(block));
        }
        self.view.block(hash)?.map(Found::Old).ok_or_else(unknown)
    }

    /// The block with this number or tag.
    ///
    /// # Errors
    /// [`Failure::Elsewhere`], [`Failure::Absent`], and the history's.
    pub fn find_number(&self, heads: &Heads, number: BlockNumberOrTag) -> Result<Found, Failure> {
        let ended = |end: Option<(u64, B256)>, name| {
            let unknown = || Failure::unknown_block(format!("{name} block not found"));
            let (number, hash) = end.ok_or_else(unknown)?;
            match self.find_hash(heads, hash) {
                Err(Failure::Unknown(_)) => {
                    Err(Failure::Elsewhere(format!("block {number} is not kept here")))
                }
                found => found,
            }
        };
        match number {
            BlockNumberOrTag::Latest => Ok(self.latest(heads)),
            BlockNumberOrTag::Pending => Ok(Self::pending(heads)),
            BlockNumberOrTag::Safe => ended(heads.safe, "safe"),
            BlockNumberOrTag::Finalized => ended(heads.finalized, "finalized"),
            BlockNumberOrTag::Earliest => self.numbered(heads, 0),
            BlockNumberOrTag::Number(number) => self.numbered(heads, number),
        }
    }

    /// The block with this number in the chain that ends with the heads.
    ///
    /// # Errors
    /// [`Failure::Elsewhere`], [`Failure::Absent`], and the history's.
    pub fn numbered(&self, heads: &Heads, number: u64) -> Result<Found, Failure> {
        if let Some(open) = heads.numbered(number, self.preconf_as_latest) {
            return Ok(Found::Open(Arc::clone(open)));
        }
        let latest = self.latest(heads);
        if number > latest.header.number {
            return Err(Failure::Absent(format!(
                "header not found: block {number} is after the head, which is {}",
                latest.header.number
            )));
        }
        if number == latest.header.number {
            return Ok(latest);
        }
        if number == heads.latest.number() {
            return Ok(Found::Sealed(Arc::clone(&heads.latest)));
        }
        let elsewhere = || Failure::Elsewhere(format!("block {number} is not kept here"));
        let hash = self.view.hash(number)?.ok_or_else(elsewhere)?;
        match self.find_hash(heads, hash) {
            // It was forgotten, or unwound, since its number was looked up.
            Err(Failure::Unknown(_)) => Err(elsewhere()),
            found => found,
        }
    }
}

#[cfg(test)]
mod tests;
