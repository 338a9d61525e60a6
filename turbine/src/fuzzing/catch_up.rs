//! A node that was away, among peers that answer it as they like.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use fragcast_shredder::{BlockBuilder, GatewayKey, Kind, MessageKey, VerifiedMessage};

use crate::control::{BLOCK_PART_LEN, BlockPart, BlocksEnd, BlocksRequest, Control};
use crate::delegation::Delegation;
use crate::egress::Payload;
use crate::membership::sample;
use crate::peer::{PeerId, PeerKey};
use crate::protocol::{Config, Event, Protocol, Setup};
use crate::schedule::Schedule;
use crate::time::Timestamp;

const CHAIN: u64 = 1;
/// Messages of a block: an Env, a frag of two parts, a Seal.
const EACH: u64 = 3;

struct World {
    setup: Setup,
    /// The messages of blocks 1 to 3.
    messages: Vec<VerifiedMessage>,
    wires: Vec<Bytes>,
    peers: [PeerId; 3],
}

fn leader() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let (members, _) = sample(CHAIN, &[1, 1, 1]);
        let peers = [0, 1, 2].map(|n: usize| members.members()[n].peer());
        let gateway = GatewayKey::from_bytes([1; 32]).expect("a key");
        let delegation = Delegation {
            chain_id: CHAIN,
            first: 0,
            last: u64::MAX,
            sequence: 1,
            peer: peers[0],
            key: leader().verifying_key().to_bytes(),
        };
        let schedule = Schedule::new(vec![gateway.address()], 30).expect("one gateway");
        let mut config = Config::new(CHAIN);
        config.burst = Duration::from_secs(1_000);
        (config.catch_up.answer_bps, config.catch_up.answers_bps) = (1_000_000, 1_000_000);
        config.catch_up.answer_burst = 50_000;
        let signed = [delegation.sign(&gateway)];
        let setup = Setup::new(config, Arc::new(members), schedule, signed).expect("valid");
        let block = |n| BlockBuilder::new(n).messages([[vec![n as u8; BLOCK_PART_LEN + 700]]]);
        let messages: Vec<_> = (1..=3).flat_map(block).map(|m| gateway.sign_verified(m)).collect();
        let wires = messages.iter().map(|message| Bytes::from(message.to_wire())).collect();
        World { setup, messages, wires, peers }
    })
}

/// The node that was away, and what is known of it.
struct Away {
    node: Protocol,
    now: Timestamp,
    /// Frames of the node that nobody has taken yet.
    frames: Vec<(PeerKey, Bytes)>,
    /// Whom it asked last, under which nonce.
    asked: (PeerKey, u64),
    delivered: BTreeSet<MessageKey>,
    /// Who has sent anything but what an honest node answered.
    liars: BTreeSet<PeerKey>,
    answered: usize,
}

impl Away {
    /// Takes out what the node says, and checks it.
    fn drain(&mut self) {
        let World { messages, .. } = world();
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::Message { delivered, .. } => {
                    let MessageKey { block, message, .. } = delivered.key;
                    let at = (block - 1) * EACH + u64::from(message);
                    assert_eq!(delivered.message, messages[at as usize], "what was signed");
                    assert!(self.delivered.insert(delivered.key), "once: {:?}", delivered.key);
                }
                Event::Bar { peer, .. } => {
                    assert!(self.liars.contains(&peer), "an honest peer is barred");
                    self.node.handle_disconnected(peer);
                }
                _ => {}
            }
        }
        while let Some(transmit) = self.node.poll_transmit(self.now) {
            assert!(self.node.is_connected(transmit.to));
            let Payload::Control(bytes) = transmit.payload else { continue };
            match Control::from_bytes(&bytes) {
                Ok(Control::BlocksRequest(request)) => self.asked = (transmit.to, request.nonce),
                Ok(Control::BlockPart(_)) => self.answered += bytes.len(),
                _ => {}
            }
            self.frames.push((transmit.to, bytes));
        }
        // Twice the burst of one, the rate of all, and what was begun within them.
        let budget = 2 * 50_000 + self.now.as_micros() / 8;
        assert!(self.answered as u64 <= budget + 30_000, "{} of {budget}", self.answered);
        assert!(self.node.poll_timeout(self.now).is_none_or(|at| at > self.now), "time moves on");
    }

    /// A part of a message, right but for what `change` says.
    fn part(&self, number: u8, change: u8, offset: u8, byte: u8) -> Control {
        let World { messages, wires, .. } = world();
        let at = usize::from(number) % messages.len();
        let (message, wire) = (messages[at].message(), &wires[at]);
        let bit = |n: u8| change >> n & 1;
        let start = usize::from(offset) % 3 * BLOCK_PART_LEN;
        let start = if start < wire.len() { start } else { 0 };
        let end = wire.len().min(start + BLOCK_PART_LEN);
        let mut bytes = wire[start..end].to_vec();
        if bit(5) == 1 {
            let at = usize::from(byte) * 33 % bytes.len();
            bytes[at] ^= 1 << (byte % 8);
        }
        let kind = if bit(3) == 1 { Kind::from_byte(byte % 3) } else { Some(message.kind()) };
        Control::BlockPart(BlockPart {
            nonce: self.asked.1,
            key: MessageKey {
                block: message.block() + u64::from(bit(0)),
                attempt: bit(1) * (byte % 9),
                message: message.index().expect("numbered") + u16::from(bit(2)),
            },
            kind: kind.expect("three kinds"),
            total: (wire.len() + usize::from(bit(4)) * BLOCK_PART_LEN) as u32,
            offset: start as u32,
            bytes: bytes.into(),
        })
    }
}

/// A node that lacks two blocks, between one peer that answers honestly and others that send parts,
/// ends and questions of any kind, in any order, under its name and their own: what comes out is
/// what was signed, once; who only answered is not barred; questions cost no more than their
/// budget; and time moves on.
pub fn catch_up(data: &[u8]) {
    let World { setup, messages, peers, .. } = world();
    let start = Timestamp::from_nanos(1);
    let mut leading = setup.node(&peers[0], Some(leader())).expect("a member");
    let mut node = setup.node(&peers[1], None).expect("a member");
    leading.assume_connected([1u32, 2]);
    node.assume_connected([0u32, 2]);
    node.handle_verified(start, 0, Timestamp::default());
    for message in messages {
        let (block, index) = (message.message().block(), message.message().index());
        let key = MessageKey { block, attempt: 0, message: index.expect("numbered") };
        leading.broadcast(start, key, message).expect("it leads");
        let shreds = std::iter::from_fn(|| leading.poll_transmit(start));
        let shreds = shreds.filter_map(|transmit| match transmit.payload {
            Payload::Shred(bytes) if transmit.to.number() == 1 => Some((0.into(), bytes)),
            _ => None,
        });
        // Of the last block all comes live, of the others nothing.
        let shreds: Vec<(PeerKey, Bytes)> = shreds.filter(|_| block == 3).collect();
        node.handle_datagrams(start, shreds);
    }
    let mut away = Away {
        node,
        now: start,
        frames: Vec::new(),
        asked: (0.into(), 0),
        delivered: BTreeSet::new(),
        liars: BTreeSet::new(),
        answered: 0,
    };
    away.node.handle_timeout(start);
    away.drain();
    for op in data.chunks_exact(6).take(200) {
        let [op, a, b, c, d, e] = [op[0], op[1], op[2], op[3], op[4], op[5]];
        let other: PeerKey =
            if op & 64 == 0 { away.asked.0 } else { (u32::from(a % 2) * 2).into() };
        let frame = match op % 8 {
            0 => {
                for (to, frame) in std::mem::take(&mut away.frames) {
                    if to.number() == 0 {
                        leading.handle_control(away.now, 1.into(), &frame);
                    }
                }
                leading.handle_timeout(away.now);
                while let Some(transmit) = leading.poll_transmit(away.now) {
                    let Payload::Control(frame) = transmit.payload else { continue };
                    if transmit.to.number() == 1 && away.node.is_connected(0.into()) {
                        away.node.handle_control(away.now, 0.into(), &frame);
                    }
                }
                away.node.handle_timeout(away.now);
                away.drain();
                continue;
            }
            1 => {
                away.now = away.now + Duration::from_millis(u64::from(a) * 16);
                away.node.handle_timeout(away.now);
                away.drain();
                continue;
            }
            2 | 3 => away.part(b, c, d, e),
            4 => {
                let (first, last) = (u64::from(b % 5), u64::from(c % 5));
                Control::BlocksEnd(BlocksEnd { nonce: away.asked.1, first, last })
            }
            5 => Control::BlocksRequest(BlocksRequest {
                nonce: u64::from(a),
                block: u64::from(b % 5),
                message: u16::from(c % 5),
                have: u32::from(d) * 64,
                last: u64::MAX >> (e % 64),
            }),
            6 => {
                away.node.handle_verified(away.now, u64::from(a % 4), Timestamp::default());
                away.node.handle_timeout(away.now);
                away.drain();
                continue;
            }
            _ => {
                let peer: PeerKey = (u32::from(a % 2) * 2).into();
                if away.node.is_connected(peer) {
                    away.node.handle_disconnected(peer);
                } else {
                    away.node.handle_connected(peer);
                }
                away.node.handle_timeout(away.now);
                away.drain();
                continue;
            }
        };
        if away.node.is_connected(other) {
            away.liars.insert(other);
            away.node.handle_control(away.now, other, &frame.to_bytes());
        }
        away.node.handle_timeout(away.now);
        away.drain();
    }
}
