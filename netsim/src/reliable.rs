//! Reliable, ordered transports: TCP and streams of QUIC. Each transfer is decided when it is sent.
//!
//! A transfer is cut into segments, which leave in flights of at most the congestion window. Lost
//! segments of a flight are sent again one round trip later (fast retransmit, RFC 5681; RACK, RFC
//! 8985), or two if the last segment of the flight is lost too, which takes a tail loss probe to
//! detect (RFC 8985, section 7.2). The window shrinks to 0.7 of itself at a loss (CUBIC, RFC 9438)
//! and grows by a half for each flight without one. The transfer is complete when its last missing
//! segment arrives, but not before the transfers that were sent earlier on the same connection.
//!
//! Connections are warm: there is no handshake and no slow start after idling, and the window holds
//! what the application sends at a time. A connection in steady state under 1 % loss would be
//! slower, since its window would settle at some 12 segments; the comparison uses the better case.
//!
//! Acknowledgements, one for every second segment, are counted in bytes but do not queue, since
//! they are small.

use std::collections::HashMap;

use crate::link::Links;
use crate::{MILLIS, Nanos, NodeId, SECONDS};

/// Framing and behaviour of a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReliableConfig {
    /// Bytes of content that a segment carries.
    pub segment: u32,
    /// Bytes of framing around a segment, IP included.
    pub framing: u32,
    /// Bytes of an acknowledgement on the wire.
    pub acknowledgement: u32,
    /// Congestion window of a warm connection, in segments.
    pub window: u32,
    /// Whether it runs over UDP.
    pub udp: bool,
    /// How long a connection lasts without any answer. Then it is dead, and its transfers are lost.
    pub give_up: Nanos,
}

impl ReliableConfig {
    /// TCP over IPv4 with timestamps on a path of 1,500 bytes. Headers have 20 + 32 bytes.
    pub const TCP: Self = Self {
        segment: 1448,
        framing: 52,
        acknowledgement: 52,
        window: 4096,
        udp: false,
        give_up: 60 * SECONDS,
    };
    /// A QUIC stream as `fragcast` configures its transport: packets of 1,200 bytes over UDP, of
    /// which 28 are IP and UDP, and some 37 QUIC header, frame header and authentication tag. The
    /// idle time-out is 6 s.
    pub const QUIC: Self = Self {
        segment: 1163,
        framing: 65,
        acknowledgement: 60,
        window: 4096,
        udp: true,
        give_up: 6 * SECONDS,
    };
}

/// The result of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossed {
    /// When the last bit of the last segment is at the receiver's downlink.
    pub at: Nanos,
    /// Bytes that were sent again.
    pub resent: u64,
    /// Bytes of acknowledgements that the receiver sent.
    pub acknowledged: u64,
    /// Segments that were lost.
    pub lost: u64,
}

/// The shortest retransmission time-out, as in Linux.
const MIN_RTO: Nanos = 200 * MILLIS;

/// All connections of one kind in a network.
#[derive(Debug, Clone)]
pub struct Reliable {
    config: ReliableConfig,
    /// By connection: when its latest transfer was complete, since order is kept.
    latest: HashMap<(NodeId, NodeId), Nanos>,
}

impl Reliable {
    /// Connections without earlier transfers.
    pub fn new(config: ReliableConfig) -> Self {
        Self { config, latest: HashMap::new() }
    }

    /// Whether it runs over UDP.
    pub const fn over_udp(&self) -> bool {
        self.config.udp
    }

    /// Replaces a connection by a new one, on which nothing waits for the old one's transfers.
    pub fn reconnect(&mut self, a: NodeId, b: NodeId) {
        self.latest.remove(&(a, b));
        self.latest.remove(&(b, a));
    }

    fn segments(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.config.segment.into()).max(1)
    }

    /// Bytes on the wire for `bytes` of content, if nothing is lost.
    pub fn wire_bytes(&self, bytes: u64) -> u64 {
        bytes + self.segments(bytes) * u64::from(self.config.framing)
    }

    /// Decides one transfer whose bytes left the uplink at `departed`. `blocked` tells whether the
    /// path is blocked at a time. `None` if it is blocked for too long.
    pub fn transfer(
        &mut self,
        links: &mut Links<'_>,
        departed: Nanos,
        (from, to): (NodeId, NodeId),
        bytes: u64,
        blocked: impl Fn(Nanos) -> bool,
    ) -> Option<Crossed> {
        let delay = links.world().delay(from, to);
        let rtt = delay + links.world().delay(to, from);
        let segment = u64::from(self.config.segment + self.config.framing);
        let total = self.segments(bytes);
        let mut pending = total;
        let mut window = u64::from(self.config.window).max(1);
        let (mut time, mut whole, mut lost) = (departed, 0, 0);
        let mut timeout = (rtt + 4 * MILLIS).max(MIN_RTO);
        while pending > 0 {
            if blocked(time) {
                // No answer comes: exponential back-off (RFC 6298).
                lost += 1;
                if time - departed > self.config.give_up {
                    return None;
                }
                time += timeout;
                timeout *= 2;
                continue;
            }
            let flight = pending.min(window);
            let mut missing = 0;
            let mut tail = false;
            for _ in 0..flight {
                tail = links.loses(from, to);
                missing += u64::from(tail);
            }
            if missing < flight {
                whole = whole.max(time + delay + links.extra());
            }
            pending -= flight - missing;
            lost += missing;
            window = if missing > 0 { (window * 7 / 10).max(2) } else { window + window / 2 };
            // The next flight leaves when the acknowledgements are back or the probe has been sent.
            time += rtt + if tail { rtt.max(2 * MILLIS) } else { 0 };
        }
        let latest = self.latest.entry((from, to)).or_default();
        *latest = whole.max(*latest);
        let acknowledged = (total + lost).div_ceil(2) * u64::from(self.config.acknowledgement);
        Some(Crossed { at: *latest, resent: lost * segment, acknowledged, lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{LinkConfig, Loss};
    use crate::random::stream;
    use crate::world::sample::line;

    const DELAY: Nanos = 10_100_000;

    fn transfers(loss: f64, config: ReliableConfig, bytes: u64, n: u64) -> Vec<Crossed> {
        let world = line(2, 2, 10 * MILLIS);
        let loss = Loss::Independent(loss);
        let mut links =
            Links::new(&world, LinkConfig { loss, ..LinkConfig::default() }, stream(1, "t", 0));
        // Each transfer has its own connection, so that it waits for no other.
        (0..n)
            .map(|_| {
                let mut tcp = Reliable::new(config);
                tcp.transfer(&mut links, 0, (0, 1), bytes, |_| false).unwrap()
            })
            .collect()
    }

    #[test]
    fn without_loss_a_transfer_takes_one_way_or_a_round_trip_for_each_window() {
        let tcp = ReliableConfig::TCP;
        let crossed = transfers(0.0, tcp, 36_000, 1)[0];
        assert_eq!(crossed, Crossed { at: DELAY, resent: 0, acknowledged: 13 * 52, lost: 0 });
        assert_eq!(Reliable::new(tcp).wire_bytes(36_000), 36_000 + 25 * 52);
        // 10, then 15 segments.
        let small = ReliableConfig { window: 10, ..tcp };
        assert_eq!(transfers(0.0, small, 36_000, 1)[0].at, 3 * DELAY);
    }

    #[test]
    fn a_loss_costs_a_round_trip_and_one_at_the_tail_two() {
        let all = transfers(0.01, ReliableConfig::TCP, 36_000, 4_000);
        let share = |at: Nanos| all.iter().filter(|c| c.at == at).count() as f64 / 4_000.0;
        // 0.99^25 pass at once; 1 % lose their last segment.
        assert!((share(DELAY) - 0.778).abs() < 0.02, "{}", share(DELAY));
        assert!((share(3 * DELAY) - 0.21).abs() < 0.02, "{}", share(3 * DELAY));
        assert!((share(5 * DELAY) - 0.01).abs() < 0.006, "{}", share(5 * DELAY));
    }

    #[test]
    fn order_is_kept_and_an_outage_is_survived() {
        let world = line(2, 2, 10 * MILLIS);
        let loss = Loss::Independent(0.0);
        let mut links =
            Links::new(&world, LinkConfig { loss, ..LinkConfig::default() }, stream(1, "t", 0));
        let mut tcp = Reliable::new(ReliableConfig::TCP);
        let end = SECONDS;
        let first = tcp.transfer(&mut links, 0, (0, 1), 100, |at| at < end).unwrap();
        // 200, 600, 1,400 ms after the start.
        assert_eq!(first.at, 1_400 * MILLIS + DELAY);
        let second = tcp.transfer(&mut links, 5, (0, 1), 100, |_| false).unwrap();
        assert_eq!(second.at, first.at);
        assert_eq!(tcp.transfer(&mut links, 0, (0, 1), 100, |_| true), None);
    }
}
