use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::catalogue::{self, Kind, Values};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn names_follow_the_conventions_and_come_once() {
    let mut seen = BTreeSet::new();
    for metric in catalogue::all() {
        let name = metric.name;
        assert!(seen.insert(name), "{name} comes twice");
        assert!(name.starts_with("fragcast_") || name.starts_with("process_"), "{name}");
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.chars().all(is_word) && !name.contains("__"), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        for end in ["_bucket", "_sum", "_count", "_ms", "_micros", "_milliseconds", "_percent"] {
            assert!(!name.trim_end_matches("_total").ends_with(end), "{name}");
        }
        if matches!(metric.kind, Kind::Histogram(_)) {
            assert_eq!(metric.unit(), Some("seconds"), "{name}");
        }
        let help = metric.help;
        assert!(help.ends_with('.') && !help.contains(['\n', '\\', '|']), "{name}: {help}");
        for label in metric.labels {
            assert!(label.name.chars().all(is_word) && label.name != "le", "{name}");
            assert!((1..=1_024).contains(&label.values.most()), "{name}");
        }
        // A peer is one of the labels of few metrics, and of no histogram.
        assert!(metric.most() <= 1_024, "{name} has up to {} time series", metric.most());
    }
}

#[test]
fn the_buckets_of_receipts_are_those_of_the_catalogue() {
    let bounds = fragcast_turbine::LatencySpread::BOUNDS.map(|micros| f64::from(micros) / 1e6);
    for name in ["fragcast_hop_latency_seconds", "fragcast_region_latency_seconds"] {
        let Kind::Histogram(buckets) = catalogue::get(name).unwrap().kind else { panic!("{name}") };
        assert_eq!(buckets, bounds, "{name}");
    }
}

#[test]
fn labels_that_are_enums_have_all_their_names() {
    let outcome = catalogue::get("fragcast_datagrams_total").unwrap().labels[0];
    let Values::Named(names) = outcome.values else { panic!("{outcome:?}") };
    assert_eq!(names().len(), fragcast_turbine::Outcome::ALL.len());
    let via = catalogue::get("fragcast_first_total").unwrap().labels[0].values.names();
    assert_eq!(via.unwrap(), ["overlay", "repair", "gossip"]);
}

#[test]
fn the_reference_is_that_of_the_catalogue() {
    let path = root().join("node/monitoring/METRICS.md");
    let written = catalogue::reference();
    if std::env::var_os("FRAGCAST_WRITE").is_some() {
        fs::write(&path, &written).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == written,
        "node/monitoring/METRICS.md is stale: run `FRAGCAST_WRITE=1 cargo test -p fragcast --lib reference`"
    );
}

/// Words of a text that begin as the names of metrics do.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(move |c| !is_word(c)).filter(|word| word.starts_with("fragcast_"))
}

/// What begins like a metric and is none: crates, and methods and notifications of the JSON-RPC.
const NO_METRICS: [&str; 21] = [
    "fragcast_bench",
    "fragcast_execution",
    "fragcast_latency",
    "fragcast_live",
    "fragcast_livePicture",
    "fragcast_port",
    "fragcast_rpc",
    "fragcast_setHead",
    "fragcast_setMode",
    "fragcast_setPolicy",
    "fragcast_shredder",
    "fragcast_status",
    "fragcast_store",
    "fragcast_subscribe",
    "fragcast_subscribeLive",
    "fragcast_subscription",
    "fragcast_turbine",
    "fragcast_unsubscribe",
    "fragcast_unsubscribeLive",
    "fragcast_upstream",
    "fragcast_delegation",
];

/// Whether a word of a document names a metric, or, before a `*`, the beginning of one.
fn is_known(word: &str) -> bool {
    let series = ["_bucket", "_sum", "_count"];
    let base = series.iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
    let histogram =
        |name| catalogue::get(name).is_some_and(|m| matches!(m.kind, Kind::Histogram(_)));
    catalogue::get(word).is_some()
        || histogram(base)
        || word.ends_with('_') && catalogue::all().any(|metric| metric.name.starts_with(word))
}

#[test]
fn documents_name_only_metrics_that_there_are() {
    let mut unknown = Vec::new();
    let mut found = 0;
    let documents = ["README.md", "SECURITY.md", "GATEWAY.md", "ARCHITECTURE.md"];
    let monitoring =
        ["dashboard.json", "alerts.yml", "alerts_test.yml", "prometheus.yml", "README.md"];
    let monitoring = monitoring.map(|name| format!("node/monitoring/{name}"));
    for name in documents.into_iter().map(str::to_owned).chain(monitoring) {
        let path = root().join(&name);
        if !path.exists() && name.ends_with("monitoring/README.md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        for word in words(&text).filter(|word| !NO_METRICS.contains(word)) {
            found += 1;
            if !is_known(word) {
                unknown.push(format!("{name}: {word}"));
            }
        }
    }
    assert!(unknown.is_empty(), "no such metrics: {unknown:#?}");
    assert!(found > 50, "the documents name metrics, and {found} were found");
    assert!(!is_known("fragcast_made_up_total") && !is_known("fragcast_members_bucket"));
}
