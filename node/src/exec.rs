//! Execution: frags in, snapshots and verdicts out.

pub mod hashes;
pub mod overlay;
pub mod receipt;
pub mod source;
pub mod tx;

/// stub
pub struct SealedBlock;
