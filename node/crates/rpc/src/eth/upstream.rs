//! Requests that are passed on to the execution client.

use fragcast_upstream::client::{Client, ClientError};
use fragcast_upstream::http::HttpClient;
use futures_util::future::BoxFuture;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::{Failure, Upstream, error};

/// The execution client as the source of older blocks.
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
