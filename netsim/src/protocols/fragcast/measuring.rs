//! How nodes learn the delays between them before a run: by measuring.
//!
//! A run begins in a network that has been up for [`WARM_UP`] and was quiet for a while after that.
//! In that time every node's transport has measured round trips to its peers, with jitter and queues
//! in them, the protocols have told one another, and leaders have planned. Nothing of the world is
//! handed to them in another way. A saved measurement takes the place of the transports' samples, and
//! of nothing else.
//!
//! During a run nodes go on once a second, each with a few of its peers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fragcast_turbine::egress::FRAMING;
use fragcast_turbine::{Payload, PeerKey, Protocol, Timestamp};
use rand::RngCore as _;

use super::epochs::Keys;
use super::{EPOCH, Packet, following, guests, planning, timestamp};
use crate::engine::Context;
use crate::fault::Fault;
use crate::link::LinkConfig;
use crate::measurement::Measurement;
use crate::random::{self, Stream};
use crate::world::World;
use crate::{MILLIS, Nanos, NodeId, SECONDS};

/// Bit that marks the tokens of these timers.
pub(super) const TIMERS: u64 = 1 << 60;
/// How long nodes measure, tell and plan before a run.
pub const WARM_UP: Nanos = 12 * SECONDS;
/// When they begin, before the run: earlier than any block is opened.
const BEFORE: Nanos = 120 * SECONDS;
/// The seconds of it in which transports measure: protocols tell what they have after three.
const SAMPLED: [u64; 4] = [0, 1, 2, 3];
/// Peers that a node measures in a second of a run.
const PER_SECOND: usize = 16;
/// Mean of the queues that a packet meets on its way and back, and of those of one in twenty.
const QUEUES: (Nanos, Nanos) = (MILLIS / 10, 3 * MILLIS);

/// What a warm-up took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WarmUp {
    /// How long it was.
    pub span: Nanos,
    /// Bytes that all nodes sent together, framing included; the transports' own samples ride on
    /// packets that are sent anyway.
    pub bytes: u64,
}

/// The round trip from one node to another as a transport would measure it now.
fn sample(world: &World, links: &LinkConfig, rng: &mut Stream, (a, b): (NodeId, NodeId)) -> Nanos {
    let ways = world.delay(a, b) + world.delay(b, a);
    let mut extra = links.jitter as f64 * (random::exponential(rng) + random::exponential(rng));
    // One number for the usual queues: a run of a thousand nodes draws millions.
    let draw = rng.next_u32();
    extra += QUEUES.0 as f64 * f64::from(draw & 0xffff) / 32_768.0;
    if draw >> 16 < 3_277 {
        extra += QUEUES.1 as f64 * random::exponential(rng);
    }
    ways + links.hop + extra as Nanos
}

/// The peers of each node to which it is connected, with the node's key for each.
fn connected(nodes: &[Protocol], keys: &Keys, node: NodeId) -> Vec<(NodeId, PeerKey)> {
    let protocol = &nodes[node as usize];
    if keys.numbered(nodes.len()).is_some() {
        return protocol.connected_peers().map(|key| (key.number(), key)).collect();
    }
    let all = (0..nodes.len() as NodeId).filter(|peer| *peer != node);
    let known = all.filter_map(|peer| Some((peer, keys.key(node, peer)?)));
    known.filter(|(_, key)| protocol.is_connected(*key)).collect()
}

/// The network before a run.
pub(super) struct Warming<'a> {
    pub(super) nodes: &'a mut [Protocol],
    pub(super) keys: &'a mut Keys,
    pub(super) world: &'a World,
    pub(super) links: &'a LinkConfig,
    pub(super) saved: Option<&'a Measurement>,
    /// The uplink that leaders plan with; `None` if they have planned already.
    pub(super) plan_with: Option<u64>,
    /// The most connections of a node.
    pub(super) limit: u32,
}

impl Warming<'_> {
    /// Lets the nodes measure and tell.
    pub(super) fn run(&mut self, seed: u64) -> WarmUp {
        let mut rng = random::stream(seed, "round trips", 0);
        let mut bytes = 0;
        for second in 0..WARM_UP / SECONDS {
            let now = Timestamp::from_nanos(EPOCH - BEFORE + second * SECONDS);
            for node in 0..self.nodes.len() as NodeId {
                let is_guest = self.nodes[node as usize].is_guest();
                let samples = match is_guest || SAMPLED.contains(&second) {
                    true => self.samples(&mut rng, node),
                    false => Vec::new(),
                };
                self.nodes[node as usize].handle_round_trips(now, samples);
            }
            guests::follow(self.nodes, self.keys, now, |_| true);
            bytes += deliver(self.nodes, self.keys, now);
            if self.plan_with.is_some_and(|bps| planning::plan(self.nodes, now, bps)) {
                bytes += deliver(self.nodes, self.keys, now);
                if let Some(members) = self.keys.numbered(self.nodes.len())
                    && !following::follow(&mut self.nodes[..members], self.limit).touched.is_empty()
                {
                    bytes += deliver(self.nodes, self.keys, now);
                }
            }
        }
        WarmUp { span: WARM_UP, bytes }
    }

    /// Transports have gone on measuring up to the run: with what they have found meanwhile, nothing
    /// is new to anybody.
    pub(super) fn go_on(self, seed: u64) {
        let mut rng = random::stream(seed, "round trips before", 0);
        let now = Timestamp::from_nanos(EPOCH - SECONDS);
        for node in 0..self.nodes.len() as NodeId {
            let mut shortest: BTreeMap<PeerKey, Duration> = BTreeMap::new();
            for (peer, sample) in SAMPLED.iter().flat_map(|_| self.samples(&mut rng, node)) {
                let least = shortest.entry(peer).or_insert(sample);
                *least = sample.min(*least);
            }
            self.nodes[node as usize].handle_round_trips(now, shortest);
        }
        deliver(self.nodes, self.keys, now);
    }

    fn samples(&self, rng: &mut Stream, node: NodeId) -> Vec<(PeerKey, Duration)> {
        let peers = connected(self.nodes, self.keys, node).into_iter();
        let measured = peers.filter_map(|(peer, key)| {
            let micros = match self.saved {
                Some(saved) => u64::from(saved.micros(node, peer)?) * 1_000,
                None => sample(self.world, self.links, rng, (node, peer)),
            };
            Some((key, Duration::from_nanos(micros)))
        });
        measured.collect()
    }
}

/// Delivers what nodes send, as fast as their lanes let it go, without delay: the next samples are a
/// second away. Returns how many bytes that was.
pub(super) fn deliver(nodes: &mut [Protocol], keys: &Keys, now: Timestamp) -> u64 {
    let (mut at, mut bytes) = (now, 0);
    // Nodes that may have something to send now, and those that have later: pacing makes thousands
    // of rounds of a plan, in each of which few nodes take part.
    let mut ready: BTreeSet<NodeId> = (0..nodes.len() as NodeId).collect();
    let mut waiting: BTreeSet<(Timestamp, NodeId)> = BTreeSet::new();
    loop {
        let mut sent: Vec<(NodeId, NodeId, bytes::Bytes)> = Vec::new();
        for node in std::mem::take(&mut ready) {
            let protocol = &mut nodes[node as usize];
            while let Some(transmit) = protocol.poll_transmit(at) {
                bytes += (transmit.payload.len() + FRAMING) as u64;
                if let Payload::Control(frame) = transmit.payload
                    && let Some(to) = keys.peer(node, transmit.to)
                {
                    sent.push((node, to, frame));
                }
            }
            while protocol.poll_event().is_some() {}
            waiting.extend(protocol.egress().next_at(at).map(|next| (next, node)));
        }
        let is_done = sent.is_empty();
        for (from, to, frame) in sent {
            if let Some(sender) = keys.key(to, from) {
                nodes[to as usize].handle_control(at, sender, &frame);
                ready.insert(to);
            }
        }
        if is_done {
            match waiting.first() {
                Some((next, _)) => at = at.max(*next),
                None => return bytes,
            }
            while let Some(first) = waiting.first().copied().filter(|(next, _)| *next <= at) {
                waiting.remove(&first);
                ready.insert(first.1);
            }
        }
    }
}

/// Sets the timer of the first second. It is one node's and stands for all.
pub(super) fn start(ctx: &mut Context<'_, Packet>) {
    ctx.timer(0, SECONDS, TIMERS | 1, true);
}

/// A second of a run is over: every node that is up measures some of its peers, leaders plan with
/// this uplink, if they do, and connections follow the plans, of which a node has `limit`. Where UDP
/// is blocked at times they stay as they are: `connections.rs` ends them and makes them anew. Returns these nodes: their protocols must be drained.
pub(super) fn timer(
    ctx: &mut Context<'_, Packet>,
    nodes: &mut [Protocol],
    keys: &mut Keys,
    (plan_with, limit): (Option<u64>, u32),
    token: u64,
) -> Vec<NodeId> {
    let second = token & !TIMERS;
    ctx.timer(0, ctx.now() + SECONDS, TIMERS | (second + 1), true);
    let mut rng = random::stream(ctx.setup().seed, "round trips", second);
    let up: Vec<NodeId> = (0..nodes.len() as NodeId).filter(|node| !ctx.is_down(*node)).collect();
    for node in &up {
        let n = keys.numbered(nodes.len()).unwrap_or(nodes.len());
        let mut samples = BTreeMap::new();
        // Each in its turn; a guest all of its few.
        let turn = |i| ((*node as usize + 1 + second as usize * PER_SECOND + i) % n) as NodeId;
        let peers: Vec<NodeId> = match nodes[*node as usize].is_guest() {
            true => nodes[*node as usize].connected_peers().map(|peer| peer.number()).collect(),
            false => (0..PER_SECOND).map(turn).collect(),
        };
        for peer in peers {
            let reached = peer != *node && !ctx.is_down(peer) && {
                let faults = ctx.setup().faults;
                let (there, back) = ((*node, peer), (peer, *node));
                [there, back].iter().all(|(from, to)| {
                    !faults.is_cut(*from, *to, ctx.now())
                        && !faults.is_udp_blocked(*from, *to, ctx.now())
                })
            };
            let key = keys.key(*node, peer).filter(|_| reached);
            let key = key.filter(|key| nodes[*node as usize].is_connected(*key));
            let Some(key) = key else { continue };
            let pair = (*node, peer);
            let way = sample(ctx.world(), &ctx.setup().links, &mut rng, pair);
            samples.insert(key, Duration::from_nanos(way));
        }
        let (now, protocol) = (timestamp(ctx.now()), &mut nodes[*node as usize]);
        protocol.handle_round_trips(now, samples);
        plan_with.map(|bps| planning::plan(std::slice::from_mut(protocol), now, bps));
    }
    let blocked = |fault: &Fault| matches!(fault, Fault::TurbineDown { .. });
    let members = keys.numbered(nodes.len());
    if let Some(members) = members.filter(|_| !ctx.setup().faults.0.iter().any(blocked)) {
        for (one, other) in following::follow(&mut nodes[..members], limit).parted {
            ctx.part(one, other);
        }
    }
    guests::follow(nodes, keys, timestamp(ctx.now()), |node| !ctx.is_down(node));
    up
}
