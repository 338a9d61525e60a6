//! The end of a block: its header, and the comparison with its Seal.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_consensus::proofs::{calculate_withdrawals_root, ordered_trie_root_encoded};
use alloy_hardforks::EthereumHardforks;
use alloy_op_hardforks::OpHardforks;
use alloy_primitives::{B256, Bytes, keccak256};
use fragcast_shredder::Seal;

use super::{OpenBlock, in_time, run_error};
use crate::chain::{Extras, MESSAGE_PASSER};
use crate::exec::message::seal_of;
use crate::exec::overlay::{Layer, OverlayDb};
use crate::exec::run::{self, BlockSoFar, OnInvalid};
use crate::exec::snapshot::{ExecutedBlock, SealedBlock, Snapshot};
use crate::exec::verdict::{BlockError, Invalid, SealField, Unverified, Verdict, compare};
use crate::trie::StateTrie;

/// The largest block as RLP (EIP-7934).
const MAX_BLOCK_RLP: usize = 8 * 1024 * 1024;

/// The result of a block, once its last frag is executed.
#[derive(Clone)]
pub(super) struct Finished {
    /// The header; its state root is meaningless if the trie is not known.
    pub(super) header: Header,
    pub(super) hash: B256,
    pub(super) trie: Result<StateTrie, Unverified>,
    pub(super) layer: Arc<Layer>,
}

impl OpenBlock {
    /// The block's header and hash, after its last frag. Later calls give the same again.
    ///
    /// # Errors
    /// A step after the transactions failed.
    pub fn finish(&mut self) -> Result<(&Header, B256), BlockError> {
        if self.finished.is_none() {
            let finished = self.make_header()?;
            self.finished = Some(finished);
        }
        let finished =
            self.finished.as_ref().ok_or_else(|| Unverified::Internal("no header".into()))?;
        Ok((&finished.header, finished.hash))
    }

    fn make_header(&mut self) -> Result<Finished, BlockError> {
        if self.spec.is_op() && self.txs().next().is_none() {
            return Err(Invalid::Block("it has no L1-attributes deposit".into()).into());
        }
        if self.frags.is_empty() {
            // The system calls of a block without frags.
            self.execute(Vec::new(), true, OnInvalid::Fail)?;
            self.frags.clear();
        }
        let watch = self.allowance.start();
        let so_far = BlockSoFar {
            spec: &self.spec,
            header: &self.header,
            counters: self.counters,
            opening: false,
            watch: &watch,
        };
        let prague = self.spec.is_prague_active_at_timestamp(self.env.timestamp);
        let receipts = if prague && !self.spec.is_op() {
            self.txs().map(|e| e.receipt.clone()).collect()
        } else {
            Vec::new()
        };
        let mut db = OverlayDb::new(self.state.clone(), Arc::clone(&self.hashes));
        db.cache = std::mem::take(&mut self.cache);
        let withdrawals = self.withdrawals.as_ref().map(|w| w.as_slice());
        let fault = Arc::clone(&db.fault);
        db.watch = Some(Arc::clone(&watch));
        let ran = run::finish(&so_far, db, receipts, withdrawals);
        in_time(&watch)?;
        let (db, requests) = ran.map_err(|error| run_error(error, None, &fault))?;
        self.take_layer(db);

        let raw = run::raw(self.txs().map(|e| &e.tx));
        self.check_size(&raw)?;
        let trie = self.trie.clone();
        let frags = &self.frags;
        // The three tries have nothing in common. A thread of its own, because the pool that
        // recovers senders may be busy with the next block's.
        let (mut trie, (transactions_root, receipts_root)) = std::thread::scope(|scope| {
            let lists = scope.spawn(|| {
                let receipts = frags.iter().flat_map(|f| &f.txs);
                let receipts: Vec<Bytes> = receipts.map(|e| e.receipt.encoded_2718()).collect();
                (ordered_trie_root_encoded(&raw), ordered_trie_root_encoded(&receipts))
            });
            let trie = trie.and_then(|trie| trie.finish().map_err(Unverified::from));
            lists.join().map(|lists| (trie, lists))
        })
        .map_err(|_| Unverified::Internal("a list's root could not be computed".into()))?;
        let mut withdrawals_root = self.withdrawals.as_ref().map(|w| calculate_withdrawals_root(w));
        if self.spec.is_op() && self.spec.is_isthmus_active_at_timestamp(self.env.timestamp) {
            match self.message_passer_root(&trie) {
                Ok(root) => withdrawals_root = root,
                Err(error) => trie = Err(error),
            }
        }
        let extras = Extras {
            state_root: trie.as_ref().map_or(B256::ZERO, StateTrie::root),
            transactions_root,
            receipts_root,
            logs_bloom: self.header.logs_bloom,
            gas_used: self.counters.gas_used,
            blob_gas_used: self.counters.blob_gas,
            withdrawals_root,
            requests_hash: (prague && !self.spec.is_op()).then(|| requests.requests_hash()),
        };
        let header = self.spec.header(&self.env, &self.parent.header, &extras);
        let mut layer = Layer::default();
        for frag in &self.layers {
            layer.merge(frag);
        }
        Ok(Finished { hash: header.hash_slow(), header, trie, layer: Arc::new(layer) })
    }

    fn message_passer_root(
        &self,
        trie: &Result<StateTrie, Unverified>,
    ) -> Result<Option<B256>, Unverified> {
        let trie = trie.as_ref().map_err(Clone::clone)?;
        Ok(trie.storage_root(keccak256(MESSAGE_PASSER), &*self.parent.nodes)?)
    }

    fn check_size(&self, raw: &[Bytes]) -> Result<(), BlockError> {
        if self.spec.is_op() || !self.spec.is_osaka_active_at_timestamp(self.env.timestamp) {
            return Ok(());
        }
        // Header, transactions, no ommers (one byte), withdrawals, each a list in a list. A
        // transaction stands there as an RLP string, a legacy one as it is.
        let list = |payload_length| {
            alloy_rlp::Header { list: true, payload_length }.length() + payload_length
        };
        let txs = list(raw.iter().map(rlp_length).sum());
        let withdrawals = self.withdrawals.as_ref().map_or(0, |withdrawals| {
            list(withdrawals.iter().map(alloy_rlp::Encodable::length).sum())
        });
        let header = alloy_rlp::Encodable::length(&self.header);
        if list(header + txs + 1 + withdrawals) > MAX_BLOCK_RLP {
            return Err(Invalid::Block(format!("it is longer than {MAX_BLOCK_RLP} bytes")).into());
        }
        Ok(())
    }

    /// Compares the Seal with the results of execution.
    pub fn check(&mut self, seal: &Seal) -> Verdict {
        match self.compare(seal) {
            Ok(()) => Verdict::Verified,
            Err(error) => error.into(),
        }
    }

    fn compare(&mut self, seal: &Seal) -> Result<(), BlockError> {
        let frags = self.frags();
        compare(SealField::TotalFrags, &seal.total_frags, &frags)?;
        compare(SealField::ParentHash, &seal.parent_hash, &self.env.parent_hash)?;
        compare(SealField::GasLimit, &seal.gas_limit, &self.env.gas_limit)?;
        if !self.complete {
            let reason = "the Seal comes though no frag is marked as the last".to_owned();
            return Err(Invalid::Frag { frag: frags.saturating_sub(1), reason }.into());
        }
        self.finish()?;
        let Some(finished) = &mut self.finished else { return Ok(()) };
        let header = &mut finished.header;
        compare(SealField::GasUsed, &seal.gas_used, &header.gas_used)?;
        if let Some(expected) = seal.blob_gas_used {
            compare(SealField::BlobGasUsed, &expected, &header.blob_gas_used.unwrap_or(0))?;
        }
        compare(SealField::TransactionsRoot, &seal.transactions_root, &header.transactions_root)?;
        compare(SealField::ReceiptsRoot, &seal.receipts_root, &header.receipts_root)?;
        if let Err(why) = &finished.trie {
            // The state root is not known. If the rest hashes with the Seal's to its block hash,
            // the header is whole, and children may be opened on it.
            let why = why.clone();
            header.state_root = seal.state_root;
            finished.hash = header.hash_slow();
            // From Isthmus on a second root, of which nothing is claimed, is missing besides.
            if !(self.spec.is_op() && self.spec.is_isthmus_active_at_timestamp(self.env.timestamp))
            {
                compare(SealField::BlockHash, &seal.block_hash, &finished.hash)?;
            }
            return Err(why.into());
        }
        compare(SealField::StateRoot, &seal.state_root, &header.state_root)?;
        compare(SealField::BlockHash, &seal.block_hash, &finished.hash)?;
        Ok(())
    }

    /// The finished block as something to build on and to keep. `None` before [`finish`](Self::finish).
    pub fn sealed(&self) -> Option<SealedBlock> {
        let finished = self.finished.as_ref()?;
        let block = ExecutedBlock {
            attempt: self.attempt,
            hash: finished.hash,
            header: finished.header.clone(),
            frags: self.frags.clone(),
            withdrawals: self.withdrawals.clone(),
        };
        let state = self.parent.state.with(Arc::clone(&finished.layer));
        let snapshot = Snapshot { block, state, hashes: Arc::clone(&self.hashes) };
        Some(SealedBlock {
            snapshot: Arc::new(snapshot),
            layer: Arc::clone(&finished.layer),
            parent_trie: self.parent.trie.clone().ok(),
            trie: finished.trie.clone(),
            nodes: Arc::clone(&self.parent.nodes),
        })
    }

    /// The Seal that a gateway signs for this block.
    ///
    /// # Errors
    /// The block could not be finished, or its state root is not known.
    pub fn make_seal(&mut self, with_blobs: bool) -> Result<Seal, BlockError> {
        let total_frags = self.frags();
        self.finish()?;
        let finished =
            self.finished.as_ref().ok_or_else(|| Unverified::Internal("no header".into()))?;
        if let Err(why) = &finished.trie {
            return Err(why.clone().into());
        }
        Ok(seal_of(&finished.header, finished.hash, total_frags, with_blobs))
    }
}

/// Length of a transaction in a block's body: a legacy one stands there as it is, others as an RLP
/// string.
fn rlp_length(tx: &Bytes) -> usize {
    match tx.first() {
        Some(0xc0..) => tx.len(),
        _ => alloy_rlp::Encodable::length(tx),
    }
}
