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
    #[error("{path}: {problem}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the place.
        problem: String,
    },
}

/// What the parser says. It quotes the line, which is left out if it may have a URL with a secret.
fn problem(text: &str, error: &toml::de::Error) -> String {
    let told = error.to_string();
    if !told.contains("://") && !told.contains('@') {
        return told;
    }
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let (line, start) =
        (before.matches('\n').count() + 1, before.rfind('\n').map_or(0, |at| at + 1));
    let column = before[start..].chars().count() + 1;
    format!("no TOML of the expected form at line {line}, column {column}, which may hold a secret")
}

/// Reads a TOML file.
///
/// # Errors
/// [`FileError`].
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| FileError::Io { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|error| FileError::Toml { path: path.to_owned(), problem: problem(&text, &error) })
}
