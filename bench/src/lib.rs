//! Messages, shreds and losses for the benchmarks, all from fixed seeds.
#![forbid(unsafe_code)]

use bytes::Bytes;
use ed25519_dalek::{SigningKey, VerifyingKey};
use fragcast_shredder::{
    CodeRate, HashedShred, Kind, MessageKey, MessageParams, Shred, ShreddedMessage, Shredder,
    Timestamp, ValidatedShred, Validator,
};

/// Chain id of the benchmarks.
pub const CHAIN: u64 = 1;

/// A message of `len` bytes without a pattern.
pub fn payload(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(len)
    .collect()
}

/// The leader's shredder.
pub fn shredder() -> Shredder {
    Shredder::new(CHAIN, SigningKey::from_bytes(&[7; 32]))
}

/// The leader's public key.
pub fn key() -> VerifyingKey {
    SigningKey::from_bytes(&[7; 32]).verifying_key()
}

/// Parameters of a frag.
pub const fn params() -> MessageParams {
    MessageParams {
        key: MessageKey { block: 1, attempt: 0, message: 1 },
        kind: Kind::Frag,
        plan: 0,
        route: 0,
        route_param: 0,
        sent_at: Timestamp::from_nanos(0),
    }
}

/// The code rate of k data and m coding shards of 832 bytes for a message of `len` bytes.
pub fn rate(len: usize, k: u8, m: u8) -> CodeRate {
    let shard_len = fragcast_shredder::rate::MAX_SHARD_LEN;
    let sets = len.div_ceil(usize::from(k) * shard_len);
    CodeRate { sets: sets as u16, k, m, shard_len: shard_len as u16 }
}

/// The shreds that are left after random losses from a fixed generator: k of each set.
pub fn half(message: &ShreddedMessage) -> Vec<Bytes> {
    let mut state = 99u64;
    let mut kept = Vec::new();
    for set in &message.sets {
        let mut order: Vec<usize> = (0..set.shreds.len()).collect();
        for i in (1..order.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            order.swap(i, (state >> 33) as usize % (i + 1));
        }
        let stay = order.into_iter().take(usize::from(set.header.k));
        kept.extend(stay.map(|i| set.shreds[i].clone()));
    }
    kept
}

/// Parses, hashes and validates shreds in bursts, as a node does with received datagrams.
pub fn validate(shreds: &[Bytes]) -> Vec<ValidatedShred> {
    let mut validator = Validator::new(CHAIN, Validator::DEFAULT_CAPACITY);
    let key = key();
    let mut out = Vec::with_capacity(shreds.len());
    for burst in shreds.chunks(64) {
        let parsed = burst.iter().map(|bytes| Shred::parse(bytes.clone()).expect("ours")).collect();
        for hashed in HashedShred::batch(parsed) {
            out.push(validator.validate(hashed, &key).expect("ours"));
        }
    }
    out
}
