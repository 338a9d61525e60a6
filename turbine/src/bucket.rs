//! The token bucket: a rate that may be exceeded for a moment.
//!
//! Kept as one time, the generic cell rate algorithm (ITU-T I.371): when all that was taken
//! would have been used up at the rate. So a bucket takes eight bytes, one that is full again can
//! be forgotten, and there is nothing to refill.

use std::time::Duration;

use crate::time::Timestamp;

/// What a bucket allows, in units of whoever uses it: bytes, messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Nanoseconds that a unit takes, in 2^-16ths, so that integers suffice up to 100 Gbit/s.
    nanos_per_unit: u64,
    /// How much may be taken at once, as the time that it takes.
    burst: Duration,
}

impl Rate {
    /// As many `units` in each `period`, and `burst` units at once.
    pub(crate) fn new(units: u64, period: Duration, burst: u64) -> Self {
        let nanos = (period.as_nanos() << 16) / u128::from(units.max(1));
        let nanos_per_unit = u64::try_from(nanos).unwrap_or(u64::MAX);
        let rate = Self { nanos_per_unit, burst: Duration::ZERO };
        Self { burst: rate.time(burst), ..rate }
    }

    /// The time that so many units take.
    pub(crate) fn time(&self, units: u64) -> Duration {
        let nanos = (u128::from(units) * u128::from(self.nanos_per_unit)) >> 16;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// What was taken at a [`Rate`], which every call must be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bucket {
    busy_until: Timestamp,
}

impl Bucket {
    /// Takes `units` if the burst still allows for them.
    pub(crate) fn take(&mut self, now: Timestamp, rate: &Rate, units: u64) -> bool {
        let mut after = *self;
        let fits = after.charge(now, rate, units);
        if fits {
            *self = after;
        }
        fits
    }

    /// Takes `units` in any case; says whether the burst allowed for them.
    pub(crate) fn charge(&mut self, now: Timestamp, rate: &Rate, units: u64) -> bool {
        self.busy_until = self.busy_until.max(now) + rate.time(units);
        self.busy_until.since(now) <= rate.burst
    }

    /// Takes `units` in any case, and never more in all than the burst: there are no debts.
    pub(crate) fn charge_within(&mut self, now: Timestamp, rate: &Rate, units: u64) {
        self.charge(now, rate, units);
        self.busy_until = self.busy_until.min(now + rate.burst);
    }

    /// When nothing of it will be in use.
    #[cfg(feature = "net")]
    pub(crate) const fn until(&self) -> Timestamp {
        self.busy_until
    }

    /// Whether nothing of it is in use.
    pub(crate) fn is_full(&self, now: Timestamp) -> bool {
        self.busy_until <= now
    }

    /// The rate changes from `old` to `new`: as many units as before are in use.
    #[cfg(any(test, feature = "gossip"))]
    pub(crate) fn change_rate(&mut self, now: Timestamp, old: &Rate, new: &Rate) {
        let used = self.busy_until.since(now).as_nanos() * u128::from(new.nanos_per_unit);
        let used = used / u128::from(old.nanos_per_unit.max(1));
        self.busy_until = now + Duration::from_nanos(u64::try_from(used).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos(1_700_000_000_000_000_000 + ms * 1_000_000)
    }

    #[test]
    fn a_rate_is_held_and_a_burst_allowed() {
        let rate = Rate::new(2, SECOND, 10);
        let mut bucket = Bucket::default();
        assert!((0..10).all(|_| bucket.take(at(0), &rate, 1)));
        assert!(!bucket.take(at(0), &rate, 1));
        // Two have become free, and what was refused cost nothing.
        assert!(bucket.take(at(1_000), &rate, 2));
        assert!(!bucket.take(at(1_000), &rate, 1));
        assert!(!bucket.is_full(at(5_999)) && bucket.is_full(at(6_000)));
    }

    #[test]
    fn what_is_charged_beyond_the_burst_must_be_worked_off() {
        let rate = Rate::new(1, SECOND, 3);
        let mut bucket = Bucket::default();
        assert!(bucket.charge(at(0), &rate, 3));
        assert!(!bucket.charge(at(0), &rate, 4));
        assert!(!bucket.charge(at(4_999), &rate, 1));
        assert!(bucket.charge(at(6_000), &rate, 1));
    }

    #[test]
    fn what_is_charged_within_the_burst_is_no_debt() {
        let rate = Rate::new(1, SECOND, 3);
        let mut bucket = Bucket::default();
        (0..1_000).for_each(|_| bucket.charge_within(at(0), &rate, 100));
        assert!(!bucket.take(at(0), &rate, 1));
        assert!(bucket.take(at(1_000), &rate, 1) && bucket.is_full(at(4_000)));
    }

    #[test]
    fn another_rate_changes_nothing_of_what_is_in_use() {
        let (slow, fast) = (Rate::new(10, SECOND, 100), Rate::new(1_000, SECOND, 100));
        let mut bucket = Bucket::default();
        assert!(bucket.take(at(0), &slow, 60));
        bucket.change_rate(at(0), &slow, &fast);
        assert!(!bucket.take(at(0), &fast, 41));
        assert!(bucket.take(at(0), &fast, 40));
        bucket.change_rate(at(0), &fast, &slow);
        assert!(!bucket.take(at(50), &slow, 1));
        assert!(bucket.take(at(100), &slow, 1));
    }

    proptest! {
        /// However it is asked, it gives no more than the burst and the rate since.
        #[test]
        fn no_more_than_the_burst_and_the_rate_is_given(
            asks in proptest::collection::vec((0..500u64, 0..200u64), 1..100),
        ) {
            let rate = Rate::new(1_000, SECOND, 100);
            let (mut bucket, mut now, mut given) = (Bucket::default(), 0, 0);
            for (wait, units) in asks {
                now += wait;
                if bucket.take(at(now), &rate, units) {
                    given += units;
                }
                prop_assert!(given <= 100 + now);
            }
        }
    }
}
