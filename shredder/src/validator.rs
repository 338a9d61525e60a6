//! Authenticates shreds one by one. This is the only way to get a [`ValidatedShred`].
//!
//! The signature of a set is verified once. Later shreds of the set are checked against the tree
//! nodes that earlier ones proved, which costs a few hashes. Every shred is checked on its own and
//! before it is forwarded, so a shred that fails proves the peer that sent it faulty.
//!
//! Batch verification of signatures would be faster, but it accepts some signatures that single
//! verification refuses. A leader could use those to get honest relays barred.
//!
//! # One content, one form
//! A leader can sign one root as often as it likes: under other times, plans and routes, and
//! under one header with ever other signatures. All of those are one content, so a shred of any
//! of them is one of the set that is known; it is given the header and signature of that one, as
//! its path alone proves that it belongs there. Otherwise a leader could give each node another
//! form of a set, and nobody could repair from anybody.
//!
//! # What convicts a sender
//! Whether a key is the leader's depends on which delegations and which schedule a node knows, so
//! a signature that does not verify proves nothing against the peer that forwarded it. Where a
//! header and its signature *are* known, they fix the root. A shred that has both and does not
//! lead there was altered on its way, whatever anybody knows.
//!
//! # Memory
//! The table holds [`Validator::capacity`] sets of about 4.5 kB each. When it is full, finished
//! messages make room first, then old blocks, then the far future; a gateway has half of it at
//! most. See [`Owner`].

use std::collections::BTreeMap;

use ed25519_dalek::VerifyingKey;

use crate::equivocation::{Commitment, EquivocationProof};
use crate::merkle::{self, KnownNodes};
use crate::shares::{Owner, Shares};
use crate::shred::{ChainTag, HashedShred, MessageKey, SetHeader, SetKey, Shred};

/// A shred that the leader's signature covers.
#[derive(Debug, Clone)]
pub struct ValidatedShred {
    shred: Shred,
    leaf: merkle::Hash,
    root: merkle::Hash,
    signer: [u8; 32],
    owner: Owner,
}

impl ValidatedShred {
    /// The shred.
    pub const fn shred(&self) -> &Shred {
        &self.shred
    }
    /// What the leader signed.
    pub fn commitment(&self) -> Commitment {
        Commitment::of(&self.shred, self.root)
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
    /// To whom its place in tables is charged.
    pub const fn owner(&self) -> Owner {
        self.owner
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
    /// The key does not cover the shred. It may be that of another leader, of whom the sender
    /// knows and the caller does not.
    #[error("the leader's signature does not cover the shred")]
    Signature,
    /// Only a signature could tell, and the caller would have none verified.
    #[error("no signature is verified for it")]
    Unverified,
    /// It has the header and the signature of a set that is known, and does not belong to it. No
    /// node can have found it valid: the sender is at fault.
    #[error("the shred was altered: its set is known and does not contain it")]
    Altered,
    /// The leader signed the shred and something that contradicts it. The sender is not at fault.
    #[error("the leader equivocated")]
    Equivocation(Box<EquivocationProof>),
    /// The table is full of sets of nearer blocks, or the gateway has its half of it.
    #[error("the table of sets is full")]
    Full,
}

struct Known {
    commitment: Commitment,
    signer: [u8; 32],
    owner: Owner,
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
/// let stranger = SigningKey::from_bytes(&[8; 32]).verifying_key();
///
/// let mut validator = Validator::new(901, Validator::DEFAULT_CAPACITY);
/// let shred = validator.validate(HashedShred::new(Shred::parse(good)?), &leader)?;
/// assert_eq!(shred.header().block, 42);
/// let altered = HashedShred::new(Shred::parse(bad.into())?);
/// let error = validator.validate(altered.clone(), &leader).unwrap_err();
/// assert_eq!(error, ValidateError::Altered);
/// let error = validator.validate(altered, &stranger).unwrap_err();
/// assert_eq!(error, ValidateError::Signature);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Validator {
    chain_id: u64,
    tag: ChainTag,
    sets: BTreeMap<SetKey, Known>,
    shares: Shares<SetKey>,
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
        Self { chain_id, tag, sets: BTreeMap::new(), shares: Shares::new(capacity.max(2)) }
    }

    /// Number of sets that fit into the table.
    pub const fn capacity(&self) -> usize {
        self.shares.capacity()
    }

    /// Number of sets in the table.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Whether a set is known, by whatever key.
    pub fn knows(&self, set: &SetKey) -> bool {
        self.sets.contains_key(set)
    }

    /// The blocks that are open, both ends included: they and the next ones come first when the
    /// table is full.
    pub fn set_open(&mut self, low: u64, high: u64) {
        self.shares.set_open(low, high);
    }

    /// A message is complete: its sets are the first to make room.
    pub fn finish(&mut self, message: &MessageKey) {
        for (key, known) in self.sets.range(sets_of(*message)) {
            self.shares.finish(&known.owner, *key);
        }
    }

    /// Forgets all blocks below `block`.
    pub fn forget_below(&mut self, block: u64) {
        while let Some((key, _)) =
            self.sets.first_key_value().filter(|(k, _)| k.message.block < block)
        {
            let key = *key;
            self.remove(&key);
        }
    }

    /// Forgets the attempts of `block` below `attempt`.
    pub fn supersede(&mut self, block: u64, attempt: u8) {
        while let Some((key, _)) =
            self.sets.range(first_set(block, 0)..first_set(block, attempt)).next()
        {
            let key = *key;
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &SetKey) {
        if let Some(known) = self.sets.remove(key) {
            self.shares.refund(&known.owner, key, 1, true);
        }
    }

    /// Checks that `signer`, the leader of the shred's block, signed the shred's set. Its place is
    /// charged to the key itself.
    ///
    /// # Errors
    /// As [`validate_for`](Self::validate_for).
    pub fn validate(
        &mut self,
        hashed: HashedShred,
        signer: &VerifyingKey,
    ) -> Result<ValidatedShred, ValidateError> {
        self.validate_for(hashed, signer, signer.into(), true)
    }

    /// Checks that `signer`, the leader of the shred's block, signed the shred's set, whose place
    /// is charged to `owner`. Where the tree nodes that are known do not tell, a signature does,
    /// which takes 50 µs, if the caller `may_verify` one.
    ///
    /// # Errors
    /// [`ValidateError`]. Of its variants only `Altered` proves the sender faulty.
    pub fn validate_for(
        &mut self,
        hashed: HashedShred,
        signer: &VerifyingKey,
        owner: Owner,
        may_verify: bool,
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
            let Commitment { header: first, root, signature } = &known.commitment;
            let same = *first == header && signature == shred.signature();
            if first.same_shape(&header) && known.nodes.check(leaf, index, shred.path()) {
                let root = *root;
                let shred = if same { shred } else { shred.in_form_of(first, signature) };
                return Ok(ValidatedShred { shred, leaf, root, signer: signer_bytes, owner });
            }
            if same {
                return Err(ValidateError::Altered);
            }
        }

        // The set is unknown, or known with another root or shape: the signature decides.
        if !may_verify {
            return Err(ValidateError::Unverified);
        }
        // Room first: a set that finds none costs no signature, however often it comes.
        if !self.sets.contains_key(&key) {
            self.shares.victim(&owner, &key, 1).map_err(|_| ValidateError::Full)?;
        }
        let hashed = HashedShred { shred, leaf };
        let commitment = hashed.claim();
        let HashedShred { shred, .. } = hashed;
        let root = commitment.root;
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
        // Of another key, which leads the block no more.
        self.remove(&key);
        self.make_room(&owner, &key)?;
        let mut nodes = KnownNodes::new(root, shred.path().len());
        nodes.check(leaf, index, shred.path());
        self.shares.charge(owner, key, 1);
        self.sets.insert(key, Known { commitment, signer: signer_bytes, owner, nodes });
        Ok(ValidatedShred { shred, leaf, root, signer: signer_bytes, owner })
    }

    /// The first known commitment of the same signer and message that `new` contradicts.
    fn contradicted(&self, new: &Commitment, signer: &[u8; 32]) -> Option<&Commitment> {
        let message = new.header.message_key();
        let same_set = self.sets.get(&new.header.set_key());
        // All known sets of a message agree in shape, so any one of them stands for it.
        let any = self.sets.range(sets_of(message)).map(|(_, known)| known).next();
        same_set
            .into_iter()
            .chain(any)
            .find(|known| known.signer == *signer && known.commitment.contradicts(new))
            .map(|known| &known.commitment)
    }

    fn make_room(&mut self, owner: &Owner, key: &SetKey) -> Result<(), ValidateError> {
        while let Some(gone) = self.shares.victim(owner, key, 1).map_err(|_| ValidateError::Full)? {
            self.remove(&gone);
        }
        Ok(())
    }
}

const fn first_set(block: u64, attempt: u8) -> SetKey {
    SetKey { message: MessageKey { block, attempt, message: 0 }, set: 0 }
}

const fn sets_of(message: MessageKey) -> std::ops::RangeInclusive<SetKey> {
    SetKey { message, set: 0 }..=SetKey { message, set: u16::MAX }
}
