//! The answer of a node that has a message from gossip: the message itself, in parts.
//!
//! ```text
//! nonce u64 │ kind u8 │ total u32 │ offset u32 │ list of bytes                  at most 8 KiB
//! ```
//!
//! A message from gossip has no shreds, because gossip does not carry the leader's signature over
//! them. The message's own signature is enough for a peer that asked, and too late for a relay,
//! which has to check each shred by itself. So parts are an answer, and never a way to spread a
//! message.

use bytes::Bytes;
use fragcast_shredder::codec::DecodeError;
use fragcast_shredder::{Kind, MAX_MESSAGE_LEN};

/// Bytes of each part but the last: a frame stays under 10 kB, like one of shreds.
pub const PART_LEN: usize = 8 * 1024;
/// Parts of one answer: 160 KiB, a frag of usual size.
pub const MAX_ANSWER_PARTS: usize = 20;

/// A part of a message that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagePart {
    /// The request's.
    pub nonce: u64,
    /// The kind of message.
    pub kind: Kind,
    /// Bytes of the message, signature ‖ body; 1 to [`MAX_MESSAGE_LEN`].
    pub total: u32,
    /// The part's offset, a multiple of [`PART_LEN`].
    pub offset: u32,
    /// The part's bytes: [`PART_LEN`], or the rest.
    pub bytes: Bytes,
}

impl MessagePart {
    const FIXED: usize = 8 + 1 + 4 + 4 + 8;

    /// Part `index` of a message, if it exists.
    pub fn of(nonce: u64, kind: Kind, wire: &Bytes, index: usize) -> Option<Self> {
        let total = u32::try_from(wire.len()).ok()?;
        let start = index.checked_mul(PART_LEN).filter(|start| *start < wire.len())?;
        let bytes = wire.slice(start..wire.len().min(start + PART_LEN));
        Some(Self { nonce, kind, total, offset: start as u32, bytes })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(Self::FIXED + self.bytes.len());
        body.extend_from_slice(&self.nonce.to_le_bytes());
        body.push(self.kind as u8);
        body.extend_from_slice(&self.total.to_le_bytes());
        body.extend_from_slice(&self.offset.to_le_bytes());
        body.extend_from_slice(&(self.bytes.len() as u64).to_le_bytes());
        body.extend_from_slice(&self.bytes);
        body
    }

    /// Takes exactly the part that belongs at its offset.
    pub(super) fn from_bytes(body: &[u8]) -> Result<Self, DecodeError> {
        let malformed = DecodeError::Malformed;
        let (fixed, bytes) = body.split_first_chunk::<{ Self::FIXED }>().ok_or(malformed)?;
        let (nonce, rest) = fixed.split_first_chunk::<8>().ok_or(malformed)?;
        let (kind, rest) = rest.split_first().ok_or(malformed)?;
        let (total, rest) = rest.split_first_chunk::<4>().ok_or(malformed)?;
        let (offset, len) = rest.split_first_chunk::<4>().ok_or(malformed)?;
        let len = u64::from_le_bytes(len.try_into().map_err(|_| malformed)?);
        let (total, offset) = (u32::from_le_bytes(*total), u32::from_le_bytes(*offset));
        let due = total.checked_sub(offset).ok_or(malformed)?.min(PART_LEN as u32);
        let fits = total as usize <= MAX_MESSAGE_LEN
            && (offset as usize).is_multiple_of(PART_LEN)
            && due > 0;
        if !fits || len != u64::from(due) || bytes.len() < due as usize {
            return Err(malformed);
        }
        if bytes.len() > due as usize {
            return Err(DecodeError::Trailing(bytes.len() - due as usize));
        }
        Ok(Self {
            nonce: u64::from_le_bytes(*nonce),
            kind: Kind::from_byte(*kind).ok_or(malformed)?,
            total,
            offset,
            bytes: Bytes::copy_from_slice(bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Control, MAX_CONTROL_LEN};
    use alloy_primitives::hex;

    fn decode(part: &MessagePart) -> Result<Control, crate::control::ControlError> {
        Control::from_bytes(&Control::MessagePart(part.clone()).to_bytes())
    }

    #[test]
    fn the_frame_is_pinned() {
        let bytes = Bytes::from_static(&[7, 8, 9]);
        let part = MessagePart { nonce: 9, kind: Kind::Seal, total: 0x2003, offset: 0x2000, bytes };
        let frame = Control::MessagePart(part.clone()).to_bytes();
        let pinned = "08 0900000000000000 02 03200000 00200000 0300000000000000 070809";
        assert_eq!(hex::encode(&frame), pinned.replace(' ', ""));
        assert_eq!(decode(&part), Ok(Control::MessagePart(part)));
        for end in 0..frame.len() {
            assert!(Control::from_bytes(&frame[..end]).is_err(), "{end}");
        }
        assert!(Control::from_bytes(&[&frame[..], &[0]].concat()).is_err());
    }

    #[test]
    fn the_parts_of_a_message_are_the_message() {
        for len in [1, PART_LEN - 1, PART_LEN, PART_LEN + 1, 100_000] {
            let wire = Bytes::from((0..len).map(|i| i as u8).collect::<Vec<u8>>());
            let parts: Vec<MessagePart> =
                (0..).map_while(|n| MessagePart::of(1, Kind::Frag, &wire, n)).collect();
            assert_eq!(parts.len(), len.div_ceil(PART_LEN));
            for part in &parts {
                assert_eq!(decode(part), Ok(Control::MessagePart(part.clone())));
                let frame = Control::MessagePart(part.clone()).to_bytes();
                assert!(frame.len() < 10_000 && frame.len() < MAX_CONTROL_LEN);
            }
            assert_eq!(parts.iter().map(|p| p.bytes.clone()).collect::<Vec<_>>().concat(), wire);
        }
        assert_eq!(MessagePart::of(1, Kind::Frag, &Bytes::new(), 0), None);
        assert_eq!(MessagePart::of(1, Kind::Frag, &Bytes::from_static(&[1]), usize::MAX), None);
    }

    #[test]
    fn only_the_part_that_belongs_there_is_taken() {
        let part = |total: usize, offset: usize, len: usize| MessagePart {
            nonce: 1,
            kind: Kind::Frag,
            total: total as u32,
            offset: offset as u32,
            bytes: vec![1; len].into(),
        };
        let last = MAX_MESSAGE_LEN - PART_LEN;
        assert!(decode(&part(MAX_MESSAGE_LEN, last, PART_LEN)).is_ok());
        for (what, bad) in [
            ("too long a message", part(MAX_MESSAGE_LEN + 1, 0, PART_LEN)),
            ("the longest", part(u32::MAX as usize, 0, PART_LEN)),
            ("none", part(0, 0, 0)),
            ("between two parts", part(20_000, 1, PART_LEN)),
            ("behind the end", part(PART_LEN, PART_LEN, 0)),
            ("far behind the end", part(20_000, u32::MAX as usize / PART_LEN * PART_LEN, 1)),
            ("too short", part(20_000, 0, PART_LEN - 1)),
            ("too long", part(20_000, 0, PART_LEN + 1)),
            ("last too short", part(20_000, 2 * PART_LEN, 20_000 - 2 * PART_LEN - 1)),
            ("last too long", part(20_000, 2 * PART_LEN, PART_LEN)),
        ] {
            assert!(decode(&bad).is_err(), "{what}");
        }
        let mut kind = Control::MessagePart(part(5, 0, 5)).to_bytes().to_vec();
        kind[9] = 3;
        assert!(Control::from_bytes(&kind).is_err(), "a kind that there is not");
        let mut claims = Control::MessagePart(part(5, 0, 5)).to_bytes().to_vec();
        claims[18..26].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Control::from_bytes(&claims).is_err(), "a list that claims what is not there");
    }
}
