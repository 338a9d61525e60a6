//! A disk that may be full for a while.
//!
//! redb gives a database up at the first error of its storage: from then on every read and write of
//! it fails until it is opened anew, and views that readers hold are dead. So errors of writing must
//! not reach it. [`Patient`] stands between redb and the file. What cannot be written stays in
//! memory and is read from there; [`sync_data`](StorageBackend::sync_data), which only the
//! writer's thread calls, waits until all of it is on the disk, trying again after 100 ms to 5 s. So
//! a full disk is a commit that takes long: readers go on, the file keeps the state of the last
//! commit, and the commit is made when there is room.
//!
//! After a failed `fsync` a kernel may take pages that it could not write for clean (the next
//! `fsync` answers that all is well). So everything since the last successful one is kept and
//! written again before it is tried again.
//!
//! **Memory.** What a transaction writes, at most [`MAX_LOG`]. A larger transaction is not kept:
//! if the disk fails in one, the database is given up as redb does by itself.

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::{BackendError, StorageBackend};

/// Bytes of one transaction that are kept until they are on the disk.
const MAX_LOG: usize = 256 * 1024 * 1024;
/// The first and the longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the store knows of its disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Whether to wait for the disk; not while the database is being opened.
    patient: AtomicBool,
    /// The node is ending: nothing is waited for.
    given_up: Mutex<bool>,
    told: Condvar,
    /// The error of the last try, while the disk fails.
    trouble: Mutex<Option<String>>,
    /// Tries that failed.
    retries: AtomicU64,
    /// For experiments: whether it takes nothing, as if it were full.
    full: AtomicBool,
}

impl Disk {
    /// From now on errors of writing are waited out.
    pub(super) fn be_patient(&self) {
        self.patient.store(true, Ordering::Relaxed);
    }

    /// For experiments: from now on the disk takes nothing, or takes everything again.
    pub(super) fn pretend_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// An error while the disk is pretended to be full.
    fn room(&self) -> io::Result<()> {
        if self.full.load(Ordering::Relaxed) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    /// Why nothing can be written at the moment.
    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// How often a try failed since the start.
    pub(super) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Ends all waiting, for good.
    pub(super) fn give_up(&self) {
        *lock(&self.given_up) = true;
        self.told.notify_all();
    }

    pub(super) fn has_given_up(&self) -> bool {
        *lock(&self.given_up)
    }

    fn failed(&self, error: &io::Error) {
        if !self.patient.load(Ordering::Relaxed) {
            return;
        }
        self.retries.fetch_add(1, Ordering::Relaxed);
        if lock(&self.trouble).replace(error.to_string()).is_none() {
            tracing::error!(
                %error,
                "the database cannot be written: make room; until then blocks wait in memory, and \
                 it is tried again"
            );
        }
    }

    fn recovered(&self) {
        if lock(&self.trouble).take().is_some() {
            tracing::info!("the database is written again");
        }
    }

    /// Waits; says whether to try again.
    fn pause(&self, pause: Duration) -> bool {
        if !self.patient.load(Ordering::Relaxed) {
            return false;
        }
        let guard = lock(&self.given_up);
        let waited = self.told.wait_timeout_while(guard, pause, |given_up| !*given_up);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A change since the last successful sync.
#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

/// The changes since the last successful sync, in order.
#[derive(Debug, Default)]
struct Log {
    changes: Vec<Change>,
    bytes: usize,
    /// The length of the storage, if some of the changes are not in it.
    len: u64,
    /// More was written than is kept.
    lost: bool,
}

impl Log {
    fn push(&mut self, change: Change) {
        if let Change::Write(_, data) = &change {
            self.bytes += data.len();
        }
        match &change {
            Change::SetLen(len) => self.len = *len,
            Change::Write(offset, data) => self.len = self.len.max(offset + data.len() as u64),
        }
        if self.lost || self.bytes > MAX_LOG {
            self.lost = true;
            self.changes = Vec::new();
        } else {
            self.changes.push(change);
        }
    }

    /// Puts what is kept over what was read at `offset`.
    fn overlay(&self, offset: u64, out: &mut [u8]) {
        let end = offset + out.len() as u64;
        for change in &self.changes {
            match change {
                Change::Write(at, data) => {
                    let (from, to) = (offset.max(*at), end.min(at + data.len() as u64));
                    if from < to {
                        let part = &data[(from - at) as usize..(to - at) as usize];
                        out[(from - offset) as usize..(to - offset) as usize].copy_from_slice(part);
                    }
                }
                // What was cut off is zero if the storage grows again.
                Change::SetLen(len) if *len < end => {
                    let from = (*len).max(offset) - offset;
                    out[from as usize..].fill(0);
                }
                Change::SetLen(_) => {}
            }
        }
    }
}

/// The backend; see [the module](self).
#[derive(Debug)]
pub(super) struct Patient<B> {
    inner: B,
    disk: Arc<Disk>,
    log: Mutex<Log>,
    /// Whether some of the log is not in `inner`, which readers must then look up there.
    behind: AtomicBool,
}

impl<B: StorageBackend> Patient<B> {
    pub(super) fn new(inner: B) -> (Self, Arc<Disk>) {
        let disk = Arc::new(Disk::default());
        let (log, behind) = (Mutex::default(), AtomicBool::new(false));
        (Self { inner, disk: Arc::clone(&disk), log, behind }, disk)
    }

    /// Applies a change, or keeps it for later if that fails.
    fn change(&self, change: Change) -> io::Result<()> {
        let mut log = lock(&self.log);
        if !self.behind.load(Ordering::Acquire) {
            match self.apply(&change) {
                Ok(()) => {}
                Err(error) if log.lost || !self.disk.patient.load(Ordering::Relaxed) => {
                    return Err(error);
                }
                Err(error) => {
                    self.disk.failed(&error);
                    log.len = self.inner.len()?;
                    self.behind.store(true, Ordering::Release);
                }
            }
        }
        log.push(change);
        if log.lost && self.behind.load(Ordering::Acquire) {
            return Err(io::Error::other(
                "the disk failed, and the transaction is too large to keep",
            ));
        }
        Ok(())
    }

    fn apply(&self, change: &Change) -> io::Result<()> {
        self.disk.room()?;
        match change {
            Change::Write(offset, data) => self.inner.write(*offset, data),
            Change::SetLen(len) => self.inner.set_len(*len),
        }
    }

    /// Writes everything that is kept, from the beginning.
    fn write_again(&self) -> io::Result<()> {
        let log = lock(&self.log);
        for change in &log.changes {
            self.apply(change)?;
        }
        self.behind.store(false, Ordering::Release);
        Ok(())
    }
}

impl<B: StorageBackend> StorageBackend for Patient<B> {
    fn len(&self) -> io::Result<u64> {
        let log = lock(&self.log);
        if self.behind.load(Ordering::Acquire) { Ok(log.len) } else { self.inner.len() }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if !self.behind.load(Ordering::Acquire) {
            return self.inner.read(offset, out);
        }
        let log = lock(&self.log);
        if offset.saturating_add(out.len() as u64) > log.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // The file may still be shorter than the storage.
        let there = self.inner.len()?.saturating_sub(offset).min(out.len() as u64) as usize;
        if there > 0 {
            self.inner.read(offset, &mut out[..there])?;
        }
        out[there..].fill(0);
        log.overlay(offset, out);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::SetLen(len))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset, data.to_vec()))
    }

    /// Returns when everything is on the disk, or when the node is ending.
    fn sync_data(&self) -> io::Result<()> {
        let mut pause = PAUSES.0;
        let mut again = self.behind.load(Ordering::Acquire);
        loop {
            let written = if again { self.write_again() } else { Ok(()) };
            let synced = written.and_then(|()| self.disk.room());
            let Err(error) = synced.and_then(|()| self.inner.sync_data()) else {
                *lock(&self.log) = Log::default();
                self.disk.recovered();
                return Ok(());
            };
            self.disk.failed(&error);
            if lock(&self.log).lost || !self.disk.pause(pause) {
                return Err(error);
            }
            (again, pause) = (true, (pause * 2).min(PAUSES.1));
        }
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
