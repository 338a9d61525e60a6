//! Reading `node.toml`, and whether its values can be used.

use std::net::SocketAddr;
use std::path::Path;

use fragcast_turbine::membership::{MAX_ADDRESSES, is_private};
use fragcast_turbine::peer::MAX_GUESTS;
use fragcast_turbine::schedule::BLOCKS_PER_TERM;
use fragcast_turbine::tables::MAX_SPREAD;
use fragcast_turbine::{CatchUpConfig, Mode, Policy};
use fragcast_upstream::engine::JwtError;
use fragcast_upstream::http::UrlError;

use super::file::{FileError, read_toml};
use super::{Config, StateFrom};
use crate::multiaddr::AddressError;
use crate::registry::status::VOTE_POLLS;

/// Sources of the list of gateways, at most.
const MAX_SOURCES: usize = 8;

/// MiB of any memory, and connections, at most: a TiB, which is no bound but keeps sums from
/// overflowing.
const MAX_SIZE: usize = 1024 * 1024;

/// Blocks of a delegation at least: it is renewed while a quarter of them is left.
const MIN_DELEGATION: u64 = 64;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read, or is not TOML of the expected form.
    #[error(transparent)]
    File(#[from] FileError),
    /// A value is out of range.
    #[error("{key}: {problem}")]
    Value {
        /// The key, with its section.
        key: &'static str,
        /// The problem, and what to do.
        problem: String,
    },
    /// An address of gossip.
    #[error("{key}: {problem}")]
    Address {
        /// The key, with its section.
        key: &'static str,
        /// What is wrong.
        problem: AddressError,
    },
    /// `engine.url` cannot be asked.
    #[error("engine.url: {0}")]
    EngineUrl(#[from] UrlError),
    /// `engine.jwt_secret` cannot be read.
    #[error("engine.jwt_secret: {0}")]
    JwtSecret(#[from] JwtError),
    /// `admin.token` cannot be used.
    #[error("admin.token: {0}")]
    AdminToken(#[from] fragcast_port::TokenError),
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
        let mut config: Self = read_toml(path)?;
        let dir = path.parent().unwrap_or_else(|| Path::new(""));
        let paths = [
            &mut config.network,
            &mut config.identity,
            &mut config.leader.key,
            &mut config.leader.journal,
            &mut config.leader.delegation,
            &mut config.execution.db,
            &mut config.registry.saved,
        ];
        for path in paths {
            *path = dir.join(&*path);
        }
        for source in &mut config.registry.sources {
            if !source.is_empty() && !source.contains("://") {
                *source = dir.join(&*source).to_string_lossy().into_owned();
            }
        }
        let weights = &mut config.members.weights;
        if !weights.is_empty() && !weights.contains("://") {
            *weights = dir.join(&*weights).to_string_lossy().into_owned();
        }
        for path in [&mut config.engine.jwt_secret, &mut config.admin.token] {
            if !path.as_os_str().is_empty() {
                *path = dir.join(&*path);
            }
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
        if self.p2p.max_guests > MAX_GUESTS {
            return value("p2p.max_guests", format!("must be at most {MAX_GUESTS}"));
        }
        if self.p2p.guests_mbps > self.p2p.uplink_mbit {
            return value("p2p.guests_mbps", "must be at most p2p.uplink_mbit".into());
        }
        if !(1..=CatchUpConfig::MAX_BLOCKS).contains(&self.p2p.catch_up_blocks) {
            let most = CatchUpConfig::MAX_BLOCKS;
            let problem = format!("must be 1 to {most}; with p2p.catch_up_mib = 0 none are kept");
            return value("p2p.catch_up_blocks", problem);
        }
        if self.p2p.catch_up_mbit == 0 || self.p2p.catch_up_mbit > 400_000 {
            return value("p2p.catch_up_mbit", "must be 1 to 400000".into());
        }
        if self.p2p.reassembly_mib < 32 {
            return value(
                "p2p.reassembly_mib",
                "must be at least 32: one message of 10 MiB with its coding shreds needs 30".into(),
            );
        }
        self.check_sizes()?;
        self.check_gossip()?;
        self.check_registry()?;
        self.check_members()?;
        if !(0.0..=0.5).contains(&self.leader.loss_per_hop) {
            return value("leader.loss_per_hop", "must be 0 to 0.5".into());
        }
        if !(10..=600_000).contains(&self.leader.substitute_after_ms) {
            return value("leader.substitute_after_ms", "must be 10 to 600000".into());
        }
        self.route()?;
        self.check_signer()?;
        if let Err(error) = crate::log::filter(&self.log.filter) {
            let problem = error.root_cause().to_string();
            return value("log.filter", format!("`{}`: {problem}", self.log.filter));
        }
        let execution = &self.execution;
        let from_client = execution.source == StateFrom::Client;
        if !execution.chain.is_empty() && from_client && self.client.url.is_empty() {
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
        let calls = &self.calls;
        let limits = [calls.queue as u64, calls.time_limit_ms, calls.memory_mib];
        if limits.contains(&0) || calls.trace_mib == 0 {
            let problem = "must be at least 1".into();
            let names = "calls.queue, calls.time_limit_ms, calls.memory_mib, calls.trace_mib";
            return value(names, problem);
        }
        if self.rpc.max_batch == 0 || self.rpc.max_connections == 0 {
            return value("rpc.max_batch, rpc.max_connections", "must be at least 1".into());
        }
        if self.rpc.safe_behind.zip(self.rpc.finalized_behind).is_some_and(|(s, f)| s > f) {
            let problem = "must be at least rpc.safe_behind".into();
            return value("rpc.finalized_behind", problem);
        }
        if self.rpc.max_log_blocks == 0 || self.rpc.max_logs == 0 {
            return value("rpc.max_log_blocks, rpc.max_logs", "must be at least 1".into());
        }
        self.check_ports()?;
        self.check_flashblocks()?;
        if !self.engine.url.is_empty() && self.engine.jwt_secret.as_os_str().is_empty() {
            return value("engine.jwt_secret", "the engine API needs a secret file".into());
        }
        Ok(())
    }

    /// Checks what is multiplied: memory becomes bytes, handshakes become queues.
    fn check_sizes(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("p2p.reassembly_mib", self.p2p.reassembly_mib),
            ("p2p.repair_mib", self.p2p.repair_mib),
            ("p2p.catch_up_mib", self.p2p.catch_up_mib),
            ("gossip.memory_mib", self.gossip.memory_mib),
            ("execution.cache_mib", self.execution.cache_mib),
            ("client.cache_mib", self.client.cache_mib),
            ("calls.trace_mib", self.calls.trace_mib),
            ("calls.memory_mib", usize::try_from(self.calls.memory_mib).unwrap_or(usize::MAX)),
            ("p2p.max_handshakes", self.p2p.max_handshakes),
            ("p2p.max_connections", self.p2p.max_connections),
            ("gossip.max_connections", self.gossip.max_connections),
        ];
        match sizes.into_iter().find(|(_, size)| *size > MAX_SIZE) {
            Some((key, _)) => {
                Err(ConfigError::Value { key, problem: format!("must be at most {MAX_SIZE}") })
            }
            None => Ok(()),
        }
    }

    fn check_signer(&self) -> Result<(), ConfigError> {
        let leader = &self.leader;
        let value = |key, problem: &str| Err(ConfigError::Value { key, problem: problem.into() });
        if !(100..=3_600_000).contains(&leader.signer_timeout_ms) {
            return value("leader.signer_timeout_ms", "must be 100 to 3600000");
        }
        if leader.delegation_blocks != 0 && leader.delegation_blocks < MIN_DELEGATION {
            let problem = format!("must be 0, for all blocks, or at least {MIN_DELEGATION}");
            return value("leader.delegation_blocks", &problem);
        }
        self.signer().map(drop)
    }

    fn check_registry(&self) -> Result<(), ConfigError> {
        let registry = &self.registry;
        let value = |key, problem: String| Err(ConfigError::Value { key, problem });
        if registry.sources.len() > MAX_SOURCES {
            let found = registry.sources.len();
            return value("registry.sources", format!("{MAX_SOURCES} at most, not {found}"));
        }
        if !(10..=3_600_000).contains(&registry.poll_ms) {
            return value("registry.poll_ms", "must be 10 to 3600000".into());
        }
        if !(10..=60_000).contains(&registry.timeout_ms) {
            return value("registry.timeout_ms", "must be 10 to 60000".into());
        }
        // Less would make the node unready between two polls.
        let least = registry.poll_ms.saturating_mul(VOTE_POLLS.into()).div_ceil(1_000);
        if registry.max_age_s != 0 && registry.max_age_s < least {
            let problem =
                format!("must be 0, or at least {least}: {VOTE_POLLS} times registry.poll_ms");
            return value("registry.max_age_s", problem);
        }
        // The length of terms is the network file's, and makes no source wrong.
        self.registry_sources(BLOCKS_PER_TERM).map(drop)
    }

    fn check_members(&self) -> Result<(), ConfigError> {
        let members = &self.members;
        let value = |key, problem: String| Err(ConfigError::Value { key, problem });
        if members.advertise.len() > MAX_ADDRESSES {
            return value("members.advertise", format!("{MAX_ADDRESSES} at most"));
        }
        let nowhere = |a: &SocketAddr| a.ip().is_unspecified() || a.ip().is_multicast();
        if let Some(bad) = members.advertise.iter().find(|a| nowhere(a) || a.port() == 0) {
            let problem = format!("{bad} is no address at which others reach this node");
            return value("members.advertise", problem);
        }
        let private = members.advertise.iter().filter(|a| is_private(a.ip())).count();
        if private > 0 && private < members.advertise.len() {
            let problem = "has addresses of a private network beside public ones, which no node \
                           takes: advertise either";
            return value("members.advertise", problem.into());
        }
        if !(1..=MAX_SPREAD).contains(&members.max) {
            return value("members.max", format!("must be 1 to {MAX_SPREAD}"));
        }
        let least = members.renew_s.saturating_mul(2);
        if members.renew_s == 0 || members.life_s > 86_400 || members.life_s < least {
            let problem = "must be at least 1, and twice as much, 86400 at most".into();
            return value("members.renew_s, members.life_s", problem);
        }
        if !(10..=60_000).contains(&members.pull_ms) {
            return value("members.pull_ms", "must be 10 to 60000".into());
        }
        if !(1..=86_400).contains(&members.poll_s) {
            return value("members.poll_s", "must be 1 to 86400".into());
        }
        self.weights_source().map(drop)
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
        self.gossip_listen()?;
        self.gossip_peers()?;
        Ok(())
    }

    fn check_ports(&self) -> Result<(), ConfigError> {
        let rpc = &self.rpc;
        let value = |key, problem: &str| Err(ConfigError::Value { key, problem: problem.into() });
        if rpc.max_concurrent == 0 || rpc.message_buffer == 0 || rpc.max_unsent == 0 {
            let key = "rpc.max_concurrent, rpc.message_buffer, rpc.max_unsent";
            return value(key, "must be at least 1");
        }
        if rpc.max_unsent_total < 64 * 1024 * 1024 {
            let problem = "must be at least 67108864: 48 MiB of it are notifications kept for all";
            return value("rpc.max_unsent_total", problem);
        }
        if rpc.slow_subscriber_ms < 10 {
            return value("rpc.slow_subscriber_ms", "must be at least 10");
        }
        let strange = |name: &String| {
            name.trim().is_empty() || name.contains(|c: char| c.is_whitespace() || c == '/')
        };
        if self.http.vhosts.iter().any(strange) {
            let problem = "names of hosts, such as \"node.example\", or \"*\"";
            return value("http.vhosts", problem);
        }
        let origin = |name: &String| {
            let name = name.trim();
            name == "*"
                || name == "null"
                || name.split_once("://").is_some_and(|(scheme, host)| {
                    let stars = name.matches('*').count();
                    !scheme.is_empty() && !host.is_empty() && !host.contains('/') && stars <= 1
                })
        };
        if !self.http.cors.iter().all(origin) {
            let problem =
                "origins, such as \"https://app.example\" or \"https://*.app.example\", or \"*\"";
            return value("http.cors", problem);
        }
        Ok(())
    }

    fn check_flashblocks(&self) -> Result<(), ConfigError> {
        let flashblocks = &self.flashblocks;
        let value = |key, problem: &str| Err(ConfigError::Value { key, problem: problem.into() });
        self.flashblocks_listen()?;
        if flashblocks.max_subscribers == 0 || flashblocks.max_subscribers_per_address == 0 {
            let key = "flashblocks.max_subscribers, flashblocks.max_subscribers_per_address";
            return value(key, "must be at least 1");
        }
        if !(1..=4096).contains(&flashblocks.buffer_mib) {
            return value("flashblocks.buffer_mib", "must be 1 to 4096");
        }
        if !(3..=86_400).contains(&flashblocks.idle_s) {
            return value("flashblocks.idle_s", "must be 3 to 86400");
        }
        if flashblocks.slow_subscriber_ms < 10 {
            return value("flashblocks.slow_subscriber_ms", "must be at least 10");
        }
        Ok(())
    }
}
