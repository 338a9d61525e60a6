use std::collections::BTreeSet;

use super::*;
use crate::fault::Fault;
use crate::link::Loss;
use crate::world::sample::line;
use crate::{MILLIS, SECONDS};

/// The leader sends to all nodes, and each of them answers once.
struct Echo {
    answers: u64,
    limit: Option<u32>,
}

impl Overlay for Echo {
    type Packet = u8;

    fn start(&mut self, ctx: &mut Context<'_, u8>) {
        ctx.timer(0, MILLIS, 7, true);
    }

    fn broadcast(&mut self, ctx: &mut Context<'_, u8>, index: usize) {
        let leader = ctx.load().broadcasts[index].leader;
        for to in 0..ctx.world().len() as NodeId {
            if to != leader {
                ctx.send(leader, to, 1_000, Class::Data, 0);
            }
        }
    }

    fn deliver(&mut self, ctx: &mut Context<'_, u8>, from: NodeId, to: NodeId, packet: u8) {
        if packet == 0 {
            ctx.complete(to, 0, How::Spread);
            ctx.send(to, from, 100, Class::Data, 1);
        } else {
            self.answers += 1;
        }
    }

    fn timer(&mut self, ctx: &mut Context<'_, u8>, node: NodeId, token: u64) {
        let again = ctx.now() + MILLIS;
        ctx.timer(node, again, token, true);
    }

    fn max_degree(&self) -> Option<u32> {
        self.limit
    }
}

fn go(faults: &Faults, limit: Option<u32>, loss: f64, seed: u64) -> (Outcome, u64) {
    let world = line(10, 5, 10 * MILLIS);
    let load = Load::single(vec![0, 1], 1_000);
    let links = LinkConfig { loss: Loss::Independent(loss), ..LinkConfig::default() };
    let setup = Setup { world: &world, links, faults, load: &load, seed, patience: SECONDS };
    let mut echo = Echo { answers: 0, limit };
    let outcome = run(setup, &mut echo);
    (outcome, echo.answers)
}

#[test]
fn a_packet_takes_serialisation_propagation_and_the_hop() {
    let (outcome, answers) = go(&Faults::default(), None, 0.0, 1);
    assert_eq!(answers, 9);
    // 8 µs on each access link; node 1 is sent to first.
    assert_eq!(outcome.completions[0].after[1], 8_000 + 10_100_000 + 8_000 + 2_000 + 100_000);
    assert_eq!(outcome.completions[0].after[0], 0);
    assert_eq!(outcome.sent[0], 9_000);
    assert_eq!(outcome.received[0], 900);
    assert_eq!(outcome.degree[0], 9);
    assert_eq!(outcome.handled, 18);
    assert!(outcome.end < 100 * MILLIS, "housekeeping does not keep a run going");
}

#[test]
fn the_same_seed_gives_the_same_digest_and_another_seed_another() {
    let (a, b, c) = (
        go(&Faults::default(), None, 0.3, 1).0,
        go(&Faults::default(), None, 0.3, 1).0,
        go(&Faults::default(), None, 0.3, 2).0,
    );
    assert_eq!(a, b);
    assert_ne!(a.digest, c.digest);
}

/// A network in which connections follow the plan was refused packets over every new connection, as
/// soon as its nodes had ever had as many peers as they may have at a time.
#[test]
fn who_has_parted_makes_room_for_another() {
    let mut peers = Peers::new(4, Some(2));
    assert!(peers.meet(0, 1) && peers.meet(0, 2) && peers.meet(1, 0));
    assert!(!peers.meet(0, 3) && !peers.meet(3, 0));
    peers.part(1, 0);
    peers.part(1, 0);
    peers.part(1, 3);
    assert!(peers.meet(3, 0) && peers.meet(3, 1) && !peers.meet(0, 1));
    assert_eq!((peers.degree, peers.most), (vec![2, 1, 1, 2], vec![2, 1, 1, 2]));
}

#[test]
fn degrees_are_limited() {
    let (outcome, answers) = go(&Faults::default(), Some(4), 0.0, 1);
    assert_eq!((answers, outcome.refused), (4, 5));
    assert!(outcome.degree.iter().all(|degree| *degree <= 4));
}

#[test]
fn faults_act_on_hosts_and_paths() {
    let nodes = || BTreeSet::from([1, 2]);
    // Node 1 leads later, and a leader is never silent.
    let cases = [
        (Fault::Crash { nodes: nodes(), span: (0, MILLIS) }, 9, 9),
        (Fault::Crash { nodes: nodes(), span: (0, SECONDS) }, 7, 7),
        (Fault::Silent { nodes: nodes(), span: (0, SECONDS) }, 9, 8),
        (Fault::Partition { nodes: nodes(), span: (0, SECONDS) }, 7, 7),
        (Fault::Partition { nodes: nodes(), span: (5 * MILLIS, SECONDS) }, 9, 7),
    ];
    for (fault, received, answered) in cases {
        let name = format!("{fault:?}");
        let (outcome, answers) = go(&Faults(vec![fault]), None, 0.0, 1);
        let have = outcome.completions[0].after.iter().filter(|a| **a != NEVER).count() - 1;
        assert_eq!((have, answers), (received, answered), "{name}");
    }
    let slow = Fault::SlowUplink { nodes: BTreeSet::from([0]), span: (0, SECONDS), bps: 8_000_000 };
    let (outcome, _) = go(&Faults(vec![slow]), None, 0.0, 1);
    assert_eq!(outcome.completions[0].after[1], 1_000_000 + 10_100_000 + 8_000 + 102_000);
}
