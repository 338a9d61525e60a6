//! From the configuration to the settings of every part of a node, in one place.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use alloy_primitives::hex;
use fragcast_execution::executor::ExecutorConfig;
use fragcast_port::Token;
use fragcast_rpc::calls::CallConfig;
use fragcast_rpc::flashblocks;
use fragcast_rpc::forward::ForwardConfig;
use fragcast_store::StoreConfig;
use fragcast_turbine::gossip::links::LINKS;
use fragcast_turbine::net::gossip::{GossipLimits, GossipNetConfig};
use fragcast_turbine::net::{Limits, NetConfig};
use fragcast_turbine::{
    CatchUpConfig, GossipConfig, MembersConfig, OwnRecord, PeerId, Policy, Profile, RepairConfig,
    Route, RoutePolicy,
};
use fragcast_upstream::client::{ClientConfig, FollowConfig, SourceLimits};
use fragcast_upstream::engine::{EngineConfig, JwtSecret};
use fragcast_upstream::http::{HttpClient, check_url};

use super::{Config, ConfigError, Live, ProfileName, RouteName, read_toml};
use crate::gateway::publish;
use crate::gateway::signer::Signer;
use crate::members::WeightsSource;
use crate::multiaddr::{self, AddressError, Multiaddr};
use crate::network::{Network, NetworkError, NetworkFile};
use crate::registry;

const MIB: usize = 1024 * 1024;

/// The overlay and gossip.
impl Config {
    /// The protocol.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn protocol_settings(
        &self,
        network: &Network,
    ) -> Result<fragcast_turbine::Config, ConfigError> {
        let usual = fragcast_turbine::Config::new(network.chain_id);
        Ok(fragcast_turbine::Config {
            dialect: network.dialect,
            block_time: network.block_time.unwrap_or(usual.block_time),
            route: self.route()?,
            loss: self.leader.loss_per_hop,
            profile: match self.leader.profile {
                ProfileName::Lean => Profile::Lean,
                ProfileName::Fast => Profile::Fast,
            },
            hand_over: self.hand_over()?.is_some(),
            substitute_after: Duration::from_millis(self.leader.substitute_after_ms),
            uplink_bps: self.p2p.uplink_mbit * 1_000_000,
            connections: self.p2p.max_connections,
            guests: self.p2p.max_guests,
            guests_bps: match self.p2p.guests_mbps {
                0 => self.p2p.uplink_mbit * 250_000,
                mbps => mbps * 1_000_000,
            },
            reassembly: fragcast_shredder::Limits { memory: self.p2p.reassembly_mib * MIB },
            repair: RepairConfig {
                enabled: self.p2p.repair,
                memory: self.p2p.repair_mib * MIB,
                ..RepairConfig::default()
            },
            catch_up: CatchUpConfig {
                memory: self.p2p.catch_up_mib * MIB,
                blocks: self.p2p.catch_up_blocks,
                answers_bps: self.p2p.catch_up_mbit * 1_000_000,
                ..CatchUpConfig::default()
            },
            gossip: GossipConfig {
                policy: self.gossip.policy,
                mode: self.gossip.mode,
                memory: self.gossip.memory_mib * MIB,
                ..GossipConfig::default()
            },
            members: MembersConfig {
                live: self.follows_members(network),
                max: self.members.max,
                renew: Duration::from_secs(self.members.renew_s),
                life: Duration::from_secs(self.members.life_s),
                pull: Duration::from_millis(self.members.pull_ms),
                ..MembersConfig::default()
            },
            ..usual
        })
    }

    /// How long this node's own subscribers wait for the next leader, if they do.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn hand_over(&self) -> Result<Option<Duration>, ConfigError> {
        let wait = Duration::from_millis(self.leader.hand_over_ms);
        if wait > publish::LONGEST {
            let problem = format!("is at most {}", publish::LONGEST.as_millis());
            return Err(ConfigError::Value { key: "leader.hand_over_ms", problem });
        }
        Ok(Some(wait).filter(|wait| !wait.is_zero()))
    }

    /// Whether a node of this network follows members who come and go.
    pub fn follows_members(&self, network: &Network) -> bool {
        match self.members.live {
            Live::Auto => !network.bootstrap.is_empty(),
            Live::On => true,
            Live::Off => false,
        }
    }

    /// What the node `me` says of itself: the configured addresses, or those of its record in the
    /// network file; `None` if there are none.
    pub fn own_record(&self, network: &Network, me: &PeerId) -> Option<OwnRecord> {
        let listed = network.members.index(me).and_then(|index| network.members.get(index));
        let addresses: Vec<SocketAddr> = match self.members.advertise.is_empty() {
            true => listed.iter().flat_map(|member| member.record.addresses()).collect(),
            false => self.members.advertise.clone(),
        };
        let uplink_kbps = u32::try_from(self.p2p.uplink_mbit * 1_000).unwrap_or(u32::MAX);
        (!addresses.is_empty()).then_some(OwnRecord { addresses, uplink_kbps })
    }

    /// The source of members' weights, if one is configured.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn weights_source(&self) -> Result<Option<WeightsSource>, ConfigError> {
        let members = &self.members;
        let wrong = |key, problem: &str| Err(ConfigError::Value { key, problem: problem.into() });
        if members.contract.is_empty() {
            let text = &members.weights;
            if !text.contains("://") {
                return Ok((!text.is_empty()).then(|| WeightsSource::File(text.into())));
            }
            return match check_url(text) {
                Ok(()) => Ok(Some(WeightsSource::Url(text.clone()))),
                Err(error) => wrong("members.weights", &error.to_string()),
            };
        }
        if !members.weights.is_empty() {
            return wrong("members.contract", "members.weights is set as well: choose one");
        }
        if self.client.url.is_empty() {
            return wrong("members.contract", "is asked through client.url, which is not set");
        }
        let Ok(address) = members.contract.parse() else {
            return wrong("members.contract", "must be an address, 0x and 40 hex digits");
        };
        let Ok(selector) = hex::decode_to_array(&members.selector) else {
            return wrong("members.selector", "must be 4 bytes as hex, such as \"0x12345678\"");
        };
        let client = self.client.url.clone();
        Ok(Some(WeightsSource::Contract { client, address, selector }))
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
        Ok(match self.leader.route {
            RouteName::Auto => RoutePolicy::Auto,
            RouteName::Direct => RoutePolicy::Fixed(Route::Direct),
            RouteName::Turbine => RoutePolicy::Fixed(Route::Turbine { fanout }),
            RouteName::Rotor => RoutePolicy::Fixed(Route::Rotor),
            RouteName::Regional => RoutePolicy::Regional,
        })
    }

    /// The signer of the gateway's delegation to this node, if there is one.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn signer(&self) -> Result<Option<Signer>, ConfigError> {
        let leader = &self.leader;
        let wrong = |key, problem: String| Err(ConfigError::Value { key, problem });
        if leader.signer.is_empty() {
            return match leader.gateway.is_empty() {
                true => Ok(None),
                false => wrong("leader.gateway", "is for leader.signer, which is empty".into()),
            };
        }
        if leader.signer.contains(['@', '?', '#']) {
            let problem = "write no name or password into a URL, and nothing behind its path";
            return wrong("leader.signer", problem.into());
        }
        if let Err(error) = check_url(&leader.signer) {
            return wrong("leader.signer", error.to_string());
        }
        let Ok(gateway) = leader.gateway.parse() else {
            let problem = "must be the address of the gateway that leader.signer signs for, 0x and \
                           40 hex digits";
            return wrong("leader.gateway", problem.into());
        };
        let timeout = Duration::from_millis(leader.signer_timeout_ms);
        Ok(Some(Signer::new(&leader.signer, leader.signer_api, gateway, timeout)))
    }

    /// The QUIC driver.
    pub fn net_settings(&self) -> NetConfig {
        NetConfig {
            uplink_bps: self.p2p.uplink_mbit * 1_000_000,
            limits: Limits {
                connections: self.p2p.max_connections,
                per_address: self.p2p.max_connections_per_address,
                handshakes: self.p2p.max_handshakes,
                handshakes_per_address: self.p2p.max_handshakes.div_ceil(2),
                guests: self.p2p.max_guests,
                ..Limits::default()
            },
            ..NetConfig::default()
        }
    }

    /// The gossip driver; `None` if the policy is off.
    ///
    /// # Errors
    /// [`ConfigError::Address`].
    pub fn gossip_settings(&self, chain_id: u64) -> Result<Option<GossipNetConfig>, ConfigError> {
        if self.gossip.policy == Policy::Off {
            return Ok(None);
        }
        let total = self.gossip.max_connections;
        Ok(Some(GossipNetConfig {
            listen: self.gossip_listen()?.into_iter().collect(),
            bootstrap: self.gossip_peers()?,
            limits: GossipLimits {
                total,
                // Room is kept for those that this node is to be connected to.
                incoming: total.saturating_sub(LINKS + self.gossip.peers.len()).max(total / 4),
                per_address: self.gossip.max_connections_per_address,
                ..GossipLimits::default()
            },
            ..GossipNetConfig::new(chain_id)
        }))
    }

    /// The gossip address to listen on, if any.
    ///
    /// # Errors
    /// [`ConfigError::Address`].
    pub fn gossip_listen(&self) -> Result<Option<Multiaddr>, ConfigError> {
        let text = &self.gossip.listen;
        let wrong = |problem| ConfigError::Address { key: "gossip.listen", problem };
        if text.is_empty() {
            return Ok(None);
        }
        multiaddr::listen_address(text).map(Some).map_err(wrong)
    }

    /// Gossip peers beside the members.
    ///
    /// # Errors
    /// [`ConfigError::Address`].
    pub fn gossip_peers(&self) -> Result<Vec<Multiaddr>, ConfigError> {
        let wrong = |problem| ConfigError::Address { key: "gossip.peers", problem };
        let peers = self.gossip.peers.iter().map(|text| multiaddr::peer_address(text));
        peers.collect::<Result<_, AddressError>>().map_err(wrong)
    }
}

/// The registry.
impl Config {
    /// The sources of the list of gateways, for terms of so many blocks.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn registry_sources(&self, term: u64) -> Result<Vec<registry::Source>, ConfigError> {
        let timeout = Duration::from_millis(self.registry.timeout_ms);
        let sources = self.registry.sources.iter();
        sources.map(|text| registry::Source::new(text, term, timeout)).collect()
    }

    /// Following the registry; `None` if the network file has the list.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn registry_settings(
        &self,
        network: &Network,
    ) -> Result<Option<registry::Settings>, ConfigError> {
        let registry = &self.registry;
        let sources = self.registry_sources(network.schedule.blocks_per_term())?;
        Ok((!sources.is_empty()).then(|| registry::Settings {
            sources,
            poll: Duration::from_millis(registry.poll_ms),
            patience: Duration::from_millis(registry.timeout_ms),
            saved: Some(registry.saved.clone()),
            max_age: (registry.max_age_s > 0).then(|| Duration::from_secs(registry.max_age_s)),
        }))
    }

    /// Reads the network file. With a registry, delegations of gateways that are not in its list
    /// are kept for when they register.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn network(&self) -> Result<Network, NetworkError> {
        let file: NetworkFile = read_toml(&self.network)?;
        if self.registry.sources.is_empty() { file.check() } else { file.check_with_registry() }
    }
}

/// Execution and the execution client.
impl Config {
    /// The executor.
    pub fn executor_settings(&self) -> ExecutorConfig {
        let limit = self.execution.time_limit_ms;
        ExecutorConfig {
            queue: self.execution.queue,
            time_limit: (limit > 0).then(|| Duration::from_millis(limit)),
            ..ExecutorConfig::default()
        }
    }

    /// The database.
    pub fn store_settings(&self) -> StoreConfig {
        StoreConfig {
            reorg_depth: self.execution.reorg_depth,
            cache_mib: self.execution.cache_mib,
            ..StoreConfig::default()
        }
    }

    /// The execution client's JSON-RPC, if one is configured; `op`: on an OP chain.
    pub fn client_settings(&self, op: bool) -> Option<ClientConfig> {
        (!self.client.url.is_empty()).then(|| ClientConfig {
            url: self.client.url.clone(),
            timeout: self.client_timeout(),
            op,
            ..ClientConfig::default()
        })
    }

    const fn client_timeout(&self) -> Duration {
        Duration::from_millis(self.client.timeout_ms)
    }

    /// State read from the execution client.
    pub fn source_limits(&self) -> SourceLimits {
        SourceLimits { nodes: self.client.cache_mib.max(16) * MIB, ..SourceLimits::default() }
    }

    /// Following the execution client.
    pub fn follow_settings(&self) -> FollowConfig {
        let interval = Duration::from_millis(self.client.poll_ms);
        FollowConfig { interval, ..FollowConfig::default() }
    }

    /// Requests that are passed on to the execution client.
    pub const fn passed_on(&self) -> HttpClient {
        HttpClient { timeout: self.client_timeout(), max_response: self.rpc.max_response as usize }
    }

    /// Forwarding to the execution client's engine port, if one is configured.
    ///
    /// # Errors
    /// [`ConfigError::EngineUrl`] and [`ConfigError::JwtSecret`].
    pub fn engine_settings(&self) -> Result<Option<EngineConfig>, ConfigError> {
        if self.engine.url.is_empty() {
            return Ok(None);
        }
        check_url(&self.engine.url)?;
        let secret = JwtSecret::from_hex_file(&self.engine.jwt_secret)?;
        let mut settings = EngineConfig::new(self.engine.url.clone(), secret);
        if self.engine.timeout_ms > 0 {
            settings.request_timeout = Duration::from_millis(self.engine.timeout_ms);
        }
        Ok(Some(settings))
    }
}

/// What is served.
impl Config {
    /// Calls.
    pub fn call_settings(&self) -> CallConfig {
        let default = CallConfig::default();
        CallConfig {
            threads: NonZeroUsize::new(self.calls.threads).unwrap_or(default.threads),
            queue: self.calls.queue,
            gas_cap: self.calls.gas_cap,
            time_limit: Duration::from_millis(self.calls.time_limit_ms),
            memory_limit: self.calls.memory_mib * 1024 * 1024,
            max_trace: self.calls.trace_mib.saturating_mul(1024 * 1024),
        }
    }

    /// Forwarding transactions.
    pub fn forward_settings(&self, network: &Network) -> ForwardConfig {
        ForwardConfig {
            gateways: network.gateway_urls.iter().map(|(a, url)| (*a, url.clone())).collect(),
            fallback: (!self.client.url.is_empty()).then(|| self.client.url.clone()),
            timeout: Duration::from_millis(self.calls.gateway_timeout_ms),
            sync_timeout: Duration::from_millis(self.calls.sync_timeout_ms),
            max_sync_timeout: Duration::from_millis(self.calls.max_sync_timeout_ms),
            ..ForwardConfig::default()
        }
    }

    /// The Flashblocks WebSocket.
    pub fn flashblocks_settings(&self) -> flashblocks::Settings {
        let config = &self.flashblocks;
        flashblocks::Settings {
            subscribers: config.max_subscribers,
            per_address: config.max_subscribers_per_address,
            buffer: config.buffer_mib * MIB,
            slow_after: Duration::from_millis(config.slow_subscriber_ms),
            idle: Duration::from_secs(config.idle_s),
            ..flashblocks::Settings::default()
        }
    }

    /// Where the Flashblocks door is, if there is one.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn flashblocks_listen(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let listen = &self.flashblocks.listen;
        if listen.is_empty() {
            return Ok(None);
        }
        listen.parse().map(Some).map_err(|_| ConfigError::Value {
            key: "flashblocks.listen",
            problem: format!("`{listen}` is no address such as 127.0.0.1:9350"),
        })
    }

    /// The token of the operator's JSON-RPC, if there is one.
    ///
    /// # Errors
    /// [`ConfigError::AdminToken`].
    pub fn admin_token(&self) -> Result<Option<Token>, ConfigError> {
        let path = &self.admin.token;
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        Ok(Some(Token::read(path)?))
    }
}
