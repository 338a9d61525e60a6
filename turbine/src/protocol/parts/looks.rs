//! How many shreds of blocks outside the window are looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bucket::{Bucket, Rate};
use crate::peer::PeerKey;
use crate::time::Timestamp;

/// Looks, a second and at once: each is 50 µs of work.
const LOOKS: (u64, u64) = (128, 256);
/// The same of a peer.
pub(in crate::protocol) const LOOKS_OF_PEER: (u64, u64) = (16, 32);
/// Peers whose looks are counted, 16 bytes each. There are never more: within the two seconds in
/// which a peer's are full again there are 512 looks at most.
const MAX_PEERS: usize = 1024;

/// What is left of the looks.
#[derive(Debug)]
pub(super) struct Looks {
    rate: Rate,
    rate_of_peer: Rate,
    all: Bucket,
    of_peers: BTreeMap<PeerKey, Bucket>,
}

impl Default for Looks {
    fn default() -> Self {
        let rate = |(a_second, at_once)| Rate::new(a_second, Duration::from_secs(1), at_once);
        Self {
            rate: rate(LOOKS),
            rate_of_peer: rate(LOOKS_OF_PEER),
            all: Bucket::default(),
            of_peers: BTreeMap::new(),
        }
    }
}

impl Looks {
    /// Takes a look at what a peer sent, if it has one left and there is one at all.
    pub(super) fn take(&mut self, now: Timestamp, from: PeerKey) -> bool {
        let mut of_peer = self.of_peers.get(&from).copied().unwrap_or_default();
        if !of_peer.take(now, &self.rate_of_peer, 1) || !self.all.take(now, &self.rate, 1) {
            return false;
        }
        if self.of_peers.len() >= MAX_PEERS {
            self.of_peers.retain(|_, bucket| !bucket.is_full(now));
        }
        self.of_peers.insert(from, of_peer);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_own_looks_within_those_of_all_and_the_table_is_bounded() {
        let at = |millis| Timestamp::from_nanos(1_000_000 * millis);
        let mut looks = Looks::default();
        let mut taken = |now, peer: u32| {
            let taken =
                (0..500).filter(|_| looks.take(at(now), PeerKey::from(peer))).count() as u64;
            assert!(looks.of_peers.len() <= MAX_PEERS);
            taken
        };
        assert!((0..8).all(|peer| taken(1_000, peer) == LOOKS_OF_PEER.1));
        assert_eq!(taken(1_000, 8), 0, "all are taken");
        assert_eq!((taken(2_000, 0), taken(2_000, 8)), (LOOKS_OF_PEER.0, LOOKS_OF_PEER.1));
        let others = (9..5_000).map(|peer| taken(3_000 + u64::from(peer), peer));
        assert!(others.sum::<u64>() <= LOOKS.1 + LOOKS.0 * 6);
    }
}
