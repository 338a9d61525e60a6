//! Builds worlds from a table of nodes with coordinates, from AWS regions with measured delays, or
//! from built-in cities.
//!
//! | source | nodes | delays |
//! |---|---|---|
//! | [`Source::Default`] | drawn from built-in cities, with heavy-tailed weights | coordinate model |
//! | [`Source::Csv`] | those of the file, at its coordinates | coordinate model |
//! | [`Source::Regions`] | a number in each region, all of weight 1 | the matrix; without one, the model |
//!
//! The coordinate model ([`crate::geo`]) is right on average but not for a single pair: two places
//! may or may not have a direct cable, which all their nodes share. So each unordered pair of
//! different places gets a factor max(0.5, 1 + σ·N(0,1)) from the seed. A measured matrix contains
//! its detours and gets no factors. [`Built::plain`] is the same world without factors, to show
//! their effect.
//!
//! Nodes in regions have weight 1: a cloud has no stake, so "by weight" means "evenly" there.
//!
//! A world is a function of the configuration and the files. The same seed gives the same world on
//! every machine.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::geo::{Fit, LOCAL_MS, fit};
use crate::input::{ReadError, file_name, read_text};
use crate::latency::{LatencyError, RttMatrix, nanos};
use crate::world::{Location, Node, World};
use crate::{Nanos, random};

mod cities;
mod csv;
mod regions;
mod weights;

pub use csv::{HEADER, LineError};
pub use regions::{SpecError, parse_regions};

/// The nodes of a list, with their places; `file` is its name in errors.
pub(crate) fn nodes_of_csv(
    text: &str,
    file: &str,
) -> Result<(Vec<Node>, Vec<Location>), WorldError> {
    csv::parse(text, file)
}

/// The fewest nodes of a world.
pub const MIN_NODES: usize = 2;
/// The most nodes of a world.
pub const MAX_NODES: usize = 10_000;
/// The most places. Their delays take 32 MB, and as much again without factors.
pub const MAX_PLACES: usize = 2_000;
/// The most bytes of a file of nodes: [`MAX_NODES`] lines of 200.
pub const MAX_CSV_BYTES: u64 = 2_000_000;
/// The smallest factor.
const MIN_FACTOR: f64 = 0.5;

/// The source of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A number of nodes in built-in cities. With [`WorldConfig::latency`] there are
    /// [`WorldConfig::nodes_per_region`] in each region of the matrix instead.
    Default {
        /// Number of nodes.
        nodes: u32,
    },
    /// A file with the header [`HEADER`].
    Csv(PathBuf),
    /// AWS regions with their numbers of nodes. An empty list: [`WorldConfig::nodes_per_region`] in
    /// each known region.
    Regions(Vec<(String, u32)>),
}

/// The configuration of a world.
#[derive(Debug, Clone, PartialEq)]
pub struct WorldConfig {
    /// The source of the nodes.
    pub source: Source,
    /// A file of median round trips between regions, for [`RttMatrix::load`]. If the nodes have
    /// coordinates, the coordinate model is fitted to it.
    pub latency: Option<PathBuf>,
    /// A file of the 90th percentiles. With it delays differ from run to run, see
    /// [`World::conditions`].
    pub latency_p90: Option<PathBuf>,
    /// Number of nodes of each region, where it is not given otherwise.
    pub nodes_per_region: u32,
    /// Standard deviation of the factor of a pair of places, 0 to 1. With 0 there are no factors.
    pub pair_factor: f64,
    /// Seed of cities, weights and factors.
    pub seed: u64,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            source: Source::Default { nodes: 1_000 },
            latency: None,
            latency_p90: None,
            nodes_per_region: 30,
            pair_factor: 0.12,
            seed: 1,
        }
    }
}

/// A world with notes for the reader.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// The world.
    pub world: World,
    /// The same world without factors of pairs, if it has them.
    pub plain: Option<World>,
    /// Notes for the reader of a report: the sources of nodes and delays, and the error of the
    /// model.
    pub notes: Vec<String>,
}

/// Why a world could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// The world would have too few or too many nodes.
    #[error("{nodes} nodes; a world has {MIN_NODES} to {MAX_NODES}: give another number")]
    Nodes {
        /// The number of nodes it would have.
        nodes: u64,
    },
    /// The file has too many places.
    #[error(
        "{file}: {places} different coordinates, {MAX_PLACES} are allowed; round them (a tenth of \
         a degree is 11 km)"
    )]
    Places {
        /// The file.
        file: String,
        /// Number of its places.
        places: usize,
    },
    /// The standard deviation of factors is out of range.
    #[error("a pair factor of {sigma}; it is a standard deviation between 0 (none) and 1")]
    PairFactor {
        /// The value that was given.
        sigma: f64,
    },
    /// The file of nodes could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A line of the file of nodes is wrong.
    #[error("{file}, line {line}: {error}")]
    Line {
        /// The file.
        file: String,
        /// Number of the line, from 1.
        line: usize,
        /// The mistake.
        error: LineError,
    },
    /// The list of regions is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A matrix is wrong.
    #[error(transparent)]
    Latency(#[from] LatencyError),
    /// A matrix has fewer than three regions whose coordinates are known.
    #[error(
        "{file} has fewer than three regions of known coordinates, so no model can be fitted to \
         it; leave it out, or give regions instead of a file of nodes"
    )]
    NothingToFit {
        /// The matrix.
        file: String,
    },
    /// The 90th percentiles were given without the medians.
    #[error("round trips at the 90th percentile need those at the median; give both files")]
    PercentileAlone,
    /// The 90th percentiles were given for a world whose delays are modelled.
    #[error(
        "the 90th percentile is of round trips between regions and says nothing of the places in \
         a file of nodes; leave it out"
    )]
    PercentileOfPlaces,
}

/// Builds a world.
///
/// # Errors
///
/// A file is wrong, a number is out of its range, or a region is unknown.
pub fn build(config: &WorldConfig) -> Result<Built, WorldError> {
    let sigma = config.pair_factor;
    if !(0.0..=1.0).contains(&sigma) {
        return Err(WorldError::PairFactor { sigma });
    }
    let matrix = config.latency.as_deref().map(RttMatrix::load).transpose()?;
    let p90 = config.latency_p90.as_deref().map(RttMatrix::load).transpose()?;
    if p90.is_some() && matrix.is_none() {
        return Err(WorldError::PercentileAlone);
    }
    match (&config.source, &matrix) {
        (Source::Default { nodes }, None) => {
            check_nodes((*nodes).into())?;
            modelled(config, dealt(*nodes as usize, config.seed), Fit::AWS)
        }
        (Source::Csv(path), _) => {
            if p90.is_some() {
                return Err(WorldError::PercentileOfPlaces);
            }
            let file = file_name(path);
            let (nodes, places) = csv::parse(&read_text(path, MAX_CSV_BYTES)?, &file)?;
            let note = format!("{} nodes at {} coordinates of {file}.", nodes.len(), places.len());
            let model = match &matrix {
                None => Fit::AWS,
                Some(matrix) => fit(matrix)
                    .ok_or_else(|| WorldError::NothingToFit { file: matrix.file().into() })?,
            };
            modelled(config, Populated { nodes, places, source: file, note }, model)
        }
        (Source::Regions(counts), None) => {
            modelled(config, in_regions(config, counts, None)?.0, Fit::AWS)
        }
        (Source::Default { .. }, Some(matrix)) => measured(config, &[], matrix, p90.as_ref()),
        (Source::Regions(counts), Some(matrix)) => measured(config, counts, matrix, p90.as_ref()),
    }
}

/// Nodes and places, without delays.
struct Populated {
    nodes: Vec<Node>,
    places: Vec<Location>,
    source: String,
    note: String,
}

fn check_nodes(nodes: u64) -> Result<(), WorldError> {
    if (MIN_NODES as u64..=MAX_NODES as u64).contains(&nodes) {
        Ok(())
    } else {
        Err(WorldError::Nodes { nodes })
    }
}

/// Draws `n` nodes in built-in cities. Only cities with nodes become places.
fn dealt(n: usize, seed: u64) -> Populated {
    let shares: Vec<u64> = cities::CITIES.iter().map(|city| city.share).collect();
    let mut rng = random::stream(seed, "world cities", 0);
    let drawn: Vec<usize> =
        (0..n).map(|_| random::weighted(&mut rng, &shares).unwrap_or_default()).collect();
    let mut occupied = drawn.clone();
    occupied.sort_unstable();
    occupied.dedup();
    let weights = weights::heavy_tailed(n, seed);
    let top = 100.0 * weights::share_of_largest(&weights, n.div_ceil(3));
    let place = |city: usize| occupied.binary_search(&city).unwrap_or_default() as u16;
    let nodes = drawn.iter().zip(weights).enumerate();
    Populated {
        nodes: nodes
            .map(|(i, (city, weight))| Node { id: format!("n{i:04}"), weight, place: place(*city) })
            .collect(),
        places: occupied
            .iter()
            .map(|city| &cities::CITIES[*city])
            .map(|city| Location { name: city.name.into(), position: Some(city.position) })
            .collect(),
        source: "built-in cities".into(),
        note: format!(
            "{n} nodes in {} built-in cities, dealt by seed {seed}; weights are lognormal, a third \
             of the nodes holds {top:.0} % of them.",
            occupied.len()
        ),
    }
}

/// Nodes in regions, with the regions' indices in the matrix if there is one.
fn in_regions(
    config: &WorldConfig,
    counts: &[(String, u32)],
    matrix: Option<&RttMatrix>,
) -> Result<(Populated, Vec<usize>), WorldError> {
    let (known, of) = match matrix {
        Some(matrix) => (matrix.regions().to_vec(), matrix.file()),
        None => {
            let names = crate::geo::REGIONS.iter().map(|region| region.name.to_owned());
            (names.collect(), "the built-in table")
        }
    };
    let all: Vec<(String, u32)>;
    let counts = if counts.is_empty() {
        all = known.iter().map(|name| (name.clone(), config.nodes_per_region)).collect();
        &all
    } else {
        counts
    };
    let chosen = regions::choose(counts, &known, of)?;
    check_nodes(counts.iter().map(|(_, count)| u64::from(*count)).sum())?;
    let mut nodes = Vec::new();
    let mut places = Vec::with_capacity(counts.len());
    for (place, (name, count)) in counts.iter().enumerate() {
        let node = |i| Node { id: format!("{name}/{i}"), weight: 1, place: place as u16 };
        nodes.extend((0..*count).map(node));
        let position = crate::geo::region(name).map(|region| region.position);
        places.push(Location { name: name.clone(), position });
    }
    let source = format!("{} AWS regions", places.len());
    let note = format!("{} nodes in {source}, each of weight 1.", nodes.len());
    Ok((Populated { nodes, places, source, note }, chosen))
}

/// A world with the delays of a matrix.
fn measured(
    config: &WorldConfig,
    counts: &[(String, u32)],
    matrix: &RttMatrix,
    p90: Option<&RttMatrix>,
) -> Result<Built, WorldError> {
    let (Populated { nodes, places, source, note }, chosen) =
        in_regions(config, counts, Some(matrix))?;
    let delays = matrix.delays(&chosen);
    let spreads = p90.map(|p90| matrix.spreads(p90, &chosen)).transpose()?.unwrap_or_default();
    let mut source = format!("{source}, delays of {}", matrix.file());
    let mut delay_note = format!("Delays are half of the round trips in {}", matrix.file());
    if let Some(p90) = p90 {
        let _ = write!(source, " and {}", p90.file());
        let _ = write!(
            delay_note,
            "; each run draws its own, so that their 90th percentile is that of {}",
            p90.file()
        );
    }
    delay_note.push('.');
    let world = World { nodes, places, delays, spreads, source };
    Ok(Built { world, plain: None, notes: vec![note, delay_note] })
}

/// A world with the delays of the coordinate model.
fn modelled(config: &WorldConfig, populated: Populated, model: Fit) -> Result<Built, WorldError> {
    let Populated { nodes, places, source, note } = populated;
    let sigma = config.pair_factor;
    let fitted_to = config.latency.as_deref().map_or("AWS's medians".into(), file_name);
    let mut notes = vec![note, format!("Delays are modelled: {model} ({fitted_to}).")];
    let positions: Vec<_> = places.iter().map(|place| place.position.unwrap_or_default()).collect();
    let local = nanos(LOCAL_MS);
    let row = |a: usize| {
        let from = positions[a];
        let one = move |(b, to): (usize, &(f64, f64))| {
            if a == b { local } else { model.delay(from, *to) }
        };
        positions.iter().enumerate().map(one)
    };
    let delays: Vec<Nanos> = (0..positions.len()).flat_map(row).collect();
    let source = format!("{source}, delays from coordinates");
    let plain = World { nodes, places, delays, spreads: Vec::new(), source };
    if sigma == 0.0 {
        return Ok(Built { world: plain, plain: None, notes });
    }
    notes.push(format!(
        "The delay of each pair of places has a factor of its own, 1 ± {sigma}, from seed {}.",
        config.seed
    ));
    let world = World {
        delays: factored(&plain, sigma, config.seed),
        source: format!("{} × (1 ± {sigma})", plain.source),
        ..plain.clone()
    };
    Ok(Built { world, plain: Some(plain), notes })
}

/// The delays multiplied by the factors of their pairs, which are the same in both directions.
fn factored(plain: &World, sigma: f64, seed: u64) -> Vec<Nanos> {
    let n = plain.places.len();
    let mut delays = plain.delays.clone();
    let mut rng = random::stream(seed, "world pair factors", 0);
    for a in 0..n {
        for b in a + 1..n {
            let factor = (1.0 + sigma * random::normal(&mut rng)).max(MIN_FACTOR);
            for pair in [a * n + b, b * n + a] {
                delays[pair] = (delays[pair] as f64 * factor).round() as Nanos;
            }
        }
    }
    delays
}

#[cfg(test)]
mod tests;
