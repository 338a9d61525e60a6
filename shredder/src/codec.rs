//! Bounded decoding with bincode: little-endian, integers of fixed width.
//!
//! Every structure that a peer sends is decoded by [`decode_exact`], which limits the memory
//! allocated and refuses trailing bytes. The encoding is bincode 2's `legacy` configuration.
//! `WIRE.md` specifies it byte by byte, because the crate is no longer maintained.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};

/// The configuration that Fragcast uses everywhere, limited to `LIMIT` bytes.
const fn config<const LIMIT: usize>() -> Configuration<LittleEndian, Fixint, Limit<LIMIT>> {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<LIMIT>()
}

/// Why bytes do not decode to the expected structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early, hold a value that does not exist, or ask for more than the limit.
    #[error("malformed or over the limit of its kind")]
    Malformed,
    /// Bytes follow the structure.
    #[error("{0} bytes left over")]
    Trailing(usize),
}

/// Decodes one `T` that fills `bytes` exactly and claims no more than `LIMIT` bytes.
///
/// # Errors
/// [`DecodeError`] if the bytes are anything but exactly one `T`.
pub fn decode_exact<T: bincode::Decode<()>, const LIMIT: usize>(
    bytes: &[u8],
) -> Result<T, DecodeError> {
    let (value, used) =
        bincode::decode_from_slice(bytes, config::<LIMIT>()).map_err(|_| DecodeError::Malformed)?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(DecodeError::Trailing(left)),
    }
}

/// Encodes `value`; the inverse of [`decode_exact`].
pub fn encode<T: bincode::Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, bincode::config::legacy())
        .expect("encoding to memory has no failure of its own")
}

/// Encodes `value` into `out`, which must be exactly as long as the encoding.
pub(crate) fn encode_into<T: bincode::Encode>(value: &T, out: &mut [u8]) {
    let written = bincode::encode_into_slice(value, out, bincode::config::legacy())
        .expect("the caller sizes the slice for the structure");
    debug_assert_eq!(written, out.len());
}
