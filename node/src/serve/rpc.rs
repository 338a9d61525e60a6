//! The public JSON-RPC: status, latencies and the subscription to verified messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use alloy_primitives::hex;
use fragcast_port::{Memory, Notices, Shared, Subscriber, Unsent};
use fragcast_shredder::Kind;
use fragcast_shredder::messages::json::MessageJson;
use fragcast_turbine::output::Output;
use fragcast_turbine::{Mode, Policy};
use jsonrpsee::core::SubscriptionError;
use jsonrpsee::types::ErrorObjectOwned;
use jsonrpsee::{Extensions, Methods, PendingSubscriptionSink, RpcModule};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Reader;
use super::state::NodeState;

/// An output as subscribers see it. Times are µs since the Unix epoch by this node's clock, except
/// `sentAt`, which is by the leader's.
pub fn describe(output: &Output) -> Value {
    match output {
        Output::Message(m) => json!({
            "type": "message",
            "kind": m.message.message().kind().name(),
            "block": m.key.block,
            "attempt": m.key.attempt,
            "gateway": m.message.gateway(),
            "rank": m.rank,
            "index": m.key.message,
            "root": m.message.root(),
            "signature": hex::encode_prefixed(m.message.signature().as_bytes()),
            "message": MessageJson::from(m.message.message()),
            "via": m.via.name(),
            "times": {
                "sentAt": m.times.sent_at.unwrap_or_default().as_micros(),
                "firstShredAt": m.times.first_shred_at.as_micros(),
                "completeAt": m.times.complete_at.as_micros(),
            },
        }),
        Output::Retracted { block, attempt, reason } => json!({
            "type": "retracted",
            "block": block,
            "attempt": attempt,
            "reason": reason.name(),
        }),
    }
}

/// Bytes of messages, as JSON, that are kept for subscribers who have not asked for them yet.
const SHARED: usize = 32 * 1024 * 1024;

/// An output on its way to subscribers.
#[derive(Clone)]
enum Relayed {
    Output(Output),
    /// So many never came here.
    Lost(u64),
}

/// What `fragcast_subscribe` gives.
struct Feed {
    state: Arc<NodeState>,
    relayed: broadcast::Sender<Relayed>,
    /// Messages as JSON, by their address.
    shared: Shared<usize>,
    patience: Duration,
}

/// Takes the outputs over to the threads that serve: to wake thousands of subscribers there keeps
/// nobody from carrying messages.
async fn relay(mut outputs: broadcast::Receiver<Output>, to: broadcast::Sender<Relayed>) {
    loop {
        let relayed = match outputs.recv().await {
            Ok(output) => Relayed::Output(output),
            Err(RecvError::Lagged(missed)) => Relayed::Lost(missed),
            Err(RecvError::Closed) => return,
        };
        // Nobody may be listening.
        let _ = to.send(relayed);
    }
}

/// `fragcast_status`, `fragcast_latency` and `fragcast_subscribe`, which are served on the threads of `runtime`.
///
/// At most `queue` outputs wait for a slow subscriber, one ring for all; one that takes nothing for
/// `patience` is dropped. What subscribers are sent is written
/// once for all of them.
pub fn module(
    state: Arc<NodeState>,
    outputs: &broadcast::Sender<Output>,
    queue: usize,
    patience: Duration,
    memory: Arc<Memory>,
    runtime: &Handle,
) -> Methods {
    let (relayed, _) = broadcast::channel(queue.max(1));
    runtime.spawn(relay(outputs.subscribe(), relayed.clone()));
    let feed = Feed { state, relayed, shared: Shared::new(SHARED, memory), patience };
    let mut module = RpcModule::new(feed);
    module
        .register_method("fragcast_status", |_, feed, _| {
            Ok::<_, ErrorObjectOwned>(feed.state.status_for(Reader::Anybody))
        })
        .expect("a name of its own");
    module
        .register_method("fragcast_latency", |_, feed, _| {
            Ok::<_, ErrorObjectOwned>(feed.state.latency())
        })
        .expect("a name of its own");
    module
        .register_subscription(
            "fragcast_subscribe",
            "fragcast_subscription",
            "fragcast_unsubscribe",
            |_, pending, feed, extensions| {
                let outputs = feed.relayed.subscribe();
                async move {
                    let stats = &feed.state.rpc;
                    stats.subscribers.fetch_add(1, Ordering::Relaxed);
                    let result = serve(&feed, pending, &extensions, outputs).await;
                    stats.subscribers.fetch_sub(1, Ordering::Relaxed);
                    if matches!(result, Ok(Ending::Slow)) {
                        stats.slow.fetch_add(1, Ordering::Relaxed);
                        return Err("too slow".into());
                    }
                    result.map(drop)
                }
            },
        )
        .expect("names of its own");
    module.into()
}

/// The operator's methods: `fragcast_status`, `admin_peers`; `fragcast_setHead`, which moves the
/// window of accepted blocks, as an execution client would; `fragcast_setMode` and
/// `fragcast_setPolicy`, which set how messages travel and how much this node uses gossip, until
/// the next start.
pub fn admin(state: Arc<NodeState>) -> RpcModule<Arc<NodeState>> {
    let mut module = RpcModule::new(state);
    let status = |_: jsonrpsee::types::Params<'_>, state: &Arc<NodeState>, _: &_| {
        Ok::<_, ErrorObjectOwned>(state.status())
    };
    module.register_method("fragcast_status", status).expect("a name of its own");
    module
        .register_method("admin_peers", |_, state, _| {
            Ok::<_, ErrorObjectOwned>(state.status()["peers"].clone())
        })
        .expect("a name of its own");
    module
        .register_async_method("fragcast_setHead", |params, state, _| async move {
            let (block,): (u64,) = params.parse()?;
            state.net.head(block).await;
            Ok::<_, ErrorObjectOwned>(true)
        })
        .expect("a name of its own");
    module
        .register_async_method("fragcast_setMode", |params, state, _| async move {
            let (mode,): (Mode,) = params.parse()?;
            let policy = state.net.snapshot().fallback.policy;
            if mode == Mode::Gossip && policy == Policy::Off {
                return Err(refused("gossip.policy is off: set it to standby and start again"));
            }
            tracing::warn!(%mode, "the operator says which way messages travel");
            state.net.set_mode(mode).await;
            Ok::<_, ErrorObjectOwned>(true)
        })
        .expect("a name of its own");
    module
        .register_async_method("fragcast_setPolicy", |params, state, _| async move {
            let (policy,): (Policy,) = params.parse()?;
            if state.net.snapshot().fallback.policy == Policy::Off || policy == Policy::Off {
                let why = "to and from off leads only a restart: set gossip.policy";
                return Err(refused(why));
            }
            tracing::warn!(%policy, "the operator says how much there is to do with gossip");
            state.net.set_policy(policy).await;
            Ok::<_, ErrorObjectOwned>(true)
        })
        .expect("a name of its own");
    module
}

fn refused(why: &str) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(-32_000, why, None::<()>)
}

/// How a subscription ended.
enum Ending {
    /// The subscriber or the node has gone.
    Gone,
    /// It was too slow.
    Slow,
}

/// Sends until the subscriber goes, or is so slow that messages would be lost. Then it is told how
/// many and dropped, because a stream with a silent gap is worse than none.
async fn serve(
    feed: &Feed,
    pending: PendingSubscriptionSink,
    extensions: &Extensions,
    mut outputs: broadcast::Receiver<Relayed>,
) -> Result<Ending, SubscriptionError> {
    let subscriber = Subscriber::accept(pending, extensions, feed.patience).await?;
    loop {
        let output = tokio::select! {
            () = subscriber.closed() => return Ok(Ending::Gone),
            output = outputs.recv() => output,
        };
        let missed = match output {
            Ok(Relayed::Output(output)) => {
                match subscriber.send(&encode(feed, output).await?).await {
                    Ok(()) => continue,
                    Err(Unsent::Slow) => return Ok(Ending::Slow),
                    Err(Unsent::Gone) => return Ok(Ending::Gone),
                }
            }
            Ok(Relayed::Lost(missed)) | Err(RecvError::Lagged(missed)) => missed,
            Err(RecvError::Closed) => return Ok(Ending::Gone),
        };
        let last = serde_json::to_vec(&json!({ "type": "dropped", "missed": missed }))?;
        let last = feed.shared.once(vec![last]);
        // Without waiting for one who does not read.
        let _ = tokio::time::timeout(Duration::from_secs(1), subscriber.send(&last)).await;
        return Ok(Ending::Slow);
    }
}

/// An output as JSON, written once for all.
async fn encode(feed: &Feed, output: Output) -> Result<Arc<Notices>, serde_json::Error> {
    match &output {
        Output::Message(message) => {
            let (key, kept) = (Arc::as_ptr(message).addr(), Arc::clone(message));
            // A message of 10 MiB is 20 MiB of JSON.
            let long = message.message.message().kind() == Kind::Frag;
            let encode = move || serde_json::to_vec(&describe(&output)).map(|json| vec![json]);
            feed.shared.get(key, kept, long, encode).await
        }
        Output::Retracted { .. } => {
            Ok(feed.shared.once(vec![serde_json::to_vec(&describe(&output))?]))
        }
    }
}
