//! `netsim sweep`: compares at several values of one parameter.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use super::compare::{CommonArgs, command, execute};
use crate::compare::{Plan, PlanOptions};
use crate::link::Loss;
use crate::report;
use crate::results::Sweep;
use crate::scenario::{FragcastRoute, Scenario};
use crate::topology::Source;

/// The parameter that is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[non_exhaustive]
pub enum Parameter {
    /// Nodes of the default topology.
    Nodes,
    /// kB of a frag.
    Frag,
    /// Loss between two hosts, %.
    Loss,
    /// Uplink and downlink of every host, Mbit/s.
    Uplink,
    /// Code rate: coding shreds for 32 data shreds of turbine and rotor, and the least that
    /// fragcast uses where there are relays.
    CodeRate,
    /// Fanout of turbine, and of fragcast's tree.
    Fanout,
}

impl Parameter {
    const fn title(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Frag => "frag, kB",
            Self::Loss => "loss, %",
            Self::Uplink => "uplink, Mbit/s",
            Self::CodeRate => "coding shreds for 32 data shreds",
            Self::Fanout => "fanout",
        }
    }

    fn values(self) -> Vec<f64> {
        match self {
            Self::Nodes => vec![100.0, 300.0, 1_000.0, 3_000.0],
            Self::Frag => vec![4.0, 12.0, 36.0, 72.0, 144.0],
            Self::Loss => vec![0.0, 0.5, 1.0, 2.0, 5.0],
            Self::Uplink => vec![100.0, 300.0, 1_000.0, 3_000.0, 10_000.0],
            Self::CodeRate => vec![8.0, 16.0, 24.0, 32.0],
            Self::Fanout => vec![8.0, 25.0, 50.0, 100.0, 200.0, 400.0],
        }
    }

    /// The bounds of the values.
    const fn range(self) -> (f64, f64) {
        match self {
            Self::Nodes => (10.0, 10_000.0),
            Self::Frag => (1.0, 10_000.0),
            Self::Loss => (0.0, 50.0),
            Self::Uplink => (1.0, 400_000.0),
            Self::CodeRate => (1.0, 32.0),
            Self::Fanout => (1.0, 10_000.0),
        }
    }

    fn apply(self, value: f64, scenario: &mut Scenario, options: &mut PlanOptions) {
        let links = &mut scenario.network.links;
        match self {
            Self::Nodes => {
                scenario.network.source = Source::Default { nodes: value as u32 };
                scenario.load.leaders = scenario.load.leaders.min(value as usize);
            }
            Self::Frag => scenario.load.frag_bytes = vec![(value * 1_000.0) as u32],
            Self::Loss => links.loss = Loss::Independent(value / 100.0),
            Self::Uplink => {
                links.uplink_bps = (value * 1e6) as u64;
                links.downlink_bps = links.uplink_bps;
            }
            Self::CodeRate => {
                options.coding = value as u16;
                scenario.fragcast.coding = value / 32.0;
            }
            Self::Fanout => {
                scenario.turbine.fanout = value as u32;
                scenario.fragcast.fanout = value as u32;
                scenario.fragcast.route = FragcastRoute::Turbine;
            }
        }
    }
}

/// Arguments of `netsim sweep`.
#[derive(Debug, Clone, clap::Args)]
pub struct SweepArgs {
    /// The parameter that is varied.
    #[arg(value_enum)]
    pub parameter: Parameter,
    /// A scenario for all other settings.
    #[arg(long)]
    pub scenario: Option<PathBuf>,
    /// Its values in its unit (loss in %), separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub values: Vec<f64>,
    /// Common arguments.
    #[command(flatten)]
    pub common: CommonArgs,
}

pub(super) fn sweep(args: &SweepArgs) -> anyhow::Result<bool> {
    args.common.outputs().check()?;
    let parameter = args.parameter;
    let mut values = match args.values.is_empty() {
        true => parameter.values(),
        false => args.values.clone(),
    };
    let (low, high) = parameter.range();
    let bad = values.iter().find(|value| !(low..=high).contains(*value));
    if let Some(bad) = bad {
        anyhow::bail!("{bad} is no value of `{}`: {low} to {high}", parameter.title());
    }
    let whole = matches!(parameter, Parameter::Nodes | Parameter::CodeRate | Parameter::Fanout);
    if let Some(part) = values.iter().find(|value| whole && value.fract() != 0.0) {
        anyhow::bail!("{part} is no value of `{}`: a whole number is", parameter.title());
    }
    values.sort_by(f64::total_cmp);
    values.dedup();
    let base = args.common.scenario(args.scenario.as_deref())?;
    let other_world =
        !matches!(base.network.source, Source::Default { .. }) || base.network.latency.is_some();
    if parameter == Parameter::Nodes && other_world {
        anyhow::bail!("nodes can be varied in the default topology only: leave out --topology");
    }
    let mut points = Vec::with_capacity(values.len());
    let mut out = std::io::stdout().lock();
    for value in values {
        let mut scenario = base.clone();
        // One table for each value: a sweep shows the effect of its parameter, not of the factor.
        let mut options = PlanOptions { repeat_plain: false, ..args.common.options() };
        parameter.apply(value, &mut scenario, &mut options);
        let plan = Plan::of(&scenario, &options)?;
        let timed = execute(&plan)?;
        writeln!(out, "{} = {value}: {}", parameter.title(), timed.speed)?;
        out.flush()?;
        let mut comparison = plan.compare(&timed.runs);
        comparison.settings.push(("command".into(), command()));
        points.push((value, comparison));
    }
    let sweep = Sweep { parameter: parameter.title().into(), points };
    report::sweep::table(&mut out, &sweep, std::io::stdout().is_terminal())?;
    let (json, page) = (report::sweep::json(&sweep), report::sweep::page(&sweep));
    args.common.outputs().write(&json, &page)?;
    Ok(true)
}
