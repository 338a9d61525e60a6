//! Compressed messages of a feed: permessage-deflate (RFC 7692), for consumers that offer it.
//!
//! Both sides begin every message with an empty window (`no_context_takeover`), so a message is
//! compressed once for all connections, and a connection holds no window. What consumers send is not
//! used, so it is not inflated either: [`Plain`] makes the reading half take a compressed message for
//! a binary one.

use flate2::{Compress, Compression, FlushCompress};

/// The answer to an offer that is taken.
pub(crate) const TAKEN: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// Whether one of the offers in `Sec-WebSocket-Extensions` can be taken: one that names nothing but
/// what RFC 7692 does, and no window smaller than the usual.
pub(crate) fn is_offered<'a>(lines: impl Iterator<Item = &'a str>) -> bool {
    lines.flat_map(|line| line.split(',')).any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case("permessage-deflate"))
            && parts.all(|parameter| {
                let (name, value) = match parameter.split_once('=') {
                    Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                    None => (parameter, None),
                };
                match name.to_ascii_lowercase().as_str() {
                    "server_no_context_takeover" | "client_no_context_takeover" => value.is_none(),
                    // A limit for us, which would have to be confirmed.
                    "server_max_window_bits" => false,
                    // A limit that the consumer could keep if it were asked to.
                    "client_max_window_bits" => {
                        value.is_none_or(|bits| matches!(bits.parse(), Ok(8..=15_u8)))
                    }
                    _ => false,
                }
            })
    })
}

/// The payload of a compressed message (RFC 7692, 7.2.1).
pub fn deflate(message: &[u8]) -> Vec<u8> {
    /// Ends a flush, and is left out.
    const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
    let mut compress = Compress::new(Compression::fast(), false);
    let mut short = Vec::with_capacity(message.len() / 3 + 64);
    loop {
        let rest = message.get(compress.total_in() as usize..).unwrap_or_default();
        // It fails only if it is used after its end.
        let _ = compress.compress_vec(rest, &mut short, FlushCompress::Sync);
        // Room that is left says that all is out.
        if compress.total_in() as usize == message.len() && short.len() < short.capacity() {
            break;
        }
        short.reserve(short.capacity().max(64));
    }
    if short.ends_with(&TAIL) {
        short.truncate(short.len() - TAIL.len());
    }
    short.shrink_to_fit();
    short
}

/// Reads along in what a consumer sends, and takes the mark of compression off its frames.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    /// The bytes of a frame's header so far.
    header: [u8; 14],
    length: usize,
    /// Bytes of its payload that are still to come.
    payload: u64,
}

/// The first byte of a frame: whether its message is compressed, and what it is.
const COMPRESSED: u8 = 0x40;
const OPCODE: u8 = 0x0f;
const TEXT: u8 = 1;
const BINARY: u8 = 2;

impl Plain {
    pub(crate) fn pass(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
            self.payload -= skipped as u64;
            bytes = &mut bytes[skipped..];
            let Some((first, rest)) = bytes.split_first_mut() else { return };
            if self.length == 0 && *first & COMPRESSED != 0 {
                // Whatever else it is, it is refused for.
                *first &= !COMPRESSED;
                if *first & OPCODE == TEXT {
                    *first = *first & !OPCODE | BINARY;
                }
            }
            self.header[self.length] = *first;
            self.length += 1;
            bytes = rest;
            if let Some(payload) = self.whole() {
                (self.length, self.payload) = (0, payload);
            }
        }
    }

    /// The length of the payload, if the header is whole.
    fn whole(&self) -> Option<u64> {
        let header = self.header.get(..self.length)?;
        let second = *header.get(1)?;
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if header.len() < 2 + extended + mask {
            return None;
        }
        let length = header[2..2 + extended].iter();
        Some(match extended {
            0 => u64::from(second & 0x7f),
            _ => length.fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        })
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};

    use super::*;

    #[test]
    fn offers_are_taken_that_can_be_kept() {
        for (lines, taken) in [
            (&[][..], false),
            (&["permessage-deflate"], true),
            (&["permessage-deflate; client_max_window_bits"], true),
            (
                &["permessage-deflate; client_max_window_bits=\"10\"; server_no_context_takeover"],
                true,
            ),
            (
                &["x-webkit-deflate-frame", "foo, Permessage-Deflate ;client_no_context_takeover"],
                true,
            ),
            // The second is the fallback of the first.
            (&["permessage-deflate; server_max_window_bits=10, permessage-deflate"], true),
            (&["permessage-deflate; server_max_window_bits=15"], false),
            (&["permessage-deflate; client_max_window_bits=7"], false),
            (&["permessage-deflate; server_no_context_takeover=1"], false),
            (&["permessage-deflate; unheard_of"], false),
            (&["permessage-bzip2"], false),
        ] {
            assert_eq!(is_offered(lines.iter().copied()), taken, "{lines:?}");
        }
    }

    #[test]
    fn what_is_deflated_is_inflated_by_others() {
        let long: Vec<u8> =
            (0..300_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        for message in [&b""[..], b"a", b"{\"index\":0}", &[b'x'; 100_000], &long] {
            let mut short = deflate(message);
            assert!(!short.ends_with(&[0, 0, 0xff, 0xff]) || message.is_empty());
            short.extend([0, 0, 0xff, 0xff]);
            let mut inflate = Decompress::new(false);
            let mut back = Vec::with_capacity(message.len() + 64);
            inflate.decompress_vec(&short, &mut back, FlushDecompress::Sync).unwrap();
            assert_eq!(back.len(), message.len());
            assert!(back == message);
        }
    }

    #[test]
    fn marks_of_compression_are_taken_off_wherever_bytes_are_cut() {
        let frame = |first: u8, length: usize| {
            let mut frame = vec![first];
            match length {
                0..126 => frame.push(0x80 | length as u8),
                126..65_536 => {
                    frame.push(0x80 | 126);
                    frame.extend((length as u16).to_be_bytes());
                }
                _ => {
                    frame.push(0x80 | 127);
                    frame.extend((length as u64).to_be_bytes());
                }
            }
            frame.extend([0xff; 4]);
            // A payload that looks like marks.
            frame.extend(vec![0xc1; length]);
            frame
        };
        let sent: Vec<u8> =
            [(0xc1, 5), (0x89, 0), (0x41, 200), (0x80, 70_000), (0xc2, 0), (0x81, 1)]
                .into_iter()
                .flat_map(|(first, length)| frame(first, length))
                .collect();
        let expected: Vec<u8> =
            [(0x82, 5), (0x89, 0), (0x02, 200), (0x80, 70_000), (0x82, 0), (0x81, 1)]
                .into_iter()
                .flat_map(|(first, length)| frame(first, length))
                .collect();
        for step in [1, 2, 3, 7, 1_000, usize::MAX] {
            let (mut read, mut plain) = (sent.clone(), Plain::default());
            for part in read.chunks_mut(step.min(sent.len())) {
                plain.pass(part);
            }
            assert!(read == expected, "{step}");
        }
    }
}
