//! The round trips that one member measured, as it signs and sends them.
//!
//! ```text
//! chain id u64 │ table 32 │ member u32 │ sequence u64 │ known: bytes │ codes: bytes │ signature 64
//! ```
//!
//! Bit i of `known` (byte i / 8, from the lowest) says that member i of the table was measured;
//! `codes` has one byte for each of them, in that order.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use fragcast_shredder::codec::{self, DecodeError};

use super::{RttCode, WHOLE};
use crate::membership::{MAX_MEMBERS, PeerIndex};
use crate::peer::PeerId;

/// Codes of a vector at most, in a table of more than [`WHOLE`] members.
const SPARSE: usize = 256;

/// Codes that a member of a table of this many reports at most.
pub const fn most_codes(members: usize) -> usize {
    if members <= WHOLE { members } else { SPARSE }
}

/// The round trips from one member to others.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct DelayVector {
    /// Chain id.
    pub chain_id: u64,
    /// Hash of the membership table.
    pub table: [u8; 32],
    /// Who measured, by its place in the table.
    pub member: PeerIndex,
    /// Of several vectors of a member the one with the highest sequence counts: the time at which
    /// it was made, in µs, so that it rises over restarts.
    pub sequence: u64,
    known: Vec<u8>,
    codes: Vec<u8>,
}

impl DelayVector {
    /// The vector of `member` in a table of `members`. `pairs` are by rising index.
    pub fn new(
        (chain_id, table, members): (u64, [u8; 32], usize),
        member: PeerIndex,
        sequence: u64,
        pairs: &[(PeerIndex, RttCode)],
    ) -> Self {
        let mut known = vec![0; members.div_ceil(8)];
        pairs.iter().for_each(|(index, _)| known[*index as usize / 8] |= 1 << (index % 8));
        let codes = pairs.iter().map(|(_, code)| code.to_byte()).collect();
        Self { chain_id, table, member, sequence, known, codes }
    }

    /// Whether it has the form of a vector of a table of `members`: what has not is of nobody who
    /// knows the table.
    pub fn fits(&self, members: usize) -> bool {
        let set: usize = self.known.iter().map(|byte| byte.count_ones() as usize).sum();
        let has =
            |index: usize| self.known.get(index / 8).is_some_and(|b| b >> (index % 8) & 1 == 1);
        self.known.len() == members.div_ceil(8)
            && !(members..members.next_multiple_of(8)).any(has)
            && (self.member as usize) < members
            && !has(self.member as usize)
            && self.codes.len() == set
            && set <= most_codes(members)
            && !self.codes.contains(&0)
    }

    /// Who was measured, with the round trips, by rising index.
    pub fn pairs(&self) -> impl Iterator<Item = (PeerIndex, RttCode)> + '_ {
        let bits = (0..).zip(&self.known).flat_map(|(at, byte): (u32, &u8)| {
            (0..8u32).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at * 8 + bit)
        });
        bits.zip(self.codes.iter().copied().map(RttCode::from_byte))
    }

    fn digest(&self) -> [u8; 32] {
        blake3::derive_key("fragcast 2026 delay vector v1", &codec::encode(self))
    }

    /// Signs with the member's identity key.
    pub fn sign(self, identity: &SigningKey) -> SignedDelayVector {
        let signature = identity.sign(&self.digest()).to_bytes();
        SignedDelayVector { vector: self, signature }
    }
}

/// A vector with its member's signature.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct SignedDelayVector {
    /// The signed fields.
    pub vector: DelayVector,
    /// ed25519, by the key that is the member's peer id.
    pub signature: [u8; 64],
}

impl SignedDelayVector {
    /// The longest encoding: a bit a member and a byte a code, and 132 more.
    pub const MAX_LEN: usize = 256 + MAX_MEMBERS / 8 + WHOLE;

    /// Whether `peer` signed it.
    pub fn verify(&self, peer: &PeerId) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        VerifyingKey::from_bytes(&peer.0)
            .is_ok_and(|key| key.verify_strict(&self.vector.digest(), &signature).is_ok())
    }

    /// Decodes; neither form nor signature is checked.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_exact::<_, { Self::MAX_LEN }>(bytes)
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::hex;

    use super::*;
    use crate::control::Control;
    use crate::membership::sample;

    fn code(byte: u8) -> RttCode {
        RttCode::from_byte(byte)
    }

    fn vector(members: usize, member: u32, pairs: &[(u32, RttCode)]) -> DelayVector {
        DelayVector::new((5, [7; 32], members), member, 9, pairs)
    }

    #[test]
    fn the_frame_is_pinned() {
        let (table, keys) = sample(5, &[1; 3]);
        let pairs = [(0, code(40)), (8, code(255))];
        let signed = vector(10, 1, &pairs).sign(&keys[1]);
        assert!(signed.verify(&table.members()[1].peer()));
        assert!(!signed.verify(&table.members()[0].peer()));
        assert_eq!(signed.vector.pairs().collect::<Vec<_>>(), pairs);
        let frame = Control::Delays(Box::new(signed.clone())).to_bytes();
        let expected = format!(
            "0d0500000000000000{}010000000900000000000000\
             02000000000000000101020000000000000028ff{}",
            "07".repeat(32),
            hex::encode(signed.signature)
        );
        assert_eq!(hex::encode(&frame), expected);
        assert_eq!(
            hex::encode(signed.vector.digest()),
            "2fc75b126d8ecadb0805542c76b14bf5a5c386b69031198019ad94da5368f709"
        );
        assert_eq!(Control::from_bytes(&frame), Ok(Control::Delays(Box::new(signed))));
        assert!(Control::from_bytes(&frame[..frame.len() - 1]).is_err());
        assert!(Control::from_bytes(&[&frame[..], &[0]].concat()).is_err());
        // A list that claims what is not there allocates nothing.
        let mut claims = frame.to_vec();
        claims[53..61].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Control::from_bytes(&claims).is_err());
    }

    #[test]
    fn the_longest_vector_of_any_table_has_room() {
        for members in [1, 8, 9, WHOLE, WHOLE + 1, 10_000, MAX_MEMBERS] {
            let most = most_codes(members).min(members - 1) as u32;
            let pairs: Vec<_> = (1..=most).map(|index| (index, code(1))).collect();
            let vector = vector(members, 0, &pairs);
            assert!(vector.fits(members) && !vector.fits(members + 8), "{members}");
            let signed = SignedDelayVector { vector, signature: [0; 64] };
            let bytes = codec::encode(&signed);
            assert!(bytes.len() < crate::control::MAX_CONTROL_LEN);
            assert_eq!(SignedDelayVector::from_bytes(&bytes), Ok(signed));
        }
        let many: Vec<_> = (1..=SPARSE as u32 + 1).map(|index| (index, code(1))).collect();
        assert!(!vector(WHOLE + 1, 0, &many).fits(WHOLE + 1));
    }

    #[test]
    fn what_has_not_the_form_of_the_table_does_not_fit() {
        let good = vector(10, 1, &[(0, code(40)), (8, code(1))]);
        assert!(good.fits(10) && !good.fits(8) && !good.fits(17));
        let changed = |change: &dyn Fn(&mut DelayVector)| {
            let mut vector = good.clone();
            change(&mut vector);
            vector.fits(10)
        };
        assert!(!changed(&|v| v.member = 10), "no member");
        assert!(!changed(&|v| v.member = 8), "itself");
        assert!(!changed(&|v| v.codes.push(3)), "a code too many");
        assert!(!changed(&|v| _ = v.codes.pop()), "a code too few");
        assert!(!changed(&|v| v.codes[0] = 0), "measured and unknown");
        assert!(!changed(&|v| v.known[1] |= 4), "beyond the table");
        assert!(!changed(&|v| v.known.push(0)), "of another length");
        assert!(changed(&|v| v.sequence += 1));
    }
}
