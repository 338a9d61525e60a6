//! Execution: frags in, snapshots and verdicts out.
//!
//! [`OpenBlock`] executes one block on a [`StateSource`]; everything that can be read comes from
//! immutable [`Snapshot`]s. The executor's service decides about the order of blocks, attempts,
//! retractions and reorganisations.

pub mod admission;
mod allowance;
pub mod block;
pub mod hashes;
pub mod memory;
pub mod message;
pub mod op;
pub mod overlay;
pub mod parent;
pub mod receipt;
mod run;
pub mod snapshot;
pub mod source;
mod trie_build;
pub mod tx;
pub mod verdict;
pub mod witness;

pub use allowance::{Allowance, Watch};
pub use block::{Decoded, OpenBlock};
pub use hashes::BlockHashes;
pub use message::{env_of, seal_of};
pub use overlay::{Layer, State};
pub use parent::Parent;
pub use receipt::Receipt;
pub use run::OnInvalid;
pub use snapshot::{Executed, ExecutedBlock, ExecutedFrag, Placed, SealedBlock, Snapshot};
pub use source::{Anchor, StateSource, StateView};
pub use tx::{Envelope, Tx};
pub use verdict::{BlockError, Invalid, SealField, Unverified, Verdict};
pub use witness::{Witness, WitnessSource};
