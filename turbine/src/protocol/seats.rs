//! Guests that take messages from this node: who they are, and what each was sent.
//!
//! A guest takes tips, or tips and the shreds of all sets. Of each set it gets the first k distinct
//! shreds as this node validates them, whichever they are, and so many more as it asked for; when the
//! set is complete here, what still lacks. So a guest has a set about when this node has it, and is
//! sent as many bytes as the message is long. What is lost on the way it asks for.
//!
//! All guests are sent the same shreds in the same order, so one set of bits is kept for all of them.
//! Memory: 40 bytes for each of [`MAX_SETS`] sets, 24 a guest.

use std::collections::BTreeMap;

use bytes::Bytes;
use fragcast_shredder::{RecoveredSet, SetHeader, SetKey, ShreddedMessage, ValidatedShred};

use crate::control::{Attach, Attached, Share};
use crate::egress::{Egress, Lane, Payload, Transmit};
use crate::peer::PeerKey;

/// Sets of which is known what was sent.
const MAX_SETS: usize = 4_096;

/// The guests that take something.
#[derive(Debug, Default)]
pub(super) struct Seats {
    guests: BTreeMap<PeerKey, Attach>,
    /// Guests that take all sets.
    full: usize,
    /// The most shreds beyond k that any of them asked for.
    extra: usize,
    /// By set, one bit for each shred that was sent.
    sent: BTreeMap<SetKey, u64>,
}

impl Seats {
    /// A guest wants something, or something else than before; there are so many places for those
    /// who take all. Who has one keeps it.
    pub(super) fn attach(
        &mut self,
        peer: PeerKey,
        mut wants: Attach,
        places: usize,
        egress: &Egress,
    ) -> Attached {
        let crowded = match self.guests.get(&peer).map(|before| before.share) {
            Some(Share::All) => self.full > places,
            _ => self.full >= places || egress.guests_lane_is_half_full(),
        };
        if wants.share == Share::All && crowded {
            wants.share = Share::Tips;
        }
        // In place: what was sent of sets is forgotten only once nobody takes them.
        match wants.share {
            Share::Nothing => drop(self.guests.remove(&peer)),
            Share::Tips | Share::All => drop(self.guests.insert(peer, wants)),
        }
        self.count();
        let of = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        Attached { share: wants.share, places: of(places), taken: of(self.full) }
    }

    /// A guest is gone, or is none any more.
    pub(super) fn leave(&mut self, peer: PeerKey) {
        if self.guests.remove(&peer).is_some() {
            self.count();
        }
    }

    fn count(&mut self) {
        let full = || self.guests.values().filter(|wants| wants.share == Share::All);
        self.full = full().count();
        self.extra = full().map(|wants| usize::from(wants.extra)).max().unwrap_or(0);
        if self.full == 0 {
            self.sent.clear();
        }
    }

    /// Guests that take all sets.
    pub(super) const fn full(&self) -> usize {
        self.full
    }

    /// The guests that take tips.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerKey> + '_ {
        self.guests.keys().copied()
    }

    /// A shred was kept here. Says how many copies were sent.
    pub(super) fn forward(&mut self, egress: &mut Egress, shred: &ValidatedShred) -> u64 {
        if self.full == 0 {
            return 0;
        }
        let (index, bytes) = (shred.shred().index(), shred.shred().bytes());
        self.send(egress, shred.header(), index, || bytes.clone())
    }

    /// A set is complete here.
    pub(super) fn complete(&mut self, egress: &mut Egress, set: &RecoveredSet) -> u64 {
        self.fill(egress, &set.header, |index| set.shred(index))
    }

    /// A message of this node's own is sent.
    pub(super) fn own(&mut self, egress: &mut Egress, message: &ShreddedMessage) -> u64 {
        let sets = &message.sets;
        sets.iter()
            .map(|set| {
                self.fill(egress, &set.header, |index| set.shreds[usize::from(index)].clone())
            })
            .sum()
    }

    /// Sends of a set what still lacks.
    fn fill(
        &mut self,
        egress: &mut Egress,
        header: &SetHeader,
        shred: impl Fn(u8) -> Bytes,
    ) -> u64 {
        if self.full == 0 {
            return 0;
        }
        let mut copies = 0;
        for index in 0..header.shards() as u8 {
            let sent = self.sent.get(&header.set_key()).copied().unwrap_or(0);
            if sent.count_ones() as usize >= usize::from(header.k) + self.extra {
                break;
            }
            copies += self.send(egress, header, index, || shred(index));
        }
        copies
    }

    /// Sends a shred to the guests that have not had enough of its set.
    fn send(
        &mut self,
        egress: &mut Egress,
        header: &SetHeader,
        index: u8,
        bytes: impl FnOnce() -> Bytes,
    ) -> u64 {
        let key = header.set_key();
        let sent = self.sent.get(&key).copied().unwrap_or(0);
        let had = sent.count_ones() as usize;
        let k = usize::from(header.k);
        if sent >> index & 1 == 1 || had >= k + self.extra {
            return 0;
        }
        if self.sent.len() >= MAX_SETS && !self.sent.contains_key(&key) {
            // Of the lowest block, which is done or nearly so.
            self.sent.pop_first();
        }
        self.sent.insert(key, sent | 1 << index);
        let bytes = bytes();
        let takes =
            |wants: &Attach| wants.share == Share::All && had < k + usize::from(wants.extra);
        let mut copies = 0;
        for (to, _) in self.guests.iter().filter(|(_, wants)| takes(wants)) {
            let payload = Payload::Shred(bytes.clone());
            copies += u64::from(egress.push(Transmit { to: *to, lane: Lane::Guest, payload }));
        }
        copies
    }

    /// Drops what is known of blocks below one.
    pub(super) fn forget_below(&mut self, block: u64) {
        while self.sent.first_key_value().is_some_and(|(key, _)| key.message.block < block) {
            self.sent.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use fragcast_shredder::MessageKey;

    use super::*;

    #[test]
    fn attaching_again_changes_what_is_wanted_and_forgets_nothing() {
        let mut egress = Egress::new(1 << 20, 1_000_000_000, std::time::Duration::from_millis(1));
        let (mut seats, guest) = (Seats::default(), PeerKey::from(1));
        let all = |extra| Attach { share: Share::All, extra };
        assert_eq!(seats.attach(guest, all(2), 1, &egress).share, Share::All);
        let message = MessageKey { block: 1, attempt: 0, message: 0 };
        seats.sent.insert(SetKey { message, set: 0 }, 7);
        // Its place is its own, though the lane is half full by now.
        egress.set_guest(PeerKey::from(2), true);
        let payload = Payload::Shred(Bytes::from(vec![0; 600_000]));
        assert!(egress.push(Transmit { to: PeerKey::from(2), lane: Lane::Guest, payload }));
        assert!(egress.guests_lane_is_half_full());
        let again = seats.attach(guest, all(5), 1, &egress);
        assert_eq!(
            (again.share, again.taken, seats.extra, seats.sent.len()),
            (Share::All, 1, 5, 1)
        );
        assert_eq!(seats.attach(PeerKey::from(2), all(0), 9, &egress).share, Share::Tips);
        let nothing = Attach { share: Share::Nothing, extra: 0 };
        assert_eq!(seats.attach(guest, nothing, 1, &egress).taken, 0);
        assert!(seats.sent.is_empty() && seats.guests.len() == 1);
    }
}
