//! Guests on loopback: strangers that a member lets in over real QUIC, and how many.
//!
//! Time limits only guard against hanging.
#![cfg(feature = "net")]
#![expect(clippy::disallowed_types, reason = "the driver's tests need sockets")]

use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fragcast_shredder::{BlockBuilder, GatewayKey, MessageKey, VerifiedMessage};
use fragcast_turbine::control::{Control, RepairRequest, WHOLE};
use fragcast_turbine::membership::RecordBody;
use fragcast_turbine::net::{
    Handle, Limits, NetConfig, Running, Snapshot, bind, client_config, spawn,
};
use fragcast_turbine::protocol::Setup;
use fragcast_turbine::{
    Config, Delegation, Delivered, Event, Member, Membership, PeerId, Schedule,
};
use quinn::{Connection, Endpoint};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const CHAIN: u64 = 7;
const GUARD: Duration = Duration::from_secs(120);

async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, event).await.expect("in time")
}

struct Node {
    handle: Handle,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<bool>,
}

impl Node {
    async fn message(&mut self) -> Arc<Delivered> {
        loop {
            let event = soon(self.events.recv()).await.expect("the driver runs");
            if let Event::Message { delivered, .. } = event {
                return delivered;
            }
        }
    }

    async fn until(&self, fine: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        soon(self.handle.wait_for(fine)).await.expect("the driver runs")
    }

    async fn stop(self) {
        drop((self.handle, self.events));
        assert!(soon(self.task).await.unwrap(), "its socket is closed");
    }
}

/// Members of which the first leads, with room for so many guests.
struct World {
    identities: Vec<SigningKey>,
    addresses: Vec<SocketAddr>,
    gateway: GatewayKey,
    leader: SigningKey,
    setup: Setup,
    guests: usize,
}

fn identity(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn id(identity: &SigningKey) -> PeerId {
    PeerId(identity.verifying_key().to_bytes())
}

impl World {
    fn new(n: u8, guests: usize) -> (Self, Vec<UdpSocket>) {
        let sockets: Vec<UdpSocket> =
            (0..n).map(|_| bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()).collect();
        let addresses: Vec<SocketAddr> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
        let identities: Vec<SigningKey> = (1..=n).map(identity).collect();
        let members = identities.iter().zip(&addresses).map(|(key, at)| {
            let body = RecordBody {
                chain_id: CHAIN,
                peer: id(key),
                sequence: 1,
                uplink_kbps: 0,
                coordinates: [0; 4],
                addresses: vec![(*at).into()],
            };
            Member::new(body.sign(key), 1)
        });
        let members = Arc::new(Membership::new(CHAIN, members.collect()).unwrap());
        let gateway = GatewayKey::from_bytes([5; 32]).unwrap();
        let leader = identity(99);
        let delegation = Delegation {
            chain_id: CHAIN,
            first: 0,
            last: u64::MAX,
            sequence: 1,
            peer: id(&identities[0]),
            key: leader.verifying_key().to_bytes(),
        };
        let schedule = Schedule::new(vec![gateway.address()], 30).unwrap();
        let config = Config { guests, ..Config::new(CHAIN) };
        let setup = Setup::new(config, members, schedule, [delegation.sign(&gateway)]).unwrap();
        (Self { identities, addresses, gateway, leader, setup, guests }, sockets)
    }

    fn net(&self) -> NetConfig {
        let limits = Limits { guests: self.guests, ..Limits::default() };
        NetConfig { limits, ..NetConfig::default() }
    }

    /// A node with any identity: a guest if no member has it.
    fn start(&self, key: &SigningKey, socket: UdpSocket) -> Node {
        let leader = (id(key) == id(&self.identities[0])).then(|| self.leader.clone());
        let protocol = self.setup.guest(&id(key), leader);
        let running = spawn(protocol, key.clone(), socket, &self.net()).unwrap();
        let Running { handle, events, task, .. } = running;
        Node { handle, events, task }
    }

    async fn start_members(&self, sockets: Vec<UdpSocket>) -> Vec<Node> {
        let keys = self.identities.iter();
        let nodes: Vec<Node> = keys.zip(sockets).map(|(key, s)| self.start(key, s)).collect();
        for node in &nodes {
            node.until(|snapshot| snapshot.connected + 1 >= nodes.len()).await;
        }
        nodes
    }

    async fn broadcast(&self, leader: &Node, seq: u64, len: usize) -> VerifiedMessage {
        let frag = BlockBuilder::new(1).frag_at(seq, [vec![seq as u8; len]]);
        let key = MessageKey { block: 1, attempt: 0, message: seq as u16 + 1 };
        let message = self.gateway.sign_verified(frag);
        leader.handle.broadcast(key, message.clone()).await.unwrap();
        message
    }

    /// Calls member 0 as somebody, from an endpoint of its own.
    async fn call(&self, key: &SigningKey) -> Option<(Endpoint, Connection)> {
        let config = client_config(key, id(&self.identities[0]), &self.net()).unwrap();
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let calling = endpoint.connect_with(config, self.addresses[0], "fragcast").unwrap();
        let connection = soon(calling).await.ok()?;
        Some((endpoint, connection))
    }
}

fn any() -> UdpSocket {
    bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_follows_as_a_guest_and_is_forgotten_when_it_goes() {
    // As many as a guest holds.
    let (world, sockets) = World::new(3, 4);
    let mut nodes = world.start_members(sockets).await;
    let key = identity(77);
    let mut guest = world.start(&key, any());
    guest.until(|snapshot| snapshot.attached.as_ref().is_some_and(|a| a.granted)).await;
    for seq in 0..5 {
        let message = world.broadcast(&nodes[0], seq, 20_000).await;
        for node in &mut nodes[1..] {
            assert_eq!(node.message().await.message, message);
        }
        assert_eq!(guest.message().await.message, message);
    }
    assert_eq!(guest.handle.snapshot().wanted, None);
    for node in &nodes {
        // All of them at once, whenever that is: connections come and go while nodes find each other.
        let all = |snapshot: &Snapshot| {
            (snapshot.guests, snapshot.connected, snapshot.members) == (1, 2, 3)
                && snapshot.wanted == Some(2)
        };
        node.until(all).await;
        assert!(node.handle.epochs().peers().key(&id(&key)).is_some());
    }
    guest.stop().await;
    for node in nodes {
        node.until(|snapshot| snapshot.guests == 0).await;
        assert!(node.handle.epochs().peers().key(&id(&key)).is_none());
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_places_lets_in_nobody() {
    let (world, sockets) = World::new(2, 0);
    let nodes = world.start_members(sockets).await;
    // TLS 1.3 lets the caller believe in the connection until the answer to its key is here.
    if let Some((_endpoint, connection)) = world.call(&identity(77)).await {
        soon(connection.closed()).await;
    }
    let refused = |snapshot: &Snapshot| {
        snapshot.calls.iter().any(|(name, count)| *name == "handshake_failed" && *count > 0)
    };
    nodes[0].until(refused).await;
    assert_eq!(nodes[0].handle.snapshot().guests, 0);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_beyond_the_places_are_sent_away_and_members_are_let_in() {
    let (world, mut sockets) = World::new(3, 2);
    let last = sockets.pop().unwrap();
    let first: Vec<Node> =
        world.identities.iter().zip(sockets).map(|(key, s)| world.start(key, s)).collect();
    first[0].until(|snapshot| snapshot.connected >= 1).await;
    let mut held = Vec::new();
    for n in 100..102 {
        held.push(world.call(&identity(n)).await.expect("a place"));
    }
    first[0].until(|snapshot| snapshot.guests == 2).await;
    let (_endpoint, connection) = world.call(&identity(102)).await.expect("a handshake");
    let why = soon(connection.closed()).await.to_string();
    assert!(why.contains("no room"), "{why}");
    // A member comes late, from the same address.
    let late = world.start(&world.identities[2], last);
    late.until(|snapshot| snapshot.connected >= 2).await;
    // A place that is given back is taken again.
    let (gone, connection) = held.pop().unwrap();
    connection.close(quinn::VarInt::from_u32(0), b"bye");
    first[0].until(|snapshot| snapshot.guests == 1).await;
    drop(gone);
    let again = world.call(&identity(103)).await.expect("a place");
    first[0].until(|snapshot| snapshot.guests == 2).await;
    drop((again, held));
    for node in first.into_iter().chain([late]) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_flood_requests_keep_nobody_from_anything() {
    let (world, sockets) = World::new(4, 8);
    let mut nodes = world.start_members(sockets).await;
    let mut calls = Vec::new();
    for n in 100..108 {
        calls.push(world.call(&identity(n)).await.expect("a place"));
    }
    nodes[0].until(|snapshot| snapshot.guests == 8).await;
    let mut flooding = Vec::new();
    for (endpoint, connection) in calls {
        flooding.push(tokio::spawn(async move {
            let mut stream = connection.open_uni().await.unwrap();
            let ask =
                RepairRequest { nonce: 1, block: 1, attempt: 0, message: 1, set: WHOLE, have: 0 };
            let frame = Control::RepairRequest(ask).to_bytes();
            let mut bytes = vec![0];
            for _ in 0..200 {
                bytes.extend((frame.len() as u32).to_le_bytes());
                bytes.extend(&frame);
            }
            if stream.write_all(&bytes).await.is_ok() {
                // Without the byte that names the stream's class.
                while stream.write_all(&bytes[1..]).await.is_ok() {}
            }
            drop(endpoint);
        }));
    }
    for seq in 0..20 {
        let message = world.broadcast(&nodes[0], seq, 30_000).await;
        for node in &mut nodes[1..] {
            assert_eq!(node.message().await.message, message);
        }
    }
    // They are held back, and no member is barred.
    let held_back = |snapshot: &Snapshot| {
        let names = ["repair_refused", "over_budget", "guest"];
        let mut outcomes = snapshot.outcomes.labels();
        outcomes.any(|(name, count)| names.contains(&name) && count > 0) && snapshot.connected == 3
    };
    nodes[0].until(held_back).await;
    flooding.iter().for_each(JoinHandle::abort);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_this_machine_a_guest_that_lies_stays_out_and_others_do_not() {
    let (world, sockets) = World::new(2, 4);
    let nodes = world.start_members(sockets).await;
    let (_lies, connection) = world.call(&identity(100)).await.expect("a place");
    nodes[0].until(|snapshot| snapshot.guests == 1).await;
    // The byte of the stream's class, a length, and an Attach that wants what there is not.
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&[0, 3, 0, 0, 0, 18, 9, 9]).await.unwrap();
    let why = soon(connection.closed()).await.to_string();
    assert!(why.contains("control_bad"), "{why}");
    nodes[0].until(|snapshot| snapshot.guests == 0).await;
    let (_again, connection) = world.call(&identity(100)).await.expect("a handshake");
    let why = soon(connection.closed()).await.to_string();
    assert!(why.contains("barred"), "{why}");
    let _other = world.call(&identity(101)).await.expect("a place");
    nodes[0].until(|snapshot| snapshot.guests == 1).await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contact_is_called_though_no_table_names_it() {
    let (world, sockets) = World::new(2, 4);
    let nodes = world.start_members(sockets).await;
    // Another network's member, which knows nobody here, and lets guests in.
    let (other, mut theirs) = World::new(2, 4);
    let far = identity(88);
    let far = other.start(&far, theirs.pop().unwrap());
    let at = far.handle.local_addr();
    let contact = id(&identity(88));
    assert!(nodes[0].handle.call(contact, vec![at]).await);
    nodes[0].until(|snapshot| snapshot.connected == 2).await;
    // Both worlds have the same keys: to the other network it is a member that calls.
    far.until(|snapshot| snapshot.connected == 1).await;
    let key = nodes[0].handle.epochs().peers().key(&contact);
    assert!(key.is_some() && nodes[0].handle.epochs().member(&contact).is_none());
    assert!(!nodes[0].handle.call(id(&world.identities[0]), vec![at]).await, "itself");
    nodes[0].handle.call_off(contact).await;
    nodes[0].until(|snapshot| snapshot.connected == 1).await;
    far.until(|snapshot| snapshot.connected == 0).await;
    assert!(nodes[0].handle.epochs().peers().key(&contact).is_none());
    far.stop().await;
    for node in nodes {
        node.stop().await;
    }
}
