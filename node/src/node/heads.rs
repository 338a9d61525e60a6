//! Tells the overlay what the executor has verified, and when it has nothing to do: what can exist,
//! what this node lacks, and what its executor has lost.

use std::sync::Arc;
use std::time::Duration;

use fragcast_execution::executor::Executor;
use fragcast_turbine::Timestamp;
use fragcast_turbine::net::Handle;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

/// How soon a change without an event is seen: the state source's own head at the start.
const LOOK: Duration = Duration::from_millis(20);

/// How often it is told whether the executor has nothing to do.
const TELL: Duration = Duration::from_millis(100);

/// Tells `net` the executor's head whenever it has changed, and from time to time whether it has
/// nothing to do, until aborted.
pub(super) async fn tell(executor: Arc<Executor>, net: Handle) {
    let view = Arc::clone(executor.view());
    let mut events = view.subscribe();
    let mut told = None;
    let mut idle_at: Option<Instant> = None;
    loop {
        let head = view.heads().map(|heads| {
            let header = &heads.latest.snapshot.header;
            (header.number, header.timestamp, heads.latest.hash())
        });
        if let Some((number, timestamp, _)) = head
            && head != told
        {
            let built_at = Timestamp::from_micros(timestamp.saturating_mul(1_000_000));
            net.verified(number, built_at).await;
            told = head;
        }
        if idle_at.is_none_or(|at| at.elapsed() >= TELL) && executor.has_chain() {
            idle_at = Some(Instant::now());
            net.idle(executor.is_idle()).await;
        }
        let event = tokio::time::timeout(LOOK, events.recv()).await;
        if matches!(event, Ok(Err(RecvError::Closed))) {
            return;
        }
    }
}
