//! The program `netsim`. The library documents it.

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    let cli = netsim::cli::Cli::parse();
    match netsim::cli::run(cli) {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(error) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            std::process::ExitCode::from(2)
        }
    }
}
