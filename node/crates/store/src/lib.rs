//! The embedded store: the state source of a chain that starts from a genesis.
//!
//! ```text
//! executor ─persist──▶ queue ─▶ writer thread ─▶ redb: one durable transaction per block
//!          ◀─base()──  newest durable view  ◀──────┘
//! ```
//!
//! **What is stored.** Trie nodes by their path, flat accounts and slots, code, headers, bodies,
//! receipts, the indexes of transactions and numbers, and for each of the last
//! [`StoreConfig::reorg_depth`] blocks the values that it overwrote. All of a block is in one
//! transaction, so a crash always leaves the state after some verified block: starting rebuilds
//! nothing and replays nothing. The EVM reads flat state (one look-up instead of one per level of
//! the trie); roots and proofs are made from trie nodes.
//!
//! **Served first, durable later.** A verified block is readable at once, from memory. Its
//! transaction takes tens of milliseconds and is made on the writer's thread. Until then the block
//! waits in a queue of [`StoreConfig::queue`] places; [`StateSource::persist`] blocks when it is
//! full, so a slow disk slows the chain down instead of filling the memory.
//! [`StateSource::durable`] names the newest durable block. After a crash later blocks are gone,
//! and come again from the network or from the execution client.
//!
//! **A full disk** makes a commit take long and nothing else (`patient.rs`): what is there is served,
//! the queue fills, `persist` waits, and everything goes on when there is room.
//! [`Store::trouble`] says so meanwhile. An error that waiting does not mend
//! ([`Store::failure`]) ends the writing; the store then [stops](StateSource::stopped) the
//! executor, because layers over a state that never becomes durable would fill the memory.
//!
//! **Which nodes a trie in memory resolves from.** A trie made by executing block N holds the nodes
//! that N and the blocks before touched, and, by their hash, the roots of subtrees that nothing
//! touched since the trie was started from a stored one. Such a subtree is the same, at the same
//! path, in every state since, so it can be read from the *newest durable* state as long as that is
//! not newer than the trie. [`LiveNodes`] does that, and [`StateSource::at`] hands it out: a fixed
//! view would keep its pages from being reused as long as the chain grows on it. A trie that is
//! older than the durable state gets [`SourceError::Missing`] for nodes that have changed since,
//! never a wrong one.
//!
//! **Memory.** redb's cache, [`StoreConfig::cache_mib`]; the queue, with about 2 MB per block of 23
//! Mgas; the changes of one block while they are written. Views that are held cost pages of the
//! file, not memory. While the disk is full, what one transaction writes besides, at most 256 MiB.
//!
//! **One process.** The file is locked; a second process is refused.
//!
//! The database is not checked as a whole when it is opened: redb checks the pages of a commit that
//! a crash may have torn, [`Store::verify`] checks everything.
#![forbid(unsafe_code)]

mod body;
mod codec;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod init;
mod patient;
mod tables;
mod undo;
mod verify;
mod view;
mod writer;

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use alloy_consensus::Header;
use alloy_primitives::B256;
use arc_swap::ArcSwap;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError};

pub use error::StoreError;
use fragcast_execution::chain::ChainSpec;
use fragcast_execution::exec::{Anchor, ExecutedBlock, SealedBlock, State, StateSource, StateView};
use fragcast_execution::executor::{History, Reach};
use fragcast_execution::state::SourceError;
use fragcast_execution::trie::{StateTrie, TrieNodes};
pub use verify::Report;
pub use view::{LiveNodes, StoreView};

use init::Start;
use patient::{Disk, Patient};
use writer::Command;

/// Settings of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The number of blocks that can be unwound, and whose state can be read.
    pub reorg_depth: u64,
    /// Verified blocks that may wait to be written, at least 1; about 2 MB each.
    pub queue: usize,
    /// redb's cache, MiB.
    pub cache_mib: usize,
    /// Blocks whose transactions and receipts are kept (never fewer than `reorg_depth`). Headers
    /// and the state are always kept.
    pub keep_blocks: Option<u64>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { reorg_depth: 256, queue: 16, cache_mib: 128, keep_blocks: None }
    }
}

/// What [`Store::check`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// No database: one would be made.
    Nothing,
    /// One whose process did not close it: it is repaired when it is opened.
    NotClosed,
    /// One whose newest block is this.
    Head(u64, B256),
}

/// Numbers for metrics, all of about the same moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// The newest durable block.
    pub durable: u64,
    /// Blocks that wait to be written, or to get a place in the queue.
    pub queued: usize,
    /// Blocks written since the start.
    pub commits: u64,
    /// Blocks that were refused because they do not follow the head or have no trie.
    pub refused: u64,
    /// Time to write the last block.
    pub last_commit: Duration,
    /// Time to write all blocks.
    pub total_commit: Duration,
    /// Length of the file, bytes.
    pub file_bytes: u64,
    /// Whether writing has failed; see [`Store::failure`].
    pub failed: bool,
    /// Whether the disk takes nothing at the moment; see [`Store::trouble`].
    pub troubled: bool,
    /// Tries to write that failed.
    pub retries: u64,
}

#[derive(Debug, Default)]
struct Counters {
    queued: AtomicUsize,
    commits: AtomicU64,
    refused: AtomicU64,
    last_us: AtomicU64,
    total_us: AtomicU64,
}

impl Counters {
    fn committed(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.last_us.store(us, Ordering::Relaxed);
        self.total_us.fetch_add(us, Ordering::Relaxed);
    }
}

/// The database and its newest view, which the writer's thread and all readers share.
struct StoreCore {
    db: Database,
    view: Arc<ArcSwap<StoreView>>,
    config: StoreConfig,
    op: bool,
    start: Start,
    genesis: B256,
    stats: Counters,
    failure: OnceLock<String>,
    disk: Arc<Disk>,
}

impl StoreCore {
    /// Publishes the committed state.
    fn publish(&self) -> Result<(), StoreError> {
        self.view.store(Arc::new(StoreView::open(&self.db, self.op)?));
        Ok(())
    }

    fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    /// Handles an error of writing. A block that does not fit is skipped, and so are those that
    /// build on it; any other error ends the writing, because no later block could be written
    /// without this one.
    fn fail(&self, what: &str, error: &StoreError) {
        if matches!(error, StoreError::Order { .. } | StoreError::NoTrie(_)) {
            self.stats.refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("the store passes over {what}");
        } else {
            tracing::error!("the store stops writing at {what}");
            let _ = self.failure.set(what.to_owned());
        }
    }
}

/// The embedded store. See [the module](self).
///
/// ```
/// use std::sync::Arc;
///
/// use fragcast_execution::devnet::{DevnetConfig, Genesis};
/// use fragcast_execution::exec::StateSource;
/// use fragcast_store::{Store, StoreConfig};
///
/// let spec = Arc::new(Genesis::devnet(&DevnetConfig::default()).chain_spec("dev")?);
/// let dir = tempfile::tempdir()?;
/// let store = Store::open(&dir.path().join("chain.redb"), &spec, StoreConfig::default())?;
/// // The genesis is durable; the executor persists the blocks that follow.
/// assert_eq!(store.durable().map(|(number, _)| number), Some(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Store {
    shared: Arc<StoreCore>,
    /// `None` while the store is being dropped.
    commands: Option<SyncSender<Command>>,
    writer: Option<JoinHandle<()>>,
    path: Option<PathBuf>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database file at `path`; creates it from the chain's genesis if there is none.
    ///
    /// # Errors
    /// The database is in use, of another chain or format, or damaged, or the chain has no genesis.
    pub fn open(
        path: &Path,
        spec: &Arc<ChainSpec>,
        config: StoreConfig,
    ) -> Result<Arc<Self>, StoreError> {
        // Before the file is made: a chain without a genesis leaves nothing behind.
        let start = Start::new(spec)?;
        let mut builder = Database::builder();
        builder.set_cache_size(config.cache_mib.max(1).saturating_mul(1024 * 1024));
        let exists = path.try_exists().map_err(|error| StoreError::Io(path.to_owned(), error))?;
        if !exists {
            init::create_file(path, &builder, &start)?;
        }
        let file = std::fs::File::options().read(true).write(true).open(path);
        let file = file.map_err(|error| StoreError::Io(path.to_owned(), error))?;
        let opened = |error| init::open_error(path, error);
        let (backend, disk) = Patient::new(FileBackend::new(file).map_err(opened)?);
        let db = builder.create_with_backend(backend).map_err(opened)?;
        Self::start(db, Some(path.to_owned()), start, spec, config, disk)
    }

    /// Whether [`Store::open`] could open the database file at `path`, without changing anything.
    ///
    /// # Errors
    /// The same, but for what only a repair would find.
    pub fn check(path: &Path, spec: &Arc<ChainSpec>) -> Result<Found, StoreError> {
        let start = Start::new(spec)?;
        let exists = path.try_exists().map_err(|error| StoreError::Io(path.to_owned(), error))?;
        if !exists {
            return Ok(Found::Nothing);
        }
        let db = match Database::builder().open_read_only(path) {
            Ok(db) => db,
            Err(DatabaseError::RepairAborted) => return Ok(Found::NotClosed),
            Err(error) => return Err(init::open_error(path, error)),
        };
        if !init::check(&db, &start)? {
            return Ok(Found::Nothing);
        }
        let head = StoreView::open(&db, spec.is_op())?.head;
        Ok(Found::Head(head.number, head.hash))
    }

    /// Opens a database on a backend.
    #[cfg(test)]
    fn on(
        backend: impl redb::StorageBackend,
        spec: &Arc<ChainSpec>,
        config: StoreConfig,
    ) -> Result<Arc<Self>, StoreError> {
        let mut builder = Database::builder();
        builder.set_cache_size(config.cache_mib.saturating_mul(1024 * 1024));
        let db = builder.create_with_backend(backend);
        let db = db.map_err(|error| StoreError::Db(Box::new(error.into())))?;
        Self::start(db, None, Start::new(spec)?, spec, config, Arc::default())
    }

    /// Opens a database on a backend whose errors are waited out.
    #[cfg(test)]
    fn patient_on(
        backend: impl redb::StorageBackend,
        spec: &Arc<ChainSpec>,
        config: StoreConfig,
    ) -> Result<Arc<Self>, StoreError> {
        let mut builder = Database::builder();
        builder.set_cache_size(config.cache_mib.saturating_mul(1024 * 1024));
        let (backend, disk) = Patient::new(backend);
        let db = builder.create_with_backend(backend);
        let db = db.map_err(|error| StoreError::Db(Box::new(error.into())))?;
        Self::start(db, None, Start::new(spec)?, spec, config, disk)
    }

    fn start(
        db: Database,
        path: Option<PathBuf>,
        start: Start,
        spec: &ChainSpec,
        config: StoreConfig,
        disk: Arc<Disk>,
    ) -> Result<Arc<Self>, StoreError> {
        if !init::check(&db, &start)? {
            init::create(&db, &start)?;
        }
        let op = spec.is_op();
        let view = StoreView::open(&db, op)?;
        let head = view.head;
        let header = view.header(head.hash)?;
        if header.is_none_or(|h| h.hash_slow() != head.hash || h.state_root != head.state_root) {
            return Err(StoreError::Corrupt("the head has no header that fits".into()));
        }
        disk.be_patient();
        let (commands, receiver) = sync_channel(config.queue.max(1));
        let shared = Arc::new(StoreCore {
            db,
            view: Arc::new(ArcSwap::from_pointee(view)),
            config,
            op,
            genesis: start.hash,
            start,
            stats: Counters::default(),
            failure: OnceLock::new(),
            disk,
        });
        let thread = std::thread::Builder::new().name("store".into());
        let writer = {
            let shared = Arc::clone(&shared);
            thread.spawn(move || writer::run(&shared, &receiver))
        };
        let failed = |error| StoreError::Io(path.clone().unwrap_or_default(), error);
        let writer = Some(writer.map_err(failed)?);
        Ok(Arc::new(Self { shared, commands: Some(commands), writer, path }))
    }

    /// The newest durable block with its state, and the nodes from which tries in memory resolve.
    pub fn base(&self) -> (u64, B256, Arc<dyn StateView>, Arc<dyn TrieNodes>) {
        let view = self.shared.view.load_full();
        let head = view.head;
        (head.number, head.hash, view, Arc::new(self.nodes()))
    }

    /// The trie nodes of the block that is the newest durable one when they are read.
    pub fn nodes(&self) -> LiveNodes {
        LiveNodes(Arc::clone(&self.shared.view))
    }

    /// The state after the newest durable block.
    pub fn view(&self) -> Arc<StoreView> {
        self.shared.view.load_full()
    }

    /// The database's file, if it has one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// For experiments: from now on the disk takes nothing, as if it were full, or takes everything
    /// again.
    pub fn pretend_full(&self, full: bool) {
        self.shared.disk.pretend_full(full);
    }

    /// Why the disk takes nothing at the moment; it is tried again.
    pub fn trouble(&self) -> Option<String> {
        self.shared.disk.trouble()
    }

    /// Why writing has stopped for good, if it has.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> StoreStats {
        let stats = &self.shared.stats;
        let us = |counter: &AtomicU64| Duration::from_micros(counter.load(Ordering::Relaxed));
        let file = self.path.as_ref().and_then(|path| std::fs::metadata(path).ok());
        StoreStats {
            durable: self.shared.view.load().head.number,
            queued: stats.queued.load(Ordering::Relaxed),
            commits: stats.commits.load(Ordering::Relaxed),
            refused: stats.refused.load(Ordering::Relaxed),
            last_commit: us(&stats.last_us),
            total_commit: us(&stats.total_us),
            file_bytes: file.map_or(0, |file| file.len()),
            failed: self.shared.failure.get().is_some(),
            troubled: self.shared.disk.trouble().is_some(),
            retries: self.shared.disk.retries(),
        }
    }

    /// Checks the whole database: computes the root from the flat state, walks the trie by path,
    /// follows the headers back. Takes about 200 bytes of memory per account.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&self) -> Result<Report, StoreError> {
        let view = self.shared.view.load_full();
        // redb panics on a page whose lengths are wrong, and such is what this looks for. Nothing is
        // written here, so nothing is left half done.
        let verified = panic::catch_unwind(AssertUnwindSafe(|| verify::verify(&view)));
        verified.unwrap_or_else(|_| Err(StoreError::Corrupt("a page cannot be read".into())))
    }

    fn send(&self, command: Command) -> Result<(), StoreError> {
        let commands = self.commands.as_ref();
        if commands.is_none_or(|commands| commands.send(command).is_err()) {
            let what = "its thread has ended".to_owned();
            let _ = self.shared.failure.set(what.clone());
            return Err(StoreError::Failed(what));
        }
        Ok(())
    }
}

impl StateSource for Store {
    fn at(&self, block: B256) -> Result<Option<Anchor>, SourceError> {
        let view = self.shared.view.load_full();
        let head = view.head;
        if head.hash != block {
            return Ok(None);
        }
        let gone = || StoreError::Corrupt("the head has no header".into());
        let header = view.header(head.hash)?.ok_or_else(gone)?;
        let trie = StateTrie::from_root(head.state_root);
        Ok(Some(Anchor { header, hash: block, view, trie, nodes: Arc::new(self.nodes()) }))
    }

    fn head(&self) -> Result<Option<B256>, SourceError> {
        Ok(Some(self.shared.view.load().head.hash))
    }

    fn header(&self, hash: B256) -> Result<Option<Header>, SourceError> {
        Ok(self.shared.view.load().header(hash)?)
    }

    /// Waits while the queue is full: a disk that cannot keep up slows the chain down.
    fn persist(&self, block: &Arc<SealedBlock>) {
        let queued = &self.shared.stats.queued;
        queued.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.send(Command::Persist(Arc::clone(block))) {
            queued.fetch_sub(1, Ordering::Relaxed);
            tracing::error!("block {} is not stored: {error}", block.number());
        }
    }

    fn base(&self) -> Option<(B256, Arc<dyn StateView>)> {
        let view = self.shared.view.load_full();
        Some((view.head.hash, view))
    }

    fn settle(&self) {
        let ended = || self.writer.as_ref().is_none_or(JoinHandle::is_finished);
        while self.shared.stats.queued.load(Ordering::Relaxed) > 0
            && self.failure().is_none()
            && self.trouble().is_none()
            && !ended()
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stopped(&self) -> bool {
        self.failure().is_some() && !self.shared.disk.has_given_up()
    }

    fn give_up(&self) {
        self.shared.disk.give_up();
    }

    fn durable(&self) -> Option<(u64, B256)> {
        let head = self.shared.view.load().head;
        Some((head.number, head.hash))
    }

    /// Waits until all queued blocks are written, so `block` may be a queued one. Then takes blocks
    /// back, each in a transaction of its own; a crash on the way leaves a block in between. Beyond
    /// the undo records it can only go back to the genesis, by starting over from it.
    fn unwind(&self, block: B256) -> Result<(), SourceError> {
        let (answer, answered) = sync_channel(1);
        self.send(Command::Unwind(block, answer))?;
        let ended = |_| SourceError::Unavailable("the store's thread has ended".into());
        answered.recv().map_err(ended)?
    }
}

impl History for Store {
    fn hash(&self, number: u64) -> Result<Option<B256>, SourceError> {
        Ok(self.shared.view.load().hash(number)?)
    }

    fn block(&self, hash: B256) -> Result<Option<Arc<ExecutedBlock>>, SourceError> {
        Ok(self.shared.view.load_full().block(hash)?.map(Arc::new))
    }

    fn header_of(&self, hash: B256) -> Result<Option<Header>, SourceError> {
        Ok(self.shared.view.load().header(hash)?)
    }

    /// The state after one of the last [`StoreConfig::reorg_depth`] blocks: the newest durable one, with
    /// what later blocks overwrote laid over it.
    fn state(&self, hash: B256) -> Result<Option<State>, SourceError> {
        let view = self.shared.view.load_full();
        let Some(header) = view.header(hash)? else { return Ok(None) };
        if header.number > view.head.number || view.hash(header.number)? != Some(hash) {
            return Ok(None);
        }
        let Some(layer) = view.taken_back(header.number)? else { return Ok(None) };
        Ok(Some(State::new(view).with(Arc::new(layer))))
    }

    fn reach(&self) -> Result<Reach, SourceError> {
        Ok(self.shared.view.load().reach()?)
    }

    fn tx(&self, hash: B256) -> Result<Option<(B256, usize)>, SourceError> {
        Ok(self.shared.view.load().tx(hash)?)
    }
}

impl Drop for Store {
    /// Writes the queued blocks, if the disk takes them.
    fn drop(&mut self) {
        self.shared.disk.give_up();
        drop(self.commands.take());
        // A callback of its own thread may have held the last reference: that thread ends by
        // itself, and cannot wait for itself.
        let here = std::thread::current().id();
        let writer = self.writer.take().filter(|writer| writer.thread().id() != here);
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the store's thread panicked: not all blocks may be stored");
        }
    }
}

#[cfg(test)]
mod tests;
