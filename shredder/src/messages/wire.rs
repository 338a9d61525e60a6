//! Wire bodies, exactly as based-op's op-node writes them.
//!
//! ```text
//! Env   number 8 │ parent_hash 32 │ beneficiary 20 │ timestamp 8 │ gas_limit 8 │ basefee 8 │
//!       difficulty 32 │ prevrandao 32 │ offset 4 (=184) │ extra_data … │ beacon root 32
//! Frag  block_number 8 │ seq 8 │ is_last 1 │ [blob_gas_used 8] │ offset 4 (=21 or 29) │
//!       tx offsets 4·n, from the list's start │ txs …
//! Seal  total_frags 8 │ block_number 8 │ gas_used 8 │ gas_limit 8 │ five hashes 32 │ [blob 8]
//! ```
//!
//! All integers are little-endian. Env is *not* canonical SSZ: its dynamic bytes come before the
//! last static field, so a standard SSZ library cannot be used. Frag and Seal are canonical; a test
//! compares them with `ethereum_ssz`.

use alloy_primitives::{Address, B256, Bytes, U256};

use super::{Dialect, Env, Frag, Kind, MAX_EXTRA_DATA, Message, Seal};
use crate::MAX_MESSAGE_LEN;

const ENV_FIXED: usize = 184;
const HASH: usize = 32;

/// Why a body does not decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The body is shorter than its fixed part or than its offsets require.
    #[error("truncated: {have} bytes, {need} needed")]
    Truncated {
        /// Bytes found.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// The body is longer than [`MAX_MESSAGE_LEN`].
    #[error("{0} bytes exceed the limit of {MAX_MESSAGE_LEN}")]
    TooLong(usize),
    /// The body has the layout of the other dialect.
    #[error("the body speaks dialect `{found}`, the chain is configured for `{expected}`")]
    Dialect {
        /// The chain's dialect.
        expected: Dialect,
        /// The dialect whose layout the body has.
        found: Dialect,
    },
    /// An offset differs from the one that the layout requires.
    #[error("offset {found} where {expected} belongs")]
    Offset {
        /// The offset that the layout requires.
        expected: usize,
        /// The offset in the body.
        found: usize,
    },
    /// Bytes follow the message, or its size fits no layout.
    #[error("{0} bytes fit no layout of this message")]
    Length(usize),
    /// A boolean is neither 0 nor 1.
    #[error("is_last is {0}, not 0 or 1")]
    Bool(u8),
    /// `extra_data` is longer than [`MAX_EXTRA_DATA`].
    #[error("extra_data of {0} bytes exceeds the limit of {MAX_EXTRA_DATA}")]
    ExtraData(usize),
}

/// The most transactions of a frag (the SSZ limit of the field).
const MAX_TXS: usize = 1 << 20;

/// Reads fields of fixed size. The caller has checked the total length.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_first_chunk::<N>().expect("the length was checked");
        self.0 = rest;
        *head
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
    fn offset(&mut self) -> usize {
        u32::from_le_bytes(self.take()) as usize
    }
    fn hash(&mut self) -> B256 {
        B256::from(self.take::<32>())
    }
}

fn at_least(body: &[u8], need: usize) -> Result<(), WireError> {
    if body.len() < need { Err(WireError::Truncated { have: body.len(), need }) } else { Ok(()) }
}

impl Message {
    /// Appends the wire body, which contains neither the kind nor the signature.
    pub fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Env(m) => encode_env(m, out),
            Self::Frag(m) => encode_frag(m, out),
            Self::Seal(m) => encode_seal(m, out),
        }
    }

    /// Decodes a wire body of the given kind and dialect. The transactions share the memory of
    /// `body`.
    ///
    /// # Errors
    /// [`WireError`]. A body of the other dialect is recognised by its layout.
    pub fn decode_body(kind: Kind, dialect: Dialect, body: &Bytes) -> Result<Self, WireError> {
        if body.len() > MAX_MESSAGE_LEN {
            return Err(WireError::TooLong(body.len()));
        }
        Ok(match kind {
            Kind::Env => Self::Env(decode_env(body)?),
            Kind::Frag => Self::Frag(decode_frag(dialect, body)?),
            Kind::Seal => Self::Seal(decode_seal(dialect, body)?),
        })
    }
}

fn encode_env(m: &Env, out: &mut Vec<u8>) {
    out.extend(m.number.to_le_bytes());
    out.extend(m.parent_hash);
    out.extend(m.beneficiary);
    out.extend(m.timestamp.to_le_bytes());
    out.extend(m.gas_limit.to_le_bytes());
    out.extend(m.basefee.to_le_bytes());
    out.extend(m.difficulty.to_le_bytes::<32>());
    out.extend(m.prevrandao);
    out.extend((ENV_FIXED as u32).to_le_bytes());
    out.extend(&m.extra_data);
    out.extend(m.parent_beacon_block_root);
}

fn decode_env(body: &Bytes) -> Result<Env, WireError> {
    // 184 includes the beacon root, which follows the extra data; the part before is 152 bytes.
    at_least(body, ENV_FIXED)?;
    let extra_len = body.len() - ENV_FIXED;
    if extra_len > MAX_EXTRA_DATA {
        return Err(WireError::ExtraData(extra_len));
    }
    let mut r = Reader(body);
    let (number, parent_hash) = (r.u64(), r.hash());
    let beneficiary = Address::from(r.take::<20>());
    let (timestamp, gas_limit, basefee) = (r.u64(), r.u64(), r.u64());
    let difficulty = U256::from_le_bytes(r.take::<32>());
    let prevrandao = r.hash();
    let offset = r.offset();
    if offset != ENV_FIXED {
        return Err(WireError::Offset { expected: ENV_FIXED, found: offset });
    }
    let front = ENV_FIXED - HASH;
    let extra_data = body.slice(front..front + extra_len);
    Ok(Env {
        number,
        parent_hash,
        beneficiary,
        timestamp,
        gas_limit,
        basefee,
        difficulty,
        prevrandao,
        extra_data,
        parent_beacon_block_root: B256::from_slice(&body[front + extra_len..]),
    })
}

const fn frag_fixed(dialect: Dialect) -> usize {
    match dialect {
        Dialect::V0 => 21,
        Dialect::V0Blob => 29,
    }
}

fn encode_frag(m: &Frag, out: &mut Vec<u8>) {
    let fixed = frag_fixed(if m.blob_gas_used.is_some() { Dialect::V0Blob } else { Dialect::V0 });
    let txs: usize = m.txs.iter().map(|tx| tx.len() + 4).sum();
    out.reserve(fixed + txs);
    out.extend(m.block_number.to_le_bytes());
    out.extend(m.seq.to_le_bytes());
    out.push(m.is_last.into());
    if let Some(blob) = m.blob_gas_used {
        out.extend(blob.to_le_bytes());
    }
    out.extend((fixed as u32).to_le_bytes());
    let mut offset = m.txs.len() * 4;
    for tx in &m.txs {
        out.extend((offset as u32).to_le_bytes());
        offset += tx.len();
    }
    for tx in &m.txs {
        out.extend(tx);
    }
}

/// The offset in the four bytes before `end`; `None` if the body is shorter.
fn offset_at(body: &[u8], end: usize) -> Option<usize> {
    let bytes = body.get(end - 4..end)?;
    Some(u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize)
}

fn decode_frag(dialect: Dialect, body: &Bytes) -> Result<Frag, WireError> {
    let fixed = frag_fixed(dialect);
    let other = match dialect {
        Dialect::V0 => Dialect::V0Blob,
        Dialect::V0Blob => Dialect::V0,
    };
    let other_fixed = frag_fixed(other);
    if offset_at(body, fixed) != Some(fixed) && offset_at(body, other_fixed) == Some(other_fixed) {
        return Err(WireError::Dialect { expected: dialect, found: other });
    }
    at_least(body, fixed)?;
    let mut r = Reader(body);
    let (block_number, seq) = (r.u64(), r.u64());
    let [is_last] = r.take::<1>();
    if is_last > 1 {
        return Err(WireError::Bool(is_last));
    }
    let blob_gas_used = (dialect == Dialect::V0Blob).then(|| r.u64());
    let offset = r.offset();
    if offset != fixed {
        return Err(WireError::Offset { expected: fixed, found: offset });
    }
    let txs = decode_txs(&body.slice(fixed..))?;
    Ok(Frag { block_number, seq, is_last: is_last == 1, blob_gas_used, txs })
}

/// Decodes a list of byte lists. The first offset determines their number and must lie within the
/// bytes, so the length of the body bounds the allocation.
fn decode_txs(list: &Bytes) -> Result<Vec<Bytes>, WireError> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    at_least(list, 4)?;
    let first = offset_at(list, 4).expect("four bytes");
    if first == 0 || !first.is_multiple_of(4) || first > list.len() {
        return Err(WireError::Offset { expected: 4, found: first });
    }
    let count = first / 4;
    if count > MAX_TXS {
        return Err(WireError::Length(list.len()));
    }
    let mut txs = Vec::with_capacity(count);
    let mut start = first;
    for i in 1..=count {
        let end = if i == count {
            list.len()
        } else {
            offset_at(list, 4 * i + 4).expect("within the offsets")
        };
        if end < start || end > list.len() {
            return Err(WireError::Offset { expected: start, found: end });
        }
        txs.push(list.slice(start..end));
        start = end;
    }
    Ok(txs)
}

fn encode_seal(m: &Seal, out: &mut Vec<u8>) {
    for n in [m.total_frags, m.block_number, m.gas_used, m.gas_limit] {
        out.extend(n.to_le_bytes());
    }
    for hash in [m.parent_hash, m.transactions_root, m.receipts_root, m.state_root, m.block_hash] {
        out.extend(hash);
    }
    if let Some(blob) = m.blob_gas_used {
        out.extend(blob.to_le_bytes());
    }
}

fn decode_seal(dialect: Dialect, body: &[u8]) -> Result<Seal, WireError> {
    let found = match body.len() {
        192 => Dialect::V0,
        200 => Dialect::V0Blob,
        n if n < 192 => return Err(WireError::Truncated { have: n, need: 192 }),
        n => return Err(WireError::Length(n)),
    };
    if found != dialect {
        return Err(WireError::Dialect { expected: dialect, found });
    }
    let mut r = Reader(body);
    Ok(Seal {
        total_frags: r.u64(),
        block_number: r.u64(),
        gas_used: r.u64(),
        gas_limit: r.u64(),
        parent_hash: r.hash(),
        transactions_root: r.hash(),
        receipts_root: r.hash(),
        state_root: r.hash(),
        block_hash: r.hash(),
        blob_gas_used: (dialect == Dialect::V0Blob).then(|| r.u64()),
    })
}
