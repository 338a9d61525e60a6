//! The binary `fragcast`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match fragcast::cli::Cli::parse().execute() {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            // Nothing more can be done if even that fails.
            let _ = writeln!(std::io::stderr(), "error: {}", fragcast::cli::told(&error));
            ExitCode::FAILURE
        }
    }
}
