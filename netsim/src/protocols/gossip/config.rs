//! Parameters of gossipsub, with based-op's values.

use crate::reliable::ReliableConfig;
use crate::{MILLIS, Nanos};

/// Parameters of gossipsub, by its names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GossipConfig {
    /// Target number of mesh peers; 0 counts as 1.
    pub d: u32,
    /// A node with fewer mesh peers grafts until it has `d`.
    pub d_low: u32,
    /// A node with this many mesh peers refuses grafts.
    pub d_high: u32,
    /// The fewest peers outside the mesh that a heartbeat advertises to.
    pub d_lazy: u32,
    /// The share of peers outside the mesh that a heartbeat advertises to, if that is more than
    /// `d_lazy`.
    pub gossip_factor: f64,
    /// Interval of heartbeats; 0 counts as 1 ns.
    pub heartbeat: Nanos,
    /// Number of heartbeats for which a message can be requested.
    pub history: u32,
    /// Number of heartbeats at which a message is advertised.
    pub history_gossip: u32,
    /// Whether nodes send IDONTWANT (v1.2).
    pub idontwant: bool,
    /// The smallest message for which IDONTWANT is sent, in bytes.
    pub idontwant_threshold: u32,
    /// Whether a leader sends to all its connections instead of its mesh.
    pub flood_publish: bool,
    /// Time of validating a message, beyond the engine's hop.
    pub validation: Nanos,
    /// The most connections of a node; less than 2 counts as 2.
    pub connections: u32,
    /// The transport of the connections.
    pub transport: ReliableConfig,
}

impl GossipConfig {
    /// The values of the op-node fork: D = 8 (6 to 12), D_lazy 6, a heartbeat every 500 ms, history
    /// 12 of which 3 are advertised, no flood publish. The rest are defaults of go-libp2p-pubsub.
    ///
    /// A node has 50 connections: op-node keeps 20 to 30 (`--p2p.peers.lo`, `.hi`), consensus
    /// clients 70 to 100. With 30 a mesh of 24 (D_high 36), which a comparison should try, would
    /// not fit, and beside a mesh of 16 few peers would be left to advertise to.
    pub const fn based_op() -> Self {
        Self {
            d: 8,
            d_low: 6,
            d_high: 12,
            d_lazy: 6,
            gossip_factor: 0.25,
            heartbeat: 500 * MILLIS,
            history: 12,
            history_gossip: 3,
            idontwant: true,
            idontwant_threshold: 1024,
            flood_publish: false,
            validation: 0,
            connections: 50,
            transport: ReliableConfig::TCP,
        }
    }

    /// based-op's values with a mesh of another size: D_low = D − 2 and D_high = 1.5 D, as for D =
    /// 8.
    pub const fn with_mesh(d: u32) -> Self {
        let d = if d == 0 { 1 } else { d };
        let d_low = if d < 3 { 1 } else { d - 2 };
        Self { d, d_low, d_high: d.saturating_add(d.div_ceil(2)), ..Self::based_op() }
    }

    /// The parameters with every value brought into its range, so that no value makes a run fail.
    pub(super) fn in_range(self) -> Self {
        let d = self.d.max(1);
        Self {
            d,
            d_low: self.d_low.min(d),
            d_high: self.d_high.max(d),
            heartbeat: self.heartbeat.max(1),
            history: self.history.max(1),
            connections: self.connections.max(2),
            ..self
        }
    }
}
