//! Runs contenders over the same worlds, leaders, seeds, links and faults, in parallel, and
//! aggregates the outcomes.
//!
//! A [`Case`] is a load with its faults and a seed. Every contender runs every case in every world.
//! Runs share no state and do not depend on the order in which threads take them; digests are
//! combined in the order of the plan.

mod aggregate;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use fragcast_turbine::{DelayMatrix, PlanJob};
use rayon::prelude::*;

use crate::engine::{self, Setup};
use crate::fault::Faults;
use crate::link::LinkConfig;
use crate::load::{Broadcast, Load};
use crate::measurement::Measurement;
use crate::outcome::Outcome;
use crate::protocols::fragcast::{self, Fragcast, FragcastConfig, Network};
use crate::protocols::gossip::{Gossip, GossipConfig};
use crate::protocols::limit;
use crate::protocols::shreds::{Shreds, ShredsConfig};
use crate::random::stream;
use crate::results::{Comparison, LIMIT, PlaceRow, RELAYED_LIMIT, Table};
use crate::scenario::Scenario;
use crate::world::World;
use crate::{Nanos, NodeId};

pub use plan::{PlanError, PlanOptions};

/// The load, faults and seed of a run.
#[derive(Debug, Clone)]
pub struct Case {
    /// The messages that are sent.
    pub load: Load,
    /// The faults of hosts.
    pub faults: Faults,
    /// Seed of losses and of the overlay's random numbers.
    pub seed: u64,
}

/// A protocol with its settings.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Contender {
    /// The protocol of `fragcast-turbine`.
    Fragcast(FragcastConfig),
    /// `turbine`, `rotor` or `direct`, by its spread.
    Shreds(ShredsConfig),
    /// gossipsub with a mesh of one size.
    Gossip(GossipConfig),
}

impl Contender {
    /// The name in tables. All meshes of gossip share one.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fragcast(_) => "fragcast",
            Self::Shreds(config) => config.spread.into(),
            Self::Gossip(_) => "gossip",
        }
    }
}

/// A comparison to run.
#[derive(Debug)]
pub struct Plan {
    /// Worlds with the titles of their tables. The first is the main one.
    pub worlds: Vec<(String, World)>,
    /// How many of the nodes, the last ones, are guests.
    pub guests: NodeId,
    /// Links between the nodes.
    pub links: LinkConfig,
    /// The cases that every contender runs.
    pub cases: Vec<Case>,
    /// The contenders, in any order.
    pub contenders: Vec<Contender>,
    /// How long a run waits for incomplete nodes after the last broadcast or the end of the last
    /// fault.
    pub patience: Nanos,
    /// Passed on to the report.
    pub settings: Vec<(String, String)>,
    /// Passed on to the report.
    pub notes: Vec<String>,
}

/// One finished run.
#[derive(Debug)]
pub struct Run {
    /// Index of the world.
    pub world: usize,
    /// Index of the contender.
    pub contender: usize,
    /// Index of the case.
    pub case: usize,
    /// The outcome of the run.
    pub outcome: Outcome,
}

impl Plan {
    /// Runs every contender, case and world. After each run `progress` gets the number of its
    /// events.
    pub fn run(&self, progress: impl Fn(u64) + Sync) -> Vec<Run> {
        // Worlds differ only in delays, so they share one membership table.
        let network = self
            .contenders
            .iter()
            .any(|c| matches!(c, Contender::Fragcast(_)))
            .then(|| self.network(&self.worlds[0].1));
        let mut jobs = Vec::with_capacity(self.jobs());
        for world in 0..self.worlds.len() {
            for contender in 0..self.contenders.len() {
                jobs.extend((0..self.cases.len()).map(|case| (world, contender, case)));
            }
        }
        // Long runs start first, so that no thread is left with one at the end.
        jobs.sort_by_key(|(_, contender, _)| match self.contenders[*contender] {
            Contender::Fragcast(_) => 0,
            Contender::Shreds(_) => 1,
            Contender::Gossip(_) => 2,
        });
        let mut runs: Vec<Run> = jobs
            .into_par_iter()
            .with_max_len(1)
            .map(|(world, contender, case)| {
                let outcome = self.one(network.as_ref(), world, contender, case);
                progress(outcome.events);
                Run { world, contender, case, outcome }
            })
            .collect();
        runs.sort_by_key(|run| (run.world, run.contender, run.case));
        runs
    }

    /// The members and guests of a world.
    fn network(&self, world: &World) -> Network {
        match self.guests {
            0 => Network::new(world),
            guests => Network::with_guests(world, world.len() as NodeId - guests),
        }
    }

    /// The mean time of fragcast's pairs in `runs`, which are this plan's, over that of the same pairs
    /// without faults; `None` if there is none, or if without faults other messages are sent.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn over_still(
        &self,
        scenario: &Scenario,
        options: &PlanOptions,
        runs: &[Run],
    ) -> Result<Option<f64>, PlanError> {
        let options = PlanOptions { protocols: vec!["fragcast".into()], ..options.clone() };
        let still = Self::of(&scenario.still(), &options)?;
        let without = still.run(|_| {});
        let keys = |load: &Load| load.broadcasts.iter().map(|b| b.key).collect::<Vec<_>>();
        let (mut here, mut there) = (Mean::default(), Mean::default());
        let ours = |run: &&Run| {
            run.world == 0 && matches!(self.contenders[run.contender], Contender::Fragcast(_))
        };
        for run in runs.iter().filter(ours) {
            let case = &self.cases[run.case];
            let other = without.iter().find(|other| other.world == 0 && other.case == run.case);
            let Some(other) = other else { return Ok(None) };
            if keys(&case.load) != keys(&still.cases[run.case].load) {
                return Ok(None);
            }
            let completions = run.outcome.completions.iter().zip(&other.outcome.completions);
            for (broadcast, (with, without)) in case.load.broadcasts.iter().zip(completions) {
                if !broadcast.expected {
                    continue;
                }
                for node in counted(with.after.len(), &case.load, broadcast, &case.faults) {
                    let end = run.outcome.end.max(other.outcome.end) - broadcast.at;
                    here.add(with.after[node as usize].min(end));
                    there.add(without.after[node as usize].min(end));
                }
            }
        }
        Ok(here.get().zip(there.get()).map(|(here, there)| here / there))
    }

    /// Number of runs.
    pub fn jobs(&self) -> usize {
        self.worlds.len() * self.contenders.len() * self.cases.len()
    }

    /// What the leader of a case's first message plans with: what nodes have measured, or the true
    /// delays if fragcast's leaders are given those. `None` for another contender, or where nothing
    /// was measured.
    pub fn planning_job(&self, contender: usize, case: usize) -> Option<PlanJob> {
        let Contender::Fragcast(config) = &self.contenders[contender] else { return None };
        let world = self.conditions(0, case);
        let leader = self.cases[case].load.broadcasts.first()?.leader;
        let delays = match config.oracle {
            true => Arc::new(fragcast::truth(&world)),
            false => self.measured_by(config, &world, case)?,
        };
        Some(PlanJob {
            delays,
            weights: world.nodes.iter().map(|node| node.weight).collect(),
            uplinks_bps: vec![config.uplink_bps; world.len()],
            leader,
            loss: config.loss,
            hop: std::time::Duration::from_nanos(config.hop),
            next_leaders: 2.min(self.cases[case].load.leaders.len().saturating_sub(1)),
            profile: config.profile,
            connections: config.connections as usize,
            previous: None,
            table: [0; 32],
        })
    }

    /// The world of one case. Draws the delays if they vary from run to run.
    fn conditions(&self, world: usize, case: usize) -> std::borrow::Cow<'_, World> {
        let mut rng = stream(self.cases[case].seed, "conditions", case as u64);
        self.worlds[world].1.conditions(&mut rng)
    }

    fn one(
        &self,
        network: Option<&Network>,
        world: usize,
        contender: usize,
        case: usize,
    ) -> Outcome {
        let Case { load, faults, seed } = &self.cases[case];
        let world = self.conditions(world, case);
        let world: &World = &world;
        let (links, patience) = (self.links, self.patience);
        let setup = Setup { world, links, faults, load, seed: *seed, patience };
        match (&self.contenders[contender], network) {
            (Contender::Fragcast(config), Some(network)) => {
                let own = (!load.tables.is_empty())
                    .then(|| Network::with_tables(world, load.tables.clone()));
                let network = own.as_ref().unwrap_or(network);
                let mut fragcast = Fragcast::in_world(config, network, load, *seed, Some(world));
                engine::run(setup, &mut fragcast)
            }
            (Contender::Fragcast(_), None) => unreachable!("made where there is such a contender"),
            (Contender::Shreds(config), _) => {
                engine::run(setup, &mut Shreds::new(*config, world, *seed))
            }
            (Contender::Gossip(config), _) => {
                let broadcasts = load.broadcasts.len();
                engine::run(setup, &mut Gossip::new(*config, world, broadcasts, *seed))
            }
        }
    }

    /// What the leader of the first case knows of the delays in the main world after the nodes have
    /// measured them; `None` without fragcast among the contenders.
    pub fn measure(&self) -> Option<Measurement> {
        let config = self.contenders.iter().find_map(|contender| match contender {
            Contender::Fragcast(config) => Some(config),
            _ => None,
        })?;
        let matrix = self.measured_by(config, &self.conditions(0, 0), 0)?;
        Some(Measurement::of(&matrix))
    }

    /// What the leader of a case's first message knows of the delays before the run.
    fn measured_by(
        &self,
        config: &FragcastConfig,
        world: &World,
        case: usize,
    ) -> Option<Arc<DelayMatrix>> {
        let Case { load, seed, .. } = &self.cases[case];
        let mut fragcast = Fragcast::new(config, &self.network(world), load, *seed);
        fragcast.warm_up(world, &self.links, *seed);
        let block = load.broadcasts.first()?.key.block;
        let (matrix, _) = fragcast.node(load.leader(block)).delays_at(block)?;
        Some(Arc::clone(matrix))
    }

    /// Lets fragcast's nodes find the round trips of a saved measurement.
    pub fn use_measured(&mut self, measured: Measurement) {
        let measured = Arc::new(measured);
        for contender in &mut self.contenders {
            if let Contender::Fragcast(config) = contender {
                config.measured = Some(Arc::clone(&measured));
            }
        }
    }

    /// The limit's times in a world, by case, broadcast and node.
    fn limits(&self, world: usize) -> Vec<Vec<Vec<Nanos>>> {
        (0..self.cases.len())
            .map(|case| {
                let conditions = self.conditions(world, case);
                let broadcasts = &self.cases[case].load.broadcasts;
                broadcasts.iter().map(|b| limit::times(&conditions, &self.links, b)).collect()
            })
            .collect()
    }

    /// The relayed limit's times in a world, by case, broadcast and node.
    fn relayed_limits(&self, world: usize) -> Vec<Vec<Vec<Nanos>>> {
        (0..self.cases.len())
            .map(|case| {
                let conditions = self.conditions(world, case);
                // A leader of many messages has its paths once.
                let mut paths: BTreeMap<NodeId, Vec<Nanos>> = BTreeMap::new();
                let broadcasts = self.cases[case].load.broadcasts.iter();
                broadcasts
                    .map(|broadcast| {
                        let shortest =
                            || limit::shortest(&conditions, &self.links, broadcast.leader);
                        let paths = paths.entry(broadcast.leader).or_insert_with(shortest);
                        limit::relayed_times(&conditions, &self.links, broadcast, paths)
                    })
                    .collect()
            })
            .collect()
    }

    /// Aggregates `runs`, which must be this plan's.
    pub fn compare(&self, runs: &[Run]) -> Comparison {
        let world = &self.worlds[0].1;
        let mut nodes = vec![0; world.places.len()];
        world.nodes.iter().for_each(|node| nodes[usize::from(node.place)] += 1);
        let places = world
            .places
            .iter()
            .zip(nodes)
            .map(|(place, nodes)| PlaceRow {
                name: place.name.clone(),
                position: place.position,
                nodes,
            })
            .collect();
        let mut hasher = blake3::Hasher::new_derive_key("fragcast 2026 netsim comparison v1");
        runs.iter().for_each(|run| {
            hasher.update(&run.outcome.digest);
        });
        Comparison {
            digest: hasher.finalize().to_hex().to_string(),
            settings: self.settings.clone(),
            places,
            tables: (0..self.worlds.len()).map(|world| self.table(world, runs)).collect(),
            notes: self.notes.clone(),
        }
    }

    fn table(&self, world: usize, runs: &[Run]) -> Table {
        let limits = self.limits(world);
        let aggregator = aggregate::Aggregator::new(self, world, &limits);
        let relayed = aggregator.relayed_limit(&self.relayed_limits(world));
        let mut protocols = BTreeMap::from([
            (LIMIT.to_owned(), aggregator.limit()),
            (RELAYED_LIMIT.to_owned(), relayed),
        ]);
        let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (i, contender) in self.contenders.iter().enumerate() {
            by_name.entry(contender.name()).or_default().push(i);
        }
        for (name, variants) in by_name {
            let of = |contender: usize| -> Vec<&Run> {
                runs.iter().filter(|r| r.world == world && r.contender == contender).collect()
            };
            let all: Vec<_> = variants
                .iter()
                .map(|i| aggregator.protocol(&self.contenders[*i], &of(*i)))
                .collect();
            let tried = match all.len() {
                1 => Vec::new(),
                _ => all.iter().map(|p| (p.detail.clone(), p.times.mean)).collect(),
            };
            // The contender with the least mean; one that has none comes last.
            let mean = |p: &crate::results::Protocol| p.times.mean.unwrap_or(f64::INFINITY);
            let best = all.into_iter().min_by(|a, b| mean(a).total_cmp(&mean(b)));
            if let Some(mut best) = best {
                best.tried = tried;
                protocols.insert(name.to_owned(), best);
            }
        }
        Table { title: self.worlds[world].0.clone(), protocols }
    }
}

/// A mean in the making.
#[derive(Debug, Default, Clone, Copy)]
struct Mean {
    sum: u128,
    count: u64,
}

impl Mean {
    fn add(&mut self, time: Nanos) {
        (self.sum, self.count) = (self.sum + u128::from(time), self.count + 1);
    }

    fn get(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }
}

/// The nodes whose times count for a broadcast of a load: all members except its leader and those
/// that crash.
pub(crate) fn counted(
    n: usize,
    load: &Load,
    broadcast: &Broadcast,
    faults: &Faults,
) -> Vec<NodeId> {
    let crashed = faults.crashed();
    let (leader, block) = (broadcast.leader, broadcast.key.block);
    let counts =
        |node: &NodeId| *node != leader && !crashed.contains(node) && load.counts(*node, block);
    (0..n as NodeId).filter(counts).collect()
}

#[cfg(test)]
mod tests;
