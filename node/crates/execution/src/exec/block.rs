//! One block in execution: opened on its parent, frag after frag, then finished and checked.
//!
//! Pure except for its state source. Every step gives an immutable [`Snapshot`]. After a step that
//! fails the [`OpenBlock`] cannot be used any more; snapshots taken before stay valid.

use std::sync::{Arc, OnceLock};

use alloy_consensus::Header;
use alloy_consensus::proofs::{calculate_withdrawals_root, ordered_trie_root_encoded};
use alloy_eips::eip4895::Withdrawal;
use alloy_evm::block::BlockExecutionError;
use alloy_hardforks::EthereumHardforks;
use alloy_op_hardforks::OpHardforks;
use alloy_primitives::{Address, B256, Bytes, address, keccak256};
use fragcast_shredder::{Env, Seal};

use super::hashes::BlockHashes;
use super::message::seal_of;
use super::overlay::{Layer, OverlayDb, ReadCache, State};
use super::receipt::Receipt;
use super::run::{self, BlockSoFar, Counters, OnInvalid, RunError};
use super::snapshot::{Executed, ExecutedBlock, ExecutedFrag, SealedBlock, Snapshot};
use super::source::{Anchor, StateSource};
use super::trie_build::TrieBuild;
use super::tx::{Tx, TxError};
use super::verdict::{BlockError, Invalid, SealField, Unverified, Verdict, compare};
use crate::chain::{ChainSpec, Extras};
use crate::state::SourceError;
use crate::trie::{StateTrie, TrieNodes};

/// The L1Block predeploy, which the first deposit of an OP block calls.
const L1_BLOCK: Address = address!("4200000000000000000000000000000000000015");
/// The L2ToL1MessagePasser predeploy, whose storage root is in the header from Isthmus on.
const MESSAGE_PASSER: Address = address!("4200000000000000000000000000000000000016");
/// The largest block as RLP (EIP-7934).
const MAX_BLOCK_RLP: usize = 8 * 1024 * 1024;

/// The parent that a block is opened on.
#[derive(Clone)]
pub struct Parent {
    /// Its header.
    pub header: Header,
    /// Hash of the header.
    pub hash: B256,
    /// The state after it.
    pub state: State,
    /// The trie after it, or why it is not known.
    pub trie: Result<StateTrie, Unverified>,
    /// Trie nodes.
    pub nodes: Arc<dyn TrieNodes>,
    /// Hashes for BLOCKHASH, its own first.
    pub hashes: Vec<B256>,
}

impl From<Anchor> for Parent {
    fn from(anchor: Anchor) -> Self {
        Self {
            header: anchor.header,
            hash: anchor.hash,
            state: State::new(anchor.view),
            trie: Ok(anchor.trie),
            nodes: anchor.nodes,
            hashes: vec![anchor.hash],
        }
    }
}

/// A transaction of a frag, or why it does not decode.
pub type Decoded = Result<Tx, TxError>;

/// The result of a block, once its last frag is executed.
#[derive(Clone)]
struct Finished {
    /// The header; its state root is meaningless if the trie is not known.
    header: Header,
    hash: B256,
    trie: Result<StateTrie, Unverified>,
    layer: Arc<Layer>,
}

/// A block in execution.
pub struct OpenBlock {
    spec: Arc<ChainSpec>,
    env: Env,
    parent: Parent,
    attempt: u8,
    header: Header,
    state: State,
    cache: ReadCache,
    layers: Vec<Arc<Layer>>,
    counters: Counters,
    frags: Vec<Arc<ExecutedFrag>>,
    hashes: Arc<BlockHashes>,
    withdrawals: Option<Arc<Vec<Withdrawal>>>,
    trie: Result<TrieBuild, Unverified>,
    /// Whether a transaction that is no deposit has been executed.
    past_deposits: bool,
    complete: bool,
    finished: Option<Finished>,
}

/// Turns an error of alloy-evm's executors into ours. `fault` is the source's error, if it failed.
fn run_error(
    error: BlockExecutionError,
    place: Option<(u64, usize)>,
    fault: &OnceLock<SourceError>,
) -> BlockError {
    if let Some(fault) = fault.get() {
        return fault.clone().into();
    }
    match error {
        BlockExecutionError::Validation(e) => match place {
            Some((frag, index)) => Invalid::Tx { frag, index, reason: e.to_string() }.into(),
            None => Invalid::Block(e.to_string()).into(),
        },
        BlockExecutionError::Internal(e) => Unverified::Internal(e.to_string()).into(),
    }
}

impl OpenBlock {
    /// Opens a block: checks its Env against the parent's header.
    ///
    /// `withdrawals` come beside the messages, which do not carry them (EIP-4895).
    ///
    /// # Errors
    /// The Env contradicts its parent, or this build lacks the fork.
    pub fn open(
        spec: &Arc<ChainSpec>,
        env: &Env,
        attempt: u8,
        parent: Parent,
        source: &Arc<dyn StateSource>,
        withdrawals: Option<Vec<Withdrawal>>,
    ) -> Result<Self, BlockError> {
        if parent.hash != env.parent_hash {
            return Err(Unverified::Parent(env.parent_hash).into());
        }
        if let Some(fork) = spec.lacks(env.timestamp) {
            return Err(Unverified::Fork(fork.to_owned()).into());
        }
        spec.check_env(env, &parent.header).map_err(Invalid::from)?;
        let shanghai = !spec.is_op() && spec.is_shanghai_active_at_timestamp(env.timestamp);
        let withdrawals = shanghai.then(|| Arc::new(withdrawals.unwrap_or_default()));
        let mut header = spec.header(env, &parent.header, &Extras::default());
        if spec.is_op() && spec.is_isthmus_active_at_timestamp(env.timestamp) {
            // The message passer's storage, until a frag changes it.
            let known = spec.is_isthmus_active_at_timestamp(parent.header.timestamp);
            let root = parent.header.withdrawals_root.filter(|_| known);
            header.withdrawals_root = Some(root.unwrap_or_default());
        }
        let known = parent.hashes.clone();
        let hashes = BlockHashes::new(parent.header.number, known, Arc::clone(source));
        let trie = parent.trie.clone().map(|t| TrieBuild::new(t, Arc::clone(&parent.nodes)));
        Ok(Self {
            spec: Arc::clone(spec),
            env: env.clone(),
            attempt,
            header,
            state: parent.state.clone(),
            parent,
            cache: ReadCache::default(),
            layers: Vec::new(),
            counters: Counters::default(),
            frags: Vec::new(),
            hashes: Arc::new(hashes),
            withdrawals,
            trie,
            past_deposits: false,
            complete: false,
            finished: None,
        })
    }

    /// Its Env.
    pub const fn env(&self) -> &Env {
        &self.env
    }

    /// The attempt at its number.
    pub const fn attempt(&self) -> u8 {
        self.attempt
    }

    /// How many frags have been executed.
    pub fn frags(&self) -> u64 {
        self.frags.len() as u64
    }

    /// Whether the last frag has been executed.
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Gas used so far.
    pub const fn gas_used(&self) -> u64 {
        self.counters.gas_used
    }

    /// The block's transactions so far.
    fn txs(&self) -> impl Iterator<Item = &Executed> {
        self.frags.iter().flat_map(|frag| &frag.txs)
    }

    /// The block and its state as executed so far.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let block = ExecutedBlock {
            attempt: self.attempt,
            hash: B256::ZERO,
            header: self.header.clone(),
            frags: self.frags.clone(),
            withdrawals: self.withdrawals.clone(),
        };
        let (state, hashes) = (self.state.clone(), Arc::clone(&self.hashes));
        Arc::new(Snapshot { block, state, hashes })
    }

    /// Executes the next frag. Returns the transactions that were passed over, if that was allowed.
    ///
    /// # Errors
    /// The frag is invalid, or could not be executed.
    pub fn execute(
        &mut self,
        txs: Vec<Decoded>,
        is_last: bool,
        on_invalid: OnInvalid,
    ) -> Result<Vec<(usize, String)>, BlockError> {
        let seq = self.frags();
        if self.complete {
            let reason = "it comes after the last one".to_owned();
            return Err(Invalid::Frag { frag: seq, reason }.into());
        }
        let mut decoded = Vec::with_capacity(txs.len());
        for (index, tx) in txs.into_iter().enumerate() {
            let tx = tx.map_err(|e| Invalid::Tx { frag: seq, index, reason: e.to_string() })?;
            self.check_place(seq, index, &tx)?;
            decoded.push(tx);
        }
        self.check_blobs(seq, &decoded)?;
        self.prefetch(&decoded);

        let mut db = OverlayDb::new(self.state.clone(), Arc::clone(&self.hashes));
        db.cache = std::mem::take(&mut self.cache);
        let so_far = BlockSoFar {
            spec: &self.spec,
            header: &self.header,
            counters: self.counters,
            opening: self.frags.is_empty(),
        };
        let fault = Arc::clone(&db.fault);
        let ran =
            run::run(&so_far, db, &decoded, on_invalid).map_err(|RunError { index, error }| {
                run_error(error, index.map(|index| (seq, index)), &fault)
            })?;
        let passed_over = ran.passed_over;
        let mut at = 0;
        decoded.retain(|_| {
            at += 1;
            !passed_over.iter().any(|(index, _)| *index + 1 == at)
        });
        let before = self.counters.gas_used;
        self.counters = ran.counters;
        self.take_frag(seq, decoded, ran.receipts, before);
        self.take_layer(ran.db);
        self.complete = is_last;
        Ok(passed_over)
    }

    fn take_frag(&mut self, seq: u64, txs: Vec<Tx>, receipts: Vec<Receipt>, mut gas: u64) {
        let first_index = self.frags.last().map_or(0, |f| f.first_index + f.txs.len());
        let logs =
            |f: &Arc<ExecutedFrag>| f.txs.iter().map(|e| e.receipt.logs.len()).sum::<usize>();
        let first_log = self.frags.last().map_or(0, |f| f.first_log + logs(f));
        let txs = txs.into_iter().zip(receipts).map(|(tx, receipt)| {
            let gas_used = receipt.cumulative_gas_used - gas;
            gas = receipt.cumulative_gas_used;
            self.header.logs_bloom |= receipt.bloom;
            Executed { tx, receipt, gas_used }
        });
        let txs = txs.collect();
        self.frags.push(Arc::new(ExecutedFrag { seq, first_index, first_log, txs }));
        self.header.gas_used = self.counters.gas_used;
        if self.header.blob_gas_used.is_some() {
            self.header.blob_gas_used = Some(self.counters.blob_gas);
        }
    }

    fn take_layer(&mut self, db: OverlayDb) {
        let OverlayDb { layer, mut cache, .. } = db;
        cache.apply(&layer);
        self.cache = cache;
        if let Ok(trie) = &mut self.trie
            && let Err(error) = trie.apply(&layer)
        {
            self.trie = Err(error.into());
        }
        if layer.storage.contains_key(&MESSAGE_PASSER) {
            self.note_withdrawals();
        }
        let layer = Arc::new(layer);
        self.state = self.state.with(Arc::clone(&layer));
        self.layers.push(layer);
    }

    /// Updates the withdrawals root after the message passer's storage has changed. The trie then
    /// holds the path to it, so no source is asked. Zero if the trie is not known.
    fn note_withdrawals(&mut self) {
        if !self.spec.is_op() || !self.spec.is_isthmus_active_at_timestamp(self.env.timestamp) {
            return;
        }
        let root = |trie: &TrieBuild| trie.storage_root(keccak256(MESSAGE_PASSER)).ok().flatten();
        let root = self.trie.as_ref().ok().and_then(root);
        self.header.withdrawals_root = Some(root.unwrap_or_default());
    }

    /// Hashes the changed part of the trie, while there is nothing else to do.
    pub fn hash_ahead(&self) {
        if let (Ok(trie), None) = (&self.trie, &self.finished) {
            trie.hash();
        }
    }

    /// Checks the order of OP blocks: the L1-attributes deposit first, deposits before everything
    /// else.
    fn check_place(&mut self, seq: u64, index: usize, tx: &Tx) -> Result<(), BlockError> {
        if !self.spec.is_op() {
            return Ok(());
        }
        let invalid =
            |reason: &str| Err(Invalid::Tx { frag: seq, index, reason: reason.into() }.into());
        let first = index == 0 && self.frags.iter().all(|frag| frag.txs.is_empty());
        let deposit = tx.envelope.is_deposit();
        if first
            && !(deposit
                && run::is_attributes_depositor(tx.sender)
                && tx.envelope.kind().to() == Some(&L1_BLOCK))
        {
            return invalid("the first transaction of a block must be the L1-attributes deposit");
        }
        if deposit && self.past_deposits {
            return invalid("a deposit must come before all other transactions");
        }
        if !deposit {
            self.past_deposits = true;
        }
        Ok(())
    }

    /// Checks the blob gas of the whole block (EIP-4844); the EVM checks that of one transaction.
    fn check_blobs(&self, seq: u64, txs: &[Tx]) -> Result<(), BlockError> {
        let Some(params) = self.spec.blob_params(self.env.timestamp) else { return Ok(()) };
        let most = params.max_blob_gas_per_block();
        let mut used = self.counters.blob_gas;
        for (index, tx) in txs.iter().enumerate() {
            used += tx.envelope.blob_gas_used();
            if used > most {
                let reason = format!("blob gas {used} exceeds the block's {most}");
                return Err(Invalid::Tx { frag: seq, index, reason }.into());
            }
        }
        Ok(())
    }

    /// Tells the source which accounts and slots the transactions will certainly read.
    fn prefetch(&self, txs: &[Tx]) {
        let mut keys: Vec<(Address, Vec<alloy_primitives::U256>)> = Vec::new();
        if self.frags.is_empty() {
            keys.push((self.env.beneficiary, Vec::new()));
        }
        for tx in txs {
            keys.push((tx.sender, Vec::new()));
            keys.extend(tx.envelope.kind().to().map(|to| (*to, Vec::new())));
            for item in tx.envelope.access_list().into_iter().flat_map(|list| list.iter()) {
                let slots = item.storage_keys.iter().map(|key| (*key).into()).collect();
                keys.push((item.address, slots));
            }
        }
        self.state.prefetch(&keys);
    }

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
        let so_far = BlockSoFar {
            spec: &self.spec,
            header: &self.header,
            counters: self.counters,
            opening: false,
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
        let (db, requests) = run::finish(&so_far, db, receipts, withdrawals)
            .map_err(|error| run_error(error, None, &fault))?;
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

impl From<SourceError> for BlockError {
    fn from(error: SourceError) -> Self {
        Self::Unverified(error.into())
    }
}

#[cfg(test)]
mod tests;
