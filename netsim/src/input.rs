//! Reads user input with bounds: files up to a size, and numbers of the command line.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The operating system refused, or the file is not text.
    #[error("cannot read {}: {source}; check the path, and that it is a text file", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file has more bytes than a file of this kind may have.
    #[error("{} is larger than the {limit} bytes allowed; is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
}

/// Reads the text of a file of at most `limit` bytes.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, ReadError> {
    let mut text = String::new();
    // One more byte than allowed tells whether the file is too large.
    File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_string(&mut text))
        .map_err(|source| ReadError::Io { path: path.into(), source })?;
    if text.len() as u64 > limit {
        return Err(ReadError::TooLarge { path: path.into(), limit });
    }
    Ok(text)
}

/// The last part of a path, which reports show, so that they do not depend on the folder.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy()).into()
}

/// The text is not a number within its bounds.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a {what} from {least} to {most}, such as {example}, is expected")]
pub(crate) struct NumberError {
    what: &'static str,
    least: f64,
    most: f64,
    example: f64,
}

/// Parses a share of lost packets.
pub(crate) fn loss_share(text: &str) -> Result<f64, NumberError> {
    within(text, NumberError { what: "share", least: 0.0, most: 0.5, example: 0.01 })
}

/// Parses the standard deviation of the factor of a pair of places.
pub(crate) fn pair_factor(text: &str) -> Result<f64, NumberError> {
    let what = "standard deviation";
    within(text, NumberError { what, least: 0.0, most: 1.0, example: 0.12 })
}

/// Parses the size of a frag in kB (1,000 bytes). Returns bytes.
pub(crate) fn kilobytes(text: &str) -> Result<u32, NumberError> {
    let what = "size in kB";
    let kb = within(text, NumberError { what, least: 0.2, most: 10_000.0, example: 36.0 })?;
    Ok((kb * 1e3).round() as u32)
}

/// Parses an amount of memory in GiB. Returns bytes.
pub(crate) fn gib(text: &str) -> Result<u64, NumberError> {
    let what = "number of GiB";
    let gib = within(text, NumberError { what, least: 0.001, most: 1e6, example: 8.0 })?;
    Ok((gib * (1u64 << 30) as f64).round() as u64)
}

fn within(text: &str, expected: NumberError) -> Result<f64, NumberError> {
    let number = text.parse().map_err(|_| expected)?;
    if (expected.least..=expected.most).contains(&number) { Ok(number) } else { Err(expected) }
}

/// The number of insertions, deletions and replacements from one to the other (Levenshtein).
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
    fn numbers_have_units_and_bounds() {
        assert_eq!(kilobytes("3.6"), Ok(3_600));
        assert_eq!(kilobytes("0.2"), Ok(200));
        assert_eq!(gib("1.5"), Ok(3 << 29));
        for wrong in ["0.1", "10001", "NaN", "inf", "-1", "", "3,6"] {
            assert!(kilobytes(wrong).is_err(), "{wrong}");
        }
        let error = loss_share("2").unwrap_err().to_string();
        assert_eq!(error, "a share from 0 to 0.5, such as 0.01, is expected");
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, n) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("abc", "abc", 0)]
        {
            assert_eq!((edits(a, b), edits(b, a)), (n, n));
        }
    }
}
