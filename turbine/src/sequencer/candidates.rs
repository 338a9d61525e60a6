//! Candidates: messages that may have a place in a block, and what is known of their place.
//!
//! A message is known by its root. The way it came says how certain its place is: shreds of the
//! overlay are signed with the attempt ([`Candidate::signed`]), from gossip only the order of
//! arrival is known ([`Candidate::rank`]).

use std::sync::Arc;

use alloy_primitives::{B256, Bytes};
use fragcast_shredder::{Message, Seal};

use crate::output::Delivered;

/// Messages of one place that gossip alone has brought; one more drops the oldest. Two would do
/// for a block that is opened twice.
pub(super) const MAX_CANDIDATES: usize = 4;

/// A message of a block.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) root: B256,
    /// The message; `None` once it is not needed any more: its root still identifies repeats.
    pub(super) delivered: Option<Arc<Delivered>>,
    /// The attempts, one bit each, whose signed shreds carried it.
    pub(super) signed: u8,
    /// Whether gossip has brought it.
    pub(super) gossip: bool,
    /// The rank of its gateway: 0 if that is the scheduled one. Of two that have signed the same the
    /// lower one.
    pub(super) lead: u8,
    /// Its place in the order of arrival, by either way.
    pub(super) rank: u32,
    /// Whether it does not wait any more: it was handed on, or its attempt is superseded. It may be
    /// needed again.
    pub(super) kept: bool,
}

impl Candidate {
    /// Whether the overlay says that it is of attempt `number`.
    pub(super) fn is_of(&self, number: u8) -> bool {
        self.signed & bit(number) != 0
    }

    /// The Seal, if it is one and still here.
    pub(super) fn seal(&self) -> Option<&Seal> {
        match self.delivered.as_ref()?.message.message() {
            Message::Seal(seal) => Some(seal),
            Message::Env(_) | Message::Frag(_) => None,
        }
    }

    /// The transactions, if it is a frag and still here.
    pub(super) fn txs(&self) -> Option<&[Bytes]> {
        match self.delivered.as_ref()?.message.message() {
            Message::Frag(frag) => Some(&frag.txs),
            Message::Env(_) | Message::Seal(_) => None,
        }
    }
}

/// The bit of an attempt; none for a number that no shred can carry.
pub(super) fn bit(number: u8) -> u8 {
    1u8.checked_shl(number.into()).unwrap_or(0)
}

/// About what a message takes in memory.
pub(super) fn cost(delivered: &Delivered) -> usize {
    let body = match delivered.message.message() {
        Message::Frag(frag) => frag.txs.iter().map(|tx| tx.len() + 32).sum(),
        Message::Env(_) | Message::Seal(_) => 512,
    };
    256 + body
}

/// Bytes of the messages of a block.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// Not handed on yet.
    pub(super) waiting: usize,
    /// Handed on, and kept in case that the block must be handed on again.
    pub(super) kept: usize,
}

impl Held {
    fn of(&mut self, candidate: &Candidate) -> (&mut usize, usize) {
        let cost = candidate.delivered.as_ref().map_or(0, |delivered| cost(delivered));
        (if candidate.kept { &mut self.kept } else { &mut self.waiting }, cost)
    }

    pub(super) fn add(&mut self, candidate: &Candidate) {
        let (sum, cost) = self.of(candidate);
        *sum += cost;
    }

    pub(super) fn sub(&mut self, candidate: &Candidate) {
        let (sum, cost) = self.of(candidate);
        *sum -= cost;
    }

    /// Lets the message go, and remembers its root.
    pub(super) fn release(&mut self, candidate: &mut Candidate) {
        self.sub(candidate);
        candidate.delivered = None;
    }
}
