//! Messages that gossipsub has had, and peers that have subscribed since.
//!
//! gossipsub publishes a message once: to whoever is subscribed at the time. Who subscribes a
//! moment later is offered it (IHAVE) only if it is *outside* the publisher's mesh or fanout;
//! with fewer than eight listeners everybody is inside at once, so a late listener would never
//! hear of it. The holders publish recent messages again when a listener appears; this table
//! says for whom that is, by the order of things: a number that grows with each subscription
//! and each message.

use std::collections::{BTreeMap, VecDeque};

/// Messages that are remembered, 60 bytes each; 65 s, gossipsub's own memory of ids, are about
/// 500 messages of a chain.
const MAX_KNOWN: usize = 4096;

pub(super) type Id = [u8; 20];

/// The messages that gossipsub has had, and when.
#[derive(Debug, Default)]
pub(super) struct Known {
    ticks: u64,
    at: BTreeMap<Id, u64>,
    order: VecDeque<Id>,
}

impl Known {
    /// The next number.
    pub(super) const fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    /// When all subscribed peers got the message.
    pub(super) fn served_at(&self, id: &Id) -> Option<u64> {
        self.at.get(id).copied()
    }

    /// Notes that every subscribed peer has the message, or gets it from the mesh.
    pub(super) fn serve(&mut self, id: Id) {
        let tick = self.tick();
        if self.at.insert(id, tick).is_none() {
            self.order.push_back(id);
            if self.order.len() > MAX_KNOWN
                && let Some(oldest) = self.order.pop_front()
            {
                self.at.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let id = |n: usize| {
            let mut id = [0; 20];
            id[..8].copy_from_slice(&n.to_le_bytes());
            id
        };
        let mut known = Known::default();
        for n in 0..=MAX_KNOWN {
            known.serve(id(n));
            known.serve(id(n));
        }
        assert_eq!(known.served_at(&id(0)), None);
        assert_eq!(known.at.len(), MAX_KNOWN);
        let before = known.served_at(&id(1)).unwrap();
        let subscribed = known.tick();
        assert!(before < subscribed);
        known.serve(id(1));
        assert!(known.served_at(&id(1)).unwrap() > subscribed);
    }
}
