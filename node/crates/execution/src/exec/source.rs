//! Sources of state: one trait for a genesis (embedded store), a witness (recorded blocks) and an
//! execution client.
//!
//! Everything handed out is immutable: a [`StateView`] is the state after one block for as long as
//! somebody holds it, so an answer made from it never mixes two states. Data that a source does not
//! have is [`SourceError::Missing`], which leaves a block unverified and never rejects it.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, U256};

use super::snapshot::SealedBlock;
use crate::state::{Account, SourceError};
use crate::trie::{StateTrie, TrieNodes};

/// The state after one block.
pub trait StateView: Send + Sync {
    /// The account, `None` if it does not exist.
    ///
    /// # Errors
    /// [`SourceError`].
    fn account(&self, address: Address) -> Result<Option<Account>, SourceError>;
    /// The slot's value, zero if it does not exist.
    ///
    /// # Errors
    /// [`SourceError`].
    fn storage(&self, address: Address, slot: U256) -> Result<U256, SourceError>;
    /// The code with this hash, never asked for `KECCAK_EMPTY`.
    ///
    /// # Errors
    /// [`SourceError`].
    fn code(&self, hash: B256) -> Result<Bytes, SourceError>;
    /// Announces what will be read, so that a slow source can fetch it at once. Best effort: errors
    /// are reported again when the values are read.
    fn prefetch(&self, _keys: &[(Address, Vec<U256>)]) {}
}

/// A block that a source has the state of.
#[derive(Clone)]
pub struct Anchor {
    /// Its header.
    pub header: Header,
    /// Hash of the header.
    pub hash: B256,
    /// The state after it.
    pub view: Arc<dyn StateView>,
    /// The trie after it; nodes that it does not hold are resolved from `nodes`.
    pub trie: StateTrie,
    /// Trie nodes.
    pub nodes: Arc<dyn TrieNodes>,
}

/// A source of state.
pub trait StateSource: Send + Sync {
    /// The block with this hash, if the source has its state.
    ///
    /// # Errors
    /// [`SourceError`] if it could not find out.
    fn at(&self, block: B256) -> Result<Option<Anchor>, SourceError>;

    /// The newest block that the source has the state of by itself: the stored head, or the
    /// client's; `None` for a witness.
    ///
    /// # Errors
    /// [`SourceError`].
    fn head(&self) -> Result<Option<B256>, SourceError>;

    /// The header with this hash, for BLOCKHASH and for parents.
    ///
    /// # Errors
    /// [`SourceError`].
    fn header(&self, hash: B256) -> Result<Option<Header>, SourceError>;

    /// Takes a verified block, whose parent was handed over before, and makes it durable some time
    /// later. May wait if too many blocks are waiting to be written.
    fn persist(&self, _block: &Arc<SealedBlock>) {}

    /// The newest state that the source has by itself, with the hash of its block; layers up to
    /// that block are not needed any more. `None`: the source has no newer state than the one it
    /// started from.
    fn base(&self) -> Option<(B256, Arc<dyn StateView>)> {
        None
    }

    /// Whether the trie nodes of every block that was handed to [`persist`](Self::persist) can be
    /// read again by their hash.
    fn keeps_nodes(&self) -> bool {
        false
    }

    /// Whether nothing that is handed to [`persist`](Self::persist) is kept any more, for good. No
    /// block must be executed then: what it changes would stay in memory for ever.
    fn stopped(&self) -> bool {
        false
    }

    /// The node is ending: nothing that this source does waits any more for what may never come,
    /// such as room on a disk. What the disk takes is still written.
    fn give_up(&self) {}

    /// Waits until everything handed to [`persist`](Self::persist) is durable.
    fn settle(&self) {}

    /// The newest block that will survive a crash, as `(number, hash)`.
    fn durable(&self) -> Option<(u64, B256)> {
        None
    }

    /// Goes back to `block`, an ancestor of the head, durably.
    ///
    /// # Errors
    /// [`SourceError::Missing`] if its undo records are gone.
    fn unwind(&self, _block: B256) -> Result<(), SourceError> {
        Ok(())
    }
}
