//! Outcomes of gossip messages: the labels of their counters.

use fragcast_shredder::SignatureError;
use fragcast_shredder::messages::wire::WireError;
use strum::{IntoStaticStr, VariantArray};

use super::gate::Verdict;
use crate::counts::{Counts, labelled};

/// The fate of one gossip message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum GossipOutcome {
    /// New, valid, forwarded and handed on.
    Accepted,
    /// The canonical form of a message that came with another v first and was handed on then.
    /// Forwarded.
    Canonical,
    /// Valid and handed on, but not forwarded: the signature's v is 27 or 28, which to
    /// based-op's nodes is another message.
    OtherV,
    /// The same message again under another message id.
    Duplicate,
    /// Other messages have its place, as many as blocks can be opened.
    Conflict,
    /// No room for more messages of its block, or nearer blocks fill the table.
    Full,
    /// The block is below the window.
    Past,
    /// The block is above the window.
    Future,
    /// Signed by a gateway, but not the one that we think leads the block.
    NotScheduled,
    /// Signed by its gateway, with a number that no shred can carry.
    Index,
    /// A frag of more transactions than its bytes can hold.
    Crowded,
    /// Over the size limit. Rejected.
    TooLong,
    /// Shorter than its fixed part. Rejected.
    Truncated,
    /// Of the other dialect. The sender's network file may name that one, so it is not rejected, but
    /// tolerated at a low rate alone.
    Dialect,
    /// No encoding of a message. Rejected.
    Malformed,
    /// The signature has a high s: not taken, and nobody's fault, since anybody can make that
    /// form of a good signature and based-op's nodes forward it.
    HighS,
    /// The signature is out of range, or recovers to nothing. Rejected.
    BadSignature,
    /// Signed by somebody who is no gateway that we know. The sender's list of gateways may be
    /// another one, so it is not rejected, but tolerated at a low rate alone.
    WrongSigner,
    /// Signed by somebody who is no gateway that we know, while a peer goes by another membership
    /// table: ours may be behind.
    OtherTable,
    /// No topic of ours.
    Topic,
}

labelled!(pub GossipOutcome, label);

impl GossipOutcome {
    /// The verdict for libp2p.
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::Accepted | Self::Canonical => Verdict::Accept,
            Self::OtherV
            | Self::Duplicate
            | Self::Conflict
            | Self::Full
            | Self::Past
            | Self::Future
            | Self::NotScheduled
            | Self::Index
            | Self::Crowded
            | Self::HighS
            | Self::WrongSigner
            | Self::Dialect
            | Self::OtherTable
            | Self::Topic => Verdict::Ignore,
            Self::TooLong | Self::Truncated | Self::Malformed | Self::BadSignature => {
                Verdict::Reject
            }
        }
    }

    /// Whether it may be right elsewhere, by another list of gateways or another dialect: each is
    /// work for nothing, so it is tolerated at a low rate.
    pub const fn is_foreign(self) -> bool {
        matches!(self, Self::WrongSigner | Self::Dialect)
    }

    /// Whether the sender must have known better.
    pub const fn convicts_sender(self) -> bool {
        matches!(self.verdict(), Verdict::Reject)
    }
}

impl From<WireError> for GossipOutcome {
    fn from(error: WireError) -> Self {
        match error {
            WireError::TooLong(_) => Self::TooLong,
            WireError::Truncated { .. } => Self::Truncated,
            WireError::Dialect { .. } => Self::Dialect,
            WireError::Offset { .. }
            | WireError::Length(_)
            | WireError::Bool(_)
            | WireError::ExtraData(_) => Self::Malformed,
        }
    }
}

impl From<&SignatureError> for GossipOutcome {
    fn from(error: &SignatureError) -> Self {
        match error {
            SignatureError::RecoveryId(_)
            | SignatureError::OutOfRange
            | SignatureError::NotCanonical
            | SignatureError::Unrecoverable => Self::BadSignature,
            SignatureError::WrongSigner { .. } => Self::WrongSigner,
            SignatureError::TooShort(_) => Self::Truncated,
            SignatureError::Body(error) => error.clone().into(),
        }
    }
}

/// A counter for each outcome.
pub type GossipOutcomes = Counts<GossipOutcome>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_honest_node_could_forward_convicts_nobody() {
        let convicting: Vec<_> = GossipOutcome::ALL
            .iter()
            .filter(|outcome| outcome.convicts_sender())
            .map(|outcome| outcome.label())
            .collect();
        assert_eq!(convicting, ["too_long", "truncated", "malformed", "bad_signature"]);
    }
}
