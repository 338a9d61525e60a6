//! The executor's thread: the open blocks, their parents and their verdicts.
//!
//! A block waits until its parent's header is known and hashes to what its Env names. The parent
//! may be verified, or complete and still without its Seal, so blocks stack. The block's messages
//! wait with it. A verified block that continues the chain becomes the head, is handed to the state
//! source, and leaves this table. A rejected or superseded one takes everything that stands on it
//! along.
//!
//! A block may be handed in again from its Env on, because something of it was lost: what has come
//! already does nothing, what lacks is taken, and a block that has ended without a result is executed
//! anew.
//!
//! Bounds: [`MAX_OPEN`] blocks; waiting messages count against the executor's queue until they are
//! executed or dropped; [`MAX_REJECTED`] blocks are remembered to be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, mpsc};
use std::time::{Duration, Instant};

use alloy_primitives::B256;
use fragcast_shredder::{Env, Message, MessageKey};

use super::BLOCK_TIMES;
use super::open::{Key, Open, Stage};
use super::queue::{Command, Pending, Queued, Withdrawals};
use super::stats::{Clock, ExecutorStats, ReportTap};
use super::view::ChainView;
use crate::chain::ChainSpec;
use crate::exec::{
    Allowance, BlockError, OnInvalid, OpenBlock, Parent, SealedBlock, StateSource, StateView,
    Unverified, Verdict,
};

/// Blocks that may be open or waiting.
pub(super) const MAX_OPEN: usize = 64;
/// Rejected blocks that are remembered, so that they are not executed again.
const MAX_REJECTED: usize = 64;
/// How often a source that did not answer is asked for its head again.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// The longest time between two blocks that counts, seconds: a slot of Ethereum's.
const MAX_BLOCK_TIME: u64 = 12;

/// What the thread works with.
pub(super) struct Parts {
    pub(super) spec: Arc<ChainSpec>,
    pub(super) source: Arc<dyn StateSource>,
    pub(super) view: Arc<ChainView>,
    pub(super) stats: Arc<ExecutorStats>,
    pub(super) withdrawals: Withdrawals,
    pub(super) trie_nodes: usize,
    pub(super) time_limit: Option<Duration>,
    /// Set when the node is ending.
    pub(super) ending: Arc<AtomicBool>,
    /// Set when blocks need not follow one another.
    pub(super) free: Arc<AtomicBool>,
    /// Commands that are not dealt with.
    pub(super) pending: Arc<Pending>,
    pub(super) tap: Option<ReportTap>,
}

/// The state of the thread. Its methods are also in `parents.rs`, `verdicts.rs`, `heads.rs` and
/// `import.rs`.
pub(super) struct Service {
    pub(super) parts: Parts,
    pub(super) open: BTreeMap<Key, Open>,
    /// The newest verified block.
    pub(super) latest: Option<Arc<SealedBlock>>,
    /// Whether the source has no head of its own: blocks need not follow one another then.
    pub(super) free: bool,
    pub(super) safe: Option<(u64, B256)>,
    pub(super) finalized: Option<(u64, B256)>,
    /// The newest of our blocks that the execution client has too.
    pub(super) confirmed: Option<(u64, B256)>,
    /// A state newer than the one that the source started from.
    pub(super) base: Option<(B256, Arc<dyn StateView>)>,
    pub(super) asked_head: Option<Instant>,
    /// Blocks above the head that are wrong.
    rejected: BTreeSet<Key>,
}

impl Service {
    pub(super) const fn new(parts: Parts) -> Self {
        Self {
            parts,
            open: BTreeMap::new(),
            latest: None,
            free: false,
            safe: None,
            finalized: None,
            confirmed: None,
            base: None,
            asked_head: None,
            rejected: BTreeSet::new(),
        }
    }

    pub(super) fn run(mut self, commands: &mpsc::Receiver<Command>) {
        self.ask_head();
        loop {
            let command = match commands.try_recv() {
                Ok(command) => command,
                Err(mpsc::TryRecvError::Disconnected) => return,
                Err(mpsc::TryRecvError::Empty) => {
                    self.idle();
                    match commands.recv_timeout(RETRY) {
                        Ok(command) => command,
                        Err(mpsc::RecvTimeoutError::Timeout) => {
                            self.ask_head();
                            self.note_durable();
                            continue;
                        }
                        Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    }
                }
            };
            self.wait_for_source();
            if self.is_ending() {
                return;
            }
            self.ask_head();
            let is_note = command.is_note();
            match command {
                Command::Stop => return,
                Command::StartAt { hash } => self.start_at(hash),
                Command::Retracted { block, attempt, reason } => {
                    self.retracted((block, attempt), reason);
                }
                Command::Lost { block, attempt } => self.lost((block, attempt)),
                Command::Follow { follow, done } => {
                    let result = self.follow(&follow);
                    // Who asked may have given up.
                    let _ = done.send(result);
                }
                Command::Message(queued) => self.message(queued),
            }
            self.note_durable();
            self.parts.pending.done(is_note);
        }
    }

    /// Waits while the source keeps nothing: until the node ends. What was executed is served
    /// meanwhile, and messages that find no room are dropped.
    fn wait_for_source(&self) {
        if !self.parts.source.stopped() {
            return;
        }
        self.parts.stats.update(|s| s.stopped = true);
        while self.parts.source.stopped() && !self.is_ending() {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.parts.stats.update(|s| s.stopped = false);
    }

    /// Whether the node is ending and nothing is to be executed any more.
    pub(super) fn is_ending(&self) -> bool {
        self.parts.ending.load(Ordering::Relaxed)
    }

    /// The time that a block `seconds` after its parent has.
    fn allowance(&self, seconds: u64) -> Allowance {
        // What a gateway puts into its Env must not become a long time.
        let block_time = Duration::from_secs(seconds.clamp(1, MAX_BLOCK_TIME));
        let time = self.parts.time_limit.unwrap_or(block_time * BLOCK_TIMES);
        Allowance::new(Some(time), Arc::clone(&self.parts.ending))
    }

    /// Hashes tries while there is nothing else to do, so that less is left for the Seal.
    fn idle(&self) {
        for open in self.open.values() {
            if let Stage::Running(block) = &open.stage {
                block.hash_ahead();
            }
        }
    }

    fn note_durable(&self) {
        let durable = self.parts.source.durable().map(|(number, _)| number);
        let open = self.open.len();
        self.parts.stats.update(|s| (s.durable, s.open) = (durable, open));
    }

    fn message(&mut self, queued: Queued) {
        let MessageKey { block, attempt, .. } = queued.delivered.key;
        match queued.delivered.message.message() {
            Message::Env(env) => self.env((block, attempt), env),
            Message::Frag(_) | Message::Seal(_) => self.enqueue((block, attempt), queued),
        }
    }

    fn env(&mut self, key: Key, env: &Env) {
        let Some(open) = self.make_way(key, env) else { return };
        while self.open.len() >= MAX_OPEN {
            // What is behind the head is of no more use; else the farthest future goes.
            let behind = self.latest.as_ref().map_or(0, |latest| latest.number());
            let oldest = self.open.keys().next().copied().filter(|(n, _)| *n <= behind);
            let Some(gone) = oldest.or_else(|| self.open.keys().next_back().copied()) else {
                return;
            };
            self.drop_block(gone, "evicted");
            self.parts.stats.update(|s| s.evicted += 1);
        }
        self.open.insert(key, open);
        self.advance(key);
    }

    /// The block that an Env opens: none if it is handed in again and nothing is to be done anew.
    /// What is left of an earlier try is dropped; how often that used up its time is kept.
    fn make_way(&mut self, key: Key, env: &Env) -> Option<Open> {
        let new = Open::new(env.clone());
        if self.rejected.contains(&key) || self.is_verified(key) {
            return None;
        }
        let Some(open) = self.open.get_mut(&key) else { return Some(new) };
        if open.complete.is_some() {
            // All that can lack is the Seal, which is taken if it comes.
            open.lost = false;
            return None;
        }
        if !open.is_tried_again() {
            return None;
        }
        let timed_out = open.timed_out;
        self.drop_block(key, "handed_again");
        Some(Open { timed_out, ..new })
    }

    /// Whether the chain has this attempt of a block.
    fn is_verified(&self, key: Key) -> bool {
        if self.latest.as_ref().is_none_or(|latest| latest.number() < key.0) {
            return false;
        }
        let view = &self.parts.view;
        let block = view.hash(key.0).ok().flatten().and_then(|hash| view.recent(hash));
        block.is_some_and(|block| block.snapshot.attempt == key.1)
    }

    /// A block is wrong, and is so if it is handed in again.
    pub(super) fn note_rejected(&mut self, key: Key) {
        let head = self.latest.as_ref().map_or(0, |latest| latest.number());
        self.rejected.insert(key);
        self.rejected.retain(|(number, _)| *number > head);
        while self.rejected.len() > MAX_REJECTED {
            self.rejected.pop_last();
        }
    }

    /// A message of a block was dropped, so the block is incomplete.
    fn lost(&mut self, key: Key) {
        self.make_room(key.0);
        let Some(open) = self.open.get_mut(&key).filter(|open| open.verdict.is_none()) else {
            return;
        };
        open.lost = true;
        if matches!(open.stage, Stage::Running(_)) {
            self.conclude(key, Verdict::Unverified(Unverified::Overrun));
        }
    }

    /// Blocks behind one that is incomplete wait in vain, and keep the room that it needs: it will
    /// be handed in again, and they after it.
    fn make_room(&mut self, block: u64) {
        let behind = self.open.range((block.saturating_add(1), 0)..);
        let waiting = behind.filter(|(_, open)| open.is_waiting() && !open.messages.is_empty());
        let waiting: Vec<Key> = waiting.map(|(key, _)| *key).collect();
        for key in waiting {
            self.drop_block(key, "evicted");
            self.parts.stats.update(|s| s.evicted += 1);
        }
    }

    /// Takes a frag or the Seal of a block that is open.
    fn enqueue(&mut self, key: Key, queued: Queued) {
        // Without an Env, which was lost, there is nothing to execute it on.
        let Some(open) = self.open.get_mut(&key) else { return };
        let index = queued.delivered.key.message;
        if matches!(open.stage, Stage::Ended) || index < open.next {
            return;
        }
        if index > open.next {
            self.lost(key);
            return;
        }
        open.next = index.saturating_add(1);
        let is_seal = matches!(queued.delivered.message.message(), Message::Seal(_));
        open.messages.push_back(queued);
        self.advance(key);
        if is_seal
            && let Some(open) = self.open.get(&key)
            && matches!(open.stage, Stage::Waiting)
        {
            // It may still be executed, if its parent comes.
            let why = Unverified::Parent(open.env.parent_hash);
            self.report(key, Verdict::Unverified(why));
        }
    }

    /// Executes as much as possible of a block and of those that wait for it.
    pub(super) fn advance(&mut self, key: Key) {
        let mut ready = vec![key];
        while let Some(key) = ready.pop() {
            if let Err(error) = self.advance_one(key, &mut ready) {
                self.conclude(key, error.into());
            }
        }
    }

    fn advance_one(&mut self, key: Key, ready: &mut Vec<Key>) -> Result<(), BlockError> {
        let Some(open) = self.open.get(&key) else { return Ok(()) };
        if matches!(open.stage, Stage::Waiting) {
            let parent_hash = open.env.parent_hash;
            let Some(parent) = self.parent(parent_hash)? else { return Ok(()) };
            self.start(key, parent)?;
        }
        loop {
            let Some(open) = self.open.get_mut(&key) else { return Ok(()) };
            let Stage::Running(block) = &mut open.stage else { return Ok(()) };
            if open.lost && open.verdict.is_none() {
                return Err(Unverified::Overrun.into());
            }
            let Some(Queued { delivered, txs, _room }) = open.messages.pop_front() else {
                return Ok(());
            };
            match (delivered.message.message(), txs) {
                (Message::Frag(frag), Some(txs)) => {
                    if frag.seq != block.frags() {
                        return Err(Unverified::Overrun.into());
                    }
                    let gone = |_| Unverified::Internal("senders could not be recovered".into());
                    let txs = txs.recv().map_err(gone)?;
                    let (count, gas) = (txs.len() as u64, block.gas_used());
                    let clock = Clock::start();
                    block.execute(txs, frag.is_last, OnInvalid::Fail)?;
                    let took = clock.nanos();
                    let gas = block.gas_used() - gas;
                    open.exec_ns += took;
                    let snapshot = block.snapshot();
                    open.snapshot = Some(Arc::clone(&snapshot));
                    self.parts.stats.update(|s| {
                        s.frags += 1;
                        s.txs += count;
                        s.gas += gas;
                        s.exec_ns += took;
                    });
                    self.show(&snapshot);
                    if frag.is_last {
                        self.complete(key, ready)?;
                    }
                }
                (Message::Seal(seal), _) => {
                    let clock = Clock::start();
                    let verdict = block.check(seal);
                    open.seal_ns += clock.nanos();
                    // Where the trie is not known, the Seal's root has completed the header.
                    open.complete = block.sealed().map(Arc::new);
                    let hash = open.complete.as_ref().map(|block| block.hash());
                    self.conclude(key, verdict);
                    ready.extend(self.waiting_for(hash));
                    return Ok(());
                }
                // An Env opens its block, and a frag always comes with its transactions.
                (Message::Env(_), _) | (Message::Frag(_), None) => {}
            }
        }
    }

    /// Makes the header after the last frag; the next block may be opened on it already.
    fn complete(&mut self, key: Key, ready: &mut Vec<Key>) -> Result<(), BlockError> {
        let Some(open) = self.open.get_mut(&key) else { return Ok(()) };
        let Stage::Running(block) = &mut open.stage else { return Ok(()) };
        open.last_frag = Some(Instant::now());
        let clock = Clock::start();
        block.finish()?;
        open.seal_ns += clock.nanos();
        open.complete = block.sealed().map(Arc::new);
        let hash = open.complete.as_ref().map(|block| block.hash());
        ready.extend(self.waiting_for(hash));
        Ok(())
    }

    fn waiting_for(&self, hash: Option<B256>) -> Vec<Key> {
        let waits = |open: &Open| {
            matches!(open.stage, Stage::Waiting) && Some(open.env.parent_hash) == hash
        };
        self.open.iter().filter(|(_, open)| waits(open)).map(|(key, _)| *key).collect()
    }

    fn start(&mut self, key: Key, parent: Parent) -> Result<(), BlockError> {
        let withdrawals = {
            let mut all = self.parts.withdrawals.lock().unwrap_or_else(PoisonError::into_inner);
            all.remove(&key.0)
        };
        let Some(open) = self.open.get(&key) else { return Ok(()) };
        let seconds = open.env.timestamp.saturating_sub(parent.header.timestamp);
        let allowance = self.allowance(seconds);
        let Some(open) = self.open.get_mut(&key) else { return Ok(()) };
        let (spec, source) = (&self.parts.spec, &self.parts.source);
        let mut block = OpenBlock::open(spec, &open.env, key.1, parent, source, withdrawals)?;
        block.allow(allowance);
        open.stage = Stage::Running(Box::new(block));
        Ok(())
    }
}
