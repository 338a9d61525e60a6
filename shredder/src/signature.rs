//! Recoverable secp256k1 signatures, which a gateway makes over the root of a message.
//!
//! The signed digest has no chain id, and the existing network does not enforce a low s, so one
//! signature has four valid encodings: v as 0/1 or 27/28, and s or n − s. Only one is canonical
//! here: low s, v in 0/1. [`Signature::normalise`] converts to it and is meant only for messages
//! that a gateway posts to its own node; a peer's signature must be canonical already.

use alloy_primitives::{Address, B256, Bytes, keccak256};
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{SECP256K1, SecretKey};

use crate::MAX_MESSAGE_LEN;
use crate::messages::wire::WireError;
use crate::messages::{Dialect, Kind, Message};

/// Bytes of a signature: r ‖ s ‖ v.
pub const SIGNATURE_LEN: usize = 65;

/// n / 2 of secp256k1, big-endian: the largest low s (BIP-62).
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

/// Why a signature or the message under it was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// v is none of 0, 1, 27, 28.
    #[error("recovery id {0} is none of 0, 1, 27, 28")]
    RecoveryId(u8),
    /// r or s is zero or not below the group order.
    #[error("r or s is out of range")]
    OutOfRange,
    /// s is in the upper half or v is 27/28, where only the canonical form is accepted.
    #[error("the signature is not canonical (low s, v of 0 or 1)")]
    NotCanonical,
    /// No public key belongs to this signature and root.
    #[error("no public key recovers from the signature")]
    Unrecoverable,
    /// Another key signed.
    #[error("signed by {found}, not by the scheduled gateway {expected}")]
    WrongSigner {
        /// The scheduled gateway.
        expected: Address,
        /// The address of the key that signed.
        found: Address,
    },
    /// The message is shorter than a signature.
    #[error("{0} bytes are too short for a signed message")]
    TooShort(usize),
    /// The body does not decode.
    #[error(transparent)]
    Body(#[from] WireError),
}

/// A recoverable signature; its bytes may or may not be canonical.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature([u8; SIGNATURE_LEN]);

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signature(0x{})", alloy_primitives::hex::encode(self.0))
    }
}

impl Signature {
    /// Wraps r ‖ s ‖ v without checking them.
    pub const fn from_bytes(bytes: [u8; SIGNATURE_LEN]) -> Self {
        Self(bytes)
    }

    /// r ‖ s ‖ v.
    pub const fn as_bytes(&self) -> &[u8; SIGNATURE_LEN] {
        &self.0
    }

    fn s(&self) -> &[u8] {
        &self.0[32..64]
    }

    /// Whether s is low and v is 0 or 1.
    pub fn is_canonical(&self) -> bool {
        self.0[64] <= 1 && *self.s() <= HALF_ORDER[..]
    }

    /// The canonical form of the same signature.
    ///
    /// # Errors
    /// [`SignatureError::RecoveryId`] or [`SignatureError::OutOfRange`].
    pub fn normalise(&self) -> Result<Self, SignatureError> {
        let mut v = match self.0[64] {
            v @ 0..=1 => v,
            v @ 27..=28 => v - 27,
            v => return Err(SignatureError::RecoveryId(v)),
        };
        let mut standard = secp256k1::ecdsa::Signature::from_compact(&self.0[..64])
            .map_err(|_| SignatureError::OutOfRange)?;
        if *self.s() > HALF_ORDER[..] {
            // n − s belongs to the mirrored nonce point, whose y has the other parity.
            standard.normalize_s();
            v ^= 1;
        }
        let mut bytes = [0; SIGNATURE_LEN];
        bytes[..64].copy_from_slice(&standard.serialize_compact());
        bytes[64] = v;
        Ok(Self(bytes))
    }

    /// The address whose key signed `root`. Accepts canonical signatures only.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn recover(&self, root: &B256) -> Result<Address, SignatureError> {
        if !self.is_canonical() {
            return Err(SignatureError::NotCanonical);
        }
        let id = if self.0[64] == 0 { RecoveryId::Zero } else { RecoveryId::One };
        let signature = RecoverableSignature::from_compact(&self.0[..64], id)
            .map_err(|_| SignatureError::OutOfRange)?;
        let key = SECP256K1
            .recover_ecdsa(secp256k1::Message::from_digest(root.0), &signature)
            .map_err(|_| SignatureError::Unrecoverable)?;
        Ok(address_of(&key))
    }
}

fn address_of(key: &secp256k1::PublicKey) -> Address {
    Address::from_slice(&keccak256(&key.serialize_uncompressed()[1..])[12..])
}

/// The secp256k1 key of a gateway, which signs messages and delegations. It is wiped when dropped.
///
/// ```
/// use fragcast_shredder::{BlockBuilder, GatewayKey, Message};
///
/// let key = GatewayKey::from_bytes([7; 32])?;
/// let signed = key.sign(BlockBuilder::new(42).env());
/// assert_eq!(signed.signature.recover(&signed.root())?, key.address());
/// assert!(matches!(signed.message, Message::Env(env) if env.number == 42));
/// # Ok::<(), fragcast_shredder::SignatureError>(())
/// ```
pub struct GatewayKey(SecretKey);

impl Drop for GatewayKey {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

impl std::fmt::Debug for GatewayKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GatewayKey({})", self.address())
    }
}

impl GatewayKey {
    /// The key of 32 secret bytes.
    ///
    /// # Errors
    /// [`SignatureError::OutOfRange`] for zero or a number not below the group order.
    pub fn from_bytes(secret: [u8; 32]) -> Result<Self, SignatureError> {
        SecretKey::from_byte_array(secret).map(Self).map_err(|_| SignatureError::OutOfRange)
    }

    /// The gateway's address.
    pub fn address(&self) -> Address {
        address_of(&secp256k1::PublicKey::from_secret_key(SECP256K1, &self.0))
    }

    /// The public key: x ‖ y, big-endian.
    pub fn public_key(&self) -> [u8; 64] {
        let key =
            secp256k1::PublicKey::from_secret_key(SECP256K1, &self.0).serialize_uncompressed();
        let mut bytes = [0; 64];
        bytes.copy_from_slice(&key[1..]);
        bytes
    }

    /// Signs a 32-byte digest. The signature is canonical and deterministic (RFC 6979).
    pub fn sign_digest(&self, digest: &B256) -> Signature {
        let signature =
            SECP256K1.sign_ecdsa_recoverable(secp256k1::Message::from_digest(digest.0), &self.0);
        let (id, compact) = signature.serialize_compact();
        let mut bytes = [0; SIGNATURE_LEN];
        bytes[..64].copy_from_slice(&compact);
        bytes[64] = i32::from(id) as u8;
        Signature(bytes)
    }

    /// Signs `message`.
    pub fn sign(&self, message: impl Into<Message>) -> SignedMessage {
        let message = message.into();
        let root = message.root();
        SignedMessage { signature: self.sign_digest(&root), root, message }
    }

    /// Signs `message`. The result needs no verification: this key has just signed it.
    pub fn sign_verified(&self, message: impl Into<Message>) -> VerifiedMessage {
        VerifiedMessage { signed: self.sign(message), gateway: self.address() }
    }
}

/// A message with a signature that is not checked yet.
///
/// ```
/// use fragcast_shredder::{BlockBuilder, Dialect, GatewayKey, Kind, SignatureError, SignedMessage};
///
/// let (gateway, other) = (GatewayKey::from_bytes([7; 32])?, GatewayKey::from_bytes([8; 32])?);
/// let wire = gateway.sign(BlockBuilder::new(42).seal_of(10)).to_wire().into();
///
/// let message = SignedMessage::from_wire(Kind::Seal, Dialect::V0, &wire)?;
/// let wrong = message.clone().verify(other.address()).unwrap_err();
/// assert!(matches!(wrong, SignatureError::WrongSigner { .. }));
/// let verified = message.verify(gateway.address())?;
/// assert_eq!(verified.message().index(), Some(11), "after Env and ten frags");
/// # Ok::<(), SignatureError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedMessage {
    /// The signature as received.
    pub signature: Signature,
    /// The message.
    pub message: Message,
    root: B256,
}

impl SignedMessage {
    /// Combines a message and its signature.
    pub fn new(message: Message, signature: Signature) -> Self {
        Self { signature, root: message.root(), message }
    }

    /// The root that the signature covers.
    pub const fn root(&self) -> B256 {
        self.root
    }

    /// Encodes signature ‖ body: the bytes that are gossiped and cut into shreds.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(512);
        wire.extend(self.signature.as_bytes());
        self.message.encode_body(&mut wire);
        wire
    }

    /// Decodes signature ‖ body.
    ///
    /// # Errors
    /// [`SignatureError::TooShort`] or [`SignatureError::Body`].
    pub fn from_wire(kind: Kind, dialect: Dialect, wire: &Bytes) -> Result<Self, SignatureError> {
        let Some((signature, body)) = wire.split_first_chunk::<SIGNATURE_LEN>() else {
            return Err(SignatureError::TooShort(wire.len()));
        };
        if wire.len() > MAX_MESSAGE_LEN {
            return Err(WireError::TooLong(wire.len()).into());
        }
        let body = wire.slice_ref(body);
        let message = Message::decode_body(kind, dialect, &body)?;
        Ok(Self::new(message, Signature(*signature)))
    }

    /// Checks that `gateway` signed the message in canonical form. Takes about 42 µs, for the
    /// recovery of a public key.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(self, gateway: Address) -> Result<VerifiedMessage, SignatureError> {
        self.verify_among([gateway])
    }

    /// Checks that one of several gateways signed the message in canonical form, at the same cost.
    ///
    /// # Errors
    /// [`SignatureError`]; the first of them is the one that was expected.
    pub fn verify_among(
        self,
        gateways: impl IntoIterator<Item = Address>,
    ) -> Result<VerifiedMessage, SignatureError> {
        let gateway = self.signature.recover(&self.root)?;
        let mut gateways = gateways.into_iter();
        let expected = gateways.next().unwrap_or_default();
        if gateway != expected && !gateways.any(|other| other == gateway) {
            return Err(SignatureError::WrongSigner { expected, found: gateway });
        }
        Ok(VerifiedMessage { signed: self, gateway })
    }

    /// Converts the signature to canonical form and [verifies](Self::verify) it. For messages that
    /// a gateway posts: remote signers produce high s and v of 27/28.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn normalise_and_verify(self, gateway: Address) -> Result<VerifiedMessage, SignatureError> {
        self.normalise_and_verify_among([gateway])
    }

    /// The same for [several](Self::verify_among) gateways.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn normalise_and_verify_among(
        mut self,
        gateways: impl IntoIterator<Item = Address>,
    ) -> Result<VerifiedMessage, SignatureError> {
        self.signature = self.signature.normalise()?;
        self.verify_among(gateways)
    }
}

/// A message that a gateway signed that may lead its block, with a canonical signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedMessage {
    signed: SignedMessage,
    gateway: Address,
}

impl VerifiedMessage {
    /// The message.
    pub const fn message(&self) -> &Message {
        &self.signed.message
    }

    /// The canonical signature.
    pub const fn signature(&self) -> &Signature {
        &self.signed.signature
    }

    /// The gateway that signed it.
    pub const fn gateway(&self) -> Address {
        self.gateway
    }

    /// The root that was signed.
    pub const fn root(&self) -> B256 {
        self.signed.root
    }

    /// Encodes signature ‖ body.
    pub fn to_wire(&self) -> Vec<u8> {
        self.signed.to_wire()
    }
}
