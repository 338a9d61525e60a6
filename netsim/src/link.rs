//! Decides what happens to a packet between two hosts. It has no clock: packets go in with times
//! and times come out, so that the engine in virtual time and the emulator in real time use the
//! same code.
//!
//! ```text
//! sender ─▶ uplink queue ─▶ propagation, jitter, loss, reordering ─▶ downlink queue ─▶ hop ─▶ handled
//!           (bounded FIFO)  (per ordered pair of places)             (bounded FIFO)
//! ```
//!
//! * Serialisation: a packet takes its bytes on the wire over the rate of the host's access link,
//!   one packet after another. Queues are bounded; packets that do not fit are dropped and counted.
//! * Loss: independent, with a probability per packet, or bursty by the Gilbert–Elliott model
//!   (Gilbert 1960, Elliott 1963) with a state for each ordered pair of hosts.
//! * Jitter: an exponential extra delay per packet. Reordering: a share of packets is delayed by a
//!   fixed time. With either, packets can overtake others.
//! * Hop: each packet occupies the receiver's processor for [`LinkConfig::packet_cpu`], and the
//!   receiver acts on it [`LinkConfig::hop`] later.

use std::collections::{BTreeMap, HashMap};

use crate::random::{self, Stream};
use crate::world::World;
use crate::{Nanos, NodeId, SECONDS};

/// The loss of packets.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Loss {
    /// Each packet is lost with this probability.
    Independent(f64),
    /// Packets are lost in bursts.
    Bursty {
        /// Share of packets lost in the long run, below 1.
        mean: f64,
        /// Mean length of a burst in packets, at least 1.
        burst: f64,
    },
}

impl Loss {
    /// The share of packets that is lost in the long run.
    pub const fn mean(self) -> f64 {
        match self {
            Self::Independent(p) => p,
            Self::Bursty { mean, .. } => mean,
        }
    }
}

/// Properties of all hosts and paths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkConfig {
    /// Bits per second that a host can send.
    pub uplink_bps: u64,
    /// Bits per second that a host can receive.
    pub downlink_bps: u64,
    /// The most bytes that wait to be sent, in the buffers of socket and application.
    pub uplink_queue: u64,
    /// The most bytes that wait at the receiver's side of the network.
    pub downlink_queue: u64,
    /// Loss between two hosts.
    pub loss: Loss,
    /// Mean of the exponential extra delay of a packet.
    pub jitter: Nanos,
    /// Share of packets that are delayed, and by how much.
    pub reorder: (f64, Nanos),
    /// Time from the last bit of a packet to what the receiver sends in answer.
    pub hop: Nanos,
    /// How long a packet occupies its receiver's processor.
    pub packet_cpu: Nanos,
}

impl Default for LinkConfig {
    /// 1 Gbit/s, 1 % loss and 0.1 ms a hop. The uplink's queue is what an application keeps for its
    /// peers (1 GiB), the downlink's the buffer of a switch (16 MiB).
    fn default() -> Self {
        Self {
            uplink_bps: 1_000_000_000,
            downlink_bps: 1_000_000_000,
            uplink_queue: 1 << 30,
            downlink_queue: 16 << 20,
            loss: Loss::Independent(0.01),
            jitter: 0,
            reorder: (0.0, 0),
            hop: 100_000,
            packet_cpu: 2_000,
        }
    }
}

/// Bytes of a segment of a stream, for each of which the receiver's processor works.
const SEGMENT: u64 = 1_500;

/// One direction of a host's access link.
#[derive(Debug, Clone, Copy, Default)]
struct Pipe {
    busy_until: Nanos,
}

impl Pipe {
    /// Returns when the last bit of `bytes` has passed; `None` if they do not fit into the queue.
    fn pass(&mut self, now: Nanos, bytes: u64, bps: u64, queue: u64) -> Option<Nanos> {
        let start = self.busy_until.max(now);
        let waiting = u128::from(start - now) * u128::from(bps) / (8 * u128::from(SECONDS));
        if waiting > u128::from(queue) {
            return None;
        }
        self.busy_until = start + serialisation(bytes, bps);
        Some(self.busy_until)
    }
}

/// The time that `bytes` take at `bps`.
pub fn serialisation(bytes: u64, bps: u64) -> Nanos {
    let nanos = u128::from(bytes) * 8 * u128::from(SECONDS) / u128::from(bps.max(1));
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// The links of a network.
///
/// ```
/// use netsim::link::{LinkConfig, Links, Loss};
/// use netsim::world::World;
/// use netsim::{MILLIS, random};
///
/// let world = World::from_places(&[("here", 1), ("there", 1)], |_, _| 10 * MILLIS);
/// let config = LinkConfig {
///     uplink_bps: 8_000_000,
///     loss: Loss::Independent(0.0),
///     ..LinkConfig::default()
/// };
/// let mut links = Links::new(&world, config, random::stream(1, "example", 0));
/// // 1,000 bytes take a millisecond at 8 Mbit/s, and then 10 ms on the way.
/// let departed = links.depart(0, 0, 1_000).expect("the queue has room");
/// let arrived = links.cross(departed, 0, 1).expect("nothing is lost");
/// assert_eq!((departed, arrived), (MILLIS, 11 * MILLIS));
/// ```
#[derive(Debug)]
pub struct Links<'a> {
    world: &'a World,
    config: LinkConfig,
    uplinks: Vec<Pipe>,
    downlinks: Vec<Pipe>,
    processors: Vec<Pipe>,
    /// Rates of hosts whose uplink differs from the configured one.
    slow: BTreeMap<NodeId, u64>,
    /// Whether an ordered pair of hosts is in a burst of losses. Only looked up, never iterated.
    bursts: HashMap<(NodeId, NodeId), bool>,
    random: Stream,
}

impl<'a> Links<'a> {
    /// Idle links.
    pub fn new(world: &'a World, config: LinkConfig, random: Stream) -> Self {
        let n = world.len();
        Self {
            world,
            config,
            uplinks: vec![Pipe::default(); n],
            downlinks: vec![Pipe::default(); n],
            processors: vec![Pipe::default(); n],
            slow: BTreeMap::new(),
            bursts: HashMap::new(),
            random,
        }
    }

    /// The properties of the links.
    pub const fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// The world of the links.
    pub const fn world(&self) -> &'a World {
        self.world
    }

    /// Sets the rate of a host's uplink. `None`: the configured rate.
    pub fn set_uplink(&mut self, node: NodeId, bps: Option<u64>) {
        match bps {
            Some(bps) => self.slow.insert(node, bps),
            None => self.slow.remove(&node),
        };
    }

    /// The rate at which a host sends.
    pub fn uplink_bps(&self, node: NodeId) -> u64 {
        self.slow.get(&node).copied().unwrap_or(self.config.uplink_bps)
    }

    /// Queues a packet at its host's uplink. Returns when its last bit has left; `None` if it was
    /// dropped.
    pub fn depart(&mut self, now: Nanos, from: NodeId, bytes: u64) -> Option<Nanos> {
        let bps = self.uplink_bps(from);
        self.uplinks[from as usize].pass(now, bytes, bps, self.config.uplink_queue)
    }

    /// Sends a packet across. Returns when its last bit reaches the receiver's downlink; `None` if
    /// it is lost.
    pub fn cross(&mut self, departed: Nanos, from: NodeId, to: NodeId) -> Option<Nanos> {
        if self.loses(from, to) {
            return None;
        }
        Some(departed + self.world.delay(from, to) + self.extra())
    }

    /// The extra delay of one packet by jitter and reordering.
    pub fn extra(&mut self) -> Nanos {
        let mut extra = 0;
        if self.config.jitter > 0 {
            extra += (self.config.jitter as f64 * random::exponential(&mut self.random)) as Nanos;
        }
        if random::chance(&mut self.random, self.config.reorder.0) {
            extra += self.config.reorder.1;
        }
        extra
    }

    /// Decides whether the next packet from one host to another is lost.
    pub fn loses(&mut self, from: NodeId, to: NodeId) -> bool {
        match self.config.loss {
            Loss::Independent(p) => random::chance(&mut self.random, p),
            Loss::Bursty { mean, burst } => {
                // Two states: every packet passes in the good one, none in the bad one. The bad one
                // is left with probability 1/burst, and entered such that `mean` is lost in the
                // long run.
                let leave = 1.0 / burst.max(1.0);
                let enter = leave * mean / (1.0 - mean).max(f64::MIN_POSITIVE);
                // The first state of a pair is drawn from the long-run distribution.
                let bad = match self.bursts.get(&(from, to)) {
                    Some(true) => !random::chance(&mut self.random, leave),
                    Some(false) => random::chance(&mut self.random, enter),
                    None => random::chance(&mut self.random, mean),
                };
                self.bursts.insert((from, to), bad);
                bad
            }
        }
    }

    /// Queues a packet at its receiver's downlink. Returns when the host acts on it; `None` if it
    /// was dropped.
    pub fn enter(&mut self, now: Nanos, to: NodeId, bytes: u64) -> Option<Nanos> {
        let through = self.through(now, to, bytes)?;
        Some(self.handled(through, to, 1))
    }

    /// Queues the last segment of a stream of `bytes` at its receiver's downlink. The segments
    /// before it passed as they came, so only a busy downlink delays the last one.
    pub fn enter_streamed(&mut self, now: Nanos, to: NodeId, bytes: u64) -> Option<Nanos> {
        let began = now.saturating_sub(serialisation(bytes, self.config.downlink_bps));
        let through = self.through(began, to, bytes)?.max(now);
        Some(self.handled(through, to, bytes.div_ceil(SEGMENT)))
    }

    fn through(&mut self, now: Nanos, to: NodeId, bytes: u64) -> Option<Nanos> {
        let LinkConfig { downlink_bps, downlink_queue, .. } = self.config;
        self.downlinks[to as usize].pass(now, bytes, downlink_bps, downlink_queue)
    }

    /// Returns when the receiver acts on `packets` that have passed the downlink at `through`. The
    /// processor worked on all but the last as they came, as far as it was free.
    fn handled(&mut self, through: Nanos, to: NodeId, packets: u64) -> Nanos {
        let LinkConfig { hop, packet_cpu, .. } = self.config;
        let processor = &mut self.processors[to as usize].busy_until;
        let before = (packets - 1) * packet_cpu;
        *processor = ((*processor).max(through.saturating_sub(before)) + before).max(through);
        *processor += packet_cpu;
        *processor + hop
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;
    use crate::world::sample::line;

    fn config() -> LinkConfig {
        LinkConfig { loss: Loss::Independent(0.0), ..LinkConfig::default() }
    }

    #[test]
    fn packets_queue_behind_one_another_and_overflow_is_dropped() {
        let world = line(3, 3, 10_000_000);
        let config = LinkConfig { uplink_bps: 8_000_000, uplink_queue: 2_000, ..config() };
        let mut links = Links::new(&world, config, stream(1, "t", 0));
        // 1,000 bytes at 8 Mbit/s take a millisecond.
        let departures: Vec<_> = (0..5).map(|_| links.depart(0, 0, 1_000)).collect();
        assert_eq!(
            departures,
            [Some(1_000_000), Some(2_000_000), Some(3_000_000), None, None],
            "one is being sent, 2,000 bytes wait"
        );
        assert_eq!(links.cross(1_000_000, 0, 1), Some(1_000_000 + 10_100_000));
        links.set_uplink(0, Some(800_000));
        assert_eq!(links.depart(9_000_000, 0, 1_000), Some(19_000_000));
    }

    #[test]
    fn the_downlink_adds_serialisation_and_the_cost_of_the_hop() {
        let world = line(2, 2, 0);
        let config = LinkConfig { downlink_bps: 8_000_000, ..config() };
        let mut links = Links::new(&world, config, stream(1, "t", 0));
        assert_eq!(links.enter(0, 1, 1_000), Some(1_000_000 + 2_000 + 100_000));
        assert_eq!(links.enter(0, 1, 1_000), Some(2_000_000 + 2_000 + 100_000));
    }

    #[test]
    fn a_stream_is_through_with_its_last_segment_unless_the_downlink_is_busy() {
        let world = line(2, 2, 0);
        let config = LinkConfig { downlink_bps: 8_000_000, ..config() };
        let mut links = Links::new(&world, config, stream(1, "t", 0));
        // 15,000 bytes take 15 ms, and ten segments 2 µs each of the processor.
        let at = 50_000_000;
        assert_eq!(links.enter_streamed(at, 1, 15_000), Some(at + 2_000 + 100_000));
        assert_eq!(links.enter_streamed(at, 1, 15_000), Some(at + 15_000_000 + 2_000 + 100_000));
    }

    #[test]
    fn bursts_have_their_mean_and_length() {
        let world = line(2, 2, 0);
        let config = LinkConfig { loss: Loss::Bursty { mean: 0.05, burst: 4.0 }, ..config() };
        let mut links = Links::new(&world, config, stream(3, "t", 0));
        let lost: Vec<bool> = (0..200_000).map(|_| links.loses(0, 1)).collect();
        let share = lost.iter().filter(|l| **l).count() as f64 / lost.len() as f64;
        assert!((share - 0.05).abs() < 0.004, "{share}");
        let bursts = lost.windows(2).filter(|w| !w[0] && w[1]).count() as f64;
        let length = share * lost.len() as f64 / bursts;
        assert!((length - 4.0).abs() < 0.2, "{length}");
        // The first packets of many pairs, too: trees send one a pair.
        let many = line(300, 2, 0);
        let mut links = Links::new(&many, config, stream(3, "t", 0));
        let pairs = (0..300u32).flat_map(|a| (0..300u32).map(move |b| (a, b)));
        let first = pairs.filter(|(a, b)| links.loses(*a, *b)).count() as f64 / 90_000.0;
        assert!((first - 0.05).abs() < 0.004, "{first}");
    }

    #[test]
    fn held_back_packets_are_overtaken() {
        let world = line(2, 2, 1_000_000);
        let config = LinkConfig { reorder: (0.5, 5_000_000), jitter: 10_000, ..config() };
        let mut links = Links::new(&world, config, stream(3, "t", 0));
        let arrivals: Vec<_> = (0..100).map(|i| links.cross(i * 1_000, 0, 1).unwrap()).collect();
        assert!(arrivals.windows(2).any(|w| w[1] < w[0]));
        assert!(arrivals.iter().all(|at| *at >= 1_100_000));
    }
}
