//! The keys of a scenario's file with their bounds.

use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use fragcast_turbine::schedule::MAX_SUBSTITUTES;
use fragcast_turbine::{Mode, Policy, Profile};
use toml::de::DeTable;

use super::expect::{Expectation, PROTOCOLS};
use super::fault::{FaultKind, FaultOptions};
use super::reader::{Problems, Section, number};
use super::{LoadOptions, MAX_MESSAGE, MIN_MESSAGE, Network, Scenario, ScenarioError, Shape};
use crate::link::Loss;
use crate::topology::{MAX_NODES, MIN_NODES, Source, parse_regions};

/// Megabits per second of a link.
pub(super) const MBIT: RangeInclusive<f64> = 0.01..=400_000.0;
/// The most blocks of a run.
pub(super) const MAX_BLOCKS: u64 = 1_000;
/// The most frags of a block.
pub(super) const MAX_FRAGS: u64 = 1_000;
const POLICIES: [(&str, Policy); 3] =
    [("off", Policy::Off), ("standby", Policy::Standby), ("always", Policy::Always)];
const PROFILES: [(&str, Profile); 2] = [("lean", Profile::Lean), ("fast", Profile::Fast)];
const MODES: [(&str, Mode); 3] =
    [("auto", Mode::Auto), ("turbine", Mode::Turbine), ("gossip", Mode::Gossip)];
const MAX_LEADERS: u64 = 100;
const MAX_FAULTS: usize = 100;
const MAX_NODES_U64: u64 = MAX_NODES as u64;
/// Loss. None of the protocols is designed for more than a half.
const LOSS: RangeInclusive<f64> = 0.0..=0.5;
const MIB: RangeInclusive<f64> = 0.0..=1_048_576.0;
const MESSAGE: RangeInclusive<u64> = MIN_MESSAGE as u64..=MAX_MESSAGE as u64;
/// Milliseconds between messages, and of waiting.
const PAUSE_MS: RangeInclusive<f64> = 0.0..=60_000.0;

/// Reads a scenario from text.
pub(super) fn scenario(text: &str, file: &str, folder: &Path) -> Result<Scenario, ScenarioError> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let problems = Problems::new(text);
    if errors.is_empty() {
        let mut scenario = Scenario { file: file.into(), ..Scenario::default() };
        root(&mut scenario, Section::root(&problems, &document), folder);
        if problems.is_empty() {
            for fault in &scenario.faults {
                if let Some(message) = fault.kind.misfit(&scenario.load) {
                    problems.add_at(fault.position.clone(), message);
                }
            }
            let mut registrations = scenario
                .faults
                .iter()
                .filter(|fault| matches!(fault.kind, FaultKind::Registration { .. }));
            let first = registrations.next();
            for more in registrations {
                let message = "a second registration; a run has one at most";
                problems.add_at(more.position.clone(), message.into());
            }
            let churns = |fault: &&FaultOptions| matches!(fault.kind, FaultKind::Churn { .. });
            let mut churning = scenario.faults.iter().filter(churns);
            let churn = churning.next();
            if let Some(more) = churning.next() {
                let message = "a second churn; a run has one at most";
                problems.add_at(more.position.clone(), message.into());
            }
            let alone = scenario.fragcast.gossip == Policy::Off && scenario.network.guests == 0;
            if let Some(churn) = churn.filter(|_| !alone) {
                let message = "churn with `fragcast.gossip` or `network.guests`: the models of these \
                               have one membership table; leave them out";
                problems.add_at(churn.position.clone(), message.into());
            }
            if let Some(first) = first.filter(|_| scenario.fragcast.gossip != Policy::Off) {
                let message = "a registration with `fragcast.gossip`: the model of gossip has one \
                               list of gateways; set it to \"off\"";
                problems.add_at(first.position.clone(), message.into());
            }
        }
        if problems.is_empty() {
            return Ok(scenario);
        }
    }
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        problems.add(&span, format!("not TOML: {}", error.message()));
    }
    Err(ScenarioError::wrong(file, problems.into_inner()))
}

fn root(scenario: &mut Scenario, mut section: Section<'_, '_, '_>, folder: &Path) {
    if !section.has("name") {
        section.missing("name", "a few words for tables, in quotes");
    }
    if !section.has("description") {
        section.missing("description", "what happens and how it ends, for a person, in quotes");
    }
    if let Some(name) = section.text("name", 1..=60) {
        scenario.name = name.into();
    }
    if let Some(description) = section.text("description", 1..=2_000) {
        scenario.description = description.trim().into();
    }
    section.whole("seed", 0..=i64::MAX as u64, &mut scenario.seed);
    if let Some(inner) = section.table("network") {
        network(&mut scenario.network, inner, folder);
    }
    if let Some(inner) = section.table("load") {
        load(&mut scenario.load, inner);
    }
    protocols(scenario, &mut section);
    let faults = section.tables("fault");
    if let Some(more) = faults.get(MAX_FAULTS) {
        let message = format!("more than {MAX_FAULTS} faults; name several nodes in one");
        section.problems.add_at(more.position(), message);
    }
    let read = |section| FaultOptions::read(section, &scenario.load);
    scenario.faults = faults.into_iter().take(MAX_FAULTS).filter_map(read).collect();
    if let Some(mut inner) = section.table("expect") {
        for protocol in PROTOCOLS {
            if let Some(shares) = inner.table(protocol) {
                scenario.expect.insert(protocol.into(), expectation(shares));
            }
        }
        inner.finish();
    }
    section.finish();
}

fn network(network: &mut Network, mut section: Section<'_, '_, '_>, folder: &Path) {
    let nodes = section.get("nodes");
    let mut count = None;
    section.whole_option("nodes", MIN_NODES as u64..=MAX_NODES_U64, &mut count);
    if let Some(count) = count {
        network.source = Source::Default { nodes: count };
    }
    let topology = section.get("topology");
    if let Some(text) = section.text("topology", 1..=4_096)
        && let Some(value) = topology
        && text != "default"
    {
        if is_csv(text) {
            let path = path(&section, &value.span(), "topology", text, folder);
            network.source = path.map_or(Source::Regions(Vec::new()), Source::Csv);
        } else if text.contains(':') {
            match parse_regions(text) {
                Ok(regions) => network.source = Source::Regions(regions),
                Err(error) => section
                    .problems
                    .add(&value.span(), format!("`{}`: {error}", section.name("topology"))),
            }
        } else {
            section.wrong(
                value,
                "topology",
                "\"default\", regions as in \"us-east-1:30,eu-central-1:50\", or the path of a \
                 .csv file",
            );
        }
    }
    for (key, field) in
        [("latency", &mut network.latency), ("latency_p90", &mut network.latency_p90)]
    {
        let value = section.get(key);
        if let (Some(text), Some(value)) = (section.text(key, 1..=4_096), value) {
            *field = path(&section, &value.span(), key, text, folder);
        }
    }
    let measured = section.has("latency");
    let elsewhere = topology.is_some_and(|value| value.get_ref().as_str() != Some("default"));
    if let Some(nodes) = nodes
        && (elsewhere || measured)
    {
        let message = "`network.nodes` is of the default topology without `latency`; leave it \
                       out, the topology says how many there are";
        section.problems.add(&nodes.span(), message.into());
    }
    if let Some(value) = section.get("latency_p90") {
        if !measured {
            let message = "`network.latency_p90` needs `latency` beside it: the medians";
            section.problems.add(&value.span(), message.into());
        } else if topology.and_then(|value| value.get_ref().as_str()).is_some_and(is_csv) {
            let message = "`network.latency_p90` is between regions, and says nothing of the \
                           places in a .csv file; leave it out";
            section.problems.add(&value.span(), message.into());
        }
    }
    section.whole("guests", 0..=MAX_NODES_U64, &mut network.guests);
    section.number("pair_factor", 0.0..=1.0, &mut network.pair_factor);
    links(network, &mut section);
    section.finish();
}

fn is_csv(text: &str) -> bool {
    text.to_ascii_lowercase().ends_with(".csv")
}

/// Resolves the path of a file that a scenario names.
fn path(
    section: &Section<'_, '_, '_>,
    span: &Range<usize>,
    key: &str,
    text: &str,
    folder: &Path,
) -> Option<PathBuf> {
    let path = folder.join(text);
    if path.is_file() {
        return Some(path);
    }
    let name = section.name(key);
    let message =
        format!("`{name}`: there is no such file; paths are relative to the scenario's folder");
    section.problems.add(span, message);
    None
}

fn links(network: &mut Network, section: &mut Section<'_, '_, '_>) {
    let links = &mut network.links;
    section.scaled("uplink_mbit", MBIT, 1e6, &mut links.uplink_bps);
    section.scaled("downlink_mbit", MBIT, 1e6, &mut links.downlink_bps);
    let mib = f64::from(1u32 << 20);
    section.scaled("uplink_queue_mib", MIB, mib, &mut links.uplink_queue);
    section.scaled("downlink_queue_mib", MIB, mib, &mut links.downlink_queue);
    if let Some(value) = section.get("loss") {
        match (number(value, &LOSS), section.inner(value, "loss")) {
            (Some(p), _) => links.loss = Loss::Independent(p),
            (None, Some(mut inner)) => {
                let (mut mean, mut burst) = (links.loss.mean(), 1.0);
                inner.number("mean", LOSS, &mut mean);
                inner.number("burst", 1.0..=1_000.0, &mut burst);
                for key in ["mean", "burst"] {
                    if !inner.has(key) {
                        inner.missing(key, "loss in bursts is { mean = 0.02, burst = 4.0 }");
                    }
                }
                links.loss = Loss::Bursty { mean, burst };
                inner.finish();
            }
            _ => section.wrong(
                value,
                "loss",
                "a number from 0 to 0.5, or { mean = 0.02, burst = 4.0 }",
            ),
        }
    }
    section.scaled("jitter_us", 0.0..=1_000_000.0, 1e3, &mut links.jitter);
    if let Some(mut inner) = section.table("reorder") {
        inner.number("share", 0.0..=1.0, &mut links.reorder.0);
        inner.scaled("delay_ms", 0.0..=10_000.0, 1e6, &mut links.reorder.1);
        inner.finish();
    }
    section.scaled("hop_us", 0.0..=1_000_000.0, 1e3, &mut links.hop);
    section.scaled("packet_cpu_ns", 0.0..=1_000_000.0, 1.0, &mut links.packet_cpu);
}

fn load(load: &mut LoadOptions, mut section: Section<'_, '_, '_>) {
    section.whole("leaders", 1..=MAX_LEADERS, &mut load.leaders);
    section.wholes("frag_bytes", MESSAGE, MAX_FRAGS as usize, &mut load.frag_bytes);
    section.choice("shape", &mut load.shape);
    section.scaled("patience_ms", 0.0..=3_600_000.0, 1e6, &mut load.patience);
    section.whole("blocks", 1..=MAX_BLOCKS, &mut load.blocks);
    section.whole("blocks_per_term", 1..=1_000_000, &mut load.blocks_per_term);
    section.whole("frags", 1..=MAX_FRAGS, &mut load.frags);
    section.scaled("interval_ms", PAUSE_MS, 1e6, &mut load.interval);
    section.scaled("seal_after_ms", PAUSE_MS, 1e6, &mut load.seal_after);
    let mut block = u64::MAX;
    section.scaled("block_ms", 0.0..=3_600_000.0, 1e6, &mut block);
    load.block = (block != u64::MAX).then_some(block);
    section.whole("env_bytes", MESSAGE, &mut load.env_bytes);
    section.whole("seal_bytes", MESSAGE, &mut load.seal_bytes);
    let sealed = load.offset(load.seal());
    if load.shape == Shape::Blocks && load.block_time() < sealed {
        // Blocks do not overlap: an Env comes after the previous Seal.
        let keys = ["block_ms", "seal_after_ms", "interval_ms", "frags"];
        let key = keys.into_iter().find(|key| section.has(key)).unwrap_or("shape");
        if let Some(value) = section.get(key) {
            let must = format!(
                "such that a block has time for its Seal, {} ms after its Env: the next Env comes \
                 after {} ms",
                sealed as f64 / 1e6,
                load.block_time() as f64 / 1e6
            );
            section.wrong(value, key, &must);
        }
    }
    section.finish();
}

fn protocols(scenario: &mut Scenario, section: &mut Section<'_, '_, '_>) {
    const REPAIR_MS: RangeInclusive<f64> = 1.0..=60_000.0;
    if let Some(mut inner) = section.table("fragcast") {
        let options = &mut scenario.fragcast;
        inner.choice("route", &mut options.route);
        inner.whole("fanout", 1..=MAX_NODES_U64, &mut options.fanout);
        let mut loss = f64::NAN;
        inner.number("loss", LOSS, &mut loss);
        options.loss = (!loss.is_nan()).then_some(loss);
        inner.number("coding", 0.0..=63.0, &mut options.coding);
        inner.choice_of("profile", &PROFILES, &mut options.profile);
        inner.whole("connections", 1..=MAX_NODES_U64, &mut options.connections);
        inner.flag("hand_over", &mut options.hand_over);
        inner.whole("substitutes", 0..=u64::from(MAX_SUBSTITUTES), &mut options.substitutes);
        inner.scaled("substitute_after_ms", PAUSE_MS, 1e6, &mut options.substitute_after);
        inner.flag("repair", &mut options.repair);
        inner.choice_of("gossip", &POLICIES, &mut options.gossip);
        inner.choice_of("mode", &MODES, &mut options.mode);
        if options.mode == Mode::Gossip
            && options.gossip == Policy::Off
            && let Some(value) = inner.get("mode")
        {
            inner.wrong(value, "mode", "another one, or `gossip` beside it \"standby\"");
        }
        inner.finish();
    }
    if let Some(mut inner) = section.table("turbine") {
        inner.whole("fanout", 1..=MAX_NODES_U64, &mut scenario.turbine.fanout);
        inner.flag("owed", &mut scenario.turbine.owed);
        inner.scaled("repair_ms", REPAIR_MS, 1e6, &mut scenario.turbine.repair);
        inner.finish();
    }
    if let Some(mut inner) = section.table("rotor") {
        inner.scaled("repair_ms", REPAIR_MS, 1e6, &mut scenario.rotor.repair);
        inner.finish();
    }
    if let Some(mut inner) = section.table("gossip") {
        let options = &mut scenario.gossip;
        inner.wholes("mesh", 1..=64, 32, &mut options.mesh);
        inner.scaled("heartbeat_ms", 1.0..=60_000.0, 1e6, &mut options.heartbeat);
        inner.flag("idontwant", &mut options.idontwant);
        inner.scaled("validation_us", 0.0..=1_000_000.0, 1e3, &mut options.validation);
        inner.finish();
    }
}

fn expectation(mut section: Section<'_, '_, '_>) -> Expectation {
    let mut expectation = Expectation::default();
    let share = 0.0..=1.0;
    section.pair("complete", &share, &mut expectation.complete);
    section.pair("spread", &share, &mut expectation.spread);
    section.pair("repaired", &share, &mut expectation.repaired);
    section.pair("convicted", &share, &mut expectation.convicted);
    section.pair("gossiped", &share, &mut expectation.gossiped);
    section.pair("gossip_bytes", &share, &mut expectation.gossip_bytes);
    section.pair("on_turbine", &share, &mut expectation.on_turbine);
    let count = 0.0..=1e9;
    section.pair("fallbacks", &count, &mut expectation.fallbacks);
    section.pair("returns", &count, &mut expectation.returns);
    section.pair("flaps", &count, &mut expectation.flaps);
    section.pair("fall_back_ms", &count, &mut expectation.fall_back_ms);
    section.pair("over_still", &count, &mut expectation.over_still);
    section.finish();
    expectation
}
