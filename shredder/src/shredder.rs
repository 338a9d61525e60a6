//! Cuts a message into signed, erasure-coded shreds, as a leader does.
//!
//! Each set is one allocation, and every shred is a slice of it: the data is copied once, and
//! coding shards, paths and signatures are written in place. [`ShreddedMessage::in_sending_order`]
//! puts the data shreds of all sets before any coding shred, so that the message completes as early
//! as possible where nothing is lost.

use bytes::{Bytes, BytesMut};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use crate::coding::Codes;
use crate::messages::Kind;
use crate::rate::CodeRate;
use crate::shred::{
    ChainTag, HEADER_LEN, MessageKey, SIGNATURE_LEN, SetHeader, VERSION, shard_range, write_frame,
};
use crate::time::Timestamp;
use crate::{MAX_MESSAGE_LEN, merkle};

/// The header fields of a message that do not depend on its length and code rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageParams {
    /// Block, attempt and message index.
    pub key: MessageKey,
    /// Kind of the message.
    pub kind: Kind,
    /// First eight bytes of the plan's hash.
    pub plan: u64,
    /// Number of the route.
    pub route: u8,
    /// Parameter of the route, such as its fanout.
    pub route_param: u16,
    /// When the leader sends the message, since the Unix epoch. The header carries microseconds.
    pub sent_at: Timestamp,
}

/// Why a message cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShredderError {
    /// The message is empty or longer than [`MAX_MESSAGE_LEN`].
    #[error("a message has 1 to {MAX_MESSAGE_LEN} bytes, not {0}")]
    Length(usize),
    /// The parameters and the code rate make no valid header.
    #[error("impossible header: {0}")]
    Header(#[from] crate::shred::ShredError),
}

/// One FEC set, cut and signed.
#[derive(Debug, Clone)]
pub struct ShreddedSet {
    /// The header that its shreds share.
    pub header: SetHeader,
    /// The Merkle root that is signed.
    pub root: merkle::Hash,
    /// All shreds, data first.
    pub shreds: Vec<Bytes>,
}

/// A message, cut and signed.
#[derive(Debug, Clone)]
pub struct ShreddedMessage {
    /// Its sets, in order.
    pub sets: Vec<ShreddedSet>,
}

impl ShreddedMessage {
    /// Set and shred index in the order of sending: the first shred of every set, then the second
    /// of every set, so that no set waits for the others; all sets' data, then all sets' coding.
    pub fn in_sending_order(&self) -> impl Iterator<Item = (&ShreddedSet, u8)> {
        // All sets have the same code rate.
        let shreds = self.sets.first().map_or(0, |set| set.shreds.len() as u8);
        (0..shreds).flat_map(|index| self.sets.iter().map(move |set| (set, index)))
    }
}

/// Cuts messages into shreds and signs them with one leader's ed25519 key.
///
/// ```
/// use ed25519_dalek::SigningKey;
/// use fragcast_shredder::{
///     CodeRate, Kind, LossTarget, MessageKey, MessageParams, Shredder, Timestamp,
/// };
///
/// let mut shredder = Shredder::new(901, SigningKey::from_bytes(&[9; 32]));
/// let wire = vec![7; 60_000];
/// let params = MessageParams {
///     key: MessageKey { block: 42, attempt: 0, message: 1 },
///     kind: Kind::Frag,
///     plan: 0,
///     route: 0,
///     route_param: 0,
///     sent_at: Timestamp::from_micros(1_700_000_000_000_000),
/// };
/// let rate = CodeRate::new(wire.len(), LossTarget::default());
/// let cut = shredder.shred(&wire, &params, rate)?;
/// assert_eq!(cut.sets.len(), usize::from(rate.sets));
/// assert!(cut.sets.iter().flat_map(|set| &set.shreds).all(|shred| shred.len() <= 1_152));
/// # Ok::<(), fragcast_shredder::shredder::ShredderError>(())
/// ```
pub struct Shredder {
    chain_id: u64,
    tag: ChainTag,
    key: SigningKey,
    codes: Codes,
}

impl std::fmt::Debug for Shredder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shredder").field("chain_id", &self.chain_id).finish_non_exhaustive()
    }
}

impl Shredder {
    /// A shredder for `chain_id` that signs with `key`. The key is wiped when it is dropped.
    pub fn new(chain_id: u64, key: SigningKey) -> Self {
        Self { chain_id, tag: ChainTag::new(chain_id), key, codes: Codes::default() }
    }

    /// The public key under which the shreds verify.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// Cuts `wire`, the signature and body of a message, into shreds.
    ///
    /// # Errors
    /// [`ShredderError`].
    pub fn shred(
        &mut self,
        wire: &[u8],
        params: &MessageParams,
        rate: CodeRate,
    ) -> Result<ShreddedMessage, ShredderError> {
        if wire.is_empty() || wire.len() > MAX_MESSAGE_LEN {
            return Err(ShredderError::Length(wire.len()));
        }
        let header = SetHeader {
            version: VERSION,
            kind: params.kind as u8,
            attempt: params.key.attempt,
            route: params.route,
            chain: self.tag,
            block: params.key.block,
            plan: params.plan,
            sent_at_micros: params.sent_at.as_micros(),
            message_len: wire.len() as u32,
            message: params.key.message,
            set: 0,
            sets: rate.sets,
            shard_len: rate.shard_len,
            k: rate.k,
            m: rate.m,
            route_param: params.route_param,
        };
        header.check()?;
        let set_len = usize::from(rate.k) * usize::from(rate.shard_len);
        let sets = wire
            .chunks(set_len)
            .zip(0u16..)
            .map(|(data, set)| self.cut(SetHeader { set, ..header }, data))
            .collect();
        Ok(ShreddedMessage { sets })
    }

    fn cut(&mut self, header: SetHeader, data: &[u8]) -> ShreddedSet {
        let (k, len) = (usize::from(header.k), header.shred_len());
        let range = shard_range(&header);
        // Zeroed: the padding of the last shard is part of the format.
        let mut buffer = BytesMut::zeroed(header.shards() * len);
        for (slot, shard) in buffer.chunks_exact_mut(len).zip(data.chunks(range.len())) {
            slot[range.start..range.start + shard.len()].copy_from_slice(shard);
        }

        let mut slots: Vec<&mut [u8]> =
            buffer.chunks_exact_mut(len).map(|slot| &mut slot[range.clone()]).collect();
        let (data, coding) = slots.split_at_mut(k);
        let data: Vec<&[u8]> = data.iter().map(|shard| &**shard).collect();
        self.codes.encode(&data, coding).expect("the header was checked");

        let mut leaves = Vec::new();
        let shards: Vec<&[u8]> = slots.iter().map(|shard| &**shard).collect();
        merkle::leaves(&shards, &mut leaves);
        let tree = merkle::Tree::new(&leaves);
        let root = tree.root();
        let signature = self.key.sign(&header.digest(self.chain_id, &root)).to_bytes();
        for (slot, index) in buffer.chunks_exact_mut(len).zip(0u8..) {
            write_frame(slot, &header, index, tree.path(index.into()), &signature);
        }
        let buffer = buffer.freeze();
        let shreds = (0..header.shards()).map(|i| buffer.slice(i * len..(i + 1) * len)).collect();
        ShreddedSet { header, root, shreds }
    }
}

const _: () = assert!(HEADER_LEN == 48 && SIGNATURE_LEN == 64);
