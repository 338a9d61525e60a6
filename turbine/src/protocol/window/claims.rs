//! What connected peers tell of the newest block, and what most of them tell.
//!
//! A peer's word counts as much as its weight. A majority is a block near which peers of more than
//! half of the weight that was heard are, and they must be as good as all: peers with half of the
//! connected weight must have been heard within [`LIFE`], or [`ENOUGH`] of them by a node that knows
//! of no block yet.

use std::collections::BTreeMap;
use std::time::Duration;

use super::WINDOW_FUTURE;
use crate::peer::PeerKey;
use crate::time::Timestamp;

/// How long a peer's word counts.
pub(super) const LIFE: Duration = Duration::from_secs(4);
/// Peers whose word is remembered, 40 bytes each: as many as there are connections.
const MAX_CLAIMS: usize = 4096;
/// So many peers are a sample of any network, to who knows nothing better.
const ENOUGH: usize = 16;
/// Counts are at least so far apart, whatever peers tell.
const EVERY: Duration = Duration::from_millis(100);
/// The same while all that is told lies in the window.
const SELDOM: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Claims {
    newest: BTreeMap<PeerKey, (u64, Timestamp)>,
    /// Whether the last word that was told was the first of its peer.
    is_first: bool,
    counted_at: Option<Timestamp>,
}

impl Claims {
    pub(super) fn tell(&mut self, now: Timestamp, peer: PeerKey, block: u64) {
        if self.newest.len() >= MAX_CLAIMS && !self.newest.contains_key(&peer) {
            self.newest.retain(|_, (_, at)| now.since(*at) <= LIFE);
            if self.newest.len() >= MAX_CLAIMS {
                self.is_first = false;
                return;
            }
        }
        self.is_first = self.newest.insert(peer, (block, now)).is_none();
    }

    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.newest.remove(&peer);
    }

    pub(super) fn clear(&mut self) {
        self.newest.clear();
    }

    /// Whether to count now; `inside`: what was told last changes nothing.
    pub(super) fn is_count_due(&self, now: Timestamp, inside: bool) -> bool {
        let pause = if inside { SELDOM } else { EVERY };
        // The first words of a few peers that have just connected are worth more than the pause: one
        // count each, whatever they go on to tell.
        let few = !inside && self.is_first && self.newest.len() <= ENOUGH;
        few || self.counted_at.is_none_or(|at| now.since(at) >= pause)
    }

    /// The block that most tell. `mine`: this node's own word and weight; `connected`: the weight of
    /// all that are connected; `known`: whether the window is somewhere.
    pub(super) fn count(
        &mut self,
        now: Timestamp,
        mine: Option<(u64, u64)>,
        connected: u128,
        known: bool,
        weigh: impl Fn(PeerKey) -> Option<u64>,
    ) -> Option<u64> {
        self.counted_at = Some(now);
        let fresh = self.newest.iter().filter(|(_, (_, at))| now.since(*at) <= LIFE);
        let mut words: Vec<(u64, u64)> =
            fresh.filter_map(|(peer, (block, _))| Some((*block, weigh(*peer)?))).collect();
        let sum = |words: &[(u64, u64)]| words.iter().map(|(_, w)| u128::from(*w)).sum::<u128>();
        let heard = sum(&words);
        let sample = !known && words.len() >= ENOUGH;
        if words.is_empty() || (heard * 2 < connected && !sample) {
            return None;
        }
        words.extend(mine);
        words.sort_unstable();
        let all = sum(&words);
        let mut below = 0;
        let (median, _) = *words.iter().find(|(_, weight)| {
            below += u128::from(*weight);
            below * 2 >= all
        })?;
        let near = |block: u64| block.abs_diff(median) <= WINDOW_FUTURE;
        let agree: u128 = words.iter().filter(|w| near(w.0)).map(|(_, w)| u128::from(*w)).sum();
        (agree * 2 > all).then_some(median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000);

    fn told(words: &[(u32, u64)]) -> Claims {
        let mut claims = Claims::default();
        words.iter().for_each(|(peer, block)| claims.tell(NOW, PeerKey::from(*peer), *block));
        claims
    }

    #[test]
    fn most_decide_by_weight_and_a_liar_alone_nothing() {
        let count = |words: &[(u32, u64)], connected: u128, weight: &dyn Fn(u32) -> u64| {
            told(words).count(NOW, None, connected, false, |peer| Some(weight(peer.number())))
        };
        let equal = |_| 1;
        assert_eq!(count(&[(1, 1_000), (2, 1_001), (3, u64::MAX)], 3, &equal), Some(1_001));
        assert_eq!(count(&[(1, 0), (2, 1_001), (3, 1_000)], 3, &equal), Some(1_000));
        assert_eq!(count(&[(1, 1_000), (2, u64::MAX)], 2, &equal), None, "one against one");
        assert_eq!(count(&[(3, u64::MAX)], 3, &equal), None, "one of three is heard");
        let heavy = |peer| if peer == 3 { 5 } else { 1 };
        assert_eq!(count(&[(1, 9), (2, 9), (3, 5_000)], 7, &heavy), Some(5_000));
        let many: Vec<(u32, u64)> = (0..16).map(|peer| (peer, 70)).collect();
        assert_eq!(count(&many, 1_000_000, &equal), Some(70), "a sample of a large network");
        assert_eq!(count(&many[..15], 1_000_000, &equal), None);
    }

    #[test]
    fn sixteen_members_of_little_weight_move_nobody_who_is_somewhere() {
        let many: Vec<(u32, u64)> = (0..16).map(|peer| (peer, 70)).collect();
        let count = |known, weight| told(&many).count(NOW, None, 1_000, known, |_| Some(weight));
        assert_eq!(count(true, 1), None);
        assert_eq!(count(false, 1), Some(70), "who knows nothing takes them for a sample");
        assert_eq!(count(true, 32), Some(70), "half of the weight");
    }

    /// Counting goes through all members: a peer that tells without end must not have it done for
    /// each of its words.
    #[test]
    fn the_first_words_of_a_few_are_counted_at_once_and_later_ones_at_a_rate() {
        let mut claims = Claims::default();
        let counts = |claims: &mut Claims, peer: u32, block: u64| {
            claims.tell(NOW, PeerKey::from(peer), block);
            let due = claims.is_count_due(NOW, false);
            if due {
                claims.count(NOW, None, 100, true, |_| Some(1));
            }
            due
        };
        assert!((0..16).all(|peer| counts(&mut claims, peer, 50)));
        assert!((0..1_000).all(|block| !counts(&mut claims, 3, 1_000 + block)));
        assert!(!counts(&mut claims, 99, 50), "many are there already");
        assert!(claims.is_count_due(NOW + EVERY, false));
    }

    #[test]
    fn an_old_word_counts_no_more_and_own_progress_is_a_word() {
        let mut claims = told(&[(1, 50), (2, 50)]);
        let later = NOW + LIFE + Duration::from_nanos(1);
        claims.tell(later, PeerKey::from(3), 900);
        assert_eq!(claims.count(later, None, 1, true, |_| Some(1)), Some(900));
        assert_eq!(
            claims.count(later, Some((60, 1)), 1, true, |_| Some(1)),
            None,
            "one against one"
        );
        claims.forget(PeerKey::from(3));
        assert_eq!(
            claims.count(later, Some((60, 1)), 1, true, |_| Some(1)),
            None,
            "nobody is heard"
        );
    }

    #[test]
    fn counts_are_rare_while_nothing_changes_and_the_table_is_bounded() {
        let mut claims = told(&[]);
        for peer in 0..MAX_CLAIMS as u32 + 10 {
            claims.tell(NOW, PeerKey::from(peer), 1);
        }
        assert_eq!(claims.newest.len(), MAX_CLAIMS);
        assert!(claims.is_count_due(NOW, true));
        claims.count(NOW, None, 1, true, |_| Some(1));
        let after = |millis| NOW + Duration::from_millis(millis);
        assert!(!claims.is_count_due(after(99), false) && claims.is_count_due(after(100), false));
        assert!(!claims.is_count_due(after(999), true) && claims.is_count_due(after(1_000), true));
    }
}
