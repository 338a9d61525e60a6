//! The counters of the link emulator.

use hdrhistogram::Histogram;

/// How late packets were sent, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lateness {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Maximum.
    pub max: u64,
}

/// Counts of packets since the start or since the last [`take_stats`](super::Relay::take_stats).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Packets that nodes sent.
    pub packets: u64,
    /// Bytes that each node sent, headers included.
    pub sent: Vec<u64>,
    /// Packets handed to their receiver's socket.
    pub delivered: u64,
    /// Packets lost on the way, as the links decided.
    pub lost: u64,
    /// Packets that did not fit into an uplink's queue.
    pub dropped_uplink: u64,
    /// Packets that did not fit into a downlink's queue.
    pub dropped_downlink: u64,
    /// Packets beyond [`MAX_HELD`](super::MAX_HELD): a failure of the emulator, not of the network.
    pub overflow: u64,
    /// Packets from an unknown address, or to a node that does not listen yet.
    pub unknown: u64,
    /// Packets that the operating system refused to send.
    pub refused: u64,
    /// Delay from the time that a packet was due until it was sent.
    pub lateness: Lateness,
}

impl RelayStats {
    pub(super) fn new(nodes: usize) -> Self {
        Self { sent: vec![0; nodes], ..Self::default() }
    }
}

/// The counters while packets pass.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) stats: RelayStats,
    /// Lateness in microseconds, up to a minute.
    pub(super) late: Histogram<u64>,
}

impl Counts {
    pub(super) fn new(nodes: usize) -> Self {
        let late = Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
        Self { stats: RelayStats::new(nodes), late }
    }

    /// Returns the counts and resets them.
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
