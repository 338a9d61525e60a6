//! What a node remembers of each peer, by key.
//!
//! Eight bytes for each slot of the table, of which there are at most
//! [`MAX_PEERS`](crate::peer::MAX_PEERS), and 48 more for each that
//! has gone by another table, 48 for each whose list of gateways has changed, and 32 for each whose
//! frames have cost something lately. A key that is not, or no longer, that of a peer is nobody's:
//! whatever comes from it is refused.
//!
//! # Work
//! A control frame that says nothing new is work for nothing. So each peer has a budget of
//! [`WORK`] for those; while it is spent its control frames are not looked at, and who sends
//! [`STRIKES`] of them in that state is barred. Honest peers send a hundredth of it.
//!
//! # Classes
//! A peer is a *member* if a living epoch names it; a *contact* if this node calls it though none
//! does; a *guest* if it is connected otherwise: it has called, or was a member. A contact can be
//! asked like a member, since this node has chosen it. A guest is asked for nothing but its own
//! record, is counted nowhere, and has a tenth of a member's budget for useless frames, and a share
//! of what all guests have together, [`GUESTS_WORK`]. While that is spent frames of guests are passed
//! over and charged to their senders alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::bucket::{Bucket, Rate};
use crate::control::Difference;
use crate::peer::{PeerId, PeerKey, PeerTable};
use crate::time::Timestamp;

/// Microseconds of work that a peer's useless frames may cause, a second and at once.
const WORK: (u64, u64) = (10_000, 100_000);
/// The same of a guest, and of all guests together.
const GUEST_WORK: (u64, u64) = (1_000, 20_000);
const GUESTS_WORK: (u64, u64) = (20_000, 100_000);
/// Frames that come though the budget is spent, a second and at once.
const STRIKES: (u64, u64) = (10, 2_000);
/// Accounts from which on those are looked for that are settled.
const MANY_ACCOUNTS: usize = 64;

/// Which table a peer's last greeting named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Greeting {
    /// It has not greeted.
    #[default]
    None,
    /// Our newest.
    Ours,
    /// Another one.
    Other,
}

/// What a peer is to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Class {
    /// A living epoch names it; or it is this node itself.
    #[default]
    Member,
    /// This node calls it.
    Contact,
    /// It has called.
    Guest,
}

#[derive(Debug, Clone, Copy, Default)]
struct PeerState {
    class: Class,
    connected: bool,
    greeting: Greeting,
    barred: bool,
    /// In what its last terms differ from ours, one bit each.
    terms: u8,
    /// Its last greeting named another chain.
    foreign: bool,
    /// The number of its dialect, if it has told its terms.
    dialect: Option<u8>,
}

/// A peer that goes, or has gone, by another table.
#[derive(Debug, Clone, Copy, Default)]
struct Elsewhere {
    /// The table that it named last, if its greeting is [`Greeting::Other`].
    table: [u8; 32],
    /// It has changed its table since we changed ours, and was told of it.
    changed: bool,
}

/// Since when a peer goes by a rotation of gateways.
#[derive(Debug, Clone, Copy)]
struct GoesBy {
    from_block: u64,
    rotation: [u8; 32],
}

/// What a peer's frames have cost lately.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    /// Of [`WORK`].
    work: Bucket,
    /// Of [`STRIKES`].
    strikes: Bucket,
}

/// The peers of one node.
#[derive(Debug)]
pub(super) struct Peers {
    me: PeerKey,
    table: Arc<PeerTable>,
    /// By slot.
    states: Vec<PeerState>,
    /// Connected peers but guests.
    connected: usize,
    /// Guests, connected or about to be, and contacts, connected or not.
    guests: usize,
    contacts: usize,
    /// Hash of our newest membership table.
    ours: [u8; 32],
    elsewhere: BTreeMap<PeerKey, Elsewhere>,
    /// Of those whose newest epoch is not their first.
    goes_by: BTreeMap<PeerKey, GoesBy>,
    accounts: BTreeMap<PeerKey, Account>,
    /// Accounts at which those that are settled are dropped next.
    sweep_at: usize,
    work: Rate,
    work_of_guest: Rate,
    work_of_guests: Rate,
    /// What all guests have used of [`GUESTS_WORK`].
    guests_work: Bucket,
    strikes: Rate,
}

impl Peers {
    /// The peers of `table`, none of them connected.
    pub(super) fn new(me: PeerKey, table: Arc<PeerTable>, ours: [u8; 32]) -> Self {
        let states = vec![PeerState::default(); table.slots()];
        let each_second = |(units, burst)| Rate::new(units, Duration::from_secs(1), burst);
        Self {
            me,
            table,
            states,
            connected: 0,
            guests: 0,
            contacts: 0,
            ours,
            elsewhere: BTreeMap::new(),
            goes_by: BTreeMap::new(),
            accounts: BTreeMap::new(),
            sweep_at: MANY_ACCOUNTS,
            work: each_second(WORK),
            work_of_guest: each_second(GUEST_WORK),
            work_of_guests: each_second(GUESTS_WORK),
            guests_work: Bucket::default(),
            strikes: each_second(STRIKES),
        }
    }

    /// This node.
    pub(super) const fn me(&self) -> PeerKey {
        self.me
    }

    /// Keys and ids.
    pub(super) const fn table(&self) -> &Arc<PeerTable> {
        &self.table
    }

    /// Whether a key is that of a peer.
    pub(super) fn contains(&self, peer: PeerKey) -> bool {
        self.table.peer(peer).is_some()
    }

    /// How many peers there are but guests and contacts, connected or not, this node included.
    pub(super) fn len(&self) -> usize {
        self.table.len() - self.guests - self.contacts
    }

    /// What a peer is to this node.
    pub(super) fn class(&self, peer: PeerKey) -> Class {
        self.states.get(peer.slot()).map_or(Class::Member, |state| state.class)
    }

    /// Whether a peer is a guest.
    pub(super) fn is_guest(&self, peer: PeerKey) -> bool {
        self.guests > 0 && self.class(peer) == Class::Guest
    }

    /// How many guests there are.
    pub(super) const fn guests(&self) -> usize {
        self.guests
    }

    /// How many contacts there are.
    pub(super) const fn contacts(&self) -> usize {
        self.contacts
    }

    /// Changes what a peer is to this node.
    pub(super) fn set_class(&mut self, peer: PeerKey, class: Class) {
        if !self.contains(peer) {
            return;
        }
        let state = &mut self.states[peer.slot()];
        let before = std::mem::replace(&mut state.class, class);
        let counts = |of: Class| usize::from(of != Class::Guest && state.connected);
        self.connected = self.connected - counts(before) + counts(class);
        for (of, count) in [(Class::Guest, &mut self.guests), (Class::Contact, &mut self.contacts)]
        {
            *count = *count - usize::from(before == of) + usize::from(class == of);
        }
    }

    /// How many are connected, guests aside.
    pub(super) const fn connected(&self) -> usize {
        self.connected
    }

    /// How many of those go by another table.
    pub(super) fn elsewhere(&self) -> usize {
        let other = |state: &PeerState| state.connected && state.greeting == Greeting::Other;
        self.elsewhere.keys().filter(|peer| other(&self.states[peer.slot()])).count()
    }

    /// Whether a connection to a peer is up.
    pub(super) fn is_connected(&self, peer: PeerKey) -> bool {
        self.states.get(peer.slot()).is_some_and(|state| state.connected)
    }

    /// Whether nothing is taken from `peer`: it is barred, or nobody.
    pub(super) fn is_refused(&self, peer: PeerKey) -> bool {
        !self.contains(peer) || self.states[peer.slot()].barred
    }

    /// Whether a peer can be asked anything.
    pub(super) fn can_ask(&self, peer: PeerKey) -> bool {
        let state = self.states.get(peer.slot());
        let fits = |s: &PeerState| s.connected && !s.barred && s.class != Class::Guest;
        peer != self.me && state.is_some_and(fits)
    }

    /// Those that are connected, by slot, guests aside.
    pub(super) fn iter_connected(&self) -> impl Iterator<Item = PeerKey> + '_ {
        self.iter_where(|state| state.connected && state.class != Class::Guest)
    }

    /// Those that are connected, guests included.
    pub(super) fn iter_everybody(&self) -> impl Iterator<Item = PeerKey> + '_ {
        self.iter_where(|state| state.connected)
    }

    fn iter_where<'a>(
        &'a self,
        fits: impl Fn(&PeerState) -> bool + 'a,
    ) -> impl Iterator<Item = PeerKey> + 'a {
        let fitting = self.states.iter().enumerate().filter(move |(_, state)| fits(state));
        fitting.filter_map(|(slot, _)| self.table.at(slot))
    }

    /// A connection is up and has been for long: both sides have greeted.
    pub(super) fn assume_connected(&mut self, peer: PeerKey) {
        if self.contains(peer) {
            let state = &mut self.states[peer.slot()];
            let class = state.class;
            self.connected += usize::from(!state.connected && class != Class::Guest);
            let greeting = Greeting::Ours;
            *state = PeerState { class, connected: true, greeting, ..PeerState::default() };
        }
    }

    /// A connection is up. Says whether `peer` is one.
    pub(super) fn connect(&mut self, peer: PeerKey) -> bool {
        if !self.contains(peer) {
            return false;
        }
        let state = &mut self.states[peer.slot()];
        let class = state.class;
        self.connected += usize::from(!state.connected && class != Class::Guest);
        // A second connection of the same peer changes nothing of what is known about it.
        if !state.connected {
            *state = PeerState { class, connected: true, ..PeerState::default() };
        }
        true
    }

    /// The connection is gone.
    pub(super) fn disconnect(&mut self, peer: PeerKey) {
        if self.contains(peer) {
            let state = &mut self.states[peer.slot()];
            self.connected -= usize::from(state.connected && state.class != Class::Guest);
            state.connected = false;
        }
    }

    /// A peer greets and names its table. Says whether it named another one before; once for each
    /// table of ours, since more is told to who has changed.
    pub(super) fn greet(&mut self, peer: PeerKey, table: [u8; 32]) -> bool {
        let before = self.elsewhere.get(&peer).map(|known| known.table);
        let state = &mut self.states[peer.slot()];
        let differs = match state.greeting {
            Greeting::None => false,
            Greeting::Ours => table != self.ours,
            Greeting::Other => before != Some(table),
        };
        if table != self.ours {
            state.greeting = Greeting::Other;
            // Its account stays: who greets again and again gains nothing.
            self.elsewhere.entry(peer).or_default().table = table;
        } else {
            state.greeting = Greeting::Ours;
        }
        let known = self.elsewhere.get_mut(&peer).filter(|_| differs);
        known.is_some_and(|known| !std::mem::replace(&mut known.changed, true))
    }

    /// Our newest table is another one from now on, and so are, perhaps, the peers.
    pub(super) fn set_table(&mut self, table: Arc<PeerTable>, ours: [u8; 32]) {
        self.set_keys(table);
        let before = std::mem::replace(&mut self.ours, ours);
        if before == ours {
            return;
        }
        self.elsewhere.values_mut().for_each(|known| known.changed = false);
        for (slot, state) in self.states.iter_mut().enumerate() {
            if state.greeting == Greeting::Ours
                && let Some(peer) = self.table.at(slot)
            {
                state.greeting = Greeting::Other;
                self.elsewhere.entry(peer).or_default().table = before;
            }
        }
        for peer in self.elsewhere.iter().filter(|(_, e)| e.table == ours).map(|(peer, _)| peer) {
            let greeting = &mut self.states[peer.slot()].greeting;
            if *greeting == Greeting::Other {
                *greeting = Greeting::Ours;
            }
        }
    }

    /// The peers are others from now on: guests or contacts have come or gone.
    pub(super) fn set_keys(&mut self, table: Arc<PeerTable>) {
        self.states.resize(table.slots(), PeerState::default());
        self.table = table;
    }

    /// A peer that no epoch names any more: nothing is remembered of it.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.set_class(peer, Class::Member);
        self.disconnect(peer);
        if let Some(state) = self.states.get_mut(peer.slot()) {
            *state = PeerState::default();
        }
        self.elsewhere.remove(&peer);
        self.goes_by.remove(&peer);
        self.accounts.remove(&peer);
    }

    /// Whether a peer's last greeting names another table than our newest.
    pub(super) fn is_elsewhere(&self, peer: PeerKey) -> bool {
        self.states.get(peer.slot()).is_some_and(|state| state.greeting == Greeting::Other)
    }

    /// The table that the last greeting of a connected peer named, if it has greeted.
    pub(super) fn table_of(&self, peer: PeerKey) -> Option<[u8; 32]> {
        match self.states.get(peer.slot())?.greeting {
            Greeting::None => None,
            Greeting::Ours => Some(self.ours),
            Greeting::Other => self.elsewhere.get(&peer).map(|known| known.table),
        }
    }

    /// A peer's greeting names our chain, or another; says whether that it is another is news.
    pub(super) fn foreign(&mut self, peer: PeerKey, foreign: bool) -> bool {
        if !self.contains(peer) {
            return false;
        }
        let known = std::mem::replace(&mut self.states[peer.slot()].foreign, foreign);
        foreign && !known
    }

    /// A peer has told the number of its dialect.
    pub(super) fn speaks(&mut self, peer: PeerKey, dialect: u8) {
        if self.contains(peer) {
            self.states[peer.slot()].dialect = Some(dialect);
        }
    }

    /// The number of the dialect that a peer has told to be its own.
    pub(super) fn dialect(&self, peer: PeerKey) -> Option<u8> {
        self.states.get(peer.slot())?.dialect
    }

    /// A peer has told from which block on it goes by a rotation, its newest.
    pub(super) fn goes_by(&mut self, peer: PeerKey, from_block: u64, rotation: [u8; 32]) {
        if !self.contains(peer) {
            return;
        }
        match from_block {
            // What a network starts with is no change.
            0 => drop(self.goes_by.remove(&peer)),
            _ => drop(self.goes_by.insert(peer, GoesBy { from_block, rotation })),
        }
    }

    /// The connected peers that go by a rotation, each with its first block of it.
    pub(super) fn going_by(&self, rotation: [u8; 32]) -> impl Iterator<Item = (PeerKey, u64)> {
        let all = self.goes_by.iter().filter(move |(_, told)| told.rotation == rotation);
        all.filter(|(peer, _)| self.can_ask(**peer)).map(|(peer, told)| (*peer, told.from_block))
    }

    /// A peer has told its terms, which differ in this; says whether that is news.
    pub(super) fn agree(&mut self, peer: PeerKey, differences: &[Difference]) -> bool {
        if !self.contains(peer) {
            return false;
        }
        let bit = |difference: &Difference| match difference {
            Difference::ChainId { .. } => 1,
            Difference::Dialect { .. } => 2,
            Difference::BlocksPerTerm { .. } => 4,
            Difference::Gateways { .. } => 8,
            Difference::Clock { .. } => 16,
        };
        let told = differences.iter().map(bit).sum();
        std::mem::replace(&mut self.states[peer.slot()].terms, told) != told
    }

    /// Takes nothing more of a peer. Says whether anything was taken before.
    pub(super) fn bar(&mut self, peer: PeerKey) -> bool {
        self.contains(peer) && !std::mem::replace(&mut self.states[peer.slot()].barred, true)
    }

    /// A control frame was so many microseconds of work for nothing.
    pub(super) fn charge(&mut self, now: Timestamp, peer: PeerKey, micros: u64) {
        if self.is_guest(peer) {
            self.guests_work.charge_within(now, &self.work_of_guests, micros);
        }
        self.charge_alone(now, peer, micros);
    }

    /// The same of a guest's frame that was passed over since the budget of all guests is spent: its
    /// sender alone pays, or that budget would stay spent for as long as anybody sends.
    pub(super) fn charge_alone(&mut self, now: Timestamp, peer: PeerKey, micros: u64) {
        if micros == 0 || !self.contains(peer) {
            return;
        }
        if self.accounts.len() >= self.sweep_at {
            self.accounts.retain(|_, account| !account.work.is_full(now));
            self.sweep_at = MANY_ACCOUNTS.max(2 * self.accounts.len());
        }
        let rate = if self.is_guest(peer) { &self.work_of_guest } else { &self.work };
        self.accounts.entry(peer).or_default().work.charge(now, rate, micros);
    }

    /// Whether a peer's budget is spent, so that its frames are not looked at.
    pub(super) fn is_spent(&self, now: Timestamp, peer: PeerKey) -> bool {
        let rate = if self.is_guest(peer) { &self.work_of_guest } else { &self.work };
        self.accounts.get(&peer).is_some_and(|account| {
            let mut work = account.work;
            !work.take(now, rate, 1)
        })
    }

    /// Whether the budget that guests have together is spent.
    pub(super) fn are_guests_spent(&self, now: Timestamp) -> bool {
        let mut work = self.guests_work;
        !work.take(now, &self.work_of_guests, 1)
    }

    /// A frame came from a peer whose budget is spent. Says whether it goes too far.
    pub(super) fn strike(&mut self, now: Timestamp, peer: PeerKey) -> bool {
        let account = self.accounts.get_mut(&peer);
        account.is_some_and(|account| !account.strikes.charge(now, &self.strikes, 1))
    }

    /// The id behind a key.
    pub(super) fn id(&self, peer: PeerKey) -> Option<PeerId> {
        self.table.peer(peer)
    }
}

#[cfg(test)]
mod tests;
