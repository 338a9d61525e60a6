//! `netsim validate`: compares the times of real nodes with the model of the same network.
//!
//! Both run the same messages over the same delays, losses and rates. The time that the model
//! leaves out is bounded rather than fitted. The *baseline* runs the same nodes and messages
//! without delay and loss, so its times are those of processing, timers and the emulator on this
//! machine. The model contains part of that, serialisation and its cost of a hop, so the times of
//! the model over the baseline's links are subtracted. The difference is an upper bound, since
//! without delays all nodes need the processors at once, and with delays one after another. A real
//! median below the model's, or above it by more than this bound, is unexplained.

use std::fmt;

use fragcast_shredder::Kind;

use crate::Nanos;
use crate::emulate::{EmulateArgs, MachineUse, Measured, RelayStats};
use crate::outcome::NEVER;

/// Arguments of `netsim validate`.
#[derive(Debug, Clone, clap::Args)]
pub struct ValidateArgs {
    /// The emulation and its model.
    #[command(flatten)]
    pub emulate: EmulateArgs,
    /// Leaves out the run without delays, which measures the time of processing.
    #[arg(long)]
    pub no_baseline: bool,
    /// The largest unexplained part of the real median and 90th percentile, in % of the model's.
    /// Above it the program fails.
    #[arg(long, default_value_t = 10.0)]
    pub tolerance: f64,
}

/// A distribution of times in milliseconds over (message, node) pairs, without the leader's.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Distribution {
    /// Median. Here and below, pairs that never completed count as later than all others.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// Mean of the pairs that completed.
    pub mean: Option<f64>,
    /// Pairs that never completed.
    pub missed: usize,
    /// Pairs in all.
    pub pairs: usize,
}

impl Distribution {
    /// The distribution of times, in which `None` is never.
    pub fn new(times: impl Iterator<Item = Option<f64>>) -> Self {
        let (mut done, mut missed) = (Vec::new(), 0);
        for time in times {
            match time {
                Some(time) => done.push(time),
                None => missed += 1,
            }
        }
        done.sort_by(f64::total_cmp);
        let pairs = done.len() + missed;
        // Nearest rank: the smallest time that this percentage of all pairs does not exceed.
        let rank = |percent: usize| done.get((pairs * percent).div_ceil(100).max(1) - 1).copied();
        Self {
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
            mean: (!done.is_empty()).then(|| done.iter().sum::<f64>() / done.len() as f64),
            missed,
            pairs,
        }
    }

    /// The distribution of real nodes.
    pub fn real(measured: &Measured) -> Self {
        let leader = measured.leader as usize;
        Self::new(measured.times_ms.iter().flat_map(|row| others(row, leader)))
    }

    /// The distribution of the model's times by message and node.
    pub fn modelled(times: &[Vec<Nanos>], leader: usize) -> Self {
        let ms = |at: Nanos| (at != NEVER).then_some(at as f64 / 1e6);
        Self::new(times.iter().flat_map(|row| others(row, leader)).map(ms))
    }
}

fn others<T: Copy>(row: &[T], leader: usize) -> impl Iterator<Item = T> + '_ {
    row.iter().enumerate().filter(move |(node, _)| *node != leader).map(|(_, time)| *time)
}

/// The run without delays, and the model of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// Real nodes.
    pub real: Distribution,
    /// The model.
    pub modelled: Distribution,
    /// Use of the machine.
    pub machine: Option<MachineUse>,
}

impl Baseline {
    /// From a run of [`Emulation::baseline`](crate::emulate::Emulation::baseline) and the model's
    /// times of it.
    pub fn new(measured: &Measured, modelled: &[Vec<Nanos>]) -> Self {
        Self {
            real: Distribution::real(measured),
            modelled: Distribution::modelled(modelled, measured.leader as usize),
            machine: measured.machine,
        }
    }

    /// The upper bound of the time that processing and scheduling take beyond the model, by the
    /// medians, in ms.
    pub fn processing(&self) -> Option<f64> {
        Some((self.real.p50? - self.modelled.p50?).max(0.0))
    }
}

/// The comparison of real nodes with the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Real nodes.
    pub real: Distribution,
    /// The model.
    pub modelled: Distribution,
    /// The run without delays, if there was one.
    pub baseline: Option<Baseline>,
    /// The link emulator's numbers.
    pub relay: RelayStats,
    /// Use of the machine.
    pub machine: Option<MachineUse>,
}

/// The difference of `a` to `b`, in % of `b`.
fn excess(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    let (a, b) = (a?, b.filter(|b| *b > 0.0)?);
    Some((a / b - 1.0) * 100.0)
}

impl Comparison {
    /// Compares a run with the model's times by message and node.
    pub fn new(measured: &Measured, modelled: &[Vec<Nanos>], baseline: Option<Baseline>) -> Self {
        Self {
            real: Distribution::real(measured),
            modelled: Distribution::modelled(modelled, measured.leader as usize),
            baseline,
            relay: measured.relay.clone(),
            machine: measured.machine,
        }
    }

    /// Real over model in %: median, 90th and 99th percentile, mean.
    pub fn difference(&self) -> [Option<f64>; 4] {
        let (real, modelled) = (&self.real, &self.modelled);
        [
            excess(real.p50, modelled.p50),
            excess(real.p90, modelled.p90),
            excess(real.p99, modelled.p99),
            excess(real.mean, modelled.mean),
        ]
    }

    /// Real median minus the model's, in ms.
    pub fn beyond_model(&self) -> Option<f64> {
        Some(self.real.p50? - self.modelled.p50?)
    }

    /// The part of that which is below zero or above the bound of processing, in ms.
    pub fn unexplained(&self) -> Option<f64> {
        let most = self.baseline.as_ref().map_or(Some(0.0), Baseline::processing)?;
        let beyond = self.beyond_model()?;
        Some(beyond - beyond.clamp(0.0, most))
    }

    /// The same for the 90th percentiles.
    pub fn unexplained_p90(&self) -> Option<f64> {
        let most = match &self.baseline {
            Some(still) => (still.real.p90? - still.modelled.p90?).max(0.0),
            None => 0.0,
        };
        let beyond = self.real.p90? - self.modelled.p90?;
        Some(beyond - beyond.clamp(0.0, most))
    }

    /// Whether every node got every message, and the unexplained part of median and 90th percentile
    /// is at most this percentage of the model's.
    pub fn holds(&self, tolerance: f64) -> bool {
        let within = |left: Option<f64>, of: Option<f64>| {
            left.zip(of).is_some_and(|(left, of)| left.abs() * 100.0 <= tolerance * of)
        };
        self.real.missed == 0
            && within(self.unexplained(), self.modelled.p50)
            && within(self.unexplained_p90(), self.modelled.p90)
    }
}

/// A formatted time; a dash if there is none.
fn ms(time: Option<f64>) -> String {
    time.map_or_else(|| "–".into(), |time| format!("{time:.2}"))
}

fn heading(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "{:<22}{:>10}{:>10}{:>10}{:>10}  missed", "ms", "p50", "p90", "p99", "mean")
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, of: &Distribution) -> fmt::Result {
    let [p50, p90, p99, mean] = [of.p50, of.p90, of.p99, of.mean].map(ms);
    writeln!(f, "{name:<22}{p50:>10}{p90:>10}{p99:>10}{mean:>10}  {} of {}", of.missed, of.pairs)
}

/// The lines on the relay and the machine.
fn costs(
    f: &mut fmt::Formatter<'_>,
    relay: &RelayStats,
    machine: Option<MachineUse>,
) -> fmt::Result {
    let RelayStats { packets, lost, lateness: late, .. } = relay;
    let dropped = relay.dropped_uplink + relay.dropped_downlink;
    writeln!(
        f,
        "relay: {packets} packets, {lost} lost, {dropped} dropped by full queues; late by p50 {} \
         µs, p99 {} µs, at most {} µs a hop",
        late.p50, late.p99, late.max
    )?;
    if relay.overflow + relay.refused > 0 {
        let failed = relay.overflow + relay.refused;
        writeln!(f, "warning: the relay itself failed to carry {failed} packets")?;
    }
    let Some(machine) = machine else { return Ok(()) };
    writeln!(f, "machine: {machine}")?;
    if machine.saturated() {
        writeln!(
            f,
            "warning: the processors were saturated, so these times are theirs: send less with \
             --kb or --interval-ms, or use fewer nodes"
        )?;
    }
    Ok(())
}

/// The output of `netsim emulate`.
impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        heading(f)?;
        row(f, "all messages", &Distribution::real(self))?;
        for (name, kind) in [("Env", Kind::Env), ("frags", Kind::Frag), ("Seal", Kind::Seal)] {
            let rows = self.messages.iter().zip(&self.times_ms);
            let times = rows
                .filter(|(message, _)| message.kind == kind)
                .flat_map(|(_, row)| others(row, self.leader as usize));
            row(f, name, &Distribution::new(times))?;
        }
        costs(f, &self.relay, self.machine)
    }
}

/// The output of `netsim validate`.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        heading(f)?;
        row(f, "real nodes", &self.real)?;
        row(f, "model", &self.modelled)?;
        if let Some(baseline) = &self.baseline {
            row(f, "real, no delays", &baseline.real)?;
            row(f, "model, no delays", &baseline.modelled)?;
        }
        let percent =
            |share: Option<f64>| share.map_or_else(|| "–".into(), |share| format!("{share:+.1} %"));
        let [p50, p90, p99, mean] = self.difference().map(percent);
        writeln!(f, "{:<22}{p50:>10}{p90:>10}{p99:>10}{mean:>10}", "real over model")?;

        let signed = |time: Option<f64>| time.map_or_else(|| "–".into(), |t| format!("{t:+.2}"));
        let (real, model) = (ms(self.real.p50), ms(self.modelled.p50));
        writeln!(f, "\nmedian: {real} ms = model {model} {}", signed(self.beyond_model()))?;
        if let Some(baseline) = &self.baseline {
            writeln!(
                f,
                "processing and scheduling, relay included: at most {} ms, by the run without \
                 delays, in which all nodes work at once; {} unexplained",
                ms(baseline.processing()),
                signed(self.unexplained())
            )?;
            if let Some(machine) = baseline.machine {
                writeln!(f, "machine, no delays: {machine}")?;
            }
        }
        costs(f, &self.relay, self.machine)
    }
}

#[cfg(test)]
mod tests;
