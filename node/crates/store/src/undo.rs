//! Undo records: the values that a block overwrote, so that it can be taken back.
//!
//! ```text
//! undo      count u32 × (address 20 │ account behind its length u8, 0: none)
//!           │ count u32 × (address 20 │ slot 32 │ value behind its length u8, 0: none)
//!           │ count u32 × (trie key behind its length u8 │ has u8 │ [length u32 │ RLP])
//! ```
//!
//! Entries are in the order in which they were overwritten, and are restored in the reverse order:
//! a key that was overwritten twice, by a wipe and by a new value, gets its first value.
//!
//! Old values are read from the tables themselves and not from the block's changes, so taking a
//! block back restores the tables exactly.

use super::codec::{Bad, Reader, put_bytes, put_count, put_short};

/// A key, and the value that was there.
pub(super) type Entry<K> = (K, Option<Vec<u8>>);

/// The values that one block overwrote, as bytes of the tables.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Undo {
    /// By address.
    pub(super) accounts: Vec<Entry<[u8; 20]>>,
    /// By address and slot.
    pub(super) slots: Vec<Entry<[u8; 52]>>,
    /// By the key of the node.
    pub(super) nodes: Vec<Entry<Vec<u8>>>,
}

impl Undo {
    pub(super) fn encode(&self) -> Vec<u8> {
        let nodes: usize =
            self.nodes.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, Vec::len) + 6).sum();
        let mut out =
            Vec::with_capacity(12 + self.accounts.len() * 64 + self.slots.len() * 85 + nodes);
        put_count(&mut out, self.accounts.len());
        for (key, value) in &self.accounts {
            out.extend_from_slice(key);
            put_short(&mut out, value.as_deref().unwrap_or_default());
        }
        put_count(&mut out, self.slots.len());
        for (key, value) in &self.slots {
            out.extend_from_slice(key);
            put_short(&mut out, value.as_deref().unwrap_or_default());
        }
        put_count(&mut out, self.nodes.len());
        for (key, value) in &self.nodes {
            put_short(&mut out, key);
            out.push(value.is_some().into());
            if let Some(value) = value {
                put_bytes(&mut out, value);
            }
        }
        out
    }

    /// Only accounts and slots, which are what a state is read from.
    pub(super) fn decode_flat(bytes: &[u8]) -> Result<Self, Bad> {
        Self::read_flat(&mut Reader::new(bytes))
    }

    fn read_flat(reader: &mut Reader<'_>) -> Result<Self, Bad> {
        // No account and no slot is stored as nothing.
        let optional = |value: &[u8]| (!value.is_empty()).then(|| value.to_vec());
        let accounts = (0..reader.count(21)?)
            .map(|_| Ok((reader.array()?, optional(reader.short()?))))
            .collect::<Result<_, Bad>>()?;
        let slots = (0..reader.count(53)?)
            .map(|_| Ok((reader.array()?, optional(reader.short()?))))
            .collect::<Result<_, Bad>>()?;
        Ok(Self { accounts, slots, nodes: Vec::new() })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Bad> {
        let mut reader = Reader::new(bytes);
        let flat = Self::read_flat(&mut reader)?;
        let nodes = (0..reader.count(2)?)
            .map(|_| {
                let key = reader.short()?.to_vec();
                let value = reader.flag()?.then(|| reader.bytes()).transpose()?;
                Ok((key, value.map(<[u8]>::to_vec)))
            })
            .collect::<Result<_, Bad>>()?;
        reader.end()?;
        Ok(Self { nodes, ..flat })
    }
}
