//! The members of the network: signed records, weights, and the table that plans refer to.
//!
//! A member consents by signing its own record. Weights come from outside (configuration, a
//! contract), never from the record. The table is ordered by peer id and addressed by its
//! content, so two nodes hold the same table exactly if their hashes agree, and a member is
//! referred to by its index.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use alloy_primitives::hex;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use fragcast_shredder::codec::{self, DecodeError};

use crate::peer::PeerId;

mod reached;

pub use reached::Reached;

/// A member's place in the table.
pub type PeerIndex = u32;

/// Members of a table at most; with 1 kB a member at most 64 MB.
pub const MAX_MEMBERS: usize = 65_536;

/// Addresses of a record at most.
pub const MAX_ADDRESSES: usize = 4;

/// An IP address and port as they are signed: IPv4 is written as a mapped IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct WireAddr {
    ip: [u8; 16],
    port: u16,
}

impl From<SocketAddr> for WireAddr {
    fn from(addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Self { ip: ip.octets(), port: addr.port() }
    }
}

impl From<WireAddr> for SocketAddr {
    fn from(addr: WireAddr) -> Self {
        Self::new(Ipv6Addr::from(addr.ip).to_canonical(), addr.port)
    }
}

/// Whether an address is of a private, link-local or loopback network.
pub fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// An address as records have it: IPv4 as itself where an IPv6 socket maps it, and without a scope.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A member's statement about itself.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct RecordBody {
    /// Chain id.
    pub chain_id: u64,
    /// The member's peer id.
    pub peer: PeerId,
    /// Of several records of a member the one with the highest sequence counts.
    pub sequence: u64,
    /// The rate that it is willing to send at, kbit/s.
    pub uplink_kbps: u32,
    /// Network coordinates in µs (three dimensions and a height), all zero while unknown.
    pub coordinates: [i32; 4],
    /// Its addresses, at most [`MAX_ADDRESSES`].
    pub addresses: Vec<WireAddr>,
}

/// A record with its member's signature; written as hex in configuration.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct MemberRecord {
    /// The signed fields.
    pub body: RecordBody,
    /// ed25519, by the key that is the peer id.
    pub signature: [u8; 64],
}

/// Why a record or table was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// The text is not hex.
    #[error("a member record is hex: {0}")]
    Hex(#[from] hex::FromHexError),
    /// The bytes are no record.
    #[error("no member record: {0}")]
    Decode(#[from] DecodeError),
    /// The record is not signed by its member.
    #[error("the record of {0} is not signed by it")]
    Signature(PeerId),
    /// It is of another chain.
    #[error("the record of {0} is for another chain")]
    Chain(PeerId),
    /// No address, or too many.
    #[error("the record of {0} has no address, or more than {MAX_ADDRESSES}")]
    Addresses(PeerId),
    /// Addresses of private networks, or of one machine, beside public ones: whoever dials them all
    /// would call strangers in its own network.
    #[error("the record of {0} has addresses of a private network beside public ones")]
    Mixed(PeerId),
    /// The same peer twice.
    #[error("{0} is listed twice")]
    Duplicate(PeerId),
    /// There are more than [`MAX_MEMBERS`].
    #[error("{0} members exceed the limit of {MAX_MEMBERS}")]
    TooMany(usize),
}

impl RecordBody {
    fn digest(&self) -> [u8; 32] {
        blake3::derive_key("fragcast 2026 member record v1", &codec::encode(self))
    }

    /// Signs with the member's identity key.
    pub fn sign(self, identity: &SigningKey) -> MemberRecord {
        let signature = identity.sign(&self.digest()).to_bytes();
        MemberRecord { body: self, signature }
    }
}

impl MemberRecord {
    /// The longest encoding.
    pub const MAX_LEN: usize = 8 + 32 + 8 + 4 + 16 + 8 + MAX_ADDRESSES * 18 + 64;

    /// Checks the signature and the bounds.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub fn verify(&self, chain_id: u64) -> Result<(), MembershipError> {
        let peer = self.body.peer;
        if self.body.chain_id != chain_id {
            return Err(MembershipError::Chain(peer));
        }
        if !(1..=MAX_ADDRESSES).contains(&self.body.addresses.len()) {
            return Err(MembershipError::Addresses(peer));
        }
        let private = self.addresses().filter(|address| is_private(address.ip())).count();
        if private > 0 && private < self.body.addresses.len() {
            return Err(MembershipError::Mixed(peer));
        }
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature);
        VerifyingKey::from_bytes(&peer.0)
            .and_then(|key| key.verify_strict(&self.body.digest(), &signature))
            .map_err(|_| MembershipError::Signature(peer))
    }

    /// The member's addresses.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.body.addresses.iter().map(|addr| SocketAddr::from(*addr))
    }

    /// The encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Bytes of the encoding.
    pub(crate) const fn encoded_len(&self) -> usize {
        Self::MAX_LEN - (MAX_ADDRESSES * 18) + self.body.addresses.len() * 18
    }

    /// Decodes; the signature is not checked.
    ///
    /// # Errors
    /// [`MembershipError::Decode`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MembershipError> {
        Ok(codec::decode_exact::<_, { Self::MAX_LEN }>(bytes)?)
    }
}

impl std::fmt::Display for MemberRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.to_bytes()))
    }
}

impl std::str::FromStr for MemberRecord {
    type Err = MembershipError;

    fn from_str(s: &str) -> Result<Self, MembershipError> {
        Self::from_bytes(&hex::decode(s)?)
    }
}

/// A member, its weight, and where it is to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its signed record.
    pub record: MemberRecord,
    /// Its stake; with zero it relays nothing while any member has stake.
    pub weight: u64,
    /// The addresses of its record that count.
    pub reached: Reached,
}

impl Member {
    /// One of whose record all addresses count: of a network file, whose author vouches for them.
    pub fn new(record: MemberRecord, weight: u64) -> Self {
        let reached = Reached::all_of(&record);
        Self { record, weight, reached }
    }

    /// The addresses that count: others are not dialled, and whoever calls from them is a stranger.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.reached.addresses(&self.record)
    }

    /// Whether at least one address counts, and none that its record does not have.
    pub(crate) fn check_addresses(&self) -> Result<(), MembershipError> {
        let fits = self.reached.fits(&self.record);
        fits.then_some(()).ok_or(MembershipError::Addresses(self.peer()))
    }

    /// The member's peer id.
    pub const fn peer(&self) -> PeerId {
        self.record.body.peer
    }
}

/// The table: members by rising peer id, and its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    members: Vec<Member>,
    hash: [u8; 32],
}

impl Membership {
    /// Checks every record and orders the table.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub fn new(chain_id: u64, members: Vec<Member>) -> Result<Self, MembershipError> {
        Self::of_verified(chain_id, members, |_| false)
    }

    /// The same, without looking at the signatures of records that are `known` to be good: in a
    /// table of 4,096 members that saves 0.2 s.
    pub(crate) fn of_verified(
        chain_id: u64,
        mut members: Vec<Member>,
        known: impl Fn(&MemberRecord) -> bool,
    ) -> Result<Self, MembershipError> {
        if members.len() > MAX_MEMBERS {
            return Err(MembershipError::TooMany(members.len()));
        }
        members.sort_by_key(Member::peer);
        if let Some(pair) = members.windows(2).find(|pair| pair[0].peer() == pair[1].peer()) {
            return Err(MembershipError::Duplicate(pair[0].peer()));
        }
        // A table of which all addresses count says nothing of them.
        let is_all = members.iter().all(|member| member.reached.is_all_of(&member.record));
        let context = match is_all {
            true => "fragcast 2026 membership table v1",
            false => "fragcast 2026 membership table v2",
        };
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&chain_id.to_le_bytes());
        for member in &members {
            if !known(&member.record) {
                member.record.verify(chain_id)?;
                member.check_addresses()?;
            }
            hasher.update(&member.peer().0);
            hasher.update(&member.weight.to_le_bytes());
            hasher.update(blake3::hash(&member.record.to_bytes()).as_bytes());
            if !is_all {
                hasher.update(&[member.reached.to_byte()]);
            }
        }
        Ok(Self { members, hash: hasher.finalize().into() })
    }

    /// The hash that plans refer to.
    pub const fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The members, by rising peer id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The index of a peer.
    pub fn index(&self, peer: &PeerId) -> Option<PeerIndex> {
        self.members.binary_search_by_key(peer, Member::peer).ok().map(|i| i as PeerIndex)
    }

    /// The member at an index.
    pub fn get(&self, index: PeerIndex) -> Option<&Member> {
        self.members.get(index as usize)
    }
}

/// Makes members for tests and simulations: keys from their numbers, addresses on loopback.
#[doc(hidden)]
pub fn sample(chain_id: u64, weights: &[u64]) -> (Membership, Vec<SigningKey>) {
    let mut keys: Vec<SigningKey> = (0..weights.len() as u64)
        .map(|i| SigningKey::from_bytes(&blake3::derive_key("sample member", &i.to_le_bytes())))
        .collect();
    keys.sort_by_key(|key| key.verifying_key().to_bytes());
    let members = keys
        .iter()
        .zip(weights)
        .map(|(key, &weight)| {
            let body = RecordBody {
                chain_id,
                peer: PeerId(key.verifying_key().to_bytes()),
                sequence: 1,
                uplink_kbps: 1_000_000,
                coordinates: [0; 4],
                addresses: vec![SocketAddr::from(([127, 0, 0, 1], 9)).into()],
            };
            Member::new(body.sign(key), weight)
        })
        .collect();
    (Membership::new(chain_id, members).expect("records of our own"), keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encodings_are_pinned() {
        let (table, _) = sample(5, &[1, 2, 3]);
        let record = &table.members()[0].record;
        assert_eq!(
            blake3::hash(&record.to_bytes()).to_hex().as_str(),
            "b6b68437502dbf7487c7f3d952ecedf29904bff729c406fb4f7ab5e04a8baa95"
        );
        assert_eq!(
            hex::encode(table.hash()),
            "c6f95fe0fedbfb4a152b02bc04d0064a4d3803fcf4acd2037309b1bef6c2dae5"
        );
        assert_eq!(record.to_string().parse::<MemberRecord>().unwrap(), *record);
        let mut bytes = record.to_bytes();
        bytes.push(0);
        assert!(MemberRecord::from_bytes(&bytes).is_err());
    }

    #[test]
    fn a_changed_record_is_refused() {
        let (table, _) = sample(5, &[1]);
        let record = &table.members()[0].record;
        record.verify(5).unwrap();
        assert_eq!(record.verify(6), Err(MembershipError::Chain(record.body.peer)));
        let bytes = record.to_bytes();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            if let Ok(bad) = MemberRecord::from_bytes(&bad) {
                assert!(bad.verify(5).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn a_record_that_claims_many_addresses_allocates_nothing() {
        let (table, _) = sample(5, &[1]);
        let mut bytes = table.members()[0].record.to_bytes();
        bytes[68..76].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(MemberRecord::from_bytes(&bytes).is_err());
    }

    #[test]
    fn tables_are_ordered_and_free_of_duplicates() {
        let (table, keys) = sample(5, &[1; 20]);
        for (i, member) in table.members().iter().enumerate() {
            assert_eq!(table.index(&member.peer()), Some(i as u32));
        }
        assert_eq!(table.index(&PeerId([0; 32])), None);
        let mut twice = table.members().to_vec();
        twice.push(twice[3].clone());
        let peer = PeerId(keys[3].verifying_key().to_bytes());
        assert_eq!(Membership::new(5, twice), Err(MembershipError::Duplicate(peer)));
    }

    #[test]
    fn addresses_survive_the_wire() {
        for addr in ["1.2.3.4:5", "[2001:db8::1]:443", "127.0.0.1:65535"] {
            let addr: SocketAddr = addr.parse().unwrap();
            assert_eq!(SocketAddr::from(WireAddr::from(addr)), addr);
        }
    }
}
