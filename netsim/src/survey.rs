//! Surveys: the same comparison on every combination of networks, sizes, uplinks and losses.
//!
//! ```text
//! Plan: networks × sizes × uplinks × losses ─▶ Cell ─▶ (compare::Plan) ─▶ SurveyRow
//! ```
//!
//! Cells are run one after another, each on all threads, so that one world is in memory at a time
//! and of a run no more than its row stays. Where memory is short for that many runs at once, a cell
//! has fewer threads; results do not depend on them.

use std::collections::BTreeMap;

use fragcast_turbine::Profile;

use crate::compare::{self, PlanError, PlanOptions};
use crate::link::Loss;
use crate::results::{LIMIT, Protocol, SurveyRow, is_ours};
use crate::scenario::{self, Scenario};
use crate::topology;

mod memory;

pub use memory::{free, of_run};

/// A network of a survey.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Its name in tables.
    pub name: String,
    /// Its nodes and delays. Links are those of the cell.
    pub network: scenario::Network,
}

/// What a survey runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// All other settings.
    pub scenario: Scenario,
    /// The networks.
    pub networks: Vec<Network>,
    /// Bytes of a frag.
    pub sizes: Vec<u32>,
    /// Bits per second of every uplink and downlink.
    pub uplinks: Vec<u64>,
    /// Loss between two hosts. Empty: that of the scenario, which may be bursty.
    pub losses: Vec<f64>,
    /// Fragcast's profiles. With more than one, each is a protocol of its own: `fragcast-lean`.
    pub profiles: Vec<Profile>,
    /// Names of the protocols to run. Empty: all.
    pub protocols: Vec<String>,
    /// Number of leaders. `None`: the scenario's, or all nodes if these are fewer.
    pub leaders: Option<usize>,
    /// The most bytes that all runs of a cell may take together. `None`: no bound.
    pub memory: Option<u64>,
}

/// A combination, one row of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// Index of the network.
    pub network: usize,
    /// Number of its nodes.
    pub nodes: usize,
    /// Bytes of a frag.
    pub bytes: u32,
    /// Bits per second of every uplink and downlink.
    pub uplink_bps: u64,
    /// Loss between two hosts.
    pub loss: Loss,
}

impl Cell {
    /// What the cell costs beside others, roughly: packets that nodes handle.
    pub fn cost(&self) -> u64 {
        // Measuring, and the packets that a message of any size takes.
        self.nodes as u64 * (40 + u64::from(self.bytes) / 1_000)
    }
}

/// Why a survey cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    /// A network has no plan.
    #[error("{network}: {error}")]
    Plan {
        /// The network.
        network: String,
        /// The reason.
        error: PlanError,
    },
    /// A run would not fit into the memory.
    #[error(
        "{network}: a run of {nodes} nodes with frags of {kb} kB takes about {needed:.1} GiB, and \
         {given:.1} GiB may be used; leave out that network or that size, or give more with \
         --memory"
    )]
    Memory {
        /// The network.
        network: String,
        /// Number of its nodes.
        nodes: usize,
        /// The size, kB.
        kb: f64,
        /// GiB that a run takes.
        needed: f64,
        /// GiB that it may take.
        given: f64,
    },
    /// There are no rows.
    #[error("nothing to run: {0}")]
    Nothing(&'static str),
    /// The threads of a cell could not be started.
    #[error("cannot start threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

const GIB: f64 = (1u64 << 30) as f64;

impl Plan {
    /// All combinations: by network, then size, uplink and loss. Builds every network once, one at a
    /// time, so that an error in any of them is known before the first run.
    ///
    /// # Errors
    /// [`SurveyError`].
    pub fn cells(&self) -> Result<Vec<Cell>, SurveyError> {
        for (is_empty, what) in [
            (self.networks.is_empty(), "no network"),
            (self.sizes.is_empty(), "no size of a frag"),
            (self.uplinks.is_empty(), "no uplink"),
            (self.profiles.is_empty(), "no profile"),
        ] {
            if is_empty {
                return Err(SurveyError::Nothing(what));
            }
        }
        let losses = match self.losses.is_empty() {
            true => vec![self.scenario.network.links.loss],
            false => self.losses.iter().map(|share| Loss::Independent(*share)).collect(),
        };
        let mut cells = Vec::new();
        for (index, network) in self.networks.iter().enumerate() {
            let nodes = self.nodes(network)?;
            for bytes in &self.sizes {
                self.check_memory(network, nodes, *bytes)?;
                for uplink_bps in &self.uplinks {
                    cells.extend(losses.iter().map(|loss| Cell {
                        network: index,
                        nodes,
                        bytes: *bytes,
                        uplink_bps: *uplink_bps,
                        loss: *loss,
                    }));
                }
            }
        }
        Ok(cells)
    }

    /// The number of nodes of a network that can be built and whose leaders can be drawn.
    fn nodes(&self, network: &Network) -> Result<usize, SurveyError> {
        let told = |error: PlanError| SurveyError::Plan { network: network.name.clone(), error };
        let mut scenario = self.scenario.clone();
        scenario.network = network.network.clone();
        let built = topology::build(&scenario.world()).map_err(|error| told(error.into()))?;
        let nodes = built.world.len();
        scenario.load.leaders = self.leaders_of(nodes);
        scenario.load(&built.world).map_err(|error| told(error.into()))?;
        Ok(nodes)
    }

    /// Whether a protocol runs.
    fn has(&self, name: &str) -> bool {
        self.protocols.is_empty() || self.protocols.iter().any(|known| known == name)
    }

    fn leaders_of(&self, nodes: usize) -> usize {
        self.leaders.unwrap_or_else(|| self.scenario.load.leaders.min(nodes))
    }

    fn check_memory(&self, network: &Network, nodes: usize, bytes: u32) -> Result<(), SurveyError> {
        let needed = of_run(nodes, bytes, self.has("fragcast"));
        match self.memory {
            Some(given) if given < needed => Err(SurveyError::Memory {
                network: network.name.clone(),
                nodes,
                kb: f64::from(bytes) / 1_000.0,
                needed: needed as f64 / GIB,
                given: given as f64 / GIB,
            }),
            _ => Ok(()),
        }
    }

    /// The scenario of a cell.
    fn scenario(&self, cell: &Cell, profile: Profile) -> Scenario {
        let mut scenario = self.scenario.clone();
        let links = crate::link::LinkConfig {
            uplink_bps: cell.uplink_bps,
            downlink_bps: cell.uplink_bps,
            loss: cell.loss,
            ..scenario.network.links
        };
        scenario.network =
            scenario::Network { links, ..self.networks[cell.network].network.clone() };
        scenario.load.frag_bytes = vec![cell.bytes];
        scenario.load.leaders = self.leaders_of(cell.nodes);
        scenario.fragcast.profile = profile;
        scenario
    }

    /// Runs a cell. After each run `progress` gets the share of the cell that it was.
    ///
    /// # Errors
    /// [`SurveyError`].
    pub fn row(
        &self,
        cell: &Cell,
        progress: impl Fn(f64) + Sync,
    ) -> Result<SurveyRow, SurveyError> {
        let network = &self.networks[cell.network];
        let mut plans = Vec::new();
        for (i, profile) in self.profiles.iter().enumerate() {
            let options = PlanOptions {
                // Peers do not have profiles and run once.
                protocols: if i == 0 { self.protocols.clone() } else { vec!["fragcast".into()] },
                repeat_plain: false,
                ..PlanOptions::default()
            };
            if i == 0 || self.has("fragcast") {
                let plan = compare::Plan::of(&self.scenario(cell, *profile), &options);
                let told = |error| SurveyError::Plan { network: network.name.clone(), error };
                plans.push((profile, plan.map_err(told)?));
            }
        }
        let jobs: usize = plans.iter().map(|(_, plan)| plan.jobs()).sum();
        let share = 1.0 / jobs.max(1) as f64;
        let mut row = SurveyRow {
            network: network.name.clone(),
            nodes: cell.nodes,
            bytes: cell.bytes,
            uplink_bps: cell.uplink_bps,
            loss: cell.loss.mean(),
            digest: String::new(),
            protocols: BTreeMap::new(),
            settings: Vec::new(),
            notes: Vec::new(),
        };
        let mut hasher = blake3::Hasher::new_derive_key("fragcast 2026 netsim survey row v1");
        for (profile, plan) in &plans {
            let run = || plan.run(|_events| progress(share));
            let runs = match self.threads(cell) {
                Some(threads) => {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
                    pool.install(run)
                }
                None => run(),
            };
            let comparison = plan.compare(&runs);
            hasher.update(comparison.digest.as_bytes());
            if row.settings.is_empty() {
                row.settings = comparison.settings;
            }
            for note in comparison.notes {
                if !row.notes.contains(&note) {
                    row.notes.push(note);
                }
            }
            let table = comparison.tables.into_iter().next();
            for (name, protocol) in table.into_iter().flat_map(|table| table.protocols) {
                let name = match self.profiles.len() > 1 && is_ours(&name) {
                    true => format!("{name}-{}", profile.name()),
                    false => name,
                };
                row.protocols.entry(name).or_insert_with(|| without_curves(protocol));
            }
        }
        row.digest = hasher.finalize().to_hex().to_string();
        debug_assert!(row.protocols.contains_key(LIMIT));
        Ok(row)
    }

    /// The number of threads for a cell, if there is memory for fewer runs than there are threads.
    fn threads(&self, cell: &Cell) -> Option<usize> {
        let fit = self.memory? / of_run(cell.nodes, cell.bytes, self.has("fragcast"));
        let fit = usize::try_from(fit).unwrap_or(usize::MAX).max(1);
        (fit < rayon::current_num_threads()).then_some(fit)
    }
}

/// A row shows no curves, so it does not keep them.
fn without_curves(protocol: Protocol) -> Protocol {
    Protocol { cdf: Vec::new(), sent_mb: Vec::new(), by_place: Vec::new(), ..protocol }
}

#[cfg(test)]
mod tests;
