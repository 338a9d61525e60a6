//! The leader's plan: its signed list of relays, from which all nodes derive the same tree.
//!
//! ```text
//! entry (u32): region u16 │ territory u8 │ flags u8 (bit 0: relays)
//! ```
//!
//! A plan refers to the membership table by hash and has four bytes a member. Its id is the
//! first eight bytes of its hash and stands in every shred. While nobody measures regions, a
//! plan names one region, one territory, and as relays all members that have weight.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use fragcast_shredder::codec::{self, DecodeError};

use crate::membership::{MAX_MEMBERS, Membership, PeerIndex};
use crate::shuffle::{Shuffle, WeightTree};

/// Bit 0 of an entry's flags.
const RELAY: u32 = 1 << 24;

/// A leader's choice of relays, in the table of one epoch.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Plan {
    /// Chain id.
    pub chain_id: u64,
    /// The leader's ed25519 key.
    pub leader: [u8; 32],
    /// Number of the plan; the highest that is in effect counts.
    pub version: u64,
    /// The first block it is in effect for.
    pub effective: u64,
    /// Hash of the membership table.
    pub table: [u8; 32],
    /// One entry a member, in the table's order.
    pub entries: Vec<u32>,
}

impl Plan {
    /// The longest encoding: four bytes a member and 112 more, with room for the signature.
    pub const MAX_LEN: usize = 256 + 4 * MAX_MEMBERS;

    /// The plan that configuration alone gives: every member with weight relays, or every
    /// member if none has any.
    pub fn configured(chain_id: u64, leader: [u8; 32], members: &Membership) -> Self {
        let weighted = members.members().iter().any(|m| m.weight > 0);
        let relays = members.members().iter().map(|m| m.weight > 0 || !weighted);
        let entries = relays.map(|relays| if relays { RELAY } else { 0 }).collect();
        Self { chain_id, leader, version: 0, effective: 0, table: members.hash(), entries }
    }

    fn hash(&self) -> [u8; 32] {
        blake3::derive_key("fragcast 2026 plan v1", &codec::encode(self))
    }

    /// The id in shreds: the first eight bytes of the plan's hash.
    pub fn id(&self) -> u64 {
        u64::from_le_bytes(self.hash()[..8].try_into().expect("eight bytes"))
    }

    /// Signs with the leader's key.
    pub fn sign(self, key: &SigningKey) -> SignedPlan {
        let signature = key.sign(&self.hash()).to_bytes();
        SignedPlan { plan: self, signature }
    }
}

/// A plan with its leader's signature.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct SignedPlan {
    /// The signed fields.
    pub plan: Plan,
    /// ed25519 by [`Plan::leader`].
    pub signature: [u8; 64],
}

impl SignedPlan {
    /// Whether the leader it names signed it.
    pub fn verify(&self) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        VerifyingKey::from_bytes(&self.plan.leader)
            .is_ok_and(|key| key.verify_strict(&self.plan.hash(), &signature).is_ok())
    }

    /// Decodes; the signature is not checked.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_exact::<_, { Plan::MAX_LEN }>(bytes)
    }
}

/// Bound of the draws that a plan remembers, in positions of 4 bytes: 4 MB; see `PlanView::drawn`.
const MAX_DRAWN: usize = 1 << 20;
/// Cost of an entry beside its positions, in positions: 200 bytes.
const DRAW_COST: usize = 50;

/// A draw: its seed, and the relay that is left out.
type DrawKey = ([u8; 32], Option<usize>);

/// The beginnings of shuffles that were drawn lately; the oldest goes first.
#[derive(Debug, Default)]
struct Drawn {
    orders: BTreeMap<DrawKey, Arc<[PeerIndex]>>,
    age: VecDeque<DrawKey>,
    positions: usize,
}

impl Drawn {
    fn insert(&mut self, key: DrawKey, order: Arc<[PeerIndex]>) {
        self.positions += order.len() + DRAW_COST;
        match self.orders.insert(key, order) {
            Some(shorter) => self.positions -= shorter.len() + DRAW_COST,
            None => self.age.push_back(key),
        }
        while self.positions > MAX_DRAWN
            && self.age.len() > 1
            && let Some(oldest) = self.age.pop_front()
        {
            self.positions -= self.orders.remove(&oldest).map_or(0, |o| o.len() + DRAW_COST);
        }
    }
}

/// A plan joined with its table: what routes are drawn from. 40 bytes a member.
#[derive(Debug)]
pub struct PlanView {
    id: u64,
    /// Members that relay, rising.
    relays: Vec<PeerIndex>,
    /// Their weights, in the same order; all one if nobody has weight.
    weights: WeightTree,
    /// Members that do not, rising.
    leaves: Vec<PeerIndex>,
    drawn: Mutex<Drawn>,
}

/// Why a plan cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It refers to a table that this node does not have.
    #[error("the plan refers to another membership table")]
    Table,
    /// The number of its entries is not that of the members.
    #[error("{found} entries for {members} members")]
    Entries {
        /// Entries of the plan.
        found: usize,
        /// Members of the table.
        members: usize,
    },
}

impl PlanView {
    /// Joins a plan with the table it refers to.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(plan: &Plan, members: &Membership) -> Result<Self, PlanError> {
        if plan.table != members.hash() {
            return Err(PlanError::Table);
        }
        if plan.entries.len() != members.len() {
            return Err(PlanError::Entries { found: plan.entries.len(), members: members.len() });
        }
        let (relays, leaves): (Vec<PeerIndex>, Vec<PeerIndex>) =
            (0..members.len() as PeerIndex).partition(|&i| plan.entries[i as usize] & RELAY != 0);
        // A relay without weight still has to come up in the shuffle.
        let weight = |i: &PeerIndex| members.members()[*i as usize].weight.max(1);
        let weights = WeightTree::new(&relays.iter().map(weight).collect::<Vec<_>>());
        Ok(Self { id: plan.id(), relays, weights, leaves, drawn: Mutex::default() })
    }

    /// The view of a configured plan, from weights alone: for tests and benchmarks of routes,
    /// which need no records.
    #[doc(hidden)]
    pub fn from_weights(id: u64, weights: &[u64]) -> Self {
        let weighted = weights.iter().any(|w| *w > 0);
        let (relays, leaves): (Vec<PeerIndex>, Vec<PeerIndex>) =
            (0..weights.len() as PeerIndex).partition(|i| !weighted || weights[*i as usize] > 0);
        let of: Vec<u64> = relays.iter().map(|i| weights[*i as usize].max(1)).collect();
        Self { id, relays, weights: WeightTree::new(&of), leaves, drawn: Mutex::default() }
    }

    /// The plan's id.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Members that relay, rising.
    pub fn relays(&self) -> &[PeerIndex] {
        &self.relays
    }

    /// Members that do not, rising.
    pub fn leaves(&self) -> &[PeerIndex] {
        &self.leaves
    }

    /// The weights of the relays, in their order.
    pub const fn weights(&self) -> &WeightTree {
        &self.weights
    }

    /// The first `len` relays of the shuffle of `seed`, which leaves `without` out: drawn once,
    /// however many nodes of this process ask. A node asks once a shred; a simulation asks
    /// once a shred and node, thousands of times for the same draw. [`MAX_DRAWN`] bounds what is
    /// kept.
    pub(crate) fn drawn(
        &self,
        seed: &[u8; 32],
        without: Option<usize>,
        len: usize,
    ) -> Arc<[PeerIndex]> {
        // A thread that panicked with the lock held left a cache, nothing to be inconsistent.
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (*seed, without);
        if let Some(order) = drawn.orders.get(&key).filter(|order| order.len() >= len) {
            return Arc::clone(order);
        }
        let shuffle = Shuffle::new(&self.weights, seed, without);
        let order: Arc<[PeerIndex]> = shuffle.take(len).map(|i| self.relays[i]).collect();
        drawn.insert(key, Arc::clone(&order));
        order
    }

    /// The share of all relay work, the leader's own aside, that falls on the two heaviest.
    pub fn busiest(&self, leader: PeerIndex) -> f64 {
        let mut weights: Vec<u64> = self
            .relays
            .iter()
            .zip(self.weights.iter())
            .filter(|(relay, _)| **relay != leader)
            .map(|(_, weight)| weight)
            .collect();
        weights.sort_unstable_by(|a, b| b.cmp(a));
        let total: f64 = weights.iter().map(|w| *w as f64).sum();
        let two: f64 = weights.iter().take(2).map(|w| *w as f64).sum();
        if total > 0.0 { two / total } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::sample;

    #[test]
    fn the_encoding_is_pinned() {
        let (members, keys) = sample(5, &[1, 0, 3]);
        let key = &keys[0];
        let plan = Plan::configured(5, key.verifying_key().to_bytes(), &members);
        assert_eq!(plan.entries, [RELAY, 0, RELAY]);
        assert_eq!(format!("{:016x}", plan.id()), "3b11dc4f189898bc");
        let signed = plan.sign(key);
        assert!(signed.verify());
        let bytes = codec::encode(&signed);
        assert_eq!(SignedPlan::from_bytes(&bytes).unwrap(), signed);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(!SignedPlan::from_bytes(&bad).is_ok_and(|p| p.verify()), "byte {at}");
        }
    }

    #[test]
    fn without_any_weight_everybody_relays() {
        let (members, _) = sample(5, &[0, 0, 0]);
        let plan = Plan::configured(5, [0; 32], &members);
        let view = PlanView::new(&plan, &members).unwrap();
        assert_eq!((view.relays().len(), view.leaves().len()), (3, 0));
    }

    #[test]
    fn a_plan_of_another_table_is_refused() {
        let (members, _) = sample(5, &[1, 2]);
        let (other, _) = sample(5, &[1, 3]);
        let plan = Plan::configured(5, [0; 32], &members);
        assert_eq!(PlanView::new(&plan, &other).unwrap_err(), PlanError::Table);
        let short = Plan { entries: vec![0], ..plan };
        let error = PlanError::Entries { found: 1, members: 2 };
        assert_eq!(PlanView::new(&short, &members).unwrap_err(), error);
    }

    #[test]
    fn draws_are_remembered_within_a_bound() {
        let view = PlanView::from_weights(1, &[1; 5_000]);
        for round in 0..400u64 {
            let seed = blake3::derive_key("draw", &round.to_le_bytes());
            let one = view.drawn(&seed, None, 1);
            let all = view.drawn(&seed, None, 5_000);
            assert_eq!((one[0], all.len()), (all[0], 5_000));
            assert!(Arc::ptr_eq(&all, &view.drawn(&seed, None, 7)), "not drawn again");
            assert_ne!(view.drawn(&seed, Some(all[0] as usize), 1)[0], all[0]);
            let drawn = view.drawn.lock().unwrap();
            assert!(drawn.positions <= MAX_DRAWN && drawn.orders.len() == drawn.age.len());
            assert_eq!(
                drawn.positions,
                drawn.orders.values().map(|o| o.len() + DRAW_COST).sum::<usize>()
            );
        }
    }

    #[test]
    fn the_busiest_share_leaves_the_leader_out() {
        let (members, _) = sample(5, &[50, 10, 20, 20]);
        let view = PlanView::new(&Plan::configured(5, [0; 32], &members), &members).unwrap();
        assert!((view.busiest(0) - 0.8).abs() < 1e-12);
        assert!((view.busiest(3) - 60.0 / 80.0).abs() < 0.2);
    }
}
