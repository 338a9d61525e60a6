//! The JSON of blocks, transactions, receipts and logs, as geth and op-geth write it.
//!
//! It is written from borrowed blocks: alloy's types own their data, and op-alloy's do not know our
//! receipts.

use alloy_consensus::Transaction as _;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{Address, B256, Bloom, U64, U128, U256};
use alloy_rlp::Encodable;
use alloy_rpc_types_eth::{Header, Log};
use fragcast_execution::chain::ChainSpec;
use fragcast_execution::exec::tx::EthTx;
use fragcast_execution::exec::{Envelope, ExecutedBlock, Placed, Tx};
use op_alloy_consensus::OpTxEnvelope;
use serde::Serialize;

use super::l1::{L1, OpReceiptFields};
use crate::resolve::told_hash;

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Eth(&'a EthTx),
    Op(&'a OpTxEnvelope),
}

/// A transaction in a block, or one that waits for a block and whose place is `null`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RpcTx<'a> {
    #[serde(flatten)]
    body: Body<'a>,
    block_hash: Option<B256>,
    block_number: Option<U64>,
    transaction_index: Option<U64>,
    block_timestamp: Option<U64>,
    /// The sender; of a deposit it is in the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Address>,
    /// Price paid for a unit of gas, for types whose body has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    gas_price: Option<U128>,
    /// A deposit's nonce, from its receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<U64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deposit_receipt_version: Option<U64>,
}

impl<'a> RpcTx<'a> {
    pub(super) fn new(block: &ExecutedBlock, placed: &Placed<'a>) -> Self {
        let tx = &placed.executed.tx;
        let deposit = tx.envelope.is_deposit();
        let fields = placed.executed.receipt.deposit;
        let has_price = matches!(tx.envelope.ty(), 0 | 1);
        Self {
            body: match &tx.envelope {
                Envelope::Eth(tx) => Body::Eth(tx),
                Envelope::Op(tx) => Body::Op(tx),
            },
            block_hash: Some(told_hash(block)),
            block_number: Some(U64::from(block.header.number)),
            transaction_index: Some(U64::from(placed.index)),
            block_timestamp: Some(U64::from(block.header.timestamp)),
            from: (!deposit).then_some(tx.sender),
            gas_price: (!has_price).then(|| U128::from(paid(block, placed))),
            nonce: deposit.then(|| U64::from(fields.and_then(|f| f.nonce).unwrap_or(0))),
            deposit_receipt_version: fields.and_then(|f| f.version).map(U64::from),
        }
    }

    /// A transaction that is in no block of this view yet: forwarded, or preconfirmed.
    pub(super) fn waiting(tx: &'a Tx) -> Self {
        // What it would pay where there is no base fee: as geth shows it, the most it may.
        let price = match &tx.envelope {
            Envelope::Eth(tx) => tx.max_fee_per_gas(),
            Envelope::Op(tx) => tx.max_fee_per_gas(),
        };
        let has_price = matches!(tx.envelope.ty(), 0 | 1);
        Self {
            body: match &tx.envelope {
                Envelope::Eth(tx) => Body::Eth(tx),
                Envelope::Op(tx) => Body::Op(tx),
            },
            block_hash: None,
            block_number: None,
            transaction_index: None,
            block_timestamp: None,
            from: (!tx.envelope.is_deposit()).then_some(tx.sender),
            gas_price: (!has_price).then(|| U128::from(price)),
            nonce: tx.envelope.is_deposit().then_some(U64::ZERO),
            deposit_receipt_version: None,
        }
    }
}

/// Wei paid for a unit of gas; zero for a deposit.
pub(super) fn paid(block: &ExecutedBlock, placed: &Placed<'_>) -> u128 {
    let envelope = &placed.executed.tx.envelope;
    if envelope.is_deposit() {
        return 0;
    }
    envelope.effective_gas_price(block.header.base_fee_per_gas.unwrap_or(0))
}

#[derive(Serialize)]
#[serde(untagged)]
enum Txs<'a> {
    Hashes(Vec<B256>),
    Full(Vec<RpcTx<'a>>),
}

/// A block.
#[derive(Serialize)]
pub(super) struct RpcBlock<'a> {
    #[serde(flatten)]
    header: Header,
    uncles: [B256; 0],
    transactions: Txs<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    withdrawals: Option<&'a [Withdrawal]>,
}

impl<'a> RpcBlock<'a> {
    pub(super) fn new(block: &'a ExecutedBlock, full: bool) -> Self {
        let transactions = if full {
            Txs::Full(block.txs().map(|placed| RpcTx::new(block, &placed)).collect())
        } else {
            Txs::Hashes(block.txs().map(|placed| placed.executed.tx.hash).collect())
        };
        Self { header: header(block), uncles: [], transactions, withdrawals: withdrawals(block) }
    }
}

pub(super) fn withdrawals(block: &ExecutedBlock) -> Option<&[Withdrawal]> {
    match &block.withdrawals {
        Some(withdrawals) => Some(withdrawals),
        // OP blocks have none, but say so from Canyon on.
        None => block.header.withdrawals_root.map(|_| [].as_slice()),
    }
}

/// A header, with the size of its block.
pub(super) fn header(block: &ExecutedBlock) -> Header {
    Header {
        hash: told_hash(block),
        inner: block.header.clone(),
        total_difficulty: None,
        size: Some(U256::from(size(block))),
    }
}

/// Length of the block as RLP, without ommers: the messages carry none.
fn size(block: &ExecutedBlock) -> usize {
    let list = |payload_length: usize| {
        payload_length + alloy_rlp::Header { list: true, payload_length }.length()
    };
    let tx = |placed: Placed<'_>| {
        let tx = &placed.executed.tx;
        // A legacy transaction is RLP itself; the others are strings.
        if tx.envelope.ty() == 0 { tx.bytes.len() } else { tx.bytes.length() }
    };
    let txs = list(block.txs().map(tx).sum());
    let withdrawals =
        withdrawals(block).map_or(0, |all| list(all.iter().map(|w| w.length()).sum()));
    list(block.header.length() + txs + list(0) + withdrawals)
}

/// The logs of a transaction.
pub(super) fn logs_of<'a>(
    block: &ExecutedBlock,
    placed: Placed<'a>,
    removed: bool,
) -> impl Iterator<Item = Log> + use<'a> {
    let at = Log {
        inner: alloy_primitives::Log::default(),
        block_hash: Some(told_hash(block)),
        block_number: Some(block.header.number),
        block_timestamp: Some(block.header.timestamp),
        transaction_hash: Some(placed.executed.tx.hash),
        transaction_index: Some(placed.index as u64),
        log_index: None,
        removed,
    };
    let first = placed.first_log as u64;
    (first..).zip(&placed.executed.receipt.logs).map(move |(index, log)| Log {
        inner: log.clone(),
        log_index: Some(index),
        ..at.clone()
    })
}

/// A receipt.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RpcReceipt<'a> {
    transaction_hash: B256,
    transaction_index: U64,
    block_hash: B256,
    block_number: U64,
    from: Address,
    to: Option<Address>,
    cumulative_gas_used: U64,
    gas_used: U64,
    contract_address: Option<Address>,
    logs: Vec<Log>,
    logs_bloom: &'a Bloom,
    status: U64,
    #[serde(rename = "type")]
    ty: U64,
    effective_gas_price: U128,
    #[serde(skip_serializing_if = "Option::is_none")]
    blob_gas_used: Option<U64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blob_gas_price: Option<U128>,
    #[serde(flatten)]
    op: Option<OpReceiptFields>,
}

/// An executed transaction with what its receipt says beside.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExecutedTx<'a> {
    #[serde(flatten)]
    tx: RpcTx<'a>,
    status: U64,
    gas_used: U64,
    cumulative_gas_used: U64,
    effective_gas_price: U128,
    contract_address: Option<Address>,
    logs_bloom: &'a Bloom,
    logs: Vec<Log>,
}

impl<'a> ExecutedTx<'a> {
    pub(super) fn new(receipts: &Receipts<'a>, block: &ExecutedBlock, placed: &Placed<'a>) -> Self {
        let receipt = receipts.one(placed);
        Self {
            tx: RpcTx::new(block, placed),
            status: receipt.status,
            gas_used: receipt.gas_used,
            cumulative_gas_used: receipt.cumulative_gas_used,
            effective_gas_price: receipt.effective_gas_price,
            contract_address: receipt.contract_address,
            logs_bloom: receipt.logs_bloom,
            logs: receipt.logs,
        }
    }
}

/// Fields that the receipts of one block share.
pub(super) struct Receipts<'a> {
    block: &'a ExecutedBlock,
    hash: B256,
    l1: Option<L1>,
    blob_gas_price: Option<u128>,
}

impl<'a> Receipts<'a> {
    pub(super) fn new(spec: &ChainSpec, block: &'a ExecutedBlock) -> Self {
        let blobs = spec.blob_params(block.header.timestamp);
        Self {
            block,
            hash: told_hash(block),
            l1: spec.is_op().then(|| L1::of(spec, block)),
            blob_gas_price: blobs.and_then(|params| block.header.blob_fee(params)),
        }
    }

    pub(super) fn one(&self, placed: &Placed<'a>) -> RpcReceipt<'a> {
        let (block, executed) = (self.block, placed.executed);
        let (tx, receipt) = (&executed.tx, &executed.receipt);
        let blobs = tx.envelope.ty() == 3;
        let op = self.l1.as_ref().map(|l1| l1.receipt(executed));
        let footprint = self.l1.as_ref().and_then(|l1| l1.da_footprint(executed));
        RpcReceipt {
            transaction_hash: tx.hash,
            transaction_index: U64::from(placed.index),
            block_hash: self.hash,
            block_number: U64::from(block.header.number),
            from: tx.sender,
            to: tx.envelope.kind().to().copied(),
            cumulative_gas_used: U64::from(receipt.cumulative_gas_used),
            gas_used: U64::from(executed.gas_used),
            contract_address: executed.created(),
            logs: logs_of(block, *placed, false).collect(),
            logs_bloom: &receipt.bloom,
            status: U64::from(u8::from(receipt.success)),
            ty: U64::from(receipt.ty),
            effective_gas_price: U128::from(paid(block, placed)),
            blob_gas_used: blobs.then(|| tx.envelope.blob_gas_used()).or(footprint).map(U64::from),
            blob_gas_price: self.blob_gas_price.filter(|_| blobs).map(U128::from),
            op,
        }
    }

    pub(super) fn all(&self) -> Vec<RpcReceipt<'a>> {
        self.block.txs().map(|placed| self.one(&placed)).collect()
    }
}
