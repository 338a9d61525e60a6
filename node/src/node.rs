//! A complete node: protocol, driver, sequencer, ingest, servers, forwarder.
//!
//! `run`, `devnet` and `replay` start nodes with [`Node::start`]. They differ in who hands in
//! messages and who observes the outputs.

pub mod execution;
mod public;
mod pump;
mod status;

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fragcast_execution::executor::Executor;
use fragcast_rpc::eth::EthContext;
use fragcast_rpc::flashblocks::{self, Door, FlashblocksStats};
use fragcast_rpc::forward::Forwarder;
use fragcast_store::Store;
use fragcast_turbine::health::Change;
use fragcast_turbine::net::{Handle, Limits, NetConfig, Running};
use fragcast_turbine::output::Output;
use fragcast_turbine::protocol::Race;
use fragcast_turbine::sequencer::{Fate, Sequencer};
use fragcast_turbine::{GossipConfig, PeerId, Protocol, RepairConfig, Via};
use fragcast_upstream::client::FollowStats;
use fragcast_upstream::engine::{self, EngineConfig, EngineHandle, EngineStats, JwtSecret};
use fragcast_upstream::http;
use jsonrpsee::server::{BatchRequestConfig, PingConfig, Server, ServerConfig, ServerHandle};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::gateway::ingest::{Ingest, IngestStats};
use crate::gateway::journal::Journal;
use crate::gossip::{self, GossipHandle, Multiaddr, Races};
use crate::network::Network;
use crate::serve::metrics;
use crate::serve::metrics::Metrics;
use crate::serve::rpc;
use crate::serve::rpc::RpcStats;

use execution::Executing;
pub use execution::Execution;
use pump::Pump;

/// Sealed blocks that the executor may be behind before the node is not ready.
const BEHIND: u64 = 16;

/// Own messages waiting for this node's sequencer.
const OWN_QUEUE: usize = 256;

/// Bound sockets, so that ports are known before a node starts.
#[derive(Debug)]
pub struct Sockets {
    /// The overlay's UDP socket.
    pub p2p: UdpSocket,
    /// The gateway's interface.
    pub ingest: TcpListener,
    /// The public JSON-RPC.
    pub http: TcpListener,
    /// The operator's JSON-RPC.
    pub admin: TcpListener,
    /// Metrics and health.
    pub metrics: TcpListener,
    /// The Flashblocks WebSocket, if there is one.
    pub flashblocks: Option<TcpListener>,
}

impl Sockets {
    /// Binds the addresses of `config`.
    ///
    /// # Errors
    /// An address could not be bound, and why.
    pub fn bind(config: &Config) -> anyhow::Result<Self> {
        let tcp = |name: &str, address: SocketAddr| {
            let listener = TcpListener::bind(address)
                .map_err(|e| anyhow::anyhow!("cannot listen on {address} ({name}): {e}"))?;
            listener.set_nonblocking(true)?;
            anyhow::Ok(listener)
        };
        Ok(Self {
            p2p: fragcast_turbine::net::bind(config.p2p.listen)?,
            ingest: tcp("ingest.listen", config.ingest.listen)?,
            http: tcp("http.listen", config.http.listen)?,
            admin: tcp("admin.listen", config.admin.listen)?,
            metrics: tcp("metrics.listen", config.metrics.listen)?,
            flashblocks: (config.flashblocks.address()?)
                .map(|address| tcp("flashblocks.listen", address))
                .transpose()?,
        })
    }
}

/// An observer that sees every output, in order, before anybody else.
pub type Tap = Box<dyn FnMut(&Output) + Send>;

/// Everything that a node is started with.
pub struct Parts {
    /// Its configuration.
    pub config: Config,
    /// Its network.
    pub network: Network,
    /// Its identity.
    pub identity: SigningKey,
    /// The leader key and its journal, if it leads.
    pub leader: Option<(SigningKey, Journal)>,
    /// Its sockets.
    pub sockets: Sockets,
    /// Its execution settings; `None`: it carries messages and executes nothing.
    pub execution: Option<Execution>,
    /// For experiments: share of outgoing shreds thrown away, and a seed.
    pub drop_shreds: Option<(f64, u64)>,
    /// For experiments: while true, no UDP packet passes in or out.
    pub cut: Option<Arc<AtomicBool>>,
    /// An observer.
    pub tap: Option<Tap>,
}

/// Changes of the node's way that are remembered.
const MAX_CHANGES: usize = 64;

/// The progress of a node.
#[derive(Debug, Default)]
pub struct Progress {
    /// Newest block whose Env was handed on.
    pub opened: Option<u64>,
    /// Newest block whose Seal was handed on.
    pub sealed: Option<u64>,
    /// Bytes of messages that wait for earlier ones.
    pub waiting: usize,
    /// The last changes of the way that this node relies on, oldest first.
    pub changes: VecDeque<Change>,
    /// Changes by the new way and the reason.
    changed: BTreeMap<(&'static str, &'static str), u64>,
    /// Messages by the way that was first.
    first: BTreeMap<&'static str, u64>,
    fates: BTreeMap<&'static str, u64>,
    events: BTreeMap<&'static str, u64>,
}

impl Progress {
    /// Verified messages by their fate in the sequencer.
    pub fn fates(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Fate::ALL.iter().map(|f| (f.label(), self.fates.get(f.label()).copied().unwrap_or(0)))
    }

    /// Messages that others sent, by the way that was first.
    pub fn first(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        [Via::Turbine, Via::Repair, Via::Whole, Via::Gossip]
            .iter()
            .map(|via| (via.name(), self.first.get(via.name()).copied().unwrap_or(0)))
    }

    /// Changes of the way that this node relies on, by the new way and the reason.
    pub fn changed(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        self.changed.iter().map(|((to, reason), n)| (*to, *reason, *n))
    }

    /// Noteworthy events by kind.
    pub fn events(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        const KINDS: [&str; 7] = [
            "bad_parity",
            "bad_message",
            "equivocation",
            "barred",
            "mismatch",
            "retracted",
            "fallback",
        ];
        KINDS.iter().map(|k| (*k, self.events.get(k).copied().unwrap_or(0)))
    }
}

/// State that the servers of a node read.
pub struct Shared {
    /// This node's peer id.
    pub peer: PeerId,
    /// Handle of the overlay's driver.
    pub net: Handle,
    /// The gateway's interface.
    pub ingest: Arc<IngestStats>,
    /// Counters of subscriptions.
    pub rpc: RpcStats,
    /// Metrics.
    pub metrics: Metrics,
    /// Counters of forwarding to the engine API, if configured.
    pub engine: Option<Arc<EngineStats>>,
    /// The executor, if there is one.
    pub executor: Option<Arc<Executor>>,
    /// The database, if there is one.
    pub store: Option<Arc<Store>>,
    /// Counters of following the execution client, if there is one.
    pub follow: Option<Arc<FollowStats>>,
    /// State and counters of the Ethereum JSON-RPC, if the node executes.
    pub eth: OnceLock<Arc<EthContext>>,
    /// Forwarded transactions that are not executed yet.
    pub forwarder: OnceLock<Arc<Forwarder>>,
    /// Handle of the gossip task, if there is one.
    pub gossip: Option<GossipHandle>,
    /// How much earlier the overlay or gossip was.
    pub races: Races,
    /// The Flashblocks WebSocket, if there is one.
    pub flashblocks: OnceLock<Arc<FlashblocksStats>>,
    network: Network,
    leads: bool,
    progress: Mutex<Progress>,
}

impl Shared {
    /// Reads the node's progress.
    pub fn with_progress<T>(&self, read: impl FnOnce(&Progress) -> T) -> T {
        read(&self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn update(&self, write: impl FnOnce(&mut Progress)) {
        write(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn note_change(&self, change: Change) {
        self.update(|p| {
            *p.changed.entry((change.to.name(), change.reason.name())).or_default() += 1;
            if p.changes.len() >= MAX_CHANGES {
                p.changes.pop_front();
            }
            p.changes.push_back(change);
        });
    }

    fn note_race(&self, race: &Race) {
        tracing::debug!(
            block = race.key.block,
            index = race.key.message,
            kind = race.kind.name(),
            turbine_us = race.overlay_at.as_micros(),
            gossip_us = race.gossip_at.as_micros(),
            "a message came both ways"
        );
        self.metrics.race(race.kind.name(), race.overlay_at, race.gossip_at);
        self.races.record(race);
    }
}

/// Where a running node listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// UDP.
    pub p2p: SocketAddr,
    /// Gossip, with `/p2p/` and the peer id.
    pub gossip: Vec<Multiaddr>,
    /// The gateway's interface.
    pub ingest: SocketAddr,
    /// The public JSON-RPC.
    pub http: SocketAddr,
    /// The operator's JSON-RPC.
    pub admin: SocketAddr,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// The Flashblocks WebSocket, if there is one.
    pub flashblocks: Option<SocketAddr>,
}

/// A running node.
pub struct Node {
    shared: Arc<Shared>,
    addresses: Addresses,
    outputs: broadcast::Sender<Output>,
    servers: Vec<ServerHandle>,
    /// Tasks that follow the execution client and forward transactions.
    tasks: Vec<JoinHandle<()>>,
    flashblocks: Option<Door>,
    metrics: JoinHandle<()>,
    /// `None` once the driver is known to have ended.
    driver: Option<JoinHandle<()>>,
    gossip: Option<JoinHandle<()>>,
    events: JoinHandle<()>,
}

impl Node {
    /// Starts the node.
    ///
    /// # Errors
    /// A part could not be set up.
    pub async fn start(parts: Parts) -> anyhow::Result<Self> {
        let Parts { config, network, identity, leader, sockets, execution, drop_shreds, cut, tap } =
            parts;
        if sockets.flashblocks.is_some() && execution.is_none() {
            anyhow::bail!("flashblocks.listen: {}", flashblocks::NEEDS_EXECUTION);
        }
        let peer = PeerId(identity.verifying_key().to_bytes());
        let (leader, journal) = leader.unzip();
        if journal.as_ref().is_some_and(Journal::was_missing) {
            tracing::warn!(
                "the leader's journal was missing: the first eight blocks will be skipped"
            );
        }
        let leads = leader.is_some();
        let protocol = protocol(&config, &network, &peer, leader)?;
        let net_config = NetConfig { cut, ..net_config(&config, drop_shreds) };
        let gossip_identity = identity.clone();
        let Running { handle: net, events, task: driver, gossip: link } =
            fragcast_turbine::net::spawn(protocol, identity, sockets.p2p, &net_config)?;
        let gossip = gossip::start(&config, &network, &gossip_identity, link).await?;

        let (engine, engine_stats) = match start_engine(&config)? {
            Some((handle, stats)) => (Some(handle), Some(stats)),
            None => (None, None),
        };
        let executing = execution.map(|e| Executing::start(e, &config)).transpose()?;
        let (own, own_rx) = mpsc::channel(OWN_QUEUE);
        let stats = Arc::new(IngestStats::default());
        let ingest = Ingest::new(
            network.dialect,
            net.clone(),
            own,
            journal,
            Arc::clone(&stats),
        );
        let p2p = net.local_addr();
        let shared = Arc::new(Shared {
            peer,
            net,
            ingest: stats,
            rpc: RpcStats::default(),
            metrics: Metrics::default(),
            engine: engine_stats,
            executor: executing.as_ref().map(|e| Arc::clone(&e.executor)),
            store: executing.as_ref().and_then(|e| e.store.clone()),
            follow: executing
                .as_ref()
                .filter(|e| e.client.is_some())
                .map(|e| Arc::clone(&e.follow)),
            eth: OnceLock::new(),
            forwarder: OnceLock::new(),
            gossip: gossip.as_ref().map(|(handle, _)| handle.clone()),
            races: Races::default(),
            flashblocks: OnceLock::new(),
            network,
            leads,
            progress: Mutex::default(),
        });
        let (outputs, _) = broadcast::channel(config.http.subscriber_queue.max(1) as usize);

        let ingest_address = sockets.ingest.local_addr()?;
        let http_address = sockets.http.local_addr()?;
        let admin_address = sockets.admin.local_addr()?;
        let metrics_address = sockets.metrics.local_addr()?;
        let flashblocks_address =
            sockets.flashblocks.as_ref().map(TcpListener::local_addr).transpose()?;
        let ingest_server = Server::builder()
            .set_config(ingest_config(&config))
            .build_from_tcp(sockets.ingest)?
            .start(ingest.module());
        let mut module = rpc::module(
            Arc::clone(&shared),
            outputs.clone(),
            Duration::from_millis(config.rpc.slow_subscriber_ms),
        )
        .remove_context();
        let mut tasks = Vec::new();
        let mut flashblocks = None;
        if let Some((listener, executor)) = sockets.flashblocks.zip(shared.executor.as_ref()) {
            let settings = config.flashblocks.settings();
            let door = Door::open(listener, executor.view(), settings)?;
            // Set once: the node has only just been made.
            let _ = shared.flashblocks.set(Arc::clone(door.stats()));
            flashblocks = Some(door);
        }
        if let Some(executing) = executing {
            let public = public::Public::new(&config, &shared, &executing)?;
            module.merge(public.module)?;
            tasks.extend(executing.follower);
            tasks.push(public.forwarding);
            // Set once: the node has only just been made.
            let _ = shared.eth.set(public.eth);
            let _ = shared.forwarder.set(public.forwarder);
        }
        let http_server = Server::builder()
            .set_config(config.rpc.server().enable_ws_ping(PingConfig::new()).build())
            .build_from_tcp(sockets.http)?
            .start(module);
        let admin_server = Server::builder()
            .set_config(admin_config())
            .build_from_tcp(sockets.admin)?
            .start(rpc::admin(Arc::clone(&shared)));
        let listener = tokio::net::TcpListener::from_std(sockets.metrics)?;
        let metrics = tokio::spawn(metrics::serve(listener, Arc::clone(&shared)));

        let pump = Pump {
            shared: Arc::clone(&shared),
            sequencer: Sequencer::default(),
            outputs: outputs.clone(),
            engine,
            tap,
        };
        let events = tokio::spawn(pump.run(events, own_rx));
        let addresses = Addresses {
            p2p,
            gossip: gossip.as_ref().map_or_else(Vec::new, |(handle, _)| gossip::addresses(handle)),
            ingest: ingest_address,
            http: http_address,
            admin: admin_address,
            metrics: metrics_address,
            flashblocks: flashblocks_address,
        };
        let servers = vec![ingest_server, http_server, admin_server];
        Ok(Self {
            shared,
            addresses,
            outputs,
            servers,
            tasks,
            flashblocks,
            metrics,
            driver: Some(driver),
            gossip: gossip.map(|(_, task)| task),
            events,
        })
    }

    /// The addresses that it listens on.
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its counters.
    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The outputs from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Output> {
        self.outputs.subscribe()
    }

    /// Resolves with the name of a task that carries messages when it has ended by itself, which it
    /// should not.
    pub async fn failed(&mut self) -> &'static str {
        async fn ended(task: &mut Option<JoinHandle<()>>) {
            match task {
                Some(running) => drop(running.await),
                None => std::future::pending().await,
            }
            *task = None;
        }
        tokio::select! {
            () = ended(&mut self.driver) => "the overlay's driver",
            () = ended(&mut self.gossip) => "gossip",
        }
    }

    /// Stops the node: servers first, then the overlay, then the remaining outputs.
    pub async fn stop(self) {
        for server in self.servers {
            let _ = server.stop();
            // Open subscriptions may keep a server; what it holds ends with the node.
            let _ = tokio::time::timeout(Duration::from_secs(1), server.stopped()).await;
        }
        if let Some(door) = self.flashblocks {
            door.close().await;
        }
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        self.metrics.abort();
        let _ = self.metrics.await;
        if let Some(handle) = &self.shared.gossip {
            handle.shutdown().await;
        }
        if let Some(mut gossip) = self.gossip
            && tokio::time::timeout(Duration::from_secs(3), &mut gossip).await.is_err()
        {
            gossip.abort();
        }
        self.shared.net.shutdown().await;
        if let Some(mut driver) = self.driver
            && tokio::time::timeout(Duration::from_secs(3), &mut driver).await.is_err()
        {
            driver.abort();
        }
        // The driver was the pump's source: it hands on what is left, and ends.
        let mut events = self.events;
        if tokio::time::timeout(Duration::from_secs(5), &mut events).await.is_err() {
            events.abort();
        }
    }
}

fn protocol(
    config: &Config,
    network: &Network,
    peer: &PeerId,
    leader: Option<SigningKey>,
) -> anyhow::Result<Protocol> {
    let settings = fragcast_turbine::Config {
        dialect: network.dialect,
        route: config.route()?,
        loss: config.leader.loss_per_hop,
        uplink_bps: config.p2p.uplink_mbit * 1_000_000,
        reassembly: fragcast_shredder::Limits { memory: config.p2p.reassembly_mib * 1024 * 1024 },
        repair: RepairConfig {
            enabled: config.p2p.repair,
            memory: config.p2p.repair_mib * 1024 * 1024,
            ..RepairConfig::default()
        },
        gossip: GossipConfig {
            policy: config.gossip.policy,
            mode: config.gossip.mode,
            memory: config.gossip.memory_mib * 1024 * 1024,
            ..GossipConfig::default()
        },
        ..fragcast_turbine::Config::new(network.chain_id)
    };
    Ok(Protocol::new(
        settings,
        peer,
        Arc::clone(&network.members),
        network.schedule.clone(),
        network.delegations.iter().copied(),
        leader,
    )?)
}

fn net_config(config: &Config, drop_shreds: Option<(f64, u64)>) -> NetConfig {
    NetConfig {
        uplink_bps: config.p2p.uplink_mbit * 1_000_000,
        drop_shreds,
        limits: Limits {
            connections: config.p2p.max_connections,
            per_address: config.p2p.max_connections_per_address,
            handshakes: config.p2p.max_handshakes,
            handshakes_per_address: config.p2p.max_handshakes.div_ceil(2),
            ..Limits::default()
        },
        ..NetConfig::default()
    }
}

fn start_engine(config: &Config) -> anyhow::Result<Option<(EngineHandle, Arc<EngineStats>)>> {
    if config.engine.url.is_empty() {
        return Ok(None);
    }
    http::check_url(&config.engine.url)?;
    let secret = JwtSecret::from_hex_file(&config.engine.jwt_secret)?;
    let mut settings = EngineConfig::new(config.engine.url.clone(), secret);
    if let Some(timeout) = config.engine_timeout() {
        settings.request_timeout = timeout;
    }
    let stats = Arc::new(EngineStats::default());
    Ok(Some((engine::spawn(settings, Arc::clone(&stats)), stats)))
}

fn ingest_config(config: &Config) -> ServerConfig {
    ServerConfig::builder()
        .http_only()
        .max_request_body_size(config.ingest.max_body_mib.saturating_mul(1024 * 1024))
        .max_connections(32)
        .set_batch_request_config(BatchRequestConfig::Disabled)
        .build()
}

fn admin_config() -> ServerConfig {
    ServerConfig::builder()
        .http_only()
        .max_request_body_size(64 * 1024)
        .max_connections(16)
        .set_batch_request_config(BatchRequestConfig::Disabled)
        .build()
}
