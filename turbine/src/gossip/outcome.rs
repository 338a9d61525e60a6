//! What became of every gossip message: the counters' names.

use fragcast_shredder::SignatureError;
use fragcast_shredder::messages::wire::WireError;

use super::gate::Verdict;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// The fate of one gossip message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum GossipOutcome { $($(#[$doc])* $name,)* }

        impl GossipOutcome {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The metric label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

outcomes! {
    /// New, valid, forwarded and handed on.
    Accepted = "accepted",
    /// The canonical form of what came with another v first: forwarded; it was handed on then.
    Canonical = "canonical",
    /// Valid and handed on, but not forwarded: the signature's v is 27 or 28, which to
    /// based-op's nodes is another message.
    OtherV = "other_v",
    /// The same message again under another message id.
    Duplicate = "duplicate",
    /// Other messages have its place, as many as blocks can be opened.
    Conflict = "conflict",
    /// No room for more messages of its block, or nearer blocks fill the table.
    Full = "full",
    /// The block is below the window.
    Past = "past",
    /// The block is above the window.
    Future = "future",
    /// Signed by a gateway, but not the one that we think leads the block.
    NotScheduled = "not_scheduled",
    /// Signed by its gateway, with a number that no shred can carry.
    Index = "index",
    /// A frag of more transactions than its bytes can hold.
    Crowded = "crowded",
    /// Over the size limit. Rejected.
    TooLong = "too_long",
    /// Shorter than what it must have. Rejected.
    Truncated = "truncated",
    /// Of the other dialect. Rejected.
    Dialect = "dialect",
    /// No encoding of a message. Rejected.
    Malformed = "malformed",
    /// The signature has a high s: not taken, and nobody's fault, since anybody can make that
    /// form of a good signature and based-op's nodes forward it.
    HighS = "high_s",
    /// The signature is out of range, or recovers to nothing. Rejected.
    BadSignature = "bad_signature",
    /// Signed by somebody who is no gateway. Rejected.
    WrongSigner = "wrong_signer",
    /// No topic of ours.
    Topic = "topic",
}

impl GossipOutcome {
    /// What libp2p is told.
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
            | Self::Topic => Verdict::Ignore,
            Self::TooLong
            | Self::Truncated
            | Self::Dialect
            | Self::Malformed
            | Self::BadSignature
            | Self::WrongSigner => Verdict::Reject,
        }
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GossipOutcomes([u64; GossipOutcome::ALL.len()]);

impl Default for GossipOutcomes {
    fn default() -> Self {
        Self([0; GossipOutcome::ALL.len()])
    }
}

impl GossipOutcomes {
    /// Counts one.
    pub const fn count(&mut self, outcome: GossipOutcome) {
        self.0[outcome as usize] += 1;
    }

    /// How many there were.
    pub const fn get(&self, outcome: GossipOutcome) -> u64 {
        self.0[outcome as usize]
    }

    /// All, with their labels.
    pub fn iter(&self) -> impl Iterator<Item = (GossipOutcome, u64)> + '_ {
        GossipOutcome::ALL.iter().map(|outcome| (*outcome, self.get(*outcome)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct() {
        let mut labels: Vec<_> = GossipOutcome::ALL.iter().map(|o| o.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), GossipOutcome::ALL.len());
    }

    #[test]
    fn what_an_honest_node_could_forward_convicts_nobody() {
        let convicting: Vec<_> = GossipOutcome::ALL
            .iter()
            .filter(|outcome| outcome.convicts_sender())
            .map(|outcome| outcome.label())
            .collect();
        assert_eq!(
            convicting,
            ["too_long", "truncated", "dialect", "malformed", "bad_signature", "wrong_signer"]
        );
    }

    #[test]
    fn counters_count_what_they_are_named_after() {
        let mut outcomes = GossipOutcomes::default();
        for (times, outcome) in GossipOutcome::ALL.iter().enumerate() {
            (0..times).for_each(|_| outcomes.count(*outcome));
        }
        let counts: Vec<u64> = outcomes.iter().map(|(_, count)| count).collect();
        assert_eq!(counts, (0..GossipOutcome::ALL.len() as u64).collect::<Vec<_>>());
        assert_eq!(outcomes.get(GossipOutcome::Canonical), 1);
    }
}
