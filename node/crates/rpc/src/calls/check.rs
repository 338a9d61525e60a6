//! What is checked of a transaction before it runs, in geth's order and with its words: nonce, fees,
//! blobs, authorizations, funds. What follows, the gas that it needs at least and the size of init
//! code, revm checks.

use alloy_primitives::U256;
use alloy_rpc_types_eth::TransactionRequest;
use revm::Database;
use revm::context::TxEnv;
use revm::primitives::TxKind;
use revm::primitives::hardfork::SpecId;

use super::error::{CallError, SERVER_ERROR};
use super::evm::{Asked, Ground, Rules};
use super::outcome::{Failure, Invalid};

/// Gas of one blob (EIP-4844).
const GAS_PER_BLOB: u64 = 131_072;
/// The first byte of a blob's hash (EIP-4844).
const BLOB_VERSION: u8 = 1;

fn invalid(tx: &TxEnv, code: i32, text: String) -> Failure {
    Failure::Invalid(Invalid { code, text, gas: tx.gas_limit, gas_too_low: false })
}

/// The most that a request pays for gas, and the most of it that is a tip.
pub(super) fn fees(request: &TransactionRequest) -> Result<(u128, u128), CallError> {
    let (cap, tip) = (request.max_fee_per_gas, request.max_priority_fee_per_gas);
    match request.gas_price {
        Some(_) if cap.is_some() || tip.is_some() => {
            let what = "both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified";
            Err(CallError::Invalid(what.into()))
        }
        Some(price) => Ok((price, price)),
        None => Ok((cap.unwrap_or(0), tip.unwrap_or(0))),
    }
}

/// The chain's id, which a request must not contradict.
pub(super) fn chain_id(request: &TransactionRequest, want: u64) -> Result<u64, CallError> {
    match request.chain_id {
        Some(have) if have != want => {
            let what = format!("chainId does not match node's (have={have}, want={want})");
            Err(CallError::Invalid(what))
        }
        _ => Ok(want),
    }
}

/// All checks.
pub(super) fn before(ground: &mut Ground, asked: &Asked) -> Result<(), Failure> {
    let (rules, tx) = (ground.rules(), &asked.tx);
    if rules == Rules::Replay {
        return Ok(());
    }
    supported(ground, asked)?;
    let validation = rules == Rules::Simulate { validation: true };
    if validation {
        nonce(ground, tx)?;
    }
    let tip = tx.gas_priority_fee.unwrap_or(tx.gas_price);
    if validation || tx.gas_price != 0 || tip != 0 {
        prices(ground, tx, tip)?;
    }
    blobs(ground, tx, validation)?;
    if tx.tx_type == 4 {
        if tx.kind == TxKind::Create {
            let what = "EIP-7702 transaction cannot be used to create contract";
            return Err(invalid(tx, SERVER_ERROR, what.into()));
        }
        if tx.authorization_list.is_empty() {
            let what = "EIP-7702 transaction with empty auth list";
            return Err(invalid(tx, SERVER_ERROR, what.into()));
        }
    }
    funds(ground, tx)
}

/// Whether the block's fork has what the transaction needs.
fn supported(ground: &Ground, asked: &Asked) -> Result<(), Failure> {
    let tx = &asked.tx;
    let kind = match tx.tx_type {
        4 if !ground.has_fork(SpecId::PRAGUE) => "setcode tx",
        _ if asked.blobs && !ground.has_fork(SpecId::CANCUN) => "blob tx",
        _ => return Ok(()),
    };
    let what = format!("transaction type not supported: {kind} (sender {})", tx.caller);
    Err(invalid(tx, SERVER_ERROR, what))
}

fn nonce(ground: &mut Ground, tx: &TxEnv) -> Result<(), Failure> {
    let account = ground.db.basic(tx.caller).map_err(|e| Failure::Other(e.into()))?;
    let (state, address, nonce) = (account.map_or(0, |a| a.nonce), tx.caller, tx.nonce);
    let place = format!("address {address}, tx: {nonce} state: {state}");
    if nonce > state {
        return Err(invalid(tx, -38011, format!("nonce too high: {place}")));
    }
    if nonce < state {
        return Err(invalid(tx, -38010, format!("nonce too low: {place}")));
    }
    if state == u64::MAX {
        let what = format!("nonce has max value: address {address}, nonce: {state}");
        return Err(invalid(tx, super::error::INTERNAL, what));
    }
    Ok(())
}

fn prices(ground: &Ground, tx: &TxEnv, tip: u128) -> Result<(), Failure> {
    let (cap, address, base_fee) = (tx.gas_price, tx.caller, ground.block().basefee);
    if cap < tip {
        let what = format!(
            "max priority fee per gas higher than max fee per gas: address {address}, \
             maxPriorityFeePerGas: {tip}, maxFeePerGas: {cap}"
        );
        return Err(invalid(tx, super::error::INVALID_PARAMS, what));
    }
    if cap < base_fee.into() {
        let what = format!(
            "max fee per gas less than block base fee: address {address}, maxFeePerGas: {cap}, \
             baseFee: {base_fee}"
        );
        return Err(invalid(tx, -38012, what));
    }
    Ok(())
}

fn blobs(ground: &Ground, tx: &TxEnv, validation: bool) -> Result<(), Failure> {
    if tx.tx_type != 3 {
        return Ok(());
    }
    let wrong = |what: String| Err(invalid(tx, SERVER_ERROR, what));
    if tx.kind == TxKind::Create {
        return wrong("blob transaction of type create".into());
    }
    if tx.blob_hashes.is_empty() {
        return wrong("blob transaction missing blob hashes".into());
    }
    if let Some(at) = tx.blob_hashes.iter().position(|hash| hash[0] != BLOB_VERSION) {
        return wrong(format!("blob {at} has invalid hash version"));
    }
    let price = ground.block().blob_excess_gas_and_price.map_or(0, |blob| blob.blob_gasprice);
    let (cap, address) = (tx.max_fee_per_blob_gas, tx.caller);
    if cap < price && (validation || cap != 0) {
        return wrong(format!(
            "max fee per blob gas less than block blob gas fee: address {address} \
             blobGasFeeCap: {cap}, blobBaseFee: {price}"
        ));
    }
    Ok(())
}

fn funds(ground: &mut Ground, tx: &TxEnv) -> Result<(), Failure> {
    let blobs = U256::from(GAS_PER_BLOB * tx.blob_hashes.len() as u64);
    let want = (U256::from(tx.gas_limit) * U256::from(tx.gas_price))
        .saturating_add(blobs * U256::from(tx.max_fee_per_blob_gas))
        .saturating_add(tx.value);
    let have = ground.balance(tx.caller).map_err(Failure::Other)?;
    if have < want {
        let address = tx.caller;
        let what = format!(
            "insufficient funds for gas * price + value: address {address} have {have} want {want}"
        );
        return Err(invalid(tx, -38014, what));
    }
    Ok(())
}

/// Why a transaction failed that got no more gas than its sender can pay.
pub(super) fn poor(ground: &mut Ground, tx: &TxEnv, failure: &Failure) -> Failure {
    let text = match failure {
        Failure::Invalid(invalid) => &*invalid.text,
        Failure::Other(_) => "",
    };
    let have = match ground.balance(tx.caller) {
        Ok(have) => have,
        Err(error) => return Failure::Other(error),
    };
    let (address, gas) = (tx.caller, tx.gas_limit);
    let what = format!(
        "insufficient funds for gas * price + value: address {address} have {have}, which pays \
         for {gas} gas: {text}"
    );
    invalid(tx, -38014, what)
}
