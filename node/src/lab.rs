//! Whole networks on one machine, and the blocks that are sent through them: `fragcast devnet` and
//! `fragcast replay`.

pub mod devnet;
pub mod fixtures;
#[doc(hidden)]
pub mod fuzzing;
pub mod local;
pub mod registry;
pub mod replay;
pub mod signer;

/// A share of loss on the command line is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a share from 0 to 0.3, such as 0.05, is expected")]
pub struct LossError;

/// The highest share of loss.
pub(crate) const MAX_LOSS: f64 = 0.3;

/// Parses a share of loss on the command line.
pub(crate) fn loss(text: &str) -> Result<f64, LossError> {
    text.parse().ok().filter(|loss| (0.0..=MAX_LOSS).contains(loss)).ok_or(LossError)
}
