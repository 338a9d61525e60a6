//! The charts of a comparison: distribution of times, percentiles, bytes, and settings tried.

use super::plot::{Axis, Series, WIDTHS, curves, figure};
use super::svg::{Scale, Svg};
use super::text::{rounded, rounded_or_nothing, thousands};
use super::{is_limit, ordered, shown, slot};
use crate::results::{LIMIT, Protocol, Table};

/// An axis is logarithmic if the ratio of its largest to its smallest value is above this.
const WIDE: f64 = 12.0;

type Points = Vec<(f64, f64)>;

fn finite(points: &[(f64, f64)]) -> Points {
    points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
}

/// The share of nodes that have a message, over time.
pub(super) fn cdf(table: &Table) -> Option<String> {
    let protocols: Vec<(&str, &Protocol, Points)> = ordered(table)
        .into_iter()
        .map(|(name, p)| (name, p, finite(&p.cdf)))
        .filter(|(_, _, points)| !points.is_empty())
        .collect();
    // The slowest hundredth is left out, since it would take most of the room; the percentiles show
    // it.
    let end = |points: &[(f64, f64)]| {
        let reached = points.iter().find(|(_, share)| *share >= 0.995);
        reached.or(points.last()).map_or(0.0, |point| point.0)
    };
    let start = |points: &[(f64, f64)]| {
        points.iter().find(|(ms, share)| *share >= 0.02 && *ms > 0.0).map_or(1.0, |point| point.0)
    };
    let ends: Vec<f64> = protocols.iter().map(|(_, _, points)| end(points)).collect();
    let last = ends.iter().copied().fold(0.0, f64::max);
    let soonest = ends.iter().copied().fold(f64::INFINITY, f64::min);
    if protocols.is_empty() || last <= 0.0 {
        return None;
    }
    let log = last > WIDE * soonest;
    let first = protocols.iter().map(|(_, _, p)| start(p)).fold(f64::INFINITY, f64::min);
    let right = last * 1.03;
    let series: Vec<Series> = protocols
        .iter()
        .map(|(name, p, points)| {
            let mut run = points.clone();
            if log {
                run.retain(|(ms, _)| *ms > 0.0);
            }
            if let Some((ms, _)) = run.first().copied() {
                run.insert(0, (ms, 0.0));
            }
            // Because of the pairs that never completed, the curve stays below the top.
            if let Some((_, share)) = run.last().copied().filter(|(ms, s)| *ms < right && *s < 1.0)
            {
                run.push((right, share));
            }
            let marks = [(p.times.p50, 50), (p.times.p90, 90), (p.times.p99, 99)];
            let dots = marks.iter().filter_map(|(ms, percent)| {
                let ms = ms.filter(|ms| ms.is_finite())?;
                let tip =
                    format!("{}: {percent} % of nodes within {} ms", shown(name), rounded(ms));
                Some((ms, f64::from(*percent) / 100.0, tip))
            });
            Series { name: (*name).into(), dots: dots.collect(), runs: vec![run] }
        })
        .collect();
    let x = Axis {
        label: if log { "ms (logarithmic)".into() } else { "ms".into() },
        range: (if log { first } else { 0.0 }, right),
        log,
    };
    // In per cent, so that ticks are whole.
    let percent = |mut series: Series| {
        series.runs.iter_mut().flatten().for_each(|point| point.1 *= 100.0);
        series.dots.iter_mut().for_each(|dot| dot.1 *= 100.0);
        series
    };
    let series: Vec<Series> = series.into_iter().map(percent).collect();
    let y = Axis { label: "nodes that have it, %".into(), range: (0.0, 100.0), log: false };
    let used: Vec<&str> = protocols.iter().map(|(name, _, _)| *name).collect();
    Some(figure(
        "",
        "When nodes have a message",
        "Share of all (message, node) pairs that are complete, over the time since the leader had \
         the message. Dots: 50, 90 and 99 %.",
        &used,
        &curves("Distribution of times by protocol", &x, &y, &series),
    ))
}

/// A bar or a stem in a list.
struct Item<'a> {
    /// The protocol, for its colour.
    of: &'a str,
    /// The label before it.
    name: String,
    /// Its value; `None` draws nothing.
    value: Option<f64>,
    /// The text after it.
    text: String,
}

/// Bars under a heading, with an optional reference drawn across them.
struct Block<'a> {
    heading: String,
    items: Vec<Item<'a>>,
    /// The value of the limit.
    limit: Option<f64>,
}

const ROW: f64 = 19.0;

/// Draws bars from zero. If only the longest could be seen, it draws dots on a logarithmic axis
/// instead, where the length of a bar would have no meaning.
fn bars(label: &str, unit: &str, blocks: &[Block<'_>], log: bool) -> String {
    WIDTHS.iter().map(|(width, class)| list(label, unit, blocks, log, *width, class)).collect()
}

fn list(
    label: &str,
    unit: &str,
    blocks: &[Block<'_>],
    log: bool,
    width: f64,
    class: &str,
) -> String {
    let items = || blocks.iter().flat_map(|block| &block.items);
    let letters = |text: &str| text.chars().count() as f64 * 6.6;
    let before = items().map(|item| letters(&item.name)).fold(0.0, f64::max);
    let after = items().map(|item| letters(&item.text)).fold(0.0, f64::max);
    let left = (before + 12.0).clamp(40.0, width * 0.4);
    let right = width - (after + 14.0).clamp(40.0, width * 0.45);
    let heading = |block: &Block<'_>| if block.heading.is_empty() { 0.0 } else { 24.0 };
    let heights = blocks.iter().map(|b| heading(b) + b.items.len() as f64 * ROW);
    let axis = if log { 42.0 } else { 2.0 };
    let height = heights.sum::<f64>() + 14.0 * blocks.len() as f64 + axis;
    let values = || {
        let limits = blocks.iter().filter_map(|block| block.limit);
        items().filter_map(|item| item.value).chain(limits).filter(|v| v.is_finite() && *v > 0.0)
    };
    let largest = values().fold(0.0, f64::max);
    let smallest = values().fold(largest, f64::min);
    let range = if log { (smallest * 0.8, largest * 1.1) } else { (0.0, largest.max(1e-9)) };
    let scale = Scale::new(range, log, (left, right));
    let mut svg = Svg::new(width, height, class, label);
    let mut y = 4.0;
    if log {
        let bottom = height - 40.0;
        for (value, text) in scale.ticks(5) {
            svg.line("grid", (scale.at(value), y), (scale.at(value), bottom));
            svg.text("tick middle", (scale.at(value), bottom + 15.0), &text);
        }
        svg.text("label end", (right, height - 5.0), unit);
    }
    for block in blocks {
        let top = y;
        if !block.heading.is_empty() {
            svg.text("heading start", (0.0, y + 14.0), &block.heading);
            y += heading(block);
        }
        let first = y;
        for item in &block.items {
            let n = slot(item.of);
            let tip = format!("{} {}", item.name, item.text);
            svg.group(&format!("p{n} s{n}"));
            if let Some(reach) = item.value.filter(|v| v.is_finite()).map(|v| scale.within(v)) {
                if log {
                    svg.line("stem", (left, y + 9.0), (reach, y + 9.0));
                    svg.disc("dot", (reach, y + 9.0), 5.0, &tip);
                } else {
                    svg.bar("bar", (left, y + 2.5), (reach - left, ROW - 5.0), &tip);
                }
            }
            svg.close();
            y += ROW;
        }
        if let Some(limit) = block.limit.filter(|limit| limit.is_finite()) {
            let x = scale.within(limit);
            svg.line("limit", (x, first), (x, y));
            // The label is beside the heading, with a piece of the line, since there may be no room
            // above the line.
            let beside = letters(&block.heading) * 1.1 + 18.0;
            svg.line("limit", (beside, top + 3.0), (beside, top + 16.0));
            let text = format!("limit {}", rounded(limit));
            svg.text("label start", (beside + 7.0, top + 14.0), &text);
        }
        // Text comes last, so that the limit's line passes under it.
        for (i, item) in block.items.iter().enumerate() {
            let (n, y) = (slot(item.of), first + i as f64 * ROW + 13.5);
            svg.group(&format!("p{n} s{n}"));
            svg.text("name end", (left - 7.0, y), &item.name);
            let reach = item.value.filter(|v| v.is_finite()).map_or(left, |v| scale.within(v));
            svg.text("value start", (reach + if log { 10.0 } else { 6.0 }, y), &item.text);
            svg.close();
        }
        y += 14.0;
    }
    svg.finish()
}

/// The percentiles side by side, with the limit across them.
pub(super) fn percentiles(table: &Table) -> Option<String> {
    type Get = fn(&Protocol) -> (Option<f64>, Option<f64>);
    let kinds: [(&str, Get); 3] = [
        ("Half of the nodes, ms", |p| (p.times.p50, p.ratio.p50)),
        ("Nine of ten, ms", |p| (p.times.p90, p.ratio.p90)),
        ("99 of 100, ms", |p| (p.times.p99, p.ratio.p99)),
    ];
    let peers: Vec<(&str, &Protocol)> =
        ordered(table).into_iter().filter(|(name, _)| !is_limit(name)).collect();
    let item = |name, (ms, ratio): (Option<f64>, Option<f64>)| {
        let times = ratio.filter(|r| r.is_finite()).map(|r| format!(" · {r:.2} ×"));
        let text = match ms.filter(|ms| ms.is_finite()) {
            Some(ms) => format!("{}{}", rounded(ms), times.unwrap_or_default()),
            None => "never: too many missed".into(),
        };
        Item { of: name, name: name.to_owned(), value: ms, text }
    };
    let blocks: Vec<Block<'_>> = kinds
        .iter()
        .map(|(heading, get)| Block {
            heading: (*heading).into(),
            items: peers.iter().map(|(name, p)| item(name, get(p))).collect(),
            limit: table.protocols.get(LIMIT).and_then(|p| get(p).0),
        })
        .collect();
    if peers.is_empty() {
        return None;
    }
    Some(figure(
        "",
        "How long it takes",
        "Percentiles in ms, and as multiples of the limit, which is the dashed line.",
        &[],
        &bars("Percentiles by protocol", "ms", &blocks, false),
    ))
}

/// The bytes that each node sends, from the busiest node to the idlest.
pub(super) fn sent(table: &Table) -> Option<String> {
    let protocols: Vec<(&str, Vec<f64>)> = ordered(table)
        .into_iter()
        .filter(|(name, _)| !is_limit(name))
        .map(|(name, p)| (name, p.sent_mb.iter().copied().filter(|mb| mb.is_finite()).collect()))
        .filter(|(_, sent): &(&str, Vec<f64>)| !sent.is_empty())
        .collect();
    let positive = || protocols.iter().flat_map(|(_, sent)| sent).filter(|mb| **mb > 0.0);
    let largest = positive().copied().fold(0.0, f64::max);
    let smallest = positive().copied().fold(largest, f64::min);
    if protocols.is_empty() || largest <= 0.0 {
        return None;
    }
    let (from, to) = (smallest.max(largest / 1e6) * 0.8, largest * 1.25);
    let series: Vec<Series> = protocols
        .iter()
        .map(|(name, sent)| {
            let share = |i: usize| 100.0 * i as f64 / (sent.len().max(2) - 1) as f64;
            let points = sent.iter().enumerate().map(|(i, mb)| (share(i), *mb));
            Series { name: (*name).into(), runs: vec![points.collect()], dots: Vec::new() }
        })
        .collect();
    let x = Axis { label: "nodes, busiest first, %".into(), range: (0.0, 100.0), log: false };
    let y = Axis { label: "MB (logarithmic)".into(), range: (from, to), log: true };
    let used: Vec<&str> = protocols.iter().map(|(name, _)| *name).collect();
    Some(figure(
        "tall",
        "What nodes send",
        "MB per message, framing included, each node in its place from the busiest to the idlest. \
         A level curve shares the work; a curve that falls to the bottom has nodes that send \
         nothing.",
        &used,
        &curves("Bytes sent per node by protocol", &x, &y, &series),
    ))
}

/// The busiest node of each protocol.
pub(super) fn busiest(table: &Table) -> Option<String> {
    let items: Vec<Item<'_>> = ordered(table)
        .into_iter()
        .filter(|(name, p)| !is_limit(name) && p.busiest.0.is_finite())
        .map(|(name, p)| {
            let (mb, node) = &p.busiest;
            let node = shortened(node);
            let by = if node.is_empty() { String::new() } else { format!(" · {node}") };
            let text = format!("{} MB{by}", rounded(*mb));
            Item { of: name, name: name.into(), value: Some(*mb), text }
        })
        .collect();
    if items.is_empty() {
        return None;
    }
    let values = || items.iter().filter_map(|item| item.value).filter(|mb| *mb > 0.0);
    let largest = values().fold(0.0, f64::max);
    // Bars are preferred as long as the shortest one can be seen.
    let log = largest > 30.0 * values().fold(largest, f64::min);
    let block = Block { heading: String::new(), items, limit: None };
    let axis = if log { "MB (logarithmic)" } else { "MB" };
    Some(figure(
        "",
        "The busiest uplink",
        "The most that one node sends for a message, and which node it is.",
        &[],
        &bars("Busiest node by protocol", axis, &[block], log),
    ))
}

/// Names of nodes may be long keys, of which the beginning and the end are enough.
fn shortened(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= 16 {
        return name.to_owned();
    }
    let part = |letters: &[char]| letters.iter().collect::<String>();
    format!("{}…{}", part(&letters[..8]), part(&letters[letters.len() - 6..]))
}

/// The settings that were tried: one figure for each protocol that has some.
pub(super) fn tried(table: &Table) -> String {
    let with = ordered(table).into_iter().filter(|(_, p)| !p.tried.is_empty());
    with.map(|(name, protocol)| {
        let items = protocol.tried.iter().map(|(setting, mean)| Item {
            of: name,
            name: setting.clone(),
            value: *mean,
            text: rounded_or_nothing(mean.filter(|mean| mean.is_finite())),
        });
        let limit = table.protocols.get(LIMIT).and_then(|p| p.times.mean);
        let block = Block { heading: "Mean, ms".into(), items: items.collect(), limit };
        let chosen = match protocol.detail.as_str() {
            "" => String::new(),
            detail => format!(" What the table shows: {detail}."),
        };
        figure(
            "",
            &format!("{name}: settings tried"),
            &format!(
                "Peers are compared at their best. Mean time with each of {} settings.{chosen}",
                thousands(protocol.tried.len() as u64)
            ),
            &[],
            &bars("Mean by setting", "ms", &[block], false),
        )
    })
    .collect()
}
