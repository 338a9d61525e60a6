//! Members who come and go: what follows from a notice, a table that is here, a look around.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Parts;
use crate::control::{Control, SignedTableNotice, TableNotice, TablePart};
use crate::egress::Lane;
use crate::epoch::MAX_EPOCHS;
use crate::membership::{Membership, MembershipError, Reached};
use crate::outcome::Outcome;
use crate::peer::{PeerId, PeerKey};
use crate::protocol::event::{Event, TableNews};
use crate::protocol::tables::{Heard, MembersState, PartTaken};
use crate::protocol::window::WINDOW_FUTURE;
use crate::rotation::first_block;
use crate::tables::{self, Candidate, Known, Unfit, Weights};
use crate::time::Timestamp;

/// How often it is looked what is due.
const LOOK: Duration = Duration::from_millis(250);
/// Newcomers that are called back at a time: eight a second.
const PROBES: usize = 2;
/// Terms ahead of which a notice is taken.
const TERMS_AHEAD: u64 = 3;
/// A table that most peers go by is asked for after this long: its notice may be on its way.
const NOTICE_LATE: Duration = Duration::from_secs(2);

impl Parts {
    /// Takes a notice of a table. Says what it was, and the work. One for which no epoch has room waits
    /// until there is.
    pub(super) fn take_notice(
        &mut self,
        from: PeerKey,
        signed: &SignedTableNotice,
        verify: u64,
    ) -> (Outcome, u64) {
        if !self.ctx.config.members.live {
            return (Outcome::MembersOff, 0);
        }
        let notice = &signed.notice;
        let term = self.ctx.epochs.newest().epoch().schedule().blocks_per_term();
        let ahead = term.saturating_mul(TERMS_AHEAD).saturating_add(WINDOW_FUTURE);
        let head = self.ctx.window.opened();
        if head.is_some_and(|head| notice.from_block <= head) || !self.tables.may_count(signed) {
            return (Outcome::TableOld, 0);
        }
        let too_far = head.is_some_and(|head| notice.from_block - head > ahead);
        let naming = tables::naming_block(notice.from_block, term);
        let leader = naming.and_then(|block| self.ctx.leader(block));
        let is_leaders = leader.is_some_and(|leader| *leader.key.as_bytes() == notice.leader);
        if notice.chain_id != self.ctx.config.chain_id || too_far || !is_leaders {
            return (Outcome::TableUnknown, 0);
        }
        if !signed.verify() {
            return (Outcome::ControlBad, verify);
        }
        self.heard(*signed, Some(from));
        (Outcome::Control, 0)
    }

    /// A notice counts, which is this node's own if it is `from` nobody.
    fn heard(&mut self, signed: SignedTableNotice, from: Option<PeerKey>) {
        let heard = self.tables.note(signed);
        if let Heard::Nothing(outcome) = heard {
            return self.ctx.outcomes.count(outcome);
        }
        let frame = Control::TableNotice(Box::new(signed));
        self.ctx.send_control_to_everybody(Lane::Bulk, &frame, from);
        let from_block = signed.notice.from_block;
        if let Heard::Contradicts(other) = heard {
            self.keep_table_before(from_block);
            self.named_twice([other, signed]);
        } else if from.is_some() && self.has_room(from_block) {
            self.want_table(signed.notice.table, Some(from_block), from);
        }
    }

    /// Whether an epoch from a block on takes no other one with it whose blocks are still asked for.
    /// A node that knows no head asks for none, and would see no epoch end.
    fn has_room(&self, from_block: u64) -> bool {
        let mut epochs = self.ctx.epochs.iter();
        self.ctx.window.opened().is_none()
            || epochs.any(|living| living.epoch().from_block() == from_block)
            || self.ctx.epochs.iter().count() < MAX_EPOCHS
    }

    /// Turns to the tables that were named while there was no room for them.
    fn want_noticed(&mut self, head: u64) {
        for (from_block, table) in self.tables.noticed_above(head) {
            // What is on its way needs no second look, which may make a whole table.
            if self.has_room(from_block) && !self.tables.is_wanted(&table) {
                self.want_table(table, Some(from_block), None);
            }
        }
    }

    /// No table was named for a block after all: that of the blocks before it stays, unless the block
    /// has begun.
    fn keep_table_before(&mut self, from_block: u64) {
        let before = from_block.checked_sub(1).and_then(|block| self.ctx.epochs.at(block));
        let before = before.map(|living| Arc::clone(living.epoch().members()));
        let here = self.ctx.epochs.at(from_block).map(|living| living.epoch().members().hash());
        if let Some(before) = before.filter(|before| Some(before.hash()) != here)
            && self.change_table(Some(from_block), before).is_ok()
        {
            self.records.keep_tables(&self.ctx);
        }
    }

    fn named_twice(&mut self, notices: [SignedTableNotice; 2]) {
        let leader = self.ctx.epochs.leader_of_key(&notices[0].notice.leader);
        if let Some(gateway) = leader.map(|leader| leader.gateway) {
            let news = TableNews::Twice { gateway, notices: Box::new(notices) };
            self.ctx.events.push_back(Event::Table(news));
        }
    }

    /// A table is to hold from a block on, or as soon as it is here. It is taken if it is here, or
    /// can be made of what is; else it is asked for.
    fn want_table(&mut self, table: [u8; 32], from_block: Option<u64>, from: Option<PeerKey>) {
        let at = from_block.and_then(|block| self.ctx.epochs.at(block));
        let in_effect = at.is_some_and(|living| living.epoch().members().hash() == table);
        if in_effect || self.tables.is_refused(self.ctx.now, &table) {
            return;
        }
        let living = self.ctx.epochs.iter().map(|living| living.epoch().members());
        let known = living.filter(|members| members.hash() == table).last().cloned();
        let made = || {
            let any = [false, true].into_iter().map(|all| self.compose(from_block, all));
            any.flatten().find(|made| made.hash() == table).map(Arc::new)
        };
        match known.or_else(made) {
            Some(members) => self.take_table(members, from_block, false),
            None => self.tables.want(&mut self.ctx, table, from_block, from),
        }
    }

    /// The table that this node would make for a block; `all`: with everybody who was not reached.
    fn compose(&self, from_block: Option<u64>, all: bool) -> Option<Membership> {
        let newest = self.ctx.epochs.newest();
        let at = from_block.and_then(|block| self.ctx.epochs.at(block));
        let before = at.unwrap_or(newest).epoch().members();
        let of_before: Weights;
        let weights = match &self.tables.weights {
            Some(weights) => &**weights,
            None => {
                let members = before.members().iter();
                of_before = members.map(|member| (member.peer(), member.weight)).collect();
                &of_before
            }
        };
        let pool = self.records.pool.iter();
        let candidates = pool.map(|(record, reached)| match all && reached.is_none() {
            true => Candidate { record, reached: Reached::all_of(record) },
            false => Candidate { record, reached },
        });
        let (chain_id, max) = (self.ctx.config.chain_id, self.ctx.config.members.max);
        tables::compose(chain_id, candidates, weights, before, max).ok()
    }

    /// What this node takes a table for that is to hold from a block on.
    fn judge_table(&self, table: &Membership, from_block: Option<u64>) -> Result<(), Unfit> {
        let at = from_block.and_then(|block| self.ctx.epochs.at(block));
        let before = at.unwrap_or(self.ctx.epochs.newest()).epoch().members();
        let peers = self.ctx.peers.iter_connected().filter_map(|peer| self.ctx.peers.id(peer));
        let me = self.ctx.peers.id(self.ctx.me());
        let alive = |peer: &PeerId| self.records.pool.get(peer).is_some();
        let connected: Vec<PeerId> = peers.chain(me).filter(alive).collect();
        let known = Known {
            before,
            weights: self.tables.weights.as_deref(),
            connected: &connected,
            max: self.ctx.config.members.max,
            latest: self.records.latest(&self.ctx),
        };
        tables::judge(table, &known)
    }

    /// Takes a table that is here, or says why not. `own`: this node has named it.
    fn take_table(&mut self, table: Arc<Membership>, from_block: Option<u64>, own: bool) {
        let told = from_block.unwrap_or(0);
        if let Err(reason) = self.judge_table(&table, from_block) {
            self.ctx.outcomes.count(Outcome::TableUnfit);
            self.tables.refuse(self.ctx.now, table.hash(), reason.to_string());
            let news = TableNews::Refused { from_block: told, reason };
            return self.ctx.events.push_back(Event::Table(news));
        }
        let members = table.len();
        let taken = self.change_table(from_block, table);
        // What does not follow the epochs that are known comes too late: the next one will do.
        let Ok(from_block) = taken else {
            self.tables.elsewhere = None;
            return self.ctx.outcomes.count(Outcome::TableOld);
        };
        self.tables.state.taken += 1;
        self.records.keep_tables(&self.ctx);
        let news = TableNews::Taken { from_block, members, own };
        self.ctx.events.push_back(Event::Table(news));
    }

    /// Takes a part of a table that was asked for.
    pub(super) fn take_table_part(&mut self, from: PeerKey, part: TablePart) -> Outcome {
        let (table, from_block, bytes) = match self.tables.take_part(&mut self.ctx, from, part) {
            PartTaken::Done(outcome) => return outcome,
            PartTaken::Whole { table, from_block, bytes } => (table, from_block, bytes),
        };
        let (pool, epochs) = (&self.records.pool, self.ctx.epochs.view());
        let known = |record: &crate::membership::MemberRecord| {
            pool.contains(record)
                || epochs.member(&record.body.peer).is_some_and(|member| member.record == *record)
        };
        match tables::decode(self.ctx.config.chain_id, &table, &bytes, known) {
            Ok(members) => {
                let named = self.tables.first_block_of(&table);
                self.take_table(Arc::new(members), from_block.or(named), false);
                Outcome::Control
            }
            // Not what its hash says: whoever sent it has made it up.
            Err(MembershipError::Decode(_)) => Outcome::ControlBad,
            Err(error) => {
                let reason = Unfit::Membership(error);
                self.tables.refuse(self.ctx.now, table, reason.to_string());
                let from_block = from_block.unwrap_or(0);
                let news = TableNews::Refused { from_block, reason };
                self.ctx.events.push_back(Event::Table(news));
                Outcome::TableUnfit
            }
        }
    }

    /// When something is due for members.
    pub(super) fn members_timeout_at(&self) -> Option<Timestamp> {
        let records = self.records.next_timeout(&self.ctx)?;
        Some(records.min(self.tables.look_at))
    }

    /// Renews, pulls, names, asks and calls back, as far as it is due.
    pub(super) fn members_timeout(&mut self) {
        if !self.ctx.config.members.live {
            return;
        }
        let weights = self.tables.weights.clone();
        self.records.timeout(&mut self.ctx, weights.as_deref());
        if self.ctx.now < self.tables.look_at {
            return;
        }
        self.tables.look_at = self.ctx.now + LOOK;
        for from_block in self.tables.chase(&mut self.ctx) {
            self.ctx.events.push_back(Event::Table(TableNews::Missing { from_block }));
        }
        if let Some(head) = self.ctx.window.opened() {
            self.tables.forget_below(head.saturating_sub(WINDOW_FUTURE));
            self.want_noticed(head);
            self.name_table(head);
            self.probe(head);
        }
        self.look_elsewhere();
    }

    /// Makes and names the next table, if this node leads and it is another one.
    fn name_table(&mut self, head: u64) {
        let leads = self.leading.as_ref().is_some_and(|leading| leading.leads(&self.ctx, head));
        let schedule = self.ctx.epochs.at(head).map(|living| living.epoch().schedule());
        let Some(term) = schedule.filter(|_| leads).map(|schedule| schedule.blocks_per_term())
        else {
            return;
        };
        let naming = head / term * term;
        let Some(from_block) = first_block(naming, term) else { return };
        let late = from_block - head <= WINDOW_FUTURE;
        if self.tables.named == Some(naming) || late || !self.has_room(from_block) {
            return;
        }
        let Some(table) = self.compose(Some(from_block), false) else { return };
        let before = self.ctx.epochs.at(from_block);
        if before.is_some_and(|living| living.epoch().members().hash() == table.hash()) {
            return;
        }
        // With few records, such as after a start, it would leave out whom it talks to.
        if self.judge_table(&table, Some(from_block)).is_err() {
            return;
        }
        self.tables.named = Some(naming);
        let notice = TableNotice {
            chain_id: self.ctx.config.chain_id,
            from_block,
            table: table.hash(),
            members: table.len() as u32,
            weights_block: self.tables.weights_block,
            leader: self.leading.as_ref().map_or([0; 32], |leading| leading.public_key()),
        };
        let Some(signed) = self.leading.as_ref().map(|leading| leading.sign_table(notice)) else {
            return;
        };
        // Before the notice: who asks for the table finds it here.
        self.take_table(Arc::new(table), Some(from_block), true);
        self.heard(signed, None);
    }

    /// Wishes to call newcomers back, if this node names the next table or the one after.
    fn probe(&mut self, head: u64) {
        let me = self.ctx.peers.id(self.ctx.me());
        let view = self.ctx.epochs.view();
        let next = view.next_leaders(head).next().map(|leader| leader.peer);
        // It is looked with each block and each answer as well, and these have a rate.
        let now = self.ctx.now;
        let is_due = now >= self.tables.probe_at;
        if !is_due || self.leading.is_none() || !(self.ctx.leads(head) || next == me) {
            return;
        }
        self.tables.probe_at = now + LOOK;
        let probes = self.records.pool.take_probes(now, PROBES);
        self.tables.probe(probes);
    }

    /// Looks which table the connected peers go by. One that most of them name and that is not here
    /// was named while this node was away, or before it came.
    fn look_elsewhere(&mut self) {
        let newest = self.ctx.epochs.newest();
        let members = newest.epoch().members();
        let weighed = members.members().iter().any(|member| member.weight > 0);
        let weight = |peer: PeerKey| match newest.index(peer) {
            Some(index) if weighed => u128::from(members.members()[index as usize].weight),
            // A node without a table listens to those that it has called.
            None if !members.is_empty() => 0,
            _ => 1,
        };
        let (mut by_table, mut all) = (BTreeMap::<[u8; 32], u128>::new(), 0);
        let empty = empty_table(self.ctx.config.chain_id);
        for peer in self.ctx.peers.iter_connected() {
            if let Some(table) = self.ctx.peers.table_of(peer).filter(|table| *table != empty) {
                *by_table.entry(table).or_default() += weight(peer);
                all += weight(peer);
            }
        }
        let most = by_table.into_iter().find(|(_, weight)| weight * 2 > all);
        let is_here = |table: &[u8; 32]| {
            self.ctx.epochs.iter().any(|living| living.epoch().members().hash() == *table)
        };
        let Some((table, _)) = most
            .filter(|(table, _)| !is_here(table) && !self.tables.is_refused(self.ctx.now, table))
        else {
            self.tables.elsewhere = None;
            return;
        };
        let now = self.ctx.now;
        let since = match self.tables.elsewhere {
            Some((known, since)) if known == table => since,
            _ => now,
        };
        self.tables.elsewhere = Some((table, since));
        if members.is_empty() || now.since(since) >= NOTICE_LATE {
            let from_block = self.tables.first_block_of(&table);
            let head = self.ctx.window.opened();
            let from_block = from_block.filter(|from| head.is_none_or(|head| *from > head));
            // What it is founded on holds from the first block on.
            let from_block = from_block.filter(|_| !members.is_empty());
            if members.is_empty() || self.has_room(from_block.unwrap_or(u64::MAX)) {
                self.want_table(table, from_block, None);
            }
        }
    }

    /// What this node knows of members who come and go.
    pub(in crate::protocol) fn members_state(&self) -> MembersState {
        let newest = self.ctx.epochs.newest();
        MembersState {
            live: self.ctx.config.members.live,
            records: self.records.pool.len(),
            members: newest.members(),
            from_block: newest.epoch().from_block(),
            is_member: newest.me().is_some(),
            ..self.tables.state.clone()
        }
    }
}

/// The hash of a table without members.
fn empty_table(chain_id: u64) -> [u8; 32] {
    Membership::new(chain_id, Vec::new()).map_or([0; 32], |table| table.hash())
}
