//! What a leader, or a next leader, must know of a set to tell who should have sent its shreds.

use std::collections::BTreeMap;

use fragcast_shredder::SetHeader;

use crate::membership::PeerIndex;
use crate::plan::PlanView;
use crate::route::{Paths, Route, Slot};

/// Sets that are remembered; of the lowest block they go first.
pub(super) const CAPACITY: usize = 8_192;

/// A set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    root: [u8; 32],
    pub(super) k: u8,
    pub(super) m: u8,
    route: (u8, u16),
    pub(super) plan: u64,
}

impl Known {
    /// The ways of its shreds; `None` on a route without receipts.
    pub(super) fn paths<'a>(&self, plan: &'a PlanView, leader: PeerIndex) -> Option<Paths<'a>> {
        let route = Route::from_wire(self.route.0, self.route.1)?;
        if matches!(route, Route::Turbine { .. }) {
            return None;
        }
        let slot = Slot { index: 0, k: self.k, m: self.m };
        Some(Paths::new(plan, route, leader, &self.root, slot))
    }

    /// What a header and its root say.
    pub(super) const fn of(header: &SetHeader, root: &[u8; 32]) -> Self {
        let route = (header.route, header.route_param);
        Self { root: *root, k: header.k, m: header.m, route, plan: header.plan }
    }
}

/// Sets by block, attempt, message and number.
#[derive(Debug, Default)]
pub(super) struct SetBook {
    sets: BTreeMap<(u64, u8, u16, u16), Known>,
}

impl SetBook {
    /// Remembers a set. Of several forms of one set the first stays, as everywhere.
    pub(super) fn note(&mut self, header: &SetHeader, root: &[u8; 32]) {
        let place = (header.block, header.attempt, header.message, header.set);
        self.sets.entry(place).or_insert_with(|| Known::of(header, root));
        if self.sets.len() > CAPACITY {
            self.sets.pop_first();
        }
    }

    /// Whether a set of a block and attempt is known.
    pub(super) fn knows(&self, (block, attempt): (u64, u8)) -> bool {
        let all = (block, attempt, 0, 0)..=(block, attempt, u16::MAX, u16::MAX);
        self.sets.range(all).next().is_some()
    }

    /// A set.
    pub(super) fn get(&self, at: (u64, u8), message: u16, set: u16) -> Option<Known> {
        self.sets.get(&(at.0, at.1, message, set)).copied()
    }
}
