//! The engine runs one protocol on simulated hosts, links and faults in virtual time.
//!
//! A protocol is an [`Overlay`]: it holds the state of *all* nodes, and each call tells it of an
//! event at one node. All it sends passes through the links of [`crate::link`] and the faults of
//! [`crate::fault`]. An overlay must let nodes learn of one another only by packets.
//!
//! A run ends when every node has every expected message and no part of a message is on its way, or
//! at the horizon. Control packets and housekeeping timers (heartbeats, tips) do not keep a run
//! going.

use crate::fault::Faults;
use crate::link::{LinkConfig, Links, serialisation};
use crate::load::Load;
use crate::outcome::{Change, Digest, How, NEVER, Outcome};
use crate::queue::Queue;
use crate::random::{self, Stream};
use crate::reliable::Reliable;
use crate::world::World;
use crate::{Nanos, NodeId};

/// The content of a packet, as far as faults distinguish it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A part of a message that spreads.
    Data,
    /// A part of a message for a node that asked.
    Repair,
    /// All other packets.
    Control,
}

/// A protocol at all nodes.
pub trait Overlay {
    /// The packets. The engine uses only their size.
    type Packet;

    /// Called once before the first event, to set timers that run from the beginning.
    fn start(&mut self, _ctx: &mut Context<'_, Self::Packet>) {}

    /// The leader has the message of the load's broadcast `index`.
    fn broadcast(&mut self, ctx: &mut Context<'_, Self::Packet>, index: usize);

    /// Node `to` handles a packet.
    fn deliver(
        &mut self,
        ctx: &mut Context<'_, Self::Packet>,
        from: NodeId,
        to: NodeId,
        packet: Self::Packet,
    );

    /// A timer of `node` is due.
    fn timer(&mut self, ctx: &mut Context<'_, Self::Packet>, node: NodeId, token: u64);

    /// The most hosts that a node may exchange packets with.
    fn max_degree(&self) -> Option<u32> {
        None
    }
}

/// An event in the queue.
#[derive(Debug)]
enum Event<P> {
    Broadcast(u32),
    Uplink(NodeId, Option<u64>),
    /// The last bit of a packet reaches the receiver's downlink.
    Arrive(Packet<P>),
    /// The receiver handles a packet.
    Deliver(Packet<P>),
    Timer {
        node: NodeId,
        token: u64,
        housekeeping: bool,
    },
}

#[derive(Debug)]
struct Packet<P> {
    from: NodeId,
    to: NodeId,
    bytes: u32,
    class: Class,
    /// Whether it is many segments of a stream, of which the first passed the downlink before the
    /// last arrived.
    streamed: bool,
    body: P,
}

impl<P> Packet<P> {
    /// How many of the events that keep a run going it counts for. Control packets count for none,
    /// since they never end.
    const fn live(&self) -> u64 {
        match self.class {
            Class::Data | Class::Repair => 1,
            Class::Control => 0,
        }
    }
}

/// The inputs of a run.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// Nodes and delays.
    pub world: &'a World,
    /// Properties of the links.
    pub links: LinkConfig,
    /// The faults of hosts.
    pub faults: &'a Faults,
    /// The messages that are sent.
    pub load: &'a Load,
    /// Seed of losses, jitter and the overlay's random numbers.
    pub seed: u64,
    /// How long the run waits for incomplete nodes after the last broadcast or the end of the last
    /// fault. The time in which a host could send the largest message to all nodes four times is
    /// added.
    pub patience: Nanos,
}

/// The interface of an overlay to the engine, at one time.
#[derive(Debug)]
pub struct Context<'a, P> {
    now: Nanos,
    setup: Setup<'a>,
    links: Links<'a>,
    queue: Queue<Event<P>>,
    /// Events in the queue that keep the run going.
    live: u64,
    random: Stream,
    outcome: Outcome,
    /// Number of expected completions that are still to come, and whether they are awaited at a
    /// node.
    open: u64,
    awaited: Vec<bool>,
    peers: Peers,
    digest: Digest,
}

impl<'a, P> Context<'a, P> {
    /// The current time.
    pub const fn now(&self) -> Nanos {
        self.now
    }

    /// The inputs of the run.
    pub const fn setup(&self) -> &Setup<'a> {
        &self.setup
    }

    /// The messages of the run.
    pub const fn load(&self) -> &'a Load {
        self.setup.load
    }

    /// Nodes and delays.
    pub const fn world(&self) -> &'a World {
        self.setup.world
    }

    /// The overlay's random numbers.
    pub const fn random(&mut self) -> &mut Stream {
        &mut self.random
    }

    /// Whether a node is down.
    pub fn is_down(&self, node: NodeId) -> bool {
        self.setup.faults.is_down(node, self.now)
    }

    /// The connection of two nodes is closed. Where degrees are limited, each may exchange packets with
    /// another node instead.
    pub fn part(&mut self, a: NodeId, b: NodeId) {
        self.peers.part(a, b);
    }

    /// Sends an unreliable packet of `bytes` on the wire, framing included, over UDP.
    pub fn send(&mut self, from: NodeId, to: NodeId, bytes: u32, class: Class, body: P) {
        let Some(departed) = self.admit(from, to, bytes.into(), class) else { return };
        let faults = self.setup.faults;
        if faults.is_cut(from, to, departed) || faults.is_udp_blocked(from, to, departed) {
            self.outcome.lost += 1;
            return;
        }
        match self.links.cross(departed, from, to) {
            Some(at) => self.arrive(at, Packet { from, to, bytes, class, streamed: false, body }),
            None => self.outcome.lost += 1,
        }
    }

    /// The first part of every kind of sending: checks the sender's faults and peers, and queues
    /// the bytes at its uplink. Returns when the last bit has left.
    pub(crate) fn admit(
        &mut self,
        from: NodeId,
        to: NodeId,
        bytes: u64,
        class: Class,
    ) -> Option<Nanos> {
        let faults = self.setup.faults;
        if faults.is_down(from, self.now) {
            return None;
        }
        if class != Class::Control
            && !self.setup.load.leads(from)
            && faults.is_silent(from, self.now)
        {
            return None;
        }
        if !self.peers.meet(from, to) {
            self.outcome.refused += 1;
            return None;
        }
        let Some(departed) = self.links.depart(self.now, from, bytes) else {
            self.outcome.dropped_uplink += 1;
            return None;
        };
        if faults.is_down(from, departed) {
            // The packet was waiting in the queue when its host went down.
            self.outcome.lost += 1;
            return None;
        }
        self.count_sent(from, bytes);
        Some(departed)
    }

    /// Counts bytes that a node sends beside its packets, such as acknowledgements.
    pub fn count_sent(&mut self, from: NodeId, bytes: u64) {
        self.outcome.sent[from as usize] += bytes;
    }

    /// Sends `bytes` of content over a reliable, ordered connection.
    ///
    /// The content is lost all the same in a crash or partition that outlasts the connection.
    pub fn send_reliably(
        &mut self,
        transport: &mut Reliable,
        (from, to): (NodeId, NodeId),
        bytes: u32,
        class: Class,
        body: P,
    ) {
        let wire = transport.wire_bytes(bytes.into());
        let Some(departed) = self.admit(from, to, wire, class) else { return };
        let faults = self.setup.faults;
        let udp = transport.over_udp();
        let blocked = |at: Nanos| {
            faults.is_cut(from, to, at)
                || faults.is_down(to, at)
                || (udp && faults.is_udp_blocked(from, to, at))
        };
        let by_tcp = |bytes: u64| if udp { 0 } else { bytes };
        self.outcome.sent_by_tcp += by_tcp(wire);
        match transport.transfer(&mut self.links, departed, (from, to), bytes.into(), blocked) {
            Some(crossed) => {
                self.count_sent(from, crossed.resent);
                self.count_sent(to, crossed.acknowledged);
                self.outcome.sent_by_tcp += by_tcp(crossed.resent + crossed.acknowledged);
                self.outcome.lost += crossed.lost;
                let bytes = u32::try_from(wire).unwrap_or(u32::MAX);
                let packet = Packet { from, to, bytes, class, streamed: true, body };
                self.arrive(crossed.at, packet);
            }
            None => self.outcome.lost += 1,
        }
    }

    fn arrive(&mut self, at: Nanos, packet: Packet<P>) {
        self.live += packet.live();
        self.queue.push(at, Event::Arrive(packet));
    }

    /// Calls [`Overlay::timer`] at `at`. A housekeeping timer does not keep a run going.
    pub fn timer(&mut self, node: NodeId, at: Nanos, token: u64, housekeeping: bool) {
        self.live += u64::from(!housekeeping);
        self.queue.push(at.max(self.now), Event::Timer { node, token, housekeeping });
    }

    /// Notes that `node` has the message of broadcast `index`.
    pub fn complete(&mut self, node: NodeId, index: usize, how: How) {
        let broadcast = &self.setup.load.broadcasts[index];
        let completion = &mut self.outcome.completions[index];
        let after = &mut completion.after[node as usize];
        if *after != NEVER {
            return;
        }
        *after = self.now - broadcast.at;
        completion.repaired[node as usize] = how == How::Repair;
        completion.gossiped[node as usize] = how == How::Gossip;
        self.open -= u64::from(broadcast.expected && self.awaited[node as usize]);
        self.digest.event(self.now, 5, node, index as u32, how as u64);
    }

    /// Notes that a node changed between the overlay and gossip.
    pub fn change(&mut self, change: Change) {
        let Change { at, node, from, to, reason, .. } = change;
        self.digest.event(at, 6, node, (from as u32) << 8 | to as u32, reason as u64);
        self.outcome.changes.push(change);
    }

    /// Notes how long the nodes had been up before the run, and what they sent in that time.
    pub(crate) fn note_warm_up(&mut self, span: Nanos, bytes: u64) {
        self.outcome.warm_up = Some((span, bytes));
    }

    /// Notes that the leader of a broadcast knows that the next leader has it.
    pub fn held(&mut self, index: usize) {
        let after = self.now - self.setup.load.broadcasts[index].at;
        self.outcome.held.push((index, after));
    }

    /// Notes that `node` holds evidence of the leader's equivocation.
    pub fn convict(&mut self, node: NodeId) {
        self.outcome.convicted[node as usize] = true;
    }
}

/// The pairs of hosts that have exchanged packets and have not parted since, one bit for each:
/// 12.5 MB for ten thousand nodes.
#[derive(Debug)]
struct Peers {
    n: usize,
    bits: Vec<u64>,
    degree: Vec<u32>,
    /// The highest degree of each host so far.
    most: Vec<u32>,
    limit: u32,
}

impl Peers {
    fn new(n: usize, limit: Option<u32>) -> Self {
        let bits = vec![0; (n * n).div_ceil(64)];
        let limit = limit.unwrap_or(u32::MAX);
        Self { n, bits, degree: vec![0; n], most: vec![0; n], limit }
    }

    /// The word and the bit of a pair, as one of them has it.
    const fn place(&self, a: usize, b: usize) -> (usize, u64) {
        let at = a * self.n + b;
        (at / 64, 1 << (at % 64))
    }

    /// Whether two hosts may exchange packets: they have before, or both may have another peer.
    fn meet(&mut self, a: NodeId, b: NodeId) -> bool {
        let (a, b) = (a as usize, b as usize);
        let (there, back) = (self.place(a, b), self.place(b, a));
        if self.bits[there.0] & there.1 != 0 {
            return true;
        }
        if self.degree[a] >= self.limit || self.degree[b] >= self.limit {
            return false;
        }
        self.bits[there.0] |= there.1;
        self.bits[back.0] |= back.1;
        for host in [a, b] {
            self.degree[host] += 1;
            self.most[host] = self.most[host].max(self.degree[host]);
        }
        true
    }

    /// The connection of two hosts is closed: each may have another peer instead.
    fn part(&mut self, a: NodeId, b: NodeId) {
        let (a, b) = (a as usize, b as usize);
        let (there, back) = (self.place(a, b), self.place(b, a));
        if self.bits[there.0] & there.1 != 0 {
            self.bits[there.0] &= !there.1;
            self.bits[back.0] &= !back.1;
            self.degree[a] -= 1;
            self.degree[b] -= 1;
        }
    }
}

/// Runs `overlay` and returns the outcome.
///
/// ```
/// use netsim::engine::{self, Setup};
/// use netsim::fault::Faults;
/// use netsim::link::LinkConfig;
/// use netsim::load::Load;
/// use netsim::protocols::gossip::{Gossip, GossipConfig};
/// use netsim::world::World;
/// use netsim::{MILLIS, SECONDS};
///
/// let world = World::from_places(&[("a", 10), ("b", 10)], |_, _| 20 * MILLIS);
/// let (load, faults) = (Load::single(vec![0], 8_000), Faults::default());
/// let setup = Setup {
///     world: &world,
///     links: LinkConfig::default(),
///     faults: &faults,
///     load: &load,
///     seed: 1,
///     patience: SECONDS,
/// };
/// let mut gossip = Gossip::new(GossipConfig::with_mesh(6), &world, load.broadcasts.len(), 1);
/// let outcome = engine::run(setup, &mut gossip);
/// assert!(outcome.completions[0].after.iter().all(|after| *after < SECONDS));
/// ```
pub fn run<O: Overlay>(setup: Setup<'_>, overlay: &mut O) -> Outcome {
    let (nodes, broadcasts) = (setup.world.len(), &setup.load.broadcasts);
    let crashed = setup.faults.crashed();
    let awaited: Vec<bool> = (0..nodes as NodeId).map(|node| !crashed.contains(&node)).collect();
    let waiting = awaited.iter().filter(|awaited| **awaited).count() as u64;
    let expected = broadcasts.iter().filter(|b| b.expected).count() as u64;
    let mut ctx = Context {
        now: 0,
        setup,
        links: Links::new(setup.world, setup.links, random::stream(setup.seed, "links", 0)),
        queue: Queue::default(),
        live: 0,
        random: random::stream(setup.seed, "overlay", 0),
        outcome: Outcome::new(nodes, broadcasts.len()),
        open: waiting * expected,
        awaited,
        peers: Peers::new(nodes, overlay.max_degree()),
        digest: Digest::new(),
    };
    for (at, node, bps) in setup.faults.uplink_changes() {
        ctx.queue.push(at, Event::Uplink(node, bps));
    }
    for (index, broadcast) in broadcasts.iter().enumerate() {
        ctx.live += 1;
        ctx.queue.push(broadcast.at, Event::Broadcast(index as u32));
    }
    let last = broadcasts.iter().map(|b| b.at).max().unwrap_or(0).max(setup.faults.healed_at());
    // Leaves enough time for a leader that sends to every node itself, even repeatedly.
    let largest = broadcasts.iter().map(|b| u64::from(b.bytes)).max().unwrap_or(0);
    let everybody = serialisation(4 * largest * nodes as u64, setup.links.uplink_bps);
    let horizon = last.saturating_add(setup.patience).saturating_add(everybody);
    overlay.start(&mut ctx);
    while let Some((at, event)) = ctx.queue.pop() {
        if at > horizon {
            break;
        }
        ctx.now = at;
        step(&mut ctx, overlay, event);
        if ctx.live == 0 && ctx.open == 0 {
            break;
        }
    }
    let mut outcome = ctx.outcome;
    // A node that is incomplete now waited until the horizon.
    outcome.end = if ctx.open > 0 { horizon } else { ctx.now };
    outcome.degree = ctx.peers.most;
    outcome.digest = ctx.digest.finish();
    outcome
}

fn step<O: Overlay>(ctx: &mut Context<'_, O::Packet>, overlay: &mut O, event: Event<O::Packet>) {
    ctx.outcome.events += 1;
    let now = ctx.now;
    match event {
        Event::Uplink(node, bps) => ctx.links.set_uplink(node, bps),
        Event::Broadcast(index) => {
            ctx.live -= 1;
            let broadcast = ctx.setup.load.broadcasts[index as usize];
            ctx.digest.event(now, 0, broadcast.leader, index, broadcast.bytes.into());
            if !ctx.is_down(broadcast.leader) {
                ctx.complete(broadcast.leader, index as usize, How::Spread);
                overlay.broadcast(ctx, index as usize);
            }
        }
        Event::Arrive(packet) => {
            ctx.live -= packet.live();
            ctx.digest.event(now, 1, packet.from, packet.to, packet.bytes.into());
            if ctx.is_down(packet.to) {
                ctx.outcome.lost += 1;
                return;
            }
            let entered = match packet.streamed {
                true => ctx.links.enter_streamed(now, packet.to, packet.bytes.into()),
                false => ctx.links.enter(now, packet.to, packet.bytes.into()),
            };
            match entered {
                None => ctx.outcome.dropped_downlink += 1,
                Some(at) => {
                    ctx.outcome.received[packet.to as usize] += u64::from(packet.bytes);
                    ctx.live += packet.live();
                    ctx.queue.push(at, Event::Deliver(packet));
                }
            }
        }
        Event::Deliver(packet) => {
            ctx.live -= packet.live();
            let Packet { from, to, class, body, .. } = packet;
            if !ctx.is_down(to) {
                ctx.outcome.handled += u64::from(class != Class::Control);
                overlay.deliver(ctx, from, to, body);
            }
        }
        Event::Timer { node, token, housekeeping } => {
            ctx.live -= u64::from(!housekeeping);
            ctx.digest.event(now, 4, node, 0, token);
            if !ctx.is_down(node) {
                overlay.timer(ctx, node, token);
            }
        }
    }
}

#[cfg(test)]
mod tests;
