//! A whole network on this machine: complete nodes over loopback QUIC, each with its own key,
//! endpoint and directory, and an observer of all of them. `devnet` and `replay` run on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{B256, keccak256};
use anyhow::{Context, bail};
use ed25519_dalek::SigningKey;
use fragcast_execution::executor::{BlockReport, ReportTap};
use fragcast_shredder::{Dialect, GatewayKey, Kind, Message, VerifiedMessage};
use fragcast_turbine::gossip::links;
use fragcast_turbine::membership::RecordBody;
use fragcast_turbine::output::{Output, Via};
use fragcast_turbine::{Delegation, Mode, PeerId, Policy};
use fragcast_upstream::http::HttpClient;
use fragcast_upstream::jsonrpc::Request;
use hdrhistogram::Histogram;
use serde_json::Value;
use tokio::sync::Notify;

use crate::config::Config;
use crate::gateway::ingest;
use crate::gateway::journal::Journal;
use crate::gateway::keys;
use crate::network::{MemberEntry, Network, NetworkFile};
use crate::node::{Execution, Node, Parts, Sockets};

/// Settings of a local network.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Nodes in all.
    pub nodes: usize,
    /// Gateways; gateway g is run by node g.
    pub gateways: usize,
    /// Blocks that a gateway leads at a time.
    pub blocks_per_term: u64,
    /// Chain id.
    pub chain_id: u64,
    /// Dialect.
    pub dialect: Dialect,
    /// Share of shreds that every sender throws away.
    pub loss: f64,
    /// Pacing of every node, Mbit/s.
    pub uplink_mbit: u64,
    /// Route policy, as in the configuration.
    pub route: String,
    /// The directory of the nodes' directories.
    pub dir: PathBuf,
    /// Seed of the losses.
    pub seed: u64,
    /// The address at which all gateways accept users' transactions.
    pub gateway_url: Option<String>,
    /// Port of node 0's public JSON-RPC; 0: chosen by the system.
    pub http_port: u16,
    /// Reads of `latest` see the newest executed frag.
    pub preconf_as_latest: bool,
    /// How much the nodes use gossip.
    pub policy: Policy,
    /// How messages travel.
    pub mode: Mode,
    /// Port of node 0's gossip; 0: chosen by the system.
    pub gossip_port: u16,
    /// Gives every node a Flashblocks WebSocket; node 0's is at this port, 0: chosen by the system.
    pub flashblocks_port: Option<u16>,
}

impl LocalOptions {
    /// Two nodes in `dir`, of which the first leads for the only gateway; the overlay alone,
    /// without loss.
    pub fn new(dir: &Path) -> Self {
        Self {
            nodes: 2,
            gateways: 1,
            blocks_per_term: 30,
            chain_id: 901,
            dialect: Dialect::V0,
            loss: 0.0,
            uplink_mbit: 200,
            route: "auto".into(),
            dir: dir.to_owned(),
            seed: 0,
            gateway_url: None,
            http_port: 0,
            preconf_as_latest: false,
            policy: Policy::Off,
            mode: Mode::Turbine,
            gossip_port: 0,
            flashblocks_port: None,
        }
    }
}

/// Observations of one node's outputs.
#[derive(Debug)]
pub struct Track {
    /// Roots by block, in the order in which they came.
    blocks: BTreeMap<u64, Vec<B256>>,
    /// Blocks whose Seal came.
    sealed: BTreeSet<u64>,
    /// Messages handed on.
    pub messages: u64,
    /// Messages handed on, by the way that was first.
    pub by_way: BTreeMap<Via, u64>,
    /// Latency from the leader to this node, µs, of messages that came over the network.
    pub latency: Histogram<u64>,
    /// The same latency in the terms before this node's own.
    pub as_next_leader: Histogram<u64>,
    /// Messages that came out of order. Always 0.
    disorder: u64,
    /// The last verdict on each block.
    pub reports: BTreeMap<u64, BlockReport>,
}

/// Makes the execution settings of node `index` with this directory; the tap must be passed on.
pub type ExecutionFactory =
    dyn Fn(usize, &Path, ReportTap) -> anyhow::Result<Execution> + Send + Sync;

impl Track {
    fn new() -> Self {
        // One µs to one minute at three digits: 200 kB.
        let histogram = || Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
        Self {
            blocks: BTreeMap::new(),
            sealed: BTreeSet::new(),
            messages: 0,
            by_way: BTreeMap::new(),
            latency: histogram(),
            as_next_leader: histogram(),
            disorder: 0,
            reports: BTreeMap::new(),
        }
    }

    /// How many blocks have this verdict.
    pub fn verdicts(&self, name: &str) -> usize {
        self.reports.values().filter(|report| report.verdict.name() == name).count()
    }

    fn take(&mut self, output: &Output, next_leader: bool, own: bool) {
        match output {
            Output::Retracted { block, .. } => {
                self.blocks.remove(block);
                self.sealed.remove(block);
            }
            Output::Message(m) => {
                let roots = self.blocks.entry(m.key.block).or_default();
                self.disorder += u64::from(roots.len() != usize::from(m.key.message));
                roots.push(m.message.root());
                self.messages += 1;
                *self.by_way.entry(m.via).or_default() += 1;
                if m.message.message().kind() == Kind::Seal {
                    self.sealed.insert(m.key.block);
                }
                if let Some(took) = m.times.latency().filter(|_| !own) {
                    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
                    self.latency.saturating_record(micros);
                    if next_leader {
                        self.as_next_leader.saturating_record(micros);
                    }
                }
            }
        }
    }

    /// How many blocks are sealed.
    pub fn sealed(&self) -> usize {
        self.sealed.len()
    }

    /// Whether the block's messages are exactly these, in this order.
    pub fn has(&self, block: u64, roots: &[B256]) -> bool {
        self.disorder == 0 && self.blocks.get(&block).is_some_and(|have| have == roots)
    }

    /// keccak256 over all message roots by block and order.
    pub fn digest(&self) -> B256 {
        digest(self.blocks.values().flatten())
    }
}

/// keccak256 over roots.
pub fn digest<'a>(roots: impl Iterator<Item = &'a B256>) -> B256 {
    keccak256(roots.flatten().copied().collect::<Vec<u8>>())
}

/// A running local network.
pub struct LocalNetwork {
    nodes: Vec<Node>,
    gateways: Vec<GatewayKey>,
    network: Network,
    tracks: Vec<Arc<Mutex<Track>>>,
    news: Arc<Notify>,
    http: HttpClient,
    /// Roots of the messages handed in, by block.
    sent: BTreeMap<u64, Vec<B256>>,
    /// While true, no UDP packet passes.
    cut: Arc<AtomicBool>,
    /// The times when no UDP packet passed, with the first message handed in during each.
    cuts: Vec<Cut>,
}

/// A period in which no UDP packet passed, in nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// When it began.
    pub from: u64,
    /// When the first message was handed in after that, which is the first that the overlay missed.
    pub missing: Option<u64>,
    /// When it ended.
    pub until: Option<u64>,
}

fn unix_nanos() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn lock(track: &Mutex<Track>) -> MutexGuard<'_, Track> {
    track.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Prepared {
    config: Config,
    identity: SigningKey,
    leader: Option<(SigningKey, Journal)>,
    sockets: Sockets,
    gossip: TcpListener,
}

/// Makes a node's directory: keys, journal, configuration, and sockets on ports of the system's
/// choice.
fn prepare(options: &LocalOptions, index: usize) -> anyhow::Result<Prepared> {
    let dir = options.dir.join(format!("node-{index}"));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config {
        network: options.dir.join("network.toml"),
        identity: dir.join("identity.key"),
        ..Config::default()
    };
    config.leader.key = dir.join("leader.key");
    config.leader.journal = dir.join("leader.journal");
    config.leader.route.clone_from(&options.route);
    config.leader.loss_per_hop = options.loss.clamp(0.02, 0.5);
    config.p2p.uplink_mbit = options.uplink_mbit;
    // Everybody has the same address here.
    config.p2p.max_connections_per_address = 4 * options.nodes + 64;
    config.p2p.max_handshakes = 4 * options.nodes + 64;
    config.p2p.listen = any;
    config.ingest.listen = any;
    config.http.listen = any;
    if index == 0 {
        config.http.listen.set_port(options.http_port);
    }
    config.gossip.policy = options.policy;
    config.gossip.mode = options.mode;
    config.gossip.max_connections = 4 * options.nodes + 64;
    config.gossip.max_connections_per_address = config.gossip.max_connections;
    let gossip_port = if index == 0 { options.gossip_port } else { 0 };
    // libp2p takes no socket, and the others must know the port: it is held until the node starts.
    let gossip = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], gossip_port)))
        .with_context(|| format!("cannot listen on TCP port {gossip_port} for gossip"))?;
    config.gossip.listen = format!("/ip4/127.0.0.1/tcp/{}", gossip.local_addr()?.port());
    config.rpc.preconf_as_latest = options.preconf_as_latest;
    if let Some(port) = options.flashblocks_port {
        let port = if index == 0 { port } else { 0 };
        config.flashblocks.listen = SocketAddr::new(any.ip(), port).to_string();
    }
    config.admin.listen = any;
    config.metrics.listen = any;
    config.check()?;
    let sockets = Sockets::bind(&config)?;
    config.p2p.listen = sockets.p2p.local_addr()?;
    config.ingest.listen = sockets.ingest.local_addr()?;
    config.http.listen = sockets.http.local_addr()?;
    config.admin.listen = sockets.admin.local_addr()?;
    config.metrics.listen = sockets.metrics.local_addr()?;
    if let Some(door) = &sockets.flashblocks {
        config.flashblocks.listen = door.local_addr()?.to_string();
    }

    let identity = keys::create_ed25519(&config.identity)?;
    let leader = if index < options.gateways {
        let key = keys::create_ed25519(&config.leader.key)?;
        Journal::create(&config.leader.journal)?;
        Some((key, Journal::open(&config.leader.journal)?))
    } else {
        None
    };
    write(&dir.join("node.toml"), &config.example())?;
    Ok(Prepared { config, identity, leader, sockets, gossip })
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn network_file(
    options: &LocalOptions,
    gateways: &[GatewayKey],
    nodes: &[Prepared],
) -> NetworkFile {
    let chain_id = options.chain_id;
    let urls = gateways.iter().filter_map(|g| Some((g.address(), options.gateway_url.clone()?)));
    let gateway_urls = urls.collect();
    let members = nodes.iter().map(|node| {
        let body = RecordBody {
            chain_id,
            peer: PeerId(node.identity.verifying_key().to_bytes()),
            sequence: 1,
            uplink_kbps: u32::try_from(options.uplink_mbit * 1_000).unwrap_or(u32::MAX),
            coordinates: [0; 4],
            addresses: vec![node.config.p2p.listen.into()],
        };
        MemberEntry {
            record: body.sign(&node.identity).to_string(),
            weight: 1,
            gossip: vec![node.config.gossip.listen.clone()],
        }
    });
    let delegations = gateways.iter().zip(nodes).filter_map(|(gateway, node)| {
        let delegation = Delegation {
            chain_id,
            first: 0,
            last: u64::MAX,
            sequence: 1,
            peer: PeerId(node.identity.verifying_key().to_bytes()),
            key: node.leader.as_ref()?.0.verifying_key().to_bytes(),
        };
        Some(delegation.sign(gateway).to_string())
    });
    NetworkFile {
        gateway_urls,
        chain_id,
        dialect: options.dialect,
        blocks_per_term: options.blocks_per_term,
        gateways: gateways.iter().map(GatewayKey::address).collect(),
        delegations: delegations.collect(),
        members: members.collect(),
    }
}

impl LocalNetwork {
    /// Makes the directories and starts all nodes.
    ///
    /// # Errors
    /// A part could not be set up.
    pub async fn start(
        options: &LocalOptions,
        execution: Option<&ExecutionFactory>,
    ) -> anyhow::Result<Self> {
        if options.nodes < 2 {
            bail!("a network needs at least 2 nodes");
        }
        if !(1..=options.nodes).contains(&options.gateways) {
            bail!(
                "between 1 and {} gateways are possible with {} nodes",
                options.nodes,
                options.nodes
            );
        }
        let gateways = (0..options.gateways)
            .map(|g| keys::create_gateway(&options.dir.join(format!("gateway-{g}.key"))))
            .collect::<Result<Vec<_>, _>>()?;
        let prepared = (0..options.nodes)
            .map(|index| prepare(options, index))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let file = network_file(options, &gateways, &prepared);
        write(&options.dir.join("network.toml"), &toml::to_string(&file)?)?;
        write(
            &options.dir.join("README"),
            "Nodes of a local network: each directory has a node.toml for `fragcast run --config`.\n",
        )?;
        let network = file.check()?;

        let cut = Arc::new(AtomicBool::new(false));
        let news = Arc::new(Notify::new());
        let mut nodes = Vec::new();
        let mut tracks = Vec::new();
        for (index, node) in prepared.into_iter().enumerate() {
            let track = Arc::new(Mutex::new(Track::new()));
            let schedule = network.schedule.clone();
            let me = gateways.get(index).map(GatewayKey::address);
            let (seen, told) = (Arc::clone(&track), Arc::clone(&news));
            let tap = move |output: &Output| {
                let block = output.block();
                let own = Some(schedule.gateway(block)) == me;
                let next = !own && schedule.next(block).next().is_some_and(|(g, _)| Some(g) == me);
                lock(&seen).take(output, next, own);
                told.notify_waiters();
            };
            let (seen, told) = (Arc::clone(&track), Arc::clone(&news));
            let report_tap = Box::new(move |report: &BlockReport| {
                lock(&seen).reports.insert(report.number, report.clone());
                told.notify_waiters();
            });
            let dir = options.dir.join(format!("node-{index}"));
            let execution = execution.map(|make| make(index, &dir, report_tap)).transpose()?;
            let parts = Parts {
                execution,
                config: node.config,
                network: network.clone(),
                identity: node.identity,
                leader: node.leader,
                sockets: node.sockets,
                drop_shreds: (options.loss > 0.0)
                    .then_some((options.loss, options.seed.wrapping_add(index as u64))),
                cut: Some(Arc::clone(&cut)),
                tap: Some(Box::new(tap)),
            };
            drop(node.gossip);
            nodes.push(Node::start(parts).await.with_context(|| format!("node {index}"))?);
            tracks.push(track);
        }
        let http = HttpClient { timeout: Duration::from_secs(60), ..HttpClient::default() };
        let (sent, cuts) = (BTreeMap::new(), Vec::new());
        Ok(Self { nodes, gateways, network, tracks, news, http, sent, cut, cuts })
    }

    /// Blocks all UDP packets from now on, as a firewall would, or lets them pass again.
    pub fn fail_turbine(&mut self, fail: bool) {
        self.cut.store(fail, Ordering::Relaxed);
        match (fail, self.cuts.last_mut()) {
            (true, _) => self.cuts.push(Cut { from: unix_nanos(), missing: None, until: None }),
            (false, Some(cut)) => cut.until = Some(unix_nanos()),
            (false, None) => {}
        }
    }

    /// The periods in which no UDP packet passed.
    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// Waits until every node is connected to every other that it is to be connected to.
    ///
    /// # Errors
    /// It takes longer than `guard`.
    pub async fn connected(&self, guard: Duration) -> anyhow::Result<()> {
        let all = self.nodes.len() - 1;
        let wait = async {
            // Of gossip's links each has at least one; small networks are linked completely.
            let links = all.min(links::LINKS / 4);
            let apart = |node: &Node| {
                let shared = node.state();
                let gossip = shared.gossip.as_ref().map(|gossip| gossip.snapshot().members);
                shared.net.snapshot().connected < all || gossip.is_some_and(|n| n < links)
            };
            while self.nodes.iter().any(apart) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(guard, wait)
            .await
            .with_context(|| format!("the nodes did not connect within {guard:?}"))
    }

    /// Signs a message with its gateway's key and posts it to the node that leads.
    ///
    /// # Errors
    /// The node's error.
    pub async fn post(&mut self, message: Message) -> anyhow::Result<()> {
        let block = message.block();
        let leader = self.leader(block);
        let gateway = &self.gateways[leader];
        let verified = gateway.sign_verified(message);
        let sent = self.sent.entry(block).or_default();
        if verified.message().kind() == Kind::Env {
            sent.clear();
        }
        sent.push(verified.root());
        if let Some(cut) = self.cuts.last_mut().filter(|cut| cut.until.is_none()) {
            cut.missing.get_or_insert_with(unix_nanos);
        }
        self.call(leader, &verified).await
    }

    async fn call(&self, node: usize, message: &VerifiedMessage) -> anyhow::Result<()> {
        let (method, param) = ingest::request(message);
        let body = Request::new(method, [param]).to_vec()?;
        let url = format!("http://{}", self.nodes[node].addresses().ingest);
        let (status, answer) = self.http.post_json(&url, None, body).await?;
        let answer: Value = serde_json::from_slice(&answer)
            .with_context(|| format!("{method}: the node answered {status}, and no JSON"))?;
        match answer.get("result") {
            Some(result) if result == "OK" => Ok(()),
            _ => bail!("{method}: {answer}"),
        }
    }

    /// The node that leads `block`.
    pub fn leader(&self, block: u64) -> usize {
        let gateway = self.network.schedule.gateway(block);
        let index = self.gateways.iter().position(|g| g.address() == gateway);
        index.expect("the schedule is made of these gateways")
    }

    /// Waits until every node has what was posted of `block`; false after `guard`.
    pub async fn arrived(&self, block: u64, guard: Duration) -> bool {
        let Some(roots) = self.sent.get(&block) else { return true };
        self.wait(guard, || self.tracks.iter().all(|track| lock(track).has(block, roots))).await
    }

    /// Forgets the nodes' reports on `block`, which is about to be built (again).
    pub fn unjudge(&self, block: u64) {
        for track in &self.tracks {
            lock(track).reports.remove(&block);
        }
    }

    /// Waits until every node has a verdict on `block`; false after `guard`.
    pub async fn judged(&self, block: u64, guard: Duration) -> bool {
        self.wait(guard, || {
            self.tracks.iter().all(|track| lock(track).reports.contains_key(&block))
        })
        .await
    }

    async fn wait(&self, guard: Duration, done: impl Fn() -> bool) -> bool {
        let wait = async {
            loop {
                let told = self.news.notified();
                if done() {
                    return;
                }
                // The notice may have come between the look and the wait.
                let _ = tokio::time::timeout(Duration::from_millis(50), told).await;
            }
        };
        tokio::time::timeout(guard, wait).await.is_ok()
    }

    /// Tells every node where the chain's head is.
    pub async fn set_head(&self, block: u64) {
        for node in &self.nodes {
            node.state().net.head(block).await;
        }
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Reads the observations of node `index`.
    pub fn track<T>(&self, index: usize, read: impl FnOnce(&Track) -> T) -> T {
        read(&lock(&self.tracks[index]))
    }

    /// Roots of the messages posted for a block.
    pub fn sent(&self, block: u64) -> &[B256] {
        self.sent.get(&block).map_or(&[], Vec::as_slice)
    }

    /// keccak256 over the roots of all that was posted.
    pub fn sent_digest(&self) -> B256 {
        digest(self.sent.values().flatten())
    }

    /// Ends all nodes.
    pub async fn stop(self) {
        let stopping = self.nodes.into_iter().map(Node::stop);
        futures_util::future::join_all(stopping).await;
    }
}
