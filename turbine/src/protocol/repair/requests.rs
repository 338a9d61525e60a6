//! What was asked, of whom, and what of it is answered.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fragcast_shredder::{MessageKey, SetKey};

use super::parts::Assemblies;
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::time::Timestamp;

/// Requests that are remembered: those whose time is up are still good for an answer.
const MAX_REQUESTS: usize = 128;
/// Requests that are settled; an answer to one is late, and nobody's fault.
const MAX_SETTLED: usize = 128;

/// A request for a set, or for a whole message.
pub(super) struct Request {
    pub(super) peer: PeerKey,
    pub(super) set: SetKey,
    pub(super) sent: Timestamp,
    /// When somebody else is asked.
    pub(super) until: Timestamp,
    pub(super) answered: bool,
}

/// All requests that wait for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AllWaiting {
    /// How many there are.
    pub(super) count: usize,
    /// When the first of them times out.
    pub(super) first_until: Option<Timestamp>,
}

/// What was asked and of whom.
#[derive(Default)]
pub(super) struct Requests {
    by_nonce: BTreeMap<u64, Request>,
    settled: VecDeque<(u64, PeerKey)>,
    /// Answers that come in parts.
    pub(super) assemblies: Assemblies,
    last_nonce: u64,
}

impl Requests {
    /// How many still wait at `now`.
    pub(super) fn waiting(&self, now: Timestamp) -> usize {
        self.by_nonce.values().filter(|request| request.until > now).count()
    }

    /// How many wait at `now`, and until when the first does.
    pub(super) fn all_waiting(&self, now: Timestamp) -> AllWaiting {
        AllWaiting { count: self.waiting(now), first_until: self.first_until(now) }
    }

    /// Of those, how many wait for `peer`.
    pub(super) fn waiting_for(&self, now: Timestamp, peer: PeerKey) -> usize {
        let waiting = self.by_nonce.values().filter(|request| request.until > now);
        waiting.filter(|request| request.peer == peer).count()
    }

    /// When the first waiting request times out.
    pub(super) fn first_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.by_nonce.values().map(|request| request.until).filter(|until| *until > now).min()
    }

    pub(super) fn insert(&mut self, request: Request) -> u64 {
        if self.by_nonce.len() >= MAX_REQUESTS {
            self.by_nonce.pop_first();
        }
        self.last_nonce += 1;
        self.by_nonce.insert(self.last_nonce, request);
        self.last_nonce
    }

    /// Whether anything of a message is waited for.
    pub(super) fn any_of(&self, now: Timestamp, key: &MessageKey) -> bool {
        let waiting = self.by_nonce.values().filter(|request| request.until > now);
        waiting.into_iter().any(|request| request.set.message == *key)
    }

    /// Those that are for `which` need no answer any more.
    pub(super) fn settle(&mut self, which: impl Fn(&SetKey) -> bool) {
        let settled = &mut self.settled;
        self.by_nonce.retain(|nonce, request| {
            let settle = which(&request.set);
            if settle {
                settled.push_back((*nonce, request.peer));
            }
            !settle
        });
        self.forget_settled();
        self.assemblies.settle(which);
    }

    /// Retires a request whose answer is complete.
    pub(super) fn retire(&mut self, nonce: u64) {
        if let Some(request) = self.by_nonce.remove(&nonce) {
            self.settled.push_back((nonce, request.peer));
            self.forget_settled();
        }
    }

    fn forget_settled(&mut self) {
        let surplus = self.settled.len().saturating_sub(MAX_SETTLED);
        self.settled.drain(..surplus);
    }

    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.by_nonce.retain(|_, request| request.peer != peer);
        self.assemblies.forget(peer);
    }

    /// What an answer of `from` is for, if that was asked, and how long it took if it is the first
    /// of its answer.
    pub(super) fn answered(
        &mut self,
        now: Timestamp,
        from: PeerKey,
        nonce: u64,
    ) -> Result<(SetKey, Option<Duration>), Outcome> {
        let Some(request) = self.by_nonce.get_mut(&nonce).filter(|r| r.peer == from) else {
            let late = self.settled.contains(&(nonce, from));
            return Err(if late { Outcome::RepairLate } else { Outcome::RepairUnasked });
        };
        let first = !std::mem::replace(&mut request.answered, true);
        Ok((request.set, first.then(|| now.since(request.sent))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_000);
    const LATER: Timestamp = Timestamp::from_nanos(2_000);

    fn set(message: u16, set: u16) -> SetKey {
        SetKey { message: MessageKey { block: 1, attempt: 0, message }, set }
    }

    fn ask(requests: &mut Requests, peer: u32, of: SetKey) -> u64 {
        let peer = PeerKey::from(peer);
        requests.insert(Request { peer, set: of, sent: NOW, until: LATER, answered: false })
    }

    #[test]
    fn an_answer_is_taken_from_whom_it_was_asked_and_timed_once() {
        let mut requests = Requests::default();
        let (one, two) = (PeerKey::from(1), PeerKey::from(2));
        let nonce = ask(&mut requests, 1, set(3, 0));
        assert_eq!(requests.answered(LATER, two, nonce), Err(Outcome::RepairUnasked));
        assert_eq!(requests.answered(LATER, one, nonce + 1), Err(Outcome::RepairUnasked));
        let took = Duration::from_nanos(1_000);
        assert_eq!(requests.answered(LATER, one, nonce), Ok((set(3, 0), Some(took))));
        assert_eq!(requests.answered(LATER, one, nonce), Ok((set(3, 0), None)));
        requests.settle(|asked| asked.message.message == 3);
        assert_eq!(requests.answered(LATER, one, nonce), Err(Outcome::RepairLate));
        assert_eq!(requests.answered(LATER, two, nonce), Err(Outcome::RepairUnasked));
    }

    #[test]
    fn what_waits_is_counted_until_its_time_is_up() {
        let mut requests = Requests::default();
        ask(&mut requests, 1, set(0, 0));
        ask(&mut requests, 1, set(0, 1));
        ask(&mut requests, 2, set(1, 0));
        assert_eq!(requests.waiting(NOW), 3);
        assert_eq!(requests.waiting_for(NOW, PeerKey::from(1)), 2);
        assert_eq!(requests.first_until(NOW), Some(LATER));
        assert!(requests.any_of(NOW, &set(1, 0).message));
        assert_eq!((requests.waiting(LATER), requests.first_until(LATER)), (0, None));
        requests.forget(PeerKey::from(1));
        assert_eq!(requests.waiting(NOW), 1);
    }

    #[test]
    fn the_oldest_requests_and_settlements_are_forgotten() {
        let mut requests = Requests::default();
        let nonces: Vec<u64> = (0..300).map(|n| ask(&mut requests, 1, set(n, 0))).collect();
        assert_eq!(requests.waiting(NOW), MAX_REQUESTS);
        requests.settle(|_| true);
        let late = |nonce: &&u64| requests.settled.contains(&(**nonce, PeerKey::from(1)));
        assert_eq!(nonces.iter().filter(late).count(), MAX_SETTLED);
    }
}
