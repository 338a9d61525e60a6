//! Reports: tables for a terminal, JSON for scripts, pages for a browser.
//!
//! ```text
//! Comparison ─▶ columns ─▶ table (terminal)
//!     │             └────▶ html ◀─ charts, map ◀─ plot ◀─ svg
//!     ├────────▶ json
//! Sweep ───────▶ sweep: all three of them
//! ```
//!
//! Every report is a function from [`crate::results`] to text, so the same results give the same
//! bytes. A page is a single file that loads nothing, draws with SVG written here, and is complete
//! without its script. A plotting library would bring fonts, a runtime or network access, and none
//! draws a limit as this comparison needs it.

use crate::results::{ORDER, Protocol, Table, Times};

mod charts;
mod columns;
pub mod html;
pub mod json;
mod land;
mod map;
mod plot;
mod svg;
pub mod sweep;
pub mod table;
mod text;

/// The name of the limit, which has a row beside the protocols.
const LIMIT: &str = "limit";
/// The name of the protocol that the others are compared with.
const OURS: &str = "fragcast";

/// The protocols in the order of [`ORDER`], then all others by name.
fn ordered(table: &Table) -> Vec<(&str, &Protocol)> {
    let known = ORDER.iter().filter_map(|name| table.protocols.get_key_value(*name));
    let others = table.protocols.iter().filter(|(name, _)| !ORDER.contains(&name.as_str()));
    known.chain(others).map(|(name, protocol)| (name.as_str(), protocol)).collect()
}

/// The number of a protocol's colour: its index in [`ORDER`], or the next one for unknown names.
fn slot(name: &str) -> usize {
    ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len())
}

/// The protocol that is fastest by one of its times, beside fragcast and the limit, with that time.
fn fastest_peer(table: &Table, time: fn(&Times) -> Option<f64>) -> Option<(&str, &Protocol, f64)> {
    let peers = ordered(table).into_iter().filter(|(name, _)| *name != LIMIT && *name != OURS);
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
            if name != LIMIT && ahead(table, p) && !names.contains(&name) {
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

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
