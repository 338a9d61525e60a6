//! A comparison for a terminal of 120 columns.
//!
//! Column widths follow the numbers; if these are unusually large, the gaps between columns shrink.
//! The only emphasis is bold, and only on request, since tables are also written to files.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::columns::{COLUMNS, Column, Row, about, rows};
use super::text::{decimal, decimals, plain, wrap};
use super::{ahead_of_limit, ordered, shown, still_to_be_had};
use crate::results::{Comparison, Protocol, Table};

/// Width of the text in columns.
const WIDTH: usize = 118;

/// Writes all tables, settings tried, notes and the digest. With `bold`, the best number of each
/// column is bold (ANSI).
///
/// # Errors
/// Those of `out`.
pub fn print(out: &mut impl Write, comparison: &Comparison, bold: bool) -> io::Result<()> {
    let mut said = Vec::new();
    for table in &comparison.tables {
        one(out, table, bold)?;
        // What it ran with is said once, unless it is another thing under other delays.
        let details: Vec<String> =
            ordered(table).into_iter().flat_map(|(name, p)| details(name, p)).collect();
        for line in details.iter().filter(|line| !said.contains(*line)) {
            writeln!(out, "{}", wrap(line, WIDTH, "    ").join("\n"))?;
        }
        if details.iter().any(|line| !said.contains(line)) {
            writeln!(out)?;
        }
        said = details;
    }
    if !comparison.tables.is_empty() {
        writeln!(out, "{}\n", legend().join("\n"))?;
        if let Some(sentence) = ahead_of_limit(&comparison.tables) {
            writeln!(out, "{}\n", wrap(&plain(&sentence), WIDTH, "").join("\n"))?;
        }
    }
    sentences(out, &comparison.notes)?;
    writeln!(out, "digest {}", plain(&comparison.digest))
}

/// Writes the notes, followed by an empty line.
pub(super) fn sentences(out: &mut impl Write, notes: &[String]) -> io::Result<()> {
    for note in notes {
        writeln!(out, "{}", wrap(&plain(note), WIDTH, "").join("\n"))?;
    }
    if notes.is_empty() { Ok(()) } else { writeln!(out) }
}

fn one(out: &mut impl Write, table: &Table, bold: bool) -> io::Result<()> {
    writeln!(out, "{}\n", wrap(&plain(&table.title), WIDTH, "").join("\n"))?;
    let rows = rows(table);
    if rows.is_empty() {
        return writeln!(out, "no protocol was run\n");
    }
    grid(out, &rows, bold)?;
    if let Some(sentence) = still_to_be_had(table) {
        writeln!(out, "{}", wrap(&plain(&sentence), WIDTH, "    ").join("\n"))?;
    }
    writeln!(out)
}

fn grid(out: &mut impl Write, rows: &[Row<'_>], bold: bool) -> io::Result<()> {
    let length = |text: &str| text.chars().count();
    let names: Vec<String> = rows.iter().map(|row| plain(shown(row.name))).collect();
    let first = names.iter().map(|name| length(name)).max().unwrap_or(0).max("protocol".len());
    let mut widths: Vec<usize> = (0..COLUMNS.len())
        .map(|c| {
            let cells = rows.iter().map(|row| length(&row.cells[c].text));
            cells.max().unwrap_or(0).max(length(COLUMNS[c].name))
        })
        .collect();
    // A heading over one column must fit into it; one over several has room.
    for (c, column) in COLUMNS.iter().enumerate() {
        if COLUMNS.iter().filter(|other| other.group == column.group).count() == 1 {
            widths[c] = widths[c].max(length(column.group));
        }
    }
    let total = |gap: usize| first + widths.iter().map(|w| w + gap).sum::<usize>();
    let gap = if total(2) <= WIDTH { 2 } else { 1 };

    let mut upper = " ".repeat(first);
    let mut lower = format!("{:<first$}", "protocol");
    let mut c = 0;
    while c < COLUMNS.len() {
        let group = COLUMNS[c].group;
        let span = if group.is_empty() { 1 } else { same(c) };
        let room = widths[c..c + span].iter().map(|w| w + gap).sum::<usize>() - gap;
        let _ = write!(
            upper,
            "{:gap$}{}",
            "",
            if span > 1 { rule(group, room) } else { right(group, room) }
        );
        for (column, width) in COLUMNS[c..c + span].iter().zip(&widths[c..]) {
            let _ = write!(lower, "{:gap$}{:>width$}", "", column.name);
        }
        c += span;
    }
    writeln!(out, "{}\n{}", upper.trim_end(), lower.trim_end())?;
    for (row, name) in rows.iter().zip(&names) {
        let mut line = format!("{name:<first$}");
        for (cell, width) in row.cells.iter().zip(&widths) {
            let _ = write!(line, "{:gap$}", "");
            // Padding is outside, so that only the number is bold.
            let pad = width - length(&cell.text);
            let _ = match bold && cell.best {
                true => write!(line, "{:pad$}\x1b[1m{}\x1b[0m", "", cell.text),
                false => write!(line, "{:pad$}{}", "", cell.text),
            };
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Number of columns from `c` on that have the same group.
fn same(c: usize) -> usize {
    COLUMNS[c..].iter().take_while(|column| column.group == COLUMNS[c].group).count()
}

fn right(text: &str, room: usize) -> String {
    format!("{text:>room$}")
}

/// A centred heading over several columns.
fn rule(text: &str, room: usize) -> String {
    format!("{:─^room$}", format!(" {text} "))
}

/// A protocol's settings and its packets that found no room, then the other settings tried.
fn details(name: &str, protocol: &Protocol) -> Vec<String> {
    let mut lines = Vec::new();
    let about = about(protocol);
    if !about.is_empty() {
        lines.push(plain(&format!("{}: {about}", shown(name))));
    }
    if !protocol.tried.is_empty() {
        let digits = decimals(protocol.tried.iter().filter_map(|(_, mean)| *mean), 1);
        let tried = protocol
            .tried
            .iter()
            // Without spaces, so that all fit on a line.
            .map(|(name, mean)| {
                format!("{}: {}", name.replace(" = ", "="), decimal(*mean, digits))
            });
        let tried = tried.collect::<Vec<_>>().join(" · ");
        lines.push(plain(&format!("{name}, tried (mean, ms): {tried}")));
    }
    lines
}

/// The meaning of columns whose headings need an explanation.
fn legend() -> Vec<String> {
    let parts: Vec<String> = Column::unobvious()
        .map(Column::explained)
        .map(|(name, meaning)| format!("{name}: {meaning}"))
        .collect();
    wrap(&parts.join("; "), WIDTH, "")
}
