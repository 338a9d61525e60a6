//! What a path holds: a JSON file, a folder of them, or an archive; all are read one document at
//! a time.
//!
//! Archives are never unpacked to disk. Every document is at most [`MAX_FILE_LEN`] long, and all
//! of an archive at most [`MAX_ARCHIVE_LEN`], so nothing that is fed in takes memory or time
//! without end. Folders are walked in the order of their names, links to folders are not followed.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::recorded::{MAX_FILE_LEN, RecordedError, file};

/// The most that an archive may be, decompressed: 64 GiB. It is not held; this bounds the time.
/// ethereum/tests' BlockchainTests are some gigabytes.
pub const MAX_ARCHIVE_LEN: u64 = 64 << 30;

/// The most entries of an archive or a folder, folders included.
pub const MAX_ENTRIES: usize = 1 << 20;

/// Why a path could not be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A single file, or one in a folder or an archive.
    #[error(transparent)]
    File(#[from] RecordedError),
    /// It cannot be opened or read.
    #[error("cannot read {path}: {reason}; check the path and its permissions")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// An archive that is cut off, damaged, or none.
    #[error("{path} is no whole .tar.gz archive: {reason}; fetch it again")]
    Archive {
        /// Which.
        path: PathBuf,
        /// What the decompressor or the archive reader said.
        reason: io::Error,
    },
    /// Nothing to replay in it.
    #[error("{path} holds no .json or .json.gz file: give recorded blocks or ethereum/tests")]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// Over a bound.
    #[error("{path} has more than {MAX_ENTRIES} entries or is longer than {MAX_ARCHIVE_LEN} bytes")]
    TooLong {
        /// Which.
        path: PathBuf,
    },
}

/// JSON text and where it comes from.
#[derive(Debug)]
pub struct Document {
    /// Name to show: of a file its name, in a folder or an archive the path in it.
    pub source: String,
    /// Whether it was named by itself, so that it must be what it should.
    pub named: bool,
    /// The text; `Err`: why it could not be had.
    pub text: Result<Vec<u8>, RecordedError>,
}

fn is_document(name: &str) -> bool {
    name.ends_with(".json") || name.ends_with(".json.gz")
}

fn is_archive(name: &str) -> bool {
    [".tar.gz", ".tgz", ".tar"].iter().any(|end| name.ends_with(end))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Reads a path, one document after the other, until `take` returns `false`. Whether it did.
///
/// # Errors
/// [`InputError`]; what was read before has been taken.
pub fn read(path: &Path, take: &mut dyn FnMut(Document) -> bool) -> Result<bool, InputError> {
    let io = |reason| InputError::Io { path: path.to_owned(), reason };
    if std::fs::metadata(path).map_err(io)?.is_dir() {
        return read_folder(path, take);
    }
    if is_archive(&name_of(path)) {
        return read_archive(path, take);
    }
    let text = file::read(path)?;
    Ok(take(Document { source: name_of(path), named: true, text: Ok(text) }))
}

fn read_folder(root: &Path, take: &mut dyn FnMut(Document) -> bool) -> Result<bool, InputError> {
    // Sorted backwards, since the last is taken first.
    let mut waiting = vec![root.to_owned()];
    let (mut seen, mut found) = (0, false);
    while let Some(path) = waiting.pop() {
        let io = |reason| InputError::Io { path: path.clone(), reason };
        let is_folder = path.as_path() == root || path.symlink_metadata().map_err(io)?.is_dir();
        if !is_folder {
            if !is_document(&name_of(&path)) {
                continue;
            }
            found = true;
            let source = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            if !take(Document { source, named: false, text: file::read(&path) }) {
                return Ok(false);
            }
            continue;
        }
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(io)? {
            inside.push(entry.map_err(io)?.path());
            seen += 1;
            if seen > MAX_ENTRIES {
                return Err(InputError::TooLong { path: root.to_owned() });
            }
        }
        inside.sort_by(|a, b| b.cmp(a));
        waiting.append(&mut inside);
    }
    if found { Ok(true) } else { Err(InputError::Empty { path: root.to_owned() }) }
}

/// A reader that fails once it has given more than it may.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(format!("it is longer than {MAX_ARCHIVE_LEN} bytes"))
        })?;
        Ok(read)
    }
}

fn read_archive(path: &Path, take: &mut dyn FnMut(Document) -> bool) -> Result<bool, InputError> {
    let bad = |reason| InputError::Archive { path: path.to_owned(), reason };
    let io = |reason| InputError::Io { path: path.to_owned(), reason };
    let mut file = BufReader::new(File::open(path).map_err(io)?);
    let zipped = file.fill_buf().map_err(io)?.starts_with(&[0x1f, 0x8b]);
    let reader: Box<dyn Read> = match (zipped, path.extension().is_some_and(|e| e == "tar")) {
        (true, _) => Box::new(MultiGzDecoder::new(file)),
        (false, true) => Box::new(file),
        (false, false) => return Err(bad(io::Error::other("it is not gzip"))),
    };
    let mut archive = tar::Archive::new(Bounded { inner: reader, left: MAX_ARCHIVE_LEN });
    let (mut seen, mut found) = (0, false);
    for entry in archive.entries().map_err(bad)? {
        let mut entry = entry.map_err(bad)?;
        seen += 1;
        if seen > MAX_ENTRIES {
            return Err(InputError::TooLong { path: path.to_owned() });
        }
        let source = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if !entry.header().entry_type().is_file() || !is_document(&source) {
            continue;
        }
        found = true;
        let inside = path.join(&source);
        // A text that is too long or does not decompress is that document's fault, but an archive
        // that cannot be read on is the archive's.
        let text = match file::bounded(&inside, &mut entry, MAX_FILE_LEN, |reason| {
            RecordedError::Io { path: inside.clone(), reason }
        }) {
            Err(RecordedError::Io { reason, .. }) => return Err(bad(reason)),
            Ok(text) if source.ends_with(".gz") => {
                let decoder = MultiGzDecoder::new(Cursor::new(text));
                file::bounded(&inside, decoder, MAX_FILE_LEN, |reason| RecordedError::Gzip {
                    path: inside.clone(),
                    reason,
                })
            }
            other => other,
        };
        if !take(Document { source, named: false, text }) {
            return Ok(false);
        }
    }
    // To the end of the file: its checksum stands there.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(bad)?;
    if found { Ok(true) } else { Err(InputError::Empty { path: path.to_owned() }) }
}

#[cfg(test)]
mod tests;
