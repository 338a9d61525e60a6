//! Delays between the members of one table, as their nodes measured them.
//!
//! ```text
//! samples of the transport ─▶ Minima ─▶ DelayVector, signed ─▶ Joined (at leaders) ─▶ DelayMatrix
//! ```
//!
//! A round trip is one byte on a logarithmic scale: 0 is a pair that nobody measured, and code c
//! stands for 50 µs × 1.05^(c − 1), so 255 codes reach from 50 µs to 12 s in steps of 5 %.

mod coordinates;
mod estimate;
mod joined;
mod matrix;
mod minima;
mod vector;

pub use matrix::{DelayMatrix, WHOLE};
pub use vector::{DelayVector, SignedDelayVector, most_codes};

pub(crate) use joined::{Joined, Step};
pub(crate) use minima::Minima;

/// The shortest round trip that has a code of its own, in µs.
const SHORTEST_US: f64 = 50.0;
/// The factor from a code to the next.
const STEP: f64 = 1.05;

/// A round trip on one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct RttCode(u8);

impl RttCode {
    /// The code of a pair that nobody measured.
    pub const UNKNOWN: Self = Self(0);

    /// The nearest code of a round trip in µs; what lies beyond the scale takes its end.
    pub fn of_micros(micros: u32) -> Self {
        let steps = (f64::from(micros).max(SHORTEST_US) / SHORTEST_US).ln() / STEP.ln();
        Self((steps.round() as u64 + 1).min(255) as u8)
    }

    /// The round trip in µs; `None` if it is not known.
    pub fn micros(self) -> Option<u32> {
        let steps = self.0.checked_sub(1)?;
        Some((SHORTEST_US * STEP.powi(steps.into())).round() as u32)
    }

    /// Whether it is that of a pair that somebody measured.
    pub const fn is_known(self) -> bool {
        self.0 != 0
    }

    /// The byte on the wire.
    pub const fn to_byte(self) -> u8 {
        self.0
    }

    /// The code of a byte: every byte is one.
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// So many steps longer, as far as the scale goes.
    pub(crate) const fn longer(self, steps: u8) -> Self {
        Self(self.0.saturating_add(steps))
    }

    /// Whether it differs from another by more than what two measurements of one path do.
    pub(crate) const fn differs(self, other: Self) -> bool {
        self.is_known() != other.is_known() || self.0.abs_diff(other.0) > NOISE
    }

    /// What counts for a pair, of what its two ends say.
    ///
    /// Ends that agree within [`NOISE`] are both right, and the mean counts. Otherwise the greater
    /// does: who lies can make itself look further away, which gains it nothing, but not nearer.
    /// What one end alone says counts [`ALONE`] steps longer: the other may not have told yet, or
    /// does not exist for anybody but a friend of its own.
    pub(crate) fn join(self, other: Self) -> Self {
        let (less, more) = (self.min(other), self.max(other));
        match (less.is_known(), more.is_known()) {
            (_, false) => Self::UNKNOWN,
            (false, true) => more.longer(ALONE),
            (true, true) if more.0 - less.0 <= NOISE => {
                Self(less.0 + (more.0 - less.0).div_ceil(2))
            }
            (true, true) => more,
        }
    }
}

/// Steps by which two measurements of one path differ: about 10 %.
const NOISE: u8 = 2;
/// Steps by which a round trip counts as longer that only one end reports: a third.
const ALONE: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_within_half_a_step_and_rise() {
        assert_eq!((RttCode::UNKNOWN.micros(), RttCode::of_micros(0).micros()), (None, Some(50)));
        for micros in (50..10_000_000).step_by(977) {
            let told = f64::from(RttCode::of_micros(micros).micros().unwrap());
            let ratio = told / f64::from(micros);
            assert!((0.974..1.026).contains(&ratio), "{micros} told as {told}");
        }
        let all: Vec<u32> = (1..=255).map(|b| RttCode::from_byte(b).micros().unwrap()).collect();
        assert!(all.is_sorted_by(|a, b| a < b));
        assert_eq!(RttCode::of_micros(u32::MAX).to_byte(), 255);
    }

    #[test]
    fn the_greater_counts_unless_both_agree() {
        let join = |a, b| {
            let [a, b] = [a, b].map(RttCode::from_byte);
            assert_eq!(a.join(b), b.join(a));
            a.join(b).to_byte()
        };
        assert_eq!([join(0, 0), join(0, 100), join(0, 253)], [0, 106, 255]);
        assert_eq!([join(100, 100), join(100, 101), join(100, 102)], [100, 101, 101]);
        assert_eq!([join(100, 103), join(1, 200)], [103, 200]);
    }
}
