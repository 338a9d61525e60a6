//! A node that was away asks its peers for whole blocks, in virtual time; peers that lie, or keep
//! nothing, cost little.

use std::collections::{BTreeMap, BTreeSet};

use super::network::{Net, config};
use super::*;
use crate::control::{BLOCK_PART_LEN, BlockPart, BlocksEnd, BlocksRequest};
use crate::protocol::catchup::Archive;

const LAST: usize = 4;

/// Five nodes, three gateways; node 4 is the one that was away.
fn net() -> Net {
    with(&config(RoutePolicy::Fixed(Route::Direct), 0.0))
}

fn with(config: &Config) -> Net {
    Net::new(World::new(&[1; 5], 3), 0.0, config)
}

/// Blocks of three frags, one in 30 ms, while node 4 is away.
fn blocks(net: &mut Net, numbers: std::ops::RangeInclusive<u64>, len: usize) {
    for number in numbers {
        net.send(env(number), 0);
        (0..3).for_each(|seq| net.send(frag(number, seq, len), 0));
        net.send(seal(number, 3), 0);
        net.run_for(Duration::from_millis(30));
    }
}

/// Node 4 is gone, and its connections.
fn leave(net: &mut Net) {
    net.dead[LAST] = true;
    (0..LAST).for_each(|node| net.nodes[node].handle_disconnected(peer(LAST as u32)));
}

/// It starts anew with a stored head.
fn start(net: &mut Net, head: u64) {
    let config = net.nodes[LAST].parts.ctx.config.clone();
    net.nodes[LAST] = net.world.node(LAST, config);
    net.dead[LAST] = false;
    net.delivered[LAST].clear();
    net.others[LAST].clear();
    let now = net.now;
    net.nodes[LAST].handle_verified(now, head, Timestamp::default());
    (0..LAST).for_each(|node| net.connect(node, LAST));
}

/// An application that executes a block as soon as it has its parent and all of its messages.
struct App {
    head: u64,
    /// Messages that it has been handed.
    taken: usize,
    blocks: BTreeMap<u64, BTreeSet<u16>>,
}

impl App {
    const fn at(head: u64) -> Self {
        Self { head, taken: 0, blocks: BTreeMap::new() }
    }

    fn run(&mut self, net: &mut Net) {
        for delivered in &net.delivered[LAST][self.taken..] {
            self.blocks.entry(delivered.key.block).or_default().insert(delivered.key.message);
        }
        self.taken = net.delivered[LAST].len();
        let before = self.head;
        while self.blocks.get(&(self.head + 1)).is_some_and(|places| places.len() == 5) {
            self.head += 1;
        }
        if self.head > before {
            let now = net.now;
            net.nodes[LAST].handle_verified(now, self.head, Timestamp::default());
        }
    }

    /// Runs until `head`; how long it took, or `None` after ten seconds.
    fn until(&mut self, net: &mut Net, head: u64) -> Option<Duration> {
        let start = net.now;
        while net.now.since(start) < Duration::from_secs(10) {
            if self.head >= head {
                return Some(net.now.since(start));
            }
            net.run_for(Duration::from_millis(5));
            self.run(net);
        }
        None
    }
}

fn gaps(net: &Net) -> Vec<Option<(u64, u64)>> {
    let gap = |event: &Event| match event {
        Event::Gap(gap) => Some(*gap),
        _ => None,
    };
    net.others[LAST].iter().filter_map(gap).collect()
}

fn bars(net: &Net) -> usize {
    net.others.iter().flatten().filter(|event| matches!(event, Event::Bar { .. })).count()
}

#[test]
fn a_gap_of_a_hundred_blocks_is_closed_within_two_seconds() {
    let mut net = net();
    blocks(&mut net, 1..=20, 3_000);
    leave(&mut net);
    blocks(&mut net, 21..=120, 3_000);
    start(&mut net, 20);
    let mut app = App::at(20);
    let took = app.until(&mut net, 119).expect("it catches up");
    assert!(took < Duration::from_secs(2), "{took:?}");
    // And from there on it is like the others.
    blocks(&mut net, 121..=122, 3_000);
    assert!(app.until(&mut net, 122).is_some());
    assert_eq!(net.nodes[LAST].catch_up().missing, None);
    assert!(gaps(&net).is_empty() && bars(&net) == 0);
    let counters = net.nodes[LAST].counters();
    assert!(counters.blocks_messages >= 300, "{counters:?}");
    assert!(counters.blocks_requested < 40, "{counters:?}");
}

#[test]
fn a_single_block_that_was_open_at_the_stop_is_asked_for() {
    let mut net = net();
    blocks(&mut net, 1..=3, 3_000);
    net.send(env(4), 0);
    net.send(frag(4, 0, 3_000), 0);
    net.run_for(Duration::from_millis(60));
    leave(&mut net);
    net.send(frag(4, 1, 3_000), 0);
    net.send(frag(4, 2, 3_000), 0);
    net.send(seal(4, 3), 0);
    net.run_for(Duration::from_millis(60));
    // Long after that peers told of it last.
    blocks(&mut net, 5..=6, 3_000);
    net.run_for(Duration::from_secs(20));
    start(&mut net, 3);
    let mut app = App::at(3);
    blocks(&mut net, 7..=8, 3_000);
    let took = app.until(&mut net, 8).expect("it is level");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn long_messages_and_small_budgets_take_longer_and_no_more() {
    let mut config = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    config.catch_up.answer_burst = 100_000;
    let mut net = with(&config);
    blocks(&mut net, 1..=1, 1_000);
    leave(&mut net);
    blocks(&mut net, 2..=4, 300_000);
    net.run_for(Duration::from_secs(2));
    blocks(&mut net, 5..=5, 1_000);
    start(&mut net, 1);
    let mut app = App::at(1);
    // Repair closes some of it, too; below the window it could not.
    let took = app.until(&mut net, 4);
    assert!(took.is_some(), "{:?}", net.nodes[LAST].catch_up());
    assert_eq!(bars(&net), 0);
}

#[test]
fn blocks_that_no_peer_keeps_are_told_at_once_and_taken_when_one_has_them() {
    let mut short = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    short.catch_up.blocks = 10;
    let mut net = with(&short);
    // Node 3 keeps more, and is not there.
    let mut long = short;
    long.catch_up.blocks = 512;
    net.nodes[3] = net.world.node(3, long);
    (0..5).filter(|node| *node != 3).for_each(|node| {
        net.nodes[node].handle_disconnected(peer(3));
        net.connect(node, 3);
    });
    net.run_for(Duration::from_millis(100));
    blocks(&mut net, 1..=20, 1_000);
    leave(&mut net);
    blocks(&mut net, 21..=120, 1_000);
    net.cut[3] = true;
    start(&mut net, 20);
    net.nodes[LAST].handle_disconnected(peer(3));
    net.nodes[3].handle_disconnected(peer(LAST as u32));
    let started = net.now;
    let mut app = App::at(20);
    while gaps(&net).is_empty() && net.now.since(started) < Duration::from_secs(5) {
        net.run_for(Duration::from_millis(5));
        app.run(&mut net);
    }
    assert!(net.now.since(started) < Duration::from_secs(2), "{:?}", net.now.since(started));
    let [Some((first, last))] = gaps(&net)[..] else { panic!("{:?}", gaps(&net)) };
    assert!(first == 21 && (105..=111).contains(&last), "{first} to {last}");
    assert_eq!(net.nodes[LAST].catch_up().gap, Some((first, last)));
    let asked = net.nodes[LAST].counters().blocks_requested;
    net.run_for(Duration::from_secs(20));
    let more = net.nodes[LAST].counters().blocks_requested - asked;
    assert!((3..=20).contains(&more), "{more}: it asks again, and seldom");
    assert_eq!(gaps(&net).len(), 1, "it is told once");
    // The one that keeps them is back.
    net.cut[3] = false;
    net.connect(3, LAST);
    assert!(app.until(&mut net, 119).is_some());
    assert_eq!(gaps(&net).last(), Some(&None));
    assert_eq!(net.nodes[LAST].catch_up().gap, None);
}

#[test]
fn peers_that_keep_nothing_at_all_are_a_gap_too() {
    let some = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    let mut none = some.clone();
    none.catch_up.memory = 0;
    let mut net = with(&none);
    leave(&mut net);
    blocks(&mut net, 1..=90, 1_000);
    net.nodes[LAST] = net.world.node(LAST, some);
    start(&mut net, 0);
    net.run_for(Duration::from_millis(1_500));
    assert_eq!(gaps(&net), [Some((1, 89))]);
}

#[test]
fn a_client_or_another_source_that_closes_the_gap_ends_it() {
    let mut short = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    short.catch_up.blocks = 5;
    let mut net = with(&short);
    leave(&mut net);
    blocks(&mut net, 1..=40, 1_000);
    start(&mut net, 0);
    net.run_for(Duration::from_millis(1_500));
    assert_eq!(gaps(&net).len(), 1);
    let now = net.now;
    net.nodes[LAST].handle_verified(now, 39, Timestamp::default());
    net.run_for(Duration::from_millis(500));
    assert_eq!(gaps(&net).last(), Some(&None));
}

/// Node 4 with a gap, connected to all, and the request that it sends first.
fn asking() -> (Net, PeerKey, BlocksRequest) {
    let mut net = net();
    blocks(&mut net, 1..=2, 500);
    leave(&mut net);
    blocks(&mut net, 3..=90, 500);
    start(&mut net, 2);
    // What others send of themselves, but no answer.
    let tips = net.nodes[0].parts.repair.greeting(&net.nodes[0].parts.ctx).unwrap();
    let now = net.now;
    let hello = Hello { version: 1, chain_id: CHAIN, table: net.world.members.hash() };
    for from in (0..4).map(peer) {
        net.nodes[LAST].handle_control(now, from, &Control::Hello(hello).to_bytes());
    }
    for from in (0..4).map(peer) {
        net.nodes[LAST].handle_control(now, from, &tips.to_bytes());
    }
    let (to, request) = requests(&mut net).pop().expect("it asks");
    (net, to, request)
}

fn requests(net: &mut Net) -> Vec<(PeerKey, BlocksRequest)> {
    let now = net.now;
    let sent: Vec<Transmit> = std::iter::from_fn(|| net.nodes[LAST].poll_transmit(now)).collect();
    let request = |transmit: Transmit| match transmit.payload {
        Payload::Control(frame) => match Control::from_bytes(&frame).unwrap() {
            Control::BlocksRequest(request) => Some((transmit.to, request)),
            _ => None,
        },
        Payload::Shred(_) => None,
    };
    sent.into_iter().filter_map(request).collect()
}

fn part(nonce: u64, message: &VerifiedMessage, bytes: &[u8], offset: usize) -> BlockPart {
    let total = message.to_wire().len() as u32;
    let (key, kind) = (key(message.message(), 0), message.message().kind());
    let bytes = bytes::Bytes::copy_from_slice(bytes);
    BlockPart { nonce, key, kind, total, offset: offset as u32, bytes }
}

fn take(net: &mut Net, from: PeerKey, control: &Control) {
    let now = net.now;
    net.nodes[LAST].handle_control(now, from, &control.to_bytes());
}

fn outcomes(net: &Net, outcome: Outcome) -> u64 {
    net.nodes[LAST].outcomes().get(outcome)
}

#[test]
fn what_a_gateway_did_not_sign_is_not_taken_and_another_is_asked() {
    let (mut net, liar, request) = asking();
    assert_eq!((request.block, request.message, request.have), (3, 0, 0));
    let forged = GatewayKey::from_bytes([99; 32]).unwrap().sign_verified(env(3));
    let wire = forged.to_wire();
    take(&mut net, liar, &Control::BlockPart(part(request.nonce, &forged, &wire, 0)));
    let event = std::iter::from_fn(|| net.nodes[LAST].poll_event());
    let barred: Vec<PeerKey> = event
        .filter_map(|event| match event {
            Event::Bar { peer, .. } => Some(peer),
            _ => None,
        })
        .collect();
    assert!(barred.is_empty(), "its schedule may be another one");
    assert_eq!(outcomes(&net, Outcome::Unproven), 1);
    let (other, _) = requests(&mut net).pop().expect("another is asked");
    assert_ne!(other, liar);
    assert_eq!(net.nodes[LAST].counters().blocks_messages, 0);
}

#[test]
fn what_was_not_asked_for_is_not_taken() {
    let (mut net, asked, request) = asking();
    let message = net.world.sign(env(3));
    let wire = message.to_wire();
    let other = (0..4).map(peer).find(|peer| *peer != asked).unwrap();
    let good = Control::BlockPart(part(request.nonce, &message, &wire, 0));
    take(&mut net, other, &good);
    assert_eq!(outcomes(&net, Outcome::RepairLate), 1, "of somebody else");
    let future = Control::BlockPart(part(request.nonce + 9, &message, &wire, 0));
    take(&mut net, asked, &future);
    let end = BlocksEnd { nonce: request.nonce + 9, first: 1, last: 9 };
    take(&mut net, asked, &Control::BlocksEnd(end));
    assert_eq!(outcomes(&net, Outcome::RepairUnasked), 2, "with a number that was never sent");
    // Behind the last block that was asked for: a lie.
    let far = net.world.sign(env(request.last + 1));
    let wire = far.to_wire();
    take(&mut net, asked, &Control::BlockPart(part(request.nonce, &far, &wire, 0)));
    assert_eq!(outcomes(&net, Outcome::ControlBad), 1);
    assert_eq!(net.nodes[LAST].counters().blocks_messages, 0);
    take(&mut net, asked, &good);
    assert_eq!(net.nodes[LAST].counters().blocks_messages, 0, "the sender is barred");
}

#[test]
fn parts_out_of_order_are_passed_over_and_memory_follows_what_came() {
    let (mut net, asked, request) = asking();
    let env = net.world.sign(env(3));
    take_message(&mut net, asked, request.nonce, &env);
    let message = net.world.sign(frag(3, 0, 100_000));
    let wire = message.to_wire();
    let len = crate::control::BLOCK_PART_LEN;
    let piece = |n: usize| &wire[n * len..wire.len().min((n + 1) * len)];
    for n in [1, 0, 2, 1, 3] {
        let part = part(request.nonce, &message, piece(n), n * len);
        take(&mut net, asked, &Control::BlockPart(part));
    }
    assert_eq!(outcomes(&net, Outcome::ControlStale), 3, "1, 2 and 3 have no 1 before them");
    let end = BlocksEnd { nonce: request.nonce, first: 1, last: 90 };
    take(&mut net, asked, &Control::BlocksEnd(end));
    let (again, next) = requests(&mut net).pop().expect("it goes on");
    assert_eq!((again, next.block), (asked, 3));
    assert_eq!((next.message, next.have), (1, 2 * len as u32), "where the order ended");
}

fn take_message(net: &mut Net, from: PeerKey, nonce: u64, message: &VerifiedMessage) {
    let wire = message.to_wire();
    for (n, piece) in wire.chunks(BLOCK_PART_LEN).enumerate() {
        let part = part(nonce, message, piece, n * BLOCK_PART_LEN);
        take(net, from, &Control::BlockPart(part));
    }
}

/// The end of an answer of one that says that it keeps everything, and what is asked then.
fn end(net: &mut Net, from: PeerKey, nonce: u64) -> Option<(PeerKey, BlocksRequest)> {
    take(net, from, &Control::BlocksEnd(BlocksEnd { nonce, first: 1, last: 90 }));
    next(net)
}

fn next(net: &mut Net) -> Option<(PeerKey, BlocksRequest)> {
    let now = net.now;
    net.nodes[LAST].handle_timeout(now);
    requests(net).pop()
}

#[test]
fn a_peer_that_sends_the_same_message_again_and_again_is_left() {
    let (mut net, liar, request) = asking();
    let env = net.world.sign(env(3));
    take_message(&mut net, liar, request.nonce, &env);
    let (again, second) = end(&mut net, liar, request.nonce).expect("it goes on");
    assert_eq!((again, second.block, second.message, second.have), (liar, 3, 1, 0));
    take_message(&mut net, liar, second.nonce, &env);
    let (other, third) = next(&mut net).expect("another is asked at once");
    assert_ne!(other, liar);
    assert_eq!((third.block, third.message, third.have), (3, 0, 0));
    assert_eq!(net.nodes[LAST].counters().blocks_messages, 1);
}

#[test]
fn a_peer_that_sends_the_same_part_again_and_again_is_left() {
    let (mut net, liar, request) = asking();
    let env = net.world.sign(env(3));
    let message = net.world.sign(frag(3, 0, 100_000));
    let wire = message.to_wire();
    take_message(&mut net, liar, request.nonce, &env);
    let first = |nonce| Control::BlockPart(part(nonce, &message, &wire[..BLOCK_PART_LEN], 0));
    take(&mut net, liar, &first(request.nonce));
    let (again, second) = end(&mut net, liar, request.nonce).expect("it goes on");
    assert_eq!((again, second.message, second.have), (liar, 1, BLOCK_PART_LEN as u32));
    take(&mut net, liar, &first(second.nonce));
    let (other, _) = next(&mut net).expect("another is asked at once");
    assert_ne!(other, liar);
}

#[test]
fn a_peer_that_leaves_out_messages_or_takes_them_of_two_attempts_is_left() {
    let (mut net, liar, request) = asking();
    let (env, ahead) = (net.world.sign(env(3)), net.world.sign(frag(3, 1, 500)));
    take_message(&mut net, liar, request.nonce, &env);
    take_message(&mut net, liar, request.nonce, &ahead);
    assert_eq!(outcomes(&net, Outcome::ControlStale), 1, "a frame may have been lost");
    let (again, second) = end(&mut net, liar, request.nonce).expect("it goes on");
    assert_eq!((again, second.message), (liar, 1));
    take_message(&mut net, liar, second.nonce, &ahead);
    let (other, third) = end(&mut net, liar, second.nonce).expect("another is asked");
    assert_ne!(other, liar);
    let mixed = net.world.sign(frag(3, 0, 500));
    take_message(&mut net, other, third.nonce, &env);
    let mut part = part(third.nonce, &mixed, &mixed.to_wire(), 0);
    part.key.attempt = 1;
    take(&mut net, other, &Control::BlockPart(part));
    let (fourth, _) = next(&mut net).expect("another is asked");
    assert!(![liar, other].contains(&fourth));
    assert_eq!(net.nodes[LAST].counters().blocks_messages, 1);
}

#[test]
fn a_peer_that_never_ends_a_message_is_left() {
    let (mut net, slow, request) = asking();
    let message = net.world.sign(frag(3, 0, 1_000_000));
    let wire = message.to_wire();
    let env = net.world.sign(env(3));
    take_message(&mut net, slow, request.nonce, &env);
    let mut asked = end(&mut net, slow, request.nonce).expect("it goes on");
    let started = net.now;
    for (n, piece) in wire.chunks(BLOCK_PART_LEN).enumerate() {
        if asked.0 != slow {
            break;
        }
        net.now = net.now + Duration::from_millis(900);
        let part = part(asked.1.nonce, &message, piece, n * BLOCK_PART_LEN);
        take(&mut net, slow, &Control::BlockPart(part));
        asked = end(&mut net, slow, asked.1.nonce).expect("somebody is asked");
    }
    assert_ne!(asked.0, slow);
    assert!(net.now.since(started) < Duration::from_secs(22), "{:?}", net.now.since(started));
}

#[test]
fn on_gossip_alone_nothing_is_asked_for() {
    let (mut net, _, _) = asking();
    let now = net.now;
    net.nodes[LAST].set_mode(now, crate::gossip::Mode::Gossip);
    assert_eq!(net.nodes[LAST].catch_up().missing, None);
    net.nodes[LAST].handle_verified(now, 3, Timestamp::default());
    net.now = now + Duration::from_secs(10);
    assert_eq!(next(&mut net), None);
    assert!(!net.nodes[LAST].parts.catch_up.is_pending());
}

#[test]
fn a_block_that_there_is_no_room_for_is_not_asked_for_again() {
    let (mut net, from, request) = asking();
    net.nodes[LAST].parts.archive = Archive::new(1, 512);
    for message in [env(3), frag(3, 0, 500), seal(3, 1)] {
        let message = net.world.sign(message);
        take_message(&mut net, from, request.nonce, &message);
    }
    assert_eq!(net.nodes[LAST].counters().blocks_messages, 3);
    assert!(!net.nodes[LAST].parts.archive.has(&key(&seal(3, 1), 0)));
    let (_, next) = end(&mut net, from, request.nonce).expect("it goes on");
    assert_eq!((next.block, next.message), (4, 0));
}

#[test]
fn a_silent_peer_and_one_that_has_nothing_are_passed_over() {
    let (mut net, silent, request) = asking();
    net.now = net.now + Duration::from_millis(1_100);
    let now = net.now;
    assert!(net.nodes[LAST].poll_timeout(now).is_some_and(|at| at <= now));
    net.nodes[LAST].handle_timeout(now);
    let (empty, next) = requests(&mut net).pop().expect("another is asked");
    assert_ne!(empty, silent);
    let end = BlocksEnd { nonce: next.nonce, first: 1, last: 0 };
    take(&mut net, empty, &Control::BlocksEnd(end));
    let (third, last) = requests(&mut net).pop().expect("a third");
    assert!(![silent, empty].contains(&third));
    // Its answer is late, and nobody's fault.
    let end = BlocksEnd { nonce: request.nonce, first: 1, last: 90 };
    take(&mut net, silent, &Control::BlocksEnd(end));
    assert_eq!(outcomes(&net, Outcome::RepairLate), 1);
    // One that is busy is asked again soon.
    let busy = BlocksEnd { nonce: last.nonce, first: 1, last: 90 };
    take(&mut net, third, &Control::BlocksEnd(busy));
    assert!(net.nodes[LAST].catch_up().gap.is_none());
}

#[test]
fn any_request_is_answered_within_budgets_and_without_panic() {
    let mut config = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    config.catch_up.answer_burst = 100_000;
    let mut net = with(&config);
    blocks(&mut net, 1..=30, 20_000);
    net.run_for(Duration::from_secs(3));
    let now = net.now;
    while net.nodes[1].poll_transmit(now).is_some() {}
    for block in [0, 1, 30, 31, u64::MAX] {
        for message in [0, 1, 4, 5, u16::MAX] {
            for have in [0, 1, 8_192, u32::MAX] {
                for last in [0, 30, u64::MAX] {
                    let request = BlocksRequest { nonce: 1, block, message, have, last };
                    let frame = Control::BlocksRequest(request).to_bytes();
                    net.nodes[1].handle_control(now, peer(2), &frame);
                }
            }
        }
    }
    let answered = net.nodes[1].counters().blocks_answered_bytes;
    assert!(answered > 0 && answered <= 100_000, "{answered}");
    assert!(net.nodes[1].outcomes().get(Outcome::RepairRefused) > 0);
    assert!(net.nodes[1].archive_bytes() > 600_000);
}

#[test]
fn what_is_encoded_for_a_peer_that_has_it_all_is_paid_for() {
    let mut net = net();
    blocks(&mut net, 1..=2, 300_000);
    net.run_for(Duration::from_secs(3));
    let now = net.now;
    for n in 0..4_000 {
        let (message, have) = (1 + n % 2, u32::MAX);
        let request = BlocksRequest { nonce: 1, block: 1, message, have, last: 2 };
        let frame = Control::BlocksRequest(request).to_bytes();
        net.nodes[1].handle_control(now, peer(2), &frame);
    }
    let refused = net.nodes[1].outcomes().get(Outcome::RepairRefused);
    assert!(refused > 2_000, "{refused}: a 64th of 300 kB each");
    assert_eq!(net.nodes[1].counters().blocks_answered_bytes, 0, "nothing follows the end");
}

#[test]
fn a_peer_without_budget_is_told_so_once_in_a_while() {
    let mut config = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    config.catch_up.answer_burst = 300;
    let mut net = with(&config);
    blocks(&mut net, 1..=2, 500);
    net.run_for(Duration::from_secs(3));
    let now = net.now;
    while net.nodes[1].poll_transmit(now).is_some() {}
    for nonce in 1..=5 {
        let request = BlocksRequest { nonce, block: 1, message: 0, have: 0, last: 2 };
        let frame = Control::BlocksRequest(request).to_bytes();
        net.nodes[1].handle_control(now, peer(2), &frame);
    }
    let sent: Vec<Transmit> = std::iter::from_fn(|| net.nodes[1].poll_transmit(now)).collect();
    let nonce = |transmit: &Transmit| match &transmit.payload {
        Payload::Control(frame) => match Control::from_bytes(frame).unwrap() {
            Control::BlocksEnd(end) => Some(end.nonce),
            _ => None,
        },
        Payload::Shred(_) => None,
    };
    let ends: Vec<u64> = sent.iter().filter_map(nonce).collect();
    assert_eq!(ends, [1, 2], "one for what it had left, and one for all the rest");
}

#[test]
fn who_executes_nothing_asks_for_nothing() {
    let mut net = net();
    blocks(&mut net, 1..=2, 500);
    leave(&mut net);
    blocks(&mut net, 3..=90, 500);
    let config = net.nodes[LAST].parts.ctx.config.clone();
    net.nodes[LAST] = net.world.node(LAST, config);
    net.dead[LAST] = false;
    (0..LAST).for_each(|node| net.connect(node, LAST));
    blocks(&mut net, 91..=92, 500);
    assert_eq!(net.nodes[LAST].counters().blocks_requested, 0);
}
