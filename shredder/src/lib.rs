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
//! ```
//! use ed25519_dalek::SigningKey;
//! use fragcast_shredder::*;
//!
//! // A gateway signs a message, and its leader cuts it into shreds.
//! let gateway = GatewayKey::from_bytes([7; 32])?;
//! let signed = gateway.sign_verified(BlockBuilder::new(42).frag_at(0, [vec![0x02; 30_000]]));
//! let mut leader = Shredder::new(901, SigningKey::from_bytes(&[9; 32]));
//! let wire = signed.to_wire();
//! let params = MessageParams {
//!     key: MessageKey { block: 42, attempt: 0, message: 1 },
//!     kind: Kind::Frag,
//!     plan: 0,
//!     route: 0,
//!     route_param: 0,
//!     sent_at: Timestamp::default(),
//! };
//! let cut = leader.shred(&wire, &params, CodeRate::new(wire.len(), LossTarget::default()))?;
//!
//! // A node gets all but the first three shreds of each set.
//! let mut validator = Validator::new(901, Validator::DEFAULT_CAPACITY);
//! let mut reassembler = Reassembler::new(Limits::default());
//! let mut assembled = None;
//! for (set, index) in cut.in_sending_order().filter(|(_, index)| *index >= 3) {
//!     let shred = Shred::parse(set.shreds[usize::from(index)].clone())?;
//!     let shred = validator.validate(HashedShred::new(shred), &leader.verifying_key())?;
//!     if let Push::Complete { message: Some(message), .. } = reassembler.push(&shred)? {
//!         assembled = Some(message);
//!     }
//! }
//! let bytes = assembled.expect("any k of k + m shreds are enough").wire.into();
//! let message = SignedMessage::from_wire(Kind::Frag, Dialect::V0, &bytes)?;
//! assert_eq!(message.verify(gateway.address())?, signed);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/reassemble.rs` does the same with losses and a forged shred.
//!
//! The crate is pure: it has no socket, clock, thread or randomness of its own. Everything that
//! comes from a peer is decoded with bounds, and no number that a peer sent decides the size of an
//! allocation. `WIRE.md` specifies the bytes.
#![forbid(unsafe_code)]

pub mod codec;
pub mod coding;
pub mod delivery;
pub mod equivocation;
#[doc(hidden)]
pub mod fuzzing;
pub mod merkle;
pub mod messages;
pub mod names;
pub mod rate;
pub mod reassembler;
mod shares;
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
pub use names::UnknownName;
pub use rate::{CodeRate, LossTarget};
pub use reassembler::{Assembled, Limits, Push, PushError, Reassembler, RecoveredSet};
pub use shares::{Full, Owner, Placed, Shares};
pub use shred::{ChainTag, HashedShred, MessageKey, SetHeader, SetKey, Shred, ShredError};
pub use shredder::{MessageParams, ShreddedMessage, ShreddedSet, Shredder};
pub use signature::{GatewayKey, Signature, SignatureError, SignedMessage, VerifiedMessage};
pub use time::Timestamp;
pub use validator::{ValidateError, ValidatedShred, Validator};

/// The largest message, signature included: 10 MiB, the limit of the gossip network.
pub const MAX_MESSAGE_LEN: usize = 10 * 1024 * 1024;
