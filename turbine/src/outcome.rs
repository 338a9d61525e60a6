//! What became of every incoming datagram and control frame: the counters' names.

use fragcast_shredder::reassembler::PushError;
use fragcast_shredder::shred::ShredError;
use fragcast_shredder::validator::ValidateError;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// The fate of one incoming datagram or control frame.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Outcome { $($(#[$doc])* $name,)* }

        impl Outcome {
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
    /// A new shred, kept.
    Stored = "stored",
    /// The shred that its set was waiting for.
    Completed = "completed",
    /// The same shred again.
    Duplicate = "duplicate",
    /// Its set or message was complete already.
    Late = "late",
    /// No shred at all. The sender is barred.
    Malformed = "malformed",
    /// Another version of the format.
    Version = "version",
    /// Another chain.
    Chain = "chain",
    /// No leader of the block is known.
    UnknownLeader = "unknown_leader",
    /// A shred of this node's own.
    Own = "own",
    /// The leader's signature does not cover it. The sender is barred.
    BadSignature = "bad_signature",
    /// The leader signed two contradictory things.
    Equivocation = "equivocation",
    /// The set is known under another header.
    OtherHeader = "other_header",
    /// The table of sets is full of nearer blocks.
    TableFull = "table_full",
    /// The block is below the window.
    Past = "past",
    /// The block is above the window.
    Future = "future",
    /// The attempt was superseded.
    Superseded = "superseded",
    /// No memory for this block or leader.
    Quota = "quota",
    /// Another message has its place.
    Conflict = "conflict",
    /// The leader's parity is inconsistent.
    BadParity = "bad_parity",
    /// The operator has this node live on gossip alone.
    Forced = "forced",
    /// Not covered by the key of the leader that this node knows, from a peer that goes by
    /// another membership table and may know another one.
    OtherTable = "other_table",
    /// Sent by a peer that is barred, or by nobody that is known.
    Barred = "barred",
    /// A control frame that was taken.
    Control = "control",
    /// A control frame of a kind that this build does not know.
    ControlUnknown = "control_unknown",
    /// A control frame that is malformed or a lie. The sender is barred.
    ControlBad = "control_bad",
    /// A control frame that says nothing new.
    ControlStale = "control_stale",
    /// An answer to a request that is settled already.
    RepairLate = "repair_late",
    /// An answer that this node did not ask that peer for.
    RepairUnasked = "repair_unasked",
    /// A request for what this node does not have, or for what cannot exist.
    RepairLacking = "repair_lacking",
    /// A request beyond the peer's budget, or the lane's, or for a message that is on its way.
    RepairRefused = "repair_refused",
}

impl Outcome {
    /// Whether the sender must have known better.
    pub const fn convicts_sender(self) -> bool {
        matches!(self, Self::Malformed | Self::BadSignature | Self::ControlBad)
    }
}

impl From<ShredError> for Outcome {
    fn from(error: ShredError) -> Self {
        match error {
            ShredError::Version(_) => Self::Version,
            _ => Self::Malformed,
        }
    }
}

impl From<&ValidateError> for Outcome {
    fn from(error: &ValidateError) -> Self {
        match error {
            ValidateError::Chain => Self::Chain,
            ValidateError::Signature => Self::BadSignature,
            ValidateError::Equivocation(_) => Self::Equivocation,
            ValidateError::OtherHeader => Self::OtherHeader,
            ValidateError::Full => Self::TableFull,
        }
    }
}

impl From<PushError> for Outcome {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Past(_) => Self::Past,
            PushError::Future(_) => Self::Future,
            PushError::Superseded => Self::Superseded,
            PushError::Quota => Self::Quota,
            PushError::Conflict => Self::Conflict,
            PushError::BadParity => Self::BadParity,
        }
    }
}

/// A counter for each outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcomes([u64; Outcome::ALL.len()]);

impl Default for Outcomes {
    fn default() -> Self {
        Self([0; Outcome::ALL.len()])
    }
}

impl Outcomes {
    /// Counts one.
    pub const fn count(&mut self, outcome: Outcome) {
        self.0[outcome as usize] += 1;
    }

    /// How many there were.
    pub const fn get(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize]
    }

    /// All, with their labels.
    pub fn iter(&self) -> impl Iterator<Item = (Outcome, u64)> + '_ {
        Outcome::ALL.iter().map(|outcome| (*outcome, self.get(*outcome)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct() {
        let mut labels: Vec<_> = Outcome::ALL.iter().map(|o| o.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Outcome::ALL.len());
    }
}
