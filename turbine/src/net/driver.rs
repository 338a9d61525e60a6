//! The task that owns the protocol: takes what comes, and sends what the protocol wants sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use quinn::{Connection, VarInt};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::connections::{Change, Connections, Dropped, Received};
use super::dial::{Bars, CONTACT_ADDRESSES, Contacts, Dials};
use super::experiments::Losses;
use super::following::Following;
use super::guests::{Guests, NoGuest};
use super::handle::{Broadcast, Command};
use super::held::Held;
use super::inbox::{Inbound, Inbox};
use super::link::{DriverLink, GossipInput};
use super::listen::Call;
use super::probes::Probes;
use super::tally::Tally;
use super::transport::remote;
use super::{Clock, Snapshot};
use crate::egress::{Payload, Transmit};
use crate::epoch::EpochsView;
use crate::membership::canonical;
use crate::peer::{PeerId, PeerKey};
use crate::planner::PlanDraft;
use crate::protocol::{BroadcastError, EpochChange, Event, Protocol};

/// Datagrams taken at a time.
const BURST: usize = 256;
/// Changes of connections taken before what has come in has its turn: strangers can make many.
const CHANGES_IN_A_ROW: usize = 8;
/// Broadcasts waiting for room in the lanes.
pub(super) const PENDING_BROADCASTS: usize = 64;
/// Transmits between two reads of the input.
const TRANSMITS: usize = 1024;
/// Interval at which the snapshot is published.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(200);
/// Interval at which the protocol is told what the connections measured.
const ROUND_TRIPS_INTERVAL: Duration = Duration::from_secs(1);

/// The protocol, and what it is driven with.
pub(super) struct Driver {
    pub(super) protocol: Protocol,
    /// The protocol's epochs, for all tasks that must know them.
    pub(super) epochs: watch::Sender<Arc<EpochsView>>,
    pub(super) connections: Connections,
    pub(super) dials: Dials,
    pub(super) contacts: Contacts,
    /// The places of guests.
    pub(super) guests: Guests,
    pub(super) following: Following,
    /// Calls back to newcomers.
    pub(super) probes: Probes,
    pub(super) clock: Clock,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) link: DriverLink,
    /// Broadcasts that found the lanes full, in their order.
    pub(super) pending: VecDeque<Broadcast>,
    pub(super) snapshots: watch::Sender<Snapshot>,
    pub(super) bars: Arc<Bars>,
    /// How long a peer that misbehaved is barred.
    pub(super) bar: Duration,
    pub(super) calls: Arc<Tally<Call>>,
    /// When the numbers were published last.
    pub(super) published: Instant,
    /// When the protocol was told round trips last.
    pub(super) measured: Instant,
    pub(super) losses: Option<Losses>,
    /// Messages that the next leader has, and who waits for that.
    pub(super) held: Held,
}

impl Driver {
    /// Runs until the last handle is gone, or one says so.
    pub(super) async fn run(
        &mut self,
        inbox: Inbox,
        mut changes: mpsc::Receiver<Change>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let mut received = Vec::with_capacity(BURST);
        let mut publish = tokio::time::interval(SNAPSHOT_INTERVAL);
        publish.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut planning: Option<JoinHandle<Option<PlanDraft>>> = None;
        let mut changed = 0;
        loop {
            if self.drain().await.is_err() {
                return;
            }
            let now = self.clock.now();
            if planning.is_none() {
                // A tenth of a second of work for a thousand members: not on this thread.
                let job = self.protocol.planning_job(now);
                planning = job.map(|job| tokio::task::spawn_blocking(move || job.run()));
            }
            let timeout = self.protocol.poll_timeout(now).map(|at| self.clock.instant(at));
            let due = async {
                match timeout {
                    // A timer would round up to its next tick.
                    Some(at) if at <= self.clock.instant(now) => tokio::task::yield_now().await,
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let room = self.pending.len() < PENDING_BROADCASTS;
            tokio::select! {
                biased;
                Some(change) = changes.recv(), if changed < CHANGES_IN_A_ROW => {
                    changed += 1;
                    if self.change(change) {
                        self.publish();
                    }
                }
                () = inbox.recv_many(&mut received, BURST) => {
                    changed = 0;
                    self.receive(&mut received);
                    // A flood must not keep the rest waiting: some of each for every burst.
                    if self.pending.len() < PENDING_BROADCASTS {
                        match commands.try_recv() {
                            Ok(Command::Shutdown) | Err(TryRecvError::Disconnected) => return,
                            Ok(command) => self.command(command),
                            Err(TryRecvError::Empty) => {}
                        }
                    }
                    self.take_turn();
                }
                command = commands.recv(), if room => match command {
                    Some(Command::Shutdown) | None => return,
                    Some(command) => self.command(command),
                },
                () = self.link.ready() => self.take_turn(),
                () = due => self.protocol.handle_timeout(self.clock.now()),
                draft = result(&mut planning) => {
                    planning = None;
                    self.protocol.planned(self.clock.now(), draft);
                }
                _ = publish.tick() => {
                    self.measure();
                    self.publish();
                }
                // Nothing else waited.
                () = std::future::ready(()), if changed >= CHANGES_IN_A_ROW => changed = 0,
            }
        }
    }

    /// Drains the protocol's queues as far as pacing allows.
    async fn drain(&mut self) -> Result<(), ()> {
        loop {
            // First: what events tell of is looked up there.
            self.publish_epochs();
            while let Some(event) = self.protocol.poll_event() {
                match &event {
                    Event::Bar { peer, outcome } => {
                        // Its key goes with its connection: what stays out is its host.
                        if self.protocol.has_guest(*peer)
                            && let Some(id) = self.peer(*peer)
                        {
                            let now = self.clock.now();
                            self.guests.bar(now, (*peer, id), now + self.bar);
                        }
                        // Who is gone by now has no key that could be barred.
                        if self.peer(*peer).is_some() {
                            self.bars.bar(*peer, self.bar);
                        }
                        self.connections.close(*peer, outcome.label());
                    }
                    Event::Epoch(change) => self.change_members(change),
                    Event::Held(key) => self.held.note(*key),
                    _ => {}
                }
                self.events.send(event).await.map_err(|_| ())?;
            }
            while let Some(probe) = self.protocol.poll_probe() {
                self.probes.call(probe);
            }
            let now = self.clock.now();
            let mut sent = 0;
            while sent < TRANSMITS
                && let Some(transmit) = self.protocol.poll_transmit(now)
            {
                self.send(transmit);
                sent += 1;
            }
            if !self.retry_pending() {
                self.link.drain(self.clock.now(), &mut self.protocol);
                return Ok(());
            }
        }
    }

    fn publish_epochs(&self) {
        let epochs = self.protocol.epochs();
        self.epochs.send_if_modified(|published| {
            let is_new = !Arc::ptr_eq(published, epochs);
            if is_new {
                *published = Arc::clone(epochs);
            }
            is_new
        });
    }

    /// An epoch came or went: calls who joined, disconnects who left.
    fn change_members(&mut self, change: &EpochChange) {
        let EpochChange { began, ended, joined, stayed, left } = change;
        tracing::info!(began, ended, joined = joined.len(), left = left.len(), "epochs change");
        for (key, id) in joined {
            self.guests.give_back(*key);
            self.join(*key, *id);
        }
        for (key, id) in stayed {
            self.dials.stop(*key);
            let address = self.connections.address(*key);
            if address.is_some_and(|address| self.guests.take(*key, address)) {
                self.connections.join(*key, *id, true);
            } else {
                self.connections.close(*key, "no room");
            }
        }
        for (key, _) in left {
            self.dials.stop(*key);
            self.connections.leave(*key);
            self.bars.forget(*key);
        }
        self.follow();
        self.publish();
    }

    /// A member of a living epoch may be connected, and is called if it is to be, unless it is this
    /// node.
    pub(super) fn join(&mut self, key: PeerKey, id: PeerId) {
        if key != self.protocol.me() {
            let up = self.connections.join(key, id, false);
            if self.following.wants(key) && !self.dials.is_running(key) {
                self.dials.start(key, id, up);
            }
        }
    }

    /// Whom to be connected to may be others now.
    fn follow(&mut self) {
        self.following.follow(&self.protocol, &self.connections, &mut self.dials);
    }

    /// Gives everything its turn that a flood of one kind would keep waiting.
    fn take_turn(&mut self) {
        self.take_gossip();
        self.protocol.handle_timeout(self.clock.now());
        if self.published.elapsed() > SNAPSHOT_INTERVAL {
            self.measure();
            self.publish();
        }
    }

    /// Tells the protocol the round trips that the connections measured, once a second.
    fn measure(&mut self) {
        if self.measured.elapsed() >= ROUND_TRIPS_INTERVAL {
            self.measured = Instant::now();
            let samples: Vec<(PeerKey, Duration)> = self.connections.measured().collect();
            self.protocol.handle_round_trips(self.clock.now(), samples);
            self.follow();
        }
    }

    fn take_gossip(&mut self) {
        let now = self.clock.now();
        for input in self.link.take() {
            match input {
                GossipInput::Message { message, forwarded } => {
                    self.protocol.handle_gossip(now, *message, forwarded);
                }
                GossipInput::Listener(listener, present) => {
                    self.protocol.handle_listener(now, listener, present);
                }
            }
        }
    }

    fn send(&mut self, Transmit { to, payload, .. }: Transmit) {
        match payload {
            Payload::Shred(bytes) => {
                if self.losses.as_mut().is_some_and(Losses::hit) {
                    self.connections.count_drop(Dropped::Injected);
                } else {
                    self.connections.send_shred(to, bytes);
                }
            }
            Payload::Control(frame) => self.connections.send_control(to, frame),
        }
    }

    /// Tries the oldest waiting broadcast again; says whether it went.
    fn retry_pending(&mut self) -> bool {
        let Some(oldest) = self.pending.pop_front() else { return false };
        let now = self.clock.now();
        match self.protocol.broadcast(now, oldest.key, &oldest.message) {
            Err(BroadcastError::Busy) => {
                self.pending.push_front(oldest);
                false
            }
            result => {
                // Who asked may have given up.
                let _ = oldest.reply.send(result.map(|()| now));
                true
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            // Through the same queue as those that wait, so that order is kept.
            Command::Broadcast(broadcast) => self.pending.push_back(broadcast),
            Command::Lead(block, gateway, reply) => {
                let _ = reply.send(self.protocol.lead(self.clock.now(), block, &gateway));
            }
            Command::Leads(block, reply) => {
                let _ = reply.send(self.protocol.leads(block));
            }
            Command::Delegation(signed, reply) => {
                let taken = self.protocol.handle_delegation(self.clock.now(), *signed);
                self.publish_epochs();
                // Who asked may have given up.
                let _ = reply.send(taken);
            }
            Command::Held(key, reply) => {
                self.held.wait(key, self.protocol.awaits_acks(key.block), reply);
            }
            // The loop has ended by then.
            Command::Shutdown => {}
            Command::Epoch { epoch, instead, reply } => {
                let now = self.clock.now();
                let taken = match instead {
                    true => self.protocol.handle_epoch_instead(now, *epoch),
                    false => self.protocol.handle_epoch(now, *epoch),
                };
                self.publish_epochs();
                // Who asked may have given up.
                let _ = reply.send(taken);
            }
            Command::Support(gateways, reply) => {
                // Who asked may have given up.
                let _ = reply.send(self.protocol.support(&gateways));
            }
            Command::Weights(weights, block) => {
                self.protocol.set_weights(self.clock.now(), weights, block);
            }
            Command::Call(peer, addresses, reply) => {
                // Who asked may have given up.
                let _ = reply.send(self.call(peer, addresses));
            }
            Command::CallOff(peer) => self.call_off(&peer),
            Command::Head(block) => self.protocol.handle_head(self.clock.now(), block),
            Command::Verified(block, built_at) => {
                self.protocol.handle_verified(self.clock.now(), block, built_at);
            }
            Command::Idle(idle) => self.protocol.handle_idle(self.clock.now(), idle),
            Command::Proof(proof, reply) => {
                // Who asked may have gone.
                let _ = reply.send(self.protocol.handle_proof(self.clock.now(), *proof));
            }
            Command::Choke(bits_per_second) => self.protocol.choke(bits_per_second),
            Command::Mode(mode) => {
                tracing::info!(%mode, "the operator says which way messages travel");
                self.protocol.set_mode(self.clock.now(), mode);
                self.publish();
            }
            Command::Policy(policy) => {
                tracing::info!(%policy, "the operator says how much gossip there is");
                self.protocol.set_policy(self.clock.now(), policy);
                self.publish();
            }
        }
    }

    /// Takes news of a connection; says whether anything has changed.
    fn change(&mut self, change: Change) -> bool {
        match change {
            // Barred while this was on its way here.
            Change::Up { peer, connection, .. } if self.bars.is_barred(peer) => {
                connection.close(VarInt::from_u32(1), b"barred");
                false
            }
            Change::Reached(peer, address) => {
                self.protocol.handle_reached(self.clock.now(), &peer, address);
                true
            }
            Change::Up { peer, connection, outgoing } => {
                if let Some(id) = self.peer(peer).filter(|_| outgoing) {
                    let (now, address) = (self.clock.now(), remote(&connection));
                    self.protocol.handle_reached(now, &id, address);
                }
                let added = self.connections.add(peer, connection, outgoing);
                if added {
                    if let Some(unsaid) = self.connections.log(peer) {
                        tracing::info!(peer = ?self.peer(peer), outgoing, unsaid, "connected");
                    }
                    // What it is greeted with has our clock in it, which may be as old as the last event.
                    self.protocol.handle_timeout(self.clock.now());
                    self.protocol.handle_connected(peer);
                    self.following.make_room(&self.protocol, &self.connections);
                }
                added
            }
            Change::Refused(peer) => {
                self.protocol.handle_refused(self.clock.now(), peer);
                self.following.follow(&self.protocol, &self.connections, &mut self.dials);
                true
            }
            Change::Stranger { id, connection } => self.stranger(id, connection),
            Change::Down { peer, id } => {
                let gone = self.connections.remove(peer, id);
                if gone {
                    if let Some(unsaid) = self.connections.log(peer) {
                        tracing::info!(peer = ?self.peer(peer), unsaid, "disconnected");
                    }
                    let was_guest = self.protocol.has_guest(peer);
                    self.protocol.handle_disconnected(peer);
                    if was_guest {
                        self.forget(peer);
                    }
                }
                gone
            }
        }
    }

    /// Who is no member has called: it becomes a guest, unless it is known, or there is no room. Says
    /// whether anything has changed.
    fn stranger(&mut self, id: PeerId, connection: Connection) -> bool {
        let now = self.clock.now();
        let address = remote(&connection).ip();
        let known = self.protocol.epochs().peers().key(&id);
        let refuse = |why: &[u8]| {
            connection.close(VarInt::from_u32(1), why);
            false
        };
        // A guest that is known may call from a place that is barred by now.
        let is_barred = self.guests.is_barred(now, &id, address);
        if is_barred && known.is_none_or(|key| self.protocol.has_guest(key)) {
            return refuse(NoGuest::Barred.reason());
        }
        let is_new = known.is_none();
        if is_new && let Err(why) = self.guests.admit(now, address) {
            return refuse(why.reason());
        }
        let Some(peer) = self.protocol.handle_guest(now, id).filter(|p| *p != self.protocol.me())
        else {
            return refuse(NoGuest::Full.reason());
        };
        if is_new {
            self.guests.take(peer, address);
            self.connections.join(peer, id, true);
            self.publish_epochs();
        }
        let added = self.change(Change::Up { peer, connection, outgoing: false });
        if is_new && !added {
            self.protocol.handle_disconnected(peer);
            self.forget(peer);
        }
        added
    }

    /// Calls a peer at some addresses, whether a table names it or not.
    fn call(&mut self, id: PeerId, mut addresses: Vec<SocketAddr>) -> bool {
        let me = self.protocol.me();
        let key = self.protocol.handle_contact(self.clock.now(), id).filter(|key| *key != me);
        let Some(key) = key else { return false };
        addresses.iter_mut().for_each(|address| *address = canonical(*address));
        addresses.truncate(CONTACT_ADDRESSES);
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner).insert(id, addresses);
        self.guests.give_back(key);
        self.publish_epochs();
        let up = self.connections.join(key, id, false);
        if !self.dials.is_running(key) {
            self.dials.start(key, id, up);
        }
        true
    }

    fn call_off(&mut self, id: &PeerId) {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some(key) = self.protocol.forget_contact(self.clock.now(), id) {
            self.forget(key);
        }
        self.publish_epochs();
    }

    /// A key is nobody's any more.
    fn forget(&mut self, peer: PeerKey) {
        // Who reads in a snapshot that it is gone finds it nowhere else.
        self.publish_epochs();
        self.guests.give_back(peer);
        self.dials.stop(peer);
        self.connections.leave(peer);
        self.bars.forget(peer);
    }

    fn receive(&mut self, received: &mut Vec<Inbound>) {
        let now = self.clock.now();
        let mut shreds = Vec::with_capacity(received.len());
        for Inbound { peer, what, .. } in received.drain(..) {
            match what {
                Received::Shred(bytes) => shreds.push((peer, bytes)),
                Received::Control(frame) => self.protocol.handle_control(now, peer, &frame),
            }
        }
        self.protocol.handle_datagrams(now, shreds);
    }

    fn peer(&self, peer: PeerKey) -> Option<PeerId> {
        self.protocol.epochs().peers().peer(peer)
    }

    fn publish(&mut self) {
        self.published = Instant::now();
        let Self { protocol, connections, following, calls, .. } = self;
        let snapshot = Snapshot::of(protocol, connections, following, calls);
        self.snapshots.send_replace(snapshot);
    }
}

/// What planning has found, once it has ended; waits for ever while there is none under way.
async fn result(planning: &mut Option<JoinHandle<Option<PlanDraft>>>) -> Option<PlanDraft> {
    match planning {
        Some(planning) => planning.await.unwrap_or_else(|error| {
            tracing::error!(%error, "planning failed; the plan in force stays");
            None
        }),
        None => std::future::pending().await,
    }
}
