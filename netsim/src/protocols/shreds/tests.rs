use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::SECONDS;
use crate::engine::{Setup, run};
use crate::fault::{ALWAYS, Fault, Faults};
use crate::link::{LinkConfig, Loss};
use crate::load::Load;
use crate::outcome::{NEVER, Outcome};
use crate::world::sample::line;

const SPREADS: [(Spread, CutRule); 3] = [
    (Spread::Direct, CutRule::Fragcast(0.01)),
    (Spread::Turbine { fanout: 8 }, CutRule::Agave(32)),
    (Spread::Rotor, CutRule::Alpenglow(32)),
];

fn go(spread: (Spread, CutRule), loss: f64, faults: &Faults, n: usize) -> Outcome {
    go_with(spread, loss, faults, n, matches!(spread.0, Spread::Turbine { .. }))
}

fn go_with(spread: (Spread, CutRule), loss: f64, faults: &Faults, n: usize, owed: bool) -> Outcome {
    let world = line(n, 10, 5 * MILLIS);
    let load = Load::single(vec![3, 5], 36_000);
    let links = LinkConfig { loss: Loss::Independent(loss), ..LinkConfig::default() };
    let config = ShredsConfig { spread: spread.0, cut: spread.1, owed, repair_after: 250 * MILLIS };
    let mut shreds = Shreds::new(config, &world, 1);
    let setup = Setup { world: &world, links, faults, load: &load, seed: 1, patience: 5 * SECONDS };
    run(setup, &mut shreds)
}

#[test]
fn everybody_completes_and_each_shred_is_sent_to_everybody_once() {
    for spread in SPREADS {
        let n = 100;
        let outcome = go(spread, 0.0, &Faults::default(), n);
        assert!(outcome.completions[0].after.iter().all(|a| *a != NEVER), "{spread:?}");
        assert!(outcome.completions[0].repaired.iter().all(|repaired| !repaired));
        let cut = spread.1.cut(36_000);
        let shreds = u64::from(cut.sets * cut.shards());
        assert_eq!(outcome.handled, shreds * (n as u64 - 1), "{spread:?}");
    }
}

#[test]
fn sizes_are_those_of_the_protocols() {
    // An independent simulation measured 4.4 and 4.8 bytes sent per payload byte at 36 kB.
    let per_byte = |cut: Cut| {
        let set = u32::from(cut.k) * cut.data + u32::from(cut.m) * cut.coding;
        f64::from(u32::from(cut.sets) * set) / 36_000.0
    };
    assert!((per_byte(Cut::agave(36_000, 32)) - 4.4).abs() < 0.1);
    assert!((per_byte(Cut::alpenglow(36_000, 32)) - 4.8).abs() < 0.1);
}

#[test]
fn what_is_lost_is_repaired() {
    for spread in SPREADS {
        let outcome = go_with(spread, 0.25, &Faults::default(), 60, false);
        let completion = &outcome.completions[0];
        assert!(completion.after.iter().all(|a| *a != NEVER), "{spread:?}");
        assert!(completion.repaired.iter().any(|repaired| *repaired), "{spread:?}");
    }
}

#[test]
fn relays_that_send_what_they_owe_spare_others_the_repair() {
    let repaired = |owed| {
        let outcome = go_with(SPREADS[1], 0.25, &Faults::default(), 60, owed);
        outcome.completions[0].repaired.iter().filter(|repaired| **repaired).count()
    };
    assert!(repaired(true) < repaired(false) / 2, "{} {}", repaired(true), repaired(false));
}

#[test]
fn a_node_that_saw_nothing_asks_when_the_next_message_is_due() {
    let cut = Fault::Partition { nodes: BTreeSet::from([7]), span: (0, 300 * MILLIS) };
    let outcome = go(SPREADS[1], 0.0, &Faults(vec![cut]), 60);
    let completion = &outcome.completions[0];
    assert!(completion.repaired[7] && completion.after[7] > UNSEEN, "{}", completion.after[7]);
}

#[test]
fn silent_relays_cost_shreds_but_the_code_makes_up_for_them() {
    let nodes: BTreeSet<NodeId> = (20..26).collect();
    let silent = Faults(vec![Fault::Silent { nodes, span: ALWAYS }]);
    for spread in SPREADS {
        let outcome = go(spread, 0.01, &silent, 60);
        let completion = &outcome.completions[0];
        assert!(completion.after.iter().all(|a| *a != NEVER), "{spread:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_digest() {
    for spread in SPREADS {
        let digest = || go(spread, 0.05, &Faults::default(), 50).digest;
        assert_eq!(digest(), digest());
    }
}

proptest! {
    #[test]
    fn every_position_but_the_root_has_one_parent(n in 1u32..3_000, fanout in 1u32..300) {
        let mut seen = vec![0u32; n as usize];
        for position in 0..n {
            for child in turbine_children(position, fanout, n) {
                prop_assert!(child > position);
                seen[child as usize] += 1;
            }
        }
        prop_assert_eq!(seen[0], 0);
        prop_assert!(seen[1..].iter().all(|parents| *parents == 1));
    }
}
