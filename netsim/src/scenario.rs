//! Scenarios: files that describe runs, for people to read and edit.
//!
//! ```text
//! x.toml ─▶ Scenario ─▶ WorldConfig ─▶ (topology::build) ─▶ World
//!              │                                              │
//!              └──────────────── load(&World) ◀───────────────┘ ─▶ one Run or more: Load, Faults
//! ```
//!
//! Every key has a default, defined once in the `Default` of its struct. The file
//! `scenarios/default.toml` lists all keys with their meaning, and a test compares it with the
//! structs. Files are read by a small reader, `reader.rs`, based on the spans of the `toml` crate:
//! serde would stop at the first mistake, and `deny_unknown_fields` does not suggest the nearest
//! key.
//!
//! Blocks are counted from one: `block = 1` is the first block of the run, whatever its number on
//! the chain. Message 0 of a block is its Env, 1 to `frags` are its frags, and `frags + 1` is the
//! Seal.
//!
//! A scenario has a seed, from which leaders and faulty hosts are drawn in separate streams, so
//! that another loss rate does not change them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fragcast_turbine::{Mode, Policy, Profile};

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

/// The most bytes of a scenario's file.
pub const MAX_FILE_BYTES: u64 = 256 << 10;
/// The most (message, node) pairs of a run. Their times take 9 bytes each, half a gigabyte in all.
pub const MAX_PAIRS: u64 = 50_000_000;

/// A scenario.
///
/// ```
/// use netsim::scenario::Scenario;
///
/// let text = r#"name = "three"
/// description = "Three whole blocks."
/// load = { shape = "blocks", blocks = 3 }"#;
/// let scenario = Scenario::parse(text, "three.toml", "".as_ref())?;
/// assert_eq!(scenario.load.blocks, 3);
/// assert_eq!(scenario.load.frags, 10, "the default");
///
/// // An error names the line and the nearest key.
/// let wrong = text.replace("blocks = 3", "block = 3");
/// let error = Scenario::parse(&wrong, "three.toml", "".as_ref()).unwrap_err().to_string();
/// assert!(error.starts_with("three.toml:3: "), "{error}");
/// # Ok::<(), netsim::scenario::ScenarioError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// The name of its file, for errors; empty if there is none.
    pub file: String,
    /// A short name for tables.
    pub name: String,
    /// What happens in it, and how it ends, for the reader.
    pub description: String,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Nodes, delays and links.
    pub network: Network,
    /// The messages that are sent.
    pub load: LoadOptions,
    /// Options of fragcast.
    pub fragcast: FragcastOptions,
    /// Options of Turbine.
    pub turbine: TurbineOptions,
    /// Options of Rotor.
    pub rotor: RotorOptions,
    /// Options of gossip.
    pub gossip: GossipOptions,
    /// The faults in the order of the file.
    pub faults: Vec<FaultOptions>,
    /// The expectations by protocol.
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

/// Nodes, delays and links. Paths are resolved: those in a file are relative to its folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// The source of nodes.
    pub source: Source,
    /// Median round trips.
    pub latency: Option<PathBuf>,
    /// Round trips at the 90th percentile.
    pub latency_p90: Option<PathBuf>,
    /// Standard deviation of the factor of a pair of places.
    pub pair_factor: f64,
    /// Properties of all hosts and paths.
    pub links: LinkConfig,
    /// How many of the nodes are no members, but guests of some.
    pub guests: u32,
}

impl Default for Network {
    fn default() -> Self {
        let WorldConfig { source, latency, latency_p90, pair_factor, .. } = WorldConfig::default();
        let links = LinkConfig::default();
        Self { source, latency, latency_p90, pair_factor, links, guests: 0 }
    }
}

/// How messages are divided into runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Shape {
    /// One frag per leader, each in a separate run.
    Frag,
    /// One run of whole blocks.
    Blocks,
}

/// The messages that are sent. Fields from [`LoadOptions::blocks`] on are for [`Shape::Blocks`]
/// only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Number of leaders, which are drawn by weight without repetition.
    pub leaders: usize,
    /// Bytes of each frag, cycled over the frags of a block, or over the leaders of
    /// [`Shape::Frag`].
    pub frag_bytes: Vec<u32>,
    /// How messages are divided into runs.
    pub shape: Shape,
    /// How long a run waits for incomplete nodes after the last broadcast or the end of the last
    /// fault.
    pub patience: Nanos,
    /// Number of blocks.
    pub blocks: u64,
    /// Number of blocks in a term. Leaders take turns in the order in which they were drawn.
    pub blocks_per_term: u64,
    /// Frags of a block.
    pub frags: u16,
    /// Time between two messages.
    pub interval: Nanos,
    /// Time from the last frag to the Seal.
    pub seal_after: Nanos,
    /// Time from Env to Env. `None`: the intervals of all frags and one more.
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
    /// Time from Env to Env.
    pub fn block_time(&self) -> Nanos {
        self.block.unwrap_or((Nanos::from(self.frags) + 1) * self.interval)
    }

    /// The message index of a block's Seal.
    pub const fn seal(&self) -> u16 {
        self.frags.saturating_add(1)
    }

    /// Time from a block's Env to a message of it.
    pub fn offset(&self, message: u16) -> Nanos {
        if message <= self.frags {
            Nanos::from(message) * self.interval
        } else {
            Nanos::from(self.frags) * self.interval + self.seal_after
        }
    }

    /// Bytes of frag number `i`, from 0.
    fn frag(&self, i: usize) -> u32 {
        self.frag_bytes.get(i % self.frag_bytes.len().max(1)).copied().unwrap_or(MIN_MESSAGE)
    }
}

/// The fewest bytes of a message.
pub const MIN_MESSAGE: u32 = 200;
/// The most bytes of a message: those that the wire carries, less room for framing.
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
    /// The regional tree, if there is a plan for it.
    Regional,
}

/// Options of fragcast.
#[derive(Debug, Clone, PartialEq)]
pub struct FragcastOptions {
    /// How messages spread.
    pub route: FragcastRoute,
    /// Children of a node in [`FragcastRoute::Turbine`].
    pub fanout: u32,
    /// Loss that the code must make good. `None`: that of the network.
    pub loss: Option<f64>,
    /// The fewest coding shreds for each data shred on routes with relays.
    pub coding: f64,
    /// What bandwidth is worth on the regional tree.
    pub profile: Profile,
    /// Whether leaders are given the true delays instead of what nodes measured: only to show what
    /// measuring costs.
    pub oracle: bool,
    /// Whether leaders ask the next leader to acknowledge their messages.
    pub hand_over: bool,
    /// Gateways that may lead a block beside the scheduled one.
    pub substitutes: u8,
    /// How long a substitute waits for an Env of who comes before it, times its rank.
    pub substitute_after: Nanos,
    /// The most connections of a node.
    pub connections: u32,
    /// Whether nodes ask for missing shreds.
    pub repair: bool,
    /// The nodes' policy on gossip, their fallback.
    pub gossip: Policy,
    /// Whether messages travel by the overlay, by gossip, or as health decides.
    pub mode: Mode,
}

impl Default for FragcastOptions {
    fn default() -> Self {
        Self {
            route: FragcastRoute::Auto,
            fanout: 200,
            loss: None,
            coding: 1.5,
            profile: Profile::Lean,
            oracle: false,
            hand_over: false,
            substitutes: 0,
            substitute_after: 1_000 * MILLIS,
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
    /// Whether a relay that recovers a set sends the shreds that it had still to forward, as
    /// Agave's does.
    pub owed: bool,
    /// How long a node waits before it asks for repair.
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
    /// How long a node waits before it asks for repair.
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
    /// Degrees of the mesh to try. The best one counts.
    pub mesh: Vec<u32>,
    /// Interval of heartbeats.
    pub heartbeat: Nanos,
    /// Whether a node tells its mesh which messages it has, so that they are not sent to it again.
    pub idontwant: bool,
    /// Time for which a node checks a message before it forwards it, beyond the cost of a hop that
    /// every protocol pays.
    pub validation: Nanos,
}

impl Default for GossipOptions {
    fn default() -> Self {
        Self { mesh: (6..=12).collect(), heartbeat: 500 * MILLIS, idontwant: true, validation: 0 }
    }
}

/// The load and faults of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The messages that are sent.
    pub load: Load,
    /// The faults of hosts.
    pub faults: crate::fault::Faults,
}

impl Scenario {
    /// Reads a scenario's file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or it has mistakes; the error lists all of them.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text = read_text(path, MAX_FILE_BYTES)?;
        Self::parse(&text, &file_name(path), path.parent().unwrap_or(Path::new("")))
    }

    /// Reads a scenario from text; `file` is its name in errors, and the paths in it are
    /// relative to `folder`.
    ///
    /// # Errors
    ///
    /// Lists all mistakes. If the text is not TOML, the error says only that.
    pub fn parse(text: &str, file: &str, folder: &Path) -> Result<Self, ScenarioError> {
        parse::scenario(text, file, folder)
    }

    /// The configuration of its world.
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

    /// The loss that fragcast's code must make good.
    pub fn code_loss(&self) -> f64 {
        self.fragcast.loss.unwrap_or(self.network.links.loss.mean())
    }

    /// The runs of this scenario in a world: one, or one for each leader of [`Shape::Frag`].
    ///
    /// # Errors
    ///
    /// A node or place is not in the world, the world has fewer nodes with weight than leaders, a
    /// fault names a block that does not exist, or the run would be too large.
    pub fn load(&self, world: &World) -> Result<Vec<Run>, ScenarioError> {
        resolve::runs(self, world)
    }

    /// The same without faults.
    #[must_use]
    pub fn still(&self) -> Self {
        Self { faults: Vec::new(), ..self.clone() }
    }

    /// All settings by the names of their keys, for reports.
    pub fn settings(&self) -> Vec<(String, String)> {
        settings::of(self)
    }
}

#[cfg(test)]
mod tests;
