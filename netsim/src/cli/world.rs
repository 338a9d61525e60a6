//! Flags for the places of nodes, and `netsim fit`.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::input::pair_factor;
use crate::latency::RttMatrix;
use crate::scenario::Scenario;
use crate::topology::{Source, parse_regions};

/// Arguments for the places of nodes and the delays between them.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct WorldArgs {
    /// A CSV file (id,weight,latitude,longitude), AWS regions with counts
    /// (us-east-1:30,eu-central-1:50), or `default`: cities of the world.
    #[arg(long, value_name = "CSV|REGIONS")]
    pub topology: Option<String>,
    /// Median round trips between AWS regions (cloudping's JSON). Without --topology: 30 nodes in
    /// each of its regions.
    #[arg(long, value_name = "JSON")]
    pub latency: Option<PathBuf>,
    /// The same at the 90th percentile: delays then vary from run to run.
    #[arg(long, value_name = "JSON", requires = "latency")]
    pub latency_p90: Option<PathBuf>,
    /// Nodes of the default topology, 10 to 10,000 [default: 1000]; emulation takes 30 at most.
    #[arg(long, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    pub nodes: Option<u32>,
    /// Standard deviation of the factor of a pair of places; 0: none [default: 0.12].
    #[arg(long, value_name = "SIGMA", value_parser = pair_factor)]
    pub pair_factor: Option<f64>,
}

impl WorldArgs {
    /// Overrides the network of a scenario.
    ///
    /// # Errors
    /// A region is unknown, or flags contradict each other.
    pub fn apply(&self, scenario: &mut Scenario) -> anyhow::Result<()> {
        let network = &mut scenario.network;
        match self.topology.as_deref() {
            None => {}
            Some("default") => network.source = Source::Default { nodes: 1_000 },
            // An existing file takes precedence over a list of regions.
            Some(text) if text.contains(':') && !PathBuf::from(text).exists() => {
                network.source = Source::Regions(parse_regions(text)?);
            }
            Some(name) if crate::geo::region(name).is_some() => {
                anyhow::bail!("how many nodes are in {name}? Write --topology {name}:30");
            }
            Some(path) => network.source = Source::Csv(path.into()),
        }
        if let Some(path) = &self.latency {
            network.latency = Some(path.clone());
        }
        if let Some(path) = &self.latency_p90 {
            network.latency_p90 = Some(path.clone());
        }
        if let Some(nodes) = self.nodes {
            anyhow::ensure!(
                matches!(network.source, Source::Default { .. }) && network.latency.is_none(),
                "--nodes is for the built-in cities: leave out --latency, and any --topology but \
                 `default`; a file or a list of regions says how many nodes there are",
            );
            network.source = Source::Default { nodes };
        }
        if let Some(factor) = self.pair_factor {
            network.pair_factor = factor;
        }
        Ok(())
    }
}

/// Arguments of `netsim fit`.
#[derive(Debug, Clone, clap::Args)]
pub struct FitArgs {
    /// Median round trips between AWS regions (cloudping's JSON).
    #[arg(long, value_name = "JSON")]
    pub latency: PathBuf,
}

/// Runs `netsim fit`: fits the model and prints its error.
pub(super) fn fit(args: &FitArgs) -> anyhow::Result<bool> {
    let matrix = RttMatrix::load(&args.latency)?;
    let fit = crate::geo::fit(&matrix)
        .context("the file has fewer than two regions whose coordinates are known")?;
    writeln!(std::io::stdout(), "{fit}")?;
    Ok(true)
}
