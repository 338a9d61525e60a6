//! Bodies of the fuzz targets; see `fragcast_shredder::fuzzing`.

mod catch_up;
mod frames;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use fragcast_shredder::{
    BlockBuilder, Dialect, GatewayKey, Kind, MessageKey, SignedMessage, VerifiedMessage,
};

use crate::control::{
    Control, Hello, MAX_ANSWER_SHREDS, MAX_TIPS, MessagePart, RepairRequest, RepairShreds, Tip,
    Tips, WHOLE,
};
use crate::delegation::{Delegation, SignedDelegation};
use crate::egress::{Lane, Payload};
use crate::epoch::{Epoch, MAX_EPOCHS};
use crate::gossip::topic::message_id;
use crate::gossip::{Gate, Topics, Verdict};
use crate::membership::{Member, MemberRecord, Membership, sample};
use crate::peer::{PeerId, PeerKey};
use crate::plan::SignedPlan;
use crate::protocol::{Config, Event, Protocol, Setup};
use crate::schedule::Schedule;
use crate::time::Timestamp;

pub use catch_up::catch_up;
pub use frames::{frames, payload};

/// A named fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("control", control),
    ("records", records),
    ("datagrams", datagrams),
    ("repair", repair),
    ("gossip", gossip),
    ("epochs", epochs),
    ("frames", frames),
    ("payload", payload),
    ("catch_up", catch_up),
];

/// A control frame that decodes encodes to the same bytes.
pub fn control(data: &[u8]) {
    if let Ok(control) = Control::from_bytes(data) {
        assert_eq!(control.to_bytes(), data);
        if let Control::Evidence(evidence) = control {
            let _ = evidence.verify();
        } else if let Control::Delays(signed) = control {
            let vector = &signed.vector;
            let fits = (0..3 * 8).find(|members| vector.fits(*members));
            assert!(fits.is_none_or(|members| {
                vector.pairs().all(|(to, code)| (to as usize) < members && code.is_known())
            }));
        } else if let Control::Exclusions(signed) = control {
            let sizes = (0..3 * 8).filter(|members| signed.exclusions.fits(*members));
            assert!(sizes.count() <= 8, "a mask fits tables of as many bytes");
        }
    }
}

/// Records, plans and delegations likewise.
pub fn records(data: &[u8]) {
    if let Ok(record) = MemberRecord::from_bytes(data) {
        assert_eq!(record.to_bytes(), data);
        let _ = (record.verify(1), record.addresses().count());
    }
    if let Ok(signed) = SignedDelegation::from_bytes(data) {
        assert_eq!(signed.to_bytes(), data);
        let _ = signed.gateway();
    }
    if let Ok(plan) = SignedPlan::from_bytes(data) {
        let _ = (plan.verify(), plan.plan.id());
    }
}

/// A protocol that is fed anything neither panics nor delivers anything.
pub fn datagrams(data: &[u8]) {
    let (members, _) = sample(1, &[1, 1, 1]);
    let schedule = Schedule::new(vec![alloy_primitives::Address::ZERO], 30).expect("one gateway");
    let me = members.members()[0].peer();
    let mut protocol = Protocol::new(Config::new(1), &me, Arc::new(members), schedule, [], None)
        .expect("a member");
    let mut now = Timestamp::from_nanos(1);
    (1..3).map(PeerKey::from).for_each(|peer| protocol.handle_connected(peer));
    let mut rest = data;
    while let [op, len, tail @ ..] = rest {
        let len = (usize::from(*len) * 5).min(tail.len());
        let (bytes, tail) = tail.split_at(len);
        rest = tail;
        let peer = PeerKey::from(u32::from(op % 4));
        match op / 4 % 4 {
            0 | 1 => protocol.handle_datagrams(now, [(peer, Bytes::copy_from_slice(bytes))]),
            2 => protocol.handle_control(now, peer, bytes),
            _ => protocol.handle_disconnected(peer),
        }
        now = now + Duration::from_millis(u64::from(*op));
        protocol.handle_timeout(now);
        while let Some(event) = protocol.poll_event() {
            assert!(!matches!(event, Event::Message { .. }), "nobody signed");
        }
        while protocol.poll_transmit(now).is_some() {}
    }
}

/// What is the same each time: a network, messages of a block, and shreds of them.
struct Block {
    setup: Setup,
    me: PeerId,
    /// The third message as it is on the wire.
    wire: Bytes,
    /// One that gossip brings.
    fourth: VerifiedMessage,
    /// Of the first message all shreds, of the second two, of the third none.
    shreds: [Vec<Bytes>; 2],
}

fn block() -> &'static Block {
    static BLOCK: OnceLock<Block> = OnceLock::new();
    BLOCK.get_or_init(|| {
        let (members, _) = sample(1, &[1, 1, 1]);
        let peers: Vec<PeerId> = members.members().iter().map(Member::peer).collect();
        let gateway = GatewayKey::from_bytes([1; 32]).expect("a key");
        let leader = SigningKey::from_bytes(&[2; 32]);
        let delegation = Delegation {
            chain_id: 1,
            first: 0,
            last: 9,
            sequence: 1,
            peer: peers[0],
            key: leader.verifying_key().to_bytes(),
        };
        let schedule = Schedule::new(vec![gateway.address()], 30).expect("one gateway");
        let mut config = Config::new(1);
        config.repair.answer_bps = 1_000_000;
        config.repair.answer_burst = 10_000;
        config.burst = Duration::from_secs(1_000);
        config.gossip.policy = crate::Policy::Always;
        let signed = [delegation.sign(&gateway)];
        let setup = Setup::new(config, Arc::new(members), schedule, signed).expect("valid");
        let mut leading = setup.node(&peers[0], Some(leader)).expect("a member");
        leading.assume_connected([1u32, 2]);
        let sign = |seq: u16, len: usize| {
            gateway.sign_verified(BlockBuilder::new(1).frag_at(seq.into(), [vec![7; len]]))
        };
        let now = Timestamp::from_nanos(1);
        let shreds = [(0, usize::MAX), (1, 2)].map(|(seq, take): (u16, usize)| {
            let key = MessageKey { block: 1, attempt: 0, message: seq + 1 };
            leading.broadcast(now, key, &sign(seq, 3_000)).expect("it leads");
            let shreds = std::iter::from_fn(|| leading.poll_transmit(now));
            let shreds = shreds.filter_map(|t| match t.payload {
                Payload::Shred(bytes) if t.to.number() == 1 => Some(bytes),
                _ => None,
            });
            let all: Vec<Bytes> = shreds.collect();
            all.into_iter().take(take).collect()
        });
        let wire = Bytes::from(sign(2, 20_000).to_wire());
        Block { setup, me: peers[1], wire, fourth: sign(3, 20_000), shreds }
    })
}

/// A node that has something and lacks something, among peers that ask, tell and answer
/// anything: what it answers stays within its budget, and nothing comes out that was not signed.
pub fn repair(data: &[u8]) {
    let Block { setup, me, wire, fourth, shreds } = block();
    let mut node = setup.node(me, None).expect("a member");
    node.assume_connected([0u32, 2]);
    let mut now = Timestamp::from_nanos(1);
    let start = now;
    // Gossip has brought one, so it has no shreds of that.
    node.handle_gossip(now, fourth.clone(), true);
    for shreds in shreds {
        node.handle_datagrams(now, shreds.iter().map(|bytes| (PeerKey::from(0), bytes.clone())));
    }
    let mut answered = 0;
    let mut rest = data;
    while let [op, len, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(*len % 64).min(tail.len()));
        rest = tail;
        let number = |at: usize| u64::from(bytes.get(at).copied().unwrap_or(0));
        let control = match op % 5 {
            0 => Control::Tips(Tips {
                tips: bytes
                    .chunks(4)
                    .take(MAX_TIPS)
                    .map(|c| Tip {
                        block: u64::from(c[0] % 12),
                        attempt: c.get(1).copied().unwrap_or(0) % 9,
                        row: u16::from(c.get(2).copied().unwrap_or(0)) << (op / 16),
                        above: u64::from(c.get(3).copied().unwrap_or(0)) << (op / 8),
                    })
                    .collect(),
            }),
            1 => Control::RepairRequest(RepairRequest {
                nonce: number(0),
                block: number(1) % 3,
                attempt: (number(2) % 9) as u8 / 8,
                message: (number(3) % 5) as u16,
                set: if op / 5 % 2 == 0 { WHOLE } else { (number(4) % 3) as u16 },
                have: number(5),
            }),
            2 => Control::RepairShreds(RepairShreds {
                nonce: number(0) % 16,
                shreds: bytes
                    .chunks(8)
                    .take(MAX_ANSWER_SHREDS)
                    .map(Bytes::copy_from_slice)
                    .collect(),
            }),
            3 => {
                let nonce = number(0) % 16;
                let junk = Bytes::from(vec![op / 5; usize::from(op / 5) * 500]);
                let (wire, kind) = match number(1) % 4 {
                    0 => (&junk, Kind::Frag),
                    1 => (wire, Kind::Seal),
                    _ => (wire, Kind::Frag),
                };
                let part = MessagePart::of(nonce, kind, wire, (number(2) % 4) as usize);
                let Some(part) = part else { continue };
                Control::MessagePart(part)
            }
            _ => {
                now = now + Duration::from_millis(number(0) * 4);
                node.handle_timeout(now);
                continue;
            }
        };
        node.handle_control(now, PeerKey::from(u32::from(op / 64) % 3), &control.to_bytes());
        while let Some(transmit) = node.poll_transmit(now) {
            if transmit.lane == Lane::Repair {
                answered += transmit.payload.len();
            }
        }
        while let Some(event) = node.poll_event() {
            if let Event::Message { delivered, .. } = event {
                let known = match delivered.via {
                    crate::Via::Turbine => 1,
                    crate::Via::Gossip => 4,
                    via => {
                        assert_eq!(via, crate::Via::Whole);
                        assert_eq!(delivered.message.to_wire(), wire[..], "it was told the truth");
                        3
                    }
                };
                assert_eq!(delivered.key.message, known);
            }
        }
        // Three peers' bursts and rates; a frame has up to a quarter more than its shreds.
        let budget = 3 * (10_000 + now.since(start).as_millis() as usize * 125);
        assert!(answered <= budget * 5 / 4);
        node.handle_timeout(now);
        while node.poll_transmit(now).is_some_and(|transmit| {
            answered += if transmit.lane == Lane::Repair { transmit.payload.len() } else { 0 };
            true
        }) {}
        assert!(node.poll_timeout(now).is_none_or(|at| at > now), "time moves on");
    }
}

/// A node to which epochs of any members come at any time, between greetings with any table,
/// connections that come and go and heads anywhere: three epochs live at most, every member of
/// one has a key and every key is that of a member, and nobody else is connected.
pub fn epochs(data: &[u8]) {
    const CHAIN: u64 = 1;
    let (all, _) = sample(CHAIN, &[1; 8]);
    let gateways = [GatewayKey::from_bytes([1; 32]), GatewayKey::from_bytes([2; 32])];
    let gateways = gateways.map(|key| key.expect("a key"));
    let epoch = |from_block: u64, members: u8, odd: bool| {
        let members = all.members().iter().enumerate().filter(|(n, _)| members >> n & 1 == 1);
        let members = members.map(|(_, member)| member.clone()).collect();
        let members = Arc::new(Membership::new(CHAIN, members).expect("records of our own"));
        let addresses = gateways[usize::from(odd)..].iter().map(GatewayKey::address).collect();
        let schedule = Schedule::new(addresses, 4).expect("a gateway");
        let delegation = Delegation {
            chain_id: CHAIN,
            first: 0,
            last: u64::MAX,
            sequence: from_block,
            peer: all.members()[1].peer(),
            key: SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes(),
        };
        let signed = [delegation.sign(&gateways[1])];
        Epoch::new(CHAIN, from_block, members, schedule, signed).expect("it is valid")
    };
    let setup = Setup::of(Config::new(CHAIN), [epoch(0, 0b1111, false)]).expect("valid");
    let mut node = setup.node(&all.members()[0].peer(), None).expect("a member");
    let mut now = Timestamp::from_nanos(1);
    for op in data.chunks_exact(3) {
        let peer = node.epochs().peers().key(&all.members()[usize::from(op[1] % 8)].peer());
        let peer = peer.unwrap_or(PeerKey::from(u32::from(op[1]) << 14));
        match op[0] % 6 {
            0 => {
                let before = node.epochs().clone();
                let new = epoch(op[2].into(), op[1], op[0] > 127);
                let taken = match op[0] & 64 {
                    0 => node.handle_epoch(now, new),
                    _ => node.handle_epoch_instead(now, new),
                };
                assert_eq!(taken.is_ok(), !Arc::ptr_eq(&before, node.epochs()));
            }
            1 => node.handle_connected(peer),
            2 => node.handle_disconnected(peer),
            3 => node.handle_head(now, op[2].into()),
            4 => {
                let table = match op[2] % 3 {
                    0 => node.epochs().newest().members().hash(),
                    1 => node.epochs().oldest().members().hash(),
                    _ => [op[2]; 32],
                };
                let hello = Hello { version: 1, chain_id: CHAIN, table };
                node.handle_control(now, peer, &Control::Hello(hello).to_bytes());
            }
            _ => now = now + Duration::from_millis(u64::from(op[2]) * 20),
        }
        node.handle_timeout(now);
        let view = node.epochs().clone();
        while let Some(event) = node.poll_event() {
            if let Event::Epoch(change) = event {
                let gone = |(key, peer): &(PeerKey, PeerId)| {
                    *key == node.me() || view.peers().key(peer) != Some(*key)
                };
                assert!(change.left.iter().all(gone));
            }
        }
        while let Some(transmit) = node.poll_transmit(now) {
            assert!(node.is_connected(transmit.to));
        }
        assert!((1..=MAX_EPOCHS).contains(&view.epochs().len()));
        for epoch in view.epochs() {
            for member in epoch.members().members() {
                let key = view.peers().key(&member.peer()).expect("a peer");
                assert_eq!(view.peers().peer(key), Some(member.peer()));
            }
        }
        for (key, peer) in view.peers().iter() {
            assert!(view.member(&peer).is_some() || key == node.me());
        }
    }
}

/// A gate that is fed anything, valid messages among it whole and changed: what it hands on is
/// signed and new, what it forwards is canonical, and it holds no more than what passed.
pub fn gossip(data: &[u8]) {
    let gateways = [GatewayKey::from_bytes([1; 32]), GatewayKey::from_bytes([2; 32])];
    let gateways = gateways.map(|key| key.expect("a key"));
    let addresses = gateways.iter().map(GatewayKey::address).collect();
    let schedule = Schedule::new(addresses, 4).expect("two gateways");
    let topics = Topics::new(901);
    let Some((first, mut rest)) = data.split_first() else { return };
    let dialect = if first % 2 == 0 { Dialect::V0 } else { Dialect::V0Blob };
    let mut gate = Gate::new(dialect, crate::testing::epochs(schedule.clone()));
    let (mut handed_on, mut passed) = (BTreeSet::new(), 0);
    while let [op, number, len, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(usize::from(len / 4).min(tail.len()));
        rest = tail;
        let any_kind = Kind::from_byte(number % 3).expect("three kinds");
        let block = u64::from(number % 8);
        let (kind, wire) = match op % 8 {
            0 => (any_kind, bytes.to_vec()),
            1 => {
                gate.set_window(block, block + u64::from(*len));
                // What is dropped may pass again.
                handed_on.clear();
                passed = gate.remembered();
                continue;
            }
            // Signed by the first gateway, whoever leads: changed or whole.
            change => {
                let builder = BlockBuilder::new(block).with_dialect(dialect);
                let frag = builder.frag_at(u64::from(number / 128), [vec![op / 16; 30]]);
                let mut wire = gateways[0].sign(frag).to_wire();
                match change {
                    2 => bytes.chunks_exact(2).for_each(|change| {
                        let at = usize::from(change[0]) % wire.len();
                        wire[at] ^= change[1];
                    }),
                    3 => wire[64] = wire[64].wrapping_add(*len),
                    4 => wire[64] += 27,
                    _ => {}
                }
                (if change == 7 { any_kind } else { Kind::Frag }, wire)
            }
        };
        let id = message_id(topics.name(kind), &wire);
        assert_eq!(id, message_id(topics.name(kind), &wire));
        let wire = alloy_primitives::Bytes::from(wire);
        let checked = gate.check(kind, &wire);
        assert_eq!(checked.verdict, checked.outcome.verdict());
        if let Some(message) = checked.message {
            let signed = SignedMessage::from_wire(kind, dialect, &wire).expect("it passed");
            let leader = schedule.gateway(signed.message.block());
            let expected = signed.normalise_and_verify(leader).expect("it passed");
            assert_eq!(message, expected);
            assert!(handed_on.insert(message.root()), "once");
            passed += 1;
        }
        if checked.verdict == Verdict::Accept {
            let signed = SignedMessage::from_wire(kind, dialect, &wire).expect("it passed");
            assert!(signed.signature.is_canonical());
        }
        assert!(gate.remembered() <= passed);
    }
}

#[cfg(test)]
mod tests {
    use fragcast_shredder::fuzzing::run_on_seeded_bytes;

    #[test]
    fn targets_hold_on_seeded_bytes() {
        run_on_seeded_bytes(super::TARGETS, "fuzz turbine", (200, 1400), |_, data| {
            if let Some(first) = data.first_mut() {
                *first %= 9;
            }
        });
    }
}
