//! Nodes that have messages from gossip without shreds: they send tips of them, answer with them,
//! and do not ask for them.

use super::peers::Scene;
use super::*;
use crate::control::{MAX_ANSWER_PARTS, PART_LEN, RepairRequest, Tip, WHOLE};
use crate::gossip::Policy;

fn standby() -> Config {
    let mut config = config(TREES[1], 0.02);
    config.gossip.policy = Policy::Standby;
    config
}

/// Node 0 leads, node 1 is on gossip, the others know nothing of it.
fn one_on_gossip(nodes: usize) -> Net {
    let mut net = Net::new(World::new(&equal(nodes), 1), 0.0, &config(TREES[0], 0.02));
    let mut node = net.world.node(1, standby());
    node.assume_connected((0..nodes as PeerIndex).filter(|peer| *peer != 1));
    net.nodes[1] = node;
    net
}

fn gossip(net: &mut Net, node: usize, message: Message) {
    let message = net.world.sign(message);
    let now = net.now;
    net.nodes[node].handle_gossip(now, message, true);
}

/// Shreds of a message that the leader never sent.
fn shreds(net: &Net, message: Message) -> Vec<bytes::Bytes> {
    let quick = Config { burst: Duration::from_secs(1_000), ..config(TREES[0], 0.02) };
    let mut leader = net.world.node(0, quick);
    leader.assume_connected([1u32]);
    let message = net.world.sign(message);
    leader.broadcast(net.now, key(message.message(), 0), &message).unwrap();
    let sent = std::iter::from_fn(|| leader.poll_transmit(net.now));
    sent.filter_map(|transmit| match transmit.payload {
        Payload::Shred(bytes) => Some(bytes),
        Payload::Control(_) => None,
    })
    .collect()
}

fn bars(net: &Net) -> usize {
    net.others.iter().flatten().filter(|event| matches!(event, Event::Bar { .. })).count()
}

#[test]
fn a_node_that_has_everything_from_gossip_alone_answers_one_that_has_some_shreds() {
    let mut net = one_on_gossip(3);
    net.dead[0] = true;
    let block = [env(1), frag(1, 0, 100_000), frag(1, 1, 20), frag(1, 2, 9_000), seal(1, 3)];
    block.iter().for_each(|message| gossip(&mut net, 1, message.clone()));
    // Node 2 has two shreds of the long one, and one of the third.
    for (message, count) in [(&block[1], 2), (&block[3], 1)] {
        let some =
            shreds(&net, message.clone()).into_iter().take(count).map(|bytes| (peer(0), bytes));
        let now = net.now;
        net.nodes[2].handle_datagrams(now, some);
    }
    net.run();
    let mut got: Vec<_> = net.delivered[2].iter().collect();
    got.sort_by_key(|delivered| delivered.key);
    assert_eq!(got.len(), 5);
    for (delivered, message) in got.into_iter().zip(&block) {
        assert_eq!(delivered.key, key(message, 0));
        assert_eq!(delivered.message, net.world.sign(message.clone()));
        assert_eq!(delivered.via, Via::Whole);
    }
    assert_eq!(net.senders[2], [Some(peer(1)); 5]);
    assert_eq!(net.nodes[1].counters().repair_answered_messages, 5, "each of them once");
    assert_eq!(net.nodes[2].counters().repair_messages, 5);
    assert_eq!(net.nodes[2].parts.repair.assembling(), (0, 0));
    assert_eq!(sum(&net, |c| c.repair_given_up), 0);
    assert_eq!(bars(&net), 0);
    let unasked: u64 = net.nodes.iter().map(|n| n.outcomes().get(Outcome::RepairUnasked)).sum();
    assert_eq!(unasked, 0);
}

#[test]
fn a_message_longer_than_an_answer_is_asked_for_on_and_on() {
    let mut net = one_on_gossip(3);
    net.dead[0] = true;
    // Twice the budget's burst, too.
    let message = frag(1, 0, 3_000_000);
    gossip(&mut net, 1, env(1));
    gossip(&mut net, 1, message.clone());
    let first = shreds(&net, message.clone()).into_iter().take(1).map(|bytes| (peer(0), bytes));
    let now = net.now;
    net.nodes[2].handle_datagrams(now, first);
    net.run();
    let delivered = net.delivered[2].iter().find(|d| d.key.message == 1).expect("it came");
    assert_eq!(*delivered.message.message(), message);
    let took = delivered.times.complete_at.since(now);
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(net.nodes[1].counters().repair_answered_messages, 2);
    let answered = net.nodes[1].counters().repair_answered_bytes;
    assert!(answered < 3_500_000, "{answered} bytes: little was sent twice");
}

#[test]
fn a_tail_that_gossip_alone_has_is_told_of_and_passed_on() {
    let mut net = one_on_gossip(4);
    net.send(env(1), 0);
    net.send(frag(1, 0, 5_000), 0);
    net.run_for(Duration::from_millis(500));
    assert!((1..4).all(|node| net.delivered[node].len() == 2));
    // The leader's Seal reaches node 1 by gossip and nobody over the overlay.
    net.dead[0] = true;
    net.cut[3] = true;
    let sent = net.now;
    gossip(&mut net, 1, seal(1, 1));
    net.run_for(Duration::from_millis(500));
    let healed = net.delivered[2].last().unwrap();
    assert_eq!((healed.key.message, healed.via), (2, Via::Whole));
    assert_eq!(net.senders[2].last(), Some(&Some(peer(1))));
    let took = healed.times.complete_at.since(sent);
    assert!(took < Duration::from_millis(400), "{took:?}");
    // And from there to the next, though its own source is gone.
    net.dead[1] = true;
    net.cut[3] = false;
    net.run_for(Duration::from_secs(2));
    let healed = net.delivered[3].last().unwrap();
    assert_eq!((healed.key.message, healed.via), (2, Via::Whole));
    assert_eq!(net.senders[3].last(), Some(&Some(peer(2))));
    assert_eq!(net.delivered[3].len(), 3);
}

#[test]
fn a_message_from_gossip_stops_the_requests_for_it() {
    let mut scene = Scene::with(&standby());
    let (shreds, peer, request) = scene.asking();
    assert_eq!(request.message, 1);
    let message = scene.world.sign(frag(1, 0, 5_000));
    scene.node.handle_gossip(scene.now, message, true);
    assert_eq!(scene.node.parts.repair.requests_waiting(scene.now), 0);
    // Nor do shreds of it that come now, or tips, start it again.
    scene.feed(2, &shreds[2..3]);
    while scene.node.poll_transmit(scene.now).is_some() {}
    let tip = Tip { block: 1, attempt: 0, row: 2, above: 0 };
    scene.control(2, &Control::Tips(crate::control::Tips { tips: vec![tip] }));
    for _ in 0..1_000 {
        assert!(scene.requests().is_empty());
        if !scene.next(Duration::from_secs(5)) {
            break;
        }
    }
    scene.answer(peer, request.nonce, &shreds[3..4]);
    assert_eq!(scene.count(Outcome::RepairLate), 1);
    assert_eq!(scene.node.counters().repair_given_up, 0);
}

#[test]
fn shreds_of_what_gossip_brought_first_are_forwarded_and_give_a_race() {
    let forwarded = |by_gossip: bool| {
        let mut scene = Scene::with(&standby());
        let shreds = scene.cut(frag(1, 0, 20_000));
        if by_gossip {
            let message = scene.world.sign(frag(1, 0, 20_000));
            scene.node.handle_gossip(scene.now, message, true);
        }
        let gossip_at = scene.now;
        scene.now = scene.now + Duration::from_millis(30);
        scene.feed(1, &shreds);
        scene.node.handle_timeout(scene.now);
        let counters = *scene.node.counters();
        let mut vias = Vec::new();
        for event in scene.events() {
            match event {
                Event::Message { delivered, .. } => vias.push(delivered.via),
                Event::Race(race) => {
                    assert_eq!((race.gossip_at, race.overlay_at), (gossip_at, scene.now));
                    assert_eq!((race.key.message, race.kind), (1, fragcast_shredder::Kind::Frag));
                    assert_eq!(vias, [Via::Gossip], "after the first, before the second");
                    vias.push(Via::Own);
                }
                other => panic!("{other:?}"),
            }
        }
        (counters.forwarded + counters.owed, vias, counters)
    };
    let (without, vias, counters) = forwarded(false);
    assert!(without > 0);
    assert_eq!((vias, counters.gossip), (vec![Via::Turbine], 0));
    let (with, vias, counters) = forwarded(true);
    assert_eq!(with, without, "those below it need them all the same");
    assert_eq!(vias, [Via::Gossip, Via::Own, Via::Turbine]);
    assert_eq!((counters.gossip, counters.gossip_first, counters.delivered), (1, 1, 1));
}

/// A node's events, except those of its health.
fn told(scene: &mut Scene) -> Vec<Event> {
    let events = scene.events().into_iter();
    events.filter(|event| !matches!(event, Event::Health(_))).collect()
}

#[test]
fn the_second_way_and_its_repetitions_are_no_first_arrivals() {
    let mut scene = Scene::with(&standby());
    let shreds = scene.cut(frag(1, 0, 5_000));
    let message = scene.world.sign(frag(1, 0, 5_000));
    scene.feed(1, &shreds);
    assert!(matches!(told(&mut scene)[..], [Event::Message { .. }]));
    scene.node.handle_gossip(scene.now, message.clone(), true);
    assert!(matches!(told(&mut scene)[..], [Event::Race(_)]));
    scene.node.handle_gossip(scene.now, message, true);
    assert!(told(&mut scene).is_empty());
    // Gossip first, again, and then what a peer answers or the overlay brings.
    let message = scene.world.sign(frag(1, 1, 5_000));
    scene.node.handle_gossip(scene.now, message.clone(), true);
    scene.node.handle_gossip(scene.now, message, true);
    let counters = *scene.node.counters();
    assert_eq!((counters.gossip, counters.gossip_first), (2, 1));
    // By an answer first, then by gossip: it had been here, and gossip's time is not lost.
    let mut scene = Scene::with(&standby());
    let (shreds, peer, request) = scene.asking_for(7_500);
    let message = scene.world.sign(frag(1, 0, 7_500));
    scene.parts(peer, request.nonce, &message.to_wire().into(), 0..1);
    assert!(matches!(told(&mut scene)[..], [Event::Message { .. }]));
    scene.node.handle_gossip(scene.now, message, true);
    assert!(told(&mut scene).is_empty());
    let counters = *scene.node.counters();
    assert_eq!((counters.repair_messages, counters.gossip, counters.gossip_first), (1, 1, 0));
    let forwarded = counters.forwarded;
    scene.feed(1, &shreds[2..]);
    assert!(matches!(told(&mut scene)[..], [Event::Race(_), Event::Message { .. }]));
    assert!(scene.node.counters().forwarded > forwarded, "shreds are forwarded after it");
}

/// The indices of the parts that a node sends; panics on anything else.
fn answer(scene: &mut Scene, request: RepairRequest) -> Vec<usize> {
    scene.control(2, &Control::RepairRequest(request));
    let sent = std::iter::from_fn(|| scene.node.poll_transmit(scene.now));
    sent.map(|transmit| {
        assert_eq!((transmit.to, transmit.lane), (peer(2), Lane::Repair));
        assert!(transmit.payload.len() < 10_000);
        let Payload::Control(frame) = transmit.payload else { panic!("a shred") };
        match Control::from_bytes(&frame).unwrap() {
            Control::MessagePart(part) => {
                assert_eq!(part.nonce, request.nonce);
                part.offset as usize / PART_LEN
            }
            other => panic!("{other:?}"),
        }
    })
    .collect()
}

const REQUEST: RepairRequest =
    RepairRequest { nonce: 7, block: 1, attempt: 0, message: 1, set: WHOLE, have: 0 };

#[test]
fn an_answer_has_twenty_parts_and_begins_once_for_all_sets() {
    let mut scene = Scene::with(&standby());
    let message = scene.world.sign(frag(1, 0, 400_000));
    let count = message.to_wire().len().div_ceil(PART_LEN);
    scene.node.handle_gossip(scene.now, message, true);
    let ask = |set, have| RepairRequest { set, have, ..REQUEST };
    let all: Vec<usize> = (0..count).collect();
    assert_eq!(answer(&mut scene, ask(3, 0b11)), all[..MAX_ANSWER_PARTS], "of any set");
    for set in [4, 5, WHOLE] {
        assert!(answer(&mut scene, ask(set, 0)).is_empty(), "it is on its way");
    }
    assert_eq!(answer(&mut scene, ask(WHOLE, 20)), all[20..40]);
    assert_eq!(answer(&mut scene, ask(WHOLE, 40)), all[40..]);
    assert_eq!(scene.node.counters().repair_answered_messages, 1);
    for have in [count as u64, u64::MAX, 1 << 51] {
        assert!(answer(&mut scene, ask(WHOLE, have)).is_empty());
    }
    for other in [
        RepairRequest { attempt: 1, ..REQUEST },
        RepairRequest { attempt: 200, ..REQUEST },
        RepairRequest { message: 0, ..REQUEST },
        RepairRequest { block: 2, ..REQUEST },
    ] {
        assert!(answer(&mut scene, other).is_empty());
    }
    assert_eq!(scene.count(Outcome::RepairLacking), 7);
    scene.now = scene.now + Duration::from_millis(100);
    assert_eq!(answer(&mut scene, ask(0, 0)).len(), MAX_ANSWER_PARTS, "lost, perhaps");
    assert!(scene.barred().is_empty());
}

#[test]
fn the_last_bytes_of_a_long_message_cost_what_encoding_costs() {
    let mut scene = Scene::with(&standby());
    // Two of them, so that neither stays encoded.
    for seq in 0..2 {
        let message = scene.world.sign(frag(1, seq, 20 * PART_LEN - 64));
        scene.node.handle_gossip(scene.now, message, true);
    }
    let mut served = 0;
    for nonce in 0..2_000 {
        let request = RepairRequest { message: 1 + nonce as u16 % 2, have: 19, nonce, ..REQUEST };
        served += answer(&mut scene, request).len();
    }
    // Of 512 KiB: 100 bytes a request, 2.5 KiB for the encoding, and what is sent.
    assert!((30..200).contains(&served), "{served}");
    assert!(scene.count(Outcome::RepairRefused) > 1_800);
}

pub(super) fn greeting(node: &Protocol) -> Option<Control> {
    node.parts.repair.greeting(&node.parts.ctx)
}

fn tips(scene: &Scene) -> Vec<(u64, u8, u16, u64)> {
    let Some(Control::Tips(tips)) = greeting(&scene.node) else { return Vec::new() };
    tips.tips.iter().map(|tip| (tip.block, tip.attempt, tip.row, tip.above)).collect()
}

#[test]
fn tips_tell_of_messages_without_shreds_as_long_as_they_can_be_served() {
    let mut scene = Scene::with(&standby());
    let message = |scene: &Scene, seq| scene.world.sign(frag(1, seq, 5_000));
    let (second, fourth) = (message(&scene, 1), message(&scene, 3));
    scene.node.handle_gossip(scene.now, fourth, true);
    scene.node.handle_gossip(scene.now, second, true);
    assert_eq!(tips(&scene), [(1, 0, 0, 0b1010)]);
    let shreds = scene.cut(env(1));
    scene.feed(1, &shreds);
    scene.node.handle_timeout(scene.now);
    let shreds = scene.cut(frag(1, 0, 5_000));
    scene.feed(1, &shreds);
    scene.node.handle_timeout(scene.now);
    assert_eq!(tips(&scene), [(1, 0, 3, 0b1)], "sets and marks are one row");
    // Its shreds come after all: they are what is served then.
    let shreds = scene.cut(frag(1, 3, 5_000));
    scene.feed(1, &shreds);
    scene.node.handle_timeout(scene.now);
    while scene.node.poll_transmit(scene.now).is_some() {}
    assert_eq!(tips(&scene), [(1, 0, 3, 0b1)]);
    scene.control(2, &Control::RepairRequest(RepairRequest { message: 4, ..REQUEST }));
    let Some(Transmit { payload: Payload::Control(frame), .. }) =
        scene.node.poll_transmit(scene.now)
    else {
        panic!("no answer")
    };
    assert!(matches!(Control::from_bytes(&frame), Ok(Control::RepairShreds(_))));
    // Superseded, and outside the window.
    scene.node.parts.supersede(1, 1);
    assert!(tips(&scene).is_empty());
    let third = scene.world.sign(frag(2, 0, 100));
    scene.node.handle_gossip(scene.now, third, true);
    assert_eq!(tips(&scene).len(), 1);
    scene.node.handle_head(scene.now, 1_000);
    assert!(tips(&scene).is_empty());
    assert_eq!(scene.node.repair_bytes(), 0);
}

#[test]
fn what_is_remembered_no_longer_is_told_no_longer() {
    let mut settings = standby();
    // One gateway has half.
    settings.gossip.memory = 100_000;
    let mut scene = Scene::with(&settings);
    for block in 1..7 {
        scene.node.handle_head(scene.now, block);
        let message = scene.world.sign(frag(block, 0, 20_000));
        scene.node.handle_gossip(scene.now, message, true);
    }
    let blocks: Vec<u64> = tips(&scene).iter().map(|tip| tip.0).collect();
    assert_eq!(blocks, [6, 5], "two of them fit");
    for block in 1..7 {
        let parts = answer(&mut scene, RepairRequest { block, ..REQUEST });
        assert_eq!(parts.len(), if block > 4 { 3 } else { 0 });
    }
    // The mark of a wrong guess goes with the guess.
    let mut scene = Scene::with(&standby());
    let other = |timestamp| match env(1) {
        Message::Env(env) => Message::Env(fragcast_shredder::Env { timestamp, ..env }),
        other => other,
    };
    for timestamp in [5, 6] {
        let message = scene.world.sign(other(timestamp));
        scene.node.handle_gossip(scene.now, message, true);
    }
    assert_eq!(tips(&scene), [(1, 1, 1, 0), (1, 0, 1, 0)]);
    let message = scene.world.sign(other(6));
    let key = MessageKey { block: 1, attempt: 2, message: 0 };
    scene.leader.broadcast(scene.now, key, &message).unwrap();
    let sent: Vec<_> = std::iter::from_fn(|| scene.leader.poll_transmit(scene.now)).collect();
    for transmit in sent {
        if let Payload::Shred(bytes) = transmit.payload {
            scene.feed(1, &[bytes]);
        }
    }
    scene.node.handle_timeout(scene.now);
    assert_eq!(tips(&scene), [(1, 2, 1, 0)], "attempt 2 also supersedes attempt 0");
}

#[test]
fn of_gossip_terms_and_by_order_nothing_is_told() {
    let mut settings = standby();
    settings.burst = Duration::from_secs(1_000);
    let mut world = World::new(&equal(4), 2);
    world.delegations.truncate(1);
    let node = |settings: &Config| {
        let mut node = world.node(3, settings.clone());
        node.assume_connected(0u32..3);
        node
    };
    let now = Timestamp::from_nanos(1);
    let mut foreign = node(&settings);
    foreign.handle_gossip(now, world.sign(frag(10, 0, 100)), true);
    assert_eq!(foreign.counters().gossip_first, 1);
    assert!(greeting(&foreign).is_none(), "nobody could ask for it");
    foreign.handle_gossip(now, world.sign(frag(9, 0, 100)), true);
    assert!(greeting(&foreign).is_some());
    settings.gossip.mode = crate::gossip::Mode::Gossip;
    let mut alone = node(&settings);
    alone.handle_gossip(now, world.sign(frag(9, 0, 100)), true);
    assert_eq!(alone.counters().gossip_first, 1);
    assert!(greeting(&alone).is_none());
    settings.gossip.mode = crate::gossip::Mode::Auto;
    settings.repair.enabled = false;
    let mut silent = node(&settings);
    silent.handle_gossip(now, world.sign(frag(9, 0, 100)), true);
    assert!(greeting(&silent).is_none());
}
