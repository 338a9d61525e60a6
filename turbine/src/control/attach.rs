//! The control frames between a guest and the members that it takes messages from.

use fragcast_shredder::codec::{self, DecodeError};

/// What a guest wants of a member, or is granted: nothing, tips of what there is to ask for, or
/// tips and the shreds of all sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Share {
    /// Nothing any more.
    #[default]
    Nothing,
    /// Tips.
    Tips,
    /// Tips, and of each set as many shreds as make it whole.
    All,
}

impl Share {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Nothing),
            1 => Some(Self::Tips),
            2 => Some(Self::All),
            _ => None,
        }
    }
}

/// The most that [`Attach::extra`] asks for.
pub const MAX_EXTRA: u8 = 16;

/// A guest says what it wants from now on, in place of what it said before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attach {
    /// What it wants.
    pub share: Share,
    /// Shreds of each set beyond those that make it whole, at most [`MAX_EXTRA`]: for what is lost
    /// on the way.
    pub extra: u8,
}

/// A member says what it grants, and how many guests take all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// What it grants: what was asked for, or less.
    pub share: Share,
    /// Places for guests that take all sets.
    pub places: u16,
    /// Of those, the ones that are taken, this guest's included.
    pub taken: u16,
}

impl Attach {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        vec![self.share as u8, self.extra]
    }

    pub(super) fn from_bytes(body: &[u8]) -> Result<Self, DecodeError> {
        let (share, extra) = codec::decode_exact::<(u8, u8), 2>(body)?;
        let share = Share::from_byte(share).filter(|_| extra <= MAX_EXTRA);
        Ok(Self { share: share.ok_or(DecodeError::Malformed)?, extra })
    }
}

impl Attached {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        codec::encode(&(self.share as u8, self.places, self.taken))
    }

    pub(super) fn from_bytes(body: &[u8]) -> Result<Self, DecodeError> {
        let (share, places, taken) = codec::decode_exact::<(u8, u16, u16), 5>(body)?;
        Ok(Self { share: Share::from_byte(share).ok_or(DecodeError::Malformed)?, places, taken })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Control;

    #[test]
    fn the_frames_are_pinned_and_bounded() {
        let attach = Control::Attach(Attach { share: Share::All, extra: 3 });
        let attached = Attached { share: Share::Tips, places: 64, taken: 0x0102 };
        for (hex, frame) in [("120203", attach), ("130140000201", Control::Attached(attached))] {
            let bytes = frame.to_bytes();
            assert_eq!(alloy_primitives::hex::encode(&bytes), hex);
            assert_eq!(Control::from_bytes(&bytes), Ok(frame));
            assert!(Control::from_bytes(&bytes[..bytes.len() - 1]).is_err());
            assert!(Control::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        }
        for bad in [&[18, 3, 0][..], &[18, 2, MAX_EXTRA + 1], &[19, 3, 0, 0, 0, 0]] {
            assert!(Control::from_bytes(bad).is_err());
        }
    }
}
