//! Which protocol is the fastest in a row, and where fragcast is not.

use super::names;
use crate::report::is_limit;
use crate::report::text::{decimal, plain, rounded, thousands};
use crate::results::{Survey, SurveyRow, is_ours};

/// The protocol with the least mean among those that `of` allows, with its mean in ms. Of several
/// with the same mean it is fragcast.
pub(super) fn least(row: &SurveyRow, of: impl Fn(&str) -> bool) -> Option<(&str, f64)> {
    let protocols = row.protocols.iter().map(|(name, p)| (name.as_str(), p));
    protocols
        .filter(|(name, _)| !is_limit(name) && of(name))
        .filter_map(|(name, p)| Some((name, p.times.mean.filter(|ms| ms.is_finite())?)))
        .min_by(|a, b| a.1.total_cmp(&b.1).then(is_ours(b.0).cmp(&is_ours(a.0))))
}

/// A row in which another protocol has a smaller mean.
pub(super) struct Behind<'a> {
    pub(super) row: &'a SurveyRow,
    pub(super) index: usize,
    /// The fastest of the others.
    pub(super) by: &'a str,
}

/// How a protocol of ours stands against the others.
pub(super) struct Standing<'a> {
    pub(super) ours: &'a str,
    /// Rows that it ran in together with others.
    pub(super) rows: usize,
    pub(super) behind: Vec<Behind<'a>>,
}

impl Standing<'_> {
    pub(super) const fn fastest(&self) -> usize {
        self.rows - self.behind.len()
    }

    /// In one sentence, without the rows.
    pub(super) fn sentence(&self) -> String {
        let Self { ours, rows, .. } = self;
        match (self.fastest(), *rows) {
            (_, 0) => format!("{ours} ran alone: there is nothing to compare it with."),
            (1, 1) => format!("{ours} is the fastest in the only row."),
            (fastest, rows) if fastest == rows => {
                format!("{ours} is the fastest in all {rows} rows.")
            }
            (fastest, rows) => {
                format!("{ours} is the fastest in {fastest} of {rows} rows; it is behind in:")
            }
        }
    }
}

impl Behind<'_> {
    /// Where, and how much.
    pub(super) fn sentence(&self, ours: &str) -> String {
        let ratio = |name: &str| self.row.protocols.get(name).and_then(|p| p.ratio.mean);
        let mean = |name: &str| self.row.protocols.get(name).and_then(|p| p.times.mean);
        let more = match (mean(ours), mean(self.by)) {
            (Some(ours), Some(by)) if by > 0.0 => {
                format!(" ({} % more)", rounded((ours / by - 1.0) * 100.0))
            }
            _ => String::new(),
        };
        format!(
            "{}: {ours} {}, {} {} × limit{more}",
            place(self.row).join(", "),
            decimal(ratio(ours), 3),
            self.by,
            decimal(ratio(self.by), 3),
        )
    }
}

/// The network, its nodes, size, uplink and loss, with units.
pub(super) fn place(row: &SurveyRow) -> [String; 5] {
    let [network, nodes, kb, mbit, loss] = coordinates(row);
    [
        network,
        format!("{nodes} nodes"),
        format!("{kb} kB"),
        format!("{mbit} Mbit/s"),
        format!("{loss} % loss"),
    ]
}

/// The same without units.
pub(super) fn coordinates(row: &SurveyRow) -> [String; 5] {
    [
        plain(&row.network),
        thousands(row.nodes as u64),
        rounded(f64::from(row.bytes) / 1e3),
        rounded(row.uplink_bps as f64 / 1e6),
        rounded(row.loss * 100.0),
    ]
}

pub(super) const COORDINATES: [&str; 5] = ["network", "nodes", "kB", "Mbit/s", "loss, %"];

/// How each protocol of ours stands.
pub(super) fn standings(survey: &Survey) -> Vec<Standing<'_>> {
    let ours = names(survey).into_iter().filter(|name| is_ours(name));
    ours.map(|ours| {
        let mut standing = Standing { ours, rows: 0, behind: Vec::new() };
        for (index, row) in survey.rows.iter().enumerate() {
            let Some((by, peer)) = least(row, |name| !is_ours(name)) else { continue };
            standing.rows += 1;
            // One without a mean is behind.
            let mean = least(row, |name| name == ours).map_or(f64::INFINITY, |(_, ms)| ms);
            if mean > peer {
                standing.behind.push(Behind { row, index, by });
            }
        }
        standing
    })
    .collect()
}
