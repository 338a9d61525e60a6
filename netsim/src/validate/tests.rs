use std::time::Duration;

use clap::Parser;
use fragcast_shredder::MessageKey;

use super::*;
use crate::NodeId;
use crate::emulate::measure::Sent;
use crate::emulate::relay::Lateness;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    validate: ValidateArgs,
}

fn measured(leader: NodeId, times_ms: Vec<Vec<Option<f64>>>) -> Measured {
    let lateness = Lateness { p50: 60, p99: 200, max: 900 };
    Measured {
        leader,
        messages: Vec::new(),
        times_ms,
        relay: RelayStats { packets: 1_000, lost: 9, lateness, ..RelayStats::default() },
        machine: Some(MachineUse {
            cores: 2,
            busy: 0.25,
            nodes: 0.3,
            relay: 0.2,
            full_sockets: 7,
            over: Duration::from_secs(9),
        }),
        took: Duration::from_secs(9),
    }
}

#[test]
fn percentiles_are_of_all_pairs_and_those_that_never_completed_are_last() {
    let of = |done: u32, never: usize| {
        let done = (1..=done).rev().map(|i| Some(f64::from(i)));
        Distribution::new(done.chain(std::iter::repeat_n(None, never)))
    };
    let all = of(100, 0);
    assert_eq!((all.p50, all.p90, all.p99), (Some(50.0), Some(90.0), Some(99.0)));
    assert_eq!((all.mean, all.missed, all.pairs), (Some(50.5), 0, 100));
    let some = of(95, 5);
    assert_eq!((some.p50, some.p90, some.p99), (Some(50.0), Some(90.0), None));
    assert_eq!((some.missed, some.pairs), (5, 100));
    let one = of(1, 0);
    assert_eq!((one.p50, one.p99), (Some(1.0), Some(1.0)));
    let none = of(0, 2);
    assert_eq!((none.p50, none.mean, none.missed), (None, None, 2));
    assert_eq!(of(0, 0).p99, None);
}

#[test]
fn the_leader_is_left_out_on_both_sides() {
    let real = measured(1, vec![vec![Some(10.0), Some(0.0), Some(30.0)]]);
    let model = vec![vec![8_000_000, 0, NEVER]];
    let comparison = Comparison::new(&real, &model, None);
    assert_eq!((comparison.real.pairs, comparison.real.mean), (2, Some(20.0)));
    assert_eq!((comparison.modelled.p50, comparison.modelled.missed), (Some(8.0), 1));
    assert_eq!(comparison.difference()[0].map(f64::round), Some(25.0));
    assert_eq!(comparison.difference()[1], None, "the model never completes there");
}

#[test]
fn what_the_model_leaves_out_is_named_and_bounded() {
    let rows = |time: f64| vec![vec![Some(0.0), Some(time), Some(time)]];
    let nanos = |time: f64| vec![vec![0, (time * 1e6) as Nanos, (time * 1e6) as Nanos]];
    // 4 ms without delays, of which the model contains 1.5.
    let baseline = Baseline::new(&measured(0, rows(4.0)), &nanos(1.5));
    assert_eq!(baseline.processing(), Some(2.5));
    let compare = |real: f64| {
        Comparison::new(&measured(0, rows(real)), &nanos(100.0), Some(baseline.clone()))
    };
    let near = |value: Option<f64>, expected: f64| (value.unwrap() - expected).abs() < 1e-9;
    for (real, unexplained) in [(103.0, 0.5), (102.0, 0.0), (100.0, 0.0), (99.0, -1.0)] {
        let comparison = compare(real);
        assert!(near(comparison.beyond_model(), real - 100.0), "{comparison}");
        assert!(near(comparison.unexplained(), unexplained), "{comparison}");
    }
    assert!(compare(103.0).holds(1.0) && !compare(103.0).holds(0.4));
    assert!(compare(99.0).holds(1.1) && !compare(99.0).holds(0.9), "faster than the model");
    let text = compare(103.0).to_string();
    for part in [
        "103.00 ms = model 100.00 +3.00",
        "at most 2.50 ms",
        "+0.50 unexplained",
        "real, no delays             4.00",
        "+3.0 %",
        "late by p50 60 µs, p99 200 µs, at most 900 µs a hop",
        "25 % of 2 cores busy",
        "7 packets dropped by full sockets",
    ] {
        assert!(text.contains(part), "`{part}` in\n{text}");
    }
    assert!(!text.contains("warning"), "{text}");

    let bare = Comparison::new(&measured(0, rows(103.0)), &nanos(100.0), None);
    assert!(near(bare.unexplained(), 3.0));
    assert!(!bare.holds(1.0) && bare.holds(5.0));
}

#[test]
fn a_measurement_is_told_by_kind() {
    let mut real = measured(0, vec![vec![Some(0.0), Some(5.0)], vec![Some(0.0), Some(9.0)]]);
    let key = MessageKey { block: 1, attempt: 0, message: 0 };
    real.messages = [Kind::Env, Kind::Frag].map(|kind| Sent { kind, key, bytes: 249 }).into();
    let text = real.to_string();
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("`{name}` in\n{text}")).split_whitespace().nth(1).unwrap()
    };
    assert_eq!((of("Env"), of("frags"), of("Seal")), ("5.00", "9.00", "–"), "{text}");
    assert!(text.contains("0 of 2") && text.contains("25 % of 2 cores"), "{text}");
}

#[test]
fn what_makes_a_run_worthless_is_said() {
    let mut real = measured(0, vec![vec![Some(0.0), Some(5.0), None]]);
    real.machine = real.machine.map(|machine| MachineUse { busy: 0.97, ..machine });
    real.relay.overflow = 3;
    let comparison = Comparison::new(&real, &[vec![0, 5_000_000, 5_000_000]], None);
    assert!(!comparison.holds(1_000.0), "somebody missed a message");
    let text = comparison.to_string();
    assert!(text.contains("1 of 2"), "{text}");
    assert!(text.contains("processors were saturated"), "{text}");
    assert!(text.contains("failed to carry 3 packets"), "{text}");
}

#[test]
fn the_arguments_are_those_of_emulate_and_more() {
    let args = ["validate", "--kb", "8", "--no-baseline", "--tolerance", "5"];
    let args = Cli::try_parse_from(args).unwrap().validate;
    assert_eq!((args.emulate.kb, args.no_baseline, args.tolerance), (8, true, 5.0));
    assert_eq!(Cli::try_parse_from(["validate"]).unwrap().validate.tolerance, 10.0);
}
