//! A source of the list: a file, or somebody's JSON-RPC.
//!
//! A registry is asked for `registry_registeredGateways`. A portal that does not know that method
//! is asked for `registry_currentGateway` and then for `registry_futureGateway(n)` a term later and
//! a term later, until the first gateway comes again: since nobody is registered twice, that is the
//! whole rotation. One after the other they would take longer than anybody waits, 13 s for 64 of them
//! over 100 ms there and back; so sixteen are asked for at once, and again only with another term or
//! after a while. Who leads now is asked of a registry as well: if it says another than its own list
//! does, it counts terms otherwise than this node, and that is told.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fragcast_upstream::http::{HttpClient, HttpError, Shown, check_url, shown};
use fragcast_upstream::jsonrpc::{Reply, Request};
use futures_util::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::list::{Gateway, GatewayList, ListError, MAX_BYTES, OneRow, RowError, Rows};
use crate::config::ConfigError;

/// Gateways that are asked for one by one, at most.
pub const MAX_WALK: u64 = 64;
/// Of these so many are asked for at once.
const AT_ONCE: u64 = 16;
/// After so long they are asked for again within a term: a list may change at any time.
const WALK_AGAIN: Duration = Duration::from_secs(8);
/// JSON-RPC's code for a method that is not there.
const NO_METHOD: i64 = -32601;

/// Why a source gave no list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(std::io::ErrorKind),
    /// It is no file.
    #[error("is no file")]
    NotAFile,
    /// There is too much of it.
    #[error("has more than {MAX_BYTES} bytes")]
    TooLong,
    /// What it holds is no list.
    #[error(transparent)]
    List(#[from] ListError),
    /// The server did not answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The server answered something else.
    #[error("answered HTTP {0}")]
    Status(u16),
    /// The server's error. Its text is not shown: it may quote what it knows.
    #[error("{method}: answered error {code}")]
    Rpc {
        /// The method.
        method: &'static str,
        /// Its code.
        code: i64,
    },
    /// There is neither a result nor an error.
    #[error("{0}: answered nothing")]
    Nothing(&'static str),
    /// A row.
    #[error("{method}: {reason}")]
    Row {
        /// The method.
        method: &'static str,
        /// What is wrong.
        reason: RowError,
    },
    /// The answers of one walk do not follow one another.
    #[error("a term began while it was asked: it is asked again")]
    Moved,
    /// The rotation is too long to be asked for gateway by gateway.
    #[error("knows no registry_registeredGateways, and no rotation within {MAX_WALK} terms")]
    TooFar,
    /// It took too long.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

/// What a source has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The list.
    pub list: GatewayList,
    /// The block for which the registry names another gateway than its list.
    pub contradicts_at: Option<u64>,
}

#[derive(Clone, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Url(String),
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Url(url) => f.debug_tuple("Url").field(&Shown(url)).finish(),
        }
    }
}

/// What the last walk has found.
#[derive(Debug, Clone)]
struct Walked {
    /// The term in which it began.
    term: u64,
    at: Instant,
    list: GatewayList,
}

/// A source. Its clones share what the last walk has found.
#[derive(Debug, Clone)]
pub struct Source {
    place: Place,
    /// Blocks of a term.
    term: u64,
    timeout: Duration,
    walk_again: Duration,
    walked: Arc<Mutex<Option<Walked>>>,
}

impl Source {
    /// A source as the configuration has it: a URL, or a path.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn new(text: &str, term: u64, timeout: Duration) -> Result<Self, ConfigError> {
        let wrong = |problem: String| ConfigError::Value { key: "registry.sources", problem };
        let place = if text.contains("://") {
            check_url(text).map_err(|error| wrong(error.to_string()))?;
            Place::Url(text.to_owned())
        } else if text.is_empty() {
            return Err(wrong("an empty name: give a gateways.json or http://host:port".into()));
        } else {
            Place::File(text.into())
        };
        Ok(Self { place, term, timeout, walk_again: WALK_AGAIN, walked: Arc::default() })
    }

    /// Its name in the log, the operator's status and metrics.
    pub fn name(&self) -> String {
        match &self.place {
            Place::File(path) => path.display().to_string(),
            Place::Url(url) => shown(url),
        }
    }

    /// Its name where everybody may read it.
    pub fn public_name(&self) -> String {
        match &self.place {
            Place::File(_) => "file".to_owned(),
            Place::Url(url) => shown(url),
        }
    }

    /// The longest that an answer may take.
    pub fn longest(&self) -> Duration {
        // Connecting and the answer have a time-out each.
        let request = self.timeout.saturating_mul(2);
        // Its list, who leads now, and the steps of a walk.
        let steps = 2 + MAX_WALK.div_ceil(AT_ONCE);
        request.saturating_mul(steps as u32)
    }

    /// Asks for the list.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn ask(&self) -> Result<Answer, SourceError> {
        let asked = async {
            match &self.place {
                Place::File(path) => {
                    let path = path.clone();
                    let read = tokio::task::spawn_blocking(move || read(&path)).await;
                    let list = read.unwrap_or(Err(SourceError::Io(std::io::ErrorKind::Other)))?;
                    Ok(Answer { list, contradicts_at: None })
                }
                Place::Url(url) => self.ask_registry(url).await,
            }
        };
        // Each request has its own time-outs; a file has none but this.
        let most = self.longest();
        tokio::time::timeout(most, asked).await.unwrap_or(Err(SourceError::TimedOut(most)))
    }

    async fn ask_registry(&self, url: &str) -> Result<Answer, SourceError> {
        const LIST: &str = "registry_registeredGateways";
        let list = match self.call::<Rows>(url, LIST, [(); 0]).await {
            Err(SourceError::Rpc { code: NO_METHOD, .. }) => {
                let list = self.rotation(url).await?;
                return Ok(Answer { list, contradicts_at: None });
            }
            answer => answer?.into_list()?,
        };
        let contradicts_at = match self.current(url).await {
            Ok((block, gateway)) => {
                let all = list.gateways();
                let told = &all[(block / self.term % all.len() as u64) as usize];
                (told.address != gateway.address).then_some(block)
            }
            // That it does not say is no contradiction.
            Err(_) => None,
        };
        Ok(Answer { list, contradicts_at })
    }

    async fn current(&self, url: &str) -> Result<(u64, Gateway), SourceError> {
        const METHOD: &str = "registry_currentGateway";
        let row = self.call::<OneRow>(url, METHOD, [(); 0]).await?;
        row.into_row().map_err(|reason| SourceError::Row { method: METHOD, reason })
    }

    /// The rotation of a portal: that of the last walk, or another walk's.
    async fn rotation(&self, url: &str) -> Result<GatewayList, SourceError> {
        let (block, first) = self.current(url).await?;
        let term = block / self.term;
        let known = || self.walked.lock().unwrap_or_else(PoisonError::into_inner);
        let again = known().clone().filter(|walked| {
            let all = walked.list.gateways();
            let leads = &all[(term % all.len() as u64) as usize];
            let is_fresh = walked.at.elapsed() < self.walk_again;
            is_fresh && walked.term == term && leads.address == first.address
        });
        if let Some(walked) = again {
            return Ok(walked.list);
        }
        let list = self.walk(url, term, first).await?;
        *known() = Some(Walked { term, at: Instant::now(), list: list.clone() });
        Ok(list)
    }

    /// The rotation, gateway by gateway, from the one on that leads a term.
    async fn walk(&self, url: &str, term: u64, first: Gateway) -> Result<GatewayList, SourceError> {
        const METHOD: &str = "registry_futureGateway";
        let mut all = vec![first];
        let ahead: Vec<u64> = (1..=MAX_WALK).collect();
        for some in ahead.chunks(AT_ONCE as usize) {
            let blocks = some.iter().map(|ahead| ahead.saturating_mul(self.term));
            let asked = blocks.map(|blocks| self.call::<OneRow>(url, METHOD, [blocks]));
            for (ahead, row) in some.iter().zip(join_all(asked).await) {
                let row = row?.into_row();
                let (block, gateway) =
                    row.map_err(|reason| SourceError::Row { method: METHOD, reason })?;
                if term.checked_add(*ahead) != Some(block / self.term) {
                    return Err(SourceError::Moved);
                }
                if gateway.address == all[0].address {
                    let len = all.len() as u64;
                    // The gateway of term t is number t % len.
                    let first = (len - term % len) % len;
                    return Ok(GatewayList::new(all)?.begin_at(first as usize));
                }
                all.push(gateway);
            }
        }
        Err(SourceError::TooFar)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        url: &str,
        method: &'static str,
        params: impl Serialize,
    ) -> Result<T, SourceError> {
        let client = HttpClient { timeout: self.timeout, max_response: MAX_BYTES };
        let body = Request::new(method, params).to_vec().map_err(ListError::from)?;
        let (status, answer) = client.post_json(url, None, body).await?;
        if status != 200 {
            return Err(SourceError::Status(status));
        }
        let reply: Reply<T> = serde_json::from_slice(&answer).map_err(ListError::from)?;
        let result = reply.into_result();
        let result = result.map_err(|error| SourceError::Rpc { method, code: error.code })?;
        result.ok_or(SourceError::Nothing(method))
    }
}

/// Reads a file.
fn read(path: &Path) -> Result<GatewayList, SourceError> {
    let io = |error: std::io::Error| SourceError::Io(error.kind());
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(SourceError::NotAFile);
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() > MAX_BYTES {
        return Err(SourceError::TooLong);
    }
    Ok(GatewayList::parse(&bytes)?)
}

#[cfg(test)]
mod tests;
