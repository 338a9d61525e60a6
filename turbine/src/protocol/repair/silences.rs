//! How long a message may be silent in good order.
//!
//! Shreds of a message come over many paths, and between two of them nothing comes for a while: a
//! path is longer than another, a relay is loaded, a timer was late. How long depends on where
//! this node is and who leads. So the longest silence within each message that came whole by
//! itself is remembered by leader, and a message is asked for when it has been silent for twice as
//! long, and [`LEAST`] beside it.
//!
//! Before enough of a leader's messages have come, twice the longest round trip that this node
//! measured is allowed for: of the ways over a root and a head no leg is longer than that from its
//! one end to this node and on to its other end, so by the triangle inequality a shred comes
//! at most so much later than over the direct way.
//!
//! [`RepairConfig::quiet`](crate::protocol::config::RepairConfig::quiet) is never exceeded, and
//! counts as long as nothing was measured. Nobody can make this node ask earlier than the others'
//! messages of the same leader showed to be early enough; who delays what it relays, or a leader
//! that sends slowly, makes this node wait as long as that and no longer.
//!
//! A message that had to be asked for shows no silence, since it was cut short. So every
//! [`WAIT_LONG`]th message waits as long as may be: should the network have become slower, these
//! tell.
//!
//! 48 bytes a leader, [`MAX_LEADERS`] at most.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::peer::PeerKey;
use crate::time::Timestamp;

/// What is allowed for beside silences that were seen: timers and schedulers of loaded hosts.
const LEAST: Duration = Duration::from_millis(20);
/// The same beside round trips alone, which were measured without load.
const LEAST_UNSEEN: Duration = Duration::from_millis(50);
/// Messages of a leader that must have come.
const ENOUGH: u32 = 8;
/// Half a window: the silences of the last 64 to 128 messages count.
const HALF: u32 = 64;
/// One message in so many waits as long as may be.
pub(super) const WAIT_LONG: u64 = 16;
/// Leaders of which silences are remembered.
const MAX_LEADERS: usize = 64;

/// The silences of one leader's messages.
#[derive(Debug, Clone, Copy)]
struct Silence {
    /// The longest of the half that runs.
    now: Duration,
    /// That of the half before.
    before: Duration,
    /// Messages of the half that runs.
    messages: u32,
    /// Whether there is a half before.
    follows: bool,
    /// When the last of them came.
    at: Timestamp,
}

/// The longest silences, by leader.
#[derive(Debug, Default)]
pub(super) struct Silences {
    leaders: BTreeMap<PeerKey, Silence>,
}

impl Silences {
    /// A message of `leader` came whole by itself; it was silent for so long at most.
    pub(super) fn note(&mut self, now: Timestamp, leader: PeerKey, silence: Duration) {
        if !self.leaders.contains_key(&leader) && self.leaders.len() >= MAX_LEADERS {
            let oldest = self.leaders.iter().min_by_key(|(_, known)| known.at);
            let oldest = oldest.map(|(oldest, _)| *oldest);
            oldest.map(|oldest| self.leaders.remove(&oldest));
        }
        let none = Duration::ZERO;
        let fresh = Silence { now: none, before: none, messages: 0, follows: false, at: now };
        let known = self.leaders.entry(leader).or_insert(fresh);
        if known.messages == HALF {
            *known = Silence { before: known.now, follows: true, ..fresh };
        }
        known.now = known.now.max(silence);
        known.messages += 1;
        known.at = now;
    }

    /// How long a message of `leader` may be silent, if `farthest` is the longest round trip from
    /// here that was measured.
    pub(super) fn quiet(
        &self,
        leader: Option<PeerKey>,
        farthest: Option<Duration>,
        most: Duration,
    ) -> Duration {
        let known = leader.and_then(|leader| self.leaders.get(&leader));
        let known = known.filter(|known| known.follows || known.messages >= ENOUGH);
        let quiet = match (known, farthest) {
            (Some(known), _) => LEAST + 2 * known.now.max(known.before),
            (None, Some(farthest)) => LEAST_UNSEEN + 2 * farthest,
            (None, None) => most,
        };
        quiet.min(most)
    }

    /// A peer is none any more.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.leaders.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_millis(100);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn quiet(silences: &Silences, leader: u32) -> Duration {
        silences.quiet(Some(PeerKey::from(leader)), None, MOST)
    }

    fn note(silences: &mut Silences, leader: u32, messages: u32, millis: u64) {
        for _ in 0..messages {
            silences.note(Timestamp::from_nanos(1), PeerKey::from(leader), ms(millis));
        }
    }

    #[test]
    fn quiet_is_twice_the_longest_silence_of_the_last_messages() {
        let mut silences = Silences::default();
        note(&mut silences, 1, ENOUGH - 1, 3);
        assert_eq!(quiet(&silences, 1), MOST, "too few are known");
        note(&mut silences, 1, 1, 7);
        assert_eq!(quiet(&silences, 1), ms(20 + 2 * 7));
        assert_eq!(quiet(&silences, 2), MOST, "another leader is another way");
        // It counts for the window and is then forgotten.
        note(&mut silences, 1, HALF, 1);
        assert_eq!(quiet(&silences, 1), ms(20 + 2 * 7));
        note(&mut silences, 1, HALF, 1);
        assert_eq!(quiet(&silences, 1), ms(20 + 2));
        note(&mut silences, 1, 1, 500);
        assert_eq!(quiet(&silences, 1), MOST, "never longer than configured");
        silences.forget(PeerKey::from(1));
        assert_eq!(quiet(&silences, 1), MOST);
    }

    #[test]
    fn before_that_twice_the_longest_round_trip_counts() {
        let mut silences = Silences::default();
        let unseen = |silences: &Silences, millis| {
            silences.quiet(Some(PeerKey::from(1)), Some(ms(millis)), MOST)
        };
        assert_eq!([unseen(&silences, 4), unseen(&silences, 80)], [ms(58), MOST]);
        assert_eq!(silences.quiet(None, Some(ms(1)), MOST), ms(52), "nobody is known to lead");
        note(&mut silences, 1, ENOUGH, 3);
        assert_eq!(unseen(&silences, 80), ms(26));
        assert_eq!(silences.quiet(Some(PeerKey::from(1)), None, ms(10)), ms(10));
    }

    #[test]
    fn the_leader_that_was_heard_longest_ago_makes_room() {
        let mut silences = Silences::default();
        for leader in 0..MAX_LEADERS as u32 + 5 {
            let at = Timestamp::from_nanos(u64::from(leader) + 1);
            silences.note(at, PeerKey::from(leader), ms(1));
        }
        assert_eq!(silences.leaders.len(), MAX_LEADERS);
        assert_eq!(silences.leaders.keys().next(), Some(&PeerKey::from(5)));
    }
}
