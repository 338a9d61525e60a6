//! What people look at: tables for a terminal, JSON for scripts, pages for a browser.
//!
//! ```text
//! Comparison ─▶ columns ─▶ table (terminal)
//!     │             └────▶ html ◀─ charts, map ◀─ plot ◀─ svg
//!     ├────────▶ json
//! Sweep ───────▶ sweep: all three of them
//! ```
//!
//! Everything is a function from [`crate::results`] to text: the same results give the same
//! bytes. Pages are single files that load nothing, draw with SVG written here, and are complete
//! without their script; a plotting library would bring fonts, a runtime or a network access,
//! and none draws a limit the way this comparison needs it.

use crate::results::{ORDER, Protocol, Table};

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

/// The name of the limit, which stands beside the protocols and is none.
const LIMIT: &str = "limit";
/// The name of the protocol that the others are compared with.
const OURS: &str = "fragcast";

/// Protocols in the order of [`ORDER`], then any that it does not know, by name.
fn ordered(table: &Table) -> Vec<(&str, &Protocol)> {
    let known = ORDER.iter().filter_map(|name| table.protocols.get_key_value(*name));
    let others = table.protocols.iter().filter(|(name, _)| !ORDER.contains(&name.as_str()));
    known.chain(others).map(|(name, protocol)| (name.as_str(), protocol)).collect()
}

/// Which colour a protocol has: its place in [`ORDER`], or the one after for unknown names.
fn slot(name: &str) -> usize {
    ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len())
}

/// The protocol other than ours and the limit whose mean is the least.
fn best_peer(table: &Table) -> Option<(&str, &Protocol)> {
    let peers = ordered(table).into_iter().filter(|(name, _)| *name != LIMIT && *name != OURS);
    let finite = |p: &Protocol| p.times.mean.filter(|mean| mean.is_finite());
    peers
        .filter_map(|(name, p)| finite(p).map(|mean| (mean, name, p)))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name, p)| (name, p))
}

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
