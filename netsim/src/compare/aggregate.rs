//! Aggregates outcomes to the numbers of a table.

use std::collections::BTreeMap;

use fragcast_turbine::{Mode, Policy};

use super::{Contender, Plan, Run, counted};
use crate::link::LinkConfig;
use crate::outcome::NEVER;
use crate::results::{Fallback, Protocol, Ratio, Times};
use crate::scenario::Shares;
use crate::{MILLIS, Nanos, NodeId, SECONDS};

/// The most points of a curve.
const POINTS: usize = 200;

/// Times of pairs, grouped by leader so that the worst leader can be reported.
#[derive(Debug, Default, Clone)]
struct Sample {
    /// By case and leader: the time of each pair (`NEVER` for a missed one) and the time that it
    /// counts as in a mean.
    by_leader: BTreeMap<(usize, NodeId), Vec<(Nanos, Nanos)>>,
}

impl Sample {
    fn mean_of(pairs: impl Iterator<Item = Nanos>) -> Option<f64> {
        let (mut sum, mut n) = (0u128, 0u64);
        for counts_as in pairs {
            sum += u128::from(counts_as);
            n += 1;
        }
        (n > 0).then(|| sum as f64 / n as f64 / MILLIS as f64)
    }

    fn mean(&self) -> Option<f64> {
        Self::mean_of(self.by_leader.values().flatten().map(|pair| pair.1))
    }

    fn leader_means(&self) -> Vec<Option<f64>> {
        let mean = |pairs: &Vec<(Nanos, Nanos)>| Self::mean_of(pairs.iter().map(|pair| pair.1));
        self.by_leader.values().map(mean).collect()
    }

    fn push(&mut self, case: usize, leader: NodeId, time: Nanos, counts_as: Nanos) {
        self.by_leader.entry((case, leader)).or_default().push((time, counts_as));
    }

    fn sorted(&self) -> Vec<Nanos> {
        let mut all: Vec<Nanos> = self.by_leader.values().flatten().map(|pair| pair.0).collect();
        all.sort_unstable();
        all
    }
}

fn millis(nanos: Nanos) -> Option<f64> {
    (nanos != NEVER).then_some(nanos as f64 / MILLIS as f64)
}

/// The nearest-rank percentile: the smallest value that at least `percent` of all do not exceed.
pub(super) fn percentile(sorted: &[Nanos], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    millis(*sorted.get(rank - 1)?)
}

fn times(sample: &Sample, sorted: &[Nanos]) -> Times {
    Times {
        mean: sample.mean(),
        p50: percentile(sorted, 50),
        p90: percentile(sorted, 90),
        p99: percentile(sorted, 99),
    }
}

fn over(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) if b > 0.0 => Some(a / b),
        _ => None,
    }
}

/// The share of pairs that are complete, over time, reduced to [`POINTS`] points.
fn cdf(sorted: &[Nanos]) -> Vec<(f64, f64)> {
    let n = sorted.len();
    let done = sorted.iter().filter(|t| **t != NEVER).count();
    let mut points = Vec::with_capacity(POINTS + 1);
    for i in 0..=POINTS {
        let rank = (done * i / POINTS).max(1);
        if let Some(time) = sorted.get(rank - 1).copied().and_then(millis)
            && rank <= done
        {
            points.push((time, rank as f64 / n as f64));
        }
    }
    points.dedup();
    points
}

/// Aggregates the runs of one world.
pub(super) struct Aggregator<'a> {
    plan: &'a Plan,
    world: usize,
    limits: &'a [Vec<Vec<Nanos>>],
    limit: Sample,
}

/// The times of the pairs that count, of all pairs by case, broadcast and node.
fn counting(plan: &Plan, all: &[Vec<Vec<Nanos>>]) -> Sample {
    let mut sample = Sample::default();
    for (c, (case, times)) in plan.cases.iter().zip(all).enumerate() {
        for (broadcast, times) in case.load.broadcasts.iter().zip(times) {
            if broadcast.expected {
                for node in counted(times.len(), &case.load, broadcast, &case.faults) {
                    let time = times[node as usize];
                    sample.push(c, broadcast.leader, time, time);
                }
            }
        }
    }
    sample
}

impl<'a> Aggregator<'a> {
    pub(super) fn new(plan: &'a Plan, world: usize, limits: &'a [Vec<Vec<Nanos>>]) -> Self {
        Self { plan, world, limits, limit: counting(plan, limits) }
    }

    /// The row of the limit.
    pub(super) fn limit(&self) -> Protocol {
        self.bound(&self.limit, self.limits, "delay and transmission".into())
    }

    /// The row of the relayed limit, from its times by case, broadcast and node.
    pub(super) fn relayed_limit(&self, times: &[Vec<Vec<Nanos>>]) -> Protocol {
        let LinkConfig { hop, packet_cpu, .. } = self.plan.links;
        let ms = (hop + packet_cpu) as f64 / MILLIS as f64;
        let detail = format!("shortest path over any relays, {ms} ms at each, and transmission");
        self.bound(&counting(self.plan, times), times, detail)
    }

    /// The row of a bound.
    fn bound(&self, sample: &Sample, all: &[Vec<Vec<Nanos>>], detail: String) -> Protocol {
        let sorted = sample.sorted();
        let after = |case: usize, broadcast: usize, node: u32| all[case][broadcast][node as usize];
        let times = times(sample, &sorted);
        Protocol {
            ratio: self.ratio(sample, &times),
            missed: 0,
            repaired: 0,
            pairs: sorted.len() as u64,
            bytes_per_payload_byte: self.limit_bytes(),
            next_leader_p99: self.next_leader(after),
            detail,
            tried: Vec::new(),
            busiest: (0.0, String::new()),
            degree: (0, None),
            dropped: 0,
            node_shreds: 0,
            cdf: cdf(&sorted),
            sent_mb: Vec::new(),
            by_place: self.by_place(after),
            fallback: None,
            times,
        }
    }

    /// The ratios of a sample, whose times are given, to the limit.
    fn ratio(&self, sample: &Sample, times: &Times) -> Ratio {
        let limit = self::times(&self.limit, &self.limit.sorted());
        let worst = sample
            .leader_means()
            .into_iter()
            .zip(self.limit.leader_means())
            .filter_map(|(ours, limit)| over(ours, limit))
            .max_by(f64::total_cmp);
        Ratio {
            mean: over(times.mean, limit.mean),
            p50: over(times.p50, limit.p50),
            p90: over(times.p90, limit.p90),
            p99: over(times.p99, limit.p99),
            worst_leader: worst,
        }
    }

    /// Every node has to receive k shreds, so some node has to send them.
    fn limit_bytes(&self) -> f64 {
        let (mut framed, mut payload) = (0u64, 0u64);
        for broadcast in self.plan.cases.iter().flat_map(|case| &case.load.broadcasts) {
            let loss = self.plan.links.loss.mean();
            framed += crate::protocols::limit::framed_message(broadcast.bytes, loss);
            payload += u64::from(broadcast.bytes);
        }
        framed as f64 / payload.max(1) as f64
    }

    fn pairs<'b>(
        &'b self,
        after: impl Fn(usize, usize, u32) -> Nanos + 'b,
    ) -> impl Iterator<Item = (usize, usize, u32, Nanos)> + 'b {
        let n = self.plan.worlds[self.world].1.len();
        let after = std::rc::Rc::new(after);
        self.plan.cases.iter().enumerate().flat_map(move |(c, case)| {
            let after = after.clone();
            case.load.broadcasts.iter().enumerate().filter(|(_, b)| b.expected).flat_map(
                move |(b, broadcast)| {
                    let after = after.clone();
                    counted(n, &case.load, broadcast, &case.faults)
                        .into_iter()
                        .map(move |node| (c, b, node, after(c, b, node)))
                },
            )
        })
    }

    fn next_leader(&self, after: impl Fn(usize, usize, u32) -> Nanos) -> Option<f64> {
        let mut times = Vec::new();
        for (c, case) in self.plan.cases.iter().enumerate() {
            for (b, broadcast) in case.load.broadcasts.iter().enumerate() {
                if let Some(next) = case.load.next_leader(broadcast.key.block)
                    && broadcast.expected
                    && !case.faults.crashed().contains(&next)
                {
                    times.push(after(c, b, next));
                }
            }
        }
        times.sort_unstable();
        percentile(&times, 99)
    }

    fn by_place(&self, after: impl Fn(usize, usize, u32) -> Nanos) -> Vec<Option<f64>> {
        let world = &self.plan.worlds[self.world].1;
        let mut sums = vec![(0u128, 0u64); world.places.len()];
        for (_, _, node, time) in self.pairs(after) {
            if time != NEVER {
                let place = &mut sums[usize::from(world.nodes[node as usize].place)];
                *place = (place.0 + u128::from(time), place.1 + 1);
            }
        }
        let mean =
            |(sum, n): &(u128, u64)| (*n > 0).then(|| *sum as f64 / *n as f64 / MILLIS as f64);
        sums.iter().map(mean).collect()
    }

    /// The row of a contender. `runs` are its runs in this world, by case.
    pub(super) fn protocol(&self, contender: &Contender, runs: &[&Run]) -> Protocol {
        let after = |case: usize, broadcast: usize, node: u32| {
            runs[case].outcome.completions[broadcast].after[node as usize]
        };
        let mut sample = Sample::default();
        let (mut missed, mut repaired) = (0, 0);
        for (case, b, node, time) in self.pairs(after) {
            let outcome = &runs[case].outcome;
            let counts_as = match time {
                NEVER => outcome.end - self.plan.cases[case].load.broadcasts[b].at,
                time => time,
            };
            missed += u64::from(time == NEVER);
            repaired += u64::from(outcome.completions[b].repaired[node as usize]);
            let leader = self.plan.cases[case].load.broadcasts[b].leader;
            sample.push(case, leader, time, counts_as);
        }
        let sorted = sample.sorted();
        let times = times(&sample, &sorted);
        let (sent_mb, busiest) = self.sent(runs);
        Protocol {
            ratio: self.ratio(&sample, &times),
            missed,
            repaired,
            pairs: sorted.len() as u64,
            bytes_per_payload_byte: self.bytes_per_payload_byte(runs),
            next_leader_p99: self.next_leader(after),
            detail: detail(contender) + &warm_up(runs),
            tried: Vec::new(),
            busiest,
            degree: (
                runs.iter().flat_map(|r| &r.outcome.degree).copied().max().unwrap_or(0),
                limit_of(contender),
            ),
            dropped: runs
                .iter()
                .map(|r| r.outcome.dropped_uplink + r.outcome.dropped_downlink + r.outcome.refused)
                .sum(),
            node_shreds: runs.iter().map(|r| r.outcome.handled).sum(),
            cdf: cdf(&sorted),
            sent_mb,
            by_place: self.by_place(after),
            fallback: self.fallback(contender, runs),
            times,
        }
    }

    /// The numbers of the fallback, if the contender has one.
    fn fallback(&self, contender: &Contender, runs: &[&Run]) -> Option<Fallback> {
        let Contender::Fragcast(config) = contender else { return None };
        if config.gossip == Policy::Off {
            return None;
        }
        let mut shares = Shares::default();
        for run in runs {
            let case = &self.plan.cases[run.case];
            shares.add(&Shares::of(&run.outcome, &case.load, &case.faults));
        }
        let changes = shares.changes;
        Some(Fallback {
            turbine: shares.spread,
            repair: shares.repaired,
            gossip: shares.gossiped,
            gossip_bytes: shares.gossip_bytes as f64 / shares.bytes.max(1) as f64,
            fallbacks: changes.fallbacks,
            returns: changes.returns,
            probes: changes.probes,
            flaps: changes.flaps,
            slowest_ms: changes.slowest as f64 / MILLIS as f64,
            dwell: changes.dwell,
            on_gossip: changes.on_gossip,
        })
    }

    fn bytes_per_payload_byte(&self, runs: &[&Run]) -> f64 {
        let sent: u64 = runs.iter().flat_map(|run| &run.outcome.sent).sum();
        let n = self.plan.worlds[self.world].1.len() as f64;
        let payload: u64 = self.plan.cases.iter().map(|case| case.load.bytes()).sum();
        sent as f64 / (payload as f64 * n).max(1.0)
    }

    /// MB that each node sent per message, in falling order and reduced to [`POINTS`] points; and
    /// the most that one node sent per message of one run, with its name.
    fn sent(&self, runs: &[&Run]) -> (Vec<f64>, (f64, String)) {
        let world = &self.plan.worlds[self.world].1;
        let messages: usize = self.plan.cases.iter().map(|c| c.load.broadcasts.len()).sum();
        let mut total = vec![0u64; world.len()];
        let mut busiest = (0.0, String::new());
        for run in runs {
            total.iter_mut().zip(&run.outcome.sent).for_each(|(total, sent)| *total += sent);
            let (node, most) = run.outcome.busiest();
            let per_run = self.plan.cases[run.case].load.broadcasts.len().max(1) as f64;
            let most = most as f64 / per_run / 1e6;
            if most > busiest.0 {
                busiest = (most, world.nodes[node as usize].id.clone());
            }
        }
        total.sort_unstable_by(|a, b| b.cmp(a));
        let step = total.len().div_ceil(POINTS).max(1);
        let mb = |sent: &u64| *sent as f64 / messages.max(1) as f64 / 1e6;
        (total.iter().step_by(step).map(mb).collect(), busiest)
    }
}

/// What nodes did before a run, of the run in which it took most.
fn warm_up(runs: &[&Run]) -> String {
    let most = runs.iter().filter_map(|run| run.outcome.warm_up).max_by_key(|(_, bytes)| *bytes);
    most.map_or_else(String::new, |(span, bytes)| {
        let (seconds, megabytes) = (span / SECONDS, bytes as f64 / 1e6);
        format!(", delays measured by the nodes in {seconds} s before ({megabytes:.1} MB sent)")
    })
}

fn detail(contender: &Contender) -> String {
    match contender {
        Contender::Fragcast(config) => format!(
            "route {}, code for {} % loss a hop, with relays at least {} coding shreds for a data \
             shred{}{}",
            match config.route {
                fragcast_turbine::RoutePolicy::Auto => "auto",
                fragcast_turbine::RoutePolicy::Regional => "regional",
                fragcast_turbine::RoutePolicy::Fixed(route) => route.name(),
            },
            config.loss * 100.0,
            config.coding,
            match (config.oracle, config.repair) {
                (true, _) => format!(", profile {}, GIVEN THE TRUE DELAYS", config.profile.name()),
                (false, true) => String::new(),
                (false, false) => ", no repair".to_owned(),
            },
            match (config.gossip, config.mode) {
                (Policy::Off, _) => String::new(),
                (policy, Mode::Auto) => format!(", gossip {policy}"),
                (policy, mode) => format!(", gossip {policy}, mode {mode}"),
            },
        ),
        Contender::Shreds(config) => config.describe(),
        Contender::Gossip(config) => format!("D = {}", config.d),
    }
}

fn limit_of(contender: &Contender) -> Option<u32> {
    match contender {
        Contender::Fragcast(config) => Some(config.connections),
        Contender::Shreds(_) => None,
        Contender::Gossip(config) => Some(config.connections),
    }
}
