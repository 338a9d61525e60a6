//! Settings of a local network.

use std::path::{Path, PathBuf};

use fragcast_shredder::Dialect;
use fragcast_turbine::{Mode, Policy};

use crate::config::RouteName;

/// Settings of a local network.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Nodes in all.
    pub nodes: usize,
    /// Of those, the last so many are no members: they follow as guests.
    pub guests: usize,
    /// Gateways; gateway g is run by node g.
    pub gateways: usize,
    /// Blocks that a gateway leads at a time.
    pub blocks_per_term: u64,
    /// Gateways that may lead a block beside the scheduled one.
    pub substitutes: u8,
    /// Chain id.
    pub chain_id: u64,
    /// Dialect.
    pub dialect: Dialect,
    /// Share of shreds that every sender throws away.
    pub loss: f64,
    /// Pacing of every node, Mbit/s.
    pub uplink_mbit: u64,
    /// Route policy, as in the configuration.
    pub route: RouteName,
    /// The directory of the nodes' directories.
    pub dir: PathBuf,
    /// Seed of the losses.
    pub seed: u64,
    /// The address at which all gateways accept users' transactions.
    pub gateway_url: Option<String>,
    /// Port of node 0's public JSON-RPC; 0: chosen by the system.
    pub http_port: u16,
    /// Reads of `latest` see the newest executed frag.
    pub preconf_as_latest: bool,
    /// Origins of web pages that may use the public JSON-RPC.
    pub cors: Vec<String>,
    /// How much the nodes use gossip.
    pub policy: Policy,
    /// How messages travel.
    pub mode: Mode,
    /// Port of node 0's gossip; 0: chosen by the system.
    pub gossip_port: u16,
    /// How many of the gateways the network file has; the delegations of the others are known to
    /// their own nodes alone, until they register.
    pub registered: usize,
    /// Sources of the list of gateways, by node; of the nodes beyond, those of the last. Empty: there
    /// is no registry.
    pub registry: Vec<Vec<String>>,
    /// How long leaders' own subscribers wait for the next leader, ms; 0: not at all.
    pub hand_over_ms: u64,
    /// Whether the nodes follow members who come and go: their records are renewed every second, and
    /// dead after 15.
    pub live: bool,
    /// Gives every node a Flashblocks WebSocket; node 0's is at this port, 0: chosen by the system.
    pub flashblocks_port: Option<u16>,
}

impl LocalOptions {
    /// Two nodes in `dir`, of which the first leads for the only gateway; the overlay alone,
    /// without loss.
    pub fn new(dir: &Path) -> Self {
        Self {
            nodes: 2,
            guests: 0,
            gateways: 1,
            blocks_per_term: 30,
            substitutes: 0,
            chain_id: 901,
            dialect: Dialect::V0,
            loss: 0.0,
            uplink_mbit: 200,
            route: RouteName::Auto,
            dir: dir.to_owned(),
            seed: 0,
            gateway_url: None,
            http_port: 0,
            preconf_as_latest: false,
            cors: Vec::new(),
            policy: Policy::Off,
            mode: Mode::Turbine,
            gossip_port: 0,
            registered: usize::MAX,
            registry: Vec::new(),
            hand_over_ms: 0,
            live: false,
            flashblocks_port: None,
        }
    }
}
