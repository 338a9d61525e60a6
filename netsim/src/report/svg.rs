//! The part of SVG that the pages need: shapes, escaped text, and scales with round ticks.
//!
//! Colours, strokes and fonts are classes of the page's style sheet, so that one drawing works on
//! light and dark screens and on paper. Drawings have no identifiers, since a page may contain one
//! twice.

use std::fmt::Write as _;

use super::text::{escape, rounded};

/// A drawing in progress.
#[derive(Debug)]
pub(super) struct Svg {
    head: String,
    body: String,
}

/// Formats a coordinate to a tenth of a pixel. The result is always a finite number.
pub(super) fn at(value: f64) -> String {
    let value = if value.is_finite() { value.clamp(-1e6, 1e6) } else { 0.0 };
    let text = format!("{:.1}", libm::round(value * 10.0) / 10.0 + 0.0);
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

impl Svg {
    /// An empty drawing with a description in words.
    pub(super) fn new(width: f64, height: f64, class: &str, label: &str) -> Self {
        let head = format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
            at(width),
            at(height),
            escape(label)
        );
        Self { head, body: String::new() }
    }

    /// A straight line.
    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = write!(
            self.body,
            "<line class=\"{class}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>",
            at(x1),
            at(y1),
            at(x2),
            at(y2)
        );
    }

    /// Text; `class` aligns it: `start`, `middle` or `end`.
    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let (x, y) = (at(x), at(y));
        let _ = write!(
            self.body,
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>",
            escape(text)
        );
    }

    /// A rectangle from a corner, at least 1 high and wide so that it is visible.
    pub(super) fn bar(&mut self, class: &str, (x, y): (f64, f64), (w, h): (f64, f64), tip: &str) {
        let _ = write!(
            self.body,
            "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"{}/>",
            at(x),
            at(y),
            at(w.max(1.0)),
            at(h.max(1.0)),
            tip_of(tip)
        );
    }

    /// A disc.
    pub(super) fn disc(&mut self, class: &str, (x, y): (f64, f64), r: f64, tip: &str) {
        self.styled_disc(class, (x, y), r, "", tip);
    }

    /// A disc of a colour that has no class.
    pub(super) fn styled_disc(
        &mut self,
        class: &str,
        (x, y): (f64, f64),
        r: f64,
        fill: &str,
        tip: &str,
    ) {
        let style = if fill.is_empty() { String::new() } else { format!(" style=\"fill:{fill}\"") };
        let _ = write!(
            self.body,
            "<circle class=\"{class}\" cx=\"{}\" cy=\"{}\" r=\"{}\"{style}{}/>",
            at(x),
            at(y),
            at(r.max(0.5)),
            tip_of(tip)
        );
    }

    /// A line through points.
    pub(super) fn curve(&mut self, class: &str, points: &[(f64, f64)], tip: &str) {
        let mut path = String::new();
        for (x, y) in points {
            let _ =
                write!(path, "{}{} {}", if path.is_empty() { "M" } else { "L" }, at(*x), at(*y));
        }
        if !path.is_empty() {
            let _ = write!(self.body, "<path class=\"{class}\" d=\"{path}\"{}/>", tip_of(tip));
        }
    }

    /// Opens a group, which [`close`](Self::close) closes.
    pub(super) fn group(&mut self, class: &str) {
        let _ = write!(self.body, "<g class=\"{class}\">");
    }

    /// Opens a window, which clips what is drawn outside. `view` begins with its corner.
    pub(super) fn window(&mut self, (x, y): (f64, f64), (w, h): (f64, f64), view: [f64; 4]) {
        let [left, top, width, height] = view.map(at);
        let _ = write!(
            self.body,
            "<svg x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" viewBox=\"{left} {top} {width} {height}\" \
             preserveAspectRatio=\"none\">",
            at(x),
            at(y),
            at(w),
            at(h)
        );
    }

    /// Closes a group.
    pub(super) fn close(&mut self) {
        self.body.push_str("</g>");
    }

    /// Closes a window.
    pub(super) fn close_window(&mut self) {
        self.body.push_str("</svg>");
    }

    /// Markup made by this module.
    pub(super) fn raw(&mut self, markup: &str) {
        self.body.push_str(markup);
    }

    /// The finished drawing.
    pub(super) fn finish(self) -> String {
        format!("{}{}</svg>", self.head, self.body)
    }
}

fn tip_of(tip: &str) -> String {
    if tip.is_empty() { String::new() } else { format!(" data-tip=\"{}\"", escape(tip)) }
}

/// Maps numbers to coordinates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    lo: f64,
    hi: f64,
    log: bool,
    from: f64,
    to: f64,
}

impl Scale {
    /// A scale that maps `lo` to `from` and `hi` to `to`. An empty range is widened, and a
    /// logarithmic one begins above zero.
    pub(super) fn new((lo, hi): (f64, f64), log: bool, (from, to): (f64, f64)) -> Self {
        let (mut lo, mut hi) = if lo.is_finite() && hi.is_finite() { (lo, hi) } else { (0.0, 1.0) };
        if log {
            hi = hi.max(1e-9);
            lo = lo.clamp(1e-9, hi);
            if hi / lo < 1.001 {
                (lo, hi) = (lo / 2.0, hi * 2.0);
            }
        } else if hi - lo < 1e-9 {
            hi = lo + 1.0;
        }
        Self { lo, hi, log, from, to }
    }

    /// The coordinate of a number.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = match self.log {
            true => libm::log(value.max(self.lo / 10.0) / self.lo) / libm::log(self.hi / self.lo),
            false => (value - self.lo) / (self.hi - self.lo),
        };
        self.from + share * (self.to - self.from)
    }

    /// The coordinate of a number, clamped to the scale.
    pub(super) fn within(&self, value: f64) -> f64 {
        self.at(value.clamp(self.lo, self.hi))
    }

    /// At most about `n` round numbers within the scale, with their texts.
    pub(super) fn ticks(&self, n: usize) -> Vec<(f64, String)> {
        let values = if self.log { self.log_ticks(n) } else { self.linear_ticks(n) };
        values.into_iter().map(|value| (value, rounded(value))).collect()
    }

    fn linear_ticks(&self, n: usize) -> Vec<f64> {
        let rough = (self.hi - self.lo) / n.max(1) as f64;
        let power = libm::pow(10.0, libm::floor(libm::log10(rough)));
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power);
        let step = step.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(rough);
        let first = libm::ceil(self.lo / step - 1e-6);
        let last = libm::floor(self.hi / step + 1e-6);
        (0..=((last - first).max(0.0) as usize).min(50))
            .map(|i| (first + i as f64) * step)
            .collect()
    }

    fn log_ticks(&self, n: usize) -> Vec<f64> {
        let (low, high) = (libm::floor(libm::log10(self.lo)), libm::ceil(libm::log10(self.hi)));
        let within = |value: &f64| *value >= self.lo * 0.999 && *value <= self.hi * 1.001;
        let take = |factors: &[f64], every: usize| -> Vec<f64> {
            let decades = (0..=(high - low) as usize).step_by(every);
            let all = decades.flat_map(|d| {
                let power = libm::pow(10.0, low + d as f64);
                factors.iter().map(move |factor| factor * power)
            });
            all.filter(within).collect()
        };
        let options = [take(&[1.0, 2.0, 5.0], 1), take(&[1.0, 3.0], 1), take(&[1.0], 1)];
        let fitting = options.into_iter().find(|ticks| ticks.len() <= n && ticks.len() > 1);
        // The range is within one decade, or spans very many.
        fitting.unwrap_or_else(|| match high - low > n as f64 {
            true => take(&[1.0], ((high - low) as usize).div_ceil(n.max(1))),
            false => Scale { log: false, ..*self }.linear_ticks(n),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(range: (f64, f64), log: bool, n: usize) -> Vec<String> {
        Scale::new(range, log, (0.0, 1.0)).ticks(n).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks((0.0, 340.0), false, 5), ["0", "100", "200", "300"]);
        assert_eq!(ticks((0.97, 2.1), false, 6), ["1", "1.2", "1.4", "1.6", "1.8", "2"]);
        assert_eq!(ticks((3.0, 700.0), true, 8), ["5", "10", "20", "50", "100", "200", "500"]);
        assert_eq!(ticks((0.02, 90.0), true, 5), ["0.1", "1", "10"]);
        assert_eq!(ticks((20.0, 90.0), true, 4), ["20", "50"]);
        assert_eq!(ticks((11.0, 19.0), true, 4), ["12", "14", "16", "18"]);
    }

    #[test]
    fn scales_take_anything() {
        for range in [(0.0, 0.0), (f64::NAN, 1.0), (5.0, f64::INFINITY), (-3.0, -3.0)] {
            for log in [false, true] {
                let scale = Scale::new(range, log, (0.0, 100.0));
                assert!(!scale.ticks(5).is_empty(), "{range:?} {log}");
                assert!(scale.at(1.0).is_finite() && scale.within(1e300) <= 100.0);
            }
        }
        assert_eq!(at(f64::NAN), "0");
        assert_eq!(at(-0.04), "0");
        assert_eq!(at(12.34), "12.3");
    }

    #[test]
    fn text_and_attributes_are_escaped() {
        let mut svg = Svg::new(1.0, 1.0, "c", "a\"b");
        svg.text("t", (0.0, 0.0), "<x>");
        svg.disc("d", (0.0, 0.0), 1.0, "\"><script>");
        let svg = svg.finish();
        assert!(svg.contains("a&quot;b") && svg.contains("&lt;x&gt;"));
        assert!(!svg.contains("<script") && !svg.contains("\"\""));
    }
}
