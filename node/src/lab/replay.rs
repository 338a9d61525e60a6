//! `fragcast replay`: recorded blocks and blockchain tests, cut into frags and replayed.
//!
//! The gateway's side executes each block to make its Seal. Offline, a follower behind a lossy pipe
//! executes what arrives. A block passes only if the follower's hash is the one in the *file*;
//! blocks that a suite calls invalid must be refused. Withdrawals, which no message carries, reach
//! each executor beside the messages. [`case`] says what is expected, [`drive`] is the part that
//! all followers share, [`offline`] the follower without a network.

pub mod case;
pub mod content;
pub mod drive;
pub mod offline;
pub mod online;
pub mod report;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use fragcast_shredder::Dialect;
use indicatif::{ProgressBar, ProgressStyle};

use self::drive::Cut;
use self::offline::OfflineOptions;
use crate::config::RouteName;

/// Arguments of `fragcast replay`.
#[derive(Debug, Clone, clap::Args)]
pub struct ReplayArgs {
    /// Recorded blocks or ethereum/tests: .json, .json.gz, folders or .tar.gz of such.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Nodes in all.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=200))]
    pub nodes: u16,
    /// Share of shreds that every sender throws away, 0 to 0.3.
    #[arg(long, default_value_t = 0.0, value_parser = super::loss)]
    pub loss: f64,
    /// Transactions of a frag.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pub txs_per_frag: u16,
    /// `v0` or `v0-blob`.
    #[arg(long, default_value_t)]
    pub dialect: Dialect,
    /// Route of the leader: auto, direct, turbine or rotor.
    #[arg(long, default_value_t = RouteName::Turbine)]
    pub route: RouteName,
    /// Without a network: shred, lose, reassemble, verify and execute.
    #[arg(long)]
    pub offline: bool,
    /// Seed of the losses.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Writes a JSON report.
    #[arg(long)]
    pub report: Option<PathBuf>,
}

impl ReplayArgs {
    const fn offline_options(&self) -> OfflineOptions {
        let cut = Cut { txs_per_frag: self.txs_per_frag as usize, dialect: self.dialect };
        OfflineOptions { cut, loss: self.loss, seed: self.seed }
    }
}

/// Runs the command and returns the exit code.
///
/// # Errors
/// Something could not be read, set up or written.
pub async fn run(args: ReplayArgs) -> anyhow::Result<i32> {
    let begin = Instant::now();
    let bar = ProgressBar::no_length();
    let template = "{spinner} {pos} blocks  {elapsed}  {msg}";
    bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
    let (copy, tick) = (args.clone(), bar.clone());
    let report = if args.offline {
        let options = args.offline_options();
        tokio::task::spawn_blocking(move || offline::run(&copy.files, &options, &tick)).await?
    } else {
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || online::run(&copy, runtime, &tick)).await?
    };
    bar.finish_and_clear();
    let mut report = report?;
    report.took = begin.elapsed();
    if report.rows.is_empty() {
        bail!("no blocks were found: give recorded blocks or ethereum/tests");
    }
    report.write(&mut std::io::stdout().lock())?;
    if let Some(path) = &args.report {
        let text = serde_json::to_string_pretty(&report.to_json())? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(i32::from(!report.is_good()))
}

#[cfg(test)]
mod tests;
