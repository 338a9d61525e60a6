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
    a_whole_block: "block" = "a9cd01b0710f90d6",
    losses_in_bursts: "bursty" = "72a25773c01532b1",
    crashed_nodes: "crashed" = "37dd491caad7c9ba",
    an_equivocating_leader: "equivocation" = "46159825eda94ba7",
    everybody_falls_back: "fallback-all" = "7b766acbd3ede8c8",
    a_leader_whose_path_is_dead: "fallback-leader" = "f313147ad3cc2a82",
    a_path_that_flaps: "fallback-flapping" = "c7678c4c854df243",
    a_dead_leader_flips_nobody: "fallback-not-dead-leader" = "4a9ad983ddbed5a1",
    a_skipped_term_flips_nobody: "fallback-not-skipped" = "a63e8e06b2a5ca03",
    a_slow_gateway_flips_nobody: "fallback-not-slow" = "66c42908101d50b3",
    two_leaders_fall_back_and_return: "fallback-leaders" = "66bc51301d042e45",
    one_node_falls_back: "fallback-one" = "00ad62efae063d81",
    a_third_falls_back: "fallback-third" = "e0af43cf2b709c55",
    gossip_alone: "gossip-only" = "6c05e78073f8ea0f",
    a_leader_that_dies_in_mid_block: "leader-dies" = "c20bbabc1194070c",
    a_partition_that_heals: "partition" = "70d70d165e625302",
    a_rebuilt_block: "rebuild" = "3eff282098bbaf3c",
    silent_relays: "silent" = "9bbc11d3fbcdfaba",
    a_slow_uplink: "slow-uplink" = "5a4b827853b78daa",
    terms_and_hand_over: "terms" = "c98cd83ffa200026",
}
