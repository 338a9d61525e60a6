//! Gateways and their leaders' journals.

use std::sync::Arc;

use fragcast_shredder::delivery::{Delivered, Times, Via};
use fragcast_shredder::{MessageKey, VerifiedMessage};
use fragcast_turbine::BroadcastError;

use super::super::chain::current;
use super::super::check::Invariant;
use super::super::plan::LIAR;
use super::{Drive, Event};
use crate::{MILLIS, NodeId};

/// Attempts that a leader has for a block.
const ATTEMPTS: u8 = 8;

impl Drive {
    /// Sends what is due of a block.
    pub(super) fn produce(&mut self, block: u64, written: bool) {
        let now = self.now;
        let again = |at, written| (at, Event::Produce { block, written });
        if current(now) > block + 1 {
            return;
        }
        let leader = self.chain.gateway(block);
        let host = &self.hosts[leader as usize];
        if host.process.is_none() {
            // It goes on when it starts again.
            return;
        }
        if host.paused {
            let (at, event) = again(now + 100 * MILLIS, false);
            self.queue.push(at, event);
            return;
        }
        let attempt = match self.chain.attempt(block) {
            Some(attempt) => attempt,
            None if current(now) == block => {
                self.chain.open(block, 0);
                0
            }
            // The next block has begun without it.
            None => return,
        };
        if host.disk_delay > 0 && !written {
            let (at, event) = again(now + host.disk_delay, true);
            self.queue.push(at, event);
            return;
        }
        while let Some((index, message)) = self.chain.next(block, attempt) {
            let due = self.chain.due(block, attempt, index);
            if due > now {
                let (at, event) = again(due, false);
                self.queue.push(at, event);
                return;
            }
            let key = MessageKey { block, attempt, message: index as u16 };
            if !self.broadcast(leader, key, message) {
                let (at, event) = again(now + 100 * MILLIS, written);
                self.queue.push(at, event);
                return;
            }
            self.chain.sent(block, attempt);
        }
    }

    /// A leader sends a message of its own; says whether it could.
    fn broadcast(&mut self, leader: NodeId, key: MessageKey, message: VerifiedMessage) -> bool {
        let now = self.now;
        let host = &mut self.hosts[leader as usize];
        let time = host.time(now);
        let Some(process) = &mut host.process else { return false };
        match process.protocol.broadcast(time, key, &message) {
            Ok(()) => {}
            Err(BroadcastError::NotLeader(_)) if leader == LIAR => return true,
            Err(BroadcastError::NotLeader(_)) => {
                let what = format!("its own leader may not send {key:?}");
                self.check.broke(now, leader, Invariant::Delivery, what);
                return true;
            }
            Err(_) => return false,
        }
        self.tallies.broadcast += 1;
        self.digest.event(now, 0, leader, key.message.into(), key.block);
        let kind = message.message().kind();
        self.lies.record_wire(kind, message.to_wire().into());
        let delivered =
            Delivered { key, message, times: Times::whole(time), via: Via::Own, rank: 0 };
        self.sequence(leader, Arc::new(delivered));
        self.dirty.insert(leader);
        true
    }

    /// A leader has started again: it opens its block anew if it had begun to send it.
    pub(super) fn reopen(&mut self, node: NodeId) {
        let block = current(self.now);
        if self.chain.gateway(block) != node {
            return;
        }
        if let Some(attempt) = self.chain.attempt(block)
            && let Some(opening) = self.chain.opening(block, attempt)
            && opening.sent > 0
            && opening.sent < opening.roots.len()
            && attempt + 1 < ATTEMPTS
        {
            self.chain.open(block, attempt + 1);
        }
        self.produce(block, false);
    }
}
