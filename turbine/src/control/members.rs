//! Records of members, and the tables that are made of them.
//!
//! ```text
//! RecordsPull   list of u32: a hash of each bucket of records                at most 4,104 B
//! Records       list of records                                             at most 64 KiB
//! TableNotice   chain id u64 │ first block u64 │ table 32 │ members u32 │
//!               weights' block u64 │ key 32 │ signature 64                          156 B
//! TableRequest  table 32 │ part u16                                                  34 B
//! TablePart     table 32 │ part u16 │ parts u16 │ list of bytes             at most 32 KiB + 44
//! ```
//!
//! Records are pulled, never pushed: who wants some says what it has, in one hash a bucket, and is
//! answered with the buckets that differ. So a record travels to each node about once, and nobody
//! can have others flood the network with his.

use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use fragcast_shredder::codec::{self, DecodeError};

use crate::membership::MemberRecord;

/// Buckets of a pull at most.
pub const MAX_BUCKETS: usize = 1_024;
/// Bytes of the records of one answer at most.
pub const MAX_RECORDS_LEN: usize = 64 * 1024;
/// Bytes of each part of a table but the last.
pub const TABLE_PART_LEN: usize = 32 * 1024;
/// Parts of a table at most.
pub const MAX_TABLE_PARTS: usize = crate::tables::MAX_TABLE_LEN.div_ceil(TABLE_PART_LEN);

/// What the sender has of records: a hash of each of a power of two buckets. The receiver answers
/// with what differs.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct RecordsPull {
    /// By bucket, 1 to [`MAX_BUCKETS`].
    pub buckets: Vec<u32>,
}

impl RecordsPull {
    /// Decodes a body.
    ///
    /// # Errors
    /// [`DecodeError`], also if the number of buckets is no power of two of at most
    /// [`MAX_BUCKETS`].
    pub fn from_bytes(body: &[u8]) -> Result<Self, DecodeError> {
        let pull: Self = codec::decode_exact::<_, { 8 + 4 * MAX_BUCKETS }>(body)?;
        let buckets = pull.buckets.len();
        if !buckets.is_power_of_two() || buckets > MAX_BUCKETS {
            return Err(DecodeError::Malformed);
        }
        Ok(pull)
    }
}

/// Records, in answer to a pull.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Records {
    /// [`MAX_RECORDS_LEN`] bytes of them at most.
    pub records: Vec<MemberRecord>,
}

impl Records {
    /// Decodes a body; no signature is checked.
    ///
    /// # Errors
    /// [`DecodeError`], also beyond [`MAX_RECORDS_LEN`].
    pub fn from_bytes(body: &[u8]) -> Result<Self, DecodeError> {
        if body.len() > 8 + MAX_RECORDS_LEN {
            return Err(DecodeError::Malformed);
        }
        // In memory an address is larger than its bytes, and what is claimed is counted.
        codec::decode_exact::<_, { 4 * MAX_RECORDS_LEN }>(body)
    }
}

/// What the leader of a term says of the table that holds from a later block on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct TableNotice {
    /// Chain id.
    pub chain_id: u64,
    /// First block of the table; it says which leader names it, see
    /// [`naming_block`](crate::tables::naming_block).
    pub from_block: u64,
    /// The table's hash.
    pub table: [u8; 32],
    /// Its members.
    pub members: u32,
    /// The block at which the leader has read the weights; 0 if they are not read at one.
    pub weights_block: u64,
    /// The leader's delegated key.
    pub leader: [u8; 32],
}

impl TableNotice {
    fn digest(&self) -> [u8; 32] {
        blake3::derive_key("fragcast 2026 table notice v1", &codec::encode(self))
    }

    /// Signs with the leader's key.
    pub fn sign(self, leader: &SigningKey) -> SignedTableNotice {
        let signature = leader.sign(&self.digest()).to_bytes();
        SignedTableNotice { notice: self, signature }
    }
}

/// A notice with its leader's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct SignedTableNotice {
    /// The signed fields.
    pub notice: TableNotice,
    /// ed25519, by [`TableNotice::leader`].
    pub signature: [u8; 64],
}

impl SignedTableNotice {
    /// Bytes of the encoding.
    pub const ENCODED_LEN: usize = 8 + 8 + 32 + 4 + 8 + 32 + 64;

    /// Whether the leader's key has signed it.
    pub fn verify(&self) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        VerifyingKey::from_bytes(&self.notice.leader)
            .is_ok_and(|key| key.verify_strict(&self.notice.digest(), &signature).is_ok())
    }
}

/// The sender lacks a part of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct TableRequest {
    /// The table's hash.
    pub table: [u8; 32],
    /// Which part, from 0.
    pub part: u16,
}

/// A part of a table, of [`TABLE_PART_LEN`] bytes, or the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePart {
    /// The table's hash.
    pub table: [u8; 32],
    /// Which part, from 0.
    pub part: u16,
    /// How many there are, 1 to [`MAX_TABLE_PARTS`].
    pub of: u16,
    /// The part's bytes.
    pub bytes: Bytes,
}

impl TablePart {
    const FIXED: usize = 32 + 2 + 2 + 8;

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(Self::FIXED + self.bytes.len());
        body.extend_from_slice(&self.table);
        body.extend_from_slice(&self.part.to_le_bytes());
        body.extend_from_slice(&self.of.to_le_bytes());
        body.extend_from_slice(&(self.bytes.len() as u64).to_le_bytes());
        body.extend_from_slice(&self.bytes);
        body
    }

    /// Takes a part that is as long as its place says.
    pub(super) fn from_bytes(body: &[u8]) -> Result<Self, DecodeError> {
        let malformed = DecodeError::Malformed;
        let (table, rest) = body.split_first_chunk::<32>().ok_or(malformed)?;
        let (part, rest) = rest.split_first_chunk::<2>().ok_or(malformed)?;
        let (of, rest) = rest.split_first_chunk::<2>().ok_or(malformed)?;
        let (len, bytes) = rest.split_first_chunk::<8>().ok_or(malformed)?;
        let (part, of) = (u16::from_le_bytes(*part), u16::from_le_bytes(*of));
        let due = match part.checked_add(1).ok_or(malformed)?.cmp(&of) {
            std::cmp::Ordering::Less => TABLE_PART_LEN..=TABLE_PART_LEN,
            std::cmp::Ordering::Equal => 1..=TABLE_PART_LEN,
            std::cmp::Ordering::Greater => return Err(malformed),
        };
        if usize::from(of) > MAX_TABLE_PARTS
            || !due.contains(&bytes.len())
            || u64::from_le_bytes(*len) != bytes.len() as u64
        {
            return Err(malformed);
        }
        Ok(Self { table: *table, part, of, bytes: Bytes::copy_from_slice(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::hex;

    use super::*;
    use crate::control::{Control, MAX_CONTROL_LEN};
    use crate::membership::sample;

    fn round_trip(frame: &Control) -> Vec<u8> {
        let bytes = frame.to_bytes();
        assert_eq!(Control::from_bytes(&bytes).as_ref(), Ok(frame));
        assert!(bytes.len() <= MAX_CONTROL_LEN);
        for end in [1, bytes.len() / 2, bytes.len() - 1] {
            assert!(Control::from_bytes(&bytes[..end]).is_err(), "{end}");
        }
        assert!(Control::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        bytes.to_vec()
    }

    #[test]
    fn the_frames_are_pinned() {
        let pull = Control::RecordsPull(RecordsPull { buckets: vec![0x0403_0201, u32::MAX] });
        assert_eq!(hex::encode(round_trip(&pull)), "14020000000000000001020304ffffffff");
        let (table, keys) = sample(5, &[1, 2]);
        let records = table.members().iter().map(|member| member.record.clone()).collect();
        let bytes = round_trip(&Control::Records(Records { records }));
        assert_eq!(
            blake3::hash(&bytes).to_hex().as_str(),
            "93d08a9b6abd8dfc7544fb5293ee930b4dbd5e80c6162f81d6c7373149028e53"
        );
        let notice = TableNotice {
            chain_id: 5,
            from_block: 60,
            table: table.hash(),
            members: 2,
            weights_block: 7,
            leader: keys[0].verifying_key().to_bytes(),
        };
        let signed = notice.sign(&keys[0]);
        assert!(signed.verify());
        let frame = Control::TableNotice(Box::new(signed));
        let bytes = round_trip(&frame);
        assert_eq!(bytes.len(), 1 + SignedTableNotice::ENCODED_LEN);
        assert_eq!(
            blake3::hash(&bytes).to_hex().as_str(),
            "989e13f3f95325f0d5434606d7ab1d7e1f412704904cc8714fe25a73d9316306"
        );
        let request = Control::TableRequest(TableRequest { table: [7; 32], part: 0x0201 });
        assert_eq!(hex::encode(round_trip(&request)), format!("17{}0102", "07".repeat(32)));
        let bytes = Bytes::from_static(&[1, 2, 3]);
        let part = Control::TablePart(TablePart { table: [7; 32], part: 1, of: 2, bytes });
        let pinned = format!("18{}010002000300000000000000010203", "07".repeat(32));
        assert_eq!(hex::encode(part.to_bytes()), pinned);
        assert_eq!(Control::from_bytes(&part.to_bytes()), Ok(part));
    }

    #[test]
    fn a_notice_that_was_changed_does_not_verify() {
        let (_, keys) = sample(5, &[1]);
        let leader = keys[0].verifying_key().to_bytes();
        let (table, from_block) = ([3; 32], 30);
        let notice =
            TableNotice { chain_id: 5, from_block, table, members: 1, weights_block: 0, leader };
        let bytes = Control::TableNotice(Box::new(notice.sign(&keys[0]))).to_bytes();
        for at in 1..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1;
            let Ok(Control::TableNotice(bad)) = Control::from_bytes(&bad) else { panic!("{at}") };
            assert!(!bad.verify(), "byte {at}");
        }
    }

    #[test]
    fn bounds_are_kept_and_claims_allocate_nothing() {
        let of = |count| Control::RecordsPull(RecordsPull { buckets: vec![1; count] }).to_bytes();
        for (count, fine) in [(0, false), (1, true), (3, false), (1_024, true), (2_048, false)] {
            assert_eq!(Control::from_bytes(&of(count)).is_ok(), fine, "{count}");
        }
        let mut claims = of(1).to_vec();
        claims[1..9].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Control::from_bytes(&claims).is_err());
        let (table, _) = sample(5, &[1]);
        let record = table.members()[0].record.clone();
        let of = |count| {
            let records = vec![record.clone(); count];
            Control::from_bytes(&Control::Records(Records { records }).to_bytes())
        };
        let most = MAX_RECORDS_LEN / record.to_bytes().len();
        assert!(of(0).is_ok() && of(most).is_ok() && of(most + 1).is_err());
        let part = |part, of, len: usize| {
            let bytes = vec![1; len].into();
            let part = TablePart { table: [1; 32], part, of, bytes };
            Control::from_bytes(&Control::TablePart(part).to_bytes()).is_ok()
        };
        assert!(part(0, 1, 1) && part(0, 1, TABLE_PART_LEN) && part(0, 2, TABLE_PART_LEN));
        assert!(!part(0, 1, 0) && !part(0, 1, TABLE_PART_LEN + 1) && !part(0, 2, 100));
        assert!(!part(1, 1, 5) && !part(0, 0, 5) && !part(u16::MAX, u16::MAX, 5));
        let last = MAX_TABLE_PARTS as u16;
        assert!(part(last - 1, last, 5) && !part(last, last + 1, 5));
    }
}
