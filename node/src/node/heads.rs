//! Tells the overlay what the executor has verified: what can exist, and what this node lacks.

use std::sync::Arc;
use std::time::Duration;

use fragcast_execution::executor::ChainView;
use fragcast_turbine::Timestamp;
use fragcast_turbine::net::Handle;
use tokio::sync::broadcast::error::RecvError;

/// How soon a change without an event is seen: the state source's own head at the start.
const LOOK: Duration = Duration::from_millis(20);

/// Tells `net` the head of `view` whenever it has changed, until aborted.
pub(super) async fn tell(view: Arc<ChainView>, net: Handle) {
    let mut events = view.subscribe();
    let mut told = None;
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
        let event = tokio::time::timeout(LOOK, events.recv()).await;
        if matches!(event, Ok(Err(RecvError::Closed))) {
            return;
        }
    }
}
