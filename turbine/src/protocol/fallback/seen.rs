//! Which messages have arrived, and by which way.

use std::collections::BTreeMap;

use alloy_primitives::B256;
use fragcast_shredder::{Kind, MessageKey};

use crate::time::Timestamp;

/// Messages whose arrivals are remembered, about 120 bytes each.
const MAX_SEEN: usize = 16_384;
/// Messages of one place in a block: as often as a block can be opened.
const MAX_VERSIONS: usize = 8;

/// One message as it arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    root: B256,
    pub(super) attempt: u8,
    pub(super) overlay_at: Option<Timestamp>,
    pub(super) gossip_at: Option<Timestamp>,
    /// Whether it came with another v, and must not be published in canonical form.
    pub(super) unpublished: bool,
    /// Bit i: a peer has answered with it, as one of attempt i.
    pub(super) answered: u8,
}

/// Arrivals in bounded memory; what is farther behind makes room.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By block and index.
    places: BTreeMap<(u64, u16), Vec<Arrival>>,
    count: usize,
}

impl Seen {
    /// Whether gossip has brought a message under this key, here or to a peer that answered.
    pub(super) fn has(&self, key: &MessageKey) -> bool {
        let seen = self.places.get(&(key.block, key.message));
        let by_gossip = |seen: &Arrival| seen.gossip_at.is_some() && seen.attempt == key.attempt;
        let answered = |seen: &Arrival| seen.answered.checked_shr(key.attempt.into()).unwrap_or(0);
        seen.is_some_and(|all| all.iter().any(|seen| by_gossip(seen) || answered(seen) & 1 == 1))
    }

    /// The attempt that a message of gossip most likely belongs to: an Env opens the next one,
    /// the rest goes with the newest Env that is known.
    pub(super) fn guess(&self, block: u64, kind: Kind) -> u8 {
        let envs = self.places.get(&(block, 0)).map_or(&[][..], Vec::as_slice);
        let newest = envs.iter().map(|seen| seen.attempt).max();
        match (kind, newest) {
            (_, None) => 0,
            (Kind::Env, Some(newest)) => newest.saturating_add(1).min(MAX_VERSIONS as u8 - 1),
            (_, Some(newest)) => newest,
        }
    }

    /// The entry of a message, if there is room for it.
    pub(super) fn entry(&mut self, key: MessageKey, root: B256) -> Option<&mut Arrival> {
        let place = (key.block, key.message);
        let known = self.places.get(&place).and_then(|all| all.iter().position(|s| s.root == root));
        if known.is_none() {
            let versions = self.places.get(&place).map_or(0, Vec::len);
            if versions >= MAX_VERSIONS {
                return None;
            }
            while self.count >= MAX_SEEN {
                let oldest = self.places.first_entry().filter(|oldest| *oldest.key() < place)?;
                self.count -= oldest.remove().len();
            }
            self.count += 1;
            let seen = Arrival {
                root,
                attempt: key.attempt,
                overlay_at: None,
                gossip_at: None,
                unpublished: false,
                answered: 0,
            };
            self.places.entry(place).or_default().push(seen);
        }
        let all = self.places.get_mut(&place)?;
        let at = known.unwrap_or(all.len() - 1);
        Some(&mut all[at])
    }

    /// Whether a message must not be published by this node.
    pub(super) fn is_unpublished(&self, key: &MessageKey, root: B256) -> bool {
        let seen = self.places.get(&(key.block, key.message));
        seen.is_some_and(|all| all.iter().any(|seen| seen.root == root && seen.unpublished))
    }

    /// Drops the blocks below `low`.
    pub(super) fn forget_below(&mut self, low: u64) {
        let kept = self.places.split_off(&(low, 0));
        let gone = std::mem::replace(&mut self.places, kept);
        self.count -= gone.values().map(Vec::len).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(block: u64, attempt: u8, message: u16) -> MessageKey {
        MessageKey { block, attempt, message }
    }

    fn root(n: u64) -> B256 {
        B256::from(blake3::derive_key("root", &n.to_le_bytes()))
    }

    #[test]
    fn what_gossip_or_an_answer_brought_is_here_under_its_attempt() {
        let mut seen = Seen::default();
        seen.entry(key(1, 2, 5), root(1)).unwrap();
        assert!(!seen.has(&key(1, 2, 5)), "an entry alone says nothing");
        let entry = seen.entry(key(1, 2, 5), root(1)).unwrap();
        entry.gossip_at = Some(Timestamp::from_nanos(1));
        entry.answered = 0b1000;
        for (attempt, has) in [(0, false), (2, true), (3, true), (4, false), (200, false)] {
            assert_eq!(seen.has(&key(1, attempt, 5)), has, "attempt {attempt}");
        }
        assert!(!seen.has(&key(1, 2, 6)));
    }

    #[test]
    fn attempts_are_guessed_from_the_envs_that_are_known() {
        let mut seen = Seen::default();
        assert_eq!((seen.guess(1, Kind::Env), seen.guess(1, Kind::Seal)), (0, 0));
        for attempt in 0..8 {
            assert_eq!(seen.guess(1, Kind::Env), attempt);
            seen.entry(key(1, attempt, 0), root(attempt.into())).unwrap();
            assert_eq!(seen.guess(1, Kind::Frag), attempt);
        }
        assert_eq!(seen.guess(1, Kind::Env), 7, "as often as a block can be opened");
        assert!(seen.entry(key(1, 7, 0), root(99)).is_none());
        assert!(seen.entry(key(1, 0, 0), root(3)).is_some(), "known already");
    }

    #[test]
    fn the_farthest_behind_makes_room_and_nothing_nearer() {
        let mut seen = Seen::default();
        for n in 0..MAX_SEEN as u64 {
            seen.entry(key(100 + n / 1_000, 0, (n % 1_000) as u16), root(n)).unwrap();
        }
        assert!(seen.entry(key(99, 0, 0), root(0)).is_none(), "all others are nearer");
        assert!(seen.entry(key(200, 0, 0), root(0)).is_some());
        assert_eq!((seen.count, seen.places.contains_key(&(100, 0))), (MAX_SEEN, false));
        seen.forget_below(200);
        assert_eq!(seen.count, 1);
    }

    #[test]
    fn another_v_is_not_published() {
        let mut seen = Seen::default();
        seen.entry(key(1, 0, 1), root(1)).unwrap().unpublished = true;
        seen.entry(key(1, 1, 1), root(2)).unwrap();
        let unpublished = |n| seen.is_unpublished(&key(1, 0, 1), root(n));
        assert_eq!([1, 2, 3].map(unpublished), [true, false, false]);
    }
}
