//! Makes a failing run smaller: fewer faults, and no longer than it takes to fail.
//!
//! Faults are dropped in ever smaller groups for as long as the same invariant breaks (the
//! delta debugging of Zeller and Hildebrandt, 2002). The numbers that are left name faults of
//! the seed's plan, so a command line repeats the smaller run.

use super::{Broken, Options, Outcome, Plan, run};
use crate::{Nanos, SECONDS};

/// Runs that shrinking may take.
const MAX_RUNS: usize = 80;
/// What a run may go on after its failure.
const REST: Nanos = SECONDS;

/// A failing run, made smaller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    /// The run.
    pub options: Options,
    /// What breaks in it.
    pub broken: Broken,
    /// How many runs it took.
    pub runs: usize,
}

impl Shrunk {
    /// The faults that are left.
    pub fn plan(&self) -> Plan {
        let Options { seed, nodes, planned, .. } = self.options;
        Plan::new(seed, nodes, planned).only(self.options.only.as_deref().unwrap_or_default())
    }
}

impl std::fmt::Display for Shrunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plan = self.plan();
        writeln!(f, "{}", self.broken)?;
        writeln!(f, "liars {:?}; {} faults are enough:", plan.liars, plan.faults.len())?;
        plan.faults.iter().try_for_each(|fault| writeln!(f, "  {fault}"))?;
        write!(f, "  {}", self.options.command())
    }
}

/// Makes a run smaller in which an invariant broke.
///
/// # Panics
/// If none did.
pub fn shrink(failed: &Outcome) -> Shrunk {
    let broken = failed.broken.clone().expect("only failing runs can be shrunk");
    let faults =
        Plan::new(failed.options.seed, failed.options.nodes, failed.options.planned).faults;
    let kept: Vec<usize> = match &failed.options.only {
        Some(only) => only.clone(),
        None => (0..faults.len()).collect(),
    };
    // What begins after the failure had no part in it.
    let before = kept.into_iter().filter(|n| faults.get(*n).is_some_and(|f| f.at <= broken.at));
    let mut best = Shrunk {
        options: Options {
            only: Some(before.collect()),
            until: Some(broken.at + REST),
            ..failed.options.clone()
        },
        broken,
        runs: 0,
    };
    let mut groups = 1;
    loop {
        let now = best.options.only.clone().unwrap_or_default();
        let size = now.len().div_ceil(groups).max(1);
        let smaller = now.chunks(size).find_map(|group| {
            if best.runs >= MAX_RUNS {
                return None;
            }
            best.runs += 1;
            let rest: Vec<usize> = now.iter().filter(|n| !group.contains(n)).copied().collect();
            let options = Options { only: Some(rest), ..best.options.clone() };
            let broken = run(&options).broken?;
            (broken.invariant == best.broken.invariant).then_some((options, broken))
        });
        match smaller {
            Some((mut options, broken)) => {
                options.until = Some(broken.at + REST);
                (best.options, best.broken) = (options, broken);
                groups = groups.saturating_sub(1).max(1);
            }
            None if size <= 1 || best.runs >= MAX_RUNS => return best,
            None => groups = (2 * groups).min(now.len()),
        }
        if best.options.only.as_ref().is_some_and(Vec::is_empty) {
            return best;
        }
    }
}
