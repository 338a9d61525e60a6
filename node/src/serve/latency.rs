//! How long messages take: what `fragcast_latency` answers.
//!
//! Four measures, of which each says what it can:
//!
//! * **messages**: from the leader's start of sending, which the header of each shred tells, to the
//!   moment at which the whole message is verified here. By the leader's clock and by this node's: a
//!   difference between the two clocks is in it. By kind, and by the way that was first here.
//! * **lead**: of messages that came both over the overlay and by gossip, how much earlier the first
//!   way was. One clock, this node's.
//! * **hops** and **regions**: at a leader, from the receipts of members, from its start of sending to
//!   the arrival of a shred. Members' clocks are corrected where delays are measured. Hops count from
//!   the leader: 1 for who has the shred from the leader itself. Of the last 512 receipts of a hop and
//!   the last 32 of a region.
//! * **peers**: round trips to connected peers, as QUIC measures them.
//!
//! Times are in milliseconds, and percentiles are the nearest rank at two digits. Messages and leads
//! are counted from the node's start.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fragcast_shredder::Kind;
use fragcast_turbine::Via;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::state::{NodeState, Progress};

/// The ways by which messages of others come: the overlay alone; the overlay with answers to requests,
/// be it shreds or a whole message; gossip.
pub const WAYS: [&str; 3] = ["overlay", "repair", "gossip"];

/// The way that is told of how a message came.
pub const fn way(via: Via) -> &'static str {
    match via {
        Via::Own => "own",
        Via::Turbine => WAYS[0],
        Via::Repair | Via::Whole => WAYS[1],
        Via::Gossip => WAYS[2],
    }
}

/// Messages of others by the way that was first.
pub(super) fn first(progress: &Progress) -> BTreeMap<&'static str, u64> {
    let mut all: BTreeMap<&'static str, u64> = WAYS.map(|way| (way, 0)).into();
    for via in Via::ALL.iter().filter(|via| **via != Via::Own) {
        let n = progress.first.get(via.name()).copied().unwrap_or(0);
        *all.entry(way(*via)).or_default() += n;
    }
    all
}

/// Latencies of messages by kind and way. **Memory.** Three kinds, three ways, 20 kB each.
#[derive(Debug, Default)]
pub struct Latencies(Mutex<BTreeMap<(&'static str, &'static str), Histogram<u64>>>);

impl Latencies {
    /// Records a message of another that came `via` a way.
    pub fn record(&self, kind: Kind, via: Via, took: Duration) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = all.entry((kind.name(), way(via))).or_insert_with(|| {
            // One µs to one minute at two digits.
            Histogram::new_with_bounds(1, 60_000_000, 2).expect("valid bounds")
        });
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        histogram.saturating_record(micros.max(1));
    }

    fn told(&self) -> Vec<Value> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = all.iter().map(|((kind, via), histogram)| {
            let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
            json!({
                "kind": kind,
                "via": via,
                "count": histogram.len(),
                "p50Ms": ms(0.5),
                "p90Ms": ms(0.9),
                "p99Ms": ms(0.99),
                "maxMs": histogram.max() as f64 / 1e3,
            })
        });
        told.collect()
    }
}

/// Percentiles of round trips.
fn round_trips(mut all: Vec<Duration>) -> Value {
    all.sort_unstable();
    let Some(last) = all.len().checked_sub(1) else { return json!({ "count": 0 }) };
    let ms = |place: usize| all[place.min(last)].as_secs_f64() * 1e3;
    json!({
        "count": all.len(),
        "p50Ms": ms(all.len() / 2),
        "p90Ms": ms(all.len() * 9 / 10),
        "maxMs": ms(last),
    })
}

impl NodeState {
    /// What `fragcast_latency` answers; see [the module](self).
    pub fn latency(&self) -> Value {
        let net = self.net.snapshot();
        let first = self.with_progress(first);
        let ms = |micros: u32| f64::from(micros) / 1e3;
        let hops = net.receipts.hops.iter().map(|hop| {
            json!({
                "hops": hop.hops,
                "count": hop.samples,
                "p50Ms": ms(hop.median_micros),
                "p90Ms": ms(hop.p90_micros),
                "p99Ms": ms(hop.p99_micros),
            })
        });
        let regions = net.receipts.regions.iter().map(|of| {
            json!({
                "region": of.region,
                "count": of.samples,
                "p50Ms": ms(of.median_micros),
                "p90Ms": ms(of.p90_micros),
                "p99Ms": ms(of.p99_micros),
            })
        });
        json!({
            "messages": self.latencies.told(),
            "first": first,
            "lead": self.races.lead(),
            "hops": hops.collect::<Vec<Value>>(),
            "regions": regions.collect::<Vec<Value>>(),
            "peers": round_trips(net.round_trips.iter().map(|(_, rtt)| *rtt).collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_by_kind_and_way() {
        let latencies = Latencies::default();
        for ms in [1, 2, 3, 4, 50] {
            latencies.record(Kind::Frag, Via::Turbine, Duration::from_millis(ms));
        }
        latencies.record(Kind::Seal, Via::Gossip, Duration::from_secs(3_600));
        let told = latencies.told();
        assert_eq!(told.len(), 2);
        let near = |value: &Value, ms: f64| (value.as_f64().unwrap() / ms - 1.0).abs() < 0.02;
        let frag = &told[0];
        assert_eq!(
            (&frag["kind"], &frag["via"], &frag["count"]),
            (&json!("frag"), &json!("overlay"), &json!(5))
        );
        assert!(near(&frag["p50Ms"], 3.0) && near(&frag["p99Ms"], 50.0), "{frag}");
        // What is beyond the bounds is told as the bound.
        assert!(near(&told[1]["maxMs"], 60_000.0), "{}", told[1]);
    }

    #[test]
    fn every_way_of_another_s_message_is_one_of_three() {
        let mut progress = Progress::default();
        for (via, n) in Via::ALL.iter().zip([100, 7, 2, 1, 5]) {
            progress.first.insert(via.name(), n);
        }
        let told = first(&progress);
        assert_eq!(told, BTreeMap::from([("overlay", 7), ("repair", 3), ("gossip", 5)]));
    }

    #[test]
    fn round_trips_of_nobody_and_of_some() {
        assert_eq!(round_trips(Vec::new()), json!({ "count": 0 }));
        let told = round_trips([30, 10, 20].map(Duration::from_millis).to_vec());
        assert_eq!(told, json!({ "count": 3, "p50Ms": 20.0, "p90Ms": 30.0, "maxMs": 30.0 }));
    }
}
