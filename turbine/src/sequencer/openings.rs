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
//! Where substitutes may lead, only the openings of the lowest rank that has made any count, and
//! attempts are numbered from the first one of that rank.
//!
//! Why not by timestamps in the Env? A block that is built again often has the same.

use alloy_primitives::B256;

use super::MAX_ATTEMPTS;
use super::candidates::{Candidate, bit};
use crate::schedule::first_attempt;

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
    /// The attempt that the overlay says it is: the last, if the same Env opened several. Those below
    /// `first` are of substitutes that have signed the same.
    fn attempt(&self, first: u8) -> Option<u8> {
        let own = self.env.signed & !(bit(first) - 1);
        own.checked_ilog2().map(|n| n as u8)
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
pub(super) struct Openings {
    pub(super) all: Vec<Opening>,
    /// Gateways that may lead the block beside the scheduled one.
    substitutes: u8,
}

impl Openings {
    pub(super) const fn new(substitutes: u8) -> Self {
        Self { all: Vec::new(), substitutes }
    }

    /// The rank that counts: the lowest.
    fn lead(&self) -> u8 {
        self.all.iter().map(|opening| opening.env.lead).min().unwrap_or(0)
    }

    /// The number of the first attempt of a rank.
    pub(super) const fn first_of(&self, lead: u8) -> u8 {
        first_attempt(self.substitutes, lead)
    }

    /// Whether there is one opening of this rank.
    pub(super) fn is_lone(&self, lead: u8) -> bool {
        self.all.iter().filter(|opening| opening.env.lead == lead).count() == 1
    }

    /// The newest attempt of which the overlay has brought the Env.
    pub(super) fn newest_signed(&self) -> Option<u8> {
        self.all.iter().filter_map(|opening| opening.attempt(0)).max()
    }

    /// The number of a rank's that gossip alone has brought.
    pub(super) fn unsigned(&self, lead: u8) -> usize {
        let unsigned = |env: &Candidate| env.signed == 0 && env.lead == lead;
        self.all.iter().filter(|opening| unsigned(&opening.env)).count()
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
        let lead = self.lead();
        let first = self.first_of(lead);
        let own =
            || self.all.iter().enumerate().filter(move |(_, opening)| opening.env.lead == lead);
        let signed = own().filter_map(|(_, opening)| opening.attempt(first)).max();
        let known = own().fold(0, |known, (_, opening)| known | opening.env.signed);
        let mut old = (first..signed.unwrap_or(first)).filter(|n| known & bit(*n) == 0);
        let mut new = signed.map_or(first, |n| n + 1);
        // The overlay has so many attempts and no more: what would be newer is made up.
        let is_possible = |number: u8| signed.is_none() || number < MAX_ATTEMPTS;
        let mut newest = None;
        for (at, opening) in own() {
            let number = match opening.attempt(first) {
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
        if self.all.len() == 1 {
            return None;
        }
        let signed = self.newest_signed();
        let now = &self.all[current];
        // Of an attempt that has an Env already it says nothing about the others.
        let tells = |seal: &&Candidate| match seal.signed.checked_ilog2() {
            Some(number) => signed.is_none_or(|signed| number as u8 > signed),
            None => true,
        };
        let own = |seal: &Candidate| {
            now.fits(seal)
                && seal.lead == now.env.lead
                && (seal.rank > now.env.rank || seal.signed & now.env.signed != 0)
        };
        if seals.iter().any(own) {
            return None;
        }
        let mut after: Vec<_> = seals
            .iter()
            .filter(tells)
            .filter(|seal| seal.rank > now.env.rank && seal.lead == now.env.lead)
            .collect();
        after.sort_unstable_by_key(|seal| std::cmp::Reverse(seal.rank));
        after.into_iter().find_map(|seal| {
            let mut all = self.all.iter().enumerate().rev();
            let own = |env: &Candidate| env.signed == 0 && env.lead == now.env.lead;
            let (at, _) = all.find(|(_, o)| own(&o.env) && o.fits(seal))?;
            Some((at, seal.signed.checked_ilog2().unwrap_or(0) as u8))
        })
    }
}
