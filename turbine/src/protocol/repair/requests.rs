//! What was asked, of whom, and what of it is answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use fragcast_shredder::{MessageKey, SetKey};

use super::parts::Assemblies;
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::time::Timestamp;

/// Requests that are remembered: those whose time is up are still good for an answer.
const MAX_REQUESTS: usize = 128;
/// Bytes of one answer: as much of a whole message as is answered with, or a whole set.
const MAX_ANSWER: usize = 256 * 1024;
/// What a frame of it counts beside its shreds.
const FRAME_COST: usize = 64;
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
    /// Something of its answer was of use.
    useful: bool,
    /// Bytes of shreds that may still come: as long as it is not settled its peer could send the
    /// same ones for ever.
    pub(super) left: usize,
}

impl Request {
    /// A request that was sent just now.
    pub(super) const fn new(peer: PeerKey, set: SetKey, sent: Timestamp, until: Timestamp) -> Self {
        Self { peer, set, sent, until, answered: false, useful: false, left: MAX_ANSWER }
    }
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
    /// Those of them whose time was not up when [`in_vain`](Self::in_vain) last looked: until
    /// when, and the nonce.
    open: BTreeSet<(Timestamp, u64)>,
    /// Nonces of the open ones, by whom was asked.
    by_peer: BTreeMap<PeerKey, Vec<u64>>,
    settled: VecDeque<(u64, PeerKey)>,
    /// Answers that come in parts.
    pub(super) assemblies: Assemblies,
    last_nonce: u64,
}

impl Requests {
    /// Those that still wait at `now`, in the order in which their time will be up.
    fn still_waiting(&self, now: Timestamp) -> impl Iterator<Item = &Request> {
        let from = (Bound::Excluded((now, u64::MAX)), Bound::Unbounded);
        self.open.range(from).filter_map(|(_, nonce)| self.by_nonce.get(nonce))
    }

    /// How many still wait at `now`.
    pub(super) fn waiting(&self, now: Timestamp) -> usize {
        self.still_waiting(now).count()
    }

    /// How many wait at `now`, and until when the first does.
    pub(super) fn all_waiting(&self, now: Timestamp) -> AllWaiting {
        let first_until = self.still_waiting(now).next().map(|request| request.until);
        AllWaiting { count: self.waiting(now), first_until }
    }

    /// Of those, how many wait for `peer`.
    pub(super) fn waiting_for(&self, now: Timestamp, peer: PeerKey) -> usize {
        let asked = self.by_peer.get(&peer).into_iter().flatten();
        let asked = asked.filter_map(|nonce| self.by_nonce.get(nonce));
        asked.filter(|request| request.until > now).count()
    }

    pub(super) fn insert(&mut self, request: Request) -> u64 {
        if self.by_nonce.len() >= MAX_REQUESTS
            && let Some(oldest) = self.by_nonce.keys().next().copied()
        {
            self.remove(oldest);
        }
        self.last_nonce += 1;
        self.open.insert((request.until, self.last_nonce));
        self.by_peer.entry(request.peer).or_default().push(self.last_nonce);
        self.by_nonce.insert(self.last_nonce, request);
        self.last_nonce
    }

    fn remove(&mut self, nonce: u64) -> Option<Request> {
        let request = self.by_nonce.remove(&nonce)?;
        self.close(nonce, request.peer, request.until);
        Some(request)
    }

    /// A request does not wait any more.
    fn close(&mut self, nonce: u64, peer: PeerKey, until: Timestamp) {
        if self.open.remove(&(until, nonce))
            && let Some(nonces) = self.by_peer.get_mut(&peer)
        {
            nonces.retain(|other| *other != nonce);
            if nonces.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
    }

    /// Removes the requests that `which` names.
    fn remove_if(&mut self, which: impl Fn(&Request) -> bool) -> Vec<(u64, PeerKey)> {
        let named = self.by_nonce.iter().filter(|(_, request)| which(request));
        let named: Vec<_> = named.map(|(nonce, request)| (*nonce, request.peer)).collect();
        for (nonce, _) in &named {
            self.remove(*nonce);
        }
        named
    }

    /// Whether anything of a message is waited for.
    pub(super) fn any_of(&self, now: Timestamp, key: &MessageKey) -> bool {
        self.still_waiting(now).any(|request| request.set.message == *key)
    }

    /// Those that are for `which` need no answer any more.
    pub(super) fn settle(&mut self, which: impl Fn(&SetKey) -> bool) {
        let settled = self.remove_if(|request| which(&request.set));
        self.settled.extend(settled);
        self.forget_settled();
        self.assemblies.settle(which);
    }

    /// Retires a request whose answer is complete.
    pub(super) fn retire(&mut self, nonce: u64) {
        if let Some(request) = self.remove(nonce) {
            self.settled.push_back((nonce, request.peer));
            self.forget_settled();
        }
    }

    fn forget_settled(&mut self) {
        let surplus = self.settled.len().saturating_sub(MAX_SETTLED);
        self.settled.drain(..surplus);
    }

    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.remove_if(|request| request.peer == peer);
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

    /// What a peer has answered for a set is of use.
    pub(super) fn note_use(&mut self, peer: PeerKey, set: &SetKey) {
        let asked = self.by_nonce.values_mut().filter(|r| r.peer == peer && r.set == *set);
        asked.for_each(|request| request.useful = true);
    }

    /// Peers whose time to answer a request is up since this was asked last, without use. Each
    /// once: several of its requests may have been sent together.
    pub(super) fn in_vain(&mut self, now: Timestamp) -> BTreeSet<PeerKey> {
        let mut peers = BTreeSet::new();
        while let Some((until, nonce)) = self.open.first().copied().filter(|(at, _)| *at <= now) {
            let request = self.by_nonce.get(&nonce).expect("it is open");
            let (peer, useful) = (request.peer, request.useful);
            if !useful {
                peers.insert(peer);
            }
            self.close(nonce, peer, until);
        }
        peers
    }

    /// Takes a frame with so many bytes of shreds off what an answer may have; says whether it may.
    pub(super) fn may_bring(&mut self, nonce: u64, bytes: usize) -> bool {
        let cost = bytes + FRAME_COST;
        let request = self.by_nonce.get_mut(&nonce);
        request.is_some_and(|request| match request.left.checked_sub(cost) {
            Some(left) => {
                request.left = left;
                true
            }
            None => false,
        })
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
        requests.insert(Request::new(peer, of, NOW, LATER))
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
    fn a_request_is_in_vain_once_and_only_if_nothing_of_use_came() {
        let mut requests = Requests::default();
        (0..3).for_each(|n| _ = ask(&mut requests, 1, set(0, n)));
        ask(&mut requests, 2, set(0, 0));
        ask(&mut requests, 3, set(1, 0));
        requests.note_use(PeerKey::from(2), &set(0, 0));
        requests.settle(|asked| asked.message.message == 1);
        assert!(requests.in_vain(NOW).is_empty(), "their time is not up");
        assert_eq!(requests.in_vain(LATER), [PeerKey::from(1)].into());
        assert!(requests.in_vain(LATER).is_empty());
    }

    #[test]
    fn what_waits_is_counted_until_its_time_is_up() {
        let mut requests = Requests::default();
        ask(&mut requests, 1, set(0, 0));
        ask(&mut requests, 1, set(0, 1));
        ask(&mut requests, 2, set(1, 0));
        assert_eq!(requests.waiting(NOW), 3);
        assert_eq!(requests.waiting_for(NOW, PeerKey::from(1)), 2);
        let first_until = Some(LATER);
        assert_eq!(requests.all_waiting(NOW), AllWaiting { count: 3, first_until });
        assert!(requests.any_of(NOW, &set(1, 0).message));
        assert_eq!(requests.all_waiting(LATER), AllWaiting { count: 0, first_until: None });
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
