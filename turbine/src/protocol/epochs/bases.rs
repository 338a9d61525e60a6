//! How changes of the table and changes of the gateways go together.
//!
//! ```text
//! table  A          │ B from F
//! list   one                      │ two from G
//! epoch  [A, one]   │ [B, one]    │ [B, two]
//! ```
//!
//! What has begun stays. What is announced is a list of changes of one kind and of the other, each
//! from its first block on; every block at which something changes begins an epoch, with the table
//! and the list that hold there. So neither kind of change takes the other back, whichever was
//! announced first, and two of one block are one epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::epoch::{Epoch, EpochError};
use crate::membership::Membership;

/// What has begun, and the changes that are announced.
#[derive(Debug)]
pub(in crate::protocol) struct Bases {
    base: Arc<Epoch>,
    tables: BTreeMap<u64, Arc<Membership>>,
    /// Epochs whose rotation and delegations count.
    lists: BTreeMap<u64, Arc<Epoch>>,
}

impl Bases {
    /// Of the living epochs, those above `begun` being announced. The oldest has begun in any case.
    pub(in crate::protocol) fn of(living: &[Arc<Epoch>], begun: u64) -> Self {
        let stay = |epoch: &&Arc<Epoch>| epoch.from_block() <= begun;
        let staying = 1 + living.iter().skip(1).take_while(stay).count();
        let (mut tables, mut lists) = (BTreeMap::new(), BTreeMap::new());
        for pair in living[staying - 1..].windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            let from_block = after.from_block();
            if before.members().hash() != after.members().hash() {
                tables.insert(from_block, Arc::clone(after.members()));
            }
            if after.rotation_from() == from_block {
                lists.insert(from_block, Arc::clone(after));
            }
        }
        Self { base: Arc::clone(&living[staying - 1]), tables, lists }
    }

    /// The first block from which a table can hold that is newer than all that are known: that of what
    /// has begun is its own.
    pub(in crate::protocol) fn first_block_of_a_table(&self) -> u64 {
        let announced = self.tables.last_key_value().map(|(from_block, _)| *from_block);
        announced.max(Some(self.base.from_block())).map_or(0, |block| block.saturating_add(1))
    }

    fn follows(&self, from_block: u64) -> Result<(), EpochError> {
        let newest = self.base.from_block();
        match from_block > newest {
            true => Ok(()),
            false => Err(EpochError::Order { from_block, newest }),
        }
    }

    /// The epochs with another table from a block on.
    ///
    /// # Errors
    /// [`EpochError::Order`] if the block has begun.
    pub(in crate::protocol) fn with_table(
        mut self,
        from_block: u64,
        table: Arc<Membership>,
    ) -> Result<Vec<Epoch>, EpochError> {
        self.follows(from_block)?;
        self.tables.insert(from_block, table);
        Ok(self.epochs())
    }

    /// The epochs with another list from a block on; `instead`: in place of all that are announced.
    ///
    /// # Errors
    /// [`EpochError::Order`] if the block has begun, or lists that stay follow it.
    pub(in crate::protocol) fn with_list(
        mut self,
        list: &Epoch,
        instead: bool,
    ) -> Result<Vec<Epoch>, EpochError> {
        let from_block = list.from_block();
        self.follows(from_block)?;
        if instead {
            self.lists.clear();
        } else if let Some((newest, _)) = self.lists.range(from_block..).next_back() {
            return Err(EpochError::Order { from_block, newest: *newest });
        }
        self.lists.insert(from_block, Arc::new(list.clone()));
        Ok(self.epochs())
    }

    fn epochs(&self) -> Vec<Epoch> {
        let mut at = Epoch::clone(&self.base);
        let mut blocks: Vec<u64> = self.tables.keys().chain(self.lists.keys()).copied().collect();
        blocks.sort_unstable();
        blocks.dedup();
        let epochs = blocks.into_iter().map(|block| {
            let members = self.tables.get(&block).unwrap_or(at.members());
            let members = Arc::clone(members);
            at = match self.lists.get(&block) {
                Some(list) => list.with_members(block, members),
                None => at.with_members(block, members),
            };
            at.clone()
        });
        epochs.collect()
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::Address;

    use super::*;
    use crate::membership::sample;
    use crate::schedule::Schedule;

    const CHAIN: u64 = 5;

    fn table(members: usize) -> Arc<Membership> {
        Arc::new(sample(CHAIN, &vec![1; members]).0)
    }

    fn epoch(from_block: u64, members: usize, gateways: u8) -> Epoch {
        let gateways = (1..=gateways).map(Address::with_last_byte).collect();
        let schedule = Schedule::new(gateways, 10).unwrap();
        Epoch::new(CHAIN, from_block, table(members), schedule, []).unwrap()
    }

    fn living(epochs: impl IntoIterator<Item = Epoch>) -> Vec<Arc<Epoch>> {
        epochs.into_iter().map(Arc::new).collect()
    }

    /// First block, members, gateways, and since when the list holds.
    fn told(epochs: &[Epoch]) -> Vec<(u64, usize, usize, u64)> {
        let one = |epoch: &Epoch| {
            let gateways = epoch.schedule().gateways().len();
            (epoch.from_block(), epoch.members().len(), gateways, epoch.rotation_from())
        };
        epochs.iter().map(one).collect()
    }

    #[test]
    fn a_change_of_the_table_and_one_of_the_list_go_together() {
        let begun = living([epoch(0, 3, 1)]);
        let with_table = Bases::of(&begun, 15).with_table(30, table(4)).unwrap();
        assert_eq!(told(&with_table), [(30, 4, 1, 0)], "the list holds since block 0");
        let both = living([epoch(0, 3, 1)].into_iter().chain(with_table));
        // A list after the table, in the same block, and before it.
        let with =
            |block| told(&Bases::of(&both, 15).with_list(&epoch(block, 9, 2), true).unwrap());
        assert_eq!(with(40), [(30, 4, 1, 0), (40, 4, 2, 40)]);
        assert_eq!(with(30), [(30, 4, 2, 30)]);
        assert_eq!(with(20), [(20, 3, 2, 20), (30, 4, 2, 20)]);
        // And the list first.
        let list = living([epoch(0, 3, 1), epoch(30, 3, 2)]);
        let with = |block| told(&Bases::of(&list, 15).with_table(block, table(4)).unwrap());
        assert_eq!(with(20), [(20, 4, 1, 0), (30, 4, 2, 30)]);
        assert_eq!(with(30), [(30, 4, 2, 30)]);
        assert_eq!(with(40), [(30, 3, 2, 30), (40, 4, 2, 30)]);
    }

    #[test]
    fn a_list_takes_the_place_of_one_that_is_announced_and_tables_stay() {
        let all = living([epoch(0, 3, 1), epoch(20, 3, 2)]);
        let with_table = Bases::of(&all, 5).with_table(30, table(4)).unwrap();
        assert_eq!(told(&with_table), [(20, 3, 2, 20), (30, 4, 2, 20)]);
        let all = living([epoch(0, 3, 1)].into_iter().chain(with_table));
        let moved = Bases::of(&all, 5).with_list(&epoch(40, 3, 2), true).unwrap();
        assert_eq!(told(&moved), [(30, 4, 1, 0), (40, 4, 2, 40)]);
        let added = Bases::of(&all, 5).with_list(&epoch(40, 3, 3), false).unwrap();
        assert_eq!(told(&added), [(20, 3, 2, 20), (30, 4, 2, 20), (40, 4, 3, 40)]);
        assert!(Bases::of(&all, 5).with_list(&epoch(10, 3, 3), false).is_err());
        // What has begun stays.
        assert!(Bases::of(&all, 30).with_table(30, table(5)).is_err());
        let later = Bases::of(&all, 30).with_table(31, table(5)).unwrap();
        assert_eq!(told(&later), [(31, 5, 2, 20)]);
    }
}
