//! `eth_estimateGas`: the smallest gas limit with which a transaction succeeds, as geth finds it.
//!
//! The gas used is not enough: a callee gets 63/64 of what is left (EIP-150), and refunds come at
//! the end. So the limit is searched for, between the gas used and a limit that sufficed.

use revm::Database;
use revm::context::TxEnv;
use revm::inspector::NoOpInspector;
use revm::primitives::hardfork::SpecId;
use revm::primitives::{KECCAK_EMPTY, TxKind, U256};

use super::error::CallError;
use super::evm::{Asked, Ground};
use super::outcome::{Failure, Outcome, Status};
use super::{CallArgs, CallSite};

/// Gas of moving ether to an account without code.
const TRANSFER_GAS: u64 = 21_000;
/// Gas that a callee gets for free with a value.
const CALL_STIPEND: u64 = 2_300;
/// Gas of one blob (EIP-4844).
const GAS_PER_BLOB: u64 = 131_072;
/// The search ends when the bounds are this close: 1.5 %, geth's.
const ERROR_RATIO: f64 = 0.015;

/// Runs the transaction; `None` if the gas did not cover its intrinsic cost.
fn run(ground: &mut Ground, asked: &Asked, gas: u64) -> Result<Option<Outcome>, CallError> {
    let tx = TxEnv { gas_limit: gas, ..asked.tx.clone() };
    match ground.transact(&Asked { tx, poor: false, ..*asked }, &mut NoOpInspector) {
        Ok(outcome) => Ok(Some(outcome)),
        Err(failure) if failure.is_gas_too_low() => Ok(None),
        Err(Failure::Invalid(invalid)) => {
            Err(CallError::Invalid(format!("failed with {gas} gas: {}", invalid.text)))
        }
        Err(Failure::Other(error)) => Err(error),
    }
}

fn succeeds(ground: &mut Ground, asked: &Asked, gas: u64) -> Result<bool, CallError> {
    Ok(run(ground, asked, gas)?.is_some_and(|outcome| outcome.status == Status::Success))
}

/// The most gas that there is for the transaction.
fn most(ground: &mut Ground, tx: &TxEnv, given: Option<u64>) -> Result<u64, CallError> {
    let mut high = given.unwrap_or(ground.block().gas_limit).min(ground.fork_gas());
    let balance = ground.balance(tx.caller)?;
    // What has a price needs something beside its value, as in geth.
    let priced = tx.gas_price > 0;
    if balance < tx.value || priced && balance == tx.value {
        return Err(CallError::Invalid("insufficient funds for transfer".into()));
    }
    if priced {
        let mut available = balance - tx.value;
        if !tx.blob_hashes.is_empty() && ground.has_fork(SpecId::CANCUN) {
            let blobs = U256::from(GAS_PER_BLOB * tx.blob_hashes.len() as u64);
            let blobs = blobs * U256::from(tx.max_fee_per_blob_gas);
            if blobs >= available {
                let what = "insufficient funds for gas * price + value";
                return Err(CallError::Invalid(what.into()));
            }
            available -= blobs;
        }
        let allowance = available / U256::from(tx.gas_price);
        high = high.min(allowance.saturating_to());
    }
    Ok(high.min(ground.gas_cap()))
}

/// The least gas with which the transaction succeeds, within 1.5 %.
pub(super) fn estimate(site: &CallSite, args: CallArgs) -> Result<u64, CallError> {
    let mut ground = site.ground(args.overrides, args.state)?;
    let given = args.request.gas.filter(|gas| *gas >= TRANSFER_GAS);
    let asked = ground.tx(args.request)?;
    let tx = &asked.tx;
    let mut high = most(&mut ground, tx, given)?;

    if let TxKind::Call(to) = tx.kind
        && tx.data.is_empty()
        && ground.db.basic(to)?.is_none_or(|account| account.code_hash == KECCAK_EMPTY)
        && high >= TRANSFER_GAS
        // What is wrong with it is told with all the gas that it may have.
        && matches!(succeeds(&mut ground, &asked, TRANSFER_GAS), Ok(true))
    {
        return Ok(TRANSFER_GAS);
    }

    let exceeded = || CallError::Invalid(format!("gas required exceeds allowance ({high})"));
    let first = run(&mut ground, &asked, high)?.ok_or_else(exceeded)?;
    match &first.status {
        Status::Success => {}
        Status::Halted(_, true) => return Err(exceeded()),
        Status::Halted(..) | Status::Reverted => {
            first.into_output()?;
            return Err(CallError::Internal);
        }
    }
    let mut low = first.gas_used.saturating_sub(1);
    // Very likely this is enough already, and close.
    let guess = first.gas_spent.saturating_add(CALL_STIPEND).saturating_mul(64) / 63;
    if guess < high {
        if succeeds(&mut ground, &asked, guess)? { high = guess } else { low = guess }
    }
    while low + 1 < high && (high - low) as f64 / high as f64 >= ERROR_RATIO {
        // Most transactions need little more than the lower bound.
        let middle = low.midpoint(high).min(low.saturating_mul(2));
        if succeeds(&mut ground, &asked, middle)? { high = middle } else { low = middle }
    }
    Ok(high)
}
