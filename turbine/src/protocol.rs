//! The protocol of one node, pure: no socket, clock, thread or randomness of its own.
//!
//! # Contract
//! * `handle_*` takes what happened, with the time; [`broadcast`](Protocol::broadcast) takes a
//!   leader's message, [`set_mode`](Protocol::set_mode) and [`set_policy`](Protocol::set_policy)
//!   what the operator decides.
//! * Peers are named by [`PeerKey`] on both sides. A driver finds the key of whom it has
//!   authenticated in [`epochs`](Protocol::epochs); a key that is nobody's is refused.
//! * Time never runs backwards. No call blocks, and none panics on what a peer sent.
//!
//! After every call, drain in this order:
//!
//! 1. [`poll_event`](Protocol::poll_event) until `None`. What follows from events comes before
//!    what is sent: a peer that is barred, or left, gets nothing more. Events wait for the driver
//!    however many there are, since messages are among them: about one for each message and for
//!    each peer that changes its state. A driver that cannot hand one on must not make the next
//!    call before it can.
//! 2. If [`epochs`](Protocol::epochs) is another pointer than before, publish it.
//! 3. [`poll_transmit`](Protocol::poll_transmit) until `None`, or until other work is due: what
//!    stays waits in lanes of [`Config::lane_capacity`] bytes each, and a full lane drops and
//!    counts what comes next ([`egress`](Protocol::egress)). A leader's own message is never
//!    dropped in part: [`broadcast`](Protocol::broadcast) refuses it as
//!    [`Busy`](BroadcastError::Busy) while a lane is full.
//! 4. [`poll_gossip`](Protocol::poll_gossip) until `None`, or as far as the gossip driver has
//!    room: messages wait in [`GossipConfig::memory`] bytes, and what finds no room is dropped
//!    and counted as [`Counters::publish_dropped`]. A driver without gossip, with
//!    [`Policy::Off`], need not ask.
//! 5. [`poll_timeout`](Protocol::poll_timeout), last, since it depends on what was drained: when
//!    to call [`handle_timeout`](Protocol::handle_timeout) and to drain again, if nothing else
//!    happens before.
//!
//! # Guarantees
//! * Only validated shreds are forwarded, each at most once to each peer.
//! * A message comes out at most once per (block, attempt, index), verified.
//! * Who is asked and who is sent what is decided by the epoch of the block it is about; what is
//!   remembered of a peer survives a change of epoch.
//! * What peers measured is told to leaders only if the driver knows this node's
//!   [identity](Protocol::set_identity) and gives its own [samples](Protocol::handle_round_trips);
//!   so are receipts, and a leader judges them when it is given samples.
//! * Memory stays within [`Config::reassembly`], the validator's capacity, the lanes',
//!   [`RepairConfig::memory`] and [`GossipConfig::memory`], and the bounds that the parts name.
//!
//! # Inside
//! [`Protocol`] is the contract and no more; the work is done by parts that own their state:
//! the window of blocks, peers, epochs and their plans, delivery (shreds to messages), relaying,
//! leading, repair, the fallback, evidence. How they work together is written in one place.

mod again;
mod attaching;
mod catchup;
mod config;
mod connecting;
mod ctx;
mod delays;
mod delivery;
mod doubts;
mod epochs;
mod event;
mod evidence;
mod fallback;
mod handover;
mod leading;
mod missing_plans;
mod parts;
mod peers;
mod plans;
mod receipts;
mod records;
mod relaying;
mod repair;
mod seats;
mod setup;
mod spread;
mod substituting;
mod tables;
mod window;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::Address;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use fragcast_shredder::{EquivocationProof, MessageKey, VerifiedMessage};

use crate::delays::DelayMatrix;
use crate::delegation::{DelegationError, SignedDelegation};
use crate::egress::{Egress, Transmit};
use crate::epoch::{Epoch, EpochError, EpochsView};
use crate::gossip::{GossipAction, Listener, Mode, Policy};
use crate::health::Health;
use crate::membership::Membership;
use crate::outcome::Outcomes;
use crate::peer::{PeerId, PeerKey};
use crate::planner::{PlanDraft, PlanJob};
use crate::rotation::Support;
use crate::schedule::{Lead, Schedule, rotation_hash};
use crate::tables::Weights;
use crate::time::Timestamp;

pub use attaching::AttachState;
pub use catchup::CatchUpState;
pub use config::{CatchUpConfig, Config, GossipConfig, MembersConfig, RepairConfig, RoutePolicy};
pub use delays::DelaysState;
pub use event::{Counters, EpochChange, Event, Led, Race, TableNews};
pub use leading::BroadcastError;
pub use receipts::{HopLatency, LEADER_BPS, LatencySpread, ReceiptsState, RegionLatency};
pub use records::OwnRecord;
pub use setup::{Setup, SetupError};
pub use spread::Spread;
pub use tables::{MembersState, Probe};
pub use window::{WINDOW_FUTURE, WINDOW_PAST};

use epochs::Epochs;
use parts::Parts;

/// The protocol of one node.
pub struct Protocol {
    parts: Parts,
}

impl std::fmt::Debug for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Protocol")
            .field("me", &self.me())
            .field("window", &self.window())
            .finish_non_exhaustive()
    }
}

impl Protocol {
    /// The protocol of member `me` of a network with one epoch, which leads with `leader` where
    /// a delegation says so. [`Setup`] makes many of them, and knows of several epochs.
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

    fn start(config: Config, epochs: Epochs, me: PeerKey, leader: Option<SigningKey>) -> Self {
        Self { parts: Parts::new(config, epochs, me, leader) }
    }

    fn at(&mut self, now: Timestamp) -> &mut Parts {
        self.parts.ctx.now = now;
        &mut self.parts
    }

    /// Takes connections as established for long: nothing is sent on them, and both sides are
    /// assumed to know what a greeting would tell. For drivers that start in the middle, such as a
    /// simulation of a running network.
    pub fn assume_connected<K: Into<PeerKey>>(&mut self, peers: impl IntoIterator<Item = K>) {
        peers.into_iter().for_each(|peer| self.parts.ctx.peers.assume_connected(peer.into()));
    }

    /// A peer has called and proved its id: its key, under which
    /// [`handle_connected`](Self::handle_connected) follows. Who is in no table becomes a *guest*, if
    /// there is room ([`Config::guests`]), and is forgotten when it is disconnected: its key is
    /// nobody's then. [`epochs`](Self::epochs) changes with both.
    pub fn handle_guest(&mut self, now: Timestamp, peer: PeerId) -> Option<PeerKey> {
        self.at(now).guest(peer)
    }

    /// A member that this node, a guest, has called has no place for it, or no more: it is left alone
    /// for a while, and [`wanted_connections`](Self::wanted_connections) has another.
    pub fn handle_refused(&mut self, now: Timestamp, peer: PeerKey) {
        let Parts { ctx, attaching, .. } = self.at(now);
        attaching.refused(ctx, peer);
    }

    /// This node calls a peer, be it in a table or not: its key. Who is in none becomes a *contact*:
    /// it can be asked as a member can, has no weight, and is known until
    /// [`forget_contact`](Self::forget_contact) or until a table names it. `None` beyond
    /// [`MAX_CONTACTS`](crate::peer::MAX_CONTACTS).
    pub fn handle_contact(&mut self, now: Timestamp, peer: PeerId) -> Option<PeerKey> {
        self.at(now).contact(peer)
    }

    /// This node calls a contact no more. Gives the key that is nobody's from now on: its connections
    /// are to be closed.
    pub fn forget_contact(&mut self, now: Timestamp, peer: &PeerId) -> Option<PeerKey> {
        self.at(now).forget_contact(peer)
    }

    /// Whether this node is a guest of others: no living epoch names it.
    pub const fn is_guest(&self) -> bool {
        self.parts.ctx.is_guest
    }

    /// From whom this node takes messages; `None` if it is a member.
    pub fn attached(&self) -> Option<AttachState> {
        self.parts.attaching.state(&self.parts.ctx)
    }

    /// Guests that take all sets from this node.
    pub const fn guests_served(&self) -> usize {
        self.parts.ctx.seats.full()
    }

    /// How the newest message spreads; `None` before there is one, or while its plan is not known.
    pub fn spread(&self) -> Option<Spread> {
        self.parts.newest.spread(&self.parts.ctx)
    }

    /// How many guests are let in.
    pub const fn guest_places(&self) -> usize {
        self.parts.ctx.config.guests
    }

    /// Whether a peer is a guest.
    pub fn has_guest(&self, peer: PeerKey) -> bool {
        self.parts.ctx.peers.is_guest(peer)
    }

    /// Whether a peer is a contact.
    pub fn has_contact(&self, peer: PeerKey) -> bool {
        self.parts.ctx.peers.class(peer) == peers::Class::Contact
    }

    /// How many guests there are.
    pub const fn guests(&self) -> usize {
        self.parts.ctx.peers.guests()
    }

    /// A connection to `peer` is up; frames to it can be sent.
    pub fn handle_connected(&mut self, peer: PeerKey) {
        self.parts.connected(peer);
    }

    /// The connection to `peer` is gone.
    pub fn handle_disconnected(&mut self, peer: PeerKey) {
        self.parts.disconnected(peer);
    }

    /// Takes a burst of datagrams. Bursts are worth collecting: the shards of one are hashed
    /// side by side.
    pub fn handle_datagrams(
        &mut self,
        now: Timestamp,
        burst: impl IntoIterator<Item = (PeerKey, Bytes)>,
    ) {
        self.at(now).datagrams(burst);
    }

    /// Takes a control frame.
    pub fn handle_control(&mut self, now: Timestamp, from: PeerKey, frame: &[u8]) {
        self.at(now).control(from, frame);
    }

    /// The key behind this node's peer id, with which it signs the round trips that it measured, and
    /// from which follows what its receipts tell of.
    pub fn set_identity(&mut self, identity: SigningKey) {
        self.parts.receipts.set_identity(&identity);
        self.parts.records.set_identity(identity.clone());
        self.parts.delays.set_identity(identity);
    }

    /// What this node says of itself from now on, in a record that it signs with its
    /// [identity](Self::set_identity) and renews. Without it others know it by its table alone.
    pub fn set_own_record(&mut self, now: Timestamp, own: OwnRecord) {
        self.at(now).records.set_own(own);
    }

    /// The weights of members that count from now on, as a source outside of the protocol tells them,
    /// and the block at which they were read (0: at none). Without any those of the table count.
    pub fn set_weights(&mut self, now: Timestamp, weights: Arc<Weights>, block: u64) {
        let tables = &mut self.at(now).tables;
        (tables.weights, tables.weights_block) = (Some(weights), block);
        tables.forgive();
    }

    /// A call of this node's to `address` was answered by the key of `peer`: what its record says of
    /// that address counts.
    pub fn handle_reached(&mut self, now: Timestamp, peer: &PeerId, address: SocketAddr) {
        let parts = self.at(now);
        parts.records.pool.reached(peer, address);
        // Before its term is over.
        parts.tables.look_at = now;
    }

    /// The next newcomer that is to be called back, eight a second at most; to be asked after
    /// [`handle_timeout`](Self::handle_timeout). Whether it answers is told by
    /// [`handle_reached`](Self::handle_reached); that it does not, by nothing.
    pub fn poll_probe(&mut self) -> Option<Probe> {
        self.parts.tables.probes.pop_front()
    }

    /// What this node knows of members who come and go.
    pub fn members(&self) -> MembersState {
        self.parts.members_state()
    }

    /// Takes round trips as the transport measured them just now, of connected peers. To be called
    /// about once a second, also with none: it is then that leaders are told what has changed.
    pub fn handle_round_trips(
        &mut self,
        now: Timestamp,
        samples: impl IntoIterator<Item = (PeerKey, Duration)>,
    ) {
        let parts = self.at(now);
        let Parts { ctx, delays, leading, attaching, .. } = parts;
        delays.samples(ctx, leading.is_some(), samples);
        attaching.step(ctx);
        parts.judge();
    }

    /// Takes a message that came by gossip and passed the [gate](crate::gossip::Gate).
    ///
    /// One that is not `forwarded`, because its signature came with another v, is used like any
    /// other, and never published: in canonical form it would be a second message to based-op's
    /// nodes, which throws their unsealed block away.
    pub fn handle_gossip(&mut self, now: Timestamp, message: VerifiedMessage, forwarded: bool) {
        self.at(now).gossip(message, forwarded);
    }

    /// A peer on gossip has subscribed to our topics, or is gone.
    pub fn handle_listener(&mut self, now: Timestamp, listener: Listener, present: bool) {
        let parts = self.at(now);
        parts.fallback.listener(&mut parts.ctx, listener, present);
    }

    /// The chain's head is `block`, says the operator: the window moves there, and for ten seconds
    /// peers that tell otherwise move it nowhere else.
    pub fn handle_head(&mut self, now: Timestamp, block: u64) {
        self.at(now).head(block);
    }

    /// The application has verified and executed `block`, which was built at `built_at` by the
    /// chain's own clock: [`Timestamp::default`] if that is not known. To be called at the start
    /// with the stored head, and whenever it has changed, also back.
    ///
    /// It says what can exist: a block further ahead than time allows is believed to nobody. And
    /// this node asks its peers for the blocks between it and what is live.
    pub fn handle_verified(&mut self, now: Timestamp, block: u64, built_at: Timestamp) {
        self.at(now).verified(block, built_at);
    }

    /// The application has dealt with everything that it was handed, and has nothing to do; or it
    /// has not. To be called a few times a second by an application that executes blocks one after
    /// another, and tells its head ([`handle_verified`](Self::handle_verified)).
    ///
    /// From then on the application takes nothing of blocks further than
    /// [`CatchUpConfig::ahead`] above its head. Those blocks, and what it has lost while it stands at
    /// its head, it is handed by [`Event::Again`].
    pub fn handle_idle(&mut self, now: Timestamp, idle: bool) {
        self.at(now).idle(idle);
    }

    /// Another epoch holds from its first block on. It may come before that block or after:
    /// until it is here, what its leaders sign is not taken, and nobody is held to account for
    /// it; then repair brings what was missed. The living epochs stay until the window has
    /// passed their blocks, or eight blocks where only the table changes, for [`Config::reanchor`], and all that is known of peers stays with
    /// them. [`Event::Epoch`] tells who joined, and later who left.
    ///
    /// # Errors
    /// [`EpochError`]; nothing has changed then.
    pub fn handle_epoch(&mut self, now: Timestamp, epoch: Epoch) -> Result<(), EpochError> {
        self.at(now).epoch(epoch, false)
    }

    /// The same, in place of the epochs that have not begun here: of whose blocks none is open and
    /// no message was taken. Of a node that knows no block that is the newest epoch alone. So a
    /// change that was announced can be moved, or taken back.
    ///
    /// # Errors
    /// [`EpochError`]; nothing has changed then.
    pub fn handle_epoch_instead(&mut self, now: Timestamp, epoch: Epoch) -> Result<(), EpochError> {
        self.at(now).epoch(epoch, true)
    }

    /// The application has learnt a delegation, from its gateway or a file: it is checked, and told to
    /// all peers. It should begin with a block that is not open yet.
    ///
    /// # Errors
    /// [`DelegationError`]; of a gateway that is not registered it is kept for when it is, and that is
    /// `NotAGateway`.
    pub fn handle_delegation(
        &mut self,
        now: Timestamp,
        signed: SignedDelegation,
    ) -> Result<(), DelegationError> {
        self.at(now).learn_delegation(None, signed)
    }

    /// Where the chain stands here, and from which block on the connected peers go by these
    /// gateways, as [`Rotation`](crate::rotation::Rotation) asks for it.
    pub fn support(&self, gateways: &[Address]) -> Support {
        self.parts.support(rotation_hash(gateways))
    }

    /// Time has come for something that [`poll_timeout`](Self::poll_timeout) announced.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.at(now).timeout();
    }

    /// Takes the delays between the members of the newest epoch as measured. For drivers that know
    /// them, such as a simulation that shows what measuring costs.
    #[doc(hidden)]
    pub fn assume_delays(&mut self, delays: Arc<DelayMatrix>) {
        let Parts { leading, ctx, .. } = &mut self.parts;
        if let Some(leading) = leading {
            leading.assume_delays(ctx, delays);
        }
    }

    /// Planning that is due, if this node leads at times and delays have changed. Planning for a
    /// thousand members takes a tenth of a second, so it is done outside of the protocol:
    /// [`PlanJob::run`] on a thread of its own, and [`planned`](Self::planned) with what it gives.
    /// No other job is given before.
    pub fn planning_job(&mut self, now: Timestamp) -> Option<PlanJob> {
        let Parts { leading, ctx, delays, .. } = self.at(now);
        leading.as_mut()?.planning_job(ctx, delays)
    }

    /// Planning has ended: `draft` is its result. The new plan is told to all peers, and this node
    /// leads with it from its next block on, once nine tenths of the relays' weight acknowledged it.
    pub fn planned(&mut self, now: Timestamp, draft: Option<PlanDraft>) {
        let Parts { leading, ctx, .. } = self.at(now);
        if let Some(leading) = leading {
            leading.planned(ctx, draft);
        }
    }

    /// Sends a message of this node's own to everybody.
    ///
    /// The application numbers attempts and indices, and never gives one key to two messages:
    /// that would be equivocation. The attempts of a block that are its gateway's own are those of
    /// [`lead`](Self::lead).
    ///
    /// # Errors
    /// [`BroadcastError`]; nothing is sent then.
    pub fn broadcast(
        &mut self,
        now: Timestamp,
        key: MessageKey,
        message: &VerifiedMessage,
    ) -> Result<(), BroadcastError> {
        self.at(now).broadcast(key, message)
    }

    /// Takes proof that a leader signed two contradictory things, from elsewhere than a peer; checks it
    /// and tells all peers. Says whether it is true, of a leader of its block, and new here.
    pub fn handle_proof(&mut self, now: Timestamp, proof: EquivocationProof) -> bool {
        if proof.chain_id != self.parts.ctx.config.chain_id || proof.verify().is_err() {
            return false;
        }
        let parts = self.at(now);
        parts.evidence.report(&mut parts.ctx, proof)
    }

    /// For experiments: from now on the uplink carries so few bits a second, and lanes hold what it
    /// carries in half a second; `None`: both as configured.
    pub fn choke(&mut self, bits_per_second: Option<u64>) {
        let config = &self.parts.ctx.config;
        let (capacity, rate) = match bits_per_second {
            None => (config.lane_capacity, config.uplink_bps),
            Some(rate) => (usize::try_from(rate / 16).unwrap_or(usize::MAX), rate),
        };
        self.parts.ctx.egress.set_rate(capacity.min(config.lane_capacity), rate);
    }

    /// The operator says which way messages travel.
    pub fn set_mode(&mut self, now: Timestamp, mode: Mode) {
        let parts = self.at(now);
        parts.fallback.set_mode(&mut parts.ctx, mode);
        if mode == Mode::Gossip {
            parts.repair.rest();
        }
        parts.fallback.settle(&mut parts.ctx);
        parts.catch_up();
    }

    /// The operator says how much this node has to do with gossip. To and from
    /// [`Policy::Off`] it cannot be changed, since the driver must be started for it.
    pub fn set_policy(&mut self, now: Timestamp, policy: Policy) {
        let parts = self.at(now);
        parts.fallback.set_policy(&mut parts.ctx, policy);
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.parts.ctx.events.pop_front()
    }

    /// The next thing to send, if pacing allows one now.
    pub fn poll_transmit(&mut self, now: Timestamp) -> Option<Transmit> {
        self.parts.ctx.egress.pop(now)
    }

    /// The next action for the gossip driver.
    pub fn poll_gossip(&mut self) -> Option<GossipAction> {
        self.parts.fallback.poll()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and poll again.
    pub fn poll_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        self.parts.next_timeout(now)
    }

    /// Whether this node has something to send or to check, or asks, or will ask, for missing
    /// shreds. Sending tips does not count: a simulation may treat a timer of a node that is not
    /// busy as housekeeping. A node whose tail was lost is not busy before tips tell it, so a
    /// simulation that ends when no node is busy must let tips go around once
    /// ([`RepairConfig::tips_every`]) if a node is incomplete.
    pub fn busy(&self) -> bool {
        let Parts { ctx, delivery, repair, fallback, .. } = &self.parts;
        delivery.checks_due()
            || !ctx.egress.is_empty()
            || repair.is_pending()
            || self.parts.catch_up.is_pending()
            || fallback.is_pending(ctx)
    }

    /// The epochs that live and the peers they name, to be published: another pointer after each
    /// change, and only then.
    pub const fn epochs(&self) -> &Arc<EpochsView> {
        self.parts.ctx.epochs.view()
    }

    /// This node's own key.
    pub const fn me(&self) -> PeerKey {
        self.parts.ctx.me()
    }

    /// Whether this node's key and peer id lead `block` by the schedule.
    pub fn leads(&self, block: u64) -> bool {
        let leading = self.parts.leading.as_ref();
        leading.is_some_and(|leading| leading.leads(&self.parts.ctx, block))
    }

    /// By what right this node leads `block` for `gateway` at this moment: the numbers of the attempts
    /// that it may make. As a substitute only if no Env of a lower rank is here and has had its time,
    /// see [`Config::substitute_after`].
    ///
    /// # Errors
    /// [`BroadcastError::NotLeader`], [`BroadcastError::NotDue`], [`BroadcastError::Overtaken`].
    pub fn lead(
        &mut self,
        now: Timestamp,
        block: u64,
        gateway: &Address,
    ) -> Result<Lead, BroadcastError> {
        self.at(now).lead(block, gateway)
    }

    /// Whether the next leader is asked to acknowledge this node's messages of `block`, so that
    /// [`Event::Held`] will tell of each.
    pub fn awaits_acks(&self, block: u64) -> bool {
        self.parts.hand_over.awaits(block)
    }

    /// Whether a connection to `peer` is up.
    pub fn is_connected(&self, peer: PeerKey) -> bool {
        self.parts.ctx.peers.contains(peer) && self.parts.ctx.peers.is_connected(peer)
    }

    /// The peers that this node is to be connected to, those that matter most first, and no more
    /// than [`Config::connections`]; `None` if it is everybody. A guest is connected to few, and lets
    /// all others go. It changes with plans, terms and
    /// epochs: a driver looks once a second, calls those that are missing, and lets others go when
    /// it has no room.
    pub fn wanted_connections(&self) -> Option<Vec<PeerKey>> {
        match self.parts.ctx.is_guest {
            true => Some(self.parts.attaching.wanted(&self.parts.ctx)),
            false => connecting::wanted(&self.parts.ctx),
        }
    }

    /// The peers that are connected, by key.
    pub fn connected_peers(&self) -> impl Iterator<Item = PeerKey> + '_ {
        self.parts.ctx.peers.iter_connected()
    }

    /// Connected peers whose last greeting names another table than our newest: they have an
    /// epoch that we have not, or the reverse.
    pub fn peers_elsewhere(&self) -> usize {
        self.parts.ctx.peers.elsewhere()
    }

    /// The blocks that are taken, both ends included.
    pub fn window(&self) -> (u64, u64) {
        self.parts.ctx.window.bounds()
    }

    /// The blocks that gossip's gate is to let pass, for [`Gate::set_window`](crate::gossip::Gate).
    /// As for shreds: who has seen no progress for [`Config::reanchor`] may be elsewhere than the
    /// others, and what was sealed stays sealed.
    pub fn gossip_window(&self, now: Timestamp) -> (u64, u64) {
        self.parts.ctx.window.gate_bounds(now)
    }

    /// The round trips between the members of the epoch of `block`, as they told them this node,
    /// and a number that is another one when they have changed noticeably; `None` if it does not
    /// lead in that epoch, or knows nothing yet.
    pub fn delays_at(&self, block: u64) -> Option<(&Arc<DelayMatrix>, u64)> {
        let table = self.parts.ctx.epochs.at(block)?.epoch().members().hash();
        self.parts.delays.of(&table)
    }

    /// What of measured delays this node has.
    pub fn delays(&self) -> DelaysState {
        self.parts.delays.state(&self.parts.ctx)
    }

    /// What this node told of the shreds that came, and what members told it where it leads: which
    /// relays do not relay, and how long shreds take.
    pub fn receipts(&self) -> ReceiptsState {
        self.parts.receipts_state()
    }

    /// How far this node has caught up with what is live.
    pub fn catch_up(&self) -> CatchUpState {
        self.parts.catch_up.state()
    }

    /// Bytes of whole messages of recent blocks that are kept for peers that were away.
    pub const fn archive_bytes(&self) -> usize {
        self.parts.archive.bytes()
    }

    /// Outcomes of everything that came in.
    pub const fn outcomes(&self) -> &Outcomes {
        &self.parts.ctx.outcomes
    }

    /// Other numbers.
    pub const fn counters(&self) -> &Counters {
        &self.parts.ctx.counters
    }

    /// The lanes, for their numbers.
    pub const fn egress(&self) -> &Egress {
        &self.parts.ctx.egress
    }

    /// Bytes that the reassembler holds.
    pub const fn reassembly_bytes(&self) -> usize {
        self.parts.delivery.bytes()
    }

    /// Bytes of complete sets that are kept to answer requests.
    pub const fn repair_bytes(&self) -> usize {
        self.parts.repair.bytes()
    }

    /// Bytes of recent messages that are kept for listeners and for peers that ask.
    pub const fn recent_bytes(&self) -> usize {
        self.parts.fallback.recent().bytes()
    }

    /// Listeners that this node is connected to.
    pub fn listeners(&self) -> usize {
        self.parts.fallback.listeners()
    }

    /// How messages travel.
    pub const fn mode(&self) -> Mode {
        self.parts.ctx.mode
    }

    /// How much this node uses gossip.
    pub const fn policy(&self) -> Policy {
        self.parts.fallback.policy()
    }

    /// Whether this node is in the meshes of gossip.
    pub const fn is_listening(&self) -> bool {
        self.parts.fallback.is_listening()
    }

    /// The state machine behind the fallback.
    pub const fn health(&self) -> &Health {
        self.parts.fallback.health()
    }
}

#[cfg(test)]
mod tests;
