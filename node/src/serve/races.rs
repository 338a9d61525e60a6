//! How much earlier one way was than the other, of messages that came both ways.

use std::sync::{Mutex, PoisonError};

use fragcast_turbine::protocol::Race;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// For messages that came both ways: which was first and by how much.
#[derive(Debug)]
pub struct Races(Mutex<Leads>);

#[derive(Debug)]
struct Leads {
    /// Leads of the overlay where it was first, µs; and of gossip.
    turbine: Histogram<u64>,
    gossip: Histogram<u64>,
}

impl Default for Races {
    fn default() -> Self {
        // One µs to one minute at two digits: 20 kB each.
        let histogram = || Histogram::new_with_bounds(1, 60_000_000, 2).expect("valid bounds");
        Self(Mutex::new(Leads { turbine: histogram(), gossip: histogram() }))
    }
}

impl Races {
    /// Records a message that came both ways.
    pub fn record(&self, race: &Race) {
        let mut leads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (turbine, gossip) = (race.overlay_at.as_micros(), race.gossip_at.as_micros());
        if turbine <= gossip {
            leads.turbine.saturating_record((gossip - turbine).max(1));
        } else {
            leads.gossip.saturating_record(turbine - gossip);
        }
    }

    /// Of each way how often it was first, and by how much, in milliseconds.
    pub(super) fn lead(&self) -> Value {
        let leads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |histogram: &Histogram<u64>| {
            let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
            match histogram.is_empty() {
                true => json!({ "count": 0 }),
                false => json!({
                    "count": histogram.len(),
                    "p50Ms": ms(0.5),
                    "p90Ms": ms(0.9),
                    "p99Ms": ms(0.99),
                }),
            }
        };
        json!({ "overlay": of(&leads.turbine), "gossip": of(&leads.gossip) })
    }

    /// Counts, and percentiles of the leads in milliseconds.
    pub fn status(&self) -> Value {
        let leads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |histogram: &Histogram<u64>| {
            let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
            match histogram.is_empty() {
                true => json!({ "first": 0 }),
                false => json!({
                    "first": histogram.len(),
                    "leadMs": { "p50": ms(0.5), "p90": ms(0.9), "p99": ms(0.99) },
                }),
            }
        };
        json!({ "turbine": of(&leads.turbine), "gossip": of(&leads.gossip) })
    }
}

#[cfg(test)]
mod tests {
    use fragcast_shredder::{Kind, MessageKey};
    use fragcast_turbine::Timestamp;

    use super::*;

    #[test]
    fn leads_are_told_by_way() {
        let races = Races::default();
        let at = |ms: u64| Timestamp::from_nanos(ms * 1_000_000);
        for (turbine, gossip) in [(10, 40), (10, 20), (50, 45)] {
            races.record(&Race {
                key: MessageKey { block: 1, attempt: 0, message: 0 },
                kind: Kind::Env,
                overlay_at: at(turbine),
                gossip_at: at(gossip),
            });
        }
        let status = races.status();
        assert_eq!(status["turbine"]["first"], 2);
        assert_eq!(status["gossip"]["first"], 1);
        let p50 = status["turbine"]["leadMs"]["p50"].as_f64().unwrap();
        assert!((9.0..11.0).contains(&p50), "{p50}");
        let lead = races.lead();
        assert_eq!((&lead["overlay"]["count"], &lead["gossip"]["count"]), (&json!(2), &json!(1)));
        assert_eq!(lead["overlay"]["p50Ms"], p50);
    }
}
