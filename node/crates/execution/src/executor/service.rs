//! The executor's thread: the open blocks, their parents and their verdicts.
//!
//! A block waits until its parent's header is known and hashes to what its Env names. The parent
//! may be verified, or complete and still without its Seal, so blocks stack. The block's messages
//! wait with it. A verified block that continues the chain becomes the head, is handed to the state
//! source, and leaves this table. A rejected or superseded one takes everything that stands on it
//! along.
//!
//! Bounds: [`MAX_OPEN`] blocks; waiting messages count against the executor's queue until they are
//! executed or dropped.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, mpsc};
use std::time::{Duration, Instant};

use alloy_primitives::B256;
use fragcast_shredder::delivery::RetractReason;
use fragcast_shredder::{Env, Message, MessageKey};

use super::stats::{BlockReport, ExecutorStats};
use super::view::{ChainEvent, ChainView, Heads};
use super::{Clock, Command, Queued, ReportTap, UNSEALED, Withdrawals};
use crate::chain::ChainSpec;
use crate::exec::hashes::BlockHashes;
use crate::exec::{
    Anchor, BlockError, ExecutedBlock, Invalid, OnInvalid, OpenBlock, Parent, SealedBlock,
    Snapshot, State, StateSource, StateView, Unverified, Verdict,
};

/// Blocks that may be open or waiting.
pub(super) const MAX_OPEN: usize = 64;
/// Layers over the source before the older ones are merged.
const MAX_LAYERS: usize = 64;
/// How often a source that did not answer is asked for its head again.
const RETRY: Duration = Duration::from_secs(1);
/// Blocks between two checks of the trie's size.
const TRIE_CHECK: u64 = 32;

/// Number and attempt.
pub(super) type Key = (u64, u8);

enum Stage {
    /// Its parent is not known yet.
    Waiting,
    /// It is executed on its parent.
    Running(Box<OpenBlock>),
    /// It has its verdict.
    Ended,
}

pub(super) struct Open {
    pub(super) env: Env,
    stage: Stage,
    /// Its messages after the Env that are not executed yet.
    messages: VecDeque<Queued>,
    /// Some of its messages were dropped.
    lost: bool,
    verdict: Option<Verdict>,
    /// Its newest snapshot.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// The block, once its last frag is executed.
    pub(super) complete: Option<Arc<SealedBlock>>,
    exec_ns: u64,
    seal_ns: u64,
    last_frag: Option<Instant>,
}

impl Open {
    /// Whether its parent is not known yet.
    pub(super) const fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting)
    }
}

/// What the thread works with.
pub(super) struct Parts {
    pub(super) spec: Arc<ChainSpec>,
    pub(super) source: Arc<dyn StateSource>,
    pub(super) view: Arc<ChainView>,
    pub(super) stats: Arc<ExecutorStats>,
    pub(super) withdrawals: Withdrawals,
    pub(super) trie_nodes: usize,
    pub(super) tap: Option<ReportTap>,
}

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
    asked_head: Option<Instant>,
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
            self.ask_head();
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
        }
    }

    /// Asks the source for its head until it answers.
    fn ask_head(&mut self) {
        if self.latest.is_some() || self.free {
            return;
        }
        if self.asked_head.is_some_and(|at| at.elapsed() < RETRY) {
            return;
        }
        self.asked_head = Some(Instant::now());
        let source = &self.parts.source;
        let anchor = match source.head() {
            Ok(None) => {
                self.free = true;
                return;
            }
            Ok(Some(hash)) => source.at(hash),
            Err(error) => Err(error),
        };
        match anchor {
            Ok(Some(anchor)) => {
                let block = Arc::new(self.block_of(anchor));
                tracing::info!(number = block.number(), hash = %block.hash(), "state at");
                self.parts.view.add(&block);
                self.latest = Some(block);
                self.publish();
            }
            Ok(None) => tracing::warn!("the state source has no state of its own head"),
            Err(error) => tracing::warn!(%error, "the state source does not tell its head"),
        }
    }

    /// A block whose state is known, and of which perhaps only the header is.
    pub(super) fn block_of(&self, anchor: Anchor) -> SealedBlock {
        let history = self.parts.view.block(anchor.hash).ok().flatten();
        let block = history.map_or_else(
            || ExecutedBlock {
                attempt: 0,
                hash: anchor.hash,
                header: anchor.header.clone(),
                frags: Vec::new(),
                withdrawals: None,
            },
            |block| (*block).clone(),
        );
        let source = Arc::clone(&self.parts.source);
        let parents = vec![anchor.header.parent_hash];
        let hashes = BlockHashes::new(anchor.header.number.saturating_sub(1), parents, source);
        let state = State::new(anchor.view);
        SealedBlock {
            snapshot: Arc::new(Snapshot { block, state, hashes: Arc::new(hashes) }),
            layer: Arc::default(),
            parent_trie: None,
            trie: Ok(anchor.trie),
            nodes: anchor.nodes,
        }
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
        while self.open.len() >= MAX_OPEN {
            // What is behind the head is of no more use; else the farthest future goes.
            let behind = self.latest.as_ref().map_or(0, |latest| latest.number());
            let oldest = self.open.keys().next().copied().filter(|(n, _)| *n <= behind);
            let Some(gone) = oldest.or_else(|| self.open.keys().next_back().copied()) else {
                return;
            };
            self.drop_block(gone, "evicted");
        }
        let open = Open {
            env: env.clone(),
            stage: Stage::Waiting,
            messages: VecDeque::new(),
            lost: false,
            verdict: None,
            snapshot: None,
            complete: None,
            exec_ns: 0,
            seal_ns: 0,
            last_frag: None,
        };
        self.open.insert(key, open);
        self.advance(key);
    }

    /// A message of a block was dropped, so the block is incomplete.
    fn lost(&mut self, key: Key) {
        let Some(open) = self.open.get_mut(&key).filter(|open| open.verdict.is_none()) else {
            return;
        };
        open.lost = true;
        if matches!(open.stage, Stage::Running(_)) {
            self.conclude(key, Verdict::Unverified(Unverified::Overrun));
        }
    }

    /// Takes a frag or the Seal of a block that is open.
    fn enqueue(&mut self, key: Key, queued: Queued) {
        // Without an Env, which was lost, there is nothing to execute it on.
        let Some(open) = self.open.get_mut(&key) else { return };
        if matches!(open.stage, Stage::Ended) {
            return;
        }
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
            let Some(Queued { delivered, txs, _room }) = open.messages.pop_front() else {
                return Ok(());
            };
            if open.lost {
                return Err(Unverified::Overrun.into());
            }
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
        let Some(open) = self.open.get_mut(&key) else { return Ok(()) };
        let (spec, source) = (&self.parts.spec, &self.parts.source);
        let block = OpenBlock::open(spec, &open.env, key.1, parent, source, withdrawals)?;
        open.stage = Stage::Running(Box::new(block));
        Ok(())
    }

    /// The block with this hash as a parent, on the newest base.
    pub(super) fn parent(&self, hash: B256) -> Result<Option<Parent>, BlockError> {
        // A source without a chain of its own has what it has for good: a witness of this very
        // block, where the state after the one before knows only what that block needed.
        if self.free
            && let Some(anchor) = self.parts.source.at(hash)?
        {
            return Ok(Some(anchor.into()));
        }
        let view = &self.parts.view;
        let known = self.latest.clone().filter(|latest| latest.hash() == hash);
        let known = known.or_else(|| view.recent(hash)).or_else(|| {
            let sealed = self.open.values().filter_map(|open| open.complete.as_ref());
            sealed.filter(|block| block.hash() == hash).map(Arc::clone).next()
        });
        let Some(known) = known else {
            return Ok(self.parts.source.at(hash)?.map(Parent::from));
        };
        let mut parent = known.as_parent();
        let base = self.parts.source.base();
        for (base, state) in base.iter().chain(&self.base) {
            if *base == hash {
                parent.state = State::new(Arc::clone(state));
                break;
            }
            let layer = view.recent(*base).map(|block| Arc::clone(&block.layer));
            if let Some(newer) = layer.and_then(|layer| parent.state.rebase(state, &layer)) {
                parent.state = newer;
                break;
            }
        }
        if parent.state.depth() > MAX_LAYERS {
            parent.state = parent.state.compact(MAX_LAYERS / 4);
        }
        if known.number() % TRIE_CHECK == 0
            && let Ok(trie) = &parent.trie
            && trie.held() > self.parts.trie_nodes
        {
            self.parts.source.settle();
            let stored = self.parts.source.base().is_some_and(|(base, _)| base == hash);
            let kept = self.parts.source.keeps_nodes() && view.recent(hash).is_some();
            if stored || kept {
                parent.trie = Ok(trie.forget());
            }
        }
        Ok(Some(parent))
    }

    /// Gives a block its verdict.
    fn conclude(&mut self, key: Key, verdict: Verdict) {
        let Some(open) = self.open.get_mut(&key) else { return };
        let keeps = open.complete.is_some() && matches!(verdict, Verdict::Unverified(_));
        if !keeps {
            open.messages.clear();
        }
        if open.complete.is_none() || matches!(verdict, Verdict::Rejected(_)) {
            open.stage = Stage::Ended;
        }
        open.verdict = Some(verdict.clone());
        // Made now, told when what follows from it can be seen.
        let report = self.make_report(key, verdict.clone());
        match verdict {
            Verdict::Verified => self.verified(key),
            Verdict::Rejected(invalid) => {
                let reason = match invalid {
                    Invalid::Seal { field, .. } => field.name(),
                    other => other.label(),
                };
                tracing::warn!(block = key.0, attempt = key.1, reason, "rejected");
                self.drop_block(key, "rejected");
            }
            Verdict::Unverified(_) => {}
        }
        self.tell_report(report);
    }

    fn report(&mut self, key: Key, verdict: Verdict) {
        let report = self.make_report(key, verdict);
        self.tell_report(report);
    }

    fn make_report(&self, key: Key, verdict: Verdict) -> Option<BlockReport> {
        let open = self.open.get(&key)?;
        Some(BlockReport {
            number: key.0,
            attempt: key.1,
            hash: open.complete.as_ref().map_or(UNSEALED, |block| block.hash()),
            verdict,
            txs: open.snapshot.as_ref().map_or(0, |s| s.tx_count()),
            gas_used: open.snapshot.as_ref().map_or(0, |s| s.header.gas_used),
            exec_ns: open.exec_ns,
            seal_ns: open.seal_ns,
            last_frag_to_seal_ns: open
                .last_frag
                .map_or(0, |at| u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX)),
        })
    }

    fn tell_report(&mut self, report: Option<BlockReport>) {
        let Some(report) = report else { return };
        if let Some(reason) = report.verdict.reason() {
            tracing::info!(block = report.number, attempt = report.attempt, verdict = report.verdict.name(), %reason, "not verified");
        }
        let seal_ns = report.seal_ns;
        self.parts.stats.update(|s| s.seal_ns += seal_ns);
        self.parts.stats.report(&report);
        if let Some(tap) = &mut self.parts.tap {
            tap(&report);
        }
    }

    /// A verified block becomes the head, if it continues the chain.
    fn verified(&mut self, key: Key) {
        let Some(block) = self.open.get(&key).and_then(|open| open.complete.clone()) else {
            return;
        };
        let parent = block.snapshot.header.parent_hash;
        self.promote_sealed_by_child(parent);
        let continues = self.latest.as_ref().is_none_or(|latest| latest.hash() == parent);
        if !continues && !self.free {
            // Another branch: it stays open, and the execution client decides.
            return;
        }
        self.open.remove(&key);
        self.promote(&block, "superseded");
        self.promote_next();
    }

    /// Promotes a block of which only the Seal was lost: its verified child names the hash that
    /// execution gave, which proves as much.
    fn promote_sealed_by_child(&mut self, hash: B256) {
        let head = self.latest.as_ref().map(|latest| latest.hash());
        let lost = self.open.iter().find(|(_, open)| {
            let complete = open.complete.as_ref();
            complete.is_some_and(|block| block.hash() == hash && block.trie.is_ok())
                && open.verdict == Some(Verdict::Unverified(Unverified::Overrun))
                && Some(open.env.parent_hash) == head
        });
        let Some((key, block)) = lost.and_then(|(key, open)| Some((*key, open.complete.clone()?)))
        else {
            return;
        };
        self.open.remove(&key);
        self.promote(&block, "superseded");
    }

    /// Promotes blocks that were verified before their parent was.
    pub(super) fn promote_next(&mut self) {
        while let Some(head) = self.latest.as_ref().map(|latest| latest.hash()) {
            let next = self.open.iter().find(|(_, open)| {
                open.env.parent_hash == head && open.verdict == Some(Verdict::Verified)
            });
            let Some((key, open)) = next else { return };
            let (key, block) = (*key, open.complete.clone());
            self.open.remove(&key);
            let Some(block) = block else { return };
            self.promote(&block, "superseded");
        }
    }

    /// Makes a block, whose parent is the head, the new head. Others at its height are void.
    pub(super) fn promote(&mut self, block: &Arc<SealedBlock>, reason: &'static str) {
        let number = block.number();
        self.parts.view.add(block);
        self.latest = Some(Arc::clone(block));
        self.parts.stats.update(|s| s.verified = Some(number));
        let stale: Vec<Key> = self.open.range(..(number + 1, 0)).map(|(key, _)| *key).collect();
        for key in stale {
            self.drop_block(key, reason);
        }
        self.publish();
        self.parts.view.tell(ChainEvent::Verified(Arc::clone(block)));
        // Last, since it may wait for the disk.
        self.parts.source.persist(block);
    }

    /// Drops an open block and all that stands on it, with an event for each that readers have
    /// seen.
    pub(super) fn drop_block(&mut self, key: Key, reason: &'static str) {
        let mut gone = vec![(key, reason)];
        let mut any = false;
        while let Some((key, reason)) = gone.pop() {
            let Some(open) = self.open.remove(&key) else { continue };
            if let Some(block) = &open.complete {
                let on_it = |open: &Open| {
                    open.env.parent_hash == block.hash() && !matches!(open.stage, Stage::Waiting)
                };
                let children = self.open.iter().filter(|(_, open)| on_it(open));
                gone.extend(children.map(|(key, _)| (*key, "parent_retracted")));
            }
            if let Some(snapshot) = open.snapshot {
                any = true;
                self.parts.stats.update(|s| *s.retractions.entry(reason).or_default() += 1);
                self.parts.view.tell(ChainEvent::Retracted { snapshot, reason });
            }
        }
        if any {
            self.publish();
        }
    }

    /// The sequencer took an attempt back.
    fn retracted(&mut self, key: Key, reason: RetractReason) {
        if self.open.contains_key(&key) {
            self.drop_block(key, reason.name());
            return;
        }
        let Ok(Some(hash)) = self.parts.view.hash(key.0) else { return };
        let Some(block) = self.parts.view.recent(hash) else { return };
        let confirmed = self.confirmed.is_some_and(|(number, _)| number >= key.0);
        if block.snapshot.attempt != key.1 || confirmed || key.0 == 0 {
            return;
        }
        let parent = block.snapshot.header.parent_hash;
        if let Err(error) = self.unwind(parent) {
            tracing::error!(block = key.0, %error, "a retracted block could not be taken back");
        }
    }

    /// Publishes a new snapshot, if it stands on the head.
    fn show(&mut self, snapshot: &Arc<Snapshot>) {
        self.publish();
        let heads = self.parts.view.heads();
        let is_pending = heads.is_none_or(|heads| {
            heads.pending.as_ref().is_some_and(|pending| Arc::ptr_eq(pending, snapshot))
        });
        if is_pending {
            self.parts.view.tell(ChainEvent::Frag(Arc::clone(snapshot)));
        }
    }

    /// Publishes the heads.
    pub(super) fn publish(&self) {
        let Some(latest) = &self.latest else { return };
        let mut tip = latest.hash();
        let mut open_blocks: Vec<Arc<Snapshot>> = Vec::new();
        // Blocks that stand on one another, up from the head; of several attempts the last.
        loop {
            let next = self
                .open
                .values()
                .rev()
                .find(|open| open.env.parent_hash == tip && open.snapshot.is_some());
            let Some(next) = next else { break };
            open_blocks.extend(next.snapshot.clone());
            match &next.complete {
                Some(block) if block.hash() != tip => tip = block.hash(),
                _ => break,
            }
        }
        self.parts.view.set_heads(Heads {
            latest: Arc::clone(latest),
            pending: open_blocks.last().cloned(),
            open: open_blocks,
            safe: self.safe,
            finalized: self.finalized,
        });
    }
}
