//! Tables of members, as this node learns of them: notices, parts that are on their way, parts that
//! others ask for, and what is to be looked at.
//!
//! The [rule](crate::tables) says who names a table and who takes it. A notice is passed on once by
//! everybody, like evidence. Where a leader has signed two for one block neither counts: the table
//! before stays, at everybody who learns of both before that block has begun. Who lacks the table makes it of its own
//! records, if they give the same hash, or asks for it: who told the notice, then others who greet
//! with its hash.
//!
//! # Bounds
//! [`MAX_NOTICED`] notices; [`MAX_FETCHES`] tables of 0.9 MB that are on their way, and as many as
//! epochs live that were encoded for others; budgets of [`MAX_BUDGETS`] peers, 16 bytes each; [`MAX_PROBES`] wishes to
//! call a newcomer, of 200 bytes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::ctx::Ctx;
use crate::bucket::{Bucket, Rate};
use crate::control::{
    Control, MAX_TABLE_PARTS, SignedTableNotice, TABLE_PART_LEN, TablePart, TableRequest,
};
use crate::egress::Lane;
use crate::epoch::MAX_EPOCHS;
use crate::outcome::Outcome;
use crate::peer::{PeerId, PeerKey};
use crate::tables::{self, Weights};
use crate::time::Timestamp;

/// Notices that are kept: of blocks that are to come, one a term.
const MAX_NOTICED: usize = 4;
/// Tables that are on their way at a time.
const MAX_FETCHES: usize = 2;
/// Tables that were refused and are not asked for again, 40 bytes each.
const MAX_REFUSED: usize = 16;
/// How long they are not.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// How long a table is not asked for again that nobody had.
const GIVEN_UP_FOR: Duration = Duration::from_secs(10);
/// Times that a peer is asked for a table, at most.
const MAX_TRIES: usize = 8;
/// A peer that has not answered for this long is asked no more.
const PATIENCE: Duration = Duration::from_secs(1);
/// Budgets of those who ask for tables.
const MAX_BUDGETS: usize = 4_096;
/// Parts that one peer is sent, a second and at once: a whole table.
const EACH: (u64, u64) = (16, MAX_TABLE_PARTS as u64);
/// Parts that all peers together are sent, a second and at once.
const ALL: (u64, u64) = (128, 8 * MAX_TABLE_PARTS as u64);
/// Parts that all guests together are sent.
const GUESTS: (u64, u64) = (32, 2 * MAX_TABLE_PARTS as u64);
/// Newcomers that are to be called, at a time.
const MAX_PROBES: usize = 64;

/// A newcomer that is to be called back: what it says of its address counts once a handshake with
/// its key succeeds there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Whose key has to answer.
    pub peer: PeerId,
    /// Where.
    pub addresses: Vec<SocketAddr>,
}

/// What this node knows of members who come and go, for its operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MembersState {
    /// Whether this node follows tables that leaders name.
    pub live: bool,
    /// Records that are alive.
    pub records: usize,
    /// Members of the newest table.
    pub members: usize,
    /// Its first block here.
    pub from_block: u64,
    /// Whether this node is one of them.
    pub is_member: bool,
    /// Tables that were taken.
    pub taken: u64,
    /// Tables that were named and not taken.
    pub refused: u64,
    /// Why the last of these was not taken.
    pub reason: Option<String>,
}

/// A notice that counts.
#[derive(Debug, Clone, Copy)]
struct Noticed {
    signed: SignedTableNotice,
    /// Its leader has signed another one as well.
    twice: bool,
}

/// A table on its way.
#[derive(Debug)]
pub(super) struct Fetch {
    table: [u8; 32],
    /// Its first block; `None`: as soon as it is here.
    from_block: Option<u64>,
    /// Who is asked, and since when for the next part.
    from: Option<PeerKey>,
    asked_at: Timestamp,
    tried: BTreeSet<PeerKey>,
    /// Who was turned to because it said that it goes by this table: once each.
    told: BTreeSet<PeerKey>,
    /// How often a peer was turned to, also the same one again.
    turns: usize,
    parts: Vec<Bytes>,
    of: Option<u16>,
}

/// What is to be done with a notice.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing; as what it is counted.
    Nothing(Outcome),
    /// It is the only one of its block so far.
    Counts,
    /// This one was here before, and contradicts it: neither counts.
    Contradicts(SignedTableNotice),
}

/// A step of a table on its way.
#[derive(Debug)]
pub(super) enum PartTaken {
    /// As what the part is counted.
    Done(Outcome),
    /// The table's bytes are here, with its hash and its first block.
    Whole { table: [u8; 32], from_block: Option<u64>, bytes: Vec<u8> },
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct TableBook {
    pub(super) weights: Option<Arc<Weights>>,
    /// The block at which they were read; 0 if at none.
    pub(super) weights_block: u64,
    /// By first block.
    noticed: BTreeMap<u64, Noticed>,
    fetches: Vec<Fetch>,
    /// Until when.
    refused: VecDeque<([u8; 32], Timestamp)>,
    /// The naming block of the last table that this node has named.
    pub(super) named: Option<u64>,
    /// When it is looked what is due.
    pub(super) look_at: Timestamp,
    /// When newcomers are called back again.
    pub(super) probe_at: Timestamp,
    /// A table that most peers go by and this node does not have, and since when.
    pub(super) elsewhere: Option<([u8; 32], Timestamp)>,
    /// Of the tables that live, the newest last.
    encoded: Vec<([u8; 32], Vec<Bytes>)>,
    each: BTreeMap<PeerKey, Bucket>,
    /// What members, and what guests, have been sent together.
    all: [Bucket; 2],
    pub(super) probes: VecDeque<Probe>,
    pub(super) state: MembersState,
}

fn rate((parts, burst): (u64, u64)) -> Rate {
    Rate::new(parts, Duration::from_secs(1), burst)
}

impl TableBook {
    /// Whether a notice may be new, which is asked before its signature.
    pub(super) fn may_count(&self, signed: &SignedTableNotice) -> bool {
        self.noticed
            .get(&signed.notice.from_block)
            .is_none_or(|known| known.signed != *signed && !known.twice)
    }

    /// Takes a notice whose signature and leader were checked.
    pub(super) fn note(&mut self, signed: SignedTableNotice) -> Heard {
        let from_block = signed.notice.from_block;
        if let Some(known) = self.noticed.get_mut(&from_block) {
            if known.signed.notice == signed.notice || known.twice {
                return Heard::Nothing(Outcome::TableOld);
            }
            known.twice = true;
            return Heard::Contradicts(known.signed);
        }
        if self.noticed.len() >= MAX_NOTICED {
            self.noticed.pop_first();
        }
        self.noticed.insert(from_block, Noticed { signed, twice: false });
        Heard::Counts
    }

    /// The first block of a table that was named.
    pub(super) fn first_block_of(&self, table: &[u8; 32]) -> Option<u64> {
        let counts = |known: &Noticed| known.signed.notice.table == *table && !known.twice;
        let of = self.noticed.iter().find(|(_, known)| counts(known));
        of.map(|(from_block, _)| *from_block)
    }

    /// First blocks and tables of the notices that count, of blocks above `head`.
    pub(super) fn noticed_above(&self, head: u64) -> Vec<(u64, [u8; 32])> {
        let above = self.noticed.range(head.saturating_add(1)..).filter(|(_, known)| !known.twice);
        above.map(|(from_block, known)| (*from_block, known.signed.notice.table)).collect()
    }

    /// What a peer is told whose connection is up: of blocks above `head`.
    pub(super) fn greeting(&self, head: Option<u64>) -> impl Iterator<Item = Control> + '_ {
        let above = self
            .noticed
            .values()
            .filter(move |known| head.is_none_or(|head| known.signed.notice.from_block > head));
        above.map(|known| Control::TableNotice(Box::new(known.signed)))
    }

    /// Whether a table was not taken lately.
    pub(super) fn is_refused(&self, now: Timestamp, table: &[u8; 32]) -> bool {
        let of = self.refused.iter().find(|(refused, _)| refused == table);
        of.is_some_and(|(_, until)| now < *until)
    }

    /// A table was not taken: it is not asked for again for a while. Who is connected may be others
    /// then, and what weighs what.
    pub(super) fn refuse(&mut self, now: Timestamp, table: [u8; 32], reason: String) {
        self.leave(table, now + REFUSED_FOR);
        self.state.refused += 1;
        self.state.reason = Some(reason);
    }

    /// A table is not asked for until then.
    fn leave(&mut self, table: [u8; 32], until: Timestamp) {
        self.refused.retain(|(refused, _)| *refused != table);
        if self.refused.len() >= MAX_REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back((table, until));
    }

    /// What was refused may be taken now: this node's weights are others.
    pub(super) fn forgive(&mut self) {
        self.refused.clear();
    }

    /// Begins to ask for a table, `from` first, unless it is on its way.
    pub(super) fn want(
        &mut self,
        ctx: &mut Ctx,
        table: [u8; 32],
        from_block: Option<u64>,
        from: Option<PeerKey>,
    ) {
        if let Some(fetch) = self.fetches.iter_mut().find(|fetch| fetch.table == table) {
            fetch.from_block = fetch.from_block.or(from_block);
            return;
        }
        if self.fetches.len() >= MAX_FETCHES {
            // Only what was just told of takes the place of what is on its way, or two tables that are
            // looked for again and again would keep each other from coming.
            if from.is_none() {
                return;
            }
            self.fetches.remove(0);
        }
        self.fetches.push(Fetch {
            table,
            from_block,
            from: None,
            asked_at: ctx.now,
            tried: BTreeSet::new(),
            told: BTreeSet::new(),
            turns: 0,
            parts: Vec::new(),
            of: None,
        });
        let fetch = self.fetches.last_mut().expect("pushed just now");
        fetch.turn_to(ctx, from);
    }

    /// Asks others for what has not come. Gives the first blocks of those that nobody has.
    pub(super) fn chase(&mut self, ctx: &mut Ctx) -> Vec<u64> {
        let (mut missing, mut given_up) = (Vec::new(), Vec::new());
        self.fetches.retain_mut(|fetch| {
            if ctx.now.since(fetch.asked_at) < PATIENCE {
                return true;
            }
            if fetch.turns >= MAX_TRIES {
                missing.push(fetch.from_block.unwrap_or(0));
                given_up.push(fetch.table);
                return false;
            }
            fetch.turn_to(ctx, None);
            true
        });
        given_up.into_iter().for_each(|table| self.leave(table, ctx.now + GIVEN_UP_FOR));
        missing
    }

    /// A peer goes by a table from now on. Who was asked for it before, or nobody, has not answered: a
    /// notice is passed on before the table is here.
    pub(super) fn is_at(&mut self, ctx: &mut Ctx, peer: PeerKey, table: &[u8; 32]) {
        let waits = |fetch: &&mut Fetch| {
            let asked = fetch.from.is_some_and(|from| from != peer);
            let again = fetch.told.contains(&peer) || fetch.turns >= MAX_TRIES;
            fetch.table == *table && fetch.parts.is_empty() && !asked && !again
        };
        if let Some(fetch) = self.fetches.iter_mut().find(waits) {
            fetch.told.insert(peer);
            fetch.tried.remove(&peer);
            fetch.turn_to(ctx, Some(peer));
        }
    }

    /// Takes a part that was asked for.
    pub(super) fn take_part(&mut self, ctx: &mut Ctx, from: PeerKey, part: TablePart) -> PartTaken {
        let asked = |fetch: &Fetch| {
            fetch.table == part.table
                && fetch.from == Some(from)
                && fetch.parts.len() == usize::from(part.part)
                && fetch.of.is_none_or(|of| of == part.of)
        };
        let Some(at) = self.fetches.iter().position(asked) else {
            return PartTaken::Done(Outcome::MembersUnasked);
        };
        let fetch = &mut self.fetches[at];
        fetch.of = Some(part.of);
        fetch.parts.push(part.bytes);
        if fetch.parts.len() < usize::from(part.of) {
            fetch.ask(ctx);
            return PartTaken::Done(Outcome::Control);
        }
        let Fetch { table, from_block, parts, .. } = self.fetches.remove(at);
        PartTaken::Whole { table, from_block, bytes: parts.concat() }
    }

    /// Whether a table is on its way.
    pub(super) fn is_wanted(&self, table: &[u8; 32]) -> bool {
        self.fetches.iter().any(|fetch| fetch.table == *table)
    }

    /// Answers who lacks a part of a table that lives here.
    pub(super) fn answer(&mut self, ctx: &mut Ctx, from: PeerKey, asked: &TableRequest) -> Outcome {
        if !ctx.peers.is_connected(from) {
            return Outcome::MembersRefused;
        }
        if usize::from(asked.part) >= MAX_TABLE_PARTS {
            return Outcome::MembersRefused;
        }
        // Before a table is encoded for it.
        let now = ctx.now;
        if self.each.len() >= MAX_BUDGETS {
            self.each.retain(|_, spent| !spent.is_full(now));
        }
        let guest = usize::from(ctx.peers.is_guest(from));
        if self.each.len() >= MAX_BUDGETS
            || !self.each.entry(from).or_default().take(now, &rate(EACH), 1)
            || !self.all[guest].take(now, &rate(if guest == 1 { GUESTS } else { ALL }), 1)
        {
            return Outcome::MembersRefused;
        }
        let known = |encoded: &&([u8; 32], Vec<Bytes>)| encoded.0 == asked.table;
        if !self.encoded.iter().any(|encoded| known(&encoded)) {
            let mut living = ctx.epochs.iter().map(|living| living.epoch().members());
            let Some(table) = living.find(|table| table.hash() == asked.table) else {
                return Outcome::MembersRefused;
            };
            let bytes = Bytes::from(tables::encode(table));
            let starts = (0..bytes.len()).step_by(TABLE_PART_LEN);
            let part = |start| bytes.slice(start..bytes.len().min(start + TABLE_PART_LEN));
            let parts: Vec<Bytes> = starts.map(part).collect();
            if parts.len() > MAX_TABLE_PARTS {
                // A table of a file may be longer than those that are spread.
                return Outcome::MembersRefused;
            }
            if self.encoded.len() >= MAX_EPOCHS {
                self.encoded.remove(0);
            }
            self.encoded.push((asked.table, parts));
        }
        let encoded = self.encoded.iter().find(known);
        let Some((table, parts)) = encoded else { return Outcome::MembersRefused };
        let Some(bytes) = parts.get(usize::from(asked.part)) else {
            return Outcome::MembersRefused;
        };
        let part = TablePart {
            table: *table,
            part: asked.part,
            of: parts.len() as u16,
            bytes: bytes.clone(),
        };
        ctx.counters.table_parts_answered += 1;
        ctx.send_control_in(Lane::Repair, from, &Control::TablePart(part));
        Outcome::Control
    }

    /// A connection, or a peer, is gone.
    pub(super) fn disconnected(&mut self, peer: PeerKey) {
        self.each.remove(&peer);
        for fetch in self.fetches.iter_mut().filter(|fetch| fetch.from == Some(peer)) {
            // Somebody else's turn, as soon as it is looked.
            (fetch.from, fetch.asked_at) = (None, Timestamp::default());
        }
    }

    /// Forgets notices of blocks that have begun long ago.
    pub(super) fn forget_below(&mut self, low: u64) {
        self.noticed.retain(|from_block, _| *from_block >= low);
    }

    /// Wishes to call newcomers.
    pub(super) fn probe(&mut self, probes: impl IntoIterator<Item = (PeerId, Vec<SocketAddr>)>) {
        let room = MAX_PROBES.saturating_sub(self.probes.len());
        let probes = probes.into_iter().map(|(peer, addresses)| Probe { peer, addresses });
        self.probes.extend(probes.take(room));
    }
}

impl Fetch {
    /// Asks another peer, from the first part on: `first`, or one that goes by this table, or any.
    fn turn_to(&mut self, ctx: &mut Ctx, first: Option<PeerKey>) {
        let peer = self.next(ctx, first).or_else(|| {
            // Nobody is left: those who were asked may have it by now.
            self.tried.clear();
            self.next(ctx, None)
        });
        self.parts.clear();
        self.of = None;
        self.from = peer;
        self.asked_at = ctx.now;
        if let Some(peer) = peer {
            self.tried.insert(peer);
            self.turns += 1;
            self.ask(ctx);
        }
    }

    fn next(&self, ctx: &Ctx, first: Option<PeerKey>) -> Option<PeerKey> {
        let may = |peer: &PeerKey| ctx.peers.can_ask(*peer) && !self.tried.contains(peer);
        let goes_by = |peer: &PeerKey| ctx.peers.table_of(*peer) == Some(self.table);
        first
            .filter(may)
            .or_else(|| ctx.peers.iter_connected().filter(may).find(goes_by))
            .or_else(|| ctx.peers.iter_connected().find(may))
    }

    fn ask(&mut self, ctx: &mut Ctx) {
        let Some(from) = self.from else { return };
        self.asked_at = ctx.now;
        ctx.counters.table_parts_asked += 1;
        let request = TableRequest { table: self.table, part: self.parts.len() as u16 };
        ctx.send_control_in(Lane::Repair, from, &Control::TableRequest(request));
    }
}
