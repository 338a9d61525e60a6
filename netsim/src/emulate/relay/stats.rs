//! What the link emulator counts.

use hdrhistogram::Histogram;

/// How much later than due packets were sent, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lateness {
    /// Median.
    pub p50: u64,
    /// 99 of 100.
    pub p99: u64,
    /// The worst.
    pub max: u64,
}

/// What became of packets since the start, or since the last [`take_stats`](super::Relay::take_stats).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Packets that nodes sent.
    pub packets: u64,
    /// Bytes that each node sent, headers included.
    pub sent: Vec<u64>,
    /// Packets handed to their receiver's socket.
    pub delivered: u64,
    /// Lost on the way, as the links decided.
    pub lost: u64,
    /// Did not fit into an uplink's queue.
    pub dropped_uplink: u64,
    /// Did not fit into a downlink's queue.
    pub dropped_downlink: u64,
    /// Beyond [`MAX_HELD`](super::MAX_HELD): the emulator's failure, not the network's.
    pub overflow: u64,
    /// From an address that is no node's, or to a node that does not listen yet.
    pub unknown: u64,
    /// The operating system refused to send.
    pub refused: u64,
    /// Due against sent.
    pub lateness: Lateness,
}

impl RelayStats {
    pub(super) fn new(nodes: usize) -> Self {
        Self { sent: vec![0; nodes], ..Self::default() }
    }
}

/// Counters as they grow.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) stats: RelayStats,
    /// µs up to a minute.
    pub(super) late: Histogram<u64>,
}

impl Counts {
    pub(super) fn new(nodes: usize) -> Self {
        let late = Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
        Self { stats: RelayStats::new(nodes), late }
    }

    /// What was counted; counting starts anew.
    pub(super) fn take(&mut self) -> RelayStats {
        let fresh = RelayStats::new(self.stats.sent.len());
        let stats = std::mem::replace(&mut self.stats, fresh);
        let quantile = |q| self.late.value_at_quantile(q);
        let (p50, p99) = (quantile(0.5), quantile(0.99));
        let lateness = Lateness { p50, p99, max: self.late.max() };
        self.late.reset();
        RelayStats { lateness, ..stats }
    }
}
