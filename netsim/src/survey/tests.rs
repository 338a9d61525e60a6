use std::sync::Mutex;

use super::*;
use crate::results::{RELAYED_LIMIT, Survey};
use crate::topology::{Source, parse_regions};

fn network(name: &str, source: Source) -> Network {
    let network = scenario::Network { source, ..scenario::Network::default() };
    Network { name: name.into(), network }
}

/// Twenty nodes in cities and sixteen in two regions, with and without loss.
fn plan() -> Plan {
    let regions = parse_regions("us-east-1:8,eu-central-1:8").unwrap();
    Plan {
        scenario: Scenario::default(),
        networks: vec![
            network("cities", Source::Default { nodes: 20 }),
            network("two regions", Source::Regions(regions)),
        ],
        sizes: vec![3_600],
        uplinks: vec![1_000_000_000],
        losses: vec![0.0, 0.02],
        profiles: vec![Profile::Lean],
        protocols: vec!["fragcast".into(), "direct".into()],
        leaders: Some(2),
        memory: None,
    }
}

fn survey(plan: &Plan) -> Survey {
    let cells = plan.cells().unwrap();
    let rows = cells.iter().map(|cell| plan.row(cell, |_| {}).unwrap()).collect();
    Survey::of(rows, Vec::new())
}

#[test]
fn a_table_has_a_row_for_each_combination_and_the_same_seed_gives_the_same_digest() {
    let plan = plan();
    let first = survey(&plan);
    let places: Vec<(&str, usize, f64)> =
        first.rows.iter().map(|row| (row.network.as_str(), row.nodes, row.loss)).collect();
    assert_eq!(
        places,
        [
            ("cities", 20, 0.0),
            ("cities", 20, 0.02),
            ("two regions", 16, 0.0),
            ("two regions", 16, 0.02)
        ]
    );
    for row in &first.rows {
        let names: Vec<&String> = row.protocols.keys().collect();
        assert_eq!(names, ["direct", "fragcast", LIMIT, RELAYED_LIMIT]);
        for (name, protocol) in &row.protocols {
            assert_eq!(protocol.pairs, 2 * (row.nodes as u64 - 1), "{name}");
            assert!(protocol.ratio.mean.is_some() && protocol.cdf.is_empty(), "{name}");
        }
        assert!(row.protocols[RELAYED_LIMIT].times.mean <= row.protocols[LIMIT].times.mean);
    }
    // One thread for want of memory, and other rows before: the rows are the same.
    let one_run = of_run(20, 3_600, true);
    let mut bounded = plan.clone();
    bounded.memory = Some(one_run);
    let cells = bounded.cells().unwrap();
    assert_eq!(bounded.threads(&cells[0]), Some(1).filter(|_| rayon::current_num_threads() > 1));
    let again = survey(&bounded);
    assert_eq!(again, first);
    let alone = plan.row(&cells[3], |_| {}).unwrap();
    assert_eq!(alone, first.rows[3]);
    // Another seed is another table.
    let mut other = plan;
    other.scenario.seed = 2;
    assert_ne!(survey(&other).digest, first.digest);
}

#[test]
fn progress_adds_up_to_the_whole_cell() {
    let plan = plan();
    let cell = plan.cells().unwrap()[0];
    let sum = Mutex::new((0.0, 0));
    plan.row(&cell, |share| {
        let mut sum = sum.lock().unwrap();
        *sum = (sum.0 + share, sum.1 + 1);
    })
    .unwrap();
    let (sum, runs) = sum.into_inner().unwrap();
    assert!((sum - 1.0f64).abs() < 1e-9, "{sum}");
    assert_eq!(runs, 4, "two leaders, two protocols");
}

#[test]
fn profiles_are_protocols_beside_one_another() {
    let mut plan = plan();
    plan.profiles = vec![Profile::Lean, Profile::Fast];
    plan.networks.truncate(1);
    plan.losses.truncate(1);
    let cells = plan.cells().unwrap();
    let row = plan.row(&cells[0], |_| {}).unwrap();
    let names: Vec<&String> = row.protocols.keys().collect();
    assert_eq!(names, ["direct", "fragcast-fast", "fragcast-lean", LIMIT, RELAYED_LIMIT]);
    // Each is what it is alone.
    plan.profiles = vec![Profile::Fast];
    let alone = plan.row(&cells[0], |_| {}).unwrap();
    assert_eq!(alone.protocols["fragcast"], row.protocols["fragcast-fast"]);
    assert_eq!(alone.protocols["direct"], row.protocols["direct"]);
}

#[test]
fn what_cannot_be_run_is_known_before_the_first_run() {
    let told = |change: &dyn Fn(&mut Plan)| {
        let mut plan = plan();
        change(&mut plan);
        plan.cells().unwrap_err().to_string()
    };
    let error = told(&|plan| plan.memory = Some(1 << 20));
    assert!(
        error.starts_with("cities: a run of 20 nodes with frags of 3.6 kB takes about 0.")
            && error.contains("--memory"),
        "{error}"
    );
    let error = told(&|plan| plan.networks.push(network("away", Source::Csv("away.csv".into()))));
    assert!(error.starts_with("away: cannot read away.csv"), "{error}");
    let error = told(&|plan| plan.networks[0].network.source = Source::Default { nodes: 20_000 });
    assert!(error.contains("20000 nodes; a world has 2 to 10000"), "{error}");
    let error = told(&|plan| plan.leaders = Some(17));
    assert!(error.starts_with("two regions: ") && error.contains("only 16 nodes"), "{error}");
    assert_eq!(told(&|plan| plan.networks.clear()), "nothing to run: no network");
    assert_eq!(told(&|plan| plan.sizes.clear()), "nothing to run: no size of a frag");
    assert_eq!(told(&|plan| plan.uplinks.clear()), "nothing to run: no uplink");
}

#[test]
fn without_losses_of_its_own_a_cell_has_those_of_the_scenario() {
    let mut plan = plan();
    plan.losses.clear();
    plan.scenario.network.links.loss = Loss::Bursty { mean: 0.03, burst: 4.0 };
    let cells = plan.cells().unwrap();
    assert_eq!(cells.len(), 2);
    assert_eq!(cells[0].loss, Loss::Bursty { mean: 0.03, burst: 4.0 });
    let scenario = plan.scenario(&cells[1], Profile::Fast);
    assert_eq!(scenario.network.links.loss, cells[1].loss);
    assert_eq!(scenario.fragcast.profile, Profile::Fast);
    assert!(cells.iter().all(|cell| cell.cost() > 0));
}
