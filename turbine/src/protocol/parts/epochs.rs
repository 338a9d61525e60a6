//! What follows when an epoch comes or goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Parts;
use crate::control::Control;
use crate::delegation::SignedDelegation;
use crate::egress::Lane;
use crate::epoch::{Epoch, EpochError};
use crate::membership::Membership;
use crate::peer::PeerKey;
use crate::protocol::epochs::Bases;
use crate::protocol::event::{EpochChange, Event};
use crate::protocol::peers::Class;
use crate::rotation::Support;

impl Parts {
    /// Forgets epochs whose blocks are all below the window, and those before another table alone once
    /// the newest Seal is as far past them as blocks are open ahead.
    pub(super) fn retire_epochs(&mut self) {
        let (now, patience) = (self.ctx.now, self.ctx.config.reanchor);
        let low = [self.ctx.window.lowest_needed(now), self.ctx.window.lowest_live(now)];
        if let Some(gone) = self.ctx.epochs.retire(now, low, patience) {
            self.change_epochs(EpochChange::default(), &[gone]);
        }
    }

    /// The newest block that is open, or of which a message was taken: an epoch above it has not
    /// begun. While none is known, only the newest epoch has not.
    fn begun(&self) -> u64 {
        let known = self.ctx.window.opened().max(self.ctx.window.taken());
        known.unwrap_or_else(|| {
            let epochs = self.ctx.epochs.view().epochs();
            epochs.iter().rev().nth(1).map_or(0, |epoch| epoch.from_block())
        })
    }

    /// Takes a new epoch; `instead`: in place of those that have not begun. Where tables come from
    /// leaders it says which gateways there are, and the members stay those of the tables.
    pub(in crate::protocol) fn epoch(
        &mut self,
        epoch: Epoch,
        instead: bool,
    ) -> Result<(), EpochError> {
        if self.ctx.config.members.live {
            return self.change_list(&epoch, instead);
        }
        let begun = if instead { self.begun() } else { u64::MAX };
        self.take_epochs(vec![epoch], begun)
    }

    /// Takes epochs, the first of them in place of those above `begun`, the others after it.
    fn take_epochs(&mut self, epochs: Vec<Epoch>, begun: u64) -> Result<(), EpochError> {
        let (low, _) = self.ctx.window.bounds();
        let (mut change, mut gone) = (EpochChange::default(), Vec::new());
        let (mut changed, mut delegations) = (None::<u64>, Vec::new());
        let mut above = begun;
        for epoch in epochs {
            let from_block = epoch.from_block();
            let taken = self.ctx.epochs.take_above(epoch, above, low, self.ctx.window.taken())?;
            above = u64::MAX;
            change.began = change.began.or(Some(from_block));
            change.joined.extend(taken.joined);
            gone.extend(taken.dropped);
            delegations.extend(taken.delegations);
            changed = changed.into_iter().chain(taken.changed).min();
        }
        // What a deposed leader has sent stands in the way of the right one's.
        if let Some(block) = changed {
            self.forget_from(block);
        }
        self.tell_epochs(change, &gone, delegations);
        Ok(())
    }

    /// Everybody learns of other epochs: this node's parts, and its peers.
    fn tell_epochs(
        &mut self,
        change: EpochChange,
        gone: &[Arc<Epoch>],
        delegations: Vec<SignedDelegation>,
    ) {
        let was_guest = self.ctx.is_guest;
        let joining: Vec<PeerKey> = change.joined.iter().map(|(key, _)| *key).collect();
        self.change_epochs(change, gone);
        // Before any shred that peers who have not taken the epoch, or know no delegation of its
        // leader, cannot check.
        let first = [self.hello(), Control::Terms(self.terms())];
        for frame in first.into_iter().chain(delegations.into_iter().map(Control::Delegation)) {
            self.ctx.send_control_to_everybody(Lane::Data, &frame, None);
        }
        let table = self.ctx.epochs.newest().epoch().members().hash();
        let plans = self.leading.iter().flat_map(|leading| leading.frames(Some(table)));
        plans.for_each(|plan| self.ctx.send_control_to_all(Lane::Bulk, plan, None));
        // Who was a guest until now has been told little, and was not listened to.
        let promoted: Vec<PeerKey> = match was_guest && !self.ctx.is_guest {
            true => self.ctx.peers.iter_connected().collect(),
            false => joining.into_iter().filter(|p| self.ctx.peers.is_connected(*p)).collect(),
        };
        promoted.into_iter().for_each(|peer| self.connected(peer));
        self.fallback.settle(&mut self.ctx);
    }

    /// Another table of members holds from a block on; `None`: from the next one on, or above the tables
    /// that are announced, since it was named after them. Gives the block.
    /// Changes of gateways that are announced stay. A node that has no table yet is founded on it,
    /// from the first block of its epochs on.
    pub(in crate::protocol) fn change_table(
        &mut self,
        from_block: Option<u64>,
        table: Arc<Membership>,
    ) -> Result<u64, EpochError> {
        if self.ctx.epochs.newest().members() == 0 {
            let from_block = self.ctx.epochs.view().oldest().from_block();
            let joined = self.ctx.epochs.found(&table);
            let change = EpochChange { joined, ..EpochChange::default() };
            self.tell_epochs(change, &[], Vec::new());
            return Ok(from_block);
        }
        let begun = self.begun();
        let base = Bases::of(self.ctx.epochs.view().epochs(), begun);
        let next = begun.saturating_add(1).max(base.first_block_of_a_table());
        let from_block = from_block.unwrap_or(next);
        let epochs = base.with_table(from_block, table)?;
        self.take_epochs(epochs, begun)?;
        Ok(from_block)
    }

    /// Other gateways, of which the application says from which block on. Tables that are announced
    /// stay.
    fn change_list(&mut self, list: &Epoch, instead: bool) -> Result<(), EpochError> {
        let begun = self.begun();
        let base = Bases::of(self.ctx.epochs.view().epochs(), begun);
        let epochs = base.with_list(list, instead)?;
        self.take_epochs(epochs, begun)
    }

    /// Who goes by a rotation, by weight; where nobody has any, all count alike.
    pub(in crate::protocol) fn support(&self, rotation: [u8; 32]) -> Support {
        let (peers, newest) = (&self.ctx.peers, self.ctx.epochs.newest());
        let members = newest.epoch().members().members();
        let weighed = members.iter().any(|member| member.weight > 0);
        let weight = |peer: PeerKey| {
            let member = newest.index(peer).map(|index| &members[index as usize]);
            u128::from(member.map_or(0, |member| if weighed { member.weight } else { 1 }))
        };
        let own = weight(peers.me());
        let connected: u128 = peers.iter_connected().map(weight).sum();
        let mut by_block = BTreeMap::new();
        for (peer, from_block) in peers.going_by(rotation) {
            *by_block.entry(from_block).or_default() += weight(peer);
        }
        Support { head: self.ctx.window.opened(), own, all: own + connected, by_block }
    }

    /// Drops what is not delivered of a block and of all above it.
    fn forget_from(&mut self, block: u64) {
        let (low, high) = self.ctx.window.bounds();
        for high in [block.saturating_sub(1), high] {
            self.delivery.set_window(low, high);
            self.repair.set_window(low, high);
        }
    }

    /// Everybody learns that epochs came and that others are `gone`.
    fn change_epochs(&mut self, mut change: EpochChange, gone: &[Arc<Epoch>]) {
        change.ended = gone.last().map(|epoch| epoch.from_block());
        // Who is connected may stay as a guest while there is room.
        let mut room = self.ctx.config.guests.saturating_sub(self.ctx.peers.guests());
        let peers = &self.ctx.peers;
        let [left, stayed] = self.ctx.epochs.leave(gone, |peer| {
            let stays = room > 0 && peers.is_connected(peer) && !peers.is_refused(peer);
            room -= usize::from(stays);
            stays
        });
        (change.left, change.stayed) = (left, stayed);
        for (peer, _) in &change.left {
            self.forget_peer(*peer);
        }
        let ours = self.ctx.epochs.newest().epoch().members().hash();
        let gateways = self.ctx.epochs.newest().epoch().schedule().gateways().len();
        self.ctx.window.set_gateways(gateways);
        self.ctx.peers.set_table(self.ctx.epochs.view().peers().clone(), ours);
        for (peer, _) in &change.joined {
            self.ctx.set_class(*peer, Class::Member);
        }
        for (peer, _) in &change.stayed {
            self.ctx.set_class(*peer, Class::Guest);
        }
        self.ctx.settle_own_class();
        if let Some(leading) = &mut self.leading {
            leading.follow(&self.ctx.epochs);
        }
        self.fallback.relink(&self.ctx);
        self.ctx.events.push_back(Event::Epoch(Box::new(change)));
    }
}
