//! JSON-RPC over the methods of jsonrpsee: what is answered to one message.
//!
//! The methods are jsonrpsee's, the rules of a message are ours, and follow geth where jsonrpsee is
//! stricter or says less: an id comes back as it was given, whatever number it is; a notification is
//! carried out and has no answer; an error has its reason in `message`, where people and libraries
//! look, and not in `data` alone.

use std::borrow::Cow;
use std::sync::Arc;

use jsonrpsee::Extensions;
use jsonrpsee::core::server::{
    ConnectionId, MethodCallback, MethodResponse, MethodSink, Methods, SubscriptionState,
};
use jsonrpsee::core::traits::IdProvider;
use jsonrpsee::types::error::{
    BATCHES_NOT_SUPPORTED_CODE, BATCHES_NOT_SUPPORTED_MSG, reject_too_many_subscriptions,
};
use jsonrpsee::types::{ErrorCode, ErrorObject, Params};
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, watch};

use crate::envelope::{Broken, Request, echo, elsewhere, explain, first, id_of};
use crate::memory::{Charge, Memory};

/// The methods, and the limits of one message.
pub(crate) struct Dispatch {
    pub(crate) methods: Methods,
    /// Bytes of an answer. A batch is not carried on with when its answers have reached it.
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

/// geth's error for the calls of a batch whose answers are too long already.
const TOO_LARGE: i32 = -32_003;

/// The answers of a batch, put together as JSON.
#[derive(Default)]
struct Answers(String);

impl Answers {
    fn push(&mut self, answer: &RawValue) {
        self.0.push(if self.0.is_empty() { '[' } else { ',' });
        self.0.push_str(answer.get());
    }

    /// Their length when they are finished.
    const fn len(&self) -> usize {
        self.0.len() + 1
    }

    /// All of them; `None`: there were notifications alone.
    fn finish(mut self) -> Option<Box<RawValue>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.push(']');
        Some(RawValue::from_string(self.0).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }
}

/// What subscriptions need of a WebSocket connection.
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) sink: MethodSink,
    pub(crate) ids: Arc<dyn IdProvider>,
    /// Subscriptions that it may still make.
    pub(crate) subscriptions: Arc<Semaphore>,
    pub(crate) max_subscriptions: u32,
}

/// What a message is answered with.
#[derive(Default)]
pub(crate) struct Answer {
    /// `None`: nothing, because it was a notification, or a subscription outside of a batch, which
    /// answers through its sink.
    pub(crate) text: Option<Box<RawValue>>,
    /// Dropped when the text is queued: until then the subscriptions of this batch wait.
    pub(crate) held: Option<watch::Sender<()>>,
}

impl From<Option<Box<RawValue>>> for Answer {
    fn from(text: Option<Box<RawValue>>) -> Self {
        Self { text, held: None }
    }
}

/// What a subscription waits for that was made in a batch: who reads the batch's answer must know of
/// it before it is told anything.
#[derive(Clone)]
pub(crate) struct Gate(watch::Receiver<()>);

impl Gate {
    /// Waits until the batch is answered, or never will be.
    pub(crate) async fn open(mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

/// An error as an answer; `id` as it was given.
pub(crate) fn error(id: Option<&RawValue>, error: ErrorObject<'_>) -> Box<RawValue> {
    let answer = MethodResponse::error(id_of(id), error);
    let code = answer.as_error_code();
    explain(echo(answer.into_json()), code)
}

/// An error of a message that is no request.
pub(crate) fn broken(broken: &Broken<'_>) -> Box<RawValue> {
    error(broken.id, ErrorObject::owned(broken.code.code(), broken.reason.clone(), None::<()>))
}

impl Dispatch {
    /// Answers a message, whose bytes are in `charge`; `connection`: it came over a WebSocket.
    pub(crate) async fn answer(
        &self,
        message: &[u8],
        extensions: &Extensions,
        connection: Option<&Connection>,
        charge: &mut Charge,
    ) -> Answer {
        if first(message) == Some(b'[') {
            let (held, gate) = connection.map(|_| watch::channel(())).unzip();
            let gate = gate.map(Gate);
            let text = self.batch(message, extensions, connection, gate.as_ref(), charge).await;
            return Answer { text, held };
        }
        let text = match Request::read(message) {
            Ok(request) => self.call(request, extensions, connection, None).await,
            Err(problem) => Some(broken(&problem)),
        };
        text.into()
    }

    async fn batch(
        &self,
        message: &[u8],
        extensions: &Extensions,
        connection: Option<&Connection>,
        gate: Option<&Gate>,
        charge: &mut Charge,
    ) -> Option<Box<RawValue>> {
        let Some(most) = self.max_batch else {
            let (code, text) = (BATCHES_NOT_SUPPORTED_CODE, BATCHES_NOT_SUPPORTED_MSG);
            return Some(error(None, ErrorObject::borrowed(code, text, None)));
        };
        let entries = match serde_json::from_slice::<Vec<&RawValue>>(message) {
            Ok(entries) => entries,
            Err(problem) => return Some(broken(&Broken::unreadable(&problem))),
        };
        if entries.is_empty() {
            let code = ErrorCode::InvalidRequest.code();
            return Some(error(None, ErrorObject::borrowed(code, "empty batch", None)));
        }
        let mut answers = Answers::default();
        if entries.len() > most {
            // An error for all of them has no place in JSON-RPC: it goes under the first call's id.
            let calls =
                entries.iter().filter_map(|entry| Request::read(entry.get().as_bytes()).ok());
            let id = calls.filter_map(|call| call.id).next();
            let text = format!("batch too large: {most} calls at most");
            let code = ErrorCode::InvalidRequest.code();
            answers.push(&error(id, ErrorObject::owned(code, text, None::<()>)));
            return answers.finish();
        }
        // Why the rest is not carried out.
        let mut stopped = None;
        for entry in entries {
            let request = Request::read(entry.get().as_bytes());
            let answer = match (request, &stopped) {
                (Ok(request), None) => self.call(request, extensions, connection, gate).await,
                (Ok(request), Some(reason)) => {
                    request.id.map(|id| error(Some(id), ErrorObject::clone(reason)))
                }
                (Err(problem), None) => Some(broken(&problem)),
                (Err(problem), Some(reason)) => Some(error(problem.id, reason.clone())),
            };
            let Some(answer) = answer else { continue };
            // The answers of a batch wait for one another, so they count from now on. This one may
            // not wait for room itself: it might be what takes it. It stays, though it is over the
            // limit, since its call was carried out.
            charge.grow(answer.get().len());
            answers.push(&answer);
            if answers.len() > self.max_response {
                stopped = Some(ErrorObject::borrowed(TOO_LARGE, "response too large", None));
            } else if charge.bytes() > FREE && !self.memory.has_room() {
                let text = "as much memory as may be is taken by answers: ask for less at a time";
                stopped = Some(ErrorObject::borrowed(LIMIT, text, None));
            }
        }
        answers.finish()
    }

    /// Carries out a request, or a notification; `gate`: it is of a batch over a WebSocket.
    async fn call(
        &self,
        request: Request<'_>,
        extensions: &Extensions,
        connection: Option<&Connection>,
        gate: Option<&Gate>,
    ) -> Option<Box<RawValue>> {
        let Request { id, method: name, params } = request;
        let notification = id.is_none();
        let refuse = |problem: ErrorObject<'_>| (!notification).then(|| error(id, problem));
        let params = Params::new(params.map(RawValue::get));
        let mut extensions = extensions.clone();
        let connection_id = connection.map_or(ConnectionId(0), |connection| connection.id);
        let Some((_, method)) = self.methods.method_with_name(&name) else {
            let text = format!("the method {} does not exist/is not available", shown(&name));
            let code = ErrorCode::MethodNotFound.code();
            return refuse(ErrorObject::owned(code, text, None::<()>));
        };
        let answer = match (method, connection) {
            (MethodCallback::Sync(call), _) => {
                call(id_of(id), params, self.max_response, extensions)
            }
            (MethodCallback::Async(call), _) => {
                let (id, params) = (id_of(id).into_owned(), params.into_owned());
                call(id, params, connection_id, self.max_response, extensions).await
            }
            // Nobody could tell what it subscribed to.
            (MethodCallback::Subscription(_), Some(_)) if notification => return None,
            (MethodCallback::Subscription(call), Some(connection)) => {
                let permit = Arc::clone(&connection.subscriptions).try_acquire_owned();
                let Ok(subscription_permit) = permit else {
                    return refuse(reject_too_many_subscriptions(connection.max_subscriptions));
                };
                let state = SubscriptionState {
                    conn_id: connection.id,
                    id_provider: &*connection.ids,
                    subscription_permit,
                };
                let sink = connection.sink.clone();
                let id = match gate {
                    // Its sink answers as well, which the outbox passes over.
                    Some(gate) => {
                        extensions.insert(gate.clone());
                        elsewhere(id)
                    }
                    None => id_of(id),
                };
                let answer = call(id, params, sink, state, extensions).await;
                if gate.is_none() && answer.is_subscription() {
                    return None;
                }
                answer
            }
            (MethodCallback::Unsubscription(call), Some(_)) => {
                call(id_of(id), params, connection_id, self.max_response, extensions)
            }
            (MethodCallback::Subscription(_) | MethodCallback::Unsubscription(_), None) => {
                let code = ErrorCode::MethodNotFound.code();
                return refuse(ErrorObject::borrowed(code, "notifications not supported", None));
            }
        };
        if notification || answer.is_notification() {
            return None;
        }
        let code = answer.as_error_code();
        Some(explain(echo(answer.into_json()), code))
    }
}

/// A name as it is shown in an error: not as long as a client likes.
fn shown(name: &str) -> Cow<'_, str> {
    const MOST: usize = 64;
    match name.char_indices().nth(MOST) {
        Some((end, _)) => Cow::Owned(format!("{}…", &name[..end])),
        None => Cow::Borrowed(name),
    }
}
