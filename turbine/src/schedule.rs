//! Which gateway leads a block: `gateways[(block / blocks_per_term) % len]`, the registry's rule.
//!
//! With *substitutes* the next registered gateways may lead a block as well, when no Env of it came
//! in time. The scheduled gateway has rank 0, the next one rank 1, and so on, and the lower rank wins.
//! The number of an attempt says by which rank it was made, so no message needs a field for it, and
//! that a lower rank supersedes a higher one is the rule that a newer attempt supersedes an older one:
//!
//! ```text
//! attempt          0  1  2  3  4  5  6  7
//! no substitutes   └──────── rank 0 ────┘
//! one              └ 1 ┘ └── rank 0 ────┘
//! two              └ 2 ┘ └ 1 ┘ └ rank 0 ┘
//! ```
//!
//! So the number of substitutes is a setting of the whole network, as the length of a term is. A node
//! without it takes the scheduled gateway's attempts and cannot check those of substitutes. It is
//! turned on at the nodes that lead before it is at the others.

use std::ops::RangeInclusive;

use alloy_primitives::Address;
use fragcast_shredder::shred::MAX_ATTEMPTS;

/// The registry's default.
pub const BLOCKS_PER_TERM: u64 = 30;
/// Gateways that may lead a block beside the scheduled one, at most.
pub const MAX_SUBSTITUTES: u8 = 3;
/// Times that a substitute may open a block.
const ATTEMPTS_OF_SUBSTITUTE: u8 = 2;

/// The rotation of gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    gateways: Vec<Address>,
    blocks_per_term: u64,
    substitutes: u8,
}

/// By what right a gateway leads a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lead {
    /// 0 of the scheduled gateway; of the substitutes 1 and more, and the lower rank wins.
    pub rank: u8,
    /// The number of its first attempt.
    pub first_attempt: u8,
    /// The number of its last attempt.
    pub last_attempt: u8,
}

impl Lead {
    /// The numbers of its attempts.
    pub const fn attempts(&self) -> RangeInclusive<u8> {
        self.first_attempt..=self.last_attempt
    }
}

/// Why there is no schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// There is no gateway.
    #[error("a schedule needs at least one gateway")]
    NoGateway,
    /// A term without blocks.
    #[error("blocks_per_term must be at least 1")]
    EmptyTerm,
    /// More substitutes than there are numbers for.
    #[error("{0} substitutes are too many: {MAX_SUBSTITUTES} at most")]
    Substitutes(u8),
}

impl Schedule {
    /// A rotation over `gateways`, each leading `blocks_per_term` blocks at a time.
    ///
    /// # Errors
    /// [`ScheduleError`].
    pub fn new(gateways: Vec<Address>, blocks_per_term: u64) -> Result<Self, ScheduleError> {
        if gateways.is_empty() {
            return Err(ScheduleError::NoGateway);
        }
        if blocks_per_term == 0 {
            return Err(ScheduleError::EmptyTerm);
        }
        Ok(Self { gateways, blocks_per_term, substitutes: 0 })
    }

    /// The same with so many substitutes.
    ///
    /// # Errors
    /// [`ScheduleError::Substitutes`].
    pub fn with_substitutes(self, substitutes: u8) -> Result<Self, ScheduleError> {
        if substitutes > MAX_SUBSTITUTES {
            return Err(ScheduleError::Substitutes(substitutes));
        }
        Ok(Self { substitutes, ..self })
    }

    /// The same rules for another list of gateways.
    ///
    /// # Errors
    /// [`ScheduleError::NoGateway`].
    pub fn with_gateways(&self, gateways: Vec<Address>) -> Result<Self, ScheduleError> {
        Self::new(gateways, self.blocks_per_term)?.with_substitutes(self.substitutes)
    }

    /// The gateways, in order of rotation.
    pub fn gateways(&self) -> &[Address] {
        &self.gateways
    }

    /// Blocks that a gateway leads at a time.
    pub const fn blocks_per_term(&self) -> u64 {
        self.blocks_per_term
    }

    /// Gateways that may lead a block beside the scheduled one.
    pub const fn substitutes(&self) -> u8 {
        self.substitutes
    }

    /// Hash of the gateways' addresses in the order of the rotation, as terms have it.
    pub fn rotation_hash(&self) -> [u8; 32] {
        rotation_hash(&self.gateways)
    }

    /// The term of a block.
    pub const fn term(&self, block: u64) -> u64 {
        block / self.blocks_per_term
    }

    /// The gateway of a block.
    pub fn gateway(&self, block: u64) -> Address {
        let len = self.gateways.len() as u64;
        self.gateways[(self.term(block) % len) as usize]
    }

    /// The gateways that may lead a block, each once and with its rank: the scheduled one, then its
    /// substitutes.
    pub fn ranked(&self, block: u64) -> impl Iterator<Item = (u8, Address)> + '_ {
        let (term, len) = (self.term(block), self.gateways.len() as u64);
        let mut next = (1..len).map(|ahead| self.gateways[((term % len + ahead) % len) as usize]);
        let mut known = [Some(self.gateway(block)), None, None, None];
        for place in 1..=usize::from(self.substitutes) {
            known[place] = next.find(|gateway| !known.contains(&Some(*gateway)));
        }
        (0..).zip(known.into_iter().flatten())
    }

    /// By what right a gateway leads a block, if it may.
    pub fn lead(&self, block: u64, gateway: &Address) -> Option<Lead> {
        let (rank, _) = self.ranked(block).find(|(_, ranked)| ranked == gateway)?;
        let first_attempt = first_attempt(self.substitutes, rank);
        let last_attempt = match rank {
            0 => MAX_ATTEMPTS - 1,
            _ => first_attempt + ATTEMPTS_OF_SUBSTITUTE - 1,
        };
        Some(Lead { rank, first_attempt, last_attempt })
    }

    /// The rank whose attempts have this number.
    pub const fn rank(&self, attempt: u8) -> u8 {
        self.substitutes.saturating_sub(attempt / ATTEMPTS_OF_SUBSTITUTE)
    }

    /// The gateway whose attempt of a block has this number; `None` if there are not so many.
    pub fn gateway_of(&self, block: u64, attempt: u8) -> Option<Address> {
        match self.rank(attempt) {
            0 => Some(self.gateway(block)),
            rank => self.ranked(block).find(|(of, _)| *of == rank).map(|(_, gateway)| gateway),
        }
    }

    /// Blocks after which the rotation comes round.
    pub const fn rotation(&self) -> u64 {
        self.blocks_per_term.saturating_mul(self.gateways.len() as u64)
    }

    /// The gateways of the terms after `block`'s, with the first block of each, until the
    /// rotation comes round to `block`'s own.
    pub fn next(&self, block: u64) -> impl Iterator<Item = (Address, u64)> + '_ {
        let term = self.term(block);
        let current = self.gateway(block);
        (1..self.gateways.len() as u64)
            .filter_map(move |ahead| {
                let first = term.checked_add(ahead)?.checked_mul(self.blocks_per_term)?;
                Some((self.gateway(first), first))
            })
            .take_while(move |(gateway, _)| *gateway != current)
    }
}

/// The number of the first attempt of a rank, where there are so many substitutes.
pub const fn first_attempt(substitutes: u8, rank: u8) -> u8 {
    ATTEMPTS_OF_SUBSTITUTE * substitutes.saturating_sub(rank)
}

/// Hash of addresses in the order of a rotation.
pub(crate) fn rotation_hash(gateways: &[Address]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("fragcast 2026 gateways v1");
    for gateway in gateways {
        hasher.update(gateway.as_slice());
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_rotate_over_the_gateways() {
        let gateways: Vec<_> = (1..=3).map(Address::with_last_byte).collect();
        let schedule = Schedule::new(gateways.clone(), 30).unwrap();
        let at = |block| gateways.iter().position(|g| *g == schedule.gateway(block)).unwrap();
        assert_eq!((at(0), at(29), at(30), at(89), at(90)), (0, 0, 1, 2, 0));
        assert_eq!(schedule.next(45).collect::<Vec<_>>(), [(gateways[2], 60), (gateways[0], 90)]);
        assert_eq!(schedule.next(u64::MAX).count(), 0, "no overflow at the end of numbers");
    }

    #[test]
    fn a_single_gateway_follows_itself() {
        let schedule = Schedule::new(vec![Address::ZERO], 1).unwrap();
        assert_eq!(schedule.next(7).count(), 0);
        assert_eq!(Schedule::new(vec![], 1), Err(ScheduleError::NoGateway));
        assert_eq!(Schedule::new(vec![Address::ZERO], 0), Err(ScheduleError::EmptyTerm));
        let alone = schedule.with_substitutes(2).unwrap();
        assert_eq!(alone.ranked(7).collect::<Vec<_>>(), [(0, Address::ZERO)]);
        assert_eq!((alone.gateway_of(7, 0), alone.gateway_of(7, 4)), (None, Some(Address::ZERO)));
        assert_eq!(alone.with_substitutes(4), Err(ScheduleError::Substitutes(4)));
    }

    #[test]
    fn attempts_say_who_leads_and_a_lower_rank_has_higher_numbers() {
        let [a, b, c] = [1, 2, 3].map(Address::with_last_byte);
        // Registered twice in a row, it counts once.
        let schedule = Schedule::new(vec![a, b, b, c], 10).unwrap();
        let of = |n: u8, block| {
            let schedule = schedule.clone().with_substitutes(n).unwrap();
            assert!(schedule.ranked(block).all(|(rank, gateway)| {
                let lead = schedule.lead(block, &gateway).unwrap();
                let fits = |attempt| {
                    schedule.rank(attempt) == rank
                        && schedule.gateway_of(block, attempt) == Some(gateway)
                };
                lead.rank == rank && lead.attempts().all(fits)
            }));
            (0..MAX_ATTEMPTS).map(|n| schedule.gateway_of(block, n)).collect::<Vec<_>>()
        };
        assert_eq!(of(0, 9), [Some(a); 8]);
        assert_eq!(of(1, 9), [b, b, a, a, a, a, a, a].map(Some));
        assert_eq!(of(2, 19), [a, a, c, c, b, b, b, b].map(Some));
        // Three registered gateways are no more with three substitutes.
        assert_eq!(of(3, 30)[..4], [None, None, Some(b), Some(b)]);
        let with = schedule.clone().with_substitutes(1).unwrap().with_gateways(vec![c, a]).unwrap();
        assert_eq!((with.substitutes(), with.gateway_of(0, 0)), (1, Some(a)));
        assert_eq!(with.lead(0, &b), None);
    }
}
