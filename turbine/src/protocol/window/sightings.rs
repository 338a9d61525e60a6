//! Verified messages of blocks outside the window: where else the chain may stand.

use alloy_primitives::Address;

use super::{Sight, WINDOW_FUTURE, WINDOW_PAST};
use crate::time::Timestamp;

/// Gateways that are told apart; more than two make no difference.
const MAX_GATEWAYS: usize = 2;
/// Stretches of the chain that are remembered, 100 bytes each; the one that was quiet for longest
/// makes room.
const MAX_STRETCHES: usize = 8;

/// The gateways that have signed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Backing([Option<Address>; MAX_GATEWAYS]);

impl Backing {
    pub(super) fn add(&mut self, gateway: Address) {
        if !self.0.contains(&Some(gateway))
            && let Some(free) = self.0.iter_mut().find(|known| known.is_none())
        {
            *free = Some(gateway);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().flatten().count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Blocks near one another.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    newest: u64,
    last: Timestamp,
    backing: Backing,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sightings(Vec<Stretch>);

impl Sightings {
    /// Notes a message, and says who has signed something near it.
    pub(super) fn add(&mut self, now: Timestamp, sight: &Sight) -> Backing {
        let near = |stretch: &Stretch| {
            let low = stretch.newest.saturating_sub(WINDOW_PAST);
            let high = stretch.newest.saturating_add(WINDOW_FUTURE);
            (low..=high).contains(&sight.block)
        };
        let known = self.0.iter().position(near);
        let at = known.unwrap_or_else(|| {
            if self.0.len() >= MAX_STRETCHES
                && let Some((oldest, _)) = self.0.iter().enumerate().min_by_key(|(_, s)| s.last)
            {
                self.0.swap_remove(oldest);
            }
            let backing = Backing::default();
            self.0.push(Stretch { newest: sight.block, last: now, backing });
            self.0.len() - 1
        });
        let stretch = &mut self.0[at];
        stretch.newest = stretch.newest.max(sight.block);
        stretch.last = now;
        stretch.backing.add(sight.gateway);
        stretch.backing
    }
}
