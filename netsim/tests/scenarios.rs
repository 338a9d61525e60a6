//! Every scenario file meets its expectations and has the digest that is pinned here, on any
//! machine. A change of the protocol or of a model changes digests. If the change is intended,
//! check the expectations and pin the new digests.

use std::path::PathBuf;

use netsim::compare::{Plan, PlanOptions};
use netsim::scenario::{Scenario, Shares};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(format!("{name}.toml"))
}

/// Runs the protocols for which the file has expectations, and checks these and the digest.
fn ends_as_it_says(name: &str, digest: &str) {
    let scenario = Scenario::read(&file(name)).unwrap();
    let protocols: Vec<String> = scenario.expect.keys().cloned().collect();
    assert!(protocols.iter().any(|p| p == "fragcast"), "{name}.toml expects nothing of ours");
    let options = PlanOptions { protocols, repeat_plain: false, ..PlanOptions::default() };
    let plan = Plan::of(&scenario, &options).unwrap();
    let runs = plan.run(|_| {});
    for run in &runs {
        let contender = plan.contenders[run.contender].name();
        let case = &plan.cases[run.case];
        let shares = Shares::of(&run.outcome, &case.load, &case.faults);
        println!("{name}, {contender}, case {}: {shares}", run.case);
        let failures = scenario.expect[contender].failures(&shares);
        assert!(failures.is_empty(), "{name}, {contender}, seed {}: {failures:?}", scenario.seed);
    }
    if scenario.expect["fragcast"].over_still.is_some() {
        let ratio =
            plan.over_still(&scenario, &options, &runs).unwrap().expect("the same messages");
        println!("{name}: x {ratio:.4} of the mean without faults");
        let failure = scenario.expect["fragcast"].over_still_failure(ratio);
        assert!(failure.is_none(), "{name}, seed {}: {failure:?}", scenario.seed);
    }
    let found = plan.compare(&runs).digest;
    assert_eq!(&found[..16], digest, "{name}.toml (seed {}) runs differently", scenario.seed);
}

macro_rules! scenarios {
    ($($test:ident: $name:literal = $digest:literal,)*) => {
        $(#[test] fn $test() { ends_as_it_says($name, $digest); })*

        #[test]
        fn every_file_has_a_test() {
            let tested = [$($name),*];
            for entry in std::fs::read_dir(file("x").parent().unwrap()).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap();
                let reference = ["default", "independent"].contains(&name);
                assert!(reference || tested.contains(&name), "{name} has no test");
            }
        }
    };
}

scenarios! {
    a_whole_block: "block" = "ad57f19eb46066fd",
    losses_in_bursts: "bursty" = "b3fb12b37c035101",
    losses_of_a_tenth_in_bursts: "bursty-tenth" = "3c3ea14619e26897",
    crashed_nodes: "crashed" = "750ae8be7ad56b56",
    three_in_ten_crashed: "crashed-third" = "40778ffd72e57c31",
    an_equivocating_leader: "equivocation" = "3fc7e679f4f18a91",
    everybody_falls_back: "fallback-all" = "17da4da635d97e1f",
    a_leader_whose_path_is_dead: "fallback-leader" = "0ba71467299311bb",
    more_nodes_than_connections: "few-connections" = "18ee6e244aed68fa",
    few_connections_and_turns: "few-connections-turns" = "0673d603c5b059c1",
    a_path_that_flaps: "fallback-flapping" = "57e60301ef82c4ca",
    a_dead_leader_flips_nobody: "fallback-not-dead-leader" = "dc729143576dc69a",
    a_skipped_term_flips_nobody: "fallback-not-skipped" = "c24878b44947260e",
    a_slow_gateway_flips_nobody: "fallback-not-slow" = "ec1c8a793995bf7c",
    two_leaders_fall_back_and_return: "fallback-leaders" = "a5b59edd535e8b42",
    one_node_falls_back: "fallback-one" = "1009b727aeec3611",
    a_third_falls_back: "fallback-third" = "743dc1a69d5f0395",
    gossip_alone: "gossip-only" = "dacb7f7968bda35e",
    a_leader_that_dies_in_mid_block: "leader-dies" = "e0e46329629b545c",
    a_partition_that_heals: "partition" = "6d492fdbeed1c183",
    a_rebuilt_block: "rebuild" = "90fdbc0d4d348b2b",
    silent_relays: "silent" = "9c2e0be2e024103b",
    silent_relays_and_more_coding: "silent-fast" = "17bad91471dd473c",
    a_fifth_of_silent_relays: "silent-fifth" = "1d8ad6d5469f415d",
    a_slow_uplink: "slow-uplink" = "c84d760db8887c0a",
    terms_and_hand_over: "terms" = "d818935f6610550d",
    the_next_leader_acknowledges: "hand-over" = "2c7585411ce9dae1",
    a_registration_in_mid_term: "registration" = "d23a13baccb1370e",
    a_registry_that_is_partitioned: "registry-partition" = "052ab9b05f528ce9",
    members_who_come_and_go: "churn" = "0935817920536e42",
    guests_beside_members: "guests" = "d934d56e6bb06bfd",
    substitutes_for_a_dead_leader: "substitutes" = "e5b060b358fa960d",
}
