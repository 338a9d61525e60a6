//! Bytes of gossipsub's RPCs on a libp2p connection, below which TCP comes.
//!
//! ```text
//! data ─▶ protobuf RPC, length-prefixed ─▶ yamux frames ─▶ noise frames ─▶ TCP
//! ```
//!
//! Computed by the rules of the encodings rather than encoded: a run has millions of packets and
//! nobody reads their content. Sources: the protobuf of gossipsub v1.0 to v1.2 (libp2p/specs,
//! pubsub/gossipsub), the yamux specification of libp2p/specs, and its noise-libp2p.

use fragcast_shredder::Kind;

/// Header of a yamux frame: version, type, flags, stream, length.
const YAMUX_HEADER: u32 = 12;
/// Bytes of content of a yamux frame at most: go-yamux cuts at 64 KiB, header included.
const YAMUX_CONTENT: u32 = (64 << 10) - YAMUX_HEADER;
/// Around each noise frame: two bytes of length, a Poly1305 tag of 16.
const NOISE_FRAMING: u32 = 2 + 16;
/// Bytes of content of a noise frame at most: 65,535 with the tag.
const NOISE_CONTENT: u32 = 65_535 - 16;
/// A message id of the OP stack: 20 bytes of a SHA-256.
const ID: u32 = 20;
/// `/optimism/<l2 chain id>/0/` before the name of a topic, with a chain id of five digits.
const TOPIC_PREFIX: u32 = 18;
/// A PRUNE names a back-off in seconds: tag and a varint of one byte.
const BACKOFF: u32 = 2;

/// The topics, one for each kind of message.
pub(super) const KINDS: [Kind; 3] = [Kind::Env, Kind::Frag, Kind::Seal];

const fn topic(kind: Kind) -> u32 {
    TOPIC_PREFIX
        + match kind {
            Kind::Env => "envs".len() as u32,
            Kind::Frag => "fragments".len() as u32,
            Kind::Seal => "seals".len() as u32,
        }
}

/// Bytes of a varint of protobuf: seven bits each.
fn varint(value: u32) -> u32 {
    (32 - value.leading_zeros()).div_ceil(7).max(1)
}

/// A field of type bytes, string or message, with a number under 16: one byte of tag.
fn field(content: u32) -> u32 {
    1 + varint(content) + content
}

/// An RPC on its stream, as TCP gets it.
fn connection(rpc: u32) -> u32 {
    let prefixed = varint(rpc) + rpc;
    let muxed = prefixed + prefixed.div_ceil(YAMUX_CONTENT) * YAMUX_HEADER;
    muxed + muxed.div_ceil(NOISE_CONTENT) * NOISE_FRAMING
}

fn control(entries: u32) -> u32 {
    connection(field(entries))
}

/// A message of `data` bytes: data and topic, nothing else (StrictNoSign: no author, sequence
/// number or signature).
pub(super) fn message(kind: Kind, data: u32) -> u32 {
    connection(field(field(data) + field(topic(kind))))
}

/// IHAVE of so many messages on each topic, in the order of [`KINDS`].
pub(super) fn ihave(messages: [u32; 3]) -> u32 {
    let entries = KINDS.iter().zip(messages).filter(|(_, n)| *n > 0);
    control(entries.map(|(kind, n)| field(field(topic(*kind)) + n * field(ID))).sum())
}

/// IWANT or IDONTWANT of so many messages.
pub(super) fn ids(messages: u32) -> u32 {
    control(field(messages * field(ID)))
}

/// GRAFT on all topics.
pub(super) fn graft() -> u32 {
    control(KINDS.iter().map(|kind| field(field(topic(*kind)))).sum())
}

/// PRUNE on all topics.
pub(super) fn prune() -> u32 {
    control(KINDS.iter().map(|kind| field(field(topic(*kind)) + BACKOFF)).sum())
}

/// A subscription to all topics, or its end: a flag and the topic's name each.
pub(super) fn subscription() -> u32 {
    connection(KINDS.iter().map(|kind| field(2 + field(topic(*kind)))).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_encodings() {
        assert_eq!(topic(Kind::Frag), "/optimism/84532/0/fragments".len() as u32);
        assert_eq!([0, 127, 128, 16_383, 16_384, u32::MAX].map(varint), [1, 1, 2, 2, 3, 5]);
        // Tag, length and data; tag, length and topic; tag and length of the message; prefix.
        let rpc = (1 + 3 + 36_000) + (1 + 1 + 27) + (1 + 3);
        assert_eq!(message(Kind::Frag, 36_000), 3 + rpc + 12 + 18);
        // Three yamux frames, three noise frames.
        let rpc = (1 + 3 + 144_000) + (1 + 1 + 27) + (1 + 3);
        assert_eq!(message(Kind::Frag, 144_000), 3 + rpc + 3 * 12 + 3 * 18);
        assert_eq!(ids(1), 1 + (2 + 2 + 22) + 12 + 18);
        assert_eq!(ihave([0, 1, 0]), 1 + (2 + 2 + 29 + 22) + 12 + 18);
        assert_eq!(graft(), 1 + 2 + (2 + 24) + (2 + 29) + (2 + 25) + 12 + 18);
        assert_eq!(prune(), graft() + 3 * 2);
        assert_eq!(subscription(), 1 + (2 + 2 + 24) + (2 + 2 + 29) + (2 + 2 + 25) + 12 + 18);
    }
}
