//! Names of topics and ids of messages, as based-op's op-node fork has them.

use fragcast_shredder::{Kind, MAX_MESSAGE_LEN};
use sha2::{Digest, Sha256};

/// Domain of a message whose data is no snappy block.
const INVALID_SNAPPY: [u8; 4] = [0; 4];
/// Domain of a message whose data is one; the id is of what it decompresses to.
const VALID_SNAPPY: [u8; 4] = [1, 0, 0, 0];

/// The three topics of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    names: [String; 3],
}

impl Topics {
    /// The topics of chain `chain_id`: `/optimism/<id>/0/envs`, `…/fragments`, `…/seals`.
    pub fn new(chain_id: u64) -> Self {
        let name = |last| format!("/optimism/{chain_id}/0/{last}");
        Self { names: [name("envs"), name("fragments"), name("seals")] }
    }

    /// The topic of a kind of message.
    pub fn name(&self, kind: Kind) -> &str {
        &self.names[match kind {
            Kind::Env => 0,
            Kind::Frag => 1,
            Kind::Seal => 2,
        }]
    }

    /// What a topic carries, if it is one of the three.
    pub fn kind(&self, topic: &str) -> Option<Kind> {
        [Kind::Env, Kind::Frag, Kind::Seal].into_iter().find(|kind| self.name(*kind) == topic)
    }
}

/// The id of a gossip message: sha256(domain ‖ u64le(len(topic)) ‖ topic ‖ data)[..20].
///
/// `data` that happens to be a snappy block is hashed decompressed; a block that claims more
/// than the largest message is not unpacked, and counts as none.
pub fn message_id(topic: &str, data: &[u8]) -> [u8; 20] {
    let claimed = snap::raw::decompress_len(data);
    let unpacked = claimed
        .ok()
        .filter(|len| *len <= MAX_MESSAGE_LEN)
        .and_then(|_| snap::raw::Decoder::new().decompress_vec(data).ok());
    let (domain, data) = match &unpacked {
        Some(unpacked) => (VALID_SNAPPY, unpacked.as_slice()),
        None => (INVALID_SNAPPY, data),
    };
    let mut hash = Sha256::new();
    hash.update(domain);
    hash.update((topic.len() as u64).to_le_bytes());
    hash.update(topic);
    hash.update(data);
    *hash.finalize().first_chunk().expect("32 bytes")
}
