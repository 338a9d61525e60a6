//! The executor: turns the sequencer's outputs into snapshots, verdicts and retractions.
//!
//! One thread owns all open blocks. Readers use [`ChainView`], whose answers come from immutable
//! snapshots, and follow [`ChainEvent`]s. Handing in a message never blocks: messages wait in a
//! queue bounded by number ([`ExecutorConfig::queue`]) and bytes ([`MAX_QUEUED_BYTES`]), and a
//! message that finds no room leaves its block unverified. Senders are recovered on all cores as
//! soon as a frag is handed in.

mod frags;
mod heads;
mod import;
mod open;
mod parents;
mod past;
mod queue;
mod service;
mod stats;
mod verdicts;
pub mod view;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{B256, Bytes};
use fragcast_shredder::delivery::{Delivered, Output};
use fragcast_shredder::{Message, MessageKey};
use futures_util::future::BoxFuture;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::chain::ChainSpec;
use crate::exec::{StateSource, Tx};
use crate::follow::{Chain, ClientHeads, Follow};

pub use queue::FollowError;
pub use stats::{BlockReport, ExecutorSnapshot, ExecutorStats, ReportTap};
pub use view::{ChainEvent, ChainView, Heads, History, Oldest, Reach};

use queue::{Command, Pending, Queued, Recovering, Room, Withdrawals};
use service::Service;

/// Bytes of messages that wait for the executor.
pub const MAX_QUEUED_BYTES: usize = 256 * 1024 * 1024;

/// Blocks whose withdrawals may be handed in before they are opened.
const MAX_WITHDRAWALS: usize = 64;

/// Times between two blocks that the execution of one may take. A node that needs longer than one
/// falls behind in any case; more than that lets it get over a slow moment.
pub const BLOCK_TIMES: u32 = 4;

/// Settings of the executor.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// Messages that may wait.
    pub queue: usize,
    /// Trie nodes held in memory before those that can be read again are dropped; one takes
    /// about 200 bytes.
    pub trie_nodes: usize,
    /// How long a block may be executed; `None`: [`BLOCK_TIMES`] times the time between it and its
    /// parent. A block that takes longer is unverified.
    pub time_limit: Option<Duration>,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self { queue: 4096, trie_nodes: 1_000_000, time_limit: None }
    }
}

/// State needed to hand in messages.
struct Gate {
    commands: mpsc::Sender<Command>,
    /// The last attempt of which a message was dropped.
    newest_lost: AtomicU64,
    queued_bytes: Arc<AtomicUsize>,
}

/// The executor's handle. Dropping it ends the thread.
pub struct Executor {
    gate: Gate,
    queued: Arc<AtomicUsize>,
    config: ExecutorConfig,
    spec: Arc<ChainSpec>,
    view: Arc<ChainView>,
    stats: Arc<ExecutorStats>,
    withdrawals: Withdrawals,
    source: Arc<dyn StateSource>,
    /// Set when the node is ending: nothing is executed any more.
    ending: Arc<AtomicBool>,
    pending: Arc<Pending>,
    /// Whether blocks need not follow one another.
    free: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The executor's thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the executor has ended")]
pub struct Ended;

impl Executor {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system could not start a thread.
    pub fn spawn(
        spec: Arc<ChainSpec>,
        source: Arc<dyn StateSource>,
        view: Arc<ChainView>,
        config: ExecutorConfig,
        tap: Option<ReportTap>,
    ) -> std::io::Result<Self> {
        let (commands, receiver) = mpsc::channel();
        let stats = Arc::new(ExecutorStats::default());
        let queued = Arc::new(AtomicUsize::new(0));
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let withdrawals = Withdrawals::default();
        let ending = Arc::new(AtomicBool::new(false));
        let (pending, free) = (Arc::<Pending>::default(), Arc::<AtomicBool>::default());
        let service = Service::new(service::Parts {
            spec: Arc::clone(&spec),
            source: Arc::clone(&source),
            view: Arc::clone(&view),
            stats: Arc::clone(&stats),
            withdrawals: Arc::clone(&withdrawals),
            trie_nodes: config.trie_nodes,
            time_limit: config.time_limit,
            ending: Arc::clone(&ending),
            pending: Arc::clone(&pending),
            free: Arc::clone(&free),
            tap,
        });
        let thread = std::thread::Builder::new()
            .name("executor".into())
            .spawn(move || service.run(&receiver))?;
        let gate = Gate { commands, newest_lost: AtomicU64::new(u64::MAX), queued_bytes };
        Ok(Self {
            gate,
            queued,
            config,
            spec,
            view,
            stats,
            withdrawals,
            source,
            ending,
            pending,
            free,
            thread: Some(thread),
        })
    }

    /// The chain's rules.
    pub const fn spec(&self) -> &Arc<ChainSpec> {
        &self.spec
    }

    /// The chain as readers see it.
    pub const fn view(&self) -> &Arc<ChainView> {
        &self.view
    }

    /// Its counters.
    pub const fn stats(&self) -> &Arc<ExecutorStats> {
        &self.stats
    }

    /// The number of messages that wait.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Whether it has dealt with everything that was handed in; what waits for a parent is dealt with.
    pub fn is_idle(&self) -> bool {
        self.pending.count() == 0
    }

    /// Whether blocks follow one another from the source's head on: not if it has no head of its own.
    pub fn has_chain(&self) -> bool {
        !self.free.load(Ordering::Relaxed) && self.view.heads().is_some()
    }

    /// Hands in an output of the sequencer. Never blocks; says whether there was room.
    pub fn try_push(&self, output: &Output) -> bool {
        match output {
            Output::Retracted { block, attempt, reason } => {
                self.send(Command::Retracted { block: *block, attempt: *attempt, reason: *reason });
                true
            }
            Output::Message(delivered) => self.try_message(delivered),
        }
    }

    fn try_message(&self, delivered: &Arc<Delivered>) -> bool {
        let MessageKey { block, attempt, .. } = delivered.key;
        let frag = match delivered.message.message() {
            Message::Frag(frag) => Some(&frag.txs),
            Message::Env(_) | Message::Seal(_) => None,
        };
        let bytes = 512 + frag.map_or(0, |txs| txs.iter().map(|tx| tx.len() + 64).sum());
        let waiting = self.queued.load(Ordering::Relaxed);
        let waiting_bytes = self.gate.queued_bytes.load(Ordering::Relaxed);
        if waiting >= self.config.queue || waiting_bytes + bytes > MAX_QUEUED_BYTES {
            self.stats.overrun();
            // Once an attempt, or whenever it is handed in: what is lost of it later changes nothing.
            let key = block << 8 | u64::from(attempt);
            let before = self.gate.newest_lost.swap(key, Ordering::Relaxed);
            if before != key || delivered.key.message == 0 {
                self.send(Command::Lost { block, attempt });
            }
            return false;
        }
        let room = Room::take(bytes, &self.queued, &self.gate.queued_bytes);
        let txs = frag.map(|txs| recover(txs.clone(), self.spec.is_op()));
        let delivered = Arc::clone(delivered);
        self.send(Command::Message(Queued { delivered, txs, _room: room }));
        true
    }

    fn send(&self, command: Command) {
        if !self.pending.add(command.is_note()) {
            self.stats.overrun();
            return;
        }
        // A thread that has ended takes nothing, and `Node::failed` tells.
        let _ = self.gate.commands.send(command);
    }

    /// Hands in the withdrawals of a block, which its messages do not carry. To be called before
    /// its Env.
    pub fn withdrawals(&self, block: u64, withdrawals: Vec<Withdrawal>) {
        let mut all = self.withdrawals.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(block, withdrawals);
        while all.len() > MAX_WITHDRAWALS {
            all.pop_first();
        }
    }

    /// Hands in a step along the execution client's chain, and waits until it is done.
    ///
    /// # Errors
    /// [`FollowError`].
    pub async fn follow(&self, follow: Follow) -> Result<(), FollowError> {
        let (done, result) = tokio::sync::oneshot::channel();
        self.send(Command::Follow { follow, done });
        result.await.unwrap_or(Err(FollowError::Ended))
    }

    /// Whether the thread has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The node is ending: gives up what is being executed, in mid-transaction if need be, and
    /// what waits; does not wait for the thread. Verified blocks are still written, if the disk
    /// takes them.
    pub fn interrupt(&self) {
        self.ending.store(true, Ordering::Relaxed);
        self.source.give_up();
        self.send(Command::Stop);
    }

    /// Ends the thread after everything that was handed in; blocks until then.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Or the thread could wait for ever for a disk that is full.
        self.source.give_up();
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.end();
    }
}

impl Chain for Executor {
    fn has(&self, hash: B256) -> bool {
        self.view().heads().is_some_and(|heads| heads.latest.hash() == hash)
            || self.view().recent(hash).is_some()
            || self.view().block(hash).is_ok_and(|block| block.is_some())
    }

    fn latest(&self) -> Option<(u64, B256)> {
        self.view().heads().map(|heads| (heads.latest.number(), heads.latest.hash()))
    }

    fn follow(&self, step: Follow) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let result = Self::follow(self, step).await;
            if let Err(error) = &result {
                tracing::warn!(%error, "a step of the execution client was not taken");
            }
            result.is_ok()
        })
    }

    fn out_of_reach(&self, heads: ClientHeads) -> BoxFuture<'_, ()> {
        self.send(Command::StartAt { hash: heads.latest.1 });
        Box::pin(async {})
    }
}

/// Decodes transactions and recovers their senders on all cores.
fn recover(txs: Vec<Bytes>, op: bool) -> Recovering {
    let (done, result) = mpsc::channel();
    rayon::spawn(move || {
        let decoded = txs.par_iter().map(|tx| Tx::decode(tx, op)).collect();
        // The executor may have ended meanwhile.
        let _ = done.send(decoded);
    });
    result
}

#[cfg(test)]
mod tests;
