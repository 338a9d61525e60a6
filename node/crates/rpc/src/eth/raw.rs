//! Blocks, headers, receipts and transactions as the bytes that they are hashed from; headers and
//! accounts by themselves.

use alloy_eips::BlockId;
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U64};
use alloy_rlp::{BufMut, Encodable};
use fragcast_execution::exec::ExecutedBlock;
use serde_json::{Value, json};

use super::blocks::{at_hash, at_number, by_hash, by_number, null, waiting, with_tx};
use super::types::{header as shown, withdrawals};
use super::{Answer, EthContext, Failure, Found, answer};
use crate::params::Params;
use crate::resolve::StateId;

/// The block named by the next parameter, which only a block that is sealed has bytes of: an open
/// one has no roots yet.
fn sealed(ctx: &EthContext, params: &Params<'_>) -> Result<Found, Failure> {
    let id: BlockId = params.sequence().next()?;
    let block = ctx.blocks.find(&*ctx.blocks.heads()?, id)?;
    if block.is_sealed() {
        return Ok(block);
    }
    let number = block.header.number;
    Err(Failure::unavailable(format!("block {number} is not sealed, so it has no encoding yet")))
}

pub(super) fn header(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    answer(&Bytes::from(alloy_rlp::encode(&sealed(ctx, params)?.header)))
}

pub(super) fn block(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    answer(&encoded(&*sealed(ctx, params)?.whole()?))
}

pub(super) fn receipts(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let id: BlockId = params.sequence().next()?;
    let block = ctx.blocks.find(&*ctx.blocks.heads()?, id)?.whole()?;
    let receipts = block.txs().map(|placed| placed.executed.receipt.encoded_2718());
    answer(&receipts.collect::<Vec<Bytes>>())
}

/// A block as RLP: its header, its transactions, no uncles, and its withdrawals, if it has a place
/// for them.
fn encoded(block: &ExecutedBlock) -> Bytes {
    let list = |payload: &[u8]| {
        let mut out = Vec::with_capacity(payload.len() + 9);
        alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
        out.put_slice(payload);
        out
    };
    let mut txs = Vec::new();
    for placed in block.txs() {
        let tx = &placed.executed.tx;
        // A legacy transaction is RLP itself; the others are strings.
        if tx.envelope.ty() == 0 { txs.put_slice(&tx.bytes) } else { tx.bytes.encode(&mut txs) }
    }
    let mut payload = alloy_rlp::encode(&block.header);
    payload.extend(list(&txs));
    payload.extend(list(&[]));
    if let Some(all) = withdrawals(block) {
        let mut out = Vec::new();
        all.iter().for_each(|withdrawal| withdrawal.encode(&mut out));
        payload.extend(list(&out));
    }
    list(&payload).into()
}

fn tx_at((block, index): (Found, U64)) -> Result<Answer, Failure> {
    let block = block.whole()?;
    let placed = usize::try_from(index.to::<u64>()).ok().and_then(|index| block.tx(index));
    placed.map_or_else(|| Ok(null()), |placed| answer::<Bytes>(&placed.executed.tx.bytes))
}

pub(super) fn tx_by_number(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    tx_at(at_number(ctx, params)?)
}

pub(super) fn tx_by_hash(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    tx_at(at_hash(ctx, params)?)
}

/// A transaction by its hash, also one that is forwarded and in no frag yet.
pub(super) fn tx(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let hash: B256 = params.sequence().next()?;
    let waiting = waiting(ctx, hash);
    match with_tx(ctx, hash, |_, placed| answer::<Bytes>(&placed.executed.tx.bytes)) {
        Err(failure) => waiting.map_or(Err(failure), |tx| answer::<Bytes>(&tx.bytes)),
        found => found,
    }
}

pub(super) fn header_by_number(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let block = by_number(ctx, &mut params.sequence())?;
    let Found::Open(open) = &block else { return answer(&shown(&*block.whole()?)) };
    // As `eth_getBlockByNumber` shows it.
    let mut header = serde_json::to_value(shown(open)).map_err(|e| Failure::internal(&e))?;
    (header["hash"], header["nonce"]) = (Value::Null, Value::Null);
    answer(&header)
}

pub(super) fn header_by_hash(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    answer(&shown(&*by_hash(ctx, &mut params.sequence())?.whole()?))
}

/// An account with its code, in one answer of one state.
pub(super) fn account_info(ctx: &EthContext, params: &Params<'_>) -> Result<Answer, Failure> {
    let mut params = params.sequence();
    let address: Address = params.next()?;
    let id: StateId = params.next()?;
    let snapshot = ctx.blocks.snapshot(id)?;
    let state = &snapshot.state;
    let account = state.account(address)?;
    let hash = account.map_or(KECCAK256_EMPTY, |account| account.code_hash);
    let code = state.code(hash)?.original_bytes();
    let balance = account.map(|account| account.balance).unwrap_or_default();
    let nonce = U64::from(account.map_or(0, |account| account.nonce));
    answer(&json!({ "balance": balance, "nonce": nonce, "code": code }))
}
