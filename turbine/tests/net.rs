//! The QUIC driver on loopback: real sockets, real handshakes.
//!
//! Time limits only guard against hanging.
#![cfg(feature = "net")]
#![expect(clippy::disallowed_types, reason = "the driver's tests need sockets")]

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fragcast_shredder::{BlockBuilder, GatewayKey, MessageKey, VerifiedMessage};
use fragcast_turbine::membership::RecordBody;
use fragcast_turbine::net::{
    EpochRefused, GossipInput, Handle, Limits, Loss, NetConfig, Running, Snapshot, bind, spawn,
};
use fragcast_turbine::protocol::{Setup, WINDOW_FUTURE};
use fragcast_turbine::{
    Config, Delegation, Delivered, Epoch, EpochChange, EpochError, Event, GossipAction,
    GossipConfig, Member, Membership, Mode, PeerId, PeerKey, Policy, Protocol, Route, RoutePolicy,
    Schedule, SignedDelegation, Via,
};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

const CHAIN: u64 = 7;
const GUARD: Duration = Duration::from_secs(60);

struct Node {
    handle: Handle,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<bool>,
}

/// Waits for something that must happen; the guard is there only so that nothing hangs.
async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, event).await.expect("in time")
}

/// A change of epochs: what began, what ended, who joined, who left.
type Changed = (Option<u64>, Option<u64>, Vec<PeerId>, Vec<PeerId>);

impl Node {
    async fn message(&mut self) -> Arc<Delivered> {
        loop {
            let event = soon(self.events.recv()).await.expect("the driver runs");
            if let Event::Message { delivered, .. } = event {
                return delivered;
            }
        }
    }

    /// The changes of epochs so far.
    fn epochs(&mut self) -> Vec<Changed> {
        let ids = |peers: Vec<(PeerKey, PeerId)>| peers.into_iter().map(|(_, id)| id).collect();
        let events = std::iter::from_fn(|| self.events.try_recv().ok());
        let changes = events.filter_map(|event| match event {
            Event::Epoch(change) => Some(*change),
            _ => None,
        });
        changes
            .map(|EpochChange { began, ended, joined, left, .. }| {
                (began, ended, ids(joined), ids(left))
            })
            .collect()
    }

    async fn until(&self, fine: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        soon(self.handle.wait_for(fine)).await.expect("the driver runs")
    }

    async fn connected_to(&self, peers: usize) {
        self.until(|snapshot| snapshot.connected >= peers).await;
    }

    async fn stop(self) {
        drop((self.handle, self.events));
        assert!(soon(self.task).await.unwrap(), "its socket is closed");
    }
}

/// How many have called and were told what `reason` says.
fn calls(snapshot: &Snapshot, reason: &str) -> u64 {
    snapshot.calls.iter().filter(|(name, _)| *name == reason).map(|(_, count)| count).sum()
}

/// A member that is said to be at an address.
fn member(identity: &SigningKey, at: SocketAddr) -> Member {
    member_at(identity, &[at])
}

/// A member that is said to be at these addresses.
fn member_at(identity: &SigningKey, at: &[SocketAddr]) -> Member {
    let body = RecordBody {
        chain_id: CHAIN,
        peer: PeerId(identity.verifying_key().to_bytes()),
        sequence: 1,
        uplink_kbps: 0,
        coordinates: [0; 4],
        addresses: at.iter().map(|at| (*at).into()).collect(),
    };
    Member::new(body.sign(identity), 1)
}

struct World {
    identities: Vec<SigningKey>,
    members: Arc<Membership>,
    gateway: GatewayKey,
    leader: SigningKey,
    delegation: SignedDelegation,
}

impl World {
    /// Sockets whose addresses are in the members' records; node 0 leads.
    fn new(n: u8) -> (Self, Vec<UdpSocket>) {
        let sockets: Vec<UdpSocket> =
            (0..n).map(|_| bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()).collect();
        let identities: Vec<SigningKey> =
            (0..n).map(|i| SigningKey::from_bytes(&[i + 1; 32])).collect();
        let members = identities
            .iter()
            .zip(&sockets)
            .map(|(identity, socket)| member(identity, socket.local_addr().unwrap()));
        let members = Arc::new(Membership::new(CHAIN, members.collect()).unwrap());
        let gateway = GatewayKey::from_bytes([5; 32]).unwrap();
        let leader = SigningKey::from_bytes(&[99; 32]);
        let delegation = Delegation {
            chain_id: CHAIN,
            first: 0,
            last: u64::MAX,
            sequence: 1,
            peer: PeerId(identities[0].verifying_key().to_bytes()),
            key: leader.verifying_key().to_bytes(),
        };
        let delegation = delegation.sign(&gateway);
        (Self { identities, members, gateway, leader, delegation }, sockets)
    }

    /// All members are said to be at one address.
    fn all_at(&mut self, at: SocketAddr) {
        let members = self.identities.iter().map(|identity| member(identity, at));
        self.members = Arc::new(Membership::new(CHAIN, members.collect()).unwrap());
    }

    fn start(&self, index: usize, socket: UdpSocket, net: &NetConfig) -> Node {
        self.start_with(index, socket, net, relayed())
    }

    fn peer(&self, index: usize) -> PeerId {
        PeerId(self.identities[index].verifying_key().to_bytes())
    }

    /// An epoch of some of the members; node 0 leads.
    fn epoch(&self, from_block: u64, members: &[usize]) -> Epoch {
        let record = |index: &usize| {
            let place = self.members.index(&self.peer(*index)).unwrap();
            self.members.get(place).unwrap().clone()
        };
        let table = Membership::new(CHAIN, members.iter().map(record).collect()).unwrap();
        let schedule = Schedule::new(vec![self.gateway.address()], 30).unwrap();
        Epoch::new(CHAIN, from_block, Arc::new(table), schedule, [self.delegation]).unwrap()
    }

    fn start_in(&self, epochs: Vec<Epoch>, index: usize, socket: UdpSocket) -> Node {
        // An epoch is forgotten as soon as the window has passed its last block.
        let config = Config { reanchor: Duration::ZERO, ..relayed() };
        let leader = (index == 0).then(|| self.leader.clone());
        let setup = Setup::of(config, epochs).unwrap();
        let protocol = setup.node(&self.peer(index), leader).unwrap();
        let identity = self.identities[index].clone();
        let running = spawn(protocol, identity, socket, &NetConfig::default()).unwrap();
        let Running { handle, events, task, .. } = running;
        Node { handle, events, task }
    }

    fn start_with(&self, index: usize, socket: UdpSocket, net: &NetConfig, config: Config) -> Node {
        let identity = self.identities[index].clone();
        let protocol = Protocol::new(
            config,
            &PeerId(identity.verifying_key().to_bytes()),
            self.members.clone(),
            Schedule::new(vec![self.gateway.address()], 30).unwrap(),
            [self.delegation],
            (index == 0).then(|| self.leader.clone()),
        );
        let running = spawn(protocol.unwrap(), identity, socket, net).unwrap();
        let Running { handle, events, task, .. } = running;
        Node { handle, events, task }
    }

    /// Starts all nodes, and waits until each is connected to each.
    async fn start_all(
        &self,
        sockets: Vec<UdpSocket>,
        net: impl Fn(usize) -> NetConfig,
    ) -> Vec<Node> {
        let start = |(index, socket)| self.start(index, socket, &net(index));
        let nodes: Vec<Node> = sockets.into_iter().enumerate().map(start).collect();
        for node in &nodes {
            node.connected_to(nodes.len() - 1).await;
        }
        nodes
    }

    /// Has `leader` broadcast a frag.
    async fn broadcast(&self, leader: &Node, seq: u64, len: usize) -> VerifiedMessage {
        let (key, message) = self.frag(seq, len);
        leader.handle.broadcast(key, message.clone()).await.unwrap();
        message
    }

    fn frag(&self, seq: u64, len: usize) -> (MessageKey, VerifiedMessage) {
        self.frag_of(1, seq, len)
    }

    fn frag_of(&self, block: u64, seq: u64, len: usize) -> (MessageKey, VerifiedMessage) {
        let frag = BlockBuilder::new(block).frag_at(seq, [vec![seq as u8; len]]);
        let key = MessageKey { block, attempt: 0, message: seq as u16 + 1 };
        (key, self.gateway.sign_verified(frag))
    }

    /// Has `leader` broadcast the first frag of a block.
    async fn broadcast_of(&self, leader: &Node, block: u64) -> VerifiedMessage {
        let (key, message) = self.frag_of(block, 0, 10_000);
        leader.handle.broadcast(key, message.clone()).await.unwrap();
        message
    }
}

/// Everything over relays.
fn relayed() -> Config {
    let route = RoutePolicy::Fixed(Route::Turbine { fanout: 2 });
    Config { route, ..Config::new(CHAIN) }
}

async fn stop_all(nodes: Vec<Node>) {
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_reach_everybody_in_spite_of_loss() {
    let (world, sockets) = World::new(5);
    let lossy =
        |i| NetConfig { drop_shreds: Some(Loss::new(0.02, i as u64)), ..NetConfig::default() };
    let mut nodes = world.start_all(sockets, lossy).await;
    for seq in 0..5 {
        let message = world.broadcast(&nodes[0], seq, 10_000).await;
        for node in &mut nodes[1..] {
            let delivered = node.message().await;
            assert_eq!(delivered.message, message);
            assert!(delivered.times.latency().is_some());
        }
    }
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_are_more_than_connections_hear_everything_over_a_few() {
    let (world, sockets) = World::new(12);
    let most = 6;
    let start = |(index, socket)| {
        let config = Config { connections: most, ..relayed() };
        let limits = Limits { connections: most, ..NetConfig::default().limits };
        world.start_with(index, socket, &NetConfig { limits, ..NetConfig::default() }, config)
    };
    let mut nodes: Vec<Node> = sockets.into_iter().enumerate().map(start).collect();
    for node in &nodes {
        // Two neighbours to each side on the ring.
        node.connected_to(4).await;
        let wanted = node.handle.snapshot().wanted;
        assert!(wanted.is_some_and(|wanted| (4..=most).contains(&wanted)), "{wanted:?}");
    }
    for seq in 0..3 {
        let message = world.broadcast(&nodes[0], seq, 10_000).await;
        for node in &mut nodes[1..] {
            assert_eq!(node.message().await.message, message);
        }
    }
    // One that was lost on a slow machine comes back.
    for node in &nodes {
        node.until(|snapshot| (4..=most).contains(&snapshot.connected)).await;
    }
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_code_makes_up_for_is_repaired() {
    let (world, sockets) = World::new(5);
    // Half of all shreds; the code is made for 2 %.
    let lossy =
        |i| NetConfig { drop_shreds: Some(Loss::new(0.5, i as u64)), ..NetConfig::default() };
    let mut nodes = world.start_all(sockets, lossy).await;
    let mut repaired = 0;
    for seq in 0..5 {
        let message = world.broadcast(&nodes[0], seq, 100_000).await;
        for node in &mut nodes[1..] {
            let delivered = node.message().await;
            assert_eq!(delivered.message, message);
            repaired += usize::from(delivered.via == Via::Repair);
        }
    }
    assert!(repaired > 0);
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_no_datagrams_is_served_on_streams() {
    let (world, sockets) = World::new(3);
    let streams_alone = |i| NetConfig { datagrams: i != 2, ..NetConfig::default() };
    let mut nodes = world.start_all(sockets, streams_alone).await;
    for seq in 0..3 {
        let message = world.broadcast(&nodes[0], seq, 30_000).await;
        assert_eq!(nodes[1].message().await.message, message);
        assert_eq!(nodes[2].message().await.message, message);
    }
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_is_taken_back() {
    let (world, sockets) = World::new(3);
    let address = sockets[2].local_addr().unwrap();
    let mut nodes = world.start_all(sockets, |_| NetConfig::default()).await;
    nodes.pop().unwrap().stop().await;
    let message = world.broadcast(&nodes[0], 0, 10_000).await;
    assert_eq!(nodes[1].message().await.message, message);

    // A driver that has ended has closed its socket; another test may have its port for a while.
    let socket = soon(async {
        loop {
            match bind(address) {
                Ok(socket) => return socket,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    let back = world.start(2, socket, &NetConfig::default());
    nodes.push(back);
    for node in &nodes {
        node.connected_to(2).await;
    }
    let message = world.broadcast(&nodes[0], 1, 10_000).await;
    assert_eq!(nodes[2].message().await.message, message);
    assert_eq!(nodes[1].message().await.message, message);
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_off_comes_back_over_the_same_connection() {
    let (world, sockets) = World::new(2);
    let cut = Arc::new(AtomicBool::new(false));
    let net = |i| NetConfig {
        cut: (i == 1).then(|| cut.clone()),
        idle_timeout: GUARD * 2,
        ..NetConfig::default()
    };
    let mut nodes = world.start_all(sockets, net).await;
    let message = world.broadcast(&nodes[0], 0, 10_000).await;
    assert_eq!(nodes[1].message().await.message, message);
    let before = nodes[0].handle.snapshot().calls;

    cut.store(true, Ordering::Relaxed);
    // What was under way before.
    tokio::time::sleep(Duration::from_millis(50)).await;
    while nodes[1].events.try_recv().is_ok() {}
    let message = world.broadcast(&nodes[0], 1, 10_000).await;
    let silence = Duration::from_millis(500);
    assert!(tokio::time::timeout(silence, nodes[1].message()).await.is_err());

    cut.store(false, Ordering::Relaxed);
    // By repair: its shreds were lost.
    assert_eq!(nodes[1].message().await.message, message);
    let message = world.broadcast(&nodes[0], 2, 10_000).await;
    assert_eq!(nodes[1].message().await.message, message);
    assert_eq!(nodes[0].handle.snapshot().calls, before);
    stop_all(nodes).await;
}

/// A world of its own, in which a stranger is a member and knows the address of node 0.
fn strange(world: &World) -> World {
    let (mut other, _) = World::new(2);
    other.identities[1] = SigningKey::from_bytes(&[77; 32]);
    let stranger = member(&other.identities[1], SocketAddr::from(([127, 0, 0, 1], 9)));
    let known = world
        .members
        .members()
        .iter()
        .find(|m| m.peer() == PeerId(world.identities[0].verifying_key().to_bytes()));
    other.members =
        Arc::new(Membership::new(CHAIN, vec![known.unwrap().clone(), stranger]).unwrap());
    other
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_refused_in_the_handshake() {
    let (world, mut sockets) = World::new(2);
    let victim = world.start(0, sockets.remove(0), &NetConfig::default());
    let other = strange(&world);
    let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let intruder = other.start(1, socket, &NetConfig::default());
    let snapshot = victim.until(|snapshot| calls(snapshot, "handshake_failed") > 0).await;
    assert_eq!(snapshot.connected, 0);
    stop_all(vec![intruder, victim]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_calls_in_vain_again_and_again_is_not_answered_and_members_beside_it_are() {
    let (world, mut sockets) = World::new(2);
    let victim = world.start(0, sockets.remove(0), &NetConfig::default());
    let other = strange(&world);
    let at_once = Duration::from_millis(1);
    let config = NetConfig { backoff: (at_once, at_once), ..NetConfig::default() };
    let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let intruder = other.start(1, socket, &config);
    let snapshot = victim.until(|snapshot| calls(snapshot, "ignored") > 0).await;
    assert_eq!(snapshot.connected, 0);
    // From the same address, but from the port that its record lists.
    let member = world.start(1, sockets.remove(0), &NetConfig::default());
    victim.connected_to(1).await;
    stop_all(vec![intruder, member, victim]).await;
}

/// quinn keeps what is left of a handshake for three seconds after it was given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_in_the_middle_of_a_call_leaves_its_port_free() {
    let sink = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut world, _) = World::new(2);
    world.all_at(sink.local_addr().unwrap());
    // At an address of its own, where the system gives it, so that no other test takes the port before
    // it is looked at. To try until it is free would show nothing: in three seconds it would be.
    let own = SocketAddr::from(([127, 0, 0, if cfg!(target_os = "linux") { 78 } else { 1 }], 0));
    let socket = bind(own).unwrap();
    let address = socket.local_addr().unwrap();
    let node = world.start(0, socket, &NetConfig::default());
    soon(sink.recv_from(&mut [0; 2_048])).await.unwrap();
    node.stop().await;
    bind(address).expect("its port is free");
}

/// The first packets of so many calls: whoever sends them on begins as many handshakes, and goes on
/// with none.
#[cfg(target_os = "linux")]
async fn first_packets(count: u8) -> Vec<Vec<u8>> {
    let sink = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut world, mut sockets) = World::new(count + 1);
    world.all_at(sink.local_addr().unwrap());
    // Both ends' limit holds: a short one of the caller's would end what is to stay open.
    let net = NetConfig { idle_timeout: GUARD * 20, ..NetConfig::default() };
    let caller = world.start(count.into(), sockets.pop().unwrap(), &net);
    let mut packets = std::collections::BTreeMap::new();
    let mut bytes = [0; 2_048];
    while packets.len() < usize::from(count) {
        let (len, _) = soon(sink.recv_from(&mut bytes)).await.unwrap();
        let packet = &bytes[..len];
        // A long header of an Initial: version, and the connection id that the caller has drawn.
        if packet[0] & 0xf0 == 0xc0 {
            let id = packet[6..6 + usize::from(packet[5])].to_vec();
            packets.entry(id).or_insert_with(|| packet.to_vec());
        }
    }
    caller.stop().await;
    packets.into_values().collect()
}

/// As many handshakes are begun as there are places, from one address and from many, and stay open.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_are_not_gone_on_with_keep_out_no_member_and_nobody_who_answers_a_retry() {
    let (world, mut sockets) = World::new(3);
    let limits = Limits { handshake_timeout: GUARD * 20, ..Limits::default() };
    let net = NetConfig { limits, idle_timeout: GUARD * 20, ..NetConfig::default() };
    let at = sockets[0].local_addr().unwrap();
    let victim = world.start(0, sockets.remove(0), &net);
    let packets = first_packets(96).await;
    assert!(packets.len() > limits.handshakes);
    let attacker = |last: u8| UdpSocket::bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
    let one = attacker(9);
    // What has no place is told to show that it receives what is sent to its address.
    let mut sent = 0;
    for (n, packet) in packets.iter().enumerate() {
        let many = n >= 48;
        let socket = if many { &attacker(n as u8 + 10) } else { &one };
        socket.send_to(packet, at).unwrap();
        sent += 1;
        // Two places of a host without that, and four of a network.
        let open = match many {
            false => 2,
            true => 4.min(2 + sent - 48),
        };
        if sent > open {
            victim.until(|snapshot| calls(snapshot, "retried") >= sent - open).await;
        }
    }
    let before = victim.handle.snapshot();
    let retried = calls(&before, "retried");
    assert!(retried >= sent - 4, "places are left for others");
    // A member at its address, and one whose address nobody knows.
    let mut member = world.start(1, sockets.remove(0), &NetConfig::default());
    let elsewhere = bind(SocketAddr::from(([127, 0, 0, 77], 0))).unwrap();
    let mut elsewhere = world.start(2, elsewhere, &NetConfig::default());
    let after = victim.until(|snapshot| snapshot.connected == 2).await;
    assert!(calls(&after, "retried") > retried, "it had to show that it is there");
    let refused = ["refused_total", "refused_address", "refused_network"];
    assert_eq!(refused.map(|reason| calls(&after, reason)), [0; 3]);
    let message = world.broadcast(&victim, 0, 10_000).await;
    assert_eq!(member.message().await.message, message);
    assert_eq!(elsewhere.message().await.message, message);
    stop_all(vec![member, elsewhere, victim]).await;
}

/// Blocks from 5 on have a member more and a member less.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_by_a_second_epoch_is_connected_and_who_leaves_is_not() {
    let (world, sockets) = World::new(3);
    let mut sockets = sockets.into_iter();
    let (old, new) = (world.epoch(0, &[0, 1]), world.epoch(5, &[0, 2]));
    let mut start = |epochs, index| world.start_in(epochs, index, sockets.next().unwrap());
    let mut leader = start(vec![old.clone()], 0);
    let mut leaves = start(vec![old.clone()], 1);
    let mut joins = start(vec![old.clone(), new.clone()], 2);
    leader.connected_to(1).await;
    leaves.connected_to(1).await;
    let message = world.broadcast_of(&leader, 1).await;
    assert_eq!(leaves.message().await.message, message);
    // Nobody knows it yet.
    leader.until(|snapshot| calls(snapshot, "handshake_failed") > 0).await;
    // To itself it is connected for the moment that the refusal takes.
    joins.until(|snapshot| snapshot.connected == 0).await;

    for node in [&leader, &leaves] {
        node.handle.epoch(new.clone()).await.unwrap();
        let again = node.handle.epoch(new.clone()).await;
        assert!(matches!(again, Err(EpochRefused::Epoch(EpochError::Order { .. }))), "{again:?}");
    }
    assert_eq!(leader.handle.epochs().epochs().len(), 2);
    // Both epochs live: each message goes to the members of its block's.
    leader.connected_to(2).await;
    leaves.connected_to(2).await;
    joins.connected_to(2).await;
    let message = world.broadcast_of(&leader, 2).await;
    assert_eq!(leaves.message().await.message, message);
    let message = world.broadcast_of(&leader, 5).await;
    assert_eq!(joins.message().await.message, message);

    // The chain goes on: nobody needs the first epoch any more.
    for node in [&leader, &joins] {
        node.handle.head(200).await;
        let snapshot = node.until(|snapshot| snapshot.epochs.len() == 1).await;
        let gone = node.until(|snapshot| snapshot.connected == 1).await;
        assert_eq!((snapshot.epochs[0].from_block, gone.members, gone.wanted), (5, 2, Some(1)));
    }
    // It calls again, and is refused.
    let before = calls(&leader.handle.snapshot(), "handshake_failed");
    leader.until(|snapshot| calls(snapshot, "handshake_failed") > before).await;
    assert_eq!(leader.handle.snapshot().connected, 1);
    let message = world.broadcast_of(&leader, 201).await;
    assert_eq!(joins.message().await.message, message);

    let told = leader.epochs();
    let id = |index| world.peer(index);
    assert_eq!(told[0], (Some(5), None, vec![id(2)], vec![]));
    assert_eq!(told[1], (None, Some(0), vec![], vec![id(1)]));
    stop_all(vec![leader, leaves, joins]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_waits_for_room_instead_of_failing() {
    let (world, sockets) = World::new(2);
    // A second of sending, of which the lanes hold a twentieth.
    let (uplink_bps, lane_capacity) = (20_000_000, 128 * 1024);
    let config = Config { uplink_bps, lane_capacity, ..Config::new(CHAIN) };
    let start =
        |(index, socket)| world.start_with(index, socket, &NetConfig::default(), config.clone());
    let mut nodes: Vec<Node> = sockets.into_iter().enumerate().map(start).collect();
    nodes[0].connected_to(1).await;
    let leader = nodes[0].handle.clone();
    let frags: Vec<_> = (0..40).map(|seq| world.frag(seq, 50_000)).collect();
    let sending = async {
        for (key, message) in &frags {
            leader.broadcast(*key, message.clone()).await.unwrap();
        }
    };
    // What is lost on a busy loopback is repaired.
    let taking = async {
        let mut missing: BTreeSet<_> = frags.iter().map(|(key, _)| *key).collect();
        while !missing.is_empty() {
            let delivered = nodes[1].message().await;
            assert!(missing.remove(&delivered.key), "{:?} came twice", delivered.key);
        }
    };
    soon(async { tokio::join!(sending, taking) }).await;
    drop(leader);
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_and_the_protocol_hear_each_other() {
    let (world, mut sockets) = World::new(1);
    let gossip = GossipConfig { policy: Policy::Standby, ..GossipConfig::default() };
    let config = Config { gossip, ..Config::new(CHAIN) };
    let me = PeerId(world.identities[0].verifying_key().to_bytes());
    let schedule = Schedule::new(vec![world.gateway.address()], 30).unwrap();
    let delegation = [world.delegation];
    let protocol =
        Protocol::new(config, &me, world.members.clone(), schedule, delegation, None).unwrap();
    let identity = world.identities[0].clone();
    let running = spawn(protocol, identity, sockets.remove(0), &NetConfig::default()).unwrap();
    let Running { handle, events, task, gossip: mut link } = running;
    assert_eq!(handle.snapshot().fallback.policy, Policy::Standby);

    handle.set_mode(Mode::Gossip).await;
    let action = soon(link.actions.recv()).await;
    assert_eq!(action, Some(GossipAction::Listen(true)));
    handle.set_mode(Mode::Turbine).await;
    let action = soon(link.actions.recv()).await;
    assert_eq!(action, Some(GossipAction::Listen(false)));
    handle.set_policy(Policy::Always).await;
    handle.set_mode(Mode::Auto).await;
    let action = soon(link.actions.recv()).await;
    assert_eq!(action, Some(GossipAction::Listen(true)));
    let fallback = handle.snapshot().fallback;
    assert_eq!((fallback.policy, fallback.listening), (Policy::Always, true));
    drop((link, events, handle));
    soon(task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_gossip_brings_comes_out_and_is_published_for_listeners() {
    let (world, sockets) = World::new(2);
    let gossip = GossipConfig { policy: Policy::Always, ..GossipConfig::default() };
    let mut all = Vec::new();
    for (index, socket) in sockets.into_iter().enumerate() {
        let identity = world.identities[index].clone();
        let protocol = Protocol::new(
            Config { gossip, ..Config::new(CHAIN) },
            &PeerId(identity.verifying_key().to_bytes()),
            world.members.clone(),
            Schedule::new(vec![world.gateway.address()], 30).unwrap(),
            [world.delegation],
            (index == 0).then(|| world.leader.clone()),
        );
        all.push(spawn(protocol.unwrap(), identity, socket, &NetConfig::default()).unwrap());
    }
    let (mut follower, mut leader) = (all.pop().unwrap(), all.pop().unwrap());
    let (key, message) = world.frag(0, 1000);
    leader.handle.broadcast(key, message.clone()).await.unwrap();
    // More than the queue of actions holds: the rest waits in the protocol.
    for seq in 1..40 {
        let (key, message) = world.frag(seq, 1000);
        leader.handle.broadcast(key, message).await.unwrap();
    }
    let mut published = Vec::new();
    while published.len() < 40 {
        let action = soon(leader.gossip.actions.recv()).await.expect("the driver runs");
        if let GossipAction::Publish { wire, .. } = action {
            published.push(wire);
        }
    }
    assert_eq!(published[0], message.to_wire());

    let env = fragcast_turbine::testing::env(2).message().clone();
    let other = world.gateway.sign(env).verify(world.gateway.address()).unwrap();
    let input = GossipInput::Message { message: Box::new(other.clone()), forwarded: true };
    follower.gossip.inputs.send(input).await.unwrap();
    loop {
        match soon(follower.events.recv()).await.expect("the driver runs") {
            Event::Message { delivered, .. } if delivered.message == other => {
                assert_eq!(delivered.via, Via::Gossip);
                break;
            }
            _ => {}
        }
    }
    // And the gate learns where the chain is.
    let wait = follower.gossip.outlook.wait_for(|outlook| outlook.window.1 == 2 + WINDOW_FUTURE);
    soon(wait).await.unwrap();
}

/// A NAT between a node and those that it calls: it sends what comes to the address that it returns on
/// to `to`, from another port after each time that it is told to.
async fn nat(to: SocketAddr, rebind: Arc<Notify>) -> SocketAddr {
    let any = "127.0.0.1:0";
    let inside = tokio::net::UdpSocket::bind(any).await.unwrap();
    let mut outside = tokio::net::UdpSocket::bind(any).await.unwrap();
    let address = inside.local_addr().unwrap();
    tokio::spawn(async move {
        let mut caller = None;
        let (mut out, mut back) = ([0; 2_048], [0; 2_048]);
        loop {
            tokio::select! {
                came = inside.recv_from(&mut out) => {
                    let Ok((len, from)) = came else { continue };
                    caller = Some(from);
                    let _ = outside.send_to(&out[..len], to).await;
                }
                came = outside.recv_from(&mut back) => {
                    let (Ok((len, _)), Some(caller)) = (came, caller) else { continue };
                    let _ = inside.send_to(&back[..len], caller).await;
                }
                () = rebind.notified() => {
                    outside = tokio::net::UdpSocket::bind(any).await.unwrap();
                }
            }
        }
    });
    address
}

/// A member whose port changed on the way was deaf until its connection had timed out, after six
/// seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_behind_a_nat_that_rebinds_keeps_its_connection() {
    let (mut world, mut sockets) = World::new(2);
    let rebind = Arc::new(Notify::new());
    let door = nat(sockets[0].local_addr().unwrap(), Arc::clone(&rebind)).await;
    // Nobody can call the one behind the NAT.
    let hole = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let at = [door, hole.local_addr().unwrap()];
    let members = world.identities.iter().zip(at).map(|(identity, at)| member(identity, at));
    world.members = Arc::new(Membership::new(CHAIN, members.collect()).unwrap());
    let mut behind = world.start(1, sockets.remove(1), &NetConfig::default());
    let leader = world.start(0, sockets.remove(0), &NetConfig::default());
    leader.connected_to(1).await;
    behind.connected_to(1).await;
    for seq in 0..4 {
        let message = world.broadcast(&leader, seq, 5_000).await;
        assert_eq!(behind.message().await.message, message, "after {seq} changes of its port");
        rebind.notify_one();
    }
    let snapshot = leader.until(|snapshot| snapshot.connected == 1).await;
    assert_eq!(calls(&snapshot, "accepted"), 1, "one connection, all the time");
    stop_all(vec![behind, leader]).await;
}

/// The addresses of a record were tried one after the other, each for as long as a handshake may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_does_not_answer_keeps_nobody_from_the_next() {
    let (mut world, mut sockets) = World::new(2);
    let holes: Vec<UdpSocket> =
        (0..2).map(|_| bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()).collect();
    let own = sockets[0].local_addr().unwrap();
    let holes_at = holes.iter().map(|hole| hole.local_addr().unwrap());
    let addresses: Vec<SocketAddr> = holes_at.clone().chain([own]).collect();
    let members = [addresses, holes_at.collect()];
    let members = world.identities.iter().zip(members).map(|(id, at)| member_at(id, &at));
    world.members = Arc::new(Membership::new(CHAIN, members.collect()).unwrap());
    // A single one of the first two would take longer than the guard.
    let limits = Limits { handshake_timeout: GUARD * 20, ..Limits::default() };
    let net = NetConfig { limits, ..NetConfig::default() };
    let caller = world.start(1, sockets.remove(1), &net);
    let called = world.start(0, sockets.remove(0), &net);
    caller.connected_to(1).await;
    stop_all(vec![caller, called]).await;
}

/// One member listens on both families, one has IPv4 alone and one IPv6 alone; each calls the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_both_families_is_reached_over_either() {
    let (Ok(both), Ok(six)) = (bind("[::]:0".parse().unwrap()), bind("[::1]:0".parse().unwrap()))
    else {
        println!("SKIPPED: this machine has no IPv6");
        return;
    };
    let (mut world, mut sockets) = World::new(3);
    let (port, four) = (both.local_addr().unwrap().port(), sockets.remove(1));
    let at = [
        vec![
            SocketAddr::from(([127, 0, 0, 1], port)),
            SocketAddr::new("::1".parse().unwrap(), port),
        ],
        vec![four.local_addr().unwrap()],
        vec![six.local_addr().unwrap()],
    ];
    let members = world.identities.iter().zip(at).map(|(id, at)| member_at(id, &at));
    world.members = Arc::new(Membership::new(CHAIN, members.collect()).unwrap());
    let mut nodes: Vec<Node> = [both, four, six]
        .into_iter()
        .enumerate()
        .map(|(index, socket)| world.start(index, socket, &NetConfig::default()))
        .collect();
    nodes[0].connected_to(2).await;
    let message = world.broadcast(&nodes[0], 0, 5_000).await;
    for node in &mut nodes[1..] {
        assert_eq!(node.message().await.message, message);
    }
    stop_all(nodes).await;
}

#[tokio::test]
async fn the_identity_must_be_the_protocols() {
    let (world, mut sockets) = World::new(2);
    let protocol = Protocol::new(
        Config::new(CHAIN),
        &PeerId(world.identities[0].verifying_key().to_bytes()),
        world.members.clone(),
        Schedule::new(vec![world.gateway.address()], 30).unwrap(),
        [world.delegation],
        None,
    );
    let wrong = world.identities[1].clone();
    let result = spawn(protocol.unwrap(), wrong, sockets.remove(0), &NetConfig::default());
    assert!(result.is_err());
}
