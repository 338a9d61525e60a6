//! What a node remembers of each peer, by key.
//!
//! Six bytes a peer, at most [`MAX_PEERS`](crate::peer::MAX_PEERS), and 56 more for each that
//! has gone by another table. A key that is not, or no longer, that of a peer is nobody's: whatever
//! comes from it is refused.
//!
//! # Whom a bad signature convicts
//! A shred that the leader's key does not cover was made, or forwarded without a look, by the
//! peer that sent it. Two things are excused, because the peer may know a leader that this node
//! does not:
//!
//! * what comes before its greeting, which may carry the delegation, and what names a plan that
//!   this node does not know for the block: [`MAX_EARLY`] times;
//! * what comes from a peer whose last greeting names another table than our newest, for blocks
//!   from our newest epoch on: it may have taken an epoch that we have not, or the reverse. So
//!   many of its signatures are checked, [`OTHER_TABLE`] a second; beyond that, shreds of those
//!   blocks are dropped unseen, and repair brings what was lost with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::bucket::{Bucket, Rate};
use crate::control::Difference;
use crate::outcome::Outcome;
use crate::peer::{PeerId, PeerKey, PeerTable};
use crate::time::Timestamp;

/// Bad signatures of a peer that are excused, over all its connections: datagrams may overtake
/// the greeting that explains them.
pub(super) const MAX_EARLY: u8 = 64;
/// Bad signatures of a peer that goes by another table, a second and at once: each is 50 µs of
/// work.
const OTHER_TABLE: (u64, u64) = (32, 64);

/// Why a bad signature may be nobody's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Doubt {
    /// It is about a block of our newest epoch: there may be a newer one.
    pub(super) newest: bool,
    /// It names a plan that is not known for its block.
    pub(super) plan: bool,
}

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

#[derive(Debug, Clone, Copy, Default)]
struct PeerState {
    connected: bool,
    greeting: Greeting,
    barred: bool,
    /// Bad signatures that were excused, see [`MAX_EARLY`].
    early: u8,
    /// In what its last terms differ from ours, one bit each.
    terms: u8,
    /// Its last greeting named another chain.
    foreign: bool,
}

/// A peer that goes, or has gone, by another table.
#[derive(Debug, Clone, Copy, Default)]
struct Elsewhere {
    /// The table that it named last, if its greeting is [`Greeting::Other`].
    table: [u8; 32],
    /// What its bad signatures so far have taken of [`OTHER_TABLE`].
    bad: Bucket,
    /// It has changed its table since we changed ours, and was told of it.
    changed: bool,
}

/// The peers of one node.
#[derive(Debug)]
pub(super) struct Peers {
    me: PeerKey,
    table: Arc<PeerTable>,
    /// By slot.
    states: Vec<PeerState>,
    connected: usize,
    /// Hash of our newest membership table.
    ours: [u8; 32],
    elsewhere: BTreeMap<PeerKey, Elsewhere>,
    rate: Rate,
}

impl Peers {
    /// The peers of `table`, none of them connected.
    pub(super) fn new(me: PeerKey, table: Arc<PeerTable>, ours: [u8; 32]) -> Self {
        let states = vec![PeerState::default(); table.slots()];
        let rate = Rate::new(OTHER_TABLE.0, Duration::from_secs(1), OTHER_TABLE.1);
        Self { me, table, states, connected: 0, ours, elsewhere: BTreeMap::new(), rate }
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

    /// How many peers there are, connected or not, this node included.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// How many are connected.
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
        peer != self.me && state.is_some_and(|state| state.connected && !state.barred)
    }

    /// Those that are connected, by slot.
    pub(super) fn iter_connected(&self) -> impl Iterator<Item = PeerKey> + '_ {
        let connected = self.states.iter().enumerate().filter(|(_, state)| state.connected);
        connected.filter_map(|(slot, _)| self.table.at(slot))
    }

    /// A connection is up and has been for long: both sides have greeted.
    pub(super) fn assume_connected(&mut self, peer: PeerKey) {
        if self.contains(peer) {
            let state = &mut self.states[peer.slot()];
            self.connected += usize::from(!state.connected);
            *state =
                PeerState { connected: true, greeting: Greeting::Ours, ..PeerState::default() };
        }
    }

    /// A connection is up. Says whether `peer` is one.
    pub(super) fn connect(&mut self, peer: PeerKey) -> bool {
        if !self.contains(peer) {
            return false;
        }
        let state = &mut self.states[peer.slot()];
        self.connected += usize::from(!state.connected);
        // A second connection of the same peer changes nothing of what is known about it.
        if !state.connected {
            *state = PeerState { connected: true, early: state.early, ..PeerState::default() };
        }
        true
    }

    /// The connection is gone.
    pub(super) fn disconnect(&mut self, peer: PeerKey) {
        if self.contains(peer) {
            let state = &mut self.states[peer.slot()];
            self.connected -= usize::from(state.connected);
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
        self.states.resize(table.slots(), PeerState::default());
        self.table = table;
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

    /// A peer that no epoch names any more: nothing is remembered of it.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.disconnect(peer);
        if let Some(state) = self.states.get_mut(peer.slot()) {
            *state = PeerState::default();
        }
        self.elsewhere.remove(&peer);
    }

    /// Whether shreds of the newest epoch's blocks are not even looked at, because their sender
    /// goes by another table and too many of its signatures were bad.
    pub(super) fn is_muted(&self, now: Timestamp, peer: PeerKey) -> bool {
        let other = self.states.get(peer.slot()).is_some_and(|s| s.greeting == Greeting::Other);
        let spent = |known: &Elsewhere| {
            let mut bad = known.bad;
            !bad.take(now, &self.rate, 1)
        };
        other && self.elsewhere.get(&peer).is_some_and(spent)
    }

    /// A peer's greeting names our chain, or another; says whether that it is another is news.
    pub(super) fn foreign(&mut self, peer: PeerKey, foreign: bool) -> bool {
        if !self.contains(peer) {
            return false;
        }
        let known = std::mem::replace(&mut self.states[peer.slot()].foreign, foreign);
        foreign && !known
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

    /// Judges a peer by what it sent. The outcome to be counted, and whether the peer is barred
    /// for it, now.
    pub(super) fn judge(
        &mut self,
        now: Timestamp,
        peer: PeerKey,
        outcome: Outcome,
        doubt: Doubt,
    ) -> (Outcome, bool) {
        if !self.contains(peer) {
            return (outcome, false);
        }
        let state = &mut self.states[peer.slot()];
        if outcome == Outcome::BadSignature {
            if doubt.newest
                && state.greeting == Greeting::Other
                && let Some(known) = self.elsewhere.get_mut(&peer)
            {
                known.bad.charge(now, &self.rate, 1);
                return (Outcome::OtherTable, false);
            }
            if doubt.plan || state.greeting == Greeting::None {
                state.early = state.early.saturating_add(1);
                if state.early < MAX_EARLY {
                    return (outcome, false);
                }
            }
        }
        let bar = outcome.convicts_sender() && !state.barred;
        state.barred |= bar;
        (outcome, bar)
    }

    /// The id behind a key.
    pub(super) fn id(&self, peer: PeerKey) -> Option<PeerId> {
        self.table.peer(peer)
    }
}

#[cfg(test)]
mod tests;
