//! `eth_simulateV1`: calls in blocks that build on one another and on a real one, as geth simulates
//! them: with the system calls of a block, withdrawals and requests, and with a state root where the
//! base block's trie is known here; elsewhere the state root is zero.
//!
//! Nonces and fees are checked only with `validation`. Without it the base fee is 0 unless it is
//! overridden, and a transaction that offers nothing for gas pays nothing.

mod transfers;

use std::sync::Arc;

use alloy_consensus::proofs::calculate_withdrawals_root;
use alloy_consensus::transaction::Recovered;
use alloy_consensus::{BlockBody, EMPTY_OMMER_ROOT_HASH, Header, Transaction as _, Typed2718};
use alloy_eips::eip4895::Withdrawal;
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{B256, Bytes, KECCAK256_EMPTY, Log as PlainLog, U256};
use alloy_rlp::Encodable;
use alloy_rpc_types_eth::simulate::{
    MAX_SIMULATE_BLOCKS, SimCallResult, SimulateError, SimulatedBlock,
};
use alloy_rpc_types_eth::{
    Block, BlockOverrides, BlockTransactions, Header as RpcHeader, Log, Transaction,
    TransactionRequest,
};
use fragcast_execution::exec::Receipt;
use fragcast_execution::exec::tx::EthTx;
use fragcast_execution::state::Account;
use revm::Database;
use revm::database_interface::DatabaseCommit;
use revm::inspector::NoOpInspector;

use super::CallSite;
use super::error::{CallError, INVALID_PARAMS};
use super::evm::{Ground, Rules};
use super::outcome::{Failure, Outcome, Status};
use crate::params::{SimBlock, SimPayload};
use crate::resolve::told_hash;
use transfers::Transfers;

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
pub(super) fn simulate(site: &CallSite, payload: SimPayload) -> Result<Vec<Simulated>, CallError> {
    if payload.blocks.is_empty() {
        return coded(INVALID_PARAMS, "empty input");
    }
    let base = &site.snapshot.header;
    let blocks = filled(base, payload.blocks)?;
    let mut ground = site.ground(None, None)?;
    let limits = site.limits();
    let mut simulation = Simulation {
        site,
        validation: payload.validation,
        trace: payload.trace_transfers,
        full: payload.full,
        gas_left: limits.gas,
        output: 0,
    };
    let mut parent = base.clone();
    let mut parent_hash = told_hash(&site.snapshot);
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
        let overrides = &mut block.block.overrides;
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
            empty.block.overrides.number = Some(U256::from(number));
            empty.block.overrides.time = Some(time);
            filled.push(empty);
        }
        let at = overrides.time.unwrap_or_else(|| time.saturating_add(BLOCK_TIME));
        if at <= time {
            return coded(-38021, format!("block timestamps must be in order: {at} <= {time}"));
        }
        (number, time) = (wanted, at);
        (overrides.number, overrides.time) = (Some(U256::from(number)), Some(time));
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
    /// Logs in the answer, those of transfers included.
    logs: u64,
    txs: Vec<Recovered<EthTx>>,
    receipts: Vec<Receipt>,
    calls: Vec<SimCallResult>,
}

impl Simulation<'_> {
    fn header(
        &self,
        parent: &Header,
        parent_hash: B256,
        overrides: &BlockOverrides,
        withdrawals: &[Withdrawal],
    ) -> Result<Header, CallError> {
        let spec = &self.site.spec;
        let timestamp = overrides.time.unwrap_or(parent.timestamp);
        let base_fee = match overrides.base_fee {
            Some(fee) => u64::try_from(fee)
                .map_err(|_| CallError::Params(format!("baseFeePerGas is too high: {fee}")))?,
            // Without validation prices do not matter, so nothing may depend on the base fee.
            None if !self.validation => 0,
            None => spec
                .next_base_fee(parent, timestamp)
                .map_err(|error| CallError::Invalid(error.to_string()))?,
        };
        let cancun = spec.is_cancun_active_at_timestamp(timestamp);
        let shanghai = spec.is_shanghai_active_at_timestamp(timestamp);
        if !cancun && overrides.beacon_root.is_some() {
            return Err(CallError::Params("beaconRoot: there is none before Cancun".into()));
        }
        if (spec.is_op() || !shanghai) && !withdrawals.is_empty() {
            let what = "withdrawals: blocks of this chain have none at that time";
            return Err(CallError::Params(what.into()));
        }
        // On OP it is the root of a contract's storage, which only the real chain has.
        let of_parent = parent.withdrawals_root.filter(|_| spec.is_op());
        let withdrawals_root = of_parent.unwrap_or_else(|| calculate_withdrawals_root(withdrawals));
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
            excess_blob_gas: spec.next_excess_blob_gas(parent, timestamp),
            // On OP it has the parameters of the next base fee.
            extra_data: if spec.is_op() { parent.extra_data.clone() } else { Bytes::new() },
            withdrawals_root: shanghai.then_some(withdrawals_root),
            parent_beacon_block_root: cancun.then(|| overrides.beacon_root.unwrap_or_default()),
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
        let overrides = block.block.overrides;
        let withdrawals = block.block.withdrawals.unwrap_or_default();
        let mut header = self.header(parent, parent_hash, &overrides, &withdrawals)?;
        let spec = Arc::clone(&self.site.spec);
        let rules = Rules::Simulate { validation: self.validation };
        ground.enter(&spec, header.clone(), overrides, rules)?;
        ground.override_state(block.state)?;
        ground.open_block(&spec, &header)?;
        let mut progress = Progress::default();
        for request in block.calls {
            self.call(ground, &header, &mut progress, request)?;
        }
        if spec.is_prague_active_at_timestamp(header.timestamp) {
            let requests = ground.requests(&spec, &progress.receipts)?;
            header.requests_hash = Some(requests.requests_hash());
        }
        for withdrawal in &withdrawals {
            pay(ground, withdrawal)?;
        }
        if let Some(sealed) = &self.site.sealed {
            // Where the trie is not known, or not this part of it, there is no root to show.
            header.state_root = sealed.root_with(ground.db.layer()).unwrap_or_default();
        }
        self.assembled(header, progress, withdrawals)
    }

    /// The block, its header complete.
    fn assembled(
        &self,
        mut header: Header,
        progress: Progress,
        withdrawals: Vec<Withdrawal>,
    ) -> Result<Simulated, CallError> {
        let Progress { gas_used, blob_gas_used, txs, receipts, mut calls, .. } = progress;
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
        let withdrawals = header.withdrawals_root.map(|_| withdrawals.into());
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

    /// Gives a request the nonce and the gas that it has not.
    fn complete(
        &self,
        ground: &mut Ground,
        header: &Header,
        gas_used: u64,
        request: &mut TransactionRequest,
    ) -> Result<(), CallError> {
        let from = request.from.unwrap_or_default();
        if request.nonce.is_none() {
            request.nonce = Some(ground.db.basic(from)?.map_or(0, |account| account.nonce));
        }
        let left = header.gas_limit.saturating_sub(gas_used);
        // A simulation is no transaction, so the most that a fork lets one have is no default either.
        let gas = request.gas.unwrap_or(left);
        if gas > left {
            let what = format!("block gas limit reached: remaining: {left}, required: {gas}");
            return coded(-38015, what);
        }
        if self.gas_left == 0 {
            return coded(LIMIT_EXCEEDED, "RPC gas cap exhausted");
        }
        request.gas = Some(gas.min(self.gas_left));
        request.chain_id.get_or_insert(self.site.spec.chain_id);
        if request.blob_versioned_hashes.is_some() {
            request.max_fee_per_blob_gas.get_or_insert(0);
        }
        Ok(())
    }

    fn call(
        &mut self,
        ground: &mut Ground,
        header: &Header,
        progress: &mut Progress,
        mut request: TransactionRequest,
    ) -> Result<(), CallError> {
        self.complete(ground, header, progress.gas_used, &mut request)?;
        let asked = ground.tx(request.clone())?;
        // The block shows it as the transaction that it would be.
        let signed = envelope(request)?;
        let (outcome, logs) = if self.trace {
            let mut transfers = Transfers::default();
            let outcome = ground.transact(&asked, &mut transfers).map_err(numbered)?;
            (outcome, transfers.into_logs())
        } else {
            let outcome = ground.transact(&asked, &mut NoOpInspector).map_err(numbered)?;
            let logs = outcome.logs.clone();
            (outcome, logs)
        };
        let bytes: usize = logs.iter().map(|log| log.data.data.len() + 160).sum();
        self.output = self.output.saturating_add(bytes + outcome.output.len());
        if self.output > MAX_OUTPUT {
            return coded(LIMIT_EXCEEDED, "the answer would be too long");
        }
        self.gas_left = self.gas_left.saturating_sub(outcome.gas_used);
        ground.db.commit(outcome.state.clone());
        progress.gas_used += outcome.gas_used;
        progress.blob_gas_used += signed.blob_gas_used().unwrap_or(0);
        progress.take(header, &signed, outcome, logs);
        let from = asked.tx.caller;
        progress.txs.push(Recovered::new_unchecked(signed, from));
        Ok(())
    }
}

impl Progress {
    /// Takes a transaction's receipt, and what the answer shows of it.
    fn take(&mut self, header: &Header, tx: &EthTx, outcome: Outcome, logs: Vec<PlainLog>) {
        let success = outcome.status == Status::Success;
        let (logs, own) = if success { (logs, outcome.logs) } else { Default::default() };
        let at = Log {
            inner: PlainLog::default(),
            block_hash: None,
            block_number: Some(header.number),
            block_timestamp: Some(header.timestamp),
            transaction_hash: Some(*tx.tx_hash()),
            transaction_index: Some(self.txs.len() as u64),
            log_index: None,
            removed: false,
        };
        let first = self.logs;
        self.logs += logs.len() as u64;
        let logs = (first..).zip(logs);
        let logs = logs.map(|(index, inner)| Log { inner, log_index: Some(index), ..at.clone() });
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
        // What a revert returns is in the error alone, as in geth.
        let return_data = if success { outcome.output } else { Bytes::new() };
        self.calls.push(SimCallResult {
            logs: logs.collect(),
            return_data,
            gas_used: outcome.gas_used,
            max_used_gas: Some(outcome.gas_spent),
            status: success,
            error,
        });
        self.receipts.push(Receipt::new(tx.ty(), success, self.gas_used, own));
    }
}

/// Pays a withdrawal (EIP-4895).
fn pay(ground: &mut Ground, withdrawal: &Withdrawal) -> Result<(), CallError> {
    if withdrawal.amount == 0 {
        return Ok(());
    }
    let account = ground.db.basic(withdrawal.address)?;
    let (nonce, code_hash) =
        account.as_ref().map_or((0, KECCAK256_EMPTY), |a| (a.nonce, a.code_hash));
    let balance = account.map_or(U256::ZERO, |account| account.balance);
    let balance = balance.saturating_add(withdrawal.amount_wei());
    let account = Account { nonce, balance, code_hash };
    ground.db.layer().accounts.insert(withdrawal.address, Some(account));
    Ok(())
}

/// A transaction without a signature. As in geth it is an EIP-1559 one unless the request says
/// otherwise, and a legacy one, whatever else it has, if it has a gas price.
fn envelope(mut request: TransactionRequest) -> Result<EthTx, CallError> {
    if request.to.is_none() {
        request.to = Some(alloy_primitives::TxKind::Create);
    }
    if request.gas_price.is_some() {
        request.access_list = None;
        request.blob_versioned_hashes = None;
        request.max_fee_per_blob_gas = None;
        request.authorization_list = None;
    } else {
        request.max_fee_per_gas.get_or_insert(0);
        request.max_priority_fee_per_gas.get_or_insert(0);
    }
    if request.blob_versioned_hashes.is_none() {
        request.max_fee_per_blob_gas = None;
    }
    request.transaction_type = None;
    request.build_typed_simulate_transaction().map_err(|error| CallError::Params(error.to_string()))
}

/// A failure with the specification's code.
fn numbered(failure: Failure) -> CallError {
    match failure {
        Failure::Invalid(invalid) => CallError::Coded(invalid.code, invalid.told()),
        Failure::Other(error) => error,
    }
}
