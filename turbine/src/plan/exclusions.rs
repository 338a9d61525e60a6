//! Exclusion masks: relays that a leader takes out of a plan between two plans.
//!
//! ```text
//! chain id u64 │ leader key 32 │ plan id u64 │ sequence u64 │ relays: bytes │ heads: bytes │ signature 64
//! ```
//!
//! A bit a member and list, by place in the table (byte i / 8, from the lowest): who relays nothing,
//! and who is only no head of its region.
//!
//! All nodes must derive the same tree from the same shred. So a plan under a mask is a plan of its
//! own, with an id that follows from the plan's and the bits; shreds name it, and nobody can take
//! one mask for another. Who has not got the mask knows no plan of that id, as with any plan.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use fragcast_shredder::codec::{self, DecodeError};

use super::{Entry, Plan, PlanError, PlanView, Regions};
use crate::membership::{MAX_MEMBERS, Membership, PeerIndex};
use crate::shuffle::WeightTree;

/// Relays that are taken out of a plan.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Exclusions {
    /// Chain id.
    pub chain_id: u64,
    /// The leader's ed25519 key.
    pub leader: [u8; 32],
    /// The id of the plan that they are taken out of.
    pub plan: u64,
    /// Rises from mask to mask of a leader: µs since the Unix epoch when it was made.
    pub sequence: u64,
    relays: Vec<u8>,
    heads: Vec<u8>,
}

fn bits(members: usize, set: &[PeerIndex]) -> Vec<u8> {
    let mut bytes = vec![0; members.div_ceil(8)];
    set.iter().for_each(|index| bytes[*index as usize / 8] |= 1 << (index % 8));
    bytes
}

fn has(bytes: &[u8], index: PeerIndex) -> bool {
    bytes.get(index as usize / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

impl Exclusions {
    /// A mask over a plan of a table of `members`. `relays` are to relay nothing, `heads` are to be
    /// no heads of their regions; all of them are members.
    pub fn new(
        (chain_id, leader, plan): (u64, [u8; 32], u64),
        sequence: u64,
        members: usize,
        (relays, heads): (&[PeerIndex], &[PeerIndex]),
    ) -> Self {
        let (relays, heads) = (bits(members, relays), bits(members, heads));
        Self { chain_id, leader, plan, sequence, relays, heads }
    }

    /// Whether it has the form of a mask over a plan of a table of `members`.
    pub fn fits(&self, members: usize) -> bool {
        let beyond = |bytes: &[u8]| (members as u32..).take(8).any(|index| has(bytes, index));
        let fits = |bytes: &[u8]| bytes.len() == members.div_ceil(8) && !beyond(bytes);
        fits(&self.relays) && fits(&self.heads)
    }

    /// The id in shreds of the plan under this mask. It depends on the plan and the bits alone.
    pub fn id(&self) -> u64 {
        let mut hasher = blake3::Hasher::new_derive_key("fragcast 2026 plan under exclusions v1");
        hasher.update(&self.plan.to_le_bytes()).update(&self.relays).update(&self.heads);
        u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes"))
    }

    /// The plan `view` of the table `members` under this mask, which [fits](Self::fits): as if the
    /// excluded relayed nothing.
    ///
    /// # Errors
    /// [`PlanError`], if `view` is not of this table.
    pub fn apply(&self, view: &PlanView, members: &Membership) -> Result<PlanView, PlanError> {
        let weights: Vec<u64> = members.members().iter().map(|member| member.weight).collect();
        let found = view.relays().len() + view.leaves().len();
        if found != weights.len() {
            return Err(PlanError::Entries { found, members: weights.len() });
        }
        let regions = view.regions();
        let mut entries: Vec<Entry> = (0..found as PeerIndex)
            .map(|member| Entry {
                region: regions.of(member),
                territory: regions.territory(member),
                ..Entry::default()
            })
            .collect();
        let stays = |peer: PeerIndex| !has(&self.relays, peer);
        let relays: Vec<PeerIndex> =
            view.relays().iter().copied().filter(|peer| stays(*peer)).collect();
        relays.iter().for_each(|peer| entries[*peer as usize].relays = true);
        for head in regions.regions().iter().flat_map(|region| &region.heads) {
            if stays(head.peer) && !has(&self.heads, head.peer) {
                entries[head.peer as usize].heads = head.classes;
            }
        }
        let roots = regions.roots().iter().flatten().filter(|root| stays(root.peer));
        let roots = roots.map(|root| Plan::root(root.peer, root.class));
        let entries = entries.iter().map(|entry| entry.to_bits()).chain(roots).collect();
        let masked = Regions::new(&Plan { entries, ..Plan::default() }, &weights)?;
        let leaves = (0..found as PeerIndex).filter(|peer| relays.binary_search(peer).is_err());
        let leaves = leaves.collect();
        let of: Vec<u64> = relays.iter().map(|peer| weights[*peer as usize].max(1)).collect();
        Ok(PlanView::of(self.id(), relays, WeightTree::new(&of), leaves, masked))
    }

    fn digest(&self) -> [u8; 32] {
        blake3::derive_key("fragcast 2026 exclusions v1", &codec::encode(self))
    }

    /// Signs with the leader's key.
    pub fn sign(self, key: &SigningKey) -> SignedExclusions {
        let signature = key.sign(&self.digest()).to_bytes();
        SignedExclusions { exclusions: self, signature }
    }
}

/// A mask with its leader's signature.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct SignedExclusions {
    /// The signed fields.
    pub exclusions: Exclusions,
    /// ed25519 by [`Exclusions::leader`].
    pub signature: [u8; 64],
}

impl SignedExclusions {
    /// The longest encoding: two bits a member and 136 bytes more.
    const MAX_LEN: usize = 256 + MAX_MEMBERS / 4;

    /// Whether the leader it names signed it.
    pub fn verify(&self) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        VerifyingKey::from_bytes(&self.exclusions.leader)
            .is_ok_and(|key| key.verify_strict(&self.exclusions.digest(), &signature).is_ok())
    }

    /// Decodes; neither form nor signature is checked.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_exact::<_, { Self::MAX_LEN }>(bytes)
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::hex;

    use super::*;
    use crate::control::Control;
    use crate::membership::sample;
    use crate::route::{Route, Slot, Tree};

    fn exclusions(members: usize, relays: &[u32], heads: &[u32]) -> Exclusions {
        Exclusions::new((5, [7; 32], 9), 3, members, (relays, heads))
    }

    #[test]
    fn the_frame_is_pinned() {
        let (_, keys) = sample(5, &[1]);
        let leader = keys[0].verifying_key().to_bytes();
        let signed = Exclusions { leader, ..exclusions(10, &[0, 9], &[3]) }.sign(&keys[0]);
        assert!(signed.verify());
        assert_eq!(format!("{:016x}", signed.exclusions.id()), "7abe73852c7f8053");
        let frame = Control::Exclusions(Box::new(signed.clone())).to_bytes();
        let expected = format!(
            "110500000000000000{}0900000000000000030000000000000002000000000000000102\
             02000000000000000800{}",
            hex::encode(leader),
            hex::encode(signed.signature)
        );
        assert_eq!(hex::encode(&frame), expected);
        assert_eq!(Control::from_bytes(&frame), Ok(Control::Exclusions(Box::new(signed))));
        for at in 1..frame.len() {
            let mut bad = frame.to_vec();
            bad[at] ^= 1;
            let valid = SignedExclusions::from_bytes(&bad[1..]).is_ok_and(|bad| bad.verify());
            assert!(!valid, "byte {at}");
        }
        // A list that claims what is not there allocates nothing.
        let mut claims = frame.to_vec();
        claims[57..65].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Control::from_bytes(&claims).is_err());
    }

    #[test]
    fn the_largest_mask_has_room_and_others_than_the_tables_do_not_fit() {
        for members in [1, 8, 9, 10_000, MAX_MEMBERS] {
            let last = [members as u32 - 1];
            let mask = exclusions(members, &last, &last);
            assert!(mask.fits(members) && !mask.fits(members + 8), "{members}");
            assert!(!mask.fits(members - 1), "a bit beyond {members}");
            let signed = SignedExclusions { exclusions: mask, signature: [0; 64] };
            let bytes = codec::encode(&signed);
            assert!(bytes.len() < crate::control::MAX_CONTROL_LEN);
            assert_eq!(SignedExclusions::from_bytes(&bytes), Ok(signed));
        }
    }

    /// Twelve members in three regions of four; all may be heads, four are roots.
    fn plan(weights: &[u64]) -> (Membership, PlanView) {
        let (members, _) = sample(5, weights);
        let entry =
            |i: usize| Entry { region: (i / 4) as u16, relays: true, heads: 1, ..Entry::default() };
        let roots = [1, 5, 9, 2].map(|member| Plan::root(member, 0));
        let entries = (0..12).map(|i| entry(i).to_bits()).chain(roots).collect();
        let plan = Plan { table: members.hash(), entries, ..Plan::default() };
        let view = PlanView::new(&plan, &members).unwrap();
        (members, view)
    }

    #[test]
    fn under_a_mask_nobody_who_is_excluded_relays_and_everybody_is_reached() {
        let (members, view) = plan(&[3, 1, 2, 5, 1, 1, 1, 1, 7, 1, 1, 1]);
        let mask = exclusions(12, &[1, 8], &[6]);
        let masked = mask.apply(&view, &members).unwrap();
        assert_eq!(masked.id(), mask.id());
        assert_eq!((masked.relays().len(), masked.leaves()), (10, &[1, 8][..]));
        let routes = [Route::Rotor, Route::Turbine { fanout: 2 }, Route::Regional { roots: 4 }];
        for (route, set) in routes.into_iter().flat_map(|route| (0..30).map(move |s| (route, s))) {
            for index in 0..8 {
                let slot = Slot { index, k: 4, m: 4 };
                let tree = Tree::new(&masked, route, 0, &[set; 32], slot);
                let mut reached = Vec::new();
                for sender in 0..12 {
                    let before = reached.len();
                    tree.children(sender, &mut reached);
                    let sent = reached.len() - before;
                    let regional = matches!(route, Route::Regional { .. });
                    let excluded = matches!(sender, 1 | 8) || sender == 6 && regional;
                    assert!(sent == 0 || !excluded, "{sender} on {route:?}");
                }
                reached.sort_unstable();
                assert_eq!(reached, (1..12).collect::<Vec<_>>(), "{route:?}");
            }
        }
    }

    #[test]
    fn a_mask_without_bits_changes_nothing_but_the_id() {
        let (members, view) = plan(&[3, 1, 2, 5, 1, 1, 1, 1, 7, 1, 1, 1]);
        let masked = exclusions(12, &[], &[]).apply(&view, &members).unwrap();
        assert!(masked.id() != view.id() && masked.relays() == view.relays());
        assert_eq!(masked.weights(), view.weights());
        assert_eq!(masked.regions().roots(), view.regions().roots());
        let heads = |view: &PlanView| -> Vec<_> {
            view.regions().regions().iter().map(|region| region.heads.clone()).collect()
        };
        assert_eq!(heads(&masked), heads(&view));
    }

    #[test]
    fn everybody_may_be_excluded_and_then_the_leader_sends_to_all() {
        let (members, view) = plan(&[1; 12]);
        let all: Vec<u32> = (0..12).collect();
        let masked = exclusions(12, &all, &[]).apply(&view, &members).unwrap();
        let slot = Slot { index: 0, k: 1, m: 1 };
        for route in [Route::Rotor, Route::Regional { roots: 4 }] {
            let mut reached = Vec::new();
            Tree::new(&masked, route, 3, &[1; 32], slot).children(3, &mut reached);
            assert_eq!(reached.len(), 11);
        }
        let (other, _) = sample(5, &[1; 11]);
        assert!(exclusions(11, &[], &[]).apply(&view, &other).is_err());
    }
}
