//! Puts verified messages in order: Env, the frags by `seq`, the Seal. Pure.
//!
//! Several blocks may be open at once, and each has its own order; what comes early waits. A
//! higher attempt takes over with its Env; what was handed on of the lower one is retracted.
//!
//! Bounds: [`MAX_BLOCKS`] blocks, and [`MAX_WAITING`] bytes of messages that wait for an
//! earlier one; the farthest future is dropped first.

use std::collections::BTreeMap;
use std::sync::Arc;

use fragcast_shredder::{Kind, Message};

use crate::output::{Ordered, Output, RetractReason};

/// Blocks that are remembered: the protocol's window with room to spare.
pub const MAX_BLOCKS: usize = 128;
/// Bytes of messages that wait for an earlier one.
pub const MAX_WAITING: usize = 64 * 1024 * 1024;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Handed on, perhaps with others that waited for it.
    Passed,
    /// Waits for an earlier one.
    Waiting,
    /// The same message again, whatever its `v`.
    Duplicate,
    /// Another message has its place.
    Conflict,
    /// Of an attempt that was superseded or is void.
    Stale,
    /// Behind the end that the Seal gives the block.
    BehindSeal,
    /// Of a block that is forgotten, or too far ahead for the memory there is.
    OutOfBounds,
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Passed,
        Self::Waiting,
        Self::Duplicate,
        Self::Conflict,
        Self::Stale,
        Self::BehindSeal,
        Self::OutOfBounds,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Waiting => "waiting",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::Stale => "stale",
            Self::BehindSeal => "behind_seal",
            Self::OutOfBounds => "out_of_bounds",
        }
    }
}

#[derive(Debug, Default)]
struct Attempt {
    /// Roots of what was handed on, by index.
    passed: Vec<alloy_primitives::B256>,
    waiting: BTreeMap<u16, Arc<Ordered>>,
    /// The Seal's index, once it is here.
    end: Option<u16>,
    void: bool,
}

impl Attempt {
    fn sealed(&self) -> bool {
        self.end.is_some_and(|end| self.passed.len() > usize::from(end))
    }
}

#[derive(Debug, Default)]
struct Block {
    /// The attempt whose Env was handed on last.
    current: u8,
    attempts: BTreeMap<u8, Attempt>,
}

/// The sequencer.
#[derive(Debug, Default)]
pub struct Sequencer {
    blocks: BTreeMap<u64, Block>,
    waiting: usize,
    opened: Option<u64>,
    sealed: Option<u64>,
}

/// About what a message takes in memory.
fn cost(ordered: &Ordered) -> usize {
    let body = match ordered.message.message() {
        Message::Frag(frag) => frag.txs.iter().map(|tx| tx.len() + 32).sum(),
        Message::Env(_) | Message::Seal(_) => 512,
    };
    256 + body
}

impl Sequencer {
    /// The newest block whose Env was handed on.
    pub const fn opened(&self) -> Option<u64> {
        self.opened
    }

    /// The newest block whose Seal was handed on.
    pub const fn sealed(&self) -> Option<u64> {
        self.sealed
    }

    /// Bytes that wait.
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Takes a message and appends to `out` what can be handed on.
    pub fn push(&mut self, ordered: Ordered, out: &mut Vec<Output>) -> Fate {
        let Ordered { block: number, attempt: tried, index, .. } = ordered;
        if !self.admit(number) {
            return Fate::OutOfBounds;
        }
        let block = self.blocks.entry(number).or_default();
        if tried < block.current {
            return Fate::Stale;
        }
        let attempt = block.attempts.entry(tried).or_default();
        if attempt.void {
            return Fate::Stale;
        }
        let root = ordered.message.root();
        let known = attempt.passed.get(usize::from(index)).copied();
        let known = known.or_else(|| attempt.waiting.get(&index).map(|m| m.message.root()));
        if let Some(known) = known {
            return if known == root { Fate::Duplicate } else { Fate::Conflict };
        }
        if attempt.end.is_some_and(|end| index > end) {
            return Fate::BehindSeal;
        }
        if ordered.message.message().kind() == Kind::Seal {
            attempt.end = Some(index);
            // What was sent beyond the end that its own Seal gives the block never counts.
            let beyond = attempt.waiting.split_off(&index);
            self.waiting -= beyond.values().map(|m| cost(m)).sum::<usize>();
        }
        self.waiting += cost(&ordered);
        let ordered = Arc::new(ordered);
        attempt.waiting.insert(index, ordered);
        let passed = self.pass(number, tried, out);
        self.shrink(number);
        if passed {
            Fate::Passed
        } else if self.blocks.contains_key(&number) {
            Fate::Waiting
        } else {
            Fate::OutOfBounds
        }
    }

    /// Voids an attempt whose message turned out to be none.
    pub fn bad_parity(&mut self, number: u64, tried: u8, out: &mut Vec<Output>) {
        let Some(block) = self.blocks.get_mut(&number) else { return };
        let Some(attempt) = block.attempts.get_mut(&tried) else { return };
        let waiting = std::mem::take(&mut attempt.waiting);
        self.waiting -= waiting.values().map(|m| cost(m)).sum::<usize>();
        if !attempt.void && !attempt.passed.is_empty() {
            let reason = RetractReason::BadParity;
            out.push(Output::Retracted { block: number, attempt: tried, reason });
        }
        attempt.void = true;
    }

    /// Hands on what has no gap before it; says whether there was anything.
    fn pass(&mut self, number: u64, tried: u8, out: &mut Vec<Output>) -> bool {
        self.take_over(number, tried, out);
        let block = self.blocks.get_mut(&number).expect("just entered");
        let attempt = block.attempts.get_mut(&tried).expect("just entered");
        let mut passed = false;
        while let Some(ordered) = attempt.waiting.remove(&(attempt.passed.len() as u16)) {
            self.waiting -= cost(&ordered);
            attempt.passed.push(ordered.message.root());
            out.push(Output::Message(ordered));
            passed = true;
        }
        if passed {
            self.opened = self.opened.max(Some(number));
            if attempt.sealed() {
                self.sealed = self.sealed.max(Some(number));
            }
        }
        passed
    }

    /// If a higher attempt's Env is here, that attempt counts from now on.
    fn take_over(&mut self, number: u64, tried: u8, out: &mut Vec<Output>) {
        let block = self.blocks.get_mut(&number).expect("just entered");
        if tried <= block.current || !block.attempts[&tried].waiting.contains_key(&0) {
            return;
        }
        let old = std::mem::replace(&mut block.current, tried);
        let kept = block.attempts.split_off(&tried);
        let gone = std::mem::replace(&mut block.attempts, kept);
        let bytes = |a: &Attempt| a.waiting.values().map(|m| cost(m)).sum::<usize>();
        self.waiting -= gone.values().map(bytes).sum::<usize>();
        // Only what was handed on, and not taken back already, has to be told.
        if gone.get(&old).is_some_and(|a| !a.passed.is_empty() && !a.void) {
            let reason = RetractReason::Superseded { by: tried };
            out.push(Output::Retracted { block: number, attempt: old, reason });
        }
    }

    /// Makes room for a block number; false if it is older than all that is remembered.
    fn admit(&mut self, number: u64) -> bool {
        if self.blocks.contains_key(&number) || self.blocks.len() < MAX_BLOCKS {
            return true;
        }
        let (oldest, _) = self.blocks.first_key_value().expect("full, so not empty");
        if number < *oldest {
            return false;
        }
        if let Some((_, gone)) = self.blocks.pop_first() {
            self.forget(&gone);
        }
        true
    }

    fn forget(&mut self, block: &Block) {
        let waiting = block.attempts.values().flat_map(|a| a.waiting.values());
        self.waiting -= waiting.map(|m| cost(m)).sum::<usize>();
    }

    /// Drops the farthest blocks while too much waits; `number` itself only if it is the farthest.
    fn shrink(&mut self, number: u64) {
        while self.waiting > MAX_WAITING {
            let Some((farthest, block)) = self.blocks.pop_last() else { return };
            self.forget(&block);
            if farthest == number {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
