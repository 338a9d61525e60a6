use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::fault::Fault;
use crate::link::Loss;
use crate::protocols::shreds::{CutRule, Spread};
use crate::world::sample::line;
use crate::{MILLIS, SECONDS};

fn shreds(spread: Spread, cut: CutRule) -> ShredsConfig {
    ShredsConfig { spread, cut, owed: false, repair_after: 250 * MILLIS }
}

fn plan(faults: &Faults) -> Plan {
    let case = |leaders: Vec<NodeId>, seed| Case {
        load: Load::single(leaders, 20_000),
        faults: faults.clone(),
        seed,
    };
    let fragcast = FragcastConfig { coding: 1.0, ..FragcastConfig::default() };
    Plan {
        worlds: vec![
            ("near".into(), line(40, 8, MILLIS)),
            ("far".into(), line(40, 8, 20 * MILLIS)),
        ],
        links: LinkConfig { loss: Loss::Independent(0.01), ..LinkConfig::default() },
        cases: vec![case(vec![0, 5], 1), case(vec![5, 0], 2)],
        contenders: vec![
            Contender::Fragcast(fragcast),
            Contender::Shreds(shreds(Spread::Turbine { fanout: 6 }, CutRule::Agave(32))),
            Contender::Shreds(shreds(Spread::Rotor, CutRule::Alpenglow(32))),
            Contender::Shreds(shreds(Spread::Direct, CutRule::Fragcast(0.01))),
            Contender::Gossip(GossipConfig::with_mesh(6)),
            Contender::Gossip(GossipConfig::with_mesh(8)),
        ],
        guests: 0,
        patience: 2 * SECONDS,
        settings: vec![("seed".into(), "1".into())],
        notes: Vec::new(),
    }
}

#[test]
fn nobody_beats_the_limit_and_distance_makes_everybody_slower() {
    let plan = plan(&Faults::default());
    let ran = AtomicU64::new(0);
    let runs = plan.run(|events| {
        ran.fetch_add(u64::from(events > 0), Ordering::Relaxed);
    });
    assert_eq!(ran.into_inner(), plan.jobs() as u64);
    let comparison = plan.compare(&runs);
    for table in &comparison.tables {
        assert_eq!(table.protocols.len(), 7);
        for (name, protocol) in &table.protocols {
            assert_eq!((protocol.missed, protocol.pairs), (0, 78), "{name}");
            // On a line no path is shorter than the direct one.
            assert!(protocol.ratio.mean.unwrap() >= 1.0, "{name} beats the limit");
            assert!(protocol.ratio.worst_leader.unwrap() >= protocol.ratio.mean.unwrap() - 1e-9);
            assert!(protocol.bytes_per_payload_byte > 1.0, "{name}");
            assert!(protocol.next_leader_p99.is_some());
            let times = &protocol.times;
            assert!(times.p50 <= times.p90 && times.p90 <= times.p99, "{name}");
            let (_, share) = protocol.cdf.last().unwrap();
            assert!((share - 1.0).abs() < 1e-9, "{name}");
        }
        let gossip = &table.protocols["gossip"];
        assert_eq!(gossip.tried.len(), 2);
        let least = gossip.tried.iter().filter_map(|(_, mean)| *mean).fold(f64::MAX, f64::min);
        assert_eq!(gossip.times.mean, Some(least), "the best mesh is shown");
    }
    let mean = |table: usize, name: &str| comparison.tables[table].protocols[name].times.mean;
    for name in crate::results::ORDER {
        assert!(mean(0, name) < mean(1, name), "{name}");
    }
}

#[test]
fn only_relays_reach_the_relayed_limit_where_the_direct_way_is_a_detour() {
    // Two regions have a poor way between them; a third lies between.
    let world = World::from_places(&[("a", 10), ("b", 10), ("c", 10)], |from, to| {
        MILLIS * [[1, 20, 90], [20, 1, 20], [90, 20, 1]][from][to]
    });
    let plan = plan(&Faults::default());
    let plan = Plan { worlds: vec![("a detour".into(), world)], ..plan };
    let comparison = plan.compare(&plan.run(|_| {}));
    let protocols = &comparison.tables[0].protocols;
    let (limit, relayed) = (&protocols[LIMIT], &protocols[RELAYED_LIMIT]);
    // Leaders are at a: 9 neighbours, 10 nodes at b, and 10 at c, which are 20 + 20 ms away.
    let saved = (90.0 - 40.102) * 10.0 / 29.0;
    assert!((limit.times.mean.unwrap() - relayed.times.mean.unwrap() - saved).abs() < 1e-6);
    assert!(relayed.ratio.mean.unwrap() < 0.7, "{:?}", relayed.ratio);
    assert!(relayed.ratio.worst_leader.unwrap() < 0.7, "{:?}", relayed.ratio);
    assert_eq!(limit.ratio.mean, Some(1.0));
    assert_eq!(relayed.bytes_per_payload_byte, limit.bytes_per_payload_byte);
    for name in crate::results::ORDER {
        assert!(protocols[name].times.mean > relayed.times.mean, "{name}");
    }
    assert!(protocols["gossip"].ratio.mean.unwrap() < 1.0, "the detour is not for gossip");
}

#[test]
fn the_digest_does_not_depend_on_threads() {
    let plan = plan(&Faults::default());
    let digest = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        plan.compare(&pool.install(|| plan.run(|_| {}))).digest
    };
    assert_eq!(digest(1), digest(3));
}

#[test]
fn crashed_nodes_are_not_counted_and_missed_ones_are() {
    let crash = Fault::Crash { nodes: BTreeSet::from([7]), span: (0, Nanos::MAX) };
    let cut = Fault::Partition { nodes: BTreeSet::from([9]), span: (0, Nanos::MAX) };
    let plan = plan(&Faults(vec![crash, cut]));
    let comparison = plan.compare(&plan.run(|_| {}));
    for name in ["fragcast", "turbine", "rotor", "direct", "gossip"] {
        let protocol = &comparison.tables[0].protocols[name];
        assert_eq!((protocol.pairs, protocol.missed), (76, 2), "{name}");
        assert_eq!(protocol.times.p99, None, "{name}: two of 76 are more than one in a hundred");
        let end = 2_000.0;
        assert!(protocol.times.mean.unwrap() > end * 2.0 / 76.0, "{name}: counted at the end");
    }
}

#[test]
fn percentiles_are_nearest_rank() {
    let sorted: Vec<Nanos> = (1..=100).map(|i| i * MILLIS).collect();
    let at = |percent| aggregate::percentile(&sorted, percent);
    assert_eq!((at(50), at(90), at(99)), (Some(50.0), Some(90.0), Some(99.0)));
    assert_eq!(aggregate::percentile(&[MILLIS], 99), Some(1.0));
    assert_eq!(aggregate::percentile(&[], 50), None);
}
