//! Which key each peer has.
//!
//! A table is published whole and does not change afterwards, so each change makes another one.
//! Members come by the thousand and seldom, guests one by one and often: so a table is a base, which
//! is shared by all that were made of it, and the few entries that have changed since. After
//! [`LATE`] of them they go into a base of their own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{PeerId, PeerKey};
use crate::epoch::MAX_EPOCHS;
use crate::membership::MAX_MEMBERS;

/// Guests of a node, at most, whatever it is configured for.
pub const MAX_GUESTS: usize = 16_384;

/// Contacts of a node, at most: peers that it calls though no table names them.
pub const MAX_CONTACTS: usize = 256;

/// Peers at a time, at most: the members of as many tables as live together, guests, contacts, and
/// this node where no table names it. With about 120 bytes a peer a table of peers takes 25 MB at
/// most.
pub const MAX_PEERS: usize = MAX_EPOCHS * MAX_MEMBERS + MAX_GUESTS + MAX_CONTACTS + 1;

const _: () = assert!(MAX_PEERS <= 1 << PeerKey::SLOT_BITS, "every peer has a slot");

/// Slots, and ids, that differ from the base, each 60 bytes that are copied for every change.
const LATE: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Nobody while the slot is free.
    peer: Option<PeerId>,
    generation: u32,
}

/// What tables share.
#[derive(Debug, Clone, Default)]
struct Base {
    slots: Vec<Slot>,
    by_id: BTreeMap<PeerId, PeerKey>,
}

/// The peers that a node knows, by key and by id.
#[derive(Debug, Clone, Default)]
pub struct PeerTable {
    base: Arc<Base>,
    /// Slots that differ from the base, those beyond its end included.
    slots: BTreeMap<usize, Slot>,
    /// Peers that differ from the base: their keys, or that they are none.
    by_id: BTreeMap<PeerId, Option<PeerKey>>,
    /// Free slots; the one that is free for the longest is given first, so that a key is used again
    /// as late as can be.
    free: VecDeque<u32>,
    /// How many slots and peers there are.
    end: usize,
    len: usize,
}

impl PeerTable {
    /// The key of a peer, which it gets now if it has none; `None` if the table is full.
    pub(crate) fn intern(&mut self, peer: PeerId) -> Option<PeerKey> {
        if let Some(key) = self.key(&peer) {
            return Some(key);
        }
        let slot = match self.free.pop_front() {
            Some(slot) => slot as usize,
            None if self.end < MAX_PEERS => {
                self.end += 1;
                self.end - 1
            }
            None => return None,
        };
        let generation = self.slot(slot).map_or(0, |slot| slot.generation);
        let key = PeerKey::new(slot, generation);
        self.len += 1;
        self.set((slot, Slot { peer: Some(peer), generation }), (peer, Some(key)));
        Some(key)
    }

    /// Forgets a peer and frees its slot.
    pub(crate) fn forget(&mut self, peer: &PeerId) -> Option<PeerKey> {
        let key = self.key(peer)?;
        let generation = (key.generation() + 1) % (1 << (32 - PeerKey::SLOT_BITS));
        self.len -= 1;
        self.set((key.slot(), Slot { peer: None, generation }), (*peer, None));
        self.free.push_back(key.slot() as u32);
        Some(key)
    }

    /// Changes a slot and what a peer's key is: in the base if nobody shares it.
    fn set(&mut self, (at, slot): (usize, Slot), (peer, key): (PeerId, Option<PeerKey>)) {
        self.slots.insert(at, slot);
        match key {
            // Who came and went since the base was made leaves nothing.
            None if !self.base.by_id.contains_key(&peer) => drop(self.by_id.remove(&peer)),
            key => drop(self.by_id.insert(peer, key)),
        }
        if self.slots.len().max(self.by_id.len()) > LATE || Arc::get_mut(&mut self.base).is_some() {
            self.settle();
        }
    }

    /// Takes what has changed into the base, of which a copy is made if it is shared.
    fn settle(&mut self) {
        let base = Arc::make_mut(&mut self.base);
        for (at, slot) in std::mem::take(&mut self.slots) {
            if at >= base.slots.len() {
                base.slots.resize(at + 1, Slot { peer: None, generation: 0 });
            }
            base.slots[at] = slot;
        }
        for (peer, key) in std::mem::take(&mut self.by_id) {
            match key {
                Some(key) => base.by_id.insert(peer, key),
                None => base.by_id.remove(&peer),
            };
        }
    }

    fn slot(&self, at: usize) -> Option<&Slot> {
        self.slots.get(&at).or_else(|| self.base.slots.get(at))
    }

    /// The key of a peer.
    pub fn key(&self, peer: &PeerId) -> Option<PeerKey> {
        match self.by_id.get(peer) {
            Some(late) => *late,
            None => self.base.by_id.get(peer).copied(),
        }
    }

    /// The peer behind a key; `None` once it was forgotten.
    pub fn peer(&self, key: PeerKey) -> Option<PeerId> {
        let slot = self.slot(key.slot())?;
        slot.peer.filter(|_| slot.generation == key.generation())
    }

    /// How many slots there are, free ones included: every key's slot is below.
    pub const fn slots(&self) -> usize {
        self.end
    }

    /// The key that is in use at a slot.
    pub fn at(&self, slot: usize) -> Option<PeerKey> {
        let used = self.slot(slot)?;
        used.peer.map(|_| PeerKey::new(slot, used.generation))
    }

    /// How many peers there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All peers with their keys, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (PeerKey, PeerId)> + '_ {
        (0..self.end).filter_map(|at| {
            let used = self.slot(at)?;
            used.peer.map(|peer| (PeerKey::new(at, used.generation), peer))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u32) -> PeerId {
        PeerId(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    #[test]
    fn keys_are_given_in_order_and_stay() {
        let mut table = PeerTable::default();
        let keys: Vec<u32> = (0..100).map(|n| table.intern(peer(n)).unwrap().number()).collect();
        assert_eq!(keys, (0..100).collect::<Vec<u32>>());
        for n in (0..100).filter(|n| n % 3 > 0) {
            assert_eq!(table.forget(&peer(n)).unwrap().number(), n);
        }
        for n in (0..100).step_by(3) {
            let key = table.intern(peer(n)).unwrap();
            assert_eq!((key.number(), table.peer(key)), (n, Some(peer(n))));
        }
        assert_eq!((table.len(), table.slots()), (34, 100));
    }

    #[test]
    fn a_slot_that_is_given_again_has_another_key() {
        let mut table = PeerTable::default();
        let first = table.intern(peer(1)).unwrap();
        table.forget(&peer(1));
        assert_eq!((table.peer(first), table.key(&peer(1))), (None, None));
        let second = table.intern(peer(2)).unwrap();
        assert_eq!(first.slot(), second.slot());
        assert_ne!(first, second);
        assert_eq!((table.peer(first), table.peer(second)), (None, Some(peer(2))));
        assert_eq!(table.at(0), Some(second));
        assert_eq!(format!("{first:?} {second:?}"), "#0 #0.1");
        assert_eq!(table.iter().collect::<Vec<_>>(), [(second, peer(2))]);
    }

    #[test]
    fn a_change_of_a_table_leaves_those_that_share_its_base_as_they_were() {
        let mut table = PeerTable::default();
        (0..1_000).for_each(|n| assert!(table.intern(peer(n)).is_some()));
        let before = table.clone();
        // As many come and go as make a base of their own several times.
        for n in 1_000..2_000 {
            let shared = table.clone();
            let key = table.intern(peer(n)).unwrap();
            assert_eq!((table.peer(key), shared.peer(key)), (Some(peer(n)), None));
            assert!(table.slots.len() <= LATE);
            if n % 2 == 0 {
                let shared = table.clone();
                assert_eq!(table.forget(&peer(n)), Some(key));
                assert_eq!((table.key(&peer(n)), shared.key(&peer(n))), (None, Some(key)));
            }
        }
        assert_eq!((before.len(), before.slots(), table.len()), (1_000, 1_000, 1_500));
        assert_eq!(table.slots(), 1_500, "slots are given again");
        let all: Vec<_> = table.iter().collect();
        assert_eq!(all.len(), 1_500);
        assert!(all.iter().all(|(key, id)| table.key(id) == Some(*key)));
        assert_eq!(before.iter().count(), 1_000);
    }

    #[test]
    fn who_comes_and_goes_leaves_nothing() {
        let mut table = PeerTable::default();
        (0..300).for_each(|n| assert!(table.intern(peer(n)).is_some()));
        for n in 1_000..11_000 {
            let _before = table.clone();
            table.intern(peer(n)).unwrap();
            let _between = table.clone();
            table.forget(&peer(n)).unwrap();
            assert!(table.by_id.len() <= LATE + 1 && table.slots.len() <= LATE + 1);
        }
        // Those of the base as well.
        for n in 0..300 {
            let _before = table.clone();
            table.forget(&peer(n)).unwrap();
            assert!(table.by_id.len() <= LATE + 1 && table.slots.len() <= LATE + 1);
        }
        assert_eq!((table.len(), table.slots(), table.iter().count()), (0, 301, 0));
        assert!(table.by_id.len() + table.base.by_id.len() <= 2 * LATE + 300);
    }

    #[test]
    fn the_slot_that_is_free_for_the_longest_is_given_first() {
        let mut table = PeerTable::default();
        (0..3).for_each(|n| assert!(table.intern(peer(n)).is_some()));
        [2, 0, 1].iter().for_each(|n| assert!(table.forget(&peer(*n)).is_some()));
        let slots = [7, 8, 9].map(|n| table.intern(peer(n)).unwrap().slot());
        assert_eq!(slots, [2, 0, 1]);
    }

    #[test]
    fn a_full_table_takes_nobody_and_generations_come_round() {
        let mut table = PeerTable::default();
        for n in 0..MAX_PEERS as u32 {
            assert!(table.intern(peer(n)).is_some());
        }
        assert_eq!(table.intern(peer(u32::MAX)), None);
        table.forget(&peer(7));
        assert_eq!(table.intern(peer(u32::MAX)).unwrap().slot(), 7);
        for _ in 0..1 << 14 {
            let before = table.forget(&peer(u32::MAX)).unwrap();
            assert_ne!(table.intern(peer(u32::MAX)), Some(before));
        }
    }
}
