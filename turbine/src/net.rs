//! The QUIC driver: runs a [`Protocol`](crate::Protocol) over quinn.
//!
//! ```text
//! accept, dial ─▶ connections ─▶ readers ─turns by peer─▶ driver ⇄ Protocol
//!                                                           │
//!                 datagrams, or streams where the path is too small ◀─┘
//! ```
//!
//! One task owns the protocol, so there is no lock around it. Peers prove their ed25519 keys
//! in mutual TLS with raw public keys (RFC 7250): there are no certificates to parse. Shreds
//! are QUIC datagrams (RFC 9221), control frames go over a stream.
//!
//! Memory: the inbox holds 8,192 datagrams (10 MB) and 525 kB of frames of each peer, which take
//! turns; each connection 1 MB of received datagrams and 1 MB of streams at most, 512 frames to a peer that takes no datagrams, and
//! handshakes in progress are limited to [`Limits::handshakes`].

mod clock;
mod congestion;
mod connections;
mod dial;
mod driver;
mod experiments;
mod following;
#[cfg(feature = "gossip")]
pub mod gossip;
mod guests;
mod handle;
mod held;
mod inbox;
mod link;
mod listen;
mod log_limit;
mod places;
mod probes;
mod snapshot;
mod socket;
mod spawn;
mod streams;
mod tally;
mod tls;
mod transport;
mod unwelcome;

pub use crate::protocol::Spread;
pub use clock::Clock;
pub use congestion::FixedWindow;
#[doc(hidden)]
pub use experiments::{Loss, client_config};
pub use handle::{BroadcastReply, DelegationRefused, EpochRefused, Handle};
pub use link::{GossipInput, GossipLink, Outlook};
pub use log_limit::LogLimit;
pub use snapshot::{EpochSnapshot, FallbackSnapshot, LinkSnapshot, Snapshot};
pub use spawn::{NetError, Running, spawn};
pub use transport::bind;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Limits on connections and handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one IP address.
    pub per_address: usize,
    /// Handshakes in progress in all. Half of them are kept for members' addresses; an eighth of
    /// the others, a quarter of those, is for callers who have not proven their address by a
    /// Retry packet.
    pub handshakes: usize,
    /// Handshakes in progress from one host, within a quarter of all for a member's address and a
    /// sixteenth for any other; an eighth for a /24 or /48.
    pub handshakes_per_address: usize,
    /// Guests in all: callers that prove a key and are in no table. They take no connection of
    /// [`connections`](Self::connections). An eighth is for one host, a quarter for a /24 or /48. The
    /// protocol has the same limit.
    pub guests: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long a peer that misbehaved is barred.
    pub bar: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            per_address: 64,
            handshakes: 64,
            handshakes_per_address: 16,
            guests: 0,
            handshake_timeout: Duration::from_secs(3),
            bar: Duration::from_secs(60),
        }
    }
}

/// Connections to one peer: one that it opened, one that we opened.
pub const PER_PEER: usize = 2;

/// Configuration of the driver.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// The congestion window is made for this rate, bits per second.
    pub uplink_bps: u64,
    /// Whether this node takes QUIC datagrams; without, peers use streams.
    pub datagrams: bool,
    /// For experiments: the share of outgoing shreds that is thrown away.
    pub drop_shreds: Option<Loss>,
    /// For experiments: while this is true, no packet passes either way.
    pub cut: Option<Arc<AtomicBool>>,
    /// Limits.
    pub limits: Limits,
    /// First and longest pause between attempts to reach a peer.
    pub backoff: (Duration, Duration),
    /// A connection without a sign of life for this long is dead.
    pub idle_timeout: Duration,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            uplink_bps: 1_000_000_000,
            datagrams: true,
            drop_shreds: None,
            cut: None,
            limits: Limits::default(),
            backoff: (Duration::from_millis(200), Duration::from_secs(5)),
            idle_timeout: Duration::from_secs(6),
        }
    }
}
