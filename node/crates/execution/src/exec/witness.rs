//! State from a witness: the trie nodes, codes and headers that one block needs, by their hashes,
//! as in stateless clients and recorded blocks.
//!
//! Invariants: nothing is read that has not been checked against its hash, with the parent's state
//! root at the top. Data that the witness lacks is [`SourceError::Missing`] and never taken for
//! empty. The hashes of all entries are checked when the witness is made, whether an entry is
//! needed or not: a file with any wrong byte is detected at once, and every node is hashed once,
//! however often it is read.

use std::fmt;
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::map::B256Map;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rlp::Decodable;
use alloy_trie::Nibbles;

use super::source::{Anchor, StateSource, StateView};
use crate::state::{Account, SourceError};
use crate::trie::{StateTrie, TrieId, TrieNodes};

/// Bytes by their hash. It takes as much memory as the file that it was read from, which the reader
/// of the file bounds.
#[derive(Default)]
pub struct Witness {
    preimages: B256Map<Bytes>,
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").field("preimages", &self.preimages.len()).finish()
    }
}

impl Witness {
    /// Checks that every entry has the hash that is its key.
    ///
    /// # Errors
    /// [`SourceError::Corrupt`], with the key of an entry that has another hash.
    pub fn new(preimages: B256Map<Bytes>) -> Result<Self, SourceError> {
        // The smallest first, so that a file gives the same error every time.
        let wrong = preimages.iter().filter(|(hash, bytes)| keccak256(bytes) != **hash);
        match wrong.map(|(hash, _)| hash).min() {
            None => Ok(Self { preimages }),
            Some(hash) => Err(SourceError::Corrupt(format!(
                "the preimage of {hash} has another hash; record the block again"
            ))),
        }
    }

    fn get(&self, what: &str, hash: B256) -> Result<&Bytes, SourceError> {
        let missing = || SourceError::Missing(format!("the {what} {hash}"));
        self.preimages.get(&hash).ok_or_else(missing)
    }
}

impl TrieNodes for Witness {
    fn node(&self, _: TrieId, _: &Nibbles, hash: B256) -> Result<Bytes, SourceError> {
        self.get("trie node", hash).cloned()
    }
}

/// The state after one block. Nodes that were resolved stay in the trie.
struct WitnessView {
    trie: StateTrie,
    witness: Arc<Witness>,
}

impl StateView for WitnessView {
    fn account(&self, address: Address) -> Result<Option<Account>, SourceError> {
        self.trie.account(keccak256(address), &*self.witness)
    }

    fn storage(&self, address: Address, slot: U256) -> Result<U256, SourceError> {
        let slot = keccak256(slot.to_be_bytes::<32>());
        self.trie.slot(keccak256(address), slot, &*self.witness)
    }

    fn code(&self, hash: B256) -> Result<Bytes, SourceError> {
        self.witness.get("code", hash).cloned()
    }
}

/// A source with the part of the state after one block that a witness holds.
pub struct WitnessSource {
    anchor: Anchor,
    witness: Arc<Witness>,
}

impl WitnessSource {
    /// The state after the block with this header.
    pub fn new(header: Header, witness: Arc<Witness>) -> Self {
        let trie = StateTrie::from_root(header.state_root);
        let view = Arc::new(WitnessView { trie: trie.clone(), witness: Arc::clone(&witness) });
        let nodes = Arc::clone(&witness) as Arc<dyn TrieNodes>;
        let hash = header.hash_slow();
        Self { anchor: Anchor { header, hash, view, trie, nodes }, witness }
    }
}

impl StateSource for WitnessSource {
    fn at(&self, block: B256) -> Result<Option<Anchor>, SourceError> {
        Ok((block == self.anchor.hash).then(|| self.anchor.clone()))
    }

    fn head(&self) -> Result<Option<B256>, SourceError> {
        Ok(None)
    }

    /// Ancestors for BLOCKHASH are entries as well: the header's RLP by its hash.
    fn header(&self, hash: B256) -> Result<Option<Header>, SourceError> {
        if hash == self.anchor.hash {
            return Ok(Some(self.anchor.header.clone()));
        }
        let Some(mut rlp) = self.witness.preimages.get(&hash).map(AsRef::as_ref) else {
            return Ok(None);
        };
        match Header::decode(&mut rlp) {
            Ok(header) if rlp.is_empty() => Ok(Some(header)),
            _ => Err(SourceError::Corrupt(format!("the preimage of {hash} is no header"))),
        }
    }
}

#[cfg(test)]
mod tests;
