//! How the window moves, and what follows from it.

use std::time::Duration;

use fragcast_shredder::{HashedShred, Kind, Message, MessageKey, SetHeader, VerifiedMessage};

use super::{Parts, here};
use crate::control::Tips;
use crate::outcome::Outcome;
use crate::output::Delivered;
use crate::peer::PeerKey;
use crate::protocol::again::Again;
use crate::protocol::catchup::{Messages, Took};
use crate::protocol::delivery::{Delivery, Step};
use crate::protocol::event::Event;
use crate::protocol::window::{Age, Place, Sight, Window};
use crate::time::Timestamp;

/// How far the timestamp of a gossiped Env may be from our clock for the Env to be fresh: gossip
/// has no signed time of sending, and chains count seconds.
const ENV_FRESH: Duration = Duration::from_secs(60);
/// Shreds of blocks elsewhere that are kept in case the window moves there, 1.2 kB each.
const MAX_LOOKED_AT: usize = 64;

impl Parts {
    /// Checks that can refuse a shred before anything is hashed.
    pub(super) fn precheck(&mut self, from: PeerKey, header: &SetHeader) -> Result<(), Outcome> {
        let now = self.ctx.now;
        let place = self.ctx.window.place(now, header.block);
        if let Place::Outside(outcome) = place {
            return Err(outcome);
        }
        // Who is not looked at takes no look.
        if self.is_doubtful(from, header) {
            return Err(self.unproven(from));
        }
        if place == Place::Elsewhere { self.is_worth_a_look(from, header) } else { Ok(()) }
    }

    /// Whether a shred of a block elsewhere is looked at: an Env or Seal in one set, of which old
    /// ones say nothing about where the chain stands now.
    fn is_worth_a_look(&mut self, from: PeerKey, header: &SetHeader) -> Result<(), Outcome> {
        let now = self.ctx.now;
        let forward = self.ctx.window.opened().is_none_or(|opened| header.block > opened);
        let outcome = if forward { Outcome::Future } else { Outcome::Past };
        let decides = matches!(header.message_kind(), Kind::Env | Kind::Seal) && header.sets == 1;
        if !decides || !(forward || Window::is_fresh(now, header.sent_at())) {
            return Err(outcome);
        }
        if self.looks.take(now, from) { Ok(()) } else { Err(outcome) }
    }

    /// Looks at a shred of a block elsewhere. It is neither forwarded nor asked for.
    pub(super) fn look(&mut self, from: PeerKey, hashed: HashedShred) -> Outcome {
        let header = *hashed.shred().header();
        let outcome = match self.scout.shred(&self.ctx, hashed.clone(), false, true) {
            Step::Refused(Outcome::Unproven) => self.unproven(from),
            Step::Refused(outcome) => {
                if matches!(outcome, Outcome::TableFull | Outcome::Quota) {
                    self.scout = Delivery::scout(&self.ctx.config);
                }
                outcome
            }
            Step::Equivocation(proof) => self.equivocation(from, &header, *proof),
            Step::Unproven(claim) => {
                self.in_vain(from, &header, claim);
                self.unproven(from)
            }
            Step::BadParity => Outcome::BadParity,
            Step::Kept { complete, .. } => {
                if self.looked_at.len() >= MAX_LOOKED_AT {
                    self.looked_at.pop_front();
                }
                self.looked_at.push_back((from, hashed));
                let message = complete.and_then(|complete| complete.message);
                match message.map(|message| self.scout.open(&self.ctx, message)) {
                    None => {}
                    Some(Ok(delivered)) => self.sighted(&delivered),
                    Some(Err((key, reason))) => {
                        self.ctx.events.push_back(Event::BadMessage { key, reason });
                    }
                }
                Outcome::Elsewhere
            }
        };
        self.ctx.conclude(from, outcome);
        outcome
    }

    /// A message of a block elsewhere is whole and verified.
    fn sighted(&mut self, delivered: &Delivered) {
        let sight = self.sight(&delivered.message, delivered.times.sent_at);
        if self.ctx.window.sighted(self.ctx.now, &sight) {
            self.moved();
        }
    }

    /// What a message says of where the chain stands; `sent_at` by its leader's signed clock.
    pub(super) fn sight(&mut self, message: &VerifiedMessage, sent_at: Option<Timestamp>) -> Sight {
        let now = self.ctx.now;
        let in_time = match message.message() {
            Message::Env(env) => {
                let at = Timestamp::from_micros(env.timestamp.saturating_mul(1_000_000));
                now.since(at).max(at.since(now)) <= ENV_FRESH
            }
            Message::Frag(_) | Message::Seal(_) => false,
        };
        if in_time {
            self.ctx.window.note_time();
        }
        let age = match sent_at {
            Some(sent_at) if Window::is_fresh(now, sent_at) => Age::Fresh,
            Some(_) => Age::Old,
            None if in_time => Age::Fresh,
            None if self.ctx.window.keeps_time() => Age::Old,
            None => Age::Unknown,
        };
        let block = message.message().block();
        Sight { block, kind: message.message().kind(), gateway: message.gateway(), age }
    }

    /// A message of the overlay was taken.
    pub(super) fn advance(
        &mut self,
        key: &MessageKey,
        message: &VerifiedMessage,
        sent_at: Option<Timestamp>,
    ) {
        self.advance_window(message, sent_at);
        if message.message().kind() == Kind::Env && key.attempt > 0 {
            self.supersede(key.block, key.attempt);
        }
    }

    /// Moves the window. A message from gossip does nothing else, because its attempt is a guess.
    pub(super) fn advance_window(&mut self, message: &VerifiedMessage, sent_at: Option<Timestamp>) {
        let sight = self.sight(message, sent_at);
        let before = self.ctx.window.opened();
        self.ctx.window.advance(self.ctx.now, &sight);
        if self.ctx.window.opened() > before {
            // Of some terms one block alone is the one in which a table can be named.
            self.tables.look_at = self.ctx.now;
        }
        self.move_window();
        if sight.kind != Kind::Frag {
            self.catch_up();
        }
    }

    /// A message of this node's own was sent: its gateway knows where its block is.
    pub(super) fn advance_own(&mut self, key: &MessageKey, message: &VerifiedMessage) {
        let sight = self.sight(message, Some(self.ctx.now));
        if self.ctx.window.own(self.ctx.now, &sight) {
            self.moved();
        }
        self.advance(key, message, Some(self.ctx.now));
    }

    /// A peer tells what it has: most of them know where the chain stands.
    pub(super) fn hear_tips(&mut self, from: PeerKey, tips: &Tips) {
        let Some(newest) = tips.tips.iter().map(|tip| tip.block).max() else { return };
        let now = self.ctx.now;
        self.ctx.window.told(now, from, newest);
        if !self.ctx.window.is_count_due(now, newest) {
            return;
        }
        let (peers, epochs) = (&self.ctx.peers, &self.ctx.epochs);
        let newest = epochs.newest();
        let members = newest.epoch().members().members();
        let weighed = members.iter().any(|member| member.weight > 0);
        let weight = |peer: PeerKey| {
            let member = newest.index(peer).map(|index| &members[index as usize]);
            member.map_or(0, |member| if weighed { member.weight } else { 1 })
        };
        let connected = peers.iter_connected().map(|peer| u128::from(weight(peer))).sum();
        let own = weight(peers.me());
        let weigh = |peer| peers.can_ask(peer).then(|| weight(peer));
        if self.ctx.window.count(now, own, connected, weigh) {
            self.moved();
        }
    }

    /// The operator says where the chain's head is.
    pub(in crate::protocol) fn head(&mut self, block: u64) {
        self.ctx.window.move_to(self.ctx.now, block);
        self.catch_up.begin(block.saturating_add(1));
        self.moved();
        self.repair.anchor(block.saturating_add(1));
    }

    /// The application has verified `block`, which was built at `built_at` by the chain's clock.
    pub(in crate::protocol) fn verified(&mut self, block: u64, built_at: Timestamp) {
        if self.ctx.window.verified(self.ctx.now, block, built_at) {
            self.moved();
        }
        self.repair.anchor(block.saturating_add(1));
        self.catch_up.verified(block);
        self.archive.verified(block);
        self.again.verified(block);
        self.hand_again();
    }

    /// The application has nothing to do, or has.
    pub(in crate::protocol) fn idle(&mut self, idle: bool) {
        self.again.idle(&self.ctx, idle);
        self.hand_again();
    }

    /// Hands the application what it has lost, and asks for what is missing.
    fn hand_again(&mut self) {
        self.again.step(&mut self.ctx, &mut self.archive);
        self.catch_up();
    }

    /// The window is elsewhere: nothing that was known of it helps.
    pub(super) fn moved(&mut self) {
        self.scout = Delivery::scout(&self.ctx.config);
        let (low, high) = self.ctx.window.bounds();
        self.repair.forget_anchor();
        let opened = self.ctx.window.opened().unwrap_or(low);
        // What follows the verified head is needed; who verifies nothing begins with what is open.
        let next = self.ctx.window.head().map(|head| head.saturating_add(1));
        self.repair.anchor(next.map_or(opened, |next| next.clamp(low, opened.max(low))));
        if self.ctx.window.was_known() {
            self.ctx.counters.window_moved += 1;
            self.ctx.events.push_back(Event::Moved { low, high });
        }
        self.move_window();
        self.archive.forget_above(high);
        self.catch_up.forget_above(high);
        self.substituting.forget_above(high);
        // What was looked at is now to be taken.
        for (from, hashed) in std::mem::take(&mut self.looked_at) {
            if self.ctx.window.place(self.ctx.now, hashed.shred().header().block) == Place::Inside {
                self.shred(from, hashed, false);
            }
        }
        self.catch_up();
    }

    fn move_window(&mut self) {
        let (low, high) = self.ctx.window.bounds();
        self.delivery.set_window(low, high);
        self.repair.set_window(low, high);
        self.fallback.set_window(low);
        self.ctx.seats.forget_below(low);
        self.archive.set_open(self.ctx.window.opened());
        self.evidence.forget_below(low);
        let opened = self.ctx.window.opened().unwrap_or(0);
        let sealed = self.ctx.window.sealed().map_or(opened, |sealed| sealed.saturating_add(1));
        self.delivery.set_open(sealed.min(opened), opened);
        self.fallback.set_open(sealed.min(opened), opened);
        self.retire_epochs();
    }

    // Catching up.

    /// Asks for what is missing, if it is time to, and hands on what was held until now.
    pub(in crate::protocol) fn catch_up(&mut self) {
        while let Some((from, messages)) = self.catch_up.next_held() {
            self.whole_block(from, messages);
        }
        self.catch_up.step(&mut self.ctx, &self.archive);
    }

    /// Takes a message of a block that was asked for.
    pub(super) fn caught_up(
        &mut self,
        (from, nonce): (PeerKey, u64),
        key: MessageKey,
        kind: Kind,
        wire: &alloy_primitives::Bytes,
    ) -> Outcome {
        let now = self.ctx.now;
        let message = match crate::protocol::fallback::verify(&self.ctx, from, &key, kind, wire) {
            Ok(message) => message,
            Err(outcome) => {
                self.catch_up.refuse(now, from);
                self.catch_up();
                return outcome;
            }
        };
        let new = !self.archive.has(key.block, key.message, message.root());
        self.ctx.counters.blocks_messages += u64::from(new);
        match self.catch_up.take_message(now, (from, nonce), (key, message), new) {
            Took::Waits => {}
            Took::Block(messages) => self.whole_block(from, messages),
            Took::Some { messages, end } => {
                messages
                    .into_iter()
                    .for_each(|(key, message)| self.part_of_block(from, key, message));
                if end {
                    // It need not come again, though there is no room for it.
                    self.archive.note_whole(key.block);
                }
            }
        }
        Outcome::Control
    }

    /// A block is here from Env to Seal.
    fn whole_block(&mut self, from: PeerKey, messages: Messages) {
        let Some((MessageKey { block, attempt, .. }, _)) = messages.first().cloned() else {
            return;
        };
        let places: Vec<_> =
            messages.iter().map(|(key, message)| (key.message, message.clone())).collect();
        let again = self.again.wants(block);
        for (key, message) in messages {
            if !self.archive.has(block, key.message, message.root()) {
                self.part_of_block(from, key, message);
            } else if again {
                Again::hand(&mut self.ctx, key, message);
            }
        }
        let rank = self.ctx.rank(&MessageKey { block, attempt, message: 0 });
        self.archive.insert_whole((block, attempt, rank), &places);
        // Even if there is no room for it: it need not come again.
        self.archive.note_whole(block);
    }

    fn part_of_block(&mut self, from: PeerKey, key: MessageKey, message: VerifiedMessage) {
        self.again.note(key.block);
        self.substituting.note(&mut self.ctx, &key, message.message().kind());
        if self.ctx.window.place(self.ctx.now, key.block) == Place::Inside {
            self.fallback.note_answer(key, &message);
            self.repair.settled(here!(self), &key);
        }
        self.hand_on(key, message.clone(), Some(from));
        if self.again.wants(key.block) {
            Again::hand(&mut self.ctx, key, message);
        }
    }
}
