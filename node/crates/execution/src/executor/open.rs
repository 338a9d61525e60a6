//! A block that is waiting or in execution.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use alloy_primitives::B256;
use fragcast_shredder::Env;

use super::queue::Queued;
use super::stats::BlockReport;
use crate::exec::{OpenBlock, SealedBlock, Snapshot, Unverified, Verdict};

/// How often the time doubles after which a block that took too long is tried again.
const MAX_DOUBLINGS: u32 = 5;

/// Number and attempt.
pub(super) type Key = (u64, u8);

/// How far a block has come.
pub(super) enum Stage {
    /// Its parent is not known yet.
    Waiting,
    /// It is executed on its parent.
    Running(Box<OpenBlock>),
    /// It has its verdict.
    Ended,
}

/// A block that is waiting or in execution.
pub(super) struct Open {
    pub(super) env: Env,
    pub(super) stage: Stage,
    /// Its messages after the Env that are not executed yet.
    pub(super) messages: VecDeque<Queued>,
    /// The index of its next message: those below have come.
    pub(super) next: u16,
    /// Some of its messages were dropped.
    pub(super) lost: bool,
    /// How often it has used up its time, and when it did last.
    pub(super) timed_out: Option<(u32, Instant)>,
    pub(super) verdict: Option<Verdict>,
    /// Its newest snapshot.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// The block, once its last frag is executed.
    pub(super) complete: Option<Arc<SealedBlock>>,
    pub(super) exec_ns: u64,
    pub(super) seal_ns: u64,
    pub(super) last_frag: Option<Instant>,
}

impl Open {
    /// Whether its parent is not known yet.
    pub(super) const fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting)
    }

    pub(super) const fn new(env: Env) -> Self {
        Self {
            env,
            stage: Stage::Waiting,
            messages: VecDeque::new(),
            next: 1,
            lost: false,
            timed_out: None,
            verdict: None,
            snapshot: None,
            complete: None,
            exec_ns: 0,
            seal_ns: 0,
            last_frag: None,
        }
    }

    /// It has its verdict. If it has used up its time, it is not tried again at once.
    pub(super) fn note(&mut self, verdict: &Verdict) {
        if let Verdict::Unverified(Unverified::TimeLimit(_)) = verdict {
            let before = self.timed_out.map_or(0, |(times, _)| times);
            self.timed_out = Some((before.saturating_add(1), Instant::now()));
        }
        self.verdict = Some(verdict.clone());
    }

    /// Whether it is executed anew when it is handed in again: it has ended without a result, and
    /// another try may give one. Each time that it has used up its time it waits for twice as long,
    /// so that it does not keep the thread from what may come in its place.
    pub(super) fn is_tried_again(&self) -> bool {
        let ended = matches!(self.stage, Stage::Ended);
        match &self.verdict {
            Some(Verdict::Unverified(Unverified::TimeLimit(time))) => {
                let wait = |(times, at): (u32, Instant)| {
                    at.elapsed() >= time.saturating_mul((1 << (times - 1).min(MAX_DOUBLINGS)) - 1)
                };
                ended && self.timed_out.is_none_or(wait)
            }
            Some(Verdict::Unverified(why)) => (ended || self.lost) && why.may_pass(),
            Some(_) => false,
            None => self.lost,
        }
    }

    /// The report on it.
    pub(super) fn report(&self, key: Key, verdict: Verdict) -> BlockReport {
        BlockReport {
            number: key.0,
            attempt: key.1,
            hash: self.complete.as_ref().map_or(B256::ZERO, |block| block.hash()),
            verdict,
            txs: self.snapshot.as_ref().map_or(0, |s| s.tx_count()),
            gas_used: self.snapshot.as_ref().map_or(0, |s| s.header.gas_used),
            exec_ns: self.exec_ns,
            seal_ns: self.seal_ns,
            last_frag_to_seal_ns: self
                .last_frag
                .map_or(0, |at| u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX)),
        }
    }
}
