//! An account, and the errors of reading state: shared by the trie, the executor and every source
//! of state.

use alloy_primitives::{B256, U256};

/// Why a source could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The source does not have it; asking again will not help until it has moved on.
    #[error("the state source lacks {0}")]
    Missing(String),
    /// It did not answer, or not in time.
    #[error("the state source is not available: {0}")]
    Unavailable(String),
    /// Its answer contradicts a hash.
    #[error("the state source answered wrongly: {0}")]
    Corrupt(String),
}

impl revm::database_interface::DBErrorMarker for SourceError {}

/// An account without its storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Transactions sent.
    pub nonce: u64,
    /// Wei.
    pub balance: U256,
    /// keccak256 of its code; `KECCAK_EMPTY` if it has none.
    pub code_hash: B256,
}
