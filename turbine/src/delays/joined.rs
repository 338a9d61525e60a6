//! The vectors of all members of a table, joined into a matrix.

use std::sync::Arc;
use std::time::Duration;

use super::coordinates::Coordinates;
use super::{DelayMatrix, DelayVector, RttCode, WHOLE};
use crate::membership::PeerIndex;
use crate::peering::is_bounded;
use crate::time::Timestamp;

/// The least time between two vectors of a member: who signs without end is heard no more often.
const GAP: Duration = Duration::from_secs(5);
/// The least time between two generations.
const SETTLE: Duration = Duration::from_secs(2);
/// The share of the known pairs, one in so many, that makes a new generation when it has changed.
const NOTICEABLE: usize = 32;
/// Others by which a member must be reported, if there are as many.
const WITNESSES: usize = 3;
/// Rows whose members are placed again whenever one comes.
const AGAIN: usize = 4;
/// Pairs by which the coordinates' error is measured, at most.
const PROBES: usize = 4_096;

/// What a vector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Of use, if its signature is right.
    New,
    /// Not newer than what its member has told already.
    Old,
    /// Too soon after it.
    Soon,
}

/// What is known of the vectors of one table. Up to [`WHOLE`] members: two bytes a pair and
/// direction, 8 MB. Beyond: 8 bytes a code, 2 kB a member.
#[derive(Debug)]
pub(crate) struct Joined {
    matrix: Arc<DelayMatrix>,
    /// What each member says, row by row; empty in a large table, where the matrix has it.
    told: Vec<RttCode>,
    /// By member: the sequence of its vector and when it came.
    vectors: Vec<Option<(u64, Timestamp)>>,
    /// By member: how many others report it.
    heard: Vec<u32>,
    reporters: usize,
    /// Of the pairs that are known, by code.
    histogram: Box<[u32; 256]>,
    pairs: usize,
    /// Pairs that have changed since the last generation.
    changed: usize,
    generation: u64,
    generated_at: Timestamp,
    /// The row that is placed again next.
    again: usize,
    error: Option<f64>,
}

impl Joined {
    /// Of a table of this many members, of which nobody has told anything. Every pair has its place
    /// if there are no more than [`WHOLE`] members and everybody can be connected to everybody.
    pub(crate) fn new(members: usize, connections: usize) -> Self {
        let whole = members <= WHOLE && !is_bounded(members, connections);
        let (told, matrix) = match whole {
            true => (members * members, DelayMatrix::whole(members)),
            false => (0, DelayMatrix::sparse(members)),
        };
        Self {
            matrix: Arc::new(matrix),
            told: vec![RttCode::UNKNOWN; told],
            vectors: vec![None; members],
            heard: vec![0; members],
            reporters: 0,
            histogram: Box::new([0; 256]),
            pairs: 0,
            changed: 0,
            generation: 0,
            generated_at: Timestamp::default(),
            again: 0,
            error: None,
        }
    }

    /// What counts for every pair.
    pub(crate) const fn matrix(&self) -> &Arc<DelayMatrix> {
        &self.matrix
    }

    /// A number that is another one when the matrix has changed noticeably; 0 as long as nothing
    /// is known.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Pairs that are known.
    pub(crate) const fn pairs(&self) -> usize {
        self.pairs
    }

    /// Members that have told what they measured.
    pub(crate) const fn reporters(&self) -> usize {
        self.reporters
    }

    /// The median error of the coordinates, as a share, measured on pairs that are not used to
    /// place anybody; `None` without coordinates.
    pub(crate) const fn error(&self) -> Option<f64> {
        self.error
    }

    /// The median round trip over the known pairs, in µs.
    pub(crate) fn median(&self) -> Option<u32> {
        let mut before = 0;
        let codes = self.histogram.iter().zip(0..=u8::MAX);
        let median = codes.filter(|(count, _)| **count > 0).find(|(count, _)| {
            before += **count as usize;
            2 * before >= self.pairs
        });
        median.and_then(|(_, code)| RttCode::from_byte(code).micros())
    }

    /// What a vector that fits the table is, before its signature is looked at.
    pub(crate) fn step(&self, now: Timestamp, member: PeerIndex, sequence: u64) -> Step {
        match self.vectors[member as usize] {
            Some((known, _)) if sequence <= known => Step::Old,
            Some((_, at)) if now.since(at) < GAP => Step::Soon,
            _ => Step::New,
        }
    }

    /// Takes a vector that fits the table and that its member has signed.
    pub(crate) fn take(&mut self, now: Timestamp, vector: &DelayVector) {
        let pairs: Vec<_> = vector.pairs().collect();
        self.take_pairs(now, vector.member, vector.sequence, &pairs);
    }

    /// Takes what a member says, by rising index.
    pub(crate) fn take_pairs(
        &mut self,
        now: Timestamp,
        member: PeerIndex,
        sequence: u64,
        pairs: &[(PeerIndex, RttCode)],
    ) {
        let first = self.vectors[member as usize].replace((sequence, now)).is_none();
        self.reporters += usize::from(first);
        match self.told.is_empty() {
            false => self.take_whole(member, pairs),
            true => self.take_sparse(member, pairs),
        }
        let vectors = self.vectors.iter().map(Option::is_some);
        let matrix = Arc::make_mut(&mut self.matrix);
        for ((member, heard), has_told) in (0..).zip(&self.heard).zip(vectors) {
            let others = self.reporters - usize::from(has_told);
            matrix.set_reported(member, *heard as usize >= others.clamp(1, WITNESSES));
        }
        self.settle(now);
    }

    fn take_whole(&mut self, member: PeerIndex, pairs: &[(PeerIndex, RttCode)]) {
        let members = self.heard.len();
        let mut row = vec![RttCode::UNKNOWN; members];
        pairs.iter().for_each(|(other, code)| row[*other as usize] = *code);
        for (other, code) in (0..).zip(row) {
            let here = member as usize * members + other as usize;
            let before = std::mem::replace(&mut self.told[here], code);
            if before != code {
                let there = self.told[other as usize * members + member as usize];
                self.count_heard(other, before, code);
                self.count(before.join(there), code.join(there));
                Arc::make_mut(&mut self.matrix).set_code(member, other, code.join(there));
            }
        }
    }

    fn take_sparse(&mut self, member: PeerIndex, pairs: &[(PeerIndex, RttCode)]) {
        let matrix = Arc::make_mut(&mut self.matrix);
        let before: Vec<_> = matrix.row(member).to_vec();
        let mut touched: Vec<PeerIndex> = before.iter().chain(pairs).map(|(to, _)| *to).collect();
        touched.sort_unstable();
        touched.dedup();
        let old: Vec<RttCode> = touched.iter().map(|to| matrix.measured(member, *to)).collect();
        matrix.set_row(member, pairs.into());
        matrix.place(member);
        for _ in 0..AGAIN {
            matrix.place(self.again as PeerIndex);
            self.again = (self.again + 1) % self.heard.len();
        }
        let new: Vec<RttCode> = touched.iter().map(|to| matrix.measured(member, *to)).collect();
        for (old, new) in old.into_iter().zip(new) {
            self.count(old, new);
        }
        before.iter().for_each(|(to, code)| self.count_heard(*to, *code, RttCode::UNKNOWN));
        pairs.iter().for_each(|(to, code)| self.count_heard(*to, RttCode::UNKNOWN, *code));
    }

    fn count_heard(&mut self, member: PeerIndex, before: RttCode, after: RttCode) {
        let heard = &mut self.heard[member as usize];
        *heard = *heard + u32::from(after.is_known()) - u32::from(before.is_known());
    }

    /// Counts a pair that changes.
    fn count(&mut self, before: RttCode, after: RttCode) {
        for (code, is_new) in [(before, false), (after, true)] {
            if code.is_known() {
                let count = &mut self.histogram[usize::from(code.to_byte())];
                (*count, self.pairs) = match is_new {
                    true => (*count + 1, self.pairs + 1),
                    false => (*count - 1, self.pairs - 1),
                };
            }
        }
        self.changed += usize::from(before.differs(after));
    }

    /// Begins a generation if enough has changed since the last.
    pub(crate) fn settle(&mut self, now: Timestamp) {
        let enough = self.changed > 0 && self.changed * NOTICEABLE >= self.pairs;
        if enough && (self.generation == 0 || now.since(self.generated_at) >= SETTLE) {
            self.generation += 1;
            self.generated_at = now;
            self.changed = 0;
            self.error = self.measure_error();
        }
    }

    /// The median error over pairs that are held out.
    fn measure_error(&self) -> Option<f64> {
        let coordinates = self.matrix.coordinates()?;
        let members = 0..self.heard.len() as PeerIndex;
        let pairs = members.flat_map(|a| self.matrix.row(a).iter().map(move |(b, _)| (a, *b)));
        let held_out = pairs.filter(|(a, b)| Coordinates::is_held_out(*a, *b));
        let every = (self.pairs / 8 / PROBES).max(1);
        let errors = held_out.step_by(every).take(PROBES).filter_map(|(a, b)| {
            let measured = f64::from(self.matrix.measured(a, b).micros()?);
            let guessed = f64::from(coordinates.between(a, b).micros()?);
            Some((guessed - measured).abs() / measured)
        });
        let mut errors: Vec<f64> = errors.collect();
        errors.sort_unstable_by(f64::total_cmp);
        errors.get(errors.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests;
