//! Records as bytes: fixed layouts, little-endian, variable parts behind their length.
//!
//! A file can be damaged: decoding checks every length against the bytes that are left, allocates
//! nothing from a number that it read, accepts no trailing bytes, and never panics. bincode would
//! need its traits for alloy's types.
//!
//! ```text
//! account   nonce_len u8 (top bit: has code) │ balance_len u8 │ nonce BE │ balance BE │ [code hash 32]
//! slot      1 to 32 bytes, big-endian without leading zeros
//! head      number u64 │ hash 32 │ state root 32
//! trie key  0 │ path          or          1 │ keccak(address) 32 │ path
//! path      nibbles u8 (≤ 64) │ two nibbles a byte, the first one high, zero-padded
//! ```
//!
//! A path begins with its length, which is never 0xff: all nodes of one account's storage are the
//! keys from `1 │ hash` up to `1 │ hash │ 0xff`. Nodes near the root, which change with every
//! block, are next to each other.

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};
use alloy_trie::Nibbles;

use fragcast_execution::state::Account;
use fragcast_execution::trie::TrieId;

/// A record is damaged; the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Bad(pub(super) &'static str);

/// Reads a record from its beginning.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Bad> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Bad("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Bad("it ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Bad> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u64(&mut self) -> Result<u64, Bad> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn hash(&mut self) -> Result<B256, Bad> {
        Ok(B256::new(self.array()?))
    }

    pub(super) fn address(&mut self) -> Result<Address, Bad> {
        Ok(Address::new(self.array()?))
    }

    pub(super) fn flag(&mut self) -> Result<bool, Bad> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Bad("a flag is neither 0 nor 1")),
        }
    }

    /// A count of items of at least `least` bytes each, so that allocating for it is safe.
    pub(super) fn count(&mut self, least: usize) -> Result<usize, Bad> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        if count > self.0.len() / least.max(1) {
            return Err(Bad("it counts more than it holds"));
        }
        Ok(count)
    }

    /// Reads bytes behind their length.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Bad> {
        let len = self.count(1)?;
        self.take(len)
    }

    /// Reads a value behind its length in one byte.
    pub(super) fn short(&mut self) -> Result<&'a [u8], Bad> {
        let len = self.u8()?.into();
        self.take(len)
    }

    pub(super) const fn end(&self) -> Result<(), Bad> {
        if self.0.is_empty() { Ok(()) } else { Err(Bad("it has trailing bytes")) }
    }
}

/// Writes a count or a length. No part of a block comes near 2^32 (a block is below 2^31 bytes).
pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("fewer than 2^32 of anything in a block");
    out.extend_from_slice(&count.to_le_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Writes at most 255 bytes behind their length: keys and values of state.
pub(super) fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(u8::try_from(bytes.len()).expect("keys and values of state are short"));
    out.extend_from_slice(bytes);
}

fn trim(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..]
}

fn uint(bytes: &[u8]) -> Result<U256, Bad> {
    if bytes.len() > 32 || bytes.first() == Some(&0) {
        return Err(Bad("a number is too long or has leading zeros"));
    }
    Ok(U256::from_be_slice(bytes))
}

const HAS_CODE: u8 = 0x80;

pub(super) fn encode_account(account: &Account) -> Vec<u8> {
    let nonce = account.nonce.to_be_bytes();
    let balance = account.balance.to_be_bytes::<32>();
    let (nonce, balance) = (trim(&nonce), trim(&balance));
    let has_code = account.code_hash != KECCAK256_EMPTY;
    let mut out = Vec::with_capacity(2 + nonce.len() + balance.len() + 32);
    out.push(nonce.len() as u8 | if has_code { HAS_CODE } else { 0 });
    out.push(balance.len() as u8);
    out.extend_from_slice(nonce);
    out.extend_from_slice(balance);
    if has_code {
        out.extend_from_slice(account.code_hash.as_slice());
    }
    out
}

pub(super) fn decode_account(bytes: &[u8]) -> Result<Account, Bad> {
    let mut reader = Reader::new(bytes);
    let (first, balance_len) = (reader.u8()?, reader.u8()?);
    let nonce = uint(reader.take((first & !HAS_CODE).into())?)?;
    let nonce = u64::try_from(nonce).map_err(|_| Bad("a nonce is too large"))?;
    let balance = uint(reader.take(balance_len.into())?)?;
    let code_hash = if first & HAS_CODE == 0 { KECCAK256_EMPTY } else { reader.hash()? };
    reader.end()?;
    Ok(Account { nonce, balance, code_hash })
}

pub(super) fn encode_slot(value: U256) -> Vec<u8> {
    trim(&value.to_be_bytes::<32>()).to_vec()
}

pub(super) fn decode_slot(bytes: &[u8]) -> Result<U256, Bad> {
    if bytes.is_empty() {
        return Err(Bad("a slot of value zero is stored"));
    }
    uint(bytes)
}

/// The newest block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) number: u64,
    pub(super) hash: B256,
    pub(super) state_root: B256,
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let number = self.number.to_le_bytes();
        [&number[..], self.hash.as_slice(), self.state_root.as_slice()].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Bad> {
        let mut reader = Reader::new(bytes);
        let head = Self { number: reader.u64()?, hash: reader.hash()?, state_root: reader.hash()? };
        reader.end()?;
        Ok(head)
    }
}

/// Key of a slot.
pub(super) fn slot_key(address: Address, slot: U256) -> [u8; 52] {
    let mut key = [0; 52];
    key[..20].copy_from_slice(address.as_slice());
    key[20..].copy_from_slice(&slot.to_be_bytes::<32>());
    key
}

/// The first and the last key that a slot of an account can have.
pub(super) fn slot_range(address: Address) -> ([u8; 52], [u8; 52]) {
    (slot_key(address, U256::ZERO), slot_key(address, U256::MAX))
}

/// The account and the slot of a key.
pub(super) fn split_slot_key(key: &[u8; 52]) -> (Address, U256) {
    (Address::from_slice(&key[..20]), U256::from_be_slice(&key[20..]))
}

/// The prefix of the keys of a trie's nodes.
pub(super) fn trie_prefix(trie: TrieId) -> Vec<u8> {
    let mut key = Vec::with_capacity(66);
    match trie {
        TrieId::Accounts => key.push(0),
        TrieId::Storage(address) => {
            key.push(1);
            key.extend_from_slice(address.as_slice());
        }
    }
    key
}

/// The key of a trie node.
pub(super) fn trie_key(trie: TrieId, path: &Nibbles) -> Vec<u8> {
    let mut key = trie_prefix(trie);
    key.push(u8::try_from(path.len()).expect("a path has at most 64 nibbles"));
    key.extend_from_slice(&path.pack());
    key
}

/// The first key after those of a trie's nodes.
pub(super) fn trie_end(trie: TrieId) -> Vec<u8> {
    let mut key = trie_prefix(trie);
    key.push(0xff);
    key
}

#[cfg(test)]
mod tests;
