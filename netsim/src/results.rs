//! The results of a comparison, aggregated over leaders, seeds and messages, for all kinds of
//! reports. Times are milliseconds after the leader had the message.

use std::collections::BTreeMap;

use serde::Serialize;

/// Distribution of times over all (message, node) pairs, without the leader's own.
///
/// A node that never completes counts in [`mean`](Self::mean) with the end of the run. For
/// percentiles it is later than every time; a percentile that falls on such a node is `None`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Times {
    /// Mean.
    pub mean: Option<f64>,
    /// Median.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

/// Ratios of times to those of the limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    /// Mean over the mean limit.
    pub mean: Option<f64>,
    /// Median over the median limit.
    pub p50: Option<f64>,
    /// 90th percentile over that of the limit.
    pub p90: Option<f64>,
    /// 99th percentile over that of the limit.
    pub p99: Option<f64>,
    /// The largest ratio of means of a single leader.
    pub worst_leader: Option<f64>,
}

/// The numbers of one protocol.
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
    /// Ratios to the limit.
    pub ratio: Ratio,
    /// The settings it ran with: mesh, fanout, code rate.
    pub detail: String,
    /// All settings that were tried, with their means: gossip's meshes.
    pub tried: Vec<(String, Option<f64>)>,
    /// The most that one node sent for a message, in MB, and the node's name.
    pub busiest: (f64, String),
    /// The most hosts that a node exchanged packets with, and its limit.
    pub degree: (u32, Option<u32>),
    /// Packets dropped by full queues or refused for lack of a connection.
    pub dropped: u64,
    /// Packets with a part of a message that nodes handled.
    pub node_shreds: u64,
    /// The distribution, as (ms, share of pairs complete), at most 200 points rising in both.
    pub cdf: Vec<(f64, f64)>,
    /// MB that each node sent per message, in falling order, at most 200 points.
    pub sent_mb: Vec<f64>,
    /// Mean time at each place, in the order of [`Comparison::places`].
    pub by_place: Vec<Option<f64>>,
    /// The fallback on gossip, if the protocol has one.
    pub fallback: Option<Fallback>,
}

/// Use of gossip as a fallback, and the nodes' changes to it and back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fallback {
    /// Pairs that completed by the overlay without repair.
    pub turbine: u64,
    /// Pairs that completed by the overlay with repair.
    pub repair: u64,
    /// Pairs that completed by gossip.
    pub gossip: u64,
    /// Gossip's share of the bytes sent, 0 to 1.
    pub gossip_bytes: f64,
    /// Changes from the overlay to gossip.
    pub fallbacks: u64,
    /// Changes from gossip to the overlay.
    pub returns: u64,
    /// Number of times that a node probed gossip.
    pub probes: u64,
    /// The most changes of a single node.
    pub flaps: u64,
    /// The longest time from the sending of a message that the overlay did not bring until the
    /// fallback.
    pub slowest_ms: f64,
    /// The most blocks that the overlay had to complete before a return.
    pub dwell: u64,
    /// Nodes that are not on the overlay in the end.
    pub on_gossip: u64,
}

/// A place on the map.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlaceRow {
    /// Name.
    pub name: String,
    /// Degrees north and east, where known.
    pub position: Option<(f64, f64)>,
    /// Number of nodes there.
    pub nodes: usize,
}

/// One table: all protocols under one set of delays.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// What distinguishes it, such as "12 % factor per pair of places".
    pub title: String,
    /// By name: `fragcast`, `turbine`, `rotor`, `gossip`, `direct`, [`LIMIT`] and
    /// [`RELAYED_LIMIT`].
    pub protocols: BTreeMap<String, Protocol>,
}

/// The results of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// BLAKE3 over the digests of all runs, hex.
    pub digest: String,
    /// Its settings as (name, value), in the order of printing.
    pub settings: Vec<(String, String)>,
    /// The places of the nodes.
    pub places: Vec<PlaceRow>,
    /// The main table, and then its repetitions under other delays.
    pub tables: Vec<Table>,
    /// Notes for the reader, a sentence each.
    pub notes: Vec<String>,
}

/// A sweep: the same comparison at several values of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// Name of the parameter with its unit, such as "loss, %".
    pub parameter: String,
    /// The values in rising order, each with its comparison.
    pub points: Vec<(f64, Comparison)>,
}

/// A row of a survey: the comparison of one combination of network, size, uplink and loss.
#[derive(Debug, Clone, PartialEq)]
pub struct SurveyRow {
    /// The name of the network.
    pub network: String,
    /// Number of its nodes.
    pub nodes: usize,
    /// Bytes of a frag.
    pub bytes: u32,
    /// Bits per second of every uplink and downlink.
    pub uplink_bps: u64,
    /// Share of packets lost between two hosts.
    pub loss: f64,
    /// BLAKE3 over the digests of its comparisons, hex.
    pub digest: String,
    /// As in [`Table::protocols`], without curves. With several profiles fragcast has a name for
    /// each, see [`is_ours`].
    pub protocols: BTreeMap<String, Protocol>,
    /// As in [`Comparison::settings`].
    pub settings: Vec<(String, String)>,
    /// As in [`Comparison::notes`].
    pub notes: Vec<String>,
}

/// A survey: the same comparison on many networks, with messages of many sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// BLAKE3 over the digests of all rows, hex.
    pub digest: String,
    /// The rows in the order of printing.
    pub rows: Vec<SurveyRow>,
    /// Settings of the survey itself, such as its command.
    pub settings: Vec<(String, String)>,
}

impl Survey {
    /// A survey of these rows.
    pub fn of(rows: Vec<SurveyRow>, settings: Vec<(String, String)>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("fragcast 2026 netsim survey v1");
        rows.iter().for_each(|row| {
            hasher.update(row.digest.as_bytes());
        });
        Self { digest: hasher.finalize().to_hex().to_string(), rows, settings }
    }
}

/// Whether a name is fragcast's, or that of one of its profiles, such as `fragcast-lean`.
pub fn is_ours(name: &str) -> bool {
    name.strip_prefix("fragcast").is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// The order of protocols in tables and legends. [`RELAYED_LIMIT`] comes after the first.
pub const ORDER: [&str; 6] = [LIMIT, "fragcast", "turbine", "rotor", "gossip", "direct"];

/// The name of the limit in [`Table::protocols`]: the direct path from the leader.
pub const LIMIT: &str = "limit";

/// The name of the second limit in [`Table::protocols`]: the shortest path over any relays. Its
/// ratios are to the first.
pub const RELAYED_LIMIT: &str = "relayed_limit";
