//! Messages, signatures, erasure code, Merkle tree, shreds and reassembly.
//!
//! A leader encodes a message (Env, Frag or Seal), divides the bytes into FEC sets, and cuts each
//! set into shreds. A receiver does the reverse:
//!
//! ```text
//! SignedMessage ─wire bytes─▶ Shredder ─▶ Shred … network … Shred ─▶ HashedShred
//!                                                                     │ Validator
//! VerifiedMessage ◀─signature─ SignedMessage ◀─ Reassembler ◀─ ValidatedShred
//! ```
//!
//! Each stage has its own type, so the wrong order does not compile: the [`Reassembler`] takes only
//! [`ValidatedShred`]s, and a [`VerifiedMessage`] comes only from recovering the gateway's
//! signature or from [`GatewayKey::sign_verified`].
//!
//! The crate is pure: it has no socket, clock, thread or randomness of its own. Everything that
//! comes from a peer is decoded with bounds, and no number that a peer sent decides the size of an
//! allocation. `WIRE.md` specifies the bytes.
#![forbid(unsafe_code)]

pub mod codec;
pub mod coding;
pub mod equivocation;
#[doc(hidden)]
pub mod fuzzing;
pub mod merkle;
pub mod messages;
pub mod rate;
pub mod reassembler;
pub mod shred;
pub mod shredder;
pub mod signature;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod validator;

pub use equivocation::{Commitment, EquivocationProof};
pub use messages::build::BlockBuilder;
pub use messages::{Dialect, Env, Frag, Kind, Message, Seal};
pub use rate::{CodeRate, LossTarget};
pub use reassembler::{Assembled, Limits, Push, PushError, Reassembler, RecoveredSet};
pub use shred::{ChainTag, HashedShred, MessageKey, SetHeader, SetKey, Shred, ShredError};
pub use shredder::{MessageParams, ShreddedMessage, ShreddedSet, Shredder};
pub use signature::{GatewayKey, Signature, SignatureError, SignedMessage, VerifiedMessage};
pub use time::Timestamp;
pub use validator::{ValidateError, ValidatedShred, Validator};

/// The largest message, signature included: 10 MiB, the limit of the gossip network.
pub const MAX_MESSAGE_LEN: usize = 10 * 1024 * 1024;
