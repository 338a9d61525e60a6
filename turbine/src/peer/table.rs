//! Which key each peer has.

use std::collections::BTreeMap;

use super::{PeerId, PeerKey};
use crate::epoch::MAX_EPOCHS;
use crate::membership::MAX_MEMBERS;

/// Peers at a time, at most: the members of as many tables as live together. With about 120 bytes
/// a peer a table of peers takes 24 MB at most.
pub const MAX_PEERS: usize = MAX_EPOCHS * MAX_MEMBERS;

const _: () = assert!(MAX_PEERS <= 1 << PeerKey::SLOT_BITS, "every peer has a slot");

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Nobody while the slot is free.
    peer: Option<PeerId>,
    generation: u32,
}

/// The peers that a node knows, by key and by id.
#[derive(Debug, Clone, Default)]
pub struct PeerTable {
    slots: Vec<Slot>,
    by_id: BTreeMap<PeerId, PeerKey>,
    /// Free slots; the one that was freed last is given first, since its key is the oldest.
    free: Vec<u32>,
}

impl PeerTable {
    /// The key of a peer, which it gets now if it has none; `None` if the table is full.
    pub(crate) fn intern(&mut self, peer: PeerId) -> Option<PeerKey> {
        if let Some(key) = self.by_id.get(&peer) {
            return Some(*key);
        }
        let slot = match self.free.pop() {
            Some(slot) => slot as usize,
            None if self.slots.len() < MAX_PEERS => {
                self.slots.push(Slot { peer: None, generation: 0 });
                self.slots.len() - 1
            }
            None => return None,
        };
        let key = PeerKey::new(slot, self.slots[slot].generation);
        self.slots[slot].peer = Some(peer);
        self.by_id.insert(peer, key);
        Some(key)
    }

    /// Forgets a peer and frees its slot.
    pub(crate) fn forget(&mut self, peer: &PeerId) -> Option<PeerKey> {
        let key = self.by_id.remove(peer)?;
        let slot = &mut self.slots[key.slot()];
        slot.peer = None;
        slot.generation = (slot.generation + 1) % (1 << (32 - PeerKey::SLOT_BITS));
        self.free.push(key.slot() as u32);
        Some(key)
    }

    /// The key of a peer.
    pub fn key(&self, peer: &PeerId) -> Option<PeerKey> {
        self.by_id.get(peer).copied()
    }

    /// The peer behind a key; `None` once it was forgotten.
    pub fn peer(&self, key: PeerKey) -> Option<PeerId> {
        let slot = self.slots.get(key.slot())?;
        slot.peer.filter(|_| slot.generation == key.generation())
    }

    /// How many slots there are, free ones included: every key's slot is below.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The key that is in use at a slot.
    pub fn at(&self, slot: usize) -> Option<PeerKey> {
        let used = self.slots.get(slot)?;
        used.peer.map(|_| PeerKey::new(slot, used.generation))
    }

    /// How many peers there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// All peers with their keys, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (PeerKey, PeerId)> + '_ {
        self.slots.iter().enumerate().filter_map(|(slot, used)| {
            used.peer.map(|peer| (PeerKey::new(slot, used.generation), peer))
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
