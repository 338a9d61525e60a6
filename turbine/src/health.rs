//! Whether this node can live on the overlay alone: the state machine behind the fallback.
//!
//! ```text
//!          silence, gap              gossip had it, the overlay did not
//!  Turbine ──────────▶ Probing ───────────────────────────────▶ Gossip
//!     ▲ ▲                 │                                        │
//!     │ └─ heard, empty ──┘                                        │
//!     └──── as many blocks as the dwell, by the overlay alone ─────┘
//! ```
//!
//! Pure; every node decides for itself. The question is whether the *path* works, not whether
//! anybody has something to say: a leader that died, a slow gateway, a term that nobody builds
//! in look the same to everybody, and gossip would have nothing either. So nothing here is
//! triggered by the mere absence of messages:
//!
//! * [`Reason::NoRelay`]: no peer is connected. The node falls back.
//! * [`Reason::TipsAhead`]: two peers or more have told for [`HealthConfig::patience`] of a
//!   message that this node could not get. They may lie together, so the node *probes*: it
//!   listens to gossip for a while.
//! * [`Reason::Gap`]: what must exist was not to be had for as long, repair included. A leader
//!   that died in the middle of a message leaves everybody such a gap, so the node probes.
//! * [`Reason::Silence`]: peers are connected and have stopped to tell what they have, which
//!   they do 20 times a second while a block is open. That may be a dead path or a dead peer,
//!   so the node probes.
//! * [`Reason::Quiet`]: the overlay has brought nothing for longer than any block takes. Peers on
//!   this side of a broken path tell one another the same, so that alone would never be noticed;
//!   and a chain that stands still looks the same, so the node probes, and soon gives up.
//! * [`Reason::GossipAhead`]: a message came by gossip, and not by the overlay within
//!   [`HealthConfig::grace`], or at all while nobody is heard. A probe looks for one; a node that listens all the time, by its
//!   policy, and stops to ask for what gossip has given it, takes [`MISSES`] in a row.
//!
//! The way back is judged on what the overlay alone completed: [`Health::dwell`] blocks in a
//! row. The dwell doubles with each relapse, from 2 to 64 blocks (hysteresis).

mod change;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Timestamp;

pub use change::{Change, Reason, State};

/// Messages that came by gossip first and for which the overlay still has time.
const MAX_AHEAD: usize = 64;
/// Messages in a row that the overlay must have missed, where gossip is always on.
pub const MISSES: u32 = 3;
/// Blocks of which it is counted what the overlay completed.
const MAX_BLOCKS: usize = 16;
/// Probes of a quiet overlay that find nothing, before it is taken for a chain that stands still.
const QUIET_PROBES: u32 = 3;

/// Configuration of the state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthConfig {
    /// Peers that are connected and have something to tell are silent for so long: probe.
    pub silence: Duration,
    /// What came by gossip first must come by the overlay within this, unless no peer is heard.
    pub grace: Duration,
    /// The overlay has brought nothing for so long: probe. More than a slot of Ethereum's.
    pub quiet: Duration,
    /// What peers have must be here within this.
    pub patience: Duration,
    /// No peer is connected for so long.
    pub alone: Duration,
    /// The same, after the start: connecting takes its time.
    pub alone_at_start: Duration,
    /// How long a probe listens.
    pub probe: Duration,
    /// Pause after a probe that heard nothing, at first and at most: it doubles.
    pub pause: (Duration, Duration),
    /// Blocks in a row that the overlay must complete alone, at first and at most.
    pub dwell: (u64, u64),
    /// A fallback within so many blocks of the last return is a relapse.
    pub relapse: u64,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            silence: Duration::from_millis(300),
            grace: Duration::from_millis(250),
            quiet: Duration::from_secs(15),
            patience: Duration::from_millis(700),
            alone: Duration::from_millis(300),
            alone_at_start: Duration::from_secs(5),
            probe: Duration::from_secs(2),
            pause: (Duration::from_secs(1), Duration::from_secs(16)),
            dwell: (2, 64),
            relapse: 64,
        }
    }
}

/// What the overlay has completed of one block.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    attempt: u8,
    /// Messages that the overlay delivered.
    messages: u32,
    /// Messages that there are, once its Seal is here, whichever way.
    of: Option<u32>,
    /// When the block is judged, if the overlay has not completed it by then.
    judge_at: Option<Timestamp>,
    judged: bool,
}

/// What is missing, as repair sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Missing {
    /// Since when two peers or more have told of a message that is not here.
    pub told: Option<Timestamp>,
    /// Since when a message is missing that must exist.
    pub certain: Option<Timestamp>,
}

/// The state machine of one node.
#[derive(Debug, Clone)]
pub struct Health {
    config: HealthConfig,
    started: bool,
    state: State,
    since: Timestamp,
    /// The reason of the last change, `None` before the first.
    reason: Option<Reason>,
    /// Peers connected.
    peers: usize,
    /// Since when there are none.
    alone_since: Option<Timestamp>,
    ever_connected: bool,
    heard_at: Timestamp,
    /// When the overlay brought a message last, or this node sent one.
    brought_at: Timestamp,
    /// Probes since then for quiet that found nothing.
    quiet_probes: u32,
    /// Peers would be telling what they have.
    expecting: bool,
    missing: Missing,
    /// When a probe ends.
    probe_until: Option<Timestamp>,
    /// No probe before.
    probe_after: Timestamp,
    pause: Duration,
    /// Messages that gossip had first, by block and index, with the end of the overlay's grace.
    ahead: BTreeMap<(u64, u16), Timestamp>,
    /// Those whose grace is over, since the overlay completed one last.
    misses: u32,
    /// Only while in [`State::Gossip`].
    blocks: BTreeMap<u64, Block>,
    /// Blocks in a row.
    streak: u64,
    dwell: u64,
    returned_at: Option<u64>,
    newest: u64,
    changes: Vec<Change>,
}

impl Health {
    /// On the overlay; its time begins with the first call that has one.
    pub const fn new(config: HealthConfig) -> Self {
        let now = Timestamp::from_nanos(0);
        Self {
            started: false,
            state: State::Turbine,
            since: now,
            reason: None,
            peers: 0,
            alone_since: None,
            ever_connected: false,
            heard_at: now,
            brought_at: now,
            quiet_probes: 0,
            expecting: false,
            missing: Missing { told: None, certain: None },
            probe_until: None,
            probe_after: now,
            pause: config.pause.0,
            ahead: BTreeMap::new(),
            misses: 0,
            blocks: BTreeMap::new(),
            streak: 0,
            dwell: config.dwell.0,
            returned_at: None,
            newest: 0,
            changes: Vec::new(),
            config,
        }
    }

    /// The state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// When it began.
    pub const fn since(&self) -> Timestamp {
        self.since
    }

    /// Why it began; `None` before the first change.
    pub const fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Blocks in a row that the overlay must complete for the way back.
    pub const fn dwell(&self) -> u64 {
        self.dwell
    }

    /// How many it has completed so far.
    pub const fn streak(&self) -> u64 {
        self.streak
    }

    /// What changed since the last call, oldest first.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn start(&mut self, now: Timestamp) {
        if !self.started {
            (self.started, self.since, self.heard_at, self.probe_after) = (true, now, now, now);
            self.brought_at = now;
            self.alone_since = (self.peers == 0).then_some(now);
        }
    }

    /// So many peers are connected.
    pub fn connected(&mut self, now: Timestamp, peers: usize) {
        self.start(now);
        if peers > self.peers {
            // Somebody new counts as heard of.
            self.heard_at = now;
        }
        self.peers = peers;
        self.ever_connected |= peers > 0;
        self.alone_since = match self.alone_since {
            _ if peers > 0 => None,
            None => Some(now),
            since => since,
        };
    }

    /// Something came from a peer over the overlay.
    pub fn heard(&mut self, now: Timestamp) {
        self.heard_at = now;
        if self.state == State::Probing && self.reason == Some(Reason::Silence) {
            self.pause = self.config.pause.0;
            self.change(now, State::Turbine, Reason::Heard);
        }
    }

    /// Whether peers would be telling what they have, because something is going on.
    pub fn expect(&mut self, now: Timestamp, expecting: bool) {
        if expecting && !self.expecting {
            self.heard_at = self.heard_at.max(now);
        }
        self.expecting = expecting;
    }

    /// What repair lacks.
    pub const fn missing(&mut self, missing: Missing) {
        self.missing = missing;
    }

    /// Message `index` of `block` came by gossip, and has not come by the overlay. With
    /// `of`, it was the Seal, and the block has so many messages.
    pub fn gossip(
        &mut self,
        now: Timestamp,
        (block, attempt, index): (u64, u8, u16),
        of: Option<u32>,
    ) {
        self.newest = self.newest.max(block);
        if self.state == State::Gossip {
            self.sealed(now, block, attempt, of);
        } else if self.ahead.len() < MAX_AHEAD {
            // Where nobody is heard there is nothing to wait for: a probe that finds something is
            // answered.
            let silent = self.state == State::Probing && self.reason == Some(Reason::Silence);
            let grace = if silent { Duration::ZERO } else { self.config.grace };
            self.ahead.entry((block, index)).or_insert(now + grace);
        }
    }

    /// The overlay completed a message. With `of`, it was the Seal.
    pub fn turbine(
        &mut self,
        now: Timestamp,
        (block, attempt, index): (u64, u8, u16),
        of: Option<u32>,
    ) {
        self.newest = self.newest.max(block);
        self.ahead.remove(&(block, index));
        self.misses = 0;
        self.brought(now);
        if self.state != State::Gossip {
            return;
        }
        if let Some(entry) = self.block(block, attempt) {
            entry.messages += 1;
            self.sealed(now, block, attempt, of);
            self.judge(now, block, false);
        }
    }

    /// This node led `block` and has sent all of it. Nothing of it comes back, so what tells of the
    /// path is whether peers are heard: else who leads alone would never return.
    pub fn led(&mut self, now: Timestamp, block: u64) {
        self.newest = self.newest.max(block);
        if self.state != State::Gossip {
            return;
        }
        let heard = self.peers > 0 && now.since(self.heard_at) <= self.config.silence;
        self.streak = if heard { self.streak + 1 } else { 0 };
        self.return_after(now, block);
    }

    /// The overlay brought a message, or this node sent one over it.
    fn brought(&mut self, now: Timestamp) {
        (self.brought_at, self.quiet_probes) = (now, 0);
        match self.state {
            State::Turbine => (self.pause, self.probe_after) = (self.config.pause.0, now),
            State::Probing if self.reason == Some(Reason::Quiet) => {
                self.change(now, State::Turbine, Reason::Heard);
            }
            State::Probing | State::Gossip => {}
        }
    }

    /// This node leads and has sent a message.
    pub fn sent(&mut self, now: Timestamp) {
        self.brought(now);
    }

    /// For how long the overlay has brought nothing.
    pub const fn quiet_for(&self, now: Timestamp) -> Duration {
        now.since(self.brought_at)
    }

    /// The operator leaves it to health again: what was noted before does not count.
    pub fn resume(&mut self, now: Timestamp) {
        self.ahead.clear();
        self.blocks.clear();
        (self.misses, self.streak) = (0, 0);
        (self.heard_at, self.brought_at, self.expecting) = (now, now, false);
        self.missing = Missing::default();
    }

    fn return_after(&mut self, now: Timestamp, block: u64) {
        if self.streak >= self.dwell {
            self.returned_at = Some(block);
            self.change(now, State::Turbine, Reason::Recovered);
        }
    }

    fn block(&mut self, block: u64, attempt: u8) -> Option<&mut Block> {
        if !self.blocks.contains_key(&block) && self.blocks.len() >= MAX_BLOCKS {
            let oldest = *self.blocks.first_key_value()?.0;
            if block < oldest {
                return None;
            }
            self.blocks.pop_first();
        }
        let entry = self.blocks.entry(block).or_default();
        if attempt > entry.attempt {
            *entry = Block { attempt, ..Block::default() };
        }
        (attempt == entry.attempt).then_some(entry)
    }

    fn sealed(&mut self, now: Timestamp, block: u64, attempt: u8, of: Option<u32>) {
        let Some(of) = of else { return };
        let grace = self.config.grace;
        if let Some(entry) = self.block(block, attempt) {
            entry.of = Some(of);
            if !entry.judged {
                entry.judge_at.get_or_insert(now + grace);
            }
        }
    }

    /// Judges a block that the overlay has completed, or whose time is up.
    fn judge(&mut self, now: Timestamp, block: u64, late: bool) {
        let Some(entry) = self.blocks.get_mut(&block).filter(|entry| !entry.judged) else { return };
        let complete = entry.of.is_some_and(|of| entry.messages >= of);
        if !complete && !late {
            return;
        }
        entry.judged = true;
        entry.judge_at = None;
        // Blocks that are not judged break no row: those of a gateway that speaks gossip alone,
        // those that nobody sealed. They say nothing about the path.
        self.streak = if complete { self.streak + 1 } else { 0 };
        self.return_after(now, block);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.start(now);
        match self.state {
            State::Turbine | State::Probing => self.look_for_trouble(now),
            State::Gossip => {
                let due = |entry: &Block| entry.judge_at.is_some_and(|at| at <= now);
                let late: Vec<u64> = self
                    .blocks
                    .iter()
                    .filter(|(_, entry)| due(entry))
                    .map(|(block, _)| *block)
                    .collect();
                late.into_iter().for_each(|block| self.judge(now, block, true));
            }
        }
    }

    fn look_for_trouble(&mut self, now: Timestamp) {
        let config = self.config;
        let passed = |since: Option<Timestamp>, limit| since.is_some_and(|at| at + limit <= now);
        let before = self.ahead.len();
        self.ahead.retain(|_, until| *until > now);
        self.misses += (before - self.ahead.len()) as u32;
        let enough = if self.state == State::Probing { 1 } else { MISSES };
        if passed(self.alone_since, self.alone_limit()) {
            self.fall_back(now, Reason::NoRelay);
        } else if self.misses >= enough {
            self.fall_back(now, Reason::GossipAhead);
        } else if self.state == State::Probing {
            let filled = match self.reason {
                Some(Reason::Gap) => self.missing.certain.is_none(),
                Some(Reason::TipsAhead) => self.missing.told.is_none(),
                _ => false,
            };
            if filled {
                self.change(now, State::Turbine, Reason::Filled);
            } else if self.probe_until.is_some_and(|at| at <= now) {
                self.probe_after = now + self.pause;
                self.pause = (self.pause * 2).min(config.pause.1);
                self.quiet_probes += u32::from(self.reason == Some(Reason::Quiet));
                self.change(now, State::Turbine, Reason::ProbeEmpty);
            }
        } else if self.silence_at().is_some_and(|at| at <= now) {
            self.probe(now, Reason::Silence);
        } else if self.missing_at(self.missing.told).is_some_and(|at| at <= now) {
            self.probe(now, Reason::TipsAhead);
        } else if self.missing_at(self.missing.certain).is_some_and(|at| at <= now) {
            self.probe(now, Reason::Gap);
        } else if self.quiet_at().is_some_and(|at| at <= now) {
            self.probe(now, Reason::Quiet);
        }
    }

    fn probe(&mut self, now: Timestamp, reason: Reason) {
        let missing = self.missing;
        self.change(now, State::Probing, reason);
        self.missing = missing;
        self.probe_until = Some(now + self.config.probe);
    }

    const fn alone_limit(&self) -> Duration {
        if self.ever_connected { self.config.alone } else { self.config.alone_at_start }
    }

    /// When silence becomes a reason to probe.
    fn silence_at(&self) -> Option<Timestamp> {
        let quiet = self.expecting && self.peers > 0 && self.state == State::Turbine;
        quiet.then(|| (self.heard_at + self.config.silence).max(self.probe_after))
    }

    /// When what is missing becomes a reason to probe; what was missing before the state began
    /// is a matter of the state before.
    fn missing_at(&self, since: Option<Timestamp>) -> Option<Timestamp> {
        let since = since.filter(|_| self.state == State::Turbine)?.max(self.since);
        Some((since + self.config.patience).max(self.probe_after))
    }

    /// When quiet becomes a reason to probe.
    fn quiet_at(&self) -> Option<Timestamp> {
        let waits = self.peers > 0 && self.state == State::Turbine;
        let probes = waits && self.quiet_probes < QUIET_PROBES;
        let quiet = self.config.quiet * 2_u32.pow(self.quiet_probes);
        probes.then(|| (self.brought_at.max(self.since) + quiet).max(self.probe_after))
    }

    fn fall_back(&mut self, now: Timestamp, reason: Reason) {
        let (first, most) = self.config.dwell;
        let relapse = self
            .returned_at
            .is_some_and(|at| self.newest.saturating_sub(at) <= self.config.relapse);
        self.dwell = if relapse { (self.dwell * 2).min(most) } else { first };
        self.change(now, State::Gossip, reason);
    }

    /// The operator puts the node into a state; `Probing` is none that can be ordered.
    pub fn order(&mut self, now: Timestamp, state: State) {
        if state != self.state {
            self.change(now, state, Reason::Operator);
        }
    }

    fn change(&mut self, now: Timestamp, to: State, reason: Reason) {
        let from = std::mem::replace(&mut self.state, to);
        self.changes.push(Change {
            at: now,
            from,
            to,
            reason,
            block: self.newest,
            dwell: self.dwell,
        });
        (self.since, self.reason) = (now, Some(reason));
        self.blocks.clear();
        self.ahead.clear();
        (self.streak, self.misses) = (0, 0);
        self.missing = Missing::default();
        if to != State::Probing {
            self.probe_until = None;
        }
        if to == State::Turbine {
            // A fresh start: what is old by now does not count against the overlay.
            self.heard_at = self.heard_at.max(now);
            self.alone_since = (self.peers == 0).then_some(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        if !self.started {
            return Some(Timestamp::from_nanos(0));
        }
        if self.state == State::Gossip {
            return self.blocks.values().filter_map(|entry| entry.judge_at).min();
        }
        let alone = self.alone_since.map(|at| at + self.alone_limit());
        let ahead = self.ahead.values().min().copied();
        let probe = self.probe_until;
        let told = self.missing_at(self.missing.told);
        let certain = self.missing_at(self.missing.certain);
        let all = [alone, told, certain, ahead, probe, self.silence_at(), self.quiet_at()];
        all.into_iter().flatten().min()
    }

    /// Whether a decision is on its way: a driver in virtual time must not stop before it.
    pub fn is_pending(&self) -> bool {
        self.state == State::Probing || !self.ahead.is_empty()
    }
}

#[cfg(test)]
mod tests;
