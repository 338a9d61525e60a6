//! A comparison as JSON.
//!
//! ```text
//! {"digest", "protocols": {name: {"mean", "p50", "p90", "p99", "missed", "repaired", "pairs",
//!    "bytes_per_payload_byte", "next_leader_p99", "ratio": {"mean", "p50", "p90", "p99",
//!    "worst_leader"}, "detail", "tried": [{"setting", "mean"}], "busiest": {"mb", "node"},
//!    "degree": {"most", "may"}, "dropped", "node_shreds", "cdf", "sent_mb", "by_place",
//!    "fallback": null | {"turbine", "repair", "gossip", "gossip_bytes", "fallbacks", "returns",
//!       "probes", "flaps", "slowest_ms", "dwell", "on_gossip"}}},
//!  "tables": [{"title", "protocols"}], "settings": {name: value}, "places", "notes"}
//! ```
//!
//! Times are in ms. Beside the protocols there are `limit` and `relayed_limit`; all ratios are to
//! the first. `protocols` is that of the first table. Keys are sorted. Unknown values and
//! values that are no numbers are `null`.

use serde_json::{Map, Value, json};

use crate::results::{Comparison, Protocol, Table};

/// The report of a comparison.
pub fn value(comparison: &Comparison) -> Value {
    let tables: Vec<Value> = comparison
        .tables
        .iter()
        .map(|table| json!({"title": table.title, "protocols": protocols(table)}))
        .collect();
    let settings: Map<String, Value> = comparison
        .settings
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect();
    json!({
        "digest": comparison.digest,
        "protocols": comparison.tables.first().map_or_else(|| json!({}), protocols),
        "tables": tables,
        "settings": settings,
        "places": comparison.places,
        "notes": comparison.notes,
    })
}

fn protocols(table: &Table) -> Value {
    table.protocols.iter().map(|(name, p)| (name.clone(), protocol(p))).collect()
}

/// All fields of a protocol by name. Pairs become objects with named parts.
pub(super) fn protocol(protocol: &Protocol) -> Value {
    let mut value = json!(protocol);
    let tried =
        protocol.tried.iter().map(|(setting, mean)| json!({"setting": setting, "mean": mean}));
    value["tried"] = tried.collect();
    value["busiest"] = json!({"mb": protocol.busiest.0, "node": protocol.busiest.1});
    value["degree"] = json!({"most": protocol.degree.0, "may": protocol.degree.1});
    value
}
