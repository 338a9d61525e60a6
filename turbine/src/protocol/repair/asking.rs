//! Whom to ask, when again, and what to do with the answer.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fragcast_shredder::shred::MAX_ATTEMPTS;
use fragcast_shredder::{HashedShred, MessageKey, SetKey, Shred};

use super::super::Protocol;
use super::mix;
use super::parts::Assemblies;
use crate::control::{Control, RepairRequest, RepairShreds, Tips, WHOLE};
use crate::egress::{Lane, Payload, Transmit};
use crate::membership::PeerIndex;
use crate::outcome::Outcome;
use crate::time::Timestamp;

/// Requests that are remembered: those whose time is up are still good for an answer.
const MAX_REQUESTS: usize = 128;
/// Requests that are settled; an answer to one is late, and nobody's fault.
const MAX_SETTLED: usize = 128;
/// Peers whose round-trip time is remembered.
const MAX_ROUND_TRIPS: usize = 256;
/// Sets of one message that are asked for at a time.
const SETS_AT_ONCE: usize = 16;
/// From this try on two peers are asked at once.
const TWO_FROM: usize = 2;
/// The leader is asked on the last of so many tries.
const LEADER_EVERY: usize = 4;
/// Patience stays within these, whatever was measured.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(30), Duration::from_secs(2));

struct Request {
    peer: PeerIndex,
    set: SetKey,
    sent: Timestamp,
    /// When somebody else is asked.
    until: Timestamp,
    answered: bool,
}

/// What was asked and of whom.
#[derive(Default)]
pub(super) struct Requests {
    by_nonce: BTreeMap<u64, Request>,
    settled: VecDeque<(u64, PeerIndex)>,
    /// Answers that come in parts.
    pub(super) assemblies: Assemblies,
    last_nonce: u64,
}

impl Requests {
    /// How many still wait at `now`.
    pub(super) fn waiting(&self, now: Timestamp) -> usize {
        self.by_nonce.values().filter(|request| request.until > now).count()
    }

    /// Of those, how many wait for `peer`.
    fn waiting_for(&self, now: Timestamp, peer: PeerIndex) -> usize {
        let waiting = self.by_nonce.values().filter(|request| request.until > now);
        waiting.filter(|request| request.peer == peer).count()
    }

    /// When the first of those that still wait stops to.
    fn first_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.by_nonce.values().map(|request| request.until).filter(|until| *until > now).min()
    }

    fn insert(&mut self, request: Request) -> u64 {
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

    /// One that is answered needs no more of its answer.
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

    pub(super) fn forget(&mut self, peer: PeerIndex) {
        self.by_nonce.retain(|_, request| request.peer != peer);
        self.assemblies.forget(peer);
    }
}

impl Protocol {
    /// Takes what a peer says that it has.
    pub(in crate::protocol) fn take_tips(
        &mut self,
        now: Timestamp,
        from: PeerIndex,
        tips: &Tips,
    ) -> Outcome {
        if !self.config.repair.enabled {
            return Outcome::ControlStale;
        }
        for tip in &tips.tips {
            let key = MessageKey { block: tip.block, attempt: tip.attempt, message: 0 };
            let theirs = |index| index != self.me;
            let may_be = tip.attempt < MAX_ATTEMPTS && self.reassembler.admits(&key);
            if may_be && self.leader_index(tip.block).is_some_and(theirs) {
                let due = self.quiet_until(now, &key);
                let (reassembler, fallback) = (&self.reassembler, &self.fallback);
                let has = |key: &MessageKey| reassembler.is_done(key) || fallback.has(key);
                self.repair.wants.told(now, from, tip, due, has);
            }
        }
        Outcome::Control
    }

    /// Asks for all that is due.
    pub(super) fn ask_what_is_due(&mut self, now: Timestamp) {
        let wants = &self.repair.wants.messages;
        let due: Vec<MessageKey> = wants
            .iter()
            .filter(|(_, want)| !want.resting && want.due <= now)
            .map(|(key, _)| *key)
            .collect();
        due.into_iter().for_each(|key| self.ask(now, key));
        self.repair.wants.settle_timer();
    }

    fn ask(&mut self, now: Timestamp, key: MessageKey) {
        let config = self.config.repair.clone();
        let leader = self.leader_index(key.block).filter(|leader| *leader != self.me);
        let Some(leader) = leader.filter(|_| self.reassembler.admits(&key)) else {
            // Not ours to ask for any more.
            self.repair.wants.remove(&key);
            return;
        };
        let want = self.repair.wants.messages.get_mut(&key).expect("due");
        if std::mem::take(&mut want.progress) {
            want.tries = 0;
        }
        if want.tries >= config.tries {
            (want.resting, want.due) = (true, now + config.pause);
            self.counters.repair_given_up += 1;
            return;
        }
        let (tries, certain) = (want.tries, want.certain);
        // Hearsay must not use up what is needed for what is certain.
        let most = if certain { config.outstanding } else { config.outstanding / 2 };
        let peers = if self.repair.requests.waiting(now) < most {
            self.whom_to_ask(now, &key, leader)
        } else {
            Vec::new()
        };
        if peers.is_empty()
            && let Some(until) = self.repair.requests.first_until(now)
        {
            // Everybody is being asked as much as may be: when the first of it is settled.
            self.repair.wants.messages.get_mut(&key).expect("due").due = until;
            return;
        }
        let sets: Vec<(u16, u64)> = match self.reassembler.incomplete(&key) {
            Some(sets) => sets.take(SETS_AT_ONCE).collect(),
            None => vec![(WHOLE, 0)],
        };
        let mut patience = if peers.is_empty() { config.first_retry } else { Duration::ZERO };
        for peer in peers {
            let for_peer = self.patience(peer);
            patience = patience.max(for_peer);
            // What came in parts goes on where it ended.
            let resumed = self.repair.requests.assemblies.resume(peer, &key);
            let resumed = resumed.map(|parts| [(WHOLE, parts as u64)]);
            for (set, have) in resumed.as_ref().map_or(&sets[..], |resumed| &resumed[..]) {
                if self.repair.requests.waiting(now) >= most || self.is_busy(now, peer) {
                    break;
                }
                let set = SetKey { message: key, set: *set };
                self.request(now, peer, set, *have, for_peer);
            }
        }
        let want = self.repair.wants.messages.get_mut(&key).expect("due");
        (want.tries, want.due) = (tries + 1, now + patience);
    }

    /// Asks a peer for a set, or for a whole message from part `have` on.
    pub(super) fn request(
        &mut self,
        now: Timestamp,
        peer: PeerIndex,
        asked: SetKey,
        have: u64,
        patience: Duration,
    ) {
        let until = now + patience;
        let request = Request { peer, set: asked, sent: now, until, answered: false };
        let nonce = self.repair.requests.insert(request);
        let SetKey { message: MessageKey { block, attempt, message }, set } = asked;
        let request = RepairRequest { nonce, block, attempt, message, set, have };
        let payload = Payload::Control(Control::RepairRequest(request).to_bytes());
        // A few bytes that a whole round trip waits for.
        self.egress.push(Transmit { to: peer, lane: Lane::Data, payload });
        self.counters.repair_requested += 1;
    }

    /// Whether a peer is asked for as much as may be.
    fn is_busy(&self, now: Timestamp, peer: PeerIndex) -> bool {
        self.repair.requests.waiting_for(now, peer) >= self.config.repair.outstanding_per_peer
    }

    /// One peer, or two from the third try on: first those that are known to have the message,
    /// then others, if it is certain that there is something to have, and the leader late.
    fn whom_to_ask(&self, now: Timestamp, key: &MessageKey, leader: PeerIndex) -> Vec<PeerIndex> {
        let want = &self.repair.wants.messages[key];
        let tries = usize::from(want.tries);
        let place = u64::from(key.attempt) << 16 | u64::from(key.message);
        let seed = mix(&[self.me.into(), key.block, place]);
        let fits = |peer: PeerIndex| self.can_ask(peer) && !self.is_busy(now, peer);
        let count = if tries >= TWO_FROM { 2 } else { 1 };
        let mut peers = Vec::with_capacity(2);
        let may_ask_leader = (want.certain || want.holders.contains(&leader)) && fits(leader);
        if may_ask_leader && tries % LEADER_EVERY == LEADER_EVERY - 1 {
            peers.push(leader);
        }
        let holders = want.holders.len();
        let start = seed as usize % holders.max(1);
        // Each in its turn, and only one round of them where others can be asked as well.
        let turns = if want.certain { tries..holders.max(tries) } else { tries..tries + holders };
        for peer in turns.map(|turn| want.holders[(start + turn) % holders]) {
            if peers.len() < count && peer != leader && fits(peer) && !peers.contains(&peer) {
                peers.push(peer);
            }
        }
        while want.certain && peers.len() < count {
            let draw = [seed, tries as u64, peers.len() as u64];
            let except = |peer| peer == leader || peers.contains(&peer) || self.is_busy(now, peer);
            match self.draw_peer(&draw, except) {
                Some(peer) => peers.push(peer),
                None => break,
            }
        }
        // Nobody else is there.
        let idle = || self.repair.requests.first_until(now).is_none();
        if peers.is_empty() && may_ask_leader && idle() {
            peers.push(leader);
        }
        peers
    }

    /// How long a peer is waited for.
    pub(super) fn patience(&self, peer: PeerIndex) -> Duration {
        match self.repair.round_trips.get(&peer) {
            Some(rtt) => (*rtt * 3 / 2 + Duration::from_millis(20)).clamp(PATIENCE.0, PATIENCE.1),
            None => self.config.repair.first_retry,
        }
    }

    fn note_round_trip(&mut self, peer: PeerIndex, measured: Duration) {
        let table = &mut self.repair.round_trips;
        match table.get_mut(&peer) {
            Some(rtt) => *rtt = (*rtt * 3 + measured) / 4,
            None => {
                // Any of the others will do: it is measured anew when it is asked.
                if table.len() >= MAX_ROUND_TRIPS {
                    table.pop_first();
                }
                table.insert(peer, measured);
            }
        }
    }

    /// What an answer is for, if it was asked of who sends it.
    pub(super) fn note_answer(
        &mut self,
        now: Timestamp,
        from: PeerIndex,
        nonce: u64,
    ) -> Result<SetKey, Outcome> {
        let requests = &mut self.repair.requests;
        let Some(request) = requests.by_nonce.get_mut(&nonce).filter(|r| r.peer == from) else {
            let late = requests.settled.contains(&(nonce, from));
            return Err(if late { Outcome::RepairLate } else { Outcome::RepairUnasked });
        };
        let (asked, sent) = (request.set, request.sent);
        if !std::mem::replace(&mut request.answered, true) {
            self.note_round_trip(from, now.since(sent));
        }
        Ok(asked)
    }

    /// Takes an answer: each of its shreds as if it had come by itself, but for forwarding.
    pub(in crate::protocol) fn take_repaired(
        &mut self,
        now: Timestamp,
        from: PeerIndex,
        answer: RepairShreds,
    ) -> Outcome {
        let asked = match self.note_answer(now, from, answer.nonce) {
            Ok(asked) => asked,
            Err(outcome) => return outcome,
        };
        let mut shreds = Vec::with_capacity(answer.shreds.len());
        for bytes in answer.shreds {
            match Shred::parse(bytes) {
                Ok(shred) => {
                    let set = shred.header().set_key();
                    let whole = asked.set == WHOLE && set.message == asked.message;
                    if whole || set == asked {
                        shreds.push(shred);
                    } else {
                        self.conclude(from, Outcome::RepairUnasked);
                    }
                }
                Err(error) => self.conclude(from, error.into()),
            }
        }
        let mut useful = 0;
        for hashed in HashedShred::batch(shreds) {
            if self.peers[from as usize].barred {
                break;
            }
            let outcome = self.handle_shred(now, from, hashed, true);
            useful += u64::from(matches!(outcome, Outcome::Stored | Outcome::Completed));
            self.conclude(from, outcome);
        }
        self.counters.repair_useful += useful;
        let patience = self.patience(from);
        if let Some(want) = self.repair.wants.messages.get_mut(&asked.message)
            && useful > 0
            && want.due > now
        {
            // The rest of the answer is on its way.
            want.due = want.due.max(now + patience);
        }
        Outcome::Control
    }
}
