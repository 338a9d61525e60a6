//! A whole network on this machine: complete nodes over loopback QUIC, each with its own key,
//! endpoint and directory, and an observer of all of them. `devnet` and `replay` run on it.

mod faults;
mod options;
mod prepare;
mod seat;
mod track;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256};
use anyhow::{Context, bail};
use fragcast_execution::executor::ReportTap;
use fragcast_shredder::{GatewayKey, Kind, Message, VerifiedMessage};
use fragcast_turbine::gossip::links;
use fragcast_turbine::net::Loss;
use fragcast_turbine::{Delegation, PeerId};
use fragcast_upstream::http::HttpClient;
use fragcast_upstream::jsonrpc::Request;
use serde_json::Value;
use tokio::sync::Notify;

use crate::gateway::ingest;
use crate::gateway::keys;
use crate::members::Bootstrap;
use crate::network::{Network, NetworkFile};
use crate::node::{Addresses, Execution, Node};

pub use options::LocalOptions;
pub use track::{Track, digest};

use prepare::{delegate, network_file, prepare, write};
use seat::{Around, Seat, Taken};

/// Makes the execution settings of node `index` with this directory; the tap must be passed on.
pub type ExecutionFactory =
    dyn Fn(usize, &Path, ReportTap) -> anyhow::Result<Execution> + Send + Sync;

/// A running local network.
pub struct LocalNetwork {
    seats: Vec<Seat>,
    gateways: Vec<GatewayKey>,
    network: Network,
    options: LocalOptions,
    news: Arc<Notify>,
    http: HttpClient,
    /// Roots of the messages handed in, by block.
    sent: BTreeMap<u64, Vec<B256>>,
    /// While true, no UDP packet passes.
    cut: bool,
    /// What every node throws away, but for those that lose most.
    loss: Loss,
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

        let news = Arc::new(Notify::new());
        let around = Around { news: &news, execution };
        let mut seats = Vec::new();
        for (index, prepared) in prepared.into_iter().enumerate() {
            let early = gateways.get(index).filter(|_| index >= registered);
            let early = early.and_then(|gateway| delegate(options.chain_id, gateway, &prepared));
            let taken = Taken {
                index,
                prepared,
                network: Network { early: early.into_iter().collect(), ..network.clone() },
                dir: options.dir.join(format!("node-{index}")),
                gateway: gateways.get(index).map(GatewayKey::address),
                cut: false,
                loss: Loss::new(options.loss, options.seed.wrapping_add(index as u64)),
            };
            seats.push(Seat::take(taken, around).await?);
        }
        let http = HttpClient { timeout: Duration::from_secs(60), ..HttpClient::default() };
        let (sent, cuts) = (BTreeMap::new(), Vec::new());
        let (options, loss) = (options.clone(), Loss::new(options.loss, 0));
        Ok(Self { seats, gateways, network, options, news, http, sent, cut: false, loss, cuts })
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
        let index = self.seats.len();
        let options = LocalOptions { gateways: index + 1, ..self.options.clone() };
        let prepared = prepare(&options, index)?;
        let to = self.node(first).with_context(|| format!("node {first} is stopped"))?;
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
        let taken = Taken {
            index,
            prepared,
            network: file.check_with_registry()?,
            dir,
            gateway: None,
            cut: self.cut,
            loss: Loss::new(0.0, 0),
        };
        let around = Around { news: &self.news, execution };
        self.seats.push(Seat::take(taken, around).await?);
        Ok(index)
    }

    /// Ends the node that came last, without a word to anybody but its connections' goodbye.
    pub async fn leave(&mut self) {
        if let Some(node) = self.seats.pop().and_then(|seat| seat.node) {
            node.stop().await;
        }
    }

    /// Stops a node, which can be started again; says whether it ran. It ends beside what the caller
    /// does. A node that `dies` says no goodbye to its peers.
    pub fn stop_node(&mut self, index: usize, dies: bool) -> bool {
        self.seats.get_mut(index).is_some_and(|seat| seat.stop(dies))
    }

    /// Starts a node again that was stopped, with the directory, the keys and the ports that it had.
    ///
    /// # Errors
    /// It runs, or a part could not be set up.
    pub async fn start_node(
        &mut self,
        index: usize,
        execution: Option<&ExecutionFactory>,
    ) -> anyhow::Result<()> {
        let around = Around { news: &self.news, execution };
        let seat =
            self.seats.get_mut(index).with_context(|| format!("there is no node {index}"))?;
        seat.loss.set(self.loss.share());
        seat.start(index, self.cut, around).await
    }

    /// From now on every node throws away this share of its outgoing shreds.
    pub fn set_loss(&self, share: f64) {
        self.loss.set(share);
        self.seats.iter().for_each(|seat| seat.loss.set(share));
    }

    /// The share that every node throws away, but for those that lose most.
    pub fn loss(&self) -> f64 {
        self.loss.share()
    }

    /// Whether no UDP packet passes.
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// Blocks all UDP packets from now on, as a firewall would, or lets them pass again.
    pub fn fail_turbine(&mut self, fail: bool) {
        self.cut = fail;
        // Whoever is dead stays so.
        for seat in self.seats.iter().filter(|seat| seat.node.is_some()) {
            seat.cut.store(fail, Ordering::Relaxed);
        }
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
            while self.nodes().into_iter().any(apart) {
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
        let (key, nodes) = (&self.gateways[gateway], self.nodes());
        let state = self.node(to).with_context(|| format!("node {to} is stopped"))?.state();
        let first_node = nodes.first().context("all nodes are stopped")?.state();
        let epochs = first_node.net.epochs();
        let known = epochs.newest().delegations().leader(&key.address(), first);
        let delegation = Delegation {
            chain_id: self.options.chain_id,
            first,
            last: u64::MAX,
            sequence: known.map_or(0, |leader| leader.signed.delegation.sequence) + 1,
            peer: state.peer,
            key: state.leader_key.context("the node has no leader's key")?,
        };
        first_node.net.delegation(delegation.sign(key)).await?;
        Ok(())
    }

    /// Signs a message with its gateway's key and posts it to the node that leads.
    ///
    /// # Errors
    /// The node's error.
    pub async fn post(&mut self, message: Message) -> anyhow::Result<()> {
        let block = message.block();
        let verified = self.gateways[self.gateway(block)].sign_verified(message);
        let sent = self.sent.entry(block).or_default();
        if verified.message().kind() == Kind::Env {
            sent.clear();
        }
        sent.push(verified.root());
        if let Some(cut) = self.cuts.last_mut().filter(|cut| cut.until.is_none()) {
            cut.missing.get_or_insert_with(unix_nanos);
        }
        self.call(self.leader(block), &verified).await
    }

    /// Posts a message again that was not taken.
    ///
    /// # Errors
    /// The node's error.
    pub async fn repost(&self, message: Message) -> anyhow::Result<()> {
        let block = message.block();
        let verified = self.gateways[self.gateway(block)].sign_verified(message);
        self.call(self.leader(block), &verified).await
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
        let url = format!("http://{}", self.seats[node].addresses.ingest);
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
        let nodes = self.nodes();
        let gateway = nodes.first().and_then(|node| node.state().net.epochs().gateway(block));
        let gateway = gateway.unwrap_or_else(|| self.network.schedule.gateway(block));
        let index = self.gateways.iter().position(|g| g.address() == gateway);
        index.expect("the schedule is made of these gateways")
    }

    /// The node that leads `block`.
    pub fn leader(&self, block: u64) -> usize {
        let nodes = self.nodes();
        let epochs = nodes.first().map(|node| node.state().net.epochs());
        let leads = |seat: &Seat| {
            let leader = epochs.as_ref().and_then(|epochs| epochs.leader(block));
            leader.is_some_and(|leader| leader.peer == seat.peer)
        };
        // Of a gateway that has not delegated yet, the node that will lead for it.
        self.seats.iter().position(leads).unwrap_or_else(|| self.gateway(block))
    }

    /// Waits until every node that runs has what was posted of `block`; false after `guard`.
    pub async fn arrived(&self, block: u64, guard: Duration) -> bool {
        let Some(roots) = self.sent.get(&block) else { return true };
        self.wait(guard, || self.running().all(|seat| lock(&seat.track).has(block, roots))).await
    }

    /// The seats whose nodes run.
    fn running(&self) -> impl Iterator<Item = &Seat> {
        self.seats.iter().filter(|seat| seat.node.is_some())
    }

    /// The same of some nodes.
    pub async fn arrived_at(&self, nodes: &[usize], block: u64, guard: Duration) -> bool {
        let Some(roots) = self.sent.get(&block) else { return true };
        let has = |node: &usize| lock(&self.seats[*node].track).has(block, roots);
        self.wait(guard, || nodes.iter().all(has)).await
    }

    /// Forgets the nodes' reports on `block`, which is about to be built (again).
    pub fn unjudge(&self, block: u64) {
        for seat in &self.seats {
            lock(&seat.track).reports.remove(&block);
        }
    }

    /// Waits until every node that runs has a verdict on `block`; false after `guard`.
    pub async fn judged(&self, block: u64, guard: Duration) -> bool {
        self.wait(guard, || {
            self.running().all(|seat| lock(&seat.track).reports.contains_key(&block))
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
        for node in self.nodes() {
            node.state().net.head(block).await;
        }
    }

    /// The addresses of all gateways, registered or not.
    pub fn gateways(&self) -> Vec<Address> {
        self.gateways.iter().map(GatewayKey::address).collect()
    }

    /// The nodes that run, in their order: all of them, unless one was stopped.
    pub fn nodes(&self) -> Vec<&Node> {
        self.seats.iter().filter_map(|seat| seat.node.as_ref()).collect()
    }

    /// How many nodes there are, stopped or not.
    pub const fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether there is no node.
    pub const fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// A node, unless it is stopped.
    pub fn node(&self, index: usize) -> Option<&Node> {
        self.seats.get(index)?.node.as_ref()
    }

    /// Becomes true when a node that was stopped has ended, for others to read.
    pub(crate) fn ended(&self, index: usize) -> Arc<AtomicBool> {
        Arc::clone(&self.seats[index].ended)
    }

    /// The peer id of a node, stopped or not.
    pub fn peer(&self, index: usize) -> Option<PeerId> {
        self.seats.get(index).map(|seat| seat.peer)
    }

    /// Where a node listens, or listened before it was stopped.
    pub fn addresses(&self, index: usize) -> Option<&Addresses> {
        self.seats.get(index).map(|seat| &seat.addresses)
    }

    /// Reads the observations of node `index`.
    pub fn track<T>(&self, index: usize, read: impl FnOnce(&Track) -> T) -> T {
        read(&lock(&self.seats[index].track))
    }

    /// The observations of node `index`, for others to read.
    pub(crate) fn seen(&self, index: usize) -> Arc<Mutex<Track>> {
        Arc::clone(&self.seats[index].track)
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
        let stopping = self.seats.into_iter().filter_map(|seat| seat.node).map(Node::stop);
        futures_util::future::join_all(stopping).await;
    }
}
