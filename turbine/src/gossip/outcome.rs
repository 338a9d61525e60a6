//! What became of every gossip message: the counters' names.

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
    /// Valid and handed on, but not forwarded: the signature's v is 27 or 28, which to
    /// based-op's nodes is another message.
    OtherV = "other_v",
    /// The same message again under another message id.
    Duplicate = "duplicate",
    /// Another message has its place, as often as blocks can be rebuilt.
    Conflict = "conflict",
    /// The block is below the window.
    Past = "past",
    /// The block is above the window.
    Future = "future",
    /// Signed by a gateway, but not the one that we think leads the block.
    NotScheduled = "not_scheduled",
    /// Over the size limit. Rejected.
    TooLong = "too_long",
    /// Shorter than what it must have. Rejected.
    Truncated = "truncated",
    /// Of the other dialect. Rejected.
    Dialect = "dialect",
    /// No encoding of a message. Rejected.
    Malformed = "malformed",
    /// The signature is high-s, out of range, or recovers to nothing. Rejected.
    BadSignature = "bad_signature",
    /// Signed by somebody who is no gateway. Rejected.
    WrongSigner = "wrong_signer",
    /// No topic of ours.
    Topic = "topic",
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
