//! The openings of a block: the newest, and the attempt of each.
//!
//! The overlay numbers attempts, gossip does not. An opening that gossip alone has brought is
//! *presumed* to be one that the overlay has not told of:
//!
//! * If the overlay's newest is attempt `a`, there were `a` openings before it. As long as fewer
//!   are known, an unknown Env, the first to come first, is taken for one of those, so that an
//!   old Env that is replayed supersedes nothing.
//! * All others must be newer, and are numbered in the order of their arrival.
//! * A Seal may know better: if it contradicts the one that counts, came after it, and fits
//!   another unknown one, then gossip has swapped the two.
//!
//! Why not by timestamps in the Env? A block that is built again often has the same.

use alloy_primitives::B256;

use super::MAX_ATTEMPTS;
use super::candidates::{Candidate, bit};

/// Openings that gossip alone has brought.
pub(super) const MAX_UNSIGNED: usize = 8;

/// An opening whose Env is known.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) env: Candidate,
    pub(super) parent_hash: B256,
    pub(super) gas_limit: u64,
}

impl Opening {
    /// The attempt that the overlay says it is: the last, if the same Env opened several.
    fn attempt(&self) -> Option<u8> {
        self.env.signed.checked_ilog2().map(|n| n as u8)
    }

    /// Whether the Seal says what this Env says.
    pub(super) fn fits(&self, seal: &Candidate) -> bool {
        seal.seal().is_some_and(|seal| {
            seal.parent_hash == self.parent_hash && seal.gas_limit == self.gas_limit
        })
    }
}

/// All openings of a block, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Openings(pub(super) Vec<Opening>);

impl Openings {
    /// The newest attempt of which the overlay has brought the Env.
    pub(super) fn newest_signed(&self) -> Option<u8> {
        self.0.iter().filter_map(Opening::attempt).max()
    }

    /// The number that gossip alone has brought.
    pub(super) fn unsigned(&self) -> usize {
        self.0.iter().filter(|opening| opening.env.signed == 0).count()
    }

    /// The newest opening and its number.
    pub(super) fn current(&self, seals: &[Candidate]) -> Option<(usize, u8)> {
        let by_arrival = self.newest(None)?;
        match self.better(by_arrival.0, seals) {
            Some(swapped) => self.newest(Some(swapped)),
            None => Some(by_arrival),
        }
    }

    /// The opening with the highest number; `last` and its least number is taken for the newest.
    fn newest(&self, last: Option<(usize, u8)>) -> Option<(usize, u8)> {
        let signed = self.newest_signed();
        let known = self.0.iter().fold(0, |known, opening| known | opening.env.signed);
        let mut old = (0..signed.unwrap_or(0)).filter(|n| known & bit(*n) == 0);
        let mut new = signed.map_or(0, |n| n + 1);
        // The overlay has so many attempts and no more: what would be newer is made up.
        let is_possible = |number: u8| signed.is_none() || number < MAX_ATTEMPTS;
        let mut newest = None;
        for (at, opening) in self.0.iter().enumerate() {
            let number = match opening.attempt() {
                Some(number) => number,
                None if last.is_some_and(|(last, _)| last == at) => continue,
                None => old.next().unwrap_or_else(|| {
                    new += 1;
                    new - 1
                }),
            };
            if is_possible(number) {
                newest = newest.max(Some((number, at)));
            }
        }
        if let Some((at, least)) = last
            && is_possible(new.max(least))
        {
            newest = Some((new.max(least), at));
        }
        newest.map(|(number, at)| (at, number))
    }

    /// The opening that a Seal prefers to `current`, and its least number.
    fn better(&self, current: usize, seals: &[Candidate]) -> Option<(usize, u8)> {
        if self.0.len() == 1 {
            return None;
        }
        let signed = self.newest_signed();
        let now = &self.0[current];
        // Of an attempt that has an Env already it says nothing about the others.
        let tells = |seal: &&Candidate| match seal.signed.checked_ilog2() {
            Some(number) => signed.is_none_or(|signed| number as u8 > signed),
            None => true,
        };
        let own = |seal: &Candidate| {
            now.fits(seal) && (seal.rank > now.env.rank || seal.signed & now.env.signed != 0)
        };
        if seals.iter().any(own) {
            return None;
        }
        let mut after: Vec<_> =
            seals.iter().filter(tells).filter(|seal| seal.rank > now.env.rank).collect();
        after.sort_unstable_by_key(|seal| std::cmp::Reverse(seal.rank));
        after.into_iter().find_map(|seal| {
            let mut all = self.0.iter().enumerate().rev();
            let (at, _) = all.find(|(_, o)| o.env.signed == 0 && o.fits(seal))?;
            Some((at, seal.signed.checked_ilog2().unwrap_or(0) as u8))
        })
    }
}
