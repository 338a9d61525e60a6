//! Outgoing lanes: strict priority, bounded queues whose drops are counted, and pacing.
//!
//! All sending of the protocol goes through here, so that the order and rate of what leaves a
//! node are decided in one place and are the same in netsim. A lane of higher priority is
//! always drained first; within a lane it is first in, first out. The token bucket refills at
//! the configured uplink and its burst is small, because a QUIC datagram that overruns a
//! socket buffer is lost for good.
//!
//! Whole blocks, for nodes that were away, have the lane behind all else that is for members, and are
//! put into it only while what it holds leaves within 50 ms: who asks for more is told to ask again.
//!
//! Whatever is for a guest goes into the last two lanes, be it what it may: blocks into the second of
//! them. They have a rate of their own: members wait for a guest's bytes for as long as one burst of
//! that rate takes at most. Each holds what is sent in half a second, and a megabyte at least; of
//! blocks it has less.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use strum::{IntoStaticStr, VariantArray};

use crate::control::is_of_guests;
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
    /// Control.
    Bulk,
    /// Whole blocks, for members that were away.
    Backfill,
    /// All that is for guests, but for blocks.
    Guest,
    /// Whole blocks, for guests.
    GuestBackfill,
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

/// Whole blocks are queued while those that wait leave within this: six megabytes at a gigabit a second.
const BACKFILL: Duration = Duration::from_millis(50);

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
    /// The peers that are guests.
    guests: BTreeSet<PeerKey>,
    /// For the guests' lanes, what `nanos_per_byte`, `capacity` and `busy_until` are for all.
    guests_nanos_per_byte: u64,
    guests_capacity: usize,
    guests_busy_until: Timestamp,
    /// This node is a guest itself: it says what guests may say and nothing else.
    is_guest: bool,
}

/// What a guests' lane holds at least, and for how long it is sent otherwise.
const GUESTS_LANE: (usize, u64) = (1024 * 1024, 2);

/// Nanoseconds that a byte takes, in 2^-16ths.
const fn nanos_per_byte(bits_per_second: u64) -> u64 {
    let bits = if bits_per_second < 1_000 { 1_000 } else { bits_per_second };
    (8_000_000_000u64 << 16) / bits
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
            nanos_per_byte: nanos_per_byte(bits_per_second),
            burst,
            busy_until: Timestamp::default(),
            guests: BTreeSet::new(),
            guests_nanos_per_byte: nanos_per_byte(bits_per_second / 4),
            guests_capacity: GUESTS_LANE.0,
            guests_busy_until: Timestamp::default(),
            is_guest: false,
        }
    }

    /// The same with a rate for what is sent to guests.
    pub fn with_guests(self, bits_per_second: u64) -> Self {
        let half_a_second = usize::try_from(bits_per_second / 8 / GUESTS_LANE.1);
        let guests_capacity = half_a_second.unwrap_or(usize::MAX).max(GUESTS_LANE.0);
        let guests_capacity = guests_capacity.min(self.capacity);
        let guests_nanos_per_byte = nanos_per_byte(bits_per_second);
        Self { guests_nanos_per_byte, guests_capacity, ..self }
    }

    /// From now on lanes hold `capacity` bytes and leave at `bits_per_second`. What is in them stays.
    pub(crate) const fn set_rate(&mut self, capacity: usize, bits_per_second: u64) {
        self.capacity = capacity;
        self.nanos_per_byte = nanos_per_byte(bits_per_second);
    }

    /// Whether a peer is a guest from now on.
    pub(crate) fn set_guest(&mut self, peer: PeerKey, is_guest: bool) {
        match is_guest {
            true => self.guests.insert(peer),
            false => self.guests.remove(&peer),
        };
    }

    /// Whether this node is a guest from now on, who sends only what members take of one.
    pub(crate) const fn be_guest(&mut self, is_guest: bool) {
        self.is_guest = is_guest;
    }

    /// Whether half of what the guests' lane holds at most waits in it.
    pub(crate) const fn guests_lane_is_half_full(&self) -> bool {
        self.queued[Lane::Guest as usize] > self.guests_capacity / 2
    }

    /// Whether more of whole blocks may be queued for a peer: see [`BACKFILL`].
    pub(crate) fn takes_blocks(&self, to: PeerKey) -> bool {
        let (lane, nanos_per_byte) = match self.guests.contains(&to) {
            true => (Lane::GuestBackfill, self.guests_nanos_per_byte),
            false => (Lane::Backfill, self.nanos_per_byte),
        };
        let nanos = (self.queued(lane) as u64).saturating_mul(nanos_per_byte) >> 16;
        Duration::from_nanos(nanos) < BACKFILL
    }

    /// Whether a guest may not say this.
    fn is_unfit(&self, payload: &Payload) -> bool {
        self.is_guest
            && match payload {
                Payload::Shred(_) => true,
                Payload::Control(frame) => !frame.first().is_some_and(|kind| is_of_guests(*kind)),
            }
    }

    /// Queues, or drops and counts if the lane is full.
    pub fn push(&mut self, mut transmit: Transmit) -> bool {
        if self.is_unfit(&transmit.payload) {
            return false;
        }
        let mut capacity = self.capacity;
        if self.guests.contains(&transmit.to) {
            capacity = self.guests_capacity;
            transmit.lane = match transmit.lane {
                Lane::Backfill => Lane::GuestBackfill,
                _ => Lane::Guest,
            };
        }
        let lane = transmit.lane as usize;
        let len = transmit.payload.len() + FRAMING;
        if self.queued[lane] + len > capacity {
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
        let to_guest = lane >= Lane::Guest as usize;
        if to_guest && self.guests_busy_until > now + self.burst {
            return None;
        }
        let transmit = self.lanes[lane].pop_front()?;
        let len = transmit.payload.len() + FRAMING;
        self.queued[lane] -= len;
        self.sent[lane] += len as u64;
        let took = Duration::from_nanos((len as u64 * self.nanos_per_byte) >> 16);
        self.busy_until = self.busy_until.max(now) + took;
        if to_guest {
            let took = Duration::from_nanos((len as u64 * self.guests_nanos_per_byte) >> 16);
            self.guests_busy_until = self.guests_busy_until.max(now) + took;
        }
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
        let others = self.lanes[..Lane::Guest as usize].iter().any(|lane| !lane.is_empty());
        let busy_until = match others {
            true => self.busy_until,
            false => self.busy_until.max(self.guests_busy_until),
        };
        Some(now + busy_until.since(now).saturating_sub(self.burst))
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
    fn a_choked_uplink_drops_and_a_free_one_does_not() {
        let mut egress = Egress::new(1 << 20, 1_000_000_000, Duration::from_millis(1));
        egress.set_rate(3_000, 8_000);
        let taken = (0..10).filter(|n| egress.push(transmit(Lane::Data, *n))).count();
        assert_eq!((taken, egress.dropped(Lane::Data)), (3, 7));
        // A kilobyte a second.
        let mut now = Timestamp::default();
        assert!(egress.pop(now).is_some() && egress.pop(now).is_none());
        now = now + Duration::from_secs(1);
        assert!(egress.pop(now).is_some());
        egress.set_rate(1 << 20, 1_000_000_000);
        now = now + Duration::from_secs(1);
        assert!((0..10).all(|n| egress.push(transmit(Lane::Data, n))));
        assert_eq!(
            (std::iter::from_fn(|| egress.pop(now)).count(), egress.dropped(Lane::Data)),
            (11, 7)
        );
    }

    #[test]
    fn what_is_for_guests_leaves_last_and_at_its_own_rate() {
        let mut egress =
            Egress::new(1 << 24, 80_000_000, Duration::from_millis(1)).with_guests(8_000_000);
        egress.set_guest(PeerKey::from(9), true);
        let to_guest = |lane| Transmit { to: PeerKey::from(9), ..transmit(lane, 9) };
        let mut now = Timestamp::default();
        for _ in 0..100 {
            assert!(egress.push(to_guest(Lane::NextLeader)));
        }
        assert_eq!(egress.queued(Lane::Guest), 100_000);
        let (mut members, mut guests) = (0, 0);
        for turn in 0..1_000 {
            // Half of what the uplink carries.
            if turn % 4 == 0 {
                egress.push(transmit(Lane::Data, 1));
            }
            while let Some(sent) = egress.pop(now) {
                // Nothing of a member's is ever left behind it.
                assert!(sent.lane != Lane::Guest || egress.queued(Lane::Data) == 0);
                members += usize::from(sent.lane == Lane::Data);
                guests += usize::from(sent.lane == Lane::Guest);
            }
            assert!(egress.next_at(now).expect("guests wait") > now, "time moves on");
            now = now + Duration::from_micros(50);
        }
        // Fifty milliseconds: a kilobyte takes one at the guests' rate and a tenth of one at all.
        assert!((45..=53).contains(&guests), "{guests}");
        assert_eq!(members, 250);
        egress.set_guest(PeerKey::from(9), false);
        assert!(egress.push(to_guest(Lane::Data)));
        assert_eq!(egress.queued(Lane::Data), 940 + FRAMING);
    }

    #[test]
    fn the_guests_lane_is_bounded_by_time_and_a_guest_says_what_guests_may() {
        let mut egress = Egress::new(1 << 24, 1_000_000_000, Duration::from_millis(2));
        egress = egress.with_guests(32_000_000);
        egress.set_guest(PeerKey::from(0), true);
        let taken = (0..5_000).filter(|_| egress.push(transmit(Lane::Data, 0))).count();
        assert_eq!(taken, 2_000, "half a second of four megabytes a second");
        assert_eq!((egress.dropped(Lane::Guest), egress.dropped(Lane::Data)), (3_000, 0));

        let control = |kind: u8| Transmit {
            payload: Payload::Control(vec![kind].into()),
            ..transmit(Lane::Bulk, 0)
        };
        let mut egress = Egress::new(1 << 20, 1_000_000_000, Duration::from_millis(2));
        egress.be_guest(true);
        let said: Vec<u8> = (0..=u8::MAX).filter(|kind| egress.push(control(*kind))).collect();
        assert_eq!(said[..6], [0, 1, 5, 9, 11, 18]);
        assert!(!egress.push(transmit(Lane::Data, 0)));
        assert_eq!(egress.dropped(Lane::Bulk), 0);
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
