//! Who must give way in a table that is full.
//!
//! A table of shreds belongs to all gateways, and anybody can fill it: with sets of old blocks,
//! of future blocks, under several keys, or honestly, by a chain of large blocks. What is taken
//! in spite of that is decided here, for every such table by the same rule.
//!
//! # The rule
//! The worst entry goes first: of what is finished the oldest, then of the past the oldest, then
//! of the future the farthest, then of the blocks that are open the oldest. An entry gives way to
//! a better one only. Besides, shares are those of *gateways*, not of keys or blocks:
//!
//! * No gateway holds more than half of a table, so whatever one of them does, the others have
//!   the other half.
//! * A gateway that holds an [eighth](FLOOR) or less loses nothing but what is finished or past,
//!   and takes room from the one that holds most. So the gateways of the next blocks get in
//!   whatever the present ones hold.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::Address;
use ed25519_dalek::VerifyingKey;

use crate::shred::{MessageKey, SetKey};

/// The share of a table that a gateway gets in any case, as a part of it.
const FLOOR: usize = 8;
/// The share of a table that a gateway gets at most, as a part of it.
const CEILING: usize = 2;

/// To whom a place in a table is charged: the gateway for which a key signs, however many keys it
/// has delegated to. Where gateways are not known it is the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner([u8; 32]);

impl From<Address> for Owner {
    fn from(gateway: Address) -> Self {
        Self(gateway.into_word().0)
    }
}

impl From<&VerifyingKey> for Owner {
    fn from(key: &VerifyingKey) -> Self {
        Self(key.to_bytes())
    }
}

/// A key whose order is that of blocks.
pub trait Placed: Copy + Ord {
    /// The block.
    fn block(&self) -> u64;
    /// The greatest key of a block.
    fn last_of(block: u64) -> Self;
}

impl Placed for MessageKey {
    fn block(&self) -> u64 {
        self.block
    }

    fn last_of(block: u64) -> Self {
        Self { block, attempt: u8::MAX, message: u16::MAX }
    }
}

impl Placed for SetKey {
    fn block(&self) -> u64 {
        self.message.block
    }

    fn last_of(block: u64) -> Self {
        Self { message: MessageKey::last_of(block), set: u16::MAX }
    }
}

/// How well an entry deserves its place: the greater, the sooner it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Of an open block, so many below the newest.
    Open(u64),
    /// So many blocks above the newest that is open.
    Future(u64),
    /// So many blocks below the oldest that is open.
    Past(u64),
    /// Complete, so many blocks below the end of numbers.
    Finished(u64),
}

/// No room: everything that is there deserves its place as much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// What one gateway holds.
#[derive(Debug)]
struct Holding<K> {
    used: usize,
    collecting: BTreeSet<K>,
    finished: BTreeSet<K>,
}

impl<K: Placed> Holding<K> {
    /// The entry that goes first, if any may go.
    fn worst(&self, open: (u64, u64)) -> Option<(Rank, K)> {
        if let Some(oldest) = self.finished.first() {
            return Some((Rank::Finished(u64::MAX - oldest.block()), *oldest));
        }
        let (first, last) = (self.collecting.first()?, self.collecting.last()?);
        let key = match rank(last.block(), open) {
            Rank::Future(_) if first.block() >= open.0 => *last,
            // Of the oldest block what comes last in it.
            _ => *self.collecting.range(..=K::last_of(first.block())).next_back()?,
        };
        Some((rank(key.block(), open), key))
    }
}

fn rank(block: u64, (low, high): (u64, u64)) -> Rank {
    if block < low {
        Rank::Past(low - block)
    } else if block > high {
        Rank::Future(block - high)
    } else {
        Rank::Open(high - block)
    }
}

/// The shares of a table.
#[derive(Debug)]
pub struct Shares<K> {
    capacity: usize,
    used: usize,
    /// The blocks that are open. Before any is known everything is future.
    open: (u64, u64),
    holdings: BTreeMap<Owner, Holding<K>>,
}

impl<K: Placed> Shares<K> {
    /// A table that holds so much; nothing is in it.
    pub const fn new(capacity: usize) -> Self {
        Self { capacity, used: 0, open: (0, 0), holdings: BTreeMap::new() }
    }

    /// All that is in use.
    pub const fn used(&self) -> usize {
        self.used
    }

    /// All that there can be.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// What a gateway holds.
    pub fn of(&self, owner: &Owner) -> usize {
        self.holdings.get(owner).map_or(0, |holding| holding.used)
    }

    /// The blocks that are open, both ends included.
    pub fn set_open(&mut self, low: u64, high: u64) {
        self.open = (low.min(high), high);
    }

    /// Charges `cost` for an entry, a new one or one that grows.
    pub fn charge(&mut self, owner: Owner, key: K, cost: usize) {
        let new = Holding { used: 0, collecting: BTreeSet::new(), finished: BTreeSet::new() };
        let holding = self.holdings.entry(owner).or_insert(new);
        holding.used += cost;
        holding.collecting.insert(key);
        self.used += cost;
    }

    /// An entry is complete: it is the first to go.
    pub fn finish(&mut self, owner: &Owner, key: K) {
        if let Some(holding) = self.holdings.get_mut(owner)
            && holding.collecting.remove(&key)
        {
            holding.finished.insert(key);
        }
    }

    /// An entry goes on its own account, soon: nothing evicts it before.
    pub fn pin(&mut self, owner: &Owner, key: &K) {
        if let Some(holding) = self.holdings.get_mut(owner) {
            holding.collecting.remove(key);
        }
    }

    /// An entry takes less, or is gone if nothing of it is left.
    pub fn refund(&mut self, owner: &Owner, key: &K, cost: usize, gone: bool) {
        let Some(holding) = self.holdings.get_mut(owner) else { return };
        self.used -= cost;
        holding.used -= cost;
        if gone {
            holding.collecting.remove(key);
            holding.finished.remove(key);
        }
        if holding.used == 0 {
            self.holdings.remove(owner);
        }
    }

    /// What is to be evicted for `cost` more of `key`; `None` if it fits already. To be asked
    /// again after each.
    ///
    /// # Errors
    /// [`Full`].
    pub fn victim(&self, owner: &Owner, key: &K, cost: usize) -> Result<Option<K>, Full> {
        let own = self.of(owner) + cost;
        let new = (rank(key.block(), self.open), *key);
        if own > self.capacity / CEILING {
            let holding = self.holdings.get(owner).ok_or(Full)?;
            let worst = holding.worst(self.open).filter(|worst| *worst > new);
            return worst.map(|(_, key)| Some(key)).ok_or(Full);
        }
        if self.used + cost <= self.capacity {
            return Ok(None);
        }
        let floor = self.capacity / FLOOR;
        let worst = self.holdings.iter().filter_map(|(of, holding)| {
            let worst = holding.worst(self.open)?;
            let spared = of != owner && holding.used <= floor && worst.0 < Rank::Past(0);
            (!spared).then_some(worst)
        });
        if let Some((_, key)) = worst.max().filter(|worst| *worst > new) {
            return Ok(Some(key));
        }
        let others = self.holdings.iter().filter(|(of, _)| *of != owner).map(|(_, h)| h);
        let most = others.filter(|holding| own <= floor && holding.used > floor);
        let worst = most.max_by_key(|holding| holding.used).and_then(|h| h.worst(self.open));
        worst.map(|(_, key)| Some(key)).ok_or(Full)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(n: u8) -> Owner {
        Owner::from(Address::with_last_byte(n))
    }

    fn key(block: u64, message: u16) -> MessageKey {
        MessageKey { block, attempt: 0, message }
    }

    /// A table whose entries take one each.
    struct Table {
        shares: Shares<MessageKey>,
        entries: BTreeMap<MessageKey, Owner>,
    }

    impl Table {
        fn new(capacity: usize, low: u64, high: u64) -> Self {
            let mut shares = Shares::new(capacity);
            shares.set_open(low, high);
            Self { shares, entries: BTreeMap::new() }
        }

        fn push(&mut self, of: u8, key: MessageKey) -> bool {
            loop {
                match self.shares.victim(&owner(of), &key, 1) {
                    Err(Full) => return false,
                    Ok(None) => break,
                    Ok(Some(gone)) => {
                        let of = self.entries.remove(&gone).expect("in the table");
                        self.shares.refund(&of, &gone, 1, true);
                    }
                }
            }
            self.shares.charge(owner(of), key, 1);
            self.entries.insert(key, owner(of));
            true
        }

        fn finish(&mut self, key: MessageKey) {
            self.shares.finish(&self.entries[&key], key);
        }

        fn blocks(&self) -> Vec<u64> {
            self.entries.keys().map(|key| key.block).collect()
        }
    }

    #[test]
    fn the_finished_goes_first_then_the_past_then_the_far_future() {
        // Each block is another gateway's, so that no share is reached.
        let mut table = Table::new(8, 10, 11);
        for block in [5, 8, 9, 10, 11, 12, 13, 17] {
            assert!(table.push(block as u8, key(block, 1)));
        }
        table.finish(key(9, 1));
        table.finish(key(10, 1));
        let mut gone = Vec::new();
        for message in 2..8 {
            let before = table.blocks();
            table.push(11, key(11, message));
            gone.extend(before.into_iter().find(|block| !table.blocks().contains(block)));
        }
        // Half of eight is all that one gateway gets: three more.
        assert_eq!(gone, [9, 10, 5]);
        assert!(table.push(14, key(14, 1)), "block 8 is past");
        assert_eq!(table.blocks(), [11, 11, 11, 11, 12, 13, 14, 17]);
    }

    #[test]
    fn a_nearer_block_displaces_a_farther_one_and_not_the_reverse() {
        let mut table = Table::new(16, 10, 10);
        (0..4).for_each(|message| assert!(table.push(1, key(10, message))));
        (12..18).for_each(|block| assert!(table.push(2, key(block, 0))));
        (0..6).for_each(|message| assert!(table.push(3, key(11, message))));
        assert!(!table.push(3, key(18, 0)), "the farthest of all");
        assert!(table.push(1, key(10, 4)) && table.push(3, key(11, 6)));
        assert_eq!(table.blocks().last(), Some(&15));
    }

    #[test]
    fn old_blocks_of_one_gateway_keep_nobody_out() {
        let mut table = Table::new(80, 100, 100);
        for block in 30..100 {
            (0..10).for_each(|message| {
                table.push(1, key(block, message));
            });
        }
        assert_eq!(table.shares.of(&owner(1)), 40);
        for message in 0..40 {
            assert!(table.push(2, key(100, message)), "{message}");
            assert!(table.push(3, key(101, message)), "{message}");
        }
        assert_eq!(table.shares.of(&owner(1)), 0);
    }

    #[test]
    fn the_next_gateway_gets_in_whatever_two_present_ones_hold() {
        let mut table = Table::new(80, 100, 101);
        (0..60).for_each(|message| {
            table.push(1, key(100, message));
        });
        (0..60).for_each(|message| {
            table.push(2, key(101, message));
        });
        assert_eq!(table.shares.used(), 80);
        let taken = (0..60).filter(|message| table.push(3, key(102, *message))).count();
        assert_eq!(taken, 10, "an eighth");
        // Nor is it driven out again.
        (0..60).for_each(|message| {
            table.push(2, key(101, message + 100));
        });
        assert_eq!(table.shares.of(&owner(3)), 10);
        // Its block is the newest: it has what it needs.
        table.shares.set_open(100, 102);
        let taken = (100..160).filter(|message| table.push(3, key(102, *message))).count();
        assert_eq!(taken, 30, "half in all");
    }

    #[test]
    fn what_is_pinned_stays() {
        let mut table = Table::new(4, 10, 10);
        table.push(1, key(3, 0));
        table.push(2, key(4, 0));
        table.shares.pin(&owner(1), &key(3, 0));
        assert!(table.push(3, key(10, 0)) && table.push(4, key(11, 0)));
        assert!(table.push(4, key(11, 1)));
        assert_eq!(table.blocks(), [3, 10, 11, 11]);
    }

    /// Blocks, most of them one gateway's: otherwise none would reach its half.
    fn crowded() -> impl Strategy<Value = u64> {
        prop_oneof![3 => 9u64..12, 1 => 0u64..30]
    }

    proptest! {
        /// Whatever is pushed, the table and each share stay within their bounds, and an entry of
        /// the newest open block of a gateway below its eighth is always taken.
        #[test]
        fn bounds_hold(
            pushes in proptest::collection::vec((0u8..12, crowded(), 0u16..40, any::<bool>()), 1..400),
        ) {
            let mut table = Table::new(64, 10, 12);
            for (of, block, message, finish) in pushes {
                // A block is one gateway's.
                let (of, key) = ((block / 3) as u8, key(block, message | u16::from(of) << 8));
                if !table.entries.contains_key(&key) {
                    let few = table.shares.of(&owner(of)) < 8;
                    let most = (0..12).map(|n| table.shares.of(&owner(n))).max();
                    let taken = table.push(of, key);
                    prop_assert!(taken || !few || most <= Some(8), "{key:?}");
                }
                if finish && table.entries.contains_key(&key) {
                    table.finish(key);
                }
                prop_assert!(table.shares.used() <= 64);
                prop_assert_eq!(table.shares.used(), table.entries.len());
                prop_assert!((0..12).all(|n| table.shares.of(&owner(n)) <= 32));
            }
        }
    }
}
