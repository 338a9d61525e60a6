//! The overlay dies and heals under real protocols: which nodes fall back, which do not, and that
//! nothing is lost.

use super::network::{Net, TREES, config};
use super::*;
use crate::gossip::{GossipAction, Listener, Mode, Policy};
use crate::health::{Change, Reason, State};
use crate::protocol::GossipConfig;

const FRAG: Duration = Duration::from_millis(200);
/// Longer than anything that is under way, and shorter than quiet.
const SETTLE: Duration = Duration::from_secs(5);

fn standby(nodes: usize, gateways: usize) -> Net {
    with(nodes, gateways, Policy::Standby, Mode::Auto)
}

fn with(nodes: usize, gateways: usize, policy: Policy, mode: Mode) -> Net {
    let gossip = GossipConfig { policy, mode, ..GossipConfig::default() };
    let config = Config { gossip, ..config(TREES[2], 0.02) };
    Net::new(World::new(&vec![1; nodes], gateways), 0.0, &config)
}

/// A block in real time: two seconds.
fn block(net: &mut Net, number: u64) {
    frags(net, number, 0..10);
}

fn frags(net: &mut Net, number: u64, which: std::ops::Range<u64>) {
    if which.start == 0 {
        net.send(env(number), 0);
    }
    for seq in which.clone() {
        net.run_for(FRAG);
        net.send(frag(number, seq, 3_000), 0);
    }
    if which.end == 10 {
        net.send(seal(number, 10), 0);
    }
}

fn changes(net: &Net, node: usize) -> Vec<Change> {
    let all = net.others[node].iter();
    all.filter_map(|event| if let Event::Health(change) = event { Some(*change) } else { None })
        .collect()
}

fn falls(net: &Net, node: usize) -> usize {
    changes(net, node).iter().filter(|change| change.to == State::Gossip).count()
}

/// The indices of the messages of a block that a node was given, each once.
fn has(net: &Net, node: usize, number: u64) -> bool {
    let mut indices: Vec<u16> = net.delivered[node]
        .iter()
        .filter(|delivered| delivered.key.block == number)
        .map(|delivered| delivered.key.message)
        .collect();
    indices.sort_unstable();
    indices.dedup();
    indices == (0..12).collect::<Vec<u16>>()
}

fn assert_nothing_lost(net: &Net, blocks: std::ops::Range<u64>) {
    for node in 1..net.nodes.len() {
        for number in blocks.clone() {
            assert!(has(net, node, number), "block {number} at node {node}");
        }
    }
}

#[test]
fn a_healthy_network_publishes_nothing_and_joins_no_mesh() {
    let mut net = standby(12, 2);
    (9..12).for_each(|number| block(&mut net, number));
    net.run_for(Duration::from_secs(5));
    for node in 0..12 {
        assert!(changes(&net, node).is_empty(), "{:?}", changes(&net, node));
        assert_eq!(net.nodes[node].counters().published, 0);
        assert!(!net.gossip.listening[node]);
    }
    assert!(net.gossip.copies.is_empty());
}

#[test]
fn everybody_falls_back_within_a_second_loses_nothing_and_returns() {
    let mut net = standby(12, 1);
    block(&mut net, 1);
    frags(&mut net, 2, 0..5);
    let cut_at = net.now;
    net.cut.fill(true);
    frags(&mut net, 2, 5..10);
    block(&mut net, 3);
    net.run_for(FRAG);
    for node in 1..12 {
        let fallback = changes(&net, node);
        assert_eq!(fallback[0].reason, Reason::Silence, "node {node}: {fallback:?}");
        assert_eq!((fallback[1].to, fallback[1].reason), (State::Gossip, Reason::GossipAhead));
        // The first missing message was sent one interval after the cut.
        let after = fallback[1].at.since(cut_at + FRAG);
        assert!(after < Duration::from_secs(1), "node {node} took {after:?}");
        assert_eq!(falls(&net, node), 1);
    }
    net.cut.fill(false);
    (4..7).for_each(|number| block(&mut net, number));
    net.run_for(SETTLE);
    assert_nothing_lost(&net, 1..7);
    for node in 1..12 {
        let all = changes(&net, node);
        let back = all.last().unwrap();
        assert_eq!((back.to, back.reason), (State::Turbine, Reason::Recovered), "{all:?}");
        assert!(!net.gossip.listening[node], "and out of the mesh");
        // Block 5's Seal and block 6's Env leave at the same time.
        assert!((5..=6).contains(&back.block), "after two blocks, the least dwell: {all:?}");
        assert_eq!(falls(&net, node), 1);
        let by_gossip = net.delivered[node].iter().filter(|d| d.via == Via::Gossip).count();
        assert!(by_gossip >= 12, "{by_gossip}");
    }
}

#[test]
fn one_node_falls_back_alone_and_few_publish_for_it() {
    let mut net = standby(12, 1);
    block(&mut net, 1);
    net.cut[7] = true;
    (2..5).for_each(|number| block(&mut net, number));
    net.run_for(FRAG);
    assert_eq!(net.nodes[7].health().state(), State::Gossip);
    for node in (1..12).filter(|node| *node != 7) {
        assert!(changes(&net, node).is_empty(), "node {node}: {:?}", changes(&net, node));
        let turbine = net.delivered[node].iter().all(|d| d.via != Via::Gossip);
        assert!(turbine, "node {node}");
    }
    assert_nothing_lost(&net, 1..5);
    let most = net.gossip.copies.values().max().unwrap();
    assert_eq!(*most, 3, "the leader and two holders");
    net.cut[7] = false;
    (5..8).for_each(|number| block(&mut net, number));
    net.run_for(SETTLE);
    assert_nothing_lost(&net, 1..8);
    assert_eq!(net.nodes[7].health().state(), State::Turbine);
}

#[test]
fn a_leader_whose_overlay_is_dead_reaches_everybody_by_gossip() {
    let mut net = standby(12, 1);
    block(&mut net, 1);
    net.cut[0] = true;
    (2..4).for_each(|number| block(&mut net, number));
    net.run_for(FRAG);
    assert_nothing_lost(&net, 1..4);
    net.cut[0] = false;
    (4..8).for_each(|number| block(&mut net, number));
    net.run_for(SETTLE);
    assert_nothing_lost(&net, 1..8);
    for node in 0..12 {
        assert_eq!(net.nodes[node].health().state(), State::Turbine, "{:?}", changes(&net, node));
    }
}

#[test]
fn a_dead_leader_a_slow_gateway_and_a_skipped_term_flip_nobody() {
    let mut net = standby(12, 2);
    // Slow: three seconds between frags.
    net.send(env(8), 0);
    for seq in 0..4 {
        net.run_for(Duration::from_secs(3));
        net.send(frag(8, seq, 3_000), 0);
    }
    net.send(seal(8, 4), 0);
    // Dead in mid-block, and in mid-message, for half a minute.
    frags(&mut net, 9, 0..5);
    net.dead[0] = true;
    net.run_for(Duration::from_secs(30));
    // The other leader's term begins late, after blocks that nobody built.
    block(&mut net, 14);
    block(&mut net, 15);
    net.run_for(SETTLE);
    for node in 1..12 {
        assert_eq!(falls(&net, node), 0, "node {node}: {:?}", changes(&net, node));
        assert_eq!(net.nodes[node].health().state(), State::Turbine);
    }
}

#[test]
fn a_leader_that_dies_in_the_middle_of_a_message_flips_nobody() {
    let mut net = standby(12, 1);
    block(&mut net, 1);
    net.send(env(2), 0);
    net.run_for(FRAG);
    // Of a long message a few shreds get out.
    net.send(frag(2, 0, 400_000), 0);
    net.run_for(Duration::from_millis(2));
    net.dead[0] = true;
    net.run_for(Duration::from_secs(20));
    for node in 1..12 {
        assert_eq!(falls(&net, node), 0, "node {node}: {:?}", changes(&net, node));
    }
}

#[test]
fn the_dwell_doubles_with_each_relapse() {
    let mut net = standby(8, 1);
    let mut number = 1;
    let mut dwells = Vec::new();
    for _ in 0..4 {
        block(&mut net, number);
        net.cut.fill(true);
        block(&mut net, number + 1);
        net.cut.fill(false);
        number += 2;
        let fallback = changes(&net, 3).into_iter().rfind(|c| c.to == State::Gossip).unwrap();
        dwells.push(fallback.dwell);
        while net.nodes[3].health().state() == State::Gossip {
            block(&mut net, number);
            net.run_for(FRAG);
            number += 1;
        }
    }
    assert_eq!(dwells, [2, 4, 8, 16]);
    net.run_for(SETTLE);
    assert_nothing_lost(&net, 1..number);
}

#[test]
fn gossip_alone_carries_everything_when_the_operator_says_so() {
    let mut net = with(12, 1, Policy::Standby, Mode::Gossip);
    (1..4).for_each(|number| block(&mut net, number));
    net.run_for(SETTLE);
    assert_nothing_lost(&net, 1..4);
    for node in 1..12 {
        assert!(net.delivered[node].iter().all(|delivered| delivered.via == Via::Gossip));
        assert_eq!(net.nodes[node].counters().forwarded, 0);
    }
    assert_eq!(net.nodes[0].counters().originated, 0, "not a single shred");
    // And back, while it runs.
    let now = net.now;
    net.nodes.iter_mut().for_each(|node| node.set_mode(now, Mode::Turbine));
    block(&mut net, 4);
    net.run_for(SETTLE);
    let last = |node: usize| net.delivered[node].iter().filter(|d| d.key.block == 4);
    assert!((1..12).all(|node| last(node).all(|d| d.via == Via::Turbine) && has(&net, node, 4)));
    assert!(!net.gossip.listening.contains(&true));
}

#[test]
fn with_policy_always_both_ways_run_and_the_race_is_recorded() {
    let mut net = with(12, 1, Policy::Always, Mode::Auto);
    block(&mut net, 1);
    net.run_for(Duration::from_secs(5));
    assert_nothing_lost(&net, 1..2);
    for node in 1..12 {
        assert!(changes(&net, node).is_empty(), "{:?}", changes(&net, node));
        let races = net.others[node].iter().filter(|e| matches!(e, Event::Race(_))).count();
        // What it published itself it does not get back.
        let counters = net.nodes[node].counters();
        assert_eq!(races as u64, counters.gossip);
        assert!(counters.gossip + counters.published >= 12, "node {node}: {counters:?}");
        assert!(races > 5, "node {node}: {races}");
    }
    // The leader, and of two holders (for one of those a third, as nobody publishes for itself)
    // those that had it over the overlay first.
    assert!(net.gossip.copies.values().all(|copies| (1..=4).contains(copies)));
}

#[test]
fn a_term_without_a_delegation_is_a_gossip_term() {
    let mut world = World::new(&[1; 6], 2);
    world.delegations.truncate(1);
    let gossip = GossipConfig { policy: Policy::Standby, ..GossipConfig::default() };
    let config = Config { gossip, ..config(TREES[2], 0.02) };
    let mut net = Net::new(world, 0.0, &config);
    assert!(net.gossip.listening.iter().all(|is| *is), "nobody knows yet whose term it is");
    block(&mut net, 7);
    net.run_for(FRAG);
    assert!(net.gossip.listening.iter().all(|is| !*is));
    block(&mut net, 9);
    net.run_for(FRAG);
    assert!(net.gossip.listening.iter().all(|is| *is), "a block before its term");
    // The other gateway's own node is no member: it speaks gossip alone.
    let foreign = |message: Message| {
        let message = net.world.sign(message);
        GossipAction::Publish { kind: message.message().kind(), wire: message.to_wire().into() }
    };
    let messages: Vec<GossipAction> = std::iter::once(env(10))
        .chain((0..10).map(|seq| frag(10, seq, 500)))
        .chain([seal(10, 10)])
        .map(foreign)
        .collect();
    for message in messages {
        // In the name of node 0, which itself learns nothing from it.
        net.gossip.act(net.now, 0, message);
    }
    net.run_for(SETTLE);
    for node in 1..6 {
        assert!(has(&net, node, 10), "node {node}");
        assert!(changes(&net, node).is_empty(), "{:?}", changes(&net, node));
    }
}

#[test]
fn of_members_connected_to_an_outsider_few_publish_for_it() {
    let mut net = standby(12, 1);
    block(&mut net, 1);
    net.run_for(SETTLE);
    let outsider = crate::gossip::outsider(b"a peer of based-op's");
    // Four of them are connected to it, the leader is not.
    for node in [2, 5, 7, 9] {
        let now = net.now;
        net.nodes[node].handle_listener(now, outsider, true);
    }
    net.run_for(FRAG);
    net.gossip.copies.clear();
    block(&mut net, 2);
    net.run_for(SETTLE);
    assert_eq!(net.gossip.copies.len(), 12, "it gets every message");
    assert!(net.gossip.copies.values().all(|copies| *copies == 2), "{:?}", net.gossip.copies);
    let published: Vec<u64> = net.nodes.iter().map(|node| node.counters().published).collect();
    assert!([2, 5, 7, 9].iter().all(|node| published[*node] > 0), "in turns: {published:?}");
    let now = net.now;
    for node in [2, 5, 7, 9] {
        net.nodes[node].handle_listener(now, outsider, false);
        net.nodes[node].handle_listener(now, Listener::Member(peer(node as u32)), true);
    }
    net.gossip.copies.clear();
    block(&mut net, 3);
    net.run_for(SETTLE);
    assert!(net.gossip.copies.is_empty());
}

#[test]
fn who_leads_alone_returns_although_nothing_comes_to_it() {
    let mut net = standby(8, 1);
    block(&mut net, 1);
    // Long enough for connections to die.
    net.cut[0] = true;
    for other in 1..8 {
        net.nodes[0].handle_disconnected(peer(other));
        net.nodes[other as usize].handle_disconnected(peer(0));
    }
    (2..5).for_each(|number| block(&mut net, number));
    assert_eq!(changes(&net, 0)[0].reason, Reason::NoRelay);
    net.cut[0] = false;
    for other in 1..8 {
        net.nodes[0].handle_connected(peer(other));
        net.nodes[other as usize].handle_connected(peer(0));
    }
    (5..9).for_each(|number| block(&mut net, number));
    net.run_for(SETTLE);
    assert_nothing_lost(&net, 1..9);
    for node in 0..8 {
        assert_eq!(net.nodes[node].health().state(), State::Turbine, "{:?}", changes(&net, node));
    }
    assert!(!net.gossip.listening.contains(&true));
}

#[test]
fn a_node_on_gossip_that_was_away_finds_the_head_again() {
    let mut net = with(4, 1, Policy::Standby, Mode::Gossip);
    block(&mut net, 1);
    net.gossip.down = true;
    for number in 2..12 {
        // The chain goes on, and nothing of it arrives.
        block(&mut net, number);
    }
    net.gossip.down = false;
    // Beyond the window of who stands at block 1, and more than five seconds later.
    block(&mut net, 12);
    block(&mut net, 13);
    net.run_for(SETTLE);
    for node in 1..4 {
        assert!(has(&net, node, 13), "node {node}: {:?}", net.nodes[node].window());
    }
}
