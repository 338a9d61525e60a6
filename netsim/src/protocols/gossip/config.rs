//! Parameters of gossipsub, and what based-op sets them to.

use crate::reliable::ReliableConfig;
use crate::{MILLIS, Nanos};

/// Parameters of gossipsub, named as there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GossipConfig {
    /// Mesh peers that a node aims at; 0 counts as 1.
    pub d: u32,
    /// With fewer it grafts until it has `d`.
    pub d_low: u32,
    /// With as many it refuses to be grafted.
    pub d_high: u32,
    /// Peers outside the mesh that a heartbeat advertises to, at least.
    pub d_lazy: u32,
    /// The same as a share of those peers; the larger number counts.
    pub gossip_factor: f64,
    /// From one heartbeat to the next; 0 counts as 1 ns.
    pub heartbeat: Nanos,
    /// Heartbeats for which a message can be asked for.
    pub history: u32,
    /// Heartbeats at which it is advertised.
    pub history_gossip: u32,
    /// Whether v1.2 is spoken.
    pub idontwant: bool,
    /// Bytes of the smallest message that IDONTWANT is told of.
    pub idontwant_threshold: u32,
    /// Whether a leader sends to all of its connections instead of its mesh.
    pub flood_publish: bool,
    /// How long validating a message takes, beyond the engine's hop.
    pub validation: Nanos,
    /// Connections of a node at most; under 2 counts as 2.
    pub connections: u32,
    /// How its connections behave.
    pub transport: ReliableConfig,
}

impl GossipConfig {
    /// What the op-node fork sets: D = 8 (6 to 12), D_lazy 6, a heartbeat each 500 ms, history
    /// 12 of which 3 are advertised, no flood publish; the rest is go-libp2p-pubsub's default.
    ///
    /// 50 connections: op-node keeps 20 to 30 (`--p2p.peers.lo`, `.hi`), consensus clients 70 to
    /// 100. With 30 there would be no room for a mesh of 24 (D_high 36), which a comparison
    /// should try, and few peers beside a mesh of 16 to advertise to.
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

    /// The same with a mesh of another size: D_low = D − 2 and D_high = 1.5 D, as at 8.
    pub const fn with_mesh(d: u32) -> Self {
        let d = if d == 0 { 1 } else { d };
        let d_low = if d < 3 { 1 } else { d - 2 };
        Self { d, d_low, d_high: d.saturating_add(d.div_ceil(2)), ..Self::based_op() }
    }

    /// With every value in its range, so that a run cannot fail for a parameter.
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
