//! Messages, signatures, erasure code, Merkle tree, shreds and reassembly.
//!
//! A message (Env, Frag or Seal) becomes bytes, the bytes become FEC sets, a set becomes
//! shreds, and back:
//!
//! ```text
//! SignedMessage ─wire bytes─▶ Shredder ─▶ Shred … network … Shred ─▶ HashedShred
//!                                                                     │ Validator
//! VerifiedMessage ◀─signature─ SignedMessage ◀─ Reassembler ◀─ ValidatedShred
//! ```
//!
//! The stages are types, so the wrong order does not compile: the [`Reassembler`] takes only
//! [`ValidatedShred`]s, and a [`VerifiedMessage`] exists only where the gateway's signature was
//! recovered, or made by [`GatewayKey::sign_verified`].
//!
//! The crate is pure: no socket, clock, thread or randomness of its own. Everything that comes
//! from a peer is decoded with bounds, and no allocation is sized by a number a peer sent.
//! The bytes are specified in `WIRE.md`.
#![forbid(unsafe_code)]

pub mod codec;
pub mod coding;
pub mod delivery;
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

/// The largest message, signature included: the gossip network's limit, 10 MiB.
pub const MAX_MESSAGE_LEN: usize = 10 * 1024 * 1024;
