//! Signatures that do not verify, and of whom they are held.
//!
//! Who leads a block depends on what a node knows: which delegations have reached it, which
//! gateways its schedule has. So a shred that the leader's key does not cover may be an honest
//! peer's, which knows another leader: a delegation can be overtaken by its own data, a gateway
//! can sign two, operators change a list of gateways one node at a time. None of that is told
//! from junk by looking at the shred. Hence:
//!
//! * It convicts nobody. What does is an *altered* shred: its header and signature are those of a
//!   set that is known, which fix the content whoever leads. A few shreds that did not verify are
//!   held for that: if their set turns out to be valid later and does not contain them, whoever
//!   sent them is convicted then.
//! * It costs a verification, so there is a rate, [`RATE`]: beyond it shreds of sets that are not
//!   known are dropped unseen, and repair brings what was lost with them. Of a set that is known
//!   only what its tree proves is taken then. An equivocation that is known already costs the same
//!   and counts as well. The rate is that of a
//!   peer for the blocks of one gateway, and apart for those that name the plan of the leader
//!   that is known here: what two views disagree about takes nothing from the rest.
//!
//! When all of [`MAX_SUSPECTS`] rates are in use, those who have none share one, until some of them
//! are full again.
//!
//! Memory: [`MAX_SUSPECTS`] rates of 80 bytes and [`MAX_HELD`] shreds' frames of 160.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use alloy_primitives::Address;
use fragcast_shredder::Commitment;

use crate::bucket::{Bucket, Rate};
use crate::peer::PeerKey;
use crate::time::Timestamp;

/// Verifications that fail, a second and at once: each is 50 µs of work.
pub(super) const RATE: (u64, u64) = (32, 64);
/// Rates that are in use at a time.
const MAX_SUSPECTS: usize = 4096;
/// Frames that are held, of one peer and in all.
const MAX_HELD_OF_ONE: usize = 4;
const MAX_HELD: usize = 256;

/// What a rate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Suspect {
    pub(super) peer: PeerKey,
    /// Whose blocks they are, as this node has it.
    pub(super) gateway: Address,
    /// Whether they name a plan of the leader that this node knows.
    pub(super) ours: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Doubts {
    rate: Rate,
    suspects: BTreeMap<Suspect, Bucket>,
    /// Of those for whom there is no room.
    overflow: Bucket,
    held: VecDeque<(PeerKey, Commitment)>,
}

impl Default for Doubts {
    fn default() -> Self {
        let rate = Rate::new(RATE.0, Duration::from_secs(1), RATE.1);
        let (suspects, held) = (BTreeMap::new(), VecDeque::new());
        Self { rate, suspects, overflow: Bucket::default(), held }
    }
}

impl Doubts {
    /// Whether nothing is in doubt: then nothing need be looked up.
    pub(super) fn is_empty(&self) -> bool {
        self.suspects.is_empty()
    }

    /// Whether so many did not verify that no more are looked at.
    pub(super) fn is_spent(&self, now: Timestamp, suspect: &Suspect) -> bool {
        let bucket = self.suspects.get(suspect).unwrap_or(&self.overflow);
        !Bucket::clone(bucket).take(now, &self.rate, 1)
    }

    /// One more did not verify, or told what is known.
    pub(super) fn charge(&mut self, now: Timestamp, suspect: Suspect) {
        if self.suspects.len() >= MAX_SUSPECTS {
            self.suspects.retain(|_, bucket| !bucket.is_full(now));
        }
        let room = self.suspects.len() < MAX_SUSPECTS || self.suspects.contains_key(&suspect);
        let bucket =
            if room { self.suspects.entry(suspect).or_default() } else { &mut self.overflow };
        bucket.charge(now, &self.rate, 1);
    }

    /// One more did not verify, of a set of which nothing is known.
    pub(super) fn note(&mut self, now: Timestamp, suspect: Suspect, claim: Commitment) {
        self.charge(now, suspect);
        let of_peer = |(peer, _): &&(PeerKey, Commitment)| *peer == suspect.peer;
        let known = self.held.iter().filter(of_peer);
        if known.clone().any(|(_, held)| *held == claim) {
            return;
        }
        if known.count() >= MAX_HELD_OF_ONE {
            let oldest = self.held.iter().position(|(peer, _)| *peer == suspect.peer);
            oldest.map(|oldest| self.held.remove(oldest));
        } else if self.held.len() >= MAX_HELD {
            self.held.pop_front();
        }
        self.held.push_back((suspect.peer, claim));
    }

    /// A set turned out to be valid. Those who sent something else as a part of it.
    pub(super) fn settle(&mut self, valid: &Commitment) -> Vec<PeerKey> {
        let mut convicted = Vec::new();
        self.held.retain(|(peer, held)| {
            let same = held.header == valid.header && held.signature == valid.signature;
            if same && held.root != valid.root && !convicted.contains(peer) {
                convicted.push(*peer);
            }
            !same
        });
        convicted
    }

    /// Whether frames are held.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// A peer is none any more: its key means nobody.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.suspects.retain(|suspect, _| suspect.peer != peer);
        self.held.retain(|(of, _)| *of != peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tests::{World, cut, frag, hashed, peer};

    const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000);

    fn suspect(number: u32, gateway: u8) -> Suspect {
        Suspect { peer: peer(number), gateway: Address::with_last_byte(gateway), ours: true }
    }

    fn claims(count: usize) -> Vec<Commitment> {
        let world = World::new(&[1; 3], 1);
        let of = |seq| hashed(&cut(&world, &world.sign(frag(1, seq, 300)), 0)).remove(0).claim();
        (0..count as u64).map(of).collect()
    }

    #[test]
    fn the_rate_is_that_of_a_peer_and_a_gateway_and_fills_up_again() {
        let (claim, mut doubts) = (claims(1).remove(0), Doubts::default());
        assert!(doubts.is_empty() && !doubts.is_spent(NOW, &suspect(1, 1)));
        let mut taken = 0;
        while !doubts.is_spent(NOW, &suspect(1, 1)) {
            doubts.note(NOW, suspect(1, 1), claim.clone());
            taken += 1;
        }
        assert_eq!(taken, RATE.1);
        let others = [suspect(2, 1), suspect(1, 2), Suspect { ours: false, ..suspect(1, 1) }];
        assert!(others.iter().all(|other| !doubts.is_spent(NOW, other)));
        assert!(!doubts.is_spent(NOW + Duration::from_millis(32), &suspect(1, 1)));
        doubts.forget(peer(1));
        assert!(doubts.suspects.is_empty());
    }

    #[test]
    fn a_table_full_of_suspects_makes_nobody_deaf() {
        let (claim, mut doubts) = (claims(1).remove(0), Doubts::default());
        // As the protocol does: who is spent is not looked at, and only what is looked at is noted.
        let mut look = |now, suspect: Suspect| {
            let looked_at = !doubts.is_spent(now, &suspect);
            if looked_at {
                doubts.note(now, suspect, claim.clone());
            }
            (looked_at, doubts.suspects.len(), doubts.held.len() <= MAX_HELD)
        };
        for number in 0..MAX_SUSPECTS as u32 {
            assert!(look(NOW, suspect(number, 3)).0);
        }
        let new = (0..RATE.1 as u32 + 9).map(|number| look(NOW, suspect(number, 9)));
        assert_eq!(
            new.filter(|seen| seen.0).count() as u64,
            RATE.1,
            "those without a rate have one"
        );
        assert_eq!(look(NOW, suspect(7, 3)), (true, MAX_SUSPECTS, true), "others have their own");
        // Whoever is next, though it is known already, sweeps out those that are full again.
        let later = NOW + Duration::from_millis(40);
        assert_eq!(look(later, suspect(7, 3)), (true, 1, true));
        let later = NOW + Duration::from_secs(9);
        assert_eq!(look(later, suspect(1, 9)), (true, 2, true), "and those who are new are seen");
    }

    #[test]
    fn who_altered_a_set_is_convicted_when_the_set_is_known_and_nobody_else() {
        let claims = claims(6);
        let mut doubts = Doubts::default();
        let altered = |claim: &Commitment| Commitment { root: [7; 32], ..claim.clone() };
        doubts.note(NOW, suspect(1, 1), altered(&claims[0]));
        doubts.note(NOW, suspect(1, 1), altered(&claims[0]));
        // The right content, of a leader who was not known yet.
        doubts.note(NOW, suspect(2, 1), claims[0].clone());
        // Another signature: perhaps another leader's.
        doubts.note(NOW, suspect(3, 1), Commitment { signature: [1; 64], ..altered(&claims[0]) });
        assert_eq!(doubts.settle(&claims[1]), []);
        assert_eq!(doubts.settle(&claims[0]), [peer(1)]);
        assert_eq!((doubts.settle(&claims[0]), doubts.holds()), (vec![], true));
        // Of each peer the last few.
        claims.iter().for_each(|claim| doubts.note(NOW, suspect(4, 1), altered(claim)));
        let convicted = claims.iter().filter(|claim| !doubts.settle(claim).is_empty()).count();
        assert_eq!(convicted, MAX_HELD_OF_ONE);
    }
}
