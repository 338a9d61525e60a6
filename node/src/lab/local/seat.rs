//! A place in a local network: a node, or what it takes to start it again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alloy_primitives::Address;
use anyhow::{Context, bail};
use ed25519_dalek::SigningKey;
use fragcast_execution::executor::{BlockReport, ReportTap};
use fragcast_turbine::PeerId;
use fragcast_turbine::net::Loss;
use fragcast_turbine::output::Output;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::track::Track;
use super::{ExecutionFactory, lock, prepare::Prepared};
use crate::config::Config;
use crate::gateway::{journal::Journal, keys};
use crate::network::Network;
use crate::node::{Addresses, Node, Parts, Sockets};

/// How long a node that was stopped may keep its ports and its database: a guard against hanging.
const LET_GO: Duration = Duration::from_secs(20);
/// Between two tries to open them.
const TRY: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct Seat {
    /// `None` while it is stopped.
    pub(super) node: Option<Node>,
    pub(super) peer: PeerId,
    pub(super) addresses: Addresses,
    pub(super) track: Arc<Mutex<Track>>,
    /// While true, none of its UDP packets passes.
    pub(super) cut: Arc<AtomicBool>,
    pub(super) loss: Loss,
    /// Its end, if it is stopped.
    ending: Option<JoinHandle<()>>,
    /// Whether it was stopped, and is not ending any more.
    pub(super) ended: Arc<AtomicBool>,
    config: Config,
    identity: SigningKey,
    leads: bool,
    /// The gateway that it runs at the start, if any.
    gateway: Option<Address>,
    network: Network,
    dir: PathBuf,
}

/// What all seats of a network share.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) news: &'a Arc<Notify>,
    pub(super) execution: Option<&'a ExecutionFactory>,
}

/// What a seat is taken with.
pub(super) struct Taken {
    pub(super) index: usize,
    pub(super) prepared: Prepared,
    pub(super) network: Network,
    pub(super) dir: PathBuf,
    pub(super) gateway: Option<Address>,
    pub(super) cut: bool,
    pub(super) loss: Loss,
}

impl Seat {
    /// Starts a node.
    pub(super) async fn take(taken: Taken, around: Around<'_>) -> anyhow::Result<Self> {
        let Taken { index, prepared, network, dir, gateway, cut, loss } = taken;
        let Prepared { config, identity, leader, sockets, gossip } = prepared;
        let track = Arc::new(Mutex::new(Track::new()));
        let cut = Arc::new(AtomicBool::new(cut));
        let execution = execution(index, &dir, &track, around)?;
        let leads = leader.is_some();
        let parts = Parts {
            execution,
            config: config.clone(),
            network: network.clone(),
            identity: identity.clone(),
            leader,
            sockets,
            gossip_port: Some(gossip),
            drop_shreds: Some(loss.clone()),
            cut: Some(Arc::clone(&cut)),
            tap: Some(tap(&track, around.news, gateway, &network)),
        };
        let node = Node::start(parts).await.with_context(|| format!("node {index}"))?;
        let (peer, addresses) = (node.state().peer, node.addresses().clone());
        Ok(Self {
            node: Some(node),
            peer,
            addresses,
            track,
            cut,
            loss,
            ending: None,
            ended: Arc::default(),
            config,
            identity,
            leads,
            gateway,
            network,
            dir,
        })
    }

    /// Stops it; says whether it ran. What it takes goes on beside. A node that dies says no goodbye:
    /// none of its packets passes any more.
    pub(super) fn stop(&mut self, dies: bool) -> bool {
        let Some(node) = self.node.take() else { return false };
        if dies {
            self.cut.store(true, Ordering::Relaxed);
        }
        let ended = Arc::clone(&self.ended);
        self.ending = Some(tokio::spawn(async move {
            node.stop().await;
            ended.store(true, Ordering::Relaxed);
        }));
        true
    }

    /// Starts it again, with the directory, the keys and the ports that it had.
    pub(super) async fn start(
        &mut self,
        index: usize,
        cut: bool,
        around: Around<'_>,
    ) -> anyhow::Result<()> {
        if self.node.is_some() {
            bail!("node {index} runs");
        }
        if let Some(ending) = self.ending.take() {
            let _ = tokio::time::timeout(LET_GO, ending).await;
        }
        self.cut.store(cut, Ordering::Relaxed);
        lock(&self.track).begin_again();
        // What held its ports and its database lets go of them when it has its turn.
        let since = Instant::now();
        let (sockets, execution) = loop {
            let sockets = Sockets::bind(&self.config);
            let opened = sockets.and_then(|sockets| {
                Ok((sockets, execution(index, &self.dir, &self.track, around)?))
            });
            match opened {
                Ok(opened) => break opened,
                Err(error) if since.elapsed() > LET_GO => return Err(error),
                Err(_) => tokio::time::sleep(TRY).await,
            }
        };
        let leader = match self.leads {
            true => {
                let key = keys::read_ed25519(&self.config.leader.key)?;
                Some((key, Journal::open(&self.config.leader.journal)?))
            }
            false => None,
        };
        let parts = Parts {
            execution,
            config: self.config.clone(),
            network: self.network.clone(),
            identity: self.identity.clone(),
            leader,
            sockets,
            gossip_port: None,
            drop_shreds: Some(self.loss.clone()),
            cut: Some(Arc::clone(&self.cut)),
            tap: Some(tap(&self.track, around.news, self.gateway, &self.network)),
        };
        let node = Node::start(parts).await.with_context(|| format!("node {index}"))?;
        self.addresses = node.addresses().clone();
        self.node = Some(node);
        self.ended.store(false, Ordering::Relaxed);
        Ok(())
    }
}

fn execution(
    index: usize,
    dir: &Path,
    track: &Arc<Mutex<Track>>,
    around: Around<'_>,
) -> anyhow::Result<Option<crate::node::Execution>> {
    let make = |make: &ExecutionFactory| make(index, dir, reports(track, around.news));
    around.execution.map(make).transpose()
}

/// Notes what a node hands on. `me` is the gateway that it runs.
fn tap(
    track: &Arc<Mutex<Track>>,
    news: &Arc<Notify>,
    me: Option<Address>,
    network: &Network,
) -> crate::node::Tap {
    let (seen, told) = (Arc::clone(track), Arc::clone(news));
    let schedule = network.schedule.clone();
    Box::new(move |output: &Output| {
        let block = output.block();
        let own = me.is_some() && Some(schedule.gateway(block)) == me;
        let is_me = |(gateway, _): (Address, u64)| Some(gateway) == me;
        let next = !own && me.is_some() && schedule.next(block).next().is_some_and(is_me);
        lock(&seen).take(output, next, own);
        told.notify_waiters();
    })
}

/// Notes what a node's executor reports.
fn reports(track: &Arc<Mutex<Track>>, news: &Arc<Notify>) -> ReportTap {
    let (seen, told) = (Arc::clone(track), Arc::clone(news));
    Box::new(move |report: &BlockReport| {
        lock(&seen).reports.insert(report.number, report.clone());
        told.notify_waiters();
    })
}
