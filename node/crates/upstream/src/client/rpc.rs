//! The transport: bounded JSON-RPC over HTTP, single and in batches.
//!
//! Invariants: a request takes at most three times [`ClientConfig::timeout`] (waiting for its turn,
//! connecting, being answered). At most [`IN_FLIGHT`] requests of our own and [`PASSED_ON`]
//! requests passed on for others are under way, each with an answer of at most
//! [`ClientConfig::max_response`] bytes. No answer makes it panic.
//!
//! Every request opens a connection ([`crate::http`]): to a client on the same machine that costs
//! little, and a batch takes one connection.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fragcast_execution::state::SourceError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::http::{self, HttpClient, HttpError, Shown};
use crate::jsonrpc::{Reply, Request};

/// Requests of our own at once: with the default `max_response` at most 256 MiB of answers.
pub const IN_FLIGHT: usize = 8;
/// Requests passed on for others at once, so that those cannot keep the executor waiting.
pub const PASSED_ON: usize = 16;
/// How much of an error message is kept.
const MAX_ERROR_CHARS: usize = 200;
/// JSON-RPC's code for a method that does not exist.
const NO_SUCH_METHOD: i64 = -32601;
/// geth's code for a method of a module that is switched off.
const NOT_AVAILABLE: i64 = -32604;

/// Settings of a client.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Its HTTP JSON-RPC, `http://host:port`.
    pub url: String,
    /// How long waiting for a turn, connecting and the answer may take, each.
    pub timeout: Duration,
    /// The longest answer that is read, bytes. A block of 8 MiB takes about 20 MiB as JSON.
    pub max_response: usize,
    /// How many calls go into one request; 1: no batches.
    pub batch: usize,
    /// Whether the chain is an OP chain.
    pub op: bool,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, timeout, max_response, batch, op } = self;
        f.debug_struct("ClientConfig")
            .field("url", &Shown(url))
            .field("timeout", timeout)
            .field("max_response", max_response)
            .field("batch", batch)
            .field("op", op)
            .finish()
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8545".into(),
            timeout: Duration::from_secs(5),
            max_response: 32 * 1024 * 1024,
            batch: 100,
            op: false,
        }
    }
}

/// Why the client gave no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// It cannot be reached, did not answer in time, or is not working.
    #[error("the execution client is not available: {0}")]
    Unavailable(String),
    /// It answered with an error.
    #[error("the execution client refused: {message} (code {code})")]
    Refused {
        /// JSON-RPC's code.
        code: i64,
        /// Its message, cut off after 200 characters.
        message: String,
    },
    /// Its answer does not parse, or contradicts a hash.
    #[error("the execution client answered wrongly: {0}")]
    Corrupt(String),
}

impl ClientError {
    /// Whether the client lacks the method, so that asking again is of no use.
    pub const fn is_no_such_method(&self) -> bool {
        matches!(self, Self::Refused { code: NO_SUCH_METHOD | NOT_AVAILABLE, .. })
    }

    /// The name used in metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Refused { .. } => "refused",
            Self::Corrupt(_) => "corrupt",
        }
    }
}

impl From<ClientError> for SourceError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unavailable(why) => Self::Unavailable(why),
            // State that the client has pruned.
            ClientError::Refused { .. } => Self::Missing(error.to_string()),
            ClientError::Corrupt(why) => Self::Corrupt(why),
        }
    }
}

/// A call in a batch: method and parameters.
pub(super) type Call<P> = (&'static str, P);
/// The result of a call; `None` is JSON's `null`.
pub(super) type Answer<T> = Result<Option<T>, ClientError>;

fn answered<T>(reply: Reply<T>) -> Answer<T> {
    reply.into_result().map_err(|error| ClientError::Refused {
        code: error.code,
        message: error.cut(MAX_ERROR_CHARS),
    })
}

struct Inner {
    config: ClientConfig,
    own: Semaphore,
    passed_on: Semaphore,
    /// Whether the client has refused a batch.
    no_batches: AtomicBool,
    /// Whether the client lacks `debug_getRawBlock`.
    no_raw_blocks: AtomicBool,
}

/// An execution client. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

impl Client {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] if the URL is unusable.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        http::check_url(&config.url).map_err(|e| ClientError::Unavailable(e.to_string()))?;
        Ok(Self(Arc::new(Inner {
            config,
            own: Semaphore::new(IN_FLIGHT),
            passed_on: Semaphore::new(PASSED_ON),
            no_batches: AtomicBool::new(false),
            no_raw_blocks: AtomicBool::new(false),
        })))
    }

    /// The client's settings.
    pub fn config(&self) -> &ClientConfig {
        &self.0.config
    }

    pub(super) fn has_raw_blocks(&self) -> bool {
        !self.0.no_raw_blocks.load(Ordering::Relaxed)
    }

    pub(super) fn note_no_raw_blocks(&self) {
        self.0.no_raw_blocks.store(true, Ordering::Relaxed);
    }

    async fn post(
        &self,
        turn: &Semaphore,
        http: HttpClient,
        body: Vec<u8>,
    ) -> Result<(u16, bytes::Bytes), ClientError> {
        let unavailable = |why: String| ClientError::Unavailable(why);
        let _turn = match timeout(http.timeout, turn.acquire()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) => return Err(unavailable("it is being left".into())),
            Err(_) => return Err(unavailable("too many requests are under way".into())),
        };
        match http.post_json(&self.0.config.url, None, body).await {
            Ok((status @ (401 | 403), _)) => Err(unavailable(format!(
                "it wants authentication (HTTP {status}): give its HTTP JSON-RPC, not its \
                 engine port"
            ))),
            Ok((status @ (429 | 500..), body)) if body.first() != Some(&b'{') => {
                Err(unavailable(format!("HTTP {status}")))
            }
            Ok(answer) => Ok(answer),
            Err(HttpError::NotSent(why) | HttpError::Ambiguous(why)) => Err(unavailable(why)),
        }
    }

    fn http(&self) -> HttpClient {
        let config = &self.0.config;
        HttpClient { timeout: config.timeout, max_response: config.max_response }
    }

    async fn single<T: DeserializeOwned>(
        &self,
        turn: &Semaphore,
        http: HttpClient,
        method: &str,
        params: impl Serialize,
    ) -> Answer<T> {
        let body = encode(&Request::new(method, params))?;
        let (status, body) = self.post(turn, http, body).await?;
        answered(decode::<Reply<T>>(status, &body)?)
    }

    /// One call; `None` if the answer is `null`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        params: impl Serialize,
    ) -> Result<Option<T>, ClientError> {
        self.single(&self.0.own, self.http(), method, params).await
    }

    /// Passes a call on for somebody else and returns the result as it came.
    ///
    /// # Errors
    /// [`ClientError`]; a `null` is a result.
    pub async fn raw(
        &self,
        method: &str,
        params: Option<&RawValue>,
        http: HttpClient,
    ) -> Result<Box<RawValue>, ClientError> {
        let answer = match params {
            Some(params) => self.single(&self.0.passed_on, http, method, params).await?,
            None => self.single(&self.0.passed_on, http, method, [(); 0]).await?,
        };
        match answer {
            Some(result) => Ok(result),
            None => RawValue::from_string("null".into())
                .map_err(|e| ClientError::Corrupt(e.to_string())),
        }
    }

    /// Many calls, in requests of at most [`ClientConfig::batch`] calls, [`IN_FLIGHT`] at once;
    /// answers in the order of the calls. `weight` of a call counts against the batch.
    ///
    /// # Errors
    /// [`ClientError`] if a whole request failed.
    pub(super) async fn batch<P: Serialize, T: DeserializeOwned>(
        &self,
        calls: &[Call<P>],
        weight: impl Fn(&P) -> usize,
    ) -> Result<Vec<Answer<T>>, ClientError> {
        let most = self.0.config.batch.max(1);
        let mut chunks = Vec::new();
        let (mut from, mut load) = (0, 0);
        for (i, (_, params)) in calls.iter().enumerate() {
            let one = weight(params);
            if i > from && load + one > most {
                chunks.push(&calls[from..i]);
                (from, load) = (i, 0);
            }
            load += one;
        }
        if from < calls.len() {
            chunks.push(&calls[from..]);
        }
        let mut answers = Vec::with_capacity(calls.len());
        for some in chunks.chunks(IN_FLIGHT) {
            let requests = some.iter().map(|chunk| self.chunk(chunk));
            for answered in futures_util::future::join_all(requests).await {
                answers.extend(answered?);
            }
        }
        Ok(answers)
    }

    async fn chunk<P: Serialize, T: DeserializeOwned>(
        &self,
        calls: &[Call<P>],
    ) -> Result<Vec<Answer<T>>, ClientError> {
        let alone = calls.len() == 1 || self.0.config.batch <= 1;
        if alone || self.0.no_batches.load(Ordering::Relaxed) {
            return self.one_by_one(calls).await;
        }
        let requests: Vec<_> = calls
            .iter()
            .enumerate()
            .map(|(id, (method, params))| Request::numbered(id, method, params))
            .collect();
        let (status, body) = self.post(&self.0.own, self.http(), encode(&requests)?).await?;
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'[') {
            // One answer to all of them: an error. It may be about batches as such.
            answered(decode::<Reply<serde::de::IgnoredAny>>(status, &body)?).err().ok_or_else(
                || ClientError::Corrupt("a batch was answered with a single result".into()),
            )?;
            let answers = self.one_by_one(calls).await?;
            self.0.no_batches.store(true, Ordering::Relaxed);
            return Ok(answers);
        }
        let replies: Vec<Reply<T>> = decode(status, &body)?;
        let mut answers: Vec<Option<Answer<T>>> = calls.iter().map(|_| None).collect();
        for reply in replies {
            if let Some(place) = reply.id.and_then(|id| answers.get_mut(id)) {
                *place = Some(answered(reply));
            }
        }
        let answers: Option<Vec<_>> = answers.into_iter().collect();
        answers.ok_or_else(|| ClientError::Corrupt("a call of a batch was not answered".into()))
    }

    async fn one_by_one<P: Serialize, T: DeserializeOwned>(
        &self,
        calls: &[Call<P>],
    ) -> Result<Vec<Answer<T>>, ClientError> {
        let mut answers = Vec::with_capacity(calls.len());
        for some in calls.chunks(IN_FLIGHT) {
            let requests = some.iter().map(|(method, params)| self.call(method, params));
            for answer in futures_util::future::join_all(requests).await {
                match answer {
                    Ok(_) | Err(ClientError::Refused { .. }) => answers.push(answer),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(answers)
    }
}

fn encode(request: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(request).map_err(|e| ClientError::Corrupt(format!("no request: {e}")))
}

fn decode<T: DeserializeOwned>(status: u16, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|e| match status {
        200 => ClientError::Corrupt(format!("no JSON-RPC answer: {e}")),
        status => ClientError::Unavailable(format!("HTTP {status}")),
    })
}
