//! A host, the process on it, and what the application there has.

use std::collections::{BTreeMap, VecDeque};

use fragcast_shredder::{Dialect, Kind};
use fragcast_turbine::gossip::Gate;
use fragcast_turbine::sequencer::Sequencer;
use fragcast_turbine::{Output, Protocol, Timestamp};

use super::app::App;
use super::chain::EPOCH;
use super::gossip::Seen;
use crate::Nanos;

/// Blocks whose completion is remembered.
const REMEMBERED: usize = 256;

/// A running daemon.
pub(super) struct Process {
    pub(super) protocol: Protocol,
    pub(super) sequencer: Sequencer,
    pub(super) gate: Gate,
    /// What gossip has brought before.
    pub(super) seen: Seen,
    /// Whether it is in the meshes of gossip.
    pub(super) listening: bool,
    /// What the sequencer has handed on of blocks without a Seal: attempt, and how many messages.
    partial: BTreeMap<u64, (u8, usize)>,
    /// What executes blocks.
    pub(super) app: App,
    /// The latest time that its clock has told.
    last: Timestamp,
    /// When its next timer event is scheduled, in the time of the run.
    pub(super) armed: Nanos,
    /// When a timer fired last, and how many have at that time, one after another.
    pub(super) spins: (Nanos, u32),
}

impl Process {
    pub(super) fn new(protocol: Protocol) -> Self {
        let gate = Gate::new(Dialect::default(), protocol.epochs().clone());
        Self {
            protocol,
            gate,
            seen: Seen::default(),
            sequencer: Sequencer::default(),
            listening: false,
            partial: BTreeMap::new(),
            app: App::default(),
            last: Timestamp::default(),
            armed: Nanos::MAX,
            spins: (0, 0),
        }
    }

    /// Looks at what the sequencer hands on.
    ///
    /// # Errors
    /// A message that is out of order.
    pub(super) fn check(&mut self, output: &Output) -> Result<(), String> {
        let block = output.block();
        let delivered = match output {
            Output::Retracted { attempt, .. } => {
                if self.partial.get(&block).is_some_and(|(of, _)| of == attempt) {
                    self.partial.remove(&block);
                }
                return Ok(());
            }
            Output::Message(delivered) => delivered,
        };
        let index = usize::from(delivered.key.message);
        let (attempt, count) = self.partial.entry(block).or_insert((delivered.key.attempt, 0));
        if index == 0 {
            (*attempt, *count) = (delivered.key.attempt, 0);
        }
        if *attempt != delivered.key.attempt || *count != index {
            return Err(format!("{:?} after message {count} of attempt {attempt}", delivered.key));
        }
        *count += 1;
        if delivered.message.message().kind() == Kind::Seal {
            self.partial.remove(&block);
        }
        while self.partial.len() > REMEMBERED {
            self.partial.pop_first();
        }
        Ok(())
    }

    /// Bytes in the tables of this process, the largest first if it is over its bound.
    pub(super) fn tables(&self) -> [(&'static str, usize); 6] {
        let queued = fragcast_turbine::Lane::ALL.iter();
        let queued = queued.map(|lane| self.protocol.egress().queued(*lane)).max();
        [
            ("reassembler", self.protocol.reassembly_bytes()),
            ("repair: kept sets", self.protocol.repair_bytes()),
            ("gossip: recent messages", self.protocol.recent_bytes()),
            ("sequencer: waiting", self.sequencer.waiting()),
            ("sequencer: kept", self.sequencer.kept()),
            ("a lane", queued.unwrap_or(0)),
        ]
    }
}

/// A machine.
#[derive(Default)]
pub(super) struct Host {
    pub(super) process: Option<Process>,
    /// Number of the process, so that timers of an earlier one are dropped.
    pub(super) incarnation: u32,
    /// By how much its clock is off.
    pub(super) clock: i64,
    /// Whether its process stands still.
    pub(super) paused: bool,
    /// How long a write takes.
    pub(super) disk_delay: Nanos,
    /// The newest block on disk.
    pub(super) head: Option<u64>,
    /// What is being written: when it will be there, and the block.
    writes: VecDeque<(Nanos, u64)>,
    /// The first block that this host is held to.
    pub(super) base: Option<u64>,
    /// The newest block that its application has executed.
    pub(super) verified: Option<u64>,
    /// Blocks that it has, with the time.
    pub(super) done: BTreeMap<u64, Nanos>,
    /// Since when it hears a quorum.
    pub(super) well_since: Option<Nanos>,
}

impl Host {
    /// Whether its process is at work.
    pub(super) const fn is_running(&self) -> bool {
        self.process.is_some() && !self.paused
    }

    /// The time that its process's clock tells: it never runs backwards.
    pub(super) fn time(&mut self, now: Nanos) -> Timestamp {
        let told = Timestamp::from_nanos((EPOCH + now).saturating_add_signed(self.clock));
        let Some(process) = &mut self.process else { return told };
        process.last = process.last.max(told);
        process.last
    }

    /// The time of the run at which its clock tells `at`.
    pub(super) const fn until(&self, at: Timestamp) -> Nanos {
        at.as_nanos().saturating_add_signed(-self.clock).saturating_sub(EPOCH)
    }

    /// A block is complete.
    pub(super) fn complete(&mut self, now: Nanos, block: u64) {
        self.done.entry(block).or_insert(now);
        while self.done.len() > REMEMBERED {
            self.done.pop_first();
        }
        self.writes.push_back((now + self.disk_delay, block));
        self.settle(now);
    }

    /// The newest block of which its application takes anything.
    pub(super) fn reach(&self, ahead: u64) -> u64 {
        self.verified.map_or(u64::MAX, |verified| verified.saturating_add(ahead))
    }

    /// The newest block that its application has executed, if that is another one than before: it
    /// stands at the first block of the chain that it lacks, as an executor does. Blocks of leaders
    /// that are down do not exist, so the chain's numbers have gaps; `exists` are the others.
    pub(super) fn execute(&mut self, mut exists: impl Iterator<Item = u64>) -> Option<u64> {
        let before = self.verified?;
        let lacks = exists.find(|block| *block > before && !self.done.contains_key(block));
        let newest = self.done.last_key_value().map_or(before, |(block, _)| *block);
        let executed = lacks.map_or(newest, |block| newest.min(block - 1));
        (executed > before).then(|| *self.verified.insert(executed))
    }

    /// Writes that have ended.
    pub(super) fn settle(&mut self, now: Nanos) {
        while let Some((_, block)) = self.writes.pop_front_if(|(at, _)| *at <= now) {
            self.head = self.head.max(Some(block));
        }
    }

    /// The process is gone, and with it what was not written, or all that was.
    pub(super) fn crash(&mut self, now: Nanos, keep: bool) {
        self.settle(now);
        self.writes.clear();
        self.process = None;
        self.paused = false;
        self.incarnation += 1;
        if !keep {
            self.head = None;
        }
        self.well_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_written_is_lost_in_a_crash() {
        let mut host = Host { disk_delay: 10, ..Host::default() };
        host.complete(5, 7);
        host.complete(9, 8);
        host.settle(16);
        assert_eq!(host.head, Some(7));
        host.crash(16, true);
        host.settle(100);
        assert_eq!((host.head, host.incarnation), (Some(7), 1));
        host.crash(101, false);
        assert_eq!(host.head, None);
    }

    #[test]
    fn a_clock_is_off_by_its_offset() {
        let mut host = Host { clock: -5_000, ..Host::default() };
        assert_eq!(host.time(10_000).as_nanos(), EPOCH + 5_000);
        assert_eq!(host.until(Timestamp::from_nanos(EPOCH + 5_000)), 10_000);
    }
}
