//! Maps of the times of arrival: a small map for each protocol, all with the same colours.
//!
//! The projection is equirectangular: distances do not matter here, and latitude and longitude can
//! be read off.

use super::land::OUTLINES;
use super::plot::figure;
use super::slot;
use super::svg::{Scale, Svg, at};
use super::text::{escape, rounded, thousands};
use super::{is_limit, ordered, shown};
use crate::results::{Comparison, LIMIT, PlaceRow, Table};

const WIDTH: f64 = 350.0;
const HEIGHT: f64 = 145.0;
/// Room for degrees at the left and at the bottom.
const LEFT: f64 = 30.0;
const BOTTOM: f64 = 16.0;
/// Room for half a circle at the right.
const RIGHT: f64 = 8.0;

/// Colours from fast to slow: bright to dark, chosen like the colour maps whose order can be seen
/// in grey and by people who confuse colours.
const COLOURS: [(f64, f64, f64); 5] = [
    (250.0, 226.0, 60.0),
    (106.0, 200.0, 90.0),
    (34.0, 146.0, 140.0),
    (56.0, 88.0, 145.0),
    (104.0, 38.0, 130.0),
];

/// The part of the world that is shown, in degrees.
struct View {
    west: f64,
    north: f64,
    width: f64,
    height: f64,
}

/// The maps of the first table, or a sentence if no place has coordinates.
pub(super) fn maps(comparison: &Comparison) -> String {
    let title = "Where it arrives when";
    let places: Vec<(usize, &PlaceRow, (f64, f64))> = comparison
        .places
        .iter()
        .enumerate()
        .filter_map(|(i, place)| Some((i, place, place.position?)))
        .filter(|(_, _, (lat, lon))| lat.abs() <= 90.0 && lon.abs() <= 360.0)
        .map(|(i, place, (lat, lon))| (i, place, (lat, east(lon))))
        .collect();
    let Some(table) = comparison.tables.first().filter(|_| !places.is_empty()) else {
        return figure(
            "",
            title,
            "There is no map: these places have delays between them, but no coordinates.",
            &[],
            "",
        );
    };
    let view = View::around(places.iter().map(|(_, _, position)| *position));
    let times = || {
        let all = table.protocols.values().flat_map(|p| p.by_place.iter().flatten());
        all.copied().filter(|ms| ms.is_finite() && *ms > 0.0)
    };
    let slowest = times().fold(0.0, f64::max);
    // Nodes at the leader's place have it almost at once; the colours need not distinguish them.
    let fastest = times().fold(slowest, f64::min).max(slowest / 100.0);
    let colours = Scale::new((fastest, slowest), true, (0.0, 1.0));
    let mut maps = String::new();
    for (name, protocol) in ordered(table) {
        // What distinguishes the relayed limit is in the table of places.
        let hidden = is_limit(name) && name != LIMIT;
        if hidden || !protocol.by_place.iter().flatten().any(|ms| ms.is_finite()) {
            continue;
        }
        let n = slot(name);
        maps.push_str(&format!(
            "<div class=\"map s{n}\"><h4><span class=\"key p{n}\"><i></i>{}</span></h4>{}</div>",
            escape(name),
            one(name, &view, &places, &protocol.by_place, &colours)
        ));
    }
    if maps.is_empty() {
        return figure("", title, "There is no map: no node of any place had a message.", &[], "");
    }
    let caption = format!(
        "Mean time at each of {} places; circles grow with the number of nodes there. All maps have \
         the same colours.",
        thousands(places.len() as u64)
    );
    let drawing = format!("{}<div class=\"maps\">{maps}</div>", legend(&colours));
    figure("", title, &caption, &[], &drawing)
}

/// Degrees east, −180 to 180.
fn east(lon: f64) -> f64 {
    match lon {
        _ if lon > 180.0 => lon - 360.0,
        _ if lon < -180.0 => lon + 360.0,
        _ => lon,
    }
}

impl View {
    /// The world without its ice, or the part that contains all places with a margin.
    fn around(positions: impl Iterator<Item = (f64, f64)>) -> Self {
        let (mut south, mut north, mut west, mut east) = (90f64, -90f64, 180f64, -180f64);
        for (lat, lon) in positions {
            (south, north) = (south.min(lat), north.max(lat));
            (west, east) = (west.min(lon), east.max(lon));
        }
        let shape = (WIDTH - LEFT - RIGHT) / (HEIGHT - BOTTOM);
        let height = (north - south + 10.0).max((east - west + 14.0) / shape).max(24.0);
        if height * shape > 250.0 {
            let (width, height) = (360.0, 360.0 / shape);
            // Without the Antarctic.
            return Self { west: -180.0, north: 84.0, width, height };
        }
        let (lat, lon) = ((north + south) / 2.0, (east + west) / 2.0);
        let width = height * shape;
        Self { west: lon - width / 2.0, north: lat + height / 2.0, width, height }
    }
}

fn one(
    name: &str,
    view: &View,
    places: &[(usize, &PlaceRow, (f64, f64))],
    by_place: &[Option<f64>],
    colours: &Scale,
) -> String {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let x = Scale::new((view.west, view.west + view.width), false, (LEFT, right));
    let y = Scale::new((view.north - view.height, view.north), false, (bottom, 0.0));
    let label = format!("Map of mean arrival times with {name}");
    let mut svg = Svg::new(WIDTH, HEIGHT, "world", &label);
    svg.bar("sea", (LEFT, 0.0), (right - LEFT, bottom), "");
    let land: String = OUTLINES.iter().map(|o| format!("<polygon points=\"{o}\"/>")).collect();
    let frame = [view.west, -view.north, view.width, view.height];
    svg.window((LEFT, 0.0), (right - LEFT, bottom), frame);
    svg.raw(&format!("<g class=\"land\" transform=\"scale(1 -1)\">{land}</g>"));
    svg.close_window();
    for lat in rounds(view.north - view.height, view.north) {
        svg.line("graticule", (LEFT, y.at(lat)), (right, y.at(lat)));
        if y.at(lat) > 8.0 && y.at(lat) < bottom - 2.0 {
            svg.text("degree end", (LEFT - 3.0, y.at(lat) + 3.5), &degrees(lat, 'N', 'S'));
        }
    }
    for lon in rounds(view.west, view.west + view.width) {
        svg.line("graticule", (x.at(lon), 0.0), (x.at(lon), bottom));
        if x.at(lon) > LEFT + 12.0 && x.at(lon) < right - 14.0 {
            svg.text("degree middle", (x.at(lon), HEIGHT - 4.0), &degrees(lon, 'E', 'W'));
        }
    }
    let most = places.iter().map(|(_, place, _)| place.nodes).max().unwrap_or(0).max(1) as f64;
    let radius = |nodes: usize| 1.8 + 6.2 * (nodes as f64 / most).sqrt();
    // Small circles are drawn on top of large ones.
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|i| (usize::MAX - places[*i].1.nodes, *i));
    for i in order {
        let (index, place, (lat, lon)) = places[i];
        let ms = by_place.get(index).copied().flatten().filter(|ms| ms.is_finite());
        let (class, fill, time) = match ms {
            Some(ms) => ("place", colour(colours.within(ms)), format!("{} ms", rounded(ms))),
            None => ("place never", String::new(), "never".into()),
        };
        let nodes = if place.nodes == 1 { "node" } else { "nodes" };
        let tip = format!("{}: {time} · {} {nodes}", place.name, place.nodes);
        let centre = (x.within(lon), y.within(lat));
        svg.styled_disc(class, centre, radius(place.nodes), &fill, &tip);
    }
    svg.finish()
}

/// At most seven round numbers of degrees between two others.
fn rounds(from: f64, to: f64) -> Vec<f64> {
    let step = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0];
    let step = step.into_iter().find(|step| (to - from) / step <= 6.0).unwrap_or(60.0);
    let (first, last) = (libm::ceil(from / step) as i32, libm::floor(to / step) as i32);
    (first..=last).map(|i| f64::from(i) * step).collect()
}

fn degrees(value: f64, positive: char, negative: char) -> String {
    match value {
        _ if value < 0.0 => format!("{}°{negative}", -value),
        _ if value > 0.0 => format!("{value}°{positive}"),
        _ => "0°".into(),
    }
}

/// A colour between fast (0) and slow (1).
fn colour(share: f64) -> String {
    let at = share.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f64;
    let i = (at as usize).min(COLOURS.len() - 2);
    let part = at - i as f64;
    let mix = |a: f64, b: f64| libm::round(a + (b - a) * part) as u8;
    let (a, b) = (COLOURS[i], COLOURS[i + 1]);
    format!("#{:02x}{:02x}{:02x}", mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

fn legend(colours: &Scale) -> String {
    let (left, right) = (8.0, WIDTH - 22.0);
    let mut svg = Svg::new(WIDTH, 34.0, "world", "Colours of mean arrival times");
    let steps = 64;
    for i in 0..steps {
        let share = |i: usize| i as f64 / steps as f64;
        let x = left + share(i) * (right - left);
        let style = format!("style=\"fill:{}\"", colour(share(i) + 0.5 / steps as f64));
        // Slightly wider than a step, so that no seam is visible.
        let width = at((right - left) / steps as f64 + 0.5);
        svg.raw(&format!(
            "<rect x=\"{}\" y=\"4\" width=\"{width}\" height=\"10\" {style}/>",
            at(x)
        ));
    }
    for (ms, text) in colours.ticks(6) {
        let x = left + colours.at(ms) * (right - left);
        svg.line("axis", (x, 14.0), (x, 18.0));
        svg.text("tick middle", (x, 30.0), &text);
    }
    svg.text("tick start", (right + 4.0, 13.0), "ms");
    svg.finish()
}

/// The mean times of all places as a table, also for readers who cannot see the map.
pub(super) fn place_table(comparison: &Comparison, table: &Table) -> String {
    let protocols: Vec<_> =
        ordered(table).into_iter().filter(|(_, p)| !p.by_place.is_empty()).collect();
    if comparison.places.is_empty() || protocols.is_empty() {
        return String::new();
    }
    let heads: String =
        protocols.iter().map(|(name, _)| format!("<th>{}</th>", escape(shown(name)))).collect();
    let mut rows = String::new();
    for (i, place) in comparison.places.iter().enumerate() {
        let cells: String = protocols
            .iter()
            .map(|(_, p)| {
                let ms = p.by_place.get(i).copied().flatten();
                format!("<td>{}</td>", super::text::decimal(ms, 1))
            })
            .collect();
        rows.push_str(&format!(
            "<tr><th>{}</th><td>{}</td>{cells}</tr>",
            escape(&place.name),
            thousands(place.nodes as u64)
        ));
    }
    format!(
        "<details><summary>Mean time at each place, ms</summary><div class=\"scroll\">\
         <table><thead><tr><th>place</th><th>nodes</th>{heads}</tr></thead>\
         <tbody>{rows}</tbody></table></div></details>\n"
    )
}
