//! Lines that come again and again: the first at once, the next ones seldom.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Kinds of lines that are remembered; beyond, the one that was written longest ago is forgotten.
const MAX_KINDS: usize = 1024;

/// How seldom a line is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The pause after the first line.
    pub first: Duration,
    /// The longest pause; each is twice the one before.
    pub most: Duration,
}

impl Pace {
    /// Once a minute at most.
    pub const MINUTE: Self = Self { first: Duration::from_secs(60), most: Duration::from_secs(60) };
    /// After a minute, two, four, up to an hour.
    pub const BACK_OFF: Self =
        Self { first: Duration::from_secs(60), most: Duration::from_secs(3_600) };
}

#[derive(Debug, Clone, Copy)]
struct Kind {
    at: Instant,
    pause: Duration,
    left_out: u64,
}

/// Decides which lines are written. About 100 bytes a kind of line.
#[derive(Debug)]
pub struct Limiter<K>(BTreeMap<K, Kind>);

impl<K> Default for Limiter<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Limiter<K> {
    /// Whether to write a line of this kind now; if so, how many were left out since the last one.
    pub fn pass(&mut self, kind: K, pace: Pace, now: Instant) -> Option<u64> {
        if let Some(known) = self.0.get_mut(&kind) {
            if now.duration_since(known.at) < known.pause {
                known.left_out += 1;
                return None;
            }
            // One that has not come for long is as good as new.
            let fresh = now.duration_since(known.at) > 2 * known.pause.max(pace.most);
            let pause = if fresh { pace.first } else { (known.pause * 2).min(pace.most) };
            let left_out = known.left_out;
            *known = Kind { at: now, pause, left_out: 0 };
            return Some(left_out);
        }
        if self.0.len() >= MAX_KINDS
            && let Some(oldest) = self.0.iter().min_by_key(|(_, kind)| kind.at)
        {
            let oldest = oldest.0.clone();
            self.0.remove(&oldest);
        }
        self.0.insert(kind, Kind { at: now, pause: pace.first, left_out: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_passes_and_the_next_ones_ever_more_seldom() {
        let mut limiter = Limiter::default();
        let start = Instant::now();
        let hours = 6;
        let passed: Vec<(u64, u64)> = (0..hours * 3_600)
            .filter_map(|second| {
                let now = start + Duration::from_secs(second);
                limiter.pass("idle", Pace::BACK_OFF, now).map(|left_out| (second, left_out))
            })
            .collect();
        assert_eq!(passed[..4], [(0, 0), (60, 59), (180, 119), (420, 239)]);
        assert!(passed.len() < 14, "{passed:?}");
        let passed = (0..600).filter(|second| {
            let now = start + Duration::from_secs(*second);
            limiter.pass("mismatch", Pace::MINUTE, now).is_some()
        });
        assert_eq!(passed.count(), 10);
    }

    #[test]
    fn kinds_do_not_disturb_one_another_and_are_bounded() {
        let mut limiter = Limiter::default();
        let now = Instant::now();
        for kind in 0..5_000 {
            assert_eq!(limiter.pass(kind, Pace::MINUTE, now), Some(0));
            assert_eq!(limiter.pass(kind, Pace::MINUTE, now), None);
        }
        assert_eq!(limiter.0.len(), MAX_KINDS);
    }
}
