//! Reports of a sweep, which show the effect of one parameter on the protocols. They use the first
//! table of each comparison.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::plot::{Axis, Series, curves, figure};
use super::text::{decimal, escape, plain, rounded};
use super::{OURS, ahead_of_limit, fastest_peer, html, is_limit, ordered, rank, slot};
use crate::results::{LIMIT, Protocol, Sweep};

/// The parameter's axis is logarithmic if the ratio of its largest to its smallest value is above
/// this.
const WIDE: f64 = 12.0;

/// A number that is drawn over the parameter.
struct Measure {
    title: &'static str,
    caption: &'static str,
    axis: &'static str,
    get: fn(&Protocol) -> Option<f64>,
}

const MEASURES: [Measure; 3] = [
    Measure {
        title: "Mean × limit",
        caption: "Mean time over the limit's mean; 1 is the direct path from the leader.",
        axis: "× limit",
        get: |p| p.ratio.mean,
    },
    Measure {
        title: "p99 × limit",
        caption: "99th percentile over the limit's. Curves end where more than 1 % are missed.",
        axis: "× limit",
        get: |p| p.ratio.p99,
    },
    Measure {
        title: "Bytes per payload byte",
        caption: "Bytes that a node sends for each byte of payload, framing included.",
        axis: "bytes per byte",
        get: |p| Some(p.bytes_per_payload_byte),
    },
];

/// All protocols of any point, without the limits.
fn names(sweep: &Sweep) -> Vec<&str> {
    let tables = sweep.points.iter().filter_map(|(_, c)| c.tables.first());
    let mut all: Vec<&str> = Vec::new();
    for (name, _) in tables.flat_map(ordered) {
        if !is_limit(name) && !all.contains(&name) {
            all.push(name);
        }
    }
    all.sort_by_key(|name| (rank(name), *name));
    all
}

fn value_at(sweep: &Sweep, point: usize, name: &str, measure: &Measure) -> Option<f64> {
    let protocol = sweep.points[point].1.tables.first()?.protocols.get(name)?;
    (measure.get)(protocol).filter(|value| value.is_finite())
}

/// Rows of text: the heading, then one for each value.
fn cells(sweep: &Sweep, measure: &Measure) -> Vec<Vec<String>> {
    let names = names(sweep);
    let mut heads = vec![plain(&sweep.parameter)];
    heads.extend(names.iter().map(|name| plain(name)));
    let rows = sweep.points.iter().enumerate().map(|(i, (value, _))| {
        let of = |name: &&str| decimal(value_at(sweep, i, name, measure), 2);
        std::iter::once(rounded(*value)).chain(names.iter().map(of)).collect()
    });
    std::iter::once(heads).chain(rows).collect()
}

/// The smallest number of a row, if not all are equal.
fn best(row: &[String]) -> Option<&String> {
    let numbers = || row.iter().skip(1).filter_map(|text| Some((text.parse::<f64>().ok()?, text)));
    let least = numbers().min_by(|a, b| a.0.total_cmp(&b.0))?;
    numbers().any(|(number, _)| number > least.0).then_some(least.1)
}

/// Writes mean × limit for each value and protocol, then notes and digests. With `bold`, the best
/// number of each row is bold (ANSI).
///
/// # Errors
/// Those of `out`.
pub fn table(out: &mut impl Write, sweep: &Sweep, bold: bool) -> io::Result<()> {
    let rows = cells(sweep, &MEASURES[0]);
    let width = |c: usize| rows.iter().map(|row| row[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    writeln!(out, "mean × limit\n")?;
    for (i, row) in rows.iter().enumerate() {
        let marked = best(row).filter(|_| bold && i > 0);
        let mut line = String::new();
        for (c, (text, width)) in row.iter().zip(&widths).enumerate() {
            line.push_str(&" ".repeat(width - text.chars().count() + if c > 0 { 2 } else { 0 }));
            match c > 0 && marked == Some(text) {
                true => line.push_str(&format!("\x1b[1m{text}\x1b[0m")),
                false => line.push_str(text),
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out)?;
    super::table::sentences(out, &notes(sweep))?;
    for (value, comparison) in &sweep.points {
        writeln!(out, "digest at {}: {}", rounded(*value), plain(&comparison.digest))?;
    }
    Ok(())
}

/// The notes of all points, each once, and another if protocols are ahead of the limit.
fn notes(sweep: &Sweep) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for note in sweep.points.iter().flat_map(|(_, comparison)| &comparison.notes) {
        if !all.contains(note) {
            all.push(note.clone());
        }
    }
    let first = sweep.points.iter().filter_map(|(_, comparison)| comparison.tables.first());
    all.extend(ahead_of_limit(first));
    all
}

/// `{"parameter", "points": [{"value", …}]}`, where each point contains all of
/// [`super::json::value`] for its comparison.
pub fn json(sweep: &Sweep) -> Value {
    let points = sweep.points.iter().map(|(value, comparison)| {
        let mut point = super::json::value(comparison);
        point["value"] = json!(value);
        point
    });
    json!({"parameter": sweep.parameter, "points": points.collect::<Vec<_>>()})
}

/// The page of a sweep.
pub fn page(sweep: &Sweep) -> String {
    let title = format!("Protocols over {}", sweep.parameter);
    let source = sweep.points.first().and_then(|(_, c)| c.tables.first());
    let kicker = source.map_or("", |table| table.title.as_str());
    let mut body = format!(
        "<header>\n<p class=\"kicker\">{}</p>\n<h1>{}</h1>\n</header>\n",
        escape(kicker),
        escape(&title)
    );
    if sweep.points.is_empty() {
        body.push_str("<p>No value was tried.</p>\n");
    } else {
        if let Some(sentence) = sentence(sweep) {
            body.push_str(&format!("<p class=\"lead\">{}</p>\n", escape(&sentence)));
        }
        // Each chart is beside its numbers.
        let pairs: String = MEASURES
            .iter()
            .map(|m| chart(sweep, m).unwrap_or_default() + &grid(sweep, m))
            .collect();
        body.push_str(&format!("<div class=\"figures\">\n{pairs}</div>\n"));
    }
    body.push_str(&html::close(&common_settings(sweep), &notes(sweep)));
    let digests: String = sweep
        .points
        .iter()
        .map(|(value, c)| {
            let (value, digest) = (rounded(*value), escape(&c.digest));
            format!("<tr><th>{value}</th><td><code>{digest}</code></td></tr>")
        })
        .collect();
    body.push_str(&format!(
        "<h2>Digests</h2>\n<table class=\"settings\"><tbody>{digests}</tbody></table>\n"
    ));
    html::shell(&format!("netsim: {title}"), &body)
}

/// Compares fragcast and the best peer of the first point, at the first and the last value.
fn sentence(sweep: &Sweep) -> Option<String> {
    let last = sweep.points.len().checked_sub(1)?;
    let mean = |point, name| value_at(sweep, point, name, &MEASURES[0]);
    let course = |name| {
        let (from, to) = (mean(0, name)?, mean(last, name)?);
        let (from, to) = (decimal(Some(from), 2), decimal(Some(to), 2));
        Some(match from == to {
            true => format!("stays {to} × the limit"),
            false => format!("goes from {from} to {to} × the limit"),
        })
    };
    let table = sweep.points[0].1.tables.first()?;
    let peer = fastest_peer(table, |times| times.mean).and_then(|(name, ..)| {
        Some(format!("; that of {name}, the best peer at first, {}", course(name)?))
    });
    let (from, to) = (rounded(sweep.points[0].0), rounded(sweep.points[last].0));
    Some(format!(
        "As the parameter ({}) goes from {from} to {to}, the mean of {OURS} {}{}.",
        sweep.parameter,
        course(OURS)?,
        peer.unwrap_or_default()
    ))
}

/// Settings that are the same at every point.
fn common_settings(sweep: &Sweep) -> Vec<(String, String)> {
    let Some(((_, first), rest)) = sweep.points.split_first() else { return Vec::new() };
    let everywhere = |setting: &&(String, String)| {
        rest.iter().all(|(_, comparison)| comparison.settings.contains(setting))
    };
    first.settings.iter().filter(everywhere).cloned().collect()
}

fn chart(sweep: &Sweep, measure: &Measure) -> Option<String> {
    let mut series = Vec::new();
    for name in names(sweep) {
        let mut runs = vec![Vec::new()];
        let mut dots = Vec::new();
        for (i, (x, _)) in sweep.points.iter().enumerate() {
            match value_at(sweep, i, name, measure).filter(|_| x.is_finite()) {
                Some(y) => {
                    if let Some(run) = runs.last_mut() {
                        run.push((*x, y));
                    }
                    let what = match measure.axis {
                        "× limit" => format!("{} × limit", decimal(Some(y), 2)),
                        other => format!("{} {other}", decimal(Some(y), 2)),
                    };
                    let at = format!("{}: {}", sweep.parameter, rounded(*x));
                    dots.push((*x, y, format!("{name}: {what} at {at}")));
                }
                None => runs.push(Vec::new()),
            }
        }
        if !dots.is_empty() {
            series.push(Series { name: name.into(), runs, dots });
        }
    }
    let all = || series.iter().flat_map(|s| s.dots.iter());
    let range = |of: fn(&(f64, f64, String)) -> f64| {
        let values = || all().map(of);
        (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max))
    };
    let (x, y) = (range(|dot| dot.0), range(|dot| dot.1));
    all().next()?;
    let log_x = x.0 > 0.0 && x.1 / x.0 >= WIDE;
    let log_y = y.0 > 0.0 && y.1 / y.0 >= WIDE;
    let with = |label: &str, log| format!("{label}{}", if log { " (logarithmic)" } else { "" });
    // Ratios lie above the limit's line or slightly below it; bytes begin at zero.
    let of_limit = measure.axis == "× limit";
    let low = match (of_limit, log_y) {
        (true, true) => y.0.min(1.0) * 0.9,
        (true, false) => y.0.min(1.0) - 0.05 * (y.1 - y.0.min(1.0)),
        (false, true) => y.0 * 0.9,
        (false, false) => y.0.min(0.0),
    };
    if of_limit {
        let line = vec![(x.0, 1.0), (x.1, 1.0)];
        series.insert(0, Series { name: LIMIT.into(), runs: vec![line], dots: Vec::new() });
    }
    let x = Axis { label: with(&sweep.parameter, log_x), range: x, log: log_x };
    let y = Axis { label: with(measure.axis, log_y), range: (low, y.1 * 1.04), log: log_y };
    let drawn: Vec<&str> = series.iter().map(|s| s.name.as_str()).collect();
    let label = format!("{} by protocol over {}", measure.title, sweep.parameter);
    Some(figure("", measure.title, measure.caption, &drawn, &curves(&label, &x, &y, &series)))
}

fn grid(sweep: &Sweep, measure: &Measure) -> String {
    let rows = cells(sweep, measure);
    let heads: String = rows[0]
        .iter()
        .enumerate()
        .map(|(i, text)| match i {
            0 => format!("<th>{}</th>", escape(text)),
            _ => {
                let (n, text) = (slot(text), escape(text));
                format!("<th><span class=\"key p{n}\"><i></i>{text}</span></th>")
            }
        })
        .collect();
    let mut body = String::new();
    for row in &rows[1..] {
        let best = best(row);
        body.push_str(&format!("<tr><th>{}</th>", escape(&row[0])));
        for text in &row[1..] {
            let class = if best == Some(text) { " class=\"best\"" } else { "" };
            body.push_str(&format!("<td{class}>{}</td>", escape(text)));
        }
        body.push_str("</tr>\n");
    }
    format!(
        "<div class=\"scroll\"><table><thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody>\
         </table></div>\n"
    )
}
