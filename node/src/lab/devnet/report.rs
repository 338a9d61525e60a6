//! The output of a devnet: one line for each node while it runs, a table and a report at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use fragcast_execution::executor::BlockReport;
use fragcast_turbine::health::{Change, Reason, State};
use fragcast_turbine::output::Via;
use fragcast_turbine::{Led, Route};
use hdrhistogram::Histogram;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::DevnetArgs;
use crate::lab::local::LocalNetwork;

fn percentiles(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
    json!({ "p50": ms(0.5), "p99": ms(0.99) })
}

pub(super) fn summary(args: &DevnetArgs, network: &LocalNetwork) -> Value {
    // Those who joined later are told of by themselves.
    let n = usize::from(args.nodes);
    let verified: Vec<usize> =
        (0..n).map(|i| network.track(i, |t| t.verdicts("verified"))).collect();
    let rejected: Vec<usize> =
        (0..n).map(|i| network.track(i, |t| t.verdicts("rejected"))).collect();
    let all_verified = verified.iter().all(|verified| *verified as u64 == args.blocks);
    let executed = Executed::of(network);
    let sealed: Vec<usize> = (0..n).map(|i| network.track(i, |t| t.sealed())).collect();
    let digest = network.sent_digest();
    let equal = (0..n).all(|i| network.track(i, |t| t.digest()) == digest);
    let complete = sealed.iter().all(|sealed| *sealed as u64 == args.blocks);
    let mut all = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
    let mut next = all.clone();
    let mut ways: BTreeMap<Via, u64> = BTreeMap::new();
    for i in 0..n {
        network.track(i, |track| {
            for (via, n) in &track.by_way {
                *ways.entry(*via).or_default() += n;
            }
            // Both have the same bounds.
            let _ = all.add(&track.latency);
            let _ = next.add(&track.as_next_leader);
        });
    }
    let by = |via| ways.get(&via).copied().unwrap_or(0);
    json!({
        "ok": complete && equal && all_verified,
        "nodes": n,
        "blocks": args.blocks,
        "sealed": sealed,
        "verified": verified,
        "rejected": rejected,
        "execution": executed.to_json(),
        // What came over the network, by the way that was first.
        "messages": {
            "turbine": by(Via::Turbine),
            "gossip": by(Via::Gossip),
            "repair": by(Via::Repair) + by(Via::Whole),
        },
        "fallback": Fallback::of(network).to_json(),
        "latency_ms": { "all": percentiles(&all), "next_leader": percentiles(&next) },
        "routes": routes(network),
        "digest": digest,
        "digests_equal": equal,
    })
}

/// By block and leader: the routes of its messages, by rising length as a rule, and its plan.
fn routes(network: &LocalNetwork) -> Vec<Value> {
    let mut all: Vec<(usize, Led)> = Vec::new();
    for (i, node) in (0..network.len()).filter_map(|i| Some((i, network.node(i)?))) {
        node.state().with_progress(|p| all.extend(p.led.iter().map(|led| (i, *led))));
    }
    all.sort_by_key(|(_, led)| (led.block, led.attempt));
    let of = |(leader, led): (usize, Led)| {
        json!({
            "block": led.block,
            "attempt": led.attempt,
            "leader": leader,
            "route": led.route.name(),
            "roots": match led.route {
                Route::Regional { roots } => Some(roots),
                _ => None,
            },
            "plan": format!("{:016x}", led.plan),
            "version": led.version,
        })
    };
    all.into_iter().map(of).collect()
}

/// How many blocks were sent over each route, and over how many plans.
fn describe_routes(routes: &[Value]) -> String {
    let mut blocks = BTreeMap::<&str, BTreeSet<u64>>::new();
    for row in routes {
        let name = row["route"].as_str().unwrap_or_default();
        blocks.entry(name).or_default().extend(row["block"].as_u64());
    }
    let named = blocks.iter().map(|(name, blocks)| format!("{name} {}", blocks.len()));
    let plans: BTreeSet<&str> = routes.iter().filter_map(|row| row["plan"].as_str()).collect();
    let planned = routes.iter().filter(|row| row["version"] != 0);
    let planned: BTreeSet<&str> = planned.filter_map(|row| row["plan"].as_str()).collect();
    format!(
        "blocks by route: {}; plans: {}, of which {} were made from measured delays",
        named.collect::<Vec<_>>().join(", "),
        plans.len(),
        planned.len(),
    )
}

pub(super) fn print_table(
    args: &DevnetArgs,
    network: &LocalNetwork,
    summary: &Value,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:>4}  {:<8}  {:>6}  {:>8}  {:>8}  {:>8}  {:>8}  {:>9}  {:>9}  {:>6}  {:>6}  {:>8}  digest",
        "node",
        "peer",
        "sealed",
        "verified",
        "messages",
        "p50 ms",
        "p99 ms",
        "forwarded",
        "recovered",
        "Mgas",
        "Mgas/s",
        "seal ms"
    )?;
    for (i, node) in (0..network.len()).filter_map(|i| Some((i, network.node(i)?))) {
        let net = node.state().net.snapshot();
        let ms = |histogram: &Histogram<u64>, quantile| {
            if histogram.is_empty() {
                return "-".to_owned();
            }
            format!("{:.2}", histogram.value_at_quantile(quantile) as f64 / 1_000.0)
        };
        network.track(i, |track| {
            writeln!(
                out,
                "{i:>4}  {:<8?}  {:>6}  {:>8}  {:>8}  {:>8}  {:>8}  {:>9}  {:>9}  {:>6.1}  {:>6.0}  {:>8.2}  {:.8}…",
                node.state().peer,
                track.sealed(),
                track.verdicts("verified"),
                track.messages,
                ms(&track.latency, 0.5),
                ms(&track.latency, 0.99),
                net.counters.forwarded,
                net.counters.recovered,
                Executed::sum(track.reports.values()).mgas(),
                Executed::sum(track.reports.values()).mgas_per_second(),
                Executed::sum(track.reports.values()).seal_ms(),
                alloy_primitives::hex::encode(track.digest()),
            )
        })?;
    }
    let sealed = summary["sealed"]
        .as_array()
        .map_or(0, |all| all.iter().filter(|n| n.as_u64() == Some(args.blocks)).count());
    for (i, reason) in complaints(network) {
        writeln!(out, "node {i}: {reason}")?;
    }
    let messages = &summary["messages"];
    writeln!(
        out,
        "messages by the way that was first: turbine {}, repair {}, gossip {}",
        messages["turbine"], messages["repair"], messages["gossip"]
    )?;
    if let Some(routes) = summary["routes"].as_array().filter(|routes| !routes.is_empty()) {
        writeln!(out, "{}", describe_routes(routes))?;
    }
    if let Some(text) = Fallback::of(network).describe() {
        writeln!(out, "{text}")?;
    }
    let verified = summary["verified"]
        .as_array()
        .map_or(0, |all| all.iter().filter(|n| n.as_u64() == Some(args.blocks)).count());
    let mark = if summary["ok"] == true { "ok" } else { "FAILED" };
    writeln!(
        out,
        "{mark}: {sealed} of {} nodes sealed {} blocks, {verified} verified them all; digests {}; \
         latency {}, next leader {}",
        args.nodes,
        args.blocks,
        if summary["digests_equal"] == true { "equal the gateway's" } else { "DIFFER" },
        summary["latency_ms"]["all"],
        summary["latency_ms"]["next_leader"],
    )?;
    Ok(())
}

/// Which nodes fell back, when, and which returned.
struct Fallback {
    /// Changes to gossip, and back, by node.
    falls: Vec<usize>,
    returns: Vec<usize>,
    /// Nodes that rely on gossip at the end.
    on_gossip: usize,
    /// From the first message that the overlay missed to the node's change, milliseconds.
    took_ms: Vec<f64>,
    /// Nodes that did not fall back although UDP was blocked: at least the leader.
    stayed: usize,
    reasons: BTreeMap<String, u64>,
}

impl Fallback {
    fn of(network: &LocalNetwork) -> Self {
        let mut all = Self {
            falls: Vec::new(),
            returns: Vec::new(),
            on_gossip: 0,
            took_ms: Vec::new(),
            stayed: 0,
            reasons: BTreeMap::new(),
        };
        for node in network.nodes() {
            let changes: Vec<Change> = node.state().with_progress(|p| {
                // What was ordered is no failure.
                let own = |change: &&Change| change.reason != Reason::Operator;
                p.changes.iter().filter(own).copied().collect()
            });
            let to = |state| changes.iter().filter(|change| change.to == state).count();
            all.falls.push(to(State::Gossip));
            let back = |c: &&Change| c.from == State::Gossip && c.to == State::Turbine;
            all.returns.push(changes.iter().filter(back).count());
            all.on_gossip += usize::from(changes.last().is_some_and(|c| c.to == State::Gossip));
            for change in &changes {
                let what = format!("{}: {}", change.to.name(), change.reason.name());
                *all.reasons.entry(what).or_default() += 1;
            }
            for cut in network.cuts() {
                let Some(missing) = cut.missing else { continue };
                let during = cut.from..cut.until.unwrap_or(u64::MAX);
                let fell = |c: &&Change| c.to == State::Gossip && during.contains(&c.at.as_nanos());
                match changes.iter().find(fell) {
                    Some(fell) => {
                        let took = fell.at.as_nanos().saturating_sub(missing);
                        all.took_ms.push(took as f64 / 1e6);
                    }
                    None => all.stayed += 1,
                }
            }
        }
        all
    }

    fn worst_ms(&self) -> Option<f64> {
        self.took_ms.iter().copied().max_by(f64::total_cmp)
    }

    fn to_json(&self) -> Value {
        json!({
            "falls": self.falls,
            "returns": self.returns,
            "on_gossip": self.on_gossip,
            "worst_ms": self.worst_ms(),
            "stayed": self.stayed,
            "changes": self.reasons,
        })
    }

    fn describe(&self) -> Option<String> {
        let falls: usize = self.falls.iter().sum();
        if falls == 0 {
            return None;
        }
        let within = self.worst_ms().map_or(String::new(), |ms| {
            format!(" within {ms:.0} ms of the first message that the overlay missed")
        });
        Some(format!(
            "{} nodes fell back to gossip {falls} times{within}; {} returned, {} count on gossip \
             at the end",
            self.falls.iter().filter(|n| **n > 0).count(),
            self.returns.iter().filter(|n| **n > 0).count(),
            self.on_gossip,
        ))
    }
}

/// The most unverified blocks that are listed one by one.
const MAX_COMPLAINTS: usize = 10;

/// Blocks that were not verified, by node.
fn complaints(network: &LocalNetwork) -> Vec<(usize, String)> {
    let of = |i| {
        network.track(i, |track| {
            let reports = track.reports.values();
            let told = reports.filter_map(|report| {
                let reason = report.verdict.reason()?;
                Some((i, format!("block {} {}: {reason}", report.number, report.verdict.name())))
            });
            told.collect::<Vec<_>>()
        })
    };
    (0..network.len()).flat_map(of).take(MAX_COMPLAINTS).collect()
}

/// What was executed, summed over blocks.
#[derive(Debug, Clone, Copy, Default)]
struct Executed {
    blocks: u64,
    gas: u64,
    exec_ns: u64,
    seal_ns: u64,
    worst_seal_ns: u64,
}

impl Executed {
    fn sum<'a>(reports: impl Iterator<Item = &'a BlockReport>) -> Self {
        reports.fold(Self::default(), |sum, report| Self {
            blocks: sum.blocks + 1,
            gas: sum.gas + report.gas_used,
            exec_ns: sum.exec_ns + report.exec_ns,
            seal_ns: sum.seal_ns + report.last_frag_to_seal_ns,
            worst_seal_ns: sum.worst_seal_ns.max(report.last_frag_to_seal_ns),
        })
    }

    fn of(network: &LocalNetwork) -> Self {
        let nodes =
            (0..network.len()).map(|i| network.track(i, |track| Self::sum(track.reports.values())));
        nodes.fold(Self::default(), |a, b| Self {
            blocks: a.blocks + b.blocks,
            gas: a.gas + b.gas,
            exec_ns: a.exec_ns + b.exec_ns,
            seal_ns: a.seal_ns + b.seal_ns,
            worst_seal_ns: a.worst_seal_ns.max(b.worst_seal_ns),
        })
    }

    fn mgas(&self) -> f64 {
        self.gas as f64 / 1e6
    }

    fn mgas_per_second(&self) -> f64 {
        self.gas as f64 / 1e6 / (self.exec_ns.max(1) as f64 / 1e9)
    }

    /// Mean time from the last frag's execution to the checked Seal.
    fn seal_ms(&self) -> f64 {
        self.seal_ns as f64 / 1e6 / self.blocks.max(1) as f64
    }

    fn to_json(self) -> Value {
        json!({
            "gas": self.gas,
            "mgas_per_second": self.mgas_per_second(),
            "last_frag_to_seal_ms": {
                "mean": self.seal_ms(),
                "max": self.worst_seal_ns as f64 / 1e6,
            },
        })
    }
}

/// One line for each node while it runs; nothing if standard error is no terminal.
pub(super) struct View {
    bars: Vec<ProgressBar>,
}

impl View {
    pub(super) fn new(args: &DevnetArgs) -> Self {
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template(
            "node {prefix:>3} [{bar:24.cyan}] {pos:>4}/{len} sealed  {msg}",
        )
        .expect("a valid template")
        .progress_chars("=> ");
        let bars = (0..args.nodes)
            .map(|i| {
                let bar = ProgressBar::new(args.blocks).with_style(style.clone());
                all.add(bar).with_prefix(i.to_string())
            })
            .collect();
        Self { bars }
    }

    pub(super) fn update(&self, network: &LocalNetwork) {
        for (i, bar) in self.bars.iter().enumerate() {
            if bar.is_hidden() || i >= network.len() {
                return;
            }
            let Some(node) = network.node(i) else {
                bar.set_message("stopped");
                continue;
            };
            let net = node.state().net.snapshot();
            network.track(i, |track| {
                bar.set_position(track.sealed() as u64);
                bar.set_message(format!(
                    "{} messages, p50 {:.1} ms, {} forwarded, {} peers",
                    track.messages,
                    track.latency.value_at_quantile(0.5) as f64 / 1_000.0,
                    net.counters.forwarded,
                    net.connected,
                ));
            });
        }
    }

    pub(super) fn finish(&self) {
        self.bars.iter().for_each(ProgressBar::finish_and_clear);
    }
}
