//! The node's own configuration: `node.toml`.
//!
//! There is one set of defaults: [`Config::default`]. The commented example that `fragcast init`
//! writes is made from it, and a test compares the two. Settings that all nodes must agree on are
//! in the [network file](crate::network).

mod example;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fragcast_rpc::calls::CallConfig;
use fragcast_rpc::eth::EthConfig;
use fragcast_rpc::flashblocks;
use fragcast_rpc::forward::ForwardConfig;
use fragcast_turbine::route::DEFAULT_FANOUT;
use fragcast_turbine::{Mode, Policy, Route, RoutePolicy};
use serde::{Deserialize, Serialize};

use crate::gossip;
use crate::gossip::Multiaddr;

/// `node.toml`. Relative paths are relative to the file.
///
/// ```
/// use fragcast::config::{Config, P2p};
///
/// let config: Config = toml::from_str("p2p.uplink_mbit = 500")?;
/// config.check()?;
/// assert_eq!(config.p2p, P2p { uplink_mbit: 500, ..P2p::default() });
/// assert_eq!(config.ingest, Config::default().ingest);
/// // What `fragcast init` writes: every setting, with a comment.
/// assert!(config.example().contains("uplink_mbit = 500"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The network file.
    pub network: PathBuf,
    /// The node's identity: an ed25519 key file.
    pub identity: PathBuf,
    /// The overlay.
    pub p2p: P2p,
    /// Gossip: the fallback, and the connection to nodes that speak nothing else.
    pub gossip: Gossip,
    /// Settings of a node that leads.
    pub leader: Leader,
    /// The interface to which the gateway posts its messages.
    pub ingest: Ingest,
    /// The chain to execute, and the state to execute on.
    pub execution: Execution,
    /// An execution client to read from and to follow.
    pub client: Client,
    /// The operator's JSON-RPC.
    pub admin: Admin,
    /// The public JSON-RPC.
    pub http: Http,
    /// Limits and options of the Ethereum JSON-RPC.
    pub rpc: EthConfig,
    /// Limits of calls.
    pub calls: Calls,
    /// The Flashblocks WebSocket.
    pub flashblocks: Flashblocks,
    /// Prometheus metrics, `/healthz`, `/readyz`.
    pub metrics: Metrics,
    /// An execution client to forward to.
    pub engine: Engine,
    /// The log.
    pub log: Log,
}

/// The overlay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct P2p {
    /// UDP address to listen on.
    pub listen: SocketAddr,
    /// The most that this node sends, Mbit/s.
    pub uplink_mbit: u64,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections from one IP address.
    pub max_connections_per_address: usize,
    /// Handshakes in progress.
    pub max_handshakes: usize,
    /// Memory for messages that are being reassembled, MiB.
    pub reassembly_mib: usize,
    /// Whether this node asks others for missing shreds, and answers them.
    pub repair: bool,
    /// Memory for recent messages that it answers with, MiB.
    pub repair_mib: usize,
}

/// Gossip: the fallback, and the connection to nodes that speak nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gossip {
    /// How much this node uses gossip.
    pub policy: Policy,
    /// How messages travel.
    pub mode: Mode,
    /// TCP address to listen on, as a multiaddr. Empty: the node only dials.
    pub listen: String,
    /// Peers beside the members, such as op-node's, as multiaddrs that end in `/p2p/<id>`.
    pub peers: Vec<String>,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections from one IP address.
    pub max_connections_per_address: usize,
    /// Memory for recent messages, for listeners and for peers that ask, MiB.
    pub memory_mib: usize,
}

/// Settings of a node that leads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Leader {
    /// The ed25519 key that a gateway delegated to. Without the file the node does not lead.
    pub key: PathBuf,
    /// The journal that keeps a restarted leader from contradicting itself.
    pub journal: PathBuf,
    /// `auto`, `direct`, `turbine` or `rotor`.
    pub route: String,
    /// Turbine's fanout.
    pub fanout: u16,
    /// Loss per hop that the code rate allows for, 0 to 0.5.
    pub loss_per_hop: f64,
}

/// The interface to which the gateway posts its messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    /// TCP address. It accepts everything that the gateway signed, so keep it on loopback.
    pub listen: SocketAddr,
    /// The largest request body, MiB. A message of 10 MiB is 20 MiB of hex.
    pub max_body_mib: u32,
}

/// The chain that a node executes, and its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Execution {
    /// `op-sepolia`, `op-mainnet`, `dev`, or a geth genesis JSON. Empty: nothing is executed.
    pub chain: String,
    /// `genesis`: a database that starts from the chain's genesis. `client`: the state is read
    /// from the execution client.
    pub source: String,
    /// The database.
    pub db: PathBuf,
    /// Memory for the database's pages, MiB.
    pub cache_mib: usize,
    /// Blocks that can be unwound.
    pub reorg_depth: u64,
    /// Messages that may wait for the executor.
    pub queue: usize,
}

/// An execution client to read from and to follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Client {
    /// Its Ethereum JSON-RPC, such as `http://127.0.0.1:8545`. Empty: there is none.
    pub url: String,
    /// How often it is asked for its head, milliseconds.
    pub poll_ms: u64,
    /// How long a request may take, milliseconds.
    pub timeout_ms: u64,
    /// Memory for trie nodes read from it, MiB.
    pub cache_mib: usize,
}

/// The operator's JSON-RPC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// TCP address. Whoever reaches it controls the node, so keep it on loopback.
    pub listen: SocketAddr,
}

/// The public JSON-RPC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// TCP address for HTTP and WebSocket.
    pub listen: SocketAddr,
    /// Messages that wait for a slow subscriber before it is dropped.
    pub subscriber_queue: u32,
}

/// Limits of `eth_call` and similar methods, and of transactions that are being forwarded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Calls {
    /// Threads that calls run on; 0: one less than the number of cores.
    pub threads: usize,
    /// Calls that may wait for a thread.
    pub queue: usize,
    /// Gas limit of a call; 0: the block's.
    pub gas_cap: u64,
    /// The longest that a call may run, milliseconds.
    pub time_limit_ms: u64,
    /// EVM memory of a call, MiB.
    pub memory_mib: u64,
    /// Time-out of connecting to a gateway, and again of its answer, milliseconds.
    pub gateway_timeout_ms: u64,
    /// How long `eth_sendRawTransactionSync` waits if the request does not say, milliseconds.
    pub sync_timeout_ms: u64,
    /// The longest that a request may wait, milliseconds.
    pub max_sync_timeout_ms: u64,
}

/// A WebSocket for consumers of Flashblocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Flashblocks {
    /// TCP address, such as `127.0.0.1:9350`. Empty: there is none.
    pub listen: String,
    /// Subscribers in all.
    pub max_subscribers: usize,
    /// Subscribers from one IP address.
    pub max_subscribers_per_address: usize,
    /// Memory for flashblocks that slow subscribers have not taken yet, MiB.
    pub buffer_mib: usize,
    /// A subscriber that does not take a flashblock within this is dropped, milliseconds.
    pub slow_subscriber_ms: u64,
}

/// Prometheus metrics, `/healthz`, `/readyz`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// TCP address.
    pub listen: SocketAddr,
}

/// An execution client to forward to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Its engine API, such as `http://127.0.0.1:8551`. Empty: nothing is forwarded.
    pub url: String,
    /// File with the shared secret, 64 hex digits.
    pub jwt_secret: PathBuf,
    /// How long a request may take, milliseconds; 0 means the default of two seconds.
    pub timeout_ms: u64,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` or `json`.
    pub format: String,
    /// As in `RUST_LOG`, such as `info` or `info,fragcast_turbine=debug`.
    pub filter: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: "network.toml".into(),
            identity: "identity.key".into(),
            p2p: P2p::default(),
            gossip: Gossip::default(),
            leader: Leader::default(),
            ingest: Ingest::default(),
            execution: Execution::default(),
            client: Client::default(),
            admin: Admin::default(),
            http: Http::default(),
            rpc: EthConfig::default(),
            calls: Calls::default(),
            flashblocks: Flashblocks::default(),
            metrics: Metrics::default(),
            engine: Engine::default(),
            log: Log::default(),
        }
    }
}

impl Default for P2p {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 9300)),
            uplink_mbit: 1000,
            max_connections: 1024,
            max_connections_per_address: 64,
            max_handshakes: 64,
            reassembly_mib: 128,
            repair: true,
            repair_mib: 64,
        }
    }
}

impl Default for Gossip {
    fn default() -> Self {
        Self {
            policy: Policy::Standby,
            mode: Mode::Auto,
            // op-node's port.
            listen: "/ip4/0.0.0.0/tcp/9222".into(),
            peers: Vec::new(),
            max_connections: 128,
            max_connections_per_address: 16,
            memory_mib: 32,
        }
    }
}

impl Default for Leader {
    fn default() -> Self {
        Self {
            key: "leader.key".into(),
            journal: "leader.journal".into(),
            route: "auto".into(),
            fanout: DEFAULT_FANOUT,
            loss_per_hop: 0.02,
        }
    }
}

impl Default for Ingest {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9310)), max_body_mib: 24 }
    }
}

impl Default for Execution {
    fn default() -> Self {
        Self {
            chain: String::new(),
            source: "genesis".into(),
            db: "chain.redb".into(),
            cache_mib: 256,
            reorg_depth: 256,
            queue: 4096,
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self { url: String::new(), poll_ms: 500, timeout_ms: 5_000, cache_mib: 256 }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9340)) }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9320)), subscriber_queue: 4096 }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Default for Calls {
    fn default() -> Self {
        let calls = CallConfig::default();
        let forward = ForwardConfig::default();
        Self {
            threads: 0,
            queue: calls.queue,
            gas_cap: calls.gas_cap,
            time_limit_ms: millis(calls.time_limit),
            memory_mib: calls.memory_limit / (1024 * 1024),
            gateway_timeout_ms: millis(forward.timeout),
            sync_timeout_ms: millis(forward.sync_timeout),
            max_sync_timeout_ms: millis(forward.max_sync_timeout),
        }
    }
}

impl Default for Flashblocks {
    fn default() -> Self {
        let settings = flashblocks::Settings::default();
        Self {
            listen: String::new(),
            max_subscribers: settings.subscribers,
            max_subscribers_per_address: settings.per_address,
            buffer_mib: settings.buffer / (1024 * 1024),
            slow_subscriber_ms: millis(settings.slow_after),
        }
    }
}

impl Flashblocks {
    /// Limits of the server.
    pub fn settings(&self) -> flashblocks::Settings {
        flashblocks::Settings {
            subscribers: self.max_subscribers,
            per_address: self.max_subscribers_per_address,
            buffer: self.buffer_mib * 1024 * 1024,
            slow_after: Duration::from_millis(self.slow_subscriber_ms),
            ..flashblocks::Settings::default()
        }
    }

    /// The address to listen on, if any.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        self.listen.parse().map(Some).map_err(|_| ConfigError::Value {
            key: "flashblocks.listen",
            problem: format!("`{}` is no address such as 127.0.0.1:9350", self.listen),
        })
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9330)) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: "text".into(), filter: "info".into() }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}; `fragcast init` writes one")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// It is not TOML of the expected form.
    #[error("{path}: {source}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// The parser's error, with its place.
        source: Box<toml::de::Error>,
    },
    /// A value is out of range.
    #[error("{key}: {problem}")]
    Value {
        /// The setting.
        key: &'static str,
        /// The problem, and what to do.
        problem: String,
    },
}

impl Config {
    /// Reads a file, makes its relative paths relative to it, and checks the ranges.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let config = Self::read(path)?;
        config.check()?;
        Ok(config)
    }

    /// Like [`load`](Self::load), without the check: flags may still change it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Io { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text).map_err(|source| ConfigError::Toml {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let dir = path.parent().unwrap_or_else(|| Path::new(""));
        let paths = [
            &mut config.network,
            &mut config.identity,
            &mut config.leader.key,
            &mut config.leader.journal,
            &mut config.execution.db,
        ];
        for path in paths {
            *path = dir.join(&*path);
        }
        if !config.engine.jwt_secret.as_os_str().is_empty() {
            config.engine.jwt_secret = dir.join(&config.engine.jwt_secret);
        }
        // A name stays a name; what looks like a file is one beside the configuration.
        let chain = &mut config.execution.chain;
        if chain.ends_with(".json") {
            *chain = dir.join(&*chain).to_string_lossy().into_owned();
        }
        Ok(config)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let value = |key, problem: String| Err(ConfigError::Value { key, problem });
        if self.p2p.uplink_mbit == 0 || self.p2p.uplink_mbit > 400_000 {
            return value("p2p.uplink_mbit", "must be 1 to 400000".into());
        }
        if self.p2p.max_handshakes < 2 || self.p2p.max_connections < 2 {
            return value("p2p.max_handshakes, p2p.max_connections", "must be at least 2".into());
        }
        if self.p2p.reassembly_mib < 32 {
            return value(
                "p2p.reassembly_mib",
                "must be at least 32: one message of 10 MiB with its coding shreds needs 30".into(),
            );
        }
        self.check_gossip()?;
        if !(0.0..=0.5).contains(&self.leader.loss_per_hop) {
            return value("leader.loss_per_hop", "must be 0 to 0.5".into());
        }
        self.route()?;
        if !matches!(self.log.format.as_str(), "text" | "json") {
            return value("log.format", format!("`{}` is neither text nor json", self.log.format));
        }
        let execution = &self.execution;
        if !matches!(execution.source.as_str(), "genesis" | "client") {
            let problem = format!("`{}` is neither genesis nor client", execution.source);
            return value("execution.source", problem);
        }
        if !execution.chain.is_empty() && execution.source == "client" && self.client.url.is_empty()
        {
            return value("client.url", "must be set for execution.source = \"client\"".into());
        }
        if !(1..=1_000_000).contains(&execution.reorg_depth) {
            return value("execution.reorg_depth", "must be 1 to 1000000".into());
        }
        if execution.queue < 16 {
            return value("execution.queue", "must be at least 16".into());
        }
        if self.client.poll_ms < 10 || self.client.timeout_ms < 10 {
            return value("client.poll_ms, client.timeout_ms", "must be at least 10".into());
        }
        if self.calls.queue == 0 || self.calls.time_limit_ms == 0 || self.calls.memory_mib == 0 {
            let problem = "must be at least 1".into();
            return value("calls.queue, calls.time_limit_ms, calls.memory_mib", problem);
        }
        if self.rpc.max_batch == 0 || self.rpc.max_connections == 0 {
            return value("rpc.max_batch, rpc.max_connections", "must be at least 1".into());
        }
        self.check_flashblocks()?;
        if !self.engine.url.is_empty() && self.engine.jwt_secret.as_os_str().is_empty() {
            return value("engine.jwt_secret", "the engine API needs a secret file".into());
        }
        Ok(())
    }

    fn check_gossip(&self) -> Result<(), ConfigError> {
        let gossip = &self.gossip;
        let value = |key, problem: String| Err(ConfigError::Value { key, problem });
        if gossip.mode == Mode::Gossip && gossip.policy == Policy::Off {
            let problem = "must be standby or always for gossip.mode = \"gossip\"".into();
            return value("gossip.policy", problem);
        }
        if gossip.max_connections < 2 || gossip.max_connections_per_address == 0 {
            let problem = "must be at least 2, and 1".into();
            return value("gossip.max_connections, gossip.max_connections_per_address", problem);
        }
        if gossip.memory_mib < 12 {
            let problem = "must be at least 12: a message has up to 10 MiB".into();
            return value("gossip.memory_mib", problem);
        }
        if let Err(error) = self.gossip_listen() {
            return value("gossip.listen", error);
        }
        if let Err(error) = self.gossip_peers() {
            return value("gossip.peers", error);
        }
        Ok(())
    }

    fn check_flashblocks(&self) -> Result<(), ConfigError> {
        let flashblocks = &self.flashblocks;
        let value = |key, problem: &str| Err(ConfigError::Value { key, problem: problem.into() });
        flashblocks.address()?;
        if flashblocks.max_subscribers == 0 || flashblocks.max_subscribers_per_address == 0 {
            let key = "flashblocks.max_subscribers, flashblocks.max_subscribers_per_address";
            return value(key, "must be at least 1");
        }
        if !(1..=4096).contains(&flashblocks.buffer_mib) {
            return value("flashblocks.buffer_mib", "must be 1 to 4096");
        }
        if flashblocks.slow_subscriber_ms < 10 {
            return value("flashblocks.slow_subscriber_ms", "must be at least 10");
        }
        Ok(())
    }

    /// The gossip address to listen on, if any.
    ///
    /// # Errors
    /// The address does not parse.
    pub fn gossip_listen(&self) -> Result<Option<Multiaddr>, String> {
        let text = &self.gossip.listen;
        if text.is_empty() { Ok(None) } else { gossip::listen_address(text).map(Some) }
    }

    /// Peers beside the members.
    ///
    /// # Errors
    /// An address does not parse.
    pub fn gossip_peers(&self) -> Result<Vec<Multiaddr>, String> {
        self.gossip.peers.iter().map(|text| gossip::peer_address(text)).collect()
    }

    /// The leader's route policy.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn route(&self) -> Result<RoutePolicy, ConfigError> {
        let fanout = self.leader.fanout;
        if fanout == 0 {
            let problem = "must be at least 1".into();
            return Err(ConfigError::Value { key: "leader.fanout", problem });
        }
        Ok(match self.leader.route.as_str() {
            "auto" => RoutePolicy::Auto,
            "direct" => RoutePolicy::Fixed(Route::Direct),
            "turbine" => RoutePolicy::Fixed(Route::Turbine { fanout }),
            "rotor" => RoutePolicy::Fixed(Route::Rotor),
            other => {
                let problem = format!("`{other}` is none of auto, direct, turbine, rotor");
                return Err(ConfigError::Value { key: "leader.route", problem });
            }
        })
    }

    /// The engine's request time-out, if one is set.
    pub const fn engine_timeout(&self) -> Option<Duration> {
        match self.engine.timeout_ms {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        }
    }
}

#[cfg(test)]
mod tests;
