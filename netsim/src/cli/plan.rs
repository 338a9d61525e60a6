//! `netsim plan`: what leaders plan, with what the cost model expects, beside what came of it.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use fragcast_turbine::planner::Shape;

use super::compare::{CommonArgs, execute};
use crate::compare::{Plan, PlanOptions, counted};

/// Arguments of `netsim plan`.
#[derive(Debug, Clone, clap::Args)]
pub struct PlanArgs {
    /// A scenario; without one, 12 leaders send a frag of 36 kB each to 1,000 nodes.
    pub scenario: Option<PathBuf>,
    /// Common arguments.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The shape for messages of `len` bytes.
fn shape_for(shapes: &[Shape], len: usize) -> Option<&Shape> {
    shapes.iter().find(|shape| len <= shape.longest)
}

/// Runs `netsim plan`.
pub(super) fn plan(args: &PlanArgs) -> anyhow::Result<bool> {
    let scenario = args.common.scenario(args.scenario.as_deref())?;
    let delays = if scenario.fragcast.oracle { "given" } else { "as the nodes measured them" };
    let options = PlanOptions {
        protocols: vec!["fragcast".into()],
        repeat_plain: false,
        ..args.common.options()
    };
    let plan = Plan::of(&scenario, &options)?;
    let runs = execute(&plan)?.runs;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "The delays are {delays}. A row a message; ms; the estimate is for the length that is \
         planned for.\n\n{:>12} {:>7} {:>8} {:>7} {:>9} {:>6} {:>9} {:>8} {:>9} {:>8} {:>6} {:>8}",
        "leader",
        "kB",
        "planning",
        "regions",
        "route",
        "roots",
        "estimate",
        "outcome",
        "estim p99",
        "p99",
        "off, %",
        "bytes"
    )?;
    for run in runs.iter().filter(|run| run.world == 0) {
        let Some(job) = plan.planning_job(run.contender, run.case) else { continue };
        let started = Instant::now();
        let Some(draft) = job.run() else { continue };
        let took = started.elapsed();
        let case = &plan.cases[run.case];
        let regions = draft.contents.entries.iter().map(|entry| entry.region).max();
        for (broadcast, completion) in case.load.broadcasts.iter().zip(&run.outcome.completions) {
            let Some(shape) = shape_for(&draft.shapes, broadcast.bytes as usize) else { continue };
            let nodes = counted(completion.after.len(), &case.load, broadcast, &case.faults);
            let mut times: Vec<f64> =
                nodes.iter().map(|node| completion.after[*node as usize] as f64 / 1e6).collect();
            times.sort_by(f64::total_cmp);
            let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
            let p99 = times.get(times.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(0.0);
            let estimate = shape.estimate();
            let expected = estimate.mean_micros / 1e3;
            writeln!(
                out,
                "{:>12} {:7.1} {:8.0} {:7} {:>9} {:6} {:9.2} {:8.2} {:9.2} {:8.2} {:6.1} {:8.2}",
                plan.worlds[0].1.nodes[broadcast.leader as usize].id,
                f64::from(broadcast.bytes) / 1e3,
                took.as_secs_f64() * 1e3,
                regions.map_or(0, |last| last + 1),
                shape.route().name(),
                shape.roots,
                expected,
                mean,
                estimate.p99_micros / 1e3,
                p99,
                (expected / mean - 1.0) * 100.0,
                estimate.bytes_per_byte,
            )?;
        }
    }
    Ok(true)
}
