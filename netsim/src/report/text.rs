//! Formats numbers and sentences.

/// Stands for a missing value.
pub(super) const NOTHING: &str = "–";

/// A number with this many decimals; a dash if it is missing or not finite.
pub(super) fn decimal(value: Option<f64>, decimals: usize) -> String {
    match value.filter(|value| value.is_finite()) {
        // Adding zero turns −0 into 0.
        Some(value) => format!("{:.decimals$}", value + 0.0),
        None => NOTHING.into(),
    }
}

/// The decimals with which the smallest number of a column has two digits: at least `least`, at
/// most three.
pub(super) fn decimals(values: impl Iterator<Item = f64>, least: usize) -> usize {
    let positive = values.filter(|value| value.is_finite() && *value > 0.0);
    let smallest = positive.fold(f64::INFINITY, f64::min);
    let needed = match smallest {
        small if small < 0.1 => 3,
        small if small < 1.0 => 2,
        small if small < 10.0 => 1,
        _ => 0,
    };
    needed.max(least).min(3)
}

/// A number for sentences and labels, with up to three digits or all before the point: 0.071, 7.1,
/// 71.3, 712, 7,120.
pub(super) fn rounded(value: f64) -> String {
    if !value.is_finite() {
        return NOTHING.into();
    }
    let size = value.abs();
    if size >= 999.5 {
        let sign = if value < 0.0 { "−" } else { "" };
        // The conversion saturates at 2^64.
        return format!("{sign}{}", thousands((size + 0.5) as u64));
    }
    let decimals = match size {
        _ if size >= 99.95 => 0,
        _ if size >= 9.995 => 1,
        _ if size >= 0.9995 || size == 0.0 => 2,
        _ => 3,
    };
    let text = decimal(Some(value), decimals);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// As [`rounded`]; a dash if the number is missing.
pub(super) fn rounded_or_nothing(value: Option<f64>) -> String {
    value.map_or_else(|| NOTHING.into(), rounded)
}

/// A number with commas between groups of three digits.
pub(super) fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Text for a terminal. Removes control characters, since names come from files.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Escapes text for HTML and SVG, between tags and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Breaks text between words into lines of at most `width` characters; longer words stay whole.
/// Lines after the first begin with `indent`.
pub(super) fn wrap(text: &str, width: usize, indent: &str) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        let line = lines.len() - 1;
        let begins = used == if line == 0 { 0 } else { indent.chars().count() };
        if !begins && used + 1 + length > width {
            lines.push(format!("{indent}{word}"));
            used = indent.chars().count() + length;
            continue;
        }
        if !begins {
            lines[line].push(' ');
            used += 1;
        }
        lines[line].push_str(word);
        used += length;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_matter() {
        let text: Vec<String> =
            [0.0, 0.0714, 1.996, 7.1, 71.26, 99.96, 712.4, 7_123.6, -1_500.0].map(rounded).into();
        assert_eq!(text, ["0", "0.071", "2", "7.1", "71.3", "100", "712", "7,124", "−1,500"]);
        assert_eq!(rounded(f64::NAN), "–");
        assert_eq!(decimal(Some(f64::INFINITY), 1), "–");
        assert_eq!(decimal(Some(-0.0), 1), "0.0");
        assert_eq!(decimals([60.0, 0.0, f64::NAN].into_iter(), 1), 1);
        assert_eq!(decimals([60.0, 0.3].into_iter(), 1), 2);
        assert_eq!(decimals([0.000_1].into_iter(), 1), 3);
        assert_eq!(thousands(1_234_567), "1,234,567");
    }

    #[test]
    fn sentences_are_wrapped_and_terminals_not_steered() {
        assert_eq!(wrap("a bb ccc dddd", 6, "  "), ["a bb", "  ccc", "  dddd"]);
        assert_eq!(wrap("unbreakable", 3, ""), ["unbreakable"]);
        assert_eq!(plain("\x1b[2Jx\n"), " [2Jx ");
        assert_eq!(escape("<b>&\"'x\0"), "&lt;b&gt;&amp;&quot;&#39;x ");
    }
}
