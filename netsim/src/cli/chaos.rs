//! `netsim chaos`.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

use crate::chaos::{self, Options};
use crate::{Nanos, SECONDS};

/// Arguments of `netsim chaos`.
#[derive(Debug, Clone, clap::Args)]
pub struct ChaosArgs {
    /// Number of seeds to run, counting up from the first.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Simulated minutes of each run.
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    pub minutes: f64,
    /// Nodes.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(7..=1_000))]
    pub nodes: u32,
    /// Seconds in which a node that hears a quorum has what the quorum has.
    #[arg(long, default_value_t = Options::BOUND as f64 / SECONDS as f64, value_parser = positive)]
    pub bound: f64,
    /// Ends each run after so many simulated seconds; the faults stay those of all minutes.
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub until: Option<f64>,
    /// Lets only these faults of the plan happen, by number; `none` for none of them.
    #[arg(long, value_name = "NUMBERS", value_parser = numbers)]
    pub only: Option<Numbers>,
    /// Prints the faults of the plan with their numbers, and runs nothing.
    #[arg(long)]
    pub plan: bool,
}

/// Numbers of faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers(pub Vec<usize>);

fn numbers(text: &str) -> Result<Numbers, std::num::ParseIntError> {
    if text == "none" {
        return Ok(Numbers(Vec::new()));
    }
    text.split(',').map(|number| number.trim().parse()).collect::<Result<_, _>>().map(Numbers)
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1e6 => Ok(number),
        _ => Err("a number above 0 and up to a million".into()),
    }
}

fn nanos(seconds: f64) -> Nanos {
    (seconds * SECONDS as f64) as Nanos
}

impl ChaosArgs {
    fn options(&self, seed: u64) -> Options {
        Options {
            bound: nanos(self.bound),
            until: self.until.map(nanos),
            only: self.only.clone().map(|numbers| numbers.0),
            ..Options::new(seed, self.nodes, nanos(60.0 * self.minutes))
        }
    }
}

/// Runs `netsim chaos`. Returns whether every invariant held in every run.
pub(super) fn chaos(args: &ChaosArgs) -> anyhow::Result<bool> {
    let seeds = args.seed..args.seed.saturating_add(args.seeds);
    let mut out = std::io::stdout();
    if args.plan {
        for seed in seeds {
            let plan = chaos::Plan::new(seed, args.nodes, nanos(60.0 * args.minutes));
            writeln!(out, "seed {seed}: liars {:?}", plan.liars)?;
            for (number, fault) in plan.faults.iter().enumerate() {
                writeln!(out, "{number:>4}  {fault}")?;
            }
        }
        return Ok(true);
    }
    let bar = ProgressBar::new(args.seeds);
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} runs, {msg}; {elapsed} gone, {eta} left",
    )?);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    bar.set_message("0 broken");
    let start = Instant::now();
    let broken = Mutex::new(0u64);
    let outcomes: Vec<chaos::Outcome> = seeds
        .into_par_iter()
        .map(|seed| {
            let outcome = chaos::run(&args.options(seed));
            if let Some(broke) = &outcome.broken {
                let mut count = broken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                *count += 1;
                bar.set_message(format!("{count} broken"));
                bar.suspend(|| {
                    let command = outcome.options.command();
                    let _ = writeln!(std::io::stderr(), "seed {seed}: {broke}\n  {command}");
                });
            }
            bar.inc(1);
            outcome
        })
        .collect();
    bar.finish_and_clear();
    write!(out, "{}", chaos::table(&outcomes))?;
    writeln!(out, "{:<34}{:>16.1}", "seconds that it took", start.elapsed().as_secs_f64())?;
    let Some(failed) = outcomes.iter().find(|outcome| outcome.broken.is_some()) else {
        return Ok(true);
    };
    writeln!(out, "\nshrinking seed {} …", failed.options.seed)?;
    out.flush()?;
    writeln!(out, "{}", chaos::shrink(failed))?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Alone {
        #[command(flatten)]
        args: ChaosArgs,
    }

    /// The command that a failing run prints gives the same options again.
    #[test]
    fn the_printed_command_is_understood() {
        use clap::Parser as _;
        for options in [
            Options::new(7, 30, 300 * SECONDS),
            Options { only: Some(vec![]), ..Options::new(1, 8, 90 * SECONDS) },
            Options {
                until: Some(12_500_000_000),
                only: Some(vec![3, 17]),
                bound: 700_000_000,
                ..Options::new(9, 12, 60 * SECONDS)
            },
        ] {
            let command = options.command();
            let (_, arguments) = command.split_once(" -- ").expect("arguments");
            let alone = Alone::try_parse_from(arguments.split(' ')).expect("valid");
            assert_eq!(alone.args.options(options.seed), options, "{command}");
            assert_eq!(alone.args.seed, options.seed);
        }
    }
}
