//! The JSON-RPC requests to the execution client and what their answers mean.
//!
//! Invariant: an answer counts as "not received" only if the client cannot have looked at the
//! message: nothing was sent, or the token was refused before the body was read.

use std::time::Duration;

use alloy_primitives::hex;
use fragcast_shredder::messages::json::MessageJson;
use fragcast_shredder::{Kind, VerifiedMessage};
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::jwt::JwtSecret;
use super::machine::{Answer, Outcome};
use crate::http::{HttpClient, HttpError};
use crate::jsonrpc::{Reply, Request};

/// Added to the canonical recovery id (0 or 1) it gives the v that the gateway emits (27 or 28), so
/// the client gets the bytes that it would get from the gateway itself.
const V_OFFSET: u8 = 27;

/// The longest answer to a message: `"VALID"` or an error.
const MAX_ANSWER: usize = 64 * 1024;

/// The longest answer to the question for a block: it lists all transaction hashes, 69 bytes
/// each, so there is room for 60,000.
const MAX_BLOCK_ANSWER: usize = 4 * 1024 * 1024;

/// How much of an error message is kept.
const MAX_ERROR_CHARS: usize = 200;

#[derive(Serialize)]
struct SignedJson {
    signature: String,
    message: MessageJson,
}

/// Speaks to the engine port; every request has a connection and a token of its own.
pub(super) struct RpcClient {
    url: String,
    secret: JwtSecret,
    timeout: Duration,
}

impl RpcClient {
    pub(super) const fn new(url: String, secret: JwtSecret, timeout: Duration) -> Self {
        Self { url, secret, timeout }
    }

    pub(super) async fn send(&self, message: &VerifiedMessage) -> Outcome {
        let method = match message.message().kind() {
            Kind::Env => "engine_envV0",
            Kind::Frag => "engine_newFragV0",
            Kind::Seal => "engine_sealFragV0",
        };
        let mut signature = *message.signature().as_bytes();
        signature[64] += V_OFFSET;
        let param = SignedJson {
            signature: hex::encode_prefixed(signature),
            message: MessageJson::from(message.message()),
        };
        let body = match self.call(method, &[param], MAX_ANSWER).await {
            Ok(body) => body,
            Err(HttpError::NotSent(why)) => return Outcome::NotReceived(why),
            Err(HttpError::Ambiguous(why)) => return Outcome::Ambiguous(why),
        };
        match serde_json::from_slice::<Reply<Value>>(&body) {
            Ok(Reply { error: Some(error), .. }) => {
                let message = error.cut(MAX_ERROR_CHARS);
                Outcome::Refused { code: error.code, message }
            }
            Ok(Reply { result: Some(Value::String(result)), .. }) if result == "VALID" => {
                Outcome::Valid
            }
            Ok(_) => Outcome::Ambiguous("answered neither \"VALID\" nor an error".to_owned()),
            Err(error) => Outcome::Ambiguous(format!("answered no JSON-RPC: {error}")),
        }
    }

    pub(super) async fn has_block(&self, block: u64) -> Answer {
        let params = (format!("{block:#x}"), false);
        let body = match self.call("eth_getBlockByNumber", &params, MAX_BLOCK_ANSWER).await {
            Ok(body) => body,
            Err(HttpError::NotSent(why) | HttpError::Ambiguous(why)) => {
                return Answer::Unknown(why);
            }
        };
        match serde_json::from_slice::<Reply<IgnoredAny>>(&body) {
            Ok(Reply { error: Some(error), .. }) => {
                let message = error.cut(MAX_ERROR_CHARS);
                Answer::Unknown(format!("error {}: {message}", error.code))
            }
            Ok(Reply { result: Some(_), .. }) => Answer::Present,
            Ok(_) => Answer::Absent,
            Err(error) => Answer::Unknown(format!("answered no JSON-RPC: {error}")),
        }
    }

    /// The body of a 200; any other result as an error that says whether the request may have been
    /// received.
    async fn call<P: Serialize>(
        &self,
        method: &str,
        params: &P,
        max: usize,
    ) -> Result<Vec<u8>, HttpError> {
        let token = self.secret.token().map_err(|error| HttpError::NotSent(error.to_string()))?;
        let body = Request::new(method, params)
            .to_vec()
            .map_err(|error| HttpError::NotSent(error.to_string()))?;
        let http = HttpClient { timeout: self.timeout, max_response: max };
        match http.post_json(&self.url, Some(&token), body).await? {
            (200, body) => Ok(body.into()),
            (status @ (401 | 403), _) => Err(HttpError::NotSent(format!(
                "the client turned the token down (HTTP {status}): check that the JWT secret is \
                 the one of its --authrpc.jwtsecret, and both clocks"
            ))),
            (status, _) => Err(HttpError::Ambiguous(format!("HTTP {status}"))),
        }
    }
}
