//! Fragcast: every node runs `fragcast_turbine::Protocol`, the code of the daemon, with real
//! signatures, codes and trees.
//!
//! Shreds are QUIC datagrams; control frames and repair use QUIC streams. Pacing, lanes, routes,
//! validation and repair are the protocol's own. Connections are up when a run begins, also those
//! to hosts that are down: QUIC's idle time-out of 6 s is longer than most runs, and the nodes of
//! the other protocols do not know of such hosts either. Where UDP is blocked for longer,
//! connections end and are made anew; see `connections.rs`.
//!
//! With a policy other than `off`, nodes also use gossip as their fallback; see `door.rs`.
//!
//! A node has at most [`FragcastConfig::connections`] connections, as in the daemon. In a larger
//! network each node is connected to that many others, drawn at random.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use fragcast_shredder::{GatewayKey, MessageKey, VerifiedMessage};
use fragcast_turbine::egress::FRAMING;
use fragcast_turbine::membership::{Membership, sample};
use fragcast_turbine::{
    Config, Delegation, Event, GossipConfig, Lane, Listener, Mode, Payload, Policy, Protocol,
    RepairConfig, RoutePolicy, Schedule, Setup, Timestamp, Via,
};

use crate::engine::{Class, Context, Overlay};
use crate::link::LinkConfig;
use crate::load::{Broadcast, Load};
use crate::outcome::How;
use crate::reliable::{Reliable, ReliableConfig};
use crate::scenario::FragcastOptions;
use crate::world::World;
use crate::{Nanos, NodeId, SECONDS};

mod beginning;
mod connections;
mod door;
mod messages;

use super::gossip;
use connections::Connections;
use door::Door;

/// The simulated chain.
const CHAIN: u64 = 901;
/// Half the bytes of an acknowledgement, since QUIC sends one for every second packet.
const HALF_ACK: u64 = ReliableConfig::QUIC.acknowledgement as u64 / 2;
/// Memory for answering repair requests of all nodes of a run together. Each node has enough for at
/// least one message of the largest size with its coding.
const REPAIR_MEMORY: usize = 1 << 30;
/// Memory for gossip listeners of all nodes together. Each node has enough for at least two blocks.
const GOSSIP_MEMORY: usize = 1 << 28;
/// The protocol's time at the start of a run, so that the µs in headers are not zero.
const EPOCH: Nanos = 1_000 * SECONDS;

/// Configuration of the nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct FragcastConfig {
    /// The leader's route.
    pub route: RoutePolicy,
    /// Loss per hop that the code must make good.
    pub loss: f64,
    /// The fewest coding shreds for each data shred on routes with relays.
    pub coding: f64,
    /// The most connections of a node.
    pub connections: u32,
    /// Whether nodes ask for missing shreds.
    pub repair: bool,
    /// The uplink in the nodes' configuration, bits per second.
    pub uplink_bps: u64,
    /// The nodes' policy on gossip.
    pub gossip: Policy,
    /// Whether messages travel by the overlay, by gossip, or as health decides.
    pub mode: Mode,
    /// Interval of gossip's heartbeats.
    pub heartbeat: Nanos,
}

impl Default for FragcastConfig {
    /// The configuration of a scenario without options.
    fn default() -> Self {
        let (options, links) = (FragcastOptions::default(), LinkConfig::default());
        Self {
            route: RoutePolicy::Auto,
            loss: links.loss.mean(),
            coding: options.coding,
            connections: options.connections,
            repair: options.repair,
            uplink_bps: links.uplink_bps,
            gossip: options.gossip,
            mode: options.mode,
            heartbeat: gossip::GossipConfig::based_op().heartbeat,
        }
    }
}

/// The membership table of a world, in which member i is node i. Runs share it, since signing
/// 10,000 records takes a second.
#[derive(Debug, Clone)]
pub struct Network {
    members: Arc<Membership>,
}

impl Network {
    /// The table of `world`'s nodes.
    pub fn new(world: &World) -> Self {
        let weights: Vec<u64> = world.nodes.iter().map(|node| node.weight).collect();
        Self { members: Arc::new(sample(CHAIN, &weights).0) }
    }
}

/// The protocol at all nodes.
pub struct Fragcast {
    nodes: Vec<Protocol>,
    /// By node: when its scheduled timer is due.
    armed: Vec<Nanos>,
    /// The messages of the load, with the second version of equivocal ones.
    messages: Vec<(VerifiedMessage, Option<VerifiedMessage>)>,
    by_key: BTreeMap<MessageKey, usize>,
    streams: Reliable,
    connections: Connections,
    /// The fallback on gossip, if the policy has one.
    door: Option<Door>,
    max_degree: u32,
}

impl std::fmt::Debug for Fragcast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fragcast").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}

/// A packet on the wire.
#[derive(Debug, Clone)]
pub enum Packet {
    /// A datagram.
    Shred(Bytes),
    /// A frame of the control stream.
    Control(Bytes),
    /// A packet of gossip.
    Gossip(gossip::Packet),
}

impl From<gossip::Packet> for Packet {
    fn from(packet: gossip::Packet) -> Self {
        Self::Gossip(packet)
    }
}

fn gateway_key(leader: NodeId) -> GatewayKey {
    let seed = blake3::derive_key("fragcast 2026 netsim gateway", &leader.to_le_bytes());
    GatewayKey::from_bytes(seed).expect("2^-128 of all seeds are none")
}

fn leader_key(leader: NodeId) -> SigningKey {
    let seed = blake3::derive_key("fragcast 2026 netsim leader", &leader.to_le_bytes());
    SigningKey::from_bytes(&seed)
}

const fn timestamp(at: Nanos) -> Timestamp {
    Timestamp::from_nanos(EPOCH + at)
}

impl Fragcast {
    /// Makes all nodes, connected, before the first message of `load`.
    ///
    /// # Panics
    /// If a leader of the load is not a node of the network.
    pub fn new(config: &FragcastConfig, network: &Network, load: &Load, seed: u64) -> Self {
        let members = &network.members;
        let setup = Self::setup(config, members, load);
        let is_leader = |node: NodeId| load.leaders.contains(&node);
        let n = members.len() as NodeId;
        let mut nodes: Vec<Protocol> = (0..n)
            .map(|node| {
                let peer = members.members()[node as usize].peer();
                let key = is_leader(node).then(|| leader_key(node));
                setup.node(&peer, key).expect("a member of the table")
            })
            .collect();
        beginning::connect(&mut nodes, config.connections, seed);
        beginning::open_blocks(&mut nodes, load);
        let messages: Vec<_> = load
            .broadcasts
            .iter()
            .map(|broadcast| {
                let key = gateway_key(broadcast.leader);
                let version = |v| messages::signed(broadcast, v, &key);
                (version(0), broadcast.equivocal.then(|| version(1)))
            })
            .collect();
        let door = (config.gossip != Policy::Off)
            .then(|| Door::new(config, &mut nodes, load, &messages, seed));
        Self {
            armed: vec![Nanos::MAX; nodes.len()],
            by_key: load.broadcasts.iter().enumerate().map(|(i, b)| (b.key, i)).collect(),
            streams: Reliable::new(ReliableConfig::QUIC),
            connections: Connections::default(),
            // The connections of gossip are added to those of the overlay.
            max_degree: config.connections + door.as_ref().map_or(0, Door::max_degree),
            door,
            nodes,
            messages,
        }
    }

    fn setup(config: &FragcastConfig, members: &Arc<Membership>, load: &Load) -> Setup {
        let gateways = load.leaders.iter().map(|leader| gateway_key(*leader).address()).collect();
        let schedule = Schedule::new(gateways, load.blocks_per_term).expect("there are leaders");
        let delegations = load.leaders.iter().map(|leader| {
            let delegation = Delegation {
                chain_id: CHAIN,
                first: 0,
                last: u64::MAX,
                sequence: 1,
                peer: members.members()[*leader as usize].peer(),
                key: leader_key(*leader).verifying_key().to_bytes(),
            };
            delegation.sign(&gateway_key(*leader))
        });
        let largest = load.broadcasts.iter().map(|b| b.bytes as usize).max().unwrap_or(0);
        let protocol = Config {
            route: config.route,
            loss: config.loss,
            relayed_coding: config.coding,
            uplink_bps: config.uplink_bps,
            // Virtual timers are exact, so the burst need not cover their resolution. Half a
            // millisecond keeps the link's queue short enough for the lanes to take effect.
            burst: Duration::from_micros(500),
            // The load decides what is sent, and only the queues of links may overflow.
            lane_capacity: usize::MAX / 2,
            repair: RepairConfig {
                enabled: config.repair,
                memory: (REPAIR_MEMORY / members.len()).max(4 * largest),
                ..RepairConfig::default()
            },
            gossip: GossipConfig {
                policy: config.gossip,
                mode: config.mode,
                memory: (GOSSIP_MEMORY / members.len()).max(32 * largest),
                ..GossipConfig::default()
            },
            ..Config::new(CHAIN)
        };
        Setup::new(protocol, Arc::clone(members), schedule, delegations)
            .expect("delegations of our own")
    }

    /// Drains a node's protocol: events, gossip actions, transmissions and its next timer.
    fn pump(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId) {
        let now = timestamp(ctx.now());
        let protocol = &mut self.nodes[node as usize];
        while let Some(event) = protocol.poll_event() {
            match event {
                Event::Message { delivered, .. } if delivered.via == Via::Gossip => {
                    let door = self.door.as_ref().expect("gossip came by it");
                    if let Some(index) = door.index_of(&delivered.message) {
                        ctx.complete(node, index, How::Gossip);
                    }
                }
                Event::Message { delivered, .. } => {
                    if let Some(index) = self.by_key.get(&delivered.key) {
                        let how = if matches!(delivered.via, Via::Repair | Via::Whole) {
                            How::Repair
                        } else {
                            How::Spread
                        };
                        ctx.complete(node, *index, how);
                        if let Some(door) = &mut self.door {
                            door.note_overlay(node, *index);
                        }
                    }
                }
                Event::Race(race) => {
                    let index = self.by_key.get(&race.key);
                    if let (Some(index), Some(door)) = (index, &mut self.door) {
                        door.note_overlay(node, *index);
                    }
                }
                Event::Health(change) => {
                    if let Some(door) = &mut self.door {
                        door.note_change(ctx, node, &change);
                    }
                }
                Event::Equivocation { .. } => ctx.convict(node),
                Event::BadParity(_)
                | Event::BadMessage { .. }
                | Event::Bar { .. }
                | Event::Mismatch { .. } => {}
                // Epochs do not change here.
                _ => {}
            }
        }
        if let Some(door) = &mut self.door {
            while let Some(action) = protocol.poll_gossip() {
                door.act(ctx, node, action);
            }
        }
        while let Some(transmit) = protocol.poll_transmit(now) {
            match transmit.payload {
                Payload::Shred(bytes) => {
                    let len = (bytes.len() + FRAMING) as u32;
                    ctx.send(node, transmit.to.number(), len, Class::Data, Packet::Shred(bytes));
                }
                Payload::Control(bytes) => {
                    let class = match transmit.lane {
                        Lane::Repair => Class::Repair,
                        _ => Class::Control,
                    };
                    let (path, len) = ((node, transmit.to.number()), bytes.len() as u32);
                    let packet = Packet::Control(bytes);
                    ctx.send_reliably(&mut self.streams, path, len, class, packet);
                }
            }
        }
        if let Some(at) = protocol.poll_timeout(now) {
            let at = at.as_nanos().saturating_sub(EPOCH).max(ctx.now());
            // A timer that was due while the host was down was lost.
            let armed = self.armed[node as usize];
            if at < armed || armed < ctx.now() {
                self.armed[node as usize] = at;
                ctx.timer(node, at, at, !protocol.busy());
            }
        }
    }

    /// The protocol of a node, for its counters.
    pub fn node(&self, node: NodeId) -> &Protocol {
        &self.nodes[node as usize]
    }

    /// Passes what gossip brought to a node on to its protocol, and to its mesh if it is valid.
    fn heard(
        &mut self,
        ctx: &mut Context<'_, Packet>,
        (from, to): (NodeId, NodeId),
        heard: gossip::Heard,
    ) {
        let Some(door) = &mut self.door else { return };
        let protocol = &mut self.nodes[to as usize];
        let now = timestamp(ctx.now());
        match heard {
            gossip::Heard::Nothing => return,
            gossip::Heard::Subscribed(on) => {
                protocol.handle_listener(now, Listener::Member(from.into()), on);
            }
            gossip::Heard::Message(message) => {
                if let Some(verified) = door.check(protocol.window(), to, message.id) {
                    protocol.handle_gossip(now, verified, true);
                    door.forward(ctx, to, message);
                }
            }
        }
        self.pump(ctx, to);
    }

    fn lead(&mut self, ctx: &Context<'_, Packet>, broadcast: &Broadcast, index: usize) {
        let protocol = &mut self.nodes[broadcast.leader as usize];
        let (message, twin) = &self.messages[index];
        protocol
            .broadcast(timestamp(ctx.now()), broadcast.key, message)
            .expect("it leads, and its lanes are wide");
        if let Some(twin) = twin {
            // A microsecond later, so that the two have different headers.
            protocol
                .broadcast(timestamp(ctx.now() + 1_000), broadcast.key, twin)
                .expect("it leads, and its lanes are wide");
        }
    }
}

impl Overlay for Fragcast {
    type Packet = Packet;

    fn start(&mut self, ctx: &mut Context<'_, Packet>) {
        Connections::start(ctx);
        if let Some(door) = &mut self.door {
            door.start(ctx);
        }
        for node in 0..self.nodes.len() as NodeId {
            self.pump(ctx, node);
        }
    }

    fn broadcast(&mut self, ctx: &mut Context<'_, Packet>, index: usize) {
        let broadcast = ctx.load().broadcasts[index];
        self.lead(ctx, &broadcast, index);
        self.pump(ctx, broadcast.leader);
    }

    fn deliver(&mut self, ctx: &mut Context<'_, Packet>, from: NodeId, to: NodeId, packet: Packet) {
        let now = timestamp(ctx.now());
        let protocol = &mut self.nodes[to as usize];
        match packet {
            Packet::Shred(bytes) => {
                ctx.count_sent(to, HALF_ACK);
                protocol.handle_datagrams(now, [(from.into(), bytes)]);
            }
            Packet::Control(frame) => protocol.handle_control(now, from.into(), &frame),
            Packet::Gossip(packet) => {
                let door = self.door.as_mut().expect("gossip came by it");
                let heard = door.deliver(ctx, from, to, packet);
                self.heard(ctx, (from, to), heard);
                return;
            }
        }
        self.pump(ctx, to);
    }

    fn timer(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId, token: u64) {
        if token & gossip::TIMERS != 0 {
            let door = self.door.as_mut().expect("it set the timer");
            let heard = door.timer(ctx, node, token);
            self.heard(ctx, (node, node), heard);
            return;
        }
        if token & connections::TIMERS != 0 {
            for touched in
                self.connections.timer(ctx, &mut self.nodes, &mut self.streams, node, token)
            {
                self.pump(ctx, touched);
            }
            return;
        }
        if self.armed[node as usize] != token {
            // An earlier timer was scheduled in the meantime and replaced this one.
            return;
        }
        self.armed[node as usize] = Nanos::MAX;
        let now = timestamp(ctx.now());
        let protocol = &mut self.nodes[node as usize];
        if protocol.poll_timeout(now).is_some_and(|at| at <= now) {
            protocol.handle_timeout(now);
        }
        self.pump(ctx, node);
    }

    fn max_degree(&self) -> Option<u32> {
        Some(self.max_degree)
    }
}

#[cfg(test)]
mod tests;
