//! A remote signer: the gateway's key lives there, and signs the delegation to this node.
//!
//! Three interfaces are spoken, each as it is published:
//!
//! | [`SignerApi`] | request | what is signed |
//! |---|---|---|
//! | `web3signer` | `GET /api/v1/eth1/publicKeys`, `POST /api/v1/eth1/sign/{key}` | keccak256 of the [preimage](Delegation::preimage): the digest |
//! | `clef` | JSON-RPC `account_signData`, `text/plain` | the [text](Delegation::text), which its operator reads and approves |
//! | `eth_sign` | JSON-RPC `eth_sign` | the text |
//!
//! Whatever a signer answers is checked: the signature must recover the gateway that is configured.
//! Answers are bounded. What a signer says in an error is not shown, only its code: it may quote what
//! it knows. A request holds nothing secret; who can reach the signer can ask it too, so it should be
//! reached over loopback or a tunnel.

use std::fmt;
use std::time::Duration;

use alloy_primitives::{Address, hex, keccak256};
use fragcast_shredder::SignatureError;
use fragcast_turbine::delegation::Form;
use fragcast_turbine::{Delegation, SignedDelegation};
use fragcast_upstream::http::{HttpClient, HttpError, Shown, get_json};
use fragcast_upstream::jsonrpc::{Reply, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::config::SignerApi;

/// Bytes of an answer, at most; of a list of keys, at most, which is some 7,000 of them.
const MAX_ANSWER: usize = 64 * 1024;
const MAX_KEYS: usize = 1024 * 1024;

/// Why there is no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// It is not reached.
    #[error("{0}: start the signer, or correct leader.signer")]
    Unreachable(String),
    /// It has not answered, or not to the end.
    #[error("{0}: approve the request there if somebody has to, or raise leader.signer_timeout_ms")]
    NoAnswer(String),
    /// It answers something else.
    #[error("answered HTTP {0}: leader.signer_api may be another one's")]
    Status(u16),
    /// It does not have the key.
    #[error(
        "has no key of {0}: load the key there, or correct leader.gateway; Web3Signer must run as \
         `eth1`"
    )]
    UnknownKey(Address),
    /// It refuses.
    #[error(
        "refused (error {0}): approve the request there, allow it by a rule, or unlock the account"
    )]
    Refused(i64),
    /// Its answer is none.
    #[error("answered no signature of 65 bytes: leader.signer_api may be another one's")]
    NoSignature,
    /// No signature at all.
    #[error("answered a signature that is none: {0}")]
    Signature(#[from] SignatureError),
    /// Another key signed, or something else was signed.
    #[error(
        "signed with the key of {found}, and leader.gateway is {expected}: correct it there or here; \
         if {found} is nobody's, it signs in another form than leader.signer_api says"
    )]
    WrongSigner {
        /// The gateway that is configured.
        expected: Address,
        /// Who has signed, if what was asked for was signed.
        found: Address,
    },
}

/// What became of a request.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::VariantArray, strum::IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
#[non_exhaustive]
pub enum Asked {
    /// The delegation is signed.
    Signed,
    /// It is signed, when its first block was open already: it is dropped.
    Late,
    /// The signer was not reached.
    Unreachable,
    /// It did not answer in time, or not to the end.
    NoAnswer,
    /// It answered something that is no answer of its interface.
    Malformed,
    /// It does not have the key.
    UnknownKey,
    /// It refused.
    Refused,
    /// The signature is not the gateway's.
    WrongSigner,
}

impl Asked {
    /// All of them.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl From<&SignerError> for Asked {
    fn from(error: &SignerError) -> Self {
        match error {
            SignerError::Unreachable(_) => Self::Unreachable,
            SignerError::NoAnswer(_) => Self::NoAnswer,
            SignerError::Status(_) | SignerError::NoSignature => Self::Malformed,
            SignerError::UnknownKey(_) => Self::UnknownKey,
            SignerError::Refused(_) => Self::Refused,
            SignerError::Signature(_) | SignerError::WrongSigner { .. } => Self::WrongSigner,
        }
    }
}

impl From<HttpError> for SignerError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::NotSent(why) => Self::Unreachable(why),
            other => Self::NoAnswer(other.to_string()),
        }
    }
}

/// The signer of a gateway.
#[derive(Clone, PartialEq, Eq)]
pub struct Signer {
    /// Without a slash at its end.
    url: String,
    api: SignerApi,
    gateway: Address,
    timeout: Duration,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, api, gateway, timeout } = self;
        f.debug_struct("Signer")
            .field("url", &Shown(url))
            .field("api", api)
            .field("gateway", gateway)
            .field("timeout", timeout)
            .finish()
    }
}

impl Signer {
    /// The signer at `url` (`http://`), which has the key of `gateway`.
    pub fn new(url: &str, api: SignerApi, gateway: Address, timeout: Duration) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), api, gateway, timeout }
    }

    /// Its name in the log and in the operator's status.
    pub fn name(&self) -> String {
        format!("{} at {}", self.api, Shown(&self.url))
    }

    /// The gateway that it signs for.
    pub const fn gateway(&self) -> Address {
        self.gateway
    }

    /// Lets it sign.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn sign(&self, delegation: Delegation) -> Result<SignedDelegation, SignerError> {
        let text = || hex::encode_prefixed(delegation.text());
        let (form, answer) = match self.api {
            SignerApi::Web3signer => {
                let data = hex::encode_prefixed(delegation.preimage());
                (Form::Digest, self.rest(&data).await?)
            }
            SignerApi::Clef => {
                let params = json!(["text/plain", self.gateway, text()]);
                (Form::Text, self.call::<String>("account_signData", params).await?)
            }
            SignerApi::EthSign => {
                let params = json!([self.gateway, text()]);
                (Form::Text, self.call::<String>("eth_sign", params).await?)
            }
        };
        let signature = hex::decode_to_array(&answer).map_err(|_| SignerError::NoSignature)?;
        let signed = delegation.signed(form, signature)?;
        let (expected, found) = (self.gateway, signed.gateway()?);
        match found == expected {
            true => Ok(signed),
            false => Err(SignerError::WrongSigner { expected, found }),
        }
    }

    /// Looks whether it is there and has the key, without signing anything: of clef, whose accounts
    /// are told to nobody without approval, only whether it is there.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn check(&self) -> Result<(), SignerError> {
        match self.api {
            SignerApi::Web3signer => self.public_key().await.map(drop),
            SignerApi::Clef => {
                self.call::<serde_json::Value>("account_version", [(); 0]).await.map(drop)
            }
            SignerApi::EthSign => {
                let accounts: Vec<Address> = self.call("eth_accounts", [(); 0]).await?;
                match accounts.contains(&self.gateway) {
                    true => Ok(()),
                    false => Err(SignerError::UnknownKey(self.gateway)),
                }
            }
        }
    }

    fn client(&self) -> HttpClient {
        HttpClient { timeout: self.timeout, max_response: MAX_ANSWER }
    }

    /// Web3Signer's identifier of the gateway's key, which is the public key.
    async fn public_key(&self) -> Result<String, SignerError> {
        let url = format!("{}/api/v1/eth1/publicKeys", self.url);
        let (status, answer) = get_json(&url, self.timeout, MAX_KEYS).await?;
        match status {
            200 => {}
            404 => return Err(SignerError::UnknownKey(self.gateway)),
            other => return Err(SignerError::Status(other)),
        }
        let keys: Vec<String> =
            serde_json::from_slice(&answer).map_err(|_| SignerError::NoSignature)?;
        let ours = |key: &String| address_of(key) == Some(self.gateway);
        keys.into_iter().find(ours).ok_or(SignerError::UnknownKey(self.gateway))
    }

    async fn rest(&self, data: &str) -> Result<String, SignerError> {
        let key = self.public_key().await?;
        let url = format!("{}/api/v1/eth1/sign/{key}", self.url);
        let body = json!({ "data": data }).to_string().into_bytes();
        let (status, answer) = self.client().post_json(&url, None, body).await?;
        match status {
            200 => {
                let text = std::str::from_utf8(&answer).map_err(|_| SignerError::NoSignature)?;
                // Plain text; proxies make a JSON string of it.
                Ok(text.trim().trim_matches('"').to_owned())
            }
            404 => Err(SignerError::UnknownKey(self.gateway)),
            other => Err(SignerError::Status(other)),
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        params: impl Serialize,
    ) -> Result<T, SignerError> {
        let body = Request::new(method, params).to_vec();
        let body = body.map_err(|_| SignerError::NoSignature)?;
        let (status, answer) = self.client().post_json(&self.url, None, body).await?;
        let reply: Reply<T> = match serde_json::from_slice(&answer) {
            Ok(reply) => reply,
            Err(_) if status == 200 => return Err(SignerError::NoSignature),
            Err(_) => return Err(SignerError::Status(status)),
        };
        let result = reply.into_result().map_err(|error| SignerError::Refused(error.code))?;
        result.ok_or(SignerError::NoSignature)
    }
}

/// The address of an uncompressed public key in hex, with or without its first byte of 4; `None` if it
/// is something else. It becomes a part of a URL.
fn address_of(key: &str) -> Option<Address> {
    let bytes = hex::decode(key).ok()?;
    let point = match bytes.len() {
        64 => &bytes[..],
        65 if bytes[0] == 4 => &bytes[1..],
        _ => return None,
    };
    Some(Address::from_slice(&keccak256(point)[12..]))
}

#[cfg(test)]
mod tests;
