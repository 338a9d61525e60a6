//! Outgoing lanes: strict priority, bounded queues whose drops are counted, and pacing.
//!
//! All sending of the protocol goes through here, so that the order and rate of what leaves a
//! node are decided in one place and are the same in netsim. A lane of higher priority is
//! always drained first; within a lane it is first in, first out. The token bucket refills at
//! the configured uplink and its burst is small, because a QUIC datagram that overruns a
//! socket buffer is lost for good.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use strum::{IntoStaticStr, VariantArray};

use crate::counts::labelled;
use crate::peer::PeerKey;
use crate::time::Timestamp;

/// Priority classes, highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Lane {
    /// Leader to the next leader.
    NextLeader,
    /// Data shreds, and whatever else is as urgent.
    Data,
    /// Coding shreds.
    Coding,
    /// Answers to repair requests.
    Repair,
    /// Control and backfill.
    Bulk,
}

labelled!(pub Lane, name);

/// The contents of a transmit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A shred: one unreliable datagram.
    Shred(Bytes),
    /// A control frame: reliable, in order.
    Control(Bytes),
}

impl Payload {
    /// Bytes on the wire without framing.
    pub const fn len(&self) -> usize {
        match self {
            Self::Shred(bytes) | Self::Control(bytes) => bytes.len(),
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One thing to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The peer to send it to.
    pub to: PeerKey,
    /// The lane it waits in.
    pub lane: Lane,
    /// What is sent.
    pub payload: Payload,
}

/// Bytes of IP, UDP and QUIC framing of a datagram, for pacing.
pub const FRAMING: usize = 60;

/// How many lanes there are.
const LANES: usize = <Lane as VariantArray>::VARIANTS.len();

/// The lanes of one node.
#[derive(Debug)]
pub struct Egress {
    lanes: [VecDeque<Transmit>; LANES],
    queued: [usize; LANES],
    dropped: [u64; LANES],
    sent: [u64; LANES],
    /// Bytes a lane may hold.
    capacity: usize,
    /// Nanoseconds a byte takes, in 2^-16ths, so that integers suffice up to 100 Gbit/s.
    nanos_per_byte: u64,
    /// The burst that may leave at once, as time.
    burst: Duration,
    /// When everything sent so far would have left at the configured rate.
    busy_until: Timestamp,
}

impl Egress {
    /// Lanes of `capacity` bytes each, paced to `bits_per_second` with bursts of `burst`.
    pub fn new(capacity: usize, bits_per_second: u64, burst: Duration) -> Self {
        Self {
            lanes: Default::default(),
            queued: [0; LANES],
            dropped: [0; LANES],
            sent: [0; LANES],
            capacity,
            nanos_per_byte: (8_000_000_000u64 << 16) / bits_per_second.max(1_000),
            burst,
            busy_until: Timestamp::default(),
        }
    }

    /// Queues, or drops and counts if the lane is full.
    pub fn push(&mut self, transmit: Transmit) -> bool {
        let lane = transmit.lane as usize;
        let len = transmit.payload.len() + FRAMING;
        if self.queued[lane] + len > self.capacity {
            self.dropped[lane] += 1;
            return false;
        }
        self.push_own(transmit);
        true
    }

    /// Queues whatever the lane holds already: for a leader's own message, which was admitted
    /// whole by [`has_room`](Self::has_room) and must not lose a part.
    pub fn push_own(&mut self, transmit: Transmit) {
        let lane = transmit.lane as usize;
        self.queued[lane] += transmit.payload.len() + FRAMING;
        self.lanes[lane].push_back(transmit);
    }

    /// Whether the lanes that carry a broadcast are under their capacity.
    pub fn has_room(&self) -> bool {
        self.queued[..3].iter().all(|queued| *queued < self.capacity)
    }

    /// The next thing to send, if pacing allows one now.
    pub fn pop(&mut self, now: Timestamp) -> Option<Transmit> {
        if self.busy_until > now + self.burst {
            return None;
        }
        let lane = self.lanes.iter().position(|lane| !lane.is_empty())?;
        let transmit = self.lanes[lane].pop_front()?;
        let len = transmit.payload.len() + FRAMING;
        self.queued[lane] -= len;
        self.sent[lane] += len as u64;
        let took = Duration::from_nanos((len as u64 * self.nanos_per_byte) >> 16);
        self.busy_until = self.busy_until.max(now) + took;
        Some(transmit)
    }

    /// Whether nothing is queued in any lane.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// When [`pop`](Self::pop) will return something, if anything is queued.
    pub fn next_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_empty() {
            return None;
        }
        let wait = self.busy_until.since(now).saturating_sub(self.burst);
        Some(now + wait)
    }

    /// Drops all that is queued for a peer that is gone.
    pub fn forget(&mut self, peer: PeerKey) {
        for (lane, queued) in self.lanes.iter_mut().zip(&mut self.queued) {
            lane.retain(|transmit| transmit.to != peer);
            *queued = lane.iter().map(|t| t.payload.len() + FRAMING).sum();
        }
    }

    /// Bytes queued in a lane.
    pub const fn queued(&self, lane: Lane) -> usize {
        self.queued[lane as usize]
    }

    /// Transmits dropped by a lane because it was full.
    pub const fn dropped(&self, lane: Lane) -> u64 {
        self.dropped[lane as usize]
    }

    /// Bytes that left through a lane, framing included.
    pub const fn sent(&self, lane: Lane) -> u64 {
        self.sent[lane as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transmit(lane: Lane, n: u8) -> Transmit {
        Transmit { to: PeerKey::from(0), lane, payload: Payload::Shred(vec![n; 940].into()) }
    }

    #[test]
    fn higher_lanes_leave_first_and_lanes_keep_their_order() {
        let mut egress = Egress::new(1 << 20, 1_000_000_000, Duration::from_secs(1));
        for (n, lane) in Lane::ALL.iter().copied().rev().enumerate() {
            egress.push(transmit(lane, n as u8));
            egress.push(transmit(lane, 10 + n as u8));
        }
        let order: Vec<Lane> =
            std::iter::from_fn(|| egress.pop(Timestamp::default())).map(|t| t.lane).collect();
        let expected: Vec<Lane> = Lane::ALL.iter().copied().flat_map(|lane| [lane, lane]).collect();
        assert_eq!(order, expected);
    }

    #[test]
    fn a_full_lane_drops_and_counts_and_the_others_do_not_notice() {
        let mut egress = Egress::new(2_500, 1_000_000_000, Duration::from_secs(1));
        let taken: Vec<bool> = (0..4).map(|n| egress.push(transmit(Lane::Data, n))).collect();
        assert_eq!(taken, [true, true, false, false]);
        assert!(egress.push(transmit(Lane::Coding, 0)));
        assert_eq!((egress.dropped(Lane::Data), egress.dropped(Lane::Coding)), (2, 0));
        assert_eq!(egress.queued(Lane::Data), 2_000);
        egress.forget(PeerKey::from(0));
        assert_eq!(egress.queued(Lane::Data), 0);
        assert_eq!(egress.next_at(Timestamp::default()), None);
    }

    #[test]
    fn pacing_keeps_the_rate_and_bounds_the_burst() {
        // 1,000 bytes with framing at 8 Mbit/s take a millisecond each.
        let mut egress = Egress::new(1 << 20, 8_000_000, Duration::from_millis(2));
        for n in 0..100 {
            egress.push(transmit(Lane::Data, n));
        }
        let mut now = Timestamp::default();
        let burst = std::iter::from_fn(|| egress.pop(now)).count();
        assert_eq!(burst, 3, "two milliseconds ahead, and the one that was begun");
        let mut sent = burst;
        while let Some(at) = egress.next_at(now) {
            assert!(at > now, "poll_timeout must move on");
            now = at;
            let at_once = std::iter::from_fn(|| egress.pop(now)).count();
            assert!(at_once <= 2);
            sent += at_once;
        }
        assert_eq!(sent, 100);
        let took = now.since(Timestamp::default());
        assert!(
            took >= Duration::from_millis(96) && took <= Duration::from_millis(100),
            "{took:?}"
        );
        assert_eq!(egress.sent(Lane::Data), 100_000);
    }
}
