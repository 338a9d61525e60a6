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

    /// The kind of message of a topic, if it is one of the three.
    pub fn kind(&self, topic: &str) -> Option<Kind> {
        [Kind::Env, Kind::Frag, Kind::Seal].into_iter().find(|kind| self.name(*kind) == topic)
    }
}

/// The id of a gossip message: sha256(domain ‖ u64le(len(topic)) ‖ topic ‖ data)[..20].
///
/// `data` that happens to be a snappy block is hashed decompressed, up to the size of the
/// largest message; any other data as it is. None of our messages is meant to be one, but two
/// nodes must give the same bytes the same id, whoever made them. Takes 21 times the memory of
/// `data` for the time of the call, and 10 MiB at most.
pub fn message_id(topic: &str, data: &[u8]) -> [u8; 20] {
    let unpacked = unpack(data);
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

/// What a snappy block decompresses to, exactly where golang/snappy finds one.
///
/// The `snap` crate refuses a header of more than five bytes, Go takes ten: the header is read
/// here, and one that is padded is written anew.
fn unpack(data: &[u8]) -> Option<Vec<u8>> {
    let (len, header) = varint(data)?;
    let body = &data[header..];
    // An element takes two bytes or more, and the one that gives most makes 64 of three: who
    // claims more is wrong, and nothing is allocated for him.
    if len > MAX_MESSAGE_LEN as u64 || len * 3 > body.len() as u64 * 64 {
        return None;
    }
    let mut decoder = snap::raw::Decoder::new();
    if header <= 5 {
        return decoder.decompress_vec(data).ok();
    }
    let mut rewritten = Vec::with_capacity(5 + body.len());
    rewritten.extend((0..4).map(|group| (len >> (7 * group)) as u8 | 0x80));
    rewritten.push((len >> 28) as u8);
    rewritten.extend_from_slice(body);
    decoder.decompress_vec(&rewritten).ok()
}

/// A number in groups of seven bits, the lowest first, and how many bytes it takes: like Go's
/// `binary.Uvarint`, padding allowed, at most ten bytes and 64 bits.
fn varint(data: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for (group, byte) in data.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if group == 9 && bits > 1 {
            return None;
        }
        number |= bits << (7 * group);
        if byte & 0x80 == 0 {
            return Some((number, group + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests;
