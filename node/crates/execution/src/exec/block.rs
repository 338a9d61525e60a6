//! One block in execution: opened on its parent, frag after frag, then finished and checked.
//!
//! Pure except for its state source. Every step gives an immutable [`Snapshot`]. After a step that
//! fails the [`OpenBlock`] cannot be used any more; snapshots taken before stay valid.

mod seal;

use std::sync::{Arc, OnceLock};

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_evm::block::BlockExecutionError;
use alloy_hardforks::EthereumHardforks;
use alloy_op_hardforks::OpHardforks;
use alloy_primitives::{Address, B256, address, keccak256};
use fragcast_shredder::Env;

use super::allowance::{Allowance, Watch};
use super::hashes::BlockHashes;
use super::overlay::{Layer, OverlayDb, ReadCache, State};
use super::parent::Parent;
use super::receipt::Receipt;
use super::run::{self, BlockSoFar, Counters, OnInvalid, RunError};
use super::snapshot::{Executed, ExecutedBlock, ExecutedFrag, Snapshot};
use super::source::StateSource;
use super::trie_build::TrieBuild;
use super::tx::{Tx, TxError};
use super::verdict::{BlockError, Invalid, Unverified};
use crate::chain::{ChainSpec, Extras, MESSAGE_PASSER};
use crate::state::SourceError;

use seal::Finished;

/// The L1Block predeploy, which the first deposit of an OP block calls.
const L1_BLOCK: Address = address!("4200000000000000000000000000000000000015");

/// A transaction of a frag, or why it does not decode.
pub type Decoded = Result<Tx, TxError>;

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
    allowance: Allowance,
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

/// Whether execution came to its end. If it was given up, what came of it means nothing.
fn in_time(watch: &Watch) -> Result<(), BlockError> {
    watch.why().map_or(Ok(()), |why| Err(why.into()))
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
        let (got, most) = (env.gas_limit, spec.most_gas(&parent.header));
        if got > most {
            return Err(Unverified::GasLimit { got, most }.into());
        }
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
            allowance: Allowance::default(),
            past_deposits: false,
            complete: false,
            finished: None,
        })
    }

    /// Gives the block a time for all that is left of it; at first it has all the time.
    pub fn allow(&mut self, allowance: Allowance) {
        self.allowance = allowance;
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
        let watch = self.allowance.start();
        db.watch = Some(Arc::clone(&watch));
        let so_far = BlockSoFar {
            spec: &self.spec,
            header: &self.header,
            counters: self.counters,
            opening: self.frags.is_empty(),
            watch: &watch,
        };
        let fault = Arc::clone(&db.fault);
        let ran = run::run(&so_far, db, &decoded, on_invalid);
        self.allowance.spend(&watch);
        in_time(&watch)?;
        let ran = ran.map_err(|RunError { index, error }| {
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
    /// else; nothing else where a fork becomes active, from Jovian on.
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
            let parent_time = self.parent.header.timestamp;
            if let Some(fork) = self.spec.activates(parent_time, self.env.timestamp) {
                let reason = format!("the first block of {fork:?} holds deposits only");
                return invalid(&reason);
            }
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
}

#[cfg(test)]
mod tests;
