//! Restores messages from shreds, in bounded memory.
//!
//! * It takes shreds of the blocks in a window, and of at most eight attempts of each.
//! * Its memory has a limit, of which one gateway may use at most half. When it is full, old blocks
//!   make room first and then the far future, so a flood of either never displaces the present;
//!   see [`Owner`].
//! * A set is complete with any k of its shreds. If those are all data shreds, the message is
//!   delivered at once, and [`Reassembler::check_next`] re-encodes the set later, off the critical
//!   path; otherwise recovery and check are one step. Without the check a leader could sign
//!   inconsistent parity, and nodes that recovered from different shreds would deliver different
//!   messages.
//!
//! A delivered or refused message leaves a bit, so that its late shreds are not stored.

mod done;
mod set;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::coding::Codes;
use crate::shares::{Owner, Shares};
use crate::shred::{MessageKey, SetHeader};
use crate::validator::ValidatedShred;
use done::Done;
pub use set::RecoveredSet;
use set::SetState;

/// Bytes charged for the bookkeeping of a message or set, beside its shards.
const ENTRY_COST: usize = 512;

/// Bounds of a reassembler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes for all shards and bookkeeping. One gateway may use half of them.
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
    /// Memory is full of nearer blocks, or the gateway has used its half.
    #[error("no memory left for this block or gateway")]
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

/// A message that is not whole, or that is and has sets which are still to be checked.
struct MessageState {
    signer: [u8; 32],
    owner: Owner,
    /// The header of its first shred; every set must agree with its shape.
    first: SetHeader,
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
    window: (u64, u64),
    messages: BTreeMap<MessageKey, MessageState>,
    done: Done,
    /// Attempts that were replaced: block → lowest attempt still taken.
    superseded: BTreeMap<u64, u8>,
    /// Sets that arrived whole and are not re-encoded yet.
    unchecked: VecDeque<(MessageKey, u16)>,
    shares: Shares<MessageKey>,
    codes: Codes,
}

impl std::fmt::Debug for Reassembler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reassembler")
            .field("window", &self.window)
            .field("messages", &self.messages.len())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl Reassembler {
    /// An empty reassembler. It takes every block until a window is set.
    pub fn new(limits: Limits) -> Self {
        Self {
            window: (0, u64::MAX),
            messages: BTreeMap::new(),
            done: Done::default(),
            superseded: BTreeMap::new(),
            unchecked: VecDeque::new(),
            shares: Shares::new(limits.memory),
            codes: Codes::default(),
        }
    }

    /// Bytes used, at most [`Limits::memory`].
    pub const fn bytes(&self) -> usize {
        self.shares.used()
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
        self.done.set_window(low, high);
    }

    /// The blocks that are open, both ends included: they and the next ones come first when
    /// memory is full.
    pub fn set_open(&mut self, low: u64, high: u64) {
        self.shares.set_open(low, high);
    }

    /// Drops the attempts of `block` below `attempt`, and takes none of them from now on.
    pub fn supersede(&mut self, block: u64, attempt: u8) {
        let lowest = self.superseded.entry(block).or_default();
        *lowest = attempt.max(*lowest);
        let key = |attempt| MessageKey { block, attempt, message: 0 };
        self.remove_range(key(0)..key(attempt));
    }

    /// Drops what has come of messages that are not whole and whose signer, for their attempt, does
    /// not count any more: another one's would find their places taken.
    pub fn keep_signers(&mut self, counts: impl Fn(&MessageKey, &[u8; 32]) -> bool) {
        let gone: Vec<MessageKey> = self
            .messages
            .iter()
            .filter(|(key, state)| !self.done.contains(key) && !counts(key, &state.signer))
            .map(|(key, _)| *key)
            .collect();
        gone.iter().for_each(|key| self.remove(key));
    }

    /// Refuses a message whose bytes turned out to be wrong; its late shreds are not stored.
    pub fn refuse(&mut self, key: &MessageKey) {
        self.done.insert(key);
        self.remove(key);
    }

    /// Whether shreds of this block and attempt are taken.
    pub fn admits(&self, key: &MessageKey) -> bool {
        self.admit(key).is_ok()
    }

    /// Why shreds of this block and attempt are not taken, if they are not: what can be asked
    /// before a shred is validated.
    ///
    /// # Errors
    /// [`PushError::Past`], [`PushError::Future`], [`PushError::Superseded`].
    pub fn admit(&self, key: &MessageKey) -> Result<(), PushError> {
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

    /// Whether a message was delivered or refused, so that none of its shreds is needed.
    pub fn is_done(&self, key: &MessageKey) -> bool {
        self.done.contains(key)
    }

    /// The incomplete sets of a message, each with one bit for every shred it has. `None` if no
    /// shred of the message has come.
    pub fn incomplete(&self, key: &MessageKey) -> Option<impl Iterator<Item = (u16, u64)> + '_> {
        let state = match (self.is_done(key), self.messages.get(key)) {
            (true, _) => None,
            (false, state) => Some(state?),
        };
        let sets = state.map_or(0, |state| state.first.sets);
        Some((0..sets).filter_map(move |number| match state?.sets.get(&number) {
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
        if self.is_done(&key) {
            return Ok(Push::Late);
        }
        if !self.messages.contains_key(&key) {
            self.make_room(&key, &shred.owner(), ENTRY_COST)?;
            let state = MessageState {
                signer: shred.signer(),
                owner: shred.owner(),
                first: header,
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
        if !state.sets.contains_key(&header.set) {
            let (owner, cost) = (state.owner, SetState::cost(&header));
            self.make_room(&key, &owner, cost)?;
            self.charge(&key, cost);
            let set = SetState::new(shred);
            self.messages.get_mut(&key).expect("present").sets.insert(header.set, set);
        }
        let state = self.messages.get_mut(&key).expect("present");
        let set = state.sets.get_mut(&header.set).expect("present");
        if set.root != shred.root() {
            return Err(PushError::Conflict);
        }
        if set.present >> shred.shred().index() & 1 == 1 {
            return Ok(Push::Duplicate);
        }
        if set.complete {
            return Ok(Push::Late);
        }
        set.store(shred);
        set.repaired |= u64::from(repaired) << shred.shred().index();
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
            } else if self.is_done(&key) {
                self.release_sets(&key, |n| n == number);
            }
            return Some(recovered.ok_or(key));
        }
        None
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
        let (signer, owner, repaired) = (state.signer, state.owner, state.repaired);
        self.done.insert(key);
        // Until they are checked nothing makes them give way: a leader that fills its share
        // would get out of the check by it.
        self.shares.pin(&owner, key);
        let due: BTreeSet<u16> =
            self.unchecked.iter().filter(|(k, _)| k == key).map(|(_, set)| *set).collect();
        self.release_sets(key, |number| !due.contains(&number));
        Ok(Some(Assembled { header: *header, wire: wire.into(), signer, repaired }))
    }

    fn charge(&mut self, key: &MessageKey, cost: usize) {
        let state = self.messages.get_mut(key).expect("present");
        state.bytes += cost;
        self.shares.charge(state.owner, *key, cost);
    }

    /// Drops some of the sets of a message that is done, and the message with the last of them.
    fn release_sets(&mut self, key: &MessageKey, which: impl Fn(u16) -> bool) {
        let Some(state) = self.messages.get_mut(key) else { return };
        let mut freed = 0;
        state.sets.retain(|number, set| {
            let go = which(*number);
            freed += if go { SetState::cost(&set.header) } else { 0 };
            !go
        });
        state.bytes -= freed;
        if state.sets.is_empty() {
            freed += state.bytes;
        }
        let (owner, gone) = (state.owner, state.sets.is_empty());
        if gone {
            self.messages.remove(key);
        }
        self.shares.refund(&owner, key, freed, gone);
    }

    fn remove(&mut self, key: &MessageKey) {
        if let Some(state) = self.messages.remove(key) {
            self.shares.refund(&state.owner, key, state.bytes, true);
            if state.complete > 0 {
                self.unchecked.retain(|(k, _)| k != key);
            }
        }
    }

    fn remove_range(&mut self, range: std::ops::Range<MessageKey>) {
        while let Some((key, _)) = self.messages.range(range.clone()).next() {
            let key = *key;
            self.remove(&key);
        }
    }

    /// Evicts what must give way to `key` until `cost` bytes fit.
    fn make_room(&mut self, key: &MessageKey, owner: &Owner, cost: usize) -> Result<(), PushError> {
        while let Some(gone) = self.shares.victim(owner, key, cost).map_err(|_| PushError::Quota)? {
            self.remove(&gone);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
