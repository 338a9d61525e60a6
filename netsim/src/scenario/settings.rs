//! Settings of a scenario for reports: by key, in the units of a file. Of paths only the last part
//! is shown, so that reports do not depend on folders.

use std::path::Path;

use super::{FaultKind, NodeName, Scenario, Shape, Who};
use crate::Nanos;
use crate::fault::Span;
use crate::input::file_name;
use crate::link::Loss;
use crate::topology::Source;

/// The most names of nodes or places that are listed.
const LISTED: usize = 8;

/// All settings in the order of `default.toml`.
pub(super) fn of(scenario: &Scenario) -> Vec<(String, String)> {
    let mut rows = vec![("scenario", scenario.name.clone()), ("seed", scenario.seed.to_string())];
    network(scenario, &mut rows);
    load(scenario, &mut rows);
    protocols(scenario, &mut rows);
    let mut rows: Vec<(String, String)> =
        rows.into_iter().map(|(name, value)| (name.into(), value)).collect();
    for (i, fault) in scenario.faults.iter().enumerate() {
        let name = format!("fault {} ({})", i + 1, fault.kind.name().replace('_', " "));
        rows.push((name, told(&fault.kind)));
    }
    rows
}

type Rows = Vec<(&'static str, String)>;

fn network(scenario: &Scenario, rows: &mut Rows) {
    let network = &scenario.network;
    let path = |path: &Option<_>| path.as_deref().map_or("none".into(), |p: &Path| file_name(p));
    let latency = path(&network.latency);
    match &network.source {
        Source::Default { nodes } => {
            rows.push(("network.topology", "default".into()));
            if network.latency.is_none() {
                rows.push(("network.nodes", nodes.to_string()));
            }
        }
        Source::Csv(path) => rows.push(("network.topology", file_name(path))),
        Source::Regions(regions) => {
            let counts: Vec<String> = regions.iter().map(|(r, n)| format!("{r}:{n}")).collect();
            rows.push(("network.topology", counts.join(",")));
        }
    }
    let links = &network.links;
    let loss = match links.loss {
        Loss::Independent(p) => p.to_string(),
        Loss::Bursty { mean, burst } => format!("{mean} in bursts of {burst}"),
    };
    let (share, delay) = links.reorder;
    let mib = |bytes: u64| (bytes as f64 / f64::from(1u32 << 20)).to_string();
    rows.extend([
        ("network.latency", latency),
        ("network.latency_p90", path(&network.latency_p90)),
        ("network.pair_factor", network.pair_factor.to_string()),
        ("network.uplink_mbit", mbit(links.uplink_bps)),
        ("network.downlink_mbit", mbit(links.downlink_bps)),
        ("network.uplink_queue_mib", mib(links.uplink_queue)),
        ("network.downlink_queue_mib", mib(links.downlink_queue)),
        ("network.loss", loss),
        ("network.jitter_us", us(links.jitter)),
        ("network.reorder", format!("{share} by {} ms", ms(delay))),
        ("network.hop_us", us(links.hop)),
        ("network.packet_cpu_ns", links.packet_cpu.to_string()),
    ]);
    rows.push(("network.guests", network.guests.to_string()));
}

fn load(scenario: &Scenario, rows: &mut Rows) {
    let load = &scenario.load;
    rows.extend([
        ("load.leaders", load.leaders.to_string()),
        ("load.frag_bytes", list(&load.frag_bytes)),
        ("load.shape", <&str>::from(load.shape).into()),
        ("load.patience_ms", ms(load.patience)),
    ]);
    if load.shape == Shape::Blocks {
        rows.extend([
            ("load.blocks", load.blocks.to_string()),
            ("load.blocks_per_term", load.blocks_per_term.to_string()),
            ("load.frags", load.frags.to_string()),
            ("load.interval_ms", ms(load.interval)),
            ("load.seal_after_ms", ms(load.seal_after)),
            ("load.block_ms", ms(load.block_time())),
            ("load.env_bytes", load.env_bytes.to_string()),
            ("load.seal_bytes", load.seal_bytes.to_string()),
        ]);
    }
}

fn protocols(scenario: &Scenario, rows: &mut Rows) {
    let Scenario { fragcast, turbine, rotor, gossip, .. } = scenario;
    rows.extend([
        ("fragcast.route", <&str>::from(fragcast.route).into()),
        ("fragcast.fanout", fragcast.fanout.to_string()),
        ("fragcast.loss", scenario.code_loss().to_string()),
        ("fragcast.coding", fragcast.coding.to_string()),
        ("fragcast.profile", fragcast.profile.name().into()),
        ("fragcast.delays", if fragcast.oracle { "GIVEN (--oracle)" } else { "measured" }.into()),
        ("fragcast.connections", fragcast.connections.to_string()),
        ("fragcast.hand_over", fragcast.hand_over.to_string()),
        ("fragcast.repair", fragcast.repair.to_string()),
        ("fragcast.gossip", fragcast.gossip.to_string()),
        ("fragcast.mode", fragcast.mode.to_string()),
        ("turbine.fanout", turbine.fanout.to_string()),
        ("turbine.owed", turbine.owed.to_string()),
        ("turbine.repair_ms", ms(turbine.repair)),
        ("rotor.repair_ms", ms(rotor.repair)),
        ("gossip.mesh", list(&gossip.mesh)),
        ("gossip.heartbeat_ms", ms(gossip.heartbeat)),
        ("gossip.idontwant", gossip.idontwant.to_string()),
        ("gossip.validation_us", us(gossip.validation)),
    ]);
    rows.extend([
        ("fragcast.substitutes", fragcast.substitutes.to_string()),
        ("fragcast.substitute_after_ms", ms(fragcast.substitute_after)),
    ]);
}

/// A short description of a fault.
fn told(kind: &FaultKind) -> String {
    match kind {
        FaultKind::Crash { who, span }
        | FaultKind::Silent { who, span }
        | FaultKind::Partition { who, span }
        | FaultKind::TurbineDown { who, span }
        | FaultKind::Registration { who, span } => format!("{}, {}", whom(who), when(*span)),
        FaultKind::SlowUplink { who, span, bps } => {
            format!("{}, {}, at {} Mbit/s", whom(who), when(*span), mbit(*bps))
        }
        FaultKind::Churn { share_a_minute, every } => {
            format!(
                "a share of {share_a_minute} of the nodes a minute, a table in {} ms",
                ms(*every)
            )
        }
        FaultKind::Equivocate { block, message } => format!("block {block}, message {message}"),
        FaultKind::Rebuild { block, after_message }
        | FaultKind::LeaderDies { block, after_message } => {
            format!("block {block}, after message {after_message}")
        }
    }
}

fn whom(who: &Who) -> String {
    match who {
        Who::Share { share, by_weight } => {
            let how = if *by_weight { "by weight" } else { "evenly" };
            format!("a share of {share} of the nodes, drawn {how}")
        }
        Who::Nodes(names) => {
            let names = names.iter().map(|name| match name {
                NodeName::Id(id) => id.clone(),
                NodeName::Index(index) => index.to_string(),
            });
            some("nodes", names)
        }
        Who::All => "all nodes".into(),
        Who::Places(names) => some("places", names.iter().cloned()),
    }
}

fn some(what: &str, names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let some: Vec<String> = names.take(LISTED).collect();
    let end = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{what} {}{end}", some.join(", "))
}

fn when((from, until): Span) -> String {
    match (from, until) {
        (0, Nanos::MAX) => "always".into(),
        (from, Nanos::MAX) => format!("from {} ms on", ms(from)),
        (from, until) => format!("from {} to {} ms", ms(from), ms(until)),
    }
}

fn list(numbers: &[u32]) -> String {
    some("", numbers.iter().map(u32::to_string)).trim_start().into()
}

fn ms(nanos: Nanos) -> String {
    (nanos as f64 / 1e6).to_string()
}

fn us(nanos: Nanos) -> String {
    (nanos as f64 / 1e3).to_string()
}

fn mbit(bps: u64) -> String {
    (bps as f64 / 1e6).to_string()
}
