//! One wanted message: when to ask for it, and who may have it.

use std::time::Duration;

use crate::peer::PeerKey;
use crate::time::Timestamp;

/// The most peers that are remembered to have a message.
pub(super) const MAX_HOLDERS: usize = 8;

/// A peer that has a message, or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) peer: PeerKey,
    /// Its tips say that it has it whole. Who only sent a shred of it may lack what we lack.
    pub(super) told: bool,
    /// The round trip to it, in µs, as far as it was known then.
    pub(super) micros: u32,
}

/// A message that is not whole.
#[derive(Debug)]
pub(super) struct Want {
    /// A shred proves that it exists.
    pub(super) certain: bool,
    /// Peers that sent shreds of it, or tips with it.
    pub(super) holders: Vec<Holder>,
    /// Those that were asked since anything of it came, who was asked last at the end.
    pub(super) asked: Vec<PeerKey>,
    /// When to ask: `quiet` after the last news, or when the requests under way time out.
    pub(super) due: Timestamp,
    /// Requests since anything of it came.
    pub(super) tries: u8,
    /// A set became complete since it was asked for last.
    pub(super) progress: bool,
    /// Given up; news after `due` starts it again.
    pub(super) resting: bool,
    /// The plan that its shreds name.
    pub(super) plan: Option<u64>,
    /// When its last shred came by itself.
    pub(super) live: Option<Timestamp>,
    /// The longest time in which it was certain and nothing of it came, up to the last shred that
    /// came by itself.
    pub(super) silence: Duration,
    /// Shreds that repair brought.
    pub(super) repaired: u32,
    /// Since when it is wanted.
    pub(super) since: Timestamp,
    /// Since when nothing of it came, or since when it is certain.
    silent_since: Timestamp,
    /// Peers whose tips have it whole, two at most.
    pub(super) told_by: Vec<PeerKey>,
}

impl Want {
    pub(super) const fn new(since: Timestamp, due: Timestamp, certain: bool) -> Self {
        Self {
            certain,
            holders: Vec::new(),
            asked: Vec::new(),
            due,
            tries: 0,
            progress: false,
            resting: false,
            plan: None,
            live: None,
            silence: Duration::ZERO,
            repaired: 0,
            since,
            silent_since: since,
            told_by: Vec::new(),
        }
    }

    /// A shred proves that it exists. Says whether that is new.
    pub(super) const fn prove(&mut self, now: Timestamp) -> bool {
        if self.certain {
            return false;
        }
        (self.certain, self.silent_since) = (true, now);
        true
    }

    /// Remembers a peer that has it. If there are too many, one gives way: that was asked in vain,
    /// that only sent a shred, or that is farther than the new one.
    pub(super) fn hold(&mut self, peer: PeerKey, told: bool, micros: u32) {
        if let Some(known) = self.holders.iter_mut().find(|holder| holder.peer == peer) {
            known.told |= told;
            return;
        }
        let holder = Holder { peer, told, micros };
        if self.holders.len() < MAX_HOLDERS {
            self.holders.push(holder);
            return;
        }
        let worth = |holder: &Holder| {
            (self.asked.contains(&holder.peer), !holder.told, holder.micros, holder.peer)
        };
        let worst = (0..self.holders.len()).max_by_key(|i| worth(&self.holders[*i]));
        if let Some(worst) = worst.filter(|worst| worth(&self.holders[*worst]) > worth(&holder)) {
            self.holders[worst] = holder;
        }
    }

    /// A shred of it came by itself.
    pub(super) fn came(&mut self, now: Timestamp) {
        self.silence = self.silence.max(now.since(self.silent_since));
        (self.silent_since, self.live) = (now, Some(now));
    }

    /// News of it at `now`: waits until `due`, unless it was asked for already.
    pub(super) fn news(&mut self, now: Timestamp, due: Timestamp) {
        if self.resting && self.due <= now {
            (self.resting, self.tries, self.due) = (false, 0, due);
            self.asked.clear();
        } else if self.tries == 0 && !self.resting {
            self.due = due;
        }
    }

    /// Those whose tips have it.
    pub(super) fn told(&self) -> Vec<PeerKey> {
        self.holders.iter().filter(|holder| holder.told).map(|holder| holder.peer).collect()
    }

    /// A peer is asked for it.
    pub(super) fn ask(&mut self, peer: PeerKey) {
        self.asked.retain(|asked| *asked != peer);
        self.asked.push(peer);
    }

    /// A peer that nobody can ask any more.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.holders.retain(|holder| holder.peer != peer);
        self.asked.retain(|asked| *asked != peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_nanos(micros * 1_000)
    }

    fn want() -> Want {
        Want::new(at(1_000), at(2_000), true)
    }

    fn holders(want: &Want) -> Vec<u32> {
        want.holders.iter().map(|holder| holder.peer.number()).collect()
    }

    #[test]
    fn of_many_holders_those_stay_that_told_and_are_near() {
        let mut want = want();
        let most = MAX_HOLDERS as u32;
        (0..most).for_each(|n| want.hold(PeerKey::from(n), false, 10 * n));
        want.hold(PeerKey::from(50), false, 1_000);
        assert_eq!(holders(&want), (0..most).collect::<Vec<_>>(), "it is farther than all others");
        want.hold(PeerKey::from(51), true, 1_000);
        assert!(!holders(&want).contains(&(most - 1)), "the farthest that did not tell");
        want.hold(PeerKey::from(0), true, 0);
        assert!(want.holders[0].told && want.holders.len() == MAX_HOLDERS);
        // Who was asked in vain goes first, however near it is.
        want.ask(PeerKey::from(0));
        want.hold(PeerKey::from(52), false, 2_000);
        assert!(!holders(&want).contains(&0) && holders(&want).contains(&52));
        want.forget(PeerKey::from(52));
        assert!(!holders(&want).contains(&52));
    }

    #[test]
    fn silence_counts_from_when_the_message_is_certain() {
        let mut hearsay = Want::new(at(1_000), at(2_000), false);
        assert!(hearsay.prove(at(50_000)) && !hearsay.prove(at(60_000)));
        hearsay.came(at(50_000));
        assert_eq!(hearsay.silence, Duration::ZERO, "a liar's tips make no silence");
        hearsay.came(at(53_000));
        hearsay.came(at(54_000));
        assert_eq!(hearsay.silence, Duration::from_millis(3));
        let mut proven = want();
        proven.came(at(8_000));
        assert_eq!(proven.silence, Duration::from_millis(7), "a later message had proven it");
    }

    #[test]
    fn who_was_asked_last_stands_last() {
        let mut want = want();
        [1, 2, 3, 1].iter().for_each(|n| want.ask(PeerKey::from(*n)));
        assert_eq!(want.asked, [2, 3, 1].map(PeerKey::from));
        want.resting = true;
        want.news(at(3_000), at(4_000));
        assert!(want.asked.is_empty() && !want.resting && want.due == at(4_000));
    }
}
