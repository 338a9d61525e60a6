//! Paths between hosts, and the connections on them.
//!
//! A connection is up at both ends or at none, but for one whose other end crashed: that end finds
//! out after the idle time-out, or when the peer has started again and calls. Where a path is
//! blocked in one direction or both for the idle time-out, its connection dies, as QUIC's does
//! without acknowledgements. Streams deliver in order, and what was lost is late; datagrams are
//! lost.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use crate::{MILLIS, Nanos, NodeId, SECONDS};

/// How long a connection may be idle before it is dead.
pub(super) const IDLE_TIMEOUT: Nanos = 6 * SECONDS;
/// How long a peer is barred.
const BAR: Nanos = 60 * SECONDS;
/// Frames that wait on a connection; more are dropped.
const MAX_FRAMES: usize = 512;
/// Regions of the world; neighbours are 12 ms apart.
const REGIONS: u32 = 5;

/// What hinders hosts and paths at this time.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions {
    /// Hosts that are not part of the network: down, or standing still.
    pub(super) out: BTreeSet<NodeId>,
    /// Hosts on one side of partitions, each by itself.
    pub(super) sides: Vec<BTreeSet<NodeId>>,
    /// Directions in which nothing passes.
    pub(super) one_way: BTreeSet<(NodeId, Option<NodeId>)>,
    /// Hosts whose UDP is blocked.
    pub(super) no_udp: BTreeSet<NodeId>,
    /// Lost, doubled and late datagrams, of a thousand.
    pub(super) loss: u32,
    /// Of a thousand.
    pub(super) doubled: u32,
    /// Of a thousand, and by how much.
    pub(super) late: (u32, Nanos),
}

impl Conditions {
    /// Whether TCP passes from one host to another.
    pub(super) fn tcp_passes(&self, from: NodeId, to: NodeId) -> bool {
        let cut = self.sides.iter().any(|side| side.contains(&from) != side.contains(&to));
        let one_way =
            |a, b| self.one_way.contains(&(a, None)) || self.one_way.contains(&(a, Some(b)));
        // TCP needs acknowledgements.
        !cut && !one_way(from, to) && !one_way(to, from) && !self.is_out(from) && !self.is_out(to)
    }

    /// Whether a datagram passes.
    pub(super) fn udp_passes(&self, from: NodeId, to: NodeId) -> bool {
        let cut = self.sides.iter().any(|side| side.contains(&from) != side.contains(&to));
        let blocked = self.no_udp.contains(&from) || self.no_udp.contains(&to);
        let one_way =
            self.one_way.contains(&(from, None)) || self.one_way.contains(&(from, Some(to)));
        !cut && !blocked && !one_way && !self.is_out(from) && !self.is_out(to)
    }

    fn is_out(&self, node: NodeId) -> bool {
        self.out.contains(&node)
    }

    /// Whether a connection can live.
    pub(super) fn is_open(&self, a: NodeId, b: NodeId) -> bool {
        self.udp_passes(a, b) && self.udp_passes(b, a)
    }
}

/// The one-way delay between two hosts.
pub(super) fn delay(from: NodeId, to: NodeId) -> Nanos {
    let (a, b) = (from % REGIONS, to % REGIONS);
    MILLIS + Nanos::from(a.abs_diff(b)) * 12 * MILLIS
}

/// A frame on its way.
#[derive(Debug, Clone)]
struct Frame {
    ready_at: Nanos,
    bytes: Bytes,
}

/// One direction of a pair.
#[derive(Debug, Clone, Default)]
struct Direction {
    /// Whether the sender believes that it is connected.
    up: bool,
    barred_until: Nanos,
    frames: VecDeque<Frame>,
    /// Whether an event waits for the first frame.
    scheduled: bool,
}

/// All pairs of hosts.
#[derive(Debug)]
pub(super) struct Paths {
    n: usize,
    directions: Vec<Direction>,
    /// By pair, the lower first: the number of the connection, so that what belongs to an older one
    /// is dropped.
    sessions: Vec<u32>,
    /// By pair: since when its path is blocked.
    blocked_since: Vec<Option<Nanos>>,
    /// By pair: whether a call is under way.
    calling: Vec<bool>,
    pub(super) conditions: Conditions,
}

impl Paths {
    /// Paths without connections.
    pub(super) fn new(nodes: u32) -> Self {
        let n = nodes as usize;
        Self {
            n,
            directions: vec![Direction::default(); n * n],
            sessions: vec![0; n * n],
            blocked_since: vec![None; n * n],
            calling: vec![false; n * n],
            conditions: Conditions::default(),
        }
    }

    const fn at(&self, from: NodeId, to: NodeId) -> usize {
        from as usize * self.n + to as usize
    }

    const fn pair(&self, a: NodeId, b: NodeId) -> usize {
        if a < b { self.at(a, b) } else { self.at(b, a) }
    }

    /// Whether `node` believes that it is connected to `peer`.
    pub(super) fn is_up(&self, node: NodeId, peer: NodeId) -> bool {
        self.directions[self.at(node, peer)].up
    }

    /// The number of the newest connection of a pair.
    pub(super) fn session(&self, a: NodeId, b: NodeId) -> u32 {
        self.sessions[self.pair(a, b)]
    }

    /// A connection is made; says for each end whether it had one.
    pub(super) fn connect(&mut self, a: NodeId, b: NodeId) {
        let pair = self.pair(a, b);
        self.sessions[pair] += 1;
        self.calling[pair] = false;
        self.blocked_since[pair] = None;
        for at in [self.at(a, b), self.at(b, a)] {
            self.directions[at].up = true;
            self.directions[at].frames.clear();
        }
    }

    /// The connection is gone at one end; says whether that end had one.
    pub(super) fn drop_end(&mut self, node: NodeId, peer: NodeId) -> bool {
        let at = self.at(node, peer);
        let direction = &mut self.directions[at];
        direction.frames.clear();
        std::mem::replace(&mut direction.up, false)
    }

    /// `node` takes nothing from `peer` for a while.
    pub(super) fn bar(&mut self, now: Nanos, node: NodeId, peer: NodeId) {
        let at = self.at(node, peer);
        self.directions[at].barred_until = now + BAR;
    }

    /// A process that starts again has barred nobody.
    pub(super) fn forget_bars(&mut self, node: NodeId) {
        for peer in 0..self.n as NodeId {
            let at = self.at(node, peer);
            self.directions[at].barred_until = 0;
        }
    }

    /// Until when no call between two hosts succeeds.
    pub(super) fn barred_until(&self, a: NodeId, b: NodeId) -> Nanos {
        let until = |from, to| self.directions[self.at(from, to)].barred_until;
        until(a, b).max(until(b, a))
    }

    /// Marks a pair as being called; says whether it was not already.
    pub(super) fn call(&mut self, a: NodeId, b: NodeId) -> bool {
        let pair = self.pair(a, b);
        !std::mem::replace(&mut self.calling[pair], true)
    }

    /// The call has ended.
    pub(super) fn hang_up(&mut self, a: NodeId, b: NodeId) {
        let pair = self.pair(a, b);
        self.calling[pair] = false;
    }

    /// Conditions have changed: notes since when a path is blocked. Returns whether it is blocked
    /// from now on, and was not before.
    pub(super) fn look(&mut self, now: Nanos, a: NodeId, b: NodeId) -> bool {
        let pair = self.pair(a, b);
        if self.conditions.is_open(a, b) {
            self.blocked_since[pair] = None;
            return false;
        }
        let new = self.blocked_since[pair].is_none();
        self.blocked_since[pair].get_or_insert(now);
        new
    }

    /// Whether a path has been blocked for the idle time-out.
    pub(super) fn is_dead(&self, now: Nanos, a: NodeId, b: NodeId) -> bool {
        self.blocked_since[self.pair(a, b)].is_some_and(|since| now - since >= IDLE_TIMEOUT)
    }

    /// Queues a frame; the time of an event that is to be scheduled for it.
    pub(super) fn send_frame(
        &mut self,
        (from, to): (NodeId, NodeId),
        ready_at: Nanos,
        bytes: Bytes,
    ) -> Result<Option<Nanos>, ()> {
        let at = self.at(from, to);
        let direction = &mut self.directions[at];
        if direction.frames.len() >= MAX_FRAMES {
            return Err(());
        }
        let last = direction.frames.back().map_or(0, |frame| frame.ready_at);
        let ready_at = ready_at.max(last);
        direction.frames.push_back(Frame { ready_at, bytes });
        let scheduled = std::mem::replace(&mut direction.scheduled, true);
        Ok((!scheduled).then_some(ready_at))
    }

    /// The event has come: the frame that has arrived, and when the next event is due.
    pub(super) fn take_frame(
        &mut self,
        now: Nanos,
        (from, to): (NodeId, NodeId),
    ) -> (Option<Bytes>, Option<Nanos>) {
        let passes = self.conditions.is_open(from, to);
        let at = self.at(from, to);
        let direction = &mut self.directions[at];
        let arrived = direction.frames.front().is_some_and(|frame| frame.ready_at <= now && passes);
        let frame = if arrived { direction.frames.pop_front() } else { None };
        let next = direction.frames.front().map(|next| {
            // What a blocked path holds up is sent again.
            if passes { next.ready_at.max(now) } else { next.ready_at.max(now + 200 * MILLIS) }
        });
        direction.scheduled = next.is_some();
        (frame.map(|frame| frame.bytes), next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_keep_their_order_and_wait_for_the_path() {
        let mut paths = Paths::new(3);
        paths.connect(0, 1);
        let send =
            |paths: &mut Paths, at, byte: u8| paths.send_frame((0, 1), at, Bytes::from(vec![byte]));
        assert_eq!(send(&mut paths, 10, 1), Ok(Some(10)));
        assert_eq!(send(&mut paths, 5, 2), Ok(None), "it overtakes nothing");
        assert_eq!(paths.take_frame(10, (0, 1)), (Some(Bytes::from_static(&[1])), Some(10)));
        paths.conditions.no_udp.insert(1);
        assert_eq!(paths.take_frame(10, (0, 1)), (None, Some(10 + 200 * MILLIS)));
        paths.conditions.no_udp.clear();
        assert_eq!(paths.take_frame(11, (0, 1)), (Some(Bytes::from_static(&[2])), None));
        (0..MAX_FRAMES).for_each(|_| assert!(send(&mut paths, 20, 3).is_ok()));
        assert_eq!(send(&mut paths, 20, 3), Err(()));
    }

    #[test]
    fn a_connection_dies_of_either_direction() {
        let mut paths = Paths::new(3);
        paths.conditions.one_way.insert((1, Some(0)));
        assert!(paths.conditions.udp_passes(0, 1) && !paths.conditions.udp_passes(1, 0));
        assert!(paths.look(SECONDS, 0, 1) && !paths.look(2 * SECONDS, 0, 1));
        assert!(!paths.is_dead(SECONDS, 0, 1) && paths.is_dead(7 * SECONDS, 1, 0));
        assert!(!paths.look(SECONDS, 0, 2) && !paths.is_dead(9 * SECONDS, 0, 2));
        paths.conditions.one_way.clear();
        assert!(!paths.look(8 * SECONDS, 0, 1) && !paths.is_dead(20 * SECONDS, 0, 1));
    }

    #[test]
    fn blocked_udp_leaves_tcp() {
        let mut conditions = Conditions::default();
        conditions.no_udp.insert(1);
        assert!(conditions.tcp_passes(0, 1) && !conditions.is_open(0, 1));
        conditions.sides.push([1, 2].into());
        assert!(!conditions.tcp_passes(0, 1) && conditions.tcp_passes(1, 2));
        conditions.out.insert(2);
        assert!(!conditions.tcp_passes(1, 2));
    }
}
