//! JSON exactly as based-op's gateway posts it.
//!
//! camelCase names, integers as plain JSON numbers, `difficulty` as a hex quantity, bytes as
//! 0x-hex. Unknown members are refused: the only one ever seen is the other dialect's
//! `blobGasUsed`, and that must not be read past.

use serde::{Deserialize, Serialize};

use super::{Dialect, Env, Frag, MAX_EXTRA_DATA, Message, Seal};

/// Why a JSON message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The message has, or lacks, the member that tells the dialects apart.
    #[error("the message speaks dialect `{found}`, the chain is configured for `{expected}`")]
    Dialect {
        /// What the chain's configuration says.
        expected: Dialect,
        /// What the message looks like.
        found: Dialect,
    },
    /// `extraData` over its limit.
    #[error("extraData of {0} bytes exceeds the limit of {MAX_EXTRA_DATA}")]
    ExtraData(usize),
}

/// An [`Env`] as read, not checked yet.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct EnvJson(Env);

/// A [`Frag`] as read, not checked yet.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct FragJson(Frag);

/// A [`Seal`] as read, not checked yet.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct SealJson(Seal);

/// Any of the three, to write.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct MessageJson(Message);

impl From<&Message> for MessageJson {
    fn from(message: &Message) -> Self {
        Self(message.clone())
    }
}

fn check(expected: Dialect, message: &Message) -> Result<(), JsonError> {
    match message.dialect() {
        Some(found) if found != expected => Err(JsonError::Dialect { expected, found }),
        _ => Ok(()),
    }
}

impl EnvJson {
    /// The message; `Env` is the same in both dialects.
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
    /// The message, if it speaks `dialect`.
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
    /// The message, if it speaks `dialect`.
    ///
    /// # Errors
    /// [`JsonError::Dialect`].
    pub fn into_message(self, dialect: Dialect) -> Result<Message, JsonError> {
        let message = self.0.into();
        check(dialect, &message)?;
        Ok(message)
    }
}
