//! Control frames: reliable, in order, on a stream of their own.
//!
//! ```text
//! kind u8 │ body, bincode
//! ```
//!
//! A kind that a build does not know is counted and passed over, so that later versions can
//! add others without a new version number.

mod attach;
mod blocks;
mod handover;
mod listeners;
mod members;
mod parts;
mod receipts;
mod repair;
mod terms;

use alloy_primitives::Address;
use bytes::Bytes;
use fragcast_shredder::codec::{self, DecodeError};
use fragcast_shredder::equivocation::ProofError;
use fragcast_shredder::{EquivocationProof, SignatureError};

use crate::delays::SignedDelayVector;
use crate::delegation::SignedDelegation;
use crate::plan::{Plan, SignedExclusions, SignedPlan};

pub use attach::{Attach, Attached, MAX_EXTRA, Share};
pub use blocks::{BLOCK_PART_LEN, BlockPart, BlocksEnd, BlocksRequest, MAX_PARTS};
pub use handover::{AckRequest, MessageAck};
pub use listeners::{Listeners, MAX_TOLD};
pub use members::{
    MAX_BUCKETS, MAX_RECORDS_LEN, MAX_TABLE_PARTS, Records, RecordsPull, SignedTableNotice,
    TABLE_PART_LEN, TableNotice, TablePart, TableRequest,
};
pub use parts::{MAX_ANSWER_PARTS, MessagePart, PART_LEN};
pub use receipts::{AFTER_MICROS, MAX_RECEIPT_SETS, Receipt, SetReceipt, UNTIMED};
pub use repair::{MAX_ANSWER_SHREDS, MAX_TIPS, RepairRequest, RepairShreds, Tip, Tips, WHOLE};
pub use terms::{CLOCK_TOLERANCE, Difference, Terms};

pub(crate) use terms::dialect_of;

/// The longest control frame.
pub const MAX_CONTROL_LEN: usize = 1 + Plan::MAX_LEN;

/// The first frame of each side, and again when its newest table is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Hello {
    /// Shred format version.
    pub version: u8,
    /// Chain id.
    pub chain_id: u64,
    /// Hash of the sender's newest membership table. Another one than ours is nothing wrong: one
    /// of us knows an epoch that the other does not.
    pub table: [u8; 32],
}

/// A proof of equivocation and the delegation that names the gateway behind the key: complete
/// evidence, for somebody who knows nothing but the gateway's address.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Evidence {
    /// The gateway's delegation to the key.
    pub delegation: SignedDelegation,
    /// Two contradictory things that the key signed.
    pub proof: EquivocationProof,
}

/// Why evidence is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The proof itself.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The delegation's signature.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The delegation is for another key, chain or block.
    #[error("the delegation does not cover the proof")]
    Delegation,
}

impl Evidence {
    /// Checks everything and names the gateway that is convicted.
    ///
    /// # Errors
    /// [`EvidenceError`].
    pub fn verify(&self) -> Result<Address, EvidenceError> {
        let delegation = &self.delegation.delegation;
        let block = self.proof.first.header.block;
        if delegation.key != self.proof.key
            || delegation.chain_id != self.proof.chain_id
            || !(delegation.first..=delegation.last).contains(&block)
        {
            return Err(EvidenceError::Delegation);
        }
        self.proof.verify()?;
        Ok(self.delegation.gateway()?)
    }
}

/// Whether members take frames of this kind of a guest: greetings, what proves itself, requests.
/// Kinds from 20 on have rules of their own.
pub(crate) const fn is_of_guests(kind: u8) -> bool {
    matches!(kind, 0 | 1 | 5 | 9 | 11 | 18 | 20..)
}

/// A control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control {
    /// The first frame of a connection.
    Hello(Hello),
    /// A gateway's delegation.
    Delegation(SignedDelegation),
    /// A leader's plan.
    Plan(SignedPlan),
    /// Proof that a gateway equivocated.
    Evidence(Box<Evidence>),
    /// The messages of recent blocks that the sender can serve.
    Tips(Tips),
    /// The sender asks for shreds.
    RepairRequest(RepairRequest),
    /// Shreds that this node asked for.
    RepairShreds(RepairShreds),
    /// Peers of the sender that listen to gossip and are no members.
    Listeners(Listeners),
    /// A part of a message that this node asked for.
    MessagePart(MessagePart),
    /// The sender asks for the messages of blocks that it missed.
    BlocksRequest(BlocksRequest),
    /// A part of a message of a block that this node asked for.
    BlockPart(BlockPart),
    /// The end of an answer of such parts.
    BlocksEnd(BlocksEnd),
    /// What the sender goes by.
    Terms(Terms),
    /// The round trips that a member measured.
    Delays(Box<SignedDelayVector>),
    /// The sender lacks the plan of this id, which shreds name.
    PlanRequest(u64),
    /// The sender has the plan of this id, which is one of the receiver's own.
    PlanAck(u64),
    /// What came of some sets of a block at the sender.
    Receipt(Receipt),
    /// Relays that a leader takes out of its plan.
    Exclusions(Box<SignedExclusions>),
    /// The sender asks for acknowledgements of its messages.
    AckRequest(AckRequest),
    /// The sender has a message of the receiver's.
    MessageAck(MessageAck),
    /// What a guest wants of this node.
    Attach(Attach),
    /// What a member grants this node, which is its guest.
    Attached(Attached),
    /// What the sender has of members' records; the answer is what it lacks.
    RecordsPull(RecordsPull),
    /// Records that this node asked for.
    Records(Records),
    /// The table of members that holds from a block on, as the leader of a term names it.
    TableNotice(Box<SignedTableNotice>),
    /// The sender lacks a part of a table.
    TableRequest(TableRequest),
    /// A part of a table that this node asked for.
    TablePart(TablePart),
}

/// Why a frame was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// A kind of a later version.
    #[error("control frame of unknown kind {0}")]
    Unknown(u8),
    /// Malformed.
    #[error("malformed control frame: {0}")]
    Decode(#[from] DecodeError),
}

impl Control {
    /// The frame.
    pub fn to_bytes(&self) -> Bytes {
        let (kind, body) = match self {
            Self::Hello(body) => (0, codec::encode(body)),
            Self::Delegation(body) => (1, codec::encode(body)),
            Self::Plan(body) => (2, codec::encode(body)),
            Self::Evidence(body) => (3, codec::encode(&**body)),
            Self::Tips(body) => (4, codec::encode(body)),
            Self::RepairRequest(body) => (5, codec::encode(body)),
            Self::RepairShreds(body) => (6, body.to_bytes()),
            Self::Listeners(body) => (7, codec::encode(body)),
            Self::MessagePart(body) => (8, body.to_bytes()),
            Self::BlocksRequest(body) => (9, codec::encode(body)),
            Self::BlockPart(body) => (10, body.to_bytes()),
            Self::BlocksEnd(body) => (12, codec::encode(body)),
            Self::Terms(body) => (11, codec::encode(body)),
            Self::Delays(body) => (13, codec::encode(&**body)),
            Self::PlanRequest(id) => (14, codec::encode(id)),
            Self::PlanAck(id) => (15, codec::encode(id)),
            Self::Receipt(body) => (16, codec::encode(body)),
            Self::Exclusions(body) => (17, codec::encode(&**body)),
            Self::AckRequest(body) => (25, codec::encode(body)),
            Self::MessageAck(body) => (26, codec::encode(body)),
            Self::Attach(body) => (18, body.to_bytes()),
            Self::Attached(body) => (19, body.to_bytes()),
            Self::RecordsPull(body) => (20, codec::encode(body)),
            Self::Records(body) => (21, codec::encode(body)),
            Self::TableNotice(body) => (22, codec::encode(&**body)),
            Self::TableRequest(body) => (23, codec::encode(body)),
            Self::TablePart(body) => (24, body.to_bytes()),
        };
        let mut frame = vec![kind];
        frame.extend(body);
        frame.into()
    }

    /// Decodes a frame; no signature is checked.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn from_bytes(frame: &[u8]) -> Result<Self, ControlError> {
        let Some((kind, body)) = frame.split_first() else {
            return Err(DecodeError::Malformed.into());
        };
        Ok(match kind {
            0 => Self::Hello(codec::decode_exact::<_, 64>(body)?),
            1 => Self::Delegation(SignedDelegation::from_bytes(body)?),
            2 => Self::Plan(SignedPlan::from_bytes(body)?),
            3 => Self::Evidence(Box::new(codec::decode_exact::<_, 1024>(body)?)),
            4 => Self::Tips(Tips::from_bytes(body)?),
            5 => Self::RepairRequest(RepairRequest::from_bytes(body)?),
            6 => Self::RepairShreds(RepairShreds::from_bytes(body)?),
            7 => Self::Listeners(Listeners::from_bytes(body)?),
            8 => Self::MessagePart(MessagePart::from_bytes(body)?),
            9 => Self::BlocksRequest(BlocksRequest::from_bytes(body)?),
            10 => Self::BlockPart(BlockPart::from_bytes(body)?),
            12 => Self::BlocksEnd(BlocksEnd::from_bytes(body)?),
            11 => Self::Terms(codec::decode_exact::<_, 128>(body)?),
            13 => Self::Delays(Box::new(SignedDelayVector::from_bytes(body)?)),
            14 => Self::PlanRequest(codec::decode_exact::<_, 8>(body)?),
            15 => Self::PlanAck(codec::decode_exact::<_, 8>(body)?),
            16 => Self::Receipt(Receipt::from_bytes(body)?),
            17 => Self::Exclusions(Box::new(SignedExclusions::from_bytes(body)?)),
            25 => Self::AckRequest(codec::decode_exact::<_, 16>(body)?),
            26 => Self::MessageAck(codec::decode_exact::<_, 11>(body)?),
            18 => Self::Attach(Attach::from_bytes(body)?),
            19 => Self::Attached(Attached::from_bytes(body)?),
            20 => Self::RecordsPull(RecordsPull::from_bytes(body)?),
            21 => Self::Records(Records::from_bytes(body)?),
            22 => Self::TableNotice(Box::new(codec::decode_exact::<
                _,
                { SignedTableNotice::ENCODED_LEN },
            >(body)?)),
            23 => Self::TableRequest(codec::decode_exact::<_, 34>(body)?),
            24 => Self::TablePart(TablePart::from_bytes(body)?),
            kind => return Err(ControlError::Unknown(*kind)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_pinned_and_round_trip() {
        let hello = Control::Hello(Hello { version: 1, chain_id: 5, table: [7; 32] });
        let bytes = hello.to_bytes();
        assert_eq!(
            alloy_primitives::hex::encode(&bytes),
            format!("00010500000000000000{}", "07".repeat(32))
        );
        assert_eq!(Control::from_bytes(&bytes), Ok(hello));
        assert_eq!(Control::from_bytes(&[99, 1, 2]), Err(ControlError::Unknown(99)));
        assert!(Control::from_bytes(&[]).is_err());
        assert!(Control::from_bytes(&bytes[..10]).is_err());
    }

    #[test]
    fn ids_of_plans_are_pinned_and_bounded() {
        let id = 0x0807_0605_0403_0201;
        for (kind, frame) in [("0e", Control::PlanRequest(id)), ("0f", Control::PlanAck(id))] {
            let bytes = frame.to_bytes();
            assert_eq!(alloy_primitives::hex::encode(&bytes), format!("{kind}0102030405060708"));
            assert_eq!(Control::from_bytes(&bytes), Ok(frame));
            assert!(Control::from_bytes(&bytes[..8]).is_err());
            assert!(Control::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn listeners_are_pinned_and_bounded() {
        let told = Control::Listeners(Listeners { ids: vec![0x0807_0605_0403_0201, u64::MAX] });
        let bytes = told.to_bytes();
        assert_eq!(
            alloy_primitives::hex::encode(&bytes),
            "0702000000000000000102030405060708ffffffffffffffff"
        );
        assert_eq!(Control::from_bytes(&bytes), Ok(told));
        assert!(Control::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(Control::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        let of = |count| Control::Listeners(Listeners { ids: vec![1; count] }).to_bytes();
        assert!(Control::from_bytes(&of(0)).is_ok());
        assert!(Control::from_bytes(&of(MAX_TOLD)).is_ok());
        assert!(Control::from_bytes(&of(MAX_TOLD + 1)).is_err());
        // A list that claims what is not there allocates nothing.
        let mut claims = of(1).to_vec();
        claims[1..9].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Control::from_bytes(&claims).is_err());
    }

    #[test]
    fn the_number_of_an_outsider_is_pinned() {
        // The first eight bytes of derive(`fragcast 2026 gossip listener`, 00010203).
        let expected = crate::gossip::Listener::Outside(0x43be55e35658906f);
        assert_eq!(crate::gossip::outsider(&[0, 1, 2, 3]), expected);
    }
}
