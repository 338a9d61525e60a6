//! The control frame of receipts: what came of some sets of a block, and by whom.
//!
//! ```text
//! block u64 │ attempt u8 │ list, at most 8, of: message u16 │ set u16 │ came u64 │ timed u8 │ after i32
//! ```

use fragcast_shredder::codec::{self, DecodeError};

/// Sets of one receipt.
pub const MAX_RECEIPT_SETS: usize = 8;
/// What [`SetReceipt::timed`] is if nothing was timed.
pub const UNTIMED: u8 = u8::MAX;
/// Microseconds of a unit of [`SetReceipt::after`].
pub const AFTER_MICROS: i64 = 100;

/// What came of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct SetReceipt {
    /// Message index.
    pub message: u16,
    /// The set of the message.
    pub set: u16,
    /// Bit i: shred i came, from the peer that the tree names for it.
    pub came: u64,
    /// A shred that came and was timed; [`UNTIMED`] if none was.
    pub timed: u8,
    /// When that one came, by the receiver's clock, after the time of sending in its header: in
    /// units of [`AFTER_MICROS`].
    pub after: i32,
}

/// What came of some sets of a block, of the receiver's choice.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Receipt {
    /// Block number.
    pub block: u64,
    /// Attempt, 0 to 7.
    pub attempt: u8,
    /// At most [`MAX_RECEIPT_SETS`], each once.
    pub sets: Vec<SetReceipt>,
}

impl Receipt {
    const MAX_LEN: usize = 64 + MAX_RECEIPT_SETS * 64;

    pub(super) fn from_bytes(body: &[u8]) -> Result<Self, DecodeError> {
        let receipt: Self = codec::decode_exact::<_, { Self::MAX_LEN }>(body)?;
        let sets = &receipt.sets;
        let place = |set: &SetReceipt| (set.message, set.set);
        let rising = sets.windows(2).all(|pair| place(&pair[0]) < place(&pair[1]));
        let timed = |set: &SetReceipt| {
            set.timed == UNTIMED || (set.timed < 64 && set.came >> set.timed & 1 == 1)
        };
        match sets.len() <= MAX_RECEIPT_SETS && rising && sets.iter().all(timed) {
            true => Ok(receipt),
            false => Err(DecodeError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::hex;

    use super::*;
    use crate::control::Control;

    fn set(message: u16, set: u16) -> SetReceipt {
        SetReceipt { message, set, came: 0b1101, timed: 2, after: -2 }
    }

    #[test]
    fn the_frame_is_pinned_and_bounded() {
        let of = |sets| Control::Receipt(Receipt { block: 7, attempt: 1, sets });
        let receipt = of(vec![set(3, 0), SetReceipt { timed: UNTIMED, after: 0, ..set(3, 1) }]);
        let bytes = receipt.to_bytes();
        assert_eq!(
            hex::encode(&bytes),
            "10070000000000000001020000000000000003000000\
             0d0000000000000002feffffff030001000d00000000000000ff00000000"
        );
        assert_eq!(Control::from_bytes(&bytes), Ok(receipt));
        assert!(Control::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(Control::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        let valid = |sets| Control::from_bytes(&of(sets).to_bytes()).is_ok();
        assert!(valid(vec![]) && valid((0..8).map(|i| set(0, i)).collect()));
        assert!(!valid((0..9).map(|i| set(0, i)).collect()), "too many");
        assert!(!valid(vec![set(3, 1), set(3, 1)]) && !valid(vec![set(3, 1), set(2, 9)]));
        assert!(!valid(vec![SetReceipt { timed: 1, ..set(0, 0) }]), "timed and missing");
        assert!(!valid(vec![SetReceipt { timed: 64, ..set(0, 0) }]));
        // A list that claims what is not there allocates nothing.
        let mut claims = bytes.to_vec();
        claims[10..18].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Control::from_bytes(&claims).is_err());
    }
}
