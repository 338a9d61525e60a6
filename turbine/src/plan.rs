//! The leader's plan: its signed list of relays, from which all nodes derive the same tree.
//!
//! ```text
//! entry (u32): region u16 │ territory u8 │ flags u8 (bit 0: relays; bit 1 + c: head for class c)
//! root (u32):  member u16 │ class u8 │ 0
//! ```
//!
//! Roots stand behind the entries, so that a plan without any is what it was before there were.
//!
//! A plan refers to the membership table by hash and has four bytes a member. Its id is the
//! first eight bytes of its hash and stands in every shred. While nobody measures delays, a
//! plan names one region, one territory, no roots, and as relays all members that have weight.
//!
//! A planned one has what the regional tree is derived from without knowing any delay: the members
//! of each region, the roots, best first, and who may be a head of its region. Which heads are near
//! the way depends on where the root is, so roots have a class, and each entry a bit a class: one
//! eligibility for all roots is too coarse, and one for each root would be eight bytes a member.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use fragcast_shredder::codec::{self, DecodeError};

use crate::membership::{MAX_MEMBERS, Membership, PeerIndex};

mod drawn;
mod exclusions;
mod regions;
mod view;

pub use exclusions::{Exclusions, SignedExclusions};
pub(crate) use regions::{Regions, Root};
pub use view::{PlanError, PlanView};

/// Bit 0 of an entry's flags.
const RELAY: u32 = 1 << 24;
/// Where the bits of the classes begin.
const CLASSES_AT: u32 = 25;

/// Classes of roots.
pub const CLASSES: usize = 7;
/// Roots of a plan at most.
pub const MAX_ROOTS: usize = 128;
/// Members of a region that may be its head, at most. The rest of a larger plan is refused.
pub const MAX_HEADS: usize = 64;
/// Territories of a plan at most.
pub const MAX_TERRITORIES: usize = 8;

/// What a plan says of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// The region that it is in.
    pub region: u16,
    /// The territory of its region.
    pub territory: u8,
    /// Whether it relays.
    pub relays: bool,
    /// Bit c: whether it may be its region's head where the root is of class c.
    pub heads: u8,
}

impl Entry {
    /// The entry as it stands in the plan.
    pub const fn to_bits(self) -> u32 {
        let relays = if self.relays { RELAY } else { 0 };
        let heads = (self.heads as u32) << CLASSES_AT;
        self.region as u32 | (self.territory as u32) << 16 | relays | heads
    }

    /// The entry of its bits: every word is one.
    pub const fn from_bits(bits: u32) -> Self {
        Self {
            region: bits as u16,
            territory: (bits >> 16) as u8,
            relays: bits & RELAY != 0,
            heads: (bits >> CLASSES_AT) as u8,
        }
    }
}

/// A leader's choice of relays, in the table of one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub struct Plan {
    /// Chain id.
    pub chain_id: u64,
    /// The leader's ed25519 key.
    pub leader: [u8; 32],
    /// Number of the plan; the highest that is in effect counts.
    pub version: u64,
    /// The first block it is in effect for.
    pub effective: u64,
    /// Hash of the membership table.
    pub table: [u8; 32],
    /// One entry a member, in the table's order, and behind them the roots of the regional tree,
    /// best first, at most [`MAX_ROOTS`].
    pub entries: Vec<u32>,
}

impl Plan {
    /// The longest encoding: four bytes a member and a root, and 112 more, with room for the
    /// signature.
    pub const MAX_LEN: usize = 256 + 4 * (MAX_MEMBERS + MAX_ROOTS);

    /// The plan that configuration alone gives: every member with weight relays, or every
    /// member if none has any.
    pub fn configured(chain_id: u64, leader: [u8; 32], members: &Membership) -> Self {
        let weighted = members.members().iter().any(|m| m.weight > 0);
        let relays = members.members().iter().map(|m| m.weight > 0 || !weighted);
        let entries = relays.map(|relays| if relays { RELAY } else { 0 }).collect();
        Self { chain_id, leader, version: 0, effective: 0, table: members.hash(), entries }
    }

    /// The word of a root.
    pub const fn root(member: PeerIndex, class: u8) -> u32 {
        member & 0xffff | (class as u32) << 16
    }

    fn hash(&self) -> [u8; 32] {
        blake3::derive_key("fragcast 2026 plan v1", &codec::encode(self))
    }

    /// The id in shreds: the first eight bytes of the plan's hash.
    pub fn id(&self) -> u64 {
        u64::from_le_bytes(self.hash()[..8].try_into().expect("eight bytes"))
    }

    /// Signs with the leader's key.
    pub fn sign(self, key: &SigningKey) -> SignedPlan {
        let signature = key.sign(&self.hash()).to_bytes();
        SignedPlan { plan: self, signature }
    }
}

/// A plan with its leader's signature.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct SignedPlan {
    /// The signed fields.
    pub plan: Plan,
    /// ed25519 by [`Plan::leader`].
    pub signature: [u8; 64],
}

impl SignedPlan {
    /// Whether the leader it names signed it.
    pub fn verify(&self) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        VerifyingKey::from_bytes(&self.plan.leader)
            .is_ok_and(|key| key.verify_strict(&self.plan.hash(), &signature).is_ok())
    }

    /// Decodes; the signature is not checked.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_exact::<_, { Plan::MAX_LEN }>(bytes)
    }
}

#[cfg(test)]
mod tests;
