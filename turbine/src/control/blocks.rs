//! Control frames of catching up: a node asks a peer for blocks that it missed, as messages with
//! their gateways' signatures.
//!
//! ```text
//! Request nonce u64 │ block u64 │ message u16 │ have u32 │ last u64
//! Part    nonce u64 │ block u64 │ attempt u8 │ message u16 │ kind u8 │ total u32 │ offset u32
//!         │ list of bytes                                                        at most 8 KiB
//! End     nonce u64 │ first u64 │ last u64
//! ```
//!
//! The answer to a request is parts in rising order of block, message and offset, at most
//! [`MAX_PARTS`] of them, and an end. The end says which blocks the sender keeps whole, so one
//! question is enough to learn that it cannot help.

use bytes::Bytes;
use fragcast_shredder::codec::{self, DecodeError};
use fragcast_shredder::{Kind, MAX_MESSAGE_LEN, MessageKey};

/// Bytes of each part but a message's last: a frame stays under 10 kB.
pub const BLOCK_PART_LEN: usize = 8 * 1024;
/// Parts of one answer: a megabyte at most, and a quarter of what a stream's queue holds.
pub const MAX_PARTS: usize = 128;

/// Asks for the messages of whole blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct BlocksRequest {
    /// The answer carries it; of the asker's choice.
    pub nonce: u64,
    /// The first block.
    pub block: u64,
    /// The first message of it.
    pub message: u16,
    /// Bytes of that message that the asker has already, from the sender's last answer.
    pub have: u32,
    /// The last block.
    pub last: u64,
}

impl BlocksRequest {
    pub(super) fn from_bytes(body: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_exact::<_, 64>(body)
    }
}

/// The end of an answer; with [`GREETING`](Self::GREETING) for a nonce, a greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct BlocksEnd {
    /// The request's.
    pub nonce: u64,
    /// The lowest block that the sender keeps whole.
    pub first: u64,
    /// The highest. It keeps none if that is lower.
    pub last: u64,
}

impl BlocksEnd {
    /// The nonce of what is told unasked, when a connection is up. No request has it.
    pub const GREETING: u64 = 0;

    pub(super) fn from_bytes(body: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_exact::<_, 64>(body)
    }
}

/// A part of a message of a block that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockPart {
    /// The request's.
    pub nonce: u64,
    /// Block, attempt and index. The attempt is the sender's word.
    pub key: MessageKey,
    /// The kind of message.
    pub kind: Kind,
    /// Bytes of the message, signature ‖ body; 1 to [`MAX_MESSAGE_LEN`].
    pub total: u32,
    /// The part's offset.
    pub offset: u32,
    /// The part's bytes: [`BLOCK_PART_LEN`], or the rest.
    pub bytes: Bytes,
}

impl BlockPart {
    const FIXED: usize = 8 + 8 + 1 + 2 + 1 + 4 + 4 + 8;

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(Self::FIXED + self.bytes.len());
        body.extend_from_slice(&self.nonce.to_le_bytes());
        body.extend_from_slice(&self.key.block.to_le_bytes());
        body.push(self.key.attempt);
        body.extend_from_slice(&self.key.message.to_le_bytes());
        body.push(self.kind as u8);
        body.extend_from_slice(&self.total.to_le_bytes());
        body.extend_from_slice(&self.offset.to_le_bytes());
        body.extend_from_slice(&(self.bytes.len() as u64).to_le_bytes());
        body.extend_from_slice(&self.bytes);
        body
    }

    /// Takes a part that fits into its message, and none that is longer than it may be.
    pub(super) fn from_bytes(body: &[u8]) -> Result<Self, DecodeError> {
        let malformed = DecodeError::Malformed;
        let (fixed, bytes) = body.split_first_chunk::<{ Self::FIXED }>().ok_or(malformed)?;
        let word = |at: usize| fixed[at..].first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
        let half = |at: usize| fixed[at..].first_chunk::<4>().map(|b| u32::from_le_bytes(*b));
        let nonce = word(0).ok_or(malformed)?;
        let block = word(8).ok_or(malformed)?;
        let message = u16::from_le_bytes([fixed[17], fixed[18]]);
        let key = MessageKey { block, attempt: fixed[16], message };
        let kind = Kind::from_byte(fixed[19]).ok_or(malformed)?;
        let total = half(20).ok_or(malformed)?;
        let offset = half(24).ok_or(malformed)?;
        let len = word(28).ok_or(malformed)?;
        let due = total.checked_sub(offset).ok_or(malformed)?.min(BLOCK_PART_LEN as u32);
        let fits = total as usize <= MAX_MESSAGE_LEN
            && (offset as usize).is_multiple_of(BLOCK_PART_LEN)
            && due > 0;
        if !fits || len != u64::from(due) || bytes.len() < due as usize {
            return Err(malformed);
        }
        if bytes.len() > due as usize {
            return Err(DecodeError::Trailing(bytes.len() - due as usize));
        }
        Ok(Self { nonce, key, kind, total, offset, bytes: Bytes::copy_from_slice(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Control, MAX_CONTROL_LEN};
    use alloy_primitives::hex;

    fn pinned(control: &Control, bytes: &str) {
        let frame = control.to_bytes();
        assert_eq!(hex::encode(&frame), bytes.replace(' ', ""));
        assert_eq!(Control::from_bytes(&frame).as_ref(), Ok(control));
        for end in 0..frame.len() {
            assert!(Control::from_bytes(&frame[..end]).is_err(), "{end}");
        }
        assert!(Control::from_bytes(&[&frame[..], &[0]].concat()).is_err());
    }

    fn part(total: usize, offset: usize, len: usize) -> Control {
        Control::BlockPart(BlockPart {
            nonce: 9,
            key: MessageKey { block: 7, attempt: 1, message: 3 },
            kind: Kind::Frag,
            total: total as u32,
            offset: offset as u32,
            bytes: vec![5; len].into(),
        })
    }

    #[test]
    fn the_frames_are_pinned() {
        let request = BlocksRequest { nonce: 9, block: 7, message: 3, have: 0x2000, last: 8 };
        pinned(
            &Control::BlocksRequest(request),
            "09 0900000000000000 0700000000000000 0300 00200000 0800000000000000",
        );
        pinned(
            &part(0x2003, 0x2000, 3),
            "0a 0900000000000000 0700000000000000 01 0300 01 03200000 00200000 0300000000000000 \
             050505",
        );
        let end = BlocksEnd { nonce: 9, first: 7, last: 8 };
        pinned(&Control::BlocksEnd(end), "0c 0900000000000000 0700000000000000 0800000000000000");
    }

    #[test]
    fn only_a_part_that_fits_its_message_is_taken() {
        let taken = |part: &Control| Control::from_bytes(&part.to_bytes()).is_ok();
        let last = MAX_MESSAGE_LEN - BLOCK_PART_LEN;
        assert!(taken(&part(MAX_MESSAGE_LEN, last, BLOCK_PART_LEN)));
        assert!(part(MAX_MESSAGE_LEN, 0, BLOCK_PART_LEN).to_bytes().len() < MAX_CONTROL_LEN);
        for (what, bad) in [
            ("too long a message", part(MAX_MESSAGE_LEN + 1, 0, BLOCK_PART_LEN)),
            ("none", part(0, 0, 0)),
            ("behind the end", part(10, BLOCK_PART_LEN, 1)),
            ("nothing at the end", part(BLOCK_PART_LEN, BLOCK_PART_LEN, 0)),
            ("between two parts", part(20_000, 1, BLOCK_PART_LEN)),
            ("a short part", part(20_000, 0, 10)),
        ] {
            assert!(!taken(&bad), "{what}");
        }
        // One that claims a length which is not there allocates nothing.
        let mut claims = part(10, 0, 10).to_bytes().to_vec();
        claims[29..37].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Control::from_bytes(&claims).is_err());
    }
}
