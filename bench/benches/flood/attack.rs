//! The flooding process.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fragcast_shredder::{
    BlockBuilder, CodeRate, Commitment, EquivocationProof, LossTarget, MessageKey, MessageParams,
    ShreddedSet, Shredder, Timestamp,
};
use fragcast_turbine::control::{Hello, RepairRequest, Tip, Tips, WHOLE};
use fragcast_turbine::net::{NetConfig, client_config};
use fragcast_turbine::{Control, Evidence};
use quinn::{Connection, Endpoint};

use crate::junk::{self, Junk};
use crate::network::{BASE, CHAIN, TERM, VICTIM, delegation, gateway, identity, leader, peer};

/// What is flooded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: the process is connected and silent. Its row shows what the ratios of one run vary
    /// by on this machine.
    Nothing,
    /// First shreds of sets of the member's own gateway's old blocks, validly signed.
    OldShreds,
    /// Shreds of the leader's that it has recorded.
    Recordings,
    /// Evidence of equivocations, all true.
    Evidence,
    /// Greetings, each with another table.
    Greetings,
    /// Requests for shreds.
    Requests,
    /// Tips of messages that do not exist.
    Tips,
    /// Junk, to the topic of frags.
    Gossip,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Nothing,
        Self::OldShreds,
        Self::Recordings,
        Self::Evidence,
        Self::Greetings,
        Self::Requests,
        Self::Tips,
        Self::Gossip,
    ];

    /// The name in the table and on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::OldShreds => "old-shreds",
            Self::Recordings => "recordings",
            Self::Evidence => "evidence",
            Self::Greetings => "greetings",
            Self::Requests => "requests",
            Self::Tips => "tips",
            Self::Gossip => "gossip-junk",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(())
    }
}

/// Different things of a kind; they are said again and again.
const VARIETY: u64 = 8_192;
/// Messages of junk have so many bytes.
const JUNK_LEN: usize = 8_000;

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state ^ *state >> 29
}

/// The first set of a message of the flooding gateway's, of `len` bytes.
fn set(shredder: &mut Shredder, block: u64, message: u16, wire: &[u8]) -> ShreddedSet {
    let params = MessageParams {
        key: MessageKey { block, attempt: 0, message },
        kind: fragcast_shredder::Kind::Frag,
        plan: 0,
        route: 0,
        route_param: 0,
        sent_at: Timestamp::from_micros(1),
    };
    let rate = CodeRate::new(wire.len(), LossTarget::default());
    shredder.shred(wire, &params, rate).expect("of a usual length").sets.remove(0)
}

fn commitment(set: &ShreddedSet) -> Commitment {
    let signature = *set.shreds[0].last_chunk().expect("a shred ends with its signature");
    Commitment { header: set.header, root: set.root, signature }
}

/// What is said, all made before the flood begins.
fn made(kind: Kind) -> Vec<Bytes> {
    let mut shredder = Shredder::new(CHAIN, leader(1));
    let mut state = 7;
    let old = |n: u64| (BASE - TERM + n % TERM, 1 + (n / TERM) as u16);
    let of = |n: u64| -> Bytes {
        let control = match kind {
            Kind::Nothing | Kind::Recordings | Kind::Gossip => return Bytes::new(),
            Kind::OldShreds => {
                let (block, message) = old(n);
                let frag = BlockBuilder::new(block).frag_at(message.into(), [vec![n as u8; 2_000]]);
                let wire = gateway(1).sign(frag).to_wire();
                return set(&mut shredder, block, message, &wire).shreds[0].clone();
            }
            Kind::Evidence => {
                let (block, message) = old(n);
                let mut of =
                    |byte: u8| commitment(&set(&mut shredder, block, message, &[byte; 300]));
                let (first, second) = (of(1), of(2));
                let key = leader(1).verifying_key().to_bytes();
                let proof = EquivocationProof { chain_id: CHAIN, key, first, second };
                Control::Evidence(Box::new(Evidence { delegation: delegation(1), proof }))
            }
            Kind::Greetings => {
                let mut table = [0; 32];
                table[..8].copy_from_slice(&n.to_le_bytes());
                Control::Hello(Hello { version: 1, chain_id: CHAIN, table })
            }
            Kind::Requests => Control::RepairRequest(RepairRequest {
                nonce: n,
                block: BASE + 1 + n % 22,
                attempt: 0,
                message: (n / 22 % 12) as u16,
                set: if n.is_multiple_of(2) { WHOLE } else { 0 },
                have: 0,
            }),
            Kind::Tips => {
                let tips = (0..8).map(|i| Tip {
                    block: BASE + 1 + (n + i) % 28,
                    attempt: (random(&mut state) % 8) as u8,
                    row: random(&mut state) as u16,
                    above: random(&mut state),
                });
                Control::Tips(Tips { tips: tips.collect() })
            }
        };
        control.to_bytes()
    };
    (0..VARIETY).map(of).collect()
}

/// Runs the process. It reads `on` and `off` from standard input until that is closed, and then
/// prints how many bytes it has sent over how many connections.
pub(crate) fn run(kind: Kind, udp: SocketAddr, gossip: &str) {
    let things = made(kind);
    let (on, end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (sent, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut out = std::io::stdout();
    let _ = writeln!(out, "ready");
    let _ = out.flush();
    let flood = {
        let (on, end) = (Arc::clone(&on), Arc::clone(&end));
        let (sent, connections) = (Arc::clone(&sent), Arc::clone(&connections));
        let gossip = gossip.to_owned();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                if kind == Kind::Gossip {
                    let a_second = crate::RATE / 8 / JUNK_LEN as u64;
                    let junk = Junk { chain: CHAIN, len: JUNK_LEN, a_second };
                    let address = gossip.parse().expect("a multiaddr");
                    junk::publish(junk, address, on, end, Arc::clone(&sent)).await;
                    sent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |messages| {
                        Some(messages * JUNK_LEN as u64)
                    })
                    .expect("it always has a value");
                    return;
                }
                let flood = Flood { kind, things, on, end, sent, connections };
                flood.run(udp).await;
            });
        })
    };
    for order in std::io::stdin().lines().map_while(Result::ok) {
        on.store(order == "on", Ordering::Relaxed);
    }
    end.store(true, Ordering::Relaxed);
    let _ = flood.join();
    let numbers = [&sent, &connections].map(|number| number.load(Ordering::Relaxed));
    let _ = writeln!(out, "{} {}", numbers[0], numbers[1]);
}

struct Flood {
    kind: Kind,
    things: Vec<Bytes>,
    on: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

impl Flood {
    async fn run(self, victim: SocketAddr) {
        // The member after the last node.
        let me = identity(4);
        let net = NetConfig::default();
        let config = client_config(&me, peer(VICTIM), &net).expect("TLS");
        let mut endpoint =
            Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a socket");
        endpoint.set_default_client_config(config);
        while !self.end.load(Ordering::Relaxed) {
            // Who is not answered tries again soon.
            let connecting = endpoint.connect(victim, "fragcast").expect("a valid address");
            match tokio::time::timeout(Duration::from_millis(500), connecting).await {
                Ok(Ok(connection)) => {
                    self.connections.fetch_add(1, Ordering::Relaxed);
                    self.speak(&connection).await;
                }
                // Barred.
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        endpoint.close(quinn::VarInt::from_u32(0), b"done");
    }

    /// Speaks until the connection ends.
    async fn speak(&self, connection: &Connection) {
        let recorded = Arc::new(Mutex::new(Vec::new()));
        listen(connection.clone(), Arc::clone(&recorded));
        let Ok(mut stream) = connection.open_uni().await else { return };
        if stream.write_all(&[0]).await.is_err() {
            return;
        }
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        let budget = (crate::RATE / 8 / 1_000) as usize;
        let mut next = 0;
        while !self.end.load(Ordering::Relaxed) && connection.close_reason().is_none() {
            tick.tick().await;
            if !self.on.load(Ordering::Relaxed) || self.kind == Kind::Nothing {
                continue;
            }
            let mut said = 0;
            let mut frames = Vec::new();
            while said < budget {
                next += 1;
                let thing = if self.kind == Kind::Recordings {
                    let recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
                    let Some(shred) = recorded.get(next % recorded.len().max(1)) else { break };
                    Bytes::clone(shred)
                } else {
                    self.things[next % self.things.len()].clone()
                };
                said += thing.len();
                if matches!(self.kind, Kind::OldShreds | Kind::Recordings) {
                    // The oldest gives way where the buffer is full.
                    let _ = connection.send_datagram(thing);
                } else {
                    frames.extend((thing.len() as u32).to_le_bytes());
                    frames.extend(&thing);
                }
            }
            // As fast as the victim reads.
            if !frames.is_empty() && stream.write_all(&frames).await.is_err() {
                return;
            }
            self.sent.fetch_add(said as u64, Ordering::Relaxed);
        }
    }
}

/// Takes what the victim sends, and remembers shreds.
fn listen(connection: Connection, recorded: Arc<Mutex<Vec<Bytes>>>) {
    let streams = connection.clone();
    tokio::spawn(async move {
        while let Ok(mut stream) = streams.accept_uni().await {
            tokio::spawn(async move {
                while let Ok(Some(_)) = stream.read_chunk(65_536, true).await {}
            });
        }
    });
    tokio::spawn(async move {
        while let Ok(shred) = connection.read_datagram().await {
            let mut recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
            if recorded.len() < VARIETY as usize {
                recorded.push(shred);
            }
        }
    });
}
