//! The public JSON-RPC: status and the subscription to verified messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use alloy_primitives::hex;
use fragcast_shredder::messages::json::MessageJson;
use fragcast_turbine::output::Output;
use fragcast_turbine::{Mode, Policy};
use jsonrpsee::core::SubscriptionError;
use jsonrpsee::server::SendTimeoutError;
use jsonrpsee::types::ErrorObjectOwned;
use jsonrpsee::{PendingSubscriptionSink, RpcModule, SubscriptionMessage};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

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

/// `fragcast_status` and `fragcast_subscribe`.
///
/// A subscriber that takes nothing for `patience` is dropped.
pub fn module(
    state: Arc<NodeState>,
    outputs: broadcast::Sender<Output>,
    patience: Duration,
) -> RpcModule<Arc<NodeState>> {
    let mut module = RpcModule::new(state);
    module
        .register_method("fragcast_status", |_, state, _| Ok::<_, ErrorObjectOwned>(state.status()))
        .expect("a name of its own");
    module
        .register_subscription(
            "fragcast_subscribe",
            "fragcast_subscription",
            "fragcast_unsubscribe",
            move |_, pending, state, _| {
                let outputs = outputs.subscribe();
                let state = Arc::clone(&state);
                async move {
                    state.rpc.subscribers.fetch_add(1, Ordering::Relaxed);
                    let result = serve(pending, outputs, patience).await;
                    state.rpc.subscribers.fetch_sub(1, Ordering::Relaxed);
                    if matches!(result, Ok(Ending::Slow)) {
                        state.rpc.slow.fetch_add(1, Ordering::Relaxed);
                        return Err("too slow".into());
                    }
                    result.map(drop)
                }
            },
        )
        .expect("names of its own");
    module
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
    pending: PendingSubscriptionSink,
    mut outputs: broadcast::Receiver<Output>,
    patience: Duration,
) -> Result<Ending, SubscriptionError> {
    let sink = pending.accept().await?;
    loop {
        let output = tokio::select! {
            () = sink.closed() => return Ok(Ending::Gone),
            output = outputs.recv() => output,
        };
        match output {
            Ok(output) => {
                let value = serde_json::value::to_raw_value(&describe(&output))?;
                match sink.send_timeout(SubscriptionMessage::from(value), patience).await {
                    Ok(()) => {}
                    Err(SendTimeoutError::Timeout(_)) => return Ok(Ending::Slow),
                    Err(SendTimeoutError::Closed(_)) => return Ok(Ending::Gone),
                }
            }
            Err(RecvError::Closed) => return Ok(Ending::Gone),
            Err(RecvError::Lagged(missed)) => {
                let last = json!({ "type": "dropped", "missed": missed });
                let value = serde_json::value::to_raw_value(&last)?;
                // Without waiting for one who does not read.
                let sent = sink.send_timeout(value, Duration::from_secs(1));
                let _ = sent.await;
                return Ok(Ending::Slow);
            }
        }
    }
}
