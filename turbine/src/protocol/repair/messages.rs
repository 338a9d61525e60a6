//! Messages that are here without shreds: from gossip, or from a peer that has them from gossip.
//! They are in tips, and requests for them are answered with the message itself.

use std::time::Duration;

use alloy_primitives::B256;
use bytes::Bytes;
use fragcast_shredder::{Kind, MessageKey};

use super::Repair;
use super::answering::MAX_TAKEN;
use crate::control::{Control, MAX_ANSWER_PARTS, MessagePart, RepairRequest, WHOLE};
use crate::egress::{Lane, Payload, Transmit};
use crate::gossip::Mode;
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use crate::protocol::ctx::Ctx;
use crate::protocol::fallback::Recent;

/// A peer that lacks several sets of a message asks for each of them, and gets the message once
/// within this time.
pub(super) const ONCE_WITHIN: Duration = Duration::from_millis(100);
/// The budget for encoding a message, as a part of its length: about the time that sending that
/// many bytes takes at the usual rate. Otherwise the last bytes of a long message, asked for again
/// and again, would cost far more than their length.
pub(in crate::protocol) const ENCODING_SHARE: usize = 64;

/// The message that was encoded last, for peers that ask for the rest of it. At most
/// `MAX_MESSAGE_LEN`.
#[derive(Default)]
pub(super) struct Encoded(Option<(B256, Bytes)>);

impl Encoded {
    fn get(&self, root: &B256) -> Option<&Bytes> {
        self.0.as_ref().filter(|(of, _)| of == root).map(|(_, wire)| wire)
    }
}

impl Repair {
    /// Messages below `oldest` are no longer remembered, or none at all.
    pub(in crate::protocol) fn forget_messages_below(&mut self, oldest: Option<&MessageKey>) {
        self.store.unmark_below(oldest);
    }

    /// A message is not of this attempt.
    pub(in crate::protocol) fn forget_message(&mut self, key: &MessageKey) {
        self.store.unmark(key);
    }

    /// Notes a message without shreds that this node can answer with. In gossip terms nobody asks
    /// over the overlay, and a node on gossip alone answers nobody.
    pub(in crate::protocol) fn note_message(
        &mut self,
        ctx: &Ctx,
        recent: &Recent,
        key: &MessageKey,
        kind: Kind,
    ) {
        let tells = ctx.config.repair.enabled && ctx.mode != Mode::Gossip;
        if tells
            && recent.get(key).is_some()
            && ctx.leader_of(key).is_some()
            && self.store.mark(ctx.now, key, kind == Kind::Seal)
        {
            self.tell(ctx);
        }
    }

    /// Answers with the message itself if this node has no shreds of it.
    pub(super) fn answer_with_message(
        &mut self,
        ctx: &mut Ctx,
        recent: &Recent,
        from: PeerKey,
        request: &RepairRequest,
    ) -> Option<Outcome> {
        let key = request.key();
        if !self.store.is_marked(&key) || self.store.has_set(&key, request.set) {
            return None;
        }
        let (message, cost) = recent.get(&key)?;
        let (root, kind) = (message.root(), message.message().kind());
        let first = if request.set == WHOLE { request.have } else { 0 };
        if first == 0 && !self.budgets.is_first(ctx, from, &key) {
            return Some(Outcome::RepairRefused);
        }
        let wire = match self.encoded.get(&root) {
            Some(wire) => wire.clone(),
            None => {
                if !self.budgets.take(ctx, from, (cost / ENCODING_SHARE).min(MAX_TAKEN)) {
                    return Some(Outcome::RepairRefused);
                }
                let wire = Bytes::from(message.to_wire().into_boxed_slice());
                self.encoded.0 = Some((root, wire.clone()));
                wire
            }
        };
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let parts = (first..first.saturating_add(MAX_ANSWER_PARTS))
            .map_while(|index| MessagePart::of(request.nonce, kind, &wire, index));
        let mut end = 0;
        for part in parts {
            let len = part.bytes.len();
            end = part.offset as usize + len;
            if !self.budgets.take(ctx, from, len) {
                return Some(Outcome::RepairRefused);
            }
            let payload = Payload::Control(Control::MessagePart(part).to_bytes());
            if !ctx.egress.push(Transmit { to: from, lane: Lane::Repair, payload }) {
                return Some(Outcome::RepairRefused);
            }
            self.budgets.answered(ctx, from, key);
            ctx.counters.repair_answered_bytes += len as u64;
        }
        ctx.counters.repair_answered_messages += u64::from(end == wire.len());
        Some(if end > 0 { Outcome::Control } else { Outcome::RepairLacking })
    }
}
