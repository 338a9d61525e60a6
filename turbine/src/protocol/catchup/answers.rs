//! What becomes of the answers of peers that are asked for blocks.

use fragcast_shredder::{Kind, MAX_MESSAGE_LEN, MessageKey, VerifiedMessage};

use super::stream::{PartOf, Stream};
use super::{
    BUSY, BlockStep, CatchUp, DISPUTES, Held, MAX_BUSY, PAUSE, SETTLING, SLOWEST, Took, content,
};
use crate::control::{BlockPart, BlocksEnd};
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::time::Timestamp;

impl CatchUp {
    fn find(&self, from: PeerKey, nonce: u64) -> Result<usize, Outcome> {
        let is = |stream: &Stream| {
            stream.peer == from && stream.asked.is_some_and(|asked| asked.nonce == nonce)
        };
        let late = nonce <= self.last_nonce;
        let outcome = if late { Outcome::RepairLate } else { Outcome::RepairUnasked };
        self.streams.iter().position(is).ok_or(outcome)
    }

    /// Takes a part of an answer.
    pub(in crate::protocol) fn take_part(
        &mut self,
        now: Timestamp,
        from: PeerKey,
        part: &BlockPart,
    ) -> BlockStep {
        let at = match self.find(from, part.nonce) {
            Ok(at) => at,
            Err(outcome) => return BlockStep::Done(outcome),
        };
        // The first block in order is let in whatever is there.
        let block = self.streams[at].place.block;
        let is_first = self.streams.iter().all(|stream| stream.place.block >= block);
        let room = match is_first {
            true => MAX_MESSAGE_LEN,
            false => self.budget().saturating_sub(self.bytes()),
        };
        match self.streams[at].take(now, part, room) {
            PartOf::Whole(wire) => BlockStep::Whole(part.key, part.kind, wire),
            PartOf::Done => BlockStep::Done(Outcome::Control),
            PartOf::Skipped => BlockStep::Done(Outcome::ControlStale),
            PartOf::NoRoom => {
                self.streams.swap_remove(at);
                self.is_full = true;
                BlockStep::Done(Outcome::Control)
            }
            PartOf::Misled(outcome) => {
                self.drop_peer(now, from);
                // Others are asked at once.
                self.at = Some(now);
                BlockStep::Done(outcome)
            }
        }
    }

    /// Takes a message of an answer that has been verified; `new`: it was not here before.
    pub(in crate::protocol) fn take_message(
        &mut self,
        now: Timestamp,
        (from, nonce): (PeerKey, u64),
        (key, message): (MessageKey, VerifiedMessage),
        new: bool,
    ) -> Took {
        let Ok(at) = self.find(from, nonce) else { return Took::Waits };
        let (budget, turn) = (self.budget(), self.hand_on_to());
        let stream = &mut self.streams[at];
        let end = message.message().kind() == Kind::Seal;
        stream.put(now, (key, message), new);
        let is_long = stream.is_long || stream.bytes() > budget;
        stream.is_long = is_long && !end;
        if is_long {
            return Took::Some { messages: stream.take_got(), end };
        }
        if !end {
            return Took::Waits;
        }
        let bytes = stream.bytes();
        let messages = stream.take_got();
        self.size = usize::midpoint(self.size, bytes);
        if !content::agrees(messages.iter().map(|(_, message)| message)) {
            self.drop_peer(now, from);
            self.defer(now, key.block);
            let put_off = self.put_off.entry(key.block).or_default();
            put_off.disputes = put_off.disputes.saturating_add(1);
            let handed = put_off.disputes == DISPUTES;
            return if handed { Took::Some { messages, end: false } } else { Took::Waits };
        }
        if key.block > turn {
            self.held.insert(key.block, Held { from, messages, bytes });
            return Took::Waits;
        }
        self.is_full = false;
        Took::Block(messages)
    }

    /// A peer has sent what was not asked for or not signed: nothing of it counts.
    pub(in crate::protocol) fn refuse(&mut self, now: Timestamp, from: PeerKey) {
        self.drop_peer(now, from);
    }

    /// Takes the end of an answer.
    pub(in crate::protocol) fn take_end(
        &mut self,
        now: Timestamp,
        from: PeerKey,
        end: &BlocksEnd,
    ) -> Outcome {
        let at = match self.find(from, end.nonce) {
            Ok(at) => at,
            Err(outcome) => return outcome,
        };
        let stream = &mut self.streams[at];
        let Some(asked) = stream.asked.take() else { return Outcome::RepairLate };
        let block = asked.from.block;
        let has_it = (end.first..=end.last).contains(&block);
        let in_vain = stream.place == asked.from;
        let times = stream.busy.map_or(0, |(_, times)| times);
        if now >= stream.fruitful + SLOWEST || (in_vain && asked.skipped) {
            self.drop_peer(now, from);
        } else if !in_vain {
            // Of what is left others may be asked, but for the rest of a block.
            if stream.place.is_start() {
                self.streams.swap_remove(at);
            } else {
                stream.last = stream.place.block;
            }
        } else if has_it && !asked.from.is_start() && times < MAX_BUSY {
            // What it has sent so far of a block is worth waiting for.
            stream.busy = Some((now + BUSY, times + 1));
        } else {
            self.streams.swap_remove(at);
            if !has_it {
                // It has nothing for us: only later blocks, or none that are so new yet.
                let behind = end.first <= end.last && end.last < block;
                let pause = if behind { SETTLING } else { PAUSE };
                self.pass(now + pause, from, Some((end.first, end.last)));
            } else if self.defer(now, block) < 2 {
                // It is busy, or nobody has a block that it says it has.
                self.pass(now + BUSY, from, None);
            }
        }
        self.at = Some(now);
        Outcome::Control
    }
}
