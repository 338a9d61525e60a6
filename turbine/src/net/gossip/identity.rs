//! A peer's name on gossip follows from its name in the membership table, and back.
//!
//! The libp2p peer id of an ed25519 key is the key itself in an envelope ("identity" multihash
//! of its protobuf), <https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md>.

use ed25519_dalek::SigningKey;
use libp2p::identity::{Keypair, PublicKey, ed25519};

use crate::peer::PeerId;

/// Code of the multihash that is no hash.
const IDENTITY: u64 = 0;

/// The libp2p peer id of a peer; `None` if its 32 bytes are no ed25519 key.
pub fn libp2p_id_of(peer: &PeerId) -> Option<libp2p::PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(&peer.0).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The peer behind a libp2p peer id; `None` if its key is of another kind.
pub fn peer_id_of(id: &libp2p::PeerId) -> Option<PeerId> {
    let hash = id.as_ref();
    let key = (hash.code() == IDENTITY).then(|| PublicKey::try_decode_protobuf(hash.digest()));
    let key = key?.ok()?.try_into_ed25519().ok()?;
    Some(PeerId(key.to_bytes()))
}

/// The node's key as libp2p holds it.
pub(super) fn keypair(identity: &SigningKey) -> Keypair {
    // libp2p wipes what it is given.
    Keypair::ed25519_from_bytes(identity.to_bytes()).expect("32 bytes are a key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_there_and_back() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let peer = PeerId(key.verifying_key().to_bytes());
        let id = libp2p_id_of(&peer).unwrap();
        assert_eq!(id, keypair(&key).public().to_peer_id());
        assert!(id.to_base58().starts_with("12D3KooW"));
        assert_eq!(peer_id_of(&id), Some(peer));
    }

    #[test]
    fn other_keys_are_nobodys() {
        let id = Keypair::generate_secp256k1().public().to_peer_id();
        assert_eq!(peer_id_of(&id), None);
        // No point of the curve.
        assert_eq!(libp2p_id_of(&PeerId([2; 32])), None);
    }
}
