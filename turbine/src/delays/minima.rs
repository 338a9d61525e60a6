//! The shortest round trip to each peer over some tens of seconds.
//!
//! A single sample has the queues of its moment in it, and so has a mean. The minimum over a
//! window has them only if they stood all the time. The window is two halves, the one that runs
//! and the one before, so that it moves without a list of samples.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::peer::PeerKey;
use crate::time::Timestamp;

/// Half a window: a minimum is of the last 15 to 30 s.
const HALF: Duration = Duration::from_secs(15);
/// Peers of which round trips are kept at most, 24 bytes each.
const MAX_MEASURED: usize = 4_096;

#[derive(Debug, Clone, Copy)]
struct Minimum {
    /// Number of the half that runs.
    half: u64,
    /// Its minimum in µs.
    now: u32,
    /// That of the half before.
    before: u32,
}

/// The shortest round trips, by peer.
#[derive(Debug, Default)]
pub(crate) struct Minima {
    peers: BTreeMap<PeerKey, Minimum>,
    /// The longest of them when it was looked for last, in µs.
    farthest: Option<u32>,
}

impl Minimum {
    fn micros(&self) -> u32 {
        self.now.min(self.before)
    }
}

impl Minima {
    /// Takes a sample. Of more than [`MAX_MEASURED`] peers the later ones are not measured.
    pub(crate) fn take(&mut self, now: Timestamp, peer: PeerKey, sample: Duration) {
        let half = now.as_nanos() / HALF.as_nanos() as u64;
        let micros = u32::try_from(sample.as_micros()).unwrap_or(u32::MAX).max(1);
        if let Some(minimum) = self.peers.get_mut(&peer) {
            if minimum.half != half {
                let follows = minimum.half + 1 == half;
                minimum.before = if follows { minimum.now } else { u32::MAX };
                (minimum.now, minimum.half) = (u32::MAX, half);
            }
            minimum.now = minimum.now.min(micros);
        } else if self.peers.len() < MAX_MEASURED {
            self.peers.insert(peer, Minimum { half, now: micros, before: u32::MAX });
        }
    }

    /// Forgets a peer.
    pub(crate) fn forget(&mut self, peer: PeerKey) {
        self.peers.remove(&peer);
    }

    /// The peers with their shortest round trips in µs. One that is disconnected keeps its last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerKey, u32)> + '_ {
        self.peers.iter().map(|(peer, minimum)| (*peer, minimum.micros()))
    }

    /// The shortest round trip to a peer in µs, if it was measured.
    pub(crate) fn get(&self, peer: PeerKey) -> Option<u32> {
        self.peers.get(&peer).map(Minimum::micros)
    }

    /// Looks for the longest of them.
    pub(crate) fn settle(&mut self) {
        self.farthest = self.peers.values().map(Minimum::micros).max();
    }

    /// The longest of the shortest round trips, when it was looked for last.
    pub(crate) fn farthest(&self) -> Option<Duration> {
        self.farthest.map(|micros| Duration::from_micros(micros.into()))
    }

    /// How many peers were measured.
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn the_minimum_of_a_window_counts_and_not_the_last_sample() {
        let (mut minima, peer) = (Minima::default(), PeerKey::from(7));
        let mut take = |seconds: u64, millis: u64| {
            minima.take(at(seconds), peer, Duration::from_millis(millis));
            minima.iter().next().unwrap().1 / 1_000
        };
        assert_eq!([take(30, 80), take(31, 20), take(32, 90)], [80, 20, 20]);
        // The half before still counts, the one before that does not.
        assert_eq!([take(45, 70), take(59, 75), take(60, 90)], [20, 20, 70]);
        // After a pause nothing of what was before does.
        assert_eq!(take(200, 300), 300);
    }

    #[test]
    fn the_farthest_peer_is_the_one_whose_shortest_round_trip_is_longest() {
        let mut minima = Minima::default();
        minima.settle();
        assert_eq!((minima.farthest(), minima.get(PeerKey::from(1))), (None, None));
        for (peer, millis) in [(1, 900), (1, 20), (2, 30), (2, 35)] {
            minima.take(at(1), PeerKey::from(peer), Duration::from_millis(millis));
        }
        minima.settle();
        assert_eq!(minima.farthest(), Some(Duration::from_millis(30)));
        assert_eq!(minima.get(PeerKey::from(1)), Some(20_000));
    }

    #[test]
    fn the_table_has_a_capacity() {
        let mut minima = Minima::default();
        let peers = 0..MAX_MEASURED as u32 + 10;
        peers.for_each(|n| minima.take(at(1), PeerKey::from(n), Duration::from_millis(5)));
        assert_eq!(minima.len(), MAX_MEASURED);
        minima.forget(PeerKey::from(3));
        minima.take(at(2), PeerKey::from(MAX_MEASURED as u32 + 5), Duration::from_secs(5_000));
        assert_eq!(minima.len(), MAX_MEASURED);
        assert_eq!(minima.iter().last().unwrap().1, u32::MAX, "longer than can be told");
    }
}
