//! The messages that an emulation sends: a leader's blocks, the same for real nodes and for the
//! model.

use std::time::Duration;

use fragcast_shredder::{BlockBuilder, MAX_MESSAGE_LEN, Message, MessageKey};
use fragcast_turbine::schedule::BLOCKS_PER_TERM;
use rand::RngCore;

use crate::load::{Broadcast, Load};
use crate::random;
use crate::{Nanos, NodeId};

/// Bytes of a transaction, about those of a transfer.
const TRANSACTION: usize = 150;
/// Bytes of the signature and of a frag without transactions.
const FRAG_FRAME: usize = 65 + 21;
/// Bytes of the smallest frag.
const MIN_FRAG: u32 = 200;
/// The most frags of a block.
const MAX_FRAGS: u32 = 60_000;

/// Why traffic cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrafficError {
    /// A frag cannot have this many bytes.
    #[error("frags of {0} bytes: use {MIN_FRAG} to {MAX_MESSAGE_LEN}")]
    FragBytes(u32),
    /// There is no block, or it has too many frags.
    #[error("use at least 1 block, of at most {MAX_FRAGS} frags")]
    Blocks,
}

/// Consecutive blocks, with a message every `interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Number of blocks. They are numbered from 1; each has an Env, its frags and a Seal.
    pub blocks: u32,
    /// Frags of a block.
    pub frags: u32,
    /// Bytes of a frag with its signature, at least 200.
    pub bytes: u32,
    /// Time between two messages.
    pub interval: Duration,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { blocks: 5, frags: 8, bytes: 16_000, interval: Duration::from_millis(200) }
    }
}

/// A message and the time at which it is posted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Post {
    pub(super) at: Nanos,
    pub(super) key: MessageKey,
    pub(super) message: Message,
}

impl Traffic {
    /// All messages. They depend only on the seed.
    pub(super) fn posts(&self, seed: u64) -> Result<Vec<Post>, TrafficError> {
        let Self { blocks, frags, bytes, interval } = *self;
        if !(MIN_FRAG as usize..=MAX_MESSAGE_LEN).contains(&(bytes as usize)) {
            return Err(TrafficError::FragBytes(bytes));
        }
        if blocks == 0 || frags > MAX_FRAGS {
            return Err(TrafficError::Blocks);
        }
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(Nanos::MAX);
        let mut posts = Vec::new();
        for block in 1..=u64::from(blocks) {
            let content = (0..u64::from(frags)).map(|seq| transactions(block, seq, bytes, seed));
            let messages = BlockBuilder::new(block).messages(content);
            for (index, message) in messages.into_iter().enumerate() {
                let at = interval.saturating_mul(posts.len() as u64);
                let key = MessageKey { block, attempt: 0, message: index as u16 };
                posts.push(Post { at, key, message });
            }
        }
        Ok(posts)
    }

    /// The load of the same messages for a run in virtual time.
    pub(super) fn load(&self, seed: u64, leader: NodeId) -> Result<Load, TrafficError> {
        let broadcast = |post: Post| Broadcast {
            at: post.at,
            leader,
            key: post.key,
            kind: post.message.kind(),
            bytes: size(&post.message) as u32,
            expected: true,
            equivocal: false,
        };
        Ok(Load {
            broadcasts: self.posts(seed)?.into_iter().map(broadcast).collect(),
            leaders: vec![leader],
            blocks_per_term: BLOCKS_PER_TERM,
            registration: None,
            substitutes: 0,
            tables: Vec::new(),
        })
    }
}

/// Length of signature ‖ body.
pub(super) fn size(message: &Message) -> usize {
    let mut wire = vec![0; 65];
    message.encode_body(&mut wire);
    wire.len()
}

/// Transactions that make a frag of exactly `bytes`, signature included. They are random bytes,
/// which nodes that execute nothing do not examine.
fn transactions(block: u64, seq: u64, bytes: u32, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = random::stream(seed, "emulate frag", block << 16 | seq);
    let mut left = (bytes as usize).saturating_sub(FRAG_FRAME);
    let mut txs = Vec::new();
    // Each needs four bytes for its offset; the last one fills the rest.
    while left > 4 {
        let len = if left < 2 * (TRANSACTION + 4) { left - 4 } else { TRANSACTION };
        let mut tx = vec![0; len];
        rng.fill_bytes(&mut tx);
        txs.push(tx);
        left -= len + 4;
    }
    txs
}

#[cfg(test)]
mod tests {
    use fragcast_shredder::{Dialect, GatewayKey, Kind, SignedMessage};

    use super::*;

    const TRAFFIC: Traffic =
        Traffic { blocks: 2, frags: 3, bytes: 1_000, interval: Duration::from_millis(50) };

    #[test]
    fn messages_come_in_the_order_that_a_leader_takes_them_and_have_their_size() {
        for bytes in [200, 201, 333, 394, 395, 396, 8_000, 36_000] {
            let traffic = Traffic { bytes, ..TRAFFIC };
            let posts = traffic.posts(7).unwrap();
            let kinds: Vec<Kind> = posts.iter().map(|post| post.message.kind()).collect();
            let block = [Kind::Env, Kind::Frag, Kind::Frag, Kind::Frag, Kind::Seal];
            assert_eq!(kinds, block.repeat(2));
            let gateway = GatewayKey::from_bytes([7; 32]).unwrap();
            for (i, post) in posts.iter().enumerate() {
                assert_eq!(post.at, i as u64 * 50_000_000);
                assert_eq!(post.message.index(), Some(post.key.message));
                assert_eq!(post.message.block(), post.key.block);
                let wire = gateway.sign(post.message.clone()).to_wire();
                assert_eq!(wire.len(), size(&post.message));
                if post.message.kind() == Kind::Frag {
                    assert_eq!(wire.len(), bytes as usize);
                }
                let kind = post.message.kind();
                let read = SignedMessage::from_wire(kind, Dialect::V0, &wire.into()).unwrap();
                assert_eq!(read.message, post.message, "every node can read it");
            }
            assert_eq!(posts, traffic.posts(7).unwrap());
            assert_ne!(posts, traffic.posts(8).unwrap());
        }
    }

    #[test]
    fn the_model_gets_the_same_messages() {
        let load = TRAFFIC.load(7, 3).unwrap();
        let posts = TRAFFIC.posts(7).unwrap();
        assert_eq!(load.broadcasts.len(), posts.len());
        for (broadcast, post) in load.broadcasts.iter().zip(&posts) {
            assert_eq!((broadcast.at, broadcast.key, broadcast.leader), (post.at, post.key, 3));
            assert_eq!(broadcast.bytes as usize, size(&post.message));
            assert!(broadcast.expected && !broadcast.equivocal);
        }
        assert_eq!((load.leader(1), load.leader(2)), (3, 3));
    }

    #[test]
    fn traffic_that_cannot_be_sent_says_what_can() {
        for (traffic, part) in [
            (Traffic { bytes: 199, ..TRAFFIC }, "200 to"),
            (Traffic { bytes: 20_000_000, ..TRAFFIC }, "200 to"),
            (Traffic { blocks: 0, ..TRAFFIC }, "at least 1 block"),
            (Traffic { frags: 60_001, ..TRAFFIC }, "60000"),
        ] {
            let error = traffic.posts(1).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
