//! The state of a running node that its servers read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use alloy_primitives::Address;
use fragcast_execution::chain::ChainSpec;
use fragcast_execution::executor::Executor;
use fragcast_port::{Memory, PortStats};
use fragcast_rpc::eth::EthContext;
use fragcast_rpc::flashblocks::FlashblocksStats;
use fragcast_rpc::forward::Forwarder;
use fragcast_shredder::Kind;
use fragcast_store::Store;
use fragcast_turbine::health::Change;
use fragcast_turbine::net::Handle;
use fragcast_turbine::net::gossip::GossipHandle;
use fragcast_turbine::protocol::Race;
use fragcast_turbine::sequencer::Fate;
use fragcast_turbine::{Led, PeerId, Via};
use fragcast_upstream::client::FollowStats;
use fragcast_upstream::engine::EngineStats;

use super::agreement::{Agreement, Survey};
use super::latency::{Latencies, way};
use super::live::Live;
use super::races::Races;
use super::recorder::Recorder;
use crate::gateway::delegating::DelegationStatus;
use crate::gateway::ingest::IngestStats;
use crate::gateway::publish::PublishStats;
use crate::gateway::reach::Reach;
use crate::members::WeightsStatus;
use crate::network::Network;
use crate::registry::RegistryStatus;

/// Counters of `fragcast_subscribe`.
#[derive(Debug, Default)]
pub struct RpcStats {
    /// Subscriptions that are open.
    pub subscribers: AtomicU64,
    /// Subscriptions dropped because they were too slow.
    pub slow: AtomicU64,
}

/// The numbers of a TCP port: its name, its counters, what its connections hold.
pub type PortNumbers = (&'static str, Arc<PortStats>, Arc<Memory>);

/// Changes of the node's way that are remembered.
const MAX_CHANGES: usize = 64;
/// Ways in which blocks were sent that are remembered, 40 bytes each.
const MAX_LED: usize = 1_024;

/// Blocks of substitutes that are remembered, 64 bytes each.
const MAX_SUBSTITUTED: usize = 64;

/// The progress of a node.
#[derive(Debug, Default)]
pub struct Progress {
    /// Newest block whose Env was handed on.
    pub opened: Option<u64>,
    /// Newest block whose Seal was handed on.
    pub sealed: Option<u64>,
    /// When the newest message was handed on, by this node's clock.
    pub last_message: Option<SystemTime>,
    /// Bytes of messages that wait for earlier ones.
    pub waiting: usize,
    /// The last changes of the way that this node relies on, oldest first.
    pub changes: VecDeque<Change>,
    /// How this node has sent the last blocks that it led, oldest first.
    pub led: VecDeque<Led>,
    /// The last blocks whose Env was a substitute's, by rising number.
    pub substituted: BTreeMap<u64, Substituted>,
    /// Changes by the new way and the reason.
    pub(crate) changed: BTreeMap<(&'static str, &'static str), u64>,
    /// Messages by the way that was first.
    pub(crate) first: BTreeMap<&'static str, u64>,
    pub(crate) fates: BTreeMap<&'static str, u64>,
    pub(crate) events: BTreeMap<EventKind, u64>,
}

/// Who has opened a block in place of the scheduled gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Substituted {
    /// Its rank, 1 and more.
    pub rank: u8,
    /// Its address.
    pub gateway: Address,
}

/// A kind of noteworthy events.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::VariantArray, strum::IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A leader's coding shreds contradict its data shreds.
    BadParity,
    /// A leader sent bytes that are no message.
    BadMessage,
    /// A gateway signed two messages for one place.
    Equivocation,
    /// A gateway signed two delegations with one sequence.
    DelegatedTwice,
    /// A peer was barred.
    Barred,
    /// A peer is of another network.
    Mismatch,
    /// An attempt was retracted.
    Retracted,
    /// The way that this node counts on changed.
    Fallback,
    /// A membership table began to hold.
    Epoch,
    /// A leader's table of members was taken.
    TableTaken,
    /// A leader's table of members was not taken, or nobody had it.
    TableRefused,
    /// A leader named two tables for one block.
    TableTwice,
    /// The window of blocks that are taken was moved elsewhere.
    Moved,
    /// No peer keeps blocks that this node lacks.
    Gap,
}

/// A number that a node is made to believe; none: it looks itself.
#[derive(Debug, Default)]
pub struct Belief(AtomicU64);

impl Belief {
    /// Lets the node believe it.
    pub fn set(&self, value: Option<u64>) {
        // 0 stands for none.
        self.0.store(value.map_or(0, |value| value.saturating_add(1)), Ordering::Relaxed);
    }

    /// What it believes, if it does not look itself.
    pub fn get(&self) -> Option<u64> {
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }
}

/// For experiments: what a node is made to believe of the world around it, so that what it tells of
/// that can be seen without filling a disk or waiting for a fork.
#[derive(Debug, Default)]
pub struct Experiments {
    /// Room on the disk, bytes.
    pub room: Belief,
    /// When a fork begins that this build lacks, in Unix seconds.
    pub fork: Belief,
    /// For how long no source has confirmed the list of gateways, seconds.
    pub registry: Belief,
    /// Blocks that are left of its delegation.
    pub delegation: Belief,
    /// Blocks that no peer keeps.
    pub lost: Belief,
    /// As a guest: whether a member takes it, 0 or 1.
    pub attached: Belief,
}

impl Progress {
    /// Verified messages by their fate in the sequencer.
    pub fn fates(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Fate::ALL.iter().map(|f| (f.label(), self.fates.get(f.label()).copied().unwrap_or(0)))
    }

    /// Messages that others sent, by the way that was first.
    pub fn first(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Via::ALL
            .iter()
            .filter(|via| **via != Via::Own)
            .map(|via| (via.name(), self.first.get(via.name()).copied().unwrap_or(0)))
    }

    /// Changes of the way that this node relies on, by the new way and the reason.
    pub fn changed(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        self.changed.iter().map(|((to, reason), n)| (*to, *reason, *n))
    }

    /// Noteworthy events by kind.
    pub fn events(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        <EventKind as strum::VariantArray>::VARIANTS
            .iter()
            .map(|kind| (kind.into(), self.events.get(kind).copied().unwrap_or(0)))
    }
}

/// The state of a running node: handles of its parts, and its progress. Its tasks write the
/// progress, its servers read everything.
pub struct NodeState {
    /// This node's peer id.
    pub peer: PeerId,
    /// Handle of the overlay's driver.
    pub net: Handle,
    /// The gateway's interface.
    pub ingest: Arc<IngestStats>,
    /// How this node's own messages came to be published, if that waits for anything.
    pub published: Arc<PublishStats>,
    /// Counters of subscriptions.
    pub rpc: RpcStats,
    /// Metrics.
    pub metrics: Recorder,
    /// Counters of forwarding to the engine API, if configured.
    pub engine: Option<Arc<EngineStats>>,
    /// The chain that is executed, if one is.
    pub chain: Option<Arc<ChainSpec>>,
    /// The executor, if there is one.
    pub executor: Option<Arc<Executor>>,
    /// The database, if there is one.
    pub store: Option<Arc<Store>>,
    /// Counters of following the execution client, if there is one.
    pub follow: Option<Arc<FollowStats>>,
    /// The Ethereum JSON-RPC, where there is a chain to execute.
    pub eth: OnceLock<Arc<EthContext>>,
    /// Forwarded transactions that are not executed yet.
    pub forwarder: OnceLock<Arc<Forwarder>>,
    /// Handle of the gossip task, if there is one.
    pub gossip: Option<GossipHandle>,
    /// How much earlier the overlay or gossip was.
    pub races: Races,
    /// What of its live picture is noted as it happens.
    pub live: Arc<Live>,
    /// How long messages took.
    pub latencies: Latencies,
    /// When the node was started.
    pub started: SystemTime,
    /// What an experiment makes the node believe.
    pub experiments: Experiments,
    /// The Flashblocks WebSocket, if there is one.
    pub flashblocks: OnceLock<Arc<FlashblocksStats>>,
    /// The TCP ports: name, counters, what their connections hold.
    pub ports: OnceLock<Vec<PortNumbers>>,
    /// Its network.
    pub network: Network,
    /// Its leader key (public), if it has one.
    pub leader_key: Option<[u8; 32]>,
    /// Whom a message of its gateway would be handed to.
    pub reach: Arc<Reach>,
    /// Where its list of gateways comes from, if not from the network file.
    pub registry: Option<Arc<RegistryStatus>>,
    /// Where members' weights come from, if not from the network file.
    pub weights: Option<Arc<WeightsStatus>>,
    /// How it stands with the signer of its gateway's delegation, if there is one.
    pub delegation: Option<Arc<DelegationStatus>>,
    /// In what its peers differ from it.
    pub(crate) agreement: Mutex<Agreement>,
    /// How far it has come.
    pub(crate) progress: Mutex<Progress>,
}

impl NodeState {
    /// Reads the node's progress.
    pub fn with_progress<T>(&self, read: impl FnOnce(&Progress) -> T) -> T {
        read(&self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a gateway of a living epoch has delegated to this node and its leader key.
    pub fn leads(&self) -> bool {
        let Some(key) = self.leader_key else { return false };
        let epochs = self.net.epochs();
        let mut leaders = epochs.epochs().iter().flat_map(|epoch| epoch.delegations().iter());
        leaders.any(|leader| leader.peer == self.peer && leader.signed.delegation.key == key)
    }

    /// How far the peers that are connected agree with this node.
    pub fn survey(&self) -> Survey {
        let net = self.net.snapshot();
        let agreement = self.agreement.lock().unwrap_or_else(PoisonError::into_inner);
        agreement.survey(net.round_trips.iter().map(|(peer, _)| *peer))
    }

    pub(crate) fn update(&self, write: impl FnOnce(&mut Progress)) {
        write(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Remembers by what right a block was opened. One that was a substitute's and is the scheduled
    /// gateway's now is so no more.
    pub(crate) fn note_opened(&self, block: u64, rank: u8, gateway: Address) {
        self.update(|p| {
            if rank == 0 {
                p.substituted.remove(&block);
                return;
            }
            p.substituted.insert(block, Substituted { rank, gateway });
            if p.substituted.len() > MAX_SUBSTITUTED {
                p.substituted.pop_first();
            }
        });
    }

    /// Remembers how a block was sent.
    pub(crate) fn note_led(&self, led: Led) {
        self.update(|p| {
            if p.led.len() >= MAX_LED {
                p.led.pop_front();
            }
            p.led.push_back(led);
        });
    }

    /// Remembers a change of the way this node counts on.
    pub(crate) fn note_change(&self, change: Change) {
        self.update(|p| {
            *p.changed.entry((change.to.name(), change.reason.name())).or_default() += 1;
            if p.changes.len() >= MAX_CHANGES {
                p.changes.pop_front();
            }
            p.changes.push_back(change);
        });
    }

    /// Records how long a message of another took that came `via` a way.
    pub(crate) fn note_latency(&self, kind: Kind, via: Via, took: Duration) {
        self.metrics.latency(kind.name(), way(via), took);
        self.latencies.record(kind, via, took);
    }

    /// Records which way was first for a message that came both ways.
    pub(crate) fn note_race(&self, race: &Race) {
        tracing::debug!(
            block = race.key.block,
            index = race.key.message,
            kind = race.kind.name(),
            turbine_us = race.overlay_at.as_micros(),
            gossip_us = race.gossip_at.as_micros(),
            "a message came both ways"
        );
        self.metrics.race(race.kind.name(), race.overlay_at, race.gossip_at);
        self.races.record(race);
        self.live.race(race);
    }
}
