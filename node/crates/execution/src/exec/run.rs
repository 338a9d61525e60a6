//! Runs transactions of one frag through the block executors of alloy-evm and alloy-op-evm.
//!
//! alloy's executors own the EVM for a whole block. A frag needs the state between frags, so an
//! executor is made for each frag and its counters ([`Counters`]) are carried over. Making one
//! costs some microseconds.

use std::borrow::Cow;
use std::sync::Arc;

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{Header, TxType};
use alloy_eips::eip4895::Withdrawal;
use alloy_eips::eip7685::Requests;
use alloy_evm::block::{BlockExecutionError, BlockExecutor, ExecutableTx};
use alloy_evm::eth::receipt_builder::{ReceiptBuilder, ReceiptBuilderCtx};
use alloy_evm::eth::{EthBlockExecutionCtx, EthBlockExecutor, EthEvm, EthEvmFactory};
use alloy_evm::precompiles::PrecompilesMap;
use alloy_evm::{Evm, EvmEnv, EvmFactory, FromRecoveredTx, FromTxWithEncoded};
use alloy_op_evm::block::receipt_builder::OpReceiptBuilder;
use alloy_op_evm::{OpBlockExecutionCtx, OpBlockExecutor, OpEvm, OpEvmFactory, OpTx};
use alloy_primitives::{Address, Bytes};
use op_alloy_consensus::{OpDepositReceipt, OpTxEnvelope, OpTxType};
use revm::context::TxEnv;
use revm::inspector::NoOpInspector;
use revm::primitives::hardfork::SpecId;

use super::allowance::{self, Watch};
use super::op;
use super::overlay::OverlayDb;
use super::receipt::{DepositFields, Receipt};
use super::tx::{Envelope, EthTx, Tx};
use crate::chain::{BlockEnv, ChainSpec};

/// Gas that a block has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Gas used, as the receipts count it.
    pub(super) gas_used: u64,
    regular_gas: u64,
    state_gas: u64,
    /// Blob gas; on OP the DA footprint.
    pub(super) blob_gas: u64,
}

/// Builds [`Receipt`]s for either kind of chain.
#[derive(Debug, Clone, Copy)]
struct Receipts;

impl ReceiptBuilder for Receipts {
    type Transaction = EthTx;
    type Receipt = Receipt;

    fn build_receipt<E: Evm>(&self, ctx: ReceiptBuilderCtx<'_, TxType, E>) -> Receipt {
        let success = ctx.result.is_success();
        Receipt::new(ctx.tx_type as u8, success, ctx.cumulative_gas_used, ctx.result.into_logs())
    }
}

impl OpReceiptBuilder for Receipts {
    type Transaction = OpTxEnvelope;
    type Receipt = Receipt;

    fn build_receipt<'a, E: Evm>(
        &self,
        ctx: ReceiptBuilderCtx<'a, OpTxType, E>,
    ) -> Result<Receipt, ReceiptBuilderCtx<'a, OpTxType, E>> {
        if ctx.tx_type == OpTxType::Deposit {
            return Err(ctx);
        }
        let (ty, success) = (ctx.tx_type as u8, ctx.result.is_success());
        Ok(Receipt::new(ty, success, ctx.cumulative_gas_used, ctx.result.into_logs()))
    }

    fn build_deposit_receipt(&self, deposit: OpDepositReceipt) -> Receipt {
        let inner = deposit.inner;
        let success = inner.status.coerce_status();
        let ty = OpTxType::Deposit as u8;
        let mut receipt = Receipt::new(ty, success, inner.cumulative_gas_used, inner.logs);
        receipt.deposit = Some(DepositFields {
            nonce: deposit.deposit_nonce,
            version: deposit.deposit_receipt_version,
        });
        receipt
    }
}

/// The block that a run adds to, as far as it has come.
pub(super) struct BlockSoFar<'a> {
    pub(super) spec: &'a Arc<ChainSpec>,
    /// The block's header as far as it is known.
    pub(super) header: &'a Header,
    pub(super) counters: Counters,
    /// Whether the system calls at the block's beginning come first.
    pub(super) opening: bool,
    /// When to give up.
    pub(super) watch: &'a Watch,
}

/// The result of a run.
pub(super) struct Ran {
    pub(super) db: OverlayDb,
    pub(super) counters: Counters,
    pub(super) receipts: Vec<Receipt>,
    /// Transactions that were passed over because they cannot be included, and why.
    pub(super) passed_over: Vec<(usize, String)>,
}

/// Why a run failed; the layer it worked on is lost.
#[derive(Debug)]
pub(super) struct RunError {
    /// The transaction of the frag that failed, if one did.
    pub(super) index: Option<usize>,
    /// The error.
    pub(super) error: BlockExecutionError,
}

/// What to do with a transaction that cannot be included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInvalid {
    /// The frag is invalid: a follower.
    Fail,
    /// Leave it out: a gateway that fills a block.
    PassOver,
}

/// Runs transactions in order.
pub(super) fn run(
    block: &BlockSoFar<'_>,
    db: OverlayDb,
    txs: &[Tx],
    on_invalid: OnInvalid,
) -> Result<Ran, RunError> {
    match block.spec.block_env(block.header) {
        BlockEnv::Eth(env) => {
            let mut executor = eth(block, eth_evm(db, env), None);
            let (receipts, passed_over) =
                drive(block, &mut executor, txs, on_invalid, |_, tx| eth_tx(tx))?;
            let counters = Counters {
                gas_used: executor.cumulative_tx_gas_used,
                regular_gas: executor.block_regular_gas_used,
                state_gas: executor.block_state_gas_used,
                blob_gas: executor.blob_gas_used,
            };
            Ok(Ran { db: executor.evm.into_db(), counters, receipts, passed_over })
        }
        BlockEnv::Op(env) => {
            let fork = env.cfg_env.spec;
            let mut evm = OpEvmFactory::<OpTx>::default().create_evm(db, env).into_inner();
            allowance::install(&mut evm.0.instruction);
            op::mend_precompiles(&mut evm.0.precompiles, fork);
            let evm = OpEvm::<_, _, _, OpTx>::new(evm, false);
            let context = OpBlockExecutionCtx {
                parent_hash: block.header.parent_hash,
                parent_beacon_block_root: block.header.parent_beacon_block_root,
                extra_data: block.header.extra_data.clone(),
            };
            let mut executor = OpBlockExecutor::new(evm, context, &**block.spec, Receipts);
            executor.gas_used = block.counters.gas_used;
            executor.da_footprint_used = block.counters.blob_gas;
            let (receipts, passed_over) =
                drive(block, &mut executor, txs, on_invalid, |executor, tx| {
                    let cap = op::gas_cap(tx.envelope.is_deposit());
                    executor.evm.ctx_mut().cfg.tx_gas_limit_cap = cap;
                    op_tx(tx)
                })?;
            let counters = Counters {
                gas_used: executor.gas_used,
                blob_gas: executor.da_footprint_used,
                ..Counters::default()
            };
            Ok(Ran { db: executor.evm.into_db(), counters, receipts, passed_over })
        }
    }
}

fn eth_evm(db: OverlayDb, env: EvmEnv<SpecId>) -> EthEvm<OverlayDb, NoOpInspector, PrecompilesMap> {
    let mut evm = EthEvmFactory::default().create_evm(db, env).into_inner();
    allowance::install(&mut evm.instruction);
    EthEvm::new(evm, false)
}

type EthExecutor<'a, E> = EthBlockExecutor<'a, E, &'a ChainSpec, Receipts>;

fn eth<'a, E>(
    block: &BlockSoFar<'a>,
    evm: E,
    withdrawals: Option<&'a [Withdrawal]>,
) -> EthExecutor<'a, E> {
    let context = EthBlockExecutionCtx {
        parent_hash: block.header.parent_hash,
        parent_beacon_block_root: block.header.parent_beacon_block_root,
        ommers: &[],
        withdrawals: withdrawals.map(Cow::Borrowed),
        extra_data: block.header.extra_data.clone(),
        tx_count_hint: None,
        slot_number: None,
    };
    let mut executor = EthBlockExecutor::new(evm, context, &**block.spec, Receipts);
    executor.cumulative_tx_gas_used = block.counters.gas_used;
    executor.block_regular_gas_used = block.counters.regular_gas;
    executor.block_state_gas_used = block.counters.state_gas;
    executor.blob_gas_used = block.counters.blob_gas;
    executor
}

fn eth_tx(tx: &Tx) -> Option<(TxEnv, Recovered<&EthTx>)> {
    let Envelope::Eth(envelope) = &tx.envelope else { return None };
    let env = TxEnv::from_recovered_tx(envelope, tx.sender);
    Some((env, Recovered::new_unchecked(envelope, tx.sender)))
}

fn op_tx(tx: &Tx) -> Option<(OpTx, Recovered<&OpTxEnvelope>)> {
    let Envelope::Op(envelope) = &tx.envelope else { return None };
    let env = OpTx::from_encoded_tx(envelope, tx.sender, tx.bytes.clone());
    Some((env, Recovered::new_unchecked(envelope, tx.sender)))
}

type Driven = (Vec<Receipt>, Vec<(usize, String)>);

fn drive<'t, X, T>(
    block: &BlockSoFar<'_>,
    executor: &mut X,
    txs: &'t [Tx],
    on_invalid: OnInvalid,
    convert: impl Fn(&mut X, &'t Tx) -> Option<T>,
) -> Result<Driven, RunError>
where
    X: BlockExecutor<Receipt = Receipt>,
    T: ExecutableTx<X>,
{
    if block.opening {
        let whole = |error| RunError { index: None, error };
        executor.apply_pre_execution_changes().map_err(whole)?;
    }
    let mut passed_over = Vec::new();
    for (index, tx) in txs.iter().enumerate() {
        if block.watch.expired() {
            let error = BlockExecutionError::msg("the time of the block is over");
            return Err(RunError { index: Some(index), error });
        }
        let foreign = || BlockExecutionError::msg("a transaction of another kind of chain");
        let done = convert(executor, tx)
            .ok_or_else(foreign)
            .and_then(|tx| executor.execute_transaction(tx).map(drop));
        match done {
            Ok(()) => {}
            Err(BlockExecutionError::Validation(e)) if on_invalid == OnInvalid::PassOver => {
                passed_over.push((index, e.to_string()));
            }
            Err(error) => return Err(RunError { index: Some(index), error }),
        }
    }
    Ok((executor.receipts().to_vec(), passed_over))
}

/// Executes what follows the last transaction: withdrawals, and the requests of EIP-7685, for which
/// all receipts of the block are needed.
pub(super) fn finish(
    block: &BlockSoFar<'_>,
    db: OverlayDb,
    receipts: Vec<Receipt>,
    withdrawals: Option<&[Withdrawal]>,
) -> Result<(OverlayDb, Requests), BlockExecutionError> {
    match block.spec.block_env(block.header) {
        // OP blocks have neither.
        BlockEnv::Op(_) => Ok((db, Requests::default())),
        BlockEnv::Eth(env) => {
            let mut executor = eth(block, eth_evm(db, env), withdrawals);
            executor.receipts = receipts;
            let (evm, result) = executor.finish()?;
            Ok((evm.into_db(), result.requests))
        }
    }
}

/// Whether `address` sends the L1-attributes deposit.
pub(super) fn is_attributes_depositor(address: Address) -> bool {
    const DEPOSITOR: Address =
        alloy_primitives::address!("deaddeaddeaddeaddeaddeaddeaddeaddead0001");
    address == DEPOSITOR
}

/// Raw EIP-2718 bytes of transactions, for the transactions trie.
pub(super) fn raw<'a>(txs: impl Iterator<Item = &'a Tx>) -> Vec<Bytes> {
    txs.map(|tx| tx.bytes.clone()).collect()
}
