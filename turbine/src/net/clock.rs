//! The one place where the driver reads a clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::time::Timestamp;

/// Unix time that never runs backwards: read once, then advanced by the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    epoch: u64,
}

impl Clock {
    /// Reads both clocks.
    #[expect(clippy::disallowed_methods, reason = "the driver is where time comes from")]
    pub fn new() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), epoch: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// Now, in nanoseconds since the Unix epoch.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.epoch) + self.start.elapsed()
    }

    /// The instant of a timestamp.
    pub fn instant(&self, at: Timestamp) -> Instant {
        self.start + at.since(Timestamp::from_nanos(self.epoch))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
