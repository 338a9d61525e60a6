//! Errors and their codes.
//!
//! | code | meaning |
//! |---|---|
//! | -32602 | the parameters are wrong (JSON-RPC) |
//! | -32603 | a fault of this node (JSON-RPC) |
//! | -32000 | it exists, but is not kept here and there is no execution client to ask; also "filter not found" and "genesis is not traceable", which is geth's code for them |
//! | -32002 | not available now: the chain is not known yet, the state source or the execution client does not answer (EIP-1474) |
//! | -32005 | a limit of this node is exceeded (EIP-1474) |
//! | -32001 | there is no such block, or no such frag of it (EIP-1898, EIP-1474) |

use std::fmt::Display;

use jsonrpsee::types::ErrorObjectOwned;

use fragcast_execution::state::SourceError;

/// The parameters are wrong.
pub const INVALID_PARAMS: i32 = -32_602;
/// A fault of this node.
pub const INTERNAL: i32 = -32_603;
/// It exists, but not here.
pub const NOT_HERE: i32 = -32_000;
/// Not available now.
pub const UNAVAILABLE: i32 = -32_002;
/// A limit is exceeded.
pub const LIMIT: i32 = -32_005;
/// There is no such block.
pub const UNKNOWN_BLOCK: i32 = -32_001;

/// Why a method has no answer of its own.
#[derive(Debug, Clone)]
pub enum Failure {
    /// It exists and is not kept here: the execution client is asked.
    Elsewhere(String),
    /// It may exist, but is not known here: the execution client is asked.
    Unknown(String),
    /// It does not exist.
    Absent(String),
    /// It does not exist; what is nearest to it goes along as data.
    AbsentAt(String, serde_json::Value),
    /// Anything else.
    Error(ErrorObjectOwned),
}

fn error(code: i32, message: impl Into<String>) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(code, message, None::<()>)
}

impl Failure {
    /// Wrong parameters.
    pub fn invalid(what: &impl Display) -> Self {
        Self::Error(error(INVALID_PARAMS, format!("invalid params: {what}")))
    }

    /// Wrong parameters, in words that clients look for.
    pub fn params(what: impl Into<String>) -> Self {
        Self::Error(error(INVALID_PARAMS, what))
    }

    /// It cannot be done, though the parameters are right; geth's code for it.
    pub(crate) fn refused(what: impl Into<String>) -> Self {
        Self::Error(error(NOT_HERE, what))
    }

    /// A fault of this node.
    pub fn internal(what: &impl Display) -> Self {
        Self::Error(error(INTERNAL, format!("internal error: {what}")))
    }

    /// A limit is exceeded.
    pub fn limit(what: impl Into<String>) -> Self {
        Self::Error(error(LIMIT, what))
    }

    /// Not available now.
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self::Error(error(UNAVAILABLE, what))
    }

    /// A named block does not exist (yet).
    pub fn unknown_block(what: impl Into<String>) -> Self {
        Self::Error(error(UNKNOWN_BLOCK, what))
    }

    /// There is no subscription of that name; geth's code and text.
    pub(crate) fn no_subscription(name: &str) -> Self {
        Self::Error(error(
            jsonrpsee::types::error::METHOD_NOT_FOUND_CODE,
            format!("no {name:?} subscription in eth namespace"),
        ))
    }

    /// "filter not found", geth's text, which clients look for.
    pub(crate) fn filter_not_found() -> Self {
        Self::Error(error(NOT_HERE, "filter not found"))
    }

    /// Whether the execution client may have it.
    pub(crate) const fn may_be_elsewhere(&self) -> bool {
        matches!(self, Self::Elsewhere(_) | Self::Unknown(_))
    }

    /// Whether it does not exist, as far as can be told here.
    pub(crate) const fn is_absence(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Absent(_) | Self::AbsentAt(..))
    }

    /// Turns it into a JSON-RPC error.
    pub fn into_error(self) -> ErrorObjectOwned {
        match self {
            Self::Elsewhere(what) => {
                error(NOT_HERE, format!("{what}; configure an execution client"))
            }
            Self::Unknown(what) | Self::Absent(what) => error(UNKNOWN_BLOCK, what),
            Self::AbsentAt(what, data) => ErrorObjectOwned::owned(UNKNOWN_BLOCK, what, Some(data)),
            Self::Error(error) => error,
        }
    }
}

impl From<ErrorObjectOwned> for Failure {
    fn from(error: ErrorObjectOwned) -> Self {
        Self::Error(error)
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Missing(_) => Self::Elsewhere(error.to_string()),
            SourceError::Unavailable(_) | SourceError::Corrupt(_) => {
                Self::unavailable(error.to_string())
            }
        }
    }
}
