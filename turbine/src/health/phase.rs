//! The phases, each with what is only meaningful in it.

use super::Reason;
use super::record::Record;
use super::watch::{Missing, Watch};
use crate::time::Timestamp;

/// What a node counts on, and what it notes meanwhile.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// The overlay.
    Overlay {
        /// What would speak against the overlay.
        watch: Watch,
        /// Why the phase began; `None` before the first change.
        reason: Option<Reason>,
    },
    /// The overlay, but it listens to gossip to find out whether that is right.
    Probing {
        /// What would speak against the overlay.
        watch: Watch,
        /// Why it probes.
        suspicion: Suspicion,
        /// When the probe ends.
        until: Timestamp,
    },
    /// Gossip.
    Gossip {
        /// What the overlay completes all the same.
        record: Record,
        /// Why the phase began.
        reason: Reason,
    },
}

impl Phase {
    /// What is noted against the overlay, where the node counts on it.
    pub(super) const fn watch(&mut self) -> Option<&mut Watch> {
        match self {
            Self::Overlay { watch, .. } | Self::Probing { watch, .. } => Some(watch),
            Self::Gossip { .. } => None,
        }
    }
}

/// Why a node probes. Of several that are due at once the first counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::VariantArray)]
pub(super) enum Suspicion {
    /// Connected peers have stopped sending tips.
    Silence,
    /// Peers have a message that this node cannot get.
    TipsAhead,
    /// A message that must exist cannot be had.
    Gap,
    /// The overlay has brought nothing for long.
    Quiet,
}

impl Suspicion {
    /// All of them, in the order in which they count.
    pub(super) const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The reason that is told.
    pub(super) const fn reason(self) -> Reason {
        match self {
            Self::Silence => Reason::Silence,
            Self::TipsAhead => Reason::TipsAhead,
            Self::Gap => Reason::Gap,
            Self::Quiet => Reason::Quiet,
        }
    }

    /// Whether what it was about has come.
    pub(super) const fn is_settled(self, missing: &Missing) -> bool {
        match self {
            Self::TipsAhead => missing.told.is_none(),
            Self::Gap => missing.certain.is_none(),
            Self::Silence | Self::Quiet => false,
        }
    }
}
