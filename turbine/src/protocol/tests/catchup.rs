//! A node that was away asks its peers for whole blocks, in virtual time; peers that lie, or keep
//! nothing, cost little.

use std::collections::{BTreeMap, BTreeSet};

use fragcast_shredder::{Dialect, Frag};

use super::network::{Net, config};
use super::*;
use crate::control::{BLOCK_PART_LEN, BlockPart, BlocksEnd, BlocksRequest, RepairRequest, Terms};
use crate::protocol::catchup::Archive;

mod serving;

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
    assert!((3..=40).contains(&more), "{more}: it asks again, and seldom");
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
    let mut net = with_a_gap();
    let (to, request) = told(&mut net).pop().expect("it asks");
    (net, to, request)
}

/// Node 4 that misses blocks 3 to 90, connected to all, and yet to be told of anything.
fn with_a_gap() -> Net {
    let mut config = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    config.catch_up.questions = 1;
    let mut net = with(&config);
    blocks(&mut net, 1..=2, 500);
    leave(&mut net);
    blocks(&mut net, 3..=90, 500);
    start(&mut net, 2);
    net
}

/// Tells node 4 what others send of themselves, but no answer; what it asks for then.
fn told(net: &mut Net) -> Vec<(PeerKey, BlocksRequest)> {
    let tips = net.nodes[0].parts.repair.greeting(&net.nodes[0].parts.ctx).unwrap();
    let now = net.now;
    let hello = Hello { version: 1, chain_id: CHAIN, table: net.world.members.hash() };
    for from in (0..4).map(peer) {
        net.nodes[LAST].handle_control(now, from, &Control::Hello(hello).to_bytes());
    }
    for from in (0..4).map(peer) {
        net.nodes[LAST].handle_control(now, from, &tips.to_bytes());
    }
    requests(net)
}

/// A node that was away asked each of its peers in vain before it found the one that keeps what it
/// missed, though they could have said so.
#[test]
fn who_greets_with_later_blocks_alone_is_not_asked_for_earlier_ones() {
    for keeper in (0..4).map(peer) {
        let mut net = with_a_gap();
        for from in (0..4).map(peer) {
            let (first, last) = match from == keeper {
                true => (1, 90),
                // One keeps none at all.
                false if from == peer(0) => (1, 0),
                false => (4, 90),
            };
            let end = BlocksEnd { nonce: BlocksEnd::GREETING, first, last };
            take(&mut net, from, &Control::BlocksEnd(end));
        }
        let asked: Vec<(PeerKey, u64)> =
            told(&mut net).into_iter().map(|(to, request)| (to, request.block)).collect();
        assert_eq!(asked, [(keeper, 3)]);
    }
}

#[test]
fn what_all_have_greeted_without_is_lost_without_asking() {
    let mut net = with_a_gap();
    for from in (0..4).map(peer) {
        let end = BlocksEnd { nonce: BlocksEnd::GREETING, first: 40, last: 90 };
        take(&mut net, from, &Control::BlocksEnd(end));
    }
    assert!(told(&mut net).is_empty());
    let now = net.now + Duration::from_secs(2);
    net.nodes[LAST].handle_timeout(now);
    let gap = std::iter::from_fn(|| net.nodes[LAST].poll_event()).find_map(|event| match event {
        Event::Gap(gap) => gap,
        _ => None,
    });
    assert_eq!(gap, Some((3, 39)));
}

#[test]
fn a_node_greets_with_what_it_keeps() {
    let greeting = |memory: usize, kept: u64| {
        let mut config = config(RoutePolicy::Fixed(Route::Direct), 0.0);
        config.catch_up.memory = memory;
        let mut net = with(&config);
        blocks(&mut net, 1..=kept, 500);
        let now = net.now;
        while net.nodes[1].poll_transmit(now).is_some() {}
        net.nodes[1].handle_disconnected(peer(2));
        net.nodes[1].handle_connected(peer(2));
        let sent = std::iter::from_fn(|| net.nodes[1].poll_transmit(now));
        let mut ends = sent.filter_map(|transmit| match transmit.payload {
            Payload::Control(frame) => match Control::from_bytes(&frame).unwrap() {
                Control::BlocksEnd(end) => Some((end.nonce, end.first, end.last)),
                _ => None,
            },
            Payload::Shred(_) => None,
        });
        (ends.next(), ends.next())
    };
    assert_eq!(greeting(1 << 20, 5), (Some((0, 1, 5)), None));
    assert_eq!(greeting(1 << 20, 0), (None, None), "none yet");
    assert_eq!(greeting(0, 5), (Some((0, 1, 0)), None), "and never any");
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

/// A peer that speaks the other dialect answers honestly, and so may one that has not told which.
#[test]
fn an_answer_is_a_lie_only_if_it_is_wrong_in_every_dialect() {
    let blob = BlockBuilder::new(3).with_dialect(Dialect::V0Blob).frag_at(0, [vec![1; 200]]);
    let elsewhere = BlockBuilder::new(3).with_dialect(Dialect::V0Blob).frag_at(7, [vec![1; 200]]);
    let wire = |net: &Net, frag: &Frag| net.world.sign(frag.clone().into()).to_wire();
    let junk = |_: &Net, _: &Frag| vec![7; 300];
    let other = Outcome::OtherDialect;
    type Answer<'a> = (&'a dyn Fn(&Net, &Frag) -> Vec<u8>, &'a Frag);
    let cases: [(Option<u8>, Answer<'_>, Outcome); 8] = [
        (None, (&wire, &blob), other),
        (None, (&junk, &blob), other),
        (Some(1), (&wire, &blob), other),
        (Some(0), (&wire, &blob), other),
        (Some(9), (&junk, &blob), other),
        (Some(0), (&junk, &blob), Outcome::ControlBad),
        (Some(1), (&junk, &blob), Outcome::ControlBad),
        (Some(1), (&wire, &elsewhere), Outcome::ControlBad),
    ];
    for (dialect, (bytes, frag), expected) in cases {
        let (mut net, asked, request) = asking();
        if let Some(dialect) = dialect {
            let terms = Terms { dialect, ..net.nodes[0].parts.terms() };
            take(&mut net, asked, &Control::Terms(terms));
        }
        let env = net.world.sign(env(3));
        take_message(&mut net, asked, request.nonce, &env);
        let bytes = bytes(&net, frag);
        let total = bytes.len() as u32;
        let key = MessageKey { block: 3, attempt: 0, message: 1 };
        let (kind, bytes) = (fragcast_shredder::Kind::Frag, bytes.into());
        let part = BlockPart { nonce: request.nonce, key, kind, total, offset: 0, bytes };
        take(&mut net, asked, &Control::BlockPart(part));
        assert_eq!(outcomes(&net, expected), 1, "{dialect:?}");
        let events = std::iter::from_fn(|| net.nodes[LAST].poll_event());
        let bars = events.filter(|event| matches!(event, Event::Bar { .. })).count();
        assert_eq!(bars, usize::from(expected == Outcome::ControlBad), "{dialect:?}");
        let (next, _) = requests(&mut net).pop().expect("another is asked");
        assert_ne!(next, asked);
    }
}

/// Its tree hash would take longer than all that a peer may cost.
#[test]
fn an_answer_of_more_transactions_than_its_bytes_hold_is_not_hashed() {
    let (mut net, asked, request) = asking();
    let env = net.world.sign(env(3));
    take_message(&mut net, asked, request.nonce, &env);
    let crowd = BlockBuilder::new(3).frag_at(0, vec![Vec::new(); 20_000]);
    let crowd = net.world.sign(crowd.into());
    take_message(&mut net, asked, request.nonce, &crowd);
    assert_eq!(outcomes(&net, Outcome::ControlStale), 1);
    assert_eq!(net.nodes[LAST].counters().blocks_messages, 1);
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
    assert_eq!(net.nodes[LAST].counters().blocks_messages, 2, "the Env of each");
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
    let root = net.world.sign(seal(3, 1)).root();
    assert!(!net.nodes[LAST].parts.archive.has(3, 2, root));
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
fn a_question_of_a_peer_that_is_gone_is_not_answered() {
    let mut net = net();
    blocks(&mut net, 1..=2, 3_000);
    net.run_for(Duration::from_secs(3));
    let now = net.now;
    let blocks = BlocksRequest { nonce: 1, block: 1, message: 0, have: 0, last: 2 };
    let shreds = RepairRequest { nonce: 2, block: 2, attempt: 0, message: 1, set: 0, have: 0 };
    let questions = [Control::BlocksRequest(blocks), Control::RepairRequest(shreds)];
    let answers = |node: &mut Protocol| {
        while node.poll_transmit(now).is_some() {}
        questions.iter().for_each(|frame| node.handle_control(now, peer(2), &frame.to_bytes()));
        std::iter::from_fn(|| node.poll_transmit(now)).filter(|t| t.to == peer(2)).count()
    };
    let node = &mut net.nodes[1];
    assert!(answers(node) > 2, "it has both");
    // Frames of a connection may be read after its end.
    node.handle_disconnected(peer(2));
    assert_eq!(answers(node), 0);
    assert_eq!(node.outcomes().get(Outcome::RepairRefused), 2);
}

#[test]
fn a_peer_without_budget_is_told_so_once_in_a_while() {
    let mut config = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    config.catch_up.answer_burst = 1_200;
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

/// Node 4 tells no head, saw blocks 1 and 2, and was cut off for those from 3 on.
fn relay(numbers: impl Iterator<Item = u64>) -> Net {
    let mut net = net();
    blocks(&mut net, 1..=2, 1_000);
    net.cut[LAST] = true;
    numbers.for_each(|number| blocks(&mut net, number..=number, 1_000));
    net.cut[LAST] = false;
    net
}

/// The blocks that node 4 has whole.
fn whole(net: &Net) -> Vec<u64> {
    let mut blocks: BTreeMap<u64, BTreeSet<u16>> = BTreeMap::new();
    for delivered in &net.delivered[LAST] {
        blocks.entry(delivered.key.block).or_default().insert(delivered.key.message);
    }
    blocks.into_iter().filter(|(_, places)| places.len() == 5).map(|(block, _)| block).collect()
}

#[test]
fn who_executes_nothing_needs_what_came_since_it_began() {
    let mut net = relay(3..=60);
    blocks(&mut net, 61..=62, 1_000);
    net.run_for(Duration::from_secs(2));
    assert_eq!(whole(&net), (1..=62).collect::<Vec<_>>());
    let state = net.nodes[LAST].catch_up();
    assert_eq!((state.verified, state.missing, state.gap), (None, None, None));
    assert!(gaps(&net).is_empty() && bars(&net) == 0);
    // Who begins later needs nothing that was before.
    let config = net.nodes[LAST].parts.ctx.config.clone();
    leave(&mut net);
    net.nodes[LAST] = net.world.node(LAST, config);
    net.dead[LAST] = false;
    net.delivered[LAST].clear();
    (0..LAST).for_each(|node| net.connect(node, LAST));
    blocks(&mut net, 63..=64, 1_000);
    net.run_for(Duration::from_secs(2));
    assert!(whole(&net).first().is_some_and(|first| *first >= 62), "{:?}", whole(&net));
    assert!(net.nodes[LAST].catch_up().missing.is_none());
}

/// As those of a chain are whose gateway was down.
#[test]
fn blocks_that_nobody_ever_sent_hold_up_none_of_the_others() {
    let there = |block: &u64| !(10..=13).contains(block) && *block != 30;
    let mut net = relay((3..=60).filter(there));
    blocks(&mut net, 61..=62, 1_000);
    net.run_for(Duration::from_secs(3));
    assert_eq!(whole(&net), (1..=62).filter(there).collect::<Vec<_>>());
    let asked = net.nodes[LAST].counters().blocks_requested;
    net.run_for(Duration::from_secs(60));
    let more = net.nodes[LAST].counters().blocks_requested - asked;
    assert!((5..=80).contains(&more), "{more}: each again, in six seconds");
    // And no more when they are far behind, until another peer comes.
    blocks(&mut net, 63..=140, 1_000);
    net.run_for(Duration::from_secs(200));
    let asked = net.nodes[LAST].counters().blocks_requested;
    net.run_for(Duration::from_secs(100));
    assert_eq!(net.nodes[LAST].counters().blocks_requested, asked);
    net.nodes[LAST].handle_disconnected(peer(1));
    net.nodes[1].handle_disconnected(peer(LAST as u32));
    net.connect(1, LAST);
    net.run_for(Duration::from_secs(1));
    assert!(net.nodes[LAST].counters().blocks_requested > asked);
    assert!(gaps(&net).is_empty());
}

#[test]
fn who_executes_nothing_is_told_what_is_lost_and_waits_for_none_of_it() {
    let mut short = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    short.catch_up.blocks = 10;
    let mut net = with(&short);
    let mut long = short;
    long.catch_up.blocks = 512;
    net.replace(LAST, long);
    blocks(&mut net, 1..=2, 1_000);
    net.cut[LAST] = true;
    blocks(&mut net, 3..=60, 1_000);
    net.cut[LAST] = false;
    blocks(&mut net, 61..=62, 1_000);
    net.run_for(Duration::from_secs(4));
    let gaps = gaps(&net);
    assert!(matches!(gaps[..], [Some((3, 51..=53)), None]), "{gaps:?}");
    let whole = whole(&net);
    assert!((54..=62).all(|block| whole.contains(&block)), "{whole:?}");
    assert_eq!(net.nodes[LAST].catch_up().missing, None);
}

/// How long a node takes that is away for `count` blocks of three frags, 50 ms from everybody.
fn time_for(config: &Config, questions: usize, count: u64, len: usize) -> Duration {
    let mut config = config.clone();
    (config.catch_up.questions, config.catch_up.blocks) = (questions, 600);
    let mut net = with(&config);
    blocks(&mut net, 1..=2, 1_000);
    leave(&mut net);
    // As if they had come one after the other.
    let last = 2 + count;
    for number in 3..=last {
        let frags = (0..3).map(|seq| frag(number, seq, len));
        let all = std::iter::once(env(number)).chain(frags).chain([seal(number, 3)]);
        let all: Vec<_> = (0..).zip(all.map(|message| net.world.sign(message))).collect();
        for node in &mut net.nodes[..LAST] {
            node.parts.archive.set_open(Some(number));
            node.parts.archive.insert_whole((number, 0, 0), &all);
        }
    }
    let now = net.now;
    net.nodes[..LAST].iter_mut().for_each(|node| node.handle_head(now, last));
    net.delay = Some(Duration::from_millis(50));
    start(&mut net, 2);
    blocks(&mut net, last + 1..=last + 2, 1_000);
    let started = net.now;
    let took = App::at(2).until(&mut net, last);
    took.unwrap_or_else(|| panic!("{:?}", net.nodes[LAST].catch_up()));
    assert_eq!((bars(&net), gaps(&net).len()), (0, 0));
    net.now.since(started)
}

#[test]
fn several_questions_at_a_time_close_a_gap_over_a_long_path_in_a_part_of_the_time() {
    for (count, len) in [(512, 3_000), (48, 300_000)] {
        let config = config(RoutePolicy::Fixed(Route::Direct), 0.0);
        let [one, many] = [1, 8].map(|questions| time_for(&config, questions, count, len));
        println!("{count} blocks of 3 x {len} bytes, 100 ms: one question {one:?}, eight {many:?}");
        assert!(many * 3 < one, "{count} blocks of {len}: {one:?} {many:?}");
    }
}

#[test]
fn what_comes_before_its_turn_is_held_within_memory_and_none_of_it_is_lost() {
    let mut config = config(RoutePolicy::Fixed(Route::Direct), 0.0);
    config.catch_up.memory = 24 * 1024 * 1024;
    let mut net = with(&config);
    blocks(&mut net, 1..=2, 1_000);
    leave(&mut net);
    blocks(&mut net, 3..=60, 100_000);
    // Long after that peers told of them last.
    net.run_for(Duration::from_secs(20));
    start(&mut net, 2);
    blocks(&mut net, 61..=62, 1_000);
    // The application stands still: what is ahead of it comes, and is held.
    net.run_for(Duration::from_secs(3));
    let whole = net.delivered[LAST].iter().filter(|d| d.via == Via::Whole);
    let handed = whole.map(|d| d.key.block).filter(|block| *block < 50).max();
    assert_eq!(handed, Some(34), "32 blocks ahead");
    let held = net.nodes[LAST].parts.catch_up.held_bytes();
    assert!(held > 3_000_000 && held <= 12 * 1024 * 1024, "{held}");
    let mut app = App::at(2);
    assert!(app.until(&mut net, 60).is_some(), "{:?}", net.nodes[LAST].catch_up());
    assert_eq!(net.nodes[LAST].parts.catch_up.held_bytes(), 0);
}

/// Each message is signed, and the block is none: the Seal is of another opening.
#[test]
fn a_peer_that_mixes_two_openings_of_a_block_is_left_and_another_brings_it() {
    let (mut net, liar, request) = asking();
    let sealed = |net: &Net, tx: &[u8]| {
        let transactions_root = alloy_trie::root::ordered_trie_root_encoded(&[tx]);
        let Message::Seal(seal) = seal(3, 1) else { unreachable!() };
        net.world.sign(fragcast_shredder::Seal { transactions_root, ..seal }.into())
    };
    let opened = net.world.sign(env(3));
    let content = net.world.sign(frag(3, 0, 500));
    let Message::Frag(own) = content.message() else { unreachable!() };
    let (right, wrong) = (sealed(&net, &own.txs[0]), sealed(&net, b"another"));
    for message in [&opened, &content, &wrong] {
        take_message(&mut net, liar, request.nonce, message);
    }
    let handed = |net: &mut Net| {
        let events = std::iter::from_fn(|| net.nodes[LAST].poll_event());
        let messages = events.filter_map(|event| match event {
            Event::Message { delivered, .. } => Some(delivered.key.message),
            _ => None,
        });
        messages.collect::<Vec<_>>()
    };
    assert!(handed(&mut net).is_empty());
    assert!(!net.nodes[LAST].parts.archive.was_whole(3));
    net.now = net.now + Duration::from_millis(300);
    let (other, second) = next(&mut net).expect("another is asked");
    assert_ne!(other, liar);
    assert_eq!((second.block, second.message), (3, 0));
    for message in [&opened, &content, &right] {
        take_message(&mut net, other, second.nonce, message);
    }
    assert_eq!(handed(&mut net), [0, 1, 2]);
    assert!(net.nodes[LAST].parts.archive.was_whole(3));
}
