//! The nodes' connections while UDP is blocked.
//!
//! A connection on which no packet has come for 6 s (`idle_timeout` of the daemon's transport) is
//! dead, and here both ends notice at the same time. Both then dial each other with growing pauses,
//! as the daemon's dialler does: 200 ms, doubling up to 5 s, each call waiting up to 3 s for an
//! answer. The first call that begins when the path is open succeeds.
//!
//! A shorter outage leaves connections as they are.

use std::collections::BTreeMap;

use fragcast_turbine::Protocol;

use super::Packet;
use super::epochs::Keys;
use crate::engine::Context;
use crate::fault::Fault;
use crate::reliable::Reliable;
use crate::{MILLIS, Nanos, NodeId, SECONDS};

/// Bit that marks the tokens of these timers; times never have it.
pub(super) const TIMERS: u64 = 1 << 62;
/// Token: UDP has been blocked for the idle time-out.
const IDLE: u64 = TIMERS;
/// Token: UDP is no longer blocked.
const HEALED: u64 = TIMERS + 1;
/// Token: a call succeeds. The number of the called node is added.
const UP: u64 = TIMERS | 1 << 32;

/// How long a connection may be idle before it is dead.
const IDLE_TIMEOUT: Nanos = 6 * SECONDS;
/// The first and the longest pause before a call.
const PAUSE: (Nanos, Nanos) = (200 * MILLIS, 5 * SECONDS);
/// Time-out of a call.
const PATIENCE: Nanos = 3 * SECONDS;

/// Both ends of connections.
pub(super) struct Ends<'a> {
    pub(super) nodes: &'a mut [Protocol],
    pub(super) keys: &'a Keys,
    pub(super) streams: &'a mut Reliable,
}

impl Ends<'_> {
    fn are_connected(&self, node: NodeId, peer: NodeId) -> bool {
        let key = self.keys.key(node, peer);
        key.is_some_and(|key| self.nodes[node as usize].is_connected(key))
    }

    fn connect(&mut self, node: NodeId, peer: NodeId) {
        for (node, peer) in [(node, peer), (peer, node)] {
            if let Some(key) = self.keys.key(node, peer) {
                self.nodes[node as usize].handle_connected(key);
            }
        }
    }

    fn disconnect(&mut self, node: NodeId, peer: NodeId) {
        for (node, peer) in [(node, peer), (peer, node)] {
            if let Some(key) = self.keys.key(node, peer) {
                self.nodes[node as usize].handle_disconnected(key);
            }
        }
        self.streams.reconnect(node, peer);
    }
}

/// The dead connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// By the two ends, the lower first: when the connection died.
    dead: BTreeMap<(NodeId, NodeId), Nanos>,
}

/// The time of the first call after `open`, if the connection died at `dead`.
fn call_after(open: Nanos, dead: Nanos) -> Nanos {
    let (mut at, mut pause) = (dead + PAUSE.0, PAUSE.0);
    while at < open {
        pause = (2 * pause).min(PAUSE.1);
        at += PATIENCE + pause;
    }
    at
}

impl Connections {
    /// Sets the timers for all faults.
    pub(super) fn start(ctx: &mut Context<'_, Packet>) {
        for fault in &ctx.setup().faults.0 {
            if let Fault::TurbineDown { nodes, span } = fault {
                for node in nodes {
                    ctx.timer(*node, span.0 + IDLE_TIMEOUT, IDLE, true);
                    if span.1 < Nanos::MAX {
                        ctx.timer(*node, span.1, HEALED, true);
                    }
                }
            }
        }
    }

    /// Handles a timer of `node`. Returns the nodes whose protocols must be drained.
    pub(super) fn timer(
        &mut self,
        ctx: &mut Context<'_, Packet>,
        mut ends: Ends<'_>,
        node: NodeId,
        token: u64,
    ) -> Vec<NodeId> {
        match token {
            IDLE => return self.cut(ctx, &mut ends, node),
            HEALED => self.call(ctx, node),
            token => {
                let peer = token as u32;
                let pair = (node.min(peer), node.max(peer));
                let blocked = ctx.setup().faults.is_udp_blocked(node, peer, ctx.now());
                if !blocked && self.dead.remove(&pair).is_some() {
                    ends.connect(node, peer);
                    return vec![node, peer];
                }
            }
        }
        Vec::new()
    }

    fn cut(&mut self, ctx: &Context<'_, Packet>, ends: &mut Ends<'_>, node: NodeId) -> Vec<NodeId> {
        let idle = (ctx.now() - IDLE_TIMEOUT, ctx.now());
        let faults = ctx.setup().faults;
        let mut touched = Vec::new();
        for peer in 0..ends.nodes.len() as NodeId {
            if ends.are_connected(node, peer) && faults.is_udp_blocked_throughout(node, peer, idle)
            {
                ends.disconnect(node, peer);
                self.dead.insert((node.min(peer), node.max(peer)), ctx.now());
                touched.push(peer);
            }
        }
        touched.push(node);
        touched
    }

    /// The path of a node is open again. For each peer to which it is open, the first call succeeds
    /// after a round trip and a half.
    fn call(&self, ctx: &mut Context<'_, Packet>, node: NodeId) {
        let now = ctx.now();
        let others = self.dead.iter().filter_map(|((a, b), since)| match node {
            node if node == *a => Some((*b, *since)),
            node if node == *b => Some((*a, *since)),
            _ => None,
        });
        for (peer, since) in others {
            if !ctx.setup().faults.is_udp_blocked(node, peer, now) {
                let world = ctx.world();
                let (there, back) = (world.delay(node, peer), world.delay(peer, node));
                let up = call_after(now, since) + 2 * there + back;
                ctx.timer(node, up, UP | u64::from(peer), true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_made_with_growing_pauses() {
        let ms = |open| call_after(open * MILLIS, 0) / MILLIS;
        assert_eq!([0, 200, 201, 3_600, 3_601].map(ms), [200, 200, 3_600, 3_600, 7_400]);
        // The longest pause is 8 s with the wait for an answer.
        assert!((0..60_000).all(|open| ms(open) - open <= 8_000));
    }
}
