//! A comparison as an HTML page: one file that loads nothing.
//!
//! The style sheet and the script are files in this folder. The page begins with a summary in words
//! of fragcast, the limit and the best peer, whichever is faster. The table and pictures follow,
//! and at the end all that is needed to make the page again.

use super::charts;
use super::columns::{COLUMNS, Column, about, rows};
use super::map;
use super::text::{decimal, escape, rounded, rounded_or_nothing, thousands};
use super::{OURS, ahead_of_limit, fastest_peer, ordered, shown, slot, still_to_be_had};
use crate::results::{Comparison, LIMIT, Protocol, Table};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page of a comparison.
pub fn page(comparison: &Comparison) -> String {
    let mut body = head(comparison);
    let mut said = String::new();
    for (i, table) in comparison.tables.iter().enumerate() {
        // The first title is at the top of the page.
        let title = if i == 0 { "All numbers" } else { table.title.as_str() };
        body.push_str(&format!("<h2>{}</h2>\n{}", escape(title), grid(table)));
        // Settings are shown once, unless they differ under other delays.
        let details = details(table);
        if details != said {
            body.push_str(&details);
            said = details;
        }
        if i == 0 {
            body.push_str(&legend(ahead_of_limit(&comparison.tables)));
        }
        if let Some(sentence) = still_to_be_had(table) {
            body.push_str(&format!("<p class=\"legend\">{}</p>\n", escape(&sentence)));
        }
    }
    if let Some(table) = comparison.tables.first() {
        body.push_str(&pictures(comparison, table));
    }
    body.push_str(&close(&comparison.settings, &comparison.notes));
    body.push_str(&digest(&comparison.digest));
    shell(&format!("netsim: {}", headline(comparison)), &body)
}

/// A complete page around a body.
pub(super) fn shell(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}\
         <script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        escape(title)
    )
}

fn head(comparison: &Comparison) -> String {
    let kicker = comparison.tables.first().map_or("", |table| table.title.as_str());
    let mut out = format!(
        "<header>\n<p class=\"kicker\">{}</p>\n<h1>{}</h1>\n",
        escape(kicker),
        // Keeps a number on the line of its unit.
        escape(&headline(comparison).replace(" ×", "\u{a0}×").replace(" ms", "\u{a0}ms"))
    );
    if let Some(table) = comparison.tables.first() {
        let sentences = sentences(table);
        if !sentences.is_empty() {
            out.push_str(&format!("<p class=\"lead\">{}</p>\n", escape(&sentences.join(" "))));
        }
        out.push_str(&tiles(table));
    }
    out + "</header>\n"
}

fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite())
}

/// A description of the page in one line.
fn headline(comparison: &Comparison) -> String {
    let Some(table) = comparison.tables.first().filter(|table| !table.protocols.is_empty()) else {
        return "Nothing was compared".into();
    };
    let Some(ours) = table.protocols.get(OURS) else {
        return match fastest_peer(table, |times| times.mean) {
            Some((name, _, mean)) => {
                format!("{name} is the fastest: {} ms on average", rounded(mean))
            }
            None => "No protocol was run".into(),
        };
    };
    let reach = match (finite(ours.times.p50), finite(ours.ratio.p50)) {
        (Some(p50), Some(ratio)) => {
            let p50 = rounded(p50);
            format!("{OURS} reaches half of the nodes in {p50} ms, {} × the limit", near(ratio))
        }
        (Some(p50), None) => format!("{OURS} reaches half of the nodes in {} ms", rounded(p50)),
        (None, _) => format!("{OURS} does not reach half of the nodes"),
    };
    // Compares both by the same measure.
    match fastest_peer(table, |times| times.p50) {
        Some((name, _, p50)) => {
            format!("{reach}; the fastest peer, {name}, in {} ms", rounded(p50))
        }
        None => reach,
    }
}

fn ms(value: Option<f64>) -> String {
    rounded_or_nothing(value)
}

/// A ratio: with two decimals close to one, else with three digits.
fn near(ratio: f64) -> String {
    if ratio < 10.0 { decimal(Some(ratio), 2) } else { rounded(ratio) }
}

/// Compares fragcast with the limit and the best peer, in words.
fn sentences(table: &Table) -> Vec<String> {
    let mut out = Vec::new();
    let Some(ours) = table.protocols.get(OURS) else { return out };
    if let Some(mean) = finite(ours.times.mean) {
        let limit = table.protocols.get(LIMIT).and_then(|p| finite(p.times.mean));
        let against = limit.map_or_else(String::new, |l| {
            format!("; on the direct path from the leader physics allows {}", rounded(l))
        });
        out.push(format!("On average a node has a message after {} ms{against}.", rounded(mean)));
        if let Some((name, peer, other)) = fastest_peer(table, |times| times.mean) {
            let bytes = |p: &Protocol| decimal(Some(p.bytes_per_payload_byte), 1);
            out.push(format!(
                "The best peer by that is {name} with {} ms{}. {OURS} sends {} bytes for each byte of \
                 payload and node, {name} {}.",
                rounded(other),
                than(mean, other),
                bytes(ours),
                bytes(peer)
            ));
        }
    }
    let (missed, pairs) = (thousands(ours.missed), thousands(ours.pairs));
    match (ours.missed, ours.pairs) {
        (_, 0) => {}
        (0, _) => out.push("No node missed a message.".into()),
        _ => out.push(format!("{missed} of {pairs} pairs of message and node never completed.")),
    }
    out
}

/// Compares another time with fragcast's.
fn than(ours: f64, other: f64) -> String {
    if ours <= 0.0 || other <= 0.0 {
        return String::new();
    }
    let ratio = other / ours;
    match ratio {
        _ if ratio >= 1.995 => format!(", {} times as long", near(ratio)),
        _ if ratio >= 1.005 => format!(", {} % more", decimal(Some((ratio - 1.0) * 100.0), 0)),
        _ if ratio > 0.995 => ", the same".into(),
        _ => format!(", {} % less", decimal(Some((1.0 - ratio) * 100.0), 0)),
    }
}

fn tiles(table: &Table) -> String {
    let tile = |name: &str, p: &Protocol, what: &str| {
        let ratio = finite(p.ratio.mean).filter(|_| name != LIMIT);
        let times = ratio.map_or_else(String::new, |r| format!(", {} × the limit", near(r)));
        let note = format!("{what}{times}");
        let unit = if finite(p.times.mean).is_some() { " ms" } else { "" };
        format!(
            "<div class=\"tile p{}\"><span class=\"name\">{}</span><b>{}{unit}</b>\
             <span>{}</span></div>\n",
            slot(name),
            escape(name),
            ms(p.times.mean),
            escape(&note)
        )
    };
    let mut out = String::from("<div class=\"tiles\">\n");
    if let Some(ours) = table.protocols.get(OURS) {
        out.push_str(&tile(OURS, ours, "mean"));
    }
    if let Some(limit) = table.protocols.get(LIMIT) {
        out.push_str(&tile(LIMIT, limit, "mean delay from the leader, and transmission"));
    }
    if let Some((name, peer, _)) = fastest_peer(table, |times| times.mean) {
        out.push_str(&tile(name, peer, "mean of the best peer"));
    }
    if let Some(ours) = table.protocols.get(OURS) {
        let unit = if finite(ours.next_leader_p99).is_some() { " ms" } else { "" };
        out.push_str(&format!(
            "<div class=\"tile p{}\"><span class=\"name\">next leader</span><b>{}{unit}</b>\
             <span>with {OURS}, 99 of 100 messages</span></div>\n",
            slot(OURS),
            ms(ours.next_leader_p99)
        ));
    }
    out + "</div>\n"
}

/// The same table as on a terminal.
fn grid(table: &Table) -> String {
    let rows = rows(table);
    if rows.is_empty() {
        return "<p>No protocol was run.</p>\n".into();
    }
    let (mut upper, mut lower) = (String::from("<th></th>"), String::from("<th>protocol</th>"));
    let mut c = 0;
    while c < COLUMNS.len() {
        let group = COLUMNS[c].group;
        let alone = group.is_empty();
        let span = COLUMNS[c..].iter().take_while(|column| !alone && column.group == group).count();
        let span = span.max(1);
        let class = if span > 1 { " class=\"group\"" } else { "" };
        let group = escape(group);
        upper.push_str(&format!("<th{class} colspan=\"{span}\"><span>{group}</span></th>"));
        for column in &COLUMNS[c..c + span] {
            let (meaning, name) = (escape(column.meaning), escape(column.name));
            lower.push_str(&format!("<th data-tip=\"{meaning}\">{name}</th>"));
        }
        c += span;
    }
    let mut body = String::new();
    for row in &rows {
        let n = slot(row.name);
        let key = format!("<span class=\"key p{n}\"><i></i>{}</span>", escape(shown(row.name)));
        body.push_str(&format!("<tr class=\"p{n}\"><th>{key}</th>"));
        for cell in &row.cells {
            let class = if cell.best { " class=\"best\"" } else { "" };
            body.push_str(&format!("<td{class}>{}</td>", escape(&cell.text)));
        }
        body.push_str("</tr>\n");
    }
    format!(
        "<div class=\"scroll\"><table class=\"compare\"><thead><tr>{upper}</tr><tr>{lower}</tr>\
         </thead><tbody>\n{body}</tbody></table></div>\n"
    )
}

/// The settings of each protocol, and its packets that found no room.
fn details(table: &Table) -> String {
    let mut items = String::new();
    for (name, protocol) in ordered(table) {
        let text = about(protocol);
        if !text.is_empty() {
            items.push_str(&format!("<dt>{}</dt><dd>{}</dd>", escape(shown(name)), escape(&text)));
        }
    }
    if items.is_empty() { String::new() } else { format!("<dl>{items}</dl>\n") }
}

fn legend(more: Option<String>) -> String {
    let explained = Column::unobvious().map(|column| {
        let (name, meaning) = column.explained();
        format!("<b>{}</b>: {}", escape(&name), escape(meaning))
    });
    let text = explained.collect::<Vec<_>>().join("; ");
    let mut out = format!("<p class=\"legend\">The best of each column is bold. {text}.</p>\n");
    if let Some(more) = more {
        out.push_str(&format!("<p class=\"legend\">{}</p>\n", escape(&more)));
    }
    out
}

fn pictures(comparison: &Comparison, table: &Table) -> String {
    let charts = [
        charts::cdf(table),
        charts::percentiles(table),
        charts::sent(table),
        charts::busiest(table),
    ];
    let mut figures: String = charts.into_iter().flatten().collect();
    figures.push_str(&charts::tried(table));
    let figures = match figures.is_empty() {
        true => String::new(),
        false => format!("<div class=\"figures\">\n{figures}</div>\n"),
    };
    let (maps, places) = (map::maps(comparison), map::place_table(comparison, table));
    format!("<h2>Pictures</h2>\n{figures}<h2>Map</h2>\n{maps}{places}")
}

/// Notes, settings, and the command that made the page.
pub(super) fn close(settings: &[(String, String)], notes: &[String]) -> String {
    let mut out = String::new();
    if !notes.is_empty() {
        let items: String = notes.iter().map(|n| format!("<li>{}</li>", escape(n))).collect();
        out.push_str(&format!("<h2>To read this right</h2>\n<ul class=\"notes\">{items}</ul>\n"));
    }
    if let Some((_, command)) = settings.iter().find(|(name, _)| name == "command") {
        // Keeps lines from breaking after the hyphens of options.
        let words = command.split(' ').map(|word| format!("<span>{}</span>", escape(word)));
        out.push_str(&format!(
            "<h2>To make this again</h2>\n<p>The same command gives the same digest.</p>\n\
             <pre>{}</pre>\n",
            words.collect::<Vec<_>>().join(" ")
        ));
    }
    let others: Vec<_> = settings.iter().filter(|(name, _)| name != "command").collect();
    if !others.is_empty() {
        let rows: String = others
            .iter()
            .map(|(name, v)| format!("<tr><th>{}</th><td>{}</td></tr>\n", escape(name), escape(v)))
            .collect();
        out.push_str(&format!(
            "<h2>Settings</h2>\n<div class=\"columns\"><table class=\"settings\"><tbody>\n{rows}\
             </tbody></table></div>\n"
        ));
    }
    out
}

/// The digest under its heading.
pub(super) fn digest(digest: &str) -> String {
    format!("<h2>Digest</h2>\n<p><code>{}</code></p>\n", escape(digest))
}
