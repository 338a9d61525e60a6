//! What has passed the gate, so that it passes once.
//!
//! A flat list a block: a block has a dozen messages, and comparing an index is faster than
//! any tree at that size. The bounds are a block's own, so that a gateway that signs without
//! end fills its own blocks and nobody else's. Of a block that substitutes may lead as well each of
//! them has an eighth.

use std::collections::BTreeMap;

use alloy_primitives::B256;
use fragcast_shredder::{Kind, Signature};

use crate::gossip::GossipOutcome;

/// Blocks of which messages are remembered. The protocol's window has 72.
pub const MAX_BLOCKS: usize = 128;

/// Messages of a block: eight attempts at 64 messages each. With 104 bytes a message all blocks
/// together take 7 MB, and a chain of ten frags a block 160 kB.
pub const MAX_OF_BLOCK: usize = 512;

/// Messages of one place in a block: as often as a block can be opened.
pub const MAX_VERSIONS: usize = 8;

/// Messages of a block that a substitute may have.
const MAX_OF_SUBSTITUTE: usize = MAX_OF_BLOCK / 8;

/// A message that the gateway of a rank signed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) kind: Kind,
    pub(super) rank: u8,
    pub(super) index: u16,
    pub(super) root: B256,
    /// The signature in canonical form.
    pub(super) signature: Signature,
}

impl Known {
    /// r ‖ s.
    pub(super) fn r_s(&self) -> &[u8] {
        &self.signature.as_bytes()[..64]
    }

    fn is_same_place(&self, other: &Self) -> bool {
        self.index == other.index && self.kind == other.kind && self.rank == other.rank
    }

    fn is_same(&self, other: &Self) -> bool {
        self.is_same_place(other) && self.root == other.root
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    known: Known,
    /// Whether it came in canonical form, and so was forwarded.
    forwarded: bool,
}

/// The table.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    blocks: BTreeMap<u64, Vec<Entry>>,
}

impl Seen {
    pub(super) const fn new() -> Self {
        Self { blocks: BTreeMap::new() }
    }

    /// How many messages there are.
    pub(super) fn len(&self) -> usize {
        self.blocks.values().map(Vec::len).sum()
    }

    /// Drops blocks below `low` and above `high`.
    pub(super) fn keep(&mut self, low: u64, high: u64) {
        self.blocks.retain(|block, _| (low..=high).contains(block));
    }

    /// The message of the same root in the same place and with the same signature but for its v.
    pub(super) fn get(&self, block: u64, message: &Known) -> Option<Known> {
        let entries = self.blocks.get(&block)?;
        let mut known = entries.iter().map(|entry| entry.known);
        known.find(|known| {
            let message = Known { rank: known.rank, ..*message };
            known.is_same(&message) && known.r_s() == message.r_s()
        })
    }

    /// Remembers a verified message that came in canonical form or not, if there is room for it,
    /// and returns its outcome.
    pub(super) fn note(&mut self, block: u64, message: Known, is_canonical: bool) -> GossipOutcome {
        let entries = self.blocks.get_mut(&block);
        if let Some(entries) = entries {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.known.is_same(&message)) {
                let first_forwarding = is_canonical && !entry.forwarded;
                entry.forwarded |= is_canonical;
                return match first_forwarding {
                    true => GossipOutcome::Canonical,
                    false => GossipOutcome::Duplicate,
                };
            }
            let same_place = |entry: &&Entry| entry.known.is_same_place(&message);
            if entries.iter().filter(same_place).count() >= MAX_VERSIONS {
                return GossipOutcome::Conflict;
            }
            let of_rank = || entries.iter().filter(|entry| entry.known.rank == message.rank);
            let is_over = message.rank > 0 && of_rank().count() >= MAX_OF_SUBSTITUTE;
            if entries.len() >= MAX_OF_BLOCK || is_over {
                return GossipOutcome::Full;
            }
        } else if self.blocks.len() >= MAX_BLOCKS {
            // Only while the head is unknown and the window open: the farthest future goes.
            match self.blocks.last_key_value() {
                Some((last, _)) if *last > block => self.blocks.pop_last(),
                _ => return GossipOutcome::Full,
            };
        }
        let entry = Entry { known: message, forwarded: is_canonical };
        self.blocks.entry(block).or_default().push(entry);
        if is_canonical { GossipOutcome::Accepted } else { GossipOutcome::OtherV }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_as_large_as_the_bound_says() {
        assert!(size_of::<Entry>() <= 104, "{}", size_of::<Entry>());
    }
}
