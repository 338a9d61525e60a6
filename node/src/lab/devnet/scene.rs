//! What the devnet's page shows of all nodes together, and what has happened to them.
//!
//! The devnet's loop owns the network. It leaves here what a picture needs: whose state to read, as
//! long as the node runs. So the page never holds a node that is to be stopped.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use fragcast_turbine::PeerId;
use fragcast_turbine::net::{LinkSnapshot, Snapshot, Spread};
use serde_json::{Value, json};

use crate::lab::local::{LocalNetwork, Track};
use crate::serve::live::hub::Sections;
use crate::serve::state::NodeState;

/// Things that happened that are told.
const HAPPENED: usize = 24;
/// Nodes of a network that is looked at with every picture; larger ones with every fifth.
const SMALL: usize = 32;
/// Connections over which shreds went that are told at a time, the busiest.
const LINKS: usize = 400;

/// A node as the page knows it.
struct Shown {
    url: String,
    peer: PeerId,
    /// Dead while it is stopped.
    node: Weak<NodeState>,
    ended: Arc<AtomicBool>,
    seen: Arc<Mutex<Track>>,
}

/// A fault that has a button of its own.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) action: &'static str,
    pub(super) label: &'static str,
    /// Whether it lasts now; `None` if it is over as soon as it is done.
    pub(super) on: Option<bool>,
}

#[derive(Default)]
struct Inner {
    shown: Vec<Shown>,
    loss: f64,
    udp_blocked: bool,
    paused: bool,
    faults: Vec<Fault>,
    happened: VecDeque<(u64, String)>,
    /// Datagrams received, by whom and from whom.
    received: BTreeMap<(usize, usize), u64>,
    painted: usize,
    last: Sections,
}

/// See the module.
#[derive(Default)]
pub(super) struct Scene(Mutex<Inner>);

fn now_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

impl Scene {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which nodes there are, and what is broken.
    pub(super) fn look(&self, network: &LocalNetwork, paused: bool, faults: Vec<Fault>) {
        let shown = (0..network.len()).filter_map(|index| {
            let (peer, addresses) = (network.peer(index)?, network.addresses(index)?);
            let node = network.node(index);
            Some(Shown {
                url: format!("ws://{}/", addresses.http),
                peer,
                node: node.map_or_else(Weak::new, |node| Arc::downgrade(node.state())),
                ended: network.ended(index),
                seen: network.seen(index),
            })
        });
        let shown = shown.collect();
        let mut inner = self.lock();
        inner.shown = shown;
        (inner.loss, inner.udp_blocked) = (network.loss(), network.is_cut());
        (inner.paused, inner.faults) = (paused, faults);
        // What is asked next sees it, in a large network as well.
        inner.painted = 0;
    }

    /// Notes that something has happened.
    pub(super) fn tell(&self, text: impl Into<String>) {
        let mut inner = self.lock();
        if inner.happened.len() >= HAPPENED {
            inner.happened.pop_front();
        }
        inner.happened.push_back((now_micros(), text.into()));
        inner.painted = 0;
    }

    /// The sections of a picture.
    pub(super) fn sections(&self) -> Sections {
        self.lock().sections()
    }
}

impl Inner {
    fn sections(&mut self) -> Sections {
        let every = if self.shown.len() > SMALL { 5 } else { 1 };
        self.painted += 1;
        if self.painted % every != 1 % every && !self.last.is_empty() {
            return self.last.clone();
        }
        let running: Vec<Option<Arc<NodeState>>> =
            self.shown.iter().map(|shown| shown.node.upgrade()).collect();
        let snapshots: Vec<Option<Snapshot>> =
            running.iter().map(|state| state.as_ref().map(|state| state.net.snapshot())).collect();
        // The newest message is the leader's, or of whoever has come as far.
        let spread = snapshots.iter().flatten().filter_map(|net| net.spread.as_ref());
        let spread = spread.max_by_key(|spread| spread.key);
        self.last = vec![
            ("net", self.net()),
            ("nodes", self.nodes(&running, &snapshots, spread)),
            ("links", self.links(&snapshots)),
            ("tree", tree(&running, spread)),
        ];
        self.last.clone()
    }

    fn net(&self) -> Value {
        let faults = self
            .faults
            .iter()
            .map(|fault| json!({ "action": fault.action, "label": fault.label, "on": fault.on }));
        let happened = self.happened.iter().map(|(at, text)| json!({ "at": at, "text": text }));
        json!({
            "loss": self.loss,
            "udpBlocked": self.udp_blocked,
            "paused": self.paused,
            "faults": faults.collect::<Vec<Value>>(),
            "happened": happened.collect::<Vec<Value>>(),
        })
    }

    fn nodes(
        &self,
        running: &[Option<Arc<NodeState>>],
        snapshots: &[Option<Snapshot>],
        spread: Option<&Spread>,
    ) -> Value {
        let opened = running.iter().flatten().filter_map(|state| state.with_progress(|p| p.opened));
        let opened = opened.max();
        let epochs = running.iter().flatten().next().map(|state| state.net.epochs());
        let leader = epochs.as_ref().and_then(|e| Some(e.leader(opened.unwrap_or(0))?.peer));
        let next = epochs.as_ref().and_then(|epochs| {
            let (_, first) = epochs.next_terms(opened.unwrap_or(0)).next()?;
            Some(epochs.leader(first)?.peer)
        });
        let rows = self.shown.iter().enumerate().map(|(index, shown)| {
            let state = running[index].as_ref();
            let stats = state.and_then(|state| Some(state.executor.as_ref()?.stats().snapshot()));
            let track = shown.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let ms = |micros: u64| micros as f64 / 1e3;
            let latency = &track.latency;
            json!({
                "i": index,
                "short": format!("{:?}", shown.peer),
                "url": shown.url,
                "state": match state {
                    Some(_) => "up",
                    None if shown.ended.load(Ordering::Relaxed) => "stopped",
                    None => "stopping",
                },
                "member": spread.and_then(|spread| spread.members().index(&shown.peer)),
                "leads": Some(shown.peer) == leader,
                "next": Some(shown.peer) == next && next != leader,
                "sealed": track.newest_sealed(),
                "verified": stats.as_ref().and_then(|stats| stats.verified),
                "way": snapshots[index].as_ref().map(|net| net.fallback.state.name()),
                "connected": snapshots[index].as_ref().map(|net| net.connected),
                "have": opened.map_or(0, |block| track.messages_of(block)),
                "lastMs": track.last.map(|(_, _, micros)| ms(micros)),
                "p50Ms": (!latency.is_empty()).then(|| ms(latency.value_at_quantile(0.5))),
            })
        });
        rows.collect()
    }

    /// Shreds that came since the last look: from, to, how many, and so on.
    fn links(&mut self, snapshots: &[Option<Snapshot>]) -> Value {
        let by_peer: BTreeMap<PeerId, usize> =
            self.shown.iter().enumerate().map(|(index, shown)| (shown.peer, index)).collect();
        let mut new = BTreeMap::new();
        let mut grown = Vec::new();
        for (to, net) in snapshots.iter().enumerate() {
            for LinkSnapshot { peer, received, .. } in net.iter().flat_map(|net| &net.links) {
                let Some(from) = by_peer.get(peer) else { continue };
                let before = self.received.get(&(to, *from)).copied().unwrap_or(*received);
                if *received > before {
                    grown.push((received - before, *from, to));
                }
                new.insert((to, *from), *received);
            }
        }
        self.received = new;
        grown.sort_unstable_by_key(|(count, ..)| std::cmp::Reverse(*count));
        grown.truncate(LINKS);
        grown.into_iter().flat_map(|(count, from, to)| [from as u64, to as u64, count]).collect()
    }
}

/// The tree of the newest message, as some node that knows of it draws it.
fn tree(running: &[Option<Arc<NodeState>>], spread: Option<&Spread>) -> Value {
    let Some(spread) = spread else { return Value::Null };
    let state = running
        .iter()
        .flatten()
        .find(|state| state.net.snapshot().spread.is_some_and(|known| known.key == spread.key));
    state.map_or(Value::Null, |state| state.live.tree(state, spread))
}
