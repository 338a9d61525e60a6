//! The task that owns the protocol.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fragcast_shredder::{MessageKey, VerifiedMessage};
use quinn::{Endpoint, EndpointConfig, Runtime, ServerConfig, TokioRuntime, VarInt};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::connections::{Change, Connections, Drops, Inbound, Received};
use super::cut::CutSocket;
use super::dial::{Bars, Dialler};
use super::link::{self, DriverLink, GossipInput, GossipLink};
use super::listen::{Calls, listen};
use super::snapshot::{FallbackSnapshot, Snapshot};
use super::{Clock, NetConfig, tls, transport};
use crate::egress::{Lane, Payload, Transmit};
use crate::gossip::{Mode, Policy};
use crate::membership::PeerIndex;
use crate::peer::PeerId;
use crate::protocol::{BroadcastError, Event, Protocol};
use crate::time::Timestamp;

/// Datagrams waiting for the driver: 10 MB.
const INBOUND_QUEUE: usize = 8192;
/// Datagrams taken at a time.
const BURST: usize = 256;
/// Broadcasts waiting for room in the lanes.
const PENDING_BROADCASTS: usize = 64;
/// Transmits between two looks at what came in.
const TRANSMITS: usize = 1024;
/// How often the numbers are published.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(200);
/// How long a closing endpoint may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// Why the driver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The socket.
    #[error("cannot listen on UDP {address}: {source}")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// What the system says.
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

/// Answer to a broadcast: when it was queued whole.
pub type BroadcastReply = Result<Timestamp, BroadcastError>;

enum Command {
    Broadcast {
        key: MessageKey,
        message: Box<VerifiedMessage>,
        reply: oneshot::Sender<BroadcastReply>,
    },
    Head(u64),
    Leads(u64, oneshot::Sender<bool>),
    Mode(Mode),
    Policy(Policy),
    Shutdown,
}

/// Controls a running driver. When the last handle is gone, the driver ends.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    snapshot: watch::Receiver<Snapshot>,
    clock: Clock,
    local: SocketAddr,
}

impl Handle {
    /// Broadcasts a message of this node's own; waits while the lanes are full.
    ///
    /// # Errors
    /// [`BroadcastError`]; `Busy` only if the driver has ended or too many wait already.
    pub async fn broadcast(&self, key: MessageKey, message: VerifiedMessage) -> BroadcastReply {
        let (reply, answer) = oneshot::channel();
        let message = Box::new(message);
        let command = Command::Broadcast { key, message, reply };
        self.commands.send(command).await.map_err(|_| BroadcastError::Busy)?;
        answer.await.unwrap_or(Err(BroadcastError::Busy))
    }

    /// Ends the driver, whoever else holds a handle.
    pub async fn shutdown(&self) {
        let _ = self.commands.send(Command::Shutdown).await;
    }

    /// Whether this node leads `block`.
    pub async fn leads(&self, block: u64) -> bool {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Leads(block, reply)).await;
        sent.is_ok() && answer.await.unwrap_or(false)
    }

    /// Tells the protocol where the chain's head is.
    pub async fn head(&self, block: u64) {
        let _ = self.commands.send(Command::Head(block)).await;
    }

    /// The operator says which way messages travel.
    pub async fn set_mode(&self, mode: Mode) {
        let _ = self.commands.send(Command::Mode(mode)).await;
    }

    /// The operator says how much this node has to do with gossip; to and from
    /// [`Policy::Off`] only a restart leads.
    pub async fn set_policy(&self, policy: Policy) {
        let _ = self.commands.send(Command::Policy(policy)).await;
    }

    /// The newest numbers.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// The driver's clock.
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// The UDP address it listens on.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// A running driver.
#[derive(Debug)]
pub struct Running {
    /// Controls it.
    pub handle: Handle,
    /// What happens; must be drained by something that does not wait for the network.
    pub events: mpsc::Receiver<Event>,
    /// The task, which ends after the last handle is gone.
    pub task: JoinHandle<()>,
    /// For the gossip task; dropped where there is none.
    pub gossip: GossipLink,
}

/// Starts the driver on a socket from [`bind`](super::bind).
///
/// # Errors
/// [`NetError`].
pub fn spawn(
    protocol: Protocol,
    identity: SigningKey,
    socket: UdpSocket,
    config: &NetConfig,
) -> Result<Running, NetError> {
    let members = protocol.epochs().newest().members().clone();
    let me = protocol.me().number();
    let found = PeerId(identity.verifying_key().to_bytes());
    let expected = members.get(me).expect("the protocol checked").peer();
    if found != expected {
        return Err(NetError::Identity { expected, found });
    }
    let transport = transport::config(config);
    let mut server = ServerConfig::with_crypto(Arc::new(tls::server(&identity, members.clone())?));
    server
        .transport_config(transport.clone())
        .max_incoming(config.limits.handshakes * 2)
        .incoming_buffer_size(64 * 1024)
        .incoming_buffer_size_total(4 * 1024 * 1024)
        .migration(false);
    let local = socket.local_addr()?;
    let runtime = Arc::new(TokioRuntime);
    let mut socket = runtime.wrap_udp_socket(socket)?;
    if let Some(cut) = config.cut.clone() {
        socket = Arc::new(CutSocket { inner: socket, cut });
    }
    let endpoint = Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        Some(server),
        socket,
        runtime,
    )?;

    let (inbound, inbound_rx) = mpsc::channel(INBOUND_QUEUE);
    let (changes, changes_rx) = mpsc::channel(256);
    let (commands, commands_rx) = mpsc::channel(PENDING_BROADCASTS);
    let (events, events_rx) = mpsc::channel(4096);
    let fallback = FallbackSnapshot::of(&protocol);
    let (snapshots, snapshot) = watch::channel(Snapshot { fallback, ..Snapshot::default() });
    let (link, gossip) = link::pair();
    let (bars, calls, drops) =
        (Arc::new(Bars::default()), Arc::new(Calls::default()), Arc::new(Drops::default()));
    let connections = Connections::new(members.len(), drops.clone(), inbound, changes.clone());

    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(listen(
        endpoint.clone(),
        members.clone(),
        config.limits,
        bars.clone(),
        calls.clone(),
        changes.clone(),
    ));
    let dialler = Arc::new(Dialler {
        endpoint: endpoint.clone(),
        identity: Arc::new(identity),
        transport,
        backoff: config.backoff,
        timeout: config.limits.handshake_timeout,
        bars: bars.clone(),
        changes,
    });
    for (peer, member) in (0..).zip(members.members()) {
        if peer != me {
            let up = connections.watch(peer);
            tasks.spawn(dialler.clone().run(peer, member.clone(), peer < me, up));
        }
    }

    let clock = Clock::new();
    let driver = Driver {
        protocol,
        connections,
        clock,
        events,
        link,
        pending: VecDeque::new(),
        snapshots,
        bars,
        bar: config.limits.bar,
        calls,
        drops,
        published: tokio::time::Instant::now(),
        losses: config.drop_shreds.map(|(share, seed)| Losses::new(share, seed)),
    };
    let task = tokio::spawn(async move {
        driver.run(inbound_rx, changes_rx, commands_rx).await;
        endpoint.close(VarInt::from_u32(0), b"shutting down");
        tasks.shutdown().await;
        let _ = tokio::time::timeout(GOODBYE, endpoint.wait_idle()).await;
    });
    let handle = Handle { commands, snapshot, clock, local };
    Ok(Running { handle, events: events_rx, task, gossip })
}

/// Throws away a share of the shreds, by a seeded generator.
struct Losses {
    share: u64,
    state: u64,
}

impl Losses {
    fn new(share: f64, seed: u64) -> Self {
        Self { share: (share.clamp(0.0, 1.0) * u64::MAX as f64) as u64, state: seed }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn hit(&mut self) -> bool {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) < self.share
    }
}

type Pending = (MessageKey, Box<VerifiedMessage>, oneshot::Sender<BroadcastReply>);

struct Driver {
    protocol: Protocol,
    connections: Connections,
    clock: Clock,
    events: mpsc::Sender<Event>,
    link: DriverLink,
    /// Broadcasts that found the lanes full, in their order.
    pending: VecDeque<Pending>,
    snapshots: watch::Sender<Snapshot>,
    bars: Arc<Bars>,
    bar: Duration,
    calls: Arc<Calls>,
    drops: Arc<Drops>,
    published: tokio::time::Instant,
    losses: Option<Losses>,
}

impl Driver {
    async fn run(
        mut self,
        mut inbound: mpsc::Receiver<Inbound>,
        mut changes: mpsc::Receiver<Change>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let mut received = Vec::with_capacity(BURST);
        let mut publish = tokio::time::interval(SNAPSHOT_INTERVAL);
        publish.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if self.drain().await.is_err() {
                return;
            }
            let now = self.clock.now();
            let timeout = self.protocol.poll_timeout(now).map(|at| self.clock.instant(at));
            let due = async {
                match timeout {
                    // A timer would round up to its next tick.
                    Some(at) if at <= self.clock.instant(now) => tokio::task::yield_now().await,
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let room = self.pending.len() < PENDING_BROADCASTS;
            tokio::select! {
                biased;
                Some(change) = changes.recv() => self.change(change),
                count = inbound.recv_many(&mut received, BURST) => {
                    if count == 0 {
                        return;
                    }
                    self.receive(&mut received);
                    // A flood must not keep the rest waiting: some of each for every burst.
                    self.take_gossip();
                    self.protocol.handle_timeout(self.clock.now());
                    if self.pending.len() < PENDING_BROADCASTS {
                        match commands.try_recv() {
                            Ok(Command::Shutdown) | Err(TryRecvError::Disconnected) => return,
                            Ok(command) => self.command(command),
                            Err(TryRecvError::Empty) => {}
                        }
                    }
                    if self.published.elapsed() > SNAPSHOT_INTERVAL {
                        self.publish();
                    }
                }
                command = commands.recv(), if room => match command {
                    Some(Command::Shutdown) | None => return,
                    Some(command) => self.command(command),
                },
                () = self.link.ready() => {
                    self.take_gossip();
                    self.protocol.handle_timeout(self.clock.now());
                    if self.published.elapsed() > SNAPSHOT_INTERVAL {
                        self.publish();
                    }
                }
                () = due => self.protocol.handle_timeout(self.clock.now()),
                _ = publish.tick() => self.publish(),
            }
        }
    }

    /// Empties the protocol's queues as far as pacing allows.
    async fn drain(&mut self) -> Result<(), ()> {
        loop {
            while let Some(event) = self.protocol.poll_event() {
                if let Event::Bar { peer, outcome } = &event {
                    self.bars.bar(peer.number(), self.bar);
                    self.connections.close(peer.number(), outcome.label());
                }
                self.events.send(event).await.map_err(|_| ())?;
            }
            let now = self.clock.now();
            let mut sent = 0;
            while sent < TRANSMITS
                && let Some(transmit) = self.protocol.poll_transmit(now)
            {
                self.send(transmit);
                sent += 1;
            }
            if !self.retry_pending() {
                self.link.drain(self.clock.now(), &mut self.protocol);
                return Ok(());
            }
        }
    }

    fn take_gossip(&mut self) {
        let now = self.clock.now();
        for input in self.link.take() {
            match input {
                GossipInput::Message { message, forwarded } => {
                    self.protocol.handle_gossip(now, *message, forwarded);
                }
                GossipInput::Listener(listener, present) => {
                    self.protocol.handle_listener(now, listener, present);
                }
            }
        }
    }

    fn send(&mut self, Transmit { to, payload, .. }: Transmit) {
        match payload {
            Payload::Shred(bytes) => {
                if self.losses.as_mut().is_some_and(Losses::hit) {
                    self.drops.injected.fetch_add(1, Ordering::Relaxed);
                } else {
                    self.connections.send_shred(to.number(), bytes);
                }
            }
            Payload::Control(frame) => self.connections.send_control(to.number(), frame),
        }
    }

    /// Tries the oldest waiting broadcast again; says whether it went.
    fn retry_pending(&mut self) -> bool {
        let Some((key, message, reply)) = self.pending.pop_front() else { return false };
        let now = self.clock.now();
        match self.protocol.broadcast(now, key, &message) {
            Err(BroadcastError::Busy) => {
                self.pending.push_front((key, message, reply));
                false
            }
            result => {
                let _ = reply.send(result.map(|()| now));
                true
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            // Through the same queue as those that wait, so that order is kept.
            Command::Broadcast { key, message, reply } => {
                self.pending.push_back((key, message, reply));
            }
            Command::Leads(block, reply) => {
                let _ = reply.send(self.protocol.leads(block));
            }
            // The loop has ended by then.
            Command::Shutdown => {}
            Command::Head(block) => self.protocol.handle_head(self.clock.now(), block),
            Command::Mode(mode) => {
                tracing::info!(%mode, "the operator says which way messages travel");
                self.protocol.set_mode(self.clock.now(), mode);
                self.publish();
            }
            Command::Policy(policy) => {
                tracing::info!(%policy, "the operator says how much gossip there is");
                self.protocol.set_policy(self.clock.now(), policy);
                self.publish();
            }
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            // Barred while this was on its way here.
            Change::Up { peer, connection, .. } if self.bars.is_barred(peer) => {
                connection.close(VarInt::from_u32(1), b"barred");
            }
            Change::Up { peer, connection, outgoing } => {
                tracing::info!(peer = ?self.peer(peer), outgoing, "connected");
                self.connections.add(peer, connection, outgoing);
                self.protocol.handle_connected(peer.into());
            }
            Change::Down { peer, id } => {
                if self.connections.remove(peer, id) {
                    tracing::info!(peer = ?self.peer(peer), "disconnected");
                    self.protocol.handle_disconnected(peer.into());
                }
            }
        }
        self.publish();
    }

    fn receive(&mut self, received: &mut Vec<Inbound>) {
        let now = self.clock.now();
        let mut shreds = Vec::with_capacity(received.len());
        for Inbound { peer, what } in received.drain(..) {
            match what {
                Received::Shred(bytes) => shreds.push((peer.into(), bytes)),
                Received::Control(frame) => self.protocol.handle_control(now, peer.into(), &frame),
            }
        }
        self.protocol.handle_datagrams(now, shreds);
    }

    fn peer(&self, peer: PeerIndex) -> Option<PeerId> {
        self.protocol.epochs().peers().peer(peer.into())
    }

    fn publish(&mut self) {
        self.published = tokio::time::Instant::now();
        let egress = self.protocol.egress();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let snapshot = Snapshot {
            outcomes: self.protocol.outcomes().clone(),
            counters: *self.protocol.counters(),
            lanes: Lane::ALL
                .into_iter()
                .map(|l| (l.name(), egress.queued(l), egress.sent(l), egress.dropped(l)))
                .collect(),
            drops: vec![
                ("inbound_queue", get(&self.drops.inbound)),
                ("datagram_buffer", get(&self.drops.datagrams)),
                ("stream_queue", get(&self.drops.frames)),
                ("unreachable", get(&self.drops.unreachable)),
                ("injected", get(&self.drops.injected)),
            ],
            calls: vec![
                ("accepted", get(&self.calls.accepted)),
                ("retried", get(&self.calls.retried)),
                ("refused_total", get(&self.calls.refused_total)),
                ("refused_address", get(&self.calls.refused_address)),
                ("refused_barred", get(&self.calls.refused_barred)),
                ("handshake_failed", get(&self.calls.handshake_failed)),
            ],
            connected: self.connections.connected(),
            members: self.protocol.epochs().peers().len(),
            round_trips: self
                .connections
                .round_trips()
                .into_iter()
                .filter_map(|(peer, rtt)| Some((self.peer(peer)?, rtt)))
                .collect(),
            reassembly_bytes: self.protocol.reassembly_bytes(),
            repair_bytes: self.protocol.repair_bytes(),
            window: self.protocol.window(),
            fallback: FallbackSnapshot::of(&self.protocol),
        };
        self.snapshots.send_replace(snapshot);
    }
}
