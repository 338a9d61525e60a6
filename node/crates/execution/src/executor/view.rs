//! The chain as readers see it: heads, recent blocks, history, and events.
//!
//! The executor's thread is the only writer. A reader takes [`ChainView::heads`] once and answers from
//! that alone, so no answer mixes two states.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use alloy_consensus::Header;
use alloy_primitives::B256;
use arc_swap::ArcSwapOption;
use tokio::sync::broadcast;

use super::frags::FragStates;
use super::past::Past;
use crate::exec::{ExecutedBlock, SealedBlock, Snapshot, State};
use crate::state::SourceError;

/// Verified blocks that are kept in memory with their state: four minutes of blocks of 2 s. A block of 23
/// Mgas takes about 2 MB, so 256 MB at most.
pub const RECENT: usize = 128;

/// The ends of the chain at one moment.
#[derive(Clone)]
pub struct Heads {
    /// The newest verified block that is not contradicted (at start: the stored head, or
    /// block 0).
    pub latest: Arc<SealedBlock>,
    /// The newest executed frag of a block that builds on `latest`; `None` if there is none.
    pub pending: Option<Arc<Snapshot>>,
    /// Blocks in execution above `latest`, lowest first, the last one being `pending`.
    pub open: Vec<Arc<Snapshot>>,
    /// The execution client's safe block.
    pub safe: Option<(u64, B256)>,
    /// The execution client's finalized block.
    pub finalized: Option<(u64, B256)>,
}

impl Heads {
    /// The block of the tag `pending`: the newest executed frag, or the latest block.
    pub fn pending(&self) -> &Arc<Snapshot> {
        self.pending.as_ref().unwrap_or(&self.latest.snapshot)
    }
}

/// Blocks that are no longer in memory.
pub trait History: Send + Sync {
    /// The hash of the canonical block with this number.
    ///
    /// # Errors
    /// [`SourceError`].
    fn hash(&self, number: u64) -> Result<Option<B256>, SourceError>;
    /// The canonical block with this hash.
    ///
    /// # Errors
    /// [`SourceError`].
    fn block(&self, hash: B256) -> Result<Option<Arc<ExecutedBlock>>, SourceError>;
    /// The header of the canonical block with this hash.
    ///
    /// # Errors
    /// [`SourceError`].
    fn header_of(&self, hash: B256) -> Result<Option<Header>, SourceError> {
        Ok(self.block(hash)?.map(|block| block.header.clone()))
    }
    /// The state after the canonical block with this hash; `None` if it cannot be told any more. May
    /// take long.
    ///
    /// # Errors
    /// [`SourceError`].
    fn state(&self, _hash: B256) -> Result<Option<State>, SourceError> {
        Ok(None)
    }
    /// How far back it goes.
    ///
    /// # Errors
    /// [`SourceError`].
    fn reach(&self) -> Result<Reach, SourceError> {
        Ok(Reach::default())
    }
    /// The place of a transaction: the hash of its block, and its index there.
    ///
    /// # Errors
    /// [`SourceError`].
    fn tx(&self, hash: B256) -> Result<Option<(B256, usize)>, SourceError>;
}

/// How far back something is kept: numbers of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oldest {
    /// The oldest block with its transactions and receipts.
    pub block: u64,
    /// The oldest block after which the state is known.
    pub state: u64,
    /// The oldest block of whose state there are proofs; `None` if there are none.
    pub proof: Option<u64>,
}

/// How far back history goes: numbers of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// The oldest block with its transactions and receipts; `None` if there is none.
    pub block: Option<u64>,
    /// The oldest block after which the state is known. A block without transactions is asked for in
    /// vain all the same.
    pub state: Option<u64>,
    /// The block whose state is the durable one: of older ones trie nodes may be gone.
    pub durable: Option<u64>,
}

/// A change of the chain; events come in the order of the changes.
#[derive(Clone)]
pub enum ChainEvent {
    /// A frag was executed; the snapshot's last frag is the new one.
    Frag(Arc<Snapshot>),
    /// A block was verified and is the head.
    Verified(Arc<SealedBlock>),
    /// An unsealed or rejected block is void, with all its preconfirmations.
    Retracted {
        /// The block as far as it had been executed.
        snapshot: Arc<Snapshot>,
        /// The reason: `superseded`, `bad_parity`, `gossip_order`, `elsewhere`, `rejected`,
        /// `parent_retracted`, `contradicted`.
        reason: &'static str,
    },
    /// A verified block is not canonical any more. Newest first.
    Unwound(Arc<ExecutedBlock>),
}

#[derive(Default)]
struct Recent {
    by_hash: HashMap<B256, Arc<SealedBlock>>,
    /// Hashes of canonical blocks by number.
    by_number: BTreeMap<u64, B256>,
    txs: HashMap<B256, (B256, usize)>,
}

/// The heads, and since when the newest frag is the newest.
struct Now {
    heads: Arc<Heads>,
    since: Instant,
    /// Time that passed without the clock, in tests.
    aged: Duration,
}

/// The chain as readers see it.
pub struct ChainView {
    now: ArcSwapOption<Now>,
    recent: RwLock<Recent>,
    frags: RwLock<FragStates>,
    past: Past,
    history: Option<Arc<dyn History>>,
    events: broadcast::Sender<ChainEvent>,
}

impl ChainView {
    /// An empty chain. A reader may be `queue` events behind.
    pub fn new(history: Option<Arc<dyn History>>, queue: usize) -> Self {
        let (events, _) = broadcast::channel(queue.max(1));
        Self {
            now: ArcSwapOption::empty(),
            recent: RwLock::default(),
            frags: RwLock::default(),
            past: Past::default(),
            history,
            events,
        }
    }

    /// The heads; `None` until the state source has given its own.
    pub fn heads(&self) -> Option<Arc<Heads>> {
        self.now.load().as_ref().map(|now| Arc::clone(&now.heads))
    }

    /// The heads, and how long ago the newest frag of a block in execution was executed; no age if
    /// no block is in execution.
    pub fn heads_and_age(&self) -> Option<(Arc<Heads>, Option<Duration>)> {
        let now = self.now.load();
        let now = now.as_ref()?;
        let age = now.heads.pending.as_ref().map(|_| now.since.elapsed() + now.aged);
        Some((Arc::clone(&now.heads), age))
    }

    /// Makes the newest frag older, for tests that do not wait.
    #[doc(hidden)]
    pub fn age(&self, by: Duration) {
        let Some(now) = self.now.load_full() else { return };
        let (heads, since, aged) = (Arc::clone(&now.heads), now.since, now.aged + by);
        self.now.store(Some(Arc::new(Now { heads, since, aged })));
    }

    /// Events from now on. A reader that lags loses events, and the channel reports it.
    pub fn subscribe(&self) -> broadcast::Receiver<ChainEvent> {
        self.events.subscribe()
    }

    /// A canonical block that is still in memory, with its state.
    pub fn recent(&self, hash: B256) -> Option<Arc<SealedBlock>> {
        self.read().by_hash.get(&hash).cloned()
    }

    /// A canonical block by hash, from memory or from history.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn block(&self, hash: B256) -> Result<Option<Arc<ExecutedBlock>>, SourceError> {
        if let Some(block) = self.recent(hash).filter(|block| block.snapshot.is_whole()) {
            return Ok(Some(Arc::new(block.snapshot.block.clone())));
        }
        self.history.as_ref().map_or(Ok(None), |history| history.block(hash))
    }

    /// The hash of the canonical block with this number.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn hash(&self, number: u64) -> Result<Option<B256>, SourceError> {
        {
            let recent = self.read();
            if let Some(hash) = recent.by_number.get(&number) {
                return Ok(Some(*hash));
            }
            if recent.by_number.last_key_value().is_some_and(|(last, _)| number > *last) {
                return Ok(None);
            }
        }
        self.history.as_ref().map_or(Ok(None), |history| history.hash(number))
    }

    /// The place of a transaction of a canonical block.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn tx(&self, hash: B256) -> Result<Option<(B256, usize)>, SourceError> {
        if let Some(found) = self.read().txs.get(&hash) {
            return Ok(Some(*found));
        }
        self.history.as_ref().map_or(Ok(None), |history| history.tx(hash))
    }

    /// How far back blocks, states and proofs are kept; 0 while there is no block.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn oldest(&self) -> Result<Oldest, SourceError> {
        let history = self.history.as_ref();
        let reach = history.map_or_else(|| Ok(Reach::default()), |history| history.reach())?;
        let recent = self.read();
        let blocks: Vec<(u64, &Arc<SealedBlock>)> = recent
            .by_number
            .iter()
            .filter_map(|(number, hash)| Some((*number, recent.by_hash.get(hash)?)))
            .collect();
        let first = blocks.first().map(|(number, _)| *number);
        // Of the block that a node starts from only the header may be known.
        let whole = blocks.iter().find(|(_, block)| block.snapshot.is_whole());
        let whole = whole.map(|(number, _)| *number);
        let or = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        let block = or(reach.block, whole).or(first).unwrap_or(0);
        let past = reach.state.zip(reach.block).map(|(state, block)| state.max(block));
        let state = or(past, first).unwrap_or(0);
        let proved = blocks.iter().rev().take_while(|(number, block)| {
            block.trie.is_ok() && reach.durable.is_none_or(|durable| *number >= durable)
        });
        Ok(Oldest { block, state, proof: proved.last().map(|(number, _)| *number) })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Recent> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The header of a canonical block, from memory or from history.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn header(&self, hash: B256) -> Result<Option<Header>, SourceError> {
        if let Some(block) = self.recent(hash) {
            return Ok(Some(block.snapshot.header.clone()));
        }
        self.history.as_ref().map_or(Ok(None), |history| history.header_of(hash))
    }

    /// A canonical block that is not in memory any more, with its state, if history still knows that.
    /// May take long the first time.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn past(&self, block: &ExecutedBlock) -> Result<Option<Arc<Snapshot>>, SourceError> {
        let Some(history) = &self.history else { return Ok(None) };
        let Some(heads) = self.heads() else { return Ok(None) };
        self.past.get(block, &heads.latest.snapshot.hashes, || history.state(block.hash))
    }

    /// The block of that number and attempt as it was after its frag `frag`, if that is still known.
    pub fn after_frag(&self, number: u64, attempt: u8, frag: u64) -> Option<Arc<Snapshot>> {
        let frags = self.frags.read().unwrap_or_else(PoisonError::into_inner);
        frags.get(number, attempt, frag).cloned()
    }

    fn frags(&self) -> std::sync::RwLockWriteGuard<'_, FragStates> {
        self.frags.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the heads.
    pub fn set_heads(&self, heads: Heads) {
        self.past.expire(Instant::now());
        self.frags().note(&heads);
        let before = self.now.load();
        let same = before.as_ref().filter(|before| {
            let pending = before.heads.pending.as_ref().zip(heads.pending.as_ref());
            pending.is_some_and(|(before, now)| Arc::ptr_eq(before, now))
        });
        let (since, aged) =
            same.map_or_else(|| (Instant::now(), Duration::ZERO), |now| (now.since, now.aged));
        self.now.store(Some(Arc::new(Now { heads: Arc::new(heads), since, aged })));
    }

    /// Sends an event.
    pub fn tell(&self, event: ChainEvent) {
        match &event {
            ChainEvent::Retracted { snapshot, .. } => {
                self.frags().forget(snapshot.header.number, snapshot.attempt);
            }
            ChainEvent::Unwound(block) => self.frags().forget(block.header.number, block.attempt),
            ChainEvent::Frag(_) | ChainEvent::Verified(_) => {}
        }
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    /// Adds a canonical block and forgets the oldest beyond [`RECENT`].
    pub fn add(&self, block: &Arc<SealedBlock>) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        let hash = block.hash();
        for placed in block.snapshot.txs() {
            recent.txs.insert(placed.executed.tx.hash, (hash, placed.index));
        }
        recent.by_number.insert(block.number(), hash);
        recent.by_hash.insert(hash, Arc::clone(block));
        while recent.by_number.len() > RECENT {
            let Some((_, oldest)) = recent.by_number.pop_first() else { break };
            recent.forget(oldest);
        }
    }

    /// Forgets all blocks in memory; what history has stays.
    pub fn clear(&self) {
        *self.frags() = FragStates::default();
        *self.recent.write().unwrap_or_else(PoisonError::into_inner) = Recent::default();
    }

    /// Takes a block back.
    pub fn remove(&self, hash: B256, number: u64) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        if recent.by_number.get(&number) == Some(&hash) {
            recent.by_number.remove(&number);
        }
        recent.forget(hash);
    }
}

impl Recent {
    fn forget(&mut self, hash: B256) {
        let Some(block) = self.by_hash.remove(&hash) else { return };
        for placed in block.snapshot.txs() {
            let tx = placed.executed.tx.hash;
            if self.txs.get(&tx).is_some_and(|(block, _)| *block == hash) {
                self.txs.remove(&tx);
            }
        }
    }
}
