//! JSON-RPC over the methods of jsonrpsee: what its server does with one message, byte for byte.

use std::borrow::Cow;
use std::sync::Arc;

use jsonrpsee::Extensions;
use jsonrpsee::core::server::{
    BatchResponseBuilder, ConnectionId, MethodCallback, MethodResponse, MethodSink, Methods,
    SubscriptionState,
};
use jsonrpsee::core::traits::IdProvider;
use jsonrpsee::types::error::{
    BATCHES_NOT_SUPPORTED_CODE, BATCHES_NOT_SUPPORTED_MSG, reject_too_big_batch_request,
    reject_too_many_subscriptions,
};
use jsonrpsee::types::{ErrorCode, ErrorObject, Id, InvalidRequest, Notification, Params, Request};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use crate::memory::{Charge, Memory};

/// The methods, and the limits of one message.
pub(crate) struct Dispatch {
    pub(crate) methods: Methods,
    /// Bytes of an answer.
    pub(crate) max_response: usize,
    /// Calls of a batch; `None`: no batches.
    pub(crate) max_batch: Option<usize>,
    /// What the answers of batches count in.
    pub(crate) memory: Arc<Memory>,
}

/// A batch of less is answered even if there is no room.
const FREE: usize = 64 * 1024;
/// The error of a limit (EIP-1474).
pub(crate) const LIMIT: i32 = -32_005;

/// What subscriptions need of a WebSocket connection.
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) sink: MethodSink,
    pub(crate) ids: Arc<dyn IdProvider>,
    /// Subscriptions that it may still make.
    pub(crate) subscriptions: Arc<Semaphore>,
    pub(crate) max_subscriptions: u32,
}

/// The first byte that is not white space, among the first 128, as in jsonrpsee.
pub(crate) fn first(message: &[u8]) -> Option<u8> {
    message.iter().take(128).copied().find(|byte| !byte.is_ascii_whitespace())
}

type Note<'a> = Notification<'a, Option<Cow<'a, RawValue>>>;

impl Dispatch {
    /// Answers a message that begins with `{` or `[`, whose bytes are in `charge`; `connection`: it
    /// came over a WebSocket.
    pub(crate) async fn answer(
        &self,
        message: &[u8],
        extensions: &Extensions,
        connection: Option<&Connection>,
        charge: &mut Charge,
    ) -> MethodResponse {
        if first(message) == Some(b'[') {
            return self.batch(message, extensions, connection, charge).await;
        }
        if let Ok(request) = serde_json::from_slice::<Request<'_>>(message) {
            self.call(request, extensions, connection).await
        } else if serde_json::from_slice::<Note<'_>>(message).is_ok() {
            MethodResponse::notification()
        } else {
            let (id, code) = match serde_json::from_slice::<InvalidRequest<'_>>(message) {
                Ok(InvalidRequest { id }) => (id, ErrorCode::InvalidRequest),
                Err(_) => (Id::Null, ErrorCode::ParseError),
            };
            MethodResponse::error(id, ErrorObject::from(code))
        }
    }

    async fn batch(
        &self,
        message: &[u8],
        extensions: &Extensions,
        connection: Option<&Connection>,
        charge: &mut Charge,
    ) -> MethodResponse {
        let Some(most) = self.max_batch else {
            let (code, text) = (BATCHES_NOT_SUPPORTED_CODE, BATCHES_NOT_SUPPORTED_MSG);
            return MethodResponse::error(Id::Null, ErrorObject::borrowed(code, text, None));
        };
        let Ok(entries) = serde_json::from_slice::<Vec<&RawValue>>(message) else {
            return MethodResponse::error(Id::Null, ErrorObject::from(ErrorCode::ParseError));
        };
        if entries.len() > most {
            return MethodResponse::error(Id::Null, reject_too_big_batch_request(most));
        }
        let mut answers = BatchResponseBuilder::new_with_limit(self.max_response);
        let mut notified = false;
        for entry in entries {
            let answer = if let Ok(request) = serde_json::from_str::<Request<'_>>(entry.get()) {
                self.call(request, extensions, connection).await
            } else if serde_json::from_str::<Note<'_>>(entry.get()).is_ok() {
                notified = true;
                continue;
            } else {
                let id = serde_json::from_str::<InvalidRequest<'_>>(entry.get());
                let id = id.map_or(Id::Null, |invalid| invalid.id);
                MethodResponse::error(id, ErrorObject::from(ErrorCode::InvalidRequest))
            };
            // The answers of a batch wait for one another, so they count from now on. This one may
            // not wait for room itself: it might be what takes it.
            charge.grow(answer.as_ref().len());
            if charge.bytes() > FREE && !self.memory.has_room() {
                let text = "as much memory as may be is taken by answers: ask for less at a time";
                return MethodResponse::error(Id::Null, ErrorObject::borrowed(LIMIT, text, None));
            }
            if let Err(too_long) = answers.append(answer) {
                return too_long;
            }
        }
        match answers.is_empty() && notified {
            true => MethodResponse::notification(),
            false => MethodResponse::from_batch(answers.finish()),
        }
    }

    async fn call(
        &self,
        request: Request<'_>,
        extensions: &Extensions,
        connection: Option<&Connection>,
    ) -> MethodResponse {
        let Request { id, method, params, .. } = request;
        let params = Params::new(params.as_ref().map(|params| RawValue::get(params)));
        let extensions = extensions.clone();
        let connection_id = connection.map_or(ConnectionId(0), |connection| connection.id);
        let Some((_, method)) = self.methods.method_with_name(&method) else {
            return MethodResponse::error(id, ErrorObject::from(ErrorCode::MethodNotFound));
        };
        match (method, connection) {
            (MethodCallback::Sync(call), _) => call(id, params, self.max_response, extensions),
            (MethodCallback::Async(call), _) => {
                let (id, params) = (id.into_owned(), params.into_owned());
                call(id, params, connection_id, self.max_response, extensions).await
            }
            (MethodCallback::Subscription(call), Some(connection)) => {
                let permit = Arc::clone(&connection.subscriptions).try_acquire_owned();
                let Ok(subscription_permit) = permit else {
                    let most = connection.max_subscriptions;
                    return MethodResponse::error(id, reject_too_many_subscriptions(most));
                };
                let state = SubscriptionState {
                    conn_id: connection.id,
                    id_provider: &*connection.ids,
                    subscription_permit,
                };
                let answer = call(id, params, connection.sink.clone(), state, extensions);
                answer.await
            }
            (MethodCallback::Unsubscription(call), Some(_)) => {
                call(id, params, connection_id, self.max_response, extensions)
            }
            (MethodCallback::Subscription(_) | MethodCallback::Unsubscription(_), None) => {
                MethodResponse::error(id, ErrorObject::from(ErrorCode::InternalError))
            }
        }
    }
}
