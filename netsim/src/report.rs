//! Reports: tables for a terminal, JSON for scripts, pages for a browser.
//!
//! ```text
//! Comparison ─▶ columns ─▶ table (terminal)
//!     │             └────▶ html ◀─ charts, map ◀─ plot ◀─ svg
//!     ├────────▶ json
//! Sweep ───────▶ sweep: all three of them
//! Survey ──────▶ survey: all three of them
//! ```
//!
//! Every report is a function from [`crate::results`] to text, so the same results give the same
//! bytes. A page is a single file that loads nothing, draws with SVG written here, and is complete
//! without its script. A plotting library would bring fonts, a runtime or network access, and none
//! draws a limit as this comparison needs it.

use crate::results::{LIMIT, ORDER, Protocol, RELAYED_LIMIT, Table, Times};

mod charts;
mod columns;
pub mod html;
pub mod json;
mod land;
mod map;
mod plot;
pub mod survey;
mod svg;
pub mod sweep;
pub mod table;
mod text;

/// The name of the protocol that the others are compared with.
const OURS: &str = "fragcast";

/// Whether the name is that of a limit, which is no protocol.
fn is_limit(name: &str) -> bool {
    name == LIMIT || name == RELAYED_LIMIT
}

/// The name that readers see.
fn shown(name: &str) -> &str {
    if name == RELAYED_LIMIT { "relayed" } else { name }
}

/// The place of a name among others: the limits, then as in [`ORDER`], then all unknown ones.
fn rank(name: &str) -> usize {
    match name {
        LIMIT => 0,
        RELAYED_LIMIT => 1,
        _ => 2 + ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len()),
    }
}

/// The limits and the protocols in the order of [`ORDER`], then all others by name.
fn ordered(table: &Table) -> Vec<(&str, &Protocol)> {
    let mut all: Vec<_> = table.protocols.iter().map(|(name, p)| (name.as_str(), p)).collect();
    all.sort_by_key(|(name, _)| rank(name));
    all
}

/// The number of a protocol's colour: its index in [`ORDER`], the next one for unknown names, and
/// the one after that for the relayed limit.
fn slot(name: &str) -> usize {
    match name {
        RELAYED_LIMIT => ORDER.len() + 1,
        _ => ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len()),
    }
}

/// The protocol that is fastest by one of its times, beside fragcast and the limit, with that time.
fn fastest_peer(table: &Table, time: fn(&Times) -> Option<f64>) -> Option<(&str, &Protocol, f64)> {
    let peers = ordered(table).into_iter().filter(|(name, _)| !is_limit(name) && *name != OURS);
    peers
        .filter_map(|(name, p)| {
            let ms = time(&p.times).filter(|ms| ms.is_finite())?;
            Some((name, p, ms))
        })
        .min_by(|a, b| a.2.total_cmp(&b.2))
}

/// A note for the reader if any protocol is ahead of the limit in any table.
fn ahead_of_limit<'a>(tables: impl IntoIterator<Item = &'a Table>) -> Option<String> {
    let ahead = |table: &Table, p: &Protocol| {
        let limit = table.protocols.get(LIMIT).and_then(|p| p.next_leader_p99);
        let leader = p.next_leader_p99.and_then(|ms| Some(ms / limit.filter(|l| *l > 0.0)?));
        let r = &p.ratio;
        // A ratio that is printed as 1.00 needs no explanation.
        [r.mean, r.p50, r.p90, r.p99, r.worst_leader, leader]
            .into_iter()
            .flatten()
            .any(|ratio| ratio < 0.995)
    };
    let mut names: Vec<&str> = Vec::new();
    for table in tables {
        for (name, p) in ordered(table) {
            if !is_limit(name) && ahead(table, p) && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let names = match names.split_last()? {
        (last, []) => (*last).to_owned(),
        (last, others) => format!("{} and {last}", others.join(", ")),
    };
    Some(format!(
        "Some numbers are below the limit's ({names}): the limit is the direct path from the \
         leader, and a relay is faster where delays break the triangle inequality."
    ))
}

/// What the relayed limit leaves to fragcast and to the fastest peer, in a sentence; `None` if the
/// table does not have it.
fn still_to_be_had(table: &Table) -> Option<String> {
    let bound = table.protocols.get(RELAYED_LIMIT)?;
    let finite = |value: Option<f64>| value.filter(|value| value.is_finite() && *value > 0.0);
    let (mean, ratio) = (finite(bound.times.mean)?, finite(bound.ratio.mean)?);
    let ours = table.protocols.get(OURS).and_then(|p| finite(p.times.mean)).map(|ms| (OURS, ms));
    let peer = fastest_peer(table, |times| times.mean).map(|(name, _, ms)| (name, ms));
    let times = |(name, ms): (&str, f64)| format!("{name} {} ×", text::decimal(Some(ms / mean), 2));
    let all: Vec<String> = ours.into_iter().chain(peer).map(times).collect();
    let them = match all.is_empty() {
        true => String::new(),
        false => format!("; as multiples of that: {}", all.join(", ")),
    };
    Some(format!(
        "By the shortest paths over any relays, without queues ({}), a mean of {} ms is possible, \
         {} × the limit{them}.",
        shown(RELAYED_LIMIT),
        text::rounded(mean),
        text::decimal(Some(ratio), 2),
    ))
}

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
