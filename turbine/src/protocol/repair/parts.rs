//! Messages in parts, from peers that have them from gossip without shreds.
//!
//! An answer in parts is put together in order and checked when it is whole. Until then none of it
//! is known to be true, so it is bounded by its cost to the sender: memory is allocated as parts
//! come and not by a claimed total, a slot is held only by a peer that sends fast enough, and
//! others are asked again after [`HOLD`] in any case. Parts out of order are dropped: a control
//! stream keeps its order, so they mean that a frame was lost, and the missing parts are asked for
//! again.

use std::time::Duration;

use fragcast_shredder::{Kind, MessageKey, SetKey};

use super::Repair;
use crate::control::{MAX_ANSWER_PARTS, MessagePart, PART_LEN, WHOLE};
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::protocol::ctx::Ctx;
use crate::time::Timestamp;

/// Messages that are put together at a time, of `MAX_MESSAGE_LEN` at most: 40 MiB, if peers
/// send as much.
const MAX_ASSEMBLIES: usize = 4;
/// The most of them from one peer.
const MAX_ASSEMBLIES_OF_ONE: usize = 2;
/// Time that a byte adds to an assembly: a peer slower than 333 kB/s loses its slot.
const TIME_PER_BYTE: Duration = Duration::from_micros(3);
/// How long others are not asked for a message while its parts keep coming.
const HOLD: Duration = Duration::from_secs(2);

/// One answer in parts so far.
struct Assembly {
    peer: PeerKey,
    message: MessageKey,
    kind: Kind,
    total: usize,
    bytes: Vec<u8>,
    /// Bytes after which the rest is asked for.
    more_at: usize,
    started: Timestamp,
    /// When others may take its slot.
    until: Timestamp,
}

/// The result of a part.
enum Step {
    /// More of the same answer is to come.
    Waiting,
    /// The answer is complete and the message is not: the parts from this one on come next.
    More(usize),
    /// signature ‖ body, not verified.
    Whole(Kind, Vec<u8>),
    /// It is here already, or a part before it is missing.
    OutOfTurn,
    /// Other answers hold all places.
    Full,
    /// It belongs to another message than the parts before it.
    Contradiction,
}

/// Messages that are being put together.
#[derive(Default)]
pub(super) struct Assemblies(Vec<Assembly>);

impl Assemblies {
    fn find(&mut self, peer: PeerKey, message: &MessageKey) -> Option<&mut Assembly> {
        self.0.iter_mut().find(|a| a.peer == peer && a.message == *message)
    }

    fn take(
        &mut self,
        now: Timestamp,
        patience: Duration,
        peer: PeerKey,
        message: MessageKey,
        part: &MessagePart,
    ) -> Step {
        let (total, offset) = (part.total as usize, part.offset as usize);
        if let Some(known) = self.find(peer, &message) {
            if (known.kind, known.total) != (part.kind, total) {
                return Step::Contradiction;
            }
        } else if offset != 0 {
            return Step::OutOfTurn;
        } else if part.bytes.len() == total {
            return Step::Whole(part.kind, part.bytes.to_vec());
        } else if self.make_room(now, peer) {
            self.0.push(Assembly {
                peer,
                message,
                kind: part.kind,
                total,
                bytes: Vec::new(),
                more_at: MAX_ANSWER_PARTS * PART_LEN,
                started: now,
                until: now + patience,
            });
        } else {
            return Step::Full;
        }
        let Some(assembly) = self.find(peer, &message) else { return Step::Full };
        let len = assembly.bytes.len();
        if offset != len {
            return Step::OutOfTurn;
        }
        if assembly.bytes.capacity() - len < part.bytes.len() {
            // Twice as much as has come, but never more than the message.
            assembly.bytes.reserve_exact(len.max(part.bytes.len()).min(total - len));
        }
        assembly.bytes.extend_from_slice(&part.bytes);
        assembly.until = assembly.until + TIME_PER_BYTE * part.bytes.len() as u32;
        let (len, more) = (assembly.bytes.len(), assembly.bytes.len() >= assembly.more_at);
        if len == total {
            let (kind, bytes) = (assembly.kind, std::mem::take(&mut assembly.bytes));
            self.0.retain(|a| (a.peer, a.message) != (peer, message));
            return Step::Whole(kind, bytes);
        }
        if more {
            return self.resume(peer, &message).map_or(Step::Waiting, Step::More);
        }
        Step::Waiting
    }

    /// Makes room for an answer of `peer`, if one that is too slow holds a place.
    fn make_room(&mut self, now: Timestamp, peer: PeerKey) -> bool {
        let of_peer = self.0.iter().filter(|a| a.peer == peer).count();
        let crowded = of_peer >= MAX_ASSEMBLIES_OF_ONE;
        if !crowded && self.0.len() < MAX_ASSEMBLIES {
            return true;
        }
        let slow = |a: &&Assembly| a.until <= now && (!crowded || a.peer == peer);
        let slowest = self.0.iter().filter(slow).min_by_key(|a| a.until);
        let Some((peer, message)) = slowest.map(|a| (a.peer, a.message)) else { return false };
        self.0.retain(|a| (a.peer, a.message) != (peer, message));
        true
    }

    /// The part from which on `peer` is to be asked for a message, if it has sent some already.
    pub(super) fn resume(&mut self, peer: PeerKey, message: &MessageKey) -> Option<usize> {
        let assembly = self.find(peer, message)?;
        let parts = assembly.bytes.len() / PART_LEN;
        assembly.more_at = (parts + MAX_ANSWER_PARTS) * PART_LEN;
        Some(parts)
    }

    /// Drops the assemblies for `which`.
    pub(super) fn settle(&mut self, which: impl Fn(&SetKey) -> bool) {
        self.0.retain(|a| !which(&SetKey { message: a.message, set: WHOLE }));
    }

    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.0.retain(|a| a.peer != peer);
    }

    /// The number of assemblies, and their bytes.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.0.len(), self.0.iter().map(|a| a.bytes.capacity()).sum())
    }
}

/// What [`Parts`](crate::protocol::parts::Parts) makes of a part.
pub(in crate::protocol) enum PartStep {
    /// The message is whole and yet to be verified.
    Whole(MessageKey, Kind, Vec<u8>),
    /// Nothing more is to be done.
    Done(Outcome),
}

impl Repair {
    /// Takes a part of a message that this node asked for.
    pub(in crate::protocol) fn take_part(
        &mut self,
        ctx: &mut Ctx,
        from: PeerKey,
        part: &MessagePart,
    ) -> PartStep {
        let asked = match self.note_answer(ctx, from, part.nonce) {
            Ok(asked) => asked,
            Err(outcome) => return PartStep::Done(outcome),
        };
        let message = asked.message;
        let patience = self.patience(ctx, from);
        let step = self.requests.assemblies.take(ctx.now, patience, from, message, part);
        let outcome = match step {
            Step::Whole(kind, wire) => return PartStep::Whole(message, kind, wire),
            Step::Waiting => {
                self.note_use(from, &asked);
                self.hold(ctx, from, &message);
                Outcome::Control
            }
            Step::More(next) => {
                self.note_use(from, &asked);
                self.hold(ctx, from, &message);
                self.requests.retire(part.nonce);
                let set = SetKey { message, set: WHOLE };
                self.request(ctx, from, set, next as u64, patience);
                Outcome::Control
            }
            Step::OutOfTurn => Outcome::ControlStale,
            Step::Full => Outcome::Quota,
            Step::Contradiction => {
                self.requests.assemblies.forget(from);
                Outcome::ControlBad
            }
        };
        PartStep::Done(outcome)
    }

    /// A peer's answer was no good: nothing that it has sent in part is kept, and it is not among
    /// those who are known to have the message.
    pub(in crate::protocol) fn distrust(&mut self, ctx: &Ctx, from: PeerKey, message: &MessageKey) {
        self.requests.assemblies.forget(from);
        self.answerers.missed(ctx.now, from);
        if let Some(want) = self.wants.messages.get_mut(message) {
            want.holders.retain(|holder| holder.peer != from);
            // What it has sent was none: it stays one that was asked.
            want.progress = false;
        }
    }

    /// The rest of an answer is coming: others are not asked meanwhile.
    fn hold(&mut self, ctx: &Ctx, from: PeerKey, message: &MessageKey) {
        let (now, patience) = (ctx.now, self.patience(ctx, from));
        let Some(assembly) = self.requests.assemblies.find(from, message) else { return };
        let until = (now + patience).min(assembly.started + HOLD);
        if let Some(want) = self.wants.messages.get_mut(message)
            && want.due > now
            && until > now
        {
            want.due = want.due.max(until);
            want.progress = true;
        }
    }
}
