//! Control frames in sequence, and what gossip carries.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use alloy_primitives::Bytes as Payload;
use ed25519_dalek::SigningKey;
use fragcast_shredder::{
    CodeRate, Commitment, Dialect, EquivocationProof, GatewayKey, Kind, LossTarget, MessageKey,
    MessageParams, Shredder,
};

use crate::control::{
    Attach, Attached, BLOCK_PART_LEN, BlockPart, BlocksEnd, BlocksRequest, Control, Evidence,
    Hello, Listeners, MAX_EXTRA, MAX_RECEIPT_SETS, MAX_TIPS, Receipt, RepairRequest, RepairShreds,
    SetReceipt, Share, Terms, Tip, Tips, UNTIMED,
};
use crate::delays::{DelayVector, RttCode};
use crate::delegation::Delegation;
use crate::gossip::Gate;
use crate::membership::{Membership, sample};
use crate::peer::PeerKey;
use crate::plan::{Exclusions, Plan};
use crate::protocol::{Config, Event, Setup};
use crate::schedule::Schedule;
use crate::time::Timestamp;

const CHAIN: u64 = 1;

/// Keys and members of the network whose frames are made.
struct World {
    members: Arc<Membership>,
    /// Two of the schedule, and a stranger.
    gateways: [GatewayKey; 3],
    /// The keys behind the members' peer ids.
    identities: Vec<SigningKey>,
}

fn leader(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number % 4 + 1; 32])
}

fn share(number: u8) -> Share {
    [Share::Nothing, Share::Tips, Share::All][usize::from(number % 3)]
}

impl World {
    fn new() -> Self {
        let (members, identities) = sample(CHAIN, &[1, 2, 3, 0]);
        let members = Arc::new(members);
        let gateways = [1, 2, 3].map(|byte| GatewayKey::from_bytes([byte; 32]).expect("a key"));
        Self { members, gateways, identities }
    }

    fn delegation(&self, gateway: u8, key: u8, sequence: u64, blocks: (u64, u64)) -> Delegation {
        let member = usize::from(gateway) % self.members.members().len();
        Delegation {
            chain_id: CHAIN,
            first: blocks.0,
            last: blocks.1,
            sequence,
            peer: self.members.members()[member].peer(),
            key: leader(key).verifying_key().to_bytes(),
        }
    }

    fn gateway(&self, number: u8) -> &GatewayKey {
        &self.gateways[usize::from(number) % self.gateways.len()]
    }

    /// A frame of four bytes: what it is, and three numbers.
    fn frame(&self, [op, a, b, c]: [u8; 4]) -> Control {
        match op % 18 {
            0 => {
                let table = if a < 128 { self.members.hash() } else { [b; 32] };
                let chain_id = if c < 200 { CHAIN } else { 9 };
                Control::Hello(Hello { version: 1, chain_id, table })
            }
            1 => {
                let blocks = (u64::from(c % 8), u64::from(c));
                let mut signed =
                    self.delegation(a, b, u64::from(b / 4), blocks).sign(self.gateway(a));
                if op >= 224 {
                    signed.signature[usize::from(c) % 65] ^= 1;
                }
                Control::Delegation(signed)
            }
            2 => {
                let key = leader(a);
                let mut plan =
                    Plan::configured(CHAIN, key.verifying_key().to_bytes(), &self.members);
                (plan.version, plan.effective) = (u64::from(b), u64::from(c));
                if op >= 224 {
                    plan.table = [c; 32];
                }
                let mut signed = plan.sign(&key);
                if op >= 240 {
                    signed.signature[0] ^= 1;
                }
                Control::Plan(signed)
            }
            3 => self.evidence(a, b, c),
            4 => Control::Listeners(Listeners { ids: (0..b % 65).map(u64::from).collect() }),
            5 => {
                let tip = |i: u8| Tip {
                    block: u64::from(a.wrapping_add(i)),
                    attempt: c % 9,
                    row: u16::from(b) << (i % 9),
                    above: u64::from(c) << (b % 57),
                };
                Control::Tips(Tips { tips: (0..a % (MAX_TIPS as u8 + 1)).map(tip).collect() })
            }
            6 => Control::RepairRequest(RepairRequest {
                nonce: u64::from(a),
                block: u64::from(b),
                attempt: c % 9,
                message: u16::from(c),
                set: u16::from(a) << 8 | u16::from(b),
                have: u64::MAX >> (c % 64),
            }),
            7 => Control::RepairShreds(RepairShreds {
                nonce: u64::from(a % 4),
                shreds: vec![vec![b; usize::from(c) * 5].into(); usize::from(a % 3)],
            }),
            8 => Control::BlocksRequest(BlocksRequest {
                nonce: u64::from(a),
                block: u64::from(b),
                message: u16::from(c),
                have: u32::from(a) << (c % 25),
                last: u64::MAX >> (c % 64),
            }),
            9 => {
                let total = usize::from(a) * 100 + 1;
                let offset = total / BLOCK_PART_LEN * BLOCK_PART_LEN;
                Control::BlockPart(BlockPart {
                    nonce: u64::from(c % 4),
                    key: MessageKey { block: u64::from(b), attempt: c % 9, message: u16::from(c) },
                    kind: Kind::from_byte(c % 3).expect("three kinds"),
                    total: total as u32,
                    offset: offset as u32,
                    bytes: vec![b; total - offset].into(),
                })
            }
            10 => {
                let (first, last) = (u64::from(b), u64::from(c));
                Control::BlocksEnd(BlocksEnd { nonce: u64::from(a % 4), first, last })
            }
            11 => Control::Terms(Terms {
                chain_id: u64::from(a % 4),
                dialect: b,
                from_block: u64::from(c % 2) << 63,
                blocks_per_term: u64::MAX >> (b % 64),
                gateways: u32::from(c),
                rotation: [a; 32],
                sent_at: u64::from(c) << (b % 57),
            }),
            12 => {
                let table = if b < 200 { self.members.hash() } else { [b; 32] };
                let len = if c < 200 { self.members.len() } else { usize::from(c) };
                let member = u32::from(a % 5);
                let others = (0..len as u32).filter(|other| *other != member);
                let pairs: Vec<_> = others.map(|to| (to, RttCode::from_byte(b))).collect();
                let of = (CHAIN, table, len);
                let vector = DelayVector::new(of, member, u64::from(c), &pairs);
                let mut signed = vector.sign(&self.identities[usize::from(a) % 4]);
                if op >= 240 {
                    signed.signature[0] ^= 1;
                }
                Control::Delays(Box::new(signed))
            }
            13 => {
                let set = |i: u8| SetReceipt {
                    message: u16::from(b % 4),
                    set: u16::from(i),
                    came: u64::MAX >> (c % 64),
                    timed: if c % 64 > 60 { UNTIMED } else { a % 3 },
                    after: i32::from(c) << (b % 24),
                };
                let sets = (0..a % (MAX_RECEIPT_SETS as u8 + 2)).map(set).collect();
                Control::Receipt(Receipt { block: u64::from(b), attempt: c % 9, sets })
            }
            14 => {
                let key = leader(a);
                let of_key = key.verifying_key().to_bytes();
                let plan = Plan::configured(CHAIN, of_key, &self.members);
                let plan = if b < 200 { plan.id() } else { u64::from(b) };
                let members = if c < 200 { self.members.len() } else { usize::from(c) };
                let of = (CHAIN, of_key, plan);
                let excluded = [u32::from(b % 4), u32::from(c % 4)];
                let mask = Exclusions::new(of, u64::from(c), members, (&excluded, &excluded[1..]));
                let mut signed = mask.sign(&key);
                if op >= 240 {
                    signed.signature[0] ^= 1;
                }
                Control::Exclusions(Box::new(signed))
            }
            15 => Control::Attach(Attach { share: share(a), extra: b % (MAX_EXTRA + 1) }),
            16 => {
                let (places, taken) = (u16::from(b), u16::from(c));
                Control::Attached(Attached { share: share(a), places, taken })
            }
            _ => {
                let wire = bytes::Bytes::from(vec![b; usize::from(a) * 100 + 1]);
                let index = usize::from(c) % 4;
                match crate::control::MessagePart::of(u64::from(c), Kind::Frag, &wire, index) {
                    Some(part) => Control::MessagePart(part),
                    None => Control::Listeners(Listeners { ids: Vec::new() }),
                }
            }
        }
    }

    /// Evidence that is true, or is not: the two may be the same.
    fn evidence(&self, a: u8, b: u8, c: u8) -> Control {
        let key = leader(a / 16);
        let mut shredder = Shredder::new(CHAIN, key.clone());
        let place = MessageKey { block: u64::from(b), attempt: 0, message: 1 };
        let [first, second] = [a, c].map(|byte| {
            let params = MessageParams {
                key: place,
                kind: Kind::Frag,
                plan: 0,
                route: 0,
                route_param: 0,
                sent_at: Timestamp::from_micros(1),
            };
            let wire = [byte; 70];
            let rate = CodeRate::new(wire.len(), LossTarget::default());
            let cut = shredder.shred(&wire, &params, rate).expect("of a usual length");
            let set = &cut.sets[0];
            let signature = *set.shreds[0].last_chunk().expect("it ends with its signature");
            Commitment { header: set.header, root: set.root, signature }
        });
        let delegation = self.delegation(a, a / 16, 1, (0, u64::from(c))).sign(self.gateway(a));
        let key = key.verifying_key().to_bytes();
        let proof = EquivocationProof { chain_id: CHAIN, key, first, second };
        Control::Evidence(Box::new(Evidence { delegation, proof }))
    }

    fn setup(&self) -> Setup {
        let addresses = self.gateways[..2].iter().map(GatewayKey::address).collect();
        let schedule = Schedule::new(addresses, 4).expect("two gateways");
        let delegations =
            // The second gateway is run by the node itself.
            [(0, 0), (1, 3)].map(|(gateway, member)| {
                let delegation = self.delegation(member, gateway, 0, (0, u64::MAX));
                delegation.sign(self.gateway(gateway))
            });
        let members = Arc::clone(&self.members);
        let setup = Setup::new(Config::new(CHAIN), members, schedule, delegations);
        setup.expect("delegations of our own")
    }
}

/// A node among three peers that send frames of every kind, well formed and signed or not, in any
/// order, between connections that come and go: no message comes out, who is accused has
/// signed both, nothing is sent to who is not connected, and time moves on.
pub fn frames(data: &[u8]) {
    static WORLD: OnceLock<(World, Setup)> = OnceLock::new();
    let (world, setup) = WORLD.get_or_init(|| {
        let world = World::new();
        let setup = world.setup();
        (world, setup)
    });
    let me = world.members.members()[3].peer();
    let mut node = setup.node(&me, Some(leader(1))).expect("a member");
    node.set_identity(world.identities[3].clone());
    let mut now = Timestamp::from_nanos(1_000_000_000);
    for op in data.chunks_exact(5).take(200) {
        let (from, what) = (PeerKey::from(u32::from(op[0] % 3)), [op[1], op[2], op[3], op[4]]);
        match op[0] / 3 % 10 {
            0 => node.handle_connected(from),
            1 => node.handle_disconnected(from),
            2 => {
                now = now + Duration::from_millis(u64::from(op[1]) * 8);
                let sample = Duration::from_micros(u64::from(op[2]) << (op[3] % 32));
                node.handle_round_trips(now, [(PeerKey::from(u32::from(op[4])), sample)]);
            }
            3 => node.handle_control(now, from, &op[1..]),
            4 => {
                // Cut short, or changed.
                let mut frame = world.frame(what).to_bytes().to_vec();
                let at = usize::from(op[2]) % frame.len();
                if op[3] % 2 == 0 {
                    frame.truncate(at);
                } else {
                    frame[at] ^= op[4];
                }
                node.handle_control(now, from, &frame);
            }
            5 => {
                // Its application: where it is, and whether it has something to do.
                node.handle_verified(now, u64::from(op[1]), Timestamp::default());
                node.handle_idle(now, op[2] % 4 != 0);
            }
            _ => node.handle_control(now, from, &world.frame(what).to_bytes()),
        }
        node.handle_timeout(now);
        while let Some(event) = node.poll_event() {
            match event {
                Event::Message { .. } | Event::Again(_) => panic!("nobody signed one"),
                Event::Equivocation { gateway, evidence } => {
                    assert_eq!(evidence.verify(), Ok(gateway));
                    assert!(world.gateways[..2].iter().any(|key| key.address() == gateway));
                }
                Event::Bar { peer, .. } => {
                    assert_eq!(peer, from, "who sent it");
                    node.handle_disconnected(peer);
                }
                _ => {}
            }
        }
        while let Some(transmit) = node.poll_transmit(now) {
            assert!(node.is_connected(transmit.to));
        }
        assert!(node.poll_timeout(now).is_none_or(|at| at > now), "time moves on");
        let delays = node.delays();
        assert!(delays.measured <= 3 && delays.reporters <= 4 && delays.pairs <= 6);
    }
}

/// What gossip carries: any bytes as a message of any kind and dialect. Nobody signed them, so the
/// gate hands nothing on, remembers nothing, and forwards nothing.
pub fn payload(data: &[u8]) {
    let Some((selector, wire)) = data.split_first() else { return };
    let Some(kind) = Kind::from_byte(selector % 3) else { return };
    let dialect = if selector & 64 == 0 { Dialect::V0 } else { Dialect::V0Blob };
    let schedule = Schedule::new(vec![alloy_primitives::Address::repeat_byte(7)], 4);
    let epochs = crate::testing::epochs(schedule.expect("a gateway"));
    let mut gate = Gate::new(dialect, epochs);
    if selector & 128 != 0 {
        gate.set_window(0, u64::from(*selector));
    }
    let checked = gate.check(kind, &Payload::copy_from_slice(wire));
    assert!(checked.message.is_none());
    assert_ne!(checked.verdict, crate::gossip::Verdict::Accept);
    assert_eq!((checked.verdict, gate.remembered()), (checked.outcome.verdict(), 0));
}
