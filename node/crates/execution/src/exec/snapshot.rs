//! Snapshots: a block as far as it has been executed, with the state after it.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{Address, B256};

use super::hashes::BlockHashes;
use super::overlay::{Layer, State};
use super::receipt::Receipt;
use super::trie_build::TrieBuild;
use super::tx::Tx;
use super::verdict::Unverified;
use crate::trie::{StateTrie, TrieNodes};

/// An executed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// The transaction.
    pub tx: Tx,
    /// Its receipt.
    pub receipt: Receipt,
    /// Gas it used.
    pub gas_used: u64,
}

impl Executed {
    /// The contract it created, if it tried to create one. The nonce of a deposit's sender is in
    /// its receipt.
    pub fn created(&self) -> Option<Address> {
        let deposit = self.receipt.deposit.and_then(|d| d.nonce);
        self.tx.created(deposit.unwrap_or_else(|| self.tx.envelope.nonce()))
    }
}

/// An executed frag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutedFrag {
    /// Its `seq`.
    pub seq: u64,
    /// Index in the block of its first transaction.
    pub first_index: usize,
    /// Index in the block of its first log.
    pub first_log: usize,
    /// Its transactions.
    pub txs: Vec<Executed>,
}

impl ExecutedFrag {
    /// Its transactions with their places in the block.
    pub fn txs(&self) -> impl Iterator<Item = Placed<'_>> {
        let mut first_log = self.first_log;
        self.txs.iter().enumerate().map(move |(i, executed)| {
            let at = first_log;
            first_log += executed.receipt.logs.len();
            Placed { executed, index: self.first_index + i, first_log: at, frag: self.seq }
        })
    }
}

/// A transaction in its block.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// The transaction.
    pub executed: &'a Executed,
    /// Its index in the block.
    pub index: usize,
    /// Index in the block of its first log.
    pub first_log: usize,
    /// `seq` of its frag.
    pub frag: u64,
}

/// A block as far as it has been executed. Immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutedBlock {
    /// The attempt at its number.
    pub attempt: u8,
    /// Hash of the block; zero until it is sealed.
    pub hash: B256,
    /// Its header. Until it is sealed its state, transactions and receipts roots are zero; gas
    /// used, bloom and, on OP from Isthmus on, the withdrawals root are of the frags so far.
    pub header: Header,
    /// Its executed frags.
    pub frags: Vec<Arc<ExecutedFrag>>,
    /// Its withdrawals, from Shanghai on.
    pub withdrawals: Option<Arc<Vec<Withdrawal>>>,
}

impl ExecutedBlock {
    /// Whether the block is sealed.
    pub fn is_sealed(&self) -> bool {
        !self.hash.is_zero()
    }

    /// Whether its transactions are known: of a block that a state source starts from, only the
    /// header may be known.
    pub fn is_whole(&self) -> bool {
        !self.frags.is_empty()
            || self.header.transactions_root == alloy_trie::EMPTY_ROOT_HASH
            || !self.is_sealed()
    }

    /// How many transactions there are.
    pub fn tx_count(&self) -> usize {
        self.frags.last().map_or(0, |f| f.first_index + f.txs.len())
    }

    /// All transactions, in order.
    pub fn txs(&self) -> impl Iterator<Item = Placed<'_>> {
        self.frags.iter().flat_map(|frag| frag.txs())
    }

    /// The transaction at an index of the block.
    pub fn tx(&self, index: usize) -> Option<Placed<'_>> {
        let frag = self.frags.partition_point(|f| f.first_index + f.txs.len() <= index);
        let frag = self.frags.get(frag)?;
        frag.txs().nth(index - frag.first_index)
    }

    /// The transaction with this hash.
    pub fn tx_by_hash(&self, hash: B256) -> Option<Placed<'_>> {
        self.txs().find(|placed| placed.executed.tx.hash == hash)
    }
}

/// A block as far as it has been executed, and the state after that. Immutable; dereferences to the
/// block.
#[derive(Clone)]
pub struct Snapshot {
    /// The block.
    pub block: ExecutedBlock,
    /// The state after what has been executed.
    pub state: State,
    /// BLOCKHASH in this block.
    pub hashes: Arc<BlockHashes>,
}

impl std::ops::Deref for Snapshot {
    type Target = ExecutedBlock;

    fn deref(&self) -> &ExecutedBlock {
        &self.block
    }
}

/// A block whose header and hash are known.
#[derive(Clone)]
pub struct SealedBlock {
    /// Its snapshot.
    pub snapshot: Arc<Snapshot>,
    /// Its changes.
    pub layer: Arc<Layer>,
    /// The trie before it.
    pub parent_trie: Option<StateTrie>,
    /// The trie after it, or why it is not known.
    pub trie: Result<StateTrie, Unverified>,
    /// Trie nodes.
    pub nodes: Arc<dyn TrieNodes>,
}

impl SealedBlock {
    /// Its number.
    pub fn number(&self) -> u64 {
        self.snapshot.header.number
    }

    /// Its hash.
    pub fn hash(&self) -> B256 {
        self.snapshot.hash
    }

    /// The state root after these changes of its state.
    ///
    /// # Errors
    /// Its trie is not known, or not the part of it that changes.
    pub fn root_with(&self, changes: &Layer) -> Result<B256, Unverified> {
        let mut build = TrieBuild::new(self.trie.clone()?, Arc::clone(&self.nodes));
        build.apply(changes)?;
        Ok(build.finish()?.root())
    }
}
