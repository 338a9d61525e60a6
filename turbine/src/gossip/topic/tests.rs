//! Ids that Python's hashlib gave, with a decompressor written after golang/snappy's.

use alloy_primitives::hex;
use proptest::prelude::*;

use super::*;

const TOPIC: &str = "/optimism/901/0/fragments";

fn id(data: &[u8]) -> String {
    hex::encode(message_id(TOPIC, data))
}

#[track_caller]
fn pinned(data: &str, expected: &str) {
    assert_eq!(id(&hex::decode(data).unwrap()), expected, "{data}");
}

#[test]
fn topics_are_those_of_the_existing_system() {
    let topics = Topics::new(901);
    for (kind, name) in [
        (Kind::Env, "/optimism/901/0/envs"),
        (Kind::Frag, TOPIC),
        (Kind::Seal, "/optimism/901/0/seals"),
    ] {
        assert_eq!(topics.name(kind), name);
        assert_eq!(topics.kind(name), Some(kind));
    }
    for other in ["", "/optimism/902/0/envs", "/optimism/901/0/blocks", "/optimism/901/0/env"] {
        assert_eq!(topics.kind(other), None, "{other}");
    }
}

#[test]
fn data_that_is_no_snappy_block_is_hashed_as_it_is() {
    pinned("", "68a9ed77efafa099b346a9a604bcb6d7ddbf17f6");
    pinned(&hex::encode("no snappy"), "f05042cc6c0acd655a54dbb78835352663948cab");
    // The body of INTEROP's frag: its first byte would be a header.
    pinned(
        "01000000000000000000000000000000011500000004000000010203",
        "24870aea5ce198386d1c8c377f5054915229a2ba",
    );
}

#[test]
fn a_snappy_block_is_hashed_decompressed() {
    pinned("0308010203", "16d25f1628b61e669b24278dc16ed442f6365ef1");
    pinned("00", "c30e08b1e1f642522a4e265041184dd49342202d");
    // Copies with offsets of one, two and four bytes, overlapping; a literal with its length apart.
    pinned("0a00611501", "8984868e0c3e08f407c625a782672b37da7799f5");
    pinned("14046162460200", "34943ecad4298929c2c4b8c08fdba3d36d16ec07");
    pinned("0a00612301000000", "8984868e0c3e08f407c625a782672b37da7799f5");
    pinned("01f00007", "44a6ddadf393eda765806851f2c00caa3499944f");
}

#[test]
fn the_topic_is_part_of_the_id() {
    for (topic, expected) in [
        ("/optimism/901/0/envs", "1b2ae9d6a7b3c2ece74a7af7c425fcd9e0a27541"),
        ("/optimism/901/0/seals", "01e9283bc771765fef1bf5bf183baf0094e18077"),
        ("", "f3b0ee04bef7b52e0c049d7f95c8b727659d5123"),
    ] {
        assert_eq!(hex::encode(message_id(topic, &hex!("0308010203"))), expected);
    }
}

#[test]
fn a_block_that_claims_too_much_or_lies_is_none() {
    // 2^32 − 1 bytes, 2^32, 2^63 + 3, and a byte over the limit.
    pinned("ffffffff0f08010203", "a132f587a18fe8bc8ee4cc55783077c274f710cb");
    pinned("808080801008010203", "2486115acfdb71536772927206ca47a110b76e0b");
    pinned("8380808080808080800108010203", "b16764be5824504417c2df734e13f1df30b0738b");
    pinned("8180800508010203", "674f75a5c6797ef80f22d19e7da45e49a21fde1a");
    // Cut off, with a byte more, claiming a byte more and a byte less; a header cut off.
    pinned("03080102", "09061fe70c6358792babcc66db7f2aeb23037fca");
    pinned("030801020300", "f07470bb879f357301fabb4c182ca936aacb5466");
    pinned("0408010203", "1457775bfd7e9e9a56dea635069be4676d9cec44");
    pinned("0208010203", "e572c3791aff96cf8ca486ba94c1b4faac9cfd08");
    pinned("80", "9e11b038f95089996fdaa28199383096924fc00a");
    // Copies from offset 0 and from before the start.
    pinned("0500610d00", "0ac0d86327ff267343a6e19023a673f8397949ef");
    pinned("0500610102", "bf9753adc466492fc76588fd2a1dff2995d8b11f");
}

/// The `snap` crate takes five bytes at most, Go's decoder ten: the same data had two ids.
#[test]
fn a_padded_header_counts_as_in_go() {
    let unpadded = "16d25f1628b61e669b24278dc16ed442f6365ef1";
    pinned("830008010203", unpadded);
    pinned("83808080800008010203", unpadded);
    pinned("8380808080808080800008010203", unpadded);
    // Eleven bytes, and more than 64 bits.
    pinned("838080808080808080800008010203", "1bfadffdd5c321f945ec6f0536fe24a3297cb0f1");
    pinned("8380808080808080800208010203", "faa372eae2b9e91bc61f65fb80070ff3dbc82978");
}

/// One `a` and copies of it, 64 bytes each.
fn bomb(len: usize) -> Vec<u8> {
    let mut data = vec![len as u8 | 0x80, (len >> 7) as u8 | 0x80, (len >> 14) as u8 | 0x80];
    data.extend([(len >> 21) as u8, 0, b'a']);
    let mut left = len - 1;
    while left > 0 {
        let copied = left.min(64);
        data.extend([((copied - 1) << 2 | 2) as u8, 1, 0]);
        left -= copied;
    }
    data
}

#[test]
fn the_largest_block_is_unpacked_and_a_larger_one_is_not() {
    assert_eq!(bomb(MAX_MESSAGE_LEN).len(), 491_526);
    assert_eq!(id(&bomb(MAX_MESSAGE_LEN)), "3af52e6298a405ff838dc41d98621b1106e7d84d");
    assert_eq!(id(&bomb(MAX_MESSAGE_LEN + 1)), "1eae575f76ddaff482fc9de1dbf41c980a506608");
}

/// A decompressor as slow and plain as the format's description.
fn plain(data: &[u8]) -> Option<Vec<u8>> {
    let mut len = 0u128;
    let mut at = 0;
    loop {
        let byte = *data.get(at)?;
        len |= u128::from(byte & 0x7f) << (7 * at);
        at += 1;
        if byte < 0x80 {
            break;
        }
        if at == 10 {
            return None;
        }
    }
    if len > MAX_MESSAGE_LEN as u128 {
        return None;
    }
    let number = |at: usize, bytes: usize| {
        let bytes = data.get(at..at + bytes)?;
        Some(bytes.iter().rev().fold(0usize, |number, byte| number << 8 | usize::from(*byte)))
    };
    let mut out = Vec::new();
    while let Some(tag) = data.get(at).map(|tag| usize::from(*tag)) {
        at += 1;
        let bytes = [0, 1, 2, 4][tag & 3];
        if bytes == 0 {
            let apart = (tag >> 2).saturating_sub(59);
            let copied = if apart == 0 { tag >> 2 } else { number(at, apart)? } + 1;
            at += apart;
            out.extend_from_slice(data.get(at..at.checked_add(copied)?)?);
            at += copied;
        } else {
            let short = tag & 3 == 1;
            let offset = number(at, bytes)? | if short { (tag & 0xe0) << 3 } else { 0 };
            let copied = if short { (tag >> 2 & 7) + 4 } else { (tag >> 2) + 1 };
            at += bytes;
            for _ in 0..copied {
                let from = out.len().checked_sub(offset).filter(|_| offset > 0)?;
                out.push(out[from]);
            }
        }
    }
    (out.len() as u128 == len).then_some(out)
}

/// Elements of a block, mostly sound.
fn blocks() -> impl Strategy<Value = Vec<u8>> {
    let element = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..80).prop_map(|bytes| {
            let tag = match bytes.len() - 1 {
                len @ 0..60 => vec![(len << 2) as u8],
                len => vec![60 << 2, len as u8],
            };
            let len = bytes.len();
            ([tag, bytes].concat(), len)
        }),
        (0..8u8, 1..9u8).prop_map(|(len, offset)| (vec![len << 2 | 1, offset], 4 + len as usize)),
        (0..64u8, 1..40u16).prop_map(|(len, offset)| {
            let [low, high] = offset.to_le_bytes();
            (vec![len << 2 | 2, low, high], 1 + len as usize)
        }),
        (0..64u8, 0..4u32).prop_map(|(len, offset)| {
            ([&[len << 2 | 3][..], &offset.to_le_bytes()].concat(), 1 + len as usize)
        }),
    ];
    let elements = proptest::collection::vec(element, 0..12);
    (elements, 0..12usize, 0..20i8).prop_map(|(elements, padding, wrong)| {
        let len: usize = elements.iter().map(|(_, len)| len).sum();
        let mut len = len.saturating_add_signed(isize::from(wrong == 1) - isize::from(wrong == 2));
        let mut block = Vec::new();
        while len > 0x7f || block.len() < padding {
            block.push(len as u8 | 0x80);
            len >>= 7;
        }
        block.push(len as u8);
        elements.iter().for_each(|(bytes, _)| block.extend(bytes));
        block
    })
}

proptest! {
    #[test]
    fn what_snappy_makes_is_taken_apart_again(
        data in proptest::collection::vec(0..4u8, 0..3_000),
    ) {
        let packed = snap::raw::Encoder::new().compress_vec(&data).unwrap();
        prop_assert_eq!(unpack(&packed), Some(data));
    }

    #[test]
    fn blocks_are_taken_apart_as_the_format_says(
        block in blocks(),
        cut in 0..40usize,
        change in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut block = block;
        block.truncate(block.len().max(1) - if cut < 3 { cut.min(block.len() - 1) } else { 0 });
        if let Some((at, value)) = change {
            let at = at.index(block.len());
            block[at] = value;
        }
        prop_assert_eq!(unpack(&block), plain(&block));
    }

    #[test]
    fn any_bytes_are_a_block_or_not(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(unpack(&data), plain(&data));
    }
}
