//! A host, the process on it, and what the application there has.

use std::collections::{BTreeMap, VecDeque};

use alloy_primitives::B256;
use fragcast_shredder::{Dialect, Kind};
use fragcast_turbine::gossip::Gate;
use fragcast_turbine::sequencer::Sequencer;
use fragcast_turbine::{Output, Protocol, Timestamp};

use super::chain::EPOCH;
use crate::Nanos;

/// Blocks whose completion is remembered.
const REMEMBERED: usize = 256;

/// A running daemon.
pub(super) struct Process {
    pub(super) protocol: Protocol,
    pub(super) sequencer: Sequencer,
    pub(super) gate: Gate,
    /// Whether it is in the meshes of gossip.
    pub(super) listening: bool,
    /// What it has of blocks that are not complete.
    partial: BTreeMap<u64, (u8, Vec<B256>)>,
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
            sequencer: Sequencer::default(),
            listening: false,
            partial: BTreeMap::new(),
            last: Timestamp::default(),
            armed: Nanos::MAX,
            spins: (0, 0),
        }
    }

    /// Takes what the sequencer hands on. Returns the roots of a block that is complete by it.
    ///
    /// # Errors
    /// A message that is out of order.
    pub(super) fn take(&mut self, output: &Output) -> Result<Option<(u64, Vec<B256>)>, String> {
        let block = output.block();
        let delivered = match output {
            Output::Retracted { attempt, .. } => {
                if self.partial.get(&block).is_some_and(|(of, _)| of == attempt) {
                    self.partial.remove(&block);
                }
                return Ok(None);
            }
            Output::Message(delivered) => delivered,
        };
        let index = usize::from(delivered.key.message);
        let (attempt, roots) =
            self.partial.entry(block).or_insert_with(|| (delivered.key.attempt, Vec::new()));
        if index == 0 {
            (*attempt, *roots) = (delivered.key.attempt, Vec::new());
        }
        if *attempt != delivered.key.attempt || roots.len() != index {
            return Err(format!(
                "{:?} after message {} of attempt {attempt}",
                delivered.key,
                roots.len()
            ));
        }
        roots.push(delivered.message.root());
        if delivered.message.message().kind() != Kind::Seal {
            return Ok(None);
        }
        let (_, roots) = self.partial.remove(&block).expect("it is there");
        while self.partial.len() > REMEMBERED {
            self.partial.pop_first();
        }
        Ok(Some((block, roots)))
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
