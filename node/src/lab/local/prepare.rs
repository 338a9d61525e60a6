//! Makes the directories, keys and files of a local network's nodes.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::Context;
use ed25519_dalek::SigningKey;
use fragcast_shredder::GatewayKey;
use fragcast_turbine::membership::RecordBody;
use fragcast_turbine::{Delegation, PeerId, SignedDelegation};

use super::options::LocalOptions;
use crate::config::{Config, Live};
use crate::gateway::journal::Journal;
use crate::gateway::keys;
use crate::network::{MemberEntry, NetworkFile};
use crate::node::Sockets;

/// Blocks of a laboratory come as fast as they are made, whatever the chain's own pace.
const BLOCK_TIME_MS: u64 = 50;

/// Nor does a substitute wait a second.
const SUBSTITUTE_AFTER_MS: u64 = 300;

/// Nor does anybody wait a second for a registration.
const REGISTRY_POLL_MS: u64 = 50;

/// A node that can be started.
pub(super) struct Prepared {
    pub(super) config: Config,
    pub(super) identity: SigningKey,
    pub(super) leader: Option<(SigningKey, Journal)>,
    pub(super) sockets: Sockets,
    pub(super) gossip: TcpListener,
}

/// Makes a node's directory: keys, journal, configuration, and sockets on ports of the system's
/// choice.
pub(super) fn prepare(options: &LocalOptions, index: usize) -> anyhow::Result<Prepared> {
    let dir = options.dir.join(format!("node-{index}"));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config {
        network: options.dir.join("network.toml"),
        identity: dir.join("identity.key"),
        ..Config::default()
    };
    config.leader.key = dir.join("leader.key");
    config.leader.journal = dir.join("leader.journal");
    config.leader.route = options.route;
    config.leader.hand_over_ms = options.hand_over_ms;
    config.leader.substitute_after_ms = SUBSTITUTE_AFTER_MS;
    config.leader.loss_per_hop = options.loss.clamp(0.02, 0.5);
    config.p2p.uplink_mbit = options.uplink_mbit;
    // Everybody has the same address here.
    config.p2p.max_connections_per_address = 4 * options.nodes + 64;
    config.p2p.max_handshakes = 4 * options.nodes + 64;
    config.p2p.listen = any;
    config.ingest.listen = any;
    config.http.listen = any;
    if index == 0 {
        config.http.listen.set_port(options.http_port);
    }
    config.gossip.policy = options.policy;
    config.gossip.mode = options.mode;
    config.gossip.max_connections = 4 * options.nodes + 64;
    config.gossip.max_connections_per_address = config.gossip.max_connections;
    let gossip_port = if index == 0 { options.gossip_port } else { 0 };
    // libp2p takes no socket, and the others must know the port: it is held until the node starts.
    let gossip = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], gossip_port)))
        .with_context(|| format!("cannot listen on TCP port {gossip_port} for gossip"))?;
    config.gossip.listen = format!("/ip4/127.0.0.1/tcp/{}", gossip.local_addr()?.port());
    let sources = options.registry.get(index).or(options.registry.last());
    config.registry.sources = sources.cloned().unwrap_or_default();
    config.registry.poll_ms = REGISTRY_POLL_MS;
    config.registry.saved = dir.join("schedule.json");
    config.rpc.preconf_as_latest = options.preconf_as_latest;
    config.http.cors.clone_from(&options.cors);
    if let Some(port) = options.flashblocks_port {
        let port = if index == 0 { port } else { 0 };
        config.flashblocks.listen = SocketAddr::new(any.ip(), port).to_string();
    }
    config.admin.listen = any;
    config.metrics.listen = any;
    config.check()?;
    let sockets = Sockets::bind(&config)?;
    config.p2p.listen = sockets.p2p.local_addr()?;
    if options.live {
        config.members.live = Live::On;
        config.members.advertise = vec![config.p2p.listen];
        (config.members.renew_s, config.members.life_s) = (1, 15);
        config.members.pull_ms = 100;
    }
    config.ingest.listen = sockets.ingest.local_addr()?;
    config.http.listen = sockets.http.local_addr()?;
    config.admin.listen = sockets.admin.local_addr()?;
    config.metrics.listen = sockets.metrics.local_addr()?;
    if let Some(door) = &sockets.flashblocks {
        config.flashblocks.listen = door.local_addr()?.to_string();
    }

    let identity = keys::create_ed25519(&config.identity)?;
    let leader = if index < options.gateways {
        let key = keys::create_ed25519(&config.leader.key)?;
        Journal::create(&config.leader.journal)?;
        Some((key, Journal::open(&config.leader.journal)?))
    } else {
        None
    };
    write(&dir.join("node.toml"), &config.example())?;
    Ok(Prepared { config, identity, leader, sockets, gossip })
}

pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

pub(super) fn network_file(
    options: &LocalOptions,
    gateways: &[GatewayKey],
    nodes: &[Prepared],
) -> NetworkFile {
    let chain_id = options.chain_id;
    let urls = gateways.iter().filter_map(|g| Some((g.address(), options.gateway_url.clone()?)));
    let gateway_urls = urls.collect();
    let members = nodes.iter().map(|node| {
        let body = RecordBody {
            chain_id,
            peer: PeerId(node.identity.verifying_key().to_bytes()),
            sequence: 1,
            uplink_kbps: u32::try_from(options.uplink_mbit * 1_000).unwrap_or(u32::MAX),
            coordinates: [0; 4],
            addresses: vec![node.config.p2p.listen.into()],
        };
        MemberEntry {
            record: body.sign(&node.identity).to_string(),
            weight: 1,
            gossip: vec![node.config.gossip.listen.clone()],
        }
    });
    let delegations = gateways.iter().zip(nodes);
    let delegations = delegations.filter_map(|(gateway, node)| delegate(chain_id, gateway, node));
    NetworkFile {
        gateway_urls,
        chain_id,
        dialect: options.dialect,
        blocks_per_term: options.blocks_per_term,
        substitutes: options.substitutes,
        block_time_ms: Some(BLOCK_TIME_MS),
        gateways: gateways.iter().map(GatewayKey::address).collect(),
        bootstrap: Vec::new(),
        delegations: delegations.map(|signed| signed.to_string()).collect(),
        members: members.collect(),
    }
}

/// A gateway's delegation to a node that has a leader's key.
pub(super) fn delegate(
    chain_id: u64,
    gateway: &GatewayKey,
    node: &Prepared,
) -> Option<SignedDelegation> {
    let delegation = Delegation {
        chain_id,
        first: 0,
        last: u64::MAX,
        sequence: 1,
        peer: PeerId(node.identity.verifying_key().to_bytes()),
        key: node.leader.as_ref()?.0.verifying_key().to_bytes(),
    };
    Some(delegation.sign(gateway))
}
