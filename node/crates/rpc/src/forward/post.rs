//! Sends a transaction to the leader of the block being built, else to the next one, else to the
//! execution client. The first that answers decides, even by an error.

use std::sync::Arc;

use alloy_primitives::{B256, Bytes};
use fragcast_upstream::http::{HttpError, Shown};
use fragcast_upstream::jsonrpc::{Reply, Request};
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::Value;

use super::{Forwarder, SendError};
use crate::error::NOT_HERE;

/// How much of a gateway's error message is passed on.
const MAX_ERROR_CHARS: usize = 1_000;

/// What is sent.
pub(super) struct Sending {
    pub(super) raw: Bytes,
    pub(super) hash: B256,
    pub(super) conditions: Option<Value>,
}

impl Forwarder {
    /// The addresses to try, in order.
    fn targets(&self) -> Vec<&str> {
        let Some(heads) = self.view.heads() else { return Vec::new() };
        let block = match &heads.pending {
            Some(pending) => pending.header.number,
            None => heads.latest.number().saturating_add(1),
        };
        // One view for both questions: they belong together.
        let epochs = Arc::clone(&self.epochs.borrow());
        let next = epochs.next_terms(block).next().map(|(gateway, _)| gateway);
        let leaders = [epochs.gateway(block), next];
        let gateways = leaders.into_iter().flatten().filter_map(|g| self.urls.get(&g));
        let mut targets: Vec<&str> = Vec::with_capacity(3);
        for url in gateways.chain(&self.config.fallback) {
            if !targets.contains(&url.as_str()) {
                targets.push(url);
            }
        }
        targets
    }

    /// Sends a transaction to the first target that answers; with conditions by the method that has
    /// them.
    pub(super) async fn post(&self, sending: &Sending) -> Result<(), ErrorObjectOwned> {
        let Sending { raw, hash, conditions } = sending;
        let body = match conditions {
            None => Request::new("eth_sendRawTransaction", [raw]).to_vec(),
            Some(conditions) => {
                Request::new("eth_sendRawTransactionConditional", (raw, conditions)).to_vec()
            }
        };
        let body = body.map_err(|_| SendError::Nobody)?;
        if self.urls.is_empty() && self.config.fallback.is_none() {
            return Err(SendError::NoAddress.into());
        }
        // Somebody may have it, though he did not answer.
        let mut perhaps_sent = false;
        for url in self.targets() {
            let answer = match self.http.post_json(url, None, body.clone()).await {
                Ok((200, answer)) => answer,
                Ok((status, _)) => {
                    tracing::debug!(url = %Shown(url), status, "a gateway did not take a transaction");
                    continue;
                }
                Err(error) => {
                    perhaps_sent |= matches!(error, HttpError::Ambiguous(_));
                    tracing::debug!(url = %Shown(url), %error, "a gateway did not take a transaction");
                    continue;
                }
            };
            match serde_json::from_slice::<Reply<Value>>(&answer) {
                Ok(Reply { error: Some(error), .. }) => {
                    if perhaps_sent && error.message.contains("already known") {
                        return Ok(());
                    }
                    let code = i32::try_from(error.code).unwrap_or(NOT_HERE);
                    let message = error.cut(MAX_ERROR_CHARS);
                    return Err(ErrorObjectOwned::owned(code, message, error.data));
                }
                Ok(Reply { result: Some(Value::String(answered)), .. }) => {
                    if answered.parse() != Ok(*hash) {
                        tracing::warn!(url = %Shown(url), answered, %hash, "a gateway answered another hash");
                    }
                    return Ok(());
                }
                Ok(_) | Err(_) => {
                    perhaps_sent = true;
                    tracing::debug!(url = %Shown(url), "a gateway answered no JSON-RPC");
                }
            }
        }
        Err(SendError::Nobody.into())
    }
}
