//! What the sequencer hands on: to subscribers, to an execution client, to an executor.

use std::sync::Arc;

use fragcast_shredder::VerifiedMessage;
use strum::{IntoStaticStr, VariantArray};

use crate::counts::labelled;

/// When a message passed this node, in nanoseconds since the Unix epoch by its own clock
/// (`sent_at`: by the leader's).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// The leader began to send it, by the leader's clock.
    pub sent_at: u64,
    /// Its first shred arrived, or the gateway handed it in.
    pub first_shred_at: u64,
    /// It was whole and its signature checked.
    pub complete_at: u64,
}

/// The way by which a message came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Via {
    /// Handed in by this node's own gateway.
    Own,
    /// By the overlay, without any request.
    Turbine,
    /// By the overlay, partly in answer to a request.
    Repair,
    /// By the overlay, in answer to a request, from a peer that has it from gossip.
    Whole,
    /// By gossip.
    Gossip,
}

labelled!(pub Via, name);

impl Via {
    /// Whether shreds, or this node's own journal, prove which attempt the message belongs to.
    /// What came by gossip, here or at the peer that answered, names none.
    pub const fn proves_attempt(self) -> bool {
        matches!(self, Self::Own | Self::Turbine | Self::Repair)
    }
}

/// A verified message in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// Block number.
    pub block: u64,
    /// Attempt of the block. Of what comes in: 0 to 7, signed by the leader, or over gossip a
    /// guess. Of what the sequencer hands on: its own number, which is the leader's unless
    /// gossip had told of another order; see [`sequencer`](crate::sequencer).
    pub attempt: u8,
    /// Message index: 0 is Env, then the frags, last the Seal.
    pub index: u16,
    /// The message.
    pub message: VerifiedMessage,
    /// When it passed this node.
    pub times: Times,
    /// The way it came.
    pub via: Via,
}

/// Why messages that were handed on are void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum RetractReason {
    /// The leader opened the block again.
    Superseded {
        /// The attempt that counts now.
        by: u8,
    },
    /// The leader signed parity that is no code word: not every node could have the message.
    BadParity,
    /// Gossip, whose frags name no Env, had brought a message of another opening; the block is
    /// handed on again under the next attempt.
    #[strum(serialize = "gossip_order")]
    Reordered,
}

impl RetractReason {
    /// The name used in logs, metrics and the subscription.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// One step of the sequence. Within a block and attempt messages come in order of their index
/// without a gap; blocks may interleave.
#[derive(Debug, Clone)]
pub enum Output {
    /// The next message of its block.
    Message(Arc<Ordered>),
    /// Everything handed on of this attempt is void.
    Retracted {
        /// Block number.
        block: u64,
        /// The attempt that is void.
        attempt: u8,
        /// Why.
        reason: RetractReason,
    },
}
