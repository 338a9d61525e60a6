//! Reading a TOML file that an operator wrote.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Why a file is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}; `fragcast init` writes one")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// It is not TOML of the expected form.
    #[error("{path}: {source}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// The parser's error, with its place.
        source: Box<toml::de::Error>,
    },
}

/// Reads a TOML file.
///
/// # Errors
/// [`FileError`].
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| FileError::Io { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|source| FileError::Toml { path: path.to_owned(), source: Box::new(source) })
}
