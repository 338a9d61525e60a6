//! The task that owns the swarm.

mod messages;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fragcast_shredder::{Dialect, Kind};
use libp2p::core::ConnectedPoint;
use libp2p::futures::{FutureExt, StreamExt};
use libp2p::gossipsub::{self, IdentTopic, TopicHash};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, ListenError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::behaviour::{Behaviour, BehaviourEvent, Built, GRAYLIST, Hooks, KINDS};
use super::dial::Targets;
use super::doorman::ip;
use super::identity::{libp2p_id_of, peer_id_of};
use super::known::Known;
use super::meter::Meters;
use super::peers::{Peer, Peers, Rates, Why};
use super::{Command, GossipLimits, GossipNetConfig, GossipSnapshot};
use crate::counts::Counts;
use crate::epoch::EpochsView;
use crate::gossip::{Gate, GossipAction, GossipOutcome, Listener, Topics, outsider};
use crate::net::LogLimit;
use crate::net::link::{GossipInput, Outlook};
use crate::net::listen::member_addresses;
use messages::Unpublished;

/// Events of the swarm between two looks at what else there is to do.
pub(super) const BURST: usize = 32;
/// Interval at which traffic, due calls and listeners are checked.
const TICK: Duration = Duration::from_millis(100);
/// Lines of the log that peers cause: one in this time, and so many at once.
const LOG: (Duration, u32) = (Duration::from_secs(1), 256);
/// Interval at which the snapshot is published.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(200);

/// Everything that a driver is started with.
pub(super) struct Parts {
    pub(super) config: GossipNetConfig,
    pub(super) dialect: Dialect,
    pub(super) epochs: Arc<EpochsView>,
    pub(super) targets: Targets,
    pub(super) meters: Meters,
    pub(super) built: Built,
    pub(super) snapshots: watch::Sender<GossipSnapshot>,
}

/// The driver. What it does with messages is in [`messages`].
pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    topics: Topics,
    hooks: Arc<Hooks>,
    limits: GossipLimits,
    rates: Rates,
    gate: Gate,
    /// Of these epochs the friends, links and listeners are.
    epochs: Arc<EpochsView>,
    targets: Targets,
    meters: Meters,
    inputs: mpsc::Sender<GossipInput>,
    peers: Peers,
    /// Listeners that are gone, of which the protocol has yet to learn: as many as connections
    /// can end while the protocol is busy.
    gone: Vec<Listener>,
    known: Known,
    numbers: GossipSnapshot,
    barred: Counts<Why>,
    not_published: Counts<Unpublished>,
    snapshots: watch::Sender<GossipSnapshot>,
    published: Instant,
    /// For lines that peers cause, of whom there may be any number.
    log: LogLimit,
}

/// Who a peer is to the protocol.
fn listener(epochs: &EpochsView, peer: &PeerId) -> Listener {
    let member = peer_id_of(peer)
        .and_then(|id| epochs.peers().key(&id).filter(|_| epochs.member(&id).is_some()));
    member.map_or_else(|| outsider(&peer.to_bytes()), Listener::Member)
}

impl Driver {
    pub(super) fn new(
        parts: Parts,
        listening_on: Vec<Multiaddr>,
        inputs: mpsc::Sender<GossipInput>,
    ) -> Self {
        let Built { swarm, topics, hooks } = parts.built;
        let mut driver = Self {
            swarm,
            topics,
            hooks,
            limits: parts.config.limits,
            rates: Rates::new(&parts.config.limits),
            gate: Gate::new(parts.dialect, Arc::clone(&parts.epochs)),
            epochs: parts.epochs,
            targets: parts.targets,
            meters: parts.meters,
            inputs,
            peers: Peers::new(),
            gone: Vec::new(),
            known: Known::default(),
            numbers: GossipSnapshot { listening_on, ..GossipSnapshot::default() },
            barred: Counts::default(),
            not_published: Counts::default(),
            snapshots: parts.snapshots,
            published: Instant::now(),
            log: LogLimit::new(LOG.0, LOG.1),
        };
        driver.make_friends();
        driver
    }

    /// Runs until it is stopped, or the driver at the other end has ended.
    pub(super) async fn run(
        mut self,
        mut actions: mpsc::Receiver<GossipAction>,
        mut outlook: watch::Receiver<Outlook>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut controlled = true;
        outlook.mark_changed();
        loop {
            tokio::select! {
                biased;
                command = commands.recv(), if controlled => match command {
                    Some(Command::Shutdown) => break,
                    Some(Command::Snapshot(reply)) => {
                        // Who asked may have given up.
                        let _ = reply.send(self.take_snapshot());
                    }
                    Some(Command::Addresses(book)) => {
                        self.targets.set_addresses(book);
                        self.make_links();
                    }
                    // Nobody holds a handle: it runs for as long as the driver does.
                    None => controlled = false,
                },
                changed = outlook.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let now = outlook.borrow_and_update().clone();
                    self.look(now);
                }
                _ = tick.tick() => self.tick(),
                action = actions.recv() => match action {
                    Some(action) => self.act(action),
                    None => break,
                },
                event = self.swarm.select_next_some() => self.event(event),
            }
            // Whatever it was, the swarm has its turn; not more than a turn.
            for _ in 0..BURST {
                let Some(event) = self.swarm.select_next_some().now_or_never() else { break };
                self.event(event);
            }
            if self.inputs.is_closed() {
                break;
            }
        }
        let snapshot = self.take_snapshot();
        self.snapshots.send_replace(snapshot);
    }

    fn act(&mut self, action: GossipAction) {
        match action {
            GossipAction::Listen(listen) => self.listen(listen),
            GossipAction::Publish { kind, wire } => self.publish(kind, &wire),
        }
    }

    fn listen(&mut self, listen: bool) {
        self.hooks.listening.store(listen, Ordering::Relaxed);
        self.numbers.listening = listen;
        let gossipsub = &mut self.swarm.behaviour_mut().gossipsub;
        for kind in KINDS {
            let topic = IdentTopic::new(self.topics.name(kind));
            if !listen {
                gossipsub.unsubscribe(&topic);
            } else if let Err(error) = gossipsub.subscribe(&topic) {
                tracing::warn!(%topic, %error, "cannot subscribe");
            }
        }
        tracing::info!(listen, "listening to gossip");
    }

    /// Takes over what the protocol has changed.
    fn look(&mut self, outlook: Outlook) {
        let Outlook { window: (low, high), epochs, behind } = outlook;
        self.gate.set_window(low, high);
        self.gate.set_epochs(Arc::clone(&epochs), behind);
        if Arc::ptr_eq(&self.epochs, &epochs) {
            return;
        }
        self.epochs = epochs;
        self.make_links();
        // Who has joined, or left, is somebody else to the protocol.
        for (id, peer) in &mut self.peers {
            let before = std::mem::replace(&mut peer.listener, listener(&self.epochs, id));
            if before != peer.listener && std::mem::take(&mut peer.told) {
                self.gone.push(before);
            }
        }
        self.tell_listeners();
    }

    /// Calls those whose link it is by the epochs and addresses that are known now.
    fn make_links(&mut self) {
        if let Some(error) = self.targets.link(&self.epochs) {
            tracing::warn!(%error, "gossip: a member cannot be called");
        }
        self.make_friends();
    }

    /// Keeps room for members and for those that are called.
    fn make_friends(&mut self) {
        let members = self.epochs.members().filter_map(|(_, member)| libp2p_id_of(&member.peer()));
        let friends = members.chain(self.targets.peers()).collect();
        let mut addresses = member_addresses(&self.epochs);
        addresses.extend(self.targets.places().filter_map(ip));
        self.swarm.behaviour_mut().doorman.set_friends(friends, addresses);
    }

    fn event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Gossipsub(event)) => self.gossip(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.disconnected(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                tracing::debug!(%peer, %error, "gossip: cannot connect");
                let ours = self.targets.failed(Instant::now(), &peer);
                self.numbers.dial_failures += u64::from(ours);
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                // The doorman has counted those that it denied.
                let denied = matches!(error, ListenError::Denied { .. });
                self.numbers.handshakes_failed += u64::from(!denied);
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                let known = &mut self.numbers.listening_on;
                known.retain(|one| *one != address);
                known.push(address);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.numbers.listening_on.retain(|one| *one != address);
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::error!(?addresses, ?reason, "gossip does not listen any more");
                self.numbers.listening_on.retain(|one| !addresses.contains(one));
            }
            SwarmEvent::ListenerError { error, .. } => {
                if let Some(unsaid) = self.log.allow() {
                    tracing::warn!(%error, unsaid, "gossip cannot accept a connection");
                }
            }
            _ => {}
        }
    }

    fn connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        self.targets.connected(now, &peer);
        let listener = listener(&self.epochs, &peer);
        let entry = self.peers.entry(peer).or_insert_with(|| {
            if let Some(unsaid) = self.log.allow() {
                tracing::info!(%peer, ?listener, unsaid, "gossip: connected");
            }
            Peer::new(now, listener)
        });
        entry.connect(id, self.meters.of(endpoint.get_remote_address()));
    }

    fn disconnected(&mut self, peer: PeerId, id: ConnectionId) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.disconnect(id) {
            let told = entry.told.then_some(entry.listener);
            self.peers.remove(&peer);
            self.targets.disconnected(Instant::now(), &peer);
            if let Some(unsaid) = self.log.allow() {
                tracing::info!(%peer, unsaid, "gossip: disconnected");
            }
            if let Some(listener) = told {
                self.gone.push(listener);
            }
            self.tell_listeners();
        }
    }

    fn gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                self.message(propagation_source, &message_id, message);
            }
            gossipsub::Event::Subscribed { peer_id, topic, .. } => {
                let tick = self.known.tick();
                self.subscribed(peer_id, &topic, Some(tick));
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                self.subscribed(peer_id, &topic, None);
            }
            gossipsub::Event::SlowPeer { failed_messages, .. } => {
                let failed = failed_messages.priority + failed_messages.non_priority;
                self.numbers.slow_peers += failed as u64;
            }
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                tracing::debug!(peer = %peer_id, "does not speak gossipsub");
            }
        }
    }

    fn subscribed(&mut self, peer: PeerId, topic: &TopicHash, tick: Option<u64>) {
        let Some(kind) = self.topics.kind(topic.as_str()) else { return };
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if let Err(why) = entry.subscribe(Instant::now(), &self.rates, kind, tick) {
            self.bar(peer, why);
        }
        self.tell_listeners();
    }

    fn bar(&mut self, peer: PeerId, why: Why) {
        let doorman = &mut self.swarm.behaviour_mut().doorman;
        if doorman.is_barred(&peer) {
            return;
        }
        doorman.bar(Instant::now(), peer);
        self.barred.count(why);
        let friend = doorman.is_friend(&peer);
        if let Some(unsaid) = self.log.allow() {
            let reason = <&str>::from(why);
            tracing::warn!(%peer, friend, reason, unsaid, "gossip: barred for a while");
        }
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.call(now);
        let listening = self.numbers.listening;
        let mut bars = Vec::new();
        let mut idle = Vec::new();
        for (id, peer) in &mut self.peers {
            let behaviour = self.swarm.behaviour();
            if let Err(why) = peer.traffic(now, &self.rates, listening) {
                bars.push((*id, why));
            } else if behaviour.gossipsub.peer_score(id).is_some_and(|score| score < GRAYLIST) {
                bars.push((*id, Why::Score));
            } else if peer.is_idle(now, &self.limits) && !behaviour.doorman.is_friend(id) {
                idle.push(*id);
            }
        }
        bars.into_iter().for_each(|(peer, why)| self.bar(peer, why));
        for peer in idle {
            tracing::debug!(%peer, "gossip: subscribes to nothing of ours");
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        self.swarm.behaviour_mut().doorman.expire(now);
        self.tell_listeners();
        if self.published.elapsed() >= SNAPSHOT_INTERVAL {
            self.published = now;
            let snapshot = self.take_snapshot();
            self.snapshots.send_replace(snapshot);
        }
    }

    /// Calls those whose time has come.
    fn call(&mut self, now: Instant) {
        let doorman = &self.swarm.behaviour().doorman;
        for (peer, addresses) in self.targets.due(now, |peer| doorman.is_barred(peer)) {
            let call = DialOpts::peer_id(peer)
                .addresses(addresses)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                // The listener's port would tie two nodes that call each other at once.
                .allocate_new_port()
                .build();
            if let Err(error) = self.swarm.dial(call) {
                tracing::debug!(%peer, %error, "gossip: cannot call");
                self.targets.failed(now, &peer);
            }
        }
    }

    /// Reports listeners to the protocol, as far as there is room; the rest at the next tick.
    fn tell_listeners(&mut self) {
        while let Some(listener) = self.gone.last() {
            if self.inputs.try_send(GossipInput::Listener(*listener, false)).is_err() {
                return;
            }
            self.gone.pop();
        }
        let now = Instant::now();
        for peer in self.peers.values_mut().filter(|peer| peer.listens(now) != peer.told) {
            let present = !peer.told;
            if self.inputs.try_send(GossipInput::Listener(peer.listener, present)).is_err() {
                return;
            }
            peer.told = present;
        }
    }

    fn take_snapshot(&mut self) -> GossipSnapshot {
        let behaviour = self.swarm.behaviour();
        let (connections, incoming) = behaviour.doorman.connections();
        let (bytes_received, bytes_sent) = self.meters.totals();
        let mesh = [Kind::Env, Kind::Frag, Kind::Seal].map(|kind| {
            let topic = TopicHash::from_raw(self.topics.name(kind));
            behaviour.gossipsub.mesh_peers(&topic).count()
        });
        let member = |peer: &&Peer| matches!(peer.listener, Listener::Member(_));
        let members = self.peers.values().filter(member).count();
        let foreign = self.hooks.foreign.swap(0, Ordering::Relaxed);
        self.numbers.outcomes.add(GossipOutcome::Topic, foreign);
        GossipSnapshot {
            connections,
            incoming,
            members,
            outsiders: self.peers.len() - members,
            listeners: self.peers.values().filter(|peer| peer.listens(Instant::now())).count(),
            mesh,
            not_published: self.not_published.labels().collect(),
            barred: self.barred.labels().collect(),
            barred_now: behaviour.doorman.barred(),
            refused: behaviour.doorman.refused(),
            bytes_received,
            bytes_sent,
            ..self.numbers.clone()
        }
    }
}
