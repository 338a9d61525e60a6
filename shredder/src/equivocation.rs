//! Proof that a leader signed two contradictory commitments.
//!
//! Within one (block, attempt, message) a leader commits to each set once, by header, root and
//! signature. Two commitments contradict each other if they give one set two roots, or if they give
//! the message two shapes (kind, length, number or form of sets). These are no contradiction:
//! * Another attempt: this is how a block is rebuilt, and how a leader continues after a restart in
//!   mid-block (its journal never reuses an attempt).
//! * Another time of sending, plan or route with the same root: the content is the same.
//! * Two keys: they are two leaders, even if one gateway delegated to both.
//!
//! The proof holds both commitments and the key. The delegation to that key is separate evidence.

use ed25519_dalek::VerifyingKey;

use crate::merkle;
use crate::shred::{ChainTag, SIGNATURE_LEN, SetHeader, Shred, ShredError};

/// A leader's signature over a set.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Commitment {
    /// The set's header.
    pub header: SetHeader,
    /// The Merkle root over its shards.
    pub root: merkle::Hash,
    /// The ed25519 signature over both.
    pub signature: [u8; SIGNATURE_LEN],
}

impl Commitment {
    /// The commitment that `shred` carries, if its path leads to `root`.
    pub(crate) fn of(shred: &Shred, root: merkle::Hash) -> Self {
        Self { header: *shred.header(), root, signature: *shred.signature() }
    }

    /// Whether `key` signed this for `chain_id`. Takes one ed25519 verification.
    pub fn verify(&self, chain_id: u64, key: &VerifyingKey) -> bool {
        // Strict: the lax rule accepts signatures on which implementations disagree, and a leader
        // could use those to get honest relays barred.
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        key.verify_strict(&self.header.digest(chain_id, &self.root), &signature).is_ok()
    }

    /// Whether an honest leader cannot have signed both.
    pub fn contradicts(&self, other: &Self) -> bool {
        let (a, b) = (&self.header, &other.header);
        a.chain == b.chain
            && a.message_key() == b.message_key()
            && (!a.same_shape(b) || (a.set == b.set && self.root != other.root))
    }
}

/// Two contradictory commitments of one key. [`verify`](Self::verify) needs nothing beside the
/// proof, so anyone can check it.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct EquivocationProof {
    /// The chain both were signed for.
    pub chain_id: u64,
    /// The leader's ed25519 key.
    pub key: [u8; 32],
    /// The commitment that was seen first. The node keeps to this one.
    pub first: Commitment,
    /// The commitment that contradicts it.
    pub second: Commitment,
}

/// Why a proof is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The key is not a point of the curve.
    #[error("not an ed25519 key")]
    Key,
    /// A header is invalid.
    #[error(transparent)]
    Header(#[from] ShredError),
    /// A header belongs to another chain.
    #[error("of another chain")]
    Chain,
    /// The commitments do not contradict each other.
    #[error("the commitments do not contradict each other")]
    Compatible,
    /// The key did not sign one of them.
    #[error("a signature does not verify")]
    Signature,
}

impl EquivocationProof {
    /// Bytes of an encoded proof.
    pub const ENCODED_LEN: usize = 8 + 32 + 2 * (48 + 32 + 64);

    /// Accepts the proof if the key signed both commitments and they contradict each other.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self) -> Result<(), ProofError> {
        let key = VerifyingKey::from_bytes(&self.key).map_err(|_| ProofError::Key)?;
        let tag = ChainTag::new(self.chain_id);
        for commitment in [&self.first, &self.second] {
            commitment.header.check()?;
            if commitment.header.chain != tag {
                return Err(ProofError::Chain);
            }
        }
        if !self.first.contradicts(&self.second) {
            return Err(ProofError::Compatible);
        }
        if ![&self.first, &self.second].iter().all(|c| c.verify(self.chain_id, &key)) {
            return Err(ProofError::Signature);
        }
        Ok(())
    }

    /// Encodes the proof in [`ENCODED_LEN`](Self::ENCODED_LEN) bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        crate::codec::encode(self)
    }

    /// Decodes a proof, which must then be [verified](Self::verify).
    ///
    /// # Errors
    /// [`DecodeError`](crate::codec::DecodeError).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, crate::codec::DecodeError> {
        crate::codec::decode_exact::<_, { Self::ENCODED_LEN }>(bytes)
    }
}
