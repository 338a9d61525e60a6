//! Listeners that are no members. Members tell one another of them, so that of all members that are
//! connected to one, few publish for it.

use fragcast_shredder::codec::{self, DecodeError};

/// Listeners in a frame at most.
pub const MAX_TOLD: usize = 64;

/// The listeners outside the network that the sender is connected to, all of them: a later
/// frame replaces an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Listeners {
    /// Their numbers, see [`outsider`](crate::gossip::outsider).
    pub ids: Vec<u64>,
}

impl Listeners {
    /// Decodes a body.
    ///
    /// # Errors
    /// [`DecodeError`], also for more than [`MAX_TOLD`].
    pub fn from_bytes(body: &[u8]) -> Result<Self, DecodeError> {
        let listeners: Self = codec::decode_exact::<_, { 8 + 8 * MAX_TOLD }>(body)?;
        if listeners.ids.len() > MAX_TOLD {
            return Err(DecodeError::Malformed);
        }
        Ok(listeners)
    }
}
