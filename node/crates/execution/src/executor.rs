//! The executor: turns the sequencer's outputs into snapshots, verdicts and retractions.
//!
//! One thread owns all open blocks. Readers use [`ChainView`], whose answers come from immutable
//! snapshots, and follow [`ChainEvent`]s. Handing in a message never blocks: messages wait in a
//! queue bounded by number ([`ExecutorConfig::queue`]) and bytes ([`MAX_QUEUED_BYTES`]), and a
//! message that finds no room leaves its block unverified. Senders are recovered on all cores as
//! soon as a frag is handed in.

mod import;
mod service;
mod stats;
pub mod view;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{B256, Bytes};
use fragcast_shredder::delivery::{Delivered, Output, RetractReason};
use fragcast_shredder::{Message, MessageKey};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::chain::ChainSpec;
use crate::exec::{Decoded, StateSource, Tx};
use crate::follow::Follow;

pub use import::FollowError;
pub use stats::{BlockReport, ExecutorSnapshot, ExecutorStats};
pub use view::{ChainEvent, ChainView, Heads, History};

use service::Service;

/// Bytes of messages that wait for the executor.
pub const MAX_QUEUED_BYTES: usize = 256 * 1024 * 1024;

/// Blocks whose withdrawals may be handed in before they are opened.
const MAX_WITHDRAWALS: usize = 64;

/// Settings of the executor.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// Messages that may wait.
    pub queue: usize,
    /// Trie nodes held in memory before those that can be read again are dropped; one takes
    /// about 200 bytes.
    pub trie_nodes: usize,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self { queue: 4096, trie_nodes: 1_000_000 }
    }
}

/// Transactions of a frag whose senders are being recovered.
pub(crate) type Recovering = mpsc::Receiver<Vec<Decoded>>;

/// A message that waits, from the moment it is handed in until it is executed or dropped.
pub(crate) struct Queued {
    pub(crate) delivered: Arc<Delivered>,
    /// A frag's transactions.
    pub(crate) txs: Option<Recovering>,
    /// Freed with the message.
    pub(crate) _room: Room,
}

/// A message's room in the queue; dropping it frees the room.
pub(crate) struct Room {
    bytes: usize,
    queued: Arc<AtomicUsize>,
    queued_bytes: Arc<AtomicUsize>,
}

impl Room {
    fn take(bytes: usize, queued: &Arc<AtomicUsize>, queued_bytes: &Arc<AtomicUsize>) -> Self {
        queued.fetch_add(1, Ordering::Relaxed);
        queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { bytes, queued: Arc::clone(queued), queued_bytes: Arc::clone(queued_bytes) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
        self.queued_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A command to the executor's thread.
pub(crate) enum Command {
    /// The next message of its block.
    Message(Queued),
    /// An attempt is void.
    Retracted { block: u64, attempt: u8, reason: RetractReason },
    /// A message of this attempt was dropped because the queue was full.
    Lost { block: u64, attempt: u8 },
    /// A step along the execution client's chain.
    Follow { follow: Follow, done: tokio::sync::oneshot::Sender<Result<(), FollowError>> },
    /// The client's chain does not meet ours: start anew at its head, if the source can.
    StartAt { hash: B256 },
    /// End the thread after the commands before this one.
    Stop,
}

/// State needed to hand in messages.
struct Gate {
    commands: mpsc::Sender<Command>,
    /// The last attempt of which a message was dropped.
    newest_lost: AtomicU64,
    queued_bytes: Arc<AtomicUsize>,
}

/// Withdrawals by block number, which the messages do not carry.
pub(crate) type Withdrawals = Arc<Mutex<BTreeMap<u64, Vec<Withdrawal>>>>;

/// The executor's handle. Dropping it ends the thread.
pub struct Executor {
    gate: Gate,
    queued: Arc<AtomicUsize>,
    config: ExecutorConfig,
    op: bool,
    view: Arc<ChainView>,
    stats: Arc<ExecutorStats>,
    withdrawals: Withdrawals,
    thread: Option<JoinHandle<()>>,
}

/// A function that sees every report, in order, on the executor's thread.
pub type ReportTap = Box<dyn FnMut(&BlockReport) + Send>;

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
        let op = spec.is_op();
        let service = Service::new(service::Parts {
            spec,
            source,
            view: Arc::clone(&view),
            stats: Arc::clone(&stats),
            withdrawals: Arc::clone(&withdrawals),
            trie_nodes: config.trie_nodes,
            tap,
        });
        let thread = std::thread::Builder::new()
            .name("executor".into())
            .spawn(move || service.run(&receiver))?;
        let gate = Gate { commands, newest_lost: AtomicU64::new(u64::MAX), queued_bytes };
        Ok(Self { gate, queued, config, op, view, stats, withdrawals, thread: Some(thread) })
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
            // Once an attempt: what is lost of it later changes nothing.
            let key = block << 8 | u64::from(attempt);
            if self.gate.newest_lost.swap(key, Ordering::Relaxed) != key {
                self.send(Command::Lost { block, attempt });
            }
            return false;
        }
        let room = Room::take(bytes, &self.queued, &self.gate.queued_bytes);
        let txs = frag.map(|txs| recover(txs.clone(), self.op));
        let delivered = Arc::clone(delivered);
        self.send(Command::Message(Queued { delivered, txs, _room: room }));
        true
    }

    fn send(&self, command: Command) {
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

    /// Ends the thread after everything that was handed in; blocks until then.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
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

/// Measures how long a step takes.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn nanos(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The hash that stands for "not sealed".
pub const UNSEALED: B256 = B256::ZERO;

#[cfg(test)]
mod tests;
