//! What a subscription sends through.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jsonrpsee::core::server::{
    PendingSubscriptionAcceptError, PendingSubscriptionSink, SubscriptionMessage, SubscriptionSink,
};
use jsonrpsee::{Extensions, SendTimeoutError};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::dispatch::Gate;
use crate::notices::{Hold, Notices};
use crate::outbox::{Item, Outbox};

/// Why a notification was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// The subscriber has gone.
    #[error("the subscriber has gone")]
    Gone,
    /// It took nothing for as long as one waits for it.
    #[error("nothing is taken")]
    Slow,
}

/// What a subscription sends through. On a [`Port`](crate::Port) notifications are queued without a
/// copy; elsewhere, as in tests of a module alone, they go through jsonrpsee's sink.
pub struct Subscriber {
    sink: SubscriptionSink,
    /// The outbox, and what comes before the body of a notification.
    direct: Option<(Arc<Outbox>, Bytes)>,
    patience: Duration,
}

impl Subscriber {
    /// Accepts a subscription, given the extensions of its request. One that takes nothing for
    /// `patience` is slow. One of a batch is accepted when the batch is answered; what it is to be told
    /// from its beginning on must be subscribed to before.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn accept(
        pending: PendingSubscriptionSink,
        extensions: &Extensions,
        patience: Duration,
    ) -> Result<Self, PendingSubscriptionAcceptError> {
        let outbox = extensions.get::<Arc<Outbox>>().map(Arc::clone);
        let sink = pending.accept().await?;
        if let Some(gate) = extensions.get::<Gate>() {
            gate.clone().open().await;
        }
        let direct = outbox.map(|outbox| {
            let id = serde_json::to_string(&sink.subscription_id()).unwrap_or_default();
            let method = sink.method_name();
            let head = format!(
                r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"subscription":{id},"result":"#
            );
            (outbox, Bytes::from(head))
        });
        Ok(Self { sink, direct, patience })
    }

    /// Completes when the subscription is over.
    pub async fn closed(&self) {
        self.sink.closed().await;
    }

    /// Sends notifications. They are held for it from now on, also while they wait for their turn.
    ///
    /// # Errors
    /// [`Unsent`].
    pub async fn send(&self, notices: &Arc<Notices>) -> Result<(), Unsent> {
        let Some((outbox, head)) = &self.direct else {
            for json in notices.texts() {
                self.copy(json).await?;
            }
            return Ok(());
        };
        let since = Instant::now();
        let hold = Hold::new(notices, outbox.client());
        for number in 0..hold.len() {
            if self.sink.is_closed() {
                return Err(Unsent::Gone);
            }
            tokio::select! {
                room = tokio::time::timeout(self.patience, outbox.room()) => match room {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(Unsent::Gone),
                    Err(_) => return Err(Unsent::Slow),
                },
                // It may be unsubscribed, though nothing of its connection is written.
                () = self.sink.closed() => return Err(Unsent::Gone),
            }
            let item = Item { head: head.clone(), body: hold.text(number), tail: b"}}", since };
            outbox.push(item).map_err(|_| Unsent::Gone)?;
        }
        Ok(())
    }

    async fn copy(&self, json: &[u8]) -> Result<(), Unsent> {
        let text = String::from_utf8(json.to_vec()).ok();
        let raw = text.and_then(|text| RawValue::from_string(text).ok()).ok_or(Unsent::Gone)?;
        let message = SubscriptionMessage::from(raw);
        self.sink.send_timeout(message, self.patience).await.map_err(|error| match error {
            SendTimeoutError::Timeout(_) => Unsent::Slow,
            SendTimeoutError::Closed(_) => Unsent::Gone,
        })
    }
}
