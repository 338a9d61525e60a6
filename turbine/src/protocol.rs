//! The protocol of one node, pure.
//!
//! # Contract
//! * `handle_*` takes what happened, with the time; `broadcast` takes a leader's message.
//! * After every call drain [`poll_transmit`](Protocol::poll_transmit) and
//!   [`poll_event`](Protocol::poll_event) until both give `None`.
//! * [`poll_timeout`](Protocol::poll_timeout) says when to call
//!   [`handle_timeout`](Protocol::handle_timeout) next if nothing else happens.
//! * Time never runs backwards. No call blocks, and none panics on what a peer sent.
//!
//! # Guarantees
//! * Only validated shreds are forwarded, each at most once to each peer.
//! * A message comes out at most once per (block, attempt, index), verified.
//! * Memory stays within [`Config::reassembly`], the validator's capacity, the lanes' and
//!   [`RepairConfig::memory`].
//!
//! The window of blocks follows the messages themselves, from 64 below the newest Seal to 7
//! above the newest Env, or what the application says by `handle_head`. A node that was away,
//! or was lied to by the first leader it heard, finds nothing but shreds outside its window:
//! after [`Config::reanchor`] without progress it drops the window and starts anew.

mod fallback;
mod ingress;
mod leading;
mod repair;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::Address;
use ed25519_dalek::SigningKey;
use fragcast_shredder::{
    Dialect, EquivocationProof, Kind, Limits, MessageKey, Reassembler, Shredder, Validator,
    VerifiedMessage,
};

use crate::control::{Control, Evidence, Hello};
use crate::delegation::{DelegationError, Delegations, Leader, SignedDelegation};
use crate::egress::{Egress, Lane, Payload, Transmit};
use crate::health::Change;
use crate::membership::{Membership, PeerIndex};
use crate::outcome::{Outcome, Outcomes};
use crate::output::Via;
use crate::peer::PeerId;
use crate::plan::{Plan, PlanView};
use crate::route::{DEFAULT_FANOUT, Route};
use crate::schedule::Schedule;
use crate::time::Timestamp;

pub use fallback::{GossipConfig, Race};
pub use leading::BroadcastError;
pub use repair::RepairConfig;

use fallback::Fallback;
use repair::Repair;

/// Blocks below the newest Seal that are still taken.
pub const WINDOW_PAST: u64 = 64;
/// Blocks above the newest Env that are taken already: what op-node keeps of the schedule.
pub const WINDOW_FUTURE: u64 = 7;
/// Plans that are known at a time, beside the configured ones.
const MAX_PLANS: usize = 16;
/// Equivocations that are kept, at 600 bytes each.
const MAX_EVIDENCE: usize = 1024;
/// Messages whose first arrival is remembered, 24 bytes each.
const MAX_ARRIVALS: usize = 65_536;
/// Bad signatures that a peer may send before its greeting, which may carry the delegation that
/// makes them good.
const MAX_EARLY: u8 = 64;
/// Re-encoding checks per timeout, about 100 µs each.
const CHECKS_AT_ONCE: usize = 8;

/// How a leader chooses the route of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutePolicy {
    /// Direct if the leader can send the message to everybody within
    /// [`Config::direct_within`], else over one relay a shred if no relay has more to do than
    /// [`Config::relay_within`], else turbine with the usual fanout.
    Auto,
    /// Always this one.
    Fixed(Route),
}

/// Configuration of the protocol.
#[derive(Debug, Clone)]
pub struct Config {
    /// Chain id.
    pub chain_id: u64,
    /// The chain's dialect.
    pub dialect: Dialect,
    /// How this node chooses routes when it leads.
    pub route: RoutePolicy,
    /// Time in which `Auto` lets the leader send directly.
    pub direct_within: Duration,
    /// Time in which the busiest relay may serve everybody for `Auto` to use one relay a shred:
    /// about what another hop over the world costs.
    pub relay_within: Duration,
    /// Loss per hop that the code rate is made for.
    pub loss: f64,
    /// Coding shreds for each data shred at least, on routes with relays. `netsim sweep
    /// code-rate` shows why more than the loss asks for: a node waits for the fastest k of k + m
    /// shreds only.
    pub relayed_coding: f64,
    /// What this node sends at most, bits per second.
    pub uplink_bps: u64,
    /// Burst of the pacing; longer than the resolution of the driver's timer, or the rate
    /// is never reached.
    pub burst: Duration,
    /// Bytes a lane may hold.
    pub lane_capacity: usize,
    /// Bounds of the reassembler.
    pub reassembly: Limits,
    /// Sets the validator remembers.
    pub validator_capacity: usize,
    /// Without progress for this long, while shreds outside the window arrive, start anew.
    pub reanchor: Duration,
    /// Repair.
    pub repair: RepairConfig,
    /// Gossip.
    pub gossip: GossipConfig,
}

impl Config {
    /// Defaults for a chain.
    pub fn new(chain_id: u64) -> Self {
        Self {
            chain_id,
            dialect: Dialect::default(),
            route: RoutePolicy::Auto,
            direct_within: Duration::from_millis(2),
            relay_within: Duration::from_millis(60),
            loss: 0.02,
            relayed_coding: 1.5,
            uplink_bps: 1_000_000_000,
            burst: Duration::from_millis(2),
            lane_capacity: 16 * 1024 * 1024,
            reassembly: Limits::default(),
            validator_capacity: Validator::DEFAULT_CAPACITY,
            reanchor: Duration::from_secs(5),
            repair: RepairConfig::default(),
            gossip: GossipConfig::default(),
        }
    }

    /// The route that `Auto` falls back to.
    pub const TREE: Route = Route::Turbine { fanout: DEFAULT_FANOUT };
}

/// A verified message, as it comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Block, attempt and index.
    pub key: MessageKey,
    /// The message.
    pub message: VerifiedMessage,
    /// When the leader sent it, µs by the leader's clock.
    pub sent_at_micros: u64,
    /// When its first shred arrived.
    pub first_shred_at: Timestamp,
    /// When it was whole and verified.
    pub complete_at: Timestamp,
    /// The peer whose shred completed it; `None` for what came by gossip.
    pub from: Option<PeerIndex>,
    /// Which way it came. Of what came by gossip, `key.attempt` is a guess: gossip's frags name
    /// no Env.
    pub via: Via,
}

/// What the application learns.
#[derive(Debug, Clone)]
pub enum Event {
    /// A message is whole and its gateway's signature verified.
    Message(Box<Delivered>),
    /// A message that was delivered is void: its leader's parity is inconsistent, and other
    /// nodes may not have been able to recover it.
    BadParity(MessageKey),
    /// A message was whole but is not what its shreds or the schedule say. The leader's fault.
    BadMessage {
        /// Which.
        key: MessageKey,
        /// Why, for the log.
        reason: String,
    },
    /// A gateway equivocated; the evidence convinces anybody.
    Equivocation {
        /// Who.
        gateway: Address,
        /// The evidence.
        evidence: Box<Evidence>,
    },
    /// The peer sent what only a broken or lying peer sends: close the connection.
    Bar {
        /// Who.
        peer: PeerIndex,
        /// What.
        outcome: Outcome,
    },
    /// This node counts on another way from now on.
    Health(Change),
    /// A message came both ways.
    Race(Race),
    /// A peer's first frame says that it lives in another network.
    Mismatch {
        /// Who.
        peer: PeerIndex,
        /// In what we differ.
        what: &'static str,
    },
}

/// Numbers beside the outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Shreds this node sent on as a relay.
    pub forwarded: u64,
    /// Shreds it made itself out of a recovered set, because it owed them.
    pub owed: u64,
    /// Shreds of its own that it sent as a leader.
    pub originated: u64,
    /// Validated shreds that it could not relay because it does not know the plan or route.
    pub unknown_plan: u64,
    /// Shreds sent to the children of a peer that is not connected.
    pub stepped_over: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Sets that were complete only after recovery.
    pub recovered: u64,
    /// Of the delivered messages, those of which shreds came by repair.
    pub repaired: u64,
    /// Frames of tips that it sent.
    pub tips: u64,
    /// Sets, or whole messages, that it asked a peer for.
    pub repair_requested: u64,
    /// Shreds that it got by asking and that were new.
    pub repair_useful: u64,
    /// Messages for which it stopped to ask, because nobody answered.
    pub repair_given_up: u64,
    /// Shreds with which it answered requests.
    pub repair_answered_shreds: u64,
    /// And their bytes.
    pub repair_answered_bytes: u64,
    /// Messages without shreds with which it answered, to their end.
    pub repair_answered_messages: u64,
    /// Messages without shreds that it got as answers.
    pub repair_messages: u64,
    /// Messages that came by gossip, new to it.
    pub gossip: u64,
    /// Of those, messages that gossip had first.
    pub gossip_first: u64,
    /// Messages that were handed to gossip, as their leader or for listeners.
    pub published: u64,
    /// Messages for gossip that were dropped because its driver did not take them.
    pub publish_dropped: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct PeerState {
    connected: bool,
    greeted: bool,
    barred: bool,
    /// Bad signatures before a greeting, over all its connections.
    early: u8,
}

/// The protocol of one node.
pub struct Protocol {
    config: Config,
    me: PeerIndex,
    members: Arc<Membership>,
    schedule: Schedule,
    delegations: Delegations,
    peers: Vec<PeerState>,
    plans: BTreeMap<u64, Arc<PlanView>>,
    /// Ids of the plans that leaders sent, oldest first.
    learnt_plans: VecDeque<u64>,
    shredder: Option<Shredder>,
    /// What this node leads with, and the id of its plan.
    leading: Option<(Arc<PlanView>, Control)>,
    validator: Validator,
    reassembler: Reassembler,
    /// When the first shred of a message arrived.
    arrivals: BTreeMap<MessageKey, Timestamp>,
    egress: Egress,
    events: VecDeque<Event>,
    outcomes: Outcomes,
    counters: Counters,
    evidence: BTreeSet<([u8; 32], MessageKey)>,
    opened: Option<u64>,
    sealed: Option<u64>,
    progress_at: Timestamp,
    checks_due: bool,
    repair: Repair,
    fallback: Fallback,
}

impl std::fmt::Debug for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Protocol")
            .field("me", &self.me)
            .field("opened", &self.opened)
            .field("sealed", &self.sealed)
            .finish_non_exhaustive()
    }
}

/// Why a protocol cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// This node is not in the table.
    #[error("{0} is not in the membership table: add its record to the network file")]
    NotAMember(PeerId),
    /// A configured delegation is not valid.
    #[error("a configured delegation is not valid: {0}")]
    Delegation(#[from] DelegationError),
}

/// What all nodes of a network start with: checked once, shared by as many protocols as a
/// driver runs. A simulation of thousands of nodes would otherwise verify the same delegations
/// and hold the same plans thousands of times.
#[derive(Debug, Clone)]
pub struct Setup {
    config: Config,
    members: Arc<Membership>,
    schedule: Schedule,
    delegations: Delegations,
    plans: BTreeMap<u64, Arc<PlanView>>,
}

impl Setup {
    /// Checks the delegations and makes the configured plan of every key they name.
    ///
    /// # Errors
    /// [`SetupError::Delegation`].
    pub fn new(
        config: Config,
        members: Arc<Membership>,
        schedule: Schedule,
        delegations: impl IntoIterator<Item = SignedDelegation>,
    ) -> Result<Self, SetupError> {
        let mut known = Delegations::new(config.chain_id, schedule.gateways());
        for signed in delegations {
            match known.insert(signed) {
                Ok(_) | Err(DelegationError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let plans = known
            .iter()
            .map(|leader| {
                let key = leader.signed.delegation.key;
                let plan = Plan::configured(config.chain_id, key, &members);
                let view = PlanView::new(&plan, &members).expect("made of this table");
                (view.id(), Arc::new(view))
            })
            .collect();
        Ok(Self { config, members, schedule, delegations: known, plans })
    }

    /// The protocol of member `me`, which leads with `leader` where a delegation says so.
    ///
    /// # Errors
    /// [`SetupError::NotAMember`].
    pub fn node(&self, me: &PeerId, leader: Option<SigningKey>) -> Result<Protocol, SetupError> {
        let index = self.members.index(me).ok_or(SetupError::NotAMember(*me))?;
        let config = self.config.clone();
        let chain_id = config.chain_id;
        let leading = leader.as_ref().map(|key| {
            let plan = Plan::configured(chain_id, key.verifying_key().to_bytes(), &self.members);
            let view = match self.plans.get(&plan.id()) {
                Some(view) => Arc::clone(view),
                None => Arc::new(PlanView::new(&plan, &self.members).expect("made of this table")),
            };
            (view, Control::Plan(plan.sign(key)))
        });
        Ok(Protocol {
            me: index,
            peers: vec![PeerState::default(); self.members.len()],
            delegations: self.delegations.clone(),
            plans: self.plans.clone(),
            learnt_plans: VecDeque::new(),
            shredder: leader.map(|key| Shredder::new(chain_id, key)),
            leading,
            validator: Validator::new(chain_id, config.validator_capacity),
            reassembler: Reassembler::new(config.reassembly),
            arrivals: BTreeMap::new(),
            egress: Egress::new(config.lane_capacity, config.uplink_bps, config.burst),
            events: VecDeque::new(),
            outcomes: Outcomes::default(),
            counters: Counters::default(),
            evidence: BTreeSet::new(),
            opened: None,
            sealed: None,
            progress_at: Timestamp::default(),
            checks_due: false,
            repair: Repair::new(&config.repair),
            fallback: Fallback::new(config.gossip),
            config,
            members: Arc::clone(&self.members),
            schedule: self.schedule.clone(),
        })
    }
}

impl Protocol {
    /// The protocol of member `me`, which leads with `leader` where a delegation says so.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(
        config: Config,
        me: &PeerId,
        members: Arc<Membership>,
        schedule: Schedule,
        delegations: impl IntoIterator<Item = SignedDelegation>,
        leader: Option<SigningKey>,
    ) -> Result<Self, SetupError> {
        Setup::new(config, members, schedule, delegations)?.node(me, leader)
    }

    /// Connections that are up and have been for long: nothing is said on them, both sides are
    /// taken to know what a greeting would tell. For drivers that start in the middle, as a
    /// simulation of a running network does.
    pub fn assume_connected(&mut self, peers: impl IntoIterator<Item = PeerIndex>) {
        for peer in peers {
            if let Some(state) = self.peers.get_mut(peer as usize) {
                self.fallback.count_peer(state.connected, true);
                *state = PeerState { connected: true, greeted: true, ..PeerState::default() };
            }
        }
    }

    /// A connection to `peer` is up; frames to it can be sent.
    pub fn handle_connected(&mut self, peer: PeerIndex) {
        let Some(state) = self.peers.get_mut(peer as usize) else { return };
        self.fallback.count_peer(state.connected, true);
        // A second connection of the same peer changes nothing of what is known about it.
        *state = PeerState {
            connected: true,
            greeted: state.connected && state.greeted,
            barred: state.connected && state.barred,
            early: state.early,
        };
        let hello = Hello {
            version: fragcast_shredder::shred::VERSION,
            chain_id: self.config.chain_id,
            table: self.members.hash(),
        };
        let mut frames = vec![Control::Hello(hello)];
        frames.extend(self.delegations.iter().map(|l| Control::Delegation(l.signed)));
        frames.extend(self.leading.iter().map(|(_, plan)| plan.clone()));
        frames.extend(self.greet_with_tips());
        for frame in frames {
            self.send_control(peer, &frame);
        }
        self.greet_with_listeners(peer);
    }

    /// The connection to `peer` is gone.
    pub fn handle_disconnected(&mut self, peer: PeerIndex) {
        if let Some(state) = self.peers.get_mut(peer as usize) {
            self.fallback.count_peer(state.connected, false);
            state.connected = false;
            self.egress.forget(peer);
            self.repair.forget_peer(peer);
            self.forget_told(peer);
        }
    }

    /// The chain's head is `block`, says the application: the window moves there.
    pub fn handle_head(&mut self, now: Timestamp, block: u64) {
        self.opened = Some(block);
        self.sealed = Some(block);
        self.progress_at = now;
        self.repair.anchor(block.saturating_add(1));
        self.move_window();
    }

    /// Time has come for something that [`poll_timeout`](Self::poll_timeout) announced.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        for _ in 0..CHECKS_AT_ONCE {
            match self.reassembler.check_next() {
                None => {
                    self.checks_due = false;
                    break;
                }
                Some(Ok(set)) => {
                    if !set.repaired {
                        self.send_owed(now, &set);
                    }
                    self.keep(now, Box::new(set));
                }
                Some(Err(key)) => {
                    self.note_refused(&key);
                    self.outcomes.count(Outcome::BadParity);
                    self.events.push_back(Event::BadParity(key));
                }
            }
        }
        self.repair_timeout(now);
        self.fallback_timeout(now);
    }

    /// The next thing to send, if pacing allows one now.
    pub fn poll_transmit(&mut self, now: Timestamp) -> Option<Transmit> {
        self.egress.pop(now)
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and poll again.
    pub fn poll_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        let checks = self.checks_due.then_some(now);
        checks
            .into_iter()
            .chain(self.egress.next_at(now))
            .chain(self.repair.next_timeout())
            .chain(self.fallback.next_timeout())
            .min()
    }

    /// Whether this node has something to send or to check, or asks, or will ask, for what it
    /// lacks. Telling others what it has is no business: a simulation may take a timer of a
    /// node that is not busy for housekeeping. A node whose tail was lost is not busy before
    /// tips tell it so, so whoever ends a run when nobody is busy must let tips go around once
    /// ([`RepairConfig::tips_every`]) if somebody is incomplete.
    pub fn busy(&self) -> bool {
        self.checks_due
            || !self.egress.is_empty()
            || self.repair.is_pending()
            || self.fallback.is_pending()
    }

    fn send_control(&mut self, to: PeerIndex, control: &Control) {
        let payload = Payload::Control(control.to_bytes());
        self.egress.push(Transmit { to, lane: Lane::Bulk, payload });
    }

    fn send_control_to_all(&mut self, control: &Control, except: Option<PeerIndex>) {
        let bytes = control.to_bytes();
        for to in 0..self.peers.len() as PeerIndex {
            if self.peers[to as usize].connected && Some(to) != except {
                let payload = Payload::Control(bytes.clone());
                self.egress.push(Transmit { to, lane: Lane::Bulk, payload });
            }
        }
    }

    /// Who leads `block`, if a delegation says so.
    fn leader(&self, block: u64) -> Option<&Leader> {
        self.delegations.leader(&self.schedule.gateway(block), block)
    }

    /// The index of the peer that leads `block`.
    fn leader_index(&self, block: u64) -> Option<PeerIndex> {
        self.members.index(&self.leader(block)?.peer)
    }

    /// The peers of the next leaders after `block`, nearest first, without `block`'s own.
    pub fn next_leaders(&self, block: u64) -> impl Iterator<Item = PeerIndex> + '_ {
        let current = self.leader(block).map(|l| l.peer);
        self.schedule
            .next(block)
            .filter_map(|(gateway, first)| self.delegations.leader(&gateway, first))
            .filter(move |leader| Some(leader.peer) != current)
            .filter_map(|leader| self.members.index(&leader.peer))
    }

    fn advance(&mut self, now: Timestamp, key: &MessageKey, kind: Kind) {
        self.advance_window(now, key.block, kind);
        if kind == Kind::Env && key.attempt > 0 {
            self.supersede(key.block, key.attempt);
        }
    }

    /// What came by gossip moves the window and nothing else: its attempts are guesses.
    fn advance_window(&mut self, now: Timestamp, block: u64, kind: Kind) {
        self.progress_at = now;
        match kind {
            Kind::Env => self.opened = self.opened.max(Some(block)),
            Kind::Seal => self.sealed = self.sealed.max(Some(block)),
            Kind::Frag => {}
        }
        self.move_window();
    }

    fn supersede(&mut self, block: u64, attempt: u8) {
        self.reassembler.supersede(block, attempt);
        self.validator.supersede(block, attempt);
        self.repair.supersede(block, attempt);
    }

    /// The blocks that are taken, both ends included.
    pub fn window(&self) -> (u64, u64) {
        let Some(opened) = self.opened else { return (0, u64::MAX) };
        let low = self.sealed.unwrap_or(opened).min(opened).saturating_sub(WINDOW_PAST);
        (low, opened.saturating_add(WINDOW_FUTURE))
    }

    /// Drops the window: the next message says where the chain stands.
    fn forget_window(&mut self, now: Timestamp) {
        (self.opened, self.sealed) = (None, None);
        self.progress_at = now;
        self.repair.forget_anchor();
        self.move_window();
    }

    fn move_window(&mut self) {
        let (low, high) = self.window();
        self.reassembler.set_window(low, high);
        self.validator.forget_below(low);
        self.repair.set_window(low, high);
        self.fallback_window(low);
        self.arrivals = self.arrivals.split_off(&MessageKey { block: low, attempt: 0, message: 0 });
    }

    fn report(&mut self, proof: EquivocationProof, from: Option<PeerIndex>) {
        let delegation = self
            .delegations
            .iter()
            .find(|l| l.signed.delegation.key == proof.key)
            .map(|l| l.signed);
        if let Some(delegation) = delegation {
            self.take_evidence(Evidence { delegation, proof }, from);
        }
    }

    /// Keeps, reports and spreads evidence that was verified. Says whether it was new.
    fn take_evidence(&mut self, evidence: Evidence, from: Option<PeerIndex>) -> bool {
        let id = (evidence.proof.key, evidence.proof.first.header.message_key());
        if self.evidence.len() >= MAX_EVIDENCE || !self.evidence.insert(id) {
            return false;
        }
        let Ok(gateway) = evidence.delegation.gateway() else { return false };
        let evidence = Box::new(evidence);
        self.send_control_to_all(&Control::Evidence(evidence.clone()), from);
        self.events.push_back(Event::Equivocation { gateway, evidence });
        true
    }

    /// What became of all that came in.
    pub const fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// Other numbers.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The lanes, for their numbers.
    pub const fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Bytes that the reassembler holds.
    pub const fn reassembly_bytes(&self) -> usize {
        self.reassembler.bytes()
    }

    /// The members.
    pub const fn members(&self) -> &Arc<Membership> {
        &self.members
    }

    /// This node's own index.
    pub const fn me(&self) -> PeerIndex {
        self.me
    }

    /// The schedule.
    pub const fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Whether a connection to `peer` is up.
    pub fn is_connected(&self, peer: PeerIndex) -> bool {
        self.peers.get(peer as usize).is_some_and(|state| state.connected)
    }
}

#[cfg(test)]
mod tests;
