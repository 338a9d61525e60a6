//! Bytes of gossipsub's RPCs on a libp2p connection, down to the content of TCP.
//!
//! ```text
//! data ─▶ protobuf RPC, length-prefixed ─▶ yamux frames ─▶ noise frames ─▶ TCP
//! ```
//!
//! The lengths are computed by the rules of the encodings, without encoding: a run has millions of
//! packets whose content is never read. Sources: the protobuf of gossipsub v1.0 to v1.2
//! (libp2p/specs, pubsub/gossipsub), the yamux specification of libp2p/specs, and its noise-libp2p.

use fragcast_shredder::Kind;

/// Header of a yamux frame: version, type, flags, stream, length.
const YAMUX_HEADER: u32 = 12;
/// The most content of a yamux frame in bytes: go-yamux cuts at 64 KiB, header included.
const YAMUX_CONTENT: u32 = (64 << 10) - YAMUX_HEADER;
/// Bytes around each noise frame: two of length, 16 of a Poly1305 tag.
const NOISE_FRAMING: u32 = 2 + 16;
/// The most content of a noise frame in bytes: 65,535 with the tag.
const NOISE_CONTENT: u32 = 65_535 - 16;
/// Bytes of a message id of the OP stack, part of a SHA-256.
const ID: u32 = 20;
/// Bytes of `/optimism/<l2 chain id>/0/` before the name of a topic, with a chain id of five
/// digits.
const TOPIC_PREFIX: u32 = 18;
/// Bytes of the back-off in a PRUNE, in seconds: a tag and a varint of one byte.
const BACKOFF: u32 = 2;

/// The kinds of messages, each of which has a topic.
pub(super) const KINDS: [Kind; 3] = [Kind::Env, Kind::Frag, Kind::Seal];

const fn topic(kind: Kind) -> u32 {
    TOPIC_PREFIX
        + match kind {
            Kind::Env => "envs".len() as u32,
            Kind::Frag => "fragments".len() as u32,
            Kind::Seal => "seals".len() as u32,
        }
}

/// Bytes of a protobuf varint, of seven bits each.
fn varint(value: u32) -> u32 {
    (32 - value.leading_zeros()).div_ceil(7).max(1)
}

/// Bytes of a field of type bytes, string or message with a number under 16, whose tag is one byte.
fn field(content: u32) -> u32 {
    1 + varint(content) + content
}

/// Bytes of an RPC on its stream, as TCP carries it.
fn connection(rpc: u32) -> u32 {
    let prefixed = varint(rpc) + rpc;
    let muxed = prefixed + prefixed.div_ceil(YAMUX_CONTENT) * YAMUX_HEADER;
    muxed + muxed.div_ceil(NOISE_CONTENT) * NOISE_FRAMING
}

fn control(entries: u32) -> u32 {
    connection(field(entries))
}

/// Bytes of a message of `data` bytes. It has data and topic only (StrictNoSign: no author,
/// sequence number or signature).
pub(super) fn message(kind: Kind, data: u32) -> u32 {
    connection(field(field(data) + field(topic(kind))))
}

/// Bytes of an IHAVE with this many messages of each topic, in the order of [`KINDS`].
pub(super) fn ihave(messages: [u32; 3]) -> u32 {
    let entries = KINDS.iter().zip(messages).filter(|(_, n)| *n > 0);
    control(entries.map(|(kind, n)| field(field(topic(*kind)) + n * field(ID))).sum())
}

/// Bytes of an IWANT or IDONTWANT with this many messages.
pub(super) fn ids(messages: u32) -> u32 {
    control(field(messages * field(ID)))
}

/// Bytes of a GRAFT on all topics.
pub(super) fn graft() -> u32 {
    control(KINDS.iter().map(|kind| field(field(topic(*kind)))).sum())
}

/// Bytes of a PRUNE on all topics.
pub(super) fn prune() -> u32 {
    control(KINDS.iter().map(|kind| field(field(topic(*kind)) + BACKOFF)).sum())
}

/// Bytes of a subscription to all topics, or of its end: a flag and the name for each topic.
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
