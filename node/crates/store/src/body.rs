//! Blocks as bytes: an executed block is two records, because most reads need one of them.
//!
//! ```text
//! body      attempt u8 │ frags: count u32 × (seq u64 │ transactions u32)
//!           │ has withdrawals u8 │ [count u32 × (index u64 │ validator u64 │ address 20 │ gwei u64)]
//!           │ count u32 × (sender 20 │ length u32 │ EIP-2718 bytes)
//! receipts  count u32 × (type u8 │ flags u8 │ gas used u64 │ cumulative gas u64
//!           │ [deposit nonce u64] │ [deposit version u64] │ logs: count u32 × log)
//! log       address 20 │ topics u8 (≤ 4) × 32 │ length u32 │ data
//! flags     1: success, 2: a deposit's, 4: with its nonce, 8: with its version
//! ```
//!
//! Blooms are not stored: computing one costs less than reading its 256 bytes for every receipt
//! of a block.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{B256, Bytes, Log};
use fragcast_execution::exec::receipt::DepositFields;
use fragcast_execution::exec::{Executed, ExecutedBlock, ExecutedFrag, Receipt, Tx};

use super::codec::{Bad, Reader, put_bytes, put_count};

const SUCCESS: u8 = 1;
const DEPOSIT: u8 = 2;
const NONCE: u8 = 4;
const VERSION: u8 = 8;

pub(super) fn encode_body(block: &ExecutedBlock) -> Vec<u8> {
    let mut out = vec![block.attempt];
    put_count(&mut out, block.frags.len());
    for frag in &block.frags {
        out.extend_from_slice(&frag.seq.to_le_bytes());
        put_count(&mut out, frag.txs.len());
    }
    out.push(block.withdrawals.is_some().into());
    if let Some(withdrawals) = &block.withdrawals {
        put_count(&mut out, withdrawals.len());
        for withdrawal in withdrawals.iter() {
            out.extend_from_slice(&withdrawal.index.to_le_bytes());
            out.extend_from_slice(&withdrawal.validator_index.to_le_bytes());
            out.extend_from_slice(withdrawal.address.as_slice());
            out.extend_from_slice(&withdrawal.amount.to_le_bytes());
        }
    }
    put_count(&mut out, block.tx_count());
    for placed in block.txs() {
        out.extend_from_slice(placed.executed.tx.sender.as_slice());
        put_bytes(&mut out, &placed.executed.tx.bytes);
    }
    out
}

pub(super) fn encode_receipts(block: &ExecutedBlock) -> Vec<u8> {
    let mut out = Vec::new();
    put_count(&mut out, block.tx_count());
    for placed in block.txs() {
        let receipt = &placed.executed.receipt;
        let deposit = receipt.deposit.unwrap_or_default();
        let mut flags = if receipt.success { SUCCESS } else { 0 };
        flags |= if receipt.deposit.is_some() { DEPOSIT } else { 0 };
        flags |= if deposit.nonce.is_some() { NONCE } else { 0 };
        flags |= if deposit.version.is_some() { VERSION } else { 0 };
        out.extend_from_slice(&[receipt.ty, flags]);
        out.extend_from_slice(&placed.executed.gas_used.to_le_bytes());
        out.extend_from_slice(&receipt.cumulative_gas_used.to_le_bytes());
        for field in [deposit.nonce, deposit.version].into_iter().flatten() {
            out.extend_from_slice(&field.to_le_bytes());
        }
        put_count(&mut out, receipt.logs.len());
        for log in &receipt.logs {
            out.extend_from_slice(log.address.as_slice());
            let topics = log.data.topics();
            out.push(topics.len() as u8);
            out.extend(topics.iter().flat_map(|topic| topic.0));
            put_bytes(&mut out, &log.data.data);
        }
    }
    out
}

/// The contents of a body's record.
#[derive(Debug)]
pub(super) struct Body {
    attempt: u8,
    /// `seq` and number of transactions.
    frags: Vec<(u64, usize)>,
    withdrawals: Option<Arc<Vec<Withdrawal>>>,
    txs: Vec<Tx>,
}

impl Body {
    /// The hashes of its transactions.
    pub(super) fn hashes(&self) -> impl Iterator<Item = B256> {
        self.txs.iter().map(|tx| tx.hash)
    }
}

pub(super) fn decode_body(bytes: &[u8], op: bool) -> Result<Body, Bad> {
    let mut reader = Reader::new(bytes);
    let attempt = reader.u8()?;
    let frags = (0..reader.count(12)?)
        .map(|_| Ok((reader.u64()?, u32::from_le_bytes(reader.array()?) as usize)))
        .collect::<Result<Vec<_>, Bad>>()?;
    let withdrawals = if reader.flag()? {
        let all = (0..reader.count(44)?).map(|_| {
            Ok(Withdrawal {
                index: reader.u64()?,
                validator_index: reader.u64()?,
                address: reader.address()?,
                amount: reader.u64()?,
            })
        });
        Some(Arc::new(all.collect::<Result<Vec<_>, Bad>>()?))
    } else {
        None
    };
    let txs = (0..reader.count(24)?)
        .map(|_| {
            let sender = reader.address()?;
            let bytes = Bytes::copy_from_slice(reader.bytes()?);
            Tx::from_parts(bytes, sender, op).map_err(|_| Bad("a transaction does not decode"))
        })
        .collect::<Result<Vec<_>, Bad>>()?;
    reader.end()?;
    Ok(Body { attempt, frags, withdrawals, txs })
}

fn decode_log(reader: &mut Reader<'_>) -> Result<Log, Bad> {
    let address = reader.address()?;
    let topics = (0..reader.u8()?).map(|_| reader.hash()).collect::<Result<Vec<_>, Bad>>()?;
    let data = Bytes::copy_from_slice(reader.bytes()?);
    Log::new(address, topics, data).ok_or(Bad("a log has more than four topics"))
}

/// Receipts with the gas that each transaction used.
pub(super) fn decode_receipts(bytes: &[u8]) -> Result<Vec<(Receipt, u64)>, Bad> {
    let mut reader = Reader::new(bytes);
    let receipts = (0..reader.count(22)?)
        .map(|_| {
            let (ty, flags) = (reader.u8()?, reader.u8()?);
            if flags >= 16 || (flags & DEPOSIT == 0 && flags & (NONCE | VERSION) != 0) {
                return Err(Bad("a receipt has impossible flags"));
            }
            let (gas_used, cumulative) = (reader.u64()?, reader.u64()?);
            let mut field = |flag| (flags & flag != 0).then(|| reader.u64()).transpose();
            let fields = DepositFields { nonce: field(NONCE)?, version: field(VERSION)? };
            let logs = (0..reader.count(25)?)
                .map(|_| decode_log(&mut reader))
                .collect::<Result<Vec<_>, Bad>>()?;
            let mut receipt = Receipt::new(ty, flags & SUCCESS != 0, cumulative, logs);
            receipt.deposit = (flags & DEPOSIT != 0).then_some(fields);
            Ok((receipt, gas_used))
        })
        .collect::<Result<Vec<_>, Bad>>()?;
    reader.end()?;
    Ok(receipts)
}

/// The block of its records.
pub(super) fn assemble(
    hash: B256,
    header: Header,
    body: Body,
    receipts: Vec<(Receipt, u64)>,
) -> Result<ExecutedBlock, Bad> {
    if body.txs.len() != receipts.len() {
        return Err(Bad("it has not one receipt a transaction"));
    }
    let mut executed = body
        .txs
        .into_iter()
        .zip(receipts)
        .map(|(tx, (receipt, gas_used))| Executed { tx, receipt, gas_used });
    let (mut first_index, mut first_log) = (0, 0);
    let mut frags = Vec::with_capacity(body.frags.len());
    for (seq, count) in body.frags {
        let txs: Vec<Executed> = executed.by_ref().take(count).collect();
        if txs.len() != count {
            return Err(Bad("its frags have more transactions than it holds"));
        }
        let logs: usize = txs.iter().map(|tx| tx.receipt.logs.len()).sum();
        frags.push(Arc::new(ExecutedFrag { seq, first_index, first_log, txs }));
        first_index += count;
        first_log += logs;
    }
    if executed.next().is_some() {
        return Err(Bad("its frags have fewer transactions than it holds"));
    }
    Ok(ExecutedBlock { attempt: body.attempt, hash, header, frags, withdrawals: body.withdrawals })
}
