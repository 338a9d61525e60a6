//! Why the store cannot be used.

use std::path::PathBuf;

use alloy_primitives::B256;
use fragcast_execution::state::SourceError;

use super::tables;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("{0} is in use: stop the other process, or give this one a data directory of its own")]
    InUse(PathBuf),
    /// The file holds something else.
    #[error("the database is not one of this program's: give another path")]
    Foreign,
    /// Another version of the program wrote it.
    #[error(
        "the database has format {found}, this program reads {}: use the program that wrote it, \
         or delete it and start from the genesis",
        tables::FORMAT
    )]
    Format {
        /// The format it has.
        found: u32,
    },
    /// It is of another chain.
    #[error("the database is of chain {found}, not of {wanted}: give another data directory")]
    OtherChain {
        /// Its chain id.
        found: u64,
        /// The configured one.
        wanted: u64,
    },
    /// It started from another genesis.
    #[error(
        "the database began with the genesis {found}, not with {wanted}: give another data \
         directory, or the genesis file it was made from"
    )]
    OtherGenesis {
        /// Its genesis.
        found: B256,
        /// The configured one.
        wanted: B256,
    },
    /// The chain's state cannot start from a genesis.
    #[error("the genesis of {0} is not known: give a genesis file, or use another state source")]
    NoGenesis(String),
    /// It is damaged.
    #[error("the database is damaged: {0}; delete it and start from the genesis")]
    Corrupt(String),
    /// It does not have the data.
    #[error("the store lacks {0}")]
    Missing(String),
    /// A block does not follow the newest one.
    #[error("block {block} does not follow the stored head {head}: unwind first")]
    Order {
        /// The block.
        block: B256,
        /// The newest one.
        head: B256,
    },
    /// A block's trie is not known.
    #[error("block {0} has no trie, so it is not a verified one")]
    NoTrie(B256),
    /// Writing failed before.
    #[error("the store has stopped writing: {0}; see to the disk and start again")]
    Failed(String),
    /// The database.
    #[error("the database failed: {0}")]
    Db(#[source] Box<redb::Error>),
    /// The operating system.
    #[error("{0} cannot be opened: {1}")]
    Io(PathBuf, #[source] std::io::Error),
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self::Db(Box::new(error.into()))
            }
        }
    )*};
}
from_redb!(StorageError, TableError, TransactionError, CommitError);

impl From<StoreError> for SourceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing(what) => Self::Missing(what),
            StoreError::Corrupt(_) => Self::Corrupt(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}
