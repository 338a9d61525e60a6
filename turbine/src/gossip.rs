//! The pure parts of gossip, the fallback and the connection to based-op's network.
//!
//! based-op's nodes speak only libp2p gossipsub. A Fragcast node speaks it as well, on the same
//! topics with the same bytes, so that both hear each other, and so that frags arrive where the
//! overlay does not.
//!
//! ```text
//! libp2p (net::gossip, netsim's model)
//!   │ topic, bytes                     ▲ Listen, Publish
//!   ▼                                  │
//! Gate ── VerifiedMessage ──▶ Protocol (protocol::fallback) ◀── Health
//! accept, ignore, reject ──▶ back to libp2p
//! ```
//!
//! * [`topic`]: names of topics and ids of messages
//! * [`gate`]: what is forwarded, ignored, rejected, and what goes on to the protocol
//! * [`links`]: who connects to whom, and which holders publish for a listener
//! * [`policy`]: what the operator decides
//!
//! The wire format is that of based-op's op-node fork, see `WIRE.md`.

pub mod gate;
pub mod links;
pub mod outcome;
pub mod policy;
pub mod topic;

use bytes::Bytes;
use fragcast_shredder::Kind;

use crate::peer::PeerKey;

pub use gate::{Checked, Gate, Verdict};
pub use outcome::{GossipOutcome, GossipOutcomes};
pub use policy::{Mode, Policy};
pub use topic::Topics;

/// A peer on gossip that has subscribed to our topics, because it has no other way or does not rely
/// on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Listener {
    /// A member of the network.
    Member(PeerKey),
    /// Somebody else, by eight bytes of a hash of the libp2p peer id ([`outsider`]).
    Outside(u64),
}

/// The id of a listener that is no member: the first eight bytes of the BLAKE3 hash of its
/// libp2p peer id, little-endian. Two members that are connected to it give it the same id.
pub fn outsider(peer_id: &[u8]) -> Listener {
    let hash = blake3::derive_key("fragcast 2026 gossip listener", peer_id);
    Listener::Outside(u64::from_le_bytes(*hash.first_chunk().expect("32 bytes")))
}

/// A request of the protocol to the gossip driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GossipAction {
    /// Subscribe to the three topics and join their meshes, or leave them.
    Listen(bool),
    /// Publish a message, to the mesh or, outside it, to peers that have subscribed.
    Publish {
        /// Names the topic.
        kind: Kind,
        /// signature ‖ body, the signature canonical.
        wire: Bytes,
    },
}
