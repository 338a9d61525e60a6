use std::path::PathBuf;

use fragcast_shredder::testing::data;
use proptest::prelude::*;

use super::*;
use crate::random::stream;
use crate::world::{Location, Node, World};

/// A matrix of two regions with one given entry.
fn two(a_b: &str) -> String {
    format!(r#"{{"data":{{"a":{{"a":1,"b":{a_b}}},"b":{{"a":20.5,"b":2}}}},"unit":"ms"}}"#)
}

fn message(text: &str) -> String {
    RttMatrix::parse(text, "rtt.json").unwrap_err().to_string()
}

#[test]
fn delays_are_half_of_the_round_trip_that_the_sender_measured() {
    let matrix = RttMatrix::parse(&two("20"), "rtt.json").unwrap();
    assert_eq!(matrix.regions(), ["a", "b"]);
    assert_eq!(matrix.delays(&[0, 1]), [500_000, 10_000_000, 10_250_000, 1_000_000]);
    assert_eq!(matrix.delays(&[1, 0]), [1_000_000, 10_250_000, 10_000_000, 500_000]);
    assert_eq!((matrix.index("b"), matrix.index("c")), (Some(1), None));
}

#[test]
fn bad_matrices_are_told_by_file_and_pair() {
    for bad in ["0", "-3", "10000", "1e300"] {
        let error = message(&two(bad));
        assert!(error.starts_with("rtt.json:") && error.contains("from a to b"), "{error}");
    }
    for bad in ["null", "\"7\"", "1e999", "NaN", "[]"] {
        let error = message(&two(bad));
        assert!(error.contains("line 1") && error.contains("round-trip ms"), "{error}");
    }
    let error = message(r#"{"data":{"a":{"a":1},"b":{"a":1,"b":1}}}"#);
    assert!(error.contains("no round trip from a to b"), "{error}");
    let error = message(r#"{"data":{"a":{"a":1,"zone":2}}}"#);
    assert!(error.contains("no round trip from zone to a"), "{error}");
    let error = message(r#"{"data":{}}"#);
    assert!(error.contains("0 regions"), "{error}");
    let many: Vec<String> = (0..=MAX_REGIONS).map(|i| format!(r#""r{i}":{{}}"#)).collect();
    let error = message(&format!(r#"{{"data":{{{}}}}}"#, many.join(",")));
    assert!(error.contains("1001 regions"), "{error}");
    assert!(message("").contains("rtt.json"));
    let error = RttMatrix::load(&PathBuf::from("no/such/rtt.json")).unwrap_err().to_string();
    assert!(error.contains("no/such/rtt.json"), "{error}");
}

#[test]
fn percentiles_must_cover_and_exceed_the_medians() {
    let median = RttMatrix::parse(&two("20"), "p50.json").unwrap();
    let spreads = |text: &str| {
        let p90 = RttMatrix::parse(text, "p90.json").unwrap();
        median.spreads(&p90, &[0, 1]).map_err(|error| error.to_string())
    };
    assert_eq!(spreads(&two("20")).unwrap(), [0; 4]);
    assert!(spreads(&two("19.9")).unwrap_err().contains("less than the median of 20 ms"));
    let error = spreads(r#"{"data":{"a":{"a":1}}}"#).unwrap_err();
    assert!(error.contains("p90.json") && error.contains("from a to b"), "{error}");
}

/// The quantile `q` of sorted values.
fn quantile(sorted: &[u64], q: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * q) as usize] as f64
}

#[test]
fn runs_have_the_median_and_the_percentile_of_the_files() {
    let median = RttMatrix::parse(&two("20"), "p50.json").unwrap();
    let p90 = r#"{"data":{"a":{"a":1.1,"b":60},"b":{"a":21,"b":2}}}"#;
    let p90 = RttMatrix::parse(p90, "p90.json").unwrap();
    let place = |name: &str| Location { name: name.into(), position: None };
    let world = World {
        nodes: (0..2).map(|i| Node { id: format!("n{i}"), weight: 1, place: i }).collect(),
        places: vec![place("a"), place("b")],
        delays: median.delays(&[0, 1]),
        spreads: median.spreads(&p90, &[0, 1]).unwrap(),
        source: "two regions".into(),
    };
    let runs: Vec<_> = (0..20_000)
        .map(|run| world.conditions(&mut stream(5, "conditions", run)).into_owned())
        .collect();
    for pair in 0..4 {
        let mut drawn: Vec<u64> = runs.iter().map(|run| run.delays[pair]).collect();
        drawn.sort_unstable();
        let near = |got: f64, want: f64, tolerance: f64| {
            assert!((got / want - 1.0).abs() < tolerance, "pair {pair}: {got} for {want}");
        };
        near(quantile(&drawn, 0.5), median.ms[pair] / 2.0 * 1e6, 0.04);
        near(quantile(&drawn, 0.9), p90.ms[pair] / 2.0 * 1e6, 0.04);
        assert!(drawn[0] >= world.delays[pair] / 2);
    }
    // The pair whose 90th percentile is three times the median would fall below half of the median
    // without the bound.
    assert!(runs.iter().any(|run| run.delays[1] == world.delays[1] / 2));
    let again = world.conditions(&mut stream(5, "conditions", 0)).into_owned();
    assert_eq!(again, runs[0]);
    assert!(again.spreads.is_empty());
    assert_eq!(*again.conditions(&mut stream(6, "conditions", 0)), again, "drawn once");
}

#[test]
fn the_measured_matrix_is_read_whole() {
    let Some(path) = data("latency/aws-rtt-p50.json") else { return };
    let matrix = RttMatrix::load(&path).unwrap();
    assert_eq!(matrix.regions().len(), 33);
    let index = |name| matrix.index(name).unwrap();
    assert_eq!(matrix.rtt_ms(index("ca-central-1"), index("us-east-1")), 16.312);
    let p90 = RttMatrix::load(&path.with_file_name("aws-rtt-p90.json")).unwrap();
    let all: Vec<usize> = (0..33).collect();
    assert!(matrix.spreads(&p90, &all).unwrap().iter().all(|spread| *spread > 0));
    assert!(p90.spreads(&matrix, &all).is_err(), "interchanged files are noticed");
}

proptest! {
    #[test]
    fn garbage_is_refused_and_never_panics(
        text in prop_oneof![
            ".{0,200}",
            "[{}\\[\\]\":,a-c0-9eE.\\-]{0,200}",
            (0.0..20_000f64, ".{0,3}").prop_map(|(ms, to)| {
                let inner = serde_json::json!({ to: ms, "b": ms });
                serde_json::json!({ "data": { "b": inner } }).to_string()
            }),
        ],
    ) {
        if let Ok(matrix) = RttMatrix::parse(&text, "garbage") {
            let n = matrix.regions().len();
            prop_assert_eq!(matrix.ms.len(), n * n);
            prop_assert!(matrix.ms.iter().all(|ms| *ms > 0.0 && *ms < MAX_RTT_MS));
        }
    }
}
