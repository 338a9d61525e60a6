//! Turns the chain's events into flashblocks.
//!
//! It follows one block at a time, the one whose frags are shown. Every snapshot with more frags
//! than were sent is the next index. A snapshot of another block or another attempt starts at index
//! 0 with everything so far. So indices are contiguous even if snapshots were not shown or lost on
//! the way: the next flashblock has what was missed.

use std::collections::BTreeMap;

use alloy_consensus::Header;
use alloy_consensus::proofs::ordered_trie_root_encoded;
use alloy_primitives::{Address, B64, B256, Bytes, U64, U256};
use fragcast_execution::exec::{ExecutedBlock, Layer, SealedBlock, Snapshot};
use fragcast_execution::executor::ChainEvent;

use super::payload::{Base, Diff, Metadata, Payload, TaggedReceipt, payload_id};
use super::ring::Position;

/// What is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing is to be sent.
    Nothing,
    /// A flashblock, and whether it is the last of its block.
    Payload { text: String, at: Position, last: bool },
    /// The block gets no more flashblocks.
    Ended,
}

/// The block whose flashblocks are being sent.
struct Sequence {
    number: u64,
    attempt: u8,
    parent: B256,
    id: B64,
    /// The next index.
    index: u64,
    /// Frags that were sent.
    frags: usize,
    /// Transactions and receipts so far, as the roots need them.
    txs: Vec<Bytes>,
    receipts: Vec<Bytes>,
}

impl Sequence {
    fn new(block: &ExecutedBlock) -> Self {
        Self {
            number: block.header.number,
            attempt: block.attempt,
            parent: block.header.parent_hash,
            id: payload_id(block),
            index: 0,
            frags: 0,
            txs: Vec::new(),
            receipts: Vec::new(),
        }
    }

    fn is_of(&self, block: &ExecutedBlock) -> bool {
        (self.number, self.attempt, self.parent)
            == (block.header.number, block.attempt, block.header.parent_hash)
    }

    /// The header so far, and its hash; of a sealed block they are final.
    fn header(&self, block: &ExecutedBlock) -> (Header, B256) {
        if block.is_sealed() {
            return (block.header.clone(), block.hash);
        }
        let header = Header {
            transactions_root: ordered_trie_root_encoded(&self.txs),
            receipts_root: ordered_trie_root_encoded(&self.receipts),
            ..block.header.clone()
        };
        let hash = header.hash_slow();
        (header, hash)
    }

    /// Writes the next flashblock: the frags of `block` that were not sent yet.
    fn write(
        &mut self,
        block: &ExecutedBlock,
        balances: BTreeMap<Address, U256>,
    ) -> serde_json::Result<String> {
        let new = block.frags.get(self.frags..).unwrap_or_default();
        let executed = || new.iter().flat_map(|frag| &frag.txs);
        self.txs.extend(executed().map(|e| e.tx.bytes.clone()));
        self.receipts.extend(executed().map(|e| e.receipt.encoded_2718()));
        let (header, hash) = self.header(block);
        let withdrawals = block.withdrawals.as_ref().filter(|_| block.is_sealed());
        // op-alloy takes a root of zero for a block of before Isthmus, whose header has that of an
        // empty list. What came with Isthmus beside it is the hash of the requests.
        let withdrawals_root = header.withdrawals_root.filter(|_| header.requests_hash.is_some());
        let payload = Payload {
            payload_id: self.id,
            index: self.index,
            base: (self.index == 0).then(|| Base::new(block)),
            diff: Diff {
                state_root: header.state_root,
                receipts_root: header.receipts_root,
                logs_bloom: header.logs_bloom,
                gas_used: U64::from(header.gas_used),
                block_hash: hash,
                transactions: executed().map(|e| &e.tx.bytes).collect(),
                withdrawals: withdrawals.map_or(&[], |all| all.as_slice()),
                withdrawals_root: withdrawals_root.unwrap_or_default(),
                blob_gas_used: header.blob_gas_used.map(U64::from),
            },
            metadata: Metadata {
                block_number: self.number,
                new_account_balances: balances.into_iter().collect(),
                receipts: executed().map(|e| (e.tx.hash, TaggedReceipt::new(e))).collect(),
            },
        };
        let text = serde_json::to_string(&payload)?;
        self.index += 1;
        self.frags += new.len();
        Ok(text)
    }
}

/// Writes flashblocks.
#[derive(Default)]
pub(super) struct Sequences {
    current: Option<Sequence>,
}

impl Sequences {
    /// What follows from an event.
    pub(super) fn take(&mut self, event: &ChainEvent) -> Step {
        match event {
            ChainEvent::Frag(snapshot) => self.frag(snapshot),
            ChainEvent::Verified(block) => self.verified(block),
            ChainEvent::Retracted { snapshot, .. } => self.end(snapshot),
            ChainEvent::Unwound(block) => self.end(block),
        }
    }

    fn frag(&mut self, snapshot: &Snapshot) -> Step {
        let current = match self.current.take().filter(|current| current.is_of(snapshot)) {
            Some(current) => self.current.insert(current),
            None => self.current.insert(Sequence::new(snapshot)),
        };
        let new = snapshot.frags.len().saturating_sub(current.frags);
        if new == 0 {
            return Step::Nothing;
        }
        let balances = balances(snapshot.state.newest(new));
        self.told(|current| current.write(snapshot, balances), false)
    }

    /// One more flashblock, with the header's roots and hash, if the block is still the one that is
    /// being sent.
    fn verified(&mut self, block: &SealedBlock) -> Step {
        let snapshot = &block.snapshot;
        let Some(current) = self.current.as_ref().filter(|current| current.is_of(snapshot)) else {
            return Step::Nothing;
        };
        let all = snapshot.frags.len() == current.frags;
        let balances = if all { BTreeMap::new() } else { balances([&*block.layer]) };
        let step = self.told(|current| current.write(snapshot, balances), true);
        self.current = None;
        step
    }

    fn end(&mut self, block: &ExecutedBlock) -> Step {
        if self.current.as_ref().is_none_or(|current| !current.is_of(block)) {
            return Step::Nothing;
        }
        self.current = None;
        Step::Ended
    }

    fn told(
        &mut self,
        write: impl FnOnce(&mut Sequence) -> serde_json::Result<String>,
        last: bool,
    ) -> Step {
        let Some(current) = &mut self.current else { return Step::Nothing };
        let at = Position { block: current.number, index: current.index };
        match write(current) {
            Ok(text) => Step::Payload { text, at, last },
            Err(error) => {
                // Every key is a string, so this does not happen; a gap would be worse than an end.
                tracing::error!(%error, "a flashblock could not be written");
                self.current = None;
                Step::Ended
            }
        }
    }
}

/// The balances that layers leave, the newest last.
fn balances<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> BTreeMap<Address, U256> {
    let accounts = layers.into_iter().flat_map(|layer| &layer.accounts);
    accounts.map(|(address, a)| (*address, a.map_or(U256::ZERO, |a| a.balance))).collect()
}
