//! The bridge between the overlay and gossip, for one node.
//!
//! ```text
//! handle_gossip, handle_listener ──▶ Fallback ──▶ poll_gossip: Listen, Publish
//! messages, tips, repair, peers ───▶ Health ────▶ Event::Health
//! ```
//!
//! # Guarantees
//! * A message that came by gossip counts as received: it is not asked for, and this node has
//!   it for others. Shreds of it are still taken and forwarded, since those below this node in
//!   the tree need them, and since the way back is judged by them.
//! * While the overlay is well and the policy is standby, this node is in no mesh. Whoever is,
//!   a *listener*, gets each message from its leader and [`HOLDERS`](crate::gossip::links::HOLDERS) others, if they are
//!   connected to it.
//! * What comes by gossip never supersedes an attempt of the overlay: gossip's frags name no
//!   Env, so its attempts are guesses, which the sequencer settles.
//! * Memory: [`GossipConfig::memory`] for recent messages, 256 listeners, 64 of
//!   each peer, 32,768 messages of which arrivals are remembered, and as many bytes of
//!   actions as of recent messages.

mod publishing;
mod recent;
mod seen;

use std::collections::VecDeque;
use std::time::Duration;

use alloy_primitives::Bytes;
use fragcast_shredder::signature::SIGNATURE_LEN;
use fragcast_shredder::{
    Dialect, Kind, Message, MessageKey, Signature, SignatureError, SignedMessage, VerifiedMessage,
};
use strum::VariantArray as _;

use super::config::GossipConfig;
use super::ctx::Ctx;
use super::event::{Event, Race};
use super::repair::Repair;
use crate::control::dialect_of;
use crate::gossip::gate::is_crowded;
use crate::gossip::{GossipAction, Mode, Policy};
use crate::health::{Health, State};
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::time::Timestamp;
use publishing::Publishing;
pub(super) use recent::{Recent, cost};
use seen::Seen;

/// After this long without a message by the overlay (three frags of usual rhythm) a leader that
/// listens to gossip is taken to do so for a reason.
const LEADER_QUIET: Duration = Duration::from_millis(600);

/// The state of the bridge.
pub(super) struct Fallback {
    policy: Policy,
    health: Health,
    /// How many connected peers health was told of.
    told_connected: Option<usize>,
    /// Whether the driver was last told to listen.
    listening: bool,
    actions: VecDeque<GossipAction>,
    publishing: Publishing,
    seen: Seen,
    recent: Recent,
}

/// Messages of a block, if `message` is its Seal.
fn count_of(message: &VerifiedMessage) -> Option<u32> {
    let seal = message.message().kind() == Kind::Seal;
    message.message().index().filter(|_| seal).map(|index| u32::from(index) + 1)
}

impl Fallback {
    pub(super) fn new(config: GossipConfig) -> Self {
        Self {
            policy: config.policy,
            health: Health::new(config.health),
            told_connected: None,
            listening: false,
            actions: VecDeque::new(),
            publishing: Publishing::default(),
            seen: Seen::default(),
            recent: Recent::new(config.memory),
        }
    }

    /// Whether this node has anything to do with gossip.
    pub(super) fn is_on(&self) -> bool {
        self.policy != Policy::Off
    }

    /// Whether health decides: not if the operator has.
    fn is_judging(&self, ctx: &Ctx) -> bool {
        self.is_on() && ctx.mode == Mode::Auto
    }

    /// When [`timeout`](Self::timeout) has something to do.
    pub(super) fn next_timeout(&self, ctx: &Ctx) -> Option<Timestamp> {
        if self.told_connected != Some(ctx.peers.connected()) && self.is_on() {
            return Some(Timestamp::from_nanos(0));
        }
        let health = if self.is_judging(ctx) { self.health.next_timeout() } else { None };
        health.into_iter().chain(self.publishing.next_timeout()).min()
    }

    /// Whether something waits for the driver, or a decision is on its way.
    pub(super) fn is_pending(&self, ctx: &Ctx) -> bool {
        !self.actions.is_empty() || (self.is_judging(ctx) && self.health.is_pending())
    }

    /// Whether gossip has brought a message under this key, here or to a peer that answered.
    pub(super) fn has(&self, key: &MessageKey) -> bool {
        self.seen.has(key)
    }

    /// Recent messages, for those who ask.
    pub(super) const fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Drops the blocks below the window.
    pub(super) fn set_window(&mut self, low: u64) {
        self.seen.forget_below(low);
        self.recent.forget_below(low);
    }

    /// The blocks that are open, both ends included: they and the next ones come first.
    pub(super) fn set_open(&mut self, low: u64, high: u64) {
        self.seen.set_open(low, high);
        self.recent.set_open(low, high);
    }

    /// Whether a message of gossip is taken at all.
    pub(super) fn takes(&self, ctx: &Ctx, message: &VerifiedMessage) -> bool {
        let (low, high) = ctx.window.gossip_bounds(ctx.now);
        self.is_on()
            && ctx.mode != Mode::Turbine
            && message.message().index().is_some()
            && (low..=high).contains(&message.message().block())
    }

    /// A message came by gossip. The key under which it is new to this node, if it is.
    ///
    /// One that is not `forwarded`, because its signature came with another v, is used like any
    /// other, and never published: in canonical form it would be a second message to based-op's
    /// nodes, which throws their unsealed block away.
    pub(super) fn arrived(
        &mut self,
        ctx: &mut Ctx,
        message: &VerifiedMessage,
        forwarded: bool,
    ) -> Option<MessageKey> {
        let (block, kind) = (message.message().block(), message.message().kind());
        let lead = ctx.epochs.view().lead(block, &message.gateway())?;
        let attempt = self.seen.guess(block, kind, message.gateway(), &lead);
        let key = MessageKey { block, attempt, message: message.message().index()? };
        let seen = self.seen.entry(key, message.root(), message.gateway())?;
        if seen.gossip_at.replace(ctx.now).is_some() {
            return None;
        }
        seen.unpublished = !forwarded && seen.overlay_at.is_none();
        let key = MessageKey { attempt: seen.attempt, ..key };
        let (overlay_at, answered) = (seen.overlay_at, seen.answered != 0);
        ctx.counters.gossip += 1;
        if let Some(overlay_at) = overlay_at {
            let race = Race { key, kind, overlay_at, gossip_at: ctx.now };
            ctx.events.push_back(Event::Race(race));
            return None;
        }
        ctx.counters.gossip_first += u64::from(!answered);
        (!answered).then_some(key)
    }

    /// A peer that has a message from gossip has answered with it. The peer has verified it, so
    /// one that is not what was asked for is a lie.
    ///
    /// # Errors
    /// What the answer is counted as.
    pub(super) fn answered(
        &mut self,
        ctx: &mut Ctx,
        from: PeerKey,
        key: MessageKey,
        kind: Kind,
        wire: &Bytes,
    ) -> Result<VerifiedMessage, Outcome> {
        let message = verify(ctx, from, &key, kind, wire)?;
        let seen = self.seen.entry(key, message.root(), message.gateway()).ok_or(Outcome::Quota)?;
        // The peer has it from gossip, perhaps with another v: it is published there already.
        seen.unpublished |= seen.overlay_at.is_none() && seen.gossip_at.is_none();
        seen.answered |= 1u8.checked_shl(key.attempt.into()).unwrap_or(0);
        // Of another attempt it is known already, perhaps: then the sequencer settles which.
        ctx.counters.repair_messages += 1;
        Ok(message)
    }

    /// A peer has answered with a message of a whole block.
    pub(super) fn note_answer(&mut self, key: MessageKey, message: &VerifiedMessage) {
        if let Some(seen) = self.seen.entry(key, message.root(), message.gateway()) {
            seen.unpublished |= seen.overlay_at.is_none() && seen.gossip_at.is_none();
            seen.answered |= 1u8.checked_shl(key.attempt.into()).unwrap_or(0);
        }
    }

    /// A message came by gossip first. Of a foreign gateway, and of its own, this node gets
    /// nothing over the overlay, so nothing is expected there.
    pub(super) fn note_first(&mut self, ctx: &Ctx, key: &MessageKey, message: &VerifiedMessage) {
        let expected = ctx.leader_key_of(key).is_some_and(|leader| leader != ctx.me());
        if expected && self.is_judging(ctx) {
            let place = (key.block, key.attempt, key.message);
            self.health.gossip(ctx.now, place, count_of(message));
        }
    }

    /// The overlay delivered a message. The key that gossip had guessed for it, if that was
    /// another one.
    pub(super) fn note_overlay(
        &mut self,
        ctx: &mut Ctx,
        key: &MessageKey,
        message: &VerifiedMessage,
    ) -> Option<MessageKey> {
        if self.is_judging(ctx) {
            let place = (key.block, key.attempt, key.message);
            self.health.turbine(ctx.now, place, count_of(message));
        }
        let seen = self.seen.entry(*key, message.root(), message.gateway())?;
        // What the overlay says of attempts is signed.
        let guess = MessageKey { attempt: seen.attempt, ..*key };
        seen.attempt = key.attempt;
        if seen.overlay_at.is_none() {
            seen.overlay_at = Some(ctx.now);
            // The leader's own form of it: what its leader publishes is no second message.
            seen.unpublished = false;
            if let Some(gossip_at) = seen.gossip_at {
                let kind = message.message().kind();
                let race = Race { key: *key, kind, overlay_at: ctx.now, gossip_at };
                ctx.events.push_back(Event::Race(race));
            }
        }
        (guess != *key).then_some(guess)
    }

    /// This node leads and has sent a message.
    pub(super) fn note_sent(&mut self, ctx: &Ctx, block: u64, kind: Kind) {
        if self.is_judging(ctx) {
            self.health.sent(ctx.now);
            if kind == Kind::Seal {
                self.health.led(ctx.now, block);
            }
        }
    }

    /// Something came from a peer over the overlay.
    pub(super) fn note_heard(&mut self, ctx: &mut Ctx) {
        if self.is_judging(ctx) {
            self.health.heard(ctx.now);
            self.settle(ctx);
        }
    }

    /// Keeps a message for listeners and for peers that ask. Returns those that have made room.
    pub(super) fn remember(
        &mut self,
        key: MessageKey,
        message: &VerifiedMessage,
    ) -> Vec<MessageKey> {
        self.recent.insert(key, message.clone())
    }

    /// Does what is due. What repair lacks decides with it.
    pub(super) fn timeout(&mut self, ctx: &mut Ctx, repair: &Repair) {
        if !self.is_on() {
            return;
        }
        let connected = ctx.peers.connected();
        if self.told_connected.replace(connected) != Some(connected) {
            // Who has no peers by design misses none.
            let alone = ctx.peers.len() == 1;
            self.health.connected(ctx.now, connected + usize::from(alone));
        }
        if self.is_judging(ctx) {
            self.health.expect(ctx.now, repair.is_telling());
            self.health.missing(repair.missing());
            self.health.handle_timeout(ctx.now);
        }
        self.tell_of_listeners(ctx);
        self.settle(ctx);
    }

    /// Takes over what health has decided.
    pub(super) fn settle(&mut self, ctx: &mut Ctx) {
        match ctx.mode {
            Mode::Auto => {}
            Mode::Turbine => self.health.order(ctx.now, State::Turbine),
            Mode::Gossip => self.health.order(ctx.now, State::Gossip),
        }
        ctx.events.extend(self.health.take_changes().into_iter().map(Event::Health));
        let listening = match ctx.mode {
            _ if self.policy == Policy::Off => false,
            Mode::Turbine => false,
            Mode::Gossip => true,
            Mode::Auto => {
                self.policy == Policy::Always
                    || self.health.state() != State::Turbine
                    || is_gossip_term(ctx)
                    || self.leader_listens(ctx)
            }
        };
        if listening != self.listening {
            self.listening = listening;
            self.actions.push_back(GossipAction::Listen(listening));
        }
    }

    /// Whether a current leader listens to gossip, and the overlay has brought nothing for a while.
    /// A leader listens because nothing reaches it over the overlay, so perhaps nothing that it
    /// sends arrives either; other nodes cannot tell that from a dead leader. It may also listen by
    /// its policy; then the overlay goes on.
    fn leader_listens(&self, ctx: &Ctx) -> bool {
        let Some(block) = ctx.window.opened() else { return false };
        if self.health.quiet_for(ctx.now) < LEADER_QUIET {
            return false;
        }
        let blocks = [block, block.saturating_add(1)];
        let leaders = blocks.into_iter().filter_map(|block| ctx.leader_key(block));
        leaders.into_iter().any(|leader| leader != ctx.me() && self.is_listener(leader))
    }

    /// The next action for the gossip driver.
    pub(super) fn poll(&mut self) -> Option<GossipAction> {
        let action = self.actions.pop_front()?;
        self.publishing.taken(&action);
        Some(action)
    }

    /// The operator says which way messages travel.
    pub(super) fn set_mode(&mut self, ctx: &mut Ctx, mode: Mode) {
        let before = std::mem::replace(&mut ctx.mode, mode);
        if mode == Mode::Auto && before != mode {
            self.health.resume(ctx.now);
        }
    }

    /// The operator says how much this node has to do with gossip.
    pub(super) fn set_policy(&mut self, ctx: &mut Ctx, policy: Policy) {
        if self.is_on() && policy != Policy::Off {
            self.policy = policy;
            self.settle(ctx);
        }
    }

    /// How much this node uses gossip.
    pub(super) const fn policy(&self) -> Policy {
        self.policy
    }

    /// Whether this node is in the meshes of gossip.
    pub(super) const fn is_listening(&self) -> bool {
        self.listening
    }

    /// The state machine behind the fallback.
    pub(super) const fn health(&self) -> &Health {
        &self.health
    }
}

/// Verifies a message that a peer has answered with, which has verified it as well: one that is not
/// what was asked for, in whatever dialect the peer speaks, is a lie.
///
/// # Errors
/// What the answer is counted as.
pub(super) fn verify(
    ctx: &Ctx,
    from: PeerKey,
    key: &MessageKey,
    kind: Kind,
    wire: &Bytes,
) -> Result<VerifiedMessage, Outcome> {
    let (signature, body) = wire.split_first_chunk::<SIGNATURE_LEN>().ok_or(Outcome::ControlBad)?;
    let body = wire.slice_ref(body);
    let Some(message) = decode(key, kind, ctx.config.dialect, &body) else {
        return Err(undecodable(ctx, from, key, kind, &body));
    };
    // Its tree hash would take seconds. A gateway may have signed it, but nobody can execute it.
    if is_crowded(&message) {
        return Err(Outcome::ControlStale);
    }
    let signed = SignedMessage::new(message, Signature::from_bytes(*signature));
    let view = ctx.epochs.view();
    let gateway = view.gateway_of(key.block, key.attempt).ok_or(Outcome::ControlStale)?;
    match signed.verify(gateway) {
        Ok(message) => Ok(message),
        // The peer's schedule may be another one than ours: that is no lie.
        Err(SignatureError::WrongSigner { found, .. }) if view.is_gateway(&found) => {
            Err(Outcome::ControlStale)
        }
        Err(SignatureError::WrongSigner { .. }) => Err(Outcome::Unproven),
        // Of a form that nobody takes.
        Err(_) => Err(Outcome::ControlBad),
    }
}

/// A message if it is the one of this place.
fn decode(key: &MessageKey, kind: Kind, dialect: Dialect, body: &Bytes) -> Option<Message> {
    let message = Message::decode_body(kind, dialect, body).ok()?;
    let place = (message.block(), message.index());
    (place == (key.block, Some(key.message))).then_some(message)
}

/// What an answer makes of its sender that is not what was asked for in our dialect. The sender's
/// may be another one: it is convicted only of what is wrong in every dialect, and only if it has
/// told that its own is one of those.
fn undecodable(ctx: &Ctx, from: PeerKey, key: &MessageKey, kind: Kind, body: &Bytes) -> Outcome {
    let told = ctx.peers.dialect(from).and_then(dialect_of);
    let known = |dialect: &&Dialect| decode(key, kind, **dialect, body).is_some();
    match told {
        Some(_) if Dialect::VARIANTS.iter().find(known).is_none() => Outcome::ControlBad,
        _ => Outcome::OtherDialect,
    }
}

/// Whether the newest block, or the next, is led by a gateway that is not one of ours: it has no
/// delegation, and speaks gossip alone.
fn is_gossip_term(ctx: &Ctx) -> bool {
    match ctx.window.opened() {
        // Also one whose delegate our table does not have: its shreds cannot be taken.
        Some(block) => {
            ctx.leader_key(block).is_none() || ctx.leader_key(block.saturating_add(1)).is_none()
        }
        // Where the chain stands is not known yet.
        None => !ctx.epochs.iter().all(|living| {
            let epoch = living.epoch();
            let ours = |g| epoch.delegations().iter().any(|leader| leader.gateway == g);
            epoch.schedule().gateways().iter().all(|gateway| ours(*gateway))
        }),
    }
}
