//! Counters with names: one for each variant of an enum.
//!
//! The variants are the labels of metrics, so that a reason that is added to the enum is counted
//! and shown without another list to keep. An enum derives strum's `VariantArray` and
//! `IntoStaticStr`; the macro `labelled` does the rest.

use std::marker::PhantomData;

/// An enum that is counted by variant.
pub trait Labelled: strum::VariantArray + Into<&'static str> + Copy {
    /// The position of the variant among all of them.
    fn index(self) -> usize;
}

/// Makes a field-less enum [`Labelled`]; with a name for it, it also gets the list of its variants
/// and their names as inherent items.
macro_rules! labelled {
    ($type:ty) => {
        impl $crate::counts::Labelled for $type {
            fn index(self) -> usize {
                self as usize
            }
        }
    };
    ($vis:vis $type:ty, $name:ident) => {
        impl $type {
            /// All of them, in order.
            $vis const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

            /// The name used in logs, status and metrics.
            $vis fn $name(self) -> &'static str {
                self.into()
            }
        }

        labelled!($type);
    };
}

pub(crate) use labelled;

/// A counter for each variant of an enum.
///
/// ```
/// use fragcast_turbine::outcome::{Outcome, Outcomes};
///
/// let mut outcomes = Outcomes::default();
/// outcomes.count(Outcome::Stored);
/// assert_eq!(outcomes.get(Outcome::Stored), 1);
/// assert!(outcomes.labels().any(|counted| counted == ("late", 0)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts<E> {
    counts: Vec<u64>,
    of: PhantomData<E>,
}

impl<E: Labelled> Default for Counts<E> {
    fn default() -> Self {
        Self { counts: vec![0; E::VARIANTS.len()], of: PhantomData }
    }
}

impl<E: Labelled> Counts<E> {
    /// Counts one.
    pub fn count(&mut self, variant: E) {
        self.add(variant, 1);
    }

    /// Counts as many as this.
    pub fn add(&mut self, variant: E, count: u64) {
        self.counts[variant.index()] += count;
    }

    /// The count of an outcome.
    pub fn get(&self, variant: E) -> u64 {
        self.counts[variant.index()]
    }

    /// All variants, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (E, u64)> + '_ {
        E::VARIANTS.iter().copied().zip(self.counts.iter().copied())
    }

    /// All names, with their counts.
    pub fn labels(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.iter().map(|(variant, count)| (variant.into(), count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::Lane;
    use crate::gossip::{GossipOutcome, Mode, Policy};
    use crate::health::{Reason, State};
    use crate::outcome::Outcome;
    use crate::output::Via;
    use crate::sequencer::Fate;

    fn names<E: Labelled>() -> String {
        let names: Vec<&str> = E::VARIANTS.iter().map(|variant| (*variant).into()).collect();
        names.join(" ")
    }

    /// Dashboards, the status and configuration files hold these names: they follow from those of
    /// the variants, and must not change with them.
    #[test]
    fn names_are_a_contract() {
        assert_eq!(
            names::<Outcome>(),
            "stored completed duplicate late malformed version chain unknown_leader own \
             bad_signature unproven equivocation table_full past future elsewhere superseded \
             quota conflict bad_parity forced other_table barred guest control control_unknown \
             control_bad \
             other_dialect \
             control_stale over_budget repair_late repair_unasked repair_lacking repair_refused \
             delays_table delays_old delays_soon delays_unwanted receipt_old receipt_unwanted \
             members_off members_unasked members_refused record_chain record_old record_future \
             record_dead record_unwanted record_prefix records_full table_unknown table_old \
             table_unfit"
        );
        assert_eq!(
            names::<GossipOutcome>(),
            "accepted canonical other_v duplicate conflict full past future not_scheduled index \
             crowded too_long truncated dialect malformed high_s bad_signature wrong_signer \
             other_table topic"
        );
        assert_eq!(
            names::<Fate>(),
            "passed waiting duplicate conflict stale behind_seal out_of_bounds"
        );
        assert_eq!(names::<State>(), "turbine probing gossip");
        assert_eq!(
            names::<Reason>(),
            "tips_ahead gap no_relay silence quiet gossip_ahead heard filled probe_empty recovered \
             operator"
        );
        assert_eq!(names::<Via>(), "own turbine repair whole gossip");
        assert_eq!(
            names::<Lane>(),
            "next_leader data coding repair bulk backfill guest guest_backfill"
        );
        assert_eq!(names::<Policy>(), "off standby always");
        assert_eq!(names::<Mode>(), "auto turbine gossip");
    }

    #[test]
    fn each_variant_has_a_counter_of_its_own() {
        let mut counts = Counts::<GossipOutcome>::default();
        for (times, outcome) in GossipOutcome::ALL.iter().enumerate() {
            counts.add(*outcome, times as u64);
        }
        counts.count(GossipOutcome::Canonical);
        let counted: Vec<u64> = counts.iter().map(|(_, count)| count).collect();
        let mut expected: Vec<u64> = (0..GossipOutcome::ALL.len() as u64).collect();
        expected[1] += 1;
        assert_eq!(counted, expected);
        assert_eq!(counts.get(GossipOutcome::Canonical), 2);
    }
}
