//! Which gateway leads a block: `gateways[(block / blocks_per_term) % len]`, the registry's rule.

use alloy_primitives::Address;

/// The registry's default.
pub const BLOCKS_PER_TERM: u64 = 30;

/// The rotation of gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    gateways: Vec<Address>,
    blocks_per_term: u64,
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
        Ok(Self { gateways, blocks_per_term })
    }

    /// The gateways, in order of rotation.
    pub fn gateways(&self) -> &[Address] {
        &self.gateways
    }

    /// Blocks that a gateway leads at a time.
    pub const fn blocks_per_term(&self) -> u64 {
        self.blocks_per_term
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
    }
}
