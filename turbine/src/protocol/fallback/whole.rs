//! Messages that come whole: by gossip, or in answer to a request from a peer that has them
//! from gossip. Both count as received, and neither proves its attempt.

use alloy_primitives::Bytes;
use fragcast_shredder::{Kind, MessageKey, SignatureError, SignedMessage, VerifiedMessage};

use super::super::{Delivered, Event, Protocol};
use super::{Fallback, count_of};
use crate::membership::PeerIndex;
use crate::outcome::Outcome;
use crate::output::Via;
use crate::time::Timestamp;

impl Fallback {
    /// A message that is kept for those who ask, and about what it takes.
    pub(in crate::protocol) fn remembered(
        &self,
        key: &MessageKey,
    ) -> Option<(&VerifiedMessage, usize)> {
        self.recent.get(key).map(|message| (message, super::recent::cost(message)))
    }
}

impl Protocol {
    /// Takes the answer of a peer that has a message from gossip. The peer has verified it, so
    /// one that is not what was asked for is a lie.
    pub(in crate::protocol) fn take_answered(
        &mut self,
        now: Timestamp,
        from: PeerIndex,
        key: MessageKey,
        kind: Kind,
        wire: &Bytes,
    ) -> Outcome {
        let Ok(signed) = SignedMessage::from_wire(kind, self.config.dialect, wire) else {
            return Outcome::ControlBad;
        };
        if (signed.message.block(), signed.message.index()) != (key.block, Some(key.message)) {
            return Outcome::ControlBad;
        }
        let message = match signed.verify(self.schedule.gateway(key.block)) {
            Ok(message) => message,
            // The peer's schedule may be newer than ours: that is no lie.
            Err(SignatureError::WrongSigner { found, .. })
                if self.schedule.gateways().contains(&found) =>
            {
                return Outcome::ControlStale;
            }
            Err(_) => return Outcome::BadSignature,
        };
        let Some(seen) = self.fallback.entry(key, message.root()) else {
            return Outcome::Quota;
        };
        // The peer has it from gossip, perhaps with another v: it is published there already.
        seen.unpublished |= seen.turbine_at.is_none() && seen.gossip_at.is_none();
        seen.answered |= 1u8.checked_shl(key.attempt.into()).unwrap_or(0);
        // Of another attempt it is known already, perhaps: then the sequencer settles which.
        self.counters.repair_messages += 1;
        self.take_whole(now, key, message, Some(from));
        Outcome::Control
    }

    /// Takes a verified message that came without shreds. Shreds of it are still taken and
    /// forwarded, and nobody is asked for it any more.
    pub(super) fn take_whole(
        &mut self,
        now: Timestamp,
        key: MessageKey,
        message: VerifiedMessage,
        from: Option<PeerIndex>,
    ) {
        let kind = message.message().kind();
        // Of a foreign gateway, and of its own, this node gets nothing over the overlay; and what
        // a peer answered came over it.
        let comes_by_turbine = self.leader_index(key.block).is_some_and(|leader| leader != self.me);
        if from.is_none() && comes_by_turbine && self.fallback.is_judging() {
            let place = (key.block, key.attempt, key.message);
            self.fallback.health.gossip(now, place, count_of(&message));
        }
        self.repair_settled(&key);
        self.advance_window(now, key.block, kind);
        self.remember(key, &message);
        self.note_message(now, &key, kind);
        self.events.push_back(Event::Message(Box::new(Delivered {
            key,
            message,
            sent_at_micros: 0,
            first_shred_at: now,
            complete_at: now,
            from,
            via: if from.is_some() { Via::Whole } else { Via::Gossip },
        })));
        self.settle_fallback(now);
    }
}
