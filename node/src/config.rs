//! The node's own configuration: `node.toml`.
//!
//! There is one set of defaults: [`Config::default`]. The commented example that `fragcast init`
//! writes is made from it, and a test compares the two. Settings that all nodes must agree on are
//! in the [network file](crate::network).

mod check;
mod example;
mod file;
mod names;
mod settings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use fragcast_rpc::calls::CallConfig;
use fragcast_rpc::eth::EthConfig;
use fragcast_rpc::flashblocks;
use fragcast_rpc::forward::ForwardConfig;
use fragcast_turbine::route::DEFAULT_FANOUT;
use fragcast_turbine::{Mode, Policy};
use serde::{Deserialize, Serialize};

use crate::gateway::reach::Unreached;

pub use check::ConfigError;
pub use file::{FileError, read_toml};
pub use names::{Live, LogFormat, ProfileName, RouteName, SignerApi, StateFrom};

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
    /// Where the list of gateways comes from.
    pub registry: Registry,
    /// Members who come and go.
    pub members: Members,
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
    /// Guests, nodes that are no members, that a member lets in. 0: none.
    pub max_guests: usize,
    /// The most that this node sends to all guests together, Mbit/s. 0: a quarter of its uplink.
    pub guests_mbps: u64,
    /// Memory for messages that are being reassembled, MiB.
    pub reassembly_mib: usize,
    /// Whether this node asks others for missing shreds, and answers them.
    pub repair: bool,
    /// Memory for recent messages that it answers with, MiB.
    pub repair_mib: usize,
    /// Memory for whole messages of recent blocks, for nodes that were away, MiB.
    pub catch_up_mib: usize,
    /// Recent blocks of which they are kept, as far as the memory goes.
    pub catch_up_blocks: usize,
    /// The most that this node sends to all nodes that were away together, Mbit/s; never more than a
    /// quarter of its uplink.
    pub catch_up_mbit: u64,
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

/// Where the list of gateways comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Files of rows, and JSON-RPC URLs of registries or portals, the most trusted first. Empty: the
    /// network file has the list.
    pub sources: Vec<String>,
    /// How often each is asked, milliseconds.
    pub poll_ms: u64,
    /// How long a request may take, milliseconds.
    pub timeout_ms: u64,
    /// The node is not ready with a list that was confirmed longer ago, seconds; 0: it is.
    pub max_age_s: u64,
    /// Where the schedule is saved for the next start.
    pub saved: PathBuf,
}

/// Members who come and go: records that nodes tell one another, and tables that leaders make of
/// them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Members {
    /// Whether this node follows them: `auto`, `on` or `off`.
    pub live: Live,
    /// UDP addresses under which others reach this node, four at most. Empty: those of its record in
    /// the network file; without any it follows and is no member.
    pub advertise: Vec<SocketAddr>,
    /// Members of a table at most.
    pub max: usize,
    /// How often this node renews its record, seconds.
    pub renew_s: u64,
    /// A record that was not renewed for so long is dead, seconds.
    pub life_s: u64,
    /// How often this node asks a peer for records, milliseconds.
    pub pull_ms: u64,
    /// A JSON file or a URL of weights by peer id. Empty: those of the network file count, and
    /// without members there those of the tables.
    pub weights: String,
    /// A contract that has the weights, asked through the execution client. Empty: there is none.
    pub contract: String,
    /// The selector of its method, 4 bytes as hex.
    pub selector: String,
    /// How often weights are read, seconds.
    pub poll_s: u64,
}

/// Settings of a node that leads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Leader {
    /// The ed25519 key that a gateway delegated to. Without the file the node does not lead.
    pub key: PathBuf,
    /// The journal that keeps a restarted leader from contradicting itself.
    pub journal: PathBuf,
    /// `auto`, `direct`, `turbine`, `rotor` or `regional`.
    pub route: RouteName,
    /// What bandwidth is worth on the regional tree: `lean` or `fast`.
    pub profile: ProfileName,
    /// Turbine's fanout.
    pub fanout: u16,
    /// Loss per hop that the code rate allows for, 0 to 0.5.
    pub loss_per_hop: f64,
    /// How long this node's own subscribers wait for the next leader to have a message that they are
    /// to see, milliseconds, at most 20; 0: they do not wait.
    pub hand_over_ms: u64,
    /// How long a substitute waits for an Env of each gateway that comes before it, milliseconds. Only
    /// where the network file has `substitutes`.
    pub substitute_after_ms: u64,
    /// What the gateway is told when nobody is connected.
    pub unreached: Unreached,
    /// URL of a signer that has the gateway's key and signs its delegation to this node. Empty:
    /// delegations come from the network file and from peers.
    pub signer: String,
    /// How it is asked.
    pub signer_api: SignerApi,
    /// How long a request to it may take, milliseconds: somebody may have to approve it.
    pub signer_timeout_ms: u64,
    /// The gateway that is to delegate, an address.
    pub gateway: String,
    /// Blocks of a delegation, which is renewed in its last quarter; 0: all blocks.
    pub delegation_blocks: u64,
    /// Where the delegation is saved for the next start.
    pub delegation: PathBuf,
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
    pub source: StateFrom,
    /// The database.
    pub db: PathBuf,
    /// Memory for the database's pages, MiB.
    pub cache_mib: usize,
    /// Blocks that can be unwound, and whose state can be read. With `source = "client"`: 128, and the
    /// client is asked for older ones.
    pub reorg_depth: u64,
    /// Messages that may wait for the executor.
    pub queue: usize,
    /// How long a block may be executed, milliseconds; 0: four times the time between blocks.
    pub time_limit_ms: u64,
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
    /// File with a token that requests must show, `Authorization: Bearer …`. Empty: none is needed.
    pub token: PathBuf,
}

/// The public JSON-RPC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// TCP address for HTTP and WebSocket.
    pub listen: SocketAddr,
    /// Whether the live page is served at `/`.
    pub page: bool,
    /// Messages that wait for a slow subscriber before it is dropped.
    pub subscriber_queue: u32,
    /// Names of this host that requests may ask for, on every TCP port; `localhost` and IP addresses
    /// always may, and with `*` all.
    pub vhosts: Vec<String>,
    /// Origins of web pages that may read answers and open WebSockets, such as
    /// `https://app.example` or `https://*.app.example`, or `*`.
    #[serde(alias = "corsdomain")]
    pub cors: Vec<String>,
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
    /// What the traces of one request may keep, MiB.
    pub trace_mib: usize,
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
    /// A subscriber of which nothing is heard for this long, not even answers to pings, is dropped,
    /// seconds.
    pub idle_s: u64,
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
    pub format: LogFormat,
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
            registry: Registry::default(),
            members: Members::default(),
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
            max_guests: 64,
            guests_mbps: 0,
            reassembly_mib: 128,
            repair: true,
            repair_mib: 64,
            catch_up_mib: 64,
            catch_up_blocks: 512,
            catch_up_mbit: 400,
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

impl Default for Registry {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            poll_ms: 1_000,
            timeout_ms: 2_000,
            max_age_s: 0,
            saved: "schedule.json".into(),
        }
    }
}

impl Default for Members {
    fn default() -> Self {
        let usual = fragcast_turbine::MembersConfig::default();
        Self {
            live: Live::Auto,
            advertise: Vec::new(),
            max: usual.max,
            renew_s: usual.renew.as_secs(),
            life_s: usual.life.as_secs(),
            pull_ms: millis(usual.pull),
            weights: String::new(),
            contract: String::new(),
            selector: String::new(),
            poll_s: 30,
        }
    }
}

impl Default for Leader {
    fn default() -> Self {
        Self {
            key: "leader.key".into(),
            journal: "leader.journal".into(),
            route: RouteName::Auto,
            profile: ProfileName::Lean,
            fanout: DEFAULT_FANOUT,
            loss_per_hop: 0.02,
            hand_over_ms: 0,
            substitute_after_ms: millis(fragcast_turbine::Config::new(0).substitute_after),
            unreached: Unreached::Refuse,
            signer: String::new(),
            signer_api: SignerApi::Web3signer,
            signer_timeout_ms: 60_000,
            gateway: String::new(),
            delegation_blocks: 0,
            delegation: "leader.delegation".into(),
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
            source: StateFrom::Genesis,
            db: "chain.redb".into(),
            cache_mib: 256,
            reorg_depth: 256,
            queue: 4096,
            time_limit_ms: 0,
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
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9340)), token: PathBuf::new() }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9320)),
            page: true,
            subscriber_queue: 4096,
            vhosts: vec!["localhost".into()],
            cors: Vec::new(),
        }
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
            trace_mib: calls.max_trace / (1024 * 1024),
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
            idle_s: settings.idle.as_secs(),
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
        Self { format: LogFormat::Text, filter: "info".into() }
    }
}

#[cfg(test)]
mod tests;
