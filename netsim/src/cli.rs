//! The command line of `netsim`.
//!
//! Exit codes: 0, 1 if an expectation of a scenario was not met or a validation failed, 2 for
//! wrong input.

mod compare;
mod real;
mod sweep;
mod world;

pub use compare::{CompareArgs, RunArgs};
pub use real::{EmulateCommand, ValidateCommand};
pub use sweep::{Parameter, SweepArgs};
pub use world::{FitArgs, WorldArgs};

/// How fast would this reach everyone?
#[derive(Debug, clap::Parser)]
#[command(
    name = "netsim",
    version,
    about,
    max_term_width = 100,
    after_help = "Exit codes: 0; 1 if an expectation or a validation failed; 2 for wrong input."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Ours beside turbine, rotor, gossip, direct sending and the physical limit.
    Compare(CompareArgs),
    /// Ours alone, in a scenario: what became of it, and whether that is what its file expects.
    Run(RunArgs),
    /// A comparison for several values of one parameter: a curve for each protocol.
    Sweep(SweepArgs),
    /// Real `fragcast` nodes on this machine, over links with a world's delays, in real time.
    Emulate(EmulateCommand),
    /// Real nodes against the virtual-time run of the same network.
    Validate(ValidateCommand),
    /// Fits the model of delays by distance to a matrix of measured round trips.
    Fit(FitArgs),
}

/// Does it; whether everything was as expected.
///
/// # Errors
/// Input that is wrong, or output that cannot be written.
pub fn run(cli: Cli) -> anyhow::Result<bool> {
    match cli.command {
        Command::Compare(args) => compare::compare(&args),
        Command::Run(args) => compare::run(&args),
        Command::Sweep(args) => sweep::sweep(&args),
        Command::Emulate(args) => real::emulate(&args),
        Command::Validate(args) => real::validate(&args),
        Command::Fit(args) => world::fit(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
