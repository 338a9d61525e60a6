//! What a comparison prints, writes and draws: numbers already aggregated over leaders, seeds
//! and messages. Times are milliseconds after the leader had the message.

use std::collections::BTreeMap;

use serde::Serialize;

/// Distribution of times over all (message, node) pairs, the leader's own left out.
///
/// A node that never completes counts in [`mean`](Self::mean) at the end of the run, and lies
/// beyond every time as far as percentiles are concerned: those that fall there are `None`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Times {
    /// Mean.
    pub mean: Option<f64>,
    /// Median.
    pub p50: Option<f64>,
    /// Nine of ten.
    pub p90: Option<f64>,
    /// 99 of 100.
    pub p99: Option<f64>,
}

/// Times over those of the limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    /// Mean over the mean limit.
    pub mean: Option<f64>,
    /// Median over the median limit.
    pub p50: Option<f64>,
    /// The same of the 90th percentiles.
    pub p90: Option<f64>,
    /// The same of the 99th percentiles.
    pub p99: Option<f64>,
    /// The largest ratio of means of any one leader.
    pub worst_leader: Option<f64>,
}

/// One protocol's numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Protocol {
    /// Times.
    #[serde(flatten)]
    pub times: Times,
    /// (message, node) pairs that never completed.
    pub missed: u64,
    /// Pairs that had to ask for a part.
    pub repaired: u64,
    /// Pairs in all.
    pub pairs: u64,
    /// Bytes sent, framing included, per node and payload byte.
    pub bytes_per_payload_byte: f64,
    /// 99th percentile of the next leader's times over messages.
    pub next_leader_p99: Option<f64>,
    /// Against the limit.
    pub ratio: Ratio,
    /// What was chosen for it: mesh, fanout, code rate.
    pub detail: String,
    /// Settings that were tried, with their mean: gossip's meshes.
    pub tried: Vec<(String, Option<f64>)>,
    /// The most that one node sent for a message, MB, and who it was.
    pub busiest: (f64, String),
    /// The most hosts that one node exchanged packets with, and how many it may.
    pub degree: (u32, Option<u32>),
    /// Packets dropped by full queues, and refused for want of a connection.
    pub dropped: u64,
    /// Packets with a part of a message that nodes handled.
    pub node_shreds: u64,
    /// The distribution, as (ms, share of pairs complete), at most 200 points rising in both.
    pub cdf: Vec<(f64, f64)>,
    /// MB that each node sent per message, sorted falling, at most 200 points.
    pub sent_mb: Vec<f64>,
    /// Mean time at each place, in the order of [`Comparison::places`].
    pub by_place: Vec<Option<f64>>,
    /// What became of the fallback on gossip, where the protocol has one.
    pub fallback: Option<Fallback>,
}

/// What gossip carried as a fallback, and how nodes changed to it and back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fallback {
    /// Pairs that completed by the overlay without asking.
    pub turbine: u64,
    /// Pairs that completed by the overlay after asking.
    pub repair: u64,
    /// Pairs that completed by gossip.
    pub gossip: u64,
    /// Gossip's share of the bytes sent, 0 to 1.
    pub gossip_bytes: f64,
    /// Changes from the overlay to gossip.
    pub fallbacks: u64,
    /// Changes back.
    pub returns: u64,
    /// Times that a node listened to gossip to find out.
    pub probes: u64,
    /// Changes of the node that changed most.
    pub flaps: u64,
    /// The longest from when a message was sent that the overlay did not bring to the fallback.
    pub slowest_ms: f64,
    /// The most blocks that the overlay had to complete before a way back.
    pub dwell: u64,
    /// Nodes that are not back on the overlay in the end.
    pub on_gossip: u64,
}

/// A place on the map.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlaceRow {
    /// Name.
    pub name: String,
    /// Degrees north and east, where known.
    pub position: Option<(f64, f64)>,
    /// Nodes there.
    pub nodes: usize,
}

/// One table: all protocols under one set of delays.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// What is special about it, such as "12 % factor per pair of places".
    pub title: String,
    /// By name: `fragcast`, `turbine`, `rotor`, `gossip`, `direct`, `limit`.
    pub protocols: BTreeMap<String, Protocol>,
}

/// All that a comparison found.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// BLAKE3 over the digests of all runs, hex.
    pub digest: String,
    /// What made it, in the order of printing: (name, value).
    pub settings: Vec<(String, String)>,
    /// Where nodes are.
    pub places: Vec<PlaceRow>,
    /// The first one is the contract's `protocols`; the others repeat it under other delays.
    pub tables: Vec<Table>,
    /// Things a reader must know to read the table right, a sentence each.
    pub notes: Vec<String>,
}

/// A sweep: the same comparison at several values of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// Name of the parameter with its unit, such as "loss, %".
    pub parameter: String,
    /// Value and what was found there, rising.
    pub points: Vec<(f64, Comparison)>,
}

/// The order in which protocols stand in tables and legends.
pub const ORDER: [&str; 6] = ["limit", "fragcast", "turbine", "rotor", "gossip", "direct"];
