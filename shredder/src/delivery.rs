//! A verified message on its way through a node, from whoever brought it to whoever uses it.
//!
//! ```text
//! protocol, own gateway ── Delivered ──▶ sequencer ── Output ──▶ subscribers, executor, client
//! ```
//!
//! One record travels the whole way, behind one `Arc`; the sequencer puts records in order and
//! says which became void. It is here, and not beside the protocol, so that what executes blocks
//! need not be built on what carries them.

use std::sync::Arc;
use std::time::Duration;

use strum::{IntoStaticStr, VariantArray};

use crate::{MessageKey, Timestamp, VerifiedMessage};

/// When a message passed this node, by its own clock; `sent_at` by the leader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// The leader began to send it. Only shreds say so.
    pub sent_at: Option<Timestamp>,
    /// Its first shred arrived, or the gateway handed it in.
    pub first_shred_at: Timestamp,
    /// It was whole and its signature checked.
    pub complete_at: Timestamp,
}

impl Times {
    /// A message that came whole, at this moment.
    pub const fn whole(now: Timestamp) -> Self {
        Self { sent_at: None, first_shred_at: now, complete_at: now }
    }

    /// From the leader's sending to the whole message; zero if the clocks disagree by more.
    pub fn latency(&self) -> Option<Duration> {
        self.sent_at.map(|sent_at| self.complete_at.since(sent_at))
    }
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

impl Via {
    /// All of them.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The name used in reports and metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether shreds, or this node's own journal, prove which attempt the message belongs to.
    /// What came by gossip, here or at the peer that answered, names none.
    pub const fn proves_attempt(self) -> bool {
        matches!(self, Self::Own | Self::Turbine | Self::Repair)
    }
}

/// A verified message, in its place and with its history.
///
/// ```
/// use std::sync::Arc;
///
/// use fragcast_shredder::delivery::{Delivered, Output, Times, Via};
/// use fragcast_shredder::{BlockBuilder, GatewayKey, MessageKey, Timestamp};
///
/// let gateway = GatewayKey::from_bytes([7; 32])?;
/// let frag = BlockBuilder::new(100).frag([vec![1; 20]]);
/// let times = Times::whole(Timestamp::from_micros(1_700_000_000_000_000));
/// let message = gateway.sign_verified(frag);
/// let delivered = Delivered::of_attempt(0, message, times, Via::Gossip).expect("a small number");
/// assert_eq!(delivered.key, MessageKey { block: 100, attempt: 0, message: 1 });
/// // Gossip does not tell when the leader sent it.
/// assert_eq!(delivered.times.latency(), None);
/// let output = Output::Message(Arc::new(delivered));
/// assert_eq!(output.block(), 100);
/// # Ok::<(), fragcast_shredder::SignatureError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Block, attempt and message index (0 is Env, then the frags, last the Seal).
    ///
    /// On the way to the sequencer the attempt is the leader's, signed, or a guess if it came
    /// without shreds. What the sequencer hands on has the sequencer's own number, which is the
    /// leader's unless gossip had told of another order.
    pub key: MessageKey,
    /// The message.
    pub message: VerifiedMessage,
    /// When it passed this node.
    pub times: Times,
    /// The way it came.
    pub via: Via,
    /// By what right its gateway leads the block: 0 if it is the scheduled one, else it stands in
    /// for that as the substitute of this rank, and gives way to lower ranks.
    pub rank: u8,
}

impl Delivered {
    /// A message of the scheduled gateway in the place that it says itself, of this attempt; `None` if its number is one
    /// that no shred can carry.
    pub fn of_attempt(
        attempt: u8,
        message: VerifiedMessage,
        times: Times,
        via: Via,
    ) -> Option<Self> {
        let (block, index) = (message.message().block(), message.message().index()?);
        let key = MessageKey { block, attempt, message: index };
        Some(Self { key, message, times, via, rank: 0 })
    }
}

/// Why messages that were handed on are void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
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
    /// The chain does not stand there: a gateway had sent a block far ahead.
    Elsewhere,
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
    Message(Arc<Delivered>),
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

impl Output {
    /// The block that it is about.
    pub fn block(&self) -> u64 {
        match self {
            Self::Message(delivered) => delivered.key.block,
            Self::Retracted { block, .. } => *block,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metrics, the status and subscribers know these names.
    #[test]
    fn names_are_a_contract() {
        let names: Vec<&str> = Via::ALL.iter().map(|via| via.name()).collect();
        assert_eq!(names, ["own", "turbine", "repair", "whole", "gossip"]);
        let reasons = [
            RetractReason::Superseded { by: 1 },
            RetractReason::BadParity,
            RetractReason::Reordered,
            RetractReason::Elsewhere,
        ];
        let names = ["superseded", "bad_parity", "gossip_order", "elsewhere"];
        assert_eq!(reasons.map(RetractReason::name), names);
    }
}
