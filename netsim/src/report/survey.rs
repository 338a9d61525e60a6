//! Reports of a survey: a block of numbers for each measure, with a row for each combination of
//! network, size, uplink and loss; and in words where fragcast is not the fastest.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use standing::{Behind, COORDINATES, coordinates, least, place, standings};

use super::text::{NOTHING, decimal, escape, plain, thousands, wrap};
use super::{html, is_limit, rank, shown, slot};
use crate::results::{LIMIT, Protocol, RELAYED_LIMIT, Survey, SurveyRow, is_ours};

mod standing;

/// Width of the text on a terminal.
const WIDTH: usize = 118;
/// Behind the mean of the fastest protocol.
const MARK: char = '*';

/// A number of each protocol.
struct Measure {
    title: &'static str,
    caption: &'static str,
    /// Whether the relayed limit has it, too.
    of_relayed: bool,
    form: fn(&Protocol) -> Option<String>,
}

fn ratio(value: Option<f64>) -> Option<String> {
    let value = value.filter(|value| value.is_finite())?;
    Some(decimal(Some(value), if value < 99.995 { 2 } else { 0 }))
}

const MEASURES: [Measure; 5] = [
    Measure {
        title: "mean × limit",
        caption: "Mean time over the limit's mean. The limit is the direct path from the leader and \
                  the transmission; relayed is the shortest path over any relays.",
        of_relayed: true,
        form: |p| ratio(p.ratio.mean),
    },
    Measure {
        title: "p99 × limit",
        caption: "99th percentile over the limit's; a dash where more than 1 % are missed.",
        of_relayed: true,
        form: |p| ratio(p.ratio.p99),
    },
    Measure {
        title: "worst leader × limit",
        caption: "The largest ratio of means of any one leader.",
        of_relayed: true,
        form: |p| ratio(p.ratio.worst_leader),
    },
    Measure {
        title: "missed",
        caption: "Pairs of message and node that never completed; they count in the mean at the \
                  end of the run.",
        of_relayed: false,
        form: |p| Some(thousands(p.missed)),
    },
    Measure {
        title: "bytes sent per payload byte",
        caption: "Per node, framing included.",
        of_relayed: false,
        form: |p| ratio(Some(p.bytes_per_payload_byte)),
    },
];

/// The names of all protocols of any row, the relayed limit first.
fn names(survey: &Survey) -> Vec<&str> {
    let mut all: Vec<&str> = Vec::new();
    for name in survey.rows.iter().flat_map(|row| row.protocols.keys()) {
        if name != LIMIT && !all.contains(&name.as_str()) {
            all.push(name);
        }
    }
    // A profile of fragcast is where fragcast is.
    all.sort_by_key(|name| (rank(if is_ours(name) { super::OURS } else { name }), *name));
    all
}

/// A cell of text, and whether it is the fastest protocol's.
type Cell = (String, bool);

/// The numbers of a measure: a row for each of the survey's.
fn cells(survey: &Survey, names: &[&str], measure: &Measure) -> Vec<Vec<Cell>> {
    let row = |row: &SurveyRow| {
        let fastest = least(row, |_| true).map(|(name, _)| name);
        let cell = |name: &&str| {
            let text = row.protocols.get(*name).and_then(measure.form);
            (text.unwrap_or_else(|| NOTHING.into()), fastest == Some(*name))
        };
        names.iter().map(cell).collect()
    };
    survey.rows.iter().map(row).collect()
}

/// The names that have a measure.
fn columns<'a>(names: &[&'a str], measure: &Measure) -> Vec<&'a str> {
    names.iter().copied().filter(|name| measure.of_relayed || *name != RELAYED_LIMIT).collect()
}

/// Writes a block of numbers for each measure, where fragcast is behind, notes, and the digest. With
/// `bold`, the numbers of the fastest protocol are bold (ANSI).
///
/// # Errors
/// Those of `out`.
pub fn table(out: &mut impl Write, survey: &Survey, bold: bool) -> io::Result<()> {
    let names = names(survey);
    for (i, measure) in MEASURES.iter().enumerate() {
        let nobody =
            survey.rows.iter().flat_map(|row| row.protocols.values()).all(|p| p.missed == 0);
        if measure.title == "missed" && nobody {
            writeln!(out, "missed: nobody, in any row\n")?;
            continue;
        }
        let mark = if i == 0 { format!(" ({MARK} the fastest)") } else { String::new() };
        writeln!(out, "{}{mark}\n", measure.title)?;
        block(out, survey, &columns(&names, measure), measure, i == 0, bold)?;
        writeln!(out)?;
    }
    for standing in standings(survey) {
        writeln!(out, "{}", plain(&standing.sentence()))?;
        for behind in &standing.behind {
            let sentence = plain(&behind.sentence(standing.ours));
            writeln!(out, "  {}", wrap(&sentence, WIDTH - 2, "    ").join("\n"))?;
        }
        writeln!(out)?;
    }
    super::table::sentences(out, &notes(survey))?;
    writeln!(out, "digest {}", plain(&survey.digest))
}

fn block(
    out: &mut impl Write,
    survey: &Survey,
    names: &[&str],
    measure: &Measure,
    marked: bool,
    bold: bool,
) -> io::Result<()> {
    let length = |text: &str| text.chars().count();
    let heads: Vec<String> = COORDINATES.iter().map(|head| (*head).to_owned()).collect();
    let left: Vec<Vec<String>> = survey.rows.iter().map(|row| coordinates(row).into()).collect();
    let right = cells(survey, names, measure);
    let wide = |head: &str, cells: &mut dyn Iterator<Item = usize>| {
        cells.max().unwrap_or(0).max(length(head))
    };
    let left_widths: Vec<usize> = (0..heads.len())
        .map(|c| wide(&heads[c], &mut left.iter().map(|row| length(&row[c]))))
        .collect();
    let right_widths: Vec<usize> = (0..names.len())
        .map(|c| wide(shown(names[c]), &mut right.iter().map(|row| length(&row[c].0))))
        .collect();
    // The gaps shrink before lines wrap.
    let widths = left_widths.iter().chain(&right_widths);
    let total = widths.map(|width| width + 2).sum::<usize>() + usize::from(marked) * names.len();
    let gap = " ".repeat(if total <= WIDTH { 2 } else { 1 });
    let place = |texts: &[String]| -> String {
        let first = format!("{:<width$}", texts[0], width = left_widths[0]);
        let others = texts.iter().zip(&left_widths).skip(1);
        others.fold(first, |line, (text, width)| line + &format!("{gap}{text:>width$}"))
    };
    let mut head = place(&heads) + " ";
    for (name, width) in names.iter().zip(&right_widths) {
        head.push_str(&format!("{gap}{:>width$}", plain(shown(name))));
        head.push_str(if marked { " " } else { "" });
    }
    writeln!(out, "{}", head.trim_end())?;
    for (left, right) in left.iter().zip(&right) {
        let mut line = place(left) + " ";
        for ((text, fastest), width) in right.iter().zip(&right_widths) {
            line.push_str(&gap);
            line.push_str(&" ".repeat(width - length(text)));
            match bold && *fastest {
                true => line.push_str(&format!("\x1b[1m{text}\x1b[0m")),
                false => line.push_str(text),
            }
            if marked {
                line.push(if *fastest { MARK } else { ' ' });
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// The means of a row in one line, for whoever waits for the others.
pub fn line(row: &SurveyRow) -> String {
    let mut names: Vec<&String> = row.protocols.keys().filter(|name| !is_limit(name)).collect();
    let fastest = least(row, |_| true).map(|(name, _)| name);
    names.sort_by_key(|name| rank(if is_ours(name) { super::OURS } else { name }));
    let mean = |name: &&String| {
        let mark = if fastest == Some(name.as_str()) { "*" } else { "" };
        let ratio = ratio(row.protocols[*name].ratio.mean).unwrap_or_else(|| NOTHING.into());
        format!("{name} {ratio}{mark}")
    };
    let means: Vec<String> = names.iter().map(mean).collect();
    plain(&format!("{}: {}", place(row).join(", "), means.join(" · ")))
}

/// The notes of all rows, each once.
fn notes(survey: &Survey) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for note in survey.rows.iter().flat_map(|row| &row.notes) {
        if !all.contains(note) {
            all.push(note.clone());
        }
    }
    all
}

/// Settings that are the same in every row.
fn common_settings(survey: &Survey) -> Vec<(String, String)> {
    let Some((first, rest)) = survey.rows.split_first() else { return Vec::new() };
    let everywhere =
        |setting: &&(String, String)| rest.iter().all(|row| row.settings.contains(setting));
    let common = first.settings.iter().filter(everywhere).cloned();
    common.chain(survey.settings.iter().cloned()).collect()
}

/// ```text
/// {"digest", "rows": [{"network", "nodes", "kb", "uplink_mbit", "loss", "digest", "fastest",
///    "protocols": {name: as in a comparison, without curves}}],
///  "standing": {"fragcast": {"rows", "fastest", "behind": [{"row", "by"}]}}, "settings", "notes"}
/// ```
///
/// `row` counts from 0. With several profiles there are `fragcast-lean` and `fragcast-fast` in
/// place of `fragcast`.
pub fn json(survey: &Survey) -> Value {
    let rows = survey.rows.iter().map(|row| {
        let protocols: Map<String, Value> = row
            .protocols
            .iter()
            .map(|(name, p)| {
                let mut value = super::json::protocol(p);
                if let Some(fields) = value.as_object_mut() {
                    for curve in ["cdf", "sent_mb", "by_place"] {
                        fields.remove(curve);
                    }
                }
                (name.clone(), value)
            })
            .collect();
        json!({
            "network": row.network,
            "nodes": row.nodes,
            "kb": f64::from(row.bytes) / 1e3,
            "uplink_mbit": row.uplink_bps as f64 / 1e6,
            "loss": row.loss,
            "digest": row.digest,
            "fastest": least(row, |_| true).map(|(name, _)| name),
            "protocols": protocols,
        })
    });
    let standing: Map<String, Value> = standings(survey)
        .iter()
        .map(|standing| {
            let behind = standing.behind.iter().map(|b| json!({"row": b.index, "by": b.by}));
            let behind: Vec<Value> = behind.collect();
            let fastest = standing.fastest();
            let value = json!({"rows": standing.rows, "fastest": fastest, "behind": behind});
            (standing.ours.to_owned(), value)
        })
        .collect();
    let settings: Map<String, Value> =
        common_settings(survey).into_iter().map(|(name, value)| (name, value.into())).collect();
    json!({
        "digest": survey.digest,
        "rows": rows.collect::<Vec<_>>(),
        "standing": standing,
        "settings": settings,
        "notes": notes(survey),
    })
}

/// The page of a survey.
pub fn page(survey: &Survey) -> String {
    let standings = standings(survey);
    let title = match standings.first() {
        Some(first) => first.sentence().trim_end_matches("; it is behind in:").to_owned(),
        None => "Where messages are how fast".to_owned(),
    };
    let title = title.trim_end_matches('.');
    let rows = match survey.rows.len() {
        1 => "One combination".to_owned(),
        n => format!("{n} combinations"),
    };
    let mut body = format!(
        "<header>\n<p class=\"kicker\">{rows} of network, size, uplink and loss</p>\n\
         <h1>{}</h1>\n</header>\n",
        escape(title)
    );
    let names = names(survey);
    for measure in &MEASURES {
        let columns = columns(&names, measure);
        body.push_str(&format!(
            "<h2>{}</h2>\n<p>{}</p>\n{}",
            escape(measure.title),
            escape(measure.caption),
            grid(survey, &columns, measure)
        ));
    }
    if !standings.is_empty() {
        body.push_str("<h2>Where fragcast is behind</h2>\n");
    }
    for standing in &standings {
        body.push_str(&format!("<p>{}</p>\n", escape(&standing.sentence())));
        let item = |b: &Behind<'_>| format!("<li>{}</li>", escape(&b.sentence(standing.ours)));
        let items: String = standing.behind.iter().map(item).collect();
        if !items.is_empty() {
            body.push_str(&format!("<ul class=\"notes\">{items}</ul>\n"));
        }
    }
    body.push_str(&html::close(&common_settings(survey), &notes(survey)));
    body.push_str(&html::digest(&survey.digest));
    html::shell(&format!("netsim: {title}"), &body)
}

fn grid(survey: &Survey, names: &[&str], measure: &Measure) -> String {
    let mut heads: String = COORDINATES.map(|head| format!("<th>{head}</th>")).concat();
    for name in names {
        let n = slot(if is_ours(name) { super::OURS } else { name });
        let name = escape(shown(name));
        heads.push_str(&format!("<th><span class=\"key p{n}\"><i></i>{name}</span></th>"));
    }
    let mut body = String::new();
    for (row, cells) in survey.rows.iter().zip(cells(survey, names, measure)) {
        let place = coordinates(row);
        body.push_str(&format!("<tr><th>{}</th>", escape(&place[0])));
        place[1..].iter().for_each(|text| body.push_str(&format!("<td>{}</td>", escape(text))));
        for (text, fastest) in cells {
            let class = if fastest { " class=\"best\"" } else { "" };
            body.push_str(&format!("<td{class}>{}</td>", escape(&text)));
        }
        body.push_str("</tr>\n");
    }
    format!(
        "<div class=\"scroll\"><table><thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody>\
         </table></div>\n<p class=\"legend\">Bold: the protocol with the least mean of the row.\
         </p>\n"
    )
}

#[cfg(test)]
mod tests;
