//! What speaks against the overlay while a node counts on it.

use std::collections::BTreeMap;

use crate::time::Timestamp;

/// Messages that gossip had first and for which the overlay still has time.
const MAX_AHEAD: usize = 64;

/// Missing messages, as repair sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Missing {
    /// Since when two peers or more have had a message that is not here, by their tips.
    pub told: Option<Timestamp>,
    /// Since when a message is missing that must exist.
    pub certain: Option<Timestamp>,
}

/// What a node notes against the overlay. Bounded by [`MAX_AHEAD`].
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    pub(super) missing: Missing,
    /// Messages that gossip had first, by block and index, with the end of the overlay's grace.
    ahead: BTreeMap<(u64, u16), Timestamp>,
    /// Those whose grace is over, since the overlay completed a message last.
    misses: u32,
}

impl Watch {
    /// What repair lacks, and nothing else.
    pub(super) fn of(missing: Missing) -> Self {
        Self { missing, ..Self::default() }
    }

    /// Gossip had a message first: the overlay has time for it until then.
    pub(super) fn note(&mut self, place: (u64, u16), until: Timestamp) {
        if self.ahead.len() < MAX_AHEAD {
            self.ahead.entry(place).or_insert(until);
        }
    }

    /// The overlay completed a message.
    pub(super) fn completed(&mut self, place: (u64, u16)) {
        self.ahead.remove(&place);
        self.misses = 0;
    }

    /// Counts those whose grace is over, and says how many there are in a row.
    pub(super) fn expire(&mut self, now: Timestamp) -> u32 {
        let before = self.ahead.len();
        self.ahead.retain(|_, until| *until > now);
        self.misses += (before - self.ahead.len()) as u32;
        self.misses
    }

    /// When the next grace is over.
    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        self.ahead.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded() {
        let mut watch = Watch::default();
        let until = Timestamp::from_nanos(5);
        for block in 0..10_000 {
            watch.note((block, 0), until);
        }
        assert_eq!(watch.ahead.len(), MAX_AHEAD);
        assert_eq!(watch.expire(until), MAX_AHEAD as u32);
        assert_eq!(watch.next_timeout(), None);
    }
}
