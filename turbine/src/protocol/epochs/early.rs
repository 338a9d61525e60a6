//! Delegations that come before their gateway does.
//!
//! Nodes learn of a registration at different moments, and a delegation is told once: to whom does
//! not know the gateway yet, it would be lost until the next greeting. So it is kept until an epoch
//! has the gateway. Anybody can sign for a gateway that does not exist. Hence each peer that sends
//! such has a share, in which its oldest makes room; nothing is passed on before an epoch has taken
//! it, so no peer can fill another's share.
//!
//! Memory: [`MAX_EARLY`] of 250 bytes.

use std::collections::VecDeque;

use alloy_primitives::Address;

use crate::delegation::SignedDelegation;
use crate::peer::PeerKey;

/// Delegations that are kept, of one peer and in all.
pub(super) const MAX_OF_ONE: usize = 64;
pub(super) const MAX_EARLY: usize = 2_048;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Early(VecDeque<(PeerKey, Address, SignedDelegation)>);

impl Early {
    /// Whether exactly this is kept.
    pub(super) fn contains(&self, signed: &SignedDelegation) -> bool {
        self.0.iter().any(|(_, _, kept)| kept == signed)
    }

    /// Keeps what `from` has sent.
    pub(super) fn keep(&mut self, from: PeerKey, gateway: Address, signed: SignedDelegation) {
        let of_one = self.0.iter().filter(|(peer, ..)| *peer == from).count();
        let oldest = match of_one >= MAX_OF_ONE {
            true => self.0.iter().position(|(peer, ..)| *peer == from),
            false => (self.0.len() >= MAX_EARLY).then_some(0),
        };
        oldest.and_then(|oldest| self.0.remove(oldest));
        self.0.push_back((from, gateway, signed));
    }

    /// Those of some gateways, with the gateway.
    pub(super) fn of(&self, gateways: &[Address]) -> Vec<(Address, SignedDelegation)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let known: std::collections::BTreeSet<&Address> = gateways.iter().collect();
        let theirs = self.0.iter().filter(|(_, gateway, _)| known.contains(gateway));
        theirs.map(|(_, gateway, signed)| (*gateway, *signed)).collect()
    }

    /// Forgets those of some gateways: an epoch has them.
    pub(super) fn forget(&mut self, gateways: &[Address]) {
        let known: std::collections::BTreeSet<&Address> = gateways.iter().collect();
        self.0.retain(|(_, gateway, _)| !known.contains(gateway));
    }
}

#[cfg(test)]
mod tests {
    use fragcast_shredder::GatewayKey;

    use super::*;
    use crate::delegation::Delegation;
    use crate::peer::PeerId;

    fn signed(gateway: u8, sequence: u64) -> (Address, SignedDelegation) {
        let key = GatewayKey::from_bytes([gateway; 32]).unwrap();
        let leader = ed25519_dalek::SigningKey::from_bytes(&[gateway; 32]).verifying_key();
        let peer = PeerId([gateway; 32]);
        let last = u64::MAX;
        let delegation =
            Delegation { chain_id: 5, first: 0, last, sequence, peer, key: leader.to_bytes() };
        (key.address(), delegation.sign(&key))
    }

    #[test]
    fn who_sends_delegations_of_nobody_pushes_out_its_own_alone() {
        let mut early = Early::default();
        let (address, first) = signed(1, 0);
        early.keep(PeerKey::from(1), address, first);
        let flood: Vec<_> = (0..2 * MAX_OF_ONE as u64).map(|n| signed(2, n)).collect();
        flood.iter().for_each(|(gateway, signed)| early.keep(PeerKey::from(2), *gateway, *signed));
        assert_eq!(early.0.len(), 1 + MAX_OF_ONE);
        assert!(early.contains(&first) && !early.contains(&flood[0].1));
        assert_eq!(early.of(&[address]), [(address, first)]);
        early.forget(&[address]);
        assert!(early.of(&[address]).is_empty() && early.0.len() == MAX_OF_ONE);
    }

    #[test]
    fn a_full_table_makes_room_by_age() {
        let mut early = Early::default();
        let all: Vec<_> = (0..=MAX_EARLY as u64).map(|n| signed(3, n)).collect();
        for (n, (gateway, signed)) in (0..).zip(&all) {
            early.keep(PeerKey::from(n / MAX_OF_ONE as u32), *gateway, *signed);
        }
        assert_eq!(early.0.len(), MAX_EARLY);
        assert!(!early.contains(&all[0].1) && early.contains(&all[1].1));
    }
}
