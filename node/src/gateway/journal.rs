//! The leader's journal: the attempts of each block that were opened.
//!
//! Two messages under one (block, attempt, index) are equivocation, and a leader that was killed in
//! mid-block does not remember what it sent. So an attempt is written and synced before its first
//! shred leaves, and after a restart the block continues under the next attempt.
//!
//! ```text
//! record: block u64 LE │ attempt u8 │ zero u8 ×3 │ first 4 bytes of BLAKE3 of those 12
//! ```
//!
//! A torn last record was never acted upon, and is cut off. Without the file (a restored backup, a
//! copied key) nobody knows what was sent. Then a marker is written, and the first block that is
//! offered is refused, with all before it and the [`WINDOW_FUTURE`] after it, which may have been
//! opened as well. The marker counts until a block has been opened, so another restart changes
//! nothing. A lock keeps a second process out.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use fragcast_shredder::shred::MAX_ATTEMPTS;
use fragcast_turbine::protocol::WINDOW_FUTURE;

const RECORD: usize = 16;
/// Blocks that are remembered; the journal is rewritten when it has four times as many records.
const KEEP: usize = 256;
/// The record that marks a journal which was missing.
const MARKER: (u64, u8) = (u64::MAX, u8::MAX);

/// Why an attempt could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file could not be read or written.
    #[error("cannot write the journal {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Another process has the file open.
    #[error("the journal {0} is in use: another node runs with this leader key")]
    InUse(PathBuf),
    /// A record in the middle is damaged.
    #[error(
        "the journal {0} is damaged: move it away, and the first eight blocks after the start are skipped"
    )]
    Damaged(PathBuf),
    /// All attempts of the block are used up.
    #[error("block {block} was opened {attempts} times already: go on with the next block")]
    Exhausted {
        /// The block.
        block: u64,
        /// How often it can be opened.
        attempts: u8,
    },
    /// Nobody knows whether the block was opened before.
    #[error(
        "the journal was missing: block {0} is skipped, since it may have been opened before; later blocks go on"
    )]
    Unknown(u64),
    /// The block is too old.
    #[error("block {0} is older than all that the journal remembers")]
    TooOld(u64),
}

/// The attempts opened so far, on disk.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    used: BTreeMap<u64, u8>,
    records: usize,
    /// Blocks up to this one are refused; `None` inside means: up to the first that is offered.
    unknown: Option<Option<u64>>,
}

fn record(block: u64, attempt: u8) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    bytes[..8].copy_from_slice(&block.to_le_bytes());
    bytes[8] = attempt;
    let check = blake3::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&check.as_bytes()[..4]);
    bytes
}

impl Journal {
    /// Makes an empty journal for a key that has never led.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn create(path: &Path) -> Result<(), JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(io)?;
        file.sync_all().map_err(io)
    }

    /// Opens a journal. A missing one is created, and the first eight blocks are then refused.
    ///
    /// # Errors
    /// [`JournalError::Io`] or [`JournalError::Damaged`].
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let missing = !path.exists();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        if file.try_lock().is_err() {
            return Err(JournalError::InUse(path.to_owned()));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let (whole, torn) = bytes.as_chunks::<RECORD>();
        let mut used = BTreeMap::new();
        let mut good = 0;
        let mut marked = false;
        for (i, bytes) in whole.iter().enumerate() {
            let block = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
            if *bytes != record(block, bytes[8]) {
                if i + 1 == whole.len() && torn.is_empty() {
                    break;
                }
                return Err(JournalError::Damaged(path.to_owned()));
            }
            good += 1;
            marked = (block, bytes[8]) == MARKER;
            if !marked {
                let attempt = used.entry(block).or_default();
                *attempt = bytes[8].max(*attempt);
            }
        }
        file.set_len((good * RECORD) as u64).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        let unknown = (missing || marked).then_some(None);
        let mut journal = Self { path: path.to_owned(), file, used, records: good, unknown };
        if missing {
            journal.append(MARKER.0, MARKER.1).map_err(io)?;
        }
        Ok(journal)
    }

    /// Whether the file was missing when it was opened.
    pub const fn was_missing(&self) -> bool {
        self.unknown.is_some()
    }

    /// Opens the next attempt of `block`, durably, of those that its gateway may make.
    ///
    /// # Errors
    /// [`JournalError`]; nothing may be sent then.
    pub fn next_attempt(
        &mut self,
        block: u64,
        may: RangeInclusive<u8>,
    ) -> Result<u8, JournalError> {
        if let Some(floor) = &mut self.unknown
            && block <= *floor.get_or_insert(block.saturating_add(WINDOW_FUTURE))
        {
            return Err(JournalError::Unknown(block));
        }
        if self.used.len() >= KEEP && self.used.keys().next().is_some_and(|oldest| block < *oldest)
        {
            return Err(JournalError::TooOld(block));
        }
        let attempt = self.used.get(&block).map_or(0, |used| used + 1).max(*may.start());
        if attempt > *may.end() || attempt >= MAX_ATTEMPTS {
            let attempts = (may.end() + 1).saturating_sub(*may.start());
            return Err(JournalError::Exhausted { block, attempts });
        }
        self.append(block, attempt)
            .map_err(|source| JournalError::Io { path: self.path.clone(), source })?;
        self.unknown = None;
        self.used.insert(block, attempt);
        while self.used.len() > KEEP {
            self.used.pop_first();
        }
        Ok(attempt)
    }

    fn append(&mut self, block: u64, attempt: u8) -> std::io::Result<()> {
        if self.records >= 4 * KEEP {
            self.rewrite()?;
        }
        let end = (self.records * RECORD) as u64;
        let written =
            self.file.write_all(&record(block, attempt)).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a record in the middle would be taken for damage.
            self.file.set_len(end)?;
            self.file.seek(SeekFrom::Start(end))?;
            return Err(error);
        }
        self.records += 1;
        Ok(())
    }

    /// Writes the remembered records to a new file that replaces the old one.
    fn rewrite(&mut self) -> std::io::Result<()> {
        let bytes: Vec<u8> = self.used.iter().flat_map(|(b, a)| record(*b, *a)).collect();
        let next = self.path.with_extension("journal.new");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&next)?;
        file.try_lock().map_err(std::io::Error::other)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&next, &self.path)?;
        if let Some(dir) = self.path.parent() {
            File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })?
                .sync_all()?;
        }
        self.file = file;
        self.records = self.used.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: RangeInclusive<u8> = 0..=MAX_ATTEMPTS - 1;

    fn journal(dir: &Path) -> Journal {
        let path = dir.join("leader.journal");
        if !path.exists() {
            Journal::create(&path).unwrap();
        }
        Journal::open(&path).unwrap()
    }

    #[test]
    fn a_restart_in_mid_block_opens_the_next_attempt() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(journal(dir.path()).next_attempt(7, ALL).unwrap(), 0);
        let mut again = journal(dir.path());
        assert_eq!(again.next_attempt(7, ALL).unwrap(), 1);
        assert_eq!(again.next_attempt(8, ALL).unwrap(), 0);
        drop(again);
        for attempt in 2..8 {
            assert_eq!(journal(dir.path()).next_attempt(7, ALL).unwrap(), attempt);
        }
        assert!(matches!(
            journal(dir.path()).next_attempt(7, ALL),
            Err(JournalError::Exhausted { block: 7, attempts: 8 })
        ));
    }

    #[test]
    fn a_substitute_has_numbers_of_its_own_below_the_scheduled_gateway_s() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path());
        assert_eq!(journal.next_attempt(7, 0..=1).unwrap(), 0);
        assert_eq!(journal.next_attempt(7, 0..=1).unwrap(), 1);
        let told = journal.next_attempt(7, 0..=1).unwrap_err();
        assert!(matches!(told, JournalError::Exhausted { block: 7, attempts: 2 }));
        assert!(told.to_string().contains("opened 2 times"), "{told}");
        // The same node for the scheduled gateway, which begins above and is then not gone below.
        assert_eq!(journal.next_attempt(7, 2..=7).unwrap(), 2);
        assert_eq!(journal.next_attempt(8, 2..=7).unwrap(), 2);
        assert!(journal.next_attempt(8, 0..=1).is_err());
    }

    #[test]
    fn a_missing_journal_skips_what_may_have_been_open_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leader.journal");
        // Starting again does not make it known what was sent.
        for _ in 0..2 {
            let mut journal = Journal::open(&path).unwrap();
            assert!(journal.was_missing());
            for block in [7, 7, 6, 14] {
                assert!(matches!(journal.next_attempt(block, ALL), Err(JournalError::Unknown(_))));
            }
        }
        let mut journal = Journal::open(&path).unwrap();
        assert!(journal.next_attempt(7, ALL).is_err());
        assert_eq!(journal.next_attempt(15, ALL).unwrap(), 0);
        assert_eq!(journal.next_attempt(16, ALL).unwrap(), 0);
        drop(journal);
        let mut journal = Journal::open(&path).unwrap();
        assert!(!journal.was_missing());
        assert_eq!(journal.next_attempt(15, ALL).unwrap(), 1);
    }

    #[test]
    fn two_processes_do_not_lead_with_one_journal() {
        let dir = tempfile::tempdir().unwrap();
        let first = journal(dir.path());
        let path = dir.path().join("leader.journal");
        assert!(matches!(Journal::open(&path), Err(JournalError::InUse(_))));
        drop(first);
        Journal::open(&path).unwrap();
    }

    #[test]
    fn a_torn_record_is_cut_off_and_a_damaged_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leader.journal");
        let mut first = journal(dir.path());
        first.next_attempt(7, ALL).unwrap();
        first.next_attempt(8, ALL).unwrap();
        drop(first);
        let whole = std::fs::read(&path).unwrap();
        for cut in 17..32 {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut torn = journal(dir.path());
            assert_eq!(torn.next_attempt(8, ALL).unwrap(), 0);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        let mut bad = whole;
        bad[0] ^= 1;
        std::fs::write(&path, bad).unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::Damaged(_))));
    }

    #[test]
    fn it_stays_small_and_forgets_nothing_recent() {
        let dir = tempfile::tempdir().unwrap();
        let mut long = journal(dir.path());
        for block in 0..3000 {
            long.next_attempt(block, ALL).unwrap();
        }
        let size = std::fs::metadata(dir.path().join("leader.journal")).unwrap().len();
        assert!(size <= (4 * KEEP * RECORD) as u64, "{size}");
        drop(long);
        let mut again = journal(dir.path());
        assert_eq!(again.next_attempt(2999, ALL).unwrap(), 1);
        assert!(matches!(again.next_attempt(5, ALL), Err(JournalError::TooOld(5))));
    }
}
