//! Scenarios: what a run is made of, as a file that a person reads and edits.
//!
//! ```text
//! x.toml ─▶ Scenario ─▶ WorldConfig ─▶ (topology::build) ─▶ World
//!              │                                              │
//!              └──────────────── load(&World) ◀───────────────┘ ─▶ one Run or more: Load, Faults
//! ```
//!
//! Every key has a default, written once: in the `Default` of its struct. The file
//! `scenarios/default.toml` lists them all with what they mean, and a test holds it to the
//! structs. A file is read by a small reader of our own over the spans of the `toml` crate: serde
//! would stop at the first mistake, and `deny_unknown_fields` does not know the nearest key.
//!
//! Numbers that count from one are those that people count: `block = 1` is the first block of
//! the run, whatever number it has on the chain. Message 0 of a block is its Env, 1 to `frags`
//! are its frags, and `frags + 1` is the Seal.
//!
//! A scenario has its seed: leaders and faulty hosts are drawn from it, in streams of their own,
//! so that another loss rate leaves them as they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fragcast_turbine::{Mode, Policy};

use crate::input::{file_name, read_text};
use crate::link::LinkConfig;
use crate::load::Load;
use crate::topology::{Source, WorldConfig};
use crate::world::World;
use crate::{MILLIS, Nanos};

mod error;
mod expect;
mod fault;
mod parse;
mod reader;
mod resolve;
mod settings;

pub use error::{Position, Problem, ScenarioError};
pub use expect::{Changes, Expectation, PROTOCOLS, Shares};
pub use fault::{FaultKind, FaultOptions, NodeName, Who};

/// Bytes of a scenario's file at most.
pub const MAX_FILE_BYTES: u64 = 256 << 10;
/// (message, node) pairs of a run at most: their times take 9 bytes each, half a gigabyte in all.
pub const MAX_PAIRS: u64 = 50_000_000;

/// A whole scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// The name of its file, for errors; empty where there is none.
    pub file: String,
    /// A few words for tables.
    pub name: String,
    /// What happens and how it ends, for a person.
    pub description: String,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Nodes, delays, links.
    pub network: Network,
    /// What is sent.
    pub load: LoadOptions,
    /// Options of fragcast.
    pub fragcast: FragcastOptions,
    /// Options of Turbine.
    pub turbine: TurbineOptions,
    /// Options of Rotor.
    pub rotor: RotorOptions,
    /// Options of gossip.
    pub gossip: GossipOptions,
    /// What goes wrong, in the order of the file.
    pub faults: Vec<FaultOptions>,
    /// What must come of it, by protocol.
    pub expect: BTreeMap<String, Expectation>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            file: String::new(),
            name: "default".into(),
            description: "Twelve leaders, drawn by weight, send one frag of 36 kB each to 1,000 \
                          nodes in the world's cities, with 1 % loss. Nothing else goes wrong, \
                          and everybody has every frag in the end."
                .into(),
            seed: 1,
            network: Network::default(),
            load: LoadOptions::default(),
            fragcast: FragcastOptions::default(),
            turbine: TurbineOptions::default(),
            rotor: RotorOptions::default(),
            gossip: GossipOptions::default(),
            faults: Vec::new(),
            expect: BTreeMap::new(),
        }
    }
}

/// Nodes, delays, links. Paths are resolved: a file's are relative to where it lies.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Where nodes come from.
    pub source: Source,
    /// Median round trips.
    pub latency: Option<PathBuf>,
    /// Round trips at the 90th percentile.
    pub latency_p90: Option<PathBuf>,
    /// Standard deviation of the factor of a pair of places.
    pub pair_factor: f64,
    /// All hosts and paths.
    pub links: LinkConfig,
}

impl Default for Network {
    fn default() -> Self {
        let WorldConfig { source, latency, latency_p90, pair_factor, .. } = WorldConfig::default();
        Self { source, latency, latency_p90, pair_factor, links: LinkConfig::default() }
    }
}

/// How messages are dealt to runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Shape {
    /// One frag per leader, each leader in a run of its own.
    Frag,
    /// One run of whole blocks.
    Blocks,
}

/// What is sent. Those below [`LoadOptions::blocks`] are of [`Shape::Blocks`] only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// How many leaders, drawn by weight without repetition.
    pub leaders: usize,
    /// Bytes of each frag, cycled over the frags of a block, or over the leaders of
    /// [`Shape::Frag`].
    pub frag_bytes: Vec<u32>,
    /// How they are dealt to runs.
    pub shape: Shape,
    /// How long after the last broadcast, or the end of the last fault, a node may still wait.
    pub patience: Nanos,
    /// How many blocks.
    pub blocks: u64,
    /// How many of them in a term; leaders take turns in the order drawn.
    pub blocks_per_term: u64,
    /// Frags of a block.
    pub frags: u16,
    /// From message to message.
    pub interval: Nanos,
    /// From the last frag to the Seal.
    pub seal_after: Nanos,
    /// From Env to Env; `None`: a message's interval more than the frags take.
    pub block: Option<Nanos>,
    /// Bytes of an Env.
    pub env_bytes: u32,
    /// Bytes of a Seal.
    pub seal_bytes: u32,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            leaders: 12,
            frag_bytes: vec![36_000],
            shape: Shape::Frag,
            patience: 5_000 * MILLIS,
            blocks: 4,
            blocks_per_term: 1,
            frags: 10,
            interval: 200 * MILLIS,
            seal_after: 20 * MILLIS,
            block: None,
            env_bytes: 249,
            seal_bytes: 257,
        }
    }
}

impl LoadOptions {
    /// From Env to Env.
    pub fn block_time(&self) -> Nanos {
        self.block.unwrap_or((Nanos::from(self.frags) + 1) * self.interval)
    }

    /// The message index of a block's Seal.
    pub const fn seal(&self) -> u16 {
        self.frags.saturating_add(1)
    }

    /// When a message of a block goes out, after its Env.
    pub fn offset(&self, message: u16) -> Nanos {
        if message <= self.frags {
            Nanos::from(message) * self.interval
        } else {
            Nanos::from(self.frags) * self.interval + self.seal_after
        }
    }

    /// Bytes of the frag number `i`, from 0.
    fn frag(&self, i: usize) -> u32 {
        self.frag_bytes.get(i % self.frag_bytes.len().max(1)).copied().unwrap_or(MIN_MESSAGE)
    }
}

/// Bytes of a message at least.
pub const MIN_MESSAGE: u32 = 200;
/// Bytes of a message at most: what the wire carries, less room for what frames it.
pub const MAX_MESSAGE: u32 = fragcast_shredder::MAX_MESSAGE_LEN as u32 - 1024;

/// How fragcast spreads messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum FragcastRoute {
    /// The leader chooses by its cost model.
    Auto,
    /// Leader to all.
    Direct,
    /// A tree of two or three layers.
    Turbine,
    /// One relay to all.
    Rotor,
}

/// Options of fragcast.
#[derive(Debug, Clone, PartialEq)]
pub struct FragcastOptions {
    /// How messages spread.
    pub route: FragcastRoute,
    /// Children of a node in [`FragcastRoute::Turbine`].
    pub fanout: u32,
    /// Loss that the code is made for; `None`: that of the network.
    pub loss: Option<f64>,
    /// Coding shreds for each data shred at least, on routes with relays.
    pub coding: f64,
    /// Connections that a node may have.
    pub connections: u32,
    /// Whether nodes ask for what is missing.
    pub repair: bool,
    /// How much nodes have to do with gossip, their fallback.
    pub gossip: Policy,
    /// Which way messages travel, where there is gossip.
    pub mode: Mode,
}

impl Default for FragcastOptions {
    fn default() -> Self {
        Self {
            route: FragcastRoute::Auto,
            fanout: 200,
            loss: None,
            coding: 1.5,
            connections: 1_024,
            repair: true,
            gossip: Policy::Off,
            mode: Mode::Auto,
        }
    }
}

/// Options of Turbine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurbineOptions {
    /// Children of a node.
    pub fanout: u32,
    /// Whether a relay that recovers a set sends the shreds of it that it still owed, as Agave's
    /// does.
    pub owed: bool,
    /// How long a node waits before it asks.
    pub repair: Nanos,
}

impl Default for TurbineOptions {
    fn default() -> Self {
        Self { fanout: 200, owed: true, repair: 250 * MILLIS }
    }
}

/// Options of Rotor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotorOptions {
    /// How long a node waits before it asks.
    pub repair: Nanos,
}

impl Default for RotorOptions {
    fn default() -> Self {
        Self { repair: 250 * MILLIS }
    }
}

/// Options of gossip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GossipOptions {
    /// Degrees of the mesh that are tried; the best one counts.
    pub mesh: Vec<u32>,
    /// From heartbeat to heartbeat.
    pub heartbeat: Nanos,
    /// Whether a node tells its mesh what it has, so that nobody sends it again.
    pub idontwant: bool,
    /// How long a node checks a message before it forwards it, beyond the cost of a hop that
    /// every protocol pays.
    pub validation: Nanos,
}

impl Default for GossipOptions {
    fn default() -> Self {
        Self { mesh: (6..=12).collect(), heartbeat: 500 * MILLIS, idontwant: true, validation: 0 }
    }
}

/// One run of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What is sent.
    pub load: Load,
    /// What goes wrong.
    pub faults: crate::fault::Faults,
}

impl Scenario {
    /// Reads a scenario's file.
    ///
    /// # Errors
    ///
    /// The file is not readable, or something in it is wrong: all of it is told at once.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text = read_text(path, MAX_FILE_BYTES)?;
        Self::parse(&text, &file_name(path), path.parent().unwrap_or(Path::new("")))
    }

    /// Reads a scenario from text; `file` is its name in errors, and the paths in it are
    /// relative to `folder`.
    ///
    /// # Errors
    ///
    /// All that is wrong with it. Where the text is not TOML, only that is told: what follows
    /// from a forgotten quote is no help.
    pub fn parse(text: &str, file: &str, folder: &Path) -> Result<Self, ScenarioError> {
        parse::scenario(text, file, folder)
    }

    /// What its world is made of.
    pub fn world(&self) -> WorldConfig {
        WorldConfig {
            source: self.network.source.clone(),
            latency: self.network.latency.clone(),
            latency_p90: self.network.latency_p90.clone(),
            pair_factor: self.network.pair_factor,
            seed: self.seed,
            ..WorldConfig::default()
        }
    }

    /// The loss that fragcast's code is made for.
    pub fn code_loss(&self) -> f64 {
        self.fragcast.loss.unwrap_or(self.network.links.loss.mean())
    }

    /// What is sent and what goes wrong, in a world: one run, or one for each leader of
    /// [`Shape::Frag`]. A function of the scenario and the world.
    ///
    /// # Errors
    ///
    /// A node or place is not in the world, there are fewer nodes of weight than leaders, a fault
    /// is of a block that there is not, or the run would be too large.
    pub fn load(&self, world: &World) -> Result<Vec<Run>, ScenarioError> {
        resolve::runs(self, world)
    }

    /// Every setting that made a run, by the name of its key: for reports.
    pub fn settings(&self) -> Vec<(String, String)> {
        settings::of(self)
    }
}

#[cfg(test)]
mod tests;
