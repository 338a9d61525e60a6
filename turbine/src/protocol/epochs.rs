//! The epochs that live, as one node sees them: with the plans it has learnt, and the keys of the
//! members.
//!
//! What is common to all nodes of a process is shared: a clone costs a few pointers and the list
//! of plans.

mod bases;
mod early;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use alloy_primitives::Address;

pub(super) use bases::Bases;
use early::Early;

use super::plans::{Plans, Views};
use super::window::{WINDOW_FUTURE, WINDOW_PAST};
use crate::bucket::{Bucket, Rate};
use crate::delegation::{DelegationError, Leader, MAX_PER_GATEWAY, SignedDelegation};
use crate::epoch::{Epoch, EpochError, EpochsView, MAX_EPOCHS};
use crate::membership::{Membership, PeerIndex};
use crate::peer::{PeerId, PeerKey, PeerTable};
use crate::peering::Ring;
use crate::plan::{Plan, PlanView};
use crate::time::Timestamp;

/// New delegations of a gateway: one in this time, and so many at once. Each is told to everybody
/// by everybody, so that who signs without end would have the network talk of nothing else.
const NEWS: (Duration, u64) = (Duration::from_secs(10), 2 * MAX_PER_GATEWAY as u64);

/// From places in the table of one epoch to keys, and back.
#[derive(Debug, Clone)]
enum Keys {
    /// The key is the index, as in the first epoch.
    Same,
    Table(Arc<KeyTable>),
}

#[derive(Debug)]
struct KeyTable {
    /// By index.
    keys: Vec<PeerKey>,
    /// By slot, [`NOBODY`] where its peer is no member of this epoch. The peers that are members
    /// are never forgotten before their epoch, so their slots are theirs for as long.
    by_slot: Vec<PeerIndex>,
}

const NOBODY: PeerIndex = PeerIndex::MAX;

impl Keys {
    fn new(epoch: &Epoch, peers: &PeerTable) -> Self {
        let members = epoch.members().members().iter();
        let keys: Vec<PeerKey> =
            members.map(|member| peers.key(&member.peer()).expect("interned")).collect();
        if (0..).zip(&keys).all(|(index, key)| key.number() == index) {
            return Self::Same;
        }
        let mut by_slot = vec![NOBODY; peers.slots()];
        (0..).zip(&keys).for_each(|(index, key)| by_slot[key.slot()] = index);
        Self::Table(Arc::new(KeyTable { keys, by_slot }))
    }
}

/// An epoch that lives.
#[derive(Debug, Clone)]
pub(super) struct Living {
    epoch: Arc<Epoch>,
    /// Its plans.
    pub(super) plans: Plans,
    keys: Keys,
    /// This node's place in its table; `None` if it is no member.
    me: Option<PeerIndex>,
    /// Made when somebody asks for it.
    ring: Arc<OnceLock<Ring>>,
}

impl Living {
    fn new(epoch: Arc<Epoch>, peers: &PeerTable) -> Self {
        let mut plans = Plans::default();
        for leader in epoch.delegations().iter() {
            let key = leader.signed.delegation.key;
            plans.configure(key, Arc::new(configured(&epoch, key)));
        }
        let keys = Keys::new(&epoch, peers);
        Self { epoch, plans, keys, me: None, ring: Arc::default() }
    }

    /// What holds in it.
    pub(super) const fn epoch(&self) -> &Arc<Epoch> {
        &self.epoch
    }

    /// This node's place in its table.
    pub(super) const fn me(&self) -> Option<PeerIndex> {
        self.me
    }

    /// What its table alone says of connections.
    pub(super) fn ring(&self, connections: usize) -> &Ring {
        self.ring.get_or_init(|| Ring::new(self.epoch.members(), connections))
    }

    /// How many members it has.
    pub(super) fn members(&self) -> usize {
        self.epoch.members().len()
    }

    /// The key of a member, by its place in the table.
    pub(super) fn key(&self, index: PeerIndex) -> PeerKey {
        match &self.keys {
            Keys::Same => PeerKey::from(index),
            Keys::Table(table) => table.keys[index as usize],
        }
    }

    /// The place of a peer in the table, if it is a member.
    pub(super) fn index(&self, peer: PeerKey) -> Option<PeerIndex> {
        match &self.keys {
            Keys::Same => {
                let index = peer.number();
                ((index as usize) < self.epoch.members().len()).then_some(index)
            }
            Keys::Table(table) => {
                let index = table.by_slot.get(peer.slot()).copied().filter(|i| *i != NOBODY)?;
                (table.keys[index as usize] == peer).then_some(index)
            }
        }
    }

    /// Its first block.
    fn first_block(&self) -> u64 {
        self.epoch.from_block()
    }

    /// Takes over the plans of an epoch with the same table: another list of gateways makes no
    /// plan worse, and leaders would plan anew only after a minute.
    fn adopt(&mut self, plans: &Plans) {
        self.plans = plans.clone();
        for leader in self.epoch.delegations().iter() {
            let key = leader.signed.delegation.key;
            self.plans.configure(key, Arc::new(configured(&self.epoch, key)));
        }
        let delegations = self.epoch.delegations();
        self.plans.keep_configured(|key| delegations.of_key(key).is_some());
    }

    fn learn(&mut self, gateway: Address, signed: SignedDelegation) -> Result<(), DelegationError> {
        if !self.epoch.schedule().gateways().contains(&gateway) {
            return Err(DelegationError::NotAGateway(gateway));
        }
        let mut changed = Epoch::clone(&self.epoch);
        changed.learn(gateway, signed)?;
        let key = signed.delegation.key;
        self.epoch = Arc::new(changed);
        self.plans.configure(key, Arc::new(configured(&self.epoch, key)));
        let delegations = self.epoch.delegations();
        self.plans.keep_configured(|key| delegations.of_key(key).is_some());
        Ok(())
    }
}

/// The plan of a key that configuration alone gives.
fn configured(epoch: &Epoch, key: [u8; 32]) -> PlanView {
    let plan = Plan::configured(epoch.chain_id(), key, epoch.members());
    PlanView::new(&plan, epoch.members()).expect("made of this table")
}

/// What became of a new epoch.
#[derive(Debug)]
pub(super) struct Taken {
    /// The epochs that had to make room for it, or that it takes the place of, oldest first.
    pub(super) dropped: Vec<Arc<Epoch>>,
    /// Who is a peer now and was none.
    pub(super) joined: Vec<(PeerKey, PeerId)>,
    /// Delegations that were not known before.
    pub(super) delegations: Vec<SignedDelegation>,
    /// The first block of the window, of those of which no message was taken, that has another
    /// leader now.
    pub(super) changed: Option<u64>,
}

/// The epochs that live.
#[derive(Debug, Clone)]
pub(super) struct Epochs {
    chain_id: u64,
    me: PeerId,
    view: Arc<EpochsView>,
    /// The same epochs, by rising first block; never empty.
    living: Vec<Living>,
    /// Since when the window has passed the last block of the oldest.
    passed_at: Option<Timestamp>,
    /// What each gateway has used of [`NEWS`].
    news: BTreeMap<Address, Bucket>,
    /// Views of plans, shared by all that were cloned from one.
    views: Views,
    /// Delegations of gateways that no living epoch has.
    early: Early,
}

impl Epochs {
    /// The epochs that a network starts with, for nobody in particular.
    pub(super) fn new(chain_id: u64, epochs: Vec<Epoch>) -> Result<Self, EpochError> {
        if let Some(epoch) = epochs.iter().find(|epoch| epoch.chain_id() != chain_id) {
            return Err(EpochError::Chain { expected: chain_id, found: epoch.chain_id() });
        }
        let view = Arc::new(EpochsView::new(epochs.into_iter().map(Arc::new).collect())?);
        let living =
            view.epochs().iter().map(|epoch| Living::new(epoch.clone(), view.peers())).collect();
        Ok(Self {
            chain_id,
            me: PeerId([0; 32]),
            view,
            living,
            passed_at: None,
            news: BTreeMap::new(),
            views: Views::default(),
            early: Early::default(),
        })
    }

    /// Views of plans that are shared.
    pub(super) const fn views(&self) -> &Views {
        &self.views
    }

    /// The same for the node `me`, and its key, which it gets now if no table names it.
    pub(super) fn of_node(&self, me: PeerId) -> (Self, PeerKey) {
        let mut epochs = Self { me, ..self.clone() };
        for living in &mut epochs.living {
            living.me = living.epoch.members().index(&me);
        }
        let key = epochs.view.peers().key(&me).unwrap_or_else(|| {
            epochs.intern(me).expect("there is a place for this node beside those of all others")
        });
        (epochs, key)
    }

    /// Whether a living epoch names a peer.
    pub(super) fn is_member(&self, peer: &PeerId) -> bool {
        self.view.member(peer).is_some()
    }

    /// The key of a peer that no epoch need name, which it gets now if it has none. No work grows
    /// with the number of members, but for one of many such peers.
    pub(super) fn intern(&mut self, peer: PeerId) -> Option<PeerKey> {
        if let Some(key) = self.view.peers().key(&peer) {
            return Some(key);
        }
        let mut peers = PeerTable::clone(self.view.peers());
        let key = peers.intern(peer)?;
        self.set_peers(peers);
        Some(key)
    }

    /// Forgets a peer that no epoch names.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        if !self.is_member(peer) && *peer != self.me {
            let mut peers = PeerTable::clone(self.view.peers());
            peers.forget(peer);
            self.set_peers(peers);
        }
    }

    /// What drivers publish.
    pub(super) const fn view(&self) -> &Arc<EpochsView> {
        &self.view
    }

    /// The epoch of a block.
    pub(super) fn at(&self, block: u64) -> Option<&Living> {
        self.living.iter().rev().find(|living| living.epoch.from_block() <= block)
    }

    /// The newest epoch.
    pub(super) fn newest(&self) -> &Living {
        self.living.last().expect("never empty")
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Living> {
        self.living.iter()
    }

    /// All of them, to learn what any of them may use.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Living> {
        self.living.iter_mut()
    }

    /// Those whose plans and routes speak of `table`.
    pub(super) fn of_table(&mut self, table: [u8; 32]) -> impl Iterator<Item = &mut Living> {
        self.living.iter_mut().filter(move |living| living.epoch.members().hash() == table)
    }

    /// The leader that a key was delegated to, as the newest epoch that knows it has it.
    pub(super) fn leader_of_key(&self, key: &[u8; 32]) -> Option<&Leader> {
        self.living.iter().rev().find_map(|living| living.epoch.delegations().of_key(key))
    }

    /// The leader of exactly this delegation, if it is known.
    pub(super) fn leader_of(&self, signed: &SignedDelegation) -> Option<&Leader> {
        let mut living = self.living.iter().rev();
        living.find_map(|living| living.epoch.delegations().iter().find(|l| l.signed == *signed))
    }

    /// The two delegations with the sequence of one that is known, if there are exactly two.
    pub(super) fn delegated_twice(&self, signed: &SignedDelegation) -> Option<[&Leader; 2]> {
        let mut living = self.living.iter().rev();
        living.find_map(|living| living.epoch.delegations().twice(signed))
    }

    /// All delegations, each once: those of the oldest epoch first.
    pub(super) fn delegations(&self) -> Vec<SignedDelegation> {
        let mut all: Vec<SignedDelegation> = Vec::new();
        for living in &self.living {
            let older = all.len();
            for leader in living.epoch.delegations().iter() {
                if !all[..older].contains(&leader.signed) {
                    all.push(leader.signed);
                }
            }
        }
        all
    }

    /// Whether all is known that a delegation says, which is asked before its signature.
    pub(super) fn knows(&self, signed: &SignedDelegation) -> bool {
        self.living.iter().any(|living| living.epoch.delegations().contains(signed))
    }

    /// Takes a delegation that `from` has sent into every epoch whose schedule has its gateway.
    /// If none has, it is kept for one that will.
    ///
    /// # Errors
    /// If no epoch took it: why the newest whose schedule has the gateway did not.
    pub(super) fn learn(
        &mut self,
        now: Timestamp,
        from: PeerKey,
        signed: SignedDelegation,
    ) -> Result<(), DelegationError> {
        if self.knows(&signed) {
            return Err(DelegationError::Stale);
        }
        self.newest().epoch.delegations().check(&signed)?;
        if self.early.contains(&signed) {
            return Err(DelegationError::Stale);
        }
        let gateway = signed.gateway()?;
        if !self.view.is_gateway(&gateway) {
            self.early.keep(from, gateway, signed);
            return Err(DelegationError::NotAGateway(gateway));
        }
        let rate = Rate::new(1, NEWS.0, NEWS.1);
        let mut news = self.news.get(&gateway).copied().unwrap_or_default();
        if !news.take(now, &rate, 1) {
            return Err(DelegationError::TooMany);
        }
        let mut result = None;
        for living in self.living.iter_mut().rev() {
            match (living.learn(gateway, signed), &result) {
                (Ok(()), _) => result = Some(Ok(())),
                (Err(error), None | Some(Err(DelegationError::NotAGateway(_)))) => {
                    result = Some(Err(error));
                }
                (Err(_), Some(_)) => {}
            }
        }
        let result = result.expect("never empty");
        if result.is_ok() {
            // What no epoch takes, such as an old one sent again by anybody, uses up nothing.
            self.news.insert(gateway, news);
            self.renew();
        }
        result
    }

    /// Makes the view anew.
    fn renew(&mut self) {
        let epochs = self.living.iter().map(|living| living.epoch.clone()).collect();
        self.view = Arc::new(EpochsView::from_parts(epochs, self.view.peers().clone()));
    }

    /// Takes a new epoch. What was learnt goes into it, what it is made with into the others. If
    /// there are [`MAX_EPOCHS`] already the oldest goes: a node whose window is so far behind
    /// finds its place anew.
    ///
    /// # Errors
    /// [`EpochError::Chain`], [`EpochError::Order`], and [`EpochError::Late`] if it names another
    /// leader for a block of `low..=taken`, of which messages were taken.
    #[cfg(test)]
    pub(super) fn take(
        &mut self,
        epoch: Epoch,
        low: u64,
        taken: Option<u64>,
    ) -> Result<Taken, EpochError> {
        self.take_above(epoch, u64::MAX, low, taken)
    }

    /// The same, in place of the epochs that begin above `begun`. The oldest stays in any case:
    /// some epoch has to hold.
    pub(super) fn take_above(
        &mut self,
        mut epoch: Epoch,
        begun: u64,
        low: u64,
        taken: Option<u64>,
    ) -> Result<Taken, EpochError> {
        let stay = |living: &&Living| living.epoch.from_block() <= begun;
        let staying = 1 + self.living.iter().skip(1).take_while(stay).count();
        let from_block = epoch.from_block();
        let newest = self.living[staying - 1].epoch.from_block();
        if epoch.chain_id() != self.chain_id {
            return Err(EpochError::Chain { expected: self.chain_id, found: epoch.chain_id() });
        }
        if from_block <= newest {
            return Err(EpochError::Order { from_block, newest });
        }
        let known = self.delegations();
        let by = |leader: &Leader| (leader.gateway, leader.signed);
        let mut new: Vec<_> = epoch.delegations().iter().map(by).collect();
        for living in &self.living {
            for (gateway, signed) in living.epoch.delegations().iter().map(by) {
                // Of another gateway, or known, or too old: nothing that matters here.
                let _ = epoch.learn(gateway, signed);
            }
        }
        let early = self.early.of(epoch.schedule().gateways());
        new.extend(early.into_iter().filter(|by| epoch.learn(by.0, by.1).is_ok()));
        let before: Vec<Arc<Epoch>> = self.living.iter().map(|l| l.epoch.clone()).collect();
        if let Some(block) = taken.and_then(|taken| first_change(&before, &epoch, low, taken)) {
            return Err(EpochError::Late { from_block, block });
        }
        self.early.forget(epoch.schedule().gateways());
        let removed: Vec<Living> = self.living.drain(staying..).collect();
        let changes_from = removed.first().map_or(from_block, |r| from_block.min(r.first_block()));
        let start = taken.map_or(0, |taken| taken.saturating_add(1)).max(low).max(changes_from);
        let end = start.saturating_add(WINDOW_PAST + WINDOW_FUTURE);
        for (gateway, signed) in &new {
            for living in &mut self.living {
                let _ = living.learn(*gateway, *signed);
            }
        }
        let mut dropped: Vec<Arc<Epoch>> = removed.iter().map(|l| l.epoch.clone()).collect();
        if self.living.len() == MAX_EPOCHS {
            dropped.insert(0, self.drop_oldest());
        }
        let mut peers = PeerTable::clone(self.view.peers());
        let mut joined = Vec::new();
        for member in epoch.members().members() {
            let id = member.peer();
            // Who was a guest or a contact keeps its key.
            let is_new = match peers.key(&id) {
                Some(_) => id != self.me && !self.is_member(&id),
                None => true,
            };
            if is_new && let Some(key) = peers.intern(member.peer()) {
                joined.push((key, member.peer()));
            }
        }
        let mut living = Living::new(Arc::new(epoch), &peers);
        living.me = living.epoch.members().index(&self.me);
        let table = living.epoch.members().hash();
        let mut alike = removed.iter().rev().chain(self.living.iter().rev());
        if let Some(alike) = alike.find(|other| other.epoch.members().hash() == table) {
            living.adopt(&alike.plans);
        }
        self.living.push(living);
        self.set_peers(peers);
        let changed = (start..=end).find(|block| {
            let before = before.iter().rev().find(|epoch| epoch.from_block() <= *block);
            let now = self.at(*block).map(Living::epoch);
            match (before, now) {
                (Some(before), Some(now)) => !before.agrees_on(now, *block),
                (before, now) => before.is_some() != now.is_some(),
            }
        });
        let new = new.into_iter().map(|(_, signed)| signed);
        let delegations = new.filter(|signed| !known.contains(signed)).collect();
        Ok(Taken { dropped, joined, delegations, changed })
    }

    /// All living epochs have these members from now on, who had none. Gives the new peers.
    pub(super) fn found(&mut self, table: &Arc<Membership>) -> Vec<(PeerKey, PeerId)> {
        let mut peers = PeerTable::clone(self.view.peers());
        let mut joined = Vec::new();
        // Those that it has called keep their keys.
        for peer in table.members().iter().map(|member| member.peer()) {
            if let Some(key) = peers.intern(peer).filter(|_| peer != self.me) {
                joined.push((key, peer));
            }
        }
        for living in &mut self.living {
            let from_block = living.epoch.from_block();
            let epoch = living.epoch.with_members(from_block, Arc::clone(table));
            *living = Living::new(Arc::new(epoch), &peers);
            living.me = table.index(&self.me);
        }
        self.set_peers(peers);
        joined
    }

    fn set_peers(&mut self, peers: PeerTable) {
        let epochs = self.living.iter().map(|living| living.epoch.clone()).collect();
        self.view = Arc::new(EpochsView::from_parts(epochs, Arc::new(peers)));
    }

    /// Forgets the oldest epoch if the window, which begins at the first of `low`, has been past its
    /// last block for `patience`: a window that a liar has moved does not stay for as long. Where the
    /// next epoch has the same leaders and another table alone, the second of `low` is enough, and the
    /// next answers for the blocks of both: there are [`MAX_EPOCHS`] places, and tables change often.
    /// Gives the epoch that is gone; then the peers of [`leave`](Self::leave) go.
    pub(super) fn retire(
        &mut self,
        now: Timestamp,
        low: [u64; 2],
        patience: std::time::Duration,
    ) -> Option<Arc<Epoch>> {
        let [oldest, after, ..] = &self.living[..] else { return None };
        let goes_on = oldest.epoch.goes_on_in(&after.epoch);
        let next = after.first_block();
        if low[usize::from(goes_on)] < next {
            self.passed_at = None;
            return None;
        }
        let since = *self.passed_at.get_or_insert(now);
        if now.since(since) < patience {
            return None;
        }
        self.passed_at = None;
        let gone = self.drop_oldest();
        self.renew();
        Some(gone)
    }

    /// Takes the oldest of several epochs out. If it goes on in the next one, that one answers for its
    /// blocks: some epoch has to.
    fn drop_oldest(&mut self) -> Arc<Epoch> {
        let gone = self.living.remove(0).epoch;
        let first = &mut self.living[0];
        if gone.goes_on_in(&first.epoch) {
            let members = Arc::clone(first.epoch.members());
            first.epoch = Arc::new(first.epoch.with_members(gone.from_block(), members));
        }
        gone
    }

    /// Forgets the members of epochs that are gone which no epoch names any more, and gives
    /// their keys: those that left, and those that `stay`, by what is said of their keys, and are not
    /// forgotten. This node keeps its own, though it is among those that left.
    pub(super) fn leave(
        &mut self,
        gone: &[Arc<Epoch>],
        mut stays: impl FnMut(PeerKey) -> bool,
    ) -> [Vec<(PeerKey, PeerId)>; 2] {
        let mut peers = PeerTable::clone(self.view.peers());
        let (mut left, mut staying) = (Vec::new(), Vec::new());
        for member in gone.iter().flat_map(|epoch| epoch.members().members()) {
            let peer = member.peer();
            if self.view.member(&peer).is_some() {
                continue;
            }
            let Some(key) = peers.key(&peer) else { continue };
            if staying.contains(&(key, peer)) {
                continue;
            }
            if peer != self.me && stays(key) {
                staying.push((key, peer));
                continue;
            }
            if peer != self.me {
                peers.forget(&peer);
            }
            left.push((key, peer));
        }
        if !left.is_empty() {
            self.set_peers(peers);
        }
        [left, staying]
    }
}

/// The first block of `low..=high` of which `epoch` names another leader than `before`.
fn first_change(before: &[Arc<Epoch>], epoch: &Epoch, low: u64, high: u64) -> Option<u64> {
    (low.max(epoch.from_block())..=high).find(|block| {
        let before = before.iter().rev().find(|epoch| epoch.from_block() <= *block);
        !before.is_some_and(|before| before.agrees_on(epoch, *block))
    })
}

#[cfg(test)]
mod tests;
