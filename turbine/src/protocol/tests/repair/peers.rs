//! One node, and peers that lie to it, flood it or do not answer.

use bytes::Bytes;
use fragcast_shredder::Shred;

use super::*;
use crate::control::{RepairRequest, RepairShreds, Tip, Tips, WHOLE};

/// Node 3 of six, connected to all, and what the leader sends to it and to others.
pub(super) struct Scene {
    pub(super) world: World,
    pub(super) leader: Protocol,
    pub(super) node: Protocol,
    pub(super) now: Timestamp,
}

impl Scene {
    pub(super) fn new() -> Self {
        Self::with(&config(TREES[1], 0.02))
    }

    pub(super) fn with(settings: &Config) -> Self {
        Self::of(6, settings)
    }

    pub(super) fn of(nodes: usize, settings: &Config) -> Self {
        let world = World::new(&vec![1; nodes], 1);
        // Everything leaves at once: pacing is tested elsewhere.
        let settings = &Config { burst: Duration::from_secs(1_000), ..settings.clone() };
        let now = Timestamp::from_nanos(1_000_000_000);
        let mut leader = world.node(0, settings.clone());
        leader.assume_connected(1..nodes as PeerIndex);
        let mut node = world.node(3, settings.clone());
        node.assume_connected((0..nodes as PeerIndex).filter(|peer| *peer != 3));
        Self { world, leader, node, now }
    }

    /// All shreds of a message, and the index of its key.
    pub(super) fn cut(&mut self, message: Message) -> Vec<Bytes> {
        let message = self.world.sign(message);
        let key = key(message.message(), 0);
        self.leader.broadcast(self.now, key, &message).unwrap();
        let mut shreds: Vec<Bytes> = std::iter::from_fn(|| self.leader.poll_transmit(self.now))
            .filter_map(|t| match t.payload {
                Payload::Shred(bytes) => Some(bytes),
                Payload::Control(_) => None,
            })
            .collect();
        shreds.sort_by_key(|bytes| {
            let shred = Shred::parse(bytes.clone()).unwrap();
            (shred.header().set, shred.index())
        });
        shreds.dedup();
        shreds
    }

    pub(super) fn feed(&mut self, from: PeerIndex, shreds: &[Bytes]) {
        self.node
            .handle_datagrams(self.now, shreds.iter().map(|bytes| (peer(from), bytes.clone())));
    }

    pub(super) fn control(&mut self, from: PeerIndex, control: &Control) {
        self.node.handle_control(self.now, peer(from), &control.to_bytes());
    }

    pub(super) fn answer(&mut self, from: PeerIndex, nonce: u64, shreds: &[Bytes]) {
        for shreds in shreds.chunks(8) {
            let frame = RepairShreds { nonce, shreds: shreds.to_vec() };
            self.control(from, &Control::RepairShreds(frame));
        }
    }

    /// The requests that the node sends now; panics on shreds.
    pub(super) fn requests(&mut self) -> Vec<(PeerIndex, RepairRequest)> {
        let sent = std::iter::from_fn(|| self.node.poll_transmit(self.now));
        sent.filter_map(|t| match t.payload {
            Payload::Shred(_) => panic!("a shred was sent"),
            Payload::Control(frame) => match Control::from_bytes(&frame).unwrap() {
                Control::RepairRequest(request) => Some((t.to.number(), request)),
                _ => None,
            },
        })
        .collect()
    }

    /// Goes to the next timeout within `time`; says whether there was one.
    pub(super) fn next(&mut self, time: Duration) -> bool {
        let at = self.node.poll_timeout(self.now).filter(|at| *at <= self.now + time);
        let Some(at) = at else { return false };
        self.now = self.now.max(at);
        self.node.handle_timeout(self.now);
        true
    }

    /// Waits for the first requests.
    pub(super) fn wait(&mut self) -> Vec<(PeerIndex, RepairRequest)> {
        for _ in 0..1_000 {
            let requests = self.requests();
            if !requests.is_empty() {
                return requests;
            }
            assert!(self.next(Duration::from_secs(10)), "nothing is asked");
        }
        panic!("nothing is asked");
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.node.poll_event()).collect()
    }

    pub(super) fn barred(&mut self) -> Vec<(PeerIndex, Outcome)> {
        let bars = self.events().into_iter().filter_map(|e| match e {
            Event::Bar { peer, outcome } => Some((peer.number(), outcome)),
            _ => None,
        });
        bars.collect()
    }

    pub(super) fn count(&self, outcome: Outcome) -> u64 {
        self.node.outcomes().get(outcome)
    }

    /// Runs the due checks, and drops everything sent and reported so far.
    pub(super) fn settle(&mut self) {
        self.node.handle_timeout(self.now);
        while self.node.poll_transmit(self.now).is_some() {}
        self.events();
        self.now = self.now + Duration::from_secs(1);
    }

    /// A node that has two shreds of a message and asks for the others.
    pub(super) fn asking(&mut self) -> (Vec<Bytes>, PeerIndex, RepairRequest) {
        self.asking_for(5_000)
    }

    /// The same for a message of `len` bytes.
    pub(super) fn asking_for(&mut self, len: usize) -> (Vec<Bytes>, PeerIndex, RepairRequest) {
        let first = self.cut(env(1));
        self.feed(1, &first);
        self.settle();
        let shreds = self.cut(frag(1, 0, len));
        // Whatever the node relays itself is sent at once, and not what is tested here.
        self.feed(1, &shreds[..2]);
        self.settle();
        let requests = self.wait();
        let (peer, request) = requests[0];
        assert!(requests.iter().all(|(to, _)| *to == 1), "it sent shreds: {requests:?}");
        (shreds, peer, request)
    }
}

#[test]
fn what_comes_by_repair_is_delivered_and_never_forwarded() {
    let mut scene = Scene::new();
    let (shreds, peer, request) = scene.asking();
    assert_eq!((request.set, request.have), (0, 0b11));
    let before = *scene.node.counters();
    scene.answer(peer, request.nonce, &shreds[2..]);
    let events = scene.events();
    let [Event::Message { delivered, from }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((delivered.via, *from), (Via::Repair, Some(super::peer(peer))));
    // The set arrived whole and is re-encoded now; nothing of it is owed.
    while scene.next(Duration::from_secs(100)) {
        assert!(scene.requests().is_empty(), "panics on shreds, too");
    }
    let after = *scene.node.counters();
    assert_eq!((after.forwarded, after.owed), (before.forwarded, before.owed));
    assert_eq!(after.repaired, 1);
    assert!(scene.count(Outcome::RepairLate) > 0, "the frames after the last that was needed");
    // The same without a repaired shred: this node does relay some of it.
    let mut scene = Scene::new();
    let shreds = scene.cut(frag(1, 0, 5_000));
    scene.feed(1, &shreds);
    scene.node.handle_timeout(scene.now);
    assert!(scene.node.counters().forwarded + scene.node.counters().owed > 0);
}

#[test]
fn unasked_answers_are_counted_and_not_taken() {
    let mut scene = Scene::new();
    let (shreds, peer, request) = scene.asking();
    let stored = scene.count(Outcome::Stored);
    // A nonce that nobody was given; the right one from another peer; and other shreds.
    scene.answer(peer, request.nonce + 1, &shreds[2..4]);
    scene.answer(2, request.nonce, &shreds[2..4]);
    assert_eq!(scene.count(Outcome::RepairUnasked), 2);
    let other = scene.cut(frag(1, 1, 500));
    scene.answer(peer, request.nonce, &other[..1]);
    assert_eq!(scene.count(Outcome::RepairUnasked), 3);
    assert_eq!(scene.count(Outcome::Stored), stored);
    assert!(scene.events().is_empty(), "nobody is barred");
}

/// As long as a message is not whole the one who was asked for it could send the same shreds for
/// ever, or none, in frames that are paid for by nobody.
#[test]
fn an_answer_without_end_costs_its_sender() {
    for shreds in [0, 1, 8] {
        let mut scene = Scene::new();
        let (sent, from, request) = scene.asking_for(60_000);
        let again = &sent[..shreds];
        let mut taken = 0;
        for _ in 0..200_000 {
            let before = scene.count(Outcome::Control);
            let frame = RepairShreds { nonce: request.nonce, shreds: again.to_vec() };
            scene.control(from, &Control::RepairShreds(frame));
            taken += scene.count(Outcome::Control) - before;
            if scene.count(Outcome::OverBudget) > 0 {
                break;
            }
        }
        assert!(scene.count(Outcome::OverBudget) > 0, "{shreds} shreds a frame");
        assert!(taken <= 256 * 1024 / 64, "{taken} frames of {shreds} shreds");
    }
}

#[test]
fn forged_and_junk_answers_convict_who_sent_them() {
    let mut scene = Scene::new();
    let (shreds, peer, request) = scene.asking();
    let mut forged = shreds[2].to_vec();
    forged[60] ^= 1;
    scene.answer(peer, request.nonce, &[forged.into(), shreds[3].clone()]);
    assert_eq!(scene.barred(), [(peer, Outcome::BadSignature)]);
    let stored = scene.count(Outcome::Stored);
    assert_eq!(stored, 2, "what stands behind the lie is not taken either");
    // Whoever is barred is not asked again, and others are.
    let requests = scene.wait();
    assert!(requests.iter().all(|(to, _)| *to != peer), "{requests:?}");
    let (second, request) = requests[0];
    scene.answer(
        second,
        request.nonce,
        &[Bytes::from_static(&[fragcast_shredder::shred::VERSION; 200])],
    );
    assert_eq!(scene.barred(), [(second, Outcome::Malformed)]);
    let requests = scene.wait();
    assert!(requests.iter().all(|(to, _)| *to != peer && *to != second));
    let (third, request) = requests[0];
    scene.answer(third, request.nonce, &shreds[2..]);
    assert!(matches!(scene.events()[..], [Event::Message { .. }]));
}

#[test]
fn the_leader_is_asked_late_and_two_at_once_from_the_second_try_on() {
    let mut settings = config(TREES[1], 0.02);
    // Longer than tips of the open block go on.
    settings.repair.pause = Duration::from_secs(60);
    let mut scene = Scene::with(&settings);
    let (_, peer, _) = scene.asking();
    let mut tries: Vec<Vec<PeerIndex>> = vec![vec![peer]];
    while scene.next(Duration::from_secs(100)) {
        let asked: Vec<PeerIndex> = scene.requests().into_iter().map(|(to, _)| to).collect();
        if !asked.is_empty() {
            tries.push(asked);
        }
    }
    let counts: Vec<usize> = tries.iter().map(Vec::len).collect();
    assert_eq!(counts, [vec![1], vec![2; 11]].concat(), "{tries:?}");
    let with_leader: Vec<usize> = (0..12).filter(|n| tries[*n].contains(&0)).collect();
    assert_eq!(with_leader, [3, 7, 11]);
    assert_eq!(scene.node.counters().repair_given_up, 1);
    assert_eq!(scene.node.poll_timeout(scene.now), None, "given up, so it sleeps");
    // Tips start it again, but not at once.
    let tip = Tip { block: 1, attempt: 0, row: 2, above: 0 };
    let tips = Control::Tips(Tips { tips: vec![tip] });
    scene.control(2, &tips);
    assert_eq!(scene.node.poll_timeout(scene.now), None);
    scene.now = scene.now + Duration::from_secs(61);
    scene.control(2, &tips);
    let told = scene.now;
    assert!(scene.wait().iter().all(|(_, request)| request.message == 1));
    assert!(scene.now.since(told) >= Duration::from_millis(100));
}

#[test]
fn round_trips_are_measured_and_retries_follow_them() {
    let mut scene = Scene::new();
    let (shreds, peer, request) = scene.asking();
    let asked = scene.now;
    // An answer after 10 ms, with one shred of many; the rest never comes.
    scene.now = scene.now + Duration::from_millis(10);
    scene.answer(peer, request.nonce, &shreds[2..3]);
    let again = scene.wait();
    // Another peer is asked, after the first one's patience from the start, which was unmeasured.
    assert_eq!(scene.now.since(asked), Duration::from_millis(200));
    assert!(again.iter().all(|(to, _)| *to != peer));
    let (second, request) = again[0];
    assert_eq!(request.have, 0b111);
    scene.now = scene.now + Duration::from_millis(40);
    scene.answer(second, request.nonce, &shreds[3..4]);
    scene.answer(second, request.nonce, &shreds[4..5]);
    let other = scene.cut(frag(1, 1, 5_000));
    scene.feed(second, &other[..1]);
    while scene.node.poll_transmit(scene.now).is_some() {}
    scene.now = scene.now + Duration::from_secs(1);
    let mut at = Vec::new();
    while at.len() < 2 && scene.next(Duration::from_secs(1)) {
        let now = scene.now;
        at.extend(scene.requests().iter().filter(|(_, r)| r.message == 2).map(|_| now));
    }
    // 40 ms × 1.5 + 20 ms.
    assert_eq!(at[1].since(at[0]), Duration::from_millis(80));
}

#[test]
fn tips_that_lie_cost_the_liar_s_answers_and_nobody_else_s() {
    let mut scene = Scene::new();
    let shreds = scene.cut(env(1));
    scene.feed(1, &shreds);
    scene.settle();
    // Blocks far away, of nobody, superseded or old, and 65,535 messages that do not exist.
    let tip = |block, row| Tip { block, attempt: 0, row, above: u64::MAX };
    for block in [0, 1, 2, 8, 9, 1_000_000, u64::MAX] {
        scene.control(4, &Control::Tips(Tips { tips: vec![tip(block, u16::MAX); 8] }));
    }
    let (mut most, mut asked) = (0, 0);
    while scene.next(Duration::from_secs(100)) {
        let requests = scene.requests();
        assert!(requests.iter().all(|(to, _)| *to == 4), "hearsay is asked of who told it");
        most = most.max(requests.len());
        asked += requests.len();
    }
    assert!(most <= 16, "{most} at a time");
    assert!(asked <= 64 * 12, "{asked} in all");
    assert!(asked > 0);
    // Given up: nothing more until the liar speaks again.
    assert_eq!(scene.node.poll_timeout(scene.now), None);
    assert!(scene.events().is_empty());
}

#[test]
fn a_flood_of_requests_stays_within_budget() {
    let mut settings = config(TREES[1], 0.02);
    settings.repair.answer_bps = 8_000_000;
    settings.repair.answer_burst = 200_000;
    let mut scene = Scene::with(&settings);
    let shreds = scene.cut(frag(1, 0, 100_000));
    let leader = std::mem::replace(&mut scene.leader, scene.world.node(1, settings));
    scene.node = leader;
    let request =
        |set, message, nonce| RepairRequest { nonce, block: 1, attempt: 0, message, set, have: 0 };
    for nonce in 0..2_000 {
        scene.control(2, &Control::RepairRequest(request(WHOLE, 1, nonce)));
        scene.control(2, &Control::RepairRequest(request(0, 1, nonce)));
        scene.now = scene.now + Duration::from_micros(500);
    }
    let counters = *scene.node.counters();
    let budget = 200_000 + 1_000_000;
    assert!(counters.repair_answered_bytes <= budget, "{counters:?}");
    assert!(counters.repair_answered_bytes > budget / 3, "{counters:?}");
    assert!(scene.count(Outcome::RepairRefused) > 1_000);
    // Another peer is served all the same, whole and in frames that are small.
    let mut queued = 0;
    while let Some(t) = scene.node.poll_transmit(scene.now) {
        assert_eq!((t.to, t.lane), (super::peer(2), Lane::Repair));
        queued += t.payload.len();
    }
    assert!(queued as u64 <= budget + budget / 50);
    scene.control(5, &Control::RepairRequest(request(0, 1, 1)));
    let frames: Vec<Transmit> =
        std::iter::from_fn(|| scene.node.poll_transmit(scene.now)).collect();
    let got: usize = frames
        .iter()
        .map(|t| match &t.payload {
            Payload::Control(frame) => match Control::from_bytes(frame).unwrap() {
                Control::RepairShreds(answer) => answer.shreds.len(),
                other => panic!("{other:?}"),
            },
            Payload::Shred(_) => panic!("repair is no datagram"),
        })
        .sum();
    let k = Shred::parse(shreds[0].clone()).unwrap().header().k;
    assert_eq!(got, usize::from(k));
    assert!(frames.iter().all(|t| t.payload.len() < 10_000));
}

#[test]
fn requests_for_what_cannot_be_are_counted_and_not_punished() {
    let mut scene = Scene::new();
    let shreds = scene.cut(frag(1, 0, 5_000));
    scene.feed(1, &shreds);
    scene.node.handle_timeout(scene.now);
    while scene.node.poll_transmit(scene.now).is_some() {}
    scene.events();
    let good = RepairRequest { nonce: 1, block: 1, attempt: 0, message: 1, set: 0, have: 0 };
    let nonsense = [
        RepairRequest { block: 2, ..good },
        RepairRequest { block: u64::MAX, ..good },
        RepairRequest { attempt: 1, ..good },
        RepairRequest { attempt: 200, ..good },
        RepairRequest { message: 0, ..good },
        RepairRequest { message: u16::MAX, ..good },
        RepairRequest { set: 1, ..good },
        RepairRequest { set: u16::MAX - 1, ..good },
        RepairRequest { have: u64::MAX, ..good },
    ];
    for request in &nonsense {
        scene.control(2, &Control::RepairRequest(*request));
    }
    assert_eq!(scene.count(Outcome::RepairLacking), nonsense.len() as u64);
    assert!(scene.node.poll_transmit(scene.now).is_none());
    scene.control(2, &Control::RepairRequest(good));
    assert!(scene.node.poll_transmit(scene.now).is_some());
    assert!(scene.events().is_empty());
}

#[test]
fn complete_sets_are_kept_within_memory_and_the_oldest_block_goes_first() {
    let mut settings = config(TREES[1], 0.02);
    settings.repair.memory = 1_000_000;
    let mut scene = Scene::with(&settings);
    let mut last = 0;
    for block in 1..40 {
        // Alternately as a follower and as the leader itself.
        for message in [env(block), frag(block, 0, 30_000)] {
            let shreds = scene.cut(message);
            scene.feed(1, &shreds);
            scene.node.handle_timeout(scene.now);
        }
        assert!(scene.node.repair_bytes() <= 1_000_000);
        assert!(scene.leader.repair_bytes() <= 1_000_000);
        last = block;
    }
    for node in [&scene.node, &scene.leader] {
        assert!(node.repair_bytes() > 700_000);
        let Some(Control::Tips(Tips { tips })) = super::messages::greeting(node) else {
            panic!("none")
        };
        let kept: Vec<u64> = tips.iter().map(|tip| tip.block).collect();
        assert!(kept.len() > 2, "{kept:?}");
        assert_eq!(kept, (0..kept.len() as u64).map(|n| last - n).collect::<Vec<_>>());
        assert!(tips.iter().all(|tip| (tip.row, tip.above) == (2, 0)));
    }
    // Below the window nothing is kept at all.
    scene.node.handle_head(scene.now, 1_000);
    assert_eq!(scene.node.repair_bytes(), 0);
}

#[test]
fn a_node_is_busy_while_it_lacks_something_and_not_by_tips_alone() {
    let mut scene = Scene::new();
    assert!(!scene.node.busy());
    let shreds = scene.cut(env(1));
    scene.feed(1, &shreds);
    scene.node.handle_timeout(scene.now);
    while scene.node.poll_transmit(scene.now).is_some() {}
    assert!(!scene.node.busy(), "it is whole");
    assert!(scene.node.poll_timeout(scene.now).is_some(), "and tells of it");
    let (shreds, peer, request) = scene.asking();
    assert!(scene.node.busy(), "a request is under way");
    scene.answer(peer, request.nonce, &shreds[2..]);
    scene.node.handle_timeout(scene.now);
    while scene.node.poll_transmit(scene.now).is_some() {}
    assert!(!scene.node.busy(), "it came");
    // What is given up is no business either.
    let shreds = scene.cut(frag(1, 1, 5_000));
    scene.feed(1, &shreds[..2]);
    assert!(scene.node.busy());
    while scene.node.poll_transmit(scene.now).is_some() {}
    while scene.next(Duration::from_secs(100)) {
        scene.requests();
    }
    assert_eq!(scene.node.counters().repair_given_up, 1);
    assert!(!scene.node.busy());
}

#[test]
fn a_leader_that_signs_an_index_far_away_does_not_end_repair() {
    let mut scene = Scene::new();
    let first = scene.cut(env(1));
    scene.feed(1, &first);
    scene.settle();
    // One signed shred tells of thousands of messages that nobody has.
    let far = scene.cut(frag(1, 40_000, 5_000));
    scene.feed(1, &far[..2]);
    while scene.next(Duration::from_secs(1_000)) {
        scene.requests();
    }
    assert!(!scene.node.busy(), "all of it is given up");
    // The next block loses a little, as blocks do.
    let first = scene.cut(env(2));
    scene.feed(1, &first);
    let shreds = scene.cut(frag(2, 0, 5_000));
    scene.feed(1, &shreds[..2]);
    scene.settle();
    assert!(scene.wait().iter().any(|(_, request)| (request.block, request.message) == (2, 1)));
}

#[test]
fn liars_whose_hearsay_was_given_up_make_room_for_others() {
    let mut scene = Scene::of(16, &config(TREES[1], 0.02));
    let first = scene.cut(env(1));
    scene.feed(1, &first);
    scene.settle();
    // As many as fill the table, each with what does not exist, in openings of its own.
    for liar in 5..15 {
        let tip =
            Tip { block: 2 + u64::from(liar) % 7, attempt: liar as u8 / 7, row: 64, above: 0 };
        scene.control(liar, &Control::Tips(Tips { tips: vec![tip] }));
    }
    assert!(scene.node.busy());
    while scene.next(Duration::from_secs(1_000)) {
        scene.requests();
    }
    assert_eq!(scene.node.counters().repair_given_up, 512, "the table was full");
    // Another one, and one of the liars, tell the truth about two tails.
    for (peer, message) in [(1, 1), (5, 2)] {
        let tip = Tip { block: 1, attempt: 0, row: 1, above: 1 << message >> 2 };
        let tip = if message == 1 { Tip { row: 2, ..tip } } else { tip };
        scene.control(peer, &Control::Tips(Tips { tips: vec![tip] }));
        let asked = scene.wait();
        assert!(asked.iter().all(|(to, r)| (*to, r.block, r.message) == (peer, 1, message)));
    }
}

#[test]
fn no_attempt_that_cannot_be_is_asked_for() {
    let mut scene = Scene::new();
    let first = scene.cut(env(1));
    scene.feed(1, &first);
    scene.settle();
    let tip = |attempt| Tip { block: 1, attempt, row: 1, above: 0 };
    let tips = vec![tip(8), tip(255)];
    scene.control(4, &Control::Tips(Tips { tips }));
    assert!(!scene.node.busy(), "an attempt is below eight");
}

#[test]
fn requests_of_superseded_attempts_and_old_blocks_are_forgotten() {
    let mut scene = Scene::new();
    let (_, _, request) = scene.asking();
    assert_eq!((request.block, request.message), (1, 1));
    assert_eq!(scene.node.parts.repair.requests_waiting(scene.now), 1);
    scene.node.parts.supersede(1, 1);
    assert_eq!(scene.node.parts.repair.requests_waiting(scene.now), 0);
    let mut scene = Scene::new();
    scene.asking();
    scene.node.handle_head(scene.now, 1_000);
    assert_eq!(scene.node.parts.repair.requests_waiting(scene.now), 0);
    assert!(!scene.node.busy());
}
