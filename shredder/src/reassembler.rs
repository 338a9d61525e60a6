//! Restores messages from shreds, in bounded memory.
//!
//! * It takes shreds of the blocks in a window, and of at most eight attempts of each.
//! * Its memory has a limit, of which one leader may use at most half. When it is full, the block
//!   farthest in the future is evicted first, so a flood of future blocks never displaces the
//!   present.
//! * A set is complete with any k of its shreds. If those are all data shreds, the message is
//!   delivered at once, and [`Reassembler::check_next`] re-encodes the set later, off the critical
//!   path; otherwise recovery and check are one step. Without the check a leader could sign
//!   inconsistent parity, and nodes that recovered from different shreds would deliver different
//!   messages.
//!
//! A delivered or refused message leaves a tombstone, so that its late shreds are not stored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::coding::Codes;
use crate::merkle::{self, Tree};
use crate::shred::{MessageKey, SIGNATURE_LEN, SetHeader, shard_range, write_frame};
use crate::validator::ValidatedShred;

/// Bytes charged for the bookkeeping of a message or set, beside its shards.
const ENTRY_COST: usize = 512;

/// Bounds of a reassembler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes for all shards and bookkeeping. One leader may use half of them.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 128 * 1024 * 1024 }
    }
}

/// What happened to a shred that was taken.
#[derive(Debug)]
pub enum Push {
    /// It was stored, and its set needs more.
    Stored,
    /// It had been stored before.
    Duplicate,
    /// Its set or message is complete or refused, so it is not needed.
    Late,
    /// It completed its set.
    Complete {
        /// The whole set, if shards had to be recovered.
        recovered: Option<Box<RecoveredSet>>,
        /// The whole message, if this was its last missing set.
        message: Option<Assembled>,
    },
}

/// Why a shred was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The block is below the window.
    #[error("block {0} is below the window")]
    Past(u64),
    /// The block is above the window.
    #[error("block {0} is above the window")]
    Future(u64),
    /// A higher attempt of the block has replaced this one.
    #[error("the attempt was superseded")]
    Superseded,
    /// Memory is full of nearer blocks, or the leader has used its half.
    #[error("no memory left for this block or leader")]
    Quota,
    /// A message or set of the same key is known with another leader, root or shape.
    #[error("another message has this place")]
    Conflict,
    /// The leader signed shards that are not a code word, or padding that is not zero. Every node
    /// refuses the whole message.
    #[error("the leader's parity is inconsistent")]
    BadParity,
}

/// A complete message whose signature is not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled {
    /// The header of the set that completed it.
    pub header: SetHeader,
    /// signature ‖ body.
    pub wire: Bytes,
    /// The leader's key.
    pub signer: [u8; 32],
    /// Whether some of its shreds came by repair.
    pub repaired: bool,
}

/// A complete set, from which any of its shreds can be made.
#[derive(Clone)]
pub struct RecoveredSet {
    /// The set's header.
    pub header: SetHeader,
    /// The Merkle root.
    pub root: merkle::Hash,
    /// One bit for each shred that arrived and was not recovered.
    pub arrived: u64,
    /// Whether some of those came by repair.
    pub repaired: bool,
    signature: [u8; SIGNATURE_LEN],
    tree: Tree,
    shards: Vec<u8>,
}

impl std::fmt::Debug for RecoveredSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecoveredSet({:?}, arrived {:b})", self.header.set_key(), self.arrived)
    }
}

impl RecoveredSet {
    /// The bytes of shred `index`, as the leader sent them.
    ///
    /// # Panics
    /// If `index` is not below k + m.
    pub fn shred(&self, index: u8) -> Bytes {
        let len = usize::from(self.header.shard_len);
        let start = usize::from(index) * len;
        let mut slot = BytesMut::zeroed(self.header.shred_len());
        slot[shard_range(&self.header)].copy_from_slice(&self.shards[start..start + len]);
        let path = self.tree.path(index.into());
        write_frame(&mut slot, &self.header, index, path, &self.signature);
        slot.freeze()
    }

    /// Indices of the shreds that had not arrived.
    pub fn missing(&self) -> impl Iterator<Item = u8> + use<> {
        let (arrived, n) = (self.arrived, self.header.shards() as u8);
        (0..n).filter(move |i| arrived >> i & 1 == 0)
    }
}

struct SetState {
    header: SetHeader,
    root: merkle::Hash,
    signature: [u8; SIGNATURE_LEN],
    present: u64,
    complete: bool,
    repaired: bool,
    leaves: Vec<merkle::Hash>,
    shards: Vec<u8>,
}

impl SetState {
    fn new(shred: &ValidatedShred) -> Self {
        let header = *shred.header();
        Self {
            header,
            root: shred.root(),
            signature: *shred.shred().signature(),
            present: 0,
            complete: false,
            repaired: false,
            leaves: vec![[0; 32]; header.shards()],
            shards: vec![0; header.shards() * usize::from(header.shard_len)],
        }
    }

    fn cost(header: &SetHeader) -> usize {
        ENTRY_COST + header.shards() * (32 + usize::from(header.shard_len))
    }

    fn store(&mut self, shred: &ValidatedShred) {
        let (index, len) = (usize::from(shred.shred().index()), usize::from(self.header.shard_len));
        self.shards[index * len..(index + 1) * len].copy_from_slice(shred.shred().shard());
        self.leaves[index] = shred.leaf();
        self.present |= 1 << index;
    }

    fn data_mask(&self) -> u64 {
        u64::MAX >> (64 - u32::from(self.header.k))
    }

    fn data(&self) -> &[u8] {
        &self.shards[..usize::from(self.header.k) * usize::from(self.header.shard_len)]
    }

    /// Computes the missing shards and compares the root; `None` if the parity is bad.
    fn recover(&mut self, codes: &mut Codes) -> Option<RecoveredSet> {
        let (k, len) = (usize::from(self.header.k), usize::from(self.header.shard_len));
        // A set takes no shred beyond its k-th, so the present ones determine all others.
        if self.header.m > 0 {
            let mut shards: Vec<&mut [u8]> = self.shards.chunks_exact_mut(len).collect();
            codes.recover(k, &mut shards, self.present).ok()?;
        }
        let missing: Vec<usize> =
            (0..self.header.shards()).filter(|i| self.present >> i & 1 == 0).collect();
        let shards: Vec<&[u8]> =
            missing.iter().map(|i| &self.shards[i * len..(i + 1) * len]).collect();
        let mut hashes = Vec::new();
        merkle::leaves(&shards, &mut hashes);
        for (i, hash) in missing.iter().zip(hashes) {
            self.leaves[*i] = hash;
        }
        let tree = Tree::new(&self.leaves);
        (tree.root() == self.root).then(|| RecoveredSet {
            header: self.header,
            root: self.root,
            arrived: self.present,
            repaired: self.repaired,
            signature: self.signature,
            tree,
            shards: self.shards.clone(),
        })
    }
}

enum Progress {
    Collecting,
    /// Delivered. Sets that are still to be checked are kept.
    Delivered,
    /// Inconsistent: its shreds are not taken any more.
    Refused,
}

struct MessageState {
    signer: [u8; 32],
    /// The header of its first shred; every set must agree with its shape.
    first: SetHeader,
    progress: Progress,
    complete: u16,
    repaired: bool,
    sets: BTreeMap<u16, SetState>,
    bytes: usize,
}

/// Collects shreds into messages.
///
/// It takes only blocks of a window, which the caller moves as blocks are sealed. See the
/// [crate's documentation](crate) for a whole message.
///
/// ```
/// use fragcast_shredder::{Limits, MessageKey, Reassembler};
///
/// let mut reassembler = Reassembler::new(Limits { memory: 64 << 20 });
/// reassembler.set_window(100, 171);
/// let key = |block, attempt| MessageKey { block, attempt, message: 0 };
/// assert!(reassembler.admits(&key(100, 0)));
/// assert!(!reassembler.admits(&key(172, 0)));
/// // The leader opened block 150 again: attempt 1 replaces attempt 0.
/// reassembler.supersede(150, 1);
/// assert!(!reassembler.admits(&key(150, 0)));
/// assert!(reassembler.admits(&key(150, 1)));
/// assert_eq!(reassembler.bytes(), 0);
/// ```
pub struct Reassembler {
    limits: Limits,
    window: (u64, u64),
    messages: BTreeMap<MessageKey, MessageState>,
    /// Attempts that were replaced: block → lowest attempt still taken.
    superseded: BTreeMap<u64, u8>,
    /// Sets that arrived whole and are not re-encoded yet.
    unchecked: VecDeque<(MessageKey, u16)>,
    by_signer: BTreeMap<[u8; 32], usize>,
    bytes: usize,
    codes: Codes,
}

impl std::fmt::Debug for Reassembler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reassembler")
            .field("window", &self.window)
            .field("messages", &self.messages.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Reassembler {
    /// An empty reassembler. It takes every block until a window is set.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            window: (0, u64::MAX),
            messages: BTreeMap::new(),
            superseded: BTreeMap::new(),
            unchecked: VecDeque::new(),
            by_signer: BTreeMap::new(),
            bytes: 0,
            codes: Codes::default(),
        }
    }

    /// Bytes used, at most [`Limits::memory`].
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets the window: drops blocks outside `low..=high`, and takes none of them from now on.
    pub fn set_window(&mut self, low: u64, high: u64) {
        self.window = (low, high);
        while let Some((key, _)) = self.messages.first_key_value().filter(|(k, _)| k.block < low) {
            let key = *key;
            self.remove(&key);
        }
        while let Some((key, _)) = self.messages.last_key_value().filter(|(k, _)| k.block > high) {
            let key = *key;
            self.remove(&key);
        }
        self.superseded = self.superseded.split_off(&low);
    }

    /// Drops the attempts of `block` below `attempt`, and takes none of them from now on.
    pub fn supersede(&mut self, block: u64, attempt: u8) {
        let lowest = self.superseded.entry(block).or_default();
        *lowest = attempt.max(*lowest);
        let key = |attempt| MessageKey { block, attempt, message: 0 };
        let dropped: Vec<_> =
            self.messages.range(key(0)..key(attempt)).map(|(key, _)| *key).collect();
        dropped.iter().for_each(|key| self.remove(key));
    }

    /// Refuses a message whose bytes turned out to be wrong; its late shreds are not stored.
    pub fn refuse(&mut self, key: &MessageKey) {
        if let Some(state) = self.messages.get_mut(key) {
            state.progress = Progress::Refused;
            self.release_sets(key, |_| true);
        }
    }

    /// Whether shreds of this block and attempt are taken.
    pub fn admits(&self, key: &MessageKey) -> bool {
        self.admit(key).is_ok()
    }

    /// Whether a message was delivered or refused, so that none of its shreds is needed.
    pub fn is_done(&self, key: &MessageKey) -> bool {
        let state = self.messages.get(key);
        state.is_some_and(|state| !matches!(state.progress, Progress::Collecting))
    }

    /// The incomplete sets of a message, each with one bit for every shred it has. `None` if no
    /// shred of the message has come.
    pub fn incomplete(&self, key: &MessageKey) -> Option<impl Iterator<Item = (u16, u64)> + '_> {
        let state = self.messages.get(key)?;
        let sets = match state.progress {
            Progress::Collecting => state.first.sets,
            Progress::Delivered | Progress::Refused => 0,
        };
        Some((0..sets).filter_map(|number| match state.sets.get(&number) {
            Some(set) if set.complete => None,
            set => Some((number, set.map_or(0, |set| set.present))),
        }))
    }

    /// Takes one shred.
    ///
    /// # Errors
    /// [`PushError`]. `BadParity` is the leader's fault, none is the sender's.
    pub fn push(&mut self, shred: &ValidatedShred) -> Result<Push, PushError> {
        self.take(shred, false)
    }

    /// Takes one shred that came by repair, which is noted in its set and message.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_repaired(&mut self, shred: &ValidatedShred) -> Result<Push, PushError> {
        self.take(shred, true)
    }

    fn take(&mut self, shred: &ValidatedShred, repaired: bool) -> Result<Push, PushError> {
        let header = *shred.header();
        let key = header.message_key();
        self.admit(&key)?;
        if !self.messages.contains_key(&key) {
            self.make_room(&key, shred.signer(), ENTRY_COST)?;
            let state = MessageState {
                signer: shred.signer(),
                first: header,
                progress: Progress::Collecting,
                complete: 0,
                repaired: false,
                sets: BTreeMap::new(),
                bytes: 0,
            };
            self.messages.insert(key, state);
            self.charge(&key, ENTRY_COST);
        }
        let state = &self.messages[&key];
        if state.signer != shred.signer() || !state.first.same_shape(&header) {
            return Err(PushError::Conflict);
        }
        if !matches!(state.progress, Progress::Collecting) {
            return Ok(Push::Late);
        }
        if !state.sets.contains_key(&header.set) {
            let cost = SetState::cost(&header);
            self.make_room(&key, shred.signer(), cost)?;
            self.charge(&key, cost);
            let set = SetState::new(shred);
            self.messages.get_mut(&key).expect("present").sets.insert(header.set, set);
        }
        let state = self.messages.get_mut(&key).expect("present");
        let set = state.sets.get_mut(&header.set).expect("present");
        if set.root != shred.root() || set.header != header {
            return Err(PushError::Conflict);
        }
        if set.present >> shred.shred().index() & 1 == 1 {
            return Ok(Push::Duplicate);
        }
        if set.complete {
            return Ok(Push::Late);
        }
        set.store(shred);
        set.repaired |= repaired;
        state.repaired |= repaired;
        if set.present.count_ones() < u32::from(header.k) {
            return Ok(Push::Stored);
        }
        set.complete = true;
        state.complete += 1;
        let whole = set.present & set.data_mask() == set.data_mask();
        let recovered = if whole {
            self.unchecked.push_back((key, header.set));
            None
        } else {
            let Some(recovered) = set.recover(&mut self.codes) else {
                self.refuse(&key);
                return Err(PushError::BadParity);
            };
            Some(Box::new(recovered))
        };
        let message = self.assemble(&key, &header)?;
        Ok(Push::Complete { recovered, message })
    }

    /// Re-encodes the next set that arrived whole and compares its root; `None` if there is none
    /// left. The driver calls this when nothing else waits.
    ///
    /// # Errors
    /// The key of a message, possibly delivered already, whose parity is inconsistent.
    pub fn check_next(&mut self) -> Option<Result<RecoveredSet, MessageKey>> {
        while let Some((key, number)) = self.unchecked.pop_front() {
            let Some(state) = self.messages.get_mut(&key) else { continue };
            let Some(set) = state.sets.get_mut(&number) else { continue };
            let recovered = set.recover(&mut self.codes);
            if recovered.is_none() {
                self.refuse(&key);
            } else if matches!(state.progress, Progress::Delivered) {
                self.release_sets(&key, |n| n == number);
            }
            return Some(recovered.ok_or(key));
        }
        None
    }

    fn admit(&self, key: &MessageKey) -> Result<(), PushError> {
        if key.block < self.window.0 {
            return Err(PushError::Past(key.block));
        }
        if key.block > self.window.1 {
            return Err(PushError::Future(key.block));
        }
        if self.superseded.get(&key.block).is_some_and(|lowest| key.attempt < *lowest) {
            return Err(PushError::Superseded);
        }
        Ok(())
    }

    /// Delivers the message if all its sets are complete.
    fn assemble(
        &mut self,
        key: &MessageKey,
        header: &SetHeader,
    ) -> Result<Option<Assembled>, PushError> {
        let state = self.messages.get_mut(key).expect("present");
        if state.complete < header.sets {
            return Ok(None);
        }
        let len = header.message_len as usize;
        let mut wire = Vec::with_capacity(state.sets.values().map(|set| set.data().len()).sum());
        state.sets.values().for_each(|set| wire.extend_from_slice(set.data()));
        if wire[len..].iter().any(|&byte| byte != 0) {
            self.refuse(key);
            return Err(PushError::BadParity);
        }
        wire.truncate(len);
        let (signer, repaired) = (state.signer, state.repaired);
        state.progress = Progress::Delivered;
        let due: BTreeSet<u16> =
            self.unchecked.iter().filter(|(k, _)| k == key).map(|(_, set)| *set).collect();
        self.release_sets(key, |number| !due.contains(&number));
        Ok(Some(Assembled { header: *header, wire: wire.into(), signer, repaired }))
    }

    fn charge(&mut self, key: &MessageKey, cost: usize) {
        let state = self.messages.get_mut(key).expect("present");
        state.bytes += cost;
        self.bytes += cost;
        *self.by_signer.entry(state.signer).or_default() += cost;
    }

    fn refund(&mut self, signer: &[u8; 32], cost: usize) {
        self.bytes -= cost;
        if let Some(held) = self.by_signer.get_mut(signer) {
            *held -= cost;
            if *held == 0 {
                self.by_signer.remove(signer);
            }
        }
    }

    fn release_sets(&mut self, key: &MessageKey, which: impl Fn(u16) -> bool) {
        let Some(state) = self.messages.get_mut(key) else { return };
        let mut freed = 0;
        state.sets.retain(|number, set| {
            let go = which(*number);
            freed += if go { SetState::cost(&set.header) } else { 0 };
            !go
        });
        state.bytes -= freed;
        let signer = state.signer;
        self.refund(&signer, freed);
    }

    fn remove(&mut self, key: &MessageKey) {
        if let Some(state) = self.messages.remove(key) {
            self.refund(&state.signer, state.bytes);
        }
        self.unchecked.retain(|(k, _)| k != key);
    }

    /// Evicts the farthest messages until `cost` bytes fit, but none nearer than `key`.
    fn make_room(
        &mut self,
        key: &MessageKey,
        signer: [u8; 32],
        cost: usize,
    ) -> Result<(), PushError> {
        let held = |me: &Self| me.by_signer.get(&signer).copied().unwrap_or(0);
        while self.bytes + cost > self.limits.memory || held(self) + cost > self.limits.memory / 2 {
            let own = held(self) + cost > self.limits.memory / 2;
            let farthest = self
                .messages
                .iter()
                .rev()
                .find(|(_, m)| !own || m.signer == signer)
                .map(|(k, _)| *k);
            match farthest.filter(|farthest| farthest > key) {
                Some(farthest) => self.remove(&farthest),
                None => return Err(PushError::Quota),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
