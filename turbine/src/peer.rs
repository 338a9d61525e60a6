//! Peers: their names, and the short keys that one node knows them by.
//!
//! A [`PeerId`] is an ed25519 public key, the same that the peer's TLS handshake proves; every
//! node knows a peer by the same id. A [`PeerKey`] is a number that one node gives a peer when it
//! first appears in a membership table, is let in as a guest, or is called as a contact, and keeps for
//! as long as any living epoch names it, or it is connected as a guest, or is a contact. All that a
//! node remembers of a peer hangs on the key, so it survives a change of table. A
//! [`PeerIndex`](crate::PeerIndex), in contrast, is a place in one table.

mod table;

use alloy_primitives::hex;
use serde::{Deserialize, Serialize};

pub use table::{MAX_CONTACTS, MAX_GUESTS, MAX_PEERS, PeerTable};

/// An ed25519 public key that names a peer. Written as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub struct PeerId(pub [u8; 32]);

/// The text is no peer id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no peer id: write 64 hex digits")]
pub struct PeerIdError {
    /// What was given.
    pub text: String,
}

impl std::fmt::Display for PeerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for PeerId {
    /// The first eight digits, which are enough in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(&self.0[..4]))
    }
}

impl std::str::FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(s: &str) -> Result<Self, PeerIdError> {
        hex::decode_to_array(s).map(Self).map_err(|_| PeerIdError { text: s.to_owned() })
    }
}

impl Serialize for PeerId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The number that one node knows a peer by.
///
/// ```text
/// generation 14 bits │ slot 18 bits
/// ```
///
/// A slot is given to another peer only after its peer was forgotten, and then under the next
/// generation, so a key that is still on its way in some queue never names another peer. The
/// members of the first epoch have the keys 0, 1, 2, … in the order of their table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PeerKey(u32);

impl PeerKey {
    const SLOT_BITS: u32 = 18;

    const fn new(slot: usize, generation: u32) -> Self {
        Self(generation << Self::SLOT_BITS | slot as u32)
    }

    /// Where tables of peers keep this one. Two peers never have the same slot at a time.
    pub const fn slot(self) -> usize {
        (self.0 & ((1 << Self::SLOT_BITS) - 1)) as usize
    }

    /// How often the slot has been given anew.
    const fn generation(self) -> u32 {
        self.0 >> Self::SLOT_BITS
    }

    /// The number as it is.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl From<u32> for PeerKey {
    /// A key by its number: for drivers in which node n is the nth member of the first table,
    /// as in simulations.
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl std::fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.generation() {
            0 => write!(f, "#{}", self.slot()),
            generation => write!(f, "#{}.{generation}", self.slot()),
        }
    }
}
