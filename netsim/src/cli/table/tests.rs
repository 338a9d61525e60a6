use clap::Parser as _;

use super::*;
use crate::cli::{Cli, Command};

fn args(text: &str) -> Result<TableArgs, clap::Error> {
    let cli = Cli::try_parse_from(["netsim", "table"].into_iter().chain(text.split(' ')))?;
    match cli.command {
        Command::Table(args) => Ok(args),
        other => panic!("{other:?}"),
    }
}

fn plan(text: &str) -> Plan {
    args(text).unwrap().plan().unwrap()
}

#[test]
fn the_lists_are_multiplied() {
    let plan = plan(
        "--topology default --topology us-east-1:8,eu-central-1:8 --topology a/solana.csv \
         --latency b/aws.json --nodes 50,20,50 --kb 36,3.6 --uplink-mbit 1000,100 --loss 0.02,0 \
         --profile fast,lean --protocols fragcast,gossip --leaders 4 --seed 9 --memory 1.5",
    );
    let names: Vec<&str> = plan.networks.iter().map(|network| network.name.as_str()).collect();
    assert_eq!(names, ["cities", "cities", "2 regions", "solana", "aws"]);
    let source = |i: usize| plan.networks[i].network.source.clone();
    assert_eq!(source(0), Source::Default { nodes: 20 });
    assert_eq!(source(1), Source::Default { nodes: 50 });
    assert!(
        plan.networks[4].network.latency.is_some() && plan.networks[3].network.latency.is_none()
    );
    assert_eq!(plan.sizes, [3_600, 36_000]);
    assert_eq!(plan.uplinks, [100_000_000, 1_000_000_000]);
    assert_eq!(plan.losses, [0.0, 0.02]);
    assert_eq!(plan.profiles, Profile::ALL);
    assert_eq!(plan.protocols, ["fragcast", "gossip"]);
    assert_eq!((plan.leaders, plan.scenario.seed), (Some(4), 9));
    assert_eq!(plan.memory, Some(3 << 29));
}

#[test]
fn without_arguments_it_is_the_built_in_cities_in_three_sizes() {
    let Command::Table(args) = Cli::try_parse_from(["netsim", "table"]).unwrap().command else {
        panic!("another command")
    };
    let plan = args.plan().unwrap();
    assert_eq!(plan.networks.len(), NODES.len());
    assert_eq!(plan.sizes, SIZES);
    assert_eq!((plan.scenario.load.leaders, plan.leaders), (LEADERS, None));
    assert_eq!(plan.cells().unwrap().len(), 9);
}

#[test]
fn wrong_input_is_told_with_what_is_right() {
    let usage = |text: &str| args(text).unwrap_err().to_string();
    for (text, right) in [
        ("--kb ten", "a size in kB from 0.2 to 10000, such as 36, is expected"),
        ("--kb 0.1", "a size in kB from 0.2 to 10000"),
        ("--kb 36,,144", "a size in kB from 0.2 to 10000"),
        ("--kb=", "a size in kB from 0.2 to 10000"),
        ("--nodes 5", "5 is not in 10..=10000"),
        ("--nodes=", "cannot parse integer from empty string"),
        ("--nodes 10,20000", "20000 is not in 10..=10000"),
        ("--loss 0.9", "a share from 0 to 0.5, such as 0.01, is expected"),
        ("--uplink-mbit 0", "0 is not in 1..=400000"),
        ("--protocols fragcats", "possible values: fragcast, turbine, rotor, gossip, direct"),
        ("--protocols=", "possible values: fragcast"),
        ("--profile slow", "possible values: lean, fast"),
        ("--leaders 0", "0 is not in 1..=100"),
        ("--memory -1", "unexpected argument"),
        ("--memory 0", "a number of GiB from 0.001 to 1000000, such as 8, is expected"),
        ("--topology=", "a value is required"),
    ] {
        let told = usage(text);
        assert!(told.contains(right), "{text}: {told}");
    }
    let contradiction = |text: &str| args(text).unwrap().plan().unwrap_err().to_string();
    assert!(contradiction("--topology us-east-1:8 --nodes 50").contains("--topology default"));
    assert!(contradiction("--topology us-east-1").contains("--topology us-east-1:30"));
    assert!(contradiction("--topology us-east-1:30,eu-central-1").contains("eu-central-1"));
    assert!(contradiction("--protocols gossip --profile fast").contains("--protocols leaves out"));
    assert!(contradiction("--scenario away.toml").contains("away.toml"));
    // What only the files tell is told before the first run.
    let unknown = plan("--topology us-esat-1:30,eu-central-1:5").cells().unwrap_err().to_string();
    assert!(unknown.contains("2 regions: ") && unknown.contains("us-east-1"), "{unknown}");
    let unread = plan("--latency away.json").cells().unwrap_err().to_string();
    assert!(unread.starts_with("away: cannot read away.json"), "{unread}");
}

#[test]
fn a_scenario_gives_all_that_flags_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("silent.toml");
    let text = "name = \"silent\"\ndescription = \"A tenth is silent.\"\nseed = 5\n\
                network = { nodes = 40, uplink_mbit = 100, loss = 0.03 }\n\
                load = { leaders = 2, frag_bytes = [9000, 500] }\n\
                [[fault]]\nkind = \"silent\"\nshare = 0.1\n";
    std::fs::write(&path, text).unwrap();
    let args = TableArgs { scenario: Some(path), ..args("--protocols fragcast").unwrap() };
    let plan = args.plan().unwrap();
    assert_eq!(plan.networks[0].network.source, Source::Default { nodes: 40 });
    assert_eq!(
        (plan.sizes.as_slice(), plan.uplinks.as_slice()),
        (&[500, 9_000][..], &[100_000_000][..])
    );
    assert_eq!((plan.scenario.faults.len(), plan.scenario.load.leaders), (1, 2));
    let cells = plan.cells().unwrap();
    assert_eq!(cells.len(), 2);
    assert!((cells[0].loss.mean() - 0.03).abs() < 1e-9);
}
