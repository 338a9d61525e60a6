//! The states, and the record of a change.

use strum::{IntoStaticStr, VariantArray};

use crate::counts::labelled;
use crate::time::Timestamp;

/// The way that this node relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum State {
    /// The overlay is well.
    Turbine,
    /// The overlay may fail: this node listens to gossip to find out.
    Probing,
    /// The overlay fails: this node relies on gossip until the overlay has proved itself.
    Gossip,
}

labelled!(pub State, name);

/// Why the state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// Peers have had a message for long that this node cannot get.
    TipsAhead,
    /// A message that must exist could not be had.
    Gap,
    /// No peer is connected.
    NoRelay,
    /// Connected peers have stopped sending tips.
    Silence,
    /// The overlay has brought nothing for long.
    Quiet,
    /// Gossip had a message that the overlay had not.
    GossipAhead,
    /// Peers are heard again.
    Heard,
    /// The missing message has arrived.
    Filled,
    /// A probe heard nothing on gossip either: the leader is silent, not the path.
    ProbeEmpty,
    /// The overlay alone completed as many blocks as the dwell.
    Recovered,
    /// The operator said so.
    Operator,
}

labelled!(pub Reason, name);

impl Reason {
    /// The reason in a sentence for people.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::TipsAhead => "peers have messages that cannot be had over the overlay",
            Self::Gap => "a message could not be had over the overlay, repair included",
            Self::NoRelay => "no peer is connected over the overlay",
            Self::Silence => "connected peers have stopped to tell what they have",
            Self::Quiet => "the overlay has brought nothing for long",
            Self::GossipAhead => "gossip had a message that the overlay had not",
            Self::Heard => "peers are heard again",
            Self::Filled => "what was missing is here",
            Self::ProbeEmpty => "gossip has nothing either: the leader is silent, not the path",
            Self::Recovered => "the overlay alone completed blocks again",
            Self::Operator => "the operator said so",
        }
    }
}

/// One change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The time.
    pub at: Timestamp,
    /// The state before.
    pub from: State,
    /// To what.
    pub to: State,
    /// Why.
    pub reason: Reason,
    /// The newest block that this node had heard of.
    pub block: u64,
    /// Blocks that the overlay must complete before the way back, if `to` is gossip.
    pub dwell: u64,
}
