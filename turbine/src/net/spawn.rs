//! Starts the driver: the endpoint, the tasks around it, the queues between them.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use quinn::{Endpoint, EndpointConfig, Runtime, ServerConfig, TokioRuntime, VarInt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::warn;

use super::connections::Connections;
use super::dial::{Bars, Contacts, Dialler, Dials};
use super::driver::{Driver, PENDING_BROADCASTS};
use super::experiments::{Cut, Losses};
use super::following::Following;
use super::guests::Guests;
use super::held::Held;
use super::inbox::Inbox;
use super::link::{self, GossipLink};
use super::listen::listen;
use super::probes::Probes;
use super::socket::{Socket, release};
use super::tally::Tally;
use super::{Clock, FallbackSnapshot, Handle, NetConfig, Snapshot, tls, transport};
use crate::peer::PeerId;
use crate::protocol::{Event, Protocol};

/// News of connections waiting for the driver.
const CHANGES: usize = 256;
/// Events waiting for the application.
const EVENTS: usize = 4096;
/// How long a closing endpoint may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(500);
/// How long the tasks of an endpoint may take to let go of its socket: a guard against hanging.
const CLOSING: Duration = Duration::from_secs(5);

/// Why the driver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The socket.
    #[error("cannot listen on UDP {address}: {source}")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The bound socket.
    #[error("cannot use the UDP socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The TLS configuration.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The identity key is not the one the protocol was made for.
    #[error("the identity key belongs to {found}, the protocol runs as {expected}")]
    Identity {
        /// The protocol's.
        expected: PeerId,
        /// The key's.
        found: PeerId,
    },
}

/// A running driver.
#[derive(Debug)]
pub struct Running {
    /// Controls it.
    pub handle: Handle,
    /// The protocol's events; must be drained by something that does not wait for the network.
    pub events: mpsc::Receiver<Event>,
    /// The task, which ends after the last handle is gone; says whether the socket is closed.
    pub task: JoinHandle<bool>,
    /// The link for the gossip task; dropped if there is none.
    pub gossip: GossipLink,
}

/// Starts the driver on a socket from [`bind`](super::bind).
///
/// # Errors
/// [`NetError`].
pub fn spawn(
    mut protocol: Protocol,
    identity: SigningKey,
    socket: UdpSocket,
    config: &NetConfig,
) -> Result<Running, NetError> {
    let (published, epochs) = watch::channel(Arc::clone(protocol.epochs()));
    let found = PeerId(identity.verifying_key().to_bytes());
    let expected = published.borrow().peers().peer(protocol.me()).expect("it has a key of its own");
    if found != expected {
        return Err(NetError::Identity { expected, found });
    }
    protocol.set_identity(identity.clone());
    let transport = transport::config(config);
    let mut server = ServerConfig::with_crypto(Arc::new(tls::server(
        &identity,
        epochs.clone(),
        config.limits.guests > 0,
    )?));
    server
        .transport_config(transport.clone())
        .max_incoming(config.limits.handshakes * 2)
        .incoming_buffer_size(64 * 1024)
        .incoming_buffer_size_total(4 * 1024 * 1024)
        // A peer behind a NAT that gives it another port, or whose network changes, goes on.
        .migration(true);
    let local = socket.local_addr()?;
    let runtime = Arc::new(TokioRuntime);
    let cut = Cut::new(config.cut.clone());
    let (socket, closed) = Socket::new(runtime.wrap_udp_socket(socket)?, cut);
    let endpoint = Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        Some(server),
        socket,
        runtime,
    )?;

    let inbox = Inbox::default();
    let (changes, changes_rx) = mpsc::channel(CHANGES);
    let (commands, commands_rx) = mpsc::channel(PENDING_BROADCASTS);
    let (events, events_rx) = mpsc::channel(EVENTS);
    let fallback = FallbackSnapshot::of(&protocol);
    let (snapshots, snapshot) = watch::channel(Snapshot { fallback, ..Snapshot::default() });
    let (link, gossip) = link::pair(&protocol);
    let (bars, calls) = (Arc::new(Bars::default()), Arc::new(Tally::default()));
    let connections = Connections::new(inbox.clone(), changes.clone());
    let listening = tokio::spawn(listen(
        endpoint.clone(),
        epochs.clone(),
        config.limits,
        bars.clone(),
        calls.clone(),
        changes.clone(),
    ));
    let identity = Arc::new(identity);
    let probes = Probes::new(
        endpoint.clone(),
        Arc::clone(&identity),
        transport.clone(),
        config.limits.handshake_timeout,
        changes.clone(),
    );
    let contacts = Contacts::default();
    let dials = Dials::new(Dialler {
        endpoint: endpoint.clone(),
        identity,
        transport,
        backoff: config.backoff,
        timeout: config.limits.handshake_timeout,
        bars: bars.clone(),
        changes,
        epochs: epochs.clone(),
        contacts: contacts.clone(),
        warned: Default::default(),
    });

    let following = Following::new(&protocol, config.limits.connections);
    let clock = Clock::new();
    let mut driver = Driver {
        protocol,
        epochs: published,
        connections,
        dials,
        contacts,
        guests: Guests::new(config.limits.guests),
        following,
        probes,
        clock,
        events,
        link,
        pending: VecDeque::new(),
        snapshots,
        bars,
        bar: config.limits.bar,
        calls,
        published: tokio::time::Instant::now(),
        measured: tokio::time::Instant::now(),
        held: Held::default(),
        losses: config.drop_shreds.clone().map(Losses::new),
    };
    let members = Arc::clone(&epochs.borrow());
    for (key, member) in members.members() {
        driver.join(key, member.peer());
    }
    let task = tokio::spawn(async move {
        driver.run(inbox, changes_rx, commands_rx).await;
        endpoint.close(VarInt::from_u32(0), b"shutting down");
        listening.abort();
        driver.dials.shutdown().await;
        driver.probes.shutdown().await;
        // Each of them holds the socket, be it ever so closed.
        drop(driver.connections);
        let _ = tokio::time::timeout(GOODBYE, endpoint.wait_idle()).await;
        if let Err(error) = release(&endpoint) {
            warn!(%error, "the overlay's port stays in use for a while");
        }
        drop(endpoint);
        // Tasks of quinn's let go of it when they have their turn.
        tokio::time::timeout(CLOSING, closed.wait()).await.is_ok()
    });
    let handle = Handle { commands, snapshot, epochs, clock, local };
    Ok(Running { handle, events: events_rx, task, gossip })
}
