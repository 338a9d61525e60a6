//! Whom to ask, when again, and what to do with the answer.

use std::time::Duration;

use bytes::Bytes;
use fragcast_shredder::shred::MAX_ATTEMPTS;
use fragcast_shredder::{HashedShred, MessageKey, SetKey, Shred};

use super::Repair;
use super::requests::{AllWaiting, Request};
use crate::control::{Control, RepairRequest, RepairShreds, Tips, WHOLE};
use crate::egress::{Lane, Payload, Transmit};
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::protocol::ctx::Ctx;
use crate::protocol::delivery::Here;

/// Sets of one message that are asked for at a time.
const SETS_AT_ONCE: usize = 16;
/// Patience stays within these, whatever was measured.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(30), Duration::from_secs(2));

/// An answer whose shreds are yet to be taken.
pub(in crate::protocol) struct Answer {
    /// What was asked for.
    pub(in crate::protocol) asked: SetKey,
    /// What came, parsed and hashed.
    pub(in crate::protocol) shreds: Vec<HashedShred>,
}

impl Repair {
    /// Takes what a peer says that it has.
    pub(in crate::protocol) fn take_tips(
        &mut self,
        ctx: &Ctx,
        here: Here<'_>,
        from: PeerKey,
        tips: &Tips,
    ) -> Outcome {
        if !ctx.config.repair.enabled {
            return Outcome::ControlStale;
        }
        let teller = (from, self.distance(ctx, from));
        for tip in &tips.tips {
            let key = MessageKey { block: tip.block, attempt: tip.attempt, message: 0 };
            let theirs = |leader| leader != ctx.me();
            let may_be = tip.attempt < MAX_ATTEMPTS && here.admits(&key);
            if may_be && ctx.leader_key_of(&key).is_some_and(theirs) {
                let due = self.quiet_until(ctx, &key, true);
                self.wants.told(ctx.now, teller, tip, due, |key| here.has(key));
            }
        }
        Outcome::Control
    }

    /// Asks for all that is due.
    pub(super) fn ask_what_is_due(&mut self, ctx: &mut Ctx, here: Here<'_>) {
        for peer in self.requests.in_vain(ctx.now) {
            self.answerers.missed(ctx.now, peer);
        }
        let wants = &self.wants.messages;
        let due: Vec<MessageKey> = wants
            .iter()
            .filter(|(_, want)| !want.resting && want.due <= ctx.now)
            .map(|(key, _)| *key)
            .collect();
        // Counted again only when something was asked: a peer whose tips tell of hundreds of messages
        // must not have all requests gone through for each of them at each timer.
        let mut waiting = self.requests.all_waiting(ctx.now);
        for key in due {
            if self.ask(ctx, here, key, waiting) {
                waiting = self.requests.all_waiting(ctx.now);
            }
        }
        self.wants.settle_timer();
    }

    /// Asks for a message, if there is room beside the requests that are `waiting`. Says whether
    /// anybody was asked.
    fn ask(&mut self, ctx: &mut Ctx, here: Here<'_>, key: MessageKey, waiting: AllWaiting) -> bool {
        let now = ctx.now;
        let leader = ctx.leader_key_of(&key).filter(|leader| *leader != ctx.me());
        let Some(leader) = leader.filter(|_| here.admits(&key)) else {
            // Not ours to ask for any more.
            self.wants.remove(&key);
            return false;
        };
        let config = &ctx.config.repair;
        let (outstanding, first_retry) = (config.outstanding, config.first_retry);
        let want = self.wants.messages.get_mut(&key).expect("due");
        if std::mem::take(&mut want.progress) {
            want.tries = 0;
            want.asked.clear();
        }
        if want.tries >= config.tries {
            (want.resting, want.due) = (true, now + config.pause);
            ctx.counters.repair_given_up += 1;
            return false;
        }
        let (tries, certain) = (want.tries, want.certain);
        // Hearsay must not use up what is needed for what is certain.
        let most = if certain { outstanding } else { outstanding / 2 };
        let peers =
            if waiting.count < most { self.whom_to_ask(ctx, &key, leader) } else { Vec::new() };
        if peers.is_empty()
            && let Some(until) = waiting.first_until
        {
            // Everybody is being asked as much as may be: when the first of it is settled.
            self.wants.messages.get_mut(&key).expect("due").due = until;
            return false;
        }
        let sets: Vec<(u16, u64)> = match here.incomplete(&key) {
            Some(sets) => sets.take(SETS_AT_ONCE).collect(),
            None => vec![(WHOLE, 0)],
        };
        let asked = !peers.is_empty();
        let mut patience = if asked { Duration::ZERO } else { first_retry };
        for peer in peers {
            let for_peer = self.patience(ctx, peer);
            patience = patience.max(for_peer);
            // What came in parts goes on where it ended.
            let resumed = self.requests.assemblies.resume(peer, &key);
            let resumed = resumed.map(|parts| [(WHOLE, parts as u64)]);
            for (set, have) in resumed.as_ref().map_or(&sets[..], |resumed| &resumed[..]) {
                if self.requests.waiting(now) >= most || self.is_busy(ctx, peer) {
                    break;
                }
                let set = SetKey { message: key, set: *set };
                self.request(ctx, peer, set, *have, for_peer);
            }
            self.wants.messages.get_mut(&key).expect("due").ask(peer);
        }
        let want = self.wants.messages.get_mut(&key).expect("due");
        (want.tries, want.due) = (tries + 1, now + patience);
        asked
    }

    /// Asks a peer for a set, or for a whole message from part `have` on.
    pub(super) fn request(
        &mut self,
        ctx: &mut Ctx,
        peer: PeerKey,
        asked: SetKey,
        have: u64,
        patience: Duration,
    ) {
        let until = ctx.now + patience;
        let nonce = self.requests.insert(Request::new(peer, asked, ctx.now, until));
        let SetKey { message: MessageKey { block, attempt, message }, set } = asked;
        let request = RepairRequest { nonce, block, attempt, message, set, have };
        let payload = Payload::Control(Control::RepairRequest(request).to_bytes());
        // A few bytes that a whole round trip waits for.
        ctx.egress.push(Transmit { to: peer, lane: Lane::Data, payload });
        ctx.counters.repair_requested += 1;
    }

    /// Whether a peer is asked for as much as may be.
    pub(super) fn is_busy(&self, ctx: &Ctx, peer: PeerKey) -> bool {
        self.requests.waiting_for(ctx.now, peer) >= ctx.config.repair.outstanding_per_peer
    }

    /// The time-out of a request to a peer.
    pub(super) fn patience(&self, ctx: &Ctx, peer: PeerKey) -> Duration {
        let micros = |micros: u32| Duration::from_micros(micros.into());
        let measured = || ctx.round_trips.get(peer).map(micros);
        match self.answerers.round_trip(peer).or_else(measured) {
            Some(rtt) => (rtt * 3 / 2 + Duration::from_millis(20)).clamp(PATIENCE.0, PATIENCE.1),
            None => ctx.config.repair.first_retry,
        }
    }

    /// The request that an answer belongs to, if it was sent to this peer.
    pub(super) fn note_answer(
        &mut self,
        ctx: &Ctx,
        from: PeerKey,
        nonce: u64,
    ) -> Result<SetKey, Outcome> {
        let (asked, took) = self.requests.answered(ctx.now, from, nonce)?;
        if let Some(took) = took {
            self.answerers.took(ctx.now, from, took);
        }
        Ok(asked)
    }

    /// Parses an answer. Each of its shreds is then taken as if it had come by itself, but for
    /// forwarding.
    pub(in crate::protocol) fn take_answer(
        &mut self,
        ctx: &mut Ctx,
        from: PeerKey,
        answer: RepairShreds,
    ) -> Result<Answer, Outcome> {
        let asked = self.note_answer(ctx, from, answer.nonce)?;
        let bytes = answer.shreds.iter().map(Bytes::len).sum();
        if !self.requests.may_bring(answer.nonce, bytes) {
            return Err(Outcome::RepairUnasked);
        }
        let mut shreds = Vec::with_capacity(answer.shreds.len());
        for bytes in answer.shreds {
            match Shred::parse(bytes) {
                Ok(shred) => {
                    let set = shred.header().set_key();
                    let whole = asked.set == WHOLE && set.message == asked.message;
                    if whole || set == asked {
                        shreds.push(shred);
                    } else {
                        ctx.conclude(from, Outcome::RepairUnasked);
                    }
                }
                Err(error) => ctx.conclude(from, error.into()),
            }
        }
        Ok(Answer { asked, shreds: HashedShred::batch(shreds) })
    }

    /// So many shreds of an answer for `asked` were new.
    pub(in crate::protocol) fn note_useful(
        &mut self,
        ctx: &mut Ctx,
        from: PeerKey,
        asked: &SetKey,
        useful: u64,
    ) {
        ctx.counters.repair_useful += useful;
        if useful > 0 {
            self.note_use(from, asked);
        }
        let patience = self.patience(ctx, from);
        if let Some(want) = self.wants.messages.get_mut(&asked.message)
            && useful > 0
            && want.due > ctx.now
        {
            // The rest of the answer is on its way.
            want.due = want.due.max(ctx.now + patience);
        }
    }

    /// What a peer has answered for `asked` is of use.
    pub(super) fn note_use(&mut self, from: PeerKey, asked: &SetKey) {
        self.requests.note_use(from, asked);
        self.answerers.useful(from);
    }
}
