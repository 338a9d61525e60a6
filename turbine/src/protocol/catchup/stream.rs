//! Blocks that one peer is asked for, message by message.

use std::time::Duration;

use fragcast_shredder::shred::MAX_ATTEMPTS;
use fragcast_shredder::{Kind, MessageKey, VerifiedMessage};

use crate::control::{BlockPart, MAX_PARTS};
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::protocol::fallback::cost;
use crate::time::Timestamp;

/// An answer may pause so long, and last so long.
pub(super) const SILENCE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(5);

/// A place in the messages of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) block: u64,
    pub(super) message: u16,
    pub(super) have: u32,
    /// The attempt of what has come of the block before it.
    attempt: Option<u8>,
}

impl Place {
    pub(super) const fn start_of(block: u64) -> Self {
        Self { block, message: 0, have: 0, attempt: None }
    }

    pub(super) const fn is_start(&self) -> bool {
        self.message == 0 && self.have == 0
    }

    /// In the order of an answer.
    const fn order(&self) -> (u64, u16, u32) {
        (self.block, self.message, self.have)
    }
}

/// A question that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) nonce: u64,
    /// Where the answer starts.
    pub(super) from: Place,
    sent: Timestamp,
    /// When somebody else is asked.
    pub(super) until: Timestamp,
    parts: usize,
    /// Parts have come that are behind what is next.
    pub(super) skipped: bool,
}

/// The message that is coming, in its order.
#[derive(Debug)]
struct Coming {
    key: MessageKey,
    kind: Kind,
    total: u32,
    bytes: Vec<u8>,
}

/// What becomes of a part.
pub(super) enum PartOf {
    /// The message is whole and yet to be verified.
    Whole(Vec<u8>),
    /// Nothing more is to be done.
    Done,
    /// A frame was lost, perhaps: the end tells where to go on.
    Skipped,
    /// It is not what is next.
    Misled(Outcome),
    /// There is no memory for the message now.
    NoRoom,
}

/// Some blocks that one peer is asked for.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) peer: PeerKey,
    /// What is next.
    pub(super) place: Place,
    /// The last block.
    pub(super) last: u64,
    pub(super) asked: Option<Asked>,
    coming: Option<Coming>,
    /// What has come of the block that is next, verified.
    pub(super) got: Vec<(MessageKey, VerifiedMessage)>,
    got_bytes: usize,
    /// The block is too long to be kept until its end, and is handed on as it comes.
    pub(super) is_long: bool,
    /// The peer is busy until then, and how often it was.
    pub(super) busy: Option<(Timestamp, u8)>,
    /// When it brought the last new message, or was asked first.
    pub(super) fruitful: Timestamp,
}

impl Stream {
    pub(super) const fn new(now: Timestamp, peer: PeerKey, first: u64, last: u64) -> Self {
        Self {
            peer,
            place: Place::start_of(first),
            last,
            asked: None,
            coming: None,
            got: Vec::new(),
            got_bytes: 0,
            is_long: false,
            busy: None,
            fruitful: now,
        }
    }

    /// Whether a block is among those that it still is to bring.
    pub(super) fn covers(&self, block: u64) -> bool {
        (self.place.block..=self.last).contains(&block)
    }

    /// Bytes that it holds, or will when the message that is coming has come.
    pub(super) fn bytes(&self) -> usize {
        self.got_bytes + self.coming.as_ref().map_or(0, |coming| coming.total as usize)
    }

    pub(super) fn ask(&mut self, now: Timestamp, nonce: u64) {
        let (from, until) = (self.place, now + SILENCE);
        self.asked = Some(Asked { nonce, from, sent: now, until, parts: 0, skipped: false });
    }

    /// Takes a part of the answer; `room` is what a message may take now.
    pub(super) fn take(&mut self, now: Timestamp, part: &BlockPart, room: usize) -> PartOf {
        let (last, expect) = (self.last, self.place);
        let Some(asked) = &mut self.asked else { return PartOf::Done };
        let key = part.key;
        asked.parts += 1;
        let in_range = (asked.from.block..=last).contains(&key.block);
        let is_endless = key.message == u16::MAX && part.kind != Kind::Seal;
        if asked.parts > MAX_PARTS || !in_range || is_endless || key.attempt >= MAX_ATTEMPTS {
            return PartOf::Misled(Outcome::ControlBad);
        }
        let attempt = Some(key.attempt);
        let Place { block, message, have, .. } = expect;
        let place = (key.block, key.message, part.offset);
        if place > expect.order() {
            asked.skipped = true;
            return PartOf::Skipped;
        }
        if place != expect.order() || expect.attempt.is_some_and(|of| Some(of) != attempt) {
            return PartOf::Misled(Outcome::ControlStale);
        }
        asked.until = (now + SILENCE).min(asked.sent + LONGEST);
        if have == 0 {
            if part.total as usize > room {
                return PartOf::NoRoom;
            }
            let (kind, total, bytes) = (part.kind, part.total, Vec::new());
            self.coming = Some(Coming { key, kind, total, bytes });
        }
        let same = |c: &&mut Coming| {
            let one = (c.key, c.kind, c.total) == (key, part.kind, part.total);
            one && c.bytes.len() == have as usize
        };
        let Some(coming) = self.coming.as_mut().filter(same) else {
            return PartOf::Misled(Outcome::ControlStale);
        };
        let (len, total) = (coming.bytes.len(), part.total as usize);
        if coming.bytes.capacity() - len < part.bytes.len() {
            // Twice as much as has come, but never more than the message.
            coming.bytes.reserve_exact(len.max(part.bytes.len()).min(total - len));
        }
        coming.bytes.extend_from_slice(&part.bytes);
        let len = coming.bytes.len();
        self.place = match part.kind {
            _ if len < total => Place { block, message, have: len as u32, attempt },
            Kind::Seal => Place::start_of(block.saturating_add(1)),
            _ => Place { block, message: message.saturating_add(1), have: 0, attempt },
        };
        if len < total {
            return PartOf::Done;
        }
        PartOf::Whole(self.coming.take().map(|coming| coming.bytes).unwrap_or_default())
    }

    /// A message has been verified; `new`: it was not here before.
    pub(super) fn put(
        &mut self,
        now: Timestamp,
        (key, message): (MessageKey, VerifiedMessage),
        new: bool,
    ) {
        if new {
            (self.busy, self.fruitful) = (None, now);
        }
        self.got_bytes += cost(&message);
        self.got.push((key, message));
    }

    /// What has come of the block so far.
    pub(super) fn take_got(&mut self) -> Vec<(MessageKey, VerifiedMessage)> {
        self.got_bytes = 0;
        std::mem::take(&mut self.got)
    }
}
