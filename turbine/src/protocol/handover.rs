//! Hand-over: what the next leader has of its predecessor's blocks.
//!
//! The next leader builds on what the leader has sent, so it gets everything first, by a copy of its
//! own. A leader that is [configured](super::Config::hand_over) so asks it to acknowledge each
//! message, and the application learns of it: it can let its own subscribers wait until the next
//! leader knows what they are about to see.
//!
//! An acknowledgement says what its sender has and nothing more: no other part of the protocol goes by
//! it. It costs 12 bytes a message and no signature, since the connection proves who sent it.
//!
//! The request goes over a stream and messages go in datagrams, so the first of them may be there before
//! it: they are acknowledged when it comes.
//!
//! # Bounds
//! As a next leader, [`MAX_ASKERS`] leaders that have asked, 24 bytes each, and the last [`MAX_ARRIVED`]
//! messages, 16 bytes each.

use std::collections::VecDeque;

use super::ctx::Ctx;
use super::event::Event;
use crate::control::{AckRequest, Control, MessageAck};
use crate::egress::Lane;
use crate::outcome::Outcome;
use crate::peer::PeerKey;
use fragcast_shredder::MessageKey;

/// Leaders whose messages are acknowledged at a time: each of a term of its own.
const MAX_ASKERS: usize = 8;
/// Messages that may be there before they are asked after.
const MAX_ARRIVED: usize = 32;

/// Blocks between two leaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    /// The one who asked, or was asked.
    peer: PeerKey,
    first: u64,
    last: u64,
}

impl Asked {
    const fn covers(&self, block: u64) -> bool {
        self.first <= block && block <= self.last
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    /// The next leader that this node, as a leader, has asked.
    asked: Option<Asked>,
    /// Who has asked this node, oldest first.
    askers: Vec<Asked>,
    /// The messages that came last, whoever leads, oldest first.
    arrived: VecDeque<MessageKey>,
}

impl HandOver {
    /// A leader is about to send a message of a block: asks the next leader, if it has not yet.
    pub(super) fn ask(&mut self, ctx: &mut Ctx, block: u64) {
        if !ctx.config.hand_over {
            return;
        }
        let asked = next_leader(ctx, block).map(|(peer, last)| Asked { peer, first: block, last });
        let Some(asked) = asked.filter(|asked| ctx.peers.is_connected(asked.peer)) else {
            self.asked = None;
            return;
        };
        let known = self.asked.filter(|known| known.peer == asked.peer && known.last == asked.last);
        if known.is_some_and(|known| known.covers(block)) {
            return;
        }
        self.asked = Some(asked);
        let request = AckRequest { first: asked.first, last: asked.last };
        ctx.send_control_in(Lane::NextLeader, asked.peer, &Control::AckRequest(request));
    }

    /// Whether a next leader is asked to acknowledge the messages of a block.
    pub(super) fn awaits(&self, block: u64) -> bool {
        self.asked.is_some_and(|asked| asked.covers(block))
    }

    /// A leader asks this node.
    pub(super) fn requested(
        &mut self,
        ctx: &mut Ctx,
        from: PeerKey,
        AckRequest { first, last }: AckRequest,
    ) -> Outcome {
        let leads = |block| ctx.may_lead(from, block);
        let follows = || next_leader(ctx, last).is_some_and(|(next, _)| next == ctx.me());
        // Who goes by another schedule asks in good faith.
        if first > last || !leads(first) || !leads(last) || !follows() {
            return Outcome::ControlStale;
        }
        let asker = Asked { peer: from, first, last };
        if self.askers.contains(&asker) {
            // It has been told, and is told of whatever else comes.
            return Outcome::Control;
        }
        self.askers.retain(|asker| asker.peer != from);
        if self.askers.len() >= MAX_ASKERS {
            self.askers.remove(0);
        }
        self.askers.push(asker);
        for key in self.arrived.iter().filter(|key| asker.covers(key.block)) {
            acknowledge(ctx, from, *key);
        }
        Outcome::Control
    }

    /// A message is here, whole and verified: tells its leader, if that has asked.
    pub(super) fn arrived(&mut self, ctx: &mut Ctx, key: MessageKey) {
        for asker in self.askers.iter().filter(|asker| asker.covers(key.block)) {
            acknowledge(ctx, asker.peer, key);
        }
        if self.arrived.len() >= MAX_ARRIVED {
            self.arrived.pop_front();
        }
        self.arrived.push_back(key);
    }

    /// A next leader says that it has a message.
    pub(super) fn acknowledged(&self, ctx: &mut Ctx, from: PeerKey, ack: MessageAck) -> Outcome {
        let key = ack.key();
        if !self.asked.is_some_and(|asked| asked.peer == from && asked.covers(key.block)) {
            return Outcome::ControlStale;
        }
        ctx.events.push_back(Event::Held(key));
        Outcome::Control
    }

    /// A connection is gone: who comes back is asked again, and asks again.
    pub(super) fn disconnected(&mut self, peer: PeerKey) {
        self.asked = self.asked.filter(|asked| asked.peer != peer);
        self.askers.retain(|asker| asker.peer != peer);
    }
}

fn acknowledge(ctx: &mut Ctx, leader: PeerKey, key: MessageKey) {
    let ack = Control::MessageAck(MessageAck::of(key));
    ctx.send_control_in(Lane::NextLeader, leader, &ack);
}

/// The next leader after that of a block, and the last block before its term.
fn next_leader(ctx: &Ctx, block: u64) -> Option<(PeerKey, u64)> {
    let view = ctx.epochs.view();
    let current = view.leader(block).map(|leader| leader.peer);
    let (next, first) = view.next_terms(block).find_map(|(_, first)| {
        let leader = view.leader(first).filter(|leader| Some(leader.peer) != current)?;
        Some((leader.peer, first))
    })?;
    Some((ctx.peers.table().key(&next)?, first.checked_sub(1)?))
}

#[cfg(test)]
mod tests;
