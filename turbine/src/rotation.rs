//! When another list of gateways takes effect.
//!
//! The leader of a block is `gateways[(block / blocks_per_term) % len]`, so one registration moves
//! everybody. Nodes ask the registry by themselves and learn of it at different moments. What they
//! must agree on is the first block of the new list, and no message of the registry names one. The
//! rule:
//!
//! 1. **Announce.** A list that is learnt while block `head` is open takes effect with the first
//!    block of a term that is more than [`WINDOW_FUTURE`] above `head`: of the blocks that are taken
//!    already none changes its leader. The node makes an epoch of it, and so tells its peers (terms
//!    name the newest list by its hash, and its first block).
//! 2. **Agree.** Between two nodes that learnt of it just before and just after the last moment for a
//!    term there is a whole term. So if peers with more than half of the connected weight go by the
//!    *same list* from another block, this node takes theirs. What the list is, no peer can say: that
//!    comes from this node's registry alone.
//! 3. **Commit.** When the next block is the first of an announced list, and no more than half of the
//!    connected weight goes by it, it is postponed by a term, [`MAX_POSTPONED`] times at most. So the
//!    few who learnt of it in time do not part from the many who did not. But the registry is what
//!    nodes trust: a majority that is cut off from it holds nobody for ever.
//!
//! Who learns of it after its first block takes it from that block, as long as it has not taken
//! messages of another leader; what it could not check until then, repair brings. Nobody is barred
//! for what his list is: see `protocol/doubts.rs`.
//!
//! Rejected: to let the leader name the next list, since a leader that is to be voted out could name
//! none; and to fix the list at the last moment only, since the next leader is to be ready before.

use std::collections::BTreeMap;

use alloy_primitives::Address;

use crate::epoch::EpochsView;
use crate::protocol::WINDOW_FUTURE;

/// Terms by which a list is postponed while most peers do not go by it.
pub const MAX_POSTPONED: u8 = 3;

/// Where the chain stands, and who goes by a list of gateways.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Support {
    /// The newest block that is open; `None` while nothing is known.
    pub head: Option<u64>,
    /// This node's own weight.
    pub own: u128,
    /// The weight of this node and of all that are connected.
    pub all: u128,
    /// The weight of those that go by the list, by their first block of it.
    pub by_block: BTreeMap<u64, u128>,
}

/// Why a list takes effect when it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Why {
    /// It is new here.
    New,
    /// Most peers go by it from that block on.
    Agreed,
    /// Most peers do not go by it yet.
    Postponed,
}

/// A list that is to take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The first block of the epoch.
    pub from_block: u64,
    /// Whether it takes the place of epochs that have not begun, or comes after all of them.
    pub instead: bool,
    /// Its gateways.
    pub gateways: Vec<Address>,
    /// Why then.
    pub why: Why,
}

/// The first block of a term that is beyond the window of a node whose newest open block is `head`;
/// `None` at the end of numbers.
pub const fn first_block(head: u64, blocks_per_term: u64) -> Option<u64> {
    match (head.saturating_add(WINDOW_FUTURE) / blocks_per_term).checked_add(1) {
        Some(term) => term.checked_mul(blocks_per_term),
        None => None,
    }
}

/// The list that this node wants to go by, and what has become of it.
///
/// ```
/// use std::sync::Arc;
///
/// use alloy_primitives::Address;
/// use fragcast_turbine::{Epoch, EpochsView, Membership, Rotation, Schedule, Support};
///
/// let [one, other] = [1, 2].map(Address::with_last_byte);
/// let members = Arc::new(Membership::new(901, Vec::new())?);
/// let schedule = Schedule::new(vec![one], 30)?;
/// let epochs = EpochsView::from(Epoch::new(901, 0, members, schedule, [])?);
///
/// let mut rotation = Rotation::new(vec![one]);
/// let at = |head| Support { head: Some(head), own: 1, all: 1, ..Support::default() };
/// assert_eq!(rotation.next(&epochs, &at(40)), None);
/// rotation.want(vec![one, other]);
/// // The next term begins at 60, which is more than seven blocks away.
/// assert_eq!(rotation.next(&epochs, &at(52)).map(|change| change.from_block), Some(60));
/// assert_eq!(rotation.next(&epochs, &at(53)).map(|change| change.from_block), Some(90));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Rotation {
    wanted: Vec<Address>,
    postponed: u8,
    /// A block from which the list could not take effect.
    refused: Option<u64>,
}

impl Rotation {
    /// Wants a list, which may be in effect.
    pub const fn new(gateways: Vec<Address>) -> Self {
        Self { wanted: gateways, postponed: 0, refused: None }
    }

    /// The list that is wanted.
    pub fn wanted(&self) -> &[Address] {
        &self.wanted
    }

    /// Terms by which the list was postponed.
    pub const fn postponed(&self) -> u8 {
        self.postponed
    }

    /// Wants another list from now on; says whether it is another one.
    pub fn want(&mut self, gateways: Vec<Address>) -> bool {
        let new = gateways != self.wanted;
        if new {
            *self = Self::new(gateways);
        }
        new
    }

    /// The protocol did not take the change to that block.
    pub const fn refuse(&mut self, from_block: u64) {
        self.refused = Some(from_block);
    }

    /// What is to be done now: the epoch to be taken. To be asked with the support of
    /// [`wanted`](Self::wanted) whenever it or the head may be another.
    pub fn next(&mut self, epochs: &EpochsView, support: &Support) -> Option<Change> {
        let newest = epochs.newest();
        let term = newest.schedule().blocks_per_term();
        let is_newest = newest.schedule().gateways() == self.wanted;
        let Some(head) = support.head else {
            // No block is open: only what others go by has a first block. The newest epoch may be a
            // guess, of a node that was away while the list changed.
            // Of a list that several epochs have in common only the first counts.
            let own = newest.rotation_from();
            let mut before = epochs.epochs().iter().rev().map(|epoch| epoch.rotation_from());
            let above = before.find(|from_block| !is_newest || *from_block < own)?;
            let agreed = self.agreed(support, None, (above, u64::MAX), term)?;
            let change = Change { instead: is_newest, ..self.change(agreed, Why::Agreed) };
            return (!is_newest || agreed != own).then_some(change);
        };
        let closed = head.saturating_add(WINDOW_FUTURE);
        // Since when the newest list holds: the table may have changed since.
        let newest_from = newest.rotation_from();
        let announced = newest_from > head && newest_from > epochs.oldest().from_block();
        if is_newest && !announced {
            return None;
        }
        let begun = epochs.at(head).map_or(0, |epoch| epoch.rotation_from());
        let range = (begun, closed.saturating_add(term.saturating_mul(2)));
        let mine = Some(newest_from).filter(|_| is_newest);
        if let Some(block) = self.agreed(support, mine, range, term) {
            return (mine != Some(block)).then(|| self.change(block, Why::Agreed));
        }
        let own = first_block(head, term)?;
        if !is_newest {
            // One that is announced and whose blocks are taken already is not moved any more: this
            // list follows it.
            let waits = announced && newest_from <= closed;
            return (!waits).then(|| self.change(own, Why::New));
        }
        let supported = support.own + support.by_block.get(&newest_from).unwrap_or(&0);
        let alone = support.all <= support.own;
        let due = head.checked_add(1)? >= newest_from;
        if due && !alone && supported * 2 <= support.all && self.postponed < MAX_POSTPONED {
            self.postponed += 1;
            let later = newest_from.checked_add(term)?.max(own);
            return Some(self.change(later, Why::Postponed));
        }
        None
    }

    /// The first block from which more than half of the weight goes by the list; `mine`: this
    /// node's own. It lies within `range`, whose lower end is excluded, and begins a term.
    fn agreed(
        &self,
        support: &Support,
        mine: Option<u64>,
        (above, last): (u64, u64),
        term: u64,
    ) -> Option<u64> {
        let own = |block| if mine == Some(block) { support.own } else { 0 };
        let most = support.by_block.iter().find(|(block, weight)| {
            (*weight + own(**block)) * 2 > support.all
                && **block > above
                && **block <= last
                && block.is_multiple_of(term)
        });
        most.map(|(block, _)| *block).filter(|block| self.refused != Some(*block))
    }

    fn change(&self, from_block: u64, why: Why) -> Change {
        Change { from_block, instead: true, gateways: self.wanted.clone(), why }
    }
}

#[cfg(test)]
mod tests;
