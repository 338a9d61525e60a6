//! A limit for lines of the log that somebody else can cause.

use std::time::Duration;

use tokio::time::Instant;

use crate::bucket::{Bucket, Rate};
use crate::time::Timestamp;

/// Lets some lines through and counts the others, so that who causes them fills no disk.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use std::time::Duration;
///
/// use fragcast_turbine::net::LogLimit;
///
/// let mut limit = LogLimit::new(Duration::from_secs(60), 2);
/// assert_eq!([limit.allow(), limit.allow(), limit.allow()], [Some(0), Some(0), None]);
/// # });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LogLimit {
    rate: Rate,
    bucket: Bucket,
    since: Instant,
    suppressed: u64,
}

impl LogLimit {
    /// One line in each `period`, and so many at once.
    pub fn new(period: Duration, at_once: u32) -> Self {
        let rate = Rate::new(1, period, at_once.into());
        Self { rate, bucket: Bucket::default(), since: Instant::now(), suppressed: 0 }
    }

    /// Whether to write a line now: then how many were not since the last one.
    pub fn allow(&mut self) -> Option<u64> {
        let now = Timestamp::default() + self.since.elapsed();
        if self.bucket.take(now, &self.rate, 1) {
            return Some(std::mem::take(&mut self.suppressed));
        }
        self.suppressed += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_are_let_through_at_a_rate_and_the_rest_is_counted() {
        let mut limit = LogLimit::new(Duration::from_secs(10), 3);
        let written = (0..1_000).filter(|_| limit.allow().is_some()).count();
        assert_eq!(written, 3);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!((limit.allow(), limit.allow()), (Some(997), None));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(limit.allow(), Some(1));
    }
}
