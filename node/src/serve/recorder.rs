//! One node's Prometheus metrics: what is observed, and the text of a scrape.
//!
//! A recorder of its own for each node, not one for the process: devnet runs many nodes in one
//! process. Counters and gauges are kept where they happen and copied here for each scrape, which
//! begins with nothing: what has gone, such as a peer's round trip, is not told any more. Histograms
//! are kept here. Whatever the `catalogue` of [`metrics`](super::metrics) does not have is left out,
//! counted, and told to the log once.
//!
//! **Memory.** The time series of the catalogue at most; a histogram is 200 bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fragcast_turbine::Timestamp;

use super::metrics::catalogue::{self, Kind, Metric, Refused};

/// A label and its value.
type Pair<'a> = (&'static str, &'a str);

/// The values of a metric's time series by their labels as text.
type Series<T> = BTreeMap<&'static str, BTreeMap<String, T>>;

/// Observations counted by size.
#[derive(Debug, Clone, Default)]
struct Histogram {
    /// One for each bucket, and one for what is beyond.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, value: f64, bounds: &[f64]) {
        self.counts.resize(bounds.len() + 1, 0);
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        self.counts[bucket] += 1;
        self.sum += value;
    }
}

/// What was left out.
#[derive(Debug, Default)]
struct Left {
    count: u64,
    told: BTreeSet<&'static str>,
}

/// One node's recorder.
#[derive(Debug, Default)]
pub struct Recorder {
    /// The counters and gauges of the scrape that is being written.
    samples: Mutex<Series<f64>>,
    /// Histograms that are copied for a scrape.
    copied: Mutex<Series<Histogram>>,
    observed: Mutex<Series<Histogram>>,
    left: Mutex<Left>,
    /// Held while a scrape is written.
    scrape: Mutex<()>,
}

/// A scrape that is being written; others wait for it.
pub(super) struct Scrape<'a> {
    recorder: &'a Recorder,
    _alone: MutexGuard<'a, ()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Labels in the text format, braces aside.
fn written(labels: &[Pair<'_>]) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        if !text.is_empty() {
            text.push(',');
        }
        let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        let _ = write!(text, "{name}=\"{value}\"");
    }
    text
}

/// A sample of a metric, if the catalogue takes it; `series` are the metric's so far.
fn admit<T>(
    name: &'static str,
    kind: &'static str,
    labels: &[Pair<'_>],
    all: &Series<T>,
) -> Result<(&'static Metric, String), Refused> {
    let metric = catalogue::get(name).ok_or(Refused::Unknown)?;
    metric.admit(kind, labels)?;
    let text = written(labels);
    let series = all.get(name);
    if series.is_some_and(|series| series.len() >= metric.most() && !series.contains_key(&text)) {
        return Err(Refused::Full);
    }
    Ok((metric, text))
}

impl Recorder {
    fn refuse(&self, name: &'static str, why: Refused) {
        let mut left = lock(&self.left);
        left.count += 1;
        if left.told.insert(name) {
            tracing::error!(metric = name, "a sample is left out of the metrics: {why}");
        }
    }

    fn sample(&self, name: &'static str, kind: Kind, labels: &[Pair<'_>], value: f64) {
        let mut samples = lock(&self.samples);
        match admit(name, kind.name(), labels, &samples) {
            Ok((metric, text)) => {
                samples.entry(metric.name).or_default().insert(text, value);
            }
            Err(why) => self.refuse(name, why),
        }
    }

    /// Sets a counter that is kept elsewhere.
    pub(super) fn counter(&self, name: &'static str, label: Option<Pair<'_>>, value: u64) {
        self.sample(name, Kind::Counter, label.as_slice(), value as f64);
    }

    /// Sets a counter of seconds.
    pub(super) fn seconds(&self, name: &'static str, label: Option<Pair<'_>>, value: Duration) {
        self.sample(name, Kind::Counter, label.as_slice(), value.as_secs_f64());
    }

    /// Sets a gauge.
    pub(super) fn gauge(&self, name: &'static str, label: Option<Pair<'_>>, value: f64) {
        self.sample(name, Kind::Gauge, label.as_slice(), value);
    }

    /// Sets a gauge that is always 1 and tells something by its labels.
    pub(super) fn info(&self, name: &'static str, labels: &[Pair<'_>]) {
        self.sample(name, Kind::Gauge, labels, 1.0);
    }

    /// Sets the counter of changes of the way this node counts on.
    pub(super) fn changes(&self, to: &'static str, reason: &'static str, n: u64) {
        let labels = [("to", to), ("reason", reason)];
        self.sample("fragcast_changes_total", Kind::Counter, &labels, n as f64);
    }

    /// Sets a histogram that is kept elsewhere: how many are in each bucket of the catalogue and how
    /// many beyond, and their sum.
    pub(super) fn histogram(
        &self,
        name: &'static str,
        label: Option<Pair<'_>>,
        counts: &[u64],
        sum: f64,
    ) {
        let mut copied = lock(&self.copied);
        match admit(name, Kind::Histogram(&[]).name(), label.as_slice(), &copied) {
            Ok((metric, text)) => {
                let histogram = Histogram { counts: counts.to_vec(), sum };
                copied.entry(metric.name).or_default().insert(text, histogram);
            }
            Err(why) => self.refuse(name, why),
        }
    }

    fn observe(&self, name: &'static str, labels: &[Pair<'_>], value: f64) {
        let mut observed = lock(&self.observed);
        match admit(name, Kind::Histogram(&[]).name(), labels, &observed) {
            Ok((metric, text)) => {
                let Kind::Histogram(bounds) = metric.kind else { return };
                let series = observed.entry(metric.name).or_default();
                series.entry(text).or_default().observe(value, bounds);
            }
            Err(why) => self.refuse(name, why),
        }
    }

    /// Records the latency of a message that came `via` a way.
    pub fn latency(&self, kind: &'static str, via: &'static str, took: Duration) {
        let labels = [("kind", kind), ("via", via)];
        self.observe("fragcast_message_latency_seconds", &labels, took.as_secs_f64());
    }

    /// Records a message that came both ways.
    pub fn race(&self, kind: &'static str, overlay_at: Timestamp, gossip_at: Timestamp) {
        let lead = |later: Timestamp, earlier: Timestamp| later.since(earlier).as_secs_f64();
        let (first, lead) = if overlay_at <= gossip_at {
            ("overlay", lead(gossip_at, overlay_at))
        } else {
            ("gossip", lead(overlay_at, gossip_at))
        };
        self.observe("fragcast_lead_seconds", &[("first", first), ("kind", kind)], lead);
    }

    /// Begins a scrape, with nothing copied yet.
    pub(super) fn begin(&self) -> Scrape<'_> {
        let alone = lock(&self.scrape);
        lock(&self.samples).clear();
        lock(&self.copied).clear();
        Scrape { recorder: self, _alone: alone }
    }
}

impl Scrape<'_> {
    /// Everything in Prometheus' text format.
    pub(super) fn text(self) -> String {
        let recorder = self.recorder;
        let left = lock(&recorder.left).count;
        recorder.counter("fragcast_metrics_refused_total", None, left);
        let (samples, copied) = (lock(&recorder.samples), lock(&recorder.copied));
        // Whoever observes carries messages: it waits for a copy, not for the page to be written.
        let observed = lock(&recorder.observed).clone();
        let mut text = String::new();
        for metric in catalogue::all() {
            let name = metric.name;
            let histograms = copied.get(name).into_iter().chain(observed.get(name)).flatten();
            let mut histograms = histograms.peekable();
            let samples = samples.get(name);
            if samples.is_none() && histograms.peek().is_none() {
                continue;
            }
            let _ = writeln!(text, "# HELP {name} {}", metric.help);
            let _ = writeln!(text, "# TYPE {name} {}", metric.kind.name());
            for (labels, value) in samples.into_iter().flatten() {
                line(&mut text, name, labels, *value);
            }
            let Kind::Histogram(bounds) = metric.kind else { continue };
            for (labels, histogram) in histograms {
                buckets(&mut text, name, labels, bounds, histogram);
            }
        }
        text
    }
}

/// One line of the text format.
fn line(text: &mut String, name: &str, labels: &str, value: f64) {
    let _ = match labels {
        "" => write!(text, "{name} "),
        labels => write!(text, "{name}{{{labels}}} "),
    };
    let _ = match value {
        value if value.is_nan() => writeln!(text, "NaN"),
        f64::INFINITY => writeln!(text, "+Inf"),
        f64::NEG_INFINITY => writeln!(text, "-Inf"),
        value => writeln!(text, "{value}"),
    };
}

/// The lines of a histogram.
fn buckets(text: &mut String, name: &str, labels: &str, bounds: &[f64], histogram: &Histogram) {
    let comma = if labels.is_empty() { "" } else { "," };
    let bounds = bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
    let mut count = 0;
    for (place, bound) in bounds.enumerate() {
        count += histogram.counts.get(place).copied().unwrap_or(0);
        let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
    }
    line(text, &format!("{name}_sum"), labels, histogram.sum);
    line(text, &format!("{name}_count"), labels, count as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(recorder: &Recorder, copy: impl FnOnce(&Recorder)) -> String {
        let scrape = recorder.begin();
        copy(recorder);
        scrape.text()
    }

    #[test]
    fn what_the_catalogue_does_not_have_is_left_out_and_counted() {
        let recorder = Recorder::default();
        let told = text(&recorder, |recorder| {
            recorder.counter("fragcast_made_up_total", None, 1);
            recorder.gauge("fragcast_datagrams_total", Some(("outcome", "stored")), 1.0);
            recorder.counter("fragcast_datagrams_total", None, 1);
            recorder.counter("fragcast_datagrams_total", Some(("outcome", "made_up")), 1);
            recorder.counter("fragcast_datagrams_total", Some(("outcome", "stored")), 7);
            recorder.histogram("fragcast_members", None, &[1], 1.0);
        });
        assert!(!told.contains("made_up"), "{told}");
        assert!(told.contains("\nfragcast_datagrams_total{outcome=\"stored\"} 7\n"), "{told}");
        assert!(told.contains("\nfragcast_metrics_refused_total 5\n"), "{told}");
    }

    #[test]
    fn a_label_with_too_many_values_is_cut_off_where_the_catalogue_says() {
        let recorder = Recorder::default();
        let most = catalogue::get("fragcast_peer_rtt_seconds").unwrap().most();
        let told = text(&recorder, |recorder| {
            for peer in 0..most + 3 {
                let peer = peer.to_string();
                recorder.gauge("fragcast_peer_rtt_seconds", Some(("peer", &peer)), 0.1);
            }
        });
        assert_eq!(told.matches("\nfragcast_peer_rtt_seconds{").count(), most);
        assert!(told.contains("\nfragcast_metrics_refused_total 3\n"), "{told}");
    }

    #[test]
    fn what_has_gone_is_not_told_any_more() {
        let recorder = Recorder::default();
        let peer = Some(("peer", "gone"));
        let first = text(&recorder, |r| r.gauge("fragcast_peer_rtt_seconds", peer, 0.25));
        assert!(first.contains("fragcast_peer_rtt_seconds{peer=\"gone\"} 0.25\n"), "{first}");
        assert!(!text(&recorder, |_| ()).contains("gone"));
    }

    #[test]
    fn histograms_are_cumulative_and_labels_are_escaped() {
        let recorder = Recorder::default();
        recorder.latency("frag", "overlay", Duration::from_millis(3));
        recorder.latency("frag", "overlay", Duration::from_millis(5));
        recorder.latency("frag", "overlay", Duration::from_secs(9));
        let told = text(&recorder, |recorder| {
            let source = Some(("source", "a\"b\\c\nd"));
            recorder.counter("fragcast_registry_answers_total", source, 1);
        });
        let of = "fragcast_message_latency_seconds";
        let labels = "kind=\"frag\",via=\"overlay\"";
        for (bound, count) in [("0.002", 0), ("0.005", 2), ("2", 2), ("+Inf", 3)] {
            let line = format!("\n{of}_bucket{{{labels},le=\"{bound}\"}} {count}\n");
            assert!(told.contains(&line), "{line} in {told}");
        }
        assert!(told.contains(&format!("\n{of}_count{{{labels}}} 3\n")), "{told}");
        assert!(told.contains(&format!("\n{of}_sum{{{labels}}} 9.008")), "{told}");
        assert!(told.contains("{source=\"a\\\"b\\\\c\\nd\"} 1\n"), "{told}");
    }
}
