//! The columns of a comparison, which are the same on a terminal and in a page.

use super::text::{NOTHING, decimal, decimals, thousands};
use super::{is_limit, ordered};
use crate::results::{Fallback, LIMIT, Protocol, Table};

/// The format of a column's numbers.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// With at least this many decimals.
    Decimals(usize),
    /// A whole number.
    Count,
    /// The number of hosts of a node, and its limit.
    Degree,
}

/// Which rows have a number in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    /// All.
    All,
    /// The protocols, and the relayed limit.
    NotTheLimit,
    /// The protocols.
    Protocols,
}

/// A column.
#[derive(Debug)]
pub(super) struct Column {
    /// The upper line of its heading. Neighbours with the same one share it.
    pub(super) group: &'static str,
    /// The lower line.
    pub(super) name: &'static str,
    /// Its meaning, for the legend.
    pub(super) meaning: &'static str,
    has: Has,
    form: Form,
    number: fn(&Protocol) -> Option<f64>,
}

const fn column(
    (group, name, meaning): (&'static str, &'static str, &'static str),
    has: Has,
    form: Form,
    number: fn(&Protocol) -> Option<f64>,
) -> Column {
    Column { group, name, meaning, has, form, number }
}

const TIME: Form = Form::Decimals(1);
const RATIO: Form = Form::Decimals(2);

impl Column {
    /// The heading in one line, and the meaning.
    pub(super) fn explained(&self) -> (String, &'static str) {
        let name = match (self.group, self.name) {
            ("", name) => name.to_owned(),
            (group, "worst") => format!("worst {group}"),
            (group, name) => format!("{group} {name}"),
        };
        (name, self.meaning)
    }

    /// The columns whose headings need an explanation.
    pub(super) fn unobvious() -> impl Iterator<Item = &'static Self> {
        COLUMNS.iter().skip_while(|column| column.name != "worst")
    }
}

/// All columns from left to right. The smallest number of each is the best.
pub(super) const COLUMNS: [Column; 13] = [
    column(("time, ms", "mean", "mean time over messages and nodes"), Has::All, TIME, |p| {
        p.times.mean
    }),
    column(("time, ms", "p50", "half of them"), Has::All, TIME, |p| p.times.p50),
    column(("time, ms", "p90", "nine of ten"), Has::All, TIME, |p| p.times.p90),
    column(("time, ms", "p99", "99 of 100"), Has::All, TIME, |p| p.times.p99),
    column(("× limit", "mean", "mean over the limit's mean"), Has::All, RATIO, |p| p.ratio.mean),
    column(("× limit", "p99", "p99 over the limit's p99"), Has::All, RATIO, |p| p.ratio.p99),
    column(
        ("× limit", "worst", "the largest ratio of means of any one leader"),
        Has::NotTheLimit,
        RATIO,
        |p| p.ratio.worst_leader,
    ),
    column(
        ("", "missed", "pairs of message and node that never completed"),
        Has::Protocols,
        Form::Count,
        |p| Some(p.missed as f64),
    ),
    column(
        ("", "repaired", "pairs that had to ask for a part"),
        Has::Protocols,
        Form::Count,
        |p| Some(p.repaired as f64),
    ),
    column(
        ("bytes", "per byte", "sent per node and payload byte, framing included"),
        Has::All,
        RATIO,
        // The limit's bytes are those of k shreds; it has no number here without shreds.
        |p| Some(p.bytes_per_payload_byte).filter(|bytes| *bytes > 0.0),
    ),
    column(
        ("next leader", "p99, ms", "99 of 100 messages are there within"),
        Has::All,
        TIME,
        |p| p.next_leader_p99,
    ),
    column(
        ("busiest", "node, MB", "the most that one node sent for a message"),
        Has::Protocols,
        RATIO,
        |p| Some(p.busiest.0),
    ),
    column(
        ("peers", "a node", "the most hosts that one exchanged packets with / that it may"),
        Has::Protocols,
        Form::Degree,
        |p| Some(p.degree.0.into()),
    ),
];

/// A formatted number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// The number, or a dash.
    pub(super) text: String,
    /// Whether no protocol beside the limits has a smaller number, and some have a larger one.
    pub(super) best: bool,
}

/// A protocol and its numbers, one for each of [`COLUMNS`].
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// The protocol.
    pub(super) name: &'a str,
    /// Its numbers.
    pub(super) cells: Vec<Cell>,
}

/// The rows of a table, the limits first.
pub(super) fn rows(table: &Table) -> Vec<Row<'_>> {
    let protocols = ordered(table);
    let mut rows: Vec<Row<'_>> =
        protocols.iter().map(|(name, _)| Row { name, cells: Vec::new() }).collect();
    for column in &COLUMNS {
        let number = |name: &str, p: &Protocol| {
            let shown = match column.has {
                Has::All => true,
                Has::NotTheLimit => name != LIMIT,
                Has::Protocols => !is_limit(name),
            };
            (column.number)(p).filter(|value| shown && value.is_finite())
        };
        let numbers: Vec<Option<f64>> = protocols.iter().map(|(name, p)| number(name, p)).collect();
        let texts = write(column.form, &numbers, &protocols);
        let contest: Vec<usize> =
            (0..rows.len()).filter(|i| !is_limit(rows[*i].name) && numbers[*i].is_some()).collect();
        let winner = contest.iter().min_by(|a, b| {
            let of = |i: usize| numbers[i].unwrap_or(f64::INFINITY);
            of(**a).total_cmp(&of(**b))
        });
        let decided = contest.iter().any(|i| winner.is_some_and(|w| texts[*i] != texts[*w]));
        let best = winner.filter(|_| decided).map(|w| texts[*w].clone());
        for ((row, text), number) in rows.iter_mut().zip(texts).zip(&numbers) {
            // Numbers that are printed alike are marked alike.
            let best = !is_limit(row.name) && number.is_some() && best.as_ref() == Some(&text);
            row.cells.push(Cell { text, best });
        }
    }
    rows
}

/// A protocol's settings, and its packets that found no room; may be empty.
pub(super) fn about(protocol: &Protocol) -> String {
    let dropped = (protocol.dropped > 0).then(|| {
        let packets = thousands(protocol.dropped);
        format!("{packets} packets found queues full or no room for a connection")
    });
    let detail = Some(protocol.detail.clone()).filter(|detail| !detail.is_empty());
    let fallback = protocol.fallback.as_ref().map(fallback);
    detail.into_iter().chain(dropped).chain(fallback).collect::<Vec<_>>().join("; ")
}

/// What the overlay and gossip carried, and how nodes changed between them.
fn fallback(told: &Fallback) -> String {
    let counts = [told.turbine, told.repair, told.gossip].map(thousands);
    let [turbine, repair, gossip] = counts;
    let share = decimal(Some(told.gossip_bytes * 100.0), 1);
    let ways = format!(
        "messages by way: turbine {turbine}, repair {repair}, gossip {gossip}, which sent {share} % \
         of the bytes"
    );
    if told.fallbacks + told.probes == 0 {
        return format!("{ways}; nobody fell back");
    }
    format!(
        "{ways}; fallbacks {}, the slowest {} ms after the first message that was missing, returns \
         {}, changes of one node {} at most, dwell up to {} blocks, probes {}; not back on the \
         overlay: {}",
        thousands(told.fallbacks),
        decimal(Some(told.slowest_ms), 0),
        thousands(told.returns),
        told.flaps,
        told.dwell,
        thousands(told.probes),
        thousands(told.on_gossip),
    )
}

fn write(form: Form, numbers: &[Option<f64>], protocols: &[(&str, &Protocol)]) -> Vec<String> {
    let one = |number: Option<f64>, protocol: &Protocol| match (form, number) {
        (_, None) => NOTHING.into(),
        (Form::Decimals(least), _) => {
            decimal(number, decimals(numbers.iter().flatten().copied(), least))
        }
        (Form::Count, Some(number)) => thousands(number as u64),
        (Form::Degree, Some(_)) => match protocol.degree {
            (most, Some(may)) => format!("{most}/{may}"),
            (most, None) => most.to_string(),
        },
    };
    numbers.iter().zip(protocols).map(|(number, (_, protocol))| one(*number, protocol)).collect()
}
