//! The state machine behind the fallback: whether this node can rely on the overlay alone.
//!
//! ```text
//!          silence, gap              gossip had it, the overlay did not
//!  Overlay ──────────▶ Probing ───────────────────────────────▶ Gossip
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
//! * [`Reason::TipsAhead`]: for [`HealthConfig::patience`] two peers or more have told of a
//!   message that this node could not get. They may lie together, so the node *probes*: it
//!   listens to gossip for a while.
//! * [`Reason::Gap`]: for as long, a message that must exist could not be had, repair included.
//!   A leader that dies in the middle of a message leaves everybody such a gap, so the node
//!   probes.
//! * [`Reason::Silence`]: connected peers have stopped telling what they have, which they do 20
//!   times a second while a block is open. The path may be dead, or the peer, so the node
//!   probes.
//! * [`Reason::Quiet`]: the overlay has brought nothing for longer than any block takes. Peers on
//!   this side of a broken path tell one another the same, so nothing else would show it; and a
//!   chain that stands still looks the same, so the node probes, and soon gives up.
//! * [`Reason::GossipAhead`]: a message came by gossip and not by the overlay within
//!   [`HealthConfig::grace`]; while no peer is heard there is no grace. One is enough for a
//!   probe. A node that listens all the time, by its policy, no longer asks for what gossip has
//!   given it, and falls back after [`MISSES`] in a row.
//!
//! The way back is judged by what the overlay alone completed: [`Health::dwell`] blocks in a
//! row. The dwell doubles with each relapse, from 2 to 64 blocks (hysteresis).
//!
//! What is only meaningful in one phase is kept in that phase (`phase`) and gone with it; the
//! signs of life of the overlay (`signs`) are kept in all of them.

mod change;
mod phase;
mod record;
mod signs;
mod watch;

use std::time::Duration;

use crate::time::Timestamp;
use phase::{Phase, Suspicion};
use record::Record;
use signs::Signs;
use watch::Watch;

pub use change::{Change, Reason, State};
pub use watch::Missing;

/// Messages in a row that the overlay must have missed, where gossip is always on.
pub const MISSES: u32 = 3;
/// Probes for quiet in a row that find nothing before the chain is taken to stand still.
const QUIET_PROBES: u32 = 3;

/// Configuration of the state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthConfig {
    /// Probe after this long without a frame from any peer that should send tips.
    pub silence: Duration,
    /// A message that gossip had first must come by the overlay within this, unless no peer is
    /// heard.
    pub grace: Duration,
    /// Probe after the overlay has brought nothing for this long. More than a slot of Ethereum's.
    pub quiet: Duration,
    /// A message that peers have, or that must exist, must be here within this.
    pub patience: Duration,
    /// Fall back after this long without any peer.
    pub alone: Duration,
    /// The same before the first peer has connected: connecting takes its time.
    pub alone_at_start: Duration,
    /// How long a probe listens.
    pub probe: Duration,
    /// Pause after a probe that found nothing, at first and at most: it doubles.
    pub pause: (Duration, Duration),
    /// Blocks in a row that the overlay must complete alone for the way back, at first and at
    /// most.
    pub dwell: (u64, u64),
    /// A fallback within this many blocks of the last return is a relapse.
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

/// When this node may probe again. Outlives the phases.
#[derive(Debug, Clone, Copy)]
struct Probes {
    /// No probe before.
    after: Timestamp,
    /// Pause after the next probe that finds nothing.
    pause: Duration,
    /// Probes for quiet that found nothing, since the overlay brought a message last.
    in_vain: u32,
}

/// How hard the way back is. Outlives the phases.
#[derive(Debug, Clone, Copy)]
struct Hysteresis {
    /// Blocks in a row that the overlay must complete alone.
    dwell: u64,
    /// The block of the last return.
    returned_at: Option<u64>,
}

/// The state machine of one node.
#[derive(Debug, Clone)]
pub struct Health {
    config: HealthConfig,
    phase: Phase,
    /// When the phase began.
    since: Timestamp,
    signs: Signs,
    probes: Probes,
    hysteresis: Hysteresis,
    /// The newest block that was heard of, either way.
    newest: u64,
    changes: Vec<Change>,
}

impl Health {
    /// On the overlay. Its clock starts with the first [`connected`](Self::connected) or
    /// [`handle_timeout`](Self::handle_timeout).
    pub fn new(config: HealthConfig) -> Self {
        let now = Timestamp::default();
        Self {
            phase: Phase::Overlay { watch: Watch::default(), reason: None },
            since: now,
            signs: Signs::default(),
            probes: Probes { after: now, pause: config.pause.0, in_vain: 0 },
            hysteresis: Hysteresis { dwell: config.dwell.0, returned_at: None },
            newest: 0,
            changes: Vec::new(),
            config,
        }
    }

    /// The state.
    pub const fn state(&self) -> State {
        match self.phase {
            Phase::Overlay { .. } => State::Turbine,
            Phase::Probing { .. } => State::Probing,
            Phase::Gossip { .. } => State::Gossip,
        }
    }

    /// When it began.
    pub const fn since(&self) -> Timestamp {
        self.since
    }

    /// Why it began; `None` before the first change.
    pub const fn reason(&self) -> Option<Reason> {
        match self.phase {
            Phase::Overlay { reason, .. } => reason,
            Phase::Probing { suspicion, .. } => Some(suspicion.reason()),
            Phase::Gossip { reason, .. } => Some(reason),
        }
    }

    /// Blocks in a row that the overlay must complete for the way back.
    pub const fn dwell(&self) -> u64 {
        self.hysteresis.dwell
    }

    /// Blocks completed so far.
    pub const fn streak(&self) -> u64 {
        match &self.phase {
            Phase::Gossip { record, .. } => record.streak(),
            Phase::Overlay { .. } | Phase::Probing { .. } => 0,
        }
    }

    /// Changes since the last call, oldest first.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn start(&mut self, now: Timestamp) {
        if self.signs.start(now) {
            (self.since, self.probes.after) = (now, now);
        }
    }

    /// Takes the number of connected peers.
    pub fn connected(&mut self, now: Timestamp, peers: usize) {
        self.start(now);
        self.signs.connected(now, peers);
    }

    /// A peer sent something over the overlay.
    pub fn heard(&mut self, now: Timestamp) {
        self.signs.heard_at = now;
        if matches!(self.phase, Phase::Probing { suspicion: Suspicion::Silence, .. }) {
            self.probes.pause = self.config.pause.0;
            self.return_to_overlay(now, Reason::Heard);
        }
    }

    /// Whether peers should be telling what they have, because a block is under way.
    pub fn expect(&mut self, now: Timestamp, expecting: bool) {
        self.signs.expect(now, expecting);
    }

    /// Takes the messages that repair lacks.
    pub const fn missing(&mut self, missing: Missing) {
        if let Some(watch) = self.phase.watch() {
            watch.missing = missing;
        }
    }

    /// Message `index` of `block` came by gossip, and has not come by the overlay. With `of`, it
    /// was the Seal, and the block has that many messages.
    pub fn gossip(
        &mut self,
        now: Timestamp,
        (block, attempt, index): (u64, u8, u16),
        of: Option<u32>,
    ) {
        self.newest = self.newest.max(block);
        let until = now + self.config.grace;
        match &mut self.phase {
            Phase::Gossip { record, .. } => record.sealed((block, attempt), of, until),
            // While no peer is heard there is nothing to wait for: the probe has its answer.
            Phase::Probing { watch, suspicion: Suspicion::Silence, .. } => {
                watch.note((block, index), now);
            }
            Phase::Probing { watch, .. } | Phase::Overlay { watch, .. } => {
                watch.note((block, index), until);
            }
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
        if let Some(watch) = self.phase.watch() {
            watch.completed((block, index));
        }
        self.brought(now);
        let until = now + self.config.grace;
        if let Phase::Gossip { record, .. } = &mut self.phase
            && record.delivered((block, attempt), of, until)
        {
            self.judge(now, block, false);
        }
    }

    /// This node led `block` and has sent all of it. Nothing of it comes back, so the path is
    /// judged by whether peers are heard: otherwise a node that leads alone would never return.
    pub fn led(&mut self, now: Timestamp, block: u64) {
        self.newest = self.newest.max(block);
        let heard = self.signs.is_heard(now, self.config.silence);
        if let Phase::Gossip { record, .. } = &mut self.phase {
            record.count(heard);
            self.return_after(now, block);
        }
    }

    /// The overlay brought a message, or this node sent one over it.
    fn brought(&mut self, now: Timestamp) {
        (self.signs.brought_at, self.probes.in_vain) = (now, 0);
        match self.phase {
            Phase::Overlay { .. } => {
                (self.probes.pause, self.probes.after) = (self.config.pause.0, now);
            }
            Phase::Probing { suspicion: Suspicion::Quiet, .. } => {
                self.return_to_overlay(now, Reason::Heard);
            }
            Phase::Probing { .. } | Phase::Gossip { .. } => {}
        }
    }

    /// This node leads and has sent a message.
    pub fn sent(&mut self, now: Timestamp) {
        self.brought(now);
    }

    /// For how long the overlay has brought nothing.
    pub const fn quiet_for(&self, now: Timestamp) -> Duration {
        now.since(self.signs.brought_at)
    }

    /// The operator leaves the decision to health again: what was noted before does not count.
    pub fn resume(&mut self, now: Timestamp) {
        match &mut self.phase {
            Phase::Overlay { watch, .. } | Phase::Probing { watch, .. } => {
                *watch = Watch::default();
            }
            Phase::Gossip { record, .. } => *record = Record::default(),
        }
        self.signs.restart(now);
    }

    /// Returns if the overlay has completed enough blocks, `block` the last of them.
    fn return_after(&mut self, now: Timestamp, block: u64) {
        if self.streak() >= self.hysteresis.dwell {
            self.hysteresis.returned_at = Some(block);
            self.return_to_overlay(now, Reason::Recovered);
        }
    }

    /// Judges a block that the overlay has completed, or whose time is up.
    fn judge(&mut self, now: Timestamp, block: u64, late: bool) {
        if let Phase::Gossip { record, .. } = &mut self.phase
            && record.judge(block, late)
        {
            self.return_after(now, block);
        }
    }

    /// Makes the changes that are due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.start(now);
        let missed = match &mut self.phase {
            Phase::Overlay { watch, .. } => watch.expire(now) >= MISSES,
            Phase::Probing { watch, .. } => watch.expire(now) >= 1,
            Phase::Gossip { record, .. } => {
                for block in record.due(now) {
                    self.judge(now, block, true);
                }
                return;
            }
        };
        if self.signs.alone_at(&self.config).is_some_and(|at| at <= now) {
            self.fall_back(now, Reason::NoRelay);
        } else if missed {
            self.fall_back(now, Reason::GossipAhead);
        } else if let Phase::Probing { ref watch, suspicion, until } = self.phase {
            if suspicion.is_settled(&watch.missing) {
                self.return_to_overlay(now, Reason::Filled);
            } else if until <= now {
                self.end_empty(now, suspicion);
            }
        } else {
            let mut all = Suspicion::ALL.iter().copied();
            let due = all.find(|one| self.suspect_at(*one).is_some_and(|at| at <= now));
            if let Some(suspicion) = due {
                self.probe(now, suspicion);
            }
        }
    }

    /// When something becomes a reason to probe, if nothing changes before.
    fn suspect_at(&self, suspicion: Suspicion) -> Option<Timestamp> {
        let Phase::Overlay { watch, .. } = &self.phase else { return None };
        let (signs, config) = (&self.signs, &self.config);
        // What was missing before the phase began is a matter of the phase before.
        let missing = |since: Option<Timestamp>| Some(since?.max(self.since) + config.patience);
        let at = match suspicion {
            Suspicion::Silence => signs.silent_at(config.silence),
            Suspicion::TipsAhead => missing(watch.missing.told),
            Suspicion::Gap => missing(watch.missing.certain),
            Suspicion::Quiet => {
                let waits = signs.has_peers() && self.probes.in_vain < QUIET_PROBES;
                let quiet = config.quiet * 2_u32.pow(self.probes.in_vain);
                waits.then(|| signs.brought_at.max(self.since) + quiet)
            }
        };
        Some(at?.max(self.probes.after))
    }

    fn probe(&mut self, now: Timestamp, suspicion: Suspicion) {
        let Some(watch) = self.phase.watch() else { return };
        let watch = Watch::of(watch.missing);
        let until = now + self.config.probe;
        self.enter(now, suspicion.reason(), Phase::Probing { watch, suspicion, until });
    }

    /// A probe has found nothing on gossip either.
    fn end_empty(&mut self, now: Timestamp, suspicion: Suspicion) {
        let probes = &mut self.probes;
        probes.after = now + probes.pause;
        probes.pause = (probes.pause * 2).min(self.config.pause.1);
        probes.in_vain += u32::from(suspicion == Suspicion::Quiet);
        self.return_to_overlay(now, Reason::ProbeEmpty);
    }

    fn fall_back(&mut self, now: Timestamp, reason: Reason) {
        let (first, most) = self.config.dwell;
        let Hysteresis { dwell, returned_at } = &mut self.hysteresis;
        let relapse =
            returned_at.is_some_and(|at| self.newest.saturating_sub(at) <= self.config.relapse);
        *dwell = if relapse { (*dwell * 2).min(most) } else { first };
        self.enter(now, reason, Phase::Gossip { record: Record::default(), reason });
    }

    fn return_to_overlay(&mut self, now: Timestamp, reason: Reason) {
        let phase = Phase::Overlay { watch: Watch::default(), reason: Some(reason) };
        self.enter(now, reason, phase);
        self.signs.forgive(now);
    }

    /// The operator puts the node into a state. Nobody can order a probe: that does nothing.
    pub fn order(&mut self, now: Timestamp, state: State) {
        let reason = Reason::Operator;
        match state {
            _ if state == self.state() => {}
            State::Turbine => self.return_to_overlay(now, reason),
            State::Gossip => {
                self.enter(now, reason, Phase::Gossip { record: Record::default(), reason });
            }
            State::Probing => {}
        }
    }

    fn enter(&mut self, now: Timestamp, reason: Reason, phase: Phase) {
        let from = self.state();
        (self.phase, self.since) = (phase, now);
        self.changes.push(Change {
            at: now,
            from,
            to: self.state(),
            reason,
            block: self.newest,
            dwell: self.hysteresis.dwell,
        });
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        if !self.signs.has_started() {
            return Some(Timestamp::default());
        }
        let alone = self.signs.alone_at(&self.config);
        match &self.phase {
            Phase::Gossip { record, .. } => record.next_timeout(),
            Phase::Probing { watch, until, .. } => {
                [alone, watch.next_timeout(), Some(*until)].into_iter().flatten().min()
            }
            Phase::Overlay { watch, .. } => {
                let suspicions = Suspicion::ALL.iter().filter_map(|one| self.suspect_at(*one));
                suspicions.chain(alone).chain(watch.next_timeout()).min()
            }
        }
    }

    /// Whether a decision is pending: a driver in virtual time must not stop before it.
    pub fn is_pending(&self) -> bool {
        match &self.phase {
            Phase::Overlay { watch, .. } => watch.next_timeout().is_some(),
            Phase::Probing { .. } => true,
            Phase::Gossip { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests;
