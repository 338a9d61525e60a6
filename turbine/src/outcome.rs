//! Outcomes of incoming datagrams and control frames: the labels of their counters.

use fragcast_shredder::reassembler::PushError;
use fragcast_shredder::shred::ShredError;
use fragcast_shredder::validator::ValidateError;
use strum::{IntoStaticStr, VariantArray};

use crate::counts::{Counts, labelled};

/// The fate of one incoming datagram or control frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// A new shred, kept.
    Stored,
    /// The shred that its set was waiting for.
    Completed,
    /// The same shred again.
    Duplicate,
    /// Its set or message was complete already.
    Late,
    /// No shred at all. The sender is barred.
    Malformed,
    /// Another version of the format.
    Version,
    /// Another chain.
    Chain,
    /// No leader of the block is known.
    UnknownLeader,
    /// A shred of this node's own.
    Own,
    /// Altered on its way: its set is known and does not contain it. The sender is barred.
    BadSignature,
    /// Not covered by the key of the leader that this node knows. The sender may know another
    /// one, so it proves nothing; beyond a rate such shreds are not looked at.
    Unproven,
    /// The leader signed two contradictory things.
    Equivocation,
    /// The table of sets is full of nearer blocks, or the gateway has its share of it.
    TableFull,
    /// The block is below the window.
    Past,
    /// The block is above the window.
    Future,
    /// The block is outside the window, which is in doubt: its Env or Seal was looked at.
    Elsewhere,
    /// The attempt was superseded.
    Superseded,
    /// No memory for this block or gateway.
    Quota,
    /// Another message has its place.
    Conflict,
    /// The leader's parity is inconsistent.
    BadParity,
    /// The operator has this node live on gossip alone.
    Forced,
    /// As [`Unproven`](Self::Unproven), from a peer that goes by another membership table.
    OtherTable,
    /// Sent by a peer that is barred, or by nobody that is known.
    Barred,
    /// Sent by a guest, who has no say in it.
    Guest,
    /// A control frame that was taken.
    Control,
    /// A control frame of a kind that this build does not know.
    ControlUnknown,
    /// A control frame that is malformed or a lie. The sender is barred.
    ControlBad,
    /// An answer that is not what was asked for in this node's dialect, from a peer that may speak
    /// another. It is tolerated within the peer's budget.
    OtherDialect,
    /// A control frame that says nothing new.
    ControlStale,
    /// A control frame of a peer whose frames have been useless and dear; it was not looked at.
    /// Who goes on is barred.
    OverBudget,
    /// An answer to a request that is settled already.
    RepairLate,
    /// An answer that this node did not ask that peer for.
    RepairUnasked,
    /// A request for what this node does not have, or for what cannot exist.
    RepairLacking,
    /// A request beyond the peer's budget, or the lane's, or for a message that is being sent.
    RepairRefused,
    /// Measured round trips over a table that this node does not have, or of another chain.
    DelaysTable,
    /// Measured round trips that are not newer than those that are known.
    DelaysOld,
    /// Measured round trips too soon after the last of the same member, or beyond what is passed
    /// on for others.
    DelaysSoon,
    /// Measured round trips though this node neither leads nor can pass them on to who does.
    DelaysUnwanted,
    /// A receipt of a block of which the same peer has sent one, or of an earlier one.
    ReceiptOld,
    /// A receipt of a block of which this node knows no sets, or from nobody who may judge it.
    ReceiptUnwanted,
    /// A frame about records or tables, though this node goes by its network file alone.
    MembersOff,
    /// Records or a part of a table that this node did not ask that peer for.
    MembersUnasked,
    /// A pull or a request for a table beyond the peer's budget, or for a table that is not here.
    MembersRefused,
    /// A member's record for another chain.
    RecordChain,
    /// A member's record that is not newer than the one that is known.
    RecordOld,
    /// A member's record that was made too far ahead of this node's clock.
    RecordFuture,
    /// A member's record that was not renewed for too long.
    RecordDead,
    /// A record without age, of a peer whom neither a table nor a weight names.
    RecordUnwanted,
    /// A record beyond the share of its network of addresses.
    RecordPrefix,
    /// A record for which there is no room.
    RecordsFull,
    /// A notice of a table whose time or leader is not known here.
    TableUnknown,
    /// A table, or its notice, that is known already.
    TableOld,
    /// A table that this node does not take by what it knows itself. Its sender is not to blame.
    TableUnfit,
}

labelled!(pub Outcome, label);

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
            ValidateError::Signature | ValidateError::Unverified => Self::Unproven,
            ValidateError::Altered => Self::BadSignature,
            ValidateError::Equivocation(_) => Self::Equivocation,
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
pub type Outcomes = Counts<Outcome>;
