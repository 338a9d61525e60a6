//! Drives an emulation: posts messages as the gateway, subscribes at every node, and collects the
//! time at which each message was complete there.
//!
//! A time is `completeAt − sentAt` as a node's subscription reports them. Each node reads the
//! system's time once and then follows the monotonic clock of the same machine. So two clocks
//! differ only by the correction of the system's time between the starts of two nodes, usually
//! microseconds.
//!
//! A subscription costs a node some work, since it sends every message as JSON, but only after the
//! message's time was taken. There is no other source of single times: metrics are histograms.

use std::time::{Duration, Instant};

use fragcast_shredder::messages::json;
use fragcast_shredder::{Kind, MessageKey, SignedMessage};
use jsonrpsee::core::client::{ClientT, Error as ClientError, Subscription, SubscriptionClientT};
use jsonrpsee::http_client::HttpClientBuilder;
use jsonrpsee::rpc_params;
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::machine::{Counters, MachineUse};
use super::nodes::Nodes;
use super::relay::RelayStats;
use super::traffic::{Post, Traffic, size};
use super::{EmulateError, Emulation};
use crate::protocols::fragcast::WARM_UP;
use crate::{Nanos, NodeId};

/// How often the nodes are checked.
const POLL: Duration = Duration::from_millis(100);
/// Pause between the last connection and the first message, in which the traffic of connecting
/// ends.
const SETTLE: Duration = Duration::from_secs(1);
/// Time-out of a request.
const REQUEST: Duration = Duration::from_secs(30);
/// The largest answer or notification, bytes: a message of 10 MiB as hex.
const MAX_JSON: u32 = 64 * 1024 * 1024;
/// The most notes that wait for the collector.
const NOTES: usize = 1024;
/// A message that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Kind of the message.
    pub kind: Kind,
    /// Block and index.
    pub key: MessageKey,
    /// Bytes of signature ‖ body.
    pub bytes: usize,
}

/// The result of an emulation.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The leader.
    pub leader: NodeId,
    /// The messages in the order of sending.
    pub messages: Vec<Sent>,
    /// By message and node: milliseconds from sending until the message was complete. `None`:
    /// never. 0 for the leader.
    pub times_ms: Vec<Vec<Option<f64>>>,
    /// The link emulator's numbers while messages were sent.
    pub relay: RelayStats,
    /// Use of the machine meanwhile, if known.
    pub machine: Option<MachineUse>,
    /// Time from the first message until every node had the last.
    pub took: Duration,
}

impl Measured {
    /// (message, node) pairs that never completed.
    pub fn missed(&self) -> usize {
        self.times_ms.iter().flatten().filter(|time| time.is_none()).count()
    }
}

/// A note of a node's subscription, without the message.
#[derive(Debug, Deserialize)]
struct Note {
    #[serde(rename = "type")]
    what: String,
    block: Option<u64>,
    index: Option<usize>,
    times: Option<NoteTimes>,
}

/// µs since the Unix epoch.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NoteTimes {
    sent_at: u64,
    complete_at: u64,
}

/// The table of times while it fills.
struct Table {
    leader: NodeId,
    /// Messages of a block.
    per_block: usize,
    times_ms: Vec<Vec<Option<f64>>>,
    open: usize,
}

impl Table {
    fn new(traffic: &Traffic, leader: NodeId, nodes: usize) -> Self {
        let per_block = traffic.frags as usize + 2;
        let messages = per_block * traffic.blocks as usize;
        let times_ms = vec![vec![None; nodes]; messages];
        Self { leader, per_block, times_ms, open: messages * nodes }
    }

    /// Enters a time. Ignores messages that are not of this load.
    fn enter(&mut self, node: NodeId, note: &Note) {
        let (Some(block), Some(index), Some(times)) = (note.block, note.index, &note.times) else {
            return;
        };
        let Some(before) = block.checked_sub(1).map(|block| block as usize * self.per_block) else {
            return;
        };
        let cell = self.times_ms.get_mut(before + index).and_then(|row| row.get_mut(node as usize));
        let Some(cell) = cell.filter(|cell| cell.is_none() && index < self.per_block) else {
            return;
        };
        let micros = times.complete_at as f64 - times.sent_at as f64;
        *cell = Some(if node == self.leader { 0.0 } else { micros / 1e3 });
        self.open -= 1;
    }
}

/// News from the tasks that listen to the nodes.
enum News {
    Note(NodeId, Note),
    Ended(NodeId),
    Posted(Result<(), ClientError>),
}

/// Waits until the nodes are connected, sends the messages and collects the times.
pub(super) async fn drive(
    emulation: &Emulation,
    leader: NodeId,
    posts: &[Post],
    nodes: &mut Nodes,
) -> Result<Measured, EmulateError> {
    let clients = connect(nodes).await?;
    connected(emulation, nodes, &clients).await?;
    let (tell, mut news) = mpsc::channel(NOTES);
    let mut tasks = JoinSet::new();
    for (node, client) in clients.iter().enumerate() {
        let subscription = client
            .subscribe("fragcast_subscribe", rpc_params![], "fragcast_unsubscribe")
            .await
            .map_err(|error| {
                nodes.error(node as NodeId, format!("took no subscription: {error}"))
            })?;
        tasks.spawn(listen(node as NodeId, subscription, tell.clone()));
    }
    // A leader that chooses routes has planned with what was measured by then, as in virtual time.
    let plans = emulation.route == "auto";
    tokio::time::sleep(if plans { Duration::from_nanos(WARM_UP) } else { SETTLE }).await;

    let mut table = Table::new(&emulation.traffic, leader, clients.len());
    let counters = Counters::read(&nodes.pids());
    nodes.relay.take_stats();
    let start = Instant::now();
    let url = format!("http://{}", nodes.addresses[leader as usize].ingest);
    let signed =
        posts.iter().map(|post| (post.at, nodes.gateway.sign(post.message.clone()))).collect();
    tasks.spawn(post_all(url, signed, tell));

    let mut deadline = None;
    while table.open > 0 && deadline.is_none_or(|at| Instant::now() < at) {
        match tokio::time::timeout(POLL, news.recv()).await {
            Ok(Some(News::Note(_, note))) if note.what == "retracted" => {}
            Ok(Some(News::Note(node, note))) if note.what == "message" => table.enter(node, &note),
            Ok(Some(News::Note(node, _) | News::Ended(node))) => {
                nodes.alive()?;
                return Err(nodes.error(node, "dropped our subscription as too slow"));
            }
            Ok(Some(News::Posted(result))) => {
                result.map_err(|error| {
                    nodes.error(leader, format!("refused a message of the gateway: {error}"))
                })?;
                deadline = Some(Instant::now() + emulation.patience);
            }
            // The senders outlive this loop.
            Ok(None) => break,
            Err(_) => nodes.alive()?,
        }
    }
    let took = start.elapsed();
    let later = Counters::read(&nodes.pids());
    let sent =
        |post: &Post| Sent { kind: post.message.kind(), key: post.key, bytes: size(&post.message) };
    Ok(Measured {
        leader,
        messages: posts.iter().map(sent).collect(),
        times_ms: table.times_ms,
        relay: nodes.relay.take_stats(),
        machine: counters.zip(later).map(|(from, to)| from.until(&to)),
        took,
    })
}

async fn connect(nodes: &mut Nodes) -> Result<Vec<WsClient>, EmulateError> {
    let mut clients = Vec::new();
    for node in 0..nodes.addresses.len() {
        let url = format!("ws://{}", nodes.addresses[node].http);
        let client = WsClientBuilder::default()
            .request_timeout(REQUEST)
            .max_response_size(MAX_JSON)
            .build(url)
            .await
            .map_err(|error| nodes.error(node as NodeId, format!("does not answer: {error}")))?;
        clients.push(client);
    }
    Ok(clients)
}

/// Waits until every node is connected to every other.
async fn connected(
    emulation: &Emulation,
    nodes: &mut Nodes,
    clients: &[WsClient],
) -> Result<(), EmulateError> {
    let deadline = Instant::now() + emulation.start_guard;
    let others = clients.len() as u64 - 1;
    for (node, client) in clients.iter().enumerate() {
        loop {
            let status: Result<Value, ClientError> =
                client.request("fragcast_status", rpc_params![]).await;
            let peers = status.as_ref().ok().and_then(|status| status["connected"].as_u64());
            if peers.is_some_and(|peers| peers >= others) {
                break;
            }
            nodes.alive()?;
            if Instant::now() > deadline {
                let peers = peers.unwrap_or(0);
                let problem = format!("is connected to {peers} of {others} others only");
                return Err(nodes.error(node as NodeId, problem));
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

async fn listen(node: NodeId, mut subscription: Subscription<Note>, tell: mpsc::Sender<News>) {
    while let Some(Ok(note)) = subscription.next().await {
        if tell.send(News::Note(node, note)).await.is_err() {
            return;
        }
    }
    // The receiver is gone if the measurement is over.
    let _ = tell.send(News::Ended(node)).await;
}

/// Posts every message at its time, or as soon as the previous one was accepted.
async fn post_all(url: String, posts: Vec<(Nanos, SignedMessage)>, tell: mpsc::Sender<News>) {
    let result = try_post_all(&url, &posts).await;
    let _ = tell.send(News::Posted(result)).await;
}

async fn try_post_all(url: &str, posts: &[(Nanos, SignedMessage)]) -> Result<(), ClientError> {
    let client = HttpClientBuilder::default()
        .request_timeout(REQUEST)
        .max_request_size(MAX_JSON)
        .build(url)?;
    let start = tokio::time::Instant::now();
    for (at, signed) in posts {
        tokio::time::sleep_until(start + Duration::from_nanos(*at)).await;
        let (method, param) = json::request(&signed.message, &signed.signature);
        let _: Value = client.request(method, rpc_params![param]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
