#![expect(clippy::print_stderr, reason = "what was measured")]

use clap::Parser;
use fragcast_shredder::testing::skip;

use super::*;
use crate::load::Load;
use crate::world::sample::line;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    emulate: EmulateArgs,
}

fn args(args: &[&str]) -> Result<EmulateArgs, clap::Error> {
    let args = std::iter::once(&"emulate").chain(args);
    Cli::try_parse_from(args).map(|cli| cli.emulate)
}

#[test]
fn arguments_make_an_emulation() {
    let given = ["--kb", "8", "--blocks", "2", "--interval-ms", "50", "--loss", "0.03"];
    let more = ["--uplink-mbit", "100", "--leader", "2", "--fragcast", "/bin/x", "--seed", "9"];
    let world = line(4, 2, 1_000_000);
    let emulation = args(&[&given[..], &more].concat()).unwrap().emulation(world.clone());
    assert_eq!(emulation.world, world);
    assert_eq!(
        (emulation.links.uplink_bps, emulation.links.downlink_bps),
        (10u64.pow(8), 10u64.pow(8))
    );
    assert_eq!(emulation.links.loss, Loss::Independent(0.03));
    let traffic =
        Traffic { blocks: 2, frags: 8, bytes: 8_000, interval: Duration::from_millis(50) };
    assert_eq!(emulation.traffic, traffic);
    assert_eq!((emulation.leader().unwrap(), emulation.seed), (2, 9));
    assert_eq!(emulation.fragcast, Path::new("/bin/x"));
    for (wrong, part) in [
        (["--loss", "2"], "0 to 0.5"),
        (["--route", "pigeon"], "rotor"),
        (["--kb", "0"], "1..=1000"),
    ] {
        let error = args(&wrong).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

fn emulation(nodes: usize) -> Emulation {
    let world = line(nodes, nodes.div_ceil(2), 15_000_000);
    let links = LinkConfig::default();
    Emulation::new(world, links, "/nowhere/fragcast".into())
}

#[test]
fn what_cannot_be_emulated_is_told_before_anything_starts() {
    let missing = emulation(4).run().unwrap_err().to_string();
    assert!(missing.contains("cargo build --release -p fragcast"), "{missing}");
    assert!(missing.contains("/nowhere/fragcast"), "{missing}");
    for nodes in [1, 31] {
        let error = emulation(nodes).run().unwrap_err().to_string();
        assert!(error.contains("2 to 30"), "{error}");
    }
    let nobody = Emulation { leader: Some(4), ..emulation(4) };
    let error = nobody.run().unwrap_err().to_string();
    assert!(error.contains("0 to 3"), "{error}");
}

#[test]
fn a_baseline_keeps_rates_and_code_and_has_no_delay_or_loss() {
    let real = Emulation {
        links: LinkConfig { jitter: 5, reorder: (0.1, 5), ..LinkConfig::default() },
        ..emulation(4)
    };
    let still = real.baseline();
    assert!(still.world.delays.iter().all(|delay| *delay == 0));
    assert_eq!(still.links.loss.mean(), 0.0);
    assert_eq!((still.links.jitter, still.links.reorder), (0, (0.0, 0)));
    assert_eq!(still.links.uplink_bps, real.links.uplink_bps);
    assert_eq!(still.coded_loss, real.coded_loss, "another code rate: other packets");
    assert_eq!(still.load().unwrap(), real.load().unwrap());
    assert!(real.world.delays.iter().all(|delay| *delay > 0), "the real one is as it was");
}

#[test]
fn the_leader_is_drawn_by_weight() {
    let mut emulation = emulation(4);
    emulation.world.nodes.iter_mut().for_each(|node| node.weight = 0);
    emulation.world.nodes[2].weight = 5;
    assert_eq!(emulation.leader().unwrap(), 2);
    assert_eq!(emulation.load().unwrap().leaders, Load::single(vec![2], 500).leaders);
}

/// A shell script in the place of the nodes' program.
#[cfg(unix)]
fn script(dir: &Path, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let program = dir.join("fragcast");
    std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[cfg(unix)]
#[test]
fn a_node_that_ends_at_once_is_told_with_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "echo \"no such luck: $*\" >&2; exit 3");
    let error = Emulation { fragcast: program, ..emulation(2) }.run().unwrap_err().to_string();
    assert!(error.contains("exit status: 3"), "{error}");
    assert!(error.contains("no such luck: run --config"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_run_that_fails_leaves_no_process_behind() {
    // It logs that it runs, answers nothing, and would run for ten minutes.
    let dir = tempfile::tempdir().unwrap();
    let at = r#""p2p":"127.0.0.1:9","ingest":"127.0.0.1:9","http":"127.0.0.1:9""#;
    let line = format!(r#"{{"fields":{{"message":"running",{at}}}}}"#);
    let pids = dir.path().join("pids");
    let text = format!("echo $$ >> '{}'; echo '{line}' >&2; exec sleep 600", pids.display());
    let program = script(dir.path(), &text);
    let error = Emulation { fragcast: program, ..emulation(3) }.run().unwrap_err().to_string();
    assert!(error.contains("node 0 does not answer"), "{error}");
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 3);
    for pid in pids.lines() {
        let kill = std::process::Command::new("kill").args(["-0", pid]).output().unwrap();
        assert!(!kill.status.success(), "process {pid} is still there");
    }
}

/// The nodes' program beside the folder of test programs, if it has been built.
fn built() -> Option<PathBuf> {
    let binary = std::env::var_os("FRAGCAST_BIN").map_or_else(default_binary, PathBuf::from);
    let there = binary.is_file();
    if !there {
        skip(format_args!("there is no {}; run `cargo build -p fragcast`", binary.display()));
    }
    there.then_some(binary)
}

#[test]
fn every_real_node_gets_every_message_and_none_before_the_light() {
    let Some(fragcast) = built() else { return };
    // Loss that code and repair make good. Light that takes longer than what clocks may be corrected by.
    let emulation = Emulation {
        world: line(4, 2, 150_000_000),
        fragcast,
        links: LinkConfig { loss: Loss::Independent(0.01), ..LinkConfig::default() },
        traffic: Traffic {
            blocks: 2,
            frags: 3,
            bytes: 6_000,
            interval: Duration::from_millis(100),
        },
        patience: Duration::from_secs(300),
        ..emulation(4)
    };
    let measured = emulation.run().unwrap();
    assert_eq!(measured.messages.len(), 10);
    assert_eq!(measured.missed(), 0, "{measured:?}");
    for row in &measured.times_ms {
        for (node, time) in row.iter().enumerate() {
            let light = emulation.world.delay(measured.leader, node as NodeId) as f64 / 1e6;
            // Nodes read the system's time at different moments, and it may be corrected in
            // between, by more where a machine is busy.
            assert!(time.is_some_and(|time| time >= light - 20.0), "node {node}: {row:?}");
        }
    }
    let far = emulation.world.delays.iter().filter(|delay| **delay > 100_000_000).count();
    assert!(far > 0, "some pairs are farther apart than the tolerance");
    let relay = &measured.relay;
    assert!(relay.delivered > 0 && relay.sent.iter().all(|sent| *sent > 0), "{relay:?}");
    assert_eq!(relay.unknown, 0, "{relay:?}");
    // What a slow machine's sockets overflowed by is told and no failure: repair makes it good.
    eprintln!("{relay:?}\n{:?}", measured.machine);
}
