//! The command line of `netsim`.
//!
//! Exit codes: 0 for success, 1 if an expectation of a scenario was not met, a validation failed or
//! an invariant broke, 2 for wrong input.

mod chaos;
mod compare;
mod plan;
mod real;
mod sweep;
mod table;
mod world;

pub use chaos::{ChaosArgs, Numbers};
pub use compare::{CompareArgs, RunArgs};
pub use plan::PlanArgs;
pub use real::{EmulateCommand, ValidateCommand};
pub use sweep::{Parameter, SweepArgs};
pub use table::TableArgs;
pub use world::{FitArgs, WorldArgs};

/// Simulates how fast a message reaches every node.
#[derive(Debug, clap::Parser)]
#[command(
    name = "netsim",
    version,
    about,
    max_term_width = 100,
    after_help = "Exit codes: 0; 1 if an expectation, a validation or an invariant failed; 2 for \
                  wrong input."
)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Compares fragcast with turbine, rotor, gossip, direct sending and the physical limit.
    Compare(CompareArgs),
    /// Runs fragcast alone in a scenario and checks the expectations of its file.
    Run(RunArgs),
    /// Shows what fragcast's leaders plan, what they expect of it, and what became of it in a run.
    Plan(PlanArgs),
    /// Compares at several values of one parameter and draws a curve for each protocol.
    Sweep(SweepArgs),
    /// Compares on every combination of networks, sizes, uplinks and losses, and says where fragcast
    /// is not the fastest.
    Table(TableArgs),
    /// Runs fragcast under random faults and liars, and checks invariants all the time.
    Chaos(ChaosArgs),
    /// Runs real `fragcast` nodes on this machine in real time, over links with a world's delays.
    Emulate(EmulateCommand),
    /// Compares real nodes with the run of the same network in virtual time.
    Validate(ValidateCommand),
    /// Fits the model of delays by distance to a matrix of measured round trips.
    Fit(FitArgs),
}

/// Runs the command. Returns whether everything was as expected.
///
/// # Errors
/// The input is wrong, or the output cannot be written.
pub fn run(cli: Cli) -> anyhow::Result<bool> {
    match cli.command {
        Command::Compare(args) => compare::compare(&args),
        Command::Run(args) => compare::run(&args),
        Command::Plan(args) => plan::plan(&args),
        Command::Sweep(args) => sweep::sweep(&args),
        Command::Table(args) => table::table(&args),
        Command::Chaos(args) => chaos::chaos(&args),
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
