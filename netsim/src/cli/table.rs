//! `netsim table`: compares on every combination of networks, sizes, uplinks and losses.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::builder::NonEmptyStringValueParser;
use fragcast_turbine::Profile;
use indicatif::{ProgressBar, ProgressStyle};

use super::WorldArgs;
use super::compare::{Outputs, command};
use crate::input::{file_name, gib, kilobytes, loss_share, pair_factor};
use crate::report;
use crate::results::Survey;
use crate::scenario::{self, Scenario};
use crate::survey::{self, Network, Plan};
use crate::topology::Source;

/// The sizes of the built-in network without `--nodes`.
const NODES: [u32; 3] = [50, 200, 1_000];
/// Bytes of a frag without `--kb`.
const SIZES: [u32; 3] = [3_600, 36_000, 144_000];
/// Leaders without `--leaders` and a scenario.
const LEADERS: usize = 3;
/// Parts of the progress bar that a unit of cost has.
const PARTS: f64 = 100.0;

/// Arguments of `netsim table`. Values of lists are separated by commas.
#[derive(Debug, Clone, clap::Args)]
pub struct TableArgs {
    /// A network: a CSV file, AWS regions with counts, or `default`, the cities of the world. May be
    /// repeated, also together with --latency [default: default].
    #[arg(long, value_name = "CSV|REGIONS", value_parser = NonEmptyStringValueParser::new())]
    pub topology: Vec<String>,
    /// A network of 30 nodes in each of the AWS regions of a file (cloudping's JSON). May be
    /// repeated.
    #[arg(long, value_name = "JSON")]
    pub latency: Vec<PathBuf>,
    /// Nodes of the default topology, 10 to 10,000 each [default: 50,200,1000].
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(10..=10_000))]
    pub nodes: Vec<u32>,
    /// Bytes of a frag, kB (1,000 bytes), 0.2 to 10,000 each [default: 3.6,36,144].
    #[arg(long, value_delimiter = ',', value_parser = kilobytes)]
    pub kb: Vec<u32>,
    /// Uplinks and downlinks of every host, Mbit/s [default: 1000].
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=400_000))]
    pub uplink_mbit: Vec<u64>,
    /// Shares of packets lost between two hosts, 0 to 0.5 each [default: 0.01].
    #[arg(long, value_delimiter = ',', value_parser = loss_share)]
    pub loss: Vec<f64>,
    /// What bandwidth is worth on fragcast's regional tree: lean, fast, or both beside one another
    /// [default: lean].
    #[arg(long, value_delimiter = ',', value_parser = ["lean", "fast"])]
    pub profile: Vec<String>,
    /// Runs only these protocols.
    #[arg(long, value_delimiter = ',', value_parser = ["fragcast", "turbine", "rotor", "gossip", "direct"])]
    pub protocols: Vec<String>,
    /// Leaders of each row, drawn by weight [default: 3].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub leaders: Option<u32>,
    /// Standard deviation of the factor of a pair of places; 0: none [default: 0.12].
    #[arg(long, value_name = "SIGMA", value_parser = pair_factor)]
    pub pair_factor: Option<f64>,
    /// Connections that a fragcast node holds at most [default: 1024].
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    pub connections: Option<u32>,
    /// Gives fragcast's leaders the true delays instead of letting nodes measure them. The report
    /// says so.
    #[arg(long)]
    pub oracle: bool,
    /// Seed of everything that is drawn [default: 1].
    #[arg(long)]
    pub seed: Option<u64>,
    /// A scenario for all other settings.
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// Memory that runs may take together, GiB [default: what is free].
    #[arg(long, value_name = "GIB", value_parser = gib)]
    pub memory: Option<u64>,
    /// Writes a JSON report.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Writes an HTML page.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// A list in rising order without repetitions, or the values that it has if it is empty.
fn list<T: Ord + Clone>(given: &[T], otherwise: impl FnOnce() -> Vec<T>) -> Vec<T> {
    let mut values = if given.is_empty() { otherwise() } else { given.to_vec() };
    values.sort();
    values.dedup();
    values
}

impl TableArgs {
    /// What is to be run.
    ///
    /// # Errors
    /// The scenario or a topology is wrong, or flags contradict each other.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        let mut scenario = match &self.scenario {
            Some(path) => Scenario::read(path)?,
            None => {
                let mut scenario = Scenario::default();
                scenario.load.leaders = LEADERS;
                scenario
            }
        };
        if let Some(seed) = self.seed {
            scenario.seed = seed;
        }
        if let Some(connections) = self.connections {
            scenario.fragcast.connections = connections;
        }
        scenario.fragcast.oracle |= self.oracle;
        let runs_fragcast =
            self.protocols.is_empty() || self.protocols.iter().any(|name| name == "fragcast");
        anyhow::ensure!(
            runs_fragcast || self.profile.is_empty(),
            "--profile is fragcast's, which --protocols leaves out",
        );
        let profiles = match self.profile.is_empty() {
            true => vec![scenario.fragcast.profile],
            // In the order of all profiles, each once.
            false => Profile::ALL
                .into_iter()
                .filter(|profile| self.profile.iter().any(|name| name == profile.name()))
                .collect(),
        };
        let from_file = self.scenario.is_some();
        let sizes = || if from_file { scenario.load.frag_bytes.clone() } else { SIZES.to_vec() };
        let uplink = || vec![scenario.network.links.uplink_bps];
        let uplinks: Vec<u64> = self.uplink_mbit.iter().map(|mbit| mbit * 1_000_000).collect();
        let mut losses = self.loss.clone();
        losses.sort_by(f64::total_cmp);
        losses.dedup();
        Ok(Plan {
            networks: self.networks(&scenario)?,
            sizes: list(&self.kb, sizes),
            uplinks: list(&uplinks, uplink),
            losses,
            profiles,
            protocols: self.protocols.clone(),
            leaders: self.leaders.map(|leaders| leaders as usize),
            memory: self.memory.or_else(survey::free),
            scenario,
        })
    }

    /// The networks in the order of the flags: topologies, then matrices.
    fn networks(&self, scenario: &Scenario) -> anyhow::Result<Vec<Network>> {
        let with = |args: WorldArgs| -> anyhow::Result<scenario::Network> {
            let mut scenario = scenario.clone();
            WorldArgs { pair_factor: self.pair_factor, ..args }.apply(&mut scenario)?;
            Ok(scenario.network)
        };
        let mut given = Vec::new();
        if self.topology.is_empty() && self.latency.is_empty() {
            given.push(with(WorldArgs::default())?);
        }
        for topology in &self.topology {
            given.push(with(WorldArgs { topology: Some(topology.clone()), ..Default::default() })?);
        }
        for path in &self.latency {
            given.push(with(WorldArgs { latency: Some(path.clone()), ..Default::default() })?);
        }
        let built_in = |network: &scenario::Network| {
            matches!(network.source, Source::Default { .. }) && network.latency.is_none()
        };
        anyhow::ensure!(
            self.nodes.is_empty() || given.iter().any(built_in),
            "--nodes is for the built-in cities: add --topology default; a file or a list of \
             regions says how many nodes there are",
        );
        let mut networks: Vec<Network> = Vec::new();
        for network in given {
            let name = name(&network);
            let sizes = match (built_in(&network), self.scenario.is_some(), &network.source) {
                (false, ..) => Vec::new(),
                (true, true, Source::Default { nodes }) => list(&self.nodes, || vec![*nodes]),
                (true, ..) => list(&self.nodes, || NODES.to_vec()),
            };
            let sized = sizes.into_iter().map(|nodes| scenario::Network {
                source: Source::Default { nodes },
                ..network.clone()
            });
            let all: Vec<scenario::Network> =
                if built_in(&network) { sized.collect() } else { vec![network] };
            for network in all {
                let network = Network { name: name.clone(), network };
                if !networks.contains(&network) {
                    networks.push(network);
                }
            }
        }
        Ok(networks)
    }
}

/// A short name of a network: its file's, without folder and ending.
fn name(network: &scenario::Network) -> String {
    let stem = |path: &Path| {
        let name = file_name(path);
        name.rsplit_once('.').map_or(name.clone(), |(stem, _)| stem.to_owned())
    };
    let latency = network.latency.as_deref().map(stem);
    match (&network.source, latency) {
        (Source::Default { .. }, Some(latency)) => latency,
        (Source::Default { .. }, None) => "cities".into(),
        (Source::Csv(path), None) => stem(path),
        (Source::Csv(path), Some(latency)) => format!("{}, {latency}", stem(path)),
        (Source::Regions(counts), latency) => {
            let latency = latency.map_or_else(String::new, |latency| format!(", {latency}"));
            format!("{} regions{latency}", counts.len())
        }
    }
}

/// Runs `netsim table`.
pub(super) fn table(args: &TableArgs) -> anyhow::Result<bool> {
    let outputs = Outputs { report: args.report.as_deref(), html: args.html.as_deref() };
    outputs.check()?;
    let plan = args.plan()?;
    let cells = plan.cells()?;
    let total: f64 = cells.iter().map(|cell| cell.cost() as f64 * PARTS).sum();
    let bar = ProgressBar::new(total as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {percent} %, row {msg}, {elapsed}, {eta} left",
    )?);
    let mut out = std::io::stdout().lock();
    let mut rows = Vec::with_capacity(cells.len());
    let mut before = 0.0;
    for (i, cell) in cells.iter().enumerate() {
        bar.set_message(format!("{} of {}", i + 1, cells.len()));
        let (started, cost) = (Instant::now(), cell.cost() as f64 * PARTS);
        let row = plan.row(cell, |share| bar.inc((share * cost) as u64))?;
        before += cost;
        // Shares are rounded.
        bar.set_position(before as u64);
        let (line, took) = (report::survey::line(&row), started.elapsed().as_secs_f64());
        bar.suspend(|| writeln!(out, "{}/{} {line} ({took:.1} s)", i + 1, cells.len()))?;
        out.flush()?;
        rows.push(row);
    }
    bar.finish_and_clear();
    let survey = Survey::of(rows, vec![("command".into(), command())]);
    writeln!(out)?;
    report::survey::table(&mut out, &survey, std::io::stdout().is_terminal())?;
    out.flush()?;
    outputs.write(&report::survey::json(&survey), &report::survey::page(&survey))?;
    Ok(true)
}

#[cfg(test)]
mod tests;
