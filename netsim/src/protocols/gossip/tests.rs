use std::collections::BTreeSet;

use super::*;
use crate::engine::{Setup, run};
use crate::fault::{ALWAYS, Fault, Faults, Span};
use crate::link::{LinkConfig, Loss};
use crate::load::Load;
use crate::outcome::{NEVER, Outcome};
use crate::world::sample::line;
use crate::{MILLIS, Nanos, SECONDS};

const BYTES: u32 = 36_000;

fn world() -> World {
    line(200, 10, 5 * MILLIS)
}

/// Node 3 sends a frag at each of these times.
fn frags(times: &[Nanos], bytes: u32) -> Load {
    let mut load = Load::single(vec![3], bytes);
    let first = load.broadcasts[0];
    load.broadcasts = times
        .iter()
        .enumerate()
        .map(|(i, at)| {
            let mut broadcast = crate::load::Broadcast { at: *at, ..first };
            broadcast.key.message += i as u16;
            broadcast
        })
        .collect();
    load
}

fn go(config: GossipConfig, load: &Load, faults: Vec<Fault>, seed: u64) -> (Outcome, Gossip) {
    let world = world();
    let faults = Faults(faults);
    let links = LinkConfig { loss: Loss::Independent(0.01), ..LinkConfig::default() };
    let patience = 10 * SECONDS;
    let setup = Setup { world: &world, links, faults: &faults, load, seed, patience };
    let mut gossip = Gossip::new(config, &world, load.broadcasts.len(), seed);
    (run(setup, &mut gossip), gossip)
}

fn missing(outcome: &Outcome) -> usize {
    let after = outcome.completions.iter().flat_map(|completion| &completion.after);
    after.filter(|after| **after == NEVER).count()
}

fn repaired(outcome: &Outcome) -> usize {
    let repaired = outcome.completions.iter().flat_map(|completion| &completion.repaired);
    repaired.filter(|repaired| **repaired).count()
}

fn mean(outcome: &Outcome) -> f64 {
    let after = &outcome.completions[0].after;
    after.iter().map(|after| *after as f64).sum::<f64>() / after.len() as f64
}

/// Bytes sent per node and byte of payload.
fn copies(outcome: &Outcome, load: &Load) -> f64 {
    outcome.sent.iter().sum::<u64>() as f64 / outcome.sent.len() as f64 / load.bytes() as f64
}

fn nodes(range: std::ops::Range<NodeId>) -> BTreeSet<NodeId> {
    range.collect()
}

#[test]
fn everybody_gets_it_at_the_price_of_the_mesh_within_the_connection_limit() {
    for (d, seed) in [(4, 1), (8, 2), (8, 3), (12, 4)] {
        let load = frags(&[0], BYTES);
        let (outcome, _) = go(GossipConfig::with_mesh(d), &load, vec![], seed);
        assert_eq!(missing(&outcome), 0);
        let copies = copies(&outcome, &load);
        assert!((f64::from(d) - 2.0..=f64::from(d)).contains(&copies), "{d}: {copies}");
        assert_eq!(outcome.refused, 0);
        let (least, most) = (outcome.degree.iter().min(), outcome.degree.iter().max());
        assert!(least >= Some(&(d - 2)) && most <= Some(&50), "{d}: {least:?} {most:?}");
        assert!(repaired(&outcome) < 20, "gossip seldom overtakes the mesh");
    }
}

#[test]
fn the_same_seed_gives_the_same_digest() {
    let load = frags(&[0, 200 * MILLIS], BYTES);
    let digest = |seed| {
        let digest = go(GossipConfig::based_op(), &load, vec![], seed).0.digest;
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
    assert_eq!(digest(1), "af38e1031d889376", "another model: every comparison's digest changes");
}

#[test]
fn idontwant_saves_bytes_of_large_messages_only() {
    let sent = |idontwant, bytes, validation| {
        let config = GossipConfig { idontwant, validation, ..GossipConfig::based_op() };
        let load = frags(&[0], bytes);
        let (outcome, _) = go(config, &load, vec![], 1);
        assert_eq!(missing(&outcome), 0);
        copies(&outcome, &load)
    };
    assert!(sent(true, 144_000, 0) < 0.95 * sent(false, 144_000, 0));
    // It arrives in time where validation delays messages.
    assert!(sent(true, BYTES, 20 * MILLIS) < 0.75 * sent(true, BYTES, 0));
    assert_eq!(sent(true, 1_023, 0), sent(false, 1_023, 0));
    assert_ne!(sent(true, 1_024, 0), sent(false, 1_024, 0));
}

#[test]
fn validation_holds_up_each_hop() {
    let load = frags(&[0], BYTES);
    let after = |validation| {
        let config = GossipConfig { validation, ..GossipConfig::based_op() };
        mean(&go(config, &load, vec![], 1).0)
    };
    let hops = (after(20 * MILLIS) - after(0)) / (20 * MILLIS) as f64;
    assert!((2.0..4.0).contains(&hops), "200 nodes are some three hops of 7 apart: {hops}");
}

#[test]
fn a_silent_majority_is_survived_by_asking() {
    let load = frags(&[0], BYTES);
    let silent = Fault::Silent { nodes: nodes(50..200), span: ALWAYS };
    let (outcome, _) = go(GossipConfig::based_op(), &load, vec![silent.clone()], 1);
    assert_eq!(missing(&outcome), 0);
    assert!(repaired(&outcome) > 10, "{}", repaired(&outcome));
    // Without advertisements in heartbeats they do not get it.
    let mute = GossipConfig { history_gossip: 0, ..GossipConfig::based_op() };
    let (outcome, _) = go(mute, &load, vec![silent], 1);
    assert!(missing(&outcome) > 10 && repaired(&outcome) == 0, "{}", missing(&outcome));
}

#[test]
fn a_partition_heals() {
    let load = frags(&[100 * MILLIS], BYTES);
    let span: Span = (0, 2 * SECONDS);
    let cut = Fault::Partition { nodes: nodes(100..200), span };
    let (outcome, _) = go(GossipConfig::based_op(), &load, vec![cut], 1);
    assert_eq!(missing(&outcome), 0);
    let after = &outcome.completions[0].after;
    let healed = span.1 - 100 * MILLIS;
    assert!(after[..100].iter().all(|after| *after < SECONDS), "this side needs nobody else");
    assert!(after[100..].iter().all(|after| *after >= healed), "nothing passes before");
}

#[test]
fn crashed_peers_are_replaced_and_come_back() {
    let span: Span = (500 * MILLIS, 4 * SECONDS);
    let crash = Fault::Crash { nodes: nodes(100..200), span };
    let load = frags(&[3 * SECONDS, 6 * SECONDS], BYTES);
    let (outcome, gossip) = go(GossipConfig::based_op(), &load, vec![crash], 1);
    assert!(outcome.completions[0].after[..100].iter().all(|after| *after < SECONDS));
    assert!(outcome.completions[1].after.iter().all(|after| *after < SECONDS), "all are back");
    // The mesh was repaired in time; the node that was down had to ask.
    let asked = |index: usize, nodes: std::ops::Range<usize>| {
        outcome.completions[index].repaired[nodes].iter().filter(|asked| **asked).count()
    };
    assert!(asked(0, 0..100) < 10 && asked(1, 0..200) < 10 && asked(0, 100..200) > 10);
    let degrees: Vec<usize> = gossip.0.meshes().map(<[NodeId]>::len).collect();
    assert!(degrees.iter().all(|degree| (6..=12).contains(degree)), "{degrees:?}");
    assert!(outcome.refused == 0 && outcome.degree.iter().all(|degree| *degree <= 50));

    // The half of the network that is down for good is in no node's mesh.
    let gone = Fault::Crash { nodes: nodes(100..200), span: (0, Nanos::MAX) };
    let (outcome, gossip) =
        go(GossipConfig::based_op(), &frags(&[3 * SECONDS], BYTES), vec![gone], 1);
    assert!(outcome.completions[0].after[..100].iter().all(|after| *after < SECONDS));
    for mesh in gossip.0.meshes().take(100) {
        assert!(mesh.len() >= 6 && mesh.iter().all(|peer| *peer < 100));
    }
}

#[test]
fn both_versions_of_an_equivocal_message_spread_and_nobody_can_tell() {
    let honest = frags(&[0], BYTES);
    let mut load = honest.clone();
    load.broadcasts[0].equivocal = true;
    let (outcome, gossip) = go(GossipConfig::based_op(), &load, vec![], 1);
    assert_eq!(missing(&outcome), 0);
    assert!(!outcome.convicted.contains(&true));
    let both = (0..200).all(|node| gossip.0.has_seen(node, 0) && gossip.0.has_seen(node, 1));
    assert!(both);
    let single = copies(&go(GossipConfig::based_op(), &honest, vec![], 1).0, &honest);
    assert!((1.8..2.2).contains(&(copies(&outcome, &load) / single)));
}

#[test]
fn a_flooding_leader_is_faster_and_sends_to_all_of_its_connections() {
    let load = frags(&[0], BYTES);
    let flood = GossipConfig { flood_publish: true, ..GossipConfig::based_op() };
    let (flooded, _) = go(flood, &load, vec![], 1);
    let (meshed, _) = go(GossipConfig::based_op(), &load, vec![], 1);
    assert!(flooded.sent[3] > 45 * u64::from(BYTES) && flooded.degree[3] <= 50);
    assert!(mean(&flooded) < mean(&meshed));
}

#[test]
fn heartbeats_stop_with_the_messages() {
    let events = |second, faults| {
        let load = frags(&[0, second], BYTES);
        go(GossipConfig::based_op(), &load, faults, 1).0.events
    };
    // Between the messages the number of heartbeats does not grow with the time. After a multiple
    // of the heartbeat's interval everything is as before.
    assert_eq!(events(3 * SECONDS, vec![]), events(9 * SECONDS, vec![]));
    // With crashes it does: 12 at each node.
    let crash = || vec![Fault::Crash { nodes: nodes(0..1), span: (0, 1) }];
    let more = events(9 * SECONDS, crash()) - events(3 * SECONDS, crash());
    assert_eq!(more, 12 * 200);
}

#[test]
fn values_out_of_range_do_not_fail() {
    let load = frags(&[0], BYTES);
    let zero = GossipConfig {
        d: 0,
        d_low: 0,
        d_high: 0,
        d_lazy: 0,
        gossip_factor: f64::NAN,
        heartbeat: 0,
        history: 0,
        history_gossip: 0,
        idontwant_threshold: 0,
        connections: 0,
        ..GossipConfig::based_op()
    };
    let (outcome, _) = go(zero, &load, vec![], 1);
    assert!(outcome.completions[0].after.iter().filter(|after| **after != NEVER).count() > 0);
    let (outcome, _) = go(GossipConfig::with_mesh(u32::MAX), &load, vec![], 1);
    assert_eq!(missing(&outcome), 0);
    assert!(outcome.degree.iter().all(|degree| *degree <= 50));
    assert_eq!(GossipConfig::with_mesh(8), GossipConfig::based_op());
}

/// Nodes that subscribe and unsubscribe at given times, as fragcast's nodes do for their fallback.
struct Cues {
    pubsub: Pubsub,
    cues: Vec<(Nanos, NodeId, bool)>,
}

impl Overlay for Cues {
    type Packet = Packet;

    fn start(&mut self, ctx: &mut Context<'_, Packet>) {
        self.pubsub.start(ctx);
        for (i, (at, node, _)) in self.cues.iter().enumerate() {
            ctx.timer(*node, *at, i as u64, true);
        }
    }

    fn broadcast(&mut self, ctx: &mut Context<'_, Packet>, index: usize) {
        let leader = ctx.load().broadcasts[index].leader;
        self.pubsub.publish(ctx, leader, 2 * index as Id);
    }

    fn deliver(&mut self, ctx: &mut Context<'_, Packet>, from: NodeId, to: NodeId, packet: Packet) {
        if let Heard::Message(message) = self.pubsub.deliver(ctx, from, to, packet) {
            ctx.complete(to, message.id as usize / 2, How::Gossip);
            self.pubsub.forward(ctx, to, message);
        }
    }

    fn timer(&mut self, ctx: &mut Context<'_, Packet>, node: NodeId, token: u64) {
        if token & TIMERS != 0 {
            self.pubsub.timer(ctx, node, token);
        } else {
            let (_, node, on) = self.cues[token as usize];
            self.pubsub.subscribe(ctx, node, on);
        }
    }
}

fn cued(load: &Load, cues: Vec<(Nanos, NodeId, bool)>) -> (Outcome, Cues) {
    let (world, faults) = (world(), Faults::default());
    let links = LinkConfig { loss: Loss::Independent(0.0), ..LinkConfig::default() };
    let setup =
        Setup { world: &world, links, faults: &faults, load, seed: 1, patience: 2 * SECONDS };
    let config = GossipConfig::based_op();
    let graph = topology::draw(world.len(), &config, 1).0;
    let pubsub = Pubsub::of_some(config, graph, &[false; 200], load.broadcasts.len(), 1);
    let mut cues = Cues { pubsub, cues };
    (run(setup, &mut cues), cues)
}

#[test]
fn whoever_subscribes_joins_a_mesh_and_gets_what_others_publish() {
    let load = frags(&[2 * SECONDS], BYTES);
    let listeners: Vec<NodeId> = (10..60).collect();
    let cues = listeners.iter().map(|node| (100 * MILLIS, *node, true)).collect();
    let (outcome, cues) = cued(&load, cues);
    for (node, after) in outcome.completions[0].after.iter().enumerate() {
        let listens = listeners.contains(&(node as NodeId)) || node == 3;
        assert_eq!(*after < SECONDS, listens, "{node}: {after}");
    }
    for (node, mesh) in cues.pubsub.meshes().enumerate() {
        let within = if listeners.contains(&(node as NodeId)) { 1..=12 } else { 0..=0 };
        assert!(within.contains(&mesh.len()), "{node}: {mesh:?}");
        assert!(mesh.iter().all(|peer| listeners.contains(peer)), "{node}: {mesh:?}");
    }
}

#[test]
fn whoever_unsubscribes_is_in_no_mesh_and_gets_nothing_more() {
    let load = frags(&[2 * SECONDS, 4 * SECONDS], BYTES);
    let join = (10..60).map(|node| (100 * MILLIS, node, true));
    let leave = (10..30).map(|node| (3 * SECONDS, node, false));
    let (outcome, cues) = cued(&load, join.chain(leave).collect());
    let has = |index: usize, node: usize| outcome.completions[index].after[node] != NEVER;
    assert!((10..60).all(|node| has(0, node)));
    assert!((10..60).all(|node| has(1, node) == (node >= 30)));
    let meshes: Vec<&[NodeId]> = cues.pubsub.meshes().collect();
    assert!(meshes[10..30].iter().all(|mesh| mesh.is_empty()));
    assert!(meshes[30..60].iter().all(|mesh| mesh.iter().all(|peer| *peer >= 30)));
}

#[test]
fn a_message_is_published_once_and_late_listeners_are_told_of_it() {
    let load = frags(&[2 * SECONDS], BYTES);
    // The one of node 3's connections that subscribes after node 3 has published.
    let graph = topology::draw(200, &GossipConfig::based_op(), 1).0;
    let (early, late) = (graph[3][0], graph[3][1]);
    let cues = vec![(100 * MILLIS, early, true), (2_100 * MILLIS, late, true)];
    let (outcome, _) = cued(&load, cues);
    let after = |node: NodeId| outcome.completions[0].after[node as usize];
    assert!(after(early) < 200 * MILLIS);
    assert!((100 * MILLIS..SECONDS).contains(&after(late)), "{}", after(late));
}
