//! Curves over two axes, and figures around drawings.

use super::svg::{Scale, Svg};
use super::text::escape;
use super::{shown, slot};

/// Widths of the two versions of every chart: for a column of a desktop page and for a phone. One
/// drawing scaled to both would have text that is too large on one or illegible on the other.
pub(super) const WIDTHS: [(f64, &str); 2] = [(520.0, "wide"), (350.0, "narrow")];

/// An axis of numbers.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    /// Its label, with the unit.
    pub(super) label: String,
    /// Its range.
    pub(super) range: (f64, f64),
    /// Whether it is logarithmic.
    pub(super) log: bool,
}

/// A protocol's curve.
#[derive(Debug, Clone)]
pub(super) struct Series {
    /// The protocol.
    pub(super) name: String,
    /// Runs of points. The curve is interrupted between two runs.
    pub(super) runs: Vec<Vec<(f64, f64)>>,
    /// Marked points, with the text that a pointer on them shows.
    pub(super) dots: Vec<(f64, f64, String)>,
}

/// Draws curves.
pub(super) fn curves(label: &str, x: &Axis, y: &Axis, series: &[Series]) -> String {
    WIDTHS.iter().map(|(width, class)| one(label, x, y, series, *width, class)).collect()
}

fn one(label: &str, x: &Axis, y: &Axis, series: &[Series], width: f64, class: &str) -> String {
    let height = if width > 400.0 { 300.0 } else { 260.0 };
    let (left, right, top, bottom) = (46.0, width - 14.0, 26.0, height - 38.0);
    let mut svg = Svg::new(width, height, class, label);
    let horizontal = Scale::new(x.range, x.log, (left, right));
    let vertical = Scale::new(y.range, y.log, (bottom, top));
    for (value, text) in vertical.ticks(6) {
        svg.line("grid", (left, vertical.at(value)), (right, vertical.at(value)));
        svg.text("tick end", (left - 7.0, vertical.at(value) + 4.0), &text);
    }
    for (value, text) in horizontal.ticks(if width > 400.0 { 8 } else { 5 }) {
        svg.line("grid", (horizontal.at(value), top), (horizontal.at(value), bottom));
        svg.text("tick middle", (horizontal.at(value), bottom + 16.0), &text);
    }
    svg.line("axis", (left, bottom), (right, bottom));
    // The label is horizontal, which is easier to read.
    svg.text("label start", (0.0, 13.0), &y.label);
    svg.text("label end", (right, height - 4.0), &x.label);
    let margin = 4.0;
    let corner = (left - margin, top - margin);
    let size = (right - left + 2.0 * margin, bottom - top + 2.0 * margin);
    svg.window(corner, size, [corner.0, corner.1, size.0, size.1]);
    // The first curve is fragcast's or the limit's, and is drawn last, on top.
    for series in series.iter().rev() {
        let n = slot(&series.name);
        svg.group(&format!("p{n} s{n}"));
        let place = |(x, y): (f64, f64)| (horizontal.at(x), vertical.at(y));
        for run in &series.runs {
            let points: Vec<(f64, f64)> = run.iter().map(|point| place(*point)).collect();
            svg.curve("curve", &points, shown(&series.name));
        }
        for (x, y, tip) in &series.dots {
            let (x, y) = place((*x, *y));
            svg.disc("dot", (x, y), 3.2, "");
            // A larger invisible area, for fingers.
            svg.disc("hit", (x, y), 11.0, tip);
        }
        svg.close();
    }
    svg.close_window();
    svg.finish()
}

/// A figure of a class: a heading, a sentence on what it shows, a legend and the drawing.
pub(super) fn figure(
    class: &str,
    title: &str,
    caption: &str,
    names: &[&str],
    drawing: &str,
) -> String {
    let legend = if names.is_empty() { String::new() } else { legend(names) };
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    format!(
        "<figure{class}><h3>{}</h3><p>{}</p>{legend}{drawing}</figure>\n",
        escape(title),
        escape(caption)
    )
}

/// The legend of colours. The script turns its entries into switches.
fn legend(names: &[&str]) -> String {
    let keys: String = names
        .iter()
        .map(|name| {
            let (n, name) = (slot(name), escape(shown(name)));
            format!("<span class=\"key p{n}\" data-series=\"{n}\"><i></i>{name}</span>")
        })
        .collect();
    format!("<div class=\"keys\">{keys}</div>")
}
