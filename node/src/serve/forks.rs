//! Forks that this build lacks: when they come, and what is said about it.
//!
//! From such a fork on no block is verified, so operators are told a week before, once a day, and
//! every hour once it is active.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fragcast_execution::chain::ChainSpec;
use serde_json::{Value, json};

/// How long before a fork it is told.
const AHEAD: u64 = 7 * 24 * 3_600;
/// How often it is told before the fork.
const DAILY: u64 = 24 * 3_600;
/// How often it is told once the fork is active.
const HOURLY: u64 = 3_600;
/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// The time, Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// How near a fork is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// More than a week away.
    Far,
    /// It comes within a week.
    Soon,
    /// It is active.
    Active,
}

/// How near the fork at `time` is.
pub(crate) const fn stage(time: u64, now: u64) -> Stage {
    if time <= now {
        Stage::Active
    } else if time - now <= AHEAD {
        Stage::Soon
    } else {
        Stage::Far
    }
}

/// When a fork was last told of.
#[derive(Debug, Default)]
struct Told(Option<(Stage, u64)>);

impl Told {
    /// Whether to tell of the fork at `time` now; remembers that it was told.
    fn due(&mut self, time: u64, now: u64) -> Option<Stage> {
        let stage = stage(time, now);
        let every = match stage {
            Stage::Far => return None,
            Stage::Soon => DAILY,
            Stage::Active => HOURLY,
        };
        if let Some((before, at)) = self.0
            && before == stage
            && now < at.saturating_add(every)
        {
            return None;
        }
        self.0 = Some((stage, now));
        Some(stage)
    }
}

fn tell(fork: &str, time: u64, stage: Stage, now: u64) {
    match stage {
        Stage::Far => {}
        Stage::Soon => tracing::warn!(
            fork,
            time,
            hours = time.saturating_sub(now) / 3_600,
            "a fork comes that this build lacks: blocks from then on will not be verified; update \
             fragcast before"
        ),
        Stage::Active => tracing::error!(
            fork,
            time,
            "a fork is active that this build lacks: no block is verified any more; update fragcast"
        ),
    }
}

/// Tells the log of forks that `spec` lacks, as long as the node runs.
pub(crate) async fn watch(spec: Arc<ChainSpec>) {
    let mut told: Vec<Told> = spec.lacking().iter().map(|_| Told::default()).collect();
    if told.is_empty() {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        ticks.tick().await;
        let now = now();
        for ((time, fork), told) in spec.lacking().iter().zip(&mut told) {
            if let Some(stage) = told.due(*time, now) {
                tell(fork, *time, stage, now);
            }
        }
    }
}

/// What the status says about it.
pub(crate) fn status(spec: &ChainSpec, now: u64) -> Value {
    let of = |(time, fork): &(u64, String)| {
        let stage = match stage(*time, now) {
            Stage::Far => "far",
            Stage::Soon => "soon",
            Stage::Active => "active",
        };
        json!({ "fork": fork, "time": time, "stage": stage })
    };
    spec.lacking().iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_is_told_daily_from_a_week_before_and_hourly_when_it_is_active() {
        let fork = 100 * DAILY;
        let mut told = Told::default();
        assert_eq!(told.due(fork, fork - AHEAD - 1), None);
        assert_eq!(told.due(fork, fork - AHEAD), Some(Stage::Soon));
        assert_eq!(told.due(fork, fork - AHEAD + 60), None);
        assert_eq!(told.due(fork, fork - AHEAD + DAILY), Some(Stage::Soon));
        assert_eq!(told.due(fork, fork - 1), Some(Stage::Soon));
        // That it is active now is told at once.
        assert_eq!(told.due(fork, fork), Some(Stage::Active));
        assert_eq!(told.due(fork, fork + HOURLY - 1), None);
        assert_eq!(told.due(fork, fork + HOURLY), Some(Stage::Active));
        // As is one that was active when the node started.
        assert_eq!(Told::default().due(fork, fork + DAILY), Some(Stage::Active));
    }

    #[test]
    fn the_status_names_each_fork_and_how_near_it_is() {
        let spec = ChainSpec::load("base").unwrap();
        let (time, fork) = spec.lacking()[0].clone();
        for (now, stage) in [(time - AHEAD - 1, "far"), (time - 1, "soon"), (time, "active")] {
            let expected = json!([{ "fork": fork, "time": time, "stage": stage }]);
            assert_eq!(status(&spec, now), expected);
        }
        assert_eq!(status(&ChainSpec::op_mainnet(), time), json!([]));
    }
}
