//! Epochs: what holds for a range of blocks, and the few of them that live at a time.
//!
//! ```text
//! block        … 99 │ 100 …                        200 …
//! epoch  members A  │ members B                    members C (known, not begun)
//!        schedule A │ schedule B
//! ```
//!
//! An epoch is in effect from its first block to the first of the next one. Whatever is asked of
//! the network is asked for a block: who leads it, who its members are. An epoch lives until the
//! window of blocks has passed its last block, so two live together around a change and three at
//! most. One before another table alone lives eight blocks longer than its last, and the next one then
//! answers for its blocks. What a node remembers of a peer is not kept here but by its
//! [`PeerKey`](crate::PeerKey), which no change of table renumbers.
//!
//! [`Epoch`] is checked when it is made and does not change; a delegation that is learnt makes a
//! new one. [`EpochsView`] is the list of the living ones, immutable as well: the protocol makes a
//! new one for each change, drivers publish it in a watch channel, and whoever reads it holds
//! what belongs together.

mod view;

use std::sync::Arc;

use alloy_primitives::Address;

use crate::delegation::{DelegationError, Delegations, Leader, SignedDelegation};
use crate::membership::{Membership, PeerIndex};
use crate::schedule::{Lead, Schedule};

pub use view::EpochsView;

/// Epochs that live at a time, at most.
pub const MAX_EPOCHS: usize = 3;

/// Why an epoch was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EpochError {
    /// A delegation that it is made with.
    #[error("a configured delegation is not valid: {0}")]
    Delegation(#[from] DelegationError),
    /// No epoch at all.
    #[error("there is no epoch: at least one is needed")]
    None,
    /// It does not begin after the newest one that is known.
    #[error(
        "an epoch from block {from_block} does not follow the one from block {newest}: each \
         begins after the one before it"
    )]
    Order {
        /// Its first block.
        from_block: u64,
        /// The first block of the newest epoch.
        newest: u64,
    },
    /// It names another leader for a block of which a message has been taken already.
    #[error(
        "the epoch from block {from_block} came too late: it names another leader for block \
         {block}, of which messages have been taken; restart the node"
    )]
    Late {
        /// Its first block.
        from_block: u64,
        /// The first block whose leader it would change.
        block: u64,
    },
    /// It is for another chain.
    #[error("the epoch is for chain {found}, this is chain {expected}")]
    Chain {
        /// Ours.
        expected: u64,
        /// The epoch's.
        found: u64,
    },
}

/// What holds from one block on: members, schedule, delegations.
#[derive(Debug, Clone)]
pub struct Epoch {
    chain_id: u64,
    from_block: u64,
    /// Since which block its rotation holds: an epoch that changes the table alone goes on with it.
    rotation_from: u64,
    members: Arc<Membership>,
    schedule: Schedule,
    delegations: Delegations,
}

impl Epoch {
    /// An epoch from `from_block` on. Checks the delegations.
    ///
    /// # Errors
    /// [`EpochError::Delegation`].
    pub fn new(
        chain_id: u64,
        from_block: u64,
        members: Arc<Membership>,
        schedule: Schedule,
        delegations: impl IntoIterator<Item = SignedDelegation>,
    ) -> Result<Self, EpochError> {
        let mut known = Delegations::new(chain_id, schedule.gateways());
        for signed in delegations {
            match known.insert(signed) {
                Ok(_) | Err(DelegationError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let rotation_from = from_block;
        Ok(Self { chain_id, from_block, rotation_from, members, schedule, delegations: known })
    }

    /// The same with other members from `from_block` on; the rotation goes on.
    pub(crate) fn with_members(&self, from_block: u64, members: Arc<Membership>) -> Self {
        Self { from_block, members, ..self.clone() }
    }

    /// Whether another epoch has the same leaders, all of which are members of it if they are of this
    /// one: it can answer for the blocks of both.
    pub(crate) fn goes_on_in(&self, next: &Self) -> bool {
        let stays = |leader: &Leader| {
            let peer = leader.signed.delegation.peer;
            self.members.index(&peer).is_none() || next.members.index(&peer).is_some()
        };
        self.rotation_from == next.rotation_from && self.delegations.iter().all(stays)
    }

    /// The chain that it is for.
    pub const fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// Its first block.
    pub const fn from_block(&self) -> u64 {
        self.from_block
    }

    /// Since which block its rotation of gateways holds: its own first block, or that of an earlier
    /// epoch with which it has the rotation in common.
    pub const fn rotation_from(&self) -> u64 {
        self.rotation_from
    }

    /// The members.
    pub const fn members(&self) -> &Arc<Membership> {
        &self.members
    }

    /// The rotation of gateways.
    pub const fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The delegations of its gateways, learnt ones included.
    pub const fn delegations(&self) -> &Delegations {
        &self.delegations
    }

    /// The gateway of a block.
    pub fn gateway(&self, block: u64) -> Address {
        self.schedule.gateway(block)
    }

    /// The gateway whose attempt of a block has this number: the scheduled one or a substitute.
    pub fn gateway_of(&self, block: u64, attempt: u8) -> Option<Address> {
        self.schedule.gateway_of(block, attempt)
    }

    /// By what right a gateway leads a block, if it may.
    pub fn lead(&self, block: u64, gateway: &Address) -> Option<Lead> {
        self.schedule.lead(block, gateway)
    }

    /// Who leads an attempt of a block, if a delegation says so.
    pub fn leader_of(&self, block: u64, attempt: u8) -> Option<&Leader> {
        self.delegations.leader(&self.schedule.gateway_of(block, attempt)?, block)
    }

    /// The member that leads an attempt of a block, as [`leader_index`](Self::leader_index).
    pub fn leader_index_of(&self, block: u64, attempt: u8) -> Option<PeerIndex> {
        self.members.index(&self.leader_of(block, attempt)?.peer)
    }

    /// Who leads a block by the schedule, if a delegation says so.
    pub fn leader(&self, block: u64) -> Option<&Leader> {
        self.delegations.leader(&self.schedule.gateway(block), block)
    }

    /// The member that leads a block; `None` also if a delegation names somebody who is no
    /// member.
    pub fn leader_index(&self, block: u64) -> Option<PeerIndex> {
        self.members.index(&self.leader(block)?.peer)
    }

    /// Takes a delegation that was learnt: checked, and signed by `gateway`.
    pub(crate) fn learn(
        &mut self,
        gateway: Address,
        signed: SignedDelegation,
    ) -> Result<(), DelegationError> {
        self.delegations.insert_of(gateway, signed).map(drop)
    }

    /// Whether two epochs agree on who leads a block by the schedule: gateway, peer and key. Not of
    /// substitutes, whom almost every change of the list changes: what they have sent counts less
    /// than what the scheduled gateway sends.
    pub(crate) fn agrees_on(&self, other: &Self, block: u64) -> bool {
        let leader = |epoch: &Self| epoch.leader(block).map(|l| (l.peer, l.key));
        self.gateway(block) == other.gateway(block) && leader(self) == leader(other)
    }
}
