//! What comes in at a node, and what goes out of it.

use std::sync::Arc;

use bytes::Bytes;
use fragcast_shredder::Kind;
use fragcast_shredder::delivery::Delivered;
use fragcast_turbine::gossip::Verdict;
use fragcast_turbine::{
    Event as Happened, GossipAction, Listener, Output, Payload, PeerKey, Transmit,
};

use super::super::chain::built_at;
use super::super::check::Invariant;
use super::super::paths::delay;
use super::super::plan::{GATEWAYS, LIAR};
use super::{Drive, Event};
use crate::{MILLIS, Nanos, NodeId, random};

/// Mean extra delay of a packet.
const JITTER: Nanos = MILLIS;
/// Datagrams that are lost without any fault, of a thousand.
const LOSS: u32 = 3;

impl Drive {
    /// Drains a node's protocol.
    pub(super) fn pump(&mut self, node: NodeId) {
        let now = self.now;
        let honest = !self.plan.liars.contains(&node);
        let host = &mut self.hosts[node as usize];
        if !host.is_running() {
            return;
        }
        let time = host.time(now);
        while let Some(process) = &mut self.hosts[node as usize].process
            && let Some(event) = process.protocol.poll_event()
        {
            self.happened(node, honest, event);
        }
        while let Some(process) = &mut self.hosts[node as usize].process
            && let Some(transmit) = process.protocol.poll_transmit(time)
        {
            self.transmit(node, transmit);
        }
        while let Some(process) = &mut self.hosts[node as usize].process
            && let Some(action) = process.protocol.poll_gossip()
        {
            self.act(node, action);
        }
        let host = &mut self.hosts[node as usize];
        let Some(process) = &mut host.process else { return };
        if honest {
            self.check.tables(now, node, process);
        }
        if let Some(at) = process.protocol.poll_timeout(time) {
            let incarnation = host.incarnation;
            let at = host.until(at).max(now);
            let Some(process) = &mut host.process else { return };
            if at < process.armed {
                process.armed = at;
                self.queue.push(at, Event::Timer { node, incarnation, at });
            }
        }
    }

    fn happened(&mut self, node: NodeId, honest: bool, event: Happened) {
        let now = self.now;
        match event {
            Happened::Message { delivered, .. } => {
                self.tallies.delivered += 1;
                let key = delivered.key;
                self.digest.event(now, 1, node, key.message.into(), key.block);
                if honest {
                    self.check.delivered(now, node, &self.chain, &delivered);
                }
                self.sequence(node, delivered);
            }
            Happened::Again(delivered) => {
                self.tallies.again += 1;
                let key = delivered.key;
                self.digest.event(now, 8, node, key.message.into(), key.block);
                if honest {
                    self.check.delivered(now, node, &self.chain, &delivered);
                }
                let process = self.hosts[node as usize].process.as_mut();
                let output = process.and_then(|process| process.sequencer.again(delivered));
                if let Some(output) = output {
                    self.apply(node, &output);
                }
            }
            Happened::BadParity(key) => {
                let mut outputs = Vec::new();
                if let Some(process) = &mut self.hosts[node as usize].process {
                    process.sequencer.bad_parity(key.block, key.attempt, &mut outputs);
                }
                self.outputs(node, &outputs);
            }
            Happened::Moved { high, .. } => {
                let mut outputs = Vec::new();
                if let Some(process) = &mut self.hosts[node as usize].process {
                    process.sequencer.move_to(high, &mut outputs);
                }
                self.outputs(node, &outputs);
            }
            Happened::Bar { peer, outcome } => {
                let peer = peer.number();
                self.tallies.bars += 1;
                self.digest.event(now, 2, node, peer, outcome as u64);
                if honest && !self.plan.liars.contains(&peer) {
                    let what = format!("it barred node {peer}: {}", outcome.label());
                    self.check.broke(now, node, Invariant::HonestBarred, what);
                }
                self.paths.bar(now, node, peer);
                self.disconnect(node, peer);
                self.call(node, peer);
            }
            Happened::Equivocation { gateway, evidence } => {
                self.tallies.accusations += 1;
                self.digest.event(now, 3, node, 0, 0);
                let liar = self.chain.gateways[LIAR as usize].address();
                let sound = evidence.verify() == Ok(gateway);
                if honest && !(sound && gateway == liar && self.check.guilty) {
                    let what = format!("{gateway} stands accused (sound: {sound})");
                    self.check.broke(now, node, Invariant::Accusation, what);
                }
            }
            _ => {}
        }
    }

    /// A message comes to the sequencer.
    pub(super) fn sequence(&mut self, node: NodeId, delivered: Arc<Delivered>) {
        let mut outputs = Vec::new();
        if let Some(process) = &mut self.hosts[node as usize].process {
            process.sequencer.push(delivered, &mut outputs);
        }
        self.outputs(node, &outputs);
    }

    fn outputs(&mut self, node: NodeId, outputs: &[Output]) {
        let (now, honest) = (self.now, !self.plan.liars.contains(&node));
        for output in outputs {
            let Some(process) = &mut self.hosts[node as usize].process else { return };
            match process.check(output) {
                Err(what) if honest => self.check.broke(now, node, Invariant::Order, what),
                _ => self.apply(node, output),
            }
        }
    }

    /// A node's application is handed something, and may lose it.
    fn apply(&mut self, node: NodeId, output: &Output) {
        let (now, honest) = (self.now, !self.plan.liars.contains(&node));
        let forgets = self.forgets(node);
        let host = &self.hosts[node as usize];
        let too_far = output.block() > host.reach(self.ahead);
        let lost = matches!(output, Output::Message(_)) && (too_far || self.chance(forgets));
        if lost {
            self.tallies.forgotten += u64::from(!too_far);
            return;
        }
        let host = &mut self.hosts[node as usize];
        let Some(process) = &mut host.process else { return };
        let (block, roots) = match output {
            Output::Retracted { block, attempt, .. } => {
                process.app.retract(*block, *attempt);
                return;
            }
            Output::Message(delivered) => match process.app.take(delivered) {
                Some(roots) => (delivered.key.block, roots),
                None => return,
            },
        };
        self.digest.event(now, 4, node, roots.len() as u32, block);
        if honest {
            let host = &self.hosts[node as usize];
            self.check.completed(now, node, host, &self.chain, (block, &roots));
        }
        let host = &mut self.hosts[node as usize];
        host.complete(now, block);
        let time = host.time(now);
        if let Some(verified) = host.execute(self.check.blocks())
            && let Some(process) = &mut host.process
        {
            process.protocol.handle_verified(time, verified, built_at(verified));
        }
    }

    fn transmit(&mut self, from: NodeId, Transmit { to, payload, .. }: Transmit) {
        let to = to.number();
        match payload {
            Payload::Shred(bytes) => {
                if from < GATEWAYS {
                    self.lies.record(&bytes);
                }
                self.datagram((from, to), bytes);
            }
            Payload::Control(bytes) => self.frame((from, to), bytes),
        }
    }

    /// Sends a datagram.
    pub(super) fn datagram(&mut self, (from, to): (NodeId, NodeId), bytes: Bytes) {
        self.tallies.datagrams += 1;
        let conditions = &self.paths.conditions;
        let (loss, doubled, late) = (conditions.loss + LOSS, conditions.doubled, conditions.late);
        let passes = conditions.udp_passes(from, to);
        if !self.paths.is_up(from, to) || !passes || self.chance(loss) {
            self.tallies.lost += 1;
            return;
        }
        let session = self.paths.session(from, to);
        let mut at = self.arrival(from, to);
        if self.chance(late.0) {
            at += late.1;
        }
        if self.chance(doubled) {
            let again = at + random::below(&mut self.random, 20 * MILLIS as usize) as Nanos;
            let bytes = bytes.clone();
            self.queue.push(again, Event::Datagram { from, to, session, bytes });
        }
        self.queue.push(at, Event::Datagram { from, to, session, bytes });
    }

    fn arrival(&mut self, from: NodeId, to: NodeId) -> Nanos {
        let jitter = JITTER as f64 * random::exponential(&mut self.random);
        self.now + delay(from, to) + jitter as Nanos
    }

    /// Sends a frame of the control stream.
    pub(super) fn frame(&mut self, (from, to): (NodeId, NodeId), bytes: Bytes) {
        if !self.paths.is_up(from, to) {
            return;
        }
        self.tallies.frames += 1;
        let mut at = self.arrival(from, to);
        // What is lost is sent again a round trip later.
        while self.chance(self.paths.conditions.loss + LOSS) {
            at += 2 * delay(from, to) + 10 * MILLIS;
        }
        match self.paths.send_frame((from, to), at, bytes) {
            Ok(Some(at)) => self.queue.push(at, Event::Frames { from, to }),
            Ok(None) => {}
            Err(()) => self.tallies.lost += 1,
        }
    }

    pub(super) fn datagram_arrives(
        &mut self,
        (from, to): (NodeId, NodeId),
        session: u32,
        bytes: Bytes,
    ) {
        let current = self.paths.session(from, to) == session && self.paths.is_up(to, from);
        let host = &mut self.hosts[to as usize];
        if !current || !host.is_running() {
            return;
        }
        let time = host.time(self.now);
        let Some(process) = &mut host.process else { return };
        process.protocol.handle_datagrams(time, [(PeerKey::from(from), bytes)]);
        self.dirty.insert(to);
    }

    pub(super) fn frame_arrives(&mut self, from: NodeId, to: NodeId) {
        let (frame, next) = self.paths.take_frame(self.now, (from, to));
        if let Some(at) = next {
            self.queue.push(at, Event::Frames { from, to });
        }
        let host = &mut self.hosts[to as usize];
        let Some(frame) = frame.filter(|_| self.paths.is_up(to, from)) else { return };
        if !host.is_running() {
            return;
        }
        let time = host.time(self.now);
        let Some(process) = &mut host.process else { return };
        process.protocol.handle_control(time, PeerKey::from(from), &frame);
        self.dirty.insert(to);
    }

    fn act(&mut self, node: NodeId, action: GossipAction) {
        match action {
            GossipAction::Listen(on) => {
                if let Some(process) = &mut self.hosts[node as usize].process {
                    process.listening = on;
                }
                self.listen(node, on);
            }
            GossipAction::Publish { kind, wire } => self.publish(node, kind, &wire),
        }
    }

    /// A node joins or leaves the meshes, and all others hear of it.
    pub(super) fn listen(&mut self, node: NodeId, on: bool) {
        if !self.topics.set(node, on) {
            return;
        }
        self.digest.event(self.now, 5, node, u32::from(on), 0);
        for to in (0..self.options.nodes).filter(|to| *to != node) {
            let at = self.now + 2 * delay(node, to);
            self.queue.push(at, Event::Listener { of: node, to, on });
        }
    }

    /// Hands a message to everybody that listens and can be reached.
    pub(super) fn publish(&mut self, from: NodeId, kind: Kind, wire: &Bytes) {
        self.tallies.published += 1;
        for to in self.topics.reached(from, &self.paths.conditions) {
            let hops = random::below(&mut self.random, 40 * MILLIS as usize) as Nanos;
            let at = self.now + 2 * delay(from, to) + hops;
            self.queue.push(at, Event::Gossip { from, to, kind, wire: wire.clone() });
        }
    }

    pub(super) fn listener(&mut self, of: NodeId, to: NodeId, on: bool) {
        let now = self.now;
        let host = &mut self.hosts[to as usize];
        if host.paused {
            self.queue.push(now + 500 * MILLIS, Event::Listener { of, to, on });
            return;
        }
        let time = host.time(now);
        let Some(process) = &mut host.process else { return };
        process.protocol.handle_listener(time, Listener::Member(PeerKey::from(of)), on);
        self.dirty.insert(to);
    }

    pub(super) fn gossip_arrives(&mut self, (from, to): (NodeId, NodeId), kind: Kind, wire: Bytes) {
        let now = self.now;
        let host = &mut self.hosts[to as usize];
        if !host.is_running() {
            return;
        }
        let time = host.time(now);
        let Some(process) = host.process.as_mut().filter(|process| process.listening) else {
            return;
        };
        if !process.seen.is_new(kind, &wire) {
            return;
        }
        let (low, high) = process.protocol.gossip_window(time);
        process.gate.set_window(low, high);
        let checked = process.gate.check(kind, &wire.into());
        let rejected = checked.verdict == Verdict::Reject;
        if rejected && !self.plan.liars.contains(&from) && !self.plan.liars.contains(&to) {
            let what = format!("it rejected gossip of node {from}: {}", checked.outcome.label());
            self.check.broke(now, to, Invariant::HonestBarred, what);
            return;
        }
        if let Some(message) = checked.message {
            let forwarded = checked.verdict == Verdict::Accept;
            process.protocol.handle_gossip(time, message, forwarded);
            self.dirty.insert(to);
        }
    }
}
