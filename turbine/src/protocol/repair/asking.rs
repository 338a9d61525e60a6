//! Whom to ask, when again, and what to do with the answer.

use std::time::Duration;

use fragcast_shredder::shred::MAX_ATTEMPTS;
use fragcast_shredder::{HashedShred, MessageKey, SetKey, Shred};

use super::requests::{AllWaiting, Request};
use super::{Repair, draw_peer, mix, quiet_until};
use crate::control::{Control, RepairRequest, RepairShreds, Tips, WHOLE};
use crate::egress::{Lane, Payload, Transmit};
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::protocol::ctx::Ctx;
use crate::protocol::delivery::Here;

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
        for tip in &tips.tips {
            let key = MessageKey { block: tip.block, attempt: tip.attempt, message: 0 };
            let theirs = |leader| leader != ctx.me();
            let may_be = tip.attempt < MAX_ATTEMPTS && here.admits(&key);
            if may_be && ctx.leader_key(tip.block).is_some_and(theirs) {
                let due = quiet_until(ctx, &key);
                self.wants.told(ctx.now, from, tip, due, |key| here.has(key));
            }
        }
        Outcome::Control
    }

    /// Asks for all that is due.
    pub(super) fn ask_what_is_due(&mut self, ctx: &mut Ctx, here: Here<'_>) {
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
        let leader = ctx.leader_key(key.block).filter(|leader| *leader != ctx.me());
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
        let request = Request { peer, set: asked, sent: ctx.now, until, answered: false };
        let nonce = self.requests.insert(request);
        let SetKey { message: MessageKey { block, attempt, message }, set } = asked;
        let request = RepairRequest { nonce, block, attempt, message, set, have };
        let payload = Payload::Control(Control::RepairRequest(request).to_bytes());
        // A few bytes that a whole round trip waits for.
        ctx.egress.push(Transmit { to: peer, lane: Lane::Data, payload });
        ctx.counters.repair_requested += 1;
    }

    /// Whether a peer is asked for as much as may be.
    fn is_busy(&self, ctx: &Ctx, peer: PeerKey) -> bool {
        self.requests.waiting_for(ctx.now, peer) >= ctx.config.repair.outstanding_per_peer
    }

    /// One peer, or two from the third try on: first those that are known to have the message,
    /// then others, if it is certain that there is something to have, and the leader late.
    fn whom_to_ask(&self, ctx: &Ctx, key: &MessageKey, leader: PeerKey) -> Vec<PeerKey> {
        let want = &self.wants.messages[key];
        let tries = usize::from(want.tries);
        let place = u64::from(key.attempt) << 16 | u64::from(key.message);
        let seed = mix(&[ctx.me().number().into(), key.block, place]);
        let fits = |peer: PeerKey| ctx.peers.can_ask(peer) && !self.is_busy(ctx, peer);
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
            let except = |peer| peer == leader || peers.contains(&peer) || self.is_busy(ctx, peer);
            match draw_peer(ctx, &draw, except) {
                Some(peer) => peers.push(peer),
                None => break,
            }
        }
        // Nobody else is there.
        let idle = || self.requests.first_until(ctx.now).is_none();
        if peers.is_empty() && may_ask_leader && idle() {
            peers.push(leader);
        }
        peers
    }

    /// The time-out of a request to a peer.
    pub(super) fn patience(&self, ctx: &Ctx, peer: PeerKey) -> Duration {
        match self.round_trips.get(&peer) {
            Some(rtt) => (*rtt * 3 / 2 + Duration::from_millis(20)).clamp(PATIENCE.0, PATIENCE.1),
            None => ctx.config.repair.first_retry,
        }
    }

    fn note_round_trip(&mut self, peer: PeerKey, measured: Duration) {
        let table = &mut self.round_trips;
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

    /// The request that an answer belongs to, if it was sent to this peer.
    pub(super) fn note_answer(
        &mut self,
        ctx: &Ctx,
        from: PeerKey,
        nonce: u64,
    ) -> Result<SetKey, Outcome> {
        let (asked, took) = self.requests.answered(ctx.now, from, nonce)?;
        if let Some(took) = took {
            self.note_round_trip(from, took);
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
        let patience = self.patience(ctx, from);
        if let Some(want) = self.wants.messages.get_mut(&asked.message)
            && useful > 0
            && want.due > ctx.now
        {
            // The rest of the answer is on its way.
            want.due = want.due.max(ctx.now + patience);
        }
    }
}
