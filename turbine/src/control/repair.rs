//! Control frames of repair: what a node has, what one lacks, and the answer.
//!
//! ```text
//! Tips    list of { block u64 │ attempt u8 │ row u16 │ above u64 }               at most 8
//! Request nonce u64 │ block u64 │ attempt u8 │ message u16 │ set u16 │ have u64
//! Shreds  nonce u64 │ list of shreds, each a list of bytes                       at most 8
//! ```
//!
//! A request is for one set, and its answer a few frames of eight shreds, so that no frame
//! holds up the others on its stream for long: eight shreds are under 10 kB.

use bytes::Bytes;
use fragcast_shredder::MessageKey;
use fragcast_shredder::codec::{self, DecodeError};
use fragcast_shredder::shred::MAX_SHRED_LEN;

/// Blocks in one frame of tips.
pub const MAX_TIPS: usize = 8;
/// Shreds of one frame of an answer.
pub const MAX_ANSWER_SHREDS: usize = 8;
/// The set number that asks for a whole message of which nothing is known. No set has it: a
/// message has at most 65,535 of them.
pub const WHOLE: u16 = u16::MAX;

/// The messages of one block and attempt that the sender has whole and can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Tip {
    /// Block number.
    pub block: u64,
    /// Attempt, 0 to 7.
    pub attempt: u8,
    /// It has the messages 0 to row − 1.
    pub row: u16,
    /// Bit i: it has message row + 1 + i. (It lacks message row.)
    pub above: u64,
}

impl Tip {
    /// One more than the highest message that the sender has.
    pub const fn end(&self) -> u32 {
        match self.above {
            0 => self.row as u32,
            above => self.row as u32 + 1 + (64 - above.leading_zeros()),
        }
    }

    /// Whether the sender has a message.
    pub fn has(&self, message: u16) -> bool {
        let above = u32::from(message).checked_sub(u32::from(self.row) + 1);
        message < self.row || above.is_some_and(|bit| bit < 64 && self.above >> bit & 1 == 1)
    }
}

/// Tips, the newest block first.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Tips {
    /// At most [`MAX_TIPS`].
    pub tips: Vec<Tip>,
}

impl Tips {
    const MAX_LEN: usize = 8 + MAX_TIPS * 64;

    pub(super) fn from_bytes(body: &[u8]) -> Result<Self, DecodeError> {
        let tips: Self = codec::decode_exact::<_, { Self::MAX_LEN }>(body)?;
        if tips.tips.len() > MAX_TIPS { Err(DecodeError::Malformed) } else { Ok(tips) }
    }
}

/// Asks for what a set lacks, or for a message of which nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct RepairRequest {
    /// The answer carries it; of the asker's choice.
    pub nonce: u64,
    /// Block number.
    pub block: u64,
    /// Attempt, 0 to 7.
    pub attempt: u8,
    /// Message index.
    pub message: u16,
    /// The set, or [`WHOLE`].
    pub set: u16,
    /// One bit for each shred of the set that the asker has.
    pub have: u64,
}

impl RepairRequest {
    const MAX_LEN: usize = 64;

    /// The message that is asked for.
    pub const fn key(&self) -> MessageKey {
        MessageKey { block: self.block, attempt: self.attempt, message: self.message }
    }

    pub(super) fn from_bytes(body: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_exact::<_, { Self::MAX_LEN }>(body)
    }
}

/// Shreds that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairShreds {
    /// The request's.
    pub nonce: u64,
    /// At most [`MAX_ANSWER_SHREDS`], as they travel by themselves.
    pub shreds: Vec<Bytes>,
}

impl RepairShreds {
    const MAX_LEN: usize = 16 + MAX_ANSWER_SHREDS * (32 + MAX_SHRED_LEN);

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let len = self.shreds.iter().map(|shred| 8 + shred.len()).sum::<usize>();
        let mut body = Vec::with_capacity(16 + len);
        body.extend_from_slice(&self.nonce.to_le_bytes());
        body.extend_from_slice(&(self.shreds.len() as u64).to_le_bytes());
        for shred in &self.shreds {
            body.extend_from_slice(&(shred.len() as u64).to_le_bytes());
            body.extend_from_slice(shred);
        }
        body
    }

    pub(super) fn from_bytes(body: &[u8]) -> Result<Self, DecodeError> {
        // The limit of the codec counts a list before it is allocated.
        let (nonce, shreds): (u64, Vec<Vec<u8>>) =
            codec::decode_exact::<_, { Self::MAX_LEN }>(body)?;
        let longest = shreds.iter().map(Vec::len).max().unwrap_or(0);
        if shreds.len() > MAX_ANSWER_SHREDS || longest > MAX_SHRED_LEN {
            return Err(DecodeError::Malformed);
        }
        Ok(Self { nonce, shreds: shreds.into_iter().map(Bytes::from).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Control;
    use alloy_primitives::hex;

    fn pinned(control: &Control, bytes: &str) {
        assert_eq!(hex::encode(control.to_bytes()), bytes.replace(' ', ""));
        assert_eq!(Control::from_bytes(&control.to_bytes()).as_ref(), Ok(control));
        let longer = [&control.to_bytes()[..], &[0]].concat();
        assert!(Control::from_bytes(&longer).is_err());
        let shorter = &control.to_bytes()[..control.to_bytes().len() - 1];
        assert!(Control::from_bytes(shorter).is_err());
    }

    #[test]
    fn the_frames_are_pinned() {
        let tip = Tip { block: 0x0807_0605_0403_0201, attempt: 3, row: 0x0102, above: 5 };
        let tips = Control::Tips(Tips { tips: vec![tip] });
        pinned(&tips, "04 0100000000000000 0102030405060708 03 0201 0500000000000000");
        let request = RepairRequest {
            nonce: 9,
            block: 0x0807_0605_0403_0201,
            attempt: 1,
            message: 0x0102,
            set: WHOLE,
            have: 6,
        };
        pinned(
            &Control::RepairRequest(request),
            "05 0900000000000000 0102030405060708 01 0201 ffff 0600000000000000",
        );
        let shreds = vec![Bytes::from_static(&[1, 2, 3]), Bytes::from_static(&[4])];
        pinned(
            &Control::RepairShreds(RepairShreds { nonce: 9, shreds }),
            "06 0900000000000000 0200000000000000 0300000000000000010203 010000000000000004",
        );
    }

    #[test]
    fn a_tip_tells_what_it_has() {
        let tip = Tip { block: 1, attempt: 0, row: 3, above: 0b101 };
        let has: Vec<u16> = (0..70).filter(|i| tip.has(*i)).collect();
        assert_eq!((has, tip.end()), (vec![0, 1, 2, 4, 6], 7));
        let none = Tip { row: 0, above: 0, ..tip };
        assert_eq!((none.end(), none.has(0)), (0, false));
        let last = Tip { row: u16::MAX, above: u64::MAX, ..tip };
        assert!(last.has(u16::MAX - 1) && !last.has(u16::MAX));
    }

    #[test]
    fn the_largest_answer_fits_and_a_larger_one_is_refused() {
        let answer = |count, len| {
            let shreds = vec![Bytes::from(vec![1; len]); count];
            Control::RepairShreds(RepairShreds { nonce: 1, shreds }).to_bytes()
        };
        let largest = answer(MAX_ANSWER_SHREDS, MAX_SHRED_LEN);
        assert!(largest.len() < 10_000 && largest.len() < crate::control::MAX_CONTROL_LEN);
        assert!(Control::from_bytes(&largest).is_ok());
        assert!(Control::from_bytes(&answer(MAX_ANSWER_SHREDS + 1, 10)).is_err());
        assert!(Control::from_bytes(&answer(1, MAX_SHRED_LEN + 1)).is_err());
        // A list that claims what is not there allocates nothing.
        let mut claims = answer(1, 10).to_vec();
        claims[9..17].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Control::from_bytes(&claims).is_err());
        let tip = Tip { block: 1, attempt: 0, row: 3, above: 0 };
        let tips = |count| Control::Tips(Tips { tips: vec![tip; count] }).to_bytes();
        assert!(Control::from_bytes(&tips(MAX_TIPS)).is_ok());
        assert!(Control::from_bytes(&tips(MAX_TIPS + 1)).is_err());
    }
}
