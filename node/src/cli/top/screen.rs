//! What `fragcast top` draws: a node's picture on 80 columns and 24 rows, or more.
//!
//! Everything in the picture comes from the node that was named, and may be anything: what is missing
//! is drawn as `-`, and control characters never reach the terminal.

use std::time::{Duration, Instant};

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::{Constraint, Layout, Rect};
use ratatui_core::style::{Color, Modifier, Style};
use ratatui_core::text::{Line, Span};
use ratatui_core::widgets::Widget as _;
use ratatui_widgets::block::Block;
use ratatui_widgets::borders::Borders;
use ratatui_widgets::paragraph::Paragraph;
use serde_json::Value;

/// The smallest screen that has room for it.
const SMALLEST: (u16, u16) = (60, 16);
/// The longest text that is taken from a picture, characters.
const LONGEST: usize = 200;

/// A value as text.
fn text(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    };
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

/// A peer's or a gateway's name, short enough for a column.
fn short(of: &Value) -> String {
    let name = ["short", "peer", "gateway"].iter().map(|key| &of[*key]).find(|v| v.is_string());
    let name = text(name.unwrap_or(&Value::Null));
    match name.char_indices().nth(12) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name,
    }
}

/// Milliseconds.
fn ms(value: &Value) -> String {
    match value.as_f64() {
        None => "-".into(),
        Some(ms) if ms < 10.0 => format!("{ms:.2} ms"),
        Some(ms) if ms < 10_000.0 => format!("{ms:.0} ms"),
        Some(ms) => format!("{:.1} s", ms / 1e3),
    }
}

/// A count in at most five characters.
fn count(value: &Value) -> String {
    match value.as_f64() {
        None => "-".into(),
        Some(n) if n < 10_000.0 => format!("{n:.0}"),
        Some(n) if n < 1e7 => format!("{:.0}k", n / 1e3),
        Some(n) if n < 1e10 => format!("{:.0}M", n / 1e6),
        Some(n) => format!("{:.0}G", n / 1e9),
    }
}

/// Bytes in at most six characters.
fn bytes(value: &Value) -> String {
    match value.as_f64() {
        None => "-".into(),
        Some(n) if n < 1e4 => format!("{n:.0} B"),
        Some(n) if n < 1e7 => format!("{:.0} kB", n / 1e3),
        Some(n) => format!("{:.0} MB", n / 1e6),
    }
}

/// How messages came: overlay, repair, gossip.
fn ways(ways: &Value) -> String {
    let n = |way: &str| count(&ways[way]);
    format!("{}/{}/{}", n("overlay"), n("repair"), n("gossip"))
}

/// What is known of a node.
pub(super) struct Seen {
    rpc: String,
    colours: bool,
    picture: Value,
    /// When the last picture came.
    at: Option<Instant>,
    /// Why there is no newer one.
    trouble: Option<String>,
    /// Since when there is none.
    away: Option<Instant>,
    pub(super) is_paused: bool,
}

impl Seen {
    pub(super) fn new(rpc: &str, colours: bool) -> Self {
        Self {
            rpc: rpc.to_owned(),
            colours,
            picture: Value::Null,
            at: None,
            trouble: None,
            away: None,
            is_paused: false,
        }
    }

    /// Takes an answer of the node.
    pub(super) fn take(&mut self, answer: Result<Value, String>, now: Instant) {
        match answer {
            Ok(picture) => {
                (self.picture, self.at) = (picture, Some(now));
                (self.trouble, self.away) = (None, None);
            }
            Err(why) => {
                self.trouble = Some(why);
                self.away.get_or_insert(now);
            }
        }
    }

    fn coloured(&self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn bold() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn dim() -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// A style for what is well, if the picture is not an old one.
    fn good(&self) -> Style {
        let is_old = self.is_paused || self.away.is_some();
        if is_old { Self::dim() } else { self.coloured(Color::Green) }
    }

    /// A style for what should not be.
    fn bad(&self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn draw(&self, area: Rect, buffer: &mut Buffer, now: Instant) {
        if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
            let told = format!(
                "{} × {} is too small: {} × {} is needed, 80 × 24 is better; q ends",
                area.width, area.height, SMALLEST.0, SMALLEST.1
            );
            return Paragraph::new(told).render(area, buffer);
        }
        let [title, way, body, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Min(1),
            Constraint::Length(1),
        ])
        .areas(area);
        self.title(title, buffer);
        self.way(way, buffer);
        self.foot(foot, buffer, now);
        if self.at.is_none() {
            let told = match &self.trouble {
                None => "waiting for its first answer …".to_owned(),
                Some(why) => format!("no node answers at {}: {why}. It is tried again.", self.rpc),
            };
            return Paragraph::new(told)
                .wrap(ratatui_widgets::paragraph::Wrap { trim: true })
                .render(body, buffer);
        }
        let [upper, lower] =
            Layout::vertical([Constraint::Length(9), Constraint::Min(1)]).areas(body);
        let [chain, open] =
            Layout::horizontal([Constraint::Length(36), Constraint::Min(1)]).areas(upper);
        let [blocks, latency] =
            Layout::horizontal([Constraint::Min(1), Constraint::Length(28)]).areas(lower);
        self.boxed("Node", self.chain(), chain, buffer);
        let inner = usize::from(open.width.saturating_sub(2));
        self.boxed("Open block", self.open(inner), open, buffer);
        self.boxed("Last blocks", self.blocks(), blocks, buffer);
        self.boxed("Latency", self.latency(), latency, buffer);
    }

    fn boxed(&self, title: &str, lines: Vec<Line<'static>>, area: Rect, buffer: &mut Buffer) {
        let block = Block::new()
            .borders(Borders::ALL)
            .border_style(Self::dim())
            .title(Span::styled(title.to_owned(), Self::bold()));
        Paragraph::new(lines).block(block).render(area, buffer);
    }

    fn title(&self, area: Rect, buffer: &mut Buffer) {
        let node = &self.picture["node"];
        let mut spans = vec![Span::styled("fragcast top ", Self::bold())];
        if self.at.is_some() {
            spans.push(match node["ready"] {
                _ if self.away.is_some() => Span::styled("AWAY ", self.bad()),
                Value::Bool(true) => Span::styled("ready ", self.good()),
                _ => Span::styled("NOT READY ", self.bad()),
            });
        }
        spans.push(Span::raw(self.rpc.clone()));
        if self.at.is_some() {
            let kind = match (&node["guest"], &node["leads"]) {
                (Value::Bool(true), _) => "guest",
                (_, Value::Bool(true)) => "leads",
                _ => "member",
            };
            let told = format!(
                " {} · {kind} · chain {} · {}",
                short(node),
                text(&node["chainId"]),
                text(&node["version"])
            );
            spans.push(Span::raw(told));
        }
        Line::from(spans).render(area, buffer);
    }

    fn way(&self, area: Rect, buffer: &mut Buffer) {
        if self.at.is_none() {
            return;
        }
        let (node, way) = (&self.picture["node"], &self.picture["way"]);
        let line = match &node["why"] {
            Value::String(why) if node["ready"] != true => {
                Line::styled(text(&Value::String(why.clone())), self.bad())
            }
            _ => {
                let style = match way["state"].as_str() {
                    Some("turbine") => self.good(),
                    Some("probing") => self.coloured(Color::Yellow),
                    _ => self.bad(),
                };
                Line::styled(text(&way["text"]), style)
            }
        };
        line.render(area, buffer);
    }

    fn foot(&self, area: Rect, buffer: &mut Buffer, now: Instant) {
        let since = |at: Instant| now.saturating_duration_since(at);
        let seconds = |took: Duration| format!("{:.0} s", took.as_secs_f64());
        let told = match (&self.trouble, self.away, self.at) {
            (Some(why), Some(away), Some(_)) => {
                let told = format!("AWAY for {}: {why}", seconds(since(away)));
                Span::styled(text(&Value::String(told)), self.bad())
            }
            _ if self.is_paused => Span::styled("paused", self.coloured(Color::Yellow)),
            _ => Span::raw(""),
        };
        let keys = Span::styled("q ends · p pauses · ", Self::dim());
        Line::from(vec![keys, told]).render(area, buffer);
    }

    fn row(name: &'static str, value: String) -> Line<'static> {
        Line::from(vec![Span::styled(format!("{name:<10}"), Self::dim()), Span::raw(value)])
    }

    fn chain(&self) -> Vec<Line<'static>> {
        let (node, chain) = (&self.picture["node"], &self.picture["chain"]);
        let (counts, way) = (&self.picture["counts"], &self.picture["way"]);
        let leader = |of: &Value| match &of["me"] {
            Value::Bool(true) => "this node".to_owned(),
            _ => short(of),
        };
        let next = match &chain["next"] {
            Value::Null => "-".into(),
            next => format!("{} from {}", leader(next), text(&next["from"])),
        };
        // A guest is to be connected to nobody in particular.
        let others = || node["members"].as_u64().unwrap_or(0).saturating_sub(1);
        let wanted = node["wanted"].as_u64().unwrap_or_else(others);
        let blocks = |key: &str| text(&chain[key]);
        let wrong = ["equivocations", "delegatedTwice", "badParity", "badMessages", "barred"];
        let wrongs: u64 = wrong.iter().filter_map(|key| counts[*key].as_u64()).sum();
        let told = format!("{wrongs} ({} equivocations)", count(&counts["equivocations"]));
        let style = if wrongs > 0 { self.bad() } else { Style::new() };
        vec![
            Self::row("opened", format!("{}  sealed {}", blocks("opened"), blocks("sealed"))),
            Self::row("verified", format!("{}  durable {}", blocks("latest"), blocks("durable"))),
            Self::row("leader", leader(&chain["leader"])),
            Self::row("next", next),
            Self::row(
                "peers",
                format!(
                    "{} of {}, {} on gossip",
                    text(&node["connected"]),
                    wanted,
                    count(&way["gossipPeers"])
                ),
            ),
            Self::row(
                "repaired",
                format!(
                    "{} of {} ({} asked)",
                    count(&counts["repaired"]),
                    count(&counts["delivered"]),
                    count(&counts["repairRequested"])
                ),
            ),
            Line::from(vec![
                Span::styled(format!("{:<10}", "faults"), Self::dim()),
                Span::styled(told, style),
            ]),
        ]
    }

    fn open(&self, width: usize) -> Vec<Line<'static>> {
        let open = &self.picture["open"];
        if !open.is_object() {
            return vec![Line::raw("no block is open")];
        }
        let messages = open["messages"].as_array().map_or(&[][..], Vec::as_slice);
        let state = if open["sealed"] == true { ", sealed" } else { "" };
        let mut lines = vec![
            Line::styled(
                format!("{} attempt {}{state}", text(&open["block"]), text(&open["attempt"])),
                Self::bold(),
            ),
            Self::row(
                "messages",
                format!("{} over/rep/gos {}", count(&open["count"]), ways(&open["ways"])),
            ),
            Self::row(
                "content",
                format!(
                    "{}  {} tx  {} gas",
                    bytes(&open["bytes"]),
                    count(&open["txs"]),
                    count(&open["gas"])
                ),
            ),
        ];
        // A letter for each message, the newest last.
        let room = width.saturating_mul(2).max(1);
        let shown = &messages[messages.len().saturating_sub(room)..];
        let letters: Vec<Span<'static>> = shown
            .iter()
            .map(|message| match message["via"].as_str() {
                Some("overlay") => Span::styled("o", self.coloured(Color::Green)),
                Some("repair") => Span::styled("r", self.coloured(Color::Yellow)),
                Some("gossip") => Span::styled("g", self.coloured(Color::Magenta)),
                Some("own") => Span::styled("·", self.coloured(Color::Cyan)),
                _ => Span::raw("?"),
            })
            .collect();
        lines.extend(letters.chunks(width.max(1)).map(|row| Line::from(row.to_vec())));
        let took = |message: &Value| {
            let (sent, whole) = (message["sent"].as_f64()?, message["whole"].as_f64()?);
            Some((whole - sent) / 1e3)
        };
        if let Some(last) = messages.last() {
            // What came from this node's own gateway did not travel.
            let took = took(last).filter(|_| last["via"] != "own");
            let took = took.map_or(Value::Null, Value::from);
            let told = format!(
                "{} {} {} via {}",
                text(&last["kind"]),
                text(&last["i"]),
                ms(&took),
                text(&last["via"])
            );
            lines.push(Self::row("newest", told));
        }
        lines
    }

    fn blocks(&self) -> Vec<Line<'static>> {
        let heading = format!(
            "{:>7} {:>4} {:>5} {:>5} {:>8} {:>7} {}",
            "block", "msgs", "tx", "bytes", "o/r/g", "latency", "verdict"
        );
        let mut lines = vec![Line::styled(heading, Self::dim())];
        for block in self.picture["blocks"].as_array().into_iter().flatten() {
            let (verdict, style) = match block["verdict"].as_str() {
                Some("verified") => ("ok".to_owned(), self.coloured(Color::Green)),
                Some(other) => (other.to_owned(), self.bad()),
                None => ("-".to_owned(), Self::dim()),
            };
            let told = format!(
                "{:>7} {:>4} {:>5} {:>5} {:>8} {:>7} ",
                text(&block["block"]),
                count(&block["messages"]),
                count(&block["txs"]),
                count(&block["bytes"]),
                ways(&block["ways"]),
                ms(&block["latencyMs"]),
            );
            let verdict = text(&Value::String(verdict));
            lines.push(Line::from(vec![Span::raw(told), Span::styled(verdict, style)]));
        }
        lines
    }

    fn latency(&self) -> Vec<Line<'static>> {
        let latency = &self.picture["latency"];
        let recent = &latency["recent"];
        let mut lines = vec![
            Self::row("median", format!("{} p99 {}", ms(&recent["p50"]), ms(&recent["p99"]))),
            Self::row("o/r/g", ways(&latency["first"])),
        ];
        let race = &latency["race"];
        for (name, of) in [("o first", &race["turbine"]), ("g first", &race["gossip"])] {
            if of["first"].as_u64().is_some_and(|n| n > 0) {
                let by = ms(&of["leadMs"]["p50"]);
                lines.push(Self::row(name, format!("{} by {by}", count(&of["first"]))));
            }
        }
        for hop in latency["hops"].as_array().into_iter().flatten() {
            let told = format!("{} hop {}", text(&hop["hops"]), ms(&hop["medianMs"]));
            lines.push(Line::raw(told));
        }
        for region in latency["regions"].as_array().into_iter().flatten().take(8) {
            let told = format!("region {} {}", text(&region["region"]), ms(&region["medianMs"]));
            lines.push(Line::raw(told));
        }
        let peers = self.picture["peers"]["list"].as_array().map_or(&[][..], Vec::as_slice);
        let mut slowest: Vec<&Value> = peers.iter().collect();
        let rtt = |peer: &Value| peer["rttMs"].as_f64().unwrap_or(0.0);
        slowest.sort_by(|a, b| rtt(b).total_cmp(&rtt(a)));
        for peer in slowest.into_iter().take(16) {
            lines.push(Line::raw(format!("{:<14} {}", short(peer), ms(&peer["rttMs"]))));
        }
        lines
    }
}

#[cfg(test)]
mod tests;
