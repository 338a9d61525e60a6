//! Networks of many nodes, stepped in virtual time: latency, loss, dead relays, terms.

use std::collections::BinaryHeap;

use fragcast_shredder::SignedMessage;

use super::gossip::Arrival;
use super::*;
use crate::gossip::Listener;

/// A packet in flight, ordered by time and then by the order of sending.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    at: std::cmp::Reverse<(Timestamp, u64)>,
    from: usize,
    to: usize,
    control: bool,
    bytes: bytes::Bytes,
}

/// All nodes connected to all, one-way delays of 5 to 45 ms by the pair.
pub(super) struct Net {
    pub(super) world: World,
    pub(super) nodes: Vec<Protocol>,
    /// Who they are.
    pub(super) ids: Vec<PeerId>,
    pub(super) dead: Vec<bool>,
    /// Nodes that are cut off: everything from and to them is lost, control frames too.
    pub(super) cut: Vec<bool>,
    /// Nodes that are not to be found where their records say.
    pub(super) unreachable: Vec<usize>,
    /// Addresses at which nobody is.
    pub(super) nowhere: Vec<std::net::SocketAddr>,
    loss: f64,
    /// One way for all pairs, instead of 5 to 45 ms.
    pub(super) delay: Option<Duration>,
    random: blake3::OutputReader,
    packets: BinaryHeap<Packet>,
    sequence: u64,
    pub(super) now: Timestamp,
    pub(super) delivered: Vec<Vec<Arc<Delivered>>>,
    /// Who completed each of them.
    pub(super) senders: Vec<Vec<Option<PeerKey>>>,
    pub(super) others: Vec<Vec<Event>>,
    /// How leaders have sent, in order.
    pub(super) led: Vec<Led>,
    /// A hash over everything that was sent, in order.
    pub(super) digest: blake3::Hasher,
    pub(super) gossip: super::gossip::Gossip,
    /// Shreds sent from leader to each peer, in order of sending, with their lanes.
    first_hops: Vec<(PeerIndex, Lane)>,
}

impl Net {
    pub(super) fn new(world: World, loss: f64, config: &Config) -> Self {
        let n = world.members.len();
        let nodes: Vec<Protocol> = (0..n).map(|i| world.node(i, config.clone())).collect();
        let ids = world.members.members().iter().map(|member| member.peer()).collect();
        let mut net = Self::of(world, nodes, ids, loss);
        for (i, node) in net.nodes.iter_mut().enumerate() {
            (0..n).filter(|j| *j != i).for_each(|j| node.handle_connected(peer(j as u32)));
        }
        net.settle();
        net
    }

    /// Nodes of one's own making, nobody connected: they know one another by `ids`.
    pub(super) fn of(world: World, nodes: Vec<Protocol>, ids: Vec<PeerId>, loss: f64) -> Self {
        let n = nodes.len();
        Self {
            ids,
            nodes,
            dead: vec![false; n],
            cut: vec![false; n],
            unreachable: Vec::new(),
            nowhere: Vec::new(),
            loss,
            delay: None,
            random: blake3::Hasher::new().update(b"net").finalize_xof(),
            packets: BinaryHeap::new(),
            sequence: 0,
            now: Timestamp::from_nanos(1_000_000_000),
            delivered: vec![Vec::new(); n],
            senders: vec![Vec::new(); n],
            others: vec![Vec::new(); n],
            led: Vec::new(),
            digest: blake3::Hasher::new(),
            gossip: super::gossip::Gossip::new(n),
            first_hops: Vec::new(),
            world,
        }
    }

    /// Runs until nobody says anything. Nobody sends messages yet: nodes that may use gossip have
    /// looked there, in vain.
    pub(super) fn settle(&mut self) {
        self.run();
        let others = self.others.iter_mut();
        others.for_each(|events| events.retain(|event| !matches!(event, Event::Health(_))));
    }

    /// Adds a node of one's own making, connected to nobody; gives its number.
    pub(super) fn add(&mut self, node: Protocol, id: PeerId) -> usize {
        self.nodes.push(node);
        self.ids.push(id);
        self.dead.push(false);
        self.cut.push(false);
        self.delivered.push(Vec::new());
        self.senders.push(Vec::new());
        self.others.push(Vec::new());
        self.gossip.add();
        self.nodes.len() - 1
    }

    /// Connects two nodes, if each of them knows the other as a peer.
    pub(super) fn connect(&mut self, one: usize, other: usize) {
        let key =
            |net: &Self, node: usize, of: usize| net.nodes[node].epochs().peers().key(&net.ids[of]);
        let keys = (key(self, one, other), key(self, other, one));
        if let (Some(of_other), Some(of_one)) = keys
            && !self.nodes[one].is_connected(of_other)
        {
            self.nodes[one].handle_connected(of_other);
            self.nodes[other].handle_connected(of_one);
        }
    }

    /// A node's process ends, and another one with this configuration takes its place.
    pub(super) fn replace(&mut self, node: usize, config: Config) {
        self.nodes[node] = self.world.node(node, config);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.nodes[other].handle_disconnected(peer(node as u32));
            self.connect(other, node);
        }
    }

    /// Does what a driver does when epochs come and go.
    fn change_peers(&mut self, node: usize, change: &EpochChange) {
        let number = |net: &Self, id: &PeerId| net.ids.iter().position(|known| known == id);
        for (_, id) in &change.joined {
            let joined = number(self, id).expect("a node");
            self.connect(node, joined);
        }
        for (_, id) in &change.left {
            let left = number(self, id).expect("a node");
            let of_node = self.key_of(left, node);
            self.nodes[left].handle_disconnected(of_node);
        }
    }

    fn chance(&mut self) -> f64 {
        let mut bytes = [0; 4];
        self.random.fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
    }

    fn drain(&mut self, node: usize) {
        let leader = self.world.leader_keys.len() > node;
        while let Some(event) = self.nodes[node].poll_event() {
            match event {
                Event::Message { delivered, from } => {
                    self.delivered[node].push(delivered);
                    self.senders[node].push(from);
                }
                Event::Epoch(change) => {
                    self.change_peers(node, &change);
                    self.others[node].push(Event::Epoch(change));
                }
                Event::Led(led) => self.led.push(led),
                other => self.others[node].push(other),
            }
        }
        while let Some(probe) = self.nodes[node].poll_probe() {
            let there = self.ids.iter().position(|id| *id == probe.peer);
            let found = |node: usize| {
                !self.dead[node] && !self.cut[node] && !self.unreachable.contains(&node)
            };
            let answers =
                |at: &std::net::SocketAddr| there.is_some_and(found) && !self.nowhere.contains(at);
            for address in probe.addresses.into_iter().filter(answers) {
                self.nodes[node].handle_reached(self.now, &probe.peer, address);
            }
        }
        while let Some(action) = self.nodes[node].poll_gossip() {
            if !self.dead[node] {
                self.gossip.act(self.now, node, action);
            }
        }
        while let Some(Transmit { to, lane, payload }) = self.nodes[node].poll_transmit(self.now) {
            if self.dead[node] {
                continue;
            }
            let to = self.number_of(node, to);
            let (control, bytes) = match payload {
                Payload::Shred(bytes) => (false, bytes),
                Payload::Control(bytes) => (true, bytes),
            };
            self.digest.update(&[node as u8, to as u8, lane as u8]);
            self.digest.update(&self.now.as_nanos().to_le_bytes());
            self.digest.update(&bytes);
            if leader && !control {
                self.first_hops.push((to as PeerIndex, lane));
            }
            if !control && self.chance() < self.loss {
                continue;
            }
            if self.cut[node] || self.cut[to] {
                continue;
            }
            let delay = 5 + (node as u64 * 7 + to as u64 * 13) % 40;
            self.sequence += 1;
            let at = self.now + self.delay.unwrap_or(Duration::from_millis(delay));
            let at = std::cmp::Reverse((at, self.sequence));
            self.packets.push(Packet { at, from: node, to, control, bytes });
        }
    }

    /// The number of the node that another one knows by a key.
    fn number_of(&self, node: usize, key: PeerKey) -> usize {
        let peer = self.nodes[node].epochs().peers().peer(key).expect("a peer");
        self.ids.iter().position(|id| *id == peer).expect("a node")
    }

    /// The key by which a node knows another one; nobody's if it does not.
    fn key_of(&self, node: usize, other: usize) -> PeerKey {
        self.nodes[node].epochs().peers().key(&self.ids[other]).unwrap_or(peer(u32::MAX))
    }

    /// Runs until no packet is in flight and no node has a timer, for a minute at most: a node goes
    /// on asking for a block that there is not.
    pub(super) fn run(&mut self) {
        let end = self.now + Duration::from_secs(60);
        while self.step(Some(end)) {}
    }

    /// Runs for a while.
    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(Some(end)) {}
        self.now = end;
    }

    /// Goes to the next thing that happens, if there is one and it is not after `end`.
    fn step(&mut self, end: Option<Timestamp>) -> bool {
        (0..self.nodes.len()).for_each(|node| self.drain(node));
        let packet = self.packets.peek().map(|p| p.at.0.0);
        let timeout = (0..self.nodes.len())
            .filter(|node| !self.dead[*node])
            .filter_map(|node| self.nodes[node].poll_timeout(self.now))
            .min();
        let gossip = self.gossip.next();
        let due = packet.into_iter().chain(timeout).chain(gossip);
        let Some(next) = due.min() else { return false };
        if end.is_some_and(|end| next > end) {
            return false;
        }
        self.now = self.now.max(next);
        for node in 0..self.nodes.len() {
            if self.nodes[node].poll_timeout(self.now).is_some_and(|at| at <= self.now) {
                self.nodes[node].handle_timeout(self.now);
            }
        }
        for (to, what) in self.gossip.due(self.now) {
            match what {
                _ if self.dead[to] => {}
                Arrival::Listener(of, is) => {
                    // Who is no member is somebody from outside.
                    let key = self.nodes[to].epochs().peers().key(&self.ids[of]);
                    let of = key.map_or(Listener::Outside(of as u64), Listener::Member);
                    self.nodes[to].handle_listener(self.now, of, is);
                }
                Arrival::Message(kind, wire) => {
                    let dialect = self.nodes[to].parts.ctx.config.dialect;
                    let signed = SignedMessage::from_wire(kind, dialect, &wire.into()).unwrap();
                    let block = signed.message.block();
                    let others = self.world.schedule.ranked(block).map(|(_, gateway)| gateway);
                    let gateways = std::iter::once(self.world.address(block)).chain(others);
                    let message = signed.verify_among(gateways).unwrap();
                    self.nodes[to].handle_gossip(self.now, message, true);
                }
            }
        }
        while self.packets.peek().is_some_and(|p| p.at.0.0 <= self.now) {
            let packet = self.packets.pop().unwrap();
            let to = packet.to;
            if self.dead[to] {
                continue;
            }
            let from = self.key_of(to, packet.from);
            if packet.control {
                self.nodes[to].handle_control(self.now, from, &packet.bytes);
            } else {
                self.nodes[to].handle_datagrams(self.now, [(from, packet.bytes)]);
            }
        }
        true
    }

    pub(super) fn send(&mut self, message: Message, attempt: u8) {
        let leader = self.world.gateway(message.block());
        let message = self.world.sign(message);
        let key = key(message.message(), attempt);
        self.nodes[leader].broadcast(self.now, key, &message).unwrap();
    }

    pub(super) fn block(&mut self, number: u64, frags: u64, len: usize) {
        self.send(env(number), 0);
        (0..frags).for_each(|seq| self.send(frag(number, seq, len), 0));
        self.send(seal(number, frags), 0);
        self.run();
    }

    /// Asserts that everybody but the leader and the dead has `count` messages.
    pub(super) fn assert_complete(&self, leader: usize, count: usize) {
        for (node, delivered) in self.delivered.iter().enumerate() {
            if node != leader && !self.dead[node] {
                assert_eq!(delivered.len(), count, "node {node}");
            }
        }
    }
}

pub(super) fn config(route: RoutePolicy, loss: f64) -> Config {
    Config { route, loss, ..Config::new(CHAIN) }
}

pub(super) const TREES: [RoutePolicy; 4] = [
    RoutePolicy::Fixed(Route::Direct),
    RoutePolicy::Fixed(Route::Rotor),
    RoutePolicy::Fixed(Route::Turbine { fanout: 6 }),
    RoutePolicy::Auto,
];

#[test]
fn fifty_nodes_with_five_percent_loss_end_complete_on_every_route() {
    for route in TREES {
        let weights: Vec<u64> = (0..50).map(|i| if i % 10 == 9 { 0 } else { 1 + i % 7 }).collect();
        let mut net = Net::new(World::new(&weights, 1), 0.05, &config(route, 0.05));
        net.block(1, 10, 20_000);
        net.assert_complete(0, 12);
        assert!(net.others.iter().flatten().next().is_none(), "{:?}", net.others);
        // Only validated shreds travelled, and nobody was sent one twice by the same peer.
        for node in &net.nodes {
            let outcomes = node.outcomes();
            assert_eq!(outcomes.get(Outcome::Malformed) + outcomes.get(Outcome::BadSignature), 0);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let digest = || {
        let mut net = Net::new(World::new(&[3; 20], 2), 0.05, &config(TREES[2], 0.05));
        net.block(1, 3, 20_000);
        net.block(11, 3, 20_000);
        net.digest.finalize().to_hex().to_string()
    };
    let first = digest();
    assert_eq!(first, digest());
    assert_eq!(
        first, "7044a200bfdb40fc98448077e2b8e415ce67b017e9830a5c9b8ecebf9e309e0e",
        "the protocol's behaviour changed; pin the new digest if it was meant"
    );
}

#[test]
fn ten_percent_loss_over_a_deep_tree_ends_complete() {
    let route = RoutePolicy::Fixed(Route::Turbine { fanout: 3 });
    let mut net = Net::new(World::new(&[1; 40], 1), 0.10, &config(route, 0.10));
    net.block(1, 5, 30_000);
    net.assert_complete(0, 7);
}

#[test]
fn auto_takes_the_route_whose_busiest_sender_is_done_soonest() {
    let world = World::new(&[1; 40], 1);
    let route = |uplink_bps, len| {
        let config = Config { uplink_bps, ..config(RoutePolicy::Auto, 0.02) };
        let mut leader = world.node(0, config);
        leader.assume_connected(1u32..40);
        let message = world.sign(frag(1, 0, len));
        leader.broadcast(Timestamp::from_nanos(1), key(message.message(), 0), &message).unwrap();
        let Payload::Shred(shred) = leader.poll_transmit(Timestamp::from_nanos(1)).unwrap().payload
        else {
            panic!("a shred comes first");
        };
        fragcast_shredder::Shred::parse(shred).unwrap().header().route
    };
    assert_eq!(route(100_000_000_000, 36_000), Route::Direct.to_wire().0);
    assert_eq!(route(100_000_000, 36_000), Route::Rotor.to_wire().0);
    assert_eq!(route(2_000_000, 36_000), Config::TREE.to_wire().0);
}

#[test]
fn a_silent_relay_costs_shreds_and_no_message() {
    for route in TREES {
        let mut net = Net::new(World::new(&[1; 20], 1), 0.02, &config(route, 0.02));
        // Dead, but everybody believes it is connected.
        net.dead[7] = true;
        net.block(1, 10, 20_000);
        net.assert_complete(0, 12);
    }
}

#[test]
fn a_relay_known_to_be_gone_is_stepped_over() {
    let route = RoutePolicy::Fixed(Route::Rotor);
    let mut net = Net::new(World::new(&[1, 1, 1], 1), 0.0, &config(route, 0.0));
    net.dead[1] = true;
    (0..3).for_each(|node| net.nodes[node].handle_disconnected(peer(1)));
    net.block(1, 5, 20_000);
    net.assert_complete(0, 7);
    assert!(net.nodes[0].counters().stepped_over > 0);
}

#[test]
fn a_relay_that_recovers_sends_what_it_still_owed() {
    let route = RoutePolicy::Fixed(Route::Rotor);
    let mut net = Net::new(World::new(&[1; 6], 1), 0.2, &config(route, 0.2));
    net.block(1, 5, 20_000);
    net.assert_complete(0, 7);
    let owed: u64 = net.nodes.iter().map(|n| n.counters().owed).sum();
    assert!(owed > 0, "with a fifth of the shreds lost some were owed");
}

#[test]
fn the_next_leader_is_served_first() {
    let mut net = Net::new(World::new(&[1; 12], 3), 0.0, &config(TREES[2], 0.02));
    net.first_hops.clear();
    net.send(frag(1, 0, 20_000), 0);
    net.run();
    let first: Vec<Lane> = net.first_hops.iter().map(|(_, lane)| *lane).take(20).collect();
    assert!(first.iter().all(|lane| *lane == Lane::NextLeader), "{first:?}");
    let view = net.nodes[0].epochs();
    assert_eq!(view.next_leaders(1).next().unwrap().peer, net.ids[1]);
    assert!(net.first_hops.iter().filter(|(_, l)| *l == Lane::NextLeader).all(|(to, _)| *to == 1));
    let at = |node: usize| net.delivered[node][0].times.complete_at;
    let by_relays = (3..12).map(at).min().unwrap();
    assert!(at(1) <= by_relays || at(1).since(by_relays) < Duration::from_millis(40));
    net.assert_complete(0, 1);
}

#[test]
fn terms_hand_over_between_leaders() {
    let mut net = Net::new(World::new(&[1; 10], 3), 0.02, &config(TREES[2], 0.02));
    for block in 8..23 {
        net.block(block, 2, 5_000);
    }
    for (node, delivered) in net.delivered.iter().enumerate() {
        let own = (8..23).filter(|b| net.world.gateway(*b) == node).count();
        assert_eq!(delivered.len(), (15 - own) * 4, "node {node}");
    }
}

#[test]
fn a_new_attempt_supersedes_and_accuses_nobody() {
    let mut net = Net::new(World::new(&[1; 10], 1), 0.02, &config(TREES[2], 0.02));
    net.send(env(1), 0);
    net.send(frag(1, 0, 5_000), 0);
    net.run();
    net.send(env(1), 1);
    net.run();
    net.send(frag(1, 0, 7_000), 1);
    net.send(seal(1, 1), 1);
    net.run();
    net.assert_complete(0, 5);
    assert!(net.others.iter().flatten().next().is_none());
}

#[test]
fn a_node_that_was_away_finds_the_head_again() {
    let mut net = Net::new(World::new(&[1; 6], 1), 0.0, &config(TREES[0], 0.0));
    net.block(1, 1, 1_000);
    // Everything in between is missed by node 5.
    net.dead[5] = true;
    net.nodes[0].handle_head(net.now, 299);
    net.block(300, 1, 1_000);
    net.dead[5] = false;
    net.block(301, 1, 1_000);
    assert_eq!(net.delivered[5].len(), 3, "301 is far above its window");
    assert!(net.nodes[5].outcomes().get(Outcome::Future) > 0);
    net.now = net.now + Duration::from_secs(6);
    net.block(302, 1, 1_000);
    // 300 and 301 were missed, and are asked for.
    assert_eq!(net.delivered[5].len(), 12);
}

#[test]
fn a_delegation_learnt_from_a_peer_is_used() {
    let world = World::new(&[1; 4], 1);
    let mut net = Net::new(world, 0.0, &config(TREES[2], 0.0));
    // Member 1 takes over from block 5 on, with a key of its own.
    let key = SigningKey::from_bytes(&[77; 32]);
    let delegation = Delegation {
        chain_id: CHAIN,
        first: 5,
        last: 9,
        sequence: 2,
        peer: net.world.members.members()[1].peer(),
        key: key.verifying_key().to_bytes(),
    };
    let signed = delegation.sign(&net.world.gateways[0]);
    let config = config(TREES[2], 0.0);
    let id = net.world.members.members()[1].peer();
    let all = net.world.delegations.iter().copied().chain([signed]);
    let node = Protocol::new(
        config,
        &id,
        net.world.members.clone(),
        net.world.schedule.clone(),
        all,
        Some(key),
    );
    net.nodes[1] = node.unwrap();
    for other in [0, 2, 3] {
        net.nodes[1].handle_connected(peer(other));
        net.nodes[other as usize].handle_connected(peer(1));
    }
    net.run();
    let message = net.world.sign(env(5));
    net.nodes[1].broadcast(net.now, super::key(message.message(), 0), &message).unwrap();
    let refused = net.nodes[0].broadcast(net.now, super::key(message.message(), 0), &message);
    assert_eq!(refused, Err(BroadcastError::NotLeader(5)));
    net.run();
    net.assert_complete(1, 1);
    assert_eq!(net.nodes[0].counters().unknown_plan, 0, "its plan was learnt as well");
}

#[test]
fn a_ten_megabyte_message_arrives() {
    let mut net = Net::new(World::new(&[1; 4], 1), 0.01, &config(TREES[0], 0.01));
    net.send(frag(1, 0, fragcast_shredder::MAX_MESSAGE_LEN - 200), 0);
    let message = net.world.sign(env(2));
    let busy = net.nodes[0].broadcast(net.now, key(message.message(), 0), &message);
    assert_eq!(busy, Err(BroadcastError::Busy), "the lanes are full of the first");
    net.run();
    net.assert_complete(0, 1);
}
