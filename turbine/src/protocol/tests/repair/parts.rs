//! One node that asks, and peers whose answers in parts are out of order, lies, or endless.

use std::ops::Range;

use bytes::Bytes;
use fragcast_shredder::{Kind, MAX_MESSAGE_LEN};

use super::peers::Scene;
use super::*;
use crate::control::{MAX_ANSWER_PARTS, MessagePart, PART_LEN, Tip, Tips, WHOLE};

impl Scene {
    /// A peer sends some parts of a frag.
    pub(super) fn parts(&mut self, from: PeerIndex, nonce: u64, wire: &Bytes, which: Range<usize>) {
        for index in which {
            let part = MessagePart::of(nonce, Kind::Frag, wire, index).unwrap();
            self.control(from, &Control::MessagePart(part));
        }
    }

    /// Leaves the node with one peer.
    fn leave(&mut self, peer: PeerIndex) {
        (0..6).filter(|n| *n != peer).for_each(|n| self.node.handle_disconnected(super::peer(n)));
    }

    fn wire(&self, len: usize) -> Bytes {
        self.world.sign(frag(1, 0, len)).to_wire().into()
    }
}

fn messages(events: &[Event]) -> Vec<(u16, Via)> {
    let messages = events.iter().filter_map(|event| match event {
        Event::Message { delivered, .. } => Some((delivered.key.message, delivered.via)),
        _ => None,
    });
    messages.collect()
}

#[test]
fn parts_out_of_turn_are_passed_over_and_accuse_nobody() {
    let mut scene = Scene::new();
    let (_, peer, request) = scene.asking_for(20_000);
    let wire = scene.wire(20_000);
    assert_eq!(wire.len().div_ceil(PART_LEN), 3);
    let parts = |scene: &mut Scene, which| scene.parts(peer, request.nonce, &wire, which);
    parts(&mut scene, 1..3);
    assert_eq!(scene.count(Outcome::ControlStale), 2);
    assert_eq!(scene.node.parts.repair.assembling(), (0, 0), "nothing begins in the middle");
    parts(&mut scene, 0..1);
    parts(&mut scene, 0..1);
    parts(&mut scene, 2..3);
    assert_eq!(scene.count(Outcome::ControlStale), 4);
    assert_eq!(scene.node.parts.repair.assembling(), (1, PART_LEN), "what has come and no more");
    assert!(scene.events().is_empty());
    parts(&mut scene, 1..3);
    assert_eq!(messages(&scene.events()), [(1, Via::Whole)]);
    assert_eq!(scene.node.parts.repair.assembling(), (0, 0));
    parts(&mut scene, 0..1);
    assert_eq!(scene.count(Outcome::RepairLate), 1);
    assert!(scene.events().is_empty());
    assert_eq!(scene.node.parts.repair.requests_waiting(scene.now), 0);
}

#[test]
fn parts_that_nobody_asked_for_are_counted_and_not_taken() {
    let mut scene = Scene::new();
    let (_, peer, request) = scene.asking();
    let wire = scene.wire(5_000);
    scene.parts(peer, request.nonce + 1_000, &wire, 0..1);
    scene.parts(2, request.nonce, &wire, 0..1);
    assert_eq!(scene.count(Outcome::RepairUnasked), 2);
    assert!(scene.events().is_empty());
}

#[test]
fn who_answers_with_another_message_is_barred_unless_its_gateways_may_be_others() {
    type Lie = fn(&Scene) -> (Kind, Vec<u8>);
    // Of whom a gateway is that is not ours its peers' schedule says: those two are not told
    // from a message that is good elsewhere.
    let lies: [(&str, Lie, Outcome); 6] = [
        (
            "signed by somebody else",
            |_| {
                let thief = GatewayKey::from_bytes([99; 32]).unwrap();
                (Kind::Frag, thief.sign(frag(1, 0, 20_000)).to_wire())
            },
            Outcome::Unproven,
        ),
        (
            "changed on the way",
            |scene| {
                let mut wire = scene.wire(20_000).to_vec();
                wire[15_000] ^= 1;
                (Kind::Frag, wire)
            },
            Outcome::Unproven,
        ),
        ("junk", |_| (Kind::Frag, vec![7; 20_000]), Outcome::ControlBad),
        (
            "of another index",
            |scene| (Kind::Frag, scene.world.sign(frag(1, 1, 20_000)).to_wire()),
            Outcome::ControlBad,
        ),
        (
            "of another block",
            |scene| (Kind::Frag, scene.world.sign(frag(2, 0, 20_000)).to_wire()),
            Outcome::ControlBad,
        ),
        ("of another kind", |scene| (Kind::Seal, scene.wire(20_000).to_vec()), Outcome::ControlBad),
    ];
    for (what, lie, outcome) in lies {
        let mut scene = Scene::new();
        let (_, peer, request) = scene.asking_for(20_000);
        // It says that it speaks our dialect: else what does not decode may be of another.
        let terms = scene.node.parts.terms();
        scene.control(peer, &Control::Terms(terms));
        let (kind, wire) = lie(&scene);
        let wire = Bytes::from(wire);
        for part in (0..).map_while(|n| MessagePart::of(request.nonce, kind, &wire, n)) {
            scene.control(peer, &Control::MessagePart(part));
        }
        let convicted = outcome != Outcome::Unproven;
        let bars = if convicted { vec![(peer, outcome)] } else { vec![] };
        assert_eq!((scene.barred(), scene.count(outcome)), (bars, 1), "{what}");
        assert_eq!(scene.node.parts.repair.assembling(), (0, 0), "{what}");
        // Others are asked, and tell the truth.
        let requests = scene.wait();
        assert!(!convicted || requests.iter().all(|(to, _)| *to != peer), "{what}: {requests:?}");
        let (other, request) = *requests.iter().find(|(to, _)| *to != peer).unwrap();
        let wire = scene.wire(20_000);
        scene.parts(other, request.nonce, &wire, 0..3);
        assert_eq!(messages(&scene.events()), [(1, Via::Whole)], "{what}");
    }
}

#[test]
fn who_changes_its_mind_between_parts_is_barred() {
    for change in [
        |part: &mut MessagePart| part.total += 1,
        |part: &mut MessagePart| part.total = MAX_MESSAGE_LEN as u32,
        |part: &mut MessagePart| part.kind = Kind::Seal,
    ] {
        let mut scene = Scene::new();
        let (_, peer, request) = scene.asking_for(20_000);
        let wire = scene.wire(20_000);
        scene.parts(peer, request.nonce, &wire, 0..1);
        let mut part = MessagePart::of(request.nonce, Kind::Frag, &wire, 1).unwrap();
        change(&mut part);
        scene.control(peer, &Control::MessagePart(part));
        assert_eq!(scene.barred(), [(peer, Outcome::ControlBad)]);
        assert_eq!(scene.node.parts.repair.assembling(), (0, 0));
    }
    // So is who sends what no decoder takes.
    let mut scene = Scene::new();
    let (_, peer, request) = scene.asking();
    let bytes = vec![0; PART_LEN + 1].into();
    let part =
        MessagePart { nonce: request.nonce, kind: Kind::Frag, total: 20_000, offset: 0, bytes };
    scene.control(peer, &Control::MessagePart(part));
    assert_eq!(scene.barred(), [(peer, Outcome::ControlBad)]);
}

#[test]
fn an_answer_that_breaks_off_is_taken_up_where_it_ended() {
    let mut scene = Scene::new();
    let (_, peer, request) = scene.asking_for(20_000);
    scene.leave(peer);
    let wire = scene.wire(20_000);
    scene.parts(peer, request.nonce, &wire, 0..2);
    let requests = scene.wait();
    let [(to, again)] = requests[..] else { panic!("{requests:?}") };
    assert_eq!((to, again.message, again.set, again.have), (peer, 1, WHOLE, 2));
    scene.parts(peer, again.nonce, &wire, 2..3);
    assert_eq!(messages(&scene.events()), [(1, Via::Whole)]);
    // Not where the connection broke off as well: another one may know another message.
    let mut scene = Scene::new();
    let (_, peer, request) = scene.asking_for(20_000);
    scene.parts(peer, request.nonce, &wire, 0..2);
    scene.node.handle_disconnected(super::peer(peer));
    assert_eq!(scene.node.parts.repair.assembling(), (0, 0));
}

#[test]
fn the_next_twenty_parts_are_asked_for_at_once() {
    let mut scene = Scene::new();
    let (_, peer, request) = scene.asking_for(400_000);
    let wire = scene.wire(400_000);
    let mut nonce = request.nonce;
    let count = wire.len().div_ceil(PART_LEN);
    for first in (0..count).step_by(MAX_ANSWER_PARTS) {
        let last = count.min(first + MAX_ANSWER_PARTS);
        scene.parts(peer, nonce, &wire, first..last - 1);
        assert!(scene.requests().is_empty());
        scene.parts(peer, nonce, &wire, last - 1..last);
        if last < count {
            let requests = scene.requests();
            let [(to, next)] = requests[..] else { panic!("{requests:?}") };
            assert_eq!((to, next.set, next.have), (peer, WHOLE, last as u64));
            nonce = next.nonce;
        }
        let (_, taken) = scene.node.parts.repair.assembling();
        assert!(taken <= wire.len(), "{taken}");
    }
    assert_eq!(messages(&scene.events()), [(1, Via::Whole)]);
    assert!(scene.requests().is_empty());
}

#[test]
fn an_assembly_goes_with_what_it_is_for() {
    let begun = || {
        let mut scene = Scene::new();
        let (shreds, peer, request) = scene.asking_for(20_000);
        let wire = scene.wire(20_000);
        scene.parts(peer, request.nonce, &wire, 0..2);
        assert_eq!(scene.node.parts.repair.assembling().0, 1);
        (scene, shreds, peer, request)
    };
    let (mut scene, shreds, peer, request) = begun();
    scene.feed(2, &shreds[2..]);
    assert_eq!(messages(&scene.events()), [(1, Via::Turbine)], "its shreds came after all");
    assert_eq!(scene.node.parts.repair.assembling(), (0, 0));
    let wire = scene.wire(20_000);
    scene.parts(peer, request.nonce, &wire, 2..3);
    assert!(scene.events().is_empty());
    let (mut scene, ..) = begun();
    scene.node.parts.supersede(1, 1);
    assert_eq!(scene.node.parts.repair.assembling(), (0, 0));
    let (mut scene, ..) = begun();
    scene.node.handle_head(scene.now, 1_000);
    assert_eq!(scene.node.parts.repair.assembling(), (0, 0));
}

#[test]
fn a_peer_that_drips_does_not_keep_others_from_being_asked() {
    let mut scene = Scene::new();
    let (_, liar, request) = scene.asking_for(20_000);
    let junk = Bytes::from(vec![7; MAX_MESSAGE_LEN]);
    let (begun, mut nonce, mut next) = (scene.now, request.nonce, 0);
    loop {
        scene.parts(liar, nonce, &junk, next..next + 1);
        next += 1;
        scene.now = scene.now + Duration::from_millis(20);
        if scene.node.poll_timeout(scene.now).is_some_and(|at| at <= scene.now) {
            scene.node.handle_timeout(scene.now);
        }
        let requests = scene.requests();
        if let Some((_, more)) = requests.iter().find(|(to, _)| *to == liar) {
            nonce = more.nonce;
        }
        if requests.iter().any(|(to, _)| *to != liar) {
            break;
        }
        assert!(scene.now.since(begun) < Duration::from_secs(3), "nobody else is asked");
    }
    assert!(scene.now.since(begun) > Duration::from_secs(1), "a fast one would be waited for");
}

#[test]
fn a_thousand_liars_take_four_places_and_no_more_memory_than_they_send() {
    let mut scene = Scene::of(1_004, &config(TREES[1], 0.02));
    let first = scene.cut(env(1));
    scene.feed(1, &first);
    scene.settle();
    let junk = Bytes::from(vec![7; MAX_MESSAGE_LEN]);
    let (mut asked, mut most) = (0, (0, 0));
    for liar in 4..1_004 {
        // All of them tell of messages that do not exist, and send but the beginning of each.
        let (block, attempt) = (2 + u64::from(liar) % 7, (liar / 7 % 8) as u8);
        let tips = vec![Tip { block, attempt, row: 64, above: 0 }];
        scene.control(liar, &Control::Tips(Tips { tips }));
        scene.now = scene.now + Duration::from_millis(20);
        if scene.node.poll_timeout(scene.now).is_some_and(|at| at <= scene.now) {
            scene.node.handle_timeout(scene.now);
        }
        for (to, request) in scene.requests() {
            asked += 1;
            scene.parts(to, request.nonce, &junk, 0..3);
            let held = scene.node.parts.repair.assembling();
            most = (most.0.max(held.0), most.1.max(held.1));
        }
    }
    assert!(asked > 1_000, "{asked}");
    assert_eq!(most.0, 4);
    assert!(most.1 <= 4 * 4 * PART_LEN, "{most:?}: what they claim is 40 MiB");
    assert!(scene.count(Outcome::Quota) > 100, "no place for the others");
    // One that is true and short needs no place.
    let shreds = scene.cut(frag(1, 0, 5_000));
    scene.feed(1, &shreds[..2]);
    while scene.node.poll_transmit(scene.now).is_some() {}
    let wire = scene.wire(5_000);
    let delivered = (0..1_000).any(|_| {
        scene.next(Duration::from_secs(1));
        let requests = scene.requests();
        for (to, request) in requests.iter().filter(|(_, r)| (r.block, r.message) == (1, 1)) {
            scene.parts(*to, request.nonce, &wire, 0..1);
        }
        messages(&scene.events()) == [(1, Via::Whole)]
    });
    assert!(delivered);
    scene.node.handle_head(scene.now, 1_000);
    assert_eq!(scene.node.parts.repair.assembling(), (0, 0));
}
