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
//! network they follow the plan; see `following.rs`. Nodes that are no members take messages from some
//! that are; see `guests.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fragcast_shredder::{MessageKey, VerifiedMessage};
use fragcast_turbine::egress::FRAMING;
use fragcast_turbine::{
    CatchUpConfig, Config, Epoch, Event, GossipConfig, Lane, Led, Listener, Mode, Payload, Policy,
    Profile, Protocol, RepairConfig, RoutePolicy, Setup, Timestamp, Via,
};

use crate::engine::{Class, Context, Overlay};
use crate::link::LinkConfig;
pub use crate::load::Table;
use crate::load::{Broadcast, Load};
use crate::measurement::Measurement;
use crate::outcome::How;
use crate::reliable::{Reliable, ReliableConfig};
use crate::scenario::FragcastOptions;
use crate::world::World;
use crate::{Nanos, NodeId, SECONDS};

mod beginning;
mod connections;
mod door;
mod epochs;
mod following;
mod guests;
mod measuring;
mod messages;
mod network;
mod planning;
mod registry;

use super::gossip;
use connections::{Connections, Ends};
use door::Door;
use epochs::Keys;
pub use measuring::{WARM_UP, WarmUp};
pub use network::Network;
use network::{gateway_key, leader_key};
pub(crate) use planning::truth;
use registry::Registry;

/// The simulated chain.
const CHAIN: u64 = 901;
/// Half the bytes of an acknowledgement, since QUIC sends one for every second packet.
const HALF_ACK: u64 = ReliableConfig::QUIC.acknowledgement as u64 / 2;
/// Memory for answering repair requests of all nodes of a run together, or of all members where there
/// are guests. Each node has enough for at least one message of the largest size with its coding.
const REPAIR_MEMORY: usize = 1 << 30;
/// Memory for gossip listeners of all nodes together. Each node has enough for at least two blocks.
const GOSSIP_MEMORY: usize = 1 << 28;
/// Guests that a member lets in, where there are any.
const GUESTS: usize = 64;
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
    /// What bandwidth is worth on the regional tree.
    pub profile: Profile,
    /// Whether leaders are given the true delays instead of what nodes measured.
    pub oracle: bool,
    /// How long a relay takes to send a shred on, as far as planning knows.
    pub hop: Nanos,
    /// Whether leaders ask the next leader to acknowledge their messages.
    pub hand_over: bool,
    /// How long a substitute waits for an Env, times its rank.
    pub substitute_after: Nanos,
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
    /// Round trips that the nodes' transports find, in place of measuring the world.
    pub measured: Option<Arc<Measurement>>,
}

impl Default for FragcastConfig {
    /// The configuration of a scenario without options.
    fn default() -> Self {
        let (options, links) = (FragcastOptions::default(), LinkConfig::default());
        Self {
            route: RoutePolicy::Auto,
            loss: links.loss.mean(),
            coding: options.coding,
            profile: options.profile,
            oracle: options.oracle,
            hop: links.hop,
            hand_over: options.hand_over,
            substitute_after: options.substitute_after,
            connections: options.connections,
            repair: options.repair,
            uplink_bps: links.uplink_bps,
            gossip: options.gossip,
            mode: options.mode,
            heartbeat: gossip::GossipConfig::based_op().heartbeat,
            measured: None,
        }
    }
}

/// The protocol at all nodes.
pub struct Fragcast {
    nodes: Vec<Protocol>,
    /// By node: when its scheduled timer is due.
    armed: Vec<Nanos>,
    network: Network,
    /// The epochs of the network's tables.
    epochs: Vec<Epoch>,
    /// By node: the number of tables that it starts with.
    known: Vec<usize>,
    keys: Keys,
    /// The messages of the load, with the second version of equivocal ones.
    messages: Vec<(VerifiedMessage, Option<VerifiedMessage>)>,
    by_key: BTreeMap<MessageKey, usize>,
    streams: Reliable,
    connections: Connections,
    /// The fallback on gossip, if the policy has one.
    door: Option<Door>,
    /// The most connections of a node.
    limit: u32,
    measured: Option<Arc<Measurement>>,
    /// The uplink that leaders plan with; `None` if they were given the true delays before.
    plan_with: Option<u64>,
    /// What the time before the run took, once it is over.
    warm_up: Option<WarmUp>,
    /// Whose blocks are opened then.
    load: Load,
    /// How leaders have sent, in order.
    led: Vec<Led>,
    /// A registration in mid-run, if the load has one.
    registry: Option<Registry>,
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

const fn timestamp(at: Nanos) -> Timestamp {
    Timestamp::from_nanos(EPOCH + at)
}

impl Fragcast {
    /// Makes all nodes, connected, before the first message of `load`.
    ///
    /// # Panics
    /// If a leader of the load is not a node of the network, if the tables of the network are not
    /// valid, or if there are several, or a registration, and the configuration has gossip: its
    /// connections are those of one table, its gates those of one list of gateways.
    pub fn new(config: &FragcastConfig, network: &Network, load: &Load, seed: u64) -> Self {
        Self::in_world(config, network, load, seed, None)
    }

    /// The same, where leaders are given the delays of `world` before the run if the configuration
    /// says so.
    ///
    /// # Panics
    /// As [`Fragcast::new`].
    pub fn in_world(
        config: &FragcastConfig,
        network: &Network,
        load: &Load,
        seed: u64,
        world: Option<&World>,
    ) -> Self {
        let members = &network.members;
        let epochs = network.epochs(load);
        let one = epochs.len() == 1 && load.registration.is_none();
        assert!(one || config.gossip == Policy::Off, "gossip needs one table and one list");
        let mut protocol = Self::protocol(config, members.len(), load);
        let setup = |protocol: &Config, known: usize| {
            Setup::of(protocol.clone(), epochs[..known].to_vec()).expect("tables in their order")
        };
        let guests = network.guests_from.map(|_| setup(&protocol, epochs.len()));
        if let Some(members) = network.guests_from {
            protocol.guests = GUESTS;
            protocol.guests_bps = config.uplink_bps / 4;
            // Guests answer nobody.
            protocol.repair.memory = protocol.repair.memory.max(REPAIR_MEMORY / members as usize);
        }
        // A setup for each number of tables that a node may start with.
        let setups: Vec<Setup> = (1..=epochs.len()).map(|known| setup(&protocol, known)).collect();
        let peer = |node: NodeId| members.members()[node as usize].peer();
        let is_leader = |node: NodeId| load.leads(node);
        let n = members.len() as NodeId;
        let is_guest = |node: NodeId| network.guests_from.is_some_and(|from| node >= from);
        let known = |node: NodeId| match is_guest(node) {
            true => epochs.len(),
            false => epochs::known_at_start(&network.members_of, &peer(node)),
        };
        let known: Vec<usize> = (0..n).map(known).collect();
        let mut nodes: Vec<Protocol> = (0..n)
            .zip(&known)
            .map(|(node, known)| {
                let key = is_leader(node).then(|| leader_key(node));
                if let Some(guests) = guests.as_ref().filter(|_| is_guest(node)) {
                    return guests.guest(&peer(node), None);
                }
                setups[known - 1].node(&peer(node), key).expect("a member of the table")
            })
            .collect();
        for (node, identity) in nodes.iter_mut().zip(&*network.identities) {
            node.set_identity(identity.clone());
        }
        let keys = match network.guests_from {
            Some(members) => Keys::with_guests(members, nodes.len()),
            None => Keys::of(&nodes, members, epochs.len()),
        };
        match keys.numbered(nodes.len()) {
            Some(members) => beginning::connect(&mut nodes[..members], config.connections),
            None => epochs::connect(&mut nodes, &keys),
        }
        let told = world.filter(|_| config.oracle);
        if let Some(world) = told {
            planning::plan_with_truth(&mut nodes, &keys, world, config.uplink_bps);
            if let Some(members) = keys.numbered(nodes.len()) {
                following::follow(&mut nodes[..members], config.connections);
            }
        }
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
            limit: config.connections,
            network: network.clone(),
            measured: config.measured.clone(),
            plan_with: told.is_none().then_some(config.uplink_bps),
            warm_up: None,
            load: load.clone(),
            led: Vec::new(),
            registry: Registry::of(
                load,
                nodes.len(),
                |leader| gateway_key(leader).address(),
                |leader| network.delegation(leader),
            ),
            epochs,
            known,
            keys,
            door,
            nodes,
            messages,
        }
    }

    fn protocol(config: &FragcastConfig, nodes: usize, load: &Load) -> Config {
        let largest = load.broadcasts.iter().map(|b| b.bytes as usize).max().unwrap_or(0);
        let usual = Config::new(CHAIN);
        Config {
            route: config.route,
            loss: config.loss,
            relayed_coding: config.coding,
            profile: config.profile,
            hop: Duration::from_nanos(config.hop),
            uplink_bps: config.uplink_bps,
            hand_over: config.hand_over,
            substitute_after: Duration::from_nanos(config.substitute_after),
            connections: config.connections as usize,
            // Virtual timers are exact, so the burst need not cover their resolution. Half a
            // millisecond keeps the link's queue short enough for the lanes to take effect.
            burst: Duration::from_micros(500),
            // The load decides what is sent, and only the queues of links may overflow.
            lane_capacity: usize::MAX / 2,
            repair: RepairConfig {
                enabled: config.repair,
                memory: (REPAIR_MEMORY / nodes).max(4 * largest),
                ..RepairConfig::default()
            },
            // Nobody asks for whole blocks: measured is what shreds, repair and gossip bring by
            // themselves. Chaos is where nodes catch up.
            catch_up: CatchUpConfig { memory: 0, ..CatchUpConfig::default() },
            gossip: GossipConfig {
                policy: config.gossip,
                mode: config.mode,
                memory: (GOSSIP_MEMORY / nodes).max(32 * largest),
                ..GossipConfig::default()
            },
            block_time: load.block_time().map_or(usual.block_time, Duration::from_nanos),
            ..usual
        }
    }

    /// Lets the nodes measure the delays between them and tell one another, and leaders plan, in the
    /// time before a run, and opens the blocks in whose middle it begins. A run does so by itself if it
    /// has not been done.
    pub fn warm_up(&mut self, world: &World, links: &LinkConfig, seed: u64) -> WarmUp {
        if let Some(done) = self.warm_up {
            return done;
        }
        let saved = self.measured.clone();
        let mut warming = measuring::Warming {
            nodes: &mut self.nodes,
            keys: &mut self.keys,
            world,
            links,
            saved: saved.as_deref(),
            plan_with: self.plan_with,
            limit: self.limit,
        };
        let warm_up = warming.run(seed);
        beginning::open_blocks(warming.nodes, warming.keys, &self.load);
        warming.go_on(seed);
        *self.warm_up.insert(warm_up)
    }

    /// Drains a node's protocol: events, gossip actions, transmissions and its next timer.
    fn pump(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId) {
        let now = timestamp(ctx.now());
        let protocol = &mut self.nodes[node as usize];
        let mut changes = Vec::new();
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
                Event::Led(led) => self.led.push(led),
                Event::Held(key) => {
                    self.by_key.get(&key).into_iter().for_each(|index| ctx.held(*index));
                }
                Event::Epoch(change) => changes.push(change),
                // Nothing to do for bad messages and barred peers.
                _ => {}
            }
        }
        let mut connected = Vec::new();
        for change in changes {
            let members = &self.network.members;
            connected.extend(self.keys.change(&mut self.nodes, node, &change, members));
        }
        let protocol = &mut self.nodes[node as usize];
        if let Some(door) = &mut self.door {
            while let Some(action) = protocol.poll_gossip() {
                door.act(ctx, node, action);
            }
        }
        while let Some(transmit) = protocol.poll_transmit(now) {
            let Some(to) = self.keys.peer(node, transmit.to) else { continue };
            match transmit.payload {
                Payload::Shred(bytes) => {
                    let len = (bytes.len() + FRAMING) as u32;
                    ctx.send(node, to, len, Class::Data, Packet::Shred(bytes));
                }
                Payload::Control(bytes) => {
                    let class = match transmit.lane {
                        Lane::Repair | Lane::Backfill => Class::Repair,
                        _ => Class::Control,
                    };
                    let (path, len) = ((node, to), bytes.len() as u32);
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
        for peer in connected {
            self.pump(ctx, peer);
        }
    }

    /// How leaders have sent messages, in order.
    pub fn led(&self) -> &[Led] {
        &self.led
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
        let setup = *ctx.setup();
        let WarmUp { span, bytes } = self.warm_up(setup.world, &setup.links, setup.seed);
        ctx.note_warm_up(span, bytes);
        measuring::start(ctx);
        Connections::start(ctx);
        epochs::start(ctx, &self.network.tables, &self.known);
        if let Some(registry) = &self.registry {
            registry.start(ctx);
        }
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
        // A peer that the receiver does not know any more has no connection to it.
        let Some(sender) = self.keys.key(to, from) else { return };
        let protocol = &mut self.nodes[to as usize];
        match packet {
            Packet::Shred(bytes) => {
                ctx.count_sent(to, HALF_ACK);
                protocol.handle_datagrams(now, [(sender, bytes)]);
            }
            Packet::Control(frame) => protocol.handle_control(now, sender, &frame),
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
            let ends =
                Ends { nodes: &mut self.nodes, keys: &self.keys, streams: &mut self.streams };
            for touched in self.connections.timer(ctx, ends, node, token) {
                self.pump(ctx, touched);
            }
            return;
        }
        if token & measuring::TIMERS != 0 {
            let how = (self.plan_with, self.limit);
            for touched in measuring::timer(ctx, &mut self.nodes, &mut self.keys, how, token) {
                self.pump(ctx, touched);
            }
            return;
        }
        if token & epochs::TIMERS != 0 {
            let epoch = self.epochs[(token & !epochs::TIMERS) as usize].clone();
            let now = timestamp(ctx.now());
            self.nodes[node as usize].handle_epoch(now, epoch).expect("tables in their order");
            self.pump(ctx, node);
            return;
        }
        if token & registry::TIMERS != 0 {
            let registry = self.registry.as_mut().expect("it set the timer");
            if registry.timer(ctx, &mut self.nodes[node as usize], node) {
                self.pump(ctx, node);
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
        // The connections of gossip are added to those of the overlay.
        Some(self.limit + self.door.as_ref().map_or(0, Door::max_degree))
    }
}

#[cfg(test)]
mod tests;
