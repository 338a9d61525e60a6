use std::time::Duration;

use super::*;
use crate::egress::Payload;
use crate::membership::sample;
use crate::protocol::tests::{CHAIN, World, peer};
use crate::protocol::{Config, Event, Protocol};

const SECOND: Duration = Duration::from_secs(1);

/// A network whose nodes measure, all in virtual time.
struct Net {
    nodes: Vec<Protocol>,
    now: Timestamp,
    /// Pairs that are not connected.
    apart: Vec<(u32, u32)>,
    /// Frames of delays that were sent: from, to.
    frames: Vec<(u32, u32)>,
    /// Round trips in ms, by both ends.
    millis: fn(u32, u32) -> u64,
}

fn millis(a: u32, b: u32) -> u64 {
    10 + 10 * u64::from(a.abs_diff(b))
}

impl Net {
    /// Of members of weight one, the first two of which run gateways.
    fn new(members: usize, apart: &[(u32, u32)]) -> Self {
        let world = World::new(&vec![1; members], 2);
        let keys = sample(CHAIN, &vec![1; members]).1;
        let mut config = Config::new(CHAIN);
        config.repair.enabled = false;
        let mut nodes: Vec<Protocol> =
            (0..members).map(|index| world.node(index, config.clone())).collect();
        for (node, key) in nodes.iter_mut().zip(keys) {
            node.set_identity(key);
        }
        let now = Timestamp::from_nanos(1_000_000_000_000);
        let mut net = Self { nodes, now, apart: apart.to_vec(), frames: Vec::new(), millis };
        for (a, b) in net.pairs() {
            net.nodes[a as usize].assume_connected([b]);
            net.nodes[b as usize].assume_connected([a]);
        }
        net
    }

    fn pairs(&self) -> Vec<(u32, u32)> {
        let n = self.nodes.len() as u32;
        let all = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b)));
        all.filter(|pair| !self.apart.contains(pair)).collect()
    }

    /// Seconds pass in which every node measures.
    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now + SECOND;
            let pairs = self.pairs();
            for me in 0..self.nodes.len() as u32 {
                let samples = pairs.iter().filter_map(|(a, b)| match me {
                    me if me == *a => Some(*b),
                    me if me == *b => Some(*a),
                    _ => None,
                });
                let millis = self.millis;
                // Every third sample stood in a queue.
                let quiet = (self.now.as_micros() / 1_000_000).is_multiple_of(3);
                let queue = if quiet { 0 } else { 40 };
                let sample = |to| (peer(to), Duration::from_millis(millis(me, to) + queue));
                let samples: Vec<_> = samples.map(sample).collect();
                self.nodes[me as usize].handle_round_trips(self.now, samples);
            }
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        loop {
            let mut sent = Vec::new();
            for (from, node) in (0..).zip(&mut self.nodes) {
                while let Some(transmit) = node.poll_transmit(self.now) {
                    let Payload::Control(bytes) = transmit.payload else { continue };
                    sent.push((from, transmit.to.number(), bytes));
                }
            }
            if sent.is_empty() {
                return;
            }
            for (from, to, bytes) in sent {
                if bytes[0] == 13 {
                    self.frames.push((from, to));
                }
                let to = &mut self.nodes[to as usize];
                if to.is_connected(peer(from)) {
                    to.handle_control(self.now, peer(from), &bytes);
                }
            }
        }
    }

    fn told(&self, at: u32, a: u32, b: u32) -> Option<u32> {
        let (matrix, _) = self.nodes[at as usize].delays_at(0)?;
        matrix.rtt(a, b).micros()
    }

    /// Hands a frame to the leader; what became of it.
    fn hand(&mut self, from: u32, signed: &SignedDelayVector) -> Outcome {
        let leader = &mut self.nodes[0];
        let before = leader.outcomes().clone();
        let frame = Control::Delays(Box::new(signed.clone())).to_bytes();
        leader.handle_control(self.now, peer(from), &frame);
        let changed = leader.outcomes().iter().zip(before.iter());
        let mut changed = changed.filter(|((_, after), (_, before))| after > before);
        let ((outcome, _), _) = changed.next().expect("it was counted");
        assert!(changed.next().is_none());
        outcome
    }

    fn barred(&mut self) -> Vec<u32> {
        let events = std::iter::from_fn(|| self.nodes[0].poll_event());
        let bars = events.filter_map(|event| match event {
            Event::Bar { peer, .. } => Some(peer.number()),
            _ => None,
        });
        bars.collect()
    }
}

/// A vector of a member over the table of [`Net`], signed by `signer`.
fn signed(members: usize, member: u32, sequence: u64, signer: usize) -> SignedDelayVector {
    signed_with((members, members), member, sequence, signer)
}

/// The same, as if the table had another number of members.
fn signed_with(
    (members, len): (usize, usize),
    member: u32,
    sequence: u64,
    signer: usize,
) -> SignedDelayVector {
    let (table, keys) = sample(CHAIN, &vec![1; members]);
    let others = (0..members as u32).filter(|other| *other != member);
    let pairs: Vec<_> = others.map(|other| (other, RttCode::of_micros(70_000))).collect();
    let of = (CHAIN, table.hash(), len);
    DelayVector::new(of, member, sequence, &pairs).sign(&keys[signer])
}

#[test]
fn what_members_measured_becomes_the_leaders_matrix() {
    let mut net = Net::new(6, &[]);
    net.run(3);
    assert!(net.frames.is_empty(), "too early to tell");
    net.run(2);
    for leader in [0, 1] {
        for (a, b) in net.pairs() {
            let told = f64::from(net.told(leader, a, b).unwrap());
            let truth = millis(a, b) as f64 * 1_000.0;
            assert!((told / truth - 1.0).abs() < 0.06, "{a} {b}: {told}");
        }
        let state = net.nodes[leader as usize].delays();
        assert_eq!((state.measured, state.reporters, state.pairs), (5, 6, 15));
        assert!(state.generation > 0 && state.coordinates_error.is_none());
        assert!((29_000..31_000).contains(&state.median_micros.unwrap()));
    }
    // Who does not lead knows nothing, and is told nothing.
    assert!(net.nodes[3].delays_at(0).is_none());
    assert_eq!(net.nodes[3].delays(), DelaysState { measured: 5, ..Default::default() });
    assert_eq!(net.frames.len(), 2 * 5, "each member but itself to each leader, once");
    assert!(net.frames.iter().all(|(_, to)| *to < 2));
    for node in &net.nodes {
        assert_eq!(
            node.outcomes().get(Outcome::Control),
            node.outcomes().iter().map(|o| o.1).sum::<u64>()
        );
    }
}

#[test]
fn noise_is_not_told_and_a_change_is_told_once() {
    let mut net = Net::new(6, &[]);
    net.run(5);
    net.frames.clear();
    net.run(120);
    assert!(net.frames.is_empty(), "the minimum is as before");
    net.millis = |a, b| millis(a, b) * if a.max(b) == 5 { 3 } else { 1 };
    net.run(60);
    let far = net.told(1, 2, 5).unwrap();
    assert!((115_000..125_000).contains(&far), "{far}");
    // Every member has seen it, and tells two leaders, unless it is one.
    assert_eq!(net.frames.len(), 2 * 5);
}

#[test]
fn a_leader_that_connects_later_is_told_at_once() {
    let mut net = Net::new(5, &[]);
    net.run(5);
    for (one, other) in [(0, 4), (4, 0)] {
        net.nodes[one].handle_disconnected(peer(other as u32));
        net.nodes[one].handle_connected(peer(other as u32));
    }
    net.frames.clear();
    net.deliver();
    assert_eq!(net.frames, [(4, 0)]);
    assert_eq!(net.nodes[0].outcomes().get(Outcome::DelaysOld), 1);
}

#[test]
fn others_pass_on_what_is_for_a_leader_out_of_reach() {
    let mut net = Net::new(8, &[(0, 6), (0, 7), (5, 7)]);
    net.run(5);
    for (a, b) in [(6, 7), (2, 6), (2, 7)] {
        let told = f64::from(net.told(0, a, b).unwrap());
        assert!((told / (millis(a, b) as f64 * 1_000.0) - 1.0).abs() < 0.06, "{a} {b}");
    }
    assert_eq!(net.nodes[0].delays().reporters, 8);
    assert!(net.told(0, 0, 7).is_none(), "nobody measured it");
    // Passed on once by each, and no further, and those who have it already are not at fault.
    assert!(net.frames.len() < 60, "{}", net.frames.len());
    assert!(net.barred().is_empty());
    net.frames.clear();
    net.run(60);
    assert!(net.frames.is_empty());
}

#[test]
fn a_vector_counts_if_its_member_signed_it_over_our_table_and_it_is_newer() {
    let mut net = Net::new(5, &[]);
    assert_eq!(net.hand(2, &signed(5, 2, 9, 2)), Outcome::Control);
    assert_eq!(net.told(0, 2, 3), Some(RttCode::of_micros(70_000).longer(6).micros().unwrap()));
    assert_eq!(net.hand(2, &signed(5, 2, 9, 2)), Outcome::DelaysOld);
    assert_eq!(net.hand(3, &signed(5, 2, 8, 2)), Outcome::DelaysOld);
    assert_eq!(net.hand(2, &signed(5, 2, 10, 2)), Outcome::DelaysSoon);
    assert_eq!(net.hand(2, &signed(6, 2, 10, 2)), Outcome::DelaysTable);
    let mut other_chain = signed(5, 2, 10, 2);
    other_chain.vector.chain_id += 1;
    assert_eq!(net.hand(2, &other_chain), Outcome::DelaysTable);
    assert_eq!(net.hand(2, &signed(5, 0, 10, 0)), Outcome::DelaysUnwanted, "this node's own");
    // By way of another.
    assert_eq!(net.hand(4, &signed(5, 3, 1, 3)), Outcome::Control);
    assert!(net.barred().is_empty());
    net.now = net.now + 6 * SECOND;
    assert_eq!(net.hand(2, &signed(5, 2, 10, 2)), Outcome::Control);
}

#[test]
fn who_sends_a_vector_that_nobody_signed_or_of_no_form_is_barred() {
    let mut net = Net::new(6, &[]);
    assert_eq!(net.hand(2, &signed(6, 3, 1, 2)), Outcome::ControlBad, "for another");
    let mut altered = signed(6, 4, 1, 4);
    altered.vector.sequence += 1;
    assert_eq!(net.hand(4, &altered), Outcome::ControlBad);
    let long = signed_with((6, 9), 3, 1, 3);
    assert_eq!(net.hand(5, &long), Outcome::ControlBad, "of another length");
    assert_eq!(net.barred(), [2, 4, 5]);
    assert_eq!(net.hand(2, &signed(6, 2, 1, 2)), Outcome::Barred);
    assert!(net.nodes[0].delays_at(0).is_none_or(|(_, generation)| generation == 0));
}

#[test]
fn who_neither_leads_nor_reaches_a_leader_takes_none() {
    let mut net = Net::new(5, &[(0, 2), (1, 2)]);
    let hand = |net: &mut Net, signed: &SignedDelayVector| {
        let frame = Control::Delays(Box::new(signed.clone())).to_bytes();
        net.nodes[2].handle_control(net.now, peer(3), &frame);
    };
    hand(&mut net, &signed(5, 3, 1, 3));
    assert_eq!(net.nodes[2].outcomes().get(Outcome::DelaysUnwanted), 1);
    // One that reaches a leader passes on only what comes from its own member, and verifies it.
    let mut net = Net::new(5, &[]);
    hand(&mut net, &signed(5, 4, 1, 4));
    assert_eq!(net.nodes[2].outcomes().get(Outcome::DelaysUnwanted), 1);
    hand(&mut net, &signed(5, 3, 1, 4));
    assert_eq!(net.nodes[2].outcomes().get(Outcome::ControlBad), 1);
    net.deliver();
    assert!(net.frames.is_empty());
}

#[test]
fn a_flood_of_vectors_is_paid_for_by_who_sends_it() {
    let mut net = Net::new(6, &[]);
    let other_table = signed(7, 3, 1, 3);
    let good = signed(6, 4, 9, 4);
    assert_eq!(net.hand(4, &good), Outcome::Control);
    let mut last = Outcome::Control;
    for _ in 0..100_000 {
        last = net.hand(3, &other_table);
        if last == Outcome::Barred {
            break;
        }
    }
    assert_eq!(last, Outcome::Barred);
    let outcomes = net.nodes[0].outcomes();
    let looked_at = outcomes.get(Outcome::DelaysTable);
    // A burst of 100 ms of work, at 2 µs a frame.
    assert!((40_000..=50_001).contains(&looked_at), "{looked_at}");
    assert!(outcomes.get(Outcome::OverBudget) > 0);
    assert_eq!(net.hand(4, &good), Outcome::DelaysOld, "others are heard as before");
    assert_eq!(net.barred(), [3]);
}

#[test]
fn vectors_go_with_the_epoch_of_their_table() {
    let mut net = Net::new(5, &[]);
    net.run(5);
    assert!(net.nodes[0].delays_at(0).is_some());
    let delays = &mut net.nodes[0].parts.delays;
    assert_eq!((delays.told.len(), delays.joined.len()), (1, 1));
    // Of an epoch with another table nothing is kept once the old one is gone.
    let world = World::new(&[1; 4], 2);
    let other = crate::protocol::ctx::testing::ctx(&world, 0, Config::new(CHAIN));
    delays.follow(&other.epochs);
    assert_eq!((delays.told.len(), delays.joined.len()), (0, 0));
    assert_eq!(net.nodes[0].delays().measured, 4);
}
