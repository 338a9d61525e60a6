//! `netsim emulate` and `netsim validate`, which run real nodes.

use std::io::Write as _;

use fragcast_turbine::{Config, Mode, Policy, Route, RoutePolicy};

use super::WorldArgs;
use crate::emulate::{EmulateArgs, EmulateError, Emulation};
use crate::engine::{self, Setup};
use crate::fault::Faults;
use crate::protocols::fragcast::{Fragcast, FragcastConfig, Network};
use crate::scenario::Scenario;
use crate::topology::{self, Source};
use crate::validate::{Baseline, Comparison, ValidateArgs};
use crate::{Nanos, SECONDS};

/// Arguments of `netsim emulate`.
#[derive(Debug, Clone, clap::Args)]
pub struct EmulateCommand {
    /// Where the nodes are. Without flags: 20 nodes in five AWS regions.
    #[command(flatten)]
    pub world: WorldArgs,
    /// Arguments of the emulation.
    #[command(flatten)]
    pub emulate: EmulateArgs,
}

/// Arguments of `netsim validate`.
#[derive(Debug, Clone, clap::Args)]
pub struct ValidateCommand {
    /// Where the nodes are. Without flags: 20 nodes in five AWS regions.
    #[command(flatten)]
    pub world: WorldArgs,
    /// Arguments of the emulation.
    #[command(flatten)]
    pub validate: ValidateArgs,
}

/// 20 nodes in five regions on three continents. With the first node as leader, the median and the
/// 90th percentile each fall among the nodes of one region. A percentile that fell between two
/// regions would stand on a step of tens of milliseconds, and a few late messages would move it
/// from one side to the other.
const REGIONS: &str = "us-east-1:3,us-west-2:4,eu-central-1:6,ap-northeast-1:4,ap-southeast-1:3";

fn emulation(world: &WorldArgs, args: &EmulateArgs) -> anyhow::Result<Emulation> {
    let mut scenario = Scenario { seed: args.seed, ..Scenario::default() };
    let asked = world.topology.is_some() || world.nodes.is_some();
    let world = match asked {
        true => world.clone(),
        false => WorldArgs { topology: Some(REGIONS.into()), ..world.clone() },
    };
    if world.nodes.is_some() {
        scenario.network.source = Source::Default { nodes: 20 };
    }
    world.apply(&mut scenario)?;
    let built = topology::build(&scenario.world())?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", built.world.source)?;
    built.notes.iter().try_for_each(|note| writeln!(out, "  {note}"))?;
    let mut emulation = args.emulation(built.world);
    if !asked {
        emulation.leader = emulation.leader.or(Some(0));
    }
    Ok(emulation)
}

/// Runs `netsim emulate`.
pub(super) fn emulate(args: &EmulateCommand) -> anyhow::Result<bool> {
    let measured = emulation(&args.world, &args.emulate)?.run()?;
    writeln!(std::io::stdout(), "{measured}")?;
    Ok(measured.missed() == 0)
}

/// Times of the same messages over the same links in virtual time, by message and node.
fn modelled(emulation: &Emulation) -> Result<Vec<Vec<Nanos>>, EmulateError> {
    let load = emulation.load()?;
    let faults = Faults::default();
    let config = FragcastConfig {
        gossip: Policy::Off,
        mode: Mode::Auto,
        heartbeat: 0,
        measured: None,
        route: match emulation.route.as_str() {
            "direct" => RoutePolicy::Fixed(Route::Direct),
            "rotor" => RoutePolicy::Fixed(Route::Rotor),
            "turbine" => RoutePolicy::Fixed(Config::TREE),
            _ => RoutePolicy::Auto,
        },
        loss: emulation.coded_loss,
        coding: Config::new(0).relayed_coding,
        profile: Config::new(0).profile,
        oracle: false,
        hand_over: false,
        substitute_after: crate::SECONDS,
        hop: emulation.links.hop,
        connections: 1024,
        repair: true,
        uplink_bps: emulation.links.uplink_bps,
    };
    let world = &emulation.world;
    let mut overlay = Fragcast::new(&config, &Network::new(world), &load, emulation.seed);
    let setup = Setup {
        world,
        links: emulation.links,
        faults: &faults,
        load: &load,
        seed: emulation.seed,
        patience: 10 * SECONDS,
    };
    let outcome = engine::run(setup, &mut overlay);
    Ok(outcome.completions.into_iter().map(|completion| completion.after).collect())
}

/// Runs `netsim validate`.
pub(super) fn validate(args: &ValidateCommand) -> anyhow::Result<bool> {
    let emulation = emulation(&args.world, &args.validate.emulate)?;
    let virtual_times = modelled(&emulation)?;
    let measured = emulation.run()?;
    let baseline = match args.validate.no_baseline {
        true => None,
        false => {
            let still = emulation.baseline();
            Some(Baseline::new(&still.run()?, &modelled(&still)?))
        }
    };
    let comparison = Comparison::new(&measured, &virtual_times, baseline);
    writeln!(std::io::stdout(), "{comparison}")?;
    Ok(comparison.holds(args.validate.tolerance))
}
