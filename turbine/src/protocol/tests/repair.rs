//! Repair: networks that lose much end complete, and nobody gains by lying to it.

mod messages;
mod owed;
mod parts;
mod peers;
mod quiet;

use super::network::{Net, TREES, config};
use super::*;

fn sum(net: &Net, counter: impl Fn(&Counters) -> u64) -> u64 {
    let alive = net.nodes.iter().zip(&net.dead).filter(|(_, dead)| !**dead);
    alive.map(|(node, _)| counter(node.counters())).sum()
}

fn equal(n: usize) -> Vec<u64> {
    vec![1; n]
}

#[test]
fn a_lossy_network_ends_complete_by_repair() {
    for (route, loss) in TREES.into_iter().zip([0.40, 0.30, 0.30, 0.35]) {
        // Coded for a loss of 2 % and no more.
        let config = Config { relayed_coding: 0.0, ..config(route, 0.02) };
        let mut net = Net::new(World::new(&equal(30), 1), loss, &config);
        net.block(1, 6, 20_000);
        net.assert_complete(0, 8);
        let sent = Timestamp::from_nanos(1_000_000_000);
        let last = net.delivered.iter().flatten().map(|d| d.times.complete_at).max().unwrap();
        assert!(last.since(sent) < Duration::from_secs(3), "{route:?}: {:?}", last.since(sent));
        let repaired =
            net.delivered.iter().flatten().filter(|d| d.via == Via::Repair).count() as u64;
        assert!(repaired > 0, "{route:?}");
        assert_eq!(sum(&net, |c| c.repaired), repaired);
        assert_eq!(sum(&net, |c| c.repair_given_up), 0);
        assert!(net.others.iter().flatten().next().is_none(), "{:?}", net.others);
        let answered = sum(&net, |c| c.repair_answered_shreds);
        let useful = sum(&net, |c| c.repair_useful);
        assert!(useful * 2 > answered, "{useful} of {answered} shreds were of use");
        for node in &net.nodes {
            assert_eq!(node.outcomes().get(Outcome::RepairUnasked), 0);
            assert_eq!(node.poll_timeout(net.now), None);
        }
    }
}

#[test]
fn a_fifth_of_the_relays_silent_costs_no_message() {
    for route in TREES {
        let mut net = Net::new(World::new(&equal(30), 1), 0.02, &config(route, 0.02));
        // They are taken to be connected, and asked like anybody else.
        for node in [3, 7, 12, 18, 22, 29] {
            net.dead[node] = true;
        }
        net.block(1, 6, 20_000);
        net.assert_complete(0, 8);
    }
}

#[test]
fn a_lossless_network_asks_nothing_and_then_sleeps() {
    for route in TREES {
        let weights: Vec<u64> = (0..50).map(|i| if i % 10 == 9 { 0 } else { 1 + i % 7 }).collect();
        let mut net = Net::new(World::new(&weights, 2), 0.0, &config(route, 0.02));
        for block in 9..12 {
            net.send(env(block), 0);
            for seq in 0..6 {
                net.run_for(Duration::from_millis(200));
                net.send(frag(block, seq, 20_000), 0);
            }
            net.send(seal(block, 6), 0);
        }
        net.run();
        assert!(sum(&net, |c| c.tips) > 0);
        for counter in [
            (|c| c.repair_requested) as fn(&Counters) -> u64,
            |c| c.repair_useful,
            |c| c.repair_answered_bytes,
            |c| c.repaired,
        ] {
            assert_eq!(sum(&net, counter), 0, "{route:?}");
        }
        for node in &net.nodes {
            assert_eq!(node.poll_timeout(net.now), None, "an idle node sleeps");
        }
    }
}

#[test]
fn a_node_that_was_cut_off_in_mid_block_gets_the_rest() {
    for route in TREES {
        let mut net = Net::new(World::new(&equal(12), 1), 0.02, &config(route, 0.02));
        net.send(env(1), 0);
        net.send(frag(1, 0, 20_000), 0);
        net.run_for(Duration::from_millis(300));
        net.cut[5] = true;
        for seq in 1..6 {
            // One of them is far larger than what a whole message is answered with.
            net.send(frag(1, seq, if seq == 3 { 700_000 } else { 20_000 }), 0);
            net.run_for(Duration::from_millis(200));
        }
        net.cut[5] = false;
        // Later messages tell of a gap.
        net.send(frag(1, 6, 20_000), 0);
        net.run_for(Duration::from_secs(2));
        assert_eq!(net.delivered[5].len(), 8, "{route:?}");
        // What comes last is told of by nothing but tips.
        net.cut[5] = true;
        net.send(frag(1, 7, 20_000), 0);
        net.send(seal(1, 8), 0);
        net.run_for(Duration::from_millis(500));
        assert_eq!(net.delivered[5].len(), 8);
        net.cut[5] = false;
        net.run();
        net.assert_complete(0, 10);
        let healed = net.delivered[5].last().unwrap();
        assert_eq!(healed.via, Via::Repair);
    }
}

#[test]
fn a_lost_seal_is_asked_for_at_once() {
    let mut net = Net::new(World::new(&equal(10), 1), 0.0, &config(TREES[0], 0.02));
    net.send(env(1), 0);
    net.send(frag(1, 0, 20_000), 0);
    net.run_for(Duration::from_secs(1));
    net.cut[4] = true;
    net.send(seal(1, 1), 0);
    let sent = net.now;
    net.run_for(Duration::from_millis(50));
    net.cut[4] = false;
    net.run();
    net.assert_complete(0, 3);
    let took = net.delivered[4][2].times.complete_at.since(sent);
    // Cut for 50 ms, tips, quiet of at most 125 ms, and a round trip.
    assert!(took < Duration::from_millis(400), "{took:?}");
    assert_eq!(sum(&net, |c| c.repair_requested), 1);
    assert_eq!(sum(&net, |c| c.repaired), 1);
}

#[test]
fn whole_blocks_that_were_missed_are_asked_for() {
    let mut net = Net::new(World::new(&equal(12), 1), 0.0, &config(TREES[2], 0.02));
    net.block(1, 2, 5_000);
    net.cut[5] = true;
    for block in 2..7 {
        net.block(block, 2, 5_000);
    }
    net.cut[5] = false;
    net.block(7, 2, 5_000);
    net.assert_complete(0, 7 * 4);
    // A node that was not there from the beginning asks for nothing older than what it heard.
    let mut late = Net::new(World::new(&equal(12), 1), 0.0, &config(TREES[2], 0.02));
    late.cut[5] = true;
    late.block(1, 2, 5_000);
    late.send(env(2), 0);
    late.send(frag(2, 0, 5_000), 0);
    late.run_for(Duration::from_millis(500));
    late.cut[5] = false;
    late.send(frag(2, 1, 5_000), 0);
    late.send(seal(2, 2), 0);
    late.run();
    assert_eq!(late.delivered[5].len(), 4);
    assert!(late.delivered[5].iter().all(|d| d.key.block == 2));
}

#[test]
fn a_superseded_attempt_is_not_asked_for() {
    let mut net = Net::new(World::new(&equal(8), 1), 0.0, &config(TREES[0], 0.02));
    net.send(env(1), 0);
    net.run_for(Duration::from_millis(300));
    net.cut[5] = true;
    (0..5).for_each(|seq| net.send(frag(1, seq, 20_000), 0));
    net.run_for(Duration::from_millis(100));
    net.cut[5] = false;
    net.send(env(1), 1);
    net.send(frag(1, 0, 3_000), 1);
    net.send(seal(1, 1), 1);
    net.run();
    let keys: Vec<(u8, u16)> =
        net.delivered[5].iter().map(|d| (d.key.attempt, d.key.message)).collect();
    assert_eq!(keys, [(0, 0), (1, 0), (1, 1), (1, 2)]);
    assert_eq!(sum(&net, |c| c.repair_requested), 0);
}

#[test]
fn without_repair_nothing_is_said_and_what_is_lost_stays_lost() {
    let mut settings = config(TREES[0], 0.02);
    settings.repair.enabled = false;
    let mut net = Net::new(World::new(&equal(12), 1), 0.4, &settings);
    net.block(1, 6, 20_000);
    assert!(net.delivered.iter().skip(1).any(|delivered| delivered.len() < 8));
    assert_eq!(sum(&net, |c| c.tips + c.repair_requested), 0);
    assert!(net.nodes.iter().all(|node| node.repair_bytes() == 0));
}
