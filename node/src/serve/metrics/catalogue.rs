//! The catalogue of metrics: every metric that a node tells, with its kind, its HELP text and its
//! labels.
//!
//! The [recorder](crate::serve::recorder) refuses what is not in here, so that no metric is without a
//! HELP text, none has two kinds, and no label has more values than is said here. The reference
//! `node/monitoring/METRICS.md` is written from it; the dashboard, the alert rules and the documents
//! are checked against it.
//!
//! Names follow Prometheus's conventions: `fragcast_`, the thing that is counted, its base unit
//! (`seconds`, `bytes`, `ratio`), and `_total` for counters. A counter counts one kind of thing, so
//! that the sum over its labels means something.

use std::collections::BTreeMap;
use std::sync::LazyLock;

mod carried;
mod executed;
mod gossiped;
mod served;

pub(in crate::serve) use carried::PEERS;

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only grows, until a restart.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Observations counted by size; the upper ends of the buckets.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The name in Prometheus' text format.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// The values that a label may have.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// These.
    Of(&'static [&'static str]),
    /// Those of an enum.
    Named(fn() -> Vec<&'static str>),
    /// At most so many of what the text says.
    AtMost(usize, &'static str),
}

impl Values {
    /// All of them, if they are known by name.
    pub fn names(&self) -> Option<Vec<&'static str>> {
        match self {
            Self::Of(names) => Some(names.to_vec()),
            Self::Named(names) => Some(names()),
            Self::AtMost(..) => None,
        }
    }

    /// How many there are at most.
    pub fn most(&self) -> usize {
        match self {
            Self::Of(names) => names.len(),
            Self::Named(names) => names().len(),
            Self::AtMost(most, _) => *most,
        }
    }

    /// Whether this is one of them; of those without names everything is.
    fn admit(&self, value: &str) -> bool {
        match self {
            Self::Of(names) => names.contains(&value),
            Self::Named(names) => names().contains(&value),
            Self::AtMost(..) => true,
        }
    }
}

/// A label of a metric.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its HELP text: one line.
    pub help: &'static str,
    /// Its labels, in the order in which they are written.
    pub labels: &'static [Label],
}

/// Why the recorder takes no sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such metric.
    #[error("not in the catalogue of metrics: add it to serve/metrics/catalogue")]
    Unknown,
    /// It is of another kind.
    #[error("of another kind in the catalogue of metrics")]
    Kind,
    /// It has other labels.
    #[error("its labels are not those of the catalogue of metrics")]
    Labels,
    /// A label has a value that the catalogue does not list.
    #[error("a label has a value that is not in the catalogue of metrics")]
    Value,
    /// There are as many time series of it as there may be.
    #[error("it has as many time series as the catalogue of metrics allows")]
    Full,
}

impl Metric {
    const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, kind, help, labels: &[] }
    }

    const fn by(self, labels: &'static [Label]) -> Self {
        Self { labels, ..self }
    }

    /// The base unit, which is a part of the name.
    pub fn unit(&self) -> Option<&'static str> {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        let units = ["seconds", "bytes", "ratio"];
        units.into_iter().find(|unit| name.strip_suffix(unit).is_some_and(|at| at.ends_with('_')))
    }

    /// How many time series it has at most.
    pub fn most(&self) -> usize {
        self.labels.iter().map(|label| label.values.most()).product()
    }

    /// Whether a sample with these labels is one of it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn admit(&self, kind: &'static str, labels: &[(&str, &str)]) -> Result<(), Refused> {
        if self.kind.name() != kind {
            return Err(Refused::Kind);
        }
        if !self.labels.iter().map(|label| label.name).eq(labels.iter().map(|(name, _)| *name)) {
            return Err(Refused::Labels);
        }
        let mut pairs = self.labels.iter().zip(labels);
        if pairs.all(|(label, (_, value))| label.values.admit(value)) {
            Ok(())
        } else {
            Err(Refused::Value)
        }
    }
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric::new(name, Kind::Counter, help)
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric::new(name, Kind::Gauge, help)
}

const fn histogram(name: &'static str, buckets: &'static [f64], help: &'static str) -> Metric {
    Metric::new(name, Kind::Histogram(buckets), help)
}

const fn label(name: &'static str, values: Values) -> Label {
    Label { name, values }
}

/// The parts of the catalogue, with their headings in the reference.
pub const PARTS: [(&str, &[Metric]); 4] = [
    ("Carried: the overlay and its peers", carried::METRICS),
    ("Gossip and the way that a node counts on", gossiped::METRICS),
    ("Executed: blocks, database, execution client", executed::METRICS),
    ("Served: the node, its ports and its users", served::METRICS),
];

/// All metrics, in the order of the reference.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    PARTS.into_iter().flat_map(|(_, metrics)| metrics)
}

/// The metric of this name.
pub fn get(name: &str) -> Option<&'static Metric> {
    static BY_NAME: LazyLock<BTreeMap<&'static str, &'static Metric>> =
        LazyLock::new(|| all().map(|metric| (metric.name, metric)).collect());
    BY_NAME.get(name).copied()
}

/// The reference, as Markdown.
pub fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\nWhat `/metrics` of a node tells, in Prometheus' text format. Written by a test from the \
         catalogue in\n`node/src/serve/metrics/catalogue`; do not edit.\n",
    );
    for (heading, metrics) in PARTS {
        text += &format!(
            "\n## {heading}\n\n| metric | kind | unit | labels | what it tells |\n|---|---|---|---|---|\n"
        );
        for metric in metrics {
            let labels: Vec<String> = metric.labels.iter().map(described).collect();
            let labels = if labels.is_empty() { "–".to_owned() } else { labels.join("; ") };
            text += &format!(
                "| `{}` | {} | {} | {labels} | {} |\n",
                metric.name,
                metric.kind.name(),
                metric.unit().unwrap_or("–"),
                metric.help
            );
        }
    }
    text
}

fn described(label: &Label) -> String {
    match (label.values.names(), label.values) {
        (Some(names), _) => {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            format!("`{}`: {}", label.name, names.join(", "))
        }
        (None, Values::AtMost(most, what)) => {
            format!("`{}`: {what}, at most {most}", label.name)
        }
        (None, _) => format!("`{}`", label.name),
    }
}
