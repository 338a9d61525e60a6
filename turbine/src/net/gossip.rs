//! The gossip driver: speaks libp2p gossipsub as based-op's nodes do, in a task of its own.
//!
//! ```text
//! TCP · noise · yamux ─▶ Doorman: limits, bars ─▶ gossipsub ─▶ Gate ─▶ GossipLink ─▶ driver
//!                                                     ▲                    │
//!                                                     └── Listen, Publish ◀┘
//! ```
//!
//! The libp2p identity is the node's ed25519 key, so that a member is known on gossip by the
//! handshake. rust-libp2p's own gossipsub instead of one of ours: its wire format is what the
//! other side speaks, and a mesh with scores is a long way to get right.
//!
//! # Guarantees
//! * Nothing reaches the protocol, or is forwarded, that the [`Gate`](crate::gossip::Gate) has
//!   not judged.
//! * Whoever sends [`GossipLimits::rejects`] messages that are rejected, or traffic that no
//!   honest node has, is disconnected and barred for [`GossipLimits::bar`].
//! * A flood keeps neither publishing nor the other peers waiting: the swarm gets
//!   32 events between two looks at what else there is to do.
//!
//! # Memory
//! Of each connection at most: a frame of 12 MiB in the making, and 64
//! messages that wait to be sent. [`GossipLimits::total`] connections. gossipsub's cache holds
//! what came in within 6 s, that is, only what the gate accepted, or has yet to see, on topics
//! that are listened to; of anything else a single entry is kept. Ids are kept for 65 s.

mod behaviour;
mod dial;
mod doorman;
mod identity;
mod known;
mod listen;
mod meter;
mod peers;
mod snapshot;
mod task;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fragcast_shredder::Dialect;
use libp2p::{Multiaddr, PeerId as Libp2pId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::link::GossipLink;
use crate::peer::PeerId;

pub use identity::{libp2p_id_of, peer_id_of};
pub use libp2p;
pub use snapshot::GossipSnapshot;

/// Limits on connections and on what peers may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GossipLimits {
    /// Connections opened by peers that are neither members nor bootstrap peers.
    pub incoming: usize,
    /// Connections in all.
    pub total: usize,
    /// Connections to one peer.
    pub per_peer: usize,
    /// Handshakes of others in progress.
    pub pending: usize,
    /// Connections, and handshakes, that others opened from one IP address.
    pub per_address: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long a peer that is no member may stay without a subscription to our topics.
    pub idle: Duration,
    /// How long a peer that misbehaved is barred.
    pub bar: Duration,
    /// Rejected messages for which a peer is barred; one is forgotten every ten seconds.
    pub rejects: u32,
    /// Ignored messages a second of a peer, and at once: honest nodes have one for each copy of
    /// a message that is late, or of a term that we know nothing of, about six a second.
    pub ignored: (u32, u32),
    /// Bytes a second from a peer while listening, and at once. An honest one sends what the
    /// chain makes, once, at most 5 MB/s in blocks of 10 MB.
    pub bytes: (u64, u64),
    /// Bytes a second from a peer while not listening, when there are only control messages.
    pub quiet_bytes: u64,
}

impl Default for GossipLimits {
    fn default() -> Self {
        Self {
            incoming: 64,
            total: 128,
            per_peer: 2,
            pending: 32,
            per_address: 16,
            handshake_timeout: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            bar: Duration::from_secs(60),
            rejects: 32,
            ignored: (64, 1024),
            bytes: (16 * 1024 * 1024, 64 * 1024 * 1024),
            quiet_bytes: 256 * 1024,
        }
    }
}

/// Configuration of the gossip driver.
#[derive(Debug, Clone)]
pub struct GossipNetConfig {
    /// Names the topics.
    pub chain_id: u64,
    /// Addresses to listen on, such as `/ip4/0.0.0.0/tcp/9222`; may be empty.
    pub listen: Vec<Multiaddr>,
    /// How long a port that somebody else has is tried again.
    pub listen_patience: Duration,
    /// Peers to stay connected to, such as `/dns4/example.org/tcp/9222/p2p/16Uiu2…`.
    pub bootstrap: Vec<Multiaddr>,
    /// Limits.
    pub limits: GossipLimits,
    /// First and longest pause between attempts to reach a peer.
    pub backoff: (Duration, Duration),
    /// How long the member with the higher id waits to be called before it calls.
    pub patience: Duration,
}

impl GossipNetConfig {
    /// Defaults for a chain: listens on every interface, on the port of op-node.
    pub fn new(chain_id: u64) -> Self {
        Self {
            chain_id,
            listen: vec!["/ip4/0.0.0.0/tcp/9222".parse().expect("a multiaddr")],
            listen_patience: Duration::ZERO,
            bootstrap: Vec::new(),
            limits: GossipLimits::default(),
            backoff: (Duration::from_millis(200), Duration::from_secs(30)),
            patience: Duration::from_secs(2),
        }
    }
}

/// Why gossip cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GossipNetError {
    /// A bootstrap address names no peer.
    #[error("`{0}` does not say who is there: append /p2p/ and the peer's id")]
    NoPeer(Multiaddr),
    /// An address names somebody else.
    #[error("`{address}` names {found}, but member {member} is {expected}: correct the address")]
    OtherPeer {
        /// The address.
        address: Multiaddr,
        /// The member that it should belong to.
        member: PeerId,
        /// The peer id of that member.
        expected: Box<Libp2pId>,
        /// The peer id in the address.
        found: Box<Libp2pId>,
    },
    /// An address of a kind that is not spoken.
    #[error("`{0}` is no TCP address: it should look like /ip4/1.2.3.4/tcp/9222")]
    Unsupported(Multiaddr),
    /// The listener.
    #[error(
        "cannot listen for gossip on `{address}`: {source}; is another node running there? \
         choose another port, in \
         gossip.listen and in this node's entry in every network file"
    )]
    Listen {
        /// The configured address.
        address: Multiaddr,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A listener gave no address.
    #[error("nothing is known of the gossip listeners after {0:?}: does the interface exist?")]
    NoAddress(Duration),
    /// A part of libp2p refuses its parameters, which is a bug.
    #[error("libp2p refuses its parameters: {0}; please report this")]
    Setup(String),
}

/// Where members listen for gossip. Addresses may end in /p2p/ and the peer id, or not.
pub type Addresses = BTreeMap<PeerId, Vec<Multiaddr>>;

/// What a handle asks of the driver.
enum Command {
    Snapshot(oneshot::Sender<GossipSnapshot>),
    Addresses(Addresses),
    Shutdown,
}

/// Controls a running gossip driver.
#[derive(Debug, Clone)]
pub struct GossipHandle {
    commands: mpsc::Sender<Command>,
    snapshot: watch::Receiver<GossipSnapshot>,
    local: Libp2pId,
}

impl GossipHandle {
    /// The newest numbers, a fifth of a second old at most.
    pub fn snapshot(&self) -> GossipSnapshot {
        self.snapshot.borrow().clone()
    }

    /// The numbers of this moment, or the last ones if the driver has ended.
    pub async fn fresh_snapshot(&self) -> GossipSnapshot {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Snapshot(reply)).await.is_ok()
            && let Ok(snapshot) = answer.await
        {
            return snapshot;
        }
        self.snapshot()
    }

    /// Waits until the numbers are as `fine` says; `None` if the driver ends before that.
    pub async fn wait_for(
        &self,
        mut fine: impl FnMut(&GossipSnapshot) -> bool,
    ) -> Option<GossipSnapshot> {
        let mut snapshots = self.snapshot.clone();
        snapshots.borrow_and_update();
        loop {
            let snapshot = self.fresh_snapshot().await;
            if fine(&snapshot) {
                return Some(snapshot);
            }
            snapshots.changed().await.ok()?;
        }
    }

    /// This node's libp2p peer id.
    pub const fn local_peer_id(&self) -> Libp2pId {
        self.local
    }

    /// Its addresses, with the ports that the system chose, and without the peer id.
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.snapshot.borrow().listening_on.clone()
    }

    /// Members listen at these addresses from now on: those of the members of every epoch that
    /// lives, or is to come.
    pub async fn set_addresses(&self, addresses: Addresses) {
        let _ = self.commands.send(Command::Addresses(addresses)).await;
    }

    /// Ends the driver.
    pub async fn shutdown(&self) {
        let _ = self.commands.send(Command::Shutdown).await;
    }
}

/// Starts gossip: connects to the bootstrap peers and, while `identity` is the key of a member, to those
/// of the members whose link it is, by `addresses`. Returns once the listeners are bound.
/// Members, links and gateways follow the epochs that `link` tells. The task ends by
/// [`GossipHandle::shutdown`], or when the driver at the other end of `link` has ended.
///
/// # Errors
/// [`GossipNetError`].
pub async fn spawn(
    config: GossipNetConfig,
    identity: &SigningKey,
    dialect: Dialect,
    addresses: Addresses,
    link: GossipLink,
) -> Result<(GossipHandle, JoinHandle<()>), GossipNetError> {
    let epochs = Arc::clone(&link.outlook.borrow().epochs);
    let me = PeerId(identity.verifying_key().to_bytes());
    let targets = dial::Targets::new(&config, me, &epochs, addresses)?;
    let meters = meter::Meters::default();
    let mut built = behaviour::swarm(&config, identity, &meters)?;
    let listening_on = listen::listen(&mut built.swarm, &config).await?;

    let (commands, commands_rx) = mpsc::channel(4);
    let first = GossipSnapshot { listening_on: listening_on.clone(), ..GossipSnapshot::default() };
    let (snapshots, snapshot) = watch::channel(first);
    let local = *built.swarm.local_peer_id();
    tracing::info!(peer_id = %local, listening_on = ?listening_on, "gossip is up");
    let parts = task::Parts { config, dialect, epochs, targets, meters, built, snapshots };
    let driver = task::Driver::new(parts, listening_on, link.inputs);
    let task = tokio::spawn(driver.run(link.actions, link.outlook, commands_rx));
    Ok((GossipHandle { commands, snapshot, local }, task))
}
