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
//!   each peer, 16,384 messages of which arrivals are remembered, and as many bytes of
//!   actions as of recent messages.

mod publishing;
mod recent;
mod whole;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use alloy_primitives::B256;
use fragcast_shredder::{Kind, MessageKey, VerifiedMessage};

use super::{Event, Protocol};
use crate::gossip::{GossipAction, Mode, Policy};
use crate::health::{Health, HealthConfig, State};
use crate::time::Timestamp;
use publishing::Publishing;
use recent::Recent;

/// Messages whose arrivals are remembered, about 120 bytes each.
const MAX_SEEN: usize = 16_384;
/// The overlay has brought nothing for so long, three frags of usual rhythm: a leader that
/// listens to gossip does so for a reason.
const LEADER_QUIET: Duration = Duration::from_millis(600);
/// Messages of one place in a block: as often as a block can be opened.
const MAX_VERSIONS: usize = 8;

/// Configuration of the fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GossipConfig {
    /// How much this node has to do with gossip. `Off` costs nothing.
    pub policy: Policy,
    /// Which way messages travel.
    pub mode: Mode,
    /// When this node falls back, and returns.
    pub health: HealthConfig,
    /// Bytes of recent messages kept for listeners and for those who ask.
    pub memory: usize,
}

impl Default for GossipConfig {
    /// Off: a driver that has no gossip must not be asked for any.
    fn default() -> Self {
        Self {
            policy: Policy::Off,
            mode: Mode::Auto,
            health: HealthConfig::default(),
            memory: 32 * 1024 * 1024,
        }
    }
}

/// A message that came both ways: how much earlier one of them was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Race {
    /// Block and index; the attempt is the overlay's.
    pub key: MessageKey,
    /// Which of the three.
    pub kind: Kind,
    /// When the overlay had it whole and verified.
    pub turbine_at: Timestamp,
    /// When gossip had it verified.
    pub gossip_at: Timestamp,
}

/// One message as it arrived.
#[derive(Debug, Clone, Copy)]
struct Seen {
    root: B256,
    attempt: u8,
    turbine_at: Option<Timestamp>,
    gossip_at: Option<Timestamp>,
    /// It came with another v, and must not be published in canonical form.
    unpublished: bool,
    /// Bit i: a peer has answered with it, as one of attempt i.
    answered: u8,
}

/// The state of the bridge.
pub(super) struct Fallback {
    policy: Policy,
    mode: Mode,
    health: Health,
    /// Peers that are connected, and how many health was told of.
    connected: usize,
    told_connected: Option<usize>,
    /// What the driver was told last.
    listening: bool,
    actions: VecDeque<GossipAction>,
    publishing: Publishing,
    /// By block and index.
    seen: BTreeMap<(u64, u16), Vec<Seen>>,
    seen_count: usize,
    recent: Recent,
}

impl Fallback {
    pub(super) fn new(config: GossipConfig) -> Self {
        Self {
            policy: config.policy,
            mode: config.mode,
            health: Health::new(config.health),
            connected: 0,
            told_connected: None,
            listening: false,
            actions: VecDeque::new(),
            publishing: Publishing::default(),
            seen: BTreeMap::new(),
            seen_count: 0,
            recent: Recent::new(config.memory),
        }
    }

    fn is_on(&self) -> bool {
        self.policy != Policy::Off
    }

    /// Whether health decides: not if the operator has.
    fn is_judging(&self) -> bool {
        self.is_on() && self.mode == Mode::Auto
    }

    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        if self.told_connected != Some(self.connected) && self.is_on() {
            return Some(Timestamp::from_nanos(0));
        }
        let health = if self.is_judging() { self.health.next_timeout() } else { None };
        health.into_iter().chain(self.publishing.next_timeout()).min()
    }

    pub(super) fn is_pending(&self) -> bool {
        !self.actions.is_empty() || (self.is_judging() && self.health.is_pending())
    }

    /// A peer connects, or its connection is gone.
    pub(super) const fn count_peer(&mut self, was: bool, is: bool) {
        self.connected = self.connected + is as usize - was as usize;
    }

    /// Whether gossip has brought a message under this key, here or to a peer that answered.
    pub(super) fn has(&self, key: &MessageKey) -> bool {
        let seen = self.seen.get(&(key.block, key.message));
        let by_gossip = |seen: &Seen| seen.gossip_at.is_some() && seen.attempt == key.attempt;
        let answered = |seen: &Seen| seen.answered.checked_shr(key.attempt.into()).unwrap_or(0);
        seen.is_some_and(|all| all.iter().any(|seen| by_gossip(seen) || answered(seen) & 1 == 1))
    }

    /// The attempt that a message of gossip most likely belongs to: an Env opens the next one,
    /// the rest goes with the newest Env that is known.
    fn guess(&self, block: u64, kind: Kind) -> u8 {
        let envs = self.seen.get(&(block, 0)).map_or(&[][..], Vec::as_slice);
        let newest = envs.iter().map(|seen| seen.attempt).max();
        match (kind, newest) {
            (_, None) => 0,
            (Kind::Env, Some(newest)) => newest.saturating_add(1).min(MAX_VERSIONS as u8 - 1),
            (_, Some(newest)) => newest,
        }
    }

    /// The entry of a message, if there is room for it: what is farther behind makes room.
    fn entry(&mut self, key: MessageKey, root: B256) -> Option<&mut Seen> {
        let place = (key.block, key.message);
        let known = self.seen.get(&place).and_then(|all| all.iter().position(|s| s.root == root));
        if known.is_none() {
            let versions = self.seen.get(&place).map_or(0, Vec::len);
            if versions >= MAX_VERSIONS {
                return None;
            }
            while self.seen_count >= MAX_SEEN {
                let oldest = self.seen.first_entry().filter(|oldest| *oldest.key() < place)?;
                self.seen_count -= oldest.remove().len();
            }
            self.seen_count += 1;
            let attempt = key.attempt;
            let seen = Seen {
                root,
                attempt,
                turbine_at: None,
                gossip_at: None,
                unpublished: false,
                answered: 0,
            };
            self.seen.entry(place).or_default().push(seen);
        }
        let all = self.seen.get_mut(&place)?;
        let at = known.unwrap_or(all.len() - 1);
        Some(&mut all[at])
    }

    /// Whether a message must not be published by this node.
    fn is_unpublished(&self, key: &MessageKey, root: B256) -> bool {
        let seen = self.seen.get(&(key.block, key.message));
        seen.is_some_and(|all| all.iter().any(|seen| seen.root == root && seen.unpublished))
    }

    fn set_window(&mut self, low: u64) {
        let kept = self.seen.split_off(&(low, 0));
        let gone = std::mem::replace(&mut self.seen, kept);
        self.seen_count -= gone.values().map(Vec::len).sum::<usize>();
        self.recent.forget_below(low);
    }
}

/// Messages of a block, if `message` is its Seal.
fn count_of(message: &VerifiedMessage) -> Option<u32> {
    let seal = message.message().kind() == Kind::Seal;
    message.message().index().filter(|_| seal).map(|index| u32::from(index) + 1)
}

impl Protocol {
    /// Takes a message that came by gossip and passed the [gate](crate::gossip::Gate).
    ///
    /// One that is not `forwarded`, because its signature came with another v, is used like any
    /// other, and never published: in canonical form it would be a second message to based-op's
    /// nodes, which throws their unsealed block away.
    pub fn handle_gossip(&mut self, now: Timestamp, message: VerifiedMessage, forwarded: bool) {
        let (block, kind) = (message.message().block(), message.message().kind());
        let (low, high) = self.gossip_window(now);
        let Some(index) = message.message().index() else { return };
        if !self.fallback.is_on()
            || self.fallback.mode == Mode::Turbine
            || !(low..=high).contains(&block)
        {
            return;
        }
        self.reanchor_to(now, block);
        let attempt = self.fallback.guess(block, kind);
        let key = MessageKey { block, attempt, message: index };
        let Some(seen) = self.fallback.entry(key, message.root()) else { return };
        if seen.gossip_at.replace(now).is_some() {
            return;
        }
        seen.unpublished = !forwarded && seen.turbine_at.is_none();
        let key = MessageKey { attempt: seen.attempt, ..key };
        let (turbine_at, answered) = (seen.turbine_at, seen.answered != 0);
        self.counters.gossip += 1;
        if let Some(turbine_at) = turbine_at {
            self.events.push_back(Event::Race(Race { key, kind, turbine_at, gossip_at: now }));
        } else if !answered {
            self.counters.gossip_first += 1;
            self.take_whole(now, key, message, None);
        }
    }

    /// The blocks that are taken from gossip. As for shreds: who has seen no progress for
    /// [`Config::reanchor`](super::Config::reanchor) may be elsewhere than the others, and what
    /// was sealed stays sealed.
    pub fn gossip_window(&self, now: Timestamp) -> (u64, u64) {
        let (low, high) = self.window();
        if now.since(self.progress_at) <= self.config.reanchor {
            return (low, high);
        }
        (if self.sealed.is_some() { low } else { 0 }, u64::MAX)
    }

    /// Drops the window if `block`, which gossip brought, is outside it and may be taken.
    fn reanchor_to(&mut self, now: Timestamp, block: u64) {
        let (low, high) = self.window();
        if !(low..=high).contains(&block) {
            self.forget_window(now);
        }
    }

    /// The overlay delivered a message.
    pub(super) fn note_turbine(
        &mut self,
        now: Timestamp,
        key: MessageKey,
        message: &VerifiedMessage,
    ) {
        if !self.fallback.is_on() {
            return;
        }
        if self.fallback.is_judging() {
            let place = (key.block, key.attempt, key.message);
            self.fallback.health.turbine(now, place, count_of(message));
        }
        let mut race = None;
        if let Some(seen) = self.fallback.entry(key, message.root()) {
            // What the overlay says of attempts is signed.
            let guess = MessageKey { attempt: seen.attempt, ..key };
            seen.attempt = key.attempt;
            if guess != key {
                self.repair.forget_message(&guess);
            }
            if seen.turbine_at.is_none() {
                seen.turbine_at = Some(now);
                // The leader's own form of it: what its leader publishes is no second message.
                seen.unpublished = false;
                race = seen.gossip_at;
            }
        }
        if let Some(gossip_at) = race {
            let kind = message.message().kind();
            self.events.push_back(Event::Race(Race { key, kind, turbine_at: now, gossip_at }));
        }
        self.remember(key, message);
        self.offer(&key, message);
        self.settle_fallback(now);
    }

    /// This node leads and has sent a message.
    pub(super) fn note_own(&mut self, now: Timestamp, key: MessageKey, message: &VerifiedMessage) {
        if self.fallback.is_on() {
            if self.fallback.is_judging() {
                self.fallback.health.sent(now);
                if message.message().kind() == Kind::Seal {
                    self.fallback.health.led(now, key.block);
                }
            }
            self.remember(key, message);
            self.offer(&key, message);
            self.settle_fallback(now);
        }
    }

    /// Something came from a peer over the overlay.
    pub(super) fn note_heard(&mut self, now: Timestamp) {
        if self.fallback.is_judging() {
            self.fallback.health.heard(now);
            self.settle_fallback(now);
        }
    }

    pub(super) fn fallback_window(&mut self, low: u64) {
        self.fallback.set_window(low);
    }

    pub(super) fn fallback_timeout(&mut self, now: Timestamp) {
        if !self.fallback.is_on() {
            return;
        }
        let connected = self.fallback.connected;
        if self.fallback.told_connected.replace(connected) != Some(connected) {
            // Who has no peers by design misses none.
            let alone = self.peers.len() == 1;
            self.fallback.health.connected(now, connected + usize::from(alone));
        }
        if self.fallback.is_judging() {
            let health = &mut self.fallback.health;
            health.expect(now, self.repair.is_telling());
            health.missing(self.repair.missing());
            health.handle_timeout(now);
        }
        self.tell_of_listeners(now);
        self.settle_fallback(now);
    }

    /// Takes over what health has decided.
    pub(super) fn settle_fallback(&mut self, now: Timestamp) {
        let Fallback { mode, policy, .. } = self.fallback;
        let health = &mut self.fallback.health;
        match mode {
            Mode::Auto => {}
            Mode::Turbine => health.order(now, State::Turbine),
            Mode::Gossip => health.order(now, State::Gossip),
        }
        for change in health.take_changes() {
            self.events.push_back(Event::Health(change));
        }
        let listening = match mode {
            _ if policy == Policy::Off => false,
            Mode::Turbine => false,
            Mode::Gossip => true,
            Mode::Auto => {
                policy == Policy::Always
                    || self.fallback.health.state() != State::Turbine
                    || self.is_gossip_term()
                    || self.leader_listens(now)
            }
        };
        if listening != self.fallback.listening {
            self.fallback.listening = listening;
            self.fallback.actions.push_back(GossipAction::Listen(listening));
        }
    }

    /// Whether the newest block, or the next, is led by a gateway that is not one of ours: it
    /// has no delegation, and speaks gossip alone.
    fn is_gossip_term(&self) -> bool {
        match self.opened {
            // Also one whose delegate our table does not have: its shreds cannot be taken.
            Some(block) => {
                self.leader_index(block).is_none()
                    || self.leader_index(block.saturating_add(1)).is_none()
            }
            // Where the chain stands is not known yet.
            None => {
                let gateways = self.schedule.gateways();
                let ours = |g| self.delegations.iter().any(|l| l.signed.gateway().ok() == Some(g));
                !gateways.iter().all(|gateway| ours(*gateway))
            }
        }
    }

    /// Whether a leader of now listens to gossip, and the overlay has brought nothing for a while.
    /// A leader listens because nothing reaches it over the overlay, so perhaps nothing that it
    /// sends arrives there either; and that is what nobody else can tell from a leader that is
    /// dead. It may also listen by its policy: then the overlay goes on.
    fn leader_listens(&self, now: Timestamp) -> bool {
        let Some(block) = self.opened else { return false };
        if self.fallback.health.quiet_for(now) < LEADER_QUIET {
            return false;
        }
        let blocks = [block, block.saturating_add(1)];
        let leaders = blocks.into_iter().filter_map(|block| self.leader_index(block));
        leaders.into_iter().any(|leader| leader != self.me && self.is_listener(leader))
    }

    /// What the gossip driver is to do next.
    pub fn poll_gossip(&mut self) -> Option<GossipAction> {
        let action = self.fallback.actions.pop_front()?;
        self.fallback.publishing.taken(&action);
        Some(action)
    }

    /// The operator says which way messages travel.
    pub fn set_mode(&mut self, now: Timestamp, mode: Mode) {
        let before = std::mem::replace(&mut self.fallback.mode, mode);
        if mode == Mode::Auto && before != mode {
            self.fallback.health.resume(now);
        }
        if mode == Mode::Gossip {
            self.repair.rest();
        }
        self.settle_fallback(now);
    }

    /// The operator says how much this node has to do with gossip. To and from
    /// [`Policy::Off`] it cannot be changed, since the driver must be started for it.
    pub fn set_policy(&mut self, now: Timestamp, policy: Policy) {
        if self.fallback.is_on() && policy != Policy::Off {
            self.fallback.policy = policy;
            self.settle_fallback(now);
        }
    }

    /// Which way messages travel.
    pub const fn mode(&self) -> Mode {
        self.fallback.mode
    }

    /// How much this node has to do with gossip.
    pub const fn policy(&self) -> Policy {
        self.fallback.policy
    }

    /// Whether this node is in the meshes of gossip.
    pub const fn is_listening(&self) -> bool {
        self.fallback.listening
    }

    /// The state machine behind the fallback.
    pub const fn health(&self) -> &Health {
        &self.fallback.health
    }
}
