//! One block: its known messages, the choice among them, and those that were handed on.
//!
//! After every arrival the block is evaluated again: which opening counts
//! ([`openings`](super::openings)) and which messages belong to it ([`choice`]). If the messages
//! handed on are a prefix of these, the rest follows; otherwise they are retracted and the block is
//! handed on again under the next number. So the result does not depend on the order of arrival, as
//! it would if every arrival changed an earlier decision. As long as nothing about a block is
//! doubtful, only the next messages are looked for ([`Block::extend`]).

mod choice;

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::{Address, B256};
use fragcast_shredder::{Kind, Message};

use super::candidates::{Candidate, Held, MAX_CANDIDATES, bit};
use super::openings::{MAX_UNSIGNED, Opening, Openings};
use super::{
    Fate, MAX_ATTEMPTS, MAX_GUESSED, MAX_MESSAGES, MAX_NUMBERS, MAX_SUBSTITUTED, numbered,
};
use crate::output::{Delivered, Output, RetractReason};
use crate::schedule::MAX_SUBSTITUTES;

const RANKS: usize = MAX_SUBSTITUTES as usize + 1;

/// Where in its block a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Env,
    /// A frag, by message index.
    Frag(u16),
    Seal,
}

/// The messages that were handed on and not retracted.
#[derive(Debug)]
struct Handed {
    number: u8,
    /// The rank of their gateway.
    lead: u8,
    roots: Vec<B256>,
    sealed: bool,
}

/// The opening that counts, and how its messages are chosen.
#[derive(Debug, Clone, Copy)]
struct View {
    at: usize,
    number: u8,
    env: B256,
    /// The rank of its gateway: what others have sent does not belong to it.
    lead: u8,
    rank: u32,
    /// Whether no other opening can have been before it, so that messages before its Env are its
    /// own.
    lone: bool,
    /// Whether so many numbers are used up that a guess is not worth one more, and a Seal must
    /// prove it.
    strict: bool,
    /// Whether so many are used up that the rest is for messages of the overlay alone.
    certain: bool,
    /// The later message may replace one that was handed on.
    reorder: bool,
}

/// A block.
#[derive(Debug, Default)]
pub(super) struct Block {
    number: u64,
    /// The one of the lowest rank that has sent something, and its rank.
    gateway: Address,
    lead: u8,
    /// Whether gateways of several ranks have.
    mixed: bool,
    /// Whether something may wait of higher ranks than `lead`.
    others: bool,
    /// Messages of substitutes that were known, by rank.
    substituted: [usize; RANKS],
    openings: Openings,
    /// Frags by message index.
    frags: BTreeMap<u16, Vec<Candidate>>,
    seals: Vec<Candidate>,
    /// Attempts that are void, one bit each.
    void: u8,
    /// Messages that came.
    ranks: u32,
    /// Messages that are known.
    count: usize,
    held: Held,
    handed: Option<Handed>,
    /// The number used last.
    last: Option<u8>,
    /// Attempts known by the overlay, one bit each.
    attempts: u8,
    /// Whether gossip has brought a message that the overlay has not.
    guessed: bool,
    /// A place has had more than one candidate.
    contested: bool,
    /// Handed on whole as the overlay says, under this attempt: nothing that gossip says of its frags
    /// counts.
    settled: Option<u8>,
    /// The frags of Seals whose root was found.
    proofs: BTreeMap<B256, Vec<B256>>,
    /// For each Seal a hash of the options of the last search, if it failed.
    failed: BTreeMap<B256, blake3::Hash>,
    hashed: usize,
}

impl Block {
    /// A block of a gateway's, which leads it by the rank `lead`.
    pub(super) fn new(number: u64, gateway: Address, lead: u8, substitutes: u8) -> Self {
        Self { number, gateway, lead, openings: Openings::new(substitutes), ..Self::default() }
    }

    pub(super) const fn gateway(&self) -> Address {
        self.gateway
    }

    pub(super) const fn held(&self) -> Held {
        self.held
    }

    /// The same, counted.
    #[cfg(test)]
    pub(super) fn count_held(&mut self) -> Held {
        let mut held = Held::default();
        self.all().for_each(|candidate| held.add(candidate));
        held
    }

    pub(super) const fn is_opened(&self) -> bool {
        self.last.is_some()
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.handed.as_ref().is_some_and(|handed| handed.sealed)
    }

    /// The number under which messages were handed on, if the Seal was not.
    pub(super) fn unsealed(&self) -> Option<u8> {
        self.handed.as_ref().filter(|handed| !handed.sealed).map(|handed| handed.number)
    }

    /// The number that a message has which is handed on again; `None` if another has its place, or
    /// all that was handed on is void.
    pub(super) fn number_of(&self, delivered: &Delivered) -> Option<u8> {
        let Some(handed) = &self.handed else {
            return self.last.is_none().then_some(delivered.key.attempt);
        };
        let same = match handed.roots.get(usize::from(delivered.key.message)) {
            Some(root) => *root == delivered.message.root(),
            None => !handed.sealed,
        };
        same.then_some(handed.number)
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Candidate> {
        let envs = self.openings.all.iter_mut().map(|opening| &mut opening.env);
        envs.chain(self.frags.values_mut().flatten()).chain(&mut self.seals)
    }

    fn at(&self, place: Position) -> Box<dyn Iterator<Item = &Candidate> + '_> {
        match place {
            Position::Env => Box::new(self.openings.all.iter().map(|opening| &opening.env)),
            Position::Frag(index) => Box::new(self.frags.get(&index).into_iter().flatten()),
            Position::Seal => Box::new(self.seals.iter()),
        }
    }

    fn find(&mut self, place: Position, root: B256) -> Option<&mut Candidate> {
        match place {
            Position::Env => {
                self.openings.all.iter_mut().map(|o| &mut o.env).find(|c| c.root == root)
            }
            Position::Frag(index) => {
                self.frags.get_mut(&index)?.iter_mut().find(|c| c.root == root)
            }
            Position::Seal => self.seals.iter_mut().find(|c| c.root == root),
        }
    }

    /// Lets messages go that `which` names; their roots stay.
    fn release(&mut self, which: impl Fn(&Candidate) -> bool) {
        let mut held = self.held;
        for candidate in self.all().filter(|candidate| which(candidate)) {
            held.release(candidate);
        }
        self.held = held;
    }

    /// Lets everything go that was handed on. The block cannot be handed on again then, except
    /// for another opening.
    pub(super) fn let_go(&mut self) {
        self.release(|candidate| candidate.kept);
    }

    /// Lets everything go that waits.
    pub(super) fn drop_waiting(&mut self) {
        self.drop_waiting_from(0);
    }

    /// Whether something may wait of gateways of higher ranks than the one that it counts for.
    pub(super) const fn has_others(&self) -> bool {
        self.others
    }

    /// Lets go what waits of these; says whether one of rank `rank` is of them.
    pub(super) fn drop_waiting_of_others(&mut self, rank: u8) -> bool {
        self.others = false;
        self.drop_waiting_from(self.lead.saturating_add(1));
        rank > self.lead
    }

    /// Lets everything go that waits of gateways of rank `lowest` and higher ones.
    fn drop_waiting_from(&mut self, lowest: u8) {
        let (mut held, mut count, mut substituted) = (self.held, self.count, self.substituted);
        let mut keep = |candidate: &Candidate| {
            let keep = candidate.kept || candidate.delivered.is_none() || candidate.lead < lowest;
            if !keep {
                held.sub(candidate);
                count -= 1;
                if let Some(of_rank) = substituted.get_mut(usize::from(candidate.lead)) {
                    *of_rank = of_rank.saturating_sub(1);
                }
            }
            keep
        };
        self.openings.all.retain(|opening| keep(&opening.env));
        self.frags.values_mut().for_each(|all| all.retain(&mut keep));
        self.seals.retain(keep);
        self.frags.retain(|_, all| !all.is_empty());
        (self.held, self.count, self.substituted) = (held, count, substituted);
    }

    /// Takes a message and appends to `out` what can be handed on.
    pub(super) fn push(&mut self, delivered: Arc<Delivered>, out: &mut Vec<Output>) -> Fate {
        let (index, root) = (delivered.key.message, delivered.message.root());
        let place = match delivered.message.message().kind() {
            Kind::Env => Position::Env,
            Kind::Frag => Position::Frag(index),
            Kind::Seal => Position::Seal,
        };
        let lead = delivered.rank;
        self.mixed |= lead != self.lead;
        self.others |= lead != self.lead;
        if lead < self.lead {
            (self.gateway, self.lead) = (delivered.message.gateway(), lead);
        }
        let proven = delivered.via.proves_attempt();
        let signed = if proven { bit(delivered.key.attempt) } else { 0 };
        if signed == 0 && proven {
            return Fate::OutOfBounds;
        }
        let known = self.find(place, root).map(|candidate| candidate.signed);
        if known.is_some_and(|has| signed != 0 && has & signed != 0) {
            return Fate::Duplicate;
        }
        let refused = self.refused(place, index, (signed, lead), known.is_some());
        let fate = match (refused, known) {
            // It counts no more, but what it was tells what else may come.
            (Some(Fate::Stale), None) => match self.insert(&delivered, place, signed, false) {
                Fate::Waiting => Fate::Stale,
                full => return full,
            },
            (Some(Fate::Stale), Some(_)) => {
                self.learn(delivered, place, signed, false);
                Fate::Stale
            }
            (Some(fate), _) => return fate,
            (None, Some(_)) => {
                let settled = self.is_closed_to(lead) && signed == 0;
                if !self.learn(delivered, place, signed, !settled) {
                    return self.repeat_of(place, root);
                }
                Fate::Duplicate
            }
            (None, None) => match self.insert(&delivered, place, signed, true) {
                Fate::Waiting => Fate::Waiting,
                full => return full,
            },
        };
        let before = out.len();
        self.settle(out);
        let passed = out[before..].iter().any(|output| matches!(output, Output::Message(_)));
        match fate {
            Fate::Stale => Fate::Stale,
            _ if passed => Fate::Passed,
            Fate::Duplicate => self.repeat_of(place, root),
            // Its attempt is known and nothing of it has that place: its Env is missing.
            _ if signed != 0 => Fate::Waiting,
            _ => self.fate_of(place, index),
        }
    }

    /// The fate of a known message: of an opening that does not count any more, or a repeat.
    fn repeat_of(&self, place: Position, root: B256) -> Fate {
        let current = self.openings.current(&self.seals);
        let current = current.map(|(at, _)| self.openings.all[at].env.root);
        if place == Position::Env && current != Some(root) { Fate::Stale } else { Fate::Duplicate }
    }

    /// Whether nothing that gossip says of this rank's frags counts.
    fn is_closed_to(&self, lead: u8) -> bool {
        self.settled.is_some() && self.handed.as_ref().is_some_and(|handed| handed.lead <= lead)
    }

    /// Why a message does not count whatever else comes.
    fn refused(
        &self,
        place: Position,
        index: u16,
        (signed, lead): (u8, u8),
        known: bool,
    ) -> Option<Fate> {
        if signed == 0 {
            let closed = self.is_closed_to(lead) && place != Position::Env && !known;
            return closed.then_some(Fate::Conflict);
        }
        if self.void & signed != 0 || self.openings.newest_signed() > Some(number_of(signed)) {
            return Some(Fate::Stale);
        }
        let has = |candidate: &Candidate| candidate.signed & signed != 0;
        let end = self.seals.iter().find(|seal| has(seal)).and_then(index_of);
        if end.is_some_and(|end| index > end) {
            return Some(Fate::BehindSeal);
        }
        let taken = match place {
            Position::Env => self.at(Position::Env).any(has),
            Position::Frag(_) => end == Some(index) || self.at(place).any(has),
            Position::Seal => self.seals.iter().any(has) || self.at(Position::Frag(index)).any(has),
        };
        taken.then_some(Fate::Conflict)
    }

    /// Notes that a known message came again, and keeps it again if it was dropped and is `wanted`
    /// now; says whether that changes anything.
    fn learn(
        &mut self,
        delivered: Arc<Delivered>,
        place: Position,
        signed: u8,
        wanted: bool,
    ) -> bool {
        let mut held = self.held;
        let lead = delivered.rank;
        let Some(candidate) = self.find(place, delivered.message.root()) else { return false };
        let was = (candidate.signed, candidate.gossip, candidate.delivered.is_some());
        let was_of = candidate.lead;
        candidate.signed |= signed;
        candidate.gossip |= signed == 0;
        // A substitute has signed the same: from now on it is his who comes before.
        candidate.lead = was_of.min(lead);
        if lead < was_of && candidate.delivered.is_some() {
            candidate.delivered = Some(Arc::clone(&delivered));
        }
        if candidate.delivered.is_none() && wanted {
            candidate.delivered = Some(delivered);
            held.add(candidate);
        }
        let new = lead < was_of
            || was != (candidate.signed, candidate.gossip, candidate.delivered.is_some());
        self.held = held;
        self.attempts |= signed;
        if signed != 0 && wanted && place == Position::Env {
            self.forget_below(number_of(signed));
        }
        new
    }

    /// Adds an unknown message, whole or only its root.
    fn insert(
        &mut self,
        delivered: &Arc<Delivered>,
        place: Position,
        signed: u8,
        whole: bool,
    ) -> Fate {
        let lead = delivered.rank;
        let has_room = match self.substituted.get(usize::from(lead)) {
            Some(of_rank) => lead == 0 || *of_rank < MAX_SUBSTITUTED,
            None => false,
        };
        if self.count >= MAX_MESSAGES || !has_room {
            return Fate::OutOfBounds;
        }
        if signed == 0 && !self.make_room(place, lead) {
            return Fate::Conflict;
        }
        self.substituted[usize::from(lead)] += usize::from(lead > 0);
        let candidate = Candidate {
            root: delivered.message.root(),
            delivered: whole.then(|| Arc::clone(delivered)),
            signed,
            gossip: signed == 0,
            lead,
            rank: self.ranks,
            kept: false,
        };
        self.ranks += 1;
        self.count += 1;
        self.held.add(&candidate);
        self.attempts |= signed;
        self.guessed |= signed == 0;
        match delivered.message.message() {
            Message::Env(env) => {
                let (parent_hash, gas_limit) = (env.parent_hash, env.gas_limit);
                self.openings.all.push(Opening { env: candidate, parent_hash, gas_limit });
                if signed != 0 && whole {
                    self.forget_below(number_of(signed));
                }
            }
            Message::Frag(_) => {
                let index = delivered.key.message;
                let behind = self.seals.iter().any(|seal| index_of(seal) <= Some(index));
                let all = self.frags.entry(index).or_default();
                all.push(candidate);
                self.contested |= all.len() > 1 || behind;
            }
            Message::Seal(_) => {
                self.seals.push(candidate);
                let behind = self.frags.range(delivered.key.message..).next().is_some();
                self.contested |= self.seals.len() > 1 || behind;
                if signed != 0 && whole {
                    // What was sent beyond the end that its own Seal gives the block never counts.
                    let end = delivered.key.message;
                    self.release(|c| {
                        c.signed == signed
                            && !c.gossip
                            && c.delivered.as_ref().is_some_and(|d| d.key.message > end)
                    });
                }
            }
        }
        Fate::Waiting
    }

    /// Makes room for one more candidate of gossip's of this rank.
    fn make_room(&mut self, place: Position, lead: u8) -> bool {
        let handed = self.handed.as_ref().map_or(&[][..], |handed| &handed.roots);
        let all = match place {
            Position::Env => return self.openings.unsigned(lead) < MAX_UNSIGNED,
            Position::Frag(index) => match self.frags.get_mut(&index) {
                Some(all) => all,
                None => return true,
            },
            Position::Seal => &mut self.seals,
        };
        let unsigned = |c: &Candidate| c.signed == 0 && c.lead == lead;
        if all.iter().filter(|c| unsigned(c)).count() < MAX_CANDIDATES {
            return true;
        }
        let oldest = all.iter().position(|c| unsigned(c) && !handed.contains(&c.root));
        if let Some(oldest) = oldest {
            self.held.sub(&all.remove(oldest));
            self.count -= 1;
        }
        oldest.is_some()
    }

    /// An attempt of the overlay has taken over: messages of lower ones do not wait any more. They
    /// are kept, because a frag may be the same in both, and gossip brings it once.
    fn forget_below(&mut self, number: u8) {
        let below = bit(number) - 1;
        let mut held = self.held;
        let gone = |c: &&mut Candidate| c.signed != 0 && c.signed & !below == 0 && !c.kept;
        for candidate in self.all().filter(gone) {
            held.sub(candidate);
            candidate.kept = true;
            held.add(candidate);
        }
        self.held = held;
    }

    /// The fate of a message that is known now and was not handed on.
    fn fate_of(&self, place: Position, index: u16) -> Fate {
        let Some(handed) = &self.handed else { return Fate::Waiting };
        match place {
            Position::Frag(_) if usize::from(index) < handed.roots.len() => Fate::Conflict,
            Position::Frag(_) if handed.sealed => Fate::BehindSeal,
            Position::Seal if handed.sealed => Fate::Conflict,
            _ => Fate::Waiting,
        }
    }

    /// Voids an attempt of the overlay.
    pub(super) fn bad_parity(&mut self, number: u8, out: &mut Vec<Output>) {
        self.void |= bit(number);
        self.release(|c| c.signed == bit(number) && !c.gossip);
        self.settle(out);
    }

    /// The opening that counts.
    fn view(&mut self, out: &mut Vec<Output>) -> Option<View> {
        let (mut at, mut number) = self.openings.current(&self.seals)?;
        let is_handed = |handed: &Handed| handed.roots[0] == self.openings.all[at].env.root;
        if self.void & bit(number) != 0 {
            if self.handed.as_ref().is_some_and(is_handed) {
                self.retract(RetractReason::BadParity, out);
            }
            // Void before anything of it was handed on: what was there before stays.
            let handed = self.handed.as_ref()?;
            at = self.openings.all.iter().position(|o| o.env.root == handed.roots[0])?;
            number = self.openings.all[at].env.signed.checked_ilog2().unwrap_or(0) as u8;
        }
        let env = &self.openings.all[at].env;
        Some(View {
            at,
            number,
            env: env.root,
            lead: env.lead,
            rank: env.rank,
            lone: self.openings.is_lone(env.lead) && number == self.openings.first_of(env.lead),
            strict: self.last >= Some(MAX_ATTEMPTS),
            certain: self.last >= Some(MAX_GUESSED),
            reorder: self.next_number(number) < MAX_ATTEMPTS && !self.is_sealed(),
        })
    }

    fn next_number(&self, number: u8) -> u8 {
        self.last.map_or(number, |last| number.max(last + 1))
    }

    fn retract(&mut self, reason: RetractReason, out: &mut Vec<Output>) {
        if let Some(handed) = self.handed.take() {
            out.push(Output::Retracted { block: self.number, attempt: handed.number, reason });
        }
        self.settled = None;
    }

    fn settle(&mut self, out: &mut Vec<Output>) {
        let Some(view) = self.view(out) else { return };
        let plain = self.openings.all.len() == 1
            && !self.contested
            && !self.mixed
            && self.attempts & !bit(view.number) == 0
            && (view.lone || !self.guessed);
        let handed = self.handed.as_ref().map(|handed| handed.roots[0]);
        let is_settled = self.settled == Some(view.number) && self.is_closed_to(view.lead);
        if is_settled && handed == Some(view.env) {
            return;
        }
        if plain && handed.is_none_or(|env| env == view.env) {
            self.extend(&view, out);
        } else {
            let wanted = self.wanted(&view);
            self.reconcile(&view, &wanted, out);
        }
        self.close(&view);
    }

    /// The plain case, one opening and one message for each place: hands on what comes next.
    fn extend(&mut self, view: &View, out: &mut Vec<Output>) {
        if self.handed.is_none() && !self.start(view, out) {
            return;
        }
        loop {
            let Some(handed) = &self.handed else { return };
            if handed.sealed {
                return;
            }
            let next = handed.roots.len() as u16;
            let seal = self.seals.first().filter(|seal| index_of(seal) == Some(next));
            let (place, root) = match (seal, self.preferred(view, next)) {
                (Some(seal), _) => (Position::Seal, seal.root),
                (None, Some(frag)) => (Position::Frag(next), frag.root),
                (None, None) => return,
            };
            if !self.hand_on(place, root, out) {
                return;
            }
        }
    }

    /// Hands on the Env under the next number.
    fn start(&mut self, view: &View, out: &mut Vec<Output>) -> bool {
        let number = self.next_number(view.number);
        if number >= MAX_NUMBERS || self.openings.all[view.at].env.delivered.is_none() {
            return false;
        }
        self.handed = Some(Handed { number, lead: view.lead, roots: Vec::new(), sealed: false });
        self.last = Some(number);
        self.hand_on(Position::Env, view.env, out)
    }

    /// Hands on one message as the next.
    fn hand_on(&mut self, place: Position, root: B256, out: &mut Vec<Output>) -> bool {
        let Some(number) = self.handed.as_ref().map(|handed| handed.number) else { return false };
        let mut held = self.held;
        let Some(candidate) = self.find(place, root) else { return false };
        let Some(delivered) = candidate.delivered.clone() else { return false };
        held.sub(candidate);
        candidate.kept = true;
        held.add(candidate);
        self.held = held;
        if let Some(handed) = &mut self.handed {
            handed.roots.push(root);
            handed.sealed |= place == Position::Seal;
        }
        out.push(Output::Message(numbered(delivered, number)));
        true
    }

    /// Hands on the wanted messages, after a retraction if others were handed on.
    fn reconcile(&mut self, view: &View, wanted: &[(Position, B256)], out: &mut Vec<Output>) {
        if let Some(handed) = &self.handed {
            let common = handed.roots.iter().zip(wanted).take_while(|(a, (_, b))| *a == b).count();
            if common < handed.roots.len() && common < wanted.len() {
                let next = self.next_number(view.number);
                let here = wanted.iter().all(|(place, root)| {
                    self.at(*place).any(|c| c.root == *root && c.delivered.is_some())
                });
                // What the overlay says: the Env, or else the first that differs.
                let (place, root) = wanted[common];
                let certain = self.at(place).any(|c| c.root == root && c.is_of(view.number));
                let limit = match view.lead {
                    _ if certain => MAX_NUMBERS,
                    0 => MAX_GUESSED,
                    // Whatever substitutes send, some are left for the scheduled gateway.
                    _ => MAX_ATTEMPTS,
                };
                if next >= limit || !here {
                    return;
                }
                let reason = match common {
                    0 => RetractReason::Superseded { by: next },
                    _ => RetractReason::Reordered,
                };
                self.retract(reason, out);
            }
        }
        if self.handed.is_none() && !self.start(view, out) {
            return;
        }
        let done = self.handed.as_ref().map_or(0, |handed| handed.roots.len());
        for (place, root) in wanted.iter().skip(done) {
            if !self.hand_on(*place, *root, out) {
                return;
            }
        }
    }

    /// Drops what cannot change any more: all of it was handed on, and the overlay confirms it.
    fn close(&mut self, view: &View) {
        let Some(handed) =
            self.handed.as_ref().filter(|h| h.sealed && self.settled != Some(view.number))
        else {
            return;
        };
        if handed.roots[0] != view.env || !self.openings.all[view.at].env.is_of(view.number) {
            return;
        }
        let last = handed.roots.len() - 1;
        let signed = handed.roots.iter().enumerate().skip(1).all(|(index, root)| {
            let place = if index == last { Position::Seal } else { Position::Frag(index as u16) };
            self.at(place).any(|c| c.root == *root && c.is_of(view.number))
        });
        if signed {
            self.settled = Some(view.number);
            // Those of higher attempts, and of gateways that come before, wait for their Env.
            let above = !(bit(view.number) | (bit(view.number) - 1));
            self.release(|c| c.signed & above == 0 && c.lead >= view.lead);
            self.proofs.clear();
            self.failed.clear();
        }
    }
}

/// The attempt of one bit.
fn number_of(signed: u8) -> u8 {
    signed.trailing_zeros() as u8
}

/// A Seal's message index, while it is here.
fn index_of(seal: &Candidate) -> Option<u16> {
    seal.delivered.as_ref().map(|delivered| delivered.key.message)
}
