//! The queue before the executor's thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::B256;
use fragcast_shredder::delivery::{Delivered, RetractReason};

use crate::exec::Decoded;
use crate::follow::Follow;
use crate::state::SourceError;

/// Commands beside messages that wait: while the disk is full nobody takes any. Those of blocks that
/// the executor has anything of are fewer.
pub(super) const MAX_NOTES: usize = 4096;

/// Transactions of a frag whose senders are being recovered.
pub(super) type Recovering = mpsc::Receiver<Vec<Decoded>>;

/// A message that waits, from the moment it is handed in until it is executed or dropped.
pub(super) struct Queued {
    pub(super) delivered: Arc<Delivered>,
    /// A frag's transactions.
    pub(super) txs: Option<Recovering>,
    /// Freed with the message.
    pub(super) _room: Room,
}

/// A message's room in the queue; dropping it frees the room.
pub(super) struct Room {
    bytes: usize,
    queued: Arc<AtomicUsize>,
    queued_bytes: Arc<AtomicUsize>,
}

impl Room {
    pub(super) fn take(
        bytes: usize,
        queued: &Arc<AtomicUsize>,
        queued_bytes: &Arc<AtomicUsize>,
    ) -> Self {
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
pub(super) enum Command {
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

impl Command {
    /// Whether it is one of those that [`Pending`] bounds: none is owed an answer, and none frees
    /// room.
    pub(super) const fn is_note(&self) -> bool {
        matches!(self, Self::Retracted { .. } | Self::Lost { .. } | Self::StartAt { .. })
    }
}

/// Commands that the thread has not dealt with.
#[derive(Debug, Default)]
pub(super) struct Pending {
    all: AtomicUsize,
    notes: AtomicUsize,
}

impl Pending {
    /// Counts a command; false if there are too many of its kind.
    pub(super) fn add(&self, is_note: bool) -> bool {
        if is_note && self.notes.fetch_add(1, Ordering::Relaxed) >= MAX_NOTES {
            self.notes.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.all.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// A command is dealt with.
    pub(super) fn done(&self, is_note: bool) {
        self.notes.fetch_sub(usize::from(is_note), Ordering::Relaxed);
        self.all.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }
}

/// Withdrawals by block number, which the messages do not carry.
pub(super) type Withdrawals = Arc<Mutex<BTreeMap<u64, Vec<Withdrawal>>>>;

/// Why a step could not be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The executor has ended.
    #[error("the executor has ended")]
    Ended,
    /// The fork point is not in our chain (any more).
    #[error("block {0} is not in the chain here: look for the fork again")]
    Fork(B256),
    /// The source cannot go back or does not answer.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Executing the client's block gave another result.
    #[error(
        "the execution client's block {number} ({hash}) cannot be followed: {reason}; one of \
         the two is wrong"
    )]
    Block {
        /// Its number.
        number: u64,
        /// Its hash.
        hash: B256,
        /// The reason.
        reason: String,
    },
}
