//! Resolves the block that a caller names.

use std::ops::Deref;
use std::sync::Arc;

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::B256;
use fragcast_execution::exec::{ExecutedBlock, SealedBlock, Snapshot, State};
use fragcast_execution::executor::Heads;

use super::{EthContext, Failure};

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

impl EthContext {
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
        if self.config.preconf_as_latest {
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
            BlockId::Hash(hash) => self.find_hash(hash.block_hash),
        }
    }

    /// The block with this hash.
    ///
    /// # Errors
    /// [`Failure::Unknown`], and the history's.
    pub fn find_hash(&self, hash: B256) -> Result<Found, Failure> {
        let unknown = || Failure::Unknown(format!("no block with hash {hash} is known here"));
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
            let unknown = || Failure::unknown_block(format!("no {name} block is known yet"));
            let (number, hash) = end.ok_or_else(unknown)?;
            match self.find_hash(hash) {
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
        if let Some(open) = heads.numbered(number, self.config.preconf_as_latest) {
            return Ok(Found::Open(Arc::clone(open)));
        }
        let latest = self.latest(heads);
        if number > latest.header.number {
            return Err(Failure::Absent(format!(
                "block {number} is after the head, which is {}",
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
        match self.find_hash(hash) {
            // It was forgotten, or unwound, since its number was looked up.
            Err(Failure::Unknown(_)) => Err(elsewhere()),
            found => found,
        }
    }
}
