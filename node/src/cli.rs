//! The command line. Flags follow reth's where it has one; every flag of `run` that overrides
//! the configuration has an environment variable too.

mod chains;
mod check;
mod files;
mod fork_times;
mod run;
mod setup;
#[cfg(unix)]
mod signals;
#[cfg(unix)]
mod top;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use fragcast_turbine::{Mode, Policy};

use crate::config::{Config, LogFormat, StateFrom};
use crate::lab::devnet::DevnetArgs;
use crate::lab::replay::ReplayArgs;
use crate::log;

/// Carries the fragments of a block from the gateway that builds it to every node.
#[derive(Debug, Parser)]
#[command(name = "fragcast", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a node.
    Run(Box<RunArgs>),
    /// Writes a commented configuration, keys and a network file into a directory.
    Init(setup::InitArgs),
    /// Makes one key file.
    Keygen(setup::KeygenArgs),
    /// Signs a gateway's delegation to a node's peer id and leader key.
    Delegate(setup::DelegateArgs),
    /// Checks a configuration and everything it refers to, without starting anything.
    CheckConfig(check::CheckArgs),
    /// Prints the chains that are known by name: forks, and what this build lacks of them.
    Chains(chains::ChainsArgs),
    /// Asks a running node how it is.
    Status(check::StatusArgs),
    /// Shows a running node in the terminal, as its live page does.
    #[cfg(unix)]
    Top(top::TopArgs),
    /// Runs a whole network on this machine, with a built-in gateway.
    Devnet(DevnetArgs),
    /// Sends recorded blocks through a network on this machine.
    Replay(ReplayArgs),
}

/// Arguments of `fragcast run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The configuration.
    #[arg(long, env = "FRAGCAST_CONFIG", default_value = "node.toml")]
    config: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
}

impl RunArgs {
    /// Reads the configuration, with what the flags change.
    ///
    /// # Errors
    /// It cannot be used.
    fn load(&self) -> anyhow::Result<Config> {
        let mut config = Config::read(&self.config)?;
        self.overrides.apply(&mut config)?;
        Ok(config)
    }
}

/// Flags that override the configuration.
#[derive(Debug, Default, clap::Args)]
struct Overrides {
    /// UDP address for QUIC.
    #[arg(long = "p2p.listen", env = "FRAGCAST_P2P_LISTEN")]
    p2p_listen: Option<SocketAddr>,
    /// How messages travel: auto, turbine (the overlay alone) or gossip.
    #[arg(long = "mode", env = "FRAGCAST_MODE")]
    mode: Option<Mode>,
    /// How much this node uses gossip: off, standby or always.
    #[arg(long = "gossip.policy", env = "FRAGCAST_GOSSIP_POLICY")]
    gossip_policy: Option<Policy>,
    /// TCP multiaddr to listen on for gossip.
    #[arg(long = "gossip.listen", env = "FRAGCAST_GOSSIP_LISTEN")]
    gossip_listen: Option<String>,
    /// A gossip peer's multiaddr, which ends in /p2p/<id>; may be repeated.
    #[arg(long = "gossip.peer", env = "FRAGCAST_GOSSIP_PEERS", value_delimiter = ',')]
    gossip_peers: Vec<String>,
    /// Where the list of gateways comes from: a gateways.json, or the http:// URL of a registry or
    /// portal; may be repeated.
    #[arg(long = "registry.source", env = "FRAGCAST_REGISTRY_SOURCES", value_delimiter = ',')]
    registry_sources: Vec<String>,
    /// The most that this node sends, Mbit/s.
    #[arg(long = "p2p.uplink-mbit", env = "FRAGCAST_P2P_UPLINK_MBIT")]
    uplink_mbit: Option<u64>,
    /// IP address of the public JSON-RPC.
    #[arg(long = "http.addr", env = "FRAGCAST_HTTP_ADDR")]
    http_addr: Option<std::net::IpAddr>,
    /// TCP port of the public JSON-RPC.
    #[arg(long = "http.port", env = "FRAGCAST_HTTP_PORT")]
    http_port: Option<u16>,
    /// Serves no live page at `/` of the public JSON-RPC.
    #[arg(long = "no-page", env = "FRAGCAST_NO_PAGE")]
    no_page: bool,
    /// TCP address to which the gateway posts its messages.
    #[arg(long = "ingest.listen", env = "FRAGCAST_INGEST_LISTEN")]
    ingest_listen: Option<SocketAddr>,
    /// TCP address of the metrics.
    #[arg(long = "metrics", env = "FRAGCAST_METRICS")]
    metrics: Option<SocketAddr>,
    /// A chain's name or id (`fragcast chains` prints them), dev, or a geth genesis JSON: executes
    /// its blocks.
    #[arg(long = "chain", env = "FRAGCAST_CHAIN")]
    chain: Option<String>,
    /// Where the state comes from: genesis or client.
    #[arg(long = "execution.source", env = "FRAGCAST_EXECUTION_SOURCE")]
    source: Option<StateFrom>,
    /// The database.
    #[arg(long = "execution.db", env = "FRAGCAST_EXECUTION_DB")]
    db: Option<PathBuf>,
    /// Ethereum JSON-RPC of the execution client.
    #[arg(long = "client.url", env = "FRAGCAST_CLIENT_URL")]
    client_url: Option<String>,
    /// Names of this host that requests may ask for, on every TCP port; `*`: all.
    #[arg(long = "http.vhosts", env = "FRAGCAST_HTTP_VHOSTS", value_delimiter = ',')]
    vhosts: Option<Vec<String>>,
    /// Origins of web pages that may read answers and open WebSockets; `*`: all.
    #[arg(
        long = "http.cors",
        alias = "http.corsdomain",
        env = "FRAGCAST_HTTP_CORS",
        value_delimiter = ','
    )]
    cors: Option<Vec<String>>,
    /// File with the token of the operator's JSON-RPC.
    #[arg(long = "admin.token", env = "FRAGCAST_ADMIN_TOKEN")]
    admin_token: Option<PathBuf>,
    /// The path / shows the preconfirmed view, as /preconf always does.
    #[arg(long = "rpc.preconf-as-latest", env = "FRAGCAST_RPC_PRECONF_AS_LATEST")]
    preconf_as_latest: bool,
    /// TCP address of the Flashblocks WebSocket.
    #[arg(long = "flashblocks.listen", env = "FRAGCAST_FLASHBLOCKS_LISTEN")]
    flashblocks_listen: Option<SocketAddr>,
    /// TCP address of the operator's JSON-RPC.
    #[arg(long = "admin.listen", env = "FRAGCAST_ADMIN_LISTEN")]
    admin_listen: Option<SocketAddr>,
    /// Engine API of the execution client.
    #[arg(long = "engine.url", env = "FRAGCAST_ENGINE_URL")]
    engine_url: Option<String>,
    /// File with the engine API's secret.
    #[arg(long = "authrpc.jwtsecret", env = "FRAGCAST_AUTHRPC_JWTSECRET")]
    jwt_secret: Option<PathBuf>,
    /// text or json.
    #[arg(long = "log.format", env = "FRAGCAST_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// As in RUST_LOG.
    #[arg(long = "log.filter", env = "FRAGCAST_LOG_FILTER")]
    log_filter: Option<String>,
}

impl Overrides {
    fn apply(&self, config: &mut Config) -> anyhow::Result<()> {
        fn set<T: Clone>(to: &mut T, from: Option<&T>) {
            if let Some(value) = from {
                to.clone_from(value);
            }
        }
        set(&mut config.p2p.listen, self.p2p_listen.as_ref());
        set(&mut config.gossip.mode, self.mode.as_ref());
        set(&mut config.gossip.policy, self.gossip_policy.as_ref());
        set(&mut config.gossip.listen, self.gossip_listen.as_ref());
        config.gossip.peers.extend(self.gossip_peers.iter().cloned());
        config.registry.sources.extend(self.registry_sources.iter().cloned());
        set(&mut config.p2p.uplink_mbit, self.uplink_mbit.as_ref());
        if let Some(ip) = self.http_addr {
            config.http.listen.set_ip(ip);
        }
        if let Some(port) = self.http_port {
            config.http.listen.set_port(port);
        }
        config.http.page &= !self.no_page;
        set(&mut config.ingest.listen, self.ingest_listen.as_ref());
        set(&mut config.metrics.listen, self.metrics.as_ref());
        set(&mut config.execution.chain, self.chain.as_ref());
        set(&mut config.execution.source, self.source.as_ref());
        set(&mut config.execution.db, self.db.as_ref());
        set(&mut config.client.url, self.client_url.as_ref());
        if let Some(listen) = self.flashblocks_listen {
            config.flashblocks.listen = listen.to_string();
        }
        set(&mut config.admin.listen, self.admin_listen.as_ref());
        set(&mut config.admin.token, self.admin_token.as_ref());
        set(&mut config.http.vhosts, self.vhosts.as_ref());
        set(&mut config.http.cors, self.cors.as_ref());
        config.rpc.preconf_as_latest |= self.preconf_as_latest;
        set(&mut config.engine.url, self.engine_url.as_ref());
        set(&mut config.engine.jwt_secret, self.jwt_secret.as_ref());
        set(&mut config.log.format, self.log_format.as_ref());
        set(&mut config.log.filter, self.log_filter.as_ref());
        Ok(config.check()?)
    }
}

impl Cli {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn execute(self) -> anyhow::Result<i32> {
        let quiet = || {
            let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "error".into());
            log::start(LogFormat::Text, &filter).map(drop)
        };
        match self.command {
            Command::Init(args) => setup::init(&args).map(|()| 0),
            Command::Keygen(args) => setup::keygen(&args).map(|()| 0),
            Command::Delegate(args) => setup::delegate(&args).map(|()| 0),
            Command::Chains(args) => chains::chains(&args).map(|()| 0),
            Command::CheckConfig(args) => check::check_config(&args),
            Command::Status(args) => runtime()?.block_on(check::status(args)),
            #[cfg(unix)]
            Command::Top(args) => runtime()?.block_on(top::top(args)),
            Command::Devnet(args) => {
                quiet()?;
                runtime()?.block_on(crate::lab::devnet::run(args))
            }
            Command::Replay(args) => {
                quiet()?;
                runtime()?.block_on(crate::lab::replay::run(args))
            }
            Command::Run(args) => {
                let config = args.load()?;
                let filter = log::start(config.log.format, &config.log.filter)?;
                let runtime = runtime()?;
                let code = runtime.block_on(run::run(&args, config, &filter));
                // Threads of the runtime that wait for something do not keep the process.
                runtime.shutdown_timeout(Duration::from_millis(500));
                log::flush();
                code
            }
        }
    }
}

/// An error and its causes as one text. Many errors tell their cause themselves; what has been said
/// is not said again.
pub fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    // Two at least: ingest blocks a worker while the journal is synced.
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_flags_are_refused_with_what_is_possible() {
        for (args, part) in [
            (&["devnet", "--loss", "2"][..], "0 to 0.3"),
            (&["devnet", "--nodes", "1"], "2..=200"),
            (&["devnet", "--mode", "pigeon"], "auto"),
            (&["devnet", "--dialect", "v9"], "v0-blob"),
            (&["replay"], "<FILES>"),
            (&["run", "--metrics", "here"], "--metrics"),
        ] {
            let args = std::iter::once(&"fragcast").chain(args);
            let error = Cli::try_parse_from(args).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn an_error_says_nothing_twice() {
        let io = || std::io::Error::other("no such disk");
        let own = crate::config::FileError::Io { path: "n.toml".into(), source: io() };
        let text =
            told(&anyhow::Error::new(crate::network::NetworkError::from(own)).context("network"));
        assert_eq!(text, "network: cannot read n.toml: no such disk; `fragcast init` writes one");
        let plain = anyhow::Error::new(io()).context("one").context("two");
        assert_eq!(told(&plain), "two: one: no such disk");
    }

    #[test]
    fn flags_override_the_configuration() {
        let cli =
            Cli::try_parse_from(["fragcast", "run", "--http.port", "1", "--metrics", "0.0.0.0:2"]);
        let Command::Run(args) = cli.unwrap().command else { panic!("run") };
        let mut config = Config::default();
        args.overrides.apply(&mut config).unwrap();
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:1");
        assert_eq!(config.metrics.listen.to_string(), "0.0.0.0:2");
        let bad = Overrides { uplink_mbit: Some(0), ..Overrides::default() };
        assert!(bad.apply(&mut config).is_err());
    }
}
