//! The task that owns the swarm.

mod messages;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fragcast_shredder::Kind;
use libp2p::core::ConnectedPoint;
use libp2p::futures::{FutureExt, StreamExt};
use libp2p::gossipsub::{self, IdentTopic, TopicHash};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, ListenError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::behaviour::{Behaviour, BehaviourEvent, Built, GRAYLIST, Hooks, KINDS};
use super::dial::Targets;
use super::identity::peer_id_of;
use super::known::Known;
use super::meter::Meters;
use super::peers::{Peer, Peers, Rates, Why};
use super::{GossipLimits, GossipNetConfig, GossipSnapshot};
use crate::counts::Counts;
use crate::gossip::{Gate, GossipAction, GossipOutcome, Listener, Topics, outsider};
use crate::membership::Membership;
use crate::net::link::GossipInput;
use messages::Unpublished;

/// Events of the swarm between two looks at what else there is to do.
pub(super) const BURST: usize = 32;
/// How often traffic, calls that are due and listeners are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often the numbers are published.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(200);

/// What a driver is made of.
pub(super) struct Parts {
    pub(super) config: GossipNetConfig,
    pub(super) gate: Gate,
    pub(super) members: Arc<Membership>,
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
    members: Arc<Membership>,
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
}

impl Driver {
    pub(super) fn new(
        parts: Parts,
        listening_on: Vec<Multiaddr>,
        inputs: mpsc::Sender<GossipInput>,
    ) -> Self {
        let Built { swarm, topics, hooks } = parts.built;
        Self {
            swarm,
            topics,
            hooks,
            limits: parts.config.limits,
            rates: Rates::new(&parts.config.limits),
            gate: parts.gate,
            members: parts.members,
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
        }
    }

    /// Runs until it is told to stop, or the driver at the other end has ended.
    pub(super) async fn run(
        mut self,
        mut actions: mpsc::Receiver<GossipAction>,
        mut window: watch::Receiver<(u64, u64)>,
        mut stop: mpsc::Receiver<()>,
        mut fresh: mpsc::Receiver<oneshot::Sender<GossipSnapshot>>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut controlled, mut asked) = (true, true);
        window.mark_changed();
        loop {
            tokio::select! {
                biased;
                told = stop.recv(), if controlled => match told {
                    Some(()) => break,
                    // Nobody holds a handle: it runs for as long as the driver does.
                    None => controlled = false,
                },
                changed = window.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let (low, high) = *window.borrow_and_update();
                    self.gate.set_window(low, high);
                }
                _ = tick.tick() => self.tick(),
                reply = fresh.recv(), if asked => match reply {
                    Some(reply) => {
                        let _ = reply.send(self.take_snapshot());
                    }
                    None => asked = false,
                },
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
                tracing::warn!(%error, "gossip cannot accept a connection");
            }
            _ => {}
        }
    }

    fn connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        self.targets.connected(now, &peer);
        let index = peer_id_of(&peer).and_then(|known| self.members.index(&known));
        let listener =
            index.map_or_else(|| outsider(&peer.to_bytes()), |i| Listener::Member(i.into()));
        let entry = self.peers.entry(peer).or_insert_with(|| {
            tracing::info!(%peer, member = ?index, "gossip: connected");
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
            tracing::info!(%peer, "gossip: disconnected");
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
        tracing::warn!(%peer, friend, reason = why.label(), "gossip: barred for a while");
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

    /// Tells the protocol who listens, as far as there is room; the rest at the next tick.
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
