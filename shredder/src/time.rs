//! Time as a number that the caller hands in: this crate and the protocol read no clock.

use std::time::Duration;

/// A point in time: nanoseconds since an epoch of the caller's choice.
///
/// A node counts from the Unix epoch, netsim from the start of a run. Shreds carry microseconds;
/// [`from_micros`](Self::from_micros) and [`as_micros`](Self::as_micros) convert where they are
/// read and written.
///
/// ```
/// use std::time::Duration;
///
/// use fragcast_shredder::Timestamp;
///
/// let sent = Timestamp::from_micros(1_700_000_000_000_000);
/// let received = sent + Duration::from_millis(80);
/// assert_eq!(received.since(sent), Duration::from_millis(80));
/// // Clocks of two machines may disagree: a negative difference counts as none.
/// assert_eq!(sent.since(received), Duration::ZERO);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time `micros` microseconds after the epoch, or the last one there is (584 years after
    /// it) if that is later. A peer may have written any number.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// Whole microseconds since the epoch, as shreds carry them.
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates at the last time there is.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_saturate_at_both_ends() {
        let last = Timestamp::from_nanos(u64::MAX);
        assert_eq!(Timestamp::from_micros(u64::MAX), last);
        assert_eq!(last + Duration::from_nanos(1), last);
        assert_eq!(Timestamp::default().since(last), Duration::ZERO);
        assert_eq!(Timestamp::from_micros(7).as_micros(), 7);
    }
}
