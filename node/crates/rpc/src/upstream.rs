//! Requests that are passed on to the execution client, because it may have what is not kept here.

use fragcast_upstream::client::{Client, ClientError};
use fragcast_upstream::http::HttpClient;
use futures_util::future::BoxFuture;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::error::{self, Failure};
use crate::stats::EthStats;

/// The execution client, which answers for blocks that are not kept here.
pub trait Upstream: Send + Sync {
    /// Sends a request. The client's error is passed on as it is; no answer in time is an error
    /// with [`error::UNAVAILABLE`].
    fn request(
        &self,
        method: &str,
        params: Value,
    ) -> BoxFuture<'_, Result<Value, ErrorObjectOwned>>;
}

/// An [`Upstream`] that asks over HTTP.
pub struct ClientUpstream {
    client: Client,
    http: HttpClient,
}

impl ClientUpstream {
    /// Passes requests on to `client`, each within the bounds of `http`.
    pub const fn new(client: Client, http: HttpClient) -> Self {
        Self { client, http }
    }

    async fn ask(
        client: Client,
        http: HttpClient,
        method: String,
        params: Value,
    ) -> Result<Value, ErrorObjectOwned> {
        let error = |code, message: String| ErrorObjectOwned::owned(code, message, None::<()>);
        let params: Option<Box<RawValue>> =
            Some(to_raw_value(&params).map_err(|e| Failure::internal(&e).into_error())?);
        let answer = client.raw(&method, params.as_deref(), http).await;
        let answer = answer.map_err(|e| match e {
            ClientError::Refused { code, message } => {
                error(i32::try_from(code).unwrap_or(error::NOT_HERE), message)
            }
            other => error(error::UNAVAILABLE, other.to_string()),
        })?;
        serde_json::from_str(answer.get())
            .map_err(|e| error(error::UNAVAILABLE, format!("the execution client: {e}")))
    }
}

impl Upstream for ClientUpstream {
    fn request(
        &self,
        method: &str,
        params: Value,
    ) -> BoxFuture<'_, Result<Value, ErrorObjectOwned>> {
        Box::pin(Self::ask(self.client.clone(), self.http, method.to_owned(), params))
    }
}

/// Passes a request on as it came, if `failure` says that the execution client may have what is
/// asked for and there is one; `None` if it has to be answered here.
pub(crate) async fn pass_on(
    upstream: Option<&dyn Upstream>,
    stats: &EthStats,
    failure: &Failure,
    method: &str,
    params: &Params<'_>,
) -> Option<Result<Value, ErrorObjectOwned>> {
    let upstream = upstream.filter(|_| failure.may_be_elsewhere())?;
    EthStats::count(&stats.forwarded);
    let params = params.as_str().map_or(Ok(Value::Array(Vec::new())), serde_json::from_str);
    let answer = match params {
        Ok(params) => upstream.request(method, params).await,
        Err(e) => return Some(Err(Failure::invalid(&e).into_error())),
    };
    Some(answer.inspect_err(|_| EthStats::count(&stats.upstream_errors)))
}
