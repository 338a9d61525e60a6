//! Peers and leaders that lie: everything is counted by its reason, honest peers are never
//! punished, and nothing is lost.

use bytes::Bytes;
use fragcast_shredder::{
    CodeRate, Kind, Limits, LossTarget, MessageParams, ShreddedMessage, Shredder,
};

use super::*;
use crate::control::{Difference, Terms};
use crate::plan::Plan;

pub(super) const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000);

/// Node 3 of five, with everybody connected and greeted.
pub(super) fn victim(world: &World) -> Protocol {
    let mut node = world.node(3, Config::new(CHAIN));
    let hello = Control::Hello(Hello { version: 1, chain_id: CHAIN, table: world.members.hash() });
    for peer in [0, 1, 2, 4].map(peer) {
        node.handle_connected(peer);
        node.handle_control(NOW, peer, &hello.to_bytes());
    }
    while node.poll_transmit(NOW + Duration::from_secs(1)).is_some() {}
    node
}

pub(super) fn world() -> World {
    World::new(&[1; 5], 2)
}

/// Cuts any bytes as member `gateway`'s leader key would.
pub(super) fn cut_bytes(
    world: &World,
    gateway: usize,
    wire: &[u8],
    key: MessageKey,
    kind: Kind,
) -> ShreddedMessage {
    let sent_at = Timestamp::from_micros(1);
    let leader = world.leader_keys[gateway].verifying_key().to_bytes();
    let plan = Plan::configured(CHAIN, leader, &world.members).id();
    let params = MessageParams { key, kind, plan, route: 0, route_param: 0, sent_at };
    let rate = CodeRate::new(wire.len(), LossTarget::default());
    Shredder::new(CHAIN, world.leader_keys[gateway].clone()).shred(wire, &params, rate).unwrap()
}

fn cut(world: &World, message: Message, attempt: u8) -> ShreddedMessage {
    let key = key(&message, attempt);
    let kind = message.kind();
    let gateway = world.gateway(message.block());
    cut_bytes(world, gateway, &world.sign(message).to_wire(), key, kind)
}

pub(super) fn all(cut: &ShreddedMessage) -> Vec<Bytes> {
    cut.sets.iter().flat_map(|set| set.shreds.clone()).collect()
}

pub(super) fn feed(node: &mut Protocol, from: PeerIndex, shreds: impl IntoIterator<Item = Bytes>) {
    node.handle_datagrams(NOW, shreds.into_iter().map(|bytes| (peer(from), bytes)));
}

pub(super) fn events(node: &mut Protocol) -> Vec<Event> {
    std::iter::from_fn(|| node.poll_event()).collect()
}

pub(super) fn barred(events: &[Event]) -> Vec<(PeerIndex, Outcome)> {
    events
        .iter()
        .filter_map(|e| match e {
            Event::Bar { peer, outcome } => Some((peer.number(), *outcome)),
            _ => None,
        })
        .collect()
}

pub(super) fn messages(events: &[Event]) -> usize {
    events.iter().filter(|e| matches!(e, Event::Message { .. })).count()
}

#[test]
fn garbage_bars_its_sender_and_nobody_else() {
    let world = world();
    let mut node = victim(&world);
    for len in [0, 1, 48, 113, 500, 1152, 1153, 4000] {
        feed(&mut node, 1, [Bytes::from(vec![1; len])]);
    }
    assert_eq!(barred(&events(&mut node)), [(1, Outcome::Malformed)]);
    assert_eq!(node.outcomes().get(Outcome::Barred), 7);
    feed(&mut node, 2, all(&cut(&world, frag(1, 0, 5_000), 0)));
    assert_eq!(messages(&events(&mut node)), 1);
}

#[test]
fn a_changed_shred_bars_its_sender_and_is_not_forwarded() {
    let world = world();
    let shreds = all(&cut(&world, frag(1, 0, 5_000), 0));
    let mut bad = shreds[0].to_vec();
    bad[60] ^= 1;
    let bad = Bytes::from(bad);
    // Before anything of the set is known it may be another leader's, and later it is told from
    // that; and of a set that is known, at once.
    for known in [false, true] {
        let mut node = victim(&world);
        feed(&mut node, 2, shreds[1..2].iter().take(known.into()).cloned());
        feed(&mut node, 1, [bad.clone()]);
        assert_eq!(barred(&events(&mut node)).len(), usize::from(known));
        assert_eq!(node.outcomes().get(Outcome::Unproven), u64::from(!known));
        let forwarded = node.counters().forwarded;
        feed(&mut node, 2, shreds.clone());
        let events = events(&mut node);
        let before = if known { vec![] } else { vec![(1, Outcome::BadSignature)] };
        assert_eq!((barred(&events), messages(&events)), (before, 1));
        assert!(known || forwarded == 0);
    }
}

#[test]
fn an_unknown_leader_is_ignored_and_nobody_punished() {
    let mut world = world();
    let delegations = std::mem::take(&mut world.delegations);
    let mut node = victim(&world);
    world.delegations = delegations;
    feed(&mut node, 1, all(&cut(&world, frag(1, 0, 500), 0)));
    assert!(events(&mut node).is_empty());
    assert!(node.outcomes().get(Outcome::UnknownLeader) > 0);
}

#[test]
fn other_chains_and_versions_are_counted_not_punished() {
    let world = world();
    let mut node = victim(&world);
    let message = world.sign(frag(1, 0, 500));
    let params = MessageParams {
        key: key(message.message(), 0),
        kind: Kind::Frag,
        plan: 0,
        route: 0,
        route_param: 0,
        sent_at: Timestamp::default(),
    };
    let rate = CodeRate::new(message.to_wire().len(), LossTarget::default());
    let mut other = Shredder::new(CHAIN + 1, world.leader_keys[0].clone());
    let foreign = other.shred(&message.to_wire(), &params, rate).unwrap();
    feed(&mut node, 1, [foreign.sets[0].shreds[0].clone()]);
    let mut newer = all(&cut(&world, frag(1, 0, 500), 0)).remove(0).to_vec();
    newer[0] = fragcast_shredder::shred::VERSION + 1;
    feed(&mut node, 1, [newer.into()]);
    assert!(events(&mut node).is_empty());
    assert_eq!(node.outcomes().get(Outcome::Chain), 1);
    assert_eq!(node.outcomes().get(Outcome::Version), 1);
}

#[test]
fn replays_are_late_and_deliver_once() {
    let world = world();
    let mut node = victim(&world);
    let shreds = all(&cut(&world, frag(1, 0, 5_000), 0));
    for from in [1, 2, 4, 1] {
        feed(&mut node, from, shreds.clone());
    }
    let events = events(&mut node);
    assert_eq!(messages(&events), 1);
    assert_eq!(events.len(), 1);
    assert!(node.outcomes().get(Outcome::Late) as usize >= 3 * shreds.len());
}

#[test]
fn equivocation_is_proven_reported_once_and_spread() {
    let world = world();
    let mut node = victim(&world);
    let one = cut(&world, frag(1, 0, 5_000), 0);
    let mut other = frag(1, 0, 5_000);
    if let Message::Frag(f) = &mut other {
        f.is_last = true;
    }
    let two = cut(&world, other, 0);
    feed(&mut node, 1, [one.sets[0].shreds[0].clone()]);
    feed(&mut node, 2, all(&two));
    feed(&mut node, 4, all(&one));
    let events = events(&mut node);
    assert_eq!(messages(&events), 1, "the first one stays");
    assert!(barred(&events).is_empty(), "relays are not at fault");
    let evidence: Vec<_> = events
        .iter()
        .filter_map(|e| match e {
            Event::Equivocation { gateway, evidence } => Some((gateway, evidence)),
            _ => None,
        })
        .collect();
    assert_eq!(evidence.len(), 1);
    assert_eq!(*evidence[0].0, world.gateways[0].address());
    assert_eq!(evidence[0].1.verify().unwrap(), world.gateways[0].address());

    // It reaches a node that saw neither, convinces it, and goes on from there.
    let frame = Control::Evidence(evidence[0].1.clone()).to_bytes();
    let mut far = victim(&world);
    far.handle_control(NOW, peer(1), &frame);
    far.handle_control(NOW, peer(2), &frame);
    assert_eq!(far.outcomes().get(Outcome::Control), 5, "four greetings and the evidence");
    assert_eq!(far.outcomes().get(Outcome::ControlStale), 1);
    let to: Vec<_> = std::iter::from_fn(|| far.poll_transmit(NOW + Duration::from_secs(2)))
        .map(|t| t.to.number())
        .collect();
    assert_eq!(to, [0, 2, 4], "to all but whom it came from");

    // False evidence convicts whoever sent it.
    let mut lie = evidence[0].1.clone();
    lie.proof.second = lie.proof.first.clone();
    lie.proof.first.header.block = 2;
    far.handle_control(NOW, peer(2), &Control::Evidence(lie).to_bytes());
    assert_eq!(barred(&self::events(&mut far)), [(2, Outcome::ControlBad)]);
}

#[test]
fn bad_parity_is_taken_back_after_delivery() {
    use ed25519_dalek::Signer;
    use fragcast_shredder::merkle;
    let world = world();
    let mut node = victim(&world);
    // The last coding shred is garbage, signed for all the same.
    let mut message = cut(&world, frag(1, 0, 5_000), 0);
    let set = &mut message.sets[0];
    let (n, len) = (set.shreds.len(), usize::from(set.header.shard_len));
    let mut slots: Vec<Vec<u8>> = set.shreds.iter().map(|s| s.to_vec()).collect();
    slots[n - 1][49] ^= 0xff;
    let shards: Vec<&[u8]> = slots.iter().map(|s| &s[49..49 + len]).collect();
    let mut leaves = Vec::new();
    merkle::leaves(&shards, &mut leaves);
    let tree = merkle::Tree::new(&leaves);
    let signature = world.leader_keys[0].sign(&set.header.digest(CHAIN, &tree.root())).to_bytes();
    for (i, slot) in slots.iter_mut().enumerate() {
        let path: Vec<u8> = tree.path(i).flatten().copied().collect();
        slot[49 + len..49 + len + path.len()].copy_from_slice(&path);
        let end = slot.len();
        slot[end - 64..].copy_from_slice(&signature);
    }
    feed(&mut node, 1, slots.into_iter().map(Bytes::from));
    assert_eq!(messages(&events(&mut node)), 1, "its data arrived whole");
    assert_eq!(node.poll_timeout(NOW), Some(NOW), "the check is due at once");
    node.handle_timeout(NOW);
    let events = events(&mut node);
    assert!(matches!(events[..], [Event::BadParity(key)] if key.block == 1), "{events:?}");
    assert_eq!(node.outcomes().get(Outcome::BadParity), 1);
}

#[test]
fn a_message_that_the_gateway_did_not_sign_is_the_leaders_fault() {
    let world = world();
    let mut node = victim(&world);
    let stranger = GatewayKey::from_bytes([99; 32]).unwrap();
    let forged = stranger.sign(frag(1, 0, 500)).to_wire();
    let place = key(&frag(1, 0, 500), 0);
    feed(&mut node, 1, all(&cut_bytes(&world, 0, &forged, place, Kind::Frag)));
    // The right signature in the wrong place: another block, another index, another kind.
    let wire = world.sign(frag(2, 0, 500)).to_wire();
    feed(
        &mut node,
        1,
        all(&cut_bytes(&world, 0, &wire, MessageKey { message: 2, ..place }, Kind::Frag)),
    );
    let wire = world.sign(frag(1, 8, 500)).to_wire();
    feed(
        &mut node,
        1,
        all(&cut_bytes(&world, 0, &wire, MessageKey { message: 3, ..place }, Kind::Frag)),
    );
    feed(
        &mut node,
        1,
        all(&cut_bytes(&world, 0, &[7; 90], MessageKey { message: 4, ..place }, Kind::Seal)),
    );
    let events = events(&mut node);
    assert_eq!(events.len(), 4, "{events:?}");
    assert!(events.iter().all(|e| matches!(e, Event::BadMessage { .. })));
}

#[test]
fn far_future_blocks_are_refused_once_the_head_is_known() {
    let world = world();
    let mut node = victim(&world);
    feed(&mut node, 1, all(&cut(&world, env(100), 0)));
    assert_eq!(node.window(), (36, 107));
    for block in [35, 108, 10_000, u64::MAX] {
        feed(&mut node, 1, all(&cut(&world, frag(block, 0, 500), 0)));
    }
    assert_eq!(messages(&events(&mut node)), 1);
    assert!(node.outcomes().get(Outcome::Past) > 0 && node.outcomes().get(Outcome::Future) > 0);
    feed(&mut node, 1, all(&cut(&world, frag(107, 0, 500), 0)));
    assert_eq!(messages(&events(&mut node)), 1);
}

#[test]
fn a_flood_of_valid_sets_stays_within_memory() {
    let world = world();
    let mut node = victim(&world);
    node.parts.delivery.set_limits(Limits { memory: 300_000 });
    feed(&mut node, 1, all(&cut(&world, env(1), 0)));
    for seq in 0..200 {
        let cut = cut(&world, frag(1, seq, 20_000), 0);
        feed(&mut node, 1, [cut.sets[0].shreds[0].clone()]);
        assert!(node.reassembly_bytes() <= 300_000);
    }
    assert!(node.outcomes().get(Outcome::Quota) > 0);
}

#[test]
fn control_garbage_bars_and_unknown_kinds_do_not() {
    let world = world();
    let mut node = victim(&world);
    node.handle_control(NOW, peer(1), &[200, 1, 2, 3]);
    assert_eq!(node.outcomes().get(Outcome::ControlUnknown), 1);
    node.handle_control(NOW, peer(1), &[1, 2, 3]);
    node.handle_control(NOW, peer(2), &[]);
    let stranger = GatewayKey::from_bytes([99; 32]).unwrap();
    let foreign = world.delegations[0].delegation.sign(&stranger);
    node.handle_control(NOW, peer(4), &Control::Delegation(foreign).to_bytes());
    let bad = barred(&events(&mut node));
    assert_eq!(bad, [(1, Outcome::ControlBad), (2, Outcome::ControlBad)]);
    assert_eq!(node.outcomes().get(Outcome::ControlStale), 1, "its schedule may be newer");
}

#[test]
fn a_peer_of_another_network_is_told_apart() {
    let world = world();
    let mut node = victim(&world);
    for hello in [
        Hello { version: 1, chain_id: 9, table: world.members.hash() },
        Hello { version: 1, chain_id: CHAIN, table: [0; 32] },
    ] {
        node.handle_control(NOW, peer(1), &Control::Hello(hello).to_bytes());
    }
    let what: Vec<_> = events(&mut node)
        .into_iter()
        .filter_map(|e| match e {
            Event::Terms { peer, differences } if peer.number() == 1 => Some(differences),
            _ => None,
        })
        .collect();
    let chain = vec![Difference::ChainId { ours: CHAIN, theirs: 9 }];
    assert_eq!(what, [chain], "another table is none: epochs come and go");
    assert_eq!(node.peers_elsewhere(), 1);
}

/// The terms that `node` sends to a peer that connects.
fn terms_of(node: &mut Protocol, to: u32) -> Terms {
    node.handle_connected(peer(to));
    let sent = std::iter::from_fn(|| node.poll_transmit(NOW));
    let mut terms = sent.filter_map(|transmit| match transmit.payload {
        Payload::Control(frame) => match Control::from_bytes(&frame) {
            Ok(Control::Terms(terms)) => Some(terms),
            _ => None,
        },
        Payload::Shred(_) => None,
    });
    terms.next().expect("it tells its terms")
}

#[test]
fn what_two_nodes_go_by_differently_is_named_on_both_sides_and_once() {
    let world = world();
    let mut ours = world.node(0, Config::new(CHAIN));
    let gateways = world.schedule.gateways().iter().rev().copied().collect();
    let mut other = World::new(&[1; 4], 2);
    other.members = world.members;
    other.schedule = Schedule::new(gateways, 11).unwrap();
    let dialect = fragcast_shredder::Dialect::V0Blob;
    let mut theirs = other.node(1, Config { dialect, ..Config::new(CHAIN) });
    let (a, b) = (terms_of(&mut ours, 1), terms_of(&mut theirs, 0));
    let mut named = Vec::new();
    for (node, from, terms) in [(&mut ours, 1, b), (&mut theirs, 0, a)] {
        events(node);
        let frame = Control::Terms(terms).to_bytes();
        // Again and again, as a liar would.
        (0..50).for_each(|_| node.handle_control(NOW, peer(from), &frame));
        named.extend(events(node).into_iter().filter_map(|event| match event {
            Event::Terms { differences, .. } => Some(differences),
            _ => None,
        }));
    }
    let names = |all: &[Difference]| all.iter().map(Difference::name).collect::<Vec<_>>();
    assert_eq!(named.len(), 2);
    for differences in &named {
        assert_eq!(names(differences), ["dialect", "blocks_per_term", "gateways"]);
    }
    // Nobody is barred for it, and agreement is told too.
    let frame = Control::Terms(Terms { dialect: 0, ..a }).to_bytes();
    ours.handle_control(NOW, peer(1), &frame);
    let agreed = events(&mut ours);
    assert!(matches!(&agreed[..], [Event::Terms { differences, .. }] if differences.is_empty()));
}

#[test]
fn a_leaders_own_shreds_and_foreign_blocks_are_not_its_own_to_send() {
    let world = world();
    let mut leader = world.node(0, Config::new(CHAIN));
    leader.handle_connected(peer(1));
    feed(&mut leader, 1, all(&cut(&world, frag(1, 0, 500), 0)));
    assert!(leader.outcomes().get(Outcome::Own) > 0);
    let foreign = world.sign(frag(11, 0, 500));
    let refused = leader.broadcast(NOW, key(foreign.message(), 0), &foreign);
    assert_eq!(refused, Err(BroadcastError::NotLeader(11)));
    let mut follower = world.node(3, Config::new(CHAIN));
    let own = world.sign(frag(1, 0, 500));
    assert!(follower.broadcast(NOW, key(own.message(), 0), &own).is_err());
}

#[test]
fn a_node_outside_the_table_does_not_start() {
    let world = world();
    let error = Protocol::new(
        Config::new(CHAIN),
        &PeerId([1; 32]),
        world.members.clone(),
        world.schedule,
        [],
        None,
    );
    assert_eq!(error.unwrap_err(), SetupError::NotAMember(PeerId([1; 32])));
}
