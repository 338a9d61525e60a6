//! A complete node: protocol and driver, sequencer, ingest, servers, forwarder.
//!
//! `run`, `devnet` and `replay` all start nodes through [`Node::start`]; what differs is who
//! hands in the messages and who looks at what comes out.

pub mod execution;
mod public;
mod pump;

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fragcast_turbine::health::{Change, Reason, State};
use fragcast_turbine::net::{Handle, Limits, NetConfig, Running};
use fragcast_turbine::protocol::Race;
use fragcast_turbine::{GossipConfig, Mode, PeerId, Protocol, RepairConfig, Via};
use jsonrpsee::server::{BatchRequestConfig, PingConfig, Server, ServerConfig, ServerHandle};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use crate::client::FollowStats;
use crate::config::Config;
use crate::engine::{self, EngineConfig, EngineHandle, EngineStats, JwtSecret};
use crate::eth::EthContext;
use crate::executor::Executor;
use crate::flashblocks::{self, Door, FlashblocksStats};
use crate::forward::Forwarder;
use crate::gossip::{self, GossipHandle, Multiaddr, Races};
use crate::ingest::{Ingest, IngestStats};
use crate::journal::Journal;
use crate::metrics::{self, Metrics};
use crate::network::Network;
use crate::output::Output;
use crate::rpc::{self, RpcStats};
use crate::sequencer::{Fate, Sequencer};
use crate::store::Store;

use execution::Executing;
pub use execution::Execution;
use pump::Pump;

/// Sealed blocks that the executor may be behind before the node is not ready.
const BEHIND: u64 = 16;

/// Messages of this node's own on their way to its sequencer.
const OWN_QUEUE: usize = 256;

/// Bound sockets, so that ports are known before a node starts.
#[derive(Debug)]
pub struct Sockets {
    /// The overlay's UDP socket.
    pub p2p: UdpSocket,
    /// The gateway's door.
    pub ingest: TcpListener,
    /// The public JSON-RPC.
    pub http: TcpListener,
    /// The operator's JSON-RPC.
    pub admin: TcpListener,
    /// Metrics and health.
    pub metrics: TcpListener,
    /// The Flashblocks door, if there is one.
    pub flashblocks: Option<TcpListener>,
}

impl Sockets {
    /// Binds what `config` says.
    ///
    /// # Errors
    /// Which address cannot be had, and why.
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

/// Who sees every output, in order, before anybody else.
pub type Tap = Box<dyn FnMut(&Output) + Send>;

/// What a node is made of.
pub struct Parts {
    /// Its configuration.
    pub config: Config,
    /// Its network.
    pub network: Network,
    /// Its identity.
    pub identity: SigningKey,
    /// What it leads with.
    pub leader: Option<(SigningKey, Journal)>,
    /// Where it listens.
    pub sockets: Sockets,
    /// What it executes with; `None`: it carries messages and executes nothing.
    pub execution: Option<Execution>,
    /// For experiments: share of outgoing shreds thrown away, and a seed.
    pub drop_shreds: Option<(f64, u64)>,
    /// For experiments: while it is true, no UDP packet passes in or out.
    pub cut: Option<Arc<AtomicBool>>,
    /// An observer.
    pub tap: Option<Tap>,
}

/// Changes of the way this node counts on that are remembered.
const MAX_CHANGES: usize = 64;

/// How far a node has come.
#[derive(Debug, Default)]
pub struct Progress {
    /// Newest block whose Env was handed on.
    pub opened: Option<u64>,
    /// Newest block whose Seal was handed on.
    pub sealed: Option<u64>,
    /// Bytes of messages that wait for earlier ones.
    pub waiting: usize,
    /// The last changes of the way this node counts on, oldest first.
    pub changes: VecDeque<Change>,
    /// Changes in all, by what to and why.
    changed: BTreeMap<(&'static str, &'static str), u64>,
    /// Messages by the way that was first.
    first: BTreeMap<&'static str, u64>,
    fates: BTreeMap<&'static str, u64>,
    events: BTreeMap<&'static str, u64>,
}

impl Progress {
    /// Verified messages by what became of them.
    pub fn fates(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Fate::ALL.iter().map(|f| (f.label(), self.fates.get(f.label()).copied().unwrap_or(0)))
    }

    /// Messages that others sent, by the way that was first.
    pub fn first(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        [Via::Turbine, Via::Repair, Via::Whole, Via::Gossip]
            .iter()
            .map(|via| (via.name(), self.first.get(via.name()).copied().unwrap_or(0)))
    }

    /// Changes of the way this node counts on, by what to and why.
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

/// What the servers of a node read.
pub struct Shared {
    /// Who this node is.
    pub peer: PeerId,
    /// The driver.
    pub net: Handle,
    /// The gateway's door.
    pub ingest: Arc<IngestStats>,
    /// Subscriptions.
    pub rpc: RpcStats,
    /// Metrics.
    pub metrics: Metrics,
    /// The execution client, if there is one.
    pub engine: Option<Arc<EngineStats>>,
    /// The executor, if there is one.
    pub executor: Option<Arc<Executor>>,
    /// The database, if there is one.
    pub store: Option<Arc<Store>>,
    /// Following the execution client, if there is one.
    pub follow: Option<Arc<FollowStats>>,
    /// What the Ethereum JSON-RPC has come to, where there is a chain to execute.
    pub eth: OnceLock<Arc<EthContext>>,
    /// Transactions on their way.
    pub forwarder: OnceLock<Arc<Forwarder>>,
    /// The gossip task, if there is one.
    pub gossip: Option<GossipHandle>,
    /// How much earlier one way was than the other.
    pub races: Races,
    /// The Flashblocks door, if there is one.
    pub flashblocks: OnceLock<Arc<FlashblocksStats>>,
    network: Network,
    leads: bool,
    progress: Mutex<Progress>,
}

impl Shared {
    /// Reads the progress.
    pub fn with_progress<T>(&self, read: impl FnOnce(&Progress) -> T) -> T {
        read(&self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn update(&self, write: impl FnOnce(&mut Progress)) {
        write(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Why the node is not ready, if it is not.
    pub fn not_ready(&self) -> Option<String> {
        let net = self.net.snapshot();
        let alone = self.network.members.len() == 1;
        if let Some(executor) = &self.executor {
            if executor.has_ended() {
                return Some("the executor has ended: see the log and start again".into());
            }
            if executor.view().heads().is_none() {
                return Some("the state source has not told its head yet".into());
            }
            let latest = executor.view().heads().map_or(0, |heads| heads.latest.number());
            let sealed = self.with_progress(|p| p.sealed).unwrap_or(0);
            if sealed > latest + BEHIND {
                return Some(format!(
                    "block {} was not executed and block {sealed} is sealed: with client.url set \
                     the execution client would fill the gap",
                    latest + 1
                ));
            }
            if let Some(failure) = self.store.as_ref().and_then(|store| store.failure()) {
                return Some(format!("the database is not written any more: {failure}"));
            }
        }
        let by_gossip = self.gossip.as_ref().map_or(0, |gossip| gossip.snapshot().connections);
        let gossip = by_gossip > 0 && net.fallback.listening;
        if net.fallback.state == State::Gossip && by_gossip == 0 {
            return Some(format!("{}, and connected to nobody there", self.way()));
        }
        (!alone && net.connected == 0 && !gossip).then(|| {
            format!(
                "not connected to any of {} peers, and nobody is heard on gossip either",
                self.network.members.len() - 1
            )
        })
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
            turbine_us = race.turbine_at.as_micros(),
            gossip_us = race.gossip_at.as_micros(),
            "a message came both ways"
        );
        self.metrics.race(race.kind.name(), race.turbine_at, race.gossip_at);
        self.races.record(race);
    }

    /// Which way this node counts on, for people.
    pub fn way(&self) -> String {
        let fallback = self.net.snapshot().fallback;
        let why = fallback.reason.map_or("", Reason::describe);
        match (fallback.mode, fallback.state) {
            (Mode::Turbine, _) => "on the overlay alone, as ordered".into(),
            (Mode::Gossip, _) => "on gossip alone, as ordered".into(),
            (Mode::Auto, State::Turbine) if fallback.listening => {
                "on the overlay, and listening to gossip".into()
            }
            (Mode::Auto, State::Turbine) => "on the overlay".into(),
            (Mode::Auto, State::Probing) => format!("on the overlay, probing gossip: {why}"),
            (Mode::Auto, State::Gossip) => format!(
                "on gossip: {why}; back after {} blocks by the overlay alone, {} so far",
                fallback.dwell, fallback.streak
            ),
        }
    }

    fn gossip_status(&self) -> Value {
        let fallback = self.net.snapshot().fallback;
        let net = self.gossip.as_ref().map(GossipHandle::snapshot);
        let counters = self.net.snapshot().counters;
        let (first, last) = self.with_progress(|p| {
            let first: serde_json::Map<String, Value> =
                p.first().map(|(way, n)| (way.to_owned(), n.into())).collect();
            let last = p.changes.back().map(|change| {
                json!({
                    "from": change.from.name(),
                    "to": change.to.name(),
                    "reason": change.reason.name(),
                    "block": change.block,
                    "at": change.at.as_micros(),
                })
            });
            (first, last)
        });
        json!({
            "policy": fallback.policy,
            "mode": fallback.mode,
            "state": fallback.state.name(),
            "way": self.way(),
            "listening": fallback.listening,
            "dwell": fallback.dwell,
            "streak": fallback.streak,
            "lastChange": last,
            "connected": net.as_ref().map(|n| n.connections),
            "barred": net.as_ref().map(|n| n.barred.iter().map(|(_, n)| n).sum::<u64>()),
            "listeners": fallback.listeners,
            "published": net.as_ref().map(|n| n.published + n.caught_up),
            "received": counters.gossip,
            "first": first,
            "race": self.races.status(),
        })
    }

    fn execution_status(&self) -> Value {
        let Some(executor) = &self.executor else { return Value::Null };
        let stats = executor.stats().snapshot();
        let heads = executor.view().heads();
        let latest = heads.as_ref().map(|heads| (heads.latest.number(), heads.latest.hash()));
        let store = self.store.as_ref().map(|store| store.stats());
        json!({
            "latest": latest.map(|(number, _)| number),
            "latestHash": latest.map(|(_, hash)| hash),
            "pending": heads.as_ref().and_then(|h| h.pending.as_ref()).map(|p| p.header.number),
            "durable": stats.durable,
            "verified": stats.verdicts.get("verified").copied().unwrap_or(0),
            "rejected": stats.verdicts.get("rejected").copied().unwrap_or(0),
            "unverified": stats.verdicts.get("unverified").copied().unwrap_or(0),
            "imported": stats.imported,
            "queued": executor.queued(),
            "overrun": stats.overrun,
            "storeFailure": self.store.as_ref().and_then(|store| store.failure()),
            "databaseBytes": store.map(|store| store.file_bytes),
        })
    }

    /// What `fragcast status` shows.
    pub fn status(&self) -> Value {
        let net = self.net.snapshot();
        let (opened, sealed) = self.with_progress(|p| (p.opened, p.sealed));
        let next = opened.map_or(0, |block| block.saturating_add(1));
        let peers: Vec<Value> = net
            .round_trips
            .iter()
            .map(|(peer, rtt)| json!({ "peer": peer, "rttMs": rtt.as_secs_f64() * 1e3 }))
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "chainId": self.network.chain_id,
            "dialect": self.network.dialect.name(),
            "peer": self.peer,
            "leads": self.leads,
            "opened": opened,
            "sealed": sealed,
            "nextGateway": self.network.schedule.gateway(next),
            "members": self.network.members.len(),
            "connected": net.connected,
            "peers": peers,
            "gossip": self.gossip_status(),
            "delivered": net.counters.delivered,
            "repaired": net.counters.repaired,
            "window": [net.window.0, net.window.1],
            "execution": self.execution_status(),
            "flashblocks": self.flashblocks.get().map(|stats| stats.status()),
            "ready": self.not_ready().is_none(),
            "outcomes": net.outcomes.iter().filter(|(_, n)| *n > 0)
                .map(|(o, n)| (o.label().to_owned(), n.into()))
                .collect::<serde_json::Map<String, Value>>(),
        })
    }
}

/// Where a running node listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// UDP.
    pub p2p: SocketAddr,
    /// Gossip, with `/p2p/` and the peer id.
    pub gossip: Vec<Multiaddr>,
    /// The gateway's door.
    pub ingest: SocketAddr,
    /// The public JSON-RPC.
    pub http: SocketAddr,
    /// The operator's JSON-RPC.
    pub admin: SocketAddr,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// The Flashblocks door, if there is one.
    pub flashblocks: Option<SocketAddr>,
}

/// A running node.
pub struct Node {
    shared: Arc<Shared>,
    addresses: Addresses,
    outputs: broadcast::Sender<Output>,
    servers: Vec<ServerHandle>,
    /// Following the execution client, forwarding transactions.
    tasks: Vec<JoinHandle<()>>,
    flashblocks: Option<Door>,
    metrics: JoinHandle<()>,
    /// `None` once it is known to have ended.
    driver: Option<JoinHandle<()>>,
    gossip: Option<JoinHandle<()>>,
    events: JoinHandle<()>,
}

impl Node {
    /// Starts everything.
    ///
    /// # Errors
    /// What could not be set up.
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
        let gossip = gossip::start(&config, &network, &peer, &gossip_identity, link).await?;

        let (engine, engine_stats) = match start_engine(&config)? {
            Some((handle, stats)) => (Some(handle), Some(stats)),
            None => (None, None),
        };
        let executing = execution.map(|e| Executing::start(e, &config)).transpose()?;
        let (own, own_rx) = mpsc::channel(OWN_QUEUE);
        let stats = Arc::new(IngestStats::default());
        let ingest = Ingest::new(
            network.schedule.clone(),
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
            let settings = flashblocks::Settings::new(&config.flashblocks);
            let door = Door::open(listener, executor.view(), settings)?;
            // Set once: the node has only just been made.
            let _ = shared.flashblocks.set(Arc::clone(door.stats()));
            flashblocks = Some(door);
        }
        if let Some(executing) = executing {
            let public = public::Public::new(&config, &shared.network, &executing)?;
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

    /// Where it listens.
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its numbers.
    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What comes out from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Output> {
        self.outputs.subscribe()
    }

    /// Resolves when a task that carries messages has ended by itself, which it should not; says
    /// which.
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

    /// Ends it: servers first, then the overlay, then what is on its way to the outputs.
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
    engine::http::check_url(&config.engine.url)?;
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
