//! `netsim compare` and `netsim run`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use fragcast_turbine::Profile;
use fragcast_turbine::health::State;

use super::WorldArgs;
use crate::compare::{Plan, PlanOptions, Run};
use crate::handover::HandOver;
use crate::input::loss_share;
use crate::measurement::Measurement;
use crate::outcome::Change;
use crate::report;
use crate::results::{Comparison, ORDER};
use crate::scenario::{Scenario, Shape, Shares};

/// Arguments of all commands that compare.
#[derive(Debug, Clone, clap::Args)]
pub struct CommonArgs {
    /// The world: places of nodes and delays.
    #[command(flatten)]
    pub world: WorldArgs,
    /// Leaders, drawn by weight [default: 12].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub leaders: Option<u32>,
    /// Bytes of a frag, kB (1,000 bytes) [default: 36].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub kb: Option<u32>,
    /// Share of packets lost between two hosts, 0 to 0.5 [default: 0.01].
    #[arg(long, value_parser = loss_share)]
    pub loss: Option<f64>,
    /// Uplink and downlink of every host, Mbit/s [default: 1000].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=400_000))]
    pub uplink_mbit: Option<u64>,
    /// Connections that a fragcast node holds at most [default: 1024].
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    pub connections: Option<u32>,
    /// What bandwidth is worth on fragcast's regional tree: lean (2.3 bytes sent for each byte of a
    /// message and node) or fast (3) [default: lean].
    #[arg(long, value_parser = ["lean", "fast"])]
    pub profile: Option<String>,
    /// Gives fragcast's leaders the true delays instead of letting nodes measure them: to see what
    /// measuring costs. The report says so.
    #[arg(long)]
    pub oracle: bool,
    /// Seed of everything that is drawn [default: 1].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Number of seeds to run, counting up from that one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub seeds: u64,
    /// Runs only once, without the repetition that has no factor per pair of places.
    #[arg(long)]
    pub once: bool,
    /// Runs only these protocols, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = ["fragcast", "turbine", "rotor", "gossip", "direct"])]
    pub protocols: Vec<String>,
    /// Takes the round trips that nodes measure from this file; if there is none yet, lets them
    /// measure and writes it. Runs only once, as with --once.
    #[arg(long, value_name = "FILE")]
    pub measured: Option<PathBuf>,
    /// Writes a JSON report.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Writes an HTML page with plots and a map.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Arguments of `netsim compare`.
#[derive(Debug, Clone, clap::Args)]
pub struct CompareArgs {
    /// A scenario; without one, 12 leaders send a frag of 36 kB each to 1,000 nodes.
    pub scenario: Option<PathBuf>,
    /// Common arguments.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Arguments of `netsim run`.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// The scenario.
    pub scenario: PathBuf,
    /// Common arguments.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl CommonArgs {
    /// The scenario, with the values that flags override.
    pub(super) fn scenario(&self, file: Option<&Path>) -> anyhow::Result<Scenario> {
        let mut scenario = match file {
            Some(path) => Scenario::read(path)?,
            None => Scenario::default(),
        };
        self.world.apply(&mut scenario)?;
        match (self.leaders, &scenario.network.source) {
            (Some(leaders), _) => scenario.load.leaders = leaders as usize,
            // Of ten nodes only ten can lead.
            (None, crate::topology::Source::Default { nodes }) if file.is_none() => {
                scenario.load.leaders = scenario.load.leaders.min(*nodes as usize);
            }
            _ => {}
        }
        if let Some(kb) = self.kb {
            scenario.load.frag_bytes = vec![kb * 1_000];
        }
        if let Some(loss) = self.loss {
            scenario.network.links.loss = crate::link::Loss::Independent(loss);
        }
        if let Some(mbit) = self.uplink_mbit {
            scenario.network.links.uplink_bps = mbit * 1_000_000;
            scenario.network.links.downlink_bps = mbit * 1_000_000;
        }
        if let Some(profile) = self.profile.as_deref().and_then(Profile::of_name) {
            scenario.fragcast.profile = profile;
        }
        scenario.fragcast.oracle |= self.oracle;
        if let Some(connections) = self.connections {
            scenario.fragcast.connections = connections;
        }
        if let Some(seed) = self.seed {
            scenario.seed = seed;
        }
        Ok(scenario)
    }

    pub(super) fn options(&self) -> PlanOptions {
        PlanOptions {
            protocols: self.protocols.clone(),
            seeds: self.seeds,
            repeat_plain: !self.once && self.measured.is_none(),
            ..PlanOptions::default()
        }
    }

    /// The files that are requested.
    pub(super) fn outputs(&self) -> Outputs<'_> {
        Outputs { report: self.report.as_deref(), html: self.html.as_deref() }
    }
}

/// The files that a command writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outputs<'a> {
    /// The JSON report.
    pub(super) report: Option<&'a Path>,
    /// The HTML page.
    pub(super) html: Option<&'a Path>,
}

impl Outputs<'_> {
    /// Writes the files.
    pub(super) fn write(&self, json: &serde_json::Value, page: &str) -> anyhow::Result<()> {
        if let Some(path) = self.report {
            let text = serde_json::to_string_pretty(json)? + "\n";
            std::fs::write(path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        if let Some(path) = self.html {
            std::fs::write(path, page)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Reports files that cannot be written before a long run rather than after it.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for path in [self.report, self.html].into_iter().flatten() {
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        anyhow::ensure!(
            self.report.is_none() || self.report != self.html,
            "--report and --html name the same file",
        );
        Ok(())
    }
}

/// Runs a plan with a progress bar and prints the speed.
pub(super) struct Timed {
    pub(super) runs: Vec<Run>,
    pub(super) speed: String,
}

pub(super) fn execute(plan: &Plan) -> anyhow::Result<Timed> {
    let bar = ProgressBar::new(plan.jobs() as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} runs, {msg} events, {elapsed}, {eta} left",
    )?);
    let events = AtomicU64::new(0);
    let started = Instant::now();
    let runs = plan.run(|more| {
        let all = events.fetch_add(more, Ordering::Relaxed) + more;
        bar.set_message(millions(all));
        bar.inc(1);
    });
    bar.finish_and_clear();
    let took = started.elapsed().as_secs_f64();
    let shreds: u64 = runs.iter().map(|run| run.outcome.handled).sum();
    let speed = format!(
        "{} runs, {} events, {} node-shreds in {took:.1} s: {} node-shreds a second",
        runs.len(),
        millions(events.into_inner()),
        millions(shreds),
        millions((shreds as f64 / took) as u64),
    );
    Ok(Timed { runs, speed })
}

fn millions(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..1_000_000 => format!("{:.0} k", n as f64 / 1e3),
        _ => format!("{:.1} M", n as f64 / 1e6),
    }
}

/// Runs `netsim compare`.
pub(super) fn compare(args: &CompareArgs) -> anyhow::Result<bool> {
    let scenario = args.common.scenario(args.scenario.as_deref())?;
    go(&args.common, &scenario, &args.common.options())
}

/// Runs `netsim run`.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<bool> {
    let scenario = args.common.scenario(Some(&args.scenario))?;
    let mut options = args.common.options();
    options.repeat_plain = false;
    if options.protocols.is_empty() {
        options.protocols = vec!["fragcast".into()];
    }
    go(&args.common, &scenario, &options)
}

fn go(common: &CommonArgs, scenario: &Scenario, options: &PlanOptions) -> anyhow::Result<bool> {
    common.outputs().check()?;
    let mut plan = Plan::of(scenario, options)?;
    if let Some(path) = &common.measured {
        measured(&mut plan, path)?;
    }
    let timed = execute(&plan)?;
    let mut comparison = plan.compare(&timed.runs);
    comparison.settings.push(("command".into(), command()));
    let mut out = std::io::stdout().lock();
    if !scenario.file.is_empty() {
        writeln!(out, "{}: {}\n", scenario.name, scenario.description.trim())?;
    }
    report::table::print(&mut out, &comparison, std::io::stdout().is_terminal())?;
    writeln!(out, "{}", timed.speed)?;
    if scenario.load.shape == Shape::Blocks {
        messages(&mut out, &plan, &timed.runs)?;
        changes(&mut out, &plan, &timed.runs)?;
    }
    let as_expected = expectations(&mut out, scenario, &plan, &timed.runs)?;
    out.flush()?;
    write_reports(common, &comparison)?;
    Ok(as_expected)
}

/// Reads a measurement, or makes and writes it.
fn measured(plan: &mut Plan, path: &Path) -> anyhow::Result<()> {
    let nodes = plan.worlds[0].1.len();
    let measured = if path.exists() {
        let read = Measurement::read(path);
        read.with_context(|| format!("{} is no measurement", path.display()))?
    } else {
        let made = plan.measure().context("--measured needs fragcast among the protocols")?;
        std::fs::write(path, made.to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
        made
    };
    anyhow::ensure!(
        measured.nodes() == nodes,
        "{} is of {} nodes, and here are {nodes}: name another file, which is then written",
        path.display(),
        measured.nodes(),
    );
    plan.use_measured(measured);
    Ok(())
}

fn write_reports(common: &CommonArgs, comparison: &Comparison) -> anyhow::Result<()> {
    let (json, page) = (report::json::value(comparison), report::html::page(comparison));
    common.outputs().write(&json, &page)
}

/// The command as it was given, without the program's path.
pub(super) fn command() -> String {
    std::iter::once("netsim".to_owned())
        .chain(std::env::args().skip(1))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Prints how each message of fragcast's run of blocks was delivered.
fn messages(out: &mut impl std::io::Write, plan: &Plan, runs: &[Run]) -> anyhow::Result<()> {
    let ours = |run: &&Run| run.world == 0 && plan.contenders[run.contender].name() == "fragcast";
    for run in runs.iter().filter(ours) {
        let case = &plan.cases[run.case];
        writeln!(out, "\nfragcast, message by message (seed {}):", case.seed)?;
        writeln!(
            out,
            "block attempt index kind  at, ms  leader  complete  by repair  by gossip  mean, ms  last, ms"
        )?;
        for (broadcast, completion) in case.load.broadcasts.iter().zip(&run.outcome.completions) {
            let count = completion.after.len();
            let nodes = crate::compare::counted(count, &case.load, broadcast, &case.faults);
            let mut times: Vec<u64> = nodes
                .iter()
                .map(|node| completion.after[*node as usize])
                .filter(|after| *after != crate::outcome::NEVER)
                .collect();
            times.sort_unstable();
            let repaired = nodes.iter().filter(|n| completion.repaired[**n as usize]).count();
            let gossiped = nodes.iter().filter(|n| completion.gossiped[**n as usize]).count();
            let ms = |nanos: f64| nanos / crate::MILLIS as f64;
            let mean = times.iter().sum::<u64>() as f64 / times.len().max(1) as f64;
            let last = times.last().copied().unwrap_or(0);
            writeln!(
                out,
                "{:5} {:7} {:5} {:4} {:7.0} {:>7} {:4}/{:<4} {:10} {:10} {:9.1} {:9.1}{}",
                broadcast.key.block,
                broadcast.key.attempt,
                broadcast.key.message,
                broadcast.kind.name(),
                ms(broadcast.at as f64),
                plan.worlds[0].1.nodes[broadcast.leader as usize].id,
                times.len(),
                nodes.len(),
                repaired,
                gossiped,
                ms(mean),
                ms(last as f64),
                if broadcast.expected { "" } else { "  (not expected)" },
            )?;
        }
        if let Some(told) = HandOver::of(&case.load, &case.faults, &run.outcome) {
            writeln!(out, "{told}")?;
        }
    }
    Ok(())
}

/// Prints how fragcast's nodes changed between the overlay and gossip: one row for each reason,
/// with the place and time of its first change.
fn changes(out: &mut impl std::io::Write, plan: &Plan, runs: &[Run]) -> anyhow::Result<()> {
    let ours = |run: &&Run| run.world == 0 && plan.contenders[run.contender].name() == "fragcast";
    for run in runs.iter().filter(ours).filter(|run| !run.outcome.changes.is_empty()) {
        writeln!(out, "\nfragcast, changes (seed {}):", plan.cases[run.case].seed)?;
        writeln!(out, "{:>9} {:>9}  nodes  change", "from, ms", "to, ms")?;
        let mut rows: Vec<(&Change, u64, usize)> = Vec::new();
        for change in &run.outcome.changes {
            let same = |(first, last, _): &(&Change, u64, usize)| {
                (first.from, first.to, first.reason, first.dwell)
                    == (change.from, change.to, change.reason, change.dwell)
                    && change.at - last < crate::SECONDS
            };
            match rows.iter_mut().rev().find(|row| same(row)) {
                Some(row) => (row.1, row.2) = (change.at, row.2 + 1),
                None => rows.push((change, change.at, 1)),
            }
        }
        for (change, last, nodes) in rows {
            let ms = |nanos: u64| nanos as f64 / crate::MILLIS as f64;
            let Change { at, from, to, reason, dwell, .. } = *change;
            let dwell = match to {
                State::Gossip => format!(", for {dwell} blocks at least"),
                State::Turbine | State::Probing => String::new(),
            };
            writeln!(
                out,
                "{:9.0} {:9.0} {nodes:6}  {} → {}, {}{dwell}",
                ms(at),
                ms(last),
                from.name(),
                to.name(),
                reason.describe(),
            )?;
        }
    }
    Ok(())
}

/// Compares the outcomes with the scenario's expectations.
fn expectations(
    out: &mut impl std::io::Write,
    scenario: &Scenario,
    plan: &Plan,
    runs: &[Run],
) -> anyhow::Result<bool> {
    let mut met = true;
    for name in ORDER {
        let Some(expectation) = scenario.expect.get(name) else { continue };
        if !plan.contenders.iter().any(|contender| contender.name() == name) {
            writeln!(out, "{name} did not run: what the scenario expects of it was not checked")?;
        }
        // Of several gossip meshes, each must meet the expectation.
        for (index, contender) in plan.contenders.iter().enumerate() {
            if contender.name() != name {
                continue;
            }
            for run in runs.iter().filter(|run| run.world == 0 && run.contender == index) {
                let case = &plan.cases[run.case];
                let shares = Shares::of(&run.outcome, &case.load, &case.faults);
                let mut failures = expectation.failures(&shares);
                if expectation.over_still.is_some() && run.case == 0 {
                    let options = PlanOptions { repeat_plain: false, ..PlanOptions::default() };
                    let ratio = plan.over_still(scenario, &options, runs)?.unwrap_or(f64::NAN);
                    writeln!(out, "{name}: x {ratio:.4} of the mean without faults")?;
                    failures.extend(expectation.over_still_failure(ratio));
                }
                if plan.cases.len() == 1 || !failures.is_empty() {
                    writeln!(out, "{name}: {shares}")?;
                }
                for failure in &failures {
                    met = false;
                    writeln!(
                        out,
                        "NOT AS EXPECTED, {name}, run {} of seed {} (--seed): {failure}",
                        run.case, scenario.seed,
                    )?;
                }
            }
        }
    }
    Ok(met)
}
