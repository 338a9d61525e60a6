//! `eth_simulateV1`: calls in blocks that build on one another and on a real one.
//!
//! The simulated blocks lack what only consensus needs: their state root is zero, and they contain
//! no system calls, withdrawals or requests. Their hashes are the hashes of the headers shown.

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{BlockBody, EMPTY_OMMER_ROOT_HASH, Header, Transaction as _};
use alloy_evm::eth::EthEvmContext;
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{B256, Bytes, U256};
use alloy_rlp::Encodable;
use alloy_rpc_types_eth::simulate::{
    MAX_SIMULATE_BLOCKS, SimBlock, SimCallResult, SimulateError, SimulatePayload, SimulatedBlock,
};
use alloy_rpc_types_eth::{
    Block, BlockTransactions, Header as RpcHeader, Log, Transaction, TransactionRequest,
};
use fragcast_execution::exec::Receipt;
use fragcast_execution::exec::tx::EthTx;
use revm::context_interface::result::InvalidTransaction as T;
use revm::database_interface::DatabaseCommit;
use revm::{Database, Inspector};
use revm_inspectors::transfer::TransferInspector;

use super::CallSite;
use super::error::CallError;
use super::evm::{CallDb, Ground};
use super::outcome::{Failure, Status};

/// Seconds from one block to the next unless overridden, geth's.
const BLOCK_TIME: u64 = 12;
/// Bytes of return data and logs in an answer.
const MAX_OUTPUT: usize = 16 * 1024 * 1024;

const LIMIT_EXCEEDED: i32 = -38026;

type Simulated = SimulatedBlock<Block<Transaction<EthTx>>>;

fn coded<R>(code: i32, message: impl Into<String>) -> Result<R, CallError> {
    Err(CallError::Coded(code, message.into()))
}

/// Runs the payload's blocks.
pub(super) fn simulate(
    site: &CallSite,
    payload: SimulatePayload,
) -> Result<Vec<Simulated>, CallError> {
    if payload.block_state_calls.is_empty() {
        return Err(CallError::Params("empty input".into()));
    }
    let base = &site.snapshot.header;
    let blocks = filled(base, payload.block_state_calls)?;
    let mut ground = site.ground(None, None)?;
    let limits = site.limits();
    let mut simulation = Simulation {
        site,
        validation: payload.validation,
        trace: payload.trace_transfers,
        full: payload.return_full_transactions,
        gas_left: limits.gas,
        output: 0,
    };
    let mut parent = base.clone();
    let mut parent_hash = site.snapshot.hash;
    let mut done = Vec::with_capacity(blocks.len());
    for block in blocks {
        ground.db.hashes.insert(parent.number, parent_hash);
        let simulated = simulation.block(&mut ground, &parent, parent_hash, block)?;
        parent = simulated.inner.header.inner.clone();
        parent_hash = simulated.inner.header.hash;
        done.push(simulated);
    }
    Ok(done)
}

/// Gives every block a number and a time, and fills gaps with empty blocks.
fn filled(base: &Header, blocks: Vec<SimBlock>) -> Result<Vec<SimBlock>, CallError> {
    let (mut number, mut time) = (base.number, base.timestamp);
    let mut filled = Vec::with_capacity(blocks.len());
    for mut block in blocks {
        let mut overrides = block.block_overrides.take().unwrap_or_default();
        let wanted = overrides.number.unwrap_or_else(|| U256::from(number) + U256::ONE);
        if wanted <= U256::from(number) {
            return coded(-38020, format!("block numbers must be in order: {wanted} <= {number}"));
        }
        if wanted - U256::from(base.number) > U256::from(MAX_SIMULATE_BLOCKS) {
            return coded(LIMIT_EXCEEDED, "too many blocks");
        }
        let wanted: u64 = wanted.saturating_to();
        while number + 1 < wanted {
            number += 1;
            time = time.saturating_add(BLOCK_TIME);
            let mut empty = SimBlock::default();
            empty.block_overrides.get_or_insert_default().number = Some(U256::from(number));
            empty.block_overrides.get_or_insert_default().time = Some(time);
            filled.push(empty);
        }
        let at = overrides.time.unwrap_or_else(|| time.saturating_add(BLOCK_TIME));
        if at <= time {
            return coded(-38021, format!("block timestamps must be in order: {at} <= {time}"));
        }
        (number, time) = (wanted, at);
        (overrides.number, overrides.time) = (Some(U256::from(number)), Some(time));
        block.block_overrides = Some(overrides);
        filled.push(block);
    }
    Ok(filled)
}

struct Simulation<'a> {
    site: &'a CallSite,
    validation: bool,
    trace: bool,
    full: bool,
    /// Gas left for the remaining calls together.
    gas_left: u64,
    /// Bytes of return data and logs so far.
    output: usize,
}

/// A simulated block so far.
#[derive(Default)]
struct Progress {
    gas_used: u64,
    blob_gas_used: u64,
    txs: Vec<Recovered<EthTx>>,
    receipts: Vec<Receipt>,
    calls: Vec<SimCallResult>,
}

impl Simulation<'_> {
    fn header(
        &self,
        parent: &Header,
        parent_hash: B256,
        overrides: &alloy_rpc_types_eth::BlockOverrides,
    ) -> Result<Header, CallError> {
        let spec = &self.site.spec;
        let timestamp = overrides.time.unwrap_or(parent.timestamp);
        let base_fee = match overrides.base_fee {
            Some(fee) => fee.saturating_to(),
            // Without validation prices do not matter, so nothing may depend on the base fee.
            None if !self.validation => 0,
            None => spec
                .next_base_fee(parent, timestamp)
                .map_err(|error| CallError::Invalid(error.to_string()))?,
        };
        let cancun = spec.is_cancun_active_at_timestamp(timestamp);
        let excess_blob_gas = cancun.then(|| {
            let params = spec.blob_params(timestamp);
            params.map_or(0, |params| {
                params.next_block_excess_blob_gas_osaka(
                    parent.excess_blob_gas.unwrap_or(0),
                    parent.blob_gas_used.unwrap_or(0),
                    parent.base_fee_per_gas.unwrap_or(0),
                )
            })
        });
        Ok(Header {
            parent_hash,
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: overrides.coinbase.unwrap_or(parent.beneficiary),
            number: overrides.number.map_or(parent.number + 1, |n| n.saturating_to()),
            timestamp,
            gas_limit: overrides.gas_limit.unwrap_or(parent.gas_limit),
            mix_hash: overrides.random.unwrap_or_default(),
            difficulty: overrides.difficulty.unwrap_or_default(),
            base_fee_per_gas: Some(base_fee),
            excess_blob_gas,
            // On OP it has the parameters of the next base fee.
            extra_data: if spec.is_op() { parent.extra_data.clone() } else { Bytes::new() },
            withdrawals_root: parent.withdrawals_root.map(|_| alloy_trie::EMPTY_ROOT_HASH),
            parent_beacon_block_root: cancun.then(|| overrides.beacon_root.unwrap_or_default()),
            requests_hash: parent.requests_hash,
            state_root: B256::ZERO,
            ..Header::default()
        })
    }

    fn block(
        &mut self,
        ground: &mut Ground,
        parent: &Header,
        parent_hash: B256,
        block: SimBlock,
    ) -> Result<Simulated, CallError> {
        let overrides = block.block_overrides.unwrap_or_default();
        let mut header = self.header(parent, parent_hash, &overrides)?;
        let spec = &self.site.spec;
        ground.enter(spec, header.clone(), overrides.clone(), !self.validation)?;
        ground.override_state(block.state_overrides.unwrap_or_default())?;
        let mut progress = Progress::default();
        for request in block.calls {
            if self.trace {
                let mut inspector = TransferInspector::new(false).with_logs(true);
                self.call(ground, &header, &mut progress, request, &mut inspector)?;
            } else {
                let mut inspector = revm::inspector::NoOpInspector;
                self.call(ground, &header, &mut progress, request, &mut inspector)?;
            }
            // A call without a price has put the base fee to zero.
            ground.enter(spec, header.clone(), overrides.clone(), !self.validation)?;
        }
        let Progress { gas_used, blob_gas_used, txs, receipts, mut calls } = progress;
        header.gas_used = gas_used;
        header.blob_gas_used = header.excess_blob_gas.map(|_| blob_gas_used);
        header.transactions_root = alloy_consensus::proofs::calculate_transaction_root(
            &txs.iter().map(|tx| tx.inner().clone()).collect::<Vec<_>>(),
        );
        let encoded: Vec<_> = receipts.iter().map(Receipt::encoded_2718).collect();
        header.receipts_root = alloy_consensus::proofs::ordered_trie_root_encoded(&encoded);
        for receipt in &receipts {
            header.logs_bloom |= receipt.bloom;
        }
        let hash = header.hash_slow();
        for log in calls.iter_mut().flat_map(|call| &mut call.logs) {
            log.block_hash = Some(hash);
        }
        let withdrawals = header.withdrawals_root.map(|_| Default::default());
        let body = BlockBody {
            transactions: txs.iter().map(|tx| tx.inner().clone()).collect(),
            ommers: Vec::<Header>::new(),
            withdrawals,
        };
        let whole = alloy_consensus::Block { header, body };
        let size = Some(U256::from(whole.length()));
        let alloy_consensus::Block { header, body } = whole;
        let transactions = if self.full {
            let base_fee = header.base_fee_per_gas;
            BlockTransactions::Full(
                txs.into_iter()
                    .enumerate()
                    .map(|(index, tx)| Transaction {
                        block_hash: Some(hash),
                        block_number: Some(header.number),
                        transaction_index: Some(index as u64),
                        effective_gas_price: Some(tx.effective_gas_price(base_fee)),
                        block_timestamp: Some(header.timestamp),
                        inner: tx,
                    })
                    .collect(),
            )
        } else {
            BlockTransactions::Hashes(txs.iter().map(|tx| *tx.inner().tx_hash()).collect())
        };
        let header = RpcHeader { hash, inner: header, total_difficulty: None, size };
        let withdrawals = body.withdrawals;
        let inner = Block { header, uncles: Vec::new(), transactions, withdrawals };
        Ok(SimulatedBlock { inner, calls })
    }

    fn call<I>(
        &mut self,
        ground: &mut Ground,
        header: &Header,
        progress: &mut Progress,
        mut request: TransactionRequest,
        inspector: &mut I,
    ) -> Result<(), CallError>
    where
        I: for<'a> Inspector<EthEvmContext<&'a mut CallDb>>
            + for<'a> Inspector<alloy_op_evm::OpEvmContext<&'a mut CallDb>>,
    {
        let spec = &self.site.spec;
        let from = request.from.unwrap_or_default();
        if request.nonce.is_none() {
            request.nonce = Some(ground.db.basic(from)?.map_or(0, |account| account.nonce));
        }
        let left = header.gas_limit.saturating_sub(progress.gas_used);
        let gas = request.gas.unwrap_or(left);
        if gas > left {
            let (used, limit) = (progress.gas_used, header.gas_limit);
            return coded(-38015, format!("block gas limit reached: {used} + {gas} > {limit}"));
        }
        if self.gas_left == 0 {
            return coded(LIMIT_EXCEEDED, "RPC gas cap exhausted");
        }
        request.gas = Some(gas.min(self.gas_left));
        request.chain_id.get_or_insert(spec.chain_id);
        let offer = request.gas_price.or(request.max_fee_per_gas).unwrap_or(0);
        if self.validation && offer < ground.block().basefee.into() {
            return coded(-38012, "max fee per gas less than block base fee");
        }
        let mut tx = ground.tx(request.clone())?;
        let price = tx.gas_price;
        if let Err(error) = ground.check_funds(&tx) {
            return coded(-38014, error.to_string());
        }
        // The block shows it as the transaction that it would be.
        let signed = envelope(request, price)?;
        tx.nonce = signed.nonce();
        let (hash, ty) = (*signed.tx_hash(), tx.tx_type);
        let index = progress.txs.len() as u64;
        let outcome = ground.transact(tx, inspector).map_err(numbered)?;
        ground.db.commit(outcome.state);
        self.gas_left = self.gas_left.saturating_sub(outcome.gas_used);
        progress.gas_used += outcome.gas_used;
        progress.blob_gas_used += signed.blob_gas_used().unwrap_or(0);
        let bytes: usize = outcome.logs.iter().map(|log| log.data.data.len() + 160).sum();
        self.output = self.output.saturating_add(bytes + outcome.output.len());
        if self.output > MAX_OUTPUT {
            return coded(LIMIT_EXCEEDED, "the answer would be too long");
        }
        let first_log: usize = progress.receipts.iter().map(|receipt| receipt.logs.len()).sum();
        let success = outcome.status == Status::Success;
        let logs = if success { outcome.logs } else { Vec::new() };
        let shown = logs.iter().enumerate().map(|(at, log)| Log {
            inner: log.clone(),
            block_hash: None,
            block_number: Some(header.number),
            block_timestamp: Some(header.timestamp),
            transaction_hash: Some(hash),
            transaction_index: Some(index),
            log_index: Some((first_log + at) as u64),
            removed: false,
        });
        let error = match &outcome.status {
            Status::Success => None,
            Status::Reverted => Some(SimulateError {
                code: SimulateError::EXECUTION_REVERTED_CODE,
                message: CallError::Reverted(outcome.output.clone()).to_string(),
                data: Some(outcome.output.clone()),
            }),
            Status::Halted(message, _) => Some(SimulateError {
                code: SimulateError::VM_EXECUTION_ERROR_CODE,
                message: message.clone(),
                data: None,
            }),
        };
        progress.calls.push(SimCallResult {
            logs: shown.collect(),
            return_data: outcome.output,
            gas_used: outcome.gas_used,
            max_used_gas: Some(outcome.gas_spent),
            status: success,
            error,
        });
        progress.receipts.push(Receipt::new(ty, success, progress.gas_used, logs));
        progress.txs.push(Recovered::new_unchecked(signed, from));
        Ok(())
    }
}

/// A transaction without a signature. As in geth it is an EIP-1559 one unless the request says
/// otherwise.
fn envelope(mut request: TransactionRequest, price: u128) -> Result<EthTx, CallError> {
    if request.to.is_none() {
        request.to = Some(alloy_primitives::TxKind::Create);
    }
    if request.gas_price.is_none() {
        request.max_fee_per_gas.get_or_insert(price);
        request.max_priority_fee_per_gas.get_or_insert(0);
    }
    if request.blob_versioned_hashes.is_some() {
        request.max_fee_per_blob_gas.get_or_insert(0);
    }
    request.build_typed_simulate_transaction().map_err(|error| CallError::Params(error.to_string()))
}

/// Maps a failure to the specification's error code.
fn numbered(failure: Failure) -> CallError {
    let code = match &failure {
        Failure::Invalid(Some(error), _) => match error {
            T::NonceTooLow { .. } => -38010,
            T::NonceTooHigh { .. } | T::NonceOverflowInTransaction => -38011,
            T::GasPriceLessThanBasefee => -38012,
            T::CallGasCostMoreThanGasLimit { .. } | T::GasFloorMoreThanGasLimit { .. } => -38013,
            T::LackOfFundForMaxFee { .. } => -38014,
            T::RejectCallerWithCode => -38024,
            T::CreateInitCodeSizeLimit => -38025,
            _ => super::error::INVALID_PARAMS,
        },
        _ => return failure.into(),
    };
    CallError::Coded(code, CallError::from(failure).to_string())
}
