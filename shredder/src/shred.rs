//! A shred: one datagram's worth of a message.
//!
//! ```text
//!  0 ┌─────────┬──────┬─────────┬───────┐
//!    │ version │ kind │ attempt │ route │           u8 each
//!  4 ├─────────┴──────┴─────────┴───────┤
//!    │ chain tag                        │           u32
//!  8 ├──────────────────────────────────┤
//!    │ block number                     │           u64
//! 16 ├──────────────────────────────────┤
//!    │ plan id                          │           u64
//! 24 ├──────────────────────────────────┤
//!    │ sent at, µs since the Unix epoch │           u64
//! 32 ├──────────────────────────────────┤
//!    │ message length                   │           u32
//! 36 ├────────────────┬─────────────────┤
//!    │ message index  │ set             │           u16 each
//! 40 ├────────────────┼─────────────────┤
//!    │ sets           │ shard length    │           u16 each
//! 44 ├───┬───┬────────┴─────────────────┤
//!    │ k │ m │ route parameter          │           u8, u8, u16
//! 48 ├───┴───┴──────────────────────────┤ ◀─ signed up to here: a set has one header
//!    │ shred index                      │           u8, data shards first
//! 49 ├──────────────────────────────────┤
//!    │ shard                            │           shard length
//!    ├──────────────────────────────────┤
//!    │ Merkle path, leaf's sibling first│           20 × ⌈log₂(k + m)⌉
//!    ├──────────────────────────────────┤
//!    │ ed25519 signature                │           64
//!    └──────────────────────────────────┘           at most 1,152 bytes
//! ```
//!
//! Integers are little-endian. The header comes first, so the fields that identify a shred are at
//! fixed offsets; the header also determines the length of every part behind it. A decoder that
//! took the length of the path or the shard from anything else could be made to disagree with the
//! signature.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::coding::MAX_SHARDS;
use crate::equivocation::Commitment;
use crate::messages::Kind;
use crate::time::Timestamp;
use crate::{MAX_MESSAGE_LEN, codec, merkle};

/// The version byte of this format.
pub const VERSION: u8 = 2;
/// Bytes of the signed header.
pub const HEADER_LEN: usize = 48;
/// Bytes of an ed25519 signature.
pub const SIGNATURE_LEN: usize = 64;
/// The largest shred: fits the 1,162 bytes of a QUIC datagram on a 1,200-byte path.
pub const MAX_SHRED_LEN: usize = 1152;
/// Attempts of one block: 0 to 7.
pub const MAX_ATTEMPTS: u8 = 8;

/// Bytes of a shred beside its shard and path.
pub(crate) const OVERHEAD: usize = HEADER_LEN + 1 + SIGNATURE_LEN;

/// A four-byte hash of the chain id, compared before any signature is checked.
///
/// The signature covers the whole chain id, so two chains with equal tags only cost a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
pub struct ChainTag(pub u32);

impl ChainTag {
    /// The tag of a chain id.
    pub fn new(chain_id: u64) -> Self {
        let hash = blake3::derive_key("fragcast 2026 chain tag v1", &chain_id.to_le_bytes());
        Self(u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]))
    }
}

/// Identifies a message by its block, attempt and index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKey {
    /// Block number.
    pub block: u64,
    /// Attempt, 0 to 7.
    pub attempt: u8,
    /// Message index: 0 is Env.
    pub message: u16,
}

/// Identifies an FEC set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetKey {
    /// The message that the set belongs to.
    pub message: MessageKey,
    /// The set's index within the message.
    pub set: u16,
}

/// The signed header that all shreds of a set share. 48 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct SetHeader {
    /// [`VERSION`].
    pub version: u8,
    /// [`Kind`] of the message.
    pub kind: u8,
    /// Attempt, 0 to 7.
    pub attempt: u8,
    /// Number of the route, as `fragcast_turbine::Route` defines it.
    pub route: u8,
    /// Chain tag.
    pub chain: ChainTag,
    /// Block number.
    pub block: u64,
    /// First eight bytes of the plan's hash.
    pub plan: u64,
    /// When the leader sent the message, µs since the Unix epoch by its clock.
    pub sent_at_micros: u64,
    /// Bytes of the message, 1 to 10 MiB.
    pub message_len: u32,
    /// Message index.
    pub message: u16,
    /// Index of this set, below `sets`.
    pub set: u16,
    /// Number of sets of the message.
    pub sets: u16,
    /// Bytes of a shard.
    pub shard_len: u16,
    /// Data shards.
    pub k: u8,
    /// Coding shards.
    pub m: u8,
    /// A parameter of the route, such as its fanout.
    pub route_param: u16,
}

impl SetHeader {
    /// The message that the set belongs to.
    pub const fn message_key(&self) -> MessageKey {
        MessageKey { block: self.block, attempt: self.attempt, message: self.message }
    }

    /// The set's key.
    pub const fn set_key(&self) -> SetKey {
        SetKey { message: self.message_key(), set: self.set }
    }

    /// When the leader sent the message, by its clock.
    pub const fn sent_at(&self) -> Timestamp {
        Timestamp::from_micros(self.sent_at_micros)
    }

    /// Number of shards in the set, k + m.
    pub const fn shards(&self) -> usize {
        self.k as usize + self.m as usize
    }

    /// Length of each shred of this set in bytes.
    pub const fn shred_len(&self) -> usize {
        OVERHEAD + self.shard_len as usize + merkle::NODE_LEN * merkle::depth(self.shards())
    }

    /// The kind of the message.
    pub fn message_kind(&self) -> Kind {
        Kind::from_byte(self.kind).expect("checked when parsed")
    }

    /// Whether both headers have the same kind, message length, number of sets, shard length, k and
    /// m. All sets of a message agree in these.
    pub fn same_shape(&self, other: &Self) -> bool {
        let shape = |h: &Self| (h.kind, h.message_len, h.sets, h.shard_len, h.k, h.m);
        shape(self) == shape(other)
    }

    /// Encodes the header.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        codec::encode_into(self, &mut bytes);
        bytes
    }

    /// The digest that is signed: H(domain ‖ chain id ‖ header ‖ root).
    pub fn digest(&self, chain_id: u64, root: &merkle::Hash) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("fragcast 2026 shred set v1");
        hasher.update(&chain_id.to_le_bytes()).update(&self.to_bytes()).update(root);
        hasher.finalize().into()
    }

    /// Checks all that needs no key: every field is in range, and the fields agree with one
    /// another.
    ///
    /// # Errors
    /// [`ShredError`].
    pub fn check(&self) -> Result<(), ShredError> {
        if self.version != VERSION {
            return Err(ShredError::Version(self.version));
        }
        let kind = Kind::from_byte(self.kind).ok_or(ShredError::Header("kind"))?;
        if self.attempt >= MAX_ATTEMPTS {
            return Err(ShredError::Header("attempt"));
        }
        if (kind == Kind::Env) != (self.message == 0) {
            return Err(ShredError::Header("message index"));
        }
        if self.k == 0 || self.shards() > MAX_SHARDS {
            return Err(ShredError::Header("k and m"));
        }
        // A set of one shred has no path, so its shard could be longer than a leaf may be.
        let len = usize::from(self.shard_len);
        if len == 0 || len > merkle::MAX_LEAF_LEN || self.shred_len() > MAX_SHRED_LEN {
            return Err(ShredError::Header("shard length"));
        }
        if self.set >= self.sets {
            return Err(ShredError::Header("set"));
        }
        // The sets must cover the message, and the last one must hold some of it.
        let set_len = usize::from(self.k) * usize::from(self.shard_len);
        let len = self.message_len as usize;
        if len == 0 || len > MAX_MESSAGE_LEN || len.div_ceil(set_len) != usize::from(self.sets) {
            return Err(ShredError::Header("message length"));
        }
        Ok(())
    }
}

/// Why bytes are not a shred. The protocol counts each variant under its own metric label, so a new
/// variant must be added there too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShredError {
    /// The bytes are shorter than a header or longer than any shred.
    #[error("{0} bytes are no shred's length")]
    Length(usize),
    /// The version is not [`VERSION`].
    #[error("version {0}, this build speaks {VERSION}")]
    Version(u8),
    /// A field of the header is out of range or contradicts another.
    #[error("impossible {0} in the header")]
    Header(&'static str),
    /// The shred index is not below k + m.
    #[error("shred index {0} is out of range")]
    Index(u8),
    /// The length differs from the one that the header determines.
    #[error("{have} bytes where the header makes it {need}")]
    Mismatch {
        /// Bytes found.
        have: usize,
        /// Bytes that the header determines.
        need: usize,
    },
}

/// A well-formed shred that nobody has authenticated yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shred {
    bytes: Bytes,
    header: SetHeader,
    index: u8,
}

impl Shred {
    /// Parses one datagram.
    ///
    /// # Errors
    /// [`ShredError`].
    pub fn parse(bytes: Bytes) -> Result<Self, ShredError> {
        // The version first: the rest of another version's bytes means nothing to us, nor does
        // their number.
        if let Some(version) = bytes.first().filter(|version| **version != VERSION) {
            return Err(ShredError::Version(*version));
        }
        if bytes.len() < OVERHEAD || bytes.len() > MAX_SHRED_LEN {
            return Err(ShredError::Length(bytes.len()));
        }
        let header: SetHeader = codec::decode_exact::<_, HEADER_LEN>(&bytes[..HEADER_LEN])
            .map_err(|_| ShredError::Header("encoding"))?;
        header.check()?;
        let index = bytes[HEADER_LEN];
        if usize::from(index) >= header.shards() {
            return Err(ShredError::Index(index));
        }
        if bytes.len() != header.shred_len() {
            return Err(ShredError::Mismatch { have: bytes.len(), need: header.shred_len() });
        }
        Ok(Self { bytes, header, index })
    }

    /// The set's header.
    pub const fn header(&self) -> &SetHeader {
        &self.header
    }

    /// The shred's index within the set; data shards come first.
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// The bytes of the whole shred.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The shard.
    pub fn shard(&self) -> &[u8] {
        &self.bytes[shard_range(&self.header)]
    }

    /// The Merkle path, beginning with the leaf's sibling.
    pub fn path(&self) -> &[merkle::PathNode] {
        let start = shard_range(&self.header).end;
        self.bytes[start..self.bytes.len() - SIGNATURE_LEN].as_chunks().0
    }

    /// The signature over the set.
    pub fn signature(&self) -> &[u8; SIGNATURE_LEN] {
        self.bytes.last_chunk().expect("longer than a signature")
    }

    /// The same shard and path under another header of the same shape, and its signature.
    pub(crate) fn in_form_of(&self, header: &SetHeader, signature: &[u8; SIGNATURE_LEN]) -> Self {
        debug_assert!(self.header.same_shape(header), "the lengths are those of the shape");
        let mut bytes = BytesMut::from(&self.bytes[..]);
        write_frame(&mut bytes, header, self.index, self.path().iter(), signature);
        Self { bytes: bytes.freeze(), header: *header, index: self.index }
    }
}

/// The byte range of the shard within a shred.
pub(crate) const fn shard_range(header: &SetHeader) -> Range<usize> {
    HEADER_LEN + 1..HEADER_LEN + 1 + header.shard_len as usize
}

/// Writes header, index, path and signature into `slot`, which has the length of a shred.
pub(crate) fn write_frame<'a>(
    slot: &mut [u8],
    header: &SetHeader,
    index: u8,
    path: impl Iterator<Item = &'a merkle::PathNode>,
    signature: &[u8; SIGNATURE_LEN],
) {
    codec::encode_into(header, &mut slot[..HEADER_LEN]);
    slot[HEADER_LEN] = index;
    let start = shard_range(header).end;
    let end = slot.len() - SIGNATURE_LEN;
    for (chunk, node) in slot[start..end].chunks_exact_mut(merkle::NODE_LEN).zip(path) {
        chunk.copy_from_slice(node);
    }
    slot[end..].copy_from_slice(signature);
}

/// A shred with the hash of its shard.
///
/// Hashing is a separate stage because hashing all shards of a burst side by side is several times
/// faster than hashing each one when it is validated.
#[derive(Debug, Clone)]
pub struct HashedShred {
    pub(crate) shred: Shred,
    pub(crate) leaf: merkle::Hash,
}

impl HashedShred {
    /// Hashes one shred.
    pub fn new(shred: Shred) -> Self {
        Self { leaf: merkle::leaf(shred.shard()), shred }
    }

    /// Hashes a burst; neighbours of equal shard length are hashed side by side. Keeps the order.
    pub fn batch(shreds: Vec<Shred>) -> Vec<Self> {
        let mut hashes = Vec::new();
        let mut leaves = Vec::with_capacity(shreds.len());
        for run in shreds.chunk_by(|a, b| a.header.shard_len == b.header.shard_len) {
            let shards: Vec<&[u8]> = run.iter().map(Shred::shard).collect();
            merkle::leaves(&shards, &mut hashes);
            leaves.extend_from_slice(&hashes);
        }
        shreds.into_iter().zip(leaves).map(|(shred, leaf)| Self { shred, leaf }).collect()
    }

    /// The shred.
    pub const fn shred(&self) -> &Shred {
        &self.shred
    }

    /// What the shred says that its leader signed. Nobody has verified it.
    pub fn claim(&self) -> Commitment {
        let root = merkle::root_of(self.leaf, usize::from(self.shred.index), self.shred.path());
        Commitment::of(&self.shred, root)
    }
}

#[cfg(test)]
pub(crate) mod tests;
