//! JSON, exactly as based-op's gateway posts it.
//!
//! Names are camelCase, integers plain JSON numbers, `difficulty` a hex quantity, bytes 0x-hex.
//! Unknown members are refused: the only one in use is `blobGasUsed` of the other dialect, and
//! ignoring it would misread the message.

use serde::{Deserialize, Serialize};

use super::{Dialect, Env, Frag, Kind, MAX_EXTRA_DATA, Message, Seal};
use crate::signature::Signature;

/// Why a JSON message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The message is of the other dialect: it has or lacks `blobGasUsed`.
    #[error("the message speaks dialect `{found}`, the chain is configured for `{expected}`")]
    Dialect {
        /// The chain's dialect.
        expected: Dialect,
        /// The message's dialect.
        found: Dialect,
    },
    /// `extraData` is longer than [`MAX_EXTRA_DATA`].
    #[error("extraData of {0} bytes exceeds the limit of {MAX_EXTRA_DATA}")]
    ExtraData(usize),
}

/// An [`Env`] that was read and not checked yet.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct EnvJson(Env);

/// A [`Frag`] that was read and not checked yet.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct FragJson(Frag);

/// A [`Seal`] that was read and not checked yet.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct SealJson(Seal);

/// A message to write.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct MessageJson(Message);

impl From<&Message> for MessageJson {
    fn from(message: &Message) -> Self {
        Self(message.clone())
    }
}

/// The JSON-RPC method by which a gateway posts a message of this kind.
pub const fn method(kind: Kind) -> &'static str {
    match kind {
        Kind::Env => "based_env",
        Kind::Frag => "based_newFrag",
        Kind::Seal => "based_sealFrag",
    }
}

/// The method and the only parameter of the request by which a gateway posts a message.
///
/// ```
/// use fragcast_shredder::messages::json;
/// use fragcast_shredder::{BlockBuilder, GatewayKey};
///
/// let signed = GatewayKey::from_bytes([7; 32])?.sign(BlockBuilder::new(42).env());
/// let (method, param) = json::request(&signed.message, &signed.signature);
/// assert_eq!(method, "based_env");
/// assert_eq!(param["message"]["number"], 42);
/// assert_eq!(param["signature"].as_str().map(str::len), Some(2 + 2 * 65));
/// # Ok::<(), fragcast_shredder::SignatureError>(())
/// ```
pub fn request(message: &Message, signature: &Signature) -> (&'static str, serde_json::Value) {
    let signature = alloy_primitives::hex::encode_prefixed(signature.as_bytes());
    let param = serde_json::json!({ "signature": signature, "message": message });
    (method(message.kind()), param)
}

fn check(expected: Dialect, message: &Message) -> Result<(), JsonError> {
    match message.dialect() {
        Some(found) if found != expected => Err(JsonError::Dialect { expected, found }),
        _ => Ok(()),
    }
}

impl EnvJson {
    /// Checks the message. `Env` is the same in both dialects.
    ///
    /// # Errors
    /// [`JsonError::ExtraData`].
    pub fn into_message(self) -> Result<Message, JsonError> {
        match self.0.extra_data.len() {
            0..=MAX_EXTRA_DATA => Ok(self.0.into()),
            len => Err(JsonError::ExtraData(len)),
        }
    }
}

impl FragJson {
    /// Checks that the message is of `dialect`.
    ///
    /// # Errors
    /// [`JsonError::Dialect`].
    pub fn into_message(self, dialect: Dialect) -> Result<Message, JsonError> {
        let message = self.0.into();
        check(dialect, &message)?;
        Ok(message)
    }
}

impl SealJson {
    /// Checks that the message is of `dialect`.
    ///
    /// # Errors
    /// [`JsonError::Dialect`].
    pub fn into_message(self, dialect: Dialect) -> Result<Message, JsonError> {
        let message = self.0.into();
        check(dialect, &message)?;
        Ok(message)
    }
}
