//! Verdicts on a block.

use std::time::Duration;

use alloy_primitives::{B256, Bytes, U256};

use crate::chain::HeaderError;

use crate::state::SourceError;

/// A field of the Seal; the fields are in the order in which they are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[expect(missing_docs, reason = "each is the field of its name")]
pub enum SealField {
    TotalFrags,
    ParentHash,
    GasLimit,
    GasUsed,
    BlobGasUsed,
    TransactionsRoot,
    ReceiptsRoot,
    StateRoot,
    BlockHash,
}

impl SealField {
    /// The name in the message.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Why a block is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum Invalid {
    /// Its Env contradicts its parent.
    #[error("its Env is invalid: {0}")]
    Env(#[from] HeaderError),
    /// A transaction cannot be included.
    #[error("frag {frag} is invalid: transaction {index}: {reason}")]
    #[strum(serialize = "transaction")]
    Tx {
        /// `seq` of the frag.
        frag: u64,
        /// Index within the frag.
        index: usize,
        /// The reason.
        reason: String,
    },
    /// A frag is out of place.
    #[error("frag {frag} is invalid: {reason}")]
    Frag {
        /// `seq` of the frag.
        frag: u64,
        /// The reason.
        reason: String,
    },
    /// The block as a whole is invalid.
    #[error("{0}")]
    Block(String),
    /// The Seal differs from the results of execution.
    #[error("its Seal is wrong: {} is {expected}, but execution gives {computed}", field.name())]
    Seal {
        /// The first field that differs.
        field: SealField,
        /// The value in the Seal.
        expected: String,
        /// The value from execution.
        computed: String,
    },
}

impl Invalid {
    /// The name used in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Seal { field, .. } => field.name(),
            other => other.into(),
        }
    }
}

/// Why a block could not be checked; never a reason to reject it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum Unverified {
    /// The state source lacks something or does not answer.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Its parent is not known here.
    #[error("its parent {0} is not known here")]
    Parent(B256),
    /// A fork that this build lacks.
    #[error("the fork {0} is active, which this build of fragcast lacks: update it")]
    Fork(String),
    /// Its gas limit is more than the chain can have now.
    #[error(
        "its gas limit is {got}, and more than {most} is not plausible here: twice the parent's, or \
         what an OP chain's SystemConfig allows"
    )]
    GasLimit {
        /// The gas limit of the Env.
        got: u64,
        /// The most that is plausible.
        most: u64,
    },
    /// Its execution took longer than a block may.
    #[error("its execution took longer than {0:?}, which is all the time that a block has")]
    TimeLimit(Duration),
    /// The node is ending.
    #[error("the node is ending")]
    Ending,
    /// The executor did not keep up and dropped some of its messages.
    #[error("the executor's queue was full and messages of it were dropped")]
    Overrun,
    /// The EVM failed by itself.
    #[error("the executor failed: {0}")]
    Internal(String),
}

impl Unverified {
    /// Whether another try may come to another end.
    pub(crate) const fn may_pass(&self) -> bool {
        !matches!(self, Self::Fork(_) | Self::GasLimit { .. })
    }

    /// The name used in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Source(SourceError::Missing(_)) => "missing_state",
            other => other.into(),
        }
    }
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The block is invalid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It cannot be checked.
    #[error(transparent)]
    Unverified(#[from] Unverified),
}

impl From<SourceError> for BlockError {
    fn from(error: SourceError) -> Self {
        Self::Unverified(error.into())
    }
}

/// The verdict on a block.
#[derive(Debug, Clone, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Verdict {
    /// Execution gives everything that its Seal names.
    Verified,
    /// It is invalid.
    Rejected(Invalid),
    /// It could not be checked.
    Unverified(Unverified),
}

impl Verdict {
    /// `verified`, `rejected` or `unverified`.
    pub fn name(&self) -> &'static str {
        self.into()
    }

    /// The reason, unless it is verified.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Verified => None,
            Self::Rejected(invalid) => Some(invalid.to_string()),
            Self::Unverified(why) => Some(why.to_string()),
        }
    }
}

impl From<BlockError> for Verdict {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Invalid(invalid) => Self::Rejected(invalid),
            BlockError::Unverified(why) => Self::Unverified(why),
        }
    }
}

/// Compares one field of the Seal.
pub(super) fn compare<T: PartialEq + Shown>(
    field: SealField,
    expected: &T,
    computed: &T,
) -> Result<(), Invalid> {
    if expected == computed {
        return Ok(());
    }
    Err(Invalid::Seal { field, expected: expected.shown(), computed: computed.shown() })
}

/// A value of the Seal as text.
pub(super) trait Shown {
    fn shown(&self) -> String;
}

macro_rules! shown {
    ($($type:ty),+) => {
        $(impl Shown for $type {
            fn shown(&self) -> String {
                self.to_string()
            }
        })+
    };
}
shown!(u64, B256, U256, Bytes);
