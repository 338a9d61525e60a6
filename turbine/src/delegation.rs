//! A gateway's delegation to a peer and its ed25519 key.
//!
//! The gateway's secp256k1 key signs once a term at most, so it can stay cold; the key it
//! names signs shreds. It signs one of two [forms](Form): a digest, or a text that people can read
//! and that wallets sign, with the prefix of EIP-191. Of the delegations that cover a block the one with the highest sequence
//! counts; of two with one sequence, which a gateway should never sign, that with the lower
//! digest, so that all nodes that know both agree, whichever came first. A delegation should
//! begin with a block that is not open yet: two keys for one block are two leaders.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, eip191_hash_message, hex, keccak256};
use ed25519_dalek::VerifyingKey;
use fragcast_shredder::codec::{self, DecodeError};
use fragcast_shredder::{GatewayKey, Signature, SignatureError};

use crate::peer::PeerId;

/// Delegations kept per gateway; the one that counts least goes first.
pub const MAX_PER_GATEWAY: usize = 8;

/// What is added to v in the signature of a text.
const TEXT: u8 = 27;

/// A gateway's statement: `key`, run by `peer`, speaks for it in blocks `first..=last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Delegation {
    /// Chain id.
    pub chain_id: u64,
    /// First block.
    pub first: u64,
    /// Last block, included.
    pub last: u64,
    /// Of several delegations that cover a block the one with the highest sequence counts, and of
    /// those with the same sequence the one with the lowest digest.
    pub sequence: u64,
    /// The peer that leads.
    pub peer: PeerId,
    /// The ed25519 key that signs shreds and plans.
    pub key: [u8; 32],
}

/// What a gateway signs to delegate. The last byte of the signature tells which: v is 0 or 1 over the
/// digest, 27 or 28 over the text, as keys and wallets give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// [`Delegation::digest`].
    Digest,
    /// [`Delegation::text_digest`].
    Text,
}

impl Delegation {
    /// keccak256(domain ‖ encoding).
    pub fn digest(&self) -> B256 {
        keccak256(self.preimage())
    }

    /// domain ‖ encoding: what a signer signs that hashes what it is given with keccak256.
    pub fn preimage(&self) -> Vec<u8> {
        let mut bytes = b"fragcast 2026 delegation v1\0".to_vec();
        bytes.extend(codec::encode(self));
        bytes
    }

    /// The same for people.
    pub fn text(&self) -> String {
        let Self { chain_id, first, last, sequence, peer, key } = self;
        let key = hex::encode(key);
        format!(
            "fragcast 2026 delegation v1\nchain {chain_id}\nblocks {first} to {last}\n\
             sequence {sequence}\npeer {peer}\nleader key {key}"
        )
    }

    /// keccak256 of the text with the prefix of EIP-191, as `personal_sign` and its kin sign it.
    pub fn text_digest(&self) -> B256 {
        eip191_hash_message(self.text())
    }

    /// With a signature that somebody else made, in any of the forms that secp256k1 has.
    ///
    /// # Errors
    /// [`SignatureError`]; who signed is not checked.
    pub fn signed(
        self,
        form: Form,
        signature: [u8; 65],
    ) -> Result<SignedDelegation, SignatureError> {
        let mut signature = *Signature::from_bytes(signature).normalise()?.as_bytes();
        if form == Form::Text {
            signature[64] += TEXT;
        }
        Ok(SignedDelegation { delegation: self, signature })
    }

    /// Signs with the gateway's key.
    pub fn sign(self, gateway: &GatewayKey) -> SignedDelegation {
        let signature = *gateway.sign_digest(&self.digest()).as_bytes();
        SignedDelegation { delegation: self, signature }
    }
}

/// A delegation with the gateway's signature; 161 bytes, written as hex in configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct SignedDelegation {
    /// The signed fields.
    pub delegation: Delegation,
    /// Recoverable secp256k1 signature with a low s; v tells the [form](Form) that was signed.
    pub signature: [u8; 65],
}

impl SignedDelegation {
    /// Bytes of the encoding.
    pub const ENCODED_LEN: usize = 8 * 4 + 32 * 2 + 65;

    /// The gateway that signed.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn gateway(&self) -> Result<Address, SignatureError> {
        let mut signature = self.signature;
        let digest = match signature[64].checked_sub(TEXT) {
            None => self.delegation.digest(),
            Some(v) => {
                signature[64] = v;
                self.delegation.text_digest()
            }
        };
        Signature::from_bytes(signature).recover(&digest)
    }

    /// The encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes; the signature is not checked.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_exact::<_, { Self::ENCODED_LEN }>(bytes)
    }
}

impl std::fmt::Display for SignedDelegation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.to_bytes()))
    }
}

impl std::str::FromStr for SignedDelegation {
    type Err = ParseDelegationError;

    fn from_str(s: &str) -> Result<Self, ParseDelegationError> {
        Ok(Self::from_bytes(&hex::decode(s)?)?)
    }
}

/// Why a text is no delegation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseDelegationError {
    /// The text is not hex.
    #[error("a delegation is hex: {0}")]
    Hex(#[from] hex::FromHexError),
    /// The bytes are no delegation.
    #[error("no delegation: {0}")]
    Decode(#[from] DecodeError),
}

/// Why a delegation was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DelegationError {
    /// It is of another chain.
    #[error("the delegation is for chain {found}, this is chain {expected}")]
    Chain {
        /// Ours.
        expected: u64,
        /// The delegation's.
        found: u64,
    },
    /// No gateway of the schedule signed it.
    #[error("{0} is not a gateway of the schedule")]
    NotAGateway(Address),
    /// The signature.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The key is no point of the curve, or a weak one.
    #[error("the delegated key is not a usable ed25519 key")]
    Key,
    /// The first block is after the last.
    #[error("blocks {0} to {1} are no range")]
    Range(u64, u64),
    /// Known already, or of a sequence below all that are kept.
    #[error("known already, or too old")]
    Stale,
    /// The gateway signs more of them than is of use.
    #[error("too many delegations of one gateway")]
    TooMany,
}

/// A checked delegation.
#[derive(Debug, Clone)]
pub struct Leader {
    /// The gateway.
    pub gateway: Address,
    /// The peer that runs it.
    pub peer: PeerId,
    /// The key that signs its shreds.
    pub key: VerifyingKey,
    /// The delegation itself.
    pub signed: SignedDelegation,
}

/// The delegations of a schedule's gateways, at most [`MAX_PER_GATEWAY`] of each.
#[derive(Debug, Clone)]
pub struct Delegations {
    chain_id: u64,
    by_gateway: BTreeMap<Address, Vec<Leader>>,
}

impl Delegations {
    /// None yet, for the gateways of a schedule.
    pub fn new(chain_id: u64, gateways: &[Address]) -> Self {
        let by_gateway = gateways.iter().map(|gateway| (*gateway, Vec::new())).collect();
        Self { chain_id, by_gateway }
    }

    /// Checks and takes a delegation.
    ///
    /// # Errors
    /// [`DelegationError`].
    pub fn insert(&mut self, signed: SignedDelegation) -> Result<&Leader, DelegationError> {
        self.check(&signed)?;
        let gateway = signed.gateway()?;
        self.insert_of(gateway, signed)
    }

    /// What can be asked before the signature.
    pub(crate) fn check(&self, signed: &SignedDelegation) -> Result<(), DelegationError> {
        let Delegation { chain_id, first, last, .. } = signed.delegation;
        if chain_id != self.chain_id {
            return Err(DelegationError::Chain { expected: self.chain_id, found: chain_id });
        }
        if first > last {
            return Err(DelegationError::Range(first, last));
        }
        Ok(())
    }

    /// Takes a delegation that was [checked](Self::check) and signed by `gateway`.
    pub(crate) fn insert_of(
        &mut self,
        gateway: Address,
        signed: SignedDelegation,
    ) -> Result<&Leader, DelegationError> {
        let Delegation { sequence, peer, key, .. } = signed.delegation;
        let kept =
            self.by_gateway.get_mut(&gateway).ok_or(DelegationError::NotAGateway(gateway))?;
        let key = VerifyingKey::from_bytes(&key).map_err(|_| DelegationError::Key)?;
        if key.is_weak() {
            return Err(DelegationError::Key);
        }
        // Sorted so that the first that covers a block counts.
        let order = (std::cmp::Reverse(sequence), signed.delegation.digest());
        let order_of = |leader: &Leader| {
            let delegation = &leader.signed.delegation;
            (std::cmp::Reverse(delegation.sequence), delegation.digest())
        };
        let place = kept.partition_point(|leader| order_of(leader) < order);
        let known = kept.get(place).is_some_and(|l| l.signed.delegation == signed.delegation);
        if known || place >= MAX_PER_GATEWAY {
            return Err(DelegationError::Stale);
        }
        kept.truncate(MAX_PER_GATEWAY - 1);
        kept.insert(place, Leader { gateway, peer, key, signed });
        Ok(&kept[place])
    }

    /// The leader that speaks for `gateway` in `block`.
    pub fn leader(&self, gateway: &Address, block: u64) -> Option<&Leader> {
        self.by_gateway
            .get(gateway)?
            .iter()
            .find(|l| (l.signed.delegation.first..=l.signed.delegation.last).contains(&block))
    }

    /// Whether exactly this is known.
    pub(crate) fn contains(&self, signed: &SignedDelegation) -> bool {
        self.iter().any(|leader| leader.signed == *signed)
    }

    /// The two delegations of a gateway with the sequence of `signed`, if there are exactly two; the
    /// one that counts comes first.
    pub(crate) fn twice(&self, signed: &SignedDelegation) -> Option<[&Leader; 2]> {
        let sequence = signed.delegation.sequence;
        let gateway = self.iter().find(|leader| leader.signed == *signed)?.gateway;
        let of_sequence = |leader: &&Leader| leader.signed.delegation.sequence == sequence;
        let mut all = self.by_gateway.get(&gateway)?.iter().filter(of_sequence);
        let two = [all.next()?, all.next()?];
        all.next().is_none().then_some(two)
    }

    /// The delegation to a key.
    pub fn of_key(&self, key: &[u8; 32]) -> Option<&Leader> {
        self.iter().find(|leader| leader.signed.delegation.key == *key)
    }

    /// All that are kept.
    pub fn iter(&self) -> impl Iterator<Item = &Leader> {
        self.by_gateway.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway() -> GatewayKey {
        GatewayKey::from_bytes([0x11; 32]).unwrap()
    }

    fn delegation(first: u64, last: u64, sequence: u64, seed: u8) -> Delegation {
        let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes();
        Delegation { chain_id: 5, first, last, sequence, peer: PeerId([seed; 32]), key }
    }

    #[test]
    fn the_encoding_is_pinned() {
        let signed = delegation(1, 2, 3, 4).sign(&gateway());
        let bytes = signed.to_bytes();
        assert_eq!(bytes.len(), SignedDelegation::ENCODED_LEN);
        assert_eq!(
            hex::encode(signed.delegation.digest()),
            "eaf9a60da320ac73374e201eb0a6f4b1f573c6de05e3f609db16f39eed5d5d8b"
        );
        assert_eq!(signed.to_string().parse::<SignedDelegation>().unwrap(), signed);
        assert_eq!(signed.gateway().unwrap(), gateway().address());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            let bad = SignedDelegation::from_bytes(&bad).unwrap();
            assert_ne!(bad.gateway().ok(), Some(gateway().address()), "byte {at}");
        }
    }

    /// As `eth_sign`, `personal_sign` and clef's `account_signData` do, with v of 27 or 28.
    fn by_wallet(delegation: &Delegation) -> [u8; 65] {
        let mut signature = *gateway().sign_digest(&delegation.text_digest()).as_bytes();
        signature[64] += 27;
        signature
    }

    #[test]
    fn a_wallet_signs_a_text_that_people_can_read() {
        let delegation = delegation(1, 2, 3, 4);
        let (peer, key) = ("04".repeat(32), hex::encode(delegation.key));
        assert_eq!(
            delegation.text(),
            format!(
                "fragcast 2026 delegation v1\nchain 5\nblocks 1 to 2\nsequence 3\npeer {peer}\n\
                 leader key {key}"
            )
        );
        assert_eq!(
            hex::encode(delegation.text_digest()),
            "c9852700eadc06defd55849f98b2e37302074e1b655f34c64928b34da2aca98b"
        );
        let signed = delegation.signed(Form::Text, by_wallet(&delegation)).unwrap();
        assert_eq!(signed.gateway().unwrap(), gateway().address());
        assert_eq!(SignedDelegation::from_bytes(&signed.to_bytes()).unwrap(), signed);
        // Each signature is good for its own form alone, and has one encoding.
        let by_key = delegation.sign(&gateway());
        assert_eq!(delegation.signed(Form::Digest, by_key.signature).unwrap(), by_key);
        let mut mixed = signed;
        mixed.signature[64] -= 27;
        assert_ne!(mixed.gateway().ok(), Some(gateway().address()));
        mixed.signature = by_key.signature;
        mixed.signature[64] += 27;
        assert_ne!(mixed.gateway().ok(), Some(gateway().address()));
        for v in (2..27).chain(29..=255) {
            let mut bad = signed;
            bad.signature[64] = v;
            assert!(bad.gateway().is_err(), "v of {v}");
        }
        for at in 0..SignedDelegation::ENCODED_LEN {
            let mut bad = signed.to_bytes();
            bad[at] ^= 1;
            let bad = SignedDelegation::from_bytes(&bad).unwrap();
            assert_ne!(bad.gateway().ok(), Some(gateway().address()), "byte {at}");
        }
        // One statement, whoever signed it how: the second tells nothing new.
        let mut all = Delegations::new(5, &[gateway().address()]);
        all.insert(signed).unwrap();
        assert_eq!(all.insert(by_key).unwrap_err(), DelegationError::Stale);
    }

    #[test]
    fn the_highest_sequence_that_covers_the_block_counts() {
        let mut all = Delegations::new(5, &[gateway().address()]);
        for (first, last, sequence, seed) in [(0, 100, 1, 1), (50, 60, 3, 3), (0, 100, 2, 2)] {
            all.insert(delegation(first, last, sequence, seed).sign(&gateway())).unwrap();
        }
        let peer = |block| all.leader(&gateway().address(), block).map(|l| l.peer.0[0]);
        assert_eq!((peer(10), peer(55), peer(61), peer(101)), (Some(2), Some(3), Some(2), None));
    }

    #[test]
    fn of_one_sequence_the_same_one_counts_whichever_came_first() {
        let signed: Vec<SignedDelegation> =
            (1..=20).map(|seed| delegation(0, 100, 7, seed).sign(&gateway())).collect();
        let known = |order: &mut dyn Iterator<Item = &SignedDelegation>| {
            let mut all = Delegations::new(5, &[gateway().address()]);
            order.for_each(|signed| drop(all.insert(*signed)));
            all.iter().map(|leader| leader.signed).collect::<Vec<_>>()
        };
        let (forth, back) = (known(&mut signed.iter()), known(&mut signed.iter().rev()));
        assert_eq!((forth.len(), &forth), (MAX_PER_GATEWAY, &back));
        let least = signed.iter().map(|s| s.delegation.digest()).min();
        assert_eq!(Some(forth[0].delegation.digest()), least);
    }

    #[test]
    fn foreign_and_stale_delegations_are_refused() {
        let mut all = Delegations::new(5, &[gateway().address()]);
        let stranger = GatewayKey::from_bytes([0x22; 32]).unwrap();
        let good = delegation(0, 9, 1, 1);
        assert!(matches!(
            all.insert(good.sign(&stranger)),
            Err(DelegationError::NotAGateway(a)) if a == stranger.address()
        ));
        let other = Delegation { chain_id: 6, ..good };
        assert!(matches!(
            all.insert(other.sign(&gateway())),
            Err(DelegationError::Chain { expected: 5, found: 6 })
        ));
        let upside_down = Delegation { first: 9, last: 0, ..good };
        assert!(all.insert(upside_down.sign(&gateway())).is_err());
        all.insert(good.sign(&gateway())).unwrap();
        assert_eq!(all.insert(good.sign(&gateway())).unwrap_err(), DelegationError::Stale);
        for sequence in 2..30 {
            all.insert(Delegation { sequence, ..good }.sign(&gateway())).unwrap();
        }
        assert_eq!(all.iter().count(), MAX_PER_GATEWAY);
        assert_eq!(all.insert(good.sign(&gateway())).unwrap_err(), DelegationError::Stale);
    }
}
