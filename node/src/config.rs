//! The node's own configuration: `node.toml`.
//!
//! One set of defaults: [`Config::default`]. The commented example that `fragcast init` writes
//! is made from it, and a test holds both together. What all nodes must agree on stands in the
//! [network file](crate::network).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fragcast_turbine::route::DEFAULT_FANOUT;
use fragcast_turbine::{Route, RoutePolicy};
use serde::{Deserialize, Serialize};

use crate::eth::EthConfig;
use crate::eth_call::CallConfig;
use crate::forward::ForwardConfig;

/// `node.toml`. Relative paths are relative to the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The network file.
    pub network: PathBuf,
    /// The node's identity: an ed25519 key file.
    pub identity: PathBuf,
    /// The overlay.
    pub p2p: P2p,
    /// What a gateway's node needs.
    pub leader: Leader,
    /// Where the gateway hands in its messages.
    pub ingest: Ingest,
    /// What it executes, and on what state.
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
    /// What this node sends at most, Mbit/s.
    pub uplink_mbit: u64,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections from one IP address.
    pub max_connections_per_address: usize,
    /// Handshakes in progress.
    pub max_handshakes: usize,
    /// Memory for messages in the making, MiB.
    pub reassembly_mib: usize,
}

/// What a gateway's node needs.
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
    /// Loss per hop that the code rate is made for, 0 to 0.5.
    pub loss_per_hop: f64,
}

/// Where the gateway hands in its messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    /// TCP address. It takes whatever the gateway signed, so keep it on loopback.
    pub listen: SocketAddr,
    /// The largest request body, MiB. A message of 10 MiB is 20 MiB of hex.
    pub max_body_mib: u32,
}

/// What a node executes, and on what state.
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
    /// Blocks that can be taken back.
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
    /// TCP address. Who reaches it can steer the node, so keep it on loopback.
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

/// Limits of `eth_call` and its kin, and of transactions on their way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Calls {
    /// Threads that calls run on; 0: one less than there are cores.
    pub threads: usize,
    /// Calls that may wait for a thread.
    pub queue: usize,
    /// Gas that a call may have; 0: as much as a block.
    pub gas_cap: u64,
    /// Time that a call may run, milliseconds.
    pub time_limit_ms: u64,
    /// EVM memory of a call, MiB.
    pub memory_mib: u64,
    /// How long connecting to a gateway may take, and again its answer, milliseconds.
    pub gateway_timeout_ms: u64,
    /// How long `eth_sendRawTransactionSync` waits if it does not say, milliseconds.
    pub sync_timeout_ms: u64,
    /// The longest that it may wait, milliseconds.
    pub max_sync_timeout_ms: u64,
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
            leader: Leader::default(),
            ingest: Ingest::default(),
            execution: Execution::default(),
            client: Client::default(),
            admin: Admin::default(),
            http: Http::default(),
            rpc: EthConfig::default(),
            calls: Calls::default(),
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

impl Default for Calls {
    fn default() -> Self {
        let calls = CallConfig::default();
        let forward = ForwardConfig::default();
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Self {
            threads: 0,
            queue: calls.queue,
            gas_cap: calls.gas_cap,
            time_limit_ms: ms(calls.time_limit),
            memory_mib: calls.memory_limit / (1024 * 1024),
            gateway_timeout_ms: ms(forward.timeout),
            sync_timeout_ms: ms(forward.sync_timeout),
            max_sync_timeout_ms: ms(forward.max_sync_timeout),
        }
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
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not TOML of the expected form.
    #[error("{path}: {source}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value is out of range.
    #[error("{key}: {problem}")]
    Value {
        /// Which.
        key: &'static str,
        /// What to do.
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
        if !self.engine.url.is_empty() && self.engine.jwt_secret.as_os_str().is_empty() {
            return value("engine.jwt_secret", "the engine API needs a secret file".into());
        }
        Ok(())
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

    /// The commented example.
    pub fn example(&self) -> String {
        let Self {
            p2p,
            leader,
            ingest,
            execution,
            client,
            admin,
            http,
            rpc,
            calls,
            metrics,
            engine,
            log,
            ..
        } = self;
        format!(
            r#"# Configuration of a Fragcast node. Relative paths are relative to this file.

# What all nodes agree on: chain, gateways, members.
network = {network:?}
# This node's identity, an ed25519 key. Keep it secret.
identity = {identity:?}

[p2p]
# UDP address for QUIC.
listen = "{p2p_listen}"
# What this node sends at most, Mbit/s. Sending is paced to it.
uplink_mbit = {uplink}
max_connections = {max_connections}
max_connections_per_address = {per_address}
max_handshakes = {handshakes}
# Memory for messages in the making, MiB.
reassembly_mib = {reassembly}

[leader]
# The ed25519 key that a gateway delegated to. Without this file the node only follows.
key = {key:?}
# Which attempts were opened. Never copy or restore it without the key, nor the key without it.
journal = {journal:?}
# auto, direct, turbine or rotor; the fanout is turbine's.
route = "{route}"
fanout = {fanout}
# Loss per hop that the code rate is made for.
loss_per_hop = {loss}

[ingest]
# Where the gateway posts based_env, based_newFrag and based_sealFrag. Keep it on loopback.
listen = "{ingest_listen}"
max_body_mib = {max_body}

[execution]
# op-sepolia, op-mainnet, dev, or a geth genesis JSON with fork times.
# Empty: the node carries messages and executes nothing.
chain = "{chain}"
# genesis: a database that starts from the chain's genesis
# client: the state is read from the execution client, with proofs
source = "{source}"
db = {db:?}
# Memory for the database's pages, MiB.
cache_mib = {db_cache}
# Blocks that can be taken back.
reorg_depth = {reorg_depth}
# Messages that may wait for the executor.
queue = {execution_queue}

[client]
# Ethereum JSON-RPC of an execution client, such as "http://127.0.0.1:8545", whose canonical chain
# is followed and which answers for older blocks. Empty: there is none.
url = "{client_url}"
# How often it is asked for its head, and how long a request may take, milliseconds.
poll_ms = {poll_ms}
timeout_ms = {client_timeout}
# Memory for trie nodes read from it, MiB.
cache_mib = {client_cache}

[admin]
# The operator's JSON-RPC. Keep it on loopback.
listen = "{admin_listen}"

[http]
# Public JSON-RPC over HTTP and WebSocket: fragcast_* and, with a chain to execute, eth_*.
listen = "{http_listen}"
# Messages and events that wait for a slow subscriber before it is dropped.
subscriber_queue = {queue}

[rpc]
{rpc}
[calls]
# Threads that eth_call and its kin run on; 0: one less than there are cores.
threads = {call_threads}
# Calls that may wait for a thread.
queue = {call_queue}
# Gas that a call may have; 0: as much as a block.
gas_cap = {gas_cap}
# Time that a call may run, milliseconds.
time_limit_ms = {time_limit}
# EVM memory of a call, MiB.
memory_mib = {call_memory}
# How long connecting to a gateway may take, and again its answer, milliseconds.
gateway_timeout_ms = {gateway_timeout}
# How long eth_sendRawTransactionSync waits if it does not say, and at most, milliseconds.
sync_timeout_ms = {sync_timeout}
max_sync_timeout_ms = {max_sync_timeout}

[metrics]
# /metrics for Prometheus, /healthz, /readyz.
listen = "{metrics_listen}"

[engine]
# Engine API of an execution client that takes engine_envV0, engine_newFragV0 and
# engine_sealFragV0, such as "http://127.0.0.1:8551". Empty: nothing is forwarded.
url = "{url}"
# File with the shared secret, 64 hex digits.
jwt_secret = {jwt:?}
# How long a request may take, milliseconds; 0 means two seconds.
timeout_ms = {timeout}

[log]
# text or json
format = "{format}"
# As in RUST_LOG.
filter = "{filter}"
"#,
            network = self.network,
            identity = self.identity,
            p2p_listen = p2p.listen,
            uplink = p2p.uplink_mbit,
            max_connections = p2p.max_connections,
            per_address = p2p.max_connections_per_address,
            handshakes = p2p.max_handshakes,
            reassembly = p2p.reassembly_mib,
            key = leader.key,
            journal = leader.journal,
            route = leader.route,
            fanout = leader.fanout,
            loss = leader.loss_per_hop,
            ingest_listen = ingest.listen,
            max_body = ingest.max_body_mib,
            chain = execution.chain,
            source = execution.source,
            db = execution.db,
            db_cache = execution.cache_mib,
            reorg_depth = execution.reorg_depth,
            execution_queue = execution.queue,
            client_url = client.url,
            poll_ms = client.poll_ms,
            client_timeout = client.timeout_ms,
            client_cache = client.cache_mib,
            admin_listen = admin.listen,
            http_listen = http.listen,
            queue = http.subscriber_queue,
            rpc = rpc_lines(rpc),
            call_threads = calls.threads,
            call_queue = calls.queue,
            gas_cap = calls.gas_cap,
            time_limit = calls.time_limit_ms,
            call_memory = calls.memory_mib,
            gateway_timeout = calls.gateway_timeout_ms,
            sync_timeout = calls.sync_timeout_ms,
            max_sync_timeout = calls.max_sync_timeout_ms,
            metrics_listen = metrics.listen,
            url = engine.url,
            jwt = engine.jwt_secret,
            timeout = engine.timeout_ms,
            format = log.format,
            filter = log.filter,
        )
    }
}

/// What the settings of `[rpc]` mean.
const RPC: [(&str, &str); 17] = [
    ("preconf_as_latest", "Reads of `latest` see the newest executed frag."),
    (
        "proxied",
        "Methods that are passed to the execution client; \"debug_*\" and \"trace_*\" stand for the \
         usual ones.",
    ),
    ("max_batch", "Calls in a batch."),
    ("max_request", "Bytes of a request."),
    ("max_response", "Bytes of an answer."),
    ("max_connections", "Connections at a time."),
    ("max_subscriptions_per_connection", "Subscriptions of a connection."),
    ("max_subscriptions", "Subscriptions in all."),
    ("message_buffer", "Messages that wait for a connection to take them."),
    ("slow_subscriber_ms", "A subscriber who takes nothing for so long is dropped."),
    ("max_heavy_calls", "Calls at a time that go through many blocks."),
    ("max_log_blocks", "Blocks that eth_getLogs goes through."),
    ("max_logs", "Logs that eth_getLogs gives."),
    ("max_filter_values", "Addresses and topics in a filter of logs."),
    ("max_filters", "Filters that are polled, in all."),
    ("filter_timeout_s", "A filter that is not polled for so long is forgotten."),
    ("max_fee_history", "Blocks that eth_feeHistory goes through."),
];

/// The settings of `[rpc]` with their meanings.
fn rpc_lines(rpc: &EthConfig) -> String {
    let table = toml::Table::try_from(rpc).unwrap_or_default();
    let line = |(key, meaning): &(&str, &str)| {
        table.get(*key).map(|value| format!("# {meaning}\n{key} = {value}\n"))
    };
    RPC.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_the_default() {
        let default = Config::default();
        let parsed: Config = toml::from_str(&default.example()).unwrap();
        assert_eq!(parsed, default);
        default.check().unwrap();
    }

    #[test]
    fn the_example_names_every_key() {
        let table: toml::Table = toml::from_str(&Config::default().example()).unwrap();
        let all = toml::Table::try_from(Config::default()).unwrap();
        let keys = |table: &toml::Table| {
            let mut keys: Vec<String> = Vec::new();
            for (name, value) in table {
                keys.push(name.clone());
                keys.extend(
                    value.as_table().iter().flat_map(|t| t.keys()).map(|k| format!("{name}.{k}")),
                );
            }
            keys.sort();
            keys
        };
        assert_eq!(keys(&table), keys(&all));
    }

    #[test]
    fn mistakes_are_told_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.toml");
        for (text, part) in [
            ("[p2p]\nuplnk_mbit = 5", "uplnk_mbit"),
            ("[p2p]\nuplink_mbit = 0", "p2p.uplink_mbit"),
            ("[p2p]\nlisten = \"here\"", "listen"),
            ("[leader]\nroute = \"gossip\"", "leader.route"),
            ("[leader]\nloss_per_hop = 0.9", "leader.loss_per_hop"),
            ("[leader]\nfanout = 0", "leader.fanout"),
            ("[log]\nformat = \"xml\"", "log.format"),
            ("[engine]\nurl = \"http://x\"", "engine.jwt_secret"),
            ("[p2p]\nreassembly_mib = 1", "reassembly_mib"),
            ("[execution]\nsource = \"witness\"", "execution.source"),
            ("[execution]\nchain = \"dev\"\nsource = \"client\"", "client.url"),
            ("[execution]\nreorg_depth = 0", "execution.reorg_depth"),
            ("[execution]\nqueue = 1", "execution.queue"),
            ("[client]\npoll_ms = 0", "client.poll_ms"),
            ("[calls]\nqueue = 0", "calls.queue"),
            ("[rpc]\nmax_batch = 0", "rpc.max_batch"),
            ("[rpc]\nmax_bath = 1", "max_bath"),
            ("network = ", "node.toml"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Config::load(&path).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let error = Config::load(&dir.path().join("none.toml")).unwrap_err().to_string();
        assert!(error.contains("fragcast init"), "{error}");
    }
}
