//! A bucket that leaks: what was taken in excess of a rate.

use tokio::time::Instant;

/// Fills by what is counted, leaks at a rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    pub(super) const fn new(now: Instant) -> Self {
        Self { level: 0.0, at: now }
    }

    /// Counts `cost`; says whether the bucket still holds it.
    pub(super) fn take(&mut self, now: Instant, cost: f64, rate: f64, capacity: f64) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.level = (self.level - elapsed * rate).max(0.0) + cost;
        self.level <= capacity
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_held_and_a_burst_allowed() {
        let mut bucket = Bucket::new(Instant::now());
        for _ in 0..10 {
            assert!(bucket.take(Instant::now(), 1.0, 2.0, 10.0));
        }
        assert!(!bucket.take(Instant::now(), 1.0, 2.0, 10.0));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(bucket.take(Instant::now(), 1.0, 2.0, 10.0));
        for _ in 0..100 {
            tokio::time::advance(Duration::from_millis(500)).await;
            assert!(bucket.take(Instant::now(), 1.0, 2.0, 10.0));
        }
    }
}
