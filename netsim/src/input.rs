//! Files that a user names, read with a bound: nothing is allocated for what is too large to be
//! one of ours.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The operating system refuses, or it is not text.
    #[error("cannot read {}: {source}; check the path, and that it is a text file", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// More bytes than a file of this kind may have.
    #[error("{} is larger than the {limit} bytes allowed; is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
}

/// The text of a file of at most `limit` bytes.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, ReadError> {
    let mut text = String::new();
    // One byte more than allowed tells too large from just large enough.
    File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_string(&mut text))
        .map_err(|source| ReadError::Io { path: path.into(), source })?;
    if text.len() as u64 > limit {
        return Err(ReadError::TooLarge { path: path.into(), limit });
    }
    Ok(text)
}

/// The last part of a path: what reports say, which are the same wherever the file lies.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy()).into()
}

/// A number on the command line is not one, or out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a {what} from 0 to {most}, such as {example}, is expected")]
pub(crate) struct NumberError {
    what: &'static str,
    most: f64,
    example: f64,
}

/// A share of lost packets.
pub(crate) fn loss_share(text: &str) -> Result<f64, NumberError> {
    up_to(text, NumberError { what: "share", most: 0.5, example: 0.01 })
}

/// The standard deviation of the factor of a pair of places.
pub(crate) fn pair_factor(text: &str) -> Result<f64, NumberError> {
    up_to(text, NumberError { what: "standard deviation", most: 1.0, example: 0.12 })
}

fn up_to(text: &str, expected: NumberError) -> Result<f64, NumberError> {
    let number = text.parse().map_err(|_| expected)?;
    if (0.0..=expected.most).contains(&number) { Ok(number) } else { Err(expected) }
}

/// Insertions, deletions and replacements that lead from one to the other (Levenshtein).
pub(crate) fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(from != *to);
            row.push(replaced.min(above[j + 1] + 1).min(row[j] + 1));
        }
        above = row;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_last_byte_that_fits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("five.txt");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        assert!(matches!(read_text(&path, 4), Err(ReadError::TooLarge { limit: 4, .. })));
        assert!(matches!(read_text(dir.path(), 5), Err(ReadError::Io { .. })));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        let error = read_text(&path, 5).unwrap_err().to_string();
        assert!(error.contains("five.txt") && error.contains("text file"), "{error}");
        assert_eq!(file_name(&path), "five.txt");
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, n) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "abc", 0)]
        {
            assert_eq!((edits(a, b), edits(b, a)), (n, n));
        }
    }
}
