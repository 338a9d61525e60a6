//! Authenticates shreds one by one. This is the only way to get a [`ValidatedShred`].
//!
//! The signature of a set is verified once. Later shreds of the set are checked against the tree
//! nodes that earlier ones proved, which costs a few hashes. Every shred is checked on its own and
//! before it is forwarded, so a shred that fails proves the peer that sent it faulty.
//!
//! Batch verification of signatures would be faster, but it accepts some signatures that single
//! verification refuses. A leader could use those to get honest relays barred.
//!
//! The table holds [`Validator::capacity`] sets of about 4.5 kB each. When it is full, the set
//! farthest in the future is evicted.

use std::collections::BTreeMap;

use ed25519_dalek::VerifyingKey;

use crate::equivocation::{Commitment, EquivocationProof};
use crate::merkle::{self, KnownNodes};
use crate::shred::{ChainTag, HashedShred, MessageKey, SetHeader, SetKey, Shred};

/// A shred that the leader's signature covers.
#[derive(Debug, Clone)]
pub struct ValidatedShred {
    shred: Shred,
    leaf: merkle::Hash,
    root: merkle::Hash,
    signer: [u8; 32],
}

impl ValidatedShred {
    /// The shred.
    pub const fn shred(&self) -> &Shred {
        &self.shred
    }
    /// The set's header.
    pub const fn header(&self) -> &SetHeader {
        self.shred.header()
    }
    /// The root of its set.
    pub const fn root(&self) -> merkle::Hash {
        self.root
    }
    /// The leader's key.
    pub const fn signer(&self) -> [u8; 32] {
        self.signer
    }
    pub(crate) const fn leaf(&self) -> merkle::Hash {
        self.leaf
    }
}

/// Why a shred was not validated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidateError {
    /// The shred belongs to another chain.
    #[error("of another chain")]
    Chain,
    /// The leader's signature does not cover the shred. The sender is at fault.
    #[error("the leader's signature does not cover the shred")]
    Signature,
    /// The leader signed the shred and something that contradicts it. The sender is not at fault.
    #[error("the leader equivocated")]
    Equivocation(Box<EquivocationProof>),
    /// The leader signed the same root under a header with another route, plan or time. The first
    /// header stays.
    #[error("the set is known under another header")]
    OtherHeader,
    /// The table is full of sets of nearer blocks.
    #[error("the table of sets is full")]
    Full,
}

struct Known {
    commitment: Commitment,
    signer: [u8; 32],
    nodes: KnownNodes,
}

/// Checks shreds, and remembers the sets whose signatures it has verified.
///
/// ```
/// use ed25519_dalek::SigningKey;
/// use fragcast_shredder::*;
///
/// let key = SigningKey::from_bytes(&[9; 32]);
/// let leader = key.verifying_key();
/// let params = MessageParams {
///     key: MessageKey { block: 42, attempt: 0, message: 1 },
///     kind: Kind::Frag,
///     plan: 0,
///     route: 0,
///     route_param: 0,
///     sent_at: Timestamp::default(),
/// };
/// let rate = CodeRate::new(500, LossTarget::default());
/// let cut = Shredder::new(901, key).shred(&[7; 500], &params, rate)?;
/// let good = cut.sets[0].shreds[0].clone();
/// let mut bad = good.to_vec();
/// bad[60] ^= 1;
///
/// let mut validator = Validator::new(901, Validator::DEFAULT_CAPACITY);
/// let shred = validator.validate(HashedShred::new(Shred::parse(good)?), &leader)?;
/// assert_eq!(shred.header().block, 42);
/// let forged = HashedShred::new(Shred::parse(bad.into())?);
/// assert_eq!(validator.validate(forged, &leader).unwrap_err(), ValidateError::Signature);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Validator {
    chain_id: u64,
    tag: ChainTag,
    capacity: usize,
    sets: BTreeMap<SetKey, Known>,
}

impl std::fmt::Debug for Validator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Validator").field("sets", &self.sets.len()).finish_non_exhaustive()
    }
}

impl Validator {
    /// Default number of sets: 8,192, which take about 37 MB.
    pub const DEFAULT_CAPACITY: usize = 8192;

    /// A validator for `chain_id` with room for `capacity` sets.
    pub fn new(chain_id: u64, capacity: usize) -> Self {
        let tag = ChainTag::new(chain_id);
        Self { chain_id, tag, capacity: capacity.max(1), sets: BTreeMap::new() }
    }

    /// Number of sets that fit into the table.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Number of sets in the table.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Forgets all blocks below `block`.
    pub fn forget_below(&mut self, block: u64) {
        self.sets = self.sets.split_off(&first_set(block, 0));
    }

    /// Forgets the attempts of `block` below `attempt`.
    pub fn supersede(&mut self, block: u64, attempt: u8) {
        let kept = self.sets.split_off(&first_set(block, attempt));
        self.sets.split_off(&first_set(block, 0));
        self.sets.extend(kept);
    }

    /// Checks that `signer`, the leader of the shred's block, signed the shred's set.
    ///
    /// # Errors
    /// [`ValidateError`]. Of its variants only `Signature` proves the sender faulty.
    pub fn validate(
        &mut self,
        hashed: HashedShred,
        signer: &VerifyingKey,
    ) -> Result<ValidatedShred, ValidateError> {
        let HashedShred { shred, leaf } = hashed;
        let header = *shred.header();
        if header.chain != self.tag {
            return Err(ValidateError::Chain);
        }
        let index = usize::from(shred.index());
        let key = header.set_key();
        let signer_bytes = signer.to_bytes();
        let known = self.sets.get_mut(&key).filter(|known| known.signer == signer_bytes);
        if let Some(known) = known {
            let same = known.commitment.header == header
                && known.commitment.signature == *shred.signature();
            if same && known.nodes.check(leaf, index, shred.path()) {
                let root = known.commitment.root;
                return Ok(ValidatedShred { shred, leaf, root, signer: signer_bytes });
            }
        }

        // The set is unknown, or known with another header or root: the signature decides.
        let root = merkle::root_of(leaf, index, shred.path());
        let commitment = Commitment::of(&shred, root);
        if !commitment.verify(self.chain_id, signer) {
            return Err(ValidateError::Signature);
        }
        if let Some(first) = self.contradicted(&commitment, &signer_bytes) {
            let proof = EquivocationProof {
                chain_id: self.chain_id,
                key: signer_bytes,
                first: first.clone(),
                second: commitment,
            };
            return Err(ValidateError::Equivocation(Box::new(proof)));
        }
        if self.sets.get(&key).is_some_and(|known| known.signer == signer_bytes) {
            return Err(ValidateError::OtherHeader);
        }
        self.make_room(&key)?;
        let mut nodes = KnownNodes::new(root, shred.path().len());
        nodes.check(leaf, index, shred.path());
        self.sets.insert(key, Known { commitment, signer: signer_bytes, nodes });
        Ok(ValidatedShred { shred, leaf, root, signer: signer_bytes })
    }

    /// The first known commitment of the same signer and message that `new` contradicts.
    fn contradicted(&self, new: &Commitment, signer: &[u8; 32]) -> Option<&Commitment> {
        let message = new.header.message_key();
        let same_set = self.sets.get(&new.header.set_key());
        // All known sets of a message agree in shape, so any one of them stands for it.
        let any = self
            .sets
            .range(SetKey { message, set: 0 }..=SetKey { message, set: u16::MAX })
            .map(|(_, known)| known)
            .next();
        same_set
            .into_iter()
            .chain(any)
            .find(|known| known.signer == *signer && known.commitment.contradicts(new))
            .map(|known| &known.commitment)
    }

    fn make_room(&mut self, key: &SetKey) -> Result<(), ValidateError> {
        while self.sets.len() >= self.capacity {
            let (last, _) = self.sets.last_key_value().expect("full, so not empty");
            if last <= key {
                return Err(ValidateError::Full);
            }
            self.sets.pop_last();
        }
        Ok(())
    }
}

const fn first_set(block: u64, attempt: u8) -> SetKey {
    SetKey { message: MessageKey { block, attempt, message: 0 }, set: 0 }
}
