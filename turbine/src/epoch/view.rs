//! The epochs that live, to be asked by block.

use std::sync::Arc;

use alloy_primitives::Address;

use super::{Epoch, EpochError, MAX_EPOCHS};
use crate::delegation::Leader;
use crate::membership::Member;
use crate::peer::{PeerId, PeerKey, PeerTable};
use crate::schedule::Lead;

/// The living epochs and the peers that they name, at one moment.
///
/// ```
/// use std::sync::Arc;
///
/// use alloy_primitives::Address;
/// use fragcast_turbine::{Epoch, EpochsView, Membership, Schedule};
///
/// let members = Arc::new(Membership::new(901, Vec::new())?);
/// let [one, other] = [1, 2].map(Address::with_last_byte);
/// let epoch = |from_block, gateways| {
///     let schedule = Schedule::new(gateways, 30).expect("a gateway");
///     Epoch::new(901, from_block, members.clone(), schedule, []).map(Arc::new)
/// };
/// let view = EpochsView::new(vec![epoch(0, vec![one])?, epoch(1_000, vec![one, other])?])?;
/// assert_eq!(view.gateway(999), Some(one));
/// assert_eq!(view.gateway(1_020), Some(one));
/// // From block 990 the next term is the first of the next epoch.
/// assert_eq!(view.next_terms(990).next(), Some((other, 1_000)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct EpochsView {
    /// By rising first block; never empty.
    epochs: Vec<Arc<Epoch>>,
    peers: Arc<PeerTable>,
}

impl EpochsView {
    /// The view of some epochs, by rising first block; the newest [`MAX_EPOCHS`] are kept.
    ///
    /// # Errors
    /// [`EpochError::None`], [`EpochError::Order`], [`EpochError::Chain`].
    pub fn new(mut epochs: Vec<Arc<Epoch>>) -> Result<Self, EpochError> {
        epochs.drain(..epochs.len().saturating_sub(MAX_EPOCHS));
        let first = epochs.first().ok_or(EpochError::None)?;
        if let Some(other) = epochs.iter().find(|epoch| epoch.chain_id != first.chain_id) {
            return Err(EpochError::Chain { expected: first.chain_id, found: other.chain_id });
        }
        if let Some(pair) = epochs.windows(2).find(|two| two[0].from_block >= two[1].from_block) {
            let (newest, from_block) = (pair[0].from_block, pair[1].from_block);
            return Err(EpochError::Order { from_block, newest });
        }
        let mut peers = PeerTable::default();
        for member in epochs.iter().flat_map(|epoch| epoch.members.members()) {
            peers.intern(member.peer()).expect("it has room for as many tables");
        }
        Ok(Self { epochs, peers: Arc::new(peers) })
    }

    /// The same with other epochs and peers.
    pub(crate) const fn from_parts(epochs: Vec<Arc<Epoch>>, peers: Arc<PeerTable>) -> Self {
        Self { epochs, peers }
    }

    /// Whether another view is of the same epochs: it may differ in guests and contacts, which no
    /// epoch names.
    pub fn has_same_epochs(&self, other: &Self) -> bool {
        let same = |(a, b): (&Arc<Epoch>, &Arc<Epoch>)| Arc::ptr_eq(a, b);
        self.epochs.len() == other.epochs.len() && self.epochs.iter().zip(&other.epochs).all(same)
    }

    /// The epoch of a block; `None` for one before the oldest that lives.
    pub fn at(&self, block: u64) -> Option<&Arc<Epoch>> {
        self.epochs.iter().rev().find(|epoch| epoch.from_block <= block)
    }

    /// The newest epoch, perhaps not begun.
    pub fn newest(&self) -> &Arc<Epoch> {
        self.epochs.last().expect("never empty")
    }

    /// The oldest epoch that lives.
    pub fn oldest(&self) -> &Arc<Epoch> {
        self.epochs.first().expect("never empty")
    }

    /// The epochs, by rising first block.
    pub fn epochs(&self) -> &[Arc<Epoch>] {
        &self.epochs
    }

    /// The gateway of a block.
    pub fn gateway(&self, block: u64) -> Option<Address> {
        self.at(block).map(|epoch| epoch.gateway(block))
    }

    /// The gateway whose attempt of a block has this number: the scheduled one or a substitute.
    pub fn gateway_of(&self, block: u64, attempt: u8) -> Option<Address> {
        self.at(block)?.gateway_of(block, attempt)
    }

    /// By what right a gateway leads a block, if it may.
    pub fn lead(&self, block: u64, gateway: &Address) -> Option<Lead> {
        self.at(block)?.lead(block, gateway)
    }

    /// Whether an address is a gateway of any epoch that lives.
    pub fn is_gateway(&self, gateway: &Address) -> bool {
        self.epochs.iter().any(|epoch| epoch.schedule.gateways().contains(gateway))
    }

    /// Who leads an attempt of a block, if a delegation says so.
    pub fn leader_of(&self, block: u64, attempt: u8) -> Option<&Leader> {
        self.at(block)?.leader_of(block, attempt)
    }

    /// Who leads a block by the schedule, if a delegation says so.
    pub fn leader(&self, block: u64) -> Option<&Leader> {
        self.at(block)?.leader(block)
    }

    /// The peer that leads a block, if it is a member of the block's epoch.
    pub fn leader_key(&self, block: u64) -> Option<PeerKey> {
        let epoch = self.at(block)?;
        let peer = epoch.leader(block)?.peer;
        epoch.members.index(&peer).and_then(|_| self.peers.key(&peer))
    }

    /// The terms after `block`'s, nearest first, each with its gateway and first block: to the
    /// end of the rotation, and through the next epoch if that begins before.
    pub fn next_terms(&self, block: u64) -> impl Iterator<Item = (Address, u64)> + '_ {
        let at = self.epochs.iter().rposition(|epoch| epoch.from_block <= block);
        let own = at.map(|at| &self.epochs[at]);
        let rotation = own.map_or(0, |epoch| epoch.schedule.rotation());
        let next = self.epochs.get(at.map_or(0, |at| at + 1));
        let next = next.filter(|next| next.from_block - block <= rotation || own.is_none());
        let end = next.map_or(u64::MAX, |next| next.from_block);
        let rest = own.into_iter().flat_map(move |epoch| epoch.schedule.next(block));
        let after = next.into_iter().flat_map(|next| {
            let from = next.from_block;
            std::iter::once((next.gateway(from), from)).chain(next.schedule.next(from))
        });
        rest.take_while(move |(_, first)| *first < end).chain(after)
    }

    /// The leaders of the terms after `block`'s, nearest first, without `block`'s own.
    pub fn next_leaders(&self, block: u64) -> impl Iterator<Item = &Leader> + '_ {
        let current = self.leader(block).map(|leader| leader.peer);
        self.next_terms(block)
            .filter_map(|(_, first)| self.leader(first))
            .filter(move |leader| Some(leader.peer) != current)
    }

    /// The peers, by key and by id: members, and those that no epoch names but this node knows.
    pub const fn peers(&self) -> &Arc<PeerTable> {
        &self.peers
    }

    /// A member as the newest epoch that has it lists it.
    pub fn member(&self, peer: &PeerId) -> Option<&Member> {
        self.epochs
            .iter()
            .rev()
            .find_map(|epoch| epoch.members.index(peer).and_then(|index| epoch.members.get(index)))
    }

    /// The members of all epochs that live, each once and as the newest epoch lists it, by key.
    pub fn members(&self) -> impl Iterator<Item = (PeerKey, &Member)> + '_ {
        self.peers.iter().filter_map(|(key, peer)| Some((key, self.member(&peer)?)))
    }
}

impl From<Epoch> for EpochsView {
    fn from(epoch: Epoch) -> Self {
        Self::new(vec![Arc::new(epoch)]).expect("one epoch is a view")
    }
}

#[cfg(test)]
mod tests;
