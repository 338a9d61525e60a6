//! A complete node: protocol, driver, sequencer, ingest, servers, forwarder.
//!
//! `run`, `devnet` and `replay` start nodes with [`Node::start`]. They differ in who hands in
//! messages and who observes the outputs.

pub mod execution;
mod feed;
mod gossip;
mod heads;
mod ports;
mod public;
mod pump;
mod runtimes;
mod sockets;

use std::net::TcpListener;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use ed25519_dalek::SigningKey;
use fragcast_execution::executor::Executor;
use fragcast_rpc::flashblocks::{self, Door};
use fragcast_turbine::net::{Loss, NetConfig, Running};
use fragcast_turbine::output::Output;
use fragcast_turbine::sequencer::Sequencer;
use fragcast_turbine::tables::Weights;
use fragcast_turbine::{PeerId, Setup, Timestamp};
use fragcast_upstream::engine::{self, EngineStats};
use jsonrpsee::core::server::Methods;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::gateway::delegating::{self, DelegationStatus};
use crate::gateway::ingest::{Ingest, IngestStats};
use crate::gateway::journal::Journal;
use crate::gateway::publish::{self, PublishStats};
use crate::gateway::reach::Reach;
use crate::log::Limiter;
use crate::members::{bootstrap, weights};
use crate::network::Network;
use crate::registry::Beginning;
use crate::serve::forks;
use crate::serve::latency::Latencies;
use crate::serve::live::{self, Live};
use crate::serve::metrics;
use crate::serve::races::Races;
use crate::serve::recorder::Recorder;
use crate::serve::rpc;
use crate::serve::state::{Experiments, NodeState, RpcStats};

use execution::Executing;
pub use execution::Execution;
use feed::Feed;
use ports::{Listeners, Opening, Ports};
use pump::Pump;
pub use runtimes::Runtimes;
pub use sockets::{Addresses, Sockets};

/// Own messages waiting for this node's sequencer.
const OWN_QUEUE: usize = 256;
/// How long a node that ends goes on with executing what it has.
const LAST_BLOCKS: Duration = Duration::from_secs(1);
/// How long the overlay may take to say goodbye and to close its socket: a guard against hanging.
const GOODBYE: Duration = Duration::from_secs(10);

/// Places for newcomers, where members come and go.
const NEWCOMERS: usize = 64;
/// How often it is looked whether the executor's thread is alive.
const LOOK: Duration = Duration::from_millis(200);

/// An observer that sees every output, in order, before anybody else.
pub type Tap = Box<dyn FnMut(&Output) + Send>;

/// Everything that a node is started with.
pub struct Parts {
    /// Its configuration.
    pub config: Config,
    /// Its network.
    pub network: Network,
    /// Its identity.
    pub identity: SigningKey,
    /// The leader key and its journal, if it leads.
    pub leader: Option<(SigningKey, Journal)>,
    /// Its sockets.
    pub sockets: Sockets,
    /// For networks on one machine: keeps the port of gossip, which libp2p binds itself, until then.
    pub gossip_port: Option<TcpListener>,
    /// Its execution settings; `None`: it carries messages and executes nothing.
    pub execution: Option<Execution>,
    /// For experiments: the share of outgoing shreds that is thrown away.
    pub drop_shreds: Option<Loss>,
    /// For experiments: while true, no UDP packet passes in or out.
    pub cut: Option<Arc<AtomicBool>>,
    /// An observer.
    pub tap: Option<Tap>,
}

/// A running node.
pub struct Node {
    state: Arc<NodeState>,
    addresses: Addresses,
    outputs: broadcast::Sender<Output>,
    ports: Ports,
    /// Tasks that follow the registry and the execution client and forward transactions.
    tasks: Vec<JoinHandle<()>>,
    flashblocks: Option<Door>,
    upkeep: JoinHandle<()>,
    /// `None` once the driver is known to have ended.
    driver: Option<JoinHandle<bool>>,
    gossip: Option<JoinHandle<()>>,
    /// `None` once the pump is known to have ended.
    events: Option<JoinHandle<()>>,
    /// Dropped last: the threads of what is above.
    _runtimes: Arc<Runtimes>,
}

/// Resolves when the executor's thread has ended: it is no task, so it is looked at.
async fn executor_ended(executor: Option<&Executor>) {
    let Some(executor) = executor else { return std::future::pending().await };
    while !executor.has_ended() {
        tokio::time::sleep(LOOK).await;
    }
}

impl Node {
    /// Starts the node.
    ///
    /// # Errors
    /// A part could not be set up.
    pub async fn start(parts: Parts) -> anyhow::Result<Self> {
        let Parts {
            config,
            network,
            identity,
            leader,
            sockets,
            gossip_port,
            execution,
            drop_shreds,
            cut,
            tap,
        } = parts;
        if sockets.flashblocks.is_some() && execution.is_none() {
            anyhow::bail!("flashblocks.listen: {}", flashblocks::NEEDS_EXECUTION);
        }
        let peer = PeerId(identity.verifying_key().to_bytes());
        let (leader, journal) = leader.unzip();
        if journal.as_ref().is_some_and(Journal::was_missing) {
            tracing::warn!(
                "the leader's journal was missing: the first eight blocks will be skipped"
            );
        }
        let leader_key = leader.as_ref().map(|key| key.verifying_key().to_bytes());
        let mut settings = config.protocol_settings(&network)?;
        if settings.members.live {
            // Who wants to become a member is a guest first.
            settings.guests = settings.guests.max(NEWCOMERS);
        }
        let ahead = (settings.catch_up.memory > 0).then_some(settings.catch_up.ahead);
        let delegating =
            config.signer()?.zip(leader_key).map(|(signer, key)| delegating::Settings {
                signer,
                chain_id: network.chain_id,
                peer,
                key,
                blocks: Some(config.leader.delegation_blocks).filter(|blocks| *blocks > 0),
                saved: config.leader.delegation.clone(),
            });
        let delegation = delegating.as_ref().map(|_| Arc::<DelegationStatus>::default());
        let registry = match config.registry_settings(&network)? {
            Some(settings) => Some(Beginning::of(settings, &network).await),
            None => None,
        };
        let (live, guests) = (settings.members.live, settings.guests);
        let substitutes = network.schedule.substitutes();
        let setup = match &registry {
            Some(registry) => Setup::of(settings, registry.epochs(&network)?)?,
            None => {
                let (members, schedule) = (Arc::clone(&network.members), network.schedule.clone());
                Setup::new(settings, members, schedule, network.delegations.iter().copied())?
            }
        };
        let mut protocol = setup.guest(&peer, leader);
        if protocol.is_guest() && !live {
            tracing::warn!(
                %peer,
                members = network.members.len(),
                "the network file does not name this node: it follows as a guest of members that \
                 have p2p.max_guests, relays nothing and leads nothing"
            );
        }
        let weights = config.weights_source()?;
        if live {
            if let Some(own) = config.own_record(&network, &peer) {
                protocol.set_own_record(Timestamp::default(), own);
            }
            // The weights of the network file, until a source says otherwise.
            let listed = network.members.members().iter();
            let listed: Weights = listed.map(|member| (member.peer(), member.weight)).collect();
            if !listed.is_empty() && weights.is_none() {
                protocol.set_weights(Timestamp::default(), Arc::new(listed), 0);
            }
        }
        let mut net_config = NetConfig { cut, drop_shreds, ..config.net_settings() };
        net_config.limits.guests = net_config.limits.guests.max(guests);
        let gossip_identity = identity.clone();
        let runtimes = Runtimes::shared()?;
        let Running { handle: net, events, task: driver, gossip: link } = {
            let _overlay = runtimes.overlay().enter();
            fragcast_turbine::net::spawn(protocol, identity, sockets.p2p, &net_config)?
        };
        let (gossip_config, gossip_network) = (config.clone(), network.clone());
        let gossip = runtimes.overlay().spawn(async move {
            gossip::start(&gossip_config, &gossip_network, &gossip_identity, link, gossip_port)
                .await
        });
        let gossip = gossip.await??;

        let engine_stats = Arc::new(EngineStats::default());
        let engine = config
            .engine_settings()?
            .map(|settings| engine::spawn(settings, Arc::clone(&engine_stats)));
        let noted = Arc::<Live>::default();
        let executing = execution.map(|e| Executing::start(e, &config, &noted)).transpose()?;
        let (own, own_rx) = mpsc::channel(OWN_QUEUE);
        let published = Arc::new(PublishStats::default());
        let own = match config.hand_over()? {
            None => own,
            Some(wait) => publish::held_back(net.clone(), wait, Arc::clone(&published), own),
        };
        let stats = Arc::new(IngestStats::default());
        let reach = Arc::new(Reach::new(
            net.clone(),
            gossip.as_ref().map(|(handle, _)| handle.clone()),
            !config.gossip.peers.is_empty(),
            config.leader.unreached,
        ));
        let ingest = Ingest::new(
            network.dialect,
            net.clone(),
            own,
            journal,
            Arc::clone(&reach),
            delegation.clone(),
            Arc::clone(&stats),
        );
        let p2p = net.local_addr();
        let state = Arc::new(NodeState {
            peer,
            net,
            ingest: stats,
            published,
            rpc: RpcStats::default(),
            metrics: Recorder::default(),
            engine: engine.as_ref().map(|_| engine_stats),
            chain: executing.as_ref().map(|e| Arc::clone(&e.spec)),
            executor: executing.as_ref().map(|e| Arc::clone(&e.executor)),
            store: executing.as_ref().and_then(|e| e.store.clone()),
            follow: executing
                .as_ref()
                .filter(|e| e.client.is_some())
                .map(|e| Arc::clone(&e.follow)),
            eth: OnceLock::new(),
            forwarder: OnceLock::new(),
            gossip: gossip.as_ref().map(|(handle, _)| handle.clone()),
            races: Races::default(),
            live: noted,
            latencies: Latencies::default(),
            started: SystemTime::now(),
            experiments: Experiments::default(),
            flashblocks: OnceLock::new(),
            ports: OnceLock::new(),
            network,
            leader_key,
            reach,
            registry: registry.as_ref().map(|registry| Arc::clone(registry.status())),
            weights: weights.as_ref().filter(|_| live).map(|_| Arc::default()),
            delegation,
            agreement: Mutex::default(),
            progress: Mutex::default(),
        });
        let (outputs, _) = broadcast::channel(config.http.subscriber_queue.max(1) as usize);

        let ingest_address = sockets.ingest.local_addr()?;
        let http_address = sockets.http.local_addr()?;
        let admin_address = sockets.admin.local_addr()?;
        let metrics_address = sockets.metrics.local_addr()?;
        let flashblocks_address =
            sockets.flashblocks.as_ref().map(TcpListener::local_addr).transpose()?;
        let mut memory = config.rpc.memory();
        let descriptors = ports::descriptors(&config);
        let mut tasks = Vec::new();
        let mut flashblocks = None;
        if let Some((listener, executor)) = sockets.flashblocks.zip(state.executor.as_ref()) {
            let settings = flashblocks::Settings {
                guard: ports::guard(&config),
                descriptors: descriptors.clone(),
                ..config.flashblocks_settings()
            };
            let _serving = runtimes.serving().enter();
            let door = Door::open(listener, executor.view(), &settings)?;
            // Set once: the node has only just been made.
            let _ = state.flashblocks.set(Arc::clone(door.stats()));
            flashblocks = Some(door);
        }
        let (mut http, mut preconf) = (Methods::new(), None);
        let mut about = public::about(&state, None);
        if let Some(executing) = executing {
            let executor = Arc::clone(&executing.executor);
            tasks.push(tokio::spawn(forks::watch(Arc::clone(executor.spec()))));
            tasks.push(tokio::spawn(heads::tell(executor, state.net.clone())));
            let public =
                public::Public::new(&config, &state.network, state.net.watch_epochs(), &executing)?;
            about = public::about(&state, Some(&public));
            http.merge(public.module)?;
            preconf = Some(public.preconf);
            memory = Arc::clone(&public.eth.memory);
            tasks.extend(executing.follower);
            tasks.extend(public.tasks);
            // Set once: the node has only just been made.
            let _ = state.eth.set(public.eth);
            let _ = state.forwarder.set(public.forwarder);
        }
        let mut own = rpc::module(
            Arc::clone(&state),
            &outputs,
            config.http.subscriber_queue as usize,
            config.rpc.slow_after(),
            Arc::clone(&memory),
            runtimes.serving(),
        );
        let about = fragcast_rpc::about::module(about, http.method_names());
        own.merge(about)?;
        let pictures = live::hub(&state, config.rpc.slow_after(), Arc::clone(&memory));
        own.merge(pictures.module(live::NAMES))?;
        http.merge(own.clone())?;
        if let Some(preconf) = &mut preconf {
            preconf.merge(own)?;
        }
        tasks.push(runtimes.serving().spawn(pictures.run()));
        let chain = state.executor.as_ref().map(|executor| executor.view().subscribe());
        let following = live::follow(Arc::clone(&state), outputs.subscribe(), chain);
        tasks.push(runtimes.serving().spawn(following));
        let opening = Opening {
            config: &config,
            runtimes: &runtimes,
            state: &state,
            ingest: ingest.module().into(),
            http,
            preconf,
            memory,
            descriptors,
        };
        let ports = opening.open(Listeners {
            ingest: sockets.ingest,
            http: sockets.http,
            admin: sockets.admin,
            metrics: sockets.metrics,
        })?;
        // Set once: the node has only just been made.
        let numbers = ports.numbers().into_iter().chain(flashblocks.as_ref().map(Door::numbers));
        let _ = state.ports.set(numbers.collect());
        let upkeep = tokio::spawn(metrics::upkeep(Arc::clone(&state)));
        if live {
            let (all, net) = (state.network.bootstrap.clone(), state.net.clone());
            tasks.push(tokio::spawn(bootstrap::call(all, peer, net)));
        }
        if let Some((source, status)) = weights.zip(state.weights.clone()) {
            let (poll, net) = (Duration::from_secs(config.members.poll_s), state.net.clone());
            let timeout = Duration::from_millis(config.client.timeout_ms);
            tasks.push(tokio::spawn(weights::follow(source, poll, timeout, status, net)));
        }
        if let Some((settings, status)) = delegating.zip(state.delegation.clone()) {
            let keeper = delegating::Keeper::new(settings, state.net.clone(), status);
            tasks.push(tokio::spawn(keeper.run()));
        }
        if let Some(registry) = registry {
            let follower = registry.follow(state.net.clone(), &state.network);
            tasks.push(tokio::spawn(follower.run()));
        }

        let pump = Pump {
            state: Arc::clone(&state),
            sequencer: Sequencer::new(substitutes),
            outputs: outputs.clone(),
            engine,
            feed: state.executor.clone().map(|executor| Feed::new(executor, ahead)),
            tap,
            lines: Limiter::default(),
        };
        let events = runtimes.overlay().spawn(pump.run(events, own_rx));
        let addresses = Addresses {
            p2p,
            gossip: gossip.as_ref().map_or_else(Vec::new, |(handle, _)| gossip::addresses(handle)),
            ingest: ingest_address,
            http: http_address,
            admin: admin_address,
            metrics: metrics_address,
            flashblocks: flashblocks_address,
        };
        Ok(Self {
            state,
            addresses,
            outputs,
            ports,
            tasks,
            flashblocks,
            upkeep,
            driver: Some(driver),
            gossip: gossip.map(|(_, task)| task),
            events: Some(events),
            _runtimes: runtimes,
        })
    }

    /// The addresses that it listens on.
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its state.
    pub const fn state(&self) -> &Arc<NodeState> {
        &self.state
    }

    /// The outputs from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Output> {
        self.outputs.subscribe()
    }

    /// Resolves with the name of a task that carries messages, or of the thread that executes them,
    /// when it has ended by itself, which it should not.
    pub async fn failed(&mut self) -> &'static str {
        async fn ended<T>(task: &mut Option<JoinHandle<T>>) {
            match task {
                Some(running) => drop(running.await),
                None => std::future::pending().await,
            }
            *task = None;
        }
        tokio::select! {
            () = ended(&mut self.driver) => "the overlay's driver",
            () = ended(&mut self.gossip) => "gossip",
            () = ended(&mut self.events) => "the pump, which hands messages on,",
            () = executor_ended(self.state.executor.as_deref()) => "the executor",
        }
    }

    /// Stops the node: servers first, then the overlay, then the remaining outputs.
    pub async fn stop(self) {
        self.ports.stop().await;
        if let Some(door) = self.flashblocks {
            door.close().await;
        }
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        self.upkeep.abort();
        let _ = self.upkeep.await;
        if let Some(handle) = &self.state.gossip {
            handle.shutdown().await;
        }
        if let Some(mut gossip) = self.gossip
            && tokio::time::timeout(Duration::from_secs(3), &mut gossip).await.is_err()
        {
            gossip.abort();
        }
        self.state.net.shutdown().await;
        if let Some(mut driver) = self.driver {
            let ended = tokio::time::timeout(GOODBYE, &mut driver).await;
            if ended.is_err() {
                driver.abort();
                let _ = driver.await;
            }
            if !matches!(ended, Ok(Ok(true))) {
                tracing::warn!(
                    "the overlay's port {} may stay in use for a while",
                    self.addresses.p2p
                );
            }
        }
        // The driver was the pump's source: it hands on what is left, and ends.
        if let Some(mut events) = self.events
            && tokio::time::timeout(Duration::from_secs(1), &mut events).await.is_err()
        {
            events.abort();
        }
        // What was handed in is still executed, if that takes no time worth mentioning.
        if let Some(executor) = &self.state.executor {
            let idle = async {
                while executor.queued() > 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let _ = tokio::time::timeout(LAST_BLOCKS, idle).await;
            executor.interrupt();
        }
    }
}
