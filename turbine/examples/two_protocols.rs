//! Two nodes of the protocol, stepped by hand in virtual time: no socket, no clock, no thread.
//!
//! One node leads a block and broadcasts its Env, two frags and its Seal; the other receives them
//! over a link that takes 20 ms and loses every twelfth shred. The driver of a real node does the
//! same with QUIC and the system's clock; see the contract in `fragcast_turbine::protocol`.
//!
//! ```text
//! cargo run -p fragcast-turbine --example two_protocols
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fragcast_shredder::{BlockBuilder, GatewayKey, Message, MessageKey};
use fragcast_turbine::membership::RecordBody;
use fragcast_turbine::{
    Config, Delegation, Event, Member, Membership, Payload, PeerId, PeerKey, Protocol, Schedule,
    Setup, Timestamp,
};

const CHAIN: u64 = 901;
/// One way, for every packet.
const DELAY: Duration = Duration::from_millis(20);
/// One shred in so many is lost.
const LOSS: u64 = 12;
/// The leader, and who follows it.
const LEADER: usize = 0;
const FOLLOWER: usize = 1;

fn main() -> Result<(), Box<dyn Error>> {
    run(&mut std::io::stdout())
}

fn run(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let mut network = Network::new()?;
    network.connect();

    let gateway = gateway()?;
    let block = BlockBuilder::new(1).messages([vec![vec![1; 18_000]; 2], vec![vec![2; 500]]]);
    let count = block.len();
    for message in block {
        let index = message.index().ok_or("too many frags")?;
        let key = MessageKey { block: 1, attempt: 0, message: index };
        let signed = gateway.sign_verified(message);
        network.nodes[LEADER].broadcast(network.now, key, &signed)?;
        network.drain(LEADER, out)?;
    }
    while network.delivered < count {
        network.step(out)?;
    }
    let counters = network.nodes[FOLLOWER].counters();
    writeln!(
        out,
        "{} shreds sent, {} lost; {} sets needed coding shreds, {} messages repair",
        network.shreds, network.lost, counters.recovered, counters.repaired
    )?;
    Ok(())
}

fn gateway() -> Result<GatewayKey, Box<dyn Error>> {
    Ok(GatewayKey::from_bytes([7; 32])?)
}

/// Two nodes and the packets between them.
struct Network {
    nodes: [Protocol; 2],
    /// The key by which each node knows the other.
    other: [PeerKey; 2],
    now: Timestamp,
    /// By time of arrival, then by order of sending: to whom, and what.
    in_flight: BTreeMap<(Timestamp, u64), (usize, Payload)>,
    packets: u64,
    shreds: u64,
    lost: u64,
    delivered: usize,
}

impl Network {
    fn new() -> Result<Self, Box<dyn Error>> {
        // Every member signs its own record: who it is, and where it listens.
        let identities = [1, 2].map(|seed| SigningKey::from_bytes(&[seed; 32]));
        let ids = identities.each_ref().map(|key| PeerId(key.verifying_key().to_bytes()));
        let member = |key: &SigningKey| {
            let body = RecordBody {
                chain_id: CHAIN,
                peer: PeerId(key.verifying_key().to_bytes()),
                sequence: 1,
                uplink_kbps: 1_000_000,
                coordinates: [0; 4],
                addresses: vec![SocketAddr::from(([127, 0, 0, 1], 9300)).into()],
            };
            Member::new(body.sign(key), 1)
        };
        let members = Membership::new(CHAIN, identities.iter().map(member).collect())?;

        // One gateway leads all blocks, and delegates to the first node and its leader key.
        let gateway = gateway()?;
        let leader_key = SigningKey::from_bytes(&[9; 32]);
        let delegation = Delegation {
            chain_id: CHAIN,
            first: 0,
            last: u64::MAX,
            sequence: 1,
            peer: ids[LEADER],
            key: leader_key.verifying_key().to_bytes(),
        };
        let schedule = Schedule::new(vec![gateway.address()], 30)?;
        let delegations = [delegation.sign(&gateway)];
        let setup = Setup::new(Config::new(CHAIN), Arc::new(members), schedule, delegations)?;

        let nodes =
            [setup.node(&ids[LEADER], Some(leader_key))?, setup.node(&ids[FOLLOWER], None)?];
        let key = |node: usize, of: usize| nodes[node].epochs().peers().key(&ids[of]);
        let other = [key(LEADER, FOLLOWER), key(FOLLOWER, LEADER)]
            .map(|key| key.expect("both are members"));
        Ok(Self {
            nodes,
            other,
            now: Timestamp::from_micros(1_000_000),
            in_flight: BTreeMap::new(),
            packets: 0,
            shreds: 0,
            lost: 0,
            delivered: 0,
        })
    }

    /// Tells both that a connection is up; what they say on it is sent with the next `drain`.
    fn connect(&mut self) {
        for (node, other) in self.nodes.iter_mut().zip(self.other) {
            node.handle_connected(other);
        }
    }

    /// After every call: events first, then what is to be sent.
    fn drain(&mut self, node: usize, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
        while let Some(event) = self.nodes[node].poll_event() {
            if let Event::Message { delivered, .. } = event {
                self.delivered += 1;
                let took = delivered.times.latency().unwrap_or_default();
                let what = match delivered.message.message() {
                    Message::Env(_) => "Env".to_owned(),
                    Message::Frag(frag) => format!("frag {}", frag.seq),
                    Message::Seal(_) => "Seal".to_owned(),
                };
                let len = delivered.message.to_wire().len();
                writeln!(out, "{what:6}  {len:6} bytes  after {:.1} ms", took.as_secs_f64() * 1e3)?;
            }
        }
        while let Some(transmit) = self.nodes[node].poll_transmit(self.now) {
            self.packets += 1;
            if matches!(transmit.payload, Payload::Shred(_)) {
                self.shreds += 1;
                if self.shreds.is_multiple_of(LOSS) {
                    self.lost += 1;
                    continue;
                }
            }
            let to = 1 - node;
            self.in_flight.insert((self.now + DELAY, self.packets), (to, transmit.payload));
        }
        Ok(())
    }

    /// Goes to whatever is next: a packet that arrives, or a time that a node has asked for.
    fn step(&mut self, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
        let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
        let timeouts = self.nodes.iter().filter_map(|node| node.poll_timeout(self.now));
        let next = timeouts.chain(arrival).min().ok_or("nothing is left to do")?;
        self.now = self.now.max(next);
        if arrival == Some(next)
            && let Some((_, (to, payload))) = self.in_flight.pop_first()
        {
            let (from, node) = (self.other[to], &mut self.nodes[to]);
            match payload {
                Payload::Shred(bytes) => node.handle_datagrams(self.now, [(from, bytes)]),
                Payload::Control(frame) => node.handle_control(self.now, from, &frame),
            }
        }
        for node in [LEADER, FOLLOWER] {
            self.nodes[node].handle_timeout(self.now);
            self.drain(node, out)?;
        }
        Ok(())
    }
}

#[test]
fn the_output_is_the_same_every_time() {
    let mut out = Vec::new();
    run(&mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), include_str!("two_protocols.txt"));
}
