//! Makes the plan of a scenario.

use fragcast_turbine::{Route, RoutePolicy};

use super::{Case, Contender, Plan};
use crate::protocols::fragcast::FragcastConfig;
use crate::protocols::gossip::GossipConfig;
use crate::protocols::shreds::{CutRule, ShredsConfig, Spread};
use crate::scenario::{FragcastRoute, Scenario, ScenarioError};
use crate::topology::{self, WorldError};

/// The mesh of based-op, which is always shown beside the best one.
const BASED_OP_MESH: u32 = 8;
/// How long the nodes of `direct` wait after the last new shred before they ask for repair.
const DIRECT_REPAIR: crate::Nanos = 250 * crate::MILLIS;

/// Why a scenario has no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The world cannot be built.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The scenario does not fit the world.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
}

/// Options of a plan beside its scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanOptions {
    /// Names of the protocols to run. Empty: all.
    pub protocols: Vec<String>,
    /// Number of seeds, counting up from the scenario's.
    pub seeds: u64,
    /// Coding shreds of `turbine` and `rotor` for 32 data shreds.
    pub coding: u16,
    /// Whether everything is repeated without the factor per pair of places.
    pub repeat_plain: bool,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self { protocols: Vec::new(), seeds: 1, coding: 32, repeat_plain: true }
    }
}

impl Plan {
    /// The plan of a scenario.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn of(scenario: &Scenario, options: &PlanOptions) -> Result<Self, PlanError> {
        let mut built = topology::build(&scenario.world())?;
        let guests = scenario.network.guests;
        if guests > 0 {
            built.world.part_guests(guests as usize);
            built.plain.iter_mut().for_each(|plain| plain.part_guests(guests as usize));
        }
        let mut cases = Vec::new();
        for seed in 0..options.seeds {
            let seed = scenario.seed.wrapping_add(seed);
            let seeded = Scenario { seed, ..scenario.clone() };
            let runs = seeded.load(&built.world)?;
            cases.extend(runs.into_iter().zip(0u64..).map(|(run, i)| Case {
                load: run.load,
                faults: run.faults,
                // Each leader's run draws its own losses.
                seed: seed.wrapping_mul(1_000_003).wrapping_add(i),
            }));
        }
        let mut worlds = Vec::new();
        match built.plain {
            Some(plain) if options.repeat_plain => {
                let percent = scenario.network.pair_factor * 100.0;
                worlds.push((
                    format!("delays with a factor of ±{percent} % per pair of places"),
                    built.world,
                ));
                worlds.push(("delays without that factor".to_owned(), plain));
            }
            _ => worlds.push((built.world.source.clone(), built.world)),
        }
        let mut contenders = contenders(scenario, options.coding);
        contenders.retain(|contender| {
            options.protocols.is_empty()
                || options.protocols.iter().any(|name| name == contender.name())
        });
        let mut notes = built.notes;
        notes.extend(remarks(scenario, worlds[0].1.len(), &contenders));
        let mut settings = scenario.settings();
        if options.seeds > 1 {
            settings.push(("seeds".into(), options.seeds.to_string()));
        }
        Ok(Self {
            worlds,
            guests,
            links: scenario.network.links,
            cases,
            contenders,
            patience: scenario.load.patience,
            settings,
            notes,
        })
    }
}

/// The settings of fragcast in a scenario.
fn fragcast(scenario: &Scenario) -> FragcastConfig {
    let options = &scenario.fragcast;
    let fanout = u16::try_from(options.fanout).unwrap_or(u16::MAX);
    FragcastConfig {
        route: match options.route {
            FragcastRoute::Auto => RoutePolicy::Auto,
            FragcastRoute::Direct => RoutePolicy::Fixed(Route::Direct),
            FragcastRoute::Turbine => RoutePolicy::Fixed(Route::Turbine { fanout }),
            FragcastRoute::Rotor => RoutePolicy::Fixed(Route::Rotor),
            FragcastRoute::Regional => RoutePolicy::Regional,
        },
        profile: options.profile,
        oracle: options.oracle,
        hop: scenario.network.links.hop,
        loss: scenario.code_loss(),
        coding: options.coding,
        hand_over: options.hand_over,
        substitute_after: options.substitute_after,
        connections: options.connections,
        repair: options.repair,
        uplink_bps: scenario.network.links.uplink_bps,
        gossip: options.gossip,
        mode: options.mode,
        heartbeat: scenario.gossip.heartbeat,
        measured: None,
    }
}

fn contenders(scenario: &Scenario, coding: u16) -> Vec<Contender> {
    let loss = scenario.network.links.loss.mean();
    let turbine = ShredsConfig {
        spread: Spread::Turbine { fanout: scenario.turbine.fanout },
        cut: CutRule::Agave(coding),
        owed: scenario.turbine.owed,
        repair_after: scenario.turbine.repair,
    };
    let rotor = ShredsConfig {
        spread: Spread::Rotor,
        cut: CutRule::Alpenglow(coding),
        owed: false,
        repair_after: scenario.rotor.repair,
    };
    let direct = ShredsConfig {
        spread: Spread::Direct,
        cut: CutRule::Fragcast(loss),
        owed: false,
        repair_after: DIRECT_REPAIR,
    };
    let mut contenders = vec![
        Contender::Fragcast(fragcast(scenario)),
        Contender::Shreds(turbine),
        Contender::Shreds(rotor),
        Contender::Shreds(direct),
    ];
    let mut meshes = scenario.gossip.mesh.clone();
    if !meshes.contains(&BASED_OP_MESH) {
        meshes.push(BASED_OP_MESH);
    }
    meshes.sort_unstable();
    contenders.extend(meshes.into_iter().map(|d| {
        Contender::Gossip(GossipConfig {
            heartbeat: scenario.gossip.heartbeat,
            idontwant: scenario.gossip.idontwant,
            validation: scenario.gossip.validation,
            ..GossipConfig::with_mesh(d)
        })
    }));
    contenders
}

/// Notes on the settings, for the reader of a report.
fn remarks(scenario: &Scenario, nodes: usize, contenders: &[Contender]) -> Vec<String> {
    let mut remarks = vec![
        "A node that never completes counts in the mean at the end of its run; a node that had to \
         ask counts at the time of the answer."
            .to_owned(),
        "A relay can beat the limit, which is the direct path, where delays break the triangle \
         inequality; the relayed limit is the shortest path over any relays; turbine, rotor and direct send datagrams without connections, so that \
         nothing limits their peers."
            .to_owned(),
    ];
    if scenario.fragcast.oracle {
        remarks.insert(
            0,
            "FRAGCAST'S LEADERS WERE GIVEN THE TRUE DELAYS (--oracle): its figures show what \
             measuring costs, not what nodes reach that must measure."
                .to_owned(),
        );
    }
    let limit = scenario.fragcast.connections as usize;
    if nodes > limit + 1 && contenders.iter().any(|c| matches!(c, Contender::Fragcast(_))) {
        remarks.push(format!(
            "fragcast's nodes hold {limit} connections at most, fewer than {nodes} nodes: its \
             leaders plan within that limit, and connections follow the plan. \
             `--connections {}` shows it without.",
            nodes - 1
        ));
    }
    remarks
}
