//! gossipsub with the parameters of based-op's op-node, and the swarm around it.
//!
//! Protocol ids are rust-libp2p's own: /meshsub/1.3.0, 1.2.0, 1.1.0 and 1.0.0; the two ends
//! agree on the newest that both know, which with go-libp2p and js-libp2p is 1.2.0 or 1.1.0.
//! Floodsub is not spoken.
//!
//! # What is ours
//! * **Size**: a frame may have 12 MiB. A message of 11 MiB is over the limit of 10 MiB; it
//!   must reach the gate to be counted and held against its sender. At the limit gossipsub
//!   would close the stream and blame nobody.
//! * **Topics**: gossipsub keeps every message in its cache for 6 s and its id for 65 s, even
//!   of topics that nobody asked for, before it looks whether anybody listens. [`Filter`]
//!   empties those, so that all of them are one and the same message.
//! * **Unsubscribing** asks the mesh to stay away for 1 s, not 10: who falls back a second
//!   time must be taken back into the mesh.
//! * **Peer exchange** is neither offered nor followed.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fragcast_shredder::Kind;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, Transport as _};
use libp2p::core::upgrade::Version;
use libp2p::gossipsub::{
    self, ConfigBuilder, DataTransform, MaxCountSubscriptionFilter, Message, MessageAuthenticity,
    MessageId, PeerScoreParams, PeerScoreThresholds, RawMessage, TopicHash, TopicScoreParams,
    ValidationMode, WhitelistSubscriptionFilter,
};
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{PeerId, Swarm, dns, identify, noise, tcp, yamux};
use socket2::{SockRef, TcpKeepalive};

use super::doorman::Doorman;
use super::identity;
use super::known::Id;
use super::meter::Meters;
use super::{GossipLimits, GossipNetConfig, GossipNetError};
use crate::gossip::{Topics, topic};

/// Largest frame.
const MAX_FRAME: usize = 12 * 1024 * 1024;
/// Messages in a frame at most; honest ones have one.
const MAX_MESSAGES: usize = 512;
/// Messages that wait for a peer at most. Beyond, they are dropped for it: it has to catch up
/// by asking. They are messages that the gate accepted, so only gateways can make them large.
const QUEUE: usize = 64;
/// How long a message may wait for a peer: one of its own, and a forwarded one.
const QUEUE_TIME: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(2));
/// After so much silence a connection is probed; data that is not acknowledged in that time
/// ends it.
const SILENCE: Duration = Duration::from_secs(20);
/// Pause between probes, and how many may be lost.
const PROBES: (Duration, u32) = (Duration::from_secs(5), 3);
/// Streams of a connection: identify, gossip both ways, and room for what a peer tries.
const STREAMS: usize = 32;
/// Streams that have not agreed on a protocol yet.
const NEGOTIATING: usize = 16;
/// Below this score a peer's messages are not looked at any more.
pub(super) const GRAYLIST: f64 = -1600.0;
/// The score of peers that have had a message already, while it is sent to the others.
const SET_ASIDE: f64 = -1e9;

/// The three kinds in the order of the topics. Fragments come last: a peer that subscribes to them
/// is a listener, and gets what it has missed on all three.
pub(super) const KINDS: [Kind; 3] = [Kind::Env, Kind::Seal, Kind::Frag];

type Filtered = MaxCountSubscriptionFilter<WhitelistSubscriptionFilter>;
type Gossipsub = gossipsub::Behaviour<Filter, Filtered>;

/// Everything that the swarm does.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    /// First, so that nobody else learns of a connection that is refused.
    pub(super) doorman: Doorman,
    pub(super) gossipsub: Gossipsub,
    /// Identify, because go-libp2p opens gossip streams only to peers that have named their
    /// protocols.
    pub(super) identify: identify::Behaviour,
}

/// A swarm, and the state that it shares with its owner.
pub(super) struct Built {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) topics: Topics,
    pub(super) hooks: Arc<Hooks>,
}

/// What gossipsub's hooks share with the driver: the filter of messages and the one that makes
/// their ids.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// Whether this node is subscribed.
    pub(super) listening: AtomicBool,
    /// Messages on topics that are none of ours.
    pub(super) foreign: AtomicU64,
    /// Not zero while a message is published again: its id is made another one then.
    salt: AtomicU64,
}

/// Empties messages that nobody here waits for.
pub(super) struct Filter {
    topics: Topics,
    hooks: Arc<Hooks>,
}

impl DataTransform for Filter {
    fn inbound_transform(&self, raw: RawMessage) -> io::Result<Message> {
        let ours = self.topics.kind(raw.topic.as_str()).is_some();
        if !ours {
            self.hooks.foreign.fetch_add(1, Ordering::Relaxed);
        }
        let RawMessage { source, data, sequence_number, topic, .. } = raw;
        if ours && self.hooks.listening.load(Ordering::Relaxed) {
            return Ok(Message { source, data, sequence_number, topic });
        }
        let topic = TopicHash::from_raw("");
        Ok(Message { source: None, data: Vec::new(), sequence_number: None, topic })
    }

    fn outbound_transform(&self, _topic: &TopicHash, data: Vec<u8>) -> io::Result<Vec<u8>> {
        Ok(data)
    }
}

fn id_of(hooks: &Hooks, message: &Message) -> MessageId {
    let mut id: Id = topic::message_id(message.topic.as_str(), &message.data);
    let salt = hooks.salt.load(Ordering::Relaxed);
    if salt != 0 {
        id[12..].copy_from_slice(&salt.to_le_bytes());
    }
    MessageId::new(&id)
}

impl Behaviour {
    /// Sends a message that gossipsub has had already to `to`, of those that are subscribed.
    ///
    /// gossipsub publishes an id once, and chooses the receivers itself. So for the time of
    /// this call the message has another id, which is forgotten at once, lest it be offered to
    /// anybody, and the other peers have a score at which nothing is published to them.
    pub(super) fn publish_again(
        &mut self,
        hooks: &Hooks,
        salt: u64,
        (topic, data): (TopicHash, Vec<u8>),
        others: &[PeerId],
        own: &PeerId,
    ) -> Result<(), gossipsub::PublishError> {
        for peer in others {
            self.gossipsub.set_application_score(peer, SET_ASIDE);
        }
        hooks.salt.store(salt, Ordering::Relaxed);
        let result = self.gossipsub.publish(topic, data);
        hooks.salt.store(0, Ordering::Relaxed);
        for peer in others {
            self.gossipsub.set_application_score(peer, 0.0);
        }
        let ignore = gossipsub::MessageAcceptance::Ignore;
        result.map(|id| {
            self.gossipsub.report_message_validation_result(&id, own, ignore);
        })
    }
}

/// The parameters of gossipsub.
fn parameters(hooks: &Arc<Hooks>) -> Result<gossipsub::Config, GossipNetError> {
    let hooks = Arc::clone(hooks);
    let mut config = ConfigBuilder::default();
    config
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(move |message| id_of(&hooks, message))
        .mesh_n(8)
        .mesh_n_low(6)
        .mesh_n_high(12)
        .gossip_lazy(6)
        .heartbeat_interval(Duration::from_millis(500))
        .heartbeat_initial_delay(Duration::from_millis(100))
        .duplicate_cache_time(Duration::from_secs(65))
        .history_length(12)
        .history_gossip(3)
        .flood_publish(false)
        .unsubscribe_backoff(Duration::from_secs(1))
        .max_transmit_size(MAX_FRAME)
        .max_publish_messages(MAX_MESSAGES)
        .connection_handler_queue_len(QUEUE)
        .publish_queue_duration(QUEUE_TIME.0)
        .forward_queue_duration(QUEUE_TIME.1);
    config.build().map_err(|e| GossipNetError::Setup(e.to_string()))
}

/// How gossipsub scores its peers: by what they did wrong, and by nothing else.
///
/// * Invalid messages (P4) count squared, and are halved in 23 s: 5 and it is offered nothing,
///   10 and nothing is published to it, 40 and it is not listened to. The driver bars earlier,
///   after [`GossipLimits::rejects`]; gossipsub's own count is for what it rejects itself,
///   such as signed messages, of which the driver does not hear.
/// * Misbehaviour in the protocol (P7), such as offering what one does not have, or joining a
///   mesh out of turn: six are free, 13 beyond are too many; halved in 6.6 s.
/// * What peers deliver (P1 to P3) is not scored: in standby nobody delivers anything, and when
///   the leader is dead nobody can.
/// * Peers on one address (P6) are the doorman's business; slow peers are nobody's fault.
/// * Scores outlive a connection by the time of a bar.
fn scores(topics: &Topics, limits: &GossipLimits) -> (PeerScoreParams, PeerScoreThresholds) {
    let topic = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -1.0,
        invalid_message_deliveries_decay: 0.97,
        ..TopicScoreParams::default()
    };
    let hash = |kind| TopicHash::from_raw(topics.name(kind));
    let topics: HashMap<_, _> = KINDS.into_iter().map(|kind| (hash(kind), topic.clone())).collect();
    let params = PeerScoreParams {
        topics,
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: 0.9,
        slow_peer_weight: 0.0,
        decay_interval: Duration::from_secs(1),
        retain_score: limits.bar,
        ..PeerScoreParams::default()
    };
    let thresholds = PeerScoreThresholds {
        gossip_threshold: -25.0,
        publish_threshold: -100.0,
        graylist_threshold: GRAYLIST,
        // Out of reach: nobody's list of peers is followed.
        accept_px_threshold: 1e9,
        opportunistic_graft_threshold: 0.0,
    };
    (params, thresholds)
}

fn gossip(
    topics: &Topics,
    hooks: &Arc<Hooks>,
    limits: &GossipLimits,
) -> Result<Gossipsub, GossipNetError> {
    let hash = |kind| TopicHash::from_raw(topics.name(kind));
    let filter = MaxCountSubscriptionFilter {
        filter: WhitelistSubscriptionFilter(KINDS.into_iter().map(hash).collect()),
        max_subscribed_topics: KINDS.len(),
        max_subscriptions_per_request: 64,
    };
    let transform = Filter { topics: topics.clone(), hooks: Arc::clone(hooks) };
    let setup = |e: &str| GossipNetError::Setup(e.to_owned());
    let mut gossipsub = gossipsub::Behaviour::new_with_subscription_filter_and_transform(
        MessageAuthenticity::Anonymous,
        parameters(hooks)?,
        filter,
        transform,
    )
    .map_err(setup)?;
    let (params, thresholds) = scores(topics, limits);
    gossipsub.with_peer_score(params, thresholds).map_err(GossipNetError::Setup)?;
    Ok(gossipsub)
}

/// Sets keep-alive. In standby a connection is silent for hours, and must work when it is needed: a
/// path that is gone, or forgotten by a firewall, is detected within 35 s, and the peer is called
/// again.
fn keep_alive(stream: &tcp::tokio::TcpStream) {
    let keep =
        TcpKeepalive::new().with_time(SILENCE).with_interval(PROBES.0).with_retries(PROBES.1);
    let socket = SockRef::from(&stream.0);
    // The system may refuse; then such a path is found out when it is used.
    let _ = socket.set_tcp_keepalive(&keep);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(SILENCE));
}

fn transport(
    key: &Keypair,
    meters: &Meters,
    limits: &GossipLimits,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, GossipNetError> {
    let setup = |e: &dyn std::fmt::Display| GossipNetError::Setup(e.to_string());
    let noise = noise::Config::new(key).map_err(|e| setup(&e))?;
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(STREAMS);
    let meters = meters.clone();
    let tcp = || tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let timeout = limits.handshake_timeout;
    macro_rules! finish {
        ($transport:expr) => {
            $transport
                .map(move |stream: tcp::tokio::TcpStream, end| {
                    keep_alive(&stream);
                    meters.count(stream, end.get_remote_address())
                })
                .upgrade(Version::V1Lazy)
                .authenticate(noise)
                .multiplex(yamux)
                .timeout(timeout)
                .boxed()
        };
    }
    Ok(match dns::tokio::Transport::system(tcp()) {
        Ok(transport) => finish!(transport),
        Err(error) => {
            tracing::warn!(%error, "no DNS: gossip addresses with names cannot be reached");
            finish!(tcp())
        }
    })
}

/// Puts it all together.
pub(super) fn swarm(
    config: &GossipNetConfig,
    identity: &SigningKey,
    meters: &Meters,
) -> Result<Built, GossipNetError> {
    let key = identity::keypair(identity);
    let hooks = Arc::new(Hooks::default());
    let topics = Topics::new(config.chain_id);
    let about = identify::Config::new("fragcast/1".to_owned(), key.public())
        .with_agent_version(concat!("fragcast/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_cache_size(0);
    let behaviour = Behaviour {
        doorman: Doorman::new(config.limits),
        gossipsub: gossip(&topics, &hooks, &config.limits)?,
        identify: identify::Behaviour::new(about),
    };
    let settings = libp2p::swarm::Config::with_tokio_executor()
        // The driver ends idle connections itself: those of members are kept.
        .with_idle_connection_timeout(Duration::from_secs(10 * 365 * 86_400))
        .with_max_negotiating_inbound_streams(NEGOTIATING);
    let transport = transport(&key, meters, &config.limits)?;
    let swarm = Swarm::new(transport, behaviour, key.public().to_peer_id(), settings);
    Ok(Built { swarm, topics, hooks })
}
