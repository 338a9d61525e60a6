//! Faults begin and end.

use std::collections::BTreeSet;

use super::super::lies::{Audience, Raw, TICK, VICTIMS};
use super::super::paths::Conditions;
use super::super::plan::{Lie, What};
use super::{Drive, Event};
use crate::{NodeId, random};

impl Drive {
    /// What hinders hosts and paths now.
    pub(super) fn conditions(&self) -> Conditions {
        let out = (0..self.options.nodes).filter(|n| !self.hosts[*n as usize].is_running());
        let mut conditions = Conditions { out: out.collect(), ..Conditions::default() };
        for number in &self.active {
            match &self.plan.faults[*number].what {
                What::Partition { nodes } => conditions.sides.push(nodes.clone()),
                What::OneWay { from, to } => {
                    conditions.one_way.insert((*from, *to));
                }
                What::UdpDown { node } => {
                    conditions.no_udp.insert(*node);
                }
                What::Loss { share } => conditions.loss = conditions.loss.max(*share),
                What::Duplication { share } => conditions.doubled = conditions.doubled.max(*share),
                What::Reordering { share, by } => {
                    conditions.late = conditions.late.max((*share, *by));
                }
                What::Crash { .. }
                | What::Pause { .. }
                | What::ClockStep { .. }
                | What::SlowDisk { .. }
                | What::Forgets { .. }
                | What::Lies { .. } => {}
            }
        }
        conditions
    }

    /// How many of a thousand messages a node's application loses now: who executes nothing has
    /// none that could.
    pub(super) fn forgets(&self, node: NodeId) -> u32 {
        if self.relays.contains(&node) {
            return 0;
        }
        let share = |number: &usize| match self.plan.faults[*number].what {
            What::Forgets { node: of, share } if of == node => share,
            _ => 0,
        };
        self.active.iter().map(share).max().unwrap_or(0)
    }

    /// A fault begins.
    pub(super) fn begin(&mut self, number: usize) {
        self.active.insert(number);
        let fault = self.plan.faults[number].clone();
        *self.tallies.faults.entry(fault.what.name()).or_default() += 1;
        match fault.what {
            What::Crash { node, graceful, keep, .. } => self.crash(node, graceful, keep),
            What::Pause { node } => self.hosts[node as usize].paused = true,
            What::ClockStep { node, by } => {
                let host = &mut self.hosts[node as usize];
                host.clock = host.clock.saturating_add_unsigned(by);
                self.dirty.insert(node);
            }
            What::SlowDisk { node, by } => self.hosts[node as usize].disk_delay = by,
            What::Lies { .. } => {
                self.queue.push(self.now, Event::Speak { fault: number, tick: 0 });
            }
            _ => {}
        }
        self.refresh();
    }

    /// A fault ends.
    pub(super) fn end(&mut self, number: usize) {
        self.active.remove(&number);
        match self.plan.faults[number].what {
            What::Crash { node, clock, .. } => {
                self.hosts[node as usize].clock = clock;
                self.start_process(node);
                self.refresh();
                self.reopen(node);
            }
            What::Pause { node } => {
                self.hosts[node as usize].paused = false;
                self.dirty.insert(node);
            }
            What::SlowDisk { node, .. } => self.hosts[node as usize].disk_delay = 0,
            _ => {}
        }
        self.refresh();
    }

    /// A process is gone.
    fn crash(&mut self, node: NodeId, graceful: bool, keep: bool) {
        for peer in (0..self.options.nodes).filter(|peer| *peer != node) {
            if graceful {
                self.disconnect(node, peer);
            } else {
                self.paths.drop_end(node, peer);
            }
        }
        self.paths.forget_bars(node);
        self.hosts[node as usize].crash(self.now, keep);
        // The system closes its TCP connections whichever way it ended.
        self.listen(node, false);
    }

    fn victims(&self, fault: usize) -> Vec<NodeId> {
        let mut random = random::stream(self.options.seed, "chaos victims", fault as u64);
        let mut honest: Vec<NodeId> =
            (0..self.options.nodes).filter(|node| !self.plan.liars.contains(node)).collect();
        random::shuffle(&mut random, &mut honest);
        honest.truncate(VICTIMS);
        honest
    }

    /// A liar speaks, and will again.
    pub(super) fn speak(&mut self, number: usize, tick: u64) {
        let What::Lies { node, lie } = self.plan.faults[number].what else { return };
        if !self.active.contains(&number) {
            return;
        }
        self.queue.push(self.now + TICK, Event::Speak { fault: number, tick: tick + 1 });
        // A far block's Env has another time each time that it is sent.
        if matches!(lie, Lie::Equivocations | Lie::SplitMessage | Lie::FarBlock) {
            self.check.guilty = true;
        }
        let time = self.hosts[node as usize].time(self.now);
        let said = self.lies.say(lie, (self.now, tick), time, &self.chain);
        let victims = self.victims(number);
        let nodes = self.options.nodes;
        for (audience, raw) in said {
            self.tallies.lies += 1;
            let to: BTreeSet<NodeId> = match audience {
                Audience::Victims => victims.iter().copied().collect(),
                Audience::Half(half) => (0..nodes).filter(|to| to % 2 == half).collect(),
                Audience::Gossip => {
                    if let Raw::Gossip(kind, wire) = &raw {
                        self.publish(node, *kind, wire);
                    }
                    continue;
                }
            };
            for to in to.into_iter().filter(|to| *to != node) {
                match &raw {
                    Raw::Shred(bytes) => self.datagram((node, to), bytes.clone()),
                    Raw::Frame(bytes) => self.frame((node, to), bytes.clone()),
                    Raw::Gossip(..) => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SECONDS;
    use crate::chaos::Options;

    /// Seed 9 of 30 nodes took one to task: it can be handed nothing again, as it tells no head.
    #[test]
    fn who_executes_nothing_has_no_application_that_loses_messages() {
        let (mut relays, mut others) = (0, 0);
        for seed in 0..30 {
            let mut drive = Drive::new(&Options::new(seed, 12, 300 * SECONDS));
            drive.active = (0..drive.plan.faults.len()).collect();
            for fault in &drive.plan.faults {
                let What::Forgets { node, .. } = fault.what else { continue };
                let relay = drive.relays.contains(&node);
                *(if relay { &mut relays } else { &mut others }) += 1;
                assert_eq!(drive.forgets(node) == 0, relay, "node {node} of seed {seed}");
            }
        }
        assert!(relays > 0 && others > relays, "{relays} {others}");
    }
}
