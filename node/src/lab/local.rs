//! A whole network on this machine: complete nodes over loopback QUIC, each with its own key,
//! endpoint and directory, and an observer of all of them. `devnet` and `replay` run on it.

mod options;
mod prepare;
mod track;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256};
use anyhow::{Context, bail};
use fragcast_execution::executor::{BlockReport, ReportTap};
use fragcast_shredder::{GatewayKey, Kind, Message, VerifiedMessage};
use fragcast_turbine::Delegation;
use fragcast_turbine::gossip::links;
use fragcast_turbine::output::Output;
use fragcast_upstream::http::HttpClient;
use fragcast_upstream::jsonrpc::Request;
use serde_json::Value;
use tokio::sync::Notify;

use crate::gateway::ingest;
use crate::gateway::keys;
use crate::members::Bootstrap;
use crate::network::{Network, NetworkFile};
use crate::node::{Execution, Node, Parts};

pub use options::LocalOptions;
pub use track::{Track, digest};

use prepare::{delegate, network_file, prepare, write};

/// Makes the execution settings of node `index` with this directory; the tap must be passed on.
pub type ExecutionFactory =
    dyn Fn(usize, &Path, ReportTap) -> anyhow::Result<Execution> + Send + Sync;

/// A running local network.
pub struct LocalNetwork {
    nodes: Vec<Node>,
    gateways: Vec<GatewayKey>,
    network: Network,
    options: LocalOptions,
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
        if options.guests + 2 > options.nodes {
            bail!("a network of {} nodes has at least 2 members", options.nodes);
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
        let registered = options.registered.clamp(1, options.gateways);
        let members = &prepared[..options.nodes - options.guests];
        let file = network_file(options, &gateways[..registered], members);
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
            let early = gateways.get(index).filter(|_| index >= registered);
            let early = early.and_then(|gateway| delegate(options.chain_id, gateway, &node));
            let early = early.into_iter().collect();
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
            let report_tap = reports(&track, &news);
            let dir = options.dir.join(format!("node-{index}"));
            let execution = execution.map(|make| make(index, &dir, report_tap)).transpose()?;
            let parts = Parts {
                execution,
                config: node.config,
                network: Network { early, ..network.clone() },
                identity: node.identity,
                leader: node.leader,
                sockets: node.sockets,
                gossip_port: Some(node.gossip),
                drop_shreds: (options.loss > 0.0)
                    .then_some((options.loss, options.seed.wrapping_add(index as u64))),
                cut: Some(Arc::clone(&cut)),
                tap: Some(Box::new(tap)),
            };
            nodes.push(Node::start(parts).await.with_context(|| format!("node {index}"))?);
            tracks.push(track);
        }
        let http = HttpClient { timeout: Duration::from_secs(60), ..HttpClient::default() };
        let (sent, cuts) = (BTreeMap::new(), Vec::new());
        let options = options.clone();
        Ok(Self { nodes, gateways, network, options, tracks, news, http, sent, cut, cuts })
    }

    /// Starts another node, which knows a bootstrap address, that of node `first`, and the registry. It
    /// has a leader's key, to which nobody has delegated. Gives its number.
    ///
    /// # Errors
    /// A part could not be set up.
    pub async fn join(
        &mut self,
        first: usize,
        execution: Option<&ExecutionFactory>,
    ) -> anyhow::Result<usize> {
        let index = self.nodes.len();
        let options = LocalOptions { gateways: index + 1, ..self.options.clone() };
        let prepared = prepare(&options, index)?;
        let to = &self.nodes[first];
        let bootstrap = Bootstrap { peer: to.state().peer, host: to.addresses().p2p.to_string() };
        let file = NetworkFile {
            gateways: Vec::new(),
            bootstrap: vec![bootstrap],
            delegations: Vec::new(),
            members: Vec::new(),
            ..network_file(&self.options, &self.gateways, &[])
        };
        let dir = self.options.dir.join(format!("node-{index}"));
        write(&dir.join("network.toml"), &toml::to_string(&file)?)?;
        let track = Arc::new(Mutex::new(Track::new()));
        let (seen, told) = (Arc::clone(&track), Arc::clone(&self.news));
        let tap = move |output: &Output| {
            lock(&seen).take(output, false, false);
            told.notify_waiters();
        };
        let report_tap = reports(&track, &self.news);
        let execution = execution.map(|make| make(index, &dir, report_tap)).transpose()?;
        let parts = Parts {
            execution,
            config: prepared.config,
            network: file.check_with_registry()?,
            identity: prepared.identity,
            leader: prepared.leader,
            sockets: prepared.sockets,
            gossip_port: Some(prepared.gossip),
            drop_shreds: None,
            cut: Some(Arc::clone(&self.cut)),
            tap: Some(Box::new(tap)),
        };
        self.nodes.push(Node::start(parts).await.with_context(|| format!("node {index}"))?);
        self.tracks.push(track);
        Ok(index)
    }

    /// Ends the node that came last, without a word to anybody but its connections' goodbye.
    pub async fn leave(&mut self) {
        if let Some(node) = self.nodes.pop() {
            self.tracks.pop();
            node.stop().await;
        }
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
        let all = self.network.members.len() - 1;
        let wait = async {
            // Of gossip's links each has at least one; small networks are linked completely.
            let links = all.min(links::LINKS / 4);
            let apart = |node: &Node| {
                let shared = node.state();
                let gossip = shared.gossip.as_ref().map(|gossip| gossip.snapshot().members);
                let net = shared.net.snapshot();
                // A guest is connected to few, and one of them sends it everything.
                let lacking = match &net.attached {
                    Some(attached) => !attached.granted,
                    None => net.connected < all,
                };
                lacking || gossip.is_some_and(|n| n < links)
            };
            while self.nodes.iter().any(apart) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(guard, wait)
            .await
            .with_context(|| format!("the nodes did not connect within {guard:?}"))
    }

    /// Lets another node lead for a gateway from a block on: its gateway signs a delegation with the
    /// next sequence, which the first node tells to the others.
    ///
    /// # Errors
    /// The node has no leader's key, or the delegation is refused.
    pub async fn delegate(&self, gateway: usize, to: usize, first: u64) -> anyhow::Result<()> {
        let (key, state) = (&self.gateways[gateway], self.nodes[to].state());
        let epochs = self.nodes[0].state().net.epochs();
        let known = epochs.newest().delegations().leader(&key.address(), first);
        let delegation = Delegation {
            chain_id: self.options.chain_id,
            first,
            last: u64::MAX,
            sequence: known.map_or(0, |leader| leader.signed.delegation.sequence) + 1,
            peer: state.peer,
            key: state.leader_key.context("the node has no leader's key")?,
        };
        self.nodes[0].state().net.delegation(delegation.sign(key)).await?;
        Ok(())
    }

    /// Signs a message with its gateway's key and posts it to the node that leads.
    ///
    /// # Errors
    /// The node's error.
    pub async fn post(&mut self, message: Message) -> anyhow::Result<()> {
        let block = message.block();
        let leader = self.leader(block);
        let gateway = &self.gateways[self.gateway(block)];
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

    /// Signs a message with the key of a gateway that is not the scheduled one, and posts it to that
    /// gateway's node.
    ///
    /// # Errors
    /// The node's error.
    pub async fn post_as(&mut self, gateway: usize, message: Message) -> anyhow::Result<()> {
        let block = message.block();
        let verified = self.gateways[gateway].sign_verified(message);
        self.call(gateway, &verified).await?;
        let sent = self.sent.entry(block).or_default();
        if verified.message().kind() == Kind::Env {
            sent.clear();
        }
        sent.push(verified.root());
        Ok(())
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

    /// The gateway of `block`.
    fn gateway(&self, block: u64) -> usize {
        // As the first node has it: with a registry the list changes.
        let gateway = self.nodes[0].state().net.epochs().gateway(block);
        let gateway = gateway.unwrap_or_else(|| self.network.schedule.gateway(block));
        let index = self.gateways.iter().position(|g| g.address() == gateway);
        index.expect("the schedule is made of these gateways")
    }

    /// The node that leads `block`.
    pub fn leader(&self, block: u64) -> usize {
        let epochs = self.nodes[0].state().net.epochs();
        let leads = |node: &Node| {
            epochs.leader(block).is_some_and(|leader| leader.peer == node.state().peer)
        };
        // Of a gateway that has not delegated yet, the node that will lead for it.
        self.nodes.iter().position(leads).unwrap_or_else(|| self.gateway(block))
    }

    /// Waits until every node has what was posted of `block`; false after `guard`.
    pub async fn arrived(&self, block: u64, guard: Duration) -> bool {
        let Some(roots) = self.sent.get(&block) else { return true };
        self.wait(guard, || self.tracks.iter().all(|track| lock(track).has(block, roots))).await
    }

    /// The same of some nodes.
    pub async fn arrived_at(&self, nodes: &[usize], block: u64, guard: Duration) -> bool {
        let Some(roots) = self.sent.get(&block) else { return true };
        let has = |node: &usize| lock(&self.tracks[*node]).has(block, roots);
        self.wait(guard, || nodes.iter().all(has)).await
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

    /// The addresses of all gateways, registered or not.
    pub fn gateways(&self) -> Vec<Address> {
        self.gateways.iter().map(GatewayKey::address).collect()
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

/// Notes what a node's executor reports.
fn reports(track: &Arc<Mutex<Track>>, news: &Arc<Notify>) -> ReportTap {
    let (seen, told) = (Arc::clone(track), Arc::clone(news));
    Box::new(move |report: &BlockReport| {
        lock(&seen).reports.insert(report.number, report.clone());
        told.notify_waiters();
    })
}
