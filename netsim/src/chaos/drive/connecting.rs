//! Connections: calls, answers, and their end.

use fragcast_turbine::PeerKey;

use super::super::paths::{IDLE_TIMEOUT, delay};
use super::{Drive, Event};
use crate::{MILLIS, Nanos, NodeId, random};

impl Drive {
    /// Conditions or processes have changed: paths may be blocked or open from now on.
    pub(super) fn refresh(&mut self) {
        self.paths.conditions = self.conditions();
        for a in 0..self.options.nodes {
            for b in a + 1..self.options.nodes {
                if self.paths.look(self.now, a, b) {
                    self.queue.push(self.now + IDLE_TIMEOUT, Event::Idle { a, b });
                }
                self.call(a, b);
            }
        }
    }

    fn are_running(&self, a: NodeId, b: NodeId) -> bool {
        [a, b].iter().all(|node| self.hosts[*node as usize].is_running())
    }

    fn are_connected(&self, a: NodeId, b: NodeId) -> bool {
        self.paths.is_up(a, b) && self.paths.is_up(b, a)
    }

    /// Two hosts call each other if they have no connection and can have one.
    pub(super) fn call(&mut self, a: NodeId, b: NodeId) {
        if self.are_connected(a, b)
            || !self.are_running(a, b)
            || !self.paths.conditions.is_open(a, b)
            || !self.paths.call(a, b)
        {
            return;
        }
        let pause = 200 * MILLIS + random::below(&mut self.random, 800 * MILLIS as usize) as Nanos;
        let from = self.now.max(self.paths.barred_until(a, b));
        self.queue.push(from + pause + 3 * delay(a, b), Event::Call { a, b });
    }

    /// The answer to a call.
    pub(super) fn answer(&mut self, a: NodeId, b: NodeId) {
        self.paths.hang_up(a, b);
        let open = self.paths.conditions.is_open(a, b) && self.are_running(a, b);
        if !open || self.are_connected(a, b) {
            return;
        }
        if self.paths.barred_until(a, b) > self.now {
            self.call(a, b);
            return;
        }
        self.paths.connect(a, b);
        self.tallies.connections += 1;
        self.digest.event(self.now, 6, a, b, 0);
        for (node, peer) in [(a, b), (b, a)] {
            if let Some(process) = &mut self.hosts[node as usize].process {
                // An end that still had the old connection greets anew.
                process.protocol.handle_connected(PeerKey::from(peer));
            }
            self.dirty.insert(node);
        }
    }

    /// A connection ends at both ends, where it was.
    pub(super) fn disconnect(&mut self, a: NodeId, b: NodeId) {
        self.digest.event(self.now, 7, a, b, 0);
        for (node, peer) in [(a, b), (b, a)] {
            if self.paths.drop_end(node, peer)
                && let Some(process) = &mut self.hosts[node as usize].process
            {
                process.protocol.handle_disconnected(PeerKey::from(peer));
                self.dirty.insert(node);
            }
        }
    }

    /// A path may have been blocked for the idle time-out.
    pub(super) fn idle(&mut self, a: NodeId, b: NodeId) {
        if self.paths.is_dead(self.now, a, b) {
            self.disconnect(a, b);
        }
    }
}
