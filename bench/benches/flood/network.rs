//! Four nodes with sockets on loopback, of which the first leads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fragcast_shredder::{BlockBuilder, Dialect, Frag, GatewayKey, Message, MessageKey};
use fragcast_turbine::membership::RecordBody;
use fragcast_turbine::net::gossip::{Addresses, GossipHandle, GossipNetConfig};
use fragcast_turbine::net::{Handle, NetConfig, Running, bind, gossip, spawn};
use fragcast_turbine::protocol::Setup;
use fragcast_turbine::{
    Config, Delegation, Event, GossipConfig, Member, Membership, PeerId, Policy, Route,
    RoutePolicy, Schedule, SignedDelegation,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The chain.
pub(crate) const CHAIN: u64 = 901;
/// Blocks of a term: the flooding member's gateway leads the term before the first block.
pub(crate) const TERM: u64 = 30;
/// The first block is one more than this.
pub(crate) const BASE: u64 = 2 * TERM;
/// The node that is flooded.
pub(crate) const VICTIM: usize = 1;
/// Nodes; the member after the last is the one that floods.
const NODES: usize = 4;
/// Frags of a block, and the time between two.
const FRAGS: u64 = 10;
const PAUSE: Duration = Duration::from_millis(50);
/// A frag of usual size.
const FRAG_LEN: usize = 36_000;
/// Only guards against hanging.
const GUARD: Duration = Duration::from_secs(60);

/// The identity of a member.
pub(crate) fn identity(member: usize) -> SigningKey {
    SigningKey::from_bytes(&[member as u8 + 1; 32])
}

/// The key of a gateway: 0 is honest, 1 floods.
pub(crate) fn gateway(number: u8) -> GatewayKey {
    GatewayKey::from_bytes([number + 11; 32]).expect("a key")
}

/// The key of a gateway's leader.
pub(crate) fn leader(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number + 21; 32])
}

/// The peer id of a member.
pub(crate) fn peer(member: usize) -> PeerId {
    PeerId(identity(member).verifying_key().to_bytes())
}

/// A gateway's delegation to the member that leads for it.
pub(crate) fn delegation(number: u8) -> SignedDelegation {
    let peer = peer(if number == 0 { 0 } else { NODES });
    let key = leader(number).verifying_key().to_bytes();
    let range = (0, u64::MAX);
    let (first, last) = range;
    Delegation { chain_id: CHAIN, first, last, sequence: 1, peer, key }.sign(&gateway(number))
}

struct Node {
    handle: Handle,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<bool>,
}

/// The nodes.
pub(crate) struct Network {
    nodes: Vec<Node>,
    gossip: (GossipHandle, JoinHandle<()>),
}

impl Network {
    /// Starts all nodes, and waits until each is connected to each.
    pub(crate) async fn start() -> Self {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let sockets: Vec<_> = (0..NODES).map(|_| bind(local).expect("a port")).collect();
        let address = |member: usize| match sockets.get(member) {
            Some(socket) => socket.local_addr().expect("it is bound"),
            // Nobody answers there: the flooding member calls.
            None => SocketAddr::from(([127, 0, 0, 1], 9)),
        };
        let members = (0..=NODES).map(|member| {
            let body = RecordBody {
                chain_id: CHAIN,
                peer: peer(member),
                sequence: 1,
                uplink_kbps: 0,
                coordinates: [0; 4],
                addresses: vec![address(member).into()],
            };
            Member::new(body.sign(&identity(member)), 1)
        });
        let members = Arc::new(Membership::new(CHAIN, members.collect()).expect("records"));
        let gateways = [gateway(0).address(), gateway(1).address()];
        let schedule = Schedule::new(gateways.into(), TERM).expect("two gateways");
        let setup = |policy| {
            let config = Config {
                route: RoutePolicy::Fixed(Route::Turbine { fanout: 2 }),
                gossip: GossipConfig { policy, ..GossipConfig::default() },
                ..Config::new(CHAIN)
            };
            let delegations = [delegation(0), delegation(1)];
            Setup::new(config, members.clone(), schedule.clone(), delegations).expect("valid")
        };
        let mut nodes = Vec::new();
        let mut started = None;
        for (index, socket) in sockets.into_iter().enumerate() {
            let policy = if index == VICTIM { Policy::Always } else { Policy::Off };
            let key = (index == 0).then(|| leader(0));
            let protocol = setup(policy).node(&peer(index), key).expect("a member");
            let running = spawn(protocol, identity(index), socket, &NetConfig::default());
            let Running { handle, events, task, gossip: link } = running.expect("it starts");
            if index == VICTIM {
                let config = GossipNetConfig {
                    listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("a multiaddr")],
                    ..GossipNetConfig::new(CHAIN)
                };
                let identity = identity(index);
                let none = Addresses::default();
                let up = gossip::spawn(config, &identity, Dialect::V0, none, link).await;
                started = Some(up.expect("gossip starts"));
            }
            nodes.push(Node { handle, events, task });
        }
        for node in &nodes {
            let all = node.handle.wait_for(|snapshot| snapshot.connected >= NODES - 1);
            tokio::time::timeout(GUARD, all).await.expect("in time").expect("it runs");
        }
        Self { nodes, gossip: started.expect("the victim has gossip") }
    }

    /// Where the victim is called, over UDP and by gossip.
    pub(crate) fn victim(&self) -> (SocketAddr, String) {
        let gossip = self.gossip.0.listen_addrs().first().map(ToString::to_string);
        (self.nodes[VICTIM].handle.local_addr(), gossip.expect("it listens"))
    }

    /// Sends a block. Returns the latency of each message at each follower, µs.
    pub(crate) async fn block(&mut self, number: u64) -> Vec<(usize, u64)> {
        let number = BASE + number;
        let builder = BlockBuilder::new(number);
        let mut messages: Vec<Message> = vec![builder.env().into()];
        for seq in 0..FRAGS {
            let txs = [fragcast_bench::payload(FRAG_LEN), vec![number as u8, seq as u8]];
            let frag = builder.frag_at(seq, txs);
            messages.push(Frag { is_last: seq + 1 == FRAGS, ..frag }.into());
        }
        messages.push(builder.seal_of(FRAGS).into());
        let mut latencies = Vec::new();
        for (index, message) in messages.into_iter().enumerate() {
            let key = MessageKey { block: number, attempt: 0, message: index as u16 };
            let signed = gateway(0).sign_verified(message);
            let sent = self.nodes[0].handle.broadcast(key, signed).await;
            sent.expect("it leads, and its lanes have room");
            for (node, latency) in self.arrived(key).await {
                latencies.push((node, latency));
            }
            tokio::time::sleep(PAUSE).await;
        }
        latencies
    }

    /// Waits until every follower has a message.
    async fn arrived(&mut self, key: MessageKey) -> Vec<(usize, u64)> {
        let mut latencies = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            // The leader's own events are of others.
            if index == 0 {
                while node.events.try_recv().is_ok() {}
                continue;
            }
            loop {
                let event = tokio::time::timeout(GUARD, node.events.recv()).await;
                let event = event.expect("in time").expect("the driver runs");
                if let Event::Message { delivered, .. } = event
                    && delivered.key == key
                {
                    let took = delivered.times.latency().unwrap_or_default();
                    latencies.push((index, took.as_micros() as u64));
                    break;
                }
            }
        }
        latencies
    }

    /// Bytes in the victim's tables.
    pub(crate) async fn victim_tables(&self) -> usize {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let snapshot = self.nodes[VICTIM].handle.snapshot();
        snapshot.reassembly_bytes + snapshot.repair_bytes
    }

    /// Ends all nodes.
    pub(crate) async fn stop(self) {
        let (gossip, task) = self.gossip;
        drop(gossip);
        for node in self.nodes {
            node.handle.shutdown().await;
            drop((node.handle, node.events));
            let _ = tokio::time::timeout(GUARD, node.task).await;
        }
        task.abort();
    }
}
