//! What is known of peers as those who answer: how long it takes them, and whether they do.
//!
//! A peer that leaves requests without use, because it has nothing, is gone, or will not answer,
//! counts as [`MISS`] farther for each of them, up to [`MAX_MISSES`], for [`FORGIVEN`]. So a peer
//! that is near and silent is soon behind those that are farther and answer, whatever it tells.
//!
//! 48 bytes a peer, [`MAX_ANSWERERS`] at most; the one that was asked longest ago makes room.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::peer::PeerKey;
use crate::time::Timestamp;

/// Peers that are remembered.
const MAX_ANSWERERS: usize = 256;
/// What a request in vain counts as, in µs of round trip.
const MISS: u32 = 100_000;
/// Requests in vain that count at most.
const MAX_MISSES: u32 = 8;
/// How long they count.
const FORGIVEN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
struct Answerer {
    /// From a request to its answer, smoothed.
    took: Option<Duration>,
    misses: u32,
    /// When this was changed last.
    at: Timestamp,
}

/// The peers that were asked.
#[derive(Debug, Default)]
pub(super) struct Answerers {
    peers: BTreeMap<PeerKey, Answerer>,
}

impl Answerers {
    fn entry(&mut self, now: Timestamp, peer: PeerKey) -> &mut Answerer {
        if !self.peers.contains_key(&peer) && self.peers.len() >= MAX_ANSWERERS {
            let oldest = self.peers.iter().min_by_key(|(_, known)| known.at);
            let oldest = oldest.map(|(oldest, _)| *oldest);
            oldest.map(|oldest| self.peers.remove(&oldest));
        }
        let known = self.peers.entry(peer).or_insert(Answerer { took: None, misses: 0, at: now });
        if now.since(known.at) >= FORGIVEN {
            known.misses = 0;
        }
        known.at = now;
        known
    }

    /// The first of an answer came so long after its request.
    pub(super) fn took(&mut self, now: Timestamp, peer: PeerKey, measured: Duration) {
        let known = self.entry(now, peer);
        known.took = Some(known.took.map_or(measured, |before| (before * 3 + measured) / 4));
    }

    /// Something of an answer was of use.
    pub(super) fn useful(&mut self, peer: PeerKey) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.misses = 0;
        }
    }

    /// The time of a request is up, and nothing of use has come.
    pub(super) fn missed(&mut self, now: Timestamp, peer: PeerKey) {
        let known = self.entry(now, peer);
        known.misses = (known.misses + 1).min(MAX_MISSES);
    }

    /// How long a peer takes to answer, if it was ever seen to.
    pub(super) fn round_trip(&self, peer: PeerKey) -> Option<Duration> {
        self.peers.get(&peer)?.took
    }

    /// By how many µs a peer counts as farther for what it left without use.
    pub(super) fn penalty(&self, now: Timestamp, peer: PeerKey) -> u32 {
        let known = self.peers.get(&peer).filter(|known| now.since(known.at) < FORGIVEN);
        known.map_or(0, |known| known.misses * MISS)
    }

    /// A peer is none any more.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.peers.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn who_answers_nothing_is_farther_until_it_is_of_use_or_forgiven() {
        let (mut answerers, peer) = (Answerers::default(), PeerKey::from(3));
        assert_eq!(answerers.penalty(at(0), peer), 0);
        answerers.missed(at(0), peer);
        answerers.missed(at(10), peer);
        assert_eq!(answerers.penalty(at(10), peer), 2 * MISS);
        // An answer in time that is of no use changes nothing.
        answerers.took(at(20), peer, ms(4));
        assert_eq!(answerers.penalty(at(20), peer), 2 * MISS);
        (0..50).for_each(|n| answerers.missed(at(20 + n), peer));
        assert_eq!(answerers.penalty(at(70), peer), MAX_MISSES * MISS);
        assert_eq!(answerers.penalty(at(69) + FORGIVEN, peer), 0, "forgiven");
        answerers.missed(at(70) + FORGIVEN, peer);
        assert_eq!(answerers.penalty(at(70) + FORGIVEN, peer), MISS, "and counted anew");
        answerers.useful(peer);
        assert_eq!(answerers.penalty(at(71) + FORGIVEN, peer), 0);
    }

    #[test]
    fn round_trips_are_smoothed_and_who_was_asked_longest_ago_is_forgotten() {
        let mut answerers = Answerers::default();
        let peer = PeerKey::from(0);
        answerers.took(at(1), peer, ms(40));
        answerers.took(at(1), peer, ms(80));
        assert_eq!(answerers.round_trip(peer), Some(ms(50)));
        for n in 1..=MAX_ANSWERERS as u32 {
            answerers.missed(at(1 + u64::from(n)), PeerKey::from(n));
        }
        assert_eq!((answerers.peers.len(), answerers.round_trip(peer)), (MAX_ANSWERERS, None));
        answerers.forget(PeerKey::from(7));
        assert_eq!(answerers.peers.len(), MAX_ANSWERERS - 1);
    }
}
